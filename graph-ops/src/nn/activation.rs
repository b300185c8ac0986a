//! Activation functions, and the ops of their gradients.

use graph_core::gradients::GradientContext;
use graph_core::graph::scope::{control_dependencies, name_scope_in};
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelDefinition, OpDefinition, Planned};
use graph_core::{DType, Graph, Result};
use half::{bf16, f16};

use crate::cpu::vector_math::{self, double};
use crate::cuda::elementwise;
use crate::math::elementwise::{
    FLOATS, REAL_NUMBERS, binary_kernels, binary_op, run_binary, run_unary, run_widened, run_widened2, unary_kernels,
    unary_op,
};
use crate::math::nodes::Nodes;
use crate::math::powers::zeros;

/// `selu(x) = SCALE x` above zero (Klambauer et al., *Self-Normalizing Neural Networks*, 2017).
const SCALE: f64 = 1.050_700_987_355_480_5;
/// `selu(x) = SCALE_ALPHA (e^x - 1)` below zero.
const SCALE_ALPHA: f64 = 1.758_099_340_847_376_9;

/// An activation: `features` to `activations`.
fn activation(name: &'static str, summary: &'static str, types: &'static str) -> OpDefinition {
    let mut definition = unary_op(name, summary, types);
    (definition.inputs[0].name, definition.outputs[0].name) = ("features", "activations");
    definition
}

/// The gradient of an activation: `gradients`, and `features` or `outputs`, to `backprops`.
fn activation_gradient(
    name: &'static str,
    summary: &'static str,
    types: &'static str,
    second: &'static str,
) -> OpDefinition {
    let mut definition = binary_op(name, summary, types).shape(InferenceContext::merged);
    (definition.inputs[0].name, definition.inputs[1].name) = ("gradients", second);
    definition.outputs[0].name = "backprops";
    definition
}

/// A gradient by an op of the gradient that comes in, and the forward output or input.
macro_rules! by {
    ($op:literal, $forward:ident) => {
        |context| {
            let backprops = context.node($op).input(context.gradient(0)?).input(context.$forward(0));
            Ok(vec![Some(backprops.build()?)])
        }
    };
}

/// The gradient of a gradient op that is linear in `gradients` and flat in `features`: the op again, and zeros.
fn flat(context: &GradientContext<'_>, backprops: OpBuilder) -> Result<Vec<Option<Tensor>>> {
    let features = context.input(1);
    let first = backprops.input(context.gradient(0)?).input(&features).build()?;
    let nodes = Nodes::of(context);
    let shape = nodes.shape(&features)?;
    Ok(vec![Some(first), Some(zeros(&nodes, &shape, features.dtype())?)])
}

/// `Relu`
pub(crate) fn relu_op() -> OpDefinition {
    unary_kernels! {
        activation("Relu", "max(x, 0), element by element; NaN of NaN.", REAL_NUMBERS).gradient(by!("ReluGrad", output));
        float |x| if x > 0.0 || x.is_nan() { x } else { 0.0 };
        plain [i8, i16, i32, i64] |x| x.max(0);
        plain [u8, u16, u32, u64] |x| x;
        cuda |x| "x > C(0) || is_nan(x) ? x : C(0)";
    }
}

/// `ReluGrad`
pub(crate) fn relu_grad() -> OpDefinition {
    let summary = "The gradients where the features are above zero, 0 elsewhere.";
    binary_kernels! {
        activation_gradient("ReluGrad", summary, REAL_NUMBERS, "features")
            .gradient(|context| flat(context, context.node("ReluGrad")));
        float |g, x| g * if x > 0.0 { 1.0 } else { 0.0 };
        plain [i8, i16, i32, i64, u8, u16, u32, u64] |g, x| if x > 0 { g } else { 0 };
        cuda |g, x| "g * (x > C(0) ? C(1) : C(0))";
    }
}

/// `Relu6`
pub(crate) fn relu6_op() -> OpDefinition {
    unary_kernels! {
        activation("Relu6", "min(max(x, 0), 6), element by element; NaN of NaN.", REAL_NUMBERS)
            .gradient(by!("Relu6Grad", output));
        float |x| { let above = if x > 0.0 || x.is_nan() { x } else { 0.0 }; if above > 6.0 { 6.0 } else { above } };
        plain [i8, i16, i32, i64] |x| x.clamp(0, 6);
        plain [u8, u16, u32, u64] |x| x.min(6);
        cuda |x| "x > C(6) ? C(6) : x > C(0) || is_nan(x) ? x : C(0)";
    }
}

