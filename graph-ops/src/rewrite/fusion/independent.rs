//! Which operations can become one without waiting for themselves.

use graph_core::graph::NodeId;
use graph_core::rewrite::Program;

/// Those groups of operations each of which can become one: none of a group's operations depends on another, however the
/// groups before it have become one each.
pub(super) fn independent<G>(program: &Program, groups: Vec<G>, members: fn(&G) -> Vec<NodeId>) -> Vec<G> {
    let mut stands_for: Vec<NodeId> = program.ids().collect();
    let mut kept = Vec::new();
    for group in groups {
        let ids = members(&group);
        let mut merged = stands_for.clone();
        for id in &ids {
            merged[id.index()] = ids[0];
        }
        if has_order(program, &merged) {
            stands_for = merged;
            kept.push(group);
        }
    }
    kept
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
