//! `LRN`, local response normalization across channels, and its gradient.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{Attributes, InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Result, typed_builder};
use graph_cuda::{Cuda, Function, Source, arguments};
use half::{bf16, f16};

use super::windows::{require_shape, with_attrs_of};
use crate::cpu::element::Real;
use crate::cpu::lrn as routines;
use crate::cpu::lrn::LocalResponse;
use crate::cpu::scratch::Plain;
use crate::cpu::simd::Vectored;
use crate::cuda::type_name;
use crate::cuda::window::{joined_source, small};

const SOURCE: Source = joined_source!("lrn.cu": "../cuda/images.cuh", "lrn.cu");
const DTYPES: &[DType] = &[DType::Float32, DType::Half, DType::BFloat16];

fn with_attrs(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("depth_radius: int = 5")
        .attr("bias: float = 1")
        .attr("alpha: float = 1")
        .attr("beta: float = 0.5")
        .attr("T: {half, bfloat16, float} = DT_FLOAT")
}

/// `LRN`
pub(super) fn lrn_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "LRN",
        "input / (bias + alpha * sum of squares within depth_radius channels)^beta; Krizhevsky et al. (2012), section 3.3, \
         where alpha is not divided by the number of channels.",
    )
    .input("input: T")
    .output("output: T");
    with_attrs(definition)
        .shape(|context| {
            let shape = context.with_rank(0, 4)?;
            context.set_output(0, shape);
            Ok(())
        })
        .gradient(gradient)
        .kernel(KernelDefinition::cpu(forward::<f32>).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cpu(forward::<f16>).types("T", &[DType::Half]))
        .kernel(KernelDefinition::cpu(forward::<bf16>).types("T", &[DType::BFloat16]))
        .kernel(KernelDefinition::cuda(forward_on_device).types("T", DTYPES))
}

/// `LRNGrad`
pub(super) fn lrn_grad_definition() -> OpDefinition {
    let definition = OpDefinition::new("LRNGrad", "The gradient of LRN, from its input and its output.")
        .no_gradient()
        .input("input_grads: T")
        .input("input_image: T")
        .input("output_image: T")
        .output("output: T");
    with_attrs(definition)
        .shape(grad_shape)
        .kernel(KernelDefinition::cpu(backward::<f32>).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cpu(backward::<f16>).types("T", &[DType::Half]))
        .kernel(KernelDefinition::cpu(backward::<bf16>).types("T", &[DType::BFloat16]))
        .kernel(KernelDefinition::cuda(backward_on_device).types("T", DTYPES))
}

fn grad_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let mut shape = context.with_rank(0, 4)?;
    for index in 1..3 {
        shape = shape.merge(context.input(index))?;
    }
    context.set_output(0, shape);
    Ok(())
}

pub(super) fn attributes(attrs: &Attributes) -> Result<LocalResponse> {
    let depth_radius: i64 = attrs.read("depth_radius")?;
    Ok(LocalResponse {
        depth_radius: usize::try_from(depth_radius)
            .map_err(|_| Error::invalid_argument("'depth_radius' must not be negative").got(depth_radius))?,
        bias: attrs.read("bias")?,
        alpha: attrs.read("alpha")?,
        beta: attrs.read("beta")?,
    })
}

fn forward<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain + Vectored,
{
    let (attributes, depth) = (attributes(request.attrs)?, request.input_shape(0)[3]);
    Ok(Planned::new(move |context| {
        routines::lrn(&attributes, depth, context.input::<T>(0)?, context.output::<T>(0)?);
        Ok(())
    }))
}

fn check_operands(request: &KernelRequest<'_>) -> Result<()> {
    (1..3).try_for_each(|index| {
        require_shape(
            "an operand of LRNGrad",
            request.input_shape(index),
            request.input_shape(0),
        )
    })
}

fn backward<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain + Vectored,
{
    let (attributes, depth) = (attributes(request.attrs)?, request.input_shape(0)[3]);
    check_operands(request)?;
    Ok(Planned::new(move |context| {
        let (gradient, input) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let (output, out) = (context.input::<T>(2)?, context.output::<T>(0)?);
        routines::lrn_grad(&attributes, depth, gradient, input, output, out);
        Ok(())
    }))
}

/// The attributes as kernels take them, with the depth; channels further away than it do not exist.
#[repr(C)]
#[derive(Clone, Copy)]
struct Response {
    depth: i32,
    radius: i32,
    bias: f32,
    alpha: f32,
    beta: f32,
}

fn on_device(request: &KernelRequest<'_>, name: &str) -> Result<(Function, Response, usize)> {
    let (attributes, depth) = (attributes(request.attrs)?, request.input_shape(0)[3]);
    let function = Cuda::of(request)?.function(&SOURCE, name, &[("T", type_name(request.input_dtype(0))?)])?;
    let response = Response {
        depth: small(depth)?,
        radius: small(attributes.depth_radius.min(depth))?,
        bias: attributes.bias,
        alpha: attributes.alpha,
        beta: attributes.beta,
    };
    let n = request.input_shape(0).num_elements();
    // Squares of the neighbours are added, or what they give to the gradient.
    let neighbours = (2 * attributes.depth_radius.min(depth) + 1).min(depth);
    Ok((function.doing(2 * n * neighbours), response, n))
}

