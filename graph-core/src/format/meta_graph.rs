//! MetaGraphs: a graph with its collections, its saver and its signatures, as TensorFlow keeps them in `.meta` files and
//! SavedModels, so that training goes on where the graph is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost::Message;
use rustc_hash::FxHashMap;

use super::graph_def::ExportOptions;
use super::import::{ImportOptions, ImportedElement};
use super::op_def::op_def_to_proto;
use super::proto::{self, MetaGraphDef, collection_def};
use crate::error::{Error, Result};
use crate::graph::{CollectionItem, Graph, keys};
use crate::variable::Variable;

/// The version of TensorFlow whose format is written.
const TENSORFLOW_VERSION: &str = "1.15.0";

/// The collections that hold variables as `VariableDef` messages; everywhere else a variable stands as its name.
const VARIABLE_COLLECTIONS: [&str; 7] = [
    keys::GLOBAL_VARIABLES,
    keys::LOCAL_VARIABLES,
    keys::TRAINABLE_VARIABLES,
    keys::GLOBAL_STEP,
    "model_variables",
    "moving_average_variables",
    "metric_variables",
];

/// What a MetaGraph contains beside the graph.
#[derive(Clone, Debug, Default)]
pub struct MetaGraphOptions {
    /// How the graph itself is written.
    pub graph: ExportOptions,
    /// What the graph is for, such as `serve` or `train`.
    pub tags: Vec<String>,
    /// The nodes that save and restore it.
    pub saver: Option<proto::SaverDef>,
    /// Its named inputs and outputs.
    pub signatures: BTreeMap<String, proto::SignatureDef>,
    /// The collections to write; all without.
    pub collections: Option<Vec<String>>,
}

impl Graph {
    /// The graph with its collections as TensorFlow's message.
    ///
    /// The same graph always gives the same message, and the same bytes.
    ///
    /// # Errors
    /// `InvalidArgument` for a collection that mixes kinds of things, which the format cannot hold.
    pub fn to_meta_graph(&self, options: &MetaGraphOptions) -> Result<MetaGraphDef> {
        let mut ops: BTreeMap<&str, proto::OpDef> = BTreeMap::new();
        self.read(|data| {
            for id in data.node_ids() {
                let definition = data.node(id).definition;
                ops.entry(definition.name)
                    .or_insert_with(|| op_def_to_proto(definition));
            }
        });
        let chosen: BTreeSet<String> = match &options.collections {
            Some(keys) => keys.iter().cloned().collect(),
            None => self.collection_keys().into_iter().collect(),
        };
        let mut collection_def = BTreeMap::new();
        for key in chosen {
            let items = self.get_collection::<CollectionItem>(&key)?;
            if let Some(kind) = collection_to_proto(&key, &items)? {
                collection_def.insert(key, proto::CollectionDef { kind: Some(kind) });
            }
        }
        Ok(MetaGraphDef {
            meta_info_def: Some(proto::meta_graph_def::MetaInfoDef {
                stripped_op_list: Some(proto::OpList {
                    op: ops.into_values().collect(),
                }),
                tags: options.tags.clone(),
                tensorflow_version: TENSORFLOW_VERSION.to_owned(),
                tensorflow_git_version: "unknown".to_owned(),
                ..Default::default()
            }),
            graph_def: Some(self.to_graph_def(options.graph)),
            saver_def: options.saver.clone(),
            collection_def,
            signature_def: options.signatures.clone(),
            ..Default::default()
        })
    }

    /// Writes the graph with its collections to a file, as protobuf's binary or text format. The file appears complete or
    /// not at all.
    ///
    /// # Errors
    /// Those of [`Graph::to_meta_graph`], and whatever the operating system refuses, with the path.
    pub fn write_meta_graph(&self, path: impl AsRef<Path>, text: bool, options: &MetaGraphOptions) -> Result<()> {
        super::write_message(path, &self.to_meta_graph(options)?, text)
    }

