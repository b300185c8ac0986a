//! Chains of element-wise operations, and their sums.

use graph_core::graph::Node;
use graph_core::op::AttrValue;
use graph_core::{DType, PartialShape, Value};

use super::{Numbers, cast, check_node, device, node};
use crate::cpu::chain::Function;
use crate::cuda::FLOATS;
use crate::rewrite::elementwise::{self, numbers_of};
use crate::rewrite::sum;

/// How many functions there are.
const FUNCTIONS: usize = 30;

/// Instructions over `operands` operands: every function of some of them, then the sum of all results, in `dtype`.
fn every_function(numbers: &mut Numbers, operands: usize, dtype: DType) -> Vec<i64> {
    let mut instructions = Vec::new();
    for function in 0..FUNCTIONS {
        let function = Function::from_number(function).expect("a function");
        let operands = [0; 3].map(|_| numbers.among(0, operands - 1));
        instructions.extend(numbers_of(function, operands, dtype));
    }
    for (at, other) in (1..FUNCTIONS).enumerate() {
        let sum = if at == 0 {
            operands
        } else {
            operands + FUNCTIONS + at - 1
        };
        let term = operands + other;
        instructions.extend(numbers_of(Function::Add, [sum, term, term], dtype));
    }
    instructions
}

fn operands(numbers: &mut Numbers, shapes: &[&[usize]], dtype: DType) -> Vec<Value> {
    let mut positive = |shape: &[usize]| {
        let value = numbers.tensor(shape);
        let numbers = value.as_slice::<f64>().expect("numbers").iter().map(|x| x + 1.5);
        Value::from_vec(shape.to_vec(), numbers.collect::<Vec<f64>>()).expect("a value")
    };
    shapes.iter().map(|shape| cast(&positive(shape), dtype)).collect()
}

/// Shapes of operands, and of the result.
const SHAPES: [Shapes; 6] = [
    (&[&[7], &[7], &[7]], &[7]),
    (&[&[3, 4, 5], &[], &[5]], &[3, 4, 5]),
    (&[&[3, 4, 5], &[3, 1, 5], &[1, 4, 1]], &[3, 4, 5]),
    (&[&[1, 4, 1, 2], &[3, 1, 5, 1], &[2]], &[3, 4, 5, 2]),
    (&[&[5000], &[1], &[5000]], &[5000]),
    (&[&[0, 3], &[3], &[]], &[0, 3]),
];

/// Dtypes that a chain goes from and to.
const BETWEEN: [(DType, DType); 6] = [
    (DType::Float32, DType::Half),
    (DType::Float32, DType::BFloat16),
    (DType::Half, DType::Float32),
    (DType::Half, DType::BFloat16),
    (DType::BFloat16, DType::Float32),
    (DType::BFloat16, DType::Half),
];

fn shape_of(dims: &[usize]) -> PartialShape {
    PartialShape::from_dims(dims.iter().map(|&dim| Some(dim)))
}

/// A chain over operands of these dtypes.
fn chain_of(types: &[DType], instructions: Vec<i64>, dtype: DType, result: &[usize]) -> Node {
    let attrs: Vec<(&'static str, AttrValue)> = vec![
        ("T", dtype.into()),
        ("operand_types", types.to_vec().into()),
        ("instructions", instructions.into()),
        ("shape", shape_of(result).into()),
    ];
    node(elementwise::definition(), attrs, &[dtype])
}

/// Operands' shapes, and the result's.
type Shapes = (&'static [&'static [usize]], &'static [usize]);

/// A chain of every function in one dtype, and its operands.
fn chain_in(numbers: &mut Numbers, dtype: DType, (shapes, result): Shapes) -> (Node, Vec<Value>) {
    let instructions = every_function(numbers, shapes.len(), dtype);
    let chain = chain_of(&vec![dtype; shapes.len()], instructions, dtype, result);
    (chain, operands(numbers, shapes, dtype))
}

/// `(a + b) c + d`, of which `a` and `c` are stored in one dtype and `b` and `d` in another, and the operands.
fn chain_between(numbers: &mut Numbers, one: DType, other: DType) -> (Node, Vec<Value>) {
    let instructions = [
        numbers_of(Function::Add, [0, 1, 0], one),
        numbers_of(Function::Identity, [4, 4, 4], other),
        numbers_of(Function::Mul, [5, 2, 5], DType::Float32),
        numbers_of(Function::Add, [6, 3, 6], other),
    ];
    let (types, result) = ([one, other, one, other], [6, 50]);
    let shapes: [&[usize]; 4] = [&result, &[50], &[6, 1], &[]];
    let inputs = shapes
        .iter()
        .zip(types)
        .map(|(&shape, dtype)| cast(&numbers.tensor(shape), dtype));
    let inputs = inputs.collect();
    (chain_of(&types, instructions.concat(), other, &result), inputs)
}

/// So many sums of chains over each of the sets of operands, and all operands.
fn sums_in(numbers: &mut Numbers, dtype: DType, count: usize, sets: &[Shapes]) -> (Node, Vec<Value>) {
    let square = numbers_of(Function::Square, [0; 3], dtype);
    let product = [(Function::Mul, [0, 1, 0]), (Function::Sub, [3, 2, 3])];
    let product = product
        .map(|(function, operands)| numbers_of(function, operands, dtype))
        .concat();
    let chains: Vec<&[i64]> = (0..count)
        .map(|at| if at % 2 == 0 { &product[..] } else { &square })
        .collect();
    let lengths: Vec<i64> = chains.iter().map(|chain| chain.len() as i64).collect();
    let all = count * sets.len();
    let scales: Vec<f32> = (0..all).map(|at| 0.5 + at as f32).collect();
    let operand_shapes: Vec<&[usize]> = sets.iter().flat_map(|(shapes, _)| shapes.iter().copied()).collect();
    let set_shapes: Vec<PartialShape> = sets.iter().map(|(_, result)| shape_of(result)).collect();
    let attrs: Vec<(&'static str, AttrValue)> = vec![
        ("T", dtype.into()),
        ("operand_types", vec![dtype; operand_shapes.len()].into()),
        ("M", (all as i64).into()),
        ("instructions", chains.concat().into()),
        ("lengths", lengths.into()),
        ("scales", scales.into()),
        ("set_shapes", set_shapes.into()),
        ("shapes", vec![PartialShape::scalar(); all].into()),
    ];
    let sums = node(sum::definition(), attrs, &vec![dtype; all]);
    (sums, operands(numbers, &operand_shapes, dtype))
}

