//! Kernels that write one number everywhere.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelRequest, Planned};
use graph_core::{DType, Result};
use graph_cuda::{Cuda, Function, Source, arguments, source};

use super::type_name;

const SOURCE: Source = source!("fill.cu");

/// One number in many places, ready to be given to the device.
pub(crate) struct Fill {
    function: Function,
    count: usize,
}

impl Fill {
    /// Of `count` elements of `dtype`; the number is an expression in CUDA C.
    ///
    /// # Errors
    /// `Unimplemented` for dtypes that kernels do not calculate with.
    pub(crate) fn new(request: &KernelRequest<'_>, dtype: DType, count: usize, value: &str) -> Result<Self> {
        Self::of(request, dtype, count, [("O", type_name(dtype)?), ("VALUE", value)])
    }

    /// Of `count` zeros of any dtype: their bits are zero.
    ///
    /// # Errors
    /// `Unimplemented` for elements that have no size.
    pub(crate) fn zeros(request: &KernelRequest<'_>, dtype: DType, count: usize) -> Result<Self> {
        let (_, word) = super::word_of(dtype)?;
        let value = if word == "u128" { "u128{}" } else { "0" };
        Self::of(request, dtype, count, [("O", word), ("VALUE", value)])
    }

    fn of(request: &KernelRequest<'_>, dtype: DType, count: usize, defines: [(&str, &str); 2]) -> Result<Self> {
        let function = Cuda::of(request)?.function(&SOURCE, "fill", &defines)?;
        Ok(Self {
            function: function.moving(count * dtype.size().unwrap_or(0)),
            count,
        })
    }

    /// Gives the work to the device.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The address is of a tensor of as many elements of the dtype.
    pub(crate) unsafe fn run(&self, out: DeviceAddress) -> Result<()> {
        // SAFETY: these are the kernel's parameters; the caller's promise is of the address.
        unsafe {
            self.function
                .launch_over(self.count.div_ceil(4), arguments![out, self.count as i64])
        }
    }
}

/// A kernel that fills output 0 with a number, an expression in CUDA C.
///
/// # Errors
/// Those of [`Fill::new`].
pub(crate) fn fill(request: &KernelRequest<'_>, value: &str) -> Result<Planned> {
    let count = request.output_shape(0)?.num_elements();
    Fill::new(request, request.output_dtype(0), count, value).map(filling)
}

/// A kernel that fills output 0 with zeros.
///
/// # Errors
/// Those of [`Fill::zeros`].
pub(crate) fn zeros(request: &KernelRequest<'_>) -> Result<Planned> {
    let count = request.output_shape(0)?.num_elements();
    Fill::zeros(request, request.output_dtype(0), count).map(filling)
}

fn filling(fill: Fill) -> Planned {
    Planned::new(move |context| {
        // SAFETY: the output has this many elements.
        unsafe { fill.run(context.output_address(0)) }
    })
}
