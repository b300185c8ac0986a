//! `RestoreV2`: tensors from a checkpoint.

use graph_core::format::checkpoint::{BundleReader, TensorSlice, exists};
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, PartialShape, Result};

use super::{names, prefix};

/// The definition of `RestoreV2`.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "RestoreV2",
        "Reads tensors, or slices of tensors, from a V2 checkpoint.",
    )
    .input("prefix: string")
    .input("tensor_names: string")
    .input("shape_and_slices: string")
    .output("tensors: dtypes")
    .attr("dtypes: list(type) >= 1")
    .stateful()
    .shape(shape)
    .not_differentiable()
    .kernel(KernelDefinition::cpu(make).data_dependent())
}

/// The outputs have the shapes of the slices that are known to be asked for.
fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    context.with_rank(0, 0)?;
    let (names, slices) = (context.with_rank(1, 1)?, context.with_rank(2, 1)?);
    names.merge(&slices)?;
    let Some(slices) = context.value(2) else { return Ok(()) };
    let slices = slices.as_strings()?;
    if slices.len() != context.num_outputs() {
        return Err(
            Error::invalid_argument("shapes and slices must be as many as the outputs")
                .expected(context.num_outputs())
                .got(slices.len()),
        );
    }
    for (output, slice) in slices.iter().enumerate().filter(|(_, slice)| !slice.is_empty()) {
        let slice = TensorSlice::parse(&String::from_utf8_lossy(slice))?;
        context.set_output(output, PartialShape::from(&slice.shape()));
    }
    Ok(())
}

fn make(request: &KernelRequest<'_>) -> Result<Planned> {
    let dtypes: Vec<DType> = request.attr("dtypes")?;
    Ok(Planned::new(move |context| run(context, &dtypes)))
}

fn run(context: &mut KernelContext<'_>, dtypes: &[DType]) -> Result<()> {
    let prefix = prefix(context, 0)?;
    let names = names(context, dtypes.len())?;
    if !exists(&prefix) {
        return Err(Error::not_found(format!("there is no checkpoint {}", prefix.display()))
            .hint("a checkpoint is named by its prefix: what its files' names have before .index and .data"));
    }
    let reader = BundleReader::open(&prefix)?;
    check(&reader, &names, dtypes)?;
    for (output, (name, slice)) in names.iter().enumerate() {
        let value = match slice {
            Some(slice) => reader.slice(name, slice)?,
            None => reader.value(name)?,
        };
        context.set_output(output, value);
    }
    Ok(())
}

/// Names all keys that are missing, or else all of another dtype.
fn check(reader: &BundleReader, names: &super::Names, dtypes: &[DType]) -> Result<()> {
    let (mut missing, mut other) = (Vec::new(), Vec::new());
    for ((name, _), &dtype) in names.iter().zip(dtypes) {
        match reader.dtype_and_shape(name)? {
            None => missing.push(name.as_str()),
            Some((stored, _)) if stored != dtype => other.push(format!("'{name}' is {stored}, not {dtype}")),
            Some(_) => {}
        }
    }
    let prefix = reader.prefix().display();
    if !missing.is_empty() {
        return Err(Error::not_found(format!(
            "Key {} not found in checkpoint {prefix}",
            missing.join(", ")
        )));
    }
    if !other.is_empty() {
        return Err(Error::invalid_argument(format!(
            "checkpoint {prefix} holds other dtypes than are expected: {}",
            other.join(", ")
        )));
    }
    Ok(())
}

/// Restoring about to be made an operation; see [`restore_v2`].
#[must_use = "an operation is made by `build`"]
pub struct RestoreV2(OpBuilder);

/// Reads tensors of these dtypes from the checkpoint `prefix` (a string scalar) when it runs: those named by `tensor_names`
/// (a string vector), whole where `shape_and_slices` (a string vector) is empty, else the slice that it says, as in
/// [`save_v2`](super::save_v2).
///
/// # Errors
/// In a run, `NotFound` if the checkpoint or a name does not exist, `InvalidArgument` if a tensor has another dtype, or
/// another shape than its slice says, `DataLoss` if the files are damaged.
#[track_caller]
pub fn restore_v2(
    prefix: impl IntoOperand,
    tensor_names: impl IntoOperand,
    shape_and_slices: impl IntoOperand,
    dtypes: &[DType],
) -> RestoreV2 {
    let builder = crate::op("RestoreV2").input(prefix).input(tensor_names);
    RestoreV2(builder.input(shape_and_slices).attr("dtypes", dtypes.to_vec()))
}

impl RestoreV2 {
    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Makes the operation; one tensor for each dtype.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` for names or slices of another number than the dtypes.
    pub fn build(self) -> Result<Vec<Tensor>> {
        self.0.build_all()
    }
}
