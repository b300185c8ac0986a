//! Element types of tensors, with TensorFlow's names and numbers.

use std::fmt;

use half::{bf16, f16};

/// The type of a tensor's elements.
///
/// The discriminants are TensorFlow's `DataType` numbers; [`DType::name`] is TensorFlow's name for it (`float`, not `f32`).
/// Reference types (`DT_FLOAT_REF`) are not element types: whether a tensor is a reference is kept beside its dtype.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum DType {
    Float32 = 1,
    Float64 = 2,
    Int32 = 3,
    UInt8 = 4,
    Int16 = 5,
    Int8 = 6,
    String = 7,
    Complex64 = 8,
    Int64 = 9,
    Bool = 10,
    QInt8 = 11,
    QUInt8 = 12,
    QInt32 = 13,
    BFloat16 = 14,
    QInt16 = 15,
    QUInt16 = 16,
    UInt16 = 17,
    Complex128 = 18,
    Half = 19,
    Resource = 20,
    Variant = 21,
    UInt32 = 22,
    UInt64 = 23,
}

use DType::*;

/// Number, name and element size in bytes (0: not a fixed-size type) of every dtype.
const TABLE: [(DType, &str, usize); 23] = [
    (Float32, "float", 4),
    (Float64, "double", 8),
    (Int32, "int32", 4),
    (UInt8, "uint8", 1),
    (Int16, "int16", 2),
    (Int8, "int8", 1),
    (String, "string", 0),
    (Complex64, "complex64", 8),
    (Int64, "int64", 8),
    (Bool, "bool", 1),
    (QInt8, "qint8", 1),
    (QUInt8, "quint8", 1),
    (QInt32, "qint32", 4),
    (BFloat16, "bfloat16", 2),
    (QInt16, "qint16", 2),
    (QUInt16, "quint16", 2),
    (UInt16, "uint16", 2),
    (Complex128, "complex128", 16),
    (Half, "half", 2),
    (Resource, "resource", 0),
    (Variant, "variant", 0),
    (UInt32, "uint32", 4),
    (UInt64, "uint64", 8),
];

impl DType {
    /// Every number type, in TensorFlow's order of `numbertype`.
    pub const NUMBERS: &'static [DType] = &[
        Float32, Float64, Int32, UInt8, Int16, Int8, Complex64, Int64, QInt8, QUInt8, QInt32, BFloat16, UInt16,
        Complex128, Half, UInt32, UInt64,
    ];
    /// The real number types.
    pub const REAL_NUMBERS: &'static [DType] = &[
        Float32, Float64, Int32, UInt8, Int16, Int8, Int64, BFloat16, UInt16, Half, UInt32, UInt64,
    ];
    /// The floating-point types.
    pub const FLOATS: &'static [DType] = &[BFloat16, Half, Float32, Float64];
    /// The integer types.
    pub const INTEGERS: &'static [DType] = &[Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64];
    /// `int32` and `int64`, the types of indices and shapes.
    pub const INDICES: &'static [DType] = &[Int32, Int64];

    /// TensorFlow's name: `float`, `double`, `half`, `int32`, ...
    pub fn name(self) -> &'static str {
        TABLE[self as usize - 1].1
    }

    /// Bytes an element takes; `None` for strings, resources and variants.
    pub fn size(self) -> Option<usize> {
        Some(TABLE[self as usize - 1].2).filter(|&size| size > 0)
    }

    /// The dtype of a `DataType` number, reference types excluded.
    pub fn from_number(number: i32) -> Option<DType> {
        TABLE
            .get(usize::try_from(number).ok()?.checked_sub(1)?)
            .map(|row| row.0)
    }

    /// The dtype of a TensorFlow name; `DT_FLOAT`, `float32` and `float` are all understood.
    pub fn from_name(name: &str) -> Option<DType> {
        let lower = name.strip_prefix("DT_").unwrap_or(name).to_ascii_lowercase();
        let plain = match lower.as_str() {
            "float32" => "float",
            "float64" => "double",
            "float16" => "half",
            other => other,
        };
        TABLE.iter().find(|row| row.1 == plain).map(|row| row.0)
    }

    /// Whether the type is one of [`DType::FLOATS`].
    pub fn is_floating(self) -> bool {
        Self::FLOATS.contains(&self)
    }

    /// Whether the type is one of [`DType::INTEGERS`].
    pub fn is_integer(self) -> bool {
        Self::INTEGERS.contains(&self)
    }

    /// Whether the type is `complex64` or `complex128`.
    pub fn is_complex(self) -> bool {
        matches!(self, Complex64 | Complex128)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that is the element of a tensor.
///
/// # Safety
/// The type must have the size of its [`DType`], no padding and no drop glue, and every bit pattern that a
/// [`Value`](crate::Value) of that dtype can hold must be valid for it.
pub unsafe trait Element: Copy + Send + Sync + PartialEq + fmt::Debug + Default + 'static {
    /// The dtype of tensors of this type.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($type:ty => $dtype:ident),* $(,)?) => {$(
        // SAFETY: a plain number (or a bool, which values only ever hold as 0 or 1) of the dtype's size.
        unsafe impl Element for $type {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}

elements! {
    f32 => Float32, f64 => Float64, f16 => Half, bf16 => BFloat16,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    u8 => UInt8, u16 => UInt16, u32 => UInt32, u64 => UInt64,
    bool => Bool,
    Complex<f32> => Complex64, Complex<f64> => Complex128,
}

pub use num_complex::Complex;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_order_of_numbers() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index + 1);
            assert_eq!(DType::from_number(index as i32 + 1), Some(row.0));
            assert_eq!(DType::from_name(row.1), Some(row.0));
        }
        assert_eq!(DType::from_number(0), None);
        assert_eq!(DType::from_number(24), None);
        assert_eq!(DType::from_name("DT_HALF"), Some(DType::Half));
        assert_eq!(DType::from_name("float32"), Some(DType::Float32));
    }
}
