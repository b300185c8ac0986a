//! Normal numbers between bounds, by rejection: Robert, "Simulation of truncated normal variables" (1995), on TensorFlow's
//! streams.

use num_traits::Float;

use super::philox::Philox;
use super::random::RandomReal;

/// Rejections in a row, at most.
pub const MOST_ITERATIONS: usize = 1000;

/// The most numbers that a block of the generator gives.
const MOST_IN_A_BLOCK: usize = 4;

/// A distribution.
#[derive(Clone, Copy, Debug)]
pub struct Bounded<T> {
    pub mean: T,
    pub stddev: T,
    pub min: T,
    pub max: T,
}

/// A dtype of these numbers.
pub trait BoundedReal: RandomReal + Float {
    /// How many numbers a block of the generator gives.
    const IN_A_BLOCK: usize;
    /// A number from a literal.
    fn of(x: f64) -> Self;
}

macro_rules! bounded {
    ($($t:ty, $count:literal, $convert:expr;)*) => {$(
        impl BoundedReal for $t {
            const IN_A_BLOCK: usize = $count;
            fn of(x: f64) -> Self {
                let convert: fn(f64) -> $t = $convert;
                convert(x)
            }
        }
    )*};
}
bounded! {
    f32, 4, |x| x as f32;
    f64, 2, |x| x;
    half::f16, 4, half::f16::from_f64;
    half::bf16, 4, half::bf16::from_f64;
}

/// Why numbers could not be drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The standard deviation is not positive, the bounds are not in order, or neither of them is finite.
    Parameters,
    /// Too many numbers were rejected in a row.
    Iterations,
}

fn block<T: BoundedReal>(place: &mut Philox, fill: fn(Philox, &mut [T])) -> [T; MOST_IN_A_BLOCK] {
    let mut numbers = [T::default(); MOST_IN_A_BLOCK];
    fill(*place, &mut numbers[..T::IN_A_BLOCK]);
    place.skip(1);
    numbers
}

/// Fills `out`, moving `place` on behind what was used.
pub fn fill_bounded<T: BoundedReal>(
    place: &mut Philox,
    distribution: Bounded<T>,
    out: &mut [T],
) -> Result<(), Failure> {
    let zero = T::zero();
    let Bounded {
        mean,
        mut stddev,
        mut min,
        mut max,
    } = distribution;
    if !(stddev > zero && min < max && (min.is_finite() || max.is_finite())) {
        return Err(Failure::Parameters);
    }
    if (min.is_infinite() && min < zero) || max < mean {
        // Mirrored, so that the finite bound, or the one next to the mean, is the lower one.
        (min, max) = (max, min);
        stddev = -stddev;
    }
    let (low, high) = ((min - mean) / stddev, (max - mean) / stddev);
    let (two, four) = (T::of(2.0), T::of(4.0));
    let root = (low * low + four).sqrt();
    let cutoff = two * (T::of(0.5) + (low * (low - root)) / four).exp() / (low + root);
    let width = high - low;
    let inside = T::of(1.3);
    let mut out = Output {
        out,
        filled: 0,
        rejected: 0,
    };
    if (low < -inside && high >= zero) || (high > inside && low <= zero) {
        while !out.is_full() {
            for z in &block(place, T::fill_normal)[..T::IN_A_BLOCK] {
                out.offer(*z * stddev + mean, *z >= low && *z <= high, MOST_ITERATIONS + 1)?;
            }
        }
    } else if width < cutoff {
        let plus = if low < zero { zero } else { low * low };
        while !out.is_full() {
            let (proposals, chances) = (block(place, T::fill_uniform), block(place, T::fill_uniform));
            for (proposal, chance) in proposals.iter().zip(chances).take(T::IN_A_BLOCK) {
                let z = *proposal * width + low;
                let accept = chance <= ((plus - z * z) / two).exp();
                out.offer(z * stddev + mean, accept, MOST_ITERATIONS)?;
            }
        }
    } else {
        let alpha = (low + (low * low + four).sqrt()) / two;
        while !out.is_full() {
            for pair in block(place, T::fill_uniform)[..T::IN_A_BLOCK].chunks_exact(2) {
                let z = -pair[0].ln() / alpha + low;
                let x = if low < alpha { alpha - z } else { low - alpha };
                let accept = pair[1] <= (-x * x / two).exp() && z < high;
                out.offer(z * stddev + mean, accept, MOST_ITERATIONS)?;
            }
        }
    }
    Ok(())
}

struct Output<'a, T> {
    out: &'a mut [T],
    filled: usize,
    rejected: usize,
}

impl<T: Copy> Output<'_, T> {
    fn is_full(&self) -> bool {
        self.filled == self.out.len()
    }

    /// Takes a number if it is accepted; an error after `most` rejections in a row.
    fn offer(&mut self, number: T, accept: bool, most: usize) -> Result<(), Failure> {
        if self.is_full() {
            return Ok(());
        }
        if !accept {
            self.rejected += 1;
            return if self.rejected >= most {
                Err(Failure::Iterations)
            } else {
                Ok(())
            };
        }
        self.out[self.filled] = number;
        (self.filled, self.rejected) = (self.filled + 1, 0);
        Ok(())
    }
}
