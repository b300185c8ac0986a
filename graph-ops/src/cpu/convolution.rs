//! Two-dimensional convolution, `NHWC` images with `HWIO` filters, and its two gradients.
//!
//! As TensorFlow's `Conv2D`: `out[n,y,x,o] = sum over i,j,c  in[n, y*stride + i*dilation - before, ..., c] * filter[i,j,c,o]`,
//! which is a cross-correlation; the filter is not flipped.
//!
//! All three are sums of register tiles ([`super::tile`]) that read the images where they lie. Only images with padding are
//! copied, one at a time, into a padded buffer of the thread. Images are handled in blocks that depend on the shape alone;
//! the filter's gradient is summed in each block and the blocks are then added in order.

mod backprop_filter;
mod backprop_input;
mod forward;
mod fused;
#[cfg(test)]
mod tests;
mod winograd;

pub use backprop_filter::{conv2d_backprop_filter, conv2d_backprop_filter_of_pool};
pub use backprop_input::conv2d_backprop_input;
pub use forward::conv2d;
pub use fused::{Wanted, conv2d_bias, conv2d_bias_relu_max_pool};

use super::element::Real;
use super::pooling::PoolElement;
use super::scratch::with_scratch;
use super::simd::{VectorTask, Vectored, dispatch, vectors};
use super::window::{Padding, Window};
use half::{bf16, f16};

/// The shapes of one convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dGeometry {
    pub batch: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    pub rows: Window,
    pub columns: Window,
}

impl Conv2dGeometry {
    /// Of images `[n, h, w, c]` and a filter `[kh, kw, c, o]`; `None` where the windows do not fit (see [`Window::new`]) or
    /// the channels differ. `strides`, `dilations` and `padding` are for rows, then columns.
    pub fn new(
        images: [usize; 4],
        filter: [usize; 4],
        strides: [usize; 2],
        dilations: [usize; 2],
        padding: [Padding; 2],
    ) -> Option<Self> {
        let window = |d: usize| Window::new(images[1 + d], filter[d], strides[d], dilations[d], padding[d]);
        (images[3] == filter[2]).then_some(())?;
        Some(Self {
            batch: images[0],
            in_channels: images[3],
            out_channels: filter[3],
            rows: window(0)?,
            columns: window(1)?,
        })
    }

    /// Elements of one input image.
    pub fn image_len(&self) -> usize {
        self.rows.input * self.columns.input * self.in_channels
    }

    /// Elements of one output image.
    pub fn out_image_len(&self) -> usize {
        self.out_pixels() * self.out_channels
    }

    /// Elements of the filter.
    pub fn filter_len(&self) -> usize {
        self.rows.size * self.columns.size * self.in_channels * self.out_channels
    }

    /// The output's shape, `NHWC`.
    pub fn out_shape(&self) -> [usize; 4] {
        [self.batch, self.rows.output, self.columns.output, self.out_channels]
    }

    fn out_pixels(&self) -> usize {
        self.rows.output * self.columns.output
    }

    /// Whether windows reach outside the image.
    fn padded(&self) -> bool {
        !(self.rows.inside() && self.columns.inside())
    }

    /// Rows and columns of the image that the tiles read: with its padding where there is some.
    fn laid_out(&self) -> (usize, usize) {
        if self.padded() {
            (self.rows.reach().max(1), self.columns.reach().max(1))
        } else {
            (self.rows.input, self.columns.input)
        }
    }

    /// Elements of an image laid out with its padding; none where images are read in place.
    fn padded_len(&self) -> usize {
        let (rows, columns) = self.laid_out();
        if self.padded() {
            rows * columns * self.in_channels
        } else {
            0
        }
    }

    /// Copies one image into the middle of its padded layout, zeros around it.
    fn pad<T: Copy + Default>(&self, image: &[T], padded: &mut [T]) {
        padded.fill(T::default());
        self.each_row(|from, to, len| padded[to..to + len].copy_from_slice(&image[from..from + len]));
    }

    /// Copies the image out of its padded layout; pixels that no window reaches become zero.
    fn unpad<T: Copy + Default>(&self, padded: &[T], image: &mut [T]) {
        image.fill(T::default());
        self.each_row(|to, from, len| image[to..to + len].copy_from_slice(&padded[from..from + len]));
    }

