//! Convolutions and their gradients.

use graph_core::graph::Node;
use graph_core::op::{AttrValue, Attributes, NameAttrList};
use graph_core::session::evaluate::{evaluate_node, evaluate_node_on};
use graph_core::{DType, PartialShape, Value};
use graph_cuda::{ConvolutionKernels, Cuda, DeviceOptions};

use super::{Numbers, cast, check_case, check_node, device, node};
use crate::cuda::FLOATS;
use crate::nn::fused::{self, Made};
use crate::testing::{Case, floats, gpu_with};

/// What `double` sums in another order may differ by.
pub(super) const CLOSE: (f64, f64) = (1e-11, 1e-12);

/// With `Relu` or without, what a fused convolution makes; the pool may be the only output.
pub(super) const FUSED: [(bool, &[Made]); 5] = [
    (false, &[Made::Activity]),
    (true, &[Made::Activity]),
    (true, &[Made::Activity, Made::Pooled]),
    (true, &[Made::Pooled]),
    (true, &[Made::Places, Made::Pooled]),
];

/// A fused convolution, one by one, with a pool of 2x2; `shapes` are those of the activity and the pool.
pub(super) fn fused_convolution(
    dtype: DType,
    padding: &str,
    relu: bool,
    makes: &[Made],
    shapes: &[PartialShape; 2],
) -> Node {
    let mut pool = Attributes::new();
    pool.set("ksize", [1i64, 2, 2, 1]);
    pool.set("strides", [1i64, 2, 2, 1]);
    pool.set("padding", "VALID");
    pool.set("data_format", "NHWC");
    let function = |name: &str, attrs| {
        AttrValue::Func(Box::new(NameAttrList {
            name: name.into(),
            attrs,
        }))
    };
    let made = |made: &Made| shapes[usize::from(*made != Made::Activity)].clone();
    let mut outputs = Attributes::new();
    Made::write(makes, &mut outputs);
    let written = ["N", "makes"].map(|name| (name, outputs.get(name).expect("written").clone()));
    let attrs = vec![
        ("T", dtype.into()),
        ("strides", [1i64, 1, 1, 1].into()),
        ("padding", padding.into()),
        ("relu", relu.into()),
        ("pool", function("MaxPool", pool)),
        ("response", function("LRN", Attributes::new())),
        ("shapes", makes.iter().map(made).collect::<Vec<_>>().into()),
    ];
    node(
        fused::conv2d(),
        attrs.into_iter().chain(written).collect(),
        &vec![dtype; makes.len()],
    )
}

/// A fused convolution of each dtype, with its pool, and the three convolutions in 16 bits.
pub(super) fn nodes(numbers: &mut Numbers) -> Vec<(Node, Vec<Value>)> {
    let mut nodes = Vec::new();
    for &dtype in FLOATS {
        let shapes = [[2usize, 7, 6, 20], [2, 3, 3, 20]].map(PartialShape::from);
        let inputs = [&[2usize, 9, 8, 3][..], &[3, 3, 3, 20], &[20]].map(|shape| cast(&numbers.tensor(shape), dtype));
        let makes = [Made::Activity, Made::Pooled];
        nodes.push((
            fused_convolution(dtype, "VALID", true, &makes, &shapes),
            inputs.clone().into(),
        ));
        if dtype.size() >= DType::Float32.size() {
            for makes in [&[Made::Places, Made::Pooled][..], &[Made::Pooled]] {
                let fused = fused_convolution(dtype, "VALID", true, makes, &shapes);
                nodes.push((fused, inputs.clone().into()));
            }
            nodes.extend(POOLED.map(|convolution| filter_gradient(numbers, dtype, convolution)));
        }
        for last in [true, false] {
            let convolution = Convolution::plain([2, 6, 5, 17], [3, 2, 17, 70], last);
            for case in convolution.cases(numbers) {
                let inputs = case.inputs.iter().map(|value| stored(value, dtype));
                let case = inputs.fold(convolution.case(case.op), Case::input);
                nodes.push((case.node().expect("a node"), case.inputs));
            }
        }
    }
    nodes
}

/// Numbers in the dtype; what is no `double` stays.
fn stored(value: &Value, dtype: DType) -> Value {
    match value.dtype() {
        DType::Float64 => cast(value, dtype),
        _ => value.clone(),
    }
}

/// One convolution, in the order batch, rows, columns, channels.
#[derive(Clone, Debug)]
pub(super) struct Convolution {
    images: [usize; 4],
    filter: [usize; 4],
    strides: [usize; 2],
    dilations: [usize; 2],
    /// Before and after rows and columns; `None` for `name`.
    explicit: Option<[usize; 4]>,
    name: &'static str,
    last: bool,
}

