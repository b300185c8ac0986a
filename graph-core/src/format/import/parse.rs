//! Nodes of a message, each understood by itself: op, attributes, dtypes of the outputs.

use std::cell::Cell;

use prost::Message;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::importer::Wiring;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::graph_def::attr_from_proto;
use crate::format::proto::{AttrValue as AttrMessage, NodeDef, OpDef};
use crate::graph::OutputInfo;
use crate::graph::inference::{output_dtypes, set_defaults};
use crate::graph::scope::check_name;
use crate::op::{AttrValue, Attributes, OpDefinition, Registry, vocabulary};
use crate::shape::PartialShape;

/// Up to this version a placeholder without a shape was written like a scalar one.
const LAST_PRODUCER_OF_UNKNOWN_PLACEHOLDERS: i32 = 21;

/// Attributes that TensorFlow gave to ops after 1.15, with the value that means what the op did before.
const LATER_ATTRIBUTES: [(&str, AttrValue); 10] = [
    ("multiply_linear_by_lr", AttrValue::Bool(false)),
    ("sparse_gradient", AttrValue::Bool(false)),
    ("explicit_paddings", AttrValue::IntList(Vec::new())),
    ("exponential_avg_factor", AttrValue::Float(1.0)),
    ("bad_indices_policy", AttrValue::String(Vec::new())),
    ("debug_name", AttrValue::String(Vec::new())),
    ("allowed_devices", AttrValue::IntList(Vec::new())),
    ("Tsegmentids", AttrValue::Type(DType::Int32)),
    ("Tk", AttrValue::Type(DType::Int32)),
    ("index_type", AttrValue::Type(DType::Int32)),
];

/// A node that is understood but not yet part of the graph.
pub(super) struct Parsed {
    pub(super) definition: &'static OpDefinition,
    pub(super) attrs: Attributes,
    pub(super) outputs: SmallVec<[OutputInfo; 1]>,
    pub(super) wiring: Wiring,
    /// What the message says of the outputs' shapes.
    pub(super) output_shapes: Option<Vec<PartialShape>>,
}

/// Attributes that TensorFlow gave to ops after 1.15 and that change nothing in what the op computes: they tell which
/// input of a product is a gradient.
const LATER_HINTS: [&str; 4] = ["grad_a", "grad_b", "grad_x", "grad_y"];

/// The most bytes that constants of one graph may take beyond the size of their messages.
const MAX_EXPANDED_BYTES: usize = 1 << 30;

/// What nodes are understood with.
pub(super) struct Context<'a> {
    pub(super) registry: &'a Registry,
    /// The names of the graph's functions.
    pub(super) functions: FxHashSet<&'a str>,
    /// The version of the format that the graph was written in.
    pub(super) producer: i32,
    /// The ops as the producer knew them, where it says so.
    pub(super) producer_ops: FxHashMap<&'a str, &'a OpDef>,
    /// How many bytes the constants so far take beyond what they take in the message.
    pub(super) expanded: Cell<usize>,
}

impl Context<'_> {
    pub(super) fn parse(&self, node: &NodeDef) -> Result<Parsed> {
        check_name(&node.name, true)?;
        if self.functions.contains(node.op.as_str()) {
            return Err(Error::unimplemented(format!(
                "the operation calls the graph function '{}', which this engine does not run",
                node.op
            ))
            .hint("inline the function where the graph is made, or freeze the graph there"));
        }
        let definition = self.registry.op(&node.op)?;
        let mut attrs = Attributes::new();
        let mut output_shapes = None;
        for (name, message) in &node.attr {
            let value =
                attr_from_proto(message).map_err(|error| error.context(format!("reading the attribute '{name}'")))?;
            self.charge(&value, message)?;
            if name == "_output_shapes" {
                output_shapes = match value {
                    AttrValue::ShapeList(shapes) => Some(shapes),
                    // An empty list is of no kind: for a node without outputs.
                    value if value.is_empty_list() => Some(Vec::new()),
                    _ => {
                        return Err(Error::invalid_argument("'_output_shapes' is of the wrong kind")
                            .expected("list(shape)")
                            .got(value.kind()));
                    }
                };
                continue;
            }
            match definition.attr_def(name) {
                Some(attr) => attrs.set(attr.name, value),
                None if name.starts_with('_') => attrs.set(name.clone(), value),
                None if self.says_nothing(&node.op, name, &value) => {}
                None => {
                    let known: Vec<_> = definition.attrs.iter().map(|attr| attr.name).collect();
                    return Err(Error::invalid_argument(format!("the op has no attribute '{name}'"))
                        .expected(if known.is_empty() {
                            "none".to_owned()
                        } else {
                            known.join(", ")
                        })
                        .hint("a graph of a newer TensorFlow: write it there with strip_default_attrs"));
                }
            }
        }
        if definition.name == vocabulary::PLACEHOLDER
            && self.producer <= LAST_PRODUCER_OF_UNKNOWN_PLACEHOLDERS
            && attrs.get("shape") == Some(&AttrValue::Shape(PartialShape::scalar()))
        {
            attrs.set("shape", PartialShape::unknown());
        }
        set_defaults(definition, &mut attrs)?;
        let outputs = output_dtypes(definition, &attrs)?
            .into_iter()
            .map(|(dtype, is_ref)| OutputInfo {
                dtype,
                is_ref,
                shape: PartialShape::unknown(),
                handle: None,
            })
            .collect();
        Ok(Parsed {
            definition,
            attrs,
            outputs,
            wiring: Wiring::default(),
            output_shapes,
        })
    }

    /// Counts what a constant takes: many that each repeat one element are refused as one is.
    fn charge(&self, value: &AttrValue, message: &AttrMessage) -> Result<()> {
        let AttrValue::Tensor(value) = value else {
            return Ok(());
        };
        let grown = value.bytes().len().saturating_sub(message.encoded_len());
        self.expanded.set(self.expanded.get().saturating_add(grown));
        if self.expanded.get() > MAX_EXPANDED_BYTES {
            return Err(Error::resource_exhausted(format!(
                "the constants of the graph repeat their elements to more than {MAX_EXPANDED_BYTES} bytes"
            ))
            .hint("let the graph compute them with Fill"));
        }
        Ok(())
    }

    /// Whether an attribute that the op has not may be left out: the op does without it what the node asks for.
    fn says_nothing(&self, op: &str, name: &str, value: &AttrValue) -> bool {
        let equal = |default: &AttrValue| default == value || (default.is_empty_list() && value.is_empty_list());
        let known = LATER_ATTRIBUTES
            .iter()
            .any(|(later, default)| *later == name && equal(default));
        if known || LATER_HINTS.contains(&name) {
            return true;
        }
        let said = self
            .producer_ops
            .get(op)
            .and_then(|op| op.attr.iter().find(|attr| attr.name == name));
        said.and_then(|attr| attr.default_value.as_ref())
            .is_some_and(|default| attr_from_proto(default).is_ok_and(|default| equal(&default)))
    }
}
