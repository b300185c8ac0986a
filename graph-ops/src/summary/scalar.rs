//! `ScalarSummary`: single numbers.

use graph_core::format::proto::summary::Value as Entry;
use graph_core::format::proto::summary::value::Value as Content;
use graph_core::graph::IntoOperand;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition};
use graph_core::{Error, Result};

use super::scope::{Draft, set_summary, summary_builder, with_numbers};

/// The definition of `ScalarSummary`.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new("ScalarSummary", "A summary of single numbers, one a tag.")
        .input("tags: string")
        .input("values: T")
        .output("summary: string")
        .attr("T: realnumbertype")
        .may_fail()
        .shape(InferenceContext::scalars)
        .not_differentiable()
        .kernel(KernelDefinition::direct(run))
}

fn run(context: &mut KernelContext<'_>) -> Result<()> {
    let (tags, values) = (context.input_shape(0), context.input_shape(1));
    let single = tags.num_elements() == 1 && values.num_elements() == 1;
    if tags != values && !(single && tags.rank() <= 1 && values.rank() <= 1) {
        return Err(Error::invalid_argument("a scalar summary takes one number a tag")
            .expected(format!("a tensor of shape {tags}"))
            .got(format!("shape {values}"))
            .hint("reduce the tensor to a scalar, or use a histogram"));
    }
    let numbers: Vec<f64> = with_numbers!(context, 1, |elements| Ok(elements.collect()))?;
    let entry = |(tag, number): (&Vec<u8>, f64)| Entry {
        tag: String::from_utf8_lossy(tag).into_owned(),
        value: Some(Content::SimpleValue(number as f32)),
        ..Entry::default()
    };
    let entries = context.input_strings(0)?.iter().zip(numbers).map(entry).collect();
    set_summary(context, entries);
    Ok(())
}

summary_builder! {
    /// A summary about to be made; see [`scalar`].
    ScalarSummary, "ScalarSummary"
}

/// A summary of a single number, for TensorBoard's Scalars. The tag is the name in its scope; the summary joins the
/// collection `summaries`.
#[track_caller]
pub fn scalar(name: &str, tensor: impl IntoOperand) -> ScalarSummary {
    ScalarSummary {
        draft: Draft::new(name, tensor),
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    // Value{tag "a", simple_value 1.5}
    let bytes = || graph_core::Value::string(b"\x0a\x08\x0a\x01a\x15\x00\x00\xc0\x3f");
    vec![
        Case::new("ScalarSummary").input("a").input(1.5f32).expect(bytes()),
        Case::new("ScalarSummary").input("a").input(1.5f64).expect(bytes()),
        Case::new("ScalarSummary")
            .input("a")
            .input([half::f16::from_f32(1.5)])
            .expect(bytes()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::constant;
    use crate::testing::Case;
    use graph_core::graph::{Graph, keys, scope};

    #[test]
    fn one_number_a_tag() {
        let error = Case::new("ScalarSummary")
            .input("a")
            .input([1.0f32, 2.0])
            .run()
            .unwrap_err();
        assert_eq!(error.class(), "InvalidArgument");
        let outputs = Case::new("ScalarSummary").input("i").input(7i64).run().unwrap();
        let summary = super::super::scope::decode(&outputs);
        assert_eq!(summary.value[0].value, Some(Content::SimpleValue(7.0)));
    }

    #[test]
    fn names_tags_and_collections_are_tensorflows() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let _scope = scope::name_scope("objective").unwrap();
        let x = constant(1.0f32).name("cost").build().unwrap();
        let summary = scalar("cost", &x).build().unwrap();
        assert_eq!(summary.op().name(), "objective/cost_1");
        let tag = summary.op().input(0);
        assert_eq!(tag.op().name(), "objective/cost_1/tags");
        assert_eq!(tag.constant_value(), Some("objective/cost_1".into()));
        let other = scalar("a b", &x).family("f").collections(["mine"]).build().unwrap();
        assert_eq!(other.op().name(), "objective/f/a_b");
        assert_eq!(other.op().input(0).constant_value(), Some("f/objective/f/a_b".into()));
        let collected = graph
            .get_collection::<graph_core::graph::Tensor>(keys::SUMMARIES)
            .unwrap();
        assert_eq!(collected, [summary]);
    }
}
