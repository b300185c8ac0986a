//! Numeric cases of reductions.

use graph_core::{Complex, DType, Value};
use half::{bf16, f16};

use crate::testing::{Case, GradientCase};

const MATRIX: [[f32; 3]; 2] = [[1.0, -2.0, 3.5], [4.0, 0.5, -6.0]];

fn value<T: graph_core::Element>(shape: &[usize], elements: Vec<T>) -> Value {
    Value::from_vec(shape, elements).expect("as many elements as the shape says")
}

/// A vector of the numbers in any dtype.
fn numbers(dtype: DType, numbers: &[i64]) -> Value {
    Value::from(numbers.to_vec())
        .cast_exactly(dtype)
        .expect("small whole numbers")
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |op: &'static str, axes: &[i32], keep: bool, input: Value, expected: Value| {
        cases.push(
            Case::new(op)
                .attr("keep_dims", keep)
                .input(input)
                .input(value(&[axes.len()], axes.to_vec()))
                .expect(expected),
        );
    };
    let matrix = || Value::from(MATRIX);
    case("Sum", &[0, 1], false, matrix(), Value::from(1.0f32));
    case("Sum", &[1], false, matrix(), Value::from([2.5f32, -1.5]));
    case("Sum", &[-1], true, matrix(), Value::from([[2.5f32], [-1.5]]));
    case("Sum", &[0], false, matrix(), Value::from([5.0f32, -1.5, -2.5]));
    case("Sum", &[], false, matrix(), matrix());
    case("Sum", &[1, 0], true, matrix(), Value::from([[1.0f32]]));
    case("Mean", &[0], false, matrix(), Value::from([2.5f32, -0.75, -1.25]));
    case("Prod", &[1], false, matrix(), Value::from([-7.0f32, -12.0]));
    case("Min", &[-2], false, matrix(), Value::from([1.0f32, -2.0, -6.0]));
    case("Max", &[0, 1], false, matrix(), Value::from(4.0f32));
    case(
        "EuclideanNorm",
        &[1],
        false,
        Value::from([[3.0f32, -4.0], [0.0, 2.0]]),
        Value::from([5.0f32, 2.0]),
    );
    let cube = || value(&[2, 3, 2], (0..12).map(f64::from).collect());
    case("Sum", &[0, 2], false, cube(), Value::from([14.0f64, 22.0, 30.0]));
    case(
        "Sum",
        &[1],
        true,
        cube(),
        value(&[2, 1, 2], vec![6.0f64, 9.0, 24.0, 27.0]),
    );
    case("Mean", &[0, 2], false, cube(), Value::from([3.5f64, 5.5, 7.5]));
    case("Max", &[1, 2], false, cube(), Value::from([5.0f64, 11.0]));
    let bools = || Value::from([[true, false], [true, true]]);
    case("All", &[0], false, bools(), Value::from([true, false]));
    case("Any", &[1], true, bools(), Value::from([[true], [true]]));
    case(
        "All",
        &[0],
        false,
        value::<bool>(&[0, 2], vec![]),
        Value::from([true, true]),
    );
    case(
        "Any",
        &[0],
        false,
        value::<bool>(&[0, 2], vec![]),
        Value::from([false, false]),
    );
    // Of nothing.
    case(
        "Sum",
        &[1],
        false,
        value::<f32>(&[2, 0], vec![]),
        Value::from([0.0f32, 0.0]),
    );
    case(
        "Prod",
        &[1],
        false,
        value::<f64>(&[2, 0], vec![]),
        Value::from([1.0f64, 1.0]),
    );
    case(
        "Mean",
        &[1],
        false,
        value::<f32>(&[1, 0], vec![]),
        Value::from([f32::NAN]),
    );
    case(
        "Min",
        &[0],
        false,
        value::<f32>(&[0], vec![]),
        Value::from(f32::INFINITY),
    );
    case("Max", &[0], false, value::<i32>(&[0], vec![]), Value::from(i32::MIN));
    case(
        "Sum",
        &[0],
        false,
        value::<f32>(&[2, 0], vec![]),
        value::<f32>(&[0], vec![]),
    );
    case("Sum", &[], false, Value::from(3i64), Value::from(3i64));
    // Half precision is summed in single.
    case(
        "Sum",
        &[0],
        false,
        value(&[4096], vec![f16::ONE; 4096]),
        Value::from(f16::from_f32(4096.0)),
    );
    case(
        "Mean",
        &[0],
        false,
        value(&[1000], vec![bf16::from_f32(3.0); 1000]),
        Value::from(bf16::from_f32(3.0)),
    );
    // Integers wrap and means are cut.
    case("Sum", &[0], false, Value::from([200u8, 100]), Value::from(44u8));
    case("Prod", &[0], false, Value::from([i32::MAX, 2]), Value::from(-2i32));
    case("Mean", &[0], false, Value::from([-3i32, -4, 0]), Value::from(-2i32));
    let complex = [Complex::new(1.0f32, 2.0), Complex::new(-3.0, 1.0)];
    case(
        "Sum",
        &[0],
        false,
        Value::from(complex),
        Value::from(Complex::new(-2.0f32, 3.0)),
    );
    case(
        "Prod",
        &[0],
        false,
        Value::from(complex),
        Value::from(Complex::new(-5.0f32, -5.0)),
    );
    case(
        "Mean",
        &[0],
        false,
        Value::from(complex),
        Value::from(Complex::new(-1.0f32, 1.5)),
    );
    let right = [Complex::new(3.0f64, 0.0), Complex::new(0.0, 4.0)];
    case(
        "EuclideanNorm",
        &[0],
        false,
        Value::from(right),
        Value::from(Complex::new(5.0f64, 0.0)),
    );
    for &dtype in DType::REAL_NUMBERS {
        let input = || numbers(dtype, &[3, 7, 2]);
        let scalar = |x: i64| numbers(dtype, &[x]).reshaped(()).expect("one element");
        for (op, expected) in [("Sum", 12), ("Mean", 4), ("Prod", 42), ("Min", 2), ("Max", 7)] {
            case(op, &[0], false, input(), scalar(expected));
        }
    }
    cases.push(Case::new("Sum").input(MATRIX).input([-1i64]).expect([2.5f32, -1.5]));
    cases.push(Case::new("Max").input(MATRIX).input(1i32).expect([3.5f32, 4.0]));
    cases
}

