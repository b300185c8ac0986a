use graph_core::{Complex, DType, Value};
use half::{bf16, f16};

use crate::testing::{Case, GradientCase};

fn cast(x: impl Into<Value>, expected: impl Into<Value>) -> Case {
    let expected = expected.into();
    let x = x.into();
    Case::new("Cast")
        .attr("SrcT", x.dtype())
        .attr("DstT", expected.dtype())
        .input(x)
        .expect(expected)
}

pub(crate) fn cases() -> Vec<Case> {
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    let odd = [
        300.0f32, -1.0, nan, infinity, -infinity, 1e10, -1e10, 2.9, -2.9, 256.0, 1e20,
    ];
    let (low, least) = (i32::MIN, i64::MIN);
    let (ten, odd_doubles) = (10_000_000_000i64, odd.map(f64::from));
    let ints = [300i32, -1, low, low, low, low, low, 2, -2, 256, low];
    let longs = [300i64, -1, least, least, least, ten, -ten, 2, -2, 256, least];
    let mut cases = vec![
        cast(odd, ints),
        cast(odd_doubles, ints),
        cast(odd, longs),
        cast(odd_doubles, longs),
        cast(odd, ints.map(|x| x as u8)),
        cast(odd_doubles, ints.map(|x| x as u8)),
        cast(odd, ints.map(|x| x as i8)),
        cast(odd, ints.map(|x| x as u16)),
        cast(odd, ints.map(|x| x as i16)),
        cast(odd, [true; 11]),
        cast([0.0f32, -0.0, 0.5], [false, false, true]),
        cast([1.7f32, -1.0, 1e10], [1u64, u64::MAX, 10_000_000_000]),
        cast([1.7f32, -1.0], [1u32, u32::MAX]),
        cast([f16::NAN, f16::from_f32(3.7)], [low, 3]),
        cast([70000.0f32, nan, 1.0], [f16::INFINITY, f16::NAN, f16::ONE]),
        cast([1.003_906_2f32], [bf16::ONE]),
        cast([Complex::new(1.7f32, 2.0)], [1.7f32]),
        cast([Complex::new(1.7f32, 2.0)], [1i32]),
        cast([Complex::new(0.0f32, 2.0)], [false]),
        cast([Complex::new(1.5f32, 2.0)], [Complex::new(1.5f64, 2.0)]),
        cast([1.5f64], [Complex::new(1.5f32, 0.0)]),
        cast([true, false], [Complex::new(1.0f64, 0.0), Complex::new(0.0, 0.0)]),
        cast([-1i32, 300], [255u8, 44]),
        cast([u64::MAX], [-1i64]),
        cast(Vec::<f32>::new(), Vec::<i32>::new()),
        // Cut to seven bits of mantissa, not rounded.
        cast([1.999_999f32], [bf16::from_f32(1.992_187_5)]).attr("Truncate", true),
        Case::new("Bitcast")
            .attr("type", DType::Int32)
            .input([1.0f32, -0.0])
            .expect([0x3f80_0000i32, low]),
        Case::new("Bitcast")
            .attr("type", DType::UInt8)
            .input([[258u16]])
            .expect(Value::from([[2u8, 1]]).reshaped([1, 1, 2]).expect("two elements")),
        Case::new("Bitcast")
            .attr("type", DType::Int64)
            .input([[1i32, 1]])
            .expect([(1i64 << 32) + 1]),
    ];
    // Every pair of dtypes.
    macro_rules! all {
        ($($t:ty: $one:expr, $zero:expr;)*) => {{
            let mut from: Vec<Value> = Vec::new();
            $(from.push([$one, $zero].into());)*
            for a in &from {
                for b in &from {
                    cases.push(cast(a.clone(), b.clone()));
                }
            }
        }};
    }
    all!(
        f32: 1.0f32, 0.0; f64: 1.0f64, 0.0; f16: f16::ONE, f16::ZERO; bf16: bf16::ONE, bf16::ZERO; bool: true, false;
        i8: 1i8, 0; i16: 1i16, 0; i32: 1i32, 0; i64: 1i64, 0; u8: 1u8, 0; u16: 1u16, 0; u32: 1u32, 0; u64: 1u64, 0;
        Complex<f32>: Complex::new(1.0f32, 0.0), Complex::new(0.0, 0.0);
        Complex<f64>: Complex::new(1.0f64, 0.0), Complex::new(0.0, 0.0);
    );
    cases
}

pub(crate) fn gradient_cases() -> Vec<GradientCase> {
    vec![
        GradientCase::new("Cast")
            .attr("DstT", DType::Float32)
            .input([0.5f64, -2.0])
            .tolerance(1e-3, 1e-3, 1e-2),
        GradientCase::new("Cast")
            .attr("DstT", DType::Float64)
            .input([0.5f32, -2.0])
            .tolerance(1e-3, 1e-3, 1e-2),
    ]
}

#[test]
fn casts_to_the_same_dtype_are_nothing() {
    let graph = graph_core::Graph::new();
    let _default = graph.as_default();
    let x = crate::array::constant([1.0f32]).name("x").build().unwrap();
    assert_eq!(super::to_float(&x).build().unwrap(), x);
    super::saturate_cast(&x, DType::UInt8).build().unwrap();
    super::cast(1.5, DType::Int32).build().unwrap();
    let names: Vec<String> = graph.operations().iter().map(|operation| operation.name()).collect();
    assert_eq!(
        names,
        [
            "x",
            "saturate_cast/min",
            "saturate_cast/Maximum",
            "saturate_cast/max",
            "saturate_cast/Minimum",
            "saturate_cast",
            "Cast/x",
            "Cast"
        ]
    );
}

#[test]
fn bits_that_do_not_make_up_elements_are_refused() {
    let error = Case::new("Bitcast")
        .attr("type", DType::Int64)
        .input([1i32, 1, 1])
        .run()
        .unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
}
