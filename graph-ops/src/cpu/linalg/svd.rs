//! Singular values by two-sided Jacobi rotations, after a pivoted QR factorization where the matrix is not square.

use num_traits::{Float, One, Zero};

use super::matrix::Matrix;
use super::qr::pivoted_qr;
use super::scalar::Scalar;

/// Which singular vectors are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vectors {
    /// None.
    None,
    /// As many as there are singular values.
    Thin,
    /// Bases of the whole spaces.
    Full,
}

/// `A = U diag(s) Vᴴ`
pub struct Svd<T: Scalar> {
    /// Falling.
    pub values: Vec<T::Real>,
    /// U; without meaning if no vectors were wanted.
    pub left: Matrix<T>,
    /// V; without meaning if no vectors were wanted.
    pub right: Matrix<T>,
}

/// Rounds over all pairs of columns, at most: far more than numbers that are finite can need.
const MOST_SWEEPS: usize = 200;

/// Decomposes a matrix. A matrix with elements that are not finite gives NaN.
pub fn svd<T: Scalar>(matrix: &Matrix<T>, vectors: Vectors) -> Svd<T> {
    let (m, n) = (matrix.rows(), matrix.columns());
    let count = m.min(n);
    let (left_columns, right_columns) = match vectors {
        Vectors::Full => (m, n),
        _ => (count, count),
    };
    let scale = matrix.greatest();
    if !scale.is_finite() {
        let nan = T::Real::nan();
        let filled = |rows, columns| {
            let mut filled = Matrix::zeros(rows, columns);
            filled.elements_mut().fill(T::from_real(nan));
            filled
        };
        return Svd {
            values: vec![nan; count],
            left: filled(m, left_columns),
            right: filled(n, right_columns),
        };
    }
    if count == 0 {
        return Svd {
            values: Vec::new(),
            left: Matrix::identity(m, left_columns),
            right: Matrix::identity(n, right_columns),
        };
    }
    let scale = if scale.is_zero() { T::Real::one() } else { scale };
    let mut scaled = matrix.clone();
    scaled
        .elements_mut()
        .iter_mut()
        .for_each(|x| *x = *x / T::from_real(scale));
    let mut jacobi = Jacobi::begin(scaled, vectors == Vectors::Full);
    jacobi.sweep();
    jacobi.finish(scale)
}

/// A square matrix on its way to a diagonal one, and the rotations so far.
struct Jacobi<T: Scalar> {
    work: Matrix<T>,
    left: Matrix<T>,
    right: Matrix<T>,
    greatest: T::Real,
}

/// A rotation of two rows or columns.
#[derive(Clone, Copy)]
struct Rotation<T> {
    c: T,
    s: T,
}

impl<T: Scalar> Rotation<T> {
    fn transpose(self) -> Self {
        Self {
            c: self.c,
            s: -self.s.conj(),
        }
    }

    fn adjoint(self) -> Self {
        Self {
            c: self.c.conj(),
            s: -self.s,
        }
    }

    fn then(self, other: Self) -> Self {
        Self {
            c: self.c * other.c - self.s.conj() * other.s,
            s: (self.c * other.s.conj() + self.s.conj() * other.c.conj()).conj(),
        }
    }

    /// Of a pair of elements.
    fn turn(self, x: T, y: T) -> (T, T) {
        (self.c * x + self.s.conj() * y, -self.s * x + self.c.conj() * y)
    }

    /// The rotation that makes `[[x, y], [conj(y), z]]` diagonal, from both sides.
    fn diagonalizing(x: T::Real, y: T, z: T::Real) -> Self {
        let one = T::Real::one();
        let twice = y.modulus() + y.modulus();
        if twice < T::Real::min_positive_value() {
            return Self {
                c: T::one(),
                s: T::zero(),
            };
        }
        let tau = (x - z) / twice;
        let w = (tau * tau + one).sqrt();
        let t = if tau > T::Real::zero() {
            one / (tau + w)
        } else {
            one / (tau - w)
        };
        let n = one / (t * t + one).sqrt();
        let size = if t > T::Real::zero() { -t.abs() * n } else { t.abs() * n };
        Self {
            c: T::from_real(n),
            s: (y.conj() / T::from_real(y.modulus())).scaled(size),
        }
    }
}

