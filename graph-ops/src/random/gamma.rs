//! `RandomGamma` and `RandomGammaGrad`

use graph_core::gradients::GradientContext;
use graph_core::graph::scope::control_dependencies;
use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Result};
use half::f16;

use super::generator::{Generator, check_dimensions};
use super::seed::get_seed;
use crate::composite::Composite;
use crate::cpu::incomplete::gamma_sample_derivative;
use crate::cpu::parallel::for_each_chunk;
use crate::cpu::random_gamma;
use crate::math::elementwise::binary_kernels;
use crate::math::nodes::Nodes;

/// Samples that one task draws.
const SAMPLES_A_TASK: usize = 512;

/// The definition of `RandomGamma`.
pub(crate) fn definition() -> OpDefinition {
    let kernel = |make, dtypes| KernelDefinition::cpu(make).types("T", dtypes).state(Generator::state);
    OpDefinition::new(
        "RandomGamma",
        "Samples of gamma distributions of scale 1: for each element of alpha, the distribution's shape, a tensor of samples.",
    )
    .input("shape: S")
    .input("alpha: T")
    .output("output: T")
    .attr("seed: int = 0")
    .attr("seed2: int = 0")
    .attr("S: {int32, int64}")
    .attr("T: {half, float, double}")
    .stateful()
    .plan_time_inputs(&[0])
    .shape(|context: &mut InferenceContext<'_>| {
        let shape = context.shape_from_input(0)?.concatenate(context.input(1));
        context.set_output(0, shape);
        Ok(())
    })
    .gradient(gradient)
    .kernel(kernel(make::<f32>, &[DType::Float32]))
    .kernel(kernel(make::<f64>, &[DType::Float64]))
    .kernel(kernel(make::<f16>, &[DType::Half]))
}

/// The definition of `RandomGammaGrad`.
pub(crate) fn grad_definition() -> OpDefinition {
    binary_kernels! {
        OpDefinition::new(
            "RandomGammaGrad",
            "How samples of gamma distributions move with the distributions' shapes alpha, where their probabilities stay.",
        )
        .input("alpha: T")
        .input("sample: T")
        .output("output: T")
        .attr("T: {float, double}")
        .shape(InferenceContext::broadcast)
        .no_gradient();
        double |alpha, sample| gamma_sample_derivative(alpha, sample);
        special [f32, f64] |alpha, sample| "gamma_sample_derivative(alpha, sample)";
    }
}

/// Samples are computed in double precision whatever the dtype.
trait Sample: Element {
    fn widen(self) -> f64;
    fn narrow(x: f64) -> Self;
}

macro_rules! samples {
    ($($type:ty: $widen:expr, $narrow:expr;)*) => {$(
        impl Sample for $type {
            fn widen(self) -> f64 {
                $widen(self)
            }
            fn narrow(x: f64) -> Self {
                $narrow(x)
            }
        }
    )*};
}

samples! {
    f32: f64::from, |x| x as f32;
    f64: std::convert::identity, std::convert::identity;
    f16: f64::from, f16::from_f64;
}

fn make<T: Sample>(request: &KernelRequest<'_>) -> Result<Planned> {
    check_dimensions(request)?;
    let alphas = request.input_shape(1).num_elements();
    Ok(Planned::new(move |context| {
        let (alpha, output) = (context.input::<T>(1)?, context.output::<T>(0)?);
        if output.is_empty() {
            return Ok(());
        }
        let samples = output.len() / alphas;
        let place = context.state::<Generator>()?.reserve_elements(output.len());
        for_each_chunk(output, SAMPLES_A_TASK, |start, out| {
            for (at, out) in (start..).zip(out) {
                let (sample, which) = (at / alphas, at % alphas);
                let x = random_gamma::gamma(place, which * samples + sample, alpha[which].widen());
                *out = T::narrow(x);
            }
        });
        Ok(())
    }))
}

/// By implicit reparameterization: how each sample moves with its alpha, summed over the samples of one alpha.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (shape, alpha, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let _after = control_dependencies([&gradient.op()])?;
    let rank = nodes.at_index(&nodes.shape(&shape)?, 0)?;
    let ones = {
        let dims: Vec<Operand> = vec![rank.clone().into_operand()];
        let dims = nodes.stack(dims)?;
        nodes
            .node("Fill")
            .input(&dims)
            .input(nodes.constant(1i32, "Const")?)
            .name("ones")
            .build()?
    };
    let wide = nodes.concat(vec![ones.into_operand(), nodes.shape(&alpha)?.into_operand()])?;
    let alpha = nodes.reshape(&alpha, &wide)?;
    let slope = nodes
        .node("RandomGammaGrad")
        .input(&alpha)
        .input(context.output(0))
        .build()?;
    let product = nodes.mul(&gradient, &slope)?;
    let axes = nodes.range(0, &rank)?;
    Ok(vec![
        None,
        Some(nodes.reduce("Sum", &product, Some(axes.into_operand()), false)?),
    ])
}

/// Gamma random numbers about to be made; see [`random_gamma`].
#[must_use = "an operation is made by `build`"]
pub struct RandomGamma {
    shape: Operand,
    alpha: Operand,
    beta: Option<Operand>,
    dtype: DType,
    seed: Option<i64>,
    name: String,
    site: Composite,
}

