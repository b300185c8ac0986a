//! `MaxPool`, its gradient and second gradient, and their forms that take the windows as tensors.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, Result, typed_builder};

use super::pooling::{Pooling, pool_options};
use super::windows::{Format, floating_kernels, require_shape, with_attrs_of};
use crate::array::shape_of;
use crate::cpu::pooling::{self, PoolElement};
use crate::cuda;

const ATTRS: [&str; 4] = ["ksize", "strides", "padding", "data_format"];
const ATTRS_V2: [&str; 2] = ["padding", "data_format"];

/// `MaxPool`
pub(super) fn max_pool_definition() -> OpDefinition {
    let definition = OpDefinition::new("MaxPool", "The largest element of each window.")
        .input("input: T")
        .output("output: T")
        .attr("T: {half, bfloat16, float, double, int32, int64, uint8, int16, int8, uint16, qint8} = DT_FLOAT")
        .attr("ksize: list(int) >= 4")
        .attr("strides: list(int) >= 4")
        .attr("padding: {'SAME', 'VALID'}")
        .attr("data_format: {'NHWC', 'NCHW', 'NCHW_VECT_C'} = 'NHWC'")
        .shape(|context| {
            let pooling = Pooling::of(context)?;
            pooling.infer(context)
        })
        .gradient(|context| Ok(vec![Some(max_pool_gradient(context, "MaxPoolGrad", &ATTRS, &[])?)]));
    integer_kernels(floating_kernels!(definition, forward))
        .kernel(KernelDefinition::cuda(forward_on_device).types("T", cuda::FLOATS))
}

/// `MaxPoolV2`
pub(super) fn max_pool_v2_definition() -> OpDefinition {
    let definition = OpDefinition::new("MaxPoolV2", "MaxPool with the windows as tensors.")
        .input("input: T")
        .input("ksize: int32")
        .input("strides: int32")
        .output("output: T")
        .attr("T: {half, bfloat16, float, double, int32, int64, uint8, int16, int8, uint16, qint8} = DT_FLOAT")
        .attr("padding: {'SAME', 'VALID'}")
        .attr("data_format: {'NHWC', 'NCHW', 'NCHW_VECT_C'} = 'NHWC'")
        .plan_time_inputs(&[1, 2])
        .shape(|context| {
            for index in 1..3 {
                context.with_rank(index, 1)?;
            }
            match (context.int_values(1)?, context.int_values(2)?) {
                (Some(size), Some(strides)) => Pooling::new(context, &size, &strides)?.infer(context),
                _ => {
                    context.with_rank(0, 4)?;
                    context.set_output(0, [None; 4]);
                    Ok(())
                }
            }
        })
        .gradient(|context| {
            let windows = [context.input(1), context.input(2)];
            let gradient = max_pool_gradient(context, "MaxPoolGradV2", &ATTRS_V2, &windows)?;
            Ok(vec![Some(gradient), None, None])
        });
    integer_kernels(floating_kernels!(definition, forward))
        .kernel(KernelDefinition::cuda(forward_on_device).types("T", cuda::FLOATS))
}

fn integer_kernels(definition: OpDefinition) -> OpDefinition {
    macro_rules! kernels {
        ($($dtype:ty),*) => {
            [$(KernelDefinition::cpu(forward::<$dtype>).types("T", &[<$dtype>::DTYPE])),*]
        };
    }
    kernels!(i8, i16, i32, i64, u8, u16)
        .into_iter()
        .fold(definition, OpDefinition::kernel)
}

/// The operands of the gradients, all of the images' dtype.
fn with_operands(definition: OpDefinition) -> OpDefinition {
    definition
        .input("orig_input: T")
        .input("orig_output: T")
        .input("grad: T")
}

fn with_attrs(definition: OpDefinition) -> OpDefinition {
    definition
        .output("output: T")
        .attr("ksize: list(int) >= 4")
        .attr("strides: list(int) >= 4")
        .attr("padding: {'SAME', 'VALID'}")
        .attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'")
}

