//! Numeric cases of segment ops.

use graph_core::{DType, Value};

use crate::testing::{Case, GradientCase};

const ROWS: [[f32; 2]; 4] = [[1.0, 2.0], [3.0, -4.0], [5.0, 6.0], [-7.0, 8.0]];

pub(crate) fn cases() -> Vec<Case> {
    let sorted = |op: &'static str| Case::new(op).input(ROWS).input([0i32, 0, 2, 2]);
    let unsorted = |op: &'static str| Case::new(op).input(ROWS).input([2i64, 0, -1, 2]).input(3i32);
    let sparse = |op: &'static str| Case::new(op).input(ROWS).input([3i32, 0, 1]).input([0i32, 0, 2]);
    let root = 2.0f32.sqrt();
    let (low, high) = (f32::MIN, f32::MAX);
    let mut cases = vec![
        sorted("SegmentSum").expect([[4.0f32, -2.0], [0.0, 0.0], [-2.0, 14.0]]),
        sorted("SegmentMean").expect([[2.0f32, -1.0], [0.0, 0.0], [-1.0, 7.0]]),
        sorted("SegmentProd").expect([[3.0f32, -8.0], [1.0, 1.0], [-35.0, 48.0]]),
        sorted("SegmentMin").expect([[1.0f32, -4.0], [0.0, 0.0], [-7.0, 6.0]]),
        sorted("SegmentMax").expect([[3.0f32, 2.0], [0.0, 0.0], [5.0, 8.0]]),
        Case::new("SegmentSum")
            .input(Value::from_vec::<f64>([0, 2], vec![]).expect("no elements"))
            .input(Vec::<i64>::new())
            .expect(Value::from_vec::<f64>([0, 2], vec![]).expect("no elements")),
        // Runs that a block of a device takes.
        Case::new("SegmentSum")
            .input((0..5000).collect::<Vec<i32>>())
            .input(
                (0..5000)
                    .map(|at| if at < 3000 { 0i64 } else { 2 })
                    .collect::<Vec<i64>>(),
            )
            .expect([4_498_500i32, 0, 7_999_000]),
        Case::new("SegmentMax")
            .input(vec![f32::NEG_INFINITY, -1.0, f32::NAN])
            .input([0i32, 1, 1])
            .expect([f32::MIN, -1.0]),
        unsorted("UnsortedSegmentSum").expect([[3.0f32, -4.0], [0.0, 0.0], [-6.0, 10.0]]),
        unsorted("UnsortedSegmentProd").expect([[3.0f32, -4.0], [1.0, 1.0], [-7.0, 16.0]]),
        unsorted("UnsortedSegmentMin").expect([[3.0f32, -4.0], [high, high], [-7.0, 2.0]]),
        unsorted("UnsortedSegmentMax").expect([[3.0f32, -4.0], [low, low], [1.0, 8.0]]),
        Case::new("UnsortedSegmentSum")
            .input([[1i32, 2], [3, 4]])
            .input([[0i32, 1], [1, 0]])
            .input(2i64)
            .expect([5i32, 5]),
        sparse("SparseSegmentSum").expect([[-6.0f32, 10.0], [0.0, 0.0], [3.0, -4.0]]),
        sparse("SparseSegmentMean").expect([[-3.0f32, 5.0], [0.0, 0.0], [3.0, -4.0]]),
        sparse("SparseSegmentSqrtN").expect([[-6.0 / root, 10.0 / root], [0.0, 0.0], [3.0, -4.0]]),
        Case::new("SparseSegmentSum")
            .input([5i64, 6])
            .input([1i64, 1])
            .input([0i32, 0])
            .expect([12i64]),
        Case::new("SparseSegmentMeanGrad")
            .input([[4.0f32, 8.0]])
            .input([2i32, 0])
            .input([0i32, 0])
            .input(3i32)
            .expect([[2.0f32, 4.0], [0.0, 0.0], [2.0, 4.0]]),
        Case::new("SparseSegmentSqrtNGrad")
            .input([4.0f64])
            .input([1i32, 1, 1, 1])
            .input([0i32, 0, 0, 0])
            .input(2i32)
            .expect([0.0f64, 8.0]),
    ];
    for &dtype in crate::cuda::NUMBERS {
        let numbers = |list: &[i64]| Value::from(list).cast_exactly(dtype).expect("small whole numbers");
        let case = Case::new("SegmentMean").input(numbers(&[3, 1, 4])).input([1i64, 1, 2]);
        cases.push(case.expect(numbers(&[0, 2, 4])));
    }
    for (op, roots) in [("SparseSegmentMean", 2.0f64), ("SparseSegmentSqrtN", 2.0f64.sqrt())] {
        let case = Case::new(op).input([3.0f64, 5.0]).input([1i64, 0]).input([1i32, 1]);
        cases.push(case.expect([0.0, 8.0 / roots]));
        let nothing = Value::from_vec::<f32>([0, 2], vec![]).expect("no elements");
        let case = Case::new(op)
            .input(ROWS)
            .input(Vec::<i32>::new())
            .input(Vec::<i32>::new());
        cases.push(case.expect(nothing));
    }
    for &dtype in &[DType::Float64, DType::Int32] {
        let numbers = |list: &[i64]| Value::from(list).cast_exactly(dtype).expect("small whole numbers");
        let case = Case::new("SparseSegmentSum").input(numbers(&[5, 6])).input([1i32, 1]);
        cases.push(case.input([0i32, 0]).expect(numbers(&[12])));
    }
    for &dtype in DType::REAL_NUMBERS {
        let numbers = |list: &[i64]| Value::from(list).cast_exactly(dtype).expect("small whole numbers");
        let results: [(&'static str, &'static str, [i64; 2]); 4] = [
            ("SegmentSum", "UnsortedSegmentSum", [5, 4]),
            ("SegmentProd", "UnsortedSegmentProd", [6, 4]),
            ("SegmentMin", "UnsortedSegmentMin", [2, 4]),
            ("SegmentMax", "UnsortedSegmentMax", [3, 4]),
        ];
        for (sorted, unsorted, expected) in results {
            let case = Case::new(sorted).input(numbers(&[3, 2, 4])).input([0i32, 0, 1]);
            cases.push(case.expect(numbers(&expected)));
            let case = Case::new(unsorted)
                .input(numbers(&[3, 4, 2]))
                .input([0i32, 1, 0])
                .input(2i32);
            cases.push(case.expect(numbers(&expected)));
        }
    }
    cases
}

