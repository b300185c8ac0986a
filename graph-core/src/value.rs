//! Concrete data: what is fed, fetched, and held by constants and variables.

use std::fmt;
use std::sync::Arc;

use half::{bf16, f16};

use crate::buffer::Buffer;
use crate::dtype::{Complex, DType, Element};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// A dense array on the host: a dtype, a shape and the elements in row-major order.
///
/// Cloning shares the elements; writing to a shared value copies them first.
///
/// ```
/// use graph_core::Value;
/// let value = Value::from_vec([2, 2], vec![1.0f32, 2.0, 3.0, 4.0])?;
/// assert_eq!(value.as_slice::<f32>()?[3], 4.0);
/// # Ok::<(), graph_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Value {
    dtype: DType,
    shape: Shape,
    data: Data,
}

#[derive(Clone)]
enum Data {
    Bytes(Arc<Buffer>),
    Strings(Arc<Vec<Vec<u8>>>),
}

impl Value {
    /// A value of zeros (empty strings).
    ///
    /// # Errors
    /// `ResourceExhausted` if memory does not suffice, `Unimplemented` for resources and variants.
    pub fn zeros(dtype: DType, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        let count = shape
            .checked_num_elements()
            .ok_or_else(|| Error::invalid_argument(format!("the shape {shape} has too many elements")))?;
        let data = match dtype.size() {
            Some(size) => {
                let bytes = count.checked_mul(size).filter(|&bytes| bytes <= isize::MAX as usize);
                let bytes = bytes.ok_or_else(|| {
                    Error::resource_exhausted(format!("a {dtype} value of shape {shape} is too large"))
                })?;
                Data::Bytes(Arc::new(Buffer::zeroed(bytes)?))
            }
            None if dtype == DType::String => Data::Strings(Arc::new(vec![Vec::new(); count])),
            None => {
                return Err(Error::unimplemented(format!(
                    "values of dtype {dtype} are not supported"
                )));
            }
        };
        Ok(Self { dtype, shape, data })
    }

    /// A value of these elements.
    ///
    /// # Errors
    /// `InvalidArgument` if the shape has another number of elements.
    pub fn from_vec<T: Element>(shape: impl Into<Shape>, elements: impl AsRef<[T]>) -> Result<Self> {
        let (shape, elements) = (shape.into(), elements.as_ref());
        check_count(&shape, elements.len())?;
        let mut value = Self::zeros(T::DTYPE, shape)?;
        value.as_mut_slice::<T>()?.copy_from_slice(elements);
        Ok(value)
    }

    /// A value of these byte strings.
    ///
    /// # Errors
    /// `InvalidArgument` if the shape has another number of elements.
    pub fn from_strings(shape: impl Into<Shape>, strings: Vec<Vec<u8>>) -> Result<Self> {
        let shape = shape.into();
        check_count(&shape, strings.len())?;
        Ok(Self {
            dtype: DType::String,
            shape,
            data: Data::Strings(Arc::new(strings)),
        })
    }

    /// A value of the raw little-endian bytes of its elements.
    ///
    /// # Errors
    /// `InvalidArgument` if the number of bytes does not fit the shape, or if the dtype has no fixed size.
    pub fn from_bytes(dtype: DType, shape: impl Into<Shape>, bytes: &[u8]) -> Result<Self> {
        let shape = shape.into();
        let size = dtype
            .size()
            .ok_or_else(|| Error::invalid_argument(format!("dtype {dtype} has no fixed-size elements")))?;
        if shape.checked_num_elements().and_then(|count| count.checked_mul(size)) != Some(bytes.len()) {
            return Err(
                Error::invalid_argument(format!("wrong number of bytes for a {dtype} value of shape {shape}"))
                    .got(format!("{} bytes", bytes.len())),
            );
        }
        let mut buffer = Buffer::copy_of(bytes)?;
        if dtype == DType::Bool {
            buffer
                .as_mut_slice()
                .iter_mut()
                .for_each(|byte| *byte = (*byte != 0) as u8);
        }
        Ok(Self {
            dtype,
            shape,
            data: Data::Bytes(Arc::new(buffer)),
        })
    }

