//! What is told of a graph.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use graph_core::format::checkpoint::element_size;
use graph_core::format::freeze::is_variable;
use graph_core::format::graph_file::GraphFile;
use graph_core::format::message_graph::MessageGraph;
use graph_core::format::proto::attr_value::Value;
use graph_core::format::proto::{
    DataType, FunctionDefLibrary, GraphDef, MetaGraphDef, NodeDef, SaverDef, TensorProto, TensorShapeProto,
};
use graph_core::op::ArgType;
use serde::{Serialize, Serializer};

use super::collections::{self, Collection, Signature};
use crate::attr_text;
use crate::support::{self, Unsupported};

/// A file and the graphs in it.
#[derive(Serialize)]
pub struct File {
    pub file: String,
    pub format: &'static str,
    pub graphs: Vec<Graph>,
}

/// One graph.
#[derive(Default, Serialize)]
pub struct Graph {
    pub versions: Versions,
    /// Of a MetaGraph: what wrote it, and what for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensorflow_version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    pub nodes: usize,
    pub edges: usize,
    pub control_edges: usize,
    pub inputs: Vec<Output>,
    pub outputs: Vec<Output>,
    pub variables: Vec<Variable>,
    pub variable_parameters: u64,
    pub variable_bytes: u64,
    /// Of those that the collection `trainable_variables` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trainable_parameters: Option<u64>,
    pub constants: usize,
    pub constant_parameters: u64,
    pub constant_bytes: u64,
    pub ops: Vec<OpCount>,
    pub unsupported: Vec<Unsupported>,
    pub devices: BTreeMap<String, usize>,
    pub functions: Vec<Function>,
    pub collections: Vec<Collection>,
    pub signatures: Vec<Signature>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saver: Option<Saver>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub assets: Vec<String>,
    pub problems: Vec<String>,
}

#[derive(Default, Serialize)]
pub struct Versions {
    pub producer: i32,
    pub min_consumer: i32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bad_consumers: Vec<i32>,
}

/// A node and its first output, as far as the message tells.
#[derive(Serialize)]
pub struct Output {
    pub name: String,
    pub op: String,
    pub dtype: Option<String>,
    pub shape: Shape,
}

#[derive(Serialize)]
pub struct Variable {
    pub name: String,
    pub op: String,
    pub dtype: Option<String>,
    pub shape: Shape,
    /// Unknown where the shape is.
    pub elements: Option<u64>,
    pub bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trainable: Option<bool>,
}

#[derive(Serialize)]
pub struct OpCount {
    pub op: String,
    pub count: usize,
    /// Whether the engine knows it.
    pub known: bool,
}

#[derive(Serialize)]
pub struct Function {
    pub name: String,
    pub inputs: usize,
    pub outputs: usize,
    pub nodes: usize,
}

/// The names of the tensors and the operation that save and restore.
#[derive(Serialize)]
pub struct Saver {
    pub filename_tensor: String,
    pub save_tensor: String,
    pub restore_op: String,
    pub max_to_keep: i32,
}

/// A shape that may not be told at all. In JSON: null, or a list with null for each dimension that is not known.
#[derive(Clone)]
pub struct Shape(pub Option<TensorShapeProto>);

impl Shape {
    /// The number of elements, where all dimensions are known.
    fn elements(&self) -> Option<u64> {
        let shape = self.0.as_ref().filter(|shape| !shape.unknown_rank)?;
        shape
            .dim
            .iter()
            .try_fold(1u64, |count, dim| count.checked_mul(u64::try_from(dim.size).ok()?))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.as_ref().map(attr_text::shape).unwrap_or_default())
    }
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_ref().filter(|shape| !shape.unknown_rank) {
            None => serializer.serialize_none(),
            Some(shape) => serializer.collect_seq(shape.dim.iter().map(|dim| Some(dim.size).filter(|&size| size >= 0))),
        }
    }
}

