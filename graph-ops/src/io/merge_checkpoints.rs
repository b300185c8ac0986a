//! `MergeV2Checkpoints`: several checkpoints to one.

use std::fs;
use std::path::{Path, PathBuf};

use graph_core::Result;
use graph_core::format::checkpoint::merge;
use graph_core::graph::{IntoOperand, OpBuilder, Operation};
use graph_core::op::{KernelContext, KernelDefinition, OpDefinition, Planned};

use super::{path, prefix};

/// The definition of `MergeV2Checkpoints`.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "MergeV2Checkpoints",
        "Makes several V2 checkpoints one, whose shards their data files become.",
    )
    .input("checkpoint_prefixes: string")
    .input("destination_prefix: string")
    .attr("delete_old_dirs: bool = true")
    .stateful()
    .shape(|context| {
        context.with_rank(0, 1)?;
        context.with_rank(1, 0).map(drop)
    })
    .not_differentiable()
    .kernel(KernelDefinition::cpu(|request| {
        let delete_old_dirs: bool = request.attr("delete_old_dirs")?;
        Ok(Planned::new(move |context| run(context, delete_old_dirs)))
    }))
}

fn run(context: &mut KernelContext<'_>, delete_old_dirs: bool) -> Result<()> {
    let parts = context.input_strings(0)?.iter().map(|prefix| path(prefix));
    let parts: Vec<PathBuf> = parts.collect::<Result<_>>()?;
    let destination = prefix(context, 1)?;
    merge(&parts, &destination)?;
    if delete_old_dirs {
        let folders = parts.iter().filter_map(|part| part.parent());
        for folder in folders.filter(|&folder| folder != Path::new("") && Some(folder) != destination.parent()) {
            // Only empty folders go; the first of several shards takes theirs along.
            let _ = fs::remove_dir(folder);
        }
    }
    Ok(())
}

/// A merger of checkpoints about to be made an operation; see [`merge_v2_checkpoints`].
#[must_use = "an operation is made by `build`"]
pub struct MergeV2Checkpoints(OpBuilder);

/// Makes the checkpoints `checkpoint_prefixes` (a string vector) one, `destination_prefix` (a string scalar), when it runs.
/// Their files are renamed; the folders they leave empty go.
///
/// # Errors
/// In a run, `NotFound` if one does not exist, `InvalidArgument` if two hold the same tensor.
#[track_caller]
pub fn merge_v2_checkpoints(
    checkpoint_prefixes: impl IntoOperand,
    destination_prefix: impl IntoOperand,
) -> MergeV2Checkpoints {
    let builder = crate::op("MergeV2Checkpoints").input(checkpoint_prefixes);
    MergeV2Checkpoints(builder.input(destination_prefix))
}

impl MergeV2Checkpoints {
    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Whether folders that are empty then are removed; yes without.
    pub fn delete_old_dirs(self, delete: bool) -> Self {
        Self(self.0.attr("delete_old_dirs", delete))
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// The operands' own.
    pub fn build(self) -> Result<Operation> {
        self.0.build_operation()
    }
}
