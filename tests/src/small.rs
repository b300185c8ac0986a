//! A network and images so small that a step takes milliseconds: for runs that are saved, killed and resumed.

use graph_core::Graph;
use lenet::Result;
use lenet::dataset::{Examples, Feed, PIXELS, Placeholders};
use lenet::global_definitions::{Definitions, OptimizerName};
use lenet::network::Lenet5;
use lenet::trainer::{Trainer, TrainerOptions};

/// The network's sizes.
pub fn definitions(optimizer: OptimizerName) -> Definitions {
    Definitions {
        c1: 3,
        c2: 4,
        d1: 10,
        d2: 10,
        optimizer,
        ..Definitions::default()
    }
}

/// The network, cooked, in a graph of its own with graph seed 1.
pub fn network(optimizer: OptimizerName) -> Result<Lenet5> {
    let graph = Graph::new();
    graph.set_random_seed(1);
    let _default = graph.as_default();
    let inputs = Placeholders::new()?;
    let mut network = Lenet5::with_definitions(&inputs.images, definitions(optimizer))?;
    network.cook(&inputs.labels)?;
    Ok(network)
}

/// 30 training, 10 validation and 20 test images of made-up patterns, a few of each class.
pub fn images() -> Result<Feed> {
    let examples = |count: usize, seed: usize| {
        let pixel = |index: usize| ((index * 31 + index / PIXELS * (seed + 7)) % 251) as u8;
        let labels = (0..count).map(|index| (index % 10) as u8).collect();
        Examples::new((0..count * PIXELS).map(pixel).collect(), labels)
    };
    Feed::new(examples(40, 1)?, examples(20, 2)?, 10, 1)
}

/// A trainer of the network with the images.
pub fn trainer(optimizer: OptimizerName, options: TrainerOptions) -> Result<Trainer> {
    Trainer::with_options(network(optimizer)?, images()?, options)
}
