//! `ScaleAndTranslate` and `ScaleAndTranslateGrad`: pictures resampled by one of several kernels.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, PartialShape, Result, typed_builder};

use super::resize::{PICTURES, Pixel, original_shape, picture_kernels, size_of_input};

fn with_attrs(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("kernel_type: string = 'lanczos3'")
        .attr("antialias: bool = true")
        .may_fail()
}

/// `ScaleAndTranslate`
pub(crate) fn translate_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "ScaleAndTranslate",
        "Pictures scaled and moved, each pixel a weighted mean of those around its place.",
    )
    .input("images: T")
    .input("size: int32")
    .input("scale: float")
    .input("translation: float")
    .output("resized_images: float")
    .attr(PICTURES);
    let definition = with_attrs(definition)
        .plan_time_inputs(&[1])
        .shape(|context| {
            let images = context.with_rank(0, 4)?;
            two_numbers(context)?;
            let [rows, columns] = size_of_input(context, 1, 1)?;
            context.set_output(0, PartialShape::from([images.dim(0), rows, columns, images.dim(3)]));
            Ok(())
        })
        .gradient(gradient);
    picture_kernels!(definition, kernel)
}

/// `ScaleAndTranslateGrad`
pub(crate) fn grad_op() -> OpDefinition {
    let definition = OpDefinition::new("ScaleAndTranslateGrad", "The gradient of ScaleAndTranslate.")
        .input("grads: T")
        .input("original_image: T")
        .input("scale: float")
        .input("translation: float")
        .output("output: T")
        .attr("T: {float}");
    with_attrs(definition)
        .shape(|context| {
            two_numbers(context)?;
            original_shape(context)
        })
        .no_gradient()
        .kernel(KernelDefinition::cpu(grad_kernel).types("T", &[DType::Float32]))
}

/// Checks scale and translation: two numbers each.
fn two_numbers(context: &InferenceContext<'_>) -> Result<()> {
    for index in [2, 3] {
        let numbers = context.with_rank(index, 1)?;
        context.merge_dims(Some(2), numbers.dim(0), "two and the elements of scale and translation")?;
    }
    Ok(())
}

/// The weight of a pixel by its distance.
#[derive(Clone, Copy, Debug)]
enum Sampling {
    Lanczos(f32),
    Gaussian,
    Box,
    Triangle,
    KeysCubic,
    MitchellCubic,
}

impl Sampling {
    fn of(request: &KernelRequest<'_>) -> Result<Self> {
        let name: String = request.attr("kernel_type")?;
        Ok(match name.as_str() {
            "lanczos1" => Self::Lanczos(1.0),
            "lanczos3" => Self::Lanczos(3.0),
            "lanczos5" => Self::Lanczos(5.0),
            "gaussian" => Self::Gaussian,
            "box" => Self::Box,
            "triangle" => Self::Triangle,
            "keyscubic" => Self::KeysCubic,
            "mitchellcubic" => Self::MitchellCubic,
            _ => {
                return Err(Error::invalid_argument("Unrecognized kernel type")
                    .expected("lanczos1, lanczos3, lanczos5, gaussian, box, triangle, keyscubic or mitchellcubic")
                    .got(name));
            }
        })
    }

    /// From here on the weight is zero.
    fn radius(self) -> f32 {
        match self {
            Self::Lanczos(radius) => radius,
            Self::Gaussian => 1.5,
            Self::Box | Self::Triangle => 1.0,
            Self::KeysCubic | Self::MitchellCubic => 2.0,
        }
    }

    fn weight(self, distance: f32) -> f32 {
        let x = distance.abs();
        match self {
            Self::Lanczos(radius) => {
                use std::f32::consts::PI;
                if x > radius {
                    0.0
                } else if x <= 1e-3 {
                    1.0
                } else {
                    radius * (PI * x).sin() * (PI * x / radius).sin() / (PI * PI * x * x)
                }
            }
            Self::Gaussian if x >= self.radius() => 0.0,
            Self::Gaussian => {
                let deviation = self.radius() / 3.0;
                (-x * x / (2.0 * deviation * deviation)).exp()
            }
            Self::Box if x == 0.5 => 0.5,
            Self::Box => f32::from(u8::from(x < 0.5)),
            Self::Triangle => (1.0 - x).max(0.0),
            Self::KeysCubic if x >= 2.0 => 0.0,
            Self::KeysCubic if x >= 1.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::KeysCubic => (1.5 * x - 2.5) * x * x + 1.0,
            Self::MitchellCubic if x >= 2.0 => 0.0,
            Self::MitchellCubic if x >= 1.0 => ((-7.0 / 18.0 * x + 2.0) * x - 10.0 / 3.0) * x + 16.0 / 9.0,
            Self::MitchellCubic => (7.0 / 6.0 * x - 2.0) * x * x + 8.0 / 9.0,
        }
    }

