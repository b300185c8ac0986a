//! `Placeholder`, `PlaceholderV2` and `PlaceholderWithDefault`: values that a run feeds.

use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::op::{InferenceContext, KernelDefinition, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, typed_builder};

/// `Placeholder`
pub(crate) fn placeholder_definition() -> OpDefinition {
    definition("Placeholder", "A value that each run must feed.").attr("shape: shape = unknown")
}

/// `PlaceholderV2`
pub(crate) fn placeholder_v2_definition() -> OpDefinition {
    definition(
        "PlaceholderV2",
        "A value that each run must feed; its shape must be said.",
    )
    .attr("shape: shape")
}

fn definition(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .output("output: dtype")
        .attr("dtype: type")
        .may_fail()
        .shape(shape)
        .not_differentiable()
        .kernel(
            KernelDefinition::cpu(|request| {
                let (dtype, shape): (DType, PartialShape) = (request.attr("dtype")?, request.attr("shape")?);
                Ok(Planned::new(move |context| {
                    let site = context.site();
                    Err(Error::invalid_argument(format!(
                        "You must feed a value for placeholder tensor '{}' with dtype {dtype} and shape {shape}",
                        site.name
                    ))
                    .hint("name it in the feeds of the run"))
                }))
            })
            .data_dependent(),
        )
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape: PartialShape = context.attr("shape")?;
    context.set_output(0, shape);
    Ok(())
}

/// `PlaceholderWithDefault`
pub(crate) fn with_default_definition() -> OpDefinition {
    OpDefinition::new(
        "PlaceholderWithDefault",
        "Its input, unless a run feeds something else.",
    )
    .input("input: dtype")
    .output("output: dtype")
    .attr("dtype: type")
    .attr("shape: shape")
    .shape(with_default_shape)
    .gradient(|context| Ok(vec![Some(context.gradient(0)?)]))
    .kernel(KernelDefinition::alias())
}

/// The output has the attribute's shape, which may know less than the input's.
fn with_default_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape: PartialShape = context.attr("shape")?;
    context.input(0).merge(&shape)?;
    context.set_output(0, shape);
    Ok(())
}

typed_builder! {
    /// A placeholder about to be made; see [`placeholder`].
    pub struct Placeholder;
}

/// A value of element type `T` that each run must feed, of the shape `shape` as far as it is known.
///
/// A run that needs it and does not feed it fails with `InvalidArgument`.
///
/// ```
/// use graph_ops::array::placeholder;
/// let images = placeholder::<f32>([None, Some(784)]).name("images").build()?;
/// assert_eq!(images.shape().to_string(), "[?,784]");
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn placeholder<T: Element>(shape: impl Into<PartialShape>) -> Placeholder {
    placeholder_of(T::DTYPE, shape)
}

/// [`placeholder`] for a dtype that is only known when the program runs, and for strings.
#[track_caller]
pub fn placeholder_of(dtype: DType, shape: impl Into<PartialShape>) -> Placeholder {
    Placeholder(
        crate::op("Placeholder")
            .attr("dtype", dtype)
            .attr("shape", shape.into()),
    )
}

/// `input`, unless a run feeds something else that fits `shape`.
///
/// # Errors
/// `InvalidArgument` on `build` if the input does not fit the shape.
#[track_caller]
pub fn placeholder_with_default(input: impl IntoOperand, shape: impl Into<PartialShape>) -> OpBuilder {
    crate::op("PlaceholderWithDefault")
        .input(input)
        .attr("shape", shape.into())
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    vec![
        Case::new("PlaceholderWithDefault")
            .attr("shape", PartialShape::from([None]))
            .input([1u8, 2])
            .expect([1u8, 2]),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    vec![
        crate::testing::GradientCase::new("PlaceholderWithDefault")
            .attr("shape", PartialShape::from([None]))
            .input([1.0f64, 2.0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfed_placeholder_is_an_error() {
        let case = crate::testing::Case::new("Placeholder")
            .attr("dtype", DType::Float32)
            .attr("shape", PartialShape::from([None, Some(3)]));
        let error = case.run().unwrap_err();
        assert_eq!(error.class(), "InvalidArgument");
        assert!(
            error
                .to_string()
                .contains("You must feed a value for placeholder tensor 'case' with dtype float and shape [?,3]")
        );
    }

    #[test]
    fn a_default_knows_no_more_than_its_shape() {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let tensor = placeholder_with_default([1.0f32, 2.0], [None]).build().unwrap();
        assert_eq!(tensor.shape(), PartialShape::from([None]));
        assert!(placeholder_with_default([1.0f32, 2.0], [3]).build().is_err());
    }
}
