//! Adding a vector to the channels of images.

use super::parallel::{GRAIN, SharedMut, for_each_range};
use super::simd::multiversion;

/// Elements over which a short vector is repeated, so that the inner loop is long.
const PATTERN: usize = 512;

/// `out[i] = f(value[i], bias[i / inner % bias.len()])`: with `inner` 1, the last axis is the channels'.
///
/// # Safety
/// `value` and `out` are valid for `len` elements, of which whole multiples make up `bias.len() * inner`, and are either the
/// same memory or do not overlap; nothing else touches `out` during the call.
pub unsafe fn add_channels<T: Copy + Default + Send + Sync>(
    value: *const T,
    bias: &[T],
    out: *mut T,
    len: usize,
    inner: usize,
    f: impl Fn(T, T) -> T + Sync + Send + Copy,
) {
    if len == 0 {
        return;
    }
    let (value, out) = (SharedMut::from_ptr(value.cast_mut()), SharedMut::from_ptr(out));
    if inner == 1 {
        let repeats = (PATTERN / bias.len()).max(1);
        let pattern = bias.repeat(repeats);
        let grain = GRAIN.next_multiple_of(pattern.len());
        for_each_range(len, grain, |range| {
            // SAFETY: ranges begin at multiples of the pattern, lie in `0..len` and are disjoint.
            let (value, out) = unsafe { (value.as_ptr().add(range.start), out.as_ptr().add(range.start)) };
            add_pattern(value, &pattern, out, range.len(), f);
        });
    } else {
        for_each_range(len / inner, (GRAIN / inner).max(1), |rows| {
            for row in rows {
                let bias = [bias[row % bias.len()]; 64];
                // SAFETY: rows lie in `0..len` and are disjoint.
                let (value, out) = unsafe { (value.as_ptr().add(row * inner), out.as_ptr().add(row * inner)) };
                add_pattern(value, &bias, out, inner, f);
            }
        });
    }
}

multiversion! {
    /// Adds a pattern again and again; `value` and `out` are as [`add_channels`] says.
    fn add_pattern[T: Copy, F: Fn(T, T) -> T](value: *const T, pattern: &[T], out: *mut T, len: usize, f: F) {
        for start in (0..len).step_by(pattern.len()) {
            for (i, &bias) in pattern[..pattern.len().min(len - start)].iter().enumerate() {
                // SAFETY: `start + i < len`, for which the pointers are valid; each element is read before it is written.
                unsafe { *out.add(start + i) = f(*value.add(start + i), bias) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_get_their_own_bias() {
        for (channels, inner, outer) in [
            (3, 1, 5),
            (20, 1, 4000),
            (700, 1, 3),
            (3, 7, 2),
            (2, 100, 700),
            (4, 1, 0),
        ] {
            let bias: Vec<f32> = (0..channels).map(|c| c as f32 + 0.5).collect();
            let value: Vec<f32> = (0..channels * inner * outer).map(|i| i as f32).collect();
            let mut out = vec![f32::NAN; value.len()];
            // SAFETY: both slices have this length.
            unsafe {
                add_channels(value.as_ptr(), &bias, out.as_mut_ptr(), value.len(), inner, |x, b| {
                    x + b
                })
            };
            for (i, (out, value)) in out.iter().zip(&value).enumerate() {
                assert_eq!(*out, value + bias[i / inner % channels]);
            }
        }
    }
}
