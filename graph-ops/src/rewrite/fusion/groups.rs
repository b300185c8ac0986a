//! Operations that are alike, and can become one without waiting for themselves.

use graph_core::graph::NodeId;
use graph_core::rewrite::Program;

/// Groups of two and more of those operations that `joins` says are alike, each of which can become one: none of a group's
/// operations depends on another, however the groups before it have become one each.
pub(super) fn groups<M>(
    program: &Program,
    members: impl Iterator<Item = M>,
    mut joins: impl FnMut(&M, &M) -> bool,
    id: fn(&M) -> NodeId,
) -> Vec<Vec<M>> {
    let mut groups: Vec<Vec<M>> = Vec::new();
    for member in members {
        match groups.iter_mut().find(|group| joins(&group[0], &member)) {
            Some(group) => group.push(member),
            None => groups.push(vec![member]),
        }
    }
    let mut stands_for: Vec<NodeId> = program.ids().collect();
    groups.retain(|group| {
        if group.len() < 2 {
            return false;
        }
        let mut merged = stands_for.clone();
        for member in group {
            merged[id(member).index()] = id(&group[0]);
        }
        let can = has_order(program, &merged);
        if can {
            stands_for = merged;
        }
        can
    });
    groups
}

/// Whether nothing waits for itself where each node is one with what it stands for.
fn has_order(program: &Program, stands_for: &[NodeId]) -> bool {
    let mut waits = vec![0u32; program.nodes.len()];
    let mut successors: Vec<Vec<NodeId>> = vec![Vec::new(); program.nodes.len()];
    for id in program.ids() {
        let (node, after) = (program.node(id), stands_for[id.index()]);
        let inputs = node.inputs.iter().map(|input| input.node);
        for before in inputs.chain(node.control_inputs.iter().copied()) {
            successors[stands_for[before.index()].index()].push(after);
            waits[after.index()] += 1;
        }
    }
    let mut ready: Vec<NodeId> = program.ids().filter(|id| waits[id.index()] == 0).collect();
    let mut count = 0;
    while let Some(id) = ready.pop() {
        count += 1;
        for &successor in &successors[id.index()] {
            waits[successor.index()] -= 1;
            if waits[successor.index()] == 0 {
                ready.push(successor);
            }
        }
    }
    count == program.nodes.len()
}
