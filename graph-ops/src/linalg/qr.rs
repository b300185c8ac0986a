//! `Qr`

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, Error, Result};

use super::batches::{MatrixShape, Parts, TYPES, for_each_matrix, kernels, part, sizes};
use crate::cpu::linalg::{self, Matrix, Scalar};
use crate::math::nodes::Nodes;

/// `Qr`
pub(crate) fn qr_op() -> OpDefinition {
    kernels!(
        OpDefinition::new(
            "Qr",
            "Matrices as products of one with orthonormal columns and an upper triangular one, by Householder reflections.",
        )
        .input("input: T")
        .output("q: T")
        .output("r: T")
        .attr("full_matrices: bool = false")
        .attr(TYPES)
        .shape(shape)
        .gradient(gradient),
        kernel
    )
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape = MatrixShape::of(context, 0)?;
    let middle = if context.attr("full_matrices")? {
        shape.rows
    } else {
        shape.least()
    };
    context.set_output(0, shape.with(&[shape.rows, middle]));
    context.set_output(1, shape.with(&[middle, shape.columns]));
    Ok(())
}

fn kernel<T: Element + Scalar>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, rows, columns) = sizes(request.input_shape(0))?;
    let full: bool = request.attr("full_matrices")?;
    let middle = if full { rows } else { rows.min(columns) };
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let input = context.input::<T>(0)?;
        let q = Parts::of(context.output::<T>(0)?, rows * middle);
        let r = Parts::of(context.output::<T>(1)?, middle * columns);
        for_each_matrix(count, rows * columns * middle, |index| {
            let matrix = Matrix::new(rows, columns, part(input, rows * columns, index));
            let factors = linalg::qr(matrix, full);
            // SAFETY: both outputs have a part for each of the `count` matrices, and each index comes once.
            unsafe {
                q.part(index).copy_from_slice(factors.q.elements());
                r.part(index).copy_from_slice(factors.r.elements());
            }
            Ok(())
        })
    }))
}

/// As TensorFlow's: Roberts and Roberts, "QR and LQ Decomposition Matrix Backpropagation Algorithms" (2020).
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (q, r) = (context.output(0), context.output(1));
    let (to_q, to_r) = (context.gradient(0)?, context.gradient(1)?);
    let known = |x: &Tensor| {
        let shape = x.shape();
        let rank = shape.rank()?;
        Some((shape.dim(rank.checked_sub(2)?)?, shape.dim(rank - 1)?))
    };
    let (Some((rows, middle)), Some((_, columns))) = (known(&q), known(&r)) else {
        return Err(Error::unimplemented(
            "the gradient of Qr needs matrices of a known shape",
        ));
    };
    if rows > columns && rows == middle {
        return Err(
            Error::unimplemented("full_matrices has no gradient where there are more rows than columns")
                .got(format!("{rows} rows and {columns} columns")),
        );
    }
    if rows >= columns {
        return Ok(vec![Some(deep_gradient(&nodes, &q, &r, &to_q, &to_r)?)]);
    }
    // A = [X, Y] with X square, so that R = [U, V].
    let right = nodes.columns(&context.input(0), Some(rows), None)?;
    let u = nodes.columns(&r, None, Some(rows))?;
    let to_v = nodes.columns(&to_r, Some(rows), None)?;
    let to_u = nodes.columns(&to_r, None, Some(rows))?;
    let to_right = nodes.matmul(&q, &to_v, false, false)?;
    let more = nodes.add(&to_q, &nodes.matmul(&right, &to_v, false, true)?)?;
    let to_left = deep_gradient(&nodes, &q, &u, &more, &to_u)?;
    let both = nodes.node("ConcatV2").input([&to_left, &to_right]).input(-1i32);
    Ok(vec![Some(both.name("concat").build()?)])
}

