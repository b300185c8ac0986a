//! The part of a run that accelerators do.
//!
//! Before the first step, the variables that the plan names go where it works on them, feeds and what the host tells kernels
//! go up. Then steps give work to their accelerators in the order of the schedule. In the second run with the same addresses,
//! the parts that touch nothing on the host are recorded, and from then on a part is one launch. Nothing waits for an
//! accelerator but a copy to the host.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::accelerator::{Accelerator, CapturedWork, DeviceAddress, DeviceTensor, KernelStats, LaneMark, Lanes};
use crate::error::{Error, Result};
use crate::graph::Node;
use crate::op::context::{KernelContext, VariableCell};
use crate::rewrite::Program;
use crate::session::dynamic::allocate;
use crate::session::execute::RunControl;
use crate::session::placement::Memory;
use crate::session::plan::{Accelerated, DevicePlan, Place, Plan, Step, Turn, Work};
use crate::session::recorded::Recorded;
use crate::session::state::SessionState;

/// A part of fewer steps is not worth recording.
const FEWEST_RECORDED: usize = 2;

/// What the plan needs of the accelerator of this memory; none for the host's.
pub(crate) fn device_of(accelerated: Option<&Accelerated>, memory: Memory) -> Option<&DevicePlan> {
    match memory {
        Memory::Host => None,
        Memory::Device(position) => accelerated?.devices.get(position),
    }
}

/// Copies `bytes` bytes between two places of one memory that do not overlap.
pub(crate) fn copy_within(
    accelerated: Option<&Accelerated>,
    memory: Memory,
    from: *const u8,
    to: *mut u8,
    bytes: usize,
) -> Result<()> {
    match device_of(accelerated, memory) {
        Some(device) => device
            .accelerator
            .copy(DeviceAddress(from as u64), DeviceAddress(to as u64), bytes),
        None => {
            // SAFETY: the planner gave both places the bytes of the same shape and dtype, in different memory.
            unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
            Ok(())
        }
    }
}

impl DevicePlan {
    /// Where what the host tells the step's kernel lies.
    pub(crate) fn parameters_address(&self, step: &Step) -> DeviceAddress {
        self.arena_base.offset(self.parameters_offset + step.parameters)
    }
}

impl Plan {
    /// Makes all ready on accelerators: memory, variables, feeds, and what the host tells kernels.
    pub(crate) fn set_up_accelerators(&mut self, program: &Program, state: &mut SessionState) -> Result<()> {
        let Some(accelerated) = &mut self.accelerated else {
            return Ok(());
        };
        for (position, device) in accelerated.devices.iter_mut().enumerate() {
            let base = state.device_arena(position, &device.accelerator, device.arena_size)?;
            if base != device.arena_base {
                let places = self.places.iter().zip(&self.memory);
                for (slot, place) in self.slots.iter_mut().zip(places) {
                    if let (Place::Arena(offset), Memory::Device(of)) = place
                        && *of == position
                    {
                        slot.data = base.offset(*offset).0 as *mut u8;
                    }
                }
                device.arena_base = base;
            }
        }
        for &(variable, home) in &self.homes {
            let device = device_of(Some(accelerated), home).map(|device| &device.accelerator);
            bring_home(&mut state.cells[variable], device)?;
        }
        for &(feed, copy) in &accelerated.feeds {
            let slot = &self.slots[copy as usize];
            if let (Some(device), Some(value)) = (
                device_of(Some(accelerated), self.memory[copy as usize]),
                &self.slots[feed as usize].value,
            ) {
                device
                    .accelerator
                    .upload(value.bytes(), DeviceAddress(slot.data as u64))?;
            }
        }
        self.look_at_addresses(state);
        self.tell_kernels(program, state)
    }

