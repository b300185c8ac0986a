//! `Reverse`, `ReverseV2`, `ReverseSequence` and `Roll`: elements in another order along dimensions.

use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, Result, typed_builder};
use graph_cuda::{Source, source};

use crate::array::axis::{axis_of, planned_ints};
use crate::array::moving::{Movement, Word, plan};
use crate::array::tables::Tables;
use crate::cpu::copy::CopyAxis;
use crate::cuda::copy::{Transfer, copies, copy, sliced};
use crate::cuda::launch::{Launch, Work};
use crate::cuda::{SIZED, type_name, word_of};

/// `Reverse`
pub(crate) fn reverse_definition() -> OpDefinition {
    OpDefinition::new("Reverse", "A tensor turned round along each dimension that is marked.")
        .input("tensor: T")
        .input("dims: bool")
        .output("output: T")
        .attr("T: {uint8, int8, uint16, int16, int32, int64, bool, half, float, double, complex64, complex128, string}")
        .plan_time_inputs(&[1])
        .shape(|context| {
            let marks = context.with_rank(1, 1)?;
            context.merge_dims(
                context.input(0).rank(),
                marks.dim(0),
                "the tensor's rank and the number of marks",
            )?;
            InferenceContext::unchanged(context)
        })
        .gradient(|context| {
            let reversed = context
                .node("Reverse")
                .input(context.gradient(0)?)
                .input(context.input(1))
                .build()?;
            Ok(vec![Some(reversed), None])
        })
        .kernel(KernelDefinition::cpu(|request| {
            let marks = request.value(1)?.as_slice::<bool>()?.to_vec();
            reversing(request, &marks)
        }))
        .kernel(
            KernelDefinition::cuda(|request| on_device(request, request.value(1)?.as_slice::<bool>()?))
                .types("T", SIZED),
        )
}

/// `ReverseV2`
pub(crate) fn reverse_v2_definition() -> OpDefinition {
    OpDefinition::new("ReverseV2", "A tensor turned round along the named dimensions.")
        .input("tensor: T")
        .input("axis: Tidx")
        .output("output: T")
        .attr("Tidx: {int32, int64} = DT_INT32")
        .attr("T: {uint8, int8, uint16, int16, int32, int64, bool, bfloat16, half, float, double, complex64, complex128, string}")
        .plan_time_inputs(&[1])
        .shape(|context| {
            context.with_rank(1, 1)?;
            if let (Some(axes), Some(rank)) = (context.int_values(1)?, context.input(0).rank()) {
                marked(&axes, rank)?;
            }
            InferenceContext::unchanged(context)
        })
        .gradient(|context| {
            let reversed = context.node("ReverseV2").input(context.gradient(0)?).input(context.input(1)).build()?;
            Ok(vec![Some(reversed), None])
        })
        .kernel(KernelDefinition::cpu(|request| {
            let marks = marked(&planned_ints(request, 1)?, request.input_shape(0).rank())?;
            reversing(request, &marks)
        }))
        .kernel(
            KernelDefinition::cuda(|request| {
                let marks = marked(&planned_ints(request, 1)?, request.input_shape(0).rank())?;
                on_device(request, &marks)
            })
            .types("T", SIZED),
        )
}

fn marked(axes: &[i64], rank: usize) -> Result<Vec<bool>> {
    let mut marks = vec![false; rank];
    for &axis in axes {
        let axis = axis_of(axis, rank)?;
        if std::mem::replace(&mut marks[axis], true) {
            return Err(Error::invalid_argument(format!("axis {axis} is named twice")));
        }
    }
    Ok(marks)
}

fn on_device(request: &KernelRequest<'_>, marks: &[bool]) -> Result<Planned> {
    let shape = request.input_shape(0);
    let begin: Vec<usize> = shape
        .iter()
        .zip(marks)
        .map(|(dim, &turned)| if turned { dim.saturating_sub(1) } else { 0 })
        .collect();
    let steps: Vec<isize> = marks.iter().map(|&turned| if turned { -1 } else { 1 }).collect();
    let (from, axes) = sliced(shape, &begin, &steps, shape);
    copy(request, 0, from, &axes)
}

fn reversing(request: &KernelRequest<'_>, marks: &[bool]) -> Result<Planned> {
    let shape = request.input_shape(0).to_vec();
    let places = |(dim, &turned): (usize, &bool)| (0..dim).map(move |at| if turned { dim - 1 - at } else { at });
    let tables = Tables::new(shape.clone(), shape.into_iter().zip(marks).map(places))?;
    plan(request, [0], tables)
}

