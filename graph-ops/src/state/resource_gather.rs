//! `ResourceGather` and `ResourceGatherNd`: parts of a variable, picked without reading all of it.

use graph_core::gradients::GradientContext;
use graph_core::graph::{OpBuilder, Tensor};
use graph_core::op::{KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, Shape, Value};
use graph_cuda::{Cuda, arguments};

use super::resource::{existing, not_existing};
use super::scatter::{Addressing, places, updates_shape};
use crate::array::gather::{SOURCE, add_up_rows, picked_bytes};
use crate::array::moving::{pick_rows, with_element};
use crate::cuda::copy::longest_word;
use crate::cuda::row_order::Depth;
use crate::cuda::{SIZED, type_name, word_of};

/// `ResourceGather`
pub(crate) fn gather() -> OpDefinition {
    OpDefinition::new(
        "ResourceGather",
        "Slices of the variable that a handle names, picked by their numbers; the first `batch_dims` dimensions are paired.",
    )
    .input("resource: resource")
    .input("indices: Tindices")
    .output("output: dtype")
    .attr("batch_dims: int = 0")
    .attr("validate_indices: bool = true")
    .attr("dtype: type")
    .attr("Tindices: {int32, int64}")
    .stateful()
    .only_reads()
    .may_fail()
    .shape(|context| {
        let batch = batch_of(context.attr("batch_dims")?, context.input(1).rank())?;
        let variable = context.variable_of(0, context.attr("dtype")?)?;
        if variable.rank() == Some(0) {
            return Err(Error::invalid_argument("a scalar has no slices"));
        }
        let shape = match batch {
            Some(batch) => gathered(&variable, context.input(1), batch)?,
            None => PartialShape::unknown(),
        };
        context.set_output(0, shape);
        Ok(())
    })
    .gradient(gather_gradient)
    .kernel(KernelDefinition::cpu(|request| {
        let batch = batch_of(request.attr("batch_dims")?, Some(request.input_shape(1).rank()))?.unwrap_or(0);
        kernel(request, move |context, shape| match context.input_dtype(1) {
            DType::Int32 => batched(context, context.input::<i32>(1)?, shape, batch),
            _ => batched(context, context.input::<i64>(1)?, shape, batch),
        })
    }))
    .kernel(KernelDefinition::cuda(gathering).types("dtype", SIZED))
}

/// `ResourceGather` on a device, where an index outside of the variable picks zeros.
fn gathering(request: &KernelRequest<'_>) -> Result<Planned> {
    let (indices, output) = (request.input_shape(1).clone(), request.output_shape(0)?);
    let batch = batch_of(request.attr("batch_dims")?, Some(indices.rank()))?.unwrap_or(0);
    let elements: usize = output.iter().skip(indices.rank()).product();
    let (bytes, _) = word_of(request.output_dtype(0))?;
    let (longest, word) = longest_word(bytes, elements)?;
    let (count, inner): (usize, usize) = (indices[batch..].iter().product(), elements * bytes / longest);
    let n = indices.num_elements() * inner;
    let defines = [("W", word), ("I", type_name(request.input_dtype(1))?)];
    let function = Cuda::of(request)?.function(&SOURCE, "gather", &defines)?;
    let function = function.moving(picked_bytes(request));
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let shape = existing_shape(context)?;
        let fits = shape.rank() > batch
            && shape[..batch] == indices[..batch]
            && shape[batch + 1..].iter().product::<usize>() == elements;
        if !fits {
            return Err(another_shape().got(shape));
        }
        let (variable, numbers) = (context.variable_address(0)?, context.input_address(1));
        let (rows, count, inner) = (shape[batch] as i64, count as i64, inner as i64);
        let output = context.output_address(0);
        // SAFETY: these are the kernel's parameters, which say how many words each tensor has (checked).
        unsafe {
            function.launch_over(
                n,
                arguments![output, variable, numbers, n as i64, 1i64, rows, count, inner],
            )
        }
    }))
}

/// The shape of the variable that the handle names, in whichever memory it is.
fn existing_shape(context: &mut KernelContext<'_>) -> Result<Shape> {
    let extent = context.variable(0)?.extent();
    extent.map(|(_, shape)| shape.clone()).ok_or_else(not_existing)
}

fn another_shape() -> Error {
    Error::invalid_argument("the variable's value has another shape than the handle says")
}

