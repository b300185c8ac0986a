//! The ops of TensorArrays, and their kernels, which are the same on all devices: elements lie where they were written.

use std::sync::Arc;

use graph_core::accelerator::StoredTensor;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, PartialShape, Result, Shape, Value};

use super::elements::{TensorArrayCell, Traits};
use super::gradients;
use super::parts::{joined, rows_of};
use crate::cuda::SIZED;

/// `TensorArrayV3`
pub(crate) fn array() -> OpDefinition {
    OpDefinition::new(
        "TensorArrayV3",
        "A new array of tensors, which lives as long as the run, and a number that orders what is done with it.",
    )
    .input("size: int32")
    .output("handle: resource")
    .output("flow: float")
    .attr("dtype: type")
    .attr("element_shape: shape = unknown")
    .attr("dynamic_size: bool = false")
    .attr("clear_after_read: bool = true")
    .attr("identical_element_shapes: bool = false")
    .attr("tensor_array_name: string = ''")
    .stateful()
    .shape(|context| {
        context.with_rank(0, 0)?;
        handle_and_flow(context)
    })
    .not_differentiable()
    .kernel(
        KernelDefinition::cpu(|request| {
            let traits = Traits {
                dtype: request.attr("dtype")?,
                element_shape: request.attr("element_shape")?,
                dynamic_size: request.attr("dynamic_size")?,
                clear_after_read: request.attr("clear_after_read")?,
                identical_element_shapes: request.attr("identical_element_shapes")?,
            };
            Ok(Planned::new(move |context| {
                let size = number(context, 0)?;
                context.set_object(0, Arc::new(TensorArrayCell::new(traits.clone(), size)?));
                context.set_output(1, Value::scalar(0.0f32));
                Ok(())
            }))
        })
        .data_dependent(),
    )
}

/// An op of a TensorArray.
fn of_array(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("handle: resource")
        .stateful()
        .allows_uninitialized_input()
}

/// A handle, which TensorFlow takes for two strings, and a flow.
fn handle_and_flow(context: &mut InferenceContext<'_>) -> Result<()> {
    context.set_output(0, PartialShape::vector(2));
    context.set_output(1, PartialShape::scalar());
    Ok(())
}

/// Gives an op the kernels that `make` makes on the host and on CUDA, where these inputs are the host's all the same.
macro_rules! kernels {
    ($definition:expr, $make:expr, host: $host:expr, $($attr:literal)?) => {{
        let mut on_device = KernelDefinition::cuda($make)$(.types($attr, SIZED))?.data_dependent();
        on_device.host_inputs = $host.to_vec();
        $definition
            .kernel(KernelDefinition::cpu($make).data_dependent())
            .kernel(on_device)
    }};
}

/// `TensorArrayGradV3`
pub(crate) fn grad() -> OpDefinition {
    let definition = of_array(
        "TensorArrayGradV3",
        "The array of the gradients of a TensorArray's elements, in which writes add up.",
    )
    .input("flow_in: float")
    .output("grad_handle: resource")
    .output("flow_out: float")
    .attr("source: string")
    .shape(handle_and_flow)
    .not_differentiable();
    kernels!(definition, make_grad, host: [],)
}

fn make_grad(request: &KernelRequest<'_>) -> Result<Planned> {
    let source: String = request.attr("source")?;
    Ok(Planned::new(move |context| hand_out_gradients(context, &source, &[])))
}

/// `TensorArrayGradWithShape`
pub(crate) fn grad_with_shape() -> OpDefinition {
    let definition = of_array(
        "TensorArrayGradWithShape",
        "As TensorArrayGradV3, for gradients that have more dimensions in front.",
    )
    .input("flow_in: float")
    .input("shape_to_prepend: int32")
    .output("grad_handle: resource")
    .output("flow_out: float")
    .attr("source: string")
    .shape(handle_and_flow)
    .not_differentiable();
    kernels!(definition, make_grad_with_shape, host: [2],)
}

