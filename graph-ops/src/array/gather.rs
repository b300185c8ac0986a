//! `Gather` and `GatherV2`: slices picked by their numbers.

use graph_core::gradients::GradientContext;
use graph_core::graph::scope::colocate_with;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, PartialShape, Result, Value, typed_builder};
use graph_cuda::{Cuda, Source, arguments, source};

use crate::array::axis::{axis_of, known_scalar, planned_scalar};
use crate::array::moving::{Movement, Word, plan};
use crate::array::shape_of::{shape_of, size_of};
use crate::cuda::copy::longest_word;
use crate::cuda::{SIZED, type_name, word_of};

/// The kernels that pick parts of a tensor.
pub(crate) const SOURCE: Source = source!("gather.cu");

/// `Gather`
pub(crate) fn gather_definition() -> OpDefinition {
    OpDefinition::new("Gather", "Slices along the first dimension, picked by their numbers.")
        .input("params: Tparams")
        .input("indices: Tindices")
        .output("output: Tparams")
        .attr("validate_indices: bool = true")
        .attr("Tparams: type")
        .attr("Tindices: {int32, int64}")
        .may_fail()
        .shape(|context| shape(context, Some(0), 0))
        .gradient(gradient)
        .kernel(KernelDefinition::cpu(|request| kernel(request, 0, 0)))
        .kernel(KernelDefinition::cuda(|request| on_device(request, 0, 0)).types("Tparams", SIZED))
}

/// `GatherV2`
pub(crate) fn gather_v2_definition() -> OpDefinition {
    OpDefinition::new(
        "GatherV2",
        "Slices along an axis, picked by their numbers; the first `batch_dims` dimensions are paired.",
    )
    .input("params: Tparams")
    .input("indices: Tindices")
    .input("axis: Taxis")
    .output("output: Tparams")
    .attr("batch_dims: int = 0")
    .attr("Tparams: type")
    .attr("Tindices: {int32, int64}")
    .attr("Taxis: {int32, int64}")
    .may_fail()
    .plan_time_inputs(&[2])
    .shape(|context| {
        let axis = known_scalar(context, 2)?;
        shape(context, axis, context.attr("batch_dims")?)
    })
    .gradient(gradient)
    .kernel(KernelDefinition::cpu(|request| {
        kernel(request, planned_scalar(request, 2)?, request.attr("batch_dims")?)
    }))
    .kernel(
        KernelDefinition::cuda(|request| on_device(request, planned_scalar(request, 2)?, request.attr("batch_dims")?))
            .types("Tparams", SIZED),
    )
}

/// The shape is that of `params` with the axis replaced by the shape of `indices` behind the batch.
fn shape(context: &mut InferenceContext<'_>, axis: Option<i64>, batch_dims: i64) -> Result<()> {
    let (params, indices) = (context.with_rank_at_least(0, 1)?, context.input(1).clone());
    let (Some(params), Some(indices)) = (params.dims(), indices.dims()) else {
        return Ok(());
    };
    let batch = batch_of(batch_dims, indices.len())?;
    let Some(axis) = axis else {
        context.set_output(
            0,
            PartialShape::unknown_of_rank(params.len() + indices.len() - 1 - batch),
        );
        return Ok(());
    };
    let axis = axis_of(axis, params.len())?;
    if batch > axis {
        return Err(Error::invalid_argument("the axis lies inside the batch")
            .expected(format!("an axis of at least {batch}"))
            .got(axis));
    }
    let mut dims = Vec::with_capacity(params.len() + indices.len());
    for at in 0..batch {
        dims.push(context.merge_dims(params[at], indices[at], "the batch dimensions of params and indices")?);
    }
    dims.extend_from_slice(&params[batch..axis]);
    dims.extend_from_slice(&indices[batch..]);
    dims.extend_from_slice(&params[axis + 1..]);
    context.set_output(0, PartialShape::from(dims));
    Ok(())
}

