//! Local response normalization across channels: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep
//! Convolutional Neural Networks" (2012), section 3.3, with TensorFlow's conventions: `alpha` is not divided by the window.
//!
//! `out[d] = in[d] * norm[d]^-beta`, `norm[d] = bias + alpha * sum over |k - d| <= depth_radius of in[k]^2`.

use super::element::{Real, Wide};
use super::parallel::{GRAIN, for_each_chunk};
use super::scratch::{Plain, with_scratch};
use super::simd::{Vector, VectorTask, Vectored, dispatch_for};

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
    ///
    /// # Safety
    /// The CPU has `V`'s instructions, here and below.
    #[inline(always)]
    unsafe fn of<V: Vector<Scalar = T>>(&self, sums: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::broadcast(&self.bias).plus_product(V::broadcast(&self.alpha), sums) }
    }

    /// `norms^-beta`, by inverse square roots where the exponent allows: within a few units in the last place of the power.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    unsafe fn powers<V: Vector<Scalar = T>>(&self, norms: V) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            if self.beta == T::from_f64(0.5) {
                return norms.inverse_root();
            }
            if self.beta == T::from_f64(0.75) {
                let inverse_root = norms.inverse_root();
                return inverse_root.mul(inverse_root).mul(inverse_root.inverse_root());
            }
            if self.beta == T::one() {
                each_lane(norms, |x| x.recip())
            } else {
                each_lane(norms, |x| x.powf(-self.beta))
            }
        }
    }

    /// `1 / norms`, of which `powers` are the [`powers`](Self::powers). Norms may be negative where the exponent is whole.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    unsafe fn inverses<V: Vector<Scalar = T>>(&self, norms: V, powers: V) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            if self.beta == T::from_f64(0.5) {
                powers.mul(powers)
            } else {
                each_lane(norms, |x| x.recip())
            }
        }
    }
}

/// `f` of each lane.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[inline(always)]
unsafe fn each_lane<V: Vector>(vector: V, f: impl Fn(V::Scalar) -> V::Scalar) -> V {
    let mut lanes = std::mem::MaybeUninit::<V>::uninit();
    // SAFETY: the caller's promise; lanes are written before they are read.
    unsafe {
        vector.store(lanes.as_mut_ptr().cast());
        let slice = std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast::<V::Scalar>(), V::LANES);
        slice.iter_mut().for_each(|x| *x = f(*x));
        V::load(lanes.as_ptr().cast())
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

    /// Where the channels of pixel `p` begin.
    #[inline(always)]
    fn pixel(&self, p: usize) -> usize {
        self.gap + p * (self.depth + self.gap)
    }

    /// The first channels of vectors that cover a pixel; the last one moves back to fit in.
    #[inline(always)]
    fn vectors<V: Vector>(&self) -> impl Iterator<Item = usize> {
        let last = self.depth - V::LANES;
        (0..self.depth).step_by(V::LANES).map(move |start| start.min(last))
    }

    /// The sums of neighbours, from the first to the last, of the channels of pixel `p` from `start` on.
    ///
    /// # Safety
    /// The CPU has `V`'s instructions; `laid` is a block as it is laid out, which has the channels.
    #[inline(always)]
    unsafe fn neighbours<V: Vector>(&self, laid: *const V::Scalar, p: usize, start: usize) -> V {
        // SAFETY: the caller's promise; there is a gap before and one behind the channels.
        unsafe {
            let first = laid.add(self.pixel(p) - self.gap + start);
            let mut sums = V::load(first);
            for shift in 1..2 * self.gap + 1 {
                sums = sums.add(V::load(first.add(shift)));
            }
            sums
        }
    }

    /// Lays out the squares of the pixels at `x`.
    ///
    /// # Safety
    /// The CPU has `V`'s instructions; `laid` has room for so many pixels.
    #[inline(always)]
    unsafe fn lay_squares<V: Vector>(&self, pixels: usize, x: *const V::Scalar, laid: *mut V::Scalar) {
        for p in 0..pixels {
            for start in self.vectors::<V>() {
                // SAFETY: the caller's promise.
                unsafe {
                    let x = V::load(x.add(p * self.depth + start));
                    x.mul(x).store(laid.add(self.pixel(p) + start));
                }
            }
        }
    }
}

