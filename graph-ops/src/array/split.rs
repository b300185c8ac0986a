//! `Split` and `SplitV`: a tensor cut into parts along an axis.

use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Error, Graph, PartialShape, Result};

use crate::array::axis::{around, axis_of, known_scalar, planned_scalar, with_dim};
use crate::array::moving::{Movement, Word, plan};
use crate::cpu::copy::{CopyAxis, copy_strided};
use crate::cuda::SIZED;
use crate::cuda::copy::{Transfer, copies};

/// `Split`
pub(crate) fn split_definition() -> OpDefinition {
    OpDefinition::new("Split", "A tensor cut into equal parts along an axis.")
        .input("split_dim: int32")
        .input("value: T")
        .output("output: num_split * T")
        .attr("num_split: int >= 1")
        .attr("T: type")
        .plan_time_inputs(&[0])
        .shape(equal_parts)
        .gradient(|context| gradient(context, 0, 0))
        .kernel(KernelDefinition::cpu(|request| kernel(request, 1, 0)))
        .kernel(KernelDefinition::cuda(|request| on_device(request, 1, 0)).types("T", SIZED))
}

/// `SplitV`
pub(crate) fn split_v_definition() -> OpDefinition {
    OpDefinition::new(
        "SplitV",
        "A tensor cut into parts of given lengths along an axis; one may be -1, for what is left.",
    )
    .input("value: T")
    .input("size_splits: Tlen")
    .input("split_dim: int32")
    .output("output: num_split * T")
    .attr("num_split: int >= 1")
    .attr("T: type")
    .attr("Tlen: {int32, int64} = DT_INT64")
    .plan_time_inputs(&[1, 2])
    .shape(given_parts)
    .gradient(|context| gradient(context, 2, 1))
    .kernel(KernelDefinition::cpu(|request| kernel(request, 0, 2)))
    .kernel(KernelDefinition::cuda(|request| on_device(request, 0, 2)).types("T", SIZED))
}

fn equal_parts(context: &mut InferenceContext<'_>) -> Result<()> {
    let axis = known_scalar(context, 0)?;
    let input = context.input(1).clone();
    let Some(rank) = input.rank() else { return Ok(()) };
    let count = context.num_outputs();
    let part = match axis {
        None => PartialShape::unknown_of_rank(rank),
        Some(axis) => {
            let axis = axis_of(axis, rank)?;
            if let Some(dim) = input.dim(axis).filter(|dim| dim % count != 0) {
                return Err(Error::invalid_argument(format!(
                    "dimension {axis} cannot be cut into {count} equal parts"
                ))
                .expected(format!("a multiple of {count}"))
                .got(dim));
            }
            with_dim(&input, axis, input.dim(axis).map(|dim| dim / count))
        }
    };
    (0..count).for_each(|slot| context.set_output(slot, &part));
    Ok(())
}

fn given_parts(context: &mut InferenceContext<'_>) -> Result<()> {
    context.with_rank(1, 1)?;
    let (lengths, axis) = (context.int_values(1)?, known_scalar(context, 2)?);
    let input = context.input(0).clone();
    let Some(rank) = input.rank() else { return Ok(()) };
    let count = context.num_outputs();
    context.merge_dims(
        Some(count),
        context.input(1).dim(0),
        "the attribute 'num_split' and the number of lengths",
    )?;
    let Some(axis) = axis.map(|axis| axis_of(axis, rank)).transpose()? else {
        (0..count).for_each(|slot| context.set_output(slot, PartialShape::unknown_of_rank(rank)));
        return Ok(());
    };
    let parts = match &lengths {
        Some(lengths) => part_lengths(lengths, input.dim(axis))?,
        None => vec![None; count],
    };
    for (slot, part) in parts.into_iter().enumerate() {
        context.set_output(slot, with_dim(&input, axis, part));
    }
    Ok(())
}

