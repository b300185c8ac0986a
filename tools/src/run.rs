//! `graph run`: runs a graph from a file.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use graph_core::dtype::{Complex, Element};
use graph_core::format::checkpoint::BundleReader;
use graph_core::format::graph_file::GraphFile;
use graph_core::format::import::ImportOptions;
use graph_core::graph::OpBuilder;
use graph_core::session::{Feeds, RunOptions};
use graph_core::value::FromValue;
use graph_core::{DType, Error, Graph, Operation, Result as CoreResult, Session, SessionOptions, Tensor, Value};
use graph_ops::gpu::{self, DeviceChoice, DeviceOptions};
use graph_record::{npy, npz};
use half::{bf16, f16};
use serde::Serialize;

use crate::failure::Result;
use crate::{input, json, literal};

/// Runs a graph: feeds tensors, fetches tensors, runs operations
///
/// Fetched values are printed, or written to a file that NumPy reads. Targets run in the same run as the fetches. Variables
/// are restored from the checkpoint first; those of a SavedModel without being asked.
#[derive(Debug, Args)]
#[command(after_help = "\
A value is a number, true or false, a text, or nested lists; it takes the dtype of what it is fed to.

Examples:
  graph run graph.pb --feed x=[[1,2],[3,4]] --feed keep=1.0 --fetch y
  graph run model.ckpt-100.meta --checkpoint model.ckpt-100 --feed images=batch.npy --fetch logits:0 --out logits.npz
  graph run graph.pb --target init --json")]
pub struct Options {
    /// A GraphDef, a MetaGraph, the folder of a SavedModel, or - for standard input
    graph: PathBuf,

    /// The checkpoint to restore variables from
    #[arg(long, value_name = "PREFIX")]
    checkpoint: Option<PathBuf>,

    /// The value of a tensor: a file of NumPy, or a value
    #[arg(long, value_name = "NAME=FILE.npy|VALUE")]
    feed: Vec<String>,

    /// A tensor to fetch
    #[arg(long, value_name = "NAME")]
    fetch: Vec<String>,

    /// An operation to run
    #[arg(long, value_name = "OP")]
    target: Vec<String>,

    /// Write the fetched values to this file, each under its name
    #[arg(long, value_name = "FILE.npz")]
    out: Option<PathBuf>,

    /// Where to compute: auto (the first GPU, else the CPU), cpu, or gpu:N
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,

    /// Write to standard error where each operation runs, and why not elsewhere
    #[arg(long)]
    log_device_placement: bool,

