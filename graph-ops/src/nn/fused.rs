//! The engine's own ops that fusions of layers become: convolutions, poolings, products. They are not registered; see
//! [`crate::rewrite`] for what becomes of which operations.

use std::sync::OnceLock;

use graph_core::op::{
    AttrValue, Attributes, FromAttr, InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned,
};
use graph_core::{DType, Element, Error, PartialShape, Result, Shape};
use half::{bf16, f16};
use num_traits::Float;

use super::conv2d::Plan;
use super::pooling::Pooling;
use super::windows::Attrs;
use super::{fused_on_device, lrn};
use crate::cpu::convolution::{self, Conv2dGeometry, ConvElement, ConvScalar, Wanted};
use crate::cpu::element::Real;
use crate::cpu::gemm::{LayerElement, gemm_bias};
use crate::cpu::pooling::{self, Pool2dGeometry, PoolElement};
use crate::cpu::scratch::{Plain, with_scratch};
use crate::cpu::window::Padding;
use crate::cuda::FLOATS;
use crate::math::product_of;

impl Attrs for Attributes {
    fn read<T: FromAttr>(&self, name: &str) -> Result<T> {
        Attributes::read(self, name)
    }
}

/// `_FusedConv2D`: `Conv2D` of images and filter in `NHWC`, plus the bias, and as the attributes say `Relu` of that, `MaxPool`
/// of that and `LRN` of that, where the latter two have their own attributes as those of functions. What the outputs are, `makes`
/// says, in this order: the `activity`, which is the last but the pool; the `places` of the pool's maxima, as `_MaxPoolReluGrad`
/// wants to know them; the `pooled` activity; that `normalized`.
pub(crate) fn conv2d() -> &'static OpDefinition {
    static DEFINITION: OnceLock<OpDefinition> = OnceLock::new();
    DEFINITION.get_or_init(|| {
        OpDefinition::new(
            "_FusedConv2D",
            "A convolution with what follows it: bias, Relu, MaxPool, LRN.",
        )
        .input("input: T")
        .input("filter: T")
        .input("bias: T")
        .output("outputs: N * T")
        .attr("N: int >= 1")
        .attr("T: {half, bfloat16, float, double}")
        .attr("strides: list(int)")
        .attr("padding: string")
        .attr("explicit_paddings: list(int) = []")
        .attr("data_format: string = 'NHWC'")
        .attr("dilations: list(int) = [1, 1, 1, 1]")
        .attr("relu: bool")
        .attr("makes: list(string)")
        .attr("pool: func")
        .attr("response: func")
        .attr("shapes: list(shape)")
        .not_differentiable()
        .shape(said_shapes)
        .kernel(KernelDefinition::cpu(conv2d_kernel::<f32>).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cpu(conv2d_kernel::<f64>).types("T", &[DType::Float64]))
        .kernel(KernelDefinition::cpu(conv2d_of_halves::<f16>).types("T", &[DType::Half]))
        .kernel(KernelDefinition::cpu(conv2d_of_halves::<bf16>).types("T", &[DType::BFloat16]))
        .kernel(KernelDefinition::cuda(fused_on_device::conv2d).types("T", FLOATS))
    })
}

/// `_MaxPoolReluGrad`: the gradient of `MaxPool(Relu(x))` with respect to x, and the sum of it for each channel, of half types as
/// such or as `float`. The attributes of the pool are `MaxPool`'s. With `places`, input 0 is not the activity but where its maxima are.
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
        .output("bias_backprop: Tsum")
        .attr("T: {half, bfloat16, float, double}")
        .attr("Tsum: {half, bfloat16, float, double}")
        .attr("ksize: list(int)")
        .attr("strides: list(int)")
        .attr("padding: string")
        .attr("data_format: string = 'NHWC'")
        .attr("places: bool = false")
        .attr("shapes: list(shape)")
        .not_differentiable()
        .shape(said_shapes)
        .kernel(KernelDefinition::cpu(max_pool_relu_grad_kernel::<f32>).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cpu(max_pool_relu_grad_kernel::<f64>).types("T", &[DType::Float64]))
        .kernel(KernelDefinition::cpu(max_pool_relu_grad_of_halves::<f16>).types("T", &[DType::Half]))
        .kernel(KernelDefinition::cpu(max_pool_relu_grad_of_halves::<bf16>).types("T", &[DType::BFloat16]))
        .kernel(KernelDefinition::cuda(fused_on_device::max_pool_relu_grad).types("T", FLOATS))
    })
}

