//! Constant folding: what constants alone decide is computed once, when the plan is made.

use rustc_hash::FxHashMap;

use crate::error::Result;
use crate::graph::{Node, TensorId};
use crate::op::{Attributes, ControlFlow, registry, vocabulary};
use crate::rewrite::{Program, Rewrite};
use crate::session::evaluate::evaluate_node;
use crate::value::Value;

/// Replaces nodes whose inputs are constants by constants, which wait for what these waited for.
pub struct ConstantFolding;

/// The most elements that a folded constant may have: larger ones are cheaper to make than to keep.
const MAX_ELEMENTS: usize = 65_536;

impl Rewrite for ConstantFolding {
    fn name(&self) -> &'static str {
        "constant_folding"
    }

    fn apply(&self, program: &Program) -> Result<Option<Program>> {
        let Some(order) = super::topological_order(program) else {
            return Ok(None);
        };
        let constant = registry()?.op(vocabulary::CONST)?;
        let mut known: FxHashMap<TensorId, Value> = FxHashMap::default();
        let mut folded: FxHashMap<TensorId, TensorId> = FxHashMap::default();
        let mut result = program.clone();
        for &id in &order {
            let node = program.node(id);
            if node.op() == vocabulary::CONST {
                if let Ok(value) = node.attrs.read::<Value>("value") {
                    known.insert(TensorId::new(id, 0), value);
                }
                continue;
            }
            let Some(values) = fold(node, &known) else { continue };
            // What the constants waited for may decide whether they are alive.
            let mut waited = node.control_inputs.clone();
            for input in &node.inputs {
                let source = folded.get(input).unwrap_or(input).node;
                waited.extend_from_slice(&result.node(source).control_inputs);
            }
            waited.sort_unstable();
            waited.dedup();
            for (slot, value) in values.into_iter().enumerate() {
                let mut attrs = Attributes::new();
                attrs.set("dtype", value.dtype());
                attrs.set("value", value.clone());
                let mut output = node.outputs[slot].clone();
                output.shape = value.shape().into();
                let new = Node {
                    name: format!("{}/_folded_{slot}", node.name).into(),
                    definition: constant,
                    attrs,
                    inputs: Default::default(),
                    control_inputs: waited.clone(),
                    outputs: [output].into_iter().collect(),
                    device: node.device.clone(),
                    location: node.location,
                };
                let new = result.push(new, program.origins[id.index()]);
                known.insert(TensorId::new(id, slot), value);
                folded.insert(TensorId::new(id, slot), TensorId::new(new, 0));
            }
        }
        if folded.is_empty() {
            return Ok(None);
        }
        result.substitute(&folded, &FxHashMap::default());
        Ok(Some(result))
    }
}

fn fold(node: &Node, known: &FxHashMap<TensorId, Value>) -> Option<Vec<Value>> {
    let definition = node.definition;
    let foldable = !definition.stateful
        && definition.control_flow == ControlFlow::None
        && !node.inputs.is_empty()
        && !node.outputs.is_empty()
        && node
            .outputs
            .iter()
            .all(|output| !output.is_ref && output.shape.num_elements().is_none_or(|count| count <= MAX_ELEMENTS));
    if !foldable {
        return None;
    }
    let inputs: Vec<Value> = node
        .inputs
        .iter()
        .map(|input| known.get(input).cloned())
        .collect::<Option<_>>()?;
    // What fails is left to fail where and when it runs.
    let values = evaluate_node(node, &inputs).ok()?;
    values
        .iter()
        .all(|value| value.num_elements() <= MAX_ELEMENTS)
        .then_some(values)
}
