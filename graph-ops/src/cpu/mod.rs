//! The numeric routines that CPU kernels share, as pure functions over slices.
//!
//! Nothing here knows of graphs, tensors or sessions: inputs are `&[T]`, outputs `&mut [T]`, dimensions `usize`, in
//! row-major order. An op file validates shapes and dtypes, then calls in here; the functions assert what they rely on.
//!
//! # Determinism
//!
//! A result has the same bits for any number of threads. Work is cut by the problem's sizes alone ([`parallel`]): where a
//! cut decides the order of a floating-point sum, the blocks are fixed and the partial results are combined in order;
//! elsewhere each output element is computed by one task, and the order inside it depends on the shape only. Results may
//! differ between kinds of CPU, because fused multiply-add is used where there is one ([`simd`]).
//!
//! # Threads and memory
//!
//! Loops run on rayon's current pool, and only when there is enough to do. Temporary memory comes from per-thread buffers
//! that are kept ([`scratch`]), so that a training loop does not allocate in its steady state.

pub mod batch_norm;
#[cfg(feature = "full")]
pub mod bessel;
pub mod bias;
pub mod broadcast;
#[cfg(feature = "full")]
pub mod candidates;
pub mod chain;
pub mod convolution;
pub mod copy;
pub mod depthwise;
pub mod element;
pub mod gemm;
pub mod groups;
pub mod half_precision;
pub mod incomplete;
#[cfg(feature = "full")]
pub mod linalg;
pub mod lrn;
pub mod parallel;
pub mod philox;
pub mod pooling;
pub mod random;
#[cfg(feature = "full")]
pub mod random_gamma;
pub mod random_truncated;
#[cfg(feature = "full")]
pub mod recurrent;
pub mod reduce;
pub mod scatter;
pub mod scratch;
pub mod simd;
pub mod softmax;
pub mod special;
pub mod tile;
pub mod transpose;
pub mod vector_math;
#[cfg(feature = "full")]
pub mod volume;
pub mod window;

/// A list of axes or operands, which is short: up to eight lie on the stack, so that a step does not allocate for them.
pub type Short<T> = smallvec::SmallVec<[T; 8]>;

#[cfg(test)]
pub(crate) mod testing;
