//! A branch while it is built: what is made inside waits for the branch, and values from outside come in through Switches.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use graph_core::graph::scope::{self, ControlFlowContext};
use graph_core::graph::{Graph, OpBuilder, Operation, Tensor, TensorId};
use graph_core::{DType, Result};

use super::while_loop::context::{drop_external_controls, while_around};
use crate::array::zeros;

/// One branch of a `cond`. Keeps places in its graph, not handles, since the graph keeps it.
pub(super) struct CondContext {
    predicate: TensorId,
    pivot: TensorId,
    branch: bool,
    outer: Option<Arc<dyn ControlFlowContext>>,
    this: Weak<CondContext>,
    values: Mutex<Values>,
}

#[derive(Default)]
struct Values {
    /// Tensors that were made inside, here or deeper, or asked for already.
    known: HashSet<TensorId>,
    /// Tensors from outside, and what stands for them inside.
    external: HashMap<TensorId, TensorId>,
}

impl CondContext {
    /// The branch that is taken where `predicate` is `branch`; `pivot` is alive exactly then.
    pub(super) fn new(predicate: &Tensor, pivot: &Tensor, branch: bool) -> Arc<Self> {
        let own = [predicate.id(), pivot.id()];
        let values = Values {
            known: own.into(),
            external: own.into_iter().map(|id| (id, id)).collect(),
        };
        Arc::new_cyclic(|this| Self {
            predicate: predicate.id(),
            pivot: pivot.id(),
            branch,
            outer: scope::current_control_flow_context(predicate.graph()),
            this: this.clone(),
            values: Mutex::new(values),
        })
    }

    /// The condition.
    pub(super) fn predicate(&self) -> TensorId {
        self.predicate
    }

    /// What the condition is where the branch is taken.
    pub(super) fn taken(&self) -> bool {
        self.branch
    }

    fn values(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `operation` was made inside, here or deeper.
    fn holds(&self, operation: &Operation) -> bool {
        let mut context = operation.control_flow_context();
        while let Some(inner) = context {
            if inner.branch() == self.branch() {
                return true;
            }
            context = inner.outer();
        }
        false
    }

    /// Notes what an operation inside gives, here and in all branches around.
    fn note_outputs(&self, operation: &Operation) -> Result<()> {
        self.values().known.extend(operation.outputs().iter().map(Tensor::id));
        self.outer
            .as_ref()
            .map_or(Ok(()), |outer| outer.add_inner_op(operation))
    }

    /// `tensor`, of the branch around, behind a Switch.
    fn switched(&self, tensor: &Tensor) -> Result<Tensor> {
        let predicate = tensor.graph().tensor_at(self.predicate)?;
        let outputs = switch_beside(tensor, &predicate, "Switch")?;
        Ok(outputs.output(usize::from(self.branch)))
    }

    /// What stands for a result of the branch outside: what was made inside as it is, else a Switch.
    pub(super) fn result(&self, tensor: &Tensor) -> Result<Tensor> {
        if self.values().known.contains(&tensor.id()) {
            let inside = self.values().external.get(&tensor.id()).copied();
            return inside.map_or(Ok(tensor.clone()), |id| tensor.graph().tensor_at(id));
        }
        self.values().known.insert(tensor.id());
        let outside = self.bring_outside(tensor)?;
        let inside = self.switched(&outside)?;
        self.values().external.insert(tensor.id(), inside.id());
        Ok(inside)
    }

    /// What stands for `tensor` in the branch around.
    fn bring_outside(&self, tensor: &Tensor) -> Result<Tensor> {
        let Some(outer) = &self.outer else {
            return Ok(tensor.clone());
        };
        let outside = outer.add_value(tensor)?;
        let mut values = self.values();
        values.known.insert(outside.id());
        values.external.insert(outside.id(), outside.id());
        Ok(outside)
    }

    /// Lets the branch around use a result.
    pub(super) fn leave_with(&self, result: &Tensor) -> Result<()> {
        self.outer
            .as_ref()
            .map_or(Ok(()), |outer| outer.add_inner_op(&result.op()))
    }
}

/// The branch that `context` is, if it is one.
pub(super) fn as_branch(context: &Arc<dyn ControlFlowContext>) -> Option<Arc<CondContext>> {
    let any: Arc<dyn Any + Send + Sync> = context.clone();
    any.downcast().ok()
}

/// A Switch of a tensor or a reference, kept with what it switches whatever scopes say.
pub(super) fn switch_beside(data: &Tensor, predicate: &Tensor, name: &str) -> Result<Operation> {
    let graph: &Graph = data.graph();
    let device = data.op().device();
    // What it takes to bring the data in is beside it too.
    let _beside = scope::colocate_with(&data.op());
    let _nowhere = scope::device(None)?;
    let _device = scope::device(device.as_str())?;
    let op = if data.is_ref() { "RefSwitch" } else { "Switch" };
    let switch = OpBuilder::new(op)
        .input(data)
        .input(predicate)
        .name(name)
        .build_operation()?;
    graph.set_attr(&switch, "_class", data.op().colocation_groups())?;
    Ok(switch)
}

impl ControlFlowContext for CondContext {
    fn add_op(&self, operation: &Operation) -> Result<()> {
        let graph = operation.graph();
        let inputs = operation.inputs();
        let loop_around = while_around(self.outer.clone());
        if inputs.is_empty() {
            drop_external_controls(operation, loop_around.as_deref())?;
            let waits = operation.control_inputs().iter().any(|control| self.holds(control));
            if !waits {
                graph.add_control_input(operation, &graph.operation_at(self.pivot.node)?)?;
            }
        } else {
            let _scope = scope::name_scope_in(graph, &format!("{}/", operation.name()))?;
            for (index, input) in inputs.iter().enumerate() {
                let inside = self.add_value(input)?;
                if inside != *input {
                    graph.set_input(operation, index, &inside)?;
                }
            }
            drop_external_controls(operation, loop_around.as_deref())?;
        }
        self.note_outputs(operation)
    }

