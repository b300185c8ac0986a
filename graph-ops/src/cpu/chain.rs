//! Chains of element-wise operations in one pass over memory.
//!
//! Each operation of a graph by itself reads its operands from memory and writes its result there. A [`Chain`] takes a block
//! of [`BLOCK`] elements through all its instructions while the block is in the first-level cache; only the operands of the
//! whole chain are read from memory, and only its result is written. Every element goes through the same operations in the
//! same order as it would one by one, and has the same bits.

mod function;

use super::Short;
use super::parallel::{GRAIN, SharedMut, for_each_range};
use super::scratch::with_scratch;
use super::simd::multiversion;
pub use function::{ChainElement, Function, Instruction};
use function::{Operation, compute};
use std::ops::Range;

/// Elements that go through the chain together: few enough that all intermediate blocks stay in the first-level cache, and
/// enough that choosing an instruction's loop costs little.
pub const BLOCK: usize = 512;

/// Where an operand's elements are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One for each element of the result, in its order.
    Whole,
    /// One for all.
    Scalar,
    /// Broadcast: `(size, stride)` of the result's axes, outermost first; a stride of 0 repeats.
    Strided(Vec<(usize, usize)>),
}

impl Layout {
    /// Of an operand of shape `operand` in a result of shape `result`; `None` if it does not broadcast to it.
    pub fn new(operand: &[usize], result: &[usize]) -> Option<Self> {
        let missing = result.len().checked_sub(operand.len())?;
        let fits = |(&size, &whole): (&usize, &usize)| size == whole || size == 1;
        if !operand.iter().zip(&result[missing..]).all(fits) {
            return None;
        }
        let (count, whole) = (operand.iter().product::<usize>(), result.iter().product::<usize>());
        if count == whole {
            return Some(Self::Whole);
        }
        if count == 1 {
            return Some(Self::Scalar);
        }
        let mut axes = vec![(1, 0); result.len()];
        let mut stride = 1;
        for (axis, &size) in result.iter().enumerate().rev() {
            let own = axis.checked_sub(missing).map_or(1, |axis| operand[axis]);
            axes[axis] = (size, if own == 1 { 0 } else { stride });
            stride *= own;
        }
        Some(Self::Strided(axes))
    }
}

/// Instructions, and where their values live: in the operands' own memory or in one of a few blocks of scratch memory.
#[derive(Clone, Debug)]
pub struct Chain {
    layouts: Vec<Layout>,
    steps: Vec<Step>,
    /// Blocks of scratch memory: those of operands that are not whole, in their order, and those of results.
    blocks: usize,
    /// Elements that are best taken together: [`BLOCK`], or fewer, so that no block reaches into another row of operands that
    /// are broadcast to rows.
    block: usize,
    /// The length of these rows, or of all.
    row: usize,
}

/// An operation whose values have found their place.
#[derive(Clone, Copy, Debug)]
struct Step {
    operation: Operation,
    operands: [Place; 3],
    /// A block; of the last step, the output.
    to: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Operand(usize),
    Block(usize),
}

/// A sum over the elements of a single operand that a chain stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Norm {
    /// Of absolute values.
    L1,
    /// Of squares.
    L2,
}

/// Takes instructions together: a product that is only added to something becomes one operation with the addition, and so does a
/// sign of which only such a product is made. `None` is left where an instruction went into a later one. `count` values come
/// before the first result.
fn merged(count: usize, instructions: &[Instruction]) -> Vec<Option<(Operation, [usize; 3])>> {
    let mut uses = vec![0; count + instructions.len()];
    for instruction in instructions {
        let [x, y, z] = instruction.operands;
        uses[x] += 1;
        uses[y] += usize::from(y != x);
        uses[z] += usize::from(z != x && z != y);
    }
    let made_by = |value: usize, function: Function| {
        let made = instructions[value.checked_sub(count)?];
        (made.function == function && uses[value] == 1).then_some(made.operands)
    };
    let mut steps: Vec<_> = instructions
        .iter()
        .map(|instruction| Some((Operation::Of(instruction.function), instruction.operands)))
        .collect();
    for (index, instruction) in instructions.iter().enumerate() {
        let [a, b, _] = instruction.operands;
        if instruction.function != Function::Add || a == b {
            continue;
        }
        for (product, other) in [(b, a), (a, b)] {
            let Some([x, y, _]) = made_by(product, Function::Mul) else {
                continue;
            };
            let of_sign = |sign: usize, factor: usize| Some((sign, made_by(sign, Function::Sign)?[0], factor));
            let step = match of_sign(x, y).or_else(|| of_sign(y, x)) {
                Some((sign, of, factor)) if sign != factor => {
                    steps[sign - count] = None;
                    (Operation::SignProductPlus, [of, factor, other])
                }
                _ => (Operation::ProductPlus, [x, y, other]),
            };
            steps[product - count] = None;
            steps[index] = Some(step);
            break;
        }
    }
    steps
}

