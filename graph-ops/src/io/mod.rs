//! Checkpoints as ops: `SaveV2`, `RestoreV2` and what makes the names of their files.
//!
//! A checkpoint is called by its prefix, the common beginning of its files' names. [`train::Saver`](crate::train::Saver)
//! builds these ops for the variables of a graph.

mod filename;
mod merge_checkpoints;
mod regex_full_match;
mod restore;
mod save;
mod string_join;
#[cfg(test)]
mod tests;

pub use filename::{ShardedFilename, ShardedFilespec, sharded_filename, sharded_filespec};
pub use merge_checkpoints::{MergeV2Checkpoints, merge_v2_checkpoints};
pub use regex_full_match::regex_full_match;
pub use restore::{RestoreV2, restore_v2};
pub use save::{SaveV2, save_v2};
pub use string_join::{StringJoin, string_join};

use std::path::PathBuf;

use graph_core::format::checkpoint::TensorSlice;
use graph_core::op::{KernelContext, OpDefinition};
use graph_core::{Error, Result};

#[cfg(test)]
use crate::testing::{Case, GradientCase};

/// The family's op definitions.
pub(crate) const OPS: &[fn() -> OpDefinition] = &[
    save::definition,
    restore::definition,
    merge_checkpoints::definition,
    filename::sharded_filename_definition,
    filename::sharded_filespec_definition,
    string_join::definition,
    regex_full_match::static_definition,
    regex_full_match::definition,
];

/// The family's numeric test cases.
#[cfg(test)]
pub(crate) const CASES: &[fn() -> Vec<Case>] = &[filename::cases, string_join::cases, regex_full_match::cases];

/// The family's gradient test cases: texts have no gradients.
#[cfg(test)]
pub(crate) const GRADIENT_CASES: &[fn() -> Vec<GradientCase>] = &[];

/// The prefix that an input holds: a single string.
fn prefix(context: &KernelContext<'_>, input: usize) -> Result<PathBuf> {
    match context.input_strings(input)? {
        [prefix] => path(prefix),
        several => {
            Err(Error::invalid_argument("a checkpoint has one prefix").got(format!("{} strings", several.len())))
        }
    }
}

fn path(bytes: &[u8]) -> Result<PathBuf> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::invalid_argument("the name of a checkpoint is no UTF-8 text").caused_by(error))?;
    if text.is_empty() {
        return Err(Error::invalid_argument("the prefix of a checkpoint is empty").hint("feed or name a path"));
    }
    Ok(PathBuf::from(text))
}

/// Names of tensors and, for each, the slice that is meant; `None` for the whole tensor.
type Names = Vec<(String, Option<TensorSlice>)>;

/// The names of input 1, and the slices of input 2, which must be as many as there are tensors.
fn names(context: &KernelContext<'_>, tensors: usize) -> Result<Names> {
    let (names, slices) = (context.input_strings(1)?, context.input_strings(2)?);
    for input in [1, 2] {
        let shape = context.input_shape(input);
        if shape.rank() != 1 || shape[0] != tensors {
            let what = ["names of tensors", "shapes and slices"][input - 1];
            return Err(
                Error::invalid_argument(format!("the {what} must be as many as the tensors"))
                    .expected(format!("[{tensors}]"))
                    .got(shape),
            );
        }
    }
    let name = |(name, slice): (&Vec<u8>, &Vec<u8>)| {
        let name = String::from_utf8(name.clone())
            .map_err(|error| Error::invalid_argument("the name of a tensor is no UTF-8 text").caused_by(error))?;
        let slice = String::from_utf8_lossy(slice);
        let slice = (!slice.is_empty()).then(|| TensorSlice::parse(&slice)).transpose()?;
        Ok((name, slice))
    };
    names.iter().zip(slices).map(name).collect()
}
