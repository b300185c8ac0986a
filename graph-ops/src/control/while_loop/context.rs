//! A loop while it is built: what is made inside runs once an iteration, and values from outside come in through Enters.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use graph_core::gradients::LoopGradients;
use graph_core::graph::scope::{self, ControlFlowContext, ScopeGuard};
use graph_core::graph::{Graph, IntoOperand, NodeId, OpBuilder, Operation, Tensor, TensorId};
use graph_core::op::ControlFlow;
use graph_core::{Error, Result};

use super::gradient::LoopGradient;
use super::walk::Walk;

/// A branch or a loop, of whichever kind.
pub(in crate::control) type Context = Arc<dyn ControlFlowContext>;

/// What a loop was told.
#[derive(Clone, Debug)]
pub(in crate::control) struct Options {
    pub(in crate::control) parallel_iterations: i64,
    pub(in crate::control) back_prop: bool,
    pub(in crate::control) swap_memory: bool,
}

/// A while loop. Keeps places in its graph, not handles, since the graph keeps it.
pub(in crate::control) struct WhileContext {
    /// The name of its frame.
    pub(in crate::control) name: String,
    pub(in crate::control) options: Options,
    outer: Option<Context>,
    /// Of a loop of gradients: the loop whose gradients these are.
    forward: Option<Arc<WhileContext>>,
    /// Of a loop of gradients, while it is built.
    gradient: OnceLock<Weak<LoopGradient>>,
    this: Weak<WhileContext>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Tensors that were made inside, here or deeper, or asked for already.
    known: HashSet<TensorId>,
    /// Tensors from outside, and what stands for them inside.
    external: HashMap<TensorId, TensorId>,
    /// What is alive in each iteration, for the condition and for the body.
    pivots: [Option<TensorId>; 2],
    /// The `LoopCond`.
    decision: Option<TensorId>,
    enters: Vec<TensorId>,
    exits: Vec<TensorId>,
}

