//! Optimizers' updates that compute the last of their gradient themselves.

use graph_core::Result;
use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::rewrite::{Program, Rewrite, topological_order};
use rustc_hash::FxHashMap;

use super::{Uses, elementwise};
use crate::state::apply;

/// An update (`ApplyAdam`, ...) whose gradient is a chain of element-wise operations, as the sum with the regularizers'
/// gradients is, takes the chain's operands in place of the gradient, which then never is in memory.
pub(crate) struct UpdateFusion;

impl Rewrite for UpdateFusion {
    fn name(&self) -> &'static str {
        "update_fusion"
    }

    fn needs_shapes(&self) -> bool {
        true
    }

    fn apply(&self, program: &Program) -> Result<Option<Program>> {
        let Some(order) = topological_order(program) else {
            return Ok(None);
        };
        let uses = Uses::new(program, &order);
        let mut result = program.clone();
        let (mut tensors, mut nodes) = (FxHashMap::default(), FxHashMap::default());
        for id in program.ids() {
            let Some(node) = fused(program, &uses, id) else {
                continue;
            };
            let outputs = node.outputs.len();
            let new = result.push(node, program.origins[id.index()]);
            nodes.insert(id, new);
            tensors.extend((0..outputs).map(|slot| (TensorId::new(id, slot), TensorId::new(new, slot))));
        }
        if nodes.is_empty() {
            return Ok(None);
        }
        result.substitute(&tensors, &nodes);
        Ok(Some(result))
    }
}

fn fused(program: &Program, uses: &Uses, id: NodeId) -> Option<Node> {
    let node = program.node(id);
    let (definition, gradient) = apply::fused(node.op())?;
    let source = node.inputs[gradient];
    let chain = program.node(source.node);
    if chain.op() != elementwise::OP || uses.only(program, source) != Some(id) || uses.stays(source.node) {
        return None;
    }
    let mut attrs = node.attrs.clone();
    for name in ["N", "instructions", "shape"] {
        attrs.set(name, chain.attrs.get(name)?.clone());
    }
    let others = node.inputs.iter().enumerate().filter(|(index, _)| *index != gradient);
    Some(Node {
        definition,
        attrs,
        inputs: others
            .map(|(_, input)| *input)
            .chain(chain.inputs.iter().copied())
            .collect(),
        ..node.clone()
    })
}
