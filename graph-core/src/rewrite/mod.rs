//! Rewrites: from the part of a graph that a run needs to one that computes the same with less work.
//!
//! A rewrite never edits: it reads a [`Program`] and writes a new one, which is verified. Those here know nothing of what
//! ops compute beyond what their definitions say; rewrites that name ops live in `graph-ops`.

pub mod dedup;
pub mod fold;
mod guards;
pub mod prune;

use rustc_hash::FxHashMap;

use crate::error::{Error, Result};
use crate::graph::{Graph, Node, NodeId, TensorId};
pub use guards::guarded_nodes;

/// The part of a graph that a run needs, as a list of nodes of its own.
///
/// Node ids inside are positions in `nodes`, in an order in which creation order of the graph is kept.
#[derive(Clone, Default)]
pub struct Program {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// For each node, the node of the user's graph under which the session keeps its state, and whose name errors tell.
    pub origins: Vec<NodeId>,
    /// The tensors that are fed: the outputs of `_Feed` nodes, in the order of the feeds.
    pub feeds: Vec<TensorId>,
    /// The tensors that are fetched.
    pub fetches: Vec<TensorId>,
    /// The nodes that are run for their effects.
    pub targets: Vec<NodeId>,
}

/// One kind of rewrite.
pub trait Rewrite: Send + Sync {
    /// Its name, as options and reports say it.
    fn name(&self) -> &'static str;

    /// Whether it only makes sense where the shapes of the feeds are known, as fusions do. It then runs when a shaped plan is
    /// made, and not before.
    fn needs_shapes(&self) -> bool {
        false
    }

    /// Whether it runs unless options leave it out. Without, it runs where options or the graph ask for it by its name.
    fn by_default(&self) -> bool {
        true
    }

    /// Whether it runs when the structure of a run is made and never again when shapes are known, as what decides by all of
    /// the structure does.
    fn runs_once(&self) -> bool {
        false
    }

    /// Whether it runs in a session that has accelerators, or in one that has none: what it makes may have no kernels there, or
    /// gain nothing.
    fn suits(&self, accelerators: bool) -> bool {
        let _ = accelerators;
        true
    }

    /// The rewritten program, or `None` where there is nothing to do.
    ///
    /// # Errors
    /// Only where the program is broken: a rewrite that cannot do its work leaves it.
    fn apply(&self, program: &Program) -> Result<Option<Program>>;
}

impl Graph {
    /// Sets whether sessions that are made for this graph from now on apply the rewrite `name`, which is none of those that
    /// run by default. Their options may still leave it out.
    pub fn set_rewrite(&self, name: &'static str, applies: bool) {
        self.write(|data| match applies {
            true => data.rewrites.insert(name),
            false => data.rewrites.remove(name),
        });
    }

    /// The rewrites that [`Graph::set_rewrite`] asks for.
    pub fn rewrites(&self) -> Vec<&'static str> {
        self.read(|data| data.rewrites.iter().copied().collect())
    }
}

impl Program {
    /// The node at `id`.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Adds a node; its id.
    pub fn push(&mut self, node: Node, origin: NodeId) -> NodeId {
        self.nodes.push(node);
        self.origins.push(origin);
        NodeId::new(self.nodes.len() - 1)
    }

    /// The ids of all nodes.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId::new)
    }

    /// Replaces tensors and nodes wherever they are used: as inputs, control inputs, fetches and targets.
    pub fn substitute(&mut self, tensors: &FxHashMap<TensorId, TensorId>, nodes: &FxHashMap<NodeId, NodeId>) {
        let tensor = |id: &mut TensorId| {
            if let Some(new) = tensors.get(id) {
                *id = *new;
            }
        };
        for node in &mut self.nodes {
            node.inputs.iter_mut().for_each(tensor);
            for control in &mut node.control_inputs {
                if let Some(new) = nodes.get(control) {
                    *control = *new;
                }
            }
            let mut seen = Vec::new();
            node.control_inputs.retain(|control| {
                let new = !seen.contains(control);
                seen.push(*control);
                new
            });
        }
        self.fetches.iter_mut().for_each(tensor);
        for target in &mut self.targets {
            if let Some(new) = nodes.get(target) {
                *target = *new;
            }
        }
    }
}

/// The nodes in an order in which each comes after what it waits for; `None` if there is a cycle.
pub fn topological_order(program: &Program) -> Option<Vec<NodeId>> {
    let mut waits = vec![0u32; program.nodes.len()];
    let mut successors: Vec<Vec<NodeId>> = vec![Vec::new(); program.nodes.len()];
    for id in program.ids() {
        let node = program.node(id);
        for before in node
            .inputs
            .iter()
            .map(|input| input.node)
            .chain(node.control_inputs.iter().copied())
        {
            successors[before.index()].push(id);
            waits[id.index()] += 1;
        }
    }
    let mut order: Vec<NodeId> = program.ids().filter(|id| waits[id.index()] == 0).collect();
    let mut next = 0;
    while next < order.len() {
        for &successor in &successors[order[next].index()] {
            waits[successor.index()] -= 1;
            if waits[successor.index()] == 0 {
                order.push(successor);
            }
        }
        next += 1;
    }
    (order.len() == program.nodes.len()).then_some(order)
}

/// Checks that a program holds together: every input is there and has the dtype that its consumer was made for.
///
/// # Errors
/// `Internal`: a rewrite that breaks a program is a bug.
pub fn verify(program: &Program) -> Result<()> {
    let exists = |id: &TensorId| {
        program
            .nodes
            .get(id.node.index())
            .is_some_and(|node| (id.slot as usize) < node.outputs.len())
    };
    for node in &program.nodes {
        for input in &node.inputs {
            if !exists(input) {
                return Err(Error::internal(format!("the input {input:?} does not exist")).at(node.site()));
            }
        }
        if let Some(control) = node
            .control_inputs
            .iter()
            .find(|control| control.index() >= program.nodes.len())
        {
            return Err(Error::internal(format!("the control input {control:?} does not exist")).at(node.site()));
        }
    }
    if !program.feeds.iter().chain(&program.fetches).all(exists) {
        return Err(Error::internal("a feed or fetch does not exist"));
    }
    if program
        .targets
        .iter()
        .any(|target| target.index() >= program.nodes.len())
    {
        return Err(Error::internal("a target does not exist"));
    }
    if topological_order(program).is_none() {
        return Err(Error::internal("the program has a cycle"));
    }
    Ok(())
}
