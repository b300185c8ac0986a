//! Fused batch normalization: `FusedBatchNorm`, `FusedBatchNormV2`, `FusedBatchNormV3` and their gradients.

use graph_core::gradients::GradientContext;
use graph_core::graph::{Graph, IntoOperand, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::shape::Dim;
use graph_core::{DType, Element, Error, PartialShape, Result, Value};
use half::{bf16, f16};
use std::panic::Location;

use super::batch_norm_second;
use super::windows::Format;
use crate::cpu::batch_norm::{self, Channels};
use crate::cpu::element::Real;
use crate::cpu::scratch::Plain;
use crate::cuda;
use crate::math::nodes::Nodes;

const SUMMARY: &str = "(x - mean) / sqrt(variance + epsilon) * scale + offset for each channel, with the batch's own mean and \
    variance in training; Ioffe and Szegedy (2015).";
const GRAD_SUMMARY: &str = "The gradient of the fused batch normalization of the same version.";

/// The attributes after `T` and `U`.
fn with_attrs(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("epsilon: float = 0.0001")
        .attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'")
        .attr("is_training: bool = true")
}

fn with_kernels(definition: OpDefinition, half_types: bool, backwards: bool) -> OpDefinition {
    macro_rules! kernel {
        ($dtype:ty) => {
            KernelDefinition::cpu(if backwards {
                backward::<$dtype>
            } else {
                forward::<$dtype>
            })
            .types("T", &[<$dtype>::DTYPE])
            .types("U", &[DType::Float32])
        };
    }
    const DTYPES: [&[DType]; 2] = [&[DType::Float32], &[DType::Float32, DType::Half, DType::BFloat16]];
    let make = if backwards {
        backward_on_device
    } else {
        forward_on_device
    };
    let on_device = KernelDefinition::cuda(make)
        .types("T", DTYPES[usize::from(half_types)])
        .types("U", &[DType::Float32]);
    let definition = definition.kernel(kernel!(f32)).kernel(on_device);
    if half_types {
        definition.kernel(kernel!(f16)).kernel(kernel!(bf16))
    } else {
        definition
    }
}

/// `FusedBatchNorm`
pub(super) fn v1() -> OpDefinition {
    let definition = OpDefinition::new("FusedBatchNorm", SUMMARY)
        .input("x: T")
        .input("scale: T")
        .input("offset: T")
        .input("mean: T")
        .input("variance: T")
        .output("y: T")
        .output("batch_mean: T")
        .output("batch_variance: T")
        .output("reserve_space_1: T")
        .output("reserve_space_2: T")
        .attr("T: {float}");
    with_kernels(with_attrs(definition).shape(shape).gradient(gradient), false, false)
}

fn typed(name: &'static str) -> OpDefinition {
    OpDefinition::new(name, SUMMARY)
        .input("x: T")
        .input("scale: U")
        .input("offset: U")
        .input("mean: U")
        .input("variance: U")
        .output("y: T")
        .output("batch_mean: U")
        .output("batch_variance: U")
        .output("reserve_space_1: U")
        .output("reserve_space_2: U")
        .attr("T: {half, bfloat16, float}")
        .attr("U: {float}")
        .shape(shape)
        .gradient(gradient)
}

/// `FusedBatchNormV2`
pub(super) fn v2() -> OpDefinition {
    with_kernels(with_attrs(typed("FusedBatchNormV2")), true, false)
}

/// `FusedBatchNormV3`
pub(super) fn v3() -> OpDefinition {
    let definition = typed("FusedBatchNormV3").output("reserve_space_3: U");
    with_kernels(with_attrs(definition), true, false)
}

/// `FusedBatchNormGrad`
pub(super) fn grad_v1() -> OpDefinition {
    let definition = OpDefinition::new("FusedBatchNormGrad", GRAD_SUMMARY)
        .input("y_backprop: T")
        .input("x: T")
        .input("scale: T")
        .input("reserve_space_1: T")
        .input("reserve_space_2: T")
        .output("x_backprop: T")
        .output("scale_backprop: T")
        .output("offset_backprop: T")
        .output("reserve_space_3: T")
        .output("reserve_space_4: T")
        .attr("T: {float}");
    let definition = with_attrs(definition).shape(grad_shape);
    with_kernels(definition.gradient(batch_norm_second::gradient), false, true)
}

fn typed_grad(name: &'static str, reserved: bool) -> OpDefinition {
    let definition = OpDefinition::new(name, GRAD_SUMMARY)
        .input("y_backprop: T")
        .input("x: T")
        .input("scale: float")
        .input("reserve_space_1: U")
        .input("reserve_space_2: U");
    let (definition, names) = if reserved {
        let definition = definition.input("reserve_space_3: U");
        (definition, ["reserve_space_4: U", "reserve_space_5: U"])
    } else {
        (definition, ["reserve_space_3: U", "reserve_space_4: U"])
    };
    let definition = definition
        .output("x_backprop: T")
        .output("scale_backprop: U")
        .output("offset_backprop: U")
        .output(names[0])
        .output(names[1])
        .attr("T: {half, bfloat16, float}")
        .attr("U: {float}")
        .shape(grad_shape)
        .gradient(batch_norm_second::gradient);
    with_kernels(with_attrs(definition), true, true)
}

/// `FusedBatchNormGradV2`
pub(super) fn grad_v2() -> OpDefinition {
    typed_grad("FusedBatchNormGradV2", false)
}

/// `FusedBatchNormGradV3`
pub(super) fn grad_v3() -> OpDefinition {
    typed_grad("FusedBatchNormGradV3", true)
}

/// The images' shape with their channels, merged with the lengths of the vectors among the inputs.
fn channels(
    context: &InferenceContext<'_>,
    images: PartialShape,
    vectors: std::ops::Range<usize>,
) -> Result<(PartialShape, Dim)> {
    let format = Format::of(context)?;
    let [batch, rows, columns, mut channels] = format.dims(&images);
    for index in vectors {
        let vector = context.with_rank(index, 1)?;
        channels = context.merge_dims(channels, vector.dim(0), "the channels and the lengths of the vectors")?;
    }
    Ok((format.shape([batch, rows, columns, channels]), channels))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let vectors = if context.attr("is_training")? { 1..3 } else { 1..5 };
    let (images, channels) = channels(context, context.with_rank(0, 4)?, vectors)?;
    context.set_output(0, images);
    for index in 1..5 {
        context.set_output(index, [channels]);
    }
    if context.num_outputs() > 5 {
        context.set_output(5, PartialShape::scalar());
    }
    Ok(())
}

fn grad_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let images = context.with_rank(0, 4)?.merge(&context.with_rank(1, 4)?)?;
    let (images, channels) = channels(context, images, 2..5)?;
    context.set_output(0, images);
    context.set_output(1, [channels]);
    context.set_output(2, [channels]);
    context.set_output(3, [0usize]);
    context.set_output(4, [0usize]);
    Ok(())
}

