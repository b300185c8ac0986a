//! When two values count as the same.

use graph_core::{Complex, DType, Value};
use half::{bf16, f16};

/// How far apart numbers may be: `|got - expected| <= absolute + relative * |expected|`, as NumPy's `allclose` has it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tolerance {
    /// Relative to the expected number.
    pub relative: f64,
    /// The same for all numbers.
    pub absolute: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            relative: 1e-4,
            absolute: 1e-5,
        }
    }
}

impl Tolerance {
    /// What `half` and `bfloat16`, with 11 and 8 bits of precision, are compared at.
    const SHORT: f64 = 1e-2;

    /// The tolerance for elements of a dtype: at least [`Tolerance::SHORT`] for the short floating-point types.
    fn of(self, dtype: DType) -> Self {
        match dtype {
            DType::Half | DType::BFloat16 => Self {
                relative: self.relative.max(Self::SHORT),
                absolute: self.absolute.max(Self::SHORT),
            },
            _ => self,
        }
    }

    fn admits(self, got: f64, expected: f64) -> bool {
        // Infinities are equal to themselves only: their distance is not a number.
        got == expected
            || (got.is_nan() && expected.is_nan())
            || (got - expected).abs() <= self.absolute + self.relative * expected.abs() && expected.is_finite()
    }

    /// Distance in the plane, or part by part where one of the parts is not finite.
    fn admits_complex(self, got: Complex<f64>, expected: Complex<f64>) -> bool {
        let finite = [got.re, got.im, expected.re, expected.im]
            .iter()
            .all(|part| part.is_finite());
        if finite {
            let distance = (got.re - expected.re).hypot(got.im - expected.im);
            return distance <= self.absolute + self.relative * expected.re.hypot(expected.im);
        }
        self.admits(got.re, expected.re) && self.admits(got.im, expected.im)
    }
}

/// Where and how two values differ.
#[derive(Clone, PartialEq, Debug)]
pub struct Mismatch {
    /// The first element that differs; none where dtypes or shapes do.
    pub index: Option<Vec<usize>>,
    /// What there is: an element, a dtype or a shape.
    pub got: String,
    /// What there should be.
    pub expected: String,
    /// How many elements differ.
    pub count: usize,
}

/// The first difference of `got` from `expected`, if any. Dtypes and shapes must be equal, and so must integers, booleans and
/// strings; NaN equals NaN.
pub fn compare(got: &Value, expected: &Value, tolerance: Tolerance) -> Option<Mismatch> {
    if got.dtype() != expected.dtype() || got.shape() != expected.shape() {
        let describe = |value: &Value| format!("{} {}", value.dtype(), value.shape());
        return Some(Mismatch {
            index: None,
            got: describe(got),
            expected: describe(expected),
            count: got.num_elements().max(expected.num_elements()),
        });
    }
    let tolerance = tolerance.of(got.dtype());
    macro_rules! pairs {
        ($type:ty, $differs:expr) => {{
            let (a, b) = (got.as_slice::<$type>().ok()?, expected.as_slice::<$type>().ok()?);
            differing(a, b, $differs)
        }};
    }
    macro_rules! floats {
        ($type:ty, $widen:expr) => {
            pairs!($type, |a: &$type, b: &$type| !tolerance
                .admits($widen(*a), $widen(*b)))
        };
    }
    let wide = |x: Complex<f32>| Complex::new(f64::from(x.re), f64::from(x.im));
    let different: Vec<usize> = match got.dtype() {
        DType::Float32 => floats!(f32, f64::from),
        DType::Float64 => floats!(f64, f64::from),
        DType::Half => floats!(f16, f16::to_f64),
        DType::BFloat16 => floats!(bf16, bf16::to_f64),
        DType::Complex64 => pairs!(Complex<f32>, |a, b| !tolerance.admits_complex(wide(*a), wide(*b))),
        DType::Complex128 => pairs!(Complex<f64>, |a, b| !tolerance.admits_complex(*a, *b)),
        DType::String => {
            let (a, b) = (got.as_strings().ok()?, expected.as_strings().ok()?);
            // NumPy cannot hold zero bytes at the end of a string.
            differing(a, b, |a: &Vec<u8>, b: &Vec<u8>| unfilled(a) != unfilled(b))
        }
        dtype => {
            let size = dtype.size()?;
            let (a, b) = (got.bytes().chunks_exact(size), expected.bytes().chunks_exact(size));
            let pairs = a.zip(b).enumerate();
            pairs.filter(|(_, (a, b))| a != b).map(|(index, _)| index).collect()
        }
    };
    let &first = different.first()?;
    let element = |value: &Value| {
        let mut text = String::new();
        match value.fmt_element(first, &mut text) {
            Ok(()) => text,
            Err(_) => "?".to_owned(),
        }
    };
    Some(Mismatch {
        index: Some(unravel(first, got.shape())),
        got: element(got),
        expected: element(expected),
        count: different.len(),
    })
}

