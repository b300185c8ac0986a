//! Protobuf's text format for the messages in [`proto`], as TensorFlow reads and writes it (`.pbtxt`).
//!
//! ```
//! use graph_core::format::{proto::NodeDef, text};
//!
//! let node: NodeDef = text::from_text(r#"name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } }"#)?;
//! assert_eq!(node.op, "Placeholder");
//! assert!(text::to_text(&node)?.starts_with("name: \"x\"\nop: \"Placeholder\"\nattr {\n  key: \"dtype\"\n"));
//! # Ok::<(), graph_core::error::Error>(())
//! ```

use std::fmt::{LowerExp, Write};
use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::proto;
use crate::error::{Error, Result};

/// How deep messages may nest in a text: as deep as the binary format's decoder allows.
const MAX_DEPTH: usize = 100;

static POOL: LazyLock<std::result::Result<DescriptorPool, String>> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).map_err(|e| e.to_string()));

/// Writes `message` as Python's `text_format.MessageToString` does: fields by number, maps by key.
///
/// Errors: `InvalidArgument` for a message that is not one of [`proto`], or nests more than 100 deep.
pub fn to_text<M: Message + Name>(message: &M) -> Result<String> {
    let message = DynamicMessage::decode(descriptor::<M>()?, message.encode_to_vec().as_slice())
        .map_err(|e| Error::invalid_argument(format!("cannot write {} as text: {e}", M::full_name())))?;
    let mut text = String::new();
    write_fields(&mut text, &message, 0);
    Ok(text)
}

/// Reads a message in text format.
///
/// Errors: `InvalidArgument` with the line at fault for a text that does not parse, has a field that `M` lacks or sets
/// one twice, or nests more than 100 deep.
pub fn from_text<M: Message + Name + Default>(text: &str) -> Result<M> {
    let failed = |line: Option<usize>, why: &dyn std::fmt::Display| {
        let line = line.map(|line| format!(" at line {line}")).unwrap_or_default();
        Error::invalid_argument(format!("cannot read {} from text{line}: {why}", M::full_name()))
    };
    if let Some(at) = too_deep(text) {
        let why = format!("messages nest more than {MAX_DEPTH} deep");
        return Err(failed(Some(line_at(text, at)), &why));
    }
    let message = DynamicMessage::parse_text_format(descriptor::<M>()?, text)
        .map_err(|e| failed(error_offset(&e).map(|at| line_at(text, at)), &e))?;
    M::decode(message.encode_to_vec().as_slice()).map_err(|e| failed(None, &e))
}

fn descriptor<M: Name>() -> Result<MessageDescriptor> {
    let pool = POOL.as_ref().map_err(|e| Error::internal(e.as_str()))?;
    let name = M::full_name();
    pool.get_message_by_name(&name)
        .ok_or_else(|| Error::invalid_argument(format!("no text format for the unknown message {name}")))
}

/// Where nesting first goes past [`MAX_DEPTH`]. The parser recurses, so this must be known before it starts.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'{' | b'<' | b'[' => depth += 1,
            b'}' | b'>' | b']' => depth = depth.saturating_sub(1),
            b'#' => while bytes.next().is_some_and(|(_, b)| b != b'\n') {},
            b'"' | b'\'' => {
                while let Some((_, b)) = bytes.next() {
                    match b {
                        b'\\' => drop(bytes.next()),
                        _ if b == byte => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(at);
        }
    }
    None
}

/// The byte at which the parser stopped. It tells only its `Debug` output; without it the message goes out unplaced.
fn error_offset(error: &impl std::fmt::Debug) -> Option<usize> {
    let debug = format!("{error:?}");
    let (_, span) = debug.rsplit_once("span: ")?;
    span.split_once("..")?.0.parse().ok()
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&b| b == b'\n').count()
}

