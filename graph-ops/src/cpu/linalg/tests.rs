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
        unit: false,
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

/// Each element takes its terms in the order of a plain loop, so that the bits are the same.
#[test]
fn rows_are_subtracted_one_after_the_other() {
    fn check<T: Scalar>(number: impl Fn(usize) -> T) {
        for (len, count) in [(1, 0), (1, 5), (15, 3), (16, 7), (97, 11), (200, 4)] {
            let stride = len + 3;
            let rows: Vec<T> = (0..count * stride).map(|at| number(at * at + 1)).collect();
            let factors: Vec<T> = (0..count).map(|at| number(7 * at)).collect();
            let mut row: Vec<T> = (0..len).map(|at| number(3 * at)).collect();
            let mut expected = row.clone();
            for (k, &factor) in factors.iter().enumerate() {
                for (j, x) in expected.iter_mut().enumerate() {
                    *x -= factor * rows[k * stride + j];
                }
            }
            rows::subtract_rows(&mut row, &factors, &rows, stride);
            assert_eq!(row, expected, "{count} rows of {len}");
        }
    }
    let number = |at: usize| ((at * 37 % 101) as f64 - 50.0) / 7.0;
    check(number);
    check(|at| number(at) as f32);
    check(|at| Complex::new(number(at), number(at + 5)));
    check(|at| Complex::new(number(at) as f32, number(at + 5) as f32));
}

#[test]
fn panels_and_strips_change_no_bit() {
    fn check<T: Scalar<Real = f64>>(n: usize, columns: usize) {
        let a: Matrix<T> = matrix(n, n, n as u32);
        let mut plain = a.clone();
        for k in 0..n {
            let pivot = (k..n).reduce(|best, row| {
                let greater = plain[(row, k)].modulus() > plain[(best, k)].modulus();
                if greater { row } else { best }
            });
            plain.swap_rows(pivot.unwrap(), k);
            for row in k + 1..n {
                let factor = plain[(row, k)] / plain[(k, k)];
                plain[(row, k)] = factor;
                for column in k + 1..n {
                    let pivot = plain[(k, column)];
                    plain[(row, column)] -= factor * pivot;
                }
            }
        }
        assert_eq!(Lu::new(a.clone()).factors, plain, "{n}");

        let rhs: Matrix<T> = matrix(n, columns, 5);
        // Random triangles grow what they solve for beyond all numbers.
        let mut a = a;
        (0..n).for_each(|i| a[(i, i)] += T::from_real(n as f64));
        for bits in 0..8 {
            let triangle = Triangle {
                lower: bits & 1 != 0,
                adjoint: bits & 2 != 0,
                unit: bits & 4 != 0,
            };
            let element = |i: usize, j: usize| if triangle.adjoint { a[(j, i)].conj() } else { a[(i, j)] };
            let forward = triangle.lower != triangle.adjoint;
            let mut expected = rhs.clone();
            for step in 0..n {
                let i = if forward { step } else { n - 1 - step };
                for column in 0..columns {
                    let mut x = expected[(i, column)];
                    for j in if forward { 0..i } else { i + 1..n } {
                        x -= element(i, j) * expected[(j, column)];
                    }
                    expected[(i, column)] = if triangle.unit { x } else { x / element(i, i) };
                }
            }
            let mut solution = rhs.clone();
            assert!(solve_triangular(
                a.elements(),
                n,
                triangle,
                solution.elements_mut(),
                columns
            ));
            // Backwards, panels come in another order than their rows.
            let far = if forward || n <= rows::PANEL {
                0.0
            } else {
                expected.greatest() * 1e-12
            };
            let mut pairs = solution.elements().iter().zip(expected.elements());
            assert!(
                pairs.all(|(&x, &y)| (x - y).modulus() <= far),
                "{n} {columns} {triangle:?}"
            );
        }

        let definite = a.adjoint().times(&a);
        let mut plain = Matrix::<T>::zeros(n, n);
        for i in 0..n {
            for j in 0..=i {
                let mut rest = definite[(i, j)];
                for k in 0..j {
                    rest -= plain[(i, k)] * plain[(j, k)].conj();
                }
                plain[(i, j)] = match j < i {
                    true => rest / plain[(j, j)],
                    false => T::from_real(rest.re().sqrt()),
                };
            }
        }
        let mut lower = vec![T::one(); n * n];
        assert!(cholesky(definite.elements(), n, &mut lower));
        assert_eq!(lower, plain.elements(), "{n}");
    }
    for (n, columns) in [(1, 1), (5, 3), (31, 64), (33, 65), (70, 200), (100, 7)] {
        crate::cpu::testing::same_on_any_pool(|| check::<f64>(n, columns));
        check::<Complex<f64>>(n, columns);
    }
}
