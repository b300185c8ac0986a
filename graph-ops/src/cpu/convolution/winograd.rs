//! Convolutions with filters of 3x3 in fewer multiplications: Winograd's minimal filtering F(2x2, 3x3), as in Lavin, Gray,
//! "Fast Algorithms for Convolutional Neural Networks" (2015).
//!
//! The output is cut into tiles of 2x2, each of which depends on a patch of 4x4 input pixels `d`. With the filter `g`,
//! `tile = A' [(G g G') * (B' d B)] A`, where `*` multiplies element by element: 16 products instead of 36. Summed over the input
//! channels, each of the 16 elements is a matrix product of all tiles' transformed patches with the transformed filters. The
//! input's gradient is the same chain backwards: with `dM = A dY A'`, that of the patches is `B [(G g G') * dM] B'`.
//!
//! The filter's gradient sums over all tiles of a batch, where the transforms' rounding errors add up to more than the plain
//! sum's; it is not computed so.
//!
//! The transforms only add, subtract and halve, so rounding errors stay within a small factor of the plain sum's. What is not
//! finite in a patch would spread over its whole tile, so that operands with such numbers are left to the plain sum.

use super::{Conv2dGeometry, ConvScalar, VectorTask, dispatch, vectors};
use crate::cpu::parallel::{GRAIN, for_each_range};
use crate::cpu::simd::{Portable, Vector, multiversion};
use crate::cpu::tile::{Loops, MOST_ROWS, Panels, Store, rows, rows_at_a_time};
use num_traits::{Float, One};
use std::sync::atomic::{AtomicBool, Ordering};

mod forward;
mod input;

pub(super) use forward::convolve;
pub(super) use input::backprop_input;

/// Elements of a transformed patch.
const POINTS: usize = 16;

/// Tiles whose products are taken together: as many rows of 16 matrix products.
const TILES: usize = 64;

/// One dimension of a transform, from `I` elements to `O`.
trait Line<const I: usize, const O: usize> {
    /// # Safety
    /// The CPU has `V`'s instructions.
    unsafe fn line<V: Vector>(x: [V; I]) -> [V; O];
}

/// `B'`: of a patch.
struct Patch;
impl Line<4, 4> for Patch {
    #[inline(always)]
    unsafe fn line<V: Vector>([d0, d1, d2, d3]: [V; 4]) -> [V; 4] {
        // SAFETY: the caller's promise, here and in the other lines.
        unsafe { [d0.sub(d2), d1.add(d2), d2.sub(d1), d1.sub(d3)] }
    }
}

/// `B`: of a patch's gradient.
struct PatchGradient;
impl Line<4, 4> for PatchGradient {
    #[inline(always)]
    unsafe fn line<V: Vector>([v0, v1, v2, v3]: [V; 4]) -> [V; 4] {
        // SAFETY: as above.
        unsafe { [v0, v1.sub(v2).add(v3), v1.add(v2).sub(v0), V::zero().sub(v3)] }
    }
}

/// `A'`: of a tile.
struct Tile;
impl Line<4, 2> for Tile {
    #[inline(always)]
    unsafe fn line<V: Vector>([m0, m1, m2, m3]: [V; 4]) -> [V; 2] {
        // SAFETY: as above.
        unsafe { [m0.add(m1).add(m2), m1.sub(m2).sub(m3)] }
    }
}

/// `A`: of a tile's gradient.
struct TileGradient;
impl Line<2, 4> for TileGradient {
    #[inline(always)]
    unsafe fn line<V: Vector>([y0, y1]: [V; 2]) -> [V; 4] {
        // SAFETY: as above.
        unsafe { [y0, y0.add(y1), y0.sub(y1), V::zero().sub(y1)] }
    }
}

/// `G`: of a filter.
struct Filter;
impl Line<3, 4> for Filter {
    #[inline(always)]
    unsafe fn line<V: Vector>([g0, g1, g2]: [V; 3]) -> [V; 4] {
        // SAFETY: as above.
        unsafe {
            let outer = g0.add(g2);
            [g0, half(outer.add(g1)), half(outer.sub(g1)), g2]
        }
    }
}

/// # Safety
/// The CPU has `V`'s instructions.
#[inline(always)]
unsafe fn half<V: Vector>(x: V) -> V {
    let one = V::Scalar::one();
    // SAFETY: the caller's promise.
    unsafe { V::zero().plus_product(x, V::broadcast(&(one / (one + one)))) }
}

