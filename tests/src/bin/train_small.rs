//! Trains the small network, saves every step, and goes on from what an earlier run saved: `train_small FOLDER ITERATIONS`.
//! Prints `K` when step K is computed; then all steps before it are saved. A test kills it at any moment.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use lenet::checkpoints::CheckpointOptions;
use lenet::global_definitions::OptimizerName;
use lenet::progress::{Measurement, Progress};
use lenet::trainer::{TrainOptions, TrainerOptions};
use lenet::{Error, Result};
use system_tests::small;

struct Steps;

impl Progress for Steps {
    fn start(&mut self, _done: u64, _iterations: u64) -> Result<()> {
        Ok(())
    }

    fn step(&mut self, iter: u64) -> Result<()> {
        let mut output = std::io::stdout().lock();
        writeln!(output, "{iter}")
            .and_then(|()| output.flush())
            .map_err(Error::Progress)
    }

    fn measured(&mut self, _measurement: &Measurement) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, _test_accuracy: f32) -> Result<()> {
        Ok(())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, iterations] = &arguments[..] else {
        eprintln!("usage: train_small FOLDER ITERATIONS");
        return ExitCode::FAILURE;
    };
    let Ok(iterations) = iterations.parse() else {
        eprintln!("error: {iterations} is not a number of iterations");
        return ExitCode::FAILURE;
    };
    match train(PathBuf::from(folder), iterations) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn train(folder: PathBuf, iterations: u64) -> Result<f32> {
    let options = TrainerOptions {
        logdir: None,
        threads: Some(1),
        checkpoints: Some(CheckpointOptions {
            folder,
            save_every: 1,
            resume: true,
        }),
        ..TrainerOptions::default()
    };
    small::trainer(OptimizerName::Adam, options)?.train(TrainOptions {
        iter: iterations,
        mini_batch_size: 7,
        update_after_iter: 3,
        progress: Box::new(Steps),
        ..TrainOptions::default()
    })
}
