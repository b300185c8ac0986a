//! Common subexpressions: nodes that compute the same are computed once.

use std::hash::{DefaultHasher, Hash, Hasher};

use rustc_hash::FxHashMap;

use crate::error::Result;
use crate::graph::{Node, NodeId, TensorId};
use crate::op::{AttrValue, ControlFlow};
use crate::rewrite::{Program, Rewrite};

/// Replaces a node by an earlier one of the same op, attributes, inputs and control inputs.
pub struct CommonSubexpressions;

impl Rewrite for CommonSubexpressions {
    fn name(&self) -> &'static str {
        "common_subexpressions"
    }

    fn apply(&self, program: &Program) -> Result<Option<Program>> {
        let Some(order) = super::topological_order(program) else {
            return Ok(None);
        };
        let mut result = program.clone();
        let mut seen: FxHashMap<u64, Vec<NodeId>> = FxHashMap::default();
        let mut tensors: FxHashMap<TensorId, TensorId> = FxHashMap::default();
        let mut nodes: FxHashMap<NodeId, NodeId> = FxHashMap::default();
        for &id in &order {
            let node = &mut result.nodes[id.index()];
            for input in &mut node.inputs {
                *input = tensors.get(input).copied().unwrap_or(*input);
            }
            for control in &mut node.control_inputs {
                *control = nodes.get(control).copied().unwrap_or(*control);
            }
            let node = &result.nodes[id.index()];
            if !mergeable(&result, node) {
                continue;
            }
            let like = seen.entry(fingerprint(node)).or_default();
            match like
                .iter()
                .copied()
                .find(|other| same(&result.nodes[other.index()], node))
            {
                Some(other) => {
                    nodes.insert(id, other);
                    for slot in 0..node.outputs.len() {
                        tensors.insert(TensorId::new(id, slot), TensorId::new(other, slot));
                    }
                }
                None => like.push(id),
            }
        }
        if nodes.is_empty() {
            return Ok(None);
        }
        result.substitute(&tensors, &nodes);
        Ok(Some(result))
    }
}

fn mergeable(program: &Program, node: &Node) -> bool {
    let definition = node.definition;
    !definition.stateful
        && definition.control_flow == ControlFlow::None
        && !node.outputs.is_empty()
        && definition.name != crate::op::vocabulary::FEED
        && !node
            .inputs
            .iter()
            .any(|input| program.node(input.node).outputs[input.slot as usize].is_ref)
}

fn compared(node: &Node) -> impl Iterator<Item = (&str, &AttrValue)> {
    node.attrs.iter().filter(|(name, _)| !name.starts_with('_'))
}

fn fingerprint(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    (node.op(), node.inputs.as_slice(), &node.device).hash(&mut hasher);
    for (name, value) in compared(node) {
        name.hash(&mut hasher);
        match value {
            AttrValue::Tensor(value) => (value.dtype(), value.shape(), value.bytes()).hash(&mut hasher),
            AttrValue::Int(int) => int.hash(&mut hasher),
            AttrValue::Type(dtype) => dtype.hash(&mut hasher),
            AttrValue::IntList(list) => list.hash(&mut hasher),
            _ => {}
        }
    }
    hasher.finish()
}

fn same(a: &Node, b: &Node) -> bool {
    let controls = |node: &Node| {
        let mut controls = node.control_inputs.to_vec();
        controls.sort_unstable();
        controls
    };
    a.op() == b.op()
        && a.inputs == b.inputs
        && a.device == b.device
        && a.outputs
            .iter()
            .map(|output| output.dtype)
            .eq(b.outputs.iter().map(|output| output.dtype))
        && compared(a).eq(compared(b))
        && controls(a) == controls(b)
}
