//! A GraphDef as canonical text, one block a node, in the form that `tensorflow/dump_graph.py` defines: how a message stores
//! a tensor does not show.

use std::fmt::Write;

use graph_core::format::graph_def::{attr_from_proto, dtype_from_number};
use graph_core::format::proto::{AttrValue as ProtoAttr, GraphDef, NodeDef};
use graph_core::op::AttrValue;
use graph_core::{DType, PartialShape, Result, Value};

/// Elements of a tensor that are written out; more are told by their hash.
const INLINE_ELEMENTS: usize = 64;

/// The graph, a header line and then a block for each node after an empty line.
///
/// # Errors
/// Attributes that are broken.
pub fn graph_text(graph: &GraphDef) -> Result<String> {
    let versions = graph.versions.clone().unwrap_or_default();
    let mut text = format!(
        "graph producer={} min_consumer={} nodes={}\n",
        versions.producer,
        versions.min_consumer,
        graph.node.len()
    );
    for node in &graph.node {
        text.push('\n');
        text.push_str(&node_text(node)?);
    }
    Ok(text)
}

/// The block of one node.
///
/// # Errors
/// Attributes that are broken.
pub fn node_text(node: &NodeDef) -> Result<String> {
    let mut text = format!("node {} : {}\n", node.name, node.op);
    if !node.device.is_empty() {
        text += &format!("  @ {}\n", node.device);
    }
    for input in &node.input {
        text += &format!("  < {}\n", input.strip_suffix(":0").unwrap_or(input));
    }
    for (name, value) in &node.attr {
        text += &format!("  {name} = {}\n", attr_text(value)?);
    }
    Ok(text)
}

fn attr_text(attr: &ProtoAttr) -> Result<String> {
    if attr.value.is_none() {
        return Ok("none".into());
    }
    value_text(&attr_from_proto(attr)?)
}

fn value_text(value: &AttrValue) -> Result<String> {
    fn list<T>(elements: &[T], text: impl Fn(&T) -> Result<String>) -> Result<String> {
        Ok(format!(
            "{{{}}}",
            elements.iter().map(text).collect::<Result<Vec<_>>>()?.join(", ")
        ))
    }
    Ok(match value {
        AttrValue::String(bytes) => quoted(bytes),
        AttrValue::Int(int) => int.to_string(),
        AttrValue::Float(float) => float32(*float),
        AttrValue::Bool(flag) => flag.to_string(),
        AttrValue::Type(dtype) => dtype_text(*dtype),
        AttrValue::Shape(shape) => shape_text(shape),
        AttrValue::Tensor(value) => tensor_text(value)?,
        AttrValue::Func(func) => format!("func {}", func.name),
        AttrValue::Placeholder(name) => format!("placeholder {name}"),
        AttrValue::StringList(elements) => list(elements, |element| Ok(quoted(element)))?,
        AttrValue::IntList(elements) => list(elements, |element| Ok(element.to_string()))?,
        AttrValue::FloatList(elements) => list(elements, |element| Ok(float32(*element)))?,
        AttrValue::BoolList(elements) => list(elements, |element| Ok(element.to_string()))?,
        AttrValue::TypeList(elements) => list(elements, |element| Ok(dtype_text(*element)))?,
        AttrValue::ShapeList(elements) => list(elements, |element| Ok(shape_text(element)))?,
        AttrValue::TensorList(elements) => list(elements, tensor_text)?,
        AttrValue::FuncList(elements) => list(elements, |element| Ok(format!("func {}", element.name)))?,
    })
}

fn dtype_text(dtype: DType) -> String {
    debug_assert!(dtype_from_number(dtype as i32).is_ok());
    format!("DT_{}", dtype.name().to_ascii_uppercase())
}

fn float32(float: f32) -> String {
    format!("f32:0x{:08x}", float.to_bits())
}

fn shape_text(shape: &PartialShape) -> String {
    match shape.dims() {
        None => "(unknown)".into(),
        Some(dims) => {
            let dims: Vec<String> = dims
                .iter()
                .map(|dim| dim.map_or("?".into(), |dim| dim.to_string()))
                .collect();
            format!("({})", dims.join(","))
        }
    }
}

fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            0x20..=0x7e => text.push(byte as char),
            _ => write!(text, "\\x{byte:02x}").expect("writing to a string"),
        }
    }
    text + "\""
}

fn tensor_text(value: &Value) -> Result<String> {
    let shape = shape_text(&PartialShape::from(value.shape()));
    Ok(format!(
        "tensor {} {shape} [{}]",
        dtype_text(value.dtype()),
        elements_text(value)?
    ))
}

fn elements_text(value: &Value) -> Result<String> {
    let elements = elements(value)?;
    let splat = elements
        .first()
        .is_some_and(|first| elements.iter().all(|element| element == first));
    if splat {
        return Ok(elements[0].clone());
    }
    if elements.len() <= INLINE_ELEMENTS {
        return Ok(elements.join(", "));
    }
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut take = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    match value.as_strings() {
        Ok(strings) => strings.iter().for_each(|string| {
            take(&(string.len() as u64).to_le_bytes());
            take(string);
        }),
        Err(_) => take(value.bytes()),
    }
    Ok(format!("fnv1a64:0x{hash:016x}"))
}

fn elements(value: &Value) -> Result<Vec<String>> {
    if let Ok(strings) = value.as_strings() {
        return Ok(strings.iter().map(|string| quoted(string)).collect());
    }
    let size = value.dtype().size().unwrap_or(1);
    let chunks = value.bytes().chunks_exact(size);
    let hex = |bytes: &[u8], prefix: &str| {
        let digits: String = bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect();
        format!("{prefix}:0x{digits}")
    };
    Ok(match value.dtype() {
        DType::Float32 => chunks.map(|bytes| hex(bytes, "f32")).collect(),
        DType::Float64 => chunks.map(|bytes| hex(bytes, "f64")).collect(),
        DType::Half => chunks.map(|bytes| hex(bytes, "f16")).collect(),
        DType::BFloat16 => chunks.map(|bytes| hex(bytes, "bf16")).collect(),
        DType::Complex64 => chunks
            .map(|bytes| format!("({} {})", hex(&bytes[..4], "f32"), hex(&bytes[4..], "f32")))
            .collect(),
        DType::Complex128 => chunks
            .map(|bytes| format!("({} {})", hex(&bytes[..8], "f64"), hex(&bytes[8..], "f64")))
            .collect(),
        _ => (0..value.num_elements())
            .map(|index| {
                let mut text = String::new();
                value.fmt_element(index, &mut text).expect("writing to a string");
                text
            })
            .collect(),
    })
}
