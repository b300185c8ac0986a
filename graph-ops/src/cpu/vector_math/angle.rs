//! Circular functions and their inverses, without branches.
//!
//! Sine, cosine and tangent of `f32` are computed in `f64` and hardly differ from the exact value rounded; they hold up to
//! [`LARGEST`]. Polynomials of sine and cosine are those of Arm's Optimized Routines, which GNU's C library took over, so that
//! results are its; that of the tangent is of FreeBSD's library (msun). The inverses are Cephes', within 4e-7 and 4e-16.

use std::f32::consts as single;
use std::f64::consts as double;

use super::double::ROUNDER;

/// Angles up to this many radians are taken apart exactly enough: below 2^16 quarter turns.
pub const LARGEST: f32 = 1e5;

/// How far the angle is beyond a multiple of a quarter turn, in `[-pi/4, pi/4]`, and that multiple's last bits.
#[inline(always)]
fn quarters(x: f32) -> (f64, u32) {
    let x = f64::from(x);
    let shifted = x * double::FRAC_2_PI + ROUNDER;
    let n = shifted - ROUNDER;
    // pi/2 in two parts; the first has 33 bits, so that n times it is exact.
    let r = (x - n * 1.570_796_326_734_125_6) - n * 6.077_100_506_506_192e-11;
    (r, shifted.to_bits() as u32)
}

/// Sine and cosine of an angle in `[-pi/4, pi/4]`.
#[inline(always)]
fn near_zero(r: f64) -> (f64, f64) {
    let square = r * r;
    let cube = r * square;
    let s = 0.008_332_178_146_138_854 + square * -0.000_195_172_989_813_857_25;
    let s = (r + cube * -0.166_666_549_437_010_84) + cube * square * s;
    let fourth = square * square;
    let c = -0.001_388_676_379_437_604 + square * 2.439_045_070_356_454_2e-05;
    let c = (1.0 + square * -0.499_999_997_251_082_24) + fourth * 0.041_666_623_324_344_516 + fourth * square * c;
    (s, c)
}

/// Sine and cosine of an angle of at most [`LARGEST`].
#[inline(always)]
pub fn sin_cos(x: f32) -> (f32, f32) {
    let (r, quarter) = quarters(x);
    let (s, c) = near_zero(r);
    let (s, c) = if quarter & 1 == 0 { (s, c) } else { (c, s) };
    let s = if quarter & 2 == 0 { s } else { -s };
    let c = if quarter.wrapping_add(1) & 2 == 0 { c } else { -c };
    // Keeps the sign of zero.
    let s = if r == 0.0 && quarter == 0 { f64::from(x) } else { s };
    (s as f32, c as f32)
}

/// The sine of an angle of at most [`LARGEST`].
#[inline(always)]
pub fn sin(x: f32) -> f32 {
    sin_cos(x).0
}

/// The cosine of an angle of at most [`LARGEST`].
#[inline(always)]
pub fn cos(x: f32) -> f32 {
    sin_cos(x).1
}

/// The tangent of an angle of at most [`LARGEST`].
#[inline(always)]
pub fn tan(x: f32) -> f32 {
    let (r, quarter) = quarters(x);
    let square = r * r;
    let fourth = square * square;
    let high = 2.974_357_433_599_673e-3 + square * 9.465_647_849_436_732e-3;
    let middle = 5.338_123_784_456_704e-2 + square * 2.452_831_811_665_473e-2;
    let low = 3.333_313_950_307_914e-1 + square * 1.333_920_027_129_767_4e-1;
    let cube = square * r;
    let tangent = (r + cube * low) + cube * fourth * (middle + fourth * high);
    let value = if quarter & 1 == 0 { tangent } else { -1.0 / tangent };
    (if r == 0.0 && quarter == 0 { f64::from(x) } else { value }) as f32
}

/// The arc sine of the absolute value: as a part of it, whether that is to be taken twice from a quarter turn.
#[inline(always)]
fn arc_sine(x: f32) -> (f32, bool) {
    let z = x.abs();
    let beyond = z > 0.5;
    let square = if beyond { 0.5 * (1.0 - z) } else { z * z };
    let root = if beyond { square.sqrt() } else { z };
    let mut p = 4.216_32e-2;
    p = p * square + 2.418_131_1e-2;
    p = p * square + 4.547_002_6e-2;
    p = p * square + 7.495_3e-2;
    p = p * square + 1.666_675_2e-1;
    (root + root * square * p, beyond)
}

