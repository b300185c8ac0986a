//! Optimizers' updates that compute the last of their gradient themselves.

use graph_core::PartialShape;
use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::Attributes;
use graph_core::rewrite::Program;
use rustc_hash::FxHashSet;

use super::{Fused, Fusion, Uses, elementwise, sum};
use crate::state::apply;

/// An update (`ApplyAdam`, ...) whose gradient is a chain of element-wise operations, as the sum with the regularizers'
/// gradients is, takes the chain's operands in place of the gradient, which then never is in memory.
pub(crate) const UPDATES: Fusion = Fusion {
    name: "update_fusion",
    host_only: false,
    find: |program, uses| program.ids().filter_map(|id| update(program, uses, id)).collect(),
};

/// Such an update sums over its operands, as the norms of a variable do, in passing.
pub(crate) const UPDATES_WITH_SUMS: Fusion = Fusion {
    name: "update_sum_fusion",
    host_only: true,
    find: |program, uses| {
        let mut taken = FxHashSet::default();
        let found = program.ids().filter_map(|id| with_sums(program, uses, id, &mut taken));
        found.collect()
    },
};

fn update(program: &Program, uses: &Uses, id: NodeId) -> Option<Fused> {
    let node = program.node(id);
    let (definition, gradient) = apply::fused(node.op())?;
    let source = node.inputs[gradient];
    let chain = program.node(source.node);
    if chain.op() != elementwise::OP || uses.only(source) != Some(id) || uses.stays(source.node) {
        return None;
    }
    let mut attrs = node.attrs.clone();
    for name in ["N", "instructions", "shape"] {
        attrs.set(name, chain.attrs.get(name)?.clone());
    }
    set_sums(&mut attrs, Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let others = node.inputs.iter().enumerate().filter(|(index, _)| *index != gradient);
    let node = Node {
        definition,
        attrs,
        inputs: others
            .map(|(_, input)| *input)
            .chain(chain.inputs.iter().copied())
            .collect(),
        ..node.clone()
    };
    Some(Fused {
        outputs: outputs(id, &node),
        node,
        first: id,
    })
}

/// What is summed in passing; see `_FusedSum`.
fn set_sums(
    attrs: &mut Attributes,
    instructions: Vec<i64>,
    lengths: Vec<i64>,
    scales: Vec<f32>,
    shapes: Vec<PartialShape>,
) {
    attrs.set("M", lengths.len() as i64);
    attrs.set("sum_instructions", instructions);
    attrs.set("sum_lengths", lengths);
    attrs.set("sum_scales", scales);
    attrs.set("sum_shapes", shapes);
}

fn outputs(id: NodeId, node: &Node) -> Vec<TensorId> {
    (0..node.outputs.len()).map(|slot| TensorId::new(id, slot)).collect()
}

/// The update `id` with all sums that it can take.
fn with_sums(program: &Program, uses: &Uses, id: NodeId, taken: &mut FxHashSet<NodeId>) -> Option<Fused> {
    let node = program.node(id);
    if !apply::is_fused(node.definition) {
        return None;
    }
    let count = node.attrs.read::<i64>("N").ok()? as usize;
    let operands = &node.inputs[node.inputs.len().checked_sub(count)?..];
    let shape = node.attrs.read::<PartialShape>("shape").ok()?;
    let mut of: Vec<NodeId> = operands.iter().flat_map(|operand| uses.of(*operand)).copied().collect();
    of.sort_unstable();
    of.dedup();
    let fits = |sum: NodeId| {
        let node = program.node(sum);
        node.op() == sum::OP
            && node
                .attrs
                .read::<PartialShape>("shape")
                .is_ok_and(|other| other == shape)
            && node.inputs.iter().all(|input| operands.contains(input))
            && !uses.stays(sum)
            && !leads_to(program, uses, sum, id)
    };
    of.retain(|&sum| fits(sum) && !taken.contains(&sum));
    let (mut new, mut outputs) = (node.clone(), outputs(id, node));
    let (mut instructions, mut lengths): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
    let (mut scales, mut shapes): (Vec<f32>, Vec<PartialShape>) = (Vec::new(), Vec::new());
    for &sum in &of {
        let node = program.node(sum);
        // Values are numbered: a chain's operands, then the results of its instructions.
        let place = |number: i64| match node.inputs.get(number as usize) {
            Some(input) => operands.iter().position(|operand| operand == input).map(|at| at as i64),
            None => Some(number - node.inputs.len() as i64 + count as i64),
        };
        for numbers in node.attrs.read::<Vec<i64>>("instructions").ok()?.chunks_exact(4) {
            instructions.push(numbers[0]);
            for &number in &numbers[1..] {
                instructions.push(place(number)?);
            }
        }
        lengths.extend(node.attrs.read::<Vec<i64>>("lengths").ok()?);
        scales.extend(node.attrs.read::<Vec<f32>>("scales").ok()?);
        shapes.extend(node.outputs.iter().map(|output| output.shape.clone()));
        new.outputs.extend(node.outputs.iter().cloned());
        outputs.extend(self::outputs(sum, node));
    }
    if of.is_empty() {
        return None;
    }
    taken.extend(of);
    set_sums(&mut new.attrs, instructions, lengths, scales, shapes);
    Some(Fused {
        node: new,
        first: id,
        outputs,
    })
}

/// With more nodes than this behind a sum, it is taken to lead to every update.
const MANY: usize = 256;

/// Whether `to` may depend on the node `from`: where it does, or where that is not easily seen.
fn leads_to(program: &Program, uses: &Uses, from: NodeId, to: NodeId) -> bool {
    let (mut seen, mut stack) = (FxHashSet::from_iter([from]), vec![from]);
    while let Some(id) = stack.pop() {
        // What others wait for without taking it may be on the way to anything.
        if id == to || uses.stays(id) || seen.len() > MANY {
            return true;
        }
        for slot in 0..program.node(id).outputs.len() {
            let users = uses.of(TensorId::new(id, slot));
            stack.extend(users.iter().copied().filter(|&user| seen.insert(user)));
        }
    }
    false
}
