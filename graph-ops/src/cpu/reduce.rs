//! Reductions over any set of axes, and `ArgMax`/`ArgMin` over one.
//!
//! A [`Reduction`] says how to begin, take in an element, join two partial results and finish. Sums are taken in several
//! interleaved lanes over short blocks whose results are joined pairwise, so that the error of a `float` sum grows with the
//! logarithm of its length. The blocks depend on the shape alone, so results do not depend on the number of threads.

use super::Short;
use super::chain::{self, Chain, ChainElement, Norm};
use super::element::Real;
use super::parallel::{SharedMut, for_each_chunk, for_each_range};
use super::scratch::{Plain, with_scratch};
use super::simd::multiversion;

/// Elements summed in lanes before results are joined pairwise.
const BLOCK: usize = 512;

/// Independent partial results within a block: four vectors of eight.
const LANES: usize = 32;

/// Elements (for outer axes: rows times their width) of one parallel task.
const TASK: usize = 64 * 1024;

/// How a sequence of elements becomes one.
pub trait Reduction: Copy + Sync + Send {
    type In: Copy + Sync;
    /// Partial result.
    type State: Plain + Send + Sync;
    type Out: Copy + Send;
    /// Of no elements.
    fn begin(&self) -> Self::State;
    fn take(&self, state: Self::State, x: Self::In) -> Self::State;
    /// Of two sequences, the first one's result first.
    fn join(&self, a: Self::State, b: Self::State) -> Self::State;
    /// After `count` elements in all.
    fn finish(&self, state: Self::State, count: usize) -> Self::Out;
}

/// An input's axes with neighbours merged that are both reduced or both kept, and without those of length one.
fn merged(shape: &[usize], reduced: &[bool]) -> Short<(usize, bool)> {
    let mut axes: Short<(usize, bool)> = Short::new();
    for (&len, &reduce) in shape.iter().zip(reduced).filter(|x| *x.0 != 1) {
        match axes.last_mut() {
            Some(last) if last.1 == reduce => last.0 *= len,
            _ => axes.push((len, reduce)),
        }
    }
    axes
}

/// Reduces `input` of `shape` over the axes marked in `reduced`; `out` holds the kept axes in their order.
///
/// # Panics
/// If a length does not match, or `reduced` has not one entry an axis.
pub fn reduce<R: Reduction>(reduction: R, input: &[R::In], shape: &[usize], reduced: &[bool], out: &mut [R::Out]) {
    assert_eq!(shape.len(), reduced.len());
    assert_eq!(input.len(), shape.iter().product());
    let kept: usize = shape.iter().zip(reduced).filter(|x| !x.1).map(|x| x.0).product();
    assert_eq!(out.len(), kept);
    let count: usize = shape.iter().zip(reduced).filter(|x| *x.1).map(|x| x.0).product();
    if input.is_empty() {
        return out.fill(reduction.finish(reduction.begin(), 0));
    }
    match *merged(shape, reduced) {
        [] => out[0] = reduction.finish(reduction.take(reduction.begin(), input[0]), 1),
        [(_, false)] => for_each_chunk(out, TASK, |start, out| {
            for (o, &x) in out.iter_mut().zip(&input[start..]) {
                *o = reduction.finish(reduction.take(reduction.begin(), x), 1);
            }
        }),
        [(len, true)] => out[0] = reduction.finish(full(reduction, &input[..len]), count),
        [(_, false), (len, true)] => inner(reduction, input, len, out),
        [(rows, true), (columns, false)] => outer(reduction, input, rows, columns, out),
        ref axes => general(reduction, input, axes, count, out),
    }
}

/// Joins neighbours until one is left, in place.
fn pairwise<R: Reduction>(reduction: R, states: &mut [R::State]) -> R::State {
    let mut len = states.len();
    while len > 1 {
        for i in 0..len / 2 {
            states[i] = reduction.join(states[2 * i], states[2 * i + 1]);
        }
        if len % 2 == 1 {
            states[len / 2] = states[len - 1];
        }
        len = len.div_ceil(2);
    }
    states.first().copied().unwrap_or_else(|| reduction.begin())
}

