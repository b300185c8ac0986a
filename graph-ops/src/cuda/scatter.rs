//! Kernels by which rows of updates meet rows of a tensor, each by the number of a row, always in the same order.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Result};
use graph_cuda::{Cuda, Function, Source, arguments, source};

use super::{blocks, type_name};

const SOURCE: Source = source!("scatter.cu");

/// A scatter that is ready to be given to the device.
pub(crate) struct Scatter {
    function: Function,
}

/// How much there is.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Updates.
    pub(crate) count: usize,
    /// Rows of the tensor.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) inner: usize,
    /// Whether one number is the update of all elements.
    pub(crate) repeated: bool,
}

impl Scatter {
    /// Of elements of `dtype` by numbers of `numbers`; `change` is what becomes of the element `old` that meets `update`.
    ///
    /// # Errors
    /// `Unimplemented` for dtypes that kernels do not calculate with.
    pub(crate) fn new(request: &KernelRequest<'_>, dtype: DType, numbers: DType, change: &str) -> Result<Self> {
        let defines = [("T", type_name(dtype)?), ("I", type_name(numbers)?), ("CHANGE", change)];
        Ok(Self {
            function: Cuda::of(request)?.function(&SOURCE, "scatter_rows", &defines)?,
        })
    }

    /// Gives the scatter to the device.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The addresses are of tensors of these sizes and the dtypes that [`Scatter::new`] was told of.
    pub(crate) unsafe fn run(
        &self,
        to: DeviceAddress,
        numbers: DeviceAddress,
        updates: DeviceAddress,
        extent: Extent,
    ) -> Result<()> {
        let Extent {
            count,
            rows,
            inner,
            repeated,
        } = extent;
        if count == 0 || inner == 0 {
            return Ok(());
        }
        let (count_of, rows, inner) = (count as i64, rows as i64, inner as i64);
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function.launch(
                blocks(count),
                [256, 1, 1],
                arguments![to, numbers, updates, count_of, rows, inner, i32::from(repeated)],
            )
        }
    }
}
