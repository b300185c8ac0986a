//! The engine's own op of random masks. It is not registered; see [`crate::rewrite`] for what becomes of which operations.

use std::sync::OnceLock;

use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result};
use half::{bf16, f16};
use num_traits::Float;

use super::generator::Generator;
use crate::cpu::parallel::{GRAIN, for_each_chunk};
use crate::cpu::random::RandomMask;
use crate::cuda::FLOATS;
use crate::cuda::philox::{Distribution, filling};

/// `_RandomMask`: 1 where a number uniform in [0, 1) is at least the threshold, else 0. The numbers are those that
/// `RandomUniform` with these seeds draws.
pub(crate) fn definition() -> &'static OpDefinition {
    static DEFINITION: OnceLock<OpDefinition> = OnceLock::new();
    DEFINITION.get_or_init(|| {
        OpDefinition::new(
            "_RandomMask",
            "1 where a random number is at least the threshold, else 0.",
        )
        .input("threshold: T")
        .output("mask: T")
        .attr("seed: int = 0")
        .attr("seed2: int = 0")
        .attr("T: {half, bfloat16, float, double}")
        .attr("shape: shape")
        .stateful()
        .not_differentiable()
        .shape(|context: &mut InferenceContext<'_>| {
            let shape: PartialShape = context.attr("shape")?;
            context.set_output(0, shape);
            Ok(())
        })
        .kernel(
            KernelDefinition::cpu(kernel::<f32>)
                .types("T", &[DType::Float32])
                .state(Generator::state),
        )
        .kernel(
            KernelDefinition::cpu(kernel::<f64>)
                .types("T", &[DType::Float64])
                .state(Generator::state),
        )
        .kernel(
            KernelDefinition::cpu(kernel::<f16>)
                .types("T", &[DType::Half])
                .state(Generator::state),
        )
        .kernel(
            KernelDefinition::cpu(kernel::<bf16>)
                .types("T", &[DType::BFloat16])
                .state(Generator::state),
        )
        .kernel(
            KernelDefinition::cuda(|request| filling(request, Distribution::Mask))
                .types("T", FLOATS)
                .state(Generator::state),
        )
    })
}

fn kernel<T: Element + RandomMask + Float>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let &[threshold] = context.input::<T>(0)? else {
            return Err(Error::internal("the threshold of a random mask is no scalar"));
        };
        let output = context.output::<T>(0)?;
        // The stream moves on even where nothing is drawn.
        let place = context.state::<Generator>()?.reserve_elements(output.len());
        if threshold <= T::zero() {
            for_each_chunk(output, GRAIN, |_, chunk| chunk.fill(T::one()));
        } else {
            T::fill_mask(place, threshold, output);
        }
        Ok(())
    }))
}
