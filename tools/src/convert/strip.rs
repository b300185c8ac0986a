//! Graphs without what only training, saving and TensorBoard need.

use graph_core::Result;
use graph_core::format::Message;
use graph_core::format::freeze::is_variable;
use graph_core::format::graph_def::attr_to_proto;
use graph_core::format::message_graph::MessageGraph;
use graph_core::format::proto::{GraphDef, NodeDef};

/// Beginnings of the names of ops that change variables.
const UPDATES: [&str; 10] = [
    "Assign",
    "Apply",
    "SparseApply",
    "Scatter",
    "ResourceApply",
    "ResourceSparseApply",
    "ResourceScatter",
    "ResourceStridedSliceAssign",
    "StridedSliceAssign",
    "CountUpTo",
];

/// Ops that begin like those but change nothing.
const NO_UPDATES: [&str; 2] = ["ScatterNd", "ScatterNdNonAliasingAdd"];

/// Ops that save, restore and ask for the state of variables.
const STATE: [&str; 9] = [
    "Save",
    "SaveV2",
    "SaveSlices",
    "MergeV2Checkpoints",
    "Restore",
    "RestoreV2",
    "RestoreSlice",
    "IsVariableInitialized",
    "VarIsInitializedOp",
];

/// Why a node serves only training.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Update,
    Summary,
    None,
}

fn role(node: &NodeDef) -> Role {
    let op = node.op.as_str();
    let updates = UPDATES.iter().any(|prefix| op.starts_with(prefix)) && !NO_UPDATES.contains(&op);
    if updates || STATE.contains(&op) {
        Role::Update
    } else if op.ends_with("Summary") || op == "TensorSummaryV2" {
        Role::Summary
    } else {
        Role::None
    }
}

/// The graph without nodes that only serve training.
///
/// Ops that change, save, restore or ask for variables go, and summaries. With them goes what takes their data, and what
/// nothing else uses: gradients, slots, initial values. What a summary shows stays, and so does a result that nobody
/// consumes, unless it is a gradient or only reads a variable.
pub fn training_nodes(message: &GraphDef) -> Result<GraphDef> {
    let graph = MessageGraph::new(message);
    let roles: Vec<Role> = message.node.iter().map(role).collect();
    let mut gone: Vec<bool> = roles.iter().map(|role| *role != Role::None).collect();
    let mut queue: Vec<usize> = (0..gone.len()).filter(|&position| gone[position]).collect();
    for (position, gone) in gone.iter_mut().enumerate().filter(|(_, gone)| !**gone) {
        if graph.consumers(position).is_empty() && is_left_over(&graph, position, &roles) {
            *gone = true;
            queue.push(position);
        }
    }
    while let Some(position) = queue.pop() {
        let after = graph.consumers(position).iter().map(|end| end.node);
        let before = graph.inputs(position).iter().map(|end| end.node);
        for other in after.chain(before) {
            if !gone[other] && serves_what_is_gone(&graph, other, &gone, &roles) {
                gone[other] = true;
                queue.push(other);
            }
        }
    }
    let keep: Vec<bool> = gone.iter().map(|gone| !gone).collect();
    graph.restrict(&keep)
}

/// Whether a node that nobody consumes is no result, but left over where training was prepared: a gradient, or the read that
/// every variable has, of one that is updated, as the slots of an optimizer are. Of a variable that nothing updates, the
/// read may be what the graph is for.
fn is_left_over(graph: &MessageGraph<'_>, position: usize, roles: &[Role]) -> bool {
    let scopes = graph.node(position).name.split('/');
    let is_gradients = |scope: &str| {
        let number = scope
            .strip_prefix("gradients")
            .and_then(|rest| rest.strip_prefix('_').or(Some(rest)));
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if scopes.rev().skip(1).any(is_gradients) {
        return true;
    }
    let read = graph.inputs(position).first().map(|end| end.node);
    let Some(variable) = read.filter(|&node| is_variable(graph.node(node))) else {
        return false;
    };
    graph
        .consumers(variable)
        .iter()
        .any(|end| roles[end.node] == Role::Update)
}

/// Whether a node has no use without the nodes that are gone.
fn serves_what_is_gone(graph: &MessageGraph<'_>, position: usize, gone: &[bool], roles: &[Role]) -> bool {
    let node = graph.node(position);
    let inputs = graph.inputs(position);
    if inputs.iter().any(|end| end.slot.is_some() && gone[end.node]) {
        return true;
    }
    if node.op == "NoOp" && !inputs.is_empty() && inputs.iter().all(|end| gone[end.node]) {
        return true;
    }
    let consumers = graph.consumers(position);
    if consumers.is_empty() || !consumers.iter().all(|end| gone[end.node]) || node.op.starts_with("Placeholder") {
        return false;
    }
    node.op == "Const" || consumers.iter().any(|end| roles[end.node] != Role::Summary)
}

/// Removes attributes that begin with an underscore, from the functions too.
pub fn internal_attrs(graph: &mut GraphDef) {
    each_node(graph, |node| node.attr.retain(|name, _| !name.starts_with('_')));
}

/// Removes attributes that have their defaults, of ops that the engine knows.
pub fn default_attrs(graph: &mut GraphDef) {
    let registry = graph_ops::install();
    each_node(graph, |node| {
        let Ok(definition) = registry.op(&node.op) else { return };
        node.attr.retain(|name, value| {
            let default = definition.attr_def(name).and_then(|attr| attr.default.as_ref());
            default.is_none_or(|default| attr_to_proto(default).encode_to_vec() != value.encode_to_vec())
        });
    });
}

fn each_node(graph: &mut GraphDef, change: impl Fn(&mut NodeDef)) {
    graph.node.iter_mut().for_each(&change);
    let functions = graph.library.iter_mut().flat_map(|library| &mut library.function);
    functions.flat_map(|function| &mut function.node_def).for_each(&change);
}
