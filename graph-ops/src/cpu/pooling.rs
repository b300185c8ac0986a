//! Pooling over windows of `NHWC` images: `MaxPool`, its gradient and second gradient, `AvgPool` and its gradient.
//!
//! As in TensorFlow, padding takes no part: a maximum is taken over, and an average is divided by, the pixels inside the
//! image. A maximum's gradient goes to the first largest element of the window in row-major order, found anew from the
//! input. Images are handled in parallel; windows of 2x2 that lie side by side have their own code.

mod halves;
mod relu_grad;
pub(super) mod rows;
#[cfg(test)]
mod tests;

pub(super) use relu_grad::{add_up, image_at};
pub use relu_grad::{max_pool_relu_grad, max_pool_relu_grad_at};

use super::element::Real;
use super::parallel::{SharedMut, for_each_range};
use super::scratch::{Plain, with_scratch};
use super::simd::multiversion;
use super::window::{Padding, Window};
use num_traits::{Bounded, Zero};

/// The shapes of one pooling. Dilations are 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2dGeometry {
    pub batch: usize,
    pub channels: usize,
    pub rows: Window,
    pub columns: Window,
}

impl Pool2dGeometry {
    /// Of images `[n, h, w, c]`; `None` where the windows do not fit (see [`Window::new`]). `size`, `strides` and `padding`
    /// are for rows, then columns.
    pub fn new(images: [usize; 4], size: [usize; 2], strides: [usize; 2], padding: [Padding; 2]) -> Option<Self> {
        let window = |d: usize| Window::new(images[1 + d], size[d], strides[d], 1, padding[d]);
        Some(Self {
            batch: images[0],
            channels: images[3],
            rows: window(0)?,
            columns: window(1)?,
        })
    }

    /// Elements of one input image.
    pub fn image_len(&self) -> usize {
        self.rows.input * self.columns.input * self.channels
    }

    /// Elements of one output image.
    pub fn out_image_len(&self) -> usize {
        self.rows.output * self.columns.output * self.channels
    }

    /// The output's shape, `NHWC`.
    pub fn out_shape(&self) -> [usize; 4] {
        [self.batch, self.rows.output, self.columns.output, self.channels]
    }

    /// Whether the windows are 2x2, side by side and wholly inside.
    pub(crate) fn halves(&self) -> bool {
        let halves = |w: &Window| w.size == 2 && w.stride == 2 && w.inside();
        halves(&self.rows) && halves(&self.columns)
    }

    /// For each row of windows that are [`halves`](Self::halves): two rows of an image, one of a gradient shaped as its output,
    /// and two of a gradient shaped as the image. Where no window reaches, that becomes zero.
    fn each_row_of_halves<T: PoolElement>(
        &self,
        image: &[T],
        gradient: &[T],
        to: &mut [T],
        mut f: impl FnMut([&[T]; 2], &[T], [&mut [T]; 2]),
    ) {
        if 2 * self.rows.output != self.rows.input || 2 * self.columns.output != self.columns.input {
            to.fill(T::zero());
        }
        if gradient.is_empty() {
            return;
        }
        let width = self.columns.input * self.channels;
        let images = image.chunks(2 * width).zip(to.chunks_mut(2 * width));
        for (gradient, (rows, to)) in gradient.chunks(self.columns.output * self.channels).zip(images) {
            f(rows.split_at(width).into(), gradient, to.split_at_mut(width).into());
        }
    }

    /// [`each_row_of_halves`](Self::each_row_of_halves) with the places of the maxima, shaped as the output, for the image.
    fn each_row_of_places<T: PoolElement>(
        &self,
        places: &[T],
        gradient: &[T],
        to: &mut [T],
        mut f: impl FnMut(&[T], &[T], [&mut [T]; 2]),
    ) {
        if 2 * self.rows.output != self.rows.input || 2 * self.columns.output != self.columns.input {
            to.fill(T::zero());
        }
        if gradient.is_empty() {
            return;
        }
        let (width, pooled_width) = (self.columns.input * self.channels, self.columns.output * self.channels);
        let pooled = places.chunks(pooled_width).zip(gradient.chunks(pooled_width));
        for ((places, gradient), to) in pooled.zip(to.chunks_mut(2 * width)) {
            f(places, gradient, to.split_at_mut(width).into());
        }
    }

