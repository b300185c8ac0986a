//! Attribute values of nodes.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::PartialShape;
use crate::value::Value;

/// The value of an attribute, as in TensorFlow's `AttrValue`.
#[derive(Clone, Debug, PartialEq)]
pub enum AttrValue {
    /// `s`: bytes, mostly text.
    String(Vec<u8>),
    /// `i`
    Int(i64),
    /// `f`
    Float(f32),
    /// `b`
    Bool(bool),
    /// `type`
    Type(DType),
    /// `shape`
    Shape(PartialShape),
    /// `tensor`
    Tensor(Value),
    /// `func`
    Func(Box<NameAttrList>),
    /// `placeholder`: only inside function definitions.
    Placeholder(String),
    /// `list(s)`
    StringList(Vec<Vec<u8>>),
    /// `list(i)`; the empty list of any element type is this or the list of its own type.
    IntList(Vec<i64>),
    /// `list(f)`
    FloatList(Vec<f32>),
    /// `list(b)`
    BoolList(Vec<bool>),
    /// `list(type)`
    TypeList(Vec<DType>),
    /// `list(shape)`
    ShapeList(Vec<PartialShape>),
    /// `list(tensor)`
    TensorList(Vec<Value>),
    /// `list(func)`
    FuncList(Vec<NameAttrList>),
}

/// The name of a function and the attributes it is called with.
#[derive(Clone, Debug, PartialEq)]
pub struct NameAttrList {
    /// The function's name.
    pub name: String,
    /// Its attributes.
    pub attrs: Attributes,
}

impl AttrValue {
    /// The kind of value, in the words of an op definition: `int`, `list(type)`, ...
    pub fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Bool(_) => "bool",
            Self::Type(_) => "type",
            Self::Shape(_) => "shape",
            Self::Tensor(_) => "tensor",
            Self::Func(_) => "func",
            Self::Placeholder(_) => "placeholder",
            Self::StringList(_) => "list(string)",
            Self::IntList(_) => "list(int)",
            Self::FloatList(_) => "list(float)",
            Self::BoolList(_) => "list(bool)",
            Self::TypeList(_) => "list(type)",
            Self::ShapeList(_) => "list(shape)",
            Self::TensorList(_) => "list(tensor)",
            Self::FuncList(_) => "list(func)",
        }
    }

    /// Whether this is a list without elements, which carries no element type in a GraphDef.
    pub fn is_empty_list(&self) -> bool {
        match self {
            Self::StringList(list) => list.is_empty(),
            Self::IntList(list) => list.is_empty(),
            Self::FloatList(list) => list.is_empty(),
            Self::BoolList(list) => list.is_empty(),
            Self::TypeList(list) => list.is_empty(),
            Self::ShapeList(list) => list.is_empty(),
            Self::TensorList(list) => list.is_empty(),
            Self::FuncList(list) => list.is_empty(),
            _ => false,
        }
    }
}

macro_rules! attr_from {
    ($($type:ty => |$name:ident| $convert:expr),* $(,)?) => {$(
        impl From<$type> for AttrValue {
            fn from($name: $type) -> Self {
                $convert
            }
        }
    )*};
}

attr_from! {
    &str => |text| Self::String(text.as_bytes().to_vec()),
    String => |text| Self::String(text.into_bytes()),
    i64 => |int| Self::Int(int),
    i32 => |int| Self::Int(int.into()),
    f32 => |float| Self::Float(float),
    bool => |flag| Self::Bool(flag),
    DType => |dtype| Self::Type(dtype),
    PartialShape => |shape| Self::Shape(shape),
    Value => |value| Self::Tensor(value),
    Vec<Vec<u8>> => |list| Self::StringList(list),
    Vec<i64> => |list| Self::IntList(list),
    &[i64] => |list| Self::IntList(list.to_vec()),
    Vec<f32> => |list| Self::FloatList(list),
    Vec<bool> => |list| Self::BoolList(list),
    Vec<DType> => |list| Self::TypeList(list),
    Vec<PartialShape> => |list| Self::ShapeList(list),
}

impl<const N: usize> From<[i64; N]> for AttrValue {
    fn from(list: [i64; N]) -> Self {
        Self::IntList(list.to_vec())
    }
}

