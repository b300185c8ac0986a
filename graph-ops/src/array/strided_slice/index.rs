//! Indexing in Rust's words.

use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use graph_core::graph::builder::constant_in;
use graph_core::graph::scope::name_scope_in;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::{Graph, Result, Value};

use super::spec::{Masks, NAMES};

/// One entry of an index: what it takes of a dimension.
#[derive(Clone, Debug)]
pub enum Index {
    /// The element at this place, counted from the end where negative; the dimension goes.
    At(Operand),
    /// Every `stride`-th element from `begin` up to, not including, `end`; `None` is the edge.
    Slice {
        /// The first element.
        begin: Option<i64>,
        /// The first element that is not taken.
        end: Option<i64>,
        /// The distance from one element to the next.
        stride: i64,
    },
    /// A new dimension of size 1.
    NewAxis,
    /// All dimensions that no other entry names.
    Ellipsis,
}

impl Index {
    /// Takes only every `stride`-th element; backwards if negative.
    #[must_use]
    pub fn step(self, step: i64) -> Self {
        match self {
            Self::Slice { begin, end, .. } => Self::Slice {
                begin,
                end,
                stride: step,
            },
            other => other,
        }
    }

    fn slice(begin: Option<i64>, end: Option<i64>) -> Self {
        Self::Slice { begin, end, stride: 1 }
    }
}

impl From<i64> for Index {
    fn from(at: i64) -> Self {
        Self::At(Operand::Number(Value::scalar(at as i32)))
    }
}

impl From<i32> for Index {
    fn from(at: i32) -> Self {
        Self::At(at.into_operand())
    }
}

impl From<&Tensor> for Index {
    fn from(at: &Tensor) -> Self {
        Self::At(at.into_operand())
    }
}

impl From<RangeFull> for Index {
    fn from(_: RangeFull) -> Self {
        Self::slice(None, None)
    }
}

macro_rules! ranges {
    ($($int:ty),*) => {$(
        impl From<Range<$int>> for Index {
            fn from(range: Range<$int>) -> Self {
                Self::slice(Some(range.start.into()), Some(range.end.into()))
            }
        }
        impl From<RangeFrom<$int>> for Index {
            fn from(range: RangeFrom<$int>) -> Self {
                Self::slice(Some(range.start.into()), None)
            }
        }
        impl From<RangeTo<$int>> for Index {
            fn from(range: RangeTo<$int>) -> Self {
                Self::slice(None, Some(range.end.into()))
            }
        }
        impl From<RangeInclusive<$int>> for Index {
            fn from(range: RangeInclusive<$int>) -> Self {
                Self::slice(Some((*range.start()).into()), after((*range.end()).into()))
            }
        }
        impl From<RangeToInclusive<$int>> for Index {
            fn from(range: RangeToInclusive<$int>) -> Self {
                Self::slice(None, after(range.end.into()))
            }
        }
    )*};
}

ranges!(i32, i64);

/// The end behind the last element taken; behind the last of all is the edge.
fn after(last: i64) -> Option<i64> {
    if last == -1 { None } else { Some(last + 1) }
}

/// A part of a tensor about to be made; see [`index`].
#[must_use = "an operation is made by `build`"]
pub struct StridedIndex {
    tensor: Operand,
    entries: Vec<Index>,
    name: String,
}

impl StridedIndex {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// `InvalidArgument` for more entries than dimensions, or a single index outside of the tensor.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let graph = self.tensor.graph().cloned().unwrap_or_else(Graph::current);
        // Python counts the ends before it opens the scope.
        let (masks, [begin, end, strides]) = entries_of(&graph, &self.entries)?;
        let scope = name_scope_in(&graph, &self.name)?;
        let tensor = self.tensor.to_tensor(&graph, "tensor", None)?;
        let make = |numbers: Vec<Operand>, name: &str| match numbers.is_empty() {
            true => constant_in(&graph, Value::int32_vector([]), name),
            false => Operand::List(numbers).to_tensor(&graph, name, None),
        };
        let (begin, end, strides) = (make(begin, "stack")?, make(end, "stack_1")?, make(strides, "stack_2")?);
        let mut node = OpBuilder::new("StridedSlice")
            .input(tensor)
            .input(begin)
            .input(end)
            .input(strides);
        for (name, mask) in NAMES.into_iter().zip(masks.to_array()) {
            node = node.attr(name, mask);
        }
        node.name(scope.scope_name()).build()
    }
}

