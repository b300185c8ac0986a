//! Element-wise maps: unary, and binary with NumPy's and TensorFlow's broadcasting.
//!
//! Shapes are aligned at their last axes; an axis of length one is repeated. Axes that behave alike in both operands are
//! merged first, so that what is left is few long rows: same shapes, a scalar, a row or a column are one or two axes.
//!
//! A map runs over blocks of three plain slices, one loop for all broadcasts: operands are read where they lie, or repeated
//! and put together in a copy of the block's size. Each output element is computed alone, so results do not depend on how the
//! work is cut.

use std::mem::MaybeUninit;

mod widened;

pub(crate) use widened::{Narrow, Widen, Widened};
pub use widened::{Stored, broadcast_widened_ptr, map_widened_ptr};

use super::Short;
use super::parallel::{GRAIN, for_each_range};
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
    f: impl Function2<A, B, O>,
) {
    if is_scalar(a_shape, b_shape, out_shape) {
        // SAFETY: each is valid for its one element; both are read before the output is written.
        unsafe { out.write(f.of(*a, *b)) };
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { broadcast_blocks(a, a_shape, b, b_shape, out, out_shape, &Each(f)) };
}

/// Whether all three are one element.
fn is_scalar(a_shape: &[usize], b_shape: &[usize], out_shape: &[usize]) -> bool {
    [out_shape, a_shape, b_shape].into_iter().flatten().all(|&len| len == 1)
}

/// Elements that a map is run over at a time: few enough that operands copied for it stay in the nearest cache.
const BLOCK: usize = 512;

/// Rows shorter than this are put together to blocks; longer ones are cut into them.
const SHORT_ROW: usize = 64;

/// A function of an element. Where its `of` is `#[inline(always)]`, a loop of it becomes vector code however long it is; a
/// closure or a function as a value is called for each element if it is long.
pub trait Function<A, O>: Sync {
    /// Its value.
    fn of(&self, x: A) -> O;
}

impl<A, O, F: Fn(A) -> O + Sync> Function<A, O> for F {
    #[inline(always)]
    fn of(&self, x: A) -> O {
        self(x)
    }
}

/// [`Function`] of two elements.
pub trait Function2<A, B, O>: Sync {
    /// Its value.
    fn of(&self, x: A, y: B) -> O;
}

impl<A, B, O, F: Fn(A, B) -> O + Sync> Function2<A, B, O> for F {
    #[inline(always)]
    fn of(&self, x: A, y: B) -> O {
        self(x, y)
    }
}

/// A map of blocks. As a trait object of it, each map is compiled as a loop and no more; the walk through the operands is
/// compiled once for element types.
trait Binary<A, B, O>: Sync {
    fn run(&self, a: &[A], b: &[B], out: &mut [MaybeUninit<O>]);
}

/// A map of elements as one of blocks.
struct Each<F>(F);

impl<A: Copy, B: Copy, O, F: Function2<A, B, O>> Binary<A, B, O> for Each<F> {
    fn run(&self, a: &[A], b: &[B], out: &mut [MaybeUninit<O>]) {
        binary_block(&self.0, a, b, out);
    }
}

multiversion! {
    fn binary_block[A: Copy, B: Copy, O, F: Function2<A, B, O>](f: &F, a: &[A], b: &[B], out: &mut [MaybeUninit<O>]) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            out.write(f.of(a, b));
        }
    }
}

