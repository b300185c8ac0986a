//! The convolution itself.

use super::{Conv2dGeometry, ConvElement, ConvScalar, VectorTask, dispatch, vectors, winograd};
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
        scalars(geometry, images, filter, None, Some(out), &|_, _| ());
    });
}

/// What follows the sums before they are stored; see [`Store::Biased`].
#[derive(Clone, Copy)]
pub(super) struct Activation<'a, T> {
    pub bias: &'a [T],
    pub relu: bool,
}

/// The convolution of scalars. `finished(n, image)` is called for each image of the output while it is in the cache; without
/// `out`, that is all that becomes of it.
pub(super) fn scalars<T: ConvScalar>(
    geometry: &Conv2dGeometry,
    images: &[T],
    filter: &[T],
    activation: Option<Activation<'_, T>>,
    out: Option<&mut [T]>,
    finished: &(dyn Fn(usize, &[T]) + Sync),
) {
    if geometry.batch * geometry.out_image_len() == 0 {
        return;
    }
    if winograd::suits(geometry, [images, filter]) {
        return winograd::convolve(geometry, images, filter, activation, out, finished);
    }
    let (lanes, registers) = vectors::<T>();
    let panels = Panels::new(geometry.out_channels, lanes, registers);
    let taps = geometry.filter_len() / geometry.out_channels;
    with_scratch((taps + 1) * panels.padded(), |packed: &mut [T]| {
        let (packed, bias) = packed.split_at_mut(taps * panels.padded());
        pack(panels, taps, packed, |tap, o| filter[tap * geometry.out_channels + o]);
        if let Some(activation) = activation {
            bias.fill(T::zero());
            bias[..geometry.out_channels].copy_from_slice(activation.bias);
        }
        let (packed, bias) = (&*packed, &*bias);
        let activation = activation.map(|activation| Activation { bias, ..activation });
        let out = out.map(SharedMut::new);
        let image_len = if out.is_some() { 0 } else { geometry.out_image_len() };
        let cost = geometry.out_image_len() * taps;
        for_each_range(geometry.batch, (1usize << 21).div_ceil(cost.max(1)), |block| {
            with_scratch(geometry.padded_len() + image_len, |scratch| {
                let (padded, image) = scratch.split_at_mut(geometry.padded_len());
                dispatch(Block {
                    geometry,
                    images,
                    filter: PackedFilter {
                        packed,
                        panels,
                        taps,
                        activation,
                    },
                    out,
                    image,
                    padded,
                    block,
                    finished,
                });
            });
        });
    });
}

struct PackedFilter<'a, T> {
    packed: &'a [T],
    panels: Panels,
    taps: usize,
    /// With a bias that is padded to whole vectors.
    activation: Option<Activation<'a, T>>,
}

struct Block<'a, T> {
    geometry: &'a Conv2dGeometry,
    images: &'a [T],
    filter: PackedFilter<'a, T>,
    out: Option<SharedMut<T>>,
    /// An output image, where there is no `out`.
    image: &'a mut [T],
    padded: &'a mut [T],
    block: Range<usize>,
    finished: &'a (dyn Fn(usize, &[T]) + Sync),
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
            let out = match self.out {
                // SAFETY: this task alone writes the outputs of its images.
                Some(out) => unsafe { out.slice(n * g.out_image_len()..(n + 1) * g.out_image_len()) },
                None => &mut *self.image,
            };
            // SAFETY: `out` is this image's output and `image` is laid out as the geometry says.
            unsafe { image_rows::<V>(&self.filter, g, image, out) };
            (self.finished)(n, out);
        }
    }
}

/// # Safety
/// The CPU has `V`'s instructions; `image` and `out` have the lengths of the geometry.
#[inline(always)]
unsafe fn image_rows<V: Vector>(
    filter: &PackedFilter<V::Scalar>,
    g: &Conv2dGeometry,
    image: &[V::Scalar],
    out: &mut [V::Scalar],
) {
    let (counts, [a0, a1]) = g.runs();
    let pixels = g.out_pixels();
    for panel in filter.panels.iter() {
        let width = panel.vectors * V::LANES;
        let loops = Loops {
            counts,
            a_steps: [a0, a1, 1],
            b_steps: [counts[1] * counts[2] * width, counts[2] * width, width],
        };
        let b = filter.packed[panel.start * filter.taps..].as_ptr();
        let store = filter.activation.map_or(Store::Set, |activation| Store::Biased {
            bias: activation.bias[panel.start..].as_ptr(),
            relu: activation.relu,
        });
        let step = rows_at_a_time(V::REGISTERS, panel.vectors);
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
            // SAFETY: as above; the packed filter and the bias hold whole vectors.
            unsafe { rows::<V>(count, panel, &loops, &a, b, &c, store) };
        }
    }
}
