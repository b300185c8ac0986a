//! A GraphDef as a graph, by its message alone: whatever its ops, known or not.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::proto::{FunctionDefLibrary, GraphDef, NodeDef, attr_value};
use crate::error::{Error, OpSite, Result};

/// An input of a node, as the message writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InputName<'a> {
    /// Output `slot` of a node: `a` or `a:1`.
    Tensor(&'a str, usize),
    /// A node that must run before: `^a`.
    Control(&'a str),
}

impl<'a> InputName<'a> {
    /// Reads `^a`, `a` or `a:1`; `None` for anything else.
    pub fn parse(input: &'a str) -> Option<Self> {
        if let Some(control) = input.strip_prefix('^') {
            return Some(Self::Control(control));
        }
        match input.rsplit_once(':') {
            // Like TensorFlow, plain digits only.
            Some((name, slot)) if slot.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(Self::Tensor(name, slot.parse().ok()?))
            }
            Some(_) => None,
            None => Some(Self::Tensor(input, 0)),
        }
    }

    /// The node's name.
    pub fn node(self) -> &'a str {
        match self {
            Self::Tensor(node, _) | Self::Control(node) => node,
        }
    }
}

/// One end of an edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The position of the node at that end.
    pub node: usize,
    /// The output that the edge starts at; `None` for a control edge.
    pub slot: Option<usize>,
}

/// The nodes of a GraphDef by position, with their edges in both directions.
///
/// ```
/// use graph_core::format::message_graph::MessageGraph;
/// use graph_core::format::{proto::GraphDef, text};
///
/// let message: GraphDef = text::from_text(r#"node { name: "a" op: "A" } node { name: "b" op: "B" input: "a:1" }"#)?;
/// let graph = MessageGraph::new(&message);
/// assert_eq!(graph.position("b"), Some(1));
/// assert_eq!((graph.inputs(1)[0].node, graph.inputs(1)[0].slot), (0, Some(1)));
/// assert_eq!(graph.consumers(0)[0].node, 1);
/// # Ok::<(), graph_core::error::Error>(())
/// ```
#[derive(Debug)]
pub struct MessageGraph<'a> {
    message: &'a GraphDef,
    positions: FxHashMap<&'a str, usize>,
    inputs: Vec<SmallVec<[End; 2]>>,
    consumers: Vec<SmallVec<[End; 2]>>,
    problems: Vec<String>,
}

impl<'a> MessageGraph<'a> {
    /// Takes a message apart. What does not fit together is left out and told by [`problems`](Self::problems).
    pub fn new(message: &'a GraphDef) -> Self {
        let count = message.node.len();
        let mut graph = MessageGraph {
            message,
            positions: FxHashMap::with_capacity_and_hasher(count, Default::default()),
            inputs: Vec::with_capacity(count),
            consumers: vec![SmallVec::new(); count],
            problems: Vec::new(),
        };
        for (position, node) in message.node.iter().enumerate() {
            if graph.positions.insert(&node.name, position).is_some() {
                graph
                    .problems
                    .push(format!("there is more than one node '{}'", node.name));
            }
        }
        for (position, node) in message.node.iter().enumerate() {
            let mut ends = SmallVec::new();
            for input in &node.input {
                let name = InputName::parse(input);
                let Some((name, &from)) = name.and_then(|name| Some((name, graph.positions.get(name.node())?))) else {
                    graph
                        .problems
                        .push(format!("node '{}': there is no '{input}' to be its input", node.name));
                    continue;
                };
                let slot = match name {
                    InputName::Tensor(_, slot) => Some(slot),
                    InputName::Control(_) => None,
                };
                ends.push(End { node: from, slot });
                graph.consumers[from].push(End { node: position, slot });
            }
            graph.inputs.push(ends);
        }
        graph
    }

