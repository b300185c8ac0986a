//! Kernels that do the same for several members, each in blocks of its own (`members.cuh`).

use graph_cuda::Function;
use smallvec::SmallVec;

/// Threads of a block.
pub(crate) const THREADS: usize = 256;

/// The blocks of each of some members, so many as its elements give work to threads that take `each` of them, but no more than
/// fill the device.
pub(crate) struct Dealt {
    /// The first block of each member.
    pub(crate) first: SmallVec<[i64; 64]>,
    count: usize,
}

impl Dealt {
    /// Of members of so many elements.
    pub(crate) fn new(function: &Function, lengths: impl Iterator<Item = usize>, each: usize) -> Self {
        let (most, mut count) = (function.blocks_to_fill(), 0);
        let first = lengths.map(|len| {
            let first = count;
            count += len.div_ceil(THREADS * each).min(most);
            first as i64
        });
        Self {
            first: first.collect(),
            count,
        }
    }

    /// The grid of all of them, and its threads.
    pub(crate) fn grid(&self) -> ([u32; 3], [u32; 3]) {
        ([self.count as u32, 1, 1], [THREADS as u32, 1, 1])
    }
}
