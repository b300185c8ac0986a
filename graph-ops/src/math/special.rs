//! Special functions: the error function, the gamma function's relatives, and the Hurwitz zeta function.

use graph_core::gradients::GradientContext;
use graph_core::graph::scope::control_dependencies;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::OpDefinition;
use graph_core::{Result, Value};

use super::broadcasting::Broadcast;
use super::elementwise::{FLOATS, binary_kernels, binary_op, unary_kernels, unary_op};
use super::exponential::times_slope;
use super::nodes::Nodes;
use crate::cpu::{incomplete, special, vector_math};

/// `2 / sqrt(pi)`
const TWO_OVER_ROOT_PI: f64 = std::f64::consts::FRAC_2_SQRT_PI;

/// `grad * factor * exp(-x^2)`
fn erf_gradient(context: &GradientContext<'_>, factor: f64) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let factor = nodes.constant(Value::from(factor).cast_exactly(gradient.dtype())?, "Const")?;
    let _after = control_dependencies([&gradient.op()])?;
    let scaled = nodes.mul(&gradient, &factor)?;
    let minus = nodes.unary("Neg", &nodes.unary("Square", &context.input(0))?)?;
    Ok(vec![Some(nodes.mul(&scaled, &nodes.unary("Exp", &minus)?)?)])
}

/// `Erf`
pub(crate) fn erf_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Erf", "The error function of each element.", FLOATS)
            .gradient(|context| erf_gradient(context, TWO_OVER_ROOT_PI));
        single |x| vector_math::erf(x);
        plain [f64] |x| special::erf(x);
        cuda |x| "erf(x)";
    }
}

/// `Erfc`
pub(crate) fn erfc_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Erfc", "1 - erf(x), precise also where it is tiny.", FLOATS)
            .gradient(|context| erf_gradient(context, -TWO_OVER_ROOT_PI));
        double |x| special::erfc(x);
        cuda |x| "erfc(x)";
    }
}

/// `Lgamma`
pub(crate) fn lgamma_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Lgamma", "The logarithm of the absolute value of the gamma function.", FLOATS)
            .gradient(|context| times_slope(context, context.input(0), |nodes, x| nodes.unary("Digamma", x)));
        double |x| special::lgamma(x);
        cuda |x| "lgamma(x)";
    }
}

/// `Digamma`
pub(crate) fn digamma_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Digamma", "The derivative of the logarithm of the gamma function.", FLOATS)
            .gradient(|context| times_slope(context, context.input(0), |nodes, x| {
                let one = nodes.scalar(1, x.dtype(), "Const")?;
                nodes.binary("Polygamma", "Polygamma", &one, x)
            }));
        double |x| special::digamma(x);
        special [f32, f64, half::f16, half::bf16] |x| "digamma(x)";
    }
}

const SINGLE_OR_DOUBLE: &str = "T: {float, double}";

/// Gives the arguments their own names.
fn named(mut definition: OpDefinition, first: &'static str, second: &'static str) -> OpDefinition {
    (definition.inputs[0].name, definition.inputs[1].name) = (first, second);
    definition
}

/// `Zeta`
pub(crate) fn zeta_op() -> OpDefinition {
    binary_kernels! {
        named(
            binary_op("Zeta", "The Hurwitz zeta function, the sum of (k + q)^-x over k >= 0.", SINGLE_OR_DOUBLE),
            "x",
            "q",
        )
        .gradient(|context| {
            gradient_of_second(context, |nodes, x, q| {
                let minus = nodes.unary("Neg", x)?;
                let next = nodes.add(x, 1.0)?;
                nodes.mul(&minus, nodes.binary("Zeta", "Zeta", &next, q))
            })
        });
        double |x, q| special::zeta(x, q);
        special [f32, f64] |x, q| "zeta(x, q)";
    }
}

/// `Polygamma`
pub(crate) fn polygamma_op() -> OpDefinition {
    binary_kernels! {
        named(
            binary_op("Polygamma", "The derivative of order a of the digamma function at x.", SINGLE_OR_DOUBLE),
            "a",
            "x",
        )
        .gradient(|context| {
            gradient_of_second(context, |nodes, n, x| {
                nodes.binary("Polygamma", "Polygamma", nodes.add(n, 1.0), x)
            })
        });
        double |n, x| special::polygamma(n, x);
        special [f32, f64] |n, x| "polygamma(n, x)";
    }
}

