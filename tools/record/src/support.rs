//! What of a graph a recorded session needs, and what of that this engine does not know.

use std::collections::{BTreeSet, HashMap, HashSet};

use graph_core::format::proto::{GraphDef, NodeDef, attr_value};
use graph_core::op::{AttrValue, Registry};
use graph_core::session::evaluate::is_supported;
use graph_core::{Graph, Operation};

use crate::trace::RecordedRun;

/// The node that an input (`a`, `a:1`, `^a`) or a tensor (`a:0`) belongs to.
fn node_name(input: &str) -> &str {
    let input = input.strip_prefix('^').unwrap_or(input);
    match input.rsplit_once(':') {
        Some((name, slot)) if slot.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => input,
    }
}

/// An input as the tensor it names: `a:0` for `a`; none for a control input.
fn tensor_name(input: &str) -> Option<String> {
    match (input.strip_prefix('^'), input.rsplit_once(':')) {
        (Some(_), _) => None,
        (None, Some((_, slot))) if slot.bytes().all(|byte| byte.is_ascii_digit()) => Some(input.to_owned()),
        _ => Some(format!("{input}:0")),
    }
}

/// The nodes of a graph by name.
pub(crate) struct NodesByName<'a>(HashMap<&'a str, &'a NodeDef>);

impl<'a> NodesByName<'a> {
    pub(crate) fn new(graph: &'a GraphDef) -> Self {
        Self(graph.node.iter().map(|node| (node.name.as_str(), node)).collect())
    }

