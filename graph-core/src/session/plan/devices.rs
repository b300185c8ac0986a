//! On which device each step of a plan runs, and the copies between their memories.
//!
//! A step runs on an accelerator if its node may, and there is a kernel; a tensor lies where it was made, and is copied when
//! something elsewhere takes it. Feeds and constants are on the host; their copies on an accelerator are made before the first
//! step, those of constants once for all runs. Strings are the host's, and so are integers of which something is decided while
//! the plan runs: shapes that only the data tells, and what counts the iterations of loops.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{HandleData, Node, NodeId, TensorId};
use crate::op::kernel::{DeviceKind, KernelDefinition};
use crate::op::{ArgDef, ArgType, ControlFlow, vocabulary};
use crate::session::evaluate::find_kernel;
use crate::session::placement::Memory;
use crate::session::plan::planner::Planner;
use crate::session::plan::{Place, Step, Work};
use crate::session::structure::input_args;
use crate::shape::PartialShape;

/// Whether elements of this dtype count or decide something, so that the host may ask for them next.
fn decides(dtype: DType) -> bool {
    matches!(dtype, DType::Int32 | DType::Int64 | DType::Bool)
}

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
        if node.definition.control_flow != ControlFlow::None {
            // The host decides; what it decides about stays where it is.
            return Ok(false);
        }
        let memory = self.memory_of(node, step);
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
    fn works_on(&self, node: &Node, arg: &ArgDef, input: u32) -> bool {
        let only_asks = [vocabulary::IS_VARIABLE_INITIALIZED, vocabulary::VAR_IS_INITIALIZED];
        self.refers(arg, input) && !only_asks.contains(&node.op())
    }

    /// Whether the input, of this argument, refers to a variable.
    fn refers(&self, arg: &ArgDef, input: u32) -> bool {
        let input = input as usize;
        let is_handle = arg.ty == ArgType::Fixed(DType::Resource) && !self.names_object[input];
        is_handle || (arg.is_ref && self.is_ref[input])
    }

    /// Where the node is to run: beside the variables that it works on, on the host if one of them is there, or where it asks
    /// to.
    fn memory_of(&self, node: &Node, step: &Step) -> Memory {
        let mut homes = input_args(node)
            .zip(&step.inputs)
            .filter(|(arg, input)| self.refers(arg, **input))
            .map(|(_, &input)| {
                let home = self.variables[input as usize].and_then(|variable| self.homes.get(&variable).copied());
                home.unwrap_or(Memory::Host)
            });
        match homes.next() {
            Some(first) if homes.all(|home| home != Memory::Host) => first,
            Some(_) => Memory::Host,
            None if self.counts_on_host(step) => Memory::Host,
            None => self.devices.wanted(node).memory,
        }
    }

    /// Whether the step makes integers and truth values of those that the host has, with shapes that are not known or where a
    /// Switch or a loop decides whether it runs: shapes and counters, which the host asks for next.
    fn counts_on_host(&self, step: &Step) -> bool {
        let tensors = || step.inputs.iter().chain(&step.outputs).map(|&tensor| tensor as usize);
        let has_shape = |tensor: usize| self.shapes[tensor].is_fully_defined();
        let is_handle = |tensor: usize| self.dtypes[tensor] == DType::Resource;
        let on_host = |&input: &u32| is_handle(input as usize) || self.memory[input as usize] == Memory::Host;
        (!step.is_straight() || !tensors().all(has_shape))
            && tensors().all(|tensor| decides(self.dtypes[tensor]) || is_handle(tensor))
            && step.inputs.iter().all(on_host)
    }

    /// In which memory an op that decides what runs takes its input `position`.
    fn where_flow_takes(&self, node: &Node, step: &Step, position: usize) -> Memory {
        let tensor = step.inputs[position];
        let (is_at, dtype) = (self.memory[tensor as usize], self.dtypes[tensor as usize]);
        let wanted = if decides(dtype) {
            is_at
        } else {
            self.devices.wanted(node).memory
        };
        match node.definition.control_flow {
            ControlFlow::Switch if position == 0 => match self.places[self.root(tensor) as usize] {
                Some(Place::Feed(_) | Place::Constant) => wanted,
                _ => is_at,
            },
            ControlFlow::Enter => wanted,
            ControlFlow::Exit => is_at,
            ControlFlow::NextIteration => {
                let merge = self.carried_to.get(&step.node);
                merge.map_or(is_at, |&merge| {
                    self.memory[self.tensor(TensorId::new(merge, 0)) as usize]
                })
            }
            ControlFlow::Merge if self.is_way_back(node.inputs[position]) => is_at,
            ControlFlow::Merge => {
                let inputs = || node.inputs.iter().filter(|input| !self.is_way_back(**input));
                let mut memories = inputs().map(|&input| self.memory[self.tensor(input) as usize]);
                memories.find(|memory| *memory != Memory::Host).unwrap_or(Memory::Host)
            }
            _ => Memory::Host,
        }
    }

    /// Whether a NextIteration gives the tensor.
    fn is_way_back(&self, input: TensorId) -> bool {
        self.program.node(input.node).definition.control_flow == ControlFlow::NextIteration
    }

    /// In which memory the outputs of an op that decides what runs lie, whose inputs have been brought to where it takes them.
    pub(super) fn where_flow_gives(&self, node: &Node, step: &Step, slot: usize) -> Memory {
        let mut inputs = node.inputs.iter().zip(&step.inputs);
        let first = inputs.find(|(input, _)| !self.is_way_back(**input));
        match (node.definition.control_flow, first) {
            (ControlFlow::Merge, Some(_)) if slot > 0 => Memory::Host,
            (_, Some((_, &tensor))) => self.memory[tensor as usize],
            (_, None) => Memory::Host,
        }
    }

    /// Tries to make the step one of this memory's device; why that is not possible, if it is not.
    fn try_on(&mut self, memory: Memory, node: &Node, step: &mut Step) -> Result<Option<String>> {
        let on_cpu = find_kernel(node, DeviceKind::Cpu).ok();
        if node.op() == vocabulary::READ_VARIABLE && memory != Memory::Host {
            step.definition = on_cpu;
            if let (Some(kernel), true) = (on_cpu, self.variables[step.inputs[0] as usize].is_some()) {
                step.work = self.work(node, kernel, step)?;
                if step.in_loop {
                    step.work = Work::Dynamic;
                }
                if step.in_loop || matches!(step.work, Work::Read { .. }) {
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
            if source == Memory::Host {
                return Ok(Some("its input is on the host".to_owned()));
            }
            self.complete_alias(node, kernel, step);
            let work = if step.in_loop {
                Work::Dynamic
            } else {
                self.work(node, kernel, step)?
            };
            (step.memory, step.definition, step.work) = (source, Some(kernel), work);
            return Ok(None);
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
            Ok(work) => {
                step.definition = Some(kernel);
                self.keep_state(node, kernel, step)?;
                // What the host tells kernels before a run is for those that run once.
                step.work = if step.is_straight() && !kernel.data_dependent {
                    work
                } else {
                    Work::Dynamic
                };
                Ok(None)
            }
            Err(error) => {
                step.memory = Memory::Host;
                Ok(Some(error.to_string()))
            }
        }
    }

    /// Gives the step its inputs in the memory where it reads them.
    pub(super) fn bring_inputs(&mut self, node: &Node, step: &mut Step) {
        let flows = node.definition.control_flow != ControlFlow::None;
        let passes = matches!(step.work, Work::Nothing | Work::Alias | Work::Read { .. });
        if self.devices.is_empty() || (passes && !flows) {
            return;
        }
        let args: Vec<_> = input_args(node).collect();
        let at_plan_time = super::plan_time_inputs(node);
        for position in 0..step.inputs.len() {
            let input = step.inputs[position];
            let refers = args.get(position).is_some_and(|arg| self.refers(arg, input));
            if refers || self.dtypes[input as usize].size().is_none() {
                continue;
            }
            let by_kernel = |says: fn(&KernelDefinition) -> &[usize]| {
                step.definition.is_some_and(|kernel| says(kernel).contains(&position))
            };
            let on_host = at_plan_time.contains(&position) || by_kernel(|kernel| &kernel.host_inputs);
            let memory = match step.work {
                _ if flows => self.where_flow_takes(node, step, position),
                // Its shape is all that it is asked for.
                _ if step.definition.is_some_and(|kernel| kernel.reads_shapes_only) => continue,
                // It was read when the plan was made.
                Work::Static(_) if on_host && step.memory != Memory::Host => continue,
                _ if on_host => Memory::Host,
                _ => step.memory,
            };
            if let (true, Some(variable)) = (
                step.guards.is_some() && memory != self.memory[input as usize],
                self.variables[input as usize],
            ) {
                // A copy before the branch would ask for a variable that the branch not taken need not have.
                self.on_host.insert(variable);
            }
            let mut brought = self.in_memory(input, memory, step.node);
            let moves = matches!(self.places[self.root(brought) as usize], Some(Place::Dynamic));
            if moves && memory != Memory::Host && matches!(step.work, Work::Static(_)) {
                // What is recorded reads it where it is in each run.
                brought = self.copy_in(brought, memory, step.node);
            }
            if brought != input {
                step.inputs[position] = brought;
                // The copy reads the variable.
                step.reads.retain(|&read| read != position);
            }
        }
    }

    /// The tensor in this memory: itself, or a copy that is made now, for the node `by`.
    pub(super) fn in_memory(&mut self, tensor: u32, memory: Memory, by: NodeId) -> u32 {
        if self.memory[tensor as usize] == memory || self.dtypes[tensor as usize].size().is_none() {
            return tensor;
        }
        self.copy_in(tensor, memory, by)
    }

    /// A copy of the tensor in this memory, which the step before that of the node `by` makes unless there is one.
    fn copy_in(&mut self, tensor: u32, memory: Memory, by: NodeId) -> u32 {
        let source = tensor as usize;
        // A variable may change between two that read it.
        let lasting = !self.is_ref[source];
        if let Some(&copy) = self.copies.get(&(tensor, memory)).filter(|_| lasting) {
            return copy;
        }
        let copy = self.push_tensor(source, memory);
        if lasting {
            self.copies.insert((tensor, memory), copy);
        }
        let root = self.root(tensor);
        let may_be_dead = self.may_be_dead[source];
        let in_loop = self.in_loop[by.index()];
        let needs_step = match self.places[root as usize] {
            Some(Place::Feed(_)) if !may_be_dead => {
                self.feed_copies.push((root, copy));
                false
            }
            Some(Place::Constant) => {
                self.places[copy as usize] = Some(Place::Resident);
                self.constant_copies.push((root, copy));
                may_be_dead
            }
            _ => {
                let is_static = !may_be_dead && !in_loop && self.shapes[source].is_fully_defined();
                self.places[copy as usize] = (!is_static).then_some(Place::Dynamic);
                true
            }
        };
        if needs_step {
            let mut step = Step::new(by, vec![tensor], vec![copy]);
            (step.work, step.memory, step.in_loop) = (Work::Copy, memory, in_loop);
            step.guards = may_be_dead.then(Vec::new);
            if !lasting {
                step.reads.push(0);
            }
            self.steps.push(step);
        }
        copy
    }

    /// Moves what the host can do before anything else to the front, so that it does not interrupt what accelerators do: steps
    /// that only pass on, copy to an accelerator or compute what feeds and constants give, and have no effect.
    pub(super) fn host_first(&mut self) {
        let as_they_are = self.devices.is_empty() || self.steps.iter().any(|step| !step.is_straight());
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
        self.may_be_dead.push(self.may_be_dead[source]);
        self.handles.push(None);
        self.variables.push(None);
        self.names_object.push(false);
        self.values.push(None);
        self.places.push(None);
        self.memory.push(memory);
        (self.memory.len() - 1) as u32
    }
}
