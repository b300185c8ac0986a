//! What of a checkpoint does not fit the variables that are to be restored from it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use graph_core::format::checkpoint::{BundleReader, TensorSlice, exists};
use graph_core::{DType, Error, Operation, PartialShape, Result, Shape, Tensor};

/// What of a checkpoint does not fit the variables that are to be restored from it, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckpointReport {
    /// The checkpoint's prefix.
    pub prefix: PathBuf,
    /// Keys that are to be restored and are not there.
    pub missing: Vec<String>,
    /// Keys that are there and are not to be restored, except those that no variable can have: such as begin with an
    /// underscore. They are no error by themselves.
    pub extra: Vec<String>,
    /// Keys of another shape: that of the variable, and the one that is there.
    pub other_shape: Vec<(String, PartialShape, Shape)>,
    /// Keys of another dtype: that of the variable, and the one that is there.
    pub other_dtype: Vec<(String, DType, DType)>,
}

impl CheckpointReport {
    /// Whether all variables can be restored.
    pub fn fits(&self) -> bool {
        self.missing.is_empty() && self.other_shape.is_empty() && self.other_dtype.is_empty()
    }

    /// Nothing if all variables can be restored, else an error that tells all that the report does.
    ///
    /// # Errors
    /// `NotFound` if keys are missing, else `InvalidArgument` if some are of another shape or dtype.
    pub fn into_result(self) -> Result<()> {
        if self.fits() {
            return Ok(());
        }
        let error = match self.missing.is_empty() {
            true => Error::invalid_argument(self.to_string()),
            false => Error::not_found(self.to_string()),
        };
        Err(error.hint("restore it with the graph that it was saved from, or only the variables that fit"))
    }
}

impl fmt::Display for CheckpointReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = if self.fits() { "fits" } else { "does not fit" };
        write!(f, "checkpoint {} {fits} the variables", self.prefix.display())?;
        let mut part = |title: &str, lines: &[String]| {
            if lines.is_empty() {
                return Ok(());
            }
            write!(f, "\n  {title}:")?;
            lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
        };
        part("missing in the checkpoint", &self.missing)?;
        let shape =
            |(key, expected, got): &(String, PartialShape, Shape)| format!("{key}: expected {expected}, got {got}");
        part(
            "of another shape",
            &self.other_shape.iter().map(shape).collect::<Vec<_>>(),
        )?;
        let dtype = |(key, expected, got): &(String, DType, DType)| format!("{key}: expected {expected}, got {got}");
        part(
            "of another dtype",
            &self.other_dtype.iter().map(dtype).collect::<Vec<_>>(),
        )?;
        part("only in the checkpoint", &self.extra)
    }
}

/// A key that is restored: its dtype, and its shape as far as the variable says it.
struct Key {
    name: String,
    dtype: DType,
    shape: PartialShape,
}

pub(super) fn compare(restore: &Operation, prefix: &Path) -> Result<CheckpointReport> {
    if !exists(prefix) {
        return Err(Error::not_found(format!("there is no checkpoint {}", prefix.display()))
            .hint("a checkpoint is named by its prefix: what its files' names have before .index and .data"));
    }
    let reader = BundleReader::open(prefix)?;
    let mut report = CheckpointReport {
        prefix: prefix.to_owned(),
        ..CheckpointReport::default()
    };
    let mut keys = restored_keys(restore)?;
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    for Key { name, dtype, shape } in &keys {
        let Some((stored_dtype, stored_shape)) = reader.dtype_and_shape(name)? else {
            report.missing.push(name.clone());
            continue;
        };
        if stored_dtype != *dtype {
            report.other_dtype.push((name.clone(), *dtype, stored_dtype));
        }
        if shape.merge(&PartialShape::from(&stored_shape)).is_err() {
            report.other_shape.push((name.clone(), shape.clone(), stored_shape));
        }
    }
    let known: BTreeSet<&str> = keys.iter().map(|key| key.name.as_str()).collect();
    let extra = reader.entries().keys();
    let extra = extra.filter(|name| !name.starts_with('_') && !known.contains(name.as_str()));
    report.extra = extra.cloned().collect();
    Ok(report)
}

/// The keys that `restore` restores: those of the `RestoreV2`s behind the assignments that it waits for. What is built in
/// another way is left to the run.
fn restored_keys(restore: &Operation) -> Result<Vec<Key>> {
    let mut keys = Vec::new();
    let mut seen = BTreeSet::new();
    let mut stack = vec![restore.clone()];
    while let Some(operation) = stack.pop() {
        if !seen.insert(operation.id()) {
            continue;
        }
        match operation.op_type() {
            "NoOp" => stack.extend(operation.control_inputs()),
            "Assign" | "AssignVariableOp" => keys.extend(restored_key(&operation)?),
            _ => {}
        }
    }
    Ok(keys)
}

fn restored_key(assign: &Operation) -> Result<Option<Key>> {
    let variable = assign.input(0);
    let mut shape = match variable.handle_data() {
        Some(handle) => handle.shape,
        None if assign.attr::<bool>("validate_shape")? => variable.shape(),
        None => PartialShape::unknown(),
    };
    let mut source: Tensor = assign.input(1);
    while matches!(source.op().op_type(), "Identity" | "Reshape") {
        if source.op().op_type() == "Reshape" {
            shape = PartialShape::unknown();
        }
        source = source.op().input(0);
    }
    if source.op().op_type() != "RestoreV2" {
        return Ok(None);
    }
    let element = |input: usize| {
        let texts = source.op().input(input).constant_value()?;
        let text = texts.as_strings().ok()?.get(source.id().slot as usize)?.clone();
        String::from_utf8(text).ok()
    };
    let (Some(name), Some(slice)) = (element(1), element(2)) else {
        return Ok(None);
    };
    if !slice.is_empty() {
        shape = PartialShape::from(TensorSlice::parse(&slice)?.whole());
    }
    let dtype = source.dtype();
    Ok(Some(Key { name, dtype, shape }))
}
