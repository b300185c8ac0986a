//! Conversions between `float` and the half types without branches, so that loops over them become vector code.
//!
//! They give what the `half` crate gives, bit for bit, which asks the CPU for its features at each number. Formats: IEEE 754
//! binary16, and `bfloat16`, the upper half of a `float`; to nearest, ties to even; what is not a number becomes quiet.

use half::{bf16, f16};

/// A bit pattern of `float`: where exponents of binary16 begin, 112 higher than in their own bias.
const REBIAS: u32 = 112 << 23;

/// The value of a binary16 number.
#[inline(always)]
pub fn f32_of_half(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    let sign = (bits & 0x8000) << 16;
    // Exponent and mantissa where `float` has them.
    let shifted = (bits & 0x7fff) << 13;
    let normal = shifted + REBIAS;
    // A number without the leading one: give it one and take it away.
    let subnormal = (f32::from_bits(normal + (1 << 23)) - f32::from_bits(REBIAS + (1 << 23))).to_bits();
    let special = (normal + REBIAS) | if shifted > 0x0f80_0000 { 0x0040_0000 } else { 0 };
    let finite = if shifted < 1 << 23 { subnormal } else { normal };
    f32::from_bits(sign | if shifted >= 0x0f80_0000 { special } else { finite })
}

/// The nearest binary16 number, ties to even.
#[inline(always)]
pub fn half_of_f32(x: f32) -> f16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub(REBIAS).wrapping_add(0x0fff + odd) >> 13;
    // The spacing of numbers at one half is that of binary16's subnormal numbers: the addition rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5)
        .to_bits()
        .wrapping_sub(0.5f32.to_bits());
    let special = if magnitude > 0x7f80_0000 {
        0x7e00 | (magnitude >> 13 & 0x03ff)
    } else {
        0x7c00
    };
    let finite = if magnitude < REBIAS + (1 << 23) {
        subnormal
    } else {
        normal
    };
    // From 65,536 on all is infinite; what rounds up to it has become so by itself.
    let half = if magnitude >= 0x4780_0000 { special } else { finite };
    f16::from_bits((sign | half) as u16)
}

/// The value of a `bfloat16` number.
#[inline(always)]
pub fn f32_of_bfloat(x: bf16) -> f32 {
    let bits = u32::from(x.to_bits()) << 16;
    let quiet = if bits & 0x7fff_ffff > 0x7f80_0000 {
        0x0040_0000
    } else {
        0
    };
    f32::from_bits(bits | quiet)
}

/// The nearest `bfloat16` number, ties to even.
#[inline(always)]
pub fn bfloat_of_f32(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let special = (bits >> 16) | 0x0040;
    bf16::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 {
        special
    } else {
        rounded
    } as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_half_numbers_have_their_values() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert_eq!(
                f32_of_half(half).to_bits(),
                half.to_f32().to_bits(),
                "binary16 {bits:#06x}"
            );
            assert_eq!(
                f32_of_bfloat(brain).to_bits(),
                brain.to_f32().to_bits(),
                "bfloat16 {bits:#06x}"
            );
        }
    }

    #[test]
    fn floats_round_as_the_crate_rounds_them() {
        // All exponents, with mantissas around every place where the rounding turns, and many others.
        let places = (0..1 << 16).map(|x: u32| x.wrapping_mul(0x9e37_79b9) & 0x007f_ffff);
        let ties = (0..1 << 11)
            .flat_map(|x: u32| [0xfff, 0x1000, 0x1001, 0x7fff, 0x8000].map(|low| (x << 13 | low) & 0x007f_ffff));
        let mantissas: Vec<u32> = places.chain(ties).collect();
        for exponent in 0..512u32 {
            for mantissa in &mantissas {
                let x = f32::from_bits(exponent << 23 | mantissa);
                assert_eq!(
                    half_of_f32(x).to_bits(),
                    f16::from_f32(x).to_bits(),
                    "binary16 of {:#010x}",
                    x.to_bits()
                );
                assert_eq!(
                    bfloat_of_f32(x).to_bits(),
                    bf16::from_f32(x).to_bits(),
                    "bfloat16 of {:#010x}",
                    x.to_bits()
                );
            }
        }
    }
}
