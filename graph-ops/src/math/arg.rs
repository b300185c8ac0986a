//! `ArgMax` and `ArgMin`: where the extremum along an axis is.

use graph_core::graph::IntoOperand;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, typed_builder};
use graph_cuda::{Cuda, Source, arguments, source};
use half::{bf16, f16};

use crate::cpu::reduce;
use crate::cpu::scratch::with_scratch;
use crate::cuda::{NUMBERS, blocks, type_name};

fn base(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("input: T")
        .input("dimension: Tidx")
        .output("output: output_type")
        .attr("T: numbertype")
        .attr("Tidx: {int32, int64} = DT_INT32")
        .attr("output_type: {int32, int64} = DT_INT64")
        .plan_time_inputs(&[1])
        .may_fail()
        .shape(shape)
        // TensorFlow registers a gradient that is none.
        .gradient(|_| Ok(vec![None, None]))
}

/// A kernel for each dtype.
macro_rules! kernels {
    ($definition:expr, $find:ident: $($dtype:ident $type:ty),*) => {
        $definition $(.kernel(
            KernelDefinition::cpu(|request| kernel::<$type>(request, reduce::$find::<$type, i64>))
                .types("T", &[DType::$dtype]),
        ))*
    };
}

macro_rules! all_kernels {
    ($definition:expr, $find:ident) => {
        kernels!(
            $definition, $find:
            Float32 f32, Float64 f64, Half f16, BFloat16 bf16, Int8 i8, Int16 i16, Int32 i32, Int64 i64, UInt8 u8,
            UInt16 u16, UInt32 u32, UInt64 u64
        )
    };
}

/// `ArgMax`
pub(crate) fn arg_max() -> OpDefinition {
    all_kernels!(
        base(
            "ArgMax",
            "The index of the greatest element along an axis; of several, the first."
        ),
        argmax
    )
    .kernel(KernelDefinition::cuda(|request| on_device(request, "x > y")).types("T", NUMBERS))
}

/// `ArgMin`
pub(crate) fn arg_min() -> OpDefinition {
    all_kernels!(
        base(
            "ArgMin",
            "The index of the least element along an axis; of several, the first."
        ),
        argmin
    )
    .kernel(KernelDefinition::cuda(|request| on_device(request, "x < y")).types("T", NUMBERS))
}

/// The axis that `axis` names, of `rank`.
///
/// # Errors
/// `InvalidArgument` if there is no such axis.
pub(crate) fn axis_of(axis: i64, rank: usize) -> Result<usize> {
    let index = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(index)
        .ok()
        .filter(|&index| index < rank)
        .ok_or_else(|| {
            Error::invalid_argument(format!("axis {axis} is out of range"))
                .expected(format!("an axis of rank {rank}, in [-{rank}, {rank})"))
                .got(axis)
        })
}

/// A kernel on a device; `better` says whether `x` wins against `y`.
fn on_device(request: &KernelRequest<'_>, better: &str) -> Result<Planned> {
    const SOURCE: Source = source!("arg.cu");
    let [outer, len, inner] = lengths(request)?;
    let defines = [
        ("T", type_name(request.input_dtype(0))?),
        ("O", type_name(request.output_dtype(0))?),
        ("BETTER", better),
    ];
    let rows = inner == 1 && len >= 32;
    let function = Cuda::of(request)?.function(&SOURCE, if rows { "arg_rows" } else { "arg_along" }, &defines)?;
    let function = function.doing(outer * len * inner);
    let results = outer * inner;
    Ok(Planned::new(move |context| {
        let (input, output) = (context.input_address(0), context.output_address(0));
        if results == 0 {
            return Ok(());
        }
        let (count, len, inner) = (results as i64, len as i64, inner as i64);
        // SAFETY: these are the kernels' parameters: an input of `[outer, len, inner]` and an output of `[outer, inner]`.
        unsafe {
            if rows {
                function.launch(
                    blocks(results.div_ceil(8)),
                    [256, 1, 1],
                    arguments![output, input, count, len],
                )
            } else {
                function.launch_over(results, arguments![output, input, count, len, inner])
            }
        }
    }))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    context.with_rank(1, 0)?;
    let output = match (context.input(0).dims(), context.int_values(1)?) {
        (Some(dims), Some(axis)) => {
            let axis = axis_of(axis[0], dims.len())?;
            PartialShape::from_dims(
                dims.iter()
                    .enumerate()
                    .filter(|(index, _)| *index != axis)
                    .map(|(_, &dim)| dim),
            )
        }
        (Some(dims), None) => PartialShape::unknown_of_rank(dims.len().saturating_sub(1)),
        (None, _) => PartialShape::unknown(),
    };
    context.set_output(0, output);
    Ok(())
}

