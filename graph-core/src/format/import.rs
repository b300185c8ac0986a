//! Graphs from TensorFlow's messages: the importer of [`GraphDef`].
//!
//! A graph is imported whole or not at all: everything that can be said about the message alone is checked before the
//! first node is added, all problems are told in one error, and where shapes turn out not to fit the nodes are taken out
//! again. Nodes keep the order of the message, which need not be one in which they could run.

use std::panic::Location;
use std::path::Path;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::graph_def::attr_from_proto;
use super::proto::{GraphDef, NodeDef};
use crate::dtype::DType;
use crate::error::{Error, OpSite, Report, Result};
use crate::graph::builder::{infer_outputs, output_dtypes, set_defaults};
use crate::graph::scope::{self, check_name};
use crate::graph::{Graph, Node, NodeId, Operation, OutputInfo, PRODUCER, Tensor, TensorId};
use crate::op::shape_inference::arg_len;
use crate::op::{ArgType, AttrValue, Attributes, ControlFlow, OpDefinition, Registry, registry, vocabulary};
use crate::shape::PartialShape;

/// How many problems of a graph are told at most.
const MAX_PROBLEMS: usize = 50;

/// Before this version a placeholder of any shape was written as a scalar.
const PRODUCER_OF_PLACEHOLDER_SHAPES: i32 = 24;

/// Where an imported graph goes, and what becomes of its inputs; see [`Graph::import`].
///
/// ```
/// use graph_core::format::import::ImportOptions;
/// let options = ImportOptions::new().prefix("net").return_element("logits:0");
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct ImportOptions {
    prefix: String,
    input_map: Vec<(String, Tensor)>,
    return_elements: Vec<String>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            prefix: "import".to_owned(),
            input_map: Vec::new(),
            return_elements: Vec::new(),
        }
    }
}

impl ImportOptions {
    /// Everything under the name scope `import`, nothing mapped, nothing returned.
    pub fn new() -> Self {
        Self::default()
    }

    /// The options for a graph that keeps its names.
    pub fn verbatim() -> Self {
        Self::new().prefix("")
    }

    /// The name scope that all nodes go into, numbered if it exists. With the empty prefix nodes keep their names.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Puts `tensor` in the place of the message's tensor `name` (`x` or `x:1`) wherever it is an input.
    pub fn map_input(mut self, name: impl Into<String>, tensor: &Tensor) -> Self {
        self.input_map.push((name.into(), tensor.clone()));
        self
    }

    /// Asks for an operation (`train`) or a tensor (`loss:0`) of the message, by its name there.
    pub fn return_element(mut self, name: impl Into<String>) -> Self {
        self.return_elements.push(name.into());
        self
    }

    /// [`ImportOptions::return_element`] for each of `names`.
    pub fn return_elements<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.return_elements.extend(names.into_iter().map(Into::into));
        self
    }
}

/// What [`ImportOptions::return_element`] asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum ImportedElement {
    /// It was named without a slot.
    Operation(Operation),
    /// It was named with a slot.
    Tensor(Tensor),
}

impl ImportedElement {
    /// The tensor; of an operation its first output.
    ///
    /// # Errors
    /// `InvalidArgument` for an operation without outputs.
    pub fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Tensor(tensor) => Ok(tensor.clone()),
            Self::Operation(operation) if operation.num_outputs() > 0 => Ok(operation.output(0)),
            Self::Operation(operation) => {
                Err(Error::invalid_argument("the operation has no output").at(operation.site()))
            }
        }
    }

    /// The operation; of a tensor the one that it is an output of.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Operation(operation) => operation.clone(),
            Self::Tensor(tensor) => tensor.op(),
        }
    }
}

/// Reads a graph from a file in protobuf's binary format (`.pb`) or text format (`.pbtxt`).
///
/// # Errors
/// Those of [`super::read_message`].
pub fn read_graph_def(path: impl AsRef<Path>) -> Result<GraphDef> {
    super::read_message(path)
}

