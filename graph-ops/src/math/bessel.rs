//! `BesselI0e` and `BesselI1e`: scaled modified Bessel functions, each other's derivatives.

use graph_core::gradients::GradientContext;
use graph_core::graph::scope::control_dependencies;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::OpDefinition;
use graph_core::{Result, Value};

use super::elementwise::{FLOATS, unary_kernels, unary_op};
use super::nodes::Nodes;
use crate::cpu::bessel;

/// `BesselI0e`
pub(crate) fn i0e_op() -> OpDefinition {
    unary_kernels! {
        unary_op("BesselI0e", "exp(-|x|) I0(x), with the modified Bessel function of order 0.", FLOATS)
            .gradient(i0e_gradient);
        double |x| bessel::i0e(x);
        special [f32, f64, half::f16, half::bf16] |x| "i0e(x)";
    }
}

/// `BesselI1e`
pub(crate) fn i1e_op() -> OpDefinition {
    unary_kernels! {
        unary_op("BesselI1e", "exp(-|x|) I1(x), with the modified Bessel function of order 1.", FLOATS)
            .gradient(i1e_gradient);
        double |x| bessel::i1e(x);
        special [f32, f64, half::f16, half::bf16] |x| "i1e(x)";
    }
}

/// `I1e - sign(x) I0e`
fn i0e_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (x, y) = (context.input(0), context.output(0));
    let _after = control_dependencies([&gradient.op()])?;
    let falling = nodes.mul(&nodes.unary("Sign", &x)?, &y)?;
    let slope = nodes.sub(&nodes.unary("BesselI1e", &x)?, &falling)?;
    Ok(vec![Some(nodes.mul(&gradient, &slope)?)])
}

/// `I0e - I1e (sign(x) + 1/x)`, which is 1/2 at 0.
fn i1e_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (x, y) = (context.input(0), context.output(0));
    let _after = control_dependencies([&gradient.op()])?;
    let zero = nodes.constant(Value::zeros(x.dtype(), ())?, "Const")?;
    let is_zero = nodes.binary("Equal", "Equal", &x, &zero)?;
    // Where the formula divides by zero, it is computed of a number that it is not taken of.
    let safe = nodes.select(&is_zero, &nodes.ones_like(&x, x.dtype())?, &x)?;
    let rate = nodes.add(&nodes.unary("Sign", &safe)?, &nodes.unary("Reciprocal", &safe)?)?;
    let slope = nodes.sub(&nodes.unary("BesselI0e", &safe)?, &nodes.mul(&y, &rate)?)?;
    let half = nodes.scalar(0.5f64, x.dtype(), "mul/x")?;
    let halves = nodes.mul(&half, &nodes.ones_like(&x, x.dtype())?)?;
    let slope = nodes.select(&is_zero, &halves, &slope)?;
    Ok(vec![Some(nodes.mul(&gradient, &slope)?)])
}

/// `exp(-|x|) I0(x)` of each element, with the modified Bessel function of order 0.
#[track_caller]
pub fn bessel_i0e(x: impl IntoOperand) -> OpBuilder {
    crate::op("BesselI0e").input(x)
}

/// `exp(-|x|) I1(x)` of each element, with the modified Bessel function of order 1.
#[track_caller]
pub fn bessel_i1e(x: impl IntoOperand) -> OpBuilder {
    crate::op("BesselI1e").input(x)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use half::{bf16, f16};
    let x = [-2.0f64, 0.0, 40.0];
    let mut cases = Vec::new();
    for (op, expected) in [
        ("BesselI0e", [0.308_508_322_553_671f64, 1.0, 0.063_278_279_875_235_34]),
        ("BesselI1e", [-0.215_269_289_248_937_7, 0.0, 0.062_482_229_074_442_064]),
    ] {
        cases.extend([
            Case::new(op).input(x).expect(expected),
            Case::new(op)
                .input(x.map(|x| x as f32))
                .expect(expected.map(|x| x as f32)),
            Case::new(op)
                .input(x.map(f16::from_f64))
                .expect(expected.map(f16::from_f64))
                .tolerance(1e-3, 1e-4),
            Case::new(op)
                .input(x.map(bf16::from_f64))
                .expect(expected.map(bf16::from_f64))
                .tolerance(1e-2, 1e-3),
        ]);
    }
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    vec![
        GradientCase::new("BesselI0e").input([-2.0f64, 0.5, 3.0]),
        // The factor exp(-|x|) has a kink at 0, which differences cut by half a step.
        GradientCase::new("BesselI1e")
            .input([-2.0f64, 0.0, 0.5, 3.0])
            .tolerance(2e-5, 1e-7, 1e-5),
    ]
}
