//! Diagonals and bands of matrices: `Diag`, `DiagPart`, `MatrixDiag`, `MatrixDiagPart`, `MatrixSetDiag`, `MatrixBandPart`.

use std::panic::Location;

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Operand, Tensor, scope};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, DType, Dim, Element, Error, Graph, PartialShape, Result, typed_builder};
use half::{bf16, f16};

use super::nodes::Nodes;

mod device;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::{cases, gradient_cases};

/// A kernel for each dtype.
macro_rules! kernels {
    ($definition:expr, $kernel:ident: $($dtype:ident $type:ty),*) => {
        $definition $(.kernel(KernelDefinition::cpu($kernel::<$type>).types("T", &[DType::$dtype])))*
    };
    ($definition:expr, $kernel:ident) => {
        kernels!(
            $definition, $kernel:
            Float32 f32, Float64 f64, Half f16, BFloat16 bf16, Int8 i8, Int16 i16, Int32 i32, Int64 i64, UInt8 u8,
            UInt16 u16, UInt32 u32, UInt64 u64, Bool bool, Complex64 Complex<f32>, Complex128 Complex<f64>
        )
    };
}

const TENSOR_TYPES: &str = "T: {bfloat16, half, float, double, int32, int64, complex64, complex128}";

/// `Diag`
pub(crate) fn diag_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "Diag",
        "A tensor of twice the rank with the input on its diagonal, else zero.",
    );
    let definition = definition
        .input("diagonal: T")
        .output("output: T")
        .attr(TENSOR_TYPES)
        .shape(|context| {
            let diagonal = context.with_rank_at_least(0, 1)?;
            context.set_output(0, diagonal.concatenate(&diagonal));
            Ok(())
        })
        .gradient(|context| {
            Ok(vec![Some(
                context.node("DiagPart").input(context.gradient(0)?).build()?,
            )])
        });
    kernels!(definition, diag_kernel).kernel(device::diag())
}

/// `DiagPart`
pub(crate) fn diag_part_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "DiagPart",
        "The diagonal of a tensor of even rank whose two halves are alike.",
    );
    let definition = definition
        .input("input: T")
        .output("diagonal: T")
        .attr(TENSOR_TYPES)
        .shape(diag_part_shape)
        .gradient(|context| Ok(vec![Some(context.node("Diag").input(context.gradient(0)?).build()?)]));
    kernels!(definition, diag_part_kernel).kernel(device::diag_part())
}

/// `MatrixDiag`
pub(crate) fn matrix_diag_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "MatrixDiag",
        "Square matrices with the input on their diagonals, else zero.",
    );
    let definition = definition
        .input("diagonal: T")
        .output("output: T")
        .attr("T: type")
        .shape(|context| {
            let diagonal = context.with_rank_at_least(0, 1)?;
            if let Some(rank) = diagonal.rank() {
                context.set_output(0, diagonal.concatenate(&PartialShape::from([diagonal.dim(rank - 1)])));
            }
            Ok(())
        })
        .gradient(|context| Ok(vec![Some(diagonal_of(&Nodes::of(context), &context.gradient(0)?)?)]));
    kernels!(definition, matrix_diag_kernel).kernel(device::matrix_diag())
}

/// `MatrixDiagPart`
pub(crate) fn matrix_diag_part_op() -> OpDefinition {
    let definition = OpDefinition::new("MatrixDiagPart", "The diagonals of matrices.");
    let definition = definition
        .input("input: T")
        .output("diagonal: T")
        .attr("T: type")
        .shape(|context| {
            if let Some((batch, rows, columns)) = matrices(context)? {
                context.set_output(0, batch.concatenate(&PartialShape::from([least(rows, columns)])));
            }
            Ok(())
        })
        .gradient(matrix_diag_part_gradient);
    kernels!(definition, matrix_diag_part_kernel).kernel(device::matrix_diag_part())
}

/// `MatrixSetDiag`
pub(crate) fn matrix_set_diag_op() -> OpDefinition {
    let definition = OpDefinition::new("MatrixSetDiag", "Matrices with other diagonals.")
        .input("input: T")
        .input("diagonal: T")
        .output("output: T")
        .attr("T: type")
        .shape(set_diag_shape)
        .gradient(set_diag_gradient);
    kernels!(definition, set_diag_kernel).kernel(device::set_diag())
}

