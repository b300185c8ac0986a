//! Optimizers' updates that compute the last of their gradient themselves.

use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::rewrite::Program;

use super::{Fused, Fusion, Uses, elementwise};
use crate::state::apply;

/// An update (`ApplyAdam`, ...) whose gradient is a chain of element-wise operations, as the sum with the regularizers'
/// gradients is, takes the chain's operands in place of the gradient, which then never is in memory.
pub(crate) const UPDATES: Fusion = Fusion {
    name: "update_fusion",
    host_only: false,
    find: |program, uses| program.ids().filter_map(|id| update(program, uses, id)).collect(),
};

fn update(program: &Program, uses: &Uses, id: NodeId) -> Option<Fused> {
    let node = program.node(id);
    let (definition, gradient) = apply::fused(node.op())?;
    let source = node.inputs[gradient];
    let chain = program.node(source.node);
    if chain.op() != elementwise::OP || uses.only(source) != Some(id) || uses.stays(source.node) {
        return None;
    }
    let mut attrs = node.attrs.clone();
    for name in ["N", "instructions", "shape"] {
        attrs.set(name, chain.attrs.get(name)?.clone());
    }
    let others = node.inputs.iter().enumerate().filter(|(index, _)| *index != gradient);
    let node = Node {
        definition,
        attrs,
        inputs: others
            .map(|(_, input)| *input)
            .chain(chain.inputs.iter().copied())
            .collect(),
        ..node.clone()
    };
    Some(Fused {
        outputs: outputs(id, &node),
        node,
        first: id,
    })
}

fn outputs(id: NodeId, node: &Node) -> Vec<TensorId> {
    (0..node.outputs.len()).map(|slot| TensorId::new(id, slot)).collect()
}
