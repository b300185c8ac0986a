//! Sums over all elements of what element-wise operations compute.

use std::sync::{Arc, OnceLock};

use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::{Attributes, InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::rewrite::Program;
use graph_core::{DType, Element, Error, PartialShape, Result};
use half::{bf16, f16};
use num_traits::Zero;
use rustc_hash::FxHashMap;

use super::{Fused, Fusion, Uses, elementwise};
use crate::cpu::Short;
use crate::cpu::chain::{Chain, ChainElement, Function, Instruction, Operand};
use crate::cpu::element::{Real, Wide};
use crate::cpu::reduce::sums_of_chains;
use crate::cuda::{FLOATS, chain as device};

/// A `Sum` over all axes of a chain of element-wise operations, and an `L2Loss`, take the elements of the chain as they are
/// computed; those over the same operands share one pass over memory, as the norms of a variable do.
pub(crate) const SUMS: Fusion = Fusion {
    name: "sum_fusion",
    host_only: false,
    find,
};

/// A sum that may be fused.
struct Total {
    id: NodeId,
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
        outputs: totals.iter().map(|total| TensorId::new(total.id, 0)).collect(),
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
    Some(Total {
        id,
        operands,
        shape: output.shape.clone(),
        instructions,
        scale: if l2_loss { 0.5 } else { 1.0 },
    })
}

fn fused(program: &Program, totals: &[Total]) -> Node {
    let first = &totals[0];
    let node = program.node(first.id);
    let outputs = totals.iter().map(|total| program.node(total.id).outputs[0].clone());
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
    attrs.set("shape", first.shape.clone());
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

/// `_FusedSum`: the sums of all elements of several chains over the same operands, each times its scale.
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
            .attr("shape: shape")
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

/// What is summed: the chains' operands, their instructions, what the sums are multiplied with, and how many elements there are.
struct Parts {
    operands: Vec<Operand>,
    chains: Vec<Vec<Instruction>>,
    scales: Vec<f32>,
    len: usize,
}

fn broken() -> Error {
    Error::internal("a sum of element-wise operations is broken")
}

fn parts(request: &KernelRequest<'_>) -> Result<Parts> {
    let shape: PartialShape = request.attr("shape")?;
    let shape = shape.to_shape().ok_or_else(broken)?;
    let (lengths, instructions): (Vec<i64>, Vec<i64>) = (request.attr("lengths")?, request.attr("instructions")?);
    let mut rest = &instructions[..];
    let mut chains = Vec::with_capacity(lengths.len());
    for length in lengths {
        let (own, others) = rest.split_at_checked(length as usize).ok_or_else(broken)?;
        chains.push(elementwise::of_numbers(own).ok_or_else(broken)?);
        rest = others;
    }
    Ok(Parts {
        operands: elementwise::operands(request, 0..request.num_inputs(), &shape)?,
        chains,
        scales: request.attr("scales")?,
        len: shape.num_elements(),
    })
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let Parts {
        operands,
        chains,
        scales,
        len,
    } = parts(request)?;
    let scales = scales.into_iter().map(f64::from).collect();
    let sums = device::Sums::new(request, request.output_dtype(0), &operands, &chains, scales, len)?;
    let scratch = sums.scratch();
    let planned = Planned::new(move |context| {
        let operands = (0..context.num_inputs()).map(|index| context.input_address(index));
        let outs: Short<_> = (0..context.num_outputs())
            .map(|index| context.output_address(index))
            .collect();
        // SAFETY: the operands have the dtypes and shapes from which the chains were made, and the kernel gets the scratch memory
        // it wants.
        unsafe { sums.run(device::Operands::new(operands), &outs, context.scratch_address()) }
    });
    Ok(planned.with_scratch(scratch))
}

fn kernel<T: Element + Real>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Element + ChainElement + Wide,
{
    let Parts {
        operands,
        chains,
        scales,
        len,
    } = parts(request)?;
    let chains = chains.iter().map(|chain| Chain::new(operands.clone(), chain));
    let chains = chains.collect::<Option<Vec<_>>>().ok_or_else(broken)?;
    Ok(Planned::new(move |context| {
        let operands = elementwise::pointers::<T::Wide>(context, 0..context.num_inputs())?;
        let mut sums: Short<T::Wide> = Short::from_elem(T::Wide::zero(), chains.len());
        // SAFETY: slots are valid for their dtypes and shapes, from which the chains were made.
        unsafe { sums_of_chains(&chains, &operands, len, &mut sums) };
        for (index, (sum, &scale)) in sums.into_iter().zip(&scales).enumerate() {
            context.output::<T>(index)?[0] = T::narrow(sum * T::Wide::from_f64(scale.into()));
        }
        Ok(())
    }))
}