impl WhileContext {
    /// A loop inside of what operations are made in now, in a frame named `name`, numbered if there is one already.
    pub(super) fn new(graph: &Graph, name: &str, options: Options, forward: Option<Arc<WhileContext>>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            name: graph.unique_name(name),
            options,
            outer: scope::current_control_flow_context(graph),
            forward,
            gradient: OnceLock::new(),
            this: this.clone(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Itself, as others hold it.
    ///
    /// # Errors
    /// `Internal` if nobody holds it.
    fn this(&self) -> Result<Arc<Self>> {
        self.this.upgrade().ok_or_else(|| Error::internal("the loop is gone"))
    }

    /// Puts what is made while the guard lives into the loop.
    pub(super) fn enter(&self, graph: &Graph) -> Result<ScopeGuard> {
        let this: Context = self.this()?;
        Ok(scope::control_flow_context(graph, Some(this)))
    }

    pub(super) fn set_gradient(&self, gradient: &Arc<LoopGradient>) {
        // A loop of gradients is made for one loop.
        let _ = self.gradient.set(Arc::downgrade(gradient));
    }

    /// What is known of the gradients that the loop computes, if it is one that does and they are not complete yet.
    pub(in crate::control) fn gradient(&self) -> Option<Arc<LoopGradient>> {
        self.gradient.get().and_then(Weak::upgrade)
    }

    pub(super) fn is(&self, other: Option<&Arc<WhileContext>>) -> bool {
        other.is_some_and(|other| std::ptr::eq(Arc::as_ptr(other), self))
    }

    /// Forgets all values, and knows these.
    pub(super) fn begin_with(&self, enters: &[Tensor]) {
        let mut state = self.state();
        state.known = enters.iter().map(Tensor::id).collect();
        state.external.clear();
    }

    /// Knows a value as its own.
    pub(super) fn know(&self, tensor: &Tensor) {
        self.state().known.insert(tensor.id());
    }

    pub(super) fn add_enter(&self, enter: &Tensor) {
        self.state().enters.push(enter.id());
    }

    pub(super) fn add_exit(&self, exit: &Tensor) {
        self.state().exits.push(exit.id());
    }

    pub(super) fn enters(&self) -> Vec<TensorId> {
        self.state().enters.clone()
    }

    pub(super) fn exits(&self) -> Vec<TensorId> {
        self.state().exits.clone()
    }

    /// What the condition waits for that needs no value of the loop.
    pub(super) fn set_condition_pivot(&self, pivot: &Tensor) {
        self.state().pivots[0] = Some(pivot.id());
    }

    /// What the body waits for that needs no value of the loop.
    pub(super) fn set_body_pivot(&self, pivot: &Tensor) {
        self.state().pivots[1] = Some(pivot.id());
    }

    pub(super) fn set_decision(&self, decision: &Tensor) {
        self.state().decision = Some(decision.id());
    }

    /// What decides whether the loop goes on.
    pub(in crate::control) fn decision(&self, graph: &Graph) -> Result<Tensor> {
        let decision = self.state().decision;
        graph.tensor_at(decision.ok_or_else(|| Error::internal("the loop has no condition yet"))?)
    }

    /// What is alive in each iteration.
    fn pivot(&self) -> Option<NodeId> {
        let [condition, body] = self.state().pivots;
        body.or(condition).map(|pivot| pivot.node)
    }

    /// A node that brings `tensor` into the loop's frame.
    pub(in crate::control) fn enter_node(&self, tensor: &Tensor, constant: bool, name: &str) -> Result<Tensor> {
        let op = if tensor.is_ref() { "RefEnter" } else { "Enter" };
        OpBuilder::new(op)
            .input(tensor)
            .attr("frame_name", self.name.as_str())
            .attr("is_constant", constant)
            .attr("parallel_iterations", self.options.parallel_iterations)
            .name(name)
            .build()
    }

    /// As [`WhileContext::enter_node`] for a variable of the loop, which keeps the shape it begins with.
    pub(in crate::control) fn enter_variable(&self, tensor: &Tensor, name: &str) -> Result<Tensor> {
        let enter = self.enter_node(tensor, false, name)?;
        enter.set_shape(tensor.shape())?;
        Ok(enter)
    }

    /// Puts Enters, made outside, into the loop: they wait for what is open around the loop.
    pub(super) fn adopt(&self, enters: &[Tensor]) -> Result<()> {
        for enter in enters {
            let operation = enter.op();
            let controls = scope::control_inputs_for(&operation.input(0));
            operation.graph().set_control_flow_context(&operation, self.this()?);
            for control in controls.iter().filter(|control| self.lies_around(control)) {
                operation.graph().add_control_input(&operation, control)?;
            }
            scope::stands_under_control_dependencies(&operation);
        }
        Ok(())
    }

    /// Whether an Enter of the loop may wait for `control`: it is around the loop, and not around the next loop.
    fn lies_around(&self, control: &Operation) -> bool {
        let of = output_context(control);
        let next = while_around(self.outer.clone());
        let mut around = self.outer.clone();
        while !same(around.as_ref(), of.as_ref()) {
            match around {
                Some(inner) if next.as_ref().is_none_or(|next| !is_loop(&inner, next)) => around = inner.outer(),
                _ => return false,
            }
        }
        true
    }

    /// The loop of gradients that operations are made in now, if it is one whose loop is that of `context`.
    fn computes_gradients_of(graph: &Graph, context: Option<Context>) -> Option<Arc<WhileContext>> {
        let current = while_around(scope::current_control_flow_context(graph))?;
        let forward = current.forward.clone()?;
        forward.is(while_around(context).as_ref()).then_some(current)
    }

    /// What stands in a loop of gradients for a tensor of the loop whose gradients it computes.
    fn kept(&self, tensor: &Tensor) -> Result<Option<Tensor>> {
        let context = output_context(&tensor.op());
        match Self::computes_gradients_of(tensor.graph(), context).and_then(|current| current.gradient()) {
            Some(gradient) => gradient.real_value(tensor).map(Some),
            None => Ok(None),
        }
    }

    /// See [`ControlFlowContext::add_op`]; the operation stays in this loop.
    fn take_in(&self, operation: &Operation) -> Result<()> {
        let graph = operation.graph();
        let inputs = operation.inputs();
        let mut scope = None;
        let external = if inputs.is_empty() {
            let external = drop_external_controls(operation, Some(self))?;
            if operation.control_inputs().is_empty() {
                self.wait_for_pivot(operation)?;
            }
            external
        } else {
            scope = Some(scope::name_scope_in(graph, &format!("{}/", operation.name()))?);
            for (index, input) in inputs.iter().enumerate() {
                let inside = self.add_value(input)?;
                if inside != *input {
                    graph.set_input(operation, index, &inside)?;
                }
            }
            let external = drop_external_controls(operation, Some(self))?;
            if operation.control_inputs().is_empty() && operation.inputs().iter().all(is_constant_enter) {
                self.wait_for_pivot(operation)?;
            }
            external
        };
        self.state().known.extend(operation.outputs().iter().map(Tensor::id));
        for control in external.iter().filter(|control| control.num_outputs() > 0) {
            let _outside = scope::clear_control_dependencies(graph);
            let _inside = self.enter(graph)?;
            let value = OpBuilder::new("Identity").input(control.output(0)).build()?;
            graph.add_control_input(operation, &value.op())?;
        }
        drop(scope);
        self.outer
            .as_ref()
            .map_or(Ok(()), |outer| outer.add_inner_op(operation))
    }

    /// What is alive in each iteration of the nearest loop around.
    pub(super) fn outer_pivot(&self) -> Option<NodeId> {
        let around = std::iter::successors(self.outer.clone(), |context| context.outer());
        around
            .filter_map(|context| as_loop(&context))
            .find_map(|context| context.pivot())
    }

    fn wait_for_pivot(&self, operation: &Operation) -> Result<()> {
        let Some(pivot) = self.pivot() else { return Ok(()) };
        let graph = operation.graph();
        graph.add_control_input(operation, &graph.operation_at(pivot)?)
    }
}

impl ControlFlowContext for WhileContext {
    fn add_op(&self, operation: &Operation) -> Result<()> {
        // A shape is taken in the loop itself, which then keeps it for the gradients in place of the tensor.
        if matches!(operation.op_type(), "Shape" | "Size" | "Rank") {
            let graph = operation.graph();
            let context = operation.input(0).op().control_flow_context();
            if let Some(context) = context
                && Self::computes_gradients_of(graph, Some(context.clone())).is_some()
            {
                graph.set_control_flow_context(operation, context.clone());
                return match as_loop(&context) {
                    Some(forward) => forward.take_in(operation),
                    None => context.add_op(operation),
                };
            }
        }
        self.take_in(operation)
    }

    fn add_value(&self, tensor: &Tensor) -> Result<Tensor> {
        let graph = tensor.graph();
        let made_here = tensor
            .op()
            .control_flow_context()
            .is_some_and(|context| is_this(&context, self));
        if made_here || !self.state().known.insert(tensor.id()) {
            let inside = self.state().external.get(&tensor.id()).copied();
            return inside.map_or(Ok(tensor.clone()), |id| graph.tensor_at(id));
        }
        if let Some(kept) = self.kept(tensor)? {
            self.state().external.insert(tensor.id(), kept.id());
            return Ok(kept);
        }
        let outside = match &self.outer {
            Some(outer) => outer.add_value(tensor)?,
            None => tensor.clone(),
        };
        let enter = {
            let _outside = scope::clear_control_dependencies(graph);
            let enter = self.enter_node(&outside, true, "Enter")?;
            if let Some(outer) = &self.outer {
                outer.add_inner_op(&enter.op())?;
            }
            enter
        };
        self.adopt(std::slice::from_ref(&enter))?;
        let mut state = self.state();
        state.known.insert(enter.id());
        state.external.insert(tensor.id(), enter.id());
        Ok(enter)
    }

    fn add_inner_op(&self, operation: &Operation) -> Result<()> {
        self.state().known.extend(operation.outputs().iter().map(Tensor::id));
        self.outer
            .as_ref()
            .map_or(Ok(()), |outer| outer.add_inner_op(operation))
    }

    fn outer(&self) -> Option<Context> {
        self.outer.clone()
    }

    fn branch(&self) -> Option<(TensorId, bool)> {
        None
    }

    fn loop_gradients(&self) -> Option<Box<dyn LoopGradients>> {
        Some(Box::new(Walk::default()))
    }

    fn gradient_of(&self) -> Option<Context> {
        self.forward.clone().map(|forward| forward as Context)
    }
}

/// The loop that `context` is, if it is one.
pub(in crate::control) fn as_loop(context: &Context) -> Option<Arc<WhileContext>> {
    let any: Arc<dyn Any + Send + Sync> = context.clone();
    any.downcast().ok()
}

/// The innermost loop that `context` is or is in.
pub(in crate::control) fn while_around(context: Option<Context>) -> Option<Arc<WhileContext>> {
    std::iter::successors(context, |context| context.outer()).find_map(|context| as_loop(&context))
}

/// The loop of gradients that operations of `graph` are made in now, with what is known of its gradients.
pub(in crate::control) fn current_gradient(graph: &Graph) -> Option<Arc<LoopGradient>> {
    while_around(scope::current_control_flow_context(graph))?.gradient()
}

/// Where the outputs of an operation are: an Exit's are outside of its loop.
pub(in crate::control) fn output_context(operation: &Operation) -> Option<Context> {
    let context = operation.control_flow_context()?;
    match operation.definition().control_flow {
        ControlFlow::Exit => context.outer(),
        _ => Some(context),
    }
}

fn is_this(context: &Context, this: &WhileContext) -> bool {
    this.is(as_loop(context).as_ref())
}

fn is_loop(context: &Context, this: &Arc<WhileContext>) -> bool {
    is_this(context, this)
}

/// Whether two are the same branch or loop.
pub(super) fn same(a: Option<&Context>, b: Option<&Context>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => std::ptr::eq(Arc::as_ptr(a).cast::<()>(), Arc::as_ptr(b).cast::<()>()),
        (None, None) => true,
        _ => false,
    }
}

/// Whether a tensor is the same in all iterations, since it comes in through a constant Enter.
pub(super) fn is_constant_enter(tensor: &Tensor) -> bool {
    let operation = tensor.op();
    operation.definition().control_flow == ControlFlow::Enter && operation.attr("is_constant").unwrap_or(false)
}

/// Removes the control inputs that lie outside of the loop `around`, and hands them out.
pub(in crate::control) fn drop_external_controls(
    operation: &Operation,
    around: Option<&WhileContext>,
) -> Result<Vec<Operation>> {
    let Some(around) = around else {
        return Ok(Vec::new());
    };
    let is_inside = |control: &Operation| around.is(while_around(output_context(control)).as_ref());
    let external: Vec<Operation> = operation
        .control_inputs()
        .into_iter()
        .filter(|control| !is_inside(control))
        .collect();
    if !external.is_empty() {
        operation
            .graph()
            .retain_control_inputs(operation, |control| !external.contains(control))?;
    }
    Ok(external)
}

/// A node that carries `next` to the next iteration, where `merge` takes it.
pub(in crate::control) fn carry_on(merge: &Tensor, next: impl IntoOperand) -> Result<Tensor> {
    let carried = OpBuilder::new("NextIteration").input(next).build()?;
    merge.graph().set_input(&merge.op(), 1, &carried)?;
    Ok(carried)
}

/// What `enter` is in the first iteration and what is carried on in all later ones, once that is known.
pub(super) fn merge_of(enter: &Tensor, name: &str) -> Result<Tensor> {
    OpBuilder::new("Merge").input([enter, enter]).name(name).build()
}