fn turn_rows<T: Scalar>(matrix: &mut Matrix<T>, p: usize, q: usize, rotation: Rotation<T>) {
    let (first, second) = matrix.rows_mut(p, q);
    for (x, y) in first.iter_mut().zip(second) {
        (*x, *y) = rotation.turn(*x, *y);
    }
}

fn turn_columns<T: Scalar>(matrix: &mut Matrix<T>, p: usize, q: usize, rotation: Rotation<T>) {
    let rotation = rotation.transpose();
    for row in 0..matrix.rows() {
        let row = matrix.row_mut(row);
        (row[p], row[q]) = rotation.turn(row[p], row[q]);
    }
}

fn scale_row<T: Scalar>(matrix: &mut Matrix<T>, row: usize, factor: T) {
    matrix.row_mut(row).iter_mut().for_each(|x| *x = *x * factor);
}

fn scale_column<T: Scalar>(matrix: &mut Matrix<T>, column: usize, factor: T) {
    (0..matrix.rows()).for_each(|row| matrix[(row, column)] = matrix[(row, column)] * factor);
}

impl<T: Scalar> Jacobi<T> {
    fn begin(matrix: Matrix<T>, full: bool) -> Self {
        let (m, n) = (matrix.rows(), matrix.columns());
        let permutation_matrix = |permutation: Vec<usize>| {
            let mut columns = Matrix::zeros(permutation.len(), permutation.len());
            permutation
                .iter()
                .enumerate()
                .for_each(|(column, &row)| columns[(row, column)] = T::one());
            columns
        };
        let (work, left, right) = if m > n {
            let factors = pivoted_qr(matrix, full);
            (factors.r, factors.q, permutation_matrix(factors.permutation))
        } else if m < n {
            let factors = pivoted_qr(matrix.adjoint(), full);
            (factors.r.adjoint(), permutation_matrix(factors.permutation), factors.q)
        } else {
            (matrix, Matrix::identity(m, m), Matrix::identity(n, n))
        };
        let greatest = (0..work.rows())
            .map(|i| work[(i, i)].modulus())
            .fold(T::Real::zero(), T::Real::max);
        Self {
            work,
            left,
            right,
            greatest,
        }
    }

    fn sweep(&mut self) {
        for _ in 0..MOST_SWEEPS {
            let mut finished = true;
            for p in 1..self.work.rows() {
                for q in 0..p {
                    if self.is_diagonal(p, q) {
                        continue;
                    }
                    finished = false;
                    if !T::COMPLEX || self.make_real(p, q) {
                        self.rotate(p, q);
                    }
                }
            }
            if finished {
                return;
            }
        }
    }

    /// Whether the elements off the diagonal in these rows and columns are as good as zero.
    fn is_diagonal(&self, p: usize, q: usize) -> bool {
        let precision = T::Real::epsilon() + T::Real::epsilon();
        let threshold = T::Real::min_positive_value().max(precision * self.greatest);
        self.work[(p, q)].modulus() <= threshold && self.work[(q, p)].modulus() <= threshold
    }

    fn remember_diagonal(&mut self, p: usize, q: usize) {
        let seen = self.work[(p, p)].modulus().max(self.work[(q, q)].modulus());
        self.greatest = self.greatest.max(seen);
    }

