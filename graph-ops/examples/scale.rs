//! How the engine's own work grows with the graph: building, differentiating, planning and running chains of additions of
//! a scalar, of 10,000, 100,000 and 1,000,000 nodes, or of as many as the arguments say.
//!
//! ```console
//! $ cargo run --release -p graph-ops --example scale
//! ```
//!
//! Each line is a process of its own, so that its memory is that of one graph.

use std::env;
use std::error::Error;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use graph_core::{Graph, Session, feed, gradients};
use graph_ops::{array, math};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [of, count] = &arguments[..]
        && of == "--line"
    {
        println!("{}", measure(count.parse()?)?);
        return Ok(());
    }
    println!(
        "| nodes built | build, us a node | gradients, us a node | plan and first run, us a node | next run, ns a node | peak memory |"
    );
    println!("|---|---|---|---|---|---|");
    let counts = match &arguments[..] {
        [] => ["10000", "100000", "1000000"].map(String::from).to_vec(),
        given => given.to_vec(),
    };
    for count in counts {
        let status = Command::new(env::current_exe()?).args(["--line", &count]).status()?;
        if !status.success() {
            return Err(format!("{count} nodes: {status}").into());
        }
    }
    Ok(())
}

/// The line of the table for a chain of `count` additions.
fn measure(count: usize) -> graph_core::Result<String> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>(()).build()?;
    let (y, build) = timed(|| {
        let mut y = x.clone();
        for _ in 0..count {
            y = math::add(&y, &x).build()?;
        }
        Ok(y)
    })?;
    let (gradient, differentiate) = timed(|| gradients([&y], [&x])?.build())?;
    let gradient = gradient.into_iter().next().flatten().expect("y depends on x");
    let session = Session::new(&graph)?;
    let run = || {
        let (y, gradient): (f32, f32) = session.run((&y, &gradient), feed! { x => 1.0f32 })?;
        assert!(y == gradient, "y is x taken {count} times more");
        Ok(())
    };
    let ((), first) = timed(run)?;
    let ((), next) = timed(run)?;
    let nodes = graph.num_operations();
    let per_node = |time: Duration| time.as_secs_f64() * 1e6 / nodes as f64;
    Ok(format!(
        "| {nodes} | {:.2} | {:.2} | {:.2} | {:.1} | {} |",
        build.as_secs_f64() * 1e6 / count as f64,
        differentiate.as_secs_f64() * 1e6 / count as f64,
        per_node(first),
        per_node(next) * 1e3,
        peak_memory().map_or("unknown".to_owned(), |kib| format!("{} MB", kib / 1000)),
    ))
}

fn timed<T>(work: impl FnOnce() -> graph_core::Result<T>) -> graph_core::Result<(T, Duration)> {
    let start = Instant::now();
    Ok((work()?, start.elapsed()))
}

/// The most memory that the process has held, in KiB, where the system tells (Linux).
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
