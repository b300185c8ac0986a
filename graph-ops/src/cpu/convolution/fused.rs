//! The convolution with what usually follows it: a bias, `Relu`, a maximum over windows, a normalization.
//!
//! Each is done while its operand is in a register or in the cache, with the bits that it has when done alone.

use super::forward::{Activation, scalars};
use super::{Conv2dGeometry, ConvElement, ConvScalar, conv2d};
use crate::cpu::element::{Real, Wide};
use crate::cpu::lrn::{LocalResponse, lrn};
use crate::cpu::parallel::{GRAIN, SharedMut, for_each_chunk};
use crate::cpu::pooling::{Pool2dGeometry, max_pool_image, max_pool_image_with_places};
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::multiversion;

/// `out = conv2d(images, filter) + bias`, one bias a channel; with `relu`, `max(out, 0)`, NaN of NaN.
///
/// Shapes are as in [`conv2d`]; `bias` is `[o]`.
///
/// # Panics
/// If a slice's length is not what the geometry says.
pub fn conv2d_bias<T: ConvElement>(
    geometry: &Conv2dGeometry,
    images: &[T],
    filter: &[T],
    bias: &[T],
    relu: bool,
    out: &mut [T],
) {
    check_operands(geometry, images, filter, bias);
    assert_eq!(out.len(), geometry.batch * geometry.out_image_len());
    match T::as_scalars(bias) {
        Some(bias) => T::with_scalars(images, filter, out, |images, filter, out| {
            scalars(
                geometry,
                images,
                filter,
                Some(Activation { bias, relu }),
                Some(out),
                &|_, _| (),
            );
        }),
        None => {
            conv2d(geometry, images, filter, out);
            add_bias(bias, relu, out);
        }
    }
}

/// What is wanted of a convolution with its bias, of `Relu` of that, and of a pool of that; each has the shape of its values.
pub struct Wanted<'a, T> {
    /// `max(conv2d(images, filter) + bias, 0)`.
    pub activity: Option<&'a mut [T]>,
    /// Where the pool's maxima are, of windows of 2x2 that lie side by side, from which
    /// [`max_pool_relu_grad_at`](crate::cpu::pooling::max_pool_relu_grad_at) goes back; shaped as the pool.
    pub places: Option<&'a mut [T]>,
    /// The maxima.
    pub pooled: Option<&'a mut [T]>,
    /// The maxima normalized over their channels.
    pub normalized: Option<(LocalResponse, &'a mut [T])>,
}

/// A convolution of `images` with its bias, `Relu` and a pool of that, as far as they are `wanted`; the rest is in the cache at
/// most.
///
/// # Panics
/// If a slice's length is not what the geometries say, `pool` is not of the convolution's output, or places are wanted of other
/// windows.
pub fn conv2d_bias_relu_max_pool<T: ConvScalar + Real<Wide = T>>(
    conv: &Conv2dGeometry,
    pool: &Pool2dGeometry,
    images: &[T],
    filter: &[T],
    bias: &[T],
    wanted: Wanted<'_, T>,
) {
    check_operands(conv, images, filter, bias);
    let Wanted {
        activity,
        places,
        pooled,
        normalized,
    } = wanted;
    let pool_input = [pool.batch, pool.rows.input, pool.columns.input, pool.channels];
    assert!(pool_input == conv.out_shape() && (places.is_none() || pool.halves()));
    assert!(
        activity
            .as_ref()
            .is_none_or(|activity| activity.len() == conv.batch * conv.out_image_len())
    );
    let len = pool.out_image_len();
    let shared = |out: &mut [T]| {
        assert_eq!(out.len(), pool.batch * len);
        SharedMut::new(out)
    };
    let (places, pooled) = (places.map(shared), pooled.map(shared));
    let normalized = normalized.map(|(response, out)| (response, shared(out)));
    let finished = |n: usize, image: &[T]| {
        // SAFETY: each image has its own outputs, and is finished once.
        let part = |out: SharedMut<T>| unsafe { out.slice(n * len..(n + 1) * len) };
        with_scratch(if pooled.is_some() { 0 } else { len }, |own: &mut [T]| {
            let maxima = match pooled {
                Some(pooled) => part(pooled),
                None => own,
            };
            match places {
                Some(places) => max_pool_image_with_places(pool, image, maxima, part(places)),
                None => max_pool_image(pool, image, maxima),
            }
            if let Some((response, out)) = normalized {
                lrn(&response, pool.channels, maxima, part(out));
            }
        });
    };
    let activation = Some(Activation { bias, relu: true });
    scalars(conv, images, filter, activation, activity, &finished);
}

