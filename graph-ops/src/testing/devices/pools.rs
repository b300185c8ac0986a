//! Poolings and their gradients.

use graph_core::graph::Node;
use graph_core::op::AttrValue;
use graph_core::{DType, PartialShape, Value};

use super::{Numbers, cast, check_case, check_node, device, node};
use crate::cuda::FLOATS;
use crate::nn::fused;
use crate::testing::Case;

/// Gradients are summed in the same order.
const SAME: (f64, f64) = (0.0, 0.0);

struct Pool {
    images: [usize; 4],
    size: [usize; 2],
    strides: [usize; 2],
    padding: &'static str,
    last: bool,
}

impl Pool {
    fn any(numbers: &mut Numbers) -> Self {
        // Every third has windows of 2x2 side by side, which the CPU has code of its own for.
        let halves = numbers.among(0, 2) == 0;
        let mut pair = |low, high| {
            if halves {
                [2, 2]
            } else {
                [numbers.among(low, high), numbers.among(low, high)]
            }
        };
        let (size, strides) = (pair(1, 4), pair(1, 3));
        Self {
            images: [
                numbers.among(1, 3),
                numbers.among(4, 9),
                numbers.among(4, 9),
                numbers.among(1, 5),
            ],
            size,
            strides,
            padding: if numbers.among(0, 1) == 0 { "SAME" } else { "VALID" },
            last: numbers.among(0, 2) > 0,
        }
    }

    fn shape(&self, [n, h, w, c]: [usize; 4]) -> [usize; 4] {
        if self.last { [n, h, w, c] } else { [n, c, h, w] }
    }

    fn pooled(&self) -> [usize; 4] {
        let along = |axis: usize| match self.padding {
            "SAME" => self.images[1 + axis].div_ceil(self.strides[axis]),
            _ => (self.images[1 + axis] - self.size[axis]) / self.strides[axis] + 1,
        };
        self.shape([self.images[0], along(0), along(1), self.images[3]])
    }

    fn case(&self, op: &'static str) -> Case {
        let four = |[rows, columns]: [usize; 2]| self.shape([1, rows, columns, 1]).map(|x| x as i64);
        Case::new(op)
            .attr("ksize", four(self.size))
            .attr("strides", four(self.strides))
            .attr("padding", self.padding)
            .attr("data_format", if self.last { "NHWC" } else { "NCHW" })
    }
}

#[test]
fn poolings_of_any_windows_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(5);
    for _ in 0..60 {
        let pool = Pool::any(&mut numbers);
        let (images, pooled) = (pool.shape(pool.images), pool.pooled());
        // With ties, whose first one is the maximum.
        let x = numbers.coarse(&images);
        let (gradient, again) = (numbers.tensor(&pooled), numbers.tensor(&images));
        let nothing = numbers.tensor(&pooled);
        check_case(&device, &pool.case("MaxPool").input(x.clone()), SAME);
        let grad = pool.case("MaxPoolGrad").input(x.clone()).input(nothing.clone());
        check_case(&device, &grad.input(gradient.clone()), SAME);
        let grad_grad = pool.case("MaxPoolGradGrad").input(x.clone()).input(nothing);
        check_case(&device, &grad_grad.input(again), SAME);
        check_case(&device, &pool.case("AvgPool").input(x), (1e-14, 1e-15));
        let sizes = images.map(|size| size as i32);
        check_case(
            &device,
            &pool.case("AvgPoolGrad").input(sizes).input(gradient),
            (1e-14, 1e-15),
        );
    }
}

#[test]
fn what_is_no_number_is_the_maximum_where_it_is_the_cpus() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(6);
    for _ in 0..20 {
        let pool = Pool::any(&mut numbers);
        let (images, pooled) = (pool.shape(pool.images), pool.pooled());
        let mut x = numbers.coarse(&images).as_slice::<f64>().unwrap().to_vec();
        for (x, odd) in x
            .iter_mut()
            .step_by(3)
            .zip([f64::NAN, f64::NEG_INFINITY, f64::INFINITY].iter().cycle())
        {
            *x = *odd;
        }
        let x = Value::from_vec(images.to_vec(), x).unwrap();
        check_case(&device, &pool.case("MaxPool").input(x.clone()), SAME);
        let gradient = numbers.tensor(&pooled);
        let grad = pool.case("MaxPoolGrad").input(x).input(gradient.clone());
        check_case(&device, &grad.input(gradient), SAME);
    }
}

