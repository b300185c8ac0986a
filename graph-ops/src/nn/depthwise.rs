//! `DepthwiseConv2dNative` and its two gradients: each channel has filters of its own.

use std::panic::Location;

use graph_core::gradients::GradientContext;
use graph_core::graph::{Graph, IntoOperand, OpBuilder, Operand, Tensor, scope};
use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, Error, Result, Shape, typed_builder};

use super::conv2d::sizes_shape;
use super::windows::{Format, Sliding, floating_kernels, require_shape, window_too_large, with_attrs_of};
use crate::array::shape_of;
use crate::cpu::depthwise::{self, DepthwiseGeometry};
use crate::cpu::element::Real;
use crate::cpu::scratch::Plain;
use crate::cuda;
use crate::math::nodes::Nodes;

const ATTRS: [&str; 4] = ["dilations", "strides", "padding", "data_format"];

fn with_attrs(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("T: {half, bfloat16, float, double}")
        .attr("strides: list(int)")
        .attr("padding: {'SAME', 'VALID'}")
        .attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'")
        .attr("dilations: list(int) = [1, 1, 1, 1]")
}

/// `DepthwiseConv2dNative`
pub(super) fn forward_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "DepthwiseConv2dNative",
        "out[n,y,x,c*m+q] = sum over i,j of input[n, y*stride + i - before, ..., c] * filter[i,j,c,q].",
    )
    .input("input: T")
    .input("filter: T")
    .output("output: T");
    let definition = with_attrs(definition).shape(shape).gradient(forward_gradient);
    floating_kernels!(definition, forward).kernel(KernelDefinition::cuda(forward_on_device).types("T", cuda::FLOATS))
}

/// `DepthwiseConv2dNativeBackpropInput`
pub(super) fn backprop_input_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "DepthwiseConv2dNativeBackpropInput",
        "The gradient of DepthwiseConv2dNative with respect to its input.",
    )
    .input("input_sizes: int32")
    .input("filter: T")
    .input("out_backprop: T")
    .output("output: T");
    let definition = with_attrs(definition)
        .shape(|context| sizes_shape(context, 0))
        .gradient(backprop_input_gradient);
    floating_kernels!(definition, backprop_input).kernel(
        KernelDefinition::cuda(backprop_input_on_device)
            .types("T", cuda::FLOATS)
            .host_input(0),
    )
}

/// `DepthwiseConv2dNativeBackpropFilter`
pub(super) fn backprop_filter_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "DepthwiseConv2dNativeBackpropFilter",
        "The gradient of DepthwiseConv2dNative with respect to its filter.",
    )
    .input("input: T")
    .input("filter_sizes: int32")
    .input("out_backprop: T")
    .output("output: T");
    let definition = with_attrs(definition)
        .shape(|context| sizes_shape(context, 1))
        .gradient(backprop_filter_gradient);
    floating_kernels!(definition, backprop_filter).kernel(
        KernelDefinition::cuda(backprop_filter_on_device)
            .types("T", cuda::FLOATS)
            .host_input(1),
    )
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (images, filter) = (context.with_rank(0, 4)?, context.with_rank(1, 4)?);
    let sliding = Sliding::of(context, false)?;
    let [batch, rows, columns, channels] = sliding.format.dims(&images);
    let channels = context.merge_dims(channels, filter.dim(2), "the channels of the images and of the filter")?;
    let outputs = channels
        .zip(filter.dim(3))
        .map(|(channels, multiplier)| channels * multiplier);
    let [rows, columns] = sliding.outputs([rows, columns], [filter.dim(0), filter.dim(1)])?;
    context.set_output(0, sliding.format.shape([batch, rows, columns, outputs]));
    Ok(())
}

/// One convolution as a kernel sees it.
#[derive(Clone, Copy)]
struct Plan {
    format: Format,
    geometry: DepthwiseGeometry,
    images: [usize; 4],
}