    /// The message itself.
    pub fn message(&self) -> &'a GraphDef {
        self.message
    }

    /// The node at a position.
    pub fn node(&self, position: usize) -> &'a NodeDef {
        &self.message.node[position]
    }

    /// The position of the node `name`; the last one's where several have it.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    /// What a node's inputs come from, in the message's order.
    pub fn inputs(&self, position: usize) -> &[End] {
        &self.inputs[position]
    }

    /// What a node's outputs go to: the consumer, and the output it takes.
    pub fn consumers(&self, position: usize) -> &[End] {
        &self.consumers[position]
    }

    /// Repeated names, and inputs that are not there.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The positions of the nodes or tensors of these names (`a` or `a:0`).
    ///
    /// # Errors
    /// `NotFound`, with a name that is not in the graph.
    pub fn find<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<usize>> {
        names
            .iter()
            .map(|name| {
                let name = name.as_ref();
                let node = InputName::parse(name).map_or(name, InputName::node);
                self.position(node).ok_or_else(|| {
                    Error::not_found(format!("the graph has no node '{node}'"))
                        .got(format!("a graph of {} nodes", self.message.node.len()))
                        .hint("names are whole, scopes included; `graph inspect --all` lists inputs and outputs")
                })
            })
            .collect()
    }

    /// For each node, whether one of `ends` needs it: the nodes themselves and all that leads to them, control edges
    /// included.
    pub fn needed_for(&self, ends: &[usize]) -> Vec<bool> {
        let mut needed = vec![false; self.message.node.len()];
        let mut queue: VecDeque<usize> = ends.iter().copied().collect();
        while let Some(position) = queue.pop_front() {
            if !std::mem::replace(&mut needed[position], true) {
                queue.extend(
                    self.inputs[position]
                        .iter()
                        .map(|end| end.node)
                        .filter(|&node| !needed[node]),
                );
            }
        }
        needed
    }

    /// The graph without the nodes that `keep` denies. Control edges from them go too, and so do functions that no node
    /// calls any more.
    ///
    /// # Errors
    /// `FailedPrecondition` where a node that stays takes data from one that goes.
    pub fn restrict(&self, keep: &[bool]) -> Result<GraphDef> {
        let gone = |input: &str| {
            let name = InputName::parse(input).map_or(input, InputName::node);
            self.position(name).is_none_or(|position| !keep[position])
        };
        let mut node = Vec::new();
        for (kept, _) in self.message.node.iter().zip(keep).filter(|(_, keep)| **keep) {
            let mut kept = kept.clone();
            kept.input.retain(|input| !(input.starts_with('^') && gone(input)));
            if let Some(input) = kept.input.iter().find(|input| gone(input)) {
                return Err(
                    Error::failed_precondition(format!("the node needs '{input}', which would go")).at(OpSite::new(
                        kept.name.as_str(),
                        kept.op.as_str(),
                        None,
                    )),
                );
            }
            node.push(kept);
        }
        let library = self.message.library.as_ref().map(|library| called(library, &node));
        Ok(GraphDef {
            node,
            library: library.filter(|library| *library != FunctionDefLibrary::default()),
            version: self.message.version,
            versions: self.message.versions.clone(),
            debug_info: self.message.debug_info.clone(),
        })
    }

    /// The graph of what `names` (nodes or tensors) need, as `tf.graph_util.extract_sub_graph` makes it.
    ///
    /// # Errors
    /// Those of [`find`](Self::find).
    pub fn extract<S: AsRef<str>>(&self, names: &[S]) -> Result<GraphDef> {
        self.restrict(&self.needed_for(&self.find(names)?))
    }
}

/// The functions that `nodes` call, directly or through others; as an op, in an attribute or as a gradient.
fn called(library: &FunctionDefLibrary, nodes: &[NodeDef]) -> FunctionDefLibrary {
    let bodies: FxHashMap<&str, &[NodeDef]> = library
        .function
        .iter()
        .filter_map(|function| Some((function.signature.as_ref()?.name.as_str(), function.node_def.as_slice())))
        .collect();
    let gradients: FxHashMap<&str, &str> = library
        .gradient
        .iter()
        .map(|gradient| (gradient.function_name.as_str(), gradient.gradient_func.as_str()))
        .collect();
    let mut found: FxHashSet<&str> = FxHashSet::default();
    let mut queue: VecDeque<&[NodeDef]> = VecDeque::from([nodes]);
    while let Some(nodes) = queue.pop_front() {
        let mut names: Vec<&str> = Vec::new();
        for node in nodes {
            names.push(&node.op);
            node.attr.values().for_each(|attr| names_in(attr, &mut names));
        }
        while let Some(name) = names.pop() {
            if let Some(body) = bodies.get_key_value(name).filter(|(name, _)| found.insert(name)) {
                queue.push_back(body.1);
                names.extend(gradients.get(name));
            }
        }
    }
    FunctionDefLibrary {
        function: library
            .function
            .iter()
            .filter(|function| {
                function
                    .signature
                    .as_ref()
                    .is_some_and(|s| found.contains(s.name.as_str()))
            })
            .cloned()
            .collect(),
        gradient: library
            .gradient
            .iter()
            .filter(|gradient| found.contains(gradient.function_name.as_str()))
            .cloned()
            .collect(),
        registered_gradients: library
            .registered_gradients
            .iter()
            .filter(|gradient| found.contains(gradient.gradient_func.as_str()))
            .cloned()
            .collect(),
    }
}

