//! Who uses what in a program.

use graph_core::graph::{NodeId, TensorId};
use graph_core::op::ControlFlow;
use graph_core::rewrite::Program;
use rustc_hash::FxHashMap;

/// For each tensor, the nodes that take it, once for each input; and which nodes must stay as they are.
pub(super) struct Uses {
    of_tensor: FxHashMap<TensorId, Vec<NodeId>>,
    stays: Vec<bool>,
}

impl Uses {
    pub(super) fn new(program: &Program, order: &[NodeId]) -> Self {
        let mut of_tensor: FxHashMap<TensorId, Vec<NodeId>> = FxHashMap::default();
        let mut stays = graph_core::rewrite::guarded_nodes(program, order);
        for id in program.ids() {
            let node = program.node(id);
            for &input in &node.inputs {
                of_tensor.entry(input).or_default().push(id);
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
        Self { of_tensor, stays }
    }

    /// Whether control edges, a Switch or the run's targets name this node, so that it must stay.
    pub(super) fn stays(&self, id: NodeId) -> bool {
        self.stays[id.index()]
    }

    /// The nodes that take the tensor, once for each input.
    pub(super) fn of(&self, tensor: TensorId) -> &[NodeId] {
        self.of_tensor.get(&tensor).map_or(&[], Vec::as_slice)
    }

    /// The only node that takes the tensor, if the run does not fetch it.
    pub(super) fn only(&self, program: &Program, tensor: TensorId) -> Option<NodeId> {
        match self.of(tensor) {
            [one] if !program.fetches.contains(&tensor) => Some(*one),
            _ => None,
        }
    }
}
