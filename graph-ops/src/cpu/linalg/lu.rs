//! LU factorization with exchanges of rows.

use std::ops::Range;

use num_traits::{Float, Zero};

use super::matrix::Matrix;
use super::rows::{PANEL, subtract_rows};
use super::scalar::Scalar;
use super::triangular::{Triangle, solve_triangular};
use crate::cpu::parallel::{for_each_chunk, grain_for};

/// `P A = L U`: L with ones on its diagonal below, U on and above the diagonal of `factors`.
pub struct Lu<T> {
    /// Both triangles.
    pub factors: Matrix<T>,
    /// Which row of A became each row.
    pub permutation: Vec<usize>,
    odd: bool,
}

/// A determinant as a number of absolute value 1 (or 0) and the logarithm of its absolute value.
pub struct SignedLog<T: Scalar> {
    /// The sign.
    pub sign: T,
    /// The logarithm.
    pub log: T::Real,
}

/// What a panel's pivots are to the columns behind it: multiples of rows of the panel, subtracted from those below.
///
/// A pivot of zero has zeros below it, in which nothing is to be subtracted.
fn subtract_panel<T: Scalar>(factors: &mut [T], n: usize, panel: Range<usize>) {
    let Range { start, end } = panel;
    if end == n {
        return;
    }
    let (above, below) = factors.split_at_mut(end * n);
    for row in start + 1..end {
        let (pivots, row) = above.split_at_mut(row * n);
        let (own, behind) = row[..n].split_at_mut(end);
        let own = &own[start..];
        subtract_rows(behind, &own[..pivots.len() / n - start], &pivots[start * n + end..], n);
    }
    let pivots = &above[start * n + end..];
    let rows = grain_for((end - start) * (n - end));
    for_each_chunk(below, rows * n, |_, rows| {
        for row in rows.chunks_exact_mut(n) {
            let (own, behind) = row.split_at_mut(end);
            subtract_rows(behind, &own[start..], pivots, n);
        }
    });
}

impl<T: Scalar> Lu<T> {
    /// Factorizes a square matrix; in each column the greatest element becomes the pivot.
    pub fn new(mut factors: Matrix<T>) -> Self {
        let n = factors.rows();
        assert_eq!(n, factors.columns());
        let mut permutation: Vec<usize> = (0..n).collect();
        let mut odd = false;
        for start in (0..n).step_by(PANEL) {
            let end = n.min(start + PANEL);
            for k in start..end {
                let mut pivot = k;
                for row in k + 1..n {
                    if factors[(row, k)].modulus() > factors[(pivot, k)].modulus() {
                        pivot = row;
                    }
                }
                if factors[(pivot, k)].is_zero() {
                    continue;
                }
                if pivot != k {
                    factors.swap_rows(pivot, k);
                    permutation.swap(pivot, k);
                    odd = !odd;
                }
                for row in k + 1..n {
                    let factor = factors[(row, k)] / factors[(k, k)];
                    factors[(row, k)] = factor;
                    let (row, pivot) = factors.rows_mut(row, k);
                    let others = row[k + 1..end].iter_mut().zip(&pivot[k + 1..end]);
                    others.for_each(|(x, &y)| *x -= factor * y);
                }
            }
            subtract_panel(factors.elements_mut(), n, start..end);
        }
        Self {
            factors,
            permutation,
            odd,
        }
    }

    /// Whether the matrix has an inverse; NaN has none.
    pub fn is_invertible(&self) -> bool {
        let zero = T::Real::zero();
        (0..self.factors.rows()).all(|i| self.factors[(i, i)].modulus() > zero)
    }

    /// The solution of `A x = rhs`. The matrix must be invertible.
    pub fn solve(&self, rhs: &[T], columns: usize, solution: &mut [T]) {
        let n = self.factors.rows();
        for (row, &source) in self.permutation.iter().enumerate() {
            solution[row * columns..(row + 1) * columns]
                .copy_from_slice(&rhs[source * columns..(source + 1) * columns]);
        }
        let lower = Triangle {
            lower: true,
            adjoint: false,
            unit: true,
        };
        solve_triangular(self.factors.elements(), n, lower, solution, columns);
        let upper = Triangle {
            lower: false,
            adjoint: false,
            unit: false,
        };
        solve_triangular(self.factors.elements(), n, upper, solution, columns);
    }

    /// The determinant.
    pub fn determinant(&self) -> SignedLog<T> {
        let mut sign = if self.odd { -T::one() } else { T::one() };
        let mut log = T::Real::zero();
        for i in 0..self.factors.rows() {
            let (pivot, modulus) = (self.factors[(i, i)], self.factors[(i, i)].modulus());
            if modulus.is_zero() {
                return SignedLog {
                    sign: T::zero(),
                    log: T::Real::neg_infinity(),
                };
            }
            sign = sign * pivot.scaled(modulus.recip());
            log += modulus.ln();
        }
        SignedLog { sign, log }
    }
}
