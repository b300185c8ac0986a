//! `CountUpTo` and `ResourceCountUpTo`: a counter that ends a loop.

use graph_core::graph::{IntoOperand, Operand};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, typed_builder};

/// `CountUpTo`
pub(crate) fn definition() -> OpDefinition {
    let summary = "Adds one to a variable, and gives what it was; an error once it has reached the limit.";
    finish(OpDefinition::new("CountUpTo", summary).input("ref: Ref(T)"))
}

/// `ResourceCountUpTo`
pub(crate) fn resource_definition() -> OpDefinition {
    let summary =
        "Adds one to the variable that a handle names, and gives what it was; an error once it has reached the limit.";
    finish(OpDefinition::new("ResourceCountUpTo", summary).input("resource: resource")).stateful()
}

fn finish(definition: OpDefinition) -> OpDefinition {
    definition
        .not_differentiable()
        .output("output: T")
        .attr("limit: int")
        .attr("T: {int32, int64}")
        .may_fail()
        .shape(|context| {
            let shape = context.variable_of(0, context.attr("T")?)?;
            shape.merge(&PartialShape::scalar())?;
            InferenceContext::scalars(context)
        })
        .kernel(
            KernelDefinition::cpu(|request| {
                let limit: i64 = request.attr("limit")?;
                Ok(Planned::new(move |context| {
                    count::<i32>(context, limit, |old| (old.into(), old.wrapping_add(1)))
                }))
            })
            .types("T", &[DType::Int32]),
        )
        .kernel(
            KernelDefinition::cpu(|request| {
                let limit: i64 = request.attr("limit")?;
                Ok(Planned::new(move |context| {
                    count::<i64>(context, limit, |old| (old, old.wrapping_add(1)))
                }))
            })
            .types("T", &[DType::Int64]),
        )
}

fn count<T: Element>(context: &mut KernelContext<'_>, limit: i64, next: impl Fn(T) -> (i64, T)) -> Result<()> {
    let [counter] = context.variable_mut::<T>(0)? else {
        return Err(Error::invalid_argument("a counter must be a scalar"));
    };
    let old = *counter;
    let (number, next) = next(old);
    if number >= limit {
        return Err(Error::out_of_range(format!("Reached limit of {limit}")));
    }
    *counter = next;
    context.output::<T>(0)?[0] = old;
    Ok(())
}

typed_builder! {
    /// A count about to be made; see [`count_up_to`].
    pub struct CountUpTo;
}

/// Adds one to the `int32` or `int64` scalar `variable`, and gives what it was before.
///
/// # Errors
/// `OutOfRange` in a run when the variable has reached `limit`; `InvalidArgument` on `build` for other dtypes and shapes.
#[track_caller]
pub fn count_up_to(variable: impl IntoOperand, limit: i64) -> CountUpTo {
    let operand = variable.into_operand();
    let builder = match &operand {
        Operand::Variable(variable) if variable.is_resource() => {
            crate::op("ResourceCountUpTo").attr("T", variable.dtype())
        }
        _ => crate::op("CountUpTo"),
    };
    CountUpTo(builder.input(operand).attr("limit", limit))
}