    /// Write to standard error what each operation took, and the kernels of those on a GPU
    #[arg(long)]
    profile: bool,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// A fetched tensor as it is printed for programs.
#[derive(Serialize)]
struct Fetched {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    value: serde_json::Value,
}

/// Runs the graph and prints what was fetched.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<ExitCode> {
    graph_ops::install();
    let graph = Graph::new();
    let file = input::graph(&options.graph)?;
    graph.import(file.graph_def()?, &ImportOptions::verbatim())?;
    if options.fetch.is_empty() && options.target.is_empty() {
        return Err(nothing_asked(&graph).into());
    }
    let fetches: Vec<Tensor> = options
        .fetch
        .iter()
        .map(|name| graph.tensor(name))
        .collect::<CoreResult<_>>()?;
    let targets: Vec<Operation> = options
        .target
        .iter()
        .map(|name| graph.operation(name))
        .collect::<CoreResult<_>>()?;
    let mut feeds = Feeds::new();
    for feed in &options.feed {
        let (tensor, value) = parse_feed(&graph, feed)?;
        feeds = feeds.with(tensor, value);
    }
    let accelerators = options.device.open(&DeviceOptions::default())?.accelerators;
    let session_options = SessionOptions::new()
        .accelerators(accelerators.clone())
        .log_device_placement(options.log_device_placement);
    let session = Session::with_options(&graph, session_options)?;
    if let Some(prefix) = checkpoint_of(options, &file) {
        restore(&session, &prefix)?;
    }
    let values: Vec<Value> = match options.profile {
        true => {
            let traced = RunOptions {
                trace: true,
                ..RunOptions::default()
            };
            let ((values, _), metadata): ((Vec<Value>, Vec<()>), _) =
                session.run_with((&fetches, &targets), feeds, &traced)?;
            let rates = accelerators.first().map_or(Ok(None), gpu::rates)?;
            for line in gpu::profile_lines(&[metadata.nodes], rates.as_ref()) {
                eprintln!("{line}");
            }
            values
        }
        false => session.run::<(Vec<Value>, Vec<()>)>((&fetches, &targets), feeds)?.0,
    };
    let named: Vec<(String, &Value)> = fetches.iter().map(Tensor::name).zip(&values).collect();
    if let Some(path) = &options.out {
        let bytes = npz::pack_named(named.iter().cloned())?;
        fs::write(path, bytes).map_err(|error| Error::io(path, error))?;
    }
    if options.json {
        let fetched: Vec<Fetched> = named.into_iter().map(Fetched::new).collect();
        json::write(out, &fetched)?;
    } else if options.out.is_none() {
        for (name, value) in named {
            writeln!(out, "{name} {} {}\n{}", value.dtype(), value.shape(), text(value)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn nothing_asked(graph: &Graph) -> Error {
    let ends = graph.operations().into_iter().filter(|operation| {
        let outputs = operation.outputs();
        !outputs.is_empty() && outputs.iter().all(|output| output.consumers().is_empty())
    });
    let names: Vec<String> = ends.take(10).map(|operation| operation.name()).collect();
    let error = Error::invalid_argument("there is nothing to run").expected("--fetch or --target");
    match names.is_empty() {
        true => error,
        false => error.hint(format!("nothing consumes the outputs of: {}", names.join(", "))),
    }
}

/// The tensor and value of `NAME=VALUE` or `NAME=FILE.npy`.
fn parse_feed(graph: &Graph, feed: &str) -> CoreResult<(Tensor, Value)> {
    let (name, value) = feed
        .split_once('=')
        .ok_or_else(|| Error::invalid_argument(format!("'{feed}' feeds nothing")).expected("NAME=VALUE"))?;
    let tensor = graph.tensor(name)?;
    let read = || match Path::new(value).extension().is_some_and(|extension| extension == "npy") {
        true => {
            let bytes = fs::read(value).map_err(|error| Error::io(value, error))?;
            npy::read_as(&bytes, tensor.dtype()).map_err(|error| error.context(format!("reading {value}")))
        }
        false => literal::parse(value, tensor.dtype()),
    };
    let value = read().map_err(|error| error.context(format!("feeding '{name}'")))?;
    Ok((tensor, value))
}

/// The checkpoint that was asked for, or that lies in the SavedModel's folder.
fn checkpoint_of(options: &Options, file: &GraphFile) -> Option<PathBuf> {
    let own = || {
        let prefix = options.graph.join("variables").join("variables");
        let saved = matches!(file, GraphFile::SavedModel(_)) && graph_core::format::checkpoint::exists(&prefix);
        saved.then_some(prefix)
    };
    options.checkpoint.clone().or_else(own)
}

/// Sets the graph's variables to what the checkpoint holds under their names; others stay as they are.
fn restore(session: &Session, prefix: &Path) -> CoreResult<()> {
    let graph = session.graph();
    let saved = BundleReader::open(prefix)?;
    let is_variable = |operation: &Operation| {
        let kinds = ["VariableV2", "Variable", "VarHandleOp"];
        kinds.contains(&operation.op_type()) && saved.entries().contains_key(&operation.name())
    };
    let variables: Vec<Operation> = graph.operations().into_iter().filter(is_variable).collect();
    if variables.is_empty() {
        return Err(Error::not_found(format!(
            "the checkpoint {} holds no variable of the graph",
            prefix.display()
        )));
    }
    let _default = graph.as_default();
    let names: Vec<Vec<u8>> = variables.iter().map(|variable| variable.name().into_bytes()).collect();
    let whole = vec![Vec::new(); names.len()];
    let dtypes: Vec<DType> = variables
        .iter()
        .map(|variable| variable.attr("dtype"))
        .collect::<CoreResult<_>>()?;
    let restored = OpBuilder::new("RestoreV2")
        .input(Value::string(prefix.as_os_str().as_encoded_bytes()))
        .input(Value::from_strings([names.len()], names.clone())?)
        .input(Value::from_strings([names.len()], whole)?)
        .attr("dtypes", dtypes)
        .build_all()?;
    let assign = |(variable, value): (&Operation, Tensor)| {
        let op = match variable.op_type() {
            "VarHandleOp" => "AssignVariableOp",
            _ => "Assign",
        };
        OpBuilder::new(op)
            .input(variable.output(0))
            .input(value)
            .build_operation()
    };
    let assigned: Vec<Operation> = variables.iter().zip(restored).map(assign).collect::<CoreResult<_>>()?;
    let _: Vec<()> = session.run(&assigned, ())?;
    Ok(())
}

/// Does `$body` with `$type` as the Rust type of the dtype; strings and others are for `$otherwise`.
macro_rules! with_type {
    ($dtype:expr, $type:ident => $body:expr, _ => $otherwise:expr) => {{
        macro_rules! of {
            ($rust:ty) => {{
                type $type = $rust;
                $body
            }};
        }
        match $dtype {
            DType::Float32 => of!(f32),
            DType::Float64 => of!(f64),
            DType::Half => of!(f16),
            DType::BFloat16 => of!(bf16),
            DType::Int8 => of!(i8),
            DType::Int16 => of!(i16),
            DType::Int32 => of!(i32),
            DType::Int64 => of!(i64),
            DType::UInt8 => of!(u8),
            DType::UInt16 => of!(u16),
            DType::UInt32 => of!(u32),
            DType::UInt64 => of!(u64),
            DType::Bool => of!(bool),
            DType::Complex64 => of!(Complex<f32>),
            DType::Complex128 => of!(Complex<f64>),
            _ => $otherwise,
        }
    }};
}

/// A value for people: nested lists, with the middle of long ones left out.
fn text(value: &Value) -> CoreResult<String> {
    fn array<T: Element>(value: &Value) -> CoreResult<ndarray::ArrayD<T>> {
        FromValue::from_value(value.clone())
    }
    with_type!(value.dtype(), T => Ok(array::<T>(value)?.to_string()), _ => {
        let strings = value.as_strings()?.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let array = ndarray::ArrayD::from_shape_vec(value.shape().dims(), strings.collect())
            .map_err(|error| Error::internal("a value's shape fits its elements").caused_by(error))?;
        Ok(format!("{array:?}").split(", shape=").next().unwrap_or_default().to_owned())
    })
}

impl Fetched {
    fn new((name, value): (String, &Value)) -> Self {
        let mut elements = (0..value.num_elements()).map(|index| element(value, index));
        Self {
            name,
            dtype: value.dtype().name(),
            shape: value.shape().to_vec(),
            value: nest(value.shape(), &mut elements),
        }
    }
}

/// Element `index` as JSON: numbers that JSON lacks as null, complex ones as pairs.
fn element(value: &Value, index: usize) -> serde_json::Value {
    fn pair<T: Copy + Serialize>(number: Complex<T>) -> serde_json::Value {
        serde_json::json!([number.re, number.im])
    }
    fn at<T: Element>(value: &Value, index: usize) -> T {
        value
            .as_slice::<T>()
            .map(|elements| elements[index])
            .unwrap_or_default()
    }
    match value.dtype() {
        DType::Float32 => at::<f32>(value, index).into(),
        DType::Half => at::<f16>(value, index).to_f32().into(),
        DType::BFloat16 => at::<bf16>(value, index).to_f32().into(),
        DType::Complex64 => pair(at::<Complex<f32>>(value, index)),
        DType::Complex128 => pair(at::<Complex<f64>>(value, index)),
        DType::Float64 => at::<f64>(value, index).into(),
        DType::Bool => at::<bool>(value, index).into(),
        DType::UInt64 => at::<u64>(value, index).into(),
        dtype if dtype.is_integer() => {
            let mut digits = String::new();
            let written = value.fmt_element(index, &mut digits);
            written.ok().and_then(|()| digits.parse::<i64>().ok()).into()
        }
        _ => {
            let mut characters = String::new();
            match value.fmt_element(index, &mut characters) {
                Ok(()) => characters.into(),
                Err(_) => serde_json::Value::Null,
            }
        }
    }
}

/// The elements as lists within lists.
fn nest(dims: &[usize], elements: &mut dyn Iterator<Item = serde_json::Value>) -> serde_json::Value {
    match dims {
        [] => elements.next().unwrap_or_default(),
        [dim, rest @ ..] => (0..*dim).map(|_| nest(rest, elements)).collect(),
    }
}
