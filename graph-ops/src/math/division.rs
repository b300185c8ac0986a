//! Division, remainders and powers: ops of two operands, broadcast together. Integers divided by zero are an error.

use graph_core::gradients::GradientContext;
use graph_core::graph::Tensor;
use graph_core::graph::scope::name_scope_in;
use graph_core::op::OpDefinition;
use graph_core::{Error, Result};
use num_traits::Zero;

use super::broadcasting::Broadcast;
use super::elementwise::{binary_kernels, binary_op, check_elements, kernel, run_binary};
use super::nodes::Nodes;
use crate::cpu::vector_math::angle;

const ALL_NUMBERS: &str = "T: {bfloat16, half, float, double, uint8, int8, uint16, int16, int32, int64, complex64, \
                           complex128, uint32, uint64}";

fn division_by_zero() -> Error {
    Error::invalid_argument("Integer division by zero").hint("`div_no_nan` of floating-point tensors gives 0 there")
}

/// Adds kernels for integers that first look for a divisor of zero.
macro_rules! checked {
    ($definition:expr; |$x:ident, $y:ident| $e:expr) => {
        checked!($definition; [i8, i16, i32, i64, u8, u16, u32, u64] |$x, $y| $e)
    };
    ($definition:expr; [$($t:ty),*] |$x:ident, $y:ident| $e:expr) => {
        $definition.may_fail() $(.kernel(
            kernel!($t, |context| {
                check_elements::<$t>(context, 1, |divisor| divisor == 0, division_by_zero)?;
                run_binary::<$t, $t, $t>(context, |$x: $t, $y: $t| $e)
            })
            .in_place(0, 0)
            .in_place(1, 0)
        ))*
    };
}

/// Quotients of integers.
trait Quotient: Copy {
    /// `self / divisor` rounded down, and cut to the type's size; of a divisor of zero, any number.
    fn rounded_down(self, divisor: Self) -> Self;
    /// The same cut off toward zero.
    fn cut_off(self, divisor: Self) -> Self;
}

/// As quotients of floating-point numbers, of which CPUs compute several at once: their significands are so much longer than the
/// integers that rounding takes no quotient to the next integer. Added to 1.5 times the power of two at which the last bit counts one, an
/// integer stands in the low bits.
macro_rules! quotients_of_floats {
    ($($float:ty, $rounder:literal, [$($t:ty),*];)*) => {$($(
        impl Quotient for $t {
            #[inline(always)]
            fn rounded_down(self, divisor: Self) -> Self {
                ((<$float>::from(self) / <$float>::from(divisor)).floor() + $rounder).to_bits() as $t
            }
            #[inline(always)]
            fn cut_off(self, divisor: Self) -> Self {
                ((<$float>::from(self) / <$float>::from(divisor)).trunc() + $rounder).to_bits() as $t
            }
        }
    )*)*};
}
quotients_of_floats! {
    f32, 12_582_912.0, [i8, u8, i16, u16];
    f64, 6_755_399_441_055_744.0, [i32, u32];
}

impl Quotient for i64 {
    #[inline(always)]
    fn rounded_down(self, divisor: Self) -> Self {
        let quotient = self.cut_off(divisor);
        let rest = self.wrapping_sub(quotient.wrapping_mul(divisor));
        if rest != 0 && (self < 0) != (divisor < 0) {
            quotient - 1
        } else {
            quotient
        }
    }
    #[inline(always)]
    fn cut_off(self, divisor: Self) -> Self {
        if divisor == 0 { 0 } else { self.wrapping_div(divisor) }
    }
}

impl Quotient for u64 {
    #[inline(always)]
    fn rounded_down(self, divisor: Self) -> Self {
        self.cut_off(divisor)
    }
    #[inline(always)]
    fn cut_off(self, divisor: Self) -> Self {
        self.checked_div(divisor).unwrap_or(0)
    }
}

