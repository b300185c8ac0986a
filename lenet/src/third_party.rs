//! The layout of filters on a grid.
//!
//! The idea is kukuruza's, published as a gist that the tutorial cites; the code here is written anew.

use graph_core::graph::scope::name_scope;
use graph_core::graph::{IntoOperand, Operand};
use graph_core::{Error as GraphError, PartialShape, Tensor};
use graph_ops::{array, image, math};

use crate::error::Result;

/// Lays the kernels [Y, X, C, N] out on a grid with `pad` black pixels around each, in a scope named `name`.
///
/// The grid is as square as N allows: it is gridY kernels high, the largest divisor of N that is at most sqrt(N), and
/// gridX = N / gridY wide. Values are scaled so that the smallest of all kernels becomes 0 and the largest 255.
///
/// Returns `uint8` [1, (Y + 2 pad) gridY, (X + 2 pad) gridX, C].
///
/// # Errors
/// A shape that is not fully known or not of rank 4.
pub fn put_kernels_on_grid(kernel: impl IntoOperand, pad: usize, name: &str) -> Result<Tensor> {
    let kernel = kernel.into_operand();
    let [height, width, channels, count] = sizes(&kernel)?;
    let (grid_x, grid_y) = grid(count);
    let _scope = name_scope(name)?;
    let smallest = math::reduce_min(&kernel).build()?;
    let largest = math::reduce_max(&kernel).build()?;
    let shifted = math::subtract(&kernel, &smallest).name("sub").build()?;
    let kernel = (shifted / (&largest - &smallest)?)?;
    let pad_pixels = pad as i32;
    let paddings = [[pad_pixels, pad_pixels], [pad_pixels, pad_pixels], [0, 0], [0, 0]];
    let padded = array::pad(kernel, array::constant(paddings)).build()?;
    let (height, width) = (height + 2 * pad, width + 2 * pad);
    // Kernels become columns of gridY kernels below each other: [gridX, Y gridY, X, C].
    let kernels_first = array::transpose(padded).perm([3, 0, 1, 2]).build()?;
    let columns = array::reshape(kernels_first, dims([grid_x, height * grid_y, width, channels])?).build()?;
    // The same along the other axis: [1, X gridX, Y gridY, C].
    let columns = array::transpose(columns).perm([0, 2, 1, 3]).build()?;
    let grid = array::reshape(columns, dims([1, width * grid_x, height * grid_y, channels])?).build()?;
    let grid = array::transpose(grid).perm([2, 1, 3, 0]).build()?;
    let grid = array::transpose(grid).perm([3, 0, 1, 2]).build()?;
    Ok(image::convert_image_dtype(grid, graph_core::DType::UInt8).build()?)
}

/// A shape as the tutorial packs it: sizes that are TensorFlow's `Dimension`s are no constants yet, and are packed one by one.
fn dims(sizes: [usize; 4]) -> Result<Tensor> {
    Ok(array::stack(sizes.map(|size| size as i32)).fold(false).build()?)
}

fn sizes(kernel: &Operand) -> Result<[usize; 4]> {
    let shape = match kernel {
        Operand::Tensor(tensor) => tensor.shape(),
        Operand::Variable(variable) => variable.shape(),
        _ => PartialShape::unknown(),
    };
    let known = shape
        .to_shape()
        .and_then(|shape| <[usize; 4]>::try_from(shape.dims()).ok());
    Ok(known.ok_or_else(|| {
        GraphError::invalid_argument("kernels on a grid must have a known shape")
            .expected("[height,width,channels,kernels]")
            .got(shape)
    })?)
}

/// Width and height, in kernels, of the grid for `count` of them: as square as possible without gaps, wider than high.
fn grid(count: usize) -> (usize, usize) {
    let height = (1..=count)
        .take_while(|height| height * height <= count)
        .filter(|height| count.is_multiple_of(*height))
        .last();
    let height = height.unwrap_or(1);
    (count / height, height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_as_square_as_it_can_be() {
        assert_eq!(grid(20), (5, 4));
        assert_eq!(grid(7), (7, 1));
        assert_eq!(grid(36), (6, 6));
        assert_eq!(grid(1), (1, 1));
    }
}
