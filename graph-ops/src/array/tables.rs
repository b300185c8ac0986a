//! Movements by tables: reversal, rolling, mirrored borders, the nearest pixels.

use graph_core::op::KernelContext;
use graph_core::{Error, Result};

use crate::array::moving::{Movement, Word};
use crate::cpu::Short;
use crate::cpu::copy::strides;
use crate::cpu::parallel::{GRAIN, SharedMut, for_each_range};
use crate::cpu::simd::multiversion;

/// A movement by tables: along each axis, output place i takes the input's place `tables[axis][i]`.
pub(crate) struct Tables {
    /// The shape of the input, and how far apart its neighbours along each axis lie.
    shape: Vec<usize>,
    strides: Short<usize>,
    /// One table for each axis, as long as the output's dimension.
    tables: Vec<Vec<usize>>,
    line: Line,
}

/// The last axis that is not taken as it is, in stretches of neighbours.
struct Line {
    axis: usize,
    /// Elements behind each place of the axis.
    inner: usize,
    stretches: Vec<Stretch>,
}

/// Places of an output's axis that take neighbouring places of the input, upwards or downwards.
#[derive(Clone, Copy)]
struct Stretch {
    to: usize,
    /// The place that the first of them takes.
    from: usize,
    len: usize,
    down: bool,
}

impl Stretch {
    /// Takes in the next place, if it is one more of these.
    fn extend(&mut self, from: usize) -> bool {
        let up = from == self.from + self.len && !self.down;
        let down = from + self.len == self.from && (self.down || self.len == 1);
        self.len += usize::from(up || down);
        self.down |= down;
        up || down
    }
}

impl Line {
    fn new(shape: &[usize], tables: &[Vec<usize>]) -> Self {
        let whole = |axis: usize| tables[axis].len() == shape[axis] && tables[axis].iter().copied().eq(0..shape[axis]);
        let axis = (0..shape.len()).rev().find(|&axis| !whole(axis)).unwrap_or(0);
        let inner: usize = shape.iter().skip(axis + 1).product();
        // Long stretches are cut for several tasks.
        let longest = GRAIN.div_ceil(inner.max(1));
        let mut stretches: Vec<Stretch> = Vec::new();
        for (to, &from) in tables.get(axis).map_or(&[0][..], Vec::as_slice).iter().enumerate() {
            let grown = stretches
                .last_mut()
                .is_some_and(|last| last.len < longest && last.extend(from));
            if !grown {
                stretches.push(Stretch {
                    to,
                    from,
                    len: 1,
                    down: false,
                });
            }
        }
        Self { axis, inner, stretches }
    }
}

impl Tables {
    /// Of an input of this shape, by the places that each axis takes. Without elements they are not asked for: beside a
    /// dimension of zero another may be as large as a number can be.
    ///
    /// # Errors
    /// `ResourceExhausted` if a table does not fit into memory.
    pub(crate) fn new<P: Iterator<Item = usize>>(
        shape: Vec<usize>,
        places: impl IntoIterator<Item = P>,
    ) -> Result<Self> {
        let empty = shape.contains(&0);
        let table = |places: P| {
            let mut table = Vec::new();
            if !empty {
                let len = places.size_hint().0;
                table.try_reserve_exact(len).map_err(|error| {
                    Error::resource_exhausted(format!("no memory for the places of {len} rows")).caused_by(error)
                })?;
                table.extend(places);
            }
            Ok(table)
        };
        let tables: Vec<Vec<usize>> = places.into_iter().map(table).collect::<Result<_>>()?;
        let line = if empty {
            Line::new(&[], &[])
        } else {
            Line::new(&shape, &tables)
        };
        Ok(Self {
            strides: strides(&shape),
            shape,
            tables,
            line,
        })
    }

    /// Calls `f` with the places of the output, in order, and those of the input that they take.
    pub(crate) fn for_each(&self, mut f: impl FnMut(usize, usize)) {
        if self.shape.contains(&0) {
            return;
        }
        for place in 0..self.tables.iter().map(Vec::len).product() {
            f(place, self.source(self.tables.len(), place));
        }
    }

    /// Where place `place` of the output's first `axes` axes comes from in the input.
    fn source(&self, axes: usize, mut place: usize) -> usize {
        let mut from = 0;
        for (table, stride) in self.tables[..axes].iter().zip(&self.strides).rev() {
            from += table[place % table.len()] * stride;
            place /= table.len();
        }
        from
    }
}

impl Movement for Tables {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Line { axis, inner, stretches } = &self.line;
        let (axis, inner, count) = (*axis, *inner, stretches.len());
        if outputs[0].is_empty() {
            return Ok(());
        }
        let rows: usize = self.tables[..axis].iter().map(Vec::len).product();
        let row_len = outputs[0].len() / rows;
        let shared = SharedMut::new(outputs[0]);
        for_each_range(rows * count, (GRAIN * count).div_ceil(row_len), |range| {
            let mut at = range.start;
            while at < range.end {
                let (row, first) = (at / count, at % count);
                let stretches = &stretches[first..count.min(first + range.end - at)];
                let start = row * row_len + stretches[0].to * inner;
                let len = stretches.iter().map(|stretch| stretch.len).sum::<usize>() * inner;
                // SAFETY: the stretches of each row lie one behind the other in the output; this task alone has these.
                let out = unsafe { shared.slice(start..start + len) };
                take(&inputs[0][self.source(axis, row)..], inner, stretches, out);
                at += stretches.len();
            }
        });
        Ok(())
    }
}