/// Samples of gamma distributions of shape `alpha`: a tensor of shape `shape` (a vector of dimensions) for each element of
/// `alpha` (and [`RandomGamma::beta`], with which it broadcasts), of shape `shape + alpha.shape`. Derivatives with respect to
/// both are those of the samples.
///
/// ```
/// use graph_ops::random::random_gamma;
/// let x = random_gamma([10], [0.5f32, 1.5]).seed(1).build()?;
/// assert_eq!(x.shape(), [10, 2].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn random_gamma(shape: impl IntoOperand, alpha: impl IntoOperand) -> RandomGamma {
    let (shape, alpha) = (shape.into_operand(), alpha.into_operand());
    let site = Composite::of(&[&shape, &alpha]);
    RandomGamma {
        shape,
        alpha,
        beta: None,
        dtype: DType::Float32,
        seed: None,
        name: "random_gamma".to_owned(),
        site,
    }
}

impl RandomGamma {
    /// The inverse scale of the distributions; 1 without.
    pub fn beta(mut self, beta: impl IntoOperand) -> Self {
        self.beta = Some(beta.into_operand());
        self
    }

    /// The dtype; `float` without.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// The op's own seed.
    pub fn seed(mut self, seed: i64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` for one of another dtype.
    pub fn build(self) -> Result<Tensor> {
        let (site, dtype) = (&self.site, self.dtype);
        let scope = site.scope(&self.name)?;
        let shape = site.shape(&self.shape, "shape")?;
        let mut alpha = site.tensor(&self.alpha, Some(dtype), "alpha")?;
        let one = graph_core::Value::from(1.0f32).cast_exactly(dtype)?;
        let beta = match &self.beta {
            Some(beta) => site.tensor(beta, Some(dtype), "beta")?,
            None => site.constant(one, "beta")?,
        };
        if self.beta.is_some() {
            // One alpha for each element of the two together.
            let zeros = site.node("ZerosLike").input(&beta).name("zeros_like").build()?;
            alpha = site.binary("AddV2", &alpha, &zeros, "add")?;
        }
        let (seed, seed2) = get_seed(&site.graph, self.seed);
        let node = site.node("RandomGamma").input(&shape).input(&alpha);
        let random = node.attr("seed", seed).attr("seed2", seed2).build()?;
        let scaled = site.binary("RealDiv", &random, &beta, "truediv")?;
        let tiny = match dtype {
            DType::Float32 => graph_core::Value::from(f32::MIN_POSITIVE),
            DType::Float64 => graph_core::Value::from(f64::MIN_POSITIVE),
            _ => graph_core::Value::from(f16::MIN_POSITIVE),
        };
        let tiny = site.constant(tiny, "Maximum/x")?;
        site.binary("Maximum", &tiny, &scaled, &scope.scope_name())
    }
}

impl IntoOperand for RandomGamma {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// What TensorFlow draws with the same seeds.
#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let case = || Case::new("RandomGamma").attr("seed", 1i64).attr("seed2", 12i64);
    let expected = [
        [0.756492656f64, 0.432015512, 4.652535667],
        [0.042907345, 0.694368677, 0.612384223],
        [0.325607495, 0.314866345, 2.400124295],
    ];
    let empty = Value::zeros(DType::Float32, [2, 0]).expect("a value");
    vec![
        case().input([3i32]).input([0.5f64, 1.0, 3.0]).expect(expected),
        case()
            .input([3i64])
            .input([0.5f32, 1.0, 3.0])
            .expect(expected.map(|row| row.map(|x| x as f32))),
        case()
            .input([3i32])
            .input([0.5f32, 1.0, 3.0].map(f16::from_f32))
            .expect(expected.map(|row| row.map(f16::from_f64)))
            .tolerance(1e-3, 1e-4),
        case().input([2i32]).input(Vec::<f32>::new()).expect(empty),
        Case::new("RandomGammaGrad")
            .input([0.5f64, 1.0, 3.0, 10.0, 200.0, 0.01])
            .input([0.3f64, 2.5, 2.0, 12.0, 190.0, 1e-3])
            .expect([
                1.009801946f64,
                1.797032233,
                0.856571422,
                1.112329443,
                0.97538506,
                0.635413801,
            ]),
        Case::new("RandomGammaGrad")
            .input([[0.5f32], [1.0]])
            .input([0.3f32, 2.5, 0.0])
            .expect([[1.0098021f32, 2.7304873, 0.0], [0.5957784, 1.7970319, 0.0]]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph_core::Session;

    #[test]
    fn the_gradient_sums_over_the_samples_of_each_alpha() -> Result<()> {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let alpha = crate::array::constant([[0.5f64, 2.0], [5.0, 1.0]]).build()?;
        let samples = random_gamma([3, 4], &alpha).dtype(DType::Float64).seed(5).build()?;
        let gradient = graph_core::gradients([&samples], [&alpha])?
            .build()?
            .remove(0)
            .expect("there is one");
        let (samples, gradient): (Vec<f64>, Vec<f64>) = Session::new(&graph)?.run((&samples, &gradient), ())?;
        for (which, alpha) in [0.5, 2.0, 5.0, 1.0].into_iter().enumerate() {
            let own = samples.iter().skip(which).step_by(4);
            let expected: f64 = own.map(|&sample| gamma_sample_derivative(alpha, sample)).sum();
            assert!((gradient[which] - expected).abs() < 1e-9 * expected, "{which}");
        }
        Ok(())
    }

    #[test]
    fn the_mean_is_alpha_over_beta() -> Result<()> {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let samples = random_gamma([20_000], 3.0f32).beta([2.0f32]).seed(3).build()?;
        let samples: Vec<f32> = Session::new(&graph)?.run(&samples, ())?;
        let mean = samples.iter().sum::<f32>() / samples.len() as f32;
        assert!((mean - 1.5).abs() < 0.02, "{mean}");
        Ok(())
    }
}
