//! Logic of truth values, and of the bits of integers.

use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelDefinition, OpDefinition};
use graph_core::{Graph, Result};

use crate::cuda::elementwise::expression;

use super::elementwise::{INTEGERS, binary_kernels, binary_op, run_binary, run_unary, unary_kernels, unary_op};
use super::nodes::Nodes;

/// An op of two truth values.
macro_rules! connective {
    ($op:literal, $summary:literal, |$x:ident, $y:ident| $e:expr) => {
        OpDefinition::new($op, $summary)
            .input("x: bool")
            .input("y: bool")
            .output("z: bool")
            .commutative()
            .shape(InferenceContext::broadcast)
            .not_differentiable()
            .kernel(
                KernelDefinition::direct(|context| run_binary::<bool, bool, bool>(context, |$x, $y| $e))
                    .in_place(0, 0)
                    .in_place(1, 0),
            )
            .kernel(expression!(|$x, $y| stringify!($e)).in_place(0, 0).in_place(1, 0))
    };
}

/// `LogicalAnd`
pub(crate) fn logical_and_op() -> OpDefinition {
    connective!("LogicalAnd", "x and y, element by element.", |x, y| x & y)
}

/// `LogicalOr`
pub(crate) fn logical_or_op() -> OpDefinition {
    connective!("LogicalOr", "x or y, element by element.", |x, y| x | y)
}

/// `LogicalNot`
pub(crate) fn logical_not_op() -> OpDefinition {
    OpDefinition::new("LogicalNot", "not x, element by element.")
        .input("x: bool")
        .output("y: bool")
        .shape(InferenceContext::unchanged)
        .not_differentiable()
        .kernel(KernelDefinition::direct(|context| run_unary::<bool, bool>(context, |x| !x)).in_place(0, 0))
        .kernel(expression!(|x| "!x").in_place(0, 0))
}

/// An op of the bits of two integers, the second time as an expression in CUDA C.
macro_rules! bitwise {
    ($op:literal, $summary:literal, |$x:ident, $y:ident| $e:expr, $on_device:literal) => {
        binary_kernels! {
            binary_op($op, $summary, INTEGERS).not_differentiable();
            plain [i8, i16, i32, i64, u8, u16, u32, u64] |$x, $y| $e;
            cuda [i8, i16, i32, i64, u8, u16, u32, u64] |x, y| $on_device;
        }
    };
}

/// `BitwiseAnd`
pub(crate) fn bitwise_and_op() -> OpDefinition {
    bitwise!(
        "BitwiseAnd",
        "The bits that are set in x and in y.",
        |x, y| x & y,
        "x & y"
    )
    .commutative()
}

/// `BitwiseOr`
pub(crate) fn bitwise_or_op() -> OpDefinition {
    bitwise!(
        "BitwiseOr",
        "The bits that are set in x or in y.",
        |x, y| x | y,
        "x | y"
    )
    .commutative()
}

/// `BitwiseXor`
pub(crate) fn bitwise_xor_op() -> OpDefinition {
    bitwise!("BitwiseXor", "The bits in which x and y differ.", |x, y| x ^ y, "x ^ y").commutative()
}

/// The number of places to shift: from 0 to all but one of the type's bits.
macro_rules! places {
    ($x:ident, $y:ident) => {{
        let bits = 8 * std::mem::size_of_val(&$x) as u32;
        i128::from($y).clamp(0, i128::from(bits - 1)) as u32
    }};
}

/// `LeftShift`
pub(crate) fn left_shift_op() -> OpDefinition {
    bitwise!(
        "LeftShift",
        "x shifted left by y places, by 0 where y is negative and by all but one where y is larger.",
        |x, y| x << places!(x, y),
        "u64(x) << (y > C(0) ? y < C(8 * sizeof(C) - 1) ? y : C(8 * sizeof(C) - 1) : C(0))"
    )
}

/// `RightShift`
pub(crate) fn right_shift_op() -> OpDefinition {
    bitwise!(
        "RightShift",
        "x shifted right by y places, with its sign, by 0 where y is negative and by all but one where y is larger.",
        |x, y| x >> places!(x, y),
        "x >> (y > C(0) ? y < C(8 * sizeof(C) - 1) ? y : C(8 * sizeof(C) - 1) : C(0))"
    )
}

/// `Invert`
pub(crate) fn invert_op() -> OpDefinition {
    unary_kernels! {
        unary_op("Invert", "Every bit of x turned over.", INTEGERS).not_differentiable();
        plain [i8, i16, i32, i64, u8, u16, u32, u64] |x| !x;
        cuda [i8, i16, i32, i64, u8, u16, u32, u64] |x| "~x";
    }
}

/// `x and y`, element by element, of `bool` tensors broadcast together.
#[track_caller]
pub fn logical_and(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("LogicalAnd").input(x).input(y)
}