    /// A value that takes over a buffer of its elements.
    pub(crate) fn from_buffer(dtype: DType, shape: Shape, buffer: Arc<Buffer>) -> Self {
        debug_assert_eq!(dtype.size().map(|size| size * shape.num_elements()), Some(buffer.len()));
        Self {
            dtype,
            shape,
            data: Data::Bytes(buffer),
        }
    }

    /// A scalar.
    pub fn scalar<T: Element>(element: T) -> Self {
        let mut buffer = Buffer::zeroed(size_of::<T>()).expect("a scalar fits into memory");
        // SAFETY: the buffer has the size of a `T` and a larger alignment.
        unsafe { buffer.as_mut_ptr().cast::<T>().write(element) };
        Self::from_buffer(T::DTYPE, Shape::scalar(), Arc::new(buffer))
    }

    /// A string scalar.
    pub fn string(text: impl AsRef<[u8]>) -> Self {
        Self {
            dtype: DType::String,
            shape: Shape::scalar(),
            data: Data::Strings(Arc::new(vec![text.as_ref().to_vec()])),
        }
    }

    /// An `int32` vector, as shapes, axes and permutations are given to ops.
    pub fn int32_vector(elements: impl IntoIterator<Item = i32>) -> Self {
        let elements: Vec<i32> = elements.into_iter().collect();
        Self::from_vec([elements.len()], elements).expect("a short vector fits into memory")
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The number of elements.
    pub fn num_elements(&self) -> usize {
        self.shape.num_elements()
    }

    /// The elements in row-major order.
    ///
    /// # Errors
    /// `InvalidArgument` if the value has another dtype.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        match &self.data {
            Data::Bytes(buffer) if self.dtype == T::DTYPE => {
                let start = buffer.as_ptr().cast::<T>();
                // SAFETY: the buffer holds `num_elements` elements of dtype `T::DTYPE`, aligned for any of them.
                Ok(unsafe { std::slice::from_raw_parts(start, self.num_elements()) })
            }
            _ => Err(self.wrong_dtype(T::DTYPE)),
        }
    }

    /// The elements in row-major order, for writing; copied first if they are shared.
    ///
    /// # Errors
    /// `InvalidArgument` if the value has another dtype, `ResourceExhausted` if a copy does not fit.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        if self.dtype != T::DTYPE {
            return Err(self.wrong_dtype(T::DTYPE));
        }
        let count = self.num_elements();
        let start = self.unique_buffer()?.as_mut_ptr().cast::<T>();
        // SAFETY: as in `as_slice`; the buffer is not shared, and `self` is borrowed uniquely.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, count) })
    }

    /// The buffer of the elements, copied first if it is shared.
    pub(crate) fn unique_buffer(&mut self) -> Result<&mut Buffer> {
        let Data::Bytes(buffer) = &mut self.data else {
            return Err(Error::internal("a string value has no buffer"));
        };
        if Arc::get_mut(buffer).is_none() {
            *buffer = Arc::new(Buffer::copy_of(buffer.as_slice())?);
        }
        Ok(Arc::get_mut(buffer).expect("unshared above"))
    }

    /// The address of the elements, if they are of this dtype and shape, are shared with nobody, and are there at all.
    pub(crate) fn own_elements(&mut self, dtype: DType, shape: &Shape) -> Option<*mut u8> {
        let fits = self.dtype == dtype && self.shape == *shape && shape.num_elements() > 0;
        match &mut self.data {
            Data::Bytes(buffer) if fits => Some(Arc::get_mut(buffer)?.as_mut_ptr()),
            _ => None,
        }
    }

    /// The byte strings of a string value.
    ///
    /// # Errors
    /// `InvalidArgument` for every other dtype.
    pub fn as_strings(&self) -> Result<&[Vec<u8>]> {
        match &self.data {
            Data::Strings(strings) => Ok(strings),
            Data::Bytes(_) => Err(self.wrong_dtype(DType::String)),
        }
    }

    /// The raw bytes of the elements (little-endian on every supported machine); empty for strings.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Bytes(buffer) => buffer.as_slice(),
            Data::Strings(_) => &[],
        }
    }

    /// A copy that shares nothing with this value.
    ///
    /// # Errors
    /// `ResourceExhausted` if it does not fit into memory.
    pub fn deep_copy(&self) -> Result<Self> {
        let data = match &self.data {
            Data::Bytes(buffer) => Data::Bytes(Arc::new(Buffer::copy_of(buffer.as_slice())?)),
            Data::Strings(strings) => Data::Strings(Arc::new(strings.to_vec())),
        };
        Ok(Self {
            dtype: self.dtype,
            shape: self.shape.clone(),
            data,
        })
    }

    /// The only element.
    ///
    /// # Errors
    /// `InvalidArgument` if there are more or fewer, or if the value has another dtype.
    pub fn to_scalar<T: Element>(&self) -> Result<T> {
        match self.as_slice::<T>()? {
            [element] => Ok(*element),
            _ => Err(Error::invalid_argument(format!(
                "a value of shape {} is not a scalar",
                self.shape
            ))),
        }
    }

    /// The elements of an integer value (`int32` or `int64`), as indices, axes and shapes come.
    ///
    /// # Errors
    /// `InvalidArgument` for every other dtype.
    pub fn to_i64_vec(&self) -> Result<Vec<i64>> {
        match self.dtype {
            DType::Int32 => Ok(self.as_slice::<i32>()?.iter().map(|&element| element.into()).collect()),
            DType::Int64 => Ok(self.as_slice::<i64>()?.to_vec()),
            _ => Err(Error::invalid_argument("a value of indices must be int32 or int64").got(self.dtype)),
        }
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// `InvalidArgument` if the shape has another number of elements.
    pub fn reshaped(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        check_count(&shape, self.num_elements())?;
        Ok(Self { shape, ..self.clone() })
    }

    /// A number as an element of `dtype`, where that is exact or goes from float to float.
    ///
    /// # Errors
    /// `InvalidArgument` where it would lose something, or if one of the two is not a number.
    pub fn cast_exactly(&self, dtype: DType) -> Result<Self> {
        if self.dtype == dtype {
            return Ok(self.clone());
        }
        let fail = || {
            Error::invalid_argument(format!("{self} cannot be taken as {dtype} without loss"))
                .expected(dtype)
                .got(self.dtype)
                .hint("give it in the tensor's own dtype, or cast the tensor")
        };
        let numbers: Vec<Number> = Number::all_of(self).ok_or_else(fail)?;
        let mut out = Self::zeros(dtype, self.shape.clone())?;
        let from_float = self.dtype.is_floating();
        macro_rules! write {
            ($type:ty, $convert:expr) => {{
                for (slot, &number) in out.as_mut_slice::<$type>()?.iter_mut().zip(&numbers) {
                    let convert: fn(Number) -> Option<$type> = $convert;
                    *slot = convert(number).ok_or_else(fail)?;
                }
            }};
        }
        macro_rules! write_int {
            ($type:ty) => {
                write!($type, |number| match number {
                    Number::Int(int) => <$type>::try_from(int).ok(),
                    Number::Float(float) => (float.trunc() == float && float.abs() < 9e18)
                        .then_some(float as i128)
                        .and_then(|int| <$type>::try_from(int).ok()),
                })
            };
        }
        /// From float to float a number is rounded; from an integer it must be exact.
        fn float<T: Copy>(number: Number, narrow: fn(f64) -> T, widen: fn(T) -> f64) -> Option<T> {
            match number {
                Number::Float(float) => Some(narrow(float)),
                Number::Int(int) => Some(narrow(int as f64)).filter(|&narrowed| widen(narrowed) as i128 == int),
            }
        }
        match dtype {
            DType::Float32 => write!(f32, |number| float(number, |x| x as f32, f64::from)),
            DType::Float64 => write!(f64, |number| float(number, |x| x, |x| x)),
            DType::Half => write!(f16, |number| float(number, f16::from_f64, f16::to_f64)),
            DType::BFloat16 => write!(bf16, |number| float(number, bf16::from_f64, bf16::to_f64)),
            DType::Complex64 => {
                write!(Complex<f32>, |number| float(number, |x| x as f32, f64::from)
                    .map(|re| Complex::new(re, 0.0)))
            }
            DType::Complex128 => {
                write!(Complex<f64>, |number| float(number, |x| x, |x| x)
                    .map(|re| Complex::new(re, 0.0)))
            }
            DType::Int8 if !from_float => write_int!(i8),
            DType::Int16 if !from_float => write_int!(i16),
            DType::Int32 if !from_float => write_int!(i32),
            DType::Int64 if !from_float => write_int!(i64),
            DType::UInt8 if !from_float => write_int!(u8),
            DType::UInt16 if !from_float => write_int!(u16),
            DType::UInt32 if !from_float => write_int!(u32),
            DType::UInt64 if !from_float => write_int!(u64),
            _ => return Err(fail()),
        }
        Ok(out)
    }

    fn wrong_dtype(&self, expected: DType) -> Error {
        Error::invalid_argument("the value has another dtype")
            .expected(expected)
            .got(self.dtype)
    }
}

