//! All loops that one computation of gradients passes.

use std::sync::Arc;

use graph_core::gradients::LoopGradients;
use graph_core::graph::builder::constant_in;
use graph_core::graph::scope::{self, ControlFlowContext};
use graph_core::graph::{OpBuilder, Operation, Tensor};
use graph_core::op::ControlFlow;
use graph_core::{Error, Graph, Result, Value};

use super::context::{Context, WhileContext, while_around};
use super::gradient::{LoopGradient, is_loop_switch, shape_node};
use crate::array::zeros;
use crate::control::context::{CondContext, as_branch, switch_beside};

/// The loops, in the order in which they were taken up.
#[derive(Default)]
pub(super) struct Walk {
    graph: Option<Graph>,
    loops: Vec<Arc<LoopGradient>>,
}

impl Walk {
    fn number_of(&self, forward: Option<&Arc<WhileContext>>) -> Option<usize> {
        self.loops.iter().position(|gradient| gradient.forward.is(forward))
    }

    fn tensors(&self, ids: Vec<graph_core::graph::TensorId>) -> Vec<Tensor> {
        let Some(graph) = &self.graph else { return Vec::new() };
        ids.into_iter().filter_map(|id| graph.tensor_at(id).ok()).collect()
    }

    /// The zeros of a Switch that brings a value into a branch inside a loop, alive where the branch is not taken.
    fn zeros_of_branch(
        &self,
        gradient: &LoopGradient,
        switch: &Operation,
        branch: &Arc<CondContext>,
    ) -> Result<Tensor> {
        let graph = switch.graph();
        let output = switch.output(0);
        let other = usize::from(!branch.taken());
        if let Some(shape) = output.shape().to_shape() {
            let zeros = constant_in(graph, Value::zeros(output.dtype(), shape)?, "Const")?;
            let predicate = gradient.kept_predicate(&graph.tensor_at(branch.predicate())?)?;
            return Ok(switch_beside(&zeros, &predicate, "Switch")?.output(other));
        }
        let shape = {
            let _around = scope::control_flow_context(graph, branch.outer());
            let predicate = graph.tensor_at(branch.predicate())?;
            let value = switch_beside(&switch.input(0), &predicate, "Switch")?.output(other);
            let shape = shape_node(&value)?;
            graph.set_control_flow_context(&value.op(), branch.clone());
            graph.set_control_flow_context(&shape.op(), branch.clone());
            shape
        };
        let history = {
            let _called_in = gradient.leave(graph);
            gradient.keep(&shape, true)?
        };
        let shape = gradient.take_back(&history, &shape, true)?;
        zeros(shape).dtype(output.dtype()).build()
    }
}

impl LoopGradients for Walk {
    fn take_up(&mut self, exit: &Operation) -> Result<usize> {
        let forward = while_around(exit.control_flow_context());
        if let Some(number) = self.number_of(forward.as_ref()) {
            return Ok(number);
        }
        let forward = forward.ok_or_else(|| Error::internal("the Exit is of no loop").at(exit.site()))?;
        let outer = self.number_of(while_around(forward.outer()).as_ref());
        let outer = outer.map(|number| self.loops[number].clone());
        let gradient = LoopGradient::new(exit.graph(), forward, outer)?;
        self.graph = Some(exit.graph().clone());
        self.loops.push(gradient);
        Ok(self.loops.len() - 1)
    }

    fn exits(&self, number: usize) -> Vec<Tensor> {
        self.tensors(self.loops[number].exits.clone())
    }

    fn enters(&self, number: usize) -> Vec<Tensor> {
        self.tensors(self.loops[number].forward.enters())
    }

    fn loop_of(&self, operation: &Operation, outside: bool) -> Option<usize> {
        let context = operation.control_flow_context();
        let context = if outside && operation.definition().control_flow == ControlFlow::Exit {
            context.and_then(|context| context.outer())
        } else {
            context
        };
        self.number_of(while_around(context).as_ref())
    }

    fn context(&self, number: usize) -> Context {
        self.loops[number].context.clone()
    }

    fn zeros_for_exit(&self, exit: &Tensor) -> Result<Tensor> {
        let graph = exit.graph();
        let context = exit.op().control_flow_context();
        let around = context.and_then(|context| context.outer());
        let outer = self.number_of(while_around(around.clone()).as_ref());
        let known = exit.shape().to_shape();
        let known = known.map(|shape| Value::from(shape.iter().map(|&dim| dim as i64).collect::<Vec<_>>()));
        let outer = outer.map(|number| &self.loops[number]);
        match (outer, known) {
            (None, Some(shape)) => zeros(shape).in_graph(graph).dtype(exit.dtype()).build(),
            (None, None) => OpBuilder::new("ZerosLike").input(exit).name("zeros_like").build(),
            (Some(outer), Some(shape)) => {
                let _inside = outer.context.enter(graph)?;
                zeros(shape).in_graph(graph).dtype(exit.dtype()).build()
            }
            (Some(outer), None) => {
                let shape = {
                    let _around = scope::control_flow_context(graph, around);
                    shape_node(exit)?
                };
                let history = outer.keep(&shape, false)?;
                let _inside = outer.context.enter(graph)?;
                let shape = outer.take_back(&history, &shape, false)?;
                zeros(shape).dtype(exit.dtype()).build()
            }
        }
    }

    fn zeros_like(&self, operation: &Operation, slot: usize) -> Result<Option<Tensor>> {
        if is_loop_switch(operation) {
            return Ok(None);
        }
        let Some(number) = self.loop_of(operation, false) else {
            return Err(Error::internal("the operation is in no loop").at(operation.site()));
        };
        let (gradient, output) = (&self.loops[number], operation.output(slot));
        let context = operation.control_flow_context();
        if operation.definition().control_flow == ControlFlow::Switch
            && let Some(branch) = context.as_ref().and_then(as_branch)
        {
            return self.zeros_of_branch(gradient, operation, &branch).map(Some);
        }
        let graph = operation.graph();
        if let Some(shape) = output.shape().to_shape() {
            return constant_in(graph, Value::zeros(output.dtype(), shape)?, "Const").map(Some);
        }
        let shape = {
            let _inside = scope::control_flow_context(graph, context);
            shape_node(&output)?
        };
        let history = {
            let _called_in = gradient.leave(graph);
            gradient.keep(&shape, false)?
        };
        let shape = gradient.take_back(&history, &shape, false)?;
        zeros(shape).dtype(output.dtype()).build().map(Some)
    }

    fn finish(&mut self) -> Result<()> {
        let Some(graph) = self.graph.clone() else { return Ok(()) };
        self.loops.iter().try_for_each(|gradient| gradient.finish(&graph))
    }
}
