//! Writes everything that another engine may take over from here into a folder: a checkpoint with its MetaGraph in the middle
//! of training, a SavedModel and a frozen graph of the trained model, graphs with while loops and their gradients, and what
//! this engine makes of each.
//!
//! ```text
//! exchange FOLDER
//! ```
//!
//! `tensorflow/check_exchange.py` goes on in TensorFlow from each.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use graph_core::format::freeze::freeze;
use graph_core::format::graph_def::ExportOptions;
use graph_core::format::write_message;
use graph_core::{Error, Graph, Result, Session, Value, Variable, feed};
use graph_ops::train::{AdamOptimizer, Optimizer, SaveOptions, Saver};
use graph_ops::{array, math, nn, saved_model, state};
use system_tests::loops;

const INPUTS: usize = 4;
const CLASSES: usize = 3;
const BATCH: usize = 6;
const STEPS: usize = 4;

/// The batch of a step: numbers that repeat, without a generator that both sides would have to share.
fn batch(step: usize) -> (Value, Value) {
    let inputs = (0..BATCH * INPUTS).map(|index| ((index * 7 + step * 3) % 11) as f32 / 11.0 - 0.4);
    let labels = (0..BATCH).map(|row| ((row + step) % CLASSES) as i32);
    let inputs = Value::from_vec([BATCH, INPUTS], inputs.collect::<Vec<_>>());
    let labels = Value::from_vec([BATCH], labels.collect::<Vec<_>>());
    (
        inputs.expect("as many as the shape says"),
        labels.expect("as many as the shape says"),
    )
}

fn write(folder: &Path) -> Result<()> {
    let graph = Graph::new();
    graph.set_random_seed(3);
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None, Some(INPUTS)]).name("x").build()?;
    let labels = array::placeholder::<i32>([None]).name("labels").build()?;
    let weights: Vec<f32> = (0..INPUTS * CLASSES)
        .map(|index| (index % 5) as f32 / 5.0 - 0.3)
        .collect();
    let weights = Variable::new(Value::from_vec([INPUTS, CLASSES], weights)?)
        .name("weights")
        .build()?;
    let bias = Variable::new([0.1f32, 0.0, -0.1]).name("bias").build()?;
    let logits = nn::bias_add(math::matmul(&x, &weights), &bias).name("logits").build()?;
    let losses = nn::sparse_softmax_cross_entropy_with_logits(&labels, &logits).build()?;
    let loss = math::reduce_mean(losses).name("loss").build()?;
    let step = AdamOptimizer::new(0.1f32)
        .name("train")
        .minimize(&loss, &[weights, bias])?;
    let session = Session::new(&graph)?;
    session.run(state::global_variables_initializer()?, ())?;

    let train = |from: usize| -> Result<Vec<f32>> {
        (from..from + STEPS)
            .map(|step_number| {
                let (inputs, targets) = batch(step_number);
                let feeds = feed! { x => inputs, labels => targets };
                session.run::<((), f32)>((&step, &loss), feeds).map(|(_, loss)| loss)
            })
            .collect()
    };
    let mut report = String::new();
    let mut line = |what: &str, numbers: &[f32]| {
        let numbers: Vec<String> = numbers.iter().map(|number| format!("{number:e}")).collect();
        let _ = writeln!(report, "{what} {}", numbers.join(" "));
    };
    line("before", &train(0)?);
    let mut saver = Saver::new().build()?;
    let options = SaveOptions {
        global_step: Some(STEPS as i64),
        ..SaveOptions::default()
    };
    saver.save_with(&session, folder.join("checkpoints/model.ckpt"), &options)?;
    line("after", &train(STEPS)?);
    let (inputs, _) = batch(0);
    let outputs: Value = session.run(&logits, feed! { x => inputs.clone() })?;
    line("inputs", inputs.as_slice()?);
    line("logits", outputs.as_slice()?);
    saved_model::simple_save(&session, folder.join("saved_model"), [("x", &x)], [("logits", &logits)])?;
    let message = graph.to_graph_def(ExportOptions::default());
    let frozen = freeze(&message, &["logits"], |node| {
        session.run(graph.tensor(&format!("{}/read", node.name))?, ())
    })?;
    write_message(folder.join("frozen.pb"), &frozen, false)?;
    std::fs::write(folder.join("report.txt"), report).map_err(|error| Error::io(folder, error))
}

/// Writes graphs with loops, and a line for each tensor that was fetched: case, tensor, elements.
fn write_loops(folder: &Path) -> Result<()> {
    let mut report = String::new();
    for (name, build) in loops::CASES {
        let graph = Graph::new();
        let _default = graph.as_default();
        let fetches = build()?;
        let message = graph.to_graph_def(ExportOptions::default());
        write_message(folder.join(format!("loop_{name}.pb")), &message, false)?;
        let values = loops::run(&Session::new(&graph)?, &graph, &fetches)?;
        for (tensor, value) in fetches.iter().zip(values) {
            let mut elements = String::new();
            for index in 0..value.num_elements() {
                elements.push(' ');
                // Writing into a string cannot fail.
                let _ = value.fmt_element(index, &mut elements);
            }
            let _ = writeln!(report, "{name} {}{elements}", tensor.name());
        }
    }
    std::fs::write(folder.join("loops.txt"), report).map_err(|error| Error::io(folder, error))
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("exchange: name the folder to write to");
        return ExitCode::from(2);
    };
    match write(&folder).and_then(|()| write_loops(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("exchange: {error}");
            ExitCode::FAILURE
        }
    }
}
