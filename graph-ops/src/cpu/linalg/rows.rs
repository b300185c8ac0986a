//! Multiples of rows subtracted from rows: what the factorizations and solvers spend their time with.

use super::scalar::Scalar;
use crate::cpu::simd::multiversion;

/// Rows or columns that are finished before those behind them follow: as many rows stay in the first-level cache.
pub(super) const PANEL: usize = 16;

multiversion! {
    /// Subtracts from `row` the products of each factor and its row, one after the other: of the rows that lie `stride`
    /// elements apart, from the first on.
    wide pub(super) fn subtract_rows[T: Scalar](row: &mut [T], factors: &[T], rows: &[T], stride: usize) {
        if factors.is_empty() {
            return;
        }
        // As many elements as stay in registers down all rows.
        let done = match size_of::<T>() {
            4 => strips::<T, 64>(row, factors, rows, stride, 0),
            8 => strips::<T, 32>(row, factors, rows, stride, 0),
            _ => strips::<T, 16>(row, factors, rows, stride, 0),
        };
        let done = strips::<T, 16>(row, factors, rows, stride, done);
        let rest = &mut row[done..];
        if rest.is_empty() {
            return;
        }
        for (k, &factor) in factors.iter().enumerate() {
            let other = &rows[k * stride + done..][..rest.len()];
            rest.iter_mut().zip(other).for_each(|(x, &y)| *x -= factor * y);
        }
    }
}

/// [`subtract_rows`] for strips of `N` columns from column `start` on, as many as there are; the column behind them.
#[inline(always)]
fn strips<T: Scalar, const N: usize>(row: &mut [T], factors: &[T], rows: &[T], stride: usize, start: usize) -> usize {
    let strips = row[start..].as_chunks_mut::<N>().0;
    let end = start + strips.len() * N;
    for (index, strip) in strips.iter_mut().enumerate() {
        let mut sums = *strip;
        for (k, &factor) in factors.iter().enumerate() {
            let other = &rows[k * stride + start + index * N..][..N];
            for i in 0..N {
                sums[i] -= factor * other[i];
            }
        }
        *strip = sums;
    }
    end
}
