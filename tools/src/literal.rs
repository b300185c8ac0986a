//! Values written on a command line: `1.5`, `true`, `text`, `[[1, 2], [3, 4]]`.

use graph_core::{DType, Error, Result, Shape, Value};
use serde_json::Value as Json;

/// How deep lists may nest: tensors of more dimensions have to come from a file.
const MAX_RANK: usize = 16;

/// The value that `text` says, of dtype `dtype`. Lists nest as in JSON; beside JSON's numbers there are `nan`, `inf`, `-inf` (in lists: in quotes),
/// and where strings are wanted a text that is no JSON is itself.
///
/// # Errors
/// `InvalidArgument` for a text that is no value, for ragged lists, and for numbers that the dtype cannot hold.
pub fn parse(text: &str, dtype: DType) -> Result<Value> {
    let json = match serde_json::from_str::<Json>(text) {
        Ok(json) => json,
        // A scalar that JSON has no word for.
        Err(_) if !text.trim_start().starts_with(['[', '{', '"']) => Json::String(text.to_owned()),
        Err(error) => {
            return Err(Error::invalid_argument(format!("'{text}' is no value: {error}"))
                .expected("a number, or nested lists of numbers such as [[1, 2], [3, 4]]"));
        }
    };
    let mut dims = Vec::new();
    let mut level = &json;
    while let Json::Array(list) = level {
        dims.push(list.len());
        if dims.len() > MAX_RANK {
            return Err(Error::invalid_argument(format!(
                "the lists nest more than {MAX_RANK} deep"
            )));
        }
        match list.first() {
            Some(first) => level = first,
            None => break,
        }
    }
    let mut elements = Vec::new();
    flatten(&json, &dims, &mut elements)?;
    convert(&elements, Shape::new(&dims), dtype)
}

/// Collects the elements of lists that must all have the dimensions `dims`.
fn flatten<'a>(json: &'a Json, dims: &[usize], elements: &mut Vec<&'a Json>) -> Result<()> {
    match (json, dims) {
        (Json::Array(list), [dim, rest @ ..]) if list.len() == *dim => {
            list.iter().try_for_each(|member| flatten(member, rest, elements))
        }
        (Json::Array(_), _) | (_, [_, ..]) => {
            Err(Error::invalid_argument("the lists are ragged").expected("lists of equal lengths at each depth"))
        }
        (element, []) => {
            elements.push(element);
            Ok(())
        }
    }
}

fn convert(elements: &[&Json], shape: Shape, dtype: DType) -> Result<Value> {
    let all = |element: &dyn Fn(&Json) -> Option<Value>| -> Result<Vec<Value>> {
        let converted = elements.iter().map(|json| {
            element(json).ok_or_else(|| {
                Error::invalid_argument(format!("{json} is no element of a tensor of {dtype}"))
                    .hint("give arrays of other numbers in an .npy file")
            })
        });
        converted.collect()
    };
    if dtype == DType::String {
        let strings = elements.iter().map(|json| match json {
            Json::String(text) => text.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        });
        return Value::from_strings(shape, strings.collect());
    }
    let scalars = match dtype {
        DType::Bool => all(&|json| boolean(json).map(Value::from))?,
        _ if dtype.is_integer() => all(&|json| integer(json, dtype))?,
        _ => all(&|json| Value::from(float(json)?).cast_exactly(dtype).ok())?,
    };
    let bytes: Vec<u8> = scalars
        .iter()
        .flat_map(|scalar| scalar.bytes().iter().copied())
        .collect();
    Value::from_bytes(dtype, shape, &bytes)
}

fn boolean(json: &Json) -> Option<bool> {
    match json {
        Json::Bool(flag) => Some(*flag),
        Json::String(text) if matches!(text.as_str(), "True" | "False") => Some(text == "True"),
        _ => None,
    }
}

fn integer(json: &Json, dtype: DType) -> Option<Value> {
    let wide = match (json.as_i64(), json.as_u64()) {
        (Some(int), _) => Value::from(int),
        (None, Some(int)) => Value::from(int),
        _ => return None,
    };
    wide.cast_exactly(dtype).ok()
}

fn float(json: &Json) -> Option<f64> {
    match json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) if matches!(text.trim_start_matches('-'), "nan" | "NaN" | "inf" | "Infinity") => {
            text.parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lists_take_the_dtype_asked_for() {
        assert_eq!(parse("1.5", DType::Float32).unwrap(), Value::from(1.5f32));
        assert_eq!(parse("-3", DType::Int64).unwrap(), Value::from(-3i64));
        assert_eq!(parse("3", DType::Float64).unwrap(), Value::from(3.0f64));
        assert_eq!(
            parse("[[1, 2], [3, 4]]", DType::Int32).unwrap(),
            Value::from([[1i32, 2], [3, 4]])
        );
        assert_eq!(parse("[true, false]", DType::Bool).unwrap(), Value::from([true, false]));
        assert_eq!(parse("True", DType::Bool).unwrap(), Value::from(true));
        assert_eq!(
            parse("[[], []]", DType::Int32).unwrap(),
            Value::zeros(DType::Int32, [2, 0]).unwrap()
        );
        assert_eq!(
            parse("18446744073709551615", DType::UInt64).unwrap(),
            Value::from(u64::MAX)
        );
        assert!(
            parse("nan", DType::Float32)
                .unwrap()
                .to_scalar::<f32>()
                .unwrap()
                .is_nan()
        );
        assert_eq!(parse("-inf", DType::Float64).unwrap(), Value::from(f64::NEG_INFINITY));
    }

    #[test]
    fn texts_are_strings_where_strings_are_wanted() {
        assert_eq!(parse("text", DType::String).unwrap(), Value::string("text"));
        assert_eq!(parse("\"a b\"", DType::String).unwrap(), Value::string("a b"));
        assert_eq!(parse("7", DType::String).unwrap(), Value::string("7"));
        assert_eq!(
            parse(r#"["a", "b"]"#, DType::String).unwrap().shape(),
            &Shape::new(&[2])
        );
    }

    #[test]
    fn what_is_no_value_of_the_dtype_is_told() {
        for (text, dtype) in [
            ("[1, [2]]", DType::Int32),
            ("[[1], 2]", DType::Int32),
            ("[[1, 2], [3]]", DType::Int32),
            ("[1, 2", DType::Int32),
            ("1.5", DType::Int32),
            ("300", DType::UInt8),
            ("x", DType::Float32),
            ("null", DType::Float32),
            ("1", DType::Bool),
            ("{}", DType::Int32),
        ] {
            assert_eq!(parse(text, dtype).unwrap_err().class(), "InvalidArgument", "{text}");
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert_eq!(parse(&deep, DType::Int32).unwrap_err().class(), "InvalidArgument");
    }
}
