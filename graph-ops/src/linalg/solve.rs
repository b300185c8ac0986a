//! `MatrixSolve` and `MatrixSolveLs`

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, Error, PartialShape, Result, typed_builder};
use num_traits::NumCast;

use super::batches::{MatrixShape, Parts, TYPES, for_each_matrix, kernels, part, sizes, square_sizes};
use super::device;
use super::inverse::not_invertible;
use crate::cpu::linalg::{LeastSquares, Lu, Matrix, Scalar, least_squares};
use crate::math::nodes::Nodes;

/// `MatrixSolve`
pub(crate) fn solve_op() -> OpDefinition {
    kernels!(
        OpDefinition::new(
            "MatrixSolve",
            "Solutions of systems of linear equations with square matrices, or their conjugate transposes, by LU factorization.",
        )
        .input("matrix: T")
        .input("rhs: T")
        .output("output: T")
        .attr("adjoint: bool = false")
        .attr(TYPES)
        .may_fail()
        .shape(|context| {
            let matrix = MatrixShape::square(context, 0)?;
            solution_shape(context, &matrix)
        })
        .gradient(gradient),
        kernel
    )
    .kernel(KernelDefinition::cuda(device::solve).types("T", device::REALS))
}

/// `MatrixSolveLs`
pub(crate) fn solve_ls_op() -> OpDefinition {
    kernels!(
        OpDefinition::new(
            "MatrixSolveLs",
            "Least-squares solutions of systems of linear equations: by the normal equations with a regularizer (fast), or \
             by an orthogonal factorization, without one.",
        )
        .input("matrix: T")
        .input("rhs: T")
        .input("l2_regularizer: double")
        .output("output: T")
        .attr(TYPES)
        .attr("fast: bool = true")
        .may_fail()
        .shape(|context| {
            context.with_rank(2, 0)?;
            let matrix = MatrixShape::of(context, 0)?;
            solution_shape(context, &matrix)
        })
        .gradient(ls_gradient),
        ls_kernel
    )
}

fn solution_shape(context: &mut InferenceContext<'_>, matrix: &MatrixShape) -> Result<()> {
    let rhs = MatrixShape::of(context, 1)?;
    context.merge_dims(
        matrix.rows,
        rhs.rows,
        "the rows of the matrix and of the right-hand side",
    )?;
    let batch = matrix
        .batch
        .merge(&rhs.batch)
        .map_err(|error| error.context("fitting right-hand sides to matrices"))?;
    context.set_output(0, batch.concatenate(&PartialShape::from([matrix.columns, rhs.columns])));
    Ok(())
}

fn kernel<T: Element + Scalar>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    let (_, _, columns) = sizes(request.input_shape(1))?;
    let adjoint: bool = request.attr("adjoint")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (matrix, rhs) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let output = Parts::of(context.output::<T>(0)?, n * columns);
        if columns == 0 {
            return Ok(());
        }
        for_each_matrix(count, n * n * (n + columns), |index| {
            let matrix = Matrix::new(n, n, part(matrix, n * n, index));
            let lu = Lu::new(if adjoint { matrix.adjoint() } else { matrix });
            if !lu.is_invertible() {
                return Err(not_invertible());
            }
            // SAFETY: the output has a part for each of the `count` systems, and each index comes once.
            lu.solve(part(rhs, n * columns, index), columns, unsafe { output.part(index) });
            Ok(())
        })
    }))
}

fn ls_kernel<T: Element + Scalar>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, rows, columns) = sizes(request.input_shape(0))?;
    let (_, _, sides) = sizes(request.input_shape(1))?;
    let fast: bool = request.attr("fast")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (matrix, rhs) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let regularizer = context.input::<f64>(2)?[0];
        if regularizer < 0.0 {
            return Err(Error::invalid_argument("l2_regularizer must be >= 0.").got(regularizer));
        }
        let output = Parts::of(context.output::<T>(0)?, columns * sides);
        let method = match (fast, <T::Real as NumCast>::from(regularizer)) {
            (true, Some(regularizer)) => LeastSquares::Normal(regularizer),
            _ => LeastSquares::Orthogonal,
        };
        for_each_matrix(count, rows * columns * (columns + sides), |index| {
            let matrix = Matrix::new(rows, columns, part(matrix, rows * columns, index));
            let rhs = Matrix::new(rows, sides, part(rhs, rows * sides, index));
            let solution = least_squares(&matrix, &rhs, method).ok_or_else(|| {
                Error::invalid_argument(
                    "Input matrix was rank deficient or ill-conditioned. Try setting fast=False or provide a larger \
                     l2_regularizer > 0.",
                )
            })?;
            // SAFETY: the output has a part for each of the `count` systems, and each index comes once.
            unsafe { output.part(index) }.copy_from_slice(solution.elements());
            Ok(())
        })
    }))
}