    /// Adds the graph of a MetaGraph to this one, and its collections to this one's: variables are variables again, so that
    /// optimizers, savers and initializers find them.
    ///
    /// # Errors
    /// Those of [`Graph::import`], and `InvalidArgument` for collections that name what is not in the graph; nothing is
    /// added then.
    #[track_caller]
    pub fn import_meta_graph(&self, meta: &MetaGraphDef, options: &ImportOptions) -> Result<Vec<ImportedElement>> {
        let graph_def = meta
            .graph_def
            .as_ref()
            .ok_or_else(|| Error::invalid_argument("the MetaGraph holds no graph"))?;
        let collections = Collections::parse(meta)?;
        let producer_ops = meta
            .meta_info_def
            .iter()
            .flat_map(|info| &info.stripped_op_list)
            .flat_map(|list| &list.op);
        // What the collections name must be there, or nothing is imported.
        let named = collections.names();
        let asked = options
            .clone()
            .producer_ops(producer_ops.cloned())
            .return_elements(named.iter().cloned());
        let (mut elements, prefix) = self.import_under_prefix(graph_def, &asked)?;
        elements.truncate(elements.len() - named.len());
        collections.add_to(self, &prefix)?;
        Ok(elements)
    }
}

/// Reads a MetaGraph from a file in protobuf's binary format (`.meta`) or text format.
///
/// # Errors
/// Those of [`super::read_message`].
pub fn read_meta_graph(path: impl AsRef<Path>) -> Result<MetaGraphDef> {
    super::read_message(path)
}

/// A variable as TensorFlow's message: the names of its parts.
pub fn variable_to_proto(variable: &Variable) -> proto::VariableDef {
    proto::VariableDef {
        variable_name: variable.name(),
        initializer_name: variable.initializer().name(),
        snapshot_name: variable.value().name(),
        initial_value_name: variable.initial_value().map(|value| value.name()).unwrap_or_default(),
        trainable: variable.is_trainable(),
        is_resource: variable.is_resource(),
        ..Default::default()
    }
}

/// The variable of `graph` whose parts a message names, each with `prefix` before it.
///
/// # Errors
/// `NotFound` for a part that the graph has not.
pub fn variable_from_proto(graph: &Graph, message: &proto::VariableDef, prefix: &str) -> Result<Variable> {
    let tensor = |name: &str| graph.tensor(&format!("{prefix}{name}"));
    let reference = tensor(&message.variable_name)?;
    let value = match message.snapshot_name.as_str() {
        // Before TensorFlow 0.8 there was none.
        "" => reference.clone(),
        name => tensor(name)?,
    };
    let initial_value = match message.initial_value_name.as_str() {
        "" => None,
        name => Some(tensor(name)?),
    };
    let initializer = graph.operation(&format!("{prefix}{}", message.initializer_name))?;
    Ok(Variable::from_parts(
        reference,
        value,
        initializer,
        initial_value,
        message.trainable,
    ))
}

/// The things of a collection in the form that the format has for them; `None` if there are none.
fn collection_to_proto(key: &str, items: &[CollectionItem]) -> Result<Option<collection_def::Kind>> {
    use collection_def::{BytesList, FloatList, Int64List, Kind, NodeList};
    let as_messages = VARIABLE_COLLECTIONS.contains(&key);
    let mut kind = None;
    for item in items {
        let empty = match item {
            CollectionItem::Variable(_) if as_messages => Kind::BytesList(BytesList::default()),
            CollectionItem::Bytes(_) => Kind::BytesList(BytesList::default()),
            CollectionItem::Int(_) => Kind::Int64List(Int64List::default()),
            CollectionItem::Float(_) => Kind::FloatList(FloatList::default()),
            CollectionItem::Tensor(_) | CollectionItem::Operation(_) | CollectionItem::Variable(_) => {
                Kind::NodeList(NodeList::default())
            }
        };
        match (kind.get_or_insert(empty), item) {
            (Kind::NodeList(list), CollectionItem::Tensor(tensor)) => list.value.push(tensor.name()),
            (Kind::NodeList(list), CollectionItem::Operation(operation)) => list.value.push(operation.name()),
            (Kind::NodeList(list), CollectionItem::Variable(variable)) if !as_messages => {
                list.value.push(variable.name());
            }
            (Kind::BytesList(list), CollectionItem::Variable(variable)) if as_messages => {
                list.value.push(variable_to_proto(variable).encode_to_vec());
            }
            (Kind::BytesList(list), CollectionItem::Bytes(bytes)) => list.value.push(bytes.clone()),
            (Kind::Int64List(list), CollectionItem::Int(number)) => list.value.push(*number),
            (Kind::FloatList(list), CollectionItem::Float(number)) => list.value.push(*number),
            (_, odd) => {
                return Err(Error::invalid_argument(format!(
                    "the collection '{key}' mixes kinds of things, which a MetaGraph cannot hold"
                ))
                .got(format!("{:?} and {odd:?}", items[0]))
                .hint("leave it out of the collections to write"));
            }
        }
    }
    Ok(kind)
}

