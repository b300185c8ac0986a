//! The convolution.

use super::*;
use crate::cpu::convolution::forward::Activation;
use crate::cpu::parallel::SharedMut;
use crate::cpu::scratch::with_scratch;
use std::ops::Range;

/// As [`super::super::forward::scalars`].
pub(in super::super) fn convolve<T: ConvScalar>(
    g: &Conv2dGeometry,
    images: &[T],
    filter: &[T],
    activation: Option<Activation<'_, T>>,
    out: Option<&mut [T]>,
    finished: &(dyn Fn(usize, &[T]) + Sync),
) {
    let tiling = Tiling::new(g);
    let stride = g.out_channels.next_multiple_of(vectors::<T>().0);
    let matrix = g.in_channels * stride;
    with_scratch(POINTS * matrix, |filters: &mut [T]| {
        transform_filter(g, filter, filters, matrix, |c, o| c * stride + o);
        let (filters, out) = (&*filters, out.map(SharedMut::new));
        let held = if out.is_some() {
            0
        } else {
            tiling.together() * g.out_image_len()
        };
        for_each_range(g.batch, tiling.images_a_task(), |range| {
            let patches_len = POINTS * TILES * g.in_channels;
            let copies = tiling.together() * tiling.copy_len();
            with_scratch(
                copies + held + patches_len + POINTS * TILES * stride + g.out_channels,
                |scratch| {
                    let (copies, rest) = scratch.split_at_mut(copies);
                    let (outputs, rest) = rest.split_at_mut(held);
                    let (patches, rest) = rest.split_at_mut(patches_len);
                    let (products, unseen) = rest.split_at_mut(POINTS * TILES * stride);
                    dispatch(Task {
                        tiling,
                        images,
                        filters,
                        stride,
                        activation,
                        out,
                        finished,
                        copies,
                        outputs,
                        patches,
                        products,
                        unseen,
                        range,
                    });
                },
            );
        });
    });
}

struct Task<'a, T> {
    tiling: Tiling<'a>,
    images: &'a [T],
    /// `[point][in channel][stride]`
    filters: &'a [T],
    /// Out channels in whole vectors.
    stride: usize,
    activation: Option<Activation<'a, T>>,
    out: Option<SharedMut<T>>,
    finished: &'a (dyn Fn(usize, &[T]) + Sync),
    copies: &'a mut [T],
    /// The images that are handled together, where there is no `out`.
    outputs: &'a mut [T],
    /// `[tile][point][in channel]`
    patches: &'a mut [T],
    /// `[tile][point][stride]`
    products: &'a mut [T],
    /// Room for a pixel beyond the output.
    unseen: &'a mut [T],
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
            let out = match self.out {
                // SAFETY: this task alone writes the outputs of its images.
                Some(out) => unsafe { out.slice(images.start * g.out_image_len()..images.end * g.out_image_len()) },
                None => &mut self.outputs[..images.len() * g.out_image_len()],
            };
            let tiles = images.len() * tiling.count();
            for first in (0..tiles).step_by(TILES) {
                let count = TILES.min(tiles - first);
                let product = Product {
                    rows: count,
                    columns: stride,
                    depth: g.in_channels,
                    a_row: POINTS * g.in_channels,
                    a_step: 1,
                    b_row: stride,
                    c_row: POINTS * stride,
                };
                // SAFETY: the tiles lie in the images, and the work areas hold `TILES` tiles.
                unsafe {
                    tiling.transform_patches::<V>(first, count, laid, self.patches);
                    for point in 0..POINTS {
                        product.run::<V>(
                            self.patches[point * g.in_channels..].as_ptr(),
                            self.filters[point * g.in_channels * stride..].as_ptr(),
                            self.products[point * stride..].as_mut_ptr(),
                            Store::Set,
                        );
                    }
                    for tile in 0..count {
                        let pixels = tiling.pixels(tiling.place(first + tile));
                        let unseen = self.unseen.as_mut_ptr();
                        let pixels = pixels.map(|row| row.map(|at| at.map_or(unseen, |at| out[at..].as_mut_ptr())));
                        store_tile::<V>(
                            g.out_channels,
                            stride,
                            &self.products[tile * POINTS * stride..],
                            self.activation,
                            pixels,
                        );
                    }
                }
            }
            for (n, image) in images.zip(out.chunks(g.out_image_len())) {
                (self.finished)(n, image);
            }
        }
    }
}

/// Transforms one tile's products back and stores its pixels, with what follows the convolution.
///
/// # Safety
/// The CPU has `V`'s instructions; `channels` are at least a vector's, and writable at each of `pixels`.
#[inline(always)]
unsafe fn store_tile<V: Vector>(
    channels: usize,
    stride: usize,
    products: &[V::Scalar],
    activation: Option<Activation<'_, V::Scalar>>,
    pixels: [[*mut V::Scalar; 2]; 2],
) {
    for start in vector_starts::<V>(channels) {
        // SAFETY: the caller's promise.
        unsafe {
            let sums = both::<V, Tile, 4, 2>(load_points(products.as_ptr().add(start), stride));
            for (sums, pixels) in sums.iter().zip(&pixels) {
                for (&sum, pixel) in sums.iter().zip(pixels) {
                    let mut value = sum;
                    if let Some(Activation { bias, relu }) = activation {
                        value = value.add(V::load(bias.as_ptr().add(start)));
                        if relu {
                            value = value.relu();
                        }
                    }
                    value.store(pixel.add(start));
                }
            }
        }
    }
}
