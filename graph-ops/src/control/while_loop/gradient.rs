//! A loop of gradients beside its loop: it runs as often, backwards, and takes from stacks what the iterations put there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graph_core::graph::builder::constant_in;
use graph_core::graph::scope::{self, ControlFlowContext, ScopeGuard};
use graph_core::graph::{Graph, NodeId, OpBuilder, Operation, Tensor, TensorId};
use graph_core::op::ControlFlow;
use graph_core::{DType, Error, Result, Value};

use super::context::{
    Context, WhileContext, carry_on, is_constant_enter, merge_of, output_context, same, while_around,
};
use crate::array::zeros;
use crate::control::context::{CondContext, as_branch, switch_beside};

/// A loop, its loop of gradients, and what the two share.
pub(in crate::control) struct LoopGradient {
    pub(super) forward: Arc<WhileContext>,
    /// The loop of gradients.
    pub(super) context: Arc<WhileContext>,
    /// The same of the loop around.
    pub(super) outer: Option<Arc<LoopGradient>>,
    /// Where gradients were asked for.
    called_in: Option<Context>,
    /// What leaves the forward loop, without what counts its iterations.
    pub(super) exits: Vec<TensorId>,
    /// The NextIteration of the forward loop's counter, before which all pushes are.
    forward_index: NodeId,
    /// The NextIteration of the counter of the loop of gradients, before which all pops are.
    index: NodeId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Values of the forward loop, and what stands for them in the loop of gradients.
    history: HashMap<TensorId, TensorId>,
    /// The Switches of the forward loop that were met once, and the Merges of their gradients.
    merges: Vec<(NodeId, TensorId)>,
    forward_sync: Option<NodeId>,
    sync: Option<NodeId>,
}