/// The quotient's gradients, `grad / y` and `grad * (-x / y / y)`, by the division `divide`.
fn quotient_gradient(
    context: &GradientContext<'_>,
    divide: impl Fn(&Nodes<'_>, &Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (x, y) = (context.input(0), context.input(1));
    let broadcast = Broadcast::by_nodes(&nodes, &x, &y)?;
    let (x, y) = (nodes.conj(&x)?, nodes.conj(&y)?);
    let first = broadcast.first(&divide(&nodes, &gradient, &y)?)?;
    let minus = nodes.unary("Neg", &x)?;
    let slope = divide(&nodes, &divide(&nodes, &minus, &y)?, &y)?;
    let second = broadcast.second(&nodes.mul(&gradient, &slope)?)?;
    Ok(vec![Some(first), Some(second)])
}

/// `RealDiv`
pub(crate) fn real_div() -> OpDefinition {
    binary_kernels! {
        binary_op("RealDiv", "x / y of floating-point or complex numbers, element by element.", ALL_NUMBERS)
            .gradient(|context| quotient_gradient(context, |nodes, x, y| nodes.binary("RealDiv", "RealDiv", x, y)));
        float |x, y| x / y;
        complex |x, y| x / y;
        cuda |x, y| "x / y";
    }
}

/// `Div`
pub(crate) fn div() -> OpDefinition {
    let definition = binary_kernels! {
        binary_op("Div", "x / y, element by element; integers are cut off toward zero.", ALL_NUMBERS)
            .gradient(|context| quotient_gradient(context, |nodes, x, y| nodes.truediv(x, y)));
        float |x, y| x / y;
        complex |x, y| x / y;
        cuda |x, y| "x / y";
    };
    checked!(definition; |x, y| x.cut_off(y))
}

/// `TruncateDiv`
pub(crate) fn truncate_div() -> OpDefinition {
    let definition = binary_op("TruncateDiv", "x / y of integers, cut off toward zero.", ALL_NUMBERS)
        .gradient(|_| Ok(vec![None, None]));
    checked!(definition; |x, y| x.cut_off(y))
}

/// `FloorDiv`
pub(crate) fn floor_div() -> OpDefinition {
    let definition = binary_kernels! {
        binary_op("FloorDiv", "x / y, rounded down, element by element.", ALL_NUMBERS)
            .gradient(|_| Ok(vec![None, None]));
        float |x, y| (x / y).floor();
        cuda |x, y| "floor(x / y)";
    };
    checked!(definition; |x, y| x.rounded_down(y))
}

/// `FloorMod`
pub(crate) fn floor_mod() -> OpDefinition {
    let definition = binary_kernels! {
        binary_op(
            "FloorMod",
            "The remainder of x / y rounded down, with the sign of y.",
            "T: {int8, int16, int32, int64, uint8, uint16, uint32, uint64, bfloat16, half, float, double}",
        )
        .gradient(|context| {
            let (x, y, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
            let nodes = Nodes::of(context);
            let broadcast = Broadcast::by_nodes(&nodes, &x, &y)?;
            let floor = nodes.binary("FloorDiv", "FloorDiv", &x, &y)?;
            let first = broadcast.first(&gradient)?;
            let minus = nodes.unary("Neg", &floor)?;
            Ok(vec![Some(first), Some(broadcast.second(&nodes.mul(&gradient, &minus)?)?)])
        });
        float |x, y| {
            let remainder = x % y;
            if (x < 0.0) == (y < 0.0) { remainder } else { (remainder + y) % y }
        };
        cuda |x, y| "(x < C(0)) == (y < C(0)) ? fmod(x, y) : fmod(fmod(x, y) + y, y)";
    };
    checked!(definition; |x, y| x.wrapping_sub(x.rounded_down(y).wrapping_mul(y)))
}

/// `TruncateMod` and its other name `Mod`.
fn remainder(name: &'static str) -> OpDefinition {
    let definition = binary_kernels! {
        binary_op(
            name,
            "The remainder of x / y cut off toward zero, with the sign of x.",
            "T: {int32, int64, half, bfloat16, float, double}",
        );
        float |x, y| x % y;
        cuda |x, y| "fmod(x, y)";
    };
    checked!(definition; [i32, i64] |x, y| x.wrapping_sub(x.cut_off(y).wrapping_mul(y)))
}

/// `TruncateMod`
pub(crate) fn truncate_mod() -> OpDefinition {
    remainder("TruncateMod").no_gradient()
}

/// `Mod`
pub(crate) fn mod_op() -> OpDefinition {
    remainder("Mod").no_gradient()
}

/// `DivNoNan`
pub(crate) fn div_no_nan_op() -> OpDefinition {
    binary_kernels! {
        binary_op(
            "DivNoNan",
            "x / y, and 0 where y is 0.",
            "T: {half, float, bfloat16, double, complex64, complex128}",
        )
        .gradient(|context| {
            quotient_gradient(context, |nodes, x, y| nodes.binary("DivNoNan", "div_no_nan", x, y))
        });
        float |x, y| if y == 0.0 { 0.0 } else { x / y };
        complex |x, y| if y.is_zero() { y } else { x / y };
        cuda |x, y| "y == C(0) ? C(0) : x / y";
    }
}

/// An integer power, which must not be negative; by squaring, cut to the type's size.
macro_rules! integer_power {
    ($definition:expr; [$($t:ty),*]) => {
        $definition $(.kernel(
            kernel!($t, |context| {
                check_elements::<$t>(context, 1, |exponent| exponent < 0, || {
                    Error::invalid_argument("Integers to negative integer powers are not allowed")
                })?;
                run_binary::<$t, $t, $t>(context, |x: $t, y: $t| {
                    num_traits::pow(std::num::Wrapping(x), y.max(0) as usize).0
                })
            })
            .in_place(0, 0)
            .in_place(1, 0)
        ))*
    };
}

/// `Pow`
pub(crate) fn pow_op() -> OpDefinition {
    let definition = binary_kernels! {
        binary_op(
            "Pow",
            "x to the power of y, element by element; integers to powers that are not negative.",
            "T: {bfloat16, float, half, double, int8, int16, int32, int64, complex64, complex128}",
        )
        .may_fail()
        .gradient(pow_gradient);
        float |x, y| x.powf(y);
        complex |x, y| if y.is_zero() { num_traits::One::one() } else { x.powc(y) };
        cuda |x, y| "pow(x, y)";
    };
    integer_power!(definition; [i8, i16, i32, i64])
}

/// `grad * y * x^(y-1)` and `grad * z * ln(x)`, the logarithm taken as 0 where it has no real value.
fn pow_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (x, y) = (context.input(0), context.input(1));
    let broadcast = Broadcast::by_shapes(&nodes, &x, &y, &gradient)?;
    let (x, y, z) = (nodes.conj(&x)?, nodes.conj(&y)?, nodes.conj(&context.output(0))?);
    let scaled = nodes.mul(&gradient, &y)?;
    let power = nodes.binary("Pow", "Pow", &x, &nodes.sub(&y, 1)?)?;
    let first = broadcast.first(&nodes.mul(&scaled, &power)?)?;
    let mask = if x.dtype().is_complex() {
        nodes.binary("NotEqual", "NotEqual", &x, 0)?
    } else {
        nodes.binary("Greater", "Greater", &x, 0)?
    };
    let safe = nodes.select(&mask, &x, &nodes.ones_like(&x, x.dtype())?)?;
    let log = nodes.unary("Log", &safe)?;
    let log = nodes.select(&mask, &log, &nodes.zeros_like(&x)?)?;
    let scaled = nodes.mul(&gradient, &z)?;
    let second = broadcast.second(&nodes.mul(&scaled, &log)?)?;
    Ok(vec![Some(first), Some(second)])
}

/// `Atan2`
pub(crate) fn atan2_op() -> OpDefinition {
    let mut definition = binary_kernels! {
        binary_op(
            "Atan2",
            "The angle of the point (x, y), in (-pi, pi].",
            super::elementwise::FLOATS,
        )
        .gradient(atan2_gradient);
        single |y, x| angle::atan2(y, x);
        plain [f64] |y, x| angle::atan2_64(y, x);
        cuda |y, x| "atan2(y, x)";
    };
    (definition.inputs[0].name, definition.inputs[1].name) = ("y", "x");
    definition
}

/// `x grad / (y^2 + x^2)` and `-y grad / (y^2 + x^2)`; summed where the operands were broadcast.
fn atan2_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (y, x) = (context.input(0), context.input(1));
    let _after = graph_core::graph::scope::control_dependencies([&gradient.op()])?;
    let sum = nodes.add(&nodes.unary("Square", &y)?, &nodes.unary("Square", &x)?)?;
    let scaled = nodes.truediv(&gradient, &sum)?;
    let of_y = nodes.mul(&x, &scaled)?;
    let of_x = nodes.mul(&nodes.unary("Neg", &y)?, &scaled)?;
    if super::broadcasting::same_known_shape(&y, &x, &gradient) {
        return Ok(vec![Some(of_y), Some(of_x)]);
    }
    let broadcast = Broadcast::by_nodes(&nodes, &y, &x)?;
    Ok(vec![Some(broadcast.first(&of_y)?), Some(broadcast.second(&of_x)?)])
}