/// `_PoolFilterGrad`: of a `_FusedConv2D` with `places`, the gradients of filter and bias, from the gradient of the pool. The
/// attributes are the convolution's; the pool's windows are of 2x2, side by side.
pub(crate) fn pool_filter_grad() -> &'static OpDefinition {
    static DEFINITION: OnceLock<OpDefinition> = OnceLock::new();
    DEFINITION.get_or_init(|| {
        OpDefinition::new(
            "_PoolFilterGrad",
            "The gradients of filter and bias of a convolution that Relu and MaxPool follow.",
        )
        .input("input: T")
        .input("places: T")
        .input("grad: T")
        .output("filter_backprop: T")
        .output("bias_backprop: T")
        .attr("T: {float, double}")
        .attr("strides: list(int)")
        .attr("padding: string")
        .attr("explicit_paddings: list(int) = []")
        .attr("data_format: string = 'NHWC'")
        .attr("dilations: list(int) = [1, 1, 1, 1]")
        .attr("shapes: list(shape)")
        .not_differentiable()
        .shape(said_shapes)
        .kernel(KernelDefinition::cpu(pool_filter_grad_kernel::<f32>).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cpu(pool_filter_grad_kernel::<f64>).types("T", &[DType::Float64]))
        .kernel(KernelDefinition::cuda(fused_on_device::pool_filter_grad).types("T", &[DType::Float32, DType::Float64]))
    })
}

