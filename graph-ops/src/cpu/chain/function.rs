//! What the instructions of a chain compute, and the loops over a block that compute it.

use super::Precision;
use crate::cpu::element::Real;
use crate::cpu::scratch::Plain;
use crate::cpu::simd::multiversion;
use crate::cpu::vector_math::Elementary;
use half::{bf16, f16};

/// What an instruction computes of x, y and z. Comparisons give 1 or 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Function {
    Add,
    Sub,
    Mul,
    Div,
    Maximum,
    Minimum,
    SquaredDifference,
    /// `x` where `y > 0`, else 0.
    ReluGrad,
    /// `y (1 - x^2)`
    TanhGrad,
    /// `y x (1 - x)`
    SigmoidGrad,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Equal,
    NotEqual,
    /// `y` where `x` is not 0, else `z`.
    Select,
    Identity,
    Neg,
    Abs,
    Sign,
    Square,
    Sqrt,
    Rsqrt,
    Reciprocal,
    Relu,
    Exp,
    Log,
    Tanh,
    Sigmoid,
}

impl Function {
    /// All functions; each stands at the position of its number.
    pub(super) const ALL: [Self; 30] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::Maximum,
        Self::Minimum,
        Self::SquaredDifference,
        Self::ReluGrad,
        Self::TanhGrad,
        Self::SigmoidGrad,
        Self::Greater,
        Self::GreaterEqual,
        Self::Less,
        Self::LessEqual,
        Self::Equal,
        Self::NotEqual,
        Self::Select,
        Self::Identity,
        Self::Neg,
        Self::Abs,
        Self::Sign,
        Self::Square,
        Self::Sqrt,
        Self::Rsqrt,
        Self::Reciprocal,
        Self::Relu,
        Self::Exp,
        Self::Log,
        Self::Tanh,
        Self::Sigmoid,
    ];

    /// The function of this number.
    pub fn from_number(number: usize) -> Option<Self> {
        Self::ALL.get(number).copied()
    }

    /// Whether its result is one of its operands, but for the sign, or a small whole number: then it is among the numbers that
    /// the operands are among.
    pub(super) fn picks(self) -> bool {
        use Function::*;
        let compares = matches!(self, Greater | GreaterEqual | Less | LessEqual | Equal | NotEqual);
        compares
            || matches!(
                self,
                Maximum | Minimum | ReluGrad | Select | Identity | Neg | Abs | Sign | Relu
            )
    }
}

/// One operation on values that are numbered: first the chain's operands, then the results of its instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    pub function: Function,
    /// x, y and z; those that the function does not take repeat x.
    pub operands: [usize; 3],
    /// What the result is rounded to.
    pub precision: Precision,
}

/// What a step of a chain computes: an instruction, or several that are taken together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Of(Function),
    /// `x y + z`, rounded twice.
    ProductPlus,
    /// `sign(x) y + z`
    SignProductPlus,
}

/// A dtype that chains compute in.
pub trait ChainElement: Elementary + Default + Plain + Send + Sync {
    /// Reads elements that are stored as `precision` says.
    ///
    /// # Safety
    /// `from` is readable for as many elements as `to` has.
    unsafe fn load(precision: Precision, from: *const u8, to: &mut [Self]);

    /// Stores elements as `precision` says, each the nearest there is.
    ///
    /// # Safety
    /// `to` is writable for as many elements as `from` has.
    unsafe fn store(precision: Precision, from: &[Self], to: *mut u8);

    /// Each element becomes the nearest that `precision` has.
    fn round_to(precision: Precision, x: &mut [Self]);
}

impl ChainElement for f32 {
    unsafe fn load(precision: Precision, from: *const u8, to: &mut [f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            match precision {
                Precision::Full => widen(from.cast::<f32>(), to),
                Precision::Half => widen(from.cast::<f16>(), to),
                Precision::BFloat16 => widen(from.cast::<bf16>(), to),
            }
        }
    }

    unsafe fn store(precision: Precision, from: &[f32], to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            match precision {
                Precision::Full => narrow(from, to.cast::<f32>()),
                Precision::Half => narrow(from, to.cast::<f16>()),
                Precision::BFloat16 => narrow(from, to.cast::<bf16>()),
            }
        }
    }

    fn round_to(precision: Precision, x: &mut [f32]) {
        match precision {
            Precision::Full => (),
            Precision::Half => f16::round_all(x),
            Precision::BFloat16 => bf16::round_all(x),
        }
    }
}

impl ChainElement for f64 {
    unsafe fn load(precision: Precision, from: *const u8, to: &mut [f64]) {
        debug_assert_eq!(precision, Precision::Full, "half types are computed in `float`");
        // SAFETY: the caller's promise.
        unsafe { widen(from.cast::<f64>(), to) };
    }

