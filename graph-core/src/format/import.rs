//! Graphs from TensorFlow's messages: the importer of [`GraphDef`].
//!
//! A graph is imported whole or not at all: everything that can be said about the message alone is checked before the
//! first node is added, all problems are told in one error, and where shapes turn out not to fit the nodes are taken out
//! again. Nodes keep the order of the message, which need not be one in which they could run.

mod importer;
mod parse;
mod problems;

use std::panic::Location;
use std::path::Path;

use rustc_hash::{FxHashMap, FxHashSet};

use super::proto::{GraphDef, OpDef};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Operation, PRODUCER, Tensor};
use crate::op::registry;
use importer::{Importer, normal_tensor_name};
use problems::Problems;

/// Where an imported graph goes, and what becomes of its inputs; see [`Graph::import`].
///
/// ```
/// use graph_core::format::import::ImportOptions;
/// let options = ImportOptions::new().prefix("net").return_element("logits:0");
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct ImportOptions {
    prefix: String,
    input_map: Vec<(String, Tensor)>,
    return_elements: Vec<String>,
    clear_devices: bool,
    producer_ops: Vec<OpDef>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            prefix: "import".to_owned(),
            input_map: Vec::new(),
            return_elements: Vec::new(),
            clear_devices: false,
            producer_ops: Vec::new(),
        }
    }
}

impl ImportOptions {
    /// Everything under the name scope `import`, nothing mapped, nothing returned.
    pub fn new() -> Self {
        Self::default()
    }

    /// The options for a graph that keeps its names.
    pub fn verbatim() -> Self {
        Self::new().prefix("")
    }

    /// The name scope that all nodes go into, numbered if it exists. With the empty prefix nodes keep their names.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Puts `tensor` in the place of the message's tensor `name` (`x` or `x:1`) wherever it is an input.
    pub fn map_input(mut self, name: impl Into<String>, tensor: &Tensor) -> Self {
        self.input_map.push((name.into(), tensor.clone()));
        self
    }

    /// Leaves out what the message says of devices.
    pub fn clear_devices(mut self, clear: bool) -> Self {
        self.clear_devices = clear;
        self
    }

    /// Says what ops were to the producer, as a MetaGraph does: an attribute that this engine's op has not is dropped where
    /// it has the producer's default value.
    pub fn producer_ops(mut self, ops: impl IntoIterator<Item = OpDef>) -> Self {
        self.producer_ops.extend(ops);
        self
    }

    /// Asks for an operation (`train`) or a tensor (`loss:0`) of the message, by its name there.
    pub fn return_element(mut self, name: impl Into<String>) -> Self {
        self.return_elements.push(name.into());
        self
    }

    /// [`ImportOptions::return_element`] for each of `names`.
    pub fn return_elements<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.return_elements.extend(names.into_iter().map(Into::into));
        self
    }
}

/// What [`ImportOptions::return_element`] asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum ImportedElement {
    /// It was named without a slot.
    Operation(Operation),
    /// It was named with a slot.
    Tensor(Tensor),
}

impl ImportedElement {
    /// The tensor; of an operation its first output.
    ///
    /// # Errors
    /// `InvalidArgument` for an operation without outputs.
    pub fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Tensor(tensor) => Ok(tensor.clone()),
            Self::Operation(operation) if operation.num_outputs() > 0 => Ok(operation.output(0)),
            Self::Operation(operation) => {
                Err(Error::invalid_argument("the operation has no output").at(operation.site()))
            }
        }
    }

    /// The operation; of a tensor the one that it is an output of.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Operation(operation) => operation.clone(),
            Self::Tensor(tensor) => tensor.op(),
        }
    }
}

/// Reads a graph from a file in protobuf's binary format (`.pb`) or text format (`.pbtxt`).
///
/// # Errors
/// Those of [`super::read_message`].
pub fn read_graph_def(path: impl AsRef<Path>) -> Result<GraphDef> {
    super::read_message(path)
}

