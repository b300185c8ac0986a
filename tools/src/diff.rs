//! `graph diff`: what is different between two graphs, node by node.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use graph_core::format::Message;
use graph_core::format::graph_def::{attr_to_proto, value_from_proto};
use graph_core::format::graph_file::GraphFile;
use graph_core::format::message_graph::InputName;
use graph_core::format::proto::attr_value::Value;
use graph_core::format::proto::{AttrValue, GraphDef, NodeDef};
use graph_core::{Error, Value as Data};
use serde::Serialize;

use crate::failure::Result;
use crate::table::thousands;
use crate::{attr_text, input, json};

/// Exit code where the graphs differ.
const DIFFERENT: u8 = 1;

/// Compares two graphs node by node: which are added, removed or changed, and what of them changed
#[derive(Debug, Args)]
#[command(after_help = "\
Nodes are compared by name, in whatever order they are. Constants are compared by value, however they are written. Of
MetaGraphs and SavedModels collections and signatures are compared too.
Exits with 0 where the graphs are the same, with 1 where they differ, with 2 where one cannot be read.

Examples:
  graph diff before.pb after.pb
  graph diff ours.pb theirs.pbtxt --ignore-attr _output_shapes --ignore-attr _class --ignore-devices
  graph diff old.meta - --json < new.meta")]
pub struct Options {
    /// The first graph: a file, the folder of a SavedModel, or - for standard input
    a: PathBuf,

    /// The second graph
    b: PathBuf,

    /// Leave an attribute out of the comparison; may be given several times
    #[arg(long, value_name = "NAME")]
    ignore_attr: Vec<String>,

    /// Leave devices out of the comparison
    #[arg(long)]
    ignore_devices: bool,

    /// Take attributes that are left out as their defaults, for ops that the engine knows
    #[arg(long)]
    defaults: bool,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// What is different.
#[derive(Default, Serialize)]
struct Report {
    same: bool,
    added: Vec<Node>,
    removed: Vec<Node>,
    changed: Vec<Changed>,
    /// Nodes that are in both and the same.
    unchanged: usize,
    /// Versions, functions, collections and signatures.
    other: Vec<Change>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    op: String,
}

#[derive(Serialize)]
struct Changed {
    name: String,
    op: String,
    changes: Vec<Change>,
}

/// One thing that changed: none where there was nothing, or is nothing now.
#[derive(Serialize, PartialEq, Debug)]
struct Change {
    what: String,
    from: Option<String>,
    to: Option<String>,
}

impl Change {
    /// The change of a text, if it is one.
    fn of(what: impl Into<String>, from: Option<String>, to: Option<String>) -> Option<Self> {
        (from != to).then(|| Self {
            what: what.into(),
            from,
            to,
        })
    }
}

/// Prints what is different.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<ExitCode> {
    if input::is_stdin(&options.a) && input::is_stdin(&options.b) {
        return Err(Error::invalid_argument("only one of the graphs can come from standard input").into());
    }
    let (a, b) = (input::graph(&options.a)?, input::graph(&options.b)?);
    let report = compare(&a, &b, options)?;
    match options.json {
        true => json::write(out, &report)?,
        false => print(&report, out)?,
    }
    Ok(match report.same {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(DIFFERENT),
    })
}

fn compare(a: &GraphFile, b: &GraphFile, options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let (graph_a, graph_b) = (a.graph_def()?, b.graph_def()?);
    let [nodes_a, nodes_b] = [graph_a, graph_b].map(by_name);
    let node = |node: &NodeDef| Node {
        name: node.name.clone(),
        op: node.op.clone(),
    };
    for (name, old) in &nodes_a {
        let Some(new) = nodes_b.get(name) else {
            report.removed.push(node(old));
            continue;
        };
        let changes = changes(old, new, options);
        match changes.is_empty() {
            true => report.unchanged += 1,
            false => report.changed.push(Changed {
                name: new.name.clone(),
                op: new.op.clone(),
                changes,
            }),
        }
    }
    let added = nodes_b.iter().filter(|(name, _)| !nodes_a.contains_key(*name));
    report.added.extend(added.map(|(_, new)| node(new)));
    report.other = other_changes(graph_a, graph_b);
    if let (Ok(a), Ok(b)) = (a.meta_graph(), b.meta_graph()) {
        report
            .other
            .extend(map_changes("collection", &a.collection_def, &b.collection_def));
        report
            .other
            .extend(map_changes("signature", &a.signature_def, &b.signature_def));
    }
    let nodes_same = report.added.is_empty() && report.removed.is_empty() && report.changed.is_empty();
    report.same = nodes_same && report.other.is_empty();
    Ok(report)
}

