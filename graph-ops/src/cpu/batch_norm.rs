//! Batch normalization over all pixels of each channel, and its gradient.
//!
//! Ioffe, Szegedy, "Batch Normalization" (2015), with TensorFlow's conventions: the variance that normalizes is divided by the
//! number of pixels, the one that is reported by one less. Sums are taken over blocks of pixels that depend on the shape
//! alone, and the blocks are then added in order.

use super::element::Real;
use super::parallel::{SharedMut, for_each_range, grain_for};
use super::scratch::with_scratch;

/// What is known of each channel, and how its pixels are changed.
#[derive(Clone, Copy, Debug)]
pub struct Channels<'a> {
    pub scale: &'a [f32],
    pub mean: &'a [f32],
    pub variance: &'a [f32],
    pub epsilon: f32,
}

impl Channels<'_> {
    fn count(&self) -> usize {
        self.scale.len()
    }

    fn inverse_deviation(&self, c: usize) -> f32 {
        (self.variance[c] + self.epsilon).sqrt().recip()
    }
}

/// Pixels of a task: of a size that depends on the number of channels alone.
fn grain(channels: usize) -> usize {
    grain_for(4 * channels)
}

/// For each channel `c` the sum over pixels of `term(index of the element, c)`, into `sums`.
fn channel_sums(pixels: usize, channels: usize, sums: &mut [f64], term: impl Fn(usize, usize) -> f32 + Sync + Send) {
    let grain = grain(channels);
    sums.fill(0.0);
    if pixels == 0 {
        return;
    }
    with_scratch(pixels.div_ceil(grain) * channels, |partial: &mut [f32]| {
        let shared = SharedMut::new(partial);
        for_each_range(pixels, grain, |range| {
            let block = range.start / grain;
            // SAFETY: each block has its own partial sums.
            let partial = unsafe { shared.slice(block * channels..(block + 1) * channels) };
            partial.fill(0.0);
            for pixel in range {
                for (c, sum) in partial.iter_mut().enumerate() {
                    *sum += term(pixel * channels + c, c);
                }
            }
        });
        for partial in partial.chunks_exact(channels) {
            sums.iter_mut().zip(partial).for_each(|(s, &x)| *s += f64::from(x));
        }
    });
}

/// The mean of each channel, and its variance divided by the number of pixels; not numbers where there are no pixels.
///
/// # Panics
/// If `x` is not a multiple of the channels, the length of `mean` and `variance`; so do the other functions here.
pub fn moments<T: Real<Wide = f32>>(x: &[T], mean: &mut [f32], variance: &mut [f32]) {
    let channels = mean.len();
    assert!(variance.len() == channels && x.len().is_multiple_of(channels.max(1)));
    let pixels = x.len() / channels.max(1);
    with_scratch(channels, |sums: &mut [f64]| {
        channel_sums(pixels, channels, sums, |at, _| x[at].widen());
        mean.iter_mut()
            .zip(&*sums)
            .for_each(|(m, s)| *m = (s / pixels as f64) as f32);
        let mean = &*mean;
        channel_sums(pixels, channels, sums, |at, c| (x[at].widen() - mean[c]).powi(2));
        variance
            .iter_mut()
            .zip(&*sums)
            .for_each(|(v, s)| *v = (s / pixels as f64) as f32);
    });
}

/// `out = (x - mean) / sqrt(variance + epsilon) * scale + offset`
pub fn normalize<T: Real<Wide = f32>>(channels: Channels<'_>, offset: &[f32], x: &[T], out: &mut [T]) {
    let count = channels.count();
    assert!(x.len() == out.len() && offset.len() == count);
    with_scratch(count, |factors: &mut [f32]| {
        for (c, factor) in factors.iter_mut().enumerate() {
            *factor = channels.inverse_deviation(c) * channels.scale[c];
        }
        let (factors, shared) = (&*factors, SharedMut::new(out));
        for_each_range(x.len() / count.max(1), grain(count), |pixels| {
            let range = pixels.start * count..pixels.end * count;
            // SAFETY: each task has its own pixels.
            let out = unsafe { shared.slice(range.clone()) };
            for (out, x) in out.chunks_exact_mut(count).zip(x[range].chunks_exact(count)) {
                for (c, (o, x)) in out.iter_mut().zip(x).enumerate() {
                    *o = T::narrow((x.widen() - channels.mean[c]) * factors[c] + offset[c]);
                }
            }
        });
    });
}

/// The gradients of [`normalize`] with respect to `x`, `scale` and `offset`. In `training` the mean and the variance are those
/// of `x`, and the gradient flows through them too:
/// `dx = scale / sqrt(v + e) * (dy - mean(dy) - (x - m) * mean(dy * (x - m)) / (v + e))`.
pub fn gradients<T: Real<Wide = f32>>(
    channels: Channels<'_>,
    training: bool,
    gradient: &[T],
    x: &[T],
    to_x: &mut [T],
    to_scale: &mut [f32],
    to_offset: &mut [f32],
) {
    let count = channels.count();
    assert!(gradient.len() == x.len() && to_x.len() == x.len() && to_scale.len() == count && to_offset.len() == count);
    let pixels = x.len() / count.max(1);
    with_scratch(2 * count, |sums: &mut [f64]| {
        let (sum, product) = sums.split_at_mut(count);
        channel_sums(pixels, count, sum, |at, _| gradient[at].widen());
        channel_sums(pixels, count, product, |at, c| {
            gradient[at].widen() * (x[at].widen() - channels.mean[c])
        });
        with_scratch(3 * count, |terms: &mut [f32]| {
            for c in 0..count {
                let inverse = channels.inverse_deviation(c);
                to_scale[c] = (product[c] * f64::from(inverse)) as f32;
                to_offset[c] = sum[c] as f32;
                terms[3 * c] = channels.scale[c] * inverse;
                let mean = |sum: f64| if training { sum / pixels as f64 } else { 0.0 };
                terms[3 * c + 1] = mean(sum[c]) as f32;
                terms[3 * c + 2] = (mean(product[c]) / f64::from(channels.variance[c] + channels.epsilon)) as f32;
            }
            let (terms, shared) = (&*terms, SharedMut::new(to_x));
            for_each_range(pixels, grain(count), |pixels| {
                for pixel in pixels {
                    let range = pixel * count..(pixel + 1) * count;
                    // SAFETY: each task has its own pixels.
                    let to = unsafe { shared.slice(range.clone()) };
                    for (c, (to, at)) in to.iter_mut().zip(range).enumerate() {
                        let away = x[at].widen() - channels.mean[c];
                        let [factor, mean, slope] = [terms[3 * c], terms[3 * c + 1], terms[3 * c + 2]];
                        *to = T::narrow(factor * (gradient[at].widen() - mean - away * slope));
                    }
                }
            });
        });
    });
}
