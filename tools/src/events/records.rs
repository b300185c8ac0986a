//! The records of a run, gathered by tag.

use std::path::Path;

use graph_core::format::Message;
use graph_core::format::events::EventReader;
use graph_core::format::proto::event::What;
use graph_core::format::proto::session_log::SessionStatus;
use graph_core::format::proto::{Event, summary};
use graph_core::format::tf_record::RecordReader;
use graph_core::{Error, Result};
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::series::{self, Point};

/// What the event files of one folder hold.
#[derive(Default, Serialize)]
pub struct Run {
    /// The folder below the one asked for; empty for that one itself.
    pub name: String,
    pub files: usize,
    pub events: usize,
    /// First and last step of the summaries.
    pub steps: Option<(i64, i64)>,
    pub graphs: usize,
    pub meta_graphs: usize,
    pub starts: usize,
    pub log_messages: usize,
    /// In the order in which they appear first.
    pub tags: Vec<Tag>,
    pub run_metadata: Vec<String>,
    /// What is wrong with the files.
    pub damage: Vec<String>,
    #[serde(skip)]
    by_tag: FxHashMap<String, usize>,
}

/// All summaries of a tag.
#[derive(Serialize)]
pub struct Tag {
    pub tag: String,
    pub kind: &'static str,
    pub count: usize,
    pub first_step: i64,
    pub last_step: i64,
    /// In words.
    pub last_value: String,
    /// Kept only of the tag that was asked for.
    #[serde(skip)]
    pub points: Vec<Point>,
}

impl Run {
    pub fn new(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// Adds the events of a file. Damage ends it and is kept; a file that cannot be opened is an error.
    pub fn read_file(&mut self, path: &Path, wanted: Option<&str>) -> Result<()> {
        let events = EventReader::open(path)?;
        self.read(events, wanted);
        Ok(())
    }

    /// Adds the events in the bytes of a file.
    pub fn read_bytes(&mut self, bytes: &[u8], wanted: Option<&str>) {
        let records = RecordReader::new(bytes, "standard input");
        let events = records.map(|record| {
            Event::decode(record?.as_slice())
                .map_err(|error| Error::data_loss(format!("standard input: a record is no event: {error}")))
        });
        self.read(events, wanted);
    }

    fn read(&mut self, events: impl Iterator<Item = Result<Event>>, wanted: Option<&str>) {
        self.files += 1;
        for event in events {
            match event {
                Ok(event) => self.add(event, wanted),
                Err(error) => {
                    self.damage.push(error.report().message.clone());
                    return;
                }
            }
        }
    }

    fn add(&mut self, event: Event, wanted: Option<&str>) {
        self.events += 1;
        let (step, wall_time) = (event.step, event.wall_time);
        match event.what {
            Some(What::Summary(summary)) => {
                let (first, last) = self.steps.unwrap_or((step, step));
                self.steps = Some((first.min(step), last.max(step)));
                for value in summary.value {
                    self.add_value(value, step, wall_time, wanted);
                }
            }
            Some(What::GraphDef(_)) => self.graphs += 1,
            Some(What::MetaGraphDef(_)) => self.meta_graphs += 1,
            Some(What::SessionLog(log)) => self.starts += usize::from(log.status() == SessionStatus::Start),
            Some(What::LogMessage(_)) => self.log_messages += 1,
            Some(What::TaggedRunMetadata(tagged)) => self.run_metadata.push(tagged.tag),
            Some(What::FileVersion(_)) | None => {}
        }
    }

    fn add_value(&mut self, value: summary::Value, step: i64, wall_time: f64, wanted: Option<&str>) {
        let index = match self.by_tag.get(&value.tag) {
            Some(&index) => index,
            None => {
                self.by_tag.insert(value.tag.clone(), self.tags.len());
                self.tags.push(Tag {
                    tag: value.tag.clone(),
                    kind: series::kind(&value),
                    count: 0,
                    first_step: step,
                    last_step: step,
                    last_value: String::new(),
                    points: Vec::new(),
                });
                self.tags.len() - 1
            }
        };
        let tag = &mut self.tags[index];
        tag.count += 1;
        tag.last_step = step;
        let point = Point::new(step, wall_time, tag.kind, &value);
        tag.last_value = point.summary();
        if wanted == Some(value.tag.as_str()) {
            tag.points.push(point);
        }
    }
}
