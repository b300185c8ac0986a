//! Matrix products `c = a * b` or `c += a * b` of row-major matrices, either of which may be stored transposed.
//!
//! `float` and `double` go to the `gemm-f32` and `gemm-f64` crates, part by part of the result ([`Parts`]): threads share out
//! parts and never the sum over `k`, so the bits do not depend on their number. The half types are multiplied in `float`, complex
//! numbers as matrices of their parts; integers wrap, as TensorFlow's do.

use super::parallel::{SharedMut, for_each_range};
use super::simd::multiversion;
use gemm_common::Parallelism;
use std::ops::Range;

/// The shape of a matrix product: `a` is `m x k`, `b` is `k x n`, `c` is `m x n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// `a` is stored as `k x m`.
    pub transpose_a: bool,
    /// `b` is stored as `n x k`.
    pub transpose_b: bool,
    /// Add to `c` instead of replacing it.
    pub accumulate: bool,
}

impl Product {
    /// Of matrices stored as they are, replacing the result.
    pub fn new(m: usize, n: usize, k: usize) -> Self {
        Self {
            m,
            n,
            k,
            ..Self::default()
        }
    }

    /// The same with operands stored transposed.
    pub fn transposed(self, a: bool, b: bool) -> Self {
        Self {
            transpose_a: a,
            transpose_b: b,
            ..self
        }
    }

    /// Distances in `a` of one row and one column of the matrix.
    fn a_strides(&self) -> (usize, usize) {
        if self.transpose_a { (1, self.m) } else { (self.k, 1) }
    }

    fn b_strides(&self) -> (usize, usize) {
        if self.transpose_b { (1, self.k) } else { (self.n, 1) }
    }

    fn check<T>(&self, a: &[T], b: &[T], c: &[T]) {
        assert_eq!(a.len(), self.m * self.k, "left operand of {self:?}");
        assert_eq!(b.len(), self.k * self.n, "right operand of {self:?}");
        assert_eq!(c.len(), self.m * self.n, "result of {self:?}");
    }
}

/// Multiplies. With `k = 0` the sums are empty: zero.
///
/// # Panics
/// If a slice's length is not what the product says.
pub fn gemm<T: GemmElement>(product: Product, a: &[T], b: &[T], c: &mut [T]) {
    product.check(a, b, c);
    T::gemm(product, a, b, c);
}

/// Multiplies and adds `bias`, one element a column, to each row; with `relu`, all that is not above zero then becomes zero
/// (what is not a number stays). Each part of the result is finished while it is in the cache, with the bits that it has when
/// the steps are taken one after the other.
///
/// # Panics
/// If a slice's length is not what the product says.
pub fn gemm_bias<T: LayerElement>(product: Product, a: &[T], b: &[T], bias: &[T], relu: bool, c: &mut [T]) {
    product.check(a, b, c);
    assert_eq!(bias.len(), product.n, "bias of {product:?}");
    T::gemm_bias(product, a, b, bias, relu, c);
}

/// Adds its part of the bias to a row of the product, and with `relu` takes `Relu` of that.
fn finish_row<T: PartElement>(row: &mut [T], bias: &[T], relu: bool) {
    if relu {
        add_to_row(row, bias, |sum: T| {
            let negative = sum <= T::zero();
            if negative { T::zero() } else { sum }
        });
    } else {
        add_to_row(row, bias, |sum| sum);
    }
}

multiversion! {
    wide fn add_to_row[T: PartElement, F: Fn(T) -> T](row: &mut [T], bias: &[T], f: F) {
        row.iter_mut().zip(bias).for_each(|(x, &bias)| *x = f(*x + bias));
    }
}

/// A dtype with matrix products. Call [`gemm`], which checks the lengths.
pub trait GemmElement: Copy + Send + Sync {
    #[doc(hidden)]
    fn gemm(product: Product, a: &[Self], b: &[Self], c: &mut [Self]);
}

