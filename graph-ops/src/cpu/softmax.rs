//! Softmax over the last axis, and the cross entropies that are computed with it.
//!
//! As in TensorFlow, the largest logit is taken away first: with `z = x - max(x)`, `softmax = exp(z) / sum(exp(z))`,
//! `log_softmax = z - ln(sum(exp(z)))`, `loss = sum(labels * (ln(sum(exp(z))) - z))` and `backprop = softmax - labels`.
//! Rows are independent and handled in parallel; what is summed of each depends on its length alone. The half types are
//! computed in `float`.

use super::element::{Real, Wide};
use super::parallel::{SharedMut, for_each_range, grain_for};
use super::scratch::{Plain, with_scratch};
use super::simd::multiversion;
use super::vector_math::Elementary;
use num_traits::{Float, Zero};

/// Elementary steps that one exponential is worth, for the size of tasks.
const EXP_COST: usize = 16;

/// Partial results that rows are taken into, side by side.
const LANES: usize = 16;

/// A row of logits less the largest one, and the exponentials of that.
struct Row<'a, W> {
    shifted: &'a [W],
    exponentials: &'a [W],
    /// The sum of the exponentials.
    sum: W,
}

/// Takes the elements into lanes, and the lanes one by one into the first; few elements one by one.
#[inline(always)]
fn folded<T: Copy, W: Copy>(row: &[T], start: W, take: impl Fn(W, T) -> W, join: impl Fn(W, W) -> W) -> W {
    let (blocks, rest) = row.as_chunks::<LANES>();
    if blocks.is_empty() {
        return rest.iter().fold(start, |state, &x| take(state, x));
    }
    let mut lanes = [start; LANES];
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = take(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = take(*lane, x);
    }
    lanes.into_iter().reduce(join).unwrap_or(start)
}

multiversion! {
    /// Fills `shifted` with the logits less the largest one and `exponentials` with their exponentials; the sum of these. One
    /// logit that is not a number makes all so.
    fn exponentiate[T: Real](logits: &[T], shifted: &mut [T::Wide], exponentials: &mut [T::Wide]) -> T::Wide {
        let larger = |max: T::Wide, x: T::Wide| if x > max || x.is_nan() { x } else { max };
        let max = folded(logits, T::Wide::neg_infinity(), |max, x| larger(max, x.widen()), larger);
        for ((shifted, exponential), x) in shifted.iter_mut().zip(exponentials.iter_mut()).zip(logits) {
            *shifted = x.widen() - max;
            *exponential = shifted.exponential();
        }
        folded(exponentials, T::Wide::zero(), |sum, e| sum + e, |a, b| a + b)
    }
}

multiversion! {
    /// The numbers, each divided by their sum.
    fn shares[T: Real](numbers: &[T::Wide], sum: T::Wide, out: &mut [T]) {
        out.iter_mut().zip(numbers).for_each(|(out, &x)| *out = T::narrow(x / sum));
    }
}

multiversion! {
    /// The numbers, each less another.
    fn differences[T: Real](numbers: &[T::Wide], less: T::Wide, out: &mut [T]) {
        out.iter_mut().zip(numbers).for_each(|(out, &x)| *out = T::narrow(x - less));
    }
}

