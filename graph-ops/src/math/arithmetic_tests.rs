use graph_core::{Complex, Value};
use half::{bf16, f16};

use crate::testing::{Case, GradientCase};

fn case(op: &'static str, x: impl Into<Value>, y: impl Into<Value>, expected: impl Into<Value>) -> Case {
    Case::new(op).input(x).input(y).expect(expected)
}

pub(crate) fn cases() -> Vec<Case> {
    let (half, brain) = (f16::from_f32, bf16::from_f32);
    let (z, w) = (Complex::new(3.0f64, 4.0), Complex::new(1.0f64, -2.0));
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    let strings = |texts: &[&str]| {
        Value::from_strings(
            [texts.len()],
            texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
        )
        .expect("one shape")
    };
    let mut cases = vec![
        case("Add", strings(&["a", "b"]), Value::string("!"), strings(&["a!", "b!"])),
        case(
            "Sub",
            [[1.0f32], [2.0]],
            [10.0f32, 20.0, 30.0],
            [[-9.0f32, -19.0, -29.0], [-8.0, -18.0, -28.0]],
        ),
        case("Sub", [1u8], [2u8], [255u8]),
        case("Sub", [1u64], [2u64], [u64::MAX]),
        case("Mul", [[1.0f32, 2.0], [3.0, 4.0]], 2.0f32, [[2.0f32, 4.0], [6.0, 8.0]]),
        case("Mul", 0.5f64, [4.0f64], [2.0f64]),
        case("Mul", [half(1.5)], [half(2.0)], [half(3.0)]),
        case("Mul", [brain(1.5)], [brain(2.0)], [brain(3.0)]),
        case("Mul", [1i32 << 30], [4i32], [0i32]),
        case("Mul", [z], [w], [Complex::new(11.0f64, -2.0)]),
        case("MulNoNan", [nan, infinity, 2.0], [0.0f32, 0.0, nan], [0.0f32, 0.0, nan]),
        case("MulNoNan", [z], [Complex::new(0.0, 0.0)], [Complex::new(0.0f64, 0.0)]),
        case("SquaredDifference", [[1.0f32], [4.0]], [3.0f32], [[4.0f32], [1.0]]),
        case("SquaredDifference", [5i32], [7i32], [4i32]),
        case("SquaredDifference", [z], [w], [Complex::new(40.0f64, 0.0)]),
        case(
            "Maximum",
            [nan, 1.0, 2.0, -infinity],
            [1.0f32, nan, 3.0, 0.0],
            [nan, nan, 3.0, 0.0],
        ),
        case(
            "Minimum",
            [nan, 1.0, 2.0, -infinity],
            [1.0f32, nan, 3.0, 0.0],
            [nan, nan, 2.0, -infinity],
        ),
        case("Maximum", [[1i32, 5]], [[3i32], [4]], [[3i32, 5], [4, 5]]),
        case("Minimum", [[1u8, 5]], [[3u8], [4]], [[1u8, 3], [1, 4]]),
        case("Maximum", [half(1.0)], [half(2.0)], [half(2.0)]),
        case("Minimum", [-3i64], [2i64], [-3i64]),
    ];
    for op in ["Add", "AddV2"] {
        cases.extend([
            case(op, [[1.5f32, -2.0]], [[0.5f32], [1.0]], [[2.0f32, -1.5], [2.5, -1.0]]),
            case(op, 1.5f64, [1.0f64], [2.5f64]),
            case(op, [half(1.5)], [half(1.0)], [half(2.5)]),
            case(op, [brain(1.5)], [brain(1.0)], [brain(2.5)]),
            case(op, [i32::MAX], [1i32], [i32::MIN]),
            case(op, [i8::MAX], [1i8], [i8::MIN]),
            case(op, [7i16], [1i16], [8i16]),
            case(op, [7i64], [1i64], [8i64]),
            case(op, [255u8], [2u8], [1u8]),
            case(op, [z], [w], [Complex::new(4.0f64, 2.0)]),
            case(op, Vec::<f32>::new(), [1.0f32], Vec::<f32>::new()),
        ]);
    }
    cases
}

pub(crate) fn gradient_cases() -> Vec<GradientCase> {
    let (x, y) = (
        [[0.5f64, -1.5, 2.0], [1.0, 0.3, -0.7]],
        [[1.2f64, 0.4, -0.3], [0.9, -2.0, 1.7]],
    );
    let mut cases = Vec::new();
    for op in [
        "Add",
        "AddV2",
        "Sub",
        "Mul",
        "MulNoNan",
        "SquaredDifference",
        "Maximum",
        "Minimum",
    ] {
        cases.extend([
            GradientCase::new(op).input(x).input(y),
            GradientCase::new(op).input(x).input([[0.6f64], [-0.2]]),
            GradientCase::new(op).input([0.6f64, -0.2, 0.1]).input(y),
            GradientCase::new(op).input(0.7f64).input([1.5f64]),
        ]);
    }
    cases
}

/// Names of the nodes a gradient is made of, the forward op's scope left out.
fn gradient_nodes(x: [Option<usize>; 2], y: &[usize]) -> Vec<String> {
    use graph_core::graph::OpBuilder;
    crate::install();
    let graph = graph_core::Graph::new();
    let _default = graph.as_default();
    let place = |shape: graph_core::PartialShape| {
        OpBuilder::new("Placeholder")
            .attr("dtype", graph_core::DType::Float32)
            .attr("shape", shape)
            .build()
            .unwrap()
    };
    let (x, y) = (place(x.into()), place(y.into()));
    let z = super::multiply(&x, &y).name("z").build().unwrap();
    graph_core::gradients([&z], [&x, &y]).unwrap().build().unwrap();
    graph
        .operations()
        .iter()
        .filter_map(|operation| operation.name().strip_prefix("gradients/z_grad/").map(str::to_owned))
        .collect()
}

#[test]
fn what_is_known_of_shapes_shortens_gradients() {
    assert_eq!(gradient_nodes([Some(2), Some(3)], &[2, 3]), ["Mul", "Mul_1"]);
    assert_eq!(
        gradient_nodes([Some(2), Some(3)], &[3]),
        [
            "BroadcastGradientArgs/s0",
            "BroadcastGradientArgs/s1",
            "BroadcastGradientArgs",
            "Mul",
            "Mul_1",
            "Sum/reduction_indices",
            "Sum",
            "Reshape/shape",
            "Reshape"
        ]
    );
    assert_eq!(
        gradient_nodes([None, Some(3)], &[3]),
        [
            "Shape",
            "Shape_1",
            "BroadcastGradientArgs",
            "Mul",
            "Sum",
            "Reshape",
            "Mul_1",
            "Sum_1",
            "Reshape_1"
        ]
    );
}