impl Graph {
    /// Adds the nodes of a message to this graph, as `tf.import_graph_def` does: attributes that the message leaves out get
    /// their defaults, shapes are inferred (and merged with `_output_shapes` where the message has them), colocation
    /// constraints follow the prefix. What `return_element` named comes back, in that order.
    ///
    /// ```ignore
    /// let graph_def = graph_core::format::import::read_graph_def("frozen.pb")?;
    /// let found = graph.import(&graph_def, &ImportOptions::new().prefix("net").return_element("logits:0"))?;
    /// ```
    ///
    /// # Errors
    /// One error that lists all problems, of the first one's class: `NotFound` for ops that are not known,
    /// `InvalidArgument` for anything that does not fit together, `Unimplemented` for calls of graph functions and for
    /// constants that cannot be held; no node is added then. `FailedPrecondition` if the graph is finalized.
    #[track_caller]
    pub fn import(&self, graph_def: &GraphDef, options: &ImportOptions) -> Result<Vec<ImportedElement>> {
        self.check_mutable()?;
        check_versions(graph_def)?;
        let registry = registry()?;
        let location = Location::caller();
        let names: FxHashMap<&str, usize> = graph_def
            .node
            .iter()
            .enumerate()
            .map(|(index, node)| (node.name.as_str(), index))
            .collect();
        let mut problems = Problems::default();
        if names.len() < graph_def.node.len() {
            let repeated = graph_def.node.iter().enumerate();
            for (_, node) in repeated.filter(|(index, node)| names[node.name.as_str()] != *index) {
                problems.add(node, Error::invalid_argument("the name is not unique"));
            }
        }
        let mut importer = Importer {
            graph: self,
            graph_def,
            names,
            mapped: FxHashMap::default(),
            used: FxHashSet::default(),
            parsed: Vec::new(),
        };
        importer.map_inputs(options, &mut problems);
        importer.parse(registry, &mut problems);
        problems.finish(graph_def.node.len())?;
        importer.connect(&mut problems);
        for (name, _) in &options.input_map {
            if !importer.used.contains(&normal_tensor_name(name)) {
                problems.add_general(
                    Error::invalid_argument(format!("the input '{name}' that is mapped is no input of any node"))
                        .hint("leave it out of the input map"),
                );
            }
        }
        let elements = importer.elements(&options.return_elements, &mut problems);
        let order = importer.order(&mut problems);
        problems.finish(graph_def.node.len())?;
        let first = importer.insert(&options.prefix, location, &order)?;
        Ok(elements
            .into_iter()
            .map(|(index, slot)| {
                let operation = Operation::new(self, NodeId::new(first + index));
                match slot {
                    Some(slot) => ImportedElement::Tensor(operation.output(slot)),
                    None => ImportedElement::Operation(operation),
                }
            })
            .collect())
    }
}

fn check_versions(graph_def: &GraphDef) -> Result<()> {
    let versions = graph_def.versions.clone().unwrap_or_default();
    if versions.min_consumer > PRODUCER {
        return Err(
            Error::invalid_argument("the graph is of a format that is too new for this engine")
                .expected(format!("a graph for consumers of version {PRODUCER} or less"))
                .got(format!(
                    "one for consumers of at least version {}",
                    versions.min_consumer
                )),
        );
    }
    if versions.bad_consumers.contains(&PRODUCER) {
        return Err(Error::invalid_argument(format!(
            "the graph refuses consumers of version {PRODUCER}, which this engine is"
        )));
    }
    Ok(())
}

/// What is wrong with a graph, of one class: that of the first problem.
#[derive(Default)]
struct Problems(Vec<Error>);

impl Problems {
    fn add(&mut self, node: &NodeDef, error: Error) {
        self.0
            .push(error.at(OpSite::new(node.name.as_str(), node.op.as_str(), None)));
    }

    fn add_general(&mut self, error: Error) {
        self.0.push(error);
    }

    /// The one error for all of them, if there is any.
    fn finish(&mut self, nodes: usize) -> Result<()> {
        let problems = std::mem::take(&mut self.0);
        let count = problems.len();
        let mut problems = problems.into_iter();
        let Some(first) = problems.next() else {
            return Ok(());
        };
        if count == 1 {
            return Err(first.context(format!("importing a graph of {nodes} nodes")));
        }
        let mut message = format!("the graph cannot be imported: {count} problems");
        let all = std::iter::once(&first).chain(problems.as_slice());
        for problem in all.take(MAX_PROBLEMS) {
            message.push_str("\n  - ");
            message.push_str(&one_line(problem.report()));
        }
        if count > MAX_PROBLEMS {
            message.push_str(&format!("\n  ... and {} more", count - MAX_PROBLEMS));
        }
        Err(first.with_message(message))
    }
}

