//! The shaped plan: a structural plan with the fed shapes known, so that kernels can be made and memory planned.
//!
//! A node is *static* if the shapes of its inputs and outputs, and the values of its plan-time inputs, are known now: its
//! kernel is made now, and its outputs lie in the arena. Every other node is *dynamic*: its kernel is made in each run, and
//! its outputs are values of their own. What constants and shapes alone decide is computed now and needs no step.

use std::ops::Range;

use rustc_hash::FxHashMap;

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{HandleData, Node, NodeId, TensorId};
use crate::op::kernel::{DeviceKind, KernelDefinition, KernelRequest, Planned, Slot};
use crate::op::shape_inference::{InferenceContext, Inferred, InputValues};
use crate::op::{ArgType, ControlFlow, vocabulary};
use crate::rewrite::Program;
use crate::session::evaluate::{evaluate_node, find_kernel, needs_kernel, value_slot};
use crate::session::loops::Loop;
use crate::session::memory::{ArenaPlanner, Block};
use crate::session::state::SessionState;
use crate::session::structure::{Structure, input_args, updates};
use crate::session::survey::Survey;
use crate::shape::{PartialShape, Shape};
use crate::value::Value;

/// Where a tensor's data is while the plan runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In the arena, at this offset.
    Arena(usize),
    /// In the value fed as this one of the feeds.
    Feed(usize),
    /// In a value made in each run, given out as a fetch.
    Fetched,
    /// In a value that the plan holds.
    Constant,
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
}

/// A plan that is ready to run.
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) places: Vec<Place>,
    /// The tensors of the feeds and of the fetches.
    pub(crate) feeds: Vec<u32>,
    pub(crate) fetches: Vec<u32>,
    /// The tensors whose values are made anew in each run.
    pub(crate) fetched: Vec<u32>,
    pub(crate) arena_size: usize,
    /// The base address that the slots were last set up for.
    pub(crate) arena_base: *mut u8,
    /// Which steps were dead in this run; used by guarded ones only.
    pub(crate) dead: Vec<bool>,
    /// The loops, inner ones first.
    pub(crate) loops: Vec<LoopSteps>,
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

/// The most elements of a value that is worked out while a plan is made.
const MAX_PLAN_TIME_ELEMENTS: usize = 4096;

struct Planner<'a> {
    structure: &'a Structure,
    program: &'a Program,
    state: &'a mut SessionState,
    /// Index of the first tensor of each node.
    first: Vec<u32>,
    shapes: Vec<PartialShape>,
    dtypes: Vec<DType>,
    /// Which tensors are references to variables.
    is_ref: Vec<bool>,
    /// What is known of the variables that handles name.
    handles: Vec<Option<HandleData>>,
    /// The session's variable that a reference or handle refers to, where the graph alone says it.
    variables: Vec<Option<usize>>,
    values: Vec<Option<Value>>,
    places: Vec<Option<Place>>,
    steps: Vec<Step>,
    step_of: FxHashMap<NodeId, usize>,
    /// Which nodes are part of a loop.
    in_loop: Vec<bool>,
    loops: Vec<LoopSteps>,
}

impl Plan {
    /// The plan of a structure for feeds of these shapes.
    pub(crate) fn new(structure: &Structure, feeds: &[Shape], state: &mut SessionState) -> Result<Self> {
        Planner::of(structure, feeds, state)?.finish()
    }
}

