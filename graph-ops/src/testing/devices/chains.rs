//! Chains of element-wise operations, and their sums.

use graph_core::op::AttrValue;
use graph_core::{DType, PartialShape, Value};

use super::{Numbers, cast, check_node, device, node};
use crate::cpu::chain::Function;
use crate::rewrite::{elementwise, sum};

/// How many functions there are.
const FUNCTIONS: usize = 30;

/// Instructions over `operands` operands: every function of some of them, then the sum of all results.
fn every_function(numbers: &mut Numbers, operands: usize) -> Vec<i64> {
    let mut instructions = Vec::new();
    for function in 0..FUNCTIONS {
        assert!(Function::from_number(function).is_some());
        let [x, y, z] = [0; 3].map(|_| numbers.among(0, operands - 1) as i64);
        instructions.extend([function as i64, x, y, z]);
    }
    for (at, other) in (1..FUNCTIONS).enumerate() {
        let sum = if at == 0 {
            operands
        } else {
            operands + FUNCTIONS + at - 1
        };
        let term = (operands + other) as i64;
        instructions.extend([Function::Add as i64, sum as i64, term, term]);
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

#[test]
fn chains_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(21);
    for (shapes, result) in SHAPES {
        for (dtype, tolerance) in [(DType::Float64, (1e-13, 1e-13)), (DType::Float32, (2e-6, 2e-6))] {
            let attrs: Vec<(&'static str, AttrValue)> = vec![
                ("T", dtype.into()),
                ("N", (shapes.len() as i64).into()),
                ("instructions", every_function(&mut numbers, shapes.len()).into()),
                ("shape", shape_of(result).into()),
            ];
            let chain = node(elementwise::definition(), attrs, &[dtype]);
            let inputs = operands(&mut numbers, shapes, dtype);
            check_node(&device, &chain, &inputs, tolerance, &format!("{shapes:?} {dtype:?}"));
        }
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
        let attrs: Vec<(&'static str, AttrValue)> = vec![
            ("T", DType::Float64.into()),
            ("N", 3i64.into()),
            ("instructions", vec![function as i64, 0, 1, 2].into()),
            ("shape", shape_of(inputs[0].shape()).into()),
        ];
        let chain = node(elementwise::definition(), attrs, &[DType::Float64]);
        let label = format!("{:?}", Function::from_number(function));
        check_node(&device, &chain, &inputs, (1e-14, 0.0), &label);
    }
}

#[test]
pub(super) fn sums_of_chains_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(22);
    let square = [Function::Square as i64, 0, 0, 0];
    for (shapes, result) in SHAPES
        .into_iter()
        .chain([(&[&[70_000usize][..], &[], &[]][..], &[70_000usize][..])])
    {
        for dtype in [DType::Float64, DType::Float32] {
            // So many that they need two turns.
            for count in [1usize, 2, 18] {
                let product = [Function::Mul as i64, 0, 1, 0, Function::Sub as i64, 3, 2, 3];
                let chains: Vec<&[i64]> = (0..count)
                    .map(|at| if at % 2 == 0 { &product[..] } else { &square })
                    .collect();
                let lengths: Vec<i64> = chains.iter().map(|chain| chain.len() as i64).collect();
                let scales: Vec<f32> = (0..count).map(|at| 0.5 + at as f32).collect();
                let attrs: Vec<(&'static str, AttrValue)> = vec![
                    ("T", dtype.into()),
                    ("N", (shapes.len() as i64).into()),
                    ("M", (count as i64).into()),
                    ("instructions", chains.concat().into()),
                    ("lengths", lengths.into()),
                    ("scales", scales.into()),
                    ("shape", shape_of(result).into()),
                    ("shapes", vec![PartialShape::scalar(); count].into()),
                ];
                let sums = node(sum::definition(), attrs, &vec![dtype; count]);
                let inputs = operands(&mut numbers, shapes, dtype);
                let tolerance = if dtype == DType::Float64 {
                    (1e-12, 1e-12)
                } else {
                    (1e-5, 1e-5)
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
