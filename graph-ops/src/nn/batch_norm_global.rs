//! `BatchNormWithGlobalNormalization`, the first form of batch normalization, and its gradient.

use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, Shape, typed_builder};
use graph_cuda::{Source, source};
use half::{bf16, f16};
use num_traits::{Float, NumCast};

use super::volumes::{narrow, widened};
use crate::cpu::element::Real;
use crate::cuda::elementwise::constant;
use crate::cuda::launch::{Launch, Work, in_turn};
use crate::cuda::{FLOATS, type_name};

/// Kernels for the floating-point dtypes, the only ones that the formula makes sense for.
macro_rules! kernels {
    ($definition:expr, $kernel:ident) => {
        $definition
            .kernel(KernelDefinition::cpu($kernel::<f32>).types("T", &[DType::Float32]))
            .kernel(KernelDefinition::cpu($kernel::<f64>).types("T", &[DType::Float64]))
            .kernel(KernelDefinition::cpu($kernel::<f16>).types("T", &[DType::Half]))
            .kernel(KernelDefinition::cpu($kernel::<bf16>).types("T", &[DType::BFloat16]))
    };
}

fn with_attrs(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("T: numbertype")
        .attr("variance_epsilon: float")
        .attr("scale_after_normalization: bool")
}

/// `BatchNormWithGlobalNormalization`
pub(super) fn forward() -> OpDefinition {
    let definition = OpDefinition::new(
        "BatchNormWithGlobalNormalization",
        "(t - m) / sqrt(v + epsilon), times gamma if it is scaled, plus beta; replaced by FusedBatchNorm.",
    )
    .input("t: T")
    .input("m: T")
    .input("v: T")
    .input("beta: T")
    .input("gamma: T")
    .output("result: T");
    let definition = with_attrs(definition)
        .shape(|context| {
            let (shape, _) = normalized_shape(context, 1..5)?;
            context.set_output(0, shape);
            Ok(())
        })
        .gradient(|context| {
            let node = context.node("BatchNormWithGlobalNormalizationGrad");
            let node = [0, 1, 2, 4]
                .into_iter()
                .fold(node, |node, index| node.input(context.input(index)));
            let outputs = node
                .input(context.gradient(0)?)
                .attr("variance_epsilon", context.attr_value("variance_epsilon")?)
                .attr(
                    "scale_after_normalization",
                    context.attr_value("scale_after_normalization")?,
                )
                .build_all()?;
            Ok(outputs.into_iter().map(Some).collect())
        });
    kernels!(definition, forward_kernel).kernel(
        KernelDefinition::cuda(|request| {
            let normalize = launch(
                request,
                "normalize",
                Work::Elements(request.input_shape(0).num_elements()),
            )?;
            Ok(normalize.over(&[0, 1, 2, 3, 4]))
        })
        .types("T", FLOATS),
    )
}

/// `BatchNormWithGlobalNormalizationGrad`
pub(super) fn backward() -> OpDefinition {
    let definition = OpDefinition::new(
        "BatchNormWithGlobalNormalizationGrad",
        "The gradients of BatchNormWithGlobalNormalization with respect to its five operands.",
    )
    .input("t: T")
    .input("m: T")
    .input("v: T")
    .input("gamma: T")
    .input("backprop: T")
    .output("dx: T")
    .output("dm: T")
    .output("dv: T")
    .output("db: T")
    .output("dg: T");
    let definition = with_attrs(definition)
        .shape(|context| {
            let (shape, vector) = normalized_shape(context, 1..4)?;
            let shape = shape.merge(&context.with_rank(4, 4)?)?;
            context.set_output(0, shape);
            (1..5).for_each(|output| context.set_output(output, &vector));
            Ok(())
        })
        .no_gradient();
    kernels!(definition, backward_kernel).kernel(
        KernelDefinition::cuda(|request| {
            super::windows::require_shape("backprop", request.input_shape(4), request.input_shape(0))?;
            let (images, vectors) = (
                request.input_shape(0).num_elements(),
                request.input_shape(1).num_elements(),
            );
            let size = request.input_dtype(0).size().unwrap_or(0);
            let launches = vec![
                launch(request, "normalize_back", Work::Elements(images))?.moving((2 * images + 2 * vectors) * size),
                launch(request, "vectors_back", Work::Blocks(vectors))?
                    .moving((2 * images + 7 * vectors) * size)
                    .doing(4 * images),
            ];
            Ok(in_turn(launches, &[0, 1, 2, 3, 4]))
        })
        .types("T", FLOATS),
    )
}