pub(crate) fn gradient_cases() -> Vec<GradientCase> {
    let rows = [[1.0f64, 2.0], [3.0, -4.0], [5.0, 6.0], [-7.0, 8.0]];
    let mut cases = Vec::new();
    for op in ["SegmentSum", "SegmentMean", "SegmentMin", "SegmentMax"] {
        cases.push(GradientCase::new(op).input(rows).input([0i32, 0, 1, 1]));
    }
    for op in [
        "UnsortedSegmentSum",
        "UnsortedSegmentProd",
        "UnsortedSegmentMin",
        "UnsortedSegmentMax",
    ] {
        cases.push(GradientCase::new(op).input(rows).input([2i32, 0, 1, 2]).input(3i32));
    }
    for op in ["SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN"] {
        let case = GradientCase::new(op)
            .input(rows)
            .input([3i32, 0, 1])
            .input([0i32, 0, 1]);
        cases.push(if op == "SparseSegmentSum" {
            case
        } else {
            case.first_order_only()
        });
    }
    cases
}

#[test]
fn wrong_segments_are_errors() {
    let bad = [
        Case::new("SegmentSum").input(ROWS).input([0i32, 1, 0, 2]),
        Case::new("SegmentSum").input(ROWS).input([-1i32, 0, 0, 2]),
        Case::new("SegmentSum").input(ROWS).input([0i32, 0]),
        Case::new("UnsortedSegmentSum")
            .input(ROWS)
            .input([0i32, 1, 5, 0])
            .input(3i32),
        Case::new("UnsortedSegmentSum")
            .input(ROWS)
            .input([0i32, 1, 2])
            .input(3i32),
        Case::new("UnsortedSegmentSum")
            .input(ROWS)
            .input([0i32, 1, 2, 0])
            .input(-3i32),
        Case::new("SparseSegmentSum").input(ROWS).input([4i32]).input([0i32]),
        Case::new("SparseSegmentMean")
            .input(ROWS)
            .input([1i32, 2])
            .input([1i32, 0]),
    ];
    for case in bad {
        assert_eq!(case.run().unwrap_err().class(), "InvalidArgument", "{}", case.op);
    }
}