/// A chain of each dtype and between each two, and sums.
pub(super) fn nodes(numbers: &mut Numbers) -> Vec<(Node, Vec<Value>)> {
    let mut nodes = Vec::new();
    for &dtype in FLOATS {
        nodes.push(chain_in(numbers, dtype, SHAPES[1]));
        nodes.push(sums_in(numbers, dtype, 2, &SHAPES[1..2]));
        nodes.push(sums_in(numbers, dtype, 2, &[SHAPES[0], SHAPES[0]]));
    }
    nodes.extend(BETWEEN.map(|(one, other)| chain_between(numbers, one, other)));
    nodes
}

#[test]
fn chains_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(21);
    for (shapes, result) in SHAPES {
        for dtype in FLOATS.iter().copied() {
            let (chain, inputs) = chain_in(&mut numbers, dtype, (shapes, result));
            // Functions of the two devices are apart in the last bits of `float`, which may round to neighbours.
            let tolerance = match dtype {
                DType::Float64 => (1e-13, 1e-13),
                DType::Float32 => (2e-6, 2e-6),
                DType::Half => (2e-3, 2e-3),
                _ => (2e-2, 2e-2),
            };
            check_node(&device, &chain, &inputs, tolerance, &format!("{shapes:?} {dtype:?}"));
        }
    }
}

#[test]
fn chains_go_over_from_one_dtype_to_another() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(23);
    for (one, other) in BETWEEN {
        let (chain, inputs) = chain_between(&mut numbers, one, other);
        check_node(&device, &chain, &inputs, (1e-6, 1e-6), &format!("{one:?} {other:?}"));
    }
}

#[test]
fn each_function_is_that_of_the_cpu() {
    let Some(device) = device() else { return };
    let odd = [
        0.0,
        -0.0,
        1.0,
        -2.5,
        0.3,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        40.0,
        -40.0,
    ];
    let pairs = || odd.iter().flat_map(|&x| odd.iter().map(move |&y| (x, y)));
    let x: Vec<f64> = pairs().map(|(x, _)| x).collect();
    let y: Vec<f64> = pairs().map(|(_, y)| y).collect();
    let z: Vec<f64> = (0..x.len()).map(|i| i as f64).collect();
    let inputs: Vec<Value> = [x, y, z].map(Value::from).into();
    for function in 0..FUNCTIONS {
        let function = Function::from_number(function).expect("a function");
        let instructions = numbers_of(function, [0, 1, 2], DType::Float64).to_vec();
        let chain = chain_of(&[DType::Float64; 3], instructions, DType::Float64, inputs[0].shape());
        let label = format!("{function:?}");
        check_node(&device, &chain, &inputs, (1e-14, 0.0), &label);
    }
}

/// How far sums of this dtype may be apart.
fn tolerance_of_sums(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::Float64 => (1e-12, 1e-12),
        DType::Float32 => (1e-5, 1e-5),
        DType::Half => (2e-3, 2e-3),
        _ => (2e-2, 2e-2),
    }
}

#[test]
fn sums_of_chains_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(22);
    const LONG: Shapes = (&[&[70_000], &[], &[]], &[70_000]);
    for shapes in SHAPES.into_iter().chain([LONG]) {
        for dtype in FLOATS.iter().copied() {
            // So many that they need two turns.
            for count in [1usize, 2, 18] {
                let (sums, inputs) = sums_in(&mut numbers, dtype, count, &[shapes]);
                let label = format!("{count} {shapes:?} {dtype:?}");
                check_node(&device, &sums, &inputs, tolerance_of_sums(dtype), &label);
            }
        }
    }
}

#[test]
fn sums_over_several_sets_of_operands_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(24);
    const WHOLE: [Shapes; 3] = [
        (&[&[7], &[7], &[7]], &[7]),
        (&[&[90, 100], &[90, 100], &[90, 100]], &[90, 100]),
        (&[&[0], &[0], &[0]], &[0]),
    ];
    const SCALARS: Shapes = (&[&[5000], &[], &[5000]], &[5000]);
    let cases: [Vec<Shapes>; 4] = [
        WHOLE.to_vec(),
        // More than one kernel takes.
        WHOLE.into_iter().cycle().take(35).collect(),
        // Some are broadcast, and some of another text.
        vec![
            WHOLE[0], SHAPES[2], WHOLE[1], WHOLE[0], SCALARS, SCALARS, SHAPES[3], SHAPES[3],
        ],
        vec![SHAPES[2]],
    ];
    for sets in cases {
        for (dtype, count) in FLOATS.iter().copied().zip([1usize, 2, 3, 2]) {
            let (sums, inputs) = sums_in(&mut numbers, dtype, count, &sets);
            let label = format!("{count} over {} sets, {dtype:?}", sets.len());
            check_node(&device, &sums, &inputs, tolerance_of_sums(dtype), &label);
        }
    }
}
