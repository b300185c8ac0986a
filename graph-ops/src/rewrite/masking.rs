//! Branches that only ask whether gradients are finite: their updates look at the condition themselves.

use graph_core::graph::{Node, NodeId, OutputInfo, TensorId};
use graph_core::op::{AttrValue, Attributes, ControlFlow, OpDefinition, registry};
use graph_core::rewrite::{Program, Rewrite, topological_order};
use graph_core::{DType, Result};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::state::masked::masked;

/// Takes apart a `cond` whose predicate says that tensors are finite, as an optimizer's is that scales the loss, with all
/// `cond`s inside: what its branches compute is computed always, and its updates become updates under a condition.
///
/// What a Switch decides about runs on the host. With the updates of all variables in a branch, a GPU's variables would have
/// to come to the host and go back in every step; updates that read the condition in the GPU's own memory leave them there,
/// and the step is one piece of work. What a run sees is the same, but that the variables of the branch that is not taken
/// must be initialized too. That is why other `cond`s stay: they may ask just that.
pub(crate) struct MaskedUpdates;

impl Rewrite for MaskedUpdates {
    fn name(&self) -> &'static str {
        "masked_updates"
    }

    fn apply(&self, program: &Program) -> Result<Option<Program>> {
        let is_switch = |node: &Node| node.definition.control_flow == ControlFlow::Switch;
        if !program.nodes.iter().any(is_switch) {
            return Ok(None);
        }
        let Some(order) = topological_order(program) else {
            return Ok(None);
        };
        let branches = Branches::new(program, &order);
        let kept = branches.kept(program);
        let taken_apart = |guards: &Guards| !guards.is_empty() && !guards.iter().any(|(of, _)| kept.contains(of));
        let mut rewriting = Rewriting::new(program);
        for &id in &order {
            let node = program.node(id);
            let guards = &branches.of[id.index()];
            match node.definition.control_flow {
                ControlFlow::Switch if !kept.contains(&predicate(program, node)) => rewriting.pass_on(id),
                ControlFlow::Merge => match branches.merges.get(&id) {
                    Some(merge) if !kept.contains(&merge.predicate) => rewriting.select(id, merge)?,
                    _ => {}
                },
                _ if taken_apart(guards) => rewriting.mask(id, guards)?,
                _ => {}
            }
        }
        Ok(rewriting.finished())
    }
}

/// What must hold for a node to run: predicates, each true or false, sorted.
type Guards = Vec<(TensorId, bool)>;

/// The end of a `cond`.
struct Merge {
    predicate: TensorId,
    /// Which input comes from the branch that is taken where the predicate holds.
    when_true: usize,
}

/// Which branches of a program each of its nodes is in.
struct Branches {
    of: Vec<Guards>,
    merges: FxHashMap<NodeId, Merge>,
    /// Predicates of branches whose ends are not as `cond` makes them.
    odd: FxHashSet<TensorId>,
}

/// The predicate of a Switch, without the identities that `cond` puts before it.
fn predicate(program: &Program, switch: &Node) -> TensorId {
    let mut tensor = switch.inputs[1];
    while program.node(tensor.node).op() == "Identity" {
        tensor = program.node(tensor.node).inputs[0];
    }
    tensor
}

