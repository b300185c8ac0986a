//! Variables: their ops, the updates of optimizers, scopes that share variables by name, initializers.

mod apply;
mod assign;
mod count_up_to;
mod get_variable;
mod initialize;
pub mod initializers;
pub mod regularizers;
mod report;
mod scatter;
#[cfg(test)]
mod tests;
mod variable;
mod variable_scope;

pub use assign::{Assign, AssignAdd, AssignSub, assign, assign_add, assign_sub};
pub use count_up_to::{CountUpTo, count_up_to};
pub use get_variable::{GetVariable, get_local_variable, get_variable};
pub use initialize::{
    add_to_collection, get_collection, get_default_graph, global_variables, global_variables_initializer,
    local_variables, local_variables_initializer, trainable_variables, variables_initializer,
};
pub use initializers::{
    Initializer, constant_initializer, glorot_normal_initializer, glorot_uniform_initializer, he_normal_initializer,
    he_uniform_initializer, identity_initializer, lecun_normal_initializer, lecun_uniform_initializer,
    ones_initializer, random_normal_initializer, random_uniform_initializer, truncated_normal_initializer,
    uniform_unit_scaling_initializer, variance_scaling_initializer, zeros_initializer,
};
pub use regularizers::{Regularizer, l1_l2_regularizer, l1_regularizer, l2_regularizer};
pub use report::report_uninitialized_variables;
pub use scatter::{
    ScatterAdd, ScatterDiv, ScatterMax, ScatterMin, ScatterMul, ScatterNdAdd, ScatterNdSub, ScatterNdUpdate,
    ScatterSub, ScatterUpdate, scatter_add, scatter_div, scatter_max, scatter_min, scatter_mul, scatter_nd_add,
    scatter_nd_sub, scatter_nd_update, scatter_sub, scatter_update,
};
pub use variable::{IsVariableInitialized, is_variable_initialized};
pub use variable_scope::{
    EnterVariableScope, VariableScope, VariableScopeName, VariableScopeObject, get_variable_scope, in_variable_scope,
    variable_scope, variable_scope_default,
};

use graph_core::op::OpDefinition;

/// The family's op definitions.
pub(crate) const OPS: &[fn() -> OpDefinition] = &[
    variable::variable_v2,
    variable::variable,
    variable::is_variable_initialized_definition,
    assign::assign_definition,
    assign::assign_add_definition,
    assign::assign_sub_definition,
    count_up_to::definition,
    scatter::update_definition,
    scatter::add_definition,
    scatter::sub_definition,
    scatter::mul_definition,
    scatter::div_definition,
    scatter::min_definition,
    scatter::max_definition,
    scatter::nd_update_definition,
    scatter::nd_add_definition,
    scatter::nd_sub_definition,
    apply::gradient_descent::gradient_descent,
    apply::gradient_descent::momentum,
    apply::gradient_descent::proximal,
    apply::adam::adam,
    apply::adam::ada_max,
    apply::rms_prop::rms_prop,
    apply::rms_prop::centered,
    apply::adagrad::adagrad,
    apply::adagrad::adagrad_da,
    apply::adagrad::proximal,
    apply::adagrad::adadelta,
    apply::ftrl::ftrl,
    apply::ftrl::ftrl_v2,
    apply::sign::add_sign,
    apply::sign::power_sign,
];
