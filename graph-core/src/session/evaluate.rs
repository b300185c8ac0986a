//! Runs one node by itself, on the host, with inputs that are all known: constant folding, and tests of kernels.

use std::cell::Cell;
use std::sync::Arc;

use crate::accelerator::{Accelerator, DeviceMemory, DeviceTensor};
use crate::error::{Error, Result};
use crate::graph::{Node, Operation};
use crate::op::context::{KernelContext, Slot, VariableCell, slot_value};
use crate::op::kernel::{DeviceKind, KernelDefinition, KernelRequest, KernelState, Planned};
use crate::op::shape_inference::{InferenceContext, InputValues};
use crate::op::vocabulary;
use crate::shape::{PartialShape, Shape};
use crate::value::Value;

/// Inputs whose values are all known.
struct Known<'a>(&'a [Value]);

impl InputValues for Known<'_> {
    fn value(&self, index: usize) -> Option<Value> {
        Some(self.0[index].clone())
    }

    fn value_as_shape(&self, index: usize) -> Option<PartialShape> {
        crate::graph::inference::shape_of_values(&self.0[index].to_i64_vec().ok()?)
    }
}

/// The outputs of `node` for these inputs.
///
/// # Errors
/// `Unimplemented` if no CPU kernel serves the node's dtypes, or the shape function's and the kernel's own.
pub fn evaluate_node(node: &Node, inputs: &[Value]) -> Result<Vec<Value>> {
    evaluate(node, inputs, None).map_err(|error| error.at(node.site()))
}

/// The outputs of `node` for these inputs, by the kernel of `accelerator`.
///
/// # Errors
/// Those of [`evaluate_node`], and the device's.
pub fn evaluate_node_on(node: &Node, inputs: &[Value], accelerator: &Arc<dyn Accelerator>) -> Result<Vec<Value>> {
    evaluate(node, inputs, Some(accelerator)).map_err(|error| error.at(node.site()))
}

/// The kernel of this device that serves `node`.
///
/// # Errors
/// `Unimplemented` if there is none for its dtypes.
pub fn find_kernel(node: &Node, device: DeviceKind) -> Result<&'static KernelDefinition> {
    let kernels = &node.definition.kernels;
    kernels
        .iter()
        .find(|kernel| kernel.device == device && kernel.serves(&node.attrs))
        .ok_or_else(|| {
            let dtypes: Vec<String> = node
                .attrs
                .iter()
                .filter(|(name, _)| !name.starts_with('_'))
                .filter_map(|(name, value)| match value {
                    crate::op::AttrValue::Type(dtype) => Some(format!("{name}={dtype}")),
                    crate::op::AttrValue::TypeList(list) => Some(format!("{name}={list:?}")),
                    _ => None,
                })
                .collect();
            Error::unimplemented(format!(
                "no {device:?} kernel of '{}' serves [{}]",
                node.op(),
                dtypes.join(", ")
            ))
            .at(node.site())
        })
}

/// The state that the kernel of `node` begins with; `None` if it keeps none.
pub(crate) fn new_state(node: &Node) -> Result<Option<Box<dyn KernelState>>> {
    let kernel = find_kernel(node, DeviceKind::Cpu)?;
    kernel.state.map(|make| make(&node.attrs)).transpose()
}

/// Whether a run can hold this operation: whether there is a CPU kernel for its dtypes, or it needs none.
pub fn is_supported(operation: &Operation) -> bool {
    operation.graph().read(|data| {
        let node = data.node(operation.id());
        if vocabulary::is_variable(node.op()) {
            return true;
        }
        !needs_kernel(node) || find_kernel(node, DeviceKind::Cpu).is_ok()
    })
}

/// Whether a step of this node runs a kernel; some are nothing but order.
pub(crate) fn needs_kernel(node: &Node) -> bool {
    !node.outputs.is_empty() || !node.inputs.is_empty() || node.definition.stateful
}

