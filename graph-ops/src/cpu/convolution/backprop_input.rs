//! The gradient with respect to the images.

use super::{Conv2dGeometry, ConvElement, ConvScalar, VectorTask, dispatch, vectors, winograd};
use crate::cpu::parallel::{SharedMut, for_each_range};
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::Vector;
use crate::cpu::tile::{Loops, MOST_ROWS, Panels, Store, pack, rows, rows_at_a_time};
use std::ops::Range;

/// `in_backprop[n, y*stride + i*dilation - before, ..., c] += out_backprop[n,y,x,o] * filter[i,j,c,o]` over all outputs.
///
/// `out_backprop` is `[n, h', w', o]`, `filter` `[kh, kw, c, o]`, `in_backprop` `[n, h, w, c]`.
///
/// # Panics
/// If a slice's length is not what the geometry says.
pub fn conv2d_backprop_input<T: ConvElement>(
    geometry: &Conv2dGeometry,
    out_backprop: &[T],
    filter: &[T],
    in_backprop: &mut [T],
) {
    assert_eq!(in_backprop.len(), geometry.batch * geometry.image_len());
    assert_eq!(filter.len(), geometry.filter_len());
    assert_eq!(out_backprop.len(), geometry.batch * geometry.out_image_len());
    T::with_scalars(
        out_backprop,
        filter,
        in_backprop,
        |out_backprop, filter, in_backprop| scalars(geometry, out_backprop, filter, in_backprop),
    );
}

fn scalars<T: ConvScalar>(g: &Conv2dGeometry, out_backprop: &[T], filter: &[T], in_backprop: &mut [T]) {
    if in_backprop.is_empty() {
        return;
    }
    if out_backprop.is_empty() || filter.is_empty() {
        in_backprop.fill(T::zero());
        return;
    }
    if winograd::suits(g, [out_backprop, filter]) {
        return winograd::backprop_input(g, out_backprop, filter, in_backprop);
    }
    // Each run of taps is a matrix [o, run] that an output pixel's gradient is multiplied with.
    let (counts, offsets) = g.runs();
    let run = counts[2];
    let (lanes, registers) = vectors::<T>();
    let panels = Panels::new(run, lanes, registers);
    let packed_run = g.out_channels * panels.padded();
    with_scratch(counts[0] * counts[1] * packed_run, |packed: &mut [T]| {
        for (r, packed) in packed.chunks_mut(packed_run).enumerate() {
            pack(panels, g.out_channels, packed, |o, tap| {
                filter[(r * run + tap) * g.out_channels + o]
            });
        }
        let task = Task {
            g,
            out_backprop,
            packed,
            panels,
            packed_run,
            counts,
            offsets,
            in_backprop: SharedMut::new(in_backprop),
        };
        // A tile takes its rows from several images, because neighbouring pixels of one image write to the same places.
        let cost = g.out_pixels() * g.filter_len();
        let block = (1usize << 21)
            .div_ceil(cost.max(1))
            .next_multiple_of(TOGETHER)
            .min(4 * TOGETHER);
        for_each_range(g.batch, block, |images| {
            with_scratch(g.padded_len() * TOGETHER, |padded| {
                dispatch(Block {
                    task: &task,
                    padded,
                    images,
                })
            });
        });
    });
}

struct Task<'a, T> {
    g: &'a Conv2dGeometry,
    out_backprop: &'a [T],
    packed: &'a [T],
    panels: Panels,
    packed_run: usize,
    counts: [usize; 3],
    offsets: [usize; 2],
    in_backprop: SharedMut<T>,
}

struct Block<'a, T> {
    task: &'a Task<'a, T>,
    padded: &'a mut [T],
    images: Range<usize>,
}

/// Images whose tiles are mixed: more than the rows of any tile, so that no tile holds neighbours of one image.
const TOGETHER: usize = 12;

impl<T: ConvScalar> VectorTask<T> for Block<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = T>>(self) {
        let g = self.task.g;
        let (laid_rows, laid_columns) = g.laid_out();
        let laid_len = laid_rows * laid_columns * g.in_channels;
        let mut first = self.images.start;
        while first < self.images.end {
            let count = TOGETHER.min(self.images.end - first);
            // SAFETY: this task alone writes the gradients of its images.
            let gradients = unsafe {
                self.task
                    .in_backprop
                    .slice(first * g.image_len()..(first + count) * g.image_len())
            };
            let source = &self.task.out_backprop[first * g.out_image_len()..(first + count) * g.out_image_len()];
            if g.padded() {
                self.padded.fill(T::zero());
                // SAFETY: the padded images are laid out as the geometry says.
                unsafe { group::<V>(self.task, count, source, self.padded, laid_len) };
                for (padded, gradient) in self.padded.chunks(laid_len).zip(gradients.chunks_mut(g.image_len())) {
                    g.unpad(padded, gradient);
                }
            } else {
                gradients.fill(T::zero());
                // SAFETY: without padding, an image is laid out as it is.
                unsafe { group::<V>(self.task, count, source, gradients, laid_len) };
            }
            first += count;
        }
    }
}

/// Adds the gradients of `count` images to `laid`, `laid_len` elements an image.
///
/// # Safety
/// The CPU has `V`'s instructions; the slices have the lengths of the geometry.
#[inline(always)]
unsafe fn group<V: Vector>(
    task: &Task<V::Scalar>,
    count: usize,
    source: &[V::Scalar],
    laid: &mut [V::Scalar],
    laid_len: usize,
) where
    V::Scalar: ConvScalar,
{
    let g = task.g;
    let pixels = g.out_pixels();
    let mut a = [source.as_ptr(); MOST_ROWS];
    let mut c = [laid.as_mut_ptr(); MOST_ROWS];
    for (r, (i, j)) in (0..task.counts[0])
        .flat_map(|i| (0..task.counts[1]).map(move |j| (i, j)))
        .enumerate()
    {
        let run_offset = i * task.offsets[0] + j * task.offsets[1];
        for panel in task.panels.iter() {
            let width = panel.vectors * V::LANES;
            let loops = Loops {
                counts: [1, 1, g.out_channels],
                a_steps: [0, 0, 1],
                b_steps: [0, 0, width],
            };
            let b = task.packed[r * task.packed_run + panel.start * g.out_channels..].as_ptr();
            let step = rows_at_a_time(V::REGISTERS, panel.vectors);
            let mut filled = 0;
            let mut offsets = g.pixel_offsets();
            for pixel in 0..pixels {
                let offset = offsets.next_offset() + run_offset + panel.start;
                for n in 0..count {
                    // SAFETY: the pixel's run of taps lies in image `n` of `laid`, its gradient in `source`.
                    unsafe {
                        a[filled] = source.as_ptr().add((n * pixels + pixel) * g.out_channels);
                        c[filled] = laid.as_mut_ptr().add(n * laid_len + offset);
                    }
                    filled += 1;
                    if filled == step {
                        // SAFETY: as above; the packed filter holds whole vectors.
                        unsafe { rows::<V>(filled, panel, &loops, &a, b, &c, Store::Add) };
                        filled = 0;
                    }
                }
            }
            // SAFETY: as above.
            unsafe { rows::<V>(filled, panel, &loops, &a, b, &c, Store::Add) };
        }
    }
}