impl Plan {
    fn new(request: &KernelRequest<'_>, images: &Shape, filter: &Shape) -> Result<Self> {
        let sliding = Sliding::of(request, false)?;
        if sliding.dilations != [1, 1] {
            return Err(
                Error::unimplemented("dilations of depthwise convolutions are not supported")
                    .expected("[1, 1]")
                    .got(format!("{:?}", sliding.dilations)),
            );
        }
        if sliding.strides[0] != sliding.strides[1] {
            return Err(Error::invalid_argument(
                "the strides of a depthwise convolution must be equal in rows and columns",
            )
            .got(format!("{:?}", sliding.strides)));
        }
        let (images, filter) = (sliding.format.sizes(images)?, Format::Nhwc.sizes(filter)?);
        let geometry = DepthwiseGeometry::new(images, filter, sliding.strides, sliding.padding)
            .ok_or_else(|| window_too_large(filter[0].max(filter[1]), images[1].min(images[2])))?;
        Ok(Self {
            format: sliding.format,
            geometry,
            images,
        })
    }

    fn backwards(request: &KernelRequest<'_>, images: &Shape, filter: &Shape) -> Result<Self> {
        let plan = Self::new(request, images, filter)?;
        let expected = plan.format.of_nhwc(plan.geometry.out_shape());
        require_shape("out_backprop", request.input_shape(2), &expected)?;
        Ok(plan)
    }
}

fn forward<T: Real + Element + Plain>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain,
{
    let plan = Plan::new(request, request.input_shape(0), request.input_shape(1))?;
    Ok(Planned::new(move |context| {
        let (images, filter, out) = (context.input::<T>(0)?, context.input::<T>(1)?, context.output::<T>(0)?);
        plan.format.read(plan.images, images, |images| {
            plan.format.write(plan.geometry.out_shape(), out, |out| {
                depthwise::depthwise_conv2d(&plan.geometry, images, filter, out);
            });
        });
        Ok(())
    }))
}

fn backprop_input<T: Real + Element + Plain>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain,
{
    let plan = Plan::backwards(request, request.output_shape(0)?, request.input_shape(1))?;
    Ok(Planned::new(move |context| {
        let (filter, gradient, out) = (context.input::<T>(1)?, context.input::<T>(2)?, context.output::<T>(0)?);
        plan.format.read(plan.geometry.out_shape(), gradient, |gradient| {
            plan.format.write(plan.images, out, |out| {
                depthwise::depthwise_backprop_input(&plan.geometry, gradient, filter, out);
            });
        });
        Ok(())
    }))
}

fn backprop_filter<T: Real + Element + Plain>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain,
{
    let plan = Plan::backwards(request, request.input_shape(0), request.output_shape(0)?)?;
    Ok(Planned::new(move |context| {
        let (images, gradient, out) = (context.input::<T>(0)?, context.input::<T>(2)?, context.output::<T>(0)?);
        plan.format.read(plan.images, images, |images| {
            plan.format.read(plan.geometry.out_shape(), gradient, |gradient| {
                depthwise::depthwise_backprop_filter(&plan.geometry, images, gradient, out);
            });
        });
        Ok(())
    }))
}

fn forward_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let plan = Plan::new(request, request.input_shape(0), request.input_shape(1))?;
    let (dtype, last) = (request.input_dtype(0), plan.format == Format::Nhwc);
    let kernel = cuda::depthwise::Depthwise::new(request, "depthwise", dtype, &plan.geometry, last)?;
    Ok(Planned::new(move |context| {
        let (images, filter) = (context.input_address(0), context.input_address(1));
        // SAFETY: it is this kernel, and the tensors have the sizes that it was made for.
        unsafe { kernel.forward(images, filter, context.output_address(0)) }
    }))
}

fn backprop_input_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let plan = Plan::backwards(request, request.output_shape(0)?, request.input_shape(1))?;
    let (dtype, last) = (request.input_dtype(1), plan.format == Format::Nhwc);
    let kernel = cuda::depthwise::Depthwise::new(request, "depthwise_backprop_input", dtype, &plan.geometry, last)?;
    Ok(Planned::new(move |context| {
        let (filter, gradients) = (context.input_address(1), context.input_address(2));
        // SAFETY: it is this kernel, and the tensors have the sizes that it was made for.
        unsafe { kernel.backprop_input(gradients, filter, context.output_address(0)) }
    }))
}

