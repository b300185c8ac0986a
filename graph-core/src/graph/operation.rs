//! Operations of a graph.

use std::fmt;

use crate::error::{OpSite, Result};
use crate::graph::Graph;
use crate::graph::node::{NodeId, TensorId};
use crate::graph::tensor::Tensor;
use crate::op::{AttrValue, FromAttr, OpDefinition};

/// An operation of a graph. Cheap to clone; it keeps its graph alive.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Operation {
    graph: Graph,
    id: NodeId,
}

impl Operation {
    pub(crate) fn new(graph: &Graph, id: NodeId) -> Self {
        Self {
            graph: graph.clone(),
            id,
        }
    }

    /// Its graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Its place in the graph.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its name, unique in the graph.
    pub fn name(&self) -> String {
        self.graph.read(|data| data.node(self.id).name.to_string())
    }

    /// Its op.
    pub fn definition(&self) -> &'static OpDefinition {
        self.graph.read(|data| data.node(self.id).definition)
    }

    /// Its op's name, such as `MatMul`.
    pub fn op_type(&self) -> &'static str {
        self.definition().name
    }

    /// The device it asks for; empty for any.
    pub fn device(&self) -> String {
        self.graph.read(|data| data.node(self.id).device.to_string())
    }

    /// Its attribute `name` as a Rust type.
    ///
    /// # Errors
    /// `InvalidArgument` if there is none, or one of another kind.
    pub fn attr<T: FromAttr>(&self, name: &str) -> Result<T> {
        self.graph.read(|data| {
            let node = data.node(self.id);
            node.attrs.read(name).map_err(|error| error.at(node.site()))
        })
    }

    /// Its attribute `name`.
    pub fn attr_value(&self, name: &str) -> Option<AttrValue> {
        self.graph.read(|data| data.node(self.id).attrs.get(name).cloned())
    }

    /// Its data inputs, lists flattened.
    pub fn inputs(&self) -> Vec<Tensor> {
        let ids = self.graph.read(|data| data.node(self.id).inputs.clone());
        ids.into_iter().map(|id| Tensor::new(&self.graph, id)).collect()
    }

    /// Data input `index`.
    ///
    /// # Panics
    /// If there is none.
    pub fn input(&self, index: usize) -> Tensor {
        let id = self.graph.read(|data| data.node(self.id).inputs[index]);
        Tensor::new(&self.graph, id)
    }

    /// The operations that must run before it.
    pub fn control_inputs(&self) -> Vec<Operation> {
        let ids = self.graph.read(|data| data.node(self.id).control_inputs.clone());
        ids.into_iter().map(|id| Operation::new(&self.graph, id)).collect()
    }

    /// The number of outputs.
    pub fn num_outputs(&self) -> usize {
        self.graph.read(|data| data.node(self.id).outputs.len())
    }

    /// Its outputs, lists flattened.
    pub fn outputs(&self) -> Vec<Tensor> {
        (0..self.num_outputs()).map(|slot| self.output(slot)).collect()
    }

    /// Output `slot`.
    ///
    /// # Panics
    /// If there is none.
    pub fn output(&self, slot: usize) -> Tensor {
        Tensor::new(&self.graph, TensorId::new(self.id, slot))
    }

    /// The innermost branch or loop that it belongs to.
    pub fn control_flow_context(&self) -> Option<std::sync::Arc<dyn crate::graph::scope::ControlFlowContext>> {
        self.graph.read(|data| data.contexts.get(&self.id).cloned())
    }

    /// The operation as errors name it.
    pub fn site(&self) -> OpSite {
        self.graph.read(|data| data.node(self.id).site())
    }

    /// The colocation groups it belongs to: those of its `_class` attribute, or its own.
    pub fn colocation_groups(&self) -> Vec<Vec<u8>> {
        match self.attr_value("_class") {
            Some(AttrValue::StringList(groups)) if !groups.is_empty() => groups,
            _ => vec![format!("loc:@{}", self.name()).into_bytes()],
        }
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Operation '{}' type={}>", self.name(), self.op_type())
    }
}
