//! The greatest elements, counts, and places in sorted rows, over rows longer than a block has threads.

use graph_core::{DType, Value};

use super::{Numbers, cast, check_case, device};
use crate::testing::Case;

const EXACT: (f64, f64) = (0.0, 0.0);

#[test]
fn greatest_elements_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(61);
    for (shape, k) in [
        (vec![3, 10], 4),
        (vec![700], 300),
        (vec![2, 300], 300),
        (vec![2, 3, 257], 1),
        (vec![600, 5], 2),
        (vec![4, 0], 0),
        (vec![0, 4], 2),
    ] {
        // Ties, and what is not a number.
        let mut elements = numbers.coarse(&shape).as_slice::<f64>().unwrap().to_vec();
        if let Some(last) = elements.last_mut() {
            *last = f64::NAN;
        }
        let x = Value::from_vec(shape.clone(), elements).unwrap();
        for x in [x.clone(), cast(&x, DType::Float32), numbers.tensor(&shape)] {
            for sorted in [true, false] {
                let case = Case::new("TopKV2").attr("sorted", sorted).input(x.clone());
                check_case(&device, &case.input(k), EXACT);
            }
        }
    }
    for (rows, classes) in [(9, 5), (3, 700), (0, 4)] {
        let predictions = cast(&numbers.coarse(&[rows, classes]), DType::Float32);
        let targets: Vec<i64> = (0..rows).map(|_| numbers.among(0, classes) as i64).collect();
        for k in [0i64, 1, 3] {
            let case = Case::new("InTopKV2").input(predictions.clone()).input(targets.clone());
            check_case(&device, &case.input(k), EXACT);
        }
    }
}

#[test]
fn counts_and_bounds_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(62);
    for (n, size) in [(1000, 7), (5, 300), (0, 3)] {
        let counted: Vec<i32> = (0..n).map(|_| numbers.among(0, size + 2) as i32).collect();
        let case = || Case::new("Bincount").input(counted.clone()).input(size as i32);
        check_case(&device, &case().input(Vec::<i32>::new()), EXACT);
        check_case(&device, &case().input(Vec::<f32>::new()), EXACT);
        check_case(&device, &case().input(Vec::from_iter(0..n as i64)), EXACT);
        check_case(&device, &case().input(numbers.tensor(&[n])), (1e-12, 1e-12));
    }
    let mut sorted: Vec<f64> = (0..300).map(|_| numbers.unit()).collect();
    sorted.sort_by(f64::total_cmp);
    let rows = Value::from_vec([2, 150], sorted).unwrap();
    for op in ["LowerBound", "UpperBound"] {
        let case = Case::new(op).input(rows.clone()).input(numbers.tensor(&[2, 33]));
        check_case(&device, &case.attr("out_type", DType::Int64), EXACT);
    }
    let x = numbers.tensor(&[40, 9]);
    let case = Case::new("Bucketize").attr("boundaries", vec![-0.5f32, 0.0, 0.25]);
    check_case(&device, &case.input(x), EXACT);
    for axis in 0..2i32 {
        for (exclusive, reverse) in [(false, false), (true, true)] {
            let case = Case::new("CumulativeLogsumexp")
                .input(numbers.tensor(&[3, 500]))
                .input(axis);
            let case = case.attr("exclusive", exclusive).attr("reverse", reverse);
            check_case(&device, &case, (1e-12, 1e-12));
        }
    }
}

#[test]
fn sparse_tensors_and_segments_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(63);
    let positions: Vec<i64> = (0..120).map(|_| numbers.among(0, 5) as i64).collect();
    let positions = Value::from_vec([60, 2], positions).unwrap();
    let case = Case::new("SparseTensorDenseAdd")
        .input(positions.clone())
        .input(numbers.tensor(&[60]))
        .input([6i64, 6])
        .input(numbers.tensor(&[6, 6]));
    check_case(&device, &case, (1e-12, 1e-12));
    for values in [numbers.tensor(&[60]), Value::scalar(2.5f64)] {
        let case = Case::new("SparseToDense")
            .attr("validate_indices", false)
            .input(positions.clone())
            .input([6i64, 6])
            .input(values)
            .input(-1.0f64);
        check_case(&device, &case, EXACT);
    }
    let mut segments: Vec<i32> = (0..40).map(|_| numbers.among(0, 8) as i32).collect();
    segments.sort_unstable();
    let indices: Vec<i32> = (0..40).map(|_| numbers.among(0, 10) as i32).collect();
    for op in ["SparseSegmentMeanGrad", "SparseSegmentSqrtNGrad"] {
        let case = Case::new(op)
            .input(numbers.tensor(&[9, 300]))
            .input(indices.clone())
            .input(segments.clone());
        check_case(&device, &case.input(11i32), (1e-12, 1e-12));
    }
    for op in ["InplaceUpdate", "InplaceAdd", "InplaceSub"] {
        let case = Case::new(op)
            .input(numbers.tensor(&[7, 50]))
            .input([3i32, -1, 3, 10])
            .input(numbers.tensor(&[4, 50]));
        check_case(&device, &case, (1e-12, 1e-12));
    }
}

#[test]
fn draws_of_classes_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(64);
    for (rows, classes, samples) in [(3, 4, 5), (2, 600, 7), (1, 1, 1), (0, 3, 2), (2, 3, 0)] {
        let logits = numbers.tensor(&[rows, classes]);
        for logits in [logits.clone(), cast(&logits, DType::Float32)] {
            let case = Case::new("Multinomial").attr("seed", 5i64).attr("seed2", 7i64);
            check_case(&device, &case.input(logits.clone()).input(samples), EXACT);
            let case = Case::new("StatelessMultinomial").input(logits).input(samples);
            check_case(&device, &case.input([3i64, -9]), EXACT);
        }
    }
    for dtype in [DType::Float32, DType::Float64, DType::Half, DType::BFloat16] {
        for (op, close) in [
            ("StatelessRandomUniform", EXACT),
            ("StatelessRandomNormal", (1e-6, 1e-9)),
            ("StatelessTruncatedNormal", (1e-6, 1e-9)),
        ] {
            let case = Case::new(op).attr("dtype", dtype).input([1003i32]);
            check_case(&device, &case.input([-1i64, i64::MAX]), close);
        }
    }
}
