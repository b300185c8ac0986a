use super::*;
use crate::cpu::chain::{Function, Instruction, Operand, Precision};
use crate::cpu::testing::{assert_close, numbers_f32, same_on_any_pool};
use graph_core::DType;

/// Output index of each input element.
fn destinations(shape: &[usize], reduced: &[bool]) -> Vec<usize> {
    (0..shape.iter().product::<usize>())
        .map(|mut at| {
            let (mut to, mut stride) = (0, 1);
            for (&len, &reduce) in shape.iter().zip(reduced).rev() {
                if !reduce {
                    to += at % len * stride;
                    stride *= len;
                }
                at /= len;
            }
            to
        })
        .collect()
}

fn cases() -> Vec<(Vec<usize>, Vec<bool>)> {
    let t = true;
    let f = false;
    vec![
        (vec![], vec![]),
        (vec![1], vec![t]),
        (vec![7], vec![f]),
        (vec![1000], vec![t]),
        (vec![300_001], vec![t]),
        (vec![301, 37], vec![f, t]),
        (vec![3, 70_001], vec![f, t]),
        (vec![30_011, 20], vec![t, f]),
        (vec![500, 800], vec![t, f]),
        (vec![5, 100_003], vec![t, f]),
        (vec![13, 7, 5, 20], vec![t, t, t, f]),
        (vec![13, 7, 5, 20], vec![t, f, t, f]),
        (vec![13, 7, 5, 20], vec![f, t, f, t]),
        (vec![4, 1, 9, 33], vec![f, t, t, f]),
        (vec![0, 3], vec![t, f]),
        (vec![0, 3], vec![f, t]),
    ]
}

fn out_len(shape: &[usize], reduced: &[bool]) -> usize {
    shape.iter().zip(reduced).filter(|x| !x.1).map(|x| x.0).product()
}

#[test]
fn sums_means_and_extrema_over_any_axes() {
    for (shape, reduced) in cases() {
        let input = numbers_f32(1, shape.iter().product());
        let len = out_len(&shape, &reduced);
        let run = || {
            let mut got = (vec![0.0; len], vec![0.0; len], vec![0.0; len], vec![0.0; len]);
            reduce(Sum::<f32>::new(), &input, &shape, &reduced, &mut got.0);
            reduce(Max::<f32>::new(), &input, &shape, &reduced, &mut got.1);
            reduce(Min::<f32>::new(), &input, &shape, &reduced, &mut got.2);
            if !input.is_empty() {
                reduce(Mean::<f32>::new(), &input, &shape, &reduced, &mut got.3);
            }
            got
        };
        let (sum, max, min, mean) = same_on_any_pool(run);
        let mut expected = vec![(0.0, f32::NEG_INFINITY, f32::INFINITY); len];
        for (to, &x) in destinations(&shape, &reduced).into_iter().zip(&input) {
            let e = &mut expected[to];
            *e = (e.0 + f64::from(x), e.1.max(x), e.2.min(x));
        }
        let sums: Vec<f64> = expected.iter().map(|e| e.0).collect();
        assert_close(&sum, &sums, 1e-5);
        assert_eq!(
            max,
            expected.iter().map(|e| e.1).collect::<Vec<_>>(),
            "{shape:?} {reduced:?}"
        );
        assert_eq!(min, expected.iter().map(|e| e.2).collect::<Vec<_>>());
        if !input.is_empty() {
            let count = (input.len() / len) as f64;
            assert_close(&mean, &sums.iter().map(|s| s / count).collect::<Vec<_>>(), 1e-6);
        }
    }
}

#[test]
fn long_float_sums_keep_their_digits() {
    let input = vec![0.1f32; 10_000_000];
    let mut sum = [0.0];
    reduce(Sum::<f32>::new(), &input, &[input.len()], &[true], &mut sum);
    assert!((f64::from(sum[0]) / (10_000_000.0 * f64::from(0.1f32)) - 1.0).abs() < 3e-7);
    let mut columns = [0.0; 20];
    reduce(Sum::<f32>::new(), &input, &[500_000, 20], &[true, false], &mut columns);
    assert!(
        columns
            .iter()
            .all(|&c| (f64::from(c) / (500_000.0 * f64::from(0.1f32)) - 1.0).abs() < 1e-6)
    );
}

