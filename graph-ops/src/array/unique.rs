//! `Unique`, `UniqueWithCounts`, their second versions, and `ListDiff`: what is there, and what is there twice.

use std::collections::HashMap;

use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, PartialShape, Result, Value};

use crate::array::axis::{around, axis_of, planned_ints};
use crate::array::moving::pick_rows;

/// `Unique`
pub(crate) fn unique_definition() -> OpDefinition {
    first_version(
        "Unique",
        "The different elements of a vector in order of first appearance, and which of them each is.",
    )
}

/// `UniqueWithCounts`
pub(crate) fn unique_with_counts_definition() -> OpDefinition {
    first_version(
        "UniqueWithCounts",
        "The different elements of a vector, which of them each is, and how often each comes.",
    )
    .output("count: out_idx")
}

/// `UniqueV2`
pub(crate) fn unique_v2_definition() -> OpDefinition {
    second_version(
        "UniqueV2",
        "The different slices of a tensor along an axis, and which of them each is.",
    )
}

/// `UniqueWithCountsV2`
pub(crate) fn unique_with_counts_v2_definition() -> OpDefinition {
    second_version(
        "UniqueWithCountsV2",
        "The different slices of a tensor along an axis, which of them each is, and how often each comes.",
    )
    .output("count: out_idx")
}

fn first_version(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("x: T")
        .output("y: T")
        .output("idx: out_idx")
        .attr("T: type")
        .attr("out_idx: {int32, int64} = DT_INT32")
        .may_fail()
        .shape(|context| {
            let input = context.with_rank(0, 1)?;
            context.set_output(0, PartialShape::from([None]));
            context.set_output(1, input);
            counts_shape(context);
            Ok(())
        })
        .not_differentiable()
        .kernel(KernelDefinition::cpu(|request| kernel(request, None)).data_dependent())
}

fn second_version(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("x: T")
        .input("axis: Taxis")
        .output("y: T")
        .output("idx: out_idx")
        .attr("T: type")
        .attr("Taxis: {int32, int64} = DT_INT64")
        .attr("out_idx: {int32, int64} = DT_INT32")
        .may_fail()
        .plan_time_inputs(&[1])
        .shape(|context| {
            let axis = context.int_values(1)?;
            if let (Some(axis), Some(rank)) = (axis, context.input(0).rank()) {
                let axis = axis.first().map_or(Ok(0), |&axis| axis_of(axis, rank))?;
                context.set_output(0, crate::array::axis::with_dim(context.input(0), axis, None));
                context.set_output(1, PartialShape::from([context.input(0).dim(axis)]));
            } else {
                context.set_output(1, PartialShape::from([None]));
            }
            counts_shape(context);
            Ok(())
        })
        .not_differentiable()
        .kernel(
            KernelDefinition::cpu(|request| {
                let axis = match planned_ints(request, 1)?.as_slice() {
                    [] => None,
                    &[axis] => Some(axis_of(axis, request.input_shape(0).rank())?),
                    more => {
                        return Err(
                            Error::invalid_argument("'axis' must be empty or hold one axis").got(format!("{more:?}"))
                        );
                    }
                };
                kernel(request, axis)
            })
            .data_dependent(),
        )
}

fn counts_shape(context: &mut InferenceContext<'_>) {
    if context.num_outputs() == 3 {
        context.set_output(2, PartialShape::from([None]));
    }
}

