//! Filling arrays with random numbers, in TensorFlow's streams (`random_distributions.h`, `FillPhiloxRandom` on a CPU).
//!
//! An output is cut into groups of 4 elements, of 2 for 64-bit types. Group `g` uses the block `g` after the generator's
//! place; truncated normals, which draw until enough are accepted, start `256` blocks a group of four (128 a group of two)
//! after the place. So any task can fill any group.

use super::parallel::{SharedMut, for_each_range};
use super::philox::Philox;
use super::simd::multiversion;
use super::vector_math::{self, angle};
use half::{bf16, f16};
use std::f64::consts::TAU;

/// Blocks that one run of a random op reserves an element: the op's generator moves on by `elements * 256`.
pub const RESERVED_BLOCKS_PER_ELEMENT: u128 = 256;

/// Below it `ln` would leave the range that TensorFlow allows; uniforms are raised to it.
const SMALLEST_UNIFORM: f64 = 1.0e-7;

/// Truncated normals are redrawn from here on.
const TRUNCATION: f64 = 2.0;

/// Groups that one task fills.
const GROUPS_A_TASK: usize = 4096;

/// `U[0, 1)` with 23 random bits.
#[inline(always)]
pub(super) fn uniform_f32(x: u32) -> f32 {
    f32::from_bits(0x3F80_0000 | (x & 0x7F_FFFF)) - 1.0
}

/// `U[0, 1)` with 52 random bits.
#[inline(always)]
pub(super) fn uniform_f64(x0: u32, x1: u32) -> f64 {
    f64::from_bits((1023 << 52) | (u64::from(x0 & 0xF_FFFF) << 32) | u64::from(x1)) - 1.0
}

/// Two independent standard normals by the Box-Muller transform; sine first.
#[inline(always)]
fn box_muller_f32([x0, x1]: [u32; 2]) -> [f32; 2] {
    let u1 = uniform_f32(x0).max(SMALLEST_UNIFORM as f32);
    let angle = (TAU * f64::from(uniform_f32(x1))) as f32;
    let radius = (-2.0 * vector_math::ln_rounded(u1)).sqrt();
    let (sin, cos) = angle::sin_cos(angle);
    [sin * radius, cos * radius]
}

fn box_muller_f64([x0, x1, x2, x3]: [u32; 4]) -> [f64; 2] {
    let u1 = uniform_f64(x0, x1).max(SMALLEST_UNIFORM);
    let (sin, cos) = (TAU * uniform_f64(x2, x3)).sin_cos();
    let radius = (-2.0 * u1.ln()).sqrt();
    [sin * radius, cos * radius]
}

/// A dtype with random distributions.
pub trait RandomReal: Copy + Default + Send + Sync + 'static {
    /// `U[0, 1)`.
    fn fill_uniform(generator: Philox, out: &mut [Self]);
    /// Mean 0, standard deviation 1.
    fn fill_normal(generator: Philox, out: &mut [Self]);
    /// A standard normal, redrawn until its magnitude is below 2.
    fn fill_truncated_normal(generator: Philox, out: &mut [Self]);
}

/// Fills groups of `N` by `group`, which gets the generator at the group's place. Groups lie `distance` blocks apart.
fn fill_groups<T: Copy + Default + Send, const N: usize>(
    generator: Philox,
    distance: u128,
    out: &mut [T],
    group: impl Fn(Philox) -> [T; N] + Sync + Send,
) {
    let (len, shared) = (out.len(), SharedMut::new(out));
    for_each_range(len.div_ceil(N), GROUPS_A_TASK, |groups| {
        // SAFETY: each task has its own groups.
        let part = unsafe { shared.slice(groups.start * N..(groups.end * N).min(len)) };
        for (out, g) in part.chunks_mut(N).zip(groups) {
            out.copy_from_slice(&group(generator.at(g as u128 * distance))[..out.len()]);
        }
    });
}

/// Pairs of blocks computed together in the vectorized fills.
const PAIRS: usize = 8;

multiversion! {
    /// Fills `out` from consecutive blocks, four elements a block, one a word.
    wide fn fill_words[T: Copy, F: Fn(u32) -> T](generator: Philox, out: &mut [T], f: F) {
        let mut generator = generator;
        for out in out.chunks_mut(8 * PAIRS) {
            let pairs = generator.pairs::<PAIRS>();
            generator.skip(2 * PAIRS as u128);
            for (out, &x) in out.iter_mut().zip(pairs.as_flattened().as_flattened()) {
                *out = f(x);
            }
        }
    }
}

