//! From understood nodes to nodes of the graph: inputs found and checked, an order for shape inference, insertion.

use std::cell::Cell;
use std::panic::Location;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::ImportOptions;
use super::parse::{Context, Parsed};
use super::problems::Problems;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::message_graph::InputName;
use crate::format::proto::{GraphDef, NodeDef, OpDef, attr_value};
use crate::graph::inference::infer_outputs;
use crate::graph::scope::{self, check_name};
use crate::graph::{Graph, Node, NodeId, Tensor, TensorId};
use crate::op::shape_inference::arg_len;
use crate::op::{ArgType, AttrValue, ControlFlow, Registry};
use crate::shape::PartialShape;

/// `a:0` for `a`.
pub(super) fn normal_tensor_name(name: &str) -> (String, usize) {
    match InputName::parse(name) {
        Some(InputName::Tensor(name, slot)) => (name.to_owned(), slot),
        _ => (name.to_owned(), 0),
    }
}

/// Where an input of an imported node comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// Output `slot` of the message's node `index`.
    Imported { index: usize, slot: usize },
    /// A tensor that was in the graph before.
    Mapped(TensorId),
}

/// What a node takes and waits for.
#[derive(Default)]
pub(super) struct Wiring {
    pub(super) inputs: SmallVec<[Source; 2]>,
    /// Positions in the message.
    pub(super) controls: SmallVec<[usize; 1]>,
}

pub(super) struct Importer<'a> {
    pub(super) graph: &'a Graph,
    pub(super) graph_def: &'a GraphDef,
    pub(super) names: FxHashMap<&'a str, usize>,
    pub(super) mapped: FxHashMap<(String, usize), Tensor>,
    pub(super) used: FxHashSet<(String, usize)>,
    pub(super) parsed: Vec<Parsed>,
}

impl Importer<'_> {
    pub(super) fn map_inputs(&mut self, options: &ImportOptions, problems: &mut Problems) {
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
    pub(super) fn parse(&mut self, registry: &Registry, producer_ops: &[OpDef], problems: &mut Problems) {
        let functions: FxHashSet<&str> = self
            .graph_def
            .library
            .iter()
            .flat_map(|library| &library.function)
            .filter_map(|function| function.signature.as_ref())
            .map(|signature| signature.name.as_str())
            .collect();
        let context = Context {
            registry,
            functions,
            producer: self.graph_def.versions.as_ref().map_or(0, |versions| versions.producer),
            expanded: Cell::new(0),
            producer_ops: producer_ops.iter().map(|op| (op.name.as_str(), op)).collect(),
        };
        for node in &self.graph_def.node {
            match context.parse(node) {
                Ok(parsed) => self.parsed.push(parsed),
                Err(error) => problems.add(node, error),
            }
        }
    }

    /// Finds what each node's inputs come from, and whether they fit.
    pub(super) fn connect(&mut self, problems: &mut Problems) {
        for (index, node) in self.graph_def.node.iter().enumerate() {
            match self.inputs_of(node) {
                Ok(wiring) => {
                    if let Err(error) = self.check_inputs(index, &wiring.inputs) {
                        problems.add(node, error);
                    }
                    if let Err(error) = self.check_colocation(node) {
                        problems.add(node, error);
                    }
                    self.parsed[index].wiring = wiring;
                }
                Err(error) => problems.add(node, error),
            }
        }
    }

    fn inputs_of(&mut self, node: &NodeDef) -> Result<Wiring> {
        let Wiring {
            mut inputs,
            mut controls,
        } = Wiring::default();
        for text in &node.input {
            let unknown =
                |name: &str| Error::invalid_argument(format!("the input '{text}' is of an unknown node '{name}'"));
            match InputName::parse(text) {
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
        Ok(Wiring { inputs, controls })
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
    pub(super) fn elements(&self, names: &[String], problems: &mut Problems) -> Vec<(usize, Option<usize>)> {
        let mut elements = Vec::new();
        for name in names {
            let (operation, slot) = match InputName::parse(name) {
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
    pub(super) fn order(&self, problems: &mut Problems) -> Vec<usize> {
        let mut waits = vec![0u32; self.parsed.len()];
        let mut successors: Vec<SmallVec<[u32; 2]>> = vec![SmallVec::new(); self.parsed.len()];
        for (index, node) in self.parsed.iter().enumerate() {
            let before = node.wiring.inputs.iter().filter_map(|source| match *source {
                Source::Imported { index, .. } => Some(index),
                Source::Mapped(_) => None,
            });
            for before in before.chain(node.wiring.controls.iter().copied()) {
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

    /// Adds all nodes, then infers their shapes in `order`; the position of the first one, and the prefix of all.
    pub(super) fn insert(
        self,
        options: &ImportOptions,
        location: &'static Location<'static>,
        order: &[usize],
    ) -> Result<(usize, String)> {
        let graph = self.graph;
        let prefix = match options.prefix.strip_suffix('/').unwrap_or(&options.prefix) {
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
                device: if message.device.is_empty() || options.clear_devices {
                    device.clone()
                } else {
                    Arc::from(message.device.as_str())
                },
                location,
            });
            wiring.push(parsed.wiring);
            shapes.push(parsed.output_shapes);
        }
        let (first, unused) = graph.write(|data| {
            let (first, unused) = data.add_unconnected(nodes)?;
            let id = |index: usize| NodeId::new(first + index);
            for (index, Wiring { inputs, controls }) in wiring.into_iter().enumerate() {
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
        Ok((first, prefix))
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

const COLOCATION: &[u8] = b"loc:@";

/// The nodes that a message's node wants to share a device with.
fn colocated_with(node: &NodeDef) -> Vec<String> {
    use attr_value::Value;
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
