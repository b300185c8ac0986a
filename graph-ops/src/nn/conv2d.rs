//! `Conv2D` and its two gradients, which are each other's gradients.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, Error, PartialShape, Result, Shape, typed_builder};

use super::windows::{Format, Sliding, floating_kernels, require_shape, with_attrs_of};
use crate::array::shape_of;
use crate::cpu::convolution::{self, Conv2dGeometry, ConvElement};
use crate::cuda;

/// The attributes that the three ops share, for their gradients to hand on.
const ATTRS: [&str; 6] = [
    "dilations",
    "strides",
    "padding",
    "explicit_paddings",
    "use_cudnn_on_gpu",
    "data_format",
];

fn with_attrs(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("T: {half, bfloat16, float, double}")
        .attr("strides: list(int)")
        .attr("use_cudnn_on_gpu: bool = true")
        .attr("padding: {'SAME', 'VALID', 'EXPLICIT'}")
        .attr("explicit_paddings: list(int) = []")
        .attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'")
        .attr("dilations: list(int) = [1, 1, 1, 1]")
}

/// `Conv2D`
pub(super) fn forward() -> OpDefinition {
    let definition = OpDefinition::new(
        "Conv2D",
        "out[n,y,x,o] = sum over i,j,c of input[n, y*stride + i*dilation - before, ..., c] * filter[i,j,c,o].",
    )
    .input("input: T")
    .input("filter: T")
    .output("output: T");
    let definition = with_attrs(definition).shape(forward_shape).gradient(forward_gradient);
    floating_kernels!(definition, forward_kernel)
        .kernel(KernelDefinition::cuda(forward_on_device).types("T", cuda::FLOATS))
}

/// `Conv2DBackpropInput`
pub(super) fn backprop_input() -> OpDefinition {
    let definition = OpDefinition::new(
        "Conv2DBackpropInput",
        "The gradient of Conv2D with respect to its input; also a transposed convolution.",
    )
    .input("input_sizes: int32")
    .input("filter: T")
    .input("out_backprop: T")
    .output("output: T");
    let definition = with_attrs(definition)
        .shape(|context| sizes_shape(context, 0))
        .gradient(backprop_input_gradient);
    floating_kernels!(definition, backprop_input_kernel).kernel(
        KernelDefinition::cuda(backprop_input_on_device)
            .types("T", cuda::FLOATS)
            .host_input(0),
    )
}

/// `Conv2DBackpropFilter`
pub(super) fn backprop_filter() -> OpDefinition {
    let definition = OpDefinition::new(
        "Conv2DBackpropFilter",
        "The gradient of Conv2D with respect to its filter.",
    )
    .input("input: T")
    .input("filter_sizes: int32")
    .input("out_backprop: T")
    .output("output: T");
    let definition = with_attrs(definition)
        .shape(|context| sizes_shape(context, 1))
        .gradient(backprop_filter_gradient);
    floating_kernels!(definition, backprop_filter_kernel).kernel(
        KernelDefinition::cuda(backprop_filter_on_device)
            .types("T", cuda::FLOATS)
            .host_input(1),
    )
}

fn forward_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (images, filter) = (context.with_rank(0, 4)?, context.with_rank(1, 4)?);
    let sliding = Sliding::of(context, true)?;
    let [batch, rows, columns, channels] = sliding.format.dims(&images);
    if let (Some(channels), Some(taken)) = (channels, filter.dim(2))
        && (taken == 0 || channels % taken != 0)
    {
        return Err(channels_differ(channels, taken));
    }
    let [rows, columns] = sliding.outputs([rows, columns], [filter.dim(0), filter.dim(1)])?;
    context.set_output(0, sliding.format.shape([batch, rows, columns, filter.dim(3)]));
    Ok(())
}

fn channels_differ(images: usize, filter: usize) -> Error {
    Error::invalid_argument("the images and the filter must have the same number of input channels")
        .expected(format!("{images}, as the images have"))
        .got(format!("{filter} in the filter's third axis"))
}

/// The shape that input `index` holds.
pub(super) fn sizes_shape(context: &mut InferenceContext<'_>, index: usize) -> Result<()> {
    let shape = context
        .shape_from_input(index)?
        .merge(&PartialShape::unknown_of_rank(4))?;
    context.set_output(0, shape);
    Ok(())
}

/// One convolution as a kernel sees it.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    format: Format,
    pub(super) geometry: Conv2dGeometry,
    images: [usize; 4],
}

impl Plan {
    pub(super) fn new(request: &KernelRequest<'_>, images: &Shape, filter: &Shape) -> Result<Self> {
        let sliding = Sliding::of(request, true)?;
        let images = sliding.format.sizes(images)?;
        let filter = Format::Nhwc.sizes(filter)?;
        if images[3] != filter[2] {
            return Err(if filter[2] > 0 && images[3].is_multiple_of(filter[2]) {
                Error::unimplemented("convolutions in groups of channels are not supported")
                    .got(format!("{} channels, of which a filter takes {}", images[3], filter[2]))
                    .hint("split the channels and convolve each part")
            } else {
                channels_differ(images[3], filter[2])
            });
        }
        let geometry = Conv2dGeometry::new(images, filter, sliding.strides, sliding.dilations, sliding.padding);
        let geometry = geometry.ok_or_else(|| {
            Error::invalid_argument("the filter does not fit the images")
                .expected(format!(
                    "at most {} by {} pixels, and at least one",
                    images[1], images[2]
                ))
                .got(format!("{} by {} pixels", filter[0], filter[1]))
                .hint("take a smaller filter, or padding SAME")
        })?;
        Ok(Self {
            format: sliding.format,
            geometry,
            images,
        })
    }

