//! Depthwise convolution of `NHWC` images: each channel has its own `multiplier` filters, and its two gradients.
//!
//! As TensorFlow's `DepthwiseConv2dNative`: `out[n,y,x,c*m+q] = sum over i,j  in[n, y*stride + i - before, ..., c] *
//! filter[i,j,c,q]`. Dilations are 1. Images are handled in parallel; the filter's gradient is summed in blocks of images that
//! depend on the shape alone, and the blocks are then added in order.

use num_traits::Zero;

use super::element::Real;
use super::parallel::{SharedMut, for_each_range, grain_for};
use super::scratch::{Plain, with_scratch};
use super::simd::multiversion;
use super::window::{Padding, Window};

/// Partial sums that the batch is cut into at most.
const BLOCKS: usize = 32;

/// The shapes of one depthwise convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthwiseGeometry {
    pub batch: usize,
    pub channels: usize,
    /// Filters for each channel.
    pub multiplier: usize,
    pub rows: Window,
    pub columns: Window,
}

impl DepthwiseGeometry {
    /// Of images `[n, h, w, c]` and a filter `[kh, kw, c, m]`; `None` where the windows do not fit (see [`Window::new`]) or
    /// the channels differ.
    pub fn new(images: [usize; 4], filter: [usize; 4], strides: [usize; 2], padding: [Padding; 2]) -> Option<Self> {
        let window = |d: usize| Window::new(images[1 + d], filter[d], strides[d], 1, padding[d]);
        (images[3] == filter[2]).then_some(())?;
        Some(Self {
            batch: images[0],
            channels: images[3],
            multiplier: filter[3],
            rows: window(0)?,
            columns: window(1)?,
        })
    }

    /// Elements of one input image.
    pub fn image_len(&self) -> usize {
        self.rows.input * self.columns.input * self.channels
    }

    /// Elements of one output image.
    pub fn out_image_len(&self) -> usize {
        self.rows.output * self.columns.output * self.outputs()
    }

    /// Elements of the filter.
    pub fn filter_len(&self) -> usize {
        self.rows.size * self.columns.size * self.outputs()
    }

    /// The output's shape, `NHWC`.
    pub fn out_shape(&self) -> [usize; 4] {
        [self.batch, self.rows.output, self.columns.output, self.outputs()]
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.channels * self.multiplier
    }

    /// Images that make one task.
    fn grain(&self) -> usize {
        grain_for(self.out_image_len() * self.rows.size * self.columns.size)
    }

    /// For each output pixel and each tap inside the image: the first elements of the output pixel, of the image's pixel and
    /// of the filter's tap.
    #[inline(always)]
    fn taps(&self, mut tap: impl FnMut(usize, usize, usize)) {
        for y in 0..self.rows.output {
            let rows = self.rows.pixels(y);
            for x in 0..self.columns.output {
                let columns = self.columns.pixels(x);
                let out = (y * self.columns.output + x) * self.outputs();
                for row in rows.clone() {
                    let i = row + self.rows.before - y * self.rows.stride;
                    for column in columns.clone() {
                        let j = column + self.columns.before - x * self.columns.stride;
                        let pixel = (row * self.columns.input + column) * self.channels;
                        tap(out, pixel, (i * self.columns.size + j) * self.outputs());
                    }
                }
            }
        }
    }

    fn check<T>(&self, images: &[T], filter: &[T], out: &[T]) {
        assert_eq!(images.len(), self.batch * self.image_len());
        assert_eq!(filter.len(), self.filter_len());
        assert_eq!(out.len(), self.batch * self.out_image_len());
    }
}

fn part<T>(all: &[T], n: usize, len: usize) -> &[T] {
    &all[n * len..(n + 1) * len]
}

