//! TensorArrays: arrays of tensors that are written and read one by one, as loops do.
//!
//! An array lives as long as the run. What is done with it is put in order by its flow, a number that each operation that
//! changes the array hands on: a read sees the writes that its flow comes from.

mod elements;
mod gradients;
pub(super) mod ops;
mod parts;

use graph_core::graph::scope::{colocate_with, name_scope};
use graph_core::graph::{IntoOperand, OpBuilder, Operation, Tensor};
use graph_core::{DType, PartialShape, Result};

use crate::array::shape_of::shape_of;
use crate::array::{Index, index};
use crate::math::range;

/// An array of tensors of one dtype, as far as a flow of operations has changed it. Clones are the same array.
///
/// ```
/// use graph_core::{Graph, Session, Value};
/// use graph_ops::control::TensorArray;
/// # fn main() -> graph_core::Result<()> {
/// let graph = Graph::new();
/// let _default = graph.as_default();
/// let squares = TensorArray::new(graph_core::DType::Float32, 2)?;
/// let squares = squares.write(0, [1.0f32, 2.0])?.write(1, [3.0f32, 4.0])?;
/// let both: Value = Session::new(&graph)?.run(squares.stack()?, ())?;
/// assert_eq!(both, [[1.0f32, 2.0], [3.0, 4.0]].into());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TensorArray {
    handle: Tensor,
    flow: Tensor,
    dtype: DType,
}

impl TensorArray {
    /// An array of `size` elements, a scalar `int32`; what is read is taken away.
    ///
    /// # Errors
    /// Those of making a node.
    #[track_caller]
    pub fn new(dtype: DType, size: impl IntoOperand) -> Result<Self> {
        Self::with(dtype, size, |op| op)
    }

    /// An array of `size` elements with further attributes: `element_shape`, `dynamic_size`, `clear_after_read`,
    /// `identical_element_shapes`, `tensor_array_name`.
    ///
    /// # Errors
    /// Those of making a node.
    #[track_caller]
    pub fn with(dtype: DType, size: impl IntoOperand, attributes: impl FnOnce(OpBuilder) -> OpBuilder) -> Result<Self> {
        let op = crate::op("TensorArrayV3").input(size).attr("dtype", dtype);
        let outputs = attributes(op).default_name("TensorArray").build_all()?;
        Ok(Self {
            handle: outputs[0].clone(),
            flow: outputs[1].clone(),
            dtype,
        })
    }

    /// The handle that names the array.
    pub fn handle(&self) -> &Tensor {
        &self.handle
    }

    /// The flow behind all that has changed the array.
    pub fn flow(&self) -> &Tensor {
        &self.flow
    }

    /// The array with another flow, as it comes out of a loop.
    pub fn with_flow(&self, flow: Tensor) -> Self {
        Self { flow, ..self.clone() }
    }

    fn op(&self, op: &str) -> OpBuilder {
        crate::op(op).input(&self.handle)
    }

    /// The array with element `index`, a scalar `int32`, set to `value`.
    ///
    /// # Errors
    /// Those of making a node.
    #[track_caller]
    pub fn write(&self, index: impl IntoOperand, value: impl IntoOperand) -> Result<Self> {
        let _scope = name_scope("TensorArrayWrite")?;
        let _beside = colocate_with(&self.handle.op());
        let write = self
            .op("TensorArrayWriteV3")
            .input(index)
            .input(value)
            .input(&self.flow);
        Ok(self.with_flow(write.attr("T", self.dtype).build()?))
    }

    /// Element `index`, a scalar `int32`.
    ///
    /// # Errors
    /// Those of making a node.
    #[track_caller]
    pub fn read(&self, index: impl IntoOperand) -> Result<Tensor> {
        let _beside = colocate_with(&self.handle.op());
        let read = self.op("TensorArrayReadV3").input(index).input(&self.flow);
        read.attr("dtype", self.dtype).build()
    }

    /// The elements `indices`, an `int32` vector, stacked along a new first axis.
    ///
    /// # Errors
    /// Those of making a node.
    #[track_caller]
    pub fn gather(&self, indices: impl IntoOperand) -> Result<Tensor> {
        let _beside = colocate_with(&self.handle.op());
        let gather = self.op("TensorArrayGatherV3").input(indices).input(&self.flow);
        gather.attr("dtype", self.dtype).build()
    }

    /// All elements, stacked along a new first axis.
    ///
    /// # Errors
    /// Those of making a node.
    #[track_caller]
    pub fn stack(&self) -> Result<Tensor> {
        let _scope = name_scope("TensorArrayStack")?;
        self.gather(range(0, self.size()?))
    }

    /// The array with the elements `indices`, an `int32` vector, set to the parts of `value` along its first axis.
    ///
    /// # Errors
    /// Those of making a node.
    #[track_caller]
    pub fn scatter(&self, indices: impl IntoOperand, value: impl IntoOperand) -> Result<Self> {
        let _scope = name_scope("TensorArrayScatter")?;
        let _beside = colocate_with(&self.handle.op());
        let scatter = self
            .op("TensorArrayScatterV3")
            .input(indices)
            .input(value)
            .input(&self.flow);
        Ok(self.with_flow(scatter.attr("T", self.dtype).build()?))
    }

