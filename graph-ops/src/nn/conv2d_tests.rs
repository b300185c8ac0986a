use graph_core::{DType, Value};

use crate::testing::{Case, GradientCase};

/// A convolution of the sines of 0, 0.9, 1.8, ... with those of 0, 0.7, ..., and its gradients for an incoming gradient of those
/// of 0, 0.5, ..., as TensorFlow computes them in `double`.
struct Convolution {
    images: [usize; 4],
    filter: [usize; 4],
    strides: [i64; 4],
    dilations: [i64; 4],
    padding: &'static str,
    out: [usize; 4],
    expected: &'static [f64],
    to_images: &'static [f64],
    to_filter: &'static [f64],
}

fn sines(shape: [usize; 4], rate: f64) -> Value {
    let sines = (0..shape.iter().product()).map(|i: usize| (i as f64 * rate).sin());
    Value::from_vec(shape, sines.collect::<Vec<_>>()).expect("a value")
}

fn sizes(shape: [usize; 4]) -> Value {
    Value::int32_vector(shape.map(|size| size as i32))
}

impl Convolution {
    fn paddings(&self) -> Vec<i64> {
        match self.padding {
            "EXPLICIT" => vec![0, 0, 1, 2, 0, 1, 0, 0],
            _ => Vec::new(),
        }
    }

    fn case(&self, op: &'static str) -> Case {
        Case::new(op)
            .attr("strides", self.strides)
            .attr("dilations", self.dilations)
            .attr("padding", self.padding)
            .attr("explicit_paddings", self.paddings())
            .tolerance(1e-7, 1e-8)
    }

    fn cases(&self) -> [Case; 3] {
        let (images, filter) = (sines(self.images, 0.9), sines(self.filter, 0.7));
        let gradient = sines(self.out, 0.5);
        let value = |shape, elements| Value::from_vec(shape, elements).expect("a value");
        [
            self.case("Conv2D")
                .input(images.clone())
                .input(filter.clone())
                .expect(value(self.out, self.expected)),
            self.case("Conv2DBackpropInput")
                .input(sizes(self.images))
                .input(filter)
                .input(gradient.clone())
                .expect(value(self.images, self.to_images)),
            self.case("Conv2DBackpropFilter")
                .input(images)
                .input(sizes(self.filter))
                .input(gradient)
                .expect(value(self.filter, self.to_filter)),
        ]
    }

    fn gradient_cases(&self) -> [GradientCase; 3] {
        let case = |op| {
            GradientCase::new(op)
                .attr("strides", self.strides)
                .attr("dilations", self.dilations)
                .attr("padding", self.padding)
                .attr("explicit_paddings", self.paddings())
        };
        let (images, filter) = (sines(self.images, 0.9), sines(self.filter, 0.7));
        let gradient = sines(self.out, 0.5);
        [
            case("Conv2D").input(images.clone()).input(filter.clone()),
            case("Conv2DBackpropInput")
                .input(sizes(self.images))
                .input(filter)
                .input(gradient.clone()),
            case("Conv2DBackpropFilter")
                .input(images)
                .input(sizes(self.filter))
                .input(gradient),
        ]
    }
}