/// Calls `f` for each row of `classes` logits, in parallel.
fn each_row<T: Real>(logits: &[T], classes: usize, f: impl Fn(usize, Row<'_, T::Wide>) + Sync + Send)
where
    T::Wide: Plain,
{
    if logits.is_empty() {
        return;
    }
    assert_eq!(logits.len() % classes, 0);
    for_each_range(logits.len() / classes, grain_for(classes * EXP_COST), |rows| {
        with_scratch(2 * classes, |scratch: &mut [T::Wide]| {
            let (shifted, exponentials) = scratch.split_at_mut(classes);
            for row in rows {
                let sum = exponentiate(&logits[row * classes..(row + 1) * classes], shifted, exponentials);
                f(
                    row,
                    Row {
                        shifted,
                        exponentials,
                        sum,
                    },
                );
            }
        });
    });
}

/// `softmax` of each row of `classes` logits.
///
/// # Panics
/// If the lengths differ or are no multiple of `classes`.
pub fn softmax<T: Real>(logits: &[T], classes: usize, out: &mut [T])
where
    T::Wide: Plain,
{
    assert_eq!(logits.len(), out.len());
    let out = SharedMut::new(out);
    each_row(logits, classes, |index, row| {
        // SAFETY: each row has its own output.
        let out = unsafe { out.slice(index * classes..(index + 1) * classes) };
        shares(row.exponentials, row.sum, out);
    });
}

/// `ln(softmax)` of each row of `classes` logits.
///
/// # Panics
/// If the lengths differ or are no multiple of `classes`.
pub fn log_softmax<T: Real>(logits: &[T], classes: usize, out: &mut [T])
where
    T::Wide: Plain,
{
    assert_eq!(logits.len(), out.len());
    let out = SharedMut::new(out);
    each_row(logits, classes, |index, row| {
        // SAFETY: each row has its own output.
        let out = unsafe { out.slice(index * classes..(index + 1) * classes) };
        differences(row.shifted, row.sum.ln(), out);
    });
}

/// `SoftmaxCrossEntropyWithLogits`: `logits`, `labels` and `backprop` are `[rows, classes]`, `loss` is `[rows]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn softmax_cross_entropy<T: Real>(logits: &[T], labels: &[T], classes: usize, loss: &mut [T], backprop: &mut [T])
where
    T::Wide: Plain,
{
    assert!(labels.len() == logits.len() && backprop.len() == logits.len() && loss.len() * classes == logits.len());
    if classes == 0 {
        loss.fill(T::narrow(T::Wide::zero()));
    }
    let (loss, backprop) = (SharedMut::new(loss), SharedMut::new(backprop));
    each_row(logits, classes, |index, row| {
        let range = index * classes..(index + 1) * classes;
        let labels = &labels[range.clone()];
        // SAFETY: each row has its own loss and gradient.
        let (loss, backprop) = unsafe { (loss.slice(index..index + 1), backprop.slice(range)) };
        let log = row.sum.ln();
        let each = row.shifted.iter().zip(labels);
        let total = each.fold(T::Wide::zero(), |total, (&z, label)| total + label.widen() * (log - z));
        loss[0] = T::narrow(total);
        for ((b, &e), label) in backprop.iter_mut().zip(row.exponentials).zip(labels) {
            *b = T::narrow(e / row.sum - label.widen());
        }
    });
}

/// `SparseSoftmaxCrossEntropyWithLogits`: as [`softmax_cross_entropy`] with one class a row for a label.
///
/// A label outside `0..classes` makes its row's loss and gradient not a number, as TensorFlow's device kernels do; a caller
/// that wants an error checks first.
///
/// # Panics
/// If the lengths do not fit.
pub fn sparse_softmax_cross_entropy<T: Real, I: Copy + Sync + TryInto<usize>>(
    logits: &[T],
    labels: &[I],
    classes: usize,
    loss: &mut [T],
    backprop: &mut [T],
) where
    T::Wide: Plain,
{
    assert!(backprop.len() == logits.len() && loss.len() * classes == logits.len() && labels.len() == loss.len());
    let (loss, backprop) = (SharedMut::new(loss), SharedMut::new(backprop));
    each_row(logits, classes, |index, row| {
        // SAFETY: each row has its own loss and gradient.
        let (loss, backprop) = unsafe {
            (
                loss.slice(index..index + 1),
                backprop.slice(index * classes..(index + 1) * classes),
            )
        };
        match labels[index].try_into().ok().filter(|&label| label < classes) {
            Some(label) => {
                loss[0] = T::narrow(row.sum.ln() - row.shifted[label]);
                for (c, (b, &e)) in backprop.iter_mut().zip(row.exponentials).enumerate() {
                    let target = if c == label {
                        T::Wide::from_f64(1.0)
                    } else {
                        T::Wide::zero()
                    };
                    *b = T::narrow(e / row.sum - target);
                }
            }
            None => {
                loss[0] = T::narrow(T::Wide::nan());
                backprop.fill(T::narrow(T::Wide::nan()));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, numbers_f32, same_on_any_pool, wide};

    #[test]
    fn all_four_follow_their_formulas() {
        for (rows, classes) in [(500, 10), (3, 1), (1, 5000), (7001, 3), (0, 4)] {
            let logits: Vec<f32> = numbers_f32(1, rows * classes)
                .iter()
                .map(|x| x * 20.0 + 1000.0)
                .collect();
            let dense = numbers_f32(2, rows * classes);
            let sparse: Vec<i32> = (0..rows).map(|r| (r * 7 % classes.max(1)) as i32).collect();
            let run = || {
                let n = logits.len();
                let (mut p, mut log) = (vec![0.0; n], vec![0.0; n]);
                let (mut loss, mut back) = (vec![0.0; rows], vec![0.0; n]);
                let (mut sparse_loss, mut sparse_back) = (vec![0.0; rows], vec![0.0; n]);
                softmax(&logits, classes, &mut p);
                log_softmax(&logits, classes, &mut log);
                softmax_cross_entropy(&logits, &dense, classes, &mut loss, &mut back);
                sparse_softmax_cross_entropy(&logits, &sparse, classes, &mut sparse_loss, &mut sparse_back);
                (p, log, loss, back, sparse_loss, sparse_back)
            };
            let got = same_on_any_pool(run);
            let mut e = (vec![], vec![], vec![], vec![], vec![], vec![]);
            for row in 0..rows {
                let range = row * classes..(row + 1) * classes;
                let x = wide(&logits[range.clone()]);
                let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let log_sum = x.iter().map(|x| (x - max).exp()).sum::<f64>().ln() + max;
                let labels = wide(&dense[range]);
                e.2.push(x.iter().zip(&labels).map(|(x, l)| l * (log_sum - x)).sum::<f64>());
                e.4.push(log_sum - x[sparse[row] as usize]);
                for (c, x) in x.iter().enumerate() {
                    let p = (x - log_sum).exp();
                    e.0.push(p);
                    e.1.push(x - log_sum);
                    e.3.push(p - labels[c]);
                    e.5.push(p - f64::from(u8::from(c == sparse[row] as usize)));
                }
            }
            assert_close(&got.0, &e.0, 1e-6);
            assert_close(&got.1, &e.1, 1e-6);
            assert_close(&got.2, &e.2, 1e-4);
            assert_close(&got.3, &e.3, 1e-6);
            assert_close(&got.4, &e.4, 1e-6);
            assert_close(&got.5, &e.5, 1e-6);
        }
    }

    #[test]
    fn labels_out_of_range_are_not_numbers() {
        let (mut loss, mut back) = ([0.0f64; 2], [0.0f64; 4]);
        sparse_softmax_cross_entropy(&[1.0, 2.0, 3.0, 4.0], &[-1i64, 1], 2, &mut loss, &mut back);
        assert!(loss[0].is_nan() && back[0].is_nan() && loss[1].is_finite() && back[3].is_finite());
    }
}
