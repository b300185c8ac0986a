//! The graph: operations, the tensors between them, names and collections.
//!
//! A [`Graph`] only grows. Nodes are numbered in order of creation, which is the order of export; edges of a petgraph
//! digraph serve traversal. What surrounds the building of an op (scopes, devices, control dependencies) is in [`scope`],
//! the building itself in [`builder`].

pub mod arithmetic;
pub mod builder;
pub mod collection;
pub(crate) mod inference;
pub(crate) mod nesting;
pub mod node;
mod operand;
mod operation;
pub mod scope;
mod tensor;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use petgraph::Direction;
use petgraph::graph::DiGraph;
use petgraph::visit::EdgeRef;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::op::vocabulary;
use crate::op::{AttrValue, ControlFlow};
use crate::value::Value;
use crate::variable::VariableStore;
pub use builder::OpBuilder;
pub use collection::{Collectable, CollectionItem, keys};
pub use node::{Edge, HandleData, Node, NodeId, OutputInfo, TensorId};
pub use operand::{IntoOperand, Operand};
pub use operation::Operation;
pub use tensor::Tensor;

/// The version of TensorFlow's graph format that is written: that of TensorFlow 1.15.
pub const PRODUCER: i32 = 134;

/// A static computation graph. Cheap to clone: clones are the same graph.
#[derive(Clone)]
pub struct Graph(Arc<GraphInner>);

struct GraphInner {
    id: u64,
    data: RwLock<GraphData>,
}