/// The elements in the type that is computed in: themselves, or a copy in `copy`.
fn widened<'a, T: Real>(x: &'a [T], copy: &'a mut [T::Wide]) -> &'a [T::Wide] {
    T::as_wide(x).unwrap_or_else(|| {
        copy.iter_mut().zip(x).for_each(|(copy, x)| *copy = x.widen());
        &copy[..x.len()]
    })
}

/// Has `f` compute elements of `out` in the type that is computed in, `copy` being memory for as many.
fn narrowed<T: Real>(out: &mut [T], copy: &mut [T::Wide], f: impl FnOnce(&mut [T::Wide])) {
    if let Some(out) = T::as_wide_mut(out) {
        return f(out);
    }
    let copy = &mut copy[..out.len()];
    f(copy);
    out.iter_mut().zip(copy).for_each(|(out, x)| *out = T::narrow(*x));
}

/// Normalizes `input`, pixels of `depth` channels, into `out`.
///
/// # Panics
/// If the lengths differ or are no multiple of `depth`.
pub fn lrn<T: Real>(attributes: &LocalResponse, depth: usize, input: &[T], out: &mut [T])
where
    T::Wide: Plain + Vectored,
{
    assert_eq!(input.len(), out.len());
    if input.is_empty() {
        return;
    }
    assert_eq!(input.len() % depth, 0);
    let (layout, norm) = (Layout::new(attributes, depth), Norm::new(attributes));
    let block = layout.pixels() * depth;
    for_each_chunk(out, GRAIN.next_multiple_of(block), |start, out| {
        with_scratch(layout.len() + 2 * block, |scratch: &mut [T::Wide]| {
            let (squares, copies) = scratch.split_at_mut(layout.len());
            let (input_copy, out_copy) = copies.split_at_mut(block);
            // The gaps stay zero from block to block.
            squares.fill(T::Wide::from_f64(0.0));
            for (input, out) in input[start..].chunks(block).zip(out.chunks_mut(block)) {
                let input = widened(&input[..out.len()], input_copy);
                narrowed(out, out_copy, |out| {
                    dispatch_for(
                        depth,
                        Forward {
                            layout,
                            norm,
                            input,
                            squares,
                            out,
                        },
                    );
                });
            }
        });
    });
}

/// A block of [`lrn`].
struct Forward<'a, T> {
    layout: Layout,
    norm: Norm<T>,
    input: &'a [T],
    /// As it is laid out, the gaps zero.
    squares: &'a mut [T],
    out: &'a mut [T],
}

