//! Rewrites that name ops.

mod algebra;
mod fusion;

use graph_core::rewrite::Rewrite;

pub(crate) use fusion::elementwise;

/// The rewrites, in the order they run; those that need shapes come last.
pub(crate) const REWRITES: &[&dyn Rewrite] = &[
    &algebra::Algebra,
    &fusion::convolution::ConvolutionFusion,
    &fusion::convolution::PoolGradientFusion,
    &fusion::elementwise::ElementwiseFusion,
    &fusion::sum::SumFusion,
    &fusion::update::UpdateFusion,
];
