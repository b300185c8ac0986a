//! Rewrites that name ops.

mod algebra;
mod fusion;
mod masking;
mod mixed_precision;

use graph_core::rewrite::Rewrite;

pub(crate) use fusion::elementwise;
#[cfg(test)]
pub(crate) use fusion::sum;
pub use mixed_precision::MixedPrecision;

/// The rewrites, in the order they run; those that need shapes come last.
pub(crate) const REWRITES: &[&dyn Rewrite] = &[
    &algebra::Algebra,
    &masking::MaskedUpdates,
    &mixed_precision::HALF,
    &mixed_precision::BFLOAT16,
    &fusion::convolution::CONVOLUTIONS,
    &fusion::convolution::POOL_GRADIENTS,
    &fusion::convolution::POOL_PLACES,
    &fusion::convolution::POOL_RESPONSES,
    &fusion::convolution::FILTER_GRADIENTS,
    &fusion::matmul::DENSE_LAYERS,
    &fusion::mask::RANDOM_MASKS,
    &fusion::finite::ALL_FINITE,
    &fusion::outer::OuterProducts,
    &fusion::elementwise::ELEMENTWISE,
    &fusion::sum::SUMS,
    &fusion::update::UPDATES,
    &fusion::sum::SUM_GROUPS,
    &fusion::casts::CAST_GROUPS,
    &fusion::update_group::UPDATE_GROUPS,
];
