//! Rounding, and tests of what kind of number an element is: `Floor`, `Ceil`, `Rint`, `Round`, `IsNan`, `IsInf`, `IsFinite`.

use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::op::{InferenceContext, OpDefinition};

use crate::cuda::FLOATS as FLOATING;
use crate::cuda::elementwise::expression;

use super::elementwise::{FLOATS, kernel, run_unary, run_widened, unary_kernels, unary_op};

/// `Floor`
pub(crate) fn floor_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Floor", "The largest whole number that is not above each element.", FLOATS)
            .gradient(|_| Ok(vec![None]));
        float |x| x.floor();
        cuda |x| "floor(x)";
    }
}

/// `Ceil`
pub(crate) fn ceil_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Ceil", "The smallest whole number that is not below each element.", FLOATS)
            .gradient(|_| Ok(vec![None]));
        float |x| x.ceil();
        cuda |x| "ceil(x)";
    }
}

/// `Rint`
pub(crate) fn rint_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Rint", "The nearest whole number, the even one of two that are as near.", FLOATS)
            .gradient(|_| Ok(vec![None]));
        float |x| x.round_ties_even();
        cuda |x| "rint(x)";
    }
}

/// `Round`
pub(crate) fn round_op() -> OpDefinition {
    unary_kernels! {
        unary_op(
            "Round",
            "The nearest whole number, the even one of two that are as near; integers stay as they are.",
            "T: {bfloat16, half, float, double, int8, int16, int32, int64, complex64, complex128}",
        )
        .gradient(|_| Ok(vec![None]));
        float |x| x.round_ties_even();
        plain [i8, i16, i32, i64] |x| x;
        cuda |x| "rint(x)";
        complex |z| graph_core::Complex::new(z.re.round_ties_even(), z.im.round_ties_even());
    }
}

/// A test of each element.
macro_rules! predicate {
    ($op:literal, $summary:literal, |$x:ident| $e:expr, $cuda:literal) => {
        OpDefinition::new($op, $summary)
            .input("x: T")
            .output("y: bool")
            .attr(FLOATS)
            .shape(InferenceContext::unchanged)
            .not_differentiable()
            .kernel(kernel!(f32, |context| run_unary::<f32, bool>(context, |$x: f32| $e)))
            .kernel(kernel!(f64, |context| run_unary::<f64, bool>(context, |$x: f64| $e)))
            .kernel(kernel!(half::f16, |context| run_widened::<half::f16, bool>(
                context,
                |$x: f32| $e
            )))
            .kernel(kernel!(half::bf16, |context| run_widened::<half::bf16, bool>(
                context,
                |$x: f32| $e
            )))
            .kernel(expression!(|$x| $cuda).types("T", FLOATING))
    };
}

/// `IsNan`
pub(crate) fn is_nan_op() -> OpDefinition {
    predicate!(
        "IsNan",
        "Whether each element is not a number.",
        |x| x.is_nan(),
        "is_nan(x)"
    )
}

/// `IsInf`
pub(crate) fn is_inf_op() -> OpDefinition {
    predicate!(
        "IsInf",
        "Whether each element is infinite.",
        |x| x.is_infinite(),
        "is_infinite(x)"
    )
}

/// `IsFinite`
pub(crate) fn is_finite_op() -> OpDefinition {
    predicate!(
        "IsFinite",
        "Whether each element is neither infinite nor NaN.",
        |x| x.is_finite(),
        "is_finite(x)"
    )
}

/// The largest whole number that is not above each element; no gradient flows through it.
#[track_caller]
pub fn floor(x: impl IntoOperand) -> OpBuilder {
    crate::op("Floor").input(x)
}

/// The smallest whole number that is not below each element; no gradient flows through it.
#[track_caller]
pub fn ceil(x: impl IntoOperand) -> OpBuilder {
    crate::op("Ceil").input(x)
}

/// The nearest whole number, the even one of two that are as near; no gradient flows through it.
#[track_caller]
pub fn rint(x: impl IntoOperand) -> OpBuilder {
    crate::op("Rint").input(x)
}

/// The nearest whole number, the even one of two that are as near; integers stay as they are.
#[track_caller]
pub fn round(x: impl IntoOperand) -> OpBuilder {
    crate::op("Round").input(x)
}

/// Whether each element is not a number; a `bool` tensor.
#[track_caller]
pub fn is_nan(x: impl IntoOperand) -> OpBuilder {
    crate::op("IsNan").input(x)
}

/// Whether each element is infinite; a `bool` tensor.
#[track_caller]
pub fn is_inf(x: impl IntoOperand) -> OpBuilder {
    crate::op("IsInf").input(x)
}

/// Whether each element is neither infinite nor NaN; a `bool` tensor.
#[track_caller]
pub fn is_finite(x: impl IntoOperand) -> OpBuilder {
    crate::op("IsFinite").input(x)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use half::{bf16, f16};
    let x = [-1.5f64, -0.5, 0.5, 1.5, 2.5, 2.6];
    let mut cases = Vec::new();
    for (op, expected) in [
        ("Floor", [-2.0f64, -1.0, 0.0, 1.0, 2.0, 2.0]),
        ("Ceil", [-1.0, 0.0, 1.0, 2.0, 3.0, 3.0]),
        ("Rint", [-2.0, 0.0, 0.0, 2.0, 2.0, 3.0]),
        ("Round", [-2.0, 0.0, 0.0, 2.0, 2.0, 3.0]),
    ] {
        cases.extend([
            Case::new(op).input(x).expect(expected),
            Case::new(op)
                .input(x.map(|x| x as f32))
                .expect(expected.map(|x| x as f32)),
            Case::new(op)
                .input(x.map(f16::from_f64))
                .expect(expected.map(f16::from_f64)),
            Case::new(op)
                .input(x.map(bf16::from_f64))
                .expect(expected.map(bf16::from_f64)),
        ]);
    }
    cases.push(Case::new("Round").input([-3i32, 7]).expect([-3i32, 7]));
    cases.push(Case::new("Round").input([1i64 << 60]).expect([1i64 << 60]));
    let odd = [f64::NAN, f64::NEG_INFINITY, 1.0];
    for (op, expected) in [
        ("IsNan", [true, false, false]),
        ("IsInf", [false, true, false]),
        ("IsFinite", [false, false, true]),
    ] {
        cases.extend([
            Case::new(op).input(odd).expect(expected),
            Case::new(op).input(odd.map(|x| x as f32)).expect(expected),
            Case::new(op).input(odd.map(f16::from_f64)).expect(expected),
            Case::new(op).input(odd.map(bf16::from_f64)).expect(expected),
        ]);
    }
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    // No gradient at all, as finite differences away from the steps say too.
    ["Floor", "Ceil", "Rint", "Round"]
        .into_iter()
        .map(|op| crate::testing::GradientCase::new(op).input([0.3f64, -1.7]))
        .collect()
}