impl<'a> Planner<'a> {
    /// A planner that has been over all nodes: shapes, values and steps are known.
    fn of(structure: &'a Structure, feeds: &[Shape], state: &'a mut SessionState) -> Result<Self> {
        let program = &structure.program;
        let mut first = Vec::with_capacity(program.nodes.len());
        let mut dtypes = Vec::new();
        let mut is_ref = Vec::new();
        for node in &program.nodes {
            first.push(dtypes.len() as u32);
            dtypes.extend(node.outputs.iter().map(|output| output.dtype));
            is_ref.extend(node.outputs.iter().map(|output| output.is_ref));
        }
        let count = dtypes.len();
        let mut planner = Planner {
            structure,
            program,
            state,
            first,
            shapes: vec![PartialShape::unknown(); count],
            dtypes,
            is_ref,
            handles: vec![None; count],
            variables: vec![None; count],
            values: vec![None; count],
            places: vec![None; count],
            steps: Vec::with_capacity(program.nodes.len()),
            step_of: FxHashMap::default(),
            in_loop: vec![false; program.nodes.len()],
            loops: Vec::new(),
        };
        for id in structure
            .loops
            .iter()
            .flat_map(|inner| &structure.order[inner.body.clone()])
        {
            planner.in_loop[id.index()] = true;
        }
        for (index, feed) in program.feeds.iter().enumerate() {
            let tensor = planner.tensor(*feed) as usize;
            planner.shapes[tensor] = PartialShape::from(&feeds[index]);
            planner.places[tensor] = Some(Place::Feed(index));
        }
        // The first step at or after each place in the order.
        let mut first_steps = Vec::with_capacity(structure.order.len() + 1);
        for &id in &structure.order {
            first_steps.push(planner.steps.len());
            planner
                .plan_node(id)
                .map_err(|error| error.at(program.node(id).site()))?;
        }
        first_steps.push(planner.steps.len());
        for Loop { body, back, first } in &structure.loops {
            planner.loops.push(LoopSteps {
                body: first_steps[body.start]..first_steps[body.end],
                back: back.iter().map(|&id| planner.tensor(id)).collect(),
                first: first.iter().map(|&id| planner.tensor(id)).collect(),
            });
        }
        Ok(planner)
    }
}

impl Survey {
    /// What feeds of these shapes tell of the structure's tensors.
    ///
    /// # Errors
    /// Those of a plan.
    pub(crate) fn new(structure: &Structure, feeds: &[Shape], state: &mut SessionState) -> Result<Self> {
        let planner = Planner::of(structure, feeds, state)?;
        Ok(Self {
            first: planner.first,
            shapes: planner.shapes,
            values: planner.values,
        })
    }
}