/// In training, no statistics may be given.
fn check_given(request: &KernelRequest<'_>, training: bool) -> Result<()> {
    if training && (3..5).any(|index| request.input_shape(index).num_elements() > 0) {
        return Err(
            Error::invalid_argument("in training, mean and variance are the batch's own").hint("give empty vectors"),
        );
    }
    Ok(())
}

fn forward_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (epsilon, training): (f32, bool) = (request.attr("epsilon")?, request.attr("is_training")?);
    check_given(request, training)?;
    let shape = request.input_shape(0);
    let sides = cuda::channels::Sides::of(shape, Format::of(request)?.channels(shape.rank()));
    let reserved = (request.num_outputs() > 5).then_some(5);
    cuda::batch_norm::forward(request, sides, epsilon, training, reserved)
}

fn backward_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (epsilon, training): (f32, bool) = (request.attr("epsilon")?, request.attr("is_training")?);
    let shape = request.input_shape(1);
    let sides = cuda::channels::Sides::of(shape, Format::of(request)?.channels(shape.rank()));
    cuda::batch_norm::backward(request, sides, epsilon, training)
}

fn forward<T: Real<Wide = f32> + Element + Plain>(request: &KernelRequest<'_>) -> Result<Planned> {
    let format = Format::of(request)?;
    let (epsilon, training): (f32, bool) = (request.attr("epsilon")?, request.attr("is_training")?);
    let images = format.sizes(request.input_shape(0))?;
    check_given(request, training)?;
    Ok(Planned::new(move |context| {
        let x = context.input::<T>(0)?;
        let (scale, offset) = (context.input::<f32>(1)?, context.input::<f32>(2)?);
        let (mean, variance) = (context.output::<f32>(1)?, context.output::<f32>(2)?);
        let (saved_mean, saved_variance) = (context.output::<f32>(3)?, context.output::<f32>(4)?);
        let y = context.output::<T>(0)?;
        let given = if training {
            None
        } else {
            Some((context.input::<f32>(3)?, context.input::<f32>(4)?))
        };
        format.read(images, x, |x| {
            match given {
                Some((given_mean, given_variance)) => {
                    mean.copy_from_slice(given_mean);
                    variance.copy_from_slice(given_variance);
                    saved_mean.copy_from_slice(given_mean);
                    saved_variance.copy_from_slice(given_variance);
                }
                None => {
                    batch_norm::moments(x, saved_mean, saved_variance);
                    mean.copy_from_slice(saved_mean);
                    let pixels = (x.len() / scale.len().max(1)) as f32;
                    let unbiased = pixels / (pixels - 1.0).max(1.0);
                    variance
                        .iter_mut()
                        .zip(&*saved_variance)
                        .for_each(|(v, s)| *v = s * unbiased);
                }
            }
            let channels = Channels {
                scale,
                mean: saved_mean,
                variance: saved_variance,
                epsilon,
            };
            format.write(images, y, |y| batch_norm::normalize(channels, offset, x, y));
        });
        fill_zero(context, 5)
    }))
}

