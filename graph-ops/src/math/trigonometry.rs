//! Circular and hyperbolic functions and their inverses; angles are in radians.

use graph_core::Result;
use graph_core::gradients::GradientContext;
use graph_core::graph::scope::control_dependencies;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::OpDefinition;

use super::elementwise::{FLOATS_AND_COMPLEX, unary_kernels, unary_op};
use super::exponential::times_slope;
use super::nodes::Nodes;

/// Functions of one operand: definition, name, what it is, gradient, the formula, and the builder's name and words.
macro_rules! functions {
    ($($definition:ident, $op:literal, $summary:literal, $gradient:expr, |$x:ident| $e:expr, $builder:ident, $doc:literal;)*) => {
        $(
            #[doc = concat!("`", $op, "`")]
            pub(crate) fn $definition() -> OpDefinition {
                unary_kernels! {
                    unary_op($op, $summary, FLOATS_AND_COMPLEX).gradient($gradient);
                    slow |$x| $e;
                    complex |$x| $e;
                    cuda |$x| concat!(stringify!($builder), "(x)");
                }
            }

            #[doc = $doc]
            #[track_caller]
            pub fn $builder(x: impl IntoOperand) -> OpBuilder {
                crate::op($op).input(x)
            }
        )*
    };
}

functions! {
    sin_op, "Sin", "The sine of each element.",
        |context| times_slope(context, context.input(0), |nodes, x| nodes.unary("Cos", x)),
        |x| x.sin(), sin, "The sine of each element, an angle in radians.";
    cos_op, "Cos", "The cosine of each element.", cos_gradient,
        |x| x.cos(), cos, "The cosine of each element, an angle in radians.";
    tan_op, "Tan", "The tangent of each element.", tan_gradient,
        |x| x.tan(), tan, "The tangent of each element, an angle in radians.";
    asin_op, "Asin", "The arc sine of each element, NaN beyond 1.",
        |context| times_slope(context, context.input(0), slope_of_asin),
        |x| x.asin(), asin, "The arc sine of each element, in radians; NaN outside [-1, 1].";
    acos_op, "Acos", "The arc cosine of each element, NaN beyond 1.", acos_gradient,
        |x| x.acos(), acos, "The arc cosine of each element, in radians; NaN outside [-1, 1].";
    atan_op, "Atan", "The arc tangent of each element.",
        |context| times_slope(context, context.input(0), |nodes, x| {
            let square = nodes.unary("Square", x)?;
            let one = nodes.scalar(1, x.dtype(), "Const")?;
            nodes.unary("Reciprocal", &nodes.binary("Add", "Add", &one, &square)?)
        }),
        |x| x.atan(), atan, "The arc tangent of each element, in radians.";
    sinh_op, "Sinh", "The hyperbolic sine of each element.",
        |context| times_slope(context, context.input(0), |nodes, x| nodes.unary("Cosh", x)),
        |x| x.sinh(), sinh, "The hyperbolic sine of each element.";
    cosh_op, "Cosh", "The hyperbolic cosine of each element.",
        |context| times_slope(context, context.input(0), |nodes, x| nodes.unary("Sinh", x)),
        |x| x.cosh(), cosh, "The hyperbolic cosine of each element.";
    asinh_op, "Asinh", "The inverse hyperbolic sine of each element.",
        |context| over_slope(context, "Cosh"),
        |x| x.asinh(), asinh, "The inverse hyperbolic sine of each element.";
    acosh_op, "Acosh", "The inverse hyperbolic cosine of each element, NaN below 1.",
        |context| over_slope(context, "Sinh"),
        |x| x.acosh(), acosh, "The inverse hyperbolic cosine of each element; NaN below 1.";
    atanh_op, "Atanh", "The inverse hyperbolic tangent of each element, NaN beyond 1.",
        |context| times_slope(context, context.input(0), |nodes, x| {
            let square = nodes.unary("Square", x)?;
            let one = nodes.scalar(1, x.dtype(), "Const")?;
            nodes.unary("Reciprocal", &nodes.binary("Sub", "Sub", &one, &square)?)
        }),
        |x| x.atanh(), atanh, "The inverse hyperbolic tangent of each element; NaN outside [-1, 1].";
}

/// `-grad * sin(conj(x))`
fn cos_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let _after = control_dependencies([&gradient.op()])?;
    let x = nodes.conj(&context.input(0))?;
    let minus = nodes.unary("Neg", &gradient)?;
    Ok(vec![Some(nodes.mul(&minus, &nodes.unary("Sin", &x)?)?)])
}

