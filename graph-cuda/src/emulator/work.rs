//! What an emulated device is given to do, at once or when what it recorded is launched.

use std::ffi::c_void;
use std::sync::Arc;

use graph_core::DType;

use super::convolutions::{ConvolutionLibrary, EmulatedAlgorithm};
use crate::convolution::Convolution;
use crate::driver::{Epilogue, Grid, Product};

/// A kernel as the emulator's header makes it: blocks, threads, arguments.
pub(super) type Kernel = unsafe extern "C" fn(*const u32, *const u32, *const *const c_void);

/// Work that is recorded.
pub(super) enum Work {
    Copy {
        from: u64,
        to: u64,
        bytes: usize,
    },
    Launch {
        kernel: Kernel,
        grid: Grid,
        arguments: Vec<Vec<u64>>,
    },
    Multiply {
        product: Product,
        /// As a library does that has such.
        epilogue: Option<Epilogue>,
        a: u64,
        b: u64,
        c: u64,
    },
    Convolve {
        library: Arc<ConvolutionLibrary>,
        convolution: Convolution,
        algorithm: EmulatedAlgorithm,
        tensors: [u64; 3],
        workspace: u64,
    },
}

impl Work {
    /// # Safety
    /// That of [`Driver`](crate::driver::Driver).
    pub(super) unsafe fn run(&self) {
        match self {
            Self::Copy { from, to, bytes } => {
                // SAFETY: the caller's promise.
                unsafe { std::ptr::copy(*from as *const u8, *to as *mut u8, *bytes) }
            }
            Self::Launch {
                kernel,
                grid,
                arguments,
            } => {
                let pointers: Vec<*const c_void> = arguments.iter().map(|words| words.as_ptr().cast()).collect();
                // SAFETY: the caller's promise.
                unsafe { kernel(grid.blocks.as_ptr(), grid.threads.as_ptr(), pointers.as_ptr()) }
            }
            Self::Convolve {
                library,
                convolution,
                algorithm,
                tensors,
                workspace,
            } => {
                // SAFETY: the caller's promise.
                unsafe { library.run(convolution, algorithm, *tensors, *workspace) }
            }
            Self::Multiply {
                product,
                epilogue,
                a,
                b,
                c,
            } => {
                match product.dtype {
                    // SAFETY: the caller's promise, here and below.
                    DType::Float32 => unsafe {
                        multiply::<f32>(product, *epilogue, [*a, *b, *c], f64::from, |sum| sum as f32)
                    },
                    // SAFETY: as above.
                    DType::Float64 => unsafe { multiply::<f64>(product, *epilogue, [*a, *b, *c], |x| x, |sum| sum) },
                    // SAFETY: as above.
                    DType::Half => unsafe {
                        let narrow = |sum| half::f16::from_f32(sum as f32);
                        multiply::<half::f16>(product, *epilogue, [*a, *b, *c], f64::from, narrow)
                    },
                    // SAFETY: as above.
                    _ => unsafe {
                        let narrow = |sum| half::bf16::from_f32(sum as f32);
                        multiply::<half::bf16>(product, *epilogue, [*a, *b, *c], f64::from, narrow)
                    },
                }
            }
        }
    }
}

/// # Safety
/// That of [`Driver::multiply`](crate::driver::Driver::multiply).
unsafe fn multiply<T: Copy>(
    product: &Product,
    epilogue: Option<Epilogue>,
    [a, b, c]: [u64; 3],
    wide: fn(T) -> f64,
    narrow: fn(f64) -> T,
) {
    let Product {
        rows, columns, inner, ..
    } = *product;
    let (step_a, step_b) = (
        if product.transpose_a { (1, rows) } else { (inner, 1) },
        if product.transpose_b { (1, inner) } else { (columns, 1) },
    );
    for at in 0..product.batch {
        let [a, b, c] = [(a, 0), (b, 1), (c, 2)].map(|(start, which)| {
            // Wrapping: only addresses inside of the operands are followed.
            (start as *mut T).wrapping_add(at * product.strides[which])
        });
        for row in 0..rows {
            for column in 0..columns {
                let mut sum = 0.0;
                for k in 0..inner {
                    // SAFETY: inside of the operands, as the caller promises.
                    let (x, y) = unsafe {
                        (
                            *a.add(row * step_a.0 + k * step_a.1),
                            *b.add(k * step_b.0 + column * step_b.1),
                        )
                    };
                    sum += wide(x) * wide(y);
                }
                // SAFETY: as above.
                unsafe {
                    let place = c.add(row * columns + column);
                    if product.accumulate {
                        sum += wide(*place);
                    }
                    if let Some(Epilogue { bias, relu }) = epilogue {
                        // In `float`, as cuBLASLt does; what is stored is rounded once.
                        sum = f64::from(sum as f32) + wide(*(bias as *const T).add(column));
                        sum = if relu && sum <= 0.0 { 0.0 } else { sum };
                    }
                    *place = narrow(sum);
                }
            }
        }
    }
}
