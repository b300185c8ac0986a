//! SavedModels: the file of graphs, damaged, beside whole variables.

use std::fs;
use std::path::Path;

use fastrand::Rng;
use graph_core::format::proto::SavedModel;
use graph_core::format::{Message, parse_message};
use graph_core::{Graph, Result, Session};
use graph_ops::saved_model::{self, tags};

use super::samples::{as_text, sample_graph};
use super::{Verdict, damage, verdict};
use crate::mutate;

const FILE: &str = "saved_model.pb";
const VARIABLES: &str = "variables/variables.index";

fn write(folder: &Path) -> Result<()> {
    let graph = sample_graph();
    let session = Session::new(&graph)?;
    session.run::<()>(&graph.operation("init")?, ())?;
    let (x, loss) = (graph.tensor("x")?, graph.tensor("loss")?);
    saved_model::simple_save(&session, folder, [("x", &x)], [("loss", &loss)])
}

pub fn seeds() -> Vec<Vec<u8>> {
    let folder = system_tests::scratch();
    let model = folder.path().join("model");
    write(&model).expect("the sample graph can be saved");
    let bytes = fs::read(model.join(FILE)).expect("the builder just wrote it");
    let message: SavedModel = parse_message(&bytes).expect("the builder wrote a message");
    vec![bytes, as_text(&message)]
}

/// A third of the cases are whole messages of graphs that make no sense, or whose saver is something else.
pub fn damaged(random: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    if random.u8(..3) > 0 {
        return mutate::bytes(random, seeds);
    }
    let mut model = SavedModel::decode(seeds[0].as_slice()).expect("the first seed is a whole message");
    for meta in &mut model.meta_graphs {
        let names: Vec<String> = meta
            .graph_def
            .iter()
            .flat_map(|graph| &graph.node)
            .map(|node| node.name.clone())
            .collect();
        let name = |random: &mut Rng| names[random.usize(..names.len())].clone();
        if let Some(saver) = meta.saver_def.as_mut() {
            match random.u8(..4) {
                0 => saver.restore_op_name = name(random),
                1 => saver.filename_tensor_name = name(random) + ":0",
                _ => {}
            }
        }
        if let Some(graph) = meta.graph_def.as_mut() {
            damage::message(random, graph);
        }
    }
    model.encode_to_vec()
}

pub fn load(folder: &Path, bytes: &[u8]) -> Verdict {
    let folder = folder.join("model");
    if !folder.exists() {
        write(&folder).map_err(|error| error.to_string())?;
    }
    let variables = folder.join(VARIABLES);
    let before = fs::read(&variables).map_err(|error| error.to_string())?;
    fs::write(folder.join(FILE), bytes).map_err(|error| error.to_string())?;
    let graph = Graph::new();
    let loaded = Session::new(&graph).and_then(|session| saved_model::load(&session, &[tags::SERVING], &folder));
    let after = fs::read(&variables).map_err(|error| error.to_string())?;
    assert!(before == after, "loading wrote to the variables");
    verdict(loaded)
}
