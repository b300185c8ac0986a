//! Records a small training session: `cargo run -p graph-record --example record_training -- DIR`.
//!
//! `graph replay DIR` does the runs again, and `tests/tensorflow/replay.py DIR` does them in TensorFlow.

use graph_core::{DType, Graph, Result, Session, SessionOptions, Value, Variable, feed};
use graph_ops::train::{AdamOptimizer, Optimizer};
use graph_ops::{array, math, nn, random, state};
use graph_record::Recorder;

fn main() -> Result<()> {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: record_training DIR");
        std::process::exit(2);
    };
    let graph = Graph::new();
    let _default = graph.as_default();
    graph.set_random_seed(1);
    let x = array::placeholder::<f32>([None, Some(3)]).name("x").build()?;
    let labels = array::placeholder::<i64>([None]).name("labels").build()?;
    let weights = Variable::new(random::truncated_normal([3, 4]))
        .name("weights")
        .build()?;
    let bias = Variable::new([0.0f32; 4]).name("bias").build()?;
    let logits = nn::bias_add(math::matmul(&x, &weights).build()?, &bias)
        .name("logits")
        .build()?;
    let losses = nn::sparse_softmax_cross_entropy_with_logits(&labels, &logits).build()?;
    let loss = math::reduce_mean(losses).name("loss").build()?;
    let step = AdamOptimizer::new(0.1).minimize(&loss, &[weights.clone(), bias.clone()])?;
    let right = math::equal(math::argmax(&logits, 1).build()?, &labels)
        .name("right")
        .build()?;
    let half = math::cast(&logits, DType::Half).name("half").build()?;
    let short = math::cast(&logits, DType::BFloat16).name("short").build()?;
    let spectrum = math::complex(&logits, math::negative(&logits))
        .name("spectrum")
        .build()?;
    let noise = random::random_uniform([2, 2]).name("noise").build()?;
    let row_7 = array::gather(&x, [7i32], 0i32).name("row_7").build()?;

    // These two lines record all that follows.
    let recorder = Recorder::create(folder)?;
    let session = Session::with_options(&graph, SessionOptions::new().observer(recorder))?;

    // A run that fails is recorded with the class of its error.
    let uninitialized: Result<Value> = session.run(&weights, ());
    assert!(uninitialized.is_err());
    session.run(state::global_variables_initializer()?, ())?;
    let rows = [[0.1f32, -0.7, 1.2], [0.4, 0.0, -1.1], [-2.0, 0.3, 0.6]];
    for _ in 0..3 {
        let _: ((), f32) = session.run((&step, &loss), feed! { x => rows, labels => [0i64, 3, 1] })?;
    }
    let seen = [&logits, &right, &half, &short, &spectrum, &noise];
    let _: Vec<Value> = session.run(seen.as_slice(), feed! { x => rows, labels => [0i64, 3, 1] })?;
    let missing: Result<Value> = session.run(&row_7, feed! { x => rows });
    assert!(missing.is_err());
    // Any tensor can be fed, not only placeholders.
    let _: (Value, Value) = session.run(
        (&right, &weights),
        feed! { logits => [[0.0f32, 1.0, 0.0, 0.0]], labels => [1i64] },
    )?;
    Ok(())
}
