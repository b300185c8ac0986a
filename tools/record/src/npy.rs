//! NumPy's file of one array, `.npy`: a magic number, a Python dictionary that tells dtype, order and shape, the elements.
//!
//! Of NumPy's dtypes those are read that a [`Value`] can hold, in either byte order and in C or Fortran order; they are
//! written little-endian in C order. NumPy has no `bfloat16`: it is written as `uint16`, and read back by
//! [`read_as`]. Strings are NumPy's `S` (which cannot hold zero bytes at a string's end) or, when read, `U`, which become
//! UTF-8. Arrays of Python objects are pickles, which are programs: they are refused.

use graph_core::{DType, Error, Result, Shape, Value};

const MAGIC: &[u8] = b"\x93NUMPY";

/// The elements begin at a multiple of this many bytes.
const ALIGNMENT: usize = 64;

/// An array in a form that NumPy reads.
///
/// # Errors
/// `Unimplemented` for dtypes that NumPy has no word for.
pub fn write(value: &Value) -> Result<Vec<u8>> {
    let (descr, body) = match value.dtype() {
        DType::String => fixed_width(value.as_strings()?),
        dtype => (descr(dtype)?.to_owned(), value.bytes().to_vec()),
    };
    let dims: Vec<String> = value.shape().iter().map(ToString::to_string).collect();
    let shape = match dims.as_slice() {
        [only] => format!("({only},)"),
        _ => format!("({})", dims.join(", ")),
    };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // Version 1 counts the header in two bytes; a value of so many dimensions that it overflows needs version 2.
    let wide = header.len() + ALIGNMENT > usize::from(u16::MAX);
    let start = MAGIC.len() + 2 + if wide { 4 } else { 2 };
    let padding = (start + header.len() + 1).next_multiple_of(ALIGNMENT) - (start + header.len() + 1);
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    let mut bytes = Vec::with_capacity(start + header.len() + body.len());
    bytes.extend_from_slice(MAGIC);
    if wide {
        bytes.extend([2, 0]);
        bytes.extend((header.len() as u32).to_le_bytes());
    } else {
        bytes.extend([1, 0]);
        bytes.extend((header.len() as u16).to_le_bytes());
    }
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// An array of the dtype that the file says.
///
/// # Errors
/// `DataLoss` for bytes that are no such file or are cut short, `Unimplemented` for arrays of dtypes that a [`Value`]
/// cannot hold. Nothing is allocated that the bytes do not pay for.
pub fn read(bytes: &[u8]) -> Result<Value> {
    let header = Header::parse(bytes)?;
    header.value(&bytes[header.start..])
}

/// [`read`], where `dtype` is known from elsewhere: the bits of `bfloat16` are then told from `uint16`.
///
/// # Errors
/// Those of [`read`], and `InvalidArgument` if the array is of another dtype.
pub fn read_as(bytes: &[u8], dtype: DType) -> Result<Value> {
    as_dtype(read(bytes)?, dtype)
}

/// A value read from a file as what it is known to be: `bfloat16` for a `uint16` array of its bits.
///
/// # Errors
/// `InvalidArgument` if it is of another dtype.
pub fn as_dtype(value: Value, dtype: DType) -> Result<Value> {
    match (value.dtype(), dtype) {
        (found, wanted) if found == wanted => Ok(value),
        (DType::UInt16, DType::BFloat16) => Value::from_bytes(dtype, value.shape().clone(), value.bytes()),
        // The quantized types are integers with another name.
        (DType::Int8, DType::QInt8)
        | (DType::UInt8, DType::QUInt8)
        | (DType::Int16, DType::QInt16)
        | (DType::UInt16, DType::QUInt16)
        | (DType::Int32, DType::QInt32) => Value::from_bytes(dtype, value.shape().clone(), value.bytes()),
        (found, _) => Err(Error::invalid_argument("the array has another dtype")
            .expected(dtype)
            .got(found)),
    }
}

/// NumPy's word for a dtype, little-endian.
fn descr(dtype: DType) -> Result<&'static str> {
    Ok(match dtype {
        DType::Float32 => "<f4",
        DType::Float64 => "<f8",
        DType::Half => "<f2",
        DType::BFloat16 | DType::UInt16 | DType::QUInt16 => "<u2",
        DType::Int8 | DType::QInt8 => "|i1",
        DType::Int16 | DType::QInt16 => "<i2",
        DType::Int32 | DType::QInt32 => "<i4",
        DType::Int64 => "<i8",
        DType::UInt8 | DType::QUInt8 => "|u1",
        DType::UInt32 => "<u4",
        DType::UInt64 => "<u8",
        DType::Bool => "|b1",
        DType::Complex64 => "<c8",
        DType::Complex128 => "<c16",
        DType::String | DType::Resource | DType::Variant => {
            return Err(Error::unimplemented(format!(
                "NumPy's files cannot hold arrays of dtype {dtype}"
            )));
        }
    })
}