impl Branches {
    fn new(program: &Program, order: &[NodeId]) -> Self {
        let mut branches = Self {
            of: vec![Guards::new(); program.nodes.len()],
            merges: FxHashMap::default(),
            odd: FxHashSet::default(),
        };
        for &id in order {
            let node = program.node(id);
            let mut guards: Guards = match branches.end(program, node) {
                Some((merge, guards)) => {
                    branches.merges.insert(id, merge);
                    guards
                }
                None => {
                    let inputs = node.inputs.iter().map(|input| branches.of_tensor(program, *input));
                    let all: Guards = inputs.flatten().collect();
                    if node.definition.control_flow == ControlFlow::Merge {
                        branches.odd.extend(all.iter().map(|(predicate, _)| *predicate));
                    }
                    all
                }
            };
            for control in &node.control_inputs {
                guards.extend(&branches.of[control.index()]);
            }
            guards.sort_unstable();
            guards.dedup();
            if let Some(pair) = guards.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                branches.odd.insert(pair[0].0);
            }
            branches.of[id.index()] = guards;
        }
        branches
    }

    fn of_tensor(&self, program: &Program, tensor: TensorId) -> Guards {
        let node = program.node(tensor.node);
        let mut guards = self.of[tensor.node.index()].clone();
        if node.definition.control_flow == ControlFlow::Switch {
            guards.push((predicate(program, node), tensor.slot == 1));
            guards.sort_unstable();
        }
        guards
    }

    /// If the node is the end of a `cond`: which, and what the `cond` itself is in.
    fn end(&self, program: &Program, node: &Node) -> Option<(Merge, Guards)> {
        if node.op() != "Merge" || node.inputs.len() != 2 {
            return None;
        }
        let [first, second] = [0, 1].map(|input| self.of_tensor(program, node.inputs[input]));
        let only = |one: &Guards, other: &Guards| -> Guards {
            one.iter().filter(|guard| !other.contains(guard)).copied().collect()
        };
        match (&only(&first, &second)[..], &only(&second, &first)[..]) {
            (&[(one, when)], &[(other, otherwise)]) if one == other && when != otherwise => {
                let common = first.into_iter().filter(|&(of, _)| of != one).collect();
                let when_true = usize::from(otherwise);
                Some((
                    Merge {
                        predicate: one,
                        when_true,
                    },
                    common,
                ))
            }
            _ => None,
        }
    }

    /// The predicates whose branches stay as they are.
    fn kept(&self, program: &Program) -> FxHashSet<TensorId> {
        let mut kept = self.odd.clone();
        let fetched: FxHashSet<NodeId> = program.fetches.iter().map(|fetch| fetch.node).collect();
        let mut sets: Vec<&Guards> = Vec::new();
        for id in program.ids() {
            let (node, guards) = (program.node(id), &self.of[id.index()]);
            if node.definition.control_flow == ControlFlow::Switch {
                let predicate = predicate(program, node);
                // A `cond` in a branch is taken apart with that branch.
                if self.of[predicate.node.index()].is_empty() && !says_finite(program, predicate) {
                    kept.insert(predicate);
                }
                if fetched.contains(&id) {
                    kept.insert(predicate);
                }
            }
            let bad = match self.merges.get(&id) {
                Some(merge) => {
                    if !selects(program, id) {
                        kept.insert(merge.predicate);
                    }
                    false
                }
                None => !guards.is_empty() && (fetched.contains(&id) || !fits(program, node)),
            };
            if bad {
                kept.extend(guards.iter().map(|(predicate, _)| *predicate));
            }
            if guards.len() > 1 {
                sets.push(guards);
            }
        }
        // What stands in two branches keeps both or none.
        loop {
            let before = kept.len();
            for guards in &sets {
                if guards.iter().any(|(predicate, _)| kept.contains(predicate)) {
                    kept.extend(guards.iter().map(|(predicate, _)| *predicate));
                }
            }
            if kept.len() == before {
                return kept;
            }
        }
    }
}

/// Whether the tensor is true exactly where certain tensors are finite.
fn says_finite(program: &Program, tensor: TensorId) -> bool {
    let mut stack = vec![tensor];
    let mut found = false;
    while let Some(tensor) = stack.pop() {
        let node = program.node(tensor.node);
        match node.op() {
            "IsFinite" => found = true,
            "All" | "Identity" | "Reshape" => stack.push(node.inputs[0]),
            "Pack" | "ConcatV2" | "LogicalAnd" => {
                let inputs = node.inputs.iter().copied();
                stack.extend(inputs.filter(|input| output(program, *input).dtype == DType::Bool));
            }
            _ => return false,
        }
    }
    found
}

fn output(program: &Program, tensor: TensorId) -> &OutputInfo {
    &program.node(tensor.node).outputs[tensor.slot as usize]
}

/// Whether a choice of elements can stand for the Merge `id`.
fn selects(program: &Program, id: NodeId) -> bool {
    let node = program.node(id);
    let [one, other] = [0, 1].map(|input| output(program, node.inputs[input]));
    let index = TensorId::new(id, 1);
    let is_index = |input: &TensorId| *input == index;
    one.shape.is_fully_defined()
        && one.shape == other.shape
        && crate::cuda::SIZED.contains(&one.dtype)
        && !program.fetches.contains(&index)
        && !program.nodes.iter().any(|node| node.inputs.iter().any(is_index))
}

/// Whether the node of a branch can run where the branch is not taken, or under a condition.
fn fits(program: &Program, node: &Node) -> bool {
    let definition = node.definition;
    if definition.control_flow == ControlFlow::Switch || node.op() == "ReadVariableOp" {
        return true;
    }
    if masked_form(program, node).is_some() {
        return true;
    }
    let takes_reference = definition.inputs.iter().any(|arg| arg.is_ref);
    !definition.stateful && !definition.may_fail && !takes_reference && definition.control_flow == ControlFlow::None
}

