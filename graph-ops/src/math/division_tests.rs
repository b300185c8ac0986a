use graph_core::{Complex, Value};
use half::{bf16, f16};

use super::Quotient;
use crate::testing::{Case, GradientCase};

fn case(op: &'static str, x: impl Into<Value>, y: impl Into<Value>, expected: impl Into<Value>) -> Case {
    Case::new(op).input(x).input(y).expect(expected)
}

pub(crate) fn cases() -> Vec<Case> {
    let (half, brain) = (f16::from_f32, bf16::from_f32);
    let (z, w) = (Complex::new(3.0f64, 4.0), Complex::new(1.0f64, -2.0));
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    let (x, y) = ([-7i32, 7, -7, 7, i32::MIN], [2i32, -2, -2, 2, -1]);
    let wide = |x: [i32; 5]| x.map(i64::from);
    let floats = |x: [i32; 5]| x.map(f64::from);
    vec![
        case(
            "RealDiv",
            [[1.0f32], [-1.0]],
            [2.0f32, 0.0],
            [[0.5f32, infinity], [-0.5, -infinity]],
        ),
        case("RealDiv", 1.0f64, [4.0f64], [0.25f64]),
        case("RealDiv", [half(1.0)], [half(4.0)], [half(0.25)]),
        case("RealDiv", [brain(1.0)], [brain(4.0)], [brain(0.25)]),
        case("RealDiv", [z], [w], [Complex::new(-1.0f64, 2.0)]),
        case("Div", [1.0f32], [4.0f32], [0.25f32]),
        case("Div", x, y, [-3i32, -3, 3, 3, i32::MIN]),
        case("TruncateDiv", x, y, [-3i32, -3, 3, 3, i32::MIN]),
        case("TruncateDiv", [7u8], [2u8], [3u8]),
        case("FloorDiv", x, y, [-4i32, -4, 3, 3, i32::MIN]),
        case("FloorDiv", wide(x), wide(y), [-4i64, -4, 3, 3, 1 << 31]),
        case("FloorDiv", [-7i8, 7], 2i8, [-4i8, 3]),
        case("FloorDiv", [7u16], [2u16], [3u16]),
        case(
            "FloorDiv",
            floats(x),
            floats(y),
            [-4.0f64, -4.0, 3.0, 3.0, 2_147_483_648.0],
        ),
        case(
            "FloorDiv",
            [-4.0f32, -5.0, 5.0, 1.0],
            [2.0f32, 3.0, -3.0, infinity],
            [-2.0f32, -2.0, -2.0, 0.0],
        ),
        case("FloorDiv", Vec::<f32>::new(), [0.0f32], Vec::<f32>::new()),
        // Nothing is divided.
        case(
            "FloorDiv",
            Value::from_vec([0], Vec::<i32>::new()).expect("empty"),
            [0i32],
            Value::from_vec([0], Vec::<i32>::new()).expect("empty"),
        ),
        case("FloorMod", x, y, [1i32, -1, -1, 1, 0]),
        case("FloorMod", wide(x), wide(y), [1i64, -1, -1, 1, 0]),
        case("FloorMod", floats(x), floats(y), [1.0f64, -1.0, -1.0, 1.0, 0.0]),
        case(
            "FloorMod",
            [-4.0f32, 5.5, -5.5],
            [2.0f32, -3.0, 3.0],
            [0.0f32, -0.5, 0.5],
        ),
        case("FloorMod", [half(5.5)], [half(-3.0)], [half(-0.5)]),
        case("TruncateMod", x, y, [-1i32, 1, -1, 1, 0]),
        case("TruncateMod", [-5.5f32], [3.0f32], [-2.5f32]),
        case("Mod", wide(x), wide(y), [-1i64, 1, -1, 1, 0]),
        case("Mod", [-5.5f64], [3.0f64], [-2.5f64]),
        case(
            "DivNoNan",
            [[1.0f32, nan]],
            [[0.0f32], [2.0]],
            [[0.0f32, 0.0], [0.5, nan]],
        ),
        case("DivNoNan", [z], [w * 0.0], [w * 0.0]),
        case(
            "Pow",
            [[2.0f32], [0.0], [-8.0], [nan]],
            [3.0f32, 0.0],
            [[8.0f32, 1.0], [0.0, 1.0], [-512.0, 1.0], [nan, 1.0]],
        ),
        case("Pow", [2.0f64], 0.5f64, [std::f64::consts::SQRT_2]),
        case("Pow", [half(2.0)], [half(3.0)], [half(8.0)]),
        case("Pow", [2i32, 3, -2], [40i32, 2, 3], [0i32, 9, -8]),
        case("Pow", 3i64, [4i64], [81i64]),
        case(
            "Pow",
            [Complex::new(0.0f64, 1.0)],
            [Complex::new(2.0f64, 0.0)],
            [Complex::new(-1.0f64, 0.0)],
        ),
        case(
            "Atan2",
            [1.0f32, 0.0],
            [-1.0f32, -1.0],
            [2.356_194_5f32, std::f32::consts::PI],
        ),
        case("Atan2", [[1.0f64]], [1.0f64], [[std::f64::consts::FRAC_PI_4]]),
        case(
            "Xdivy",
            [0.0f32, 0.0, 1.0, 3.0],
            [0.0f32, nan, 0.0, 2.0],
            [0.0f32, 0.0, infinity, 1.5],
        ),
        case(
            "Xlogy",
            [0.0f32, 0.0, 1.0, 3.0],
            [0.0f32, nan, 0.0, 2.0],
            [0.0f32, 0.0, -infinity, 2.079_441_5],
        ),
        case("Xlogy", [z], [w * 0.0 + 1.0], [w * 0.0]),
    ]
}