/// A dtype whose products can be finished by a bias. Call [`gemm_bias`], which checks the lengths.
pub trait LayerElement: GemmElement {
    #[doc(hidden)]
    fn gemm_bias(product: Product, a: &[Self], b: &[Self], bias: &[Self], relu: bool, c: &mut [Self]);
}

/// A dtype whose products are taken part by part.
pub trait PartElement: GemmElement + num_traits::Float {
    /// The part of the product in these rows and columns of the result, on this thread.
    ///
    /// # Safety
    /// `a` and `b` are readable, and `c` is writable in that part, as the product says of whole matrices.
    #[doc(hidden)]
    unsafe fn part(
        product: Product,
        operands: [*const Self; 2],
        c: *mut Self,
        rows: Range<usize>,
        columns: Range<usize>,
    );
}

/// How the result is cut, by the shape alone: finely along one side and coarsely along the other. A part's own rows and columns
/// of the operands are packed for it, so the fine cuts are across the operand that is packed anyway and not across the one that
/// is read where it lies: across `b`, but across `a` where that is stored transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    rows: usize,
    columns: usize,
}

impl Parts {
    /// Rows or columns of a part along the finely cut side, at least.
    const FINE: usize = 200;
    /// Along the other side.
    const COARSE: usize = 1024;
    /// Products of numbers that a part should at least have: a few microseconds' work.
    const LEAST: usize = 1 << 18;

    fn of(p: &Product) -> Self {
        let work = p.m.saturating_mul(p.n).saturating_mul(p.k);
        let parts = |len: usize, least: usize| (len / least).min(work / Self::LEAST).max(1);
        // A product with a vector reads the matrix once: long pieces of it, and a power of two of them, so that they share out.
        let fine = |len: usize| match p.m.min(p.n).min(p.k) {
            ..=2 => 1 << parts(len, 2 * Self::FINE).ilog2(),
            _ => parts(len, Self::FINE),
        };
        let coarse = |len: usize| parts(len, Self::COARSE);
        let (rows, columns) = (fine(p.m), fine(p.n));
        let by_rows = if p.transpose_a { rows > 1 } else { columns == 1 };
        let (rows, columns) = if by_rows {
            (rows, coarse(p.n))
        } else {
            (coarse(p.m), columns)
        };
        // Whole vectors, whatever their length.
        let size = |len: usize, parts: usize| len.div_ceil(parts).next_multiple_of(16);
        Self {
            rows: size(p.m, rows),
            columns: size(p.n, columns),
        }
    }
}

/// The product, part by part in parallel; `finish(elements, columns)` is called for each row of a part when that is done.
fn by_parts<T: PartElement>(
    p: Product,
    a: &[T],
    b: &[T],
    c: &mut [T],
    finish: impl Fn(&mut [T], Range<usize>) + Sync + Send,
) {
    if c.is_empty() {
        return;
    }
    let parts = Parts::of(&p);
    let (across, down) = (p.n.div_ceil(parts.columns), p.m.div_ceil(parts.rows));
    let [a, b] = [a, b].map(|operand| SharedMut::from_ptr(operand.as_ptr().cast_mut()));
    let c = SharedMut::new(c);
    for_each_range(across * down, 1, |range| {
        for index in range {
            let side = |index: usize, size: usize, len: usize| index * size..((index + 1) * size).min(len);
            let rows = side(index % down, parts.rows, p.m);
            let columns = side(index / down, parts.columns, p.n);
            let operands = [a.as_ptr().cast_const(), b.as_ptr().cast_const()];
            // SAFETY: the slices have the lengths of the product (checked by the caller); parts are disjoint.
            unsafe { T::part(p, operands, c.as_ptr(), rows.clone(), columns.clone()) };
            for row in rows {
                // SAFETY: as above.
                let elements = unsafe { c.slice(row * p.n + columns.start..row * p.n + columns.end) };
                finish(elements, columns.clone());
            }
        }
    });
}

/// A matrix in memory: distances from one row and from one column to the next.
#[derive(Clone, Copy)]
struct Strided<P> {
    at: P,
    row: isize,
    column: isize,
}

