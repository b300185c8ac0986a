//! Which nodes a Switch may keep from running.
//!
//! What a node waits for tells under which conditions it runs: each Switch on the way adds the way that its predicate must
//! go. Where a Merge takes both ways of one predicate, it runs whichever way that goes.

use crate::graph::{Node, NodeId, TensorId};
use crate::op::{ControlFlow, vocabulary};
use crate::rewrite::Program;

/// Predicates and the ways that they must go for a node to run, sorted; empty for one that always runs.
type Conditions = Vec<(TensorId, u32)>;

/// The way that stands for conditions which are not followed further.
const SOME_WAY: u32 = u32::MAX;

/// For each node, whether a Switch decides if it runs.
///
/// `order` has each node behind those that it waits for, but for the way back of loops to a Merge. What a loop's body holds
/// runs for some iterations and not for others, and counts as decided by a Switch.
pub fn guarded_nodes(program: &Program, order: &[NodeId]) -> Vec<bool> {
    let switches = |node: &Node| node.definition.control_flow == ControlFlow::Switch;
    if !program.nodes.iter().any(switches) {
        return vec![false; program.nodes.len()];
    }
    let mut conditions: Vec<Conditions> = vec![Conditions::new(); program.nodes.len()];
    for &id in order {
        conditions[id.index()] = of_node(program, id, &conditions);
    }
    conditions.iter().map(|conditions| !conditions.is_empty()).collect()
}

fn of_node(program: &Program, id: NodeId, known: &[Conditions]) -> Conditions {
    let node = program.node(id);
    if node.op() == vocabulary::CONTROL_TRIGGER {
        return Conditions::new();
    }
    let inputs = node.inputs.iter().filter(|input| !is_way_back(program, input));
    let mut ways = inputs.map(|&input| of_tensor(program, input, known));
    let mut conditions = match (node.definition.control_flow, entry(program, node)) {
        (ControlFlow::Merge, _) => merged(ways.collect()).unwrap_or_else(|| vec![(TensorId::new(id, 0), SOME_WAY)]),
        // A loop that was entered is left.
        (ControlFlow::Exit, Some(entry)) => known[entry.index()].clone(),
        _ => all(&mut ways),
    };
    if !node.control_inputs.is_empty() {
        let controls = node.control_inputs.iter().map(|control| known[control.index()].clone());
        conditions = all(controls.chain([conditions]));
    }
    conditions
}

fn of_tensor(program: &Program, tensor: TensorId, known: &[Conditions]) -> Conditions {
    let node = program.node(tensor.node);
    let mut conditions = known[tensor.node.index()].clone();
    if node.definition.control_flow == ControlFlow::Switch {
        let way = (source(program, node.inputs[1]), tensor.slot);
        if let Err(place) = conditions.binary_search(&way) {
            conditions.insert(place, way);
        }
    }
    conditions
}

/// What a reference refers to may change between two that read it.
fn is_ref(program: &Program, tensor: TensorId) -> bool {
    program.node(tensor.node).outputs[tensor.slot as usize].is_ref
}

/// The tensor that this one is another name of.
fn source(program: &Program, mut tensor: TensorId) -> TensorId {
    loop {
        let node = program.node(tensor.node);
        let is_alias = node.definition.kernels.iter().any(|kernel| kernel.alias.is_some());
        match node.inputs.first() {
            Some(&input)
                if is_alias && node.definition.control_flow == ControlFlow::None && !is_ref(program, input) =>
            {
                tensor = input;
            }
            _ => return tensor,
        }
    }
}

/// What must hold where all of these must.
fn all(conditions: impl Iterator<Item = Conditions>) -> Conditions {
    let mut together = conditions.flatten().collect::<Conditions>();
    together.sort_unstable();
    together.dedup();
    together
}

/// What must hold where one of `ways` must; `None` where that is not a list of conditions.
fn merged(mut ways: Vec<Conditions>) -> Option<Conditions> {
    while ways.len() > 1 {
        let pairs = || (0..ways.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
        let (a, b, either) = pairs().find_map(|(a, b)| Some((a, b, either(&ways[a], &ways[b])?)))?;
        ways.swap_remove(b);
        ways[a] = either;
    }
    ways.pop()
}

/// What must hold where `a` or `b` must, if one is part of the other, or they differ in the way of one predicate.
fn either(a: &Conditions, b: &Conditions) -> Option<Conditions> {
    let beyond = |one: &Conditions, other: &Conditions| -> Conditions {
        let beyond = one.iter().filter(|condition| !other.contains(condition));
        beyond.copied().collect()
    };
    match (&beyond(a, b)[..], &beyond(b, a)[..]) {
        ([], _) => Some(a.clone()),
        (_, []) => Some(b.clone()),
        ([(p, way)], [(q, other)]) if p == q && way != other && *way != SOME_WAY && *other != SOME_WAY => {
            Some(beyond(a, &vec![(*p, *way)]))
        }
        _ => None,
    }
}

fn is_way_back(program: &Program, input: &TensorId) -> bool {
    program.node(input.node).definition.control_flow == ControlFlow::NextIteration
}

/// The Enter of the loop variable that an Exit hands out.
fn entry(program: &Program, exit: &Node) -> Option<NodeId> {
    let is = |id: NodeId, flow: ControlFlow| (program.node(id).definition.control_flow == flow).then_some(id);
    let switch = is(exit.inputs.first()?.node, ControlFlow::Switch)?;
    let merge = is(program.node(switch).inputs[0].node, ControlFlow::Merge)?;
    let inputs = program.node(merge).inputs.iter();
    let mut first = inputs.filter(|input| !is_way_back(program, input));
    is(first.next()?.node, ControlFlow::Enter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(ways: &[(usize, u32)]) -> Conditions {
        ways.iter()
            .map(|&(node, way)| (TensorId::new(NodeId::new(node), 0), way))
            .collect()
    }

    #[test]
    fn both_ways_of_a_predicate_are_no_condition() {
        let merge = |ways: &[&[(usize, u32)]]| merged(ways.iter().map(|way| conditions(way)).collect());
        assert_eq!(merge(&[&[(1, 0)], &[(1, 1)]]), Some(conditions(&[])));
        assert_eq!(
            merge(&[&[(1, 0), (2, 1)], &[(1, 1), (2, 1)]]),
            Some(conditions(&[(2, 1)]))
        );
        assert_eq!(
            merge(&[&[(1, 0), (2, 0)], &[(1, 1)], &[(1, 0), (2, 1)]]),
            Some(conditions(&[]))
        );
        assert_eq!(
            merge(&[&[(1, 0)], &[(1, 0), (2, 1)]]),
            Some(conditions(&[(1, 0)])),
            "the second says nothing more"
        );
        assert_eq!(merge(&[&[], &[(2, 1)]]), Some(conditions(&[])));
        assert_eq!(
            merge(&[&[(1, 0)], &[(2, 1)]]),
            None,
            "of two predicates none need go so"
        );
        assert_eq!(merge(&[&[(1, SOME_WAY)], &[(1, 1)]]), None);
        assert_eq!(merge(&[&[(1, 0)]]), Some(conditions(&[(1, 0)])));
    }
}
