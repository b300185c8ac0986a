//! Conversions between `float` and the half types without branches, so that loops over them become vector code; those of
//! binary16 by the instructions for it, where the CPU has them.
//!
//! They give what the `half` crate gives, bit for bit, which asks the CPU for its features at each number, and calls a function
//! for eight. Formats: IEEE 754
//! binary16, and `bfloat16`, the upper half of a `float`; to nearest, ties to even; what is not a number becomes quiet.

use super::simd::multiversion;
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

/// [`f32_of_half`] of each.
///
/// # Panics
/// If the lengths differ; so do the others.
pub fn f32s_of_halves(from: &[f16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("f16c") {
        // SAFETY: the CPU has the instructions.
        return unsafe { f16c::widen(from, to) };
    }
    widen(from, to);
}

/// [`half_of_f32`] of each.
pub fn halves_of_f32s(from: &[f32], to: &mut [f16]) {
    assert_eq!(from.len(), to.len());
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("f16c") {
        // SAFETY: the CPU has the instructions.
        return unsafe { f16c::narrow(from, to) };
    }
    narrow(from, to);
}

/// Each number becomes the nearest that binary16 has.
pub fn round_to_halves(x: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("f16c") {
        // SAFETY: the CPU has the instructions.
        return unsafe { f16c::round(x) };
    }
    round(x);
}

multiversion! {
    fn widen(from: &[f16], to: &mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, &x)| *to = f32_of_half(x));
    }
}

multiversion! {
    fn narrow(from: &[f32], to: &mut [f16]) {
        to.iter_mut().zip(from).for_each(|(to, &x)| *to = half_of_f32(x));
    }
}

multiversion! {
    fn round(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = f32_of_half(half_of_f32(*x)));
    }
}

#[cfg(target_arch = "x86_64")]
mod f16c {
    use super::{f16, f32_of_half, half_of_f32};
    use std::arch::x86_64::*;

    #[target_feature(enable = "f16c")]
    pub fn widen(from: &[f16], to: &mut [f32]) {
        let (from, rest) = from.as_chunks::<8>();
        let (to, last) = to.as_chunks_mut::<8>();
        for (from, to) in from.iter().zip(to) {
            // SAFETY: eight numbers each.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) };
        }
        last.iter_mut().zip(rest).for_each(|(to, &x)| *to = f32_of_half(x));
    }

    #[target_feature(enable = "f16c")]
    pub fn narrow(from: &[f32], to: &mut [f16]) {
        let (from, rest) = from.as_chunks::<8>();
        let (to, last) = to.as_chunks_mut::<8>();
        for (from, to) in from.iter().zip(to) {
            // SAFETY: eight numbers each.
            unsafe {
                let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(from.as_ptr()));
                _mm_storeu_si128(to.as_mut_ptr().cast(), halves);
            }
        }
        last.iter_mut().zip(rest).for_each(|(to, &x)| *to = half_of_f32(x));
    }

    #[target_feature(enable = "f16c")]
    pub fn round(x: &mut [f32]) {
        let (blocks, rest) = x.as_chunks_mut::<8>();
        for block in blocks {
            // SAFETY: eight numbers.
            unsafe {
                let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(block.as_ptr()));
                _mm256_storeu_ps(block.as_mut_ptr(), _mm256_cvtph_ps(halves));
            }
        }
        rest.iter_mut().for_each(|x| *x = f32_of_half(half_of_f32(*x)));
    }
}

multiversion! {
    /// [`f32_of_bfloat`] of each.
    pub fn f32s_of_bfloats(from: &[bf16], to: &mut [f32]) {
        assert_eq!(from.len(), to.len());
        to.iter_mut().zip(from).for_each(|(to, &x)| *to = f32_of_bfloat(x));
    }
}

multiversion! {
    /// [`bfloat_of_f32`] of each.
    pub fn bfloats_of_f32s(from: &[f32], to: &mut [bf16]) {
        assert_eq!(from.len(), to.len());
        to.iter_mut().zip(from).for_each(|(to, &x)| *to = bfloat_of_f32(x));
    }
}

multiversion! {
    /// Each number becomes the nearest that `bfloat16` has.
    pub fn round_to_bfloats(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = f32_of_bfloat(bfloat_of_f32(*x)));
    }
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
    fn many_are_converted_as_one() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        let halves: Vec<f16> = bits.iter().map(|&bits| f16::from_bits(bits)).collect();
        let brains: Vec<bf16> = bits.iter().map(|&bits| bf16::from_bits(bits)).collect();
        // Not a whole number of vectors.
        let (halves, brains) = (&halves[..65_531], &brains[..65_531]);
        let same = |got: &[f32], one: &dyn Fn(usize) -> f32| {
            assert!(got.iter().enumerate().all(|(i, x)| x.to_bits() == one(i).to_bits()));
        };
        let mut wide = vec![0.0; halves.len()];
        f32s_of_halves(halves, &mut wide);
        same(&wide, &|i| f32_of_half(halves[i]));
        widen(halves, &mut wide);
        same(&wide, &|i| f32_of_half(halves[i]));
        f32s_of_bfloats(brains, &mut wide);
        same(&wide, &|i| f32_of_bfloat(brains[i]));
        let floats: Vec<f32> = (0..65_531u32)
            .map(|x| f32::from_bits(x.wrapping_mul(0x9e37_79b9)))
            .collect();
        let (mut half, mut brain) = (vec![f16::ZERO; floats.len()], vec![bf16::ZERO; floats.len()]);
        for narrowed in [halves_of_f32s, narrow] {
            narrowed(&floats, &mut half);
            assert!(
                half.iter()
                    .zip(&floats)
                    .all(|(x, &of)| x.to_bits() == half_of_f32(of).to_bits())
            );
        }
        for rounding in [round_to_halves, round] {
            let mut rounded = floats.clone();
            rounding(&mut rounded);
            same(&rounded, &|i| f32_of_half(half_of_f32(floats[i])));
        }
        let mut rounded = floats.clone();
        round_to_bfloats(&mut rounded);
        same(&rounded, &|i| f32_of_bfloat(bfloat_of_f32(floats[i])));
        bfloats_of_f32s(&floats, &mut brain);
        assert!(
            brain
                .iter()
                .zip(&floats)
                .all(|(x, &of)| x.to_bits() == bfloat_of_f32(of).to_bits())
        );
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
