//! `graph`: looks at graphs, checkpoints and event files, compares and converts them.
//!
//! One module a subcommand. Each has `Options`, what its command line takes, and `run`, which writes to standard output
//! what it found. To add a subcommand, write its module and add it to [`Command`] and to `Command::run`.

mod attr_text;
mod checkpoint;
mod convert;
mod devices;
mod diff;
mod dot;
mod events;
mod failure;
mod input;
mod inspect;
mod json;
mod literal;
mod ops;
mod replay;
mod run;
mod support;
mod table;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Result;

/// Looks at TensorFlow graphs, checkpoints and event files, compares, converts and runs them.
#[derive(Debug, Parser)]
#[command(name = "graph", version, max_term_width = 120)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(inspect::Options),
    Diff(diff::Options),
    Dot(dot::Options),
    Convert(convert::Options),
    Checkpoint(checkpoint::Options),
    Events(events::Options),
    Replay(replay::Options),
    Ops(ops::Options),
    Devices(devices::Options),
    Run(run::Options),
}

impl Command {
    /// Runs it; the exit code is 0 unless a comparison or a check failed.
    fn run(&self, out: &mut dyn Write) -> Result<ExitCode> {
        match self {
            Self::Inspect(options) => inspect::run(options, out),
            Self::Diff(options) => diff::run(options, out),
            Self::Dot(options) => dot::run(options, out),
            Self::Convert(options) => convert::run(options, out),
            Self::Checkpoint(options) => checkpoint::run(options, out),
            Self::Events(options) => events::run(options, out),
            Self::Replay(options) => replay::run(options, out),
            Self::Ops(options) => ops::run(options, out),
            Self::Devices(options) => devices::run(options, out),
            Self::Run(options) => run::run(options, out),
        }
    }

    /// The exit code of an error: of a comparison another than that of a difference.
    fn error_code(&self) -> ExitCode {
        match self {
            Self::Diff(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    graph_ops::install();
    let mut out = BufWriter::new(io::stdout().lock());
    let result = command.run(&mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    match result {
        Ok(code) => code,
        // Whoever reads has seen enough, as `head` does.
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            // A reader that went away must not get in the way of the exit code.
            let _ = writeln!(io::stderr(), "error: {failure}");
            command.error_code()
        }
    }
}
