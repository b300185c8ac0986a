//! `report_uninitialized_variables`: the names of variables that have no value yet.

use graph_core::graph::scope::{self, name_scope_in};
use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::{DType, Graph, Result, Tensor, Value, Variable};

/// The names of those of `variables` that have no value in the session that runs it: a vector of strings.
///
/// TensorFlow reports all global and local variables unless told otherwise: give it
/// [`global_variables`](super::global_variables) and [`local_variables`](super::local_variables).
///
/// # Errors
/// `FailedPrecondition` if the graph is finalized.
#[track_caller]
pub fn report_uninitialized_variables(variables: &[Variable]) -> Result<Tensor> {
    crate::install();
    let graph = variables
        .first()
        .map_or_else(Graph::current, |variable| variable.graph().clone());
    let _default = graph.as_default();
    let _scope = name_scope_in(&graph, "report_uninitialized_variables")?;
    let initialized: Vec<Tensor> = variables
        .iter()
        .map(|variable| super::is_variable_initialized(variable).build())
        .collect::<Result<_>>()?;
    let _device = scope::device("/cpu:0")?;
    let names: Vec<Vec<u8>> = variables
        .iter()
        .map(|variable| variable.op().name().into_bytes())
        .collect();
    let names = Value::from_strings([names.len()], names)?;
    if variables.is_empty() {
        return crate::array::constant(names).build();
    }
    let stacked = OpBuilder::new("Pack").input(initialized).name("stack").build()?;
    let missing = OpBuilder::new("LogicalNot").input(stacked).build()?;
    let names = crate::array::constant(names).build()?;
    masked(&graph, &names, &missing)
}

/// The elements of a vector where `mask` is true, by the nodes that `tf.boolean_mask` makes.
fn masked(graph: &Graph, vector: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let _scope = name_scope_in(graph, "boolean_mask")?;
    let len = vector.shape().dim(0).unwrap_or(0) as i32;
    // A part of the vector's shape, as Python's slices say it; `None` leaves an end open.
    let part = |from: Option<i32>, to: Option<i32>| {
        let shape = crate::array::constant(Value::int32_vector([len]))
            .name("Shape")
            .build()?;
        let scope = name_scope_in(graph, "strided_slice")?;
        let end = |at: Option<i32>, name: &str| {
            let at = Value::int32_vector([at.unwrap_or(0)]);
            crate::array::constant(at).name(name).build()
        };
        let (begin, end, step) = (end(from, "stack")?, end(to, "stack_1")?, end(Some(1), "stack_2")?);
        OpBuilder::new("StridedSlice")
            .input(shape)
            .input(begin)
            .input(end)
            .input(step)
            .attr("begin_mask", from.is_none() as i64)
            .attr("end_mask", to.is_none() as i64)
            .name(scope.scope_name())
            .build()
    };
    // The axes, given as a plain list, are a constant under the op's own name.
    let leading = OpBuilder::new("Prod")
        .input(part(Some(0), Some(1))?)
        .input([0i32])
        .build()?;
    let (before, after) = (part(None, Some(0))?, part(Some(1), None)?);
    let shape = {
        let scope = name_scope_in(graph, "concat")?;
        let leading = OpBuilder::new("Pack").input([leading]).name("values_1").build()?;
        let axis = crate::array::constant(0i32).name("axis").build()?;
        let parts = OpBuilder::new("ConcatV2").input([before, leading, after]);
        parts.input(axis).name(scope.scope_name()).build()?
    };
    let vector = OpBuilder::new("Reshape").input(vector).input(shape).build()?;
    let mask = OpBuilder::new("Reshape")
        .input(mask)
        .input([-1i32].into_operand())
        .build()?;
    let positions = OpBuilder::new("Where").input(mask).build()?;
    let positions = OpBuilder::new("Squeeze")
        .input(positions)
        .attr("squeeze_dims", [1i64])
        .build()?;
    debug_assert_eq!(positions.dtype(), DType::Int64);
    let gathered = OpBuilder::new("GatherV2").input(vector).input(positions);
    gathered.input(0i32).build()
}