/// With stride, dilation and every padding; the last but one is a matrix product.
fn convolutions() -> Vec<Convolution> {
    vec![
        Convolution {
            images: [2, 3, 4, 2],
            filter: [2, 2, 2, 2],
            strides: [1, 1, 1, 1],
            dilations: [1, 1, 1, 1],
            padding: "VALID",
            out: [2, 2, 3, 2],
            expected: &[
                1.381724686,
                1.420442904,
                0.005106298,
                2.023999418,
                -1.384045009,
                -2.340156719,
                1.100583335,
                2.776667562,
                -1.123919231,
                -0.301106972,
                -0.589869728,
                -2.639843293,
                -1.152466028,
                -0.394441903,
                -0.546104631,
                -2.60724675,
                1.40061826,
                1.57918575,
                -1.359566398,
                -2.43785432,
                0.708134841,
                -0.781886914,
                1.037786959,
                2.793147009,
            ],
            to_images: &[
                0.308854412,
                0.413844616,
                0.474429475,
                1.219261497,
                0.317524638,
                -0.300723615,
                0.094669873,
                -1.380492129,
                -0.217919746,
                0.310020394,
                -0.820856662,
                -0.251193444,
                0.108332468,
                0.068900774,
                0.894319513,
                0.669223165,
                -0.094982387,
                -0.253918888,
                0.469974724,
                -1.206308327,
                -0.365216828,
                -0.189911516,
                -1.044632401,
                0.972086566,
                0.138584101,
                -0.089656339,
                0.435214811,
                1.489304217,
                0.405447587,
                0.170070242,
                0.051327402,
                -1.646776428,
                0.131589007,
                0.3702534,
                -0.971405033,
                -0.309134171,
                -0.187988768,
                -0.029615348,
                1.072409477,
                0.666652637,
                -0.261420234,
                0.196494372,
                0.656846669,
                -1.311624686,
                -0.129088634,
                -0.548837181,
                -1.133945894,
                1.136607106,
            ],
            to_filter: &[
                -0.173893568,
                -0.123244153,
                -0.255536562,
                -0.112170352,
                -0.14379458,
                -0.016208265,
                0.076768273,
                0.092019914,
                -0.255177405,
                -0.111005747,
                -0.140207836,
                -0.014014529,
                0.080868228,
                0.093582605,
                0.24074483,
                0.130358289,
            ],
        },
        Convolution {
            images: [1, 5, 5, 1],
            filter: [2, 2, 1, 2],
            strides: [1, 2, 2, 1],
            dilations: [1, 1, 1, 1],
            padding: "SAME",
            out: [1, 3, 3, 2],
            expected: &[
                1.117991091,
                1.778280785,
                -0.264947836,
                0.210649084,
                0.324901594,
                -0.625300575,
                -1.023264287,
                -1.360122353,
                -0.206241569,
                -0.96472556,
                -0.329650116,
                0.36685406,
                0.049689024,
                -0.440273931,
                0.947167693,
                1.353859048,
                0.0,
                0.24560831,
            ],
            to_images: &[
                0.308854412,
                0.413844616,
                0.642603913,
                1.69027437,
                0.385546341,
                -0.168174438,
                -0.471012873,
                -0.068021702,
                -1.713397279,
                0.094669873,
                -0.22598076,
                -0.163732694,
                -0.629742192,
                -1.589603968,
                -0.454521557,
                0.170322403,
                0.221631118,
                0.089381302,
                1.619987737,
                -0.073736556,
                0.138584101,
                -0.089656339,
                0.604276176,
                1.457117632,
                0.514399521,
            ],
            to_filter: &[
                2.306976554,
                2.403277195,
                1.489106956,
                2.619622195,
                1.652886349,
                0.153088502,
                1.16165225,
                0.544266853,
            ],
        },
        Convolution {
            images: [1, 4, 5, 2],
            filter: [3, 3, 2, 1],
            strides: [1, 1, 2, 1],
            dilations: [1, 1, 1, 1],
            padding: "SAME",
            out: [1, 4, 3, 1],
            expected: &[
                2.758279649,
                -4.488484436,
                2.162955491,
                -1.97278554,
                4.067561487,
                -1.147966903,
                2.339960876,
                -4.816330986,
                1.840117967,
                -2.666148758,
                3.8611161,
                -1.589680916,
            ],
            to_images: &[
                0.982981165,
                0.861047016,
                -0.083706684,
                -0.235131899,
                0.593421556,
                0.792975069,
                -0.113825707,
                -0.286372225,
                0.058571653,
                0.53075517,
                -0.490618633,
                0.138587894,
                0.319809304,
                -0.030148161,
                -1.09538782,
                -0.709259145,
                0.207951552,
                -0.081767074,
                -1.431967867,
                -1.383454809,
                -1.417952238,
                -1.718932486,
                -0.128653177,
                -0.117209952,
                -1.056772448,
                -1.633555541,
                -0.270987578,
                -0.092356263,
                -0.436857907,
                -1.148227227,
                0.565364613,
                -0.140578767,
                -0.244409554,
                -0.223032419,
                0.733891635,
                0.292459261,
                -0.318352005,
                -0.279080876,
                0.722736389,
                0.653893061,
            ],
            to_filter: &[
                -0.047619887,
                -0.034014174,
                0.797603604,
                0.708151503,
                -0.05744421,
                -0.035267037,
                -0.142305379,
                0.263966128,
                -0.159306146,
                -0.485774861,
                -0.317911933,
                0.058882395,
                0.0373019,
                0.026895623,
                -0.618006959,
                0.070196953,
                0.014266126,
                0.002927232,
            ],
        },
        Convolution {
            images: [1, 5, 4, 1],
            filter: [3, 2, 1, 1],
            strides: [1, 1, 1, 1],
            dilations: [1, 2, 3, 1],
            padding: "SAME",
            out: [1, 5, 4, 1],
            expected: &[
                0.696070144,
                0.795283563,
                1.096830885,
                1.097732694,
                -0.678851945,
                -1.032123844,
                -1.218562262,
                -0.750257233,
                1.148832114,
                1.331173602,
                1.088681043,
                0.247866283,
                -0.468804822,
                -0.261997285,
                -0.750896517,
                0.033133823,
                -0.142305066,
                -0.19259965,
                0.390967891,
                -0.465548119,
            ],
            to_images: &[
                0.472449768,
                0.829227355,
                0.495435612,
                -0.215897576,
                0.589764213,
                0.139066674,
                0.259230413,
                0.655190862,
                -0.802704916,
                -0.663088859,
                -0.377042444,
                -0.497588071,
                0.412471011,
                0.694700797,
                0.246683238,
                -0.024240402,
                0.459407904,
                0.084893781,
                0.809091628,
                1.032162725,
            ],
            to_filter: &[
                -1.898040299,
                -0.892851334,
                -0.207829854,
                -1.441992979,
                -0.089754603,
                1.611744866,
            ],
        },
        Convolution {
            images: [1, 2, 2, 3],
            filter: [1, 1, 3, 2],
            strides: [1, 1, 1, 1],
            dilations: [1, 1, 1, 1],
            padding: "VALID",
            out: [1, 2, 2, 2],
            expected: &[
                1.098156708,
                0.33456571,
                -0.763542657,
                0.236239056,
                0.282438583,
                -0.76172001,
                0.252852947,
                1.141060625,
            ],
            to_images: &[
                0.308854412,
                0.413844616,
                -0.168174438,
                0.642603913,
                1.69027437,
                -0.068021702,
                0.385546341,
                1.412673664,
                0.094669873,
                -0.22598076,
                -0.163732694,
                0.170322403,
            ],
            to_filter: &[
                -0.206174133,
                -0.37638981,
                -0.298921113,
                -0.200366599,
                -0.165450553,
                0.127290059,
            ],
        },
        Convolution {
            images: [1, 3, 3, 1],
            filter: [2, 2, 1, 1],
            strides: [1, 1, 1, 1],
            dilations: [1, 1, 1, 1],
            padding: "EXPLICIT",
            out: [1, 5, 3, 1],
            expected: &[
                0.676175126,
                1.612563688,
                0.959677885,
                0.543806646,
                -0.652524937,
                -0.963306791,
                -1.032086136,
                0.071928596,
                0.782119782,
                0.010831812,
                0.511294876,
                0.0,
                0.0,
                0.0,
                0.0,
            ],
            to_images: &[
                0.0,
                1.115053681,
                1.828857456,
                0.982981165,
                1.848025925,
                1.148697509,
                0.139066674,
                -0.853605316,
                -1.666346161,
            ],
            to_filter: &[2.429748277, 1.169831017, -0.081686892, -1.139422717],
        },
    ]
}