fn backprop_filter_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let plan = Plan::backwards(request, request.input_shape(0), request.output_shape(0)?)?;
    let (dtype, last) = (request.input_dtype(0), plan.format == Format::Nhwc);
    let kernel = cuda::depthwise::BackpropFilter::new(request, dtype, &plan.geometry, last)?;
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
    let to_images = like(context, "DepthwiseConv2dNativeBackpropInput")?
        .input(shape_of::shape_of(&images, "Shape")?)
        .input(&filter)
        .input(&gradient)
        .build()?;
    let to_filter = like(context, "DepthwiseConv2dNativeBackpropFilter")?
        .input(&images)
        .input(shape_of::shape_of(&filter, "Shape")?)
        .input(&gradient)
        .build()?;
    Ok(vec![Some(to_images), Some(to_filter)])
}

fn backprop_input_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (filter, out_backprop, gradient) = (context.input(1), context.input(2), context.gradient(0)?);
    let to_filter = like(context, "DepthwiseConv2dNativeBackpropFilter")?
        .input(&gradient)
        .input(shape_of::shape_of(&filter, "Shape")?)
        .input(&out_backprop)
        .build()?;
    let builder = like(context, "DepthwiseConv2dNative")?.input(&gradient);
    Ok(vec![None, Some(to_filter), Some(builder.input(&filter).build()?)])
}

fn backprop_filter_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (images, out_backprop, gradient) = (context.input(0), context.input(2), context.gradient(0)?);
    let to_images = like(context, "DepthwiseConv2dNativeBackpropInput")?
        .input(shape_of::shape_of(&images, "Shape")?)
        .input(&gradient)
        .input(&out_backprop)
        .build()?;
    let builder = like(context, "DepthwiseConv2dNative")?.input(&images);
    Ok(vec![Some(to_images), None, Some(builder.input(&gradient).build()?)])
}

typed_builder! {
    /// A depthwise convolution, or a gradient of one, about to be made; see [`depthwise_conv2d_native`].
    pub struct DepthwiseConv2dNative;
}

impl DepthwiseConv2dNative {
    /// Pixels from one window to the next, for each axis of the images; 1 for the batch and the channels, and equal for rows
    /// and columns. Required.
    pub fn strides(self, strides: [i64; 4]) -> Self {
        Self(self.0.attr("strides", strides))
    }

    /// `"VALID"` or `"SAME"`, as for [`conv2d`](super::conv2d). Required.
    pub fn padding(self, padding: &str) -> Self {
        Self(self.0.attr("padding", padding))
    }

    /// The order of the images' axes: `"NHWC"` (without this) or `"NCHW"`.
    pub fn data_format(self, format: &str) -> Self {
        Self(self.0.attr("data_format", format))
    }
}

/// Convolves each channel of images `input` of shape [batch, rows, columns, channels] with its own filters: `filter` has shape
/// [filter rows, filter columns, channels, multiplier], the result [batch, output rows, output columns, channels * multiplier].
/// Both are of one floating-point dtype.
#[track_caller]
pub fn depthwise_conv2d_native(input: impl IntoOperand, filter: impl IntoOperand) -> DepthwiseConv2dNative {
    DepthwiseConv2dNative(crate::op("DepthwiseConv2dNative").input(input).input(filter))
}

/// The gradient of [`depthwise_conv2d_native`] with respect to its input, whose shape is `input_sizes`.
#[track_caller]
pub fn depthwise_conv2d_native_backprop_input(
    input_sizes: impl IntoOperand,
    filter: impl IntoOperand,
    out_backprop: impl IntoOperand,
) -> DepthwiseConv2dNative {
    let builder = crate::op("DepthwiseConv2dNativeBackpropInput").input(input_sizes);
    DepthwiseConv2dNative(builder.input(filter).input(out_backprop))
}

/// The gradient of [`depthwise_conv2d_native`] with respect to its filter, whose shape is `filter_sizes`.
#[track_caller]
pub fn depthwise_conv2d_native_backprop_filter(
    input: impl IntoOperand,
    filter_sizes: impl IntoOperand,
    out_backprop: impl IntoOperand,
) -> DepthwiseConv2dNative {
    let builder = crate::op("DepthwiseConv2dNativeBackpropFilter").input(input);
    DepthwiseConv2dNative(builder.input(filter_sizes).input(out_backprop))
}

/// A depthwise or separable convolution about to be made; see [`depthwise_conv2d`] and [`separable_conv2d`].
#[must_use = "operations are made by `build`"]
pub struct SeparableConv2d {
    input: Operand,
    depthwise: Operand,
    pointwise: Option<Operand>,
    strides: [i64; 4],
    padding: String,
    data_format: String,
    name: Option<String>,
    location: &'static Location<'static>,
}

