//! What summary ops share: names and tags, collections, numbers of any dtype, encoding.

use graph_core::format::Message;
use graph_core::format::proto::Summary;
use graph_core::format::proto::summary::Value as Entry;
use graph_core::graph::scope::ScopeGuard;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor, keys};
use graph_core::op::KernelContext;
use graph_core::{Error, Result, Value};

use crate::composite::Composite;

/// A tag that can be a name: characters outside `[-/.A-Za-z0-9_]` become `_`, slashes at the start go.
pub(super) fn clean_tag(name: &str) -> String {
    let clean = |c: char| match c {
        c if c.is_ascii_alphanumeric() || "-/._".contains(c) => c,
        _ => '_',
    };
    let cleaned: String = name.chars().map(clean).collect();
    cleaned.trim_start_matches('/').to_owned()
}

/// A summary about to be made: its name, its tensor, where it goes.
pub(super) struct Draft {
    name: String,
    tensor: Operand,
    family: Option<String>,
    collections: Vec<String>,
    site: Composite,
}

impl Draft {
    #[track_caller]
    pub(super) fn new(name: &str, tensor: impl IntoOperand) -> Self {
        let tensor = tensor.into_operand();
        let site = Composite::of(&[&tensor]);
        Self {
            name: name.to_owned(),
            tensor,
            family: None,
            collections: vec![keys::SUMMARIES.to_owned()],
            site,
        }
    }

    pub(super) fn family(&mut self, family: String) {
        self.family = Some(family);
    }

    pub(super) fn collections(&mut self, collections: Vec<String>) {
        self.collections = collections;
    }

    /// Opens the summary's scope and makes the node, of which `finish` sets what is special; the tag is input 0, and the
    /// tensor input 1.
    pub(super) fn build(self, op: &str, finish: impl FnOnce(OpBuilder) -> OpBuilder) -> Result<Tensor> {
        let name = clean_tag(&self.name);
        let family = self.family.as_deref().map(clean_tag);
        let scope: ScopeGuard = self.site.scope(&match &family {
            Some(family) => format!("{family}/{name}"),
            None => name,
        })?;
        let full = scope.scope_name();
        let tag = match &family {
            Some(family) => format!("{family}/{}", full.trim_end_matches('/')),
            None => full.trim_end_matches('/').to_owned(),
        };
        let node = self.site.node(op).input(tag).input(self.tensor);
        let summary = finish(node).name(full).build()?;
        for key in &self.collections {
            self.site.graph.add_to_collection(key, &summary);
        }
        Ok(summary)
    }
}

/// Defines the builder of a summary op around a [`Draft`].
macro_rules! summary_builder {
    ($(#[$doc:meta])* $name:ident, $op:literal $(, $field:ident: $type:ty)*) => {
        $(#[$doc])*
        #[must_use = "an operation is made by `build`"]
        pub struct $name {
            draft: super::scope::Draft,
            $($field: $type,)*
        }

        impl $name {
            /// Puts the tag into a family, which TensorBoard shows together.
            pub fn family(mut self, family: impl Into<String>) -> Self {
                self.draft.family(family.into());
                self
            }

            /// Adds the summary to these collections instead of `summaries`.
            pub fn collections<S: Into<String>>(mut self, collections: impl IntoIterator<Item = S>) -> Self {
                self.draft.collections(collections.into_iter().map(Into::into).collect());
                self
            }

            /// Makes the operation; its output is a scalar string, a serialized `Summary`.
            ///
            /// # Errors
            /// The tensor's own, and `InvalidArgument` for a name that cannot be one or a dtype that is not allowed.
            pub fn build(self) -> graph_core::Result<graph_core::graph::Tensor> {
                self.draft.build($op, |node| node$(.attr(stringify!($field), self.$field))*)
            }
        }

        impl graph_core::graph::IntoOperand for $name {
            fn into_operand(self) -> graph_core::graph::Operand {
                self.build().into_operand()
            }
        }
    };
}
pub(super) use summary_builder;

/// Runs `$body` with `$elements` as an iterator of input `$index`'s elements as `f64`, whatever real dtype they have.
macro_rules! with_numbers {
    ($context:expr, $index:expr, |$elements:ident| $body:expr) => {{
        use graph_core::DType;
        macro_rules! go {
            ($type:ty, $convert:expr) => {{
                let $elements = $context.input::<$type>($index)?.iter().copied().map($convert);
                $body
            }};
        }
        match $context.input_dtype($index) {
            DType::Float32 => go!(f32, f64::from),
            DType::Float64 => go!(f64, |x| x),
            DType::Half => go!(half::f16, f64::from),
            DType::BFloat16 => go!(half::bf16, f64::from),
            DType::Int8 => go!(i8, f64::from),
            DType::Int16 => go!(i16, f64::from),
            DType::Int32 => go!(i32, f64::from),
            DType::Int64 => go!(i64, |x| x as f64),
            DType::UInt8 => go!(u8, f64::from),
            DType::UInt16 => go!(u16, f64::from),
            DType::UInt32 => go!(u32, f64::from),
            DType::UInt64 => go!(u64, |x| x as f64),
            dtype => Err(graph_core::Error::invalid_argument("only real numbers can be summarized").got(dtype)),
        }
    }};
}
pub(super) use with_numbers;

/// Input 0, the tag, as a scalar text.
pub(super) fn tag(context: &KernelContext<'_>) -> Result<String> {
    match context.input_strings(0)? {
        [tag] => Ok(String::from_utf8_lossy(tag).into_owned()),
        _ => Err(Error::invalid_argument("the tag must be a scalar").got(format!("shape {}", context.input_shape(0)))),
    }
}

/// Sets output 0 to a summary of these entries.
pub(super) fn set_summary(context: &mut KernelContext<'_>, value: Vec<Entry>) {
    context.set_output(0, Value::string(Summary { value }.encode_to_vec()));
}

#[cfg(test)]
pub(super) fn decode(outputs: &[Value]) -> Summary {
    let bytes = &outputs[0].as_strings().expect("a string")[0];
    Summary::decode(bytes.as_slice()).expect("a summary")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_names() {
        assert_eq!(clean_tag("//a b/c:d-é.9_"), "a_b/c_d-_.9_");
    }
}