/// `x or y`, element by element, of `bool` tensors broadcast together.
#[track_caller]
pub fn logical_or(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("LogicalOr").input(x).input(y)
}

/// `not x`, element by element, of a `bool` tensor.
#[track_caller]
pub fn logical_not(x: impl IntoOperand) -> OpBuilder {
    crate::op("LogicalNot").input(x)
}

/// An exclusive or about to be made; see [`logical_xor`].
#[must_use = "an operation is made by `build`"]
pub struct LogicalXor {
    operands: [Operand; 2],
    name: String,
}

impl LogicalXor {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for operands that are not `bool` or whose shapes do not broadcast.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        let [x, y] = &self.operands;
        let graph = x.graph().or(y.graph()).cloned().unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, std::panic::Location::caller());
        let either = nodes.binary("LogicalOr", "LogicalOr", x, y)?;
        let both = nodes.binary("LogicalAnd", "LogicalAnd", x, y)?;
        let not_both = nodes.unary("LogicalNot", &both)?;
        nodes.binary("LogicalAnd", &self.name, &either, &not_both)
    }
}

impl IntoOperand for LogicalXor {
    #[track_caller]
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// `x or y but not both`, element by element, of `bool` tensors broadcast together.
#[track_caller]
pub fn logical_xor(x: impl IntoOperand, y: impl IntoOperand) -> LogicalXor {
    LogicalXor {
        operands: [x.into_operand(), y.into_operand()],
        name: "LogicalXor".to_owned(),
    }
}

/// The bits that are set in `x` and in `y`, integers.
#[track_caller]
pub fn bitwise_and(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("BitwiseAnd").input(x).input(y)
}

/// The bits that are set in `x` or in `y`, integers.
#[track_caller]
pub fn bitwise_or(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("BitwiseOr").input(x).input(y)
}

/// The bits in which the integers `x` and `y` differ.
#[track_caller]
pub fn bitwise_xor(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("BitwiseXor").input(x).input(y)
}

/// The integers `x` shifted left by `y` places.
#[track_caller]
pub fn left_shift(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("LeftShift").input(x).input(y)
}

/// The integers `x` shifted right by `y` places, with their signs.
#[track_caller]
pub fn right_shift(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("RightShift").input(x).input(y)
}

/// Every bit of the integers `x` turned over.
#[track_caller]
pub fn invert(x: impl IntoOperand) -> OpBuilder {
    crate::op("Invert").input(x)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let (x, y) = ([[true], [false]], [true, false]);
    let mut cases = vec![
        Case::new("LogicalAnd")
            .input(x)
            .input(y)
            .expect([[true, false], [false, false]]),
        Case::new("LogicalOr")
            .input(x)
            .input(y)
            .expect([[true, true], [true, false]]),
        Case::new("LogicalNot").input(y).expect([false, true]),
        Case::new("LeftShift")
            .input([1i32, 1, 1, -8])
            .input([-1i32, 31, 40, 1])
            .expect([1i32, i32::MIN, i32::MIN, -16]),
        Case::new("RightShift")
            .input([-8i32, 8, -1, -8])
            .input([1i32, -1, 40, 31])
            .expect([-4i32, 8, -1, -1]),
        Case::new("RightShift")
            .input([128u8, u8::MAX])
            .input([7u8, 200])
            .expect([1u8, 1]),
        Case::new("BitwiseAnd").input([[-1i64]]).input(6i64).expect([[6i64]]),
    ];
    macro_rules! integers {
        ($($t:ty),*) => {$(
            cases.extend([
                Case::new("BitwiseAnd").input([12 as $t]).input([10 as $t]).expect([8 as $t]),
                Case::new("BitwiseOr").input([12 as $t]).input([10 as $t]).expect([14 as $t]),
                Case::new("BitwiseXor").input([12 as $t]).input([10 as $t]).expect([6 as $t]),
                Case::new("LeftShift").input([3 as $t]).input([2 as $t]).expect([12 as $t]),
                Case::new("RightShift").input([12 as $t]).input([2 as $t]).expect([3 as $t]),
                Case::new("Invert").input([5 as $t]).expect([!(5 as $t)]),
            ]);
        )*};
    }
    integers!(i8, i16, i32, i64, u8, u16, u32, u64);
    cases
}

#[cfg(test)]
mod tests {
    #[test]
    fn exclusive_or_is_made_of_three_others() {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let x = crate::array::constant([true, false]).name("x").build().unwrap();
        super::logical_xor(&x, &x).build().unwrap();
        let names: Vec<String> = graph.operations().iter().map(|operation| operation.name()).collect();
        assert_eq!(names, ["x", "LogicalOr", "LogicalAnd", "LogicalNot", "LogicalXor"]);
    }
}
