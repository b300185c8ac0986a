//! Event files: what TensorBoard reads from a log directory.
//!
//! ```
//! use graph_core::format::events::{EventReader, EventWriter};
//! use graph_core::format::proto::{Summary, event::What, summary};
//! # let dir = tempfile::tempdir().unwrap();
//! # let logdir = dir.path().join("tensorboard/run-1");
//!
//! let mut writer = EventWriter::create(&logdir)?;
//! let accuracy = summary::Value {
//!     tag: "accuracy".to_string(),
//!     value: Some(summary::value::Value::SimpleValue(0.97)),
//!     ..Default::default()
//! };
//! writer.add_summary(Summary { value: vec![accuracy] }, 100)?;
//! let path = writer.path().to_path_buf();
//! writer.close()?;
//!
//! let last = EventReader::open(path)?.last().unwrap()?;
//! assert_eq!(last.step, 100);
//! assert!(matches!(last.what, Some(What::Summary(_))));
//! # Ok::<(), graph_core::error::Error>(())
//! ```

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message;

use super::proto::event::What;
use super::proto::{Event, GraphDef, RunMetadata, SessionLog, Summary, TaggedRunMetadata};
use super::tf_record::{RecordReader, write_record};
use crate::error::{Error, Result};

/// The content of the first event of a file.
pub const FILE_VERSION: &str = "brain.Event:2";

const MAX_PENDING_EVENTS: usize = 10;
const FLUSH_INTERVAL: Duration = Duration::from_secs(120);

/// Writes one event file.
///
/// Events wait in memory until 10 of them are there, until one comes 120 seconds after the last flush, or until
/// [`flush`](Self::flush), [`close`](Self::close) or drop. A failed flush keeps what it could not write; the next one
/// goes on from there.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
    pending_events: usize,
    last_flush: Instant,
    /// Tags whose summary metadata is in the file: readers want it once.
    described_tags: HashSet<String>,
    run_tags: HashSet<String>,
}

impl EventWriter {
    /// Starts `events.out.tfevents.<seconds>.<hostname>` in `logdir`, which is created where it is missing.
    ///
    /// A file of that name is never touched: this one's name then ends in `.1`, `.2` and so on. Errors: of the file
    /// system.
    pub fn create(logdir: impl AsRef<Path>) -> Result<Self> {
        Self::create_with_suffix(logdir, "")
    }

