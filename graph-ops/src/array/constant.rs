//! `Const`: a value known when the graph is built.

use graph_core::graph::{IntoOperand, Operand};
use graph_core::op::{InferenceContext, KernelDefinition, OpDefinition, Planned};
use graph_core::{DType, Error, PartialShape, Result, Value, typed_builder};

/// The op's definition.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new("Const", "A constant value.")
        .output("output: dtype")
        .attr("value: tensor")
        .attr("dtype: type")
        .shape(shape)
        .not_differentiable()
        .kernel(KernelDefinition::cpu(|request| {
            let value: Value = request.attr("value")?;
            Ok(Planned::new(move |context| {
                context.set_output(0, value.clone());
                Ok(())
            }))
        }))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let value: Value = context.attr("value")?;
    let dtype: DType = context.attr("dtype")?;
    if value.dtype() != dtype {
        return Err(
            Error::invalid_argument("the value of the constant is of another dtype than 'dtype' says")
                .expected(dtype)
                .got(value.dtype()),
        );
    }
    context.set_output(0, PartialShape::from(value.shape()));
    Ok(())
}

typed_builder! {
    /// A constant about to be made; see [`constant`].
    pub struct Constant;
}

/// A constant: a number, a (nested) array of numbers, a [`Value`] or an `ndarray` array.
///
/// ```
/// use graph_ops::array::constant;
/// let matrix = constant([[1.0f32, 2.0], [3.0, 4.0]]).name("matrix").build()?;
/// assert_eq!(matrix.shape(), [2, 2].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` on `build` if the rows of a nested array differ in length, or if a tensor is given.
#[track_caller]
pub fn constant(value: impl IntoOperand) -> Constant {
    let value = value.into_operand().to_value(None).and_then(|value| {
        value.ok_or_else(|| Error::invalid_argument("a constant is made of numbers, not of tensors"))
    });
    Constant(match value {
        Ok(value) => crate::op("Const").attr("dtype", value.dtype()).attr("value", value),
        // The error surfaces at `build`.
        Err(error) => crate::op("Const").input(Err::<Operand, _>(error)),
    })
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let value = Value::from([[1.5f64, -2.0]]);
    vec![
        Case::new("Const")
            .attr("dtype", value.dtype())
            .attr("value", value.clone())
            .expect(value),
    ]
}