/// `ResourceGatherNd`
pub(crate) fn gather_nd() -> OpDefinition {
    OpDefinition::new(
        "ResourceGatherNd",
        "Slices of the variable that a handle names, each addressed by a vector of indices into its first dimensions.",
    )
    .input("resource: resource")
    .input("indices: Tindices")
    .output("output: dtype")
    .attr("dtype: type")
    .attr("Tindices: {int32, int64}")
    .stateful()
    .only_reads()
    .may_fail()
    .shape(|context| {
        let variable = context.variable_of(0, context.attr("dtype")?)?;
        let shape = updates_shape(&variable, context.input(1), Addressing::Points)?;
        context.set_output(0, shape);
        Ok(())
    })
    .gradient(gather_nd_gradient)
    .kernel(KernelDefinition::cpu(|request| {
        kernel(request, |context, shape| {
            let (starts, len) = match context.input_dtype(1) {
                DType::Int32 => places(context, context.input::<i32>(1)?, shape, Addressing::Points)?,
                _ => places(context, context.input::<i64>(1)?, shape, Addressing::Points)?,
            };
            let output = updates_shape(&shape.into(), &context.input_shape(1).into(), Addressing::Points)?;
            Ok(Picked { starts, len, output })
        })
    }))
    .kernel(KernelDefinition::cuda(picking_points).types("dtype", SIZED))
}

/// `ResourceGatherNd` on a device, where indices outside of the variable pick zeros.
fn picking_points(request: &KernelRequest<'_>) -> Result<Planned> {
    let (indices, output) = (request.input_shape(1).clone(), request.output_shape(0)?.clone());
    let Some((&depth, places)) = indices.split_last() else {
        return Err(Error::invalid_argument("the indices must have at least rank 1"));
    };
    // The host does what kernels have no room for.
    Depth::new(&vec![1; depth])?;
    let elements: usize = output.iter().skip(places.len()).product();
    let (bytes, _) = word_of(request.output_dtype(0))?;
    let (longest, word) = longest_word(bytes, elements)?;
    let inner = elements * bytes / longest;
    let n = places.iter().product::<usize>() * inner;
    let defines = [("W", word), ("I", type_name(request.input_dtype(1))?)];
    let function = Cuda::of(request)?.function(&SOURCE, "gather_points", &defines)?;
    let function = function.moving(picked_bytes(request));
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let shape = existing_shape(context)?;
        let picked = updates_shape(&(&shape).into(), &(&indices).into(), Addressing::Points)?;
        if !picked.admits(&output) {
            return Err(another_shape().expected(&output).got(picked));
        }
        let dims = Depth::new(&shape[..depth])?;
        let (variable, numbers) = (context.variable_address(0)?, context.input_address(1));
        let to = context.output_address(0);
        // SAFETY: these are the kernel's parameters, which say how many words each tensor has (checked).
        unsafe { function.launch_over(n, arguments![to, variable, numbers, n as i64, inner as i64, dims]) }
    }))
}

/// The number of batch dimensions, which may be counted from the end of the indices; `None` where those are unknown.
fn batch_of(batch_dims: i64, rank: Option<usize>) -> Result<Option<usize>> {
    let from_start = match rank {
        Some(rank) if batch_dims < 0 => batch_dims + rank as i64,
        None if batch_dims < 0 => return Ok(None),
        _ => batch_dims,
    };
    match usize::try_from(from_start) {
        Ok(batch) if rank.is_none_or(|rank| batch <= rank) => Ok(Some(batch)),
        _ => Err(Error::invalid_argument("there are not so many batch dimensions").got(batch_dims)),
    }
}

/// The shape of slices along the first dimension behind the batch.
fn gathered(variable: &PartialShape, indices: &PartialShape, batch: usize) -> Result<PartialShape> {
    let (Some(variable), Some(indices)) = (variable.dims(), indices.dims()) else {
        return Ok(PartialShape::unknown());
    };
    if batch >= variable.len() {
        return Err(Error::invalid_argument("the batch leaves no dimension to gather from")
            .expected(format!("fewer than {} batch dimensions", variable.len()))
            .got(batch));
    }
    let (paired, rest) = indices.split_at(batch);
    let paired = PartialShape::from_dims(paired.iter().copied());
    let paired = paired.merge(&PartialShape::from_dims(variable[..batch].iter().copied()))?;
    let dims = paired.dims().unwrap_or_default().iter().chain(rest);
    Ok(PartialShape::from_dims(dims.chain(&variable[batch + 1..]).copied()))
}

/// Which parts of a variable an output is made of.
struct Picked {
    /// The first element of each part.
    starts: Vec<usize>,
    /// The elements of a part.
    len: usize,
    output: PartialShape,
}

