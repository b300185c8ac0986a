//! Variables: their ops, the updates of optimizers, scopes that share variables by name, initializers.

pub(crate) mod apply;
mod assign;
mod count_up_to;
#[cfg(test)]
mod device_tests;
mod get_variable;
mod initialize;
pub mod initializers;
pub(crate) mod masked;
pub mod regularizers;
mod report;
mod resource;
mod resource_gather;
#[cfg(test)]
mod resource_tests;
mod scatter;
mod strided_slice_assign;
#[cfg(test)]
mod tests;
mod update;
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
pub use resource::{destroy_variable, variable_shape_of};
pub use resource_gather::gather_rows;
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

/// The updates of optimizers, a family beside this one.
pub(crate) use apply::{BY_HANDLE as UPDATES_BY_HANDLE, DENSE as DENSE_UPDATES, SPARSE as SPARSE_UPDATES};

/// The family's op definitions.
pub(crate) const OPS: &[fn() -> OpDefinition] = &[
    variable::variable_v2,
    variable::variable,
    variable::is_variable_initialized_definition,
    assign::assign_definition,
    assign::assign_add_definition,
    assign::assign_sub_definition,
    resource::var_handle,
    resource::read_variable,
    resource::var_is_initialized,
    resource::destroy_resource,
    resource::variable_shape,
    resource_gather::gather,
    resource_gather::gather_nd,
    strided_slice_assign::definition,
    strided_slice_assign::resource_definition,
    count_up_to::resource_definition,
    assign::assign_variable_definition,
    assign::assign_add_variable_definition,
    assign::assign_sub_variable_definition,
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
    scatter::resource_update_definition,
    scatter::resource_add_definition,
    scatter::resource_sub_definition,
    scatter::resource_mul_definition,
    scatter::resource_div_definition,
    scatter::resource_min_definition,
    scatter::resource_max_definition,
    scatter::resource_nd_update_definition,
    scatter::resource_nd_add_definition,
    scatter::resource_nd_sub_definition,
];

/// Runs the tests of what changes variables on a GPU.
#[cfg(test)]
pub(crate) fn run_updates_on_a_gpu() {
    apply::tests::updates_are_tensorflows_on_a_gpu();
    apply::tests::rows_that_come_up_again_are_updated_in_turn_on_a_gpu();
    device_tests::variables_are_updated_on_a_gpu().expect("the same variables");
    device_tests::parts_of_variables_are_picked_on_a_gpu().expect("the same parts");
    device_tests::parts_of_variables_are_set_on_a_gpu().expect("the same parts");
}
