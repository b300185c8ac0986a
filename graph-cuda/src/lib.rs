//! A CUDA device for the engine: its driver, memory, compiled kernels, products of matrices, and work that is recorded once
//! and replayed. What any op computes is said in `graph-ops`, which brings the kernels' sources.
//!
//! CUDA's libraries are loaded when they are first needed, so that the same program runs with and without them:
//! [`devices`] tells what there is, and [`open`] opens one.
//!
//! | module | holds |
//! |---|---|
//! | [`driver`] | what is asked of a device, as a trait |
//! | `nvidia`, [`nvrtc`] | NVIDIA's driver with cuBLAS, and its compiler |
//! | [`emulator`] (feature) | the host's processor and C++ compiler in their place |
//! | `library`, `blas_lt`, `cudnn` | libraries of which a few functions are called: cuBLASLt, cuDNN |
//! | [`Cuda`], [`Function`] | a device and a kernel, as ops see them |
//! | [`Rates`] | what a device can do at most, measured |
//! | [`choice`] | the choice between the engine's own convolutions and cuDNN's |
//! | [`cache`] | compiled kernels and choices on disk |

mod blas;
mod blas_lt;
pub mod cache;
pub mod choice;
#[cfg(all(test, feature = "emulator"))]
mod choice_tests;
pub mod convolution;
mod cudnn;
mod device;
pub mod driver;
#[cfg(feature = "emulator")]
pub mod emulator;
mod gate;
mod library;
mod nvidia;
pub mod nvrtc;
mod options;
mod pool;
mod rates;
mod source;
mod staging;
#[cfg(all(test, feature = "emulator"))]
mod tests;
mod trace;

pub use choice::{ConvolutionKernels, Method};
pub use device::{Cuda, Function, WorkCounts};
pub use driver::{Capability, DeviceInfo, Product};
pub use nvidia::devices;
pub use options::DeviceOptions;
pub use rates::Rates;
pub use source::{PRELUDE, Source};

use graph_core::{Error, Result};

/// Opens the device of this index.
///
/// # Errors
/// `Unavailable` if the driver or NVRTC is not there, `FailedPrecondition` for a driver that is too old, `InvalidArgument` for an
/// environment variable that makes no sense, and the driver's.
pub fn open(index: u32, options: &DeviceOptions) -> Result<Cuda> {
    // Says what is missing before anything that is missing is called.
    let devices = devices()?;
    if index as usize >= devices.len() {
        return Err(Error::invalid_argument("there is no such GPU")
            .expected(format!("an index below {}", devices.len()))
            .got(index));
    }
    let options = &options.completed()?;
    let driver = nvidia::Nvidia::open(index, options.tf32)?;
    let compiler = nvrtc::Nvrtc::new(driver::Driver::info(&driver).capability)?;
    Ok(Cuda::new(
        Box::new(driver),
        Box::new(compiler),
        cache::Cache::of_user(),
        options,
    ))
}

/// Opens all devices of the machine that are visible; see [`devices`] and [`open`].
///
/// # Errors
/// Those of [`devices`] and [`open`].
pub fn open_all(options: &DeviceOptions) -> Result<Vec<Cuda>> {
    devices()?.iter().map(|info| open(info.index, options)).collect()
}