/// Strings as NumPy's `S`: all as long as the longest, filled up with zero bytes.
fn fixed_width(strings: &[Vec<u8>]) -> (String, Vec<u8>) {
    let width = strings.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let mut body = vec![0; width * strings.len()];
    for (field, string) in body.chunks_exact_mut(width).zip(strings) {
        field[..string.len()].copy_from_slice(string);
    }
    (format!("|S{width}"), body)
}

/// What kind of elements an array holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Elements {
    /// Of a fixed-size dtype, made of `parts` numbers of the same size.
    Numbers { dtype: DType, parts: usize },
    /// Byte strings of this many bytes.
    Bytes(usize),
    /// Strings of this many code points of four bytes each.
    Text(usize),
}

impl Elements {
    /// Bytes an element takes in the file, or `None` where that overflows.
    fn size(self) -> Option<usize> {
        match self {
            Self::Numbers { dtype, .. } => dtype.size(),
            Self::Bytes(width) => Some(width),
            Self::Text(width) => width.checked_mul(4),
        }
    }

    /// The kind of elements of a dtype in NumPy's words, and whether they are big-endian.
    fn parse(descr: &str) -> Result<(Self, bool)> {
        let unknown = || {
            Error::unimplemented(format!("arrays of NumPy's dtype '{descr}' are not read"))
                .hint("numbers, booleans, complex numbers, and strings as 'S' or 'U' are")
        };
        let (big_endian, rest) = match descr.as_bytes().first() {
            Some(b'>') => (true, &descr[1..]),
            Some(b'<' | b'|' | b'=') => (false, &descr[1..]),
            _ => (false, descr),
        };
        if rest.starts_with('O') {
            return Err(unknown().hint("it is a pickle of Python objects: write it with a dtype of numbers or strings"));
        }
        let width = |digits: &str| digits.parse::<usize>().map_err(|_| unknown());
        if let Some(digits) = rest.strip_prefix(['S', 'a']) {
            return Ok((Self::Bytes(width(digits)?), false));
        }
        if let Some(digits) = rest.strip_prefix('U') {
            return Ok((Self::Text(width(digits)?), big_endian));
        }
        let (dtype, parts) = match rest {
            "f4" => (DType::Float32, 1),
            "f8" => (DType::Float64, 1),
            "f2" => (DType::Half, 1),
            // What NumPy makes of a `bfloat16` that another library taught it.
            "V2" => (DType::BFloat16, 1),
            "i1" => (DType::Int8, 1),
            "i2" => (DType::Int16, 1),
            "i4" => (DType::Int32, 1),
            "i8" => (DType::Int64, 1),
            "u1" => (DType::UInt8, 1),
            "u2" => (DType::UInt16, 1),
            "u4" => (DType::UInt32, 1),
            "u8" => (DType::UInt64, 1),
            "b1" => (DType::Bool, 1),
            "c8" => (DType::Complex64, 2),
            "c16" => (DType::Complex128, 2),
            _ => return Err(unknown()),
        };
        Ok((Self::Numbers { dtype, parts }, big_endian))
    }
}