/// `_FusedMatMul`: `MatMul` with its attributes, plus the bias, and with `relu` `Relu` of that.
pub(crate) fn mat_mul() -> &'static OpDefinition {
    static DEFINITION: OnceLock<OpDefinition> = OnceLock::new();
    DEFINITION.get_or_init(|| {
        OpDefinition::new("_FusedMatMul", "A product of matrices, with its bias and Relu.")
            .input("a: T")
            .input("b: T")
            .input("bias: T")
            .output("activity: T")
            .attr("transpose_a: bool = false")
            .attr("transpose_b: bool = false")
            .attr("T: {half, bfloat16, float, double}")
            .attr("relu: bool")
            .attr("shapes: list(shape)")
            .not_differentiable()
            .shape(said_shapes)
            .kernel(KernelDefinition::cpu(mat_mul_kernel::<f32>).types("T", &[DType::Float32]))
            .kernel(KernelDefinition::cpu(mat_mul_kernel::<f64>).types("T", &[DType::Float64]))
            .kernel(KernelDefinition::cpu(mat_mul_kernel::<f16>).types("T", &[DType::Half]))
            .kernel(KernelDefinition::cpu(mat_mul_kernel::<bf16>).types("T", &[DType::BFloat16]))
            .kernel(KernelDefinition::cuda(fused_on_device::mat_mul).types("T", FLOATS))
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

/// What an output of a fused convolution is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    Activity,
    Places,
    Pooled,
    Normalized,
}

impl Made {
    const ALL: [(Made, &[u8]); 4] = [
        (Made::Activity, b"activity"),
        (Made::Places, b"places"),
        (Made::Pooled, b"pooled"),
        (Made::Normalized, b"normalized"),
    ];

    /// The attribute `makes` of a fused convolution.
    pub(crate) fn read(attrs: &Attributes) -> Result<Vec<Made>> {
        let names: Vec<Vec<u8>> = attrs.read("makes")?;
        let made = |name: &Vec<u8>| {
            let known = Self::ALL.into_iter().find(|(_, known)| known == name);
            known.map(|(made, _)| made).ok_or_else(|| {
                let name = String::from_utf8_lossy(name);
                Error::internal(format!("a fused convolution does not make '{name}'"))
            })
        };
        names.iter().map(made).collect()
    }

    /// Sets the attributes of a fused convolution that say what it makes.
    pub(crate) fn write(makes: &[Made], attrs: &mut Attributes) {
        let names = makes.iter().map(|&made| Self::ALL[made as usize].1.to_vec());
        attrs.set("makes", names.collect::<Vec<_>>());
        attrs.set("N", makes.len() as i64);
    }
}

fn conv2d_kernel<T: ConvScalar + ConvElement<Scalar = T> + Real<Wide = T> + Element>(
    request: &KernelRequest<'_>,
) -> Result<Planned> {
    let plan = Plan::new(request, request.input_shape(0), request.input_shape(1))?;
    let geometry = plan.geometry;
    let makes = Made::read(request.attrs)?;
    if makes == [Made::Activity] {
        let relu: bool = request.attr("relu")?;
        return Ok(Planned::new(move |context| {
            let (images, filter) = (context.input::<T>(0)?, context.input::<T>(1)?);
            let (bias, out) = (context.input::<T>(2)?, context.output::<T>(0)?);
            convolution::conv2d_bias(&geometry, images, filter, bias, relu, out);
            Ok(())
        }));
    }
    let pool = Pooling::of(function_attrs(request, "pool")?)?.geometry(&Shape::from(&geometry.out_shape()[..]))?;
    let slot = |made: Made| makes.iter().position(|&other| other == made);
    let [activity, places, pooled, normalized] = Made::ALL.map(|(made, _)| slot(made));
    let normalized = match normalized {
        Some(slot) => Some((lrn::attributes(function_attrs(request, "response")?)?, slot)),
        None => None,
    };
    Ok(Planned::new(move |context| {
        let (images, filter, bias) = (context.input::<T>(0)?, context.input::<T>(1)?, context.input::<T>(2)?);
        let output = |slot: Option<usize>| slot.map(|slot| context.output::<T>(slot)).transpose();
        let wanted = Wanted {
            activity: output(activity)?,
            places: output(places)?,
            pooled: output(pooled)?,
            normalized: match normalized {
                Some((response, slot)) => Some((response, context.output::<T>(slot)?)),
                None => None,
            },
        };
        convolution::conv2d_bias_relu_max_pool(&geometry, &pool, images, filter, bias, wanted);
        Ok(())
    }))
}

/// Of half types, which are convolved in `float` and stored: the pool is made of the activity, which is in scratch memory where it
/// is not wanted.
fn conv2d_of_halves<T: ConvElement + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let geometry = Plan::new(request, request.input_shape(0), request.input_shape(1))?.geometry;
    let (makes, relu): (_, bool) = (Made::read(request.attrs)?, request.attr("relu")?);
    let pool = match makes[..] {
        [Made::Activity] => None,
        [Made::Activity, Made::Pooled] | [Made::Pooled] => {
            let activity = Shape::from(&geometry.out_shape()[..]);
            Some(Pooling::of(function_attrs(request, "pool")?)?.geometry(&activity)?)
        }
        _ => {
            return Err(Error::internal(
                "what is made of a pool is made in `float` and `double`",
            ));
        }
    };
    let alone = makes == [Made::Pooled];
    let len = if alone {
        geometry.batch * geometry.out_image_len()
    } else {
        0
    };
    Ok(Planned::new(move |context| {
        let (images, filter, bias) = (context.input::<T>(0)?, context.input::<T>(1)?, context.input::<T>(2)?);
        with_scratch(len, |own: &mut [T]| {
            let activity = if alone { own } else { context.output::<T>(0)? };
            convolution::conv2d_bias(&geometry, images, filter, bias, relu || pool.is_some(), activity);
            if let Some(pool) = &pool {
                pooling::max_pool(pool, activity, context.output::<T>(usize::from(!alone))?);
            }
            Ok(())
        })
    }))
}

