//! Kernels by which rows of updates meet rows of a tensor, each named by numbers, always in the same order: updates are sorted
//! by their rows first.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Result};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::row_order::SortRows;
pub(crate) use super::row_order::{Depth, scratch};
use super::type_name;
use super::window::joined_source;

const SOURCE: Source = joined_source!("scatter.cu": "row_order.cuh", "scatter.cu");

/// A scatter that is ready to be given to the device.
pub(crate) struct Scatter {
    sort: SortRows,
    apply: Function,
    count: usize,
    /// Bytes of an element.
    size: usize,
}

/// How much there is beside the updates' number.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// The dimensions that the rows of updates lie along.
    pub(crate) dims: Depth,
    /// Elements of a row.
    pub(crate) inner: usize,
    /// Whether one number is the update of all elements.
    pub(crate) repeated: bool,
}

impl Scatter {
    /// Of `count` updates whose elements are of `dtype`, and whose rows are told by numbers of `numbers`; `change` is what becomes
    /// of the element `old` that meets `update`.
    ///
    /// # Errors
    /// `Unimplemented` for dtypes that kernels do not calculate with.
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        dtype: DType,
        numbers: DType,
        count: usize,
        change: &str,
    ) -> Result<Self> {
        let defines = [("T", type_name(dtype)?), ("CHANGE", change)];
        Ok(Self {
            sort: SortRows::new(request, numbers, count)?,
            apply: Cuda::of(request)?.function(&SOURCE, "scatter_rows", &defines)?,
            count,
            size: dtype.size().unwrap_or(0),
        })
    }

    /// Gives the scatter to the device.
    ///
    /// # Errors
    /// Those of [`SortRows::run`].
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
        let Extent { dims, inner, repeated } = extent;
        let elements = self.count * inner;
        if elements == 0 {
            return Ok(());
        }
        // As if each update had a row of its own.
        let read = if repeated { 1 } else { elements };
        let bytes = self.count * size_of::<u64>() + (read + 2 * elements) * self.size;
        let apply = self.apply.clone().moving(bytes).doing(elements);
        // SAFETY: these are the kernels' parameters; the caller's promise is of the addresses.
        unsafe {
            let order = self.sort.run(numbers, dims, scratch)?;
            apply.launch_over(
                elements,
                arguments![to, updates, order, inner as i64, i32::from(repeated)],
            )
        }
    }
}
