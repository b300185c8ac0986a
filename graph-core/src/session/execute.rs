//! Running a plan: a straight line of steps.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::accelerator::{Accelerator, DeviceAddress};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Node;
use crate::op::context::{KernelContext, Slot, slot_value};
use crate::op::kernel::Planned;
use crate::op::{ControlFlow, vocabulary};
use crate::rewrite::Program;
use crate::session::accelerate::{copy_within, device_of};
use crate::session::dynamic::allocate;
use crate::session::placement::Memory;
use crate::session::plan::{LoopSteps, Place, Plan, Step, Work};
use crate::session::profile::{NodeStats, RunMetadata};
use crate::session::state::SessionState;
use crate::value::Value;

/// What one run is given beside its feeds.
pub(crate) struct RunControl<'a> {
    pub(crate) timeout: Option<Duration>,
    /// Whether work of accelerators may be recorded, and replayed.
    pub(crate) record: bool,
    pub(crate) trace: Option<&'a mut RunMetadata>,
}

impl Plan {
    /// Runs the plan. The fetched values become `outputs`, in the memory of the values that are there where it fits them.
    pub(crate) fn run(
        &mut self,
        program: &Program,
        state: &mut SessionState,
        feeds: &[Value],
        outputs: &mut Vec<Value>,
        control: &mut RunControl<'_>,
    ) -> Result<()> {
        self.set_up(state, feeds, outputs)?;
        if let Some(trace) = &mut control.trace {
            let devices = self.accelerated.iter().flat_map(|accelerated| &accelerated.devices);
            trace.arena_bytes = self.arena_size + devices.map(|device| device.arena_size).sum::<usize>();
        }
        let result = self
            .set_up_accelerators(program, state)
            .and_then(|()| self.run_steps(program, state, control))
            .and_then(|()| self.results(program, state, outputs));
        self.clear();
        result
    }

    fn set_up(&mut self, state: &mut SessionState, feeds: &[Value], outputs: &mut [Value]) -> Result<()> {
        let base = state.arena(self.arena_size)?;
        if base != self.arena_base {
            let places = self.places.iter().zip(&self.memory);
            for (slot, place) in self.slots.iter_mut().zip(places) {
                if let (Place::Arena(offset), Memory::Host) = place {
                    // SAFETY: the arena has `arena_size` bytes, within which the planner placed every tensor.
                    slot.data = unsafe { base.add(*offset) };
                }
            }
            self.arena_base = base;
        }
        for (&tensor, value) in self.feeds.iter().zip(feeds) {
            let slot = &mut self.slots[tensor as usize];
            slot.data = value.bytes().as_ptr().cast_mut();
            slot.value = Some(value.clone());
        }
        for &tensor in &self.fetched {
            let slot = &mut self.slots[tensor as usize];
            (slot.value, slot.data) = (None, std::ptr::null_mut());
        }
        for (&tensor, output) in self.fetches.iter().zip(outputs) {
            let slot = &mut self.slots[tensor as usize];
            if self.places[tensor as usize] == Place::Fetched && slot.data.is_null() {
                slot.data = output.own_elements(slot.dtype, &slot.shape).unwrap_or(slot.data);
            }
        }
        for &tensor in &self.fetched {
            let slot = &mut self.slots[tensor as usize];
            if slot.data.is_null() {
                allocate(slot)?;
            }
        }
        // Nothing comes back before the first iteration.
        for &tensor in self.loops.iter().flat_map(|inner| &inner.back) {
            self.slots[tensor as usize].dead = true;
        }
        Ok(())
    }

