//! `AvgPool` and its gradient, which are each other's gradients.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, Result, typed_builder};

use super::conv2d::sizes_shape;
use super::pooling::{Pooling, pool_options};
use super::windows::{Format, floating_kernels, require_shape, with_attrs_of};
use crate::array::shape_of;
use crate::cpu::element::Real;
use crate::cpu::pooling;
use crate::cpu::scratch::Plain;
use crate::cuda;

const ATTRS: [&str; 4] = ["ksize", "strides", "padding", "data_format"];

fn with_attrs(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("ksize: list(int) >= 4")
        .attr("strides: list(int) >= 4")
        .attr("padding: {'SAME', 'VALID'}")
        .attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'")
        .attr("T: {half, bfloat16, float, double}")
}

/// `AvgPool`
pub(super) fn avg_pool_definition() -> OpDefinition {
    let definition = OpDefinition::new("AvgPool", "The mean of each window's pixels inside the image.")
        .input("value: T")
        .output("output: T");
    let definition = with_attrs(definition)
        .shape(|context| {
            let pooling = Pooling::of(context)?;
            pooling.infer(context)
        })
        .gradient(gradient);
    floating_kernels!(definition, forward).kernel(KernelDefinition::cuda(forward_on_device).types("T", cuda::FLOATS))
}

/// `AvgPoolGrad`
pub(super) fn avg_pool_grad_definition() -> OpDefinition {
    let definition = OpDefinition::new("AvgPoolGrad", "The gradient of AvgPool: an equal share for each pixel.")
        .input("orig_input_shape: int32")
        .input("grad: T")
        .output("output: T");
    let definition = with_attrs(definition)
        .shape(|context| sizes_shape(context, 0))
        .gradient(grad_gradient);
    floating_kernels!(definition, backward).kernel(
        KernelDefinition::cuda(backward_on_device)
            .types("T", cuda::FLOATS)
            .host_input(0),
    )
}

fn forward<T: Real + Element + Plain>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain,
{
    let pooling = Pooling::of(request)?;
    let (format, geometry) = (pooling.format, pooling.geometry(request.input_shape(0))?);
    let images = format.sizes(request.input_shape(0))?;
    Ok(Planned::new(move |context| {
        let (input, out) = (context.input::<T>(0)?, context.output::<T>(0)?);
        format.read(images, input, |input| {
            format.write(geometry.out_shape(), out, |out| {
                pooling::avg_pool(&geometry, input, out)
            });
        });
        Ok(())
    }))
}

/// The windows of a gradient, with the shapes of its operands checked.
fn planned_gradient(request: &KernelRequest<'_>) -> Result<(Pooling, pooling::Pool2dGeometry)> {
    let pooling = Pooling::of(request)?;
    let geometry = pooling.geometry(request.output_shape(0)?)?;
    let pooled = pooling.format.of_nhwc(geometry.out_shape());
    require_shape("grad", request.input_shape(1), &pooled)?;
    Ok((pooling, geometry))
}

fn backward<T: Real + Element + Plain>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain,
{
    let (Pooling { format, .. }, geometry) = planned_gradient(request)?;
    let images = format.sizes(request.output_shape(0)?)?;
    Ok(Planned::new(move |context| {
        let (gradient, out) = (context.input::<T>(1)?, context.output::<T>(0)?);
        format.read(geometry.out_shape(), gradient, |gradient| {
            format.write(images, out, |out| pooling::avg_pool_grad(&geometry, gradient, out));
        });
        Ok(())
    }))
}

fn forward_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let pooling = Pooling::of(request)?;
    let (geometry, channels_last) = (
        pooling.geometry(request.input_shape(0))?,
        pooling.format == Format::Nhwc,
    );
    let kernel = cuda::pooling::Pooling::new(request, "avg_pool", request.input_dtype(0), &geometry, channels_last)?;
    Ok(Planned::new(move |context| {
        // SAFETY: it is this kernel, and the tensors have the sizes that it was made for.
        unsafe { kernel.pool(context.input_address(0), context.output_address(0)) }
    }))
}