fn make_grad_with_shape(request: &KernelRequest<'_>) -> Result<Planned> {
    let source: String = request.attr("source")?;
    Ok(Planned::new(move |context| {
        let dims = context.input::<i32>(2)?.iter().map(|&dim| {
            usize::try_from(dim)
                .map_err(|_| Error::invalid_argument("the shape to prepend has a negative dimension").got(dim))
        });
        let dims: Vec<usize> = dims.collect::<Result<_>>()?;
        hand_out_gradients(context, &source, &dims)
    }))
}

fn hand_out_gradients(context: &mut KernelContext<'_>, source: &str, prepended: &[usize]) -> Result<()> {
    let gradients = cell(context)?.open()?.gradients(source, prepended);
    context.set_object(0, gradients);
    flow(context, 1, 1)
}

/// `TensorArrayWriteV3`
pub(crate) fn write() -> OpDefinition {
    let definition = of_array("TensorArrayWriteV3", "Sets an element of a TensorArray.")
        .input("index: int32")
        .input("value: T")
        .input("flow_in: float")
        .output("flow_out: float")
        .attr("T: type")
        .shape(|context| {
            context.with_rank(1, 0)?;
            InferenceContext::scalars(context)
        })
        .gradient(gradients::of_write);
    kernels!(definition, make_write, host: [1], "T")
}

fn make_write(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (index, value) = (number(context, 1)?, context.stored_input(2)?);
        cell(context)?.open()?.write(index.into(), value)?;
        flow(context, 3, 0)
    }))
}

/// `TensorArrayReadV3`
pub(crate) fn read() -> OpDefinition {
    let definition = of_array("TensorArrayReadV3", "An element of a TensorArray.")
        .input("index: int32")
        .input("flow_in: float")
        .output("value: dtype")
        .attr("dtype: type")
        .shape(|context| {
            context.with_rank(1, 0)?;
            InferenceContext::unknown_shapes(context)
        })
        .gradient(gradients::of_read);
    kernels!(definition, make_read, host: [1], "dtype")
}

fn make_read(request: &KernelRequest<'_>) -> Result<Planned> {
    let dtype = request.output_dtype(0);
    Ok(Planned::new(move |context| {
        let index = number(context, 1)?;
        let value = cell(context)?.open()?.read(index.into())?;
        context.set_stored_output(0, of_dtype(value, dtype)?)
    }))
}

/// `TensorArrayGatherV3`
pub(crate) fn gather() -> OpDefinition {
    let definition = of_array(
        "TensorArrayGatherV3",
        "Some elements of a TensorArray, stacked along a new first axis.",
    )
    .input("indices: int32")
    .input("flow_in: float")
    .output("value: dtype")
    .attr("dtype: type")
    .attr("element_shape: shape = unknown")
    .shape(|context| {
        context.with_rank(1, 1)?;
        let count = PartialShape::from_dims([context.input(1).dim(0)]);
        let elements: PartialShape = context.attr("element_shape")?;
        context.set_output(0, count.concatenate(&elements));
        Ok(())
    })
    .gradient(gradients::of_gather);
    kernels!(definition, make_gather, host: [1], "dtype")
}

fn make_gather(request: &KernelRequest<'_>) -> Result<Planned> {
    let (dtype, wanted) = (request.output_dtype(0), request.attr("element_shape")?);
    Ok(Planned::new(move |context| {
        let indices = context.input::<i32>(1)?;
        let mut parts = Vec::with_capacity(indices.len());
        {
            let array = cell(context)?;
            let mut elements = array.open()?;
            check_compatible(elements.element_shape(), &wanted)?;
            for &index in indices {
                parts.push(of_dtype(elements.read(index.into())?, dtype)?);
            }
        }
        let shape = match parts.first() {
            Some(first) => first.shape().clone(),
            None => known(&wanted)?,
        };
        if let Some(other) = parts.iter().find(|part| *part.shape() != shape) {
            return Err(Error::invalid_argument("the elements differ in shape")
                .expected(shape)
                .got(other.shape()));
        }
        let stacked = Shape::new(&[&[parts.len()], shape.dims()].concat());
        let whole = joined(dtype, stacked, parts, context.accelerator())?;
        context.set_stored_output(0, whole)
    }))
}