fn check_count(shape: &Shape, count: usize) -> Result<()> {
    if shape.checked_num_elements() == Some(count) {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "{count} elements do not make a value of shape {shape}"
    )))
}

/// A number wide enough to hold any element without loss.
#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn all_of(value: &Value) -> Option<Vec<Number>> {
        macro_rules! read {
            ($type:ty, $convert:expr) => {
                value
                    .as_slice::<$type>()
                    .ok()?
                    .iter()
                    .copied()
                    .map($convert)
                    .collect()
            };
        }
        Some(match value.dtype {
            DType::Float32 => read!(f32, |x| Number::Float(x.into())),
            DType::Float64 => read!(f64, Number::Float),
            DType::Half => read!(f16, |x| Number::Float(x.into())),
            DType::BFloat16 => read!(bf16, |x| Number::Float(x.into())),
            DType::Int8 => read!(i8, |x| Number::Int(x.into())),
            DType::Int16 => read!(i16, |x| Number::Int(x.into())),
            DType::Int32 => read!(i32, |x| Number::Int(x.into())),
            DType::Int64 => read!(i64, |x| Number::Int(x.into())),
            DType::UInt8 => read!(u8, |x| Number::Int(x.into())),
            DType::UInt16 => read!(u16, |x| Number::Int(x.into())),
            DType::UInt32 => read!(u32, |x| Number::Int(x.into())),
            DType::UInt64 => read!(u64, |x| Number::Int(x.into())),
            _ => return None,
        })
    }
}