/// Sets an output that means nothing, if there is one.
fn fill_zero(context: &KernelContext<'_>, index: usize) -> Result<()> {
    if index < context.num_outputs() {
        context.output::<f32>(index)?.fill(0.0);
    }
    Ok(())
}

fn backward<T: Real<Wide = f32> + Element + Plain>(request: &KernelRequest<'_>) -> Result<Planned> {
    let format = Format::of(request)?;
    let (epsilon, training): (f32, bool) = (request.attr("epsilon")?, request.attr("is_training")?);
    let images = format.sizes(request.input_shape(1))?;
    Ok(Planned::new(move |context| {
        let (gradient, x) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let channels = Channels {
            scale: context.input(2)?,
            mean: context.input(3)?,
            variance: context.input(4)?,
            epsilon,
        };
        let to_x = context.output::<T>(0)?;
        let (to_scale, to_offset) = (context.output::<f32>(1)?, context.output::<f32>(2)?);
        format.read(images, gradient, |gradient| {
            format.read(images, x, |x| {
                format.write(images, to_x, |to_x| {
                    batch_norm::gradients(channels, training, gradient, x, to_x, to_scale, to_offset);
                });
            });
        });
        Ok(())
    }))
}

fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let version = context.op().op_type();
    let training: bool = context.attr("is_training")?;
    let swap = !training && context.attr::<String>("data_format")? == "NCHW";
    let nodes = Nodes::of(context);
    let transpose = |tensor: Tensor, permutation: [i32; 4]| {
        let builder = nodes.node("Transpose").input(&tensor).input(permutation);
        builder.name("transpose").build()
    };
    let (mut x, mut y) = (context.input(0), context.gradient(0)?);
    if swap {
        x = transpose(x, [0, 2, 3, 1])?;
        y = transpose(y, [0, 2, 3, 1])?;
    }
    let reserved = if training {
        [context.output(3), context.output(4)]
    } else {
        [context.input(3), context.input(4)]
    };
    let op = match version {
        "FusedBatchNorm" => "FusedBatchNormGrad",
        "FusedBatchNormV2" => "FusedBatchNormGradV2",
        _ => "FusedBatchNormGradV3",
    };
    let mut builder = nodes
        .node(op)
        .input(&y)
        .input(&x)
        .input(context.input(1))
        .input(&reserved[0])
        .input(&reserved[1]);
    if op == "FusedBatchNormGradV3" {
        builder = builder.input(context.output(5));
    }
    let format = if training {
        context.attr_value("data_format")?
    } else {
        "NHWC".into()
    };
    let gradients = builder
        .attr("epsilon", context.attr_value("epsilon")?)
        .attr("data_format", format)
        .attr("is_training", training)
        .build_all()?;
    let mut to_x = gradients[0].clone();
    if swap {
        to_x = transpose(to_x, [0, 3, 1, 2])?;
    }
    Ok(vec![
        Some(to_x),
        Some(gradients[1].clone()),
        Some(gradients[2].clone()),
        None,
        None,
    ])
}