    /// For each place of a result the first pixel that counts, and the weights from it on.
    fn spans(self, input: usize, output: usize, scale: f32, translation: f32, antialias: bool) -> Result<Vec<Span>> {
        if scale.is_nan() || scale <= 0.0 {
            return Err(Error::invalid_argument("scale must be greater than zero.").got(scale));
        }
        let inverse = scale.recip();
        let stretch = if antialias { inverse.max(1.0) } else { 1.0 };
        let reach = self.radius() * stretch;
        let last = input as f32 - 1.0;
        Ok((0..output)
            .map(|index| {
                let place = (index as f32 + 0.5) * inverse - inverse * translation;
                if place.is_nan() || place < 0.0 || place > input as f32 {
                    return Span::default();
                }
                let first = (place - reach - 0.5).ceil().clamp(0.0, last) as usize;
                let end = (place + reach - 0.5).floor().clamp(0.0, last) as usize + 1;
                let mut weights: Vec<f32> = (first..end)
                    .map(|pixel| self.weight((pixel as f32 + 0.5 - place) / stretch))
                    .collect();
                let total: f32 = weights.iter().sum();
                if total.abs() >= 1000.0 * f32::MIN_POSITIVE {
                    weights.iter_mut().for_each(|weight| *weight /= total);
                }
                Span { first, weights }
            })
            .collect())
    }
}

#[derive(Clone, Default, Debug)]
struct Span {
    first: usize,
    weights: Vec<f32>,
}

/// Pictures and what they are resampled to.
#[derive(Clone, Copy)]
struct Resampling {
    sampling: Sampling,
    antialias: bool,
    pictures: [usize; 4],
    results: [usize; 4],
}

impl Resampling {
    fn new(request: &KernelRequest<'_>, pictures: &[usize], results: &[usize]) -> Result<Self> {
        let (Ok(pictures), Ok(results)) = (pictures.try_into(), results.try_into()) else {
            return Err(Error::invalid_argument("pictures must have four axes").got(format!("{pictures:?}")));
        };
        let resampling = Self {
            sampling: Sampling::of(request)?,
            antialias: request.attr("antialias")?,
            pictures,
            results,
        };
        if pictures[1] == 0 || pictures[2] == 0 {
            return Err(Error::invalid_argument("input image must be of non-zero size").got(format!("{pictures:?}")));
        }
        Ok(resampling)
    }

    /// Calls `f` with each pixel of the results, each pixel of the pictures that counts in it, and its weight.
    fn each_pair(&self, context: &KernelContext<'_>, mut f: impl FnMut(usize, usize, f32)) -> Result<()> {
        let (scale, translation) = (context.input::<f32>(2)?, context.input::<f32>(3)?);
        let spans = |axis: usize| {
            let (input, output) = (self.pictures[1 + axis], self.results[1 + axis]);
            self.sampling
                .spans(input, output, scale[axis], translation[axis], self.antialias)
        };
        let (rows, columns) = (spans(0)?, spans(1)?);
        let ([batch, height, width, _], mut result) = (self.pictures, 0);
        for picture in 0..batch {
            for y in &rows {
                for x in &columns {
                    for (row, row_weight) in (y.first..).zip(&y.weights) {
                        for (column, weight) in (x.first..).zip(&x.weights) {
                            f(result, (picture * height + row) * width + column, row_weight * weight);
                        }
                    }
                    result += 1;
                }
            }
        }
        Ok(())
    }
}

fn kernel<T: Pixel>(request: &KernelRequest<'_>) -> Result<Planned> {
    let resampling = Resampling::new(request, request.input_shape(0), request.output_shape(0)?)?;
    let channels = resampling.pictures[3];
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (pictures, out) = (context.input::<T>(0)?, context.output::<f32>(0)?);
        out.fill(0.0);
        resampling.each_pair(context, |to, from, weight| {
            let from = &pictures[from * channels..][..channels];
            let out = out[to * channels..][..channels].iter_mut();
            out.zip(from).for_each(|(out, x)| *out += x.single() * weight);
        })
    }))
}

fn grad_kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let resampling = Resampling::new(request, request.output_shape(0)?, request.input_shape(0))?;
    let channels = resampling.pictures[3];
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (gradient, out) = (context.input::<f32>(0)?, context.output::<f32>(0)?);
        out.fill(0.0);
        resampling.each_pair(context, |from, to, weight| {
            let from = &gradient[from * channels..][..channels];
            let out = out[to * channels..][..channels].iter_mut();
            out.zip(from).for_each(|(out, x)| *out += x * weight);
        })
    }))
}

fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let images = context.input(0);
    if images.dtype() != DType::Float32 {
        return Ok(vec![None; 4]);
    }
    let node = context
        .node("ScaleAndTranslateGrad")
        .input(context.gradient(0)?)
        .input(&images);
    let node = node.input(context.input(2)).input(context.input(3));
    let node = node.attr("kernel_type", context.attr_value("kernel_type")?);
    let gradient = node.attr("antialias", context.attr_value("antialias")?).build()?;
    Ok(vec![Some(gradient), None, None, None])
}

