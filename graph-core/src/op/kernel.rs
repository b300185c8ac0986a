//! What a kernel is: made once when a plan is made, run in every step.
//!
//! A [`KernelDefinition`] says on which device and for which dtypes a kernel serves, and what the planner may do with its
//! buffers. Its `make` function reads attributes, shapes and plan-time values from a [`KernelRequest`] and returns the
//! kernel as a closure over what it found. Running it gets a [`KernelContext`] with inputs and outputs that are already
//! allocated, except for kernels whose output shapes only the data can tell.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use crate::accelerator::{Accelerator, DeviceAddress, DeviceMemory, DeviceTensor};
use crate::buffer::Buffer;
use crate::dtype::{DType, Element};
use crate::error::{Error, OpSite, Result};
use crate::op::attr::{Attributes, FromAttr};
use crate::shape::{PartialShape, Shape};
use crate::value::Value;

/// The kind of device that a kernel runs on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum DeviceKind {
    /// The host's processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// Makes a kernel for one node of a plan.
pub type MakeKernel = fn(&KernelRequest<'_>) -> Result<Planned>;

/// What a kernel does in a step, if that is the same for every node.
pub type RunKernel = fn(&mut KernelContext<'_>) -> Result<()>;

/// Where a node's kernel comes from.
#[derive(Clone, Copy)]
enum Source {
    Made(MakeKernel),
    Same(RunKernel),
}

/// What a stateful kernel keeps in the session, under its node: a random stream, a counter.
pub trait KernelState: Any + Send {
    /// The state as a value, from which [`KernelState::restore`] makes the same state again, in another process too.
    fn save(&self) -> Value;

    /// Becomes the state that was saved.
    ///
    /// # Errors
    /// `InvalidArgument` for a value that is none of the state's; it does not change then.
    fn restore(&mut self, saved: &Value) -> Result<()>;
}

/// A counter: an `int64` scalar.
impl KernelState for i64 {
    fn save(&self) -> Value {
        Value::scalar(*self)
    }

    fn restore(&mut self, saved: &Value) -> Result<()> {
        *self = saved.to_scalar()?;
        Ok(())
    }
}

/// Makes the state that a stateful kernel keeps in the session, under its node.
pub type MakeState = fn(&Attributes) -> Result<Box<dyn KernelState>>;

/// A kernel of an op: where and for what it serves, and how it is made.
#[derive(Clone)]
pub struct KernelDefinition {
    /// The device.
    pub device: DeviceKind,
    /// The dtypes it serves for each type attribute; an attribute that is not named may be any.
    pub types: Vec<(&'static str, &'static [DType])>,
    /// Pairs of an input and an output that may share memory: the kernel reads each element of the input before it writes
    /// the same element of the output.
    pub in_place: Vec<(usize, usize)>,
    /// Whether the kernel, which changes a variable, reads each element of its other inputs before it changes the element at
    /// the same place, so that they may lie in the variable's own memory.
    pub reads_before_update: bool,
    /// An input and an output that are the same memory: the kernel does nothing, as for `Identity` and `Reshape`.
    pub alias: Option<(usize, usize)>,
    /// Inputs that live on the host even on another device.
    pub host_inputs: Vec<usize>,
    /// Outputs that live on the host even on another device.
    pub host_outputs: Vec<usize>,
    /// Whether only the data can tell the output shapes: the kernel allocates its outputs itself.
    pub data_dependent: bool,
    /// Makes the session's state for the node, if it keeps one.
    pub state: Option<MakeState>,
    source: Source,
}

impl KernelDefinition {
    /// A kernel for the CPU, made for each node.
    pub fn cpu(make: MakeKernel) -> Self {
        Self::on_cpu(Source::Made(make))
    }

    /// A kernel for the CPU that is the same for every node.
    pub fn direct(run: RunKernel) -> Self {
        Self::on_cpu(Source::Same(run))
    }

    /// A kernel for CUDA, made for each node whose shapes are known. Its `run` gives work to the device and neither allocates
    /// nor waits: the work may be recorded once and replayed after. What changes from step to step on the host's side comes by
    /// [`Planned::with_parameters`].
    pub fn cuda(make: MakeKernel) -> Self {
        Self {
            device: DeviceKind::Cuda,
            ..Self::on_cpu(Source::Made(make))
        }
    }

    fn on_cpu(source: Source) -> Self {
        Self {
            device: DeviceKind::Cpu,
            types: Vec::new(),
            in_place: Vec::new(),
            reads_before_update: false,
            alias: None,
            host_inputs: Vec::new(),
            host_outputs: Vec::new(),
            data_dependent: false,
            state: None,
            source,
        }
    }

    /// The kernel for one node of a plan.
    ///
    /// # Errors
    /// What the op's definition says of bad attributes, shapes and plan-time values.
    pub fn make(&self, request: &KernelRequest<'_>) -> Result<Planned> {
        match self.source {
            Source::Made(make) => make(request),
            Source::Same(run) => Ok(Planned::new(run)),
        }
    }

    /// A kernel that only passes input 0 on as output 0, as it is, on any device: `Identity`, `Reshape`.
    pub fn alias() -> Self {
        let mut kernel = Self::direct(|_| Ok(()));
        kernel.alias = Some((0, 0));
        kernel
    }

    /// Restricts a type attribute to these dtypes.
    pub fn types(mut self, attr: &'static str, dtypes: &'static [DType]) -> Self {
        self.types.push((attr, dtypes));
        self
    }

    /// Lets `output` share the memory of `input`.
    pub fn in_place(mut self, input: usize, output: usize) -> Self {
        self.in_place.push((input, output));
        self
    }

    /// Says that input `input` lives on the host even on another device. Plan-time inputs do so anyway.
    pub fn host_input(mut self, input: usize) -> Self {
        self.host_inputs.push(input);
        self
    }

    /// Says that output `output` lives on the host even on another device.
    pub fn host_output(mut self, output: usize) -> Self {
        self.host_outputs.push(output);
        self
    }

    /// Lets inputs lie in the memory of the variable that the kernel changes.
    pub fn reads_before_update(mut self) -> Self {
        self.reads_before_update = true;
        self
    }

    /// Says that the kernel allocates its outputs itself.
    pub fn data_dependent(mut self) -> Self {
        self.data_dependent = true;
        self
    }

    /// Keeps a state in the session.
    pub fn state(mut self, make: MakeState) -> Self {
        self.state = Some(make);
        self
    }

    /// Whether the kernel serves a node with these attributes.
    pub fn serves(&self, attrs: &Attributes) -> bool {
        self.types.iter().all(|(name, dtypes)| match attrs.get(name) {
            Some(crate::op::AttrValue::Type(dtype)) => dtypes.contains(dtype),
            Some(crate::op::AttrValue::TypeList(list)) => list.iter().all(|dtype| dtypes.contains(dtype)),
            _ => true,
        })
    }
}

/// What a kernel does in a step.
pub trait Kernel: Send + Sync {
    /// Reads the inputs and writes the outputs.
    ///
    /// # Errors
    /// What the op's definition says of bad data; the executor adds the operation's name.
    fn run(&self, context: &mut KernelContext<'_>) -> Result<()>;
}

impl<F: Fn(&mut KernelContext<'_>) -> Result<()> + Send + Sync> Kernel for F {
    fn run(&self, context: &mut KernelContext<'_>) -> Result<()> {
        self(context)
    }
}

/// A kernel that is ready to run, and what it needs.
pub struct Planned {
    /// The kernel.
    pub kernel: Box<dyn Kernel>,
    /// Bytes of scratch memory it wants in each run.
    pub scratch: usize,
    /// On an accelerator: what the host tells each run of it.
    pub parameters: Option<Parameters>,
}

/// Writes what the host tells a run of a kernel on an accelerator: random keys, counters.
pub type WriteParameters = Box<dyn Fn(&mut KernelContext<'_>, &mut [u8]) -> Result<()> + Send + Sync>;

/// What the host tells each run of a kernel on an accelerator.
pub struct Parameters {
    /// How many bytes.
    pub bytes: usize,
    /// Writes them, on the host, before each run. It may use the node's state, but no data.
    pub write: WriteParameters,
}

impl Planned {
    /// A kernel that needs no scratch memory.
    pub fn new(kernel: impl Fn(&mut KernelContext<'_>) -> Result<()> + Send + Sync + 'static) -> Self {
        Self {
            kernel: Box::new(kernel),
            scratch: 0,
            parameters: None,
        }
    }

    /// Has the host write `bytes` bytes before each run, which the kernel finds in the device's memory at
    /// [`KernelContext::parameters_address`], aligned to 16.
    pub fn with_parameters(
        mut self,
        bytes: usize,
        write: impl Fn(&mut KernelContext<'_>, &mut [u8]) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.parameters = Some(Parameters {
            bytes,
            write: Box::new(write),
        });
        self
    }

    /// Asks for scratch memory.
    pub fn with_scratch(mut self, bytes: usize) -> Self {
        self.scratch = bytes;
        self
    }
}

/// The node that a kernel is made for: everything that is known when a plan is made.
pub struct KernelRequest<'a> {
    /// The node's attributes, defaults included.
    pub attrs: &'a Attributes,
    /// The dtypes of the inputs.
    pub input_dtypes: &'a [DType],
    /// The shapes of the inputs.
    pub input_shapes: &'a [Shape],
    /// The values of the inputs, where known; always those of the op's plan-time inputs.
    pub input_values: &'a [Option<Value>],
    /// The dtypes of the outputs.
    pub output_dtypes: &'a [DType],
    /// The shapes of the outputs; `None` for those that the kernel allocates itself.
    pub output_shapes: &'a [Option<Shape>],
    /// The device, unless it is the host's processor.
    pub accelerator: Option<&'a Arc<dyn Accelerator>>,
}

impl KernelRequest<'_> {
    /// The attribute `name`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is missing or of another kind.
    pub fn attr<T: FromAttr>(&self, name: &str) -> Result<T> {
        self.attrs.read(name)
    }

    /// The shape of input `index`.
    pub fn input_shape(&self, index: usize) -> &Shape {
        &self.input_shapes[index]
    }

    /// The dtype of input `index`.
    pub fn input_dtype(&self, index: usize) -> DType {
        self.input_dtypes[index]
    }

    /// The dtype of output `index`.
    pub fn output_dtype(&self, index: usize) -> DType {
        self.output_dtypes[index]
    }

    /// The shape of output `index`.
    ///
    /// # Errors
    /// `Internal` if only the kernel can tell it.
    pub fn output_shape(&self, index: usize) -> Result<&Shape> {
        self.output_shapes[index].as_ref().ok_or_else(|| {
            Error::internal(format!(
                "the shape of output {index} is not known before the kernel runs"
            ))
        })
    }

    /// The value of plan-time input `index`.
    ///
    /// # Errors
    /// `Internal` if the op's definition does not name it as a plan-time input.
    pub fn value(&self, index: usize) -> Result<&Value> {
        self.input_values[index]
            .as_ref()
            .ok_or_else(|| Error::internal(format!("input {index} is not declared as a plan-time input")))
    }

    /// The number of inputs, lists counted by their members.
    pub fn num_inputs(&self) -> usize {
        self.input_shapes.len()
    }

    /// The number of outputs, lists counted by their members.
    pub fn num_outputs(&self) -> usize {
        self.output_dtypes.len()
    }
}

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
    /// What this handle names, unless it is a variable.
    pub(crate) object: Option<Object>,
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
        slot.shape = value.shape().clone();
        slot.data = value.bytes().as_ptr().cast_mut();
        slot.value = Some(value);
        slot.dead = false;
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
        let (variable, object) = (source.variable, source.object.clone());
        let slot = &mut self.slots[self.outputs[output] as usize];
        (slot.data, slot.shape, slot.value, slot.dead, slot.variable) = (data, shape, value, dead, variable);
        slot.object = object;
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
        slot.value = None;
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
        let bytes = dtype
            .size()
            .and_then(|size| shape.num_elements().checked_mul(size))
            .ok_or_else(|| Error::internal("a variable whose elements have no fixed size is not on an accelerator"))?;
        match &mut cell.on_device {
            Some(tensor) if tensor.memory.len() == bytes => {
                tensor.dtype = dtype;
                if tensor.shape != *shape {
                    tensor.shape = shape.clone();
                }
            }
            _ => {
                cell.on_device = Some(DeviceTensor {
                    memory: DeviceMemory::new(accelerator, bytes)?,
                    dtype,
                    shape: shape.clone(),
                });
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