/// `Roll`
pub(crate) fn roll_definition() -> OpDefinition {
    OpDefinition::new(
        "Roll",
        "A tensor with its elements moved along dimensions; what leaves at an end comes in at the other.",
    )
    .input("input: T")
    .input("shift: Tshift")
    .input("axis: Taxis")
    .output("output: T")
    .attr("T: type")
    .attr("Tshift: {int32, int64}")
    .attr("Taxis: {int32, int64}")
    .plan_time_inputs(&[1, 2])
    .shape(|context| {
        context.with_rank_at_least(0, 1)?;
        context.with_rank_at_most(1, 1)?;
        context.with_rank_at_most(2, 1)?;
        InferenceContext::unchanged(context)
    })
    .gradient(|context| {
        let back = context.node("Neg").input(context.input(1)).build()?;
        let rolled = context
            .node("Roll")
            .input(context.gradient(0)?)
            .input(back)
            .input(context.input(2))
            .build()?;
        Ok(vec![Some(rolled), None, None])
    })
    .kernel(KernelDefinition::cpu(rolling))
    .kernel(KernelDefinition::cuda(rolling_on_device).types("T", SIZED))
}

/// Along each axis, the place of the element that comes first.
fn roll_starts(request: &KernelRequest<'_>) -> Result<Vec<usize>> {
    let shape = request.input_shape(0);
    let (shifts, axes) = (planned_ints(request, 1)?, planned_ints(request, 2)?);
    if shifts.len() != axes.len() {
        return Err(Error::invalid_argument("there must be one shift for each axis")
            .expected(format!("{} shifts", axes.len()))
            .got(shifts.len()));
    }
    let mut starts = vec![0i64; shape.rank()];
    for (&shift, &axis) in shifts.iter().zip(&axes) {
        let axis = axis_of(axis, shape.rank())?;
        let dim = shape[axis].max(1) as i64;
        starts[axis] = (starts[axis] - shift.rem_euclid(dim)).rem_euclid(dim);
    }
    Ok(starts.into_iter().map(|start| start as usize).collect())
}

fn rolling(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.input_shape(0).to_vec();
    let places = |(dim, start): (usize, usize)| (0..dim).map(move |at| (at + start) % dim);
    let tables = Tables::new(shape.clone(), shape.into_iter().zip(roll_starts(request)?).map(places))?;
    plan(request, [0], tables)
}

/// Both sides of each cut change places.
fn rolling_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.input_shape(0);
    let strides = crate::cpu::copy::strides(shape);
    // Where a part begins in the input and in the output, and its sizes.
    let mut parts = vec![(0, 0, Vec::new())];
    for ((&dim, start), &stride) in shape.iter().zip(roll_starts(request)?).zip(&strides) {
        let cut = |(from, to, sizes): (usize, usize, Vec<usize>)| {
            let sides = [(start, 0, dim - start), (0, dim - start, start)];
            sides
                .into_iter()
                .filter(|side| side.2 > 0)
                .map(move |(own_from, own_to, size)| {
                    let sizes = sizes.iter().copied().chain([size]).collect();
                    (from + own_from * stride, to + own_to * stride, sizes)
                })
        };
        parts = parts.into_iter().flat_map(cut).collect();
    }
    let transfer = |(from, to, sizes): (usize, usize, Vec<usize>)| {
        let axes = sizes.iter().zip(&strides).map(|(&len, &stride)| CopyAxis {
            len,
            from: stride as isize,
            to: stride as isize,
        });
        let axes: Vec<CopyAxis> = axes.collect();
        Ok((0, 0, Transfer::new(request, request.input_dtype(0), from, to, &axes)?))
    };
    Ok(copies(parts.into_iter().map(transfer).collect::<Result<_>>()?))
}

/// `ReverseSequence`
pub(crate) fn reverse_sequence_definition() -> OpDefinition {
    OpDefinition::new(
        "ReverseSequence",
        "The first seq_lengths[i] elements along `seq_dim` turned round, for each i of `batch_dim`.",
    )
    .input("input: T")
    .input("seq_lengths: Tlen")
    .output("output: T")
    .attr("seq_dim: int")
    .attr("batch_dim: int = 0")
    .attr("T: type")
    .attr("Tlen: {int32, int64} = DT_INT64")
    .may_fail()
    .shape(sequences)
    .gradient(|context| {
        let mut node = context
            .node("ReverseSequence")
            .input(context.gradient(0)?)
            .input(context.input(1));
        for name in ["seq_dim", "batch_dim"] {
            node = node.attr(name, context.attr_value(name)?);
        }
        Ok(vec![Some(node.build()?), None])
    })
    .kernel(KernelDefinition::cpu(|request| {
        let [sequence, batch] = sequence_axes(
            request.input_shape(0).rank(),
            request.attr("seq_dim")?,
            request.attr("batch_dim")?,
        )?;
        let (shape, index_type) = (request.input_shape(0).to_vec(), request.input_dtype(1));
        plan(
            request,
            [0],
            Sequences {
                shape,
                sequence,
                batch,
                index_type,
            },
        )
    }))
    .kernel(KernelDefinition::cuda(sequences_on_device).types("T", SIZED))
}