fn one_line(report: &Report) -> String {
    let mut line = match &report.op {
        Some(op) => format!("'{}' ({}): {}", op.name, op.op, report.message),
        None => report.message.clone(),
    };
    for (what, text) in [("expected", &report.expected), ("got", &report.got)] {
        if let Some(text) = text {
            line.push_str(&format!("; {what} {text}"));
        }
    }
    line
}

/// An input of a node, as the message writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum InputName<'a> {
    Tensor(&'a str, usize),
    Control(&'a str),
}

/// `^a`, `a` or `a:1`; `None` for anything else.
fn parse_input(input: &str) -> Option<InputName<'_>> {
    if let Some(control) = input.strip_prefix('^') {
        return Some(InputName::Control(control));
    }
    match input.rsplit_once(':') {
        // Like TensorFlow, plain digits only.
        Some((name, slot)) if slot.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(InputName::Tensor(name, slot.parse().ok()?))
        }
        Some(_) => None,
        None => Some(InputName::Tensor(input, 0)),
    }
}

/// `a:0` for `a`.
fn normal_tensor_name(name: &str) -> (String, usize) {
    match parse_input(name) {
        Some(InputName::Tensor(name, slot)) => (name.to_owned(), slot),
        _ => (name.to_owned(), 0),
    }
}

/// Where an input of an imported node comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    /// Output `slot` of the message's node `index`.
    Imported { index: usize, slot: usize },
    /// A tensor that was in the graph before.
    Mapped(TensorId),
}

/// A node that is understood but not yet part of the graph.
struct Parsed {
    definition: &'static OpDefinition,
    attrs: Attributes,
    outputs: SmallVec<[OutputInfo; 1]>,
    inputs: SmallVec<[Source; 2]>,
    controls: SmallVec<[usize; 1]>,
    /// What the message says of the outputs' shapes.
    output_shapes: Option<Vec<PartialShape>>,
}

struct Importer<'a> {
    graph: &'a Graph,
    graph_def: &'a GraphDef,
    names: FxHashMap<&'a str, usize>,
    mapped: FxHashMap<(String, usize), Tensor>,
    used: FxHashSet<(String, usize)>,
    parsed: Vec<Parsed>,
}

