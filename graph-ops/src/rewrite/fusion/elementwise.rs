//! Chains of element-wise operations become one pass over memory.

use std::sync::OnceLock;

use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::{Attributes, InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::rewrite::Program;
use graph_core::{DType, Element, Error, PartialShape, Result, Shape};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Fused, Fusion, Uses};
use crate::cpu::Short;
use crate::cpu::chain::{Chain, ChainElement, Function, Instruction, Layout};
use crate::cuda::chain as device;

/// Replaces trees of element-wise operations, `float` or `double`, by one operation each.
///
/// An operation joins the one that takes its result if nothing else takes it and both have the same shape, so that every
/// element is computed once, as before. Comparisons join where a `Cast` makes numbers of their truth values.
pub(crate) const ELEMENTWISE: Fusion = Fusion {
    name: "elementwise_fusion",
    host_only: false,
    find,
};

/// The name of the op that chains become.
pub(super) const OP: &str = "_FusedElementwise";

/// The most operands of one chain.
const MAX_OPERANDS: usize = 16;

/// The most operations of one chain.
const MAX_MEMBERS: usize = 64;

/// A chain in the making: its operations, from the last to the first, and how many operands it has at most.
#[derive(Default)]
struct Group {
    members: Vec<NodeId>,
    operands: usize,
}

fn find(program: &Program, uses: &Uses) -> Vec<Fused> {
    // The last operation of the chain that each operation belongs to.
    let mut root: FxHashMap<NodeId, NodeId> = FxHashMap::default();
    let mut groups: FxHashMap<NodeId, Group> = FxHashMap::default();
    for &id in uses.order.iter().rev() {
        let Some(part) = part(program, id).filter(|_| !uses.stays(id)) else {
            continue;
        };
        let inputs = &program.node(id).inputs;
        let casts = program.node(id).op() == "Cast";
        if casts && (uses.stays(inputs[0].node) || uses.only(inputs[0]) != Some(id)) {
            continue;
        }
        let tensor = TensorId::new(id, 0);
        let mut roots = uses.of(tensor).iter().map(|user| root.get(user).copied());
        let joined = roots
            .next()
            .flatten()
            .filter(|first| roots.all(|other| other == Some(*first)))
            .filter(|_| !uses.fetched(tensor) && uses.on_one_device(tensor))
            .filter(|&first| shape_of(program, id) == shape_of(program, first))
            .filter(|&first| Some(part.dtype) == dtype(program, first))
            .filter(|first| {
                let group = &groups[first];
                group.operands + inputs.len() <= MAX_OPERANDS + 1 && group.members.len() < MAX_MEMBERS
            });
        // Truth values are only numbers inside of a chain.
        if joined.is_none() && part.truth {
            continue;
        }
        let first = joined.unwrap_or(id);
        root.insert(id, first);
        let group = groups.entry(first).or_default();
        group.members.push(id);
        group.operands += inputs.len() - usize::from(joined.is_some());
    }
    let fused = |&id: &NodeId| {
        let group = groups.get(&id).filter(|group| group.members.len() > 1)?;
        Some(Fused {
            node: fuse(program, id, &group.members)?,
            first: id,
            outputs: vec![TensorId::new(id, 0)],
        })
    };
    uses.order.iter().filter_map(fused).collect()
}

fn shape_of(program: &Program, id: NodeId) -> &PartialShape {
    &program.node(id).outputs[0].shape
}

/// The dtype that an operation computes in: that of its numbers, where it gives truth values.
fn dtype(program: &Program, id: NodeId) -> Option<DType> {
    part(program, id).map(|part| part.dtype)
}

/// What an operation is in a chain.
pub(super) struct Part {
    pub(super) function: Function,
    /// The dtype that it computes in.
    dtype: DType,
    /// Whether its result is truth values.
    pub(super) truth: bool,
}

