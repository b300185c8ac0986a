//! Element-wise maps: unary, and binary with NumPy's and TensorFlow's broadcasting.
//!
//! Shapes are aligned at their last axes; an axis of length one is repeated. Axes that behave alike in both operands are
//! merged first, so that what is left is few long loops: same shapes, a scalar, a row or a column are one or two axes.
//! Each output element is computed alone, so results do not depend on how the work is cut.

use super::Short;
use super::parallel::{GRAIN, SharedMut, for_each_range};
use super::simd::multiversion;

/// The shape two shapes broadcast to, or `None` where they do not.
pub fn broadcast_shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], d: usize| (d + shape.len()).checked_sub(rank).map_or(1, |d| shape[d]);
    (0..rank)
        .map(|d| match (at(a, d), at(b, d)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// One merged axis: its length, and whether each operand runs along it (or is repeated).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    len: usize,
    a: bool,
    b: bool,
}

/// The axes of the output without those of length one, neighbours of one kind merged.
fn merged(a: &[usize], b: &[usize], out: &[usize]) -> Short<Axis> {
    let at = |shape: &[usize], d: usize| (d + shape.len()).checked_sub(out.len()).map_or(1, |d| shape[d]);
    let mut axes: Short<Axis> = Short::new();
    for (d, &len) in out.iter().enumerate().filter(|x| *x.1 != 1) {
        let (in_a, in_b) = (at(a, d), at(b, d));
        assert!(
            (in_a == len || in_a == 1) && (in_b == len || in_b == 1),
            "{a:?} and {b:?} do not broadcast to {out:?}"
        );
        let axis = Axis {
            len,
            a: in_a == len,
            b: in_b == len,
        };
        match axes.last_mut() {
            Some(last) if (last.a, last.b) == (axis.a, axis.b) => last.len *= len,
            _ => axes.push(axis),
        }
    }
    axes
}

/// `out[i] = f(a[i], b[i])` with both operands broadcast to `out_shape`.
///
/// # Panics
/// If the shapes do not broadcast to `out_shape`, or a length does not match its shape.
pub fn broadcast_binary<A: Copy + Sync, B: Copy + Sync, O: Send>(
    a: &[A],
    a_shape: &[usize],
    b: &[B],
    b_shape: &[usize],
    out: &mut [O],
    out_shape: &[usize],
    f: impl Fn(A, B) -> O + Sync + Send,
) {
    assert_eq!(a.len(), a_shape.iter().product::<usize>(), "left operand");
    assert_eq!(b.len(), b_shape.iter().product::<usize>(), "right operand");
    assert_eq!(out.len(), out_shape.iter().product::<usize>(), "output");
    // SAFETY: the lengths match, and the borrows say that `out` overlaps neither operand.
    unsafe { broadcast_binary_ptr(a.as_ptr(), a_shape, b.as_ptr(), b_shape, out.as_mut_ptr(), out_shape, f) }
}

/// [`broadcast_binary`] on pointers, for computing in place.
///
/// # Safety
/// `a`, `b` and `out` are valid for the elements of their shapes. `out` may begin exactly where an operand begins if that
/// operand has the output's number of elements and its element type the same size; otherwise they must not overlap. Nothing
/// else reads or writes `out` during the call.
pub unsafe fn broadcast_binary_ptr<A: Copy, B: Copy, O>(
    a: *const A,
    a_shape: &[usize],
    b: *const B,
    b_shape: &[usize],
    out: *mut O,
    out_shape: &[usize],
    f: impl Fn(A, B) -> O + Sync + Send,
) {
    let len: usize = out_shape.iter().product();
    if len == 1 && a_shape.iter().chain(b_shape).all(|&len| len == 1) {
        // SAFETY: each is valid for its one element; both are read before the output is written.
        unsafe { out.write(f(*a, *b)) };
        return;
    }
    let axes = merged(a_shape, b_shape, out_shape);
    if len == 0 {
        return;
    }
    let inner = axes.last().copied().unwrap_or(Axis {
        len: 1,
        a: true,
        b: true,
    });
    let outer = &axes[..axes.len().saturating_sub(1)];
    let (a, b, out) = (Shared(a), Shared(b), Out(out));
    let f = &f;
    // Tasks are pieces of rows when rows are long, else groups of whole rows.
    let pieces = inner.len.div_ceil(GRAIN);
    let rows = len / inner.len;
    let grain = (GRAIN / inner.len).max(1);
    for_each_range(rows * pieces, if pieces > 1 { 1 } else { grain }, move |range| {
        let (a, b, out) = (a, b, out);
        // The range is of this task alone; the rest is the caller's promise.
        pieces_of_rows(
            Pieces {
                a: a.0,
                b: b.0,
                out: out.0,
                outer,
                inner,
                pieces,
                range,
            },
            f,
        );
    });
}

struct Shared<T>(*const T);
impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<T> {}
// SAFETY: only a pointer; accesses are justified where they are made.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

struct Out<T>(*mut T);
impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}
// SAFETY: only a pointer; accesses are justified where they are made.
unsafe impl<T> Send for Out<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Out<T> {}

