//! The program: trains as the tutorial's `main.py` does, tests what was trained, or writes the training graph to a file.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use graph_core::Graph;
use graph_core::format::graph_def::ExportOptions;
use graph_core::session::Accelerators;
use lenet::checkpoints::{self, CheckpointOptions};
use lenet::cli::{self, Command, DatasetName, Eval, Export, Source, Train};
use lenet::dataset::{FashionMnist, Mnist, Placeholders};
use lenet::network::Lenet5;
use lenet::progress::PythonFloat;
use lenet::trainer::{TrainOptions, Trainer, TrainerOptions, prepare};
use lenet::{Error, Result};

fn main() -> ExitCode {
    let result = match cli::parse() {
        Command::Train(options) => train(&options),
        Command::Eval(options) => eval(&options),
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

/// Reads the images, and makes their placeholders in the current graph.
fn dataset(source: &Source, seed: u64) -> Result<Mnist> {
    match source.dataset {
        DatasetName::Mnist => Mnist::new(source.data_dir(), seed),
        DatasetName::Fashion => Ok(FashionMnist::new(source.data_dir(), seed)?.into()),
    }
}

fn train(train: &Train) -> Result<()> {
    let options = &train.options;
    let graph = Graph::new();
    graph.set_random_seed(options.seed as i64);
    let _default = graph.as_default();

    let dataset = dataset(&options.source, options.seed)?;
    let chosen = train.device.open()?;
    eprintln!("{}", chosen.note);
    let mut net = Lenet5::with_definitions(&dataset.images, options.definitions())?;
    net.cook(&dataset.labels)?;
    let logdir = (!options.no_summarize).then(|| options.logdir.clone());
    let mut bp = Trainer::with_options(
        net,
        dataset.feed,
        TrainerOptions {
            logdir,
            threads: options.threads,
            accelerators: Accelerators::Only(chosen.accelerators),
            checkpoints: train.checkpoints(),
            ..TrainerOptions::default()
        },
    )?;
    if let Some(CheckpointOptions {
        folder, resume: true, ..
    }) = train.checkpoints()
    {
        match bp.resumed_from() {
            Some(prefix) => eprintln!("resuming from {}", prefix.display()),
            None => eprintln!("no checkpoint in {}: beginning anew", folder.display()),
        }
    }

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

fn eval(options: &Eval) -> Result<()> {
    let prefix = checkpoints::find(&options.checkpoint)?;
    let graph = Graph::new();
    let _default = graph.as_default();
    let dataset = dataset(&options.source, 0)?;
    let chosen = options.device.open()?;
    let mut net = Lenet5::with_definitions(&dataset.images, checkpoints::definitions(&prefix)?)?;
    net.cook(&dataset.labels)?;
    let trainer = Trainer::with_options(
        net,
        dataset.feed,
        TrainerOptions {
            logdir: None,
            threads: options.threads,
            accelerators: Accelerators::Only(chosen.accelerators),
            restore: Some(prefix),
            ..TrainerOptions::default()
        },
    )?;
    let mut lines = vec![format!("Test Accuracy: {}", PythonFloat(trainer.test()?))];
    for (image, logits) in trainer.test_logits(options.logits)?.iter().enumerate() {
        let logits: Vec<String> = logits.iter().map(|&logit| PythonFloat(logit).to_string()).collect();
        lines.push(format!("Logits {image}: {}", logits.join(" ")));
    }
    writeln!(io::stdout(), "{}", lines.join("\n")).map_err(Error::Progress)
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
