//! Where the extremum along an axis is.

use super::{LANES, TASK};
use crate::cpu::parallel::{SharedMut, for_each_range};
use crate::cpu::scratch::{Plain, with_scratch};
use crate::cpu::simd::multiversion;
use half::{bf16, f16};

/// A number among others of its type.
pub trait Ranked: Copy + Sync {
    type Rank: Plain + Ord + Send + Sync;
    /// The rank that none is below.
    const LOWEST: Self::Rank;
    /// Greater for a greater number, and equal for an equal one; the lowest for what is not a number.
    fn rank(self) -> Self::Rank;
    /// The same for a lesser number.
    fn rank_from_above(self) -> Self::Rank;
}

macro_rules! ranked_integers {
    ($($t:ty),*) => {$(
        impl Ranked for $t {
            type Rank = $t;
            const LOWEST: $t = <$t>::MIN;
            #[inline(always)]
            fn rank(self) -> $t {
                self
            }
            #[inline(always)]
            fn rank_from_above(self) -> $t {
                !self
            }
        }
    )*};
}
ranked_integers!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! ranked_floats {
    ($($t:ty: $rank:ty),*) => {$(
        impl Ranked for $t {
            type Rank = $rank;
            const LOWEST: $rank = <$rank>::MIN;
            #[inline(always)]
            fn rank(self) -> $rank {
                let bits = self.to_bits() as $rank;
                let magnitude = bits & <$rank>::MAX;
                let signed = if bits < 0 { -magnitude } else { magnitude };
                if magnitude > <$t>::INFINITY.to_bits() as $rank { Self::LOWEST } else { signed }
            }
            #[inline(always)]
            fn rank_from_above(self) -> $rank {
                // The lowest is its own negative.
                self.rank().wrapping_neg()
            }
        }
    )*};
}
ranked_floats!(f16: i16, bf16: i16, f32: i32, f64: i64);

/// The index along the middle axis of `[outer, len, inner]` of the first largest element, for each of `[outer, inner]`.
///
/// As with Eigen on a CPU, a number that is not one never wins; where nothing wins, the index is 0.
///
/// # Panics
/// If `len` is zero or a length does not match.
pub fn argmax<T: Ranked, I: Copy + Default + Send + TryFrom<usize>>(input: &[T], lens: [usize; 3], out: &mut [I]) {
    arg(input, lens, out, T::rank);
}

/// [`argmax`] for the smallest.
pub fn argmin<T: Ranked, I: Copy + Default + Send + TryFrom<usize>>(input: &[T], lens: [usize; 3], out: &mut [I]) {
    arg(input, lens, out, T::rank_from_above);
}

fn arg<T: Ranked, I: Copy + Default + Send + TryFrom<usize>>(
    input: &[T],
    [outer, len, inner]: [usize; 3],
    out: &mut [I],
    rank: impl Fn(T) -> T::Rank + Copy + Sync + Send,
) {
    /// Columns that are looked at together: their ranks and indices stay in the first-level cache.
    const COLUMNS: usize = 512;
    assert_eq!(input.len(), outer * len * inner);
    assert_eq!(out.len(), outer * inner);
    if out.is_empty() {
        return;
    }
    assert!(len > 0, "the extremum of no elements");
    let index = |index: usize| I::try_from(index).unwrap_or_default();
    let out = SharedMut::new(out);
    if inner == 1 {
        return for_each_range(outer, TASK.div_ceil(len), |range| {
            // SAFETY: each result belongs to one task.
            let out = unsafe { out.slice(range.clone()) };
            for (out, row) in out.iter_mut().zip(input[range.start * len..].chunks_exact(len)) {
                *out = index(first_greatest(row, T::LOWEST, rank));
            }
        });
    }
    let parts = inner.div_ceil(COLUMNS);
    let width = inner.div_ceil(parts);
    for_each_range(outer * parts, TASK.div_ceil(len * width), |range| {
        for task in range {
            let columns = task % parts * width..inner.min((task % parts + 1) * width);
            // SAFETY: each result belongs to one task.
            let out = unsafe { out.slice(task / parts * inner + columns.start..task / parts * inner + columns.end) };
            with_scratch(columns.len(), |greatest: &mut [T::Rank]| {
                with_scratch(columns.len(), |places: &mut [u32]| {
                    greatest.fill(T::LOWEST);
                    out.fill(I::default());
                    let rows = &input[task / parts * len * inner..][..len * inner];
                    let mut start = 0;
                    for rows in rows.chunks(u32::MAX as usize / inner * inner) {
                        places.fill(u32::MAX);
                        for (place, row) in rows.chunks_exact(inner).enumerate() {
                            take_row(&row[columns.clone()], place as u32, greatest, places, rank);
                        }
                        let found = out.iter_mut().zip(&*places).filter(|(_, place)| **place != u32::MAX);
                        found.for_each(|(out, &place)| *out = index(start + place as usize));
                        start += rows.len() / inner;
                    }
                });
            });
        }
    });
}

/// Elements whose greatest is found before its place is: they stay in the first-level cache.
const BLOCK: usize = 2048;

multiversion! {
    /// The place of the first element of the greatest rank.
    fn first_greatest[T: Copy, R: Copy + Ord, F: Fn(T) -> R](row: &[T], lowest: R, rank: F) -> usize {
        let (mut best, mut place) = (lowest, 0);
        for (number, block) in row.chunks(BLOCK).enumerate() {
            let (groups, rest) = block.as_chunks::<LANES>();
            let mut greatest = lowest;
            if !groups.is_empty() {
                let mut lanes = [lowest; LANES];
                for group in groups {
                    for (lane, &x) in lanes.iter_mut().zip(group) {
                        *lane = rank(x).max(*lane);
                    }
                }
                greatest = lanes.into_iter().fold(lowest, R::max);
            }
            greatest = rest.iter().fold(greatest, |greatest, &x| rank(x).max(greatest));
            if greatest > best {
                best = greatest;
                let holds = |part: &[T]| part.iter().fold(false, |holds, &x| holds | (rank(x) == best));
                let part = block.chunks(LANES).position(holds).unwrap_or(0) * LANES;
                let within = block[part..].iter().position(|&x| rank(x) == best);
                place = number * BLOCK + part + within.unwrap_or(0);
            }
        }
        place
    }
}

multiversion! {
    /// Takes in the elements of one row, each into its column's greatest rank and where that is.
    fn take_row[T: Copy, R: Copy + Ord, F: Fn(T) -> R](row: &[T], place: u32, greatest: &mut [R], places: &mut [u32], rank: F) {
        for ((&x, greatest), at) in row.iter().zip(greatest).zip(places) {
            let rank = rank(x);
            let wins = rank > *greatest;
            *greatest = if wins { rank } else { *greatest };
            *at = if wins { place } else { *at };
        }
    }
}