/// `Relu6Grad`
pub(crate) fn relu6_grad() -> OpDefinition {
    let summary = "The gradients where the features are between 0 and 6, 0 elsewhere.";
    binary_kernels! {
        activation_gradient("Relu6Grad", summary, REAL_NUMBERS, "features")
            .gradient(|context| flat(context, context.node("Relu6Grad")));
        float |g, x| g * if x > 0.0 && x < 6.0 { 1.0 } else { 0.0 };
        plain [i8, i16, i32, i64, u8, u16, u32, u64] |g, x| if x > 0 && x < 6 { g } else { 0 };
        cuda |g, x| "g * (x > C(0) && x < C(6) ? C(1) : C(0))";
    }
}

/// Adds kernels that know the attribute `alpha`, as `f32` or `f64`.
macro_rules! with_alpha {
    ($definition:expr; unary |$alpha:ident, $x:ident| $e:expr) => {
        with_alpha!(@ $definition; |context, alpha| {
            f32, Float32: { let $alpha = alpha; run_unary::<f32, f32>(context, |$x| $e) };
            f64, Float64: { let $alpha = f64::from(alpha); run_unary::<f64, f64>(context, |$x| $e) };
            f16, Half: { let $alpha = alpha; run_widened::<f16, f16>(context, |$x: f32| $e) };
            bf16, BFloat16: { let $alpha = alpha; run_widened::<bf16, bf16>(context, |$x: f32| $e) };
        })
    };
    ($definition:expr; binary |$alpha:ident, $g:ident, $x:ident| $e:expr) => {
        with_alpha!(@ $definition; |context, alpha| {
            f32, Float32: { let $alpha = alpha; run_binary::<f32, f32, f32>(context, |$g, $x| $e) };
            f64, Float64: { let $alpha = f64::from(alpha); run_binary::<f64, f64, f64>(context, |$g, $x| $e) };
            f16, Half: { let $alpha = alpha; run_widened2::<f16, f16>(context, |$g: f32, $x: f32| $e) };
            bf16, BFloat16: { let $alpha = alpha; run_widened2::<bf16, bf16>(context, |$g: f32, $x: f32| $e) };
        })
    };
    (@ $definition:expr; |$context:ident, $alpha:ident| {$($t:ty, $dtype:ident: $run:expr;)*}) => {
        $definition
            .attr("alpha: float = 0.2")
            .attr("T: {half, bfloat16, float, double} = DT_FLOAT")
            $(.kernel(
                KernelDefinition::cpu(|request| {
                    let $alpha: f32 = request.attr("alpha")?;
                    Ok(Planned::new(move |$context| $run))
                })
                .types("T", &[DType::$dtype])
                .in_place(0, 0)
            ))*
    };
}

/// `LeakyRelu`
pub(crate) fn leaky_relu_op() -> OpDefinition {
    let definition = OpDefinition::new("LeakyRelu", "x above zero, alpha x below.")
        .input("features: T")
        .output("activations: T")
        .shape(InferenceContext::unchanged)
        .gradient(|context| {
            let backprops = context
                .node("LeakyReluGrad")
                .input(context.gradient(0)?)
                .input(context.input(0));
            Ok(vec![Some(
                backprops.attr("alpha", context.attr_value("alpha")?).build()?,
            )])
        });
    let definition = with_alpha!(definition; unary |alpha, x| if x > 0.0 { x } else { x * alpha });
    let kernel = KernelDefinition::cuda(|request| {
        let alpha: f32 = request.attr("alpha")?;
        let expression = format!("x > C(0) ? x : x * {}", elementwise::constant(alpha.into()));
        elementwise::map(request, &["x"], &expression)
    });
    definition.kernel(kernel.types("T", crate::cuda::FLOATS).in_place(0, 0))
}

/// `LeakyReluGrad`
pub(crate) fn leaky_relu_grad() -> OpDefinition {
    let definition = OpDefinition::new(
        "LeakyReluGrad",
        "The gradients where features are above zero, alpha of them below.",
    )
    .input("gradients: T")
    .input("features: T")
    .output("backprops: T")
    .shape(InferenceContext::merged)
    .gradient(|context| {
        let alpha = context.attr_value("alpha")?;
        flat(context, context.node("LeakyReluGrad").attr("alpha", alpha))
    });
    let definition = with_alpha!(definition; binary |alpha, g, x| if x > 0.0 { g } else { g * alpha });
    let kernel = KernelDefinition::cuda(|request| {
        let alpha: f32 = request.attr("alpha")?;
        let expression = format!("x > C(0) ? g : g * {}", elementwise::constant(alpha.into()));
        elementwise::map(request, &["g", "x"], &expression)
    });
    definition.kernel(kernel.types("T", crate::cuda::FLOATS).in_place(0, 0))
}

