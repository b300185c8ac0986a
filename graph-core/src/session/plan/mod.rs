//! The shaped plan: a structural plan with the fed shapes known, so that kernels can be made and memory planned.
//!
//! A node is *static* if the shapes of its inputs and outputs, and the values of its plan-time inputs, are known now: its
//! kernel is made now, and its outputs lie in the arena. Every other node is *dynamic*, as is every node of a loop, and on an
//! accelerator what a Switch decides about: its kernel is made in the run, and its outputs are values of their own. What
//! constants and shapes alone decide is computed now and needs no step.

mod devices;
mod lanes;
mod layout;
mod lifetimes;
mod planner;
mod values;

use std::ops::Range;
use std::sync::Arc;

use crate::accelerator::{Accelerator, DeviceAddress, DeviceMemory};
use crate::error::Result;
use crate::graph::NodeId;
use crate::op::context::Slot;
use crate::op::kernel::{KernelDefinition, Planned};
use crate::session::dynamic::Made;
use crate::session::placement::{Devices, Memory};
use crate::session::recorded::Recorded;
use crate::session::state::SessionState;
use crate::session::structure::Structure;
use crate::shape::Shape;
use planner::Planner;
pub(crate) use values::plan_time_inputs;

/// Where a tensor's data is while the plan runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In the arena of its memory, at this offset.
    Arena(usize),
    /// In the value fed as this one of the feeds.
    Feed(usize),
    /// In a value made in each run, given out as a fetch.
    Fetched,
    /// In a value that the plan holds.
    Constant,
    /// In an accelerator's memory that the plan holds: a constant's copy.
    Resident,
    /// Wherever its step says: dynamic results, strings, ways of a Switch, other names of a variable.
    Dynamic,
    /// In the session's variable.
    Variable,
    /// At the same address as this other tensor.
    Alias(u32),
}

/// What a step does.
pub(crate) enum Work {
    /// Runs a kernel made when the plan was made.
    Static(Planned),
    /// Infers shapes, makes the kernel and runs it.
    Dynamic,
    /// Copies a tensor from one memory to another.
    Copy,
    /// Passes its input on.
    Alias,
    /// Copies a variable's value, since it is read after an update.
    Snapshot,
    /// Tells where the value of the variable that a handle names lies; a copy of it if it is read after an update.
    Read { copy: bool },
    /// Nothing but order: a node without outputs and effects.
    Nothing,
}

/// One node in the schedule.
pub(crate) struct Step {
    pub(crate) node: NodeId,
    pub(crate) work: Work,
    pub(crate) definition: Option<&'static KernelDefinition>,
    pub(crate) inputs: Vec<u32>,
    pub(crate) outputs: Vec<u32>,
    /// Where it runs.
    pub(crate) memory: Memory,
    /// Where what the host tells its kernel lies, in the block of its accelerator.
    pub(crate) parameters: usize,
    /// Where its scratch memory lies in the arena, and how many bytes.
    pub(crate) scratch: (usize, usize),
    /// Whether an output lies over an input.
    pub(crate) in_place: bool,
    /// Inputs (positions) through which it reads a variable's value.
    pub(crate) reads: Vec<usize>,
    /// Inputs (positions) through which it needs a variable initialized.
    pub(crate) refs: Vec<usize>,
    /// The index of its state in the session.
    pub(crate) state: Option<usize>,
    /// If a Switch decides whether it runs: the steps of its control inputs.
    pub(crate) guards: Option<Vec<usize>>,
    /// Whether it is part of a loop.
    pub(crate) in_loop: bool,
    /// Tensors whose values can be dropped after it.
    pub(crate) release: Vec<u32>,
    /// The kernel of a dynamic step, from the last time that it ran.
    pub(crate) made: Option<Box<Made>>,
}

impl Step {
    /// A step of the host's that does nothing yet.
    fn new(node: NodeId, inputs: Vec<u32>, outputs: Vec<u32>) -> Self {
        Self {
            node,
            work: Work::Nothing,
            definition: None,
            inputs,
            outputs,
            memory: Memory::Host,
            parameters: 0,
            scratch: (0, 0),
            in_place: false,
            reads: Vec::new(),
            refs: Vec::new(),
            state: None,
            guards: None,
            in_loop: false,
            release: Vec::new(),
            made: None,
        }
    }