    fn run_steps(&mut self, program: &Program, state: &mut SessionState, control: &mut RunControl<'_>) -> Result<()> {
        let begin = Instant::now();
        let mut index = 0;
        while index < self.steps.len() {
            if let Some(next) = self.run_recorded(index, program, state, control)? {
                index = next;
                continue;
            }
            if control.timeout.is_some_and(|timeout| begin.elapsed() > timeout) {
                return Err(Error::deadline_exceeded("the run took longer than its time limit"));
            }
            let start = control.trace.is_some().then(|| begin.elapsed());
            let node = program.node(self.steps[index].node);
            match (start, control.trace.as_deref_mut()) {
                (Some(start), Some(trace)) => {
                    let (device, kernels) = self.run_traced(index, node, state)?;
                    let step = &self.steps[index];
                    let extents = |tensors: &[u32]| {
                        let slots = tensors.iter().map(|&tensor| &self.slots[tensor as usize]);
                        slots.map(|slot| (slot.dtype, slot.shape.clone())).collect()
                    };
                    trace.nodes.push(NodeStats {
                        name: node.name.to_string(),
                        // A copy to another memory goes by the name of what takes it.
                        op: if matches!(step.work, Work::Copy) {
                            "_Copy"
                        } else {
                            node.op()
                        },
                        device,
                        start,
                        end: begin.elapsed(),
                        inputs: extents(&step.inputs),
                        outputs: extents(&step.outputs),
                        kernels,
                    });
                }
                _ => {
                    let ran = self.run_step(index, node, state);
                    ran.map_err(|error| error.at(node.site()))?;
                }
            }
            let step = &self.steps[index];
            for &tensor in &step.release {
                self.slots[tensor as usize].release();
            }
            index = self.next_step(index, program)?;
        }
        Ok(())
    }

    /// The step after this one: the first one of a loop that ends here and goes on, or the one behind.
    ///
    /// # Errors
    /// `InvalidArgument` if a loop goes on with some of its variables and not with others, which would have no value then.
    fn next_step(&mut self, index: usize, program: &Program) -> Result<usize> {
        let is_dead = |tensor: &&u32| self.slots[**tensor as usize].dead;
        let goes_on = |inner: &&LoopSteps| inner.body.end == index + 1 && !inner.back.iter().all(|it| is_dead(&it));
        let Some(again) = self.loops.iter().find(goes_on) else {
            return Ok(index + 1);
        };
        if let Some(lost) = again.back.iter().find(is_dead) {
            let error = Error::invalid_argument("a loop goes on, and one of its variables has no value to go on with")
                .expected("a value from each NextIteration of the loop, or from none")
                .hint("what one way of a branch gives must come through a Merge with what the other gives");
            let from = self.steps.iter().find(|step| step.outputs.contains(lost));
            return Err(match from {
                Some(step) => error.at(program.node(step.node).site()),
                None => error,
            });
        }
        for &tensor in &again.first {
            self.slots[tensor as usize].dead = true;
        }
        Ok(again.body.start)
    }