/// A number as the sum of what is below and what is above zero. A sum of functions of them becomes vector code, where the
/// compiler keeps a choice between them.
#[inline(always)]
fn parts(x: f64) -> (f64, f64) {
    if x < 0.0 { (x, 0.0) } else { (-0.0, x) }
}

/// `Elu`
pub(crate) fn elu_op() -> OpDefinition {
    unary_kernels! {
        activation("Elu", "x above zero, e^x - 1 below.", FLOATS).gradient(by!("EluGrad", output));
        single |x| if x < 0.0 { vector_math::exp_m1(x) } else { x };
        plain [f64] |x| { let (below, above) = parts(x); double::exp_m1(below) + above };
        cuda |x| "x < C(0) ? expm1(x) : x";
    }
}

/// The gradient of `EluGrad` and `SeluGrad`: the op again, and where the outputs are below zero the product.
fn curved(context: &GradientContext<'_>, op: &str) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient, outputs) = (Nodes::of(context), context.gradient(0)?, context.input(1));
    let first = nodes.binary(op, op, &gradient, &outputs)?;
    let below = nodes.binary("Less", "Less", &outputs, 0.0)?;
    let product = nodes.mul(&gradient, context.input(0))?;
    let second = nodes.select(&below, &product, &nodes.zeros_like(&outputs)?)?;
    Ok(vec![Some(first), Some(second)])
}

/// `EluGrad`
pub(crate) fn elu_grad() -> OpDefinition {
    let summary = "The gradient of y = elu(x): the gradients above zero, (y + 1) times them below.";
    binary_kernels! {
        activation_gradient("EluGrad", summary, FLOATS, "outputs").gradient(|context| curved(context, "EluGrad"));
        float |g, y| if y < 0.0 { (y + 1.0) * g } else { g };
        cuda |g, y| "y < C(0) ? (y + C(1)) * g : g";
    }
}

/// `Selu`
pub(crate) fn selu_op() -> OpDefinition {
    unary_kernels! {
        activation("Selu", "1.0507 x above zero, 1.7581 (e^x - 1) below.", FLOATS).gradient(by!("SeluGrad", output));
        single |x| if x < 0.0 { SCALE_ALPHA as f32 * vector_math::exp_m1(x) } else { SCALE as f32 * x };
        plain [f64] |x| { let (below, above) = parts(x); SCALE_ALPHA * double::exp_m1(below) + SCALE * above };
        cuda |x| "x < C(0) ? C(1.7580993408473769) * expm1(x) : C(1.0507009873554805) * x";
    }
}

/// `SeluGrad`
pub(crate) fn selu_grad() -> OpDefinition {
    let summary = "The gradient of y = selu(x): 1.0507 times the gradients above zero, (y + 1.7581) times them below.";
    binary_kernels! {
        activation_gradient("SeluGrad", summary, FLOATS, "outputs").gradient(|context| curved(context, "SeluGrad"));
        single |g, y| if y < 0.0 { g * (y + SCALE_ALPHA as f32) } else { g * SCALE as f32 };
        plain [f64] |g, y| if y < 0.0 { g * (y + SCALE_ALPHA) } else { g * SCALE };
        cuda |g, y| "y < C(0) ? g * (y + C(1.7580993408473769)) : g * C(1.0507009873554805)";
    }
}

/// `Softplus`
pub(crate) fn softplus_op() -> OpDefinition {
    unary_kernels! {
        activation("Softplus", "ln(1 + e^x), element by element.", FLOATS).gradient(|context| {
            let nodes = Nodes::of(context);
            let slope = nodes.unary("Sigmoid", &context.input(0))?;
            Ok(vec![Some(nodes.mul(context.gradient(0)?, &slope)?)])
        });
        single |x| vector_math::softplus(x);
        plain [f64] |x| double::softplus(x);
        // The thresholds are those of `vector_math`.
        cuda [f32, half::f16, half::bf16] |x| "x > C(13.942385) ? x : x < C(-13.942385) ? exp(x) : log1p(exp(x))";
        cuda [f64] |x| "x > 34.04365338911715 ? x : x < -34.04365338911715 ? exp(x) : log1p(exp(x))";
    }
}

