//! `Svd`

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor, scope};
use graph_core::op::{InferenceContext, KernelContext, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, Error, PartialShape, Result};

use super::batches::{MatrixShape, Parts, TYPES, for_each_matrix, kernels, part, sizes};
use super::eigen::inverse_differences;
use crate::cpu::linalg::{self, Matrix, Scalar, Vectors};
use crate::math::nodes::Nodes;

/// `Svd`
pub(crate) fn svd_op() -> OpDefinition {
    kernels!(
        OpDefinition::new(
            "Svd",
            "Singular values, falling, and singular vectors: A = U diag(s) Vᴴ.",
        )
        .input("input: T")
        .output("s: T")
        .output("u: T")
        .output("v: T")
        .attr("compute_uv: bool = true")
        .attr("full_matrices: bool = false")
        .attr(TYPES)
        .shape(shape)
        .gradient(gradient),
        kernel
    )
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape = MatrixShape::of(context, 0)?;
    let least = shape.least();
    context.set_output(0, shape.with(&[least]));
    if !context.attr::<bool>("compute_uv")? {
        context.set_output(1, PartialShape::vector(0));
        context.set_output(2, PartialShape::vector(0));
        return Ok(());
    }
    let full: bool = context.attr("full_matrices")?;
    let columns = |own| if full { own } else { least };
    context.set_output(1, shape.with(&[shape.rows, columns(shape.rows)]));
    context.set_output(2, shape.with(&[shape.columns, columns(shape.columns)]));
    Ok(())
}

fn kernel<T: Element + Scalar>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, rows, columns) = sizes(request.input_shape(0))?;
    let least = rows.min(columns);
    let vectors = match (request.attr("compute_uv")?, request.attr("full_matrices")?) {
        (false, _) => Vectors::None,
        (true, false) => Vectors::Thin,
        (true, true) => Vectors::Full,
    };
    let (left, right) = match vectors {
        Vectors::None => (0, 0),
        Vectors::Thin => (rows * least, columns * least),
        Vectors::Full => (rows * rows, columns * columns),
    };
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let input = context.input::<T>(0)?;
        let values = Parts::of(context.output::<T>(0)?, least);
        let left = Parts::of(context.output::<T>(1)?, left);
        let right = Parts::of(context.output::<T>(2)?, right);
        for_each_matrix(count, 20 * rows * columns * least, |index| {
            let matrix = Matrix::new(rows, columns, part(input, rows * columns, index));
            let parts = linalg::svd(&matrix, vectors);
            // SAFETY: the outputs have a part for each of the `count` matrices, and each index comes once.
            unsafe {
                let values = values.part(index).iter_mut().zip(parts.values);
                values.for_each(|(out, value)| *out = T::from_real(value));
                if vectors != Vectors::None {
                    left.part(index).copy_from_slice(parts.left.elements());
                    right.part(index).copy_from_slice(parts.right.elements());
                }
            }
            Ok(())
        })
    }))
}