/// All elements, in parallel.
fn full<R: Reduction>(reduction: R, input: &[R::In]) -> R::State {
    with_scratch(input.len().div_ceil(TASK), |states: &mut [R::State]| {
        for_each_chunk(states, 1, |task, state| {
            let end = ((task + 1) * TASK).min(input.len());
            state[0] = sequence(reduction, &input[task * TASK..end]);
        });
        pairwise(reduction, states)
    })
}

/// A run of elements on one thread.
fn sequence<R: Reduction>(reduction: R, input: &[R::In]) -> R::State {
    if input.len() <= BLOCK {
        return block(reduction, input);
    }
    let mut sequence = Sequence::new(reduction);
    input.chunks(BLOCK).for_each(|part| sequence.take(part));
    sequence.finish()
}

/// A run of elements that comes in blocks of [`BLOCK`], the last one shorter: their results are joined like a binary
/// counter's carries.
struct Sequence<R: Reduction> {
    reduction: R,
    levels: [R::State; usize::BITS as usize],
    blocks: usize,
}

impl<R: Reduction> Sequence<R> {
    fn new(reduction: R) -> Self {
        Self {
            reduction,
            levels: [reduction.begin(); usize::BITS as usize],
            blocks: 0,
        }
    }

    fn take(&mut self, part: &[R::In]) {
        self.take_block(block(self.reduction, part));
    }

    /// Takes a block of which the result is known.
    fn take_block(&mut self, mut state: R::State) {
        let carries = self.blocks.trailing_ones() as usize;
        for level in self.levels.iter().take(carries) {
            state = self.reduction.join(*level, state);
        }
        self.levels[carries] = state;
        self.blocks += 1;
    }

    fn finish(self) -> R::State {
        let mut total: Option<R::State> = None;
        for (level, &state) in self.levels.iter().enumerate() {
            if self.blocks >> level & 1 == 1 {
                total = Some(total.map_or(state, |total| self.reduction.join(state, total)));
            }
        }
        total.unwrap_or_else(|| self.reduction.begin())
    }
}

/// The results of several chains over `len` elements of the same operands, each summed as [`reduce`] sums all elements of a
/// tensor, in one pass over the operands.
///
/// # Safety
/// Each operand is readable for the elements of its layout, in every chain, in a result of `len` elements.
pub unsafe fn sums_of_chains<T: ChainElement + Real<Wide = T>>(
    chains: &[Chain],
    operands: &[*const u8],
    len: usize,
    out: &mut [T],
) {
    /// Elements that go through one chain before they go through the next one: they stay in the first-level cache.
    const SHARED: usize = 8 * BLOCK;
    const { assert!(TASK.is_multiple_of(SHARED) && BLOCK == chain::BLOCK) };
    assert_eq!(chains.len(), out.len());
    if len == 0 {
        return out.fill(T::zero());
    }
    let sum = Sum::<T>::new();
    let operands: Short<SharedMut<u8>> = operands
        .iter()
        .map(|operand| SharedMut::from_ptr(operand.cast_mut()))
        .collect();
    let (operands, tasks) = (&operands[..], len.div_ceil(TASK));
    let norms: Option<Short<(usize, Norm)>> = chains.iter().map(Chain::norm).collect();
    let norms = norms.filter(|norms| norms.windows(2).all(|pair| pair[0].0 == pair[1].0));
    with_scratch(tasks * chains.len(), |states: &mut [T]| {
        let shared = SharedMut::new(states);
        for_each_range(len, TASK, |range| {
            let task = range.start / TASK;
            let mut sequences: Short<Sequence<Sum<T>>> = chains.iter().map(|_| Sequence::new(sum)).collect();
            if let Some((norms, &(operand, _))) = norms.as_ref().and_then(|norms| Some((norms, norms.first()?))) {
                let start = operands[operand]
                    .as_ptr()
                    .cast_const()
                    .cast::<T>()
                    .wrapping_add(range.start);
                // SAFETY: the operand is whole and read in place, so that it has `len` elements of this type.
                let operand = unsafe { std::slice::from_raw_parts(start, range.len()) };
                for block in operand.chunks(BLOCK) {
                    let [absolute, square] = norms_of_block(block);
                    for ((_, norm), sequence) in norms.iter().zip(&mut sequences) {
                        sequence.take_block(match norm {
                            Norm::L1 => absolute,
                            Norm::L2 => square,
                        });
                    }
                }
            } else {
                for start in range.clone().step_by(SHARED) {
                    let part = start..range.end.min(start + SHARED);
                    for (chain, sequence) in chains.iter().zip(&mut sequences) {
                        chain.over_whole_blocks(operands, part.clone(), |_, block| sequence.take(block));
                    }
                }
            }
            for (index, sequence) in sequences.into_iter().enumerate() {
                let place = index * tasks + task;
                // SAFETY: each task has its own state for each chain.
                let state = unsafe { shared.slice(place..place + 1) };
                state[0] = sequence.finish();
            }
        });
        for (states, out) in states.chunks_mut(tasks.max(1)).zip(out) {
            *out = sum.finish(pairwise(sum, states), len);
        }
    });
}