/// A kernel of `batch_norm_global.cu`.
fn launch(request: &KernelRequest<'_>, name: &str, work: Work) -> Result<Launch> {
    const SOURCE: Source = source!("batch_norm_global.cu");
    let epsilon = constant(request.attr::<f32>("variance_epsilon")?.into());
    let defines = [("T", type_name(request.input_dtype(0))?), ("EPSILON", epsilon.as_str())];
    let images = request.input_shape(0);
    let scaled: bool = request.attr("scale_after_normalization")?;
    let numbers = [
        images.num_elements(),
        images.last().copied().unwrap_or(0),
        scaled.into(),
    ];
    Launch::new(request, &SOURCE, name, &defines, work, &numbers)
}

/// The shapes of the images and of the vectors, one element a channel.
fn normalized_shape(
    context: &InferenceContext<'_>,
    vectors: std::ops::Range<usize>,
) -> Result<(PartialShape, PartialShape)> {
    let images = context.with_rank(0, 4)?;
    let mut channels = images.dim(3);
    for vector in vectors {
        let own = context.with_rank(vector, 1)?.dim(0);
        channels = context.merge_dims(channels, own, "the channels and the elements of the vectors")?;
    }
    let shape = PartialShape::from([images.dim(0), images.dim(1), images.dim(2), channels]);
    Ok((shape, PartialShape::from([channels])))
}

/// The number of channels, epsilon, and whether the result is scaled.
fn options<T: Real>(request: &KernelRequest<'_>) -> Result<(usize, T::Wide, bool)> {
    let images: &Shape = request.input_shape(0);
    let channels = images.last().copied().unwrap_or(0);
    let epsilon: f32 = request.attr("variance_epsilon")?;
    let epsilon = NumCast::from(epsilon).ok_or_else(|| Error::invalid_argument("epsilon is no number"))?;
    Ok((channels, epsilon, request.attr("scale_after_normalization")?))
}

fn forward_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (channels, epsilon, scaled) = options::<T>(request)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (images, out) = (context.input::<T>(0)?, context.output::<T>(0)?);
        let of = |index: usize| context.input::<T>(index).map(widened);
        let (mean, variance, beta, gamma) = (of(1)?, of(2)?, of(3)?, of(4)?);
        let factors: Vec<T::Wide> = variance
            .iter()
            .zip(&gamma)
            .map(|(&variance, &gamma)| {
                let factor = (variance + epsilon).sqrt().recip();
                if scaled { factor * gamma } else { factor }
            })
            .collect();
        let pixels = images
            .chunks_exact(channels.max(1))
            .zip(out.chunks_exact_mut(channels.max(1)));
        for (pixel, out) in pixels {
            for (c, out) in out.iter_mut().enumerate() {
                *out = T::narrow((pixel[c].widen() - mean[c]) * factors[c] + beta[c]);
            }
        }
        Ok(())
    }))
}

fn backward_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (channels, epsilon, scaled) = options::<T>(request)?;
    super::windows::require_shape("backprop", request.input_shape(4), request.input_shape(0))?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (images, gradient) = (context.input::<T>(0)?, context.input::<T>(4)?);
        let of = |index: usize| context.input::<T>(index).map(widened);
        let (mean, variance, gamma) = (of(1)?, of(2)?, of(3)?);
        let zero = T::Wide::default();
        // The sums over pixels of the gradient, and of the gradient times the centred image.
        let (mut sums, mut products) = (vec![zero; channels], vec![zero; channels]);
        let pixels = || {
            images
                .chunks_exact(channels.max(1))
                .zip(gradient.chunks_exact(channels.max(1)))
        };
        for (pixel, gradient) in pixels() {
            for c in 0..channels {
                let gradient = gradient[c].widen();
                sums[c] += gradient;
                products[c] += gradient * (pixel[c].widen() - mean[c]);
            }
        }
        let inverse: Vec<T::Wide> = variance.iter().map(|&v| (v + epsilon).sqrt().recip()).collect();
        let factors: Vec<T::Wide> = inverse
            .iter()
            .zip(&gamma)
            .map(|(&inverse, &gamma)| if scaled { inverse * gamma } else { inverse })
            .collect();
        let out = context.output::<T>(0)?.chunks_exact_mut(channels.max(1));
        for (out, (_, gradient)) in out.zip(pixels()) {
            for c in 0..channels {
                out[c] = T::narrow(gradient[c].widen() * factors[c]);
            }
        }
        let half: T::Wide = NumCast::from(0.5).unwrap_or(zero);
        let vector = |output: usize, value: &dyn Fn(usize) -> T::Wide| -> Result<()> {
            let wide: Vec<T::Wide> = (0..channels).map(value).collect();
            narrow(&wide, context.output::<T>(output)?);
            Ok(())
        };
        vector(1, &|c| -sums[c] * factors[c])?;
        vector(2, &|c| -half * products[c] * factors[c] * inverse[c] * inverse[c])?;
        vector(3, &|c| sums[c])?;
        vector(4, &|c| if scaled { products[c] * inverse[c] } else { zero })
    }))
}