impl File {
    pub fn new(name: String, file: &GraphFile) -> Self {
        let graphs = match file {
            GraphFile::GraphDef(graph) => vec![Graph::new(graph)],
            other => other.meta_graphs().iter().map(Graph::of_meta_graph).collect(),
        };
        Self {
            file: name,
            format: file.kind(),
            graphs,
        }
    }
}

impl Graph {
    fn new(message: &GraphDef) -> Self {
        let graph = MessageGraph::new(message);
        let mut report = Self {
            versions: versions(message),
            nodes: message.node.len(),
            variables: message
                .node
                .iter()
                .filter(|node| is_variable(node))
                .map(variable)
                .collect(),
            unsupported: support::unsupported(message),
            functions: message.library.as_ref().map(functions).unwrap_or_default(),
            problems: graph.problems().to_vec(),
            ..Self::default()
        };
        let registry = graph_ops::install();
        let mut ops: BTreeMap<&str, usize> = BTreeMap::new();
        for (position, node) in message.node.iter().enumerate() {
            *ops.entry(&node.op).or_default() += 1;
            if !node.device.is_empty() {
                *report.devices.entry(node.device.clone()).or_default() += 1;
            }
            let controls = graph.inputs(position).iter().filter(|end| end.slot.is_none()).count();
            report.control_edges += controls;
            report.edges += graph.inputs(position).len() - controls;
            match node.op.as_str() {
                "Placeholder" | "PlaceholderV2" | "PlaceholderWithDefault" => report.inputs.push(output(node)),
                "Const" => report.add_constant(node),
                _ if !is_variable(node) && graph.consumers(position).is_empty() => report.outputs.push(output(node)),
                _ => {}
            }
        }
        let known = |op: &str| registry.op(op).is_ok();
        report.ops = ops
            .into_iter()
            .map(|(op, count)| OpCount {
                op: op.to_owned(),
                count,
                known: known(op),
            })
            .collect();
        report.ops.sort_by_key(|op| std::cmp::Reverse(op.count));
        report.variable_parameters = report
            .variables
            .iter()
            .filter_map(|v| v.elements)
            .fold(0, u64::saturating_add);
        report.variable_bytes = report
            .variables
            .iter()
            .filter_map(|v| v.bytes)
            .fold(0, u64::saturating_add);
        report
    }

    fn of_meta_graph(meta: &MetaGraphDef) -> Self {
        let empty = GraphDef::default();
        let mut report = Self::new(meta.graph_def.as_ref().unwrap_or(&empty));
        if meta.graph_def.is_none() {
            report.problems.push("the MetaGraph holds no graph".to_owned());
        }
        if let Some(info) = &meta.meta_info_def {
            report.tensorflow_version = Some(info.tensorflow_version.clone()).filter(|version| !version.is_empty());
            report.tags = info.tags.clone();
        }
        report.collections = collections::collections(meta);
        report.signatures = collections::signatures(meta);
        report.saver = meta.saver_def.as_ref().map(saver);
        report.assets = meta.asset_file_def.iter().map(|asset| asset.filename.clone()).collect();
        if meta.collection_def.contains_key("trainable_variables") {
            let trainable: BTreeSet<String> = collections::variable_names(meta, "trainable_variables");
            let mut parameters = 0u64;
            for variable in &mut report.variables {
                let is_trainable = trainable.contains(&variable.name);
                variable.trainable = Some(is_trainable);
                if is_trainable {
                    parameters = parameters.saturating_add(variable.elements.unwrap_or(0));
                }
            }
            report.trainable_parameters = Some(parameters);
        }
        report
    }

    fn add_constant(&mut self, node: &NodeDef) {
        self.constants += 1;
        if let Some(Value::Tensor(tensor)) = value(node, "value") {
            let elements = Shape(Some(tensor.tensor_shape.clone().unwrap_or_default())).elements();
            let elements = elements.unwrap_or(0);
            self.constant_parameters = self.constant_parameters.saturating_add(elements);
            self.constant_bytes = self.constant_bytes.saturating_add(constant_bytes(tensor, elements));
        }
    }
}

