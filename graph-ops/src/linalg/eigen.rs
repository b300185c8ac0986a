//! `SelfAdjointEigV2`, and its first form `SelfAdjointEig`

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor, scope};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result};

use super::batches::{MatrixShape, Parts, TYPES, for_each_matrix, kernels, part, square_sizes};
use crate::cpu::linalg::{self, Eigen, Matrix, Scalar};
use crate::math::nodes::Nodes;

/// `SelfAdjointEigV2`
pub(crate) fn self_adjoint_eig_op() -> OpDefinition {
    kernels!(
        OpDefinition::new(
            "SelfAdjointEigV2",
            "Eigenvalues, rising, and eigenvectors of self-adjoint matrices, of which only lower triangles are read.",
        )
        .input("input: T")
        .output("e: T")
        .output("v: T")
        .attr("compute_v: bool = true")
        .attr(TYPES)
        .may_fail()
        .shape(shape)
        .gradient(gradient),
        kernel
    )
}

/// `SelfAdjointEig`
pub(crate) fn self_adjoint_eig_v1_op() -> OpDefinition {
    OpDefinition::new(
        "SelfAdjointEig",
        "Eigenvalues of self-adjoint matrices as a first row, and below it the eigenvectors; replaced by SelfAdjointEigV2.",
    )
    .input("input: T")
    .output("output: T")
    .attr("T: {double, float, half}")
    .may_fail()
    .shape(|context| {
        let shape = MatrixShape::square(context, 0)?;
        context.set_output(0, shape.with(&[shape.rows.map(|rows| rows + 1), shape.columns]));
        Ok(())
    })
    .no_gradient()
    .kernel(KernelDefinition::cpu(kernel_v1::<f32>).types("T", &[DType::Float32]))
    .kernel(KernelDefinition::cpu(kernel_v1::<f64>).types("T", &[DType::Float64]))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape = MatrixShape::square(context, 0)?;
    context.set_output(0, shape.with(&[shape.rows]));
    let vectors = if context.attr("compute_v")? {
        shape.with(&[shape.rows, shape.columns])
    } else {
        PartialShape::vector(0)
    };
    context.set_output(1, vectors);
    Ok(())
}

fn decompose<T: Scalar>(elements: &[T], n: usize) -> Result<Eigen<T>> {
    linalg::self_adjoint_eigen(&Matrix::new(n, n, elements)).ok_or_else(|| {
        Error::invalid_argument("Self-adjoint eigen decomposition was not successful. The input might not be valid.")
    })
}

fn kernel<T: Element + Scalar>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    let with_vectors: bool = request.attr("compute_v")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let input = context.input::<T>(0)?;
        let values = Parts::of(context.output::<T>(0)?, n);
        let vectors = Parts::of(context.output::<T>(1)?, if with_vectors { n * n } else { 0 });
        for_each_matrix(count, 10 * n * n * n, |index| {
            let eigen = decompose(part(input, n * n, index), n)?;
            // SAFETY: both outputs have a part for each of the `count` matrices, and each index comes once.
            unsafe {
                let values = values.part(index).iter_mut().zip(eigen.values);
                values.for_each(|(out, value)| *out = T::from_real(value));
                if with_vectors {
                    vectors.part(index).copy_from_slice(eigen.vectors.elements());
                }
            }
            Ok(())
        })
    }))
}

fn kernel_v1<T: Element + Scalar<Real = T>>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let input = context.input::<T>(0)?;
        let output = Parts::of(context.output::<T>(0)?, (n + 1) * n);
        for_each_matrix(count, 10 * n * n * n, |index| {
            let eigen = decompose(part(input, n * n, index), n)?;
            // SAFETY: the output has a part for each of the `count` matrices, and each index comes once.
            let (values, vectors) = unsafe { output.part(index) }.split_at_mut(n);
            values.copy_from_slice(&eigen.values);
            vectors.copy_from_slice(eigen.vectors.elements());
            Ok(())
        })
    }))
}

/// Mike Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation" (2008), as a
/// gradient of the lower triangle.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (to_values, to_vectors) = (context.gradient(0)?, context.gradient(1)?);
    let _after = scope::control_dependencies([&to_values.op(), &to_vectors.op()])?;
    let middle = nodes.diagonal_matrix(&to_values)?;
    let (vectors, middle) = if context.attr("compute_v")? {
        let (values, vectors) = (context.output(0), context.output(1));
        let weights = inverse_differences(&nodes, &values)?;
        let product = nodes.matmul(&vectors, &to_vectors, true, false)?;
        let middle = nodes.add(&middle, &nodes.mul(&weights, &product)?)?;
        (vectors, middle)
    } else {
        let again = nodes.node("SelfAdjointEigV2").input(context.input(0)).build_all()?;
        (again[1].clone(), middle)
    };
    let right = nodes.matmul(&middle, &vectors, false, true)?;
    let product = nodes.matmul(&vectors, &right, false, false)?;
    let sum = nodes.add(&product, &nodes.adjoint(&product)?)?;
    let lower = nodes.triangle(&sum, true)?;
    let half_diagonal = nodes.times(0.5, &nodes.diagonal_part(&lower)?)?;
    Ok(vec![Some(nodes.with_diagonal(&lower, &half_diagonal)?)])
}

