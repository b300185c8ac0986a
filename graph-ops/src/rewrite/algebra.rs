//! Simple algebra: operations that give back one of their operands.

use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::AttrValue;
use graph_core::rewrite::{Program, Rewrite, topological_order};
use graph_core::{Complex, DType, Result, Value};
use rustc_hash::FxHashMap;

/// Replaces x + 0, 0 + x, x - 0, x * 1, 1 * x, x / 1 and x ^ 1 by x; an identity, a cast to the same dtype, and a transpose,
/// reshape, tiling or reduction that changes nothing by its input; and a scalar that is spread over a tensor only to be
/// combined with another of its shape by the scalar.
///
/// All are exact but for the sign of zero: -0 + 0 is +0.
pub(crate) struct Algebra;

impl Rewrite for Algebra {
    fn name(&self) -> &'static str {
        "algebra"
    }

    fn apply(&self, program: &Program) -> Result<Option<Program>> {
        let Some(order) = topological_order(program) else {
            return Ok(None);
        };
        let mut simpler: FxHashMap<TensorId, TensorId> = FxHashMap::default();
        for &id in &order {
            let node = program.node(id);
            // Who waits for control edges, or reads a variable's reference, stays where it is.
            let reads_ref = node.inputs.iter().any(|input| output(program, *input).is_ref);
            if !node.control_inputs.is_empty() || reads_ref {
                continue;
            }
            if let Some(input) = same_as_input(program, node, &simpler) {
                let source = node.inputs[input];
                simpler.insert(TensorId::new(id, 0), simpler.get(&source).copied().unwrap_or(source));
            }
        }
        let mut result = program.clone();
        let unspread = broadcast_instead(&mut result);
        if simpler.is_empty() && !unspread {
            return Ok(None);
        }
        result.substitute(&simpler, &FxHashMap::<NodeId, NodeId>::default());
        Ok(Some(result))
    }
}

/// Takes single elements that are spread over a tensor directly where the op would broadcast them to the same shape; whether
/// there were any. The gradients of sums over whole tensors are of this kind.
fn broadcast_instead(program: &mut Program) -> bool {
    let mut found = false;
    for id in program.ids() {
        let node = program.node(id);
        if !matches!(
            node.op(),
            "Add" | "AddV2" | "Sub" | "Mul" | "RealDiv" | "Maximum" | "Minimum"
        ) {
            continue;
        }
        let shape = &node.outputs[0].shape;
        let whole = |index: usize| shape.is_fully_defined() && output(program, node.inputs[index]).shape == *shape;
        let spread = |index: usize| {
            let source = program.node(node.inputs[index].node);
            let spreads = matches!(source.op(), "Tile" | "BroadcastTo") && source.control_inputs.is_empty();
            let one = spreads && output(program, source.inputs[0]).shape.num_elements() == Some(1);
            one.then(|| source.inputs[0])
        };
        let single = (0..2).find_map(|index| Some((index, spread(index).filter(|_| whole(1 - index))?)));
        if let Some((index, source)) = single {
            program.nodes[id.index()].inputs[index] = source;
            found = true;
        }
    }
    found
}

fn output(program: &Program, id: TensorId) -> &graph_core::graph::OutputInfo {
    &program.node(id.node).outputs[id.slot as usize]
}

/// Which input the node's output equals.
fn same_as_input(program: &Program, node: &Node, simpler: &FxHashMap<TensorId, TensorId>) -> Option<usize> {
    let is = |index: usize, number: f64| is_splat(program, *node.inputs.get(index)?, number).then_some(());
    let keeps = |kept: usize, other: usize| keeps_shape(program, node, kept, other).then_some(kept);
    match node.op() {
        "Add" | "AddV2" => is(1, 0.0)
            .and_then(|()| keeps(0, 1))
            .or_else(|| is(0, 0.0).and_then(|()| keeps(1, 0))),
        "Sub" => is(1, 0.0).and_then(|()| keeps(0, 1)),
        "Mul" => is(1, 1.0)
            .and_then(|()| keeps(0, 1))
            .or_else(|| is(0, 1.0).and_then(|()| keeps(1, 0))),
        "RealDiv" | "Div" | "Pow" => is(1, 1.0).and_then(|()| keeps(0, 1)),
        "Cast" => {
            let from = node.attrs.read::<DType>("SrcT").ok()?;
            (from == node.attrs.read::<DType>("DstT").ok()?).then_some(0)
        }
        "Transpose" => {
            let perm = constant(program, node.inputs[1])?.to_i64_vec().ok()?;
            perm.iter().zip(0..).all(|(&axis, place)| axis == place).then_some(0)
        }
        "Identity" | "StopGradient" => Some(0),
        // A reduction that keeps the shape is over no axes, or over axes of size 1.
        "Reshape" | "Tile" | "BroadcastTo" | "Sum" | "Mean" | "Prod" | "Max" | "Min" => {
            let (from, to) = (&output(program, node.inputs[0]).shape, &node.outputs[0].shape);
            (from.is_fully_defined() && from == to).then_some(0)
        }
        _ => None,
    }
    .filter(|&input| {
        // What the input has become meanwhile must still tell the same dtype.
        let source = simpler.get(&node.inputs[input]).copied().unwrap_or(node.inputs[input]);
        // What the others wait for, the result waits for.
        let mut others = node.inputs.iter().filter(|&&other| other != node.inputs[input]);
        let waits = others.any(|other| !program.node(other.node).control_inputs.is_empty());
        output(program, source).dtype == node.outputs[0].dtype && !waits
    })
}

/// Whether broadcasting `kept` with `other` leaves the shape of `kept`.
fn keeps_shape(program: &Program, node: &Node, kept: usize, other: usize) -> bool {
    let (kept, other) = (
        &output(program, node.inputs[kept]).shape,
        &output(program, node.inputs[other]).shape,
    );
    other.rank() == Some(0) || (kept.is_fully_defined() && kept.broadcast(other).as_ref() == Some(kept))
}

fn constant(program: &Program, id: TensorId) -> Option<&Value> {
    match program.node(id.node).attrs.get("value") {
        Some(AttrValue::Tensor(value)) if program.node(id.node).op() == "Const" => Some(value),
        _ => None,
    }
}

/// Whether the tensor is a constant all of whose elements are `number`.
fn is_splat(program: &Program, id: TensorId, number: f64) -> bool {
    fn all<T: graph_core::Element>(value: &Value, number: T) -> bool {
        value
            .as_slice::<T>()
            .is_ok_and(|elements| !elements.is_empty() && elements.iter().all(|&x| x == number))
    }
    let Some(value) = constant(program, id) else {
        return false;
    };
    match value.dtype() {
        DType::Float32 => all(value, number as f32),
        DType::Float64 => all(value, number),
        DType::Half => all(value, half::f16::from_f64(number)),
        DType::BFloat16 => all(value, half::bf16::from_f64(number)),
        DType::Int32 => all(value, number as i32),
        DType::Int64 => all(value, number as i64),
        DType::Complex64 => all(value, Complex::new(number as f32, 0.0)),
        _ => false,
    }
}