multiversion! {
    /// [`block`] of the sums of absolute values and of squares.
    wide fn norms_of_block[T: Real<Wide = T> + num_traits::Float](input: &[T]) -> [T; 2] {
        let (rows, rest) = input.as_chunks::<LANES>();
        let mut absolute = [T::zero(); LANES];
        let mut square = [T::zero(); LANES];
        for row in rows {
            for i in 0..LANES {
                absolute[i] = absolute[i] + row[i].abs();
                square[i] = square[i] + row[i] * row[i];
            }
        }
        // Fewer elements than lanes are all taken into the first one.
        let next = |i: usize| if rows.is_empty() { 0 } else { i };
        for (i, &x) in rest.iter().enumerate() {
            absolute[next(i)] = absolute[next(i)] + x.abs();
            square[next(i)] = square[next(i)] + x * x;
        }
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                absolute[i] = absolute[i] + absolute[i + width];
                square[i] = square[i] + square[i + width];
            }
            width /= 2;
        }
        [absolute[0], square[0]]
    }
}

multiversion! {
    wide fn block[R: Reduction](reduction: R, input: &[R::In]) -> R::State {
        let (rows, rest) = input.as_chunks::<LANES>();
        if rows.is_empty() {
            return rest.iter().fold(reduction.begin(), |state, &x| reduction.take(state, x));
        }
        let mut lanes = [reduction.begin(); LANES];
        for row in rows {
            for (lane, &x) in lanes.iter_mut().zip(row) {
                *lane = reduction.take(*lane, x);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(rest) {
            *lane = reduction.take(*lane, x);
        }
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] = reduction.join(lanes[i], lanes[i + width]);
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// The last axis, of length `len`.
fn inner<R: Reduction>(reduction: R, input: &[R::In], len: usize, out: &mut [R::Out]) {
    if len > TASK {
        let row = |row: usize| full(reduction, &input[row * len..(row + 1) * len]);
        out.iter_mut()
            .enumerate()
            .for_each(|(i, o)| *o = reduction.finish(row(i), len));
        return;
    }
    for_each_chunk(out, TASK.div_ceil(len), |start, out| {
        if len < LANES {
            return short_rows(reduction, &input[start * len..], len, out);
        }
        for (o, row) in out.iter_mut().zip(input[start * len..].chunks(len)) {
            *o = reduction.finish(sequence(reduction, row), len);
        }
    });
}

multiversion! {
    /// Rows of fewer elements than lanes, each taken from its first element to its last.
    fn short_rows[R: Reduction](reduction: R, input: &[R::In], len: usize, out: &mut [R::Out]) {
        for (o, row) in out.iter_mut().zip(input.chunks_exact(len)) {
            let state = row.iter().fold(reduction.begin(), |state, &x| reduction.take(state, x));
            *o = reduction.finish(state, len);
        }
    }
}

/// Columns that one task takes down all rows, where there are enough of them for all threads.
const STRIP: usize = 2048;

/// The first of two axes where the second one is long: strips of columns are tasks of their own.
fn strips<R: Reduction>(reduction: R, input: &[R::In], rows: usize, columns: usize, out: &mut [R::Out]) {
    for_each_chunk(out, STRIP, |start, out| {
        with_scratch(2 * out.len(), |states: &mut [R::State]| {
            let (total, part) = states.split_at_mut(out.len());
            total.fill(reduction.begin());
            for group in (0..rows).step_by(ROWS) {
                part.fill(reduction.begin());
                for row in group..rows.min(group + ROWS) {
                    let from = row * columns + start;
                    take_wide_rows(reduction, &input[from..from + part.len()], part);
                }
                total
                    .iter_mut()
                    .zip(&*part)
                    .for_each(|(t, &p)| *t = reduction.join(*t, p));
            }
            out.iter_mut()
                .zip(&*total)
                .for_each(|(o, &t)| *o = reduction.finish(t, rows));
        });
    });
}

/// The first of two axes: rows of `columns` elements are taken into one row of partial results.
fn outer<R: Reduction>(reduction: R, input: &[R::In], rows: usize, columns: usize, out: &mut [R::Out]) {
    if columns >= 8 * STRIP {
        return strips(reduction, input, rows, columns, out);
    }
    let rows_a_task = (TASK / columns).clamp(1, rows).max(rows.div_ceil(256));
    let tasks = rows.div_ceil(rows_a_task);
    with_scratch(tasks * columns, |states: &mut [R::State]| {
        let shared = SharedMut::new(states);
        for_each_range(rows, rows_a_task, |range| {
            let task = range.start / rows_a_task;
            // SAFETY: each task has its own row of partial results.
            let states = unsafe { shared.slice(task * columns..(task + 1) * columns) };
            let part = &input[range.start * columns..range.end * columns];
            take_rows(reduction, part, columns, states);
        });
        let mut left = tasks;
        while left > 1 {
            for i in 0..left / 2 {
                for c in 0..columns {
                    states[i * columns + c] =
                        reduction.join(states[2 * i * columns + c], states[(2 * i + 1) * columns + c]);
                }
            }
            if left % 2 == 1 {
                states.copy_within((left - 1) * columns..left * columns, left / 2 * columns);
            }
            left = left.div_ceil(2);
        }
        out.iter_mut()
            .zip(&*states)
            .for_each(|(o, &state)| *o = reduction.finish(state, rows));
    });
}

/// Folded rows that are summed one after the other.
const ROWS: usize = 64;

/// Rows of narrow inputs are folded this many elements wide at least, so that the loop over them is worth a vector.
const FOLDED: usize = 160;

/// Takes all rows of `input` into one row of states; several rows at a time are one long row if they are narrow.
fn take_rows<R: Reduction>(reduction: R, input: &[R::In], columns: usize, states: &mut [R::State]) {
    let fold = FOLDED.div_ceil(columns);
    let rows = input.len() / columns;
    // Within a task, short groups of rows are summed on their own, which keeps the error small.
    let group = ROWS * fold * columns;
    with_scratch(fold * columns, |wide: &mut [R::State]| {
        states.fill(reduction.begin());
        for part in input[..rows * columns].chunks(group) {
            wide.fill(reduction.begin());
            take_wide_rows(reduction, part, wide);
            for folded in wide.chunks(columns) {
                states
                    .iter_mut()
                    .zip(folded)
                    .for_each(|(s, &x)| *s = reduction.join(*s, x));
            }
        }
    });
}

multiversion! {
    fn take_wide_rows[R: Reduction](reduction: R, input: &[R::In], wide: &mut [R::State]) {
        // Strips of columns stay in registers down all rows.
        let width = wide.len();
        let whole = input.len() / width * width;
        let (body, rest) = input.split_at(whole);
        let (strips, _) = wide.as_chunks_mut::<LANES>();
        let strip_count = strips.len();
        for (s, strip) in strips.iter_mut().enumerate() {
            let mut lanes = *strip;
            for row in body.chunks_exact(width) {
                for (lane, &x) in lanes.iter_mut().zip(&row[s * LANES..(s + 1) * LANES]) {
                    *lane = reduction.take(*lane, x);
                }
            }
            *strip = lanes;
        }
        for row in body.chunks_exact(width) {
            for (state, &x) in wide.iter_mut().zip(row).skip(strip_count * LANES) {
                *state = reduction.take(*state, x);
            }
        }
        for (state, &x) in wide.iter_mut().zip(rest) {
            *state = reduction.take(*state, x);
        }
    }
}

/// Any alternation of axes: each output element gathers its own runs.
fn general<R: Reduction>(reduction: R, input: &[R::In], axes: &[(usize, bool)], count: usize, out: &mut [R::Out]) {
    let mut stride = input.len();
    let strided: Short<(usize, usize, bool)> = axes
        .iter()
        .map(|&(len, reduce)| {
            stride /= len;
            (len, stride, reduce)
        })
        .collect();
    let of = |reduce: bool| {
        strided
            .iter()
            .filter(move |a| a.2 == reduce)
            .map(|a| (a.0, a.1))
            .collect::<Short<_>>()
    };
    let (kept, reduced) = (of(false), of(true));
    let offset = |axes: &[(usize, usize)], mut at: usize| {
        let mut offset = 0;
        for &(len, stride) in axes.iter().rev() {
            offset += at % len * stride;
            at /= len;
        }
        offset
    };
    if reduced.last().is_some_and(|axis| axis.1 == 1) {
        // Runs along the last axis.
        let run = reduced.last().map_or(1, |axis| axis.0);
        let outer = &reduced[..reduced.len() - 1];
        for_each_chunk(out, (TASK / count).max(1), |start, out| {
            for (i, o) in out.iter_mut().enumerate() {
                let base = offset(&kept, start + i);
                let state = (0..count / run)
                    .map(|r| {
                        let from = base + offset(outer, r);
                        sequence(reduction, &input[from..from + run])
                    })
                    .reduce(|a, b| reduction.join(a, b));
                *o = reduction.finish(state.unwrap_or_else(|| reduction.begin()), count);
            }
        });
    } else {
        // Rows of kept elements, taken into rows of states.
        let row = kept.last().map_or(1, |axis| axis.0);
        let outer = &kept[..kept.len() - 1];
        for_each_chunk(out, (TASK / (count * row)).max(1) * row, |start, out| {
            for (i, out) in out.chunks_mut(row).enumerate() {
                let base = offset(outer, start / row + i);
                with_scratch(2 * row, |states: &mut [R::State]| {
                    let (total, part) = states.split_at_mut(row);
                    total.fill(reduction.begin());
                    part.fill(reduction.begin());
                    for r in 0..count {
                        let from = base + offset(&reduced, r);
                        take_wide_rows(reduction, &input[from..from + row], part);
                        if r % BLOCK == BLOCK - 1 || r == count - 1 {
                            total
                                .iter_mut()
                                .zip(&*part)
                                .for_each(|(t, &p)| *t = reduction.join(*t, p));
                            part.fill(reduction.begin());
                        }
                    }
                    out.iter_mut()
                        .zip(&*total)
                        .for_each(|(o, &t)| *o = reduction.finish(t, count));
                });
            }
        });
    }
}

mod reductions;
pub use reductions::{All, Any, IntMean, IntProd, IntSum, Max, Mean, Min, Prod, Sum};

mod arg;
pub use arg::{Ranked, argmax, argmin};

#[cfg(test)]
mod tests;
