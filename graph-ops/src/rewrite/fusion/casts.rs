//! Several variables cast at once.

use graph_core::DType;
use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::Attributes;
use graph_core::rewrite::Program;

use super::elementwise::{dtype_of, is_half};
use super::parts::{SMALL_VARIABLE, variable_behind};
use super::{Fused, Fusion, Serves, Uses, groups};
use crate::math::casts;

/// Casts of small variables to the same type of 16 bits are one operation, which takes one kernel for all of them.
pub(crate) const CAST_GROUPS: Fusion = Fusion {
    name: "cast_grouping",
    serves: Serves::Accelerators,
    find,
};

fn find(program: &Program, uses: &Uses) -> Vec<Fused> {
    let casts = program.ids().filter(|&id| joins_others(program, uses, id));
    let alike = |&one: &NodeId, &other: &NodeId| {
        let (one, other) = (program.node(one), program.node(other));
        one.device == other.device && one.outputs[0].dtype == other.outputs[0].dtype
    };
    let groups = groups(program, casts, alike, |&id| id);
    groups.iter().map(|group| together(program, group)).collect()
}

/// Whether the node casts a small variable, which is there at any time.
fn joins_others(program: &Program, uses: &Uses, id: NodeId) -> bool {
    let node = program.node(id);
    node.op() == "Cast"
        && uses.is_needed(id)
        && !uses.ordered(id)
        && is_half(node.outputs[0].dtype)
        && dtype_of(program, node.inputs[0]) == DType::Float32
        && !program.node(node.inputs[0].node).outputs[node.inputs[0].slot as usize].is_ref
        && !node.attrs.read("Truncate").unwrap_or(false)
        && node.outputs[0]
            .shape
            .num_elements()
            .is_some_and(|count| SMALL_VARIABLE.contains(&count))
        && variable_behind(program, node.inputs[0]).is_some()
}

fn together(program: &Program, group: &[NodeId]) -> Fused {
    let nodes = || group.iter().map(|&id| program.node(id));
    let first = program.node(group[0]);
    let mut attrs = Attributes::new();
    attrs.set("N", group.len() as i64);
    attrs.set("T", first.outputs[0].dtype);
    attrs.set(
        "shapes",
        nodes().map(|node| node.outputs[0].shape.clone()).collect::<Vec<_>>(),
    );
    Fused {
        node: Node {
            definition: casts::definition(),
            attrs,
            inputs: nodes().map(|node| node.inputs[0]).collect(),
            control_inputs: Default::default(),
            outputs: nodes().map(|node| node.outputs[0].clone()).collect(),
            ..first.clone()
        },
        first: group[0],
        others: group[1..].to_vec(),
        outputs: group.iter().map(|&id| TensorId::new(id, 0)).collect(),
    }
}
