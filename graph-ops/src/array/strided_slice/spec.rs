//! What begins, ends, strides and masks of a `StridedSlice` mean for a tensor, as NumPy's indexing does.

use graph_core::op::{Attributes, InferenceContext};
use graph_core::{Dim, Error, PartialShape, Result};

/// The five masks; bit i speaks of entry i of begins, ends and strides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Masks {
    pub(crate) begin: i64,
    pub(crate) end: i64,
    pub(crate) ellipsis: i64,
    pub(crate) new_axis: i64,
    pub(crate) shrink: i64,
}

/// The attributes of the masks, in TensorFlow's order.
pub(crate) const NAMES: [&str; 5] = [
    "begin_mask",
    "end_mask",
    "ellipsis_mask",
    "new_axis_mask",
    "shrink_axis_mask",
];

impl Masks {
    pub(crate) fn of(read: impl Fn(&str) -> Result<i64>) -> Result<Self> {
        Ok(Self {
            begin: read(NAMES[0])?,
            end: read(NAMES[1])?,
            ellipsis: read(NAMES[2])?,
            new_axis: read(NAMES[3])?,
            shrink: read(NAMES[4])?,
        })
    }

    pub(crate) fn of_attrs(attrs: &Attributes) -> Result<Self> {
        Self::of(|name| attrs.read(name))
    }

    pub(crate) fn of_context(context: &InferenceContext<'_>) -> Result<Self> {
        Self::of(|name| context.attr(name))
    }

    pub(crate) fn to_array(self) -> [i64; 5] {
        [self.begin, self.end, self.ellipsis, self.new_axis, self.shrink]
    }
}

/// Begins and ends where they are known, and strides.
pub(crate) struct Entries {
    pub(crate) begin: Option<Vec<i64>>,
    pub(crate) end: Option<Vec<i64>>,
    pub(crate) strides: Vec<i64>,
}

/// What becomes of one dimension of the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first element, where it is known.
    pub(crate) begin: usize,
    pub(crate) stride: i64,
    /// How many elements, as far as it is known.
    pub(crate) len: Dim,
}

/// A slice worked out for a tensor's shape.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// One range for each dimension of the tensor.
    pub(crate) ranges: Vec<Range>,
    /// The shape of the result.
    pub(crate) shape: PartialShape,
}

impl Resolved {
    /// The numbers of elements taken along the tensor's dimensions.
    pub(crate) fn lengths(&self) -> Option<Vec<usize>> {
        self.ranges.iter().map(|range| range.len).collect()
    }
}

/// What an entry of the specification makes of a dimension of the result.
enum Gather {
    Dimension(usize),
    NewAxis,
    Shrink,
}

/// A dimension's begin, end, stride and masks.
struct Dense {
    begin: i64,
    end: i64,
    stride: i64,
    whole_begin: bool,
    whole_end: bool,
    shrink: bool,
}

/// Works out a slice of a tensor of shape `input`, whose rank is known.
///
/// # Errors
/// `InvalidArgument` for a specification that does not fit the tensor.
pub(crate) fn resolve(input: &[Dim], entries: &Entries, masks: Masks) -> Result<Resolved> {
    for numbers in [&entries.begin, &entries.end].into_iter().flatten() {
        if numbers.len() != entries.strides.len() {
            return Err(Error::invalid_argument(
                "begin, end and strides of a slice must have one entry for each index",
            )
            .expected(entries.strides.len())
            .got(numbers.len()));
        }
    }
    let (dense, gather) = spread(input.len(), entries, masks)?;
    let known = entries.begin.is_some() && entries.end.is_some();
    let ranges = dense.iter().zip(input).enumerate();
    let ranges = ranges
        .map(|(axis, (entry, &dim))| entry.range(axis, dim, known))
        .collect::<Result<Vec<_>>>()?;
    let dims = gather.iter().filter_map(|gather| match gather {
        Gather::Dimension(axis) => Some(ranges[*axis].len),
        Gather::NewAxis => Some(Some(1)),
        Gather::Shrink => None,
    });
    let shape = PartialShape::from_dims(dims);
    Ok(Resolved { ranges, shape })
}

