//! Steps that are made while the plan runs: those of which the run alone tells the shapes, and those that a loop repeats or,
//! on an accelerator, a Switch decides about.
//!
//! Their outputs are values of their own, on the host or in an accelerator's memory. Kernels are kept from one time to the
//! next, for as long as shapes and what they were made of stay the same.

use std::cell::RefCell;
use std::sync::Arc;

use crate::accelerator::{Accelerator, DeviceAddress, DeviceMemory, DeviceTensor};
use crate::buffer::Buffer;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{HandleData, Node};
use crate::op::context::{KernelContext, Slot, VariableCell, slot_value};
use crate::op::kernel::{KernelDefinition, KernelRequest, Planned};
use crate::op::shape_inference::{InferenceContext, InputValues};
use crate::op::{ControlFlow, vocabulary};
use crate::session::accelerate::device_of;
use crate::session::evaluate::evaluate_node;
use crate::session::execute::run_kernel;
use crate::session::placement::Memory;
use crate::session::plan::{Plan, Step, plan_time_inputs};
use crate::session::state::SessionState;
use crate::shape::{PartialShape, Shape};
use crate::value::Value;

/// A kernel that a dynamic step was last run with, and what it was made of.
pub(crate) struct Made {
    /// The shapes of the inputs, where they are known.
    input_shapes: Vec<Option<Shape>>,
    /// What shapes and kernel depend on beside them.
    seen: Seen,
    output_shapes: Vec<Option<Shape>>,
    /// None where the accelerator has no kernel for these shapes, so that the host computes.
    planned: Option<Planned>,
}

/// Values and handles of inputs that were looked at, by the input's position.
#[derive(Default)]
struct Seen {
    values: Vec<(usize, Option<Value>)>,
    handles: Vec<(usize, Option<HandleData>)>,
}

/// Inputs of a step as they are while the plan runs.
struct Inputs<'a> {
    cells: &'a [VariableCell],
    slots: &'a [Slot],
    /// In which memory each tensor lies.
    memory: &'a [Memory],
    inputs: &'a [u32],
}

impl Inputs<'_> {
    fn slot(&self, index: usize) -> &Slot {
        &self.slots[self.inputs[index] as usize]
    }

    /// The shape of an input; a reference tells that of its variable's value, where it has one.
    fn shape(&self, index: usize) -> Option<&Shape> {
        let slot = self.slot(index);
        match slot.variable.filter(|_| slot.dtype != DType::Resource) {
            Some(variable) => self.cells[variable].extent().map(|(_, shape)| shape),
            None => Some(&slot.shape),
        }
    }

    fn handle(&self, index: usize) -> Option<HandleData> {
        let slot = self.slot(index);
        let variable = slot.variable.filter(|_| slot.dtype == DType::Resource)?;
        let (dtype, shape) = self.cells[variable].extent()?;
        Some(HandleData {
            dtype,
            shape: shape.into(),
        })
    }

    /// What an input holds, if the host has it.
    fn value(&self, index: usize) -> Option<Value> {
        let on_host = self.memory[self.inputs[index] as usize] == Memory::Host;
        on_host.then(|| slot_value(self.slot(index)).ok()).flatten()
    }
}

/// Inputs of which is remembered what was looked at.
struct Watched<'a, 'b> {
    inputs: &'a Inputs<'b>,
    seen: RefCell<Seen>,
}

impl InputValues for Watched<'_, '_> {
    fn handle(&self, index: usize) -> Option<HandleData> {
        let handle = self.inputs.handle(index);
        self.seen.borrow_mut().handles.push((index, handle.clone()));
        handle
    }

    fn value(&self, index: usize) -> Option<Value> {
        let value = self.inputs.value(index);
        self.seen.borrow_mut().values.push((index, value.clone()));
        value
    }

    fn value_as_shape(&self, index: usize) -> Option<PartialShape> {
        crate::graph::inference::shape_of_values(&self.value(index)?.to_i64_vec().ok()?)
    }
}

