//! Sums, differences, products, and what is smaller or larger: ops of two operands, broadcast together.

use graph_core::gradients::GradientContext;
use graph_core::graph::scope::control_dependencies;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{KernelContext, KernelDefinition, OpDefinition};
use graph_core::{Result, Value};
use num_traits::Zero;

use super::broadcasting::{Broadcast, same_known_shape};
use super::elementwise::{REAL_NUMBERS, binary_kernels, binary_op};
use super::nodes::Nodes;
use super::powers::zeros;

const ALL_NUMBERS: &str = "T: {bfloat16, half, float, double, uint8, int8, uint16, int16, int32, int64, complex64, \
                           complex128, uint32, uint64}";

fn sum_kernels(definition: OpDefinition) -> OpDefinition {
    binary_kernels! {
        definition.gradient(sum_gradient);
        float |x, y| x + y;
        plain [i32] |x, y| x.wrapping_add(y);
        plain [i64, i8, i16, u8, u16, u32, u64] |x, y| x.wrapping_add(y);
        complex |x, y| x + y;
        cuda [f32, f64, half::f16, half::bf16, i64] |x, y| "x + y";
    }
}

/// `Add`
pub(crate) fn add_op() -> OpDefinition {
    sum_kernels(binary_op(
        "Add",
        "x + y, element by element; strings are joined.",
        "T: {bfloat16, half, float, double, uint8, int8, int16, int32, int64, complex64, complex128, string}",
    ))
    .kernel(KernelDefinition::direct(join).types("T", &[graph_core::DType::String]))
}

/// `AddV2`
pub(crate) fn add_v2() -> OpDefinition {
    let definition = binary_op(
        "AddV2",
        "x + y, element by element, of numbers.",
        "T: {bfloat16, half, float, double, uint8, int8, int16, uint32, int32, int64, complex64, complex128, uint16, \
         uint64}",
    );
    sum_kernels(definition).commutative().aggregate()
}

fn join(context: &mut KernelContext<'_>) -> Result<()> {
    let shape = context.output_shape(0).clone();
    let strings = broadcast_strings(context, |x, y| [x, y].concat())?;
    context.set_output(0, Value::from_strings(shape, strings)?);
    Ok(())
}

/// `f` of the strings of two inputs, broadcast together, in order.
pub(crate) fn broadcast_strings<R: Send + Default + Clone>(
    context: &KernelContext<'_>,
    f: impl Fn(&[u8], &[u8]) -> R + Sync + Send,
) -> Result<Vec<R>> {
    let (x, y) = (context.input_strings(0)?, context.input_strings(1)?);
    let shape = context.output_shape(0);
    let mut out = vec![R::default(); shape.num_elements()];
    let (indices_x, indices_y): (Vec<usize>, Vec<usize>) = ((0..x.len()).collect(), (0..y.len()).collect());
    crate::cpu::broadcast::broadcast_binary(
        &indices_x,
        context.input_shape(0),
        &indices_y,
        context.input_shape(1),
        &mut out,
        shape,
        |i, j| f(&x[i], &y[j]),
    );
    Ok(out)
}

/// The gradient goes to both.
fn sum_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (x, y) = (context.input(0), context.input(1));
    if same_known_shape(&x, &y, &gradient) {
        return Ok(vec![Some(gradient.clone()), Some(gradient)]);
    }
    let broadcast = Broadcast::by_shapes(&nodes, &x, &y, &gradient)?;
    Ok(vec![
        Some(broadcast.first(&gradient)?),
        Some(broadcast.second(&gradient)?),
    ])
}

/// `Sub`
pub(crate) fn sub() -> OpDefinition {
    binary_kernels! {
        binary_op("Sub", "x - y, element by element.", ALL_NUMBERS).gradient(|context| {
            let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
            let (x, y) = (context.input(0), context.input(1));
            if same_known_shape(&x, &y, &gradient) {
                let minus = nodes.unary("Neg", &gradient)?;
                return Ok(vec![Some(gradient), Some(minus)]);
            }
            let broadcast = Broadcast::by_shapes(&nodes, &x, &y, &gradient)?;
            let first = broadcast.first(&gradient)?;
            let minus = nodes.unary("Neg", &gradient)?;
            Ok(vec![Some(first), Some(broadcast.second(&minus)?)])
        });
        float |x, y| x - y;
        plain [i32] |x, y| x.wrapping_sub(y);
        plain [i64, i8, i16, u8, u16, u32, u64] |x, y| x.wrapping_sub(y);
        complex |x, y| x - y;
        cuda [f32, f64, half::f16, half::bf16, i64] |x, y| "x - y";
    }
}

