//! Reductions that only some ops need: Euclidean norms and those of complex numbers.

use std::marker::PhantomData;

use graph_core::Complex;
use num_traits::{AsPrimitive, Float, One, Zero};

use crate::cpu::reduce::Reduction;
use crate::cpu::scratch::Plain;

macro_rules! marker {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name<T>(PhantomData<fn(T)>);
        impl<T> $name<T> {
            pub(super) fn new() -> Self {
                Self(PhantomData)
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
    /// The square root of the sum of squared magnitudes.
    EuclideanNorm;
    /// The sum of complex numbers.
    ComplexSum;
    /// Their product.
    ComplexProd;
    /// Their mean.
    ComplexMean;
}

/// How an element's squared magnitude is computed and how the norm is stored.
pub(super) trait Magnitude: Copy + Send + Sync + 'static {
    /// What squares are summed in.
    type Wide: Plain + Send + Sync + Zero;
    /// The squared magnitude.
    fn square(self) -> Self::Wide;
    /// The element that is the root of a sum of squares.
    fn root(sum: Self::Wide) -> Self;
}

macro_rules! magnitudes {
    ($($type:ty, $wide:ty: |$x:ident| $square:expr, |$sum:ident| $root:expr;)*) => {$(
        impl Magnitude for $type {
            type Wide = $wide;
            #[inline(always)]
            fn square(self) -> $wide {
                let $x = self;
                $square
            }
            #[inline(always)]
            fn root($sum: $wide) -> Self {
                $root
            }
        }
    )*};
}

magnitudes! {
    f32, f32: |x| x * x, |sum| sum.sqrt();
    f64, f64: |x| x * x, |sum| sum.sqrt();
    Complex<f32>, f32: |x| x.norm_sqr(), |sum| Complex::new(sum.sqrt(), 0.0);
    Complex<f64>, f64: |x| x.norm_sqr(), |sum| Complex::new(sum.sqrt(), 0.0);
}

impl<T: Magnitude> Reduction for EuclideanNorm<T> {
    type In = T;
    type State = T::Wide;
    type Out = T;
    #[inline(always)]
    fn begin(&self) -> T::Wide {
        T::Wide::zero()
    }
    #[inline(always)]
    fn take(&self, state: T::Wide, x: T) -> T::Wide {
        state + x.square()
    }
    #[inline(always)]
    fn join(&self, a: T::Wide, b: T::Wide) -> T::Wide {
        a + b
    }
    fn finish(&self, state: T::Wide, _: usize) -> T {
        T::root(state)
    }
}

macro_rules! complex {
    ($name:ident, $begin:ident, $op:tt, |$state:ident, $count:ident| $finish:expr) => {
        impl<T: Float + Send + Sync + 'static> Reduction for $name<T>
        where
            Complex<T>: Plain,
            usize: AsPrimitive<T>,
        {
            type In = Complex<T>;
            type State = Complex<T>;
            type Out = Complex<T>;
            #[inline(always)]
            fn begin(&self) -> Complex<T> {
                Complex::$begin()
            }
            #[inline(always)]
            fn take(&self, state: Complex<T>, x: Complex<T>) -> Complex<T> {
                state $op x
            }
            #[inline(always)]
            fn join(&self, a: Complex<T>, b: Complex<T>) -> Complex<T> {
                a $op b
            }
            fn finish(&self, $state: Complex<T>, $count: usize) -> Complex<T> {
                $finish
            }
        }
    };
}

complex!(ComplexSum, zero, +, |state, _count| state);
complex!(ComplexProd, one, *, |state, _count| state);
complex!(ComplexMean, zero, +, |state, count| state / count.as_());