fn sequences_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    const SOURCE: Source = source!("reverse.cu");
    let shape = request.input_shape(0);
    let [sequence, batch] = sequence_axes(shape.rank(), request.attr("seq_dim")?, request.attr("batch_dim")?)?;
    let (_, word) = word_of(request.input_dtype(0))?;
    let strides = crate::cpu::copy::strides(shape);
    let n = shape.num_elements();
    let numbers = [n, shape[sequence], strides[sequence], shape[batch], strides[batch]];
    let defines = [("W", word), ("I", type_name(request.input_dtype(1))?)];
    let launch = Launch::new(
        request,
        &SOURCE,
        "reverse_sequences",
        &defines,
        Work::Elements(n),
        &numbers,
    )?;
    Ok(launch.over(&[0, 1]))
}

fn sequence_axes(rank: usize, sequence: i64, batch: i64) -> Result<[usize; 2]> {
    let axes = [axis_of(sequence, rank)?, axis_of(batch, rank)?];
    if axes[0] == axes[1] {
        return Err(Error::invalid_argument("seq_dim and batch_dim must be two dimensions").got(axes[0]));
    }
    Ok(axes)
}

fn sequences(context: &mut InferenceContext<'_>) -> Result<()> {
    let (input, lengths) = (context.input(0).clone(), context.with_rank(1, 1)?);
    let Some(rank) = input.rank() else { return Ok(()) };
    let [_, batch] = sequence_axes(rank, context.attr("seq_dim")?, context.attr("batch_dim")?)?;
    let dim = context.merge_dims(input.dim(batch), lengths.dim(0), "the batch and the number of lengths")?;
    context.set_output(0, crate::array::axis::with_dim(&input, batch, dim));
    Ok(())
}

struct Sequences {
    shape: Vec<usize>,
    sequence: usize,
    batch: usize,
    index_type: DType,
}

impl Movement for Sequences {
    fn run<T: Word>(&self, context: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let lengths: Vec<i64> = match self.index_type {
            DType::Int32 => context.input::<i32>(1)?.iter().map(|&length| length.into()).collect(),
            _ => context.input::<i64>(1)?.to_vec(),
        };
        let longest = self.shape[self.sequence] as i64;
        if let Some(bad) = lengths.iter().find(|length| !(0..=longest).contains(*length)) {
            return Err(Error::invalid_argument("a sequence has a wrong length")
                .expected(format!("a length from 0 to {longest}"))
                .got(bad));
        }
        let strides = crate::cpu::copy::strides(&self.shape);
        let along = |axis: usize, place: usize| place / strides[axis] % self.shape[axis];
        for (place, out) in outputs[0].iter_mut().enumerate() {
            let (at, length) = (along(self.sequence, place), lengths[along(self.batch, place)] as usize);
            let from = if at < length { length - 1 - at } else { at };
            *out = inputs[0][place - at * strides[self.sequence] + from * strides[self.sequence]];
        }
        Ok(())
    }
}

/// `tensor` turned round along the dimensions `axis`, a vector; negative ones are counted from the end.
///
/// # Errors
/// `InvalidArgument` if there is no such dimension, or if one is named twice.
#[track_caller]
pub fn reverse(tensor: impl IntoOperand, axis: impl IntoOperand) -> OpBuilder {
    crate::op("ReverseV2").input(tensor).input(axis)
}

/// `input` with its elements moved by `shift` places along dimension `axis` (or by several along several); what leaves at an end comes in at the other.
///
/// # Errors
/// `InvalidArgument` if there is not one shift for each axis.
#[track_caller]
pub fn roll(input: impl IntoOperand, shift: impl IntoOperand, axis: impl IntoOperand) -> OpBuilder {
    crate::op("Roll").input(input).input(shift).input(axis)
}