struct Header {
    elements: Elements,
    big_endian: bool,
    fortran_order: bool,
    shape: Shape,
    /// Where the elements begin.
    start: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let not_npy = |why: &str| Error::data_loss(format!("this is no .npy file: {why}"));
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or_else(|| not_npy("it does not begin with NumPy's magic number"))?;
        let (length, start): (usize, usize) = match *rest {
            [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([a, b])), 4),
            [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([a, b, c, d]) as usize, 6),
            [version, ..] if !(1..=3).contains(&version) => {
                return Err(Error::unimplemented(format!(
                    ".npy files of version {version} are not read"
                )));
            }
            _ => return Err(not_npy("it ends within the header")),
        };
        let text = rest
            .get(start..start.saturating_add(length))
            .ok_or_else(|| not_npy("it ends within the header"))?;
        let text = std::str::from_utf8(text).map_err(|_| not_npy("its header is not text"))?;
        let dictionary = Dictionary::parse(text).ok_or_else(|| {
            not_npy("its header is not a dictionary of 'descr', 'fortran_order' and 'shape'").got(text.trim_end())
        })?;
        let (elements, big_endian) = Elements::parse(&dictionary.descr)?;
        Ok(Self {
            elements,
            big_endian,
            fortran_order: dictionary.fortran_order,
            shape: Shape::from(dictionary.shape),
            start: MAGIC.len() + start + length,
        })
    }

    /// The value that the elements in `body` make.
    fn value(&self, body: &[u8]) -> Result<Value> {
        let needed = self
            .shape
            .checked_num_elements()
            .and_then(|count| count.checked_mul(self.elements.size()?));
        let body = needed.and_then(|needed| body.get(..needed)).ok_or_else(|| {
            Error::data_loss("the file is cut short")
                .expected(format!("the elements of an array of shape {}", self.shape))
                .got(format!("{} bytes", body.len()))
        })?;
        match self.elements {
            Elements::Numbers { dtype, parts } => {
                let size = dtype.size().unwrap_or(1);
                let mut swapped;
                let mut body = body;
                if self.big_endian && size / parts > 1 {
                    swapped = body.to_vec();
                    swapped.chunks_exact_mut(size / parts).for_each(<[u8]>::reverse);
                    body = &swapped;
                }
                let ordered;
                if self.fortran_order {
                    ordered = self.row_major(body, size);
                    body = &ordered;
                }
                Value::from_bytes(dtype, self.shape.clone(), body)
            }
            Elements::Bytes(0) | Elements::Text(0) => {
                if self.shape.num_elements() > self.start {
                    return Err(Error::data_loss("the file holds no bytes for so many strings").got(&self.shape));
                }
                Value::from_strings(self.shape.clone(), vec![Vec::new(); self.shape.num_elements()])
            }
            Elements::Bytes(width) => {
                let ordered = if self.fortran_order {
                    self.row_major(body, width)
                } else {
                    body.to_vec()
                };
                let strings = ordered.chunks_exact(width).map(|field| trimmed(field).to_vec());
                Value::from_strings(self.shape.clone(), strings.collect())
            }
            Elements::Text(width) => {
                let size = width * 4;
                let ordered = if self.fortran_order {
                    self.row_major(body, size)
                } else {
                    body.to_vec()
                };
                let strings: Option<Vec<Vec<u8>>> = ordered
                    .chunks_exact(size)
                    .map(|field| self.text(field).map(String::into_bytes))
                    .collect();
                let strings = strings.ok_or_else(|| Error::data_loss("a string holds what is no code point"))?;
                Value::from_strings(self.shape.clone(), strings)
            }
        }
    }

    fn text(&self, field: &[u8]) -> Option<String> {
        let mut text = String::new();
        for unit in field.chunks_exact(4) {
            let unit = [unit[0], unit[1], unit[2], unit[3]];
            let code = if self.big_endian {
                u32::from_be_bytes(unit)
            } else {
                u32::from_le_bytes(unit)
            };
            text.push(char::from_u32(code)?);
        }
        text.truncate(text.trim_end_matches('\0').len());
        Some(text)
    }

    /// Elements of `size` bytes in Fortran order (first index fastest) as they come in C order.
    fn row_major(&self, body: &[u8], size: usize) -> Vec<u8> {
        let dims = self.shape.dims();
        let mut strides = vec![size; dims.len()];
        for axis in 1..dims.len() {
            strides[axis] = strides[axis - 1] * dims[axis - 1];
        }
        let mut ordered = Vec::with_capacity(body.len());
        let mut index = vec![0; dims.len()];
        let mut offset = 0;
        while ordered.len() < body.len() {
            ordered.extend_from_slice(&body[offset..offset + size]);
            for axis in (0..dims.len()).rev() {
                index[axis] += 1;
                offset += strides[axis];
                if index[axis] < dims[axis] {
                    break;
                }
                offset -= strides[axis] * dims[axis];
                index[axis] = 0;
            }
        }
        ordered
    }
}