/// The attributes of a function that is an attribute.
pub(super) fn function_attrs<'a>(request: &KernelRequest<'a>, name: &str) -> Result<&'a Attributes> {
    match request.attrs.get(name) {
        Some(AttrValue::Func(function)) => Ok(&function.attrs),
        _ => Err(Error::internal(format!(
            "a fused convolution whose '{name}' has no attributes"
        ))),
    }
}

fn max_pool_relu_grad_kernel<T: PoolElement + Element + Real + Float>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain,
{
    let geometry = Pooling::of(request)?.geometry(request.output_shape(0)?)?;
    if request.attr("places")? {
        return Ok(Planned::new(move |context| {
            let (places, gradient) = (context.input::<T>(0)?, context.input::<T>(1)?);
            let (backprop, bias) = (context.output::<T>(0)?, context.output::<T>(1)?);
            pooling::max_pool_relu_grad_at(&geometry, places, gradient, backprop, Some(bias));
            Ok(())
        }));
    }
    Ok(Planned::new(move |context| {
        let (activity, gradient) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let (backprop, bias) = (context.output::<T>(0)?, context.output::<T>(1)?);
        pooling::max_pool_relu_grad(&geometry, activity, gradient, backprop, Some(bias));
        Ok(())
    }))
}

/// Of half types; the sums are of the same, or `float`.
fn max_pool_relu_grad_of_halves<T: PoolElement + Element + Real<Wide = f32> + Float>(
    request: &KernelRequest<'_>,
) -> Result<Planned> {
    let geometry = Pooling::of(request)?.geometry(request.output_shape(0)?)?;
    let in_float = request.output_dtype(1) == DType::Float32;
    Ok(Planned::new(move |context| {
        let (activity, gradient) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let backprop = context.output::<T>(0)?;
        if in_float {
            let bias = context.output::<f32>(1)?;
            pooling::max_pool_relu_grad(&geometry, activity, gradient, backprop, Some(bias));
        } else {
            let bias = context.output::<T>(1)?;
            pooling::max_pool_relu_grad(&geometry, activity, gradient, backprop, Some(bias));
        }
        Ok(())
    }))
}

/// The convolution of a `_PoolFilterGrad`, and the pool behind it.
pub(super) fn pooled_geometry(request: &KernelRequest<'_>) -> Result<(Conv2dGeometry, Pool2dGeometry)> {
    let geometry = Plan::new(request, request.input_shape(0), request.output_shape(0)?)?.geometry;
    let pool = Pool2dGeometry::new(geometry.out_shape(), [2; 2], [2; 2], [Padding::Valid; 2]);
    Ok((
        geometry,
        pool.ok_or_else(|| Error::internal("a pool that does not fit its images"))?,
    ))
}

fn pool_filter_grad_kernel<T: ConvScalar + Element + Real>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain,
{
    let (geometry, pool) = pooled_geometry(request)?;
    Ok(Planned::new(move |context| {
        let (images, places, gradient) = (context.input::<T>(0)?, context.input::<T>(1)?, context.input::<T>(2)?);
        let (filter, bias) = (context.output::<T>(0)?, context.output::<T>(1)?);
        convolution::conv2d_backprop_filter_of_pool(&geometry, &pool, images, places, gradient, filter, bias);
        Ok(())
    }))
}

fn mat_mul_kernel<T: LayerElement + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (product, relu) = (product_of(request)?, request.attr("relu")?);
    Ok(Planned::new(move |context| {
        let (a, b, bias) = (context.input::<T>(0)?, context.input::<T>(1)?, context.input::<T>(2)?);
        gemm_bias(product, a, b, bias, relu, context.output::<T>(0)?);
        Ok(())
    }))
}
