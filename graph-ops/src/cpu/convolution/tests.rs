use super::*;
use crate::cpu::simd::Portable;
use crate::cpu::testing::{assert_close, numbers_f32, same_on_any_pool, wide};

/// All (output element, image element or none in the padding, filter element) triples of a convolution.
fn each_product(g: &Conv2dGeometry, mut f: impl FnMut(usize, usize, usize)) {
    let (c, o) = (g.in_channels, g.out_channels);
    for n in 0..g.batch {
        for y in 0..g.rows.output {
            for x in 0..g.columns.output {
                for i in 0..g.rows.size {
                    for j in 0..g.columns.size {
                        let row = (y * g.rows.stride + i * g.rows.dilation).wrapping_sub(g.rows.before);
                        let column = (x * g.columns.stride + j * g.columns.dilation).wrapping_sub(g.columns.before);
                        if row >= g.rows.input || column >= g.columns.input {
                            continue;
                        }
                        for ci in 0..c {
                            for oi in 0..o {
                                f(
                                    ((n * g.rows.output + y) * g.columns.output + x) * o + oi,
                                    ((n * g.rows.input + row) * g.columns.input + column) * c + ci,
                                    ((i * g.columns.size + j) * c + ci) * o + oi,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn cases() -> Vec<Conv2dGeometry> {
    let (valid, same) = (Padding::Valid, Padding::Same);
    let explicit = Padding::Explicit { before: 2, after: 1 };
    [
        ([2, 28, 28, 1], [5, 5, 1, 20], [1, 1], [1, 1], valid),
        ([14, 12, 12, 20], [3, 3, 20, 50], [1, 1], [1, 1], valid),
        ([3, 7, 9, 3], [3, 2, 3, 5], [2, 3], [1, 1], same),
        ([3, 7, 9, 3], [3, 2, 3, 17], [1, 2], [2, 3], same),
        ([2, 9, 8, 2], [2, 2, 2, 33], [3, 4], [1, 1], valid),
        ([1, 6, 5, 4], [4, 3, 4, 9], [1, 1], [1, 2], explicit),
        ([5, 4, 4, 8], [1, 1, 8, 24], [1, 1], [1, 1], valid),
        ([5, 4, 4, 8], [1, 1, 8, 3], [2, 2], [1, 1], same),
        ([2, 3, 3, 2], [5, 5, 2, 3], [1, 1], [1, 1], same),
        ([0, 5, 5, 2], [3, 3, 2, 4], [1, 1], [1, 1], valid),
        ([2, 2, 2, 1], [3, 3, 1, 4], [1, 1], [1, 1], valid),
        ([2, 5, 5, 0], [3, 3, 0, 4], [1, 1], [1, 1], valid),
        ([100, 10, 10, 3], [3, 3, 3, 6], [1, 1], [1, 1], valid),
        // Those that are computed by tiles, with and without padding and whole tiles.
        ([9, 9, 8, 16], [3, 3, 16, 17], [1, 1], [1, 1], same),
        ([9, 9, 8, 19], [3, 3, 19, 16], [1, 1], [1, 1], valid),
        ([3, 24, 10, 16], [3, 3, 16, 24], [1, 1], [1, 1], explicit),
    ]
    .into_iter()
    .map(|(images, filter, strides, dilations, padding)| {
        Conv2dGeometry::new(images, filter, strides, dilations, [padding; 2]).unwrap()
    })
    .collect()
}

pub(super) fn operands(g: &Conv2dGeometry) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    (
        numbers_f32(1, g.batch * g.image_len()),
        numbers_f32(2, g.filter_len()),
        numbers_f32(3, g.batch * g.out_image_len()),
    )
}

#[test]
fn all_three_are_the_sums_of_products() {
    for g in cases() {
        let (images, filter, gradient) = operands(&g);
        let (wide_images, wide_filter, wide_gradient) = (wide(&images), wide(&filter), wide(&gradient));
        let mut out = vec![0.0; gradient.len()];
        let mut in_backprop = vec![0.0; images.len()];
        let mut filter_backprop = vec![0.0; filter.len()];
        each_product(&g, |o, i, f| {
            out[o] += wide_images[i] * wide_filter[f];
            in_backprop[i] += wide_gradient[o] * wide_filter[f];
            filter_backprop[f] += wide_images[i] * wide_gradient[o];
        });
        let got = same_on_any_pool(|| {
            let mut got = (
                vec![f32::NAN; out.len()],
                vec![f32::NAN; images.len()],
                vec![f32::NAN; filter.len()],
            );
            conv2d(&g, &images, &filter, &mut got.0);
            conv2d_backprop_input(&g, &gradient, &filter, &mut got.1);
            conv2d_backprop_filter(&g, &images, &gradient, &mut got.2);
            got
        });
        assert_close(&got.0, &out, 2e-5);
        assert_close(&got.1, &in_backprop, 2e-5);
        assert_close(&got.2, &filter_backprop, 2e-4);
    }
}

#[test]
fn doubles_are_convolved_in_double() {
    for g in cases() {
        let (images, filter, gradient) = operands(&g);
        let (images, filter, gradient) = (wide(&images), wide(&filter), wide(&gradient));
        let mut expected = (
            vec![0.0; gradient.len()],
            vec![0.0; images.len()],
            vec![0.0; filter.len()],
        );
        each_product(&g, |o, i, f| {
            expected.0[o] += images[i] * filter[f];
            expected.1[i] += gradient[o] * filter[f];
            expected.2[f] += images[i] * gradient[o];
        });
        let mut got = (
            vec![f64::NAN; gradient.len()],
            vec![f64::NAN; images.len()],
            vec![f64::NAN; filter.len()],
        );
        conv2d(&g, &images, &filter, &mut got.0);
        conv2d_backprop_input(&g, &gradient, &filter, &mut got.1);
        conv2d_backprop_filter(&g, &images, &gradient, &mut got.2);
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-10);
        assert!(close(&got.0, &expected.0) && close(&got.1, &expected.1) && close(&got.2, &expected.2));
    }
}

#[test]
fn halves_are_convolved_in_float() {
    let g = cases()[2];
    let (images, filter, gradient) = operands(&g);
    let half = |x: &[f32]| x.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>();
    let back = |x: &[f16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
    let mut out = vec![f16::NAN; gradient.len()];
    conv2d(&g, &half(&images), &half(&filter), &mut out);
    let mut expected = vec![0.0; gradient.len()];
    conv2d(&g, &back(&half(&images)), &back(&half(&filter)), &mut expected);
    assert_eq!(out, half(&expected));
}

#[test]
fn the_portable_tiles_agree() {
    // The sum of products, in the baseline's vectors.
    use crate::cpu::tile::{Loops, MOST_ROWS, Panels, Store, pack, rows};
    let (m, n, k) = (11, 21, 7);
    let (a, b) = (numbers_f32(5, m * k), numbers_f32(6, k * n));
    let panels = Panels::new(n, 4, 16);
    let mut packed = vec![0.0; k * panels.padded()];
    pack(panels, k, &mut packed, |r, c| b[r * n + c]);
    let mut c = vec![1.0f32; m * n];
    for panel in panels.iter() {
        let width = panel.vectors * 4;
        let loops = Loops {
            counts: [1, 1, k],
            a_steps: [0, 0, 1],
            b_steps: [0, 0, width],
        };
        for i in 0..m {
            let (pa, pc) = (
                [a[i * k..].as_ptr(); MOST_ROWS],
                [c[i * n + panel.start..].as_mut_ptr(); MOST_ROWS],
            );
            // SAFETY: one row of `a` and `c`, and a packed panel.
            unsafe {
                rows::<Portable<f32, 4>>(
                    1,
                    panel,
                    &loops,
                    &pa,
                    packed[panel.start * k..].as_ptr(),
                    &pc,
                    Store::Add,
                )
            };
        }
    }
    let expected: Vec<f64> = (0..m * n)
        .map(|at| {
            1.0 + (0..k)
                .map(|l| f64::from(a[at / n * k + l]) * f64::from(b[l * n + at % n]))
                .sum::<f64>()
        })
        .collect();
    assert_close(&c, &expected, 1e-6);
}

/// One pixel that is not a number reaches the outputs whose windows it lies in, and no others.
#[test]
fn what_is_not_finite_stays_in_its_windows() {
    let g = Conv2dGeometry::new([14, 12, 12, 20], [3, 3, 20, 50], [1; 2], [1; 2], [Padding::Valid; 2]).unwrap();
    let (mut images, filter) = (numbers_f32(1, 14 * g.image_len()), numbers_f32(2, g.filter_len()));
    let (y, x) = (5, 6);
    for bad in [f32::NAN, f32::INFINITY, f32::MAX] {
        images[(y * 12 + x) * 20] = bad;
        let mut out = vec![0.0; 14 * g.out_image_len()];
        conv2d(&g, &images, &filter, &mut out);
        for (at, value) in out.iter().enumerate() {
            let pixel = at / 50;
            let (n, row, column) = (pixel / 100, pixel / 10 % 10, pixel % 10);
            let inside = n == 0 && (row..row + 3).contains(&y) && (column..column + 3).contains(&x);
            assert!(inside || value.abs() < 1e3, "{bad} at {at}: {value}");
        }
        assert!(!out[(4 * 10 + 5) * 50].is_finite() || out[(4 * 10 + 5) * 50].abs() > 1e30);
    }
}
