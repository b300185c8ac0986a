//! `MatrixInverse`

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, Error, Result, typed_builder};

use super::batches::{MatrixShape, Parts, TYPES, for_each_matrix, kernels, part, square_sizes};
use super::device;
use crate::cpu::linalg::{Lu, Matrix, Scalar};
use crate::math::nodes::Nodes;

/// `MatrixInverse`
pub(crate) fn inverse_op() -> OpDefinition {
    kernels!(
        OpDefinition::new(
            "MatrixInverse",
            "The inverses of square matrices, or of their conjugate transposes, by LU factorization.",
        )
        .input("input: T")
        .output("output: T")
        .attr("adjoint: bool = false")
        .attr(TYPES)
        .may_fail()
        .shape(square_shape)
        .gradient(gradient),
        kernel
    )
    .kernel(KernelDefinition::cuda(device::solve).types("T", device::REALS))
}

/// Shape function: square matrices of the first input's shape.
pub(super) fn square_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape = MatrixShape::square(context, 0)?;
    context.set_output(0, shape.with(&[shape.rows, shape.columns]));
    Ok(())
}

/// The error of a system without a solution.
pub(super) fn not_invertible() -> Error {
    Error::invalid_argument("Input matrix is not invertible.").hint("a pivot or an element of the diagonal is zero")
}

fn kernel<T: Element + Scalar>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    let adjoint: bool = request.attr("adjoint")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (input, output) = (context.input::<T>(0)?, Parts::of(context.output::<T>(0)?, n * n));
        let identity = Matrix::<T>::identity(n, n);
        for_each_matrix(count, n * n * n, |index| {
            let matrix = Matrix::new(n, n, part(input, n * n, index));
            let lu = Lu::new(if adjoint { matrix.adjoint() } else { matrix });
            if !lu.is_invertible() {
                return Err(not_invertible());
            }
            // SAFETY: the output has a part for each of the `count` matrices, and each index comes once.
            lu.solve(identity.elements(), n, unsafe { output.part(index) });
            Ok(())
        })
    }))
}

/// `dA = -Bᴴ dB Bᴴ` for the inverse B; the conjugate transposes fall on the other sides where A was conjugated.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (inverse, gradient) = (context.output(0), context.gradient(0)?);
    let adjoint: bool = context.attr("adjoint")?;
    let product = nodes.matmul(&gradient, &inverse, adjoint, !adjoint)?;
    let product = nodes.matmul(&inverse, &product, !adjoint, false)?;
    Ok(vec![Some(nodes.negative(&product)?)])
}

typed_builder! {
    /// An inverse about to be made; see [`matrix_inverse`].
    pub struct MatrixInverse;
}

impl MatrixInverse {
    /// Inverts the conjugate transpose instead.
    pub fn adjoint(self, adjoint: bool) -> Self {
        Self(self.0.attr("adjoint", adjoint))
    }
}

/// The inverses of the square matrices `input` of shape [..., n, n].
///
/// A matrix without an inverse is `InvalidArgument` in the run.
///
/// ```
/// use graph_ops::{array::constant, linalg::matrix_inverse};
/// let inverse = matrix_inverse(constant([[2.0f32, 0.0], [0.0, 4.0]])).build()?;
/// let value: Vec<f32> = graph_core::Session::new(inverse.graph())?.run(&inverse, ())?;
/// assert_eq!(value, [0.5, 0.0, 0.0, 0.25]);
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn matrix_inverse(input: impl IntoOperand) -> MatrixInverse {
    MatrixInverse(crate::op("MatrixInverse").input(input))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{Complex, DType, Value};
    let c = |re: f64, im: f64| Complex::new(re, im);
    let empty = || Value::zeros(DType::Float64, [2, 0, 0]).expect("a value");
    vec![
        Case::new("MatrixInverse")
            .input([[1.0f64, 2.0], [3.0, 4.0]])
            .expect([[-2.0f64, 1.0], [1.5, -0.5]]),
        Case::new("MatrixInverse")
            .input([[[1.0f32, 2.0], [3.0, 4.0]], [[0.0, 2.0], [1.0, 0.0]]])
            .attr("adjoint", true)
            .expect([[[-2.0f32, 1.5], [1.0, -0.5]], [[0.0, 0.5], [1.0, 0.0]]]),
        Case::new("MatrixInverse")
            .input([[c(1.0, 1.0), c(0.0, 0.0)], [c(0.0, 0.0), c(0.0, 2.0)]])
            .attr("adjoint", true)
            .expect([[c(0.5, 0.5), c(0.0, 0.0)], [c(0.0, 0.0), c(0.0, 0.5)]]),
        Case::new("MatrixInverse").input(empty()).expect(empty()),
    ]
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    [false, true]
        .map(|adjoint| {
            GradientCase::new("MatrixInverse")
                .attr("adjoint", adjoint)
                .input([[[2.0f64, 0.3], [-0.4, 1.5]], [[0.5, 1.0], [-1.0, 0.7]]])
        })
        .into()
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn a_singular_matrix_has_no_inverse() {
        let error = Case::new("MatrixInverse")
            .input([[1.0f32, 2.0], [2.0, 4.0]])
            .run()
            .expect_err("it is singular");
        assert_eq!(error.class(), "InvalidArgument");
        assert!(error.to_string().contains("not invertible"), "{error}");
    }
}
