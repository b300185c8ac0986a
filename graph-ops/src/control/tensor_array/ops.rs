//! The ops of TensorArrays, and their kernels.

use std::sync::Arc;

use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition, Planned};
use graph_core::{DType, Error, PartialShape, Result, Shape, Value};

use super::elements::{TensorArrayCell, Traits};
use super::gradients;

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
        InferenceContext::scalars(context)
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

/// The kernel that runs a function, which makes the outputs itself.
macro_rules! running {
    ($run:expr) => {
        KernelDefinition::direct($run).data_dependent()
    };
}

/// `TensorArrayGradV3`
pub(crate) fn grad() -> OpDefinition {
    of_array(
        "TensorArrayGradV3",
        "The array of the gradients of a TensorArray's elements, in which writes add up.",
    )
    .input("flow_in: float")
    .output("grad_handle: resource")
    .output("flow_out: float")
    .attr("source: string")
    .shape(InferenceContext::scalars)
    .not_differentiable()
    .kernel(
        KernelDefinition::cpu(|request| {
            let source: String = request.attr("source")?;
            Ok(Planned::new(move |context| make_gradients(context, &source, &[])))
        })
        .data_dependent(),
    )
}

/// `TensorArrayGradWithShape`
pub(crate) fn grad_with_shape() -> OpDefinition {
    of_array(
        "TensorArrayGradWithShape",
        "As TensorArrayGradV3, for gradients that have more dimensions in front.",
    )
    .input("flow_in: float")
    .input("shape_to_prepend: int32")
    .output("grad_handle: resource")
    .output("flow_out: float")
    .attr("source: string")
    .shape(InferenceContext::scalars)
    .not_differentiable()
    .kernel(
        KernelDefinition::cpu(|request| {
            let source: String = request.attr("source")?;
            Ok(Planned::new(move |context| {
                let dims = context.input::<i32>(2)?.iter().map(|&dim| {
                    usize::try_from(dim)
                        .map_err(|_| Error::invalid_argument("the shape to prepend has a negative dimension").got(dim))
                });
                let dims: Vec<usize> = dims.collect::<Result<_>>()?;
                make_gradients(context, &source, &dims)
            }))
        })
        .data_dependent(),
    )
}

fn make_gradients(context: &mut KernelContext<'_>, source: &str, prepended: &[usize]) -> Result<()> {
    let gradients = cell(context)?.open()?.gradients(source, prepended);
    context.set_object(0, gradients);
    flow(context, 1, 1)
}

/// `TensorArrayWriteV3`
pub(crate) fn write() -> OpDefinition {
    of_array("TensorArrayWriteV3", "Sets an element of a TensorArray.")
        .input("index: int32")
        .input("value: T")
        .input("flow_in: float")
        .output("flow_out: float")
        .attr("T: type")
        .shape(|context| {
            context.with_rank(1, 0)?;
            InferenceContext::scalars(context)
        })
        .gradient(gradients::of_write)
        .kernel(running!(|context: &mut KernelContext<'_>| {
            let (index, value) = (number(context, 1)?, context.input_value(2)?);
            cell(context)?.open()?.write(index.into(), value)?;
            flow(context, 3, 0)
        }))
}

/// `TensorArrayReadV3`
pub(crate) fn read() -> OpDefinition {
    of_array("TensorArrayReadV3", "An element of a TensorArray.")
        .input("index: int32")
        .input("flow_in: float")
        .output("value: dtype")
        .attr("dtype: type")
        .shape(|context| {
            context.with_rank(1, 0)?;
            InferenceContext::unknown_shapes(context)
        })
        .gradient(gradients::of_read)
        .kernel(
            KernelDefinition::cpu(|request| {
                let dtype = request.output_dtype(0);
                Ok(Planned::new(move |context| {
                    let index = number(context, 1)?;
                    let value = cell(context)?.open()?.read(index.into())?;
                    context.set_output(0, of_dtype(value, dtype)?);
                    Ok(())
                }))
            })
            .data_dependent(),
        )
}

