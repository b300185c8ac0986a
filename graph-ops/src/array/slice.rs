//! `Slice`: a block of a tensor.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition};
use graph_core::{Dim, Error, PartialShape, Result};

use crate::array::axis::planned_ints;
use crate::array::moving::{Movement, Word, plan};
use crate::array::shape::shape_of_type;
use crate::array::shape_of::rank_of;
use crate::cpu::copy::strided_slice;
use crate::cuda::SIZED;
use crate::cuda::copy::{copy, sliced};

/// The op's definition.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "Slice",
        "The block of a tensor that begins at `begin` and has size `size`; -1 is all that is left.",
    )
    .input("input: T")
    .input("begin: Index")
    .input("size: Index")
    .output("output: T")
    .attr("T: type")
    .attr("Index: {int32, int64}")
    .plan_time_inputs(&[1, 2])
    .shape(shape)
    .gradient(gradient)
    .kernel(KernelDefinition::cpu(|request| {
        plan(request, [0], Block::new(request)?)
    }))
    .kernel(
        KernelDefinition::cuda(|request| {
            let Block { shape, begin, size } = Block::new(request)?;
            let (from, axes) = sliced(&shape, &begin, &vec![1; shape.len()], &size);
            copy(request, 0, from, &axes)
        })
        .types("T", SIZED),
    )
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (begin, size) = (context.with_rank(1, 1)?, context.with_rank(2, 1)?);
    let rank = begin.merge(&size)?.dim(0);
    let input = match rank {
        Some(rank) => context.with_rank(0, rank)?,
        None => context.input(0).clone(),
    };
    let begin = context.shape_from_input(1)?;
    let Some(sizes) = context.int_values(2)? else {
        let size = context.shape_from_input(2)?;
        let rank = size.rank().or(input.rank());
        context.set_output(
            0,
            match (size.rank(), rank) {
                (Some(_), _) => size,
                (None, Some(rank)) => PartialShape::unknown_of_rank(rank),
                _ => PartialShape::unknown(),
            },
        );
        return Ok(());
    };
    let dims = sizes.iter().enumerate().map(|(axis, &size)| match size {
        -1 => rest(input.dim(axis), begin.dim(axis)),
        _ => usize::try_from(size)
            .map(Some)
            .map_err(|_| Error::invalid_argument(format!("the size of dimension {axis} must be -1 or more")).got(size)),
    });
    let dims = dims.collect::<Result<Vec<Dim>>>()?;
    context.set_output(0, PartialShape::from(dims));
    Ok(())
}

/// What is left of a dimension behind `begin`.
fn rest(dim: Dim, begin: Dim) -> Result<Dim> {
    let (Some(dim), Some(begin)) = (dim, begin) else {
        return Ok(None);
    };
    match dim.checked_sub(begin) {
        Some(rest) => Ok(Some(rest)),
        None => Err(outside(begin as i64, dim)),
    }
}

fn outside(begin: i64, dim: usize) -> Error {
    Error::invalid_argument("the slice begins outside of the tensor")
        .expected(format!("a number from 0 to {dim}"))
        .got(begin)
}

/// Zeros around the gradient.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (input, begin, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let index = begin.dtype();
    let rank = rank_of(&input, "Rank")?;
    let size = shape_of_type(&context.output(0), index, "Shape")?;
    let shape = graph_core::graph::Operand::List(vec![rank.into_operand(), 1i32.into_operand()]);
    let shape = shape.to_tensor(context.op().graph(), "stack", None)?;
    let before = context.node("Reshape").input(&begin).input(&shape).build()?;
    let whole = shape_of_type(&input, index, "Shape_1")?;
    let after = context.node("Sub").input(whole).input(size).name("sub").build()?;
    let after = context.node("Sub").input(after).input(&begin).name("sub_1").build()?;
    let after = context
        .node("Reshape")
        .input(after)
        .input(&shape)
        .name("Reshape_1")
        .build()?;
    let paddings = context
        .node("ConcatV2")
        .input([before, after])
        .input(1i32)
        .name("concat")
        .build()?;
    let gradient = context.node("Pad").input(gradient).input(paddings).build()?;
    Ok(vec![Some(gradient), None, None])
}

