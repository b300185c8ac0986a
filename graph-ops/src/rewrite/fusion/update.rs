//! Updates of variables that compute the last of their gradient themselves.

use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::Attributes;
use graph_core::rewrite::Program;
use graph_core::{DType, PartialShape};

use super::parts::{copied, variable_behind};
use super::{Fused, Fusion, Serves, Uses, elementwise};
use crate::cuda::FLOATS;
use crate::state::apply;

/// An update (`ApplyAdam`, ...) whose gradient is a chain of element-wise operations, as the sum with the regularizers'
/// gradients is, or one such operation, takes the operands in place of the gradient, which then never is in memory; so does an
/// `Assign` of what is computed of the variable itself, as of Adam's powers.
pub(crate) const UPDATES: Fusion = Fusion {
    name: "update_fusion",
    serves: Serves::All,
    find: |program, uses| program.ids().filter_map(|id| update(program, uses, id)).collect(),
};

fn update(program: &Program, uses: &Uses, id: NodeId) -> Option<Fused> {
    let node = program.node(id);
    let form = apply::fused(node.op())?;
    let source = node.inputs[form.gradient];
    let result = elementwise::dtype_of(program, source);
    if uses.only(source) != Some(id) || !apply::DTYPES_OF_CHAINS.contains(&result) {
        return None;
    }
    let assigns = matches!(node.op(), "Assign" | "AssignVariableOp");
    let made = program.node(source.node);
    let stays = if assigns {
        // What the value waits for, the assignment can wait for.
        uses.is_held(source.node)
    } else {
        uses.stays(source.node)
    };
    if stays || (assigns && !changes_itself(program, node, made)) {
        return None;
    }
    let chain = chain_of(program, source.node)?;
    let mut fused = Node {
        definition: form.definition,
        attrs: attributes(node, form, result),
        inputs: inputs(node, form, &made.inputs).collect(),
        ..node.clone()
    };
    fused.control_inputs.extend(made.control_inputs.iter().copied());
    for name in ["operand_types", "instructions"] {
        fused.attrs.set(name, chain.get(name)?.clone());
    }
    let shape: PartialShape = chain.read("shape").ok()?;
    let handed_on = fused.outputs.len();
    set_counts(
        &mut fused.attrs,
        vec![shape],
        [usize::from(form.is_masked), 0, handed_on],
    );
    Some(Fused {
        node: fused,
        first: id,
        others: Vec::new(),
        outputs: (0..handed_on).map(|slot| TensorId::new(id, slot)).collect(),
    })
}

/// Whether the variable that `node` assigns to is among what the value is computed of, so that it is initialized, and has the
/// value's shape.
fn changes_itself(program: &Program, node: &Node, value: &Node) -> bool {
    let shape = &value.outputs[0].shape;
    let of_variable = |input: &TensorId| {
        let output = &program.node(input.node).outputs[input.slot as usize];
        variable_behind(program, *input) == Some(node.inputs[0]) && output.shape == *shape
    };
    shape.is_fully_defined() && value.inputs.iter().any(of_variable)
}

/// The attributes of the rule that an update follows, of variables of this dtype.
pub(super) fn attributes(node: &Node, form: apply::FusedForm, dtype: DType) -> Attributes {
    let names: Vec<&'static str> = form.definition.attrs.iter().map(|attr| attr.name).collect();
    let mut attrs = copied(&node.attrs, &names);
    attrs.set("T", dtype);
    attrs
}

/// Says of how many variables an update is, whose chains have results of these shapes, and how many conditions, other inputs that
/// are variables or slots, and outputs it has.
pub(super) fn set_counts(attrs: &mut Attributes, shapes: Vec<PartialShape>, [masks, others, outputs]: [usize; 3]) {
    attrs.set("N", shapes.len() as i64);
    attrs.set("M", masks as i64);
    attrs.set("X", others as i64);
    attrs.set("R", outputs as i64);
    attrs.set("shapes", shapes);
}

/// The inputs of an update by the chain of these operands.
fn inputs(node: &Node, form: apply::FusedForm, operands: &[TensorId]) -> impl Iterator<Item = TensorId> {
    let end = node.inputs.len() - usize::from(form.is_masked);
    let before = (0..end).filter(move |&index| index != form.gradient);
    let before = before.map(|index| node.inputs[index]);
    before
        .chain(operands.iter().copied())
        .chain(node.inputs[end..].iter().copied())
}

/// What says what a chain is, `operand_types`, `instructions` and `shape`, of a node that is a chain or an element-wise operation.
fn chain_of(program: &Program, id: NodeId) -> Option<Attributes> {
    let node = program.node(id);
    if node.op() == elementwise::OP {
        return Some(copied(&node.attrs, &["operand_types", "instructions", "shape"]));
    }
    let part = elementwise::part(program, id).filter(|part| !part.truth)?;
    let types: Vec<DType> = node
        .inputs
        .iter()
        .map(|&tensor| elementwise::dtype_of(program, tensor))
        .collect();
    let shape = &node.outputs[0].shape;
    // Sums of more are several instructions.
    if types.len() > 2 || !types.iter().all(|dtype| FLOATS.contains(dtype)) {
        return None;
    }
    let places = std::array::from_fn(|operand| operand.min(types.len() - 1));
    let mut attrs = Attributes::new();
    attrs.set(
        "instructions",
        elementwise::numbers_of(part.function, places, part.dtype).to_vec(),
    );
    attrs.set("operand_types", types);
    attrs.set("shape", shape.clone());
    Some(attrs)
}
