//! `VariableV2`, `Variable` and `IsVariableInitialized`: the nodes that hold a session's state, and whether they hold any.

use graph_core::graph::IntoOperand;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition};
use graph_core::{PartialShape, Result, typed_builder};

use super::update::is_handle;

/// `VariableV2`
pub(crate) fn variable_v2() -> OpDefinition {
    definition(
        "VariableV2",
        "A variable of the session: its output is a reference to it.",
    )
    .shape(|context| {
        let shape: PartialShape = context.attr("shape")?;
        context.set_output(0, shape);
        Ok(())
    })
}

/// `Variable`: as old graphs have it; a shape without dimensions means an unknown one there.
pub(crate) fn variable() -> OpDefinition {
    definition(
        "Variable",
        "A variable of the session, as graphs made before VariableV2 have it.",
    )
    .shape(|context| {
        let shape: PartialShape = context.attr("shape")?;
        if shape.rank() != Some(0) {
            context.set_output(0, shape);
        }
        Ok(())
    })
}

fn definition(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .output("ref: Ref(dtype)")
        .attr("shape: shape")
        .attr("dtype: type")
        .attr("container: string = ''")
        .attr("shared_name: string = ''")
        .stateful()
        .not_differentiable()
        // What the output refers to is the session's business.
        .kernel(KernelDefinition::direct(|_| Ok(())))
}

/// `IsVariableInitialized`
pub(crate) fn is_variable_initialized_definition() -> OpDefinition {
    OpDefinition::new("IsVariableInitialized", "Whether a variable has a value.")
        .input("ref: Ref(dtype)")
        .output("is_initialized: bool")
        .attr("dtype: type")
        .allows_uninitialized_input()
        .shape(InferenceContext::scalars)
        .not_differentiable()
        .kernel(KernelDefinition::direct(tell_initialized))
}

pub(super) fn tell_initialized(context: &mut KernelContext<'_>) -> Result<()> {
    let initialized = context.variable(0)?.is_initialized();
    context.output::<bool>(0)?[0] = initialized;
    Ok(())
}

typed_builder! {
    /// A question about to be asked; see [`is_variable_initialized`].
    pub struct IsVariableInitialized;
}

/// Whether `variable` has a value in the session that runs the op: a `bool` scalar.
#[track_caller]
pub fn is_variable_initialized(variable: impl IntoOperand) -> IsVariableInitialized {
    let operand = variable.into_operand();
    let op = if is_handle(&operand) {
        "VarIsInitializedOp"
    } else {
        "IsVariableInitialized"
    };
    IsVariableInitialized(crate::op(op).input(operand))
}
