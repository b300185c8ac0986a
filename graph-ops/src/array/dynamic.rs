//! `DynamicPartition` and `DynamicStitch`: slices dealt out by numbers, and put together by indices.

use graph_core::accelerator::DeviceTensor;
use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Error, PartialShape, Result, Value};
use graph_cuda::{Cuda, Source, arguments};

use crate::array::axis::planned_ints;
use crate::array::moving::{Movement, Word, pick_rows, plan};
use crate::array::shape_of::shape_of;
use crate::cuda::copy::longest_word;
use crate::cuda::counts::{allocate, integers, told};
use crate::cuda::fill::Fill;
use crate::cuda::row_order::{self, Depth, SortRows};
use crate::cuda::window::joined_source;
use crate::cuda::{NOWHERE, SIZED, word_of};

const SOURCE: Source = joined_source!("dynamic.cu": "../cuda/row_order.cuh", "dynamic.cu");

/// `DynamicStitch`
pub(crate) fn stitch_definition() -> OpDefinition {
    stitching(
        "DynamicStitch",
        "Slices put at their indices in one tensor; of several for one place the last counts.",
    )
}

/// `ParallelDynamicStitch`
pub(crate) fn parallel_stitch_definition() -> OpDefinition {
    stitching(
        "ParallelDynamicStitch",
        "Slices put at their indices in one tensor, in any order.",
    )
}

fn stitching(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("indices: N * int32")
        .input("data: N * T")
        .output("merged: T")
        .attr("N: int >= 1")
        .attr("T: type")
        .plan_time_inputs(&[0])
        .shape(stitched)
        .gradient(|context| {
            let (gradient, inputs) = (context.gradient(0)?, context.op().inputs());
            let count = inputs.len() / 2;
            let mut gradients = vec![None; count];
            for indices in &inputs[..count] {
                let picked = context
                    .node("GatherV2")
                    .input(&gradient)
                    .input(indices)
                    .input(0i32)
                    .build()?;
                gradients.push(Some(picked));
            }
            Ok(gradients)
        })
        .kernel(KernelDefinition::cpu(stitch_kernel))
        .kernel(KernelDefinition::cuda(stitch_on_device).types("T", SIZED))
}

fn stitched(context: &mut InferenceContext<'_>) -> Result<()> {
    let count = context.num_inputs() / 2;
    let (mut tail, mut rows) = (PartialShape::unknown(), Some(0usize));
    for index in 0..count {
        let (indices, data) = (context.input(index).clone(), context.input(count + index).clone());
        rows = match context.int_values(index)? {
            Some(values) => {
                let largest = values.iter().copied().max().unwrap_or(-1);
                if let Some(&bad) = values.iter().find(|&&value| value < 0) {
                    return Err(Error::invalid_argument(format!("indices[{index}] is negative")).got(bad));
                }
                rows.map(|rows| rows.max((largest + 1) as usize))
            }
            None => None,
        };
        let (Some(places), Some(dims)) = (indices.dims(), data.dims()) else {
            continue;
        };
        let start = dims
            .get(..places.len())
            .map(|start| PartialShape::from_dims(start.iter().copied()));
        if !start.is_some_and(|start| start.is_compatible_with(&indices)) {
            return Err(Error::invalid_argument(format!(
                "data[{index}] does not begin with the shape of indices[{index}]"
            ))
            .expected(&indices)
            .got(&data));
        }
        tail = tail.merge(&PartialShape::from_dims(dims[places.len()..].iter().copied()))?;
    }
    context.set_output(0, PartialShape::from([rows]).concatenate(&tail));
    Ok(())
}

struct Stitch {
    indices: Vec<Vec<usize>>,
    slice: usize,
}

impl Movement for Stitch {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let slice = self.slice;
        // Places that no index names stay zero.
        outputs[0].fill(T::default());
        for (indices, data) in self.indices.iter().zip(inputs) {
            for (at, &index) in indices.iter().enumerate() {
                outputs[0][index * slice..(index + 1) * slice].copy_from_slice(&data[at * slice..(at + 1) * slice]);
            }
        }
        Ok(())
    }
}

/// The indices of each of the data.
fn stitch_indices(request: &KernelRequest<'_>) -> Result<Vec<Vec<usize>>> {
    let indices = (0..request.num_inputs() / 2).map(|index| {
        let indices = planned_ints(request, index)?;
        indices
            .into_iter()
            .map(crate::array::axis::dimension)
            .collect::<Result<Vec<_>>>()
    });
    indices.collect()
}

fn stitch_kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let count = request.num_inputs() / 2;
    let indices = stitch_indices(request)?;
    let slice = request.output_shape(0)?[1..].iter().product();
    plan(request, count..2 * count, Stitch { indices, slice })
}

