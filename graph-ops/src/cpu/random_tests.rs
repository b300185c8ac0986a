//! Fixtures from TensorFlow 2.21: ops with `seed` 12 and `seed2` 34, first and second run of a session.

use super::*;
use crate::cpu::philox::Key;
use crate::cpu::testing::same_on_any_pool;

fn generator(run: u128, elements: usize) -> Philox {
    Philox::new(Key::from_seeds(12, 34)).at(run * elements as u128 * RESERVED_BLOCKS_PER_ELEMENT)
}

/// The output of the `run`-th run of an op.
fn run<T: Clone + Default>(fill: impl Fn(Philox, &mut [T]), run: u128, elements: usize) -> Vec<T> {
    let mut out = vec![T::default(); elements];
    fill(generator(run, elements), &mut out);
    out
}

/// First five and last two elements.
fn ends<T: Copy>(x: &[T]) -> [T; 7] {
    [x[0], x[1], x[2], x[3], x[4], x[x.len() - 2], x[x.len() - 1]]
}

fn close(got: &[f64], expected: &[f64], tolerance: f64) -> bool {
    got.iter().zip(expected).all(|(g, e)| (g - e).abs() <= tolerance)
}

#[test]
fn uniforms_are_tensorflows_bit_for_bit() {
    assert_eq!(
        ends(&run(f32::fill_uniform, 0, 19)).map(f32::to_bits),
        [
            0x3f44c0dc, 0x3f77c466, 0x3d7feae0, 0x3f75db28, 0x3f6e98ba, 0x3f31c9e0, 0x3f30414e
        ]
    );
    assert_eq!(
        ends(&run(f32::fill_uniform, 1, 19)).map(f32::to_bits),
        [
            0x3ee52138, 0x3ef7352c, 0x3e041238, 0x3f6897b4, 0x3f63f148, 0x3da3ee60, 0x3ea12f78
        ]
    );
    assert_eq!(
        ends(&run(f64::fill_uniform, 0, 19)).map(f64::to_bits),
        [
            0x3fc3037023df1198,
            0x3fdffd5edbebb650,
            0x3fdd31745f964d30,
            0x3fd6e3f91382e504,
            0x3fe655e0bcc6a480,
            0x3fd6f97e04da6e08,
            0x3fe108ff68372ca4
        ]
    );
    assert_eq!(
        ends(&run(f64::fill_uniform, 1, 19)).map(f64::to_bits),
        [
            0x3fe2909d2e7b9a96,
            0x3fa048e04e897b40,
            0x3fbf8a49870a4330,
            0x3fe2609d4d4b84f8,
            0x3fe43a3d581a3f0e,
            0x3fc4bff770e11988,
            0x3fbb8965fb92ce20
        ]
    );
    assert_eq!(
        ends(&run(f16::fill_uniform, 0, 19)).map(f16::to_bits),
        [0x2ee0, 0x3866, 0x3aae, 0x3650, 0x2dd0, 0x3380, 0x3138]
    );
    assert_eq!(
        ends(&run(f16::fill_uniform, 1, 19)).map(f16::to_bits),
        [0x2ce0, 0x352c, 0x388e, 0x3bb4, 0x3120, 0x39cc, 0x3bbc]
    );
    assert_eq!(
        ends(&run(bf16::fill_uniform, 0, 19)).map(bf16::to_bits),
        [0x3f5c, 0x3ecc, 0x3f2e, 0x3e20, 0x3f3a, 0x3f60, 0x3e9c]
    );
    assert_eq!(
        ends(&run(bf16::fill_uniform, 1, 19)).map(bf16::to_bits),
        [0x3f1c, 0x3f16, 0x3f0e, 0x3f34, 0x3e90, 0x3f4c, 0x3f3c]
    );
}

#[test]
fn integers_are_tensorflows() {
    assert_eq!(
        ends(&run(|g, out| i32::fill_uniform_int(g, -5, 1000, out), 0, 19)),
        [372, 429, 52, 2, 527, 57, 833]
    );
    assert_eq!(
        ends(&run(|g, out| i32::fill_uniform_int(g, -5, 1000, out), 1, 19)),
        [918, 937, 147, 166, 11, 683, 28]
    );
    assert_eq!(
        ends(&run(|g, out| i64::fill_uniform_int(g, -5, 1000000000000, out), 0, 19)),
        [
            507810413021,
            80947744154,
            387358026912,
            481682976783,
            300403696553,
            262613394122,
            30179663190
        ]
    );
    assert_eq!(
        ends(&run(|g, out| i64::fill_uniform_int(g, -5, 1000000000000, out), 1, 19)),
        [
            395824009965,
            688992089133,
            30327909475,
            822620879052,
            15615803513,
            375215022610,
            654138075636
        ]
    );
}

