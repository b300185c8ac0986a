//! Records the runs of a session.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use graph_core::format::Message;
use graph_core::format::graph_def::ExportOptions;
use graph_core::session::{ObservedRun, RunObserver};
use graph_core::{Error, Result, Value};

use crate::npz;
use crate::trace::{GRAPH_FILE, RecordedRun, TRACE_FILE, class_name};

/// Writes every run of a session into a folder, in the order in which they happen.
///
/// Give it to a session when that is made, so that no run is missing:
///
/// ```no_run
/// use graph_core::{Graph, Session, SessionOptions};
/// use graph_record::Recorder;
/// # let graph = Graph::new();
/// let session = Session::with_options(&graph, SessionOptions::new().observer(Recorder::create("bug")?))?;
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// The folder is complete after each run. What a run does outside the session (files it reads, a checkpoint it restores)
/// is not recorded.
pub struct Recorder {
    folder: PathBuf,
    recorded: Mutex<Recorded>,
}

struct Recorded {
    trace: File,
    runs: usize,
    /// Where the next run goes in the file; what ends the file follows.
    end: u64,
    /// The state of the graph that was written last.
    graph_version: Option<(usize, u64)>,
    ops: BTreeSet<&'static str>,
}

impl Recorder {
    /// A recorder into the folder `folder`, which is made if it is not there and must be empty if it is.
    ///
    /// # Errors
    /// `AlreadyExists` if the folder holds files, and whatever the operating system refuses.
    pub fn create(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
        let mut files = fs::read_dir(&folder).map_err(|error| Error::io(&folder, error))?;
        if files.next().is_some() {
            return Err(Error::already_exists(format!("{} is not empty", folder.display()))
                .hint("record each session into a folder of its own"));
        }
        let path = folder.join(TRACE_FILE);
        let trace = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| Error::io(&path, error))?;
        let mut recorded = Recorded {
            trace,
            runs: 0,
            end: 0,
            graph_version: None,
            ops: BTreeSet::new(),
        };
        let source = concat!("graph-record ", env!("CARGO_PKG_VERSION"));
        recorded
            .append(&format!("{{\n \"source\": \"{source}\",\n \"runs\": ["))
            .map_err(|error| Error::io(&path, error))?;
        Ok(Self {
            folder,
            recorded: Mutex::new(recorded),
        })
    }

    /// The folder that is recorded into.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn record(&self, recorded: &mut Recorded, run: &ObservedRun<'_>) -> Result<()> {
        self.write_graph(recorded, run)?;
        let number = recorded.runs;
        let feeds: Vec<_> = run.feeds().collect();
        let fetched = run.result().unwrap_or_default();
        let mut entry = RecordedRun {
            feeds: feeds.iter().map(|(tensor, _)| tensor.name()).collect(),
            fetches: run.fetches().map(|tensor| tensor.name()).collect(),
            targets: run.targets().map(|operation| operation.name()).collect(),
            feed_dtypes: Some(
                feeds
                    .iter()
                    .map(|(tensor, _)| tensor.dtype().name().to_owned())
                    .collect(),
            ),
            fetch_dtypes: Some(run.fetches().map(|tensor| tensor.dtype().name().to_owned()).collect()),
            error: run.result().err().map(class_name),
            ..RecordedRun::default()
        };
        let values: Vec<&Value> = feeds.iter().map(|&(_, value)| value).collect();
        entry.feeds_file = self.write_values(format!("{number}.feeds.npz"), &values)?;
        entry.fetches_file = self.write_values(format!("{number}.fetches.npz"), &fetched.iter().collect::<Vec<_>>())?;
        let entry = serde_json::to_string(&entry)
            .map_err(|error| Error::internal(format!("a run cannot be written as JSON: {error}")))?;
        let separator = if number == 0 { "" } else { "," };
        let appended = recorded.append(&format!("{separator}\n  {entry}"));
        appended.map_err(|error| Error::io(self.folder.join(TRACE_FILE), error))?;
        recorded.runs += 1;
        Ok(())
    }

    /// Writes the graph before its first run, and again when it has changed.
    fn write_graph(&self, recorded: &mut Recorded, run: &ObservedRun<'_>) -> Result<()> {
        let graph = run.graph();
        let version = run.graph_version();
        if recorded.graph_version == Some(version) {
            return Ok(());
        }
        let message = graph.to_graph_def(ExportOptions { output_shapes: false });
        self.write(GRAPH_FILE, &message.encode_to_vec())?;
        recorded.ops = graph.operations().iter().map(|operation| operation.op_type()).collect();
        recorded.graph_version = Some(version);
        Ok(())
    }

    fn write_values(&self, name: String, values: &[&Value]) -> Result<Option<String>> {
        if values.is_empty() {
            return Ok(None);
        }
        self.write(&name, &npz::pack(values.iter().copied())?)?;
        Ok(Some(name))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, bytes).map_err(|error| Error::io(path, error))
    }
}

impl Recorded {
    /// Adds to the list of runs and ends the file again, so that it is whole after each run.
    fn append(&mut self, text: &str) -> std::io::Result<()> {
        let ops: Vec<String> = self.ops.iter().map(|op| format!("\"{op}\"")).collect();
        self.trace.seek(SeekFrom::Start(self.end))?;
        self.trace
            .write_all(format!("{text}\n ],\n \"ops\": [{}]\n}}\n", ops.join(", ")).as_bytes())?;
        let end = self.trace.stream_position()?;
        self.trace.set_len(end)?;
        self.end += text.len() as u64;
        self.trace.flush()
    }
}

impl RunObserver for Recorder {
    fn observe(&self, run: &ObservedRun<'_>) -> Result<()> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        self.record(&mut recorded, run)
            .map_err(|error| error.context(format!("recording a run into {}", self.folder.display())))
    }
}
