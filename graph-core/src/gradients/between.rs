//! The operations that lie between the `xs` and the `ys`.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;

use super::{Gradients, is_differentiable};
use crate::error::{Error, Result};
use crate::graph::{Graph, GraphData, NodeId, Operation, Tensor};
use crate::op::ControlFlow;

/// The operations between, in the order in which they are met from the `ys`.
pub(super) struct Between {
    pub(super) order: Vec<NodeId>,
    found: FxHashSet<NodeId>,
}

impl Between {
    /// # Errors
    /// `Unimplemented` where the `ys` depend on the `xs` through what a loop kept for its gradients.
    pub(super) fn new(graph: &Graph, request: &Gradients) -> Result<Self> {
        let (between, reached) = graph.read(|data| {
            let reached = reached_from(data, request.xs.iter().map(Tensor::node_id));
            let mut between = Self {
                order: Vec::new(),
                found: FxHashSet::default(),
            };
            let mut queue: VecDeque<NodeId> = request.ys.iter().map(Tensor::node_id).collect();
            while let Some(id) = queue.pop_front() {
                if reached.contains(&id) && between.add(id) {
                    queue.extend(data.node(id).inputs.iter().map(|input| input.node));
                }
            }
            (between, reached)
        });
        refuse_kept_values(graph, request, &reached)?;
        Ok(between)
    }

    pub(super) fn holds(&self, id: NodeId) -> bool {
        self.found.contains(&id)
    }

    /// Adds an operation; whether it was not there yet.
    pub(super) fn add(&mut self, id: NodeId) -> bool {
        let new = self.found.insert(id);
        if new {
            self.order.push(id);
        }
        new
    }
}

/// Forward from the `xs`, through everything that carries a gradient.
fn reached_from(data: &GraphData, xs: impl Iterator<Item = NodeId>) -> FxHashSet<NodeId> {
    let mut reached: FxHashSet<NodeId> = FxHashSet::default();
    let mut queue: Vec<NodeId> = xs.collect();
    while let Some(id) = queue.pop() {
        if !reached.insert(id) {
            continue;
        }
        for successor in data.successors(id) {
            let carries =
                data.node(successor).inputs.iter().any(|input| {
                    input.node == id && is_differentiable(data.node(id).outputs[input.slot as usize].dtype)
                });
            if carries && !reached.contains(&successor) {
                queue.push(successor);
            }
        }
    }
    reached
}

/// The gradients of a loop depend on what its iterations put onto stacks, and no edge of the graph says so: where the `ys`
/// come out of a loop that computes gradients, and the `xs` reach the loop whose gradients these are, something would be
/// missing.
fn refuse_kept_values(graph: &Graph, request: &Gradients, reached: &FxHashSet<NodeId>) -> Result<()> {
    // The loops around an operation, inner ones first.
    let loops_of = |id: NodeId| {
        let first = graph.read(|data| data.contexts.get(&id).cloned());
        std::iter::successors(first, |context| context.outer())
    };
    let reached_loops: FxHashSet<*const ()> = reached
        .iter()
        .flat_map(|&id| loops_of(id))
        .filter(|context| context.branch().is_none())
        .map(|context| std::sync::Arc::as_ptr(&context).cast())
        .collect();
    if reached_loops.is_empty() {
        return Ok(());
    }
    let mut seen: FxHashSet<NodeId> = FxHashSet::default();
    let mut queue: Vec<NodeId> = request.ys.iter().map(Tensor::node_id).collect();
    while let Some(id) = queue.pop() {
        if !seen.insert(id) {
            continue;
        }
        let is_exit = graph.read(|data| {
            queue.extend(data.node(id).inputs.iter().map(|input| input.node));
            data.node(id).definition.control_flow == ControlFlow::Exit
        });
        if !is_exit {
            continue;
        }
        let of = loops_of(id).next().and_then(|context| context.gradient_of());
        if of.is_some_and(|of| reached_loops.contains(&std::sync::Arc::as_ptr(&of).cast())) {
            return Err(second_derivative(&Operation::new(graph, id)));
        }
    }
    Ok(())
}

/// The error for derivatives of what a loop of gradients computes.
pub(super) fn second_derivative(exit: &Operation) -> Error {
    Error::unimplemented("the gradients of a while loop have no gradients, as in TensorFlow")
        .at(exit.site())
        .hint("unroll the loop, or put a `stop_gradient` behind the gradients that are to count as constants")
}