/// `MatrixBandPart`
pub(crate) fn matrix_band_part_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "MatrixBandPart",
        "Matrices with zeros outside of a band of so many diagonals below and above the main one; negative: all of them.",
    )
    .input("input: T")
    .input("num_lower: Tindex")
    .input("num_upper: Tindex")
    .output("band: T")
    .attr("T: type")
    .attr("Tindex: {int32, int64} = DT_INT64")
    .may_fail()
    .shape(|context| {
        context.with_rank(1, 0)?;
        context.with_rank(2, 0)?;
        matrices(context)?;
        context.set_output(0, context.input(0));
        Ok(())
    })
    .gradient(|context| {
        let node = context.node("MatrixBandPart").input(context.gradient(0)?);
        let band = node.input(context.input(1)).input(context.input(2)).build()?;
        Ok(vec![Some(band), None, None])
    });
    kernels!(definition, band_kernel).kernel(device::band())
}

/// The batch axes, rows and columns of the first input.
fn matrices(context: &InferenceContext<'_>) -> Result<Option<(PartialShape, Dim, Dim)>> {
    let input = context.with_rank_at_least(0, 2)?;
    Ok(input.dims().map(|dims| {
        let (batch, matrix) = dims.split_at(dims.len() - 2);
        (PartialShape::from_dims(batch.iter().copied()), matrix[0], matrix[1])
    }))
}

fn least(rows: Dim, columns: Dim) -> Dim {
    match (rows, columns) {
        (Some(0), _) | (_, Some(0)) => Some(0),
        (Some(rows), Some(columns)) => Some(rows.min(columns)),
        _ => None,
    }
}

fn diag_part_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let Some(dims) = context.input(0).dims() else {
        return Ok(());
    };
    if dims.len() % 2 != 0 || dims.is_empty() {
        return Err(
            Error::invalid_argument("a diagonal is taken of tensors of even rank, and at least two")
                .got(format!("shape {}", context.input(0))),
        );
    }
    let (first, second) = dims.split_at(dims.len() / 2);
    let merged =
        PartialShape::from_dims(first.iter().copied()).merge(&PartialShape::from_dims(second.iter().copied()))?;
    context.set_output(0, merged);
    Ok(())
}

fn set_diag_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let diagonal = context.with_rank_at_least(1, 1)?;
    let mut output = context.input(0).clone();
    if let Some((batch, rows, columns)) = matrices(context)? {
        let expected = batch.concatenate(&PartialShape::from([least(rows, columns)]));
        let merged = expected
            .merge(&diagonal)
            .map_err(|error| error.context("fitting a diagonal into matrices"))?;
        if let Some(dims) = merged.dims() {
            let batch = PartialShape::from_dims(dims[..dims.len() - 1].iter().copied());
            output = batch.concatenate(&PartialShape::from([rows, columns]));
        }
    }
    context.set_output(0, output);
    Ok(())
}

/// Rows and columns of the matrices in a shape.
fn sides(shape: &[usize]) -> (usize, usize) {
    (shape[shape.len() - 2], shape[shape.len() - 1])
}

/// Writes zeros with each run of `n` elements on the diagonal of a square.
fn spread<T: Element>(context: &mut KernelContext<'_>, n: usize) -> Result<()> {
    let (diagonal, output) = (context.input::<T>(0)?, context.output::<T>(0)?);
    output.fill(T::default());
    if n > 0 {
        for (square, diagonal) in output.chunks_mut(n * n).zip(diagonal.chunks(n)) {
            square
                .iter_mut()
                .step_by(n + 1)
                .zip(diagonal)
                .for_each(|(out, &x)| *out = x);
        }
    }
    Ok(())
}

/// Reads the diagonals of matrices.
fn gather<T: Element>(context: &mut KernelContext<'_>, rows: usize, columns: usize) -> Result<()> {
    let (input, output) = (context.input::<T>(0)?, context.output::<T>(0)?);
    let n = rows.min(columns);
    if n > 0 {
        for (matrix, diagonal) in input.chunks(rows * columns).zip(output.chunks_mut(n)) {
            diagonal
                .iter_mut()
                .zip(matrix.iter().step_by(columns + 1))
                .for_each(|(out, &x)| *out = x);
        }
    }
    Ok(())
}

fn diag_kernel<T: Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let n = request.input_shape(0).num_elements();
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        spread::<T>(context, n)
    }))
}

fn matrix_diag_kernel<T: Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.input_shape(0);
    let n = shape[shape.rank() - 1];
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        spread::<T>(context, n)
    }))
}

fn diag_part_kernel<T: Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let n = request.output_shape(0)?.num_elements();
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        gather::<T>(context, n, n)
    }))
}

fn matrix_diag_part_kernel<T: Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (rows, columns) = sides(request.input_shape(0));
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        gather::<T>(context, rows, columns)
    }))
}

