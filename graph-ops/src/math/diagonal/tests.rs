//! Numeric cases of diagonals and bands.

use super::*;
use crate::testing::Case;

pub(crate) fn cases() -> Vec<Case> {
    use graph_core::Value;
    let matrix = [[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let band = |lower: i64, upper: i64| Case::new("MatrixBandPart").input(matrix).input(lower).input(upper);
    let mut cases = vec![
        Case::new("Diag").input([1i32, 2]).expect([[1i32, 0], [0, 2]]),
        Case::new("DiagPart").input([[1i32, 9], [9, 2]]).expect([1i32, 2]),
        Case::new("MatrixDiagPart").input(matrix).expect([1.0f32, 5.0]),
        Case::new("MatrixSetDiag")
            .input(matrix)
            .input([7.0f32, 8.0])
            .expect([[7.0f32, 2.0, 3.0], [4.0, 8.0, 6.0]]),
        band(0, 0).expect([[1.0f32, 0.0, 0.0], [0.0, 5.0, 0.0]]),
        band(0, -1).expect([[1.0f32, 2.0, 3.0], [0.0, 5.0, 6.0]]),
        band(-1, 0).expect([[1.0f32, 0.0, 0.0], [4.0, 5.0, 0.0]]),
        band(1, 1).expect([[1.0f32, 2.0, 0.0], [4.0, 5.0, 6.0]]),
        band(-1, -1).expect(matrix),
        Case::new("MatrixBandPart")
            .input([[true, true], [true, true]])
            .input(0i32)
            .input(-1i32)
            .expect([[true, true], [false, true]]),
        Case::new("MatrixDiag")
            .input(Value::from_vec::<f32>([2, 0], vec![]).expect("no elements"))
            .expect(Value::from_vec::<f32>([2, 0, 0], vec![]).expect("no elements")),
    ];
    let moved = DType::NUMBERS.iter().filter(|dtype| !dtype.name().starts_with('q'));
    for &dtype in moved {
        let numbers = |value: Value| value.cast_exactly(dtype).expect("small whole numbers");
        cases.push(
            Case::new("MatrixDiag")
                .input(numbers([[3i64, 4]].into()))
                .expect(numbers(
                    Value::from([[3i64, 0], [0, 4]])
                        .reshaped([1, 2, 2])
                        .expect("four elements"),
                )),
        );
        let column = Value::from([5i64, 6]).reshaped([2, 1]).expect("two elements");
        cases.push(
            Case::new("MatrixDiagPart")
                .input(numbers(column.clone()))
                .expect(numbers([5i64].into())),
        );
        let set = Case::new("MatrixSetDiag")
            .input(numbers(column))
            .input(numbers([7i64].into()));
        cases.push(set.expect(numbers([[7i64], [6]].into())));
    }
    cases
}

pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let square = [[1.0f64, -2.0], [0.5, 3.0]];
    let wide = [[1.0f64, -2.0, 4.0], [0.5, 3.0, -1.0]];
    vec![
        GradientCase::new("Diag").input([1.0f64, 2.0]),
        GradientCase::new("DiagPart").input(square),
        GradientCase::new("MatrixDiag").input(wide),
        GradientCase::new("MatrixDiagPart").input(square),
        GradientCase::new("MatrixDiagPart").input(wide),
        GradientCase::new("MatrixSetDiag").input(wide).input([7.0f64, 8.0]),
        GradientCase::new("MatrixBandPart").input(wide).input(0i64).input(1i64),
    ]
}

#[test]
fn what_has_no_diagonal_is_an_error() {
    let cases = [
        Case::new("DiagPart").input([1i32, 2]),
        Case::new("DiagPart").input([[1i32, 2]]),
        Case::new("MatrixDiagPart").input([1.0f32]),
        Case::new("MatrixSetDiag").input([[1.0f32, 2.0]]).input([1.0f32, 2.0]),
        Case::new("MatrixBandPart").input([[1.0f32]]).input(2i64).input(0i64),
    ];
    for case in cases {
        assert_eq!(case.run().unwrap_err().class(), "InvalidArgument", "{}", case.op);
    }
}

#[test]
fn identity_matrices_are_made_of_constants() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let square = eye(3).build().unwrap();
    assert_eq!(
        (square.name(), square.shape()),
        ("eye/diag:0".to_owned(), [3, 3].into())
    );
    let wide = eye(2).columns(3).batch_shape([4]).dtype(DType::Int32).build().unwrap();
    assert_eq!((wide.dtype(), wide.shape()), (DType::Int32, [4, 2, 3].into()));
    assert_eq!(trace(&square).unwrap().name(), "Trace:0");
}