/// The arc sine; not a number beyond 1.
#[inline(always)]
pub fn asin(x: f32) -> f32 {
    let (part, beyond) = arc_sine(x);
    (if beyond {
        single::FRAC_PI_2 - (part + part)
    } else {
        part
    })
    .copysign(x)
}

/// The arc cosine; not a number beyond 1.
#[inline(always)]
pub fn acos(x: f32) -> f32 {
    let (part, beyond) = arc_sine(x);
    let twice = part + part;
    let far = if x < 0.0 { single::PI - twice } else { twice };
    if beyond {
        far
    } else {
        single::FRAC_PI_2 - part.copysign(x)
    }
}

/// Takes the arc tangent of `z >= 0` back to that of a number near zero: which share of a quarter turn it adds, and that number.
/// Beyond tan(3/8 pi) and tan(1/8 pi) or so, `atan(z) = pi/2 - atan(1/z)` and `pi/4 + atan((z - 1)/(z + 1))`.
#[inline(always)]
fn nearer<T: num_traits::Float>(z: T, middle_from: T) -> (T, T) {
    let one = T::one();
    // sqrt(2) + 1
    let large = z > one + (one + one).sqrt();
    let middle = z > middle_from;
    let small = if middle { z - one } else { z };
    let numerator = if large { -one } else { small };
    let small = if middle { z + one } else { one };
    let denominator = if large { z } else { small };
    let half = if middle { one / (one + one) } else { T::zero() };
    (if large { one } else { half }, numerator / denominator)
}

/// The arc tangent.
#[inline(always)]
pub fn atan(x: f32) -> f32 {
    let (share, t) = nearer(x.abs(), 0.414_213_57);
    let square = t * t;
    let mut p = 8.053_744_5e-2;
    p = p * square - 1.387_768_6e-1;
    p = p * square + 1.997_771_1e-1;
    p = p * square - 3.333_295e-1;
    (share * single::FRAC_PI_2 + (p * square * t + t)).copysign(x)
}

/// The arc tangent.
#[inline(always)]
pub fn atan64(x: f64) -> f64 {
    /// What pi/2 has beyond the nearest `f64`.
    const REST: f64 = 6.123_233_995_736_766e-17;
    let (share, t) = nearer(x.abs(), 0.66);
    let square = t * t;
    let mut p = -8.750_608_600_031_904e-1;
    p = p * square - 1.615_753_718_733_365e1;
    p = p * square - 7.500_855_792_314_705e1;
    p = p * square - 1.228_866_684_490_136_1e2;
    p = p * square - 6.485_021_904_942_025e1;
    let mut q = square + 2.485_846_490_142_306_4e1;
    q = q * square + 1.650_270_098_316_988_5e2;
    q = q * square + 4.328_810_604_912_903e2;
    q = q * square + 4.853_903_996_359_137e2;
    q = q * square + 1.945_506_571_482_614e2;
    let angle = t * (square * (p / q)) + t + share * REST;
    (share * double::FRAC_PI_2 + angle).copysign(x)
}

/// The angle of the point `(x, y)` by the arc tangent of a number in `[0, 1]`, in `[-pi, pi]`; signed zeros and infinities as
/// in C's library.
macro_rules! angle_of_point {
    ($(#[$doc:meta])* $name:ident, $t:ty, $atan:path, $pi:path, $half_pi:path) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(y: $t, x: $t) -> $t {
            let (up, right) = (y.abs(), x.abs());
            let steep = up > right;
            let (short, long) = if steep { (right, up) } else { (up, right) };
            // Two infinities are as long as each other, and so are two zeros, whose angle is that of the axis.
            let ratio = if short == <$t>::INFINITY { 1.0 } else { short / long };
            let ratio = if long == 0.0 { 0.0 } else { ratio };
            let angle = $atan(ratio);
            let angle = if steep { $half_pi - angle } else { angle };
            let angle = if x.is_sign_negative() { $pi - angle } else { angle };
            (if x.is_nan() || y.is_nan() { <$t>::NAN } else { angle }).copysign(y)
        }
    };
}

angle_of_point! {
    /// The angle of the point `(x, y)`.
    atan2, f32, atan, single::PI, single::FRAC_PI_2
}
angle_of_point! {
    /// The angle of the point `(x, y)`.
    atan2_64, f64, atan64, double::PI, double::FRAC_PI_2
}
