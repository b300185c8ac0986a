//! Chains of element-wise operations become one pass over memory.

use std::ops::Range;
use std::sync::OnceLock;

use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::{
    Attributes, InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned,
};
use graph_core::rewrite::Program;
use graph_core::{DType, Element, Error, PartialShape, Result, Shape};
use half::{bf16, f16};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Fused, Fusion, Serves, Uses};
use crate::cpu::Short;
use crate::cpu::chain::{Chain, ChainElement, Function, Instruction, Operand, Precision};
use crate::cuda::{FLOATS, chain as device};

/// Replaces trees of element-wise operations by one operation each.
///
/// An operation joins the one that takes its result if nothing else takes it and both have the same shape, so that every
/// element is computed once, as before. Comparisons join where a `Cast` makes numbers of their truth values. A chain is computed
/// in `double`, or in `float`, and then a `Cast` may lead from one of `float`, `half` and `bfloat16` to another in it.
pub(crate) const ELEMENTWISE: Fusion = Fusion {
    name: "elementwise_fusion",
    serves: Serves::All,
    find,
};

/// The name of the op that chains become.
pub(super) const OP: &str = "_FusedElementwise";

/// The most operands of one chain.
const MAX_OPERANDS: usize = 16;

/// How many numbers an instruction is.
const NUMBERS: usize = 5;

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
        let of_truth = program.node(id).op() == "Cast" && dtype_of(program, inputs[0]) == DType::Bool;
        if of_truth && (uses.stays(inputs[0].node) || uses.only(inputs[0]) != Some(id)) {
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
            .filter(|&first| Some(computing(part.dtype)) == dtype(program, first).map(computing))
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
            others: Vec::new(),
            outputs: vec![TensorId::new(id, 0)],
        })
    };
    uses.order.iter().filter_map(fused).collect()
}

fn shape_of(program: &Program, id: NodeId) -> &PartialShape {
    &program.node(id).outputs[0].shape
}

/// The dtype of a tensor.
pub(super) fn dtype_of(program: &Program, tensor: TensorId) -> DType {
    program.node(tensor.node).outputs[tensor.slot as usize].dtype
}

/// Whether it is a dtype of 16 bits.
pub(super) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::Half | DType::BFloat16)
}

/// The dtype that chains with numbers of this dtype are computed in.
fn computing(dtype: DType) -> DType {
    match dtype {
        DType::Float64 => DType::Float64,
        _ => DType::Float32,
    }
}

/// The dtype of an operation's result, or that of its numbers, where it gives truth values.
fn dtype(program: &Program, id: NodeId) -> Option<DType> {
    part(program, id).map(|part| part.dtype)
}

/// What an operation is in a chain.
pub(super) struct Part {
    pub(super) function: Function,
    /// The dtype of its result, or that of its numbers, where it gives truth values.
    pub(super) dtype: DType,
    /// Whether its result is truth values.
    pub(super) truth: bool,
}

/// What the operation would be in a chain; `None` if it cannot be in one.
pub(super) fn part(program: &Program, id: NodeId) -> Option<Part> {
    let node = program.node(id);
    let (function, truth) = match node.op() {
        "Add" | "AddV2" | "BiasAdd" | "BiasAddV1" => (Function::Add, false),
        "AddN" if node.inputs.len() > 1 => (Function::Add, false),
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
        "Cast" => {
            let (source, to) = (node.inputs[0], node.outputs[0].dtype);
            let from = match output(&source).dtype {
                // Only of comparisons in the same chain, which the search sees to: nothing else in it gives truth values.
                DType::Bool => part(program, source.node).filter(|part| part.truth)?.dtype,
                number => number,
            };
            let rounds = !node.attrs.read("Truncate").unwrap_or(false);
            (FLOATS.contains(&from) && computing(from) == computing(to) && rounds).then_some(to)?
        }
        _ => output(node.inputs.first()?).dtype,
    };
    FLOATS.contains(&dtype).then_some(Part { function, dtype, truth })
}

/// An instruction as the attribute `instructions` has it: the numbers of its function, its operands and its precision.
pub(crate) fn numbers_of(function: Function, [x, y, z]: [usize; 3], dtype: DType) -> [i64; NUMBERS] {
    let precision = Precision::of(dtype);
    [function as i64, x as i64, y as i64, z as i64, precision as i64]
}

/// Whether the result may lie over the operand where that has as many bytes: if it is whole then, and of the same dtype.
fn may_lie_under(program: &Program, tensor: TensorId, root: NodeId) -> bool {
    let (operand, result) = (
        &program.node(tensor.node).outputs[tensor.slot as usize],
        &program.node(root).outputs[0],
    );
    let bytes = |dtype: DType, shape: &PartialShape| Some(dtype.size()? * shape.num_elements()?);
    let same_bytes = || match bytes(operand.dtype, &operand.shape) {
        Some(own) => own > 0 && Some(own) == bytes(result.dtype, &result.shape),
        None => true,
    };
    operand.dtype == result.dtype || !same_bytes()
}

