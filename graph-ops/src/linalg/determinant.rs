//! `MatrixDeterminant` and `LogMatrixDeterminant`

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, Result, typed_builder};
use num_traits::Float;

use super::batches::{MatrixShape, Parts, for_each_matrix, kernels, part, square_sizes};
use super::device;
use crate::cpu::linalg::{Lu, Matrix, Scalar, SignedLog};
use crate::math::nodes::Nodes;

const TYPES: &str = "T: {half, float, double, complex64, complex128}";

/// `MatrixDeterminant`
pub(crate) fn determinant_op() -> OpDefinition {
    kernels!(
        OpDefinition::new("MatrixDeterminant", "The determinants of square matrices.")
            .input("input: T")
            .output("output: T")
            .attr(TYPES)
            .shape(shape)
            .gradient(gradient),
        kernel
    )
    .kernel(KernelDefinition::cuda(device::determinant).types("T", device::REALS))
}

/// `LogMatrixDeterminant`
pub(crate) fn log_determinant_op() -> OpDefinition {
    kernels!(
        OpDefinition::new(
            "LogMatrixDeterminant",
            "The determinants of square matrices as a number of absolute value 1 (0 for a singular matrix) and the \
             logarithm of the absolute value.",
        )
        .input("input: T")
        .output("sign: T")
        .output("log_abs_determinant: T")
        .attr(TYPES)
        .shape(shape)
        .gradient(log_gradient),
        log_kernel
    )
    .kernel(KernelDefinition::cuda(device::determinant).types("T", device::REALS))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let batch = MatrixShape::square(context, 0)?.batch;
    (0..context.num_outputs()).for_each(|output| context.set_output(output, &batch));
    Ok(())
}

fn determinant<T: Scalar>(elements: &[T], n: usize) -> SignedLog<T> {
    Lu::new(Matrix::new(n, n, elements)).determinant()
}

fn kernel<T: Element + Scalar>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (input, output) = (context.input::<T>(0)?, Parts::of(context.output::<T>(0)?, 1));
        for_each_matrix(count, n * n * n / 3, |index| {
            let SignedLog { sign, log } = determinant(part(input, n * n, index), n);
            // SAFETY: the output has an element for each of the `count` matrices, and each index comes once.
            unsafe { output.part(index)[0] = sign.scaled(log.exp()) };
            Ok(())
        })
    }))
}

fn log_kernel<T: Element + Scalar>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let input = context.input::<T>(0)?;
        let signs = Parts::of(context.output::<T>(0)?, 1);
        let logs = Parts::of(context.output::<T>(1)?, 1);
        for_each_matrix(count, n * n * n / 3, |index| {
            let SignedLog { sign, log } = determinant(part(input, n * n, index), n);
            // SAFETY: both outputs have an element for each of the `count` matrices, and each index comes once.
            unsafe { (signs.part(index)[0], logs.part(index)[0]) = (sign, T::from_real(log)) };
            Ok(())
        })
    }))
}

/// The factors, one for each matrix, times the inverses of the matrices' conjugate transposes.
fn times_inverse(nodes: &Nodes<'_>, matrix: &Tensor, factors: &Tensor) -> Result<Vec<Option<Tensor>>> {
    let inverse = nodes
        .node("MatrixInverse")
        .input(matrix)
        .attr("adjoint", true)
        .build()?;
    let factors = nodes.for_each_matrix(factors)?;
    Ok(vec![Some(nodes.mul(&factors, &inverse)?)])
}

/// `d det(A) = det(A) trace(A⁻¹ dA)`
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let determinant = nodes.conj(&context.output(0))?;
    let factors = nodes.mul(context.gradient(0)?, &determinant)?;
    times_inverse(&nodes, &context.input(0), &factors)
}

fn log_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    times_inverse(&nodes, &context.input(0), &context.gradient(1)?)
}

typed_builder! {
    /// Determinants about to be made; see [`matrix_determinant`].
    pub struct Determinant;
}

/// The determinants, shape [...], of the square matrices `input` of shape [..., n, n].
#[track_caller]
pub fn matrix_determinant(input: impl IntoOperand) -> Determinant {
    Determinant(crate::op("MatrixDeterminant").input(input))
}

/// Determinants as signs and logarithms about to be made; see [`slogdet`].
#[must_use = "an operation is made by `build`"]
pub struct LogDeterminant(OpBuilder);

