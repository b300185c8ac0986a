//! Chains of element-wise operations in one pass over memory.
//!
//! Each operation of a graph by itself reads its operands from memory and writes its result there. A [`Chain`] takes a block
//! of [`BLOCK`] elements through all its instructions while the block is in the first-level cache; only the operands of the
//! whole chain are read from memory, and only its result is written. Every element goes through the same operations in the
//! same order as it would one by one, and has the same bits.

use super::Short;
use super::parallel::{GRAIN, SharedMut, for_each_range};
use super::scratch::{Plain, with_scratch};
use super::simd::multiversion;
use super::vector_math;
use std::ops::Range;

/// Elements that go through the chain together: few enough that all intermediate blocks stay in the first-level cache, and
/// enough that choosing an instruction's loop costs little.
pub const BLOCK: usize = 512;

/// What an instruction computes of x, y and z. Comparisons give 1 or 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Function {
    Add,
    Sub,
    Mul,
    Div,
    Maximum,
    Minimum,
    SquaredDifference,
    /// `x` where `y > 0`, else 0.
    ReluGrad,
    /// `y (1 - x^2)`
    TanhGrad,
    /// `y x (1 - x)`
    SigmoidGrad,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Equal,
    NotEqual,
    /// `y` where `x` is not 0, else `z`.
    Select,
    Identity,
    Neg,
    Abs,
    Sign,
    Square,
    Sqrt,
    Rsqrt,
    Reciprocal,
    Relu,
    Exp,
    Log,
    Tanh,
    Sigmoid,
}

impl Function {
    /// All functions; each stands at the position of its number.
    const ALL: [Self; 30] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::Maximum,
        Self::Minimum,
        Self::SquaredDifference,
        Self::ReluGrad,
        Self::TanhGrad,
        Self::SigmoidGrad,
        Self::Greater,
        Self::GreaterEqual,
        Self::Less,
        Self::LessEqual,
        Self::Equal,
        Self::NotEqual,
        Self::Select,
        Self::Identity,
        Self::Neg,
        Self::Abs,
        Self::Sign,
        Self::Square,
        Self::Sqrt,
        Self::Rsqrt,
        Self::Reciprocal,
        Self::Relu,
        Self::Exp,
        Self::Log,
        Self::Tanh,
        Self::Sigmoid,
    ];

    /// The function of this number.
    pub fn from_number(number: usize) -> Option<Self> {
        Self::ALL.get(number).copied()
    }
}

/// One operation on values that are numbered: first the chain's operands, then the results of its instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    pub function: Function,
    /// x, y and z; those that the function does not take repeat x.
    pub operands: [usize; 3],
}

/// A dtype that chains compute in.
pub trait ChainElement: num_traits::Float + Default + Plain + Send + Sync {
    fn exponential(self) -> Self;
    fn logarithm(self) -> Self;
    fn hyperbolic_tangent(self) -> Self;
    fn logistic(self) -> Self;
}

impl ChainElement for f32 {
    #[inline(always)]
    fn exponential(self) -> Self {
        vector_math::exp(self)
    }
    #[inline(always)]
    fn logarithm(self) -> Self {
        vector_math::ln(self)
    }
    #[inline(always)]
    fn hyperbolic_tangent(self) -> Self {
        vector_math::tanh(self)
    }
    #[inline(always)]
    fn logistic(self) -> Self {
        vector_math::sigmoid(self)
    }
}

impl ChainElement for f64 {
    #[inline(always)]
    fn exponential(self) -> Self {
        self.exp()
    }
    #[inline(always)]
    fn logarithm(self) -> Self {
        self.ln()
    }
    #[inline(always)]
    fn hyperbolic_tangent(self) -> Self {
        self.tanh()
    }
    #[inline(always)]
    fn logistic(self) -> Self {
        let e = (-self.abs()).exp();
        (if self < 0.0 { e } else { 1.0 }) / (1.0 + e)
    }
}

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
    /// Blocks of scratch memory that the operands which are not whole, and the results, live in.
    blocks: usize,
}