/// [`broadcast_binary_ptr`] for a map that knows whole blocks.
///
/// # Safety
/// As there.
unsafe fn broadcast_blocks<A: Copy, B: Copy, O>(
    a: *const A,
    a_shape: &[usize],
    b: *const B,
    b_shape: &[usize],
    out: *mut O,
    out_shape: &[usize],
    f: &dyn Binary<A, B, O>,
) {
    let axes = merged(a_shape, b_shape, out_shape);
    let len: usize = out_shape.iter().product();
    if len == 0 {
        return;
    }
    let row = axes.last().map_or(1, |axis| axis.len);
    let (a, b) = (
        Layout::new(a, axes.iter().map(|axis| (axis.len, axis.a))),
        Layout::new(b, axes.iter().map(|axis| (axis.len, axis.b))),
    );
    let out = Out(out);
    for_each_range(len, GRAIN, |range| {
        let (mut a, mut b) = (Operand::new(&a), Operand::new(&b));
        let mut start = range.start;
        while start < range.end {
            let mut count = BLOCK.min(range.end - start);
            if row >= SHORT_ROW {
                count = count.min(row - start % row);
            }
            // SAFETY: the block lies in the output, which this task alone writes; the operands are the caller's promise.
            // An operand that is the output is copied before it is written.
            unsafe {
                let place = out.at(start);
                let (a, b) = (
                    a.block(start, count, row, place.cast()),
                    b.block(start, count, row, place.cast()),
                );
                f.run(a, b, std::slice::from_raw_parts_mut(place.cast(), count));
            }
            start += count;
        }
    });
}

/// How an operand lies beside the output.
struct Layout<T> {
    data: *const T,
    /// For all axes of the output but the last: how long they are, and what a step along one is in the operand.
    outer: Short<(usize, usize)>,
    /// Whether it runs along the last axis, or is one number there.
    runs: bool,
    /// Whether its elements are the output's, one for one.
    whole: bool,
}

// SAFETY: only a pointer; accesses are justified where they are made.
unsafe impl<T> Sync for Layout<T> {}

impl<T> Layout<T> {
    /// Of the output's axes: their lengths, and whether the operand runs along them.
    fn new(data: *const T, axes: impl DoubleEndedIterator<Item = (usize, bool)> + Clone) -> Self {
        let whole = axes.clone().all(|(_, runs)| runs);
        let mut backwards = axes.rev();
        let (last, runs) = backwards.next().unwrap_or((1, true));
        let mut stride = if runs { last } else { 1 };
        let mut outer: Short<(usize, usize)> = Short::new();
        for (len, runs) in backwards {
            outer.push((len, if runs { stride } else { 0 }));
            if runs {
                stride *= len;
            }
        }
        outer.reverse();
        Self {
            data,
            outer,
            runs,
            whole,
        }
    }

    /// Where a row of the output begins in the operand.
    fn row(&self, mut index: usize) -> usize {
        let mut at = 0;
        for &(len, stride) in self.outer.iter().rev() {
            at += index % len * stride;
            index /= len;
        }
        at
    }
}

/// An operand, block by block.
struct Operand<'a, T> {
    layout: &'a Layout<T>,
    copy: [MaybeUninit<T>; BLOCK],
    /// The place of the number that the copy repeats from its start, and how often.
    repeated: (usize, usize),
}

impl<'a, T: Copy> Operand<'a, T> {
    fn new(layout: &'a Layout<T>) -> Self {
        Self {
            layout,
            copy: [const { MaybeUninit::uninit() }; BLOCK],
            repeated: (0, 0),
        }
    }

    /// What meets `count` elements of the output, whose rows are `row` long, from `start` on.
    ///
    /// # Safety
    /// The layout is that of a live operand, and the elements are the output's. It overlaps the output at most by being it.
    unsafe fn block(&mut self, start: usize, count: usize, row: usize, output: *const u8) -> &[T] {
        let layout = self.layout;
        // SAFETY: offsets are those of elements of the operand; what is read of the copy was written.
        unsafe {
            let direct = |at: usize| layout.data.add(at);
            if layout.whole && direct(start).cast() != output {
                return std::slice::from_raw_parts(direct(start), count);
            }
            if layout.whole {
                std::ptr::copy_nonoverlapping(direct(start), self.copy.as_mut_ptr().cast(), count);
            } else if row >= SHORT_ROW {
                let at = layout.row(start / row);
                if layout.runs {
                    return std::slice::from_raw_parts(direct(at + start % row), count);
                }
                if self.repeated.0 != at || self.repeated.1 < count {
                    self.copy[..count].fill(MaybeUninit::new(*direct(at)));
                    self.repeated = (at, count);
                }
            } else {
                self.gather(start, count, row);
            }
            std::slice::from_raw_parts(self.copy.as_ptr().cast(), count)
        }
    }

