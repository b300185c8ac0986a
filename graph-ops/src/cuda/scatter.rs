//! Kernels by which rows of updates meet rows of a tensor, each named by numbers, always in the same order: updates are sorted
//! by their rows first.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Error, Result};
use graph_cuda::{Cuda, Function, Source, arguments, source};

use super::type_name;

const SOURCE: Source = source!("scatter.cu");

/// Keys of a block, and its threads, in `scatter.cu`.
const CHUNK: usize = 2048;
const THREADS: [u32; 3] = [256, 1, 1];

/// A scatter that is ready to be given to the device.
pub(crate) struct Scatter {
    sort: Function,
    merge_far: Function,
    merge_near: Function,
    apply: Function,
    /// Bytes of an element, and of a number.
    size: usize,
    numbers_size: usize,
}

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
}

/// How much there is.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Updates.
    pub(crate) count: usize,
    /// The dimensions that its rows lie along.
    pub(crate) dims: Depth,
    /// Elements of a row.
    pub(crate) inner: usize,
    /// Whether one number is the update of all elements.
    pub(crate) repeated: bool,
}

/// How many keys are sorted for as many updates: filled up to a power of two and to a chunk.
fn keys(count: usize) -> usize {
    count.next_power_of_two().max(CHUNK)
}

/// Bytes of scratch memory that a scatter of as many updates wants.
pub(crate) fn scratch(count: usize) -> usize {
    keys(count) * size_of::<u64>()
}

impl Extent {
    /// Bits of a key that hold an update's number; its row has the others.
    ///
    /// # Errors
    /// `Unimplemented` for more rows and updates than a key has bits for.
    fn bits(&self) -> Result<u32> {
        let bits = self.count.next_power_of_two().trailing_zeros();
        let sizes = self.dims.sizes.iter().take(self.dims.depth as usize);
        let rows = sizes.fold(1u64, |rows, &size| rows.saturating_mul(size.max(1) as u64));
        if rows.leading_zeros() <= bits || keys(self.count) / CHUNK > i32::MAX as usize {
            return Err(
                Error::unimplemented("too many updates of too many rows for the device's kernels")
                    .got(format!("{} updates of {rows} rows", self.count))
                    .hint("place the operation on the CPU"),
            );
        }
        Ok(bits)
    }
}

impl Scatter {
    /// Of elements of `dtype` by numbers of `numbers`; `change` is what becomes of the element `old` that meets `update`.
    ///
    /// # Errors
    /// `Unimplemented` for dtypes that kernels do not calculate with.
    pub(crate) fn new(request: &KernelRequest<'_>, dtype: DType, numbers: DType, change: &str) -> Result<Self> {
        let defines = [("T", type_name(dtype)?), ("I", type_name(numbers)?), ("CHANGE", change)];
        let cuda = Cuda::of(request)?;
        let function = |name| cuda.function(&SOURCE, name, &defines);
        Ok(Self {
            sort: function("sort_chunks")?,
            merge_far: function("merge_far")?,
            merge_near: function("merge_near")?,
            apply: function("scatter_rows")?,
            size: dtype.size().unwrap_or(0),
            numbers_size: numbers.size().unwrap_or(0),
        })
    }

    /// Gives the scatter to the device.
    ///
    /// # Errors
    /// `Unimplemented` for more rows and updates than keys have bits for, and the device's.
    ///
    /// # Safety
    /// The addresses are of tensors of these sizes and the dtypes that [`Scatter::new`] was told of, and of as much scratch memory
    /// as [`scratch`] says.
    pub(crate) unsafe fn run(
        &self,
        to: DeviceAddress,
        numbers: DeviceAddress,
        updates: DeviceAddress,
        extent: Extent,
        scratch: DeviceAddress,
    ) -> Result<()> {
        let Extent {
            count,
            dims,
            inner,
            repeated,
        } = extent;
        if count == 0 || inner == 0 {
            return Ok(());
        }
        let (keys, bits) = (keys(count), extent.bits()? as i32);
        let (updates_of, chunks) = (count as i64, [(keys / CHUNK) as u32, 1, 1]);
        let key_bytes = keys * size_of::<u64>();
        let (merge_far, merge_near) = (
            self.merge_far.clone().moving(2 * key_bytes),
            self.merge_near.clone().moving(2 * key_bytes),
        );
        // As if each update had a row of its own.
        let elements = count * inner;
        let updates_read = if repeated { 1 } else { elements };
        let apply = self
            .apply
            .clone()
            .moving(key_bytes + (updates_read + 2 * elements) * self.size)
            .doing(elements);
        // SAFETY: these are the kernels' parameters; the caller's promise is of the addresses.
        unsafe {
            self.sort
                .clone()
                .moving(self.numbers_size * count * dims.depth as usize + key_bytes)
                .launch(chunks, THREADS, arguments![scratch, numbers, updates_of, bits, dims])?;
            let mut size = 2 * CHUNK;
            while size <= keys {
                let mut distance = size / 2;
                while distance >= CHUNK {
                    let pairs = keys / 2;
                    merge_far.launch_over(pairs, arguments![scratch, pairs as i64, size as i64, distance as i64])?;
                    distance /= 2;
                }
                merge_near.launch(chunks, THREADS, arguments![scratch, size as i64])?;
                size *= 2;
            }
            apply.launch_over(
                count * inner,
                arguments![
                    to,
                    scratch,
                    updates,
                    updates_of,
                    bits,
                    inner as i64,
                    i32::from(repeated)
                ],
            )
        }
    }
}