impl Graph {
    /// Adds the nodes of a message to this graph, as `tf.import_graph_def` does: attributes that the message leaves out get
    /// their defaults, shapes are inferred (and merged with `_output_shapes` where the message has them), colocation
    /// constraints follow the prefix. What `return_element` named comes back, in that order.
    ///
    /// ```ignore
    /// let graph_def = graph_core::format::import::read_graph_def("frozen.pb")?;
    /// let found = graph.import(&graph_def, &ImportOptions::new().prefix("net").return_element("logits:0"))?;
    /// ```
    ///
    /// # Errors
    /// One error that lists all problems, of the first one's class: `NotFound` for ops that are not known,
    /// `InvalidArgument` for anything that does not fit together, `Unimplemented` for calls of graph functions and for
    /// constants that cannot be held; no node is added then. `FailedPrecondition` if the graph is finalized.
    #[track_caller]
    pub fn import(&self, graph_def: &GraphDef, options: &ImportOptions) -> Result<Vec<ImportedElement>> {
        self.import_under_prefix(graph_def, options)
            .map(|(elements, _)| elements)
    }

    /// [`Graph::import`]; the prefix that names got, with a slash at the end, comes along.
    #[track_caller]
    pub(crate) fn import_under_prefix(
        &self,
        graph_def: &GraphDef,
        options: &ImportOptions,
    ) -> Result<(Vec<ImportedElement>, String)> {
        self.check_mutable()?;
        check_versions(graph_def)?;
        let registry = registry()?;
        let location = Location::caller();
        let names: FxHashMap<&str, usize> = graph_def
            .node
            .iter()
            .enumerate()
            .map(|(index, node)| (node.name.as_str(), index))
            .collect();
        let mut problems = Problems::default();
        if names.len() < graph_def.node.len() {
            let repeated = graph_def.node.iter().enumerate();
            for (_, node) in repeated.filter(|(index, node)| names[node.name.as_str()] != *index) {
                problems.add(node, Error::invalid_argument("the name is not unique"));
            }
        }
        let mut importer = Importer {
            graph: self,
            graph_def,
            names,
            mapped: FxHashMap::default(),
            used: FxHashSet::default(),
            parsed: Vec::new(),
        };
        importer.map_inputs(options, &mut problems);
        importer.parse(registry, &options.producer_ops, &mut problems);
        problems.finish(graph_def.node.len())?;
        importer.connect(&mut problems);
        for (name, _) in &options.input_map {
            if !importer.used.contains(&normal_tensor_name(name)) {
                problems.add_general(
                    Error::invalid_argument(format!("the input '{name}' that is mapped is no input of any node"))
                        .hint("leave it out of the input map"),
                );
            }
        }
        let elements = importer.elements(&options.return_elements, &mut problems);
        let order = importer.order(&mut problems);
        problems.finish(graph_def.node.len())?;
        let (first, prefix) = importer.insert(options, location, &order)?;
        let elements = elements
            .into_iter()
            .map(|(index, slot)| {
                let operation = Operation::new(self, NodeId::new(first + index));
                match slot {
                    Some(slot) => ImportedElement::Tensor(operation.output(slot)),
                    None => ImportedElement::Operation(operation),
                }
            })
            .collect();
        Ok((elements, prefix))
    }
}

fn check_versions(graph_def: &GraphDef) -> Result<()> {
    let versions = graph_def.versions.clone().unwrap_or_default();
    if versions.min_consumer > PRODUCER {
        return Err(
            Error::invalid_argument("the graph is of a format that is too new for this engine")
                .expected(format!("a graph for consumers of version {PRODUCER} or less"))
                .got(format!(
                    "one for consumers of at least version {}",
                    versions.min_consumer
                )),
        );
    }
    if versions.bad_consumers.contains(&PRODUCER) {
        return Err(Error::invalid_argument(format!(
            "the graph refuses consumers of version {PRODUCER}, which this engine is"
        )));
    }
    Ok(())
}
