//! The engine's own ops that fusions of convolutions and poolings become. They are not registered; see
//! [`crate::rewrite`] for what becomes of which operations.

use std::sync::OnceLock;

use graph_core::op::{
    AttrValue, Attributes, FromAttr, InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned,
};
use graph_core::{DType, Element, Error, PartialShape, Result};

use super::conv2d::Plan;
use super::pooling::Pooling;
use super::windows::Attrs;
use crate::cpu::convolution::{self, ConvElement};
use crate::cpu::element::Real;
use crate::cpu::pooling::{self, Pool2dGeometry, PoolElement};
use crate::cpu::scratch::Plain;
use crate::cuda;
use crate::cuda::channels::{ChannelSums, Sides};

/// The dtypes that fused ops have.
const DTYPES: &[DType] = &[DType::Float32, DType::Float64];

impl Attrs for Attributes {
    fn read<T: FromAttr>(&self, name: &str) -> Result<T> {
        Attributes::read(self, name)
    }
}

/// `_FusedConv2D`: `Conv2D` of images and filter in `NHWC`, plus the bias, and as the attributes say `Relu` of that and
/// `MaxPool` of that, whose own attributes are those of the function `pool`. Output 0 is the last but the pool, output 1 the
/// pool where there is one.
pub(crate) fn conv2d() -> &'static OpDefinition {
    static DEFINITION: OnceLock<OpDefinition> = OnceLock::new();
    DEFINITION.get_or_init(|| {
        OpDefinition::new(
            "_FusedConv2D",
            "A convolution with what follows it: bias, Relu, MaxPool.",
        )
        .input("input: T")
        .input("filter: T")
        .input("bias: T")
        .output("outputs: N * T")
        .attr("N: int >= 1")
        .attr("T: {float, double}")
        .attr("strides: list(int)")
        .attr("padding: string")
        .attr("explicit_paddings: list(int) = []")
        .attr("data_format: string = 'NHWC'")
        .attr("dilations: list(int) = [1, 1, 1, 1]")
        .attr("relu: bool")
        .attr("pool: func")
        .attr("shapes: list(shape)")
        .not_differentiable()
        .shape(said_shapes)
        .kernel(KernelDefinition::cpu(conv2d_kernel::<f32>).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cpu(conv2d_kernel::<f64>).types("T", &[DType::Float64]))
        .kernel(KernelDefinition::cuda(conv2d_on_device).types("T", DTYPES))
    })
}

/// `_MaxPoolReluGrad`: the gradient of `MaxPool(Relu(x))` with respect to x, and the sum of it for each channel. The
/// attributes of the pool are `MaxPool`'s.
pub(crate) fn max_pool_relu_grad() -> &'static OpDefinition {
    static DEFINITION: OnceLock<OpDefinition> = OnceLock::new();
    DEFINITION.get_or_init(|| {
        OpDefinition::new(
            "_MaxPoolReluGrad",
            "The gradient of MaxPool of Relu, and its sum for each channel.",
        )
        .input("activity: T")
        .input("grad: T")
        .output("backprop: T")
        .output("bias_backprop: T")
        .attr("T: {float, double}")
        .attr("ksize: list(int)")
        .attr("strides: list(int)")
        .attr("padding: string")
        .attr("data_format: string = 'NHWC'")
        .attr("shapes: list(shape)")
        .not_differentiable()
        .shape(said_shapes)
        .kernel(KernelDefinition::cpu(max_pool_relu_grad_kernel::<f32>).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cpu(max_pool_relu_grad_kernel::<f64>).types("T", &[DType::Float64]))
        .kernel(KernelDefinition::cuda(max_pool_relu_grad_on_device).types("T", DTYPES))
    })
}

/// The output shapes are known where operations are fused.
fn said_shapes(context: &mut InferenceContext<'_>) -> Result<()> {
    let shapes: Vec<PartialShape> = context.attr("shapes")?;
    for (slot, shape) in shapes.into_iter().enumerate() {
        context.set_output(slot, shape);
    }
    Ok(())
}