/// `Mul`
pub(crate) fn mul() -> OpDefinition {
    binary_kernels! {
        binary_op("Mul", "x * y, element by element.", ALL_NUMBERS).commutative().gradient(mul_gradient);
        float |x, y| x * y;
        plain [i32] |x, y| x.wrapping_mul(y);
        plain [i64, i8, i16, u8, u16, u32, u64] |x, y| x.wrapping_mul(y);
        complex |x, y| x * y;
        cuda [f32, f64, half::f16, half::bf16, i64] |x, y| "x * y";
    }
}

/// `grad * conj(y)` and `conj(x) * grad`
fn mul_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (x, y) = (context.input(0), context.input(1));
    // TensorFlow takes the short way for these dtypes alone.
    let short = matches!(gradient.dtype(), graph_core::DType::Float32 | graph_core::DType::Int32);
    if short && same_known_shape(&x, &y, &gradient) {
        return Ok(vec![
            Some(nodes.binary("Mul", "Mul", &gradient, &y)?),
            Some(nodes.binary("Mul", "Mul", &gradient, &x)?),
        ]);
    }
    let broadcast = Broadcast::by_shapes(&nodes, &x, &y, &gradient)?;
    let (x, y) = (nodes.conj(&x)?, nodes.conj(&y)?);
    let first = broadcast.first(&nodes.binary("Mul", "Mul", &gradient, &y)?)?;
    let second = broadcast.second(&nodes.binary("Mul", "Mul", &x, &gradient)?)?;
    Ok(vec![Some(first), Some(second)])
}

/// `MulNoNan`
pub(crate) fn mul_no_nan() -> OpDefinition {
    binary_kernels! {
        binary_op(
            "MulNoNan",
            "x * y, and 0 where y is 0, even if x is infinite or NaN.",
            "T: {bfloat16, half, float, double, complex64, complex128}",
        )
        .gradient(|context| {
            let (x, y, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
            let nodes = Nodes::of(context);
            let product = |a: &Tensor, b: &Tensor| nodes.node("MulNoNan").input(a).input(b).name("mul_no_nan").build();
            if same_known_shape(&x, &y, &gradient) {
                return Ok(vec![
                    Some(nodes.binary("MulNoNan", "MulNoNan", &gradient, &y)?),
                    Some(nodes.binary("MulNoNan", "MulNoNan", &x, &gradient)?),
                ]);
            }
            let broadcast = Broadcast::by_nodes(&nodes, &x, &y)?;
            let first = broadcast.first(&product(&gradient, &y)?)?;
            Ok(vec![Some(first), Some(broadcast.second(&product(&x, &gradient)?)?)])
        });
        float |x, y| if y == 0.0 { 0.0 } else { x * y };
        complex |x, y| if y.is_zero() { y } else { x * y };
        cuda |x, y| "y == C(0) ? C(0) : x * y";
    }
}

/// `SquaredDifference`
pub(crate) fn squared_difference_op() -> OpDefinition {
    binary_kernels! {
        binary_op(
            "SquaredDifference",
            "(x - y)^2, element by element; of complex numbers conj(x - y) (x - y).",
            "T: {bfloat16, half, float, double, int32, int64, complex64, complex128}",
        )
        .commutative()
        .gradient(squared_difference_gradient);
        float |x, y| { let difference = x - y; difference * difference };
        plain [i32, i64] |x, y| { let difference = x.wrapping_sub(y); difference.wrapping_mul(difference) };
        complex |x, y| (x - y).conj() * (x - y);
        cuda [f32, f64, half::f16, half::bf16, i64] |x, y| "(x - y) * (x - y)";
    }
}

/// `2 grad (x - y)` and its opposite
fn squared_difference_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (x, y) = (context.input(0), context.input(1));
    let first = {
        let _after = control_dependencies([&gradient.op()])?;
        let two = nodes.scalar(2, gradient.dtype(), "scalar")?;
        let twice = nodes.binary("Mul", "Mul", &two, &gradient)?;
        nodes.mul(&twice, &nodes.sub(&x, &y)?)?
    };
    if same_known_shape(&x, &y, &gradient) {
        let minus = nodes.unary("Neg", &first)?;
        return Ok(vec![Some(first), Some(minus)]);
    }
    let broadcast = Broadcast::by_shapes(&nodes, &x, &y, &gradient)?;
    let of_x = broadcast.first(&first)?;
    let of_y = nodes.unary("Neg", &broadcast.second(&first)?)?;
    Ok(vec![Some(of_x), Some(of_y)])
}

