//! Parts and sums of tensors in the memory of whichever device has them.

use std::sync::Arc;

use graph_core::accelerator::{Accelerator, DeviceTensor, StoredTensor};
use graph_core::{Complex, DType, Element, Error, Result, Shape, Value};
use graph_cuda::Cuda;
use half::{bf16, f16};

use crate::cuda::elementwise::Flat;
use crate::cuda::{self, NOWHERE};

/// The elements of the tensors one after the other, as a tensor of this shape; on the accelerator, if there is one.
///
/// # Errors
/// `ResourceExhausted`, and the device's.
pub(super) fn joined(
    dtype: DType,
    shape: Shape,
    parts: Vec<StoredTensor>,
    accelerator: Option<&Arc<dyn Accelerator>>,
) -> Result<StoredTensor> {
    if let Some(accelerator) = accelerator {
        let whole = DeviceTensor::new(accelerator, dtype, shape)?;
        let mut to = 0;
        for part in parts {
            let part = part.into_device(accelerator)?;
            accelerator.copy(
                part.memory.address(),
                whole.memory.address().offset(to),
                part.memory.len(),
            )?;
            to += part.memory.len();
        }
        return Ok(StoredTensor::Device(whole));
    }
    let values = parts
        .into_iter()
        .map(StoredTensor::into_host)
        .collect::<Result<Vec<_>>>()?;
    if dtype == DType::String {
        let strings = values.iter().map(Value::as_strings).collect::<Result<Vec<_>>>()?;
        return Value::from_strings(shape, strings.concat()).map(StoredTensor::Host);
    }
    let parts: Vec<&[u8]> = values.iter().map(Value::bytes).collect();
    Value::from_bytes(dtype, shape, &parts.concat()).map(StoredTensor::Host)
}

/// `count` parts of a tensor along its first axis, from `start` on, as a tensor of shape `shape`, in the same memory.
///
/// # Errors
/// `ResourceExhausted`, the device's, and `Unimplemented` for handles.
pub(super) fn rows_of(tensor: &StoredTensor, start: usize, count: usize, shape: Shape) -> Result<StoredTensor> {
    let len = tensor.shape()[1..].iter().product::<usize>();
    let range = start * len..(start + count) * len;
    let dtype = tensor.dtype();
    if let (StoredTensor::Host(value), DType::String) = (tensor, dtype) {
        return Value::from_strings(shape, value.as_strings()?[range].to_vec()).map(StoredTensor::Host);
    }
    let size = dtype
        .size()
        .ok_or_else(|| Error::unimplemented("elements of this dtype").got(dtype))?;
    let (from, to) = (range.start * size, range.end * size);
    match tensor {
        StoredTensor::Host(value) => Value::from_bytes(dtype, shape, &value.bytes()[from..to]).map(StoredTensor::Host),
        StoredTensor::Device(whole) => {
            let accelerator = whole.memory.accelerator();
            let part = DeviceTensor::new(accelerator, dtype, shape)?;
            accelerator.copy(whole.memory.address().offset(from), part.memory.address(), to - from)?;
            Ok(StoredTensor::Device(part))
        }
    }
}

/// `a + b` of one dtype and shape, in the memory where `a` is.
///
/// # Errors
/// `Unimplemented` for dtypes that do not add up, and the device's.
pub(super) fn added(a: &StoredTensor, b: &StoredTensor) -> Result<StoredTensor> {
    if let StoredTensor::Device(tensor) = a
        && cuda::type_name(tensor.dtype).is_ok()
    {
        return added_on_device(tensor, b.clone()).map(StoredTensor::Device);
    }
    added_on_host(&a.clone().into_host()?, &b.clone().into_host()?).map(StoredTensor::Host)
}

fn added_on_device(a: &DeviceTensor, b: StoredTensor) -> Result<DeviceTensor> {
    let accelerator = a.memory.accelerator();
    let (dtype, len) = (a.dtype, a.shape.num_elements());
    let cuda = Cuda::behind(accelerator).ok_or_else(|| Error::internal("a tensor of another kind of device"))?;
    let add = Flat::new(&cuda, (dtype, len), &["x", "y"], "x + y")?;
    let (b, sum) = (
        b.into_device(accelerator)?,
        DeviceTensor::new(accelerator, dtype, a.shape.clone())?,
    );
    if len > 0 {
        // SAFETY: all three are of `len` elements of the dtype.
        unsafe { add.run(sum.memory.address(), [a.memory.address(), b.memory.address(), NOWHERE])? };
    }
    Ok(sum)
}

fn added_on_host(a: &Value, b: &Value) -> Result<Value> {
    fn sum<T: Element>(a: &Value, b: &Value, add: fn(T, T) -> T) -> Result<Value> {
        let pairs = a.as_slice::<T>()?.iter().zip(b.as_slice::<T>()?);
        Value::from_vec(a.shape().clone(), pairs.map(|(&a, &b)| add(a, b)).collect::<Vec<T>>())
    }
    match a.dtype() {
        DType::Float32 => sum::<f32>(a, b, |a, b| a + b),
        DType::Float64 => sum::<f64>(a, b, |a, b| a + b),
        DType::Half => sum::<f16>(a, b, |a, b| a + b),
        DType::BFloat16 => sum::<bf16>(a, b, |a, b| a + b),
        DType::Int32 => sum(a, b, i32::wrapping_add),
        DType::Int64 => sum(a, b, i64::wrapping_add),
        DType::Complex64 => sum::<Complex<f32>>(a, b, |a, b| a + b),
        DType::Complex128 => sum::<Complex<f64>>(a, b, |a, b| a + b),
        dtype => Err(Error::unimplemented("gradients of this dtype do not add up").got(dtype)),
    }
}