impl Importer<'_> {
    fn map_inputs(&mut self, options: &ImportOptions, problems: &mut Problems) {
        for (name, tensor) in &options.input_map {
            if tensor.graph() != self.graph {
                problems.add_general(Error::invalid_argument(format!(
                    "the tensor mapped to '{name}' is of another graph"
                )));
            }
            self.mapped.insert(normal_tensor_name(name), tensor.clone());
        }
    }

    /// Understands each node by itself: its op, attributes and outputs.
    fn parse(&mut self, registry: &Registry, problems: &mut Problems) {
        let functions: FxHashSet<&str> = self
            .graph_def
            .library
            .iter()
            .flat_map(|library| &library.function)
            .filter_map(|function| function.signature.as_ref())
            .map(|signature| signature.name.as_str())
            .collect();
        let producer = self.graph_def.versions.as_ref().map_or(0, |versions| versions.producer);
        for node in &self.graph_def.node {
            match parse_node(node, registry, &functions, producer) {
                Ok(parsed) => self.parsed.push(parsed),
                Err(error) => problems.add(node, error),
            }
        }
    }

    /// Finds what each node's inputs come from, and whether they fit.
    fn connect(&mut self, problems: &mut Problems) {
        for (index, node) in self.graph_def.node.iter().enumerate() {
            match self.inputs_of(node) {
                Ok((inputs, controls)) => {
                    if let Err(error) = self.check_inputs(index, &inputs) {
                        problems.add(node, error);
                    }
                    if let Err(error) = self.check_colocation(node) {
                        problems.add(node, error);
                    }
                    self.parsed[index].inputs = inputs;
                    self.parsed[index].controls = controls;
                }
                Err(error) => problems.add(node, error),
            }
        }
    }

    fn inputs_of(&mut self, node: &NodeDef) -> Result<(SmallVec<[Source; 2]>, SmallVec<[usize; 1]>)> {
        let mut inputs = SmallVec::new();
        let mut controls = SmallVec::new();
        for text in &node.input {
            let unknown =
                |name: &str| Error::invalid_argument(format!("the input '{text}' is of an unknown node '{name}'"));
            match parse_input(text) {
                Some(InputName::Control(name)) => {
                    let &control = self.names.get(name).ok_or_else(|| unknown(name))?;
                    if !controls.contains(&control) {
                        controls.push(control);
                    }
                }
                Some(InputName::Tensor(..)) if !controls.is_empty() => {
                    return Err(
                        Error::invalid_argument(format!("the input '{text}' stands behind a control input"))
                            .expected("data inputs first"),
                    );
                }
                Some(InputName::Tensor(name, slot)) => {
                    let key = (name.to_owned(), slot);
                    if let Some(tensor) = self.mapped.get(&key) {
                        inputs.push(Source::Mapped(tensor.id()));
                        self.used.insert(key);
                        continue;
                    }
                    let &source = self.names.get(name).ok_or_else(|| unknown(name))?;
                    if slot >= self.parsed[source].outputs.len() {
                        return Err(Error::invalid_argument(format!("the input '{text}' does not exist"))
                            .got(format!("'{name}' has {} outputs", self.parsed[source].outputs.len())));
                    }
                    inputs.push(Source::Imported { index: source, slot });
                }
                None => return Err(Error::invalid_argument(format!("'{text}' is not the name of an input"))),
            }
        }
        Ok((inputs, controls))
    }

    /// Checks the number of inputs and their dtypes against the op's arguments.
    fn check_inputs(&self, index: usize, inputs: &[Source]) -> Result<()> {
        let Parsed { definition, attrs, .. } = &self.parsed[index];
        let mut wanted: SmallVec<[(DType, bool, &str); 4]> = SmallVec::new();
        for arg in &definition.inputs {
            match arg.ty {
                ArgType::List(list) => {
                    let dtypes: Vec<DType> = attrs.read(list)?;
                    wanted.extend(dtypes.into_iter().map(|dtype| (dtype, arg.is_ref, arg.name)));
                }
                ArgType::Fixed(dtype) => {
                    wanted.push_times(arg_len(arg, attrs)?, inputs.len(), (dtype, arg.is_ref, arg.name))?
                }
                ArgType::Attr(name) => {
                    let dtype = attrs.read(name)?;
                    wanted.push_times(arg_len(arg, attrs)?, inputs.len(), (dtype, arg.is_ref, arg.name))?;
                }
            }
        }
        if wanted.len() != inputs.len() {
            return Err(Error::invalid_argument("wrong number of inputs")
                .expected(wanted.len())
                .got(inputs.len()));
        }
        for (&(dtype, is_ref, name), &source) in wanted.iter().zip(inputs) {
            let (got, got_ref) = match source {
                Source::Imported { index, slot } => {
                    let info = &self.parsed[index].outputs[slot];
                    (info.dtype, info.is_ref)
                }
                Source::Mapped(id) => self.graph.read(|data| {
                    let info = &data.node(id.node).outputs[id.slot as usize];
                    (info.dtype, info.is_ref)
                }),
            };
            if got != dtype {
                return Err(Error::invalid_argument(format!("input '{name}' has the wrong dtype"))
                    .expected(dtype)
                    .got(got));
            }
            if is_ref && !got_ref {
                return Err(Error::invalid_argument(format!(
                    "input '{name}' must be a reference to a variable"
                )));
            }
        }
        Ok(())
    }

    fn check_colocation(&self, node: &NodeDef) -> Result<()> {
        for other in colocated_with(node) {
            if !self.names.contains_key(other.as_str()) {
                return Err(Error::invalid_argument(format!(
                    "the operation is to be colocated with an unknown node '{other}'"
                )));
            }
        }
        Ok(())
    }

    /// The positions (and slots) of the elements to return.
    fn elements(&self, names: &[String], problems: &mut Problems) -> Vec<(usize, Option<usize>)> {
        let mut elements = Vec::new();
        for name in names {
            let (operation, slot) = match parse_input(name) {
                Some(InputName::Tensor(operation, slot)) => (operation, name.contains(':').then_some(slot)),
                _ => (name.as_str(), None),
            };
            let found = self.names.get(operation).filter(|&&index| {
                slot.is_none_or(|slot| self.parsed.get(index).is_none_or(|node| slot < node.outputs.len()))
            });
            match found {
                Some(&index) => elements.push((index, slot)),
                None => problems.add_general(Error::invalid_argument(format!(
                    "the element '{name}' to return is not in the graph"
                ))),
            }
        }
        elements
    }

    /// The message's nodes in an order in which inputs come first, but for those that a loop carries back.
    fn order(&self, problems: &mut Problems) -> Vec<usize> {
        let mut waits = vec![0u32; self.parsed.len()];
        let mut successors: Vec<SmallVec<[u32; 2]>> = vec![SmallVec::new(); self.parsed.len()];
        for (index, node) in self.parsed.iter().enumerate() {
            let before = node.inputs.iter().filter_map(|source| match *source {
                Source::Imported { index, .. } => Some(index),
                Source::Mapped(_) => None,
            });
            for before in before.chain(node.controls.iter().copied()) {
                let carried_back = node.definition.control_flow == ControlFlow::Merge
                    && self.parsed[before].definition.control_flow == ControlFlow::NextIteration;
                if !carried_back {
                    successors[before].push(index as u32);
                    waits[index] += 1;
                }
            }
        }
        let mut order: Vec<usize> = (0..waits.len()).filter(|&index| waits[index] == 0).collect();
        let mut next = 0;
        while next < order.len() {
            for &successor in &successors[order[next]] {
                waits[successor as usize] -= 1;
                if waits[successor as usize] == 0 {
                    order.push(successor as usize);
                }
            }
            next += 1;
        }
        if order.len() < waits.len() {
            let stuck = waits.iter().filter(|&&waits| waits > 0).count();
            if let Some(index) = waits.iter().position(|&waits| waits > 0) {
                problems.add(
                    &self.graph_def.node[index],
                    Error::invalid_argument(format!(
                        "{stuck} nodes are in or behind a cycle that does not run through NextIteration"
                    )),
                );
            }
        }
        order
    }

    /// Adds all nodes, then infers their shapes in `order`; the position of the first one.
    fn insert(self, prefix: &str, location: &'static Location<'static>, order: &[usize]) -> Result<usize> {
        let graph = self.graph;
        let prefix = match prefix.strip_suffix('/').unwrap_or(prefix) {
            "" => String::new(),
            scope => {
                check_name(scope, scope::current_name_scope(graph).is_some())?;
                format!("{}/", graph.unique_name(scope))
            }
        };
        let device = scope::surroundings(graph, &[]).device;
        let mut shapes: Vec<Option<Vec<PartialShape>>> = Vec::with_capacity(self.parsed.len());
        let mut nodes = Vec::with_capacity(self.parsed.len());
        let mut wiring = Vec::with_capacity(self.parsed.len());
        for (message, parsed) in self.graph_def.node.iter().zip(self.parsed) {
            let mut attrs = parsed.attrs;
            if !prefix.is_empty()
                && let Some(AttrValue::StringList(groups)) = attrs.get("_class")
            {
                let groups = groups
                    .iter()
                    .map(|group| with_prefix(group, &prefix))
                    .collect::<Vec<_>>();
                attrs.set("_class", groups);
            }
            nodes.push(Node {
                name: format!("{prefix}{}", message.name).into(),
                definition: parsed.definition,
                attrs,
                inputs: SmallVec::new(),
                control_inputs: SmallVec::new(),
                outputs: parsed.outputs,
                device: if message.device.is_empty() {
                    device.clone()
                } else {
                    Arc::from(message.device.as_str())
                },
                location,
            });
            wiring.push((parsed.inputs, parsed.controls));
            shapes.push(parsed.output_shapes);
        }
        let (first, unused) = graph.write(|data| {
            let (first, unused) = data.add_unconnected(nodes)?;
            let id = |index: usize| NodeId::new(first + index);
            for (index, (inputs, controls)) in wiring.into_iter().enumerate() {
                let inputs = inputs.into_iter().map(|source| match source {
                    Source::Imported { index, slot } => TensorId::new(id(index), slot),
                    Source::Mapped(tensor) => tensor,
                });
                data.connect(id(index), inputs, controls.into_iter().map(id));
            }
            Ok::<_, Error>((first, unused))
        })?;
        let inferred = order
            .iter()
            .try_for_each(|&index| infer(graph, NodeId::new(first + index), shapes[index].take()));
        if let Err(error) = inferred {
            graph.write(|data| data.take_out(first, &unused));
            return Err(error.context(format!("importing a graph of {} nodes", order.len())));
        }
        Ok(first)
    }
}

