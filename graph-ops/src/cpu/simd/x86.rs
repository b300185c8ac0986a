//! The vectors of x86-64: the registers of AVX2, and the long ones of AVX-512.

use super::{Masked, Vector, VectorTask, store_lanes};
use std::arch::x86_64::*;

macro_rules! avx2_vector {
    ($v:ty, $t:ty, $lanes:literal, $zero:ident, $broadcast:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident, $inverse_root:ident, $fma:ident, $compare:ident, $and_not:ident, $mask:ty, $mask_store:ident, $mask_load:ident) => {
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
            unsafe fn store_first(self, p: *mut $t, count: usize, add: bool) {
                // SAFETY: the caller's promise.
                unsafe { store_lanes(self, p, count, add) }
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
            unsafe fn mul(self, other: Self) -> Self {
                // SAFETY: as for `sub`.
                unsafe { $mul(self, other) }
            }
            #[inline(always)]
            unsafe fn inverse_root(self) -> Self {
                // SAFETY: as for `sub`; AVX2 comes with FMA here.
                unsafe { $inverse_root(self) }
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

        impl Masked for $v {
            #[inline(always)]
            unsafe fn store_masked(self, p: *mut $t, count: usize, add: bool) {
                let mask = ((1u32 << count) - 1) as $mask;
                // SAFETY: the CPU has AVX-512's F and VL, and the first lanes are the caller's (its promise).
                unsafe {
                    let sum = if add {
                        $add($mask_load(mask, p), self)
                    } else {
                        self
                    };
                    $mask_store(p, mask, sum);
                }
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
    _mm256_mul_ps,
    inverse_root_8,
    _mm256_fmadd_ps,
    _mm256_cmp_ps,
    _mm256_andnot_ps,
    __mmask8,
    _mm256_mask_storeu_ps,
    _mm256_maskz_loadu_ps
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
    _mm256_mul_pd,
    inverse_root_4_double,
    _mm256_fmadd_pd,
    _mm256_cmp_pd,
    _mm256_andnot_pd,
    __mmask8,
    _mm256_mask_storeu_pd,
    _mm256_maskz_loadu_pd
);

/// A vector of 512 bits.
macro_rules! wide_vector {
    ($v:ty, $t:ty, $lanes:literal, $mask:ty, $zero:ident, $broadcast:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident, $inverse_root:ident, $fma:ident, $compare:ident, $keep:ident, $mask_store:ident, $mask_load:ident) => {
        impl Vector for $v {
            type Scalar = $t;
            const LANES: usize = $lanes;
            const REGISTERS: usize = 32;
            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the CPU has AVX-512 (the caller's promise, here and below).
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
            unsafe fn store_first(self, p: *mut $t, count: usize, add: bool) {
                let mask = ((1u32 << count) - 1) as $mask;
                // SAFETY: the first lanes are the caller's (its promise).
                unsafe {
                    let sum = if add {
                        $add($mask_load(mask, p), self)
                    } else {
                        self
                    };
                    $mask_store(p, mask, sum);
                }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { $sub(self, other) }
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                // SAFETY: as for `sub`.
                unsafe { $mul(self, other) }
            }
            #[inline(always)]
            unsafe fn inverse_root(self) -> Self {
                // SAFETY: as for `sub`; AVX2 comes with FMA here.
                unsafe { $inverse_root(self) }
            }
            #[inline(always)]
            unsafe fn plus_product(self, a: Self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $fma(a, b, self) }
            }
            #[inline(always)]
            unsafe fn relu(self) -> Self {
                // SAFETY: as above.
                unsafe { $keep($compare::<_CMP_NLE_UQ>(self, $zero()), self) }
            }
            #[inline(always)]
            unsafe fn call(task: impl VectorTask<$t>) {
                /// # Safety
                /// The CPU has AVX2, FMA and AVX-512's F and VL.
                #[target_feature(enable = "avx2,fma,avx512f,avx512vl")]
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

wide_vector!(
    __m512,
    f32,
    16,
    __mmask16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    inverse_root_16,
    _mm512_fmadd_ps,
    _mm512_cmp_ps_mask,
    _mm512_maskz_mov_ps,
    _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps
);
wide_vector!(
    __m512d,
    f64,
    8,
    __mmask8,
    _mm512_setzero_pd,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_add_pd,
    _mm512_sub_pd,
    _mm512_mul_pd,
    inverse_root_8_double,
    _mm512_fmadd_pd,
    _mm512_cmp_pd_mask,
    _mm512_maskz_mov_pd,
    _mm512_mask_storeu_pd,
    _mm512_maskz_loadu_pd
);

/// The numbers whose inverse roots, and what they begin with, have squares that are normal numbers.
const USUAL: [f32; 2] = [1e-30, 1e30];

/// By Newton's iteration from the CPU's estimate, which is right to 11 bits: in the time of a root and a division a CPU does many
/// multiplications.
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn inverse_root_8(x: __m256) -> __m256 {
    let [least, most] = USUAL.map(|x| _mm256_set1_ps(x));
    let usual = _mm256_and_ps(
        _mm256_cmp_ps::<_CMP_GE_OQ>(x, least),
        _mm256_cmp_ps::<_CMP_LE_OQ>(x, most),
    );
    if _mm256_movemask_ps(usual) != 0xff {
        return _mm256_div_ps(_mm256_set1_ps(1.0), _mm256_sqrt_ps(x));
    }
    let half = _mm256_set1_ps(0.5);
    let half_x = _mm256_mul_ps(half, x);
    let mut y = _mm256_rsqrt_ps(x);
    for _ in 0..2 {
        let error = _mm256_fnmadd_ps(_mm256_mul_ps(half_x, y), y, half);
        y = _mm256_fmadd_ps(y, error, y);
    }
    y
}

/// [`inverse_root_8`] from an estimate that is right to 14 bits.
///
/// # Safety
/// The CPU has AVX-512's F.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn inverse_root_16(x: __m512) -> __m512 {
    let [least, most] = USUAL.map(|x| _mm512_set1_ps(x));
    let usual = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, least) & _mm512_cmp_ps_mask::<_CMP_LE_OQ>(x, most);
    if usual != u16::MAX {
        return _mm512_div_ps(_mm512_set1_ps(1.0), _mm512_sqrt_ps(x));
    }
    let half = _mm512_set1_ps(0.5);
    let y = _mm512_rsqrt14_ps(x);
    let error = _mm512_fnmadd_ps(_mm512_mul_ps(_mm512_mul_ps(half, x), y), y, half);
    _mm512_fmadd_ps(y, error, y)
}

/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn inverse_root_4_double(x: __m256d) -> __m256d {
    _mm256_div_pd(_mm256_set1_pd(1.0), _mm256_sqrt_pd(x))
}

/// # Safety
/// The CPU has AVX-512's F.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn inverse_root_8_double(x: __m512d) -> __m512d {
    _mm512_div_pd(_mm512_set1_pd(1.0), _mm512_sqrt_pd(x))
}
