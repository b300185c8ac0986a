//! The gradient with respect to the images.

use super::*;
use crate::cpu::parallel::SharedMut;
use crate::cpu::scratch::with_scratch;
use std::ops::Range;

/// As [`super::super::conv2d_backprop_input`], for scalars.
pub(in super::super) fn backprop_input<T: ConvScalar>(
    g: &Conv2dGeometry,
    out_backprop: &[T],
    filter: &[T],
    in_backprop: &mut [T],
) {
    let tiling = Tiling::new(g);
    let stride = g.in_channels.next_multiple_of(vectors::<T>().0);
    let matrix = g.out_channels * stride;
    with_scratch(POINTS * matrix, |filters: &mut [T]| {
        transform_filter(g, filter, filters, matrix, |c, o| o * stride + c);
        let (filters, in_backprop) = (&*filters, SharedMut::new(in_backprop));
        for_each_range(g.batch, tiling.images_a_task(), |range| {
            let gradients_len = POINTS * TILES * g.out_channels;
            let products_len = POINTS * TILES * stride;
            let copies = tiling.together() * tiling.copy_len();
            with_scratch(
                copies + gradients_len + products_len + POINTS * g.in_channels + g.out_channels,
                |scratch| {
                    let (copies, rest) = scratch.split_at_mut(copies);
                    let (gradients, rest) = rest.split_at_mut(gradients_len);
                    let (products, rest) = rest.split_at_mut(products_len);
                    let (patch, zeros) = rest.split_at_mut(POINTS * g.in_channels);
                    zeros.fill(T::zero());
                    dispatch(Task {
                        tiling,
                        out_backprop,
                        filters,
                        stride,
                        in_backprop,
                        copies,
                        gradients,
                        products,
                        patch,
                        zeros,
                        range,
                    });
                },
            );
        });
    });
}

struct Task<'a, T> {
    tiling: Tiling<'a>,
    out_backprop: &'a [T],
    /// `[point][out channel][stride]`
    filters: &'a [T],
    /// In channels in whole vectors.
    stride: usize,
    in_backprop: SharedMut<T>,
    copies: &'a mut [T],
    /// `[tile][point][out channel]`
    gradients: &'a mut [T],
    /// `[tile][point][stride]`
    products: &'a mut [T],
    /// Of one tile: `[4][4][in channel]`.
    patch: &'a mut [T],
    /// As many as out channels.
    zeros: &'a [T],
    range: Range<usize>,
}

impl<T: ConvScalar> VectorTask<T> for Task<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = T>>(self) {
        let (tiling, g, stride) = (self.tiling, self.tiling.g, self.stride);
        for first_image in self.range.clone().step_by(tiling.together()) {
            let images = first_image..(first_image + tiling.together()).min(self.range.end);
            let source = &self.out_backprop[images.start * g.out_image_len()..images.end * g.out_image_len()];
            // SAFETY: this task alone writes the gradients of its images.
            let to = unsafe {
                self.in_backprop
                    .slice(images.start * g.image_len()..images.end * g.image_len())
            };
            to.fill(T::zero());
            let laid = if tiling.in_place() {
                &mut *to
            } else {
                self.copies.fill(T::zero());
                &mut *self.copies
            };
            let tiles = images.len() * tiling.count();
            for first in (0..tiles).step_by(TILES) {
                let count = TILES.min(tiles - first);
                let product = Product {
                    rows: count,
                    columns: stride,
                    depth: g.out_channels,
                    a_row: POINTS * g.out_channels,
                    a_step: 1,
                    b_row: stride,
                    c_row: POINTS * stride,
                };
                // SAFETY: the tiles lie in the images, and the work areas hold `TILES` tiles.
                unsafe {
                    tiling.transform_gradients::<V>(first, count, source, g.out_channels, self.gradients, self.zeros);
                    for point in 0..POINTS {
                        product.run::<V>(
                            self.gradients[point * g.out_channels..].as_ptr(),
                            self.filters[point * g.out_channels * stride..].as_ptr(),
                            self.products[point * stride..].as_mut_ptr(),
                            Store::Set,
                        );
                    }
                    for tile in 0..count {
                        let patch = tiling.patch(tiling.place(first + tile));
                        transform_back::<V>(
                            g.in_channels,
                            stride,
                            &self.products[tile * POINTS * stride..],
                            self.patch,
                        );
                        let width = 4 * g.in_channels;
                        for (i, row) in self.patch.chunks(width).enumerate() {
                            let at = patch + i * tiling.laid[1] * g.in_channels;
                            laid[at..at + width].iter_mut().zip(row).for_each(|(x, &y)| *x = *x + y);
                        }
                    }
                }
            }
            if !tiling.in_place() {
                for (to, laid) in to.chunks_mut(g.image_len()).zip(self.copies.chunks(tiling.laid_len())) {
                    tiling.each_row(|to_at, at, len| to[to_at..to_at + len].copy_from_slice(&laid[at..at + len]));
                }
            }
        }
    }
}

/// Transforms one tile's products back to the gradient of its patch.
///
/// # Safety
/// The CPU has `V`'s instructions; `channels` are at least a vector's.
#[inline(always)]
unsafe fn transform_back<V: Vector>(channels: usize, stride: usize, products: &[V::Scalar], patch: &mut [V::Scalar]) {
    for start in vector_starts::<V>(channels) {
        // SAFETY: the caller's promise.
        unsafe {
            let points = load_points::<V>(products.as_ptr().add(start), stride);
            store_points(
                both::<V, PatchGradient, 4, 4>(points),
                patch.as_mut_ptr().add(start),
                channels,
            );
        }
    }
}
