//! Kernels that write one number everywhere.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelRequest, Planned};
use graph_core::{DType, Result};
use graph_cuda::{Cuda, Function, Source, arguments, source};

use super::type_name;

const SOURCE: Source = source!("fill.cu");

/// One number in many places, ready to be given to the device.
pub(crate) struct Fill(Function);

impl Fill {
    /// Of elements of `dtype`; the number is an expression in CUDA C.
    ///
    /// # Errors
    /// `Unimplemented` for dtypes that kernels do not calculate with.
    pub(crate) fn new(request: &KernelRequest<'_>, dtype: DType, value: &str) -> Result<Self> {
        let defines = [("O", type_name(dtype)?), ("VALUE", value)];
        Cuda::of(request)?.function(&SOURCE, "fill", &defines).map(Self)
    }

    /// Of zeros of any dtype: their bits are zero.
    ///
    /// # Errors
    /// `Unimplemented` for elements that have no size.
    pub(crate) fn zeros(request: &KernelRequest<'_>, dtype: DType) -> Result<Self> {
        let (_, word) = super::word_of(dtype)?;
        let defines = [("O", word), ("VALUE", if word == "u128" { "u128{}" } else { "0" })];
        Cuda::of(request)?.function(&SOURCE, "fill", &defines).map(Self)
    }

    /// Gives the work to the device.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The address is of a tensor of `count` elements of the dtype.
    pub(crate) unsafe fn run(&self, out: DeviceAddress, count: usize) -> Result<()> {
        // SAFETY: these are the kernel's parameters; the caller's promise is of the address.
        unsafe { self.0.launch_over(count.div_ceil(4), arguments![out, count as i64]) }
    }
}

/// A kernel that fills output 0 with a number, an expression in CUDA C.
///
/// # Errors
/// Those of [`Fill::new`].
pub(crate) fn fill(request: &KernelRequest<'_>, value: &str) -> Result<Planned> {
    filling(request, Fill::new(request, request.output_dtype(0), value)?)
}

/// A kernel that fills output 0 with zeros.
///
/// # Errors
/// Those of [`Fill::zeros`].
pub(crate) fn zeros(request: &KernelRequest<'_>) -> Result<Planned> {
    filling(request, Fill::zeros(request, request.output_dtype(0))?)
}

fn filling(request: &KernelRequest<'_>, fill: Fill) -> Result<Planned> {
    let count = request.output_shape(0)?.num_elements();
    Ok(Planned::new(move |context| {
        // SAFETY: the output has this many elements.
        unsafe { fill.run(context.output_address(0), count) }
    }))
}
