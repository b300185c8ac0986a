use graph_core::Complex;
use num_traits::Float;

use super::*;

/// Numbers that look random, the same in every run.
fn matrix<T: Scalar<Real = f64>>(rows: usize, columns: usize, seed: u32) -> Matrix<T> {
    let mut matrix = Matrix::zeros(rows, columns);
    let (mut state, scale) = (seed.wrapping_mul(2_654_435_761) | 1, f64::from(u32::MAX));
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f64::from(state) / scale - 0.5
    };
    for x in matrix.elements_mut() {
        *x = T::from_real(next());
        if T::COMPLEX {
            // The square root of -1.
            *x += (-T::one()).root().scaled(next());
        }
    }
    matrix
}

fn assert_equal<T: Scalar<Real = f64>>(a: &Matrix<T>, b: &Matrix<T>, what: &str) {
    assert_eq!((a.rows(), a.columns()), (b.rows(), b.columns()), "{what}");
    for (x, y) in a.elements().iter().zip(b.elements()) {
        assert!((*x - *y).modulus() < 1e-12, "{what}: {a:?} and {b:?}");
    }
}

fn diagonal<T: Scalar<Real = f64>>(values: &[f64], rows: usize, columns: usize) -> Matrix<T> {
    let mut diagonal = Matrix::zeros(rows, columns);
    values
        .iter()
        .enumerate()
        .for_each(|(i, &value)| diagonal[(i, i)] = T::from_real(value));
    diagonal
}

fn factorizations_hold<T: Scalar<Real = f64>>() {
    for (m, n) in [
        (1, 1),
        (2, 2),
        (3, 3),
        (5, 5),
        (7, 3),
        (3, 7),
        (20, 20),
        (6, 1),
        (1, 6),
        (0, 2),
        (2, 0),
    ] {
        let a: Matrix<T> = matrix(m, n, 7 + (m * 31 + n) as u32);
        let what = format!("{m} by {n}");
        for full in [false, true] {
            let Qr { q, r } = qr(a.clone(), full);
            assert_equal(&q.times(&r), &a, &what);
            assert_equal(
                &q.adjoint().times(&q),
                &Matrix::identity(q.columns(), q.columns()),
                &what,
            );
            let vectors = if full { Vectors::Full } else { Vectors::Thin };
            let Svd { values, left, right } = svd(&a, vectors);
            assert!(values.windows(2).all(|pair| pair[0] >= pair[1]), "{what}: {values:?}");
            let middle = diagonal(&values, left.columns(), right.columns());
            assert_equal(&left.times(&middle).times(&right.adjoint()), &a, &what);
            assert_equal(
                &left.adjoint().times(&left),
                &Matrix::identity(left.columns(), left.columns()),
                &what,
            );
            assert_equal(
                &right.adjoint().times(&right),
                &Matrix::identity(right.columns(), right.columns()),
                &what,
            );
        }
        let square = a.adjoint().times(&a);
        let Eigen { values, vectors } =
            self_adjoint_eigen(&square).unwrap_or_else(|| panic!("{what} does not converge"));
        assert!(values.windows(2).all(|pair| pair[0] <= pair[1]), "{what}: {values:?}");
        let back = vectors.times(&diagonal(&values, n, n)).times(&vectors.adjoint());
        assert_equal(&back, &square, &what);
        if m >= n && n > 0 {
            let mut lower = vec![T::zero(); n * n];
            assert!(cholesky(square.elements(), n, &mut lower));
            let lower = Matrix::new(n, n, &lower);
            assert_equal(&lower.times(&lower.adjoint()), &square, &what);
        }
        if m == n {
            let lu = Lu::new(a.clone());
            let identity = Matrix::<T>::identity(n, n);
            let mut inverse = Matrix::zeros(n, n);
            lu.solve(identity.elements(), n, inverse.elements_mut());
            let product = a.times(&inverse);
            assert!(
                product
                    .elements()
                    .iter()
                    .zip(identity.elements())
                    .all(|(x, y)| (*x - *y).modulus() < 1e-9)
            );
        }
    }
}

#[test]
fn factorizations_multiply_to_what_they_came_from() {
    factorizations_hold::<f64>();
    factorizations_hold::<Complex<f64>>();
}

#[test]
fn a_determinant_is_a_sign_and_a_logarithm() {
    let SignedLog { sign, log } = Lu::new(Matrix::<f64>::new(2, 2, &[0.0, 2.0, 3.0, 0.0])).determinant();
    assert!(sign == -1.0 && (log.exp() - 6.0).abs() < 1e-12, "{sign} {log}");
    let SignedLog { sign, log } = Lu::new(Matrix::<f64>::zeros(2, 2)).determinant();
    assert_eq!((sign, log), (0.0, f64::neg_infinity()));
}

#[test]
fn what_cannot_be_factorized_is_said() {
    let mut lower = [0.0; 4];
    assert!(!cholesky(&[1.0, 2.0, 2.0, 1.0], 2, &mut lower));
    assert!(!cholesky(&[f64::NAN, 0.0, 0.0, 1.0], 2, &mut lower));
    assert!(!Lu::new(Matrix::new(2, 2, &[1.0, 2.0, 2.0, 4.0])).is_invertible());
    assert!(!Lu::new(Matrix::new(1, 1, &[f64::NAN])).is_invertible());
    let triangle = Triangle {
        lower: true,
        adjoint: false,
    };
    assert!(!solve_triangular(&[0.0], 1, triangle, &mut [1.0], 1));
    assert!(self_adjoint_eigen(&Matrix::new(1, 1, &[f64::NAN])).is_none());
    assert!(svd(&Matrix::new(1, 1, &[f64::INFINITY]), Vectors::None).values[0].is_nan());
}

#[test]
fn least_squares_minimize() {
    for (m, n) in [(5, 3), (3, 5), (4, 4)] {
        let (a, b): (Matrix<f64>, _) = (matrix(m, n, 3), matrix(m, 2, 4));
        let normal = least_squares(&a, &b, LeastSquares::Normal(0.0)).expect("it is regular");
        let orthogonal = least_squares(&a, &b, LeastSquares::Orthogonal).expect("it always goes");
        let close = |x: &f64, y: &f64| (x - y).abs() < 1e-9;
        assert!(
            normal
                .elements()
                .iter()
                .zip(orthogonal.elements())
                .all(|(x, y)| close(x, y))
        );
        let mut residual = a.times(&normal);
        residual
            .elements_mut()
            .iter_mut()
            .zip(b.elements())
            .for_each(|(x, b)| *x -= b);
        // The residual is orthogonal to what the matrix reaches.
        assert!(a.adjoint().times(&residual).elements().iter().all(|x| x.abs() < 1e-9));
    }
}
