//! Least-squares solutions of systems with any number of equations.

use num_traits::{Float, One, Zero};

use super::cholesky::cholesky;
use super::matrix::Matrix;
use super::scalar::Scalar;
use super::svd::{Vectors, svd};
use super::triangular::{Triangle, solve_triangular};

/// How a system is solved.
#[derive(Clone, Copy, Debug)]
pub enum LeastSquares<R> {
    /// By the normal equations, with this added to their diagonal.
    Normal(R),
    /// By singular values, those next to nothing left out: the shortest of the solutions.
    Orthogonal,
}

/// Minimizes `|A x - b|` for each column of `rhs`; `None` if the normal equations cannot be solved.
pub fn least_squares<T: Scalar>(
    matrix: &Matrix<T>,
    rhs: &Matrix<T>,
    method: LeastSquares<T::Real>,
) -> Option<Matrix<T>> {
    match method {
        LeastSquares::Normal(regularizer) => normal(matrix, rhs, regularizer),
        LeastSquares::Orthogonal => Some(orthogonal(matrix, rhs)),
    }
}

fn normal<T: Scalar>(matrix: &Matrix<T>, rhs: &Matrix<T>, regularizer: T::Real) -> Option<Matrix<T>> {
    let adjoint = matrix.adjoint();
    let over = matrix.rows() >= matrix.columns();
    let (mut gramian, mut x) = if over {
        (adjoint.times(matrix), adjoint.times(rhs))
    } else {
        (matrix.times(&adjoint), rhs.clone())
    };
    let n = gramian.rows();
    (0..n).for_each(|i| gramian[(i, i)] += T::from_real(regularizer));
    let mut lower = vec![T::zero(); n * n];
    if !cholesky(gramian.elements(), n, &mut lower) {
        return None;
    }
    let columns = x.columns();
    for adjoint in [false, true] {
        let triangle = Triangle {
            lower: true,
            adjoint,
            unit: false,
        };
        solve_triangular(&lower, n, triangle, x.elements_mut(), columns);
    }
    Some(if over { x } else { adjoint.times(&x) })
}

fn orthogonal<T: Scalar>(matrix: &Matrix<T>, rhs: &Matrix<T>) -> Matrix<T> {
    let parts = svd(matrix, Vectors::Thin);
    let mut x = parts.left.adjoint().times(rhs);
    let greatest = parts.values.first().copied().unwrap_or_else(T::Real::zero);
    let count = parts
        .values
        .iter()
        .fold(T::Real::zero(), |count, _| count + T::Real::one());
    let threshold = T::Real::epsilon() * count * greatest;
    for (row, &value) in parts.values.iter().enumerate() {
        let factor = if value > threshold {
            value.recip()
        } else {
            T::Real::zero()
        };
        x.row_mut(row).iter_mut().for_each(|x| *x = x.scaled(factor));
    }
    parts.right.times(&x)
}
