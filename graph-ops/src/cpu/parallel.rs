//! Parallel loops on rayon's current pool, cut by the problem and never by the number of threads.

use rayon::prelude::*;
use std::ops::Range;

/// Elements a task should at least have when each costs about one memory access (128 KiB of `float`).
pub const GRAIN: usize = 32 * 1024;

/// A pointer that tasks share to write to disjoint parts of one output.
pub struct SharedMut<T>(*mut T);

impl<T> Clone for SharedMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SharedMut<T> {}

// SAFETY: handing the pointer to another thread is no access; each access is justified where it is made.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    /// Of the slice's first element.
    pub fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// Of any pointer.
    pub fn from_ptr(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// The pointer itself.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut T {
        self.0
    }

    /// The elements `range`, mutably.
    ///
    /// # Safety
    /// The range must lie in the allocation, and no other task may touch it while the result lives.
    #[inline(always)]
    pub unsafe fn slice<'a>(self, range: Range<usize>) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

/// Calls `f` with consecutive ranges of at most `grain` indices that cover `0..count`, in parallel when there are several.
///
/// The ranges depend on `count` and `grain` only.
pub fn for_each_range(count: usize, grain: usize, f: impl Fn(Range<usize>) + Sync + Send) {
    run_ranges(count, grain, &f);
}

/// What is done with a range. A trait of its own: closures as trait objects of `Fn` would each be compiled twice more, for
/// `FnOnce` and `FnMut`.
trait RangeTask: Sync {
    fn run(&self, range: Range<usize>);
}

impl<F: Fn(Range<usize>) + Sync> RangeTask for F {
    fn run(&self, range: Range<usize>) {
        self(range);
    }
}

/// Not generic, so that this and rayon's machinery are compiled once and not for every loop.
fn run_ranges(count: usize, grain: usize, task: &dyn RangeTask) {
    let grain = grain.max(1);
    let tasks = count.div_ceil(grain);
    let run = |index: usize| task.run(index * grain..((index + 1) * grain).min(count));
    if tasks <= 1 || rayon::current_num_threads() == 1 {
        (0..tasks).for_each(run);
    } else {
        (0..tasks).into_par_iter().for_each(run);
    }
}

/// Calls `f(start, chunk)` with consecutive chunks of at most `grain` elements of `out`, in parallel when there are several.
pub fn for_each_chunk<T: Send>(out: &mut [T], grain: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    let shared = SharedMut::new(out);
    // SAFETY: the ranges are disjoint parts of `out`, which is borrowed for the whole call.
    for_each_range(out.len(), grain, |range| f(range.start, unsafe { shared.slice(range) }));
}

/// How many items of `cost` elementary steps each make one task.
pub fn grain_for(cost: usize) -> usize {
    (GRAIN / cost.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_everything_once() {
        for len in [0, 1, 7, 8, 9, 100] {
            let mut out = vec![0usize; len];
            for_each_chunk(&mut out, 8, |start, chunk| {
                for (i, x) in chunk.iter_mut().enumerate() {
                    *x += start + i + 1;
                }
            });
            assert!(out.iter().enumerate().all(|(i, &x)| x == i + 1));
        }
    }
}
