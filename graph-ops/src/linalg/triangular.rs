//! `MatrixTriangularSolve`

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, Error, PartialShape, Result, typed_builder};

use super::batches::{MatrixShape, Parts, for_each_matrix, kernels, part, sizes, square_sizes};
use super::device;
use super::inverse::not_invertible;
use crate::cpu::linalg::{Scalar, Triangle, solve_triangular};
use crate::math::broadcasting::broadcast_positions;
use crate::math::nodes::Nodes;

/// `MatrixTriangularSolve`
pub(crate) fn triangular_solve_op() -> OpDefinition {
    kernels!(
        OpDefinition::new(
            "MatrixTriangularSolve",
            "Solutions of systems with a triangular matrix, or its conjugate transpose, by substitution.",
        )
        .input("matrix: T")
        .input("rhs: T")
        .output("output: T")
        .attr("lower: bool = true")
        .attr("adjoint: bool = false")
        .attr("T: {bfloat16, double, float, half, complex64, complex128}")
        .may_fail()
        .shape(shape)
        .gradient(gradient),
        kernel
    )
    .kernel(KernelDefinition::cuda(device::solve_triangular).types("T", device::REALS))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (matrix, rhs) = (MatrixShape::square(context, 0)?, MatrixShape::of(context, 1)?);
    let rows = context.merge_dims(
        matrix.rows,
        rhs.rows,
        "the rows of the matrix and of the right-hand side",
    )?;
    let batch = matrix.batch.broadcast(&rhs.batch).ok_or_else(|| {
        Error::invalid_argument(format!("incompatible batch shapes: {} vs. {}", matrix.batch, rhs.batch))
    })?;
    context.set_output(0, batch.concatenate(&PartialShape::from([rows, rhs.columns])));
    Ok(())
}

fn kernel<T: Element + Scalar>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (_, n) = square_sizes(request.input_shape(0))?;
    let output_shape = request.output_shape(0)?;
    let (count, rows, columns) = sizes(output_shape)?;
    let triangle = Triangle {
        lower: request.attr("lower")?,
        adjoint: request.attr("adjoint")?,
        unit: false,
    };
    let batch = &output_shape[..output_shape.rank() - 2];
    let own = |index: usize| &request.input_shape(index)[..request.input_shape(index).rank() - 2];
    let (matrices, sides) = (broadcast_positions(batch, own(0)), broadcast_positions(batch, own(1)));
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (matrix, rhs) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let output = Parts::of(context.output::<T>(0)?, rows * columns);
        if columns == 0 {
            return Ok(());
        }
        for_each_matrix(count, n * n * columns, |index| {
            // SAFETY: the output has a part for each of the `count` systems, and each index comes once.
            let x = unsafe { output.part(index) };
            x.copy_from_slice(part(rhs, rows * columns, sides[index]));
            let solved = solve_triangular(part(matrix, n * n, matrices[index]), n, triangle, x, columns);
            if solved { Ok(()) } else { Err(not_invertible()) }
        })
    }))
}

/// For A X = B: dB solves Aᴴ dB = dX, and dA is the triangle of -dB Xᴴ.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (matrix, rhs, solution) = (context.input(0), context.input(1), context.output(0));
    let (adjoint, lower): (bool, bool) = (context.attr("adjoint")?, context.attr("lower")?);
    let to_rhs = nodes
        .node("MatrixTriangularSolve")
        .input(&matrix)
        .input(context.gradient(0)?)
        .attr("lower", lower)
        .attr("adjoint", !adjoint)
        .build()?;
    let product = if adjoint {
        nodes.matmul(&solution, &to_rhs, false, true)?
    } else {
        nodes.matmul(&to_rhs, &solution, false, true)?
    };
    let to_matrix = nodes.triangle(&nodes.negative(&product)?, lower)?;
    let [to_matrix, to_rhs] = nodes.unbroadcast_batches([&matrix, &rhs], [to_matrix, to_rhs])?;
    Ok(vec![Some(to_matrix), Some(to_rhs)])
}