/// A task: pieces of rows (all axes but the last), each of at most [`GRAIN`] elements. Whoever makes one promises what
/// [`broadcast_binary_ptr`] asks for.
struct Pieces<'a, A, B, O> {
    a: *const A,
    b: *const B,
    out: *mut O,
    outer: &'a [Axis],
    inner: Axis,
    /// Pieces that each row is cut into.
    pieces: usize,
    range: std::ops::Range<usize>,
}

/// Where a row begins in the operands.
fn row_offsets(outer: &[Axis], inner: Axis, mut index: usize) -> (usize, usize) {
    let (mut a, mut b) = (0, 0);
    let mut a_stride = if inner.a { inner.len } else { 1 };
    let mut b_stride = if inner.b { inner.len } else { 1 };
    for axis in outer.iter().rev() {
        let i = index % axis.len;
        index /= axis.len;
        if axis.a {
            a += i * a_stride;
            a_stride *= axis.len;
        }
        if axis.b {
            b += i * b_stride;
            b_stride *= axis.len;
        }
    }
    (a, b)
}

multiversion! {
    fn pieces_of_rows[A: Copy, B: Copy, O, F: Fn(A, B) -> O](task: Pieces<'_, A, B, O>, f: &F) {
        let Pieces { a, b, out, outer, inner, pieces, range } = task;
        // Along the last outer axis offsets grow by a step; only at its end they are worked out anew.
        let last = outer.last().copied().unwrap_or(Axis { len: 1, a: false, b: false });
        let a_step = if !last.a { 0 } else if inner.a { inner.len } else { 1 };
        let b_step = if !last.b { 0 } else if inner.b { inner.len } else { 1 };
        let mut row = range.start / pieces;
        let mut left = last.len - row % last.len;
        let (mut a_at, mut b_at) = row_offsets(outer, inner, row);
        for at in range {
            if at / pieces != row {
                row += 1;
                left -= 1;
                if left == 0 {
                    left = last.len;
                    (a_at, b_at) = row_offsets(outer, inner, row);
                } else {
                    a_at += a_step;
                    b_at += b_step;
                }
            }
            let start = at % pieces * GRAIN;
            let count = GRAIN.min(inner.len - start);
            // SAFETY: the offsets lie in the operands, the piece in the output, which this task alone writes. Each element
            // is read before the one at its place is written.
            unsafe {
                let a = a.add(a_at + if inner.a { start } else { 0 });
                let b = b.add(b_at + if inner.b { start } else { 0 });
                let out = out.add(row * inner.len + start);
                // An operand that is computed in place is read through `out`, so that the compiler sees that each element
                // meets only itself and may use vectors.
                let (own_a, own_b) = (out.cast::<A>().cast_const(), out.cast::<B>().cast_const());
                match (inner.a, inner.b) {
                    (true, true) if a == own_a => write_each(count, out, |i| f(*own_a.add(i), *b.add(i))),
                    (true, true) if b == own_b => write_each(count, out, |i| f(*a.add(i), *own_b.add(i))),
                    (true, true) => write_each(count, out, |i| f(*a.add(i), *b.add(i))),
                    (true, false) => {
                        let b = *b;
                        if a == own_a {
                            write_each(count, out, |i| f(*own_a.add(i), b));
                        } else {
                            write_each(count, out, |i| f(*a.add(i), b));
                        }
                    }
                    (false, true) => {
                        let a = *a;
                        if b == own_b {
                            write_each(count, out, |i| f(a, *own_b.add(i)));
                        } else {
                            write_each(count, out, |i| f(a, *b.add(i)));
                        }
                    }
                    (false, false) => {
                        let (a, b) = (*a, *b);
                        write_each(count, out, |_| f(a, b));
                    }
                }
            }
        }
    }
}

