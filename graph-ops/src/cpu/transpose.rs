//! Permuting the axes of an array.
//!
//! Axes of length one are dropped and axes that stay neighbours are merged first. What is left is copied in runs where the
//! last axis stays last, and otherwise in square blocks, so that both sides are used a cache line at a time.

use super::parallel::{GRAIN, SharedMut, for_each_range};

/// Side of a block of a two-dimensional transpose, in elements.
const SIDE: usize = 16;

/// `out[..., i_p(0), i_p(1), ...] = input[i_0, i_1, ...]`: axis `d` of `out` is axis `permutation[d]` of `input`.
///
/// # Panics
/// If `permutation` is none of `0..shape.len()`, or a length does not match the shape.
pub fn transpose<T: Copy + Send + Sync>(input: &[T], shape: &[usize], permutation: &[usize], out: &mut [T]) {
    let len: usize = shape.iter().product();
    assert!(input.len() == len && out.len() == len && permutation.len() == shape.len());
    assert!(
        (0..shape.len()).all(|axis| permutation.contains(&axis)),
        "not a permutation: {permutation:?}"
    );
    if len == 0 {
        return;
    }
    let axes = merged(shape, permutation);
    match axes.last() {
        None => out.copy_from_slice(input),
        Some(&(run, 1)) => runs(input, &axes[..axes.len() - 1], run, out),
        Some(_) => blocks(input, &axes, out),
    }
}

/// The output's axes as (length, distance in the input), neighbours merged.
fn merged(shape: &[usize], permutation: &[usize]) -> Vec<(usize, usize)> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let mut axes: Vec<(usize, usize)> = Vec::with_capacity(shape.len());
    for (len, stride) in permutation
        .iter()
        .map(|&axis| (shape[axis], strides[axis]))
        .filter(|a| a.0 != 1)
    {
        match axes.last_mut() {
            Some(last) if last.1 == len * stride => *last = (last.0 * len, stride),
            _ => axes.push((len, stride)),
        }
    }
    axes
}

/// Where index `at` over `axes` (row-major) lies in the input.
fn offset(axes: &[(usize, usize)], mut at: usize) -> usize {
    let mut offset = 0;
    for &(len, stride) in axes.iter().rev() {
        offset += at % len * stride;
        at /= len;
    }
    offset
}

/// Copies contiguous runs of `run` elements.
fn runs<T: Copy + Send + Sync>(input: &[T], outer: &[(usize, usize)], run: usize, out: &mut [T]) {
    super::parallel::for_each_chunk(out, GRAIN.div_ceil(run) * run, |start, chunk| {
        for (i, out) in chunk.chunks_mut(run).enumerate() {
            let from = offset(outer, start / run + i);
            out.copy_from_slice(&input[from..from + run]);
        }
    });
}

/// How squares of elements that fill as many vectors of 16 bytes are turned in registers: by a perfect shuffle of all of them
/// for each halving of the side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tile {
    Bytes,
    Pairs,
    Words,
    Longs,
}

impl Tile {
    /// For elements of `T`, on a CPU that has such vectors in any case.
    #[inline(always)]
    const fn of<T>() -> Option<Self> {
        if cfg!(not(target_arch = "x86_64")) {
            return None;
        }
        match size_of::<T>() {
            1 => Some(Self::Bytes),
            2 => Some(Self::Pairs),
            4 => Some(Self::Words),
            8 => Some(Self::Longs),
            _ => None,
        }
    }
}

/// Transposes a block of [`SIDE`] rows and columns; the strides are those of rows.
///
/// # Safety
/// The blocks lie in memory that is valid for reads and for writes, and there is a [`Tile`] for `T`.
#[inline(always)]
unsafe fn turn_block<T: Copy>(from: *const T, from_stride: usize, to: *mut T, to_stride: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;

        macro_rules! tiles {
            ($side:literal, $low:ident, $high:ident) => {
                for row in (0..SIDE).step_by($side) {
                    for column in (0..SIDE).step_by($side) {
                        // SAFETY: the tile lies in the block (the caller's promise); every x86-64 CPU has SSE2.
                        unsafe {
                            let mut rows: [__m128i; $side] = std::array::from_fn(|i| {
                                _mm_loadu_si128(from.add((row + i) * from_stride + column).cast())
                            });
                            let mut side = $side;
                            while side > 1 {
                                rows = std::array::from_fn(|i| {
                                    let (a, b) = (rows[i / 2], rows[i / 2 + $side / 2]);
                                    if i % 2 == 0 { $low(a, b) } else { $high(a, b) }
                                });
                                side /= 2;
                            }
                            for (i, &turned) in rows.iter().enumerate() {
                                _mm_storeu_si128(to.add((column + i) * to_stride + row).cast(), turned);
                            }
                        }
                    }
                }
            };
        }
        match Tile::of::<T>() {
            Some(Tile::Bytes) => tiles!(16, _mm_unpacklo_epi8, _mm_unpackhi_epi8),
            Some(Tile::Pairs) => tiles!(8, _mm_unpacklo_epi16, _mm_unpackhi_epi16),
            Some(Tile::Words) => tiles!(4, _mm_unpacklo_epi32, _mm_unpackhi_epi32),
            Some(Tile::Longs) => tiles!(2, _mm_unpacklo_epi64, _mm_unpackhi_epi64),
            None => {}
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, from_stride, to, to_stride);
}

