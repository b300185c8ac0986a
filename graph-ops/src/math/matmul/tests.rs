//! Numeric cases of matrix products.

use graph_core::{Complex, DType, Value};

use crate::testing::{Case, GradientCase};

fn value(shape: &[usize], elements: impl IntoIterator<Item = f64>) -> Value {
    Value::from_vec(shape, elements.into_iter().collect::<Vec<f64>>()).expect("as many elements as the shape says")
}

/// Whole numbers, which every dtype can hold.
fn whole(shape: &[usize], elements: impl IntoIterator<Item = i64>) -> Value {
    Value::from_vec(shape, elements.into_iter().collect::<Vec<i64>>()).expect("as many elements as the shape says")
}

pub(crate) fn cases() -> Vec<Case> {
    let a = || whole(&[2, 3], [1, 2, 3, 4, 5, 6]);
    let cast = |value: Value, dtype| value.cast_exactly(dtype).expect("small whole numbers");
    let mut cases = super::sparse::cases();
    let dtypes = [
        DType::Float32,
        DType::Float64,
        DType::Half,
        DType::BFloat16,
        DType::Int32,
        DType::Int64,
        DType::Complex64,
        DType::Complex128,
    ];
    for dtype in dtypes {
        let product = |op: &'static str, a: Value, b: Value, expected: Value| {
            Case::new(op)
                .input(cast(a, dtype))
                .input(cast(b, dtype))
                .expect(cast(expected, dtype))
        };
        let b = whole(&[3, 2], [1, 0, -2, 1, 3, 2]);
        let expected = whole(&[2, 2], [6, 8, 12, 17]);
        cases.push(product("MatMul", a(), b.clone(), expected.clone()));
        cases.push(product("BatchMatMul", a(), b.clone(), expected.clone()));
        let rows = whole(&[2, 3], [1, -2, 3, 0, 1, 2]);
        cases.push(product("MatMul", a(), rows.clone(), expected.clone()).attr("transpose_b", true));
        let columns = whole(&[3, 2], [1, 4, 2, 5, 3, 6]);
        cases.push(product("MatMul", columns.clone(), b, expected.clone()).attr("transpose_a", true));
        let both = product("MatMul", columns, rows, expected);
        cases.push(both.attr("transpose_a", true).attr("transpose_b", true));
        // Batches: two of the first, broadcast against one of the second.
        let x = whole(&[2, 1, 1, 2], [1, 2, 3, 4]);
        let y = whole(&[3, 2, 1], [1, 0, 0, 1, 1, 1]);
        let expected = whole(&[2, 3, 1, 1], [1, 2, 3, 3, 4, 7]);
        cases.push(product("BatchMatMulV2", x, y, expected));
        // Empty sums are zero, and empty results are empty.
        cases.push(product(
            "MatMul",
            whole(&[1, 0], []),
            whole(&[0, 2], []),
            whole(&[1, 2], [0, 0]),
        ));
        cases.push(product(
            "BatchMatMulV2",
            whole(&[0, 2, 3], []),
            whole(&[3, 1], [1; 3]),
            whole(&[0, 2, 1], []),
        ));
    }
    let i = Complex::new(0.0f32, 1.0);
    let one = Complex::new(1.0f32, 0.0);
    let z = || Value::from([[one + i, i]]);
    cases.push(
        Case::new("BatchMatMulV2")
            .attr("adj_y", true)
            .input(z())
            .input(z())
            .expect([[Complex::new(3.0f32, 0.0)]]),
    );
    cases.push(
        Case::new("MatMul")
            .attr("transpose_b", true)
            .input(z())
            .input(z())
            .expect([[Complex::new(-1.0f32, 2.0)]]),
    );
    cases
}

pub(crate) fn gradient_cases() -> Vec<GradientCase> {
    let numbers = |len: usize, seed: u64| (0..len as u64).map(move |i| ((i * 37 + seed * 11) % 17) as f64 / 8.0 - 1.0);
    let mut cases = super::sparse::gradient_cases();
    for flags in 0..4u8 {
        let (first, second) = (flags & 1 != 0, flags & 2 != 0);
        let a = if first { [3, 2] } else { [2, 3] };
        let b = if second { [4, 3] } else { [3, 4] };
        cases.push(
            GradientCase::new("MatMul")
                .attr("transpose_a", first)
                .attr("transpose_b", second)
                .input(value(&a, numbers(6, 1)))
                .input(value(&b, numbers(12, 2))),
        );
        for (op, batch_a, batch_b) in [
            ("BatchMatMul", vec![2], vec![2]),
            ("BatchMatMulV2", vec![2, 1], vec![2]),
        ] {
            let shape = |batch: &[usize], matrix: [usize; 2]| [batch, &matrix].concat();
            let (a, b) = (shape(&batch_a, a), shape(&batch_b, b));
            cases.push(
                GradientCase::new(op)
                    .attr("adj_x", first)
                    .attr("adj_y", second)
                    .input(value(&a, numbers(12, 3)))
                    .input(value(&b, numbers(24, 4))),
            );
        }
    }
    cases
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let vector = Value::from([1.0f32, 2.0]);
    let matrix = Value::from([[1.0f32, 2.0]]);
    for (op, a, b) in [
        ("MatMul", &matrix, &matrix),
        ("MatMul", &vector, &matrix),
        ("BatchMatMulV2", &vector, &matrix),
    ] {
        let error = Case::new(op).input(a.clone()).input(b.clone()).run().unwrap_err();
        assert_eq!(error.class(), "InvalidArgument");
    }
}

#[test]
fn more_axes_make_a_batch() {
    use crate::array::constant;
    use crate::math::matmul;
    let graph = graph_core::Graph::new();
    let _default = graph.as_default();
    let a = constant([[1.0f32, 2.0]]).build().unwrap();
    let batch = constant([[[1.0f32], [2.0]]]).build().unwrap();
    let product = matmul(&a, &batch).build().unwrap();
    assert_eq!(
        (product.op().op_type(), product.shape()),
        ("BatchMatMulV2", [1, 1, 1].into())
    );
    let product = matmul(&a, [[1.0, 2.0]]).transpose_b(true).name("p").build().unwrap();
    assert_eq!(product.op().op_type(), "MatMul");
    assert_eq!(product.op().input(1).name(), "p/b:0");
    assert!(matmul(&a, &a).transpose_a(true).adjoint_a(true).build().is_err());
}