impl Chain {
    /// Of these instructions on operands of these layouts; the last instruction's result is the chain's. `None` if there is
    /// none, or if an instruction uses a value that is not there yet.
    pub fn new(layouts: Vec<Layout>, instructions: &[Instruction]) -> Option<Self> {
        let count = layouts.len();
        let last = instructions.len().checked_sub(1)?;
        let early =
            |(index, instruction): (usize, &Instruction)| instruction.operands.iter().all(|&x| x < count + index);
        if !instructions.iter().enumerate().all(early) {
            return None;
        }
        let merged = merged(count, instructions);
        let mut last_use = vec![0; count + instructions.len()];
        for (index, step) in merged.iter().enumerate() {
            for &operand in step.iter().flat_map(|(_, operands)| operands) {
                last_use[operand] = index;
            }
        }
        let mut blocks = layouts.iter().filter(|layout| **layout != Layout::Whole).count();
        let mut places: Vec<Place> = (0..count).map(Place::Operand).collect();
        let mut free: Vec<usize> = Vec::new();
        let mut steps = Vec::with_capacity(instructions.len());
        for (index, step) in merged.into_iter().enumerate() {
            let Some((operation, operands)) = step else {
                // Nothing asks for this place.
                places.push(Place::Block(usize::MAX));
                continue;
            };
            // A result never lies over its own operands, so that loops see memory that does not overlap.
            let to = match free.pop() {
                _ if index == last => usize::MAX,
                Some(block) => block,
                None => {
                    blocks += 1;
                    blocks - 1
                }
            };
            steps.push(Step {
                operation,
                operands: operands.map(|operand| places[operand]),
                to,
            });
            let mut ended: Vec<usize> = operands.to_vec();
            ended.sort_unstable();
            ended.dedup();
            for operand in ended {
                if let Place::Block(block) = places[operand]
                    && last_use[operand] == index
                {
                    free.push(block);
                }
            }
            places.push(Place::Block(to));
        }
        let row = layouts.iter().find_map(|layout| match layout {
            Layout::Strided(axes) => axes.last().map(|&(size, _)| size),
            _ => None,
        });
        // Short rows are not worth blocks of their own.
        let block = match row {
            Some(row) if row >= BLOCK / 4 => row.div_ceil(row.div_ceil(BLOCK)).next_multiple_of(16),
            _ => BLOCK,
        };
        Some(Self {
            layouts,
            steps,
            blocks,
            block,
            row: row.unwrap_or(usize::MAX),
        })
    }

    /// What the sum of the chain's results is, if that has a name, and of which operand.
    pub(crate) fn norm(&self) -> Option<(usize, Norm)> {
        let [step] = &*self.steps else {
            return None;
        };
        let (Place::Operand(operand), norm) = (match (step.operation, step.operands) {
            (Operation::Of(Function::Abs), [x, ..]) => (x, Norm::L1),
            (Operation::Of(Function::Square), [x, ..]) => (x, Norm::L2),
            (Operation::Of(Function::Mul), [x, y, _]) if x == y => (x, Norm::L2),
            _ => return None,
        }) else {
            return None;
        };
        (self.layouts[operand] == Layout::Whole).then_some((operand, norm))
    }

    /// Runs the chain over `len` elements, in parallel where that is worth it.
    ///
    /// # Safety
    /// Each operand is readable for the elements of its layout in a result of `len` elements, and `out` writable for `len`.
    /// `out` may be a whole operand, but overlaps no operand otherwise.
    pub unsafe fn run<T: ChainElement>(&self, operands: &[*const T], out: *mut T, len: usize) {
        let operands: Short<SharedMut<T>> = operands
            .iter()
            .map(|operand| SharedMut::from_ptr(operand.cast_mut()))
            .collect();
        let (operands, out) = (&operands[..], SharedMut::from_ptr(out));
        for_each_range(len, GRAIN, |range| {
            // SAFETY: the caller's promise; ranges are disjoint.
            self.over(operands, range, |at, block| unsafe {
                std::ptr::copy_nonoverlapping(block.as_ptr(), out.as_ptr().add(at), block.len());
            });
        });
    }

    /// Takes the elements `range` through the chain, and gives each finished block to `sink` with its position.
    pub(crate) fn over<T: ChainElement>(
        &self,
        operands: &[SharedMut<T>],
        range: Range<usize>,
        sink: impl FnMut(usize, &[T]),
    ) {
        let (block, row) = match self.block {
            BLOCK => (BLOCK, usize::MAX),
            block => (block, self.row),
        };
        self.by_blocks(operands, range, |start| block.min(row - start % row), sink);
    }

    /// The same in blocks of [`BLOCK`], but for the last one.
    pub(crate) fn over_whole_blocks<T: ChainElement>(
        &self,
        operands: &[SharedMut<T>],
        range: Range<usize>,
        sink: impl FnMut(usize, &[T]),
    ) {
        self.by_blocks(operands, range, |_| BLOCK, sink);
    }

