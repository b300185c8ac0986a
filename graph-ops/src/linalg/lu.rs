//! `Lu`

use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Result};

use super::batches::{MatrixShape, Parts, TYPES, for_each_matrix, kernels, part, square_sizes};
use super::device;
use super::inverse::not_invertible;
use crate::cpu::linalg::{self, Matrix, Scalar};

/// `Lu`
pub(crate) fn lu_op() -> OpDefinition {
    kernels!(
        OpDefinition::new(
            "Lu",
            "P A = L U for square matrices: both triangles in one matrix, and the permutation of the rows.",
        )
        .input("input: T")
        .output("lu: T")
        .output("p: output_idx_type")
        .attr(TYPES)
        .attr("output_idx_type: {int32, int64} = DT_INT32")
        .may_fail()
        .shape(shape)
        .no_gradient(),
        kernel
    )
    .kernel(KernelDefinition::cuda(device::lu).types("T", device::REALS))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape = MatrixShape::square(context, 0)?;
    context.set_output(0, shape.with(&[shape.rows, shape.columns]));
    context.set_output(1, shape.with(&[shape.rows]));
    Ok(())
}

fn kernel<T: Element + Scalar>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    let wide = request.output_dtype(1) == DType::Int64;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (input, output) = (context.input::<T>(0)?, Parts::of(context.output::<T>(0)?, n * n));
        let (narrow_rows, wide_rows): (&mut [i32], &mut [i64]) = if wide {
            (&mut [], context.output::<i64>(1)?)
        } else {
            (context.output::<i32>(1)?, &mut [])
        };
        let (narrow_rows, wide_rows) = (Parts::of(narrow_rows, n), Parts::of(wide_rows, n));
        for_each_matrix(count, n * n * n / 3, |index| {
            let lu = linalg::Lu::new(Matrix::new(n, n, part(input, n * n, index)));
            if !lu.is_invertible() {
                return Err(not_invertible());
            }
            // SAFETY: the outputs have a part for each of the `count` matrices, and each index comes once; of the two
            // forms of the permutation the one that is written is the output.
            unsafe {
                output.part(index).copy_from_slice(lu.factors.elements());
                for (at, &row) in lu.permutation.iter().enumerate() {
                    if wide {
                        wide_rows.part(index)[at] = row as i64;
                    } else {
                        narrow_rows.part(index)[at] = row as i32;
                    }
                }
            }
            Ok(())
        })
    }))
}

/// An LU factorization about to be made; see [`lu`].
#[must_use = "an operation is made by `build`"]
pub struct Lu(OpBuilder);

impl Lu {
    /// The permutation's dtype: `Int32` (without) or `Int64`.
    pub fn output_idx_type(self, dtype: DType) -> Self {
        Self(self.0.attr("output_idx_type", dtype))
    }

    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Makes the operation: the factors, and which row of the input became each row.
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` if the matrices are not square.
    pub fn build(self) -> Result<(Tensor, Tensor)> {
        let operation = self.0.build_operation()?;
        Ok((operation.output(0), operation.output(1)))
    }
}

/// The factorization `P A = L U` of the square matrices `input` of shape [..., n, n] with exchanges of rows: L without its
/// diagonal of ones below, U on and above the diagonal of the first result; the second, of shape [..., n], says which row of
/// A became each row. A singular matrix is `InvalidArgument` in the run.
#[track_caller]
pub fn lu(input: impl IntoOperand) -> Lu {
    Lu(crate::op("Lu").input(input))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let third = 1.0 / 3.0;
    vec![
        Case::new("Lu")
            .input([[1.0f64, 2.0], [3.0, 4.0]])
            .expect([[3.0f64, 4.0], [third, 2.0 / 3.0]])
            .expect([1i32, 0]),
        Case::new("Lu")
            .attr("output_idx_type", DType::Int64)
            .input([[[1.0f32, 2.0], [0.5, 4.0]], [[0.0, 2.0], [3.0, 0.0]]])
            .expect([[[1.0f32, 2.0], [0.5, 3.0]], [[3.0, 0.0], [0.0, 2.0]]])
            .expect([[0i64, 1], [1, 0]]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn a_singular_matrix_is_an_error() {
        assert!(Case::new("Lu").input([[1.0f32, 1.0], [1.0, 1.0]]).run().is_err());
    }
}