/// The lengths with -1 worked out, where the whole is known.
fn part_lengths(lengths: &[i64], whole: graph_core::Dim) -> Result<Vec<graph_core::Dim>> {
    let misfit = |text: String| Error::invalid_argument(text).got(format!("lengths {lengths:?}"));
    if lengths.iter().any(|&length| length < -1) || lengths.iter().filter(|&&length| length == -1).count() > 1 {
        return Err(misfit("lengths must not be negative, but for one -1".to_owned()));
    }
    let given: i64 = lengths
        .iter()
        .filter(|&&length| length > 0)
        .fold(0i64, |sum, &length| sum.saturating_add(length));
    let rest = match whole {
        None => None,
        Some(whole) => {
            let rest = whole as i64 - given;
            if rest < 0 || (rest > 0 && !lengths.contains(&-1)) {
                return Err(misfit(format!("the lengths do not add up to {whole}")));
            }
            Some(rest as usize)
        }
    };
    Ok(lengths
        .iter()
        .map(|&length| if length == -1 { rest } else { Some(length as usize) })
        .collect())
}

/// The gradients of the parts one behind the other.
fn gradient(
    context: &mut graph_core::gradients::GradientContext<'_>,
    axis: usize,
    before: usize,
) -> Result<Vec<Option<Tensor>>> {
    let parts: Vec<Tensor> = (0..context.op().num_outputs())
        .map(|slot| context.gradient(slot))
        .collect::<Result<_>>()?;
    let axis = context.input(axis);
    let whole = match parts.as_slice() {
        [only] => context.node("Identity").input(only).name("concat").build()?,
        _ => context
            .node("ConcatV2")
            .input(parts)
            .input(axis)
            .name("concat")
            .build()?,
    };
    Ok(if before == 0 {
        vec![None, Some(whole)]
    } else {
        vec![Some(whole), None, None]
    })
}

struct Cut {
    outer: usize,
    lengths: Vec<usize>,
    inner: usize,
}

impl Cut {
    /// Where the parts begin, and how they lie in the whole and by themselves.
    fn parts(&self) -> impl Iterator<Item = (usize, [CopyAxis; 2])> {
        let row = self.lengths.iter().sum::<usize>() * self.inner;
        let mut start = 0;
        self.lengths.iter().map(move |length| {
            let run = length * self.inner;
            let rows = CopyAxis {
                len: self.outer,
                from: row as isize,
                to: run as isize,
            };
            let elements = CopyAxis {
                len: run,
                from: 1,
                to: 1,
            };
            start += run;
            (start - run, [rows, elements])
        })
    }
}

impl Movement for Cut {
    const SEPARATE_OUTPUTS: bool = true;

    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        for (output, (start, axes)) in outputs.iter_mut().zip(self.parts()) {
            if !output.is_empty() {
                copy_strided(inputs[0], start, output, 0, &axes);
            }
        }
        Ok(())
    }
}

fn on_device(request: &KernelRequest<'_>, value: usize, axis: usize) -> Result<Planned> {
    let dtype = request.input_dtype(value);
    let cut = cut(request, value, axis)?;
    let parts = cut.parts().enumerate().map(|(slot, (start, axes))| {
        let copy = Transfer::new(request, dtype, start, 0, &axes)?;
        Ok((value, slot, copy))
    });
    Ok(copies(parts.collect::<Result<_>>()?))
}

fn kernel(request: &KernelRequest<'_>, value: usize, axis: usize) -> Result<Planned> {
    let cut = cut(request, value, axis)?;
    plan(request, [value], cut)
}

fn cut(request: &KernelRequest<'_>, value: usize, axis: usize) -> Result<Cut> {
    let shape = request.input_shape(value);
    let axis = axis_of(planned_scalar(request, axis)?, shape.rank())?;
    let [outer, _, inner] = around(shape, axis);
    let lengths = (0..request.num_outputs()).map(|slot| Ok(request.output_shape(slot)?[axis]));
    Ok(Cut {
        outer,
        lengths: lengths.collect::<Result<_>>()?,
        inner,
    })
}

/// Into what a tensor is cut.
#[derive(Clone)]
enum Parts {
    Equal(usize),
    Lengths(Operand),
}

/// A tensor cut into parts about to be made; see [`split`] and [`split_sizes`].
#[must_use = "an operation is made by `build`"]
pub struct Split {
    value: Operand,
    parts: Parts,
    axis: Operand,
    name: String,
}

impl Split {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Cuts along this dimension; 0 without.
    pub fn axis(mut self, axis: impl IntoOperand) -> Self {
        self.axis = axis.into_operand();
        self
    }