/// The gradient goes to the operand that `chosen` says, by a comparison of x and y.
fn extreme_gradient(context: &GradientContext<'_>, chosen: &str) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (x, y) = (context.input(0), context.input(1));
    let shapes = [nodes.shape(&x)?, nodes.shape(&y)?];
    let shape = nodes.shape(&gradient)?;
    let zeros = zeros(&nodes, &shape, gradient.dtype())?;
    let mask = nodes.binary(chosen, chosen, &x, &y)?;
    let broadcast = Broadcast::of_shapes(&nodes, shapes)?;
    let of_x = broadcast.first(&nodes.select(&mask, &gradient, &zeros)?)?;
    let of_y = broadcast.second(&nodes.select(&mask, &zeros, &gradient)?)?;
    Ok(vec![Some(of_x), Some(of_y)])
}

/// `Maximum`
pub(crate) fn maximum_op() -> OpDefinition {
    binary_kernels! {
        binary_op("Maximum", "The larger of x and y, element by element; NaN where either is.", REAL_NUMBERS)
            .gradient(|context| extreme_gradient(context, "GreaterEqual"));
        float |x, y| { let larger = if x < y { y } else { x }; if y.is_nan() { y } else { larger } };
        plain [i32, i64, i8, i16, u8, u16, u32, u64] |x, y| x.max(y);
        cuda [f32, f64, half::f16, half::bf16, i64] |x, y| "is_nan(y) || x < y ? y : x";
    }
}

/// `Minimum`
pub(crate) fn minimum_op() -> OpDefinition {
    binary_kernels! {
        binary_op("Minimum", "The smaller of x and y, element by element; NaN where either is.", REAL_NUMBERS)
            .gradient(|context| extreme_gradient(context, "LessEqual"));
        float |x, y| { let smaller = if y < x { y } else { x }; if y.is_nan() { y } else { smaller } };
        plain [i32, i64, i8, i16, u8, u16, u32, u64] |x, y| x.min(y);
        cuda [f32, f64, half::f16, half::bf16, i64] |x, y| "is_nan(y) || y < x ? y : x";
    }
}

/// `x + y`, element by element, broadcast together; both of one dtype. Strings are joined.
///
/// ```
/// use graph_ops::{array::constant, math};
/// let column = constant([[1.0f32], [2.0]]).build()?;
/// let table = math::add(&column, [10.0f32, 20.0]).name("table").build()?;
/// assert_eq!(table.shape(), [2, 2].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` on `build` for operands of different dtypes or of shapes that do not broadcast.
#[track_caller]
pub fn add(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("Add").input(x).input(y)
}

/// `x - y`, element by element, broadcast together.
#[track_caller]
pub fn subtract(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("Sub").input(x).input(y)
}

/// `x * y`, element by element, broadcast together.
#[track_caller]
pub fn multiply(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("Mul").input(x).input(y)
}

/// `x * y`, and 0 where `y` is 0, even if `x` is infinite or NaN.
#[track_caller]
pub fn multiply_no_nan(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("MulNoNan").input(x).input(y).name("multiply_no_nan")
}

/// `(x - y)^2`, element by element, broadcast together.
#[track_caller]
pub fn squared_difference(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("SquaredDifference").input(x).input(y)
}

/// The larger of `x` and `y`, element by element; NaN where either is.
#[track_caller]
pub fn maximum(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("Maximum").input(x).input(y)
}

/// The smaller of `x` and `y`, element by element; NaN where either is.
#[track_caller]
pub fn minimum(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("Minimum").input(x).input(y)
}

#[cfg(test)]
#[path = "arithmetic_tests.rs"]
mod tests;
#[cfg(test)]
pub(crate) use tests::{cases, gradient_cases};