typed_builder! {
    /// Pictures scaled and moved about to be made; see [`scale_and_translate`].
    pub struct ScaleAndTranslate;
}

impl ScaleAndTranslate {
    /// How pixels are weighted by their distance: `"lanczos3"` (without this), `"lanczos1"`, `"lanczos5"`, `"gaussian"`,
    /// `"box"`, `"triangle"`, `"keyscubic"` or `"mitchellcubic"`.
    pub fn kernel_type(self, kernel: &str) -> Self {
        Self(self.0.attr("kernel_type", kernel))
    }

    /// Whether more pixels count where pictures become smaller; true without.
    pub fn antialias(self, antialias: bool) -> Self {
        Self(self.0.attr("antialias", antialias))
    }
}

/// Pictures of shape [batch, rows, columns, channels] on a canvas of `size` (two `int32`), as `float`: a pixel at `p` comes to
/// `p * scale + translation` (two `float` each, for rows and columns).
#[track_caller]
pub fn scale_and_translate(
    images: impl IntoOperand,
    size: impl IntoOperand,
    scale: impl IntoOperand,
    translation: impl IntoOperand,
) -> ScaleAndTranslate {
    let node = crate::op("ScaleAndTranslate").input(images).input(size);
    ScaleAndTranslate(node.input(scale).input(translation))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let case = |kernel: &str, antialias: bool| {
        Case::new("ScaleAndTranslate")
            .attr("kernel_type", kernel)
            .attr("antialias", antialias)
            .input([[[[1.0f32], [2.0], [4.0], [8.0]]]])
            .input([1i32, 3])
            .input([1.0f32, 0.6])
            .input([0.0f32, 0.3])
    };
    let mut cases: Vec<Case> = SAMPLED
        .iter()
        .map(|&(kernel, antialias, expected)| {
            case(kernel, antialias)
                .expect([[expected.map(|x| [x])]])
                .tolerance(1e-5, 1e-6)
        })
        .collect();
    cases.push(
        Case::new("ScaleAndTranslateGrad")
            .attr("kernel_type", "triangle")
            .input([[[[1.0f32], [2.0]]]])
            .input([[[[0.0f32], [0.0], [0.0], [0.0]]]])
            .input([1.0f32, 0.5])
            .input([0.0f32, 0.0])
            .expect([[[[GRADIENT[0]], [GRADIENT[1]], [GRADIENT[2]], [GRADIENT[3]]]]]),
    );
    cases
}

/// What TensorFlow gives.
#[cfg(test)]
const SAMPLED: [(&str, bool, [f32; 3]); 15] = [
    ("lanczos1", true, [1.1227143, 3.0239282, 7.509143]),
    ("lanczos1", false, [1.0, 3.0, 7.9999995]),
    ("lanczos3", true, [0.7763276, 3.15, 7.719619]),
    ("lanczos3", false, [0.9649129, 2.5714283, 8.311394]),
    ("lanczos5", true, [0.59317243, 3.1623397, 7.92729]),
    ("lanczos5", false, [0.8512019, 2.3846645, 8.399552]),
    ("gaussian", true, [1.343601, 3.2873178, 6.772609]),
    ("gaussian", false, [1.0649691, 3.0, 7.7401233]),
    ("box", true, [1.0, 3.0, 8.0]),
    ("triangle", true, [1.25, 3.1875, 7.0]),
    ("triangle", false, [1.0, 3.0, 8.0]),
    ("keyscubic", true, [1.0315671, 3.1162329, 7.4229803]),
    ("keyscubic", false, [0.9342105, 2.8125, 8.263159]),
    ("mitchellcubic", true, [1.1732738, 3.20829, 7.09621]),
    ("mitchellcubic", false, [0.99227434, 2.8958337, 8.030902]),
];

/// What TensorFlow gives.
#[cfg(test)]
const GRADIENT: [f32; 4] = [0.42857146, 0.71428573, 1.0000001, 0.8571429];

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    vec![
        GradientCase::new("ScaleAndTranslate")
            .input([[[[1.0f32], [2.0], [4.0]], [[3.0], [-1.0], [0.5]]]])
            .input([3i32, 2])
            .input([1.4f32, 0.6])
            .input([0.2f32, 0.1])
            .with_respect_to(&[0])
            .first_order_only()
            .tolerance(1e-2, 1e-3, 1e-1),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn bad_scales_and_kernels_are_errors() {
        let run = |kernel: &str, scale: [f32; 2]| {
            let case = Case::new("ScaleAndTranslate")
                .attr("kernel_type", kernel)
                .input([[[[1.0f32]]]]);
            case.input([1i32, 1]).input(scale).input([0.0f32, 0.0]).run()
        };
        assert!(run("box", [1.0, 1.0]).is_ok());
        assert!(
            run("sinc", [1.0, 1.0]).is_err() && run("box", [0.0, 1.0]).is_err() && run("box", [1.0, f32::NAN]).is_err()
        );
    }
}