impl Convolution {
    /// Without strides and dilations, padded to the same size.
    fn plain(images: [usize; 4], filter: [usize; 4], last: bool) -> Self {
        Self {
            images,
            filter,
            strides: [1, 1],
            dilations: [1, 1],
            explicit: None,
            name: "SAME",
            last,
        }
    }

    pub(super) fn any(numbers: &mut Numbers) -> Self {
        let images = [
            numbers.among(1, 3),
            numbers.among(3, 9),
            numbers.among(3, 9),
            numbers.among(1, 20),
        ];
        let filter = [
            numbers.among(1, 3),
            numbers.among(1, 3),
            images[3],
            *[1, 3, 7, 17, 40, 70].get(numbers.among(0, 5)).expect("one of them"),
        ];
        let explicit = (numbers.among(0, 3) == 0).then(|| [0; 4].map(|_: usize| numbers.among(0, 2)));
        Self {
            images,
            filter,
            strides: [numbers.among(1, 3), numbers.among(1, 3)],
            dilations: [numbers.among(1, 2), numbers.among(1, 2)],
            explicit,
            name: if numbers.among(0, 1) == 0 { "SAME" } else { "VALID" },
            last: numbers.among(0, 3) > 0,
        }
    }

    /// The output's shape, batch, rows, columns, channels; `None` where the windows do not fit.
    fn out(&self) -> Option<[usize; 4]> {
        let along = |axis: usize| {
            let effective = (self.filter[axis] - 1) * self.dilations[axis] + 1;
            let input = self.images[1 + axis];
            match (self.explicit, self.name) {
                (None, "SAME") => Some(input.div_ceil(self.strides[axis])),
                (explicit, _) => {
                    let around = explicit.map_or(0, |around| around[2 * axis] + around[2 * axis + 1]);
                    Some((input + around).checked_sub(effective)? / self.strides[axis] + 1)
                }
            }
        };
        Some([self.images[0], along(0)?, along(1)?, self.filter[3]])
    }

    fn shape(&self, nhwc: [usize; 4]) -> [usize; 4] {
        let [n, h, w, c] = nhwc;
        if self.last { nhwc } else { [n, c, h, w] }
    }

    fn case(&self, op: &'static str) -> Case {
        let four = |[rows, columns]: [usize; 2]| self.shape([1, rows, columns, 1]).map(|x| x as i64);
        let case = Case::new(op)
            .attr("strides", four(self.strides))
            .attr("dilations", four(self.dilations))
            .attr("data_format", if self.last { "NHWC" } else { "NCHW" });
        match self.explicit {
            None => case.attr("padding", self.name),
            Some([top, bottom, left, right]) => {
                let nhwc = [(0, 0), (top, bottom), (left, right), (0, 0)];
                let pairs = if self.last {
                    nhwc
                } else {
                    [nhwc[0], nhwc[3], nhwc[1], nhwc[2]]
                };
                let amounts: Vec<i64> = pairs.iter().flat_map(|&(a, b)| [a as i64, b as i64]).collect();
                case.attr("padding", "EXPLICIT").attr("explicit_paddings", amounts)
            }
        }
    }

    fn sizes(shape: [usize; 4]) -> [i32; 4] {
        shape.map(|size| size as i32)
    }

    pub(super) fn cases(&self, numbers: &mut Numbers) -> Vec<Case> {
        let Some(out) = self.out() else { return Vec::new() };
        let images = numbers.tensor(&self.shape(self.images));
        let (filter, gradient) = (numbers.tensor(&self.filter), numbers.tensor(&self.shape(out)));
        vec![
            self.case("Conv2D").input(images.clone()).input(filter.clone()),
            self.case("Conv2DBackpropInput")
                .input(Self::sizes(self.shape(self.images)))
                .input(filter)
                .input(gradient.clone()),
            self.case("Conv2DBackpropFilter")
                .input(images)
                .input(Self::sizes(self.filter))
                .input(gradient),
        ]
    }
}

#[test]
fn convolutions_of_any_shape_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(1);
    let mut run = 0;
    for _ in 0..60 {
        for case in Convolution::any(&mut numbers).cases(&mut numbers) {
            check_case(&device, &case, CLOSE);
            run += 1;
        }
    }
    assert!(run > 100);
}

#[test]
fn convolutions_of_every_size_of_tile_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(2);
    // Pixels for many tiles of 128, of 64, and for few, with columns for each width of a tile.
    for (batch, side, channels, outputs) in [
        (3, 105, 1, 2),
        (3, 105, 2, 17),
        (3, 105, 1, 33),
        (2, 100, 1, 33),
        (9, 12, 20, 20),
        (2, 12, 40, 50),
        (1, 5, 70, 3),
        (2, 6, 150, 130),
    ] {
        for last in [true, false] {
            let convolution = Convolution::plain([batch, side, side, channels], [3, 2, channels, outputs], last);
            for case in convolution.cases(&mut numbers) {
                check_case(&device, &case, CLOSE);
            }
        }
    }
}

