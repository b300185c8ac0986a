//! Gradient descent.

use graph_core::graph::{IntoOperand, Operand};
use graph_core::{Graph, Operation, Result, Tensor, Variable};

use super::optimizer::{Optimizer, OptimizerState, cast_to, optimizer, parameter, update_of};

optimizer! {
    /// Plain gradient descent: each variable moves against its gradient, times the learning rate.
    GradientDescentOptimizer("GradientDescent") {}
}

impl Optimizer for GradientDescentOptimizer {
    fn state(&self) -> &OptimizerState {
        &self.state
    }

    fn prepare(&self, graph: &Graph) -> Result<Vec<Tensor>> {
        Ok(vec![parameter(graph, &self.learning_rate, "learning_rate")?])
    }

    fn apply_dense(&self, gradient: &Tensor, variable: &Variable, parameters: &[Tensor]) -> Result<Operation> {
        update_of(variable, "ApplyGradientDescent")
            .input(cast_to(variable, &parameters[0]))
            .input(gradient)
            .attr("use_locking", self.state.use_locking())
            .build_operation()
    }
}
