//! Every op, each in one place: definition, shape function, gradient, kernels, builder function and test cases.
//!
//! A folder is a family, a file is an op or a tight family of them. To add an op, write its file and add one line to the
//! lists of its family's `mod.rs`. On top of the ops stand optimizers, losses, initializers and summaries.
//!
//! The feature `full`, on by default, adds what most training programs do not need, and which takes a fifth of the time to
//! compile: linear algebra, image processing, volumes, recurrent cells, sets, and samplers of rarer distributions. A program
//! that builds its own graph may do without; one that imports any graph wants it.

pub mod array;
mod composite;
pub mod control;
pub mod cpu;
mod cuda;
pub mod gpu;
pub mod image;
pub mod io;
#[cfg(feature = "full")]
pub mod linalg;
pub mod math;
pub mod nn;
pub mod random;
mod rewrite;
pub mod saved_model;
pub mod state;
pub mod summary;
#[cfg(test)]
mod testing;
pub mod train;

use graph_core::graph::OpBuilder;
use graph_core::op::{DefaultRegistry, OpDefinition, Registry};

/// The definitions of all ops, a family a slice.
const FAMILIES: &[&[fn() -> OpDefinition]] = &[
    array::OPS,
    control::OPS,
    #[cfg(feature = "full")]
    image::OPS,
    io::OPS,
    #[cfg(feature = "full")]
    linalg::OPS,
    math::OPS,
    #[cfg(feature = "full")]
    math::MORE_OPS,
    nn::OPS,
    #[cfg(feature = "full")]
    nn::MORE_OPS,
    random::OPS,
    #[cfg(feature = "full")]
    random::MORE_OPS,
    state::OPS,
    state::DENSE_UPDATES,
    state::SPARSE_UPDATES,
    state::UPDATES_BY_HANDLE,
    summary::OPS,
];

fn all_ops() -> Registry {
    Registry::new(FAMILIES, rewrite::REWRITES.to_vec()).accelerators_from(gpu::all)
}

// A program's first call may be one of the core, which cannot name this crate.
inventory::submit! { DefaultRegistry(all_ops) }

/// Makes all ops known to the core, which a program that names anything of this crate need not do itself, and hands out what
/// is known of them.
pub fn install() -> &'static Registry {
    graph_core::op::install(all_ops)
}

/// Begins an operation of type `op`.
#[track_caller]
pub(crate) fn op(name: &str) -> OpBuilder {
    install();
    OpBuilder::new(name)
}
