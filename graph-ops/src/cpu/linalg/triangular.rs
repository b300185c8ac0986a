//! Systems of equations with a triangular matrix.

use std::ops::Range;

use super::rows::{PANEL, subtract_rows};
use super::scalar::Scalar;
use crate::cpu::parallel::{SharedMut, for_each_range};
use crate::cpu::scratch::with_scratch;

/// Which elements of a square matrix are used, and how.
#[derive(Clone, Copy, Debug)]
pub struct Triangle {
    /// The lower triangle, else the upper one.
    pub lower: bool,
    /// Whether the conjugate transpose is meant.
    pub adjoint: bool,
    /// Whether the diagonal is taken to be ones, whatever it holds.
    pub unit: bool,
}

/// Solves `op(matrix) x = rhs` in place of `rhs`, which has `columns` columns; false if a diagonal element is zero.
pub fn solve_triangular<T: Scalar>(matrix: &[T], n: usize, triangle: Triangle, rhs: &mut [T], columns: usize) -> bool {
    /// Columns that are solved for together: with a few hundred rows they stay in the second-level cache.
    const STRIP: usize = 64;
    assert_eq!((matrix.len(), rhs.len()), (n * n, n * columns));
    if !triangle.unit && (0..n).any(|i| matrix[i * n + i].is_zero()) {
        return false;
    }
    if columns <= STRIP {
        substitute(matrix, n, triangle, rhs, columns);
        return true;
    }
    let rhs = SharedMut::new(rhs);
    for_each_range(columns, STRIP, |strip| {
        let width = strip.len();
        // SAFETY: the row lies in the right-hand side, and this task alone uses these columns.
        let row = |i: usize| unsafe { rhs.slice(i * columns + strip.start..i * columns + strip.end) };
        with_scratch(n * width, |part: &mut [T]| {
            part.chunks_exact_mut(width)
                .enumerate()
                .for_each(|(i, own)| own.copy_from_slice(row(i)));
            substitute(matrix, n, triangle, part, width);
            part.chunks_exact(width)
                .enumerate()
                .for_each(|(i, own)| row(i).copy_from_slice(own));
        });
    });
    true
}

/// Solves by substitution, on this thread: a panel of rows, then what is known of those that follow.
fn substitute<T: Scalar>(matrix: &[T], n: usize, triangle: Triangle, rhs: &mut [T], columns: usize) {
    let element = |i: usize, j: usize| match triangle.adjoint {
        true => matrix[j * n + i].conj(),
        false => matrix[i * n + j],
    };
    // Subtracts what the solutions `known` have to do with row `i`; `rows` are theirs.
    let subtract = |row: &mut [T], i: usize, known: Range<usize>, rows: &[T]| {
        let mut factors = [T::zero(); PANEL];
        let factors = &mut factors[..known.len()];
        factors
            .iter_mut()
            .zip(known)
            .for_each(|(factor, j)| *factor = element(i, j));
        subtract_rows(row, factors, rows, columns);
    };
    let forward = triangle.lower != triangle.adjoint;
    for done in (0..n).step_by(PANEL) {
        let len = PANEL.min(n - done);
        let panel = if forward {
            done..done + len
        } else {
            n - done - len..n - done
        };
        for step in 0..len {
            let i = if forward {
                panel.start + step
            } else {
                panel.end - 1 - step
            };
            let (before, rest) = rhs.split_at_mut(i * columns);
            let (row, behind) = rest.split_at_mut(columns);
            if forward {
                subtract(row, i, panel.start..i, &before[panel.start * columns..]);
            } else {
                subtract(row, i, i + 1..panel.end, behind);
            }
            if !triangle.unit {
                let diagonal = element(i, i);
                row.iter_mut().for_each(|x| *x = *x / diagonal);
            }
        }
        let (before, rest) = rhs.split_at_mut(panel.start * columns);
        let (solved, behind) = rest.split_at_mut(len * columns);
        let (first, others) = if forward { (panel.end, behind) } else { (0, before) };
        for (i, row) in (first..).zip(others.chunks_exact_mut(columns.max(1))) {
            subtract(row, i, panel.clone(), solved);
        }
    }
}
