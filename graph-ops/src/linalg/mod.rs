//! Linear algebra on the last two axes: factorizations, solvers, determinants, singular values, eigenvalues, and sums of
//! products by index notation.
//!
//! Axes before the last two are batches. Ops take `float`, `double`, `complex64` and `complex128`; an empty matrix is no
//! error, its determinant is 1.

mod algebra;
mod batches;
mod cholesky;
mod determinant;
mod device;
mod eigen;
mod einsum;
mod inverse;
mod lu;
mod qr;
mod solve;
mod svd;
mod triangular;

pub use cholesky::{Cholesky, cholesky, cholesky_solve};
pub use determinant::{Determinant, LogDeterminant, logdet, matrix_determinant, slogdet};
pub use eigen::{SelfAdjointEigen, self_adjoint_eig, self_adjoint_eigvals};
pub use einsum::{Einsum, einsum};
pub use inverse::{MatrixInverse, matrix_inverse};
pub use lu::{Lu, lu};
pub use qr::{Qr, qr};
pub use solve::{MatrixSolve, MatrixSolveLs, matrix_solve, matrix_solve_ls};
pub use svd::{Svd, svd};
pub use triangular::{TriangularSolve, matrix_triangular_solve};

use graph_core::op::OpDefinition;

#[cfg(test)]
use crate::testing::{Case, GradientCase};

/// The family's op definitions.
pub(crate) const OPS: &[fn() -> OpDefinition] = &[
    cholesky::cholesky_op,
    cholesky::cholesky_grad_op,
    determinant::determinant_op,
    determinant::log_determinant_op,
    eigen::self_adjoint_eig_op,
    eigen::self_adjoint_eig_v1_op,
    einsum::einsum_op,
    inverse::inverse_op,
    lu::lu_op,
    qr::qr_op,
    solve::solve_op,
    solve::solve_ls_op,
    svd::svd_op,
    triangular::triangular_solve_op,
];

/// The family's numeric test cases.
#[cfg(test)]
pub(crate) const CASES: &[fn() -> Vec<Case>] = &[
    cholesky::cases,
    determinant::cases,
    eigen::cases,
    einsum::cases,
    inverse::cases,
    lu::cases,
    qr::cases,
    solve::cases,
    svd::cases,
    triangular::cases,
];

/// The family's gradient test cases.
#[cfg(test)]
pub(crate) const GRADIENT_CASES: &[fn() -> Vec<GradientCase>] = &[
    cholesky::gradient_cases,
    determinant::gradient_cases,
    eigen::gradient_cases,
    einsum::gradient_cases,
    inverse::gradient_cases,
    qr::gradient_cases,
    solve::gradient_cases,
    svd::gradient_cases,
    triangular::gradient_cases,
];