/// The form of an update that takes a condition.
fn masked_form(program: &Program, node: &Node) -> Option<&'static OpDefinition> {
    let mut variable = *node.inputs.first()?;
    while program.node(variable.node).definition.control_flow == ControlFlow::Switch {
        variable = program.node(variable.node).inputs[0];
    }
    let variable = output(program, variable);
    let (dtype, shape) = match &variable.handle {
        Some(handle) => (handle.dtype, &handle.shape),
        None => (variable.dtype, &variable.shape),
    };
    let may_change_shape = matches!(node.attrs.get("validate_shape"), Some(AttrValue::Bool(false)));
    let definition = masked(node.op(), dtype)?;
    (shape.is_fully_defined() && !may_change_shape).then_some(definition)
}

/// The program that is made of another.
struct Rewriting<'a> {
    program: &'a Program,
    result: Program,
    tensors: FxHashMap<TensorId, TensorId>,
    nodes: FxHashMap<NodeId, NodeId>,
    /// The tensor that tells whether guards hold.
    masks: FxHashMap<Guards, TensorId>,
}

impl<'a> Rewriting<'a> {
    fn new(program: &'a Program) -> Self {
        Self {
            program,
            result: program.clone(),
            tensors: FxHashMap::default(),
            nodes: FxHashMap::default(),
            masks: FxHashMap::default(),
        }
    }

    /// What has become of a tensor.
    fn now(&self, tensor: TensorId) -> TensorId {
        self.tensors.get(&tensor).copied().unwrap_or(tensor)
    }

    /// Puts what a Switch is given in the place of both of its outputs.
    fn pass_on(&mut self, switch: NodeId) {
        let data = self.now(self.program.node(switch).inputs[0]);
        self.tensors.insert(TensorId::new(switch, 0), data);
        self.tensors.insert(TensorId::new(switch, 1), data);
        self.nodes.insert(switch, data.node);
    }

    /// Puts a choice in the place of a Merge.
    fn select(&mut self, id: NodeId, merge: &Merge) -> Result<()> {
        let node = self.program.node(id);
        let inputs = [
            self.now(merge.predicate),
            self.now(node.inputs[merge.when_true]),
            self.now(node.inputs[1 - merge.when_true]),
        ];
        let output = output(self.program, node.inputs[0]).clone();
        let mut attrs = Attributes::new();
        attrs.set("T", output.dtype);
        let mut select = node.clone();
        select.definition = registry()?.op("Select")?;
        select.attrs = attrs;
        select.inputs = inputs.into_iter().collect();
        select.outputs = [output].into_iter().collect();
        let select = self.result.push(select, self.program.origins[id.index()]);
        self.tensors.insert(TensorId::new(id, 0), TensorId::new(select, 0));
        self.nodes.insert(id, select);
        Ok(())
    }

    /// Makes an update one under a condition; what is none stays.
    fn mask(&mut self, id: NodeId, guards: &Guards) -> Result<()> {
        let Some(definition) = masked_form(self.program, self.program.node(id)) else {
            return Ok(());
        };
        let mask = self.mask_of(guards)?;
        let node = &mut self.result.nodes[id.index()];
        node.definition = definition;
        node.inputs.push(mask);
        Ok(())
    }

    /// The tensor that tells whether all guards hold.
    fn mask_of(&mut self, guards: &Guards) -> Result<TensorId> {
        if let Some(&mask) = self.masks.get(guards) {
            return Ok(mask);
        }
        let mask = match &guards[..] {
            &[(predicate, holds)] => {
                let predicate = self.now(predicate);
                if holds {
                    predicate
                } else {
                    self.logic("LogicalNot", &[predicate])?
                }
            }
            [first @ .., last] => {
                let operands = [self.mask_of(&first.to_vec())?, self.mask_of(&vec![*last])?];
                self.logic("LogicalAnd", &operands)?
            }
            [] => unreachable!("what is in no branch is not masked"),
        };
        self.masks.insert(guards.clone(), mask);
        Ok(mask)
    }

    fn logic(&mut self, op: &str, inputs: &[TensorId]) -> Result<TensorId> {
        let like = self.result.node(inputs[0].node).clone();
        let info = like.outputs[inputs[0].slot as usize].clone();
        let node = Node {
            name: format!("{}/_{op}", like.name).into(),
            definition: registry()?.op(op)?,
            attrs: Attributes::new(),
            inputs: inputs.iter().copied().collect(),
            control_inputs: Default::default(),
            outputs: [info].into_iter().collect(),
            ..like
        };
        let origin = self.result.origins[inputs[0].node.index()];
        Ok(TensorId::new(self.result.push(node, origin), 0))
    }

    fn finished(mut self) -> Option<Program> {
        if self.tensors.is_empty() {
            return None;
        }
        self.result.substitute(&self.tensors, &self.nodes);
        Some(self.result)
    }
}