    /// Whether the images' channels are their last axis.
    fn channels_last(&self) -> bool {
        self.format == Format::Nhwc
    }

    /// Of a gradient, whose incoming gradient is input 2.
    fn backwards(request: &KernelRequest<'_>, images: &Shape, filter: &Shape) -> Result<Self> {
        let plan = Self::new(request, images, filter)?;
        let expected = plan.format.of_nhwc(plan.geometry.out_shape());
        require_shape("out_backprop", request.input_shape(2), &expected)?;
        Ok(plan)
    }
}

fn forward_kernel<T: ConvElement + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let plan = Plan::new(request, request.input_shape(0), request.input_shape(1))?;
    Ok(Planned::new(move |context| {
        let (images, filter, out) = (context.input::<T>(0)?, context.input::<T>(1)?, context.output::<T>(0)?);
        plan.format.read(plan.images, images, |images| {
            plan.format.write(plan.geometry.out_shape(), out, |out| {
                convolution::conv2d(&plan.geometry, images, filter, out);
            });
        });
        Ok(())
    }))
}

fn backprop_input_kernel<T: ConvElement + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let plan = Plan::backwards(request, request.output_shape(0)?, request.input_shape(1))?;
    Ok(Planned::new(move |context| {
        let (filter, gradient, out) = (context.input::<T>(1)?, context.input::<T>(2)?, context.output::<T>(0)?);
        plan.format.read(plan.geometry.out_shape(), gradient, |gradient| {
            plan.format.write(plan.images, out, |out| {
                convolution::conv2d_backprop_input(&plan.geometry, gradient, filter, out);
            });
        });
        Ok(())
    }))
}

fn backprop_filter_kernel<T: ConvElement + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let plan = Plan::backwards(request, request.input_shape(0), request.output_shape(0)?)?;
    Ok(Planned::new(move |context| {
        let (images, gradient, out) = (context.input::<T>(0)?, context.input::<T>(2)?, context.output::<T>(0)?);
        plan.format.read(plan.images, images, |images| {
            plan.format.read(plan.geometry.out_shape(), gradient, |gradient| {
                convolution::conv2d_backprop_filter(&plan.geometry, images, gradient, out);
            });
        });
        Ok(())
    }))
}

fn forward_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let plan = Plan::new(request, request.input_shape(0), request.input_shape(1))?;
    let (dtype, last) = (request.input_dtype(0), plan.channels_last());
    let kernel = cuda::convolution::Forward::new(request, dtype, &plan.geometry, last, false)?;
    let scratch = kernel.scratch();
    let planned = Planned::new(move |context| {
        let tensors = [
            context.input_address(0),
            context.input_address(1),
            context.output_address(0),
        ];
        // SAFETY: the tensors have the sizes that the kernel was made for, and it gets the scratch memory it wants.
        unsafe { kernel.run(tensors, None, false, context.scratch_address()) }
    });
    Ok(planned.with_scratch(scratch))
}

fn backprop_input_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let plan = Plan::backwards(request, request.output_shape(0)?, request.input_shape(1))?;
    let (dtype, last) = (request.input_dtype(1), plan.channels_last());
    let kernel = cuda::convolution::BackpropInput::new(request, dtype, &plan.geometry, last)?;
    let scratch = kernel.scratch();
    let planned = Planned::new(move |context| {
        let (filter, gradients) = (context.input_address(1), context.input_address(2));
        let (out, scratch) = (context.output_address(0), context.scratch_address());
        // SAFETY: the tensors have the sizes that the kernel was made for, and it gets the scratch memory it wants.
        unsafe { kernel.run(gradients, filter, out, scratch) }
    });
    Ok(planned.with_scratch(scratch))
}

fn backprop_filter_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let plan = Plan::backwards(request, request.input_shape(0), request.output_shape(0)?)?;
    let (dtype, last) = (request.input_dtype(0), plan.channels_last());
    let kernel = cuda::convolution::BackpropFilter::new(request, dtype, &plan.geometry, last)?;
    let scratch = kernel.scratch();
    let planned = Planned::new(move |context| {
        let (images, gradients) = (context.input_address(0), context.input_address(2));
        let (out, scratch) = (context.output_address(0), context.scratch_address());
        // SAFETY: the tensors have the sizes that the kernel was made for, and it gets the scratch memory it wants.
        unsafe { kernel.run(images, gradients, out, scratch) }
    });
    Ok(planned.with_scratch(scratch))
}

fn like(context: &GradientContext<'_>, op: &str) -> Result<OpBuilder> {
    with_attrs_of(context, op, &ATTRS)
}