    fn by_blocks<T: ChainElement>(
        &self,
        operands: &[SharedMut<T>],
        range: Range<usize>,
        len_at: impl Fn(usize) -> usize,
        mut sink: impl FnMut(usize, &[T]),
    ) {
        with_scratch((self.blocks + 1) * BLOCK, |scratch: &mut [T]| {
            let (scratch, result) = scratch.split_at_mut(self.blocks * BLOCK);
            // Where each operand's elements of the block are.
            let mut sources: Short<*const T> = operands.iter().map(|operand| operand.as_ptr().cast_const()).collect();
            for (index, layout) in self.layouts.iter().enumerate() {
                if *layout == Layout::Scalar {
                    let block = self.block_of(index, scratch);
                    // SAFETY: a scalar operand has one element.
                    spread(unsafe { *sources[index] }, block);
                    sources[index] = block.as_ptr();
                }
            }
            let mut start = range.start;
            while start < range.end {
                let len = len_at(start).min(range.end - start);
                for (index, layout) in self.layouts.iter().enumerate() {
                    match layout {
                        // SAFETY: whole operands have as many elements as the result.
                        Layout::Whole => sources[index] = unsafe { operands[index].as_ptr().add(start) },
                        Layout::Scalar => {}
                        Layout::Strided(axes) => {
                            let block = &mut self.block_of(index, scratch)[..len];
                            // SAFETY: the operand is readable for all elements of its layout.
                            sources[index] = unsafe { read(operands[index].as_ptr(), axes, start, block) };
                        }
                    }
                }
                let base = scratch.as_mut_ptr();
                for step in &self.steps {
                    // SAFETY: operands are readable at `start..start + len` (the range lies in the result); blocks lie in the
                    // scratch memory, and no step writes a block that it reads.
                    unsafe {
                        let [x, y, z] = step.operands.map(|place| {
                            let at = match place {
                                Place::Operand(index) => sources[index],
                                Place::Block(block) => base.add(block * BLOCK).cast_const(),
                            };
                            std::slice::from_raw_parts(at, len)
                        });
                        let to = match step.to {
                            usize::MAX => &mut result[..len],
                            block => std::slice::from_raw_parts_mut(base.add(block * BLOCK), len),
                        };
                        compute(step.operation, x, y, z, to);
                    }
                }
                sink(start, &result[..len]);
                start += len;
            }
        });
    }

    /// The block of an operand that is not whole.
    fn block_of<'a, T>(&self, operand: usize, scratch: &'a mut [T]) -> &'a mut [T] {
        let before = self.layouts[..operand]
            .iter()
            .filter(|layout| **layout != Layout::Whole);
        &mut scratch[before.count() * BLOCK..][..BLOCK]
    }
}

/// Where the elements `start..` of a broadcast operand can be read, in the order of the result, as many as `block` has: in the
/// operand itself where they lie there side by side, else in `block`.
///
/// # Safety
/// `operand` is readable for all elements of the axes.
unsafe fn read<T: Copy>(operand: *const T, axes: &[(usize, usize)], start: usize, block: &mut [T]) -> *const T {
    if let Some((&(width, 1), outer)) = axes.split_last()
        && start % width + block.len() <= width
    {
        // SAFETY: the row, and the columns in it, are the operand's.
        return unsafe { operand.add(offset(outer, start / width) + start % width) };
    }
    // SAFETY: the caller's promise.
    unsafe { gather(operand, axes, start, block) };
    block.as_ptr()
}

/// Where in a broadcast operand row `row` of the result begins.
fn offset(outer: &[(usize, usize)], row: usize) -> usize {
    let (mut rest, mut offset) = (row, 0);
    for &(size, stride) in outer.iter().rev() {
        offset += rest % size * stride;
        rest /= size;
    }
    offset
}

/// Reads the elements `start..` of a broadcast operand, in the order of the result.
///
/// # Safety
/// `operand` is readable for all elements of the axes.
unsafe fn gather<T: Copy>(operand: *const T, axes: &[(usize, usize)], start: usize, block: &mut [T]) {
    let Some((&(width, stride), outer)) = axes.split_last() else {
        return;
    };
    let (mut row, mut column) = (start / width, start % width);
    let mut filled = 0;
    while filled < block.len() {
        let len = (width - column).min(block.len() - filled);
        // SAFETY: the offset is that of an element of the operand.
        unsafe {
            let from = operand.add(offset(outer, row));
            let part = &mut block[filled..filled + len];
            match stride {
                0 => spread(*from, part),
                _ => part.copy_from_slice(std::slice::from_raw_parts(from.add(column), len)),
            }
        }
        filled += len;
        (row, column) = (row + 1, 0);
    }
}

multiversion! {
    wide fn spread[T: Copy](value: T, block: &mut [T]) {
        block.fill(value);
    }
}

#[cfg(test)]
mod tests;