/// `TensorArrayScatterV3`
pub(crate) fn scatter() -> OpDefinition {
    let definition = of_array(
        "TensorArrayScatterV3",
        "Sets elements of a TensorArray to the parts of a tensor along its first axis.",
    )
    .input("indices: int32")
    .input("value: T")
    .input("flow_in: float")
    .output("flow_out: float")
    .attr("T: type")
    .shape(|context| {
        context.with_rank(1, 1)?;
        InferenceContext::scalars(context)
    })
    .gradient(gradients::of_scatter);
    kernels!(definition, make_scatter, host: [1], "T")
}

fn make_scatter(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (indices, whole) = (context.input::<i32>(1)?, context.stored_input(2)?);
        let rows = whole.shape().first().copied();
        if rows != Some(indices.len()) {
            return Err(
                Error::invalid_argument("there must be an index for each part of the value")
                    .expected(format!("{} parts", indices.len()))
                    .got(whole.shape()),
            );
        }
        let array = cell(context)?;
        let mut elements = array.open()?;
        for (row, &index) in indices.iter().enumerate() {
            let shape = Shape::new(&whole.shape()[1..]);
            elements.write(index.into(), rows_of(&whole, row, 1, shape)?)?;
        }
        drop(elements);
        flow(context, 3, 0)
    }))
}

/// `TensorArrayConcatV3`
pub(crate) fn concat() -> OpDefinition {
    let definition = of_array(
        "TensorArrayConcatV3",
        "The elements of a TensorArray behind each other along their first axis, and their lengths along it.",
    )
    .input("flow_in: float")
    .output("value: dtype")
    .output("lengths: int64")
    .attr("dtype: type")
    .attr("element_shape_except0: shape = unknown")
    .shape(|context| {
        let rest: PartialShape = context.attr("element_shape_except0")?;
        context.set_output(0, PartialShape::from_dims([None]).concatenate(&rest));
        context.set_output(1, PartialShape::unknown_of_rank(1));
        Ok(())
    })
    .gradient(gradients::of_concat);
    let mut definition = kernels!(definition, make_concat, host: [], "dtype");
    definition
        .kernels
        .iter_mut()
        .for_each(|kernel| kernel.host_outputs = vec![1]);
    definition
}

fn make_concat(request: &KernelRequest<'_>) -> Result<Planned> {
    let (dtype, wanted) = (request.output_dtype(0), request.attr("element_shape_except0")?);
    Ok(Planned::new(move |context| {
        let array = cell(context)?;
        let mut elements = array.open()?;
        let parts = (0..elements.size() as i64).map(|index| of_dtype(elements.read(index)?, dtype));
        let parts: Vec<StoredTensor> = parts.collect::<Result<_>>()?;
        drop(elements);
        let rest = match parts.first() {
            Some(first) => Shape::new(first.shape().get(1..).unwrap_or_default()),
            None => known(&wanted)?,
        };
        let mut lengths = Vec::with_capacity(parts.len());
        for part in &parts {
            match part.shape().split_first() {
                Some((&length, behind)) if behind == rest.dims() => lengths.push(length as i64),
                _ => {
                    return Err(Error::invalid_argument("the elements differ behind their first axis")
                        .expected(format!("a first axis and {rest}"))
                        .got(part.shape()));
                }
            }
        }
        let total = lengths.iter().sum::<i64>() as usize;
        let shape = Shape::new(&[&[total], rest.dims()].concat());
        let whole = joined(dtype, shape, parts, context.accelerator())?;
        context.set_stored_output(0, whole)?;
        context.set_output(1, Value::from(lengths));
        Ok(())
    }))
}

