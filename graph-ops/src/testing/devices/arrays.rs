//! What moves elements, and what broadcasts, over shapes that take every way through the kernels.

use graph_core::{DType, Value};

use super::{Numbers, cast, check_case, device};
use crate::testing::Case;

const EXACT: (f64, f64) = (0.0, 0.0);

fn ints(numbers: &[i32]) -> Value {
    Value::from_vec([numbers.len()], numbers).expect("integers")
}

/// Numbers as elements of 8, 4 and 2 bytes.
fn sizes(value: &Value) -> [Value; 3] {
    let halves = value
        .as_slice::<f64>()
        .expect("numbers")
        .iter()
        .map(|&x| half::f16::from_f64(x));
    let halves = Value::from_vec(value.shape().clone(), halves.collect::<Vec<_>>()).expect("a value");
    [value.clone(), cast(value, DType::Float32), halves]
}

#[test]
fn transposed_and_reversed_tensors_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(41);
    for (shape, perm) in [
        (vec![50, 70], vec![1, 0]),
        (vec![8, 8], vec![1, 0]),
        (vec![3, 40, 33], vec![0, 2, 1]),
        (vec![2, 5, 6, 9], vec![0, 3, 1, 2]),
        (vec![2, 9, 5, 6], vec![0, 2, 3, 1]),
        (vec![4, 3, 8], vec![1, 0, 2]),
        (vec![2, 3, 4, 5], vec![3, 2, 1, 0]),
        (vec![1, 7, 1], vec![2, 1, 0]),
        (vec![0, 3], vec![1, 0]),
    ] {
        for x in sizes(&numbers.tensor(&shape)) {
            check_case(
                &device,
                &Case::new("Transpose").input(x.clone()).input(ints(&perm)),
                EXACT,
            );
            check_case(&device, &Case::new("ReverseV2").input(x).input(ints(&perm[..1])), EXACT);
        }
    }
}

#[test]
fn parts_and_joined_tensors_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(42);
    let x = numbers.tensor(&[6, 8, 12]);
    for x in sizes(&x) {
        for (begin, size) in [
            ([0, 0, 0], [6, 8, 12]),
            ([1, 2, 4], [2, 3, 8]),
            ([5, 0, 3], [1, 8, 1]),
            ([0, 8, 0], [6, 0, 12]),
        ] {
            let case = Case::new("Slice")
                .input(x.clone())
                .input(ints(&begin))
                .input(ints(&size));
            check_case(&device, &case, EXACT);
        }
        for (begin, end, strides) in [
            ([0, 0, 0], [6, 8, 12], [2, 3, 1]),
            ([5, 7, 11], [0, 0, 0], [-1, -2, -3]),
            ([1, 0, 4], [6, 8, 12], [1, 1, 1]),
        ] {
            let case = Case::new("StridedSlice").input(x.clone());
            check_case(
                &device,
                &case.input(ints(&begin)).input(ints(&end)).input(ints(&strides)),
                EXACT,
            );
        }
        let case = Case::new("StridedSliceGrad")
            .input(ints(&[6, 8, 12]))
            .input(ints(&[0, 0, 0]))
            .input(ints(&[12, 16, 24]));
        let case = case.input(ints(&[1, 1, 1]));
        check_case(&device, &case.input(x.clone()), EXACT);
        for axis in 0..3i32 {
            check_case(
                &device,
                &Case::new("Split").input(axis).input(x.clone()).attr("num_split", 2i64),
                EXACT,
            );
            let case = Case::new("ConcatV2")
                .input(x.clone())
                .input(x.clone())
                .input(axis)
                .attr("N", 2i64);
            check_case(&device, &case, EXACT);
            let count = [6i64, 8, 12][axis as usize];
            check_case(
                &device,
                &Case::new("Unpack")
                    .input(x.clone())
                    .attr("num", count)
                    .attr("axis", i64::from(axis)),
                EXACT,
            );
            let case = Case::new("Pack")
                .input(x.clone())
                .input(x.clone())
                .attr("axis", i64::from(axis));
            check_case(&device, &case.attr("N", 2i64), EXACT);
        }
        let case = Case::new("Pad").input(x.clone()).input([[1i32, 2], [0, 0], [3, 0]]);
        check_case(&device, &case, EXACT);
        for mode in ["REFLECT", "SYMMETRIC"] {
            let case = Case::new("MirrorPad")
                .input(x.clone())
                .input([[1i32, 2], [0, 0], [3, 7]]);
            check_case(&device, &case.attr("mode", mode), EXACT);
        }
        check_case(
            &device,
            &Case::new("Tile").input(x.clone()).input(ints(&[2, 1, 3])),
            EXACT,
        );
        check_case(
            &device,
            &Case::new("Tile").input(x.clone()).input(ints(&[1, 0, 1])),
            EXACT,
        );
        let case = Case::new("BroadcastTo").input(x.clone()).input(ints(&[2, 6, 8, 12]));
        check_case(&device, &case, EXACT);
    }
    let column = numbers.tensor(&[3, 1, 4]);
    check_case(
        &device,
        &Case::new("BroadcastTo").input(column).input(ints(&[2, 3, 5, 4])),
        EXACT,
    );
}

#[test]
fn picked_parts_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(43);
    for inner in [1usize, 3, 4, 7, 16] {
        for x in sizes(&numbers.tensor(&[4, 10, inner])) {
            let indices = Value::from_vec([2, 3], vec![9i64, 0, 3, 3, 1, 8]).expect("indices");
            for axis in 0..2i32 {
                let rows = if axis == 0 {
                    Value::from([3i32, 0, 3])
                } else {
                    indices.clone()
                };
                let case = Case::new("GatherV2").input(x.clone()).input(rows).input(axis);
                check_case(&device, &case, EXACT);
            }
            let batch = Value::from_vec([4, 2], vec![0i32, 9, 1, 8, 2, 7, 3, 6]).expect("indices");
            let case = Case::new("GatherV2")
                .input(x.clone())
                .input(batch)
                .input(1i32)
                .attr("batch_dims", 1i64);
            check_case(&device, &case, EXACT);
            let points = Value::from_vec([3, 2], vec![3i32, 9, 0, 0, 1, 5]).expect("indices");
            check_case(&device, &Case::new("GatherNd").input(x).input(points), EXACT);
        }
    }
}

#[test]
fn broadcast_operands_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(44);
    for (a, b) in [
        (vec![1000], vec![1000]),
        (vec![1001], vec![1]),
        (vec![], vec![37]),
        (vec![30, 7], vec![7]),
        (vec![30, 7], vec![30, 1]),
        (vec![30, 1], vec![1, 7]),
        (vec![2, 3, 4, 5], vec![3, 1, 5]),
        (vec![2, 1, 4, 1, 2], vec![3, 1, 5, 1]),
        (vec![0, 3], vec![1, 3]),
    ] {
        let (x, y) = (numbers.tensor(&a), numbers.tensor(&b));
        for op in ["Sub", "Maximum", "Less", "Equal"] {
            check_case(&device, &Case::new(op).input(x.clone()).input(y.clone()), EXACT);
            let case = Case::new(op)
                .input(cast(&x, DType::Float32))
                .input(cast(&y, DType::Float32));
            check_case(&device, &case, EXACT);
        }
        let condition: Vec<bool> = (0..x.num_elements()).map(|_| numbers.among(0, 1) == 1).collect();
        let condition = Value::from_vec(a, condition).expect("truth values");
        let case = Case::new("SelectV2").input(condition).input(y).input(x);
        check_case(&device, &case, EXACT);
    }
}