/// The matrix of `1 / (x[j] - x[i])`, with zeros on its diagonal.
pub(super) fn inverse_differences(nodes: &Nodes<'_>, x: &Tensor) -> Result<Tensor> {
    let (row, column) = (nodes.expand(x, -2)?, nodes.expand(x, -1)?);
    let reciprocals = nodes.safe_reciprocal(&nodes.sub(&row, &column)?)?;
    nodes.with_diagonal(&reciprocals, &nodes.zeros_like(x)?)
}

/// An eigendecomposition about to be made; see [`self_adjoint_eig`].
#[must_use = "an operation is made by `build`"]
pub struct SelfAdjointEigen(OpBuilder);

impl SelfAdjointEigen {
    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Makes the operation: the eigenvalues, and the eigenvectors (without meaning where they are not wanted).
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` if the matrices are not square.
    pub fn build(self) -> Result<(Tensor, Tensor)> {
        let operation = self.0.build_operation()?;
        Ok((operation.output(0), operation.output(1)))
    }
}

/// The eigenvalues, rising, of shape [..., n], and the eigenvectors, columns of shape [..., n, n], of self-adjoint matrices
/// `tensor` of shape [..., n, n], of which only the lower triangles are read.
#[track_caller]
pub fn self_adjoint_eig(tensor: impl IntoOperand) -> SelfAdjointEigen {
    SelfAdjointEigen(crate::op("SelfAdjointEigV2").input(tensor))
}

/// As [`self_adjoint_eig`], but only the eigenvalues.
#[track_caller]
pub fn self_adjoint_eigvals(tensor: impl IntoOperand) -> SelfAdjointEigen {
    SelfAdjointEigen(crate::op("SelfAdjointEigV2").input(tensor).attr("compute_v", false))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{Complex, Value};
    let c = |re: f64, im: f64| Complex::new(re, im);
    let (a, b) = (0.850_650_808_352_039_9, 0.525_731_112_119_133_6);
    let half = 0.5f64.sqrt();
    let values = [2.0 - 5f64.sqrt(), 2.0 + 5f64.sqrt()];
    let empty = |shape: &[usize]| Value::zeros(DType::Float64, shape).expect("a value");
    vec![
        // The upper triangle does not count.
        Case::new("SelfAdjointEigV2")
            .input([[1.0f64, 99.0], [2.0, 3.0]])
            .expect(values)
            .expect([[-a, -b], [b, -a]]),
        Case::new("SelfAdjointEigV2")
            .attr("compute_v", false)
            .input([[[1.0f32, 2.0], [2.0, 3.0]], [[5.0, 0.0], [0.0, -1.0]]])
            .expect([values.map(|x| x as f32), [-1.0, 5.0]])
            .expect(Value::zeros(DType::Float32, [0]).expect("a value")),
        Case::new("SelfAdjointEigV2")
            .input([[c(2.0, 0.0), c(0.0, -1.0)], [c(0.0, 1.0), c(2.0, 0.0)]])
            .expect([c(1.0, 0.0), c(3.0, 0.0)])
            .expect([[c(half, 0.0), c(half, 0.0)], [c(0.0, -half), c(0.0, half)]]),
        Case::new("SelfAdjointEigV2")
            .input(empty(&[0, 0]))
            .expect(empty(&[0]))
            .expect(empty(&[0, 0])),
        Case::new("SelfAdjointEig")
            .input([[1.0f64, 99.0], [2.0, 3.0]])
            .expect([values, [-a, -b], [b, -a]]),
    ]
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let matrix = [[2.0f64, 0.3, 1.1], [-0.4, 1.5, 0.6], [0.7, 0.2, -1.0]];
    let case = || GradientCase::new("SelfAdjointEigV2").input(matrix);
    vec![case(), case().output(1), case().attr("compute_v", false)]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn what_is_not_a_number_has_no_eigenvalues() {
        let error = Case::new("SelfAdjointEigV2")
            .input([[f32::NAN, 0.0], [0.0, 1.0]])
            .run()
            .expect_err("it has none");
        assert_eq!(error.class(), "InvalidArgument");
    }
}