/// The number of batch dimensions, which may be counted from the end of the indices.
fn batch_of(batch_dims: i64, rank: usize) -> Result<usize> {
    let from_start = if batch_dims < 0 {
        batch_dims + rank as i64
    } else {
        batch_dims
    };
    usize::try_from(from_start)
        .ok()
        .filter(|&batch| batch <= rank)
        .ok_or_else(|| Error::invalid_argument("there are not so many batch dimensions").got(batch_dims))
}

/// The picked slices' gradients added up where they came from. TensorFlow leaves the sum to whoever needs it (its
/// `IndexedSlices`); here the dense sum is made at once, in the way it then makes it.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (params, indices, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let inputs = context.op().inputs().len();
    let axis = match inputs {
        3 => context
            .input(2)
            .constant_value()
            .map(|axis| axis.to_i64_vec())
            .transpose()?
            .and_then(|axis| axis.first().copied()),
        _ => Some(0),
    };
    let batch: i64 = if inputs == 3 { context.attr("batch_dims")? } else { 0 };
    let rank = params.shape().rank();
    let axis = match (axis, rank) {
        (Some(axis), Some(rank)) => Some(axis_of(axis, rank)?),
        (Some(axis), None) => usize::try_from(axis).ok(),
        _ => None,
    };
    let params_shape = {
        let _with = colocate_with(&params.op());
        shape_of(&params, "Shape")?
    };
    let sum = match (axis, batch) {
        (Some(0), 0) => {
            let sum = add_up_rows(context, &params_shape, &indices, &gradient)?;
            sum.set_shape(params.shape())?;
            sum
        }
        (Some(axis), batch) if rank.is_some() => {
            let batch = match (batch, indices.shape().rank()) {
                (0, _) => 0,
                (batch, Some(rank)) => batch_of(batch, rank)?,
                (batch, None) => usize::try_from(batch).map_err(|_| unknown_axis())?,
            };
            inner_axis(
                context,
                &params_shape,
                (rank.unwrap_or(0), axis, batch),
                &indices,
                &gradient,
            )?
        }
        _ => return Err(unknown_axis()),
    };
    let mut gradients = vec![None; inputs];
    gradients[0] = Some(sum);
    Ok(gradients)
}

fn unknown_axis() -> Error {
    Error::unimplemented("the gradient of a gather needs a constant axis and params of known rank")
}

/// Adds up the gradients of rows where they came from, among rows of zeros that make up `params_shape`.
pub(crate) fn add_up_rows(
    context: &GradientContext<'_>,
    params_shape: &Tensor,
    indices: &Tensor,
    gradient: &Tensor,
) -> Result<Tensor> {
    let size = size_of(indices, "Size")?;
    let size = context.node("ExpandDims").input(size).input(0i32).build()?;
    let tail = part(context, params_shape, 1, None, "strided_slice")?;
    let shape = context
        .node("ConcatV2")
        .input([&size, &tail])
        .input(0i32)
        .name("concat")
        .build()?;
    let values = context.node("Reshape").input(gradient).input(shape).build()?;
    let indices = context
        .node("Reshape")
        .input(indices)
        .input(size)
        .name("Reshape_1")
        .build()?;
    let rows = element(context, params_shape, 0, "strided_slice_1")?;
    let sum = context
        .node("UnsortedSegmentSum")
        .input(values)
        .input(indices)
        .input(rows);
    sum.build()
}

/// Elements `begin..end` of a vector.
fn part(context: &GradientContext<'_>, vector: &Tensor, begin: i32, end: Option<i32>, name: &str) -> Result<Tensor> {
    let slice = context
        .node("StridedSlice")
        .input(vector)
        .input([begin])
        .input([end.unwrap_or(0)])
        .input([1i32]);
    slice.attr("end_mask", i64::from(end.is_none())).name(name).build()
}

/// One element of a vector, as a scalar.
fn element(context: &GradientContext<'_>, vector: &Tensor, at: i32, name: &str) -> Result<Tensor> {
    let slice = context
        .node("StridedSlice")
        .input(vector)
        .input([at])
        .input([at + 1])
        .input([1i32]);
    slice.attr("shrink_axis_mask", 1i64).name(name).build()
}

