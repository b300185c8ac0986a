//! Graphs in all the forms that they come in.

use std::path::Path;

use graph_core::format::freeze::freeze;
use graph_core::format::graph_def::ExportOptions;
use graph_core::format::graph_file::GraphFile;
use graph_core::format::import::ImportOptions;
use graph_core::format::message_graph::MessageGraph;
use graph_core::format::meta_graph::MetaGraphOptions;
use graph_core::format::proto::{GraphDef, MetaGraphDef, SavedModel};
use graph_core::format::{Message, parse_message};
use graph_core::{Graph, Result, Value, feed};

use super::samples::{as_text, graph_seeds, graph_text_seeds, sample_graph};
use super::{Verdict, verdict};
use crate::memory;

pub fn read_graph(_: &Path, bytes: &[u8]) -> Verdict {
    verdict(parse_message::<GraphDef>(bytes).and_then(|message| {
        let graph = Graph::new();
        graph.import(&message, &ImportOptions::verbatim())?;
        // What is accepted must be whole enough to be written and planned.
        graph.to_graph_def(ExportOptions::default());
        memory::in_a_run(|| run_sample(&graph))
    }))
}

/// Runs what the sample graph has, where it is still there; that a run fails is no fault of the file's reader.
fn run_sample(graph: &Graph) -> Result<()> {
    let session = graph_core::Session::new(graph)?;
    if let Ok(init) = graph.operation("init") {
        let _ = session.run::<()>(&init, ());
    }
    if let (Ok(loss), Ok(x)) = (graph.tensor("loss"), graph.tensor("x")) {
        let batch = Value::from([[1.0f32, 2.0, 3.0]]);
        let feeds = match graph.tensor("flag") {
            Ok(flag) => feed! { x => batch, flag => true },
            Err(_) => feed! { x => batch },
        };
        let _ = session.run::<Value>(&loss, feeds);
    }
    Ok(())
}

pub fn meta_graph_seeds() -> Vec<Vec<u8>> {
    let message = sample_graph()
        .to_meta_graph(&MetaGraphOptions::default())
        .expect("the sample graph has collections that can be written");
    vec![message.encode_to_vec(), as_text(&message)]
}

pub fn read_meta_graph(_: &Path, bytes: &[u8]) -> Verdict {
    verdict(parse_message::<MetaGraphDef>(bytes).and_then(|message| {
        let graph = Graph::new();
        graph.import_meta_graph(&message, &ImportOptions::verbatim())?;
        graph.to_meta_graph(&MetaGraphOptions::default())
    }))
}

pub fn graph_file_seeds() -> Vec<Vec<u8>> {
    let meta_graph = sample_graph()
        .to_meta_graph(&MetaGraphOptions::default())
        .expect("the sample graph has collections that can be written");
    let model = SavedModel {
        saved_model_schema_version: 1,
        meta_graphs: vec![meta_graph],
    };
    let seeds = [graph_seeds(), graph_text_seeds(), meta_graph_seeds()].concat();
    seeds
        .into_iter()
        .chain([model.encode_to_vec(), as_text(&model)])
        .collect()
}

/// A file of any form by its message alone: cut to what a node needs, and frozen.
pub fn read_graph_file(_: &Path, bytes: &[u8]) -> Verdict {
    verdict(GraphFile::parse(bytes).and_then(|file| {
        file.to_bytes(true)?;
        let message = file.graph_def()?;
        let graph = MessageGraph::new(message);
        let loss = message.node.iter().find(|node| node.name == "loss");
        if let Some(output) = loss.or(message.node.last()) {
            graph.extract(&[&output.name])?;
            freeze(message, &[&output.name], |_| Value::from_vec([3, 2], [0.5f32; 6]))?;
        }
        Ok(())
    }))
}
