//! Axes and other small integers that ops take as inputs.

use graph_core::op::{InferenceContext, KernelRequest};
use graph_core::{Dim, Error, PartialShape, Result};

/// An axis that may be counted from the end, as an index.
///
/// # Errors
/// `InvalidArgument` if there is no such axis.
pub(crate) fn axis_of(axis: i64, rank: usize) -> Result<usize> {
    let from_start = if axis < 0 { axis + rank as i64 } else { axis };
    if (0..rank as i64).contains(&from_start) {
        return Ok(from_start as usize);
    }
    Err(Error::invalid_argument("there is no such axis")
        .expected(format!("an axis in the range [-{rank}, {rank})"))
        .got(axis))
}

/// The value of a scalar integer input while shapes are inferred, if it is known; a vector of one element is let pass.
///
/// # Errors
/// `InvalidArgument` if it is no scalar.
pub(crate) fn known_scalar(context: &InferenceContext<'_>, index: usize) -> Result<Option<i64>> {
    context.with_rank_at_most(index, 1)?;
    match context.int_values(index)?.as_deref() {
        None => Ok(None),
        Some(&[scalar]) => Ok(Some(scalar)),
        Some(_) => Err(not_a_scalar(&context.input_name(index))),
    }
}

/// The value of a scalar integer input that is known when the plan is made.
///
/// # Errors
/// `InvalidArgument` if it is no scalar.
pub(crate) fn planned_scalar(request: &KernelRequest<'_>, index: usize) -> Result<i64> {
    match request.value(index)?.to_i64_vec()?.as_slice() {
        &[scalar] => Ok(scalar),
        _ => Err(not_a_scalar(&format!("input {index}"))),
    }
}

fn not_a_scalar(name: &str) -> Error {
    Error::invalid_argument(format!("{name} must be a scalar"))
}

/// The values of an integer input that is known when the plan is made.
///
/// # Errors
/// `InvalidArgument` if it is not an integer tensor.
pub(crate) fn planned_ints(request: &KernelRequest<'_>, index: usize) -> Result<Vec<i64>> {
    request.value(index)?.to_i64_vec()
}

/// A shape with one dimension replaced.
pub(crate) fn with_dim(shape: &PartialShape, axis: usize, dim: Dim) -> PartialShape {
    match shape.dims() {
        Some(dims) => PartialShape::from_dims(
            dims.iter()
                .enumerate()
                .map(|(at, &old)| if at == axis { dim } else { old }),
        ),
        None => PartialShape::unknown(),
    }
}

/// A dimension of a shape given as a number, where -1 stands for an unknown one.
///
/// # Errors
/// `InvalidArgument` for other negative numbers.
pub(crate) fn dimension(value: i64) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::invalid_argument("a dimension must not be negative").got(value))
}

/// The lengths of the parts of a row-major array before, at and behind an axis.
pub(crate) fn around(shape: &[usize], axis: usize) -> [usize; 3] {
    [
        shape[..axis].iter().product(),
        shape[axis],
        shape[axis + 1..].iter().product(),
    ]
}