    /// For each image row that windows reach: its start in the image, in the padded layout, and its length.
    fn each_row(&self, mut f: impl FnMut(usize, usize, usize)) {
        let (rows, columns) = self.laid_out();
        let c = self.in_channels;
        let width = self.columns.input.min(columns.saturating_sub(self.columns.before)) * c;
        for y in 0..self.rows.input.min(rows.saturating_sub(self.rows.before)) {
            let padded = ((y + self.rows.before) * columns + self.columns.before) * c;
            f(y * self.columns.input * c, padded, width);
        }
    }

    /// Where the output pixels, in row-major order, begin to read in the laid-out image.
    fn pixel_offsets(&self) -> PixelOffsets {
        PixelOffsets {
            pixel_step: self.columns.stride * self.in_channels,
            row_step: self.rows.stride * self.laid_out().1 * self.in_channels,
            width: self.columns.output,
            x: 0,
            row: 0,
            offset: 0,
        }
    }

    /// The taps of a window as loops of contiguous runs: `(rows of taps, runs in a row, elements of a run)` and the
    /// distances of the first two in the laid-out image. Without dilation a whole row of taps is one run.
    fn runs(&self) -> ([usize; 3], [usize; 2]) {
        let c = self.in_channels;
        let row = self.rows.dilation * self.laid_out().1 * c;
        if self.columns.dilation == 1 {
            ([1, self.rows.size, self.columns.size * c], [0, row])
        } else {
            ([self.rows.size, self.columns.size, c], [row, self.columns.dilation * c])
        }
    }
}

/// Walks over output pixels; see [`Conv2dGeometry::pixel_offsets`].
struct PixelOffsets {
    pixel_step: usize,
    row_step: usize,
    width: usize,
    x: usize,
    row: usize,
    offset: usize,
}

impl PixelOffsets {
    #[inline(always)]
    fn next_offset(&mut self) -> usize {
        let here = self.offset;
        self.x += 1;
        self.offset += self.pixel_step;
        if self.x == self.width {
            self.x = 0;
            self.row += self.row_step;
            self.offset = self.row;
        }
        here
    }
}

/// Types that convolutions are computed in.
pub trait ConvScalar: Vectored + PoolElement {}
impl ConvScalar for f32 {}
impl ConvScalar for f64 {}

/// A dtype that can be convolved: `float` and `double` directly, the half types through `float`.
pub trait ConvElement: Real + PoolElement {
    type Scalar: ConvScalar;
    /// Calls `f` with the inputs and the output as scalars, converting where they are not.
    fn with_scalars(
        a: &[Self],
        b: &[Self],
        out: &mut [Self],
        f: impl FnOnce(&[Self::Scalar], &[Self::Scalar], &mut [Self::Scalar]),
    );
    /// The elements as they are, if they are scalars.
    fn as_scalars(x: &[Self]) -> Option<&[Self::Scalar]>;
    /// As [`as_scalars`](Self::as_scalars).
    fn as_scalars_mut(x: &mut [Self]) -> Option<&mut [Self::Scalar]>;
}

macro_rules! direct {
    ($($t:ty),*) => {$(
        impl ConvElement for $t {
            type Scalar = $t;
            fn with_scalars(a: &[$t], b: &[$t], out: &mut [$t], f: impl FnOnce(&[$t], &[$t], &mut [$t])) {
                f(a, b, out)
            }
            fn as_scalars(x: &[$t]) -> Option<&[$t]> {
                Some(x)
            }
            fn as_scalars_mut(x: &mut [$t]) -> Option<&mut [$t]> {
                Some(x)
            }
        }
    )*};
}
direct!(f32, f64);

macro_rules! through_f32 {
    ($($t:ty),*) => {$(
        impl ConvElement for $t {
            type Scalar = f32;
            fn with_scalars(a: &[$t], b: &[$t], out: &mut [$t], f: impl FnOnce(&[f32], &[f32], &mut [f32])) {
                with_scratch(a.len() + b.len() + out.len(), |wide: &mut [f32]| {
                    let (wide_a, rest) = wide.split_at_mut(a.len());
                    let (wide_b, wide_out) = rest.split_at_mut(b.len());
                    <$t>::widen_all(a, wide_a);
                    <$t>::widen_all(b, wide_b);
                    f(wide_a, wide_b, wide_out);
                    <$t>::narrow_all(wide_out, out);
                });
            }
            fn as_scalars(_: &[$t]) -> Option<&[f32]> {
                None
            }
            fn as_scalars_mut(_: &mut [$t]) -> Option<&mut [f32]> {
                None
            }
        }
    )*};
}
through_f32!(f16, bf16);