impl LoopGradient {
    /// Counts the iterations of a loop, and begins one that runs as often.
    pub(super) fn new(graph: &Graph, forward: Arc<WhileContext>, outer: Option<Arc<Self>>) -> Result<Arc<Self>> {
        let called_in = scope::current_control_flow_context(graph);
        let exits = forward.exits();
        let around: Option<Context> = match &outer {
            Some(outer) => Some(outer.forward.clone()),
            None => forward.outer(),
        };
        let enter_around = || {
            around
                .clone()
                .map(|around| scope::control_flow_context(graph, Some(around)))
        };
        let (count, forward_index) = {
            let _around = enter_around();
            count_up(graph, &forward, outer.as_deref())?
        };
        let begin = || WhileContext::new(graph, &forward.name, forward.options.clone(), Some(forward.clone()));
        let (context, index) = match &outer {
            Some(outer) => {
                // The inner loop runs another number of times in each iteration of the outer one.
                outer.forward.know(&count);
                let history = outer.keep(&count, false)?;
                let _inside = outer.context.enter(graph)?;
                let context = begin();
                let count = outer.take_back(&history, &count, false)?;
                let index = count_down(graph, &context, &count, Some(outer))?;
                (context, index)
            }
            None => {
                let _around = enter_around();
                let context = begin();
                let index = count_down(graph, &context, &count, None)?;
                (context, index)
            }
        };
        let gradient = Arc::new(Self {
            forward,
            context,
            outer,
            called_in,
            exits,
            forward_index: forward_index.node_id(),
            index: index.node_id(),
            state: Mutex::default(),
        });
        gradient.context.set_gradient(&gradient);
        Ok(gradient)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `operation` is in the forward loop.
    pub(in crate::control) fn is_of(&self, operation: &Operation) -> bool {
        self.forward.is(while_around(operation.control_flow_context()).as_ref())
    }

    /// What decides whether the loop of gradients goes on.
    pub(in crate::control) fn decision(&self, graph: &Graph) -> Result<Tensor> {
        self.context.decision(graph)
    }

    /// What the loop of gradients begins with for `exit`; nothing where no gradients are to flow.
    pub(in crate::control) fn begin_with(&self, exit: &Operation, gradient: &Tensor) -> Result<Option<Tensor>> {
        if !self.context.options.back_prop {
            return Ok(None);
        }
        self.context.know(gradient);
        let _inside = self.context.enter(exit.graph())?;
        let enter = self.context.enter_node(gradient, false, "b_exit")?;
        // The shape may change from one iteration to the next even if that of the last one is known.
        enter.set_shape(exit.input(0).shape())?;
        Ok(Some(enter))
    }

    /// Leaves the loop of gradients while the guard lives.
    pub(super) fn leave(&self, graph: &Graph) -> ScopeGuard {
        scope::control_flow_context(graph, self.called_in.clone())
    }

    /// Puts what is made while the guard lives beside the loop of gradients.
    fn enter_around(&self, graph: &Graph) -> ScopeGuard {
        let around = self.context.outer().or_else(|| self.called_in.clone());
        scope::control_flow_context(graph, around)
    }

    /// What comes between the pushes that lie in branches and the counter.
    fn forward_sync(&self, graph: &Graph) -> Result<Operation> {
        let made = self.state().forward_sync;
        if let Some(id) = made {
            return graph.operation_at(id);
        }
        let sync = trigger(graph, "f_sync", &self.forward)?;
        graph.add_control_input(&graph.operation_at(self.forward_index)?, &sync)?;
        self.state().forward_sync = Some(sync.id());
        Ok(sync)
    }

    /// What comes between the pops and the counter.
    fn sync(&self, graph: &Graph) -> Result<Operation> {
        let made = self.state().sync;
        if let Some(id) = made {
            return graph.operation_at(id);
        }
        let sync = trigger(graph, "b_sync", &self.context)?;
        graph.add_control_input(&graph.operation_at(self.index)?, &sync)?;
        if let Some(outer) = self.context.outer() {
            outer.add_inner_op(&sync)?;
        }
        self.state().sync = Some(sync.id());
        Ok(sync)
    }

    /// Lets each iteration of the forward loop put `value` onto a stack, which is what is given. With `dead_branch` the
    /// value is there where the branch that it was made in is not taken.
    pub(super) fn keep(&self, value: &Tensor, dead_branch: bool) -> Result<Tensor> {
        let graph = value.graph();
        let _outside = scope::clear_control_dependencies(graph);
        let stack = {
            let _called_in = self.leave(graph);
            let _beside = scope::colocate_with(&value.op());
            let most = constant_in(graph, Value::scalar(-1i32), "Const")?;
            let stack = OpBuilder::new("StackV2").input(most).attr("elem_type", value.dtype());
            stack.name("f_acc").build()?
        };
        let handle = self.forward.add_value(&stack)?;
        let push = || {
            let push = OpBuilder::new("StackPushV2").input(&handle).input(value);
            push.attr("swap_memory", self.forward.options.swap_memory).build()
        };
        let of = output_context(&value.op());
        let forward: Context = self.forward.clone();
        let push = if same(of.as_ref(), Some(&forward)) {
            let push = {
                let _inside = self.forward.enter(graph)?;
                push()?
            };
            graph.add_control_input(&graph.operation_at(self.forward_index)?, &push.op())?;
            push
        } else {
            let of = of.ok_or_else(|| Error::internal("the value is in no loop").at(value.op().site()))?;
            let push = if dead_branch {
                let push = {
                    let _around = scope::control_flow_context(graph, of.outer());
                    push()?
                };
                graph.set_control_flow_context(&push.op(), of);
                push
            } else {
                let _inside = scope::control_flow_context(graph, Some(of));
                push()?
            };
            graph.add_control_input(&self.forward_sync(graph)?, &push.op())?;
            push
        };
        graph.add_control_input(&push.op(), &self.forward_count(graph)?)?;
        Ok(stack)
    }

    /// The sum that counts the iterations of the forward loop.
    pub(super) fn forward_count(&self, graph: &Graph) -> Result<Operation> {
        Ok(graph.operation_at(self.forward_index)?.input(0).op())
    }

    /// What the iterations put onto the stack `history` in the place of `value`, the last one first.
    pub(super) fn take_back(&self, history: &Tensor, value: &Tensor, dead_branch: bool) -> Result<Tensor> {
        let graph = value.graph();
        let guard = self.branch_between(history, value);
        let pop = {
            let _outside = scope::clear_control_dependencies(graph);
            let _inside = self.context.enter(graph)?;
            let mut history = history.clone();
            if let Some(guard) = guard {
                let predicate = self.predicate(graph, &guard)?;
                let slot = usize::from(guard.taken() != dead_branch);
                history = switch_beside(&history, &predicate, "Switch")?.output(slot);
            }
            let pop = OpBuilder::new("StackPopV2").input(history);
            let pop = pop.attr("elem_type", value.dtype()).build()?;
            pop.set_shape(value.shape())?;
            pop
        };
        if self.context.options.parallel_iterations > 1 {
            graph.add_control_input(&self.sync(graph)?, &pop.op())?;
        }
        Ok(pop)
    }

    /// The branch that `value` is in and the stack is not.
    fn branch_between(&self, history: &Tensor, value: &Tensor) -> Option<Arc<CondContext>> {
        let until = history.op().control_flow_context();
        std::iter::successors(value.op().control_flow_context(), |context| context.outer())
            .take_while(|context| !same(Some(context), until.as_ref()))
            .find_map(|context| as_branch(&context))
    }

    /// The condition of a branch as the loop of gradients knows it.
    fn predicate(&self, graph: &Graph, branch: &CondContext) -> Result<Tensor> {
        let mut known = self.known(branch.predicate());
        let mut around = self.outer.clone();
        while let (None, Some(outer)) = (known, &around) {
            known = outer.known(branch.predicate());
            around = outer.outer.clone();
        }
        graph.tensor_at(known.unwrap_or(branch.predicate()))
    }

    fn known(&self, value: TensorId) -> Option<TensorId> {
        self.state().history.get(&value).copied()
    }

    /// What the condition of a branch of the forward loop was in each iteration.
    pub(in crate::control) fn kept_predicate(&self, predicate: &Tensor) -> Result<Tensor> {
        let graph = predicate.graph();
        if let Some(known) = self.known(predicate.id()) {
            return graph.tensor_at(known);
        }
        let history = {
            let _called_in = self.leave(graph);
            self.keep(predicate, false)?
        };
        let kept = self.take_back(&history, predicate, false)?;
        self.state().history.insert(predicate.id(), kept.id());
        Ok(kept)
    }

    /// What stands in the loop of gradients for a value of the forward loop: what came in from outside comes in again,
    /// constants are repeated, and all else is kept on a stack.
    pub(super) fn real_value(&self, value: &Tensor) -> Result<Tensor> {
        let graph = value.graph();
        if let Some(known) = self.known(value.id()) {
            return graph.tensor_at(known);
        }
        let mut current = value.clone();
        let mut of: &LoopGradient = self;
        let real = loop {
            if let Some(enter) = constant_enter(&current) {
                current = enter.input(0);
                match &of.outer {
                    Some(outer) => of = outer,
                    None => break self.context.add_value(&current)?,
                }
                continue;
            }
            if current.op().op_type() == "Const"
                && let Some(constant) = current.constant_value()
            {
                break constant_in(graph, constant, "Const")?;
            }
            let history = {
                let _called_in = self.leave(graph);
                of.keep(&current, false)?
            };
            let taken = of.take_back(&history, &current, false)?;
            break if std::ptr::eq(of, self) {
                taken
            } else {
                self.context.add_value(&taken)?
            };
        };
        self.state().history.insert(value.id(), real.id());
        Ok(real)
    }

    /// The sum over all iterations of the gradient of `enter`, which brings a constant into the loop.
    pub(in crate::control) fn accumulate(&self, enter: &Operation, gradient: &Tensor) -> Result<Tensor> {
        let graph = gradient.graph();
        let start = self.zeros_beside(&gradient.shape(), gradient.dtype(), &enter.input(0))?;
        let _inside = self.context.enter(graph)?;
        self.context.know(&start);
        let entered = self.context.enter_variable(&start, "b_acc")?;
        let merged = merge_of(&entered, "b_acc")?;
        let decision = self.context.decision(graph)?;
        let ways = OpBuilder::new("Switch").input(&merged).input(decision).build_all()?;
        let sum = OpBuilder::new("Add").input(&ways[1]).input(gradient).build()?;
        carry_on(&merged, sum)?;
        OpBuilder::new("Exit").input(&ways[0]).name("b_acc").build()
    }

    /// Zeros beside the loop of gradients, of a shape that is known or that `like`, a value around the forward loop, has.
    fn zeros_beside(&self, shape: &graph_core::PartialShape, dtype: DType, like: &Tensor) -> Result<Tensor> {
        let graph = like.graph();
        if let Some(shape) = shape.to_shape() {
            let _around = self.enter_around(graph);
            return constant_in(graph, Value::zeros(dtype, shape)?, "b_acc");
        }
        let Some(outer) = &self.outer else {
            let _around = self.enter_around(graph);
            let shape = shape_node(like)?;
            return zeros(shape).dtype(dtype).build();
        };
        let shape = {
            let _around = scope::control_flow_context(graph, self.forward.outer());
            shape_node(like)?
        };
        let history = {
            let _called_in = self.leave(graph);
            outer.keep(&shape, false)?
        };
        let _around = self.enter_around(graph);
        let shape = outer.take_back(&history, &shape, false)?;
        zeros(shape).dtype(dtype).build()
    }

    /// The Merge of the gradients of a Switch that was met before.
    pub(in crate::control) fn merge_for(&self, switch: &Operation) -> Result<Option<Tensor>> {
        let state = self.state();
        let found = state
            .merges
            .iter()
            .find(|(id, _)| *id == switch.id())
            .map(|(_, merge)| *merge);
        drop(state);
        found.map(|merge| switch.graph().tensor_at(merge)).transpose()
    }

    /// Begins the Merge of the gradients of a Switch, with that of what leaves the loop.
    pub(in crate::control) fn begin_merge(&self, switch: &Operation, gradient: &Tensor) -> Result<Tensor> {
        let merge = merge_of(gradient, "b_switch")?;
        self.state().merges.push((switch.id(), merge.id()));
        Ok(merge)
    }

    /// Ends the Merges: where a variable does not depend on what it was before, zeros are carried on.
    pub(super) fn finish(&self, graph: &Graph) -> Result<()> {
        let merges = self.state().merges.clone();
        for (_, merge) in merges {
            let merge = graph.tensor_at(merge)?;
            let inputs = merge.op().inputs();
            if inputs[0] != inputs[1] {
                continue;
            }
            let entered = inputs[0].op();
            let zeros = match inputs[0].shape().to_shape() {
                Some(shape) => {
                    let _inside = self.context.enter(graph)?;
                    constant_in(graph, Value::zeros(merge.dtype(), shape)?, "Const")?
                }
                None => {
                    let _around = self.enter_around(graph);
                    zeros(shape_node(&entered.input(0))?).dtype(merge.dtype()).build()?
                }
            };
            let _inside = self.context.enter(graph)?;
            carry_on(&merge, zeros)?;
        }
        Ok(())
    }
}

/// The shape of a tensor, or of the variable that a handle names, as an op, whether or not it is known.
pub(super) fn shape_node(tensor: &Tensor) -> Result<Tensor> {
    let op = match tensor.dtype() {
        DType::Resource => "VariableShape",
        _ => "Shape",
    };
    OpBuilder::new(op).input(tensor).build()
}

/// The constant Enter that a value of a loop comes from unchanged, if it comes from one.
fn constant_enter(value: &Tensor) -> Option<Operation> {
    let mut value = value.clone();
    loop {
        let operation = value.op();
        match operation.op_type() {
            "Identity" | "RefIdentity" | "Switch" | "RefSwitch" => value = operation.input(0),
            _ => return is_constant_enter(&value).then_some(operation),
        }
    }
}

/// A place where control dependencies meet, alive even where they are dead.
fn trigger(graph: &Graph, name: &str, context: &Arc<WhileContext>) -> Result<Operation> {
    let _outside = scope::clear_control_dependencies(graph);
    let trigger = OpBuilder::new("ControlTrigger")
        .in_graph(graph)
        .name(name)
        .build_operation()?;
    graph.set_control_flow_context(&trigger, context.clone());
    Ok(trigger)
}

/// Counts the iterations of a loop: their number, and the NextIteration of the counter.
fn count_up(graph: &Graph, forward: &WhileContext, outer: Option<&LoopGradient>) -> Result<(Tensor, Tensor)> {
    let zero = constant_in(graph, Value::scalar(0i32), "f_count")?;
    if let Some(outer) = outer {
        // What the inner loop pushes in one iteration of the outer one comes before what it pushes in the next.
        graph.add_control_input(&zero.op(), &outer.forward_count(graph)?)?;
    }
    let _inside = forward.enter(graph)?;
    forward.know(&zero);
    let entered = forward.enter_variable(&zero, "f_count")?;
    forward.add_enter(&entered);
    let merged = merge_of(&entered, "Merge")?;
    let decision = forward.decision(graph)?;
    let ways = OpBuilder::new("Switch").input(&merged).input(decision).build_all()?;
    let count = OpBuilder::new("Add").input(&ways[1]).input(1i32).build()?;
    let index = carry_on(&merged, count)?;
    let total = OpBuilder::new("Exit").input(&ways[0]).name("f_count").build()?;
    forward.add_exit(&total);
    Ok((total, index))
}

/// Lets a loop of gradients run `count` times: the NextIteration of its counter.
fn count_down(
    graph: &Graph,
    context: &WhileContext,
    count: &Tensor,
    outer: Option<&Arc<LoopGradient>>,
) -> Result<Tensor> {
    let one = constant_in(graph, Value::scalar(1i32), "b_count")?;
    let final_zero;
    let index = {
        let _inside = context.enter(graph)?;
        context.know(count);
        let entered = context.enter_variable(count, "b_count")?;
        let merged = merge_of(&entered, "Merge")?;
        context.set_condition_pivot(&merged);
        let goes_on = OpBuilder::new("GreaterEqual").input(&merged).input(&one).build()?;
        let decision = OpBuilder::new("LoopCond").input(goes_on).name("b_count").build()?;
        context.set_decision(&decision);
        let ways = OpBuilder::new("Switch").input(&merged).input(decision).build_all()?;
        let less = OpBuilder::new("Sub").input(&ways[1]).input(&one).build()?;
        context.set_body_pivot(&less);
        let index = carry_on(&merged, less)?;
        final_zero = OpBuilder::new("Exit").input(&ways[0]).name("b_count").build()?;
        index
    };
    if let Some(outer) = outer {
        // What the inner loop pops in one iteration of the outer one comes before what it pops in the next.
        graph.add_control_input(&outer.sync(graph)?, &final_zero.op())?;
    }
    Ok(index)
}

/// Whether an operation is a Switch that decides if a loop goes on.
pub(in crate::control) fn is_loop_switch(operation: &Operation) -> bool {
    operation.definition().control_flow == ControlFlow::Switch
        && operation.input(1).op().definition().control_flow == ControlFlow::LoopCond
}