fn differing<T>(a: &[T], b: &[T], differs: impl Fn(&T, &T) -> bool) -> Vec<usize> {
    let pairs = a.iter().zip(b).enumerate();
    pairs
        .filter(|(_, (a, b))| differs(a, b))
        .map(|(index, _)| index)
        .collect()
}

fn unfilled(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &bytes[..end]
}

/// The index along each dimension of the element at `flat`.
fn unravel(flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut rest = flat;
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&dim| {
            let here = rest % dim;
            rest /= dim;
            here
        })
        .collect();
    index.reverse();
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differs(got: impl Into<Value>, expected: impl Into<Value>) -> Option<Mismatch> {
        compare(&got.into(), &expected.into(), Tolerance::default())
    }

    #[test]
    fn numbers_are_compared_within_the_tolerance() {
        assert_eq!(differs(1.0001f32, 1.0f32), None);
        assert!(differs(1.0002f32, 1.0f32).is_some());
        assert_eq!(differs(1e-5f64, 0.0f64), None);
        assert!(differs(2e-5f64, 0.0f64).is_some());
        let mismatch = differs([[1.0f32, 2.0], [3.0, 5.0]], [[1.0f32, 2.0], [4.0, 4.0]]).unwrap();
        assert_eq!(mismatch.index, Some(vec![1, 0]));
        assert_eq!(
            (mismatch.got.as_str(), mismatch.expected.as_str(), mismatch.count),
            ("3", "4", 2)
        );
    }

    #[test]
    fn what_is_not_finite_equals_itself_only() {
        assert_eq!(differs([f32::NAN, f32::INFINITY], [f32::NAN, f32::INFINITY]), None);
        assert!(differs(f32::NAN, 1.0f32).is_some());
        assert!(differs(1.0f32, f32::NAN).is_some());
        assert!(differs(f32::INFINITY, f32::NEG_INFINITY).is_some());
        assert!(differs(1e30f32, f32::INFINITY).is_some());
        assert!(differs(f32::INFINITY, 1e30f32).is_some());
    }

    #[test]
    fn short_floats_are_compared_at_a_hundredth() {
        assert_eq!(differs(f16::from_f32(1.01), f16::from_f32(1.0)), None);
        assert_eq!(differs(bf16::from_f32(1.015), bf16::from_f32(1.0)), None);
        assert!(differs(f16::from_f32(1.03), f16::from_f32(1.0)).is_some());
    }

    #[test]
    fn integers_booleans_and_strings_must_be_equal() {
        assert!(differs(1_000_001i32, 1_000_000i32).is_some());
        assert!(differs(true, false).is_some());
        assert_eq!(differs(Value::string("a\0"), Value::string("a")), None);
        assert!(differs(Value::string("a"), Value::string("b")).is_some());
    }

    #[test]
    fn complex_numbers_are_compared_by_their_distance() {
        let c = Complex::<f64>::new;
        assert_eq!(differs(Complex::new(1e4f32, 0.5), Complex::new(1e4f32, 0.0)), None);
        assert!(differs(c(1.0, 1e-3), c(1.0, 0.0)).is_some());
        assert_eq!(differs(c(f64::NAN, 1.0), c(f64::NAN, 1.0)), None);
        assert!(differs(c(f64::INFINITY, 1.0), c(f64::INFINITY, 2.0)).is_some());
    }

    #[test]
    fn dtypes_and_shapes_must_be_equal() {
        let mismatch = differs([1.0f32], [1.0f64]).unwrap();
        assert_eq!(
            (mismatch.got.as_str(), mismatch.expected.as_str()),
            ("float [1]", "double [1]")
        );
        assert!(differs([1.0f32], [[1.0f32]]).is_some());
        assert_eq!(differs(Vec::<f32>::new(), Vec::<f32>::new()), None);
    }
}
