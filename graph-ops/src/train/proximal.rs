//! Optimizers that draw variables to 0 after each step.

use graph_core::graph::{IntoOperand, OpBuilder, Operand};
use graph_core::{Graph, Operation, Result, Tensor, Variable};

use super::ftrl::make_constant_slot;
use super::optimizer::{Optimizer, OptimizerState, cast_to, optimizer, parameter, update_of};

optimizer! {
    /// Gradient descent with FOBOS (Duchi and Singer, 2009): after each step, variables are drawn to 0.
    ProximalGradientDescentOptimizer("ProximalGradientDescent") {
        /// How strongly by absolute value; 0 without.
        l1_regularization_strength = 0.0,
        /// How strongly by square; 0 without.
        l2_regularization_strength = 0.0,
    }
}

impl Optimizer for ProximalGradientDescentOptimizer {
    fn state(&self) -> &OptimizerState {
        &self.state
    }

    fn prepare(&self, graph: &Graph) -> Result<Vec<Tensor>> {
        Ok(vec![
            parameter(graph, &self.learning_rate, "learning_rate")?,
            parameter(graph, &self.l1_regularization_strength, "l1_regularization_strength")?,
            parameter(graph, &self.l2_regularization_strength, "l2_regularization_strength")?,
        ])
    }

    fn apply_dense(&self, gradient: &Tensor, variable: &Variable, parameters: &[Tensor]) -> Result<Operation> {
        let update = update_of(variable, "ApplyProximalGradientDescent");
        finish_update(update, &self.state, gradient, variable, parameters)
    }
}

optimizer! {
    /// Adagrad with FOBOS (Duchi and Singer, 2009): after each step, variables are drawn to 0.
    ProximalAdagradOptimizer("ProximalAdagrad") {
        /// What the sums of squares start at, a positive number; 0.1 without.
        initial_accumulator_value = 0.1,
        /// How strongly by absolute value; 0 without.
        l1_regularization_strength = 0.0,
        /// How strongly by square; 0 without.
        l2_regularization_strength = 0.0,
    }
}

impl Optimizer for ProximalAdagradOptimizer {
    fn state(&self) -> &OptimizerState {
        &self.state
    }

    fn create_slots(&self, variables: &[Variable]) -> Result<()> {
        let make = |variable| make_constant_slot(&self.state, variable, "accumulator", &self.initial_accumulator_value);
        variables.iter().try_for_each(make)
    }

    fn prepare(&self, graph: &Graph) -> Result<Vec<Tensor>> {
        Ok(vec![
            parameter(graph, &self.learning_rate, "learning_rate")?,
            parameter(graph, &self.l1_regularization_strength, "l1_regularization_strength")?,
            parameter(graph, &self.l2_regularization_strength, "l2_regularization_strength")?,
        ])
    }

    fn apply_dense(&self, gradient: &Tensor, variable: &Variable, parameters: &[Tensor]) -> Result<Operation> {
        let update = update_of(variable, "ApplyProximalAdagrad");
        let update = update.input(self.state.expect_slot(variable, "accumulator")?);
        finish_update(update, &self.state, gradient, variable, parameters)
    }
}

fn finish_update(
    mut update: OpBuilder,
    state: &OptimizerState,
    gradient: &Tensor,
    variable: &Variable,
    parameters: &[Tensor],
) -> Result<Operation> {
    for parameter in parameters {
        update = update.input(cast_to(variable, parameter));
    }
    update
        .input(gradient)
        .attr("use_locking", state.use_locking())
        .build_operation()
}