/// `Igammac`
pub(crate) fn igammac_op() -> OpDefinition {
    binary_kernels! {
        named(
            binary_op("Igammac", "The regularized upper incomplete gamma function Q(a, x).", SINGLE_OR_DOUBLE),
            "a",
            "x",
        )
        .gradient(|context| {
            let nodes = Nodes::of(context);
            let negative = |x: Option<Tensor>| x.map(|x| nodes.unary("Neg", &x)).transpose();
            igamma_gradient(context)?.into_iter().map(negative).collect()
        });
        double |a, x| special::igammac(a, x);
        special [f32, f64] |a, x| "igammac(a, x)";
    }
}

/// `Igamma`
pub(crate) fn igamma_op() -> OpDefinition {
    binary_kernels! {
        named(
            binary_op("Igamma", "The regularized lower incomplete gamma function P(a, x).", SINGLE_OR_DOUBLE),
            "a",
            "x",
        )
        .gradient(|context| igamma_gradient(context));
        double |a, x| special::igamma(a, x);
        special [f32, f64] |a, x| "igamma(a, x)";
    }
}

/// `IgammaGradA`
pub(crate) fn igamma_grad_a_op() -> OpDefinition {
    binary_kernels! {
        named(
            binary_op("IgammaGradA", "The derivative of the incomplete gamma function P(a, x) with respect to a.", SINGLE_OR_DOUBLE)
                .no_gradient(),
            "a",
            "x",
        );
        double |a, x| incomplete::igamma_derivative(a, x);
        special [f32, f64] |a, x| "igamma_derivative(a, x)";
    }
}

/// `IgammaGradA` for a, and the density `x^(a-1) e^-x / gamma(a)` for x.
fn igamma_gradient(context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (a, x) = (context.input(0), context.input(1));
    let broadcast = Broadcast::by_nodes(&nodes, &a, &x)?;
    let _after = control_dependencies([&gradient.op()])?;
    let to_a = nodes.binary("IgammaGradA", "IgammaGradA", &a, &x)?;
    let one = nodes.scalar(1.0f64, a.dtype(), "sub/y")?;
    let power = nodes.mul(&nodes.sub(&a, &one)?, &nodes.unary("Log", &x)?)?;
    let exponent = nodes.add(&nodes.unary("Neg", &x)?, &power)?;
    let exponent = nodes.sub(&exponent, &nodes.unary("Lgamma", &a)?)?;
    let to_x = nodes.unary("Exp", &exponent)?;
    Ok(vec![
        Some(broadcast.first(&nodes.mul(&to_a, &gradient)?)?),
        Some(broadcast.second(&nodes.mul(&to_x, &gradient)?)?),
    ])
}

