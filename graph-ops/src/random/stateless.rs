//! `StatelessRandomUniform`, `StatelessRandomNormal`, `StatelessTruncatedNormal`, `StatelessRandomUniformInt`: equal seeds
//! give equal numbers in every run.

use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, Value};
use half::{bf16, f16};

use super::generator::{check_dimensions, shape_of_input};
use super::uniform::bounds;
use crate::cpu::philox::{Key, Philox};
use crate::cpu::random::{RandomInt, RandomReal};
use crate::cuda::FLOATS;
use crate::cuda::philox::{Distribution, filling_by_seeds};

/// The generator that two seeds lead to, mixed so that any two numbers are good seeds (`stateless_random_ops.cc`).
pub(super) fn generator(seeds: &Value) -> Result<Philox> {
    let &[seed, seed2] = seeds.to_i64_vec()?.as_slice() else {
        return Err(Error::invalid_argument("the seed must be two numbers").got(format!("shape {}", seeds.shape())));
    };
    let (seed, seed2) = (seed as u64, seed2 as u64);
    let [k0, k1, c2, c3] = Philox::new(Key {
        key: [0x3ec8_f720, 0x0246_1e29],
        counter: u128::from(seed) | u128::from(seed2) << 64,
    })
    .next_block();
    Ok(Philox::new(Key {
        key: [k0, k1],
        counter: u128::from(c2) << 64 | u128::from(c3) << 96,
    }))
}

/// An error if input `index` cannot be a seed.
pub(super) fn require_two_seeds(context: &InferenceContext<'_>, index: usize) -> Result<()> {
    let seed = context.with_rank(index, 1)?;
    if !seed.is_compatible_with(&PartialShape::vector(2)) {
        return Err(Error::invalid_argument("the seed must be two numbers").got(format!("shape {seed}")));
    }
    Ok(())
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    require_two_seeds(context, 1)?;
    shape_of_input(context)
}

macro_rules! definitions {
    ($($function:ident, $name:literal, $summary:literal, $fill:ident, $distribution:ident;)*) => {$(
        #[doc = concat!("The definition of `", $name, "`.")]
        pub(crate) fn $function() -> OpDefinition {
            fn make<T: Element + RandomReal>(request: &KernelRequest<'_>) -> Result<Planned> {
                planned(request, T::$fill)
            }
            OpDefinition::new($name, $summary)
                .input("shape: T")
                .input("seed: Tseed")
                .output("output: dtype")
                .attr("dtype: {half, bfloat16, float, double} = DT_FLOAT")
                .attr("T: {int32, int64} = DT_INT32")
                .attr("Tseed: {int32, int64} = DT_INT64")
                .plan_time_inputs(&[0])
                .shape(shape)
                .not_differentiable()
                .kernel(KernelDefinition::cpu(make::<f32>).types("dtype", &[DType::Float32]))
                .kernel(KernelDefinition::cpu(make::<f64>).types("dtype", &[DType::Float64]))
                .kernel(KernelDefinition::cpu(make::<f16>).types("dtype", &[DType::Half]))
                .kernel(KernelDefinition::cpu(make::<bf16>).types("dtype", &[DType::BFloat16]))
                .kernel(
                    KernelDefinition::cuda(|request| filling_by_seeds(request, Distribution::$distribution))
                        .types("dtype", FLOATS),
                )
        }
    )*};
}

definitions! {
    uniform, "StatelessRandomUniform", "Numbers uniform in [0, 1), which the seed alone decides.", fill_uniform, Uniform;
    normal, "StatelessRandomNormal",
        "Normal numbers of mean 0 and standard deviation 1, which the seed alone decides.", fill_normal, Normal;
    truncated_normal, "StatelessTruncatedNormal",
        "Normal numbers drawn again while their magnitude is not below 2, which the seed alone decides.",
        fill_truncated_normal, TruncatedNormal;
}

fn planned<T: Element>(request: &KernelRequest<'_>, fill: fn(Philox, &mut [T])) -> Result<Planned> {
    check_dimensions(request)?;
    Ok(Planned::new(move |context| {
        fill(generator(&context.input_value(1)?)?, context.output::<T>(0)?);
        Ok(())
    }))
}

