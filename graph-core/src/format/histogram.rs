//! Histogram summaries: counts in TensorFlow's fixed exponential buckets.
//!
//! The bucket limits are 1551 numbers: 1e-12 and on by factors of 1.1 up to 1e20, the largest `f64`, 0, and the mirror
//! image. A value belongs to the bucket of the first limit that is greater.

use std::fmt;
use std::hint::select_unpredictable;
use std::sync::LazyLock;

use super::proto::HistogramProto;

/// Positive limits: 774 by factors of 1.1, and the largest `f64`.
const POSITIVE: usize = 775;
const BUCKETS: usize = 2 * POSITIVE + 1;
/// The bucket whose limit is 0: negative numbers next to it.
const ZERO: usize = POSITIVE;

/// Cells cut the positive numbers by exponent and the top 4 bits of the mantissa: each spans a factor of at most
/// 1 + 1/16 < 1.1, so no cell holds two limits.
const CELL_SHIFT: u32 = 52 - 4;

struct Limits {
    positive: [f64; POSITIVE],
    /// The cell of the first limit.
    first_cell: usize,
    /// For each cell from there on, the number of limits that lie below it.
    below: Vec<u16>,
}

static LIMITS: LazyLock<Limits> = LazyLock::new(|| {
    let mut positive = [f64::MAX; POSITIVE];
    let mut limit = 1e-12;
    for slot in &mut positive[..POSITIVE - 1] {
        *slot = limit;
        limit *= 1.1;
    }
    let first_cell = cell(positive[0]);
    // The cell after the last finite-looking limit stands for all that follow.
    let last_cell = cell(positive[POSITIVE - 2]) + 1;
    let below = (first_cell..=last_cell)
        .map(|cell| f64::from_bits((cell as u64) << CELL_SHIFT))
        .map(|start| positive.iter().filter(|&&limit| limit < start).count() as u16)
        .collect();
    Limits {
        positive,
        first_cell,
        below,
    }
});

fn cell(magnitude: f64) -> usize {
    (magnitude.to_bits() >> CELL_SHIFT) as usize
}

impl Limits {
    /// The bucket of a finite number.
    fn bucket(&self, value: f64) -> usize {
        let magnitude = value.abs();
        let cell = cell(magnitude).saturating_sub(self.first_cell);
        let below = usize::from(self.below[cell.min(self.below.len() - 1)]);
        let limit = self.positive[below];
        // Mirrored: the first -limit greater than value is the last limit smaller than its magnitude.
        let negative = ZERO - below - usize::from(limit < magnitude);
        // The largest f64 has no greater limit; it counts in the last bucket.
        let positive = (ZERO + 1 + below + usize::from(limit <= magnitude)).min(BUCKETS - 1);
        // No branch: weights change their signs at random.
        select_unpredictable(value < 0.0, negative, positive)
    }

    fn limit(&self, bucket: usize) -> f64 {
        match bucket {
            ZERO => 0.0,
            above if above > ZERO => self.positive[above - ZERO - 1],
            under => -self.positive[ZERO - 1 - under],
        }
    }
}

/// Buckets of `f32` numbers, looked up by their upper 16 bits: no cell of these, which spans a factor of at most 1 + 1/128,
/// holds two limits.
struct FloatCells(Vec<FloatCell>);

#[derive(Clone, Copy)]
struct FloatCell {
    /// The bucket of the cell's least number.
    bucket: u32,
    /// From here on numbers are in the next bucket.
    next: f32,
}

static FLOAT_CELLS: LazyLock<FloatCells> = LazyLock::new(|| {
    let cell = |upper: u32| {
        let (near, far) = (f32::from_bits(upper << 16), f32::from_bits(upper << 16 | 0xffff));
        if !near.is_finite() {
            let next = f32::INFINITY;
            return FloatCell { bucket: 0, next };
        }
        let (least, most) = if near.is_sign_negative() {
            (far, near)
        } else {
            (near, far)
        };
        let bucket = LIMITS.bucket(least.into());
        let limit = LIMITS.limit(bucket);
        let rounded = limit as f32;
        let next = match LIMITS.bucket(most.into()) == bucket {
            true => f32::INFINITY,
            false if f64::from(rounded) < limit => rounded.next_up(),
            false => rounded,
        };
        let bucket = bucket as u32;
        FloatCell { bucket, next }
    };
    FloatCells((0..1 << 16).map(cell).collect())
});

