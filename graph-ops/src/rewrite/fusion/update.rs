//! Optimizers' updates that compute the last of their gradient themselves.

use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::Attributes;
use graph_core::rewrite::Program;

use super::parts::copied;
use super::{Fused, Fusion, Uses, elementwise};
use crate::state::apply;

/// An update (`ApplyAdam`, ...) whose gradient is a chain of element-wise operations, as the sum with the regularizers'
/// gradients is, takes the chain's operands in place of the gradient, which then never is in memory; so does one whose gradient
/// is but a `Cast` from a half type.
pub(crate) const UPDATES: Fusion = Fusion {
    name: "update_fusion",
    host_only: false,
    find: |program, uses| program.ids().filter_map(|id| update(program, uses, id)).collect(),
};

fn update(program: &Program, uses: &Uses, id: NodeId) -> Option<Fused> {
    let node = program.node(id);
    let (definition, gradient) = apply::fused(node.op())?;
    let source = node.inputs[gradient];
    let result = elementwise::dtype_of(program, source);
    if uses.only(source) != Some(id) || uses.stays(source.node) || elementwise::is_half(result) {
        return None;
    }
    let chain = chain_of(program, source.node)?;
    let mut attrs = node.attrs.clone();
    for name in CHAIN {
        attrs.set(name, chain.get(name)?.clone());
    }
    let others = node.inputs.iter().enumerate().filter(|(index, _)| *index != gradient);
    let node = Node {
        definition,
        attrs,
        inputs: others
            .map(|(_, input)| *input)
            .chain(program.node(source.node).inputs.iter().copied())
            .collect(),
        ..node.clone()
    };
    Some(Fused {
        outputs: outputs(id, &node),
        node,
        first: id,
    })
}

/// The attributes that say what a chain is.
const CHAIN: [&str; 3] = ["operand_types", "instructions", "shape"];

/// Those of a node that is a chain, or that is a `Cast` from a half type.
fn chain_of(program: &Program, id: NodeId) -> Option<Attributes> {
    let node = program.node(id);
    if node.op() == elementwise::OP {
        return Some(copied(&node.attrs, &CHAIN));
    }
    let part = elementwise::part(program, id).filter(|_| node.op() == "Cast")?;
    let source = elementwise::dtype_of(program, node.inputs[0]);
    if !elementwise::is_half(source) {
        return None;
    }
    let mut attrs = Attributes::new();
    attrs.set("operand_types", vec![source]);
    attrs.set(
        "instructions",
        elementwise::numbers_of(part.function, [0; 3], part.dtype).to_vec(),
    );
    attrs.set("shape", node.outputs[0].shape.clone());
    Some(attrs)
}

fn outputs(id: NodeId, node: &Node) -> Vec<TensorId> {
    (0..node.outputs.len()).map(|slot| TensorId::new(id, slot)).collect()
}