impl Made {
    /// The kernel for inputs as they are now.
    ///
    /// # Errors
    /// Those of the shape function, and of making the kernel.
    fn new(
        node: &Node,
        kernel: &KernelDefinition,
        inputs: &Inputs<'_>,
        output_dtypes: &[DType],
        accelerator: Option<&Arc<dyn Accelerator>>,
    ) -> Result<Self> {
        let count = inputs.inputs.len();
        let input_shapes: Vec<Option<Shape>> = (0..count).map(|index| inputs.shape(index).cloned()).collect();
        let (inferred, mut seen) = infer(node, inputs, &input_shapes, output_dtypes.len())?;
        let shape_of = |shape: &PartialShape| if kernel.data_dependent { None } else { shape.to_shape() };
        let output_shapes: Vec<Option<Shape>> = inferred.iter().map(shape_of).collect();
        let mut input_values: Vec<Option<Value>> = vec![None; count];
        for input in plan_time_inputs(node) {
            input_values[input] = inputs.value(input);
            seen.values.push((input, input_values[input].clone()));
        }
        let dtypes: Vec<DType> = (0..count).map(|index| inputs.slot(index).dtype).collect();
        let shapes: Vec<Shape> = input_shapes
            .iter()
            .map(|shape| shape.clone().unwrap_or_default())
            .collect();
        let planned = kernel.make(&KernelRequest {
            attrs: &node.attrs,
            input_dtypes: &dtypes,
            input_shapes: &shapes,
            input_values: &input_values,
            output_dtypes,
            output_shapes: &output_shapes,
            outputs_read: &[],
            accelerator,
        });
        let host_may = accelerator.is_some() && !node.definition.stateful && kernel.state.is_none();
        Ok(Self {
            input_shapes,
            seen,
            output_shapes,
            planned: match planned {
                Err(_) if host_may => None,
                planned => Some(planned?),
            },
        })
    }

    /// Whether it is what would be made for inputs as they are now.
    fn fits(&self, inputs: &Inputs<'_>) -> bool {
        let mut shapes = self.input_shapes.iter().enumerate();
        shapes.all(|(index, shape)| shape.as_ref() == inputs.shape(index))
            && self
                .seen
                .handles
                .iter()
                .all(|(index, handle)| *handle == inputs.handle(*index))
            && self
                .seen
                .values
                .iter()
                .all(|(index, value)| *value == inputs.value(*index))
    }
}

/// The shapes of a node's outputs, and what of its inputs they depend on.
fn infer(
    node: &Node,
    inputs: &Inputs<'_>,
    shapes: &[Option<Shape>],
    outputs: usize,
) -> Result<(Vec<PartialShape>, Seen)> {
    let known = |shape: &Option<Shape>| shape.as_ref().map_or(PartialShape::unknown(), PartialShape::from);
    let shapes: Vec<PartialShape> = shapes.iter().map(known).collect();
    let dtypes: Vec<DType> = (0..shapes.len()).map(|index| inputs.slot(index).dtype).collect();
    let watched = Watched {
        inputs,
        seen: RefCell::default(),
    };
    let context = InferenceContext::new(node.definition, &node.attrs, &shapes, &dtypes, outputs, &watched);
    let inferred = context.infer()?.shapes;
    Ok((inferred, watched.seen.into_inner()))
}