/// A tensor as `double`.
fn widened(value: &Value) -> Value {
    match floats(value) {
        Some(numbers) => Value::from_vec(value.shape().clone(), numbers).expect("a value"),
        None => value.clone(),
    }
}

/// Checks the three convolutions in a dtype against sums in `double` of the same operands: the result is rounded to a part `result`
/// of itself, and each operand to a part `operand`, of which the sum of the absolute products tells what may come.
fn check_in(
    device: &Cuda,
    convolution: &Convolution,
    numbers: &mut Numbers,
    dtype: DType,
    [result, operand]: [f64; 2],
) {
    for case in convolution.cases(numbers) {
        let made = |map: &dyn Fn(&Value) -> Value| {
            let inputs = case.inputs.iter().map(map);
            inputs.fold(convolution.case(case.op), Case::input)
        };
        let stored = |value: &Value| stored(value, dtype);
        let absolute = |value: &Value| match floats(&stored(value)) {
            Some(numbers) => {
                let numbers = numbers.into_iter().map(f64::abs).collect::<Vec<_>>();
                Value::from_vec(value.shape().clone(), numbers).expect("a value")
            }
            None => value.clone(),
        };
        let on_host = |case: &Case| floats(&evaluate_node(&case.node().unwrap(), &case.inputs).unwrap()[0]).unwrap();
        let expected = on_host(&made(&|value| widened(&stored(value))));
        let most = on_host(&made(&absolute));
        let case = made(&stored);
        let label = format!("{} of {dtype}, {convolution:?}", case.op);
        // Threads take their turns in another order in every second grid.
        for _ in 0..2 {
            let got = evaluate_node_on(&case.node().unwrap(), &case.inputs, &device.accelerator()).unwrap();
            let got = floats(&got[0]).unwrap();
            assert_eq!(got.len(), expected.len(), "{label}");
            for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let bound = result * expected.abs() + (2.0 * operand + 1e-5) * most[index] + 1e-7;
                assert!(
                    (got - expected).abs() <= bound,
                    "{label}: element {index} is {got}, expected {expected}"
                );
            }
        }
    }
}

#[test]
fn tensor_cores_convolve_as_double_does_within_rounding() {
    let options = DeviceOptions {
        tf32: true,
        convolutions: Some(ConvolutionKernels::Own),
        ..DeviceOptions::default()
    };
    let device = match gpu_with(&options) {
        Ok(device) => device,
        Err(error) => return println!("skipped: {error}"),
    };
    let mut numbers = Numbers(12);
    // Each width of a tile, and tiles that are not filled.
    let mut convolutions = vec![
        Convolution::plain([1, 5, 7, 3], [3, 3, 3, 5], true),
        Convolution::plain([1, 5, 7, 3], [3, 3, 3, 5], false),
        Convolution::plain([2, 6, 5, 17], [3, 2, 17, 20], true),
        Convolution::plain([2, 6, 5, 20], [2, 3, 20, 33], false),
        Convolution::plain([1, 8, 8, 33], [3, 3, 33, 70], true),
        Convolution::plain([3, 105, 105, 1], [2, 1, 1, 33], true),
    ];
    convolutions.extend((0..8).map(|_| Convolution::any(&mut numbers)));
    for convolution in &convolutions {
        for (dtype, rounding) in [
            (DType::Half, [1.0 / 2048.0, 0.0]),
            (DType::BFloat16, [1.0 / 256.0, 0.0]),
            (DType::Float32, [0.0, 1.0 / 2048.0]),
        ] {
            check_in(&device, convolution, &mut numbers, dtype, rounding);
        }
    }
}

#[test]
fn nothing_to_convolve_is_no_error() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(3);
    for (images, filter) in [
        ([0, 4, 4, 2], [3, 3, 2, 5]),
        ([2, 2, 2, 2], [3, 3, 2, 5]),
        ([2, 4, 4, 2], [3, 3, 2, 0]),
    ] {
        let convolution = Convolution::plain(images, filter, true);
        for case in convolution.cases(&mut numbers) {
            check_case(&device, &case, CLOSE);
        }
    }
}

