//! Element types: what a value is stored as and what it is computed in.
//!
//! TensorFlow's CPU kernels compute half precision in `float`; so do these: [`Real::widen`], compute, [`Real::narrow`].

use super::half_precision::*;
use super::scratch::Plain;
use super::vector_math::Elementary;
use half::{bf16, f16};

/// A type that kernels compute in.
pub trait Wide: Real<Wide = Self> + Elementary + Plain + std::ops::AddAssign {
    /// The nearest value to `x`.
    fn from_f64(x: f64) -> Self;
    /// The nearest value to a count.
    fn from_usize(x: usize) -> Self {
        Self::from_f64(x as f64)
    }
}

impl Wide for f32 {
    fn from_f64(x: f64) -> Self {
        x as f32
    }
}

impl Wide for f64 {
    fn from_f64(x: f64) -> Self {
        x
    }
}

/// A floating-point dtype as stored: `float`, `double`, `half`, `bfloat16`.
pub trait Real: Copy + Default + Send + Sync + PartialOrd + std::fmt::Debug + 'static {
    /// What arithmetic on it is done in.
    type Wide: Wide;
    /// Exact conversion to the computing type.
    fn widen(self) -> Self::Wide;
    /// Conversion back, rounding to nearest even.
    fn narrow(x: Self::Wide) -> Self;
    /// [`widen`](Self::widen) of many at once, which is faster.
    ///
    /// # Panics
    /// If the lengths differ.
    fn widen_all(from: &[Self], to: &mut [Self::Wide]);
    /// [`narrow`](Self::narrow) of many at once, which is faster.
    ///
    /// # Panics
    /// If the lengths differ.
    fn narrow_all(from: &[Self::Wide], to: &mut [Self]);
    /// [`widen`](Self::widen) of [`narrow`](Self::narrow) of each.
    fn round_all(x: &mut [Self::Wide]);
    /// The elements as they are, if the computing type is the type itself.
    fn as_wide(x: &[Self]) -> Option<&[Self::Wide]>;
    /// As [`as_wide`](Self::as_wide).
    fn as_wide_mut(x: &mut [Self]) -> Option<&mut [Self::Wide]>;
}

macro_rules! real {
    ($($t:ty, $wide:ty, |$x:ident| $widen:expr, $narrow:expr, $widen_all:expr, $narrow_all:expr, $round_all:expr,
       |$elements:ident| $as_wide:expr;)*) => {$(
        impl Real for $t {
            type Wide = $wide;
            #[inline(always)]
            fn widen(self) -> $wide {
                let $x = self;
                $widen
            }
            #[inline(always)]
            fn narrow(x: $wide) -> Self {
                $narrow(x)
            }
            fn widen_all(from: &[Self], to: &mut [$wide]) {
                $widen_all(from, to)
            }
            fn narrow_all(from: &[$wide], to: &mut [Self]) {
                $narrow_all(from, to)
            }
            fn round_all(x: &mut [$wide]) {
                $round_all(x)
            }
            fn as_wide($elements: &[Self]) -> Option<&[$wide]> {
                $as_wide
            }
            fn as_wide_mut($elements: &mut [Self]) -> Option<&mut [$wide]> {
                $as_wide
            }
        }
    )*};
}

fn copied<T: Copy>(from: &[T], to: &mut [T]) {
    to.copy_from_slice(from);
}

fn unchanged<T>(_: &mut [T]) {}

real! {
    f32, f32, |x| x, std::convert::identity, copied, copied, unchanged, |x| Some(x);
    f64, f64, |x| x, std::convert::identity, copied, copied, unchanged, |x| Some(x);
    f16, f32, |x| f32_of_half(x), half_of_f32, f32s_of_halves, halves_of_f32s, round_to_halves, |_x| None;
    bf16, f32, |x| f32_of_bfloat(x), bfloat_of_f32, f32s_of_bfloats, bfloats_of_f32s, round_to_bfloats, |_x| None;
}
