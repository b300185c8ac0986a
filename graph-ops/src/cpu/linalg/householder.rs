//! Householder reflections `H = I - tau v vᴴ`, with 1 as the first element of `v`.

use num_traits::{Float, Zero};

use super::matrix::Matrix;
use super::scalar::Scalar;

/// A reflection that turns a vector into a multiple of the first unit vector.
pub(super) struct Reflection<T> {
    /// `v` without its first element.
    pub(super) tail: Vec<T>,
    pub(super) tau: T,
    /// What the vector's first element becomes: a real number.
    pub(super) beta: T,
}

impl<T: Scalar> Reflection<T> {
    /// The reflection `H` with `H x = beta e`, where the sign of beta is opposite to that of the first element of `x`.
    pub(super) fn of(first: T, rest: impl Iterator<Item = T>) -> Self {
        let mut tail: Vec<T> = rest.collect();
        let mut square = T::Real::zero();
        tail.iter().for_each(|x| square += x.norm_sqr());
        let tiny = T::Real::min_positive_value();
        if square <= tiny && first.im() * first.im() <= tiny {
            tail.fill(T::zero());
            return Self {
                tail,
                tau: T::zero(),
                beta: T::from_real(first.re()),
            };
        }
        let length = (first.norm_sqr() + square).sqrt();
        let beta = T::from_real(if first.re() >= T::Real::zero() { -length } else { length });
        let divisor = first - beta;
        tail.iter_mut().for_each(|x| *x = *x / divisor);
        Self {
            tail,
            tau: ((beta - first) / beta).conj(),
            beta,
        }
    }

    /// `matrix[row.., columns] = H matrix[row.., columns]` for the columns from `column` on.
    pub(super) fn apply_left(&self, tau: T, matrix: &mut Matrix<T>, row: usize, column: usize) {
        if tau.is_zero() {
            return;
        }
        for c in column..matrix.columns() {
            let mut sum = matrix[(row, c)];
            for (k, v) in self.tail.iter().enumerate() {
                sum += v.conj() * matrix[(row + 1 + k, c)];
            }
            let sum = tau * sum;
            matrix[(row, c)] -= sum;
            for (k, &v) in self.tail.iter().enumerate() {
                matrix[(row + 1 + k, c)] -= sum * v;
            }
        }
    }

    /// `matrix[rows, column..] = matrix[rows, column..] H` for the rows from `row` on.
    pub(super) fn apply_right(&self, tau: T, matrix: &mut Matrix<T>, row: usize, column: usize) {
        if tau.is_zero() {
            return;
        }
        for r in row..matrix.rows() {
            let line = &mut matrix.row_mut(r)[column..];
            let mut sum = line[0];
            for (x, &v) in line[1..].iter().zip(&self.tail) {
                sum += *x * v;
            }
            let sum = sum * tau;
            line[0] -= sum;
            for (x, v) in line[1..].iter_mut().zip(&self.tail) {
                *x -= sum * v.conj();
            }
        }
    }
}

/// The product of the conjugate transposes of the reflections, each one row further down from `shift` on: the unitary matrix
/// that turns what they made back. Of `n` rows and `columns` columns.
pub(super) fn unitary<T: Scalar>(reflections: &[Reflection<T>], shift: usize, n: usize, columns: usize) -> Matrix<T> {
    let mut q = Matrix::identity(n, columns);
    for (k, reflection) in reflections.iter().enumerate().rev() {
        reflection.apply_left(reflection.tau.conj(), &mut q, k + shift, 0);
    }
    q
}
