//! Local response normalization across channels: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep
//! Convolutional Neural Networks" (2012), section 3.3, with TensorFlow's conventions: `alpha` is not divided by the window.
//!
//! `out[d] = in[d] * norm[d]^-beta`, `norm[d] = bias + alpha * sum over |k - d| <= depth_radius of in[k]^2`.

use super::element::{Real, Wide};
use super::groups::{each_group, load, store};
use super::parallel::{GRAIN, for_each_chunk};
use super::scratch::{Plain, with_scratch};
use super::simd::multiversion;
use num_traits::Zero;
use std::ops::Range;

/// The op's attributes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalResponse {
    /// Channels on each side that take part.
    pub depth_radius: usize,
    pub bias: f32,
    pub alpha: f32,
    pub beta: f32,
}

/// `norm = bias + alpha * sum` and `norm^-beta`.
#[derive(Clone, Copy)]
struct Norm<T> {
    bias: T,
    alpha: T,
    beta: T,
}

impl<T: Wide> Norm<T> {
    fn new(a: &LocalResponse) -> Self {
        let [bias, alpha, beta] = [a.bias, a.alpha, a.beta].map(|x| T::from_f64(x.into()));
        Self { bias, alpha, beta }
    }

    /// The norms of sums of squares.
    #[inline(always)]
    fn of<const N: usize>(&self, mut sums: [T; N]) -> [T; N] {
        for x in &mut sums {
            *x = self.alpha * *x + self.bias;
        }
        sums
    }

    /// `norms^-beta`, by square roots where the exponent allows: within a few units in the last place of the power. The case is
    /// decided once for all elements, so that the loops vectorize.
    #[inline(always)]
    fn powers<const N: usize>(&self, mut norms: [T; N]) -> [T; N] {
        let [half, three_quarters] = [0.5, 0.75].map(T::from_f64);
        if self.beta == three_quarters {
            for x in &mut norms {
                let root = x.sqrt();
                *x = (root * root.sqrt()).recip();
            }
        } else if self.beta == half {
            for x in &mut norms {
                *x = x.sqrt().recip();
            }
        } else if self.beta == T::one() {
            for x in &mut norms {
                *x = x.recip();
            }
        } else {
            for x in &mut norms {
                *x = x.powf(-self.beta);
            }
        }
        norms
    }
}

/// Elements of a block, so that its work areas stay in the first-level cache.
const BLOCK: usize = 1280;

/// How a block of pixels is laid out so that sums over neighbouring channels are sums of shifted vectors: before each pixel,
/// and after the last, there are as many zeros as a channel has neighbours on a side.
#[derive(Clone, Copy)]
struct Layout {
    depth: usize,
    gap: usize,
}

impl Layout {
    fn new(attributes: &LocalResponse, depth: usize) -> Self {
        // Channels further away do not exist.
        let gap = attributes.depth_radius.min(depth);
        Self { depth, gap }
    }

    /// Pixels of a whole block.
    fn pixels(&self) -> usize {
        (BLOCK / self.depth).max(1)
    }

    /// Elements of a block as it is laid out.
    fn len(&self) -> usize {
        self.gap + self.pixels() * (self.depth + self.gap)
    }

    /// Where pixel `p` lies.
    #[inline(always)]
    fn pixel(&self, p: usize) -> Range<usize> {
        let start = self.gap + p * (self.depth + self.gap);
        start..start + self.depth
    }

    /// Pixel `p` with the gaps around it.
    #[inline(always)]
    fn with_gaps<'a, T>(&self, p: usize, laid: &'a [T]) -> &'a [T] {
        &laid[p * (self.depth + self.gap)..][..self.depth + 2 * self.gap]
    }

    /// The sums of `N` channels' neighbours, from the first to the last, of a pixel [`with_gaps`](Self::with_gaps).
    ///
    /// # Safety
    /// The channels from `start` on exist.
    #[inline(always)]
    unsafe fn neighbours<T: Wide, const N: usize>(&self, pixel: &[T], start: usize) -> [T; N] {
        let mut sums = [T::zero(); N];
        for shift in 0..2 * self.gap + 1 {
            // SAFETY: `start + N <= depth`, and there are two gaps more.
            let shifted: [T; N] = unsafe { load(pixel, start + shift) };
            for l in 0..N {
                sums[l] += shifted[l];
            }
        }
        sums
    }

    /// Lays out the squares of the pixels `x`.
    #[inline(always)]
    fn lay_squares<T: Real>(&self, x: &[T], laid: &mut [T::Wide]) {
        for (p, x) in x.chunks_exact(self.depth).enumerate() {
            let squares = &mut laid[self.pixel(p)];
            each_group!(self.depth, |start, N| {
                // SAFETY: the groups lie in the pixel.
                let x: [T; N] = unsafe { load(x, start) };
                let mut values = [T::Wide::zero(); N];
                for l in 0..N {
                    values[l] = x[l].widen() * x[l].widen();
                }
                // SAFETY: as above.
                unsafe { store(squares, start, values) };
            });
        }
    }
}

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
    let layout = Layout::new(attributes, depth);
    let block = layout.pixels() * depth;
    for_each_chunk(out, GRAIN.next_multiple_of(block), |start, out| {
        with_scratch(layout.len(), |squares: &mut [T::Wide]| {
            // The gaps stay zero from block to block.
            squares.fill(T::Wide::zero());
            for (input, out) in input[start..].chunks(block).zip(out.chunks_mut(block)) {
                forward(attributes, layout, input, squares, out);
            }
        });
    });
}

