//! Variable scopes: names and defaults that `get_variable` takes, and sharing.
//!
//! ```
//! use graph_core::DType;
//! use graph_core::variable::Reuse;
//! use graph_ops::state::{VariableScope, get_variable, variable_scope, zeros_initializer};
//! let (weights, scope) = {
//!     let layer = variable_scope("layer")?;
//!     let weights = get_variable("weights", [3, 2]).initializer(zeros_initializer()).build()?;
//!     (weights, layer.object())
//! };
//! assert_eq!(weights.name(), "layer/weights:0");
//! let _again = VariableScope::of(&scope).reuse(Reuse::Yes).enter()?;
//! assert_eq!(get_variable("weights", [3, 2]).build()?, weights);
//! # Ok::<(), graph_core::Error>(())
//! ```

use std::sync::Arc;

use graph_core::graph::scope::{ScopeGuard, control_dependencies, current_name_scope, name_scope_in};
use graph_core::variable::{
    Reuse, VariableScopeState, current_variable_scope, enter_variable_scope, with_variable_store,
};
use graph_core::{DType, Error, Graph, Result};
use std::collections::HashMap;

use super::initializers::Initializer;
use super::regularizers::Regularizer;

/// What a scope says of variables made inside it, beyond names and sharing.
#[derive(Clone, Default)]
pub(super) struct Defaults {
    pub(super) initializer: Option<Arc<dyn Initializer>>,
    pub(super) regularizer: Option<Arc<dyn Regularizer>>,
    pub(super) dtype: Option<DType>,
    pub(super) use_resource: Option<bool>,
}

impl Defaults {
    pub(super) fn of(state: &VariableScopeState) -> Self {
        let defaults = state.extra.as_ref().and_then(|extra| extra.downcast_ref::<Self>());
        defaults.cloned().unwrap_or_default()
    }
}

/// A variable scope as a thing to keep, and to enter again from anywhere in its graph.
#[derive(Clone)]
pub struct VariableScopeObject {
    graph: Graph,
    state: VariableScopeState,
}

impl VariableScopeObject {
    /// Its full name, without a slash at the end; empty for the outermost.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The full name of the name scope that was opened with it, with a slash at the end, as
    /// [`name_scope`](graph_core::graph::scope::name_scope) takes it to re-enter it.
    pub fn original_name_scope(&self) -> &str {
        &self.state.original_name_scope
    }

    /// Whether variables are shared by name inside it.
    pub fn reuse(&self) -> Reuse {
        self.state.reuse
    }
}

/// Which scope [`variable_scope`] enters.
pub enum VariableScopeName {
    /// One of this name inside the current scope.
    Named(String),
    /// One of this name inside the current scope, numbered if it was entered before.
    Default(String),
    /// This very scope.
    Object(VariableScopeObject),
}

impl From<&str> for VariableScopeName {
    fn from(name: &str) -> Self {
        Self::Named(name.to_owned())
    }
}

impl From<String> for VariableScopeName {
    fn from(name: String) -> Self {
        Self::Named(name)
    }
}

impl From<&VariableScopeObject> for VariableScopeName {
    fn from(object: &VariableScopeObject) -> Self {
        Self::Object(object.clone())
    }
}

impl From<&VariableScope> for VariableScopeName {
    fn from(scope: &VariableScope) -> Self {
        Self::Object(scope.object())
    }
}

/// A variable scope about to be entered; see [`VariableScope::of`].
#[must_use = "a scope is entered by `enter`"]
pub struct EnterVariableScope {
    name: VariableScopeName,
    reuse: Reuse,
    defaults: Defaults,
    auxiliary_name_scope: bool,
}

impl EnterVariableScope {
    fn new(name: VariableScopeName) -> Self {
        Self {
            name,
            reuse: Reuse::No,
            defaults: Defaults::default(),
            auxiliary_name_scope: true,
        }
    }

