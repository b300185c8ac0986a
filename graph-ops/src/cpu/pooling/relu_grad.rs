//! The gradient of a maximum over the outputs of `Relu`.

use super::{Pool2dGeometry, PoolElement, halves, max_pool_grad_image};
use crate::cpu::element::{Real, Wide};
use crate::cpu::parallel::SharedMut;
use crate::cpu::reduce::{Sum, reduce};
use crate::cpu::scratch::{Plain, with_scratch};
use num_traits::{Float, Zero};

/// The gradient of `MaxPool(Relu(x))` with respect to `x`, given the `activity` `Relu(x)`:
/// `in_backprop[i] = MaxPoolGrad(activity, gradient)[i]` where `activity[i] > 0`, elsewhere zero. `bias_gradient`, if wanted,
/// is its sum over all pixels, one element a channel: the gradient of a bias that was added before `Relu`. That may be of the type
/// that the elements are computed in.
///
/// `gradient` is shaped as the pooled output, `in_backprop` as `activity`. Sums are taken over rows of windows, then over rows,
/// then over images, whatever the number of threads.
///
/// # Panics
/// If a slice's length is not what the geometry says.
pub fn max_pool_relu_grad<T: PoolElement + Real, S: Real<Wide = T::Wide>>(
    g: &Pool2dGeometry,
    activity: &[T],
    gradient: &[T],
    in_backprop: &mut [T],
    bias_gradient: Option<&mut [S]>,
) where
    T::Wide: Plain,
{
    assert!(activity.len() == g.batch * g.image_len() && gradient.len() == g.batch * g.out_image_len());
    each_image(g, in_backprop, bias_gradient, |n, to, sums| {
        let image = &activity[n * g.image_len()..(n + 1) * g.image_len()];
        let gradient = &gradient[n * g.out_image_len()..(n + 1) * g.out_image_len()];
        if g.halves() {
            halves_image(g, image, gradient, to, sums);
        } else {
            image_of_any(g, image, gradient, to, sums);
        }
    });
}

/// [`max_pool_relu_grad`] of windows of 2x2 that lie side by side, by the `places` of the maxima in place of the activity: for
/// each, 0 to 3 in row-major order, and 4 more where the maximum is not above zero. The bits are the same.
///
/// # Panics
/// As there, and for other windows.
pub fn max_pool_relu_grad_at<T: PoolElement + Real + Float>(
    g: &Pool2dGeometry,
    places: &[T],
    gradient: &[T],
    in_backprop: &mut [T],
    bias_gradient: Option<&mut [T]>,
) where
    T::Wide: Plain,
{
    assert!(
        g.halves()
            && [places, gradient]
                .iter()
                .all(|x| x.len() == g.batch * g.out_image_len())
    );
    each_image(g, in_backprop, bias_gradient, |n, to, sums| {
        let range = n * g.out_image_len()..(n + 1) * g.out_image_len();
        image_at(g, &places[range.clone()], &gradient[range], to, sums);
    });
}

/// One image of [`max_pool_relu_grad_at`], on this thread; `sums` are the channels' sums.
pub(in crate::cpu) fn image_at<T: PoolElement + Real + Float>(
    g: &Pool2dGeometry,
    places: &[T],
    gradient: &[T],
    to: &mut [T],
    sums: &mut [T::Wide],
) where
    T::Wide: Plain,
{
    with_scratch(halves::groups_len(g.channels), |row_sums: &mut [T::Wide]| {
        g.each_row_of_places(places, gradient, to, |places, gradient, to| {
            row_sums.fill(T::Wide::zero());
            halves::grad_row_at(g.channels, places, gradient, to, |group, shares| {
                let row_sums = &mut row_sums[group..group + shares.len()];
                row_sums.iter_mut().zip(shares).for_each(|(sum, x)| *sum += x.widen());
            });
            halves::add_groups(g.channels, row_sums, sums);
        });
    });
}

