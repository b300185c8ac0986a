use graph_core::{DType, Value};

use crate::testing::{Case, GradientCase};

fn case(op: &'static str, window: [i64; 2], strides: [i64; 2], padding: &str) -> Case {
    Case::new(op)
        .attr("ksize", [1, window[0], window[1], 1])
        .attr("strides", [1, strides[0], strides[1], 1])
        .attr("padding", padding)
}

/// One image of three by three pixels, with two equal largest ones.
const IMAGE: [[[[f64; 1]; 3]; 3]; 1] = [[[[1.0], [5.0], [-3.0]], [[5.0], [2.0], [4.0]], [[-7.0], [-8.0], [0.5]]]];

pub(in crate::nn) fn cases() -> Vec<Case> {
    let empty = |shape: [usize; 4]| Value::zeros(DType::Float32, shape).expect("a value");
    let mut cases = vec![
        case("MaxPool", [2, 2], [2, 2], "VALID")
            .input(IMAGE)
            .expect([[[[5.0f64]]]]),
        case("MaxPool", [2, 2], [2, 2], "SAME")
            .input(IMAGE)
            .expect([[[[5.0f64], [4.0]], [[-7.0], [0.5]]]]),
        case("MaxPool", [3, 2], [1, 2], "SAME").input(IMAGE).expect([[
            [[5.0f64], [4.0]],
            [[5.0], [4.0]],
            [[5.0], [4.0]],
        ]]),
        // Windows smaller than their strides.
        case("MaxPool", [1, 1], [2, 2], "VALID")
            .input(IMAGE)
            .expect([[[[1.0f64], [-3.0]], [[-7.0], [0.5]]]]),
        // Channels first, with two channels.
        Case::new("MaxPool")
            .attr("ksize", [1i64, 1, 1, 2])
            .attr("strides", [1i64, 1, 1, 2])
            .attr("padding", "VALID")
            .attr("data_format", "NCHW")
            .input([[[[1.0f32, 2.0]], [[4.0, 3.0]]]])
            .expect([[[[2.0f32]], [[4.0]]]]),
        // Windows over channels.
        Case::new("MaxPool")
            .attr("ksize", [1i64, 1, 1, 2])
            .attr("strides", [1i64, 1, 1, 2])
            .attr("padding", "SAME")
            .input([[[[0.0f32, 1.0, 2.0, 3.0], [4.0, 5.0, 7.0, 6.0]]]])
            .expect([[[[1.0f32, 3.0], [5.0, 7.0]]]]),
        case("MaxPool", [2, 2], [2, 2], "VALID")
            .input(empty([0, 4, 4, 2]))
            .expect(empty([0, 2, 2, 2])),
        Case::new("MaxPoolV2")
            .attr("padding", "SAME")
            .input(IMAGE)
            .input([1i32, 2, 2, 1])
            .input([1i32, 2, 2, 1])
            .expect([[[[5.0f64], [4.0]], [[-7.0], [0.5]]]]),
        // The gradient of equal largest pixels goes to the first.
        case("MaxPoolGrad", [2, 2], [2, 2], "SAME")
            .input(IMAGE)
            .input([[[[5.0f64], [4.0]], [[-7.0], [0.5]]]])
            .input([[[[1.0f64], [2.0]], [[3.0], [4.0]]]])
            .expect([[[[0.0f64], [1.0], [0.0]], [[0.0], [0.0], [2.0]], [[3.0], [0.0], [4.0]]]]),
        // Windows that overlap add up.
        case("MaxPoolGrad", [2, 2], [1, 1], "VALID")
            .input(IMAGE)
            .input([[[[5.0f64], [5.0]], [[5.0], [4.0]]]])
            .input([[[[1.0f64], [2.0]], [[3.0], [4.0]]]])
            .expect([[[[0.0f64], [3.0], [0.0]], [[3.0], [0.0], [4.0]], [[0.0], [0.0], [0.0]]]]),
        Case::new("MaxPoolGradV2")
            .attr("padding", "VALID")
            .input(IMAGE)
            .input([[[[5.0f64]]]])
            .input([[[[1.5f64]]]])
            .input([1i32, 2, 2, 1])
            .input([1i32, 2, 2, 1])
            .expect([[[[0.0f64], [1.5], [0.0]], [[0.0], [0.0], [0.0]], [[0.0], [0.0], [0.0]]]]),
        case("MaxPoolGradGrad", [2, 2], [1, 1], "VALID")
            .input(IMAGE)
            .input([[[[5.0f64], [5.0]], [[5.0], [4.0]]]])
            .input([[[[1.0f64], [2.0], [3.0]], [[4.0], [5.0], [6.0]], [[7.0], [8.0], [9.0]]]])
            .expect([[[[2.0f64], [2.0]], [[4.0], [6.0]]]]),
        Case::new("MaxPoolGradGradV2")
            .attr("padding", "VALID")
            .input(IMAGE)
            .input([[[[5.0f64]]]])
            .input([[[[1.0f64], [2.0], [3.0]], [[4.0], [5.0], [6.0]], [[7.0], [8.0], [9.0]]]])
            .input([1i32, 2, 2, 1])
            .input([1i32, 2, 2, 1])
            .expect([[[[2.0f64]]]]),
    ];
    let numbers = [DType::Float32, DType::Half, DType::BFloat16];
    let integers = [
        DType::Int8,
        DType::Int16,
        DType::Int32,
        DType::Int64,
        DType::UInt8,
        DType::UInt16,
    ];
    for dtype in numbers.into_iter().chain(integers) {
        let cast = |value: Value| value.cast_exactly(dtype).expect("small numbers");
        let image = || cast([[[[1i32], [5]], [[3], [2]]]].into());
        cases.push(
            case("MaxPool", [2, 1], [1, 1], "SAME")
                .input(image())
                .expect(cast([[[[3i32], [5]], [[3], [2]]]].into())),
        );
    }
    for dtype in numbers {
        let cast = |value: Value| value.cast_exactly(dtype).expect("small numbers");
        let image = || cast([[[[1i32], [5]], [[3], [2]]]].into());
        let (pooled, one) = (|| cast([[[[5i32]]]].into()), || cast([[[[1i32]]]].into()));
        cases.extend([
            case("MaxPoolGrad", [2, 2], [2, 2], "VALID")
                .input(image())
                .input(pooled())
                .input(one())
                .expect(cast([[[[0i32], [1]], [[0], [0]]]].into())),
            case("MaxPoolGradGrad", [2, 2], [2, 2], "VALID")
                .input(image())
                .input(pooled())
                .input(image())
                .expect(pooled()),
        ]);
    }
    cases
}

