//! Gradients of reductions, node for node those of TensorFlow 1.15.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Operand, Tensor, scope};
use graph_core::{DType, Result, Value};

use super::reduced_axes;
use crate::math::nodes::Nodes;

/// The shape of a reduction's input with the reduced axes at one, computed by nodes.
fn reduced_shape(nodes: &Nodes<'_>, input_shape: &Tensor, axes: &Tensor) -> Result<Tensor> {
    let axes = nodes.cast(axes, DType::Int32)?;
    let rank = nodes.size(input_shape)?;
    let axes = nodes.add(&axes, &rank)?;
    let axes = nodes.binary("FloorMod", "mod", &axes, &rank)?;
    let axes_shape = nodes.shape(&axes)?;
    let all = nodes.range(0, &rank)?;
    let ones = nodes.node("Fill").input(&axes_shape).input(1i32).build()?;
    nodes
        .node("DynamicStitch")
        .input([&all, &axes])
        .input([input_shape, &ones])
        .build()
}

/// A constant as `tf.cast` of a tuple makes it.
fn cast_constant(nodes: &Nodes<'_>, values: &[i32]) -> Result<Tensor> {
    let _scope = scope::name_scope_in(nodes.graph(), "Cast")?;
    nodes.constant(values, "x")
}

/// The gradient of `Sum`: the incoming one spread over the input's shape.
pub(super) fn sum(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    Ok(vec![Some(spread(context)?), None])
}