fn backward_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (pooling, geometry) = planned_gradient(request)?;
    let (dtype, channels_last) = (request.input_dtype(1), pooling.format == Format::Nhwc);
    let kernel = cuda::pooling::Pooling::new(request, "avg_pool_grad", dtype, &geometry, channels_last)?;
    Ok(Planned::new(move |context| {
        // SAFETY: it is this kernel, and the tensors have the sizes that it was made for.
        unsafe { kernel.avg_grad(context.input_address(1), context.output_address(0)) }
    }))
}

fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let shape = shape_of::shape_of(&context.input(0), "Shape")?;
    let gradient = with_attrs_of(context, "AvgPoolGrad", &ATTRS)?
        .input(&shape)
        .input(context.gradient(0)?)
        .build()?;
    Ok(vec![Some(gradient)])
}

fn grad_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let shape = context.node("StopGradient").input(context.input(0)).build()?;
    let gradient = with_attrs_of(context, "AvgPool", &ATTRS)?
        .input(context.gradient(0)?)
        .build()?;
    Ok(vec![Some(shape), Some(gradient)])
}

typed_builder! {
    /// A pooling by the mean about to be made; see [`avg_pool`].
    pub struct AvgPool;
}

pool_options!(AvgPool);

/// The mean of each window of images `value` of shape [batch, rows, columns, channels], of any floating-point dtype; a tensor
/// of shape [batch, output rows, output columns, channels]. Pixels of padding do not count.
#[track_caller]
pub fn avg_pool(value: impl IntoOperand) -> AvgPool {
    AvgPool(crate::op("AvgPool").input(value))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{DType, Value};
    let op = |op, padding: &str| {
        Case::new(op)
            .attr("ksize", [1i64, 2, 2, 1])
            .attr("strides", [1i64, 2, 2, 1])
            .attr("padding", padding)
    };
    let image = [[[[1.0f64], [2.0], [3.0]], [[4.0], [5.0], [6.0]], [[7.0], [8.0], [9.0]]]];
    let pooled = [[[[3.0f64], [4.5]], [[7.5], [9.0]]]];
    let empty = |shape: [usize; 4]| Value::zeros(DType::Float32, shape).expect("a value");
    let mut cases = vec![
        op("AvgPool", "VALID").input(image).expect([[[[3.0f64]]]]),
        op("AvgPool", "SAME")
            .attr("data_format", "NCHW")
            .attr("ksize", [1i64, 1, 2, 2])
            .attr("strides", [1i64, 1, 2, 2])
            .input([[[[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]])
            .expect([[[[3.0f32, 4.5], [7.5, 9.0]]]]),
        op("AvgPoolGrad", "SAME")
            .input([1i32, 3, 3, 1])
            .input([[[[4.0f64], [2.0]], [[6.0], [1.0]]]])
            .expect([[[[1.0f64], [1.0], [1.0]], [[1.0], [1.0], [1.0]], [[3.0], [3.0], [1.0]]]]),
        op("AvgPool", "VALID")
            .input(empty([0, 4, 4, 3]))
            .expect(empty([0, 2, 2, 3])),
    ];
    for dtype in [DType::Float64, DType::Float32, DType::Half, DType::BFloat16] {
        let cast = |value: Value| value.cast_exactly(dtype).expect("small numbers");
        cases.push(
            op("AvgPool", "SAME")
                .input(cast(image.into()))
                .expect(cast(pooled.into())),
        );
    }
    cases
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    use graph_core::Value;
    let image: Vec<f64> = (0..30).map(|i| (i as f64 * 0.9).sin()).collect();
    let image = || Value::from_vec([1, 3, 5, 2], &image).expect("a value");
    let mut cases = Vec::new();
    for (padding, pooled) in [("SAME", [1, 2, 5, 2]), ("VALID", [1, 1, 3, 2])] {
        let windows = |op| {
            GradientCase::new(op)
                .attr("ksize", [1i64, 2, 3, 1])
                .attr("strides", [1i64, 2, 1, 1])
                .attr("padding", padding)
        };
        cases.push(windows("AvgPool").input(image()));
        let gradient: Vec<f64> = (0..pooled.iter().product())
            .map(|i: usize| (i as f64 * 0.7).cos())
            .collect();
        let gradient = Value::from_vec(pooled, gradient).expect("a value");
        cases.push(windows("AvgPoolGrad").input([1i32, 3, 5, 2]).input(gradient));
    }
    cases
}
