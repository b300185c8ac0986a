//! Tensors as text, as assertions and `Print` show them: TensorFlow's `Tensor::SummarizeValue`, letter for letter.

use graph_core::{DType, Value};

/// The first `limit` elements (all if negative), rows in brackets: `[1 2][3...]...`.
pub(crate) fn summarize(value: &Value, limit: i64) -> String {
    let total = value.num_elements();
    let limit = usize::try_from(limit).map_or(total, |limit| limit.min(total));
    let mut text = String::new();
    let dims = value.shape().dims();
    if dims.is_empty() {
        text.push_str(&(0..limit).map(|index| element(value, index)).collect::<String>());
    } else {
        let mut writer = Writer {
            value,
            dims,
            limit,
            next: 0,
            text: &mut text,
        };
        writer.axis(0);
    }
    if total > limit {
        text.push_str("...");
    }
    text
}

struct Writer<'a> {
    value: &'a Value,
    dims: &'a [usize],
    limit: usize,
    next: usize,
    text: &'a mut String,
}

impl Writer<'_> {
    fn axis(&mut self, axis: usize) {
        if self.next >= self.limit {
            return;
        }
        if axis + 1 == self.dims.len() {
            return self.row(axis);
        }
        for _ in 0..self.dims[axis] {
            if self.next >= self.limit {
                return;
            }
            self.text.push('[');
            self.axis(axis + 1);
            self.text.push(']');
        }
    }

    fn row(&mut self, axis: usize) {
        for index in 0..self.dims[axis] {
            if self.next >= self.limit {
                if axis != 0 {
                    self.text.push_str("...");
                }
                return;
            }
            if index > 0 {
                self.text.push(' ');
            }
            self.text.push_str(&element(self.value, self.next));
            self.next += 1;
        }
    }
}

/// The first and last `ends` elements of each axis (all if negative), as `tf.print` shows them: `[0 1 ... 8 9]`.
pub(crate) fn summarize_ends(value: &Value, ends: i64) -> String {
    let ends = usize::try_from(ends).unwrap_or(usize::MAX);
    let mut text = String::new();
    write_ends(value, ends, 0, 0, &mut text);
    text
}

fn write_ends(value: &Value, ends: usize, axis: usize, offset: usize, text: &mut String) {
    let dims = value.shape().dims();
    let Some(&count) = dims.get(axis) else {
        match value.dtype() {
            DType::String => text.push_str(&format!("\"{}\"", element(value, offset))),
            _ => text.push_str(&element(value, offset)),
        }
        return;
    };
    let stride: usize = dims[axis + 1..].iter().product();
    let separator = if axis + 1 < dims.len() {
        format!("\n{}", " ".repeat(axis + 1))
    } else {
        " ".to_owned()
    };
    text.push('[');
    for index in 0..count.min(ends) {
        if index > 0 {
            text.push_str(&separator);
        }
        write_ends(value, ends, axis + 1, offset + stride * index, text);
    }
    if count > ends.saturating_mul(2) {
        text.push_str(&separator);
        text.push_str("...");
    }
    for index in ends.max(count.saturating_sub(ends))..count {
        text.push_str(&separator);
        write_ends(value, ends, axis + 1, offset + stride * index, text);
    }
    text.push(']');
}

/// One element as text.
fn element(value: &Value, index: usize) -> String {
    match value.dtype() {
        DType::Float32 => value.as_slice::<f32>().map_or_else(|_| "?".into(), |x| float(x[index])),
        DType::Half => value
            .as_slice::<half::f16>()
            .map_or_else(|_| "?".into(), |x| float(x[index].to_f32())),
        DType::BFloat16 => value
            .as_slice::<half::bf16>()
            .map_or_else(|_| "?".into(), |x| float(x[index].to_f32())),
        DType::Float64 => value
            .as_slice::<f64>()
            .map_or_else(|_| "?".into(), |x| double(x[index])),
        DType::Bool => value
            .as_slice::<bool>()
            .map_or_else(|_| "?".into(), |x| u8::from(x[index]).to_string()),
        DType::String => value
            .as_strings()
            .map_or_else(|_| "?".into(), |x| escape(&String::from_utf8_lossy(&x[index]))),
        _ => {
            let mut text = String::new();
            match value.fmt_element(index, &mut text) {
                Ok(()) => text,
                Err(_) => "?".to_owned(),
            }
        }
    }
}

/// 6 significant digits where they are enough to read the number back, else 9.
fn float(x: f32) -> String {
    let short = general(x.into(), 6);
    match short.parse::<f32>() {
        Ok(same) if same == x => short,
        _ if x.is_finite() => general(x.into(), 9),
        _ => short,
    }
}

/// 15 significant digits where they are enough to read the number back, else 17.
fn double(x: f64) -> String {
    let short = general(x, 15);
    match short.parse::<f64>() {
        Ok(same) if same == x => short,
        _ if x.is_finite() => general(x, 17),
        _ => short,
    }
}

/// C's `%.{digits}g`.
fn general(x: f64, digits: usize) -> String {
    if x.is_nan() {
        return "nan".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{x:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs());
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    trim(&format!("{x:.decimals$}"))
}

/// C escapes; letters outside ASCII stay.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '"' | '\'' | '\\' => escaped.extend(['\\', c]),
            c if c.is_ascii_control() => escaped.push_str(&format!("\\{:03o}", c as u32)),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorFlow prints for the same tensors.
    #[test]
    fn tensors_are_shown_as_tensorflow_shows_them() {
        assert_eq!(
            summarize(&Value::from([1.5f32, 2.0, 1.0 / 3.0, 7.0]), 3),
            "1.5 2 0.333333343..."
        );
        assert_eq!(summarize(&Value::from([[1, 2], [3, 4]]), 3), "[1 2][3...]...");
        assert_eq!(summarize(&Value::scalar(true), 3), "1");
        assert_eq!(summarize(&Value::string("text `x`\n'\"é"), 3), "text `x`\\n\\'\\\"é");
        let cube = Value::from((0..12).collect::<Vec<i32>>()).reshaped([2, 3, 2]).unwrap();
        assert_eq!(summarize(&cube, 7), "[[0 1][2 3][4 5]][[6...]]...");
        assert_eq!(summarize(&cube, -1), "[[0 1][2 3][4 5]][[6 7][8 9][10 11]]");
        let floats = Value::from([
            0.1f32,
            1e20,
            1e-5,
            123456789.0,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            1e15,
            1e16,
            100000.0,
            1234567.0,
        ]);
        assert_eq!(
            summarize(&floats, -1),
            "0.1 1e+20 1e-05 123456792 nan inf -inf 1e+15 1e+16 100000 1234567"
        );
        let doubles = Value::from([0.1f64, 1.0 / 3.0, -0.0, 1e5, 1e22]);
        assert_eq!(summarize(&doubles, -1), "0.1 0.33333333333333331 -0 100000 1e+22");
        let halves = Value::from([half::f16::from_f64(0.1)]);
        assert_eq!(summarize(&halves, 3), "0.0999755859");
        assert_eq!(summarize(&Value::zeros(DType::Float32, [0, 3]).unwrap(), 3), "");
    }

    #[test]
    fn the_ends_of_each_axis() {
        let matrix = Value::from((0..20).collect::<Vec<i32>>()).reshaped([4, 5]).unwrap();
        assert_eq!(summarize_ends(&matrix, 1), "[[0 ... 4]\n ...\n [15 ... 19]]");
        assert_eq!(summarize_ends(&Value::from([true, false]), 3), "[1 0]");
        assert_eq!(summarize_ends(&Value::string("q\"s"), 3), "\"q\\\"s\"");
    }
}
