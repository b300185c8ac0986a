//! Updates sorted by the rows of a tensor that they are of (`row_order.cu`), so that whatever takes them does so in one order.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Error, Result};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::type_name;
use super::window::joined_source;

const SOURCE: Source = joined_source!("row_order.cu": "row_order.cuh", "row_order.cu");

/// Keys of a block, and its threads, in `row_order.cu`.
const CHUNK: usize = 2048;
const THREADS: [u32; 3] = [256, 1, 1];

/// The dimensions that the numbers of a row speak of, as kernels take them.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Depth {
    depth: i64,
    sizes: [i64; 8],
}

impl Depth {
    /// # Errors
    /// `Unimplemented` for more dimensions than kernels have room for.
    pub(crate) fn new(dims: &[usize]) -> Result<Self> {
        let mut depth = Self {
            depth: dims.len() as i64,
            sizes: [1; 8],
        };
        if dims.len() > depth.sizes.len() {
            return Err(Error::unimplemented("numbers that speak of more than 8 dimensions"));
        }
        for (size, &dim) in depth.sizes.iter_mut().zip(dims) {
            *size = dim as i64;
        }
        Ok(depth)
    }

    /// Bits of a key that hold the number of one of `count` updates; its row has the others.
    ///
    /// # Errors
    /// `Unimplemented` for more rows and updates than a key has bits for.
    fn bits(&self, count: usize) -> Result<u32> {
        let bits = count.next_power_of_two().trailing_zeros();
        let sizes = self.sizes.iter().take(self.depth as usize);
        let rows = sizes.fold(1u64, |rows, &size| rows.saturating_mul(size.max(1) as u64));
        if rows.leading_zeros() <= bits || keys(count) / CHUNK > i32::MAX as usize {
            return Err(
                Error::unimplemented("too many updates of too many rows for the device's kernels")
                    .got(format!("{count} updates of {rows} rows"))
                    .hint("place the operation on the CPU"),
            );
        }
        Ok(bits)
    }
}

/// How many keys are sorted for as many updates: filled up to a power of two and to a chunk.
fn keys(count: usize) -> usize {
    count.next_power_of_two().max(CHUNK)
}

/// Bytes of scratch memory that the keys of as many updates want.
pub(crate) fn scratch(count: usize) -> usize {
    keys(count) * size_of::<u64>()
}

/// Sorted keys, as kernels take them.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct RowOrder {
    keys: DeviceAddress,
    count: i64,
    bits: i64,
}

/// The kernels that sort the keys of some number of updates.
pub(crate) struct SortRows {
    sort: Function,
    merge_far: Function,
    merge_near: Function,
    count: usize,
    /// Bytes of a number.
    size: usize,
}

impl SortRows {
    /// Of `count` updates, whose rows are told by numbers of this dtype.
    ///
    /// # Errors
    /// `Unimplemented` for dtypes that are no numbers.
    pub(crate) fn new(request: &KernelRequest<'_>, numbers: DType, count: usize) -> Result<Self> {
        let defines = [("I", type_name(numbers)?)];
        let cuda = Cuda::of(request)?;
        let function = |name| cuda.function(&SOURCE, name, &defines);
        Ok(Self {
            sort: function("sort_chunks")?,
            merge_far: function("merge_far")?.moving(2 * scratch(count)),
            merge_near: function("merge_near")?.moving(2 * scratch(count)),
            count,
            size: numbers.size().unwrap_or(0),
        })
    }

    /// Sorts the updates by the rows of a tensor that has these first dimensions.
    ///
    /// # Errors
    /// `Unimplemented` for more rows and updates than keys have bits for, and the device's.
    ///
    /// # Safety
    /// There are as many numbers for each update as dimensions, and as much memory for keys as [`scratch`] says.
    pub(crate) unsafe fn run(&self, numbers: DeviceAddress, dims: Depth, to: DeviceAddress) -> Result<RowOrder> {
        let (keys, bits) = (keys(self.count), dims.bits(self.count)?);
        let order = RowOrder {
            keys: to,
            count: self.count as i64,
            bits: bits.into(),
        };
        if self.count == 0 {
            return Ok(order);
        }
        let chunks = [(keys / CHUNK) as u32, 1, 1];
        let read = self.count * dims.depth as usize * self.size;
        let sort = self.sort.clone().moving(read + scratch(self.count));
        // SAFETY: these are the kernels' parameters; the caller's promise is of the addresses.
        unsafe {
            sort.launch(chunks, THREADS, arguments![to, numbers, order.count, bits as i32, dims])?;
            let mut size = 2 * CHUNK;
            while size <= keys {
                let mut distance = size / 2;
                while distance >= CHUNK {
                    let pairs = keys / 2;
                    self.merge_far
                        .launch_over(pairs, arguments![to, pairs as i64, size as i64, distance as i64])?;
                    distance /= 2;
                }
                self.merge_near.launch(chunks, THREADS, arguments![to, size as i64])?;
                size *= 2;
            }
        }
        Ok(order)
    }
}
