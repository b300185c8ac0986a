//! Volumes, morphology, recurrent cells, linear algebra and special functions.

use graph_core::{DType, Value};

use super::{Numbers, cast, check_case, device};
use crate::testing::Case;

const CLOSE: (f64, f64) = (1e-11, 1e-11);

#[test]
fn volumes_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(81);
    for (format, shape) in [("NDHWC", [2usize, 4, 5, 6, 3]), ("NCDHW", [2, 3, 4, 5, 6])] {
        for padding in ["SAME", "VALID"] {
            for (strides, dilations) in [([1i64, 2, 1], [1i64; 3]), ([1; 3], [2, 1, 2])] {
                let five = |list: [i64; 3]| match format {
                    "NDHWC" => vec![1, list[0], list[1], list[2], 1],
                    _ => vec![1, 1, list[0], list[1], list[2]],
                };
                let case = |op| {
                    Case::new(op)
                        .attr("strides", five(strides))
                        .attr("dilations", five(dilations))
                        .attr("padding", padding)
                        .attr("data_format", format)
                };
                let (x, filter) = (numbers.tensor(&shape), numbers.tensor(&[2, 3, 2, 3, 4]));
                let forward = case("Conv3D").input(x.clone()).input(filter.clone());
                check_case(&device, &forward, CLOSE);
                let out = forward.run().unwrap().remove(0);
                let gradient = numbers.tensor(out.shape());
                let sizes = Value::from(shape.map(|dim| dim as i32));
                let back = case("Conv3DBackpropInputV2")
                    .input(sizes)
                    .input(filter)
                    .input(gradient.clone());
                check_case(&device, &back, CLOSE);
                let back = case("Conv3DBackpropFilterV2")
                    .input(x)
                    .input([2i32, 3, 2, 3, 4])
                    .input(gradient);
                check_case(&device, &back, CLOSE);
            }
            let five = |list: [i64; 3]| match format {
                "NDHWC" => vec![1, list[0], list[1], list[2], 1],
                _ => vec![1, 1, list[0], list[1], list[2]],
            };
            let case = |op| {
                Case::new(op)
                    .attr("ksize", five([2, 3, 2]))
                    .attr("strides", five([2, 1, 2]))
                    .attr("padding", padding)
                    .attr("data_format", format)
            };
            // Ties.
            let x = cast(&numbers.coarse(&shape), DType::Float32);
            let max = case("MaxPool3D").input(x.clone());
            check_case(&device, &max, (0.0, 0.0));
            let pooled = max.run().unwrap().remove(0);
            let gradient = cast(&numbers.tensor(pooled.shape()), DType::Float32);
            let back = case("MaxPool3DGrad")
                .input(x.clone())
                .input(pooled.clone())
                .input(gradient.clone());
            check_case(&device, &back, (1e-5, 1e-6));
            let back = case("MaxPool3DGradGrad")
                .input(x.clone())
                .input(pooled)
                .input(x.clone());
            check_case(&device, &back, (0.0, 0.0));
            check_case(&device, &case("AvgPool3D").input(x.clone()), (1e-5, 1e-6));
            let sizes = Value::from(shape.map(|dim| dim as i32));
            check_case(
                &device,
                &case("AvgPool3DGrad").input(sizes).input(gradient),
                (1e-5, 1e-6),
            );
        }
    }
}

