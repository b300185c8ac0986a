//! Sums over all elements of what element-wise operations compute.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use graph_core::graph::{Node, NodeId, OutputInfo, TensorId};
use graph_core::op::{Attributes, FromAttr, InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::rewrite::Program;
use graph_core::{DType, Element, Error, PartialShape, Result, Value};
use half::{bf16, f16};
use num_traits::Zero;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::parts::{SMALL_VARIABLE, variable_behind};
use super::{Fused, Fusion, Serves, Uses, elementwise, groups};
use crate::cpu::Short;
use crate::cpu::chain::{Chain, ChainElement, Function, Instruction, Operand};
use crate::cpu::element::{Real, Wide};
use crate::cpu::reduce::sums_of_chains;
use crate::cuda::{FLOATS, chain as device};

/// A `Sum` over all axes of a chain of element-wise operations, and an `L2Loss`, take the elements of the chain as they are
/// computed; those over the same operands share one pass over memory, as the norms of a variable do.
pub(crate) const SUMS: Fusion = Fusion {
    name: "sum_fusion",
    serves: Serves::All,
    find,
};

/// Sums of the same operations over small variables, as the norms of all weights, are one operation, which takes two kernels for
/// all of them.
pub(crate) const SUM_GROUPS: Fusion = Fusion {
    name: "sum_grouping",
    serves: Serves::Accelerators,
    find: find_groups,
};

/// A sum that may be fused.
struct Total {
    id: NodeId,
    /// The sum, or the product of it and a constant.
    result: TensorId,
    operands: Vec<TensorId>,
    /// The shape of what is summed.
    shape: PartialShape,
    instructions: Vec<i64>,
    /// What the sum is multiplied with.
    scale: f32,
}

fn find(program: &Program, uses: &Uses) -> Vec<Fused> {
    let mut totals: Vec<Vec<Total>> = Vec::new();
    let mut of_operands: FxHashMap<(Vec<TensorId>, PartialShape, DType, Arc<str>), usize> = FxHashMap::default();
    for total in program.ids().filter_map(|id| total(program, uses, id)) {
        let node = program.node(total.id);
        let (dtype, device) = (node.outputs[0].dtype, node.device.clone());
        let key = (total.operands.clone(), total.shape.clone(), dtype, device);
        let index = *of_operands.entry(key).or_insert_with(|| {
            totals.push(Vec::new());
            totals.len() - 1
        });
        totals[index].push(total);
    }
    let fused = |totals: &Vec<Total>| Fused {
        node: fused(program, totals),
        first: totals[0].id,
        others: Vec::new(),
        outputs: totals.iter().map(|total| total.result).collect(),
    };
    totals.iter().map(fused).collect()
}

fn total(program: &Program, uses: &Uses, id: NodeId) -> Option<Total> {
    let node = program.node(id);
    let l2_loss = node.op() == "L2Loss";
    let all = node.op() == "Sum" && node.outputs[0].shape.num_elements() == Some(1);
    let summed = *node.inputs.first()?;
    let source = program.node(summed.node);
    let output = &source.outputs[summed.slot as usize];
    let numbers = FLOATS.contains(&output.dtype) && !output.is_ref;
    if !(l2_loss || all) || !numbers || !output.shape.is_fully_defined() || uses.stays(id) {
        return None;
    }
    let inside = uses.only(summed) == Some(id) && !uses.stays(summed.node);
    let of_numbers = |&tensor: &TensorId| FLOATS.contains(&elementwise::dtype_of(program, tensor));
    let alone = source.inputs.len() == 1 && source.inputs.iter().all(of_numbers);
    let part = elementwise::part(program, summed.node).filter(|part| !part.truth && alone);
    let (operands, mut instructions) = match part {
        _ if inside && source.op() == elementwise::OP => (
            source.inputs.to_vec(),
            source.attrs.read::<Vec<i64>>("instructions").ok()?,
        ),
        Some(part) if inside => (
            source.inputs.to_vec(),
            elementwise::numbers_of(part.function, [0; 3], part.dtype).to_vec(),
        ),
        _ if l2_loss => (vec![summed], Vec::new()),
        _ => return None,
    };
    if l2_loss {
        let last = operands.len() + elementwise::of_numbers(&instructions)?.len() - 1;
        // The squares of half types are not rounded.
        instructions.extend(elementwise::numbers_of(Function::Square, [last; 3], DType::Float32));
    }
    // The halves of an L2Loss are exact.
    let scale = if l2_loss { 0.5 } else { 1.0 };
    let sum = TensorId::new(id, 0);
    let (result, scale) = multiplied(program, uses, sum, scale).unwrap_or((sum, scale));
    Some(Total {
        id,
        result,
        operands,
        shape: output.shape.clone(),
        instructions,
        scale,
    })
}

/// The product of the sum and a constant, if that is all that is done with it, and what both are multiplied with then: in `float`
/// and `double`, where the sum is not rounded before.
fn multiplied(program: &Program, uses: &Uses, sum: TensorId, scale: f32) -> Option<(TensorId, f32)> {
    let id = uses.only(sum)?;
    let (node, of_sum) = (program.node(id), &program.node(sum.node).outputs[0]);
    let other = *node.inputs.iter().find(|input| **input != sum)?;
    let constant = program.node(other.node);
    let fits = node.op() == "Mul" && constant.op() == "Const" && !uses.stays(id);
    if !fits || node.outputs[0].shape != of_sum.shape || !DTYPES_OF_SCALES.contains(&of_sum.dtype) {
        return None;
    }
    let value: Value = constant.attrs.read("value").ok()?;
    let factor = match value.as_slice::<f32>() {
        Ok(&[factor]) => factor,
        // Scales are kept as `float`.
        Ok(_) => return None,
        Err(_) => *value
            .as_slice::<f64>()
            .ok()?
            .first()
            .filter(|x| f64::from(**x as f32) == **x)? as f32,
    };
    let product = factor * scale;
    // Exact, so that the sum is rounded once in both.
    (product / scale == factor && product.is_normal()).then_some((TensorId::new(id, 0), product))
}

/// The dtypes of sums that are multiplied before they are stored.
const DTYPES_OF_SCALES: [DType; 2] = [DType::Float32, DType::Float64];

fn find_groups(program: &Program, uses: &Uses) -> Vec<Fused> {
    let sums = program.ids().filter(|&id| joins_others(program, uses, id));
    let alike = |&one: &NodeId, &other: &NodeId| {
        let (one, other) = (program.node(one), program.node(other));
        let same = |name| one.attrs.get(name) == other.attrs.get(name);
        one.device == other.device && ["T", "operand_types", "instructions", "lengths"].into_iter().all(same)
    };
    let groups = groups(program, sums, alike, |&id| id);
    groups.iter().map(|group| together(program, group)).collect()
}

/// Whether the sums are of a small variable, which is there at any time.
fn joins_others(program: &Program, uses: &Uses, id: NodeId) -> bool {
    let node = program.node(id);
    let shapes: Vec<PartialShape> = node.attrs.read("set_shapes").unwrap_or_default();
    let [shape] = &shapes[..] else { return false };
    let of_variable = |&operand: &TensorId| {
        let own = &program.node(operand.node).outputs[operand.slot as usize].shape;
        own == shape && variable_behind(program, operand).is_some()
    };
    node.op() == OP
        && uses.is_needed(id)
        && !uses.is_guarded(id)
        && shape
            .num_elements()
            .is_some_and(|count| SMALL_VARIABLE.contains(&count))
        && node.inputs.iter().all(of_variable)
}

/// The sums of all sets of operands of a group.
fn together(program: &Program, group: &[NodeId]) -> Fused {
    let first = program.node(group[0]);
    let nodes = || group.iter().map(|&id| program.node(id));
    let outputs: SmallVec<[OutputInfo; 1]> = nodes().flat_map(|node| node.outputs.iter().cloned()).collect();
    let mut attrs = first.attrs.clone();
    attrs.set("operand_types", joined::<DType>(program, group, "operand_types"));
    attrs.set("scales", joined::<f32>(program, group, "scales"));
    attrs.set("M", outputs.len() as i64);
    for name in ["shapes", "set_shapes"] {
        attrs.set(name, joined::<PartialShape>(program, group, name));
    }
    let made = |&id: &NodeId| (0..program.node(id).outputs.len()).map(move |slot| TensorId::new(id, slot));
    Fused {
        node: Node {
            attrs,
            inputs: nodes().flat_map(|node| node.inputs.iter().copied()).collect(),
            control_inputs: nodes().flat_map(|node| node.control_inputs.iter().copied()).collect(),
            outputs,
            ..first.clone()
        },
        first: group[0],
        others: group[1..].to_vec(),
        outputs: group.iter().flat_map(made).collect(),
    }
}

/// The lists that an attribute of the nodes is, one behind the other.
fn joined<T>(program: &Program, nodes: &[NodeId], name: &str) -> Vec<T>
where
    Vec<T>: FromAttr,
{
    let list = |&id: &NodeId| program.node(id).attrs.read::<Vec<T>>(name).unwrap_or_default();
    nodes.iter().flat_map(list).collect()
}

fn fused(program: &Program, totals: &[Total]) -> Node {
    let first = &totals[0];
    let node = program.node(first.id);
    let outputs = totals
        .iter()
        .map(|total| program.node(total.result.node).outputs[0].clone());
    let mut attrs = Attributes::new();
    attrs.set("T", node.outputs[0].dtype);
    let types = first
        .operands
        .iter()
        .map(|&tensor| elementwise::dtype_of(program, tensor));
    attrs.set("operand_types", types.collect::<Vec<_>>());
    attrs.set("M", totals.len() as i64);
    attrs.set(
        "instructions",
        totals
            .iter()
            .flat_map(|total| total.instructions.clone())
            .collect::<Vec<i64>>(),
    );
    attrs.set(
        "lengths",
        totals
            .iter()
            .map(|total| total.instructions.len() as i64)
            .collect::<Vec<i64>>(),
    );
    attrs.set("scales", totals.iter().map(|total| total.scale).collect::<Vec<f32>>());
    attrs.set("set_shapes", vec![first.shape.clone()]);
    attrs.set(
        "shapes",
        outputs
            .clone()
            .map(|output| output.shape)
            .collect::<Vec<PartialShape>>(),
    );
    Node {
        definition: definition(),
        attrs,
        inputs: first.operands.iter().copied().collect(),
        control_inputs: Default::default(),
        outputs: outputs.collect(),
        ..node.clone()
    }
}

/// The name of the op that sums become.
pub(super) const OP: &str = "_FusedSum";

/// `_FusedSum`: for each of several sets of operands, the sums of all elements of several chains over them, each times its scale.
/// The chains, of which `instructions` has `lengths` numbers each, are the same for all sets.
pub(crate) fn definition() -> &'static OpDefinition {
    static DEFINITION: OnceLock<OpDefinition> = OnceLock::new();
    DEFINITION.get_or_init(|| {
        OpDefinition::new(OP, "Sums over all elements of chains of element-wise operations.")
            .input("operands: operand_types")
            .output("sums: M * T")
            .attr("operand_types: list(type) >= 1")
            .attr("M: int >= 1")
            .attr("T: {half, bfloat16, float, double}")
            .attr("instructions: list(int)")
            .attr("lengths: list(int)")
            .attr("scales: list(float)")
            .attr("set_shapes: list(shape)")
            .attr("shapes: list(shape)")
            .not_differentiable()
            .shape(|context: &mut InferenceContext<'_>| {
                let shapes: Vec<PartialShape> = context.attr("shapes")?;
                for (slot, shape) in shapes.into_iter().enumerate() {
                    context.set_output(slot, shape);
                }
                Ok(())
            })
            .kernel(KernelDefinition::cpu(kernel::<f32>).types("T", &[DType::Float32]))
            .kernel(KernelDefinition::cpu(kernel::<f64>).types("T", &[DType::Float64]))
            .kernel(KernelDefinition::cpu(kernel::<f16>).types("T", &[DType::Half]))
            .kernel(KernelDefinition::cpu(kernel::<bf16>).types("T", &[DType::BFloat16]))
            .kernel(KernelDefinition::cuda(on_device).types("T", FLOATS))
    })
}

