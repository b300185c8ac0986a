//! Which variables there are, and the operations that initialize them.

use graph_core::graph::{Collectable, keys};
use graph_core::{Graph, Operation, Result, Variable};

/// The graph that operations are added to: `Graph::current()` under the name that Python programs know.
pub fn get_default_graph() -> Graph {
    Graph::current()
}

/// Adds a thing to the collection `key` of the current graph.
pub fn add_to_collection(key: &str, item: &impl Collectable) {
    Graph::current().add_to_collection(key, item);
}

/// The things of type `T` in the collection `key` of the current graph, in the order they were added.
///
/// # Errors
/// `InvalidArgument` if it holds things of another type.
pub fn get_collection<T: Collectable>(key: &str) -> Result<Vec<T>> {
    Graph::current().get_collection(key)
}

/// The variables of the current graph that a session initializes and a checkpoint saves.
///
/// # Errors
/// `InvalidArgument` if something else was put into their collection.
pub fn global_variables() -> Result<Vec<Variable>> {
    get_collection(keys::GLOBAL_VARIABLES)
}

/// The variables of the current graph that optimizers update.
///
/// # Errors
/// As for [`global_variables`].
pub fn trainable_variables() -> Result<Vec<Variable>> {
    get_collection(keys::TRAINABLE_VARIABLES)
}

/// The variables of the current graph that are not saved, as counters of metrics.
///
/// # Errors
/// As for [`global_variables`].
pub fn local_variables() -> Result<Vec<Variable>> {
    get_collection(keys::LOCAL_VARIABLES)
}

/// An operation that sets all [`global_variables`] to their initial values.
///
/// # Errors
/// `FailedPrecondition` if the graph is finalized.
#[track_caller]
pub fn global_variables_initializer() -> Result<Operation> {
    variables_initializer(&global_variables()?, "init")
}

/// An operation that sets all [`local_variables`] to their initial values.
///
/// # Errors
/// `FailedPrecondition` if the graph is finalized.
#[track_caller]
pub fn local_variables_initializer() -> Result<Operation> {
    variables_initializer(&local_variables()?, "init")
}

/// An operation of this name that sets the variables to their initial values.
///
/// # Errors
/// `InvalidArgument` for a bad name, `FailedPrecondition` if the graph is finalized.
#[track_caller]
pub fn variables_initializer(variables: &[Variable], name: &str) -> Result<Operation> {
    let initializers: Vec<Operation> = variables
        .iter()
        .map(|variable| variable.initializer().clone())
        .collect();
    crate::control::group(&initializers, name)
}
