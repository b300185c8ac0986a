//! Event files.

use std::fs;
use std::path::Path;

use graph_core::Result;
use graph_core::format::events::{EventReader, EventWriter, event_files};
use graph_core::format::graph_def::ExportOptions;
use graph_core::format::proto::summary::value::Value as SummaryValue;
use graph_core::format::proto::{Summary, summary};
use graph_core::format::tf_record;

use super::samples::sample_graph;
use super::{Verdict, verdict};

pub fn event_seeds() -> Vec<Vec<u8>> {
    let folder = system_tests::scratch();
    let write = || -> Result<Vec<u8>> {
        let mut events = EventWriter::create(folder.path())?;
        events.add_graph(&sample_graph().to_graph_def(ExportOptions::default()))?;
        for step in 0..3 {
            let value = summary::Value {
                tag: "loss".to_owned(),
                value: Some(SummaryValue::SimpleValue(0.5)),
                ..Default::default()
            };
            events.add_summary(Summary { value: vec![value] }, step)?;
        }
        let path = events.path().to_owned();
        events.close()?;
        Ok(fs::read(path).expect("the file was just written"))
    };
    vec![write().expect("events can be written")]
}

pub fn read_events(folder: &Path, bytes: &[u8]) -> Verdict {
    let path = folder.join("events.out.tfevents.1.host");
    fs::write(&path, bytes).map_err(|error| error.to_string())?;
    verdict(event_files(folder).and_then(|files| {
        for file in files {
            for event in EventReader::open(file)? {
                event?;
            }
        }
        Ok(())
    }))
}

/// The records of a file, without their frames.
pub fn records(file: &[u8]) -> Vec<Vec<u8>> {
    tf_record::RecordReader::new(file, "seed")
        .map_while(Result::ok)
        .collect()
}

pub fn framed(records: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for record in records {
        tf_record::write_record(&mut file, record).expect("memory takes what is written");
    }
    file
}
