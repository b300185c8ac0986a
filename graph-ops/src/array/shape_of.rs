//! The shape of a tensor as gradients and composite functions write it: a constant where it is known.

use graph_core::graph::{OpBuilder, Tensor};
use graph_core::{DType, Result, Value};

/// A fully known shape as the value that a `Shape` op would give.
pub(crate) fn static_shape(tensor: &Tensor, out_type: DType) -> Result<Option<Value>> {
    let Some(shape) = tensor.shape().to_shape() else {
        return Ok(None);
    };
    Ok(Some(match out_type {
        DType::Int64 => Value::from(shape.iter().map(|&dim| dim as i64).collect::<Vec<_>>()),
        _ => Value::int32_vector(shape.iter().map(|&dim| dim as i32)),
    }))
}

/// The shape of `tensor` as an `int32` vector named `name`: a `Const` where it is fully known, else a `Shape` op.
#[track_caller]
pub(crate) fn shape_of(tensor: &Tensor, name: &str) -> Result<Tensor> {
    match static_shape(tensor, DType::Int32)? {
        Some(value) => graph_core::graph::builder::constant_in(tensor.graph(), value, name),
        None => OpBuilder::new("Shape").input(tensor).name(name).build(),
    }
}

/// The number of elements of `tensor` as an `int32` named `name`: a `Const` where it is known, else a `Size` op.
#[track_caller]
pub(crate) fn size_of(tensor: &Tensor, name: &str) -> Result<Tensor> {
    match tensor.shape().num_elements() {
        Some(size) => graph_core::graph::builder::constant_in(tensor.graph(), Value::from(size as i32), name),
        None => OpBuilder::new("Size").input(tensor).name(name).build(),
    }
}

/// The rank of `tensor` as an `int32` named `name`: a `Const` where it is known, else a `Rank` op.
#[track_caller]
pub(crate) fn rank_of(tensor: &Tensor, name: &str) -> Result<Tensor> {
    match tensor.shape().rank() {
        Some(rank) => graph_core::graph::builder::constant_in(tensor.graph(), Value::from(rank as i32), name),
        None => OpBuilder::new("Rank").input(tensor).name(name).build(),
    }
}
