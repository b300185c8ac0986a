//! The arithmetic operators of tensors and variables: `+`, `-`, `*`, `/`, `%` and the sign.
//!
//! Each builds a node and gives `Result<Tensor>`; nodes are named as Python's operators name them (`add`, `sub`, `mul`,
//! `truediv`, `mod`, `Neg`). One side is a tensor or a variable, the other anything that can be an operand; a number on the
//! left is one of `f32`, `f64`, `i32` and `i64`. `/` is true division: integers are cast to floating-point numbers first.
//! `%` has the sign of the divisor, as in Python.

use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, IntoOperand, OpBuilder, Operand, Tensor, scope};
use crate::op::vocabulary::{CAST, arithmetic};
use crate::variable::Variable;

#[track_caller]
fn binary(op: &str, name: &str, x: Operand, y: Operand) -> Result<Tensor> {
    OpBuilder::new(op).input(x).input(y).name(name).build()
}

#[track_caller]
fn add(x: Operand, y: Operand) -> Result<Tensor> {
    let strings = x.dtype().or(y.dtype()) == Some(DType::String);
    let op = if strings {
        arithmetic::ADD_STRINGS
    } else {
        arithmetic::ADD
    };
    binary(op, "add", x, y)
}

#[track_caller]
fn sub(x: Operand, y: Operand) -> Result<Tensor> {
    binary(arithmetic::SUB, "sub", x, y)
}

#[track_caller]
fn mul(x: Operand, y: Operand) -> Result<Tensor> {
    binary(arithmetic::MUL, "mul", x, y)
}

#[track_caller]
fn div(x: Operand, y: Operand) -> Result<Tensor> {
    true_divide(x, y, "truediv")
}

#[track_caller]
fn rem(x: Operand, y: Operand) -> Result<Tensor> {
    binary(arithmetic::FLOOR_MOD, "mod", x, y)
}

/// `x / y` as floating-point numbers, under `name`: `int32` and `int64` are cast to `f64`, smaller integers to `f32`.
///
/// # Errors
/// The operands' own; `InvalidArgument` for operands of different dtypes, or of one that has no quotients.
#[track_caller]
pub fn true_divide(x: Operand, y: Operand, name: &str) -> Result<Tensor> {
    let graph = x.graph().or(y.graph()).cloned().unwrap_or_else(Graph::current);
    let scope = scope::name_scope_in(&graph, name)?;
    let dtype = x.dtype().or(y.dtype());
    let x = x.to_tensor(&graph, "x", dtype)?;
    let y = y.to_tensor(&graph, "y", dtype.or(Some(x.dtype())))?;
    if x.dtype() != y.dtype() {
        return Err(
            Error::invalid_argument("the operands of a division have different dtypes")
                .expected(format!("{x:?}"))
                .got(format!("{y:?}"))
                .hint("cast one of the operands"),
        );
    }
    let wide = match x.dtype() {
        DType::Int32 | DType::Int64 => Some(DType::Float64),
        DType::Int8 | DType::Int16 | DType::UInt8 | DType::UInt16 => Some(DType::Float32),
        dtype if dtype.is_floating() || dtype.is_complex() => None,
        dtype => return Err(Error::invalid_argument("the dtype has no quotients").got(dtype)),
    };
    #[track_caller]
    fn cast(x: Tensor, wide: Option<DType>) -> Result<Tensor> {
        match wide {
            Some(dtype) => OpBuilder::new(CAST).input(x).attr("DstT", dtype).build(),
            None => Ok(x),
        }
    }
    let (x, y) = (cast(x, wide)?, cast(y, wide)?);
    OpBuilder::new(arithmetic::REAL_DIV)
        .input(x)
        .input(y)
        .name(scope.scope_name())
        .build()
}

/// A resource variable whose operator it is, is read beside the operation and not under its name: Python's variables hand
/// their value to the tensor's operator.
#[track_caller]
fn read_first(operand: Operand) -> Operand {
    match operand {
        Operand::Variable(variable) if variable.is_resource() => variable.read_value().into_operand(),
        other => other,
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident),*) => {$(
        operators!(@left $trait $method: Tensor, &Tensor, Variable, &Variable);
        operators!(@number $trait $method: f32, f64, i32, i64);
    )*};
    (@left $trait:ident $method:ident: $($left:ty),*) => {$(
        impl<R: IntoOperand> $trait<R> for $left {
            type Output = Result<Tensor>;
            #[track_caller]
            fn $method(self, right: R) -> Result<Tensor> {
                $method(read_first(self.into_operand()), right.into_operand())
            }
        }
    )*};
    (@number $trait:ident $method:ident: $($number:ty),*) => {$(
        operators!(@right $trait $method $number: Tensor, &Tensor, Variable, &Variable);
    )*};
    (@right $trait:ident $method:ident $number:ty: $($right:ty),*) => {$(
        impl $trait<$right> for $number {
            type Output = Result<Tensor>;
            #[track_caller]
            fn $method(self, right: $right) -> Result<Tensor> {
                $method(self.into_operand(), read_first(right.into_operand()))
            }
        }
    )*};
}

operators!(Add add, Sub sub, Mul mul, Div div, Rem rem);

macro_rules! negation {
    ($($type:ty),*) => {$(
        impl Neg for $type {
            type Output = Result<Tensor>;
            #[track_caller]
            fn neg(self) -> Result<Tensor> {
                OpBuilder::new(arithmetic::NEG).input(read_first(self.into_operand())).build()
            }
        }
    )*};
}

negation!(Tensor, &Tensor, Variable, &Variable);
