//! `graph convert`: graphs from one form to another, frozen, stripped or cut to what their outputs need.

mod strip;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use graph_core::Error;
use graph_core::format::checkpoint::BundleReader;
use graph_core::format::freeze::{freeze, is_variable};
use graph_core::format::graph_file::GraphFile;
use graph_core::format::message_graph::MessageGraph;
use graph_core::format::proto::tensor_info::Encoding;
use graph_core::format::proto::{GraphDef, NodeDef};
use serde::Serialize;

use crate::failure::Result;
use crate::table::thousands;
use crate::{checkpoint, input, json};

/// Writes a graph in another form: binary or text, frozen, stripped, or only the part that outputs need
#[derive(Debug, Args)]
#[command(after_help = "\
A MetaGraph or SavedModel stays one, unless --graph, --freeze, --outputs or --strip ask for its graph. The same input
always gives the same bytes.

Examples:
  graph convert graph.pb graph.pbtxt
  graph convert graph.pb frozen.pb --freeze --checkpoint model.ckpt-100 --outputs softmax/predictions
  graph convert model.ckpt-100.meta inference.pb --strip
  graph convert saved_model_folder frozen.pb --freeze
  graph convert - - --to pbtxt < graph.pb")]
pub struct Options {
    /// The file, the folder of a SavedModel, or - for standard input
    input: PathBuf,

    /// The file to write, or - for standard output
    output: PathBuf,

    /// The format to write [default: text for a name that ends in txt and for standard output, else binary]
    #[arg(long, value_enum)]
    to: Option<Format>,

    /// Write only the graph of a MetaGraph or SavedModel
    #[arg(long)]
    graph: bool,

    /// Fold variables into constants, and keep only what the outputs need
    #[arg(long)]
    freeze: bool,

    /// The checkpoint with the variables' values [default: a SavedModel's own]
    #[arg(long, value_name = "PREFIX", requires = "freeze")]
    checkpoint: Option<PathBuf>,

    /// Keep only what these nodes or tensors need [default with --freeze: the outputs of a SavedModel's signatures]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    outputs: Vec<String>,

    /// Remove attributes that begin with an underscore, as `_output_shapes` and `_class`; without --outputs also nodes that
    /// only serve training: initializers, optimizers and their slots, gradients, savers, summaries
    #[arg(long)]
    strip: bool,

    /// Remove attributes that have their defaults, of ops that the engine knows
    #[arg(long)]
    strip_default_attrs: bool,

    /// Write a report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Protobuf's binary format
    Pb,
    /// Protobuf's text format
    Pbtxt,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    input: String,
    output: String,
    /// `GraphDef`, `MetaGraph` or `SavedModel`.
    kind: &'static str,
    format: &'static str,
    bytes: usize,
    nodes_before: usize,
    nodes: usize,
    /// The variables that became constants.
    frozen: Vec<String>,
}

