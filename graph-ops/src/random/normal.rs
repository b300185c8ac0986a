//! `RandomStandardNormal` and `TruncatedNormal`.

use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::{KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Result};
use half::{bf16, f16};

use super::generator::{Generator, check_dimensions, shape_of_input};
use super::seed::get_seed;
use crate::composite::Composite;
use crate::cpu::philox::Philox;
use crate::cpu::random::RandomReal;
use crate::cuda;
use crate::cuda::philox::{Distribution, filling};

macro_rules! definitions {
    ($($function:ident, $name:literal, $summary:literal, $fill:ident, $distribution:ident;)*) => {$(
        #[doc = concat!("The definition of `", $name, "`.")]
        pub(crate) fn $function() -> OpDefinition {
            fn make<T: Element + RandomReal>(request: &KernelRequest<'_>) -> Result<Planned> {
                planned(request, T::$fill)
            }
            let kernel = |make, dtypes| KernelDefinition::cpu(make).types("dtype", dtypes).state(Generator::state);
            OpDefinition::new($name, $summary)
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
                .kernel(kernel(make::<f32>, &[DType::Float32]))
                .kernel(kernel(make::<f64>, &[DType::Float64]))
                .kernel(kernel(make::<f16>, &[DType::Half]))
                .kernel(kernel(make::<bf16>, &[DType::BFloat16]))
                .kernel(
                    KernelDefinition::cuda(|request| filling(request, Distribution::$distribution))
                        .types("dtype", cuda::FLOATS)
                        .state(Generator::state),
                )
        }
    )*};
}

definitions! {
    standard_normal, "RandomStandardNormal", "Normal numbers of mean 0 and standard deviation 1.", fill_normal, Normal;
    truncated, "TruncatedNormal",
        "Normal numbers of mean 0 and standard deviation 1, drawn again while their magnitude is not below 2.",
        fill_truncated_normal, TruncatedNormal;
}

fn planned<T: Element>(request: &KernelRequest<'_>, fill: fn(Philox, &mut [T])) -> Result<Planned> {
    check_dimensions(request)?;
    Ok(Planned::new(move |context| {
        let output = context.output::<T>(0)?;
        let place = context.state::<Generator>()?.reserve_elements(output.len());
        fill(place, output);
        Ok(())
    }))
}

/// Normal random numbers about to be made; see [`random_normal`] and [`truncated_normal`].
#[must_use = "an operation is made by `build`"]
pub struct RandomNormal {
    op: &'static str,
    shape: Operand,
    mean: Operand,
    stddev: Operand,
    dtype: DType,
    seed: Option<i64>,
    name: String,
    site: Composite,
}

/// Normal random numbers as a tensor of this shape (a vector of dimensions); of mean 0 and standard deviation 1 without
/// more.
///
/// ```
/// use graph_ops::random::random_normal;
/// let x = random_normal([2, 3]).mean(1.0).stddev(0.5).seed(1).build()?;
/// assert_eq!(x.shape(), [2, 3].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn random_normal(shape: impl IntoOperand) -> RandomNormal {
    RandomNormal::new("RandomStandardNormal", "random_normal", shape.into_operand())
}

/// As [`random_normal`], but numbers two standard deviations or more from the mean are drawn again.
#[track_caller]
pub fn truncated_normal(shape: impl IntoOperand) -> RandomNormal {
    RandomNormal::new("TruncatedNormal", "truncated_normal", shape.into_operand())
}

impl RandomNormal {
    #[track_caller]
    fn new(op: &'static str, name: &str, shape: Operand) -> Self {
        let site = Composite::of(&[&shape]);
        Self {
            op,
            shape,
            mean: 0.0f32.into_operand(),
            stddev: 1.0f32.into_operand(),
            dtype: DType::Float32,
            seed: None,
            name: name.to_owned(),
            site,
        }
    }

    /// The mean.
    pub fn mean(mut self, mean: impl IntoOperand) -> Self {
        self.mean = mean.into_operand();
        self
    }

    /// The standard deviation, before truncation.
    pub fn stddev(mut self, stddev: impl IntoOperand) -> Self {
        self.stddev = stddev.into_operand();
        self
    }

    /// The dtype: `Half`, `BFloat16`, `Float32` (without) or `Float64`.
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
    /// The operands' own, and `InvalidArgument` for a mean or a standard deviation of another dtype.
    pub fn build(self) -> Result<Tensor> {
        let (site, dtype) = (&self.site, self.dtype);
        let scope = site.scope(&self.name)?;
        let shape = site.shape(&self.shape, "shape")?;
        let mean = site.tensor(&self.mean, Some(dtype), "mean")?;
        let stddev = site.tensor(&self.stddev, Some(dtype), "stddev")?;
        let (seed, seed2) = get_seed(&site.graph, self.seed);
        let node = site.node(self.op).input(&shape).attr("dtype", dtype);
        let random = node.attr("seed", seed).attr("seed2", seed2).build()?;
        let scaled = site.binary("Mul", &random, &stddev, "mul")?;
        site.binary("Add", &scaled, &mean, &scope.scope_name())
    }
}

impl IntoOperand for RandomNormal {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// What TensorFlow draws with the same seeds.
#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let case = |op, dtype| {
        let case = Case::new(op).attr("dtype", dtype);
        case.attr("seed", 1i64).attr("seed2", 12i64).input([2i32, 3])
    };
    let halves = |rows: [[f32; 3]; 2]| rows.map(|row| row.map(f16::from_f32));
    let (normal, truncated) = ("RandomStandardNormal", "TruncatedNormal");
    let normals = [
        [-0.47795692f32, 0.88442147, -0.62377393],
        [-0.951011, -0.9606378, 1.4638727],
    ];
    let cut = [
        [-0.47795692f32, 0.88442147, -0.62377393],
        [-0.951011, 0.29563943, -0.8579269],
    ];
    let brains = |rows: [[f32; 3]; 2]| rows.map(|row| row.map(bf16::from_f32));
    vec![
        case(normal, DType::Float32).expect(normals),
        case(truncated, DType::Float32).expect(cut),
        case(normal, DType::Half).expect(halves(normals)).tolerance(1e-3, 1e-4),
        case(truncated, DType::Half).expect(halves(cut)).tolerance(1e-3, 1e-4),
        case(normal, DType::BFloat16)
            .expect(brains(normals))
            .tolerance(1e-2, 1e-3),
        case(truncated, DType::BFloat16)
            .expect(brains(cut))
            .tolerance(1e-2, 1e-3),
        case(normal, DType::Float64).expect([
            [0.573905587f64, 0.227524007, 0.269409534],
            [0.75114016, 1.90560931, -0.448208893],
        ]),
        case(truncated, DType::Float64).expect([
            [0.573905587f64, 0.227524007, 1.013321464],
            [1.277466302, -1.253562122, 0.914346744],
        ]),
    ]
}
