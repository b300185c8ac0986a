//! Sign and powers: `Neg`, `Abs`, `Sign`, `Square`, `Sqrt`, `Rsqrt`, `Reciprocal`, and the ops of their gradients.

use graph_core::gradients::GradientContext;
use graph_core::graph::scope::control_dependencies;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::OpDefinition;
use graph_core::{DType, Result};
use num_traits::Zero;

use super::elementwise::{FLOATS_AND_COMPLEX, binary_kernels, binary_op, unary_kernels, unary_op};
use super::nodes::Nodes;

const SIGNED: &str = "T: {bfloat16, half, float, double, int8, int16, int32, int64, complex64, complex128}";

/// `Neg`
pub(crate) fn neg() -> OpDefinition {
    unary_kernels! {
        unary_op("Neg", "-x, element by element.", SIGNED)
            .gradient(|context| Ok(vec![Some(context.node("Neg").input(context.gradient(0)?).build()?)]));
        float |x| -x;
        complex |x| -x;
        plain [i8, i16, i32, i64] |x| x.wrapping_neg();
        cuda [f32, f64, half::f16, half::bf16, i64] |x| "-x";
    }
}

/// `Abs`
pub(crate) fn abs_op() -> OpDefinition {
    unary_kernels! {
        unary_op(
            "Abs",
            "The absolute value of each element; of the least integer it is that integer again.",
            "T: {bfloat16, half, float, double, int8, int16, int32, int64}",
        )
        .gradient(|context| {
            let nodes = Nodes::of(context);
            let sign = nodes.unary("Sign", &context.input(0))?;
            Ok(vec![Some(nodes.mul(context.gradient(0)?, &sign)?)])
        });
        float |x| x.abs();
        plain [i8, i16, i32, i64] |x| x.wrapping_abs();
        cuda |x| "abs(x)";
        cuda [i64] |x| "x < 0 ? -x : x";
    }
}

/// `Sign`
pub(crate) fn sign_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Sign", "-1, 0 or 1 by each element's sign, NaN of NaN; x / |x| of a complex number.", SIGNED)
            .gradient(|context| {
                let nodes = Nodes::of(context);
                let shape = nodes.shape(&context.input(0))?;
                Ok(vec![Some(zeros(&nodes, &shape, context.input(0).dtype())?)])
            });
        float |x| if x.is_nan() { x } else { f32_or_f64_sign(x) };
        complex |x| if x.is_zero() { x } else { x / x.norm() };
        plain [i8, i16, i32, i64] |x| x.signum();
        cuda [f32, f64, half::f16, half::bf16, i64] |x| "is_nan(x) ? x : C(x > C(0)) - C(x < C(0))";
    }
}

/// -1, 0 or 1.
#[inline(always)]
fn f32_or_f64_sign<T: num_traits::Float>(x: T) -> T {
    let one = T::one();
    if x > T::zero() {
        one
    } else if x < T::zero() {
        -one
    } else {
        T::zero()
    }
}

/// `tf.zeros` of a shape that is a tensor.
pub(crate) fn zeros(nodes: &Nodes<'_>, shape: &Tensor, dtype: DType) -> Result<Tensor> {
    let scope = graph_core::graph::scope::name_scope_in(nodes.graph(), "zeros")?;
    let zero = nodes.constant(graph_core::Value::zeros(dtype, ())?, "Const")?;
    nodes.binary("Fill", &scope.scope_name(), shape, &zero)
}

/// `Square`
pub(crate) fn square_op() -> OpDefinition {
    unary_kernels! {
        unary_op(
            "Square",
            "x * x, element by element.",
            "T: {bfloat16, half, float, double, int8, int16, int32, int64, uint8, uint16, uint32, uint64, complex64, \
             complex128}",
        )
        .gradient(square_gradient);
        float |x| x * x;
        complex |x| x * x;
        plain [i8, i16, i32, i64, u8, u16, u32, u64] |x| x.wrapping_mul(x);
        cuda [f32, f64, half::f16, half::bf16, i64] |x| "x * x";
    }
}

/// `grad * 2 conj(x)`
fn square_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let _after = control_dependencies([&gradient.op()])?;
    let x = nodes.conj(&context.input(0))?;
    let two = nodes.scalar(2, x.dtype(), "Const")?;
    let slope = nodes.binary("Mul", "Mul", &x, &two)?;
    Ok(vec![Some(nodes.binary("Mul", "Mul", &gradient, &slope)?)])
}

/// A gradient by an op of the forward output and its gradient.
macro_rules! by_output {
    ($op:literal) => {
        |context| {
            let gradient = context.node($op).input(context.output(0)).input(context.gradient(0)?);
            Ok(vec![Some(gradient.build()?)])
        }
    };
}

/// `Sqrt`
pub(crate) fn sqrt_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Sqrt", "The square root of each element; NaN below zero.", FLOATS_AND_COMPLEX)
            .gradient(by_output!("SqrtGrad"));
        float |x| x.sqrt();
        complex |x| x.sqrt();
        cuda |x| "sqrt(x)";
    }
}

/// `Rsqrt`
pub(crate) fn rsqrt_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Rsqrt", "1 / sqrt(x), element by element.", FLOATS_AND_COMPLEX)
            .gradient(by_output!("RsqrtGrad"));
        float |x| 1.0 / x.sqrt();
        complex |x| x.sqrt().inv();
        cuda |x| "C(1) / sqrt(x)";
    }
}

/// `Reciprocal` and its old name `Inv`.
fn inverse(name: &'static str) -> OpDefinition {
    unary_kernels! {
        unary_op(name, "1 / x, element by element; of integers 0 unless x is 1 or -1, and of zero 0.", SIGNED)
            .gradient(by_output!("ReciprocalGrad"));
        float |x| 1.0 / x;
        complex |x| x.inv();
        plain [i8, i16, i32, i64] |x| if x == 0 { 0 } else { 1 / x };
        cuda |x| "C(1) / x";
    }
}