/// Convolves `images` with `filter` into `out`.
///
/// # Panics
/// If a slice's length is not what the geometry says; so do the other functions here.
pub fn depthwise_conv2d<T: Real>(g: &DepthwiseGeometry, images: &[T], filter: &[T], out: &mut [T])
where
    T::Wide: Plain,
{
    g.check(images, filter, out);
    let out = SharedMut::new(out);
    for_each_range(g.batch, g.grain(), |range| {
        with_scratch(g.out_image_len(), |sums: &mut [T::Wide]| {
            for n in range {
                // SAFETY: each image has its own output.
                let out = unsafe { out.slice(n * g.out_image_len()..(n + 1) * g.out_image_len()) };
                forward(g, part(images, n, g.image_len()), filter, sums, out);
            }
        });
    });
}

multiversion! {
    fn forward[T: Real](g: &DepthwiseGeometry, image: &[T], filter: &[T], sums: &mut [T::Wide], out: &mut [T]) {
        sums.fill(T::Wide::zero());
        let (c, m) = (g.channels, g.multiplier);
        g.taps(|out, pixel, tap| {
            let (sums, filter) = (&mut sums[out..out + c * m], &filter[tap..tap + c * m]);
            let image = &image[pixel..pixel + c];
            if m == 1 {
                for ((s, x), f) in sums.iter_mut().zip(image).zip(filter) {
                    *s += x.widen() * f.widen();
                }
            } else {
                for ((sums, x), filter) in sums.chunks_exact_mut(m).zip(image).zip(filter.chunks_exact(m)) {
                    sums.iter_mut().zip(filter).for_each(|(s, f)| *s += x.widen() * f.widen());
                }
            }
        });
        out.iter_mut().zip(&*sums).for_each(|(o, &s)| *o = T::narrow(s));
    }
}

/// The gradient with respect to the images.
pub fn depthwise_backprop_input<T: Real>(g: &DepthwiseGeometry, out_backprop: &[T], filter: &[T], in_backprop: &mut [T])
where
    T::Wide: Plain,
{
    g.check(in_backprop, filter, out_backprop);
    let shared = SharedMut::new(in_backprop);
    for_each_range(g.batch, g.grain(), |range| {
        with_scratch(g.image_len(), |sums: &mut [T::Wide]| {
            for n in range {
                // SAFETY: each image has its own gradient.
                let to = unsafe { shared.slice(n * g.image_len()..(n + 1) * g.image_len()) };
                to_images(g, part(out_backprop, n, g.out_image_len()), filter, sums, to);
            }
        });
    });
}

multiversion! {
    fn to_images[T: Real](g: &DepthwiseGeometry, gradient: &[T], filter: &[T], sums: &mut [T::Wide], to: &mut [T]) {
        sums.fill(T::Wide::zero());
        let (c, m) = (g.channels, g.multiplier);
        g.taps(|out, pixel, tap| {
            let (gradient, filter) = (&gradient[out..out + c * m], &filter[tap..tap + c * m]);
            let sums = &mut sums[pixel..pixel + c];
            if m == 1 {
                for ((s, x), f) in sums.iter_mut().zip(gradient).zip(filter) {
                    *s += x.widen() * f.widen();
                }
            } else {
                for ((s, gradient), filter) in sums.iter_mut().zip(gradient.chunks_exact(m)).zip(filter.chunks_exact(m)) {
                    gradient.iter().zip(filter).for_each(|(x, f)| *s += x.widen() * f.widen());
                }
            }
        });
        to.iter_mut().zip(&*sums).for_each(|(o, &s)| *o = T::narrow(s));
    }
}

/// The gradient with respect to the filter.
pub fn depthwise_backprop_filter<T: Real>(
    g: &DepthwiseGeometry,
    images: &[T],
    out_backprop: &[T],
    filter_backprop: &mut [T],
) where
    T::Wide: Plain,
{
    g.check(images, filter_backprop, out_backprop);
    let len = g.filter_len();
    let block = g.batch.div_ceil(BLOCKS).max(g.grain());
    let blocks = g.batch.div_ceil(block);
    with_scratch((blocks + 1) * len, |partial: &mut [T::Wide]| {
        let (total, partial) = partial.split_at_mut(len);
        let shared = SharedMut::new(partial);
        for_each_range(g.batch, block, |range| {
            let index = range.start / block;
            // SAFETY: each block has its own partial sum.
            let sums = unsafe { shared.slice(index * len..(index + 1) * len) };
            sums.fill(T::Wide::zero());
            for n in range {
                to_filter(
                    g,
                    part(images, n, g.image_len()),
                    part(out_backprop, n, g.out_image_len()),
                    sums,
                );
            }
        });
        total.fill(T::Wide::zero());
        for sums in partial.chunks_exact(len.max(1)) {
            total.iter_mut().zip(sums).for_each(|(t, &s)| *t += s);
        }
        filter_backprop
            .iter_mut()
            .zip(&*total)
            .for_each(|(o, &t)| *o = T::narrow(t));
    });
}

