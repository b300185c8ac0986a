//! Runs operations of a graph on request, for `tools/bench/operations.py`, which times them against TensorFlow's.
//!
//! ```console
//! $ operations GRAPH
//! ```
//!
//! Runs the operation `init` of the graph and prints `ready`. Then for each line `NAME N` of standard input, runs the operation
//! N times and prints `N SECONDS`, or `refused: WHY`.

use std::env;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Instant;

use graph_core::format::graph_file::GraphFile;
use graph_core::format::import::ImportOptions;
use graph_core::session::{RewriteOptions, SessionOptions};
use graph_core::{Graph, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("the graph's file is missing")?;
    graph_ops::install();
    let graph = Graph::new();
    let file = GraphFile::read(Path::new(&path))?;
    graph.import(file.graph_def()?, &ImportOptions::verbatim())?;
    // Rewrites would leave out operations whose outputs nobody reads.
    let session = Session::with_options(&graph, SessionOptions::new().rewrites(RewriteOptions::none()))?;
    session.run::<()>(&graph.operation("init")?, ())?;
    let mut output = io::stdout().lock();
    writeln!(output, "ready")?;
    output.flush()?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (name, count) = line.rsplit_once(' ').ok_or("a command is `NAME N`")?;
        match time(&session, &graph, name, count.parse()?) {
            Ok(seconds) => writeln!(output, "{count} {seconds}")?,
            Err(error) => writeln!(output, "refused: {}", error.to_string().replace('\n', " "))?,
        }
        output.flush()?;
    }
    Ok(())
}

/// The seconds that so many runs of the operation take.
fn time(session: &Session, graph: &Graph, name: &str, count: u64) -> graph_core::Result<f64> {
    let call = session.make_callable::<()>(&graph.operation(name)?, &[])?;
    call.call(&[])?;
    let start = Instant::now();
    for _ in 0..count {
        call.call(&[])?;
    }
    Ok(start.elapsed().as_secs_f64())
}