    /// Calls `f` for each image, in parallel.
    fn each_image(&self, f: impl Fn(usize) + Sync + Send) {
        let grain = super::parallel::grain_for(self.image_len().max(self.out_image_len()));
        for_each_range(self.batch, grain, |images| images.for_each(&f));
    }

    /// For each output pixel, in order: its first element's index in the output image, and for each pixel of the window in
    /// row-major order its first element's index in the input image.
    #[inline(always)]
    fn windows(&self, mut open: impl FnMut(usize, usize), mut pixel: impl FnMut(usize, usize)) {
        for y in 0..self.rows.output {
            let rows = self.rows.pixels(y);
            for x in 0..self.columns.output {
                let columns = self.columns.pixels(x);
                let to = (y * self.columns.output + x) * self.channels;
                open(to, rows.len() * columns.len());
                for row in rows.clone() {
                    for column in columns.clone() {
                        pixel(to, (row * self.columns.input + column) * self.channels);
                    }
                }
            }
        }
    }
}

/// A dtype with a maximum.
pub trait PoolElement: Copy + Default + PartialOrd + Bounded + Zero + Send + Sync + Plain {}
impl<T: Copy + Default + PartialOrd + Bounded + Zero + Send + Sync + Plain> PoolElement for T {}

/// The largest element of each window.
///
/// # Panics
/// If a slice's length is not what the geometry says; so do all functions here.
pub fn max_pool<T: PoolElement>(g: &Pool2dGeometry, images: &[T], out: &mut [T]) {
    assert!(images.len() == g.batch * g.image_len() && out.len() == g.batch * g.out_image_len());
    let out = SharedMut::new(out);
    g.each_image(|n| {
        let image = &images[n * g.image_len()..(n + 1) * g.image_len()];
        // SAFETY: each image has its own output.
        let out = unsafe { out.slice(n * g.out_image_len()..(n + 1) * g.out_image_len()) };
        max_pool_image(g, image, out);
    });
}

/// [`max_pool`] of one image, on this thread.
pub(super) fn max_pool_image<T: PoolElement>(g: &Pool2dGeometry, image: &[T], out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    if !g.halves() {
        return max_image(g, image, out);
    }
    let width = g.columns.input * g.channels;
    let rows = image.chunks(2 * width).map(|rows| rows.split_at(width));
    for (out, (upper, lower)) in out.chunks_mut(g.columns.output * g.channels).zip(rows) {
        halves::max_row(g.channels, [upper, lower], out);
    }
}

/// [`max_pool`] of one image by windows that are [`halves`](Pool2dGeometry::halves), on this thread, and where the maxima are,
/// as [`max_pool_relu_grad_at`] wants to know it.
pub(super) fn max_pool_image_with_places<T: PoolElement + num_traits::Float>(
    g: &Pool2dGeometry,
    image: &[T],
    out: &mut [T],
    places: &mut [T],
) {
    assert!(g.halves());
    if out.is_empty() {
        return;
    }
    let width = g.columns.input * g.channels;
    let rows = image.chunks(2 * width).map(|rows| rows.split_at(width));
    let pooled_width = g.columns.output * g.channels;
    let pooled = out.chunks_mut(pooled_width).zip(places.chunks_mut(pooled_width));
    for ((out, places), (upper, lower)) in pooled.zip(rows) {
        halves::max_row_with_places(g.channels, [upper, lower], out, places);
    }
}

/// The larger one; the first where they do not compare.
#[inline(always)]
fn larger<T: PartialOrd>(a: T, b: T) -> T {
    if a < b { b } else { a }
}

/// Of windows of any kind.
fn max_image<T: PoolElement>(g: &Pool2dGeometry, image: &[T], out: &mut [T]) {
    let width = g.columns.input * g.channels;
    with_scratch(width, |maxima: &mut [T]| {
        for (y, out) in out.chunks_mut(g.columns.output * g.channels).enumerate() {
            let rows = g.rows.pixels(y);
            maxima.fill(T::min_value());
            rows::down(&image[rows.start * width..rows.end * width], maxima, larger);
            rows::along(g.channels, &g.columns, maxima, out, T::min_value(), larger);
        }
    });
}