    /// All that a graph must hold for these runs: what they name, and all before it.
    pub(crate) fn named_by(&self, runs: &[&'a RecordedRun]) -> HashSet<&'a str> {
        let names = runs
            .iter()
            .flat_map(|run| run.feeds.iter().chain(&run.fetches).chain(&run.targets));
        self.before(names.map(|name| node_name(name)), |_| false)
    }

    /// What a run computes: all before its fetches and targets, fed tensors excepted.
    pub(crate) fn computed_by(&self, run: &'a RecordedRun) -> HashSet<&'a str> {
        let fed: HashSet<String> = run.feeds.iter().filter_map(|feed| tensor_name(feed)).collect();
        let is_fed = |input: &str| tensor_name(input).is_some_and(|tensor| fed.contains(&tensor));
        let fetched = run.fetches.iter().filter(|fetch| !is_fed(fetch));
        self.before(fetched.chain(&run.targets).map(|name| node_name(name)), is_fed)
    }

    /// The random ops in loops whose iterations may run side by side: what they draw in which iteration is not determined.
    /// Each as `Op(parallel_iterations)`, sorted.
    pub(crate) fn drawn_in_parallel(&self, needed: &HashSet<&str>) -> BTreeSet<String> {
        let mut consumers: HashMap<&str, Vec<&NodeDef>> = HashMap::new();
        let nodes = || needed.iter().filter_map(|name| self.0.get(name).copied());
        for node in nodes() {
            for input in &node.input {
                consumers.entry(node_name(input)).or_default().push(node);
            }
        }
        let parallel = |node: &NodeDef| {
            let iterations = node
                .attr
                .get("parallel_iterations")
                .and_then(|attr| attr.value.as_ref());
            !matches!(iterations, Some(attr_value::Value::I(1)))
        };
        let enters = |node: &NodeDef| matches!(node.op.as_str(), "Enter" | "RefEnter");
        // Nodes, and in how many loops they are.
        let mut stack: Vec<(&NodeDef, usize)> = nodes()
            .filter(|node| enters(node) && parallel(node))
            .map(|node| (node, 1))
            .collect();
        let mut deepest: HashMap<&str, usize> = HashMap::new();
        let mut drawn = BTreeSet::new();
        while let Some((node, depth)) = stack.pop() {
            let known = deepest.entry(node.name.as_str()).or_default();
            // Deeper than all nodes there are nothing can be: the graph leads in circles.
            if *known >= depth || depth > needed.len() {
                continue;
            }
            *known = depth;
            if node.attr.contains_key("seed") && node.attr.contains_key("seed2") {
                drawn.insert(format!("{}(parallel_iterations)", node.op));
            }
            for consumer in consumers.get(node.name.as_str()).into_iter().flatten() {
                let depth = match consumer.op.as_str() {
                    "Exit" | "RefExit" => depth - 1,
                    "Enter" | "RefEnter" => depth + 1,
                    _ => depth,
                };
                if depth > 0 {
                    stack.push((consumer, depth));
                }
            }
        }
        drawn
    }

    fn before(&self, names: impl Iterator<Item = &'a str>, stop: impl Fn(&str) -> bool) -> HashSet<&'a str> {
        let mut stack: Vec<&str> = names.collect();
        let mut found = HashSet::new();
        while let Some(name) = stack.pop() {
            if let Some(node) = self.0.get(name)
                && found.insert(name)
            {
                stack.extend(
                    node.input
                        .iter()
                        .filter(|input| !stop(input))
                        .map(|input| node_name(input)),
                );
            }
        }
        found
    }
}

/// The graph without the nodes that are not among `needed`.
pub(crate) fn subgraph(graph: &GraphDef, needed: &HashSet<&str>) -> GraphDef {
    let mut kept: Vec<NodeDef> = graph
        .node
        .iter()
        .filter(|node| needed.contains(node.name.as_str()))
        .cloned()
        .collect();
    if kept.len() < graph.node.len() {
        for node in &mut kept {
            // A node may share a device with one that is gone.
            if let Some(attr_value::Value::List(list)) =
                node.attr.get_mut("_class").and_then(|attr| attr.value.as_mut())
            {
                list.s.retain(|group| {
                    group
                        .strip_prefix(b"loc:@")
                        .and_then(|name| std::str::from_utf8(name).ok())
                        .is_none_or(|name| needed.contains(name))
                });
            }
        }
    }
    GraphDef {
        node: kept,
        ..graph.clone()
    }
}

/// The ops of the graph that the engine has no definition of, sorted: unknown ones, and calls of graph functions.
pub(crate) fn unknown_ops(graph: &GraphDef, registry: &Registry) -> BTreeSet<String> {
    let ops = graph.node.iter().map(|node| node.op.as_str());
    ops.filter(|op| registry.op(op).is_err()).map(str::to_owned).collect()
}

/// The operations that no run can hold, as `Op(dtype)`, sorted.
pub(crate) fn unsupported_operations<'a>(graph: &Graph, needed: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let operations = needed.into_iter().filter_map(|name| graph.operation(name).ok());
    operations
        .filter(|operation| !is_supported(operation))
        .map(|operation| label(&operation))
        .collect()
}

/// An op and the dtypes it is used with: `MatMul(complex64)`, `Cast(half,bool)`.
fn label(operation: &Operation) -> String {
    let mut dtypes: Vec<String> = Vec::new();
    for attr in &operation.definition().attrs {
        let listed = match operation.attr_value(attr.name) {
            Some(AttrValue::Type(dtype)) => vec![dtype],
            Some(AttrValue::TypeList(list)) => list,
            _ => Vec::new(),
        };
        for dtype in listed {
            if !dtypes.iter().any(|known| known == dtype.name()) {
                dtypes.push(dtype.name().to_owned());
            }
        }
    }
    match dtypes.as_slice() {
        [] => operation.op_type().to_owned(),
        _ => format!("{}({})", operation.op_type(), dtypes.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph_core::format::proto::AttrValue as AttrValueDef;

    fn node(name: &str, inputs: &[&str]) -> NodeDef {
        NodeDef {
            name: name.to_owned(),
            op: "NoOp".to_owned(),
            input: inputs.iter().map(ToString::to_string).collect(),
            ..NodeDef::default()
        }
    }

    fn run(feeds: &[&str], fetches: &[&str], targets: &[&str]) -> RecordedRun {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        RecordedRun {
            feeds: names(feeds),
            fetches: names(fetches),
            targets: names(targets),
            ..RecordedRun::default()
        }
    }

    #[test]
    fn what_is_drawn_in_loops_is_found() {
        let random = |name: &str, input: &str| {
            let mut node = node(name, &[input]);
            node.op = "RandomUniform".to_owned();
            node.attr.insert("seed".to_owned(), AttrValueDef::default());
            node.attr.insert("seed2".to_owned(), AttrValueDef::default());
            node
        };
        let of = |op: &str, name: &str, input: &str| NodeDef {
            op: op.to_owned(),
            ..node(name, &[input])
        };
        let drawn = |node: NodeDef| {
            let graph = GraphDef {
                node: vec![
                    node,
                    of("Enter", "enter", "a"),
                    of("Enter", "inner", "enter"),
                    of("Exit", "inner_exit", "inner"),
                    of("Exit", "exit", "inner_exit"),
                ],
                ..GraphDef::default()
            };
            let names: HashSet<&str> = graph.node.iter().map(|node| node.name.as_str()).collect();
            NodesByName::new(&graph).drawn_in_parallel(&names).len()
        };
        for (input, expected) in [("a", 0), ("enter", 1), ("^inner", 1), ("inner_exit", 1), ("exit", 0)] {
            assert_eq!(drawn(random("x", input)), expected, "{input}");
        }
    }

    #[test]
    fn what_a_run_needs_is_all_before_its_fetches() {
        let graph = GraphDef {
            node: vec![
                node("a", &[]),
                node("b", &["a", "^c"]),
                node("c", &[]),
                node("d", &["b:1"]),
                node("e", &["d"]),
            ],
            ..GraphDef::default()
        };
        let nodes = NodesByName::new(&graph);
        let sorted = |found: HashSet<&str>| {
            let mut names: Vec<&str> = found.into_iter().collect();
            names.sort_unstable();
            names.concat()
        };
        assert_eq!(sorted(nodes.computed_by(&run(&[], &["d:0"], &[]))), "abcd");
        assert_eq!(sorted(nodes.computed_by(&run(&[], &[], &["b"]))), "abc");
        assert_eq!(sorted(nodes.computed_by(&run(&["b:1"], &["e:0"], &["c"]))), "cde");
        assert_eq!(sorted(nodes.computed_by(&run(&["e"], &["e:0"], &["missing"]))), "");
        assert_eq!(sorted(nodes.named_by(&[&run(&["b:1"], &["e:0"], &[])])), "abcde");
        let only = run(&[], &["c:0"], &[]);
        let kept = subgraph(&graph, &nodes.named_by(&[&only]));
        assert_eq!(kept.node.len(), 1);
    }
}