/// A string without the zero bytes that fill its field.
fn trimmed(field: &[u8]) -> &[u8] {
    let end = field.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &field[..end]
}

/// The header's dictionary: `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, keys in any order.
struct Dictionary {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Dictionary {
    fn parse(text: &str) -> Option<Self> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        let mut rest = Scanner(text);
        rest.expect("{")?;
        while rest.expect("}").is_none() {
            let key = rest.string()?;
            rest.expect(":")?;
            match key {
                "descr" => descr = Some(rest.string()?.to_owned()),
                "fortran_order" => fortran_order = Some(rest.boolean()?),
                "shape" => shape = Some(rest.tuple()?),
                _ => return None,
            }
            if rest.expect(",").is_none() {
                rest.expect("}")?;
                break;
            }
        }
        rest.0.trim().is_empty().then_some(())?;
        Some(Self {
            descr: descr?,
            fortran_order: fortran_order?,
            shape: shape?,
        })
    }
}

/// What is left to read of the header.
struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    fn expect(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(token)?;
        Some(())
    }

    fn string(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
        let (string, rest) = text[1..].split_once(quote)?;
        self.0 = rest;
        Some(string)
    }

    fn boolean(&mut self) -> Option<bool> {
        match self.expect("True") {
            Some(()) => Some(true),
            None => self.expect("False").map(|()| false),
        }
    }

    fn tuple(&mut self) -> Option<Vec<usize>> {
        let mut dims = Vec::new();
        self.expect("(")?;
        while self.expect(")").is_none() {
            let text = self.0.trim_start();
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            dims.push(text[..digits].parse().ok()?);
            // Python 2 wrote long integers with an L.
            self.0 = text[digits..].strip_prefix('L').unwrap_or(&text[digits..]);
            if self.expect(",").is_none() {
                self.expect(")")?;
                break;
            }
        }
        Some(dims)
    }
}

#[cfg(test)]
mod tests {
    use graph_core::Complex;
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;

