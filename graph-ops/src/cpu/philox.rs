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
        let [block] = self.blocks::<1>();
        self.skip(1);
        block
    }

    /// The `N` blocks from here on, without moving; several at a time, so that the compiler can use vectors.
    #[inline(always)]
    pub fn blocks<const N: usize>(&self) -> [[u32; 4]; N] {
        let mut words: [[u32; N]; 4] = [[0; N]; 4];
        for lane in 0..N {
            let counter = self.counter.wrapping_add(lane as u128);
            for (w, word) in words.iter_mut().enumerate() {
                word[lane] = (counter >> (32 * w)) as u32;
            }
        }
        let mut key = self.key;
        for round in 0..ROUNDS {
            if round > 0 {
                key = array::from_fn(|i| key[i].wrapping_add(WEYL[i]));
            }
            let [c0, c1, c2, c3] = words;
            for lane in 0..N {
                let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c0[lane]);
                let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c2[lane]);
                words[0][lane] = (p1 >> 32) as u32 ^ c1[lane] ^ key[0];
                words[1][lane] = p1 as u32;
                words[2][lane] = (p0 >> 32) as u32 ^ c3[lane] ^ key[1];
                words[3][lane] = p0 as u32;
            }
        }
        array::from_fn(|lane| array::from_fn(|w| words[w][lane]))
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
        for block in b.blocks::<7>() {
            assert_eq!(a.next_block(), block);
        }
        assert_eq!(a, b.at(7));
    }
}
