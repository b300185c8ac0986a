//! Kernels that move elements without looking at them: between two arrangements in memory, each of which has a stride (maybe
//! zero or negative) along each dimension.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelRequest, Planned};
use graph_core::{DType, Error, Result};
use graph_cuda::{Cuda, Function, Source, arguments, source};

use super::{blocks, word_name, word_of};
use crate::cpu::copy::{CopyAxis, strides};

const SOURCE: Source = source!("copy.cu");

/// The most dimensions, once neighbours are merged.
const MOST: usize = 8;

/// The longest word, in bytes; every tensor begins at a multiple of it.
const LONGEST: usize = 16;

/// What is moved, as the kernel takes it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Moved {
    rank: i64,
    sizes: [i64; MOST],
    from: [i64; MOST],
    to: [i64; MOST],
}

/// A copy that is ready to be given to the device.
pub(crate) struct Transfer {
    function: Function,
    /// Where the first element lies, in bytes from the tensors' beginnings.
    from: usize,
    to: usize,
    work: Work,
}

impl Moved {
    /// # Errors
    /// `Unimplemented` for more dimensions than the kernel has room for.
    fn new(axes: &[CopyAxis]) -> Result<Self> {
        if axes.len() > MOST {
            return Err(Error::unimplemented(format!(
                "moving elements along more than {MOST} dimensions"
            )));
        }
        let mut moved = Self {
            rank: axes.len().max(1) as i64,
            sizes: [1; MOST],
            from: [0; MOST],
            to: [0; MOST],
        };
        for (at, axis) in axes.iter().enumerate() {
            (moved.sizes[at], moved.from[at], moved.to[at]) = (axis.len as i64, axis.from as i64, axis.to as i64);
        }
        Ok(moved)
    }
}

enum Work {
    Strided { words: usize, moved: Moved },
    Transpose { batch: usize, rows: usize, columns: usize },
}

impl Transfer {
    /// Moves elements of `dtype`: the first lie `from` and `to` elements behind the tensors' beginnings.
    ///
    /// # Errors
    /// `Unimplemented` for elements that have no size or more dimensions than the kernel has room for.
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        dtype: DType,
        from: usize,
        to: usize,
        axes: &[CopyAxis],
    ) -> Result<Self> {
        let cuda = Cuda::of(request)?;
        let (size, word) = word_of(dtype)?;
        let mut axes = merged(axes);
        let elements = |axes: &mut dyn Iterator<Item = &CopyAxis>| axes.map(|axis| axis.len).product::<usize>();
        // What is repeated is read once.
        let read = elements(&mut axes.iter().filter(|axis| axis.from != 0));
        let moved_bytes = (elements(&mut axes.iter()) + read) * size;
        let (from, to) = (from * size, to * size);
        if let Some([batch, rows, columns]) = transposition(&axes)
            && from == 0
            && to == 0
        {
            return Ok(Self {
                function: cuda
                    .function(&SOURCE, "transpose_tiles", &[("W", word)])?
                    .moving(moved_bytes),
                from,
                to,
                work: Work::Transpose { batch, rows, columns },
            });
        }
        let bytes = widen(&mut axes, size, from, to);
        Ok(Self {
            function: cuda
                .function(&SOURCE, "copy_strided", &[("W", word_name(bytes)?)])?
                .moving(moved_bytes),
            from,
            to,
            work: Work::Strided {
                words: axes.iter().map(|axis| axis.len).product(),
                moved: Moved::new(&axes)?,
            },
        })
    }

    /// Moves `count` neighbouring elements.
    ///
    /// # Errors
    /// `Unimplemented` for elements that have no size.
    pub(crate) fn all(request: &KernelRequest<'_>, dtype: DType, count: usize) -> Result<Self> {
        Self::new(
            request,
            dtype,
            0,
            0,
            &[CopyAxis {
                len: count,
                from: 1,
                to: 1,
            }],
        )
    }

    /// Gives the copy to the device.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// Both are tensors in which the elements that [`Transfer::new`] was told of lie.
    pub(crate) unsafe fn run(&self, from: DeviceAddress, to: DeviceAddress) -> Result<()> {
        let (from, to) = (from.offset(self.from), to.offset(self.to));
        match self.work {
            Work::Strided { words: 0, .. } => Ok(()),
            // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
            Work::Strided { words, moved } => unsafe {
                self.function
                    .launch_over(words, arguments![to, from, words as i64, moved])
            },
            Work::Transpose { batch, rows, columns } => {
                let tiles = batch * rows.div_ceil(32) * columns.div_ceil(32);
                // SAFETY: as above.
                unsafe {
                    self.function.launch(
                        blocks(tiles),
                        [256, 1, 1],
                        arguments![to, from, batch as i64, rows as i64, columns as i64],
                    )
                }
            }
        }
    }
}

/// A copy of elements of which the run alone tells how they lie.
pub(crate) struct LateTransfer {
    function: Function,
    /// Bytes of an element.
    size: usize,
}

impl LateTransfer {
    /// Of elements of `dtype`.
    ///
    /// # Errors
    /// `Unimplemented` for elements that have no size.
    pub(crate) fn new(request: &KernelRequest<'_>, dtype: DType) -> Result<Self> {
        let (size, word) = word_of(dtype)?;
        let function = Cuda::of(request)?.function(&SOURCE, "copy_strided", &[("W", word)])?;
        Ok(Self { function, size })
    }

