//! Linear algebra on a device: a block of threads a matrix (`algebra.cu`).
//!
//! A kernel of a device cannot fail for what it finds in the data: where the CPU's kernels refuse a matrix, results are infinite or
//! not numbers.

use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{DType, Result};
use graph_cuda::{Source, source};

use super::batches::{sizes, square_sizes};
use crate::cuda::NOWHERE;
use crate::cuda::launch::{Launch, Work};
use crate::cuda::type_name;
use crate::math::broadcasting::broadcast_positions;

const SOURCE: Source = source!("algebra.cu");

/// The dtypes that matrices are computed in on a device.
pub(super) const REALS: &[DType] = &[DType::Float32, DType::Float64];

/// Bytes of scratch memory for factors, and where the rows' numbers begin behind them.
fn factors(request: &KernelRequest<'_>, count: usize, n: usize) -> (usize, usize) {
    let bytes = count * n * n * request.input_dtype(0).size().unwrap_or(8);
    let rows = bytes.next_multiple_of(256);
    (rows + count * n * 4, rows)
}

/// Operations of the factorization of `count` matrices of `n` rows into triangles.
fn elimination(count: usize, n: usize) -> usize {
    count * n * n * n * 2 / 3
}

/// `MatrixDeterminant` and `LogMatrixDeterminant`
pub(super) fn determinant(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    let whole = request.output_shapes.len() == 1;
    let defines = [("T", type_name(request.input_dtype(0))?)];
    let numbers = [count, n, whole.into()];
    let launch = Launch::new(request, &SOURCE, "determinant", &defines, Work::Blocks(count), &numbers)?;
    let launch = launch.doing(elimination(count, n));
    let (bytes, rows) = factors(request, count, n);
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let logarithm = if whole { NOWHERE } else { context.output_address(1) };
        let (input, scratch) = (context.input_address(0), context.scratch_address());
        let outputs = [context.output_address(0), logarithm];
        // SAFETY: these are the kernel's parameters, with room for the factors and the rows' numbers.
        unsafe { launch.run(outputs.into_iter().chain([input, scratch, scratch.offset(rows)])) }
    });
    Ok(planned.with_scratch(bytes))
}

/// `MatrixInverse`, and `MatrixSolve` where there is a right side
pub(super) fn solve(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    let inverse = request.num_inputs() == 1;
    let columns = if inverse { n } else { sizes(request.input_shape(1))?.2 };
    let transposed: bool = request.attr("adjoint")?;
    let defines = [("T", type_name(request.input_dtype(0))?)];
    let numbers = [count, n, columns, transposed.into(), inverse.into()];
    let work = Work::Blocks(if columns == 0 { 0 } else { count });
    let launch = Launch::new(request, &SOURCE, "solve", &defines, work, &numbers)?;
    let launch = launch.doing(elimination(count, n) + 2 * count * n * n * columns);
    let (bytes, rows) = factors(request, count, n);
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let right = if inverse { NOWHERE } else { context.input_address(1) };
        let (output, scratch) = (context.output_address(0), context.scratch_address());
        // SAFETY: these are the kernel's parameters, with room for the factors and the rows' numbers.
        unsafe { launch.run([output, context.input_address(0), right, scratch, scratch.offset(rows)]) }
    });
    Ok(planned.with_scratch(bytes))
}

/// `Lu`
pub(super) fn lu(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    let defines = [
        ("T", type_name(request.input_dtype(0))?),
        ("I", type_name(request.output_dtype(1))?),
    ];
    let launch = Launch::new(request, &SOURCE, "lu", &defines, Work::Blocks(count), &[count, n])?;
    Ok(launch.doing(elimination(count, n)).over(&[0]))
}

/// `Cholesky`
pub(super) fn cholesky(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, n) = square_sizes(request.input_shape(0))?;
    let defines = [("T", type_name(request.input_dtype(0))?)];
    let launch = Launch::new(request, &SOURCE, "cholesky", &defines, Work::Blocks(count), &[count, n])?;
    Ok(launch.doing(elimination(count, n) / 2).over(&[0]))
}

/// `MatrixTriangularSolve`
pub(super) fn solve_triangular(request: &KernelRequest<'_>) -> Result<Planned> {
    let (_, n) = square_sizes(request.input_shape(0))?;
    let shape = request.output_shape(0)?;
    let (count, _, columns) = sizes(shape)?;
    let batch = &shape[..shape.rank() - 2];
    let own = |index: usize| &request.input_shape(index)[..request.input_shape(index).rank() - 2];
    let placed = own(0) != own(1);
    let (lower, transposed): (bool, bool) = (request.attr("lower")?, request.attr("adjoint")?);
    let defines = [("T", type_name(request.input_dtype(0))?)];
    let numbers = [count, n, columns, lower.into(), transposed.into(), placed.into()];
    let work = Work::Elements(count * columns);
    let launch = Launch::new(request, &SOURCE, "solve_triangular", &defines, work, &numbers)?;
    let launch = launch.doing(count * n * n * columns);
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let places = if placed { context.parameters_address()? } else { NOWHERE };
        let (matrices, right) = (context.input_address(0), context.input_address(1));
        // SAFETY: these are the kernel's parameters, which say how many matrices and right sides there are.
        unsafe { launch.run([context.output_address(0), matrices, right, places]) }
    });
    if !placed {
        return Ok(planned);
    }
    let pairs = broadcast_positions(batch, own(0))
        .into_iter()
        .zip(broadcast_positions(batch, own(1)));
    let bytes: Vec<u8> = pairs
        .flat_map(|(matrix, right)| [matrix as i32, right as i32])
        .flat_map(i32::to_le_bytes)
        .collect();
    Ok(planned.with_parameters(bytes.len(), move |_, to| {
        to.copy_from_slice(&bytes);
        Ok(())
    }))
}
