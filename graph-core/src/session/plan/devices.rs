//! On which device each step of a plan runs, and the copies between their memories.
//!
//! A step runs on an accelerator if its node may, all its shapes are known, and there is a kernel; a tensor lies where it was
//! made, and is copied when something elsewhere takes it. Feeds and constants are on the host; their copies on an accelerator
//! are made before the first step, those of constants once for all runs. What a Switch or a loop decides about, what only the
//! data can tell the shape of, and strings are the host's.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::error::Result;
use crate::graph::{HandleData, Node, NodeId, TensorId};
use crate::op::kernel::DeviceKind;
use crate::op::{ArgType, ControlFlow, vocabulary};
use crate::session::evaluate::find_kernel;
use crate::session::placement::Memory;
use crate::session::plan::planner::Planner;
use crate::session::plan::{Place, Step, Work};
use crate::session::structure::input_args;
use crate::shape::PartialShape;

/// What the host tells a kernel is aligned to this.
pub(super) const PARAMETER_ALIGNMENT: usize = 16;

impl Planner<'_> {
    /// Says where the value of a variable is, whose node gives `tensor`.
    pub(super) fn choose_home(&mut self, node: &Node, tensor: usize) {
        let Some(variable) = self.variables[tensor] else { return };
        let extent = match &self.handles[tensor] {
            Some(HandleData { dtype, shape }) => (*dtype, shape.clone()),
            None => (self.dtypes[tensor], self.shapes[tensor].clone()),
        };
        let may_move = extent.0.size().is_some() && extent.1.is_fully_defined() && !self.on_host.contains(&variable);
        let wanted = if may_move {
            self.devices.wanted(node).memory
        } else {
            Memory::Host
        };
        let home = *self.homes.entry(variable).or_insert(wanted);
        if self.is_ref[tensor] {
            self.memory[tensor] = home;
        }
    }

    /// Makes it a step of an accelerator, if it can be one; whether it is.
    ///
    /// # Errors
    /// Those of making the kernel's state.
    pub(super) fn plan_on_accelerator(&mut self, node: &Node, step: &mut Step) -> Result<bool> {
        if self.devices.is_empty() {
            return Ok(false);
        }
        let by_host = step.guards.is_some() || step.in_loop || node.definition.control_flow != ControlFlow::None;
        let memory = if by_host {
            Memory::Host
        } else {
            self.memory_of(node, step)
        };
        let why = match self.try_on(memory, node, step)? {
            None => return Ok(true),
            Some(why) => why,
        };
        if memory != Memory::Host {
            self.fallbacks.push((step.node, why));
        }
        // What the host works on, it has; where only the run tells which variable that is, it may be any.
        for (arg, &input) in input_args(node).zip(&step.inputs) {
            if self.works_on(node, arg, input) {
                match self.variables[input as usize] {
                    Some(variable) => drop(self.on_host.insert(variable)),
                    None => self.on_host.extend(self.homes.keys()),
                }
            }
        }
        Ok(false)
    }

    /// Whether the op works on the variable that its input refers to, or hands on where its value is.
    fn works_on(&self, node: &Node, arg: &crate::op::ArgDef, input: u32) -> bool {
        let only_asks = [vocabulary::IS_VARIABLE_INITIALIZED, vocabulary::VAR_IS_INITIALIZED];
        let refers = (arg.is_ref && self.is_ref[input as usize]) || arg.ty == ArgType::Fixed(crate::DType::Resource);
        refers && !only_asks.contains(&node.op())
    }

    /// Where the node is to run: beside the variable that it works on, where its input is if it passes that on, or where it
    /// asks to.
    fn memory_of(&self, node: &Node, step: &Step) -> Memory {
        let refers = |(arg, input): (&crate::op::ArgDef, &u32)| {
            (arg.is_ref && self.is_ref[*input as usize]) || arg.ty == ArgType::Fixed(crate::DType::Resource)
        };
        let variable = input_args(node)
            .zip(&step.inputs)
            .find(|&(arg, input)| refers((arg, input)))
            .map(|(_, &input)| self.variables[input as usize]);
        match variable {
            Some(variable) => variable
                .and_then(|variable| self.homes.get(&variable).copied())
                .unwrap_or(Memory::Host),
            None => self.devices.wanted(node).memory,
        }
    }

    /// Tries to make the step one of this memory's device; why that is not possible, if it is not.
    fn try_on(&mut self, memory: Memory, node: &Node, step: &mut Step) -> Result<Option<String>> {
        let on_cpu = find_kernel(node, DeviceKind::Cpu).ok();
        if node.op() == vocabulary::READ_VARIABLE && memory != Memory::Host {
            step.definition = on_cpu;
            if let (Some(kernel), true) = (on_cpu, self.variables[step.inputs[0] as usize].is_some()) {
                step.work = self.work(node, kernel, step)?;
                if matches!(step.work, Work::Read { .. }) {
                    step.memory = memory;
                    return Ok(None);
                }
            }
            return Ok(Some(
                "the variable that it reads is not known before the run".to_owned(),
            ));
        }
        if let Some(kernel) = on_cpu.filter(|kernel| kernel.alias.is_some()) {
            // Passing on does nothing, wherever the tensor is.
            let source = self.memory[step.inputs[0] as usize];
            if source == Memory::Host || step.guards.is_some() || step.in_loop {
                return Ok(Some("its input is on the host".to_owned()));
            }
            self.complete_alias(node, kernel, step);
            if let Ok(Work::Alias) = self.work(node, kernel, step) {
                (step.memory, step.definition, step.work) = (source, Some(kernel), Work::Alias);
                return Ok(None);
            }
            return Ok(Some("its shape is not known before the run".to_owned()));
        }
        if memory == Memory::Host {
            return Ok(Some(String::new()));
        }
        let kernel = match find_kernel(node, DeviceKind::Cuda) {
            Ok(kernel) => kernel,
            Err(_) => return Ok(Some("it has no kernel there".to_owned())),
        };
        step.memory = memory;
        match self.work(node, kernel, step) {
            Ok(Work::Static(planned)) => {
                step.definition = Some(kernel);
                self.keep_state(node, kernel, step)?;
                step.work = Work::Static(planned);
                Ok(None)
            }
            other => {
                step.memory = Memory::Host;
                Ok(Some(match other {
                    Err(error) => error.to_string(),
                    Ok(_) => "its shapes are not known before the run".to_owned(),
                }))
            }
        }
    }

    /// Gives the step its inputs in the memory where it reads them.
    pub(super) fn bring_inputs(&mut self, node: &Node, step: &mut Step) {
        if self.devices.is_empty() || matches!(step.work, Work::Nothing | Work::Alias | Work::Read { .. }) {
            return;
        }
        let args: Vec<_> = input_args(node).map(|arg| (arg.is_ref, arg.ty)).collect();
        let at_plan_time = super::plan_time_inputs(node);
        for position in 0..step.inputs.len() {
            let input = step.inputs[position];
            let refers = args.get(position).is_some_and(|&(is_ref, ty)| {
                (is_ref && self.is_ref[input as usize]) || ty == ArgType::Fixed(crate::DType::Resource)
            });
            let on_host = step
                .definition
                .is_some_and(|kernel| kernel.host_inputs.contains(&position));
            let known = step.memory != Memory::Host && (at_plan_time.contains(&position) || on_host);
            if refers || known || self.dtypes[input as usize].size().is_none() {
                continue;
            }
            if let (true, Some(variable)) = (step.guards.is_some(), self.variables[input as usize]) {
                // A copy before the branch would ask for a variable that the branch not taken need not have.
                self.on_host.insert(variable);
            }
            let brought = self.in_memory(input, step.memory, step.node);
            if brought != input {
                step.inputs[position] = brought;
                // The copy reads the variable.
                step.reads.retain(|&read| read != position);
            }
        }
    }

    /// The tensor in this memory: itself, or a copy that is made now, for the node `by`.
    pub(super) fn in_memory(&mut self, tensor: u32, memory: Memory, by: NodeId) -> u32 {
        let source = tensor as usize;
        if self.memory[source] == memory || self.dtypes[source].size().is_none() {
            return tensor;
        }
        // A variable may change between two that read it.
        let lasting = !self.is_ref[source];
        if let Some(&copy) = self.copies.get(&(tensor, memory)).filter(|_| lasting) {
            return copy;
        }
        let copy = self.push_tensor(source, memory);
        if lasting {
            self.copies.insert((tensor, memory), copy);
        }
        match self.places[self.root(tensor) as usize] {
            Some(Place::Feed(_)) => self.feed_copies.push((self.root(tensor), copy)),
            Some(Place::Constant) => {
                self.places[copy as usize] = Some(Place::Resident);
                self.constant_copies.push((self.root(tensor), copy));
            }
            _ => self.steps.push(Step {
                node: by,
                work: Work::Copy,
                definition: None,
                memory,
                parameters: 0,
                scratch: (0, 0),
                in_place: false,
                reads: if lasting { Vec::new() } else { vec![0] },
                refs: Vec::new(),
                state: None,
                guards: None,
                in_loop: false,
                release: Vec::new(),
                inputs: vec![tensor],
                outputs: vec![copy],
            }),
        }
        copy
    }

    /// Moves what the host can do before anything else to the front, so that it does not interrupt what accelerators do: steps
    /// that only pass on, copy to an accelerator or compute what feeds and constants give, and have no effect.
    pub(super) fn host_first(&mut self) {
        let as_they_are =
            self.devices.is_empty() || self.steps.iter().any(|step| step.guards.is_some() || step.in_loop);
        if as_they_are {
            return;
        }
        let mut early_step = vec![false; self.steps.len()];
        // Tensors that later steps alone make.
        let mut late: FxHashSet<u32> = FxHashSet::default();
        for (index, step) in self.steps.iter().enumerate() {
            let node = self.program.node(step.node);
            let passes = match step.work {
                Work::Alias => step.memory == Memory::Host,
                Work::Copy => self.memory[step.inputs[0] as usize] == Memory::Host,
                Work::Static(_) => step.memory == Memory::Host && !node.definition.stateful,
                _ => false,
            };
            let waits = |control: &NodeId| self.step_of.get(control).is_some_and(|&step| !early_step[step]);
            let is_copy = matches!(step.work, Work::Copy);
            early_step[index] = passes
                && step.reads.is_empty()
                && step.refs.is_empty()
                && !step.inputs.iter().any(|input| late.contains(input))
                && (is_copy || !node.control_inputs.iter().any(waits));
            if !early_step[index] {
                late.extend(&step.outputs);
            }
        }
        let steps = std::mem::take(&mut self.steps);
        let (early, later): (Vec<_>, Vec<_>) = steps.into_iter().zip(early_step).partition(|(_, early)| *early);
        self.steps = early.into_iter().chain(later).map(|(step, _)| step).collect();
        let computing = self
            .steps
            .iter()
            .enumerate()
            .filter(|(_, step)| !matches!(step.work, Work::Copy));
        self.step_of = computing.map(|(index, step)| (step.node, index)).collect();
    }

    /// Writes to standard error where each operation runs, and why not elsewhere.
    pub(super) fn report_placement(&self) {
        let variables = self
            .program
            .ids()
            .filter(|&id| vocabulary::is_variable(self.program.node(id).op()));
        for id in variables {
            let home = self.variables[self.tensor(TensorId::new(id, 0)) as usize];
            let home = home.and_then(|variable| self.homes.get(&variable)).copied();
            let why = Some("something on the host works on it, or its shape is not known");
            let line = self
                .devices
                .report(self.program.node(id), home.unwrap_or(Memory::Host), why);
            eprintln!("{line}");
        }
        let whys: FxHashMap<NodeId, &str> = self.fallbacks.iter().map(|(id, why)| (*id, why.as_str())).collect();
        for step in self.steps.iter().filter(|step| !matches!(step.work, Work::Copy)) {
            let why = whys.get(&step.node).copied();
            eprintln!(
                "{}",
                self.devices.report(self.program.node(step.node), step.memory, why)
            );
        }
    }

    /// A new tensor like `source` in another memory.
    fn push_tensor(&mut self, source: usize, memory: Memory) -> u32 {
        let shape: PartialShape = self.shapes[source].clone();
        self.shapes.push(shape);
        self.dtypes.push(self.dtypes[source]);
        self.is_ref.push(false);
        self.handles.push(None);
        self.variables.push(None);
        self.values.push(None);
        self.places.push(None);
        self.memory.push(memory);
        (self.memory.len() - 1) as u32
    }
}
