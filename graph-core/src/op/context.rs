//! What a running kernel sees: its inputs and outputs, in memory that the plan has given them, its state and variables.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use crate::accelerator::{Accelerator, DeviceAddress, DeviceMemory, DeviceTensor, StoredTensor, bytes_of};
use crate::buffer::Buffer;
use crate::dtype::{DType, Element};
use crate::error::{Error, OpSite, Result};
use crate::op::kernel::KernelState;
use crate::shape::{PartialShape, Shape};
use crate::value::Value;

/// A variable's value in a session; `None` before it is initialized.
#[derive(Default)]
pub struct VariableCell {
    /// The value, where the host has it.
    pub value: Option<Value>,
    /// The value, where an accelerator has it; then the host has none.
    pub on_device: Option<DeviceTensor>,
    /// The shape that the graph gives the variable, which its first value must have.
    pub declared: PartialShape,
}

impl VariableCell {
    /// The value's dtype and shape; `None` before it is initialized.
    pub fn extent(&self) -> Option<(DType, &Shape)> {
        let device = self.on_device.as_ref().map(|tensor| (tensor.dtype, &tensor.shape));
        device.or_else(|| self.value.as_ref().map(|value| (value.dtype(), value.shape())))
    }

    /// Whether it has a value.
    pub fn is_initialized(&self) -> bool {
        self.value.is_some() || self.on_device.is_some()
    }

    /// Where the value lies, in the memory of the device that has it.
    pub(crate) fn data(&self) -> Option<*mut u8> {
        let device = self
            .on_device
            .as_ref()
            .map(|tensor| tensor.memory.address().0 as *mut u8);
        device.or_else(|| self.value.as_ref().map(|value| value.bytes().as_ptr().cast_mut()))
    }
}

/// A tensor while a plan runs.
///
/// `data` is an address in the memory of the plan's device (on CUDA not one that the host may read), valid for the bytes of
/// `shape` and `dtype` from the step that writes it to the last step that reads it.
pub(crate) struct Slot {
    pub(crate) data: *mut u8,
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
    /// Set when a Switch did not take this way.
    pub(crate) dead: bool,
    /// The variable this is a reference to.
    pub(crate) variable: Option<usize>,
    /// What owns the data if it is not the arena: a feed, a constant, a dynamic result; always for strings.
    pub(crate) value: Option<Value>,
    /// What owns the data on an accelerator if it is not the arena: a dynamic result.
    pub(crate) memory: Option<Arc<DeviceMemory>>,
    /// What this handle names, unless it is a variable.
    pub(crate) object: Option<Object>,
}

impl Slot {
    /// A slot whose data is not there yet.
    pub(crate) fn empty(dtype: DType, shape: Shape) -> Self {
        Self {
            data: crate::buffer::ALIGNMENT as *mut u8,
            dtype,
            shape,
            dead: false,
            variable: None,
            value: None,
            memory: None,
            object: None,
        }
    }

    /// Lets go of what owns the data.
    pub(crate) fn release(&mut self) {
        (self.value, self.memory) = (None, None);
    }

    /// Takes a value of the host's.
    pub(crate) fn set_host(&mut self, value: Value) {
        self.data = value.bytes().as_ptr().cast_mut();
        self.shape = value.shape().clone();
        (self.value, self.memory) = (Some(value), None);
    }

    /// Takes a tensor in an accelerator's memory.
    pub(crate) fn set_device(&mut self, tensor: DeviceTensor) {
        self.data = tensor.memory.address().0 as *mut u8;
        self.shape = tensor.shape;
        (self.value, self.memory) = (None, Some(tensor.memory));
    }
}

/// What lives no longer than a run and is named by handles.
pub(crate) type Object = Arc<dyn Any + Send + Sync>;

