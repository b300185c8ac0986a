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
const SHAPES: [(&[&[usize]], &[usize]); 6] = [
    (&[&[7], &[7], &[7]], &[7]),
    (&[&[3, 4, 5], &[], &[5]], &[3, 4, 5]),
    (&[&[3, 4, 5], &[3, 1, 5], &[1, 4, 1]], &[3, 4, 5]),
    (&[&[1, 4, 1, 2], &[3, 1, 5, 1], &[2]], &[3, 4, 5, 2]),
    (&[&[5000], &[1], &[5000]], &[5000]),
    (&[&[0, 3], &[3], &[]], &[0, 3]),
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

#[test]
fn chains_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(21);
    for (shapes, result) in SHAPES {
        for dtype in FLOATS.iter().copied() {
            let instructions = every_function(&mut numbers, shapes.len(), dtype);
            let chain = chain_of(&vec![dtype; shapes.len()], instructions, dtype, result);
            // Functions of the two devices are apart in the last bits of `float`, which may round to neighbours.
            let tolerance = match dtype {
                DType::Float64 => (1e-13, 1e-13),
                DType::Float32 => (2e-6, 2e-6),
                DType::Half => (2e-3, 2e-3),
                _ => (2e-2, 2e-2),
            };
            let inputs = operands(&mut numbers, shapes, dtype);
            check_node(&device, &chain, &inputs, tolerance, &format!("{shapes:?} {dtype:?}"));
        }
    }
}

/// `(a + b) c + d`, of which `a` and `c` are stored in one dtype and `b` and `d` in another: sums and products are rounded alike.
#[test]
fn chains_go_over_from_one_dtype_to_another() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(23);
    let number_types = [DType::Float32, DType::Half, DType::BFloat16];
    let pairs = number_types
        .iter()
        .flat_map(|&one| number_types.map(|other| (one, other)));
    for (one, other) in pairs {
        let instructions = [
            numbers_of(Function::Add, [0, 1, 0], one),
            numbers_of(Function::Identity, [4, 4, 4], other),
            numbers_of(Function::Mul, [5, 2, 5], DType::Float32),
            numbers_of(Function::Add, [6, 3, 6], other),
        ];
        let (types, result) = ([one, other, one, other], [6, 50]);
        let chain = chain_of(&types, instructions.concat(), other, &result);
        let shapes: [&[usize]; 4] = [&result, &[50], &[6, 1], &[]];
        let inputs: Vec<Value> = shapes
            .iter()
            .zip(types)
            .map(|(&shape, dtype)| cast(&numbers.tensor(shape), dtype))
            .collect();
        check_node(&device, &chain, &inputs, (1e-6, 1e-6), &format!("{one:?} {other:?}"));
    }
}

#[test]
pub(super) fn each_function_is_that_of_the_cpu() {
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

#[test]
pub(super) fn sums_of_chains_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(22);
    for (shapes, result) in SHAPES
        .into_iter()
        .chain([(&[&[70_000usize][..], &[], &[]][..], &[70_000usize][..])])
    {
        for dtype in FLOATS.iter().copied() {
            let square = numbers_of(Function::Square, [0; 3], dtype);
            // So many that they need two turns.
            for count in [1usize, 2, 18] {
                let product = [(Function::Mul, [0, 1, 0]), (Function::Sub, [3, 2, 3])];
                let product = product
                    .map(|(function, operands)| numbers_of(function, operands, dtype))
                    .concat();
                let chains: Vec<&[i64]> = (0..count)
                    .map(|at| if at % 2 == 0 { &product[..] } else { &square })
                    .collect();
                let lengths: Vec<i64> = chains.iter().map(|chain| chain.len() as i64).collect();
                let scales: Vec<f32> = (0..count).map(|at| 0.5 + at as f32).collect();
                let attrs: Vec<(&'static str, AttrValue)> = vec![
                    ("T", dtype.into()),
                    ("operand_types", vec![dtype; shapes.len()].into()),
                    ("M", (count as i64).into()),
                    ("instructions", chains.concat().into()),
                    ("lengths", lengths.into()),
                    ("scales", scales.into()),
                    ("shape", shape_of(result).into()),
                    ("shapes", vec![PartialShape::scalar(); count].into()),
                ];
                let sums = node(sum::definition(), attrs, &vec![dtype; count]);
                let inputs = operands(&mut numbers, shapes, dtype);
                let tolerance = match dtype {
                    DType::Float64 => (1e-12, 1e-12),
                    DType::Float32 => (1e-5, 1e-5),
                    DType::Half => (2e-3, 2e-3),
                    _ => (2e-2, 2e-2),
                };
                check_node(
                    &device,
                    &sums,
                    &inputs,
                    tolerance,
                    &format!("{count} {shapes:?} {dtype:?}"),
                );
            }
        }
    }
}