fn set_diag_kernel<T: Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (rows, columns) = sides(request.input_shape(0));
    let n = rows.min(columns);
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (input, diagonal) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let output = context.output::<T>(0)?;
        output.copy_from_slice(input);
        if n > 0 {
            for (matrix, diagonal) in output.chunks_mut(rows * columns).zip(diagonal.chunks(n)) {
                matrix
                    .iter_mut()
                    .step_by(columns + 1)
                    .zip(diagonal)
                    .for_each(|(out, &x)| *out = x);
            }
        }
        Ok(())
    }))
}

fn band_kernel<T: Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (rows, columns) = sides(request.input_shape(0));
    let wide = request.input_dtype(1) == DType::Int64;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let bound = |index: usize, len: usize, what: &str| -> Result<usize> {
            let bound = if wide {
                context.input::<i64>(index)?[0]
            } else {
                context.input::<i32>(index)?[0].into()
            };
            match usize::try_from(bound) {
                Err(_) => Ok(len),
                Ok(bound) if bound <= len => Ok(bound),
                Ok(bound) => Err(
                    Error::invalid_argument(format!("the band is wider than the matrix has {what}"))
                        .expected(format!("a negative number, or at most {len}"))
                        .got(bound),
                ),
            }
        };
        let (lower, upper) = (bound(1, rows, "rows")?, bound(2, columns, "columns")?);
        let (input, output) = (context.input::<T>(0)?, context.output::<T>(0)?);
        if columns == 0 {
            return Ok(());
        }
        for (at, (out, input)) in output.chunks_mut(columns).zip(input.chunks(columns)).enumerate() {
            let row = at % rows;
            let start = row.saturating_sub(lower).min(columns);
            let end = (row + upper + 1).clamp(start, columns);
            out[..start].fill(T::default());
            out[start..end].copy_from_slice(&input[start..end]);
            out[end..].fill(T::default());
        }
        Ok(())
    }))
}

/// `tf.matrix_diag_part`
fn diagonal_of(nodes: &Nodes<'_>, x: &Tensor) -> Result<Tensor> {
    nodes.node("MatrixDiagPart").input(x).name("diag_part").build()
}

fn matrix_diag_part_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (input, gradient) = (context.input(0), context.gradient(0)?);
    let square = input.shape().dims().is_some_and(|dims| {
        let (rows, columns) = (dims[dims.len() - 2], dims[dims.len() - 1]);
        rows.is_some() && rows == columns
    });
    let result = if square {
        nodes.node("MatrixDiag").input(&gradient).name("diag").build()?
    } else {
        let zeros = nodes.zeros_like(&input)?;
        nodes.binary("MatrixSetDiag", "set_diag", &zeros, &gradient)?
    };
    Ok(vec![Some(result)])
}

fn set_diag_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let gradient = context.gradient(0)?;
    let input_shape = context.input(0).shape().merge(&gradient.shape())?;
    let known = input_shape.to_shape().map(|shape| {
        let (rows, columns) = sides(&shape);
        let mut dims = shape[..shape.rank() - 2].to_vec();
        dims.push(rows.min(columns));
        dims
    });
    let zeros = match known {
        Some(dims) => nodes.filled(0, &dims, gradient.dtype(), "zeros")?,
        None => {
            let shape = {
                let _colocation = scope::colocate_with(&gradient.op());
                diagonal_shape(&nodes, &gradient)?
            };
            nodes.zeros(&shape, gradient.dtype())?
        }
    };
    let for_input = nodes.binary("MatrixSetDiag", "set_diag", &gradient, &zeros)?;
    Ok(vec![Some(for_input), Some(diagonal_of(&nodes, &gradient)?)])
}

/// The shape of the diagonals of `x`, computed by nodes.
fn diagonal_shape(nodes: &Nodes<'_>, x: &Tensor) -> Result<Tensor> {
    let (shape, rank) = (nodes.shape(x)?, nodes.rank(x)?);
    let slice = |begin: Operand, size: Operand| nodes.node("Slice").input(&shape).input(begin).input(size).build();
    let batch_rank: Vec<Operand> = vec![nodes.sub(&rank, 2i32)?.into_operand()];
    let batch = slice([0i32].into_operand(), batch_rank.into_operand())?;
    let matrix_start: Vec<Operand> = vec![nodes.sub(&rank, 2i32)?.into_operand()];
    let matrix = slice(matrix_start.into_operand(), [2i32].into_operand())?;
    let least = nodes.reduce("Min", &matrix, None, false)?;
    nodes.concat(vec![batch.into_operand(), vec![least].into_operand()])
}