/// Transforms both dimensions.
///
/// # Safety
/// The CPU has `V`'s instructions.
#[inline(always)]
unsafe fn both<V: Vector, L: Line<I, O>, const I: usize, const O: usize>(x: [[V; I]; I]) -> [[V; O]; O] {
    // SAFETY: the caller's promise, for every call here.
    unsafe {
        let mut lines = [[V::zero(); O]; I];
        for i in 0..I {
            lines[i] = L::line(x[i]);
        }
        let mut out = [[V::zero(); O]; O];
        for o in 0..O {
            let mut column = [V::zero(); I];
            for i in 0..I {
                column[i] = lines[i][o];
            }
            let column = L::line(column);
            for i in 0..O {
                out[i][o] = column[i];
            }
        }
        out
    }
}

/// Where vectors begin that cover `channels`, at least one vector of them; the last one moves back to fit in.
#[inline(always)]
fn vector_starts<V: Vector>(channels: usize) -> impl Iterator<Item = usize> {
    (0..channels)
        .step_by(V::LANES)
        .map(move |start| start.min(channels - V::LANES))
}

/// How a convolution is cut into tiles.
#[derive(Clone, Copy)]
struct Tiling<'a> {
    g: &'a Conv2dGeometry,
    /// Rows and columns of tiles of an image.
    tiles: [usize; 2],
    /// Rows and columns of an image as patches read it: with padding, and whole patches at the end.
    laid: [usize; 2],
}

/// Whether this convolution, or gradient, of these operands is worth it: 3x3, one by one, and enough channels and tiles to
/// pay for the transforms; and whether no sum or product on the way can overflow.
pub(super) fn suits<T: ConvScalar>(g: &Conv2dGeometry, operands: [&[T]; 2]) -> bool {
    let window = |w: &super::Window| w.size == 3 && w.stride == 1 && w.dilation == 1;
    let channels = g.in_channels.min(g.out_channels);
    // Two of the shorter vectors, one of the longest.
    let (lanes, _) = vectors::<T>();
    let least = if lanes * size_of::<T>() < 64 { 2 * lanes } else { lanes };
    window(&g.rows)
        && window(&g.columns)
        && channels >= least
        && g.batch * g.out_pixels() >= 4 * TILES
        && operands.into_iter().all(moderate)
}

/// Whether all numbers are far from the largest ones.
fn moderate<T: ConvScalar>(numbers: &[T]) -> bool {
    multiversion! {
        fn part[T: ConvScalar](numbers: &[T], most: T) -> bool {
            // No early end, so that the loop becomes vector code. What is not a number compares as false.
            numbers.iter().fold(true, |all, x| all & (x.abs() <= most))
        }
    }
    let most = <T as Float>::max_value().sqrt();
    let all = AtomicBool::new(true);
    for_each_range(numbers.len(), GRAIN, |range| {
        if !part(&numbers[range], most) {
            all.store(false, Ordering::Relaxed);
        }
    });
    all.into_inner()
}

impl<'a> Tiling<'a> {
    fn new(g: &'a Conv2dGeometry) -> Self {
        let tiles = [g.rows.output.div_ceil(2), g.columns.output.div_ceil(2)];
        Self {
            g,
            tiles,
            laid: tiles.map(|tiles| 2 * tiles + 2),
        }
    }