/// The gradient of [`max_pool`]: `gradient`, shaped as its output, goes to where the maxima of `images` are.
pub fn max_pool_grad<T: PoolElement>(g: &Pool2dGeometry, images: &[T], gradient: &[T], in_backprop: &mut [T]) {
    assert!(images.len() == g.batch * g.image_len() && gradient.len() == g.batch * g.out_image_len());
    assert_eq!(in_backprop.len(), images.len());
    let shared = SharedMut::new(in_backprop);
    g.each_image(|n| {
        let range = n * g.image_len()..(n + 1) * g.image_len();
        let image = &images[range.clone()];
        let gradient = &gradient[n * g.out_image_len()..(n + 1) * g.out_image_len()];
        // SAFETY: each image has its own gradient.
        let to = unsafe { shared.slice(range) };
        max_pool_grad_image(g, image, gradient, to);
    });
}

/// [`max_pool_grad`] of one image, on this thread.
fn max_pool_grad_image<T: PoolElement>(g: &Pool2dGeometry, image: &[T], gradient: &[T], to: &mut [T]) {
    if g.halves() {
        return g.each_row_of_halves(image, gradient, to, |rows, gradient, to| {
            halves::grad_row(g.channels, rows, gradient, to, |_, d| d, |_, _| ());
        });
    }
    to.fill(T::zero());
    with_positions(g, image, |positions| {
        for (&at, &gradient) in positions.iter().zip(gradient) {
            if let Some(to) = to.get_mut(at as usize) {
                *to = *to + gradient;
            }
        }
    });
}

/// No element: an empty window's position.
const NOWHERE: u32 = u32::MAX;

/// Lends `f` the index in the image of each output element's maximum, the first one in row-major order.
fn with_positions<T: PoolElement>(g: &Pool2dGeometry, image: &[T], f: impl FnOnce(&[u32])) {
    assert!(image.len() < NOWHERE as usize, "an image of 2^32 elements or more");
    with_scratch(g.out_image_len(), |positions: &mut [u32]| {
        with_scratch(g.out_image_len(), |best: &mut [T]| {
            positions.fill(NOWHERE);
            g.windows(
                |_, _| (),
                |to, from| {
                    for c in 0..g.channels {
                        let (at, best, x) = (&mut positions[to + c], &mut best[to + c], image[from + c]);
                        if *at == NOWHERE || *best < x {
                            (*at, *best) = ((from + c) as u32, x);
                        }
                    }
                },
            );
        });
        f(positions);
    });
}

/// The gradient of [`max_pool_grad`] with respect to its `gradient`: `gradient`, shaped as the images, is picked where the
/// maxima of `images` are. `out` is shaped as the pooled output.
pub fn max_pool_grad_grad<T: PoolElement>(g: &Pool2dGeometry, images: &[T], gradient: &[T], out: &mut [T]) {
    assert!(images.len() == g.batch * g.image_len() && out.len() == g.batch * g.out_image_len());
    assert_eq!(gradient.len(), images.len());
    let shared = SharedMut::new(out);
    g.each_image(|n| {
        let range = n * g.image_len()..(n + 1) * g.image_len();
        let gradient = &gradient[range.clone()];
        // SAFETY: each image has its own output.
        let out = unsafe { shared.slice(n * g.out_image_len()..(n + 1) * g.out_image_len()) };
        with_positions(g, &images[range], |positions| {
            for (out, &at) in out.iter_mut().zip(positions) {
                *out = gradient.get(at as usize).copied().unwrap_or(T::zero());
            }
        });
    });
}

