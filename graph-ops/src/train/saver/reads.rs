//! Graphs come from anyone: what is run to restore a checkpoint or after loading must not write files.

use std::collections::HashSet;

use graph_core::{Error, Operation, Result};

/// The ops that write, move or remove files.
const WRITERS: [&str; 2] = ["SaveV2", "MergeV2Checkpoints"];

/// Whether running `operation` only reads files.
///
/// # Errors
/// `InvalidArgument` if it would write some, with the operation that does.
pub(crate) fn check_only_reads(operation: &Operation) -> Result<()> {
    let mut seen = HashSet::new();
    let mut stack = vec![operation.clone()];
    while let Some(next) = stack.pop() {
        if WRITERS.contains(&next.op_type()) {
            return Err(Error::invalid_argument(format!(
                "'{}' is to be run to read, but it writes files",
                operation.name()
            ))
            .at(next.site())
            .hint("the graph is damaged or made to do harm"));
        }
        if seen.insert(next.id()) {
            stack.extend(next.inputs().iter().map(|input| input.op()));
            stack.extend(next.control_inputs());
        }
    }
    Ok(())
}