/// What a graph holds.
pub(crate) struct GraphData {
    nodes: DiGraph<Node, Edge, u32>,
    by_name: FxHashMap<Arc<str>, NodeId>,
    /// How often each name, in lower case, was asked for.
    names_in_use: FxHashMap<String, usize>,
    collections: FxHashMap<String, Vec<CollectionItem>>,
    /// The keys of `collections` in order of first use.
    collection_keys: Vec<String>,
    constants: FxHashMap<TensorId, Option<Value>>,
    /// The innermost branch or loop of each node that is in one.
    pub(crate) contexts: FxHashMap<NodeId, Arc<dyn scope::ControlFlowContext>>,
    /// What [`Graph::first_time`] was asked.
    remembered: FxHashSet<String>,
    pub(crate) variables: VariableStore,
    /// The rewrites that its sessions apply beside those that run by default.
    pub(crate) rewrites: BTreeSet<&'static str>,
    seed: Option<i64>,
    finalized: bool,
    /// Counts the changes that are not growth; plans made before one are checked.
    rewirings: u64,
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Graph {}

impl Hash for Graph {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<Graph {} of {} operations>", self.0.id, self.num_operations())
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let data = GraphData {
            nodes: DiGraph::default(),
            by_name: FxHashMap::default(),
            names_in_use: FxHashMap::default(),
            collections: FxHashMap::default(),
            collection_keys: Vec::new(),
            constants: FxHashMap::default(),
            contexts: FxHashMap::default(),
            remembered: FxHashSet::default(),
            variables: VariableStore::default(),
            rewrites: BTreeSet::new(),
            seed: None,
            finalized: false,
            rewirings: 0,
        };
        Self(Arc::new(GraphInner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            data: RwLock::new(data),
        }))
    }

    /// The graph that ops are added to: the innermost of this thread's [`Graph::as_default`], else the program's own.
    pub fn current() -> Graph {
        static PROGRAM: OnceLock<Graph> = OnceLock::new();
        scope::innermost_default_graph().unwrap_or_else(|| PROGRAM.get_or_init(Graph::new).clone())
    }

    /// Makes this the current graph of the thread until the guard is dropped (`let _ = ...` drops it at once).
    pub fn as_default(&self) -> scope::DefaultGraphGuard {
        scope::DefaultGraphGuard::new(self)
    }

    /// Whether `key` is given for the first time for this graph: TensorFlow's gradients build what they compute from static
    /// shapes once a graph, and later use what they found.
    pub fn first_time(&self, key: impl Into<String>) -> bool {
        self.write(|data| data.remembered.insert(key.into()))
    }

    /// A number that tells graphs of this process apart.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The graph itself, which algorithms that read much of it lock once.
    pub(crate) fn read<R>(&self, f: impl FnOnce(&GraphData) -> R) -> R {
        f(&self.0.data.read().unwrap_or_else(|poison| poison.into_inner()))
    }

    pub(crate) fn write<R>(&self, f: impl FnOnce(&mut GraphData) -> R) -> R {
        f(&mut self.0.data.write().unwrap_or_else(|poison| poison.into_inner()))
    }

    /// The number of operations.
    pub fn num_operations(&self) -> usize {
        self.read(|data| data.nodes.node_count())
    }

    /// All operations, in order of creation.
    pub fn operations(&self) -> Vec<Operation> {
        (0..self.num_operations())
            .map(|index| Operation::new(self, NodeId::new(index)))
            .collect()
    }

    /// The operation at `id`.
    ///
    /// # Errors
    /// `NotFound` if the graph has none there.
    pub fn operation_at(&self, id: NodeId) -> Result<Operation> {
        if id.index() < self.num_operations() {
            return Ok(Operation::new(self, id));
        }
        Err(Error::not_found(format!(
            "the graph has no operation number {}",
            id.index()
        )))
    }

    /// The operation of this name.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn operation(&self, name: &str) -> Result<Operation> {
        let id = self.read(|data| data.by_name.get(name).copied());
        id.map(|id| Operation::new(self, id))
            .ok_or_else(|| Error::not_found(format!("the graph has no operation named '{name}'")))
    }

    /// The tensor of this name, `<operation>:<slot>`; `:0` may be left out.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let (operation, slot) = match name.rsplit_once(':') {
            Some((operation, slot)) => (
                operation,
                slot.parse()
                    .map_err(|_| Error::invalid_argument(format!("'{name}' is not the name of a tensor")))?,
            ),
            None => (name, 0),
        };
        let operation = self.operation(operation)?;
        if slot >= operation.num_outputs() {
            return Err(Error::not_found(format!("the graph has no tensor '{name}'"))
                .got(format!(
                    "'{}' has {} outputs",
                    operation.name(),
                    operation.num_outputs()
                ))
                .at(operation.site()));
        }
        Ok(operation.output(slot))
    }

    /// The handle of a tensor of this graph.
    pub fn tensor_at(&self, id: TensorId) -> Result<Tensor> {
        let operation = self.operation_at(id.node)?;
        if (id.slot as usize) < operation.num_outputs() {
            return Ok(operation.output(id.slot as usize));
        }
        Err(Error::not_found(format!("'{}' has no output {}", operation.name(), id.slot)).at(operation.site()))
    }

    /// Refuses any further change, as before a graph is shared between threads.
    pub fn finalize(&self) {
        self.write(|data| data.finalized = true);
    }

    /// Whether [`Graph::finalize`] was called.
    pub fn is_finalized(&self) -> bool {
        self.read(|data| data.finalized)
    }

    /// Sets the graph's random seed, from which ops made later derive theirs.
    pub fn set_random_seed(&self, seed: i64) {
        self.write(|data| data.seed = Some(seed));
    }

    /// The graph's random seed.
    pub fn random_seed(&self) -> Option<i64> {
        self.read(|data| data.seed)
    }

    /// A name that no operation or scope of the graph has: `name` itself inside the current scope, or with a number behind
    /// it. The name is taken from then on.
    pub fn unique_name(&self, name: &str) -> String {
        let full = scope::in_name_scope(self, name);
        self.write(|data| data.unique_name(full))
    }

    /// Adds a thing to the collection `key`.
    pub fn add_to_collection(&self, key: &str, item: &impl Collectable) {
        let item = item.to_item();
        self.write(|data| {
            if !data.collections.contains_key(key) {
                data.collection_keys.push(key.to_owned());
            }
            data.collections.entry(key.to_owned()).or_default().push(item);
        });
    }

    /// The things of type `T` in the collection `key`, in the order they were added.
    ///
    /// # Errors
    /// `InvalidArgument` if it holds things of another type.
    pub fn get_collection<T: Collectable>(&self, key: &str) -> Result<Vec<T>> {
        let items = self.read(|data| data.collections.get(key).cloned().unwrap_or_default());
        items
            .iter()
            .map(|item| {
                T::from_item(item).ok_or_else(|| {
                    Error::invalid_argument(format!("the collection '{key}' holds things of another type"))
                        .expected(std::any::type_name::<T>().rsplit("::").next().unwrap_or_default())
                        .got(format!("{item:?}"))
                })
            })
            .collect()
    }

    /// The keys of all collections, in order of first use.
    pub fn collection_keys(&self) -> Vec<String> {
        self.read(|data| data.collection_keys.clone())
    }

    /// The value of a tensor, where constants alone decide it and it is small; remembered.
    pub fn constant_value(&self, id: TensorId) -> Option<Value> {
        if let Some(known) = self.read(|data| data.known_constant(id)) {
            return known;
        }
        // Depth first without recursion: a node is evaluated when all its inputs are known.
        let mut stack = vec![id];
        while let Some(&top) = stack.last() {
            let next = self.read(|data| match data.known_constant(top) {
                Some(_) => None,
                None => Some(
                    data.node(top.node)
                        .inputs
                        .iter()
                        .copied()
                        .find(|&input| data.known_constant(input).is_none()),
                ),
            });
            match next {
                None => {
                    stack.pop();
                }
                Some(Some(input)) => stack.push(input),
                Some(None) => {
                    let values = self.evaluate_constant(top.node);
                    self.write(|data| {
                        for slot in 0..data.node(top.node).outputs.len() {
                            let value = values.as_ref().and_then(|values| values.get(slot).cloned());
                            data.constants.insert(TensorId::new(top.node, slot), value);
                        }
                    });
                    stack.pop();
                }
            }
        }
        self.read(|data| data.known_constant(id)).flatten()
    }

    /// Runs one node whose inputs are known constants, or all of whose inputs are not.
    fn evaluate_constant(&self, id: NodeId) -> Option<Vec<Value>> {
        let (node, inputs) = self.read(|data| {
            let node = data.node(id);
            let inputs: Option<Vec<Value>> = node
                .inputs
                .iter()
                .map(|&input| data.known_constant(input).flatten())
                .collect();
            inputs.map(|inputs| (node.clone(), inputs))
        })?;
        crate::session::evaluate::evaluate_node(&node, &inputs).ok()
    }

    /// Makes `tensor` input `index` of `operation`, as `cond` and loops need it.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no such input, or if dtype, shape or graph do not fit.
    pub fn set_input(&self, operation: &Operation, index: usize, tensor: &Tensor) -> Result<()> {
        self.check_mutable()?;
        if operation.graph() != self || tensor.graph() != self {
            return Err(Error::invalid_argument(
                "an input of an operation must come from the operation's own graph",
            ));
        }
        let old = operation.inputs().get(index).cloned().ok_or_else(|| {
            Error::invalid_argument(format!("the operation has no input {index}")).at(operation.site())
        })?;
        if old.dtype() != tensor.dtype() || !old.shape().is_compatible_with(&tensor.shape()) {
            return Err(Error::invalid_argument(format!("input {index} cannot be replaced"))
                .expected(format!("{old:?}"))
                .got(format!("{tensor:?}"))
                .at(operation.site()));
        }
        self.write(|data| data.set_input(operation.id(), index, tensor.id()));
        Ok(())
    }

    /// Lets `controller` run before `operation`.
    ///
    /// # Errors
    /// `InvalidArgument` if they are of different graphs.
    pub fn add_control_input(&self, operation: &Operation, controller: &Operation) -> Result<()> {
        self.check_mutable()?;
        if operation.graph() != self || controller.graph() != self {
            return Err(Error::invalid_argument(
                "a control input must come from the operation's own graph",
            ));
        }
        self.write(|data| data.add_control_input(operation.id(), controller.id()));
        Ok(())
    }

    /// Removes the control inputs of `operation` that `keep` refuses.
    pub fn retain_control_inputs(&self, operation: &Operation, keep: impl Fn(&Operation) -> bool) -> Result<()> {
        self.check_mutable()?;
        let kept: Vec<NodeId> = operation
            .control_inputs()
            .iter()
            .filter(|control| keep(control))
            .map(Operation::id)
            .collect();
        self.write(|data| data.set_control_inputs(operation.id(), &kept));
        Ok(())
    }

    /// Sets an attribute of an operation, as importers and colocation do.
    pub fn set_attr(&self, operation: &Operation, name: &'static str, value: impl Into<AttrValue>) -> Result<()> {
        self.check_mutable()?;
        self.write(|data| data.nodes[operation.id()].attrs.set(name, value));
        Ok(())
    }

    /// Says that an operation belongs to a branch or loop though it was not made inside, as the Switch does that brings a
    /// value in.
    pub fn set_control_flow_context(&self, operation: &Operation, context: Arc<dyn scope::ControlFlowContext>) {
        self.write(|data| data.contexts.insert(operation.id(), context));
    }

    pub(crate) fn check_mutable(&self) -> Result<()> {
        if self.is_finalized() {
            return Err(
                Error::failed_precondition("the graph is finalized and cannot be changed")
                    .hint("build all operations before Graph::finalize, or before a session finalizes it"),
            );
        }
        Ok(())
    }
}