/// Moves the axis to the front, flattens batches into it, adds up, and moves it back.
fn inner_axis(
    context: &GradientContext<'_>,
    params_shape: &Tensor,
    (rank, axis, batch): (usize, usize, usize),
    indices: &Tensor,
    gradient: &Tensor,
) -> Result<Tensor> {
    let outer = part(context, params_shape, 0, Some(axis as i32), "strided_slice")?;
    let inner = part(context, params_shape, axis as i32 + 1, None, "strided_slice_1")?;
    let left = context.constant([-1i32], "Const")?;
    let shape = context
        .node("ConcatV2")
        .input([&outer, &left, &inner])
        .input(0i32)
        .name("concat")
        .build()?;
    // Batches of indices are dimensions of their own in front, so that the -1 stands for the others.
    let values = context.node("Reshape").input(gradient).input(shape).build()?;
    let there = (0..batch)
        .chain([axis])
        .chain(batch..axis)
        .chain(axis + 1..rank)
        .map(|axis| axis as i32);
    let back = (0..batch)
        .chain(batch + 1..=axis)
        .chain([batch])
        .chain(axis + 1..rank)
        .map(|axis| axis as i32);
    let there = context.constant(Value::int32_vector(there), "Const_1")?;
    let back = context.constant(Value::int32_vector(back), "Const_2")?;
    let values = context
        .node("Transpose")
        .input(values)
        .input(&there)
        .name("transpose")
        .build()?;
    let moved_shape = context
        .node("GatherV2")
        .input(params_shape)
        .input(&there)
        .input(0i32)
        .build()?;
    let sum = match batch {
        0 => {
            let indices = context
                .node("Reshape")
                .input(indices)
                .input([-1i32])
                .name("Reshape_1")
                .build()?;
            let rows = element(context, params_shape, axis as i32, "strided_slice_2")?;
            context
                .node("UnsortedSegmentSum")
                .input(values)
                .input(indices)
                .input(rows)
                .build()?
        }
        _ => batch_sum(context, &moved_shape, batch, indices, &values)?,
    };
    let sum = context
        .node("Reshape")
        .input(sum)
        .input(moved_shape)
        .name("Reshape_2")
        .build()?;
    let sum = context
        .node("Transpose")
        .input(sum)
        .input(back)
        .name("transpose_1")
        .build()?;
    sum.set_shape(context.input(0).shape())?;
    Ok(sum)
}

/// Flattens the batch dimensions: index i of batch b becomes b * rows + i.
fn batch_sum(
    context: &GradientContext<'_>,
    shape: &Tensor,
    batch: usize,
    indices: &Tensor,
    values: &Tensor,
) -> Result<Tensor> {
    let batch_shape = part(context, shape, 0, Some(batch as i32), "strided_slice_3")?;
    let batches = context.node("Prod").input(&batch_shape).input([0i32]).build()?;
    let rows = element(context, shape, batch as i32, "strided_slice_4")?;
    let segments = context.node("Mul").input(&batches).input(&rows).name("mul").build()?;
    let starts = context
        .node("Range")
        .input(0i32)
        .input(&segments)
        .input(&rows)
        .name("range")
        .build()?;
    let starts = match indices.dtype() {
        DType::Int32 => starts,
        other => context
            .node("Cast")
            .input(starts)
            .attr("SrcT", DType::Int32)
            .attr("DstT", other)
            .build()?,
    };
    let starts = context
        .node("Reshape")
        .input(starts)
        .input([-1i32, 1])
        .name("Reshape_3")
        .build()?;
    let column = context
        .node("Pack")
        .input([batches.into_operand(), (-1i32).into_operand()].to_vec())
        .name("stack")
        .build()?;
    let by_batch = context
        .node("Reshape")
        .input(indices)
        .input(column)
        .name("Reshape_4")
        .build()?;
    let flat = context.node("Add").input(by_batch).input(starts).name("add").build()?;
    let flat = context
        .node("Reshape")
        .input(flat)
        .input([-1i32])
        .name("Reshape_5")
        .build()?;
    let inner = part(context, shape, batch as i32 + 1, None, "strided_slice_5")?;
    let left = context.constant([-1i32], "Const_3")?;
    let rows_shape = context
        .node("ConcatV2")
        .input([&left, &inner])
        .input(0i32)
        .name("concat_1")
        .build()?;
    let values = context
        .node("Reshape")
        .input(values)
        .input(rows_shape)
        .name("Reshape_6")
        .build()?;
    context
        .node("UnsortedSegmentSum")
        .input(values)
        .input(flat)
        .input(segments)
        .build()
}