/// `slope(first, second) * grad` for the second operand, none for the first.
fn gradient_of_second(
    context: &GradientContext<'_>,
    slope: impl FnOnce(&Nodes<'_>, &Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (first, second) = (context.input(0), context.input(1));
    let broadcast = Broadcast::by_nodes(&nodes, &first, &second)?;
    let _after = control_dependencies([&gradient.op()])?;
    let slope = slope(&nodes, &first, &second)?;
    let product = nodes.mul(&slope, &gradient)?;
    Ok(vec![None, Some(broadcast.second(&product)?)])
}

/// The error function of each element: `2/sqrt(pi)` times the integral of `exp(-t^2)` from 0 to `x`.
#[track_caller]
pub fn erf(x: impl IntoOperand) -> OpBuilder {
    crate::op("Erf").input(x)
}

/// `1 - erf(x)`, precise also where it is tiny.
#[track_caller]
pub fn erfc(x: impl IntoOperand) -> OpBuilder {
    crate::op("Erfc").input(x)
}

/// The logarithm of the absolute value of the gamma function; infinite at zero and the negative integers.
#[track_caller]
pub fn lgamma(x: impl IntoOperand) -> OpBuilder {
    crate::op("Lgamma").input(x)
}

/// The derivative of [`lgamma`].
#[track_caller]
pub fn digamma(x: impl IntoOperand) -> OpBuilder {
    crate::op("Digamma").input(x)
}

/// The Hurwitz zeta function, the sum of `(k + q)^-x` over `k >= 0`.
#[track_caller]
pub fn zeta(x: impl IntoOperand, q: impl IntoOperand) -> OpBuilder {
    crate::op("Zeta").input(x).input(q)
}

/// The derivative of order `a` (whole numbers, as floats) of [`digamma`] at `x`.
#[track_caller]
pub fn polygamma(a: impl IntoOperand, x: impl IntoOperand) -> OpBuilder {
    crate::op("Polygamma").input(a).input(x)
}

/// The regularized lower incomplete gamma function P(a, x).
#[track_caller]
pub fn igamma(a: impl IntoOperand, x: impl IntoOperand) -> OpBuilder {
    crate::op("Igamma").input(a).input(x)
}

/// The regularized upper incomplete gamma function Q(a, x).
#[track_caller]
pub fn igammac(a: impl IntoOperand, x: impl IntoOperand) -> OpBuilder {
    crate::op("Igammac").input(a).input(x)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use half::{bf16, f16};
    let mut cases = Vec::new();
    for (op, expected) in [
        ("Erf", [0.520_499_877_813_046_5, -0.966_105_146_475_310_7]),
        ("Erfc", [0.479_500_122_186_953_5, 1.966_105_146_475_310_7]),
        ("Lgamma", [0.572_364_942_924_700_1, 0.860_047_015_376_481]),
        ("Digamma", [-1.963_510_026_021_423_5, 0.703_156_640_645_243_2]),
    ] {
        let x = [0.5f64, -1.5];
        cases.extend([
            Case::new(op).input(x).expect(expected).tolerance(1e-13, 0.0),
            Case::new(op)
                .input(x.map(|x| x as f32))
                .expect(expected.map(|x| x as f32)),
            Case::new(op)
                .input(x.map(f16::from_f64))
                .expect(expected.map(f16::from_f64))
                .tolerance(1e-3, 0.0),
            Case::new(op)
                .input(x.map(bf16::from_f64))
                .expect(expected.map(bf16::from_f64))
                .tolerance(1e-2, 0.0),
        ]);
    }
    cases.extend([
        Case::new("Zeta")
            .input(2.0f64)
            .input([1.0f64, 20.0])
            .expect([1.644_934_066_848_226_4f64, 0.051_270_822_935_203_12])
            .tolerance(1e-12, 0.0),
        Case::new("Polygamma")
            .input([[0.0f32], [1.0]])
            .input([0.5f32])
            .expect([[-1.963_51f32], [4.934_802_2]]),
        Case::new("Igamma")
            .input([1.0f64])
            .input([2.0f64])
            .expect([1.0 - (-2.0f64).exp()])
            .tolerance(1e-13, 0.0),
        Case::new("IgammaGradA")
            .input([0.5f64, 2.0])
            .input([0.3f64, 5.0])
            .expect([-0.770_570_35f64, -0.055_859_9])
            .tolerance(1e-5, 0.0),
        Case::new("Igammac")
            .input([1.0f32])
            .input([2.0f32])
            .expect([(-2.0f32).exp()]),
    ]);
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let mut cases: Vec<GradientCase> = ["Erf", "Erfc", "Lgamma", "Digamma"]
        .into_iter()
        .map(|op| GradientCase::new(op).input([0.5f64, 1.5, 3.0]))
        .collect();
    cases.push(
        GradientCase::new("Zeta")
            .input([[2.0f64], [3.5]])
            .input([0.7f64, 1.5])
            .with_respect_to(&[1]),
    );
    cases.push(
        GradientCase::new("Polygamma")
            .input(1.0f64)
            .input([0.7f64, 1.5])
            .with_respect_to(&[1]),
    );
    for op in ["Igamma", "Igammac"] {
        let case = || {
            GradientCase::new(op)
                .input([0.7f64, 3.0, 5.0])
                .input([0.4f64, 4.5, 2.0])
        };
        // The derivative with respect to the order has none itself.
        cases.push(case().with_respect_to(&[0]).first_order_only());
        cases.push(case().with_respect_to(&[1]));
    }
    cases
}