/// Begins, ends and strides of entries, and what the masks say of them.
fn entries_of(graph: &Graph, entries: &[Index]) -> Result<(Masks, [Vec<Operand>; 3])> {
    let mut masks = Masks::default();
    let [mut begins, mut ends, mut strides] = [Vec::new(), Vec::new(), Vec::new()];
    let number = |number: i64| Operand::Number(Value::scalar(number as i32));
    for (place, entry) in entries.iter().enumerate() {
        let bit = 1i64 << place;
        let (begin, end, stride) = match entry {
            Index::At(at) => {
                masks.shrink |= bit;
                (at.clone(), after_index(graph, at)?, 1)
            }
            Index::NewAxis => {
                masks.new_axis |= bit;
                (number(0), number(0), 1)
            }
            Index::Ellipsis => {
                masks.ellipsis |= bit;
                (number(0), number(0), 1)
            }
            &Index::Slice { begin, end, stride } => {
                masks.begin |= if begin.is_none() { bit } else { 0 };
                masks.end |= if end.is_none() { bit } else { 0 };
                (number(begin.unwrap_or(0)), number(end.unwrap_or(0)), stride)
            }
        };
        begins.push(begin);
        ends.push(end);
        strides.push(number(stride));
    }
    Ok((masks, [begins, ends, strides]))
}

/// The end of the slice of one element.
#[track_caller]
fn after_index(graph: &Graph, at: &Operand) -> Result<Operand> {
    if let Some(value) = at.to_value(Some(graph_core::DType::Int32))? {
        return Ok(Operand::Number(Value::scalar(
            value.to_scalar::<i32>()?.wrapping_add(1),
        )));
    }
    let after = OpBuilder::new(graph_core::op::vocabulary::arithmetic::ADD)
        .in_graph(graph)
        .input(at)
        .input(1i32)
        .name("add")
        .build()?;
    Ok(Operand::Tensor(after))
}

/// A part of `tensor`, one entry for each dimension from the first on: an index (which may be a tensor), a range, a new
/// axis or the ellipsis. Negative places are counted from the end.
///
/// ```
/// use graph_ops::array::{Index, constant, index};
/// let rows = constant([[1, 2, 3], [4, 5, 6]]).build()?;
/// assert_eq!(index(&rows, [Index::from(1)]).build()?.shape(), [3].into());
/// assert_eq!(index(&rows, [Index::from(..), (1..).into()]).build()?.shape(), [2, 2].into());
/// assert_eq!(index(&rows, [Index::Ellipsis, Index::from(..).step(-2)]).build()?.shape(), [2, 2].into());
/// assert_eq!(index(&rows, [Index::NewAxis, (-1).into()]).build()?.shape(), [1, 3].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn index(tensor: impl IntoOperand, entries: impl IntoIterator<Item = Index>) -> StridedIndex {
    StridedIndex {
        tensor: tensor.into_operand(),
        entries: entries.into_iter().collect(),
        name: "strided_slice".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::placeholder;

    #[test]
    fn names_are_pythons() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let input = placeholder::<f32>([None, Some(3)]).build().unwrap();
        let row = index(&input, [Index::from(0), (..-1).into()]).build().unwrap();
        let inputs: Vec<String> = row.op().inputs().iter().skip(1).map(Tensor::name).collect();
        assert_eq!((row.name(), row.shape()), ("strided_slice:0".into(), [2].into()));
        assert_eq!(
            inputs,
            [
                "strided_slice/stack:0",
                "strided_slice/stack_1:0",
                "strided_slice/stack_2:0"
            ]
        );
        assert_eq!(row.op().attr::<i64>("shrink_axis_mask").unwrap(), 1);
        assert_eq!(row.op().attr::<i64>("begin_mask").unwrap(), 2);
        assert_eq!(row.op().input(2).constant_value(), Some(Value::from([1i32, -1])));
    }
}
