//! What TensorFlow gives.

use graph_core::{DType, Value};

use crate::testing::{Case, GradientCase};

fn weights(dtype: DType) -> [Value; 5] {
    let w = (0..32).map(|i| (i as f32 - 15.0) / 20.0).collect::<Vec<f32>>();
    let w = Value::from_vec([4, 8], w).expect("a value");
    let b = Value::from((0..8).map(|i| i as f32 / 10.0).collect::<Vec<f32>>());
    let peephole = |factor: f32| Value::from([0.1f32 * factor, 0.2 * factor]);
    [w, peephole(1.0), peephole(2.0), peephole(3.0), b].map(|value| cast(value, dtype))
}

/// Rounds to half precision where it is asked for.
fn cast(value: Value, dtype: DType) -> Value {
    if dtype == DType::Float32 {
        return value;
    }
    let elements = value
        .as_slice::<f32>()
        .expect("singles")
        .iter()
        .map(|&x| half::f16::from_f32(x));
    Value::from_vec(value.shape().clone(), elements.collect::<Vec<half::f16>>()).expect("a value")
}

fn with_operands(mut case: Case, x: Value, dtype: DType) -> Case {
    let state = [Value::from([[0.3f32, -0.4]]), Value::from([[0.5f32, 0.6]])];
    case = case.input(cast(x, dtype));
    case = state
        .into_iter()
        .fold(case, |case, value| case.input(cast(value, dtype)));
    weights(dtype).into_iter().fold(case, Case::input)
}

fn sequence() -> Value {
    Value::from([[[0.1f32, 0.2]], [[0.3, 0.4]], [[0.5, 0.6]]])
}

const STEP: [[f32; 2]; 7] = [
    [0.54487884, 0.5597136],
    [0.25, -0.021461636],
    [0.8687555, 0.8629487],
    [0.77643317, 0.7903643],
    [0.45421648, 0.5783634],
    [0.24491866, -0.02145834],
    [0.19016297, -0.016959907],
];

const SECOND_STEP: [[f32; 2]; 7] = [
    [0.4162653, 0.4442932],
    [0.1633277, 0.013070708],
    [0.77928704, 0.7935719],
    [0.63363326, 0.657087],
    [-0.07565864, 0.06775269],
    [0.16189072, 0.013069963],
    [0.10257934, 0.008588104],
];

fn clipped(op: &'static str) -> Case {
    Case::new(op)
        .attr("use_peephole", true)
        .attr("cell_clip", 0.25f32)
        .attr("forget_bias", 1.0f32)
}

/// A whole sequence without clipping, for the gradients.
fn unclipped_results() -> Vec<Value> {
    let case = Case::new("BlockLSTM")
        .attr("use_peephole", true)
        .attr("cell_clip", -1.0f32)
        .input(3i64);
    with_operands(case, sequence(), DType::Float32).run().expect("it runs")
}

pub(in super::super) fn cases() -> Vec<Case> {
    let mut step = with_operands(clipped("LSTMBlockCell"), [[0.1f32, 0.2]].into(), DType::Float32);
    step = STEP
        .into_iter()
        .fold(step, |case, result| case.expect([result]))
        .tolerance(1e-5, 1e-6);
    let mut half = with_operands(clipped("LSTMBlockCell"), [[0.1f32, 0.2]].into(), DType::Half);
    half = STEP
        .into_iter()
        .fold(half, |case, result| case.expect(cast([result].into(), DType::Half)))
        .tolerance(1e-2, 2e-3);
    let plain = Case::new("LSTMBlockCell")
        .attr("use_peephole", false)
        .attr("cell_clip", -1.0f32)
        .attr("forget_bias", 0.5f32);
    let mut plain = with_operands(plain, [[0.1f32, 0.2]].into(), DType::Float32);
    for result in [
        [0.53742987f32, 0.5793243],
        [0.4813617, 0.008030206],
        [0.7908406, 0.8175745],
        [0.763145, 0.79248995],
        [0.45421648, 0.5783634],
        [0.44733346, 0.008030034],
        [0.3413803, 0.006363721],
    ] {
        plain = plain.expect([result]);
    }
    let mut whole = with_operands(clipped("BlockLSTM").input(2i64), sequence(), DType::Float32);
    for (first, second) in STEP.into_iter().zip(SECOND_STEP) {
        whole = whole.expect([[first], [second], [[0.0, 0.0]]]);
    }
    vec![
        step,
        half,
        plain.tolerance(1e-5, 1e-6),
        whole.tolerance(1e-5, 1e-6),
        sequence_gradient(),
        step_gradient(),
    ]
}