#[test]
fn maxima_and_morphology_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(82);
    for padding in ["SAME", "VALID"] {
        for (strides, rates) in [
            (vec![1i64, 1, 2, 1], vec![1i64, 2, 1, 1]),
            (vec![1, 2, 1, 1], vec![1; 4]),
        ] {
            let case = |op| {
                Case::new(op)
                    .attr("strides", strides.clone())
                    .attr("rates", rates.clone())
                    .attr("padding", padding)
            };
            let (x, filter) = (numbers.coarse(&[2, 6, 7, 3]), numbers.coarse(&[2, 3, 3]));
            let forward = case("Dilation2D").input(x.clone()).input(filter.clone());
            check_case(&device, &forward, (0.0, 0.0));
            let gradient = numbers.tensor(forward.run().unwrap()[0].shape());
            for op in ["Dilation2DBackpropInput", "Dilation2DBackpropFilter"] {
                let back = case(op).input(x.clone()).input(filter.clone()).input(gradient.clone());
                check_case(&device, &back, CLOSE);
            }
        }
        for with_batch in [false, true] {
            let case = |op| {
                Case::new(op)
                    .attr("ksize", vec![1i64, 3, 2, 1])
                    .attr("strides", vec![1i64, 2, 1, 1])
                    .attr("padding", padding)
                    .attr("include_batch_in_index", with_batch)
            };
            let x = numbers.coarse(&[2, 6, 7, 3]);
            let forward = case("MaxPoolWithArgmax").input(x.clone());
            check_case(&device, &forward, (0.0, 0.0));
            let argmax = forward.run().unwrap().remove(1);
            let gradient = numbers.tensor(argmax.shape());
            let back = case("MaxPoolGradWithArgmax").input(x).input(gradient).input(argmax);
            check_case(&device, &back, CLOSE);
        }
    }
    for scaled in [false, true] {
        let case = |op| {
            Case::new(op)
                .attr("variance_epsilon", 0.01f32)
                .attr("scale_after_normalization", scaled)
        };
        let (x, vector) = (numbers.tensor(&[3, 9, 11, 4]), |numbers: &mut Numbers| {
            numbers.tensor(&[4])
        });
        let variance = Value::from([0.5f64, 1.0, 0.25, 2.0]);
        let case_forward = case("BatchNormWithGlobalNormalization")
            .input(x.clone())
            .input(vector(&mut numbers))
            .input(variance.clone())
            .input(vector(&mut numbers))
            .input(vector(&mut numbers));
        check_case(&device, &case_forward, CLOSE);
        let back = case("BatchNormWithGlobalNormalizationGrad")
            .input(x)
            .input(vector(&mut numbers))
            .input(variance)
            .input(vector(&mut numbers))
            .input(numbers.tensor(&[3, 9, 11, 4]));
        check_case(&device, &back, (1e-9, 1e-9));
    }
}

#[test]
fn recurrent_cells_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(83);
    let close = (2e-5, 2e-5);
    for (time, batch, inputs, cells) in [(3usize, 2usize, 4usize, 5usize), (1, 3, 2, 2), (4, 1, 3, 70)] {
        let mut tensor = |shape: &[usize]| cast(&numbers.tensor(shape), DType::Float32);
        let mut operands = |x: &[usize]| {
            vec![
                tensor(x),
                tensor(&[batch, cells]),
                tensor(&[batch, cells]),
                tensor(&[inputs + cells, 4 * cells]),
                tensor(&[cells]),
                tensor(&[cells]),
                tensor(&[cells]),
                tensor(&[4 * cells]),
            ]
        };
        for peepholes in [false, true] {
            let given = operands(&[batch, inputs]);
            let with = |case: Case, values: &[Value]| values.iter().fold(case, |case, value| case.input(value.clone()));
            let case = Case::new("LSTMBlockCell")
                .attr("use_peephole", peepholes)
                .attr("cell_clip", 0.4f32);
            let forward = with(case, &given);
            check_case(&device, &forward, close);
            let results = forward.run().unwrap();
            let back = with(Case::new("LSTMBlockCellGrad").attr("use_peephole", peepholes), &given);
            let back = with(back, &results[..6]);
            check_case(&device, &with(back, &given[1..3]), close);
            let given = operands(&[time, batch, inputs]);
            for len in [time as i64, time as i64 - 1] {
                let case = Case::new("BlockLSTM").attr("use_peephole", peepholes).input(len);
                let forward = with(case, &given);
                check_case(&device, &forward, close);
                let results = forward.run().unwrap();
                let back = with(
                    Case::new("BlockLSTMGrad").attr("use_peephole", peepholes).input(len),
                    &given,
                );
                let back = with(back, &results);
                check_case(&device, &with(back, &[results[1].clone(), results[6].clone()]), close);
            }
        }
        let given = [
            tensor(&[batch, inputs]),
            tensor(&[batch, cells]),
            tensor(&[inputs + cells, 2 * cells]),
            tensor(&[inputs + cells, cells]),
            tensor(&[2 * cells]),
            tensor(&[cells]),
        ];
        let with = |case: Case, values: &[Value]| values.iter().fold(case, |case, value| case.input(value.clone()));
        let forward = with(Case::new("GRUBlockCell"), &given);
        check_case(&device, &forward, close);
        let results = forward.run().unwrap();
        check_case(
            &device,
            &with(with(Case::new("GRUBlockCellGrad"), &given), &results),
            close,
        );
    }
}