    /// Whether it runs in every run, and once.
    pub(crate) fn is_straight(&self) -> bool {
        self.guards.is_none() && !self.in_loop
    }
}

/// A plan that is ready to run.
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) places: Vec<Place>,
    /// In which memory each tensor lies.
    pub(crate) memory: Vec<Memory>,
    /// The tensors of the feeds and of the fetches.
    pub(crate) feeds: Vec<u32>,
    pub(crate) fetches: Vec<u32>,
    /// The tensors whose values are made anew in each run.
    pub(crate) fetched: Vec<u32>,
    pub(crate) arena_size: usize,
    /// The base address that the slots were last set up for.
    pub(crate) arena_base: *mut u8,
    /// What it does on accelerators, if anything.
    pub(crate) accelerated: Option<Box<Accelerated>>,
    /// The variables that it names, and where their values must be while it runs.
    pub(crate) homes: Vec<(usize, Memory)>,
    /// Which steps were dead in this run; used by guarded ones only.
    pub(crate) dead: Vec<bool>,
    /// The loops, inner ones first.
    pub(crate) loops: Vec<LoopSteps>,
    /// Whether a tensor on the host has so many elements that kernels share out work on it among threads.
    pub(crate) parallel: bool,
}

/// The part of a plan that concerns accelerators.
pub(crate) struct Accelerated {
    /// One for each accelerator of the session.
    pub(crate) devices: Vec<DevicePlan>,
    /// Feeds, and their copies on accelerators, which are made before the first step.
    pub(crate) feeds: Vec<(u32, u32)>,
    /// Copies of constants, which the plan holds.
    pub(crate) _residents: Vec<DeviceMemory>,
    /// Steps that follow each other on one accelerator and wait for nothing: they can be recorded.
    pub(crate) segments: Vec<Segment>,
    /// For what addresses the segments were recorded, or are about to be: those of the last run.
    pub(crate) addresses: Vec<DeviceAddress>,
    /// Whether this run has the same addresses as the last.
    pub(crate) same_addresses: bool,
    /// Why nothing is recorded, if it was tried and failed.
    pub(crate) not_recorded: Option<String>,
}

/// What a plan needs of one accelerator.
pub(crate) struct DevicePlan {
    pub(crate) accelerator: Arc<dyn Accelerator>,
    pub(crate) arena_size: usize,
    /// The address that the slots were last set up for.
    pub(crate) arena_base: DeviceAddress,
    /// What the host tells the kernels of a run, written anew for each, and where it lies in the arena.
    pub(crate) parameters: Vec<u8>,
    pub(crate) parameters_offset: usize,
}

/// Steps of one accelerator that can be recorded.
pub(crate) struct Segment {
    pub(crate) steps: Range<usize>,
    pub(crate) device: usize,
    /// For each step that gives the device something, its turn in several lanes; nothing if one lane is as good.
    pub(crate) turns: Vec<Option<Turn>>,
    pub(crate) recorded: Option<Recorded>,
}

/// A step's place among lanes.
pub(crate) struct Turn {
    pub(crate) lane: usize,
    /// Steps of other lanes, by their places in the segment, that it waits for.
    pub(crate) after: Vec<usize>,
    /// Whether a step of another lane waits for it.
    pub(crate) is_awaited: bool,
}

/// A loop as a part of the steps.
pub(crate) struct LoopSteps {
    pub(crate) body: Range<usize>,
    /// What its NextIterations carry on; nothing alive at the end of the body ends the loop.
    pub(crate) back: Vec<u32>,
    /// What enters it; dead from the second iteration on.
    pub(crate) first: Vec<u32>,
}

// SAFETY: the pointers lead into the session's arena and values; a plan runs only under the session's lock.
unsafe impl Send for Plan {}

impl Plan {
    /// The plan of a structure for feeds of these shapes. With `log_placement`, standard error tells where each step runs.
    ///
    /// # Errors
    /// Those of shape functions and of making kernels.
    pub(crate) fn new(
        structure: &Structure,
        feeds: &[Shape],
        state: &mut SessionState,
        devices: &Devices,
        log_placement: bool,
    ) -> Result<Self> {
        let planner = Planner::on(structure, feeds, state, devices)?;
        if log_placement {
            planner.report_placement();
        }
        planner.finish()
    }
}