/// For A X = B: dB solves Aᴴ dB = dX, and dA = -dB Xᴴ.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (matrix, solution) = (context.input(0), context.output(0));
    let adjoint: bool = context.attr("adjoint")?;
    let to_rhs = nodes
        .node("MatrixSolve")
        .input(&matrix)
        .input(context.gradient(0)?)
        .attr("adjoint", !adjoint)
        .build()?;
    let product = if adjoint {
        nodes.matmul(&solution, &to_rhs, false, true)?
    } else {
        nodes.matmul(&to_rhs, &solution, false, true)?
    };
    Ok(vec![Some(nodes.negative(&product)?), Some(to_rhs)])
}

/// The gradient of the normal equations' solution, through their Cholesky factor.
fn ls_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (a, b, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    if !context.attr::<bool>("fast")? {
        return Err(Error::unimplemented("MatrixSolveLs has no gradient unless it is fast"));
    }
    let shape = a.shape();
    let (Some(rows), Some(columns)) = (match shape.rank() {
        Some(rank) if rank >= 2 => (shape.dim(rank - 2), shape.dim(rank - 1)),
        _ => (None, None),
    }) else {
        return Err(Error::unimplemented("the gradient of MatrixSolveLs needs matrices of a known shape").got(shape));
    };
    let over = rows >= columns;
    let factor = gramian_factor(&nodes, &a, &context.input(2), over)?;
    let solve = |rhs: &Tensor| -> Result<Tensor> {
        let solve = |rhs: &Tensor, adjoint: bool| {
            let node = nodes.node("MatrixTriangularSolve").input(&factor).input(rhs);
            node.attr("adjoint", adjoint).build()
        };
        solve(&solve(rhs, false)?, true)
    };
    let product = |a: &Tensor, b: &Tensor, adjoint_a, adjoint_b| nodes.matmul(a, b, adjoint_a, adjoint_b);
    let (to_a, to_b) = if over {
        let x = context.output(0);
        let z = solve(&gradient)?;
        let outer = product(&x, &z, false, true)?;
        let symmetric = nodes.add(&outer, &nodes.adjoint(&outer)?)?;
        let minus = nodes.negative(&product(&a, &symmetric, false, false)?)?;
        (
            nodes.add(&minus, &product(&b, &z, false, true)?)?,
            product(&a, &z, false, false)?,
        )
    } else {
        let to_b = solve(&product(&a, &gradient, false, false)?)?;
        let dual = solve(&b)?;
        let first = nodes.negative(&product(&to_b, &product(&dual, &a, true, false)?, false, false)?)?;
        let rest = nodes.sub(&gradient, &product(&a, &to_b, true, false)?)?;
        (nodes.add(&first, &product(&dual, &rest, false, true)?)?, to_b)
    };
    Ok(vec![Some(to_a), Some(to_b), None])
}

/// The Cholesky factor of `AᴴA` (or `A Aᴴ`) plus a multiple of the identity.
fn gramian_factor(nodes: &Nodes<'_>, a: &Tensor, regularizer: &Tensor, first_kind: bool) -> Result<Tensor> {
    let gramian = nodes.matmul(a, a, first_kind, !first_kind)?;
    let regularizer = nodes.cast(regularizer, a.dtype())?;
    let more = nodes.mul(&regularizer, &nodes.identity_like(&gramian)?)?;
    nodes.unary("Cholesky", &nodes.add(&gramian, &more)?)
}

typed_builder! {
    /// A system of linear equations about to be solved; see [`matrix_solve`].
    pub struct MatrixSolve;
}

impl MatrixSolve {
    /// Solves with the conjugate transpose of the matrix instead.
    pub fn adjoint(self, adjoint: bool) -> Self {
        Self(self.0.attr("adjoint", adjoint))
    }
}

/// X of shape [..., n, k] with `matrix` X = `rhs`, for square matrices of shape [..., n, n]. A matrix without an inverse is
/// `InvalidArgument` in the run.
#[track_caller]
pub fn matrix_solve(matrix: impl IntoOperand, rhs: impl IntoOperand) -> MatrixSolve {
    MatrixSolve(crate::op("MatrixSolve").input(matrix).input(rhs))
}