/// A running kernel's view of its inputs, outputs, state and variables.
pub struct KernelContext<'a> {
    pub(crate) slots: &'a mut [Slot],
    pub(crate) inputs: &'a [u32],
    pub(crate) outputs: &'a [u32],
    pub(crate) scratch: (*mut u8, usize),
    pub(crate) state: Option<&'a mut dyn KernelState>,
    pub(crate) variables: &'a mut [VariableCell],
    /// Which outputs have been handed out for writing, as a bit set.
    pub(crate) taken: Cell<u64>,
    /// Whether the planner has put an output over an input.
    pub(crate) in_place: bool,
    /// The device that it runs on and its parameters there, unless it is the host's processor.
    pub(crate) accelerator: Option<(&'a Arc<dyn Accelerator>, DeviceAddress)>,
    pub(crate) site: &'a dyn Fn() -> OpSite,
}

impl<'a> KernelContext<'a> {
    fn input_slot(&self, index: usize) -> &Slot {
        &self.slots[self.inputs[index] as usize]
    }

    fn output_slot(&self, index: usize) -> &Slot {
        &self.slots[self.outputs[index] as usize]
    }

    /// The number of inputs, lists counted by their members.
    pub fn num_inputs(&self) -> usize {
        self.inputs.len()
    }

    /// The number of outputs, lists counted by their members.
    pub fn num_outputs(&self) -> usize {
        self.outputs.len()
    }

    /// The shape of input `index`.
    pub fn input_shape(&self, index: usize) -> &Shape {
        &self.input_slot(index).shape
    }

    /// The dtype of input `index`.
    pub fn input_dtype(&self, index: usize) -> DType {
        self.input_slot(index).dtype
    }

    /// The shape of output `index`.
    pub fn output_shape(&self, index: usize) -> &Shape {
        &self.output_slot(index).shape
    }

