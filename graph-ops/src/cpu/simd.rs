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

/// Whether this CPU multiplies vectors of 512 bits twice a cycle, so that they are worth lanes left unused; it then has AVX-512's
/// F, VL, BW and DQ.
///
/// No feature says how wide the units are: taken for a sign of two of 512 bits is AVX-512 for half precision, which came with
/// Intel's server cores that have them. Elsewhere, as on AMD's Zen 4, a long vector takes as long as two short ones.
#[inline(always)]
pub fn has_wide_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        has_avx512()
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512fp16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Asks for the cache line at `p`, which need not be readable, ahead of its use.
#[inline(always)]
pub fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction, and it faults at no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Defines a function whose body is compiled twice, for AVX2+FMA and for the baseline, and chosen at run time; with `wide` in
/// front, a third time, for CPUs with wide AVX-512. That pays in loops of loads, stores, additions and multiplications; long
/// vectors are divided, and roots taken of them, no faster than short ones.
///
/// Generic parameters go in square brackets: `fn scale[T: Real](x: &mut [T], by: T) { ... }`.
macro_rules! multiversion {
    ($(#[$attr:meta])* $vis:vis fn $($rest:tt)*) => {
        multiversion!(@define [] $(#[$attr])* $vis fn $($rest)*);
    };
    ($(#[$attr:meta])* wide $vis:vis fn $($rest:tt)*) => {
        multiversion!(@define [wide] $(#[$attr])* $vis fn $($rest)*);
    };
    (@define [$($wide:ident)?] $(#[$attr:meta])* $vis:vis fn $name:ident $([$($generics:tt)*])? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
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

            multiversion!(@wide [$($wide)?] [$($($generics)*)?] [$($arg: $ty),*] [$($ret)?] ($($arg),*));

            #[cfg(target_arch = "x86_64")]
            if $crate::cpu::simd::has_avx2_fma() {
                // SAFETY: the CPU has the features that the function was compiled for.
                return unsafe { avx2($($arg),*) };
            }
            portable($($arg),*)
        }
    };
    (@wide [] $($rest:tt)*) => {};
    (@wide [wide] [$($generics:tt)*] [$($arg:ident : $ty:ty),*] [$($ret:ty)?] $arguments:tt) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")]
        fn wide<$($generics)*>($($arg: $ty),*) $(-> $ret)? {
            portable $arguments
        }

        #[cfg(target_arch = "x86_64")]
        if $crate::cpu::simd::has_wide_avx512() {
            // SAFETY: the CPU has the features that the function was compiled for.
            return unsafe { wide $arguments };
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
    /// Stores the first `count` lanes, at most all, with `add` the sums of what was there and them; touches nothing behind.
    unsafe fn store_first(self, p: *mut Self::Scalar, count: usize, add: bool);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `1 / sqrt(self)`, within two units in the last place.
    unsafe fn inverse_root(self) -> Self;
    /// `self + a * b`, with one rounding where the CPU can.
    unsafe fn plus_product(self, a: Self, b: Self) -> Self;

    /// Zero in the lanes that are zero or less; what is not a number stays.
    unsafe fn relu(self) -> Self;

    /// Runs the task for these vectors, as a function of its own: what many tasks call is compiled once and not in each.
    unsafe fn call(task: impl VectorTask<Self::Scalar>);
}

/// [`Vector::store_first`] for vectors without masks.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn store_lanes<V: Vector>(vector: V, p: *mut V::Scalar, count: usize, add: bool) {
    let mut lanes = std::mem::MaybeUninit::<V>::uninit();
    // SAFETY: the caller's promise; the lanes are written before they are read.
    unsafe {
        vector.store(lanes.as_mut_ptr().cast());
        let lanes = std::slice::from_raw_parts(lanes.as_ptr().cast::<V::Scalar>(), count);
        for (j, &lane) in lanes.iter().enumerate() {
            let p = p.add(j);
            *p = if add { *p + lane } else { lane };
        }
    }
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
    unsafe fn store_first(self, p: *mut T, count: usize, add: bool) {
        // SAFETY: the caller's promise.
        unsafe { store_lanes(self, p, count, add) }
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
    unsafe fn mul(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }
    #[inline(always)]
    unsafe fn inverse_root(self) -> Self {
        Self(self.0.map(|x| x.sqrt().recip()))
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

/// A vector that AVX-512 has masked stores for, whatever it is short of otherwise.
pub trait Masked: Vector {
    /// [`Vector::store_first`] by a mask.
    ///
    /// # Safety
    /// As for the methods of [`Vector`]; the CPU has AVX-512's F and VL.
    unsafe fn store_masked(self, p: *mut Self::Scalar, count: usize, add: bool);
}

/// The vectors `V` on a CPU that has twice as many registers for them: those of AVX2 in code compiled for AVX-512.
///
/// Where a number of columns is no multiple of 16, these leave fewer lanes unused than longer vectors would.
#[derive(Clone, Copy)]
pub struct ManyRegisters<V>(V);

impl<V: Masked> Vector for ManyRegisters<V> {
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
    unsafe fn store_first(self, p: *mut V::Scalar, count: usize, add: bool) {
        // SAFETY: as above.
        unsafe { self.0.store_masked(p, count, add) }
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
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { self.0.mul(other.0) })
    }
    #[inline(always)]
    unsafe fn inverse_root(self) -> Self {
        // SAFETY: as above.
        Self(unsafe { self.0.inverse_root() })
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
        unsafe fn function<V: Masked>(task: impl VectorTask<V::Scalar>) {
            // SAFETY: the caller's promise.
            unsafe { task.run::<ManyRegisters<V>>() }
        }
        // SAFETY: as above.
        unsafe { function::<V>(task) }
    }
}

/// Which vectors a task runs with.
mod dispatch;
/// The registers of AVX2, and the long ones of AVX-512.
#[cfg(target_arch = "x86_64")]
mod x86;

pub use dispatch::{Vectored, dispatch, dispatch_for, vectors};