    /// Tiles of one image.
    fn count(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// Images that are handled together, so that their tiles make up whole groups.
    fn together(&self) -> usize {
        (TILES / self.count()).max(1)
    }

    /// Images of a parallel task.
    fn images_a_task(&self) -> usize {
        let cost = self.g.out_pixels() * self.g.filter_len();
        (1usize << 20).div_ceil(cost.max(1)).next_multiple_of(self.together())
    }

    /// Whether patches can be read from, and their gradients added to, images as they are.
    fn in_place(&self) -> bool {
        let (rows, columns) = (&self.g.rows, &self.g.columns);
        [rows.before, columns.before] == [0; 2] && self.laid == [rows.input, columns.input]
    }

    /// Elements of a laid-out image.
    fn laid_len(&self) -> usize {
        self.laid[0] * self.laid[1] * self.g.in_channels
    }

    /// Elements of an image's copy; none where it is used in place.
    fn copy_len(&self) -> usize {
        if self.in_place() { 0 } else { self.laid_len() }
    }

    /// Calls `f(start in the image, start as laid out, length)` for the rows of an image that patches reach.
    fn each_row(&self, mut f: impl FnMut(usize, usize, usize)) {
        let (g, c) = (self.g, self.g.in_channels);
        let [rows, columns] = self.laid;
        let width = g.columns.input.min(columns - g.columns.before) * c;
        for y in 0..g.rows.input.min(rows - g.rows.before) {
            f(
                y * g.columns.input * c,
                ((y + g.rows.before) * columns + g.columns.before) * c,
                width,
            );
        }
    }

    /// The images as laid out: themselves, or copies of them with zeros around.
    fn lay_out<'b, T: Float>(&self, images: &'b [T], copies: &'b mut [T]) -> &'b [T] {
        if self.in_place() {
            return images;
        }
        for (image, copy) in images
            .chunks(self.g.image_len())
            .zip(copies.chunks_mut(self.laid_len()))
        {
            copy.fill(T::zero());
            self.each_row(|from, to, len| copy[to..to + len].copy_from_slice(&image[from..from + len]));
        }
        copies
    }

    /// The place of tile `index` of several images: its image, row and column.
    #[inline(always)]
    fn place(&self, index: usize) -> [usize; 3] {
        let (image, tile) = (index / self.count(), index % self.count());
        [image, tile / self.tiles[1], tile % self.tiles[1]]
    }

    /// Where the patch of a tile starts in the laid-out images.
    #[inline(always)]
    fn patch(&self, [image, y, x]: [usize; 3]) -> usize {
        image * self.laid_len() + 2 * (y * self.laid[1] + x) * self.g.in_channels
    }

    /// For the pixels of a tile: where they lie in the output images, or none where the output ends before.
    #[inline(always)]
    fn pixels(&self, [image, y, x]: [usize; 3]) -> [[Option<usize>; 2]; 2] {
        let g = self.g;
        std::array::from_fn(|i| {
            std::array::from_fn(|j| {
                let (y, x) = (2 * y + i, 2 * x + j);
                let exists = y < g.rows.output && x < g.columns.output;
                exists.then(|| ((image * g.rows.output + y) * g.columns.output + x) * g.out_channels)
            })
        })
    }

    /// Transforms the patches of the tiles from `first` on: `to[tile][point][channel]`.
    ///
    /// # Safety
    /// The CPU has `V`'s instructions. The tiles' patches lie in `laid`, and `to` has room.
    #[inline(always)]
    unsafe fn transform_patches<V: Vector>(
        &self,
        first: usize,
        count: usize,
        laid: &[V::Scalar],
        to: &mut [V::Scalar],
    ) {
        let c = self.g.in_channels;
        for tile in 0..count {
            let patch = self.patch(self.place(first + tile));
            for start in vector_starts::<V>(c) {
                // SAFETY: the caller's promise.
                unsafe {
                    let from = laid.as_ptr().add(patch + start);
                    let mut pixels = [[V::zero(); 4]; 4];
                    for (i, row) in pixels.iter_mut().enumerate() {
                        for (j, pixel) in row.iter_mut().enumerate() {
                            *pixel = V::load(from.add((i * self.laid[1] + j) * c));
                        }
                    }
                    let points = both::<V, Patch, 4, 4>(pixels);
                    let to = to.as_mut_ptr().add(tile * POINTS * c + start);
                    store_points(points, to, c);
                }
            }
        }
    }

    /// Transforms the gradients of the tiles from `first` on: `to[tile][point][channel]`, each point `stride` elements.
    ///
    /// # Safety
    /// The CPU has `V`'s instructions. The tiles lie in `gradient`, and `to` has room; `zeros` are as many as channels.
    #[inline(always)]
    unsafe fn transform_gradients<V: Vector>(
        &self,
        first: usize,
        count: usize,
        gradient: &[V::Scalar],
        stride: usize,
        to: &mut [V::Scalar],
        zeros: &[V::Scalar],
    ) {
        for tile in 0..count {
            let places = self.pixels(self.place(first + tile));
            let places = places.map(|row| row.map(|place| place.map_or(zeros.as_ptr(), |at| gradient[at..].as_ptr())));
            for start in vector_starts::<V>(self.g.out_channels) {
                // SAFETY: the caller's promise.
                unsafe {
                    let mut pixels = [[V::zero(); 2]; 2];
                    for (pixels, places) in pixels.iter_mut().zip(&places) {
                        for (pixel, place) in pixels.iter_mut().zip(places) {
                            *pixel = V::load(place.add(start));
                        }
                    }
                    let points = both::<V, TileGradient, 2, 4>(pixels);
                    store_points(points, to.as_mut_ptr().add(tile * POINTS * stride + start), stride);
                }
            }
        }
    }
}

/// Stores the points of one tile, `step` elements apart.
///
/// # Safety
/// The CPU has `V`'s instructions; there is room.
#[inline(always)]
unsafe fn store_points<V: Vector>(points: [[V; 4]; 4], to: *mut V::Scalar, step: usize) {
    for (i, row) in points.into_iter().enumerate() {
        for (j, point) in row.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { point.store(to.add((i * 4 + j) * step)) };
        }
    }
}

