//! The gradient with respect to the filter.

use super::*;
use crate::cpu::parallel::{SharedMut, for_each_chunk};
use crate::cpu::scratch::with_scratch;
use std::ops::Range;

/// Partial sums that the batch is cut into at most.
const BLOCKS: usize = 32;

/// As [`super::super::conv2d_backprop_filter`], for scalars: in blocks of images that depend on the shape alone, whose sums are
/// added in order.
pub(in super::super) fn backprop_filter<T: ConvScalar>(
    g: &Conv2dGeometry,
    images: &[T],
    out_backprop: &[T],
    filter_backprop: &mut [T],
) {
    let tiling = Tiling::new(g);
    let stride = g.out_channels.next_multiple_of(vectors::<T>().0);
    let matrix = g.in_channels * stride;
    let block = g
        .batch
        .div_ceil(BLOCKS)
        .next_multiple_of(tiling.together())
        .max(tiling.images_a_task());
    let blocks = g.batch.div_ceil(block);
    let len = POINTS * matrix;
    with_scratch((blocks + 1) * len, |scratch: &mut [T]| {
        let (partial, total) = scratch.split_at_mut(blocks * len);
        let shared = SharedMut::new(partial);
        for_each_range(g.batch, block, |range| {
            let index = range.start / block;
            // SAFETY: each block has its own partial sum.
            let sums = unsafe { shared.slice(index * len..(index + 1) * len) };
            sums.fill(T::zero());
            let patches_len = POINTS * TILES * g.in_channels;
            let copies = tiling.together() * tiling.copy_len();
            with_scratch(
                copies + patches_len + POINTS * TILES * stride + g.out_channels,
                |scratch| {
                    let (copies, rest) = scratch.split_at_mut(copies);
                    let (patches, rest) = rest.split_at_mut(patches_len);
                    let (gradients, zeros) = rest.split_at_mut(POINTS * TILES * stride);
                    zeros.fill(T::zero());
                    dispatch(Task {
                        tiling,
                        images,
                        out_backprop,
                        stride,
                        sums,
                        copies,
                        patches,
                        gradients,
                        zeros,
                        range,
                    });
                },
            );
        });
        let partial = &*partial;
        for_each_chunk(total, GRAIN / BLOCKS, |start, total| {
            total.fill(T::zero());
            for sums in partial.chunks(len) {
                total
                    .iter_mut()
                    .zip(&sums[start..])
                    .for_each(|(total, &x)| *total = *total + x);
            }
        });
        let (c, o) = (g.in_channels, g.out_channels);
        for pair in 0..c * o {
            let place = pair / o * stride + pair % o;
            // SAFETY: any CPU has the vectors of one lane; the points lie in the sums.
            unsafe {
                let points = load_points::<Portable<T, 1>>(total[place..].as_ptr(), matrix);
                let taps = both::<_, FilterGradient, 4, 3>(points);
                for (tap, value) in taps.as_flattened().iter().enumerate() {
                    value.store(&mut filter_backprop[tap * c * o + pair]);
                }
            }
        }
    });
}

struct Task<'a, T> {
    tiling: Tiling<'a>,
    images: &'a [T],
    out_backprop: &'a [T],
    /// Out channels in whole vectors.
    stride: usize,
    /// `[point][in channel][stride]`
    sums: &'a mut [T],
    copies: &'a mut [T],
    /// `[tile][point][in channel]`
    patches: &'a mut [T],
    /// `[tile][point][stride]`
    gradients: &'a mut [T],
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
            let sources = &self.images[images.start * g.image_len()..images.end * g.image_len()];
            let laid = tiling.lay_out(sources, self.copies);
            let gradient = &self.out_backprop[images.start * g.out_image_len()..images.end * g.out_image_len()];
            let tiles = images.len() * tiling.count();
            for first in (0..tiles).step_by(TILES) {
                let count = TILES.min(tiles - first);
                let product = Product {
                    rows: g.in_channels,
                    columns: stride,
                    depth: count,
                    a_row: 1,
                    a_step: POINTS * g.in_channels,
                    b_row: POINTS * stride,
                    c_row: stride,
                };
                // SAFETY: the tiles lie in the images, and the work areas hold `TILES` tiles.
                unsafe {
                    tiling.transform_patches::<V>(first, count, laid, self.patches);
                    tiling.transform_gradients::<V>(first, count, gradient, stride, self.gradients, self.zeros);
                    for point in 0..POINTS {
                        product.run::<V>(
                            self.patches[point * g.in_channels..].as_ptr(),
                            self.gradients[point * stride..].as_ptr(),
                            self.sums[point * g.in_channels * stride..].as_mut_ptr(),
                            Store::Add,
                        );
                    }
                }
            }
        }
    }
}
