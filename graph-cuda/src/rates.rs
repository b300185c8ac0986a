//! What a device can do at most, as it is measured: the roofline of its kernels.

use std::time::Duration;

use graph_core::accelerator::{DeviceMemory, KernelStats};
use graph_core::{DType, Result};

use crate::Cuda;
use crate::driver::Product;

/// How often each rate is measured; the best counts.
const ROUNDS: usize = 5;

/// Rates of a device.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rates {
    /// Bytes that a large copy reads and writes in a second.
    pub bytes: f64,
    /// Floating-point operations of a large product of `float` matrices in a second.
    pub flops: f64,
}

impl Rates {
    /// Measures them by a copy of `bytes` bytes and a product of square matrices of `side` rows.
    ///
    /// # Errors
    /// `ResourceExhausted` if there is no memory for that, and the device's.
    pub fn measure(cuda: &Cuda, bytes: usize, side: usize) -> Result<Self> {
        let gpu = cuda.accelerator();
        let bytes = bytes.max(4);
        let area = (side * side * 4).max(4);
        let [from, to] = [DeviceMemory::new(&gpu, bytes)?, DeviceMemory::new(&gpu, bytes)?];
        let a = DeviceMemory::new(&gpu, area)?;
        let b = DeviceMemory::new(&gpu, area)?;
        let c = DeviceMemory::new(&gpu, area)?;
        for memory in [&a, &b] {
            gpu.upload(&vec![0; area], memory.address())?;
        }
        gpu.begin_trace()?;
        let given = (0..ROUNDS).try_for_each(|_| {
            gpu.copy(from.address(), to.address(), bytes)?;
            let product = Product::new(DType::Float32, side, side, side);
            // SAFETY: the matrices are of this size.
            unsafe { cuda.multiply(&product, a.address(), b.address(), c.address()) }
        });
        let timed = gpu.end_trace();
        given?;
        let timed = timed?;
        let best = |amount: fn(&KernelStats) -> u64| {
            let of = |stats: &KernelStats| amount(stats) as f64 / stats.time.max(Duration::from_nanos(1)).as_secs_f64();
            timed.iter().map(of).fold(0.0, f64::max)
        };
        Ok(Self {
            bytes: best(|stats| if stats.flops == 0 { stats.bytes } else { 0 }),
            flops: best(|stats| stats.flops),
        })
    }

    /// The share, 0 to 1, of what the device can do that a piece of work did: of its memory or of its arithmetic, whichever is
    /// nearer to its limit. `None` of work that does not say what it has to do.
    pub fn share(&self, stats: &KernelStats) -> Option<f64> {
        let least = (stats.bytes as f64 / self.bytes).max(stats.flops as f64 / self.flops);
        (least > 0.0 && !stats.time.is_zero()).then(|| least / stats.time.as_secs_f64())
    }
}