/// Ionescu, Vantzos and Sminchisescu, "Training Deep Networks with Structured Layers by Matrix Backpropagation" (2015); the
/// term of complex numbers as in Wan and Zhang, "Automatic Differentiation for Complex Valued SVD" (2019).
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let input = context.input(0);
    let to_values = nodes.diagonal_matrix(&context.gradient(0)?)?;
    if !context.attr::<bool>("compute_uv")? {
        let again = nodes.node("Svd").input(&input).attr("compute_uv", true).build_all()?;
        let right = nodes.matmul(&to_values, &again[2], false, true)?;
        return Ok(vec![Some(nodes.matmul(&again[1], &right, false, false)?)]);
    }
    let shape = input.shape();
    let (Some(rows), Some(columns)) = (match shape.rank() {
        Some(rank) if rank >= 2 => (shape.dim(rank - 2), shape.dim(rank - 1)),
        _ => (None, None),
    }) else {
        return Err(Error::unimplemented("the gradient of Svd needs matrices of a known shape").got(shape));
    };
    let full: bool = context.attr("full_matrices")?;
    if full && rows.abs_diff(columns) > 1 {
        return Err(Error::unimplemented(
            "full_matrices has no gradient where rows and columns differ by more than one",
        )
        .got(format!("{rows} rows and {columns} columns")));
    }
    let [u, v] = [context.output(1), context.output(2)];
    let [to_u, to_v] = [context.gradient(1)?, context.gradient(2)?];
    let _after = scope::control_dependencies([&to_values.op(), &to_u.op(), &to_v.op()])?;
    let values = context.output(0);
    // A tall matrix has the gradient of its conjugate transpose, whose two sets of vectors are exchanged.
    let tall = rows > columns;
    let sides = if tall {
        Sides {
            u: v,
            v: u,
            to_u: to_v,
            to_v: to_u,
        }
    } else {
        Sides { u, v, to_u, to_v }
    };
    let gradient = wide_gradient(
        &nodes,
        &values,
        &to_values,
        &sides,
        [rows.min(columns), rows.max(columns)],
        full,
    )?;
    let gradient = if tall { nodes.adjoint(&gradient)? } else { gradient };
    Ok(vec![Some(gradient)])
}

/// The singular vectors and their gradients.
struct Sides {
    u: Tensor,
    v: Tensor,
    to_u: Tensor,
    to_v: Tensor,
}

/// The gradient of a matrix of `m` rows and `n` columns, with no more rows than columns.
fn wide_gradient(
    nodes: &Nodes<'_>,
    values: &Tensor,
    to_values: &Tensor,
    sides: &Sides,
    [m, n]: [usize; 2],
    full: bool,
) -> Result<Tensor> {
    let Sides { u, v, to_u, to_v } = sides;
    let diagonal = nodes.diagonal_matrix(values)?;
    let weights = inverse_differences(nodes, &nodes.unary("Square", values)?)?;
    let inverse = nodes.diagonal_matrix(&nodes.safe_reciprocal(values)?)?;
    let (v1, to_v1) = (nodes.columns(v, None, Some(m))?, nodes.columns(to_v, None, Some(m))?);
    let v_product = nodes.matmul(&v1, &to_v1, true, false)?;
    let symmetric = |product: &Tensor| {
        let weighted = nodes.mul(&weights, product)?;
        nodes.add(&weighted, &nodes.adjoint(&weighted)?)
    };
    let from_u = symmetric(&nodes.matmul(u, to_u, true, false)?)?;
    let from_v = symmetric(&v_product)?;
    let mut middle = nodes.add(to_values, &nodes.matmul(&from_u, &diagonal, false, false)?)?;
    middle = nodes.add(&middle, &nodes.matmul(&diagonal, &from_v, false, false)?)?;
    let around = |middle: &Tensor| {
        let right = nodes.matmul(middle, &v1, false, true)?;
        nodes.matmul(u, &right, false, false)
    };
    let mut gradient = around(&middle)?;
    if m < n {
        // What the gradient of V says of directions outside of the rows' space.
        let adjoint = nodes.adjoint(&to_v1)?;
        let inside = nodes.matmul(&adjoint, &v1, false, false)?;
        let mut outside = nodes.sub(&adjoint, &nodes.matmul(&inside, &v1, false, true)?)?;
        if full {
            let (v2, to_v2) = (
                nodes.columns(v, Some(m), Some(n))?,
                nodes.columns(to_v, Some(m), Some(n))?,
            );
            let product = nodes.matmul(&v1, &to_v2, true, false)?;
            outside = nodes.sub(&outside, &nodes.matmul(&product, &v2, false, true)?)?;
        }
        let scaled = nodes.matmul(u, &inverse, false, false)?;
        gradient = nodes.add(&gradient, &nodes.matmul(&scaled, &outside, false, false)?)?;
    }
    if values.dtype().is_complex() {
        let phases = nodes.diagonal_matrix(&nodes.diagonal_part(&v_product)?)?;
        let difference = nodes.sub(&nodes.adjoint(&phases)?, &phases)?;
        let term = around(&nodes.matmul(&inverse, &difference, false, false)?)?;
        gradient = nodes.add(&gradient, &nodes.times(0.5, &term)?)?;
    }
    Ok(gradient)
}

