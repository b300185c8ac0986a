//! The same on a device (`diagonal.cu`), where a band wider than the matrix is all of it.

use graph_core::Result;
use graph_core::op::{KernelDefinition, KernelRequest, Planned};
use graph_cuda::{Source, source};

use super::sides;
use crate::cpu::copy::CopyAxis;
use crate::cuda::copy::copy;
use crate::cuda::launch::{Launch, Work};
use crate::cuda::{SIZED, type_name, word_of};

/// `Diag`
pub(super) fn diag() -> KernelDefinition {
    let kernel = KernelDefinition::cuda(|request| {
        let n = request.input_shape(0).num_elements();
        kernel(request, "spread", [n, n], &[0])
    });
    kernel.types("T", SIZED)
}

/// `DiagPart`
pub(super) fn diag_part() -> KernelDefinition {
    let kernel = KernelDefinition::cuda(|request| {
        let n = request.output_shape(0)?.num_elements();
        picked(request, n, n)
    });
    kernel.types("T", SIZED)
}

/// `MatrixDiag`
pub(super) fn matrix_diag() -> KernelDefinition {
    let kernel = KernelDefinition::cuda(|request| {
        let (rows, columns) = sides(request.output_shape(0)?);
        kernel(request, "spread", [rows, columns], &[0])
    });
    kernel.types("T", SIZED)
}

/// `MatrixDiagPart`
pub(super) fn matrix_diag_part() -> KernelDefinition {
    let kernel = KernelDefinition::cuda(|request| {
        let (rows, columns) = sides(request.input_shape(0));
        picked(request, rows, columns)
    });
    kernel.types("T", SIZED)
}

/// `MatrixSetDiag`
pub(super) fn set_diag() -> KernelDefinition {
    let kernel = KernelDefinition::cuda(|request| {
        let (rows, columns) = sides(request.input_shape(0));
        kernel(request, "replace", [rows, columns], &[0, 1])
    });
    kernel.types("T", SIZED)
}

/// `MatrixBandPart`
pub(super) fn band() -> KernelDefinition {
    let kernel = KernelDefinition::cuda(|request| {
        let (rows, columns) = sides(request.input_shape(0));
        kernel(request, "band", [rows, columns], &[0, 1, 2])
    });
    kernel.types("T", SIZED)
}

/// A kernel over matrices of this many rows and columns.
fn kernel(
    request: &KernelRequest<'_>,
    name: &str,
    [rows, columns]: [usize; 2],
    inputs: &'static [usize],
) -> Result<Planned> {
    const SOURCE: Source = source!("diagonal.cu");
    let (_, word) = word_of(request.input_dtype(0))?;
    let n = request.output_shape(0)?.num_elements();
    let bounds = if name == "band" {
        type_name(request.input_dtype(1))?
    } else {
        "i32"
    };
    let defines = [("W", word), ("I", bounds)];
    Ok(Launch::new(request, &SOURCE, name, &defines, Work::Elements(n), &[n, rows, columns])?.over(inputs))
}

/// The diagonals of matrices of so many rows and columns.
fn picked(request: &KernelRequest<'_>, rows: usize, columns: usize) -> Result<Planned> {
    let n = rows.min(columns);
    let batch = request.output_shape(0)?.num_elements().checked_div(n).unwrap_or(0);
    let axes = [
        CopyAxis {
            len: batch,
            from: (rows * columns) as isize,
            to: n as isize,
        },
        CopyAxis {
            len: n,
            from: columns as isize + 1,
            to: 1,
        },
    ];
    copy(request, 0, 0, &axes)
}
