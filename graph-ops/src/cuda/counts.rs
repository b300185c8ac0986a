//! What kernels of which only the data tells the results' shapes share: sums of counts, the few numbers that the host asks the
//! device for, and results of the shapes that these tell.

use std::sync::Arc;

use graph_core::accelerator::{Accelerator, DeviceAddress, DeviceTensor, StoredTensor};
use graph_core::op::{KernelContext, KernelRequest};
use graph_core::{DType, Error, Result, Shape};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::window::joined_source;

const SOURCE: Source = joined_source!("counts.cu": "counts.cuh", "counts.cu");

/// Counts in the device's memory, of which each becomes the sum of those before it.
pub(crate) struct SumCounts {
    function: Function,
    count: usize,
}

impl SumCounts {
    /// Of `count` counts.
    ///
    /// # Errors
    /// The compiler's.
    pub(crate) fn new(request: &KernelRequest<'_>, count: usize) -> Result<Self> {
        let function = Cuda::of(request)?.function(&SOURCE, "sum_counts", &[])?;
        let function = function.moving((2 * count + 1) * size_of::<i64>());
        Ok(Self { function, count })
    }

    /// Bytes of the counts, and of the sum of all behind them.
    pub(crate) fn bytes(&self) -> usize {
        (self.count + 1) * size_of::<i64>()
    }

    /// The sum of all, which the host waits for.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// There are [`SumCounts::bytes`] bytes at the address, which begin with the counts.
    pub(crate) unsafe fn run(&self, context: &KernelContext<'_>, counts: DeviceAddress) -> Result<usize> {
        // SAFETY: these are the kernel's parameters; the caller's promise is of the address.
        unsafe {
            self.function
                .launch([1, 1, 1], [256, 1, 1], arguments![counts, self.count as i64])?;
        }
        let total = told(context, counts.offset(self.count * size_of::<i64>()), 1)?;
        Ok(total[0] as usize)
    }
}

/// The device that a kernel of a device runs on.
///
/// # Errors
/// `Internal` on the host.
pub(crate) fn device_of<'a>(context: &KernelContext<'a>) -> Result<&'a Arc<dyn Accelerator>> {
    let accelerator = context.accelerator();
    accelerator.ok_or_else(|| Error::internal("a kernel of a device runs on the host"))
}

/// The `count` whole numbers at an address of the device's memory, which the host waits for.
///
/// # Errors
/// The device's.
pub(crate) fn told(context: &KernelContext<'_>, at: DeviceAddress, count: usize) -> Result<Vec<i64>> {
    let mut bytes = vec![0u8; count * size_of::<i64>()];
    device_of(context)?.download(at, &mut bytes)?;
    let (numbers, _) = bytes.as_chunks();
    Ok(numbers.iter().map(|&number| i64::from_ne_bytes(number)).collect())
}

/// Input `index`, which the device has, as whole numbers on the host: to say what is wrong with them.
///
/// # Errors
/// The device's, and `InvalidArgument` for other dtypes.
pub(crate) fn integers(context: &KernelContext<'_>, index: usize) -> Result<Vec<i64>> {
    context.stored_input(index)?.into_host()?.to_i64_vec()
}

/// Makes output `index` of a data-dependent kernel a tensor of this dtype and shape, to be written; its address.
///
/// # Errors
/// `ResourceExhausted`
pub(crate) fn allocate(
    context: &mut KernelContext<'_>,
    index: usize,
    dtype: DType,
    shape: impl Into<Shape>,
) -> Result<DeviceAddress> {
    let tensor = DeviceTensor::new(device_of(context)?, dtype, shape.into())?;
    let address = tensor.memory.address();
    context.set_stored_output(index, StoredTensor::Device(tensor))?;
    Ok(address)
}