fn check_operands<T>(geometry: &Conv2dGeometry, images: &[T], filter: &[T], bias: &[T]) {
    assert_eq!(images.len(), geometry.batch * geometry.image_len());
    assert_eq!(filter.len(), geometry.filter_len());
    assert_eq!(bias.len(), geometry.out_channels);
}

/// Of types that are not computed in themselves: each step is rounded, as it is between ops.
fn add_bias<T: ConvElement>(bias: &[T], relu: bool, out: &mut [T]) {
    /// Elements that are widened at once, of as many pixels as fit.
    const BLOCK: usize = 512;
    if out.is_empty() {
        return;
    }
    let block = (BLOCK / bias.len()).max(1) * bias.len();
    with_scratch(block, |biases: &mut [T::Wide]| {
        for pixel in biases.chunks_exact_mut(bias.len()) {
            T::widen_all(bias, pixel);
        }
        let biases = &*biases;
        for_each_chunk(out, GRAIN.next_multiple_of(block), |_, chunk| {
            with_scratch(block, |wide: &mut [T::Wide]| {
                for part in chunk.chunks_mut(block) {
                    let wide = &mut wide[..part.len()];
                    T::widen_all(part, wide);
                    add_and_cut(wide, biases, relu);
                    T::narrow_all(wide, part);
                }
            });
        });
    });
}

