use graph_core::{Complex, Value};
use half::{bf16, f16};

use crate::testing::{Case, GradientCase};

pub(crate) fn cases() -> Vec<Case> {
    let strings = |texts: &[&str]| {
        Value::from_strings(
            [texts.len()],
            texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
        )
        .expect("one shape")
    };
    let (t, e) = ([[1.0f32, 2.0], [3.0, 4.0]], [[-1.0f32, -2.0], [-3.0, -4.0]]);
    let mut cases = vec![
        Case::new("Select")
            .input([[true, false], [false, true]])
            .input(t)
            .input(e)
            .expect([[1.0f32, -2.0], [-3.0, 4.0]]),
        Case::new("Select")
            .input([true, false])
            .input(t)
            .input(e)
            .expect([[1.0f32, 2.0], [-3.0, -4.0]]),
        Case::new("Select").input(false).input(t).input(e).expect(e),
        Case::new("Select")
            .input([true, false])
            .input(strings(&["a", "b"]))
            .input(strings(&["c", "d"]))
            .expect(strings(&["a", "d"])),
        Case::new("Select")
            .input(true)
            .input(Vec::<f32>::new())
            .input(Vec::<f32>::new())
            .expect(Vec::<f32>::new()),
        Case::new("SelectV2")
            .input([[true], [false]])
            .input(t)
            .input(e)
            .expect([[1.0f32, 2.0], [-3.0, -4.0]]),
        Case::new("SelectV2")
            .input([[true, false], [false, true]])
            .input(t)
            .input(0.0f32)
            .expect([[1.0f32, 0.0], [0.0, 4.0]]),
        Case::new("SelectV2")
            .input([true, false])
            .input([[1i32], [2]])
            .input(9i32)
            .expect([[1i32, 9], [2, 9]]),
        Case::new("SelectV2").input(true).input(t).input(e).expect(t),
        Case::new("SelectV2")
            .input([true, false])
            .input(Value::string("yes"))
            .input(strings(&["c", "d"]))
            .expect(strings(&["yes", "d"])),
        Case::new("ClipByValue")
            .input([f32::NAN, -1.0, 0.5, 2.0])
            .input(0.0f32)
            .input(1.0f32)
            .expect([f32::NAN, 0.0, 0.5, 1.0]),
        Case::new("ClipByValue")
            .input([1i32, 5])
            .input([2i32, 2])
            .input(4i32)
            .expect([2i32, 4]),
        Case::new("ClipByValue")
            .input([1.0f64])
            .input(2.0f64)
            .input(4.0f64)
            .expect([2.0f64]),
    ];
    macro_rules! dtypes {
        ($($a:expr, $b:expr);*) => {$(
            for op in ["Select", "SelectV2"] {
                cases.push(Case::new(op).input([true, false]).input([$a, $a]).input([$b, $b]).expect([$a, $b]));
            }
        )*};
    }
    dtypes!(
        1.0f64, 2.0f64; f16::ONE, f16::ZERO; bf16::ONE, bf16::ZERO; 1i8, 2i8; 1i16, 2i16; 1i32, 2i32; 1i64, 2i64;
        1u8, 2u8; 1u16, 2u16; 1u32, 2u32; 1u64, 2u64; true, false;
        Complex::new(1.0f32, 2.0), Complex::new(0.0f32, 0.0); Complex::new(1.0f64, 2.0), Complex::new(0.0f64, 0.0)
    );
    cases
}

pub(crate) fn gradient_cases() -> Vec<GradientCase> {
    let (t, e) = ([[1.0f64, 2.0], [3.0, 4.0]], [[-1.0f64, -2.0], [-3.0, -4.0]]);
    vec![
        GradientCase::new("Select")
            .input([[true, false], [false, true]])
            .input(t)
            .input(e),
        GradientCase::new("SelectV2")
            .input([[true, false], [false, true]])
            .input(t)
            .input(e),
        GradientCase::new("SelectV2")
            .input([[true], [false]])
            .input([0.5f64, 2.0])
            .input(0.3f64),
        GradientCase::new("ClipByValue")
            .input([[0.2f64, 2.5], [-3.0, 0.7]])
            .input(-1.0f64)
            .input([[1.0f64, 1.2], [0.3, 2.0]]),
    ]
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let error = Case::new("Select")
        .input([true, false, true])
        .input([[1i32], [2]])
        .input([[1i32], [2]])
        .run()
        .unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
    let error = Case::new("SelectV2")
        .input([true, false, true])
        .input([1i32, 2])
        .input(1i32)
        .run()
        .unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
    let error = Case::new("ClipByValue")
        .input([1i32, 2])
        .input([1i32, 2, 3])
        .input(1i32)
        .run()
        .unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
}

#[test]
fn clipping_does_not_broadcast() {
    let graph = graph_core::Graph::new();
    let _default = graph.as_default();
    let x = crate::array::constant([1.0f32, 2.0]).name("x").build().unwrap();
    super::clip_by_value(&x, -1.0, 1.0).build().unwrap();
    let names: Vec<String> = graph.operations().iter().map(|operation| operation.name()).collect();
    assert_eq!(
        names,
        [
            "x",
            "clip_by_value/Minimum/y",
            "clip_by_value/Minimum",
            "clip_by_value/y",
            "clip_by_value"
        ]
    );
    assert!(super::clip_by_value(&x, [[0.0f32], [1.0]], 1.0).build().is_err());
}