multiversion! {
    /// Fills `out` from consecutive blocks, two elements a block.
    fn fill_pairs[T: Copy, F: Fn(u32, u32) -> T](generator: Philox, out: &mut [T], f: F) {
        let mut generator = generator;
        for out in out.chunks_mut(4 * PAIRS) {
            let pairs = generator.pairs::<PAIRS>();
            generator.skip(2 * PAIRS as u128);
            for (out, words) in out.iter_mut().zip(pairs.as_flattened().as_flattened().as_chunks::<2>().0) {
                *out = f(words[0], words[1]);
            }
        }
    }
}

/// Fills in parallel with a fill that uses one block every `N` elements.
fn fill_parallel<T: Send, const N: usize>(
    generator: Philox,
    out: &mut [T],
    fill: impl Fn(Philox, &mut [T]) + Sync + Send,
) {
    super::parallel::for_each_chunk(out, GROUPS_A_TASK * N, |start, chunk| {
        fill(generator.at((start / N) as u128), chunk);
    });
}

multiversion! {
    /// Standard normals from blocks that lie `distance` apart, four a block.
    fn normals_of_blocks(generator: Philox, distance: u128) -> [[f32; 4]; 2 * PAIRS] {
        let blocks = generator.pairs_apart::<PAIRS>(distance);
        let words = blocks.as_flattened().as_flattened().as_chunks::<2>().0;
        let mut normals = [[0.0; 4]; 2 * PAIRS];
        for (normals, &words) in normals.as_flattened_mut().as_chunks_mut::<2>().0.iter_mut().zip(words) {
            *normals = box_muller_f32(words);
        }
        normals
    }
}

/// Fills with normals, converted from `float`.
fn fill_normals<T: Send>(generator: Philox, out: &mut [T], convert: impl Fn(f32) -> T + Sync + Send) {
    fill_parallel::<_, 4>(generator, out, |mut generator, out| {
        for out in out.chunks_mut(8 * PAIRS) {
            let normals = normals_of_blocks(generator, 1);
            generator.skip(2 * PAIRS as u128);
            for (out, &normal) in out.iter_mut().zip(normals.as_flattened()) {
                *out = convert(normal);
            }
        }
    });
}

/// Takes values from `draw`, two at a time, until `N` have a magnitude below 2.
fn accepted<T: Copy + Default + PartialOrd, const N: usize>(
    mut draw: impl FnMut() -> [T; 2],
    below: impl Fn(T) -> bool,
) -> [T; N] {
    let mut values = [T::default(); N];
    let mut filled = 0;
    loop {
        for value in draw() {
            if below(value) {
                values[filled] = value;
                filled += 1;
                if filled == N {
                    return values;
                }
            }
        }
    }
}

/// Blocks from one group of four truncated normals to the next.
const BLOCKS_A_TRUNCATED_GROUP: u128 = 256;

fn is_kept(z: f32) -> bool {
    f64::from(z).abs() < TRUNCATION
}

/// A group of truncated normals.
fn truncated_f32_group(mut generator: Philox) -> [f32; 4] {
    let mut spare = None;
    let draw = || {
        box_muller_f32(spare.take().unwrap_or_else(|| {
            let [x0, x1, x2, x3] = generator.next_block();
            spare = Some([x2, x3]);
            [x0, x1]
        }))
    };
    accepted(draw, is_kept)
}

/// Fills with truncated normals, converted from `float`. Most groups take the four numbers of their first block.
fn fill_truncated_normals<T: Send>(generator: Philox, out: &mut [T], convert: impl Fn(f32) -> T + Sync + Send) {
    let (len, shared) = (out.len(), SharedMut::new(out));
    for_each_range(len.div_ceil(4), GROUPS_A_TASK, |groups| {
        let mut generator = generator.at(groups.start as u128 * BLOCKS_A_TRUNCATED_GROUP);
        // SAFETY: each task has its own groups.
        let part = unsafe { shared.slice(groups.start * 4..(groups.end * 4).min(len)) };
        for out in part.chunks_mut(8 * PAIRS) {
            let first = normals_of_blocks(generator, BLOCKS_A_TRUNCATED_GROUP);
            for (out, first) in out.chunks_mut(4).zip(first) {
                let group = match first.into_iter().all(is_kept) {
                    true => first,
                    false => truncated_f32_group(generator),
                };
                out.iter_mut().zip(group).for_each(|(out, z)| *out = convert(z));
                generator.skip(BLOCKS_A_TRUNCATED_GROUP);
            }
        }
    });
}

impl RandomReal for f32 {
    fn fill_uniform(generator: Philox, out: &mut [f32]) {
        fill_parallel::<_, 4>(generator, out, |generator, out| fill_words(generator, out, uniform_f32));
    }
    fn fill_normal(generator: Philox, out: &mut [f32]) {
        fill_normals(generator, out, |x| x);
    }
    fn fill_truncated_normal(generator: Philox, out: &mut [f32]) {
        fill_truncated_normals(generator, out, |x| x);
    }
}