#[test]
fn normals_are_tensorflows_within_rounding() {
    assert!(close(
        &ends(&run(f32::fill_normal, 0, 19)).map(f64::from),
        &[
            -0.14561598,
            0.71080869,
            -0.58027375,
            2.2823462,
            -0.36127636,
            -0.35496616,
            0.11378495
        ],
        1e-6
    ));
    assert!(close(
        &ends(&run(f32::fill_normal, 1, 19)).map(f64::from),
        &[
            0.13655947,
            -1.2607235,
            -1.0998372,
            1.6990056,
            -0.3298167,
            0.12845793,
            -0.30435973
        ],
        1e-6
    ));
    assert!(close(
        &ends(&run(f64::fill_normal, 0, 19)),
        &[
            0.001969260212262035,
            -1.9528864585824532,
            0.9770344770862817,
            -0.7844102382347892,
            0.8296711034553124,
            -1.193667267422476,
            0.30730532246102094
        ],
        1e-14
    ));
    assert!(close(
        &ends(&run(f64::fill_normal, 1, 19)),
        &[
            0.2071541451956417,
            1.0227481291968277,
            -0.920954457095785,
            -1.8274772004638395,
            -0.32618203714772753,
            1.086358728655525,
            0.6447776543685719
        ],
        1e-14
    ));
    assert!(close(
        &ends(&run(f16::fill_normal, 0, 19)).map(f64::from),
        &[
            -0.1456298828125,
            0.7109375,
            -0.580078125,
            2.283203125,
            -0.361328125,
            -0.35498046875,
            0.11376953125
        ],
        2e-3
    ));
    assert!(close(
        &ends(&run(f16::fill_normal, 1, 19)).map(f64::from),
        &[
            0.1365966796875,
            -1.2607421875,
            -1.099609375,
            1.69921875,
            -0.329833984375,
            0.12841796875,
            -0.304443359375
        ],
        2e-3
    ));
    assert!(close(
        &ends(&run(bf16::fill_normal, 0, 19)).map(f64::from),
        &[
            -0.1455078125,
            0.7109375,
            -0.58203125,
            2.28125,
            -0.361328125,
            -0.35546875,
            0.11376953125
        ],
        1.6e-2
    ));
    assert!(close(
        &ends(&run(bf16::fill_normal, 1, 19)).map(f64::from),
        &[
            0.13671875,
            -1.2578125,
            -1.1015625,
            1.6953125,
            -0.330078125,
            0.12890625,
            -0.3046875
        ],
        1.6e-2
    ));
    assert!(close(
        &ends(&run(f32::fill_truncated_normal, 0, 203)).map(f64::from),
        &[
            -0.14561598,
            0.71080869,
            -0.58027375,
            -0.36127636,
            1.1077994,
            -0.20148589,
            -1.2625289
        ],
        1e-6
    ));
    assert!(close(
        &ends(&run(f32::fill_truncated_normal, 1, 203)).map(f64::from),
        &[
            1.0930024,
            0.86455441,
            0.35517588,
            0.27725819,
            0.48533243,
            -1.5312126,
            -0.46921855
        ],
        1e-6
    ));
    assert!(close(
        &ends(&run(f64::fill_truncated_normal, 0, 203)),
        &[
            0.001969260212262035,
            -1.9528864585824532,
            -0.3274050101838082,
            0.388193897437449,
            0.43071439357501884,
            -0.8018676102681352,
            0.13089458400819307
        ],
        1e-14
    ));
    assert!(close(
        &ends(&run(f64::fill_truncated_normal, 1, 203)),
        &[
            0.3696216293380373,
            1.2275046928244908,
            0.2922951068027958,
            -1.0510577848402767,
            -0.7999325166903052,
            1.8980284781119285,
            -0.53958756311201
        ],
        1e-14
    ));
    assert!(close(
        &ends(&run(f16::fill_truncated_normal, 0, 203)).map(f64::from),
        &[
            -0.1456298828125,
            0.7109375,
            -0.580078125,
            -0.361328125,
            1.107421875,
            -0.2015380859375,
            -1.2626953125
        ],
        2e-3
    ));
    assert!(close(
        &ends(&run(f16::fill_truncated_normal, 1, 203)).map(f64::from),
        &[
            1.0927734375,
            0.86474609375,
            0.355224609375,
            0.27734375,
            0.4853515625,
            -1.53125,
            -0.46923828125
        ],
        2e-3
    ));
    assert!(close(
        &ends(&run(bf16::fill_truncated_normal, 0, 203)).map(f64::from),
        &[
            -0.1455078125,
            0.7109375,
            -0.58203125,
            -0.361328125,
            1.109375,
            -0.201171875,
            -1.265625
        ],
        1.6e-2
    ));
    assert!(close(
        &ends(&run(bf16::fill_truncated_normal, 1, 203)).map(f64::from),
        &[
            1.09375, 0.86328125, 0.35546875, 0.27734375, 0.484375, -1.53125, -0.46875
        ],
        1.6e-2
    ));
}

#[test]
fn any_split_gives_the_same_numbers() {
    fn check<T: RandomReal + PartialEq + std::fmt::Debug>() {
        for fill in [T::fill_uniform, T::fill_normal, T::fill_truncated_normal] {
            let all = same_on_any_pool(|| run(fill, 1, 40_003));
            let mut first = vec![T::default(); 1001];
            fill(generator(1, 40_003), &mut first);
            assert_eq!(first, all[..1001]);
            fill(generator(0, 0), &mut []);
        }
    }
    check::<f32>();
    check::<f64>();
    check::<f16>();
    check::<bf16>();
    let ints = same_on_any_pool(|| run(|g, out| i64::fill_uniform_int(g, i64::MIN, i64::MAX, out), 0, 40_003));
    assert!(ints.iter().any(|&x| x < 0) && ints.iter().any(|&x| x > 0));
}

#[test]
fn moments_are_those_of_the_distributions() {
    let mean_and_variance = |x: Vec<f32>| {
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        (mean, x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n)
    };
    let near = |(mean, variance): (f64, f64), m: f64, v: f64| (mean - m).abs() < 0.01 && (variance - v).abs() < 0.02;
    assert!(near(
        mean_and_variance(run(f32::fill_uniform, 0, 100_000)),
        0.5,
        1.0 / 12.0
    ));
    assert!(near(mean_and_variance(run(f32::fill_normal, 0, 100_000)), 0.0, 1.0));
    assert!(near(
        mean_and_variance(run(f32::fill_truncated_normal, 0, 100_000)),
        0.0,
        0.774
    ));
}
