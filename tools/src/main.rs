//! `graph`: looks at graphs, checkpoints and event files, compares and converts them.
//!
//! One module a subcommand. Each has `Options`, what its command line takes, and `run`, which writes to standard output
//! what it found. To add a subcommand, write its module and add it to [`Command`] and to `Command::run`.

mod attr_text;
mod failure;
mod json;
mod ops;
mod replay;
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
    Ops(ops::Options),
    Replay(replay::Options),
}

impl Command {
    /// Runs it; the exit code is 0 unless a comparison or a check failed.
    fn run(&self, out: &mut dyn Write) -> Result<ExitCode> {
        match self {
            Self::Ops(options) => ops::run(options, out),
            Self::Replay(options) => replay::run(options, out),
        }
    }

    /// The exit code of an error.
    fn error_code(&self) -> ExitCode {
        ExitCode::FAILURE
    }
}

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
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
