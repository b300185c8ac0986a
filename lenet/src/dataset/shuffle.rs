//! The order in which an epoch hands out its examples: a function of seed, stream and epoch alone.
//!
//! The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014),
//! keyed anew for each epoch. So an order needs no history: a saved position is a handful of numbers, and any epoch
//! can be drawn again.

/// SplitMix64's increment, the golden ratio in 64 bits.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Fills `order` with a permutation of `0..count`: Fisher-Yates from the last place to the first.
///
/// `stream` keeps sets of one seed apart; each `epoch` has its own permutation.
pub(super) fn permute(order: &mut Vec<u32>, count: u32, seed: u64, stream: u64, epoch: u64) {
    let mut generator = SplitMix64::keyed(&[seed, stream, epoch]);
    order.clear();
    order.extend(0..count);
    for last in (1..order.len()).rev() {
        order.swap(last, generator.below(last as u64 + 1) as usize);
    }
}

struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// A generator whose start depends on every word: each is added and mixed in turn.
    fn keyed(words: &[u64]) -> Self {
        let state = words.iter().fold(0, |state: u64, &word| {
            Self {
                state: state.wrapping_add(word),
            }
            .next()
        });
        Self { state }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A uniform number in `0..bound` (Lemire, "Fast random integer generation in an interval", 2019).
    fn below(&mut self, bound: u64) -> u64 {
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(count: u32, seed: u64, stream: u64, epoch: u64) -> Vec<u32> {
        let mut order = Vec::new();
        permute(&mut order, count, seed, stream, epoch);
        order
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The published sequence for seed 1234567.
        let mut generator = SplitMix64 { state: 1234567 };
        let numbers: [u64; 3] = std::array::from_fn(|_| generator.next());
        assert_eq!(numbers, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn an_order_is_a_permutation() {
        for count in [0, 1, 2, 3, 1000] {
            let mut sorted = order(count, 1, 0, 0);
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..count));
        }
    }

    #[test]
    fn seed_stream_and_epoch_each_change_the_order() {
        let first = order(100, 1, 0, 0);
        assert_eq!(first, order(100, 1, 0, 0));
        for other in [
            order(100, 2, 0, 0),
            order(100, 1, 1, 0),
            order(100, 1, 0, 1),
            order(100, 0, 1, 0),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn every_permutation_of_three_is_as_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            *counts.entry(order(3, 1, 0, epoch)).or_insert(0) += 1;
        }
        // 1000 expected each, standard deviation 29.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|&count| (870..1130).contains(&count)), "{counts:?}");
    }
}
