//! The writer of summaries: a folder's event file.

use std::path::{Path, PathBuf};

use graph_core::format::events::EventWriter;
use graph_core::format::graph_def::ExportOptions;
use graph_core::format::proto::{GraphDef, SessionLog};
use graph_core::session::RunMetadata;
use graph_core::{Error, Graph, Result, Value};

/// Writes summaries and graphs to an event file of its own in a folder, where TensorBoard finds them.
///
/// What is written reaches the file after 10 events, 120 seconds, a [`FileWriter::flush`], or at the end. Two writers that
/// begin in the same second write two files.
pub struct FileWriter {
    logdir: PathBuf,
    suffix: String,
    /// `None` after `close`.
    events: Option<EventWriter>,
}

impl FileWriter {
    /// Begins an event file in `logdir`, which is made where it is missing.
    ///
    /// # Errors
    /// Those of the file system, such as `PermissionDenied`.
    pub fn new(logdir: impl AsRef<Path>) -> Result<Self> {
        Self::with_suffix(logdir, "")
    }

    /// As [`FileWriter::new`], with `suffix` at the end of the file's name.
    ///
    /// # Errors
    /// As for [`FileWriter::new`].
    pub fn with_suffix(logdir: impl AsRef<Path>, suffix: &str) -> Result<Self> {
        let logdir = logdir.as_ref().to_owned();
        let events = begin(&logdir, suffix)?;
        Ok(Self {
            logdir,
            suffix: suffix.to_owned(),
            events: Some(events),
        })
    }

    /// The folder.
    pub fn logdir(&self) -> &Path {
        &self.logdir
    }

    /// The file that is written; `None` after [`FileWriter::close`].
    pub fn path(&self) -> Option<&Path> {
        self.events.as_ref().map(EventWriter::path)
    }

    fn events(&mut self) -> Result<&mut EventWriter> {
        self.events.as_mut().ok_or_else(|| {
            Error::failed_precondition("the writer is closed").hint("FileWriter::reopen begins another file")
        })
    }

    /// Writes what a run of a summary op gave, under a step.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not a serialized summary, `FailedPrecondition` after `close`, and the file system's.
    pub fn add_summary(&mut self, summary: &Value, step: i64) -> Result<()> {
        let events = self.events()?;
        for bytes in summary.as_strings()? {
            events.add_serialized_summary(bytes, step)?;
        }
        Ok(())
    }

    /// Writes a serialized summary, under a step.
    ///
    /// # Errors
    /// As for [`FileWriter::add_summary`].
    pub fn add_serialized_summary(&mut self, summary: &[u8], step: i64) -> Result<()> {
        self.events()?.add_serialized_summary(summary, step)
    }

    /// Writes a graph with the shapes of its tensors, for TensorBoard's Graphs.
    ///
    /// # Errors
    /// `FailedPrecondition` after `close`, and the file system's.
    pub fn add_graph(&mut self, graph: &Graph) -> Result<()> {
        self.add_graph_def(&graph.to_graph_def(ExportOptions::default()))
    }

    /// Writes what a traced run measured, under a tag of its own, for the times and memory of TensorBoard's Graphs.
    ///
    /// # Errors
    /// `AlreadyExists` for a tag that was used, `FailedPrecondition` after `close`, and the file system's.
    pub fn add_run_metadata(&mut self, metadata: &RunMetadata, tag: &str, step: i64) -> Result<()> {
        self.events()?.add_run_metadata(&metadata.to_proto(), tag, step)
    }

    /// Writes a graph that is a message already.
    ///
    /// # Errors
    /// `FailedPrecondition` after `close`, and the file system's.
    pub fn add_graph_def(&mut self, graph: &GraphDef) -> Result<()> {
        self.events()?.add_graph(graph)
    }

    /// Writes that a session started, stopped or saved a checkpoint.
    ///
    /// # Errors
    /// `FailedPrecondition` after `close`, and the file system's.
    pub fn add_session_log(&mut self, log: SessionLog, step: i64) -> Result<()> {
        self.events()?.add_session_log(log, step)
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// `FailedPrecondition` after `close`, and the file system's.
    pub fn flush(&mut self) -> Result<()> {
        self.events()?.flush()
    }

    /// Flushes and ends the file; what is dropped without it is flushed too, but cannot report a failure. Closing twice is
    /// no error.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn close(&mut self) -> Result<()> {
        self.events.take().map_or(Ok(()), EventWriter::close)
    }

    /// After [`FileWriter::close`], begins another file in the same folder; before, does nothing.
    ///
    /// # Errors
    /// As for [`FileWriter::new`].
    pub fn reopen(&mut self) -> Result<()> {
        if self.events.is_none() {
            self.events = Some(begin(&self.logdir, &self.suffix)?);
        }
        Ok(())
    }
}

fn begin(logdir: &Path, suffix: &str) -> Result<EventWriter> {
    match suffix {
        "" => EventWriter::create(logdir),
        _ => EventWriter::create_with_suffix(logdir, suffix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph_core::format::events::{EventReader, event_files};
    use graph_core::format::proto::event::What;

    #[test]
    fn files_hold_what_was_written_and_never_clash() {
        let folder = tempfile::tempdir().unwrap();
        let logdir = folder.path().join("a/b");
        let (mut first, mut second) = (FileWriter::new(&logdir).unwrap(), FileWriter::new(&logdir).unwrap());
        let summary = Value::string(b"\x0a\x08\x0a\x01a\x15\x00\x00\xc0\x3f");
        first.add_summary(&summary, 7).unwrap();
        assert!(first.add_summary(&Value::string("nonsense"), 7).is_err());
        assert!(first.add_summary(&Value::scalar(1.0f32), 7).is_err());
        first.close().unwrap();
        first.close().unwrap();
        assert_eq!(
            first.add_summary(&summary, 8).unwrap_err().class(),
            "FailedPrecondition"
        );
        first.reopen().unwrap();
        first.add_summary(&summary, 9).unwrap();
        second.flush().unwrap();
        drop((first, second));
        let mut steps: Vec<i64> = event_files(&logdir)
            .unwrap()
            .into_iter()
            .flat_map(|file| EventReader::open(file).unwrap())
            .map(Result::unwrap)
            .filter(|event| matches!(event.what, Some(What::Summary(_))))
            .map(|event| event.step)
            .collect();
        steps.sort_unstable();
        assert_eq!(steps, [7, 9]);
        assert_eq!(event_files(&logdir).unwrap().len(), 3);
    }
}
