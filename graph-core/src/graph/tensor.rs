//! Symbolic tensors.

use std::fmt;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::node::{HandleData, NodeId, TensorId};
use crate::graph::{Graph, Operation};
use crate::shape::PartialShape;
use crate::value::Value;

/// A symbolic tensor: an output of an operation. Cheap to clone; it keeps its graph alive.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Tensor {
    graph: Graph,
    id: TensorId,
    dtype: DType,
    is_ref: bool,
}

impl Tensor {
    /// The tensor `id` of `graph`, which must have it.
    pub(crate) fn new(graph: &Graph, id: TensorId) -> Self {
        let (dtype, is_ref) = graph.read(|data| {
            let output = &data.node(id.node).outputs[id.slot as usize];
            (output.dtype, output.is_ref)
        });
        Self {
            graph: graph.clone(),
            id,
            dtype,
            is_ref,
        }
    }

    /// Its graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Its place in the graph.
    pub fn id(&self) -> TensorId {
        self.id
    }

    /// Its node's place in the graph.
    pub fn node_id(&self) -> NodeId {
        self.id.node
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Whether it is a reference to a variable.
    pub fn is_ref(&self) -> bool {
        self.is_ref
    }

    /// The operation whose output it is.
    pub fn op(&self) -> Operation {
        Operation::new(&self.graph, self.id.node)
    }

    /// Its name, `<operation>:<slot>`.
    pub fn name(&self) -> String {
        self.graph
            .read(|data| format!("{}:{}", data.node(self.id.node).name, self.id.slot))
    }

    /// What is known of its shape.
    pub fn shape(&self) -> PartialShape {
        self.graph
            .read(|data| data.node(self.id.node).outputs[self.id.slot as usize].shape.clone())
    }

    /// Of a handle: what is known of the variable that it names.
    pub fn handle_data(&self) -> Option<HandleData> {
        self.graph.read(|data| {
            let output = &data.node(self.id.node).outputs[self.id.slot as usize];
            output.handle.as_deref().cloned()
        })
    }

    /// Adds to what is known of its shape.
    ///
    /// # Errors
    /// `InvalidArgument` if the two do not fit together.
    pub fn set_shape(&self, shape: impl Into<PartialShape>) -> Result<()> {
        let shape = shape.into();
        self.graph.write(|data| {
            let site = data.node(self.id.node).site();
            let output = data.output_mut(self.id);
            output.shape = output.shape.merge(&shape).map_err(|error| error.at(site))?;
            Ok(())
        })
    }

    /// Its value, where constants alone decide it.
    pub fn constant_value(&self) -> Option<Value> {
        self.graph.constant_value(self.id)
    }

    /// The operations that take it as an input, in order of creation.
    pub fn consumers(&self) -> Vec<Operation> {
        self.graph
            .read(|data| data.consumers(self.id))
            .into_iter()
            .map(|node| Operation::new(&self.graph, node))
            .collect()
    }

    /// An error unless its dtype is one of `allowed`.
    pub fn require_dtype(&self, allowed: &[DType]) -> Result<()> {
        if allowed.contains(&self.dtype) {
            return Ok(());
        }
        let names: Vec<_> = allowed.iter().map(|dtype| dtype.name()).collect();
        Err(
            Error::invalid_argument(format!("'{}' has a dtype that is not allowed here", self.name()))
                .expected(names.join(" or "))
                .got(self.dtype),
        )
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reference = if self.is_ref { "_ref" } else { "" };
        write!(
            f,
            "<Tensor '{}' shape={} dtype={}{reference}>",
            self.name(),
            self.shape(),
            self.dtype
        )
    }
}
