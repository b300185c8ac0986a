//! Nodes: operations as they stand in the graph.

use std::panic::Location;
use std::sync::Arc;

use petgraph::graph::NodeIndex;
use smallvec::SmallVec;

use crate::dtype::DType;
use crate::error::OpSite;
use crate::op::{Attributes, OpDefinition};
use crate::shape::PartialShape;

/// A node's position in its graph: the order of creation.
pub type NodeId = NodeIndex<u32>;

/// A tensor: an output of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TensorId {
    /// The node.
    pub node: NodeId,
    /// Which of its outputs.
    pub slot: u32,
}

impl TensorId {
    /// Output `slot` of `node`.
    pub fn new(node: NodeId, slot: usize) -> Self {
        Self {
            node,
            slot: slot as u32,
        }
    }
}

/// What an edge of the graph carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edge {
    /// The tensor of this output slot.
    Data(u32),
    /// Only order.
    Control,
}

/// What is known of the variable that a handle names: a scalar of dtype `resource`, which says nothing of it by itself.
#[derive(Clone, PartialEq, Debug)]
pub struct HandleData {
    /// The variable's element type.
    pub dtype: DType,
    /// The variable's shape, as far as it is known.
    pub shape: PartialShape,
}

/// What is known of an output.
#[derive(Clone, PartialEq, Debug)]
pub struct OutputInfo {
    /// Its element type.
    pub dtype: DType,
    /// Whether it is a reference to a variable.
    pub is_ref: bool,
    /// Its shape, as far as it is known.
    pub shape: PartialShape,
    /// Of a handle: what is known of its variable.
    pub handle: Option<Box<HandleData>>,
}

/// An operation of a graph.
#[derive(Clone)]
pub struct Node {
    /// Its name, unique in the graph.
    pub name: Arc<str>,
    /// Its op.
    pub definition: &'static OpDefinition,
    /// Its attributes, defaults and inferred types included.
    pub attrs: Attributes,
    /// Its data inputs, lists flattened.
    pub inputs: SmallVec<[TensorId; 2]>,
    /// The operations that must run before it.
    pub control_inputs: SmallVec<[NodeId; 1]>,
    /// Its outputs, lists flattened.
    pub outputs: SmallVec<[OutputInfo; 1]>,
    /// The device it asks for; empty for any.
    pub device: Arc<str>,
    /// Where in the user's source it was made.
    pub location: &'static Location<'static>,
}

impl Node {
    /// The op's type, such as `MatMul`.
    pub fn op(&self) -> &'static str {
        self.definition.name
    }

    /// The node as errors name it.
    pub fn site(&self) -> OpSite {
        OpSite::new(&*self.name, self.op(), Some(self.location))
    }

    /// The name of output `slot`, `n` or `n:1`, as a GraphDef's inputs write it.
    pub fn output_name(&self, slot: usize) -> String {
        if slot == 0 {
            self.name.to_string()
        } else {
            format!("{}:{slot}", self.name)
        }
    }
}
