//! `Betainc`: the regularized incomplete beta function.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, PartialShape, Result};

use super::broadcasting::Broadcast;
use super::nodes::Nodes;
use crate::cpu::incomplete::betainc as incomplete_beta;
use crate::cuda::elementwise::expression;

/// `Betainc`
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "Betainc",
        "The regularized incomplete beta function I_x(a, b); operands have one shape, or are scalars.",
    )
    .input("a: T")
    .input("b: T")
    .input("x: T")
    .output("z: T")
    .attr("T: {float, double}")
    .shape(shape)
    .gradient(gradient)
    .kernel(KernelDefinition::cpu(kernel::<f32>).types("T", &[DType::Float32]))
    .kernel(KernelDefinition::cpu(kernel::<f64>).types("T", &[DType::Float64]))
    .kernel(expression!(special | a, b, x | "betainc(a, b, x)"))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let mut known: Option<PartialShape> = None;
    let mut scalars = true;
    for shape in context.inputs() {
        match shape.rank() {
            Some(0) => {}
            Some(_) => {
                let merged = match &known {
                    Some(known) => known
                        .merge(shape)
                        .map_err(|error| error.context("matching the shapes of the three operands"))?,
                    None => shape.clone(),
                };
                known = Some(merged);
                scalars = false;
            }
            None => scalars = false,
        }
    }
    let output = match known {
        _ if scalars => PartialShape::scalar(),
        Some(known) => known,
        None => PartialShape::unknown(),
    };
    context.set_output(0, output);
    Ok(())
}

/// A number that the function is computed of in double precision.
trait Number: Element {
    fn widen(self) -> f64;
    fn narrow(x: f64) -> Self;
}

impl Number for f32 {
    fn widen(self) -> f64 {
        self.into()
    }
    fn narrow(x: f64) -> Self {
        x as f32
    }
}

impl Number for f64 {
    fn widen(self) -> f64 {
        self
    }
    fn narrow(x: f64) -> Self {
        x
    }
}

fn kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context: &mut KernelContext<'_>| {
        let operands = [context.input::<T>(0)?, context.input::<T>(1)?, context.input::<T>(2)?];
        for (at, out) in context.output::<T>(0)?.iter_mut().enumerate() {
            // A scalar serves every element.
            let [a, b, x] = operands.map(|operand| operand[at.min(operand.len() - 1)].widen());
            *out = T::narrow(incomplete_beta(a, b, x));
        }
        Ok(())
    }))
}

/// `x^(a-1) (1-x)^(b-1) / B(a, b)` for x; none for the others, as in TensorFlow.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (a, b, x) = (context.input(0), context.input(1), context.input(2));
    let broadcast = Broadcast::by_nodes(&nodes, &a, &x)?;
    let log_gamma = |x: &Tensor| nodes.unary("Lgamma", x);
    let sum = nodes.add(&log_gamma(&a)?, &log_gamma(&b)?)?;
    let log_beta = nodes.sub(&sum, &log_gamma(&nodes.add(&a, &b)?)?)?;
    let one = nodes.scalar(1.0f64, x.dtype(), "sub/y")?;
    let less = |x: &Tensor| nodes.sub(x, &one);
    let upper = nodes.mul(&less(&b)?, &nodes.unary("Log1p", &nodes.unary("Neg", &x)?)?)?;
    let lower = nodes.mul(&less(&a)?, &nodes.unary("Log", &x)?)?;
    let slope = nodes.unary("Exp", &nodes.sub(&nodes.add(&upper, &lower)?, &log_beta)?)?;
    let product = nodes.mul(&slope, context.gradient(0)?)?;
    Ok(vec![None, None, Some(broadcast.second(&product)?)])
}

/// The regularized incomplete beta function `I_x(a, b)`, for positive `a` and `b` and `x` between 0 and 1; the operands have
/// one shape, or are scalars.
#[track_caller]
pub fn betainc(a: impl IntoOperand, b: impl IntoOperand, x: impl IntoOperand) -> OpBuilder {
    crate::op("Betainc").input(a).input(b).input(x)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    vec![
        Case::new("Betainc")
            .input([1.0f64, 2.0])
            .input([2.0f64, 3.0])
            .input(0.3f64)
            .expect([0.51f64, 0.3483]),
        Case::new("Betainc")
            .input(2.0f32)
            .input(3.0f32)
            .input([[0.3f32], [f32::NAN]])
            .expect([[0.3483f32], [f32::NAN]]),
        Case::new("Betainc")
            .input(1.0f32)
            .input(2.0f32)
            .input(0.3f32)
            .expect(0.51f32),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let case = || GradientCase::new("Betainc").with_respect_to(&[2]);
    vec![
        case().input([1.5f64, 2.0]).input([2.0f64, 3.0]).input([0.3f64, 0.6]),
        case().input([1.5f64, 2.0]).input(3.0f64).input(0.4f64),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn shapes_must_be_alike() {
        let case = Case::new("Betainc").input([1.0f64, 2.0]).input([[2.0f64], [3.0]]);
        assert!(case.input(0.3f64).run().is_err());
    }
}
