//! What all optimizers share: gradients, slots, updates, and the operation that runs them all.
//!
//! Names, order and colocation of all nodes are those of `tf.train.Optimizer` of TensorFlow 1.15.

use std::sync::{Mutex, PoisonError};

use graph_core::graph::scope::{self, name_scope_in};
use graph_core::graph::{IntoOperand, OpBuilder, Operand, keys};
use graph_core::{DType, Error, Graph, Operation, Result, Tensor, Variable, gradients};

use crate::state::{Initializer, VariableScope, assign_add, get_variable};

/// A gradient and what it is the gradient of; `None` where the loss does not depend on the variable.
pub type GradientAndVariable = (Option<Tensor>, Variable);

/// When gradients may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Gate {
    /// As soon as they are there.
    None,
    /// When all gradients of the operation they belong to are there.
    #[default]
    Op,
    /// When all gradients are there.
    Graph,
}

/// How [`Optimizer::minimize_with`] goes about it.
#[derive(Clone, Debug, Default)]
pub struct MinimizeOptions {
    gate: Gate,
    colocate_gradients: bool,
    gradient_of_loss: Option<Tensor>,
    global_step: Option<Variable>,
    pub(super) name: Option<String>,
}

impl MinimizeOptions {
    /// What [`Optimizer::minimize`] uses: gradients gated by operation, no counter of steps, the optimizer's name.
    pub fn new() -> Self {
        Self::default()
    }