fn by_name(graph: &GraphDef) -> BTreeMap<&str, &NodeDef> {
    graph.node.iter().map(|node| (node.name.as_str(), node)).collect()
}

/// What is different between two nodes of one name.
fn changes(a: &NodeDef, b: &NodeDef, options: &Options) -> Vec<Change> {
    let mut changes = Vec::new();
    let some = |text: &str| Some(text.to_owned());
    changes.extend(Change::of("op", some(&a.op), some(&b.op)));
    if !options.ignore_devices {
        changes.extend(Change::of("device", some(&a.device), some(&b.device)));
    }
    let [(data_a, controls_a), (data_b, controls_b)] = [a, b].map(inputs);
    for position in 0..data_a.len().max(data_b.len()) {
        let [from, to] = [&data_a, &data_b].map(|data| data.get(position).cloned());
        changes.extend(Change::of(format!("input {position}"), from, to));
    }
    for control in controls_a.symmetric_difference(&controls_b) {
        let side = |controls: &BTreeSet<String>| controls.get(control).cloned();
        changes.extend(Change::of("control input", side(&controls_a), side(&controls_b)));
    }
    let [attrs_a, attrs_b] = [a, b].map(|node| attrs(node, options.defaults));
    let names: BTreeSet<&String> = attrs_a.keys().chain(attrs_b.keys()).collect();
    for name in names.into_iter().filter(|name| !options.ignore_attr.contains(name)) {
        let (from, to) = (attrs_a.get(name), attrs_b.get(name));
        if let (Some(from), Some(to)) = (from, to)
            && same_attr(from, to)
        {
            continue;
        }
        let [mut from_text, mut to_text] = [from, to].map(|attr| attr.map(attr_text::attr));
        if from_text == to_text {
            // What is shown is the same: say that the rest is not.
            (from_text, to_text) = (from_text, difference(from, to));
        }
        changes.push(Change {
            what: format!("attr {name}"),
            from: from_text,
            to: to_text,
        });
    }
    changes
}

/// Data inputs in order, `a:0` as `a`; and control inputs, whose order says nothing.
fn inputs(node: &NodeDef) -> (Vec<String>, BTreeSet<String>) {
    let mut data = Vec::new();
    let mut controls = BTreeSet::new();
    for input in &node.input {
        match InputName::parse(input) {
            Some(InputName::Control(name)) => drop(controls.insert(name.to_owned())),
            Some(InputName::Tensor(name, 0)) => data.push(name.to_owned()),
            _ => data.push(input.clone()),
        }
    }
    (data, controls)
}

fn attrs(node: &NodeDef, defaults: bool) -> BTreeMap<String, AttrValue> {
    let mut attrs = node.attr.clone();
    if defaults && let Ok(definition) = graph_ops::install().op(&node.op) {
        for attr in &definition.attrs {
            if let Some(default) = &attr.default {
                attrs
                    .entry(attr.name.to_owned())
                    .or_insert_with(|| attr_to_proto(default));
            }
        }
    }
    attrs
}

/// Whether two attributes say the same. Bytes are compared, for a NaN equals nothing; and tensors may be written in several
/// ways.
fn same_attr(a: &AttrValue, b: &AttrValue) -> bool {
    if a.encode_to_vec() == b.encode_to_vec() {
        return true;
    }
    tensors(a, b).is_some_and(|(a, b)| {
        a.dtype() == b.dtype()
            && a.shape() == b.shape()
            && match (a.as_strings(), b.as_strings()) {
                (Ok(a), Ok(b)) => a == b,
                _ => a.bytes() == b.bytes(),
            }
    })
}

fn tensors(a: &AttrValue, b: &AttrValue) -> Option<(Data, Data)> {
    match (&a.value, &b.value) {
        (Some(Value::Tensor(a)), Some(Value::Tensor(b))) => {
            Some((value_from_proto(a).ok()?, value_from_proto(b).ok()?))
        }
        _ => None,
    }
}

