//! `graph inspect`: what a graph is made of.

mod collections;
mod print;
mod report;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::failure::Result;
use crate::{input, json};

/// Tells what a graph is made of: inputs, outputs, variables, parameters, ops, collections, signatures
#[derive(Debug, Args)]
#[command(after_help = "\
Reads a GraphDef (.pb, .pbtxt), a MetaGraph (.meta) or the folder of a SavedModel, and keeps to the message: ops that the
engine does not know are no hindrance, they are listed.

Examples:
  graph inspect graph.pb
  graph inspect model.ckpt-100.meta --json | jq '.graphs[0].variables[].name'
  cat graph.pbtxt | graph inspect -")]
pub struct Options {
    /// The file, the folder of a SavedModel, or - for standard input
    file: PathBuf,

    /// Print all names, however many there are
    #[arg(long)]
    all: bool,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Prints the report of a file.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<ExitCode> {
    let file = input::graph(&options.file)?;
    let report = report::File::new(input::name(&options.file), &file);
    match options.json {
        true => json::write(out, &report)?,
        false => print::file(out, &report, options.all)?,
    }
    Ok(ExitCode::SUCCESS)
}