/// A fused batch normalization about to be made; see [`fused_batch_norm`].
#[must_use = "operations are made by `build`"]
pub struct FusedBatchNorm {
    operands: [Operand; 3],
    moments: Option<[Operand; 2]>,
    epsilon: f32,
    data_format: String,
    training: bool,
    name: Option<String>,
    location: &'static Location<'static>,
}

impl FusedBatchNorm {
    /// The mean and the variance of each channel, for use after training; see [`FusedBatchNorm::is_training`].
    pub fn moments(mut self, mean: impl IntoOperand, variance: impl IntoOperand) -> Self {
        self.moments = Some([mean.into_operand(), variance.into_operand()]);
        self
    }

    /// Added to the variance; 0.001 without, and at least 1.001e-5.
    pub fn epsilon(mut self, epsilon: f32) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// The order of the images' axes: `"NHWC"` (without this) or `"NCHW"`.
    pub fn data_format(mut self, format: &str) -> Self {
        self.data_format = format.to_owned();
        self
    }

    /// Whether the mean and the variance are the batch's own (without this) or those given.
    pub fn is_training(mut self, training: bool) -> Self {
        self.training = training;
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operation: the normalized images, the mean and the variance of the batch.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for shapes that do not fit, wrong dtypes, or moments in training.
    pub fn build(self) -> Result<[Tensor; 3]> {
        if self.training && self.moments.is_some() {
            return Err(
                Error::invalid_argument("in training, mean and variance are the batch's own")
                    .hint("give moments together with is_training(false)"),
            );
        }
        let graph = self.operands.iter().find_map(Operand::graph).cloned();
        let graph = graph.unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let [x, scale, offset] = &self.operands;
        let (x, scale, offset) = (
            nodes.tensor(x, "input")?,
            nodes.tensor(scale, "scale")?,
            nodes.tensor(offset, "offset")?,
        );
        let [mean, variance] = match &self.moments {
            Some(moments) => moments.clone(),
            None => {
                let empty = || nodes.constant(Value::zeros(DType::Float32, [0])?, "Const");
                [empty()?.into_operand(), empty()?.into_operand()]
            }
        };
        let builder = nodes
            .node("FusedBatchNormV3")
            .input(&x)
            .input(&scale)
            .input(&offset)
            .input(mean)
            .input(variance)
            .attr("epsilon", self.epsilon.max(1.001e-5))
            .attr("data_format", self.data_format.as_str())
            .attr("is_training", self.training);
        let outputs = builder
            .name(self.name.as_deref().unwrap_or("FusedBatchNormV3"))
            .build_all()?;
        let [y, mean, variance, ..] = outputs.as_slice() else {
            return Err(Error::internal("a batch normalization has at least three outputs"));
        };
        Ok([y.clone(), mean.clone(), variance.clone()])
    }
}

/// Normalizes each channel of images `x` of shape [batch, rows, columns, channels], `float`, `half` or `bfloat16`:
/// `(x - mean) / sqrt(variance + epsilon) * scale + offset`, the last four `float` vectors. From Ioffe, Szegedy, "Batch
/// Normalization" (2015). The variance it gives back is divided by the number of pixels less one.
#[track_caller]
pub fn fused_batch_norm(x: impl IntoOperand, scale: impl IntoOperand, offset: impl IntoOperand) -> FusedBatchNorm {
    crate::install();
    FusedBatchNorm {
        operands: [x.into_operand(), scale.into_operand(), offset.into_operand()],
        moments: None,
        epsilon: 0.001,
        data_format: "NHWC".to_owned(),
        training: true,
        name: None,
        location: Location::caller(),
    }
}

#[cfg(test)]
#[path = "batch_norm_tests.rs"]
mod tests;
#[cfg(test)]
pub(super) use tests::{cases, gradient_cases};