impl SeparableConv2d {
    /// Pixels from one window to the next, as for [`depthwise_conv2d_native`]; 1 without.
    pub fn strides(mut self, strides: [i64; 4]) -> Self {
        self.strides = strides;
        self
    }

    /// `"VALID"` or `"SAME"` (without this), as for [`conv2d`](super::conv2d).
    pub fn padding(mut self, padding: &str) -> Self {
        self.padding = padding.to_owned();
        self
    }

    /// The order of the images' axes: `"NHWC"` (without this) or `"NCHW"`.
    pub fn data_format(mut self, format: &str) -> Self {
        self.data_format = format.to_owned();
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for shapes that do not fit or wrong dtypes.
    pub fn build(self) -> Result<Tensor> {
        let graph = [Some(&self.input), Some(&self.depthwise), self.pointwise.as_ref()]
            .into_iter()
            .flatten()
            .find_map(Operand::graph)
            .cloned()
            .unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let separable = self.pointwise.is_some();
        let default = if separable { "separable_conv2d" } else { "depthwise" };
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or(default))?;
        let input = nodes.tensor(&self.input, "tensor_in")?;
        let filter_name = if separable { "depthwise_filter" } else { "filter_in" };
        let filter = nodes.tensor(&self.depthwise, filter_name)?;
        let pointwise = match &self.pointwise {
            Some(pointwise) => Some(nodes.tensor(pointwise, "pointwise_filter")?),
            None => None,
        };
        // TensorFlow makes these two for a rate of dilation, which is 1 here; nothing uses them.
        nodes.shape(&filter)?;
        nodes.constant([1i32, 1], "dilation_rate")?;
        let name = if separable {
            "depthwise".to_owned()
        } else {
            scope.scope_name()
        };
        let depthwise = nodes
            .node("DepthwiseConv2dNative")
            .input(&input)
            .input(&filter)
            .attr("strides", self.strides)
            .attr("padding", self.padding.as_str())
            .attr("data_format", self.data_format.as_str())
            .name(name)
            .build()?;
        let Some(pointwise) = pointwise else {
            return Ok(depthwise);
        };
        nodes
            .node("Conv2D")
            .input(&depthwise)
            .input(&pointwise)
            .attr("strides", [1i64; 4])
            .attr("padding", "VALID")
            .attr("data_format", self.data_format.as_str())
            .name(scope.scope_name())
            .build()
    }
}

