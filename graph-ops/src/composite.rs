//! What functions share that build several nodes: a graph, a place in the user's source, a name scope.

use std::panic::Location;

use graph_core::graph::scope::{ScopeGuard, name_scope_in};
use graph_core::graph::{Graph, IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::{DType, Result, Value};

/// Where the nodes of a composite go, and who asked for them.
#[derive(Clone)]
pub(crate) struct Composite {
    pub(crate) graph: Graph,
    location: &'static Location<'static>,
}

impl Composite {
    /// In the graph of the first operand that has one, else in the current graph; made by the caller.
    #[track_caller]
    pub(crate) fn of(operands: &[&Operand]) -> Self {
        let graph = operands.iter().find_map(|operand| operand.graph().cloned());
        Self::in_graph(&graph.unwrap_or_else(Graph::current))
    }

    /// In `graph`, made by the caller.
    #[track_caller]
    pub(crate) fn in_graph(graph: &Graph) -> Self {
        crate::install();
        Self {
            graph: graph.clone(),
            location: Location::caller(),
        }
    }

    /// Opens a name scope.
    pub(crate) fn scope(&self, name: &str) -> Result<ScopeGuard> {
        name_scope_in(&self.graph, name)
    }

    /// Begins a node.
    pub(crate) fn node(&self, op: &str) -> OpBuilder {
        OpBuilder::new(op).in_graph(&self.graph).made_at(self.location)
    }

    /// A node of two operands, named `name`.
    pub(crate) fn binary(&self, op: &str, a: impl IntoOperand, b: impl IntoOperand, name: &str) -> Result<Tensor> {
        self.node(op).input(a).input(b).name(name).build()
    }

    /// A constant.
    pub(crate) fn constant(&self, value: impl Into<Value>, name: &str) -> Result<Tensor> {
        let value = value.into();
        let node = self.node("Const").attr("dtype", value.dtype());
        node.attr("value", value).name(name).build()
    }

    /// The operand as a tensor: itself, or a constant named `name` of `dtype` (else of its own).
    pub(crate) fn tensor(&self, operand: &Operand, dtype: Option<DType>, name: &str) -> Result<Tensor> {
        if operand.graph().is_none()
            && let Some(value) = operand.to_value(dtype)?
        {
            return self.constant(value, name);
        }
        operand.to_tensor(&self.graph, name, dtype)
    }

    /// The operand as a vector of dimensions; numbers become `int32` where they fit.
    pub(crate) fn shape(&self, operand: &Operand, name: &str) -> Result<Tensor> {
        let exact = match operand.graph() {
            None => operand.to_value(Some(DType::Int32)).ok().flatten(),
            Some(_) => None,
        };
        match exact {
            Some(value) => self.constant(value, name),
            None => self.tensor(operand, None, name),
        }
    }
}