pub(crate) fn gradient_cases() -> Vec<GradientCase> {
    let (x, y) = (
        [[0.5f64, 1.5, 2.0], [1.0, 0.3, 0.7]],
        [[1.2f64, 0.4, 3.0], [0.9, 2.0, 1.7]],
    );
    let mut cases = Vec::new();
    for op in ["RealDiv", "Div", "DivNoNan", "Pow", "Atan2", "Xdivy", "Xlogy"] {
        cases.extend([
            GradientCase::new(op).input(x).input(y),
            GradientCase::new(op).input(x).input([[0.63f64], [0.2]]),
            GradientCase::new(op).input([0.6f64, 0.21, 0.1]).input(y),
        ]);
    }
    // A remainder jumps where the quotient is whole: these are not.
    let (x, y) = (
        [[0.5f64, 1.5, 2.0], [1.0, 0.3, 0.7]],
        [[1.2f64, 0.4, 3.0], [0.9, 2.0, 1.7]],
    );
    cases.push(GradientCase::new("FloorMod").input(x).input(y));
    cases.push(GradientCase::new("FloorMod").input(x).input([[0.63f64], [0.23]]));
    cases.push(
        GradientCase::new("Pow")
            .input([-1.5f64, 2.0])
            .input([2.0f64, -1.0])
            .with_respect_to(&[0]),
    );
    cases.push(GradientCase::new("FloorDiv").input(x).input(y));
    cases
}

#[test]
fn integers_are_not_divided_by_zero() {
    for op in ["Div", "TruncateDiv", "FloorDiv", "FloorMod", "TruncateMod", "Mod"] {
        let error = Case::new(op).input([1i32, 2]).input([1i32, 0]).run().unwrap_err();
        assert_eq!(error.class(), "InvalidArgument");
        assert!(error.to_string().contains("Integer division by zero"), "{op}: {error}");
    }
    let error = Case::new("Pow").input([2i32]).input([-1i32]).run().unwrap_err();
    assert!(error.to_string().contains("negative integer powers"), "{error}");
}

#[test]
fn true_division_casts_integers_inside_its_scope() {
    use crate::array::constant;
    let graph = graph_core::Graph::new();
    let _default = graph.as_default();
    let x = constant([1i32, 2]).name("x").build().unwrap();
    let quotient = super::super::truediv(&x, 2).build().unwrap();
    assert_eq!(quotient.dtype(), graph_core::DType::Float64);
    let small = constant([1u8]).name("small").build().unwrap();
    assert_eq!(
        super::super::divide(&small, &small).name("q").build().unwrap().dtype(),
        graph_core::DType::Float32
    );
    let names: Vec<String> = graph.operations().iter().map(|operation| operation.name()).collect();
    assert_eq!(
        names,
        [
            "x",
            "truediv/y",
            "truediv/Cast",
            "truediv/Cast_1",
            "truediv",
            "small",
            "q/Cast",
            "q/Cast_1",
            "q"
        ]
    );
}

#[test]
fn quotients_by_floats_are_those_of_integers() {
    fn check<T: Quotient + PartialEq + std::fmt::Debug>(x: T, y: T, whole: impl Fn(T, T) -> [T; 2]) {
        assert_eq!([x.rounded_down(y), x.cut_off(y)], whole(x, y), "{x:?} / {y:?}");
    }
    macro_rules! signed {
        ($t:ty, $x:expr, $y:expr) => {
            check::<$t>($x, $y, |x, y| {
                let inexact = x.wrapping_rem(y) != 0 && (x < 0) != (y < 0);
                let quotient = x.wrapping_div(y);
                [quotient - <$t>::from(inexact), quotient]
            })
        };
    }
    for x in i8::MIN..=i8::MAX {
        for y in (i8::MIN..=i8::MAX).filter(|&y| y != 0) {
            signed!(i8, x, y);
            check(x as u8, y as u8, |x, y| [x / y; 2]);
        }
    }
    // Around all multiples that a quotient could be rounded to, for the largest numbers.
    let ends = [
        1i64,
        2,
        3,
        5,
        7,
        127,
        128,
        255,
        256,
        32_767,
        32_768,
        65_535,
        65_536,
        i32::MAX.into(),
        1 << 31,
    ];
    let divisors = ends.iter().flat_map(|&y| [y, -y, y + 1]);
    for y in divisors {
        let numbers = ends.iter().flat_map(|&x| [x, x / y * y, x * 2 - 1]);
        for x in numbers.flat_map(|x| [x - 1, x, x + 1, -x]) {
            if y as i16 != 0 {
                signed!(i16, x as i16, y as i16);
                check(x as u16, y as u16, |x, y| [x / y; 2]);
            }
            if y as i32 != 0 {
                signed!(i32, x as i32, y as i32);
                check(x as u32, y as u32, |x, y| [x / y; 2]);
            }
            signed!(i64, x, y);
        }
    }
}
