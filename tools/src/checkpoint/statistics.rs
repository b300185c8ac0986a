//! What the numbers of a tensor are like.

use graph_core::format::proto::DataType;
use half::{bf16, f16};
use serde::Serialize;

/// Least, greatest, mean and standard deviation of the numbers that are not NaN; none of an empty tensor.
#[derive(Debug, Serialize, PartialEq)]
pub struct Statistics {
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub mean: Option<f64>,
    pub std: Option<f64>,
    pub nan: u64,
    pub infinite: u64,
    pub zeros: u64,
}

impl Statistics {
    /// Of the little-endian bytes of a tensor; none for a dtype whose elements are no real numbers.
    pub fn new(dtype: DataType, bytes: &[u8]) -> Option<Self> {
        macro_rules! of {
            ($type:ty, $convert:expr) => {
                Some(Self::of(
                    bytes
                        .as_chunks::<{ size_of::<$type>() }>()
                        .0
                        .iter()
                        .map(|&bytes| ($convert)(<$type>::from_le_bytes(bytes))),
                ))
            };
        }
        match dtype {
            DataType::DtFloat => of!(f32, f64::from),
            DataType::DtDouble => of!(f64, |x| x),
            DataType::DtHalf => of!(u16, |bits| f16::from_bits(bits).to_f64()),
            DataType::DtBfloat16 => of!(u16, |bits| bf16::from_bits(bits).to_f64()),
            DataType::DtInt8 | DataType::DtQint8 => of!(i8, f64::from),
            DataType::DtUint8 | DataType::DtQuint8 | DataType::DtBool => of!(u8, f64::from),
            DataType::DtInt16 | DataType::DtQint16 => of!(i16, f64::from),
            DataType::DtUint16 | DataType::DtQuint16 => of!(u16, f64::from),
            DataType::DtInt32 | DataType::DtQint32 => of!(i32, f64::from),
            DataType::DtUint32 => of!(u32, f64::from),
            DataType::DtInt64 => of!(i64, |x| x as f64),
            DataType::DtUint64 => of!(u64, |x| x as f64),
            _ => None,
        }
    }

    fn of(numbers: impl Iterator<Item = f64> + Clone) -> Self {
        let (mut nan, mut infinite, mut zeros, mut count) = (0, 0, 0, 0u64);
        let (mut min, mut max, mut sum) = (f64::INFINITY, f64::NEG_INFINITY, 0.0);
        for x in numbers.clone() {
            if x.is_nan() {
                nan += 1;
                continue;
            }
            infinite += u64::from(x.is_infinite());
            zeros += u64::from(x == 0.0);
            count += 1;
            (min, max, sum) = (x.min(min), x.max(max), sum + x);
        }
        let mean = sum / count as f64;
        let squares: f64 = numbers.filter(|x| !x.is_nan()).map(|x| (x - mean) * (x - mean)).sum();
        let some = |x: f64| (count > 0).then_some(x);
        Self {
            min: some(min),
            max: some(max),
            mean: some(mean),
            std: some((squares / count as f64).sqrt()),
            nan,
            infinite,
            zeros,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_leave_nan_out() {
        let numbers = [1.0f32, f32::NAN, 3.0, 0.0, 4.0];
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let statistics = Statistics::new(DataType::DtFloat, &bytes).unwrap();
        assert_eq!(
            (statistics.min, statistics.max, statistics.mean),
            (Some(0.0), Some(4.0), Some(2.0))
        );
        assert_eq!(
            (statistics.std, statistics.nan, statistics.zeros),
            (Some(2.5f64.sqrt()), 1, 1)
        );
        assert_eq!(statistics.infinite, 0);
    }

    #[test]
    fn every_width_is_read() {
        let bits = f16::from_f32(-0.5).to_bits().to_le_bytes();
        assert_eq!(Statistics::new(DataType::DtHalf, &bits).unwrap().min, Some(-0.5));
        let bits = bf16::from_f32(2.5).to_bits().to_le_bytes();
        assert_eq!(Statistics::new(DataType::DtBfloat16, &bits).unwrap().max, Some(2.5));
        assert_eq!(
            Statistics::new(DataType::DtInt64, &(-3i64).to_le_bytes()).unwrap().mean,
            Some(-3.0)
        );
        assert_eq!(Statistics::new(DataType::DtBool, &[1, 0]).unwrap().mean, Some(0.5));
        assert_eq!(Statistics::new(DataType::DtComplex64, &[0; 8]), None);
        assert_eq!(Statistics::new(DataType::DtFloat, &[]).unwrap().mean, None);
    }
}