multiversion! {
    /// Fills `out` with the stretches of one line of the input, whose places have `inner` elements each.
    fn take[T: Word](input: &[T], inner: usize, stretches: &[Stretch], out: &mut [T]) {
        let mut out = out;
        for stretch in stretches {
            let (to, behind) = out.split_at_mut(stretch.len * inner);
            out = behind;
            let lowest = if stretch.down { stretch.from + 1 - stretch.len } else { stretch.from };
            let from = &input[lowest * inner..][..to.len()];
            if !stretch.down {
                to.copy_from_slice(from);
            } else if inner == 1 {
                to.iter_mut().zip(from.iter().rev()).for_each(|(to, &from)| *to = from);
            } else {
                let places = to.chunks_exact_mut(inner).zip(from.chunks_exact(inner).rev());
                places.for_each(|(to, from)| to.copy_from_slice(from));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;
    use graph_core::Value;

    #[test]
    fn tables_that_do_not_fit_into_memory_are_an_error() {
        let error = Tables::new(vec![1, 1 << 60], [0..1, 0..1 << 60]).err().unwrap();
        assert_eq!(error.class(), "ResourceExhausted");
        // Without elements there are no tables.
        assert!(Tables::new(vec![0, 1 << 60], [0..0, 0..1 << 60]).is_ok());
    }

    /// Each place of the line, as its stretches say.
    fn places(line: &Line) -> Vec<usize> {
        let places = line.stretches.iter().flat_map(|stretch| {
            (0..stretch.len).map(|i| match stretch.down {
                true => stretch.from - i,
                false => stretch.from + i,
            })
        });
        places.collect()
    }

    #[test]
    fn stretches_are_the_table() {
        for table in [
            vec![0],
            vec![2, 1, 0, 1, 2, 3, 2, 1],
            vec![0, 0, 1, 1, 2, 2],
            vec![3, 2, 1, 0],
            vec![0, 1, 0, 1, 2, 1],
            vec![1, 0, 0, 1],
            (0..100_000).rev().collect(),
        ] {
            let line = Line::new(&[7, 100_001], &[(0..7).collect(), table.clone()]);
            assert_eq!((line.axis, line.inner), (1, 1));
            assert_eq!(places(&line), table);
            let to = line.stretches.iter().map(|stretch| stretch.to);
            let ends = line
                .stretches
                .iter()
                .scan(0, |end, stretch| Some(std::mem::replace(end, *end + stretch.len)));
            assert!(to.eq(ends));
        }
        let line = Line::new(&[3, 4, 5], &[vec![2, 1, 0], (0..4).collect(), (0..5).collect()]);
        assert_eq!((line.axis, line.inner, line.stretches.len()), (0, 20, 1));
    }

    /// Reversal along every set of axes, of shapes with several tasks and with few elements in a line.
    #[test]
    fn what_is_turned_round_lies_where_it_should() {
        for shape in [
            vec![7],
            vec![70_001],
            vec![3, 5],
            vec![1001, 3],
            vec![201, 1, 199],
            vec![20, 11, 13, 5],
            vec![5, 0],
        ] {
            let len: usize = shape.iter().product();
            let strides = strides(&shape);
            let input = Value::from_vec(shape.clone(), (0..len as i32).collect::<Vec<_>>()).unwrap();
            for marks in 0..1usize << shape.len() {
                let turned = |axis: usize| marks >> axis & 1 == 1;
                let axes: Vec<i32> = (0..shape.len())
                    .filter(|&axis| turned(axis))
                    .map(|axis| axis as i32)
                    .collect();
                let result = Case::new("ReverseV2").input(input.clone()).input(axes).run().unwrap();
                let expected = (0..len).map(|at| {
                    let places = (0..shape.len()).map(|axis| {
                        let place = at / strides[axis] % shape[axis];
                        strides[axis] * if turned(axis) { shape[axis] - 1 - place } else { place }
                    });
                    places.sum::<usize>() as i32
                });
                assert!(
                    result[0].as_slice::<i32>().unwrap().iter().copied().eq(expected),
                    "{shape:?} {marks}"
                );
            }
        }
    }

    #[test]
    fn every_size_of_element_is_moved() {
        for &dtype in graph_core::DType::REAL_NUMBERS {
            let numbers = |list: [[i64; 3]; 2]| Value::from(list).cast_exactly(dtype).unwrap();
            let case = Case::new("MirrorPad")
                .attr("mode", "REFLECT")
                .input(numbers([[1, 2, 3], [4, 5, 6]]));
            let result = case.input([[0i32, 0], [2, 1]]).run().unwrap();
            let expected = Value::from([[3i64, 2, 1, 2, 3, 2], [6, 5, 4, 5, 6, 5]])
                .cast_exactly(dtype)
                .unwrap();
            assert_eq!(result[0].bytes(), expected.bytes(), "{dtype}");
        }
    }
}
