//! Does the runs of a recorded session again, and tells what differs.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use graph_core::format::import::{ImportOptions, read_graph_def};
use graph_core::format::proto::GraphDef;
use graph_core::op::registry;
use graph_core::session::Feeds;
use graph_core::{Error, Graph, Operation, Result, Session, Tensor, Value};

use crate::compare::{Tolerance, compare};
use crate::npy;
use crate::npz;
use crate::support::{NodesByName, subgraph, unknown_ops, unsupported_operations};
use crate::trace::{GRAPH_FILE, RecordedRun, TRACE_FILE, Trace, class_name};

/// How a recorded session is replayed.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ReplayOptions {
    /// How far apart numbers may be.
    pub tolerance: Tolerance,
}

/// What came of a replay.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// Every run gave what was recorded.
    Ok,
    /// A run gave something else.
    Differs(Box<Difference>),
    /// The session uses ops, or dtypes of ops, that this engine does not know: `Op`, `Op(dtype)`, sorted. Random ops in loops
    /// of parallel iterations count as such, since chance decides what they draw in which iteration.
    Unsupported(Vec<String>),
}

/// The first difference between a replay and the record.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Difference {
    /// The number of the run, from 0; none if the session did not get as far.
    pub run: Option<usize>,
    /// The fetched tensor that differs.
    pub fetch: Option<String>,
    /// The first of its elements that differs.
    pub index: Option<Vec<usize>>,
    /// What this engine gives.
    pub got: Option<String>,
    /// What was recorded.
    pub expected: Option<String>,
    /// How many elements of the tensor differ.
    pub count: Option<usize>,
    /// The error that arose, if the difference is one.
    pub error: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(run) = self.run {
            parts.push(format!("run {run}"));
        }
        if let Some(fetch) = &self.fetch {
            parts.push(format!("fetch {fetch}"));
        }
        if let Some(index) = &self.index {
            let index: Vec<String> = index.iter().map(ToString::to_string).collect();
            parts.push(format!("index [{}]", index.join(",")));
        }
        if let Some(got) = &self.got {
            parts.push(format!("got {got}"));
        }
        if let Some(expected) = &self.expected {
            parts.push(format!("expected {expected}"));
        }
        if let Some(count) = self.count.filter(|&count| count > 1) {
            parts.push(format!("{count} elements differ"));
        }
        if let Some(error) = &self.error {
            parts.push(format!("error {error}"));
        }
        f.write_str(&parts.join(", "))
    }
}

impl Outcome {
    fn differs(difference: Difference) -> Self {
        Self::Differs(Box::new(difference))
    }
}

/// Replays the session recorded in `folder`. An error that the record expects counts wherever it arises, import and planning
/// included, if it is of the recorded class. Nothing panics: a bug that would is told as a difference.
///
/// The ops must be installed before (`graph_ops::install()`).
pub fn replay(folder: &Path, options: &ReplayOptions) -> Outcome {
    let replayed = catch_unwind(AssertUnwindSafe(|| replay_folder(folder, options)));
    replayed
        .unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Error::internal(format!(
                "panicked: {}",
                text.unwrap_or("without a message")
            )))
        })
        .unwrap_or_else(|error| {
            Outcome::differs(Difference {
                error: Some(one_line(&error)),
                ..Difference::default()
            })
        })
}

/// [`replay`] of many folders, `jobs` at a time. `each` is told the outcomes in the order of the folders, each as soon as it
/// and those before it are there.
pub fn replay_all(
    folders: &[PathBuf],
    options: &ReplayOptions,
    jobs: usize,
    mut each: impl FnMut(&Path, &Outcome),
) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let mut outcomes: Vec<Option<Outcome>> = vec![None; folders.len()];
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, folders.len().max(1)) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
                for index in numbers.take_while(|&index| index < folders.len()) {
                    // The receiver lives until all senders are gone.
                    let _ = sender.send((index, replay(&folders[index], options)));
                }
            });
        }
        drop(sender);
        let mut told = 0;
        for (index, outcome) in receiver {
            outcomes[index] = Some(outcome);
            while let Some(Some(outcome)) = outcomes.get(told) {
                each(&folders[told], outcome);
                told += 1;
            }
        }
    });
    outcomes.into_iter().flatten().collect()
}