fn write_fields(out: &mut String, message: &DynamicMessage, indent: usize) {
    for (field, value) in message.fields() {
        match value {
            Value::List(items) => items
                .iter()
                .for_each(|item| write_field(out, field.name(), &field.kind(), item, indent)),
            Value::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                for (key, value) in entries {
                    write_entry(out, &field, key, value, indent);
                }
            }
            value => write_field(out, field.name(), &field.kind(), value, indent),
        }
    }
}

fn write_entry(out: &mut String, field: &FieldDescriptor, key: &MapKey, value: &Value, indent: usize) {
    let Kind::Message(entry) = field.kind() else { return };
    open(out, field.name(), indent);
    let key = Value::from(key.clone());
    for (part, value) in [
        (entry.map_entry_key_field(), &key),
        (entry.map_entry_value_field(), value),
    ] {
        let kind = part.kind();
        // An entry is a message in itself: a zero or an empty string goes without saying, an empty message does not.
        if matches!(value, Value::Message(_)) || !value.is_default(&kind) {
            write_field(out, part.name(), &kind, value, indent + 2);
        }
    }
    close(out, indent);
}

fn write_field(out: &mut String, name: &str, kind: &Kind, value: &Value, indent: usize) {
    if let Value::Message(message) = value {
        open(out, name, indent);
        write_fields(out, message, indent + 2);
        close(out, indent);
        return;
    }
    pad(out, indent);
    out.push_str(name);
    out.push_str(": ");
    write_scalar(out, kind, value);
    out.push('\n');
}

fn open(out: &mut String, name: &str, indent: usize) {
    pad(out, indent);
    out.push_str(name);
    out.push_str(" {\n");
}

