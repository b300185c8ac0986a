//! Exponentials and logarithms: `Exp`, `Expm1`, `Log`, `Log1p`, `Sigmoid`, `Tanh`, and the ops of their gradients.

use graph_core::Result;
use graph_core::gradients::GradientContext;
use graph_core::graph::scope::control_dependencies;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::OpDefinition;

use super::elementwise::{FLOATS_AND_COMPLEX, binary_kernels, unary_kernels, unary_op};
use super::nodes::Nodes;
use super::powers::output_gradient_op;
use crate::cpu::vector_math::{self, double};

/// The gradient `grad * slope`, where `slope` is made, from the conjugate of the input or output, once `grad` is there.
pub(crate) fn times_slope(
    context: &GradientContext<'_>,
    of: Tensor,
    slope: impl FnOnce(&Nodes<'_>, &Tensor) -> Result<Tensor>,
) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let _after = control_dependencies([&gradient.op()])?;
    let of = nodes.conj(&of)?;
    let slope = slope(&nodes, &of)?;
    Ok(vec![Some(nodes.mul(&gradient, &slope)?)])
}

/// `Exp`
pub(crate) fn exp_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Exp", "e to the power of each element.", FLOATS_AND_COMPLEX)
            .gradient(|context| times_slope(context, context.output(0), |_, y| Ok(y.clone())));
        single |x| vector_math::exp(x);
        plain [f64] |x| double::exp(x);
        complex |x| x.exp();
        cuda |x| "exp(x)";
    }
}

/// `Expm1`
pub(crate) fn expm1_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Expm1", "e^x - 1, precise also where x is tiny.", FLOATS_AND_COMPLEX)
            .gradient(|context| times_slope(context, context.input(0), |nodes, x| nodes.unary("Exp", x)));
        single |x| vector_math::exp_m1(x);
        plain [f64] |x| double::exp_m1(x);
        complex |x| x.exp() - 1.0;
        cuda |x| "expm1(x)";
    }
}

/// `Log`
pub(crate) fn log_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Log", "The natural logarithm of each element; -inf of zero, NaN below.", FLOATS_AND_COMPLEX)
            .gradient(|context| times_slope(context, context.input(0), |nodes, x| nodes.unary("Reciprocal", x)));
        single |x| vector_math::ln(x);
        plain [f64] |x| double::ln(x);
        complex |x| x.ln();
        cuda |x| "log(x)";
    }
}

/// `Log1p`
pub(crate) fn log1p_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Log1p", "ln(1 + x), precise also where x is tiny.", FLOATS_AND_COMPLEX)
            .gradient(|context| {
                times_slope(context, context.input(0), |nodes, x| {
                    nodes.unary("Reciprocal", &nodes.add(1, x)?)
                })
            });
        single |x| vector_math::ln_1p(x);
        plain [f64] |x| double::ln_1p(x);
        complex |x| (x + 1.0).ln();
        cuda |x| "log1p(x)";
    }
}

/// A gradient by an op of the conjugate of the forward output and its gradient.
macro_rules! by_conjugate_output {
    ($op:literal) => {
        |context| {
            let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
            let _after = control_dependencies([&gradient.op()])?;
            let y = nodes.conj(&context.output(0))?;
            Ok(vec![Some(nodes.node($op).input(&y).input(&gradient).build()?)])
        }
    };
}

/// `Sigmoid`
pub(crate) fn sigmoid_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Sigmoid", "The logistic function 1 / (1 + e^-x) of each element.", FLOATS_AND_COMPLEX)
            .gradient(by_conjugate_output!("SigmoidGrad"));
        single |x| vector_math::sigmoid(x);
        plain [f64] |x| double::sigmoid(x);
        complex |x| ((-x).exp() + 1.0).inv();
        cuda |x| "(x < C(0) ? exp(x) : C(1)) / (C(1) + exp(-abs(x)))";
    }
}

/// `SigmoidGrad`
pub(crate) fn sigmoid_grad() -> OpDefinition {
    binary_kernels! {
        output_gradient_op("SigmoidGrad", "The gradient of y = sigmoid(x): dy y (1 - y).").gradient(|context| {
            let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
            let _after = control_dependencies([&gradient.op()])?;
            let (y, dy) = (nodes.conj(&context.input(0))?, nodes.conj(&context.input(1))?);
            let product = nodes.mul(&gradient, &dy)?;
            let twice = nodes.mul(&nodes.mul(2.0, &product)?, &y)?;
            let first = nodes.sub(&product, &twice)?;
            Ok(vec![Some(first), Some(nodes.node("SigmoidGrad").input(&y).input(&gradient).build()?)])
        });
        float |y, dy| dy * y * (1.0 - y);
        complex |y, dy| dy * y * -(y - 1.0);
        cuda |y, dy| "dy * y * (C(1) - y)";
    }
}

/// `Tanh`
pub(crate) fn tanh_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Tanh", "The hyperbolic tangent of each element.", FLOATS_AND_COMPLEX)
            .gradient(by_conjugate_output!("TanhGrad"));
        single |x| vector_math::tanh(x);
        plain [f64] |x| double::tanh(x);
        complex |x| x.tanh();
        cuda |x| "tanh(x)";
    }
}

/// `TanhGrad`
pub(crate) fn tanh_grad() -> OpDefinition {
    binary_kernels! {
        output_gradient_op("TanhGrad", "The gradient of y = tanh(x): dy (1 - y^2).").gradient(|context| {
            let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
            let _after = control_dependencies([&gradient.op()])?;
            let (y, dy) = (nodes.conj(&context.input(0))?, nodes.conj(&context.input(1))?);
            let scaled = nodes.mul(&nodes.mul(&gradient, -2.0)?, &dy)?;
            let first = nodes.mul(&scaled, &y)?;
            Ok(vec![Some(first), Some(nodes.node("TanhGrad").input(&y).input(&gradient).build()?)])
        });
        float |y, dy| dy * (1.0 - y * y);
        complex |y, dy| dy * -(y * y - 1.0);
        cuda |y, dy| "dy * (C(1) - y * y)";
    }
}

/// `e^x`, element by element, floating-point or complex.
///
/// ```
/// use graph_ops::math;
/// let growth = math::exp([0.0f32, 1.0]).name("growth").build()?;
/// assert_eq!(growth.name(), "growth:0");
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn exp(x: impl IntoOperand) -> OpBuilder {
    crate::op("Exp").input(x)
}

/// `e^x - 1`, precise also where `x` is tiny.
#[track_caller]
pub fn expm1(x: impl IntoOperand) -> OpBuilder {
    crate::op("Expm1").input(x)
}

/// The natural logarithm of each element: -inf of zero, NaN below.
#[track_caller]
pub fn log(x: impl IntoOperand) -> OpBuilder {
    crate::op("Log").input(x)
}

/// `ln(1 + x)`, precise also where `x` is tiny.
#[track_caller]
pub fn log1p(x: impl IntoOperand) -> OpBuilder {
    crate::op("Log1p").input(x)
}

/// The logistic function `1 / (1 + e^-x)` of each element.
#[track_caller]
pub fn sigmoid(x: impl IntoOperand) -> OpBuilder {
    crate::op("Sigmoid").input(x)
}

/// The hyperbolic tangent of each element.
#[track_caller]
pub fn tanh(x: impl IntoOperand) -> OpBuilder {
    crate::op("Tanh").input(x)
}

#[cfg(test)]
#[path = "exponential_tests.rs"]
mod tests;
#[cfg(test)]
pub(crate) use tests::{cases, gradient_cases};