    /// Whether variables are shared by name inside. Inner scopes inherit it.
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.reuse = reuse;
        self
    }

    /// The initializer of variables that name none.
    pub fn initializer(mut self, initializer: impl Initializer + 'static) -> Self {
        self.defaults.initializer = Some(Arc::new(initializer));
        self
    }

    /// The regularizer of variables that name none.
    pub fn regularizer(mut self, regularizer: impl Regularizer + 'static) -> Self {
        self.defaults.regularizer = Some(Arc::new(regularizer));
        self
    }

    /// The dtype of variables that name none.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.defaults.dtype = Some(dtype);
        self
    }

    /// Whether variables that do not say it are resource variables.
    pub fn use_resource(mut self, resource: bool) -> Self {
        self.defaults.use_resource = Some(resource);
        self
    }

    /// Whether a name scope is opened with it; yes without.
    pub fn auxiliary_name_scope(mut self, open: bool) -> Self {
        self.auxiliary_name_scope = open;
        self
    }

    /// Enters it, until the guard is dropped.
    ///
    /// # Errors
    /// `InvalidArgument` if the name cannot be one, if a default name comes with [`Reuse::Yes`], or if the scope belongs to
    /// a graph that is not the current one.
    pub fn enter(self) -> Result<VariableScope> {
        let graph = Graph::current();
        let outer = current_variable_scope(&graph);
        let inside = |name: &str| {
            if outer.name.is_empty() {
                name.to_owned()
            } else {
                format!("{}/{name}", outer.name)
            }
        };
        let (guard, original_name_scope, name) = match &self.name {
            VariableScopeName::Named(name) => {
                let (guard, entered) = self.open_names(&graph, name)?;
                (guard, entered, inside(name))
            }
            VariableScopeName::Default(name) => {
                if self.reuse == Reuse::Yes {
                    return Err(Error::invalid_argument(
                        "a scope of a default name is always a new one and cannot reuse variables",
                    ));
                }
                let (guard, entered) = self.open_names(&graph, name)?;
                (guard, entered, unused_scope(&graph, inside(name)))
            }
            VariableScopeName::Object(object) => {
                if object.graph != graph {
                    return Err(Error::invalid_argument(
                        "the variable scope belongs to a graph that is not the current one",
                    ));
                }
                let last = object.name().rsplit('/').next().unwrap_or_default();
                let (guard, _) = self.open_names(&graph, last)?;
                let original = object.state.original_name_scope.clone();
                (guard, original, object.name().to_owned())
            }
        };
        let (inherited, close) = match &self.name {
            VariableScopeName::Object(object) => {
                let uses = with_variable_store(&graph, |store| {
                    store
                        .scope_uses
                        .iter()
                        .map(|(name, &uses)| (name.clone(), uses))
                        .collect()
                });
                (object.state.clone(), Close::Restore(uses))
            }
            _ => (outer, Close::Forget),
        };
        let state = VariableScopeState {
            name,
            reuse: if self.reuse == Reuse::No {
                inherited.reuse
            } else {
                self.reuse
            },
            original_name_scope,
            extra: Some(Arc::new(self.defaults.or(Defaults::of(&inherited)))),
        };
        let close = with_variable_store(&graph, |store| {
            *store.scope_uses.entry(state.name.clone()).or_default() += 1;
            match close {
                // The scope itself counts as used after it too.
                Close::Restore(mut uses) => {
                    uses.insert(state.name.clone(), store.scope_uses[&state.name]);
                    Close::Restore(uses)
                }
                Close::Forget => Close::Forget,
            }
        });
        Ok(VariableScope {
            object: VariableScopeObject {
                graph,
                state: state.clone(),
            },
            close,
            _guard: enter_variable_scope(guard, state),
        })
    }

    /// Opens the name scope that goes with the scope, or none; the guard, and the name scope's full name with its slash.
    fn open_names(&self, graph: &Graph, name: &str) -> Result<(ScopeGuard, String)> {
        if self.auxiliary_name_scope && !name.is_empty() {
            let guard = name_scope_in(graph, name)?;
            let entered = guard.scope_name();
            return Ok((guard, entered));
        }
        let current = current_name_scope(graph).map_or(String::new(), |scope| format!("{scope}/"));
        // A guard that changes nothing.
        Ok((control_dependencies([])?, current))
    }
}

