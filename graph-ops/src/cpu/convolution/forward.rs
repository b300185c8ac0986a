//! The convolution itself.

use super::{Conv2dGeometry, ConvElement, ConvScalar, VectorTask, dispatch, lanes};
use crate::cpu::parallel::{SharedMut, for_each_range};
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::Vector;
use crate::cpu::tile::{Loops, MOST_ROWS, Panels, Store, pack, rows, rows_at_a_time};
use std::ops::Range;

/// Convolves `images` `[n, h, w, c]` with `filter` `[kh, kw, c, o]` into `out` `[n, h', w', o]`.
///
/// # Panics
/// If a slice's length is not what the geometry says.
pub fn conv2d<T: ConvElement>(geometry: &Conv2dGeometry, images: &[T], filter: &[T], out: &mut [T]) {
    assert_eq!(images.len(), geometry.batch * geometry.image_len());
    assert_eq!(filter.len(), geometry.filter_len());
    assert_eq!(out.len(), geometry.batch * geometry.out_image_len());
    T::with_scalars(images, filter, out, |images, filter, out| {
        scalars(geometry, images, filter, out)
    });
}

fn scalars<T: ConvScalar>(geometry: &Conv2dGeometry, images: &[T], filter: &[T], out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let panels = Panels::new(geometry.out_channels, lanes::<T>());
    let taps = geometry.filter_len() / geometry.out_channels;
    with_scratch(taps * panels.padded(), |packed: &mut [T]| {
        pack(panels, taps, packed, |tap, o| filter[tap * geometry.out_channels + o]);
        let packed = &*packed;
        let out = SharedMut::new(out);
        let cost = geometry.out_image_len() * taps;
        for_each_range(geometry.batch, (1usize << 21).div_ceil(cost.max(1)), |block| {
            with_scratch(geometry.padded_len(), |padded| {
                // SAFETY: blocks of images are disjoint, and so are their outputs.
                dispatch(Block {
                    geometry,
                    images,
                    packed,
                    panels,
                    taps,
                    out,
                    padded,
                    block,
                });
            });
        });
    });
}

struct Block<'a, T> {
    geometry: &'a Conv2dGeometry,
    images: &'a [T],
    packed: &'a [T],
    panels: Panels,
    taps: usize,
    out: SharedMut<T>,
    padded: &'a mut [T],
    block: Range<usize>,
}

impl<T: ConvScalar> VectorTask<T> for Block<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = T>>(self) {
        let g = self.geometry;
        for n in self.block.clone() {
            let image = &self.images[n * g.image_len()..(n + 1) * g.image_len()];
            let image = if g.padded() {
                g.pad(image, self.padded);
                &*self.padded
            } else {
                image
            };
            // SAFETY: this task alone writes the outputs of its images.
            let out = unsafe { self.out.slice(n * g.out_image_len()..(n + 1) * g.out_image_len()) };
            // SAFETY: `out` is this image's output and `image` is laid out as the geometry says.
            unsafe { image_rows::<V>(g, self.packed, self.panels, self.taps, image, out) };
        }
    }
}

/// # Safety
/// The CPU has `V`'s instructions; `image` and `out` have the lengths of the geometry.
#[inline(always)]
unsafe fn image_rows<V: Vector>(
    g: &Conv2dGeometry,
    packed: &[V::Scalar],
    panels: Panels,
    taps: usize,
    image: &[V::Scalar],
    out: &mut [V::Scalar],
) {
    let (counts, [a0, a1]) = g.runs();
    let pixels = g.out_pixels();
    for panel in panels.iter() {
        let width = panel.vectors * V::LANES;
        let loops = Loops {
            counts,
            a_steps: [a0, a1, 1],
            b_steps: [counts[1] * counts[2] * width, counts[2] * width, width],
        };
        let b = packed[panel.start * taps..].as_ptr();
        let step = rows_at_a_time(panel.vectors);
        let mut a = [image.as_ptr(); MOST_ROWS];
        let mut c = [out.as_mut_ptr(); MOST_ROWS];
        let mut offsets = g.pixel_offsets();
        for start in (0..pixels).step_by(step) {
            let count = step.min(pixels - start);
            for i in 0..count {
                // SAFETY: the pixel's window lies in the laid-out image, its outputs in `out`.
                unsafe {
                    a[i] = image.as_ptr().add(offsets.next_offset());
                    c[i] = out.as_mut_ptr().add((start + i) * g.out_channels + panel.start);
                }
            }
            // SAFETY: as above; the packed filter holds whole vectors.
            unsafe { rows::<V>(count, panel, &loops, &a, b, &c, Store::Set) };
        }
    }
}
