//! FTRL-proximal.

use graph_core::graph::scope;
use graph_core::graph::{IntoOperand, Operand};
use graph_core::{DType, Graph, Operation, Result, Tensor, Variable};

use super::optimizer::{Optimizer, OptimizerState, cast_to, optimizer, parameter, update_of};
use crate::state::{Initializer, constant_initializer, zeros_initializer};

optimizer! {
    /// FTRL-proximal (McMahan and others, 2013): for large sparse linear models.
    FtrlOptimizer("Ftrl") {
        /// How the learning rate falls with the accumulated squares, at most 0; -0.5 without.
        learning_rate_power = -0.5,
        /// What the accumulators start at; 0.1 without.
        initial_accumulator_value = 0.1,
        /// Draws weights to 0; 0 without.
        l1_regularization_strength = 0.0,
        /// Keeps weights small; 0 without.
        l2_regularization_strength = 0.0,
        /// Keeps active weights small by a penalty on their magnitude, as if it were part of the loss; 0 without.
        l2_shrinkage_regularization_strength = 0.0,
    }
}

impl Optimizer for FtrlOptimizer {
    fn state(&self) -> &OptimizerState {
        &self.state
    }

    fn create_slots(&self, variables: &[Variable]) -> Result<()> {
        for variable in variables {
            make_constant_slot(&self.state, variable, "accum", &self.initial_accumulator_value)?;
            self.state.make_slot(variable, "linear", zeros_initializer())?;
        }
        Ok(())
    }

    fn prepare(&self, graph: &Graph) -> Result<Vec<Tensor>> {
        [
            (&self.learning_rate, "learning_rate"),
            (&self.l1_regularization_strength, "l1_regularization_strength"),
            (&self.l2_regularization_strength, "l2_regularization_strength"),
            (
                &self.l2_shrinkage_regularization_strength,
                "l2_shrinkage_regularization_strength",
            ),
            (&self.learning_rate_power, "learning_rate_power"),
        ]
        .into_iter()
        .map(|(operand, name)| parameter(graph, operand, name))
        .collect()
    }

    fn apply_dense(&self, gradient: &Tensor, variable: &Variable, parameters: &[Tensor]) -> Result<Operation> {
        let shrinks = match self
            .l2_shrinkage_regularization_strength
            .to_value(Some(DType::Float64))?
        {
            Some(value) => value.to_scalar::<f64>()? > 0.0,
            None => true,
        };
        let mut update = update_of(variable, if shrinks { "ApplyFtrlV2" } else { "ApplyFtrl" })
            .input(self.state.expect_slot(variable, "accum")?)
            .input(self.state.expect_slot(variable, "linear")?)
            .input(gradient);
        for (index, parameter) in parameters.iter().enumerate() {
            if index != 3 || shrinks {
                update = update.input(cast_to(variable, parameter));
            }
        }
        update.attr("use_locking", self.state.use_locking()).build_operation()
    }
}

/// Makes a slot that starts from a constant beside its variable.
pub(super) fn make_constant_slot(
    state: &OptimizerState,
    variable: &Variable,
    name: &'static str,
    value: &Operand,
) -> Result<()> {
    if state.slot(variable, name).is_some() {
        return Ok(());
    }
    let shape = variable.shape().to_shape().ok_or_else(|| {
        graph_core::Error::invalid_argument("a variable with slots must have a fully known shape")
            .got(format!("{variable:?}"))
    })?;
    let initial = {
        let _colocated = scope::colocate_with(&variable.op());
        constant_initializer(value).initial_value(&shape, variable.dtype())?
    };
    state.make_slot_of_value(variable, name, &initial)
}