typed_builder! {
    /// A batch normalization about to be made; see [`batch_norm_with_global_normalization`].
    pub struct GlobalBatchNorm;
}

/// `(t - mean) / sqrt(variance + variance_epsilon)`, times `gamma` if `scale_after_normalization`, plus `beta`: images of
/// shape [batch, rows, columns, channels], and vectors with an element a channel. TensorFlow runs this op only in graphs
/// written before its version 9; new graphs use `fused_batch_norm`.
#[track_caller]
pub fn batch_norm_with_global_normalization(
    t: impl IntoOperand,
    [mean, variance]: [&Tensor; 2],
    [beta, gamma]: [&Tensor; 2],
    variance_epsilon: f32,
    scale_after_normalization: bool,
) -> GlobalBatchNorm {
    let node = crate::op("BatchNormWithGlobalNormalization").input(t);
    let node = [mean, variance, beta, gamma]
        .into_iter()
        .fold(node, |node, vector| node.input(vector));
    GlobalBatchNorm(
        node.attr("variance_epsilon", variance_epsilon)
            .attr("scale_after_normalization", scale_after_normalization),
    )
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let case = |op: &'static str, scaled: bool| {
        Case::new(op)
            .attr("variance_epsilon", 0.25f32)
            .attr("scale_after_normalization", scaled)
            .input([[[[1.0f64, 2.0], [3.0, 6.0]]]])
            .input([1.0f64, 4.0])
            .input([3.75f64, 0.0])
    };
    let forward = |scaled| {
        case("BatchNormWithGlobalNormalization", scaled)
            .input([0.5f64, -1.0])
            .input([2.0f64, 3.0])
    };
    let backward = |scaled| {
        case("BatchNormWithGlobalNormalizationGrad", scaled)
            .input([2.0f64, 3.0])
            .input([[[[1.0f64, 2.0], [4.0, 8.0]]]])
    };
    vec![
        forward(true).expect([[[[0.5f64, -13.0], [2.5, 11.0]]]]),
        forward(false).expect([[[[0.5f64, -5.0], [1.5, 3.0]]]]),
        backward(true)
            .expect([[[[1.0f64, 12.0], [4.0, 48.0]]]])
            .expect([-5.0f64, -60.0])
            .expect([-1.0f64, -144.0])
            .expect([5.0f64, 10.0])
            .expect([4.0f64, 24.0]),
        backward(false)
            .expect([[[[0.5f64, 4.0], [2.0, 16.0]]]])
            .expect([-2.5f64, -20.0])
            .expect([-0.5f64, -48.0])
            .expect([5.0f64, 10.0])
            .expect([0.0f64, 0.0]),
    ]
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let case = |scaled: bool| {
        GradientCase::new("BatchNormWithGlobalNormalization")
            .attr("variance_epsilon", 0.25f32)
            .attr("scale_after_normalization", scaled)
            .input([[[[1.0f64, 2.0], [3.0, 6.0]], [[0.3, -1.0], [0.7, 0.2]]]])
            .input([1.0f64, 4.0])
            .input([3.75f64, 0.5])
            .input([0.5f64, -1.0])
            .input([2.0f64, 3.0])
            .first_order_only()
    };
    vec![case(true), case(false)]
}
