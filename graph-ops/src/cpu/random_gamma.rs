//! Samples of the gamma distribution: Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables" (2000), on
//! TensorFlow's streams.

use super::philox::Philox;
use super::random::{RESERVED_BLOCKS_PER_ELEMENT, RandomReal};

/// Doubles that a block of the generator gives.
const IN_A_BLOCK: usize = 2;

/// Numbers of a distribution that come in blocks and are used from the last on.
struct Draws {
    fill: fn(Philox, &mut [f64]),
    block: [f64; IN_A_BLOCK],
    left: usize,
}

impl Draws {
    fn new(fill: fn(Philox, &mut [f64])) -> Self {
        Self {
            fill,
            block: [0.0; IN_A_BLOCK],
            left: 0,
        }
    }

    fn next(&mut self, place: &mut Philox) -> f64 {
        if self.left == 0 {
            (self.fill)(*place, &mut self.block);
            place.skip(1);
            self.left = IN_A_BLOCK;
        }
        self.left -= 1;
        self.block[self.left]
    }
}

/// Sample number `index` of the distribution of shape `alpha` and scale 1, where `place` is where the samples' blocks begin.
pub fn gamma(place: Philox, index: usize, alpha: f64) -> f64 {
    let mut place = place.at(index as u128 * RESERVED_BLOCKS_PER_ELEMENT);
    let (mut normals, mut uniforms) = (Draws::new(f64::fill_normal), Draws::new(f64::fill_uniform));
    if alpha == 1.0 {
        // An exponential number.
        return -(-uniforms.next(&mut place)).ln_1p();
    }
    // Below 1 the sample of alpha + 1 is scaled down.
    let small = alpha < 1.0;
    let d = alpha + if small { 2.0 / 3.0 } else { -1.0 / 3.0 };
    let c = 1.0 / 3.0 / d.sqrt();
    loop {
        let x = normals.next(&mut place);
        let v = 1.0 + c * x;
        if v <= 0.0 {
            continue;
        }
        let v = v * v * v;
        let u = uniforms.next(&mut place);
        let squeezed = u < 1.0 - 0.0331 * (x * x) * (x * x);
        if squeezed || u.ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
            let scale = if small {
                uniforms.next(&mut place).powf(1.0 / alpha)
            } else {
                1.0
            };
            return d * v * scale;
        }
        // With NaN nothing is ever accepted.
        if alpha.is_nan() {
            return f64::NAN;
        }
    }
}