/// The recorded folders at and below these, sorted within each: a folder that holds a trace, or those within it.
///
/// # Errors
/// Whatever the operating system refuses, and `NotFound` for a folder without any recorded one.
pub fn find_folders(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let before = found.len();
        collect(path, &mut found)?;
        if found.len() == before {
            return Err(
                Error::not_found(format!("{} holds no recorded session", path.display())).hint(format!(
                    "a recorded session is a folder with {TRACE_FILE} and {GRAPH_FILE}"
                )),
            );
        }
    }
    Ok(found)
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if path.join(TRACE_FILE).is_file() {
        found.push(path.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(|error| Error::io(path, error))?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(path, error))?;
        // Links are not followed: they may lead in circles.
        if entry
            .file_type()
            .map_err(|error| Error::io(entry.path(), error))?
            .is_dir()
        {
            folders.push(entry.path());
        }
    }
    folders.sort();
    folders.iter().try_for_each(|folder| collect(folder, found))
}

/// An error in one line, with the operation it concerns.
fn one_line(error: &Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join("; ")
}

fn replay_folder(folder: &Path, options: &ReplayOptions) -> Result<Outcome> {
    let trace = Trace::read(folder)?;
    let graph_def = read_graph_def(folder.join(GRAPH_FILE))?;
    let nodes = NodesByName::new(&graph_def);
    let runs: Vec<&RecordedRun> = trace.runs.iter().collect();
    let needed = subgraph(&graph_def, &nodes.named_by(&runs));
    let unknown = unknown_ops(&needed, registry()?);
    if !unknown.is_empty() {
        return Ok(Outcome::Unsupported(unknown.into_iter().collect()));
    }
    let replay = Replay {
        folder,
        trace: &trace,
        nodes: &nodes,
        graph_def: &graph_def,
        options,
    };
    match import(&needed) {
        Ok(graph) => replay.in_session(&graph, |_| None::<&Error>),
        Err(error) if error.class() == "Unimplemented" => Ok(unsupported(&error)),
        Err(error) => replay.without_failing_runs(&error),
    }
}

fn import(graph_def: &GraphDef) -> Result<Graph> {
    let graph = Graph::new();
    graph.import(graph_def, &ImportOptions::verbatim())?;
    Ok(graph)
}

/// The outcome for an error that says that the engine is not able to do something.
fn unsupported(error: &Error) -> Outcome {
    match &error.report().op {
        Some(site) => Outcome::Unsupported(vec![site.op.clone()]),
        None => Outcome::differs(Difference {
            error: Some(one_line(error)),
            ..Difference::default()
        }),
    }
}

struct Replay<'a> {
    folder: &'a Path,
    trace: &'a Trace,
    nodes: &'a NodesByName<'a>,
    graph_def: &'a GraphDef,
    options: &'a ReplayOptions,
}

