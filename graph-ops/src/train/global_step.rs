//! The counter of training steps.

use graph_core::graph::keys;
use graph_core::graph::scope::name_scope_in;
use graph_core::{DType, Error, Graph, Result, Variable};

use crate::state::{get_variable, zeros_initializer};

/// The current graph's counter of training steps, if it has one.
///
/// # Errors
/// `InvalidArgument` if several variables are called so.
pub fn get_global_step() -> Result<Option<Variable>> {
    let mut steps: Vec<Variable> = Graph::current().get_collection(keys::GLOBAL_STEP)?;
    match steps.len() {
        0 => {
            let all: Vec<Variable> = Graph::current().get_collection(keys::GLOBAL_VARIABLES)?;
            Ok(all.into_iter().find(|variable| variable.name() == "global_step:0"))
        }
        1 => Ok(steps.pop()),
        _ => Err(Error::invalid_argument("Multiple tensors in global_step collection.")),
    }
}

/// Makes the current graph's counter of training steps: an `int64` scalar named `global_step` that starts at 0.
///
/// # Errors
/// `InvalidArgument` if there is one already.
pub fn create_global_step() -> Result<Variable> {
    if let Some(step) = get_global_step()? {
        return Err(Error::invalid_argument("\"global_step\" already exists.").at(step.op().site()));
    }
    let graph = Graph::current();
    let _top = name_scope_in(&graph, "")?;
    get_variable(keys::GLOBAL_STEP, ())
        .dtype(DType::Int64)
        .initializer(zeros_initializer())
        .trainable(false)
        .collections([keys::GLOBAL_VARIABLES, keys::GLOBAL_STEP])
        .build()
}

/// The current graph's counter of training steps; made if there is none.
///
/// # Errors
/// As for [`get_global_step`] and [`create_global_step`].
pub fn get_or_create_global_step() -> Result<Variable> {
    match get_global_step()? {
        Some(step) => Ok(step),
        None => create_global_step(),
    }
}
