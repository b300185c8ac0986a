//! Who uses what in a program.

use graph_core::graph::{NodeId, TensorId};
use graph_core::op::ControlFlow;
use graph_core::rewrite::Program;
use rustc_hash::{FxHashMap, FxHashSet};

/// For each tensor, the nodes that take it, once for each input; which tensors are fetched; and which nodes must stay as they
/// are.
pub(super) struct Uses {
    /// The nodes, each after those that it depends on.
    pub(super) order: Vec<NodeId>,
    of_tensor: FxHashMap<TensorId, Vec<NodeId>>,
    fetched: FxHashSet<TensorId>,
    /// Tensors that a node takes which asks for another device than the one that makes them.
    across: FxHashSet<TensorId>,
    stays: Vec<bool>,
}

impl Uses {
    pub(super) fn new(program: &Program, order: Vec<NodeId>) -> Self {
        let mut of_tensor: FxHashMap<TensorId, Vec<NodeId>> = FxHashMap::default();
        let mut stays = graph_core::rewrite::guarded_nodes(program, &order);
        let mut across = FxHashSet::default();
        for id in program.ids() {
            let node = program.node(id);
            for &input in &node.inputs {
                of_tensor.entry(input).or_default().push(id);
                if node.device != program.node(input.node).device {
                    across.insert(input);
                }
            }
            for control in &node.control_inputs {
                stays[control.index()] = true;
            }
            let ordered = !node.control_inputs.is_empty() || node.definition.control_flow != ControlFlow::None;
            stays[id.index()] |= ordered;
        }
        for target in &program.targets {
            stays[target.index()] = true;
        }
        let fetched = program.fetches.iter().copied().collect();
        Self {
            order,
            of_tensor,
            fetched,
            across,
            stays,
        }
    }

    /// Whether control edges, a Switch or the run's targets name this node, so that it must stay.
    pub(super) fn stays(&self, id: NodeId) -> bool {
        self.stays[id.index()]
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