multiversion! {
    fn to_filter[T: Real](g: &DepthwiseGeometry, image: &[T], gradient: &[T], sums: &mut [T::Wide]) {
        let (c, m) = (g.channels, g.multiplier);
        g.taps(|out, pixel, tap| {
            let (gradient, image) = (&gradient[out..out + c * m], &image[pixel..pixel + c]);
            let sums = &mut sums[tap..tap + c * m];
            if m == 1 {
                for ((s, x), y) in sums.iter_mut().zip(gradient).zip(image) {
                    *s += x.widen() * y.widen();
                }
            } else {
                for ((sums, gradient), x) in sums.chunks_exact_mut(m).zip(gradient.chunks_exact(m)).zip(image) {
                    sums.iter_mut().zip(gradient).for_each(|(s, y)| *s += x.widen() * y.widen());
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, numbers_f32, same_on_any_pool};

    #[test]
    fn all_three_follow_the_sum() {
        for (images, filter, strides, padding) in [
            ([70, 7, 6, 3], [3, 2, 3, 1], [1, 1], Padding::Same),
            ([2, 7, 6, 2], [3, 3, 2, 4], [2, 2], Padding::Same),
            ([3, 5, 5, 9], [2, 3, 9, 1], [2, 2], Padding::Valid),
            ([0, 5, 5, 2], [2, 2, 2, 2], [1, 1], Padding::Valid),
        ] {
            let g = DepthwiseGeometry::new(images, filter, strides, [padding; 2]).unwrap();
            let x = numbers_f32(1, g.batch * g.image_len());
            let f = numbers_f32(2, g.filter_len());
            let d = numbers_f32(3, g.batch * g.out_image_len());
            let got = same_on_any_pool(|| {
                let (mut out, mut dx, mut df) = (
                    vec![f32::NAN; d.len()],
                    vec![f32::NAN; x.len()],
                    vec![f32::NAN; f.len()],
                );
                depthwise_conv2d(&g, &x, &f, &mut out);
                depthwise_backprop_input(&g, &d, &f, &mut dx);
                depthwise_backprop_filter(&g, &x, &d, &mut df);
                (out, dx, df)
            });
            let (mut out, mut dx, mut df) = (vec![0.0f64; d.len()], vec![0.0f64; x.len()], vec![0.0f64; f.len()]);
            let m = g.multiplier;
            for o in 0..d.len() {
                let (rest, channel) = (o / (g.channels * m), o % (g.channels * m));
                let (rest, column) = (rest / g.columns.output, rest % g.columns.output);
                let (n, row) = (rest / g.rows.output, rest % g.rows.output);
                for i in 0..g.rows.size {
                    for j in 0..g.columns.size {
                        let y = (row * g.rows.stride + i).wrapping_sub(g.rows.before);
                        let x_at = (column * g.columns.stride + j).wrapping_sub(g.columns.before);
                        if y >= g.rows.input || x_at >= g.columns.input {
                            continue;
                        }
                        let at = ((n * g.rows.input + y) * g.columns.input + x_at) * g.channels + channel / m;
                        let tap = (i * g.columns.size + j) * g.channels * m + channel;
                        let (x, f, d) = (f64::from(x[at]), f64::from(f[tap]), f64::from(d[o]));
                        out[o] += x * f;
                        dx[at] += d * f;
                        df[tap] += d * x;
                    }
                }
            }
            assert_close(&got.0, &out, 1e-5);
            assert_close(&got.1, &dx, 1e-5);
            assert_close(&got.2, &df, 1e-4);
        }
    }
}