typed_builder! {
    /// A least-squares problem about to be solved; see [`matrix_solve_ls`].
    pub struct MatrixSolveLs;
}

impl MatrixSolveLs {
    /// Whether to solve by the normal equations (true without), or by an orthogonal factorization, which finds the shortest
    /// solution even where several fit and takes no regularizer.
    pub fn fast(self, fast: bool) -> Self {
        Self(self.0.attr("fast", fast))
    }
}

/// X of shape [..., n, k] that makes `|matrix X - rhs|² + l2_regularizer |X|²` least, for matrices of shape [..., m, n] and
/// right-hand sides of shape [..., m, k]; the regularizer is a number.
#[track_caller]
pub fn matrix_solve_ls(
    matrix: impl IntoOperand,
    rhs: impl IntoOperand,
    l2_regularizer: impl IntoOperand,
) -> MatrixSolveLs {
    MatrixSolveLs(
        crate::op("MatrixSolveLs")
            .input(matrix)
            .input(rhs)
            .input(l2_regularizer),
    )
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{Complex, DType, Value};
    let c = |re: f64, im: f64| Complex::new(re, im);
    let empty = |shape: [usize; 2]| Value::zeros(DType::Float64, shape).expect("a value");
    let solve = || Case::new("MatrixSolve");
    let least = || Case::new("MatrixSolveLs");
    vec![
        solve()
            .input([[1.0f64, 2.0], [3.0, 4.0]])
            .input([[5.0f64, 1.0], [11.0, 3.0]])
            .expect([[1.0f64, 1.0], [2.0, 0.0]]),
        solve()
            .attr("adjoint", true)
            .input([[[1.0f32, 2.0], [3.0, 4.0]]])
            .input([[[7.0f32], [10.0]]])
            .expect([[[1.0f32], [2.0]]]),
        solve()
            .attr("adjoint", true)
            .input([[c(0.0, 2.0)]])
            .input([[c(4.0, 0.0)]])
            .expect([[c(0.0, 2.0)]]),
        solve().input(empty([0, 0])).input(empty([0, 3])).expect(empty([0, 3])),
        solve().input([[0.0f64]]).input(empty([1, 0])).expect(empty([1, 0])),
        // The mean.
        least()
            .input([[1.0f64], [1.0]])
            .input([[1.0f64], [3.0]])
            .input(0.0f64)
            .expect([[2.0f64]]),
        least()
            .input([[1.0f64], [1.0]])
            .input([[1.0f64], [3.0]])
            .input(2.0f64)
            .expect([[1.0f64]]),
        least()
            .input([[1.0f32, 1.0]])
            .input([[4.0f32]])
            .input(0.0f64)
            .expect([[2.0f32], [2.0]]),
        least()
            .attr("fast", false)
            .input([[1.0f64, 1.0], [1.0, 1.0]])
            .input([[4.0f64], [4.0]])
            .input(0.0f64)
            .expect([[2.0f64], [2.0]]),
    ]
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let solve = |adjoint: bool| {
        GradientCase::new("MatrixSolve")
            .attr("adjoint", adjoint)
            .input([[[2.0f64, 0.3], [-0.4, 1.5]], [[0.5, 1.0], [-1.0, 0.7]]])
            .input([[[1.0f64, 0.5], [0.3, 0.7]], [[0.2, -1.0], [0.6, 0.1]]])
    };
    let least = || GradientCase::new("MatrixSolveLs").with_respect_to(&[0, 1]);
    vec![
        solve(false),
        solve(true),
        least()
            .input([[2.0f64, 0.3], [-0.4, 1.5], [0.7, 0.2]])
            .input([[1.0f64], [0.5], [-0.2]])
            .input(0.5f64),
        least()
            .input([[2.0f64, 0.3, 0.4], [-0.4, 1.5, 0.6]])
            .input([[1.0f64], [0.5]])
            .input(0.5f64),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn what_cannot_be_solved_is_an_error() {
        let singular = [[1.0f32, 1.0], [1.0, 1.0]];
        let case = Case::new("MatrixSolve").input(singular).input([[1.0f32], [2.0]]);
        assert_eq!(case.run().expect_err("it is singular").class(), "InvalidArgument");
        let case = |regularizer: f64| {
            let case = Case::new("MatrixSolveLs").input([[0.0f32], [0.0]]);
            case.input([[1.0f32], [2.0]]).input(regularizer).run()
        };
        assert!(case(0.0).is_err() && case(-1.0).is_err() && case(1.0).is_ok());
    }
}
