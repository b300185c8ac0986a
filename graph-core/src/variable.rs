//! Variables: state that a session keeps under a node of the graph.
//!
//! A variable is four nodes: `v` (its reference), the tensor of its initial value, `v/Assign` (the initializer) and
//! `v/read` (its value). A *resource variable* has a handle in place of the reference, a scalar that names the variable, and
//! each use of it reads the value anew; its nodes are `v`, `v/IsInitialized/VarIsInitializedOp`, `v/Assign` and
//! `v/Read/ReadVariableOp`. Sharing by name (`get_variable`) is built on top of the [`VariableStore`] in `graph-ops`.

use std::panic::Location;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, IntoOperand, OpBuilder, Operand, Operation, Tensor, keys, scope};
use crate::op::vocabulary;
use crate::shape::PartialShape;

/// A variable. Cheap to clone; it keeps its graph alive.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Variable(Arc<Parts>);

#[derive(PartialEq, Eq, Hash)]
struct Parts {
    reference: Tensor,
    value: Tensor,
    initializer: Operation,
    initial_value: Option<Tensor>,
    trainable: bool,
}

/// Makes the initial value of a variable, when everything around it is in place.
pub type InitialValueFunction<'a> = Box<dyn FnOnce() -> Result<Tensor> + 'a>;

enum InitialValue<'a> {
    Operand(Operand),
    Function(InitialValueFunction<'a>),
}

impl Variable {
    /// Begins a variable that starts with this value. A name with a slash at the end is taken as it is.
    ///
    /// ```ignore
    /// let weights = Variable::new(initial).name("weights").build()?;
    /// ```
    #[track_caller]
    #[allow(clippy::new_ret_no_self)]
    pub fn new(initial_value: impl IntoOperand) -> VariableBuilder<'static> {
        VariableBuilder::new(InitialValue::Operand(initial_value.into_operand()))
    }

    /// Begins a variable whose initial value `make` builds, under the name `<variable>/Initializer`.
    #[track_caller]
    pub fn from_initializer<'a>(make: impl FnOnce() -> Result<Tensor> + 'a) -> VariableBuilder<'a> {
        VariableBuilder::new(InitialValue::Function(Box::new(make)))
    }

    /// A variable of nodes that exist, as an importer finds them. A `reference` of dtype `resource` is a handle.
    pub fn from_parts(
        reference: Tensor,
        value: Tensor,
        initializer: Operation,
        initial_value: Option<Tensor>,
        trainable: bool,
    ) -> Self {
        Self(Arc::new(Parts {
            reference,
            value,
            initializer,
            initial_value,
            trainable,
        }))
    }

    /// Whether it stands on a handle in place of a reference: TensorFlow's `use_resource=True`.
    pub fn is_resource(&self) -> bool {
        self.0.reference.dtype() == DType::Resource
    }

    /// The handle of a resource variable: a scalar of dtype `resource`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not one.
    pub fn handle(&self) -> Result<&Tensor> {
        if self.is_resource() {
            return Ok(&self.0.reference);
        }
        Err(
            Error::invalid_argument(format!("'{}' is not a resource variable", self.name()))
                .at(self.op().site())
                .hint("make it with use_resource(true)"),
        )
    }

    /// A new read of the value, at the place in the schedule that control dependencies give it; of a variable that is no
    /// resource, the one read that there is.
    ///
    /// # Errors
    /// `FailedPrecondition` if the graph is finalized.
    #[track_caller]
    pub fn read_value(&self) -> Result<Tensor> {
        if !self.is_resource() {
            return Ok(self.0.value.clone());
        }
        // Reads stand where they are used, not where the variable is.
        let _alone = scope::clear_colocation(self.graph());
        read(&self.0.reference, self.dtype(), Location::caller())
    }

    /// The reference, or the handle of a resource variable: what ops that update variables take.
    pub fn reference(&self) -> &Tensor {
        &self.0.reference
    }

    /// The value, as other ops take it: the tensor `<variable>/read:0`, of a resource variable
    /// `<variable>/Read/ReadVariableOp:0`.
    pub fn value(&self) -> &Tensor {
        &self.0.value
    }

    /// The operation that sets the initial value.
    pub fn initializer(&self) -> &Operation {
        &self.0.initializer
    }

    /// The initial value, where it is known.
    pub fn initial_value(&self) -> Option<&Tensor> {
        self.0.initial_value.as_ref()
    }

    /// Whether optimizers update it unless told otherwise.
    pub fn is_trainable(&self) -> bool {
        self.0.trainable
    }

    /// Its graph.
    pub fn graph(&self) -> &Graph {
        self.0.reference.graph()
    }

    /// The operation that holds it.
    pub fn op(&self) -> Operation {
        self.0.reference.op()
    }

    /// Its name as TensorFlow's variables tell it: `<operation>:0`.
    pub fn name(&self) -> String {
        self.0.reference.name()
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        match self.0.reference.handle_data() {
            Some(handle) => handle.dtype,
            None => self.0.value.dtype(),
        }
    }

    /// What is known of its shape.
    pub fn shape(&self) -> PartialShape {
        match self.0.reference.handle_data() {
            Some(handle) => handle.shape,
            None => self.0.value.shape(),
        }
    }
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "<Variable '{}' shape={} dtype={}>",
            self.name(),
            self.shape(),
            self.dtype()
        )
    }
}

