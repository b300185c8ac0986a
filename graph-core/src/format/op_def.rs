//! Op definitions as TensorFlow's `OpDef` messages, as a MetaGraph carries those of its ops.

use super::graph_def::attr_to_proto;
use super::proto::{self, op_def};
use crate::op::{ArgDef, ArgType, AttrDef, AttrValue, OpDefinition};

/// The definition of an op as TensorFlow's message, without documentation.
pub fn op_def_to_proto(definition: &OpDefinition) -> proto::OpDef {
    proto::OpDef {
        name: definition.name.to_owned(),
        input_arg: definition.inputs.iter().map(arg_to_proto).collect(),
        output_arg: definition.outputs.iter().map(arg_to_proto).collect(),
        attr: definition.attrs.iter().map(attr_def_to_proto).collect(),
        is_stateful: definition.stateful,
        is_commutative: definition.commutative,
        is_aggregate: definition.aggregate,
        allows_uninitialized_input: definition.allows_uninitialized_input,
        ..Default::default()
    }
}

fn arg_to_proto(arg: &ArgDef) -> op_def::ArgDef {
    let mut message = op_def::ArgDef {
        name: arg.name.to_owned(),
        number_attr: arg.number.unwrap_or_default().to_owned(),
        is_ref: arg.is_ref,
        ..Default::default()
    };
    match arg.ty {
        ArgType::Fixed(dtype) => message.r#type = dtype as i32,
        ArgType::Attr(name) => message.type_attr = name.to_owned(),
        ArgType::List(name) => message.type_list_attr = name.to_owned(),
    }
    message
}

fn attr_def_to_proto(attr: &AttrDef) -> op_def::AttrDef {
    let allowed = if !attr.allowed_types.is_empty() {
        Some(AttrValue::TypeList(attr.allowed_types.clone()))
    } else if !attr.allowed_strings.is_empty() {
        let strings = attr.allowed_strings.iter().map(|text| text.as_bytes().to_vec());
        Some(AttrValue::StringList(strings.collect()))
    } else {
        None
    };
    op_def::AttrDef {
        name: attr.name.to_owned(),
        r#type: attr.ty.name().to_owned(),
        default_value: attr.default.as_ref().map(attr_to_proto),
        has_minimum: attr.minimum.is_some(),
        minimum: attr.minimum.unwrap_or_default(),
        allowed_values: allowed.as_ref().map(attr_to_proto),
        ..Default::default()
    }
}
