//! Elementary functions of `f32` without branches or calls, so that loops over them become vector code.
//!
//! Range reductions and polynomials are those of the Cephes library (S. Moshier, *Methods and Programs for Mathematical
//! Functions*, 1989), single precision. Results are within 4e-7 of the exact value, relatively, also where they are
//! subnormal to the precision that is left there; infinities, signed zeros and NaN behave as in C's library.

/// 1.5 * 2^23: added and taken away, it leaves the nearest integer of a number below 2^22.
const ROUNDER: f32 = 12_582_912.0;

/// `e^x`
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Beyond these the result is infinite or zero; comparisons with NaN are false and leave it as it is.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    // x = n ln 2 + r with |r| <= ln(2)/2; ln 2 in two parts, the first with few bits, so that n times it is exact.
    let n = (x * std::f32::consts::LOG2_E + ROUNDER) - ROUNDER;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_6e-1;
    p = p * r + 5e-1;
    let value = p * (r * r) + r + 1.0;
    // 2^n in two steps, since n goes beyond the exponents of normal numbers.
    let n = (n + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    let scaled = value * power(half) * power(n - half);
    if x.is_nan() { x } else { scaled }
}

/// The natural logarithm.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let tiny = x < f32::MIN_POSITIVE;
    let scaled = if tiny { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits();
    // x = 2^e m with m in [sqrt(1/2), sqrt(2)).
    let m = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);
    let below = m < std::f32::consts::FRAC_1_SQRT_2;
    let exponent = (bits >> 23) as i32 - 126 - i32::from(below) - if tiny { 23 } else { 0 };
    let e = exponent as f32;
    let t = if below { m + m - 1.0 } else { m - 1.0 };
    let square = t * t;
    let mut p = 7.037_683_6e-2;
    p = p * t - 1.151_461e-1;
    p = p * t + 1.167_699_9e-1;
    p = p * t - 1.242_014_1e-1;
    p = p * t + 1.424_932_3e-1;
    p = p * t - 1.666_805_8e-1;
    p = p * t + 2.000_071_5e-1;
    p = p * t - 2.499_999_4e-1;
    p = p * t + 3.333_333_1e-1;
    let tail = t * square * p - 2.121_944_4e-4 * e - 0.5 * square;
    let value = (t + tail) + 0.693_359_4 * e;
    // The special cases, as selections.
    let value = if x == f32::INFINITY { x } else { value };
    let value = if x == 0.0 { f32::NEG_INFINITY } else { value };
    if x >= 0.0 { value } else { f32::NAN }
}

/// The hyperbolic tangent of a number below 0.625.
#[inline(always)]
fn small_tanh(x: f32) -> f32 {
    let square = x * x;
    let mut p = -5.704_988_7e-3;
    p = p * square + 2.063_908_8e-2;
    p = p * square - 5.373_971_6e-2;
    p = p * square + 1.333_144_2e-1;
    p = p * square - 3.333_328e-1;
    p * square * x + x
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let z = x.abs();
    let large = 1.0 - 2.0 / (exp(z + z) + 1.0);
    (if z < 0.625 { small_tanh(x) } else { large }).copysign(x)
}

/// `e^x - 1`, precise also where `x` is tiny.
#[inline(always)]
pub fn exp_m1(x: f32) -> f32 {
    let half = small_tanh(0.5 * x);
    let near = (half + half) / (1.0 - half);
    let value = if x.abs() < 1.0 { near } else { exp(x) - 1.0 };
    if value == 0.0 { x } else { value }
}

/// The logistic function `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    // The exponential of a negative number, so that small results keep their precision.
    let e = exp(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 1009th number there is.
    fn numbers() -> impl Iterator<Item = f32> {
        (0..=u32::MAX).step_by(1009).map(f32::from_bits)
    }

    #[track_caller]
    fn follows(name: &str, got: fn(f32) -> f32, exact: fn(f64) -> f64, tolerance: f64) {
        for x in numbers().chain([
            0.0,
            -0.0,
            1.0,
            -1.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::MAX,
        ]) {
            let (got, exact) = (f64::from(got(x)), exact(x.into()));
            let rounded = f64::from(exact as f32);
            let close = (got - exact).abs() <= tolerance * exact.abs() + 1.5e-45;
            assert!(
                got == rounded || (got.is_nan() && exact.is_nan()) || (close && got.is_finite()),
                "{name}({x:e}) is {got:e}, not {exact:e}"
            );
        }
    }

    #[test]
    fn functions_follow_the_exact_ones() {
        follows("exp", exp, f64::exp, 2e-7);
        follows("ln", ln, f64::ln, 2e-7);
        follows("exp_m1", exp_m1, f64::exp_m1, 4e-7);
        follows("tanh", tanh, f64::tanh, 2e-7);
        follows("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 3e-7);
        assert!(tanh(-0.0).is_sign_negative());
    }
}
