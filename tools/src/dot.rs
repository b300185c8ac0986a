//! `graph dot`: a graph as a drawing of Graphviz.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use graph_core::format::freeze::is_variable;
use graph_core::format::message_graph::MessageGraph;
use graph_core::format::proto::attr_value::Value;
use graph_core::format::proto::{GraphDef, NodeDef};
use serde::Serialize;

use crate::failure::Result;
use crate::table::count;
use crate::{attr_text, input, json};

/// Writes a graph for Graphviz: scopes as boxes, control edges dashed, shapes on the edges
#[derive(Debug, Args)]
#[command(after_help = "\
Shapes stand on the edges where the graph tells them in `_output_shapes`.

Examples:
  graph dot graph.pb --depth 1 | dot -Tsvg > graph.svg
  graph dot graph.pb --outputs softmax/predictions")]
pub struct Options {
    /// The file, the folder of a SavedModel, or - for standard input
    file: PathBuf,

    /// Draw a scope that lies deeper than N scopes as one node
    #[arg(long, value_name = "N")]
    depth: Option<usize>,

    /// Draw only what these nodes or tensors need
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    outputs: Vec<String>,

    /// Write the drawing's nodes and edges as JSON
    #[arg(long)]
    json: bool,
}

/// How a scope that is drawn as one node looks.
const SCOPE_STYLE: &str = ", style=\"rounded,filled\", fillcolor=ghostwhite";

/// What is drawn.
#[derive(Serialize)]
struct Drawing {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

/// A node of the graph, or a scope that is drawn as one.
#[derive(Serialize)]
struct Node {
    /// The full name; of a scope with a slash at its end.
    name: String,
    /// None for a scope.
    op: Option<String>,
    /// How many nodes of the graph it stands for.
    nodes: usize,
    #[serde(skip)]
    style: &'static str,
}

/// An edge, or all edges between the same two ends.
#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    to: String,
    control: bool,
    /// Slot and shape.
    label: String,
}

