//! What stands around the network: initial values and pictures.

use graph_core::graph::IntoOperand;
use graph_core::graph::scope::name_scope;
use graph_core::{Tensor, Variable};
use graph_ops::{array, math, random, summary};

use crate::error::Result;
use crate::third_party::put_kernels_on_grid;

/// Random initial values of shape `shape`, dtype `float`: a truncated normal distribution with standard deviation
/// 1/sqrt(`shape[0]`), in a scope named `name`.
///
/// The tutorial calls it Xavier's initializer; Glorot and Bengio, "Understanding the difficulty of training deep feedforward
/// neural networks" (2010), use the number of inputs of a neuron, which is the first dimension of a dot-product layer's
/// weights only.
///
/// # Errors
/// A shape without dimensions, or what building the operations reports.
pub fn initializer<const N: usize>(shape: [usize; N], name: &str) -> Result<Tensor> {
    let _scope = name_scope(name)?;
    let stddev = math::sqrt(shape[0] as f32).name("stddev").build()?;
    let stddev = (1.0f32 / &stddev)?;
    let shape = shape.map(|dim| dim as i32);
    Ok(random::truncated_normal(shape)
        .stddev(stddev)
        .name("xavier_init")
        .build()?)
}

/// Moves the images of a block to the end: [N, H, W, C] becomes [H, W, C, N].
///
/// # Errors
/// A tensor that is not of rank 4.
pub fn nhwc2hwcn(nhwc: impl IntoOperand, name: &str) -> Result<Tensor> {
    Ok(array::transpose(nhwc).perm([1, 2, 3, 0]).name(name).build()?)
}

/// Moves the images of a block before its channels: [N, H, W, C] becomes [H, W, N, C].
///
/// # Errors
/// A tensor that is not of rank 4.
pub fn nhwc2hwnc(nhwc: impl IntoOperand, name: &str) -> Result<Tensor> {
    Ok(array::transpose(nhwc).perm([1, 2, 0, 3]).name(name).build()?)
}

/// Adds the filters [H, W, C, N] of a convolution, laid out on one grid, to the image summaries, as `name`.
///
/// # Errors
/// Filters of a shape that is not fully known.
pub fn visualize_filters(filters: &Variable, name: &str) -> Result<()> {
    let grid = put_kernels_on_grid(filters, 1, &format!("visualizer_{name}"))?;
    summary::image(name, grid).max_outputs(1).build()?;
    Ok(())
}

/// How [`visualize_images`] shows several images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// One picture an image, as the tutorial does.
    #[default]
    Single,
    /// All images on one grid in one picture: what the tutorial notes as still to be done.
    Grid,
}

/// Adds the first `num_images` of the images [N, H, W, C] to the image summaries, as `name`.
///
/// # Errors
/// A tensor that is not of rank 4; for a grid, images whose size is not known, and, in a run, fewer images than shown.
pub fn visualize_images(images: &Tensor, name: &str, num_images: usize, layout: Layout) -> Result<()> {
    match layout {
        Layout::Single => {
            summary::image(name, images).max_outputs(num_images as i64).build()?;
        }
        Layout::Grid => {
            let shape = images.shape();
            let sizes = [1, 2, 3].map(|axis| shape.dim(axis).map_or(-1, |dim| dim as i32));
            let first =
                array::slice(images, [0, 0, 0, 0], [num_images as i32, sizes[0], sizes[1], sizes[2]]).build()?;
            let kernels = nhwc2hwcn(first, &format!("nhwc2hwcn_{name}"))?;
            let grid = put_kernels_on_grid(&kernels, 1, &format!("visualizer_{name}"))?;
            summary::image(name, grid).max_outputs(1).build()?;
        }
    }
    Ok(())
}