trait PushTimes<T> {
    /// Appends `value` `times` times, unless that is more than `limit` and so wrong anyway.
    fn push_times(&mut self, times: usize, limit: usize, value: T) -> Result<()>;
}

impl<T: Copy, A: smallvec::Array<Item = T>> PushTimes<T> for SmallVec<A> {
    fn push_times(&mut self, times: usize, limit: usize, value: T) -> Result<()> {
        if times > limit {
            return Err(Error::invalid_argument("wrong number of inputs")
                .expected(format!("at least {times}"))
                .got(limit));
        }
        self.extend(std::iter::repeat_n(value, times));
        Ok(())
    }
}

/// Infers the shapes of a node's outputs and merges them with those that the message says.
fn infer(graph: &Graph, id: NodeId, said: Option<Vec<PartialShape>>) -> Result<()> {
    let (definition, attrs, inputs, site) = graph.read(|data| {
        let node = data.node(id);
        (node.definition, node.attrs.clone(), node.inputs.clone(), node.site())
    });
    let mut outputs = infer_outputs(graph, definition, &attrs, &inputs).map_err(|error| error.at(site.clone()))?;
    if let Some(said) = said {
        if said.len() != outputs.len() {
            return Err(
                Error::invalid_argument("'_output_shapes' is of another length than the outputs")
                    .expected(outputs.len())
                    .got(said.len())
                    .at(site),
            );
        }
        for (output, said) in outputs.iter_mut().zip(&said) {
            output.shape = output.shape.merge(said).map_err(|_| {
                Error::invalid_argument("'_output_shapes' contradicts the shape that follows from the inputs")
                    .expected(&output.shape)
                    .got(said)
                    .at(site.clone())
            })?;
        }
    }
    graph.write(|data| data.set_outputs(id, outputs));
    Ok(())
}

