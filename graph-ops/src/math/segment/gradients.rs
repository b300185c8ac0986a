//! Gradients of segment ops, node for node those of TensorFlow 1.15.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::{DType, Result, Value};

use crate::math::nodes::Nodes;

pub(super) fn segment_sum(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = Nodes::of(context).gather(&context.gradient(0)?, &context.input(1))?;
    Ok(vec![Some(gradient), None])
}

pub(super) fn segment_mean(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (ids, gradient) = (context.input(1), context.gradient(0)?);
    let rank = nodes.rank(&context.input(0))?;
    let ids_shape = nodes.shape(&ids)?;
    let others = nodes.sub(&rank, 1i32)?;
    let others = nodes.node("ExpandDims").input(&others).input(0i32).build()?;
    let others = nodes.node("Fill").input(&others).input(1i32).build()?;
    let shape = nodes.concat(vec![ids_shape.into_operand(), others.into_operand()])?;
    let one = nodes.scalar(1, gradient.dtype(), "Const")?;
    let ones = nodes.node("Fill").input(&shape).input(&one).build()?;
    let counts = nodes.node("SegmentSum").input(&ones).input(&ids).build()?;
    let scaled = nodes.truediv(&gradient, &counts)?;
    Ok(vec![Some(nodes.gather(&scaled, &ids)?), None])
}

/// The gradient goes evenly to all elements of a segment that are its extremum.
pub(super) fn segment_extremum(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (data, ids, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let zeros = nodes.zeros_like(&data)?;
    let outputs = nodes.gather(&context.output(0), &ids)?;
    let selected = nodes.binary("Equal", "Equal", &data, &outputs)?;
    let ones = nodes.cast(&selected, gradient.dtype())?;
    let counts = nodes.node("SegmentSum").input(&ones).input(&ids).build()?;
    let shares = nodes.truediv(&gradient, &counts)?;
    let shares = nodes.gather(&shares, &ids)?;
    Ok(vec![Some(nodes.select(&selected, &shares, &zeros)?), None])
}

/// Rows gathered by segment numbers, zero where the number is negative.
struct Gathered {
    rows: Tensor,
    /// The numbers with zero in place of negative ones.
    clipped: Tensor,
    is_positive: Tensor,
}

fn clip(nodes: &Nodes<'_>, ids: &Tensor) -> Result<Tensor> {
    let zeros = nodes.zeros_like(ids)?;
    nodes.binary("Maximum", "Maximum", ids, &zeros)
}

fn gather_positive(nodes: &Nodes<'_>, params: &Tensor, ids: &Tensor, clipped: Option<Tensor>) -> Result<Gathered> {
    let clipped = match clipped {
        Some(clipped) => clipped,
        None => clip(nodes, ids)?,
    };
    let gathered = nodes.gather(params, &clipped)?;
    let mut is_positive = nodes.binary("GreaterEqual", "GreaterEqual", ids, 0)?;
    let missing = match (gathered.shape().rank(), is_positive.shape().rank()) {
        (Some(rank), Some(own)) => rank - own,
        _ => 0,
    };
    for _ in 0..missing {
        is_positive = nodes.node("ExpandDims").input(&is_positive).input(-1i32).build()?;
    }
    let all = nodes.ones_like(&gathered, DType::Bool)?;
    let is_positive = nodes.binary("LogicalAnd", "and", &is_positive, &all)?;
    let zeros = nodes.zeros_like(&gathered)?;
    Ok(Gathered {
        rows: nodes.select(&is_positive, &gathered, &zeros)?,
        clipped,
        is_positive,
    })
}

pub(super) fn unsorted_sum(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let gathered = gather_positive(&nodes, &context.gradient(0)?, &context.input(1), None)?;
    Ok(vec![Some(gathered.rows), None, None])
}

fn unsorted_node(nodes: &Nodes<'_>, op: &str, data: &Tensor, context: &GradientContext<'_>) -> Result<Tensor> {
    let node = nodes.node(op).input(data).input(context.input(1));
    node.input(context.input(2)).build()
}

pub(super) fn unsorted_extremum(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (data, ids, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let outputs = gather_positive(&nodes, &context.output(0), &ids, None)?;
    let selected = nodes.binary("Equal", "Equal", &data, &outputs.rows)?;
    let selected = nodes.binary("LogicalAnd", "LogicalAnd", &selected, &outputs.is_positive)?;
    let ones = nodes.cast(&selected, gradient.dtype())?;
    let counts = unsorted_node(&nodes, "UnsortedSegmentSum", &ones, context)?;
    let shares = nodes.truediv(&gradient, &counts)?;
    let gathered = nodes.gather(&shares, &outputs.clipped)?;
    let zeros = nodes.zeros_like(&gathered)?;
    let shares = nodes.select(&outputs.is_positive, &gathered, &zeros)?;
    let zeros = nodes.zeros_like(&shares)?;
    Ok(vec![Some(nodes.select(&selected, &shares, &zeros)?), None, None])
}

/// The product of all others: by division where no element is zero, by the product of the rest for a single zero, and
/// nothing where a segment has several.
pub(super) fn unsorted_prod(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (data, ids, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let zero = Value::from(0i64).cast_exactly(data.dtype())?;
    let is_zero = nodes.binary("Equal", "Equal", &data, Operand::Array(zero))?;
    let ones = nodes.cast(&is_zero, DType::Int32)?;
    let zero_counts = unsorted_node(&nodes, "UnsortedSegmentSum", &ones, context)?;
    let several = nodes.binary("Greater", "Greater", &zero_counts, 1i32)?;
    let zeros = nodes.zeros_like(&gradient)?;
    let gradient = nodes.select(&several, &zeros, &gradient)?;
    let ones = nodes.ones_like(&data, data.dtype())?;
    let without_zeros = nodes.select(&is_zero, &ones, &data)?;
    let products = unsorted_node(&nodes, "UnsortedSegmentProd", &without_zeros, context)?;
    let clipped = clip(&nodes, &ids)?;
    let gathered = nodes.gather(&context.output(0), &clipped)?;
    let gathered_products = nodes.gather(&products, &clipped)?;
    let quotients = nodes.truediv(&gathered, &data)?;
    let partial = nodes.select(&is_zero, &gathered_products, &quotients)?;
    let gathered = gather_positive(&nodes, &gradient, &ids, Some(clipped))?;
    Ok(vec![Some(nodes.mul(&gathered.rows, &partial)?), None, None])
}
