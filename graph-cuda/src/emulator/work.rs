//! What an emulated device is given to do, at once or when what it recorded is launched.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graph_core::DType;

use super::convolutions::{ConvolutionLibrary, EmulatedAlgorithm};
use crate::convolution::Convolution;
use crate::driver::{Epilogue, Grid, Handle, LANES, Product};

/// A kernel as the emulator's header makes it: blocks, threads, arguments.
pub(super) type Kernel = unsafe extern "C" fn(*const u32, *const u32, *const *const c_void);

/// Work in lanes.
#[derive(Default)]
pub(super) struct Recording {
    /// Pieces of work, and before each the pieces that it waits for.
    pieces: Vec<(Work, Vec<usize>)>,
    /// For what the next piece of each lane waits: the last of the lane, and those that it was told to wait for.
    next: [Vec<usize>; LANES],
    lane: usize,
    /// For what work behind each mark waits.
    marks: Vec<Vec<usize>>,
    launches: u64,
}

impl Recording {
    pub(super) fn push(&mut self, work: Work) {
        let place = self.pieces.len();
        self.pieces
            .push((work, std::mem::replace(&mut self.next[self.lane], vec![place])));
    }

    pub(super) fn enter(&mut self, lane: usize, after: &[Handle]) {
        self.lane = lane;
        let marked = after.iter().filter_map(|&mark| self.marks.get(mark)).flatten();
        self.next[lane].extend(marked);
    }

    pub(super) fn mark(&mut self) -> Handle {
        self.marks.push(self.next[self.lane].clone());
        self.marks.len() - 1
    }

    /// Runs all of it, in an order that it allows and that no GPU would take: what may be done early is, one launch in two; in the
    /// others any piece of those that may be next. Tells what it took.
    ///
    /// # Safety
    /// That of [`Driver`](crate::driver::Driver).
    pub(super) unsafe fn run(&mut self) -> Duration {
        let mut took = Duration::ZERO;
        self.launches += 1;
        let mut random = self.launches.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut done = vec![false; self.pieces.len()];
        let mut ready: Vec<usize> = Vec::new();
        let mut seen = vec![false; self.pieces.len()];
        for _ in 0..self.pieces.len() {
            for (place, (_, after)) in self.pieces.iter().enumerate() {
                if !seen[place] && after.iter().all(|&other| done[other]) {
                    seen[place] = true;
                    ready.push(place);
                }
            }
            ready.sort_unstable();
            let next = match self.launches % 2 {
                1 => ready.len() - 1,
                _ => {
                    random = random
                        .wrapping_mul(0x5851_f42d_4c95_7f2d)
                        .wrapping_add(0x1405_7b7e_f767_814f);
                    (random >> 33) as usize % ready.len()
                }
            };
            let place = ready.remove(next);
            // SAFETY: the caller's promise.
            took += unsafe { self.pieces[place].0.run() };
            done[place] = true;
        }
        took
    }
}

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
    /// Does it, and tells what it took.
    ///
    /// # Safety
    /// That of [`Driver`](crate::driver::Driver).
    pub(super) unsafe fn run(&self) -> Duration {
        let begin = Instant::now();
        // SAFETY: the caller's promise.
        unsafe { self.give() };
        let delay = match self {
            Self::Convolve { algorithm, .. } => algorithm.delay,
            _ => Duration::ZERO,
        };
        begin.elapsed() + delay
    }

    /// # Safety
    /// That of [`Driver`](crate::driver::Driver).
    unsafe fn give(&self) {
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