fn with_attrs_v2(definition: OpDefinition) -> OpDefinition {
    definition
        .input("ksize: int32")
        .input("strides: int32")
        .output("output: T")
        .attr("padding: {'SAME', 'VALID'}")
        .attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'")
        .plan_time_inputs(&[3, 4])
}

/// `MaxPoolGrad`
pub(super) fn max_pool_grad_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "MaxPoolGrad",
        "The gradient of MaxPool: goes to the first largest element of each window.",
    );
    let definition = with_attrs(with_operands(definition))
        .attr("T: realnumbertype = DT_FLOAT")
        .shape(like_images)
        .gradient(|context| max_pool_grad_gradient(context, "MaxPoolGradGrad", &ATTRS));
    floating_kernels!(definition, backward).kernel(KernelDefinition::cuda(backward_on_device).types("T", cuda::FLOATS))
}

/// `MaxPoolGradV2`
pub(super) fn max_pool_grad_v2_definition() -> OpDefinition {
    let definition = OpDefinition::new("MaxPoolGradV2", "MaxPoolGrad with the windows as tensors.");
    let definition = with_attrs_v2(with_operands(definition))
        .attr("T: realnumbertype = DT_FLOAT")
        .shape(like_images)
        .gradient(|context| max_pool_grad_gradient(context, "MaxPoolGradGradV2", &ATTRS_V2));
    floating_kernels!(definition, backward).kernel(KernelDefinition::cuda(backward_on_device).types("T", cuda::FLOATS))
}

/// `MaxPoolGradGrad`
pub(super) fn max_pool_grad_grad_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "MaxPoolGradGrad",
        "The gradient of MaxPoolGrad: picks the first largest element of each window.",
    );
    let definition = with_attrs(with_operands(definition))
        .attr("T: realnumbertype")
        .shape(|context| {
            let pooling = Pooling::of(context)?;
            like_pooled(context, &pooling)
        })
        .gradient(|context| max_pool_grad_gradient(context, "MaxPoolGrad", &ATTRS));
    floating_kernels!(definition, again).kernel(KernelDefinition::cuda(again_on_device).types("T", cuda::FLOATS))
}

/// `MaxPoolGradGradV2`
pub(super) fn max_pool_grad_grad_v2_definition() -> OpDefinition {
    let definition =
        OpDefinition::new("MaxPoolGradGradV2", "MaxPoolGradGrad with the windows as tensors.").no_gradient();
    let definition = with_attrs_v2(with_operands(definition))
        .attr("T: realnumbertype")
        .shape(|context| match (context.int_values(3)?, context.int_values(4)?) {
            (Some(size), Some(strides)) => {
                let pooling = Pooling::new(context, &size, &strides)?;
                like_pooled(context, &pooling)
            }
            _ => {
                context.set_output(0, context.with_rank(1, 4)?);
                Ok(())
            }
        });
    floating_kernels!(definition, again).kernel(KernelDefinition::cuda(again_on_device).types("T", cuda::FLOATS))
}

fn like_images(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape = context.with_rank(0, 4)?;
    context.set_output(0, shape);
    Ok(())
}

fn like_pooled(context: &mut InferenceContext<'_>, pooling: &Pooling) -> Result<()> {
    pooling.infer(context)?;
    context.with_rank(2, 4)?.merge(context.input(0))?;
    Ok(())
}

fn forward<T: PoolElement + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let pooling = Pooling::planned(request, 1)?;
    if pooling.size[3] > 1 {
        return over_channels::<T>(request, &pooling);
    }
    let (format, geometry) = (pooling.format, pooling.geometry(request.input_shape(0))?);
    let images = format.sizes(request.input_shape(0))?;
    Ok(Planned::new(move |context| {
        let (input, out) = (context.input::<T>(0)?, context.output::<T>(0)?);
        format.read(images, input, |input| {
            format.write(geometry.out_shape(), out, |out| {
                pooling::max_pool(&geometry, input, out)
            });
        });
        Ok(())
    }))
}

