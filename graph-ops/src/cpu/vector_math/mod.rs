//! Elementary functions of `f32` without branches or calls, so that loops over them become vector code.
//!
//! Range reductions and polynomials are those of the Cephes library (S. Moshier, *Methods and Programs for Mathematical
//! Functions*, 1989), single precision. Results are within 4e-7 of the exact value, relatively, also where they are
//! subnormal to the precision that is left there; infinities, signed zeros and NaN behave as in C's library. Those of `f64`
//! are in [`double`], what has to do with angles in [`angle`].

pub mod angle;
pub mod double;

/// The functions that kernels of `f32` and `f64` share.
pub trait Elementary: num_traits::Float {
    /// `e^self`
    fn exponential(self) -> Self;
    /// The natural logarithm.
    fn logarithm(self) -> Self;
    /// The hyperbolic tangent.
    fn hyperbolic_tangent(self) -> Self;
    /// `1 / (1 + e^-self)`
    fn logistic(self) -> Self;
}

macro_rules! elementary {
    ($t:ty, $exp:path, $ln:path, $tanh:path, $sigmoid:path) => {
        impl Elementary for $t {
            #[inline(always)]
            fn exponential(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn logarithm(self) -> Self {
                $ln(self)
            }
            #[inline(always)]
            fn hyperbolic_tangent(self) -> Self {
                $tanh(self)
            }
            #[inline(always)]
            fn logistic(self) -> Self {
                $sigmoid(self)
            }
        }
    };
}
elementary!(f32, exp, ln, tanh, sigmoid);
elementary!(f64, double::exp, double::ln, double::tanh, double::sigmoid);

/// 1.5 * 2^23: added and taken away, it leaves the nearest integer of a number below 2^22.
const ROUNDER: f32 = 12_582_912.0;

/// `x` as `n ln 2 + r` with `|r| <= ln(2)/2`: `n`, and `e^r - 1`.
#[inline(always)]
fn reduced(x: f32) -> (i32, f32) {
    // ln 2 in two parts, the first with few bits, so that n times it is exact.
    let shifted = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_6e-1;
    p = p * r + 5e-1;
    (shifted.to_bits() as i32 - ROUNDER.to_bits() as i32, p * (r * r) + r)
}

/// `2^n`, of a normal number's exponent.
#[inline(always)]
fn power(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// A number whose exponential is infinite, zero or as it was; NaN, which compares as false, stays.
#[inline(always)]
fn within_exponents(x: f32) -> f32 {
    let x = if x > 89.0 { 89.0 } else { x };
    if x < -104.0 { -104.0 } else { x }
}

/// `e^x`
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (n, e) = reduced(within_exponents(x));
    // 2^n in two steps, since n goes beyond the exponents of normal numbers.
    let half = n >> 1;
    (e + 1.0) * power(half) * power(n - half)
}

/// `e^x - 1`, precise also where `x` is tiny.
#[inline(always)]
pub fn exp_m1(x: f32) -> f32 {
    let (n, e) = reduced(within_exponents(x));
    let half = n >> 1;
    let value = (e * power(half) + (power(half) - power(half - n))) * power(n - half);
    // The sum loses the sign of a zero.
    if value == 0.0 { x } else { value }
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

/// The natural logarithm of a positive normal number, as GNU's C library rounds it; by a table and in `f64`, so that it takes
/// longer than [`ln`], which is nearly as exact. Method and constants are those of Arm's Optimized Routines.
#[inline(always)]
pub fn ln_rounded(x: f32) -> f32 {
    /// For the middles of sixteenths of [0.7, 1.4): a number near the inverse, and minus the logarithm of that.
    #[rustfmt::skip]
    const TABLE: [[f64; 2]; 16] = [
        [1.398_907_162_146_528, -0.335_691_333_328_822_84],
        [1.340_314_189_663_799_8, -0.292_904_056_377_407_4],
        [1.286_432_210_124_115, -0.251_872_658_093_736_9],
        [1.236_715_021_426_989_5, -0.212_458_688_071_172_55],
        [1.190_697_716_671_175_2, -0.174_539_451_837_456_34],
        [1.147_982_102_055_642_9, -0.138_005_707_231_975_8],
        [1.108_225_144_827_215_8, -0.102_759_766_985_451_39],
        [1.071_129_741_305_738_1, -0.068_713_924_470_205_25],
        [1.036_437_278_977_283, -0.035_789_138_739_822_8],
        [1.0, 0.0],
        [0.949_285_979_573_905_7, 0.052_045_177_429_294_96],
        [0.895_104_942_860_900_4, 0.110_814_312_987_879_42],
        [0.847_682_162_035_110_3, 0.165_249_522_369_514_3],
        [0.805_031_485_169_200_1, 0.216_873_890_316_999_77],
        [0.766_467_100_884_310_8, 0.265_963_502_812_139_7],
        [0.731_428_603_316_328, 0.312_755_666_407_355_7],
    ];
    /// Where the sixteenths begin.
    const START: u32 = 0x3f33_0000;
    let from_start = x.to_bits().wrapping_sub(START);
    let [inverse, ln] = TABLE[(from_start >> 19 & 15) as usize];
    let exponent = from_start as i32 >> 23;
    let mantissa = f32::from_bits(x.to_bits().wrapping_sub(from_start & 0xff80_0000));
    let r = f64::from(mantissa) * inverse - 1.0;
    let square = r * r;
    let p = -0.250_893_422_142_371_54 * square + (0.333_456_765_744_066 * r - 0.499_999_748_580_210_3);
    (p * square + (ln + f64::from(exponent) * std::f64::consts::LN_2 + r)) as f32
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // At 10 it is 1 to the last place.
    let z = x.abs();
    let (n, e) = reduced(if z > 10.0 { 20.0 } else { z + z });
    // e^2z - 1
    let e = e * power(n) + (power(n) - 1.0);
    (e / (e + 2.0)).copysign(x)
}

/// The logistic function `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    // The exponential of a negative number, so that small results keep their precision.
    let e = exp(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// `ln(1 + x)`, precise also where `x` is tiny.
#[inline(always)]
pub fn ln_1p(x: f32) -> f32 {
    // What the sum has lost of x is made up for, since ln(1 + x) / x hardly changes over it (W. Kahan).
    let sum = 1.0 + x;
    let kept = sum - 1.0;
    let value = ln(sum) * (x / kept);
    let value = if kept == 0.0 { x } else { value };
    if sum == f32::INFINITY { sum } else { value }
}

/// `ln(1 + e^x)`; beyond where 1 or `e^x` no longer counts, `x` or `e^x`, as in TensorFlow.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    /// `-ln(f32::EPSILON) - 2`
    const THRESHOLD: f32 = 13.942_385;
    let e = exp(x);
    let value = if x < -THRESHOLD { e } else { ln_1p(e) };
    if x > THRESHOLD { x } else { value }
}

/// `e^|x|` is `2 * large^2`, and where that is no more than `f32` holds, also `1 + e`.
#[inline(always)]
fn hyperbolic(x: f32) -> (f32, f32) {
    let half = exp(0.5 * x.abs());
    (exp_m1(x.abs()), 0.5 * half * half)
}

/// Beyond, `e^x` alone is the hyperbolic sine and cosine, twice.
const LARGE: f32 = 80.0;

/// The hyperbolic sine.
#[inline(always)]
pub fn sinh(x: f32) -> f32 {
    let (e, large) = hyperbolic(x);
    (if x.abs() > LARGE {
        large
    } else {
        0.5 * (e + e / (e + 1.0))
    })
    .copysign(x)
}

/// The hyperbolic cosine.
#[inline(always)]
pub fn cosh(x: f32) -> f32 {
    let (e, large) = hyperbolic(x);
    if x.abs() > LARGE {
        large
    } else {
        0.5 * ((e + 1.0) + 1.0 / (e + 1.0))
    }
}

/// The error function, `2/sqrt(pi)` times the integral of `exp(-t^2)` from 0 to `x`.
///
/// A rational function of odd degree 13 over even degree 8, that of Eigen and XLA; at 4 it is 1 to the last place.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let x = if x > 4.0 { 4.0 } else { x };
    let x = if x < -4.0 { -4.0 } else { x };
    let square = x * x;
    let mut p = -2.726_142_4e-10;
    p = p * square + 2.770_681_5e-8;
    p = p * square - 2.101_024e-6;
    p = p * square - 5.692_506_4e-5;
    p = p * square - 7.349_906_4e-4;
    p = p * square - 2.954_599_8e-3;
    p = p * square - 1.609_603_3e-2;
    let mut q = -1.456_607_1e-5;
    q = q * square - 2.133_740_5e-4;
    q = q * square - 1.682_827e-3;
    q = q * square - 7.373_329_4e-3;
    q = q * square - 1.426_473_9e-2;
    x * (p / q)
}

#[cfg(test)]
mod tests;
