//! Channels of a pixel taken a vector at a time, for loops that the compiler vectorizes.

/// Channels that are taken together: a vector of `float`.
pub const LANES: usize = 8;

/// Runs `$body` for groups of channels that cover `0..$channels`: `$start` is a group's first channel and `$N`, a constant, its
/// width. The last group moves back to fit in, so a channel may come twice. Fewer channels than a vector has come one by one.
macro_rules! each_group {
    ($channels:expr, |$start:ident, $N:ident| $body:block) => {
        if $channels >= $crate::cpu::groups::LANES {
            const $N: usize = $crate::cpu::groups::LANES;
            for start in (0..$channels).step_by($N) {
                let $start = start.min($channels - $N);
                $body
            }
        } else {
            const $N: usize = 1;
            for $start in 0..$channels {
                $body
            }
        }
    };
}
pub(super) use each_group;

/// `N` elements from `at` on.
///
/// # Safety
/// They lie in the slice.
#[inline(always)]
pub unsafe fn load<T: Copy, const N: usize>(from: &[T], at: usize) -> [T; N] {
    debug_assert!(at + N <= from.len());
    // SAFETY: the caller's promise.
    unsafe { from.as_ptr().add(at).cast::<[T; N]>().read() }
}

/// Replaces the `N` elements from `at` on.
///
/// # Safety
/// They lie in the slice.
#[inline(always)]
pub unsafe fn store<T: Copy, const N: usize>(to: &mut [T], at: usize, values: [T; N]) {
    debug_assert!(at + N <= to.len());
    // SAFETY: the caller's promise.
    unsafe { to.as_mut_ptr().add(at).cast::<[T; N]>().write(values) }
}