/// Calls `image(n, its gradient, its sums)` for each image, in parallel, and adds up the sums, which start at zero.
fn each_image<T: PoolElement + Real, S: Real<Wide = T::Wide>>(
    g: &Pool2dGeometry,
    in_backprop: &mut [T],
    bias_gradient: Option<&mut [S]>,
    image: impl Fn(usize, &mut [T], &mut [T::Wide]) + Sync + Send,
) where
    T::Wide: Plain,
{
    assert_eq!(in_backprop.len(), g.batch * g.image_len());
    let channels = g.channels;
    with_scratch(g.batch * channels, |sums: &mut [T::Wide]| {
        let (shared, shared_sums) = (SharedMut::new(in_backprop), SharedMut::new(sums));
        g.each_image(|n| {
            let range = n * g.image_len()..(n + 1) * g.image_len();
            // SAFETY: each image has its own gradient and sums.
            let (to, sums) = unsafe { (shared.slice(range), shared_sums.slice(n * channels..(n + 1) * channels)) };
            sums.fill(T::Wide::zero());
            image(n, to, sums);
        });
        if let Some(bias_gradient) = bias_gradient {
            add_up(g, sums, bias_gradient);
        }
    });
}

/// The sums of all images, `[n, channels]`, added in order.
pub(in crate::cpu) fn add_up<T: Real>(g: &Pool2dGeometry, sums: &[T::Wide], bias_gradient: &mut [T])
where
    T::Wide: Plain,
{
    with_scratch(g.channels, |total: &mut [T::Wide]| {
        reduce(
            Sum::<T::Wide>::new(),
            sums,
            &[g.batch, g.channels],
            &[true, false],
            total,
        );
        let to = bias_gradient.iter_mut().zip(&*total);
        to.for_each(|(to, &x)| *to = T::narrow(x));
    });
}

/// A gradient behind `Relu`, as `ReluGrad` has it: it is multiplied with zero or one.
#[inline(always)]
fn behind_relu<T: Real>(activity: T, gradient: T) -> T {
    let zero = T::Wide::zero();
    let passes = if activity.widen() > zero {
        T::Wide::from_f64(1.0)
    } else {
        zero
    };
    T::narrow(gradient.widen() * passes)
}

/// One image, with side-by-side 2x2 windows; all of a window's gradient is in one pixel, so the windows are summed.
fn halves_image<T: PoolElement + Real>(
    g: &Pool2dGeometry,
    image: &[T],
    gradient: &[T],
    to: &mut [T],
    sums: &mut [T::Wide],
) where
    T::Wide: Plain,
{
    with_scratch(halves::groups_len(g.channels), |row_sums: &mut [T::Wide]| {
        g.each_row_of_halves(image, gradient, to, |rows, gradient, to| {
            row_sums.fill(T::Wide::zero());
            halves::grad_row(g.channels, rows, gradient, to, behind_relu, |group, shares| {
                let row_sums = &mut row_sums[group..group + shares.len()];
                row_sums.iter_mut().zip(shares).for_each(|(sum, x)| *sum += x.widen());
            });
            halves::add_groups(g.channels, row_sums, sums);
        });
    });
}