pub(crate) fn gradient_cases() -> Vec<GradientCase> {
    let input = value(
        &[2, 3, 2],
        vec![0.5f64, -1.0, 2.0, 1.5, -0.25, 3.0, 1.0, -2.0, 0.75, 2.5, -1.5, 0.25],
    );
    let axes: [&[i32]; 5] = [&[0, 1, 2], &[1], &[-1, 0], &[2], &[]];
    let mut cases = Vec::new();
    for op in ["Sum", "Mean", "Prod", "Min", "Max", "EuclideanNorm"] {
        for (index, axes) in axes.iter().enumerate() {
            let case = GradientCase::new(op)
                .attr("keep_dims", index % 2 == 1)
                .input(input.clone())
                .input(value(&[axes.len()], axes.to_vec()));
            cases.push(case);
        }
    }
    cases
}

#[test]
fn wrong_axes_are_errors() {
    for axes in [vec![2i32], vec![-3], vec![0, 0], vec![1, -1]] {
        let error = Case::new("Sum").input(MATRIX).input(axes.clone()).run().unwrap_err();
        assert_eq!(error.class(), "InvalidArgument", "{axes:?}: {error}");
    }
}

#[test]
fn nodes_are_those_of_python() {
    use crate::math::{count_nonzero, reduce_logsumexp, reduce_max, reduce_sum};
    use graph_core::{Graph, Variable};
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = crate::array::constant(MATRIX).name("x").build().unwrap();
    let names = |from: usize| {
        let operations = graph.operations();
        operations[from..]
            .iter()
            .map(|operation| format!("{} {}", operation.op_type(), operation.name()))
            .collect::<Vec<_>>()
    };
    let from = graph.num_operations();
    let sum = reduce_sum(&x).build().unwrap();
    assert_eq!(sum.shape(), ().into());
    reduce_max(&x).axis(1).name("top").build().unwrap();
    assert_eq!(
        names(from),
        ["Const Const", "Sum Sum", "Const top/reduction_indices", "Max top"]
    );
    let variable = Variable::new(&x).name("v").build().unwrap();
    let from = graph.num_operations();
    assert_eq!(reduce_sum(&variable).build().unwrap().shape(), ().into());
    assert_eq!(
        names(from),
        [
            "Const Rank",
            "Const range/start",
            "Const range/delta",
            "Range range",
            "Sum Sum_1"
        ]
    );
    let from = graph.num_operations();
    assert_eq!(count_nonzero(&x).axis([0]).build().unwrap().shape(), [3].into());
    assert_eq!(
        names(from),
        [
            "Const count_nonzero/zeros",
            "NotEqual count_nonzero/NotEqual",
            "Cast count_nonzero/Cast",
            "Const count_nonzero/Sum/reduction_indices",
            "Sum count_nonzero/Sum"
        ]
    );
    let from = graph.num_operations();
    assert_eq!(reduce_logsumexp(&x).axis([1]).build().unwrap().shape(), [2].into());
    assert_eq!(
        names(from),
        [
            "Const ReduceLogSumExp/Max/reduction_indices",
            "Max ReduceLogSumExp/Max",
            "IsFinite ReduceLogSumExp/IsFinite",
            "Const ReduceLogSumExp/zeros_like",
            "Select ReduceLogSumExp/Select",
            "StopGradient ReduceLogSumExp/StopGradient",
            "Sub ReduceLogSumExp/Sub",
            "Exp ReduceLogSumExp/Exp",
            "Const ReduceLogSumExp/Sum/reduction_indices",
            "Sum ReduceLogSumExp/Sum",
            "Log ReduceLogSumExp/Log",
            "Const ReduceLogSumExp/Shape",
            "Reshape ReduceLogSumExp/Reshape",
            "Add ReduceLogSumExp/Add"
        ]
    );
}
