//! Attributes, dtypes and shapes in a few words.

use graph_core::format::graph_def::value_from_proto;
use graph_core::format::proto::attr_value::{ListValue, Value};
use graph_core::format::proto::{AttrValue, DataType, NameAttrList, TensorProto, TensorShapeProto};

/// How many elements of a list are shown.
const MAX_ELEMENTS: usize = 8;

/// How much of a string or of a tensor's elements is shown.
const MAX_STRING: usize = 80;

/// Constants of more elements are shown by dtype and shape only.
const MAX_EXPANDED: u64 = 1 << 20;

/// The name of a dtype as op definitions write it: `float`, `int32`, `Ref(float)`.
pub fn dtype(number: i32) -> String {
    const REFERENCE: i32 = 100;
    if number > REFERENCE {
        return format!("Ref({})", dtype(number - REFERENCE));
    }
    match DataType::try_from(number) {
        Ok(dtype) => dtype.as_str_name().trim_start_matches("DT_").to_ascii_lowercase(),
        Err(_) => format!("dtype {number}"),
    }
}

/// A shape: `[2,?]`, `[]` for a scalar, `<unknown>` for an unknown rank.
pub fn shape(shape: &TensorShapeProto) -> String {
    if shape.unknown_rank {
        return "<unknown>".to_owned();
    }
    let dims: Vec<String> = shape
        .dim
        .iter()
        .map(|dim| match dim.size {
            -1 => "?".to_owned(),
            size => size.to_string(),
        })
        .collect();
    format!("[{}]", dims.join(","))
}

/// A byte string in quotes, cut where it is long.
pub fn string(bytes: &[u8]) -> String {
    if bytes.len() > MAX_STRING {
        return format!("\"{}...\" ({} bytes)", bytes[..MAX_STRING].escape_ascii(), bytes.len());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control() && c != '"' && c != '\\') => format!("\"{text}\""),
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// The value of an attribute.
pub fn attr(attr: &AttrValue) -> String {
    match &attr.value {
        None => "<no value>".to_owned(),
        Some(Value::S(bytes)) => string(bytes),
        Some(Value::I(int)) => int.to_string(),
        Some(Value::F(float)) => float.to_string(),
        Some(Value::B(flag)) => flag.to_string(),
        Some(Value::Type(number)) => dtype(*number),
        Some(Value::Shape(value)) => shape(value),
        Some(Value::Tensor(value)) => tensor(value),
        Some(Value::Placeholder(name)) => format!("${name}"),
        Some(Value::Func(value)) => func(value),
        Some(Value::List(value)) => list(value),
    }
}

/// A constant: dtype, shape and its first elements.
pub fn tensor(tensor: &TensorProto) -> String {
    let scalar = TensorShapeProto::default();
    let head = format!(
        "{} {}",
        dtype(tensor.dtype),
        shape(tensor.tensor_shape.as_ref().unwrap_or(&scalar))
    );
    // One element can stand for any number of them: what is not shown need not be made.
    let count = tensor.tensor_shape.iter().flat_map(|shape| &shape.dim);
    let count = count.fold(1u64, |count, dim| count.saturating_mul(dim.size.max(0) as u64));
    match value_from_proto(tensor) {
        _ if count > MAX_EXPANDED => head,
        Ok(value) => format!("{head} {}", one_line(&value.to_string())),
        Err(_) => head,
    }
}

/// A text without line breaks, cut where it is long.
fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MAX_STRING) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn func(func: &NameAttrList) -> String {
    let attrs: Vec<String> = func
        .attr
        .iter()
        .map(|(name, value)| format!("{name}={}", attr(value)))
        .collect();
    match attrs.is_empty() {
        true => func.name.clone(),
        false => format!("{}[{}]", func.name, attrs.join(", ")),
    }
}

fn list(list: &ListValue) -> String {
    let mut texts: Vec<String> = Vec::new();
    texts.extend(list.s.iter().map(|bytes| string(bytes)));
    texts.extend(list.i.iter().map(ToString::to_string));
    texts.extend(list.f.iter().map(ToString::to_string));
    texts.extend(list.b.iter().map(ToString::to_string));
    texts.extend(list.r#type.iter().map(|&number| dtype(number)));
    texts.extend(list.shape.iter().map(shape));
    texts.extend(list.tensor.iter().map(tensor));
    texts.extend(list.func.iter().map(func));
    let count = texts.len();
    if count > MAX_ELEMENTS {
        texts.truncate(MAX_ELEMENTS);
        texts.push(format!("... {} more", count - MAX_ELEMENTS));
    }
    format!("[{}]", texts.join(", "))
}