fn batched<I: Element + Into<i64>>(
    context: &KernelContext<'_>,
    indices: &[I],
    shape: &Shape,
    batch: usize,
) -> Result<Picked> {
    let output = gathered(&shape.into(), &context.input_shape(1).into(), batch)?;
    let len: usize = shape[batch + 1..].iter().product();
    let rows = shape[batch];
    let per_batch = context.input_shape(1)[batch..].iter().product::<usize>().max(1);
    let start = |(number, &index): (usize, &I)| {
        let index: i64 = index.into();
        match usize::try_from(index) {
            Ok(row) if row < rows => Ok((number / per_batch * rows + row) * len),
            _ => Err(Error::invalid_argument(format!(
                "indices[{number}] = {index} is not in [0, {rows})"
            ))),
        }
    };
    Ok(Picked {
        starts: indices.iter().enumerate().map(start).collect::<Result<_>>()?,
        len,
        output,
    })
}

/// A kernel that copies the parts that `pick` finds in a variable of the given shape.
fn kernel(
    request: &KernelRequest<'_>,
    pick: impl Fn(&KernelContext<'_>, &Shape) -> Result<Picked> + Send + Sync + 'static,
) -> Result<Planned> {
    let dtype = request.output_dtype(0);
    Ok(Planned::new(move |context| {
        // The same elements as the variable's: nothing is copied here.
        let value = existing(context, 0)?.clone();
        if value.dtype() != dtype {
            return Err(
                Error::invalid_argument("the variable is read as another dtype than it has")
                    .expected(value.dtype())
                    .got(dtype),
            );
        }
        let picked = pick(context, value.shape())?;
        if dtype == DType::String {
            let shape = picked
                .output
                .to_shape()
                .ok_or_else(|| Error::internal("a gather of unknown shape"))?;
            let numbers: Vec<usize> = picked.starts.iter().map(|start| start / picked.len.max(1)).collect();
            context.set_output(0, pick_rows(&value, picked.len, &numbers, shape)?);
            return Ok(());
        }
        if !picked.output.admits(context.output_shape(0)) {
            return Err(another_shape().expected(context.output_shape(0)).got(&picked.output));
        }
        with_element!(dtype, E => copy::<E>(context, &value, &picked))
    }))
}

fn copy<T: Element>(context: &KernelContext<'_>, value: &Value, picked: &Picked) -> Result<()> {
    let (from, to) = (value.as_slice::<T>()?, context.output::<T>(0)?);
    if picked.len > 0 {
        for (part, &start) in to.chunks_exact_mut(picked.len).zip(&picked.starts) {
            part.copy_from_slice(&from[start..start + picked.len]);
        }
    }
    Ok(())
}

/// The shape of the variable of a handle as a vector: a constant where it is fully known.
fn shape_of_variable(context: &GradientContext<'_>, handle: &Tensor, out_type: DType) -> Result<Tensor> {
    let known = handle.handle_data().and_then(|handle| handle.shape.to_shape());
    match known {
        Some(shape) => {
            let dims: Vec<i64> = shape.iter().map(|&dim| dim as i64).collect();
            context.constant(Value::from(dims).cast_exactly(out_type)?, "Const")
        }
        None => context
            .node("VariableShape")
            .input(handle)
            .attr("out_type", out_type)
            .build(),
    }
}

/// Dense, as that of `Gather`: the slices' gradients added up where they came from.
fn gather_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    if context.attr::<i64>("batch_dims")? != 0 {
        return Err(Error::unimplemented(
            "the gradient of a gather of a resource variable has no batch dimensions",
        ));
    }
    let handle = context.input(0);
    let params_shape = shape_of_variable(context, &handle, DType::Int32)?;
    let sum = add_up_rows(context, &params_shape, &context.input(1), &context.gradient(0)?)?;
    Ok(vec![Some(sum), None])
}

fn gather_nd_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (handle, indices) = (context.input(0), context.input(1));
    let shape = shape_of_variable(context, &handle, indices.dtype())?;
    let scattered = context
        .node("ScatterNd")
        .input(indices)
        .input(context.gradient(0)?)
        .input(shape);
    Ok(vec![Some(scattered.build()?), None])
}

/// The rows of the resource variable `variable` whose numbers are `indices`, an integer tensor of any shape, which takes the
/// place of the first dimension.
///
/// # Errors
/// `InvalidArgument` in the run for an index outside of the variable, `NotFound` if the variable is not initialized.
#[track_caller]
pub fn gather_rows(variable: &graph_core::Variable, indices: impl graph_core::graph::IntoOperand) -> OpBuilder {
    let builder = crate::op("ResourceGather").input(variable).input(indices);
    builder.attr("dtype", variable.dtype())
}