impl RandomReal for f64 {
    fn fill_uniform(generator: Philox, out: &mut [f64]) {
        fill_parallel::<_, 2>(generator, out, |generator, out| fill_pairs(generator, out, uniform_f64));
    }
    fn fill_normal(generator: Philox, out: &mut [f64]) {
        fill_groups(generator, 1, out, |mut generator| {
            box_muller_f64(generator.next_block())
        });
    }
    fn fill_truncated_normal(generator: Philox, out: &mut [f64]) {
        fill_groups(generator, 128, out, |mut generator| {
            accepted::<f64, 2>(|| box_muller_f64(generator.next_block()), |z| z.abs() < TRUNCATION)
        });
    }
}

/// A dtype of random masks.
pub trait RandomMask: RandomReal {
    /// 1 where the number that [`RandomReal::fill_uniform`] draws is at least `threshold`, else 0.
    fn fill_mask(generator: Philox, threshold: Self, out: &mut [Self]);
}

impl RandomMask for f32 {
    fn fill_mask(generator: Philox, threshold: f32, out: &mut [f32]) {
        let bit = |x| if uniform_f32(x) >= threshold { 1.0 } else { 0.0 };
        fill_parallel::<_, 4>(generator, out, |generator, out| fill_words(generator, out, bit));
    }
}

impl RandomMask for f64 {
    fn fill_mask(generator: Philox, threshold: f64, out: &mut [f64]) {
        let bit = |x0, x1| if uniform_f64(x0, x1) >= threshold { 1.0 } else { 0.0 };
        fill_parallel::<_, 2>(generator, out, |generator, out| fill_pairs(generator, out, bit));
    }
}

macro_rules! halves {
    ($($t:ty, $uniform:path;)*) => {$(
        impl RandomMask for $t {
            fn fill_mask(generator: Philox, threshold: $t, out: &mut [$t]) {
                let threshold = f32::from(threshold);
                let bit = |x| if $uniform(x) >= threshold { <$t>::ONE } else { <$t>::ZERO };
                fill_parallel::<_, 4>(generator, out, |generator, out| fill_words(generator, out, bit));
            }
        }

        impl RandomReal for $t {
            fn fill_uniform(generator: Philox, out: &mut [$t]) {
                let number = |x| <$t>::from_f32($uniform(x));
                fill_parallel::<_, 4>(generator, out, |generator, out| fill_words(generator, out, number));
            }
            fn fill_normal(generator: Philox, out: &mut [$t]) {
                fill_normals(generator, out, <$t>::from_f32);
            }
            fn fill_truncated_normal(generator: Philox, out: &mut [$t]) {
                fill_truncated_normals(generator, out, <$t>::from_f32);
            }
        }
    )*};
}
halves! {
    f16, uniform_f16;
    bf16, uniform_bf16;
}

// Uniform from the low bits that fill the mantissa, as a number in 1..2, minus one: exact in `float`.

fn uniform_f16(x: u32) -> f32 {
    f32::from_bits(0x3F80_0000 | (x & 0x3FF) << 13) - 1.0
}

fn uniform_bf16(x: u32) -> f32 {
    f32::from_bits(0x3F80_0000 | (x & 0x7F) << 16) - 1.0
}

/// A dtype of `RandomUniformInt`.
pub trait RandomInt: Copy + Send + Sync {
    /// `low + x % (high - low)` with an unsigned word `x`, of 32 or 64 bits as the dtype. `low < high` is the caller's duty.
    fn fill_uniform_int(generator: Philox, low: Self, high: Self, out: &mut [Self]);
}

impl RandomInt for i32 {
    fn fill_uniform_int(generator: Philox, low: i32, high: i32, out: &mut [i32]) {
        assert!(low < high);
        let range = high.wrapping_sub(low) as u32;
        fill_parallel::<_, 4>(generator, out, |generator, out| {
            fill_words(generator, out, |x| low.wrapping_add((x % range) as i32));
        });
    }
}

impl RandomInt for i64 {
    fn fill_uniform_int(generator: Philox, low: i64, high: i64, out: &mut [i64]) {
        assert!(low < high);
        let range = high.wrapping_sub(low) as u64;
        fill_parallel::<_, 2>(generator, out, |generator, out| {
            fill_pairs(generator, out, |x0, x1| {
                let x = u64::from(x0) | u64::from(x1) << 32;
                low.wrapping_add((x % range) as i64)
            });
        });
    }
}

#[cfg(test)]
#[path = "random_tests.rs"]
mod tests;