fn parse_node(node: &NodeDef, registry: &Registry, functions: &FxHashSet<&str>, producer: i32) -> Result<Parsed> {
    check_name(&node.name, true)?;
    if functions.contains(node.op.as_str()) {
        return Err(Error::unimplemented(format!(
            "the operation calls the graph function '{}', which this engine does not run",
            node.op
        ))
        .hint("inline the function where the graph is made, or freeze the graph there"));
    }
    let definition = registry.op(&node.op)?;
    let mut attrs = Attributes::new();
    let mut output_shapes = None;
    for (name, value) in &node.attr {
        let value = attr_from_proto(value).map_err(|error| error.context(format!("reading the attribute '{name}'")))?;
        if name == "_output_shapes" {
            output_shapes = match value {
                AttrValue::ShapeList(shapes) => Some(shapes),
                // An empty list is of no kind: for a node without outputs.
                value if value.is_empty_list() => Some(Vec::new()),
                _ => {
                    return Err(Error::invalid_argument("'_output_shapes' is of the wrong kind")
                        .expected("list(shape)")
                        .got(value.kind()));
                }
            };
            continue;
        }
        match definition.attr_def(name) {
            Some(attr) => attrs.set(attr.name, value),
            None if name.starts_with('_') => attrs.set(name.clone(), value),
            None => {
                let known: Vec<_> = definition.attrs.iter().map(|attr| attr.name).collect();
                return Err(Error::invalid_argument(format!("the op has no attribute '{name}'"))
                    .expected(if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    })
                    .hint("a graph of a newer TensorFlow: write it there with strip_default_attrs"));
            }
        }
    }
    if definition.name == vocabulary::PLACEHOLDER
        && producer < PRODUCER_OF_PLACEHOLDER_SHAPES
        && attrs.get("shape") == Some(&AttrValue::Shape(PartialShape::scalar()))
    {
        attrs.set("shape", PartialShape::unknown());
    }
    set_defaults(definition, &mut attrs)?;
    let outputs = output_dtypes(definition, &attrs)?
        .into_iter()
        .map(|(dtype, is_ref)| OutputInfo {
            dtype,
            is_ref,
            shape: PartialShape::unknown(),
        })
        .collect();
    Ok(Parsed {
        definition,
        attrs,
        outputs,
        inputs: SmallVec::new(),
        controls: SmallVec::new(),
        output_shapes,
    })
}

const COLOCATION: &[u8] = b"loc:@";

/// The nodes that a message's node wants to share a device with.
fn colocated_with(node: &NodeDef) -> Vec<String> {
    use super::proto::attr_value::Value;
    let Some(Value::List(list)) = node.attr.get("_class").and_then(|attr| attr.value.as_ref()) else {
        return Vec::new();
    };
    list.s
        .iter()
        .filter_map(|group| group.strip_prefix(COLOCATION))
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

/// The colocation group `loc:@a` as `loc:@prefix/a`.
fn with_prefix(group: &[u8], prefix: &str) -> Vec<u8> {
    match group.strip_prefix(COLOCATION) {
        Some(name) => [COLOCATION, prefix.as_bytes(), name].concat(),
        None => group.to_vec(),
    }
}