fn forward_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (function, response, n) = on_device(request, "lrn")?;
    Ok(Planned::new(move |context| {
        let (input, out) = (context.input_address(0), context.output_address(0));
        // SAFETY: these are the kernel's parameters; both have `n` elements.
        unsafe { function.launch_over(n, arguments![out, input, n as i64, response]) }
    }))
}

fn backward_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    check_operands(request)?;
    let (function, response, n) = on_device(request, "lrn_grad")?;
    Ok(Planned::new(move |context| {
        let [gradients, input, output] = [0, 1, 2].map(|index| context.input_address(index));
        let out = context.output_address(0);
        // SAFETY: these are the kernel's parameters; all have `n` elements.
        unsafe { function.launch_over(n, arguments![out, gradients, input, output, n as i64, response]) }
    }))
}

fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = with_attrs_of(context, "LRNGrad", &["depth_radius", "bias", "alpha", "beta"])?
        .input(context.gradient(0)?)
        .input(context.input(0))
        .input(context.output(0))
        .build()?;
    Ok(vec![Some(gradient)])
}

typed_builder! {
    /// A normalization about to be made; see [`local_response_normalization`].
    pub struct LocalResponseNormalization;
}

impl LocalResponseNormalization {
    /// Channels on each side that take part; 5 without.
    pub fn depth_radius(self, radius: i64) -> Self {
        Self(self.0.attr("depth_radius", radius))
    }

    /// What the sum is added to; 1 without.
    pub fn bias(self, bias: f32) -> Self {
        Self(self.0.attr("bias", bias))
    }

    /// What the sum is multiplied with; 1 without.
    pub fn alpha(self, alpha: f32) -> Self {
        Self(self.0.attr("alpha", alpha))
    }

    /// The exponent; 0.5 without.
    pub fn beta(self, beta: f32) -> Self {
        Self(self.0.attr("beta", beta))
    }
}

/// Normalizes images `input` of shape [batch, rows, columns, channels], `float`, `half` or `bfloat16`, across neighbouring
/// channels: `input / (bias + alpha * sum of squares)^beta`, the sum over the channel itself and `depth_radius` channels on
/// each side. From Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012).
#[track_caller]
pub fn local_response_normalization(input: impl IntoOperand) -> LocalResponseNormalization {
    LocalResponseNormalization(crate::op("LRN").input(input))
}

/// The short name of [`local_response_normalization`].
#[track_caller]
pub fn lrn(input: impl IntoOperand) -> LocalResponseNormalization {
    local_response_normalization(input)
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    // With radius 1, alpha 1, bias 1 and beta 1: x / (1 + squares of itself and its neighbours).
    let case = |op| {
        Case::new(op)
            .attr("depth_radius", 1i64)
            .attr("bias", 1.0f32)
            .attr("alpha", 1.0f32)
            .attr("beta", 1.0f32)
    };
    let (x, y) = ([[[[1.0f32, 2.0, 3.0]]]], [[[[1.0f32 / 6.0, 2.0 / 15.0, 3.0 / 14.0]]]]);
    let mut cases = vec![
        case("LRN").input(x).expect(y),
        // gradient / norm - 2 x * sum over neighbours of gradient * y / norm, with the gradient (1, 0, 0).
        case("LRNGrad")
            .input([[[[1.0f32, 0.0, 0.0]]]])
            .input(x)
            .input(y)
            .expect([[[[1.0f32 / 6.0 - 2.0 / 36.0, -4.0 / 36.0, 0.0]]]]),
        case("LRN")
            .input(Value::zeros(DType::Float32, [0, 2, 2, 3]).expect("a value"))
            .expect(Value::zeros(DType::Float32, [0, 2, 2, 3]).expect("a value")),
    ];
    for dtype in [DType::Half, DType::BFloat16] {
        let cast = |value: Value| value.cast_exactly(dtype).expect("rounded");
        let case = case("LRN").tolerance(1e-2, 0.0);
        cases.push(case.input(cast(x.into())).expect(cast(y.into())));
    }
    cases
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let x = [[[[1.0f32, -2.0, 0.5, 3.0], [0.25, 0.75, -1.5, 2.0]]]];
    [0.5f32, 0.75, 1.0, 0.6]
        .map(|beta| {
            GradientCase::new("LRN")
                .attr("depth_radius", 2i64)
                .attr("bias", 1.5f32)
                .attr("alpha", 0.3f32)
                .attr("beta", beta)
                .input(x)
                .tolerance(1e-2, 1e-3, 1e-2)
                .first_order_only()
        })
        .into()
}
