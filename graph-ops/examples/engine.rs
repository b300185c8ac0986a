//! What the engine itself costs, on request, for `tools/bench/engine.py`, which times it against TensorFlow's.
//!
//! Prints `ready`. Then for each line `COMMAND N` of standard input, does so N times and prints `N SECONDS`:
//! - `call`: a callable of an addition of scalars;
//! - `chain`: a callable of 10,000 additions of scalars one after the other, rewrites off;
//! - `build`: builds a graph of 1,000 such additions;
//! - `gradients`: differentiates such a graph, which is made new each time, not counted.

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use graph_core::session::{Callable, RewriteOptions, SessionOptions};
use graph_core::{Graph, Result, Session, Tensor, Value, gradients};
use graph_ops::{array, math};

/// Additions of the chain that is run, and of the one that is built.
const RUN: usize = 10_000;
const BUILT: usize = 1_000;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    graph_ops::install();
    let (call, chain) = (
        callable(1, RewriteOptions::all())?,
        callable(RUN, RewriteOptions::none())?,
    );
    let one = [Value::scalar(1.0f32)];
    let run = |call: &Callable| timed(|| call.call(&one));
    let mut output = io::stdout().lock();
    writeln!(output, "ready")?;
    output.flush()?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (command, count) = line.split_once(' ').ok_or("a command is `COMMAND N`")?;
        let mut time = Duration::ZERO;
        for _ in 0..count.parse::<u64>()? {
            time += match command {
                "call" => run(&call)?,
                "chain" => run(&chain)?,
                "build" => {
                    let graph = Graph::new();
                    let _default = graph.as_default();
                    timed(|| additions(BUILT))?
                }
                "gradients" => {
                    let graph = Graph::new();
                    let _default = graph.as_default();
                    let (x, y) = additions(BUILT)?;
                    timed(|| gradients([&y], [&x])?.build())?
                }
                other => return Err(format!("there is no command '{other}'").into()),
            };
        }
        writeln!(output, "{count} {}", time.as_secs_f64())?;
        output.flush()?;
    }
    Ok(())
}

/// A scalar placeholder, and the end of a chain of `count` additions to it.
fn additions(count: usize) -> Result<(Tensor, Tensor)> {
    let x = array::placeholder::<f32>(()).build()?;
    let mut y = x.clone();
    for _ in 0..count {
        y = math::add(&y, &x).build()?;
    }
    Ok((x, y))
}

/// A chain that is fed and fetched.
fn callable(count: usize, rewrites: RewriteOptions) -> Result<Callable> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (x, y) = additions(count)?;
    let session = Session::with_options(&graph, SessionOptions::new().rewrites(rewrites))?;
    session.make_callable::<f32>(&y, &[&x])
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    std::hint::black_box(work()?);
    Ok(start.elapsed())
}