impl Plan {
    /// Runs a step whose inputs are there now: infers shapes, makes its kernel or takes that of the last time, and runs it.
    ///
    /// # Errors
    /// Those of the shape function and of the kernel.
    pub(crate) fn run_dynamic(&mut self, index: usize, node: &Node, state: &mut SessionState) -> Result<()> {
        let Self {
            steps,
            slots,
            memory,
            accelerated,
            ..
        } = self;
        let step = &mut steps[index];
        let kernel = step
            .definition
            .ok_or_else(|| Error::internal("a dynamic step without a kernel"))?;
        let device = device_of(accelerated.as_deref(), step.memory);
        let accelerator = device.map(|device| &device.accelerator);
        let inputs = Inputs {
            cells: &state.cells,
            slots,
            memory,
            inputs: &step.inputs,
        };
        if kernel.alias.is_some() {
            let shape = shape_of_alias(node, &inputs)?;
            return pass_on(step, slots, shape, accelerator);
        }
        if let (Some(accelerator), vocabulary::READ_VARIABLE) = (accelerator, node.op()) {
            return read_variable(step, slots, &state.cells, accelerator);
        }
        if !step.made.as_ref().is_some_and(|made| made.fits(&inputs)) {
            let dtypes: Vec<DType> = step
                .outputs
                .iter()
                .map(|&output| slots[output as usize].dtype)
                .collect();
            step.made = Some(Box::new(Made::new(node, kernel, &inputs, &dtypes, accelerator)?));
        }
        let step = &*step;
        let made = step.made.as_deref();
        let Made {
            output_shapes, planned, ..
        } = made.ok_or_else(|| Error::internal("no kernel was made"))?;
        match (planned, accelerator) {
            (Some(planned), Some(accelerator)) => {
                let on_host = |position: &usize| kernel.host_outputs.contains(position);
                allocate_outputs(step, slots, node, output_shapes, |position| {
                    Some(accelerator).filter(|_| !on_host(&position))
                })?;
                run_on(planned, step, slots, node, state, accelerator)
            }
            (Some(planned), None) => {
                allocate_outputs(step, slots, node, output_shapes, |_| None)?;
                let mut scratch = Buffer::zeroed(planned.scratch)?;
                let scratch = (scratch.as_mut_ptr(), scratch.len());
                run_kernel(planned, step, slots, scratch, node, state, None)
            }
            (None, accelerator) => {
                let values: Vec<Value> = (0..step.inputs.len())
                    .map(|index| value_of(&inputs, index, accelerator))
                    .collect::<Result<_>>()?;
                let results = evaluate_node(node, &values)?;
                for (position, (&output, value)) in step.outputs.iter().zip(results).enumerate() {
                    let slot = &mut slots[output as usize];
                    match accelerator.filter(|_| !kernel.host_outputs.contains(&position)) {
                        Some(accelerator) => slot.set_device(DeviceTensor::upload(accelerator, &value)?),
                        None => slot.set_host(value),
                    }
                }
                Ok(())
            }
        }
    }
}

/// The shape that a node gives its input, which it passes on as it is.
fn shape_of_alias(node: &Node, inputs: &Inputs<'_>) -> Result<Shape> {
    let source = &inputs.slot(0).shape;
    if node.definition.control_flow != ControlFlow::None {
        return Ok(source.clone());
    }
    let shapes: Vec<Option<Shape>> = (0..inputs.inputs.len())
        .map(|index| inputs.shape(index).cloned())
        .collect();
    let (inferred, _) = infer(node, inputs, &shapes, 1)?;
    // An alias that says nothing of its shape has its input's.
    let shape = inferred[0].to_shape().unwrap_or_else(|| source.clone());
    if source.num_elements() != shape.num_elements() {
        return Err(Error::invalid_argument("the number of elements would change")
            .expected(source)
            .got(shape));
    }
    Ok(shape)
}

/// Makes the output the same tensor as the first input, under another shape.
fn pass_on(step: &Step, slots: &mut [Slot], shape: Shape, accelerator: Option<&Arc<dyn Accelerator>>) -> Result<()> {
    let source = &slots[step.inputs[0] as usize];
    let (mut data, mut value, mut memory) = (source.data, source.value.clone(), source.memory.clone());
    if step.in_loop && !step.reads.is_empty() {
        // The variable may change before the value is used.
        match accelerator {
            Some(accelerator) => {
                let copy = DeviceTensor::new(accelerator, source.dtype, source.shape.clone())?;
                accelerator.copy(DeviceAddress(data as u64), copy.memory.address(), copy.memory.len())?;
                (data, memory) = (copy.memory.address().0 as *mut u8, Some(copy.memory));
            }
            None => {
                let copy = slot_value(source)?;
                (data, value) = (copy.bytes().as_ptr().cast_mut(), Some(copy));
            }
        }
    }
    let handle = source.variable.filter(|_| source.dtype == DType::Resource);
    let object = source.object.clone();
    let slot = &mut slots[step.outputs[0] as usize];
    slot.variable = handle.or(slot.variable);
    slot.value = value.map(|value| value.reshaped(shape.clone())).transpose()?;
    (slot.data, slot.shape, slot.object, slot.memory) = (data, shape, object, memory);
    Ok(())
}

/// Copies the value of the variable that the first input, a handle, names.
fn read_variable(
    step: &Step,
    slots: &mut [Slot],
    cells: &[VariableCell],
    accelerator: &Arc<dyn Accelerator>,
) -> Result<()> {
    let variable = slots[step.inputs[0] as usize].variable;
    let tensor = variable.and_then(|variable| cells[variable].on_device.as_ref());
    let tensor = tensor.ok_or_else(|| Error::internal("a read of a variable that is not on the accelerator"))?;
    let copy = DeviceTensor::new(accelerator, tensor.dtype, tensor.shape.clone())?;
    accelerator.copy(tensor.memory.address(), copy.memory.address(), copy.memory.len())?;
    slots[step.outputs[0] as usize].set_device(copy);
    Ok(())
}