/// The definition of `StatelessRandomUniformInt`.
pub(crate) fn uniform_int() -> OpDefinition {
    OpDefinition::new(
        "StatelessRandomUniformInt",
        "Integers uniform in [minval, maxval), which the seed alone decides.",
    )
    .input("shape: T")
    .input("seed: Tseed")
    .input("minval: dtype")
    .input("maxval: dtype")
    .output("output: dtype")
    .attr("dtype: {int32, int64}")
    .attr("T: {int32, int64} = DT_INT32")
    .attr("Tseed: {int32, int64} = DT_INT64")
    .may_fail()
    .plan_time_inputs(&[0])
    .shape(|context| {
        context.with_rank(2, 0)?;
        context.with_rank(3, 0)?;
        shape(context)
    })
    .not_differentiable()
    .kernel(KernelDefinition::cpu(int::<i32>).types("dtype", &[DType::Int32]))
    .kernel(KernelDefinition::cpu(int::<i64>).types("dtype", &[DType::Int64]))
    .kernel(KernelDefinition::cuda(|request| {
        // Bounds that are known when it is made are looked at; others are on the device.
        if let [_, _, Some(low), Some(high)] = request.input_values {
            bounds(&low.to_i64_vec()?, &high.to_i64_vec()?)?;
        }
        filling_by_seeds(request, Distribution::UniformInt)
    }))
}

fn int<T: Element + RandomInt + PartialOrd + std::fmt::Display>(request: &KernelRequest<'_>) -> Result<Planned> {
    check_dimensions(request)?;
    Ok(Planned::new(|context| {
        let (low, high) = bounds(context.input::<T>(2)?, context.input::<T>(3)?)?;
        T::fill_uniform_int(generator(&context.input_value(1)?)?, low, high, context.output::<T>(0)?);
        Ok(())
    }))
}

/// What TensorFlow draws with the seed [1, 12], and integers with [3, 4].
#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let case = |op, dtype| Case::new(op).attr("dtype", dtype).input([2i32, 3]).input([1i64, 12]);
    let int = |dtype| {
        Case::new("StatelessRandomUniformInt")
            .attr("dtype", dtype)
            .input([7i32])
            .input([3i32, 4])
    };
    let (uniform, normal, truncated) = (
        "StatelessRandomUniform",
        "StatelessRandomNormal",
        "StatelessTruncatedNormal",
    );
    vec![
        case(uniform, DType::Float32).expect([
            [0.9157816f32, 0.72586656, 0.46390212],
            [0.87810147, 0.039443612, 0.67501867],
        ]),
        case(normal, DType::Float32).expect([
            [-0.4146563f32, -0.06336266, -0.85915875],
            [0.89331394, -2.265775, -1.1541358],
        ]),
        case(truncated, DType::Float32).expect([
            [-0.4146563f32, -0.06336266, -0.85915875],
            [0.89331394, -1.1844714, -0.75259274],
        ]),
        case(uniform, DType::Float64).expect([
            [0.326253077f64, 0.711217848, 0.315549068],
            [0.214130715, 0.609933472, 0.371848967],
        ]),
        case(normal, DType::Float64).expect([
            [-1.452501266f64, -0.361114737, 1.480431978],
            [0.33941616, 0.716922079, -0.689081645],
        ]),
        case(truncated, DType::Float64).expect([
            [-1.452501266f64, -0.361114737, 1.062885335],
            [-0.678116879, 0.509626756, -1.022521606],
        ]),
        int(DType::Int32)
            .input(-5i32)
            .input(100i32)
            .expect([98i32, 32, 7, 94, 22, 64, 24]),
        int(DType::Int64)
            .input(-5i64)
            .input(100i64)
            .expect([15i64, 46, 46, 84, 42, 93, 18]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn a_seed_is_two_numbers() {
        let case = Case::new("StatelessRandomUniform").attr("dtype", graph_core::DType::Float32);
        assert!(case.input([2i32]).input([1i64, 2, 3]).run().is_err());
    }
}