impl PartialEq for Value {
    /// Equal dtype, shape and bytes; NaN equals the same NaN.
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype
            && self.shape == other.shape
            && match (&self.data, &other.data) {
                (Data::Bytes(a), Data::Bytes(b)) => Arc::ptr_eq(a, b) || a.as_slice() == b.as_slice(),
                (Data::Strings(a), Data::Strings(b)) => a == b,
                _ => false,
            }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.dtype, self.shape)?;
        fmt::Display::fmt(self, f)
    }
}

/// How many elements `Display` shows.
const SHOWN: usize = 8;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scalar = self.shape.rank() == 0;
        if !scalar {
            f.write_str("[")?;
        }
        for index in 0..self.num_elements().min(SHOWN) {
            if index > 0 {
                f.write_str(" ")?;
            }
            self.fmt_element(index, f)?;
        }
        if self.num_elements() > SHOWN {
            f.write_str(" ...")?;
        }
        if !scalar {
            f.write_str("]")?;
        }
        Ok(())
    }
}

impl Value {
    /// Writes element `index` as text.
    ///
    /// # Panics
    /// If there is no such element.
    pub fn fmt_element(&self, index: usize, f: &mut impl fmt::Write) -> fmt::Result {
        macro_rules! show {
            ($type:ty) => {
                write!(f, "{}", self.as_slice::<$type>().map_err(|_| fmt::Error)?[index])
            };
        }
        match self.dtype {
            DType::Float32 => show!(f32),
            DType::Float64 => show!(f64),
            DType::Half => show!(f16),
            DType::BFloat16 => show!(bf16),
            DType::Int8 => show!(i8),
            DType::Int16 => show!(i16),
            DType::Int32 => show!(i32),
            DType::Int64 => show!(i64),
            DType::UInt8 => show!(u8),
            DType::UInt16 => show!(u16),
            DType::UInt32 => show!(u32),
            DType::UInt64 => show!(u64),
            DType::Bool => show!(bool),
            DType::Complex64 => show!(Complex<f32>),
            DType::Complex128 => show!(Complex<f64>),
            DType::String => {
                write!(
                    f,
                    "{}",
                    String::from_utf8_lossy(&self.as_strings().map_err(|_| fmt::Error)?[index])
                )
            }
            _ => f.write_str("?"),
        }
    }
}