    /// As [`create`](Self::create), with `suffix` at the end of the file's name.
    pub fn create_with_suffix(logdir: impl AsRef<Path>, suffix: &str) -> Result<Self> {
        let logdir = logdir.as_ref();
        fs::create_dir_all(logdir).map_err(|e| Error::io(logdir, e))?;
        let seconds = now().as_secs();
        let hostname = gethostname::gethostname().to_string_lossy().replace('/', "_");
        let name = format!("events.out.tfevents.{seconds:010}.{hostname}{suffix}");
        let (path, file) = create_new(logdir, &name)?;
        let mut writer = EventWriter {
            path,
            file,
            pending: Vec::new(),
            pending_events: 0,
            last_flush: Instant::now(),
            described_tags: HashSet::new(),
            run_tags: HashSet::new(),
        };
        writer.write_event(&Event {
            wall_time: seconds as f64,
            what: Some(What::FileVersion(FILE_VERSION.to_string())),
            ..Default::default()
        })?;
        writer.flush()?;
        Ok(writer)
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an event as it is. Where an error comes back, the event is kept for the next flush all the same.
    pub fn write_event(&mut self, event: &Event) -> Result<()> {
        write_record(&mut self.pending, &event.encode_to_vec()).map_err(|e| Error::io(&self.path, e))?;
        self.pending_events += 1;
        if self.pending_events >= MAX_PENDING_EVENTS || self.last_flush.elapsed() >= FLUSH_INTERVAL {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the values of a summary for a step. Metadata goes out with the first value of its tag only.
    pub fn add_summary(&mut self, mut summary: Summary, step: i64) -> Result<()> {
        for value in &mut summary.value {
            if value.metadata.is_some() && !self.described_tags.insert(value.tag.clone()) {
                value.metadata = None;
            }
        }
        self.add(What::Summary(summary), step)
    }

    /// As [`add_summary`](Self::add_summary), for a summary as summary ops make it: serialized.
    ///
    /// Errors: `InvalidArgument` where `summary` is not a serialized `Summary`.
    pub fn add_serialized_summary(&mut self, summary: &[u8], step: i64) -> Result<()> {
        let summary =
            Summary::decode(summary).map_err(|e| Error::invalid_argument(format!("not a serialized Summary: {e}")))?;
        self.add_summary(summary, step)
    }

    /// Writes a graph, for the graph tab.
    pub fn add_graph(&mut self, graph: &GraphDef) -> Result<()> {
        self.add(What::GraphDef(graph.encode_to_vec()), 0)
    }

    /// Writes that a session started, stopped or saved a checkpoint.
    pub fn add_session_log(&mut self, log: SessionLog, step: i64) -> Result<()> {
        self.add(What::SessionLog(log), step)
    }

    /// Writes times and memory of a run under `tag`, which the graph tab lists.
    ///
    /// Errors: `AlreadyExists` for a tag that this file has.
    pub fn add_run_metadata(&mut self, metadata: &RunMetadata, tag: &str, step: i64) -> Result<()> {
        if !self.run_tags.insert(tag.to_string()) {
            return Err(Error::already_exists(format!(
                "{}: there are run metadata with the tag '{tag}' already; each run needs its own",
                self.path.display()
            )));
        }
        let run = TaggedRunMetadata {
            tag: tag.to_string(),
            run_metadata: metadata.encode_to_vec(),
        };
        self.add(What::TaggedRunMetadata(run), step)
    }

    /// Hands all waiting events to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        let mut written = 0;
        let mut result = Ok(());
        while result.is_ok() && written < self.pending.len() {
            match self.file.write(&self.pending[written..]) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        self.pending.drain(..written);
        self.last_flush = Instant::now();
        result.map_err(|e| Error::io(&self.path, e))?;
        self.pending_events = 0;
        Ok(())
    }

    /// Flushes and ends the file. Dropping a writer does the same but cannot report a failure.
    pub fn close(mut self) -> Result<()> {
        self.flush()
    }

    fn add(&mut self, what: What, step: i64) -> Result<()> {
        self.write_event(&Event {
            wall_time: now().as_secs_f64(),
            step,
            what: Some(what),
            ..Default::default()
        })
    }
}

impl Drop for EventWriter {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// Time since the epoch; zero on a clock that is set before it.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn create_new(dir: &Path, name: &str) -> Result<(PathBuf, File)> {
    let mut path = dir.join(name);
    for number in 1u64.. {
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                path = dir.join(format!("{name}.{number}"));
            }
            Err(error) => return Err(Error::io(path, error)),
        }
    }
    Err(Error::already_exists(format!("{}: no free file name", path.display())))
}

/// Reads the events of one file; an iterator that ends after the first error.
///
/// A record that is cut, corrupt or no event is `DataLoss` and names the byte offset of that record. A file that is
/// still being written may well end in a cut record.
#[derive(Debug)]
pub struct EventReader {
    records: RecordReader<BufReader<File>>,
    path: PathBuf,
}

impl EventReader {
    /// Opens an event file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Ok(EventReader {
            records: RecordReader::open(path)?,
            path: path.to_path_buf(),
        })
    }
}

impl Iterator for EventReader {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.records.offset();
        let record = self.records.next()?;
        Some(record.and_then(|data| {
            Event::decode(data.as_slice()).map_err(|e| {
                Error::data_loss(format!(
                    "{}: the record at offset {offset} is not an event: {e}",
                    self.path.display()
                ))
            })
        }))
    }
}