/// What a constant takes in memory.
fn constant_bytes(tensor: &TensorProto, elements: u64) -> u64 {
    match element_size(tensor.dtype()) {
        Some(size) => elements.saturating_mul(size as u64),
        None => tensor.string_val.iter().map(|string| string.len() as u64).sum(),
    }
}

fn versions(graph: &GraphDef) -> Versions {
    let versions = graph.versions.clone().unwrap_or_default();
    Versions {
        producer: versions.producer,
        min_consumer: versions.min_consumer,
        bad_consumers: versions.bad_consumers,
    }
}

fn value<'a>(node: &'a NodeDef, attr: &str) -> Option<&'a Value> {
    node.attr.get(attr)?.value.as_ref()
}

fn type_attr(node: &NodeDef, attr: &str) -> Option<String> {
    match value(node, attr) {
        Some(Value::Type(number)) => Some(attr_text::dtype(*number)),
        _ => None,
    }
}

/// The dtype of a node's first output: of an op that the engine knows from its definition, else from the attributes that
/// mostly tell it.
fn output_dtype(node: &NodeDef) -> Option<String> {
    let Ok(definition) = graph_ops::install().op(&node.op) else {
        return type_attr(node, "dtype").or_else(|| type_attr(node, "T"));
    };
    match definition.outputs.first()?.ty {
        ArgType::Fixed(dtype) => Some(dtype.name().to_owned()),
        ArgType::Attr(name) => type_attr(node, name).or_else(|| {
            let default = definition.attr_def(name)?.default.clone()?;
            Some(attr_text::attr(&graph_core::format::graph_def::attr_to_proto(&default)))
        }),
        ArgType::List(name) => match value(node, name) {
            Some(Value::List(list)) => list.r#type.first().map(|&number| attr_text::dtype(number)),
            _ => None,
        },
    }
}

fn output(node: &NodeDef) -> Output {
    let told = match value(node, "_output_shapes") {
        Some(Value::List(list)) => list.shape.first().cloned(),
        _ => None,
    };
    Output {
        name: node.name.clone(),
        op: node.op.clone(),
        dtype: output_dtype(node),
        shape: match node.op.starts_with("Placeholder") {
            true => Shape(shape_attr(node).or(told)),
            false => Shape(told),
        },
    }
}

fn shape_attr(node: &NodeDef) -> Option<TensorShapeProto> {
    match value(node, "shape") {
        Some(Value::Shape(shape)) => Some(shape.clone()),
        _ => None,
    }
}

fn variable(node: &NodeDef) -> Variable {
    let shape = Shape(shape_attr(node));
    let elements = shape.elements();
    let size = match value(node, "dtype") {
        Some(Value::Type(number)) => DataType::try_from(*number).ok().and_then(element_size),
        _ => None,
    };
    Variable {
        name: node.name.clone(),
        op: node.op.clone(),
        dtype: type_attr(node, "dtype"),
        elements,
        bytes: elements
            .zip(size)
            .and_then(|(elements, size)| elements.checked_mul(size as u64)),
        shape,
        trainable: None,
    }
}

fn functions(library: &FunctionDefLibrary) -> Vec<Function> {
    library
        .function
        .iter()
        .map(|function| {
            let signature = function.signature.clone().unwrap_or_default();
            Function {
                name: signature.name,
                inputs: signature.input_arg.len(),
                outputs: signature.output_arg.len(),
                nodes: function.node_def.len(),
            }
        })
        .collect()
}

fn saver(saver: &SaverDef) -> Saver {
    Saver {
        filename_tensor: saver.filename_tensor_name.clone(),
        save_tensor: saver.save_tensor_name.clone(),
        restore_op: saver.restore_op_name.clone(),
        max_to_keep: saver.max_to_keep,
    }
}