/// A variable about to be made; see [`Variable::new`].
#[must_use = "a variable is made by `build`"]
pub struct VariableBuilder<'a> {
    initial_value: InitialValue<'a>,
    name: Option<String>,
    dtype: Option<DType>,
    trainable: bool,
    validate_shape: bool,
    use_resource: bool,
    collections: Option<Vec<String>>,
    location: &'static Location<'static>,
}

impl<'a> VariableBuilder<'a> {
    #[track_caller]
    fn new(initial_value: InitialValue<'a>) -> Self {
        Self {
            initial_value,
            name: None,
            dtype: None,
            trainable: true,
            validate_shape: true,
            use_resource: false,
            collections: None,
            location: Location::caller(),
        }
    }

    /// Names it; `Variable` without.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Gives a number as initial value this dtype.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// Whether it joins the collection of trainable variables; yes without.
    pub fn trainable(mut self, trainable: bool) -> Self {
        self.trainable = trainable;
        self
    }

    /// Whether its shape is fixed to that of the initial value; yes without.
    pub fn validate_shape(mut self, validate: bool) -> Self {
        self.validate_shape = validate;
        self
    }

    /// Makes a resource variable; not without.
    pub fn use_resource(mut self, resource: bool) -> Self {
        self.use_resource = resource;
        self
    }

    /// The collections that it joins, in place of the global variables.
    pub fn collections<S: Into<String>>(mut self, keys: impl IntoIterator<Item = S>) -> Self {
        self.collections = Some(keys.into_iter().map(Into::into).collect());
        self
    }

    /// Says where in the user's source it is made.
    pub fn made_at(mut self, location: &'static Location<'static>) -> Self {
        self.location = location;
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// The initial value's own, and `InvalidArgument` where its shape is not known although it must be.
    pub fn build(self) -> Result<Variable> {
        let graph = match &self.initial_value {
            InitialValue::Operand(operand) => operand.graph().cloned().unwrap_or_else(Graph::current),
            InitialValue::Function(_) => Graph::current(),
        };
        graph.check_mutable()?;
        // The parts of a variable stand outside of branches and control dependencies.
        let _cleared = scope::clear_control_dependencies(&graph);
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("Variable"))?;
        let name = scope.scope_name();
        if self.use_resource {
            let (trainable, collections) = (self.trainable, self.collections.clone());
            let variable = self.build_resource(&graph, &name)?;
            return Ok(collect(&graph, variable, trainable, collections));
        }
        let (initial_value, reference) = match self.initial_value {
            InitialValue::Operand(operand) => {
                let initial_value = operand.to_tensor(&graph, "initial_value", self.dtype)?;
                let reference = variable_node(&graph, &initial_value, &name, self.validate_shape, self.location)?;
                (initial_value, reference)
            }
            InitialValue::Function(make) => {
                // The variable does not exist yet, but its initial value already belongs to its colocation group.
                let _group = scope::colocation_groups(&graph, own_groups(&graph, &name));
                let initial_value = {
                    let _nowhere = scope::no_device(&graph);
                    let _initializer = scope::name_scope_in(&graph, "Initializer")?;
                    make()?
                };
                let reference = variable_node(&graph, &initial_value, &name, self.validate_shape, self.location)?;
                (initial_value, reference)
            }
        };
        let _colocated = scope::colocate_with(&reference.op());
        let initializer = OpBuilder::new(vocabulary::ASSIGN)
            .input(&reference)
            .input(&initial_value)
            .attr("validate_shape", self.validate_shape)
            .attr("use_locking", true)
            .made_at(self.location)
            .build()?
            .op();
        let value = OpBuilder::new(vocabulary::IDENTITY)
            .input(&reference)
            .name("read")
            .made_at(self.location)
            .build()?;
        let variable = Variable::from_parts(reference, value, initializer, Some(initial_value), self.trainable);
        Ok(collect(&graph, variable, self.trainable, self.collections))
    }

    /// The nodes of a resource variable, in the scope `name`.
    fn build_resource(self, graph: &Graph, name: &str) -> Result<Variable> {
        let (location, validate_shape) = (self.location, self.validate_shape);
        let (initial_value, handle) = {
            let _group = scope::colocation_groups(graph, own_groups(graph, name));
            let initial_value = {
                let _nowhere = scope::no_device(graph);
                let _initializer = scope::name_scope_in(graph, "Initializer")?;
                match self.initial_value {
                    InitialValue::Operand(operand) => operand.to_tensor(graph, "initial_value", self.dtype)?,
                    InitialValue::Function(make) => make()?,
                }
            };
            let shape = shape_of(&initial_value, name, validate_shape)?;
            let handle = OpBuilder::new(vocabulary::VAR_HANDLE)
                .in_graph(graph)
                .attr("dtype", initial_value.dtype())
                .attr("shape", shape)
                .attr("shared_name", name.trim_end_matches('/'))
                .name(name)
                .made_at(location)
                .build()?;
            (initial_value, handle)
        };
        {
            let _scope = scope::name_scope_in(graph, "IsInitialized")?;
            let question = OpBuilder::new(vocabulary::VAR_IS_INITIALIZED).input(&handle);
            question.made_at(location).build()?;
        }
        let initializer = {
            // Of all the nodes, TensorFlow leaves this one to stand alone.
            let _alone = scope::clear_colocation(graph);
            OpBuilder::new(vocabulary::ASSIGN_VARIABLE)
                .input(&handle)
                .input(&initial_value)
                .name("Assign")
                .made_at(location)
                .build_operation()?
        };
        let value = {
            let _scope = scope::name_scope_in(graph, "Read")?;
            read(&handle, initial_value.dtype(), location)?
        };
        Ok(Variable::from_parts(
            handle,
            value,
            initializer,
            Some(initial_value),
            self.trainable,
        ))
    }
}