impl GraphData {
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    pub(crate) fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.node_count()).map(NodeId::new)
    }

    pub(crate) fn output_mut(&mut self, id: TensorId) -> &mut OutputInfo {
        &mut self.nodes[id.node].outputs[id.slot as usize]
    }

    pub(crate) fn rewirings(&self) -> u64 {
        self.rewirings
    }

    pub(crate) fn id_of(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    /// Adds a node whose name is free.
    pub(crate) fn add_node(&mut self, node: Node) -> NodeId {
        let name = node.name.clone();
        let id = self.nodes.add_node(node);
        for index in 0..self.nodes[id].inputs.len() {
            let input = self.nodes[id].inputs[index];
            self.nodes.add_edge(input.node, id, Edge::Data(input.slot));
        }
        for index in 0..self.nodes[id].control_inputs.len() {
            let control = self.nodes[id].control_inputs[index];
            self.nodes.add_edge(control, id, Edge::Control);
        }
        self.by_name.insert(name, id);
        id
    }

    /// Adds nodes whose inputs are still to be connected, all or none; the position of the first, and for each whether its
    /// name was free of uses.
    ///
    /// # Errors
    /// `InvalidArgument` if one of the names is taken.
    pub(crate) fn add_unconnected(&mut self, nodes: Vec<Node>) -> Result<(usize, Vec<bool>)> {
        if let Some(taken) = nodes.iter().find(|node| self.by_name.contains_key(&node.name)) {
            return Err(
                Error::invalid_argument(format!("the graph has an operation named '{}' already", taken.name))
                    .at(self.node(self.by_name[&taken.name]).site())
                    .hint("give the nodes that come in a prefix"),
            );
        }
        let first = self.nodes.node_count();
        let mut unused = Vec::with_capacity(nodes.len());
        for node in nodes {
            unused.push(!self.names_in_use.contains_key(&node.name.to_lowercase()));
            self.take_name(&node.name);
            self.add_node(node);
        }
        Ok((first, unused))
    }

    /// Gives a node that has none yet its inputs and control inputs.
    pub(crate) fn connect(
        &mut self,
        id: NodeId,
        inputs: impl Iterator<Item = TensorId>,
        controls: impl Iterator<Item = NodeId>,
    ) {
        for input in inputs {
            self.nodes[id].inputs.push(input);
            self.nodes.add_edge(input.node, id, Edge::Data(input.slot));
        }
        for control in controls {
            self.nodes[id].control_inputs.push(control);
            self.nodes.add_edge(control, id, Edge::Control);
        }
    }

    pub(crate) fn set_outputs(&mut self, id: NodeId, outputs: SmallVec<[OutputInfo; 1]>) {
        self.nodes[id].outputs = outputs;
    }

    /// Takes out again what [`GraphData::add_unconnected`] added and said, as it turned out not to fit.
    pub(crate) fn take_out(&mut self, first: usize, unused: &[bool]) {
        for (index, unused) in unused.iter().enumerate().rev() {
            let last = NodeId::new(first + index);
            if let Some(node) = self.nodes.remove_node(last) {
                self.by_name.remove(&node.name);
                if *unused {
                    self.names_in_use.remove(&node.name.to_lowercase());
                }
                for slot in 0..node.outputs.len() {
                    self.constants.remove(&TensorId::new(last, slot));
                }
            }
        }
    }

    fn set_input(&mut self, id: NodeId, index: usize, tensor: TensorId) {
        let old = std::mem::replace(&mut self.nodes[id].inputs[index], tensor);
        let edge = self
            .nodes
            .edges_directed(id, Direction::Incoming)
            .find(|edge| edge.source() == old.node && *edge.weight() == Edge::Data(old.slot))
            .map(|edge| edge.id());
        if let Some(edge) = edge {
            self.nodes.remove_edge(edge);
        }
        self.nodes.add_edge(tensor.node, id, Edge::Data(tensor.slot));
        self.rewirings += 1;
    }

    fn add_control_input(&mut self, id: NodeId, controller: NodeId) {
        if !self.nodes[id].control_inputs.contains(&controller) {
            self.nodes[id].control_inputs.push(controller);
            self.nodes.add_edge(controller, id, Edge::Control);
            self.rewirings += 1;
        }
    }

    fn set_control_inputs(&mut self, id: NodeId, controllers: &[NodeId]) {
        let removed: Vec<_> = self
            .nodes
            .edges_directed(id, Direction::Incoming)
            .filter(|edge| *edge.weight() == Edge::Control && !controllers.contains(&edge.source()))
            .map(|edge| edge.id())
            .collect();
        if removed.is_empty() {
            return;
        }
        // Removing an edge moves the last one into its place: from the highest index down none is missed.
        let mut removed = removed;
        removed.sort_unstable_by(|a, b| b.cmp(a));
        for edge in removed {
            self.nodes.remove_edge(edge);
        }
        self.nodes[id]
            .control_inputs
            .retain(|control| controllers.contains(control));
        self.rewirings += 1;
    }

    /// The nodes that take a tensor as an input, in order of creation, each once.
    pub(crate) fn consumers(&self, id: TensorId) -> Vec<NodeId> {
        let mut consumers: Vec<NodeId> = self
            .nodes
            .edges_directed(id.node, Direction::Outgoing)
            .filter(|edge| *edge.weight() == Edge::Data(id.slot))
            .map(|edge| edge.target())
            .collect();
        consumers.sort_unstable();
        consumers.dedup();
        consumers
    }

    /// The nodes that an edge leads to from `id`, control edges included; a node may come up more than once.
    pub(crate) fn successors(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.neighbors_directed(id, Direction::Outgoing)
    }

    /// See [`Graph::unique_name`]; `name` is a full one.
    pub(crate) fn unique_name(&mut self, name: String) -> String {
        let mut key = name.to_lowercase();
        let Some(&uses) = self.names_in_use.get(&key) else {
            self.names_in_use.insert(key, 1);
            return name;
        };
        let stem = key.len();
        let mut number = uses;
        loop {
            // Writing into a string cannot fail.
            let _ = write!(key, "_{number}");
            number += 1;
            if !self.names_in_use.contains_key(&key) {
                break;
            }
            key.truncate(stem);
        }
        // The next search starts where this one ended, which keeps a series of a million names linear.
        if let Some(uses) = self.names_in_use.get_mut(&key[..stem]) {
            *uses = number;
        }
        let mut numbered = name;
        numbered.push_str(&key[stem..]);
        self.names_in_use.insert(key, 1);
        numbered
    }

    /// Takes a name as it is, with the scopes that lead to it.
    pub(crate) fn take_name(&mut self, name: &str) {
        self.names_in_use.entry(name.to_lowercase()).or_insert(1);
    }

    /// What is known already of the value of `id`: `Some(None)` if it is not a constant.
    fn known_constant(&self, id: TensorId) -> Option<Option<Value>> {
        let node = self.node(id.node);
        if node.op() == vocabulary::CONST {
            return Some(match node.attrs.get("value") {
                Some(AttrValue::Tensor(value)) => Some(value.clone()),
                _ => None,
            });
        }
        if let Some(known) = self.constants.get(&id) {
            return Some(known.clone());
        }
        let foldable = !node.definition.stateful
            && node.definition.control_flow == ControlFlow::None
            && node.op() != vocabulary::PLACEHOLDER
            && !node.inputs.is_empty()
            && node
                .outputs
                .iter()
                .all(|output| !output.is_ref && output.shape.num_elements().is_none_or(|count| count <= MAX_CONSTANT));
        if !foldable {
            return Some(None);
        }
        // One input that is known not to be constant decides.
        let decided = node.inputs.iter().any(|input| {
            let source = self.node(input.node);
            source.op() != vocabulary::CONST
                && (source.definition.stateful
                    || source.inputs.is_empty()
                    || matches!(self.constants.get(input), Some(None)))
        });
        decided.then_some(None)
    }
}

/// The most elements of a constant that is worked out while the graph is built.
const MAX_CONSTANT: usize = 10_000;

/// Where the caller's caller is: the user's source line for builders that are `#[track_caller]`.
pub type SourceLocation = &'static Location<'static>;
