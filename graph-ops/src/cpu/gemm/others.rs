//! Products of what the library does not multiply: half types in `float`, complex numbers as real matrices, integers.

use super::{GemmElement, LayerElement, Product, by_parts, finish_row};
use crate::cpu::element::Real;
use crate::cpu::parallel::{GRAIN, for_each_chunk, grain_for};
use crate::cpu::scratch::{Plain, with_scratch};
use crate::cpu::simd::multiversion;
use crate::cpu::transpose::transpose;
use graph_core::Complex;
use half::{bf16, f16};
use num_traits::{WrappingAdd, WrappingMul};

/// Widens many elements, in parallel.
fn widen<T: Real<Wide = f32>>(from: &[T], to: &mut [f32]) {
    for_each_chunk(to, GRAIN, |start, to| T::widen_all(&from[start..start + to.len()], to));
}

/// Calls `multiply` with the operands and the result of a product in `float`.
fn in_float<T: Real<Wide = f32>>(
    p: Product,
    [a, b]: [&[T]; 2],
    c: &mut [T],
    multiply: impl FnOnce([&[f32]; 2], &mut [f32]),
) {
    with_scratch(a.len() + b.len() + c.len(), |wide: &mut [f32]| {
        let (wide_a, rest) = wide.split_at_mut(a.len());
        let (wide_b, wide_c) = rest.split_at_mut(b.len());
        widen(a, wide_a);
        widen(b, wide_b);
        if p.accumulate {
            widen(c, wide_c);
        }
        multiply([wide_a, wide_b], wide_c);
        for_each_chunk(c, GRAIN, |start, to| {
            T::narrow_all(&wide_c[start..start + to.len()], to)
        });
    });
}

macro_rules! through_f32 {
    ($($t:ty),*) => {$(
        impl GemmElement for $t {
            fn gemm(p: Product, a: &[$t], b: &[$t], c: &mut [$t]) {
                in_float(p, [a, b], c, |[a, b], c| f32::gemm(p, a, b, c));
            }
        }

        impl LayerElement for $t {
            fn gemm_bias(p: Product, a: &[$t], b: &[$t], bias: &[$t], relu: bool, c: &mut [$t]) {
                with_scratch(bias.len(), |wide_bias: &mut [f32]| {
                    <$t>::widen_all(bias, wide_bias);
                    in_float(p, [a, b], c, |[a, b], c| {
                        by_parts(p, a, b, c, |row, columns| {
                            // What would be stored, if the bias were added to that.
                            <$t>::round_all(row);
                            finish_row(row, &wide_bias[columns], relu);
                        });
                    });
                });
            }
        }
    )*};
}
through_f32!(f16, bf16);

macro_rules! complex {
    ($($t:ty),*) => {$(
        impl GemmElement for Complex<$t> {
            fn gemm(p: Product, a: &[Self], b: &[Self], c: &mut [Self]) {
                with_scratch(if p.transpose_a { a.len() } else { 0 }, |turned: &mut [Self]| {
                    let a = if p.transpose_a {
                        transpose(a, &[p.k, p.m], &[1, 0], turned);
                        &*turned
                    } else {
                        a
                    };
                    with_scratch(4 * b.len(), |pairs: &mut [$t]| {
                        real_rows(p, b, pairs, |x: Complex<$t>| [[x.re, x.im], [-x.im, x.re]]);
                        let real = Product { accumulate: p.accumulate, ..Product::new(p.m, 2 * p.n, 2 * p.k) };
                        // SAFETY: a complex number is its two parts, one behind the other.
                        let (a, c) = unsafe {
                            (
                                std::slice::from_raw_parts(a.as_ptr().cast::<$t>(), 2 * a.len()),
                                std::slice::from_raw_parts_mut(c.as_mut_ptr().cast::<$t>(), 2 * c.len()),
                            )
                        };
                        <$t>::gemm(real, a, pairs, c);
                    });
                });
            }
        }
    )*};
}
complex!(f32, f64);

/// The right operand as a real matrix of twice the rows and columns, by which rows of alternating real and imaginary parts are
/// multiplied to such rows: each number becomes the square that `parts` makes of it.
fn real_rows<T: Copy + Send + Sync, C: Copy + Sync>(
    p: Product,
    b: &[C],
    out: &mut [T],
    parts: impl Fn(C) -> [[T; 2]; 2] + Sync + Send,
) {
    if p.n == 0 {
        return;
    }
    for_each_chunk(out, grain_for(4 * p.n) * 4 * p.n, |start, out| {
        for (rows, l) in out.chunks_exact_mut(4 * p.n).zip(start / (4 * p.n)..) {
            let (upper, lower) = rows.split_at_mut(2 * p.n);
            let pairs = upper
                .as_chunks_mut::<2>()
                .0
                .iter_mut()
                .zip(lower.as_chunks_mut::<2>().0);
            for (j, (upper, lower)) in pairs.enumerate() {
                let x = b[if p.transpose_b { j * p.k + l } else { l * p.n + j }];
                [*upper, *lower] = parts(x);
            }
        }
    });
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl GemmElement for $t {
            fn gemm(p: Product, a: &[$t], b: &[$t], c: &mut [$t]) {
                wrapping(p, a, b, c);
            }
        }
    )*};
}
integers!(i32, i64, u32, u64, i16, u16, i8, u8);

/// Row by row, each as a sum of multiples of the rows of `b`, so that the inner loop runs along memory.
fn wrapping<T: Plain + Default + Send + Sync + WrappingAdd + WrappingMul>(p: Product, a: &[T], b: &[T], c: &mut [T]) {
    if c.is_empty() {
        return;
    }
    let (a_row, a_column) = p.a_strides();
    with_scratch(if p.transpose_b { b.len() } else { 0 }, |turned: &mut [T]| {
        let b = if p.transpose_b {
            transpose(b, &[p.n, p.k], &[1, 0], turned);
            &*turned
        } else {
            b
        };
        for_each_chunk(c, grain_for(p.n * p.k) * p.n, |start, chunk| {
            with_scratch(p.k, |factors: &mut [T]| {
                for (i, row) in chunk.chunks_mut(p.n).enumerate() {
                    let first = (start / p.n + i) * a_row;
                    for (l, factor) in factors.iter_mut().enumerate() {
                        *factor = a[first + l * a_column];
                    }
                    if !p.accumulate {
                        row.fill(T::default());
                    }
                    add_rows(row, factors, b);
                }
            });
        });
    });
}

multiversion! {
    /// Adds to `row` the products of each factor and its row of `rows`.
    wide fn add_rows[T: Copy + WrappingAdd + WrappingMul](row: &mut [T], factors: &[T], rows: &[T]) {
        /// Elements that stay in registers down all rows.
        const STRIP: usize = 32;
        let n = row.len();
        let (strips, rest) = row.as_chunks_mut::<STRIP>();
        let done = n - rest.len();
        for (index, strip) in strips.iter_mut().enumerate() {
            let mut sums = *strip;
            for (l, factor) in factors.iter().enumerate() {
                let other = &rows[l * n + index * STRIP..][..STRIP];
                for i in 0..STRIP {
                    sums[i] = sums[i].wrapping_add(&factor.wrapping_mul(&other[i]));
                }
            }
            *strip = sums;
        }
        if rest.is_empty() {
            return;
        }
        for (l, factor) in factors.iter().enumerate() {
            let other = &rows[l * n + done..][..rest.len()];
            rest.iter_mut().zip(other).for_each(|(x, y)| *x = x.wrapping_add(&factor.wrapping_mul(y)));
        }
    }
}
