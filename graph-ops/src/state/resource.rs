//! `VarHandleOp`, `ReadVariableOp` and what else looks at resource variables: those that a handle names.
//!
//! A handle is a scalar of dtype `resource`. Its op says the variable's container, name, dtype and shape; handles of the same
//! container and name are the same variable. Nothing exists under a name before a value is assigned.

use graph_core::graph::{HandleData, IntoOperand, OpBuilder};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition, Planned};
use graph_core::{DType, Error, Operation, PartialShape, Result, Value, Variable};

/// `VarHandleOp`
pub(crate) fn var_handle() -> OpDefinition {
    OpDefinition::new("VarHandleOp", "A handle of a variable of the session.")
        .output("resource: resource")
        .attr("container: string = ''")
        .attr("shared_name: string = ''")
        .attr("dtype: type")
        .attr("shape: shape")
        .stateful()
        .shape(|context| {
            let (dtype, shape) = (context.attr("dtype")?, context.attr("shape")?);
            context.set_output(0, PartialShape::scalar());
            context.set_handle(0, HandleData { dtype, shape });
            Ok(())
        })
        .not_differentiable()
        // What the output names is the session's business.
        .kernel(KernelDefinition::direct(|_| Ok(())))
}

/// `ReadVariableOp`
pub(crate) fn read_variable() -> OpDefinition {
    OpDefinition::new("ReadVariableOp", "The value of the variable that a handle names.")
        .input("resource: resource")
        .output("value: dtype")
        .attr("dtype: type")
        .stateful()
        .only_reads()
        .shape(|context| {
            let shape = context.variable_of(0, context.attr("dtype")?)?;
            context.set_output(0, shape);
            Ok(())
        })
        .gradient(|context| Ok(vec![Some(context.gradient(0)?)]))
        // Where the shape is known beforehand, the session itself tells where the value lies.
        .kernel(
            KernelDefinition::cpu(|request| {
                let dtype = request.output_dtype(0);
                Ok(Planned::new(move |context| {
                    let value = existing(context, 0)?;
                    if value.dtype() != dtype {
                        return Err(
                            Error::invalid_argument("the variable is read as another dtype than it has")
                                .expected(value.dtype())
                                .got(dtype),
                        );
                    }
                    // Shared with the variable: whoever changes it copies it first.
                    let value = value.clone();
                    context.set_output(0, value);
                    Ok(())
                }))
            })
            .data_dependent(),
        )
}

/// `VarIsInitializedOp`
pub(crate) fn var_is_initialized() -> OpDefinition {
    OpDefinition::new(
        "VarIsInitializedOp",
        "Whether the variable that a handle names has a value.",
    )
    .input("resource: resource")
    .output("is_initialized: bool")
    .stateful()
    .only_reads()
    .allows_uninitialized_input()
    .shape(InferenceContext::scalars)
    .not_differentiable()
    .kernel(KernelDefinition::direct(super::variable::tell_initialized))
}

/// `DestroyResourceOp`
pub(crate) fn destroy_resource() -> OpDefinition {
    OpDefinition::new(
        "DestroyResourceOp",
        "Drops the variable that a handle names; that there is none is an error unless it is to be ignored.",
    )
    .input("resource: resource")
    .attr("ignore_lookup_error: bool = true")
    .stateful()
    .allows_uninitialized_input()
    .no_gradient()
    .kernel(KernelDefinition::cpu(|request| {
        let ignore: bool = request.attr("ignore_lookup_error")?;
        Ok(Planned::new(move |context| match context.variable(0)?.value.take() {
            None if !ignore => Err(Error::not_found("the variable to destroy does not exist")),
            _ => Ok(()),
        }))
    }))
}

/// `VariableShape`
pub(crate) fn variable_shape() -> OpDefinition {
    OpDefinition::new("VariableShape", "The shape of the variable that a handle names.")
        .input("input: resource")
        .output("output: out_type")
        .attr("out_type: {int32, int64} = DT_INT32")
        .stateful()
        .only_reads()
        .shape(|context| {
            let rank = context.variable_shape(0).rank();
            context.set_output(0, PartialShape::from_dims([rank]));
            Ok(())
        })
        .value_as_shape(|context, _| Some(context.variable_shape(0)))
        .not_differentiable()
        .kernel(
            KernelDefinition::cpu(|request| {
                let dtype = request.output_dtype(0);
                Ok(Planned::new(move |context| {
                    let dims: Vec<i64> = existing(context, 0)?.shape().iter().map(|&dim| dim as i64).collect();
                    context.set_output(0, Value::from(dims).cast_exactly(dtype)?);
                    Ok(())
                }))
            })
            .data_dependent(),
        )
}

/// The value of the variable that input `index`, a handle, names.
pub(super) fn existing<'c>(context: &'c mut KernelContext<'_>, index: usize) -> Result<&'c Value> {
    let cell = context.variable(index)?;
    cell.value.as_ref().ok_or_else(not_existing)
}

pub(super) fn not_existing() -> Error {
    Error::not_found("the variable does not exist before a value is assigned")
}

/// An operation that drops the value of a resource variable: it is uninitialized again.
///
/// # Errors
/// `InvalidArgument` if it is no resource variable.
#[track_caller]
pub fn destroy_variable(variable: &Variable) -> Result<Operation> {
    crate::op("DestroyResourceOp")
        .input(variable.handle()?)
        .build_operation()
}

/// The shape of the resource variable whose handle (or which itself) is `variable`, as an `int32` vector.
///
/// # Errors
/// `NotFound` in a run if it is not initialized.
#[track_caller]
pub fn variable_shape_of(variable: impl IntoOperand) -> OpBuilder {
    crate::op("VariableShape")
        .input(variable)
        .attr("out_type", DType::Int32)
}
