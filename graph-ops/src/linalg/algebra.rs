//! Nodes that the gradients of matrix ops are made of.

use graph_core::graph::{IntoOperand, Tensor, scope};
use graph_core::{DType, Operand, Result, Value};

use crate::math::nodes::Nodes;

impl Nodes<'_> {
    /// The conjugate transposes of matrices.
    pub(super) fn adjoint(&self, x: &Tensor) -> Result<Tensor> {
        self.matrix_transpose(x, x.dtype().is_complex())
    }

    fn matrix_transpose(&self, x: &Tensor, conjugate: bool) -> Result<Tensor> {
        let scope = scope::name_scope_in(self.graph(), "matrix_transpose")?;
        let permutation = match x.shape().rank() {
            Some(rank) if rank >= 2 => {
                let mut axes: Vec<i32> = (0..rank as i32).collect();
                axes.swap(rank - 2, rank - 1);
                self.constant(Value::from(axes), "perm")?
            }
            _ => {
                let rank = self.rank(x)?;
                let (last, before) = (self.sub(&rank, 1i32)?, self.sub(&rank, 2i32)?);
                let batch = self.range(0, &before)?;
                let swapped: Vec<Operand> = vec![last.into_operand(), before.into_operand()];
                self.concat(vec![batch.into_operand(), swapped.into_operand()])?
            }
        };
        let op = if conjugate { "ConjugateTranspose" } else { "Transpose" };
        self.node(op)
            .input(x)
            .input(&permutation)
            .name(scope.scope_name())
            .build()
    }

    /// `tf.matrix_band_part`: all diagonals below the main one (or only it), all above it (or only it).
    pub(super) fn triangle(&self, x: &Tensor, lower: bool) -> Result<Tensor> {
        let (below, above) = if lower { (-1i64, 0i64) } else { (0, -1) };
        let (below, above) = (self.constant(below, "num_lower")?, self.constant(above, "num_upper")?);
        self.node("MatrixBandPart").input(x).input(&below).input(&above).build()
    }

    /// `tf.matrix_diag`
    pub(super) fn diagonal_matrix(&self, diagonal: &Tensor) -> Result<Tensor> {
        self.node("MatrixDiag").input(diagonal).name("diag").build()
    }

    /// `tf.matrix_diag_part`
    pub(super) fn diagonal_part(&self, x: &Tensor) -> Result<Tensor> {
        self.node("MatrixDiagPart").input(x).name("diag_part").build()
    }

    /// `tf.matrix_set_diag`
    pub(super) fn with_diagonal(&self, x: &Tensor, diagonal: &Tensor) -> Result<Tensor> {
        self.binary("MatrixSetDiag", "set_diag", x, diagonal)
    }

    /// Identity matrices in the shape of square matrices.
    pub(super) fn identity_like(&self, x: &Tensor) -> Result<Tensor> {
        let _scope = scope::name_scope_in(self.graph(), "eye")?;
        let diagonal = self.diagonal_part(x)?;
        let ones = self.ones_like(&diagonal, x.dtype())?;
        self.diagonal_matrix(&ones)
    }

    /// `-x`
    pub(super) fn negative(&self, x: &Tensor) -> Result<Tensor> {
        self.unary("Neg", x)
    }

    /// A number times `x`.
    pub(super) fn times(&self, factor: f64, x: &Tensor) -> Result<Tensor> {
        let factor = self.scalar(factor, x.dtype(), "mul/x")?;
        self.mul(&factor, x)
    }

    /// `tf.expand_dims`
    pub(super) fn expand(&self, x: &Tensor, axis: i32) -> Result<Tensor> {
        self.node("ExpandDims").input(x).input(axis).build()
    }

    /// The columns from `begin` to `end` of matrices: `x[..., :, begin:end]`.
    pub(super) fn columns(&self, x: &Tensor, begin: Option<usize>, end: Option<usize>) -> Result<Tensor> {
        const LAST_TWO: i64 = 0b110;
        const LAST: i64 = 0b100;
        let scope = scope::name_scope_in(self.graph(), "strided_slice")?;
        let bound = |bound: Option<usize>| [0, 0, bound.unwrap_or(0) as i32];
        let (begin_value, end_value) = (
            self.constant(bound(begin), "stack")?,
            self.constant(bound(end), "stack_1")?,
        );
        let strides = self.constant([1i32, 1, 1], "stack_2")?;
        let mask = |bound: Option<usize>| if bound.is_some() { LAST_TWO & !LAST } else { LAST_TWO };
        self.node("StridedSlice")
            .input(x)
            .input(&begin_value)
            .input(&end_value)
            .input(&strides)
            .attr("begin_mask", mask(begin))
            .attr("end_mask", mask(end))
            .attr("ellipsis_mask", 1i64)
            .name(scope.scope_name())
            .build()
    }

    /// One factor for each matrix of a batch: `factors` with two more axes of length 1.
    pub(super) fn for_each_matrix(&self, factors: &Tensor) -> Result<Tensor> {
        let shape = self.shape(factors)?;
        let ones = self.constant([1i32, 1], "concat/values_1")?;
        let shape = self.concat(vec![shape.into_operand(), ones.into_operand()])?;
        self.reshape(factors, &shape)
    }

    /// Sums the gradients of two operands over the batch axes that each was broadcast along.
    pub(super) fn unbroadcast_batches(&self, operands: [&Tensor; 2], gradients: [Tensor; 2]) -> Result<[Tensor; 2]> {
        let batch = |operand: &Tensor| {
            let shape = operand.shape().to_shape()?;
            Some(shape[..shape.rank().checked_sub(2)?].to_vec())
        };
        if let (Some(first), Some(second)) = (batch(operands[0]), batch(operands[1]))
            && first == second
        {
            return Ok(gradients);
        }
        let shapes = [self.shape(operands[0])?, self.shape(operands[1])?];
        let batches = [
            self.slice(&shapes[0], None, Some(-2))?,
            self.slice(&shapes[1], None, Some(-2))?,
        ];
        let axes = self
            .node("BroadcastGradientArgs")
            .input(&batches[0])
            .input(&batches[1])
            .build_all()?;
        let sum = |index: usize| {
            let sum = self.reduce("Sum", &gradients[index], Some((&axes[index]).into_operand()), false)?;
            self.reshape(&sum, &shapes[index])
        };
        Ok([sum(0)?, sum(1)?])
    }

    /// `x / (x^2 + tiny)`: the reciprocal, and 0 of 0.
    pub(super) fn safe_reciprocal(&self, x: &Tensor) -> Result<Tensor> {
        let tiny = Value::from(1e-20f64);
        let tiny = match x.dtype() {
            DType::Float32 => Value::from(1e-20f32),
            dtype => tiny.cast_exactly(dtype)?,
        };
        let tiny = self.constant(tiny, "add/y")?;
        let square = self.add(&self.mul(x, x)?, &tiny)?;
        self.mul(x, &self.unary("Reciprocal", &square)?)
    }
}