/// A read of the variable that `handle` names.
fn read(handle: &Tensor, dtype: DType, location: &'static Location<'static>) -> Result<Tensor> {
    OpBuilder::new(vocabulary::READ_VARIABLE)
        .input(handle)
        .attr("dtype", dtype)
        .made_at(location)
        .build()
}

/// The colocation groups of what is made for the variable of the scope `name` before there is one.
fn own_groups(graph: &Graph, name: &str) -> Vec<Vec<u8>> {
    let surrounding = scope::surroundings(graph, &[]).colocation;
    if surrounding.is_empty() {
        return vec![format!("loc:@{}", name.trim_end_matches('/')).into_bytes()];
    }
    surrounding
}

/// Adds a new variable to its collections.
fn collect(graph: &Graph, variable: Variable, trainable: bool, collections: Option<Vec<String>>) -> Variable {
    let mut collections = collections.unwrap_or_else(|| vec![keys::GLOBAL_VARIABLES.to_owned()]);
    if trainable && !collections.iter().any(|key| key == keys::TRAINABLE_VARIABLES) {
        collections.push(keys::TRAINABLE_VARIABLES.to_owned());
    }
    for key in &collections {
        graph.add_to_collection(key, &variable);
    }
    variable
}

/// The shape of a variable that starts with this value.
fn shape_of(initial_value: &Tensor, name: &str, validate_shape: bool) -> Result<PartialShape> {
    if !validate_shape {
        return Ok(PartialShape::unknown());
    }
    let shape = initial_value.shape();
    if shape.is_fully_defined() {
        return Ok(shape);
    }
    Err(Error::invalid_argument(format!(
        "the initial value of variable '{}' must have a fully known shape",
        name.trim_end_matches('/')
    ))
    .got(shape)
    .at(initial_value.op().site())
    .hint("set the shape of the initial value, or build the variable with validate_shape(false)"))
}

fn variable_node(
    graph: &Graph,
    initial_value: &Tensor,
    name: &str,
    validate_shape: bool,
    location: &'static Location<'static>,
) -> Result<Tensor> {
    let shape = shape_of(initial_value, name, validate_shape)?;
    OpBuilder::new(vocabulary::VARIABLE)
        .in_graph(graph)
        .attr("shape", shape)
        .attr("dtype", initial_value.dtype())
        .name(name)
        .made_at(location)
        .build()
}

/// What a variable scope says of variables made inside it.
#[derive(Clone, Default)]
pub struct VariableScopeState {
    /// The scope's full name, without a slash at the end.
    pub name: String,
    /// Whether variables are shared by name.
    pub reuse: Reuse,
    /// The full name of the name scope opened with it, as `variable_scope(&scope)` re-enters it.
    pub original_name_scope: String,
    /// Whatever the crate above keeps with a scope: initializer, regularizer.
    pub extra: Option<Arc<dyn std::any::Any + Send + Sync>>,
}

/// Whether `get_variable` makes or finds a variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reuse {
    /// It makes one; that there is one of the name already is an error.
    #[default]
    No,
    /// It finds one; that there is none of the name is an error.
    Yes,
    /// It finds one, or else makes it: TensorFlow's `AUTO_REUSE`.
    Auto,
}

/// The variables of a graph that are shared by name, and how often each variable scope's name was used.
#[derive(Default)]
pub struct VariableStore {
    /// By full name: the variable, and where it was made.
    pub variables: FxHashMap<String, (Variable, &'static Location<'static>)>,
    /// For `variable_scope` with a default name.
    pub scope_uses: FxHashMap<String, usize>,
}

/// The innermost variable scope of the thread for `graph`.
pub fn current_variable_scope(graph: &Graph) -> VariableScopeState {
    scope::current_variable_scope(graph)
}

/// Makes `state` the innermost variable scope while the guard, that of its name scope, lives.
pub fn enter_variable_scope(guard: scope::ScopeGuard, state: VariableScopeState) -> scope::ScopeGuard {
    guard.with_variable_scope(state)
}

/// Runs `f` on the variables that `graph` shares by name.
pub fn with_variable_store<R>(graph: &Graph, f: impl FnOnce(&mut VariableStore) -> R) -> R {
    graph.write(|data| f(&mut data.variables))
}