/// What the operation would be in a chain; `None` if it cannot be in one.
pub(super) fn part(program: &Program, id: NodeId) -> Option<Part> {
    let node = program.node(id);
    let (function, truth) = match node.op() {
        "Add" | "AddV2" | "AddN" | "BiasAdd" | "BiasAddV1" => (Function::Add, false),
        "Sub" => (Function::Sub, false),
        "Mul" => (Function::Mul, false),
        "RealDiv" => (Function::Div, false),
        "Maximum" => (Function::Maximum, false),
        "Minimum" => (Function::Minimum, false),
        "SquaredDifference" => (Function::SquaredDifference, false),
        "ReluGrad" => (Function::ReluGrad, false),
        "TanhGrad" => (Function::TanhGrad, false),
        "SigmoidGrad" => (Function::SigmoidGrad, false),
        "Greater" => (Function::Greater, true),
        "GreaterEqual" => (Function::GreaterEqual, true),
        "Less" => (Function::Less, true),
        "LessEqual" => (Function::LessEqual, true),
        "Cast" => (Function::Identity, false),
        "Neg" => (Function::Neg, false),
        "Abs" => (Function::Abs, false),
        "Sign" => (Function::Sign, false),
        "Square" => (Function::Square, false),
        "Sqrt" => (Function::Sqrt, false),
        "Rsqrt" => (Function::Rsqrt, false),
        "Inv" | "Reciprocal" => (Function::Reciprocal, false),
        "Relu" => (Function::Relu, false),
        "Exp" => (Function::Exp, false),
        "Log" => (Function::Log, false),
        "Tanh" => (Function::Tanh, false),
        "Sigmoid" => (Function::Sigmoid, false),
        _ => return None,
    };
    let output = |tensor: &TensorId| &program.node(tensor.node).outputs[tensor.slot as usize];
    let references = node.inputs.iter().any(|input| output(input).is_ref);
    let channels_last = !node.op().starts_with("BiasAdd")
        || node
            .attrs
            .read::<String>("data_format")
            .map_or(true, |format| format == "NHWC");
    if references || !channels_last || !node.outputs[0].shape.is_fully_defined() {
        return None;
    }
    let dtype = match node.op() {
        // Only of comparisons in the same chain, which the search sees to: nothing else in it gives truth values.
        "Cast" => {
            let source = node.inputs[0];
            let compares = part(program, source.node).filter(|part| part.truth)?;
            let to = node.outputs[0].dtype;
            (compares.dtype == to).then_some(to)?
        }
        _ => output(node.inputs.first()?).dtype,
    };
    matches!(dtype, DType::Float32 | DType::Float64).then_some(Part { function, dtype, truth })
}

/// The operation that stands for `members`, of which `root` gives the result; `None` if there are too many operands, or if
/// the truth values that a `Cast` takes are not in the chain.
fn fuse(program: &Program, root: NodeId, members: &[NodeId]) -> Option<Node> {
    // Members were found from the last to the first.
    let inside: FxHashSet<NodeId> = members.iter().copied().collect();
    let mut operands: Vec<TensorId> = Vec::new();
    for &id in members.iter().rev() {
        for &input in &program.node(id).inputs {
            if !inside.contains(&input.node) && !operands.contains(&input) {
                operands.push(input);
            }
        }
    }
    let number = dtype(program, root)?;
    let numbers = |tensor: &TensorId| program.node(tensor.node).outputs[tensor.slot as usize].dtype == number;
    if operands.len() > MAX_OPERANDS || !operands.iter().all(numbers) {
        return None;
    }
    let mut value: FxHashMap<TensorId, usize> = operands.iter().copied().zip(0..).collect();
    let mut instructions: Vec<i64> = Vec::new();
    let mut next = operands.len();
    for &id in members.iter().rev() {
        let node = program.node(id);
        let function = part(program, id)?.function;
        let inputs: Vec<usize> = node
            .inputs
            .iter()
            .map(|input| value.get(input).copied())
            .collect::<Option<_>>()?;
        let mut emit = |x: usize, y: usize, function: Function| {
            instructions.extend([function as i64, x as i64, y as i64, x as i64]);
            next += 1;
            next - 1
        };
        let result = match inputs[..] {
            [x] if function == Function::Add => emit(x, x, Function::Identity),
            [x] => emit(x, x, function),
            [x, y] => emit(x, y, function),
            // `AddN` adds from the first to the last.
            [first, ref rest @ ..] => rest.iter().fold(first, |sum, &term| emit(sum, term, function)),
            [] => return None,
        };
        value.insert(TensorId::new(id, 0), result);
    }
    let node = program.node(root);
    let mut attrs = Attributes::new();
    attrs.set("T", number);
    attrs.set("N", operands.len() as i64);
    attrs.set("instructions", instructions);
    attrs.set("shape", node.outputs[0].shape.clone());
    Some(Node {
        definition: definition(),
        attrs,
        inputs: operands.into_iter().collect(),
        control_inputs: Default::default(),
        ..node.clone()
    })
}

