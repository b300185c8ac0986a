//! What of a graph the engine does not know, told from the message alone.

use std::collections::{BTreeMap, BTreeSet};

use graph_core::format::graph_def::attr_from_proto;
use graph_core::format::proto::attr_value::Value;
use graph_core::format::proto::{GraphDef, NodeDef};
use graph_core::op::kernel::{DeviceKind, KernelDefinition};
use graph_core::op::{AttrType, Attributes, OpDefinition};
use serde::Serialize;

use crate::attr_text;

/// An op that the engine does not know, or does not know for a dtype.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Unsupported {
    pub op: String,
    /// The dtype for which it has no kernel; none where the op itself is not known.
    pub dtype: Option<String>,
    /// How many nodes of the graph it concerns.
    pub nodes: usize,
}

/// All that the engine does not know of a graph's nodes, most frequent first.
pub fn unsupported(graph: &GraphDef) -> Vec<Unsupported> {
    let registry = graph_ops::install();
    let mut found: BTreeMap<(&str, Option<String>), usize> = BTreeMap::new();
    for node in &graph.node {
        let missing = match registry.op(&node.op) {
            Ok(definition) => unserved(definition, node).map(Some),
            Err(_) => Some(None),
        };
        if let Some(dtype) = missing {
            *found.entry((&node.op, dtype)).or_default() += 1;
        }
    }
    let mut all: Vec<Unsupported> = found
        .into_iter()
        .map(|((op, dtype), nodes)| Unsupported {
            op: op.to_owned(),
            dtype,
            nodes,
        })
        .collect();
    all.sort_by_key(|unsupported| std::cmp::Reverse(unsupported.nodes));
    all
}

/// The dtypes for which no kernel serves a node, if that is so.
fn unserved(definition: &OpDefinition, node: &NodeDef) -> Option<String> {
    let mut types = Attributes::new();
    let mut unknown = BTreeSet::new();
    for attr in &definition.attrs {
        if !matches!(attr.ty, AttrType::Type | AttrType::List(AttrType::Type)) {
            continue;
        }
        let value = match node.attr.get(attr.name) {
            Some(value) => attr_from_proto(value)
                .map_err(|_| unknown.extend(numbers(&value.value)))
                .ok(),
            None => attr.default.clone(),
        };
        if let Some(value) = value {
            types.set(attr.name, value);
        }
    }
    if !unknown.is_empty() {
        return Some(join(unknown.into_iter().map(attr_text::dtype)));
    }
    let kernels: Vec<&KernelDefinition> = definition
        .kernels
        .iter()
        .filter(|kernel| kernel.device == DeviceKind::Cpu)
        .collect();
    if kernels.is_empty() || kernels.iter().any(|kernel| kernel.serves(&types)) {
        return None;
    }
    // Blame the attributes that no kernel takes as they are; where each has a kernel that takes it, all together.
    let constrained: BTreeSet<&str> = kernels
        .iter()
        .flat_map(|kernel| kernel.types.iter().map(|(name, _)| *name))
        .collect();
    let taken_alone = |name: &str| {
        let mut alone = Attributes::new();
        if let Some(value) = types.get(name) {
            alone.set(name.to_owned(), value.clone());
        }
        kernels.iter().any(|kernel| kernel.serves(&alone))
    };
    let mut blamed: Vec<&str> = constrained.iter().copied().filter(|name| !taken_alone(name)).collect();
    if blamed.is_empty() {
        blamed = constrained.into_iter().collect();
    }
    let dtypes: BTreeSet<String> = blamed
        .into_iter()
        .filter_map(|name| types.get(name))
        .map(|value| attr_text::attr(&graph_core::format::graph_def::attr_to_proto(value)))
        .collect();
    Some(join(dtypes))
}

fn join(words: impl IntoIterator<Item = String>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// The dtype numbers of an attribute that the engine has no name for.
fn numbers(value: &Option<Value>) -> Vec<i32> {
    let all = match value {
        Some(Value::Type(number)) => vec![*number],
        Some(Value::List(list)) => list.r#type.clone(),
        _ => Vec::new(),
    };
    let unknown = |number: &i32| graph_core::format::graph_def::dtype_from_number(*number).is_err();
    all.into_iter().filter(unknown).collect()
}
