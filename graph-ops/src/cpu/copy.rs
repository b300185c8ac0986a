//! Copies of blocks: strided slices, padding, tiling, concatenation, gathering.
//!
//! All of them are one strided copy, [`copy_strided`], whose axes may run in any direction on either side.

use super::Short;
use super::parallel::{GRAIN, SharedMut, for_each_range};

/// One axis of a strided copy: how many elements, and their distances in the source and in the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyAxis {
    pub len: usize,
    pub from: isize,
    pub to: isize,
}

/// Row-major distances between neighbours along each axis.
pub fn strides(shape: &[usize]) -> Short<usize> {
    let mut strides = Short::from_elem(1, shape.len());
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

/// The first and last index that `axes` reach from `start`.
fn reach(start: usize, axes: &[CopyAxis], stride: impl Fn(&CopyAxis) -> isize) -> Option<(usize, usize)> {
    let (mut low, mut high) = (start as isize, start as isize);
    for axis in axes {
        let far = stride(axis).checked_mul(axis.len as isize - 1)?;
        low = low.checked_add(far.min(0))?;
        high = high.checked_add(far.max(0))?;
    }
    Some((usize::try_from(low).ok()?, usize::try_from(high).ok()?))
}

/// `out[out_start + sum of i_d * to_d] = input[in_start + sum of i_d * from_d]` for all indices of `axes`.
///
/// # Panics
/// If an index lies outside either slice, or if distinct indices could meet in `out`: axes with a `to` of zero and more than
/// one element.
pub fn copy_strided<T: Copy + Send + Sync>(
    input: &[T],
    in_start: usize,
    out: &mut [T],
    out_start: usize,
    axes: &[CopyAxis],
) {
    if axes.iter().any(|axis| axis.len == 0) {
        return;
    }
    let mut merged: Short<CopyAxis> = Short::new();
    for &axis in axes.iter().filter(|axis| axis.len != 1) {
        assert!(axis.to != 0, "a copy onto itself");
        let len = axis.len as isize;
        match merged.last_mut() {
            Some(last) if last.from == len * axis.from && last.to == len * axis.to => {
                *last = CopyAxis {
                    len: last.len * axis.len,
                    ..axis
                };
            }
            _ => merged.push(axis),
        }
    }
    let inside = |reach: Option<(usize, usize)>, len: usize| reach.is_some_and(|(_, high)| high < len);
    assert!(
        inside(reach(in_start, &merged, |a| a.from), input.len()),
        "the source lies outside"
    );
    assert!(
        inside(reach(out_start, &merged, |a| a.to), out.len()),
        "the destination lies outside"
    );
    let run = merged.pop().unwrap_or(CopyAxis { len: 1, from: 1, to: 1 });
    let rows: usize = merged.iter().map(|axis| axis.len).product();
    let shared = SharedMut::new(out);
    for_each_range(rows, GRAIN.div_ceil(run.len), |range| {
        for row in range {
            let (mut index, mut from, mut to) = (row, in_start as isize, out_start as isize);
            for axis in merged.iter().rev() {
                let i = (index % axis.len) as isize;
                index /= axis.len;
                from += i * axis.from;
                to += i * axis.to;
            }
            // SAFETY: all indices lie in the slices (asserted above); rows write to distinct places, as the contract says.
            unsafe {
                let source = input.as_ptr().offset(from);
                let target = shared.as_ptr().offset(to);
                match (run.from, run.to) {
                    (1, 1) => std::ptr::copy_nonoverlapping(source, target, run.len),
                    (0, 1) => std::slice::from_raw_parts_mut(target, run.len).fill(*source),
                    _ => (0..run.len as isize)
                        .for_each(|i| target.offset(i * run.to).write(*source.offset(i * run.from))),
                }
            }
        }
    });
}

/// `out[i] = input[begin + i * step]` along every axis; `out_shape` says how many. Steps may be negative.
pub fn strided_slice<T: Copy + Send + Sync>(
    input: &[T],
    shape: &[usize],
    begin: &[usize],
    steps: &[isize],
    out: &mut [T],
    out_shape: &[usize],
) {
    let (from, to) = (strides(shape), strides(out_shape));
    let start = begin.iter().zip(&from).map(|(b, s)| b * s).sum();
    let axes = (0..shape.len()).map(|d| CopyAxis {
        len: out_shape[d],
        from: steps[d] * from[d] as isize,
        to: to[d] as isize,
    });
    copy_strided(input, start, out, 0, &axes.collect::<Short<_>>());
}

/// The reverse of [`strided_slice`]: `out[begin + i * step] = input[i]`; other elements of `out` stay as they are.
pub fn strided_assign<T: Copy + Send + Sync>(
    input: &[T],
    in_shape: &[usize],
    begin: &[usize],
    steps: &[isize],
    out: &mut [T],
    shape: &[usize],
) {
    let (from, to) = (strides(in_shape), strides(shape));
    let start = begin.iter().zip(&to).map(|(b, s)| b * s).sum();
    let axes = (0..shape.len()).map(|d| CopyAxis {
        len: in_shape[d],
        from: from[d] as isize,
        to: steps[d] * to[d] as isize,
    });
    copy_strided(input, 0, out, start, &axes.collect::<Short<_>>());
}

/// `input` of `shape` in the middle of `out` of `out_shape`, `before[d]` elements in, `value` around it.
pub fn pad<T: Copy + Send + Sync>(
    input: &[T],
    shape: &[usize],
    before: &[usize],
    value: T,
    out: &mut [T],
    out_shape: &[usize],
) {
    super::parallel::for_each_chunk(out, GRAIN, |_, chunk| chunk.fill(value));
    strided_assign(input, shape, before, &vec![1; shape.len()], out, out_shape);
}

/// `input` of `shape` repeated `multiples[d]` times along each axis.
pub fn tile<T: Copy + Send + Sync>(input: &[T], shape: &[usize], multiples: &[usize], out: &mut [T]) {
    let whole: Short<usize> = shape.iter().zip(multiples).map(|(s, m)| s * m).collect();
    let (from, to) = (strides(shape), strides(&whole));
    let mut axes: Short<CopyAxis> = Short::new();
    for d in 0..shape.len() {
        axes.push(CopyAxis {
            len: multiples[d],
            from: 0,
            to: (shape[d] * to[d]) as isize,
        });
        axes.push(CopyAxis {
            len: shape[d],
            from: from[d] as isize,
            to: to[d] as isize,
        });
    }
    copy_strided(input, 0, out, 0, &axes);
}

/// Joins arrays along an axis: each input is `[outer, lengths[i], inner]`, `out` is `[outer, sum of lengths, inner]`.
pub fn concat<T: Copy + Send + Sync>(inputs: &[&[T]], lengths: &[usize], outer: usize, inner: usize, out: &mut [T]) {
    let row = lengths.iter().sum::<usize>() * inner;
    assert_eq!(out.len(), outer * row);
    let mut start = 0;
    for (input, &len) in inputs.iter().zip(lengths) {
        let run = len * inner;
        assert_eq!(input.len(), outer * run);
        let axes = [
            CopyAxis {
                len: outer,
                from: run as isize,
                to: row as isize,
            },
            CopyAxis {
                len: run,
                from: 1,
                to: 1,
            },
        ];
        copy_strided(input, 0, out, start, &axes);
        start += run;
    }
}

/// Picks along an axis: `input` is `[outer, len, inner]`, `out` is `[outer, indices, inner]`. `Err` is the position of the
/// first index that is not in `0..len`; nothing is written then.
pub fn gather<T: Copy + Send + Sync, I: Copy + Sync + TryInto<usize>>(
    input: &[T],
    [outer, len, inner]: [usize; 3],
    indices: &[I],
    out: &mut [T],
) -> Result<(), usize> {
    assert_eq!(input.len(), outer * len * inner);
    assert_eq!(out.len(), outer * indices.len() * inner);
    let index = |i: I| i.try_into().ok().filter(|&i| i < len);
    if let Some(bad) = indices.iter().position(|&i| index(i).is_none()) {
        return Err(bad);
    }
    if out.is_empty() {
        return Ok(());
    }
    super::parallel::for_each_chunk(out, GRAIN.div_ceil(inner) * inner, |start, chunk| {
        for (r, out) in chunk.chunks_mut(inner).enumerate() {
            let row = start / inner + r;
            let i = index(indices[row % indices.len()]).unwrap_or(0);
            let from = (row / indices.len() * len + i) * inner;
            out.copy_from_slice(&input[from..from + inner]);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::same_on_any_pool;

    fn count(len: usize) -> Vec<i32> {
        (0..len as i32).collect()
    }

    #[test]
    fn slices_step_in_both_directions() {
        let input = count(4 * 5 * 6);
        let mut out = vec![0; 2 * 3 * 3];
        strided_slice(&input, &[4, 5, 6], &[3, 0, 1], &[-2, 2, 2], &mut out, &[2, 3, 3]);
        let mut expected = Vec::new();
        for i in [3, 1] {
            for j in [0, 2, 4] {
                expected.extend([1, 3, 5].map(|k| i * 30 + j * 6 + k));
            }
        }
        assert_eq!(out, expected);
        let mut back = vec![-1; input.len()];
        strided_assign(&out, &[2, 3, 3], &[3, 0, 1], &[-2, 2, 2], &mut back, &[4, 5, 6]);
        assert!(
            back.iter()
                .enumerate()
                .all(|(i, &x)| x == if expected.contains(&(i as i32)) { i as i32 } else { -1 })
        );
        strided_slice(&input, &[4, 5, 6], &[4, 0, 0], &[1, 1, 1], &mut [], &[0, 5, 6]);
        let mut scalar = [0];
        strided_slice(&[7], &[], &[], &[], &mut scalar, &[]);
        assert_eq!(scalar, [7]);
    }

    #[test]
    fn padding_and_tiling() {
        let mut out = vec![9; 4 * 5];
        pad(&count(6), &[2, 3], &[1, 2], -1, &mut out, &[4, 5]);
        assert_eq!(out[..10], [-1, -1, -1, -1, -1, -1, -1, 0, 1, 2]);
        assert_eq!(out[10..], [-1, -1, 3, 4, 5, -1, -1, -1, -1, -1]);
        let mut out = vec![0; 24];
        tile(&count(6), &[2, 3], &[2, 2], &mut out);
        assert_eq!(out[..12], [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
        assert_eq!(out[..12], out[12..]);
        let big = same_on_any_pool(|| {
            let mut out = vec![0; 300 * 700 * 2];
            tile(&count(700), &[1, 700], &[300, 2], &mut out);
            out
        });
        assert!(big.iter().enumerate().all(|(i, &x)| x as usize == i % 700));
    }

    #[test]
    fn joining_and_picking() {
        let (a, b) = (count(12), count(6));
        let mut out = vec![0; 18];
        concat(&[&a, &b], &[2, 1], 2, 3, &mut out);
        assert_eq!(out, [0, 1, 2, 3, 4, 5, 0, 1, 2, 6, 7, 8, 9, 10, 11, 3, 4, 5]);
        let mut out = vec![0; 12];
        assert_eq!(gather(&a, [2, 3, 2], &[2i64, 0, 2], &mut out), Ok(()));
        assert_eq!(out, [4, 5, 0, 1, 4, 5, 10, 11, 6, 7, 10, 11]);
        assert_eq!(gather(&a, [2, 3, 2], &[2i32, -1, 3], &mut out), Err(1));
    }
}