fn image_of_any<T: PoolElement + Real>(
    g: &Pool2dGeometry,
    image: &[T],
    gradient: &[T],
    to: &mut [T],
    sums: &mut [T::Wide],
) where
    T::Wide: Plain,
{
    max_pool_grad_image(g, image, gradient, to);
    to.iter_mut().zip(image).for_each(|(to, &x)| *to = behind_relu(x, *to));
    if to.is_empty() {
        return;
    }
    with_scratch(g.channels, |row_sums: &mut [T::Wide]| {
        for row in to.chunks(g.columns.input * g.channels) {
            row_sums.fill(T::Wide::zero());
            for pixel in row.chunks(g.channels) {
                row_sums.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += x.widen());
            }
            sums.iter_mut().zip(&*row_sums).for_each(|(sum, &x)| *sum += x);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cases, coarse};
    use super::super::{max_pool, max_pool_grad, max_pool_image_with_places};
    use super::*;
    use crate::cpu::testing::{assert_close, numbers_f32, same_on_any_pool};
    use half::bf16;

    #[test]
    fn it_is_the_gradient_of_the_maximum_then_of_relu_and_its_sum() {
        for g in cases() {
            let activity: Vec<f32> = coarse(1, g.batch * g.image_len()).iter().map(|x| x.max(0.0)).collect();
            let gradient = numbers_f32(2, g.batch * g.out_image_len());
            let (got, sums) = same_on_any_pool(|| {
                let (mut got, mut sums) = (vec![f32::NAN; activity.len()], vec![f32::NAN; g.channels]);
                max_pool_relu_grad(&g, &activity, &gradient, &mut got, Some(&mut sums));
                (got, sums)
            });
            let mut expected = vec![f32::NAN; activity.len()];
            max_pool_grad(&g, &activity, &gradient, &mut expected);
            expected
                .iter_mut()
                .zip(&activity)
                .for_each(|(e, &x)| *e *= f32::from(u8::from(x > 0.0)));
            assert_eq!(got, expected);
            let mut expected_sums = vec![0.0; g.channels];
            for (i, &x) in expected.iter().enumerate() {
                expected_sums[i % g.channels] += f64::from(x);
            }
            assert_close(&sums, &expected_sums, 2e-6);
            let mut alone = vec![f32::NAN; activity.len()];
            max_pool_relu_grad(&g, &activity, &gradient, &mut alone, None::<&mut [f32]>);
            assert_eq!(alone, expected);
            if !g.halves() {
                continue;
            }
            let [mut pooled, mut places] = [vec![f32::NAN; gradient.len()], vec![f32::NAN; gradient.len()]];
            for n in 0..g.batch {
                let to = n * g.out_image_len()..(n + 1) * g.out_image_len();
                let image = &activity[n * g.image_len()..(n + 1) * g.image_len()];
                max_pool_image_with_places(&g, image, &mut pooled[to.clone()], &mut places[to]);
            }
            let mut maxima = vec![f32::NAN; gradient.len()];
            max_pool(&g, &activity, &mut maxima);
            assert_eq!(pooled, maxima);
            let (by_places, place_sums) = same_on_any_pool(|| {
                let (mut got, mut sums) = (vec![f32::NAN; activity.len()], vec![f32::NAN; g.channels]);
                max_pool_relu_grad_at(&g, &places, &gradient, &mut got, Some(&mut sums));
                (got, sums)
            });
            assert_eq!((by_places, place_sums), (got, sums));
        }
    }

    #[test]
    fn halves_are_summed_in_float() {
        for g in cases() {
            let half = |x: &[f32]| x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
            let activity = half(&coarse(1, g.batch * g.image_len()));
            let gradient = half(&numbers_f32(2, g.batch * g.out_image_len()));
            let (mut got, mut sums) = (half(&vec![f32::NAN; activity.len()]), half(&vec![f32::NAN; g.channels]));
            max_pool_relu_grad(&g, &activity, &gradient, &mut got, Some(&mut sums));
            let mut expected = vec![0.0f64; g.channels];
            for (i, x) in got.iter().enumerate() {
                expected[i % g.channels] += x.to_f64();
            }
            let mut in_float = vec![f32::NAN; g.channels];
            let mut again = got.clone();
            max_pool_relu_grad(&g, &activity, &gradient, &mut again, Some(&mut in_float));
            assert_eq!((half(&in_float), again), (sums.clone(), got));
            for (got, expected) in sums.iter().zip(expected) {
                assert!(
                    (got.to_f64() - expected).abs() <= 0.01 * expected.abs().max(1.0),
                    "{got} {expected}"
                );
            }
        }
    }
}