fn forward_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (pooling, dtype) = (Pooling::planned(request, 1)?, request.input_dtype(0));
    if pooling.size[3] > 1 {
        pooling.check_over_channels(request.input_shape(0))?;
        let kernel = cuda::pooling::MaxOfChannels::new(request, dtype, pooling.size[3])?;
        let count = request.output_shape(0)?.num_elements();
        return Ok(Planned::new(move |context| {
            // SAFETY: the input has as many windows as the output has elements.
            unsafe { kernel.run(context.input_address(0), context.output_address(0), count) }
        }));
    }
    let geometry = pooling.geometry(request.input_shape(0))?;
    let channels_last = pooling.format == Format::Nhwc;
    let kernel = cuda::pooling::Pooling::new(request, "max_pool", dtype, &geometry, channels_last)?;
    Ok(Planned::new(move |context| {
        // SAFETY: it is this kernel, and the tensors have the sizes that it was made for.
        unsafe { kernel.pool(context.input_address(0), context.output_address(0)) }
    }))
}

/// Windows over channels that lie side by side.
fn over_channels<T: PoolElement + Element>(request: &KernelRequest<'_>, pooling: &Pooling) -> Result<Planned> {
    pooling.check_over_channels(request.input_shape(0))?;
    let window = pooling.size[3];
    Ok(Planned::new(move |context| {
        let (input, out) = (context.input::<T>(0)?, context.output::<T>(0)?);
        for (out, window) in out.iter_mut().zip(input.chunks_exact(window)) {
            *out = window
                .iter()
                .fold(T::min_value(), |best, &x| if best < x { x } else { best });
        }
        Ok(())
    }))
}

/// The windows of a gradient, with the shapes of its operands checked; `gradient` is the shape that input 2 must have.
fn planned_gradient(
    request: &KernelRequest<'_>,
    of_images: bool,
) -> Result<(Pooling, pooling::Pool2dGeometry, [usize; 4])> {
    let pooling = Pooling::planned(request, 3)?;
    let geometry = pooling.geometry(request.input_shape(0))?;
    let out_shape = pooling.format.of_nhwc(geometry.out_shape());
    require_shape("orig_output", request.input_shape(1), &out_shape)?;
    let expected = if of_images {
        request.input_shape(0)
    } else {
        request.input_shape(1)
    };
    require_shape("grad", request.input_shape(2), expected)?;
    let images = pooling.format.sizes(request.input_shape(0))?;
    Ok((pooling, geometry, images))
}

fn backward<T: PoolElement + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (pooling, geometry, images) = planned_gradient(request, false)?;
    let format = pooling.format;
    Ok(Planned::new(move |context| {
        let (input, gradient, out) = (context.input::<T>(0)?, context.input::<T>(2)?, context.output::<T>(0)?);
        format.read(images, input, |input| {
            format.read(geometry.out_shape(), gradient, |gradient| {
                format.write(images, out, |out| {
                    pooling::max_pool_grad(&geometry, input, gradient, out)
                });
            });
        });
        Ok(())
    }))
}

/// A kernel over the windows of a gradient, by its name in `pooling.cu`.
fn gradient_on_device(request: &KernelRequest<'_>, name: &str, of_images: bool) -> Result<cuda::pooling::Pooling> {
    let (pooling, geometry, _) = planned_gradient(request, of_images)?;
    let channels_last = pooling.format == Format::Nhwc;
    cuda::pooling::Pooling::new(request, name, request.input_dtype(0), &geometry, channels_last)
}

fn backward_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let kernel = gradient_on_device(request, "max_pool_grad", false)?;
    Ok(Planned::new(move |context| {
        let (images, gradients) = (context.input_address(0), context.input_address(2));
        // SAFETY: it is this kernel, and the tensors have the sizes that it was made for.
        unsafe { kernel.max_grad(images, gradients, false, context.output_address(0)) }
    }))
}

