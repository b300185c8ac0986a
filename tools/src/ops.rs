//! `graph ops`: the ops that the engine knows.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use graph_core::format::graph_def::attr_to_proto;
use graph_core::op::kernel::DeviceKind;
use graph_core::op::{ArgDef, ArgType, AttrDef, GradientRule, KernelDefinition, OpDefinition};
use graph_core::{DType, Error};
use serde::Serialize;

use crate::failure::Result;
use crate::table::{self, Table};
use crate::{attr_text, json};

/// Lists the ops that the engine knows, or tells all about one
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  graph ops\n  graph ops MatMul\n  graph ops --json | jq '.[].name'")]
pub struct Options {
    /// The op to tell all about, as `MatMul`; a part of a name lists the ops that have it
    name: Option<String>,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// An op as it is printed.
#[derive(Serialize)]
struct Op {
    name: &'static str,
    summary: &'static str,
    inputs: Vec<Arg>,
    outputs: Vec<Arg>,
    attrs: Vec<Attr>,
    /// `function`, `not differentiable`, or `undefined` where asking for one is an error.
    gradient: &'static str,
    stateful: bool,
    commutative: bool,
    aggregate: bool,
    kernels: Vec<Kernel>,
}

#[derive(Serialize)]
struct Arg {
    name: &'static str,
    /// In TensorFlow's notation: `T`, `N * T`, `Ref(T)`.
    r#type: String,
}

#[derive(Serialize)]
struct Attr {
    name: &'static str,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<i64>,
    /// Dtypes or strings; all if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed: Vec<String>,
}

/// Dtypes by attribute.
type Types = Vec<(&'static str, Vec<&'static str>)>;

#[derive(Serialize)]
struct Kernel {
    device: &'static str,
    /// The dtypes it serves by attribute.
    types: Types,
}

impl Op {
    fn new(definition: &OpDefinition) -> Self {
        Self {
            name: definition.name,
            summary: definition.summary,
            inputs: definition.inputs.iter().map(Arg::new).collect(),
            outputs: definition.outputs.iter().map(Arg::new).collect(),
            attrs: definition.attrs.iter().map(Attr::new).collect(),
            gradient: match definition.gradient {
                GradientRule::Function(_) => "function",
                GradientRule::NotDifferentiable => "not differentiable",
                GradientRule::Undefined | GradientRule::Unsaid => "undefined",
            },
            stateful: definition.stateful,
            commutative: definition.commutative,
            aggregate: definition.aggregate,
            kernels: definition.kernels.iter().map(Kernel::new).collect(),
        }
    }

