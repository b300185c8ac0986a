//! `DynamicPartition` and `DynamicStitch`: slices dealt out by numbers, and put together by indices.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Error, PartialShape, Result, Value};

use crate::array::axis::planned_ints;
use crate::array::moving::{Movement, Word, pick_rows, plan};
use crate::array::shape_of::shape_of;

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

fn stitch_kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let count = request.num_inputs() / 2;
    let indices = (0..count).map(|index| {
        let indices = planned_ints(request, index)?;
        indices
            .into_iter()
            .map(crate::array::axis::dimension)
            .collect::<Result<Vec<_>>>()
    });
    let indices = indices.collect::<Result<_>>()?;
    let slice = request.output_shape(0)?[1..].iter().product();
    plan(request, count..2 * count, Stitch { indices, slice })
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

fn partition_kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let (shape, rank) = (request.input_shape(0).clone(), request.input_shape(1).rank());
    let count = request.num_outputs();
    Ok(Planned::new(move |context| {
        let mut parts: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (at, &part) in context.input::<i32>(1)?.iter().enumerate() {
            let list = usize::try_from(part)
                .ok()
                .and_then(|part| parts.get_mut(part))
                .ok_or_else(|| {
                    Error::invalid_argument(format!("partitions[{at}] is no number of a partition"))
                        .expected(format!("a number in the range [0, {count})"))
                        .got(part)
                })?;
            list.push(at);
        }
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
        Case::new("DynamicPartition")
            .attr("num_partitions", 2i64)
            .input([[1i8, 2], [3, 4]])
            .input([[1i32, 1], [1, 1]])
            .expect(Vec::<i8>::new())
            .expect([1i8, 2, 3, 4]),
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