impl Planner<'_> {
    fn tensor(&self, id: TensorId) -> u32 {
        self.first[id.node.index()] + id.slot
    }

    fn plan_node(&mut self, id: NodeId) -> Result<()> {
        let node = self.program.node(id);
        if node.op() == vocabulary::FEED {
            return Ok(());
        }
        let inputs: Vec<u32> = node.inputs.iter().map(|&input| self.tensor(input)).collect();
        let outputs: Vec<u32> = (0..node.outputs.len())
            .map(|slot| self.first[id.index()] + slot as u32)
            .collect();
        let guarded = self.structure.guarded[id.index()];
        if vocabulary::is_variable(node.op()) {
            let output = outputs[0] as usize;
            self.shapes[output] = node.outputs[0].shape.clone();
            self.handles[output] = node.outputs[0].handle.as_deref().cloned();
            self.variables[output] = Some(self.state.variable(node)?);
            self.places[output] = Some(Place::Variable);
            return Ok(());
        }
        // In a branch that may not be taken, what does not fit is an error only where it runs.
        let inferred = match self.infer(node, &inputs) {
            Err(_) if guarded => None,
            inferred => Some(inferred?),
        };
        let fits = inferred.is_some();
        let known = inferred
            .into_iter()
            .flat_map(|known| known.shapes.into_iter().zip(known.handles));
        for (&output, (shape, handle)) in outputs.iter().zip(known) {
            self.shapes[output as usize] = shape;
            self.handles[output as usize] = handle.filter(|_| self.dtypes[output as usize] == DType::Resource);
        }
        if !guarded && self.compute_now(node, &inputs, &outputs) {
            return Ok(());
        }
        let device = DeviceKind::Cpu;
        let mut step = Step {
            node: id,
            work: Work::Nothing,
            definition: None,
            scratch: (0, 0),
            in_place: false,
            reads: Vec::new(),
            refs: Vec::new(),
            state: None,
            guards: None,
            in_loop: self.in_loop[id.index()],
            release: Vec::new(),
            inputs,
            outputs,
        };
        for (index, (arg, &input)) in input_args(node).zip(&step.inputs).enumerate() {
            if self.is_ref[input as usize] {
                if !arg.is_ref {
                    step.reads.push(index);
                } else if !node.definition.allows_uninitialized_input {
                    step.refs.push(index);
                }
            } else if arg.ty == ArgType::Fixed(DType::Resource) && !node.definition.allows_uninitialized_input {
                step.refs.push(index);
            }
        }
        if guarded {
            let controls = node
                .control_inputs
                .iter()
                .filter_map(|control| self.step_of.get(control).copied());
            step.guards = Some(controls.collect());
        }
        if needs_kernel(node) {
            let kernel = find_kernel(node, device)?;
            step.definition = Some(kernel);
            if kernel.alias.is_some() && node.definition.plan_time_inputs.is_empty() {
                // An alias that says nothing of its shape has its input's.
                let (input, output) = (step.inputs[0] as usize, step.outputs[0] as usize);
                if !self.shapes[output].is_fully_defined() && self.shapes[input].is_fully_defined() {
                    self.shapes[output] = self.shapes[input].clone();
                }
            }
            if let Some(make) = kernel.state {
                step.state = Some(
                    self.state
                        .kernel_state(self.program.origins[id.index()], || make(&node.attrs))?,
                );
            }
            step.work = match self.work(node, kernel, &step) {
                // What the next iteration writes must not be where this one's results lie.
                _ if !fits || step.in_loop => Work::Dynamic,
                Err(_) if guarded => Work::Dynamic,
                work => work?,
            };
        }
        self.place_outputs(node, &step);
        self.step_of.insert(id, self.steps.len());
        self.steps.push(step);
        Ok(())
    }

    fn infer(&self, node: &Node, inputs: &[u32]) -> Result<Inferred> {
        let shapes: Vec<PartialShape> = inputs
            .iter()
            .map(|&input| self.shapes[input as usize].clone())
            .collect();
        let dtypes: Vec<DType> = inputs.iter().map(|&input| self.dtypes[input as usize]).collect();
        let values = PlanValues { planner: self, node };
        InferenceContext::new(
            node.definition,
            &node.attrs,
            &shapes,
            &dtypes,
            node.outputs.len(),
            &values,
        )
        .infer()
    }

    /// Computes a node whose inputs are all known, or whose output is a known shape; whether that was possible.
    fn compute_now(&mut self, node: &Node, inputs: &[u32], outputs: &[u32]) -> bool {
        let definition = node.definition;
        if definition.stateful || definition.control_flow != ControlFlow::None || outputs.is_empty() {
            return false;
        }
        let small = |shape: &PartialShape| shape.num_elements().is_none_or(|count| count <= MAX_PLAN_TIME_ELEMENTS);
        let constant = node.op() == vocabulary::CONST;
        if !constant && !outputs.iter().all(|&output| small(&self.shapes[output as usize])) {
            return false;
        }
        let computed = if constant {
            node.attrs.read::<Value>("value").map(|value| vec![value]).ok()
        } else {
            let known: Option<Vec<Value>> = inputs
                .iter()
                .map(|&input| self.values[input as usize].clone())
                .collect();
            match known {
                Some(values) if !inputs.is_empty() => evaluate_node(node, &values).ok(),
                _ => self.shape_as_value(node, outputs),
            }
        };
        let Some(values) = computed.filter(|values| values.len() == outputs.len()) else {
            return false;
        };
        for (&output, value) in outputs.iter().zip(values) {
            self.shapes[output as usize] = PartialShape::from(value.shape());
            self.values[output as usize] = Some(value);
            self.places[output as usize] = Some(Place::Constant);
        }
        true
    }

    /// The outputs of an op that tells shapes, all of which are known now.
    fn shape_as_value(&self, node: &Node, outputs: &[u32]) -> Option<Vec<Value>> {
        let function = node.definition.value_as_shape?;
        let inputs: Vec<u32> = node.inputs.iter().map(|&input| self.tensor(input)).collect();
        let shapes: Vec<PartialShape> = inputs
            .iter()
            .map(|&input| self.shapes[input as usize].clone())
            .collect();
        let dtypes: Vec<DType> = inputs.iter().map(|&input| self.dtypes[input as usize]).collect();
        let values = PlanValues { planner: self, node };
        let context = InferenceContext::new(node.definition, &node.attrs, &shapes, &dtypes, outputs.len(), &values);
        (0..outputs.len())
            .map(|slot| {
                let shape = function(&context, slot)?.to_shape()?;
                let declared = &self.shapes[outputs[slot] as usize];
                let value = Value::from(shape.iter().map(|&dim| dim as i64).collect::<Vec<_>>());
                let value = value.cast_exactly(node.outputs[slot].dtype).ok()?;
                match declared.rank() {
                    Some(1) => Some(value),
                    // A single number, as a size or a rank.
                    Some(0) => value.reshaped(()).ok(),
                    _ => None,
                }
            })
            .collect()
    }

    fn work(&self, node: &Node, kernel: &'static KernelDefinition, step: &Step) -> Result<Work> {
        if node.op() == vocabulary::READ_VARIABLE {
            let output = step.outputs[0] as usize;
            if self.shapes[output].is_fully_defined() && self.dtypes[output].size().is_some() {
                return Ok(Work::Read { copy: false });
            }
        }
        if kernel.alias.is_some() {
            let known = step
                .outputs
                .iter()
                .all(|&output| self.shapes[output as usize].is_fully_defined());
            let source_known = self.shapes[step.inputs[0] as usize].is_fully_defined();
            let stays = !matches!(self.places[step.inputs[0] as usize], Some(Place::Dynamic));
            return Ok(if known && source_known && stays {
                Work::Alias
            } else {
                Work::Dynamic
            });
        }
        let shapes: Option<Vec<Shape>> = step
            .inputs
            .iter()
            .map(|&input| self.shapes[input as usize].to_shape())
            .collect();
        let plan_time = plan_time_inputs(node);
        let needed = plan_time
            .iter()
            .all(|&input| self.values[step.inputs[input] as usize].is_some());
        let output_shapes: Vec<Option<Shape>> = step
            .outputs
            .iter()
            .map(|&output| {
                if kernel.data_dependent {
                    None
                } else {
                    self.shapes[output as usize].to_shape()
                }
            })
            .collect();
        let sized = kernel.data_dependent
            || node.definition.control_flow != ControlFlow::None
            || output_shapes.iter().all(Option::is_some);
        let (Some(shapes), true, true) = (shapes, needed, sized) else {
            return Ok(Work::Dynamic);
        };
        let dtypes: Vec<DType> = step.inputs.iter().map(|&input| self.dtypes[input as usize]).collect();
        let values: Vec<Option<Value>> = step
            .inputs
            .iter()
            .map(|&input| self.values[input as usize].clone())
            .collect();
        let output_dtypes: Vec<DType> = step
            .outputs
            .iter()
            .map(|&output| self.dtypes[output as usize])
            .collect();
        kernel
            .make(&KernelRequest {
                attrs: &node.attrs,
                input_dtypes: &dtypes,
                input_shapes: &shapes,
                input_values: &values,
                output_dtypes: &output_dtypes,
                output_shapes: &output_shapes,
                accelerator: None,
            })
            .map(Work::Static)
    }

    /// Says where the outputs lie; those that the arena is for are left open.
    fn place_outputs(&mut self, node: &Node, step: &Step) {
        for (slot, &output) in step.outputs.iter().enumerate() {
            let info = &node.outputs[slot];
            let data_dependent = step.definition.is_some_and(|kernel| kernel.data_dependent);
            self.places[output as usize] = match &step.work {
                Work::Alias => Some(Place::Alias(step.inputs[0])),
                Work::Read { .. } => Some(Place::Variable),
                _ if node.definition.control_flow != ControlFlow::None => Some(Place::Dynamic),
                _ if info.is_ref => {
                    // An op hands the reference on that it was given, as `Assign` does.
                    step.inputs
                        .iter()
                        .copied()
                        .find(|&input| self.is_ref[input as usize])
                        .map(Place::Alias)
                }
                Work::Dynamic => Some(Place::Dynamic),
                _ if info.dtype.size().is_none() || data_dependent => Some(Place::Dynamic),
                _ => None,
            };
        }
        // What a step hands on of its variables or passes through is known where all that it may be is the same.
        for &output in &step.outputs {
            if self.is_ref[output as usize] || self.dtypes[output as usize] == DType::Resource {
                let refers = |input: &&u32| {
                    self.is_ref[**input as usize] == self.is_ref[output as usize]
                        && self.dtypes[**input as usize] == self.dtypes[output as usize]
                };
                let mut sources = step
                    .inputs
                    .iter()
                    .filter(refers)
                    .map(|&input| self.variables[input as usize]);
                let merges = node.definition.control_flow == ControlFlow::Merge;
                let first = sources.next().flatten();
                let same = !merges || sources.all(|other| other == first);
                self.variables[output as usize] = first.filter(|_| same);
            }
        }
        // `Merge` tells by a number which of its inputs it took.
        if node.definition.control_flow == ControlFlow::Merge && !matches!(step.work, Work::Dynamic) {
            self.places[step.outputs[1] as usize] = None;
        }
    }

    fn finish(mut self) -> Result<Plan> {
        let last_use = self.last_uses();
        let fetches: Vec<u32> = self.program.fetches.iter().map(|&fetch| self.tensor(fetch)).collect();
        self.snapshot_reads(&last_use, &fetches);
        let last_use = self.last_uses();
        let fetched = self.place_fetches(&fetches);
        let arena_size = self.place_in_arena(&last_use);
        let places: Vec<Place> = self
            .places
            .iter()
            .map(|place| place.unwrap_or(Place::Dynamic))
            .collect();
        for (tensor, place) in places.iter().enumerate() {
            let ends =
                *place == Place::Dynamic && last_use[tensor] != usize::MAX && !fetches.contains(&(tensor as u32));
            if let Some(step) = self.steps.get_mut(last_use[tensor]).filter(|_| ends) {
                step.release.push(tensor as u32);
            }
        }
        let mut slots = Vec::with_capacity(places.len());
        for node in &self.program.nodes {
            for _ in &node.outputs {
                let tensor = slots.len();
                let mut slot = match self.values[tensor]
                    .clone()
                    .filter(|_| places[tensor] == Place::Constant)
                {
                    Some(value) => value_slot(value),
                    None => Slot {
                        data: crate::buffer::ALIGNMENT as *mut u8,
                        dtype: self.dtypes[tensor],
                        shape: self.shapes[tensor].to_shape().unwrap_or_default(),
                        dead: false,
                        variable: None,
                        value: None,
                        object: None,
                    },
                };
                slot.dtype = self.dtypes[tensor];
                slots.push(slot);
            }
        }
        for (slot, &variable) in slots.iter_mut().zip(&self.variables) {
            slot.variable = variable;
        }
        let feeds = self.program.feeds.iter().map(|&feed| self.tensor(feed)).collect();
        let dead = vec![false; self.steps.len()];
        Ok(Plan {
            steps: self.steps,
            slots,
            places,
            feeds,
            fetches,
            fetched,
            arena_size,
            arena_base: std::ptr::null_mut(),
            dead,
            loops: self.loops,
        })
    }

    /// The tensor at whose address this one lies.
    fn root(&self, mut tensor: u32) -> u32 {
        while let Some(Place::Alias(other)) = self.places[tensor as usize] {
            tensor = other;
        }
        tensor
    }

    /// The last step that reads each tensor, under any of its names; `usize::MAX` for those that live to the end.
    fn last_uses(&self) -> Vec<usize> {
        let mut last = vec![0usize; self.places.len()];
        for (index, step) in self.steps.iter().enumerate() {
            for &tensor in step.inputs.iter().chain(&step.outputs) {
                let root = self.root(tensor) as usize;
                last[root] = last[root].max(index);
                last[tensor as usize] = last[tensor as usize].max(index);
            }
        }
        // What a loop works on may be needed in any later iteration, and behind it.
        for step in self.steps.iter().filter(|step| step.in_loop) {
            for &tensor in step.inputs.iter().chain(&step.outputs) {
                let root = self.root(tensor) as usize;
                (last[root], last[tensor as usize]) = (usize::MAX, usize::MAX);
            }
        }
        // The ways of a Switch, and what a Merge passes on, lie where their inputs lie.
        for step in self.steps.iter().rev() {
            let node = self.program.node(step.node);
            let passes = node.definition.control_flow != ControlFlow::None
                || (matches!(step.work, Work::Dynamic) && step.definition.is_some_and(|kernel| kernel.alias.is_some()));
            if passes {
                let end = step
                    .outputs
                    .iter()
                    .map(|&output| last[self.root(output) as usize])
                    .max()
                    .unwrap_or(0);
                for &input in &step.inputs {
                    let root = self.root(input) as usize;
                    last[root] = last[root].max(end);
                }
            }
        }
        for &fetch in &self.program.fetches {
            let mut tensors = vec![self.tensor(fetch)];
            while let Some(tensor) = tensors.pop() {
                let root = self.root(tensor);
                last[root as usize] = usize::MAX;
                let node = self.first.partition_point(|&first| first <= root) - 1;
                if let Some(&step) = self.step_of.get(&NodeId::new(node)) {
                    let step = &self.steps[step];
                    let flow = self.program.node(step.node).definition.control_flow != ControlFlow::None;
                    let dynamic = matches!(step.work, Work::Dynamic)
                        && step.definition.is_some_and(|kernel| kernel.alias.is_some());
                    if flow || dynamic {
                        tensors.extend(
                            step.inputs
                                .iter()
                                .filter(|&&input| last[self.root(input) as usize] != usize::MAX),
                        );
                    }
                }
            }
        }
        last
    }

    /// Makes reads of variables copies where a name of the variable's memory is read after an update.
    fn snapshot_reads(&mut self, last_use: &[usize], fetches: &[u32]) {
        let mut first_update: FxHashMap<usize, usize> = FxHashMap::default();
        // The first update of a variable that only the run can tell.
        let mut first_of_any: Option<usize> = None;
        for (index, step) in self.steps.iter().enumerate() {
            let node = self.program.node(step.node);
            for ((arg, id), &input) in input_args(node).zip(&node.inputs).zip(&step.inputs) {
                if updates(self.program, node, arg, *id) {
                    match self.variables[input as usize] {
                        Some(variable) => {
                            first_update.entry(variable).or_insert(index);
                        }
                        None => first_of_any = first_of_any.or(Some(index)),
                    }
                }
            }
        }
        // The last use of each name and of the names made from it.
        let mut uses = last_use.to_vec();
        for step in self.steps.iter().rev() {
            if matches!(step.work, Work::Alias) {
                let (input, output) = (step.inputs[0] as usize, step.outputs[0] as usize);
                if fetches.contains(&(output as u32)) {
                    uses[output] = usize::MAX;
                }
                uses[input] = uses[input].max(uses[output]);
            }
        }
        for index in 0..self.steps.len() {
            let step = &self.steps[index];
            let copied = match step.work {
                Work::Alias if !step.reads.is_empty() => Work::Snapshot,
                Work::Read { .. } => Work::Read { copy: true },
                _ => continue,
            };
            let output = step.outputs[0];
            let update = match self.variables[step.inputs[0] as usize] {
                Some(variable) => first_update
                    .get(&variable)
                    .copied()
                    .into_iter()
                    .chain(first_of_any)
                    .min(),
                None => first_update.values().copied().chain(first_of_any).min(),
            };
            // An update that takes the value itself must not see it change under its hands, unless it looks at each element
            // before it changes it.
            let last = uses[output as usize];
            let looks_first = |update: usize| {
                let kernel = self.steps[update].definition;
                update == last && kernel.is_some_and(|kernel| kernel.reads_before_update)
            };
            if update.is_some_and(|update| update <= last && !looks_first(update)) {
                self.steps[index].work = copied;
                self.places[output as usize] = None;
            }
        }
    }

    /// Gives every static fetched tensor a value of its own in each run.
    fn place_fetches(&mut self, fetches: &[u32]) -> Vec<u32> {
        let mut fetched = Vec::new();
        for &fetch in fetches {
            if self.places[fetch as usize].is_none() && self.shapes[fetch as usize].is_fully_defined() {
                self.places[fetch as usize] = Some(Place::Fetched);
                fetched.push(fetch);
            }
        }
        fetched
    }

    /// Lays the remaining tensors and all scratch memory out in the arena; its size.
    fn place_in_arena(&mut self, last_use: &[usize]) -> usize {
        let mut planner = ArenaPlanner::default();
        let mut blocks: FxHashMap<u32, Block> = FxHashMap::default();
        let mut ends: Vec<Vec<u32>> = vec![Vec::new(); self.steps.len()];
        for index in 0..self.steps.len() {
            let step = &self.steps[index];
            let outputs = step.outputs.clone();
            let in_place = step
                .definition
                .map(|kernel| kernel.in_place.clone())
                .unwrap_or_default();
            let is_static = matches!(step.work, Work::Static(_));
            let mut taken: Vec<u32> = Vec::new();
            for (slot, &output) in outputs.iter().enumerate() {
                if self.places[output as usize].is_some() {
                    continue;
                }
                let bytes = self.bytes(output);
                // An input that ends here, lies in the arena and has the same size can be overwritten.
                let reused = in_place
                    .iter()
                    .filter(|(_, to)| is_static && *to == slot)
                    .find_map(|&(from, _)| {
                        let step = &self.steps[index];
                        let input = self.root(*step.inputs.get(from)?);
                        let others = step.inputs.iter().filter(|&&other| self.root(other) == input).count();
                        let ends_here = last_use[input as usize] == index && others == 1 && !taken.contains(&input);
                        let fits = bytes > 0 && self.bytes(input) == bytes;
                        (ends_here && fits && blocks.contains_key(&input)).then_some(input)
                    });
                let block = match reused {
                    Some(input) => {
                        taken.push(input);
                        self.steps[index].in_place = true;
                        blocks.remove(&input).expect("found above")
                    }
                    None => planner.allocate(bytes),
                };
                self.places[output as usize] = Some(Place::Arena(block.offset));
                blocks.insert(output, block);
                let end = last_use[output as usize];
                if end != usize::MAX {
                    ends[end.max(index)].push(output);
                }
            }
            if let Work::Static(planned) = &self.steps[index].work
                && planned.scratch > 0
            {
                let bytes = planned.scratch;
                let block = planner.allocate(bytes);
                self.steps[index].scratch = (block.offset, bytes);
                planner.release(block);
            }
            for ended in std::mem::take(&mut ends[index]) {
                if let Some(block) = blocks.remove(&ended) {
                    planner.release(block);
                }
            }
        }
        planner.size()
    }

    fn bytes(&self, tensor: u32) -> usize {
        let shape = self.shapes[tensor as usize].to_shape();
        let size = self.dtypes[tensor as usize].size().unwrap_or(0);
        shape.map_or(0, |shape| shape.num_elements() * size)
    }
}