/// Adds the names of the functions in an attribute.
fn names_in<'a>(attr: &'a super::proto::AttrValue, names: &mut Vec<&'a str>) {
    let mut funcs = Vec::new();
    match &attr.value {
        Some(attr_value::Value::Func(func)) => funcs.push(func),
        Some(attr_value::Value::List(list)) => funcs.extend(&list.func),
        _ => {}
    }
    while let Some(func) = funcs.pop() {
        names.push(&func.name);
        for attr in func.attr.values() {
            match &attr.value {
                Some(attr_value::Value::Func(func)) => funcs.push(func),
                Some(attr_value::Value::List(list)) => funcs.extend(&list.func),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;

    fn graph(text: &str) -> GraphDef {
        text::from_text(text).unwrap()
    }

    #[test]
    fn inputs_are_read_as_tensorflow_reads_them() {
        let cases = [
            ("a", Some(InputName::Tensor("a", 0))),
            ("a:2", Some(InputName::Tensor("a", 2))),
            ("^a", Some(InputName::Control("a"))),
            ("a:-1", None),
            ("a:+1", None),
            ("a:x", None),
            ("a:", None),
        ];
        for (input, expected) in cases {
            assert_eq!(InputName::parse(input), expected, "{input}");
        }
    }

    #[test]
    fn what_is_missing_or_repeated_is_told() {
        let message = graph(
            r#"node { name: "a" op: "A" input: "nowhere" input: "^b" } node { name: "b" op: "B" } node { name: "b" op: "B" }"#,
        );
        let graph = MessageGraph::new(&message);
        assert_eq!(graph.inputs(0), [End { node: 2, slot: None }]);
        let problems = graph.problems().join("; ");
        assert!(
            problems.contains("more than one node 'b'") && problems.contains("'nowhere'"),
            "{problems}"
        );
    }

    #[test]
    fn a_part_has_what_it_needs_and_nothing_else() {
        let message = graph(
            r#"node { name: "x" op: "Placeholder" }
               node { name: "first" op: "NoOp" }
               node { name: "y" op: "Call" input: "x" input: "^first" attr { key: "f" value { func { name: "f" } } } }
               node { name: "z" op: "Other" input: "y:1" }
               library { function { signature { name: "f" } node_def { name: "n" op: "g" } }
                         function { signature { name: "g" } } function { signature { name: "unused" } }
                         gradient { function_name: "unused" gradient_func: "g" } }
               versions { producer: 134 }"#,
        );
        let part = MessageGraph::new(&message).extract(&["y:0"]).unwrap();
        let names: Vec<&str> = part.node.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["x", "first", "y"]);
        let library = part.library.unwrap();
        assert_eq!((library.function.len(), library.gradient.len()), (2, 0));
        assert_eq!(part.versions, message.versions);
        let error = MessageGraph::new(&message).extract(&["w"]).unwrap_err();
        assert!(error.to_string().contains("no node 'w'"), "{error}");
    }

    #[test]
    fn a_node_is_not_kept_without_its_data() {
        let message = graph(
            r#"node { name: "a" op: "A" } node { name: "b" op: "B" input: "a" } node { name: "c" op: "C" input: "^a" }"#,
        );
        let graph = MessageGraph::new(&message);
        assert!(
            graph
                .restrict(&[false, true, true])
                .unwrap_err()
                .to_string()
                .contains("'a'")
        );
        let rest = graph.restrict(&[false, false, true]).unwrap();
        assert!(rest.node.len() == 1 && rest.node[0].input.is_empty());
    }
}