struct Pick {
    batches: usize,
    /// Outside of the axis, along it, and inside, of one batch of params.
    params: [usize; 3],
    indices: usize,
    index_type: DType,
}

impl Movement for Pick {
    fn run<T: Word>(&self, context: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        match self.index_type {
            DType::Int32 => self.pick(context.input::<i32>(1)?, inputs[0], outputs[0]),
            _ => self.pick(context.input::<i64>(1)?, inputs[0], outputs[0]),
        }
    }
}

impl Pick {
    fn pick<T: Word, I: Copy + Sync + TryInto<usize> + std::fmt::Display>(
        &self,
        indices: &[I],
        params: &[T],
        output: &mut [T],
    ) -> Result<()> {
        let [outer, len, inner] = self.params;
        let (from, to) = (outer * len * inner, outer * self.indices * inner);
        for batch in 0..self.batches {
            let indices = &indices[batch * self.indices..(batch + 1) * self.indices];
            let params = &params[batch * from..(batch + 1) * from];
            let output = &mut output[batch * to..(batch + 1) * to];
            crate::cpu::copy::gather(params, self.params, indices, output).map_err(|bad| {
                Error::invalid_argument(format!(
                    "indices[{}] is outside of the axis",
                    batch * self.indices + bad
                ))
                .expected(format!("an index in the range [0, {len})"))
                .got(indices[bad])
            })?;
        }
        Ok(())
    }
}

fn kernel(request: &KernelRequest<'_>, axis: i64, batch_dims: i64) -> Result<Planned> {
    let pick = Pick::new(request, axis, batch_dims)?;
    plan(request, [0], pick)
}

/// Bytes that are moved where indices (input 1) pick parts of a tensor: the indices, and each part twice.
pub(crate) fn picked_bytes(request: &KernelRequest<'_>) -> usize {
    let indices = request.input_shape(1).num_elements() * request.input_dtype(1).size().unwrap_or(0);
    indices + 2 * request.output_bytes()
}

/// On a device, where an index outside of the axis picks zeros.
fn on_device(request: &KernelRequest<'_>, axis: i64, batch_dims: i64) -> Result<Planned> {
    let pick = Pick::new(request, axis, batch_dims)?;
    let [outer, rows, inner] = pick.params;
    let (bytes, _) = word_of(request.input_dtype(0))?;
    let (longest, word) = longest_word(bytes, inner)?;
    let inner = inner * bytes / longest;
    let n = pick.batches * outer * pick.indices * inner;
    let defines = [("W", word), ("I", type_name(pick.index_type)?)];
    let function = Cuda::of(request)?.function(&SOURCE, "gather", &defines)?;
    let function = function.moving(picked_bytes(request));
    Ok(Planned::new(move |context| {
        let (params, indices) = (context.input_address(0), context.input_address(1));
        let output = context.output_address(0);
        let (outer, rows, count, inner) = (outer as i64, rows as i64, pick.indices as i64, inner as i64);
        // SAFETY: these are the kernel's parameters, which say how many words each tensor has.
        unsafe {
            function.launch_over(
                n,
                arguments![output, params, indices, n as i64, outer, rows, count, inner],
            )
        }
    }))
}