/// Slices of one of the data, about to be put at their places.
struct Placed {
    input: usize,
    slices: usize,
    /// Where their places begin, in bytes.
    places: usize,
    /// Bytes that are moved.
    bytes: usize,
}

/// The host has the indices. It strikes out those whose place a later slice takes, so that no two write to one place.
fn stitch_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (output, dtype) = (request.output_shape(0)?, request.output_dtype(0));
    let (rows, slice) = (output[0], output[1..].iter().product::<usize>());
    let indices = stitch_indices(request)?;
    let mut named = vec![false; rows];
    let mut places: Vec<i64> = indices.iter().flatten().map(|&index| index as i64).collect();
    for place in places.iter_mut().rev() {
        if std::mem::replace(&mut named[*place as usize], true) {
            *place = -1;
        }
    }
    let (size, _) = word_of(dtype)?;
    let (bytes, word) = longest_word(size, slice)?;
    let inner = slice * size / bytes;
    let mut placed = Vec::new();
    let mut first = 0;
    for (at, indices) in indices.iter().enumerate() {
        let kept = places[first..first + indices.len()].iter().filter(|&&place| place >= 0);
        placed.push(Placed {
            input: request.num_inputs() / 2 + at,
            slices: indices.len(),
            places: first * size_of::<i64>(),
            bytes: indices.len() * size_of::<i64>() + 2 * kept.count() * slice * size,
        });
        first += indices.len();
    }
    placed.retain(|placed| placed.slices * inner > 0);
    // Places that no index names stay zero.
    let fill = match named.contains(&false) {
        true => Some(Fill::zeros(request, dtype, output.num_elements())?),
        false => None,
    };
    let function = Cuda::of(request)?.function(&SOURCE, "place_slices", &[("W", word)])?;
    let accelerator = request.accelerator.filter(|_| !placed.is_empty());
    let places = accelerator.map(|accelerator| DeviceTensor::upload(accelerator, &Value::from(places)));
    let places = places.transpose()?;
    Ok(Planned::new(move |context| {
        let to = context.output_address(0);
        let places = places.as_ref().map_or(NOWHERE, |places| places.memory.address());
        // SAFETY: the output is filled as a whole; each of the data has as many slices of `inner` words as there are places for
        // it, all of which lie in the output.
        unsafe {
            if let Some(fill) = &fill {
                fill.run(to)?;
            }
            for placed in &placed {
                let (from, places) = (context.input_address(placed.input), places.offset(placed.places));
                let words = placed.slices * inner;
                let function = function.clone().moving(placed.bytes);
                function.launch_over(words, arguments![to, from, places, words as i64, inner as i64])?;
            }
        }
        Ok(())
    }))
}

/// `DynamicPartition`
pub(crate) fn partition_definition() -> OpDefinition {
    OpDefinition::new(
        "DynamicPartition",
        "Slices dealt out to as many tensors as `num_partitions` says, by their numbers.",
    )
    .input("data: T")
    .input("partitions: int32")
    .output("outputs: num_partitions * T")
    .attr("num_partitions: int >= 1")
    .attr("T: type")
    .may_fail()
    .shape(partitioned)
    .gradient(partition_gradient)
    .kernel(KernelDefinition::cpu(partition_kernel).data_dependent())
    .kernel(
        KernelDefinition::cuda(partition_on_device)
            .types("T", SIZED)
            .data_dependent(),
    )
}

fn partitioned(context: &mut InferenceContext<'_>) -> Result<()> {
    let (data, partitions) = (context.input(0).clone(), context.input(1).clone());
    let (Some(dims), Some(places)) = (data.dims(), partitions.dims()) else {
        return Ok(());
    };
    let start = dims
        .get(..places.len())
        .map(|start| PartialShape::from_dims(start.iter().copied()));
    if !start.is_some_and(|start| start.is_compatible_with(&partitions)) {
        return Err(
            Error::invalid_argument("the data's shape does not begin with the shape of the partitions")
                .expected(&partitions)
                .got(&data),
        );
    }
    let part = PartialShape::from_dims([None].iter().chain(&dims[places.len()..]).copied());
    (0..context.num_outputs()).for_each(|slot| context.set_output(slot, &part));
    Ok(())
}

/// The same deal of the places tells where each slice came from.
fn partition_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (data, partitions) = (context.input(0), context.input(1));
    let count = context.op().num_outputs();
    let gradients: Vec<Tensor> = (0..count).map(|slot| context.gradient(slot)).collect::<Result<_>>()?;
    let shape = shape_of(&partitions, "Shape")?;
    let axes = context.constant(Value::int32_vector([0]), "Const")?;
    let size = context.node("Prod").input(&shape).input(axes).build()?;
    let places = context
        .node("Range")
        .input(0i32)
        .input(size)
        .input(1i32)
        .name("range")
        .build()?;
    let places = context.node("Reshape").input(places).input(shape).build()?;
    let dealt = context.node("DynamicPartition").input(places).input(partitions);
    let dealt = dealt.attr("num_partitions", count as i64).build_all()?;
    let whole = context
        .node("ParallelDynamicStitch")
        .input(dealt)
        .input(gradients)
        .build()?;
    let shape = shape_of(&data, "Shape_1")?;
    let whole = context
        .node("Reshape")
        .input(whole)
        .input(shape)
        .name("Reshape_1")
        .build()?;
    Ok(vec![Some(whole), None])
}