/// Defines the builder function of an op of one or two operands.
macro_rules! builders {
    ($($(#[$doc:meta])* $function:ident($($operand:ident),*) => $op:literal $name:literal;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $function($($operand: impl IntoOperand),*) -> Diagonal {
            Diagonal(crate::op($op)$(.input($operand))*.name($name))
        }
    )*};
}

typed_builder! {
    /// An op on diagonals about to be made; see [`matrix_diag`] and its like.
    pub struct Diagonal;
}

builders! {
    /// A tensor of shape `diagonal.shape + diagonal.shape` that is zero but for its diagonal.
    diag(diagonal) => "Diag" "Diag";
    /// The diagonal of a tensor of shape `s + s`, of shape `s`.
    diag_part(input) => "DiagPart" "DiagPart";
    /// Square matrices, shape [..., n, n], that are zero but for their diagonals of shape [..., n].
    ///
    /// ```
    /// use graph_ops::{array::constant, math::matrix_diag};
    /// assert_eq!(matrix_diag(constant([1.0f32, 2.0])).build()?.shape(), [2, 2].into());
    /// # Ok::<(), graph_core::Error>(())
    /// ```
    matrix_diag(diagonal) => "MatrixDiag" "diag";
    /// The diagonals, shape [..., min(m, n)], of matrices of shape [..., m, n].
    matrix_diag_part(input) => "MatrixDiagPart" "diag_part";
    /// Matrices of shape [..., m, n] with their diagonals replaced by those of shape [..., min(m, n)].
    matrix_set_diag(input, diagonal) => "MatrixSetDiag" "set_diag";
    /// Matrices of shape [..., m, n] with zeros but for `num_lower` diagonals below the main one and `num_upper` above it;
    /// a negative number keeps all of them.
    matrix_band_part(input, num_lower, num_upper) => "MatrixBandPart" "MatrixBandPart";
}

/// The sums of the diagonals of matrices of shape [..., m, n].
///
/// # Errors
/// The operand's own; `InvalidArgument` if it is no matrix.
#[track_caller]
pub fn trace(x: impl IntoOperand) -> Result<Tensor> {
    let x = x.into_operand();
    crate::install();
    let graph = x.graph().cloned().unwrap_or_else(Graph::current);
    let nodes = Nodes::at(&graph, Location::caller());
    let scope = scope::name_scope_in(&graph, "Trace")?;
    let diagonal = diagonal_of(&nodes, &nodes.tensor(&x, "x")?)?;
    nodes
        .node("Sum")
        .input(&diagonal)
        .input([-1i32])
        .name(scope.scope_name())
        .build()
}

/// An identity matrix about to be made; see [`eye`].
#[must_use = "operations are made by `build`"]
pub struct Eye {
    rows: usize,
    columns: Option<usize>,
    batch_shape: Vec<usize>,
    dtype: DType,
    name: Option<String>,
    location: &'static Location<'static>,
}

/// The identity matrix of `rows` rows, as `float` and square unless asked otherwise.
#[track_caller]
pub fn eye(rows: usize) -> Eye {
    crate::install();
    Eye {
        rows,
        columns: None,
        batch_shape: Vec::new(),
        dtype: DType::Float32,
        name: None,
        location: Location::caller(),
    }
}

impl Eye {
    /// The number of columns; that of the rows without.
    pub fn columns(mut self, columns: usize) -> Self {
        self.columns = Some(columns);
        self
    }

    /// Makes a tensor of many such matrices.
    pub fn batch_shape(mut self, shape: impl Into<Vec<usize>>) -> Self {
        self.batch_shape = shape.into();
        self
    }

    /// The dtype; `float` without.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Names the scope.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations; the matrix.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is none or a dtype without a one.
    pub fn build(self) -> Result<Tensor> {
        let nodes = Nodes::at(&Graph::current(), self.location);
        let _scope = scope::name_scope_in(nodes.graph(), self.name.as_deref().unwrap_or("eye"))?;
        let columns = self.columns.unwrap_or(self.rows);
        let shape = |dims: &[usize]| [&self.batch_shape, dims].concat();
        let ones = nodes.filled(1, &shape(&[self.rows.min(columns)]), self.dtype, "ones")?;
        if self.rows == columns {
            return nodes.node("MatrixDiag").input(&ones).name("diag").build();
        }
        let zeros = nodes.filled(0, &shape(&[self.rows, columns]), self.dtype, "zeros")?;
        nodes.binary("MatrixSetDiag", "set_diag", &zeros, &ones)
    }
}

impl IntoOperand for Eye {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}
