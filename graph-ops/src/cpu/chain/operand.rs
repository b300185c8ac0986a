//! A chain's operands: what they are stored as, and where their elements lie.

use graph_core::DType;

use super::BLOCK;
use super::function::ChainElement;
use crate::cpu::simd::multiversion;

/// The numbers among which a value is: what an operand or a result is stored as, and what an instruction rounds to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Precision {
    /// All that the type has in which the chain is computed.
    Full,
    /// Those of `half`, in a chain that is computed in `float`.
    Half,
    /// Those of `bfloat16`, in a chain that is computed in `float`.
    BFloat16,
}

impl Precision {
    const ALL: [Self; 3] = [Self::Full, Self::Half, Self::BFloat16];

    /// That of a dtype in the chains that it can be in.
    pub fn of(dtype: DType) -> Self {
        match dtype {
            DType::Half => Self::Half,
            DType::BFloat16 => Self::BFloat16,
            _ => Self::Full,
        }
    }

    /// The one of this number.
    pub fn from_number(number: usize) -> Option<Self> {
        Self::ALL.get(number).copied()
    }

    /// Bytes of a stored element, in a chain that is computed in `T`.
    pub(super) fn size<T>(self) -> usize {
        match self {
            Self::Full => size_of::<T>(),
            Self::Half | Self::BFloat16 => 2,
        }
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

/// An operand of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    pub layout: Layout,
    pub precision: Precision,
}

impl Operand {
    /// Of this dtype and shape in a result of shape `result`; `None` if it does not broadcast to it.
    pub fn new(dtype: DType, operand: &[usize], result: &[usize]) -> Option<Self> {
        Some(Self {
            layout: Layout::new(operand, result)?,
            precision: Precision::of(dtype),
        })
    }

    /// Whether its elements can be read where they lie, a block at a time.
    pub(super) fn in_place(&self) -> bool {
        self.layout == Layout::Whole && self.precision == Precision::Full
    }

    /// Fills a block with the only element of a scalar.
    ///
    /// # Safety
    /// `at` is readable for an element.
    pub(super) unsafe fn repeat<T: ChainElement>(&self, at: *const u8, block: &mut [T]) {
        // SAFETY: the caller's promise.
        unsafe { T::load(self.precision, at, &mut block[..1]) };
        spread(block[0], block);
    }

    /// Where the elements `start..` can be read, in the order of the result, as many as `block` has: in the operand itself where
    /// they lie there side by side in the type that is computed in, else in `block`.
    ///
    /// # Safety
    /// `at` is readable for all elements of the layout, which is not that of a scalar; `block` has at most [`BLOCK`] elements.
    pub(super) unsafe fn read<T: ChainElement>(&self, at: *const u8, start: usize, block: &mut [T]) -> *const T {
        // SAFETY: the caller's promise.
        unsafe {
            match (&self.layout, self.precision) {
                (Layout::Strided(axes), Precision::Full) => return read(at.cast::<T>(), axes, start, block),
                (Layout::Strided(axes), precision) => {
                    let mut stored = [0u16; BLOCK];
                    let stored = read(at.cast::<u16>(), axes, start, &mut stored[..block.len()]);
                    T::load(precision, stored.cast(), block);
                }
                (_, Precision::Full) => return at.cast::<T>().add(start),
                (_, precision) => T::load(precision, at.add(start * precision.size::<T>()), block),
            }
        }
        block.as_ptr()
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