    /// Has the host write what it tells the kernels of this run, and brings it to the accelerators.
    fn tell_kernels(&mut self, program: &Program, state: &mut SessionState) -> Result<()> {
        let Some(accelerated) = &mut self.accelerated else {
            return Ok(());
        };
        if accelerated.devices.iter().all(|device| device.parameters.is_empty()) {
            return Ok(());
        }
        for step in &self.steps {
            let (Work::Static(planned), Memory::Device(position)) = (&step.work, step.memory) else {
                continue;
            };
            let Some(parameters) = &planned.parameters else {
                continue;
            };
            let device = &mut accelerated.devices[position];
            let mut block = std::mem::take(&mut device.parameters);
            let SessionState {
                cells, kernel_states, ..
            } = &mut *state;
            let node = program.node(step.node);
            let mut context = KernelContext {
                slots: &mut self.slots,
                inputs: &step.inputs,
                outputs: &step.outputs,
                scratch: (std::ptr::null_mut(), 0),
                state: step.state.map(|index| &mut *kernel_states[index]),
                variables: cells,
                taken: Cell::new(0),
                in_place: step.in_place,
                accelerator: Some((&device.accelerator, device.parameters_address(step))),
                site: &|| node.site(),
            };
            let told = &mut block[step.parameters..step.parameters + parameters.bytes];
            let written = (parameters.write)(&mut context, told);
            device.parameters = block;
            written.map_err(|error| error.at(node.site()))?;
        }
        for device in accelerated
            .devices
            .iter()
            .filter(|device| !device.parameters.is_empty())
        {
            let to = device.arena_base.offset(device.parameters_offset);
            device.accelerator.upload(&device.parameters, to)?;
        }
        Ok(())
    }

    /// If a part of the schedule begins at this step that is recorded, or can be now: does its work, and tells which step
    /// comes after it.
    pub(crate) fn run_recorded(
        &mut self,
        index: usize,
        program: &Program,
        state: &mut SessionState,
        control: &RunControl<'_>,
    ) -> Result<Option<usize>> {
        let Some(accelerated) = &mut self.accelerated else {
            return Ok(None);
        };
        // Steps are told apart in a trace.
        if !control.record || control.trace.is_some() || accelerated.not_recorded.is_some() {
            return Ok(None);
        }
        let Ok(at) = accelerated
            .segments
            .binary_search_by_key(&index, |segment| segment.steps.start)
        else {
            return Ok(None);
        };
        let segment = &mut accelerated.segments[at];
        let (steps, device) = (segment.steps.clone(), segment.device);
        if steps.len() < FEWEST_RECORDED || !accelerated.same_addresses {
            return Ok(None);
        }
        if let Some(recorded) = &mut segment.recorded {
            recorded.launch()?;
            return Ok(Some(steps.end));
        }
        let turns = std::mem::take(&mut segment.turns);
        let accelerator = accelerated.devices[device].accelerator.clone();
        let in_order = turns.is_empty() || matches!(accelerator.lanes(), Lanes::One | Lanes::Measured(_));
        let ways = in_order
            .then_some(&[][..])
            .into_iter()
            .chain((!turns.is_empty()).then_some(&turns[..]));
        let ways = ways.map(|turns| self.record(steps.clone(), turns, &accelerator, program, state));
        let recorded = Recorded::new(ways);
        let Some(accelerated) = &mut self.accelerated else {
            return Ok(None);
        };
        let segment = &mut accelerated.segments[at];
        segment.turns = turns;
        match recorded {
            Ok(recorded) => {
                segment.recorded.insert(recorded).launch()?;
                Ok(Some(steps.end))
            }
            Err(error) => {
                // Nothing of it ran: the steps run one by one from here on.
                eprintln!("steps of {accelerator:?} are not recorded: {error}");
                accelerated.not_recorded = Some(error.to_string());
                Ok(None)
            }
        }
    }

    /// Records these steps, in one lane unless there are `turns`.
    fn record(
        &mut self,
        steps: Range<usize>,
        turns: &[Option<Turn>],
        accelerator: &Arc<dyn Accelerator>,
        program: &Program,
        state: &mut SessionState,
    ) -> Result<Box<dyn CapturedWork>> {
        accelerator.begin_capture()?;
        let mut marks: FxHashMap<usize, LaneMark> = FxHashMap::default();
        let given = steps.enumerate().try_for_each(|(place, step)| {
            let turn = turns.get(place).and_then(Option::as_ref);
            if let Some(turn) = turn {
                let after: Option<SmallVec<[LaneMark; 4]>> =
                    turn.after.iter().map(|place| marks.get(place).copied()).collect();
                let after = after.ok_or_else(|| Error::internal("a step waits for one that was not marked"))?;
                accelerator.enter_lane(turn.lane, &after)?;
            }
            let node = program.node(self.steps[step].node);
            self.run_step(step, node, state)
                .map_err(|error| error.at(node.site()))?;
            if turn.is_some_and(|turn| turn.is_awaited) {
                marks.insert(place, accelerator.mark_lane()?);
            }
            Ok(())
        });
        // Recording ends whatever happened.
        let recorded = accelerator.clone().end_capture();
        given.and(recorded)
    }

