//! The register tile that convolutions are made of: a small block of a matrix product whose operands lie in strided memory.
//!
//! `MR` rows times `NV` vectors of columns are summed in registers over a nest of three loops, so that a convolution's sums
//! over filter rows, taps and channels need no copy of the patches (no `im2col`). Each element is summed in the order of the
//! loops, whatever the tile it lies in.

use super::simd::{Vector, VectorTask};

/// The loops to sum over, outermost first: how often, and by how far each step moves in the operands (in elements).
#[derive(Clone, Copy, Debug)]
pub struct Loops {
    pub counts: [usize; 3],
    pub a_steps: [usize; 3],
    pub b_steps: [usize; 3],
}

/// What becomes of a finished sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store<T> {
    /// It replaces what was there.
    Set,
    /// It is added to what was there.
    Add,
    /// The bias of its column is added, and then with `relu` all that is not above zero becomes zero (what is not a number
    /// stays); it replaces what was there.
    Biased {
        /// Of the panel's first column; readable for all lanes of the panel's vectors.
        bias: *const T,
        relu: bool,
    },
}

/// Columns of a matrix cut into panels of about the same number of vectors, and no more of them than a tile takes.
#[derive(Clone, Copy, Debug)]
pub struct Panels {
    columns: usize,
    lanes: usize,
    most_vectors: usize,
}

/// One panel: its first column, its width in vectors, and how many of its columns exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panel {
    pub start: usize,
    pub vectors: usize,
    pub columns: usize,
}

impl Panels {
    /// For tiles of a CPU whose vectors have `lanes` lanes and that has so many `registers`.
    pub fn new(columns: usize, lanes: usize, registers: usize) -> Self {
        let most_vectors = if registers >= 32 { 4 } else { 2 };
        Self {
            columns,
            lanes,
            most_vectors,
        }
    }

    /// The columns with the padding of the last vector.
    pub fn padded(&self) -> usize {
        self.columns.next_multiple_of(self.lanes)
    }

    pub fn iter(self) -> impl Iterator<Item = Panel> {
        let vectors = self.columns.div_ceil(self.lanes);
        let panels = vectors.div_ceil(self.most_vectors);
        (0..panels).map(move |i| {
            let [start, end] = [i, i + 1].map(|i| (i * vectors).div_ceil(panels));
            let start_column = start * self.lanes;
            Panel {
                start: start_column,
                vectors: end - start,
                columns: (end * self.lanes).min(self.columns) - start_column,
            }
        })
    }
}

/// Rows that [`rows`] takes at a time for a panel of so many vectors: as many as there are registers for their sums, besides
/// those for the operands. Of 16 registers, six rows of two vectors leave 4; eight rows of one vector keep the multipliers busy
/// without running out of address registers.
pub const fn rows_at_a_time(registers: usize, vectors: usize) -> usize {
    match (registers >= 32, vectors) {
        (false, 1) => 8,
        (false, _) => 6,
        (true, 1 | 2) => 12,
        (true, 3) => 8,
        (true, _) => 6,
    }
}

/// The most rows that any panel takes at a time.
pub const MOST_ROWS: usize = 12;

/// The product of `count <= rows_at_a_time(V::REGISTERS, panel.vectors)` rows with one panel:
/// `c[i][j] = sum over loops a[i][...] * b[... + j]` for `i < count`, `j < panel.columns`.
///
/// Rows are stored one after the other, so with [`Store::Add`] the `c[i]` may overlap.
///
/// # Safety
/// The CPU has `V`'s instructions. For every step of the loops, `a[i]` is readable, and so is `b` for all lanes of the panel's
/// vectors; `c[i]` is writable (readable with `Store::Add`) for `panel.columns` elements.
#[inline(always)]
pub unsafe fn rows<V: Vector>(
    count: usize,
    panel: Panel,
    loops: &Loops,
    a: &[*const V::Scalar; MOST_ROWS],
    b: *const V::Scalar,
    c: &[*mut V::Scalar; MOST_ROWS],
    store: Store<V::Scalar>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        V::call(Rows {
            count,
            panel,
            loops,
            a,
            b,
            c,
            store,
        });
    }
}

/// The arguments of [`rows`].
struct Rows<'a, T> {
    count: usize,
    panel: Panel,
    loops: &'a Loops,
    a: &'a [*const T; MOST_ROWS],
    b: *const T,
    c: &'a [*mut T; MOST_ROWS],
    store: Store<T>,
}