/// The places of the slices of each of `count` parts, from the number of the part of each slice.
///
/// # Errors
/// `InvalidArgument` for a number outside of `0..count`.
fn dealt(partitions: impl IntoIterator<Item = i64>, count: usize) -> Result<Vec<Vec<usize>>> {
    let mut parts: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (at, part) in partitions.into_iter().enumerate() {
        let list = usize::try_from(part).ok().and_then(|part| parts.get_mut(part));
        let list = list.ok_or_else(|| {
            Error::invalid_argument(format!("partitions[{at}] is no number of a partition"))
                .expected(format!("a number in the range [0, {count})"))
                .got(part)
        })?;
        list.push(at);
    }
    Ok(parts)
}

fn partition_kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let (shape, rank) = (request.input_shape(0).clone(), request.input_shape(1).rank());
    let count = request.num_outputs();
    Ok(Planned::new(move |context| {
        let parts = dealt(context.input::<i32>(1)?.iter().map(|&part| part.into()), count)?;
        let data = context.input_value(0)?;
        let slice = shape[rank..].iter().product();
        for (slot, rows) in parts.iter().enumerate() {
            let mut part = vec![rows.len()];
            part.extend_from_slice(&shape[rank..]);
            context.set_output(slot, pick_rows(&data, slice, rows, part)?);
        }
        Ok(())
    }))
}

/// Sorts the slices by the numbers of their parts, waits for where the parts begin, and takes each part's slices.
fn partition_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (shape, dtype, rank) = (
        request.input_shape(0).clone(),
        request.input_dtype(0),
        request.input_shape(1).rank(),
    );
    let (count, slices) = (request.num_outputs(), request.input_shape(1).num_elements());
    let slice: usize = shape[rank..].iter().product();
    let (size, _) = word_of(dtype)?;
    let (bytes, word) = longest_word(size, slice)?;
    let inner = slice * size / bytes;
    let part_shape = move |len: usize| -> Vec<usize> { std::iter::once(len).chain(shape[rank..].to_vec()).collect() };
    let (dims, sort) = (
        Depth::new(&[count])?,
        SortRows::new(request, request.input_dtype(1), slices)?,
    );
    let cuda = Cuda::of(request)?;
    let function = |name| cuda.function(&SOURCE, name, &[("W", word)]);
    let (begins, take) = (function("begins")?, function("take_slices")?);
    let begins = begins.moving((count + 1) * 2 * size_of::<i64>());
    let keys = row_order::scratch(slices);
    let planned = Planned::new(move |context| {
        if slices == 0 {
            return (0..count).try_for_each(|slot| allocate(context, slot, dtype, part_shape(0)).map(drop));
        }
        let (from, partitions) = (context.input_address(0), context.input_address(1));
        let (keys, first) = (context.scratch_address(), context.scratch_address().offset(keys));
        // SAFETY: there is a number of a part for each slice, and scratch memory for the keys and, behind them, for as many whole
        // numbers as parts and one more.
        let order = unsafe {
            let order = sort.run(partitions, dims, keys)?;
            begins.launch_over(count + 1, arguments![first, order, count as i64])?;
            order
        };
        let first = told(context, first, count + 1)?;
        if first[count] < slices as i64 {
            dealt(integers(context, 1)?, count)?;
        }
        for slot in 0..count {
            let len = (first[slot + 1] - first[slot]) as usize;
            let to = allocate(context, slot, dtype, part_shape(len))?;
            let words = len * inner;
            if words == 0 {
                continue;
            }
            let take = take.clone().moving(len * size_of::<i64>() + 2 * words * bytes);
            // SAFETY: the part has `len` slices of `inner` words, and so many keys, from `first` on, name slices of the data.
            unsafe {
                take.launch_over(
                    words,
                    arguments![to, from, order, first[slot], words as i64, inner as i64],
                )?;
            }
        }
        Ok(())
    });
    Ok(planned.with_scratch(keys + (count + 1) * size_of::<i64>()))
}

/// The slices of `data` dealt out to `num_partitions` tensors by the numbers `partitions`; use [`OpBuilder::build_all`].
///
/// # Errors
/// `InvalidArgument` in the run for a number outside of `0..num_partitions`.
#[track_caller]
pub fn dynamic_partition(data: impl IntoOperand, partitions: impl IntoOperand, num_partitions: usize) -> OpBuilder {
    crate::op("DynamicPartition")
        .input(data)
        .input(partitions)
        .attr("num_partitions", num_partitions as i64)
}

