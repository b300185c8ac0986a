use super::*;
use crate::cpu::testing::{assert_close, numbers_f32, same_on_any_pool};

pub(super) fn cases() -> Vec<Pool2dGeometry> {
    [
        ([3, 24, 24, 20], [2, 2], [2, 2], Padding::Valid),
        ([70, 10, 10, 50], [2, 2], [2, 2], Padding::Valid),
        ([2, 7, 5, 3], [2, 2], [2, 2], Padding::Valid),
        ([2, 7, 5, 3], [2, 2], [2, 2], Padding::Same),
        ([2, 7, 9, 9], [3, 2], [1, 2], Padding::Same),
        ([2, 7, 9, 9], [3, 3], [2, 1], Padding::Valid),
        ([1, 9, 9, 2], [2, 1], [4, 3], Padding::Valid),
        ([1, 2, 2, 2], [5, 5], [1, 1], Padding::Same),
        ([2, 2, 2, 1], [3, 3], [1, 1], Padding::Valid),
        ([0, 4, 4, 1], [2, 2], [2, 2], Padding::Valid),
        ([2, 4, 4, 0], [2, 2], [2, 2], Padding::Valid),
        ([2, 5, 5, 2], [3, 3], [2, 2], Padding::Explicit { before: 1, after: 1 }),
    ]
    .into_iter()
    .map(|(images, size, strides, padding)| Pool2dGeometry::new(images, size, strides, [padding; 2]).unwrap())
    .collect()
}

/// The input elements of every output element's window, straight from the definition.
fn windows(g: &Pool2dGeometry) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    for n in 0..g.batch {
        for y in 0..g.rows.output {
            for x in 0..g.columns.output {
                for c in 0..g.channels {
                    let mut window = Vec::new();
                    for i in 0..g.rows.size {
                        for j in 0..g.columns.size {
                            let row = (y * g.rows.stride + i).wrapping_sub(g.rows.before);
                            let column = (x * g.columns.stride + j).wrapping_sub(g.columns.before);
                            if row < g.rows.input && column < g.columns.input {
                                window.push(((n * g.rows.input + row) * g.columns.input + column) * g.channels + c);
                            }
                        }
                    }
                    all.push(window);
                }
            }
        }
    }
    all
}

/// Numbers with many ties.
pub(super) fn coarse(seed: u64, len: usize) -> Vec<f32> {
    numbers_f32(seed, len).iter().map(|x| (x * 3.0).round()).collect()
}

fn first_maximum(window: &[usize], images: &[f32]) -> usize {
    window
        .iter()
        .copied()
        .reduce(|best, at| if images[best] < images[at] { at } else { best })
        .unwrap()
}

#[test]
fn maxima_and_their_gradients() {
    for g in cases() {
        let images = coarse(1, g.batch * g.image_len());
        let windows = windows(&g);
        let gradient = numbers_f32(2, windows.len());
        let image_gradient = numbers_f32(3, images.len());
        let (out, back, again) = same_on_any_pool(|| {
            let mut got = (
                vec![f32::NAN; windows.len()],
                vec![f32::NAN; images.len()],
                vec![f32::NAN; windows.len()],
            );
            max_pool(&g, &images, &mut got.0);
            max_pool_grad(&g, &images, &gradient, &mut got.1);
            max_pool_grad_grad(&g, &images, &image_gradient, &mut got.2);
            got
        });
        let mut expected_back = vec![0.0; images.len()];
        for (i, window) in windows.iter().enumerate() {
            let at = first_maximum(window, &images);
            assert_eq!(out[i], images[at]);
            assert_eq!(again[i], image_gradient[at]);
            expected_back[at] += f64::from(gradient[i]);
        }
        assert_close(&back, &expected_back, 1e-6);
    }
}

#[test]
fn means_and_their_gradients() {
    for g in cases() {
        let images = numbers_f32(1, g.batch * g.image_len());
        let windows = windows(&g);
        let gradient = numbers_f32(2, windows.len());
        let (out, back) = same_on_any_pool(|| {
            let mut got = (vec![f32::NAN; windows.len()], vec![f32::NAN; images.len()]);
            avg_pool(&g, &images, &mut got.0);
            avg_pool_grad(&g, &gradient, &mut got.1);
            got
        });
        let mut expected = (Vec::new(), vec![0.0; images.len()]);
        for (window, &gradient) in windows.iter().zip(&gradient) {
            let count = window.len() as f64;
            expected
                .0
                .push(window.iter().map(|&at| f64::from(images[at])).sum::<f64>() / count);
            window
                .iter()
                .for_each(|&at| expected.1[at] += f64::from(gradient) / count);
        }
        assert_close(&out, &expected.0, 1e-6);
        assert_close(&back, &expected.1, 1e-6);
    }
}

#[test]
fn integers_and_halves_have_maxima() {
    let g = Pool2dGeometry::new([1, 2, 2, 1], [2, 2], [1, 1], [Padding::Same; 2]).unwrap();
    let mut out = [0i32; 4];
    max_pool(&g, &[-5, -7, -1, -2], &mut out);
    assert_eq!(out, [-1, -2, -1, -2]);
    let half = [1.0, 4.0, 2.0, 3.0].map(half::f16::from_f32);
    let mut out = [half::f16::ZERO; 4];
    max_pool(&g, &half, &mut out);
    assert_eq!(out.map(f32::from), [4.0, 4.0, 3.0, 3.0]);
}