/// Gives outputs whose shapes are known values of their own, in the memory of the accelerator that `of` says for each.
fn allocate_outputs<'a>(
    step: &Step,
    slots: &mut [Slot],
    node: &Node,
    shapes: &[Option<Shape>],
    of: impl Fn(usize) -> Option<&'a Arc<dyn Accelerator>>,
) -> Result<()> {
    let flow = node.definition.control_flow;
    for (position, (&output, shape)) in step.outputs.iter().zip(shapes).enumerate() {
        let slot = &mut slots[output as usize];
        slot.release();
        let Some(shape) = shape
            .as_ref()
            .filter(|_| flow == ControlFlow::None && slot.variable.is_none())
        else {
            continue;
        };
        match of(position) {
            Some(accelerator) => slot.set_device(DeviceTensor::new(accelerator, slot.dtype, shape.clone())?),
            None => {
                slot.shape = shape.clone();
                // Kernels of strings make the value themselves, of this shape.
                if slot.dtype.size().is_some() {
                    allocate(slot)?;
                }
            }
        }
    }
    if flow == ControlFlow::Merge {
        let slot = &mut slots[step.outputs[1] as usize];
        slot.shape = Shape::scalar();
        allocate(slot)?;
    }
    Ok(())
}

/// Runs a kernel of an accelerator, with memory for its scratch and for what the host tells it that is given back when its
/// work has been given to the device.
fn run_on(
    planned: &Planned,
    step: &Step,
    slots: &mut [Slot],
    node: &Node,
    state: &mut SessionState,
    accelerator: &Arc<dyn Accelerator>,
) -> Result<()> {
    let memory = |bytes: usize| match bytes {
        0 => Ok(None),
        bytes => DeviceMemory::new(accelerator, bytes).map(Some),
    };
    let address =
        |memory: &Option<DeviceMemory>| memory.as_ref().map_or(DeviceAddress::default(), DeviceMemory::address);
    let scratch = memory(planned.scratch)?;
    let mut told = Vec::new();
    if let Some(parameters) = &planned.parameters {
        told.resize(parameters.bytes, 0);
        let SessionState {
            cells, kernel_states, ..
        } = &mut *state;
        (parameters.write)(
            &mut KernelContext {
                slots,
                inputs: &step.inputs,
                outputs: &step.outputs,
                scratch: (std::ptr::null_mut(), 0),
                state: step.state.map(|index| &mut *kernel_states[index]),
                variables: cells,
                taken: Default::default(),
                in_place: false,
                accelerator: Some((accelerator, DeviceAddress::default())),
                site: &|| node.site(),
            },
            &mut told,
        )?;
    }
    let parameters = memory(told.len())?;
    if !told.is_empty() {
        accelerator.upload(&told, address(&parameters))?;
    }
    let scratch_area = (address(&scratch).0 as *mut u8, planned.scratch);
    let there = Some((accelerator, address(&parameters)));
    run_kernel(planned, step, slots, scratch_area, node, state, there)
}

/// An input as a value of the host's.
fn value_of(inputs: &Inputs<'_>, index: usize, accelerator: Option<&Arc<dyn Accelerator>>) -> Result<Value> {
    let slot = inputs.slot(index);
    match accelerator.filter(|_| inputs.memory[inputs.inputs[index] as usize] != Memory::Host) {
        Some(accelerator) => {
            let mut value = Value::zeros(slot.dtype, slot.shape.clone())?;
            let bytes = value.unique_buffer()?.as_mut_slice();
            accelerator.download(DeviceAddress(slot.data as u64), bytes)?;
            Ok(value)
        }
        None => slot_value(slot),
    }
}

/// Gives a slot a value of its own on the host, of its dtype and shape.
pub(crate) fn allocate(slot: &mut Slot) -> Result<()> {
    let mut value = Value::zeros(slot.dtype, slot.shape.clone())?;
    slot.data = value.unique_buffer()?.as_mut_ptr();
    (slot.value, slot.memory) = (Some(value), None);
    Ok(())
}