/// `Reciprocal`
pub(crate) fn reciprocal_op() -> OpDefinition {
    inverse("Reciprocal")
}

/// `Inv`
pub(crate) fn inv() -> OpDefinition {
    inverse("Inv")
}

/// An op of a forward output `y` and the gradient `dy` that comes in.
pub(crate) fn output_gradient_op(name: &'static str, summary: &'static str) -> OpDefinition {
    let mut definition = binary_op(name, summary, FLOATS_AND_COMPLEX);
    (definition.inputs[0].name, definition.inputs[1].name) = ("y", "dy");
    definition.shape(graph_core::op::InferenceContext::merged)
}

/// `SqrtGrad`
pub(crate) fn sqrt_grad() -> OpDefinition {
    binary_kernels! {
        output_gradient_op("SqrtGrad", "The gradient of y = sqrt(x): dy / (2 conj(y)).").gradient(|context| {
            let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
            let _after = control_dependencies([&gradient.op()])?;
            let ratio = nodes.truediv(&gradient, context.input(0))?;
            let minus = nodes.unary("Neg", &nodes.conj(&ratio)?)?;
            let first = nodes.mul(&minus, context.output(0))?;
            Ok(vec![Some(first), Some(nodes.mul(0.5, &ratio)?)])
        });
        float |y, dy| 0.5 * dy / y;
        complex |y, dy| dy * 0.5 / y.conj();
        cuda |y, dy| "C(0.5) * dy / y";
    }
}

/// `RsqrtGrad`
pub(crate) fn rsqrt_grad() -> OpDefinition {
    binary_kernels! {
        output_gradient_op("RsqrtGrad", "The gradient of y = 1 / sqrt(x): -dy conj(y)^3 / 2.").gradient(|context| {
            let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
            let _after = control_dependencies([&gradient.op()])?;
            let y = nodes.conj(&context.input(0))?;
            let conjugate = nodes.conj(&gradient)?;
            let scaled = nodes.mul(&nodes.mul(-1.5, &conjugate)?, context.input(1))?;
            let first = nodes.mul(&scaled, &nodes.unary("Square", &y)?)?;
            Ok(vec![Some(first), Some(nodes.node("RsqrtGrad").input(&y).input(&gradient).build()?)])
        });
        float |y, dy| (-0.5) * dy * y * y * y;
        complex |y, dy| dy * -0.5 * y.conj() * y.conj() * y.conj();
        cuda |y, dy| "C(-0.5) * dy * y * y * y";
    }
}

/// `ReciprocalGrad` and its old name `InvGrad`.
fn inverse_grad(name: &'static str) -> OpDefinition {
    binary_kernels! {
        output_gradient_op(name, "The gradient of y = 1 / x: -dy conj(y)^2.").gradient(|context| {
            let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
            let _after = control_dependencies([&gradient.op()])?;
            let y = nodes.conj(&context.input(0))?;
            let conjugate = nodes.conj(&gradient)?;
            let scaled = nodes.mul(&nodes.mul(&conjugate, -2.0)?, context.input(1))?;
            let first = nodes.mul(&scaled, &y)?;
            Ok(vec![Some(first), Some(nodes.node("ReciprocalGrad").input(&y).input(&gradient).build()?)])
        });
        float |y, dy| -dy * y * y;
        complex |y, dy| -dy * y.conj() * y.conj();
        cuda |y, dy| "-dy * y * y";
    }
}

/// `ReciprocalGrad`
pub(crate) fn reciprocal_grad() -> OpDefinition {
    inverse_grad("ReciprocalGrad")
}

/// `InvGrad`
pub(crate) fn inv_grad() -> OpDefinition {
    inverse_grad("InvGrad")
}

/// `-x`, element by element; the shape and dtype of `x`, which must be a signed number.
///
/// ```
/// use graph_ops::math;
/// let opposite = math::negative([1.0f32, -2.0]).name("opposite").build()?;
/// assert_eq!(opposite.op().op_type(), "Neg");
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn negative(x: impl IntoOperand) -> OpBuilder {
    crate::op("Neg").input(x)
}

/// The absolute value of each element: `f32` or `f64` of a complex number, else the dtype of `x`.
#[track_caller]
pub fn abs(x: impl IntoOperand) -> OpBuilder {
    match x.into_operand() {
        graph_core::Operand::Tensor(tensor) if tensor.dtype().is_complex() => super::complex::complex_abs(tensor),
        other => crate::op("Abs").input(other),
    }
}

/// -1, 0 or 1 by each element's sign; `x / |x|` of a complex number.
#[track_caller]
pub fn sign(x: impl IntoOperand) -> OpBuilder {
    crate::op("Sign").input(x)
}

/// `x * x`, element by element.
#[track_caller]
pub fn square(x: impl IntoOperand) -> OpBuilder {
    crate::op("Square").input(x)
}

/// The square root of each element, floating-point or complex.
#[track_caller]
pub fn sqrt(x: impl IntoOperand) -> OpBuilder {
    crate::op("Sqrt").input(x)
}

/// `1 / sqrt(x)`, element by element, floating-point or complex.
#[track_caller]
pub fn rsqrt(x: impl IntoOperand) -> OpBuilder {
    crate::op("Rsqrt").input(x)
}

/// `1 / x`, element by element.
#[track_caller]
pub fn reciprocal(x: impl IntoOperand) -> OpBuilder {
    crate::op("Reciprocal").input(x)
}

#[cfg(test)]
#[path = "powers_tests.rs"]
mod tests;
#[cfg(test)]
pub(crate) use tests::{cases, gradient_cases};
