//! The Cholesky factorization.

use num_traits::{Float, Zero};

use super::scalar::Scalar;

/// Writes L with `L Lᴴ = A` and zeros above its diagonal; of A only the lower triangle is read. False if A is not positive
/// definite.
pub fn cholesky<T: Scalar>(matrix: &[T], n: usize, lower: &mut [T]) -> bool {
    assert_eq!((matrix.len(), lower.len()), (n * n, n * n));
    lower.fill(T::zero());
    for i in 0..n {
        for j in 0..=i {
            let mut rest = matrix[i * n + j];
            for k in 0..j {
                rest -= lower[i * n + k] * lower[j * n + k].conj();
            }
            if j < i {
                lower[i * n + j] = rest / lower[j * n + j];
            } else {
                let square = rest.re();
                // Not a number is not positive either.
                if square.is_nan() || square <= T::Real::zero() {
                    return false;
                }
                lower[i * n + i] = T::from_real(square.sqrt());
            }
        }
    }
    true
}