/// Writes `value(i)` to `out + i` for `i < count`.
///
/// # Safety
/// `out` is valid for `count` elements.
#[inline(always)]
unsafe fn write_each<O>(count: usize, out: *mut O, value: impl Fn(usize) -> O) {
    for i in 0..count {
        // SAFETY: the caller's promise.
        unsafe { out.add(i).write(value(i)) };
    }
}

multiversion! {
    /// Writes `value(i)` to `out + i`, which the callers have made sure is theirs.
    fn map_pointers[O, F: Fn(usize) -> O](count: usize, out: *mut O, value: F) {
        // SAFETY: `out` is valid for `count` elements.
        unsafe { write_each(count, out, value) };
    }
}

/// `out[i] = f(input[i])`.
///
/// # Panics
/// If the lengths differ.
pub fn map_unary<A: Copy + Sync, O: Send>(input: &[A], out: &mut [O], f: impl Fn(A) -> O + Sync + Send) {
    assert_eq!(input.len(), out.len());
    // SAFETY: the lengths match, and the borrows say that they do not overlap.
    unsafe { map_unary_ptr(input.as_ptr(), out.as_mut_ptr(), input.len(), f) }
}

/// `x[i] = f(x[i])`.
pub fn map_in_place<T: Copy + Send>(x: &mut [T], f: impl Fn(T) -> T + Sync + Send) {
    // SAFETY: in place, as `map_unary_ptr` allows.
    unsafe { map_unary_ptr(x.as_ptr(), x.as_mut_ptr(), x.len(), f) }
}

/// [`map_unary`] on pointers, for computing in place.
///
/// # Safety
/// `input` and `out` are valid for `len` elements. They may be the same address if the types have the same size, and must
/// not overlap otherwise. Nothing else reads or writes `out` during the call.
pub unsafe fn map_unary_ptr<A: Copy, O>(input: *const A, out: *mut O, len: usize, f: impl Fn(A) -> O + Sync + Send) {
    let (input, out) = (Shared(input), Out(out));
    for_each_range(len, GRAIN, move |range| {
        let (input, out) = (input, out);
        // SAFETY: the range lies in both, and this task alone writes it; each element is read before it is written.
        unsafe {
            let (input, out) = (input.0.add(range.start), out.0.add(range.start));
            let own = out.cast::<A>().cast_const();
            if input == own {
                map_pointers(range.len(), out, |i| f(*own.add(i)));
            } else {
                map_pointers(range.len(), out, |i| f(*input.add(i)));
            }
        }
    });
}