/// How two attributes differ that look the same where only their beginnings are shown.
fn difference(a: Option<&AttrValue>, b: Option<&AttrValue>) -> Option<String> {
    let (a, b) = (a?, b?);
    let Some((from, to)) = tensors(a, b) else {
        return Some(format!("{} (the rest differs)", attr_text::attr(b)));
    };
    let size = from.dtype().size().unwrap_or(1);
    let pairs = from.bytes().chunks(size).zip(to.bytes().chunks(size));
    let differing: Vec<usize> = pairs
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .map(|(at, _)| at)
        .collect();
    let first = differing.first().copied().unwrap_or_default();
    Some(format!(
        "{} ({} of {} elements differ, the first is number {first})",
        attr_text::attr(b),
        thousands(differing.len() as u64),
        thousands(from.num_elements() as u64),
    ))
}

fn other_changes(a: &GraphDef, b: &GraphDef) -> Vec<Change> {
    let mut changes = Vec::new();
    let [versions_a, versions_b] = [a, b].map(|graph| graph.versions.clone().unwrap_or_default());
    let number = |number: i32| Some(number.to_string());
    changes.extend(Change::of(
        "producer",
        number(versions_a.producer),
        number(versions_b.producer),
    ));
    changes.extend(Change::of(
        "min_consumer",
        number(versions_a.min_consumer),
        number(versions_b.min_consumer),
    ));
    let bad = |consumers: &[i32]| Some(format!("{consumers:?}"));
    changes.extend(Change::of(
        "bad_consumers",
        bad(&versions_a.bad_consumers),
        bad(&versions_b.bad_consumers),
    ));
    let functions = |graph: &GraphDef| {
        let functions = graph.library.iter().flat_map(|library| library.function.clone());
        functions
            .map(|function| (function.signature.clone().unwrap_or_default().name, function))
            .collect::<BTreeMap<_, _>>()
    };
    changes.extend(map_changes("function", &functions(a), &functions(b)));
    changes
}

/// Entries that are in one map only, or not the same in both.
fn map_changes<M: Message>(what: &str, a: &BTreeMap<String, M>, b: &BTreeMap<String, M>) -> Vec<Change> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let describe = |message: Option<&M>| message.map(|message| format!("{} bytes", message.encoded_len()));
    names
        .into_iter()
        .filter_map(|name| {
            let (from, to) = (a.get(name), b.get(name));
            let same = from.map(M::encode_to_vec) == to.map(M::encode_to_vec);
            (!same).then(|| Change {
                what: format!("{what} {name}"),
                from: describe(from),
                to: describe(to),
            })
        })
        .collect()
}

fn print(report: &Report, out: &mut dyn Write) -> Result<()> {
    for node in &report.removed {
        writeln!(out, "- {} ({})", node.name, node.op)?;
    }
    for node in &report.added {
        writeln!(out, "+ {} ({})", node.name, node.op)?;
    }
    for changed in &report.changed {
        writeln!(out, "~ {} ({})", changed.name, changed.op)?;
        for change in &changed.changes {
            print_change(change, out)?;
        }
    }
    if !report.other.is_empty() {
        writeln!(out, "~ the graph itself")?;
        for change in &report.other {
            print_change(change, out)?;
        }
    }
    if report.same {
        writeln!(out, "the same {} nodes", thousands(report.unchanged as u64))?;
    } else {
        let counts = [
            (report.removed.len(), "removed"),
            (report.added.len(), "added"),
            (report.changed.len(), "changed"),
            (report.unchanged, "the same"),
        ];
        let counts = counts.map(|(count, what)| format!("{} {what}", thousands(count as u64)));
        writeln!(out, "{}", counts.join(", "))?;
    }
    Ok(())
}

fn print_change(change: &Change, out: &mut dyn Write) -> Result<()> {
    let text = |side: &Option<String>| match side.as_deref() {
        None => "nothing".to_owned(),
        Some("") => "\"\"".to_owned(),
        Some(text) => text.to_owned(),
    };
    writeln!(
        out,
        "    {}: {} -> {}",
        change.what,
        text(&change.from),
        text(&change.to)
    )?;
    Ok(())
}