/// How an extremum is found along the middle axis of three.
type Find<T> = fn(&[T], [usize; 3], &mut [i64]);

/// The lengths before, at and behind the axis.
///
/// # Errors
/// `InvalidArgument` for an axis that is none, or that is empty.
fn lengths(request: &KernelRequest<'_>) -> Result<[usize; 3]> {
    let shape = request.input_shape(0);
    let axis = axis_of(request.value(1)?.to_i64_vec()?[0], shape.rank())?;
    let lens = [
        shape[..axis].iter().product(),
        shape[axis],
        shape[axis + 1..].iter().product(),
    ];
    if shape[axis] == 0 && lens[0] * lens[2] > 0 {
        return Err(Error::invalid_argument(format!(
            "axis {axis} of shape {shape} is empty: it has no extremum"
        )));
    }
    Ok(lens)
}

fn kernel<T: Element>(request: &KernelRequest<'_>, find: Find<T>) -> Result<Planned> {
    let lens = lengths(request)?;
    let wide = request.output_dtype(0) == DType::Int64;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let input = context.input::<T>(0)?;
        if wide {
            find(input, lens, context.output::<i64>(0)?);
            return Ok(());
        }
        let output = context.output::<i32>(0)?;
        with_scratch(output.len(), |indices: &mut [i64]| {
            find(input, lens, indices);
            output
                .iter_mut()
                .zip(&*indices)
                .for_each(|(out, &index)| *out = index as i32);
        });
        Ok(())
    }))
}

typed_builder! {
    /// The index of an extremum about to be made; see [`argmax`].
    pub struct ArgExtremum;
}

impl ArgExtremum {
    /// The dtype of the indices, `int32` or `int64`; `int64` without.
    pub fn output_type(self, dtype: DType) -> Self {
        Self(self.0.attr("output_type", dtype))
    }
}

/// The index of the greatest element along `axis` (negative: from the end), whose axis vanishes; the first if several are
/// equal. Of any real number type.
///
/// ```
/// use graph_ops::{array::constant, math::argmax};
/// let best = argmax(constant([[1.0f32, 3.0, 2.0]]), 1).build()?;
/// assert_eq!(best.shape(), [1].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` for an axis that is not there or has no elements.
#[track_caller]
pub fn argmax(input: impl IntoOperand, axis: impl IntoOperand) -> ArgExtremum {
    ArgExtremum(crate::op("ArgMax").input(input).input(axis))
}

/// The index of the least element along `axis`; see [`argmax`].
#[track_caller]
pub fn argmin(input: impl IntoOperand, axis: impl IntoOperand) -> ArgExtremum {
    ArgExtremum(crate::op("ArgMin").input(input).input(axis))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let input = [[1.0f32, 3.0, 3.0], [-1.0, -5.0, 0.5]];
    let mut cases = vec![
        Case::new("ArgMax").input(input).input(1i32).expect([1i64, 2]),
        Case::new("ArgMax").input(input).input(-2i64).expect([0i64, 0, 0]),
        Case::new("ArgMin")
            .input(input)
            .input(-1i32)
            .attr("output_type", DType::Int32)
            .expect([0i32, 1]),
        Case::new("ArgMin").input(input).input(0i32).expect([1i64, 1, 1]),
        Case::new("ArgMax")
            .input(Value::from_vec::<f32>([0, 3], vec![]).expect("no elements"))
            .input(1i32)
            .expect(Value::from_vec::<i64>([0], vec![]).expect("no elements")),
    ];
    for &dtype in DType::REAL_NUMBERS {
        let input = Value::from([3i64, 9, 2]).cast_exactly(dtype).expect("small numbers");
        cases.push(Case::new("ArgMax").input(input.clone()).input(0i32).expect(1i64));
        cases.push(Case::new("ArgMin").input(input).input(0i32).expect(2i64));
    }
    cases
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;
    use graph_core::Value;

    #[test]
    fn what_has_no_extremum_is_an_error() {
        let empty = Value::from_vec::<f32>([2, 0], vec![]).unwrap();
        for case in [
            Case::new("ArgMax").input([1.0f32]).input(1i32),
            Case::new("ArgMin").input([1.0f32]).input(-2i32),
            Case::new("ArgMax").input(1.0f32).input(0i32),
            Case::new("ArgMax").input(empty).input(1i32),
        ] {
            assert_eq!(case.run().unwrap_err().class(), "InvalidArgument");
        }
    }

    #[test]
    fn the_axis_is_named_dimension() {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let x = crate::array::constant([1.0f32, 2.0]).build().unwrap();
        super::argmax(&x, 0).name("best").build().unwrap();
        assert!(graph.operation("best/dimension").is_ok());
    }
}
