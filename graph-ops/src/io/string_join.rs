//! `StringJoin`: texts behind one another, element by element.

use graph_core::graph::IntoOperand;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition, Planned};
use graph_core::{Error, PartialShape, Result, Value, typed_builder};

/// The definition of `StringJoin`.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "StringJoin",
        "The elements of its inputs behind one another, with a separator between; scalars stand for any shape.",
    )
    .input("inputs: N * string")
    .output("output: string")
    .attr("N: int >= 1")
    .attr("separator: string = ''")
    .shape(shape)
    .not_differentiable()
    .kernel(
        KernelDefinition::cpu(|request| {
            let separator: String = request.attr("separator")?;
            Ok(Planned::new(move |context| run(context, separator.as_bytes())))
        })
        .data_dependent(),
    )
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    if context.inputs().iter().all(|input| input.rank() == Some(0)) {
        return InferenceContext::scalars(context);
    }
    let mut shape = PartialShape::unknown();
    for input in context.inputs() {
        if input.rank().is_some_and(|rank| rank > 0) {
            shape = shape.merge(input)?;
        }
    }
    context.set_output(0, shape);
    Ok(())
}

fn run(context: &mut KernelContext<'_>, separator: &[u8]) -> Result<()> {
    let shapes = || (0..context.num_inputs()).map(|input| context.input_shape(input));
    let shape = shapes().find(|shape| shape.rank() > 0).cloned().unwrap_or_default();
    if let Some(other) = shapes().find(|&other| other.rank() > 0 && *other != shape) {
        return Err(
            Error::invalid_argument("texts to be joined must have the same shape, or be scalars")
                .expected(&shape)
                .got(other),
        );
    }
    let inputs: Vec<&[Vec<u8>]> = (0..context.num_inputs())
        .map(|input| context.input_strings(input))
        .collect::<Result<_>>()?;
    let joined = |index: usize| {
        let parts = inputs.iter().enumerate().map(|(input, strings)| {
            let scalar = context.input_shape(input).rank() == 0;
            strings[if scalar { 0 } else { index }].as_slice()
        });
        parts.collect::<Vec<_>>().join(separator)
    };
    let strings = (0..shape.num_elements()).map(joined).collect();
    context.set_output(0, Value::from_strings(shape, strings)?);
    Ok(())
}

typed_builder! {
    /// A joined text about to be made; see [`string_join`].
    pub struct StringJoin;
}

impl StringJoin {
    /// What stands between the parts; nothing without.
    pub fn separator(self, separator: &str) -> Self {
        Self(self.0.attr("separator", separator))
    }
}

/// The elements of `inputs`, a list of string tensors, behind one another. All have the same shape, which the output has
/// too; scalars among them are joined with every element.
///
/// # Errors
/// `InvalidArgument` on `build` or in a run if the shapes differ.
#[track_caller]
pub fn string_join(inputs: impl IntoOperand) -> StringJoin {
    StringJoin(crate::op("StringJoin").input(inputs))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let pair = |a: &str, b: &str| Value::from_strings([2], vec![a.into(), b.into()]).expect("two strings");
    vec![
        Case::new("StringJoin").input("a").input("b").expect("ab"),
        Case::new("StringJoin")
            .input(pair("a", "b"))
            .input("-")
            .input(pair("c", ""))
            .attr("separator", "/")
            .expect(pair("a/-/c", "b/-/")),
    ]
}
