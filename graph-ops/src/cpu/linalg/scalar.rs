//! The numbers that matrices are made of.

use std::fmt::Debug;
use std::ops::{AddAssign, Neg, SubAssign};

use graph_core::Complex;
use num_traits::{Float, Num};

use crate::cpu::scratch::Plain;

/// `float`, `double` or a complex number of two of them.
pub trait Scalar:
    Plain + Default + Debug + Send + Sync + Num + Neg<Output = Self> + AddAssign + SubAssign + 'static
{
    /// The type of absolute values.
    type Real: Float + Scalar<Real = Self::Real>;
    /// Whether conjugates differ from the numbers themselves.
    const COMPLEX: bool;
    /// A real number.
    fn from_real(x: Self::Real) -> Self;
    /// The real part.
    fn re(self) -> Self::Real;
    /// The imaginary part.
    fn im(self) -> Self::Real;
    /// The conjugate.
    fn conj(self) -> Self;
    /// The absolute value.
    fn modulus(self) -> Self::Real;
    /// The principal square root.
    fn root(self) -> Self;

    /// The square of the absolute value.
    fn norm_sqr(self) -> Self::Real {
        self.re() * self.re() + self.im() * self.im()
    }
    /// The product with a real number.
    fn scaled(self, factor: Self::Real) -> Self {
        self * Self::from_real(factor)
    }
}

macro_rules! scalars {
    ($($real:ty),*) => {$(
        impl Scalar for $real {
            type Real = $real;
            const COMPLEX: bool = false;
            fn from_real(x: $real) -> Self {
                x
            }
            fn re(self) -> $real {
                self
            }
            fn im(self) -> $real {
                0.0
            }
            fn conj(self) -> Self {
                self
            }
            fn modulus(self) -> $real {
                self.abs()
            }
            fn root(self) -> Self {
                self.sqrt()
            }
        }

        impl Scalar for Complex<$real> {
            type Real = $real;
            const COMPLEX: bool = true;
            fn from_real(x: $real) -> Self {
                Complex::new(x, 0.0)
            }
            fn re(self) -> $real {
                self.re
            }
            fn im(self) -> $real {
                self.im
            }
            fn conj(self) -> Self {
                Complex::conj(&self)
            }
            fn modulus(self) -> $real {
                self.norm()
            }
            fn root(self) -> Self {
                self.sqrt()
            }
        }
    )*};
}
scalars!(f32, f64);