    /// Sees whether this run has the addresses of the run before, for which recorded work holds; what was recorded for others
    /// is dropped.
    fn look_at_addresses(&mut self, state: &SessionState) {
        let Some(accelerated) = &mut self.accelerated else {
            return;
        };
        let address = |&(variable, _): &(usize, Memory)| {
            let tensor = state.cells[variable].on_device.as_ref();
            tensor.map_or(DeviceAddress::default(), |tensor| tensor.memory.address())
        };
        let arenas = accelerated.devices.iter().map(|device| device.arena_base);
        let now = || arenas.clone().chain(self.homes.iter().map(address));
        accelerated.same_addresses = accelerated.addresses.iter().copied().eq(now());
        if !accelerated.same_addresses {
            accelerated.addresses = now().collect();
            for segment in &mut accelerated.segments {
                segment.recorded = None;
            }
        }
    }

    /// Runs a step, and waits for its accelerator; where it ran, and the work of which that was made.
    pub(crate) fn run_traced(
        &mut self,
        index: usize,
        node: &Node,
        state: &mut SessionState,
    ) -> Result<(String, Vec<KernelStats>)> {
        let device = device_of(self.accelerated.as_deref(), self.steps[index].memory);
        let Some(accelerator) = device.map(|device| device.accelerator.clone()) else {
            let ran = self.run_step(index, node, state);
            return ran
                .map(|()| ("/device:CPU:0".to_owned(), Vec::new()))
                .map_err(|error| error.at(node.site()));
        };
        accelerator.begin_trace()?;
        let ran = self.run_step(index, node, state).map_err(|error| error.at(node.site()));
        // Tracing ends whatever happened.
        let kernels = accelerator.end_trace();
        ran?;
        Ok((format!("/device:GPU:{}", accelerator.index()), kernels?))
    }

    /// Copies a tensor from one memory to another.
    pub(crate) fn copy_between(&mut self, index: usize) -> Result<()> {
        let step = &self.steps[index];
        let (from, to) = (step.inputs[0] as usize, step.outputs[0] as usize);
        match self.places[to] {
            // It is there already; the step is for what does not run.
            Place::Resident => return Ok(()),
            Place::Dynamic => {
                let shape = self.slots[from].shape.clone();
                let device = device_of(self.accelerated.as_deref(), self.memory[to]);
                let slot = &mut self.slots[to];
                match device {
                    Some(device) => slot.set_device(DeviceTensor::new(&device.accelerator, slot.dtype, shape)?),
                    None => {
                        slot.shape = shape;
                        allocate(slot)?;
                    }
                }
            }
            _ => {}
        }
        let (source, target) = (&self.slots[from], &self.slots[to]);
        if source.shape != target.shape {
            return Err(
                Error::internal("a tensor to be copied to another device has not the shape that was planned")
                    .expected(&target.shape)
                    .got(&source.shape),
            );
        }
        let bytes = target.shape.num_elements() * target.dtype.size().unwrap_or(0);
        let accelerated = self.accelerated.as_deref();
        let device = |tensor: usize| device_of(accelerated, self.memory[tensor]).map(|device| &device.accelerator);
        // SAFETY: slots are valid for their dtype and shape, in the memory where the plan says they lie.
        let on_host = |data: *mut u8| unsafe { std::slice::from_raw_parts_mut(data, bytes) };
        let (read, write) = (DeviceAddress(source.data as u64), DeviceAddress(target.data as u64));
        match (device(from), device(to)) {
            (None, None) => copy_within(None, Memory::Host, source.data, target.data, bytes),
            (None, Some(device)) => device.upload(on_host(source.data), write),
            (Some(device), None) => device.download(read, on_host(target.data)),
            (Some(one), Some(other)) => {
                let mut between = vec![0; bytes];
                one.download(read, &mut between)?;
                other.upload(&between, write)
            }
        }
    }
}

/// Moves the value of a variable to this accelerator, or to the host.
fn bring_home(cell: &mut VariableCell, device: Option<&Arc<dyn Accelerator>>) -> Result<()> {
    let is_there = match (&cell.on_device, device) {
        (Some(tensor), Some(device)) => Arc::ptr_eq(tensor.memory.accelerator(), device),
        (None, Some(_)) => cell.value.is_none(),
        (tensor, None) => tensor.is_none(),
    };
    if is_there {
        return Ok(());
    }
    if let Some(tensor) = &cell.on_device {
        cell.value = Some(tensor.download()?);
        cell.on_device = None;
    }
    if let (Some(value), Some(device)) = (&cell.value, device) {
        cell.on_device = Some(DeviceTensor::upload(device, value)?);
        cell.value = None;
    }
    Ok(())
}