/// An instruction whose values have found their place.
#[derive(Clone, Copy, Debug)]
struct Step {
    function: Function,
    operands: [Place; 3],
    /// A block; of the last step, the output.
    to: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Operand(usize),
    Block(usize),
}

impl Chain {
    /// Of these instructions on operands of these layouts; the last instruction's result is the chain's. `None` if there is
    /// none, or if an instruction uses a value that is not there yet.
    pub fn new(layouts: Vec<Layout>, instructions: &[Instruction]) -> Option<Self> {
        let count = layouts.len();
        let last = instructions.len().checked_sub(1)?;
        let mut last_use = vec![0; count + instructions.len()];
        for (index, instruction) in instructions.iter().enumerate() {
            for &operand in &instruction.operands {
                if operand >= count + index {
                    return None;
                }
                last_use[operand] = index;
            }
        }
        // Operands that are not whole are spread over blocks that stay, since scalars are spread once for many blocks.
        let mut blocks = 0;
        let mut places: Vec<Place> = Vec::with_capacity(last_use.len());
        for (index, layout) in layouts.iter().enumerate() {
            places.push(match layout {
                Layout::Whole => Place::Operand(index),
                _ => {
                    blocks += 1;
                    Place::Block(blocks - 1)
                }
            });
        }
        let mut free: Vec<usize> = Vec::new();
        let mut steps = Vec::with_capacity(instructions.len());
        for (index, instruction) in instructions.iter().enumerate() {
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
                function: instruction.function,
                operands: instruction.operands.map(|operand| places[operand]),
                to,
            });
            let mut ended: Vec<usize> = instruction.operands.to_vec();
            ended.sort_unstable();
            ended.dedup();
            for operand in ended {
                if let Place::Block(block) = places[operand]
                    && operand >= count
                    && last_use[operand] == index
                {
                    free.push(block);
                }
            }
            places.push(Place::Block(to));
        }
        Some(Self { layouts, steps, blocks })
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
        mut sink: impl FnMut(usize, &[T]),
    ) {
        with_scratch((self.blocks + 1) * BLOCK, |scratch: &mut [T]| {
            let (scratch, result) = scratch.split_at_mut(self.blocks * BLOCK);
            let mut spread = 0;
            for (operand, layout) in operands.iter().zip(&self.layouts) {
                if *layout == Layout::Scalar {
                    // SAFETY: a scalar operand has one element.
                    let value = unsafe { *operand.as_ptr() };
                    scratch[spread * BLOCK..][..BLOCK].fill(value);
                }
                spread += usize::from(*layout != Layout::Whole);
            }
            for start in range.clone().step_by(BLOCK) {
                let len = BLOCK.min(range.end - start);
                let mut spread = 0;
                for (operand, layout) in operands.iter().zip(&self.layouts) {
                    if let Layout::Strided(axes) = layout {
                        let block = &mut scratch[spread * BLOCK..][..len];
                        // SAFETY: the operand is readable for all elements of its layout.
                        unsafe { gather(operand.as_ptr(), axes, start, block) };
                    }
                    spread += usize::from(*layout != Layout::Whole);
                }
                let base = scratch.as_mut_ptr();
                for step in &self.steps {
                    // SAFETY: operands are readable at `start..start + len` (the range lies in the result); blocks lie in the
                    // scratch memory, and no step writes a block that it reads.
                    unsafe {
                        let [x, y, z] = step.operands.map(|place| match place {
                            Place::Operand(index) => operands[index].as_ptr().add(start).cast_const(),
                            Place::Block(block) => base.add(block * BLOCK).cast_const(),
                        });
                        let x = std::slice::from_raw_parts(x, len);
                        let y = std::slice::from_raw_parts(y, len);
                        let z = std::slice::from_raw_parts(z, len);
                        let to = match step.to {
                            usize::MAX => &mut result[..len],
                            block => std::slice::from_raw_parts_mut(base.add(block * BLOCK), len),
                        };
                        compute(step.function, x, y, z, to);
                    }
                }
                sink(start, &result[..len]);
            }
        });
    }
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
        let (mut rest, mut offset) = (row, 0);
        for &(size, stride) in outer.iter().rev() {
            offset += rest % size * stride;
            rest /= size;
        }
        let len = (width - column).min(block.len() - filled);
        // SAFETY: the offset is that of an element of the operand.
        unsafe {
            let from = operand.add(offset);
            let part = &mut block[filled..filled + len];
            match stride {
                0 => part.fill(*from),
                _ => part.copy_from_slice(std::slice::from_raw_parts(from.add(column), len)),
            }
        }
        filled += len;
        (row, column) = (row + 1, 0);
    }
}