    /// The elements of input `index`.
    ///
    /// # Errors
    /// `Internal` if it has another dtype, or if it shares memory with an output (only kernels declared `in_place` meet
    /// that; they use [`KernelContext::input_ptr`]).
    pub fn input<T: Element>(&self, index: usize) -> Result<&'a [T]> {
        let slot = self.input_slot(index);
        if self.in_place
            && self
                .outputs
                .iter()
                .any(|&output| self.slots[output as usize].data == slot.data)
        {
            return Err(Error::internal(format!("input {index} shares memory with an output")));
        }
        let pointer = self.input_ptr::<T>(index)?;
        // SAFETY: slots are valid for their dtype and shape while the step runs (`'a`), outputs are other memory (checked).
        Ok(unsafe { std::slice::from_raw_parts(pointer, slot.shape.num_elements()) })
    }

    /// The address of input `index`, which may be that of an output if the kernel is declared `in_place`.
    ///
    /// # Errors
    /// `Internal` if it has another dtype.
    pub fn input_ptr<T: Element>(&self, index: usize) -> Result<*const T> {
        let slot = self.input_slot(index);
        check_dtype::<T>("input", index, slot.dtype)?;
        Ok(slot.data.cast_const().cast::<T>())
    }

    /// The elements of output `index`, to be written; what they held before is anything that was in that memory.
    ///
    /// # Errors
    /// `Internal` if it has another dtype or was handed out before.
    pub fn output<T: Element>(&self, index: usize) -> Result<&'a mut [T]> {
        let pointer = self.output_ptr::<T>(index)?;
        if self.in_place {
            let address = self.output_slot(index).data;
            if self
                .inputs
                .iter()
                .any(|&input| self.slots[input as usize].data == address)
            {
                return Err(Error::internal(format!("output {index} shares memory with an input")));
            }
        }
        // SAFETY: as for inputs; `output_ptr` hands each output out once, and no other slot overlaps it.
        Ok(unsafe { std::slice::from_raw_parts_mut(pointer, self.output_slot(index).shape.num_elements()) })
    }

    /// The address of output `index`, which may be that of an input if the kernel is declared `in_place`.
    ///
    /// # Errors
    /// `Internal` if it has another dtype or was handed out before.
    pub fn output_ptr<T: Element>(&self, index: usize) -> Result<*mut T> {
        let slot = self.output_slot(index);
        check_dtype::<T>("output", index, slot.dtype)?;
        let bit = 1u64.checked_shl(index as u32).unwrap_or(0);
        if self.taken.get() & bit != 0 {
            return Err(Error::internal(format!("output {index} was handed out twice")));
        }
        self.taken.set(self.taken.get() | bit);
        Ok(slot.data.cast::<T>())
    }

    /// The byte strings of input `index`.
    ///
    /// # Errors
    /// `Internal` if it has another dtype.
    pub fn input_strings(&self, index: usize) -> Result<&[Vec<u8>]> {
        let slot = self.input_slot(index);
        match &slot.value {
            Some(value) if slot.dtype == DType::String => value.as_strings(),
            _ => Err(Error::internal(format!("input {index} holds no strings"))),
        }
    }

    /// Input `index` as a value; a copy unless a value owns it already.
    ///
    /// # Errors
    /// `ResourceExhausted` if a copy does not fit into memory.
    pub fn input_value(&self, index: usize) -> Result<Value> {
        slot_value(self.input_slot(index))
    }

    /// Sets output `index` to a value: strings, and results whose shape only the data can tell.
    pub fn set_output(&mut self, index: usize, value: Value) {
        let slot = &mut self.slots[self.outputs[index] as usize];
        slot.set_host(value);
        slot.dead = false;
    }

    /// Input `index` to be kept beyond the step, in the memory where the kernel runs; a copy unless something owns it already.
    ///
    /// # Errors
    /// `ResourceExhausted` if a copy does not fit into memory, and the device's.
    pub fn stored_input(&self, index: usize) -> Result<StoredTensor> {
        let slot = self.input_slot(index);
        let Some((accelerator, _)) = self.accelerator else {
            return slot_value(slot).map(StoredTensor::Host);
        };
        let tensor = match &slot.memory {
            Some(memory) => DeviceTensor {
                memory: memory.clone(),
                dtype: slot.dtype,
                shape: slot.shape.clone(),
            },
            None => {
                let copy = DeviceTensor::new(accelerator, slot.dtype, slot.shape.clone())?;
                accelerator.copy(self.input_address(index), copy.memory.address(), copy.memory.len())?;
                copy
            }
        };
        Ok(StoredTensor::Device(tensor))
    }

    /// Makes output `index`, of a data-dependent kernel, this tensor, in the memory where the kernel runs.
    ///
    /// # Errors
    /// `ResourceExhausted` if it must be copied there and does not fit, and the device's.
    pub fn set_stored_output(&mut self, index: usize, tensor: StoredTensor) -> Result<()> {
        match self.accelerator {
            Some((accelerator, _)) => {
                let tensor = tensor.into_device(accelerator)?;
                let slot = &mut self.slots[self.outputs[index] as usize];
                slot.set_device(tensor);
                slot.dead = false;
            }
            None => self.set_output(index, tensor.into_host()?),
        }
        Ok(())
    }

    /// The accelerator that the kernel runs on; none on the host.
    pub fn accelerator(&self) -> Option<&'a Arc<dyn Accelerator>> {
        self.accelerator.map(|(accelerator, _)| accelerator)
    }

    /// Allocates output `index` of a data-dependent kernel.
    ///
    /// # Errors
    /// `ResourceExhausted` if it does not fit into memory, `Internal` for another dtype.
    pub fn allocate_output<T: Element>(&mut self, index: usize, shape: impl Into<Shape>) -> Result<&'a mut [T]> {
        check_dtype::<T>("output", index, self.output_slot(index).dtype)?;
        self.set_output(index, Value::zeros(T::DTYPE, shape)?);
        // The value was made here, so that nothing else refers to its memory yet.
        self.output::<T>(index)
    }

    /// Makes output `output` the same tensor as input `input`.
    pub fn forward(&mut self, input: usize, output: usize) {
        let source = self.input_slot(input);
        let (data, shape, value, dead) = (source.data, source.shape.clone(), source.value.clone(), source.dead);
        let (variable, object, memory) = (source.variable, source.object.clone(), source.memory.clone());
        let slot = &mut self.slots[self.outputs[output] as usize];
        (slot.data, slot.shape, slot.value, slot.dead, slot.variable) = (data, shape, value, dead, variable);
        (slot.object, slot.memory) = (object, memory);
    }

    /// Makes output `index`, a handle, name `object`, which lives as long as there are handles of it in this run.
    pub fn set_object<T: Any + Send + Sync>(&mut self, index: usize, object: Arc<T>) {
        let slot = &mut self.slots[self.outputs[index] as usize];
        slot.shape = Shape::scalar();
        slot.object = Some(object);
    }

    /// What input `index`, a handle, names.
    ///
    /// # Errors
    /// `InvalidArgument` if it names no object of this type.
    pub fn object<T: Any + Send + Sync>(&self, index: usize) -> Result<Arc<T>> {
        let object = self.input_slot(index).object.clone();
        object
            .and_then(|object| object.downcast::<T>().ok())
            .ok_or_else(|| Error::invalid_argument(format!("input {index} is not a handle of what the op works on")))
    }

    /// Whether input `index` is dead: only `Merge` runs with dead inputs.
    pub fn is_dead(&self, index: usize) -> bool {
        self.input_slot(index).dead
    }

    /// Marks output `index` as dead.
    pub fn set_dead(&mut self, index: usize) {
        let slot = &mut self.slots[self.outputs[index] as usize];
        slot.dead = true;
        slot.release();
    }

    /// The scratch memory asked for, aligned for any element; its contents are arbitrary bytes.
    ///
    /// # Errors
    /// `Internal` if the scratch memory is smaller.
    pub fn scratch<T: Element>(&mut self, len: usize) -> Result<&'a mut [T]> {
        let (start, bytes) = std::mem::replace(&mut self.scratch, (std::ptr::null_mut(), 0));
        if len * size_of::<T>() > bytes || T::DTYPE == DType::Bool {
            return Err(Error::internal(format!(
                "the kernel asked for {bytes} bytes of scratch memory, and wants more"
            )));
        }
        // SAFETY: `start` is valid for `bytes` initialized bytes that nothing else uses in this step, and is handed out once.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.cast::<T>(), len) })
    }

    /// The state that this node keeps in the session.
    ///
    /// # Errors
    /// `Internal` if the kernel's definition makes none, or one of another type.
    pub fn state<S: 'static>(&mut self) -> Result<&mut S> {
        self.state
            .as_deref_mut()
            .and_then(|state| (state as &mut dyn Any).downcast_mut::<S>())
            .ok_or_else(|| Error::internal("the kernel keeps no state of that type"))
    }

    /// The variable that input `index` refers to.
    ///
    /// # Errors
    /// `Internal` if it is not a reference.
    pub fn variable(&mut self, index: usize) -> Result<&mut VariableCell> {
        let variable = self.input_slot(index).variable;
        variable
            .and_then(|variable| self.variables.get_mut(variable))
            .ok_or_else(|| Error::internal(format!("input {index} is not a reference to a variable")))
    }

    /// The value of the variable that input `index` refers to, for writing. The slice is not borrowed from the context, so
    /// that several variables can be updated together; each must be another variable.
    ///
    /// # Errors
    /// `FailedPrecondition` if it is not initialized, `Internal` if it has another dtype.
    pub fn variable_mut<T: Element>(&mut self, index: usize) -> Result<&'a mut [T]> {
        let variable = self.input_slot(index).variable;
        for other in (0..self.inputs.len()).filter(|&other| other != index) {
            if variable.is_some() && self.input_slot(other).variable == variable {
                return Err(Error::invalid_argument(format!(
                    "inputs {index} and {other} are the same variable"
                )));
            }
        }
        let cell = self.variable(index)?;
        let value = cell
            .value
            .as_mut()
            .ok_or_else(|| Error::failed_precondition("the variable is not initialized"))?;
        let elements = value.as_mut_slice::<T>()?;
        // SAFETY: runs of a session take turns and steps of a plan run one after the other, so that while the step runs
        // (`'a`) only this kernel touches the variable, and no other input is the same variable (checked above). The value
        // stays where it is: only `Assign` replaces it, in a step of its own.
        Ok(unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr(), elements.len()) })
    }

    /// The address of input `index` on the accelerator, which may be that of an output if the kernel is declared `in_place`.
    pub fn input_address(&self, index: usize) -> DeviceAddress {
        DeviceAddress(self.input_slot(index).data as u64)
    }

    /// The address of output `index` on the accelerator.
    pub fn output_address(&self, index: usize) -> DeviceAddress {
        DeviceAddress(self.output_slot(index).data as u64)
    }

    /// The address on the accelerator of the scratch memory asked for, aligned to 64 bytes.
    pub fn scratch_address(&self) -> DeviceAddress {
        DeviceAddress(self.scratch.0 as u64)
    }

    /// The address on the accelerator of what [`Planned::with_parameters`] had written.
    ///
    /// # Errors
    /// `Internal` on the host.
    pub fn parameters_address(&self) -> Result<DeviceAddress> {
        let (_, parameters) = self.accelerator.ok_or_else(not_on_accelerator)?;
        Ok(parameters)
    }

    /// The address on the accelerator of the value of the variable that input `index` refers to.
    ///
    /// # Errors
    /// `FailedPrecondition` if it is not initialized, `Internal` if it is not a reference or not on the accelerator.
    pub fn variable_address(&mut self, index: usize) -> Result<DeviceAddress> {
        let cell = self.variable(index)?;
        match &cell.on_device {
            Some(tensor) => Ok(tensor.memory.address()),
            None if cell.value.is_none() => Err(Error::failed_precondition("the variable is not initialized")),
            None => Err(not_on_accelerator()),
        }
    }

    /// Makes the variable that input `index` refers to a tensor of this dtype and shape on the accelerator, to be written;
    /// its address. Memory that fits is kept.
    ///
    /// # Errors
    /// `ResourceExhausted`, `Internal` if it is not a reference or the kernel runs on the host.
    pub fn assign_address(&mut self, index: usize, dtype: DType, shape: &Shape) -> Result<DeviceAddress> {
        let (accelerator, _) = self.accelerator.ok_or_else(not_on_accelerator)?;
        let cell = self.variable(index)?;
        let bytes = bytes_of(dtype, shape)?;
        match &mut cell.on_device {
            Some(tensor) if tensor.memory.len() == bytes => {
                tensor.dtype = dtype;
                if tensor.shape != *shape {
                    tensor.shape = shape.clone();
                }
            }
            _ => {
                cell.on_device = Some(DeviceTensor::new(accelerator, dtype, shape.clone())?);
            }
        }
        cell.value = None;
        self.variable_address(index)
    }

    /// The operation that runs: its name, type and place in the source.
    pub fn site(&self) -> OpSite {
        (self.site)()
    }
}

pub(crate) fn slot_value(slot: &Slot) -> Result<Value> {
    if let Some(value) = &slot.value {
        return Ok(value.clone());
    }
    let size = slot
        .dtype
        .size()
        .ok_or_else(|| Error::internal("a string tensor without a value"))?;
    let bytes = size * slot.shape.num_elements();
    // SAFETY: slots are valid for their dtype and shape.
    let bytes = unsafe {
        std::slice::from_raw_parts(
            if bytes == 0 {
                Buffer::zeroed(0)?.as_ptr()
            } else {
                slot.data
            },
            bytes,
        )
    };
    Ok(Value::from_buffer(
        slot.dtype,
        slot.shape.clone(),
        Arc::new(Buffer::copy_of(bytes)?),
    ))
}

fn not_on_accelerator() -> Error {
    Error::internal("a kernel for an accelerator meets what is on the host")
}

fn check_dtype<T: Element>(what: &str, index: usize, dtype: DType) -> Result<()> {
    if dtype == T::DTYPE {
        return Ok(());
    }
    Err(
        Error::internal(format!("the kernel takes {what} {index} as another dtype"))
            .expected(dtype)
            .got(T::DTYPE),
    )
}