/// `TensorArraySplitV3`
pub(crate) fn split() -> OpDefinition {
    let definition = of_array(
        "TensorArraySplitV3",
        "Sets the elements of a TensorArray to parts of a tensor, of these lengths along its first axis.",
    )
    .input("value: T")
    .input("lengths: int64")
    .input("flow_in: float")
    .output("flow_out: float")
    .attr("T: type")
    .shape(|context| {
        context.with_rank_at_least(1, 1)?;
        context.with_rank(2, 1)?;
        InferenceContext::scalars(context)
    })
    .gradient(gradients::of_split);
    kernels!(definition, make_split, host: [2], "T")
}

fn make_split(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (whole, lengths) = (context.stored_input(1)?, context.input::<i64>(2)?);
        let total = lengths
            .iter()
            .try_fold(0usize, |sum, &length| sum.checked_add(length.try_into().ok()?));
        if total.is_none() || whole.shape().first().copied() != total {
            return Err(
                Error::invalid_argument("the lengths must add up to the length of the first axis")
                    .expected(whole.shape())
                    .got(format!("{lengths:?}")),
            );
        }
        let array = cell(context)?;
        let mut elements = array.open()?;
        if !elements.dynamic_size() && elements.size() != lengths.len() {
            return Err(
                Error::invalid_argument("there must be a length for each element of the TensorArray")
                    .expected(elements.size())
                    .got(lengths.len()),
            );
        }
        let mut start = 0;
        for (index, &length) in (0..).zip(lengths) {
            let count = length as usize;
            let shape = Shape::new(&[&[count], &whole.shape()[1..]].concat());
            elements.write(index, rows_of(&whole, start, count, shape)?)?;
            start += count;
        }
        drop(elements);
        flow(context, 3, 0)
    }))
}

/// `TensorArraySizeV3`
pub(crate) fn size() -> OpDefinition {
    let definition = of_array("TensorArraySizeV3", "The number of elements of a TensorArray.")
        .input("flow_in: float")
        .output("size: int32")
        .shape(InferenceContext::scalars)
        .not_differentiable();
    let mut definition = kernels!(definition, make_size, host: [],);
    definition
        .kernels
        .iter_mut()
        .for_each(|kernel| kernel.host_outputs = vec![0]);
    definition
}

fn make_size(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let size = cell(context)?.open()?.size();
        context.set_output(0, Value::scalar(size as i32));
        Ok(())
    }))
}

/// `TensorArrayCloseV3`
pub(crate) fn close() -> OpDefinition {
    of_array(
        "TensorArrayCloseV3",
        "Drops what a TensorArray holds, before the run ends.",
    )
    .not_differentiable()
    .kernel(
        KernelDefinition::direct(|context| {
            cell(context)?.open()?.close();
            Ok(())
        })
        .data_dependent(),
    )
}

fn cell(context: &KernelContext<'_>) -> Result<Arc<TensorArrayCell>> {
    context.object(0)
}

/// The scalar that input `index` is.
fn number(context: &KernelContext<'_>, index: usize) -> Result<i32> {
    match context.input::<i32>(index)? {
        [number] => Ok(*number),
        _ => Err(Error::invalid_argument(format!("input {index} must be a scalar")).got(context.input_shape(index))),
    }
}

/// Passes the flow on.
fn flow(context: &mut KernelContext<'_>, from: usize, to: usize) -> Result<()> {
    let flow = context.stored_input(from)?;
    context.set_stored_output(to, flow)
}

fn of_dtype(value: StoredTensor, dtype: DType) -> Result<StoredTensor> {
    if value.dtype() != dtype {
        return Err(Error::invalid_argument("the TensorArray is of another dtype")
            .expected(dtype)
            .got(value.dtype()));
    }
    Ok(value)
}

fn check_compatible(elements: &PartialShape, wanted: &PartialShape) -> Result<()> {
    if !elements.is_compatible_with(wanted) {
        return Err(Error::invalid_argument("the TensorArray's elements have another shape")
            .expected(wanted)
            .got(elements));
    }
    Ok(())
}

/// The shape of elements of which there are none to look at.
fn known(shape: &PartialShape) -> Result<Shape> {
    shape
        .to_shape()
        .ok_or_else(|| Error::unimplemented("no elements of a shape that is not known").got(shape))
}
