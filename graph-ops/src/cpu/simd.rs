//! SIMD: one vector interface for hand-written tiles, and run-time dispatch for loops that the compiler vectorizes.
//!
//! x86-64 binaries are built for any such CPU; AVX2 with fused multiply-add is chosen when the program runs. Other CPUs, and
//! those without it, take the portable code, which multiplies and adds with two roundings.

/// Whether this CPU has AVX2 and FMA.
#[inline(always)]
pub fn has_avx2_fma() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether this CPU has, beyond AVX2 and FMA, the 32 registers of AVX-512 and its instructions for shorter vectors.
#[inline(always)]
pub fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        has_avx2_fma() && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Defines a function whose body is compiled twice, for AVX2+FMA and for the baseline, and chosen at run time.
///
/// Generic parameters go in square brackets: `fn scale[T: Real](x: &mut [T], by: T) { ... }`.
macro_rules! multiversion {
    ($(#[$attr:meta])* $vis:vis fn $name:ident $([$($generics:tt)*])? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$attr])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($generics)*>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn portable $(<$($generics)*>)? ($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$($generics)*>)? ($($arg: $ty),*) $(-> $ret)? {
                portable($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            if $crate::cpu::simd::has_avx2_fma() {
                // SAFETY: the CPU has the features that the function was compiled for.
                return unsafe { avx2($($arg),*) };
            }
            portable($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// A vector register of `LANES` numbers.
///
/// # Safety of all methods
/// The CPU must have the instructions of the implementation, and pointers must be valid for the lanes they stand for; no
/// alignment is needed.
#[allow(clippy::missing_safety_doc)]
pub trait Vector: Copy {
    type Scalar: num_traits::Float;
    const LANES: usize;
    /// Vectors that the CPU has registers for.
    const REGISTERS: usize = 16;
    /// Whether these are enough for the larger tiles. A constant of its own, so that code for the other case is not compiled.
    const MANY_REGISTERS: bool = Self::REGISTERS >= 32;
    unsafe fn zero() -> Self;
    /// All lanes are the number at `p`.
    unsafe fn broadcast(p: *const Self::Scalar) -> Self;
    unsafe fn load(p: *const Self::Scalar) -> Self;
    unsafe fn store(self, p: *mut Self::Scalar);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    /// `self + a * b`, with one rounding where the CPU can.
    unsafe fn plus_product(self, a: Self, b: Self) -> Self;

    /// Zero in the lanes that are zero or less; what is not a number stays.
    unsafe fn relu(self) -> Self;

    /// Runs the task for these vectors, as a function of its own: what many tasks call is compiled once and not in each.
    unsafe fn call(task: impl VectorTask<Self::Scalar>);
}

/// Code that is compiled once for each kind of vector. It must not hide vectors in closures that it hands to other functions:
/// those would be compiled for the baseline.
pub trait VectorTask<T> {
    /// # Safety
    /// The CPU has `V`'s instructions.
    unsafe fn run<V: Vector<Scalar = T>>(self);
}

/// The portable vector: an array that the compiler may keep in registers.
#[derive(Clone, Copy)]
pub struct Portable<T, const N: usize>([T; N]);

impl<T: num_traits::Float, const N: usize> Vector for Portable<T, N> {
    type Scalar = T;
    const LANES: usize = N;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([T::zero(); N])
    }
    #[inline(always)]
    unsafe fn broadcast(p: *const T) -> Self {
        // SAFETY: the caller's promise.
        Self([unsafe { *p }; N])
    }
    #[inline(always)]
    unsafe fn load(p: *const T) -> Self {
        // SAFETY: the caller's promise; arrays have no alignment beyond their element's.
        Self(unsafe { p.cast::<[T; N]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut T) {
        // SAFETY: as for `load`.
        unsafe { p.cast::<[T; N]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }
    #[inline(always)]
    unsafe fn plus_product(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Self(self.0.map(|x| if x <= T::zero() { T::zero() } else { x }))
    }
    #[inline(never)]
    unsafe fn call(task: impl VectorTask<T>) {
        // SAFETY: plain arrays are there on every CPU.
        unsafe { task.run::<Self>() }
    }
}

/// The vectors `V` on a CPU that has twice as many registers for them: those of AVX2 in code compiled for AVX-512.
///
/// Where a number of columns is no multiple of 16, these leave fewer lanes unused than longer vectors would.
#[derive(Clone, Copy)]
pub struct ManyRegisters<V>(V);

impl<V: Vector> Vector for ManyRegisters<V> {
    type Scalar = V::Scalar;
    const LANES: usize = V::LANES;
    const REGISTERS: usize = 32;
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's promise, here and below.
        Self(unsafe { V::zero() })
    }
    #[inline(always)]
    unsafe fn broadcast(p: *const V::Scalar) -> Self {
        // SAFETY: as above.
        Self(unsafe { V::broadcast(p) })
    }
    #[inline(always)]
    unsafe fn load(p: *const V::Scalar) -> Self {
        // SAFETY: as above.
        Self(unsafe { V::load(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut V::Scalar) {
        // SAFETY: as above.
        unsafe { self.0.store(p) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { self.0.add(other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { self.0.sub(other.0) })
    }
    #[inline(always)]
    unsafe fn plus_product(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { self.0.plus_product(a.0, b.0) })
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: as above.
        Self(unsafe { self.0.relu() })
    }
    #[inline(always)]
    unsafe fn call(task: impl VectorTask<V::Scalar>) {
        /// # Safety
        /// The CPU has AVX-512's F and VL, and what `V` needs.
        #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma,avx512f,avx512vl"))]
        #[inline(never)]
        unsafe fn function<V: Vector>(task: impl VectorTask<V::Scalar>) {
            // SAFETY: the caller's promise.
            unsafe { task.run::<ManyRegisters<V>>() }
        }
        // SAFETY: as above.
        unsafe { function::<V>(task) }
    }
}

/// AVX2 registers.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Vector, VectorTask};
    use std::arch::x86_64::*;

    macro_rules! avx2_vector {
        ($v:ty, $t:ty, $lanes:literal, $zero:ident, $broadcast:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $fma:ident, $compare:ident, $and_not:ident) => {
            impl Vector for $v {
                type Scalar = $t;
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn zero() -> Self {
                    // SAFETY: the CPU has AVX2 (the caller's promise).
                    unsafe { $zero() }
                }
                #[inline(always)]
                unsafe fn broadcast(p: *const $t) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $broadcast(*p) }
                }
                #[inline(always)]
                unsafe fn load(p: *const $t) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $load(p) }
                }
                #[inline(always)]
                unsafe fn store(self, p: *mut $t) {
                    // SAFETY: the caller's promise.
                    unsafe { $store(p, self) }
                }
                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    // SAFETY: the CPU has AVX2 (the caller's promise).
                    unsafe { $add(self, other) }
                }
                #[inline(always)]
                unsafe fn sub(self, other: Self) -> Self {
                    // SAFETY: the CPU has AVX2 (the caller's promise).
                    unsafe { $sub(self, other) }
                }
                #[inline(always)]
                unsafe fn plus_product(self, a: Self, b: Self) -> Self {
                    // SAFETY: the CPU has FMA (the caller's promise).
                    unsafe { $fma(a, b, self) }
                }
                #[inline(always)]
                unsafe fn relu(self) -> Self {
                    // SAFETY: the CPU has AVX2 (the caller's promise).
                    unsafe { $and_not($compare::<_CMP_LE_OQ>(self, $zero()), self) }
                }
                #[inline(always)]
                unsafe fn call(task: impl VectorTask<$t>) {
                    /// # Safety
                    /// The CPU has AVX2 and FMA.
                    #[target_feature(enable = "avx2,fma")]
                    #[inline(never)]
                    unsafe fn function(task: impl VectorTask<$t>) {
                        // SAFETY: the caller's promise.
                        unsafe { task.run::<$v>() }
                    }
                    // SAFETY: the caller's promise.
                    unsafe { function(task) }
                }
            }
        };
    }

    avx2_vector!(
        __m256,
        f32,
        8,
        _mm256_setzero_ps,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_fmadd_ps,
        _mm256_cmp_ps,
        _mm256_andnot_ps
    );
    avx2_vector!(
        __m256d,
        f64,
        4,
        _mm256_setzero_pd,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_add_pd,
        _mm256_sub_pd,
        _mm256_fmadd_pd,
        _mm256_cmp_pd,
        _mm256_andnot_pd
    );
}
