//! Order and choice: groups of operations, branches, loops and what they are made of, assertions and printing.

mod assert;
mod checks;
mod cond;
mod context;
mod flow;
mod group;
mod print;
mod stack;
mod summarize;
mod tensor_array;
mod while_loop;

pub use assert::{Assert, assert};
pub use checks::{
    Check, assert_equal, assert_greater, assert_greater_equal, assert_integer, assert_less, assert_less_equal,
    assert_near, assert_negative, assert_non_negative, assert_non_positive, assert_none_equal, assert_positive,
    assert_rank, assert_rank_at_least, assert_type, is_non_decreasing, is_strictly_increasing,
};
pub use cond::{BranchPart, BranchResult, BranchValue, Cond, cond};
pub use flow::{Merged, merge, switch};
pub use group::{IntoOperations, group, no_op, tuple, with_dependencies};
pub use print::{Print, print_};
pub use tensor_array::TensorArray;
pub use while_loop::{LoopVariables, WhileLoop, while_loop};

use graph_core::op::OpDefinition;

#[cfg(test)]
mod cond_tests;
#[cfg(test)]
pub(crate) mod loop_tests;

#[cfg(test)]
use crate::testing::{Case, GradientCase};

/// The family's op definitions.
pub(crate) const OPS: &[fn() -> OpDefinition] = &[
    group::no_op_definition,
    group::control_trigger,
    flow::switch_definition,
    flow::ref_switch,
    flow::merge_definition,
    flow::ref_merge,
    flow::enter,
    flow::ref_enter,
    flow::exit,
    flow::ref_exit,
    flow::next_iteration,
    flow::ref_next_iteration,
    flow::loop_cond,
    stack::stack,
    stack::push,
    stack::pop,
    stack::close,
    tensor_array::ops::array,
    tensor_array::ops::grad,
    tensor_array::ops::grad_with_shape,
    tensor_array::ops::write,
    tensor_array::ops::read,
    tensor_array::ops::gather,
    tensor_array::ops::scatter,
    tensor_array::ops::concat,
    tensor_array::ops::split,
    tensor_array::ops::size,
    tensor_array::ops::close,
    assert::definition,
    assert::abort,
    print::definition,
    print::print_v2,
    print::string_format,
];

/// The family's numeric test cases.
#[cfg(test)]
pub(crate) const CASES: &[fn() -> Vec<Case>] = &[flow::cases, group::cases, assert::cases, print::cases];

/// The family's gradient test cases.
#[cfg(test)]
pub(crate) const GRADIENT_CASES: &[fn() -> Vec<GradientCase>] = &[print::gradient_cases];
