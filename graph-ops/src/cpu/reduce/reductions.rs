//! The reductions themselves.

use super::Reduction;
use crate::cpu::element::{Real, Wide};
use crate::cpu::scratch::Plain;
use num_traits::{Bounded, One, WrappingAdd, WrappingMul, Zero};
use std::marker::PhantomData;

macro_rules! marker {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<T>(PhantomData<fn(T)>);
        impl<T> $name<T> {
            pub fn new() -> Self {
                Self(PhantomData)
            }
        }
        impl<T> Default for $name<T> {
            fn default() -> Self {
                Self::new()
            }
        }
        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<T> Copy for $name<T> {}
    )*};
}

marker! {
    /// The sum of floating-point numbers; half types are summed in `float`.
    Sum;
    /// Their mean; of none, not a number.
    Mean;
    /// Their product.
    Prod;
    /// The largest; not a number if any is not; of none, the lowest value.
    Max;
    /// The smallest; not a number if any is not; of none, the highest value.
    Min;
    /// The wrapping sum of integers.
    IntSum;
    /// Their wrapping sum, divided towards zero; of none, zero.
    IntMean;
    /// Their wrapping product.
    IntProd;
}

impl<T: Real> Reduction for Sum<T>
where
    T::Wide: Plain,
{
    type In = T;
    type State = T::Wide;
    type Out = T;
    #[inline(always)]
    fn begin(&self) -> T::Wide {
        T::Wide::zero()
    }
    #[inline(always)]
    fn take(&self, state: T::Wide, x: T) -> T::Wide {
        state + x.widen()
    }
    #[inline(always)]
    fn join(&self, a: T::Wide, b: T::Wide) -> T::Wide {
        a + b
    }
    fn finish(&self, state: T::Wide, _: usize) -> T {
        T::narrow(state)
    }
}

impl<T: Real> Reduction for Mean<T>
where
    T::Wide: Plain,
{
    type In = T;
    type State = T::Wide;
    type Out = T;
    #[inline(always)]
    fn begin(&self) -> T::Wide {
        T::Wide::zero()
    }
    #[inline(always)]
    fn take(&self, state: T::Wide, x: T) -> T::Wide {
        state + x.widen()
    }
    #[inline(always)]
    fn join(&self, a: T::Wide, b: T::Wide) -> T::Wide {
        a + b
    }
    fn finish(&self, state: T::Wide, count: usize) -> T {
        T::narrow(state / T::Wide::from_usize(count))
    }
}

impl<T: Real> Reduction for Prod<T>
where
    T::Wide: Plain,
{
    type In = T;
    type State = T::Wide;
    type Out = T;
    #[inline(always)]
    fn begin(&self) -> T::Wide {
        T::Wide::one()
    }
    #[inline(always)]
    fn take(&self, state: T::Wide, x: T) -> T::Wide {
        state * x.widen()
    }
    #[inline(always)]
    fn join(&self, a: T::Wide, b: T::Wide) -> T::Wide {
        a * b
    }
    fn finish(&self, state: T::Wide, _: usize) -> T {
        T::narrow(state)
    }
}

/// Whether a number is not equal to itself.
#[inline(always)]
#[allow(clippy::eq_op)]
fn is_nan<T: PartialOrd>(x: T) -> bool {
    x != x
}

macro_rules! extremum {
    ($name:ident, $worst:ident, $better:tt, $infinite:ident) => {
        impl<T: Bounded + Plain + PartialOrd + Extremes + Send + Sync> Reduction for $name<T> {
            type In = T;
            type State = T;
            type Out = T;
            #[inline(always)]
            fn begin(&self) -> T {
                T::$infinite()
            }
            #[inline(always)]
            fn take(&self, state: T, x: T) -> T {
                if x $better state || is_nan(x) { x } else { state }
            }
            #[inline(always)]
            fn join(&self, a: T, b: T) -> T {
                self.take(a, b)
            }
            fn finish(&self, state: T, _: usize) -> T {
                state
            }
        }
    };
}
extremum!(Max, min_value, >, lowest);
extremum!(Min, max_value, <, highest);

/// What the largest and the smallest of no elements are: infinities where the dtype has them, else its bounds.
pub trait Extremes {
    fn lowest() -> Self;
    fn highest() -> Self;
}

macro_rules! extremes {
    (float: $($f:ty)*; integer: $($i:ty)*) => {
        $(impl Extremes for $f {
            fn lowest() -> Self {
                <$f>::NEG_INFINITY
            }
            fn highest() -> Self {
                <$f>::INFINITY
            }
        })*
        $(impl Extremes for $i {
            fn lowest() -> Self {
                <$i>::MIN
            }
            fn highest() -> Self {
                <$i>::MAX
            }
        })*
    };
}
extremes!(float: f32 f64 half::f16 half::bf16; integer: i8 i16 i32 i64 u8 u16 u32 u64);

impl<T: Plain + Zero + WrappingAdd + Send + Sync> Reduction for IntSum<T> {
    type In = T;
    type State = T;
    type Out = T;
    #[inline(always)]
    fn begin(&self) -> T {
        T::zero()
    }
    #[inline(always)]
    fn take(&self, state: T, x: T) -> T {
        state.wrapping_add(&x)
    }
    #[inline(always)]
    fn join(&self, a: T, b: T) -> T {
        a.wrapping_add(&b)
    }
    fn finish(&self, state: T, _: usize) -> T {
        state
    }
}

impl<T> Reduction for IntMean<T>
where
    T: Plain + Zero + WrappingAdd + std::ops::Div<Output = T> + num_traits::NumCast + Send + Sync,
{
    type In = T;
    type State = T;
    type Out = T;
    #[inline(always)]
    fn begin(&self) -> T {
        T::zero()
    }
    #[inline(always)]
    fn take(&self, state: T, x: T) -> T {
        state.wrapping_add(&x)
    }
    #[inline(always)]
    fn join(&self, a: T, b: T) -> T {
        a.wrapping_add(&b)
    }
    fn finish(&self, state: T, count: usize) -> T {
        match T::from(count) {
            Some(count) if count.is_zero() => count,
            Some(count) => state / count,
            None => T::zero(),
        }
    }
}

impl<T: Plain + One + WrappingMul + Send + Sync> Reduction for IntProd<T> {
    type In = T;
    type State = T;
    type Out = T;
    #[inline(always)]
    fn begin(&self) -> T {
        T::one()
    }
    #[inline(always)]
    fn take(&self, state: T, x: T) -> T {
        state.wrapping_mul(&x)
    }
    #[inline(always)]
    fn join(&self, a: T, b: T) -> T {
        a.wrapping_mul(&b)
    }
    fn finish(&self, state: T, _: usize) -> T {
        state
    }
}

/// Whether all are true; of none, true.
#[derive(Clone, Copy, Debug, Default)]
pub struct All;

/// Whether any is true; of none, false.
#[derive(Clone, Copy, Debug, Default)]
pub struct Any;

macro_rules! logical {
    ($name:ident, $empty:literal, $op:tt) => {
        impl Reduction for $name {
            type In = bool;
            type State = u8;
            type Out = bool;
            #[inline(always)]
            fn begin(&self) -> u8 {
                $empty
            }
            #[inline(always)]
            fn take(&self, state: u8, x: bool) -> u8 {
                state $op u8::from(x)
            }
            #[inline(always)]
            fn join(&self, a: u8, b: u8) -> u8 {
                a $op b
            }
            fn finish(&self, state: u8, _: usize) -> bool {
                state != 0
            }
        }
    };
}
logical!(All, 1, &);
logical!(Any, 0, |);