/// The collections of a MetaGraph, understood but not yet part of a graph.
struct Collections {
    /// By key, in the message's order; names are without a prefix.
    items: Vec<(String, Vec<NamedItem>)>,
    /// By the name of their reference.
    variables: FxHashMap<String, proto::VariableDef>,
}

/// A thing of a collection whose nodes are names.
enum NamedItem {
    Node(String),
    Variable(proto::VariableDef),
    Ready(CollectionItem),
}

impl Collections {
    fn parse(meta: &MetaGraphDef) -> Result<Self> {
        use collection_def::Kind;
        let mut collections = Self {
            items: Vec::new(),
            variables: FxHashMap::default(),
        };
        for (key, collection) in &meta.collection_def {
            let items = match &collection.kind {
                None => Vec::new(),
                Some(Kind::NodeList(list)) => list.value.iter().cloned().map(NamedItem::Node).collect(),
                Some(Kind::BytesList(list)) if VARIABLE_COLLECTIONS.contains(&key.as_str()) => list
                    .value
                    .iter()
                    .map(|bytes| collections.variable(key, bytes))
                    .collect::<Result<_>>()?,
                Some(Kind::BytesList(list)) => ready(&list.value, |bytes| CollectionItem::Bytes(bytes.clone())),
                Some(Kind::Int64List(list)) => ready(&list.value, |&number| CollectionItem::Int(number)),
                Some(Kind::FloatList(list)) => ready(&list.value, |&number| CollectionItem::Float(number)),
                // Messages of unknown types: kept as they are.
                Some(Kind::AnyList(list)) => ready(&list.value, |any| CollectionItem::Bytes(any.encode_to_vec())),
            };
            collections.items.push((key.clone(), items));
        }
        Ok(collections)
    }

    fn variable(&mut self, key: &str, bytes: &[u8]) -> Result<NamedItem> {
        let message = proto::VariableDef::decode(bytes).map_err(|error| {
            Error::invalid_argument(format!("the collection '{key}' holds what is no variable: {error}"))
        })?;
        self.variables.insert(message.variable_name.clone(), message.clone());
        Ok(NamedItem::Variable(message))
    }

    /// The names of everything that is in a collection, as an importer is asked for them.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for item in self.items.iter().flat_map(|(_, items)| items) {
            match item {
                NamedItem::Node(name) => names.push(name.clone()),
                NamedItem::Variable(message) => {
                    let parts = [
                        &message.variable_name,
                        &message.initializer_name,
                        &message.snapshot_name,
                        &message.initial_value_name,
                    ];
                    names.extend(parts.into_iter().filter(|name| !name.is_empty()).cloned());
                }
                NamedItem::Ready(_) => {}
            }
        }
        names
    }

    fn add_to(&self, graph: &Graph, prefix: &str) -> Result<()> {
        for (key, items) in &self.items {
            for item in items {
                let item = match item {
                    NamedItem::Ready(item) => item.clone(),
                    NamedItem::Variable(message) => {
                        CollectionItem::Variable(variable_from_proto(graph, message, prefix)?)
                    }
                    NamedItem::Node(name) => match self.variables.get(name) {
                        Some(message) => CollectionItem::Variable(variable_from_proto(graph, message, prefix)?),
                        None if name.contains(':') => CollectionItem::Tensor(graph.tensor(&format!("{prefix}{name}"))?),
                        None => CollectionItem::Operation(graph.operation(&format!("{prefix}{name}"))?),
                    },
                };
                graph.add_to_collection(key, &item);
            }
        }
        Ok(())
    }
}

fn ready<T>(values: &[T], item: impl Fn(&T) -> CollectionItem) -> Vec<NamedItem> {
    values.iter().map(|value| NamedItem::Ready(item(value))).collect()
}