    fn add_value(&self, tensor: &Tensor) -> Result<Tensor> {
        if !self.values().known.insert(tensor.id()) {
            let inside = self.values().external.get(&tensor.id()).copied();
            return inside.map_or(Ok(tensor.clone()), |id| tensor.graph().tensor_at(id));
        }
        let outside = self.bring_outside(tensor)?;
        let inside = {
            let _outside = scope::clear_control_dependencies(tensor.graph());
            self.switched(&outside)?
        };
        if let Some(this) = self.this.upgrade() {
            tensor.graph().set_control_flow_context(&inside.op(), this);
        }
        self.values().known.insert(inside.id());
        self.values().external.insert(tensor.id(), inside.id());
        if let Some(outer) = &self.outer {
            outer.add_inner_op(&inside.op())?;
        }
        Ok(inside)
    }

    fn add_inner_op(&self, operation: &Operation) -> Result<()> {
        self.note_outputs(operation)
    }

    fn outer(&self) -> Option<Arc<dyn ControlFlowContext>> {
        self.outer.clone()
    }

    fn zeros_of_switch(&self, switch: &Operation) -> Result<Option<Tensor>> {
        let graph = switch.graph();
        let (data, dtype) = match switch.input(0) {
            data if data.dtype() != DType::Resource => (data.clone(), data.dtype()),
            data => match data.handle_data() {
                Some(variable) => (data, variable.dtype),
                None => return Ok(None),
            },
        };
        let other = OpBuilder::new("Switch")
            .input(&data)
            .input(graph.tensor_at(self.predicate)?);
        let value = other.build_operation()?.output(usize::from(!self.branch));
        // Alive exactly where the branch is not taken.
        let pivot = OpBuilder::new("Identity").input(&value).build()?;
        let shape = match data.dtype() {
            DType::Resource => "VariableShape",
            _ => "Shape",
        };
        let shape = OpBuilder::new(shape).input(&value).build()?;
        let _after = scope::control_dependencies([&pivot.op()])?;
        zeros(shape).dtype(dtype).build().map(Some)
    }

    fn branch(&self) -> Option<(TensorId, bool)> {
        Some((self.predicate, self.branch))
    }
}