/// `(1 / cos(conj(x)))^2 * grad`
fn tan_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let _after = control_dependencies([&gradient.op()])?;
    let x = nodes.conj(&context.input(0))?;
    let secant = nodes.unary("Reciprocal", &nodes.unary("Cos", &x)?)?;
    let square = nodes.unary("Square", &secant)?;
    Ok(vec![Some(nodes.mul(&square, &gradient)?)])
}

/// `1 / sqrt(1 - x^2)`
fn slope_of_asin(nodes: &Nodes<'_>, x: &Tensor) -> Result<Tensor> {
    let square = nodes.unary("Square", x)?;
    let one = nodes.scalar(1, x.dtype(), "Const")?;
    let root = nodes.unary("Sqrt", &nodes.binary("Sub", "Sub", &one, &square)?)?;
    nodes.unary("Reciprocal", &root)
}

/// `-grad / sqrt(1 - conj(x)^2)`
fn acos_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let _after = control_dependencies([&gradient.op()])?;
    let slope = slope_of_asin(&nodes, &nodes.conj(&context.input(0))?)?;
    Ok(vec![Some(nodes.mul(&nodes.unary("Neg", &gradient)?, &slope)?)])
}

/// `grad / op(conj(y))`
fn over_slope(context: &GradientContext<'_>, op: &str) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let _after = control_dependencies([&gradient.op()])?;
    let slope = nodes.unary(op, &nodes.conj(&context.output(0))?)?;
    Ok(vec![Some(nodes.truediv(&gradient, &slope)?)])
}

/// An op, the function it computes, and where it is tried.
#[cfg(test)]
type Row = (&'static str, fn(f64) -> f64, [f64; 3]);

#[cfg(test)]
const TABLE: [Row; 11] = [
    ("Sin", f64::sin, [0.5, -2.0, 100.0]),
    ("Cos", f64::cos, [0.5, -2.0, 100.0]),
    ("Tan", f64::tan, [0.5, -2.0, 1.0]),
    ("Asin", f64::asin, [0.5, -0.9, 0.1]),
    ("Acos", f64::acos, [0.5, -0.9, 0.1]),
    ("Atan", f64::atan, [0.5, -2.0, 100.0]),
    ("Sinh", f64::sinh, [0.5, -2.0, 3.0]),
    ("Cosh", f64::cosh, [0.5, -2.0, 3.0]),
    ("Asinh", f64::asinh, [0.5, -2.0, 100.0]),
    ("Acosh", f64::acosh, [1.5, 2.0, 100.0]),
    ("Atanh", f64::atanh, [0.5, -0.9, 0.1]),
];

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Complex;
    use half::{bf16, f16};
    let mut cases = Vec::new();
    for (op, exact, numbers) in TABLE {
        let (single, half, brain) = (
            numbers.map(|x| x as f32),
            numbers.map(f16::from_f64),
            numbers.map(bf16::from_f64),
        );
        cases.extend([
            Case::new(op)
                .input(numbers)
                .expect(numbers.map(exact))
                .tolerance(1e-14, 1e-300),
            Case::new(op)
                .input(single)
                .expect(single.map(|x| exact(x.into()) as f32)),
            Case::new(op)
                .input(half)
                .expect(half.map(|x| f16::from_f64(exact(x.into()))))
                .tolerance(2e-3, 1e-7),
            Case::new(op)
                .input(brain)
                .expect(brain.map(|x| bf16::from_f64(exact(x.into()))))
                .tolerance(1e-2, 1e-7),
        ]);
    }
    let z = Complex::new(0.3f64, -0.4);
    for (op, expected) in [
        ("Sin", z.sin()),
        ("Cosh", z.cosh()),
        // tan(atan z) = z, sinh(asinh z) = z
        ("Tan", z.sin() / z.cos()),
    ] {
        cases.push(Case::new(op).input([z]).expect([expected]));
    }
    cases.push(Case::new("Atan").input([z.tan()]).expect([z]));
    cases.push(Case::new("Asinh").input([z.sinh()]).expect([z]));
    cases.push(Case::new("Acos").input([2.0f32]).expect([f32::NAN]));
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    TABLE
        .into_iter()
        .map(|(op, _, numbers)| {
            let near = numbers.map(|x| if x > 10.0 { x / 50.0 } else { x });
            crate::testing::GradientCase::new(op).input(near)
        })
        .collect()
}
