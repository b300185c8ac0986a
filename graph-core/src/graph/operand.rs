//! What ops are called with: tensors, variables, numbers, arrays and lists of them.

use std::sync::Arc;

use crate::dtype::{Complex, DType};
use crate::error::{Error, Result};
use crate::graph::builder::{OpBuilder, constant_in};
use crate::graph::{Graph, Tensor, scope};
use crate::value::Value;
use crate::variable::Variable;

/// What an op is called with, before it is an input.
#[derive(Clone, Debug)]
pub enum Operand {
    /// A tensor.
    Tensor(Tensor),
    /// A variable: its reference where the op takes one, its value elsewhere.
    Variable(Variable),
    /// A bare number (or text): becomes a constant of the dtype that the op needs, where that loses nothing.
    Number(Value),
    /// An array: becomes a constant of its own dtype.
    Array(Value),
    /// Several operands: a list argument, or packed into one tensor.
    List(Vec<Operand>),
    /// The error of an operand that could not be built.
    Failed(Arc<Error>),
}

/// What can be an operand: tensors, variables, unfinished builders, numbers, arrays, and arrays and vectors of those.
pub trait IntoOperand {
    /// The operand; a builder is built at once, in the order of the calls.
    fn into_operand(self) -> Operand;
}

impl IntoOperand for Operand {
    fn into_operand(self) -> Operand {
        self
    }
}

impl IntoOperand for &Operand {
    fn into_operand(self) -> Operand {
        self.clone()
    }
}

impl IntoOperand for Tensor {
    fn into_operand(self) -> Operand {
        Operand::Tensor(self)
    }
}

impl IntoOperand for &Tensor {
    fn into_operand(self) -> Operand {
        Operand::Tensor(self.clone())
    }
}

impl IntoOperand for Variable {
    fn into_operand(self) -> Operand {
        Operand::Variable(self)
    }
}

impl IntoOperand for &Variable {
    fn into_operand(self) -> Operand {
        Operand::Variable(self.clone())
    }
}

impl IntoOperand for Value {
    fn into_operand(self) -> Operand {
        Operand::Array(self)
    }
}

impl IntoOperand for &Value {
    fn into_operand(self) -> Operand {
        Operand::Array(self.clone())
    }
}

impl IntoOperand for &str {
    fn into_operand(self) -> Operand {
        Operand::Number(Value::string(self))
    }
}

impl IntoOperand for String {
    fn into_operand(self) -> Operand {
        Operand::Number(Value::string(self))
    }
}

impl<T: IntoOperand> IntoOperand for Result<T> {
    fn into_operand(self) -> Operand {
        self.map_or_else(|error| Operand::Failed(Arc::new(error)), IntoOperand::into_operand)
    }
}

macro_rules! numbers_as_operands {
    ($($type:ty),*) => {$(
        impl IntoOperand for $type {
            fn into_operand(self) -> Operand {
                Operand::Number(Value::scalar(self))
            }
        }
        impl IntoOperand for &$type {
            fn into_operand(self) -> Operand {
                Operand::Number(Value::scalar(*self))
            }
        }
    )*};
}

