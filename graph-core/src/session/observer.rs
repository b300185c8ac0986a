//! What a session tells of its runs to whoever wants to know.

use crate::error::{Error, Result};
use crate::graph::{Graph, Operation, Tensor};
use crate::session::structure::Request;
use crate::value::Value;

/// Is told of every run of a session, in their order; see
/// [`SessionOptions::observer`](crate::session::SessionOptions::observer).
pub trait RunObserver: Send + Sync {
    /// Takes note of a run that just ended, well or not. The session is locked meanwhile.
    ///
    /// # Errors
    /// Whatever keeps it from taking note. The run reports that error in the place of its own result; what it did to
    /// variables stays done.
    fn observe(&self, run: &ObservedRun<'_>) -> Result<()>;
}

/// A run as its session saw it.
///
/// A run is observed once its feeds and fetches are known to belong to the graph: from planning on. One that was refused
/// before (a feed of the wrong dtype, a fetch of another graph) is not.
pub struct ObservedRun<'a> {
    pub(super) graph: &'a Graph,
    pub(super) request: &'a Request,
    pub(super) feeds: &'a [Value],
    pub(super) result: Result<&'a [Value], &'a Error>,
}

impl<'a> ObservedRun<'a> {
    /// The session's graph.
    pub fn graph(&self) -> &'a Graph {
        self.graph
    }

    /// Tells states of the graph apart: it changes whenever operations are added or inputs rewired.
    pub fn graph_version(&self) -> (usize, u64) {
        (self.graph.num_operations(), self.graph.read(|data| data.rewirings()))
    }

    /// The tensors that were fed, and their values.
    pub fn feeds(&self) -> impl ExactSizeIterator<Item = (Tensor, &'a Value)> + '_ {
        let tensors = self.request.feeds.iter().map(|&id| Tensor::new(self.graph, id));
        tensors.zip(self.feeds)
    }

    /// The tensors that were fetched.
    pub fn fetches(&self) -> impl ExactSizeIterator<Item = Tensor> + '_ {
        self.request.fetches.iter().map(|&id| Tensor::new(self.graph, id))
    }

    /// The operations that were run for their effects.
    pub fn targets(&self) -> impl ExactSizeIterator<Item = Operation> + '_ {
        self.request.targets.iter().map(|&id| Operation::new(self.graph, id))
    }

    /// The values of the fetched tensors, in their order, or why there are none.
    pub fn result(&self) -> Result<&'a [Value], &'a Error> {
        self.result
    }
}