/// One entry for each dimension of the tensor; the ellipsis (an unwritten one stands at the end) takes those left over.
fn spread(rank: usize, entries: &Entries, masks: Masks) -> Result<(Vec<Dense>, Vec<Gather>)> {
    let count = entries.strides.len();
    for (name, numbers) in [("begins", &entries.begin), ("ends", &entries.end)] {
        if let Some(numbers) = numbers
            && numbers.len() != count
        {
            return Err(
                Error::invalid_argument(format!("a slice needs as many {name} as strides"))
                    .expected(count)
                    .got(numbers.len()),
            );
        }
    }
    let has = |mask: i64, index: usize| index < 63 && mask & (1 << index) != 0;
    let ellipses = (0..count).filter(|&index| has(masks.ellipsis, index)).count();
    if ellipses > 1 {
        return Err(Error::invalid_argument("a slice has at most one ellipsis"));
    }
    let taken = (0..count)
        .filter(|&index| !has(masks.ellipsis, index) && !has(masks.new_axis, index))
        .count();
    if taken > rank {
        return Err(
            Error::invalid_argument("the slice has more indices than the tensor has dimensions")
                .expected(format!("at most {rank}"))
                .got(taken),
        );
    }
    let (mut dense, mut gather) = (Vec::with_capacity(rank), Vec::new());
    let number = |numbers: &Option<Vec<i64>>, index: usize| numbers.as_ref().map_or(0, |numbers| numbers[index]);
    for index in 0..=count {
        let implied = index == count && ellipses == 0;
        if implied || (index < count && has(masks.ellipsis, index)) {
            for _ in taken..rank {
                gather.push(Gather::Dimension(dense.len()));
                dense.push(Dense {
                    begin: 0,
                    end: 0,
                    stride: 1,
                    whole_begin: true,
                    whole_end: true,
                    shrink: false,
                });
            }
        } else if index < count && has(masks.new_axis, index) {
            gather.push(Gather::NewAxis);
        } else if index < count {
            let shrink = has(masks.shrink, index);
            gather.push(if shrink {
                Gather::Shrink
            } else {
                Gather::Dimension(dense.len())
            });
            dense.push(Dense {
                begin: number(&entries.begin, index),
                end: number(&entries.end, index),
                stride: entries.strides[index],
                whole_begin: has(masks.begin, index),
                whole_end: has(masks.end, index),
                shrink,
            });
        }
    }
    Ok((dense, gather))
}

