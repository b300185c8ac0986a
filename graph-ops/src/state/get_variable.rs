//! `get_variable`: variables that are shared by name.

use std::panic::Location;
use std::sync::Arc;

use graph_core::graph::scope::{self, name_scope_in};
use graph_core::graph::{IntoOperand, Operand, keys};
use graph_core::variable::{Reuse, current_variable_scope, with_variable_store};
use graph_core::{DType, Error, Graph, PartialShape, Result, Variable};

use super::initializers::{Initializer, glorot_uniform_initializer, zeros_initializer};
use super::regularizers::Regularizer;
use super::variable_scope::Defaults;

/// A variable about to be made or found; see [`get_variable`].
#[must_use = "a variable is made or found by `build`"]
pub struct GetVariable {
    name: String,
    shape: PartialShape,
    dtype: Option<DType>,
    initializer: Option<Arc<dyn Initializer>>,
    initial_value: Option<Operand>,
    regularizer: Option<Arc<dyn Regularizer>>,
    trainable: bool,
    use_resource: Option<bool>,
    collections: Option<Vec<String>>,
    location: &'static Location<'static>,
}

/// The variable `name` of the current variable scope, of this shape: a new one, or where the scope says so, the one of that
/// name. Without an initializer here or in a scope, floating-point variables begin with
/// [`glorot_uniform_initializer`], others with zeros.
///
/// # Errors
/// On `build`, all `InvalidArgument`: the variable exists and the scope does not share; it does not exist and the scope only
/// shares; shape or dtype differ from those of the shared variable.
#[track_caller]
pub fn get_variable(name: impl Into<String>, shape: impl Into<PartialShape>) -> GetVariable {
    GetVariable {
        name: name.into(),
        shape: shape.into(),
        dtype: None,
        initializer: None,
        initial_value: None,
        regularizer: None,
        trainable: true,
        use_resource: None,
        collections: None,
        location: Location::caller(),
    }
}

/// [`get_variable`] of a variable that is not trained and not saved: it joins the local variables.
///
/// # Errors
/// As for [`get_variable`].
#[track_caller]
pub fn get_local_variable(name: impl Into<String>, shape: impl Into<PartialShape>) -> GetVariable {
    get_variable(name, shape)
        .trainable(false)
        .collections([keys::LOCAL_VARIABLES])
}

impl GetVariable {
    /// Its dtype; that of the scope without, else `float`.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// What makes its initial value.
    pub fn initializer(self, initializer: impl Initializer + 'static) -> Self {
        self.shared_initializer(Arc::new(initializer))
    }

    pub(crate) fn shared_initializer(mut self, initializer: Arc<dyn Initializer>) -> Self {
        self.initializer = Some(initializer);
        self
    }

    /// Its initial value, a tensor or number that says shape and dtype too; the shape is then given as unknown.
    pub fn initial_value(mut self, value: impl IntoOperand) -> Self {
        self.initial_value = Some(value.into_operand());
        self
    }

    /// What makes a loss of it for the collection of regularization losses.
    pub fn regularizer(mut self, regularizer: impl Regularizer + 'static) -> Self {
        self.regularizer = Some(Arc::new(regularizer));
        self
    }

    /// Whether it joins the collection of trainable variables; yes without.
    pub fn trainable(mut self, trainable: bool) -> Self {
        self.trainable = trainable;
        self
    }

    /// Whether it is a resource variable; what the scope says without, else no.
    pub fn use_resource(mut self, resource: bool) -> Self {
        self.use_resource = Some(resource);
        self
    }

    /// The collections that it joins, in place of the global variables.
    pub fn collections<S: Into<String>>(mut self, keys: impl IntoIterator<Item = S>) -> Self {
        self.collections = Some(keys.into_iter().map(Into::into).collect());
        self
    }

