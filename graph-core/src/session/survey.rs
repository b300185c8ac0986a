//! What is known of a program once the shapes of its feeds are: written into the program, it lets rewrites see as much.

use rustc_hash::FxHashMap;

use crate::error::Result;
use crate::graph::{NodeId, TensorId};
use crate::op::{Attributes, registry, vocabulary};
use crate::rewrite::Program;
use crate::session::structure::Structure;
use crate::shape::PartialShape;
use crate::value::Value;

/// The name by which options switch off that a program is rewritten once more for the shapes of its feeds.
pub(crate) const SPECIALIZATION: &str = "specialization";

/// Shapes of all tensors of a program, and the values of those that shapes and constants alone decide.
pub(crate) struct Survey {
    /// Index of the first tensor of each node.
    pub(crate) first: Vec<u32>,
    pub(crate) shapes: Vec<PartialShape>,
    pub(crate) values: Vec<Option<Value>>,
}

impl Survey {
    /// The structure's program with these shapes, and with constants in place of what is known. What a Switch guards, and
    /// references to variables, stay as they are.
    pub(crate) fn written_into(mut self, structure: &Structure) -> Result<Program> {
        let constant = registry()?.op(vocabulary::CONST)?;
        let mut program = structure.program.clone();
        let mut known: FxHashMap<TensorId, TensorId> = FxHashMap::default();
        // What known nodes wait for beside their inputs, and so does what takes their place.
        let mut waits: FxHashMap<NodeId, Vec<NodeId>> = FxHashMap::default();
        for &id in structure.order.iter().filter(|id| !structure.guarded[id.index()]) {
            let first = self.first[id.index()] as usize;
            let node = &mut program.nodes[id.index()];
            for (slot, output) in node.outputs.iter_mut().enumerate().filter(|(_, output)| !output.is_ref) {
                output.shape = std::mem::take(&mut self.shapes[first + slot]);
            }
            let node = node.clone();
            if self.values.get(first).is_some_and(Option::is_some) {
                let inputs = node.inputs.iter().filter_map(|input| waits.get(&input.node));
                let mut waited: Vec<NodeId> = inputs.flatten().chain(&node.control_inputs).copied().collect();
                waited.sort_unstable();
                waited.dedup();
                waits.insert(id, waited);
            }
            if node.op() == vocabulary::CONST {
                continue;
            }
            for (slot, output) in node.outputs.iter().enumerate() {
                let Some(value) = self.values[first + slot].take().filter(|_| !output.is_ref) else {
                    continue;
                };
                let mut attrs = Attributes::new();
                attrs.set("dtype", value.dtype());
                attrs.set("value", value);
                let mut folded = node.clone();
                folded.name = format!("{}/_known_{slot}", node.name).into();
                folded.definition = constant;
                folded.attrs = attrs;
                folded.inputs = Default::default();
                folded.control_inputs = waits.get(&id).into_iter().flatten().copied().collect();
                folded.outputs = [output.clone()].into_iter().collect();
                let new: NodeId = program.push(folded, structure.program.origins[id.index()]);
                known.insert(TensorId::new(id, slot), TensorId::new(new, 0));
            }
        }
        program.substitute(&known, &FxHashMap::default());
        Ok(program)
    }
}
