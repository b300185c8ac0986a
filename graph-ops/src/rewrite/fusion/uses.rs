//! Who uses what in a program.

use graph_core::graph::{NodeId, TensorId};
use graph_core::op::ControlFlow;
use graph_core::rewrite::Program;
use rustc_hash::{FxHashMap, FxHashSet};

/// For each tensor, the nodes that take it, once for each input; which tensors are fetched; and which nodes must stay as they
/// are. Nodes that nothing needs, as those are that an earlier fusion has replaced, do not count.
pub(super) struct Uses {
    /// The nodes, each after those that it depends on.
    pub(super) order: Vec<NodeId>,
    of_tensor: FxHashMap<TensorId, Vec<NodeId>>,
    fetched: FxHashSet<TensorId>,
    /// Tensors that a node takes which asks for another device than the one that makes them.
    across: FxHashSet<TensorId>,
    needed: Vec<bool>,
    /// Nodes of which a Switch or a loop decides whether they run.
    guarded: Vec<bool>,
    /// Those that stay for more than what they wait for themselves.
    held: Vec<bool>,
    /// Those that stay for more than that others wait for them.
    ordered: Vec<bool>,
}

impl Uses {
    pub(super) fn new(program: &Program, order: Vec<NodeId>) -> Self {
        let mut of_tensor: FxHashMap<TensorId, Vec<NodeId>> = FxHashMap::default();
        let guarded = graph_core::rewrite::guarded_nodes(program, &order);
        let mut held = guarded.clone();
        let needed = needed(program);
        let mut across = FxHashSet::default();
        for id in program.ids().filter(|id| needed[id.index()]) {
            let node = program.node(id);
            for &input in &node.inputs {
                of_tensor.entry(input).or_default().push(id);
                if node.device != program.node(input.node).device {
                    across.insert(input);
                }
            }
            held[id.index()] |= node.definition.control_flow != ControlFlow::None;
        }
        for target in &program.targets {
            held[target.index()] = true;
        }
        let mut ordered = held.clone();
        for id in program.ids().filter(|id| needed[id.index()]) {
            let controls = &program.node(id).control_inputs;
            ordered[id.index()] |= !controls.is_empty();
            for control in controls {
                held[control.index()] = true;
            }
        }
        let fetched = program.fetches.iter().copied().collect();
        Self {
            order,
            of_tensor,
            fetched,
            across,
            needed,
            guarded,
            held,
            ordered,
        }
    }

    /// Whether control edges, a Switch or the run's targets name this node, so that it must stay.
    pub(super) fn stays(&self, id: NodeId) -> bool {
        self.held[id.index()] || self.ordered[id.index()]
    }

    /// Whether the node must stay even where what it becomes part of may wait for what it waits for.
    pub(super) fn is_held(&self, id: NodeId) -> bool {
        self.held[id.index()]
    }

    /// Whether a Switch or a loop decides if the node runs.
    pub(super) fn is_guarded(&self, id: NodeId) -> bool {
        self.guarded[id.index()]
    }

    /// Whether a fetch or a target depends on the node: what an earlier fusion has replaced is needed no more.
    pub(super) fn is_needed(&self, id: NodeId) -> bool {
        self.needed[id.index()]
    }

    /// Whether the node must stay even where control edges onto it may lead to what it becomes part of.
    pub(super) fn ordered(&self, id: NodeId) -> bool {
        self.ordered[id.index()]
    }

    /// The nodes that take the tensor, once for each input.
    pub(super) fn of(&self, tensor: TensorId) -> &[NodeId] {
        self.of_tensor.get(&tensor).map_or(&[], Vec::as_slice)
    }

    /// Whether the run fetches the tensor.
    pub(super) fn fetched(&self, tensor: TensorId) -> bool {
        self.fetched.contains(&tensor)
    }

    /// Whether all that take the tensor ask for the device of what makes it: only then can they be fused with it.
    pub(super) fn on_one_device(&self, tensor: TensorId) -> bool {
        !self.across.contains(&tensor)
    }

    /// The only node that takes the tensor, if the run does not fetch it, and nothing else speaks against fusing the two.
    pub(super) fn only(&self, tensor: TensorId) -> Option<NodeId> {
        match self.of(tensor) {
            [one] if !self.fetched(tensor) && self.on_one_device(tensor) => Some(*one),
            _ => None,
        }
    }
}

/// For each node, whether a fetch or a target depends on it.
fn needed(program: &Program) -> Vec<bool> {
    let mut needed = vec![false; program.nodes.len()];
    let mut stack = program.targets.clone();
    stack.extend(program.fetches.iter().map(|fetch| fetch.node));
    while let Some(id) = stack.pop() {
        if !std::mem::replace(&mut needed[id.index()], true) {
            let node = program.node(id);
            stack.extend(node.inputs.iter().map(|input| input.node));
            stack.extend(&node.control_inputs);
        }
    }
    needed
}