fn kernel(request: &KernelRequest<'_>, axis: Option<usize>) -> Result<Planned> {
    let (shape, index_type) = (request.input_shape(0).clone(), request.output_dtype(1));
    let axis = match axis {
        Some(axis) => axis,
        None if shape.rank() == 1 => 0,
        None => {
            return Err(Error::invalid_argument("unique expects a vector").got(format!("shape {shape}")));
        }
    };
    let [outer, len, inner] = around(&shape, axis);
    Ok(Planned::new(move |context| {
        let input = context.input_value(0)?;
        let numbers = numbered(&input)?;
        let mut seen: HashMap<Vec<u64>, usize> = HashMap::new();
        let (mut firsts, mut counts, mut which) = (Vec::new(), Vec::new(), Vec::with_capacity(len));
        for place in 0..len {
            let rows = (0..outer).flat_map(|row| &numbers[(row * len + place) * inner..][..inner]);
            let next = firsts.len();
            let number = *seen.entry(rows.copied().collect()).or_insert(next);
            if number == next {
                firsts.push(place);
                counts.push(0);
            }
            counts[number] += 1;
            which.push(number);
        }
        let rows: Vec<usize> = (0..outer)
            .flat_map(|row| firsts.iter().map(move |&first| row * len + first))
            .collect();
        let mut picked = shape.to_vec();
        picked[axis] = firsts.len();
        context.set_output(0, pick_rows(&input, inner, &rows, picked)?);
        set_indices(context, 1, &which, index_type)?;
        if context.num_outputs() == 3 {
            set_indices(context, 2, &counts, index_type)?;
        }
        Ok(())
    }))
}

fn set_indices(context: &mut KernelContext<'_>, output: usize, numbers: &[usize], dtype: DType) -> Result<()> {
    let value = match dtype {
        DType::Int64 => Value::from(numbers.iter().map(|&number| number as i64).collect::<Vec<_>>()),
        _ => Value::int32_vector(numbers.iter().map(|&number| number as i32)),
    };
    context.set_output(output, value);
    Ok(())
}

/// Numbers such that equal elements, and only they, have equal ones: zeros of both signs are equal, a NaN equals nothing.
fn numbered(value: &Value) -> Result<Vec<u64>> {
    let mut seen: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut next = 0u64;
    let mut number = |key: Option<Vec<u8>>| {
        let number = key.map_or(next, |key| *seen.entry(key).or_insert(next));
        next += u64::from(number == next);
        number
    };
    if value.dtype() == DType::String {
        return Ok(value
            .as_strings()?
            .iter()
            .map(|text| number(Some(text.clone())))
            .collect());
    }
    let dtype = value.dtype();
    let size = dtype.size().unwrap_or(1);
    let part = if dtype.is_complex() { size / 2 } else { size };
    let elements = value.bytes().chunks_exact(size).map(|element| {
        let mut key = element.to_vec();
        let float = dtype.is_floating() || dtype.is_complex();
        let mut is_nan = false;
        if float {
            // Both parts of a complex number are made canonical, so that none may be skipped.
            key.chunks_exact_mut(part)
                .for_each(|part| is_nan |= canonical(part, dtype));
        }
        number((!is_nan).then_some(key))
    });
    Ok(elements.collect())
}

/// Makes a negative zero positive; whether the number is NaN.
fn canonical(bytes: &mut [u8], dtype: DType) -> bool {
    let number = match (dtype, bytes.len()) {
        (DType::BFloat16, _) => half::bf16::from_le_bytes([bytes[0], bytes[1]]).to_f64(),
        (_, 2) => half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f64(),
        (_, 4) => f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        _ => f64::from_le_bytes(std::array::from_fn(|at| bytes[at])),
    };
    if number == 0.0 {
        bytes.fill(0);
    }
    number.is_nan()
}

/// `ListDiff`
pub(crate) fn list_diff_definition() -> OpDefinition {
    OpDefinition::new(
        "ListDiff",
        "The elements of a vector that are not in another, and their places.",
    )
    .input("x: T")
    .input("y: T")
    .output("out: T")
    .output("idx: out_idx")
    .attr("T: type")
    .attr("out_idx: {int32, int64} = DT_INT32")
    .shape(|context| {
        context.with_rank(0, 1)?;
        context.with_rank(1, 1)?;
        context.set_output(0, PartialShape::from([None]));
        context.set_output(1, PartialShape::from([None]));
        Ok(())
    })
    .not_differentiable()
    .kernel(
        KernelDefinition::cpu(|request| {
            let index_type = request.output_dtype(1);
            Ok(Planned::new(move |context| difference(context, index_type)))
        })
        .data_dependent(),
    )
}