/// A Rust type that an attribute can be read as.
pub trait FromAttr: Sized {
    /// The kind of attribute expected, for errors.
    const KIND: &'static str;
    /// Reads the value, or `None` if it is of another kind.
    fn from_attr(value: &AttrValue) -> Option<Self>;
}

macro_rules! attr_into {
    ($($type:ty, $kind:literal, $pattern:pat => $convert:expr, $empty:expr);* $(;)?) => {$(
        impl FromAttr for $type {
            const KIND: &'static str = $kind;
            fn from_attr(value: &AttrValue) -> Option<Self> {
                match value {
                    $pattern => $convert,
                    other if other.is_empty_list() => $empty,
                    _ => None,
                }
            }
        }
    )*};
}

attr_into! {
    String, "string", AttrValue::String(bytes) => String::from_utf8(bytes.clone()).ok(), None;
    i64, "int", AttrValue::Int(int) => Some(*int), None;
    f32, "float", AttrValue::Float(float) => Some(*float), None;
    bool, "bool", AttrValue::Bool(flag) => Some(*flag), None;
    DType, "type", AttrValue::Type(dtype) => Some(*dtype), None;
    PartialShape, "shape", AttrValue::Shape(shape) => Some(shape.clone()), None;
    Value, "tensor", AttrValue::Tensor(value) => Some(value.clone()), None;
    Vec<Vec<u8>>, "list(string)", AttrValue::StringList(list) => Some(list.clone()), Some(Vec::new());
    Vec<i64>, "list(int)", AttrValue::IntList(list) => Some(list.clone()), Some(Vec::new());
    Vec<f32>, "list(float)", AttrValue::FloatList(list) => Some(list.clone()), Some(Vec::new());
    Vec<bool>, "list(bool)", AttrValue::BoolList(list) => Some(list.clone()), Some(Vec::new());
    Vec<DType>, "list(type)", AttrValue::TypeList(list) => Some(list.clone()), Some(Vec::new());
    Vec<PartialShape>, "list(shape)", AttrValue::ShapeList(list) => Some(list.clone()), Some(Vec::new());
}

/// The name of an attribute; of those in op definitions, without a copy.
pub type AttrName = Cow<'static, str>;

/// The attributes of a node, sorted by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(SmallVec<[(AttrName, AttrValue); 2]>);

impl Attributes {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The attribute `name`.
    pub fn get(&self, name: &str) -> Option<&AttrValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Sets the attribute `name`.
    pub fn set(&mut self, name: impl Into<AttrName>, value: impl Into<AttrValue>) {
        let (name, value) = (name.into(), value.into());
        match self.0.binary_search_by(|(key, _)| key.as_ref().cmp(name.as_ref())) {
            Ok(index) => self.0[index].1 = value,
            Err(index) => self.0.insert(index, (name, value)),
        }
    }

    /// Removes the attribute `name`.
    pub fn remove(&mut self, name: &str) -> Option<AttrValue> {
        let index = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(index).1)
    }

    /// All attributes, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &AttrValue)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// The attribute `name` as a Rust type.
    ///
    /// # Errors
    /// `InvalidArgument` if there is none, or one of another kind.
    pub fn read<T: FromAttr>(&self, name: &str) -> Result<T> {
        let value = self
            .get(name)
            .ok_or_else(|| Error::invalid_argument(format!("the attribute '{name}' is missing")).expected(T::KIND))?;
        T::from_attr(value).ok_or_else(|| {
            Error::invalid_argument(format!("the attribute '{name}' is of another kind"))
                .expected(T::KIND)
                .got(value.kind())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_sorted_and_typed() {
        let mut attrs = Attributes::new();
        attrs.set("strides", [1i64, 2]);
        attrs.set("T", DType::Float32);
        attrs.set("T", DType::Half);
        assert_eq!(attrs.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["T", "strides"]);
        assert_eq!(attrs.read::<DType>("T").unwrap(), DType::Half);
        assert_eq!(attrs.read::<Vec<i64>>("strides").unwrap(), [1, 2]);
        assert!(attrs.read::<i64>("T").is_err());
        assert!(attrs.read::<i64>("missing").is_err());
        attrs.set("empty", Vec::<DType>::new());
        assert_eq!(attrs.read::<Vec<i64>>("empty").unwrap(), Vec::<i64>::new());
    }
}