/// Converts, and says what was done.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<ExitCode> {
    let to_stdout = input::is_stdin(&options.output);
    if to_stdout && options.json {
        return Err(
            Error::invalid_argument("standard output cannot take both the graph and the report")
                .hint("name a file to write, or leave out --json")
                .into(),
        );
    }
    let source = input::graph(&options.input)?;
    let nodes_before = node_count(&source);
    let mut frozen = Vec::new();
    let converted = convert(options, source, &mut frozen)?;
    let text = match options.to {
        Some(format) => format == Format::Pbtxt,
        None => to_stdout || options.output.to_string_lossy().ends_with("txt"),
    };
    let bytes = converted.to_bytes(text)?;
    if to_stdout {
        out.write_all(&bytes)?;
        return Ok(ExitCode::SUCCESS);
    }
    converted.write(&options.output, text)?;
    let report = Report {
        input: input::name(&options.input),
        output: input::name(&options.output),
        kind: converted.kind(),
        format: if text { "text" } else { "binary" },
        bytes: bytes.len(),
        nodes_before,
        nodes: node_count(&converted),
        frozen,
    };
    match options.json {
        true => json::write(out, &report)?,
        false => print(&report, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn node_count(file: &GraphFile) -> usize {
    match file {
        GraphFile::GraphDef(graph) => graph.node.len(),
        other => other
            .meta_graphs()
            .iter()
            .flat_map(|meta| &meta.graph_def)
            .map(|graph| graph.node.len())
            .sum(),
    }
}

fn convert(options: &Options, source: GraphFile, frozen: &mut Vec<String>) -> Result<GraphFile> {
    let only_graph = options.graph || options.freeze || options.strip || !options.outputs.is_empty();
    if !only_graph && !options.strip_default_attrs {
        return Ok(source);
    }
    let mut graph = source.graph_def()?.clone();
    if options.freeze {
        let outputs = match options.outputs.is_empty() {
            true => signature_outputs(&source)?,
            false => options.outputs.clone(),
        };
        graph = fold_variables(options, &graph, &outputs, frozen)?;
    } else if !options.outputs.is_empty() {
        graph = MessageGraph::new(&graph).extract(&options.outputs)?;
    }
    if options.strip {
        if options.outputs.is_empty() && !options.freeze {
            graph = strip::training_nodes(&graph)?;
        }
        strip::internal_attrs(&mut graph);
    }
    if options.strip_default_attrs {
        strip::default_attrs(&mut graph);
    }
    match source {
        GraphFile::MetaGraph(mut meta) if !only_graph => {
            meta.graph_def = Some(graph);
            let info = meta.meta_info_def.get_or_insert_default();
            info.stripped_default_attrs = true;
            Ok(GraphFile::MetaGraph(meta))
        }
        GraphFile::SavedModel(_) if !only_graph => Err(Error::invalid_argument(
            "--strip-default-attrs works on graphs and MetaGraphs",
        )
        .hint("add --graph to write only the SavedModel's graph")
        .into()),
        _ => Ok(GraphFile::GraphDef(Box::new(graph))),
    }
}

/// The tensors that a file's signatures name as outputs.
fn signature_outputs(file: &GraphFile) -> Result<Vec<String>> {
    let signatures = file
        .meta_graph()
        .map(|meta| meta.signature_def.clone())
        .unwrap_or_default();
    let infos = signatures.values().flat_map(|signature| signature.outputs.values());
    let mut names: Vec<String> = infos
        .filter_map(|info| match &info.encoding {
            Some(Encoding::Name(name)) => Some(name.clone()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    match names.is_empty() {
        true => Err(
            Error::invalid_argument("the file has no signature that says what the outputs are")
                .hint("name them with --outputs")
                .into(),
        ),
        false => Ok(names),
    }
}

fn fold_variables(
    options: &Options,
    graph: &GraphDef,
    outputs: &[String],
    frozen: &mut Vec<String>,
) -> Result<GraphDef> {
    let prefix = options.checkpoint.clone().or_else(|| own_checkpoint(&options.input));
    let mut reader = None;
    let graph = freeze(graph, outputs, |variable| {
        let reader = match &mut reader {
            Some(reader) => reader,
            none => none.insert(open(prefix.as_deref(), variable)?),
        };
        frozen.push(variable.name.clone());
        reader.value(&variable.name)
    })?;
    debug_assert!(!graph.node.iter().any(is_variable));
    Ok(graph)
}

/// The checkpoint in a SavedModel's folder.
fn own_checkpoint(input: &Path) -> Option<PathBuf> {
    let folder = match input.is_dir() {
        true => input,
        false => input.parent()?,
    };
    let prefix = folder.join("variables/variables");
    prefix.with_extension("index").is_file().then_some(prefix)
}

fn open(prefix: Option<&Path>, variable: &NodeDef) -> graph_core::Result<BundleReader> {
    let prefix = prefix.ok_or_else(|| {
        Error::invalid_argument(format!(
            "the outputs need the value of the variable '{}'",
            variable.name
        ))
        .hint("say with --checkpoint PREFIX where the values of variables are")
    })?;
    BundleReader::open(checkpoint::prefix(prefix)?)
}

fn print(report: &Report, out: &mut dyn Write) -> Result<()> {
    writeln!(
        out,
        "{}: {} in {} format, {} bytes",
        report.output,
        report.kind,
        report.format,
        thousands(report.bytes as u64)
    )?;
    let removed = report.nodes_before as i64 - report.nodes as i64;
    let mut nodes = format!("{} nodes", thousands(report.nodes as u64));
    if removed > 0 {
        nodes.push_str(&format!(", {} removed", thousands(removed as u64)));
    }
    if !report.frozen.is_empty() {
        nodes.push_str(&format!(", {} variables became constants", report.frozen.len()));
    }
    writeln!(out, "{nodes}")?;
    Ok(())
}
