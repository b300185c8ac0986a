//! What the fusions of layers ask of nodes, and how they make theirs.

use std::ops::RangeInclusive;

use graph_core::DType;
use graph_core::graph::{Node, NodeId, OutputInfo, TensorId};
use graph_core::op::{Attributes, OpDefinition};
use graph_core::rewrite::Program;

use super::{Fused, Uses};
use crate::cuda::FLOATS;

/// What `fuse` finds around each node of type `op`.
pub(super) fn each(program: &Program, op: &str, fuse: impl Fn(NodeId) -> Option<Fused>) -> Vec<Fused> {
    let candidates = program.ids().filter(|&id| program.node(id).op() == op);
    candidates.filter_map(fuse).collect()
}

/// The operation of a definition whose attributes say the dtype and the shapes of its outputs.
pub(super) fn fused(
    program: &Program,
    definition: &'static OpDefinition,
    mut attrs: Attributes,
    inputs: Vec<TensorId>,
    outputs: Vec<TensorId>,
) -> Fused {
    let first = outputs[0].node;
    let infos: Vec<OutputInfo> = outputs
        .iter()
        .map(|tensor| program.node(tensor.node).outputs[tensor.slot as usize].clone())
        .collect();
    attrs.set("T", infos[0].dtype);
    attrs.set(
        "shapes",
        infos.iter().map(|info| info.shape.clone()).collect::<Vec<_>>(),
    );
    let node = Node {
        definition,
        attrs,
        inputs: inputs.into_iter().collect(),
        control_inputs: Default::default(),
        outputs: infos.into_iter().collect(),
        ..program.node(first).clone()
    };
    Fused {
        node,
        first,
        others: Vec::new(),
        outputs,
    }
}

/// Whether the node may be fused: nothing but its data orders it, its numbers are of a floating-point dtype and of known shape,
/// and its images' channels come last.
pub(super) fn fits(program: &Program, uses: &Uses, id: NodeId) -> bool {
    let node = program.node(id);
    let output = &node.outputs[0];
    let references = node
        .inputs
        .iter()
        .any(|input| program.node(input.node).outputs[input.slot as usize].is_ref);
    !uses.stays(id)
        && !references
        && FLOATS.contains(&output.dtype)
        && output.shape.is_fully_defined()
        && node
            .attrs
            .read::<String>("data_format")
            .map_or(true, |format| format == "NHWC")
}

/// The node of type `op` that makes `tensor`, if it may be fused with the only node that takes the tensor.
pub(super) fn made_by(program: &Program, uses: &Uses, tensor: TensorId, op: &str) -> Option<NodeId> {
    let fits = program.node(tensor.node).op() == op && fits(program, uses, tensor.node);
    (fits && uses.only(tensor).is_some()).then_some(tensor.node)
}

/// A node of type `op` that takes `tensor` as its input 0 and may be fused.
pub(super) fn taken_by(program: &Program, uses: &Uses, tensor: TensorId, op: &str) -> Option<NodeId> {
    let takes =
        |id: &NodeId| program.node(*id).op() == op && program.node(*id).inputs[0] == tensor && fits(program, uses, *id);
    let mut takers = uses.of(tensor).iter().copied();
    takers.find(takes).filter(|_| uses.on_one_device(tensor))
}

/// How many elements a variable has with which the same is done as with others at once. What is made of larger ones would hold
/// memory while it waits for the others.
pub(super) const SMALL_VARIABLE: RangeInclusive<usize> = 1..=4 << 20;

/// The reference or handle of the variable in whose memory the tensor lies; `None` where it has memory of its own.
pub(super) fn variable_behind(program: &Program, mut tensor: TensorId) -> Option<TensorId> {
    loop {
        let node = program.node(tensor.node);
        let output = &node.outputs[tensor.slot as usize];
        if output.is_ref || output.dtype == DType::Resource {
            return Some(tensor);
        }
        let passed = node.definition.kernels.iter().find_map(|kernel| kernel.alias);
        tensor = match passed {
            Some((input, _)) => node.inputs[input],
            None if node.op() == "ReadVariableOp" => node.inputs[0],
            None => return None,
        };
    }
}

/// The attributes of these names, as far as there are such.
pub(super) fn copied(from: &Attributes, names: &[&'static str]) -> Attributes {
    let mut attrs = Attributes::new();
    for name in names {
        if let Some(value) = from.get(name) {
            attrs.set(*name, value.clone());
        }
    }
    attrs
}