impl Dense {
    fn range(&self, axis: usize, dim: Dim, known: bool) -> Result<Range> {
        if self.stride == 0 {
            return Err(Error::invalid_argument(format!("stride {axis} must not be zero")));
        }
        if self.shrink && self.stride < 0 {
            return Err(Error::invalid_argument("an index that drops its dimension has stride 1").got(self.stride));
        }
        let unknown = Range {
            begin: 0,
            stride: self.stride,
            len: self.shrink.then_some(1),
        };
        let Some(dim) = dim else { return Ok(unknown) };
        if !known {
            let whole = self.whole_begin && self.whole_end && !self.shrink;
            let len = if whole {
                Some(dim.div_ceil(self.stride.unsigned_abs() as usize))
            } else {
                unknown.len
            };
            return Ok(Range { len, ..unknown });
        }
        let size = dim as i64;
        if self.shrink {
            let index = if self.begin < 0 { self.begin + size } else { self.begin };
            if !(0..size).contains(&index) {
                return Err(Error::invalid_argument(format!(
                    "slice index {} of dimension {axis} out of bounds",
                    self.begin
                ))
                .expected(format!("an index in the range [-{size}, {size})")));
            }
            return Ok(Range {
                begin: index as usize,
                stride: 1,
                len: Some(1),
            });
        }
        let (low, high) = if self.stride > 0 { (0, size) } else { (-1, size - 1) };
        let clamp = |x: i64| (if x < 0 { x.saturating_add(size) } else { x }).clamp(low, high);
        let (first, last) = if self.stride > 0 { (low, high) } else { (high, low) };
        let begin = if self.whole_begin { first } else { clamp(self.begin) };
        let end = if self.whole_end { last } else { clamp(self.end) };
        let distance = if self.stride > 0 { end - begin } else { begin - end };
        let len = (distance.max(0) as u64).div_ceil(self.stride.unsigned_abs()) as usize;
        // The stride to a second element matters only if there is one.
        let stride = if len > 1 { self.stride } else { 1 };
        Ok(Range {
            begin: if len == 0 { 0 } else { begin as usize },
            stride,
            len: Some(len),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(input: &[Dim], begin: &[i64], end: &[i64], strides: &[i64], masks: Masks) -> Result<String> {
        let entries = Entries {
            begin: Some(begin.to_vec()),
            end: Some(end.to_vec()),
            strides: strides.to_vec(),
        };
        resolve(input, &entries, masks).map(|resolved| resolved.shape.to_string())
    }

    #[test]
    fn shapes_are_numpys() {
        let cube = [Some(3), Some(4), Some(5)];
        let none = Masks::default();
        assert_eq!(shape(&cube, &[1], &[3], &[1], none).unwrap(), "[2,4,5]");
        assert_eq!(shape(&cube, &[-1, 0], &[-4, 4], &[-1, 3], none).unwrap(), "[3,2,5]");
        assert_eq!(shape(&cube, &[-1], &[0], &[-5], none).unwrap(), "[1,4,5]");
        assert_eq!(shape(&cube, &[2], &[1], &[1], none).unwrap(), "[0,4,5]");
        assert_eq!(
            shape(&cube, &[i64::MIN], &[i64::MAX], &[i64::MAX], none).unwrap(),
            "[1,4,5]"
        );
        let shrink = Masks { shrink: 1, ..none };
        assert_eq!(shape(&cube, &[-3], &[0], &[1], shrink).unwrap(), "[4,5]");
        assert!(shape(&cube, &[3], &[4], &[1], shrink).is_err());
        let ellipsis = Masks {
            ellipsis: 1,
            new_axis: 2,
            shrink: 4,
            ..none
        };
        assert_eq!(
            shape(&cube, &[0, 0, 1], &[0, 0, 2], &[1, 1, 1], ellipsis).unwrap(),
            "[3,4,1]"
        );
        assert!(shape(&cube, &[0; 4], &[1; 4], &[1; 4], none).is_err());
        assert!(shape(&cube, &[0], &[1], &[0], none).is_err());
        assert!(shape(&cube, &[0; 2], &[1; 2], &[1; 2], Masks { ellipsis: 3, ..none }).is_err());
        for (begins, ends) in [(1, 2), (2, 1), (3, 2), (2, 0)] {
            let error = shape(&cube, &[0; 3][..begins], &[1; 3][..ends], &[1; 2], none).unwrap_err();
            assert_eq!(error.class(), "InvalidArgument");
        }
    }

    #[test]
    fn what_is_unknown_stays_unknown() {
        let input = [None, Some(4)];
        assert_eq!(shape(&input, &[1], &[3], &[1], Masks::default()).unwrap(), "[?,4]");
        assert_eq!(
            shape(
                &input,
                &[1],
                &[2],
                &[1],
                Masks {
                    shrink: 1,
                    ..Masks::default()
                }
            )
            .unwrap(),
            "[4]"
        );
        let entries = Entries {
            begin: None,
            end: None,
            strides: vec![1, 3],
        };
        let resolved = resolve(
            &input,
            &entries,
            Masks {
                begin: 2,
                end: 2,
                ..Masks::default()
            },
        )
        .unwrap();
        assert_eq!(resolved.shape.to_string(), "[?,2]");
    }
}
