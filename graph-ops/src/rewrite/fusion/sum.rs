//! Sums over all elements of what element-wise operations compute.

use std::sync::{Arc, OnceLock};

use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::{Attributes, InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::rewrite::Program;
use graph_core::{DType, Element, Error, PartialShape, Result};
use rustc_hash::FxHashMap;

use super::{Fused, Fusion, Uses, elementwise};
use crate::cpu::Short;
use crate::cpu::chain::{ChainElement, Function, Instruction, Layout};
use crate::cpu::element::{Real, Wide};
use crate::cpu::reduce::sums_of_chains;
use crate::cuda::chain as device;

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
    let mut of_operands: FxHashMap<(Vec<TensorId>, PartialShape, Arc<str>), usize> = FxHashMap::default();
    for total in program.ids().filter_map(|id| total(program, uses, id)) {
        let device = program.node(total.id).device.clone();
        let key = (total.operands.clone(), total.shape.clone(), device);
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
    let numbers = matches!(output.dtype, DType::Float32 | DType::Float64) && !output.is_ref;
    if !(l2_loss || all) || !numbers || !output.shape.is_fully_defined() || uses.stays(id) {
        return None;
    }
    let inside = uses.only(summed) == Some(id) && !uses.stays(summed.node);
    let part = elementwise::part(program, summed.node).filter(|part| !part.truth && source.inputs.len() == 1);
    let (operands, mut instructions) = match part {
        _ if inside && source.op() == elementwise::OP => (
            source.inputs.to_vec(),
            source.attrs.read::<Vec<i64>>("instructions").ok()?,
        ),
        Some(part) if inside => (source.inputs.to_vec(), vec![part.function as i64, 0, 0, 0]),
        _ if l2_loss => (vec![summed], Vec::new()),
        _ => return None,
    };
    if l2_loss {
        let last = (operands.len() + instructions.len() / 4) as i64 - 1;
        instructions.extend([Function::Square as i64, last, last, last]);
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
    attrs.set("N", first.operands.len() as i64);
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
            .input("operands: N * T")
            .output("sums: M * T")
            .attr("N: int >= 1")
            .attr("M: int >= 1")
            .attr("T: {float, double}")
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
            .kernel(KernelDefinition::cuda(on_device).types("T", &[DType::Float32, DType::Float64]))
    })
}

/// What is summed: the chains' layouts, their instructions, what the sums are multiplied with, and how many elements there are.
struct Parts {
    layouts: Vec<Layout>,
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
    let layouts = request.input_shapes.iter().map(|operand| Layout::new(operand, &shape));
    let layouts = layouts.collect::<Option<Vec<_>>>().ok_or_else(broken)?;
    let (lengths, instructions): (Vec<i64>, Vec<i64>) = (request.attr("lengths")?, request.attr("instructions")?);
    let mut rest = &instructions[..];
    let mut chains = Vec::with_capacity(lengths.len());
    for length in lengths {
        let (own, others) = rest.split_at_checked(length as usize).ok_or_else(broken)?;
        chains.push(elementwise::of_numbers(own).ok_or_else(broken)?);
        rest = others;
    }
    Ok(Parts {
        layouts,
        chains,
        scales: request.attr("scales")?,
        len: shape.num_elements(),
    })
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let Parts {
        layouts,
        chains,
        scales,
        len,
    } = parts(request)?;
    let scales = scales.into_iter().map(f64::from).collect();
    let sums = device::Sums::new(request, request.output_dtype(0), &layouts, &chains, scales, len)?;
    let scratch = sums.scratch();
    let planned = Planned::new(move |context| {
        let operands = (0..context.num_inputs()).map(|index| context.input_address(index));
        let outs: Short<_> = (0..context.num_outputs())
            .map(|index| context.output_address(index))
            .collect();
        // SAFETY: the operands have the shapes from which the layouts were made, and the kernel gets the scratch memory it wants.
        unsafe { sums.run(device::Operands::new(operands), &outs, context.scratch_address()) }
    });
    Ok(planned.with_scratch(scratch))
}

fn kernel<T: Element + ChainElement + Real<Wide = T> + Wide>(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape: PartialShape = request.attr("shape")?;
    let shape = shape.to_shape().ok_or_else(broken)?;
    let chains = elementwise::chains(request, request.input_shapes, &shape, ["instructions", "lengths"])?;
    let scales: Vec<f32> = request.attr("scales")?;
    let len = shape.num_elements();
    Ok(Planned::new(move |context| {
        let operands = (0..context.num_inputs())
            .map(|index| context.input_ptr::<T>(index))
            .collect::<Result<Short<_>>>()?;
        let mut sums: Short<T> = Short::from_elem(T::zero(), chains.len());
        // SAFETY: slots are valid for their shapes, from which the layouts were made.
        unsafe { sums_of_chains(&chains, &operands, len, &mut sums) };
        for (index, (sum, &scale)) in sums.into_iter().zip(&scales).enumerate() {
            context.output::<T>(index)?[0] = sum * T::from_f64(scale.into());
        }
        Ok(())
    }))
}
