//! `Cholesky` and `CholeskyGrad`

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::{KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Result, typed_builder};

use super::batches::{Parts, TYPES, for_each_matrix, kernels, part, square_sizes};
use super::device;
use super::inverse::{not_invertible, square_shape};
use super::triangular::matrix_triangular_solve;
use crate::cpu::linalg::{self, Matrix, Scalar, Triangle, solve_triangular};
use crate::math::nodes::Nodes;

/// `Cholesky`
pub(crate) fn cholesky_op() -> OpDefinition {
    kernels!(
        OpDefinition::new(
            "Cholesky",
            "The lower triangular matrices L with L Lᴴ = A, of positive definite matrices A; only lower triangles are read.",
        )
        .input("input: T")
        .output("output: T")
        .attr(TYPES)
        .may_fail()
        .shape(square_shape)
        .gradient(gradient),
        kernel
    )
    .kernel(KernelDefinition::cuda(device::cholesky).types("T", device::REALS))
}

/// `CholeskyGrad`
pub(crate) fn cholesky_grad_op() -> OpDefinition {
    OpDefinition::new(
        "CholeskyGrad",
        "The gradient of Cholesky, from its result and the result's gradient; symmetric.",
    )
    .input("l: T")
    .input("grad: T")
    .output("output: T")
    .attr("T: {half, float, double}")
    .may_fail()
    .shape(square_shape)
    .no_gradient()
    .kernel(KernelDefinition::cpu(grad_kernel::<f32>).types("T", &[DType::Float32]))
    .kernel(KernelDefinition::cpu(grad_kernel::<f64>).types("T", &[DType::Float64]))
}

fn kernel<T: Element + Scalar>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (input, output) = (context.input::<T>(0)?, Parts::of(context.output::<T>(0)?, n * n));
        for_each_matrix(count, n * n * n / 3, |index| {
            // SAFETY: the output has a part for each of the `count` matrices, and each index comes once.
            let lower = unsafe { output.part(index) };
            if linalg::cholesky(part(input, n * n, index), n, lower) {
                return Ok(());
            }
            Err(
                Error::invalid_argument("Cholesky decomposition was not successful. The input might not be valid.")
                    .hint("the matrix must be symmetric (or Hermitian) and positive definite"),
            )
        })
    }))
}

fn grad_kernel<T: Element + Scalar>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    if request.input_shape(1) != request.input_shape(0) {
        return Err(Error::invalid_argument("the gradient has another shape than L")
            .expected(request.input_shape(0))
            .got(request.input_shape(1)));
    }
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (lower, gradient) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let output = Parts::of(context.output::<T>(0)?, n * n);
        for_each_matrix(count, n * n * n, |index| {
            let result = backward(part(lower, n * n, index), part(gradient, n * n, index), n)?;
            // SAFETY: the output has a part for each of the `count` matrices, and each index comes once.
            unsafe { output.part(index) }.copy_from_slice(result.elements());
            Ok(())
        })
    }))
}

/// Half the sum of `S` and its transpose, where `S = L⁻ᴴ P(Lᴴ dL) L⁻¹` and P takes the lower triangle with half of its
/// diagonal.
fn backward<T: Scalar>(lower: &[T], gradient: &[T], n: usize) -> Result<Matrix<T>> {
    let half = T::one() / (T::one() + T::one());
    let triangle = |elements: &[T]| {
        let mut triangle = Matrix::new(n, n, elements);
        (0..n).for_each(|row| triangle.row_mut(row)[row + 1..].fill(T::zero()));
        triangle
    };
    let mut middle = triangle(lower).adjoint().times(&triangle(gradient));
    for row in 0..n {
        middle[(row, row)] = middle[(row, row)] * half;
        middle.row_mut(row)[row + 1..].fill(T::zero());
    }
    let transposed = Triangle {
        lower: true,
        adjoint: true,
        unit: false,
    };
    let solve = |middle: &mut Matrix<T>| match solve_triangular(lower, n, transposed, middle.elements_mut(), n) {
        true => Ok(()),
        false => Err(not_invertible()),
    };
    // From the left, and, on the conjugate transpose, from the right.
    solve(&mut middle)?;
    let mut turned = middle.adjoint();
    solve(&mut turned)?;
    let back = turned.adjoint();
    let mut result = turned;
    result
        .elements_mut()
        .iter_mut()
        .zip(back.elements())
        .for_each(|(x, &y)| *x = (*x + y) * half);
    Ok(result)
}

/// Iain Murray, "Differentiation of the Cholesky decomposition" (2016), in matrix products.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (lower, gradient) = (context.output(0), context.gradient(0)?);
    let identity = nodes.identity_like(&lower)?;
    let inverse = nodes.binary("MatrixTriangularSolve", "MatrixTriangularSolve", &lower, &identity)?;
    let middle = nodes.matmul(&lower, &gradient, true, false)?;
    let half_diagonal = nodes.times(0.5, &nodes.diagonal_part(&middle)?)?;
    let middle = nodes.triangle(&nodes.with_diagonal(&middle, &half_diagonal)?, true)?;
    let left = nodes.matmul(&inverse, &middle, true, false)?;
    let product = nodes.matmul(&left, &inverse, false, false)?;
    let sum = nodes.add(&product, &nodes.adjoint(&product)?)?;
    Ok(vec![Some(nodes.times(0.5, &sum)?)])
}

