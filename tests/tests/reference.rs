//! Graphs that TensorFlow itself wrote: imported, they train as TensorFlow trained them, and come back as they went in.
//!
//! They are too large for the repository: where the folder `shared` does not stand beside it, these tests are skipped, and
//! say so.

use std::fs;
use std::path::{Path, PathBuf};

use graph_core::format::graph_def::ExportOptions;
use graph_core::format::import::{ImportOptions, read_graph_def};
use graph_core::format::proto::GraphDef;
use graph_core::format::{Message, text};
use graph_core::{Graph, Session, Value, feed};
use lenet::dataset::{CLASSES, PIXELS};
use lenet::global_definitions::OptimizerName;
use system_tests::{fixture, mnist, tutorial_network};

const BATCH: usize = 500;

/// A folder beside the repository, or a line that says why what needs it is skipped.
fn shared(folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// Trains the graph that TensorFlow wrote; each bound is (steps it holds for, relative difference).
fn follows(optimizer: OptimizerName, name: &str, bounds: &[(usize, f64)]) {
    let Some(folder) = shared("reference") else { return };
    let reference = fixture::trajectory(name);
    graph_ops::install();
    let graph = Graph::new();
    let message = read_graph_def(folder.join(format!("seed1_{name}/graph.pb"))).unwrap();
    graph.import(&message, &ImportOptions::verbatim()).unwrap();
    // The names are those of the network as it is built here; nothing else of it is used.
    let (_, network) = tutorial_network(optimizer).unwrap();
    let training = network.training().unwrap();
    let tensor = |tensor: &graph_core::Tensor| graph.tensor(&tensor.name()).unwrap();
    let (images, labels, keep) = (
        tensor(&network.images),
        tensor(&training.labels),
        tensor(&network.dropout_prob),
    );
    let (obj, cost) = (tensor(&training.obj), tensor(&training.cost));
    let step = graph.operation(&training.back_prop.name()).unwrap();
    let train = mnist().unwrap().train;
    let session = Session::new(&graph).unwrap();
    session.run(graph.operation("init").unwrap(), ()).unwrap();
    let steps = bounds.iter().map(|bound| bound.0).max().unwrap();
    let mut worst = vec![0.0f64; bounds.len()];
    for iter in 0..steps {
        let rows = iter * BATCH..(iter + 1) * BATCH;
        let x = Value::from_vec([BATCH, PIXELS], train.images(rows.clone()).unwrap()).unwrap();
        let y = Value::from_vec([BATCH, CLASSES], train.labels(rows).unwrap()).unwrap();
        let ((), objective, cost): ((), f32, f32) = session
            .run((&step, &obj, &cost), feed! { images => x, labels => y, keep => 0.5f32 })
            .unwrap();
        let expected = reference.steps[iter];
        let relative = |got: f32, expected: f64| (f64::from(got) - expected).abs() / expected.abs();
        let difference = relative(objective, expected.0).max(relative(cost, expected.1));
        for (worst, &(until, bound)) in worst.iter_mut().zip(bounds) {
            if iter < until {
                *worst = worst.max(difference);
                assert!(
                    difference <= bound,
                    "{name}, step {iter}: objective {objective} and cost {cost}, expected {expected:?}"
                );
            }
        }
    }
    println!("{name}: worst relative differences {worst:?} within {bounds:?}");
}

#[test]
fn the_imported_sgd_graph_follows_tensorflow() {
    follows(OptimizerName::Sgd, "sgd", &[(100, 1e-5)]);
}

#[test]
fn the_imported_rmsprop_graph_follows_tensorflow() {
    follows(OptimizerName::RmsProp, "rmsprop", &[(20, 1e-5)]);
}

#[test]
fn the_imported_adam_graph_follows_tensorflow() {
    follows(OptimizerName::Adam, "adam", &[(5, 1e-5), (10, 1e-3)]);
}

/// All graphs in a folder, however deep.
fn graphs_in(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            graphs_in(&path, found);
        } else if path.file_name().is_some_and(|name| name == "graph.pb") {
            found.push(path);
        }
    }
}

#[test]
fn every_graph_survives_message_text_and_import() {
    let (Some(conformance), Some(reference)) = (shared("conformance"), shared("reference")) else {
        return;
    };
    graph_ops::install();
    let mut paths = Vec::new();
    graphs_in(&conformance, &mut paths);
    graphs_in(&reference, &mut paths);
    paths.sort();
    let mut imported = 0;
    for path in &paths {
        let message = read_graph_def(path).unwrap();
        let bytes = message.encode_to_vec();
        let again = GraphDef::decode(&bytes[..]).unwrap();
        assert_eq!(again.encode_to_vec(), bytes, "{}", path.display());
        let plain = text::to_text(&message).unwrap();
        let read: GraphDef = text::from_text(&plain).unwrap();
        // Bytes, since a constant that is no number is not equal to itself.
        assert_eq!(read.encode_to_vec(), bytes, "{}", path.display());
        let import = |message: &GraphDef| {
            let graph = Graph::new();
            graph.import(message, &ImportOptions::verbatim()).map(|_| graph)
        };
        for output_shapes in [true, false] {
            let options = ExportOptions { output_shapes };
            // Ops that the engine does not know stay messages.
            let Ok(first) = import(&message) else { continue };
            let first = first.to_graph_def(options);
            let second = import(&first).unwrap().to_graph_def(options);
            assert_eq!(second.encode_to_vec(), first.encode_to_vec(), "{}", path.display());
            assert_eq!(first.node.len(), message.node.len(), "{}", path.display());
            imported += 1;
        }
    }
    println!("{} graphs as messages, {} of them imported", paths.len(), imported / 2);
    assert!(imported > 0);
}
