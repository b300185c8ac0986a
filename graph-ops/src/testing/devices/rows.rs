//! What goes over rows or channels: normalizations, softmax and cross entropies, biases.

use graph_core::{DType, Value};

use super::{Numbers, cast, check_case, device};
use crate::testing::Case;

#[test]
fn biases_and_their_gradients_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(11);
    for shape in [
        vec![5, 3],
        vec![64, 800],
        vec![4000, 7],
        vec![3, 300],
        vec![2, 4, 5, 6],
        vec![30, 12, 12, 20],
        vec![0, 4],
        vec![4, 0],
    ] {
        for format in ["NHWC", "NCHW"] {
            if format == "NCHW" && shape.len() < 3 {
                continue;
            }
            let channels = if format == "NHWC" {
                shape[shape.len() - 1]
            } else {
                shape[1]
            };
            let x = numbers.tensor(&shape);
            let case = |op| Case::new(op).attr("data_format", format).input(x.clone());
            check_case(&device, &case("BiasAdd").input(numbers.tensor(&[channels])), (0.0, 0.0));
            check_case(&device, &case("BiasAddGrad"), (1e-12, 1e-12));
        }
    }
}

#[test]
fn softmax_and_cross_entropies_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(12);
    let close = (1e-12, 1e-13);
    for (rows, classes) in [(5, 10), (1, 1), (33, 3), (2, 1500), (300, 40), (0, 4)] {
        let logits = numbers.tensor(&[rows, classes]);
        check_case(&device, &Case::new("Softmax").input(logits.clone()), close);
        check_case(&device, &Case::new("LogSoftmax").input(logits.clone()), close);
        for labels in [[rows, classes], [1, classes], [rows, 1]] {
            let case = Case::new("SoftmaxCrossEntropyWithLogits").input(logits.clone());
            check_case(&device, &case.input(numbers.tensor(&labels)), close);
        }
        let case = Case::new("SoftmaxCrossEntropyWithLogits").input(numbers.tensor(&[1, classes]));
        check_case(&device, &case.input(logits.clone()), close);
        let labels: Vec<i64> = (0..rows).map(|_| numbers.among(0, classes - 1) as i64).collect();
        let case = Case::new("SparseSoftmaxCrossEntropyWithLogits").input(logits);
        check_case(&device, &case.input(Value::from_vec([rows], labels).unwrap()), close);
    }
}

#[test]
fn a_label_that_is_no_class_makes_its_row_not_numbers() {
    let Some(device) = device() else { return };
    let case = Case::new("SparseSoftmaxCrossEntropyWithLogits")
        .input([[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]])
        .input([2i32, 1, -1]);
    let node = case.node().unwrap();
    let outputs = graph_core::session::evaluate::evaluate_node_on(&node, &case.inputs, &device.accelerator()).unwrap();
    let nans = |output: &Value| {
        output
            .as_slice::<f32>()
            .unwrap()
            .iter()
            .map(|x| x.is_nan())
            .collect::<Vec<_>>()
    };
    assert_eq!(nans(&outputs[0]), [true, false, true]);
    assert_eq!(nans(&outputs[1]), [true, true, false, false, true, true]);
}

#[test]
fn local_response_normalization_is_that_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(13);
    for (shape, radius) in [
        ([2, 3, 4, 20], 4i64),
        ([1, 2, 2, 3], 5),
        ([2, 5, 5, 7], 2),
        ([1, 1, 1, 1], 0),
        ([1, 2, 2, 90], 40),
        ([3, 9, 9, 50], 30),
        ([0, 2, 2, 4], 1),
    ] {
        for beta in [0.5f32, 0.75, 1.0, 0.6] {
            let case = |op| {
                Case::new(op)
                    .attr("depth_radius", radius)
                    .attr("bias", 1.5f32)
                    .attr("alpha", 0.3f32)
                    .attr("beta", beta)
            };
            let [x, gradient, output] = [0; 3].map(|_| cast(&numbers.tensor(&shape), DType::Float32));
            check_case(&device, &case("LRN").input(x.clone()), (1e-6, 1e-7));
            let grad = case("LRNGrad").input(gradient).input(x).input(output);
            check_case(&device, &grad, (2e-6, 2e-6));
        }
    }
}

#[test]
fn batch_normalizations_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(14);
    for shape in [
        [3usize, 4, 5, 6],
        [20, 9, 9, 3],
        [2, 3, 3, 300],
        [1, 1, 1, 2],
        [6, 6, 4, 5],
    ] {
        for (format, channels) in [("NHWC", shape[3]), ("NCHW", shape[1])] {
            for training in [true, false] {
                for (version, outputs) in [("", 5), ("V3", 6)] {
                    let name = |stem: &str| -> &'static str {
                        match (stem, version) {
                            ("forward", "") => "FusedBatchNorm",
                            ("forward", _) => "FusedBatchNormV3",
                            (_, "") => "FusedBatchNormGrad",
                            _ => "FusedBatchNormGradV3",
                        }
                    };
                    let case = |stem| {
                        Case::new(name(stem))
                            .attr("data_format", format)
                            .attr("is_training", training)
                            .attr("epsilon", 0.01f32)
                    };
                    let mut tensor = |shape: &[usize]| cast(&numbers.tensor(shape), DType::Float32);
                    let (x, gradient) = (tensor(&shape), tensor(&shape));
                    let [scale, offset, mean] = [0; 3].map(|_| tensor(&[channels]));
                    let variance = Value::from(vec![0.7f32; channels]);
                    let given = if training {
                        [
                            Value::zeros(DType::Float32, [0]).unwrap(),
                            Value::zeros(DType::Float32, [0]).unwrap(),
                        ]
                    } else {
                        [mean.clone(), variance.clone()]
                    };
                    let [given_mean, given_variance] = given;
                    let forward = case("forward").input(x.clone()).input(scale.clone()).input(offset);
                    check_case(&device, &forward.input(given_mean).input(given_variance), (1e-4, 1e-5));
                    let mut backward = case("backward")
                        .input(gradient)
                        .input(x)
                        .input(scale)
                        .input(mean)
                        .input(variance);
                    if outputs == 6 {
                        backward = backward.input(0.0f32);
                    }
                    check_case(&device, &backward, (1e-4, 1e-5));
                }
            }
        }
    }
}
