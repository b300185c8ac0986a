//! The program: trains as the tutorial's `main.py` does, or writes the training graph to a file.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use graph_core::Graph;
use graph_core::format::graph_def::ExportOptions;
use lenet::cli::{self, Command, DatasetName, Export, Options};
use lenet::dataset::{FashionMnist, Mnist, Placeholders};
use lenet::network::Lenet5;
use lenet::trainer::{TrainOptions, Trainer, TrainerOptions, prepare};
use lenet::{Error, Result};

fn main() -> ExitCode {
    let result = match cli::parse() {
        Command::Train(options) => train(&options),
        Command::Export(export) => write_graph(&export),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn train(options: &Options) -> Result<()> {
    let graph = Graph::new();
    graph.set_random_seed(options.seed as i64);
    let _default = graph.as_default();

    let dataset = match options.dataset {
        DatasetName::Mnist => Mnist::new(options.data_dir(), options.seed)?,
        DatasetName::Fashion => FashionMnist::new(options.data_dir(), options.seed)?.into(),
    };
    let mut net = Lenet5::with_definitions(&dataset.images, options.definitions())?;
    net.cook(&dataset.labels)?;
    let logdir = (!options.no_summarize).then(|| options.logdir.clone());
    let mut bp = Trainer::with_options(
        net,
        dataset.feed,
        TrainerOptions {
            logdir,
            threads: options.threads,
        },
    )?;

    let stop = Arc::new(AtomicBool::new(false));
    let signalled = stop.clone();
    ctrlc::set_handler(move || signalled.store(true, Ordering::Relaxed)).map_err(Error::Signal)?;
    bp.train(TrainOptions {
        iter: options.iter,
        mini_batch_size: options.mini_batch_size,
        update_after_iter: options.update_after_iter,
        training_accuracy: !options.no_training_accuracy,
        summarize: !options.no_summarize,
        stop,
        ..TrainOptions::default()
    })?;
    Ok(())
}

/// Writes the graph as the trainer has it before its first step. No images are needed for it.
fn write_graph(export: &Export) -> Result<()> {
    let graph = Graph::new();
    graph.set_random_seed(export.options.seed as i64);
    let _default = graph.as_default();
    let inputs = Placeholders::new()?;
    let mut net = Lenet5::with_definitions(&inputs.images, export.options.definitions())?;
    net.cook(&inputs.labels)?;
    prepare(&net)?;
    Ok(graph.write_graph_def(&export.graph_def, export.text, ExportOptions::default())?)
}
