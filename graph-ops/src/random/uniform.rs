//! `RandomUniform` and `RandomUniformInt`.

use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::{KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Result};
use half::{bf16, f16};

use super::generator::{Generator, check_dimensions, shape_of_input};
use super::seed::get_seed;
use crate::composite::Composite;
use crate::cpu::random::{RandomInt, RandomReal};
use crate::cuda;
use crate::cuda::philox::{Distribution, filling};

/// The definition of `RandomUniform`.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new("RandomUniform", "Numbers uniform in [0, 1).")
        .input("shape: T")
        .output("output: dtype")
        .attr("seed: int = 0")
        .attr("seed2: int = 0")
        .attr("dtype: {half, bfloat16, float, double}")
        .attr("T: {int32, int64}")
        .stateful()
        .plan_time_inputs(&[0])
        .shape(shape_of_input)
        .not_differentiable()
        .kernel(
            KernelDefinition::cpu(real::<f32>)
                .types("dtype", &[DType::Float32])
                .state(Generator::state),
        )
        .kernel(
            KernelDefinition::cpu(real::<f64>)
                .types("dtype", &[DType::Float64])
                .state(Generator::state),
        )
        .kernel(
            KernelDefinition::cpu(real::<f16>)
                .types("dtype", &[DType::Half])
                .state(Generator::state),
        )
        .kernel(
            KernelDefinition::cpu(real::<bf16>)
                .types("dtype", &[DType::BFloat16])
                .state(Generator::state),
        )
        .kernel(
            KernelDefinition::cuda(|request| filling(request, Distribution::Uniform))
                .types("dtype", cuda::FLOATS)
                .state(Generator::state),
        )
}

fn real<T: Element + RandomReal>(request: &KernelRequest<'_>) -> Result<Planned> {
    check_dimensions(request)?;
    Ok(Planned::new(|context| {
        let output = context.output::<T>(0)?;
        let place = context.state::<Generator>()?.reserve_elements(output.len());
        T::fill_uniform(place, output);
        Ok(())
    }))
}

/// The definition of `RandomUniformInt`.
pub(crate) fn int_definition() -> OpDefinition {
    OpDefinition::new("RandomUniformInt", "Integers uniform in [minval, maxval).")
        .input("shape: T")
        .input("minval: Tout")
        .input("maxval: Tout")
        .output("output: Tout")
        .attr("seed: int = 0")
        .attr("seed2: int = 0")
        .attr("Tout: {int32, int64}")
        .attr("T: {int32, int64}")
        .stateful()
        .may_fail()
        .plan_time_inputs(&[0])
        .shape(|context| {
            context.with_rank(1, 0)?;
            context.with_rank(2, 0)?;
            shape_of_input(context)
        })
        .not_differentiable()
        .kernel(
            KernelDefinition::cpu(int::<i32>)
                .types("Tout", &[DType::Int32])
                .state(Generator::state),
        )
        .kernel(
            KernelDefinition::cpu(int::<i64>)
                .types("Tout", &[DType::Int64])
                .state(Generator::state),
        )
        .kernel(
            KernelDefinition::cuda(int_on_device)
                .types("Tout", &[DType::Int32, DType::Int64])
                .state(Generator::state),
        )
}

/// It refuses bounds that are known when it is made; others are on the device.
fn int_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    if let [_, Some(low), Some(high)] = request.input_values
        && request.output_shape(0)?.num_elements() > 0
    {
        bounds(&low.to_i64_vec()?, &high.to_i64_vec()?)?;
    }
    filling(request, Distribution::UniformInt)
}

fn int<T: Element + RandomInt + PartialOrd + std::fmt::Display>(request: &KernelRequest<'_>) -> Result<Planned> {
    check_dimensions(request)?;
    Ok(Planned::new(|context| {
        let (low, high) = (context.input::<T>(1)?, context.input::<T>(2)?);
        let output = context.output::<T>(0)?;
        if output.is_empty() {
            return Ok(());
        }
        let (low, high) = bounds(low, high)?;
        let place = context.state::<Generator>()?.reserve_elements(output.len());
        T::fill_uniform_int(place, low, high, output);
        Ok(())
    }))
}

/// The scalars `minval` and `maxval`, the first below the second.
pub(super) fn bounds<T: Copy + PartialOrd + std::fmt::Display>(low: &[T], high: &[T]) -> Result<(T, T)> {
    let (&[low], &[high]) = (low, high) else {
        return Err(Error::invalid_argument("minval and maxval must be scalars"));
    };
    if low >= high {
        return Err(Error::invalid_argument("minval must be below maxval").got(format!("{low} >= {high}")));
    }
    Ok((low, high))
}

/// Uniform random numbers about to be made; see [`random_uniform`].
#[must_use = "an operation is made by `build`"]
pub struct RandomUniform {
    shape: Operand,
    minval: Operand,
    maxval: Option<Operand>,
    dtype: DType,
    seed: Option<i64>,
    name: String,
    site: Composite,
}