impl<P> Strided<P> {
    fn new(at: P, (row, column): (usize, usize)) -> Self {
        let (row, column) = (row as isize, column as isize);
        Self { at, row, column }
    }

    fn turned(self) -> Self {
        Self {
            row: self.column,
            column: self.row,
            ..self
        }
    }
}

/// Rows from which a transposed `b` is worth being copied.
const ROWS_WORTH_A_COPY: usize = 128;

macro_rules! gemm_crate {
    ($($t:ty, $kernel:path;)*) => {$(
        impl GemmElement for $t {
            fn gemm(p: Product, a: &[$t], b: &[$t], c: &mut [$t]) {
                by_parts(p, a, b, c, |_, _| ());
            }
        }

        impl LayerElement for $t {
            fn gemm_bias(p: Product, a: &[$t], b: &[$t], bias: &[$t], relu: bool, c: &mut [$t]) {
                by_parts(p, a, b, c, |row, columns| finish_row(row, &bias[columns], relu));
            }
        }

        impl PartElement for $t {
            unsafe fn part(
                p: Product,
                [a, b]: [*const $t; 2],
                c: *mut $t,
                rows: Range<usize>,
                columns: Range<usize>,
            ) {
                let ((a_row, a_column), (b_row, b_column)) = (p.a_strides(), p.b_strides());
                // SAFETY: the part lies in the matrices (the caller's promise).
                let (a, b, c) = unsafe {
                    (
                        a.add(rows.start * a_row),
                        b.add(columns.start * b_column),
                        c.add(rows.start * p.n + columns.start),
                    )
                };
                // The kernels prefer column-major results, so the transposed product is computed: c' = b' * a'. But where `b` is
                // stored transposed, all of it is copied for that, while `a * b` takes a copy of `a` and slower stores of `c`.
                let (mut m, mut n) = (rows.len(), columns.len());
                let mut c = Strided::new(c, (p.n, 1));
                let mut left = Strided::new(a, (a_row, a_column));
                let mut right = Strided::new(b, (b_row, b_column));
                if !p.transpose_b || m == 1 || m >= ROWS_WORTH_A_COPY || p.k < m {
                    (m, n, c) = (n, m, c.turned());
                    (left, right) = (right.turned(), left.turned());
                }
                // SAFETY: the strides are those of dense matrices, in which the part lies (the caller's promise).
                unsafe {
                    $kernel()(
                        m, n, p.k,
                        c.at, c.column, c.row, p.accumulate,
                        left.at, left.column, left.row,
                        right.at, right.column, right.row,
                        1.0, 1.0, false, false, false,
                        Parallelism::None,
                    );
                }
            }
        }
    )*};
}
gemm_crate! {
    f32, gemm_f32::gemm::f32::get_gemm_fn;
    f64, gemm_f64::gemm::f64::get_gemm_fn;
}