impl IntoOperand for SeparableConv2d {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// [`depthwise_conv2d_native`] in a name scope of its own, as TensorFlow's function of this name makes it.
#[track_caller]
pub fn depthwise_conv2d(input: impl IntoOperand, filter: impl IntoOperand) -> SeparableConv2d {
    separable(input, filter, None)
}

/// A depthwise convolution with `depthwise_filter` of shape [filter rows, filter columns, channels, multiplier], then one
/// across the channels with `pointwise_filter` of shape [1, 1, channels * multiplier, output channels].
#[track_caller]
pub fn separable_conv2d(
    input: impl IntoOperand,
    depthwise_filter: impl IntoOperand,
    pointwise_filter: impl IntoOperand,
) -> SeparableConv2d {
    separable(input, depthwise_filter, Some(pointwise_filter.into_operand()))
}

#[track_caller]
fn separable(input: impl IntoOperand, depthwise: impl IntoOperand, pointwise: Option<Operand>) -> SeparableConv2d {
    crate::install();
    SeparableConv2d {
        input: input.into_operand(),
        depthwise: depthwise.into_operand(),
        pointwise,
        strides: [1; 4],
        padding: "SAME".to_owned(),
        data_format: "NHWC".to_owned(),
        name: None,
        location: Location::caller(),
    }
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{DType, Value};
    let op = |op| Case::new(op).attr("strides", [1i64; 4]).attr("padding", "VALID");
    // Two channels of two by two pixels, two filters a channel.
    let image = [[[[1.0f64, 10.0], [2.0, 20.0]], [[3.0, 30.0], [4.0, 40.0]]]];
    let filter = [[[[1.0f64, -1.0], [2.0, 0.5]]], [[[3.0, 0.0], [1.0, 1.0]]]];
    let out = [[[[10.0f64, -1.0, 50.0, 35.0], [14.0, -2.0, 80.0, 50.0]]]];
    let mut cases = vec![
        op("DepthwiseConv2dNativeBackpropInput")
            .input([1i32, 2, 2, 2])
            .input(filter)
            .input([[[[1.0f64, 2.0, 3.0, 4.0], [0.0; 4]]]])
            .expect([[[[-1.0f64, 8.0], [0.0, 0.0]], [[3.0, 7.0], [0.0, 0.0]]]]),
        op("DepthwiseConv2dNativeBackpropFilter")
            .input(image)
            .input([2i32, 1, 2, 2])
            .input([[[[1.0f64, 2.0, 3.0, 4.0], [0.0; 4]]]])
            .expect([[[[1.0f64, 2.0], [30.0, 40.0]]], [[[3.0, 6.0], [90.0, 120.0]]]]),
        op("DepthwiseConv2dNative")
            .attr("data_format", "NCHW")
            .input([[[[1.0f32, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]]])
            .input([[[[1.0f32, -1.0], [2.0, 0.5]]], [[[3.0, 0.0], [1.0, 1.0]]]])
            .expect([[[[10.0f32, 14.0]], [[-1.0, -2.0]], [[50.0, 80.0]], [[35.0, 50.0]]]]),
        op("DepthwiseConv2dNative")
            .input(Value::zeros(DType::Float32, [0, 2, 2, 1]).expect("a value"))
            .input([[[[1.0f32, 2.0]]]])
            .expect(Value::zeros(DType::Float32, [0, 2, 2, 2]).expect("a value")),
    ];
    for dtype in [DType::Float64, DType::Float32, DType::Half, DType::BFloat16] {
        let cast = |value: Value| value.cast_exactly(dtype).expect("small numbers");
        let case = op("DepthwiseConv2dNative")
            .input(cast(image.into()))
            .input(cast(filter.into()));
        cases.push(case.expect(cast(out.into())));
    }
    cases
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    use graph_core::Value;
    let numbers = |len: usize, rate: f64| (0..len).map(|i| (i as f64 * rate).sin()).collect::<Vec<f64>>();
    let block = |shape: [usize; 4], rate: f64| {
        let len = shape.iter().product();
        Value::from_vec(shape, numbers(len, rate)).expect("a value")
    };
    let (images, filter) = ([1, 3, 4, 2], [2, 2, 2, 2]);
    let sizes = |shape: [usize; 4]| shape.map(|dim| dim as i32);
    let mut cases = Vec::new();
    for (stride, padding, out) in [
        (1i64, "SAME", [1, 3, 4, 4]),
        (2, "SAME", [1, 2, 2, 4]),
        (1, "VALID", [1, 2, 3, 4]),
    ] {
        let convolution = |op| {
            GradientCase::new(op)
                .attr("strides", [1, stride, stride, 1])
                .attr("padding", padding)
        };
        cases.extend([
            convolution("DepthwiseConv2dNative")
                .input(block(images, 0.9))
                .input(block(filter, 0.7)),
            convolution("DepthwiseConv2dNativeBackpropInput")
                .input(sizes(images))
                .input(block(filter, 0.7))
                .input(block(out, 0.8)),
            convolution("DepthwiseConv2dNativeBackpropFilter")
                .input(block(images, 0.9))
                .input(sizes(filter))
                .input(block(out, 0.8)),
        ]);
    }
    cases
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn dilations_and_unequal_strides_are_refused() {
        let case = |strides: [i64; 4], dilations: [i64; 4]| {
            Case::new("DepthwiseConv2dNative")
                .attr("strides", strides)
                .attr("dilations", dilations)
                .attr("padding", "SAME")
                .input([[[[1.0f32]]]])
                .input([[[[1.0f32]]]])
                .run()
        };
        assert!(case([1, 1, 1, 1], [1, 1, 1, 1]).is_ok());
        assert_eq!(case([1, 1, 1, 1], [1, 2, 2, 1]).unwrap_err().class(), "Unimplemented");
        assert_eq!(case([1, 1, 2, 1], [1, 1, 1, 1]).unwrap_err().class(), "InvalidArgument");
    }
}
