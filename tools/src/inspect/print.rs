//! The report for people.

use std::io::{self, Write};

use super::collections::Argument;
use super::report::{File, Graph, Output};
use crate::table::{Table, bytes, count, thousands};

/// How many rows of a list are printed unless all are asked for.
const MAX_ROWS: usize = 20;

/// Prints the report of a file.
pub fn file(out: &mut dyn Write, file: &File, all: bool) -> io::Result<()> {
    writeln!(out, "{}: {}", file.file, file.format)?;
    for graph in &file.graphs {
        writeln!(out)?;
        Printer { out, all }.graph(graph)?;
    }
    Ok(())
}

struct Printer<'a> {
    out: &'a mut dyn Write,
    all: bool,
}

impl Printer<'_> {
    fn graph(&mut self, graph: &Graph) -> io::Result<()> {
        self.head(graph)?;
        self.outputs("inputs", &graph.inputs)?;
        self.outputs("outputs (nobody consumes them)", &graph.outputs)?;
        self.variables(graph)?;
        let rows = graph.ops.iter().map(|op| {
            let unknown = if op.known { "" } else { "unknown to the engine" };
            vec![op.op.clone(), thousands(op.count as u64), unknown.to_owned()]
        });
        self.list("ops", &["", ">", ""], rows.collect())?;
        let rows = graph.unsupported.iter().map(|unsupported| {
            let what = match &unsupported.dtype {
                Some(dtype) => format!("{}({dtype})", unsupported.op),
                None => unsupported.op.clone(),
            };
            vec![what, count(unsupported.nodes, "node")]
        });
        self.list("not supported by the engine", &["", ">"], rows.collect())?;
        let rows = graph
            .devices
            .iter()
            .map(|(device, nodes)| vec![device.clone(), count(*nodes, "node")]);
        self.list("devices", &["", ">"], rows.collect())?;
        let rows = graph.functions.iter().map(|function| {
            let [inputs, outputs, nodes] =
                [function.inputs, function.outputs, function.nodes].map(|n| thousands(n as u64));
            vec![function.name.clone(), inputs, outputs, nodes]
        });
        self.list("functions", &["name", ">inputs", ">outputs", ">nodes"], rows.collect())?;
        let rows = graph.collections.iter().map(|collection| {
            let shown: Vec<&str> = collection.items.iter().take(3).map(String::as_str).collect();
            let more = if collection.items.len() > shown.len() {
                ", ..."
            } else {
                ""
            };
            let items = format!("{}{more}", shown.join(", "));
            vec![
                collection.name.clone(),
                thousands(collection.count as u64),
                collection.kind.to_owned(),
                if self.all { collection.items.join(", ") } else { items },
            ]
        });
        let rows = rows.collect();
        self.list("collections", &["name", ">items", "kind", ""], rows)?;
        self.signatures(graph)?;
        if let Some(saver) = &graph.saver {
            writeln!(self.out, "\nsaver")?;
            writeln!(self.out, "  file name {}", saver.filename_tensor)?;
            writeln!(self.out, "  save      {}", saver.save_tensor)?;
            writeln!(self.out, "  restore   {}", saver.restore_op)?;
        }
        let rows = graph.assets.iter().map(|asset| vec![asset.clone()]).collect();
        self.list("assets", &[""], rows)?;
        let rows = graph.problems.iter().map(|problem| vec![problem.clone()]).collect();
        self.list("problems", &[""], rows)
    }

    fn head(&mut self, graph: &Graph) -> io::Result<()> {
        let mut rows = Table::new(&["", ""]);
        let mut row = |name: &str, text: String| rows.row([name.to_owned(), text]);
        if !graph.tags.is_empty() {
            row("tags", graph.tags.join(", "));
        }
        if let Some(version) = &graph.tensorflow_version {
            row("written by", format!("TensorFlow {version}"));
        }
        let mut versions = format!("producer {}", graph.versions.producer);
        if graph.versions.min_consumer > 0 {
            versions.push_str(&format!(", consumers from {}", graph.versions.min_consumer));
        }
        row("versions", versions);
        row(
            "size",
            format!(
                "{}, {}, {}",
                count(graph.nodes, "node"),
                count(graph.edges, "edge"),
                count(graph.control_edges, "control edge")
            ),
        );
        let mut variables = format!(
            "{}, {} parameters, {}",
            graph.variables.len(),
            thousands(graph.variable_parameters),
            bytes(graph.variable_bytes)
        );
        if let Some(trainable) = graph.trainable_parameters {
            variables.push_str(&format!(", {} trainable", thousands(trainable)));
        }
        row("variables", variables);
        row(
            "constants",
            format!(
                "{}, {} parameters, {}",
                thousands(graph.constants as u64),
                thousands(graph.constant_parameters),
                bytes(graph.constant_bytes)
            ),
        );
        rows.write(self.out, 0)
    }

    fn outputs(&mut self, title: &str, outputs: &[Output]) -> io::Result<()> {
        let rows = outputs.iter().map(|output| {
            vec![
                output.name.clone(),
                output.op.clone(),
                output.dtype.clone().unwrap_or_default(),
                output.shape.to_string(),
            ]
        });
        self.list(title, &["name", "op", "dtype", "shape"], rows.collect())
    }

    fn variables(&mut self, graph: &Graph) -> io::Result<()> {
        let number = |number: Option<u64>| number.map(thousands).unwrap_or_default();
        let rows = graph.variables.iter().map(|variable| {
            vec![
                variable.name.clone(),
                variable.op.clone(),
                variable.dtype.clone().unwrap_or_default(),
                variable.shape.to_string(),
                number(variable.elements),
                variable.bytes.map(bytes).unwrap_or_default(),
                variable
                    .trainable
                    .map_or("", |yes| if yes { "trainable" } else { "" })
                    .to_owned(),
            ]
        });
        let headings = ["name", "op", "dtype", "shape", ">parameters", ">memory", ""];
        self.list("variables", &headings, rows.collect())
    }

    fn signatures(&mut self, graph: &Graph) -> io::Result<()> {
        for signature in &graph.signatures {
            let mut rows = Table::new(&["", "name", "tensor", "dtype", "shape"]);
            let mut add = |direction: &str, argument: &Argument| {
                rows.row([
                    direction.to_owned(),
                    argument.name.clone(),
                    argument.tensor.clone(),
                    argument.dtype.clone(),
                    argument.shape.to_string(),
                ]);
            };
            signature.inputs.iter().for_each(|argument| add("input", argument));
            signature.outputs.iter().for_each(|argument| add("output", argument));
            writeln!(self.out, "\nsignature {} ({})", signature.name, signature.method)?;
            rows.write(self.out, 2)?;
        }
        Ok(())
    }

    /// A titled table; nothing where there are no rows.
    fn list(&mut self, title: &str, headings: &[&'static str], rows: Vec<Vec<String>>) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let shown = if self.all { rows.len() } else { MAX_ROWS };
        let hidden = rows.len().saturating_sub(shown);
        let mut table = Table::new(headings);
        rows.into_iter().take(shown).for_each(|row| table.row(row));
        writeln!(self.out, "\n{title}")?;
        table.write(self.out, 2)?;
        if hidden > 0 {
            writeln!(self.out, "  ... {} more, which --all prints", thousands(hidden as u64))?;
        }
        Ok(())
    }
}