#[test]
fn maxima_over_channels_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let case = Case::new("MaxPool")
        .attr("ksize", [1i64, 1, 1, 3])
        .attr("strides", [1i64, 1, 1, 3])
        .attr("padding", "VALID");
    check_case(&device, &case.input(Numbers(7).tensor(&[2, 3, 2, 12])), SAME);
}

/// The gradient of a maximum of `Relu`, and its sums, in these dtypes; and its inputs, the activity of this shape and the gradient
/// of the pool.
fn relu_gradient(
    numbers: &mut Numbers,
    [dtype, sums]: [DType; 2],
    (images, size, stride, pooled): ([usize; 4], i64, i64, [usize; 4]),
) -> (Node, Vec<Value>) {
    let len: usize = images.iter().product();
    let activity: Vec<f64> = (0..len).map(|_| numbers.among(0, 3) as f64).collect();
    let inputs = [
        Value::from_vec(images.to_vec(), activity).unwrap(),
        numbers.tensor(&pooled),
    ];
    let shapes = [
        PartialShape::from(images.map(Some)),
        PartialShape::from([Some(images[3])]),
    ];
    let attrs: Vec<(&'static str, AttrValue)> = vec![
        ("T", dtype.into()),
        ("Tsum", sums.into()),
        ("ksize", [1, size, size, 1].into()),
        ("strides", [1, stride, stride, 1].into()),
        ("padding", "VALID".into()),
        ("shapes", shapes.to_vec().into()),
    ];
    let fused = node(fused::max_pool_relu_grad(), attrs, &[dtype, sums]);
    (fused, inputs.map(|value| cast(&value, dtype)).into())
}

/// The gradient of a maximum of `Relu` in each dtype.
pub(super) fn nodes(numbers: &mut Numbers) -> Vec<(Node, Vec<Value>)> {
    let own = FLOATS.iter().map(|&dtype| [dtype; 2]);
    let types = own.chain([DType::Half, DType::BFloat16].map(|dtype| [dtype, DType::Float32]));
    let mut nodes: Vec<(Node, Vec<Value>)> = types
        .map(|types| relu_gradient(numbers, types, ([40, 12, 12, 20], 2, 2, [40, 6, 6, 20])))
        .collect();
    nodes.extend([DType::Float32, DType::Float64].map(|dtype| gradient_at(numbers, dtype, [3, 6, 8, 5])));
    nodes
}

#[test]
fn the_gradient_of_a_maximum_of_relu_and_its_sums_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(8);
    for pool in [
        ([3, 6, 8, 5], 2i64, 2i64, [3, 3, 4, 5]),
        ([2, 7, 7, 3], 3, 2, [2, 3, 3, 3]),
        ([40, 12, 12, 20], 2, 2, [40, 6, 6, 20]),
    ] {
        for (types, tolerance) in [
            ([DType::Float64; 2], (1e-12, 1e-12)),
            ([DType::Half; 2], (1e-3, 1e-5)),
            ([DType::BFloat16, DType::Float32], (1e-5, 1e-5)),
        ] {
            let (fused, inputs) = relu_gradient(&mut numbers, types, pool);
            check_node(&device, &fused, &inputs, tolerance, &format!("{pool:?} {types:?}"));
        }
    }
}

/// `_MaxPoolReluGrad` by places, for windows of 2x2 over images of this shape, and its inputs.
fn gradient_at(numbers: &mut Numbers, dtype: DType, images: [usize; 4]) -> (Node, Vec<Value>) {
    let pooled = [images[0], images[1] / 2, images[2] / 2, images[3]];
    let shapes = [PartialShape::from(images), PartialShape::from([images[3]])];
    let attrs: Vec<(&'static str, AttrValue)> = vec![
        ("T", dtype.into()),
        ("Tsum", dtype.into()),
        ("ksize", [1i64, 2, 2, 1].into()),
        ("strides", [1i64, 2, 2, 1].into()),
        ("padding", "VALID".into()),
        ("places", true.into()),
        ("shapes", shapes.to_vec().into()),
    ];
    let inputs = [numbers.places(&pooled), numbers.tensor(&pooled)].map(|value| cast(&value, dtype));
    (node(fused::max_pool_relu_grad(), attrs, &[dtype; 2]), inputs.into())
}

#[test]
fn the_gradient_of_a_maximum_by_its_place_is_that_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(11);
    for images in [[3, 6, 8, 5], [2, 7, 9, 3]] {
        let (gradient, inputs) = gradient_at(&mut numbers, DType::Float64, images);
        check_node(&device, &gradient, &inputs, (1e-12, 1e-12), &format!("{images:?}"));
    }
}