#[test]
fn integers_halves_and_truths() {
    for (shape, reduced) in cases() {
        let ints: Vec<i32> = numbers_f32(1, shape.iter().product())
            .iter()
            .map(|x| (x * 1e6) as i32)
            .collect();
        let truths: Vec<bool> = ints.iter().map(|&x| x % 50 != 0).collect();
        let len = out_len(&shape, &reduced);
        let (sum, prod, all, any) = same_on_any_pool(|| {
            let mut got = (vec![0; len], vec![0; len], vec![false; len], vec![true; len]);
            reduce(IntSum::<i32>::new(), &ints, &shape, &reduced, &mut got.0);
            reduce(IntProd::<i32>::new(), &ints, &shape, &reduced, &mut got.1);
            reduce(All, &truths, &shape, &reduced, &mut got.2);
            reduce(Any, &truths, &shape, &reduced, &mut got.3);
            got
        });
        let mut expected = vec![(0i32, 1i32, true, false); len];
        for (i, to) in destinations(&shape, &reduced).into_iter().enumerate() {
            let e = &mut expected[to];
            *e = (
                e.0.wrapping_add(ints[i]),
                e.1.wrapping_mul(ints[i]),
                e.2 & truths[i],
                e.3 | truths[i],
            );
        }
        assert!(
            (0..len).all(|i| (sum[i], prod[i], all[i], any[i]) == expected[i]),
            "{shape:?} {reduced:?}"
        );
    }
    let mut mean = [0];
    reduce(IntMean::<i32>::new(), &[-3, -4], &[2], &[true], &mut mean);
    assert_eq!(mean, [-3]);
    // Sums of halves do not stop growing where the half type does.
    let mut sum = [half::f16::ZERO];
    reduce(
        Sum::<half::f16>::new(),
        &vec![half::f16::ONE; 4096 + 8],
        &[4104],
        &[true],
        &mut sum,
    );
    assert_eq!(sum[0].to_f32(), 4104.0);
    let mut prod = [0.0f64];
    reduce(Prod::<f64>::new(), &[2.0, 3.0, -4.0], &[3], &[true], &mut prod);
    assert_eq!(prod, [-24.0]);
}

#[test]
fn not_a_number_spreads() {
    let mut input = vec![1.0f32; 1000];
    for at in [0, 517, 999] {
        input[at] = f32::NAN;
        let (mut max, mut min) = ([0.0], [0.0]);
        reduce(Max::<f32>::new(), &input, &[1000], &[true], &mut max);
        reduce(Min::<f32>::new(), &input, &[1000], &[true], &mut min);
        assert!(max[0].is_nan() && min[0].is_nan());
        input[at] = 1.0;
    }
}

#[test]
fn the_first_extremum_wins() {
    for shape in [[1, 5, 1], [300, 10, 1], [3, 17, 70], [2, 1, 3], [0, 3, 2]] {
        let len = shape.iter().product();
        let input: Vec<f32> = numbers_f32(1, len).iter().map(|x| (x * 3.0).round()).collect();
        let (most, least) = same_on_any_pool(|| {
            let mut got = (vec![-1i64; shape[0] * shape[2]], vec![-1i32; shape[0] * shape[2]]);
            // `i64` and `i32` are the op's output types.
            argmax_index(&input, shape, &mut got.0);
            argmin(&input, shape, &mut got.1);
            got
        });
        for at in 0..most.len() {
            let line: Vec<f32> = (0..shape[1])
                .map(|l| input[(at / shape[2] * shape[1] + l) * shape[2] + at % shape[2]])
                .collect();
            let first = |best: f32| line.iter().position(|&x| x == best).unwrap();
            assert_eq!(
                most[at] as usize,
                first(line.iter().copied().fold(f32::NEG_INFINITY, f32::max))
            );
            assert_eq!(
                least[at] as usize,
                first(line.iter().copied().fold(f32::INFINITY, f32::min))
            );
        }
    }
    let mut at = [7i64];
    argmax(&[f32::NAN, 1.0, 3.0, f32::NAN, 3.0], [1, 5, 1], &mut at);
    assert_eq!(at, [2]);
}

