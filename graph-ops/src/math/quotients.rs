//! What Python calls division: functions that choose ops, cast integers and open scopes.

use graph_core::graph::arithmetic::true_divide;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::{DType, Result};

/// A true quotient about to be made; see [`truediv`].
#[must_use = "an operation is made by `build`"]
pub struct TrueDivide {
    operands: [Operand; 2],
    name: String,
}

impl TrueDivide {
    /// Names the quotient and the scope of what it takes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the operations; the quotient.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for operands of different dtypes, of one that has no quotients, or of shapes
    /// that do not broadcast.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        let [x, y] = self.operands;
        true_divide(x, y, &self.name)
    }
}

impl IntoOperand for TrueDivide {
    #[track_caller]
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// `x / y` as a floating-point number: `int32` and `int64` are cast to `f64`, smaller integers to `f32`.
///
/// ```
/// use graph_core::DType;
/// use graph_ops::{array::constant, math};
/// let half = math::truediv(&constant([1i32]).build()?, 2).build()?;
/// assert_eq!(half.dtype(), DType::Float64);
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn truediv(x: impl IntoOperand, y: impl IntoOperand) -> TrueDivide {
    crate::install();
    TrueDivide {
        operands: [x.into_operand(), y.into_operand()],
        name: "truediv".to_owned(),
    }
}

/// `x / y` as Python 3 divides: see [`truediv`].
#[track_caller]
pub fn divide(x: impl IntoOperand, y: impl IntoOperand) -> TrueDivide {
    truediv(x, y)
}

/// `x / y` as Python 2 divides: rounded down for integers.
#[track_caller]
pub fn div(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    let (x, y) = (x.into_operand(), y.into_operand());
    let dtype = x.dtype().or(y.dtype()).or(x.number_dtype());
    let op = if dtype.is_some_and(DType::is_integer) {
        "FloorDiv"
    } else {
        "RealDiv"
    };
    crate::op(op).input(x).input(y).name("div")
}

/// `x / y` of floating-point or complex tensors.
#[track_caller]
pub fn realdiv(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("RealDiv").input(x).input(y)
}

/// `x / y` rounded down, as Python's `//`; integers divided by zero are an error of the run.
#[track_caller]
pub fn floordiv(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("FloorDiv").input(x).input(y).name("floordiv")
}

/// `x / y` of integers, cut off toward zero.
#[track_caller]
pub fn truncatediv(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("TruncateDiv").input(x).input(y)
}

/// The remainder of [`floordiv`], with the sign of `y`.
#[track_caller]
pub fn floormod(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("FloorMod").input(x).input(y)
}

/// `tf.mod`: the same as [`floormod`].
#[track_caller]
pub fn mod_(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    floormod(x, y)
}

/// The remainder of [`truncatediv`], with the sign of `x`.
#[track_caller]
pub fn truncatemod(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("TruncateMod").input(x).input(y)
}

/// `x / y`, and 0 where `y` is 0.
#[track_caller]
pub fn div_no_nan(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("DivNoNan").input(x).input(y).name("div_no_nan")
}

/// `x` to the power of `y`; integers to powers that are not negative.
#[track_caller]
pub fn pow(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("Pow").input(x).input(y)
}

/// The angle of the point (x, y), in radians, in (-pi, pi].
#[track_caller]
pub fn atan2(y: impl IntoOperand, x: impl IntoOperand) -> OpBuilder {
    crate::op("Atan2").input(y).input(x)
}

/// `x / y`, and 0 where `x` is 0, whatever `y` is.
#[track_caller]
pub fn xdivy(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("Xdivy").input(x).input(y).name("xdivy")
}

/// `x ln(y)`, and 0 where `x` is 0, whatever `y` is.
#[track_caller]
pub fn xlogy(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("Xlogy").input(x).input(y).name("xlogy")
}