/// The flat positions of a node's plan-time inputs.
pub(crate) fn plan_time_inputs(node: &Node) -> Vec<usize> {
    let wanted = &node.definition.plan_time_inputs;
    if wanted.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = wanted
        .iter()
        .filter_map(|&index| node.definition.inputs.get(index))
        .map(|arg| arg.name)
        .collect();
    input_args(node)
        .enumerate()
        .filter(|(_, arg)| names.contains(&arg.name))
        .map(|(index, _)| index)
        .collect()
}

/// Values of inputs as a plan knows them.
struct PlanValues<'a, 'b> {
    planner: &'a Planner<'b>,
    node: &'a Node,
}

impl InputValues for PlanValues<'_, '_> {
    fn handle(&self, index: usize) -> Option<HandleData> {
        self.planner.handles[self.planner.tensor(self.node.inputs[index]) as usize].clone()
    }

    fn value(&self, index: usize) -> Option<Value> {
        self.planner.values[self.planner.tensor(self.node.inputs[index]) as usize].clone()
    }

    fn value_as_shape(&self, index: usize) -> Option<PartialShape> {
        if let Some(value) = self.value(index) {
            return crate::graph::builder::shape_of_values(&value.to_i64_vec().ok()?);
        }
        let input = self.node.inputs[index];
        let source = self.planner.program.node(input.node);
        let function = source.definition.value_as_shape?;
        let tensors: Vec<usize> = source
            .inputs
            .iter()
            .map(|&input| self.planner.tensor(input) as usize)
            .collect();
        let shapes: Vec<PartialShape> = tensors
            .iter()
            .map(|&tensor| self.planner.shapes[tensor].clone())
            .collect();
        let dtypes: Vec<DType> = tensors.iter().map(|&tensor| self.planner.dtypes[tensor]).collect();
        let values = PlanValues {
            planner: self.planner,
            node: source,
        };
        let context = InferenceContext::new(
            source.definition,
            &source.attrs,
            &shapes,
            &dtypes,
            source.outputs.len(),
            &values,
        );
        function(&context, input.slot as usize)
    }
}
