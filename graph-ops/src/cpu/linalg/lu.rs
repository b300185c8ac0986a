//! LU factorization with exchanges of rows.

use num_traits::{Float, Zero};

use super::matrix::{Matrix, subtract_row};
use super::scalar::Scalar;
use super::triangular::{Triangle, solve_triangular};

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

impl<T: Scalar> Lu<T> {
    /// Factorizes a square matrix; in each column the greatest element becomes the pivot.
    pub fn new(mut factors: Matrix<T>) -> Self {
        let n = factors.rows();
        assert_eq!(n, factors.columns());
        let mut permutation: Vec<usize> = (0..n).collect();
        let mut odd = false;
        for k in 0..n {
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
                subtract_row(&mut row[k + 1..], factor, &pivot[k + 1..]);
            }
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
        for i in 0..n {
            let (before, after) = solution.split_at_mut(i * columns);
            for j in 0..i {
                subtract_row(
                    &mut after[..columns],
                    self.factors[(i, j)],
                    &before[j * columns..(j + 1) * columns],
                );
            }
        }
        let upper = Triangle {
            lower: false,
            adjoint: false,
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
