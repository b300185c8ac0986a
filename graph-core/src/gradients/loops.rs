//! The walk backwards through while loops: it begins when the gradients of all ends of a loop are known, and comes by each
//! Switch twice, from the Exit and from the iterations before.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::between::second_derivative;
use super::{Backward, is_differentiable};
use crate::error::{Error, Result};
use crate::graph::scope::{self, ControlFlowContext, ScopeGuard};
use crate::graph::{Graph, NodeId, OpBuilder, Operation, Tensor};
use crate::op::{ControlFlow, vocabulary};

/// What the loops of one call of [`gradients`](super::gradients) need: the context of a loop makes it
/// ([`ControlFlowContext::loop_gradients`]), and the walk asks it. Loops are numbered in the order in which they are taken up.
pub trait LoopGradients {
    /// The number of the loop that `exit` leaves. One that is new gets a loop of gradients, which runs as often as it does.
    ///
    /// # Errors
    /// Those of making nodes.
    fn take_up(&mut self, exit: &Operation) -> Result<usize>;
    /// What the loop ends with.
    fn exits(&self, number: usize) -> Vec<Tensor>;
    /// What the loop's variables begin with, inside it.
    fn enters(&self, number: usize) -> Vec<Tensor>;
    /// The loop in which `operation` is, if it is taken up; for an Exit with `outside` the loop that it leads to.
    fn loop_of(&self, operation: &Operation, outside: bool) -> Option<usize>;
    /// The loop of gradients.
    fn context(&self, number: usize) -> Arc<dyn ControlFlowContext>;
    /// The gradient of an end of a loop that nothing depends on.
    ///
    /// # Errors
    /// Those of making nodes.
    fn zeros_for_exit(&self, exit: &Tensor) -> Result<Tensor>;
    /// The gradient of an output that nothing depends on, of an operation in one of the loops; `None` where there is to be
    /// none.
    ///
    /// # Errors
    /// Those of making nodes.
    fn zeros_like(&self, operation: &Operation, slot: usize) -> Result<Option<Tensor>>;
    /// Ends the loops of gradients, when all gradients are known.
    ///
    /// # Errors
    /// Those of making nodes.
    fn finish(&mut self) -> Result<()>;
}

/// How far the walk is with the ends of a loop.
struct Ends {
    /// How many of them are still waited for.
    pending: usize,
    /// Those whose consumers have all been walked through.
    deferred: Vec<Tensor>,
    /// Those that have no gradient.
    unused: Vec<Tensor>,
}

/// The loops that gradients pass.
#[derive(Default)]
pub(super) struct Loops {
    gradients: Option<Box<dyn LoopGradients>>,
    ends: Vec<Ends>,
}

impl Loops {
    /// Puts what is made while the guard lives into the loop of gradients that `operation` belongs to, if any.
    pub(super) fn enter(&self, graph: &Graph, operation: &Operation, outside: bool) -> Option<ScopeGuard> {
        let gradients = self.gradients.as_ref()?;
        let number = gradients.loop_of(operation, outside && is_exit(operation))?;
        Some(scope::control_flow_context(graph, Some(gradients.context(number))))
    }

    /// Whether `operation` is the end of one of the loops.
    pub(super) fn is_exit(&self, operation: &Operation) -> bool {
        self.gradients.is_some() && is_exit(operation)
    }

    /// Whether `operation` decides if one of the loops goes on.
    pub(super) fn is_switch(&self, operation: &Operation) -> bool {
        self.gradients.is_some()
            && operation.definition().control_flow == ControlFlow::Switch
            && operation.input(1).op().definition().control_flow == ControlFlow::LoopCond
    }

    /// The gradient of an output that nothing depends on.
    pub(super) fn zeros_like(&self, operation: &Operation, slot: usize) -> Result<Option<Tensor>> {
        if let Some(gradients) = &self.gradients
            && gradients.loop_of(operation, false).is_some()
        {
            return gradients.zeros_like(operation, slot);
        }
        if operation.definition().control_flow == ControlFlow::Switch
            && let Some(branch) = operation.control_flow_context()
            && let Some(zeros) = branch.zeros_of_switch(operation)?
        {
            return Ok(Some(zeros));
        }
        // TensorFlow names these after the op alone, in the scope of all gradients.
        let zeros = OpBuilder::new(vocabulary::ZEROS_LIKE).input(operation.output(slot));
        zeros.name("zeros_like").build().map(Some)
    }

    pub(super) fn finish(&mut self) -> Result<()> {
        self.gradients.as_mut().map_or(Ok(()), |gradients| gradients.finish())
    }