numbers_as_operands!(
    f32,
    f64,
    half::f16,
    half::bf16,
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

impl<T: IntoOperand, const N: usize> IntoOperand for [T; N] {
    fn into_operand(self) -> Operand {
        Operand::List(self.into_iter().map(IntoOperand::into_operand).collect())
    }
}

impl<T: IntoOperand> IntoOperand for Vec<T> {
    fn into_operand(self) -> Operand {
        Operand::List(self.into_iter().map(IntoOperand::into_operand).collect())
    }
}

impl<T> IntoOperand for &[T]
where
    for<'a> &'a T: IntoOperand,
{
    fn into_operand(self) -> Operand {
        Operand::List(self.iter().map(IntoOperand::into_operand).collect())
    }
}

impl<T> IntoOperand for &Vec<T>
where
    for<'a> &'a T: IntoOperand,
{
    fn into_operand(self) -> Operand {
        self.as_slice().into_operand()
    }
}

impl<T: crate::dtype::Element, D: ndarray::Dimension> IntoOperand for &ndarray::Array<T, D> {
    fn into_operand(self) -> Operand {
        Operand::Array(Value::from(self))
    }
}

impl<T: crate::dtype::Element, D: ndarray::Dimension> IntoOperand for ndarray::Array<T, D> {
    fn into_operand(self) -> Operand {
        Operand::Array(Value::from(&self))
    }
}

impl Operand {
    /// The graph that the operand belongs to, if it belongs to any.
    pub fn graph(&self) -> Option<&Graph> {
        match self {
            Self::Tensor(tensor) => Some(tensor.graph()),
            Self::Variable(variable) => Some(variable.graph()),
            Self::List(list) => list.iter().find_map(Operand::graph),
            _ => None,
        }
    }

    /// The dtype that the operand has by itself; numbers have none.
    pub fn dtype(&self) -> Option<DType> {
        match self {
            Self::Tensor(tensor) => Some(tensor.dtype()),
            Self::Variable(variable) => Some(variable.dtype()),
            Self::Array(value) => Some(value.dtype()),
            Self::List(list) => list.iter().find_map(Operand::dtype),
            Self::Number(_) | Self::Failed(_) => None,
        }
    }

    /// The dtype of the first number in it.
    pub fn number_dtype(&self) -> Option<DType> {
        match self {
            Self::Number(value) => Some(value.dtype()),
            Self::List(list) => list.iter().find_map(Operand::number_dtype),
            _ => None,
        }
    }

    pub(crate) fn failure(&self) -> Option<&Error> {
        match self {
            Self::Failed(error) => Some(error),
            Self::List(list) => list.iter().find_map(Operand::failure),
            _ => None,
        }
    }

    /// The operand as a value, where it holds no tensor: numbers and nested lists of them.
    ///
    /// # Errors
    /// `InvalidArgument` if rows differ in shape or numbers do not fit `dtype`.
    pub fn to_value(&self, dtype: Option<DType>) -> Result<Option<Value>> {
        match self {
            Self::Number(value) => dtype
                .map_or_else(|| Ok(value.clone()), |dtype| value.cast_exactly(dtype))
                .map(Some),
            Self::Array(value) => Ok(Some(value.clone())),
            Self::List(list) => {
                let dtype = dtype.or_else(|| self.dtype()).or_else(|| self.number_dtype());
                let mut rows = Vec::with_capacity(list.len());
                for operand in list {
                    match operand.to_value(dtype)? {
                        Some(value) => rows.push(value),
                        None => return Ok(None),
                    }
                }
                stack(&rows, dtype.unwrap_or(DType::Float32)).map(Some)
            }
            Self::Tensor(_) | Self::Variable(_) | Self::Failed(_) => Ok(None),
        }
    }

    /// The operand as a tensor of `graph`; what is none yet becomes a constant (a list with tensors in it a `Pack`) named
    /// `name` inside the current scope.
    ///
    /// # Errors
    /// The operand's own, or those of making the constant.
    #[track_caller]
    pub fn to_tensor(&self, graph: &Graph, name: &str, dtype: Option<DType>) -> Result<Tensor> {
        match self {
            Self::Tensor(tensor) => Ok(tensor.clone()),
            Self::Variable(variable) if variable.is_resource() => variable.read_value(),
            Self::Variable(variable) => Ok(variable.value().clone()),
            Self::Failed(error) => Err(error.duplicate()),
            Self::List(list) if self.graph().is_some() => {
                // A list with tensors in it packs itself, in a scope of its own.
                let scope = scope::name_scope_in(graph, name)?;
                let dtype = dtype.or_else(|| self.dtype());
                let members: Vec<Operand> = list
                    .iter()
                    .enumerate()
                    .map(|(index, member)| member.to_tensor(graph, &index.to_string(), dtype).map(Operand::Tensor))
                    .collect::<Result<_>>()?;
                OpBuilder::new("Pack")
                    .input(Operand::List(members))
                    .name(scope.scope_name())
                    .build()
            }
            Self::Number(_) | Self::Array(_) | Self::List(_) => {
                let value = self
                    .to_value(dtype)?
                    .ok_or_else(|| Error::internal("an operand without tensors is a value"))?;
                constant_in(graph, value, name)
            }
        }
    }
}

fn stack(rows: &[Value], dtype: DType) -> Result<Value> {
    let row_shape = rows.first().map(|row| row.shape().clone()).unwrap_or_default();
    if let Some(odd) = rows
        .iter()
        .find(|row| *row.shape() != row_shape || row.dtype() != rows[0].dtype())
    {
        return Err(Error::invalid_argument("the rows of a nested list differ")
            .expected(format!("{} {row_shape}", rows[0].dtype()))
            .got(format!("{} {}", odd.dtype(), odd.shape())));
    }
    let shape: crate::shape::Shape = std::iter::once(rows.len()).chain(row_shape.iter().copied()).collect();
    if dtype == DType::String && !rows.is_empty() {
        let strings = rows
            .iter()
            .map(|row| row.as_strings().map(<[_]>::to_vec))
            .collect::<Result<Vec<_>>>()?;
        return Value::from_strings(shape, strings.concat());
    }
    let bytes: Vec<u8> = rows.iter().flat_map(|row| row.bytes()).copied().collect();
    match rows.first() {
        Some(row) => Value::from_bytes(row.dtype(), shape, &bytes),
        None => Value::zeros(dtype, shape),
    }
}
