//! Local response normalization across channels: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep
//! Convolutional Neural Networks" (2012), section 3.3, with TensorFlow's conventions: `alpha` is not divided by the window.
//!
//! `out[d] = in[d] * norm[d]^-beta`, `norm[d] = bias + alpha * sum over |k - d| <= depth_radius of in[k]^2`.

use super::element::{Real, Wide};
use super::parallel::{SharedMut, for_each_range, grain_for};
use super::scratch::{Plain, with_scratch};
use super::simd::multiversion;
use num_traits::Zero;

/// The op's attributes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalResponse {
    /// Channels on each side that take part.
    pub depth_radius: usize,
    pub bias: f32,
    pub alpha: f32,
    pub beta: f32,
}

impl LocalResponse {
    /// The channels that take part in the norm of channel `d`.
    fn neighbours(&self, d: usize, depth: usize) -> std::ops::Range<usize> {
        d.saturating_sub(self.depth_radius)..d.saturating_add(self.depth_radius).saturating_add(1).min(depth)
    }
}

/// `x^-beta`, by square roots where the exponent allows: within a few units in the last place of the power.
#[derive(Clone, Copy)]
enum NegativePower<T> {
    Half,
    ThreeQuarters,
    One,
    Any(T),
}

impl<T: Wide> NegativePower<T> {
    fn new(beta: f32) -> Self {
        match beta {
            0.5 => Self::Half,
            0.75 => Self::ThreeQuarters,
            1.0 => Self::One,
            _ => Self::Any(T::from_f64(f64::from(beta))),
        }
    }

    /// Replaces each element of a slice; the case is decided once, so that the loops vectorize.
    #[inline(always)]
    fn apply(self, x: &mut [T]) {
        match self {
            Self::Half => x.iter_mut().for_each(|x| *x = x.sqrt().recip()),
            Self::ThreeQuarters => x.iter_mut().for_each(|x| {
                let root = x.sqrt();
                *x = (root * root.sqrt()).recip();
            }),
            Self::One => x.iter_mut().for_each(|x| *x = x.recip()),
            Self::Any(beta) => x.iter_mut().for_each(|x| *x = x.powf(-beta)),
        }
    }
}

/// Pixels whose norms are worked out together, so that the inner loops are long.
const PIXELS: usize = 32;

/// Normalizes `input`, pixels of `depth` channels, into `out`.
///
/// # Panics
/// If the lengths differ or are no multiple of `depth`.
pub fn lrn<T: Real>(attributes: &LocalResponse, depth: usize, input: &[T], out: &mut [T])
where
    T::Wide: Plain,
{
    assert_eq!(input.len(), out.len());
    if input.is_empty() {
        return;
    }
    assert_eq!(input.len() % depth, 0);
    let shared = SharedMut::new(out);
    for_each_range(
        input.len() / depth,
        grain_for(depth * 4).next_multiple_of(PIXELS),
        |pixels| {
            let range = pixels.start * depth..pixels.end * depth;
            // SAFETY: each task has its own pixels.
            let out = unsafe { shared.slice(range.clone()) };
            with_scratch(3 * PIXELS * depth, |scratch: &mut [T::Wide]| {
                for (input, out) in input[range].chunks(PIXELS * depth).zip(out.chunks_mut(PIXELS * depth)) {
                    forward(attributes, depth, input, scratch, out);
                }
            });
        },
    );
}

/// Channel-major work areas of one block of pixels: `[depth][PIXELS]`, so that neighbouring channels are whole rows.
#[inline(always)]
fn load_channels<T: Real>(depth: usize, input: &[T], planes: &mut [T::Wide]) {
    for (p, pixel) in input.chunks(depth).enumerate() {
        for (d, x) in pixel.iter().enumerate() {
            planes[d * PIXELS + p] = x.widen();
        }
    }
}

/// `norm`, channel-major, from the channel-major input. The sum of each channel's neighbours is taken anew and in order.
#[inline(always)]
fn norms<T: Wide>(a: &LocalResponse, depth: usize, planes: &[T], norm: &mut [T]) {
    let (alpha, bias) = (T::from_f64(f64::from(a.alpha)), T::from_f64(f64::from(a.bias)));
    for d in 0..depth {
        let mut sums = [T::zero(); PIXELS];
        for k in a.neighbours(d, depth) {
            let plane = &planes[k * PIXELS..][..PIXELS];
            sums.iter_mut().zip(plane).for_each(|(s, &x)| *s += x * x);
        }
        norm[d * PIXELS..][..PIXELS]
            .iter_mut()
            .zip(sums)
            .for_each(|(n, s)| *n = alpha * s + bias);
    }
}

multiversion! {
    fn forward[T: Real](a: &LocalResponse, depth: usize, input: &[T], scratch: &mut [T::Wide], out: &mut [T]) {
        let (planes, rest) = scratch.split_at_mut(PIXELS * depth);
        let norm = &mut rest[..PIXELS * depth];
        planes.fill(T::Wide::zero());
        load_channels(depth, input, planes);
        norms(a, depth, planes, norm);
        NegativePower::new(a.beta).apply(norm);
        for (p, out) in out.chunks_mut(depth).enumerate() {
            for (d, o) in out.iter_mut().enumerate() {
                *o = T::narrow(planes[d * PIXELS + p] * norm[d * PIXELS + p]);
            }
        }
    }
}

