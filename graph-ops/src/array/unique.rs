//! `Unique`, `UniqueWithCounts`, their second versions, and `ListDiff`: what is there, and what is there twice.

use std::hash::Hash;

use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, PartialShape, Result, Value};
use rustc_hash::FxHashMap;

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
        let which = if outer * inner == 1 {
            numbers
        } else {
            numbered_slices(&numbers, [outer, len, inner])
        };
        let (mut firsts, mut counts) = (Vec::new(), Vec::new());
        for (place, &number) in which.iter().enumerate() {
            if number == firsts.len() {
                firsts.push(place);
                counts.push(0);
            }
            counts[number] += 1;
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

/// Numbers for things, the same for equal ones, from 0 on in the order in which they come.
struct Numbers<K> {
    seen: FxHashMap<K, usize>,
    next: usize,
}

impl<K: Hash + Eq> Numbers<K> {
    fn new() -> Self {
        Self {
            seen: FxHashMap::default(),
            next: 0,
        }
    }

    /// The number of a thing; of what equals nothing, a number of its own.
    fn of(&mut self, thing: Option<K>) -> usize {
        let next = self.next;
        let number = thing.map_or(next, |thing| *self.seen.entry(thing).or_insert(next));
        self.next += usize::from(number == next);
        number
    }
}

/// Numbers such that equal elements, and only they, have equal ones: zeros of both signs are equal, a NaN equals nothing.
fn numbered(value: &Value) -> Result<Vec<usize>> {
    if value.dtype() == DType::String {
        let mut numbers = Numbers::new();
        return Ok(value.as_strings()?.iter().map(|text| numbers.of(Some(text))).collect());
    }
    let (dtype, bytes) = (value.dtype(), value.bytes());
    // The bits of infinity, and how many there are of one number.
    let float = match dtype {
        DType::Half => Some((0x7c00, 16)),
        DType::BFloat16 => Some((0x7f80, 16)),
        DType::Float32 | DType::Complex64 => Some((0x7f80_0000, 32)),
        DType::Float64 | DType::Complex128 => Some((0x7ff0_0000_0000_0000, 64)),
        _ => None,
    };
    let key = |bits: u64| match float {
        Some((infinity, 32)) if dtype.is_complex() => {
            let (re, im) = (bits & u64::from(u32::MAX), bits >> 32);
            Some(canonical(re, infinity, 32)? | canonical(im, infinity, 32)? << 32)
        }
        Some((infinity, width)) => canonical(bits, infinity, width),
        None => Some(bits),
    };
    let mut numbers = Numbers::new();
    let mut number = |bits: u64| numbers.of(key(bits));
    Ok(match dtype.size() {
        Some(1) => bytes.iter().map(|&byte| number(byte.into())).collect(),
        Some(2) => words(bytes)
            .map(|word| number(u16::from_le_bytes(word).into()))
            .collect(),
        Some(4) => words(bytes)
            .map(|word| number(u32::from_le_bytes(word).into()))
            .collect(),
        Some(8) => words(bytes).map(|word| number(u64::from_le_bytes(word))).collect(),
        _ => {
            let mut numbers = Numbers::new();
            let halves = words(bytes).map(u64::from_le_bytes).collect::<Vec<_>>();
            let pairs = halves
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&[re, im]| Some((key(re)?, key(im)?)));
            pairs.map(|pair| numbers.of(pair)).collect()
        }
    })
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// The bits of a floating-point number of `width` bits, with a positive zero for a negative one; none of NaN.
fn canonical(bits: u64, infinity: u64, width: u32) -> Option<u64> {
    let magnitude = bits & u64::MAX >> (65 - width);
    (magnitude <= infinity).then_some(if magnitude == 0 { 0 } else { bits })
}

/// Numbers of the slices along the middle axis, by those of their elements: each element leads on from where those before it
/// have led.
fn numbered_slices(numbers: &[usize], [outer, len, inner]: [usize; 3]) -> Vec<usize> {
    let (mut ways, mut slices) = (Numbers::new(), Numbers::new());
    let slice = |place: usize| {
        let elements = (0..outer).flat_map(|row| &numbers[(row * len + place) * inner..][..inner]);
        let end = elements.fold(usize::MAX, |way, &element| ways.of(Some((way, element))));
        slices.of(Some(end))
    };
    (0..len).map(slice).collect()
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
    let mut there = vec![false; numbers.len()];
    numbers[len..].iter().for_each(|&number| there[number] = true);
    let kept: Vec<usize> = (0..len).filter(|&place| !there[numbers[place]]).collect();
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
    use graph_core::{Complex, Value};

    /// Elements, and slices of two, beside the plain search for an equal one before each.
    #[test]
    fn numbers_are_those_of_the_first_equal_one() {
        fn first_equal<T: PartialEq>(things: &[T]) -> Vec<i32> {
            let mut firsts: Vec<usize> = Vec::new();
            let number = |at: usize| {
                let equal = firsts.iter().position(|&first| things[first] == things[at]);
                equal.unwrap_or_else(|| {
                    firsts.push(at);
                    firsts.len() - 1
                }) as i32
            };
            (0..things.len()).map(number).collect()
        }
        let special = [
            0.0,
            -0.0,
            f64::NAN,
            1.5,
            -1.5,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
        ];
        let c = |re: usize, im: usize| Complex::new(special[re % 8], special[im % 8]);
        let numbers: Vec<Complex<f64>> = (0..120).map(|i| c(i * i, i / 7)).collect();
        let run = |value: Value| Case::new("Unique").input(value).run().unwrap().remove(1);
        let index = |value: Value| value.as_slice::<i32>().unwrap().to_vec();
        assert_eq!(index(run(Value::from(numbers.clone()))), first_equal(&numbers));
        let single: Vec<Complex<f32>> = numbers.iter().map(|x| Complex::new(x.re as f32, x.im as f32)).collect();
        assert_eq!(index(run(Value::from(single.clone()))), first_equal(&single));
        let double: Vec<f64> = numbers.iter().map(|x| x.re).collect();
        assert_eq!(index(run(Value::from(double.clone()))), first_equal(&double));
        let half: Vec<half::f16> = double.iter().map(|&x| half::f16::from_f64(x)).collect();
        assert_eq!(index(run(Value::from(half.clone()))), first_equal(&half));
        let short: Vec<half::bf16> = double.iter().map(|&x| half::bf16::from_f64(x)).collect();
        assert_eq!(index(run(Value::from(short.clone()))), first_equal(&short));
        let bytes: Vec<u8> = (0..700).map(|i| (i * i % 251) as u8).collect();
        assert_eq!(index(run(Value::from(bytes.clone()))), first_equal(&bytes));

        let rows: Vec<[i64; 2]> = (0..200).map(|i| [i * i % 7, (i % 3) << 40]).collect();
        let value = Value::from_vec([200, 2], rows.concat()).unwrap();
        let result = Case::new("UniqueV2").input(value.clone()).input([0i64]).run().unwrap();
        assert_eq!(index(result[1].clone()), first_equal(&rows));
        let columns: Vec<i64> = (0..2)
            .flat_map(|column| rows.iter().map(move |row| row[column]))
            .collect();
        let value = Value::from_vec([2, 200], columns).unwrap();
        let result = Case::new("UniqueV2").input(value).input([1i64]).run().unwrap();
        assert_eq!(index(result[1].clone()), first_equal(&rows));
    }

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
