//! What the whole-system tests share: the tutorial's graph, the reference's fixtures, and graphs as canonical text.
//!
//! The fixtures in `fixtures/` are what TensorFlow 1.15 makes of the tutorial; `tensorflow/` holds the scripts that made them
//! and that ask a real TensorFlow.

pub mod canonical;
pub mod fixture;
pub mod loops;
pub mod small;

use std::path::PathBuf;

use graph_core::Graph;
use lenet::Result;
use lenet::dataset::{Feed, Placeholders, read_data_sets};
use lenet::global_definitions::{Definitions, OptimizerName};
use lenet::network::Lenet5;
use lenet::trainer::{Prepared, Trainer, TrainerOptions, prepare};

/// The repository's folder of MNIST.
pub fn data_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data")
}

/// A folder for what a test writes, removed when the guard is dropped.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// The tutorial's network, cooked, in a graph of its own with graph seed 1.
pub fn tutorial_network(optimizer: OptimizerName) -> Result<(Graph, Lenet5)> {
    let graph = Graph::new();
    graph.set_random_seed(1);
    let _default = graph.as_default();
    let inputs = Placeholders::new()?;
    let mut network = Lenet5::with_definitions(
        &inputs.images,
        Definitions {
            optimizer,
            ..Definitions::default()
        },
    )?;
    network.cook(&inputs.labels)?;
    Ok((graph, network))
}

/// The tutorial's graph as the trainer has it before its first step.
pub fn tutorial_graph(optimizer: OptimizerName) -> Result<(Graph, Lenet5, Prepared)> {
    let (graph, network) = tutorial_network(optimizer)?;
    let prepared = prepare(&network)?;
    Ok((graph, network, prepared))
}

/// MNIST, from the repository.
pub fn mnist() -> Result<Feed> {
    read_data_sets(data_dir(), 1)
}

/// A trainer of the tutorial's network that writes no event file.
pub fn tutorial_trainer(optimizer: OptimizerName, threads: Option<usize>) -> Result<Trainer> {
    let (_, network) = tutorial_network(optimizer)?;
    Trainer::with_options(
        network,
        mnist()?,
        TrainerOptions {
            logdir: None,
            threads,
            ..TrainerOptions::default()
        },
    )
}

/// The program in the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
