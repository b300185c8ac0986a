use graph_core::{DType, Value};

use crate::testing::{Case, GradientCase};

const X: [[[[f32; 2]; 1]; 2]; 2] = [[[[1.0, -2.0]], [[3.0, 0.5]]], [[[2.0, 2.0]], [[0.0, -1.0]]]];
const SCALE: [f32; 2] = [2.0, 0.5];
const OFFSET: [f32; 2] = [1.0, -1.0];
const MEAN: [f32; 2] = [1.0, 0.25];
const VARIANCE: [f32; 2] = [4.0, 0.5];
const GRADIENT: [[[[f32; 2]; 1]; 2]; 2] = [[[[1.0, 2.0]], [[-1.0, 0.5]]], [[[0.25, 3.0]], [[2.0, -2.0]]]];
/// As TensorFlow computes them, with epsilon 0.001.
const NORMALIZED: [f32; 8] = [
    0.105_930_39,
    -1.618_454_9,
    3.682_208_8,
    -0.793_848_34,
    1.894_069_7,
    -0.299_084_37,
    -1.682_208_8,
    -1.288_612_4,
];

fn empty() -> Value {
    Value::zeros(DType::Float32, [0]).expect("a value")
}

fn images(elements: [f32; 8]) -> Value {
    Value::from_vec([2, 2, 1, 2], elements).expect("a value")
}

fn case(op: &'static str) -> Case {
    Case::new(op).attr("epsilon", 1e-3f32).tolerance(2e-6, 2e-6)
}

fn versions() -> [(&'static str, &'static str, bool); 3] {
    [
        ("FusedBatchNorm", "FusedBatchNormGrad", false),
        ("FusedBatchNormV2", "FusedBatchNormGradV2", false),
        ("FusedBatchNormV3", "FusedBatchNormGradV3", true),
    ]
}

fn inference() -> Vec<Case> {
    let normalized = images([
        1.0,
        -2.589_401_7,
        2.999_750_1,
        -0.823_399_8,
        1.999_875,
        0.236_201_29,
        1.249_313_4e-4,
        -1.883_001,
    ]);
    versions()
        .into_iter()
        .map(|(op, _, reserved)| {
            let case = case(op).attr("is_training", false).input(X).input(SCALE).input(OFFSET);
            let case = case.input(MEAN).input(VARIANCE).expect(normalized.clone());
            let case = case.expect(MEAN).expect(VARIANCE).expect(MEAN).expect(VARIANCE);
            if reserved { case.expect(0.0f32) } else { case }
        })
        .collect()
}

fn training() -> Vec<Case> {
    versions()
        .into_iter()
        .map(|(op, _, reserved)| {
            let case = case(op)
                .input(X)
                .input(SCALE)
                .input(OFFSET)
                .input(empty())
                .input(empty());
            let case = case.expect(images(NORMALIZED));
            let case = case.expect([1.5f32, -0.125]).expect([1.666_666_7f32, 3.0625]);
            let case = case.expect([1.5f32, -0.125]).expect([1.25f32, 2.296_875]);
            if reserved { case.expect(0.0f32) } else { case }
        })
        .collect()
}

fn gradients() -> Vec<Case> {
    let in_training = [
        0.437_445_34,
        3.471_462_5,
        -1.093_730_5,
        -0.562_318_26,
        -0.078_173_794,
        -0.580_824_3,
        1.203_033_2,
        -0.543_812_2,
    ];
    let in_inference = [
        0.999_875_07,
        1.412_801_5,
        -0.999_875_07,
        0.353_200_38,
        0.249_968_77,
        2.119_202_1,
        1.999_750_1,
        -1.412_801_5,
    ];
    let mut cases = Vec::new();
    for (_, op, reserved) in versions() {
        for (training, to_x) in [(true, in_training), (false, in_inference)] {
            let case = case(op)
                .attr("is_training", training)
                .input(GRADIENT)
                .input(X)
                .input(SCALE);
            let mut case = case.input(MEAN).input(VARIANCE);
            if reserved {
                case = case.input(0.0f32);
            }
            let case = case
                .expect(images(to_x))
                .expect([-1.874_765_8f32, 4.768_205])
                .expect([2.25f32, 3.5]);
            cases.push(case.expect(empty()).expect(empty()));
        }
    }
    cases
}