/// `SoftplusGrad`
pub(crate) fn softplus_grad() -> OpDefinition {
    let summary = "The gradients over 1 + e^-x.";
    binary_kernels! {
        activation_gradient("SoftplusGrad", summary, FLOATS, "features").gradient(|context| {
            let (nodes, gradient, x) = (Nodes::of(context), context.gradient(0)?, context.input(1));
            let _after = control_dependencies([&gradient.op()])?;
            let first = nodes.binary("SoftplusGrad", "SoftplusGrad", &gradient, &x)?;
            let product = nodes.mul(&gradient, context.input(0))?;
            let falling = nodes.unary("Exp", &nodes.unary("Neg", &x)?)?;
            let sum = nodes.add(&falling, 2.0)?;
            let sum = nodes.add(&sum, &nodes.unary("Exp", &x)?)?;
            Ok(vec![Some(first), Some(nodes.truediv(&product, &sum)?)])
        });
        single |g, x| g / (vector_math::exp(-x) + 1.0);
        plain [f64] |g, x| g / (double::exp(-x) + 1.0);
        cuda |g, x| "g / (exp(-x) + C(1))";
    }
}

/// `Softsign`
pub(crate) fn softsign_op() -> OpDefinition {
    unary_kernels! {
        activation("Softsign", "x / (1 + |x|), element by element.", FLOATS).gradient(by!("SoftsignGrad", input));
        float |x| x / (1.0 + x.abs());
        cuda |x| "x / (C(1) + abs(x))";
    }
}

/// `SoftsignGrad`
pub(crate) fn softsign_grad() -> OpDefinition {
    binary_kernels! {
        activation_gradient("SoftsignGrad", "The gradients over (1 + |x|)^2.", FLOATS, "features").no_gradient();
        float |g, x| { let spread = 1.0 + x.abs(); g / (spread * spread) };
        cuda |g, x| "g / ((C(1) + abs(x)) * (C(1) + abs(x)))";
    }
}

/// `max(x, 0)`, element by element: the rectified linear unit.
///
/// ```
/// use graph_ops::nn;
/// let activity = nn::relu([-1.0f32, 2.0]).name("activity").build()?;
/// assert_eq!(activity.op().op_type(), "Relu");
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn relu(features: impl IntoOperand) -> OpBuilder {
    crate::op("Relu").input(features)
}

/// `min(max(x, 0), 6)`, element by element.
#[track_caller]
pub fn relu6(features: impl IntoOperand) -> OpBuilder {
    crate::op("Relu6").input(features)
}

/// `x` above zero, `e^x - 1` below.
#[track_caller]
pub fn elu(features: impl IntoOperand) -> OpBuilder {
    crate::op("Elu").input(features)
}

/// The scaled exponential linear unit: 1.0507 `x` above zero, 1.7581 `(e^x - 1)` below.
#[track_caller]
pub fn selu(features: impl IntoOperand) -> OpBuilder {
    crate::op("Selu").input(features)
}

/// `ln(1 + e^x)`, element by element.
#[track_caller]
pub fn softplus(features: impl IntoOperand) -> OpBuilder {
    crate::op("Softplus").input(features)
}

/// `x / (1 + |x|)`, element by element.
#[track_caller]
pub fn softsign(features: impl IntoOperand) -> OpBuilder {
    crate::op("Softsign").input(features)
}

/// A leaky rectified linear unit about to be made; see [`leaky_relu`].
#[must_use = "an operation is made by `build`"]
pub struct LeakyRelu {
    features: Operand,
    alpha: f32,
    name: String,
}

impl LeakyRelu {
    /// The slope below zero; 0.2 without.
    pub fn alpha(mut self, alpha: f32) -> Self {
        self.alpha = alpha;
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the operation; integers are cast to `f32` first.
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` for a dtype that is no number.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let graph = self.features.graph().cloned().unwrap_or_else(Graph::current);
        let scope = name_scope_in(&graph, &self.name)?;
        let mut features = self.features.to_tensor(&graph, "features", None)?;
        if features.dtype().is_integer() {
            features = crate::math::cast(features, DType::Float32).build()?;
        }
        crate::op("LeakyRelu")
            .input(features)
            .attr("alpha", self.alpha)
            .name(scope.scope_name())
            .build()
    }
}

impl IntoOperand for LeakyRelu {
    #[track_caller]
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// `x` above zero, `alpha x` below.
pub fn leaky_relu(features: impl IntoOperand) -> LeakyRelu {
    LeakyRelu {
        features: features.into_operand(),
        alpha: 0.2,
        name: "LeakyRelu".to_owned(),
    }
}

#[cfg(test)]
#[path = "activation_tests.rs"]
mod tests;
#[cfg(test)]
pub(crate) use tests::{cases, gradient_cases};
