//! Adam.

use graph_core::graph::scope;
use graph_core::graph::{IntoOperand, OpBuilder, Operand};
use graph_core::{Error, Graph, Operation, Result, Tensor, Variable};

use super::optimizer::{Optimizer, OptimizerState, cast_to, optimizer, parameter, update_of};
use crate::state::{assign, zeros_initializer};

optimizer! {
    /// Adam (Kingma and Ba, 2014): steps by running means of gradients and of their squares, corrected for their start at 0.
    AdamOptimizer("Adam") {
        /// How much of the mean of gradients stays in each step; 0.9 without.
        beta1 = 0.9,
        /// How much of the mean of squares stays in each step; 0.999 without.
        beta2 = 0.999,
        /// What keeps divisors from 0 ("epsilon hat" of the paper); 1e-8 without.
        epsilon = 1e-8,
    }
}

impl Optimizer for AdamOptimizer {
    fn state(&self) -> &OptimizerState {
        &self.state
    }

    fn create_slots(&self, variables: &[Variable]) -> Result<()> {
        let first = variables
            .iter()
            .min_by_key(|variable| variable.name())
            .ok_or_else(|| Error::invalid_argument("No variables to optimize."))?;
        self.state.make_own("beta1_power", &self.beta1, first)?;
        self.state.make_own("beta2_power", &self.beta2, first)?;
        for variable in variables {
            self.state.make_slot(variable, "m", zeros_initializer())?;
            self.state.make_slot(variable, "v", zeros_initializer())?;
        }
        Ok(())
    }

    fn prepare(&self, graph: &Graph) -> Result<Vec<Tensor>> {
        Ok(vec![
            parameter(graph, &self.learning_rate, "learning_rate")?,
            parameter(graph, &self.beta1, "beta1")?,
            parameter(graph, &self.beta2, "beta2")?,
            parameter(graph, &self.epsilon, "epsilon")?,
        ])
    }

    fn apply_dense(&self, gradient: &Tensor, variable: &Variable, parameters: &[Tensor]) -> Result<Operation> {
        let mut update = update_of(variable, "ApplyAdam")
            .input(self.state.expect_slot(variable, "m")?)
            .input(self.state.expect_slot(variable, "v")?)
            .input(cast_to(
                variable,
                self.state.expect_own(variable.graph(), "beta1_power")?,
            ))
            .input(cast_to(
                variable,
                self.state.expect_own(variable.graph(), "beta2_power")?,
            ));
        for parameter in parameters {
            update = update.input(cast_to(variable, parameter));
        }
        update
            .input(gradient)
            .attr("use_locking", self.state.use_locking())
            .build_operation()
    }

    /// After all updates the powers of the betas go one step on.
    fn finish(&self, updates: Vec<Operation>, name: &str, parameters: &[Tensor]) -> Result<Operation> {
        let graph = parameters[0].graph();
        let mut all = updates;
        {
            let _after = scope::control_dependencies(&all.clone())?;
            let power1 = self.state.expect_own(graph, "beta1_power")?;
            let power2 = self.state.expect_own(graph, "beta2_power")?;
            let _colocated = scope::colocate_with(&power1.op());
            for (power, beta) in [(&power1, &parameters[1]), (&power2, &parameters[2])] {
                // A resource variable is read beside the product, as Python's operators do.
                let next = OpBuilder::new("Mul").input(power.read_value()?).input(beta).name("mul");
                let (assigned, _) = assign(power, next)
                    .use_locking(self.state.use_locking())
                    .build_with_operation()?;
                all.push(assigned);
            }
        }
        crate::control::group(all, name)
    }
}