    pub(crate) fn run_step(&mut self, index: usize, node: &Node, state: &mut SessionState) -> Result<()> {
        if let Some(guards) = &self.steps[index].guards {
            let step = &self.steps[index];
            let mut dead_inputs = step.inputs.iter().map(|&input| self.slots[input as usize].dead);
            let by_data = match node.definition.control_flow {
                ControlFlow::Merge => dead_inputs.all(|dead| dead),
                _ => dead_inputs.any(|dead| dead),
            };
            let dead = by_data || guards.iter().any(|&guard| self.dead[guard]);
            self.dead[index] = dead;
            for &output in &self.steps[index].outputs {
                self.slots[output as usize].dead = dead;
            }
            if dead {
                return Ok(());
            }
        }
        self.resolve_variables(index, node, state)?;
        let step = &self.steps[index];
        match &step.work {
            Work::Nothing => Ok(()),
            Work::Alias => {
                let (input, output) = (step.inputs[0] as usize, step.outputs[0] as usize);
                let data = self.slots[input].data;
                // Strings live in the value itself; of other values the address suffices, since the source outlives us.
                let strings = self.slots[input]
                    .value
                    .clone()
                    .filter(|value| value.dtype() == DType::String);
                let object = self.slots[input].object.clone();
                let slot = &mut self.slots[output];
                (slot.data, slot.object) = (data, object);
                slot.value = strings.map(|value| value.reshaped(slot.shape.clone())).transpose()?;
                Ok(())
            }
            Work::Snapshot => {
                let (input, output) = (
                    &self.slots[step.inputs[0] as usize],
                    &self.slots[step.outputs[0] as usize],
                );
                let bytes = input.shape.num_elements() * input.dtype.size().unwrap_or(0);
                copy_within(self.accelerated.as_deref(), step.memory, input.data, output.data, bytes)
            }
            Work::Copy => self.copy_between(index),
            Work::Read { copy } => {
                let variable = self.slots[step.inputs[0] as usize].variable;
                let cell = variable.map(|variable| &state.cells[variable]);
                let value = cell.and_then(|cell| cell.extent().zip(cell.data()));
                let ((dtype, shape), data) = value.ok_or_else(|| Error::internal("a read of no variable"))?;
                let output = &mut self.slots[step.outputs[0] as usize];
                if (output.dtype, &output.shape) != (dtype, shape) {
                    return Err(
                        Error::invalid_argument("the variable's value is another than the handle says")
                            .expected(format!("{} {}", output.dtype, output.shape))
                            .got(format!("{dtype} {shape}")),
                    );
                }
                if *copy {
                    let bytes = shape.num_elements() * dtype.size().unwrap_or(0);
                    return copy_within(self.accelerated.as_deref(), step.memory, data, output.data, bytes);
                }
                output.data = data;
                Ok(())
            }
            Work::Static(planned) => {
                let device = device_of(self.accelerated.as_deref(), step.memory);
                let base = device.map_or(self.arena_base, |device| device.arena_base.0 as *mut u8);
                let scratch = match step.scratch {
                    (_, 0) => (std::ptr::null_mut(), 0),
                    // The planner placed the scratch memory inside the arena.
                    (offset, bytes) => (base.wrapping_add(offset), bytes),
                };
                let device = device.map(|device| (&device.accelerator, device.parameters_address(step)));
                run_kernel(planned, step, &mut self.slots, scratch, node, state, device)
            }
            Work::Dynamic => self.run_dynamic(index, node, state),
        }
    }

    /// Finds the memory of the variables that the step reads, and checks that all it needs are initialized.
    fn resolve_variables(&mut self, index: usize, node: &Node, state: &SessionState) -> Result<()> {
        let step = &self.steps[index];
        for &position in &step.refs {
            let slot = &self.slots[step.inputs[position] as usize];
            if slot
                .variable
                .is_none_or(|variable| !state.cells[variable].is_initialized())
            {
                let by_handle = slot.dtype == DType::Resource && node.op() != vocabulary::READ_VARIABLE;
                return Err(self.uninitialized(index, by_handle, state));
            }
        }
        for &position in &step.reads {
            let slot = &self.slots[step.inputs[position] as usize];
            let cell = slot.variable.map(|variable| &state.cells[variable]);
            let Some(((dtype, shape), data)) = cell.and_then(|cell| cell.extent().zip(cell.data())) else {
                return Err(self.uninitialized(index, false, state));
            };
            let copies_any = matches!(step.work, Work::Copy) && self.places[step.outputs[0] as usize] == Place::Dynamic;
            if slot.shape != *shape && !matches!(step.work, Work::Dynamic) && !copies_any {
                return Err(
                    Error::invalid_argument("the variable's value has another shape than the variable")
                        .expected(&slot.shape)
                        .got(shape),
                );
            }
            let strings = cell
                .and_then(|cell| cell.value.clone())
                .filter(|_| dtype == DType::String);
            let slot = &mut self.slots[self.steps[index].inputs[position] as usize];
            slot.data = data;
            if slot.shape != *shape {
                slot.shape = shape.clone();
            }
            slot.value = strings;
        }
        Ok(())
    }