    fn known(&self) -> Result<&dyn LoopGradients> {
        let known = self.gradients.as_deref();
        known.ok_or_else(|| Error::internal("there is no loop to build gradients of"))
    }
}

fn is_exit(operation: &Operation) -> bool {
    operation.definition().control_flow == ControlFlow::Exit
}

fn of_unknown_loop(exit: &Operation) -> Error {
    Error::unimplemented("nothing says which operations are in this while loop, as in a graph that was imported")
        .at(exit.site())
        .hint("build the loop with `while_loop`, or import the graph with its gradients")
}

impl Backward<'_> {
    /// Takes up all loops that gradients pass; all their ends are waited for, whether or not the `ys` depend on them.
    pub(super) fn take_up_loops(&mut self) -> Result<()> {
        let mut next = 0;
        while let Some(&id) = self.between.order.get(next) {
            next += 1;
            let operation = Operation::new(self.graph, id);
            if !is_exit(&operation) {
                continue;
            }
            let context = operation.control_flow_context();
            if context.as_ref().is_some_and(|context| context.gradient_of().is_some()) {
                return Err(second_derivative(&operation));
            }
            let Some(context) = context else {
                return Err(of_unknown_loop(&operation));
            };
            let _colocated = self.colocate_with(&operation);
            if self.loops.gradients.is_none() {
                self.loops.gradients = context.loop_gradients();
            }
            let Some(gradients) = &mut self.loops.gradients else {
                return Err(of_unknown_loop(&operation));
            };
            let number = gradients.take_up(&operation)?;
            if number == self.loops.ends.len() {
                let exits = gradients.exits(number);
                self.loops.ends.push(Ends {
                    pending: exits.len(),
                    deferred: Vec::new(),
                    unused: Vec::new(),
                });
                exits.iter().for_each(|exit| {
                    self.between.add(exit.node_id());
                });
            }
        }
        Ok(())
    }

    /// Begins with zeros at the ends of loops that nothing depends on, where none of the other ends is still waited for.
    pub(super) fn begin_at_unused_exits(&mut self, queued: &FxHashSet<NodeId>) -> Result<()> {
        let Some(gradients) = &self.loops.gradients else {
            return Ok(());
        };
        for (number, ends) in self.loops.ends.iter_mut().enumerate() {
            let mut begins = Vec::new();
            for exit in gradients.exits(number) {
                let id = exit.node_id();
                if self.pending.get(&id).is_some_and(|&count| count > 0) {
                    continue;
                }
                ends.pending -= 1;
                if !queued.contains(&id) {
                    ends.unused.push(exit);
                }
                if ends.pending == 0 {
                    begins.clone_from(&ends.unused);
                }
            }
            for exit in begins.iter().filter(|exit| is_differentiable(exit.dtype())) {
                let zeros = gradients.zeros_for_exit(exit)?;
                self.contributions.entry(exit.id()).or_default().push(zeros);
                self.queue.push_back(exit.node_id());
            }
            // A variable's gradient leaves the loop even where the xs do not reach its first value.
            for enter in gradients.enters(number) {
                let count = self.pending.entry(enter.node_id()).or_default();
                *count = (*count).max(1);
            }
        }
        Ok(())
    }

    /// Notes that the consumers of an end of a loop have been walked through; when that holds for all ends, the walk goes on
    /// at those that have a gradient, and with zeros at the others.
    pub(super) fn defer_exit(&mut self, exit: &Tensor) -> Result<()> {
        let gradients = self.loops.known()?;
        let Some(number) = gradients.loop_of(&exit.op(), false) else {
            return Err(Error::internal("the loop was not taken up").at(exit.op().site()));
        };
        let ends = &mut self.loops.ends[number];
        ends.deferred.push(exit.clone());
        ends.pending -= 1;
        if ends.pending > 0 {
            return Ok(());
        }
        let has_gradient = |exit: &Tensor| {
            self.contributions
                .get(&exit.id())
                .is_some_and(|found| !found.is_empty())
        };
        let (used, unused): (Vec<Tensor>, Vec<Tensor>) = ends.deferred.drain(..).partition(has_gradient);
        ends.unused.extend(unused);
        let unused = ends.unused.clone();
        self.queue.extend(used.iter().map(Tensor::node_id));
        for exit in &unused {
            if !used.is_empty() && is_differentiable(exit.dtype()) {
                let zeros = self.loops.known()?.zeros_for_exit(exit)?;
                self.contributions.entry(exit.id()).or_default().push(zeros);
            }
            self.queue.push_back(exit.node_id());
        }
        Ok(())
    }
}