/// The operation that stands for `members`, of which `root` gives the result; `None` if there are too many operands, if the
/// truth values that a `Cast` takes are not in the chain, or if an operand of another dtype has as many bytes as the result.
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
    let types: Vec<DType> = operands.iter().map(|&tensor| dtype_of(program, tensor)).collect();
    let fits = operands.iter().all(|&tensor| may_lie_under(program, tensor, root));
    if operands.len() > MAX_OPERANDS || !types.iter().all(|dtype| FLOATS.contains(dtype)) || !fits {
        return None;
    }
    let mut value: FxHashMap<TensorId, usize> = operands.iter().copied().zip(0..).collect();
    let mut instructions: Vec<i64> = Vec::new();
    let mut next = operands.len();
    for &id in members.iter().rev() {
        let node = program.node(id);
        let Part { function, dtype, .. } = part(program, id)?;
        let inputs: Vec<usize> = node
            .inputs
            .iter()
            .map(|input| value.get(input).copied())
            .collect::<Option<_>>()?;
        let mut emit = |x: usize, y: usize, function: Function| {
            instructions.extend(numbers_of(function, [x, y, x], dtype));
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
    attrs.set("T", dtype(program, root)?);
    attrs.set("operand_types", types);
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
            .input("operands: operand_types")
            .output("result: T")
            .attr("operand_types: list(type) >= 1")
            .attr("T: {half, bfloat16, float, double}")
            .attr("instructions: list(int)")
            .attr("shape: shape")
            .not_differentiable()
            .shape(|context: &mut InferenceContext<'_>| {
                let shape: PartialShape = context.attr("shape")?;
                context.set_output(0, shape);
                Ok(())
            });
        let kernels = [
            KernelDefinition::cpu(kernel::<f32>).types("T", &[DType::Float32, DType::Half, DType::BFloat16]),
            KernelDefinition::cpu(kernel::<f64>).types("T", &[DType::Float64]),
            KernelDefinition::cuda(on_device).types("T", FLOATS),
        ];
        for mut kernel in kernels {
            // An operand that has as many bytes as the result is whole and of its dtype, and each block of it is read before it
            // is written.
            kernel.in_place = (0..MAX_OPERANDS).map(|input| (input, 0)).collect();
            definition = definition.kernel(kernel);
        }
        definition
    })
}

fn broken() -> Error {
    Error::internal("a chain of element-wise operations is broken")
}

/// The operands of a chain over these inputs, whose result has this shape.
pub(crate) fn operands(request: &KernelRequest<'_>, inputs: Range<usize>, result: &Shape) -> Result<Vec<Operand>> {
    let operand = |index: usize| Operand::new(request.input_dtype(index), request.input_shape(index), result);
    inputs.map(operand).collect::<Option<Vec<_>>>().ok_or_else(broken)
}

/// The instructions of the attribute `instructions`.
pub(crate) fn instructions(request: &KernelRequest<'_>) -> Result<Vec<Instruction>> {
    let numbers: Vec<i64> = request.attr("instructions")?;
    of_numbers(&numbers).ok_or_else(broken)
}

/// The chain that the attribute `instructions` describes, over these inputs.
pub(crate) fn chain(request: &KernelRequest<'_>, inputs: Range<usize>, result: &Shape) -> Result<Chain> {
    let operands = operands(request, inputs, result)?;
    Chain::new(operands, &instructions(request)?).ok_or_else(broken)
}

/// The instructions that numbers describe.
pub(super) fn of_numbers(numbers: &[i64]) -> Option<Vec<Instruction>> {
    let instruction = |numbers: &[i64; NUMBERS]| {
        let [function, operands @ .., precision] = numbers.map(|number| number as usize);
        Some(Instruction {
            function: Function::from_number(function)?,
            operands,
            precision: Precision::from_number(precision)?,
        })
    };
    let (instructions, []) = numbers.as_chunks() else {
        return None;
    };
    instructions.iter().map(instruction).collect()
}

/// Where these inputs, the operands of a chain that is computed in `T`, lie.
pub(crate) fn pointers<T: Element>(context: &KernelContext<'_>, inputs: Range<usize>) -> Result<Short<*const u8>> {
    let pointer = |index: usize| match context.input_dtype(index) {
        DType::Half => context.input_ptr::<f16>(index).map(<*const f16>::cast),
        DType::BFloat16 => context.input_ptr::<bf16>(index).map(<*const bf16>::cast),
        _ => context.input_ptr::<T>(index).map(<*const T>::cast),
    };
    inputs.map(pointer).collect()
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.output_shape(0)?;
    let operands = operands(request, 0..request.num_inputs(), shape)?;
    let (dtype, len) = (request.output_dtype(0), shape.num_elements());
    let chain = device::Chain::new(request, dtype, &operands, instructions(request)?, len)?;
    Ok(Planned::new(move |context| {
        let operands = (0..context.num_inputs()).map(|index| context.input_address(index));
        // SAFETY: the operands have the dtypes and the shapes from which the chain was made.
        unsafe { chain.run(device::Operands::new(operands), context.output_address(0)) }
    }))
}

fn kernel<T: Element + ChainElement>(request: &KernelRequest<'_>) -> Result<Planned> {
    let chain = chain(request, 0..request.num_inputs(), request.output_shape(0)?)?;
    let dtype = request.output_dtype(0);
    Ok(Planned::new(move |context| {
        let operands = pointers::<T>(context, 0..context.num_inputs())?;
        let len = context.output_shape(0).num_elements();
        let out = match dtype {
            DType::Half => context.output_ptr::<f16>(0)?.cast(),
            DType::BFloat16 => context.output_ptr::<bf16>(0)?.cast(),
            _ => context.output_ptr::<T>(0)?.cast(),
        };
        // SAFETY: slots are valid for their dtypes and shapes, from which the chain was made; the output shares memory with a
        // whole operand of its dtype at most.
        unsafe { chain.run::<T>(&operands, out, len) };
        Ok(())
    }))
}
