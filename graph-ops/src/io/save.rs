//! `SaveV2`: tensors to a checkpoint.

use graph_core::format::checkpoint::BundleWriter;
use graph_core::graph::{IntoOperand, OpBuilder, Operation};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition};
use graph_core::{Error, Result};

use super::{names, prefix};

/// The definition of `SaveV2`.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "SaveV2",
        "Writes tensors, or slices of tensors, to a V2 checkpoint, which appears complete or not at all.",
    )
    .input("prefix: string")
    .input("tensor_names: string")
    .input("shape_and_slices: string")
    .input("tensors: dtypes")
    .attr("dtypes: list(type) >= 1")
    .stateful()
    .shape(shape)
    .not_differentiable()
    .kernel(KernelDefinition::direct(run))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let tensors = context.input_range("tensors")?.len();
    context.with_rank(0, 0)?;
    for input in [1, 2] {
        let dim = context.with_rank(input, 1)?.dim(0);
        if dim.is_some_and(|dim| dim != tensors) {
            return Err(Error::invalid_argument(format!(
                "{} must be as many as the tensors",
                context.input_name(input)
            ))
            .expected(format!("[{tensors}]"))
            .got(context.input(input)));
        }
    }
    Ok(())
}

fn run(context: &mut KernelContext<'_>) -> Result<()> {
    const FIRST: usize = 3;
    let names = names(context, context.num_inputs() - FIRST)?;
    let mut writer = BundleWriter::create(prefix(context, 0)?)?;
    for (input, (name, slice)) in (FIRST..).zip(names) {
        let value = context.input_value(input)?;
        match slice {
            Some(slice) => writer.add_slice(&name, &slice, &value)?,
            None => writer.add_value(&name, &value)?,
        }
    }
    writer.finish()
}

/// Saving about to be made an operation; see [`save_v2`].
#[must_use = "an operation is made by `build`"]
pub struct SaveV2(OpBuilder);

/// Writes `tensors` to the checkpoint `prefix` (a string scalar) when it runs, under `tensor_names` (a string vector). What
/// `shape_and_slices` (a string vector) says of a tensor is empty, or says which slice of a larger tensor it is: `4 3 0,2:-`
/// for the first two of four rows with three columns.
///
/// A checkpoint of the same prefix is replaced. It is whole until the new one is.
#[track_caller]
pub fn save_v2(
    prefix: impl IntoOperand,
    tensor_names: impl IntoOperand,
    shape_and_slices: impl IntoOperand,
    tensors: impl IntoOperand,
) -> SaveV2 {
    let builder = crate::op("SaveV2").input(prefix).input(tensor_names);
    SaveV2(builder.input(shape_and_slices).input(tensors))
}

impl SaveV2 {
    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` for names or slices of another number than the tensors.
    pub fn build(self) -> Result<Operation> {
        self.0.build_operation()
    }
}
