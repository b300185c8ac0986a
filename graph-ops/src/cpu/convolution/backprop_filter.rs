//! The gradient with respect to the filter.

use super::{Conv2dGeometry, ConvElement, ConvScalar, VectorTask, dispatch, vectors};
use crate::cpu::parallel::{SharedMut, for_each_range};
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::Vector;
use crate::cpu::tile::{Loops, MOST_ROWS, Panels, Store, rows, rows_at_a_time};
use std::ops::Range;

/// Partial sums that the batch is cut into at most.
const BLOCKS: usize = 32;

/// Bytes of output gradient that are gone through at a time, so that they stay in the first-level cache.
const CACHED_BYTES: usize = 20 * 1024;

/// `filter_backprop[i,j,c,o] = sum over n,y,x  images[n, y*stride + i*dilation - before, ..., c] * out_backprop[n,y,x,o]`.
///
/// `images` is `[n, h, w, c]`, `out_backprop` `[n, h', w', o]`, `filter_backprop` `[kh, kw, c, o]`. The batch is cut into at
/// most 32 blocks, whose sums are added in order.
///
/// # Panics
/// If a slice's length is not what the geometry says.
pub fn conv2d_backprop_filter<T: ConvElement>(
    geometry: &Conv2dGeometry,
    images: &[T],
    out_backprop: &[T],
    filter_backprop: &mut [T],
) {
    assert_eq!(images.len(), geometry.batch * geometry.image_len());
    assert_eq!(filter_backprop.len(), geometry.filter_len());
    assert_eq!(out_backprop.len(), geometry.batch * geometry.out_image_len());
    T::with_scalars(
        images,
        out_backprop,
        filter_backprop,
        |images, out_backprop, filter_backprop| scalars(geometry, images, out_backprop, filter_backprop),
    );
}

fn scalars<T: ConvScalar>(g: &Conv2dGeometry, images: &[T], out_backprop: &[T], filter_backprop: &mut [T]) {
    filter_backprop.fill(T::zero());
    if filter_backprop.is_empty() || out_backprop.is_empty() {
        return;
    }
    let len = filter_backprop.len();
    let worth = (1usize << 20).div_ceil((g.out_pixels() * len).max(1));
    let block = g.batch.div_ceil(BLOCKS).max(worth);
    let blocks = g.batch.div_ceil(block);
    with_scratch(blocks * len, |partial: &mut [T]| {
        let shared = SharedMut::new(partial);
        for_each_range(g.batch, block, |range| {
            let index = range.start / block;
            // SAFETY: each block has its own partial sum.
            let sum = unsafe { shared.slice(index * len..(index + 1) * len) };
            sum.fill(T::zero());
            let copy_len = g.out_image_len() + vectors::<T>().0;
            with_scratch(g.padded_len() + copy_len, |scratch| {
                let (padded, copy) = scratch.split_at_mut(g.padded_len());
                dispatch(Block {
                    g,
                    images,
                    out_backprop,
                    sum,
                    padded,
                    copy,
                    range,
                });
            });
        });
        for sum in partial.chunks(len) {
            filter_backprop
                .iter_mut()
                .zip(sum)
                .for_each(|(total, &x)| *total = *total + x);
        }
    });
}

struct Block<'a, T> {
    g: &'a Conv2dGeometry,
    images: &'a [T],
    out_backprop: &'a [T],
    sum: &'a mut [T],
    padded: &'a mut [T],
    /// For the last image's gradient, with room after it.
    copy: &'a mut [T],
    range: Range<usize>,
}

impl<T: ConvScalar> VectorTask<T> for Block<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = T>>(self) {
        let g = self.g;
        let out_len = g.out_image_len();
        // The last vector of a pixel reads into the next one; after the last pixel of all, into this copy's end.
        let slack = g.out_channels.next_multiple_of(V::LANES) - g.out_channels;
        for n in self.range.clone() {
            let image = &self.images[n * g.image_len()..(n + 1) * g.image_len()];
            let image = if g.padded() {
                g.pad(image, self.padded);
                &*self.padded
            } else {
                image
            };
            let readable = self.out_backprop.len().min((n + 1) * out_len + slack);
            let mut gradient = &self.out_backprop[n * out_len..readable];
            if gradient.len() < out_len + slack {
                self.copy[..gradient.len()].copy_from_slice(gradient);
                self.copy[gradient.len()..].fill(T::zero());
                gradient = &*self.copy;
            }
            // SAFETY: the image is laid out as the geometry says, and the gradient has room for the last vector.
            unsafe { image_sum::<V>(g, image, gradient, self.sum) };
        }
    }
}

/// Adds one image's sum.
///
/// # Safety
/// The CPU has `V`'s instructions; `gradient` is readable up to the last pixel's last whole vector.
#[inline(always)]
unsafe fn image_sum<V: Vector>(g: &Conv2dGeometry, image: &[V::Scalar], gradient: &[V::Scalar], sum: &mut [V::Scalar])
where
    V::Scalar: ConvScalar,
{
    let o = g.out_channels;
    let (counts, offsets) = g.runs();
    let columns = g.laid_out().1;
    let taps = counts.iter().product::<usize>();
    let row_bytes = g.columns.output * o * size_of::<V::Scalar>();
    let rows_cached = (CACHED_BYTES / row_bytes.max(1)).clamp(1, g.rows.output);
    let mut a = [image.as_ptr(); MOST_ROWS];
    let mut c = [sum.as_mut_ptr(); MOST_ROWS];
    for first in (0..g.rows.output).step_by(rows_cached) {
        let y_count = rows_cached.min(g.rows.output - first);
        let a_start = first * g.rows.stride * columns * g.in_channels;
        for panel in Panels::new(o, V::LANES, V::REGISTERS).iter() {
            let loops = Loops {
                counts: [1, y_count, g.columns.output],
                a_steps: [
                    0,
                    g.rows.stride * columns * g.in_channels,
                    g.columns.stride * g.in_channels,
                ],
                b_steps: [0, g.columns.output * o, o],
            };
            let b = gradient[first * g.columns.output * o + panel.start..].as_ptr();
            let step = rows_at_a_time(V::REGISTERS, panel.vectors);
            let (mut run, mut run_offset, mut element) = (0, 0, 0);
            for start in (0..taps).step_by(step) {
                let count = step.min(taps - start);
                for i in 0..count {
                    let tap = start + i;
                    let offset = run_offset + element;
                    element += 1;
                    if element == counts[2] {
                        (run, element) = (run + 1, 0);
                        run_offset = run / counts[1] * offsets[0] + run % counts[1] * offsets[1];
                    }
                    // SAFETY: the tap lies in the laid-out image for every output pixel, its sums in `sum`.
                    unsafe {
                        a[i] = image.as_ptr().add(a_start + offset);
                        c[i] = sum.as_mut_ptr().add(tap * o + panel.start);
                    }
                }
                // SAFETY: as above; the caller's promise covers the gradient's last vector.
                unsafe { rows::<V>(count, panel, &loops, &a, b, &c, Store::Add) };
            }
        }
    }
}
