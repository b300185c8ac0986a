use super::super::testing::numbers_f32;
use super::*;

fn instruction(function: Function, operands: [usize; 3]) -> Instruction {
    Instruction { function, operands }
}

fn run(chain: &Chain, operands: &[&[f32]], len: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; len];
    let operands: Vec<*const f32> = operands.iter().map(|operand| operand.as_ptr()).collect();
    // SAFETY: the tests give each operand the elements of its layout.
    unsafe { chain.run(&operands, out.as_mut_ptr(), len) };
    out
}

#[test]
fn functions_stand_at_their_numbers() {
    for (number, function) in Function::ALL.into_iter().enumerate() {
        assert_eq!(function as usize, number);
    }
    assert_eq!(Function::from_number(Function::ALL.len()), None);
}

/// `relu(a * s - b)`, with `b` along the last axis.
#[test]
fn a_chain_equals_its_operations_one_by_one() {
    for (rows, columns) in [(1, 1), (3, 5), (7, 100), (2, 600), (123, 901)] {
        let len = rows * columns;
        let (a, b) = (numbers_f32(1, len), numbers_f32(2, columns));
        let layouts = [vec![rows, columns], vec![], vec![columns]];
        let layouts = layouts.map(|shape| Layout::new(&shape, &[rows, columns]).unwrap());
        let chain = Chain::new(
            layouts.to_vec(),
            &[
                instruction(Function::Mul, [0, 1, 0]),
                instruction(Function::Sub, [3, 2, 3]),
                instruction(Function::Relu, [4, 4, 4]),
            ],
        )
        .unwrap();
        let expected: Vec<f32> = (0..len).map(|i| (a[i] * 1.5 - b[i % columns]).max(0.0)).collect();
        assert_eq!(run(&chain, &[&a, &[1.5], &b], len), expected);
    }
}

#[test]
fn the_result_may_lie_over_an_operand() {
    let mut a = numbers_f32(3, 70_000);
    let expected: Vec<f32> = a.iter().map(|x| (x + x) * x).collect();
    let chain = Chain::new(
        vec![Layout::Whole],
        &[
            instruction(Function::Add, [0, 0, 0]),
            instruction(Function::Mul, [1, 0, 1]),
        ],
    )
    .unwrap();
    let (out, len) = (a.as_mut_ptr(), a.len());
    // SAFETY: the result lies over a whole operand.
    unsafe { chain.run(&[out.cast_const()], out, len) };
    assert_eq!(a, expected);
}

#[test]
fn operands_are_broadcast_along_any_axis() {
    let result = [3usize, 4, 250];
    for operand in [&[3, 1, 250][..], &[4, 1], &[3, 4, 1], &[1, 4, 250], &[3, 1, 1]] {
        let count = operand.iter().product();
        let values = numbers_f32(4, count);
        let chain = Chain::new(
            vec![Layout::new(operand, &result).unwrap()],
            &[instruction(Function::Identity, [0, 0, 0])],
        )
        .unwrap();
        let got = run(&chain, &[&values], 3000);
        for (at, x) in got.into_iter().enumerate() {
            let mut place = [at / 1000, at / 250 % 4, at % 250];
            let missing = 3 - operand.len();
            let mut index = 0;
            for (axis, &size) in operand.iter().enumerate() {
                place[missing + axis] %= size;
                index = index * size + place[missing + axis];
            }
            assert_eq!(x, values[index], "{operand:?} at {at}");
        }
    }
}

#[test]
fn shapes_that_do_not_broadcast_have_no_layout() {
    assert_eq!(Layout::new(&[2], &[3]), None);
    assert_eq!(Layout::new(&[1, 3], &[3]), None);
    assert_eq!(Layout::new(&[1], &[3]), Some(Layout::Scalar));
    assert_eq!(Layout::new(&[], &[]), Some(Layout::Whole));
}

#[test]
fn values_must_be_there_before_they_are_used() {
    assert!(Chain::new(vec![Layout::Whole], &[]).is_none());
    assert!(Chain::new(vec![Layout::Whole], &[instruction(Function::Add, [0, 1, 0])]).is_none());
}

/// More values alive at once than any short chain has: sums of all pairs, in an order that keeps the first ones long.
#[test]
fn blocks_are_used_again_only_when_their_values_are_done() {
    let count = 9;
    let operands: Vec<Vec<f32>> = (0..count).map(|seed| numbers_f32(seed, 1000)).collect();
    let mut instructions = Vec::new();
    for x in 0..count as usize {
        instructions.push(instruction(Function::Square, [x, x, x]));
    }
    let mut sum = 9;
    for x in (10..18).rev() {
        instructions.push(instruction(Function::Sub, [sum, x, sum]));
        sum = 9 + instructions.len() - 1;
    }
    let chain = Chain::new(vec![Layout::Whole; 9], &instructions).unwrap();
    let slices: Vec<&[f32]> = operands.iter().map(Vec::as_slice).collect();
    for (i, x) in run(&chain, &slices, 1000).into_iter().enumerate() {
        let square = |k: usize| operands[k][i] * operands[k][i];
        assert_eq!(x, (1..9).rev().fold(square(0), |sum, k| sum - square(k)));
    }
}
