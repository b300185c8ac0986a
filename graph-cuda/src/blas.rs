//! Products of matrices, by cuBLAS.
//!
//! `cudarc` panics where the library is missing, so that [`Blas::open`] looks for it first.

use std::ffi::c_void;

use cudarc::cublas::{result, sys};
use cudarc::driver;
use graph_core::{DType, Error, Result};

use crate::driver::{LANES, Product};
use crate::library::factor;
use crate::nvidia::failed;

/// What it is given to work in, in bytes, by each lane: what its manual advises from Hopper on. It may not allocate while work is
/// recorded, and it gives the same bits in all lanes only with memory of the same size that is theirs alone.
const WORKSPACE: usize = 32 << 20;

/// The library with its handle, and memory for it.
pub(crate) struct Blas {
    handle: sys::cublasHandle_t,
    /// For each lane.
    workspaces: [u64; LANES],
    /// The lane that the handle is set to, if any.
    lane: Option<usize>,
    tf32: bool,
}

// SAFETY: it may be used from any thread, one at a time, which a lock sees to.
unsafe impl Send for Blas {}

impl Blas {
    /// The library for the context that is current; with `tf32`, products of `float` matrices round their operands to
    /// TensorFloat-32.
    ///
    /// # Errors
    /// `Unavailable` if it is not there, `ResourceExhausted` if there is no memory for it, and its own.
    pub(crate) fn open(tf32: bool) -> Result<Self> {
        // SAFETY: only looks for the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::unavailable("cuBLAS, which multiplies matrices, is not there")
                .hint("install the CUDA toolkit's cuBLAS (libcublas.so), or run on the CPU"));
        }
        let mut blas = Self {
            handle: result::create_handle().map_err(blas_failed)?,
            workspaces: [0; LANES],
            lane: None,
            tf32,
        };
        for workspace in &mut blas.workspaces {
            // SAFETY: what it holds is arbitrary, as the library takes it.
            *workspace = unsafe { driver::result::malloc_sync(WORKSPACE) }
                .map_err(|error| failed("asking for memory for cuBLAS", error))?;
        }
        Ok(blas)
    }

    /// From now on its work goes to this lane, which is this stream.
    pub(crate) fn set_lane(&mut self, lane: usize, stream: driver::sys::CUstream) -> Result<()> {
        if self.lane == Some(lane) {
            return Ok(());
        }
        self.lane = None;
        // SAFETY: the handle lives, the stream as long, and so does the memory, which to set the stream takes away.
        unsafe {
            result::set_stream(self.handle, stream as sys::cudaStream_t).map_err(blas_failed)?;
            let workspace = self.workspaces[lane] as *mut c_void;
            let set = sys::cublasSetWorkspace_v2(self.handle, workspace, WORKSPACE);
            set.result().map_err(blas_failed)?;
        }
        self.lane = Some(lane);
        Ok(())
    }

    /// Where the current lane's memory lies, and how many bytes it has.
    pub(crate) fn workspace(&self) -> (u64, usize) {
        (self.workspaces[self.lane.unwrap_or(0)], WORKSPACE)
    }

    /// See [`Driver::multiply`](crate::driver::Driver::multiply).
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<()> {
        use sys::cublasComputeType_t::{CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_COMPUTE_64F};
        use sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
        use sys::cudaDataType_t::{CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F, CUDA_R_64F};
        let (ty, compute) = match product.dtype {
            DType::Float32 if self.tf32 => (CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32),
            DType::Float32 => (CUDA_R_32F, CUBLAS_COMPUTE_32F),
            DType::Float64 => (CUDA_R_64F, CUBLAS_COMPUTE_64F),
            DType::Half => (CUDA_R_16F, CUBLAS_COMPUTE_32F),
            DType::BFloat16 => (CUDA_R_16BF, CUBLAS_COMPUTE_32F),
            other => {
                return Err(Error::unimplemented(format!(
                    "cuBLAS does not multiply matrices of {other}"
                )));
            }
        };
        let size = |length: usize| {
            i32::try_from(length).map_err(|_| Error::invalid_argument("a matrix too large for cuBLAS").got(length))
        };
        let (rows, columns, inner) = (size(product.rows)?, size(product.columns)?, size(product.inner)?);
        let operation = |transposed| if transposed { CUBLAS_OP_T } else { CUBLAS_OP_N };
        let step_a = if product.transpose_a { rows } else { inner };
        let step_b = if product.transpose_b { inner } else { columns };
        let accumulate = f64::from(u8::from(product.accumulate));
        let (alpha, beta) = (factor(product.dtype, 1.0), factor(product.dtype, accumulate));
        let [stride_a, stride_b, stride_c] = product.strides.map(|stride| stride as i64);
        // cuBLAS takes matrices column by column: the transposed product of the same memory.
        // SAFETY: the caller's promise; the sizes are those of the operands.
        unsafe {
            result::gemm_strided_batched_ex(
                self.handle,
                operation(product.transpose_b),
                operation(product.transpose_a),
                columns,
                rows,
                inner,
                std::ptr::from_ref(&alpha).cast(),
                b as *const c_void,
                ty,
                step_b.max(1),
                stride_b,
                a as *const c_void,
                ty,
                step_a.max(1),
                stride_a,
                std::ptr::from_ref(&beta).cast(),
                c as *mut c_void,
                ty,
                columns.max(1),
                stride_c,
                size(product.batch)?,
                compute,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(blas_failed)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: no work uses it any more, and the device is this thread's; errors cannot be told to anyone.
        unsafe {
            let _ = result::destroy_handle(self.handle);
            for workspace in self.workspaces.into_iter().filter(|&workspace| workspace != 0) {
                let _ = driver::result::free_sync(workspace);
            }
        }
    }
}

fn blas_failed(error: result::CublasError) -> Error {
    Error::internal("cuBLAS failed").caused_by(error)
}