/// Random numbers uniform in [`minval`, `maxval`), 0 and 1 without, as a tensor of this shape (a vector of dimensions).
///
/// Integers (`.dtype(DType::Int32)` or `Int64`) need a `maxval`; where their number does not divide 2³² (or 2⁶⁴) some are
/// a little less likely than others.
///
/// ```
/// use graph_ops::random::random_uniform;
/// let x = random_uniform([2, 3]).minval(-1.0).seed(1).build()?;
/// assert_eq!(x.shape(), [2, 3].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn random_uniform(shape: impl IntoOperand) -> RandomUniform {
    let shape = shape.into_operand();
    let site = Composite::of(&[&shape]);
    RandomUniform {
        shape,
        minval: 0.into_operand(),
        maxval: None,
        dtype: DType::Float32,
        seed: None,
        name: "random_uniform".to_owned(),
        site,
    }
}

impl RandomUniform {
    /// The least number.
    pub fn minval(mut self, minval: impl IntoOperand) -> Self {
        self.minval = minval.into_operand();
        self
    }

    /// The number that all are below.
    pub fn maxval(mut self, maxval: impl IntoOperand) -> Self {
        self.maxval = Some(maxval.into_operand());
        self
    }

    /// The dtype: `Half`, `BFloat16`, `Float32` (without), `Float64`, `Int32` or `Int64`.
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
    /// The operands' own, and `InvalidArgument` for integers without `maxval` or bounds of another dtype.
    pub fn build(self) -> Result<Tensor> {
        let (site, dtype) = (&self.site, self.dtype);
        let maxval = match self.maxval {
            Some(maxval) => maxval,
            None if dtype.is_integer() => {
                return Err(Error::invalid_argument("random integers need a maxval").hint("say .maxval(..)"));
            }
            None => 1.into_operand(),
        };
        let scope = site.scope(&self.name)?;
        let shape = site.shape(&self.shape, "shape")?;
        let minval = site.tensor(&self.minval, Some(dtype), "min")?;
        let maxval = site.tensor(&maxval, Some(dtype), "max")?;
        let (seed, seed2) = get_seed(&site.graph, self.seed);
        if dtype.is_integer() {
            let node = site
                .node("RandomUniformInt")
                .input(&shape)
                .input(&minval)
                .input(&maxval);
            let node = node.attr("seed", seed).attr("seed2", seed2);
            return node.name(scope.scope_name()).build();
        }
        let node = site.node("RandomUniform").input(&shape).attr("dtype", dtype);
        let random = node.attr("seed", seed).attr("seed2", seed2).build()?;
        let range = site.binary("Sub", &maxval, &minval, "sub")?;
        let scaled = site.binary("Mul", &random, &range, "mul")?;
        site.binary("Add", &scaled, &minval, &scope.scope_name())
    }
}

impl IntoOperand for RandomUniform {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// What TensorFlow draws with the same seeds.
#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let case = |dtype| {
        let case = Case::new("RandomUniform").attr("dtype", dtype);
        case.attr("seed", 1i64).attr("seed2", 12i64).input([2i32, 3])
    };
    let int = |dtype| {
        let case = Case::new("RandomUniformInt").attr("Tout", dtype);
        case.attr("seed", 3i64).attr("seed2", 4i64).input([7i64])
    };
    vec![
        case(DType::Float32).expect([[0.6033112f32, 0.9211457, 0.523741], [0.59239197, 0.21591425, 0.9075719]]),
        case(DType::Float64).expect([
            [0.826490052f64, 0.189928401, 0.727314338],
            [0.054809051, 0.147177045, 0.286765787],
        ]),
        case(DType::Half)
            .expect([[0.3252f32, 0.02539, 0.4863], [0.875, 0.7695, 0.829]].map(|row| row.map(f16::from_f32)))
            .tolerance(1e-3, 1e-4),
        case(DType::BFloat16)
            .expect([[0.601562f32, 0.203125, 0.890625], [0.0, 0.15625, 0.632812]].map(|row| row.map(bf16::from_f32))),
        int(DType::Int32)
            .input(-5i32)
            .input(100i32)
            .expect([31i32, 5, 6, 84, 44, 80, 38]),
        int(DType::Int64)
            .input(-5i64)
            .input(100i64)
            .expect([71i64, 5, 69, -1, 27, 38, 64]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;

    #[test]
    fn bad_bounds_and_shapes_are_errors() {
        let int = || Case::new("RandomUniformInt").attr("Tout", DType::Int32);
        let error = int().input([2i32]).input(3i32).input(3i32).run().unwrap_err();
        assert_eq!(error.class(), "InvalidArgument");
        assert!(int().input([0i32]).input(3i32).input(3i32).run().is_ok());
        let real = || Case::new("RandomUniform").attr("dtype", DType::Float32);
        assert_eq!(real().input([-1i32, 2]).run().unwrap_err().class(), "InvalidArgument");
        assert!(random_uniform([2]).dtype(DType::Int32).build().is_err());
    }

    #[test]
    fn without_seeds_each_op_starts_elsewhere() {
        let case = || Case::new("RandomUniform").attr("dtype", DType::Float64).input([4i32]);
        assert_ne!(case().run().unwrap(), case().run().unwrap());
    }
}