fn conv2d_kernel<T: ConvElement + PoolElement + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let plan = Plan::new(request, request.input_shape(0), request.input_shape(1))?;
    let geometry = plan.geometry;
    if request.num_outputs() == 1 {
        let relu: bool = request.attr("relu")?;
        return Ok(Planned::new(move |context| {
            let (images, filter) = (context.input::<T>(0)?, context.input::<T>(1)?);
            let (bias, out) = (context.input::<T>(2)?, context.output::<T>(0)?);
            convolution::conv2d_bias(&geometry, images, filter, bias, relu, out);
            Ok(())
        }));
    }
    let pool = pool_of(request)?;
    Ok(Planned::new(move |context| {
        let (images, filter, bias) = (context.input::<T>(0)?, context.input::<T>(1)?, context.input::<T>(2)?);
        let (activity, pooled) = (context.output::<T>(0)?, context.output::<T>(1)?);
        convolution::conv2d_bias_relu_max_pool(&geometry, &pool, images, filter, bias, activity, pooled);
        Ok(())
    }))
}

/// The pool of a convolution that has one.
fn pool_of(request: &KernelRequest<'_>) -> Result<Pool2dGeometry> {
    let Some(AttrValue::Func(pool)) = request.attrs.get("pool") else {
        return Err(Error::internal("a fused convolution whose pool has no attributes"));
    };
    Pooling::of(&pool.attrs)?.geometry(request.output_shape(0)?)
}

/// Bias and `Relu` are in the convolution's own kernel, the pool is another.
fn conv2d_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (plan, dtype) = (
        Plan::new(request, request.input_shape(0), request.input_shape(1))?,
        request.input_dtype(0),
    );
    let (relu, pools): (bool, bool) = (request.attr("relu")?, request.num_outputs() > 1);
    let convolution = cuda::convolution::Forward::new(request, dtype, &plan.geometry, true)?;
    let pool = if pools {
        Some(cuda::pooling::Pooling::new(
            request,
            "max_pool",
            dtype,
            &pool_of(request)?,
            true,
        )?)
    } else {
        None
    };
    Ok(Planned::new(move |context| {
        let [images, filter, bias] = [0, 1, 2].map(|index| context.input_address(index));
        let activity = context.output_address(0);
        // SAFETY: the tensors have the sizes that the kernels were made for.
        unsafe {
            convolution.run(images, filter, Some(bias), relu || pools, activity)?;
            match &pool {
                Some(pool) => pool.pool(activity, context.output_address(1)),
                None => Ok(()),
            }
        }
    }))
}

fn max_pool_relu_grad_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (geometry, dtype) = (
        Pooling::of(request)?.geometry(request.input_shape(0))?,
        request.input_dtype(0),
    );
    let gradient = cuda::pooling::Pooling::new(request, "max_pool_grad", dtype, &geometry, true)?;
    let sums = ChannelSums::new(request, dtype, Sides::of(request.input_shape(0), 3))?;
    let scratch = sums.scratch();
    let planned = Planned::new(move |context| {
        let (activity, gradients) = (context.input_address(0), context.input_address(1));
        let (backprop, bias) = (context.output_address(0), context.output_address(1));
        // SAFETY: the tensors have the sizes that the kernels were made for, and they get the scratch memory they want.
        unsafe {
            gradient.max_grad(activity, gradients, true, backprop)?;
            sums.run(backprop, bias, context.scratch_address())
        }
    });
    Ok(planned.with_scratch(scratch))
}

fn max_pool_relu_grad_kernel<T: PoolElement + Element + Real>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain,
{
    let geometry = Pooling::of(request)?.geometry(request.input_shape(0))?;
    Ok(Planned::new(move |context| {
        let (activity, gradient) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let (backprop, bias) = (context.output::<T>(0)?, context.output::<T>(1)?);
        pooling::max_pool_relu_grad(&geometry, activity, gradient, backprop, Some(bias));
        Ok(())
    }))
}