/// The event files directly in `logdir`, in order of their names, which is the order of their times.
pub fn event_files(logdir: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let logdir = logdir.as_ref();
    let mut files = Vec::new();
    for entry in fs::read_dir(logdir).map_err(|e| Error::io(logdir, e))? {
        let entry = entry.map_err(|e| Error::io(logdir, e))?;
        if entry.file_name().to_string_lossy().contains("tfevents") {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::super::proto::summary::{Value, value};
    use super::super::proto::{NodeDef, SummaryMetadata, session_log::SessionStatus};
    use super::*;

    fn scalar(tag: &str, x: f32) -> Summary {
        let value = Value {
            tag: tag.to_string(),
            value: Some(value::Value::SimpleValue(x)),
            ..Default::default()
        };
        Summary { value: vec![value] }
    }

    fn events(path: &Path) -> Vec<Event> {
        EventReader::open(path).unwrap().collect::<Result<_>>().unwrap()
    }

    #[test]
    fn events_survive() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path().join("a/b")).unwrap();
        let path = writer.path().to_path_buf();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            name.starts_with("events.out.tfevents.") && name.as_bytes()[30] == b'.',
            "{name}"
        );

        let node = NodeDef {
            name: "x".to_string(),
            ..Default::default()
        };
        let graph = GraphDef {
            node: vec![node],
            ..Default::default()
        };
        writer.add_graph(&graph).unwrap();
        writer.add_summary(scalar("a", 1.5), 7).unwrap();
        writer
            .add_serialized_summary(&scalar("b", 2.5).encode_to_vec(), 8)
            .unwrap();
        assert!(writer.add_serialized_summary(&[0xff], 8).is_err());
        let start = SessionLog {
            status: SessionStatus::Start as i32,
            ..Default::default()
        };
        writer.add_session_log(start.clone(), 9).unwrap();
        writer.close().unwrap();

        let events = events(&path);
        assert_eq!(events[0].what, Some(What::FileVersion(FILE_VERSION.to_string())));
        assert_eq!(events[0].wall_time, events[0].wall_time.trunc());
        let rest: Vec<_> = events[1..].iter().map(|e| (e.step, e.what.clone().unwrap())).collect();
        let expected = [
            (0, What::GraphDef(graph.encode_to_vec())),
            (7, What::Summary(scalar("a", 1.5))),
            (8, What::Summary(scalar("b", 2.5))),
            (9, What::SessionLog(start)),
        ];
        assert_eq!(rest, expected);
    }

    #[test]
    fn files_begun_at_once_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let writers: Vec<_> = (0..3).map(|_| EventWriter::create(dir.path()).unwrap()).collect();
        let files = event_files(dir.path()).unwrap();
        assert_eq!(files.len(), 3);
        drop(writers);
        assert!(files.iter().all(|path| events(path).len() == 1));
        let (first, file) = create_new(dir.path(), "tfevents").unwrap();
        let (second, _) = create_new(dir.path(), "tfevents").unwrap();
        let (third, _) = create_new(dir.path(), "tfevents").unwrap();
        drop(file);
        let names = [first, second, third].map(|p| p.file_name().unwrap().to_owned());
        assert_eq!(names, ["tfevents", "tfevents.1", "tfevents.2"]);
    }

    #[test]
    fn ten_events_flush() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path()).unwrap();
        let path = writer.path().to_path_buf();
        for step in 1..10 {
            writer.add_summary(scalar("a", 0.0), step).unwrap();
        }
        assert_eq!(events(&path).len(), 1);
        writer.add_summary(scalar("a", 0.0), 10).unwrap();
        assert_eq!(events(&path).len(), 11);
        writer.add_summary(scalar("a", 0.0), 11).unwrap();
        drop(writer);
        assert_eq!(events(&path).len(), 12);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path()).unwrap();
        let path = writer.path().to_path_buf();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let good = std::mem::replace(&mut writer.file, full);
        let failures = (1..=12)
            .filter(|&step| writer.add_summary(scalar("a", 0.0), step).is_err())
            .count();
        assert_eq!(failures, 3);
        assert!(writer.flush().is_err());
        writer.file = good;
        writer.close().unwrap();
        let steps: Vec<_> = events(&path).iter().map(|event| event.step).collect();
        assert!(steps.into_iter().eq(0..=12));
    }

    #[test]
    fn a_run_needs_its_own_tag() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path()).unwrap();
        writer.add_run_metadata(&RunMetadata::default(), "step 1", 1).unwrap();
        let error = writer
            .add_run_metadata(&RunMetadata::default(), "step 1", 2)
            .unwrap_err();
        assert!(error.to_string().contains("'step 1'"), "{error}");
    }

    #[test]
    fn metadata_goes_out_once_a_tag() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path()).unwrap();
        let path = writer.path().to_path_buf();
        let mut summary = scalar("a", 0.0);
        summary.value[0].metadata = Some(SummaryMetadata::default());
        writer.add_summary(summary.clone(), 1).unwrap();
        writer.add_summary(summary, 2).unwrap();
        writer.close().unwrap();
        let described: Vec<bool> = events(&path)[1..]
            .iter()
            .map(|event| matches!(&event.what, Some(What::Summary(s)) if s.value[0].metadata.is_some()))
            .collect();
        assert_eq!(described, [true, false]);
    }

    #[test]
    fn a_record_that_is_no_event_is_data_loss() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tfevents");
        write_record(&mut File::create(&path).unwrap(), &[0xff, 0xff]).unwrap();
        let error = EventReader::open(&path)
            .unwrap()
            .next()
            .unwrap()
            .unwrap_err()
            .to_string();
        assert!(error.contains("offset 0"), "{error}");
    }
}
