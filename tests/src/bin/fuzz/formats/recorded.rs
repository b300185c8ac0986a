//! Recorded sessions: a whole graph and whole arrays, and a damaged account of the runs.

use std::fs;
use std::path::Path;

use graph_core::{Result, Session, SessionOptions, Value, feed};
use graph_record::{Outcome, Recorder, ReplayOptions};

use super::Verdict;
use super::samples::sample_graph;

const TRACE: &str = "trace.json";

fn record(folder: &Path) -> Result<()> {
    let graph = sample_graph();
    let session = Session::with_options(&graph, SessionOptions::new().observer(Recorder::create(folder)?))?;
    let (x, flag) = (graph.tensor("x")?, graph.tensor("flag")?);
    session.run::<()>(&graph.operation("init")?, ())?;
    let feeds = feed! { x => [[1.0f32, 2.0, 3.0]], flag => true };
    let targets = (
        graph.operation("Adam")?,
        graph.tensor("loss")?,
        graph.tensor("strings")?,
    );
    session.run::<((), Value, Value)>((&targets.0, &targets.1, &targets.2), feeds)?;
    // Without a feed.
    assert!(session.run::<Value>(&targets.1, ()).is_err());
    Ok(())
}

pub fn seeds() -> Vec<Vec<u8>> {
    let folder = system_tests::scratch();
    record(folder.path()).expect("the sample graph runs");
    vec![fs::read(folder.path().join(TRACE)).expect("the recorder just wrote it")]
}

pub fn replay(folder: &Path, trace: &[u8]) -> Verdict {
    let folder = folder.join("session");
    if !folder.exists() {
        record(&folder).map_err(|error| error.to_string())?;
    }
    fs::write(folder.join(TRACE), trace).map_err(|error| error.to_string())?;
    match graph_record::replay(&folder, &ReplayOptions::default()) {
        Outcome::Ok => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
