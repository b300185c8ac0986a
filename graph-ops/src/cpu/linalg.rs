//! Dense linear algebra on small matrices: factorizations, solvers, singular values and eigenvalues.
//!
//! The methods, and the order in which they build their results, are those of the library behind TensorFlow's CPU kernels
//! (Householder reflections, two-sided Jacobi rotations, implicit symmetric QR), so that signs and the order of vectors that
//! mathematics leaves open come out alike. The algorithms are in Golub and Van Loan, "Matrix Computations", 4th edition.
//!
//! Matrices are row-major. A crate would bring the same with many times the code to compile; these few routines take none.

mod cholesky;
mod eigen;
mod householder;
mod least_squares;
mod lu;
mod matrix;
mod qr;
mod rows;
mod scalar;
mod svd;
#[cfg(test)]
mod tests;
mod triangular;

pub use cholesky::cholesky;
pub use eigen::{Eigen, self_adjoint_eigen};
pub use least_squares::{LeastSquares, least_squares};
pub use lu::{Lu, SignedLog};
pub use matrix::Matrix;
pub use qr::{Qr, qr};
pub use scalar::Scalar;
pub use svd::{Svd, Vectors, svd};
pub use triangular::{Triangle, solve_triangular};
