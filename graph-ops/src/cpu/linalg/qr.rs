//! QR factorizations by Householder reflections.

use num_traits::{Float, One, Zero};

use super::householder::{Reflection, unitary};
use super::matrix::Matrix;
use super::scalar::Scalar;

/// `A = Q R`
pub struct Qr<T> {
    /// Orthonormal columns.
    pub q: Matrix<T>,
    /// Zero below its diagonal.
    pub r: Matrix<T>,
}

/// Factorizes `matrix` of m rows and n columns: Q of min(m, n) columns, or of m if `full`.
pub fn qr<T: Scalar>(mut matrix: Matrix<T>, full: bool) -> Qr<T> {
    let (m, n) = (matrix.rows(), matrix.columns());
    let reflections: Vec<_> = (0..m.min(n)).map(|k| reflect(&mut matrix, k)).collect();
    let columns = if full { m } else { m.min(n) };
    let q = unitary(&reflections, 0, m, columns);
    let r = Matrix::new(columns, n, &matrix.elements()[..columns * n]);
    Qr { q, r }
}

/// Clears column `k` below the diagonal and changes the columns after it accordingly.
fn reflect<T: Scalar>(matrix: &mut Matrix<T>, k: usize) -> Reflection<T> {
    let m = matrix.rows();
    let reflection = Reflection::of(matrix[(k, k)], (k + 1..m).map(|row| matrix[(row, k)]));
    matrix[(k, k)] = reflection.beta;
    (k + 1..m).for_each(|row| matrix[(row, k)] = T::zero());
    reflection.apply_left(reflection.tau, matrix, k, k + 1);
    reflection
}

/// `A P = Q R` with the columns exchanged so that the diagonal of R falls.
pub(super) struct PivotedQr<T> {
    /// Square and unitary, or of n columns.
    pub(super) q: Matrix<T>,
    /// The upper n rows of R.
    pub(super) r: Matrix<T>,
    /// Which column of A became each column.
    pub(super) permutation: Vec<usize>,
}

/// Factorizes a matrix of at least as many rows as columns.
pub(super) fn pivoted_qr<T: Scalar>(mut matrix: Matrix<T>, full: bool) -> PivotedQr<T> {
    let (m, n) = (matrix.rows(), matrix.columns());
    let norm = |matrix: &Matrix<T>, from: usize, column: usize| {
        let mut square = T::Real::zero();
        (from..m).for_each(|row| square += matrix[(row, column)].norm_sqr());
        square.sqrt()
    };
    // Norms are brought up to date, and computed anew where that has cost too many digits (LAPACK Working Note 176).
    let mut exact: Vec<T::Real> = (0..n).map(|column| norm(&matrix, 0, column)).collect();
    let mut updated = exact.clone();
    let threshold = T::Real::epsilon().sqrt();
    let mut permutation: Vec<usize> = (0..n).collect();
    let mut reflections = Vec::with_capacity(n);
    for k in 0..n {
        let mut greatest = k;
        for column in k + 1..n {
            if updated[column] > updated[greatest] {
                greatest = column;
            }
        }
        if greatest != k {
            matrix.swap_columns(k, greatest);
            permutation.swap(k, greatest);
            updated.swap(k, greatest);
            exact.swap(k, greatest);
        }
        reflections.push(reflect(&mut matrix, k));
        for column in k + 1..n {
            if updated[column].is_zero() {
                continue;
            }
            let ratio = matrix[(k, column)].modulus() / updated[column];
            let one = T::Real::one();
            let left = ((one + ratio) * (one - ratio)).max(T::Real::zero());
            let lost = updated[column] / exact[column];
            if left * lost * lost <= threshold {
                updated[column] = norm(&matrix, k + 1, column);
                exact[column] = updated[column];
            } else {
                updated[column] = updated[column] * left.sqrt();
            }
        }
    }
    PivotedQr {
        q: unitary(&reflections, 0, m, if full { m } else { n }),
        r: Matrix::new(n, n, &matrix.elements()[..n * n]),
        permutation,
    }
}