impl FloatCells {
    /// The bucket of a finite number; 0 of any other.
    #[inline(always)]
    fn bucket(&self, value: f32) -> usize {
        let cell = self.0[(value.to_bits() >> 16) as usize];
        cell.bucket as usize + usize::from(value >= cell.next)
    }
}

/// A NaN or infinity among the values of a histogram.
#[derive(Debug, Clone, Copy)]
pub struct NonFinite {
    /// Its place among the values given.
    pub index: usize,
    pub value: f64,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at index {} cannot be put into a histogram",
            self.value, self.index
        )
    }
}

impl std::error::Error for NonFinite {}

/// Accumulates values. Sums are taken in `f64`, in the order of the values.
///
/// ```
/// use graph_core::format::histogram::Histogram;
///
/// let mut histogram = Histogram::new();
/// histogram.add([1.0, 1.0, 2.5])?;
/// let proto = histogram.to_proto();
/// assert_eq!((proto.num, proto.sum, proto.max), (3.0, 4.5, 2.5));
/// # Ok::<(), graph_core::format::histogram::NonFinite>(())
/// ```
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    min: f64,
    max: f64,
    sum: f64,
    sum_squares: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// A histogram of nothing.
    pub fn new() -> Self {
        Histogram {
            counts: vec![0; BUCKETS],
            min: f64::MAX,
            max: -f64::MAX,
            sum: 0.0,
            sum_squares: 0.0,
        }
    }

    /// Counts all of `values`, or stops at the first that is not finite; those before it are then counted.
    pub fn add(&mut self, values: impl IntoIterator<Item = f64>) -> Result<(), NonFinite> {
        let limits = &*LIMITS;
        for (index, value) in values.into_iter().enumerate() {
            if !value.is_finite() {
                return Err(NonFinite { index, value });
            }
            self.counts[limits.bucket(value)] += 1;
            // As comparisons, so that the first of 0.0 and -0.0 stays.
            if value < self.min {
                self.min = value;
            }
            if value > self.max {
                self.max = value;
            }
            self.sum += value;
            self.sum_squares += value * value;
        }
        Ok(())
    }

    /// The histogram of `values`, as [`Histogram::add`] makes it, in a fraction of the time.
    ///
    /// # Errors
    /// [`NonFinite`] for the first value that is no finite number.
    pub fn of_floats(values: &[f32]) -> Result<Self, NonFinite> {
        let cells = &*FLOAT_CELLS;
        let mut histogram = Self::new();
        let (mut min, mut max) = (f32::MAX, -f32::MAX);
        let (mut sum, mut sum_squares) = (0.0f64, 0.0f64);
        // Two tables by turns, since numbers of one bucket often follow each other.
        let mut counts = [[0u32; BUCKETS]; 2];
        // A count of 32 bits holds that many numbers.
        for part in values.chunks(1 << 31) {
            for (index, &value) in part.iter().enumerate() {
                counts[index & 1][cells.bucket(value)] += 1;
                min = if value < min { value } else { min };
                max = if value > max { value } else { max };
                let value = f64::from(value);
                sum += value;
                sum_squares += value * value;
            }
            for counts in &mut counts {
                for (total, count) in histogram.counts.iter_mut().zip(counts) {
                    *total += u64::from(std::mem::take(count));
                }
            }
        }
        // The squares of finite `f32` numbers do not overflow.
        if !sum_squares.is_finite()
            && let Some((index, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite())
        {
            let value = value.into();
            return Err(NonFinite { index, value });
        }
        if !values.is_empty() {
            (histogram.min, histogram.max) = (min.into(), max.into());
        }
        (histogram.sum, histogram.sum_squares) = (sum, sum_squares);
        Ok(histogram)
    }

    /// Counts all that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        if other.min < self.min {
            self.min = other.min;
        }
        if other.max > self.max {
            self.max = other.max;
        }
        self.sum += other.sum;
        self.sum_squares += other.sum_squares;
    }

    /// The message for a summary: each run of empty buckets becomes one, with the last limit of the run.
    pub fn to_proto(&self) -> HistogramProto {
        let mut proto = HistogramProto {
            min: self.min,
            max: self.max,
            num: self.counts.iter().sum::<u64>() as f64,
            sum: self.sum,
            sum_squares: self.sum_squares,
            ..Default::default()
        };
        for (bucket, &count) in self.counts.iter().enumerate() {
            let run_goes_on = count == 0 && self.counts.get(bucket + 1) == Some(&0);
            if !run_goes_on {
                proto.bucket_limit.push(LIMITS.limit(bucket));
                proto.bucket.push(count as f64);
            }
        }
        proto
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn limits() -> Vec<f64> {
        let mut positive = Vec::new();
        let mut limit = 1e-12;
        while limit < 1e20 {
            positive.push(limit);
            limit *= 1.1;
        }
        positive.push(f64::MAX);
        let negative = positive.iter().rev().map(|limit| -limit);
        negative.chain([0.0]).chain(positive.iter().copied()).collect()
    }

    fn reference_bucket(limits: &[f64], value: f64) -> usize {
        limits
            .iter()
            .position(|&limit| limit > value)
            .unwrap_or(limits.len() - 1)
    }

    fn proto(values: &[f64]) -> HistogramProto {
        let mut histogram = Histogram::new();
        histogram.add(values.iter().copied()).unwrap();
        histogram.to_proto()
    }

    fn buckets(proto: &HistogramProto) -> Vec<(f64, f64)> {
        let limits = proto.bucket_limit.iter().copied();
        limits.zip(proto.bucket.iter().copied()).collect()
    }

    #[test]
    fn limits_are_the_reference() {
        let all: Vec<f64> = (0..BUCKETS).map(|bucket| LIMITS.limit(bucket)).collect();
        assert_eq!(all, limits());
    }

    #[test]
    fn every_limit_and_its_neighbours() {
        let limits = limits();
        for &limit in &limits {
            for value in [limit, limit.next_up(), limit.next_down(), f64::from(limit as f32)] {
                if value.is_finite() {
                    assert_eq!(LIMITS.bucket(value), reference_bucket(&limits, value), "{value:e}");
                }
            }
        }
        for value in [-0.0, f64::MIN_POSITIVE, -5e-324, f64::MAX, -f64::MAX, 1e300, -1e300] {
            assert_eq!(LIMITS.bucket(value), reference_bucket(&limits, value), "{value:e}");
        }
    }

    #[test]
    fn floats_are_in_the_same_buckets() {
        let limits = limits().into_iter().map(|limit| limit as f32);
        let near = limits.flat_map(|limit| [limit, limit.next_up(), limit.next_down()]);
        let edges = [0.0, -0.0, f32::MIN_POSITIVE, 1e-45, -1e-45, f32::MAX, -f32::MAX];
        let steps = (0..u32::MAX).step_by(9_973).map(f32::from_bits);
        for value in near.chain(edges).chain(steps).filter(|value| value.is_finite()) {
            assert_eq!(FLOAT_CELLS.bucket(value), LIMITS.bucket(value.into()), "{value:e}");
        }
    }

    #[test]
    fn floats_make_the_same_histogram() {
        let values: Vec<f32> = (0..10_000).map(|i| ((i * 37 % 1001) as f32 - 500.0) * 0.013).collect();
        for part in [&values[..], &values[..1], &[]] {
            let expected = proto(&part.iter().map(|&value| value.into()).collect::<Vec<f64>>());
            assert_eq!(Histogram::of_floats(part).unwrap().to_proto(), expected);
            let (first, second) = part.split_at(part.len() / 3);
            let mut merged = Histogram::of_floats(first).unwrap();
            merged.merge(&Histogram::of_floats(second).unwrap());
            let merged = merged.to_proto();
            assert_eq!((merged.min, merged.max), (expected.min, expected.max));
            assert_eq!(buckets(&merged), buckets(&expected));
            assert!(
                (merged.sum - expected.sum).abs() <= 1e-9 && (merged.sum_squares - expected.sum_squares).abs() <= 1e-6
            );
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = Histogram::of_floats(&[1.0, bad, f32::NAN]).unwrap_err();
            assert_eq!((error.index, error.value.is_nan()), (1, bad.is_nan()));
        }
    }

    // The expected numbers below are TensorFlow's (tf.summary.histogram).

    #[test]
    fn nothing() {
        let proto = proto(&[]);
        assert_eq!((proto.min, proto.max, proto.num), (f64::MAX, -f64::MAX, 0.0));
        assert_eq!(buckets(&proto), [(f64::MAX, 0.0)]);
    }

    #[test]
    fn single_precision() {
        let proto = proto(&[0.1f32, 0.1, -0.1, 0.3].map(f64::from));
        assert_eq!(
            (proto.min, proto.max, proto.num),
            (-0.10000000149011612, 0.30000001192092896, 4.0)
        );
        assert_eq!((proto.sum, proto.sum_squares), (0.4000000134110451, 0.1200000080466272));
        let expected = [
            (-0.10243638697138786, 0.0),
            (-0.09312398815580714, 1.0),
            (0.09312398815580714, 0.0),
            (0.10243638697138786, 2.0),
            (0.29226296698161564, 0.0),
            (0.3214892636797772, 1.0),
            (f64::MAX, 0.0),
        ];
        assert_eq!(buckets(&proto), expected);
    }

    #[test]
    fn edges_and_extremes() {
        let proto = proto(&[0.0, -0.0, 1.0, -1.0, 2.5, 1e-13, -1e-12, 1e-12, 1e25, -3e30]);
        assert_eq!((proto.sum, proto.sum_squares), (-2.99999e+30, 9.000000000099999e+60));
        let expected = [
            (-f64::MAX, 0.0),
            (-9.920775621859783e+19, 1.0),
            (-1.0089710279437536, 0.0),
            (-0.917246389039776, 1.0),
            (-1e-12, 0.0),
            (0.0, 1.0),
            (1e-12, 3.0),
            (1.1000000000000002e-12, 1.0),
            (0.917246389039776, 0.0),
            (1.0089710279437536, 1.0),
            (2.379100905625872, 0.0),
            (2.6170109961884593, 1.0),
            (9.920775621859783e+19, 0.0),
            (f64::MAX, 1.0),
        ];
        assert_eq!(buckets(&proto), expected);
    }

    #[test]
    fn what_is_not_finite_is_named() {
        let mut histogram = Histogram::new();
        let error = histogram.add([1.0, f64::NEG_INFINITY, 2.0]).unwrap_err();
        assert_eq!((error.index, error.value), (1, f64::NEG_INFINITY));
        assert!(histogram.add([f64::NAN]).unwrap_err().value.is_nan());
    }

    proptest! {
        #[test]
        fn buckets_are_the_reference(values in vec(any::<u64>(), 1..50), floats in vec(any::<u32>(), 1..50)) {
            let limits = limits();
            let values = values.into_iter().map(f64::from_bits);
            let floats = floats.into_iter().map(|bits| f64::from(f32::from_bits(bits)));
            for value in values.chain(floats).filter(|x| x.is_finite()) {
                prop_assert_eq!(LIMITS.bucket(value), reference_bucket(&limits, value));
            }
        }

        #[test]
        fn counts_are_kept(values in vec(-10.0..10.0f64, 0..200)) {
            let proto = proto(&values);
            prop_assert_eq!(proto.bucket.iter().sum::<f64>(), values.len() as f64);
            prop_assert!(proto.bucket_limit.is_sorted());
            prop_assert!(!proto.bucket.windows(2).any(|pair| pair == [0.0, 0.0]));
        }
    }
}
