//! Going over the nodes of a structure: shapes, values, kernels and steps.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{HandleData, Node, NodeId, TensorId};
use crate::op::kernel::{DeviceKind, KernelDefinition, KernelRequest};
use crate::op::shape_inference::{InferenceContext, Inferred};
use crate::op::{ArgType, ControlFlow, vocabulary};
use crate::rewrite::Program;
use crate::session::evaluate::{evaluate_node, find_kernel, needs_kernel};
use crate::session::loops::Loop;
use crate::session::placement::{Devices, Memory};
use crate::session::plan::values::{PlanValues, plan_time_inputs};
use crate::session::plan::{LoopSteps, Place, Step, Work};
use crate::session::state::SessionState;
use crate::session::structure::{Structure, input_args};
use crate::session::survey::Survey;
use crate::shape::{PartialShape, Shape};
use crate::value::Value;

/// The most elements of a value that is worked out while a plan is made.
const MAX_PLAN_TIME_ELEMENTS: usize = 4096;

pub(super) struct Planner<'a> {
    pub(super) structure: &'a Structure,
    pub(super) program: &'a Program,
    pub(super) state: &'a mut SessionState,
    /// The number of tensors that nodes give; those behind are copies.
    pub(super) count: usize,
    /// Index of the first tensor of each node.
    pub(super) first: Vec<u32>,
    pub(super) shapes: Vec<PartialShape>,
    pub(super) dtypes: Vec<DType>,
    /// Which tensors are references to variables.
    pub(super) is_ref: Vec<bool>,
    /// Which tensors a Switch may make dead.
    pub(super) may_be_dead: Vec<bool>,
    /// Which tensors a node or a fetch takes.
    pub(super) is_read: Vec<bool>,
    /// What is known of the variables that handles name.
    pub(super) handles: Vec<Option<HandleData>>,
    /// The session's variable that a reference or handle refers to, where the graph alone says it.
    pub(super) variables: Vec<Option<usize>>,
    /// Which handles name something else than a variable, that lives no longer than the run.
    pub(super) names_object: Vec<bool>,
    pub(super) values: Vec<Option<Value>>,
    pub(super) places: Vec<Option<Place>>,
    pub(super) steps: Vec<Step>,
    pub(super) step_of: FxHashMap<NodeId, usize>,
    /// Which nodes are part of a loop.
    pub(super) in_loop: Vec<bool>,
    pub(super) loops: Vec<LoopSteps>,
    /// The Merge to which each NextIteration carries its input.
    pub(super) carried_to: FxHashMap<NodeId, NodeId>,
    pub(super) devices: &'a Devices,
    /// In which memory each tensor lies.
    pub(super) memory: Vec<Memory>,
    /// Where the values of variables are while the plan runs.
    pub(super) homes: FxHashMap<usize, Memory>,
    /// Variables that something on the host works on.
    pub(super) on_host: FxHashSet<usize>,
    /// Copies of tensors in other memories.
    pub(super) copies: FxHashMap<(u32, Memory), u32>,
    /// Feeds and their copies on accelerators.
    pub(super) feed_copies: Vec<(u32, u32)>,
    /// Copies of constants on accelerators, and of which they are.
    pub(super) constant_copies: Vec<(u32, u32)>,
    /// The tensors that are fetched, on the host.
    pub(super) fetches: Vec<u32>,
    /// Why nodes are not on the device that they would be on.
    pub(super) fallbacks: Vec<(NodeId, String)>,
}

impl<'a> Planner<'a> {
    /// A planner that has been over all nodes on these devices.
    ///
    /// A variable's value can be on an accelerator only if all that works on it is there too, which shows when all nodes have
    /// been looked at: those of which it is not so stay on the host, and the nodes are gone over again.
    ///
    /// # Errors
    /// Those of shape functions and of making kernels.
    pub(super) fn on(
        structure: &'a Structure,
        feeds: &[Shape],
        state: &'a mut SessionState,
        devices: &'a Devices,
    ) -> Result<Self> {
        let mut on_host = FxHashSet::default();
        loop {
            let planner = Planner::of(structure, feeds, &mut *state, devices, on_host.clone())?;
            if planner.on_host.len() == on_host.len() {
                break;
            }
            on_host = planner.on_host;
        }
        Self::of(structure, feeds, state, devices, on_host)
    }

    /// A planner that has been over all nodes: shapes, values and steps are known.
    fn of(
        structure: &'a Structure,
        feeds: &[Shape],
        state: &'a mut SessionState,
        devices: &'a Devices,
        on_host: FxHashSet<usize>,
    ) -> Result<Self> {
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
            count,
            first,
            shapes: vec![PartialShape::unknown(); count],
            dtypes,
            is_ref,
            may_be_dead: vec![false; count],
            is_read: vec![false; count],
            handles: vec![None; count],
            variables: vec![None; count],
            names_object: vec![false; count],
            values: vec![None; count],
            places: vec![None; count],
            steps: Vec::with_capacity(program.nodes.len()),
            step_of: FxHashMap::default(),
            in_loop: vec![false; program.nodes.len()],
            loops: Vec::new(),
            carried_to: FxHashMap::default(),
            devices,
            memory: vec![Memory::Host; count],
            homes: FxHashMap::default(),
            on_host,
            copies: FxHashMap::default(),
            feed_copies: Vec::new(),
            constant_copies: Vec::new(),
            fetches: Vec::new(),
            fallbacks: Vec::new(),
        };
        let taken = program
            .nodes
            .iter()
            .flat_map(|node| &node.inputs)
            .chain(&program.fetches);
        for &id in taken {
            let tensor = planner.tensor(id) as usize;
            planner.is_read[tensor] = true;
        }
        for id in structure
            .loops
            .iter()
            .flat_map(|inner| &structure.order[inner.body.clone()])
        {
            planner.in_loop[id.index()] = true;
        }
        if !structure.loops.is_empty() {
            let is_merge = |id: &NodeId| program.node(*id).definition.control_flow == ControlFlow::Merge;
            let inputs = |merge: NodeId| program.node(merge).inputs.iter().map(move |input| (input.node, merge));
            planner.carried_to = program.ids().filter(is_merge).flat_map(inputs).collect();
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
        for &fetch in &program.fetches {
            let tensor = planner.tensor(fetch);
            let on_host = planner.in_memory(tensor, Memory::Host, fetch.node);
            planner.fetches.push(on_host);
        }
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
        let on_host = Devices::default();
        let planner = Planner::of(structure, feeds, state, &on_host, FxHashSet::default())?;
        Ok(Self {
            first: planner.first,
            shapes: planner.shapes,
            values: planner.values,
        })
    }
}