impl Replay<'_> {
    /// The graph as a whole cannot be imported. Where TensorFlow ran the record, it must be what only failing runs need:
    /// those fail alone, by this error or another of the recorded class, and the others run in a session without it.
    fn without_failing_runs(&self, error: &Error) -> Result<Outcome> {
        let refused = |run: Option<usize>, expected: Option<&String>, error: &Error| {
            Ok(Outcome::differs(Difference {
                run,
                expected: expected.cloned(),
                error: Some(one_line(error)),
                ..Difference::default()
            }))
        };
        let mut graph = None;
        let mut failures: Vec<Option<Error>> = Vec::new();
        for (index, run) in self.trace.runs.iter().enumerate() {
            let alone = match run.error {
                Some(_) => import(&subgraph(self.graph_def, &self.nodes.named_by(&[run]))).err(),
                None => None,
            };
            if let Some((alone, expected)) = alone.as_ref().zip(run.error.as_ref())
                && class_name(alone) != *expected
            {
                return refused(Some(index), Some(expected), alone);
            }
            failures.push(alone);
        }
        let rest: Vec<&RecordedRun> = self
            .trace
            .runs
            .iter()
            .zip(&failures)
            .filter(|(_, failure)| failure.is_none())
            .map(|(run, _)| run)
            .collect();
        if rest.len() == self.trace.runs.len() {
            return refused(None, None, error);
        }
        if !rest.is_empty() {
            match import(&subgraph(self.graph_def, &self.nodes.named_by(&rest))) {
                Ok(imported) => graph = Some(imported),
                Err(error) => return refused(None, None, &error),
            }
        }
        match graph {
            Some(graph) => self.in_session(&graph, |index| failures[index].as_ref()),
            None => Ok(Outcome::Ok),
        }
    }

    /// Does the runs in a session for `graph`, those that failed already aside.
    fn in_session<'e>(&self, graph: &Graph, failed: impl Fn(usize) -> Option<&'e Error>) -> Result<Outcome> {
        let mut unsupported_ops = BTreeSet::new();
        for (index, run) in self.trace.runs.iter().enumerate() {
            if failed(index).is_none() {
                let needed = self.nodes.computed_by(run);
                unsupported_ops.extend(self.nodes.drawn_in_parallel(&needed));
                unsupported_ops.extend(unsupported_operations(graph, needed));
            }
        }
        if !unsupported_ops.is_empty() {
            return Ok(Outcome::Unsupported(unsupported_ops.into_iter().collect()));
        }
        let session = Session::new(graph)?;
        for (index, run) in self.trace.runs.iter().enumerate() {
            if failed(index).is_some() {
                continue;
            }
            let result = self.run(&session, run);
            let difference = match (&run.error, result) {
                (None, Ok(values)) => self.first_difference(run, &values)?,
                (Some(expected), Err(error)) if class_name(&error) == *expected => None,
                (None, Err(error)) if error.class() == "Unimplemented" => return Ok(unsupported(&error)),
                (expected, Err(error)) => Some(Difference {
                    expected: expected.clone(),
                    error: Some(one_line(&error)),
                    ..Difference::default()
                }),
                (Some(expected), Ok(_)) => Some(Difference {
                    got: Some("no error".to_owned()),
                    expected: Some(expected.clone()),
                    ..Difference::default()
                }),
            };
            if let Some(difference) = difference {
                return Ok(Outcome::differs(Difference {
                    run: Some(index),
                    ..difference
                }));
            }
        }
        Ok(Outcome::Ok)
    }

    fn run(&self, session: &Session, run: &RecordedRun) -> Result<Vec<Value>> {
        let graph = session.graph();
        let mut feeds = Feeds::new();
        for (name, value) in run.feeds.iter().zip(self.fed_values(run)?) {
            feeds = feeds.with(graph.tensor(name)?, value);
        }
        let fetches: Vec<Tensor> = run
            .fetches
            .iter()
            .map(|name| graph.tensor(name))
            .collect::<Result<_>>()?;
        let targets: Vec<Operation> = run
            .targets
            .iter()
            .map(|name| graph.operation(name))
            .collect::<Result<_>>()?;
        let (values, _): (Vec<Value>, Vec<()>) = session.run((fetches, targets), feeds)?;
        Ok(values)
    }

    fn fed_values(&self, run: &RecordedRun) -> Result<Vec<Value>> {
        let values = self.values(run.feeds_file.as_ref(), run.feeds.len())?;
        let typed = values
            .into_iter()
            .enumerate()
            .map(|(index, value)| match run.feed_dtype(index) {
                Some(dtype) => npy::as_dtype(value, dtype),
                None => Ok(value),
            });
        typed.collect()
    }

    fn values(&self, file: Option<&String>, count: usize) -> Result<Vec<Value>> {
        let values = match file {
            Some(file) => npz::read(self.folder.join(file))?,
            None => Vec::new(),
        };
        if values.len() != count {
            return Err(
                Error::data_loss("the file holds another number of arrays than the trace names")
                    .expected(count)
                    .got(values.len()),
            );
        }
        Ok(values)
    }

    fn first_difference(&self, run: &RecordedRun, values: &[Value]) -> Result<Option<Difference>> {
        let recorded = self.values(run.fetches_file.as_ref(), run.fetches.len())?;
        for (index, (got, expected)) in values.iter().zip(recorded).enumerate() {
            // Without a dtype in the trace, bits of a bfloat16 can only be told by what this engine gives.
            let dtype = run.fetch_dtype(index).unwrap_or(got.dtype());
            let expected = npy::as_dtype(expected.clone(), dtype).unwrap_or(expected);
            if let Some(mismatch) = compare(got, &expected, self.options.tolerance) {
                return Ok(Some(Difference {
                    fetch: Some(run.fetches[index].clone()),
                    index: mismatch.index,
                    got: Some(mismatch.got),
                    expected: Some(mismatch.expected),
                    count: Some(mismatch.count),
                    ..Difference::default()
                }));
            }
        }
        Ok(None)
    }
}
