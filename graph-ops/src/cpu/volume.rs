//! Windows over `NDHWC` volumes: convolutions as matrix products of gathered patches, and pooling.
//!
//! As in TensorFlow, padding takes no part in pooling: a maximum is taken over, and an average divided by, the voxels inside.

use super::element::Wide;
use super::gemm::{GemmElement, Product, gemm};
use super::parallel::for_each_chunk;
use super::pooling::rows;
use super::scratch::with_scratch;
use super::window::{Padding, Window};

/// How windows slide over volumes: along planes, rows and columns.
#[derive(Clone, Copy, Debug)]
pub struct Volume {
    pub batch: usize,
    pub channels: usize,
    pub windows: [Window; 3],
}

impl Volume {
    /// Of volumes `[n, d, h, w, c]`; `None` where the windows do not fit (see [`Window::new`]).
    pub fn new(
        volumes: [usize; 5],
        size: [usize; 3],
        strides: [usize; 3],
        dilations: [usize; 3],
        padding: Padding,
    ) -> Option<Self> {
        let window = |d: usize| Window::new(volumes[1 + d], size[d], strides[d], dilations[d], padding);
        Some(Self {
            batch: volumes[0],
            channels: volumes[4],
            windows: [window(0)?, window(1)?, window(2)?],
        })
    }

    /// How many elements all windows see, each as often as a window sees it.
    pub fn visits(&self) -> usize {
        let windows = self.windows.iter().map(|window| window.size * window.output);
        self.batch * self.channels * windows.product::<usize>()
    }

    /// The shape of results with `channels` channels.
    pub fn out_shape(&self, channels: usize) -> [usize; 5] {
        let [d, h, w] = self.windows.map(|window| window.output);
        [self.batch, d, h, w, channels]
    }

    /// Voxels of one input, and of one output.
    fn voxels(&self) -> [usize; 2] {
        [
            self.windows.iter().map(|window| window.input).product(),
            self.windows.iter().map(|window| window.output).product(),
        ]
    }

    /// Taps of a window.
    fn taps(&self) -> usize {
        self.windows.iter().map(|window| window.size).product()
    }

    /// The input voxel of a tap of the window at `at`, if it is inside.
    fn voxel(&self, at: [usize; 3], tap: [usize; 3]) -> Option<usize> {
        let mut voxel = 0;
        for (d, window) in self.windows.iter().enumerate() {
            voxel = voxel * window.input + window.place(at[d], tap[d])?;
        }
        Some(voxel)
    }

    /// Calls `f` with the number of each window in plane `plane`, that of each of its taps, and the tap's voxel if it is
    /// inside.
    fn each_tap(&self, plane: usize, mut f: impl FnMut(usize, usize, Option<usize>)) {
        let [depth, rows, columns] = self.windows;
        let mut window = 0;
        for y in 0..rows.output {
            for x in 0..columns.output {
                let mut tap = 0;
                for i in 0..depth.size {
                    for j in 0..rows.size {
                        for k in 0..columns.size {
                            f(window, tap, self.voxel([plane, y, x], [i, j, k]));
                            tap += 1;
                        }
                    }
                }
                window += 1;
            }
        }
    }

    /// Windows of a plane.
    fn in_plane(&self) -> usize {
        self.windows[1].output * self.windows[2].output
    }

    /// The parts of an input and of an output with so many channels that belong to a plane of an image, in turn.
    fn planes(&self) -> impl Iterator<Item = (usize, usize)> {
        let planes = self.windows[0].output;
        (0..self.batch).flat_map(move |image| (0..planes).map(move |plane| (image, plane)))
    }