    /// Makes the block of rows and columns p and q real and upper triangular; whether there is something left to do.
    fn make_real(&mut self, p: usize, q: usize) -> bool {
        let tiny = T::Real::min_positive_value();
        let (pp, qp) = (self.work[(p, p)], self.work[(q, p)]);
        let norm = (pp.norm_sqr() + qp.norm_sqr()).sqrt();
        // A number of absolute value 1 that makes `x` real.
        let unit = |x: T| T::from_real(x.modulus()) / x;
        if norm.is_zero() {
            (self.work[(p, p)], self.work[(q, p)]) = (T::zero(), T::zero());
            for (row, column) in [(p, q), (q, q)] {
                let x = self.work[(row, column)];
                if x.im().abs() > tiny {
                    let factor = unit(x);
                    scale_row(&mut self.work, row, factor);
                    scale_column(&mut self.left, row, factor.conj());
                }
            }
        } else {
            let rotation = Rotation {
                c: pp.conj() / T::from_real(norm),
                s: qp / T::from_real(norm),
            };
            turn_rows(&mut self.work, p, q, rotation);
            turn_columns(&mut self.left, p, q, rotation.adjoint());
            let x = self.work[(p, q)];
            if x.im().abs() > tiny {
                let factor = unit(x);
                scale_column(&mut self.work, q, factor);
                scale_column(&mut self.right, q, factor);
            }
            let x = self.work[(q, q)];
            if x.im().abs() > tiny {
                let factor = unit(x);
                scale_row(&mut self.work, q, factor);
                scale_column(&mut self.left, q, factor.conj());
            }
        }
        self.remember_diagonal(p, q);
        !self.is_diagonal(p, q)
    }

    /// Makes the block of rows and columns p and q diagonal.
    fn rotate(&mut self, p: usize, q: usize) {
        let one = T::Real::one();
        let [a, b, c, d] = [(p, p), (p, q), (q, p), (q, q)].map(|at| self.work[at].re());
        // First a rotation that makes the block symmetric.
        let (sum, difference) = (a + d, c - b);
        let symmetrizing = if difference.abs() < T::Real::min_positive_value() {
            Rotation {
                c: one,
                s: T::Real::zero(),
            }
        } else {
            let u = sum / difference;
            let length = (one + u * u).sqrt();
            Rotation {
                c: u / length,
                s: one / length,
            }
        };
        let (a, c) = symmetrizing.turn(a, c);
        let (b, d) = symmetrizing.turn(b, d);
        debug_assert!((b - c).abs() <= (a.abs() + b.abs() + d.abs()) * T::Real::epsilon().sqrt());
        let right = Rotation::<T::Real>::diagonalizing(a, b, d);
        let left = symmetrizing.then(right.transpose());
        let lift = |rotation: Rotation<T::Real>| Rotation {
            c: T::from_real(rotation.c),
            s: T::from_real(rotation.s),
        };
        turn_rows(&mut self.work, p, q, lift(left));
        turn_columns(&mut self.left, p, q, lift(left.transpose()));
        turn_columns(&mut self.work, p, q, lift(right));
        turn_columns(&mut self.right, p, q, lift(right));
        self.remember_diagonal(p, q);
    }

    fn finish(mut self, scale: T::Real) -> Svd<T> {
        let count = self.work.rows();
        let mut values = Vec::with_capacity(count);
        for i in 0..count {
            let x = self.work[(i, i)];
            if T::COMPLEX && x.im().abs() > T::Real::min_positive_value() {
                scale_column(&mut self.left, i, x / T::from_real(x.modulus()));
            } else if x.re() < T::Real::zero() {
                scale_column(&mut self.left, i, -T::one());
            }
            values.push(x.modulus() * scale);
        }
        for i in 0..count {
            let mut greatest = i;
            for other in i + 1..count {
                if values[other] > values[greatest] {
                    greatest = other;
                }
            }
            if greatest != i {
                values.swap(i, greatest);
                self.left.swap_columns(i, greatest);
                self.right.swap_columns(i, greatest);
            }
        }
        Svd {
            values,
            left: self.left,
            right: self.right,
        }
    }
}