impl Defaults {
    fn or(self, other: Self) -> Self {
        Self {
            initializer: self.initializer.or(other.initializer),
            regularizer: self.regularizer.or(other.regularizer),
            dtype: self.dtype.or(other.dtype),
            use_resource: self.use_resource.or(other.use_resource),
        }
    }
}

/// `name`, or the first of `name_1`, `name_2`, ... that no scope was entered by.
fn unused_scope(graph: &Graph, name: String) -> String {
    with_variable_store(graph, |store| {
        let unused = |name: &String| store.scope_uses.get(name).is_none_or(|&uses| uses == 0);
        std::iter::once(name.clone())
            .chain((1..).map(|number| format!("{name}_{number}")))
            .find(unused)
            .unwrap_or(name)
    })
}

/// What leaving a scope does to the counts of scopes.
enum Close {
    /// Those inside it are new again when the scope is entered again.
    Forget,
    /// All are as they were.
    Restore(HashMap<String, usize>),
}

/// Keeps a variable scope entered; the scope ends where the guard is dropped.
#[must_use = "the scope ends where its guard is dropped; bind it to a name such as `_scope`"]
pub struct VariableScope {
    object: VariableScopeObject,
    close: Close,
    _guard: ScopeGuard,
}

impl VariableScope {
    /// Begins to enter a scope with options: by its name, or again by its object.
    pub fn of(scope: impl Into<VariableScopeName>) -> EnterVariableScope {
        EnterVariableScope::new(scope.into())
    }

    /// Begins to enter a scope of this name, or where one was entered by it in the current scope, of the name with a number.
    pub fn by_default(name: impl Into<String>) -> EnterVariableScope {
        EnterVariableScope::new(VariableScopeName::Default(name.into()))
    }

    /// The scope as a thing to keep, and to enter again.
    pub fn object(&self) -> VariableScopeObject {
        self.object.clone()
    }

    /// Its full name, without a slash at the end.
    pub fn name(&self) -> &str {
        self.object.name()
    }

    /// The name scope that was opened with it, with a slash at the end.
    pub fn original_name_scope(&self) -> &str {
        self.object.original_name_scope()
    }
}

impl Drop for VariableScope {
    fn drop(&mut self) {
        let inside = format!("{}/", self.object.state.name);
        with_variable_store(&self.object.graph, |store| match &mut self.close {
            Close::Forget => {
                for (name, uses) in &mut store.scope_uses {
                    if name.starts_with(&inside) {
                        *uses = 0;
                    }
                }
            }
            Close::Restore(uses) => {
                store.scope_uses.clear();
                store.scope_uses.extend(uses.drain());
            }
        });
    }
}

/// Enters a variable scope of the current graph until the guard is dropped: `get_variable` puts its name before those of
/// variables, and a name scope of the same (last) name is opened, numbered where it exists. A string names a scope inside
/// the current one; a [`VariableScopeObject`] is entered again as it is, whatever is around.
///
/// # Errors
/// As for [`EnterVariableScope::enter`].
pub fn variable_scope(scope: impl Into<VariableScopeName>) -> Result<VariableScope> {
    VariableScope::of(scope).enter()
}

/// Enters a variable scope of this name, numbered if it was entered before inside the current one: for functions that may be
/// called several times and share nothing.
///
/// # Errors
/// As for [`EnterVariableScope::enter`].
pub fn variable_scope_default(name: &str) -> Result<VariableScope> {
    VariableScope::by_default(name).enter()
}

/// Runs `body` inside a variable scope.
///
/// # Errors
/// Those of [`variable_scope`] and of `body`.
pub fn in_variable_scope<R>(scope: impl Into<VariableScopeName>, body: impl FnOnce() -> Result<R>) -> Result<R> {
    let _scope = variable_scope(scope)?;
    body()
}

/// The innermost variable scope of the thread in the current graph.
pub fn get_variable_scope() -> VariableScopeObject {
    let graph = Graph::current();
    let state = current_variable_scope(&graph);
    VariableScopeObject { graph, state }
}