multiversion! {
    /// Adds to each number its bias; with `relu`, what is not above zero becomes zero.
    fn add_and_cut[T: Wide](x: &mut [T], biases: &[T], relu: bool) {
        if relu {
            for (x, &bias) in x.iter_mut().zip(biases) {
                let sum = *x + bias;
                *x = if sum <= T::zero() { T::zero() } else { sum };
            }
        } else {
            x.iter_mut().zip(biases).for_each(|(x, &bias)| *x += bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cases, operands};
    use super::super::{conv2d_backprop_filter, conv2d_backprop_filter_of_pool};
    use super::*;
    use crate::cpu::pooling::{max_pool, max_pool_relu_grad_at};
    use crate::cpu::testing::{numbers_f32, same_on_any_pool};
    use crate::cpu::window::Padding;
    use half::f16;

    /// The steps one after the other: the sums with their bias, and with `Relu`.
    fn steps<T: ConvElement>(g: &Conv2dGeometry, images: &[T], filter: &[T], bias: &[T]) -> [Vec<T>; 2] {
        let mut sums = vec![T::default(); g.batch * g.out_image_len()];
        conv2d(g, images, filter, &mut sums);
        for (i, x) in sums.iter_mut().enumerate() {
            *x = T::narrow(x.widen() + bias[i % g.out_channels].widen());
        }
        let relu = sums
            .iter()
            .map(|&x| if x <= T::zero() { T::zero() } else { x })
            .collect();
        [sums, relu]
    }

    /// As bits, so that NaN equals itself and the zeros do not equal each other.
    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn a_fused_bias_and_relu_have_the_bits_of_the_steps() {
        for g in cases() {
            let (mut images, filter, _) = operands(&g);
            if let Some(x) = images.get_mut(7) {
                *x = f32::NAN;
            }
            let mut bias = numbers_f32(4, g.out_channels);
            bias[0] = -0.0;
            let expected = steps(&g, &images, &filter, &bias);
            for relu in [false, true] {
                let got = same_on_any_pool(|| {
                    let mut got = vec![f32::INFINITY; expected[0].len()];
                    conv2d_bias(&g, &images, &filter, &bias, relu, &mut got);
                    bits(&got)
                });
                assert_eq!(got, bits(&expected[usize::from(relu)]));
            }
        }
    }

    #[test]
    fn a_fused_maximum_has_the_bits_of_the_steps() {
        for g in cases() {
            let (images, filter, _) = operands(&g);
            let bias = numbers_f32(4, g.out_channels);
            for (size, stride, padding) in [(2, 2, Padding::Valid), (3, 2, Padding::Same)] {
                let Some(pool) = Pool2dGeometry::new(g.out_shape(), [size; 2], [stride; 2], [padding; 2]) else {
                    continue;
                };
                let [_, relu] = steps(&g, &images, &filter, &bias);
                let mut maxima = vec![f32::NAN; pool.batch * pool.out_image_len()];
                max_pool(&pool, &relu, &mut maxima);
                let response = LocalResponse {
                    depth_radius: 2,
                    bias: 1.5,
                    alpha: 0.5,
                    beta: 0.5,
                };
                let mut normal = maxima.clone();
                lrn(&response, g.out_channels, &maxima, &mut normal);
                let (activity, pooled) = same_on_any_pool(|| {
                    let (mut activity, mut pooled) = (vec![f32::NAN; relu.len()], vec![f32::NAN; maxima.len()]);
                    let mut places = vec![f32::NAN; maxima.len()];
                    let mut normalized = places.clone();
                    let [images, filter, bias] = [&images, &filter, &bias].map(|x| &x[..]);
                    let fused = |wanted: Wanted<'_, f32>| {
                        conv2d_bias_relu_max_pool(&g, &pool, images, filter, bias, wanted);
                    };
                    fused(Wanted {
                        activity: Some(&mut activity),
                        places: None,
                        pooled: Some(&mut pooled),
                        normalized: None,
                    });
                    let mut alone = vec![f32::NAN; maxima.len()];
                    fused(Wanted {
                        activity: None,
                        places: None,
                        pooled: Some(&mut alone),
                        normalized: None,
                    });
                    assert_eq!(bits(&alone), bits(&pooled));
                    fused(Wanted {
                        activity: None,
                        places: None,
                        pooled: None,
                        normalized: Some((response, &mut normalized)),
                    });
                    assert_eq!(bits(&normalized), bits(&normal));
                    if pool.halves() {
                        alone.fill(f32::NAN);
                        normalized.fill(f32::NAN);
                        fused(Wanted {
                            activity: None,
                            places: Some(&mut places),
                            pooled: Some(&mut alone),
                            normalized: Some((response, &mut normalized)),
                        });
                        assert_eq!(bits(&alone), bits(&pooled));
                        assert_eq!(bits(&normalized), bits(&normal));
                        assert!(places.iter().zip(&alone).all(|(&place, &x)| (place < 4.0) == (x > 0.0)));
                    }
                    (activity, pooled)
                });
                assert_eq!(bits(&activity), bits(&relu));
                assert_eq!(bits(&pooled), bits(&maxima));
            }
        }
    }

    #[test]
    fn the_filters_gradient_by_places_has_the_bits_of_the_steps() {
        for g in cases() {
            let Some(pool) = Pool2dGeometry::new(g.out_shape(), [2; 2], [2; 2], [Padding::Valid; 2]) else {
                continue;
            };
            let (images, filter, _) = operands(&g);
            let (bias, gradient) = (
                numbers_f32(4, g.out_channels),
                numbers_f32(5, pool.batch * pool.out_image_len()),
            );
            let (mut places, mut pooled) = (gradient.clone(), gradient.clone());
            let wanted = Wanted {
                activity: None,
                places: Some(&mut places),
                pooled: Some(&mut pooled),
                normalized: None,
            };
            conv2d_bias_relu_max_pool(&g, &pool, &images, &filter, &bias, wanted);
            let mut out_backprop = vec![f32::NAN; g.batch * g.out_image_len()];
            let mut expected = [vec![f32::NAN; filter.len()], vec![f32::NAN; bias.len()]];
            let [filter_backprop, bias_backprop] = &mut expected;
            max_pool_relu_grad_at(&pool, &places, &gradient, &mut out_backprop, Some(bias_backprop));
            conv2d_backprop_filter(&g, &images, &out_backprop, filter_backprop);
            let got = same_on_any_pool(|| {
                let (mut filter, mut bias) = (vec![f32::NAN; filter.len()], vec![f32::NAN; bias.len()]);
                conv2d_backprop_filter_of_pool(&g, &pool, &images, &places, &gradient, &mut filter, &mut bias);
                [filter, bias]
            });
            assert_eq!(got.map(|x| bits(&x)), expected.map(|x| bits(&x)));
        }
    }

    #[test]
    fn halves_are_rounded_after_each_step() {
        for g in cases() {
            let (images, filter, _) = operands(&g);
            let half = |x: &[f32]| x.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>();
            let (images, filter, bias) = (half(&images), half(&filter), half(&numbers_f32(4, g.out_channels)));
            let expected = steps(&g, &images, &filter, &bias);
            for relu in [false, true] {
                let got = same_on_any_pool(|| {
                    let mut got = vec![f16::NAN; expected[0].len()];
                    conv2d_bias(&g, &images, &filter, &bias, relu, &mut got);
                    got
                });
                assert_eq!(got, expected[usize::from(relu)]);
            }
        }
    }
}