/// Operands that chains are taken over.
struct Set {
    /// Which inputs they are.
    inputs: Range<usize>,
    operands: Vec<Operand>,
    /// How many elements a chain has.
    len: usize,
}

/// What is summed: the sets of operands, the chains' instructions, and for each set what their sums are multiplied with.
struct Parts {
    sets: Vec<Set>,
    chains: Vec<Vec<Instruction>>,
    scales: Vec<f32>,
}

fn broken() -> Error {
    Error::internal("a sum of element-wise operations is broken")
}

fn parts(request: &KernelRequest<'_>) -> Result<Parts> {
    let (lengths, instructions): (Vec<i64>, Vec<i64>) = (request.attr("lengths")?, request.attr("instructions")?);
    let mut rest = &instructions[..];
    let mut chains = Vec::with_capacity(lengths.len());
    for length in lengths {
        let (own, others) = rest.split_at_checked(length as usize).ok_or_else(broken)?;
        chains.push(elementwise::of_numbers(own).ok_or_else(broken)?);
        rest = others;
    }
    let shapes: Vec<PartialShape> = request.attr("set_shapes")?;
    let each = request.num_inputs().checked_div(shapes.len()).ok_or_else(broken)?;
    let set = |(at, shape): (usize, &PartialShape)| {
        let (shape, inputs) = (shape.to_shape().ok_or_else(broken)?, at * each..(at + 1) * each);
        Ok(Set {
            operands: elementwise::operands(request, inputs.clone(), &shape)?,
            inputs,
            len: shape.num_elements(),
        })
    };
    let sets = shapes.iter().enumerate().map(set).collect::<Result<Vec<_>>>()?;
    let scales: Vec<f32> = request.attr("scales")?;
    if scales.len() != sets.len() * chains.len() {
        return Err(broken());
    }
    Ok(Parts { sets, chains, scales })
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let Parts { sets, chains, scales } = parts(request)?;
    let scales: Vec<f64> = scales.into_iter().map(f64::from).collect();
    let operands: Vec<(&[Operand], usize)> = sets.iter().map(|set| (&set.operands[..], set.len)).collect();
    let sums = device::Sums::new(request, request.output_dtype(0), &operands, &chains, scales)?;
    let (scratch, inputs) = (
        sums.scratch(),
        sets.into_iter().map(|set| set.inputs).collect::<Vec<_>>(),
    );
    let planned = Planned::new(move |context| {
        let operands =
            |set: &Range<usize>| device::Operands::new(set.clone().map(|index| context.input_address(index)));
        let operands: Short<_> = inputs.iter().map(operands).collect();
        let outs: Short<_> = (0..context.num_outputs())
            .map(|index| context.output_address(index))
            .collect();
        // SAFETY: the operands have the dtypes and shapes from which the chains were made, and the kernel gets the scratch memory
        // it wants.
        unsafe { sums.run(&operands, &outs, context.scratch_address()) }
    });
    Ok(planned.with_scratch(scratch))
}

fn kernel<T: Element + Real>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Element + ChainElement + Wide,
{
    let Parts { sets, chains, scales } = parts(request)?;
    let chains_over = |set: Set| {
        let chains = chains.iter().map(|chain| Chain::new(set.operands.clone(), chain));
        Some((set.inputs, chains.collect::<Option<Vec<_>>>()?, set.len))
    };
    let sets = sets
        .into_iter()
        .map(chains_over)
        .collect::<Option<Vec<_>>>()
        .ok_or_else(broken)?;
    Ok(Planned::new(move |context| {
        let mut outputs = scales.iter().enumerate();
        for (inputs, chains, len) in &sets {
            let operands = elementwise::pointers::<T::Wide>(context, inputs.clone())?;
            let mut sums: Short<T::Wide> = Short::from_elem(T::Wide::zero(), chains.len());
            // SAFETY: slots are valid for their dtypes and shapes, from which the chains were made.
            unsafe { sums_of_chains(chains, &operands, *len, &mut sums) };
            for (sum, (output, &scale)) in sums.into_iter().zip(&mut outputs) {
                context.output::<T>(output)?[0] = T::narrow(sum * T::Wide::from_f64(scale.into()));
            }
        }
        Ok(())
    }))
}