impl<T: Element> From<T> for Value {
    fn from(element: T) -> Self {
        Self::scalar(element)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::string(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::string(text)
    }
}

impl From<&Value> for Value {
    fn from(value: &Value) -> Self {
        value.clone()
    }
}

impl<T: Element> From<&[T]> for Value {
    fn from(elements: &[T]) -> Self {
        Self::from_vec([elements.len()], elements).expect("as many elements as the shape says")
    }
}

impl<T: Element> From<Vec<T>> for Value {
    fn from(elements: Vec<T>) -> Self {
        Self::from(elements.as_slice())
    }
}

impl<T: Element, const N: usize> From<[T; N]> for Value {
    fn from(elements: [T; N]) -> Self {
        Self::from(elements.as_slice())
    }
}

impl<T: Element, const N: usize, const M: usize> From<[[T; N]; M]> for Value {
    fn from(rows: [[T; N]; M]) -> Self {
        Self::from_vec([M, N], rows.as_flattened()).expect("as many elements as the shape says")
    }
}

impl<T: Element, const N: usize, const M: usize, const L: usize> From<[[[T; N]; M]; L]> for Value {
    fn from(rows: [[[T; N]; M]; L]) -> Self {
        let elements = rows.as_flattened().as_flattened();
        Self::from_vec([L, M, N], elements).expect("as many elements as the shape says")
    }
}

impl<T: Element, const N: usize, const M: usize, const L: usize, const K: usize> From<[[[[T; N]; M]; L]; K]> for Value {
    fn from(rows: [[[[T; N]; M]; L]; K]) -> Self {
        let elements = rows.as_flattened().as_flattened().as_flattened();
        Self::from_vec([K, L, M, N], elements).expect("as many elements as the shape says")
    }
}

impl<T: Element, D: ndarray::Dimension, S: ndarray::Data<Elem = T>> From<&ndarray::ArrayBase<S, D>> for Value {
    fn from(array: &ndarray::ArrayBase<S, D>) -> Self {
        let contiguous = array.as_standard_layout();
        let elements = contiguous.as_slice().expect("the standard layout is contiguous");
        Self::from_vec(array.shape(), elements).expect("as many elements as the shape says")
    }
}

impl<T: Element, D: ndarray::Dimension> From<ndarray::Array<T, D>> for Value {
    fn from(array: ndarray::Array<T, D>) -> Self {
        Self::from(&array)
    }
}

/// A Rust type that a fetched [`Value`] can be taken as.
pub trait FromValue: Sized {
    /// Takes the value as this type.
    ///
    /// # Errors
    /// `InvalidArgument` if dtype or shape do not fit.
    fn from_value(value: Value) -> Result<Self>;
}

impl FromValue for Value {
    fn from_value(value: Value) -> Result<Self> {
        Ok(value)
    }
}

macro_rules! scalars_from_values {
    ($($type:ty),*) => {$(
        impl FromValue for $type {
            fn from_value(value: Value) -> Result<Self> {
                value.to_scalar()
            }
        }
    )*};
}

scalars_from_values!(
    f32,
    f64,
    f16,
    bf16,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
    bool,
    Complex<f32>,
    Complex<f64>
);

impl FromValue for String {
    fn from_value(value: Value) -> Result<Self> {
        match value.as_strings()? {
            [text] => String::from_utf8(text.clone())
                .map_err(|error| Error::invalid_argument("the string is not UTF-8").caused_by(error)),
            _ => Err(Error::invalid_argument(format!(
                "a value of shape {} is not a scalar",
                value.shape
            ))),
        }
    }
}

impl<T: Element> FromValue for Vec<T> {
    fn from_value(value: Value) -> Result<Self> {
        Ok(value.as_slice::<T>()?.to_vec())
    }
}

impl<T: Element, D: ndarray::Dimension> FromValue for ndarray::Array<T, D> {
    fn from_value(value: Value) -> Result<Self> {
        let array = ndarray::ArrayD::from_shape_vec(value.shape().dims(), value.as_slice::<T>()?.to_vec())
            .map_err(|error| Error::internal("a value's shape fits its elements").caused_by(error))?;
        array.into_dimensionality::<D>().map_err(|_| {
            Error::invalid_argument("the value has another rank than the array type")
                .expected(D::NDIM.map_or("any rank".into(), |rank| format!("rank {rank}")))
                .got(format!("shape {}", value.shape()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_share_until_written() {
        let a = Value::from([1.0f32, 2.0]);
        let mut b = a.clone();
        b.as_mut_slice::<f32>().unwrap()[0] = 5.0;
        assert_eq!(a.as_slice::<f32>().unwrap(), [1.0, 2.0]);
        assert_eq!(b.as_slice::<f32>().unwrap(), [5.0, 2.0]);
        assert!(a.as_slice::<f64>().is_err());
    }

    #[test]
    fn numbers_are_taken_exactly() {
        assert_eq!(
            Value::from(2i32).cast_exactly(DType::Float32).unwrap(),
            Value::from(2.0f32)
        );
        assert_eq!(
            Value::from(0.1f64).cast_exactly(DType::Float32).unwrap(),
            Value::from(0.1f32)
        );
        assert!(Value::from(16_777_217i32).cast_exactly(DType::Float32).is_err());
        assert!(Value::from(2.0f64).cast_exactly(DType::Int32).is_err());
        assert!(Value::from(300i32).cast_exactly(DType::UInt8).is_err());
        assert!(Value::from(-1i32).cast_exactly(DType::UInt64).is_err());
        assert!(Value::from(true).cast_exactly(DType::Int32).is_err());
    }

    #[test]
    fn bytes_of_bools_are_made_valid() {
        let value = Value::from_bytes(DType::Bool, [3], &[0, 7, 1]).unwrap();
        assert_eq!(value.as_slice::<bool>().unwrap(), [false, true, true]);
    }

    #[test]
    fn arrays_convert_both_ways() {
        let array = ndarray::arr2(&[[1i64, 2, 3], [4, 5, 6]]);
        let value = Value::from(&array.t());
        assert_eq!(value.shape(), &Shape::new(&[3, 2]));
        assert_eq!(ndarray::Array2::<i64>::from_value(value.clone()).unwrap(), array.t());
        assert!(ndarray::Array1::<i64>::from_value(value).is_err());
    }

    #[test]
    fn impossible_values_are_errors() {
        assert!(Value::zeros(DType::Float64, [usize::MAX, 2]).is_err());
        assert!(Value::zeros(DType::Float64, [usize::MAX / 64]).is_err());
        assert!(Value::from_vec([3], [1i32, 2]).is_err());
    }
}