fn forward_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (images, filter, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let shapes = context.node("ShapeN").input([&images, &filter]).build_all()?;
    let to_images = like(context, "Conv2DBackpropInput")?
        .input(&shapes[0])
        .input(&filter)
        .input(&gradient)
        .build()?;
    let to_filter = like(context, "Conv2DBackpropFilter")?
        .input(&images)
        .input(&shapes[1])
        .input(&gradient)
        .build()?;
    Ok(vec![Some(to_images), Some(to_filter)])
}

fn backprop_input_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (filter, out_backprop, gradient) = (context.input(1), context.input(2), context.gradient(0)?);
    let shape = shape_of::shape_of(&filter, "Shape")?;
    let to_filter = like(context, "Conv2DBackpropFilter")?
        .input(&gradient)
        .input(&shape)
        .input(&out_backprop)
        .build()?;
    let to_out = like(context, "Conv2D")?.input(&gradient).input(&filter).build()?;
    Ok(vec![None, Some(to_filter), Some(to_out)])
}

fn backprop_filter_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (images, out_backprop, gradient) = (context.input(0), context.input(2), context.gradient(0)?);
    let shape = shape_of::shape_of(&images, "Shape")?;
    let to_images = like(context, "Conv2DBackpropInput")?
        .input(&shape)
        .input(&gradient)
        .input(&out_backprop)
        .build()?;
    let to_out = like(context, "Conv2D")?.input(&images).input(&gradient).build()?;
    Ok(vec![Some(to_images), None, Some(to_out)])
}

typed_builder! {
    /// A convolution, or a gradient of one, about to be made; see [`conv2d`].
    pub struct Conv2d;
}

impl Conv2d {
    /// Pixels from one window to the next, for each axis of the images; 1 for the batch and the channels. Required.
    pub fn strides(self, strides: [i64; 4]) -> Self {
        Self(self.0.attr("strides", strides))
    }

    /// `"VALID"`: only windows inside the images; `"SAME"`: as many as `ceil(pixels / stride)`. Required, unless
    /// [`Conv2d::explicit_paddings`] says more.
    pub fn padding(self, padding: &str) -> Self {
        Self(self.0.attr("padding", padding))
    }

    /// Pixels of padding before and after, for each axis of the images; 0 for the batch and the channels.
    pub fn explicit_paddings(self, paddings: [[i64; 2]; 4]) -> Self {
        Self(
            self.0
                .attr("padding", "EXPLICIT")
                .attr("explicit_paddings", paddings.as_flattened()),
        )
    }

    /// The order of the images' axes: `"NHWC"` (without this) or `"NCHW"`.
    pub fn data_format(self, format: &str) -> Self {
        Self(self.0.attr("data_format", format))
    }

    /// Pixels from one tap of the filter to the next, for each axis of the images; 1 without.
    pub fn dilations(self, dilations: [i64; 4]) -> Self {
        Self(self.0.attr("dilations", dilations))
    }

    /// Kept in the graph for TensorFlow; says nothing here.
    pub fn use_cudnn_on_gpu(self, on: bool) -> Self {
        Self(self.0.attr("use_cudnn_on_gpu", on))
    }
}

/// Convolves images `input` of shape [batch, rows, columns, channels] with `filter` of shape [filter rows, filter columns,
/// channels, filters]; the filter is not flipped. The result has shape [batch, output rows, output columns, filters].
///
/// Both are of one floating-point dtype. It is an error if the channels differ or a window does not fit.
///
/// ```
/// use graph_ops::array::constant;
/// use graph_ops::nn;
/// let image = constant([[[[1.0f32], [2.0]], [[3.0], [4.0]]]]);
/// let filter = constant([[[[10.0f32]]]]);
/// let scaled = nn::conv2d(image, filter).strides([1, 1, 1, 1]).padding("SAME").build()?;
/// assert_eq!(scaled.shape(), [1, 2, 2, 1].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn conv2d(input: impl IntoOperand, filter: impl IntoOperand) -> Conv2d {
    Conv2d(crate::op("Conv2D").input(input).input(filter))
}

/// The gradient of [`conv2d`] with respect to its input, whose shape is `input_sizes`, an `int32` vector.
#[track_caller]
pub fn conv2d_backprop_input(
    input_sizes: impl IntoOperand,
    filter: impl IntoOperand,
    out_backprop: impl IntoOperand,
) -> Conv2d {
    let builder = crate::op("Conv2DBackpropInput").input(input_sizes);
    Conv2d(builder.input(filter).input(out_backprop))
}

/// The gradient of [`conv2d`] with respect to its filter, whose shape is `filter_sizes`, an `int32` vector.
#[track_caller]
pub fn conv2d_backprop_filter(
    input: impl IntoOperand,
    filter_sizes: impl IntoOperand,
    out_backprop: impl IntoOperand,
) -> Conv2d {
    let builder = crate::op("Conv2DBackpropFilter").input(input);
    Conv2d(builder.input(filter_sizes).input(out_backprop))
}

#[cfg(test)]
#[path = "conv2d_tests.rs"]
mod tests;
#[cfg(test)]
pub(super) use tests::{cases, gradient_cases};