multiversion! {
    fn compute[T: ChainElement](function: Function, x: &[T], y: &[T], z: &[T], to: &mut [T]) {
        let (zero, one) = (T::zero(), T::one());
        let len = to.len();
        let (x, y, z) = (&x[..len], &y[..len], &z[..len]);
        macro_rules! each {
            (|$x:ident| $e:expr) => {{
                for i in 0..len {
                    let $x = x[i];
                    to[i] = $e;
                }
            }};
            (|$x:ident, $y:ident| $e:expr) => {{
                for i in 0..len {
                    let ($x, $y) = (x[i], y[i]);
                    to[i] = $e;
                }
            }};
        }
        match function {
            Function::Add => each!(|x, y| x + y),
            Function::Sub => each!(|x, y| x - y),
            Function::Mul => each!(|x, y| x * y),
            Function::Div => each!(|x, y| x / y),
            Function::Maximum => each!(|x, y| {
                let larger = if x < y { y } else { x };
                if y.is_nan() { y } else { larger }
            }),
            Function::Minimum => each!(|x, y| {
                let smaller = if y < x { y } else { x };
                if y.is_nan() { y } else { smaller }
            }),
            Function::SquaredDifference => each!(|x, y| (x - y) * (x - y)),
            Function::ReluGrad => each!(|x, y| x * if y > zero { one } else { zero }),
            Function::TanhGrad => each!(|x, y| y * (one - x * x)),
            Function::SigmoidGrad => each!(|x, y| y * x * (one - x)),
            Function::Greater => each!(|x, y| if x > y { one } else { zero }),
            Function::GreaterEqual => each!(|x, y| if x >= y { one } else { zero }),
            Function::Less => each!(|x, y| if x < y { one } else { zero }),
            Function::LessEqual => each!(|x, y| if x <= y { one } else { zero }),
            Function::Equal => each!(|x, y| if x == y { one } else { zero }),
            Function::NotEqual => each!(|x, y| if x != y { one } else { zero }),
            Function::Select => {
                for i in 0..len {
                    to[i] = if x[i] != zero { y[i] } else { z[i] };
                }
            }
            Function::Identity => to.copy_from_slice(x),
            Function::Neg => each!(|x| -x),
            Function::Abs => each!(|x| x.abs()),
            Function::Sign => each!(|x| {
                let positive = if x > zero { one } else { zero };
                let negative = if x < zero { one } else { zero };
                if x.is_nan() { x } else { positive - negative }
            }),
            Function::Square => each!(|x| x * x),
            Function::Sqrt => each!(|x| x.sqrt()),
            Function::Rsqrt => each!(|x| one / x.sqrt()),
            Function::Reciprocal => each!(|x| one / x),
            Function::Relu => each!(|x| if x > zero || x.is_nan() { x } else { zero }),
            Function::Exp => each!(|x| x.exponential()),
            Function::Log => each!(|x| x.logarithm()),
            Function::Tanh => each!(|x| x.hyperbolic_tangent()),
            Function::Sigmoid => each!(|x| x.logistic()),
        }
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