fn simple(op: &'static str, padding: &str) -> Case {
    Case::new(op).attr("strides", [1i64; 4]).attr("padding", padding)
}

pub(in crate::nn) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = convolutions().iter().flat_map(Convolution::cases).collect();
    let zeros = |shape: [usize; 4]| Value::zeros(DType::Float32, shape).expect("a value");
    cases.extend([
        // No images, and a gradient of none.
        simple("Conv2D", "VALID")
            .input(zeros([0, 3, 3, 2]))
            .input(zeros([2, 2, 2, 4]))
            .expect(zeros([0, 2, 2, 4])),
        simple("Conv2DBackpropInput", "SAME")
            .input(sizes([0, 3, 3, 2]))
            .input(zeros([2, 2, 2, 4]))
            .input(zeros([0, 3, 3, 4]))
            .expect(zeros([0, 3, 3, 2])),
        simple("Conv2DBackpropFilter", "SAME")
            .input(zeros([0, 3, 3, 2]))
            .input(sizes([2, 2, 2, 4]))
            .input(zeros([0, 3, 3, 4]))
            .expect(zeros([2, 2, 2, 4])),
        // Channels first: a row of two pixels with channels (1, 3) and (2, 4).
        simple("Conv2D", "VALID")
            .attr("data_format", "NCHW")
            .input([[[[1.0f32, 2.0]], [[3.0, 4.0]]]])
            .input([[[[10.0f32, 1.0], [100.0, 2.0]]]])
            .expect([[[[310.0f32, 420.0]], [[7.0, 10.0]]]]),
        simple("Conv2DBackpropInput", "VALID")
            .attr("data_format", "NCHW")
            .input([1i32, 2, 1, 2])
            .input([[[[10.0f32, 1.0], [100.0, 2.0]]]])
            .input([[[[1.0f32, 2.0]], [[3.0, 4.0]]]])
            .expect([[[[13.0f32, 24.0]], [[106.0, 208.0]]]]),
        simple("Conv2DBackpropFilter", "VALID")
            .attr("data_format", "NCHW")
            .input([[[[1.0f32, 2.0]], [[3.0, 4.0]]]])
            .input([1i32, 1, 2, 2])
            .input([[[[1.0f32, 2.0]], [[3.0, 4.0]]]])
            .expect([[[[5.0f32, 11.0], [11.0, 25.0]]]]),
    ]);
    for dtype in [DType::Float32, DType::Half, DType::BFloat16] {
        let cast = |value: Value| value.cast_exactly(dtype).expect("small numbers");
        let image = || cast([[[[1.0f32], [2.0]], [[3.0], [4.0]]]].into());
        let filter = || cast([[[[1.0f32]], [[-2.0]]]].into());
        cases.extend([
            simple("Conv2D", "SAME")
                .input(image())
                .input(filter())
                .expect(cast([[[[-3.0f32], [2.0]], [[-5.0], [4.0]]]].into())),
            simple("Conv2DBackpropInput", "SAME")
                .input([1i32, 2, 2, 1])
                .input(filter())
                .input(image())
                .expect(cast([[[[1.0f32], [0.0]], [[3.0], [-2.0]]]].into())),
            simple("Conv2DBackpropFilter", "SAME")
                .input(image())
                .input([1i32, 2, 1, 1])
                .input(image())
                .expect(cast([[[[30.0f32]], [[14.0]]]].into())),
        ]);
    }
    cases
}

