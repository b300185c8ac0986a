//! What ops on batches of matrices share: shapes, dtypes, and loops over the matrices.

use std::sync::{Mutex, PoisonError};

use graph_core::op::InferenceContext;
use graph_core::{Dim, Error, PartialShape, Result, Shape};

use crate::cpu::parallel::{SharedMut, for_each_range, grain_for};

/// The dtypes of most of these ops. Half precision is part of the signature, but nothing computes in it.
pub(super) const TYPES: &str = "T: {double, float, half, complex64, complex128}";

/// A kernel for each dtype that matrices are computed in.
macro_rules! kernels {
    ($definition:expr, $kernel:ident) => {
        $definition
            .kernel(graph_core::op::KernelDefinition::cpu($kernel::<f32>).types("T", &[graph_core::DType::Float32]))
            .kernel(graph_core::op::KernelDefinition::cpu($kernel::<f64>).types("T", &[graph_core::DType::Float64]))
            .kernel(
                graph_core::op::KernelDefinition::cpu($kernel::<graph_core::Complex<f32>>)
                    .types("T", &[graph_core::DType::Complex64]),
            )
            .kernel(
                graph_core::op::KernelDefinition::cpu($kernel::<graph_core::Complex<f64>>)
                    .types("T", &[graph_core::DType::Complex128]),
            )
    };
}
pub(super) use kernels;

/// Batch axes, rows and columns.
pub(super) struct MatrixShape {
    pub(super) batch: PartialShape,
    pub(super) rows: Dim,
    pub(super) columns: Dim,
}

impl MatrixShape {
    /// Of input `index`, which has at least two axes.
    pub(super) fn of(context: &InferenceContext<'_>, index: usize) -> Result<Self> {
        let shape = context.with_rank_at_least(index, 2)?;
        Ok(match shape.dims() {
            Some(dims) => {
                let (batch, matrix) = dims.split_at(dims.len() - 2);
                Self {
                    batch: PartialShape::from_dims(batch.iter().copied()),
                    rows: matrix[0],
                    columns: matrix[1],
                }
            }
            None => Self {
                batch: PartialShape::unknown(),
                rows: None,
                columns: None,
            },
        })
    }

    /// Of input `index`, whose matrices are square.
    pub(super) fn square(context: &InferenceContext<'_>, index: usize) -> Result<Self> {
        let shape = Self::of(context, index)?;
        let side = context.merge_dims(shape.rows, shape.columns, "rows and columns of a square matrix")?;
        Ok(Self {
            rows: side,
            columns: side,
            ..shape
        })
    }

    /// The batch axes followed by others.
    pub(super) fn with(&self, dims: &[Dim]) -> PartialShape {
        self.batch.concatenate(&PartialShape::from_dims(dims.iter().copied()))
    }

    /// The lesser of rows and columns.
    pub(super) fn least(&self) -> Dim {
        match (self.rows, self.columns) {
            (Some(0), _) | (_, Some(0)) => Some(0),
            (Some(rows), Some(columns)) => Some(rows.min(columns)),
            _ => None,
        }
    }
}

/// The number of matrices in a shape, their rows and their columns.
pub(super) fn sizes(shape: &Shape) -> Result<(usize, usize, usize)> {
    match shape.dims() {
        [batch @ .., rows, columns] => Ok((batch.iter().product(), *rows, *columns)),
        _ => Err(Error::invalid_argument("a matrix has at least two axes").got(format!("shape {shape}"))),
    }
}

/// The number of square matrices in a shape, and their side.
pub(super) fn square_sizes(shape: &Shape) -> Result<(usize, usize)> {
    let (count, rows, columns) = sizes(shape)?;
    if rows != columns {
        return Err(Error::invalid_argument("the matrix must be square").got(format!("shape {shape}")));
    }
    Ok((count, rows))
}

/// A tensor cut into parts of equal length, for tasks that write one each.
#[derive(Clone, Copy)]
pub(super) struct Parts<T> {
    elements: SharedMut<T>,
    len: usize,
}

impl<T> Parts<T> {
    /// Parts of `len` elements.
    pub(super) fn of(elements: &mut [T], len: usize) -> Self {
        Self {
            elements: SharedMut::new(elements),
            len,
        }
    }

    /// Part `index`.
    ///
    /// # Safety
    /// The tensor has that part, is borrowed while the result lives, and nothing else uses the part meanwhile.
    pub(super) unsafe fn part<'a>(self, index: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { self.elements.slice(index * self.len..(index + 1) * self.len) }
    }
}

/// Calls `f` with each number below `count`, in parallel where the `cost` of one suggests it. Of several errors the first one
/// counts.
pub(super) fn for_each_matrix(count: usize, cost: usize, f: impl Fn(usize) -> Result<()> + Sync + Send) -> Result<()> {
    let failure: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    for_each_range(count, grain_for(cost), |range| {
        for index in range {
            let Err(error) = f(index) else { continue };
            let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
            if failure.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                *failure = Some((index, error));
            }
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Part `index` of a tensor in parts of `len` elements.
pub(super) fn part<T>(elements: &[T], len: usize, index: usize) -> &[T] {
    &elements[index * len..(index + 1) * len]
}