/// `TensorArrayGatherV3`
pub(crate) fn gather() -> OpDefinition {
    of_array(
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
    .gradient(gradients::of_gather)
    .kernel(
        KernelDefinition::cpu(|request| {
            let (dtype, wanted) = (request.output_dtype(0), request.attr("element_shape")?);
            Ok(Planned::new(move |context| {
                let indices = context.input::<i32>(1)?;
                let mut values = Vec::with_capacity(indices.len());
                {
                    let array = cell(context)?;
                    let mut elements = array.open()?;
                    check_compatible(elements.element_shape(), &wanted)?;
                    for &index in indices {
                        values.push(of_dtype(elements.read(index.into())?, dtype)?);
                    }
                }
                let shape = match values.first() {
                    Some(first) => first.shape().clone(),
                    None => known(&wanted)?,
                };
                if let Some(other) = values.iter().find(|value| *value.shape() != shape) {
                    return Err(Error::invalid_argument("the elements differ in shape")
                        .expected(shape)
                        .got(other.shape()));
                }
                let stacked = Shape::new(&[&[values.len()], shape.dims()].concat());
                context.set_output(0, joined(dtype, stacked, &values)?);
                Ok(())
            }))
        })
        .data_dependent(),
    )
}

/// `TensorArrayScatterV3`
pub(crate) fn scatter() -> OpDefinition {
    of_array(
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
    .gradient(gradients::of_scatter)
    .kernel(running!(|context: &mut KernelContext<'_>| {
        let (indices, value) = (context.input::<i32>(1)?, context.input_value(2)?);
        let rows = value.shape().first().copied();
        if rows != Some(indices.len()) {
            return Err(
                Error::invalid_argument("there must be an index for each part of the value")
                    .expected(format!("{} parts", indices.len()))
                    .got(value.shape()),
            );
        }
        let array = cell(context)?;
        let mut elements = array.open()?;
        for (row, &index) in indices.iter().enumerate() {
            let part = rows_of(&value, row, 1)?;
            let shape = Shape::new(&value.shape()[1..]);
            elements.write(index.into(), part.reshaped(shape)?)?;
        }
        drop(elements);
        flow(context, 3, 0)
    }))
}

/// `TensorArrayConcatV3`
pub(crate) fn concat() -> OpDefinition {
    of_array(
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
    .gradient(gradients::of_concat)
    .kernel(
        KernelDefinition::cpu(|request| {
            let (dtype, wanted) = (request.output_dtype(0), request.attr("element_shape_except0")?);
            Ok(Planned::new(move |context| {
                let array = cell(context)?;
                let mut elements = array.open()?;
                let values = (0..elements.size() as i64).map(|index| of_dtype(elements.read(index)?, dtype));
                let values: Vec<Value> = values.collect::<Result<_>>()?;
                drop(elements);
                let rest = match values.first() {
                    Some(first) => Shape::new(first.shape().get(1..).unwrap_or_default()),
                    None => known(&wanted)?,
                };
                let mut lengths = Vec::with_capacity(values.len());
                for value in &values {
                    match value.shape().split_first() {
                        Some((&length, behind)) if behind == rest.dims() => lengths.push(length as i64),
                        _ => {
                            return Err(Error::invalid_argument("the elements differ behind their first axis")
                                .expected(format!("a first axis and {rest}"))
                                .got(value.shape()));
                        }
                    }
                }
                let total = lengths.iter().sum::<i64>() as usize;
                let shape = Shape::new(&[&[total], rest.dims()].concat());
                context.set_output(0, joined(dtype, shape, &values)?);
                context.set_output(1, Value::from(lengths));
                Ok(())
            }))
        })
        .data_dependent(),
    )
}

/// `TensorArraySplitV3`
pub(crate) fn split() -> OpDefinition {
    of_array(
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
    .gradient(gradients::of_split)
    .kernel(running!(|context: &mut KernelContext<'_>| {
        let (value, lengths) = (context.input_value(1)?, context.input::<i64>(2)?);
        let total = lengths
            .iter()
            .try_fold(0usize, |sum, &length| sum.checked_add(length.try_into().ok()?));
        if total.is_none() || value.shape().first().copied() != total {
            return Err(
                Error::invalid_argument("the lengths must add up to the length of the first axis")
                    .expected(value.shape())
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
            elements.write(index, rows_of(&value, start, length as usize)?)?;
            start += length as usize;
        }
        drop(elements);
        flow(context, 3, 0)
    }))
}

/// `TensorArraySizeV3`
pub(crate) fn size() -> OpDefinition {
    of_array("TensorArraySizeV3", "The number of elements of a TensorArray.")
        .input("flow_in: float")
        .output("size: int32")
        .shape(InferenceContext::scalars)
        .not_differentiable()
        .kernel(running!(|context: &mut KernelContext<'_>| {
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
    .kernel(running!(|context: &mut KernelContext<'_>| {
        cell(context)?.open()?.close();
        Ok(())
    }))
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
    let flow = context.input_value(from)?;
    context.set_output(to, flow);
    Ok(())
}

fn of_dtype(value: Value, dtype: DType) -> Result<Value> {
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

/// The elements of the values one after the other, as a value of this shape.
fn joined(dtype: DType, shape: Shape, values: &[Value]) -> Result<Value> {
    if dtype == DType::String {
        let strings = values.iter().map(Value::as_strings).collect::<Result<Vec<_>>>()?;
        return Value::from_strings(shape, strings.concat());
    }
    let parts: Vec<&[u8]> = values.iter().map(Value::bytes).collect();
    Value::from_bytes(dtype, shape, &parts.concat())
}

/// `count` parts of a value along its first axis.
fn rows_of(value: &Value, start: usize, count: usize) -> Result<Value> {
    let rest = &value.shape()[1..];
    let (len, shape) = (rest.iter().product::<usize>(), Shape::new(&[&[count], rest].concat()));
    let range = start * len..(start + count) * len;
    if value.dtype() == DType::String {
        return Value::from_strings(shape, value.as_strings()?[range].to_vec());
    }
    let size = value
        .dtype()
        .size()
        .ok_or_else(|| Error::unimplemented("elements of this dtype").got(value.dtype()))?;
    Value::from_bytes(
        value.dtype(),
        shape,
        &value.bytes()[range.start * size..range.end * size],
    )
}