impl<T: num_traits::Float> VectorTask<T> for Rows<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = T>>(self) {
        let (count, vectors) = (self.count, self.panel.vectors);
        let mut done = 0;
        macro_rules! tiles {
            ($nv:literal: $($mr:literal)*) => {{$(
                while count - done >= $mr {
                    let (a, c) = (&self.a[done..done + $mr], &self.c[done..done + $mr]);
                    // SAFETY: the promise of `rows`; `done + $mr <= count`.
                    unsafe { tile::<V, $mr, $nv>(self.panel.columns, self.loops, a, self.b, c, self.store) };
                    done += $mr;
                }
            )*}};
        }
        // Short of a whole tile, as many sums as hide the time that one takes.
        if V::MANY_REGISTERS {
            match vectors {
                1 => tiles!(1: 12 8 4 2 1),
                2 => tiles!(2: 12 6 4 2 1),
                3 => tiles!(3: 8 4 3 2 1),
                _ => tiles!(4: 6 4 3 2 1),
            }
        } else {
            match vectors {
                1 => tiles!(1: 8 4 2 1),
                _ => tiles!(2: 6 3 2 1),
            }
        }
    }
}

#[inline(always)]
unsafe fn tile<V: Vector, const MR: usize, const NV: usize>(
    columns: usize,
    loops: &Loops,
    a: &[*const V::Scalar],
    b: *const V::Scalar,
    c: &[*mut V::Scalar],
    store: Store<V::Scalar>,
) {
    let mut rows = [std::ptr::null(); MR];
    rows.copy_from_slice(a);
    let ([outer, middle, inner], [a0, a1, a2], [b0, b1, b2]) = (loops.counts, loops.a_steps, loops.b_steps);
    // SAFETY: the caller's promise, for every access below.
    unsafe {
        let mut sums = [[V::zero(); NV]; MR];
        for o in 0..outer {
            for m in 0..middle {
                let mut at_a = o * a0 + m * a1;
                let mut at_b = b.add(o * b0 + m * b1);
                for _ in 0..inner {
                    let mut columns = [V::zero(); NV];
                    for (v, column) in columns.iter_mut().enumerate() {
                        *column = V::load(at_b.add(v * V::LANES));
                    }
                    for i in 0..MR {
                        let row = V::broadcast(rows[i].add(at_a));
                        for v in 0..NV {
                            sums[i][v] = sums[i][v].plus_product(row, columns[v]);
                        }
                    }
                    at_a += a2;
                    at_b = at_b.wrapping_add(b2);
                }
            }
        }
        if let Store::Biased { bias, relu } = store {
            for v in 0..NV {
                let bias = V::load(bias.add(v * V::LANES));
                for row in &mut sums {
                    let biased = row[v].add(bias);
                    row[v] = if relu { biased.relu() } else { biased };
                }
            }
        }
        let add = store == Store::Add;
        for (row, &c) in sums.iter().zip(c) {
            for (v, &sum) in row.iter().enumerate() {
                let p = c.add(v * V::LANES);
                // Only the last vector may be short.
                if v + 1 < NV || columns == NV * V::LANES {
                    let sum = if add { V::load(p).add(sum) } else { sum };
                    sum.store(p);
                } else {
                    sum.store_first(p, columns - v * V::LANES, add);
                }
            }
        }
    }
}

/// Packs a `rows x columns` matrix into panels: panel after panel, each row by row, padded with zeros to whole vectors.
///
/// Element `(r, c)` is read at `source(r, c)`. The panel that starts at column `s` starts at `s * rows` in `packed`.
pub fn pack<T: Copy + Default>(
    panels: Panels,
    rows: usize,
    packed: &mut [T],
    mut source: impl FnMut(usize, usize) -> T,
) {
    let mut at = 0;
    for panel in panels.iter() {
        for r in 0..rows {
            for c in 0..panel.vectors * panels.lanes {
                packed[at] = if c < panel.columns {
                    source(r, panel.start + c)
                } else {
                    T::default()
                };
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_all_columns() {
        for (columns, registers) in (1..200).flat_map(|columns| [(columns, 16), (columns, 32)]) {
            let panels: Vec<Panel> = Panels::new(columns, 8, registers).iter().collect();
            let mut end = 0;
            for panel in &panels {
                assert_eq!(panel.start, end);
                assert!((1..=registers / 8).contains(&panel.vectors));
                end += panel.columns;
            }
            assert_eq!(end, columns);
            assert!(panels.iter().rev().skip(1).all(|p| p.columns == p.vectors * 8));
        }
    }
}