impl Pick {
    fn new(request: &KernelRequest<'_>, axis: i64, batch_dims: i64) -> Result<Self> {
        let (params, indices) = (request.input_shape(0), request.input_shape(1));
        let axis = axis_of(axis, params.rank())?;
        let batch = batch_of(batch_dims, indices.rank())?;
        Ok(Self {
            batches: params[..batch].iter().product(),
            params: [
                params[batch..axis].iter().product(),
                params[axis],
                params[axis + 1..].iter().product(),
            ],
            indices: indices[batch..].iter().product(),
            index_type: request.input_dtype(1),
        })
    }
}

typed_builder! {
    /// Slices picked by their numbers, about to be made; see [`gather`].
    pub struct Gather;
}

impl Gather {
    /// Pairs the first `dims` dimensions of params and indices instead of combining them.
    pub fn batch_dims(self, dims: i64) -> Self {
        Self(self.0.attr("batch_dims", dims))
    }
}

/// The slices of `params` along dimension `axis` whose numbers are `indices`, an integer tensor of any shape, which takes
/// the place of the dimension.
///
/// The gradient is dense: the slices' gradients are added up by `UnsortedSegmentSum`.
///
/// ```
/// use graph_ops::array::{constant, gather};
/// let rows = constant([[1, 2], [3, 4], [5, 6]]).build()?;
/// assert_eq!(gather(&rows, [2, 0, 2, 1], 0).build()?.shape(), [4, 2].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` in the run for an index outside of the dimension.
#[track_caller]
pub fn gather(params: impl IntoOperand, indices: impl IntoOperand, axis: impl IntoOperand) -> Gather {
    Gather(crate::op("GatherV2").input(params).input(indices).input(axis))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let rows = [[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let words = |words: &[&str]| {
        Value::from_strings(
            [words.len()],
            words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        )
        .unwrap()
    };
    vec![
        Case::new("GatherV2")
            .input(rows)
            .input([1i32, 0, 1])
            .input(0i32)
            .expect([rows[1], rows[0], rows[1]]),
        Case::new("GatherV2")
            .input(rows)
            .input([2i64, 0])
            .input(-1i64)
            .expect([[3.0f32, 1.0], [6.0, 4.0]]),
        Case::new("GatherV2")
            .input(rows)
            .input(1i32)
            .input(1i32)
            .expect([2.0f32, 5.0]),
        Case::new("GatherV2")
            .attr("batch_dims", 1i64)
            .input(rows)
            .input([[2i32, 0], [1, 1]])
            .input(1i32)
            .expect([[3.0f32, 1.0], [5.0, 5.0]]),
        Case::new("Gather").input(rows).input([1i64, 0, 1]).expect([
            [4.0f32, 5.0, 6.0],
            [1.0, 2.0, 3.0],
            [4.0, 5.0, 6.0],
        ]),
        Case::new("Gather")
            .input([true, false])
            .input([[1i32, 0]])
            .expect([[false, true]]),
        Case::new("Gather")
            .input(words(&["a", "b"]))
            .input([1i32, 1, 0])
            .expect(words(&["b", "b", "a"])),
        Case::new("Gather")
            .input(Vec::<u16>::new())
            .input(Vec::<i64>::new())
            .expect(Vec::<u16>::new()),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let rows = [[1.0f64, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let gather = || GradientCase::new("GatherV2").input(rows);
    vec![
        GradientCase::new("Gather").input(rows).input([1i32, 1, 0]),
        gather().input([[1i32, 1], [0, 1]]).input(0i32),
        gather().input([2i64, 2]).input(1i32),
        gather().input([[2i32, 2], [0, 1]]).input(1i32).attr("batch_dims", 1i64),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn indices_lie_inside() {
        for bad in [-1i32, 3] {
            let error = Case::new("Gather")
                .input([1u8, 2, 3])
                .input([0i32, bad])
                .run()
                .unwrap_err();
            assert_eq!(error.class(), "InvalidArgument");
            assert!(error.to_string().contains("indices[1]"), "{error}");
        }
    }
}
