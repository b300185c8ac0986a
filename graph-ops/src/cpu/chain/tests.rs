use super::*;
use crate::cpu::element::Real;
use crate::cpu::testing::numbers_f32;
use graph_core::DType;
use half::{bf16, f16};

fn instruction(function: Function, operands: [usize; 3]) -> Instruction {
    let precision = Precision::Full;
    Instruction {
        function,
        operands,
        precision,
    }
}

/// An operand of `float`.
fn operand(shape: &[usize], result: &[usize]) -> Operand {
    Operand::new(DType::Float32, shape, result).unwrap()
}

/// Whole operands of `float`.
fn whole(count: usize) -> Vec<Operand> {
    vec![operand(&[2], &[2]); count]
}

fn run(chain: &Chain, operands: &[&[f32]], len: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; len];
    let operands: Vec<*const u8> = operands.iter().map(|operand| operand.as_ptr().cast()).collect();
    // SAFETY: the tests give each operand the elements of its layout.
    unsafe { chain.run::<f32>(&operands, out.as_mut_ptr().cast(), len) };
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
        let shapes = [vec![rows, columns], vec![], vec![columns]];
        let chain = Chain::new(
            shapes.map(|shape| operand(&shape, &[rows, columns])).to_vec(),
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

/// `column * row + sign(w) * a + w * b`, the gradient of a weight with regularizers: three steps, with the bits of six.
#[test]
fn products_are_taken_together_with_sums() {
    for (rows, columns) in [(1, 1), (9, 10), (5, 300), (40, 800), (3, 1025)] {
        let len = rows * columns;
        let (column, row, mut w) = (numbers_f32(1, rows), numbers_f32(2, columns), numbers_f32(3, len));
        w[len / 2] = 0.0;
        w[len - 1] = f32::NAN;
        let (a, b) = ([0.01], [-0.3]);
        let shapes = [vec![rows, 1], vec![columns], vec![rows, columns], vec![], vec![]];
        let chain = Chain::new(
            shapes.map(|shape| operand(&shape, &[rows, columns])).to_vec(),
            &[
                instruction(Function::Mul, [0, 1, 0]),
                instruction(Function::Sign, [2, 2, 2]),
                instruction(Function::Mul, [3, 6, 3]),
                instruction(Function::Mul, [2, 4, 2]),
                instruction(Function::Add, [5, 7, 5]),
                instruction(Function::Add, [8, 9, 8]),
            ],
        )
        .unwrap();
        let operations: Vec<Operation> = chain.steps.iter().map(|step| step.operation).collect();
        assert_eq!(
            operations,
            [
                Operation::Of(Function::Mul),
                Operation::SignProductPlus,
                Operation::ProductPlus
            ]
        );
        let got = run(&chain, &[&column, &row, &w, &a, &b], len);
        for (i, x) in got.into_iter().enumerate() {
            let sign = match w[i] {
                w if w > 0.0 => 1.0,
                w if w < 0.0 => -1.0,
                w => w,
            };
            let outer = column[i / columns] * row[i % columns];
            let expected = outer + a[0] * sign + w[i] * b[0];
            assert_eq!(x.to_bits(), expected.to_bits(), "{rows}x{columns}, element {i}");
        }
    }
}

/// What is used twice, or added to itself, stays an instruction of its own.
#[test]
fn only_what_nothing_else_needs_is_taken_together() {
    let (x, y) = (numbers_f32(1, 700), numbers_f32(2, 700));
    let chain = |instructions: &[Instruction]| Chain::new(whole(2), instructions).unwrap();
    let twice = chain(&[
        instruction(Function::Mul, [0, 1, 0]),
        instruction(Function::Add, [2, 0, 2]),
        instruction(Function::Add, [3, 2, 3]),
    ]);
    let itself = chain(&[
        instruction(Function::Mul, [0, 1, 0]),
        instruction(Function::Add, [2, 2, 2]),
    ]);
    let signs = chain(&[
        instruction(Function::Sign, [0, 0, 0]),
        instruction(Function::Mul, [2, 2, 2]),
        instruction(Function::Add, [1, 3, 1]),
    ]);
    let got = [&twice, &itself, &signs].map(|chain| run(chain, &[&x, &y], x.len()));
    for i in 0..x.len() {
        let (x, y) = (x[i], y[i]);
        assert_eq!(got[0][i], x * y + x + x * y);
        assert_eq!(got[1][i], x * y + x * y);
        assert_eq!(got[2][i], y + x.signum() * x.signum());
    }
}

#[test]
fn norms_are_known_as_such() {
    let norm = |operand: Operand, function| {
        Chain::new(vec![operand], &[instruction(function, [0, 0, 0])])
            .unwrap()
            .norm()
    };
    let whole = || operand(&[2], &[2]);
    assert_eq!(norm(whole(), Function::Abs), Some((0, Norm::L1)));
    assert_eq!(norm(whole(), Function::Square), Some((0, Norm::L2)));
    assert_eq!(norm(whole(), Function::Mul), Some((0, Norm::L2)));
    assert_eq!(norm(whole(), Function::Exp), None);
    assert_eq!(norm(operand(&[], &[2]), Function::Abs), None);
    let halves = Operand::new(DType::Half, &[2], &[2]).unwrap();
    assert_eq!(norm(halves, Function::Abs), None);
}

#[test]
fn the_result_may_lie_over_an_operand() {
    let mut a = numbers_f32(3, 70_000);
    let expected: Vec<f32> = a.iter().map(|x| (x + x) * x).collect();
    let chain = Chain::new(
        whole(1),
        &[
            instruction(Function::Add, [0, 0, 0]),
            instruction(Function::Mul, [1, 0, 1]),
        ],
    )
    .unwrap();
    let (out, len) = (a.as_mut_ptr(), a.len());
    // SAFETY: the result lies over a whole operand.
    unsafe { chain.run::<f32>(&[out.cast_const().cast()], out.cast(), len) };
    assert_eq!(a, expected);
}

#[test]
fn operands_are_broadcast_along_any_axis() {
    let result = [3usize, 4, 250];
    for shape in [&[3, 1, 250][..], &[4, 1], &[3, 4, 1], &[1, 4, 250], &[3, 1, 1]] {
        let count = shape.iter().product();
        let values = numbers_f32(4, count);
        let chain = Chain::new(
            vec![operand(shape, &result)],
            &[instruction(Function::Identity, [0, 0, 0])],
        )
        .unwrap();
        let got = run(&chain, &[&values], 3000);
        for (at, x) in got.into_iter().enumerate() {
            let mut place = [at / 1000, at / 250 % 4, at % 250];
            let missing = 3 - shape.len();
            let mut index = 0;
            for (axis, &size) in shape.iter().enumerate() {
                place[missing + axis] %= size;
                index = index * size + place[missing + axis];
            }
            assert_eq!(x, values[index], "{shape:?} at {at}");
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
    assert!(Chain::new(whole(1), &[]).is_none());
    assert!(Chain::new(whole(1), &[instruction(Function::Add, [0, 1, 0])]).is_none());
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
    let chain = Chain::new(whole(9), &instructions).unwrap();
    let slices: Vec<&[f32]> = operands.iter().map(Vec::as_slice).collect();
    for (i, x) in run(&chain, &slices, 1000).into_iter().enumerate() {
        let square = |k: usize| operands[k][i] * operands[k][i];
        assert_eq!(x, (1..9).rev().fold(square(0), |sum, k| sum - square(k)));
    }
}

/// `tanh(a * s - b)` of a half type and, as `float`, `max` of it and `c`: each step has the bits that it has when it is stored.
fn halves_are_rounded_after_each_step<T: Real<Wide = f32>>(dtype: DType) {
    let precision = Precision::of(dtype);
    let rounding = |function, operands| Instruction {
        function,
        operands,
        precision,
    };
    let halves = |x: &[f32]| x.iter().map(|&x| T::narrow(x)).collect::<Vec<T>>();
    for (rows, columns) in [(1, 1), (3, 5), (7, 100), (2, 600), (123, 901)] {
        let len = rows * columns;
        let (a, b, s) = (
            halves(&numbers_f32(1, len)),
            halves(&numbers_f32(2, columns)),
            T::narrow(1.7),
        );
        let c = numbers_f32(3, len);
        let result = [rows, columns];
        let of_halves = |shape: &[usize]| Operand::new(dtype, shape, &result).unwrap();
        let operands = [
            of_halves(&result),
            of_halves(&[]),
            of_halves(&[columns]),
            operand(&result, &result),
        ];
        let instructions = [
            rounding(Function::Mul, [0, 1, 0]),
            rounding(Function::Sub, [4, 2, 4]),
            rounding(Function::Tanh, [5, 5, 5]),
            instruction(Function::Maximum, [6, 3, 6]),
            rounding(Function::Identity, [7, 7, 7]),
        ];
        let expected: Vec<f32> = (0..len)
            .map(|i| {
                let product = T::narrow(a[i].widen() * s.widen());
                let difference = T::narrow(product.widen() - b[i % columns].widen());
                let tanh = T::narrow(crate::cpu::vector_math::tanh(difference.widen()));
                tanh.widen().max(c[i])
            })
            .collect();
        let pointers: [*const u8; 4] = [
            a.as_ptr().cast(),
            std::ptr::from_ref(&s).cast(),
            b.as_ptr().cast(),
            c.as_ptr().cast(),
        ];
        // As `float`, and as the half type.
        let chain = Chain::new(operands.to_vec(), &instructions[..4]).unwrap();
        let mut out = vec![f32::NAN; len];
        // SAFETY: each operand has the elements of its layout.
        unsafe { chain.run::<f32>(&pointers, out.as_mut_ptr().cast(), len) };
        assert_eq!(out, expected);
        let chain = Chain::new(operands.to_vec(), &instructions).unwrap();
        let mut out = vec![T::default(); len];
        // SAFETY: as above.
        unsafe { chain.run::<f32>(&pointers, out.as_mut_ptr().cast(), len) };
        assert_eq!(out, halves(&expected));
    }
}

#[test]
fn half_types_are_rounded_after_each_step() {
    halves_are_rounded_after_each_step::<f16>(DType::Half);
    halves_are_rounded_after_each_step::<bf16>(DType::BFloat16);
}

#[test]
fn what_picks_an_operand_is_not_rounded() {
    let rounding = |function, operands| Instruction {
        function,
        operands,
        precision: Precision::Half,
    };
    let operand = Operand::new(DType::Half, &[2], &[2]).unwrap();
    let chain = Chain::new(
        vec![operand; 2],
        &[
            rounding(Function::Maximum, [0, 1, 0]),
            rounding(Function::Mul, [2, 1, 2]),
            rounding(Function::ReluGrad, [3, 0, 3]),
            rounding(Function::Relu, [4, 4, 4]),
        ],
    )
    .unwrap();
    let precisions: Vec<Precision> = chain.steps.iter().map(|step| step.precision).collect();
    use Precision::{Full, Half};
    // What comes last is rounded as it is stored.
    assert_eq!(precisions, [Full, Half, Full, Full]);
}