    fn signature(&self) -> String {
        let args = |args: &[Arg]| {
            let args: Vec<String> = args.iter().map(|arg| format!("{}: {}", arg.name, arg.r#type)).collect();
            format!("({})", args.join(", "))
        };
        format!("{} -> {}", args(&self.inputs), args(&self.outputs))
    }

    /// The kinds of devices that have a kernel; an op without any is done by the session itself.
    fn devices(&self) -> String {
        let mut devices: Vec<&str> = self.kernels.iter().map(|kernel| kernel.device).collect();
        devices.sort_unstable();
        devices.dedup();
        match devices.is_empty() {
            true => "session".to_owned(),
            false => devices.join(", "),
        }
    }
}

impl Arg {
    fn new(arg: &ArgDef) -> Self {
        let mut text = match arg.ty {
            ArgType::Fixed(dtype) => dtype.name().to_owned(),
            ArgType::Attr(name) | ArgType::List(name) => name.to_owned(),
        };
        if let Some(number) = arg.number {
            text = format!("{number} * {text}");
        }
        if arg.is_ref {
            text = format!("Ref({text})");
        }
        Self {
            name: arg.name,
            r#type: text,
        }
    }
}

impl Attr {
    fn new(attr: &AttrDef) -> Self {
        let types = names(&attr.allowed_types);
        let strings = attr.allowed_strings.iter().copied();
        Self {
            name: attr.name,
            r#type: attr.ty.name(),
            default: attr
                .default
                .as_ref()
                .map(|value| attr_text::attr(&attr_to_proto(value))),
            minimum: attr.minimum,
            allowed: types.into_iter().chain(strings).map(str::to_owned).collect(),
        }
    }

    /// What values it may have.
    fn range(&self) -> String {
        if !self.allowed.is_empty() {
            return self.allowed.join(", ");
        }
        match self.minimum {
            Some(minimum) if self.r#type.starts_with("list") => format!("at least {minimum} elements"),
            Some(minimum) => format!("at least {minimum}"),
            None => String::new(),
        }
    }
}

impl Kernel {
    fn new(kernel: &KernelDefinition) -> Self {
        Self {
            device: match kernel.device {
                DeviceKind::Cpu => "CPU",
                DeviceKind::Cuda => "GPU",
            },
            types: kernel
                .types
                .iter()
                .map(|(attr, dtypes)| (*attr, names(dtypes)))
                .collect(),
        }
    }
}

/// For what dtypes kernels serve, a row each; those that differ in the dtypes of one attribute share a row.
fn constraints(kernels: &[Kernel]) -> Vec<(&'static str, String)> {
    let mut rows: Vec<(&'static str, Types)> = Vec::new();
    for kernel in kernels {
        let last = rows.last_mut().filter(|(device, _)| *device == kernel.device);
        if let Some((_, last)) = last
            && let ([(attr, dtypes)], [(other, more)]) = (last.as_mut_slice(), kernel.types.as_slice())
            && attr == other
        {
            dtypes.extend(
                more.iter()
                    .filter(|dtype| !dtypes.contains(dtype))
                    .copied()
                    .collect::<Vec<_>>(),
            );
        } else {
            rows.push((kernel.device, kernel.types.clone()));
        }
    }
    let text = |types: Types| match types.is_empty() {
        true => "any".to_owned(),
        false => types
            .iter()
            .map(|(attr, dtypes)| format!("{attr}: {}", dtypes.join(", ")))
            .collect::<Vec<_>>()
            .join("; "),
    };
    rows.into_iter().map(|(device, types)| (device, text(types))).collect()
}

fn names(dtypes: &[DType]) -> Vec<&'static str> {
    dtypes.iter().map(|dtype| dtype.name()).collect()
}

/// Prints the table of ops, or one op.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<ExitCode> {
    let registry = graph_ops::install();
    let all = registry.ops();
    let exact = options.name.as_deref().and_then(|name| registry.op(name).ok());
    if let Some(definition) = exact {
        let op = Op::new(definition);
        match options.json {
            true => json::write(out, &op)?,
            false => write_one(out, &op)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = options.name.as_deref().unwrap_or_default().to_ascii_lowercase();
    let ops: Vec<Op> = all
        .iter()
        .filter(|op| op.name.to_ascii_lowercase().contains(&wanted))
        .map(|op| Op::new(op))
        .collect();
    if ops.is_empty() {
        return Err(unknown(&wanted, options.name.as_deref().unwrap_or_default(), &all).into());
    }
    match options.json {
        true => json::write(out, &ops)?,
        false => write_list(out, &ops)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(wanted: &str, name: &str, all: &[&OpDefinition]) -> Error {
    let likeness = |op: &&&OpDefinition| strsim::jaro_winkler(&op.name.to_ascii_lowercase(), wanted);
    let nearest = all.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let error = Error::not_found(format!("the engine knows no op '{name}'"));
    match nearest.filter(|op| likeness(op) > 0.8) {
        Some(op) => error.hint(format!("did you mean {}?", op.name)),
        None => error.hint("`graph ops` lists all that it knows"),
    }
}

fn write_list(out: &mut dyn Write, ops: &[Op]) -> Result<()> {
    let mut rows = Table::new(&["op", "gradient", "kernels", "signature"]);
    for op in ops {
        let gradient = match op.gradient {
            "function" => "yes",
            "undefined" => "undefined",
            _ => "no",
        };
        rows.row([op.name.to_owned(), gradient.to_owned(), op.devices(), op.signature()]);
    }
    rows.write(out, 0)?;
    writeln!(out, "\n{}", table::count(ops.len(), "op"))?;
    Ok(())
}

fn write_one(out: &mut dyn Write, op: &Op) -> Result<()> {
    writeln!(out, "{}{}", op.name, op.signature())?;
    writeln!(out, "\n{}", op.summary)?;
    if !op.attrs.is_empty() {
        writeln!(out, "\nattributes")?;
        let mut rows = Table::new(&["name", "type", "default", "allowed"]);
        for attr in &op.attrs {
            rows.row([
                attr.name.to_owned(),
                attr.r#type.to_owned(),
                attr.default.clone().unwrap_or_default(),
                attr.range(),
            ]);
        }
        rows.write(out, 2)?;
    }
    writeln!(out, "\ngradient: {}", op.gradient)?;
    let flags = [
        ("stateful", op.stateful),
        ("commutative", op.commutative),
        ("aggregate", op.aggregate),
    ];
    let flags: Vec<&str> = flags.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    if !flags.is_empty() {
        writeln!(out, "flags: {}", flags.join(", "))?;
    }
    writeln!(out, "\nkernels")?;
    if op.kernels.is_empty() {
        writeln!(out, "  none: the session does it itself")?;
    }
    let mut rows = Table::new(&["device", "dtypes"]);
    for (device, constraints) in constraints(&op.kernels) {
        rows.row([device.to_owned(), constraints]);
    }
    if !rows.is_empty() {
        rows.write(out, 2)?;
    }
    Ok(())
}
