//! `Identity` and its kin: the input as it is, as a node of its own.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition, Planned};
use graph_core::{DType, Error, PartialShape, Result};

use crate::array::moving::with_element;
use crate::cuda::SIZED;
use crate::cuda::copy::{self as device, Transfer};

fn alias(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("input: T")
        .output("output: T")
        .attr("T: type")
        .shape(InferenceContext::unchanged)
        .kernel(KernelDefinition::alias())
}

fn pass_on(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    Ok(vec![Some(context.gradient(0)?)])
}

/// `Identity`
pub(crate) fn definition() -> OpDefinition {
    alias("Identity", "The same tensor as its input.").gradient(pass_on)
}

/// `Snapshot`
pub(crate) fn snapshot_definition() -> OpDefinition {
    alias("Snapshot", "A copy of its input.").no_gradient()
}

/// `GuaranteeConst`
pub(crate) fn guarantee_const_definition() -> OpDefinition {
    alias("GuaranteeConst", "Its input, which the user promises is constant.")
        .stateful()
        .no_gradient()
}

/// `DebugGradientIdentity`
pub(crate) fn debug_gradient_identity_definition() -> OpDefinition {
    alias("DebugGradientIdentity", "Its input, watched by the gradient debugger.")
        .stateful()
        .no_gradient()
}

/// `StopGradient`
pub(crate) fn stop_gradient_definition() -> OpDefinition {
    alias("StopGradient", "Its input, through which no gradient flows.").not_differentiable()
}

/// `PreventGradient`
pub(crate) fn prevent_gradient_definition() -> OpDefinition {
    alias(
        "PreventGradient",
        "Its input; asking for a gradient through it is an error.",
    )
    .attr("message: string = ''")
    .gradient(|context| {
        let reason: String = context.attr("message")?;
        Err(Error::not_found(format!(
            "Gradient explicitly disabled. Reason: {reason}"
        )))
    })
}

/// `EnsureShape`
pub(crate) fn ensure_shape_definition() -> OpDefinition {
    OpDefinition::new("EnsureShape", "Its input, whose shape must fit the attribute.")
        .input("input: T")
        .output("output: T")
        .attr("shape: shape")
        .attr("T: type")
        .may_fail()
        .shape(ensured_shape)
        .gradient(pass_on)
        .kernel(KernelDefinition::alias())
}

fn ensured_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape: PartialShape = context.attr("shape")?;
    context.set_output(0, context.input(0).merge(&shape)?);
    Ok(())
}

/// `IdentityN`
pub(crate) fn identity_n_definition() -> OpDefinition {
    OpDefinition::new("IdentityN", "The same tensors as its inputs.")
        .input("input: T")
        .output("output: T")
        .attr("T: list(type) >= 1")
        .shape(|context| {
            (0..context.num_inputs()).for_each(|index| context.set_output(index, context.input(index)));
            Ok(())
        })
        .gradient(|context| {
            Ok((0..context.op().num_outputs())
                .map(|slot| context.optional_gradient(slot))
                .collect())
        })
        .kernel(KernelDefinition::cpu(|request| {
            let dtypes = request.input_dtypes.to_vec();
            Ok(Planned::new(move |context| {
                dtypes
                    .iter()
                    .enumerate()
                    .try_for_each(|(index, &dtype)| copy(context, index, dtype))
            }))
        }))
        .kernel(
            KernelDefinition::cuda(|request| {
                let tensors = request.input_dtypes.iter().zip(request.input_shapes).enumerate();
                let copies = tensors.map(|(index, (&dtype, shape))| {
                    Ok((index, index, Transfer::all(request, dtype, shape.num_elements())?))
                });
                Ok(device::copies(copies.collect::<Result<_>>()?))
            })
            .types("T", SIZED),
        )
}

fn copy(context: &mut KernelContext<'_>, index: usize, dtype: DType) -> Result<()> {
    if dtype == DType::String {
        let value = context.input_value(index)?;
        context.set_output(index, value);
        return Ok(());
    }
    with_element!(dtype, E => {
        context.output::<E>(index)?.copy_from_slice(context.input::<E>(index)?);
        Ok(())
    })
}

/// A tensor equal to `input`, as a node of its own: for a name, or to wait for control dependencies.
#[track_caller]
pub fn identity(input: impl IntoOperand) -> OpBuilder {
    crate::op("Identity").input(input)
}

/// Tensors equal to `inputs`, of which none is there before all are; use [`OpBuilder::build_all`].
#[track_caller]
pub fn identity_n(inputs: impl IntoOperand) -> OpBuilder {
    crate::op("IdentityN").input(inputs)
}

/// A tensor equal to `input` that counts as a constant where gradients are taken.
#[track_caller]
pub fn stop_gradient(input: impl IntoOperand) -> OpBuilder {
    crate::op("StopGradient").input(input)
}

/// A tensor equal to `input`; taking a gradient through it is a `NotFound` error that quotes `message`.
#[track_caller]
pub fn prevent_gradient(input: impl IntoOperand, message: &str) -> OpBuilder {
    crate::op("PreventGradient").input(input).attr("message", message)
}

/// A tensor equal to `input`, whose shape must fit `shape` when it runs, and of whose shape the graph knows that much.
///
/// # Errors
/// `InvalidArgument`, on `build` or in the run, if it does not fit.
#[track_caller]
pub fn ensure_shape(input: impl IntoOperand, shape: impl Into<PartialShape>) -> OpBuilder {
    crate::op("EnsureShape").input(input).attr("shape", shape.into())
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let same = [
        "Identity",
        "Snapshot",
        "GuaranteeConst",
        "DebugGradientIdentity",
        "StopGradient",
        "PreventGradient",
    ];
    let mut cases: Vec<Case> = same
        .map(|op| Case::new(op).input([1i32, 2, 3]).expect([1i32, 2, 3]))
        .into();
    cases.extend([
        Case::new("Identity").input("text").expect("text"),
        Case::new("EnsureShape")
            .attr("shape", PartialShape::from([None, Some(2)]))
            .input([[1.0f32, 2.0]])
            .expect([[1.0f32, 2.0]]),
        Case::new("IdentityN")
            .input([1i32, 2])
            .input("text")
            .expect([1i32, 2])
            .expect("text"),
        Case::new("IdentityN")
            .input([1i32, 2])
            .input(3.5f64)
            .expect([1i32, 2])
            .expect(3.5f64),
    ]);
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    vec![
        GradientCase::new("Identity").input([1.0f64, 2.0]),
        GradientCase::new("IdentityN").input([1.0f64, 2.0]).input([0.5f64]),
        GradientCase::new("EnsureShape")
            .attr("shape", PartialShape::from([None]))
            .input([1.0f64, 2.0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_does_not_fit_is_an_error() {
        let case = crate::testing::Case::new("EnsureShape")
            .attr("shape", PartialShape::from([None, Some(3)]))
            .input([[1.0f32, 2.0]]);
        assert_eq!(case.run().unwrap_err().class(), "InvalidArgument");
    }
}
