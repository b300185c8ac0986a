//! Runs training steps on request, for the benchmark that alternates engines and for the checks against TensorFlow.
//!
//! Prints `ready` when set up. Then for each line of standard input:
//! - `step N` runs N steps and prints `N SECONDS`;
//! - `losses N` runs N steps and prints for each `K OBJECTIVE COST` (measured before its update, K counting all steps),
//!   then `done`;
//! - `epoch N` trains N times on 100 batches, shuffled and gathered as they are needed, and prints `N SECONDS`; these steps do
//!   not count among those of `losses`;
//! - `evaluate N` and `summarize N` measure the accuracy on the 10,000 test images, and run the merged summary over them,
//!   N times, and print `N SECONDS`;
//! - `profile N` runs N traced steps and prints for each operation that takes a hundredth of the step or more, and for each
//!   op, `MICROSECONDS NAME` (the median step's), the longest first; on a GPU, an empty line and the table of
//!   [`profile_lines`]; then `done`.
//!
//! Batch k is rows kB to (k+1)B of the 55,000 training images in file order, from the start again after the last whole one.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use graph_core::session::{Accelerators, NodeStats, RewriteOptions};
use graph_core::{Graph, Value};
use graph_ops::gpu::{DeviceChoice, DeviceOptions, profile_lines, rates};
use graph_ops::train::MixedPrecision;
use lenet::Result;
use lenet::dataset::{BatchesAhead, CLASSES, Mnist, PIXELS};
use lenet::global_definitions::{Definitions, OptimizerName};
use lenet::network::Lenet5;
use lenet::trainer::{Trainer, TrainerOptions};

/// Batches of an `epoch`.
const EPOCH: u64 = 100;

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
    /// Where to compute: auto, cpu, or gpu:N
    #[arg(long, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// A rewrite that does not run, as `outer_product`; may be given several times
    #[arg(long, value_name = "REWRITE")]
    without: Vec<String>,
    /// On a GPU, multiply matrices in TensorFloat-32
    #[arg(long)]
    tf32: bool,
    /// Calculate layers in 16 bits: f16 or bf16
    #[arg(long, value_name = "DTYPE")]
    mixed_precision: Option<MixedPrecision>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let graph = Graph::new();
    graph.set_random_seed(options.seed as i64);
    let _default = graph.as_default();
    let dataset = Mnist::new(&options.data, options.seed)?;
    let definitions = Definitions {
        optimizer: options.optimizer,
        mixed_precision: options.mixed_precision,
        ..Definitions::default()
    };
    let mut net = Lenet5::with_definitions(&dataset.images, definitions)?;
    net.cook(&dataset.labels)?;
    let threads = (options.threads > 0).then_some(options.threads);
    let device = DeviceOptions {
        tf32: options.tf32,
        ..DeviceOptions::default()
    };
    let accelerators = options.device.open(&device)?.accelerators;
    let mut trainer = Trainer::with_options(
        net,
        dataset.feed,
        TrainerOptions {
            logdir: None,
            threads,
            accelerators: Accelerators::Only(accelerators.clone()),
            rewrites: options
                .without
                .iter()
                .fold(RewriteOptions::all(), |rewrites, name| rewrites.without(name)),
            ..TrainerOptions::default()
        },
    )?;

    let train = trainer.dataset.train.clone();
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
                // What was prepared is given back when the time is taken.
                for (images, labels) in &prepared {
                    trainer.bp_step_on(images.clone(), labels.clone())?;
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
            "epoch" => {
                let start = Instant::now();
                for _ in 0..count {
                    let mut ahead = BatchesAhead::new(&trainer.dataset.train, options.batch, EPOCH)?;
                    for _ in 0..EPOCH {
                        trainer.bp_step_ahead(&mut ahead)?;
                    }
                }
                write(format!("{count} {}", start.elapsed().as_secs_f64()))?;
                continue;
            }
            "evaluate" | "summarize" => {
                let start = Instant::now();
                for _ in 0..count {
                    if command == "evaluate" {
                        trainer.test()?;
                    } else {
                        trainer.merged_summary()?;
                    }
                }
                write(format!("{count} {}", start.elapsed().as_secs_f64()))?;
                continue;
            }
            "profile" => {
                let mut steps = Vec::new();
                for index in step..step + count {
                    let (images, labels) = batch(index)?;
                    steps.push(trainer.traced_bp_step_on(images, labels)?.nodes);
                }
                for line in profile(&steps) {
                    write(line)?;
                }
                if let Some(gpu) = accelerators.first() {
                    write(String::new())?;
                    for line in profile_lines(&steps, rates(gpu)?.as_ref()) {
                        write(line)?;
                    }
                }
                write("done".into())?;
            }
            other => eprintln!("unknown command '{other}'"),
        }
        step += count;
    }
    Ok(())
}

/// The lines of `profile`: what single operations took, an empty line, what all operations of a kind took together.
fn profile(steps: &[Vec<NodeStats>]) -> Vec<String> {
    let mut operations: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut kinds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (index, nodes) in steps.iter().enumerate() {
        for node in nodes {
            let time = node.time().as_secs_f64() * 1e6;
            let name = format!("{} = {}", node.name, node.op);
            for (table, key) in [(&mut operations, name), (&mut kinds, node.op.to_string())] {
                let times = table.entry(key).or_default();
                times.resize(index + 1, 0.0);
                times[index] += time;
            }
        }
    }
    let sorted = |table: BTreeMap<String, Vec<f64>>| {
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let mut rows: Vec<(f64, String)> = table.into_iter().map(|(name, times)| (median(times), name)).collect();
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        rows
    };
    let kinds = sorted(kinds);
    let total: f64 = kinds.iter().map(|row| row.0).sum();
    let line = |(time, name): &(f64, String)| format!("{time:10.1} {name}");
    let operations = sorted(operations);
    let shown = operations.iter().filter(|row| row.0 * 100.0 >= total).map(line);
    let sum = format!("{total:10.1} all");
    shown
        .chain([String::new()])
        .chain(kinds.iter().map(line))
        .chain([sum])
        .collect()
}
