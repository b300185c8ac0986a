//! Gradient descent with momentum.

use graph_core::graph::{IntoOperand, Operand};
use graph_core::{Graph, Operation, Result, Tensor, Variable};

use super::optimizer::{Optimizer, OptimizerState, cast_to, parameter, update_of};
use crate::state::zeros_initializer;

/// Gradient descent with momentum: a running sum of gradients, `accum = momentum * accum + gradient`, is what variables move
/// against.
#[derive(Debug)]
pub struct MomentumOptimizer {
    state: OptimizerState,
    learning_rate: Operand,
    momentum: Operand,
    use_nesterov: bool,
}

impl MomentumOptimizer {
    /// An optimizer with this learning rate and momentum, numbers or tensors.
    pub fn new(learning_rate: impl IntoOperand, momentum: impl IntoOperand) -> Self {
        Self {
            state: OptimizerState::new("Momentum"),
            learning_rate: learning_rate.into_operand(),
            momentum: momentum.into_operand(),
            use_nesterov: false,
        }
    }

    /// Uses Nesterov's momentum (Sutskever and others, 2013).
    pub fn use_nesterov(mut self, nesterov: bool) -> Self {
        self.use_nesterov = nesterov;
        self
    }

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

impl Optimizer for MomentumOptimizer {
    fn state(&self) -> &OptimizerState {
        &self.state
    }

    fn create_slots(&self, variables: &[Variable]) -> Result<()> {
        let make = |variable| self.state.make_slot(variable, "momentum", zeros_initializer());
        variables.iter().try_for_each(make)
    }

    fn prepare(&self, graph: &Graph) -> Result<Vec<Tensor>> {
        Ok(vec![
            parameter(graph, &self.learning_rate, "learning_rate")?,
            parameter(graph, &self.momentum, "momentum")?,
        ])
    }

    fn apply_dense(&self, gradient: &Tensor, variable: &Variable, parameters: &[Tensor]) -> Result<Operation> {
        update_of(variable, "ApplyMomentum")
            .input(self.state.expect_slot(variable, "momentum")?)
            .input(cast_to(variable, &parameters[0]))
            .input(gradient)
            .input(cast_to(variable, &parameters[1]))
            .attr("use_locking", self.state.use_locking())
            .attr("use_nesterov", self.use_nesterov)
            .build_operation()
    }
}
