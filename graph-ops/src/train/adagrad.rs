//! Adagrad and Adadelta.

use graph_core::graph::{IntoOperand, Operand};
use graph_core::{Graph, Operation, Result, Tensor, Variable};

use super::optimizer::{Optimizer, OptimizerState, cast_to, optimizer, parameter, update_of};
use crate::state::{constant_initializer, zeros_initializer};

optimizer! {
    /// Adagrad (Duchi, Hazan and Singer, 2011): gradients divided by the root of the sum of all their squares.
    AdagradOptimizer("Adagrad") {
        /// What the sums start at, a positive number; 0.1 without.
        initial_accumulator_value = 0.1,
    }
}

impl Optimizer for AdagradOptimizer {
    fn state(&self) -> &OptimizerState {
        &self.state
    }

    fn create_slots(&self, variables: &[Variable]) -> Result<()> {
        for variable in variables {
            let initializer = constant_initializer(&self.initial_accumulator_value);
            self.state.make_slot(variable, "accumulator", initializer)?;
        }
        Ok(())
    }

    fn prepare(&self, graph: &Graph) -> Result<Vec<Tensor>> {
        Ok(vec![parameter(graph, &self.learning_rate, "learning_rate")?])
    }

    fn apply_dense(&self, gradient: &Tensor, variable: &Variable, parameters: &[Tensor]) -> Result<Operation> {
        update_of(variable, "ApplyAdagrad")
            .input(self.state.expect_slot(variable, "accumulator")?)
            .input(cast_to(variable, &parameters[0]))
            .input(gradient)
            .attr("use_locking", self.state.use_locking())
            .build_operation()
    }
}

optimizer! {
    /// Adadelta (Zeiler, 2012): steps whose size follows the sizes of earlier steps.
    AdadeltaOptimizer("Adadelta") {
        /// How much of the running means stays in each step; 0.95 without.
        rho = 0.95,
        /// What keeps divisors from 0; 1e-8 without.
        epsilon = 1e-8,
    }
}

impl Default for AdadeltaOptimizer {
    /// TensorFlow's learning rate of 0.001.
    fn default() -> Self {
        Self::new(0.001)
    }
}

impl Optimizer for AdadeltaOptimizer {
    fn state(&self) -> &OptimizerState {
        &self.state
    }

    fn create_slots(&self, variables: &[Variable]) -> Result<()> {
        for variable in variables {
            self.state.make_slot(variable, "accum", zeros_initializer())?;
            self.state.make_slot(variable, "accum_update", zeros_initializer())?;
        }
        Ok(())
    }

    fn prepare(&self, graph: &Graph) -> Result<Vec<Tensor>> {
        Ok(vec![
            parameter(graph, &self.learning_rate, "lr")?,
            parameter(graph, &self.rho, "rho")?,
            parameter(graph, &self.epsilon, "epsilon")?,
        ])
    }

    fn apply_dense(&self, gradient: &Tensor, variable: &Variable, parameters: &[Tensor]) -> Result<Operation> {
        let mut update = update_of(variable, "ApplyAdadelta")
            .input(self.state.expect_slot(variable, "accum")?)
            .input(self.state.expect_slot(variable, "accum_update")?);
        for parameter in parameters {
            update = update.input(cast_to(variable, parameter));
        }
        update
            .input(gradient)
            .attr("use_locking", self.state.use_locking())
            .build_operation()
    }
}
