//! Samplers of integers from a range, for losses that compare a few candidates, on TensorFlow's streams.

use std::collections::HashSet;

use super::philox::Words;

/// A distribution of the integers from 0 to a limit.
pub enum Sampler {
    /// Every integer once, in order.
    All(i64),
    /// All alike.
    Uniform(i64),
    /// Falling as `log((k + 2) / (k + 1))`.
    LogUniform(i64),
    /// In proportion to how often each has been seen; each once at the start.
    Learned(Counts),
    /// In proportion to weights.
    Fixed(Weights),
}

/// How often each integer has been seen.
pub struct Counts {
    counts: Vec<i32>,
    total: i32,
}

impl Counts {
    /// Each of `range` integers once.
    pub fn new(range: i32) -> Self {
        Self {
            counts: vec![1; range.max(0) as usize],
            total: range.max(0),
        }
    }

    /// As counted before; `None` if there are more than the greatest `i32` in all.
    pub fn of(counts: Vec<i32>) -> Option<Self> {
        let total = counts
            .iter()
            .try_fold(0i32, |total, &count| total.checked_add(count.max(0)))?;
        Some(Self { counts, total })
    }

    /// How often each has been seen.
    pub fn as_slice(&self) -> &[i32] {
        &self.counts
    }

    /// Counts integers of the range, up to the greatest `i32` in all.
    pub fn see(&mut self, values: &[i64]) {
        for &value in values.iter().take((i32::MAX - self.total) as usize) {
            self.counts[value as usize] += 1;
            self.total += 1;
        }
    }
}

/// Weights, and the table of Walker's alias method: a chance to stay at an entry, and where to go else.
pub struct Weights {
    weights: Vec<f32>,
    total: f32,
    table: Vec<(f32, usize)>,
}

impl Weights {
    /// Of weights that are not negative, `reserved` zeros before them.
    pub fn new(reserved: usize, weights: &[f32]) -> Self {
        let total = weights.iter().sum();
        let weights = [vec![0.0; reserved].as_slice(), weights].concat();
        let sum = weights.iter().fold(0.0, |sum, &weight| sum + f64::from(weight));
        let mut chances: Vec<f64> = weights
            .iter()
            .map(|&weight| f64::from(weight * weights.len() as f32) / sum)
            .collect();
        let mut table: Vec<(f32, usize)> = (0..weights.len()).map(|entry| (1.0, entry)).collect();
        let (mut low, mut high): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|&entry| chances[entry] < 1.0);
        while let (Some(&poor), Some(&rich)) = (low.last(), high.last()) {
            low.pop();
            high.pop();
            table[poor] = (chances[poor] as f32, rich);
            chances[rich] -= 1.0 - chances[poor];
            if chances[rich] < 1.0 {
                low.push(rich);
            } else {
                high.push(rich);
            }
        }
        Self { weights, total, table }
    }

    /// How many integers have a weight.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }
}

impl Sampler {
    /// The integers are below this.
    pub fn range(&self) -> i64 {
        match self {
            Self::All(range) | Self::Uniform(range) | Self::LogUniform(range) => *range,
            Self::Learned(counts) => counts.counts.len() as i64,
            Self::Fixed(weights) => weights.len() as i64,
        }
    }

    /// How many integers can come at all.
    pub fn possible(&self) -> usize {
        match self {
            Self::Fixed(weights) => weights.weights.iter().filter(|&&weight| weight > 0.0).count(),
            _ => self.range().max(0) as usize,
        }
    }

    /// The probability of a value.
    fn probability(&self, value: i64) -> f32 {
        match self {
            Self::All(_) => 1.0,
            Self::Uniform(range) => (1.0 / *range as f64) as f32,
            Self::LogUniform(range) => {
                (((value as f64 + 2.0) / (value as f64 + 1.0)).ln() / (*range as f64).ln_1p()) as f32
            }
            Self::Learned(counts) => counts.counts[value as usize] as f32 / counts.total as f32,
            Self::Fixed(weights) => weights.weights[value as usize] / weights.total,
        }
    }

    fn sample(&self, words: &mut Words) -> i64 {
        match self {
            Self::All(_) => 0,
            Self::Uniform(range) => words.below_u64(*range as u64) as i64,
            Self::LogUniform(range) => {
                let value = (words.uniform_f64() * (*range as f64).ln_1p()).exp() as i64 - 1;
                value % range
            }
            Self::Learned(counts) => {
                let mut place = words.below(counts.total as u32) as i32;
                let found = counts.counts.iter().position(|&count| {
                    place -= count;
                    place < 0
                });
                found.map_or(0, |value| value as i64)
            }
            Self::Fixed(weights) => {
                let chance = words.uniform_f32();
                let entry = words.below(weights.len() as u32) as usize;
                let (stay, other) = weights.table[entry];
                if chance < stay { entry as i64 } else { other as i64 }
            }
        }
    }

    /// Fills `batch` with samples, all different if `unique` (of which there must be enough); how many it took.
    pub fn draw(&self, words: &mut Words, unique: bool, batch: &mut [i64]) -> usize {
        if let Self::All(_) = self {
            (0..).zip(&mut *batch).for_each(|(value, out)| *out = value);
            return batch.len();
        }
        if !unique {
            batch.iter_mut().for_each(|out| *out = self.sample(words));
            return batch.len();
        }
        let mut seen = HashSet::with_capacity(batch.len());
        let mut tries = 0;
        for out in batch.iter_mut() {
            loop {
                tries += 1;
                let value = self.sample(words);
                if seen.insert(value) {
                    *out = value;
                    break;
                }
            }
        }
        tries
    }

    /// How often a value is expected in a batch of `len` that took `tries` samples.
    pub fn expected_count(&self, value: i64, len: usize, tries: usize) -> f32 {
        let p = self.probability(value);
        match self {
            Self::All(_) => 1.0,
            _ if tries == len => p * len as f32,
            // 1 - (1 - p)^tries
            _ => -(tries as f32 * (-p).ln_1p()).exp_m1(),
        }
    }
}
