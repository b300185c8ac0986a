//! Temporary memory that is kept from call to call, one stack of buffers a thread.
//!
//! Kernels need small working areas (a padded image, packed filters). Allocating them anew would cost a page fault per 4 KiB
//! on every step, so each thread keeps what it once needed. Nested use on one thread, which rayon's work stealing can cause,
//! takes a second buffer.

use std::cell::RefCell;

/// Alignment of scratch memory in bytes: one cache line.
const ALIGNMENT: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Types for which every bit pattern is a value, so that old bytes may be read as them.
///
/// # Safety
/// The implementor has no padding, no invalid bit patterns, no drop glue, and an alignment of at most 64 bytes.
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($t:ty),*) => {$(
        // SAFETY: a primitive number (or a transparent wrapper of one) without invalid bit patterns.
        unsafe impl Plain for $t {}
    )*};
}
plain!(
    f32,
    f64,
    half::f16,
    half::bf16,
    u8,
    u16,
    u32,
    u64,
    usize,
    i8,
    i16,
    i32,
    i64,
    graph_core::Complex<f32>,
    graph_core::Complex<f64>
);

/// Lends `f` a slice of `len` elements, aligned to a cache line, with unspecified contents.
pub fn with_scratch<T: Plain, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let mut buffer = take((len * size_of::<T>()).div_ceil(ALIGNMENT));
    // SAFETY: the buffer holds at least `len * size_of::<T>()` initialized bytes aligned to 64, `T` is plain, and the borrow
    // ends before the buffer goes back.
    let result = f(unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<T>(), len) });
    give_back(buffer);
    result
}

/// The thread's last buffer, or a new one where that is too small. Not generic, so that it is compiled once.
fn take(lines: usize) -> Vec<Line> {
    let buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < lines {
        return vec![Line([0; ALIGNMENT]); lines];
    }
    buffer
}

fn give_back(buffer: Vec<Line>) {
    BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_buffers_are_distinct_and_aligned() {
        with_scratch(5, |outer: &mut [f32]| {
            outer.fill(1.0);
            with_scratch(9, |inner: &mut [f64]| {
                inner.fill(2.0);
                assert_eq!(inner.as_ptr() as usize % ALIGNMENT, 0);
            });
            assert_eq!(outer, [1.0; 5]);
        });
        with_scratch(0, |empty: &mut [u8]| assert!(empty.is_empty()));
    }
}
