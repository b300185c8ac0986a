//! Rewrites that name ops.

mod algebra;

use graph_core::rewrite::Rewrite;

/// The rewrites, in the order they run.
pub(crate) const REWRITES: &[&dyn Rewrite] = &[&algebra::Algebra];
