//! Eigenvalues of self-adjoint matrices: a tridiagonal matrix by reflections, made diagonal by implicit QR steps.

use num_traits::{Float, One, Zero};

use super::householder::{Reflection, unitary};
use super::matrix::Matrix;
use super::scalar::Scalar;

/// `A = V diag(values) Vᴴ`
pub struct Eigen<T: Scalar> {
    /// Rising.
    pub values: Vec<T::Real>,
    /// The eigenvectors, a column each.
    pub vectors: Matrix<T>,
}

/// QR steps a row, at most.
const MOST_STEPS: usize = 30;

/// Decomposes a self-adjoint matrix, of which only the lower triangle is read; `None` if it does not converge, as with NaN.
pub fn self_adjoint_eigen<T: Scalar>(matrix: &Matrix<T>) -> Option<Eigen<T>> {
    let n = matrix.rows();
    let mut work = Matrix::zeros(n, n);
    for row in 0..n {
        for column in 0..=row {
            let x = matrix[(row, column)];
            (work[(row, column)], work[(column, row)]) = (x, x.conj());
        }
        work[(row, row)] = T::from_real(work[(row, row)].re());
    }
    let scale = work.greatest();
    if !scale.is_finite() {
        return None;
    }
    let scale = if scale.is_zero() { T::Real::one() } else { scale };
    work.elements_mut()
        .iter_mut()
        .for_each(|x| *x = *x / T::from_real(scale));
    let reflections: Vec<_> = (0..n.saturating_sub(1))
        .map(|k| {
            let reflection = Reflection::of(work[(k + 1, k)], (k + 2..n).map(|row| work[(row, k)]));
            reflection.apply_left(reflection.tau, &mut work, k + 1, 0);
            reflection.apply_right(reflection.tau.conj(), &mut work, 0, k + 1);
            reflection
        })
        .collect();
    let mut tridiagonal = Tridiagonal {
        diagonal: (0..n).map(|i| work[(i, i)].re()).collect(),
        below: reflections.iter().map(|reflection| reflection.beta.re()).collect(),
        vectors: unitary(&reflections, 1, n, n),
    };
    tridiagonal.diagonalize()?;
    Some(tridiagonal.sorted(scale))
}

struct Tridiagonal<T: Scalar> {
    diagonal: Vec<T::Real>,
    below: Vec<T::Real>,
    vectors: Matrix<T>,
}

impl<T: Scalar> Tridiagonal<T> {
    fn diagonalize(&mut self) -> Option<()> {
        let n = self.diagonal.len();
        let mut end = n.saturating_sub(1);
        let (mut start, mut steps) = (0, 0);
        while end > 0 {
            for i in start..end {
                let scaled = self.below[i] / T::Real::epsilon();
                let around = self.diagonal[i].abs() + self.diagonal[i + 1].abs();
                if self.below[i].abs() < T::Real::min_positive_value() || scaled * scaled <= around {
                    self.below[i] = T::Real::zero();
                }
            }
            while end > 0 && self.below[end - 1].is_zero() {
                end -= 1;
            }
            if end == 0 {
                break;
            }
            steps += 1;
            if steps > MOST_STEPS * n {
                return None;
            }
            start = end - 1;
            while start > 0 && !self.below[start - 1].is_zero() {
                start -= 1;
            }
            self.step(start, end);
        }
        Some(())
    }

    /// One implicit QR step with Wilkinson's shift on the rows `start..=end`.
    fn step(&mut self, start: usize, end: usize) {
        let (d, e) = (&mut self.diagonal, &mut self.below);
        let zero = T::Real::zero();
        let half_difference = (d[end - 1] - d[end]) / (T::Real::one() + T::Real::one());
        let last = e[end - 1];
        let mut shift = d[end];
        if half_difference.is_zero() {
            shift -= last.abs();
        } else if !last.is_zero() {
            let length = half_difference.hypot(last);
            let length = if half_difference > zero { length } else { -length };
            let square = last * last;
            shift -= if square.is_zero() {
                last / ((half_difference + length) / last)
            } else {
                square / (half_difference + length)
            };
        }
        let (mut x, mut z) = (d[start] - shift, e[start]);
        for k in start..end {
            if z.is_zero() {
                break;
            }
            let (c, s) = givens(x, z);
            let down = s * d[k] + c * e[k];
            let next = s * e[k] + c * d[k + 1];
            d[k] = c * (c * d[k] - s * e[k]) - s * (c * e[k] - s * d[k + 1]);
            d[k + 1] = s * down + c * next;
            e[k] = c * down - s * next;
            if k > start {
                e[k - 1] = c * e[k - 1] - s * z;
            }
            x = e[k];
            if k + 1 < end {
                z = -s * e[k + 1];
                e[k + 1] = c * e[k + 1];
            }
            for row in 0..self.vectors.rows() {
                let row = self.vectors.row_mut(row);
                (row[k], row[k + 1]) = (
                    row[k].scaled(c) - row[k + 1].scaled(s),
                    row[k].scaled(s) + row[k + 1].scaled(c),
                );
            }
        }
    }

    fn sorted(mut self, scale: T::Real) -> Eigen<T> {
        let n = self.diagonal.len();
        for i in 0..n {
            let mut least = i;
            for other in i + 1..n {
                if self.diagonal[other] < self.diagonal[least] {
                    least = other;
                }
            }
            if least != i {
                self.diagonal.swap(i, least);
                self.vectors.swap_columns(i, least);
            }
        }
        Eigen {
            values: self.diagonal.iter().map(|&value| value * scale).collect(),
            vectors: self.vectors,
        }
    }
}

/// Cosine and sine of the rotation that turns `(p, q)` into `(r, 0)`, as `c p - s q = r`.
fn givens<R: Float>(p: R, q: R) -> (R, R) {
    let (zero, one) = (R::zero(), R::one());
    if q.is_zero() {
        (if p < zero { -one } else { one }, zero)
    } else if p.is_zero() {
        (zero, if q < zero { one } else { -one })
    } else if p.abs() > q.abs() {
        let t = q / p;
        let u = (one + t * t).sqrt();
        let c = one / if p < zero { -u } else { u };
        (c, -t * c)
    } else {
        let t = p / q;
        let u = (one + t * t).sqrt();
        let s = -one / if q < zero { -u } else { u };
        (-t * s, s)
    }
}
