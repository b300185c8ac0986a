//! Random masks, as dropout takes them.

use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::rewrite::Program;

use super::parts::{copied, fits};
use super::{Fused, Fusion, Serves, Uses};
use crate::random;

/// `Cast(RandomUniform(...) >= threshold)` in one operation: the numbers are never in memory, and none is drawn where the
/// threshold lets all pass.
pub(crate) const RANDOM_MASKS: Fusion = Fusion {
    name: "mask_fusion",
    serves: Serves::All,
    find: |program, uses| program.ids().filter_map(|id| random_mask(program, uses, id)).collect(),
};

fn random_mask(program: &Program, uses: &Uses, cast: NodeId) -> Option<Fused> {
    let output = |tensor: TensorId| &program.node(tensor.node).outputs[tensor.slot as usize];
    let node = program.node(cast);
    if node.op() != "Cast" || !fits(program, uses, cast) {
        return None;
    }
    let comparison = node.inputs[0];
    let compares = program.node(comparison.node).op() == "GreaterEqual" && !uses.stays(comparison.node);
    if !compares || uses.only(comparison) != Some(cast) {
        return None;
    }
    let &[random, threshold] = &program.node(comparison.node).inputs[..] else {
        return None;
    };
    let generator = random.node;
    let draws = program.node(generator).op() == "RandomUniform" && !uses.ordered(generator);
    let numbers = output(random);
    let plain = numbers.dtype == node.outputs[0].dtype
        && numbers.shape == node.outputs[0].shape
        && output(threshold).shape.num_elements() == Some(1)
        && !output(threshold).is_ref;
    if !draws || !plain || uses.only(random) != Some(comparison.node) {
        return None;
    }
    // What waits for the numbers will wait for the mask: the threshold must not be among it.
    let place = |id: NodeId| uses.order.iter().position(|&other| other == id);
    if uses.stays(generator) && place(threshold.node) > place(generator) {
        return None;
    }
    let mut attrs = copied(&program.node(generator).attrs, &["seed", "seed2"]);
    attrs.set("T", numbers.dtype);
    attrs.set("shape", numbers.shape.clone());
    let node = Node {
        definition: random::mask(),
        attrs,
        inputs: [threshold].into_iter().collect(),
        control_inputs: Default::default(),
        ..node.clone()
    };
    Some(Fused {
        node,
        first: generator,
        others: Vec::new(),
        outputs: vec![TensorId::new(cast, 0)],
    })
}
