//! Runs training steps on request, for the benchmark that alternates engines and for the checks against TensorFlow.
//!
//! Prints `ready` when set up. Then for each line of standard input:
//! - `step N` runs N steps and prints `N SECONDS`;
//! - `losses N` runs N steps and prints for each `K OBJECTIVE COST` (measured before its update, K counting all steps),
//!   then `done`.
//!
//! Batch k is rows kB to (k+1)B of the 55,000 training images in file order, from the start again after the last whole one.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use graph_core::{Graph, Value};
use lenet::Result;
use lenet::dataset::{CLASSES, Mnist, PIXELS};
use lenet::global_definitions::{Definitions, OptimizerName};
use lenet::network::Lenet5;
use lenet::trainer::{Trainer, TrainerOptions};

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "adam")]
    optimizer: OptimizerName,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 500)]
    batch: usize,
    /// Threads; 0 for all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[arg(long, default_value = "data")]
    data: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let graph = Graph::new();
    graph.set_random_seed(options.seed as i64);
    let _default = graph.as_default();
    let dataset = Mnist::new(&options.data, options.seed)?;
    let definitions = Definitions {
        optimizer: options.optimizer,
        ..Definitions::default()
    };
    let mut net = Lenet5::with_definitions(&dataset.images, definitions)?;
    net.cook(&dataset.labels)?;
    let threads = (options.threads > 0).then_some(options.threads);
    let trainer = Trainer::with_options(
        net,
        dataset.feed,
        TrainerOptions {
            logdir: None,
            threads,
            ..TrainerOptions::default()
        },
    )?;

    let train = &trainer.dataset.train;
    let batches = train.num_examples() / options.batch;
    let batch = |step: usize| -> Result<(Value, Value)> {
        let start = step % batches * options.batch;
        let rows = start..start + options.batch;
        let images = Value::from_vec([options.batch, PIXELS], train.images(rows.clone())?)?;
        let labels = Value::from_vec([options.batch, CLASSES], train.labels(rows)?)?;
        Ok((images, labels))
    };

    let mut output = std::io::stdout().lock();
    let mut write = |line: String| {
        writeln!(output, "{line}")
            .and_then(|()| output.flush())
            .map_err(lenet::Error::Progress)
    };
    write("ready".into())?;
    let mut step = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(lenet::Error::Progress)?;
        let (command, count) = line.split_once(' ').unwrap_or((&line, "1"));
        let count: usize = count.trim().parse().unwrap_or(1);
        match command {
            "step" => {
                let prepared: Vec<(Value, Value)> = (step..step + count).map(batch).collect::<Result<_>>()?;
                let start = Instant::now();
                for (images, labels) in prepared {
                    trainer.bp_step_on(images, labels)?;
                }
                write(format!("{count} {}", start.elapsed().as_secs_f64()))?;
            }
            "losses" => {
                for index in step..step + count {
                    let (images, labels) = batch(index)?;
                    let (objective, cost) = trainer.bp_step_on(images, labels)?;
                    write(format!("{index} {objective} {cost}"))?;
                }
                write("done".into())?;
            }
            other => eprintln!("unknown command '{other}'"),
        }
        step += count;
    }
    Ok(())
}
