//! Reductions, extrema and scans over shapes that take every way through their kernels.

use graph_core::{DType, Value};

use super::{Numbers, cast, check_case, device};
use crate::testing::Case;

/// Shapes and the axes that are reduced: rows short and long, columns few and many, and both in turn; of enough elements that
/// some are cut into parts.
const REDUCTIONS: [(&[usize], &[i32]); 20] = [
    (&[20_000], &[0]),
    (&[3, 700], &[1]),
    (&[100, 40], &[1]),
    (&[2, 9000], &[1]),
    (&[9000, 2], &[0]),
    (&[3000, 40], &[0]),
    (&[70, 300], &[0]),
    (&[5, 6, 7], &[1]),
    (&[5, 6, 7], &[0, 2]),
    (&[4, 3, 5, 2], &[0, 2]),
    (&[4, 3, 5, 2], &[1, 3]),
    (&[30, 20, 40], &[0, 1]),
    (&[300, 4, 30], &[0, 2]),
    (&[2, 1, 3, 1, 2], &[1, 2]),
    (&[2, 3], &[]),
    (&[1, 1], &[0]),
    (&[0, 3], &[0]),
    (&[3, 0], &[0]),
    (&[3, 0], &[1]),
    (&[2, 2, 2, 2, 2, 2, 2, 2], &[0, 2, 4, 6]),
];

#[test]
fn reductions_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(31);
    for (shape, axes) in REDUCTIONS {
        let axes = Value::from_vec([axes.len()], axes).expect("axes");
        let x = numbers.tensor(shape);
        for op in ["Sum", "Mean", "Max", "Min", "EuclideanNorm"] {
            let case = Case::new(op).input(x.clone()).input(axes.clone());
            check_case(&device, &case, (1e-12, 1e-12));
        }
        for op in ["Sum", "Max"] {
            let case = Case::new(op)
                .input(cast(&x, DType::Float32))
                .input(axes.clone())
                .attr("keep_dims", true);
            check_case(&device, &case, (1e-5, 1e-5));
        }
        let few: Vec<bool> = (0..x.num_elements()).map(|_| numbers.among(0, 20) == 0).collect();
        let few = Value::from_vec(shape.to_vec(), few).expect("truth values");
        check_case(
            &device,
            &Case::new("Any").input(few.clone()).input(axes.clone()),
            (0.0, 0.0),
        );
        check_case(&device, &Case::new("All").input(few).input(axes.clone()), (0.0, 0.0));
    }
}

#[test]
fn a_number_that_is_none_stays_in_extrema() {
    let Some(device) = device() else { return };
    for len in [3usize, 50, 3000] {
        for place in [0, len / 2, len - 1] {
            let mut numbers: Vec<f64> = (0..len).map(|number| number as f64).collect();
            numbers[place] = f64::NAN;
            for op in ["Max", "Min"] {
                check_case(
                    &device,
                    &Case::new(op).input(Value::from(numbers.clone())).input([0i32]),
                    (0.0, 0.0),
                );
            }
            for op in ["ArgMax", "ArgMin"] {
                check_case(
                    &device,
                    &Case::new(op).input(Value::from(numbers.clone())).input(0i32),
                    (0.0, 0.0),
                );
            }
        }
    }
}

#[test]
fn places_of_extrema_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(32);
    for (shape, axis) in [
        (vec![300, 10], 1),
        (vec![7, 100], 1),
        (vec![100, 7], 0),
        (vec![3, 40, 5], 1),
        (vec![1, 2000], 1),
        (vec![0, 4], 1),
    ] {
        let x = numbers.coarse(&shape);
        for op in ["ArgMax", "ArgMin"] {
            for dtype in [DType::Int32, DType::Int64] {
                let case = Case::new(op).input(x.clone()).input(axis).attr("output_type", dtype);
                check_case(&device, &case, (0.0, 0.0));
            }
        }
    }
}

#[test]
fn scans_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(33);
    for (shape, axis) in [
        (vec![3, 700], 1),
        (vec![2, 256], 1),
        (vec![64], 0),
        (vec![300, 5], 0),
        (vec![4, 30, 6], 1),
        (vec![3, 0], 0),
        (vec![3, 0], 1),
    ] {
        let x = numbers.tensor(&shape);
        for op in ["Cumsum", "Cumprod"] {
            for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
                let case = Case::new(op).input(x.clone()).input(axis);
                let case = case.attr("exclusive", exclusive).attr("reverse", reverse);
                check_case(&device, &case, (1e-12, 1e-12));
            }
        }
    }
}

#[test]
fn segments_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(34);
    // As many rows as are sorted at once, and more, and a number of them that is no power of two.
    for (rows, inner, segments) in [
        (600, 3, 7),
        (5, 300, 4),
        (40, 1, 100),
        (0, 3, 2),
        (3, 0, 2),
        (2048, 1, 2048),
        (2049, 2, 30),
        (9000, 1, 50),
        (16_384, 1, 1),
    ] {
        let data = numbers.tensor(&[rows, inner]);
        // A row of no segment is left out.
        let ids: Vec<i32> = (0..rows).map(|_| numbers.among(0, segments) as i32 - 1).collect();
        let ids = Value::from_vec([rows], ids).expect("segment numbers");
        for op in [
            "UnsortedSegmentSum",
            "UnsortedSegmentProd",
            "UnsortedSegmentMin",
            "UnsortedSegmentMax",
        ] {
            let case = Case::new(op)
                .input(data.clone())
                .input(ids.clone())
                .input(segments as i32);
            check_case(&device, &case, (1e-12, 1e-12));
        }
    }
}

#[test]
fn sums_of_many_terms_and_products_of_batches_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(35);
    for count in [1usize, 2, 8, 9, 20] {
        let terms = (0..count).map(|_| numbers.tensor(&[3, 50]));
        let case = terms.fold(Case::new("AddN"), Case::input);
        check_case(&device, &case, (1e-13, 1e-13));
    }
    for (a, b) in [
        (vec![4, 3, 5], vec![4, 5, 2]),
        (vec![1, 3, 5], vec![4, 5, 2]),
        (vec![3, 5], vec![4, 5, 2]),
        (vec![2, 1, 3, 5], vec![1, 4, 5, 2]),
        (vec![2, 4, 3, 5], vec![2, 1, 5, 2]),
        (vec![0, 3, 5], vec![1, 5, 2]),
    ] {
        let case = Case::new("BatchMatMulV2")
            .input(numbers.tensor(&a))
            .input(numbers.tensor(&b));
        check_case(&device, &case, (1e-12, 1e-12));
    }
    let (a, b) = (numbers.tensor(&[2, 5, 3]), numbers.tensor(&[2, 2, 5]));
    let case = Case::new("BatchMatMul")
        .input(a)
        .input(b)
        .attr("adj_x", true)
        .attr("adj_y", true);
    check_case(&device, &case, (1e-12, 1e-12));
}
