//! Whether all of some tensors is finite.

use graph_core::DType;
use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::Attributes;
use graph_core::rewrite::Program;

use super::elementwise::dtype_of;
use super::{Fused, Fusion, Serves, Uses};
use crate::cuda::FLOATS;
use crate::math::all_finite;

/// `All(IsFinite(x))`, and `All` of several such packed together, look through the tensors themselves: the truth values of single
/// elements are never in memory.
pub(crate) const ALL_FINITE: Fusion = Fusion {
    name: "finite_fusion",
    serves: Serves::All,
    find,
};

fn find(program: &Program, uses: &Uses) -> Vec<Fused> {
    let mut found: Vec<Fused> = Vec::new();
    let mut inside: Vec<NodeId> = Vec::new();
    // Those that others take come after these.
    for &id in uses.order.iter().rev().filter(|id| program.node(**id).op() == "All") {
        if inside.contains(&id) || !uses.is_needed(id) || uses.ordered(id) {
            continue;
        }
        let (mut tensors, before) = (Vec::new(), inside.len());
        if looks_through(program, uses, id, &mut tensors, &mut inside) {
            found.push(fused(program, id, tensors));
        } else {
            inside.truncate(before);
        }
    }
    found
}

/// Adds the tensors through all of which the operation `All` looks for what is not finite, and those `All` inside of it; whether it
/// is such a one.
fn looks_through(
    program: &Program,
    uses: &Uses,
    all: NodeId,
    tensors: &mut Vec<TensorId>,
    inside: &mut Vec<NodeId>,
) -> bool {
    let node = program.node(all);
    let looked_at = node.inputs[0];
    let taken = |tensor: TensorId, by: NodeId| uses.only(tensor) == Some(by) && !uses.stays(tensor.node);
    if node.outputs[0].shape.rank() != Some(0) || !taken(looked_at, all) {
        return false;
    }
    let source = program.node(looked_at.node);
    match source.op() {
        "IsFinite" => {
            let x = source.inputs[0];
            let is_ref = program.node(x.node).outputs[x.slot as usize].is_ref;
            tensors.push(x);
            FLOATS.contains(&dtype_of(program, x)) && !is_ref
        }
        "Pack" => source.inputs.iter().all(|&part| {
            inside.push(part.node);
            program.node(part.node).op() == "All"
                && taken(part, looked_at.node)
                && looks_through(program, uses, part.node, tensors, inside)
        }),
        _ => false,
    }
}

fn fused(program: &Program, all: NodeId, tensors: Vec<TensorId>) -> Fused {
    let mut attrs = Attributes::new();
    let types: Vec<DType> = tensors.iter().map(|&tensor| dtype_of(program, tensor)).collect();
    attrs.set("types", types);
    Fused {
        node: Node {
            definition: all_finite::definition(),
            attrs,
            inputs: tensors.into_iter().collect(),
            control_inputs: Default::default(),
            ..program.node(all).clone()
        },
        first: all,
        others: Vec::new(),
        outputs: vec![TensorId::new(all, 0)],
    }
}
