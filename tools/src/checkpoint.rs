//! `graph checkpoint`: the tensors of a checkpoint, with statistics and every checksum verified.

mod statistics;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use graph_core::Error;
use graph_core::format::checkpoint::{self, BundleReader};
use graph_core::format::proto::{BundleEntryProto, DataType};
use serde::Serialize;

use crate::failure::Result;
use crate::table::{self, Table, short, thousands};
use crate::{attr_text, input, json};
use statistics::Statistics;

/// Lists the tensors of a checkpoint with statistics, and verifies every checksum
#[derive(Debug, Args)]
#[command(after_help = "\
Reads V2 checkpoints. Exits with 1 where a tensor is damaged; the others are listed all the same.

Examples:
  graph checkpoint model.ckpt-100
  graph checkpoint model.ckpt-100.index --filter dot_1/
  graph checkpoint training_folder --json | jq '.tensors[] | select(.statistics.nan > 0) | .key'")]
pub struct Options {
    /// The checkpoint's prefix, one of its files, or a folder with a `checkpoint` file, whose newest is taken
    file: PathBuf,

    /// Only tensors whose key has TEXT in it
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    prefix: String,
    tensors: Vec<Tensor>,
    parameters: u64,
    bytes: u64,
    /// How many tensors have the checksums that the index says, and how many are damaged.
    verified: usize,
    damaged: usize,
}

#[derive(Serialize)]
struct Tensor {
    key: String,
    dtype: String,
    shape: Vec<i64>,
    bytes: i64,
    /// Of numbers that are not complex.
    statistics: Option<Statistics>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Prints the table; the exit code tells whether all is whole.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<ExitCode> {
    let prefix = prefix(&options.file)?;
    let reader = BundleReader::open(&prefix)?;
    let report = report(&prefix, &reader, options.filter.as_deref().unwrap_or_default());
    match options.json {
        true => json::write(out, &report)?,
        false => print(&report, out)?,
    }
    Ok(match report.damaged {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// The prefix of the checkpoint that a prefix, a file or a folder means.
pub fn prefix(file: &Path) -> graph_core::Result<PathBuf> {
    if input::is_stdin(file) {
        return Err(
            Error::invalid_argument("a checkpoint is several files and cannot come from standard input")
                .hint("name its prefix, as model.ckpt-100"),
        );
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let state = match () {
        () if file.is_dir() => Some(file.join("checkpoint")),
        () if name == "checkpoint" => Some(file.to_path_buf()),
        () => None,
    };
    if let Some(state) = state {
        let newest = checkpoint::read_state(&state)?.model_checkpoint_path;
        if newest.is_empty() {
            return Err(Error::not_found(format!("{}: no checkpoint is named", state.display())));
        }
        return Ok(state.with_file_name("").join(newest));
    }
    let is_data = |extension: &str| extension.starts_with("data-") && extension.contains("-of-");
    match name.rsplit_once('.') {
        Some((stem, extension)) if matches!(extension, "index" | "meta") || is_data(extension) => {
            Ok(file.with_file_name(stem))
        }
        _ => Ok(file.to_path_buf()),
    }
}

fn report(prefix: &Path, reader: &BundleReader, filter: &str) -> Report {
    let entries = reader.entries().iter().filter(|(key, _)| key.contains(filter));
    let tensors: Vec<Tensor> = entries.map(|(key, entry)| tensor(reader, key, entry)).collect();
    let damaged = tensors.iter().filter(|tensor| tensor.error.is_some()).count();
    let elements = |tensor: &Tensor| {
        let dims = tensor.shape.iter().map(|&dim| u64::try_from(dim).unwrap_or(0));
        dims.fold(1, u64::saturating_mul)
    };
    Report {
        prefix: prefix.display().to_string(),
        parameters: tensors.iter().map(elements).fold(0, u64::saturating_add),
        bytes: tensors
            .iter()
            .map(|tensor| tensor.bytes.max(0) as u64)
            .fold(0, u64::saturating_add),
        verified: tensors.len() - damaged,
        damaged,
        tensors,
    }
}

fn tensor(reader: &BundleReader, key: &str, entry: &BundleEntryProto) -> Tensor {
    let statistics = match entry.dtype() {
        DataType::DtString => reader.read_strings(key).map(|_| None),
        dtype if !entry.slices.is_empty() => reader.value(key).map(|value| Statistics::new(dtype, value.bytes())),
        dtype => reader.read(key).map(|tensor| Statistics::new(dtype, &tensor.bytes)),
    };
    let (statistics, error) = match statistics {
        Ok(statistics) => (statistics, None),
        Err(error) => (None, Some(error.report().message.clone())),
    };
    Tensor {
        key: key.to_owned(),
        dtype: attr_text::dtype(entry.dtype),
        shape: entry
            .shape
            .iter()
            .flat_map(|shape| &shape.dim)
            .map(|dim| dim.size)
            .collect(),
        bytes: entry.size,
        statistics,
        error,
    }
}

fn print(report: &Report, out: &mut dyn Write) -> Result<()> {
    let mut rows = Table::new(&[
        "key", "dtype", "shape", ">min", ">max", ">mean", ">std", ">nan", "checksum",
    ]);
    for tensor in &report.tensors {
        let dims: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
        let mut row = vec![
            tensor.key.clone(),
            tensor.dtype.clone(),
            format!("[{}]", dims.join(",")),
        ];
        match &tensor.statistics {
            Some(s) => row.extend([
                short(s.min),
                short(s.max),
                short(s.mean),
                short(s.std),
                thousands(s.nan),
            ]),
            None => row.extend(std::iter::repeat_n(String::new(), 5)),
        }
        row.push(if tensor.error.is_none() { "ok" } else { "DAMAGED" }.to_owned());
        rows.row(row);
    }
    rows.write(out, 0)?;
    writeln!(
        out,
        "\n{}: {}, {} parameters, {}",
        report.prefix,
        table::count(report.tensors.len(), "tensor"),
        thousands(report.parameters),
        table::bytes(report.bytes)
    )?;
    match report.damaged {
        0 => writeln!(out, "all checksums are right")?,
        damaged => writeln!(out, "{} damaged:", table::count(damaged, "tensor"))?,
    }
    for tensor in &report.tensors {
        if let Some(error) = &tensor.error {
            writeln!(out, "  {}: {error}", tensor.key)?;
        }
    }
    Ok(())
}