    /// Gives the copy to the device; the first element goes `start` elements behind the beginning of the tensor at `to`.
    ///
    /// # Errors
    /// `Unimplemented` for more dimensions than the kernel has room for, and the device's.
    ///
    /// # Safety
    /// Both are tensors in which the elements of these axes lie.
    pub(crate) unsafe fn run(
        &self,
        from: DeviceAddress,
        to: DeviceAddress,
        start: usize,
        axes: &[CopyAxis],
    ) -> Result<()> {
        let axes = merged(axes);
        let (moved, to) = (Moved::new(&axes)?, to.offset(start * self.size));
        let words: usize = axes.iter().map(|axis| axis.len).product();
        if words == 0 {
            return Ok(());
        }
        let read = axes.iter().filter(|axis| axis.from != 0).map(|axis| axis.len);
        let bytes = (read.product::<usize>() + words) * self.size;
        let function = self.function.clone().moving(bytes);
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe { function.launch_over(words, arguments![to, from, words as i64, moved]) }
    }
}

/// A kernel of copies, each of an input to an output.
pub(crate) fn copies(copies: Vec<(usize, usize, Transfer)>) -> Planned {
    Planned::new(move |context| {
        for (input, output, copy) in &copies {
            // SAFETY: whoever made the copies did so for the shapes and dtypes of these tensors.
            unsafe { copy.run(context.input_address(*input), context.output_address(*output))? };
        }
        Ok(())
    })
}

/// A kernel of one copy from input `input` to output 0: the first element lies `from` elements behind the input's beginning.
///
/// # Errors
/// Those of [`Transfer::new`].
pub(crate) fn copy(request: &KernelRequest<'_>, input: usize, from: usize, axes: &[CopyAxis]) -> Result<Planned> {
    let copy = Transfer::new(request, request.input_dtype(input), from, 0, axes)?;
    Ok(copies(vec![(input, 0, copy)]))
}

/// Every `steps[i]`-th element of a tensor of this shape along each dimension, from `begin[i]` on: where the first lies, and the
/// axes on which they become a tensor of shape `lengths`.
pub(crate) fn sliced(shape: &[usize], begin: &[usize], steps: &[isize], lengths: &[usize]) -> (usize, Vec<CopyAxis>) {
    let (from, to) = (strides(shape), strides(lengths));
    let start = begin.iter().zip(&from).map(|(begin, stride)| begin * stride).sum();
    let axes = (0..shape.len()).map(|axis| CopyAxis {
        len: lengths[axis],
        from: steps[axis] * from[axis] as isize,
        to: to[axis] as isize,
    });
    (start, axes.collect())
}

/// The word of the longest size that runs of `run` elements of `bytes` bytes are made of, as its size and its name.
///
/// # Errors
/// `Unimplemented` for elements that have no size.
pub(crate) fn longest_word(bytes: usize, run: usize) -> Result<(usize, &'static str)> {
    let mut longest = bytes;
    while longest < LONGEST && run > 0 && (run * bytes).is_multiple_of(longest * 2) {
        longest *= 2;
    }
    Ok((longest, word_name(longest)?))
}

/// The dimensions without those of length one, merged where neighbours lie alike on both sides.
fn merged(axes: &[CopyAxis]) -> Vec<CopyAxis> {
    if axes.iter().any(|axis| axis.len == 0) {
        return vec![CopyAxis { len: 0, from: 1, to: 1 }];
    }
    let mut merged: Vec<CopyAxis> = Vec::new();
    for axis in axes.iter().filter(|axis| axis.len != 1) {
        let len = axis.len as isize;
        match merged.last_mut() {
            Some(last) if last.from == axis.from * len && last.to == axis.to * len => {
                *last = CopyAxis {
                    len: last.len * axis.len,
                    ..*axis
                };
            }
            _ => merged.push(*axis),
        }
    }
    merged
}

/// Whether this is the transposition of the last two dimensions of whole tensors: batch, and the input's rows and columns.
fn transposition(axes: &[CopyAxis]) -> Option<[usize; 3]> {
    let (batch, [first, second]) = match axes {
        [first, second] => (None, [first, second]),
        [batch, first, second] => (Some(batch), [first, second]),
        _ => return None,
    };
    // The result's rows are the input's columns.
    let (columns, rows) = (first.len, second.len);
    let turned = first.from == 1
        && second.from == columns as isize
        && first.to == rows as isize
        && second.to == 1
        && rows.min(columns) >= 8;
    let whole = (rows * columns) as isize;
    let dense = batch.is_none_or(|batch| batch.from == whole && batch.to == whole);
    (turned && dense).then(|| [batch.map_or(1, |batch| batch.len), rows, columns])
}

/// Takes neighbouring elements as one longer word as far as everything is a multiple of it; the word's bytes.
fn widen(axes: &mut [CopyAxis], size: usize, from: usize, to: usize) -> usize {
    let Some((last, others)) = axes.split_last_mut() else {
        return size;
    };
    if (last.from, last.to) != (1, 1) {
        return size;
    }
    let mut bytes = size;
    loop {
        let longer = bytes * 2;
        let words = longer / size;
        let fits = longer <= LONGEST
            && last.len.is_multiple_of(words)
            && from.is_multiple_of(longer)
            && to.is_multiple_of(longer)
            && others
                .iter()
                .all(|axis| axis.from % words as isize == 0 && axis.to % words as isize == 0);
        if !fits {
            break;
        }
        bytes = longer;
    }
    let words = bytes / size;
    last.len /= words;
    for axis in others {
        axis.from /= words as isize;
        axis.to /= words as isize;
    }
    bytes
}
