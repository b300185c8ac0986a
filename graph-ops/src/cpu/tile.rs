//! The register tile that convolutions are made of: a small block of a matrix product whose operands lie in strided memory.
//!
//! `MR` rows times `NV` vectors of columns are summed in registers over a nest of three loops, so that a convolution's sums
//! over filter rows, taps and channels need no copy of the patches (no `im2col`). Each element is summed in the order of the
//! loops, whatever the tile it lies in.

use super::simd::Vector;

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

/// Columns of a matrix cut into panels of two vectors, and one of a single vector where the number is odd.
#[derive(Clone, Copy, Debug)]
pub struct Panels {
    columns: usize,
    lanes: usize,
}

/// One panel: its first column, its width in vectors, and how many of its columns exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panel {
    pub start: usize,
    pub vectors: usize,
    pub columns: usize,
}

impl Panels {
    pub fn new(columns: usize, lanes: usize) -> Self {
        Self { columns, lanes }
    }

    /// The columns with the padding of the last vector.
    pub fn padded(&self) -> usize {
        self.columns.next_multiple_of(self.lanes)
    }

    pub fn iter(self) -> impl Iterator<Item = Panel> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let left = self.columns.saturating_sub(start).div_ceil(self.lanes);
            let vectors = match left {
                0 => return None,
                1 => 1,
                _ => 2,
            };
            let panel = Panel {
                start,
                vectors,
                columns: (vectors * self.lanes).min(self.columns - start),
            };
            start += vectors * self.lanes;
            Some(panel)
        })
    }
}

/// Rows that [`rows`] takes at a time for a panel of so many vectors. Six rows of two vectors make 12 accumulators, which leaves
/// 4 of 16 registers for the operands; eight rows of one vector keep the multipliers busy without running out of address
/// registers.
pub const fn rows_at_a_time(vectors: usize) -> usize {
    if vectors == 1 { 8 } else { 6 }
}

/// The most rows that any panel takes at a time.
pub const MOST_ROWS: usize = 8;

/// The product of `count <= rows_at_a_time(panel.vectors)` rows with one panel:
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
    let mut done = 0;
    macro_rules! tiles {
        ($nv:literal: $($mr:literal)*) => {{$(
            while count - done >= $mr {
                // SAFETY: the caller's promise; `done + $mr <= count`.
                unsafe { tile::<V, $mr, $nv>(panel.columns, loops, &a[done..done + $mr], b, &c[done..done + $mr], store) };
                done += $mr;
            }
        )*}};
    }
    match panel.vectors {
        1 => tiles!(1: 8 4 2 1),
        _ => tiles!(2: 6 3 2 1),
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
        for (i, row) in sums.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                let (p, left) = (c[i].add(v * V::LANES), columns - v * V::LANES);
                let whole = left >= V::LANES;
                let result = match store {
                    Store::Set => sum,
                    Store::Add if whole => V::load(p).add(sum),
                    Store::Add => V::load_first(p, left).add(sum),
                    Store::Biased { bias, relu } => {
                        let biased = sum.add(V::load(bias.add(v * V::LANES)));
                        if relu { biased.relu() } else { biased }
                    }
                };
                if whole {
                    result.store(p);
                } else {
                    result.store_first(p, left);
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
        for columns in 1..200 {
            let panels: Vec<Panel> = Panels::new(columns, 8).iter().collect();
            assert_eq!(panels.iter().map(|p| p.columns).sum::<usize>(), columns);
            assert!(panels.iter().rev().skip(1).all(|p| p.vectors == 2));
        }
    }
}