/// The gradient of [`lrn`], as TensorFlow's CPU kernel takes it, with the forward `output` as an operand:
/// `out[k] = gradient[k] * norm[k]^-beta - 2 alpha beta in[k] * sum over |j - k| <= depth_radius of gradient[j] * output[j] / norm[j]`.
///
/// # Panics
/// If the lengths differ or are no multiple of `depth`.
pub fn lrn_grad<T: Real>(
    attributes: &LocalResponse,
    depth: usize,
    gradient: &[T],
    input: &[T],
    output: &[T],
    out: &mut [T],
) where
    T::Wide: Plain,
{
    assert!(input.len() == out.len() && gradient.len() == out.len() && output.len() == out.len());
    if input.is_empty() {
        return;
    }
    assert_eq!(input.len() % depth, 0);
    let shared = SharedMut::new(out);
    for_each_range(
        input.len() / depth,
        grain_for(depth * 8).next_multiple_of(PIXELS),
        |pixels| {
            let range = pixels.start * depth..pixels.end * depth;
            // SAFETY: each task has its own pixels.
            let out = unsafe { shared.slice(range.clone()) };
            with_scratch(5 * PIXELS * depth, |scratch: &mut [T::Wide]| {
                let size = PIXELS * depth;
                let blocks = input[range.clone()]
                    .chunks(size)
                    .zip(gradient[range.clone()].chunks(size));
                let blocks = blocks.zip(output[range].chunks(size)).zip(out.chunks_mut(size));
                for (((input, gradient), output), out) in blocks {
                    backward(attributes, depth, gradient, input, output, scratch, out);
                }
            });
        },
    );
}

multiversion! {
    fn backward[T: Real](
        a: &LocalResponse, depth: usize, gradient: &[T], input: &[T], output: &[T], scratch: &mut [T::Wide], out: &mut [T],
    ) {
        scratch.fill(T::Wide::zero());
        let size = PIXELS * depth;
        let (planes, rest) = scratch.split_at_mut(size);
        let (norm, rest) = rest.split_at_mut(size);
        let (grads, rest) = rest.split_at_mut(size);
        let (shares, result) = rest.split_at_mut(size);
        load_channels(depth, input, planes);
        load_channels(depth, gradient, grads);
        load_channels(depth, output, shares);
        norms(a, depth, planes, norm);
        for ((share, &gradient), &norm) in shares.iter_mut().zip(&*grads).zip(&*norm) {
            *share = gradient * *share / norm;
        }
        NegativePower::new(a.beta).apply(norm);
        let factor = T::Wide::from_f64(-2.0) * T::Wide::from_f64(f64::from(a.alpha)) * T::Wide::from_f64(f64::from(a.beta));
        for d in 0..depth {
            let mut sums = [T::Wide::zero(); PIXELS];
            for j in a.neighbours(d, depth) {
                sums.iter_mut().zip(&shares[j * PIXELS..][..PIXELS]).for_each(|(s, &x)| *s += x);
            }
            let row = d * PIXELS..(d + 1) * PIXELS;
            let operands = grads[row.clone()].iter().zip(&norm[row.clone()]).zip(&planes[row.clone()]);
            for ((result, sum), ((&gradient, &power), &x)) in result[row].iter_mut().zip(sums).zip(operands) {
                *result = gradient * power + factor * x * sum;
            }
        }
        for (p, out) in out.chunks_mut(depth).enumerate() {
            for (d, o) in out.iter_mut().enumerate() {
                *o = T::narrow(result[d * PIXELS + p]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, numbers_f32, same_on_any_pool};

    fn norm(a: &LocalResponse, pixel: &[f32], d: usize) -> f64 {
        let sum: f64 = a.neighbours(d, pixel.len()).map(|k| f64::from(pixel[k]).powi(2)).sum();
        f64::from(a.bias) + f64::from(a.alpha) * sum
    }

    #[test]
    fn values_and_gradients_follow_the_formula() {
        for (depth, pixels, depth_radius) in [(20, 7000, 4), (50, 33, 4), (3, 65, 5), (1, 1, 0), (7, 10, 2), (4, 0, 1)]
        {
            for beta in [0.5, 0.75, 1.0, 0.6] {
                let a = LocalResponse {
                    depth_radius,
                    bias: 1.5,
                    alpha: 0.3,
                    beta,
                };
                let (input, gradient) = (numbers_f32(1, depth * pixels), numbers_f32(2, depth * pixels));
                let (output, got) = same_on_any_pool(|| {
                    let (mut output, mut got) = (vec![f32::NAN; input.len()], vec![f32::NAN; input.len()]);
                    lrn(&a, depth, &input, &mut output);
                    lrn_grad(&a, depth, &gradient, &input, &output, &mut got);
                    (output, got)
                });
                let beta = f64::from(beta);
                let (mut expected, mut expected_grad) = (Vec::new(), Vec::new());
                for p in 0..pixels {
                    let range = p * depth..(p + 1) * depth;
                    let (pixel, gradient) = (&input[range.clone()], &gradient[range.clone()]);
                    for d in 0..depth {
                        let value = |d: usize| f64::from(pixel[d]) * norm(&a, pixel, d).powf(-beta);
                        expected.push(value(d));
                        let through: f64 = a
                            .neighbours(d, depth)
                            .map(|j| f64::from(gradient[j]) * value(j) / norm(&a, pixel, j))
                            .sum();
                        let factor = -2.0 * f64::from(a.alpha) * beta * f64::from(pixel[d]);
                        expected_grad.push(f64::from(gradient[d]) * norm(&a, pixel, d).powf(-beta) + factor * through);
                    }
                }
                assert_close(&output, &expected, 1e-6);
                assert_close(&got, &expected_grad, 2e-6);
            }
        }
    }
}