fn close(out: &mut String, indent: usize) {
    pad(out, indent);
    out.push_str("}\n");
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Writing into a `String` cannot fail.
fn write_scalar(out: &mut String, kind: &Kind, value: &Value) {
    let _ = match value {
        Value::Bool(v) => write!(out, "{v}"),
        Value::I32(v) => write!(out, "{v}"),
        Value::I64(v) => write!(out, "{v}"),
        Value::U32(v) => write!(out, "{v}"),
        Value::U64(v) => write!(out, "{v}"),
        Value::F32(v) => return write_float(out, *v, f64::from(*v)),
        Value::F64(v) => return write_float(out, *v, *v),
        Value::EnumNumber(v) => match kind.as_enum().and_then(|e| e.get_value(*v)) {
            Some(named) => write!(out, "{}", named.name()),
            None => write!(out, "{v}"),
        },
        Value::String(v) => {
            out.push('"');
            for c in v.chars() {
                match u8::try_from(c) {
                    Ok(byte) if c.is_ascii() => write_byte(out, byte),
                    _ => out.push(c),
                }
            }
            out.push('"');
            Ok(())
        }
        Value::Bytes(v) => {
            out.push('"');
            v.iter().for_each(|&byte| write_byte(out, byte));
            out.push('"');
            Ok(())
        }
        // Written by the callers.
        Value::Message(_) | Value::List(_) | Value::Map(_) => Ok(()),
    };
}

fn write_byte(out: &mut String, byte: u8) {
    match byte {
        b'\n' => out.push_str("\\n"),
        b'\r' => out.push_str("\\r"),
        b'\t' => out.push_str("\\t"),
        b'"' => out.push_str("\\\""),
        b'\'' => out.push_str("\\'"),
        b'\\' => out.push_str("\\\\"),
        b' '..=b'~' => out.push(byte as char),
        _ => out.extend(['\\'].into_iter().chain(octal(byte))),
    }
}

fn octal(byte: u8) -> [char; 3] {
    [byte >> 6, byte >> 3 & 7, byte & 7].map(|digit| (b'0' + digit) as char)
}

/// The shortest digits that read back as the same number, laid out as Python's `repr` does.
fn write_float(out: &mut String, shortest: impl LowerExp, value: f64) {
    if !value.is_finite() {
        out.push_str(match value {
            v if v.is_nan() => "nan",
            v if v > 0.0 => "inf",
            _ => "-inf",
        });
        return;
    }
    let text = format!("{shortest:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    out.push_str(sign);
    if !(-4..16).contains(&exponent) {
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{exponent_sign}{:02}", exponent.abs());
        return;
    }
    let digits: String = mantissa.chars().filter(|&c| c != '.').collect();
    if exponent < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', exponent.unsigned_abs() as usize - 1));
        out.push_str(&digits);
        return;
    }
    let whole = exponent as usize + 1;
    out.extend(digits.chars().chain(std::iter::repeat('0')).take(whole));
    out.push('.');
    out.push_str(digits.get(whole..).filter(|rest| !rest.is_empty()).unwrap_or("0"));
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::proto::attr_value::{ListValue, Value as Attr};
    use super::super::proto::{AttrValue, GraphDef, NameAttrList, NodeDef, TensorProto};
    use super::*;

    /// A graph as Python's `text_format.MessageToString` writes it.
    const GRAPH: &str = include_str!("../../tests/fixtures/graph.pbtxt");

    #[test]
    fn writes_what_python_writes() {
        let graph: GraphDef = from_text(GRAPH).unwrap();
        assert_eq!(graph.node.len(), 4);
        assert_eq!(to_text(&graph).unwrap(), GRAPH);
        assert_eq!(GraphDef::decode(graph.encode_to_vec().as_slice()).unwrap(), graph);
    }

    #[test]
    fn floats_look_like_pythons() {
        // repr() of the same numbers.
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.5, "0.5"),
            (-123.25, "-123.25"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-8, "1.5e-08"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e100, "1.25e+100"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (value, expected) in cases {
            let mut text = String::new();
            write_float(&mut text, value, value);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn errors_name_the_line() {
        let error = from_text::<NodeDef>("name: \"x\"\nop: 3\n").unwrap_err().to_string();
        assert!(
            error.contains("tensorflow.NodeDef") && error.contains("line 2"),
            "{error}"
        );
        let error = from_text::<NodeDef>("\n\nno_such_field: 1").unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("no_such_field"), "{error}");
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let deep = "attr { value { func { ".repeat(100_000);
        assert!(
            from_text::<NameAttrList>(&deep)
                .unwrap_err()
                .to_string()
                .contains("100 deep")
        );
        let not_deep = format!("name: \"{}\" # {0}", "{".repeat(1000));
        assert!(from_text::<NameAttrList>(&not_deep).is_ok());
    }

    proptest! {
        #[test]
        fn messages_survive(
            name in any::<String>(), bytes in vec(any::<u8>(), 0..20), floats in vec(any::<u32>(), 0..8),
            doubles in vec(any::<f64>(), 0..8), ints in vec(any::<i64>(), 0..8), dtype in -1..140i32,
        ) {
            // A NaN's payload is not part of its text.
            let floats: Vec<f32> = floats.into_iter().map(f32::from_bits).filter(|x| !x.is_nan()).collect();
            let list = ListValue { f: floats, i: ints, r#type: vec![dtype], ..Default::default() };
            let tensor = TensorProto { double_val: doubles, tensor_content: bytes.clone(), ..Default::default() };
            let attr = [Attr::List(Box::new(list)), Attr::Tensor(Box::new(tensor)), Attr::S(bytes), Attr::F(0.0)];
            let attr = attr.into_iter().enumerate()
                .map(|(i, value)| (format!("{name}{i}"), AttrValue { value: Some(value) })).collect();
            let node = NodeDef { input: vec![name.clone(), String::new()], name, attr, ..Default::default() };
            prop_assert_eq!(from_text::<NodeDef>(&to_text(&node).unwrap()).unwrap(), node);
        }

        #[test]
        fn a_damaged_text_never_panics(at in any::<prop::sample::Index>(), bytes in vec(any::<u8>(), 0..4), cut in 0..3usize) {
            let mut text = GRAPH.as_bytes().to_vec();
            let at = at.index(text.len());
            let end = text.len().min(at + cut);
            text.splice(at..end, bytes);
            let _ = from_text::<GraphDef>(&String::from_utf8_lossy(&text));
        }
    }
}