pub(crate) fn definition() -> &'static OpDefinition {
    static DEFINITION: OnceLock<OpDefinition> = OnceLock::new();
    DEFINITION.get_or_init(|| {
        let mut definition = OpDefinition::new(OP, "A chain of element-wise operations.")
            .input("operands: N * T")
            .output("result: T")
            .attr("N: int >= 1")
            .attr("T: {float, double}")
            .attr("instructions: list(int)")
            .attr("shape: shape")
            .not_differentiable()
            .shape(|context: &mut InferenceContext<'_>| {
                let shape: PartialShape = context.attr("shape")?;
                context.set_output(0, shape);
                Ok(())
            });
        let kernels = [
            KernelDefinition::cpu(kernel::<f32>).types("T", &[DType::Float32]),
            KernelDefinition::cpu(kernel::<f64>).types("T", &[DType::Float64]),
            KernelDefinition::cuda(on_device).types("T", &[DType::Float32, DType::Float64]),
        ];
        for mut kernel in kernels {
            // An operand that has as many bytes as the result is whole, and each block of it is read before it is written.
            kernel.in_place = (0..MAX_OPERANDS).map(|input| (input, 0)).collect();
            definition = definition.kernel(kernel);
        }
        definition
    })
}

/// The chain that the attribute `instructions` describes, over operands of these shapes.
pub(crate) fn chain<'a>(
    request: &KernelRequest<'_>,
    operands: impl Iterator<Item = &'a Shape>,
    result: &Shape,
) -> Result<Chain> {
    let (layouts, instructions) = parts(request, operands, result)?;
    Chain::new(layouts, &instructions).ok_or_else(broken)
}

fn broken() -> Error {
    Error::internal("a chain of element-wise operations is broken")
}

/// The same as the layouts of its operands and its instructions.
pub(crate) fn parts<'a>(
    request: &KernelRequest<'_>,
    operands: impl Iterator<Item = &'a Shape>,
    result: &Shape,
) -> Result<(Vec<Layout>, Vec<Instruction>)> {
    let layouts = operands.map(|operand| Layout::new(operand, result));
    let layouts = layouts.collect::<Option<Vec<_>>>().ok_or_else(broken)?;
    let numbers: Vec<i64> = request.attr("instructions")?;
    Ok((layouts, of_numbers(&numbers).ok_or_else(broken)?))
}

/// The chains, of instructions that lie one after the other, that two attributes describe: the instructions of all, and how many
/// numbers belong to each.
pub(crate) fn chains(
    request: &KernelRequest<'_>,
    operands: &[Shape],
    result: &Shape,
    [instructions, lengths]: [&str; 2],
) -> Result<Vec<Chain>> {
    let layouts = operands.iter().map(|operand| Layout::new(operand, result));
    let layouts = layouts.collect::<Option<Vec<_>>>().ok_or_else(broken)?;
    let (lengths, instructions): (Vec<i64>, Vec<i64>) = (request.attr(lengths)?, request.attr(instructions)?);
    let mut rest = &instructions[..];
    let mut chains = Vec::with_capacity(lengths.len());
    for length in lengths {
        let (own, others) = rest.split_at_checked(length as usize).ok_or_else(broken)?;
        let instructions = of_numbers(own).ok_or_else(broken)?;
        chains.push(Chain::new(layouts.clone(), &instructions).ok_or_else(broken)?);
        rest = others;
    }
    Ok(chains)
}

/// The instructions that numbers describe, four each: its function and its operands.
pub(super) fn of_numbers(numbers: &[i64]) -> Option<Vec<Instruction>> {
    let instruction = |numbers: &[i64]| {
        let [function, operands @ ..]: [usize; 4] =
            [numbers[0], numbers[1], numbers[2], numbers[3]].map(|n| n as usize);
        Function::from_number(function).map(|function| Instruction { function, operands })
    };
    numbers.chunks_exact(4).map(instruction).collect()
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.output_shape(0)?;
    let (layouts, instructions) = parts(request, request.input_shapes.iter(), shape)?;
    let dtype = request.output_dtype(0);
    let chain = device::Chain::new(request, dtype, &layouts, instructions, shape.num_elements())?;
    Ok(Planned::new(move |context| {
        let operands = (0..context.num_inputs()).map(|index| context.input_address(index));
        // SAFETY: the operands have the shapes from which the layouts were made.
        unsafe { chain.run(device::Operands::new(operands), context.output_address(0)) }
    }))
}

fn kernel<T: Element + ChainElement>(request: &KernelRequest<'_>) -> Result<Planned> {
    let chain = chain(request, request.input_shapes.iter(), request.output_shape(0)?)?;
    Ok(Planned::new(move |context| {
        let operands = (0..context.num_inputs())
            .map(|index| context.input_ptr::<T>(index))
            .collect::<Result<Short<_>>>()?;
        let len = context.output_shape(0).num_elements();
        let out = context.output_ptr::<T>(0)?;
        // SAFETY: slots are valid for their shapes, from which the layouts were made; the output shares memory with a whole
        // operand at most.
        unsafe { chain.run(&operands, out, len) };
        Ok(())
    }))
}