    unsafe fn store(precision: Precision, from: &[f64], to: *mut u8) {
        debug_assert_eq!(precision, Precision::Full, "half types are computed in `float`");
        // SAFETY: the caller's promise.
        unsafe { narrow(from, to.cast::<f64>()) };
    }

    fn round_to(_: Precision, _: &mut [f64]) {}
}

/// # Safety
/// `from` is readable for as many elements as `to` has.
unsafe fn widen<T: Real>(from: *const T, to: &mut [T::Wide]) {
    // SAFETY: the caller's promise.
    T::widen_all(unsafe { std::slice::from_raw_parts(from, to.len()) }, to);
}

/// # Safety
/// `to` is writable for as many elements as `from` has.
unsafe fn narrow<T: Real>(from: &[T::Wide], to: *mut T) {
    // SAFETY: the caller's promise.
    T::narrow_all(from, unsafe { std::slice::from_raw_parts_mut(to, from.len()) });
}

/// -1, 0 or 1; what is not a number stays.
#[inline(always)]
fn sign<T: ChainElement>(x: T) -> T {
    let positive = if x > T::zero() { T::one() } else { T::zero() };
    let negative = if x < T::zero() { T::one() } else { T::zero() };
    if x.is_nan() { x } else { positive - negative }
}

multiversion! {
    wide pub(super) fn compute[T: ChainElement](operation: Operation, x: &[T], y: &[T], z: &[T], to: &mut [T]) {
        let (zero, one) = (T::zero(), T::one());
        let len = to.len();
        let (x, y, z) = (&x[..len], &y[..len], &z[..len]);
        macro_rules! each {
            (|$x:ident| $e:expr) => {{
                for i in 0..len {
                    let $x = x[i];
                    to[i] = $e;
                }
            }};
            (|$x:ident, $y:ident| $e:expr) => {{
                for i in 0..len {
                    let ($x, $y) = (x[i], y[i]);
                    to[i] = $e;
                }
            }};
            (|$x:ident, $y:ident, $z:ident| $e:expr) => {{
                for i in 0..len {
                    let ($x, $y, $z) = (x[i], y[i], z[i]);
                    to[i] = $e;
                }
            }};
        }
        let function = match operation {
            Operation::Of(function) => function,
            Operation::ProductPlus => return each!(|x, y, z| x * y + z),
            Operation::SignProductPlus => return each!(|x, y, z| sign(x) * y + z),
        };
        match function {
            Function::Add => each!(|x, y| x + y),
            Function::Sub => each!(|x, y| x - y),
            Function::Mul => each!(|x, y| x * y),
            Function::Div => each!(|x, y| x / y),
            Function::Maximum => each!(|x, y| {
                let larger = if x < y { y } else { x };
                if y.is_nan() { y } else { larger }
            }),
            Function::Minimum => each!(|x, y| {
                let smaller = if y < x { y } else { x };
                if y.is_nan() { y } else { smaller }
            }),
            Function::SquaredDifference => each!(|x, y| (x - y) * (x - y)),
            Function::ReluGrad => each!(|x, y| x * if y > zero { one } else { zero }),
            Function::TanhGrad => each!(|x, y| y * (one - x * x)),
            Function::SigmoidGrad => each!(|x, y| y * x * (one - x)),
            Function::Greater => each!(|x, y| if x > y { one } else { zero }),
            Function::GreaterEqual => each!(|x, y| if x >= y { one } else { zero }),
            Function::Less => each!(|x, y| if x < y { one } else { zero }),
            Function::LessEqual => each!(|x, y| if x <= y { one } else { zero }),
            Function::Equal => each!(|x, y| if x == y { one } else { zero }),
            Function::NotEqual => each!(|x, y| if x != y { one } else { zero }),
            Function::Select => each!(|x, y, z| if x != zero { y } else { z }),
            Function::Identity => to.copy_from_slice(x),
            Function::Neg => each!(|x| -x),
            Function::Abs => each!(|x| x.abs()),
            Function::Sign => each!(|x| sign(x)),
            Function::Square => each!(|x| x * x),
            Function::Sqrt => each!(|x| x.sqrt()),
            Function::Rsqrt => each!(|x| one / x.sqrt()),
            Function::Reciprocal => each!(|x| one / x),
            Function::Relu => each!(|x| if x > zero || x.is_nan() { x } else { zero }),
            Function::Exp => each!(|x| x.exponential()),
            Function::Log => each!(|x| x.logarithm()),
            Function::Tanh => each!(|x| x.hyperbolic_tangent()),
            Function::Sigmoid => each!(|x| x.logistic()),
        }
    }
}
