//! The Cholesky factorization.

use num_traits::{Float, Zero};

use super::rows::{PANEL, subtract_rows};
use super::scalar::Scalar;
use crate::cpu::parallel::{for_each_chunk, grain_for};
use crate::cpu::scratch::with_scratch;
use crate::cpu::transpose::transpose;

/// Writes L with `L Lᴴ = A` and zeros above its diagonal; of A only the lower triangle is read. False if A is not positive
/// definite.
pub fn cholesky<T: Scalar>(matrix: &[T], n: usize, lower: &mut [T]) -> bool {
    assert_eq!((matrix.len(), lower.len()), (n * n, n * n));
    // Columns of L become rows, along which everything is computed.
    with_scratch(n * n, |columns: &mut [T]| {
        turn(matrix, n, columns);
        for start in (0..n).step_by(PANEL) {
            let (panel, behind) = columns[start * n..].split_at_mut(PANEL.min(n - start) * n);
            for (at, j) in (start..n).enumerate().take(PANEL) {
                let (before, own) = panel.split_at_mut(at * n);
                let own = &mut own[..n];
                own[..j].fill(T::zero());
                subtract_columns(before, n, j, own);
                let square = own[j].re();
                // Not a number is not positive either.
                if square.is_nan() || square <= T::Real::zero() {
                    return false;
                }
                let root = T::from_real(square.sqrt());
                own[j] = root;
                own[j + 1..].iter_mut().for_each(|x| *x = *x / root);
            }
            let panel = &*panel;
            for_each_chunk(behind, grain_for(PANEL * (n - start)) * n, |first, rows| {
                for (j, own) in (start + PANEL + first / n..).zip(rows.chunks_exact_mut(n)) {
                    subtract_columns(panel, n, j, own);
                }
            });
        }
        turn(columns, n, lower);
        true
    })
}

/// Subtracts from what is left of column `j` what the columns `before`, at most a panel, have to do with it.
fn subtract_columns<T: Scalar>(before: &[T], n: usize, j: usize, own: &mut [T]) {
    let mut factors = [T::zero(); PANEL];
    let factors = &mut factors[..before.len() / n];
    for (factor, column) in factors.iter_mut().zip(before.chunks_exact(n)) {
        *factor = column[j].conj();
    }
    if let Some(before) = before.get(j..) {
        subtract_rows(&mut own[j..], factors, before, n);
    }
}

/// Writes the transpose of a square matrix, without more ado if it is small.
fn turn<T: Scalar>(matrix: &[T], n: usize, out: &mut [T]) {
    if n > PANEL {
        return transpose(matrix, &[n, n], &[1, 0], out);
    }
    for (i, row) in out.chunks_exact_mut(n.max(1)).enumerate() {
        row.iter_mut().enumerate().for_each(|(j, x)| *x = matrix[j * n + i]);
    }
}
