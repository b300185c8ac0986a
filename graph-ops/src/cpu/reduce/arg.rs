//! Where the extremum along an axis is.

use super::TASK;
use crate::cpu::parallel::for_each_chunk;

/// The index along the middle axis of `[outer, len, inner]` of the first largest element, for each of `[outer, inner]`.
///
/// As with Eigen on a CPU, a number that is not one never wins; where nothing wins, the index is 0.
///
/// # Panics
/// If `len` is zero or a length does not match.
pub fn argmax<T: Copy + PartialOrd + Sync, I: Copy + Send + TryFrom<usize>>(
    input: &[T],
    [outer, len, inner]: [usize; 3],
    out: &mut [I],
) {
    arg(input, [outer, len, inner], out, |x, best| x > best);
}

/// [`argmax`] for the smallest.
pub fn argmin<T: Copy + PartialOrd + Sync, I: Copy + Send + TryFrom<usize>>(
    input: &[T],
    [outer, len, inner]: [usize; 3],
    out: &mut [I],
) {
    arg(input, [outer, len, inner], out, |x, best| x < best);
}

#[allow(clippy::eq_op)]
fn arg<T: Copy + PartialOrd + Sync, I: Copy + Send + TryFrom<usize>>(
    input: &[T],
    [outer, len, inner]: [usize; 3],
    out: &mut [I],
    better: impl Fn(T, T) -> bool + Sync + Send,
) {
    assert_eq!(input.len(), outer * len * inner);
    assert_eq!(out.len(), outer * inner);
    if out.is_empty() {
        return;
    }
    assert!(len > 0, "the extremum of no elements");
    for_each_chunk(out, (TASK / len).max(1), |start, out| {
        for (i, o) in out.iter_mut().enumerate() {
            let at = start + i;
            let first = at / inner * len * inner + at % inner;
            let mut best: Option<(usize, T)> = None;
            for l in 0..len {
                let x = input[first + l * inner];
                let wins = match best {
                    None => x == x,
                    Some((_, b)) => better(x, b),
                };
                if wins {
                    best = Some((l, x));
                }
            }
            let index = best.map_or(0, |b| b.0);
            if let Ok(index) = I::try_from(index) {
                *o = index;
            }
        }
    });
}