impl Planner<'_> {
    pub(super) fn tensor(&self, id: TensorId) -> u32 {
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
            self.choose_home(node, output);
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
        let is_known = self.compute_now(node, &inputs, &outputs);
        if is_known && !guarded {
            return Ok(());
        }
        let mut step = Step::new(id, inputs, outputs);
        step.in_loop = self.in_loop[id.index()];
        for &output in &step.outputs {
            self.may_be_dead[output as usize] = guarded || node.definition.control_flow == ControlFlow::Switch;
        }
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
            // A trigger is alive whatever it waits for.
            let is_trigger = node.op() == vocabulary::CONTROL_TRIGGER;
            let controls = node.control_inputs.iter().filter(|_| !is_trigger);
            let steps = controls.filter_map(|control| self.step_of.get(control).copied());
            step.guards = Some(steps.collect());
        }
        // What is known all the same may be dead, which takes a step to tell.
        if !is_known {
            if needs_kernel(node) && !self.plan_on_accelerator(node, &mut step)? {
                self.plan_on_host(node, &mut step, guarded, fits)?;
            }
            self.bring_inputs(node, &mut step);
            self.place_outputs(node, &step);
        }
        self.step_of.insert(id, self.steps.len());
        self.steps.push(step);
        Ok(())
    }

    /// Makes it a step of the host's. `fits` says whether the shapes do; where they do not, only the run may tell.
    fn plan_on_host(&mut self, node: &Node, step: &mut Step, guarded: bool, fits: bool) -> Result<()> {
        let kernel = find_kernel(node, DeviceKind::Cpu)?;
        step.definition = Some(kernel);
        self.complete_alias(node, kernel, step);
        self.keep_state(node, kernel, step)?;
        step.work = match self.work(node, kernel, step) {
            // What the next iteration writes must not be where this one's results lie.
            _ if !fits || step.in_loop => Work::Dynamic,
            Err(_) if guarded => Work::Dynamic,
            work => work?,
        };
        Ok(())
    }

    /// An alias that says nothing of its shape has its input's.
    pub(super) fn complete_alias(&mut self, node: &Node, kernel: &KernelDefinition, step: &Step) {
        if kernel.alias.is_some() && node.definition.plan_time_inputs.is_empty() {
            let (input, output) = (step.inputs[0] as usize, step.outputs[0] as usize);
            if !self.shapes[output].is_fully_defined() && self.shapes[input].is_fully_defined() {
                self.shapes[output] = self.shapes[input].clone();
            }
        }
    }

    /// Finds or makes the state that the kernel keeps in the session.
    pub(super) fn keep_state(&mut self, node: &Node, kernel: &KernelDefinition, step: &mut Step) -> Result<()> {
        if let Some(make) = kernel.state {
            let origin = self.program.origins[step.node.index()];
            step.state = Some(self.state.kernel_state(origin, || make(&node.attrs))?);
        }
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

    /// What the step does with this kernel, on the device where `step.memory` says.
    pub(super) fn work(&self, node: &Node, kernel: &'static KernelDefinition, step: &Step) -> Result<Work> {
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
        let outputs_read: Vec<bool> = step
            .outputs
            .iter()
            .map(|&output| self.is_read[output as usize])
            .collect();
        kernel
            .make(&KernelRequest {
                attrs: &node.attrs,
                input_dtypes: &dtypes,
                input_shapes: &shapes,
                input_values: &values,
                output_dtypes: &output_dtypes,
                output_shapes: &output_shapes,
                outputs_read: &outputs_read,
                accelerator: self.devices.get(step.memory),
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
            let on_host = step
                .definition
                .is_some_and(|kernel| kernel.host_outputs.contains(&slot));
            self.memory[output as usize] = match self.places[output as usize] {
                Some(Place::Alias(source)) => self.memory[source as usize],
                _ if node.definition.control_flow != ControlFlow::None => self.where_flow_gives(node, step, slot),
                _ if on_host => Memory::Host,
                _ => step.memory,
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
                let passes = node.definition.control_flow != ControlFlow::None
                    || step.definition.is_some_and(|kernel| kernel.alias.is_some());
                self.names_object[output as usize] = match step.inputs.iter().find(refers) {
                    Some(&input) if passes => self.names_object[input as usize],
                    _ => self.dtypes[output as usize] == DType::Resource,
                };
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
}
