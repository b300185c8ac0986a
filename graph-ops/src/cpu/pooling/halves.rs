//! Windows of 2x2 that lie side by side, many channels at a time.

use super::{PoolElement, larger};
use crate::cpu::groups::{LANES, each_group, load, store};
use crate::cpu::simd::multiversion;

/// The four pixels' channels of window `x` in two rows, from the channel `start` on.
///
/// # Safety
/// They lie in the rows.
#[inline(always)]
unsafe fn window<T: Copy, const N: usize>(channels: usize, rows: [&[T]; 2], x: usize, start: usize) -> [[T; N]; 4] {
    let (left, right) = (2 * x * channels + start, (2 * x + 1) * channels + start);
    // SAFETY: the caller's promise.
    unsafe {
        [
            load(rows[0], left),
            load(rows[0], right),
            load(rows[1], left),
            load(rows[1], right),
        ]
    }
}

/// Checks that the windows lie in the rows, and returns how many there are.
#[inline(always)]
fn windows<T>(channels: usize, rows: [&[T]; 2], pooled: &[T]) -> usize {
    let count = pooled.len() / channels;
    assert!(rows.iter().all(|row| row.len() >= 2 * count * channels));
    count
}

multiversion! {
    /// The maxima of the windows in two rows of pixels.
    pub(super) fn max_row[T: PoolElement](channels: usize, rows: [&[T]; 2], out: &mut [T]) {
        for x in 0..windows(channels, rows, out) {
            each_group!(channels, |start, N| {
                // SAFETY: the windows lie in the rows and in `out`.
                let p = unsafe { window::<T, N>(channels, rows, x, start) };
                let mut best = p[0];
                for i in 0..N {
                    best[i] = larger(larger(p[0][i], p[1][i]), larger(p[2][i], p[3][i]));
                }
                // SAFETY: as above.
                unsafe { store(out, x * channels + start, best) };
            });
        }
    }
}

multiversion! {
    /// Hands each window's `share(maximum, gradient)` to its first maximum in two rows, and zero to the other three pixels.
    ///
    /// `seen(group, shares)` learns of all shares, window by window: `group` numbers the elements where a group of channels
    /// starts when groups lie one after the other ([`add_groups`]).
    pub(super) fn grad_row[T: PoolElement, S: Fn(T, T) -> T, F: FnMut(usize, &[T])](
        channels: usize, rows: [&[T]; 2], gradient: &[T], to: [&mut [T]; 2], share: S, seen: F,
    ) {
        let (mut seen, [upper, lower]) = (seen, to);
        assert!(upper.len() == rows[0].len() && lower.len() == rows[1].len());
        for x in 0..windows(channels, rows, gradient) {
            let (left, right) = (2 * x * channels, (2 * x + 1) * channels);
            let mut group = 0;
            each_group!(channels, |start, N| {
                // SAFETY: the windows lie in the rows and in `gradient`.
                let (p, mut shares) =
                    unsafe { (window::<T, N>(channels, rows, x, start), load::<T, N>(gradient, x * channels + start)) };
                let zero = T::zero();
                let mut parts = [[zero; N]; 4];
                for i in 0..N {
                    // Whether the second beats the first in each row, and the lower row's best the upper's.
                    let (right0, right1) = (p[0][i] < p[1][i], p[2][i] < p[3][i]);
                    let (best0, best1) = (larger(p[0][i], p[1][i]), larger(p[2][i], p[3][i]));
                    let below = best0 < best1;
                    let d = share(larger(best0, best1), shares[i]);
                    let (d0, d1) = if below { (zero, d) } else { (d, zero) };
                    parts[0][i] = if right0 { zero } else { d0 };
                    parts[1][i] = if right0 { d0 } else { zero };
                    parts[2][i] = if right1 { zero } else { d1 };
                    parts[3][i] = if right1 { d1 } else { zero };
                    shares[i] = d;
                }
                // SAFETY: the gradient's rows are as long as the image's.
                unsafe {
                    store(upper, left + start, parts[0]);
                    store(upper, right + start, parts[1]);
                    store(lower, left + start, parts[2]);
                    store(lower, right + start, parts[3]);
                }
                seen(group, &shares);
                group += N;
            });
        }
    }
}