fn difference(context: &mut KernelContext<'_>, index_type: DType) -> Result<()> {
    let (x, y) = (context.input_value(0)?, context.input_value(1)?);
    let (len, both) = (x.num_elements(), joined(&x, &y)?);
    let numbers = numbered(&both)?;
    let there: std::collections::HashSet<u64> = numbers[len..].iter().copied().collect();
    let kept: Vec<usize> = (0..len).filter(|&place| !there.contains(&numbers[place])).collect();
    context.set_output(0, pick_rows(&x, 1, &kept, [kept.len()])?);
    set_indices(context, 1, &kept, index_type)
}

/// Two vectors one behind the other.
fn joined(x: &Value, y: &Value) -> Result<Value> {
    let shape = [x.num_elements() + y.num_elements()];
    if x.dtype() == DType::String {
        return Value::from_strings(shape, [x.as_strings()?, y.as_strings()?].concat());
    }
    Value::from_bytes(x.dtype(), shape, &[x.bytes(), y.bytes()].concat())
}

/// The different elements of the vector `x` in order of first appearance, and which of them each element is; use
/// [`OpBuilder::build_all`].
#[track_caller]
pub fn unique(x: impl IntoOperand) -> OpBuilder {
    crate::op("Unique").input(x)
}

/// [`unique`], and how often each element comes.
#[track_caller]
pub fn unique_with_counts(x: impl IntoOperand) -> OpBuilder {
    crate::op("UniqueWithCounts").input(x)
}

/// The elements of the vector `x` that are not in the vector `y`, and their places; use [`OpBuilder::build_all`].
#[track_caller]
pub fn setdiff1d(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("ListDiff").input(x).input(y)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let words = |words: &[&str]| {
        Value::from_strings(
            [words.len()],
            words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        )
        .unwrap()
    };
    vec![
        Case::new("Unique")
            .input([3i32, 1, 3, 2, 1])
            .expect([3i32, 1, 2])
            .expect([0i32, 1, 0, 2, 1]),
        Case::new("Unique")
            .input([0.0f32, -0.0, f32::NAN, f32::NAN])
            .expect([0.0f32, f32::NAN, f32::NAN])
            .expect([0i32, 0, 1, 2]),
        Case::new("Unique")
            .input(words(&["a", "b", "a"]))
            .expect(words(&["a", "b"]))
            .expect([0i32, 1, 0]),
        Case::new("Unique")
            .input(Vec::<u8>::new())
            .expect(Vec::<u8>::new())
            .expect(Vec::<i32>::new()),
        Case::new("UniqueWithCounts")
            .attr("out_idx", DType::Int64)
            .input([5u8, 5, 7])
            .expect([5u8, 7])
            .expect([0i64, 0, 1])
            .expect([2i64, 1]),
        Case::new("UniqueV2")
            .input([[1i64, 2, 1], [3, 4, 3]])
            .input([1i64])
            .expect([[1i64, 2], [3, 4]])
            .expect([0i32, 1, 0]),
        Case::new("UniqueV2")
            .input([1i64, 1])
            .input(Vec::<i64>::new())
            .expect([1i64])
            .expect([0i32, 0]),
        Case::new("UniqueWithCountsV2")
            .input([[1i16, 2], [1, 2], [0, 2]])
            .input([0i32])
            .expect([[1i16, 2], [0, 2]])
            .expect([0i32, 0, 1])
            .expect([2i32, 1]),
        Case::new("ListDiff")
            .input([1i32, 2, 3, 4, 2])
            .input([2i32, 9])
            .expect([1i32, 3, 4])
            .expect([0i32, 2, 3]),
        Case::new("ListDiff")
            .input(words(&["a", "b"]))
            .input(words(&["a"]))
            .expect(words(&["b"]))
            .expect([1i32]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn a_matrix_needs_an_axis() {
        assert!(Case::new("Unique").input([[1i32]]).run().is_err());
        assert!(
            Case::new("UniqueV2")
                .input([[1i32]])
                .input(Vec::<i64>::new())
                .run()
                .is_err()
        );
        assert!(Case::new("UniqueV2").input([[1i32]]).input([2i64]).run().is_err());
    }
}