/// The gradient where there are at least as many rows as columns.
fn deep_gradient(nodes: &Nodes<'_>, q: &Tensor, r: &Tensor, to_q: &Tensor, to_r: &Tensor) -> Result<Tensor> {
    // X R⁻ᴴ
    let divide = |x: &Tensor| {
        let solved = nodes
            .node("MatrixTriangularSolve")
            .input(r)
            .input(nodes.adjoint(x)?)
            .attr("lower", false)
            .build()?;
        nodes.adjoint(&solved)
    };
    let q_part = nodes.matmul(q, to_q, true, false)?;
    let r_part = nodes.matmul(r, to_r, false, true)?;
    let skew = |x: &Tensor| nodes.sub(x, &nodes.adjoint(x)?);
    let lower = nodes.triangle(&nodes.add(&skew(&q_part)?, &skew(&r_part)?)?, true)?;
    let inner = nodes.add(to_r, &divide(&lower)?)?;
    let first = nodes.matmul(q, &inner, false, false)?;
    let outside = nodes.sub(to_q, &nodes.matmul(q, &q_part, false, false)?)?;
    let mut result = nodes.add(&first, &divide(&outside)?)?;
    if q.dtype().is_complex() {
        let m = nodes.sub(&r_part, &nodes.adjoint(&q_part)?)?;
        let diagonal = nodes.diagonal_matrix(&nodes.diagonal_part(&m)?)?;
        let real = crate::math::real(&diagonal).build()?;
        let imaginary = nodes.sub(&diagonal, &nodes.cast(&real, q.dtype())?)?;
        let correction = nodes.matmul(q, &nodes.adjoint(&imaginary)?, false, false)?;
        result = nodes.add(&result, &divide(&correction)?)?;
    }
    Ok(result)
}

/// A QR factorization about to be made; see [`qr`].
#[must_use = "an operation is made by `build`"]
pub struct Qr(OpBuilder);

impl Qr {
    /// Whether Q is square; false without.
    pub fn full_matrices(self, full: bool) -> Self {
        Self(self.0.attr("full_matrices", full))
    }

    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Makes the operation: Q and R.
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` if it is no matrix.
    pub fn build(self) -> Result<(Tensor, Tensor)> {
        let operation = self.0.build_operation()?;
        Ok((operation.output(0), operation.output(1)))
    }
}

/// Q and R with `Q R = input` for matrices of shape [..., m, n]: Q of shape [..., m, p] with orthonormal columns, R of shape
/// [..., p, n] and upper triangular, where p is the lesser of m and n, or m with `full_matrices`.
#[track_caller]
pub fn qr(input: impl IntoOperand) -> Qr {
    Qr(crate::op("Qr").input(input))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{Complex, DType, Value};
    let c = |re: f64, im: f64| Complex::new(re, im);
    let empty = |shape: [usize; 2]| Value::zeros(DType::Float64, shape).expect("a value");
    vec![
        Case::new("Qr")
            .input([[3.0f64, 1.0], [4.0, 7.0]])
            .expect([[-0.6f64, -0.8], [-0.8, 0.6]])
            .expect([[-5.0f64, -6.2], [0.0, 3.4]]),
        Case::new("Qr")
            .input([[[3.0f32], [4.0]], [[0.0], [-2.0]]])
            .expect([[[-0.6f32], [-0.8]], [[0.0], [1.0]]])
            .expect([[[-5.0f32]], [[-2.0]]]),
        Case::new("Qr")
            .attr("full_matrices", true)
            .input([[3.0f64], [4.0]])
            .expect([[-0.6f64, -0.8], [-0.8, 0.6]])
            .expect([[-5.0f64], [0.0]]),
        Case::new("Qr")
            .input([[c(0.0, 3.0), c(1.0, 0.0)], [c(4.0, 0.0), c(0.0, 1.0)]])
            .expect([[c(0.0, -0.6), c(0.8, 0.0)], [c(-0.8, 0.0), c(0.0, 0.6)]])
            .expect([[c(-5.0, 0.0), c(0.0, -0.2)], [c(0.0, 0.0), c(1.4, 0.0)]]),
        Case::new("Qr")
            .attr("full_matrices", true)
            .input(empty([2, 0]))
            .expect([[1.0f64, 0.0], [0.0, 1.0]])
            .expect(empty([2, 0])),
    ]
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let mut cases = Vec::new();
    for output in [0, 1] {
        let case = || GradientCase::new("Qr").output(output);
        cases.push(case().input([[2.0f64, 0.3], [-0.4, 1.5], [0.7, 0.2]]));
        cases.push(case().input([[2.0f64, 0.3], [-0.4, 1.5]]));
        cases.push(case().input([[2.0f64, 0.3, 1.1], [-0.4, 1.5, 0.6]]));
    }
    cases
}