fn spread(context: &GradientContext<'_>) -> Result<Tensor> {
    let nodes = Nodes::of(context);
    let (input, axes, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let shape = input.shape();
    if let (Some(dims), Some(axes)) = (shape.dims(), axes.constant_value()) {
        let axes = axes.to_i64_vec()?;
        let rank = dims.len();
        if axes.iter().copied().eq(0..rank as i64) {
            let gradient = nodes.reshape(&gradient, ones(rank))?;
            let multiples = match shape.to_shape() {
                Some(shape) => nodes.constant(int32s(&shape), "Const")?,
                None => nodes.shape(&input)?,
            };
            return nodes.tile(&gradient, &multiples);
        }
        if let Some(shape) = shape.to_shape() {
            return spread_statically(&nodes, &shape, &axes, &gradient);
        }
    }
    let shape = nodes.shape(&input)?;
    let (kept, multiples) = {
        let _colocation = scope::colocate_with(&shape.op());
        let kept = reduced_shape(&nodes, &shape, &axes)?;
        let multiples = nodes.shape_quotient(&shape, &kept)?;
        (kept, multiples)
    };
    let gradient = nodes.reshape(&gradient, &kept)?;
    nodes.tile(&gradient, &multiples)
}

/// Everything is known: the shapes are constants. TensorFlow computes them by nodes once a graph for each shape and axes,
/// and those nodes stay in the graph.
fn spread_statically(nodes: &Nodes<'_>, shape: &[usize], axes: &[i64], gradient: &Tensor) -> Result<Tensor> {
    let reduced = reduced_axes(axes, shape.len(), false)?;
    let dims = shape.iter().zip(&reduced);
    let kept: Vec<i32> = dims
        .clone()
        .map(|(&dim, &reduced)| if reduced { 1 } else { dim as i32 })
        .collect();
    let multiples: Vec<i32> = dims
        .map(|(&dim, &reduced)| if reduced { dim as i32 } else { i32::from(dim > 0) })
        .collect();
    if nodes.graph().first_time(format!("reduced shape {shape:?} {axes:?}")) {
        let shape_node = cast_constant(nodes, &int32s(shape))?;
        let axes_node = cast_constant(nodes, &axes.iter().map(|&axis| axis as i32).collect::<Vec<_>>())?;
        let kept_node = reduced_shape(nodes, &shape_node, &axes_node)?;
        nodes.shape_quotient(Value::from(int32s(shape)), &kept_node)?;
    }
    let gradient = nodes.reshape(gradient, Value::from(kept))?;
    nodes.tile(&gradient, Value::from(multiples))
}

fn ones(rank: usize) -> Value {
    Value::from(vec![1i32; rank])
}

fn int32s(shape: &[usize]) -> Vec<i32> {
    shape.iter().map(|&dim| dim as i32).collect()
}

/// The gradient of `Mean`: that of `Sum`, divided by the number of elements in each mean.
pub(super) fn mean(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let spread = spread(context)?;
    let nodes = Nodes::of(context);
    let (input, output) = (context.input(0), context.output(0));
    let factor = match (input.shape().num_elements(), output.shape().num_elements()) {
        (Some(inputs), Some(outputs)) => nodes.scalar((inputs / outputs.max(1)) as i64, spread.dtype(), "Const")?,
        _ => {
            let (input_shape, output_shape) = (nodes.shape(&input)?, nodes.shape(&output)?);
            let inputs = nodes.reduce("Prod", &input_shape, None, false)?;
            let outputs = nodes.reduce("Prod", &output_shape, None, false)?;
            nodes.shape_quotient(&inputs, &outputs)?
        }
    };
    let factor = nodes.cast(&factor, spread.dtype())?;
    Ok(vec![Some(nodes.truediv(&spread, &factor)?), None])
}

/// The gradient of `Min` and `Max`, shared evenly by all elements that are the extremum.
pub(super) fn min_or_max(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (input, axes, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let input_shape = nodes.shape(&input)?;
    let kept = reduced_shape(&nodes, &input_shape, &axes)?;
    let output = nodes.reshape(&context.output(0), &kept)?;
    let gradient = nodes.reshape(&gradient, &kept)?;
    let equal = nodes.binary("Equal", "Equal", &output, &input)?;
    let indicators = nodes.cast(&equal, gradient.dtype())?;
    let selected = nodes.reduce("Sum", &indicators, Some(axes.into_operand()), false)?;
    let selected = nodes.reshape(&selected, &kept)?;
    let share = nodes.truediv(&indicators, &selected)?;
    Ok(vec![Some(nodes.mul(&share, &gradient)?), None])
}

/// The gradient of `EuclideanNorm`: x / (norm / gradient).
pub(super) fn euclidean_norm(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (input, axes) = (context.input(0), context.input(1));
    let (mut norm, mut gradient) = (context.output(0), context.gradient(0)?);
    if !context.attr::<bool>("keep_dims")? {
        let input_shape = nodes.shape(&input)?;
        let kept = reduced_shape(&nodes, &input_shape, &axes)?;
        norm = nodes.reshape(&norm, &kept)?;
        gradient = nodes.reshape(&gradient, &kept)?;
    }
    let ratio = nodes.truediv(&norm, &gradient)?;
    Ok(vec![Some(nodes.truediv(&input, &ratio)?), None])
}

/// The gradient of `Prod`: for each element the product of all others, of those before it and those behind it.
pub(super) fn prod(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (input, axes, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let input_shape = nodes.shape(&input)?;
    let flat_axes = nodes.reshape(&axes, Value::from([-1i32]))?;
    let kept = reduced_shape(&nodes, &input_shape, &axes)?;
    let multiples = nodes.shape_quotient(&input_shape, &kept)?;
    let gradient = nodes.reshape(&gradient, &kept)?;
    let gradient = nodes.tile(&gradient, &multiples)?;
    let (permutation, reduced_num, other_num) = {
        let _device = scope::device("/cpu:0")?;
        let rank = nodes.rank(&input)?;
        let reduced = nodes.add(&flat_axes, &rank_as(&nodes, &rank, &flat_axes)?)?;
        let reduced = nodes.binary("FloorMod", "mod", &reduced, &rank_as(&nodes, &rank, &flat_axes)?)?;
        let reduced = nodes.cast(&reduced, DType::Int32)?;
        let all = nodes.range(0, &rank)?;
        let other = nodes.node("ListDiff").input(&all).input(&reduced).build()?;
        let permutation = nodes.concat(vec![(&reduced).into_operand(), (&other).into_operand()])?;
        let lengths = nodes.gather(&input_shape, &reduced)?;
        let reduced_num = nodes.reduce("Prod", &lengths, None, false)?;
        let lengths = nodes.gather(&input_shape, &other)?;
        let other_num = nodes.reduce("Prod", &lengths, None, false)?;
        (permutation, reduced_num, other_num)
    };
    let transpose = |x: &Tensor, permutation: &Tensor| nodes.binary("Transpose", "transpose", x, permutation);
    let permuted = transpose(&input, &permutation)?;
    let permuted_shape = nodes.shape(&permuted)?;
    let shape: Vec<Operand> = vec![reduced_num.into_operand(), other_num.into_operand()];
    let reshaped = nodes.reshape(&permuted, shape)?;
    let others = |reverse: bool| {
        nodes
            .node("Cumprod")
            .input(&reshaped)
            .input(0i32)
            .attr("exclusive", true)
            .attr("reverse", reverse)
            .build()
    };
    let (left, right) = (others(false)?, others(true)?);
    let (left, right) = (nodes.conj(&left)?, nodes.conj(&right)?);
    let product = nodes.mul(&left, &right)?;
    let product = nodes.reshape(&product, &permuted_shape)?;
    let inverse = nodes.unary("InvertPermutation", &permutation)?;
    let product = transpose(&product, &inverse)?;
    let result = nodes.mul(&gradient, &product)?;
    Ok(vec![Some(nodes.reshape(&result, &input_shape)?), None])
}

/// `rank` in the dtype of `axes`, which TensorFlow can only add where both are `int32`.
fn rank_as(nodes: &Nodes<'_>, rank: &Tensor, axes: &Tensor) -> Result<Tensor> {
    nodes.cast(rank, axes.dtype())
}