    /// When gradients may be used; by operation without.
    pub fn gate_gradients(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// Puts each gradient operation on the device of its forward operation.
    pub fn colocate_gradients_with_ops(mut self, colocate: bool) -> Self {
        self.colocate_gradients = colocate;
        self
    }

    /// The gradient that comes in at the loss; ones without.
    pub fn grad_loss(mut self, gradient: &Tensor) -> Self {
        self.gradient_of_loss = Some(gradient.clone());
        self
    }

    /// A variable that grows by one after each update.
    pub fn global_step(mut self, variable: &Variable) -> Self {
        self.global_step = Some(variable.clone());
        self
    }

    /// Names the operation that updates the variables; the optimizer's name without.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// A variable that an optimizer keeps beside others: the slot's name (empty: one of the optimizer's own), what it belongs
/// to, and itself.
type Slot = (&'static str, Option<Variable>, Variable);

/// What every optimizer holds: its name and the variables it has made.
#[derive(Debug)]
pub struct OptimizerState {
    name: String,
    use_locking: bool,
    slots: Mutex<Vec<Slot>>,
}

impl OptimizerState {
    /// The state of an optimizer of this name that has made no variables yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            use_locking: false,
            slots: Mutex::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Renames it.
    pub fn set_name(&mut self, name: impl Into<String>) {
        self.name = name.into();
    }

    /// What the attribute of this name says in its updates; it means nothing here: runs of a session take turns.
    pub fn use_locking(&self) -> bool {
        self.use_locking
    }

    /// Sets that attribute.
    pub fn set_use_locking(&mut self, lock: bool) {
        self.use_locking = lock;
    }

    fn with_slots<R>(&self, f: impl FnOnce(&mut Vec<Slot>) -> R) -> R {
        f(&mut self.slots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, graph: &Graph, name: &str, primary: Option<&Variable>) -> Option<Variable> {
        self.with_slots(|slots| {
            slots
                .iter()
                .find(|(slot, of, variable)| *slot == name && of.as_ref() == primary && variable.graph() == graph)
                .map(|(_, _, variable)| variable.clone())
        })
    }

    /// The slot `name` of `variable`, if it was made.
    pub fn slot(&self, variable: &Variable, name: &str) -> Option<Variable> {
        self.find(variable.graph(), name, Some(variable))
    }

    /// The slot `name` of `variable`.
    ///
    /// # Errors
    /// `FailedPrecondition` if it was not made.
    pub fn expect_slot(&self, variable: &Variable, name: &str) -> Result<Variable> {
        self.slot(variable, name)
            .ok_or_else(|| Error::failed_precondition(format!("variable '{}' has no slot '{name}'", variable.name())))
    }

    /// The optimizer's own variable `name`, such as `beta1_power`.
    ///
    /// # Errors
    /// `FailedPrecondition` if it was not made.
    pub fn expect_own(&self, graph: &Graph, name: &str) -> Result<Variable> {
        self.find(graph, name, None)
            .ok_or_else(|| Error::failed_precondition(format!("the optimizer has not made its variable '{name}'")))
    }

    /// Makes the slot `name` of `variable`, of its shape and dtype, unless it is there.
    ///
    /// # Errors
    /// `InvalidArgument` if the variable's shape is not fully known, or the initializer's own.
    pub fn make_slot(
        &self,
        variable: &Variable,
        name: &'static str,
        initializer: impl Initializer + 'static,
    ) -> Result<()> {
        let (shape, dtype) = (variable.shape(), variable.dtype());
        self.make_slot_with(variable, name, || {
            let slot = get_variable("", shape).dtype(dtype).initializer(initializer);
            slot.use_resource(variable.is_resource()).trainable(false).build()
        })
    }

    /// Makes the slot `name` of `variable` from this tensor, unless it is there.
    ///
    /// # Errors
    /// Those of making a variable.
    pub fn make_slot_of_value(&self, variable: &Variable, name: &'static str, value: &Tensor) -> Result<()> {
        self.make_slot_with(variable, name, || {
            let slot = get_variable("", graph_core::PartialShape::unknown()).initial_value(value);
            slot.use_resource(variable.is_resource()).trainable(false).build()
        })
    }

    fn make_slot_with(
        &self,
        variable: &Variable,
        name: &'static str,
        make: impl FnOnce() -> Result<Variable>,
    ) -> Result<()> {
        if self.slot(variable, name).is_some() {
            return Ok(());
        }
        // Slots have no options of their own: that would be a TensorFlow that nobody knows.
        let slot = {
            let _scope = VariableScope::by_default(format!("{}/{}", variable.op().name(), self.name)).enter()?;
            let _colocated = scope::colocate_with(&variable.op());
            make()?
        };
        self.with_slots(|slots| slots.push((name, Some(variable.clone()), slot)));
        Ok(())
    }

    /// Makes the optimizer's own variable `name`, kept with `beside`, unless it is there.
    ///
    /// # Errors
    /// Those of making a variable.
    pub fn make_own(&self, name: &'static str, initial_value: &Operand, beside: &Variable) -> Result<()> {
        if self.find(beside.graph(), name, None).is_some() {
            return Ok(());
        }
        let _colocated = scope::colocate_with(&beside.op());
        let builder = Variable::new(initial_value).name(name).trainable(false);
        let builder = builder.dtype(DType::Float32).use_resource(beside.is_resource());
        let variable = builder.build()?;
        self.with_slots(|slots| slots.push((name, None, variable)));
        Ok(())
    }

    /// All variables that the optimizer has made in `graph`, sorted by name.
    pub fn variables(&self, graph: &Graph) -> Vec<Variable> {
        let mut variables: Vec<Variable> = self.with_slots(|slots| {
            slots
                .iter()
                .filter(|(.., variable)| variable.graph() == graph)
                .map(|(.., variable)| variable.clone())
                .collect()
        });
        variables.sort_by_key(Variable::name);
        variables
    }
}

/// An optimizer: how variables follow their gradients.
///
/// Implementors say what slots they need, which tensors their parameters become, and how one variable is updated; the rest
/// is given.
pub trait Optimizer {
    /// Its name and slots.
    fn state(&self) -> &OptimizerState;

    /// Makes the variables it keeps beside those that it updates.
    ///
    /// # Errors
    /// Those of making variables.
    fn create_slots(&self, _variables: &[Variable]) -> Result<()> {
        Ok(())
    }

    /// Its parameters as tensors, made inside its name scope.
    ///
    /// # Errors
    /// Those of making constants.
    fn prepare(&self, graph: &Graph) -> Result<Vec<Tensor>>;

    /// The operation that updates `variable` by its gradient.
    ///
    /// # Errors
    /// Those of making nodes.
    fn apply_dense(&self, gradient: &Tensor, variable: &Variable, parameters: &[Tensor]) -> Result<Operation>;

    /// The operation, named `name`, that ends an update.
    ///
    /// # Errors
    /// Those of making nodes.
    fn finish(&self, updates: Vec<Operation>, name: &str, _parameters: &[Tensor]) -> Result<Operation> {
        crate::control::group(updates, name)
    }

    /// Whether it multiplies the loss by a scale before it takes gradients.
    fn scales_loss(&self) -> bool {
        false
    }

    /// The slot `name` (such as `momentum`) of `variable`, if the optimizer has made it.
    fn get_slot(&self, variable: &Variable, name: &str) -> Option<Variable> {
        self.state().slot(variable, name)
    }

    /// The operation that makes `loss` smaller by changing `variables` once.
    ///
    /// It joins the collection [`keys::TRAIN_OP`].
    ///
    /// # Errors
    /// `InvalidArgument` if there are no variables, the loss depends on none of them, or one cannot be trained; `NotFound`
    /// for an operation between them that has no gradient.
    fn minimize(&self, loss: &Tensor, variables: &[Variable]) -> Result<Operation> {
        self.minimize_with(loss, variables, &MinimizeOptions::new())
    }

    /// [`Optimizer::minimize`] with options.
    ///
    /// # Errors
    /// As for [`Optimizer::minimize`].
    fn minimize_with(&self, loss: &Tensor, variables: &[Variable], options: &MinimizeOptions) -> Result<Operation> {
        let gradients = self.compute_gradients(loss, variables, options)?;
        if gradients.iter().all(|(gradient, _)| gradient.is_none()) {
            let names: Vec<String> = variables.iter().map(Variable::name).collect();
            return Err(Error::invalid_argument(format!(
                "No gradients provided for any variable: the loss does not depend on {}",
                names.join(", ")
            ))
            .at(loss.op().site())
            .hint("look for ops without gradients between the variables and the loss"));
        }
        self.apply_gradients(&gradients, options)
    }

    /// The gradients of `loss` with respect to `variables`.
    ///
    /// # Errors
    /// As for [`Optimizer::minimize`].
    fn compute_gradients(
        &self,
        loss: &Tensor,
        variables: &[Variable],
        options: &MinimizeOptions,
    ) -> Result<Vec<GradientAndVariable>> {
        if variables.is_empty() {
            return Err(Error::invalid_argument("No variables to optimize.")
                .hint("give trainable_variables()?, or look whether a variable was made trainable(false)"));
        }
        loss.require_dtype(DType::FLOATS)?;
        let mut request = gradients([loss], variables)?
            .gate_by_op(options.gate == Gate::Op)
            .colocate_with_ops(options.colocate_gradients);
        if let Some(gradient) = &options.gradient_of_loss {
            request = request.grad_ys([gradient]);
        }
        let mut gradients = request.build()?;
        if options.gate == Gate::Graph {
            let known: Vec<Tensor> = gradients.iter().flatten().cloned().collect();
            if !known.is_empty() {
                let mut gated = crate::control::tuple(&known, &[], "")?.into_iter();
                for gradient in gradients.iter_mut().filter(|gradient| gradient.is_some()) {
                    *gradient = gated.next();
                }
            }
        }
        for (_, variable) in gradients
            .iter()
            .zip(variables)
            .filter(|(gradient, _)| gradient.is_some())
        {
            variable.value().require_dtype(DType::FLOATS)?;
        }
        Ok(gradients.into_iter().zip(variables.iter().cloned()).collect())
    }

    /// The operation that updates the variables by these gradients; of the options, the name and the counter of steps count.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no gradient at all.
    fn apply_gradients(&self, gradients: &[GradientAndVariable], options: &MinimizeOptions) -> Result<Operation> {
        let known: Vec<(&Tensor, &Variable)> = gradients
            .iter()
            .filter_map(|(gradient, variable)| Some((gradient.as_ref()?, variable)))
            .collect();
        let Some((_, first)) = known.first() else {
            return Err(Error::invalid_argument("No gradients provided for any variable."));
        };
        crate::install();
        let graph = first.graph().clone();
        let _default = graph.as_default();
        {
            let _cleared = scope::clear_control_dependencies(&graph);
            let variables: Vec<Variable> = known.iter().map(|(_, variable)| (*variable).clone()).collect();
            self.create_slots(&variables)?;
        }
        let scope = name_scope_in(&graph, options.name.as_deref().unwrap_or(self.state().name()))?;
        let parameters = self.prepare(&graph)?;
        let mut updates = Vec::with_capacity(known.len());
        for (gradient, variable) in known {
            let _scope = name_scope_in(&graph, &format!("update_{}", variable.op().name()))?;
            let _colocated = scope::colocate_with(&variable.op());
            updates.push(self.apply_dense(gradient, variable, &parameters)?);
        }
        let applied = match &options.global_step {
            None => self.finish(updates, &scope.scope_name(), &parameters)?,
            Some(step) => {
                let updated = self.finish(updates, "update", &parameters)?;
                let _after = scope::control_dependencies([&updated])?;
                let _colocated = scope::colocate_with(&step.op());
                assign_add(step, 1i32).name(scope.scope_name()).build_operation()?
            }
        };
        let made: Vec<Operation> = graph.get_collection(keys::TRAIN_OP)?;
        if !made.contains(&applied) {
            graph.add_to_collection(keys::TRAIN_OP, &applied);
        }
        Ok(applied)
    }
}

/// A parameter as a tensor named `name`; numbers become `float`.
pub(super) fn parameter(graph: &Graph, operand: &Operand, name: &str) -> Result<Tensor> {
    operand.to_tensor(graph, name, Some(DType::Float32))
}

/// Begins the update of `variable` by the op `op`, or of a resource variable by the one that takes handles.
pub(super) fn update_of(variable: &Variable, op: &str) -> OpBuilder {
    match variable.is_resource() {
        true => OpBuilder::new(&format!("Resource{op}")).input(variable),
        false => OpBuilder::new(op).input(variable),
    }
}

/// A parameter or an optimizer's own variable in the dtype of `variable`, as `tf.cast` gives it: a tensor that has the dtype is
/// itself, and so is a resource variable, which is read where it is used; another variable takes the name `Cast` even then.
pub(super) fn cast_to(variable: &Variable, operand: impl IntoOperand) -> Result<Operand> {
    let (graph, dtype) = (variable.graph(), variable.dtype());
    let operand = operand.into_operand();
    match &operand {
        Operand::Tensor(tensor) if tensor.dtype() == dtype => return Ok(operand),
        Operand::Variable(own) if own.is_resource() && own.dtype() == dtype => return Ok(operand),
        _ => {}
    }
    let scope = name_scope_in(graph, "Cast")?;
    let tensor = operand.to_tensor(graph, "x", None)?;
    if tensor.dtype() == dtype {
        return Ok(tensor.into_operand());
    }
    let cast = OpBuilder::new("Cast").input(tensor).attr("DstT", dtype);
    Ok(cast.name(scope.scope_name()).build()?.into_operand())
}

/// Defines what all optimizers have in common: the struct with its parameters and their setters.
macro_rules! optimizer {
    (
        $(#[$doc:meta])*
        $name:ident($default:literal) {
            $($(#[$parameter_doc:meta])* $parameter:ident = $value:expr,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            state: OptimizerState,
            learning_rate: Operand,
            $($parameter: Operand,)*
        }

        impl $name {
            /// An optimizer with this learning rate, a number or a tensor, and the usual values of its other parameters.
            pub fn new(learning_rate: impl IntoOperand) -> Self {
                Self {
                    state: OptimizerState::new($default),
                    learning_rate: learning_rate.into_operand(),
                    $($parameter: f64::into_operand($value),)*
                }
            }

            $($(#[$parameter_doc])*
            pub fn $parameter(mut self, $parameter: impl IntoOperand) -> Self {
                self.$parameter = $parameter.into_operand();
                self
            })*

            /// Names it, its slots and its operations.
            pub fn name(mut self, name: impl Into<String>) -> Self {
                self.state.set_name(name);
                self
            }

            /// Sets the attribute of this name in its updates; it means nothing here: runs of a session take turns.
            pub fn use_locking(mut self, lock: bool) -> Self {
                self.state.set_use_locking(lock);
                self
            }
        }
    };
}
pub(super) use optimizer;