#[test]
fn a_fused_convolution_is_its_steps() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(4);
    for (relu, makes) in FUSED {
        // The first three are of few terms, and are convolved and pooled in one kernel where no activity is wanted.
        for (padding, images, filter, out, pooled) in [
            ("VALID", [2, 9, 8, 3], [3, 3, 3, 20], [2, 7, 6, 20], [2, 3, 3, 20]),
            ("VALID", [1, 5, 5, 1], [2, 2, 1, 4], [1, 4, 4, 4], [1, 2, 2, 4]),
            ("SAME", [3, 27, 26, 1], [5, 4, 1, 9], [3, 27, 26, 9], [3, 13, 13, 9]),
            ("SAME", [2, 7, 7, 5], [3, 3, 5, 6], [2, 7, 7, 6], [2, 3, 3, 6]),
        ] {
            let shapes = [out, pooled].map(|shape| PartialShape::from(shape.map(Some)));
            for dtype in [DType::Float64, DType::Float32] {
                let fused = fused_convolution(dtype, padding, relu, makes, &shapes);
                let inputs: Vec<Value> = [&images[..], &filter[..], &filter[3..]]
                    .map(|shape| cast(&numbers.tensor(shape), dtype))
                    .into();
                let tolerance = if dtype == DType::Float64 { CLOSE } else { (1e-5, 1e-6) };
                check_node(&device, &fused, &inputs, tolerance, &format!("relu {relu}, {makes:?}"));
            }
        }
    }
}

/// A convolution with a pool behind it: padding, strides, the shapes of images, filter and pool.
type PooledConvolution = (&'static str, [i64; 2], [usize; 4], [usize; 4], [usize; 4]);

/// A first layer's; all of the next are of few terms, too, which one kernel makes, but for the last.
const POOLED: [PooledConvolution; 4] = [
    ("VALID", [1, 1], [3, 28, 28, 1], [5, 5, 1, 20], [3, 12, 12, 20]),
    ("SAME", [2, 1], [2, 9, 8, 3], [3, 2, 3, 7], [2, 2, 4, 7]),
    ("SAME", [1, 1], [600, 4, 5, 1], [3, 3, 1, 2], [600, 2, 2, 2]),
    ("VALID", [1, 1], [2, 9, 9, 5], [3, 3, 5, 6], [2, 3, 3, 6]),
];

/// The gradients of its filter and bias by the places of the maxima, and the inputs.
fn filter_gradient(
    numbers: &mut Numbers,
    dtype: DType,
    (padding, strides, images, filter, pooled): PooledConvolution,
) -> (Node, Vec<Value>) {
    let shapes = [PartialShape::from(filter), PartialShape::from([filter[3]])];
    let attrs: Vec<(&'static str, AttrValue)> = vec![
        ("T", dtype.into()),
        ("strides", [1, strides[0], strides[1], 1].into()),
        ("padding", padding.into()),
        ("shapes", shapes.to_vec().into()),
    ];
    let inputs = [
        numbers.tensor(&images),
        numbers.places(&pooled),
        numbers.tensor(&pooled),
    ];
    let inputs = inputs.map(|value| cast(&value, dtype));
    (node(fused::pool_filter_grad(), attrs, &[dtype; 2]), inputs.into())
}

#[test]
fn the_filters_gradient_by_places_is_that_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(12);
    for convolution in POOLED {
        for dtype in [DType::Float64, DType::Float32] {
            let (gradient, inputs) = filter_gradient(&mut numbers, dtype, convolution);
            let tolerance = if dtype == DType::Float64 { CLOSE } else { (1e-5, 1e-4) };
            check_node(&device, &gradient, &inputs, tolerance, &format!("{convolution:?}"));
        }
    }
}

#[test]
fn depthwise_convolutions_of_any_shape_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(9);
    for _ in 0..25 {
        let mut convolution = Convolution::any(&mut numbers);
        let (stride, multiplier) = (numbers.among(1, 2), numbers.among(1, 3));
        convolution.strides = [stride; 2];
        (convolution.dilations, convolution.explicit) = ([1, 1], None);
        convolution.filter[3] = multiplier;
        let Some(mut out) = convolution.out() else { continue };
        out[3] = convolution.images[3] * multiplier;
        let images = numbers.tensor(&convolution.shape(convolution.images));
        let filter = numbers.tensor(&convolution.filter);
        let gradient = numbers.tensor(&convolution.shape(out));
        let forward = convolution.case("DepthwiseConv2dNative");
        check_case(&device, &forward.input(images.clone()).input(filter.clone()), CLOSE);
        let sizes = Convolution::sizes(convolution.shape(convolution.images));
        let to_images = convolution.case("DepthwiseConv2dNativeBackpropInput").input(sizes);
        check_case(&device, &to_images.input(filter).input(gradient.clone()), CLOSE);
        let sizes = Convolution::sizes(convolution.filter);
        let to_filter = convolution.case("DepthwiseConv2dNativeBackpropFilter").input(images);
        check_case(&device, &to_filter.input(sizes).input(gradient), CLOSE);
    }
}