typed_builder! {
    /// A triangular system about to be solved; see [`matrix_triangular_solve`].
    pub struct TriangularSolve;
}

impl TriangularSolve {
    /// Whether the lower triangle holds the matrix (true without) or the upper one.
    pub fn lower(self, lower: bool) -> Self {
        Self(self.0.attr("lower", lower))
    }

    /// Solves with the conjugate transpose of the matrix instead.
    pub fn adjoint(self, adjoint: bool) -> Self {
        Self(self.0.attr("adjoint", adjoint))
    }
}

/// X of shape [..., n, k] with `matrix` X = `rhs`, for triangular matrices of shape [..., n, n]; the other triangle is not
/// read. Batch axes broadcast.
///
/// A zero on the diagonal is `InvalidArgument` in the run.
#[track_caller]
pub fn matrix_triangular_solve(matrix: impl IntoOperand, rhs: impl IntoOperand) -> TriangularSolve {
    TriangularSolve(crate::op("MatrixTriangularSolve").input(matrix).input(rhs))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{Complex, DType, Value};
    let c = |re: f32, im: f32| Complex::new(re, im);
    let solve = || Case::new("MatrixTriangularSolve");
    // What is in the other triangle does not count.
    let matrix = [[2.0f64, 9.0], [1.0, 4.0]];
    let rhs = [[2.0f64, 4.0], [9.0, 6.0]];
    let empty = |shape: [usize; 3]| Value::zeros(DType::Float64, shape).expect("a value");
    vec![
        solve().input(matrix).input(rhs).expect([[1.0f64, 2.0], [2.0, 1.0]]),
        solve()
            .attr("adjoint", true)
            .input(matrix)
            .input(rhs)
            .expect([[-0.125f64, 1.25], [2.25, 1.5]]),
        solve()
            .attr("lower", false)
            .input(matrix)
            .input(rhs)
            .expect([[-9.125f64, -4.75], [2.25, 1.5]]),
        solve()
            .attr("lower", false)
            .attr("adjoint", true)
            .input(matrix)
            .input(rhs)
            .expect([[1.0f64, 2.0], [0.0, -3.0]]),
        // One matrix for several right-hand sides.
        solve()
            .input([[2.0f32, 0.0], [1.0, 4.0]])
            .input([[[2.0f32], [9.0]], [[4.0], [6.0]]])
            .expect([[[1.0f32], [2.0]], [[2.0], [1.0]]]),
        solve()
            .attr("adjoint", true)
            .input([[c(0.0, 2.0), c(0.0, 0.0)], [c(1.0, 1.0), c(1.0, 0.0)]])
            .input([[c(4.0, 0.0)], [c(2.0, 2.0)]])
            .expect([[c(0.0, 0.0)], [c(2.0, 2.0)]]),
        solve()
            .input(empty([2, 0, 0]))
            .input(empty([2, 0, 5]))
            .expect(empty([2, 0, 5])),
    ]
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let mut cases = Vec::new();
    for (lower, adjoint) in [(false, false), (false, true), (true, false), (true, true)] {
        cases.push(
            GradientCase::new("MatrixTriangularSolve")
                .attr("lower", lower)
                .attr("adjoint", adjoint)
                .input([[2.0f64, 0.3], [-0.4, 1.5]])
                .input([
                    [[1.0f64, 0.5, -0.2], [0.3, 0.7, 2.0]],
                    [[0.2, -1.0, 0.4], [0.6, 0.1, 0.9]],
                ]),
        );
    }
    cases
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn a_zero_on_the_diagonal_is_an_error() {
        let error = Case::new("MatrixTriangularSolve")
            .input([[1.0f32, 0.0], [2.0, 0.0]])
            .input([[1.0f32], [1.0]])
            .run()
            .expect_err("it is singular");
        assert_eq!(error.class(), "InvalidArgument");
    }

    #[test]
    fn sides_must_fit() {
        let case = Case::new("MatrixTriangularSolve").input([[1.0f32, 0.0], [2.0, 1.0]]);
        assert!(case.input([[1.0f32]]).run().is_err());
    }
}
