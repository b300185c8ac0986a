//! Systems of equations with a triangular matrix.

use super::matrix::subtract_row;
use super::scalar::Scalar;

/// Which elements of a square matrix are used, and how.
#[derive(Clone, Copy, Debug)]
pub struct Triangle {
    /// The lower triangle, else the upper one.
    pub lower: bool,
    /// Whether the conjugate transpose is meant.
    pub adjoint: bool,
}

/// Solves `op(matrix) x = rhs` in place of `rhs`, which has `columns` columns; false if a diagonal element is zero.
pub fn solve_triangular<T: Scalar>(matrix: &[T], n: usize, triangle: Triangle, rhs: &mut [T], columns: usize) -> bool {
    assert_eq!((matrix.len(), rhs.len()), (n * n, n * columns));
    let element = |i: usize, j: usize| match triangle.adjoint {
        true => matrix[j * n + i].conj(),
        false => matrix[i * n + j],
    };
    let forward = triangle.lower != triangle.adjoint;
    for step in 0..n {
        let i = if forward { step } else { n - 1 - step };
        let known = if forward { 0..i } else { i + 1..n };
        for j in known {
            let (row, other) = if i > j {
                let (before, after) = rhs.split_at_mut(i * columns);
                (&mut after[..columns], &before[j * columns..(j + 1) * columns])
            } else {
                let (before, after) = rhs.split_at_mut(j * columns);
                (&mut before[i * columns..(i + 1) * columns], &after[..columns])
            };
            subtract_row(row, element(i, j), other);
        }
        let diagonal = element(i, i);
        if diagonal.is_zero() {
            return false;
        }
        rhs[i * columns..(i + 1) * columns]
            .iter_mut()
            .for_each(|x| *x = *x / diagonal);
    }
    true
}