impl<T: Wide> VectorTask<T> for Forward<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = T>>(self) {
        let (layout, norm, depth) = (self.layout, self.norm, self.layout.depth);
        let pixels = self.out.len() / depth;
        assert!(self.input.len() == self.out.len() && pixels <= layout.pixels() && self.squares.len() >= layout.len());
        let (x, squares, out) = (self.input.as_ptr(), self.squares.as_mut_ptr(), self.out.as_mut_ptr());
        // SAFETY: the CPU has the instructions (the caller's promise), and the pixels lie in the slices (checked).
        unsafe {
            layout.lay_squares::<V>(pixels, x, squares);
            for p in 0..pixels {
                for start in layout.vectors::<V>() {
                    let powers = norm.powers(norm.of(layout.neighbours::<V>(squares, p, start)));
                    let at = p * depth + start;
                    V::load(x.add(at)).mul(powers).store(out.add(at));
                }
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
    T::Wide: Plain + Vectored,
{
    assert!(input.len() == out.len() && gradient.len() == out.len() && output.len() == out.len());
    if input.is_empty() {
        return;
    }
    assert_eq!(input.len() % depth, 0);
    let (layout, norm) = (Layout::new(attributes, depth), Norm::new(attributes));
    let block = layout.pixels() * depth;
    for_each_chunk(out, GRAIN.next_multiple_of(block), |start, out| {
        with_scratch(2 * layout.len() + 5 * block, |scratch: &mut [T::Wide]| {
            let (squares, rest) = scratch.split_at_mut(layout.len());
            let (shares, rest) = rest.split_at_mut(layout.len());
            let (powers, copies) = rest.split_at_mut(block);
            // The gaps stay zero from block to block.
            squares.fill(T::Wide::from_f64(0.0));
            shares.fill(T::Wide::from_f64(0.0));
            for (i, out) in out.chunks_mut(block).enumerate() {
                let range = start + i * block..start + i * block + out.len();
                let mut copies = copies.chunks_mut(block);
                let operands = [gradient, input, output]
                    .map(|operand| widened(&operand[range.clone()], copies.next().unwrap_or_default()));
                narrowed(out, copies.next().unwrap_or_default(), |out| {
                    dispatch_for(
                        depth,
                        Backward {
                            layout,
                            norm,
                            operands,
                            squares,
                            shares,
                            powers,
                            out,
                        },
                    );
                });
            }
        });
    });
}

/// A block of [`lrn_grad`].
struct Backward<'a, T> {
    layout: Layout,
    norm: Norm<T>,
    /// Gradient, input and output of the forward pass.
    operands: [&'a [T]; 3],
    /// As they are laid out, the gaps zero.
    squares: &'a mut [T],
    shares: &'a mut [T],
    powers: &'a mut [T],
    out: &'a mut [T],
}

impl<T: Wide> VectorTask<T> for Backward<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = T>>(self) {
        let (layout, norm, depth, len) = (self.layout, self.norm, self.layout.depth, self.out.len());
        let pixels = len / depth;
        assert!(self.operands.iter().all(|operand| operand.len() == len) && self.powers.len() >= len);
        assert!(pixels <= layout.pixels() && self.squares.len().min(self.shares.len()) >= layout.len());
        let [gradient, x, output] = self.operands.map(<[T]>::as_ptr);
        let (squares, shares) = (self.squares.as_mut_ptr(), self.shares.as_mut_ptr());
        let (powers, out) = (self.powers.as_mut_ptr(), self.out.as_mut_ptr());
        let factor = T::from_f64(-2.0) * norm.alpha * norm.beta;
        // SAFETY: the CPU has the instructions (the caller's promise), and the pixels lie in the slices (checked).
        unsafe {
            layout.lay_squares::<V>(pixels, x, squares);
            for p in 0..pixels {
                for start in layout.vectors::<V>() {
                    let at = p * depth + start;
                    let norms = norm.of(layout.neighbours::<V>(squares, p, start));
                    let power = norm.powers(norms);
                    let inverse = norm.inverses(norms, power);
                    let product = V::load(gradient.add(at)).mul(V::load(output.add(at)));
                    product.mul(inverse).store(shares.add(layout.pixel(p) + start));
                    power.store(powers.add(at));
                }
            }
            for p in 0..pixels {
                for start in layout.vectors::<V>() {
                    let at = p * depth + start;
                    let sums = layout.neighbours::<V>(shares, p, start);
                    let scaled = V::load(gradient.add(at)).mul(V::load(powers.add(at)));
                    let scaled_x = V::load(x.add(at)).mul(V::broadcast(&factor));
                    scaled.plus_product(scaled_x, sums).store(out.add(at));
                }
            }
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
            // The last one's norms are negative.
            for (beta, bias) in [(0.5, 1.5), (0.75, 1.5), (1.0, 1.5), (0.6, 1.5), (1.0, -40.0)] {
                let a = LocalResponse {
                    depth_radius,
                    bias,
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