/// The slices of all of `data` in one tensor, each at its place in `indices`; of several for one place the last counts.
///
/// # Errors
/// `InvalidArgument` for negative indices, or data that do not begin with the shape of their indices.
#[track_caller]
pub fn dynamic_stitch(indices: impl IntoOperand, data: impl IntoOperand) -> OpBuilder {
    crate::op("DynamicStitch").input(indices).input(data)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::DType;
    let stitch = |op: &'static str| Case::new(op).attr("N", 2i64).input([2i32, 0]).input(1i32);
    let rows = [[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]];
    vec![
        stitch("DynamicStitch")
            .input([[1u8, 2], [3, 4]])
            .input([5u8, 6])
            .expect([[3u8, 4], [5, 6], [1, 2]]),
        stitch("ParallelDynamicStitch")
            .input([1.0f64, 2.0])
            .input(3.0f64)
            .expect([2.0f64, 3.0, 1.0]),
        Case::new("DynamicStitch")
            .attr("N", 2i64)
            .input([0i32, 1])
            .input([1i32])
            .input([1i64, 2])
            .input([3i64])
            .expect([1i64, 3]),
        Case::new("DynamicPartition")
            .attr("num_partitions", 2i64)
            .input(rows)
            .input([1i32, 0, 1])
            .expect([rows[1]])
            .expect([rows[0], rows[2]]),
        // A place that no index names, and one that several do.
        Case::new("DynamicStitch")
            .attr("N", 2i64)
            .input([3i32, 0, 3])
            .input([[0i32], [1]])
            .input([1.0f32, 2.0, 3.0])
            .input([[4.0f32], [5.0]])
            .expect([4.0f32, 5.0, 0.0, 3.0]),
        Case::new("ParallelDynamicStitch")
            .attr("N", 1i64)
            .input(Vec::<i32>::new())
            .input(Value::zeros(DType::Float32, [0, 3]).unwrap())
            .expect(Value::zeros(DType::Float32, [0, 3]).unwrap()),
        Case::new("DynamicPartition")
            .attr("num_partitions", 2i64)
            .input([[1i8, 2], [3, 4]])
            .input([[1i32, 1], [1, 1]])
            .expect(Vec::<i8>::new())
            .expect([1i8, 2, 3, 4]),
        Case::new("DynamicPartition")
            .attr("num_partitions", 1i64)
            .input([1.0f64, 2.0])
            .input(0i32)
            .expect([[1.0f64, 2.0]]),
        Case::new("DynamicPartition")
            .attr("num_partitions", 2i64)
            .input(Value::zeros(DType::Float32, [0, 3]).unwrap())
            .input(Vec::<i32>::new())
            .expect(Value::zeros(DType::Float32, [0, 3]).unwrap())
            .expect(Value::zeros(DType::Float32, [0, 3]).unwrap()),
        Case::new("DynamicPartition")
            .attr("num_partitions", 3i64)
            .input((0..5000).collect::<Vec<i32>>())
            .input((0..5000).map(|at| at % 2 * 2).collect::<Vec<i32>>())
            .expect((0..5000).filter(|at| at % 2 == 0).collect::<Vec<i32>>())
            .expect(Vec::<i32>::new())
            .expect((0..5000).filter(|at| at % 2 == 1).collect::<Vec<i32>>()),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let rows = [[1.0f64, 2.0], [3.0, 4.0], [5.0, 6.0]];
    let stitch = |op: &'static str| {
        GradientCase::new(op)
            .attr("N", 2i64)
            .input([2i32, 0])
            .input([1i32])
            .input([1.0f64, 2.0])
            .input([3.0f64])
    };
    vec![
        stitch("DynamicStitch"),
        stitch("ParallelDynamicStitch"),
        GradientCase::new("DynamicPartition")
            .attr("num_partitions", 2i64)
            .input(rows)
            .input([1i32, 0, 1])
            .output(1),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn numbers_must_fit() {
        for bad in [-1i32, 2] {
            let deal = Case::new("DynamicPartition")
                .attr("num_partitions", 2i64)
                .input([1.0f32])
                .input([bad]);
            assert_eq!(deal.run().unwrap_err().class(), "InvalidArgument");
        }
        assert!(
            Case::new("DynamicStitch")
                .attr("N", 1i64)
                .input([-1i32])
                .input([1.0f32])
                .run()
                .is_err()
        );
        assert!(
            Case::new("DynamicStitch")
                .attr("N", 1i64)
                .input([0i32, 1])
                .input([1.0f32])
                .run()
                .is_err()
        );
    }
}