/// The gradients of `Xlogy` and `Xdivy`: slopes by x and y, each times `grad`.
fn zero_aware_gradient(
    context: &GradientContext<'_>,
    op: &str,
    of_y: impl FnOnce(&Nodes<'_>, &Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (x, y) = (context.input(0), context.input(1));
    let broadcast = Broadcast::by_nodes(&nodes, &x, &y)?;
    let _after = graph_core::graph::scope::control_dependencies([&gradient.op()])?;
    let zero = {
        // `tf.cast(0., dtype)`: a constant of single precision, cast where the dtype is another.
        let scope = name_scope_in(nodes.graph(), "Cast")?;
        let zero = nodes.scalar(0, graph_core::DType::Float32, "x")?;
        match x.dtype() {
            graph_core::DType::Float32 => zero,
            dtype => nodes
                .node("Cast")
                .input(&zero)
                .attr("DstT", dtype)
                .name(scope.scope_name())
                .build()?,
        }
    };
    let not_zero = nodes.binary("NotEqual", "NotEqual", &x, &zero)?;
    let not_zero = nodes.cast(&not_zero, x.dtype())?;
    let partial_x = nodes.binary(op, op, &not_zero, &y)?;
    let partial_y = of_y(&nodes, &x, &y)?;
    let first = broadcast.first(&nodes.mul(&partial_x, &gradient)?)?;
    let second = broadcast.second(&nodes.mul(&partial_y, &gradient)?)?;
    Ok(vec![Some(first), Some(second)])
}

/// `Xdivy`
pub(crate) fn xdivy_op() -> OpDefinition {
    binary_kernels! {
        binary_op("Xdivy", "x / y, and 0 where x is 0.", "T: {half, bfloat16, float, double, complex64, complex128}")
            .gradient(|context| {
                zero_aware_gradient(context, "Xdivy", |nodes, x, y| {
                    let minus = nodes.unary("Neg", x)?;
                    nodes.binary("Xdivy", "Xdivy", &minus, nodes.binary("Pow", "pow", y, 2)?)
                })
            });
        float |x, y| if x == 0.0 { 0.0 } else { x / y };
        complex |x, y| if x.is_zero() { x } else { x / y };
        cuda |x, y| "x == C(0) ? C(0) : x / y";
    }
}

/// `Xlogy`
pub(crate) fn xlogy_op() -> OpDefinition {
    binary_kernels! {
        binary_op("Xlogy", "x ln(y), and 0 where x is 0.", "T: {half, bfloat16, float, double, complex64, complex128}")
            .gradient(|context| {
                zero_aware_gradient(context, "Xlogy", |nodes, x, y| nodes.binary("Xdivy", "Xdivy", x, y))
            });
        float |x, y| if x == 0.0 { 0.0 } else { x * y.ln() };
        complex |x, y| if x.is_zero() { x } else { x * y.ln() };
        cuda |x, y| "x == C(0) ? C(0) : x * log(y)";
    }
}

#[cfg(test)]
#[path = "division_tests.rs"]
mod tests;
#[cfg(test)]
pub(crate) use tests::{cases, gradient_cases};
