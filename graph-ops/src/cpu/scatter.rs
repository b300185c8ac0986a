//! Rows combined with others at given places.

use std::ops::Range;

use super::parallel::{GRAIN, SharedMut, for_each_range};

/// Combines the row of `len` elements at each of `offsets` in `out` with the row of its number in `updates`; if that is but one
/// row, with this one.
///
/// Each element of `out` is combined in the order of the offsets, so that sums have the same bits each time: `out` is cut into
/// blocks of whole rows, and each task goes through all offsets and takes those in its block. Offsets are multiples of `len`.
///
/// # Panics
/// If a row lies outside, or there are neither one nor as many updates as offsets.
pub fn scatter_rows<T: Copy + Send + Sync>(
    offsets: &[usize],
    len: usize,
    updates: &[T],
    out: &mut [T],
    combine: impl Fn(&mut [T], &[T]) + Sync,
) {
    if len == 0 || offsets.is_empty() {
        return;
    }
    assert!(updates.len() == len || updates.len() == offsets.len() * len);
    assert!(offsets.iter().all(|offset| offset + len <= out.len()));
    let step = if updates.len() == len { 0 } else { len };
    let scatter = |block: Range<usize>, out: &mut [T]| {
        for (number, &offset) in offsets.iter().enumerate() {
            if block.contains(&offset) {
                let at = offset - block.start;
                combine(&mut out[at..at + len], &updates[number * step..][..len]);
            }
        }
    };
    /// More than threads, since places may be unevenly spread, and few, since each looks at all offsets.
    const MOST_BLOCKS: usize = 8;
    /// Shorter rows take no longer than looking at their offsets.
    const SHORT: usize = 16;
    let blocks = if len < SHORT {
        1
    } else {
        (offsets.len() * len / GRAIN).clamp(1, MOST_BLOCKS)
    };
    let block = out.len().div_ceil(blocks).next_multiple_of(len);
    let (whole, shared) = (out.len(), SharedMut::new(out));
    for_each_range(whole, block, |range| {
        // SAFETY: blocks are disjoint parts of `out`.
        let part = unsafe { shared.slice(range.clone()) };
        scatter(range, part);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{numbers_f32, same_on_any_pool};

    #[test]
    fn rows_are_combined_in_order() {
        for (rows, len, count) in [
            (7, 3, 5),
            (1, 1, 4),
            (1000, 64, 3000),
            (10_007, 33, 9000),
            (3, 70_000, 5),
            (4, 2, 0),
        ] {
            let offsets: Vec<usize> = (0..count).map(|i| i * 7919 % rows * len).collect();
            let (start, updates) = (numbers_f32(1, rows * len), numbers_f32(2, count * len));
            // Neither commutative nor associative.
            let step = |old: f32, new: f32| 0.5 * old - new;
            for updates in [&updates[..], &updates[..len.min(updates.len())]] {
                let mut expected = start.clone();
                for (number, &offset) in offsets.iter().enumerate() {
                    for i in 0..len {
                        let new = updates[(number * len + i) % updates.len()];
                        expected[offset + i] = step(expected[offset + i], new);
                    }
                }
                let got = same_on_any_pool(|| {
                    let mut out = start.clone();
                    scatter_rows(&offsets, len, updates, &mut out, |old, new| {
                        old.iter_mut().zip(new).for_each(|(old, &new)| *old = step(*old, new));
                    });
                    out
                });
                assert_eq!(got, expected, "{rows} rows of {len}, {count} updates");
            }
        }
    }
}