pub(in crate::nn) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [inference(), training(), gradients()].into_iter().flatten().collect();
    for dtype in [DType::Half, DType::BFloat16] {
        let cast = |value: Value| value.cast_exactly(dtype).expect("rounded");
        let case = Case::new("FusedBatchNormV2")
            .attr("epsilon", 1e-3f32)
            .tolerance(1e-2, 1e-2);
        let case = case
            .attr("U", DType::Float32)
            .input(cast(X.into()))
            .input(SCALE)
            .input(OFFSET);
        let case = case.input(empty()).input(empty()).expect(cast(images(NORMALIZED)));
        let case = case.expect([1.5f32, -0.125]).expect([1.666_666_7f32, 3.0625]);
        cases.push(case.expect([1.5f32, -0.125]).expect([1.25f32, 2.296_875]));
    }
    // Channels first, in one image.
    cases.push(
        case("FusedBatchNormV2")
            .attr("data_format", "NCHW")
            .attr("is_training", false)
            .attr("epsilon", 1.0f32)
            .input([[[[1.0f32, 2.0]], [[3.0, 4.0]]]])
            .input([1.0f32, 2.0])
            .input([0.0f32, 10.0])
            .input([1.0f32, 3.0])
            .input([0.0f32, 3.0])
            .expect([[[[0.0f32, 1.0]], [[10.0, 11.0]]]])
            .expect([1.0f32, 3.0])
            .expect([0.0f32, 3.0])
            .expect([1.0f32, 3.0])
            .expect([0.0f32, 3.0]),
    );
    cases
}

pub(in crate::nn) fn gradient_cases() -> Vec<GradientCase> {
    let case = |op, training: bool| {
        let case = GradientCase::new(op)
            .attr("epsilon", 1e-2f32)
            .attr("is_training", training);
        let case = case.input(X).input(SCALE).input(OFFSET);
        let case = if training {
            case.input(empty()).input(empty())
        } else {
            case.input(MEAN).input(VARIANCE)
        };
        case.with_respect_to(&[0, 1, 2]).tolerance(1e-2, 2e-3, 1e-2)
    };
    let channels_first = |training| {
        let mut case = case("FusedBatchNormV3", training).attr("data_format", "NCHW");
        case.inputs[0] = Value::from_vec([2, 2, 2, 1], [1.0f32, -2.0, 3.0, 0.5, 2.0, 2.0, 0.0, -1.0]).expect("a value");
        case
    };
    let mut cases: Vec<GradientCase> = versions()
        .into_iter()
        .flat_map(|(op, _, _)| [case(op, true), case(op, false)])
        .collect();
    cases.extend([channels_first(true), channels_first(false)]);
    // With moments that are given, the gradient is a function of what comes in, the images and the scale alone.
    for (_, op, reserved) in versions() {
        let case = GradientCase::new(op)
            .attr("epsilon", 1e-2f32)
            .attr("is_training", false);
        let case = case.input(GRADIENT).input(X).input(SCALE).input(MEAN).input(VARIANCE);
        let case = if reserved { case.input(0.0f32) } else { case };
        cases.push(case.with_respect_to(&[0, 1, 2]).tolerance(1e-2, 2e-3, 1e-2));
    }
    cases
}

#[test]
fn moments_in_training_are_refused() {
    let case = case("FusedBatchNorm")
        .input(X)
        .input(SCALE)
        .input(OFFSET)
        .input(MEAN)
        .input(VARIANCE);
    assert_eq!(case.run().unwrap_err().class(), "InvalidArgument");
}
