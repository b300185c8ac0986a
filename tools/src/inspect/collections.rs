//! What a MetaGraph holds beside its graph.

use std::collections::{BTreeMap, BTreeSet};

use graph_core::format::Message;
use graph_core::format::proto::collection_def::Kind;
use graph_core::format::proto::tensor_info::Encoding;
use graph_core::format::proto::{MetaGraphDef, TensorInfo, VariableDef};
use serde::Serialize;

use super::report::Shape;
use crate::attr_text;

#[derive(Serialize)]
pub struct Collection {
    pub name: String,
    /// `nodes`, `variables`, `bytes`, `ints`, `floats` or `any`.
    pub kind: &'static str,
    pub count: usize,
    /// Names, numbers, or the types and sizes of what cannot be shown.
    pub items: Vec<String>,
}

#[derive(Serialize)]
pub struct Signature {
    pub name: String,
    pub method: String,
    pub inputs: Vec<Argument>,
    pub outputs: Vec<Argument>,
}

#[derive(Serialize)]
pub struct Argument {
    pub name: String,
    /// The tensor's name in the graph; of a sparse or composite one the names of its parts.
    pub tensor: String,
    pub dtype: String,
    pub shape: Shape,
}

/// The collections, by name.
pub fn collections(meta: &MetaGraphDef) -> Vec<Collection> {
    meta.collection_def
        .iter()
        .map(|(name, collection)| {
            let (kind, items) = match &collection.kind {
                None => ("nodes", Vec::new()),
                Some(Kind::NodeList(list)) => ("nodes", list.value.clone()),
                Some(Kind::Int64List(list)) => ("ints", list.value.iter().map(ToString::to_string).collect()),
                Some(Kind::FloatList(list)) => ("floats", list.value.iter().map(ToString::to_string).collect()),
                Some(Kind::AnyList(list)) => ("any", list.value.iter().map(|any| any.type_url.clone()).collect()),
                Some(Kind::BytesList(list)) => bytes_list(name, &list.value),
            };
            Collection {
                name: name.clone(),
                kind,
                count: items.len(),
                items,
            }
        })
        .collect()
}

/// Variables are kept as messages; so are other things, whose types the file does not tell.
fn bytes_list(name: &str, items: &[Vec<u8>]) -> (&'static str, Vec<String>) {
    let is_variables = name.ends_with("variables") || name == "global_step";
    let decoded: Option<Vec<String>> = items
        .iter()
        .map(|bytes| VariableDef::decode(bytes.as_slice()).ok())
        .map(|variable| variable.map(|variable| variable.variable_name))
        .collect();
    match decoded.filter(|_| is_variables) {
        Some(names) => ("variables", names),
        None => (
            "bytes",
            items.iter().map(|bytes| format!("{} bytes", bytes.len())).collect(),
        ),
    }
}

/// The names of the nodes of the variables in a collection.
pub fn variable_names(meta: &MetaGraphDef, collection: &str) -> BTreeSet<String> {
    match meta.collection_def.get(collection).and_then(|c| c.kind.as_ref()) {
        Some(Kind::BytesList(list)) => list
            .value
            .iter()
            .filter_map(|bytes| VariableDef::decode(bytes.as_slice()).ok())
            .map(|variable| variable.variable_name.trim_end_matches(":0").to_owned())
            .collect(),
        _ => BTreeSet::new(),
    }
}

/// The signatures, by name.
pub fn signatures(meta: &MetaGraphDef) -> Vec<Signature> {
    meta.signature_def
        .iter()
        .map(|(name, signature)| Signature {
            name: name.clone(),
            method: signature.method_name.clone(),
            inputs: arguments(&signature.inputs),
            outputs: arguments(&signature.outputs),
        })
        .collect()
}

fn arguments(arguments: &BTreeMap<String, TensorInfo>) -> Vec<Argument> {
    arguments
        .iter()
        .map(|(name, info)| Argument {
            name: name.clone(),
            tensor: tensor_name(info),
            dtype: attr_text::dtype(info.dtype),
            shape: Shape(info.tensor_shape.clone()),
        })
        .collect()
}

fn tensor_name(info: &TensorInfo) -> String {
    match &info.encoding {
        None => String::new(),
        Some(Encoding::Name(name)) => name.clone(),
        Some(Encoding::CooSparse(sparse)) => format!(
            "{}, {}, {}",
            sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name
        ),
        Some(Encoding::CompositeTensor(composite)) => {
            let mut parts = Vec::new();
            for part in &composite.components {
                match &part.encoding {
                    Some(Encoding::Name(name)) => parts.push(name.clone()),
                    _ => parts.push("...".to_owned()),
                }
            }
            parts.join(", ")
        }
    }
}