typed_builder! {
    /// Sequences turned round about to be made; see [`reverse_sequence`].
    pub struct ReverseSequence;
}

impl ReverseSequence {
    /// Sets the dimension that counts the sequences; 0 without.
    pub fn batch_axis(self, axis: i64) -> Self {
        Self(self.0.attr("batch_dim", axis))
    }
}

/// The first `seq_lengths[i]` elements of `input` along dimension `seq_axis` turned round, for each entry i of the batch.
///
/// # Errors
/// `InvalidArgument` for a length beyond the dimension.
#[track_caller]
pub fn reverse_sequence(input: impl IntoOperand, seq_lengths: impl IntoOperand, seq_axis: i64) -> ReverseSequence {
    ReverseSequence(
        crate::op("ReverseSequence")
            .input(input)
            .input(seq_lengths)
            .attr("seq_dim", seq_axis)
            .name("ReverseSequence"),
    )
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let rows = [[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let words = |words: &[&str]| {
        Value::from_strings(
            [words.len()],
            words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        )
        .unwrap()
    };
    vec![
        Case::new("ReverseV2")
            .input(rows)
            .input([-1i32])
            .expect([[3.0f32, 2.0, 1.0], [6.0, 5.0, 4.0]]),
        Case::new("ReverseV2")
            .input(rows)
            .input([1i64, 0])
            .expect([[6.0f32, 5.0, 4.0], [3.0, 2.0, 1.0]]),
        Case::new("ReverseV2").input(7u8).input(Vec::<i32>::new()).expect(7u8),
        Case::new("Reverse")
            .input(rows)
            .input([true, false])
            .expect([rows[1], rows[0]]),
        Case::new("ReverseV2")
            .input(words(&["a", "b"]))
            .input([0i32])
            .expect(words(&["b", "a"])),
        Case::new("Roll")
            .input([1i32, 2, 3, 4, 5])
            .input(2i32)
            .input(0i32)
            .expect([4i32, 5, 1, 2, 3]),
        Case::new("Roll")
            .input(rows)
            .input([1i64, -4])
            .input([0i32, 1])
            .expect([[5.0f32, 6.0, 4.0], [2.0, 3.0, 1.0]]),
        Case::new("ReverseSequence")
            .attr("seq_dim", 1i64)
            .input(rows)
            .input([2i64, 3])
            .expect([[2.0f32, 1.0, 3.0], [6.0, 5.0, 4.0]]),
        Case::new("ReverseSequence")
            .attr("seq_dim", 0i64)
            .attr("batch_dim", 1i64)
            .input([[1u8, 2], [3, 4]])
            .input([2i32, 0])
            .expect([[3u8, 2], [1, 4]]),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let rows = [[1.0f64, 2.0, 3.0], [4.0, 5.0, 6.0]];
    vec![
        GradientCase::new("ReverseV2").input(rows).input([1i32]),
        GradientCase::new("Reverse").input(rows).input([false, true]),
        GradientCase::new("Roll").input(rows).input(1i32).input(1i32),
        GradientCase::new("ReverseSequence")
            .attr("seq_dim", 1i64)
            .input(rows)
            .input([2i64, 3]),
    ]
}

#[cfg(test)]
mod tests {
    use graph_core::{DType, Value};

    use crate::testing::Case;

    #[test]
    fn bad_axes_and_lengths_are_errors() {
        let reverse = |axes: &[i32]| Case::new("ReverseV2").input([1.0f32]).input(axes).run();
        assert!(reverse(&[1]).is_err());
        assert!(reverse(&[0, -1]).is_err());
        let sequence = |length: i64| {
            Case::new("ReverseSequence")
                .attr("seq_dim", 1i64)
                .input([[1.0f32, 2.0]])
                .input([length])
                .run()
        };
        assert!(sequence(2).is_ok());
        assert!(sequence(3).is_err());
        assert!(sequence(-1).is_err());
    }

    #[test]
    fn a_dimension_beside_one_of_zero_may_be_of_any_size() {
        let nothing = || Value::zeros(DType::Float32, [1 << 40, 0, 1 << 40]).unwrap();
        let cases = [
            Case::new("ReverseV2").input(nothing()).input([0i32, 2]),
            Case::new("Roll").input(nothing()).input([3i32]).input([2i32]),
            Case::new("MirrorPad")
                .attr("mode", "SYMMETRIC")
                .input(nothing())
                .input([[0i32, 0], [0, 0], [0, 0]]),
        ];
        for case in cases {
            assert_eq!(case.run().unwrap(), [nothing()], "{}", case.op);
        }
    }
}