fn evaluate(node: &Node, inputs: &[Value], accelerator: Option<&Arc<dyn Accelerator>>) -> Result<Vec<Value>> {
    let device = accelerator.map_or(DeviceKind::Cpu, |_| DeviceKind::Cuda);
    let definition = find_kernel(node, device).or_else(|error| match find_kernel(node, DeviceKind::Cpu) {
        // An alias does nothing on any device.
        Ok(kernel) if kernel.alias.is_some() => Ok(kernel),
        _ => Err(error),
    })?;
    let partial: Vec<PartialShape> = inputs.iter().map(|input| input.shape().into()).collect();
    let input_dtypes: Vec<_> = inputs.iter().map(Value::dtype).collect();
    let inferred = InferenceContext::new(
        node.definition,
        &node.attrs,
        &partial,
        &input_dtypes,
        node.outputs.len(),
        &Known(inputs),
    )
    .infer()?
    .shapes;
    let output_shapes: Vec<Option<Shape>> = inferred
        .iter()
        .map(|shape| {
            if definition.data_dependent {
                None
            } else {
                shape.to_shape()
            }
        })
        .collect();
    let output_dtypes: Vec<_> = node.outputs.iter().map(|output| output.dtype).collect();
    let input_shapes: Vec<Shape> = inputs.iter().map(|input| input.shape().clone()).collect();
    let input_values: Vec<Option<Value>> = inputs.iter().cloned().map(Some).collect();
    let planned = definition.make(&KernelRequest {
        attrs: &node.attrs,
        input_dtypes: &input_dtypes,
        input_shapes: &input_shapes,
        input_values: &input_values,
        output_dtypes: &output_dtypes,
        output_shapes: &output_shapes,
        outputs_read: &[],
        accelerator,
    })?;
    let mut slots: Vec<Slot> = inputs.iter().map(|input| value_slot(input.clone())).collect();
    for (index, (shape, &dtype)) in output_shapes.iter().zip(&output_dtypes).enumerate() {
        let value = match (shape, definition.alias) {
            (_, Some((input, output))) if output == index => {
                // An alias that says nothing of its shape has its input's.
                let shape = shape.as_ref().unwrap_or(inputs[input].shape());
                inputs[input].reshaped(shape.clone())?
            }
            (Some(shape), _) => Value::zeros(dtype, shape.clone())?,
            (None, _) => Value::zeros(dtype, Shape::new(&[0]))?,
        };
        let mut slot = value_slot(value);
        if definition.alias.is_none() {
            slot.data = match slot.value.as_mut().filter(|value| value.dtype().size().is_some()) {
                Some(value) => value.unique_buffer()?.as_mut_ptr(),
                None => slot.data,
            };
        }
        slots.push(slot);
    }
    let mut scratch = crate::buffer::Buffer::zeroed(planned.scratch)?;
    let indices: Vec<u32> = (0..slots.len() as u32).collect();
    let (input_indices, output_indices) = indices.split_at(inputs.len());
    let mut state: Option<Box<dyn KernelState>> = definition.state.map(|make| make(&node.attrs)).transpose()?;
    let mut variables: Vec<VariableCell> = Vec::new();
    let mut context = KernelContext {
        slots: &mut slots,
        inputs: input_indices,
        outputs: output_indices,
        scratch: (scratch.as_mut_ptr(), scratch.len()),
        state: state.as_deref_mut(),
        variables: &mut variables,
        taken: Cell::new(0),
        in_place: false,
        accelerator: None,
        site: &|| node.site(),
    };
    match accelerator {
        Some(accelerator) if definition.alias.is_none() => run_on(accelerator, definition, &planned, &mut context)?,
        _ => planned.kernel.run(&mut context)?,
    }
    slots[inputs.len()..]
        .iter()
        .map(|slot| {
            if slot.dead {
                Err(Error::invalid_argument("the output is dead"))
            } else {
                slot_value(slot)
            }
        })
        .collect()
}

/// Runs a kernel of an accelerator on what is on the host: inputs go there, outputs come back.
fn run_on<'a>(
    accelerator: &'a Arc<dyn Accelerator>,
    definition: &KernelDefinition,
    planned: &Planned,
    context: &mut KernelContext<'a>,
) -> Result<()> {
    let mut parameters = vec![0u8; planned.parameters.as_ref().map_or(0, |parameters| parameters.bytes)];
    if let Some(told) = &planned.parameters {
        (told.write)(context, &mut parameters)?;
    }
    let place = |bytes: &[u8]| -> Result<DeviceMemory> {
        let memory = DeviceMemory::new(accelerator, bytes.len())?;
        accelerator.upload(bytes, memory.address())?;
        Ok(memory)
    };
    let parameters = place(&parameters)?;
    let scratch = DeviceMemory::new(accelerator, planned.scratch)?;
    let bytes = |slot: &Slot| slot.shape.num_elements() * slot.dtype.size().unwrap_or(0);
    let mut memories = Vec::new();
    let inputs = context
        .inputs
        .iter()
        .enumerate()
        .map(|(at, &slot)| (slot, definition.host_inputs.contains(&at)));
    let outputs = context
        .outputs
        .iter()
        .enumerate()
        .map(|(at, &slot)| (slot, definition.host_outputs.contains(&at)));
    for (slot, on_host) in inputs.chain(outputs) {
        let slot = &mut context.slots[slot as usize];
        let host = slot.data;
        if !on_host {
            // SAFETY: slots are valid for their dtype and shape.
            let memory = place(unsafe { std::slice::from_raw_parts(host, bytes(slot)) })?;
            slot.data = memory.address().0 as *mut u8;
            memories.push(Some(memory));
        } else {
            memories.push(None);
        }
    }
    context.scratch = (scratch.address().0 as *mut u8, planned.scratch);
    context.accelerator = Some((accelerator, parameters.address()));
    planned.kernel.run(context)?;
    for (at, &slot) in context.outputs.iter().enumerate() {
        let slot = &mut context.slots[slot as usize];
        if let Some(memory) = slot.memory.take() {
            let (dtype, shape) = (slot.dtype, slot.shape.clone());
            slot.set_host(DeviceTensor { memory, dtype, shape }.download()?);
        } else if let (Some(memory), Some(value)) = (&memories[context.inputs.len() + at], &mut slot.value) {
            let host = value.unique_buffer()?;
            accelerator.download(memory.address(), host.as_mut_slice())?;
            slot.data = host.as_mut_ptr();
        }
    }
    Ok(())
}

/// A slot that a value owns.
pub(crate) fn value_slot(value: Value) -> Slot {
    let mut slot = Slot::empty(value.dtype(), Shape::scalar());
    slot.set_host(value);
    slot
}