/// Prints the drawing.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<ExitCode> {
    let file = input::graph(&options.file)?;
    let graph = file.graph_def()?;
    let drawing = match options.outputs.is_empty() {
        true => Drawing::new(graph, options.depth),
        false => Drawing::new(&MessageGraph::new(graph).extract(&options.outputs)?, options.depth),
    };
    match options.json {
        true => json::write(out, &drawing)?,
        false => drawing.write(out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The name under which a node is drawn: its own, or that of the scope that hides it.
fn drawn_as(name: &str, depth: Option<usize>) -> &str {
    let Some(depth) = depth else { return name };
    match name.match_indices('/').nth(depth) {
        Some((at, _)) => &name[..=at],
        None => name,
    }
}

impl Drawing {
    fn new(message: &GraphDef, depth: Option<usize>) -> Self {
        let graph = MessageGraph::new(message);
        let mut nodes: BTreeMap<&str, Node> = BTreeMap::new();
        let mut edges: BTreeSet<Edge> = BTreeSet::new();
        for (position, node) in message.node.iter().enumerate() {
            let name = drawn_as(&node.name, depth);
            nodes
                .entry(name)
                .and_modify(|drawn| drawn.nodes += 1)
                .or_insert_with(|| Node {
                    name: name.to_owned(),
                    op: (name == node.name).then(|| node.op.clone()),
                    nodes: 1,
                    style: if name == node.name { style(node) } else { SCOPE_STYLE },
                });
            for end in graph.inputs(position) {
                let from = graph.node(end.node);
                let from_name = drawn_as(&from.name, depth);
                // An edge inside a scope that is drawn as one node is hidden with it.
                if from_name != name || from_name == node.name {
                    edges.insert(Edge {
                        from: from_name.to_owned(),
                        to: name.to_owned(),
                        control: end.slot.is_none(),
                        label: end.slot.map(|slot| label(from, slot)).unwrap_or_default(),
                    });
                }
            }
        }
        Self {
            nodes: nodes.into_values().collect(),
            edges: edges.into_iter().collect(),
        }
    }

    fn write(&self, out: &mut dyn Write) -> Result<()> {
        writeln!(out, "digraph {{")?;
        writeln!(out, "  rankdir=BT; compound=true; fontname=Helvetica;")?;
        writeln!(
            out,
            "  node [shape=box, style=filled, fillcolor=white, fontname=Helvetica, fontsize=11];"
        )?;
        writeln!(out, "  edge [fontname=Helvetica, fontsize=9, color=gray40];")?;
        // Sorted so that each scope's nodes follow each other; the stack holds the scopes that are open.
        let mut nodes: Vec<(Vec<&str>, &Node)> = self.nodes.iter().map(|node| (scopes(&node.name), node)).collect();
        nodes.sort_by(|(a, first), (b, second)| (a, &first.name).cmp(&(b, &second.name)));
        let mut open: Vec<&str> = Vec::new();
        for (scopes, node) in nodes {
            let common = open.iter().zip(&scopes).take_while(|(a, b)| a == b).count();
            while open.len() > common {
                writeln!(out, "{}}}", pad(open.len()))?;
                open.pop();
            }
            for &scope in &scopes[common..] {
                open.push(scope);
                let path = open.join("/");
                writeln!(
                    out,
                    "{}subgraph {} {{ label={}; style=rounded; color=gray60;",
                    pad(open.len()),
                    quoted(&format!("cluster {path}")),
                    quoted(scope)
                )?;
            }
            writeln!(
                out,
                "{}{} [label={}{}];",
                pad(open.len() + 1),
                quoted(&node.name),
                quoted(&caption(node)),
                node.style
            )?;
        }
        while let Some(_scope) = open.last() {
            writeln!(out, "{}}}", pad(open.len()))?;
            open.pop();
        }
        for edge in &self.edges {
            let mut attributes = Vec::new();
            if !edge.label.is_empty() {
                attributes.push(format!("label={}", quoted(&edge.label)));
            }
            if edge.control {
                attributes.push("style=dashed".to_owned());
            }
            let attributes = match attributes.is_empty() {
                true => String::new(),
                false => format!(" [{}]", attributes.join(", ")),
            };
            writeln!(out, "  {} -> {}{attributes};", quoted(&edge.from), quoted(&edge.to))?;
        }
        writeln!(out, "}}")?;
        Ok(())
    }
}

fn pad(depth: usize) -> String {
    // Scopes nest as deep as names are long: past some depth the indentation only takes space.
    "  ".repeat(depth.min(20))
}

/// The scopes that a node lies in, outermost first.
fn scopes(name: &str) -> Vec<&str> {
    let mut scopes: Vec<&str> = name.trim_end_matches('/').split('/').collect();
    scopes.pop();
    scopes
}

/// What stands in a node's box: the last part of its name and its op.
fn caption(node: &Node) -> String {
    let name = node.name.trim_end_matches('/');
    let last = name.rsplit_once('/').map_or(name, |(_, last)| last);
    match &node.op {
        Some(op) => format!("{last}\n{op}"),
        None => format!("{last}/\n{}", count(node.nodes, "node")),
    }
}

fn style(node: &NodeDef) -> &'static str {
    match node.op.as_str() {
        "Const" => ", shape=ellipse, fillcolor=gray95",
        op if op.starts_with("Placeholder") => ", shape=ellipse, fillcolor=lightblue",
        "NoOp" => ", shape=diamond",
        _ if is_variable(node) => ", fillcolor=khaki",
        _ => "",
    }
}

/// The slot, where it is not the first, and the shape, where the graph tells it.
fn label(node: &NodeDef, slot: usize) -> String {
    let shape = match node.attr.get("_output_shapes").and_then(|attr| attr.value.as_ref()) {
        Some(Value::List(list)) => list.shape.get(slot).map(attr_text::shape),
        _ => None,
    };
    let shape = shape.unwrap_or_default();
    match slot {
        0 => shape,
        _ => format!(":{slot} {shape}").trim_end().to_owned(),
    }
}

/// A string of the dot language.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}
