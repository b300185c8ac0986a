//! The Philox4x32-10 counter-based generator: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3"
//! (2011), keyed and counted as TensorFlow does.

use std::array;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Key and first counter of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub key: [u32; 2],
    pub counter: u128,
}

impl Key {
    /// As TensorFlow's `GuardedPhiloxRandom`: the key is `seed`, the upper half of the counter `seed2`.
    pub fn from_seeds(seed: u64, seed2: u64) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            counter: u128::from(seed2) << 64,
        }
    }
}

/// A place in a stream of blocks of four 32-bit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
    counter: u128,
}

impl Philox {
    /// The stream's beginning.
    pub fn new(key: Key) -> Self {
        Self {
            key: key.key,
            counter: key.counter,
        }
    }

    /// The place, from which [`Philox::new`] goes on.
    pub fn place(&self) -> Key {
        Key {
            key: self.key,
            counter: self.counter,
        }
    }

    /// Moves on by `blocks`.
    pub fn skip(&mut self, blocks: u128) {
        self.counter = self.counter.wrapping_add(blocks);
    }

    /// The place `blocks` further on.
    pub fn at(self, blocks: u128) -> Self {
        Self {
            counter: self.counter.wrapping_add(blocks),
            ..self
        }
    }

    /// The block here, moving on to the next.
    #[inline]
    pub fn next_block(&mut self) -> [u32; 4] {
        let block = rounds(
            array::from_fn(|w| (self.counter >> (32 * w)) as u32),
            self.key,
            |x, multiplier| {
                let product = u64::from(x) * u64::from(multiplier);
                ((product >> 32) as u32, product as u32)
            },
            |x, y, key| x ^ y ^ key,
        );
        self.skip(1);
        block
    }

    /// [`Philox::pairs_apart`] of neighbours.
    #[inline(always)]
    pub fn pairs<const PAIRS: usize>(&self) -> [[[u32; 4]; 2]; PAIRS] {
        self.pairs_apart(1)
    }

    /// `2 * PAIRS` blocks from here on, each `distance` behind the one before, without moving; many at a time, so that the
    /// compiler can use vectors.
    #[inline(always)]
    pub fn pairs_apart<const PAIRS: usize>(&self, distance: u128) -> [[[u32; 4]; 2]; PAIRS] {
        // Each number holds the words of two blocks, the first one's below: vectors multiply every other 32-bit lane.
        let mut words = [[0; PAIRS]; 4];
        for pair in 0..PAIRS {
            let [first, second] = [0, 1].map(|i| self.counter.wrapping_add((2 * pair as u128 + i) * distance));
            for (w, words) in words.iter_mut().enumerate() {
                words[pair] = packed((first >> (32 * w)) as u32, (second >> (32 * w)) as u32);
            }
        }
        let words = rounds(
            words,
            self.key,
            |x, multiplier| {
                let (mut high, mut low) = (x, x);
                for pair in 0..PAIRS {
                    let [first, second] = [x[pair] & LOW, x[pair] >> 32].map(|x| x * u64::from(multiplier));
                    high[pair] = first >> 32 | second & !LOW;
                    low[pair] = first & LOW | second << 32;
                }
                (high, low)
            },
            |mut x, y, key| {
                for pair in 0..PAIRS {
                    x[pair] ^= y[pair] ^ packed(key, key);
                }
                x
            },
        );
        let mut blocks = [[[0; 4]; 2]; PAIRS];
        for (pair, [first, second]) in blocks.iter_mut().enumerate() {
            for w in 0..4 {
                (first[w], second[w]) = (words[w][pair] as u32, (words[w][pair] >> 32) as u32);
            }
        }
        blocks
    }
}

const LOW: u64 = 0xFFFF_FFFF;

/// Two words in one number.
#[inline(always)]
fn packed(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The rounds of the generator over counters in some form `W`: `multiply` gives the upper and lower words of products, `mix` the
/// exclusive or of two words and a key.
#[inline(always)]
fn rounds<W: Copy>(
    mut words: [W; 4],
    mut key: [u32; 2],
    multiply: impl Fn(W, u32) -> (W, W),
    mix: impl Fn(W, W, u32) -> W,
) -> [W; 4] {
    for round in 0..ROUNDS {
        if round > 0 {
            key = array::from_fn(|i| key[i].wrapping_add(WEYL[i]));
        }
        let [c0, c1, c2, c3] = words;
        let (high0, low0) = multiply(c0, MULTIPLIERS[0]);
        let (high1, low1) = multiply(c2, MULTIPLIERS[1]);
        words = [mix(high1, c1, key[0]), low1, mix(high0, c3, key[1]), low0];
    }
    words
}

/// The words of a generator, one by one.
pub struct Words {
    place: Philox,
    block: [u32; 4],
    used: usize,
}

impl Words {
    /// From this place on.
    pub fn new(place: Philox) -> Self {
        Self {
            place,
            block: [0; 4],
            used: 4,
        }
    }

    /// The next word.
    #[expect(clippy::should_implement_trait, reason = "the stream never ends")]
    pub fn next(&mut self) -> u32 {
        if self.used == 4 {
            (self.block, self.used) = (self.place.next_block(), 0);
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// The next two words as one number, the lower half first.
    pub fn next_u64(&mut self) -> u64 {
        let (low, high) = (self.next(), self.next());
        u64::from(low) | u64::from(high) << 32
    }

    /// `U[0, 1)` with 23 random bits of the next word.
    pub fn uniform_f32(&mut self) -> f32 {
        super::random::uniform_f32(self.next())
    }

    /// `U[0, 1)` with 52 random bits of the next two words.
    pub fn uniform_f64(&mut self) -> f64 {
        let (x0, x1) = (self.next(), self.next());
        super::random::uniform_f64(x0, x1)
    }

    /// An integer below `limit`, which is not 0, from the next word.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.next() % limit
    }

    /// An integer below `limit`, which is not 0, from the next two words.
    pub fn below_u64(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_test_vectors() {
        let zero = Key {
            key: [0, 0],
            counter: 0,
        };
        assert_eq!(
            Philox::new(zero).next_block(),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        let ones = Key {
            key: [u32::MAX; 2],
            counter: u128::MAX,
        };
        assert_eq!(
            Philox::new(ones).next_block(),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn skipping_is_drawing() {
        let mut a = Philox::new(Key {
            key: [3, 4],
            counter: u128::from(u64::MAX) - 2,
        });
        let b = a;
        for block in b.pairs::<4>().into_iter().flatten() {
            assert_eq!(a.next_block(), block);
        }
        assert_eq!(a, b.at(8));
    }
}
