//! `graph replay`: recorded sessions, run again.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use graph_record::{Difference, Outcome, ReplayOptions, Tolerance};
use serde::Serialize;

use crate::failure::Result;
use crate::json;

/// Replays recorded sessions and tells, a line a folder, whether they give what was recorded
///
/// A recorded session is a folder with graph.pb, trace.json and the arrays that were fed and fetched. A line says ok, or
/// the first difference, or which ops (or dtypes of ops) this engine does not know. The exit code is 0 if all are ok.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  graph replay bug-17\n  graph replay --jobs 4 --rtol 1e-3 recorded/\n  graph replay recorded/ --json | jq '.folders[] | select(.status != \"ok\")'"
)]
pub struct Options {
    /// Recorded folders, or folders of such
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,

    /// How far a number may be off, relative to the recorded one (half and bfloat16: at least 1e-2)
    #[arg(long, default_value_t = 1e-4, value_name = "R")]
    rtol: f64,

    /// How far any number may be off (half and bfloat16: at least 1e-2)
    #[arg(long, default_value_t = 1e-5, value_name = "A")]
    atol: f64,

    /// Folders replayed at a time [default: one a processor]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// What is printed for programs.
#[derive(Serialize)]
struct Report<'a> {
    folders: Vec<Folder<'a>>,
    ok: usize,
    differ: usize,
    unsupported: usize,
    /// How many folders need each op (or dtype of an op) that is not known.
    unsupported_ops: BTreeMap<&'a str, usize>,
}

#[derive(Serialize)]
struct Folder<'a> {
    path: String,
    /// `ok`, `differs` or `unsupported`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Described<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unsupported: &'a [String],
}

#[derive(Serialize)]
struct Described<'a> {
    run: Option<usize>,
    fetch: Option<&'a str>,
    index: Option<&'a [usize]>,
    got: Option<&'a str>,
    expected: Option<&'a str>,
    count: Option<usize>,
    error: Option<&'a str>,
}

impl<'a> Described<'a> {
    fn new(difference: &'a Difference) -> Self {
        Self {
            run: difference.run,
            fetch: difference.fetch.as_deref(),
            index: difference.index.as_deref(),
            got: difference.got.as_deref(),
            expected: difference.expected.as_deref(),
            count: difference.count,
            error: difference.error.as_deref(),
        }
    }
}

impl<'a> Report<'a> {
    fn new(folders: &'a [PathBuf], outcomes: &'a [Outcome]) -> Self {
        let mut report = Self {
            folders: Vec::with_capacity(folders.len()),
            ok: 0,
            differ: 0,
            unsupported: 0,
            unsupported_ops: BTreeMap::new(),
        };
        for (folder, outcome) in folders.iter().zip(outcomes) {
            let mut entry = Folder {
                path: folder.display().to_string(),
                status: "ok",
                difference: None,
                unsupported: &[],
            };
            match outcome {
                Outcome::Ok => report.ok += 1,
                Outcome::Differs(difference) => {
                    report.differ += 1;
                    entry.status = "differs";
                    entry.difference = Some(Described::new(difference));
                }
                Outcome::Unsupported(ops) => {
                    report.unsupported += 1;
                    entry.status = "unsupported";
                    entry.unsupported = ops;
                    for op in ops {
                        *report.unsupported_ops.entry(op).or_default() += 1;
                    }
                }
            }
            report.folders.push(entry);
        }
        report
    }
}

/// A folder and its outcome as a line.
fn line(folder: &Path, outcome: &Outcome) -> String {
    let folder = folder.display();
    match outcome {
        Outcome::Ok => format!("{folder}: ok"),
        Outcome::Differs(difference) => format!("{folder}: {difference}"),
        Outcome::Unsupported(ops) => format!("{folder}: unsupported: {}", ops.join(", ")),
    }
}

/// Replays, and prints what came of it in the order of the folders.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<ExitCode> {
    graph_ops::install();
    let folders = graph_record::find_folders(&options.folders)?;
    let replay_options = ReplayOptions {
        tolerance: Tolerance {
            relative: options.rtol,
            absolute: options.atol,
        },
    };
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = options.jobs.unwrap_or_else(processors);
    let quiet = Quiet::new();
    let mut written = Ok(());
    let outcomes = graph_record::replay_all(&folders, &replay_options, jobs, |folder, outcome| {
        if !options.json && written.is_ok() {
            written = writeln!(out, "{}", line(folder, outcome)).and_then(|()| out.flush());
        }
    });
    drop(quiet);
    written?;
    let report = Report::new(&folders, &outcomes);
    if options.json {
        json::write(out, &report)?;
    } else {
        writeln!(
            out,
            "replayed {}: {} ok, {} differ, {} unsupported",
            folders.len(),
            report.ok,
            report.differ,
            report.unsupported
        )?;
    }
    Ok(match report.ok == folders.len() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Keeps panics from writing to standard error while it lives: a replay tells them as differences.
struct Quiet;

impl Quiet {
    fn new() -> Self {
        std::panic::set_hook(Box::new(|_| {}));
        Self
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = std::panic::take_hook();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_differs_or_is_not_known() {
        let folder = Path::new("forward/a");
        assert_eq!(line(folder, &Outcome::Ok), "forward/a: ok");
        let unsupported = Outcome::Unsupported(vec!["Svd".to_owned(), "MatMul(complex64)".to_owned()]);
        assert_eq!(
            line(folder, &unsupported),
            "forward/a: unsupported: Svd, MatMul(complex64)"
        );
        let difference = Outcome::Differs(Box::new(Difference {
            run: Some(2),
            fetch: Some("y:0".to_owned()),
            index: Some(vec![0, 3]),
            got: Some("1".to_owned()),
            expected: Some("2".to_owned()),
            count: Some(4),
            error: None,
        }));
        assert_eq!(
            line(folder, &difference),
            "forward/a: run 2, fetch y:0, index [0,3], got 1, expected 2, 4 elements differ"
        );
    }

    #[test]
    fn the_report_counts_what_is_missing_by_op() {
        let folders = ["a", "b", "c"].map(PathBuf::from);
        let missing = |ops: &[&str]| Outcome::Unsupported(ops.iter().map(ToString::to_string).collect());
        let outcomes = [missing(&["Svd", "Qr"]), Outcome::Ok, missing(&["Qr"])];
        let report = Report::new(&folders, &outcomes);
        assert_eq!((report.ok, report.differ, report.unsupported), (1, 0, 2));
        assert_eq!(
            report.unsupported_ops.into_iter().collect::<Vec<_>>(),
            [("Qr", 2), ("Svd", 1)]
        );
    }
}