    /// The error for variables without a value: all that the plan still needs from this step on. To TensorFlow, a variable
    /// that a handle names does not exist before it is set; only a plain read of it says that it is not initialized.
    fn uninitialized(&self, from: usize, not_found: bool, state: &SessionState) -> Error {
        let mut names: Vec<&str> = Vec::new();
        for step in &self.steps[from..] {
            for &position in step.reads.iter().chain(&step.refs) {
                let variable = self.slots[step.inputs[position] as usize].variable;
                if let Some(variable) = variable.filter(|&variable| !state.cells[variable].is_initialized())
                    && !names.contains(&&*state.variable_names[variable])
                {
                    names.push(&state.variable_names[variable]);
                }
            }
        }
        let class = if not_found {
            Error::not_found
        } else {
            Error::failed_precondition
        };
        class(format!("Attempting to use uninitialized value {}", names.join(", ")))
            .hint("run the variables' initializers first, as global_variables_initializer() does")
    }

    fn results(&self, program: &Program, state: &SessionState, outputs: &mut Vec<Value>) -> Result<()> {
        let result = |index: usize, slot: &Slot| {
            let site = || program.node(program.fetches[index].node).site();
            if slot.dead {
                return Err(Error::invalid_argument(format!("the fetched tensor {index} is dead"))
                    .at(site())
                    .hint("it lies in the branch of a Switch that was not taken; fetch the Merge behind it"));
            }
            if slot.dtype == DType::Resource {
                return Err(Error::invalid_argument("a handle is not a value that can be fetched")
                    .at(site())
                    .hint("fetch the value of the variable, or what reads it"));
            }
            match slot.variable {
                // A reference is fetched as the value it refers to.
                Some(variable) => {
                    let value = state.cells[variable].value.as_ref().ok_or_else(|| {
                        let name = &state.variable_names[variable];
                        Error::failed_precondition(format!("Attempting to use uninitialized value {name}")).at(site())
                    })?;
                    value.deep_copy()
                }
                None => slot_value(slot),
            }
        };
        outputs.truncate(self.fetches.len());
        for (index, &tensor) in self.fetches.iter().enumerate() {
            let slot = &self.slots[tensor as usize];
            let output = outputs.get_mut(index);
            // The step wrote to the memory of the value that was there.
            let lent = self.places[tensor as usize] == Place::Fetched && slot.value.is_none() && !slot.dead;
            if lent
                && output
                    .as_ref()
                    .is_some_and(|output| output.bytes().as_ptr() == slot.data.cast_const())
            {
                continue;
            }
            let value = result(index, slot)?;
            match output {
                Some(output) => *output = value,
                None => outputs.push(value),
            }
        }
        Ok(())
    }

    /// Lets go of what the run was given and what it made.
    fn clear(&mut self) {
        for (slot, place) in self.slots.iter_mut().zip(&self.places) {
            if *place != Place::Constant {
                slot.release();
            }
            if slot.object.is_some() {
                slot.object = None;
            }
        }
    }
}

/// Runs a kernel, on an accelerator with what the host tells it at this address.
pub(crate) fn run_kernel(
    planned: &Planned,
    step: &Step,
    slots: &mut [Slot],
    scratch: (*mut u8, usize),
    node: &Node,
    state: &mut SessionState,
    accelerator: Option<(&Arc<dyn Accelerator>, DeviceAddress)>,
) -> Result<()> {
    let SessionState {
        cells, kernel_states, ..
    } = state;
    planned.kernel.run(&mut KernelContext {
        slots,
        inputs: &step.inputs,
        outputs: &step.outputs,
        scratch,
        state: step.state.map(|index| &mut *kernel_states[index]),
        variables: cells,
        taken: Cell::new(0),
        in_place: step.in_place,
        accelerator,
        site: &|| node.site(),
    })
}