/// All numbers of 16 bits and special ones of the others, in lines of many lengths along both axes.
#[test]
fn extrema_of_every_type_are_those_of_a_plain_loop() {
    fn check<T: Ranked + PartialOrd>(line: impl Fn(usize) -> T) {
        for [outer, len, inner] in [
            [3, 1, 1],
            [5, 31, 1],
            [2, 4999, 1],
            [1, 70, 3],
            [2, 33, 70],
            [1, 5, 1100],
        ] {
            let input: Vec<T> = (0..outer * len * inner).map(&line).collect();
            let (mut most, mut least) = (vec![-1i64; outer * inner], vec![-1i64; outer * inner]);
            argmax(&input, [outer, len, inner], &mut most);
            argmin(&input, [outer, len, inner], &mut least);
            for at in 0..outer * inner {
                let element = |l: usize| input[(at / inner * len + l) * inner + at % inner];
                let first = |better: fn(&T, &T) -> bool| {
                    let numbers = (0..len).filter(|&l| element(l).partial_cmp(&element(l)).is_some());
                    let first = numbers.reduce(|best, l| if better(&element(l), &element(best)) { l } else { best });
                    first.unwrap_or(0) as i64
                };
                let lens = [outer, len, inner];
                assert_eq!((most[at], least[at]), (first(T::gt), first(T::lt)), "{lens:?} at {at}");
            }
        }
    }
    let bits = |at: usize| (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 17;
    check(|at| half::f16::from_bits(bits(at) as u16));
    check(|at| half::bf16::from_bits(bits(at) as u16));
    check(|at| bits(at) as u8);
    check(|at| bits(at) as i8);
    check(|at| bits(at) as u16);
    check(|at| bits(at) as i16);
    check(|at| bits(at) as u32);
    check(|at| bits(at) as i32);
    check(|at| bits(at) << 20);
    check(|at| (bits(at) << 20) as i64);
    let special = [
        f32::NAN,
        f32::NEG_INFINITY,
        -0.0,
        0.0,
        -f32::NAN,
        f32::INFINITY,
        -1.5,
        f32::MIN_POSITIVE,
    ];
    for count in 1..=special.len() {
        check(|at| special[bits(at) as usize % count]);
        check(|at| f64::from(special[bits(at) as usize % count]));
    }
    check(|at| f32::from_bits(bits(at) as u32));
    check(|at| f64::from_bits(bits(at) << 20));
}

fn argmax_index(input: &[f32], shape: [usize; 3], out: &mut [i64]) {
    argmax(input, shape, out);
}

/// The norms of a tensor in one pass have the bits of its absolute values' and squares' sums.
#[test]
fn norms_in_one_pass_are_the_sums_that_they_stand_for() {
    for len in [0, 1, 31, 32, 33, 511, 513, 70_000, 200_001] {
        let x = numbers_f32(5, len);
        let chains = [Function::Abs, Function::Square].map(|function| {
            let instruction = Instruction {
                function,
                operands: [0; 3],
                precision: Precision::Full,
            };
            let operand = Operand::new(DType::Float32, &[len], &[len]).unwrap();
            Chain::new(vec![operand], &[instruction]).unwrap()
        });
        let absolute: Vec<f32> = x.iter().map(|x| x.abs()).collect();
        let squares: Vec<f32> = x.iter().map(|x| x * x).collect();
        let expected = [absolute, squares].map(|values| {
            let mut sum = [f32::NAN];
            reduce(Sum::<f32>::new(), &values, &[len], &[true], &mut sum);
            sum[0]
        });
        for chains in [&chains[..], &chains[..1], &chains[1..]] {
            let got = same_on_any_pool(|| {
                let mut sums = vec![f32::NAN; chains.len()];
                // SAFETY: the operand has the elements of its layout.
                unsafe { sums_of_chains(chains, &[x.as_ptr().cast()], len, &mut sums) };
                sums
            });
            let from = usize::from(chains.len() == 1 && chains[0].norm() == Some((0, Norm::L2)));
            assert_eq!(got, expected[from..][..chains.len()], "{len} elements");
        }
    }
}