pub(in crate::nn) fn gradient_cases() -> Vec<GradientCase> {
    let image: Vec<f64> = (0..40).map(|i| (i as f64 * 0.9).sin()).collect();
    let image = || Value::from_vec([1, 4, 5, 2], &image).expect("a value");
    let windows = [
        ([2, 2], [2, 2], "VALID"),
        ([2, 2], [2, 2], "SAME"),
        ([3, 2], [1, 2], "SAME"),
    ];
    let mut cases = Vec::new();
    for (window, strides, padding) in windows {
        let pool = |op: &'static str| {
            GradientCase::new(op)
                .attr("ksize", [1, window[0], window[1], 1])
                .attr("strides", [1, strides[0], strides[1], 1])
                .attr("padding", padding)
                .input(image())
        };
        cases.push(pool("MaxPool"));
        // What routes a gradient is where the largest elements are, which does not change: only the gradient counts.
        let pooled = case("MaxPool", window, strides, padding).input(image());
        let pooled = pooled.run().expect("pooled").remove(0);
        cases.push(
            pool("MaxPoolGrad")
                .input(pooled.clone())
                .input(pooled.clone())
                .with_respect_to(&[2]),
        );
        cases.push(
            pool("MaxPoolGradGrad")
                .input(pooled)
                .input(image())
                .with_respect_to(&[2]),
        );
    }
    cases.push(
        GradientCase::new("MaxPoolV2")
            .attr("padding", "SAME")
            .input(image())
            .input([1i32, 2, 2, 1])
            .input([1i32, 1, 2, 1]),
    );
    let rows = [[[[1.0f64], [3.0], [2.0]], [[4.0], [6.0], [5.0]]]];
    let largest = [[[[6.0f64], [6.0]]]];
    cases.push(
        GradientCase::new("MaxPoolGradV2")
            .attr("padding", "VALID")
            .input(rows)
            .input(largest)
            .input(largest)
            .input([1i32, 2, 2, 1])
            .input([1i32, 1, 1, 1])
            .with_respect_to(&[2])
            .first_order_only(),
    );
    cases
}

#[test]
fn what_does_not_fit_is_an_error() {
    let class = |case: Case| case.run().expect_err("an error").class();
    let image = [[[[1.0f32], [2.0]]]];
    assert_eq!(
        class(case("MaxPool", [2, 2], [1, 1], "VALID").input(image)),
        "InvalidArgument"
    );
    assert_eq!(
        class(case("MaxPool", [1, 1], [0, 1], "VALID").input(image)),
        "InvalidArgument"
    );
    let over_batch = case("MaxPool", [1, 1], [1, 1], "VALID").attr("ksize", [2i64, 1, 1, 1]);
    assert_eq!(class(over_batch.input([image[0], image[0]])), "Unimplemented");
    let over_both = Case::new("MaxPool")
        .attr("ksize", [1i64, 1, 2, 2])
        .attr("strides", [1i64, 1, 2, 2]);
    let two_channels = [[[[1.0f32, 2.0], [3.0, 4.0]]]];
    assert_eq!(
        class(over_both.attr("padding", "VALID").input(two_channels)),
        "Unimplemented"
    );
    let gradient = case("MaxPoolGrad", [1, 2], [1, 2], "VALID")
        .input(image)
        .input(image)
        .input(image);
    assert_eq!(class(gradient), "InvalidArgument");
}
