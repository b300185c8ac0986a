//! The functions of [`super`] for `f64`, with Cephes' polynomials of double precision; within 4e-16 of the exact value,
//! relatively.

/// 1.5 * 2^52: added and taken away, it leaves the nearest integer of a number below 2^51.
pub(super) const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// The numerator and denominator by which `e^r = 1 + 2 p / (q - p)`, for `|r| <= 1/2`.
#[inline(always)]
fn exponential_fraction(r: f64) -> (f64, f64) {
    let square = r * r;
    let mut p = 1.261_771_930_748_105_9e-4;
    p = p * square + 3.029_944_077_074_419_6e-2;
    p = p * square + 1.0;
    let mut q = 3.001_985_051_386_644_6e-6;
    q = q * square + 2.524_483_403_496_841e-3;
    q = q * square + 2.272_655_482_081_550_3e-1;
    q = q * square + 2.0;
    (r * p, q)
}

/// `e^x`
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    // Beyond these the result is infinite or zero; comparisons with NaN are false and leave it as it is.
    let x = if x > 710.0 { 710.0 } else { x };
    let x = if x < -746.0 { -746.0 } else { x };
    // x = n ln 2 + r with |r| <= ln(2)/2; ln 2 in two parts, the first with few bits, so that n times it is exact.
    let shifted = x * std::f64::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = (x - n * 6.931_457_519_531_25e-1) - n * 1.428_606_820_309_417_2e-6;
    let (p, q) = exponential_fraction(r);
    let value = 1.0 + 2.0 * (p / (q - p));
    // 2^n in two steps, since n goes beyond the exponents of normal numbers. The rounder's low bits are zero.
    let n = shifted.to_bits() as u32 as i32;
    let half = n >> 1;
    let power = |n: i32| f64::from_bits((i64::from(n + 1023) as u64) << 52);
    let scaled = value * power(half) * power(n - half);
    if x.is_nan() { x } else { scaled }
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

/// `e^x - 1`, precise also where `x` is tiny.
#[inline(always)]
pub fn exp_m1(x: f64) -> f64 {
    let (p, q) = exponential_fraction(x);
    let near = p / (q - p);
    let value = if x.abs() < 0.5 { near + near } else { exp(x) - 1.0 };
    if value == 0.0 { x } else { value }
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
    let z = x.abs();
    let square = x * x;
    let mut p = -9.643_991_794_250_523e-1;
    p = p * square - 9.928_772_310_019_185e1;
    p = p * square - 1.614_687_684_417_084_5e3;
    let mut q = square + 1.128_116_784_916_329_3e2;
    q = q * square + 2.235_488_390_601_004_5e3;
    q = q * square + 4.844_063_053_251_255e3;
    let small = x * square * (p / q) + x;
    let large = 1.0 - 2.0 / (exp(z + z) + 1.0);
    (if z < 0.625 { small } else { large }).copysign(x)
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