mod others;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::element::Real;
    use crate::cpu::testing::{assert_close, numbers_f32, same_on_any_pool};
    use graph_core::Complex;
    use half::f16;

    /// The product by its definition, in double.
    fn expected(p: Product, a: &[f64], b: &[f64]) -> Vec<f64> {
        let ((ar, ac), (br, bc)) = (p.a_strides(), p.b_strides());
        (0..p.m * p.n)
            .map(|at| {
                (0..p.k)
                    .map(|l| a[at / p.n * ar + l * ac] * b[l * br + at % p.n * bc])
                    .sum()
            })
            .collect()
    }

    fn products() -> impl Iterator<Item = Product> {
        [
            (1, 1, 1),
            (3, 5, 7),
            (1, 33, 100),
            (65, 1, 130),
            (17, 31, 2),
            (31, 67, 1),
            (130, 129, 131),
            (64, 200, 1025),
            (500, 10, 80),
            (257, 300, 600),
            (430, 420, 37),
            (1, 900, 700),
            (700, 900, 1),
            (2100, 7, 40),
            (0, 3, 2),
            (3, 0, 2),
            (3, 2, 0),
        ]
        .into_iter()
        .flat_map(|(m, n, k)| {
            (0..8).map(move |bits| Product {
                m,
                n,
                k,
                transpose_a: bits & 1 != 0,
                transpose_b: bits & 2 != 0,
                accumulate: bits & 4 != 0,
            })
        })
    }

    #[test]
    fn floats_are_multiplied_alike_on_any_pool() {
        for p in products() {
            let (a, b, start) = (
                numbers_f32(1, p.m * p.k),
                numbers_f32(2, p.k * p.n),
                numbers_f32(3, p.m * p.n),
            );
            let got = same_on_any_pool(|| {
                let mut c = if p.accumulate {
                    start.clone()
                } else {
                    vec![f32::NAN; start.len()]
                };
                gemm(p, &a, &b, &mut c);
                c
            });
            let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let mut sum = expected(p, &wide(&a), &wide(&b));
            if p.accumulate {
                sum.iter_mut().zip(&start).for_each(|(s, &x)| *s += f64::from(x));
            }
            assert_close(&got, &sum, 5e-5);
        }
    }

    #[test]
    fn doubles_and_halves_are_multiplied() {
        for p in products().filter(|p| !p.accumulate) {
            let (a, b) = (
                crate::cpu::testing::numbers(1, p.m * p.k),
                crate::cpu::testing::numbers(2, p.k * p.n),
            );
            let sum = expected(p, &a, &b);
            let got = same_on_any_pool(|| {
                let mut c = vec![f64::NAN; sum.len()];
                gemm(p, &a, &b, &mut c);
                c
            });
            assert!(got.iter().zip(&sum).all(|(x, y)| (x - y).abs() < 1e-11));
            let half = |x: &[f64]| x.iter().map(|&x| f16::from_f64(x)).collect::<Vec<_>>();
            let mut c = vec![f16::NAN; sum.len()];
            gemm(p, &half(&a), &half(&b), &mut c);
            assert!(c.iter().zip(&sum).all(|(x, y)| (x.to_f64() - y).abs() < 0.05));
        }
    }

    #[test]
    fn complex_numbers_are_multiplied() {
        for p in products().filter(|p| p.k < 200) {
            let complex = |seed, len| {
                let parts = crate::cpu::testing::numbers(seed, 2 * len);
                parts
                    .chunks(2)
                    .map(|pair| Complex::new(pair[0], pair[1]))
                    .collect::<Vec<_>>()
            };
            let (a, b, start) = (complex(1, p.m * p.k), complex(2, p.k * p.n), complex(3, p.m * p.n));
            let ((ar, ac), (br, bc)) = (p.a_strides(), p.b_strides());
            let got = same_on_any_pool(|| {
                let mut c = start.clone();
                gemm(p, &a, &b, &mut c);
                c
            });
            let single = |x: &[Complex<f64>]| {
                let parts = x.iter().map(|x| Complex::new(x.re as f32, x.im as f32));
                parts.collect::<Vec<_>>()
            };
            let mut in_single = single(&start);
            gemm(p, &single(&a), &single(&b), &mut in_single);
            for at in 0..start.len() {
                let first = if p.accumulate { start[at] } else { Complex::default() };
                let sum = (0..p.k).fold(first, |sum, l| {
                    sum + a[at / p.n * ar + l * ac] * b[l * br + at % p.n * bc]
                });
                assert!((got[at] - sum).norm() < 1e-12, "{p:?}");
                let wide = Complex::new(f64::from(in_single[at].re), f64::from(in_single[at].im));
                assert!((wide - sum).norm() < 1e-3, "{p:?}");
            }
        }
    }

    #[test]
    fn integers_wrap() {
        for p in products().filter(|p| p.k < 200) {
            let ints = |seed, len| {
                numbers_f32(seed, len)
                    .iter()
                    .map(|x| (x * 1e9) as i32)
                    .collect::<Vec<_>>()
            };
            let (a, b) = (ints(1, p.m * p.k), ints(2, p.k * p.n));
            let ((ar, ac), (br, bc)) = (p.a_strides(), p.b_strides());
            let got = same_on_any_pool(|| {
                let mut c = vec![i32::from(p.accumulate); p.m * p.n];
                gemm(p, &a, &b, &mut c);
                c
            });
            for (at, &x) in got.iter().enumerate() {
                let sum = (0..p.k).fold(i32::from(p.accumulate), |sum, l| {
                    sum.wrapping_add(a[at / p.n * ar + l * ac].wrapping_mul(b[l * br + at % p.n * bc]))
                });
                assert_eq!(x, sum, "{p:?}");
            }
        }
    }

    #[test]
    fn a_bias_and_relu_are_added_part_by_part() {
        for p in products().filter(|p| !p.accumulate) {
            let (mut a, b, mut bias) = (
                numbers_f32(1, p.m * p.k),
                numbers_f32(2, p.k * p.n),
                numbers_f32(3, p.n),
            );
            if let (Some(x), Some(bias)) = (a.last_mut(), bias.first_mut()) {
                (*x, *bias) = (f32::NAN, -0.0);
            }
            let mut steps = vec![0.0; p.m * p.n];
            gemm(p, &a, &b, &mut steps);
            for (i, x) in steps.iter_mut().enumerate() {
                *x += bias[i % p.n];
            }
            for relu in [false, true] {
                if relu {
                    steps.iter_mut().for_each(|x| *x = if *x <= 0.0 { 0.0 } else { *x });
                }
                let got = same_on_any_pool(|| {
                    let mut got = vec![f32::INFINITY; p.m * p.n];
                    gemm_bias(p, &a, &b, &bias, relu, &mut got);
                    got.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                });
                assert_eq!(got, steps.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), "{p:?}");
            }
        }
    }

    fn half_types_are_finished_as_by_the_steps<T: LayerElement + Real<Wide = f32> + std::fmt::Debug>() {
        for p in products().filter(|p| !p.accumulate && p.k < 200) {
            let halves = |seed, len| numbers_f32(seed, len).iter().map(|&x| T::narrow(x)).collect::<Vec<T>>();
            let (a, b, bias) = (halves(1, p.m * p.k), halves(2, p.k * p.n), halves(3, p.n));
            let mut steps = vec![T::default(); p.m * p.n];
            gemm(p, &a, &b, &mut steps);
            for (i, x) in steps.iter_mut().enumerate() {
                *x = T::narrow(x.widen() + bias[i % p.n].widen());
            }
            for relu in [false, true] {
                if relu {
                    let zero = T::default();
                    steps.iter_mut().for_each(|x| *x = if *x <= zero { zero } else { *x });
                }
                let got = same_on_any_pool(|| {
                    let mut got = vec![T::narrow(f32::INFINITY); p.m * p.n];
                    gemm_bias(p, &a, &b, &bias, relu, &mut got);
                    got
                });
                assert_eq!(got, steps, "{p:?}");
            }
        }
    }

    #[test]
    fn half_types_are_rounded_before_the_bias_is_added() {
        half_types_are_finished_as_by_the_steps::<f16>();
        half_types_are_finished_as_by_the_steps::<half::bf16>();
    }

    #[test]
    fn parts_are_as_the_shape_says() {
        let parts = |m, n, k, a| Parts::of(&Product::new(m, n, k).transposed(a, false));
        let is = |rows, columns| Parts { rows, columns };
        assert_eq!(parts(500, 800, 1250, false), is(512, 208));
        assert_eq!(parts(1250, 800, 500, true), is(224, 800));
        assert_eq!(parts(4096, 800, 100, false), is(1024, 208));
        assert_eq!(parts(500, 10, 800, false), is(256, 16));
        assert_eq!(parts(3, 5, 7, false), is(16, 16));
        assert_eq!(parts(1250, 800, 1, true), is(640, 800));
        assert_eq!(parts(1, 800, 1250, false), is(16, 400));
        assert_eq!(parts(1, 100, 1250, false), is(16, 112));
    }
}
