//! Chains of element-wise operations in one pass over memory.
//!
//! Each operation of a graph by itself reads its operands from memory and writes its result there. A [`Chain`] takes a block
//! of [`BLOCK`] elements through all its instructions while the block is in the first-level cache; only the operands of the
//! whole chain are read from memory, and only its result is written. Every element goes through the same operations in the
//! same order as it would one by one, and has the same bits.
//!
//! Half types are computed in `float`: what is stored in one is widened, and each result is rounded to the type that it would
//! be stored in. So a chain may go over from one type to another.

mod function;
mod operand;

use super::Short;
use super::parallel::{GRAIN, SharedMut, for_each_range};
use super::scratch::with_scratch;
pub use function::{ChainElement, Function, Instruction};
use function::{Operation, compute};
pub use operand::{Layout, Operand, Precision};
use std::ops::Range;

/// Elements that go through the chain together: few enough that all intermediate blocks stay in the first-level cache, and
/// enough that choosing an instruction's loop costs little.
pub const BLOCK: usize = 512;

/// Instructions, and where their values live: in the operands' own memory or in one of a few blocks of scratch memory.
#[derive(Clone, Debug)]
pub struct Chain {
    operands: Vec<Operand>,
    steps: Vec<Step>,
    /// What the result is stored as.
    result: Precision,
    /// Blocks of scratch memory: those of operands that are not read in place, in their order, and those of results.
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
    /// What its result is rounded to; of the last step nothing, since the output's type does that.
    precision: Precision,
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
        let plain = made.precision == Precision::Full;
        (made.function == function && uses[value] == 1 && plain).then_some(made.operands)
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
    /// Of these instructions on these operands; the last instruction's result is the chain's. `None` if there is none, or if an
    /// instruction uses a value that is not there yet.
    pub fn new(chain_operands: Vec<Operand>, instructions: &[Instruction]) -> Option<Self> {
        let count = chain_operands.len();
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
        let precision_of = |value: usize| match value.checked_sub(count) {
            None => chain_operands[value].precision,
            Some(result) => instructions[result].precision,
        };
        let mut blocks = chain_operands.iter().filter(|operand| !operand.in_place()).count();
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
            let Instruction {
                function, precision, ..
            } = instructions[index];
            let rounded = function.picks() && operands.iter().all(|&operand| precision_of(operand) == precision);
            steps.push(Step {
                operation,
                operands: operands.map(|operand| places[operand]),
                precision: if rounded || index == last {
                    Precision::Full
                } else {
                    precision
                },
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
        let row = chain_operands.iter().find_map(|operand| match &operand.layout {
            Layout::Strided(axes) => axes.last().map(|&(size, _)| size),
            _ => None,
        });
        // Short rows are not worth blocks of their own.
        let block = match row {
            Some(row) if row >= BLOCK / 4 => row.div_ceil(row.div_ceil(BLOCK)).next_multiple_of(16),
            _ => BLOCK,
        };
        Some(Self {
            operands: chain_operands,
            steps,
            result: instructions[last].precision,
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
        let plain = self.operands[operand].in_place() && self.result == Precision::Full;
        plain.then_some((operand, norm))
    }

    /// Runs the chain, computed in `T`, over `len` elements, in parallel where that is worth it.
    ///
    /// # Safety
    /// Each operand is readable for the elements of its layout in a result of `len` elements, and `out` writable for `len`, each
    /// stored as its precision says. `out` may be a whole operand of its own precision, but overlaps no operand otherwise.
    pub unsafe fn run<T: ChainElement>(&self, operands: &[*const u8], out: *mut u8, len: usize) {
        let operands: Short<SharedMut<u8>> = operands
            .iter()
            .map(|operand| SharedMut::from_ptr(operand.cast_mut()))
            .collect();
        let (operands, out, size) = (&operands[..], SharedMut::from_ptr(out), self.result.size::<T>());
        for_each_range(len, GRAIN, |range| {
            self.by_blocks(operands, range, self.rows(), |at, block: &mut [T]| {
                // SAFETY: the caller's promise; ranges are disjoint.
                unsafe { T::store(self.result, block, out.as_ptr().add(at * size)) };
            });
        });
    }

    /// Takes the elements `range` through the chain, and gives each finished block to `sink` with its position.
    pub(crate) fn over<T: ChainElement>(
        &self,
        operands: &[SharedMut<u8>],
        range: Range<usize>,
        mut sink: impl FnMut(usize, &[T]),
    ) {
        self.by_blocks(operands, range, self.rows(), |at, block| {
            T::round_to(self.result, block);
            sink(at, block);
        });
    }

    /// The same in blocks of [`BLOCK`], but for the last one.
    pub(crate) fn over_whole_blocks<T: ChainElement>(
        &self,
        operands: &[SharedMut<u8>],
        range: Range<usize>,
        mut sink: impl FnMut(usize, &[T]),
    ) {
        self.by_blocks(
            operands,
            range,
            |_| BLOCK,
            |at, block| {
                T::round_to(self.result, block);
                sink(at, block);
            },
        );
    }

    /// How many elements are best taken together from a place on.
    fn rows(&self) -> impl Fn(usize) -> usize {
        let (block, row) = match self.block {
            BLOCK => (BLOCK, usize::MAX),
            block => (block, self.row),
        };
        move |start| block.min(row - start % row)
    }

    /// Gives each block to `sink` before the last rounding.
    fn by_blocks<T: ChainElement>(
        &self,
        operands: &[SharedMut<u8>],
        range: Range<usize>,
        len_at: impl Fn(usize) -> usize,
        mut sink: impl FnMut(usize, &mut [T]),
    ) {
        with_scratch((self.blocks + 1) * BLOCK, |scratch: &mut [T]| {
            let (scratch, result) = scratch.split_at_mut(self.blocks * BLOCK);
            // Where each operand's elements of the block are.
            let mut sources: Short<*const T> = operands
                .iter()
                .map(|operand| operand.as_ptr().cast_const().cast())
                .collect();
            let scalar = |operand: &Operand| operand.layout == Layout::Scalar;
            for (index, operand) in self.operands.iter().enumerate().filter(|(_, operand)| scalar(operand)) {
                let block = self.block_of(index, scratch);
                // SAFETY: a scalar operand has one element.
                unsafe { operand.repeat(operands[index].as_ptr(), block) };
                sources[index] = block.as_ptr();
            }
            let mut start = range.start;
            while start < range.end {
                let len = len_at(start).min(range.end - start);
                for (index, operand) in self.operands.iter().enumerate().filter(|(_, operand)| !scalar(operand)) {
                    let block: &mut [T] = match operand.in_place() {
                        true => &mut [],
                        false => &mut self.block_of(index, scratch)[..len],
                    };
                    // SAFETY: the operand is readable for all elements of its layout, of which `start..start + len` are.
                    sources[index] = unsafe { operand.read(operands[index].as_ptr(), start, block) };
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
                        T::round_to(step.precision, to);
                    }
                }
                sink(start, &mut result[..len]);
                start += len;
            }
        });
    }

    /// The block of an operand that is not read in place.
    fn block_of<'a, T>(&self, operand: usize, scratch: &'a mut [T]) -> &'a mut [T] {
        let before = self.operands[..operand].iter().filter(|operand| !operand.in_place());
        &mut scratch[before.count() * BLOCK..][..BLOCK]
    }
}

#[cfg(test)]
mod tests;
