//! The functions of [`super`] for `f64`, with Cephes' polynomials of double precision; within 7e-16 of the exact value,
//! relatively, exponentials and logarithms within 4e-16.

/// 1.5 * 2^52: added and taken away, it leaves the nearest integer of a number below 2^51.
pub(super) const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// `x` as `n ln 2 + r` with `|r| <= ln(2)/2`: `n`, and `p` and `q` by which `e^r = (q + p) / (q - p)`.
#[inline(always)]
fn fraction(x: f64) -> (i32, f64, f64) {
    // ln 2 in two parts, the first with few bits, so that n times it is exact.
    let shifted = x * std::f64::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = (x - n * 6.931_457_519_531_25e-1) - n * 1.428_606_820_309_417_2e-6;
    let square = r * r;
    let mut p = 1.261_771_930_748_105_9e-4;
    p = p * square + 3.029_944_077_074_419_6e-2;
    p = p * square + 1.0;
    let mut q = 3.001_985_051_386_644_6e-6;
    q = q * square + 2.524_483_403_496_841e-3;
    q = q * square + 2.272_655_482_081_550_3e-1;
    q = q * square + 2.0;
    // The rounder's low bits are zero.
    (shifted.to_bits() as u32 as i32, r * p, q)
}

/// `x` as `n ln 2 + r` with `|r| <= ln(2)/2`: `n`, and `e^r - 1`.
#[inline(always)]
fn reduced(x: f64) -> (i32, f64) {
    let (n, p, q) = fraction(x);
    let half = p / (q - p);
    (n, half + half)
}

/// `2^n`, of a normal number's exponent.
#[inline(always)]
fn power(n: i32) -> f64 {
    f64::from_bits((i64::from(n + 1023) as u64) << 52)
}

/// A number whose exponential is infinite, zero or as it was; NaN, which compares as false, stays.
#[inline(always)]
fn within_exponents(x: f64) -> f64 {
    let x = if x > 710.0 { 710.0 } else { x };
    if x < -746.0 { -746.0 } else { x }
}

/// `e^x`
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    let (n, e) = reduced(within_exponents(x));
    // 2^n in two steps, since n goes beyond the exponents of normal numbers.
    let half = n >> 1;
    (e + 1.0) * power(half) * power(n - half)
}

/// `e^x - 1`, precise also where `x` is tiny.
#[inline(always)]
pub fn exp_m1(x: f64) -> f64 {
    let (n, e) = reduced(within_exponents(x));
    let half = n >> 1;
    let value = (e * power(half) + (power(half) - power(half - n))) * power(n - half);
    // The sum loses the sign of a zero.
    if value == 0.0 { x } else { value }
}

/// The natural logarithm.
#[inline(always)]
pub fn ln(x: f64) -> f64 {
    let tiny = x < f64::MIN_POSITIVE;
    let scaled = if tiny { x * 18_014_398_509_481_984.0 } else { x };
    let bits = scaled.to_bits();
    // x = 2^e m with m in [sqrt(1/2), sqrt(2)).
    let m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3fe0_0000_0000_0000);
    let below = m < std::f64::consts::FRAC_1_SQRT_2;
    let exponent = (bits >> 52) as u32 as i32 - 1022 - i32::from(below) - if tiny { 54 } else { 0 };
    let e = f64::from(exponent);
    let t = if below { m + m - 1.0 } else { m - 1.0 };
    let square = t * t;
    let mut p = 1.018_756_638_045_809_3e-4;
    p = p * t + 4.974_949_949_767_47e-1;
    p = p * t + 4.705_791_198_788_817;
    p = p * t + 1.449_892_253_416_109_3e1;
    p = p * t + 1.793_686_785_078_198e1;
    p = p * t + 7.708_387_337_558_854;
    let mut q = t + 1.128_735_871_891_674_5e1;
    q = q * t + 4.522_791_458_375_322e1;
    q = q * t + 8.298_752_669_127_766e1;
    q = q * t + 7.115_447_506_185_639e1;
    q = q * t + 2.312_516_201_267_653_5e1;
    let tail = t * (square * p / q) - 2.121_944_400_546_905_8e-4 * e - 0.5 * square;
    let value = (t + tail) + 0.693_359_375 * e;
    // The special cases, as selections.
    let value = if x == f64::INFINITY { x } else { value };
    let value = if x == 0.0 { f64::NEG_INFINITY } else { value };
    if x >= 0.0 { value } else { f64::NAN }
}

/// `ln(1 + x)`, precise also where `x` is tiny.
#[inline(always)]
pub fn ln_1p(x: f64) -> f64 {
    let sum = 1.0 + x;
    let kept = sum - 1.0;
    let value = ln(sum) * (x / kept);
    let value = if kept == 0.0 { x } else { value };
    if sum == f64::INFINITY { sum } else { value }
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f64) -> f64 {
    // At 20 it is 1 to the last place.
    let z = x.abs();
    let (n, p, q) = fraction(if z > 20.0 { 40.0 } else { z + z });
    // (e^2z - 1) / (e^2z + 1), both multiplied by q - p.
    let (less, more) = (power(n) - 1.0, power(n) + 1.0);
    ((p * more + q * less) / (q * more + p * less)).copysign(x)
}

/// The logistic function `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f64) -> f64 {
    // The exponential of a negative number, so that small results keep their precision.
    let e = exp(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// `ln(1 + e^x)`; beyond where 1 or `e^x` no longer counts, `x` or `e^x`, as in TensorFlow.
#[inline(always)]
pub fn softplus(x: f64) -> f64 {
    /// `-ln(f64::EPSILON) - 2`
    const THRESHOLD: f64 = 34.043_653_389_117_15;
    let e = exp(x);
    let value = if x < -THRESHOLD { e } else { ln_1p(e) };
    if x > THRESHOLD { x } else { value }
}