    /// Makes the operation; the parts.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` if the dimension cannot be cut like that.
    #[track_caller]
    pub fn build(self) -> Result<Vec<Tensor>> {
        let builder = match self.parts {
            Parts::Equal(count) => crate::op("Split")
                .input(self.axis)
                .input(self.value)
                .attr("num_split", count as i64),
            Parts::Lengths(lengths) => {
                let graph = self.value.graph().cloned().unwrap_or_else(Graph::current);
                let count = match &lengths {
                    Operand::Tensor(_) | Operand::Variable(_) => {
                        let lengths = lengths.to_tensor(&graph, "size_splits", None)?;
                        lengths.shape().dim(0).ok_or_else(|| {
                            Error::invalid_argument(format!("the number of parts is not known from {lengths:?}"))
                        })?
                    }
                    other => other.to_value(None)?.map_or(0, |value| value.num_elements()),
                };
                // Python makes the constant of the lengths in the current scope.
                let lengths = lengths.to_tensor(&graph, "Const", None)?;
                crate::op("SplitV")
                    .input(self.value)
                    .input(lengths)
                    .input(self.axis)
                    .attr("num_split", count as i64)
            }
        };
        builder.name(self.name).build_all()
    }
}

/// `value` cut into `count` equal parts along its first dimension, or that of [`Split::axis`].
///
/// ```
/// use graph_ops::array::{constant, split};
/// let halves = split(constant([[1, 2, 3, 4]]), 2).axis(1).build()?;
/// assert_eq!((halves.len(), halves[1].shape()), (2, [1, 2].into()));
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn split(value: impl IntoOperand, count: usize) -> Split {
    Split {
        value: value.into_operand(),
        parts: Parts::Equal(count),
        axis: 0i32.into_operand(),
        name: "split".to_owned(),
    }
}

/// `value` cut into parts of the lengths `sizes`, of which one may be -1, for what is left.
#[track_caller]
pub fn split_sizes(value: impl IntoOperand, sizes: impl IntoOperand) -> Split {
    Split {
        value: value.into_operand(),
        parts: Parts::Lengths(sizes.into_operand()),
        axis: 0i32.into_operand(),
        name: "split".to_owned(),
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{DType, Value};
    let rows = [[1.0f32, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]];
    let words = |words: &[&str]| {
        Value::from_strings(
            [words.len()],
            words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        )
        .unwrap()
    };
    vec![
        Case::new("Split")
            .attr("num_split", 2i64)
            .input(-1i32)
            .input(rows)
            .expect([[1.0f32, 2.0], [5.0, 6.0]])
            .expect([[3.0f32, 4.0], [7.0, 8.0]]),
        Case::new("SplitV")
            .attr("num_split", 3i64)
            .input(rows)
            .input([1i32, -1, 0])
            .input(1i32)
            .expect([[1.0f32], [5.0]])
            .expect([[2.0f32, 3.0, 4.0], [6.0, 7.0, 8.0]])
            .expect(Value::zeros(DType::Float32, [2, 0]).unwrap()),
        Case::new("Split")
            .attr("num_split", 1i64)
            .input(0i32)
            .input([true])
            .expect([true]),
        Case::new("Split")
            .attr("num_split", 2i64)
            .input(0i32)
            .input(words(&["a", "b"]))
            .expect(words(&["a"]))
            .expect(words(&["b"])),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let rows = [[1.0f64, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]];
    vec![
        GradientCase::new("Split")
            .attr("num_split", 2i64)
            .input(1i32)
            .input(rows)
            .output(1),
        GradientCase::new("SplitV")
            .attr("num_split", 2i64)
            .input(rows)
            .input([1i32, 3])
            .input(1i32)
            .output(1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::constant;

    #[test]
    fn parts_must_fit() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let whole = constant([1, 2, 3, 4, 5]).build().unwrap();
        assert!(split(&whole, 2).build().is_err());
        assert_eq!(split_sizes(&whole, [-1, 2]).build().unwrap()[0].shape(), [3].into());
        for bad in [[1, 2], [-1, 6], [-1, -1], [-2, 7]] {
            assert!(split_sizes(&whole, bad).build().is_err(), "{bad:?}");
        }
    }
}