    /// Gathers the patches of a plane, one row a window.
    fn gather<W: Wide>(&self, image: &[W], plane: usize, patches: &mut [W]) {
        let (channels, [depth, rows, columns]) = (self.channels, self.windows);
        let mut rows_of_taps = patches.chunks_exact_mut((columns.size * channels).max(1));
        for y in 0..rows.output {
            for x in 0..columns.output {
                for i in 0..depth.size {
                    for (j, row) in (0..rows.size).zip(&mut rows_of_taps) {
                        let places = [depth.place(plane, i), rows.place(y, j)];
                        let [Some(z), Some(y)] = places else {
                            row.fill(W::zero());
                            continue;
                        };
                        let image = &image[(z * rows.input + y) * columns.input * channels..];
                        if columns.dilation == 1 {
                            let inside = columns.pixels(x);
                            let before = columns.before.saturating_sub(x * columns.stride).min(columns.size);
                            let (start, end) = (before * channels, (before + inside.len()) * channels);
                            row[..start].fill(W::zero());
                            row[start..end].copy_from_slice(&image[inside.start * channels..inside.end * channels]);
                            row[end..].fill(W::zero());
                            continue;
                        }
                        for (k, tap) in row.chunks_exact_mut(channels).enumerate() {
                            match columns.place(x, k) {
                                Some(x) => tap.copy_from_slice(&image[x * channels..][..channels]),
                                None => tap.fill(W::zero()),
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `out[n, z, y, x, o]`: the sum over taps and channels of `volumes` times `filter[taps, c, o]`.
///
/// # Panics
/// If a slice's length is not what the geometry says; so do all functions here.
pub fn conv3d<W: Wide + GemmElement>(g: &Volume, volumes: &[W], filter: &[W], outputs: usize, out: &mut [W]) {
    let ([voxels, _], inner) = (g.voxels(), g.taps() * g.channels);
    let (windows, planes) = (g.in_plane(), g.windows[0].output);
    for_each_chunk(out, (windows * outputs).max(1), |start, out| {
        let plane = start / out.len();
        let image = &volumes[plane / planes * voxels * g.channels..][..voxels * g.channels];
        with_scratch(windows * inner, |patches: &mut [W]| {
            g.gather(image, plane % planes, patches);
            gemm(Product::new(windows, outputs, inner), patches, filter, out);
        });
    });
}

/// The gradient of [`conv3d`] with respect to the filter.
pub fn conv3d_backprop_filter<W: Wide + GemmElement>(
    g: &Volume,
    volumes: &[W],
    gradient: &[W],
    outputs: usize,
    filter: &mut [W],
) {
    let ([voxels, _], inner) = (g.voxels(), g.taps() * g.channels);
    let windows = g.in_plane();
    filter.fill(W::zero());
    let mut patches = vec![W::zero(); windows * inner];
    let mut product = Product::new(inner, outputs, windows).transposed(true, false);
    product.accumulate = true;
    for ((image, plane), gradient) in g.planes().zip(gradient.chunks_exact((windows * outputs).max(1))) {
        g.gather(
            &volumes[image * voxels * g.channels..][..voxels * g.channels],
            plane,
            &mut patches,
        );
        gemm(product, &patches, gradient, filter);
    }
}

/// The gradient of [`conv3d`] with respect to the volumes.
pub fn conv3d_backprop_input<W: Wide + GemmElement>(
    g: &Volume,
    gradient: &[W],
    filter: &[W],
    outputs: usize,
    volumes: &mut [W],
) {
    let ([voxels, _], taps) = (g.voxels(), g.taps());
    let (channels, windows, inner) = (g.channels, g.in_plane(), taps * g.channels);
    volumes.fill(W::zero());
    let mut patches = vec![W::zero(); windows * inner];
    let product = Product::new(windows, inner, outputs).transposed(false, true);
    for ((image, plane), gradient) in g.planes().zip(gradient.chunks_exact((windows * outputs).max(1))) {
        gemm(product, gradient, filter, &mut patches);
        let image = &mut volumes[image * voxels * channels..][..voxels * channels];
        g.each_tap(plane, |window, tap, voxel| {
            let Some(voxel) = voxel else { return };
            let patch = &patches[(window * taps + tap) * channels..][..channels];
            let to = &mut image[voxel * channels..][..channels];
            to.iter_mut().zip(patch).for_each(|(to, &x)| *to += x);
        });
    }
}

/// Fills `out`, an image of which has `len` elements, image by image: `f` gets the number of the image and its part.
fn each_image<W: Wide>(out: &mut [W], len: usize, f: impl Fn(usize, &mut [W]) + Sync + Send) {
    for_each_chunk(out, len.max(1), |start, out| f(start / out.len(), out));
}

/// Calls `f` for each window of an image: where its output's channels begin, and for each voxel inside where its channels begin.
fn each_window(g: &Volume, mut f: impl FnMut(usize, &[usize])) {
    let mut inside = Vec::with_capacity(g.taps());
    for plane in 0..g.windows[0].output {
        let first = plane * g.in_plane();
        let mut open = None;
        g.each_tap(plane, |window, _, voxel| {
            if open != Some(window) {
                if let Some(done) = open {
                    f((first + done) * g.channels, &inside);
                }
                open = Some(window);
                inside.clear();
            }
            inside.extend(voxel.map(|voxel| voxel * g.channels));
        });
        if let Some(done) = open {
            f((first + done) * g.channels, &inside);
        }
    }
}

impl Volume {
    /// Elements of one input image, and of one output with as many channels.
    fn image_lens(&self) -> [usize; 2] {
        self.voxels().map(|voxels| voxels * self.channels)
    }
}

/// Fills `out`, the windows of `volumes` row by row: `f` gets the rows that have one window's depth and height for all columns,
/// how many they are, and the results' part.
fn each_row_of_windows<W: Wide>(
    g: &Volume,
    volumes: &[W],
    out: &mut [W],
    f: impl Fn(&mut dyn Iterator<Item = &[W]>, usize, &mut [W]) + Sync + Send,
) {
    let [depth, rows, columns] = g.windows;
    let ([len, pooled_len], width) = (g.image_lens(), columns.input * g.channels);
    each_image(out, pooled_len, |image, out| {
        let volume = &volumes[image * len..][..len];
        let row_len = (columns.output * g.channels).max(1);
        for (row, out) in out.chunks_exact_mut(row_len).enumerate() {
            let (planes, rows_covered) = (depth.pixels(row / rows.output), rows.pixels(row % rows.output));
            let count = planes.len() * rows_covered.len();
            let mut covered = planes.map(|plane| {
                let start = plane * rows.input;
                &volume[(start + rows_covered.start) * width..(start + rows_covered.end) * width]
            });
            f(&mut covered, count, out);
        }
    });
}

/// The largest element of each window.
pub fn max_pool3d<W: Wide>(g: &Volume, volumes: &[W], out: &mut [W]) {
    let columns = g.windows[2];
    let larger = |best: W, x: W| if best < x { x } else { best };
    each_row_of_windows(g, volumes, out, |covered, _, out| {
        with_scratch(columns.input * g.channels, |maxima: &mut [W]| {
            maxima.fill(W::min_value());
            covered.for_each(|covered| rows::down(covered, maxima, larger));
            rows::along(g.channels, &columns, maxima, out, W::min_value(), larger);
        });
    });
}

/// The gradient of [`max_pool3d`]: it goes to every element that is equal to its window's largest.
pub fn max_pool3d_grad<W: Wide>(g: &Volume, volumes: &[W], pooled: &[W], gradient: &[W], out: &mut [W]) {
    let [len, pooled_len] = g.image_lens();
    each_image(out, len, |image, out| {
        let volume = &volumes[image * len..][..len];
        let [pooled, gradient] = [pooled, gradient].map(|of_all| &of_all[image * pooled_len..][..pooled_len]);
        out.fill(W::zero());
        each_window(g, |at, inside| {
            for &voxel in inside {
                for c in 0..g.channels {
                    if volume[voxel + c] == pooled[at + c] {
                        out[voxel + c] += gradient[at + c];
                    }
                }
            }
        });
    });
}

/// The gradient of [`max_pool3d_grad`]: of each window the element where its first largest one is.
pub fn max_pool3d_grad_grad<W: Wide>(g: &Volume, volumes: &[W], pooled: &[W], gradient: &[W], out: &mut [W]) {
    let [len, pooled_len] = g.image_lens();
    each_image(out, pooled_len, |image, out| {
        let [volume, gradient] = [volumes, gradient].map(|of_all| &of_all[image * len..][..len]);
        let pooled = &pooled[image * pooled_len..][..pooled_len];
        out.fill(W::zero());
        each_window(g, |at, inside| {
            for c in 0..g.channels {
                if let Some(&voxel) = inside.iter().find(|&&voxel| volume[voxel + c] == pooled[at + c]) {
                    out[at + c] = gradient[voxel + c];
                }
            }
        });
    });
}

/// The mean of each window.
pub fn avg_pool3d<W: Wide>(g: &Volume, volumes: &[W], out: &mut [W]) {
    let columns = g.windows[2];
    let plus = |sum: W, x: W| sum + x;
    each_row_of_windows(g, volumes, out, |covered, count, out| {
        with_scratch(columns.input * g.channels + out.len(), |scratch: &mut [W]| {
            let (down, along) = scratch.split_at_mut(columns.input * g.channels);
            down.fill(W::zero());
            covered.for_each(|covered| rows::down(covered, down, plus));
            rows::along(g.channels, &columns, down, along, W::zero(), plus);
            rows::means(g.channels, &columns, count, along, out);
        });
    });
}

/// The gradient of [`avg_pool3d`]: an equal share for each element.
pub fn avg_pool3d_grad<W: Wide>(g: &Volume, gradient: &[W], out: &mut [W]) {
    let [len, pooled_len] = g.image_lens();
    each_image(out, len, |image, out| {
        let gradient = &gradient[image * pooled_len..][..pooled_len];
        out.fill(W::zero());
        each_window(g, |at, inside| {
            let count = W::from_usize(inside.len());
            for &to in inside {
                let pairs = out[to..to + g.channels].iter_mut().zip(&gradient[at..]);
                pairs.for_each(|(out, &x)| *out += x / count);
            }
        });
    });
}