/// Matrices whose diagonals are greater than all else, so that they are well conditioned.
fn matrices(numbers: &mut Numbers, count: usize, n: usize) -> Value {
    let mut elements = numbers.tensor(&[count, n, n]).as_slice::<f64>().unwrap().to_vec();
    for matrix in elements.chunks_mut((n * n).max(1)) {
        for k in 0..n {
            // An exchange of rows is wanted too.
            matrix[k * n + (k + 1) % n] += 2.0 * n as f64;
        }
    }
    Value::from_vec([count, n, n], elements).unwrap()
}

#[test]
fn linear_algebra_is_that_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(84);
    for (count, n) in [(3, 4), (1, 1), (2, 20), (1, 40), (0, 3), (2, 0)] {
        let a = matrices(&mut numbers, count, n);
        check_case(&device, &Case::new("MatrixDeterminant").input(a.clone()), (1e-9, 1e-9));
        check_case(
            &device,
            &Case::new("LogMatrixDeterminant").input(a.clone()),
            (1e-9, 1e-9),
        );
        check_case(&device, &Case::new("Lu").input(a.clone()), (1e-9, 1e-9));
        let product = Case::new("BatchMatMul")
            .attr("adj_y", true)
            .input(a.clone())
            .input(a.clone());
        let definite = product.run().unwrap().remove(0);
        check_case(&device, &Case::new("Cholesky").input(definite), (1e-9, 1e-9));
        for adjoint in [false, true] {
            let case = |op| Case::new(op).attr("adjoint", adjoint).input(a.clone());
            check_case(&device, &case("MatrixInverse"), (1e-9, 1e-9));
            for columns in [1, 3, 0] {
                let right = numbers.tensor(&[count, n, columns]);
                check_case(&device, &case("MatrixSolve").input(right), (1e-9, 1e-9));
            }
        }
    }
    // Triangles with a strong diagonal.
    let mut elements = numbers.tensor(&[2, 3, 6, 6]).as_slice::<f64>().unwrap().to_vec();
    for matrix in elements.chunks_mut(36) {
        (0..6).for_each(|k| matrix[k * 7] += 4.0);
    }
    let triangles = Value::from_vec([2, 3, 6, 6], elements).unwrap();
    for lower in [false, true] {
        for adjoint in [false, true] {
            for batch in [&[2usize, 3][..], &[1, 3], &[], &[5, 2, 3]] {
                let right = numbers.tensor(&[batch, &[6, 4]].concat());
                let case = Case::new("MatrixTriangularSolve")
                    .attr("lower", lower)
                    .attr("adjoint", adjoint);
                check_case(&device, &case.input(triangles.clone()).input(right), (1e-10, 1e-10));
            }
        }
    }
}

#[test]
fn special_functions_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let list = |numbers: &[f64]| Value::from_vec([numbers.len()], numbers).unwrap();
    let x = list(&[
        -3.5,
        -1.0,
        -0.2,
        0.0,
        0.3,
        1.0,
        2.5,
        9.9,
        30.5,
        200.0,
        f64::NAN,
        f64::INFINITY,
    ]);
    for op in ["Digamma", "BesselI0e", "BesselI1e"] {
        check_case(&device, &Case::new(op).input(x.clone()), (1e-10, 1e-12));
    }
    let (a, x) = (
        list(&[0.5, 1.0, 2.0, 3.5, 10.0, 40.0, 0.1, 5.0, -1.0, 2.0]),
        Value::from_vec([6, 1], vec![0.0, 0.3, 2.0, 4.5, 12.0, 50.0]).unwrap(),
    );
    for op in ["Igamma", "Igammac", "IgammaGradA", "RandomGammaGrad"] {
        check_case(&device, &Case::new(op).input(a.clone()).input(x.clone()), (1e-9, 1e-12));
    }
    let order = list(&[0.0, 1.0, 2.0, 3.0, 1.5, -1.0]);
    for (op, first) in [("Polygamma", order), ("Zeta", list(&[1.0, 1.5, 2.0, 4.0, 0.5]))] {
        check_case(&device, &Case::new(op).input(first).input(x.clone()), (1e-10, 1e-12));
    }
    let part = list(&[0.0, 0.1, 0.5, 0.9, 1.0]);
    for (a, b) in [(0.5, 2.0), (3.0, 0.7), (50.0, 60.0), (-1.0, 1.0)] {
        let case = Case::new("Betainc").input(a).input(b).input(part.clone());
        check_case(&device, &case, (1e-10, 1e-12));
    }
}