multiversion! {
    fn forward[T: Real](a: &LocalResponse, layout: Layout, input: &[T], squares: &mut [T::Wide], out: &mut [T]) {
        let norm = Norm::new(a);
        layout.lay_squares(input, squares);
        for (p, (x, out)) in input.chunks_exact(layout.depth).zip(out.chunks_exact_mut(layout.depth)).enumerate() {
            let squares = layout.with_gaps(p, squares);
            each_group!(layout.depth, |start, N| {
                // SAFETY: the groups lie in the pixel.
                let (x, sums): ([T; N], [T::Wide; N]) = unsafe { (load(x, start), layout.neighbours(squares, start)) };
                let powers = norm.powers(norm.of(sums));
                let mut normalized = x;
                for l in 0..N {
                    normalized[l] = T::narrow(x[l].widen() * powers[l]);
                }
                // SAFETY: as above.
                unsafe { store(out, start, normalized) };
            });
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
    let layout = Layout::new(attributes, depth);
    let block = layout.pixels() * depth;
    for_each_chunk(out, GRAIN.next_multiple_of(block), |start, out| {
        with_scratch(2 * layout.len() + block, |scratch: &mut [T::Wide]| {
            // The gaps stay zero from block to block.
            scratch.fill(T::Wide::zero());
            for (i, out) in out.chunks_mut(block).enumerate() {
                let range = start + i * block..start + i * block + out.len();
                let operands = [&gradient[range.clone()], &input[range.clone()], &output[range]];
                backward(attributes, layout, operands, scratch, out);
            }
        });
    });
}

multiversion! {
    fn backward[T: Real](a: &LocalResponse, layout: Layout, operands: [&[T]; 3], scratch: &mut [T::Wide], out: &mut [T]) {
        let ([gradient, input, output], depth, norm) = (operands, layout.depth, Norm::new(a));
        let (squares, rest) = scratch.split_at_mut(layout.len());
        let (shares, powers) = rest.split_at_mut(layout.len());
        layout.lay_squares(input, squares);
        let pixels = gradient.chunks_exact(depth).zip(output.chunks_exact(depth)).zip(powers.chunks_exact_mut(depth));
        for (p, ((gradient, output), powers)) in pixels.enumerate() {
            let (squares, shares) = (layout.with_gaps(p, squares), &mut shares[layout.pixel(p)]);
            each_group!(depth, |start, N| {
                // SAFETY: the groups lie in the pixel.
                let (gradient, output): ([T; N], [T; N]) = unsafe { (load(gradient, start), load(output, start)) };
                // SAFETY: as above.
                let norms: [T::Wide; N] = norm.of(unsafe { layout.neighbours(squares, start) });
                let mut share = norms;
                for l in 0..N {
                    share[l] = gradient[l].widen() * output[l].widen() / norms[l];
                }
                // SAFETY: as above.
                unsafe {
                    store(shares, start, share);
                    store(powers, start, norm.powers(norms));
                }
            });
        }
        let factor = T::Wide::from_f64(-2.0) * T::Wide::from_f64(a.alpha.into()) * T::Wide::from_f64(a.beta.into());
        let pixels = gradient.chunks_exact(depth).zip(input.chunks_exact(depth)).zip(powers.chunks_exact(depth));
        for (p, (((gradient, x), powers), out)) in pixels.zip(out.chunks_exact_mut(depth)).enumerate() {
            let shares = layout.with_gaps(p, shares);
            each_group!(depth, |start, N| {
                // SAFETY: the groups lie in the pixel.
                let (gradient, x): ([T; N], [T; N]) = unsafe { (load(gradient, start), load(x, start)) };
                // SAFETY: as above.
                let (powers, sums): ([T::Wide; N], [T::Wide; N]) =
                    unsafe { (load(powers, start), layout.neighbours(shares, start)) };
                let mut results = gradient;
                for l in 0..N {
                    results[l] = T::narrow(gradient[l].widen() * powers[l] + factor * x[l].widen() * sums[l]);
                }
                // SAFETY: as above.
                unsafe { store(out, start, results) };
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, numbers_f32, same_on_any_pool};

    fn neighbours(a: &LocalResponse, d: usize, depth: usize) -> std::ops::Range<usize> {
        d.saturating_sub(a.depth_radius)..(d + a.depth_radius + 1).min(depth)
    }

    fn norm(a: &LocalResponse, pixel: &[f32], d: usize) -> f64 {
        let sum: f64 = neighbours(a, d, pixel.len()).map(|k| f64::from(pixel[k]).powi(2)).sum();
        f64::from(a.bias) + f64::from(a.alpha) * sum
    }

    #[test]
    fn values_and_gradients_follow_the_formula() {
        for (depth, pixels, depth_radius) in [
            (20, 7000, 4),
            (50, 33, 4),
            (3, 65, 5),
            (1, 1, 0),
            (7, 10, 2),
            (4, 0, 1),
            (9, 500, 30),
        ] {
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
                        let through: f64 = neighbours(&a, d, depth)
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
