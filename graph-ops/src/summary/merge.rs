//! `MergeSummary`: several summaries as one.

use std::collections::HashSet;

use graph_core::format::Message;
use graph_core::format::proto::Summary;
use graph_core::graph::{Graph, IntoOperand, Operand, Tensor, keys};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition};
use graph_core::{Error, Result};

use super::scope::{clean_tag, set_summary};
use crate::composite::Composite;

/// The definition of `MergeSummary`.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new("MergeSummary", "A summary of all that its inputs hold.")
        .input("inputs: N * string")
        .output("summary: string")
        .attr("N: int >= 1")
        .may_fail()
        .shape(InferenceContext::scalars)
        .not_differentiable()
        .kernel(KernelDefinition::direct(run))
}

fn run(context: &mut KernelContext<'_>) -> Result<()> {
    let mut tags = HashSet::new();
    let mut entries = Vec::new();
    for index in 0..context.num_inputs() {
        for bytes in context.input_strings(index)? {
            let summary = Summary::decode(bytes.as_slice()).map_err(|error| {
                Error::invalid_argument(format!("input {index} is not a serialized summary")).caused_by(error)
            })?;
            for entry in summary.value {
                if !tags.insert(entry.tag.clone()) {
                    return Err(
                        Error::invalid_argument(format!("two of the summaries have the tag '{}'", entry.tag))
                            .hint("give them different names"),
                    );
                }
                entries.push(entry);
            }
        }
    }
    set_summary(context, entries);
    Ok(())
}

/// A merged summary about to be made; see [`merge`].
#[must_use = "an operation is made by `build`"]
pub struct MergeSummary {
    inputs: Operand,
    name: Option<String>,
    collections: Vec<String>,
    site: Composite,
}

/// One summary of all that `inputs`, a list of summaries, hold. A tag that two of them have is an `InvalidArgument` of the
/// run.
#[track_caller]
pub fn merge(inputs: impl IntoOperand) -> MergeSummary {
    let inputs = inputs.into_operand();
    let site = Composite::of(&[&inputs]);
    MergeSummary {
        inputs,
        name: None,
        collections: Vec::new(),
        site,
    }
}

impl MergeSummary {
    /// Names the operation, and the scope around it.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(clean_tag(&name.into()));
        self
    }

    /// Adds the summary to these collections.
    pub fn collections<S: Into<String>>(mut self, collections: impl IntoIterator<Item = S>) -> Self {
        self.collections = collections.into_iter().map(Into::into).collect();
        self
    }

    /// Makes the operation; its output is a scalar string, a serialized `Summary`.
    ///
    /// # Errors
    /// The inputs' own, and `InvalidArgument` if there are none.
    pub fn build(self) -> Result<Tensor> {
        let _scope = self.site.scope(self.name.as_deref().unwrap_or("Merge"))?;
        let node = self.site.node("MergeSummary").input(self.inputs);
        let merged = match &self.name {
            Some(name) => node.name(name),
            None => node,
        }
        .build()?;
        for key in &self.collections {
            self.site.graph.add_to_collection(key, &merged);
        }
        Ok(merged)
    }
}

impl IntoOperand for MergeSummary {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// One summary of all in the collection `summaries` of the current graph; `None` if there are none.
///
/// # Errors
/// `InvalidArgument` if the collection holds something else.
#[track_caller]
pub fn merge_all() -> Result<Option<Tensor>> {
    merge_all_of(keys::SUMMARIES)
}

/// As [`merge_all`], of another collection.
///
/// # Errors
/// As for [`merge_all`].
#[track_caller]
pub fn merge_all_of(key: &str) -> Result<Option<Tensor>> {
    let summaries: Vec<Tensor> = Graph::current().get_collection(key)?;
    if summaries.is_empty() {
        return Ok(None);
    }
    merge(summaries).build().map(Some)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use graph_core::Value;
    let a = b"\x0a\x08\x0a\x01a\x15\x00\x00\xc0\x3f";
    let b = b"\x0a\x08\x0a\x01b\x15\x00\x00\xc0\x3f";
    vec![
        crate::testing::Case::new("MergeSummary")
            .input(Value::string(a))
            .input(Value::string(b))
            .expect(Value::string([*a, *b].concat())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::scalar;
    use crate::testing::Case;
    use graph_core::Value;

    #[test]
    fn tags_must_differ() {
        let a = Value::string(b"\x0a\x08\x0a\x01a\x15\x00\x00\xc0\x3f");
        let error = Case::new("MergeSummary").input(&a).input(&a).run().unwrap_err();
        assert!(error.to_string().contains("'a'"), "{error}");
        let error = Case::new("MergeSummary").input("nonsense").run().unwrap_err();
        assert_eq!(error.class(), "InvalidArgument");
    }

    #[test]
    fn all_summaries_of_a_graph() {
        let graph = Graph::new();
        let _default = graph.as_default();
        assert!(merge_all().unwrap().is_none());
        let (a, b) = (
            scalar("a", 1.0f32).build().unwrap(),
            scalar("b", 2.0f32).build().unwrap(),
        );
        let all = merge_all().unwrap().unwrap();
        assert_eq!(all.op().name(), "Merge/MergeSummary");
        assert_eq!(all.op().inputs(), [a.clone(), b]);
        assert_eq!(merge([&a]).name("my own").build().unwrap().op().name(), "my_own/my_own");
    }
}