/// A singular value decomposition about to be made; see [`svd`].
#[must_use = "an operation is made by `build`"]
pub struct Svd(OpBuilder);

impl Svd {
    /// Whether U and V are square; false without.
    pub fn full_matrices(self, full: bool) -> Self {
        Self(self.0.attr("full_matrices", full))
    }

    /// Whether U and V are computed; true without.
    pub fn compute_uv(self, compute: bool) -> Self {
        Self(self.0.attr("compute_uv", compute))
    }

    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Makes the operation: the singular values, U and V (without meaning where they are not wanted).
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` if it is no matrix.
    pub fn build(self) -> Result<(Tensor, Tensor, Tensor)> {
        let operation = self.0.build_operation()?;
        Ok((operation.output(0), operation.output(1), operation.output(2)))
    }
}

/// s, U and V with `U diag(s) Vᴴ = tensor`, for matrices of shape [..., m, n]: the singular values, falling, of shape
/// [..., p] with p the lesser of m and n; orthonormal columns U of shape [..., m, p] and V of shape [..., n, p], which
/// `full_matrices` completes to [..., m, m] and [..., n, n].
#[track_caller]
pub fn svd(tensor: impl IntoOperand) -> Svd {
    Svd(crate::op("Svd").input(tensor))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{DType, Value};
    let empty = |shape: &[usize]| Value::zeros(DType::Float64, shape).expect("a value");
    let half = 0.5f64.sqrt();
    vec![
        Case::new("Svd")
            .input([[1.0f64, 2.0], [3.0, 4.0]])
            .expect([5.464_985_704_219_043f64, 0.365_966_190_626_257_8])
            .expect([
                [0.404_553_584_833_757f64, -0.914_514_295_677_304],
                [0.914_514_295_677_304, 0.404_553_584_833_757],
            ])
            .expect([
                [0.576_048_436_766_320_8f64, 0.817_415_560_470_363_2],
                [0.817_415_560_470_363_2, -0.576_048_436_766_320_8],
            ]),
        Case::new("Svd")
            .attr("compute_uv", false)
            .input([[[3.0f32, 0.0]], [[0.0, -2.0]]])
            .expect([[3.0f32], [2.0]])
            .expect(Value::zeros(DType::Float32, [0]).expect("a value"))
            .expect(Value::zeros(DType::Float32, [0]).expect("a value")),
        Case::new("Svd")
            .attr("full_matrices", true)
            .input([[2.0f64], [2.0]])
            .expect([8f64.sqrt()])
            .expect([[half, -half], [half, half]])
            .expect([[1.0f64]]),
        Case::new("Svd")
            .attr("full_matrices", true)
            .input(empty(&[0, 2]))
            .expect(empty(&[0]))
            .expect(empty(&[0, 0]))
            .expect([[1.0f64, 0.0], [0.0, 1.0]]),
    ]
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let mut cases = Vec::new();
    for output in [0, 1, 2] {
        let case = || GradientCase::new("Svd").output(output).tolerance(1e-5, 1e-6, 1e-5);
        cases.push(case().input([[2.0f64, 0.3], [-0.4, 1.5], [0.7, 0.2]]));
        cases.push(case().input([[2.0f64, 0.3], [-0.4, 1.5]]));
        cases.push(case().input([[2.0f64, 0.3, 1.1], [-0.4, 1.5, 0.6]]));
        let full = || case().attr("full_matrices", true);
        cases.push(full().input([[2.0f64, 0.3, 1.1], [-0.4, 1.5, 0.6]]));
    }
    let values = GradientCase::new("Svd").attr("compute_uv", false);
    cases.push(values.input([[2.0f64, 0.3], [-0.4, 1.5], [0.7, 0.2]]));
    cases
}