    /// Makes or finds it.
    ///
    /// # Errors
    /// See [`get_variable`].
    pub fn build(self) -> Result<Variable> {
        crate::install();
        let graph = Graph::current();
        let scope = current_variable_scope(&graph);
        let defaults = Defaults::of(&scope);
        let name = if scope.name.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", scope.name, self.name)
        };
        if self.initial_value.is_some() && self.shape.rank().is_some() {
            return Err(
                Error::invalid_argument("an initial value that is a constant says the shape itself")
                    .got(&self.shape)
                    .hint("give the shape as PartialShape::unknown()"),
            );
        }
        let found = with_variable_store(&graph, |store| store.variables.get(&name).cloned());
        match (found, scope.reuse) {
            (Some((_, made_at)), Reuse::No) => Err(Error::invalid_argument(format!(
                "Variable {name} already exists, disallowed. Did you mean to set reuse=True or reuse=tf.AUTO_REUSE in \
                 VarScope? Originally defined at: {made_at}"
            ))
            .hint("enter the scope with VariableScope::of(..).reuse(Reuse::Yes) or Reuse::Auto to share it")),
            (Some((variable, _)), _) => self.check_shared(&name, &defaults, variable),
            (None, Reuse::Yes) => Err(Error::invalid_argument(format!(
                "Variable {name} does not exist, or was not created with tf.get_variable(). Did you mean to set \
                 reuse=tf.AUTO_REUSE in VarScope?"
            ))),
            (None, _) => self.make(&graph, name, defaults),
        }
    }

    fn check_shared(&self, name: &str, defaults: &Defaults, variable: Variable) -> Result<Variable> {
        if !self.shape.is_compatible_with(&variable.shape()) {
            return Err(
                Error::invalid_argument(format!("Trying to share variable {name}, but the shape is another"))
                    .expected(variable.shape())
                    .got(&self.shape)
                    .at(variable.op().site()),
            );
        }
        let given = match &self.initial_value {
            Some(Operand::Tensor(tensor)) => Some(tensor.dtype()),
            Some(Operand::Variable(variable)) => Some(variable.dtype()),
            Some(value) => value.to_value(None)?.map(|value| value.dtype()),
            None => None,
        };
        let dtype = self.dtype.or(given).or(defaults.dtype);
        let dtype = dtype.unwrap_or(DType::Float32);
        if dtype != variable.dtype() {
            return Err(
                Error::invalid_argument(format!("Trying to share variable {name}, but the dtype is another"))
                    .expected(variable.dtype())
                    .got(dtype)
                    .at(variable.op().site()),
            );
        }
        Ok(variable)
    }

    fn make(self, graph: &Graph, name: String, defaults: Defaults) -> Result<Variable> {
        let location = self.location;
        let regularizer = self.regularizer.clone().or(defaults.regularizer.clone());
        let variable = {
            // Names of variables come from variable scopes alone.
            let _top = name_scope_in(graph, "")?;
            self.make_at_top(&name, defaults)?
        };
        with_variable_store(graph, |store| {
            store.variables.insert(name.clone(), (variable.clone(), location));
        });
        if let Some(regularizer) = regularizer {
            let _colocated = scope::colocate_with(&variable.op());
            let _scope = name_scope_in(graph, &format!("{}/Regularizer/", name.trim_end_matches('/')))?;
            let _cleared = scope::clear_control_dependencies(graph);
            if let Some(loss) = regularizer.loss(&variable)? {
                graph.add_to_collection(keys::REGULARIZATION_LOSSES, &loss);
            }
        }
        Ok(variable)
    }

    fn make_at_top(self, name: &str, defaults: Defaults) -> Result<Variable> {
        let use_resource = self.use_resource.or(defaults.use_resource).unwrap_or(false);
        if let Some(value) = self.initial_value {
            let mut builder = Variable::new(value)
                .name(name)
                .made_at(self.location)
                .use_resource(use_resource)
                .trainable(self.trainable);
            if let Some(dtype) = self.dtype {
                builder = builder.dtype(dtype);
            }
            if let Some(collections) = self.collections {
                builder = builder.collections(collections);
            }
            return builder.build();
        }
        let dtype = self.dtype.or(defaults.dtype).unwrap_or(DType::Float32);
        let shape = self.shape.to_shape().ok_or_else(|| {
            Error::invalid_argument(format!("the shape of a new variable ({name}) must be fully known"))
                .got(&self.shape)
        })?;
        let initializer = match self.initializer.or(defaults.initializer) {
            Some(initializer) => initializer,
            None if dtype.is_floating() => Arc::new(glorot_uniform_initializer()),
            None if dtype.is_integer() || matches!(dtype, DType::Bool | DType::String) => Arc::new(zeros_initializer()),
            None => {
                return Err(Error::invalid_argument(format!(
                    "an initializer is required for variable {name} of {dtype}"
                )));
            }
        };
        let mut builder = Variable::from_initializer(|| initializer.initial_value(&shape, dtype))
            .name(name)
            .made_at(self.location)
            .use_resource(use_resource)
            .trainable(self.trainable);
        if let Some(collections) = self.collections {
            builder = builder.collections(collections);
        }
        builder.build()
    }
}
