//! Kernels by which rows of updates meet rows of a tensor, each named by numbers, always in the same order.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Error, Result};
use graph_cuda::{Cuda, Function, Source, arguments, source};

use super::{blocks, type_name};

const SOURCE: Source = source!("scatter.cu");

/// A scatter that is ready to be given to the device.
pub(crate) struct Scatter {
    function: Function,
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
            dims,
            inner,
            repeated,
        } = extent;
        if count == 0 || inner == 0 {
            return Ok(());
        }
        let (updates_of, inner) = (count as i64, inner as i64);
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function.launch(
                blocks(count),
                [256, 1, 1],
                arguments![to, numbers, updates, updates_of, dims, inner, i32::from(repeated)],
            )
        }
    }
}
