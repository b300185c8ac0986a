//! RMSProp.

use graph_core::graph::{IntoOperand, Operand};
use graph_core::{Graph, Operation, Result, Tensor, Variable};

use super::optimizer::{Optimizer, OptimizerState, cast_to, parameter, update_of};
use crate::state::{ones_initializer, zeros_initializer};

/// RMSProp (Hinton, 2012): gradients divided by the root of a running mean of their squares, with momentum.
#[derive(Debug)]
pub struct RmsPropOptimizer {
    state: OptimizerState,
    learning_rate: Operand,
    decay: Operand,
    momentum: Operand,
    epsilon: Operand,
    centered: bool,
}

impl RmsPropOptimizer {
    /// An optimizer with this learning rate, a number or a tensor, and the usual values of its other parameters.
    pub fn new(learning_rate: impl IntoOperand) -> Self {
        Self {
            state: OptimizerState::new("RMSProp"),
            learning_rate: learning_rate.into_operand(),
            decay: 0.9f64.into_operand(),
            momentum: 0.0f64.into_operand(),
            epsilon: 1e-10f64.into_operand(),
            centered: false,
        }
    }

    /// How much of the mean of squares stays in each step; 0.9 without.
    pub fn decay(mut self, decay: impl IntoOperand) -> Self {
        self.decay = decay.into_operand();
        self
    }

    /// How much of the last step goes into the next; 0 without.
    pub fn momentum(mut self, momentum: impl IntoOperand) -> Self {
        self.momentum = momentum.into_operand();
        self
    }

    /// What keeps divisors from 0; 1e-10 without.
    pub fn epsilon(mut self, epsilon: impl IntoOperand) -> Self {
        self.epsilon = epsilon.into_operand();
        self
    }

    /// Divides by the root of the variance in place of the mean square.
    pub fn centered(mut self, centered: bool) -> Self {
        self.centered = centered;
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

impl Optimizer for RmsPropOptimizer {
    fn state(&self) -> &OptimizerState {
        &self.state
    }

    fn create_slots(&self, variables: &[Variable]) -> Result<()> {
        for variable in variables {
            self.state.make_slot(variable, "rms", ones_initializer())?;
            if self.centered {
                self.state.make_slot(variable, "mg", zeros_initializer())?;
            }
            self.state.make_slot(variable, "momentum", zeros_initializer())?;
        }
        Ok(())
    }

    fn prepare(&self, graph: &Graph) -> Result<Vec<Tensor>> {
        Ok(vec![
            parameter(graph, &self.learning_rate, "learning_rate")?,
            parameter(graph, &self.decay, "decay")?,
            parameter(graph, &self.momentum, "momentum")?,
            parameter(graph, &self.epsilon, "epsilon")?,
        ])
    }

    fn apply_dense(&self, gradient: &Tensor, variable: &Variable, parameters: &[Tensor]) -> Result<Operation> {
        let (op, slots): (_, &[&str]) = if self.centered {
            ("ApplyCenteredRMSProp", &["mg", "rms", "momentum"])
        } else {
            ("ApplyRMSProp", &["rms", "momentum"])
        };
        let mut update = update_of(variable, op);
        for slot in slots {
            update = update.input(self.state.expect_slot(variable, slot)?);
        }
        for parameter in parameters {
            update = update.input(cast_to(variable, parameter));
        }
        update
            .input(gradient)
            .attr("use_locking", self.state.use_locking())
            .build_operation()
    }
}