pub(in crate::nn) fn gradient_cases() -> Vec<GradientCase> {
    convolutions().iter().flat_map(Convolution::gradient_cases).collect()
}

fn class_of(case: Case) -> &'static str {
    case.run().expect_err("an error").class()
}

#[test]
fn what_does_not_fit_is_an_error() {
    let zeros = |shape: [usize; 4]| Value::zeros(DType::Float32, shape).expect("a value");
    let large = simple("Conv2D", "VALID")
        .input(zeros([1, 2, 2, 1]))
        .input(zeros([3, 3, 1, 1]));
    assert_eq!(class_of(large), "InvalidArgument");
    let channels = simple("Conv2D", "VALID")
        .input(zeros([1, 2, 2, 3]))
        .input(zeros([1, 1, 2, 1]));
    assert_eq!(class_of(channels), "InvalidArgument");
    let groups = simple("Conv2D", "VALID")
        .input(zeros([1, 2, 2, 4]))
        .input(zeros([1, 1, 2, 1]));
    assert_eq!(class_of(groups), "Unimplemented");
    let gradient = simple("Conv2DBackpropInput", "VALID")
        .input([1i32, 3, 3, 1])
        .input(zeros([2, 2, 1, 1]))
        .input(zeros([1, 3, 3, 1]));
    assert_eq!(class_of(gradient), "InvalidArgument");
    for strides in [[2i64, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 2]] {
        let strided = simple("Conv2D", "VALID").attr("strides", strides);
        assert_eq!(
            class_of(strided.input(zeros([1, 2, 2, 1])).input(zeros([1, 1, 1, 1]))),
            "InvalidArgument"
        );
    }
    for paddings in [
        vec![1i64, 0, 0, 0, 0, 0, 0, 0],
        vec![0, 0, -1, 0, 0, 0, 0, 0],
        vec![0, 0],
    ] {
        let padded = simple("Conv2D", "EXPLICIT").attr("explicit_paddings", paddings);
        assert_eq!(
            class_of(padded.input(zeros([1, 2, 2, 1])).input(zeros([1, 1, 1, 1]))),
            "InvalidArgument"
        );
    }
}

#[test]
fn shapes_are_inferred_as_far_as_they_are_known() {
    use graph_core::graph::{Graph, OpBuilder};
    use graph_core::{PartialShape, Result};
    let infer = |filter: [usize; 4], format: &str| -> Result<PartialShape> {
        crate::install();
        let graph = Graph::new();
        let _default = graph.as_default();
        let shape = if format == "NHWC" {
            [None, Some(28), Some(28), Some(1)]
        } else {
            [None, Some(1), Some(28), Some(28)]
        };
        let images = OpBuilder::new("Placeholder").attr("dtype", DType::Float32);
        let images = images.attr("shape", PartialShape::from(shape)).build()?;
        let filter = Value::zeros(DType::Float32, filter)?;
        let convolved = super::conv2d(&images, filter)
            .strides([1, 1, 1, 1])
            .padding("VALID")
            .data_format(format);
        Ok(convolved.build()?.shape())
    };
    assert_eq!(
        infer([5, 5, 1, 20], "NHWC").unwrap(),
        [None, Some(24), Some(24), Some(20)].into()
    );
    assert_eq!(
        infer([5, 3, 1, 20], "NCHW").unwrap(),
        [None, Some(20), Some(24), Some(26)].into()
    );
    assert!(infer([29, 5, 1, 20], "NHWC").is_err());
    assert!(infer([5, 5, 2, 20], "NHWC").is_err());
}