/// The points of one tile, `step` elements apart.
///
/// # Safety
/// The CPU has `V`'s instructions; the points are readable.
#[inline(always)]
unsafe fn load_points<V: Vector>(from: *const V::Scalar, step: usize) -> [[V; 4]; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut points = [[V::zero(); 4]; 4];
        for (i, row) in points.iter_mut().enumerate() {
            for (j, point) in row.iter_mut().enumerate() {
                *point = V::load(from.add((i * 4 + j) * step));
            }
        }
        points
    }
}

/// Transforms a filter `[3, 3, c, o]` to `to[point]`, matrices whose elements of channels `(c, o)` lie at `at(c, o)`, each `len`
/// elements; what is between them becomes zero.
fn transform_filter<T: ConvScalar>(
    g: &Conv2dGeometry,
    filter: &[T],
    to: &mut [T],
    len: usize,
    at: impl Fn(usize, usize) -> usize,
) {
    to.fill(T::zero());
    let (c, o) = (g.in_channels, g.out_channels);
    for pair in 0..c * o {
        let place = at(pair / o, pair % o);
        // SAFETY: any CPU has the vectors of one lane; the taps lie in the filter.
        unsafe {
            let mut taps = [[Portable::<T, 1>::zero(); 3]; 3];
            for (i, row) in taps.iter_mut().enumerate() {
                for (j, tap) in row.iter_mut().enumerate() {
                    *tap = Portable::broadcast(&filter[(i * 3 + j) * c * o + pair]);
                }
            }
            let points = both::<_, Filter, 3, 4>(taps);
            for (point, value) in points.as_flattened().iter().enumerate() {
                value.store(&mut to[point * len + place]);
            }
        }
    }
}

/// One matrix product of rows in strided memory: `c[i][j] = sum over l a[i * a_row + l * a_step] * b[l * b_row + j]`.
struct Product {
    rows: usize,
    /// Whole vectors of them.
    columns: usize,
    depth: usize,
    a_row: usize,
    a_step: usize,
    b_row: usize,
    c_row: usize,
}

impl Product {
    /// # Safety
    /// The CPU has `V`'s instructions; the operands are readable, and `c` is writable (readable with `Store::Add`).
    #[inline(always)]
    unsafe fn run<V: Vector>(
        &self,
        a: *const V::Scalar,
        b: *const V::Scalar,
        c: *mut V::Scalar,
        store: Store<V::Scalar>,
    ) {
        for panel in Panels::new(self.columns, V::LANES, V::REGISTERS).iter() {
            let loops = Loops {
                counts: [1, 1, self.depth],
                a_steps: [0, 0, self.a_step],
                b_steps: [0, 0, self.b_row],
            };
            let step = rows_at_a_time(V::REGISTERS, panel.vectors);
            let (mut a_rows, mut c_rows) = ([a; MOST_ROWS], [c; MOST_ROWS]);
            for start in (0..self.rows).step_by(step) {
                let count = step.min(self.rows - start);
                // SAFETY: the caller's promise.
                unsafe {
                    for i in 0..count {
                        a_rows[i] = a.add((start + i) * self.a_row);
                        c_rows[i] = c.add((start + i) * self.c_row + panel.start);
                    }
                    rows::<V>(count, panel, &loops, &a_rows, b.add(panel.start), &c_rows, store);
                }
            }
        }
    }
}