typed_builder! {
    /// A Cholesky factorization about to be made; see [`cholesky`].
    pub struct Cholesky;
}

/// The lower triangular matrices L with `L Lᴴ = input`, for positive definite matrices of shape [..., n, n], of which only
/// the lower triangles are read.
///
/// A matrix that is not positive definite is `InvalidArgument` in the run.
#[track_caller]
pub fn cholesky(input: impl IntoOperand) -> Cholesky {
    Cholesky(crate::op("Cholesky").input(input))
}

/// X with `A X = rhs`, from the Cholesky factorization of A.
///
/// # Errors
/// The operands' own; `InvalidArgument` if the shapes do not fit.
#[track_caller]
pub fn cholesky_solve(factor: impl IntoOperand, rhs: impl IntoOperand) -> Result<Tensor> {
    let factor: Operand = factor.into_operand();
    let graph = factor.graph().cloned().unwrap_or_else(graph_core::Graph::current);
    let _scope = graph_core::graph::scope::name_scope_in(&graph, "cholesky_solve")?;
    let factor = factor.to_tensor(&graph, "chol", None)?;
    let half_way = matrix_triangular_solve(&factor, rhs);
    matrix_triangular_solve(&factor, half_way).adjoint(true).build()
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{Complex, Value};
    let c = |re: f64, im: f64| Complex::new(re, im);
    let empty = || Value::zeros(DType::Float32, [0, 0]).expect("a value");
    vec![
        // The upper triangle does not count.
        Case::new("Cholesky")
            .input([[[4.0f64, 99.0], [2.0, 10.0]], [[1.0, 0.0], [0.0, 9.0]]])
            .expect([[[2.0f64, 0.0], [1.0, 3.0]], [[1.0, 0.0], [0.0, 3.0]]]),
        Case::new("Cholesky")
            .input([[4.0f32, 2.0], [2.0, 10.0]])
            .expect([[2.0f32, 0.0], [1.0, 3.0]]),
        Case::new("Cholesky")
            .input([[c(4.0, 0.0), c(2.0, 2.0)], [c(2.0, -2.0), c(6.0, 0.0)]])
            .expect([[c(2.0, 0.0), c(0.0, 0.0)], [c(1.0, -1.0), c(2.0, 0.0)]]),
        Case::new("Cholesky").input(empty()).expect(empty()),
        Case::new("CholeskyGrad")
            .input([[2.0f64, 0.0], [1.0, 3.0]])
            .input([[1.0f64, 0.0], [0.5, -2.0]])
            .expect([[5.0f64 / 48.0, 7.0 / 24.0], [7.0 / 24.0, -1.0 / 3.0]]),
    ]
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    // Differences change one element at a time, and the upper triangle is not read: the gradient is checked of a symmetric
    // function of the input, by a diagonal matrix and by one of side 1.
    vec![GradientCase::new("Cholesky").input([[[2.0f64]], [[3.0]]])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::constant;
    use crate::testing::Case;
    use graph_core::Session;

    #[test]
    fn what_is_not_positive_definite_is_an_error() {
        for matrix in [
            [[1.0f32, 2.0], [2.0, 1.0]],
            [[0.0, 0.0], [0.0, 1.0]],
            [[f32::NAN, 0.0], [0.0, 1.0]],
        ] {
            let error = Case::new("Cholesky").input(matrix).run().expect_err("it has no factor");
            assert_eq!(error.class(), "InvalidArgument");
        }
    }

    #[test]
    fn the_gradient_op_and_the_gradient_agree() -> Result<()> {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let input = constant([[4.0f64, 2.0, 0.6], [2.0, 10.0, -1.0], [0.6, -1.0, 3.0]]).build()?;
        let lower = cholesky(&input).build()?;
        let weights = constant([[1.0f64, 0.0, 0.0], [0.5, -2.0, 0.0], [0.3, 1.5, 0.7]]).build()?;
        let by_products = graph_core::gradients([&lower], [&input])?
            .grad_ys([&weights])
            .build()?
            .remove(0)
            .expect("there is a gradient");
        let by_op = crate::op("CholeskyGrad").input(&lower).input(&weights).build()?;
        let (a, b): (Vec<f64>, Vec<f64>) = Session::new(&graph)?.run((&by_products, &by_op), ())?;
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} and {b:?}");
        Ok(())
    }

    #[test]
    fn a_factor_solves() -> Result<()> {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let lower = cholesky(constant([[4.0f64, 2.0], [2.0, 10.0]])).build()?;
        let x = cholesky_solve(&lower, constant([[8.0f64], [22.0]]))?;
        let x: Vec<f64> = Session::new(&graph)?.run(&x, ())?;
        assert!((x[0] - 1.0).abs() < 1e-12 && (x[1] - 2.0).abs() < 1e-12, "{x:?}");
        Ok(())
    }
}
