//! Drops what nothing needs.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::error::Result;
use crate::graph::{NodeId, TensorId};
use crate::op::{ControlFlow, vocabulary};
use crate::rewrite::{Program, Rewrite};
use crate::session::plan::plan_time_inputs;

/// Drops nodes that no fetch and no target depends on, and control edges onto nodes without effects.
///
/// A control edge onto an op that keeps no state, cannot fail and is not guarded by a Switch orders nothing by itself; it is
/// replaced by edges onto what that op in turn waits for and that has effects, those aside that the node waits for through
/// its inputs anyway. `minimize` ties the gradients of an op together by such edges, among them the gradient of the images,
/// which nobody needs.
pub struct Prune;

/// With more effects than this behind one node, its control edges are kept as they are.
const MANY_EFFECTS: usize = 64;

impl Rewrite for Prune {
    fn name(&self) -> &'static str {
        "prune"
    }

    fn apply(&self, program: &Program) -> Result<Option<Program>> {
        let mut program = program.clone();
        relax_control_edges(&mut program);
        Ok(Some(reachable(&program)))
    }
}

fn has_effects(program: &Program, id: NodeId) -> bool {
    let definition = program.node(id).definition;
    let keeps_state = definition.stateful && !vocabulary::is_variable(definition.name);
    let takes_ref = definition.inputs.iter().any(|arg| arg.is_ref);
    let may_fail = definition.may_fail && !(definition.fails_early && is_known_to_fit(program, id));
    keeps_state || takes_ref || may_fail || definition.control_flow != ControlFlow::None
}

/// Whether all shapes are known and what the op looks at when its kernel is made is constant: then its shape function has
/// accepted all that it could fail on.
fn is_known_to_fit(program: &Program, id: NodeId) -> bool {
    let node = program.node(id);
    let is_constant = |&input: &usize| program.node(node.inputs[input].node).op() == vocabulary::CONST;
    let has_shape = |input: &TensorId| {
        let output = &program.node(input.node).outputs[input.slot as usize];
        output.shape.is_fully_defined()
    };
    plan_time_inputs(node).iter().all(is_constant)
        && node.inputs.iter().all(has_shape)
        && node.outputs.iter().all(|output| output.shape.is_fully_defined())
}

fn relax_control_edges(program: &mut Program) {
    if program.nodes.iter().all(|node| node.control_inputs.is_empty()) {
        return;
    }
    let Some(order) = super::topological_order(program) else {
        return;
    };
    let guarded = super::guarded_nodes(program, &order);
    // What of effect each node waits for, itself included if it has effects.
    let mut effects: Vec<Vec<NodeId>> = vec![Vec::new(); program.nodes.len()];
    for &id in &order {
        let index = id.index();
        if has_effects(program, id) || guarded[index] {
            effects[index] = vec![id];
            continue;
        }
        let node = program.node(id);
        let before = node
            .inputs
            .iter()
            .map(|input| input.node)
            .chain(node.control_inputs.iter().copied());
        let mut waited: Vec<NodeId> = before
            .flat_map(|before| effects[before.index()].iter().copied())
            .collect();
        waited.sort_unstable();
        waited.dedup();
        effects[index] = if waited.len() > MANY_EFFECTS { vec![id] } else { waited };
    }
    for id in program.ids() {
        if program.node(id).control_inputs.is_empty() {
            continue;
        }
        let inputs = program.node(id).inputs.iter().map(|input| input.node);
        let data: FxHashSet<NodeId> = inputs
            .flat_map(|input| effects[input.index()].iter().copied().chain([input]))
            .collect();
        let mut controls: Vec<NodeId> = program
            .node(id)
            .control_inputs
            .iter()
            .flat_map(|control| effects[control.index()].iter().copied())
            .collect();
        controls.retain(|control| *control != id && !data.contains(control));
        controls.sort_unstable();
        controls.dedup();
        program.nodes[id.index()].control_inputs = controls.into_iter().collect();
    }
}

/// The program of what fetches and targets depend on.
fn reachable(program: &Program) -> Program {
    let mut needed = vec![false; program.nodes.len()];
    let mut stack: Vec<NodeId> = program.targets.clone();
    stack.extend(program.fetches.iter().map(|fetch| fetch.node));
    stack.extend(program.feeds.iter().map(|feed| feed.node));
    while let Some(id) = stack.pop() {
        if !std::mem::replace(&mut needed[id.index()], true) {
            let node = program.node(id);
            stack.extend(
                node.inputs
                    .iter()
                    .map(|input| input.node)
                    .chain(node.control_inputs.iter().copied()),
            );
        }
    }
    let mut pruned = Program::default();
    let mut new_ids: FxHashMap<NodeId, NodeId> = FxHashMap::default();
    for id in program.ids().filter(|id| needed[id.index()]) {
        let new = pruned.push(program.node(id).clone(), program.origins[id.index()]);
        new_ids.insert(id, new);
    }
    let tensor = |id: &TensorId| TensorId {
        node: new_ids[&id.node],
        slot: id.slot,
    };
    for node in &mut pruned.nodes {
        node.inputs.iter_mut().for_each(|input| *input = tensor(input));
        node.control_inputs
            .iter_mut()
            .for_each(|control| *control = new_ids[control]);
    }
    pruned.feeds = program.feeds.iter().map(tensor).collect();
    pruned.fetches = program.fetches.iter().map(tensor).collect();
    pruned.targets = program.targets.iter().map(|target| new_ids[target]).collect();
    pruned
}