/// Transposes planes of the output's last axis and the axis that is contiguous in the input.
fn blocks<T: Copy + Send + Sync>(input: &[T], axes: &[(usize, usize)], out: &mut [T]) {
    let last = axes.len() - 1;
    let (columns, column_stride) = axes[last];
    let row_axis = axes.iter().position(|&(_, stride)| stride == 1).unwrap_or(last - 1);
    let rows = axes[row_axis].0;
    let row_distance: usize = axes[row_axis + 1..].iter().map(|a| a.0).product();
    // The planes: all other axes, with distances in the input and in the output.
    let mut planes = Vec::with_capacity(last);
    let mut out_stride = 1;
    for (d, &(len, stride)) in axes.iter().enumerate().rev() {
        if d != last && d != row_axis {
            planes.push((len, stride, out_stride));
        }
        out_stride *= len;
    }
    let plane_count: usize = planes.iter().map(|p| p.0).product();
    let strips = rows.div_ceil(SIDE);
    let shared = SharedMut::new(out);
    for_each_range(plane_count * strips, GRAIN.div_ceil(SIDE * columns), |range| {
        for at in range {
            let (mut plane, row) = (at / strips, at % strips * SIDE);
            let (mut from, mut to) = (row, row * row_distance);
            for &(len, in_stride, out_stride) in &planes {
                from += plane % len * in_stride;
                to += plane % len * out_stride;
                plane /= len;
            }
            let height = SIDE.min(rows - row);
            for column in (0..columns).step_by(SIDE) {
                let width = SIDE.min(columns - column);
                let source = &input[from + column * column_stride..];
                if height == SIDE && width == SIDE && Tile::of::<T>().is_some() {
                    // SAFETY: this task alone writes these rows of this plane; the block lies in both arrays.
                    unsafe {
                        let target = shared.as_ptr().add(to + column);
                        turn_block(source.as_ptr(), column_stride, target, row_distance);
                    }
                    continue;
                }
                for r in 0..height {
                    // SAFETY: as above.
                    let line = unsafe {
                        let start = to + r * row_distance + column;
                        shared.slice(start..start + width)
                    };
                    for (c, x) in line.iter_mut().enumerate() {
                        // SAFETY: the element (row + r, column + c) of the plane lies in the input.
                        *x = unsafe { *source.get_unchecked(c * column_stride + r) };
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::same_on_any_pool;

    /// The transpose of the elements `of` their places.
    fn turned<T: Copy + Send + Sync + PartialEq + std::fmt::Debug>(
        len: usize,
        shape: &[usize],
        permutation: &[usize],
        of: impl Fn(usize) -> T,
    ) -> Vec<T> {
        let input: Vec<T> = (0..len).map(of).collect();
        same_on_any_pool(|| {
            let mut out = input.clone();
            transpose(&input, shape, permutation, &mut out);
            out
        })
    }

    #[test]
    fn every_element_goes_where_the_permutation_says() {
        for (shape, permutation) in [
            (vec![], vec![]),
            (vec![5], vec![0]),
            (vec![3, 4], vec![1, 0]),
            (vec![301, 407], vec![1, 0]),
            (vec![2, 3, 4], vec![2, 0, 1]),
            (vec![20, 30, 40], vec![0, 2, 1]),
            (vec![20, 30, 40], vec![1, 0, 2]),
            (vec![20, 30, 40], vec![2, 1, 0]),
            (vec![2, 1, 3, 17, 5], vec![3, 1, 4, 0, 2]),
            (vec![4, 28, 28, 3], vec![0, 3, 1, 2]),
            (vec![4, 3, 28, 28], vec![0, 2, 3, 1]),
            (vec![3, 0, 2], vec![2, 1, 0]),
            (vec![40000, 2], vec![1, 0]),
            (vec![2, 40000], vec![1, 0]),
        ] {
            let len = shape.iter().product::<usize>();
            let mut strides = vec![1; shape.len()];
            (1..shape.len())
                .rev()
                .for_each(|d| strides[d - 1] = strides[d] * shape[d]);
            let axes: Vec<_> = permutation.iter().map(|&p| (shape[p], strides[p])).collect();
            let check = |turned: &dyn Fn(usize, usize) -> bool| {
                assert!(
                    (0..len).all(|at| turned(at, offset(&axes, at))),
                    "{shape:?} {permutation:?}"
                );
            };
            let out = turned(len, &shape, &permutation, |at| at as u32);
            check(&|at, from| out[at] == from as u32);
            let out = turned(len, &shape, &permutation, |at| (at * 7 % 251) as u8);
            check(&|at, from| out[at] == (from * 7 % 251) as u8);
            let out = turned(len, &shape, &permutation, |at| (at * 7 % 65_521) as u16);
            check(&|at, from| out[at] == (from * 7 % 65_521) as u16);
            let out = turned(len, &shape, &permutation, |at| at as f64);
            check(&|at, from| out[at] == from as f64);
            let out = turned(len, &shape, &permutation, |at| [at as u64; 2]);
            check(&|at, from| out[at] == [from as u64; 2]);
        }
    }
}