struct Block {
    shape: Vec<usize>,
    begin: Vec<usize>,
    size: Vec<usize>,
}

impl Movement for Block {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let steps = vec![1; self.shape.len()];
        strided_slice(inputs[0], &self.shape, &self.begin, &steps, outputs[0], &self.size);
        Ok(())
    }
}

impl Block {
    fn new(request: &KernelRequest<'_>) -> Result<Self> {
        let shape = request.input_shape(0).to_vec();
        let (begins, sizes) = (planned_ints(request, 1)?, planned_ints(request, 2)?);
        let (mut begin, mut size) = (Vec::new(), Vec::new());
        for (axis, &dim) in shape.iter().enumerate() {
            let start = usize::try_from(begins[axis]).ok().filter(|&start| start <= dim);
            let start = start.ok_or_else(|| outside(begins[axis], dim))?;
            let len = if sizes[axis] == -1 {
                (dim - start) as i64
            } else {
                sizes[axis]
            };
            let len = usize::try_from(len)
                .ok()
                .filter(|&len| len <= dim - start)
                .ok_or_else(|| {
                    Error::invalid_argument(format!("the slice ends outside of dimension {axis}"))
                        .expected(format!("a size of at most {}", dim - start))
                        .got(len)
                })?;
            begin.push(start);
            size.push(len);
        }
        Ok(Self { shape, begin, size })
    }
}

/// The block of `input` that begins at `begin` and has size `size`; a size of -1 is all that is left of the dimension.
///
/// ```
/// use graph_ops::array::{constant, slice};
/// let rows = constant([[1, 2, 3], [4, 5, 6]]).build()?;
/// assert_eq!(slice(&rows, [0, 1], [-1, 2]).build()?.shape(), [2, 2].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument`, on `build` or in the run, if the block does not lie in the tensor.
#[track_caller]
pub fn slice(input: impl IntoOperand, begin: impl IntoOperand, size: impl IntoOperand) -> OpBuilder {
    crate::op("Slice").input(input).input(begin).input(size)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{DType, Value};
    let rows = [[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let words = Value::from_strings([3], vec![b"a".to_vec(), b"bc".to_vec(), b"d".to_vec()]).unwrap();
    vec![
        Case::new("Slice")
            .input(rows)
            .input([0i32, 1])
            .input([-1i32, 2])
            .expect([[2.0f32, 3.0], [5.0, 6.0]]),
        Case::new("Slice")
            .input([1i64, 2, 3])
            .input([3i64])
            .input([-1i64])
            .expect(Vec::<i64>::new()),
        Case::new("Slice")
            .input(true)
            .input(Vec::<i32>::new())
            .input(Vec::<i32>::new())
            .expect(true),
        Case::new("Slice")
            .input(&words)
            .input([1i32])
            .input([1i32])
            .expect(Value::from_strings([1], vec![b"bc".to_vec()]).unwrap()),
        Case::new("Slice")
            .input(Value::zeros(DType::Half, [0, 2]).unwrap())
            .input([0i32, 1])
            .input([0i32, 1])
            .expect(Value::zeros(DType::Half, [0, 1]).unwrap()),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    vec![
        crate::testing::GradientCase::new("Slice")
            .input([[1.0f64, 2.0, 3.0], [4.0, 5.0, 6.0]])
            .input([0i32, 1])
            .input([1i32, -1]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn a_slice_lies_inside() {
        let slice = |begin: i32, size: i32| Case::new("Slice").input([1u8, 2, 3]).input([begin]).input([size]).run();
        for (begin, size) in [(-1, 1), (4, -1), (4, 0), (2, 2), (0, -2)] {
            assert_eq!(
                slice(begin, size).unwrap_err().class(),
                "InvalidArgument",
                "{begin} {size}"
            );
        }
        assert!(slice(3, 0).is_ok());
    }
}