/// What is added to a place whose maximum is not above zero.
const NOT_ABOVE_ZERO: f64 = 4.0;

multiversion! {
    /// [`max_row`], and where each maximum is: its place in the window in row-major order, 0 to 3, and 4 more where it is not
    /// above zero.
    pub(super) fn max_row_with_places[T: PoolElement + num_traits::Float](
        channels: usize, rows: [&[T]; 2], out: &mut [T], places: &mut [T],
    ) {
        assert_eq!(out.len(), places.len());
        let [one, two, four] = [1.0, 2.0, NOT_ABOVE_ZERO].map(|x| T::from(x).unwrap_or_else(T::nan));
        for x in 0..windows(channels, rows, out) {
            each_group!(channels, |start, N| {
                // SAFETY: the windows lie in the rows, and so many pixels in `out` and `places`.
                let p = unsafe { window::<T, N>(channels, rows, x, start) };
                let (mut best, mut place) = (p[0], p[0]);
                for i in 0..N {
                    let (best0, best1) = (larger(p[0][i], p[1][i]), larger(p[2][i], p[3][i]));
                    let in_row0 = if p[0][i] < p[1][i] { one } else { T::zero() };
                    let in_row1 = if p[2][i] < p[3][i] { one } else { T::zero() };
                    let in_window = if best0 < best1 { two + in_row1 } else { in_row0 };
                    best[i] = larger(best0, best1);
                    place[i] = in_window + if best[i] > T::zero() { T::zero() } else { four };
                }
                // SAFETY: as above.
                unsafe {
                    store(out, x * channels + start, best);
                    store(places, x * channels + start, place);
                }
            });
        }
    }
}

multiversion! {
    /// [`grad_row`] by the places of the maxima; a share is the gradient times one where the maximum is above zero, else times
    /// zero.
    pub(super) fn grad_row_at[T: PoolElement + num_traits::Float, F: FnMut(usize, &[T])](
        channels: usize, places: &[T], gradient: &[T], to: [&mut [T]; 2], seen: F,
    ) {
        let (mut seen, [upper, lower]) = (seen, to);
        assert_eq!(places.len(), gradient.len());
        let [one, two, three, four] = [1.0, 2.0, 3.0, NOT_ABOVE_ZERO].map(|x| T::from(x).unwrap_or_else(T::nan));
        for x in 0..windows(channels, [&*upper, &*lower], gradient) {
            let (left, right) = (2 * x * channels, (2 * x + 1) * channels);
            let mut group = 0;
            each_group!(channels, |start, N| {
                // SAFETY: so many pixels lie in `places` and `gradient`.
                let (place, mut shares) = unsafe {
                    (load::<T, N>(places, x * channels + start), load::<T, N>(gradient, x * channels + start))
                };
                let zero = T::zero();
                let mut parts = [[zero; N]; 4];
                for i in 0..N {
                    let passes = place[i] < four;
                    let at = if passes { place[i] } else { place[i] - four };
                    let d = shares[i] * if passes { one } else { zero };
                    parts[0][i] = if at == zero { d } else { zero };
                    parts[1][i] = if at == one { d } else { zero };
                    parts[2][i] = if at == two { d } else { zero };
                    parts[3][i] = if at == three { d } else { zero };
                    shares[i] = d;
                }
                // SAFETY: the windows lie in the rows (checked).
                unsafe {
                    store(upper, left + start, parts[0]);
                    store(upper, right + start, parts[1]);
                    store(lower, left + start, parts[2]);
                    store(lower, right + start, parts[3]);
                }
                seen(group, &shares);
                group += N;
            });
        }
    }
}

/// Elements of all groups of channels, one after the other.
pub(super) fn groups_len(channels: usize) -> usize {
    if channels >= LANES {
        channels.next_multiple_of(LANES)
    } else {
        channels
    }
}

/// Adds to each channel its element in groups of channels that lie one after the other.
pub(super) fn add_groups<T: Copy + std::ops::AddAssign>(channels: usize, groups: &[T], to: &mut [T]) {
    // A channel in two groups has the same element in both.
    let moved_back = groups.len() - channels;
    for (c, to) in to.iter_mut().enumerate() {
        let in_last = channels >= LANES && c >= channels - LANES;
        *to += groups[if in_last { c + moved_back } else { c }];
    }
}