impl LogDeterminant {
    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Makes the operation: the signs, and the logarithms of the absolute values.
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` if the matrices are not square.
    pub fn build(self) -> Result<(Tensor, Tensor)> {
        let operation = self.0.build_operation()?;
        Ok((operation.output(0), operation.output(1)))
    }
}

/// The determinants of the square matrices `input` of shape [..., n, n], as numbers of absolute value 1 and logarithms of
/// absolute values, which neither overflow nor underflow. A singular matrix gives 0 and minus infinity.
#[track_caller]
pub fn slogdet(input: impl IntoOperand) -> LogDeterminant {
    LogDeterminant(crate::op("LogMatrixDeterminant").input(input))
}

/// The logarithms of the determinants of positive definite matrices of shape [..., n, n], by their Cholesky factors.
///
/// # Errors
/// The operand's own; `InvalidArgument` if the matrices are not square.
#[track_caller]
pub fn logdet(matrix: impl IntoOperand) -> Result<Tensor> {
    let matrix: Operand = matrix.into_operand();
    let graph = matrix.graph().cloned().unwrap_or_else(graph_core::Graph::current);
    let _scope = graph_core::graph::scope::name_scope_in(&graph, "logdet")?;
    let lower = super::cholesky(matrix).build()?;
    let nodes = Nodes::at(&graph, std::panic::Location::caller());
    let diagonal = nodes.diagonal_part(&lower)?;
    let real = if diagonal.dtype().is_complex() {
        crate::math::real(&diagonal).build()?
    } else {
        diagonal
    };
    let logs = nodes.unary("Log", &real)?;
    let sum = nodes.reduce("Sum", &logs, Some((-1i32).into_operand()), false)?;
    nodes.times(2.0, &sum)
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{Complex, DType, Value};
    let c = |re: f64, im: f64| Complex::new(re, im);
    let empty = || Value::zeros(DType::Float64, [2, 0, 0]).expect("a value");
    let (root, log) = (13f64.sqrt(), 52f64.ln() / 2.0);
    vec![
        Case::new("MatrixDeterminant")
            .input([[[2.0f64, 3.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
            .expect([-1.0f64, 0.0]),
        Case::new("MatrixDeterminant")
            .input([[2.0f32, 1.0, 0.0], [0.0, 3.0, 1.0], [4.0, 0.0, 1.0]])
            .expect(10.0f32),
        Case::new("MatrixDeterminant")
            .input([[c(1.0, 0.0), c(0.0, 2.0)], [c(3.0, 0.0), c(4.0, 0.0)]])
            .expect(c(4.0, -6.0)),
        Case::new("MatrixDeterminant").input(empty()).expect([1.0f64, 1.0]),
        Case::new("LogMatrixDeterminant")
            .input([[[2.0f64, 3.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
            .expect([-1.0f64, 0.0])
            .expect([0.0f64, f64::NEG_INFINITY]),
        Case::new("LogMatrixDeterminant")
            .input([[c(1.0, 0.0), c(0.0, 2.0)], [c(3.0, 0.0), c(4.0, 0.0)]])
            .expect(c(2.0 / root, -3.0 / root))
            .expect(c(log, 0.0)),
        Case::new("LogMatrixDeterminant")
            .input(empty())
            .expect([1.0f64, 1.0])
            .expect([0.0f64, 0.0]),
    ]
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let matrices = [[[2.0f64, 0.3], [-0.4, 1.5]], [[0.5, 1.0], [-1.0, 0.7]]];
    vec![
        GradientCase::new("MatrixDeterminant").input(matrices),
        GradientCase::new("LogMatrixDeterminant").output(1).input(matrices),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::constant;
    use graph_core::Session;

    #[test]
    fn the_logarithm_of_a_determinant_by_two_ways() -> Result<()> {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let matrix = constant([[4.0f64, 2.0], [2.0, 10.0]]).build()?;
        let (sign, log) = slogdet(&matrix).build()?;
        let (sign, log, by_factor): (f64, f64, f64) =
            Session::new(&graph)?.run((&sign, &log, &logdet(&matrix)?), ())?;
        assert!(sign == 1.0 && (log - by_factor).abs() < 1e-12 && (log - 36f64.ln()).abs() < 1e-12);
        Ok(())
    }
}
