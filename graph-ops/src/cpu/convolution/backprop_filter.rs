//! The gradient with respect to the filter.

use super::{Conv2dGeometry, ConvElement, ConvScalar, VectorTask, dispatch, vectors};
use crate::cpu::element::Real;
use crate::cpu::parallel::{SharedMut, for_each_range};
use crate::cpu::pooling::{Pool2dGeometry, add_up, image_at};
use crate::cpu::scratch::{Plain, with_scratch};
use crate::cpu::simd::Vector;
use crate::cpu::tile::{Loops, MOST_ROWS, Panels, Store, rows, rows_at_a_time};
use num_traits::Zero;
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
        |images, out_backprop, filter_backprop| {
            scalars(geometry, images, OutBackprop::There(out_backprop), filter_backprop);
        },
    );
}

/// [`conv2d_backprop_filter`] of a convolution that a bias, `Relu` and a pool of windows of 2x2 side by side follow, and the
/// gradient of the bias: from the gradient of the pool and the places of its maxima, as
/// [`max_pool_relu_grad_at`](crate::cpu::pooling::max_pool_relu_grad_at) takes them. The gradient of the convolution's output is
/// made image by image, and never in memory as a whole. The bits are those of the two steps.
///
/// # Panics
/// If a slice's length is not what the geometries say, or `pool` has other windows or is not of the convolution's output.
#[allow(clippy::too_many_arguments)]
pub fn conv2d_backprop_filter_of_pool<T: ConvScalar + Real>(
    geometry: &Conv2dGeometry,
    pool: &Pool2dGeometry,
    images: &[T],
    places: &[T],
    gradient: &[T],
    filter_backprop: &mut [T],
    bias_backprop: &mut [T],
) where
    T::Wide: Plain,
{
    let pool_input = [pool.batch, pool.rows.input, pool.columns.input, pool.channels];
    assert!(pool_input == geometry.out_shape() && pool.halves());
    assert_eq!(images.len(), geometry.batch * geometry.image_len());
    assert_eq!(filter_backprop.len(), geometry.filter_len());
    assert_eq!(bias_backprop.len(), geometry.out_channels);
    let len = pool.out_image_len();
    assert!([places, gradient].iter().all(|x| x.len() == pool.batch * len));
    let channels = pool.channels;
    with_scratch(pool.batch * channels, |sums: &mut [T::Wide]| {
        sums.fill(T::Wide::zero());
        let shared = SharedMut::new(sums);
        let make = |n: usize, to: &mut [T]| {
            let range = n * len..(n + 1) * len;
            // SAFETY: each image has its own sums, and is made once.
            let sums = unsafe { shared.slice(n * channels..(n + 1) * channels) };
            image_at(pool, &places[range.clone()], &gradient[range], to, sums);
        };
        if filter_backprop.is_empty() {
            // The bias has its gradient all the same.
            with_scratch(geometry.out_image_len(), |to| (0..pool.batch).for_each(|n| make(n, to)));
        } else {
            scalars(geometry, images, OutBackprop::Made(&make), filter_backprop);
        }
        add_up(pool, sums, bias_backprop);
    });
}

/// Where the gradient of the output comes from.
#[derive(Clone, Copy)]
enum OutBackprop<'a, T> {
    /// All of it is in memory.
    There(&'a [T]),
    /// An image of it is made when it is needed.
    Made(&'a (dyn Fn(usize, &mut [T]) + Sync)),
}

fn scalars<T: ConvScalar>(
    g: &Conv2dGeometry,
    images: &[T],
    out_backprop: OutBackprop<'_, T>,
    filter_backprop: &mut [T],
) {
    filter_backprop.fill(T::zero());
    if filter_backprop.is_empty() || g.batch * g.out_image_len() == 0 {
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
    out_backprop: OutBackprop<'a, T>,
    sum: &'a mut [T],
    padded: &'a mut [T],
    /// For a gradient that is made, and for the last image's, with room after it.
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
            let gradient = match self.out_backprop {
                OutBackprop::There(all) => {
                    let gradient = &all[n * out_len..all.len().min((n + 1) * out_len + slack)];
                    if gradient.len() < out_len + slack {
                        self.copy[..gradient.len()].copy_from_slice(gradient);
                        self.copy[gradient.len()..].fill(T::zero());
                        &*self.copy
                    } else {
                        gradient
                    }
                }
                OutBackprop::Made(make) => {
                    let (image, room) = self.copy.split_at_mut(out_len);
                    room.fill(T::zero());
                    make(n, image);
                    &*self.copy
                }
            };
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