    /// The array with its first elements set to the parts of `value` along its first axis.
    ///
    /// # Errors
    /// `InvalidArgument` for a scalar, and those of making a node.
    #[track_caller]
    pub fn unstack(&self, value: impl IntoOperand) -> Result<Self> {
        let _scope = name_scope("TensorArrayUnstack")?;
        let value = value
            .into_operand()
            .to_tensor(self.handle.graph(), "value", Some(self.dtype))?;
        let count = index(shape_of(&value, "Shape")?, [Index::from(0)]).build()?;
        self.scatter(range(0, count), value)
    }

    /// The elements behind each other along their first axis, and their lengths along it, as `int64`.
    ///
    /// # Errors
    /// Those of making a node.
    #[track_caller]
    pub fn concat(&self) -> Result<(Tensor, Tensor)> {
        let _beside = colocate_with(&self.handle.op());
        let concat = self
            .op("TensorArrayConcatV3")
            .input(&self.flow)
            .attr("dtype", self.dtype);
        let outputs = concat.build_all()?;
        Ok((outputs[0].clone(), outputs[1].clone()))
    }

    /// The array with its elements set to parts of `value`, of these `lengths` (an `int64` vector) along its first axis.
    ///
    /// # Errors
    /// Those of making a node.
    #[track_caller]
    pub fn split(&self, value: impl IntoOperand, lengths: impl IntoOperand) -> Result<Self> {
        let _scope = name_scope("TensorArraySplit")?;
        let _beside = colocate_with(&self.handle.op());
        let split = self
            .op("TensorArraySplitV3")
            .input(value)
            .input(lengths)
            .input(&self.flow);
        Ok(self.with_flow(split.attr("T", self.dtype).build()?))
    }

    /// The number of elements, a scalar `int32`.
    ///
    /// # Errors
    /// Those of making a node.
    #[track_caller]
    pub fn size(&self) -> Result<Tensor> {
        let _beside = colocate_with(&self.handle.op());
        self.op("TensorArraySizeV3").input(&self.flow).build()
    }

    /// Drops what the array holds before the run ends.
    ///
    /// # Errors
    /// Those of making a node.
    #[track_caller]
    pub fn close(&self) -> Result<Operation> {
        let _beside = colocate_with(&self.handle.op());
        self.op("TensorArrayCloseV3").build_operation()
    }

    /// An array of the dtype's elements whose shapes agree with `shape`, made as [`TensorArray::new`] makes it.
    ///
    /// # Errors
    /// Those of making a node.
    #[track_caller]
    pub fn of_shape(dtype: DType, size: impl IntoOperand, shape: impl Into<PartialShape>) -> Result<Self> {
        Self::with(dtype, size, |op| op.attr("element_shape", shape.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::constant;
    use graph_core::{Graph, Session, Value};

    #[test]
    fn parts_come_back_as_they_were_put_in() -> Result<()> {
        let graph = Graph::new();
        let _default = graph.as_default();
        let array = TensorArray::new(DType::Float32, 2)?;
        let split = array.split([[1.0f32], [2.0], [3.0]], [1i64, 2])?;
        let (all, lengths) = split.concat()?;
        let words = TensorArray::new(DType::String, 3)?.scatter([2, 0, 1], constant(["c", "a", "b"]))?;
        let session = Session::new(&graph)?;
        let (all, lengths): (Value, Value) = session.run((&all, &lengths), ())?;
        assert_eq!((all, lengths), ([[1.0f32], [2.0], [3.0]].into(), [1i64, 2].into()));
        let words: Value = session.run(words.stack()?, ())?;
        assert_eq!(words.as_strings()?, [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
        let sized: Value = session.run(TensorArray::of_shape(DType::Int32, 1, [2usize])?.read(0)?, ())?;
        assert_eq!(sized, [0i32, 0].into());
        Ok(())
    }

    #[test]
    fn gradients_flow_through_each_way_in_and_out() -> Result<()> {
        let graph = Graph::new();
        let _default = graph.as_default();
        let x = constant([[1.0f32, 2.0], [3.0, 4.0]]).build()?;
        let new = || TensorArray::with(DType::Float32, 2, |op| op.attr("clear_after_read", false));
        let session = Session::new(&graph)?;
        let slope = |y: &Tensor| -> Result<Value> {
            let squares = crate::op("Square").input(y).build()?;
            let gradient = graph_core::gradients([&squares], [&x])?
                .build()?
                .remove(0)
                .expect("a gradient");
            session.run(&gradient, ())
        };
        let doubled: Value = [[2.0f32, 4.0], [6.0, 8.0]].into();
        assert_eq!(slope(&new()?.scatter([0, 1], &x)?.stack()?)?, doubled);
        assert_eq!(slope(&new()?.split(&x, [1i64, 1])?.concat()?.0)?, doubled);
        let twice = new()?.write(1, &x)?;
        let sum = crate::op("AddV2").input(twice.read(1)?).input(twice.read(1)?).build()?;
        assert_eq!(slope(&sum)?, [[8.0f32, 16.0], [24.0, 32.0]].into());
        Ok(())
    }

    #[test]
    fn each_run_has_arrays_of_its_own() -> Result<()> {
        let graph = Graph::new();
        let _default = graph.as_default();
        let read = TensorArray::new(DType::Float32, 1)?.write(0, 2.0f32)?.read(0)?;
        let session = Session::new(&graph)?;
        for _ in 0..3 {
            assert_eq!(session.run::<f32>(&read, ())?, 2.0);
        }
        Ok(())
    }
}