fn sequence_gradient() -> Case {
    let mut case = with_operands(
        Case::new("BlockLSTMGrad").attr("use_peephole", true).input(3i64),
        sequence(),
        DType::Float32,
    );
    case = unclipped_results().into_iter().fold(case, Case::input);
    let filled = |x: f32| [[[x; 2]]; 3];
    let w_grad = [
        -0.001618709f32,
        0.07212386,
        0.59325176,
        0.7180797,
        0.10017026,
        -0.020094194,
        0.06450637,
        0.002006734,
        0.024957988,
        0.13830277,
        0.8540671,
        1.0338986,
        0.13552034,
        -0.04079242,
        0.09019683,
        0.002138646,
        0.15106934,
        0.32698366,
        1.0888779,
        1.3186613,
        0.13478968,
        -0.10386895,
        0.103332855,
        -0.000560684,
        0.20843281,
        0.36796454,
        0.795897,
        0.9559324,
        0.062120594,
        -0.122339986,
        0.066203654,
        -0.005167732,
    ];
    case.input(filled(0.5))
        .input(filled(1.0))
        .expect([
            [[-2.5304937f32, -0.9640654]],
            [[-1.3856063, -0.47667322]],
            [[-0.5437601, -0.17966484]],
        ])
        .expect([[2.7446873f32, 3.768502]])
        .expect([[0.6023628f32, 2.168791]])
        .expect(Value::from_vec([4, 8], w_grad).expect("a value"))
        .expect([0.06973953f32, -0.24806115])
        .expect([0.14805669f32, 0.082073756])
        .expect([0.103992775f32, 0.000468353])
        .expect([
            0.26576698f32,
            0.66178906,
            2.6081533,
            3.1581888,
            0.35350078,
            -0.20698227,
            0.25690466,
            0.001319118,
        ])
        .tolerance(1e-4, 1e-5)
}

/// The gradient of a step is that of a sequence of one step.
fn step_gradient() -> Case {
    let x: Value = [[0.1f32, 0.2]].into();
    let forward = Case::new("LSTMBlockCell")
        .attr("use_peephole", true)
        .attr("cell_clip", -1.0f32);
    let results = with_operands(forward, x.clone(), DType::Float32)
        .run()
        .expect("it runs");
    let mut case = with_operands(
        Case::new("LSTMBlockCellGrad").attr("use_peephole", true),
        x,
        DType::Float32,
    );
    case = results[..6].iter().cloned().fold(case, Case::input);
    let one = |value: &Value| value.reshaped([1, 1, 2]).expect("two elements");
    let mut sequence = with_operands(
        Case::new("BlockLSTMGrad").attr("use_peephole", true).input(1i64),
        [[[0.1f32, 0.2]]].into(),
        DType::Float32,
    );
    sequence = results.iter().map(one).fold(sequence, Case::input);
    let whole = sequence
        .input([[[0.5f32; 2]]])
        .input([[[1.0f32; 2]]])
        .run()
        .expect("it runs");
    // The gradient of the bias is that of the gates.
    let gates = whole[7].reshaped([1, 8]).expect("eight elements");
    case.input([[0.5f32; 2]])
        .input([[1.0f32; 2]])
        .expect(whole[1].clone())
        .expect(gates)
        .expect(whole[4].clone())
        .expect(whole[5].clone())
        .expect(whole[6].clone())
        .tolerance(1e-5, 1e-6)
}

pub(in super::super) fn gradient_cases() -> Vec<GradientCase> {
    let case = |output: usize| {
        let mut case = GradientCase::new("BlockLSTM")
            .attr("use_peephole", true)
            .attr("cell_clip", -1.0f32)
            .output(output)
            .input(3i64)
            .input(sequence())
            .input([[0.3f32, -0.4]])
            .input([[0.5f32, 0.6]])
            .with_respect_to(&[1, 2, 3, 4, 5, 6, 7, 8])
            .first_order_only()
            .tolerance(2e-2, 2e-3, 1e-2);
        case = weights(DType::Float32).into_iter().fold(case, GradientCase::input);
        case
    };
    vec![case(1), case(6)]
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let case = Case::new("BlockLSTM").input(4i64);
    assert!(with_operands(case, sequence(), DType::Float32).run().is_err());
    let case = Case::new("LSTMBlockCell");
    assert!(
        with_operands(case, [[0.1f32, 0.2, 0.3]].into(), DType::Float32)
            .run()
            .is_err()
    );
}