/// [`max_pool`] that says, by `index(image, element of the image)`, where each maximum is.
pub fn max_pool_with_argmax<T: PoolElement, I: Send>(
    g: &Pool2dGeometry,
    images: &[T],
    out: &mut [T],
    argmax: &mut [I],
    index: impl Fn(usize, usize) -> I + Sync + Send,
) {
    assert!(images.len() == g.batch * g.image_len() && out.len() == g.batch * g.out_image_len());
    assert_eq!(argmax.len(), out.len());
    let (out, argmax) = (SharedMut::new(out), SharedMut::new(argmax));
    g.each_image(|n| {
        let image = &images[n * g.image_len()..(n + 1) * g.image_len()];
        let range = n * g.out_image_len()..(n + 1) * g.out_image_len();
        // SAFETY: each image has its own outputs.
        let (out, argmax) = unsafe { (out.slice(range.clone()), argmax.slice(range)) };
        with_positions(g, image, |positions| {
            for ((out, argmax), &at) in out.iter_mut().zip(argmax).zip(positions) {
                *out = image.get(at as usize).copied().unwrap_or(T::min_value());
                *argmax = index(n, at as usize);
            }
        });
    });
}

/// The mean of each window's pixels inside the image.
pub fn avg_pool<T: Real>(g: &Pool2dGeometry, images: &[T], out: &mut [T])
where
    T::Wide: Plain,
{
    assert!(images.len() == g.batch * g.image_len() && out.len() == g.batch * g.out_image_len());
    let out = SharedMut::new(out);
    g.each_image(|n| {
        let image = &images[n * g.image_len()..(n + 1) * g.image_len()];
        // SAFETY: each image has its own output.
        let out = unsafe { out.slice(n * g.out_image_len()..(n + 1) * g.out_image_len()) };
        avg_image(g, image, out);
    });
}

/// [`avg_pool`] of one image, on this thread.
fn avg_image<T: Real>(g: &Pool2dGeometry, image: &[T], out: &mut [T])
where
    T::Wide: Plain,
{
    if out.is_empty() {
        return;
    }
    let [width, out_width] = [g.columns.input, g.columns.output].map(|columns| columns * g.channels);
    with_scratch(width + out_width, |scratch: &mut [T::Wide]| {
        let (down, along) = scratch.split_at_mut(width);
        for (y, out) in out.chunks_mut(out_width).enumerate() {
            let rows = g.rows.pixels(y);
            down.fill(T::Wide::zero());
            rows::down(&image[rows.start * width..rows.end * width], down, |sum, x: T| {
                sum + x.widen()
            });
            rows::along(g.channels, &g.columns, down, along, T::Wide::zero(), |sum, x| sum + x);
            rows::means(g.channels, &g.columns, rows.len(), along, out);
        }
    });
}

/// The gradient of [`avg_pool`]: each output's gradient, divided by its window's pixels, is added to all of them.
pub fn avg_pool_grad<T: Real>(g: &Pool2dGeometry, gradient: &[T], in_backprop: &mut [T])
where
    T::Wide: Plain,
{
    assert!(in_backprop.len() == g.batch * g.image_len() && gradient.len() == g.batch * g.out_image_len());
    let shared = SharedMut::new(in_backprop);
    g.each_image(|n| {
        let gradient = &gradient[n * g.out_image_len()..(n + 1) * g.out_image_len()];
        // SAFETY: each image has its own gradient.
        let to = unsafe { shared.slice(n * g.image_len()..(n + 1) * g.image_len()) };
        with_scratch(to.len(), |sums: &mut [T::Wide]| avg_grad_image(g, gradient, sums, to));
    });
}

multiversion! {
    fn avg_grad_image[T: Real](g: &Pool2dGeometry, gradient: &[T], sums: &mut [T::Wide], out: &mut [T]) {
        use super::element::Wide;
        sums.fill(T::Wide::zero());
        let c = g.channels;
        let share = std::cell::Cell::new(T::Wide::zero());
        g.windows(
            |_, count| share.set(T::Wide::from_usize(count)),
            |from, to| {
                let (sums, gradient) = (&mut sums[to..to + c], &gradient[from..from + c]);
                let share = share.get();
                sums.iter_mut().zip(gradient).for_each(|(s, x)| *s += x.widen() / share);
            },
        );
        out.iter_mut().zip(&*sums).for_each(|(o, &s)| *o = T::narrow(s));
    }
}
