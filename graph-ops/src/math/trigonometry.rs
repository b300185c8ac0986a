//! Circular and hyperbolic functions and their inverses; angles are in radians.

use std::mem::MaybeUninit;

use graph_core::Result;
use graph_core::gradients::GradientContext;
use graph_core::graph::scope::control_dependencies;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::OpDefinition;
use half::{bf16, f16};

use super::elementwise::{FLOATS_AND_COMPLEX, kernel, run_blocks, unary_kernels, unary_op};
use super::exponential::times_slope;
use super::nodes::Nodes;
use crate::cpu::broadcast::{Function, Unary, Widened, unary_block};
use crate::cpu::simd::multiversion;
use crate::cpu::vector_math::angle::LARGEST;
use crate::cpu::vector_math::{self, angle};

/// A function of angles in single precision: up to [`LARGEST`] by a formula that becomes vector code, in blocks with larger
/// ones by the library's function.
struct OfAngles<F> {
    near: F,
    far: fn(f32) -> f32,
}

multiversion! {
    /// The bits of the largest absolute value; those of what is not a number are larger than all others.
    fn largest(x: &[f32]) -> u32 {
        x.iter().fold(0, |largest, x| largest.max(x.abs().to_bits()))
    }
}

impl<F: Function<f32, f32>> Unary<f32, f32> for OfAngles<F> {
    fn run(&self, input: &[f32], out: &mut [MaybeUninit<f32>]) {
        if largest(input) <= LARGEST.to_bits() {
            unary_block(&self.near, input, out);
        } else {
            unary_block(&self.far, input, out);
        }
    }
}

/// The kernels for `f32` and the half types by the formula given, and for the other types by `$e`.
macro_rules! kernels {
    ($definition:expr; angle $f:path, |$x:ident| $e:expr) => {{
        struct Near;
        impl Function<f32, f32> for Near {
            #[inline(always)]
            fn of(&self, x: f32) -> f32 {
                $f(x)
            }
        }
        let mut definition = unary_kernels!($definition; plain [f64] |$x| $e;);
        const MAP: &dyn Unary<f32, f32> = &OfAngles { near: Near, far: |$x| $e };
        definition.kernels.extend([
            kernel!(f32, |context| run_blocks::<f32, f32>(context, MAP)).in_place(0, 0),
            kernel!(f16, |context| run_blocks::<f16, f16>(context, &Widened(MAP))).in_place(0, 0),
            kernel!(bf16, |context| run_blocks::<bf16, bf16>(context, &Widened(MAP))).in_place(0, 0),
        ]);
        definition
    }};
    ($definition:expr; single $f:path, |$x:ident| $e:expr) => {
        unary_kernels!($definition; single |x| $f(x); plain [f64] |$x| $e;)
    };
    ($definition:expr; both $f32:path, $f64:path, |$x:ident| $e:expr) => {
        unary_kernels!($definition; single |x| $f32(x); plain [f64] |x| $f64(x);)
    };
    ($definition:expr; library, |$x:ident| $e:expr) => {
        unary_kernels!($definition; float |$x| $e;)
    };
}

/// Functions of one operand: definition, name, what it is, gradient, formulas, and the builder's name and words. In single
/// precision they are computed by an own function of any number or of an angle, or by the library's.
macro_rules! functions {
    ($($definition:ident, $op:literal, $summary:literal, $gradient:expr,
       $kind:ident $($f32:path)? $(, $f64:path)?, |$x:ident| $e:expr, $builder:ident, $doc:literal;)*) => {
        $(
            #[doc = concat!("`", $op, "`")]
            pub(crate) fn $definition() -> OpDefinition {
                let definition = unary_kernels! {
                    unary_op($op, $summary, FLOATS_AND_COMPLEX).gradient($gradient);
                    complex |$x| $e;
                    cuda |$x| concat!(stringify!($builder), "(x)");
                };
                kernels!(definition; $kind $($f32)? $(, $f64)?, |$x| $e)
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
        angle angle::sin, |x| x.sin(), sin, "The sine of each element, an angle in radians.";
    cos_op, "Cos", "The cosine of each element.", cos_gradient,
        angle angle::cos, |x| x.cos(), cos, "The cosine of each element, an angle in radians.";
    tan_op, "Tan", "The tangent of each element.", tan_gradient,
        angle angle::tan, |x| x.tan(), tan, "The tangent of each element, an angle in radians.";
    asin_op, "Asin", "The arc sine of each element, NaN beyond 1.",
        |context| times_slope(context, context.input(0), slope_of_asin),
        single angle::asin, |x| x.asin(), asin, "The arc sine of each element, in radians; NaN outside [-1, 1].";
    acos_op, "Acos", "The arc cosine of each element, NaN beyond 1.", acos_gradient,
        single angle::acos, |x| x.acos(), acos, "The arc cosine of each element, in radians; NaN outside [-1, 1].";
    atan_op, "Atan", "The arc tangent of each element.",
        |context| times_slope(context, context.input(0), |nodes, x| {
            let square = nodes.unary("Square", x)?;
            let one = nodes.scalar(1, x.dtype(), "Const")?;
            nodes.unary("Reciprocal", &nodes.binary("Add", "Add", &one, &square)?)
        }),
        both angle::atan, angle::atan64, |x| x.atan(), atan, "The arc tangent of each element, in radians.";
    sinh_op, "Sinh", "The hyperbolic sine of each element.",
        |context| times_slope(context, context.input(0), |nodes, x| nodes.unary("Cosh", x)),
        single vector_math::sinh, |x| x.sinh(), sinh, "The hyperbolic sine of each element.";
    cosh_op, "Cosh", "The hyperbolic cosine of each element.",
        |context| times_slope(context, context.input(0), |nodes, x| nodes.unary("Sinh", x)),
        single vector_math::cosh, |x| x.cosh(), cosh, "The hyperbolic cosine of each element.";
    asinh_op, "Asinh", "The inverse hyperbolic sine of each element.",
        |context| over_slope(context, "Cosh"),
        library, |x| x.asinh(), asinh, "The inverse hyperbolic sine of each element.";
    acosh_op, "Acosh", "The inverse hyperbolic cosine of each element, NaN below 1.",
        |context| over_slope(context, "Sinh"),
        library, |x| x.acosh(), acosh, "The inverse hyperbolic cosine of each element; NaN below 1.";
    atanh_op, "Atanh", "The inverse hyperbolic tangent of each element, NaN beyond 1.",
        |context| times_slope(context, context.input(0), |nodes, x| {
            let square = nodes.unary("Square", x)?;
            let one = nodes.scalar(1, x.dtype(), "Const")?;
            nodes.unary("Reciprocal", &nodes.binary("Sub", "Sub", &one, &square)?)
        }),
        library, |x| x.atanh(), atanh, "The inverse hyperbolic tangent of each element; NaN outside [-1, 1].";
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