    fn file(descr: &str, order: &str, shape: &str, body: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}}}\n");
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(body);
        bytes
    }

    fn samples() -> Vec<Value> {
        vec![
            Value::from(1.5f32),
            Value::from([[1.0f64, f64::NAN], [f64::INFINITY, -0.0]]),
            Value::from([f16::from_f32(0.5), f16::from_f32(-2.0)]),
            Value::from([1i8, -1]),
            Value::from([1i16, -300]),
            Value::from([1i32, -70_000]),
            Value::from([i64::MIN, i64::MAX]),
            Value::from([255u8]),
            Value::from([65_535u16]),
            Value::from([u32::MAX]),
            Value::from([u64::MAX]),
            Value::from([true, false]),
            Value::from([Complex::new(1.0f32, -2.0)]),
            Value::from([Complex::new(1.0f64, -2.0)]),
            Value::from_strings([2, 2], [&b"a"[..], b"", b"b\0c", b"\xff"].map(<[u8]>::to_vec).to_vec()).unwrap(),
            Value::zeros(DType::Float32, [0, 3]).unwrap(),
            Value::zeros(DType::Int64, [1, 2, 1, 3]).unwrap(),
        ]
    }

    #[test]
    fn values_survive_the_file() {
        for value in samples() {
            let bytes = write(&value).unwrap();
            assert_eq!(read(&bytes).unwrap(), value);
            let header = u16::from_le_bytes([bytes[8], bytes[9]]);
            assert_eq!((10 + header) % 64, 0);
        }
    }

    #[test]
    fn bfloat16_travels_as_uint16() {
        let value = Value::from([bf16::from_f32(1.0), bf16::from_f32(-0.5)]);
        let bytes = write(&value).unwrap();
        assert_eq!(read(&bytes).unwrap(), Value::from([0x3f80u16, 0xbf00]));
        assert_eq!(read_as(&bytes, DType::BFloat16).unwrap(), value);
        assert_eq!(read_as(&bytes, DType::Float32).unwrap_err().class(), "InvalidArgument");
    }

    #[test]
    fn both_orders_and_endiannesses_are_read() {
        let body: Vec<u8> = [1i16, 2, 3, 4, 5, 6].iter().flat_map(|x| x.to_be_bytes()).collect();
        let value = read(&file(">i2", "True", "(2, 3)", &body)).unwrap();
        assert_eq!(value, Value::from([[1i16, 3, 5], [2, 4, 6]]));
        let body: Vec<u8> = [1.0f32, -2.0].iter().flat_map(|x| x.to_be_bytes()).collect();
        let value = read(&file(">c8", "False", "()", &body)).unwrap();
        assert_eq!(value, Value::from(Complex::new(1.0f32, -2.0)));
        let body: Vec<u8> = (0..24u8).collect();
        let value = read(&file("|u1", "True", "(2, 3L, 4)", &body)).unwrap();
        let at = |i: usize, j: usize, k: usize| value.as_slice::<u8>().unwrap()[(i * 3 + j) * 4 + k];
        assert_eq!((at(1, 0, 0), at(0, 1, 0), at(0, 0, 1), at(1, 2, 3)), (1, 2, 6, 23));
    }

    #[test]
    fn text_is_read_as_utf8() {
        let body: Vec<u8> = ['ä', 'b', 'c', '\0']
            .iter()
            .flat_map(|&c| u32::from(c).to_le_bytes())
            .collect();
        let value = read(&file("<U2", "False", "(2,)", &body)).unwrap();
        assert_eq!(value.as_strings().unwrap(), ["äb".as_bytes(), b"c"]);
        let none = [0xff; 8];
        assert_eq!(
            read(&file("<U2", "False", "(1,)", &none)).unwrap_err().class(),
            "DataLoss"
        );
    }

    #[test]
    fn what_the_bytes_do_not_pay_for_is_refused_before_it_is_allocated() {
        for (descr, shape) in [
            ("<f4", "(1000000000000,)"),
            ("<f4", "(4611686018427387904, 4611686018427387904)"),
            ("<f8", "(18446744073709551615,)"),
            ("|S0", "(1000000000000,)"),
            ("|S18446744073709551615", "(2,)"),
            ("<U4611686018427387904", "(2,)"),
            ("<f4", "(3,)"),
        ] {
            assert_eq!(
                read(&file(descr, "False", shape, &[0; 8])).unwrap_err().class(),
                "DataLoss"
            );
        }
        assert_eq!(
            read(&file("|O", "False", "(1,)", &[0; 8])).unwrap_err().class(),
            "Unimplemented"
        );
        assert_eq!(
            read(&file("<f4", "False", "(-1,)", &[0; 8])).unwrap_err().class(),
            "DataLoss"
        );
        assert_eq!(
            read(&file("<M8[ns]", "False", "(1,)", &[0; 8])).unwrap_err().class(),
            "Unimplemented"
        );
    }

    proptest! {
        #[test]
        fn cut_and_mutated_files_never_panic(
            sample in 0..17usize,
            cut in 0..400usize,
            changes in prop::collection::vec((0..400usize, any::<u8>()), 0..4),
        ) {
            let mut bytes = write(&samples()[sample]).unwrap();
            for (position, byte) in changes {
                let len = bytes.len();
                bytes[position % len] = byte;
            }
            bytes.truncate(cut.max(1));
            let _ = read(&bytes);
        }

        #[test]
        fn any_header_text_is_an_answer(text in "[{}'a-z_:<>|0-9fuicSUOL(), TrueFals]{0,80}") {
            let mut bytes = MAGIC.to_vec();
            bytes.extend([1, 0]);
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
            let _ = read(&bytes);
        }
    }
}