    /// Puts together a block of several rows.
    ///
    /// # Safety
    /// As for [`Operand::block`].
    unsafe fn gather(&mut self, start: usize, count: usize, row: usize) {
        let layout = self.layout;
        // Along the last outer axis offsets grow by a step; only at its end they are worked out anew.
        let (len, step) = layout.outer.last().copied().unwrap_or((1, 0));
        let mut index = start / row;
        let mut left = len - index % len;
        let mut at = layout.row(index);
        let (mut column, mut done) = (start % row, 0);
        while done < count {
            let piece = (row - column).min(count - done);
            // SAFETY: the row lies in the operand, and the piece in the copy.
            unsafe {
                let copy = self.copy.get_unchecked_mut(done..done + piece);
                match layout.runs {
                    true => {
                        let from = layout.data.add(at + column);
                        copy.iter_mut()
                            .enumerate()
                            .for_each(|(i, to)| *to = MaybeUninit::new(*from.add(i)));
                    }
                    false => copy.fill(MaybeUninit::new(*layout.data.add(at))),
                }
            }
            (column, done) = (0, done + piece);
            index += 1;
            left -= 1;
            if left == 0 {
                left = len;
                at = layout.row(index);
            } else {
                at += step;
            }
        }
    }
}

struct Out<T>(*mut T);
impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}
impl<T> Out<T> {
    /// # Safety
    /// The output has that element.
    unsafe fn at(self, index: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(index) }
    }
}
// SAFETY: only a pointer; accesses are justified where they are made.
unsafe impl<T> Send for Out<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Out<T> {}

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
pub unsafe fn map_unary_ptr<A: Copy, O>(input: *const A, out: *mut O, len: usize, f: impl Function<A, O>) {
    if len == 1 {
        // SAFETY: each is valid for one element.
        unsafe { out.write(f.of(*input)) };
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { unary_blocks(input, out, len, &Each(f)) };
}

/// [`Binary`] of one operand.
pub(crate) trait Unary<A, O>: Sync {
    fn run(&self, input: &[A], out: &mut [MaybeUninit<O>]);
}

impl<A: Copy, O, F: Function<A, O>> Unary<A, O> for Each<F> {
    fn run(&self, input: &[A], out: &mut [MaybeUninit<O>]) {
        unary_block(&self.0, input, out);
    }
}

multiversion! {
    /// A function of each element of a block.
    pub(crate) fn unary_block[A: Copy, O, F: Function<A, O>](f: &F, input: &[A], out: &mut [MaybeUninit<O>]) {
        for (out, &x) in out.iter_mut().zip(input) {
            out.write(f.of(x));
        }
    }
}

/// [`map_unary_ptr`] for a map that knows whole blocks.
///
/// # Safety
/// As there.
pub(crate) unsafe fn unary_blocks<A: Copy, O>(input: *const A, out: *mut O, len: usize, f: &dyn Unary<A, O>) {
    let layout = Layout::new(input, std::iter::once((len, true)));
    let out = Out(out);
    for_each_range(len, GRAIN, |range| {
        let mut input = Operand::new(&layout);
        for start in range.clone().step_by(BLOCK) {
            let count = BLOCK.min(range.end - start);
            // SAFETY: the block lies in both, and this task alone writes it; if they are one, it is copied before.
            unsafe {
                let place = out.at(start);
                let input = input.block(start, count, len, place.cast());
                f.run(input, std::slice::from_raw_parts_mut(place.cast(), count));
            }
        }
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
            (vec![40_000, 3], vec![3]),
            (vec![40_000, 3], vec![40_000, 1]),
            (vec![90, 70, 1, 5], vec![70, 11, 1]),
            (vec![200, 1, 130], vec![200, 7, 1]),
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
    }
}
