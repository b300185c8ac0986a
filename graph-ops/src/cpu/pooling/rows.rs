//! Windows of any kind, a row of them at a time: first the rows of pixels that the windows cover become one, for all columns at
//! once, and then the columns of each window in that.

use crate::cpu::element::{Real, Wide};
use crate::cpu::simd::multiversion;
use crate::cpu::window::Window;

multiversion! {
    /// Takes each of `rows`, which are as long as `out`, into that.
    pub(in crate::cpu) fn down[T: Copy, W: Copy, F: Fn(W, T) -> W](rows: &[T], out: &mut [W], take: F) {
        for row in rows.chunks_exact(out.len()) {
            out.iter_mut().zip(row).for_each(|(taken, &x)| *taken = take(*taken, x));
        }
    }
}

multiversion! {
    /// Takes the pixels that each window covers of one row, from `start` on.
    pub(in crate::cpu) fn along[T: Copy, F: Fn(T, T) -> T](
        channels: usize, columns: &Window, row: &[T], out: &mut [T], start: T, take: F,
    ) {
        /// Channels that stay in registers along a window.
        const GROUP: usize = 8;
        for (x, out) in out.chunks_exact_mut(channels).enumerate() {
            let covered = columns.pixels(x);
            let window = &row[covered.start * channels..covered.end * channels];
            if channels < GROUP {
                out.fill(start);
                for pixel in window.chunks_exact(channels) {
                    out.iter_mut().zip(pixel).for_each(|(taken, &x)| *taken = take(*taken, x));
                }
                continue;
            }
            for first in (0..channels).step_by(GROUP) {
                // The last group moves back to fit in.
                let first = first.min(channels - GROUP);
                let mut taken = [start; GROUP];
                for pixel in window.chunks_exact(channels) {
                    let pixel = &pixel[first..first + GROUP];
                    for i in 0..GROUP {
                        taken[i] = take(taken[i], pixel[i]);
                    }
                }
                out[first..first + GROUP].copy_from_slice(&taken);
            }
        }
    }
}

multiversion! {
    /// The `sums` of windows, each divided by the number of pixels that it covers, `rows` of them one below the other.
    pub(in crate::cpu) fn means[T: Real](
        channels: usize, columns: &Window, rows: usize, sums: &[T::Wide], out: &mut [T],
    ) {
        for (x, (out, sums)) in out.chunks_exact_mut(channels).zip(sums.chunks_exact(channels)).enumerate() {
            let count = T::Wide::from_usize(rows * columns.pixels(x).len());
            out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = T::narrow(sum / count));
        }
    }
}