/// `out[i] = f(x[i], y[i], z[i])` for operands of one length, as gradients and optimizers need.
///
/// # Panics
/// If the lengths differ.
pub fn map_ternary<A: Copy + Sync, B: Copy + Sync, C: Copy + Sync, O: Send>(
    a: &[A],
    b: &[B],
    c: &[C],
    out: &mut [O],
    f: impl Fn(A, B, C) -> O + Sync + Send,
) {
    assert!(a.len() == out.len() && b.len() == out.len() && c.len() == out.len());
    let shared = SharedMut::new(out);
    for_each_range(a.len(), GRAIN, |range| {
        let (a, b, c) = (&a[range.clone()], &b[range.clone()], &c[range.clone()]);
        // SAFETY: each task has its own range.
        let out = unsafe { shared.slice(range) };
        map_pointers(out.len(), out.as_mut_ptr(), |i| f(a[i], b[i], c[i]));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{numbers_f32, same_on_any_pool};

    fn strided(shape: &[usize], out_shape: &[usize], mut at: usize) -> usize {
        let (mut offset, mut stride) = (0, 1);
        for d in (0..out_shape.len()).rev() {
            let i = at % out_shape[d];
            at /= out_shape[d];
            if let Some(d) = (d + shape.len()).checked_sub(out_shape.len()) {
                offset += if shape[d] == 1 { 0 } else { i * stride };
                stride *= shape[d];
            }
        }
        offset
    }

    #[test]
    fn every_pair_of_shapes_meets_as_numpy_says() {
        for (a_shape, b_shape) in [
            (vec![], vec![]),
            (vec![7], vec![]),
            (vec![], vec![3, 5]),
            (vec![100, 700], vec![700]),
            (vec![100, 700], vec![100, 1]),
            (vec![100, 1], vec![1, 700]),
            (vec![3, 1, 5], vec![4, 1]),
            (vec![2, 3, 4, 5], vec![3, 1, 5]),
            (vec![2, 1, 4, 1, 3], vec![1, 3, 1, 5, 3]),
            (vec![300, 401], vec![300, 401]),
            (vec![0, 3], vec![1, 3]),
            (vec![3, 70_001], vec![3, 1]),
            (vec![1, 1], vec![1]),
        ] {
            for (a_shape, b_shape) in [(&a_shape, &b_shape), (&b_shape, &a_shape)] {
                let out_shape = broadcast_shape(a_shape, b_shape).unwrap();
                let (a, b) = (
                    numbers_f32(1, a_shape.iter().product()),
                    numbers_f32(2, b_shape.iter().product()),
                );
                let out = same_on_any_pool(|| {
                    let mut out = vec![f32::NAN; out_shape.iter().product()];
                    broadcast_binary(&a, a_shape, &b, b_shape, &mut out, &out_shape, |x, y| x - 2.0 * y);
                    out
                });
                for (at, &got) in out.iter().enumerate() {
                    let (x, y) = (a[strided(a_shape, &out_shape, at)], b[strided(b_shape, &out_shape, at)]);
                    assert_eq!(got, x - 2.0 * y, "{a_shape:?} {b_shape:?}");
                }
            }
        }
        assert_eq!(broadcast_shape(&[2], &[3]), None);
        assert_eq!(broadcast_shape(&[0], &[1]), Some(vec![0]));
    }

    #[test]
    fn the_output_may_be_an_operand() {
        let (start, row) = (numbers_f32(1, 70_000), numbers_f32(2, 700));
        let mut x = start.clone();
        let p = x.as_mut_ptr();
        // SAFETY: in place on `x`, whose shape is the output's.
        unsafe {
            broadcast_binary_ptr(
                p.cast_const(),
                &[100, 700],
                row.as_ptr(),
                &[700],
                p,
                &[100, 700],
                |x, y| x * y,
            )
        };
        assert!(x.iter().enumerate().all(|(i, &x)| x == start[i] * row[i % 700]));
        map_in_place(&mut x, |x| -x);
        assert!(x.iter().enumerate().all(|(i, &x)| x == -(start[i] * row[i % 700])));
        let mut signs = vec![false; x.len()];
        map_unary(&x, &mut signs, |x| x < 0.0);
        assert!(signs.iter().zip(&x).all(|(&s, &x)| s == (x < 0.0)));
        let mut sum = vec![0.0; x.len()];
        map_ternary(&x, &start, &signs, &mut sum, |x, y, s| if s { x } else { y });
        assert!((0..x.len()).all(|i| sum[i] == if signs[i] { x[i] } else { start[i] }));
    }
}