fn again_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let kernel = gradient_on_device(request, "max_pool_grad_grad", true)?;
    Ok(Planned::new(move |context| {
        let (images, gradients) = (context.input_address(0), context.input_address(2));
        // SAFETY: it is this kernel, and the tensors have the sizes that it was made for.
        unsafe { kernel.max_grad_grad(images, gradients, context.output_address(0)) }
    }))
}

fn again<T: PoolElement + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (pooling, geometry, images) = planned_gradient(request, true)?;
    let format = pooling.format;
    Ok(Planned::new(move |context| {
        let (input, gradient, out) = (context.input::<T>(0)?, context.input::<T>(2)?, context.output::<T>(0)?);
        format.read(images, input, |input| {
            format.read(images, gradient, |gradient| {
                format.write(geometry.out_shape(), out, |out| {
                    pooling::max_pool_grad_grad(&geometry, input, gradient, out);
                });
            });
        });
        Ok(())
    }))
}

fn max_pool_gradient(
    context: &GradientContext<'_>,
    op: &str,
    attrs: &[&'static str],
    windows: &[Tensor],
) -> Result<Tensor> {
    let builder = with_attrs_of(context, op, attrs)?
        .input(context.input(0))
        .input(context.output(0))
        .input(context.gradient(0)?);
    windows.iter().fold(builder, OpBuilder::input).build()
}

/// Zeros for the first two operands, and `op` of them and the incoming gradient for the third.
fn max_pool_grad_gradient(
    context: &GradientContext<'_>,
    op: &str,
    attrs: &[&'static str],
) -> Result<Vec<Option<Tensor>>> {
    let (input, output) = (context.input(0), context.input(1));
    let zeros = [zeros_of(context, &input)?, zeros_of(context, &output)?];
    let mut builder = with_attrs_of(context, op, attrs)?
        .input(&input)
        .input(&output)
        .input(context.gradient(0)?);
    let windows: Vec<Tensor> = (3..context.op().inputs().len())
        .map(|index| context.input(index))
        .collect();
    builder = windows.iter().fold(builder, OpBuilder::input);
    let [zero_input, zero_output] = zeros;
    let mut gradients = vec![Some(zero_input), Some(zero_output), Some(builder.build()?)];
    gradients.resize(3 + windows.len(), None);
    Ok(gradients)
}

/// `tf.zeros` of a tensor's shape.
fn zeros_of(context: &GradientContext<'_>, tensor: &Tensor) -> Result<Tensor> {
    let shape = shape_of::shape_of(tensor, "Shape")?;
    let scope = graph_core::graph::scope::name_scope_in(tensor.graph(), "zeros")?;
    let zero = context.constant(graph_core::Value::zeros(tensor.dtype(), ())?, "Const")?;
    let builder = context.node("Fill").input(&shape).input(&zero);
    builder.name(scope.scope_name()).build()
}

typed_builder! {
    /// A pooling by the largest about to be made; see [`max_pool`].
    pub struct MaxPool;
}

pool_options!(MaxPool);

/// The largest element of each window of images `value` of shape [batch, rows, columns, channels]; a tensor of shape [batch,
/// output rows, output columns, channels]. Any real dtype.
///
/// ```
/// use graph_ops::array::constant;
/// use graph_ops::nn;
/// let image = constant([[[[1.0f32], [2.0]], [[3.0], [4.0]]]]);
/// let pooled = nn::max_pool(image).ksize([1, 2, 2, 1]).strides([1, 2, 2, 1]).padding("VALID").build()?;
/// assert_eq!(pooled.shape(), [1, 1, 1, 1].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn max_pool(value: impl IntoOperand) -> MaxPool {
    MaxPool(crate::op("MaxPool").input(value))
}

#[cfg(test)]
#[path = "max_pool_tests.rs"]
mod tests;
#[cfg(test)]
pub(super) use tests::{cases, gradient_cases};
