//! Reductions of the rows of a tensor by segments: `SegmentSum` and its like, unsorted, and sparse.

use graph_core::graph::IntoOperand;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, DType, Element, Error, PartialShape, Result, Shape, typed_builder};
use half::{bf16, f16};

use crate::cpu::parallel::{SharedMut, for_each_range, grain_for};
use crate::cpu::simd::multiversion;
use crate::cuda::NUMBERS;
use crate::cuda::fill::Fill;
use crate::cuda::scatter::{self, Depth, Extent, Scatter};
use runs::Reduction;

mod gradients;
mod runs;
mod sparse;
#[cfg(test)]
mod tests;

pub(crate) use sparse::{sparse_mean, sparse_mean_grad, sparse_sqrt_n, sparse_sqrt_n_grad, sparse_sum};
#[cfg(test)]
pub(crate) use tests::{cases, gradient_cases};

/// How the rows of a segment become one; `W` is what is computed in.
#[derive(Clone, Copy)]
pub(super) struct Rule<T, W> {
    /// Of no rows, before the first is taken.
    first: W,
    /// Takes the elements of a row, each into one result.
    take: fn(&mut [W], &[T]),
    /// From the result and the number of rows.
    finish: fn(W, usize) -> T,
    /// What a segment without rows gives.
    empty: T,
}

/// A kernel for one dtype that allocates its output itself.
macro_rules! sorted_kernel {
    ($dtype:ident, $make:expr) => {
        KernelDefinition::cpu($make)
            .types("T", &[DType::$dtype])
            .data_dependent()
    };
}

/// A kernel for one dtype.
macro_rules! unsorted_kernel {
    ($dtype:ident, $make:expr) => {
        KernelDefinition::cpu($make).types("T", &[DType::$dtype])
    };
}

/// Adds a kernel for each dtype: its element, the type computed in, the value to begin with, the step, how to widen and
/// narrow, and what a segment without rows gives.
macro_rules! kernels {
    ($definition:expr, $kernel:ident; $($dtype:ident $type:ty, $wide:ty, $first:expr, $widen:expr, $step:expr, $finish:expr, $empty:expr;)*) => {
        $definition $(.kernel($kernel!($dtype, |request| {
            let rule: Rule<$type, $wide> =
                Rule { first: $first, take: |states, row| take_row(states, row, $widen, $step), finish: $finish, empty: $empty };
            $kernel(request, rule)
        })))*
    };
}

/// The kernels of sums and products.
macro_rules! numbers {
    ($definition:expr, $kernel:ident, $op:tt, $wrapping:ident, $first:literal) => {
        kernels! {
            $definition, $kernel;
            Float32 f32, f32, $first as f32, |x| x, |a, b| a $op b, |x, _| x, $first as f32;
            Float64 f64, f64, $first as f64, |x| x, |a, b| a $op b, |x, _| x, $first as f64;
            Half f16, f32, $first as f32, f16::to_f32, |a, b| a $op b, |x, _| f16::from_f32(x), f16::from_f32($first as f32);
            BFloat16 bf16, f32, $first as f32, bf16::to_f32, |a, b| a $op b, |x, _| bf16::from_f32(x), bf16::from_f32($first as f32);
            Complex64 Complex<f32>, Complex<f32>, Complex::new($first as f32, 0.0), |x| x, |a, b| a $op b, |x, _| x, Complex::new($first as f32, 0.0);
            Complex128 Complex<f64>, Complex<f64>, Complex::new($first as f64, 0.0), |x| x, |a, b| a $op b, |x, _| x, Complex::new($first as f64, 0.0);
            Int8 i8, i64, $first, i64::from, i64::$wrapping, |x, _| x as i8, $first;
            Int16 i16, i64, $first, i64::from, i64::$wrapping, |x, _| x as i16, $first;
            Int32 i32, i64, $first, i64::from, i64::$wrapping, |x, _| x as i32, $first;
            Int64 i64, i64, $first, |x| x, i64::$wrapping, |x, _| x, $first;
            UInt8 u8, i64, $first, i64::from, i64::$wrapping, |x, _| x as u8, $first;
            UInt16 u16, i64, $first, i64::from, i64::$wrapping, |x, _| x as u16, $first;
            UInt32 u32, i64, $first, i64::from, i64::$wrapping, |x, _| x as u32, $first;
            UInt64 u64, i64, $first, |x| x as i64, i64::$wrapping, |x, _| x as u64, $first;
        }
    };
}

/// The kernels of minima and maxima; segments without rows give zero, or the type's other end if `$bound`.
macro_rules! extrema {
    ($definition:expr, $kernel:ident, $better:tt, $worst:ident, $bound:literal) => {
        extrema!(
            $definition, $kernel, $better, $worst, $bound:
            Float32 f32 0.0, Float64 f64 0.0, Half f16 f16::ZERO, BFloat16 bf16 bf16::ZERO, Int8 i8 0, Int16 i16 0,
            Int32 i32 0, Int64 i64 0, UInt8 u8 0, UInt16 u16 0, UInt32 u32 0, UInt64 u64 0
        )
    };
    ($definition:expr, $kernel:ident, $better:tt, $worst:ident, $bound:literal: $($dtype:ident $type:ident $zero:expr),*) => {
        kernels! {
            $definition, $kernel;
            $($dtype $type, $type, $type::$worst, |x| x, |a, b| if b $better a { b } else { a }, |x, _| x,
                if $bound { $type::$worst } else { $zero };)*
        }
    };
}

/// A kernel on a device: what a segment begins with, by dtype, and what becomes of its element `old` that meets the element
/// `update` of a row. Segment numbers outside of the output are left out.
macro_rules! on_device {
    (|$dtype:pat_param| $first:expr, $change:literal) => {
        KernelDefinition::cuda(|request| {
            let $dtype = request.input_dtype(0);
            scattering(request, $first, $change)
        })
        .types("T", NUMBERS)
    };
}

/// A kernel of sorted segments on a device.
macro_rules! runs_on_device {
    ($reduction:ident) => {
        KernelDefinition::cuda(|request| runs::on_device(request, Reduction::$reduction, false))
            .types("T", NUMBERS)
            .data_dependent()
    };
}

fn scattering(request: &KernelRequest<'_>, first: &str, change: &str) -> Result<Planned> {
    let (dtype, numbers) = (request.input_dtype(0), request.input_shape(1));
    let output = request.output_shape(0)?;
    let count = numbers.num_elements();
    let extent = Extent {
        dims: Depth::new(&output[..1])?,
        inner: width(request.input_shape(0), numbers.rank()),
        repeated: false,
    };
    let len = output.num_elements();
    let fill = Fill::new(request, dtype, len, first)?;
    let scatter = Scatter::new(request, dtype, request.input_dtype(1), count, change)?;
    let planned = Planned::new(move |context| {
        let (data, numbers) = (context.input_address(0), context.input_address(1));
        let (output, scratch) = (context.output_address(0), context.scratch_address());
        // SAFETY: the sizes are those of the tensors.
        unsafe {
            fill.run(output)?;
            scatter.run(output, numbers, data, extent, scratch)
        }
    });
    Ok(planned.with_scratch(scatter::scratch(count)))
}

/// The least and the greatest finite number of a dtype in CUDA C.
fn bounds(dtype: DType) -> [&'static str; 2] {
    match dtype {
        DType::Float64 => ["-1.7976931348623157e308", "1.7976931348623157e308"],
        DType::Half => ["-65504.0f", "65504.0f"],
        DType::BFloat16 => ["bits_float(0xff7f0000u)", "bits_float(0x7f7f0000u)"],
        DType::Int32 => ["(-2147483647 - 1)", "2147483647"],
        DType::Int64 => ["(-9223372036854775807LL - 1)", "9223372036854775807LL"],
        _ => ["bits_float(0xff7fffffu)", "bits_float(0x7f7fffffu)"],
    }
}

/// A sorted segment op without kernels.
fn sorted(name: &'static str, summary: &'static str, types: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("data: T")
        .input("segment_ids: Tindices")
        .output("output: T")
        .attr(types)
        .attr("Tindices: {int32, int64}")
        .may_fail()
        .shape(sorted_shape)
}

/// `SegmentSum`
pub(crate) fn segment_sum_op() -> OpDefinition {
    let definition = sorted(
        "SegmentSum",
        "The sums of runs of rows with the same segment number.",
        "T: numbertype",
    );
    numbers!(definition.gradient(gradients::segment_sum), sorted_kernel, +, wrapping_add, 0)
        .kernel(runs_on_device!(Sum))
}

/// `SegmentProd`, which has no gradient in TensorFlow
pub(crate) fn segment_prod_op() -> OpDefinition {
    let definition = sorted(
        "SegmentProd",
        "The products of runs of rows with the same segment number.",
        "T: numbertype",
    );
    numbers!(definition.not_differentiable(), sorted_kernel, *, wrapping_mul, 1).kernel(runs_on_device!(Product))
}

/// `SegmentMean`
pub(crate) fn segment_mean_op() -> OpDefinition {
    let definition = sorted(
        "SegmentMean",
        "The means of runs of rows with the same segment number.",
        "T: numbertype",
    );
    kernels! {
        definition.gradient(gradients::segment_mean), sorted_kernel;
        Float32 f32, f32, 0.0, |x| x, |a, b| a + b, |x, n| x / n as f32, 0.0;
        Float64 f64, f64, 0.0, |x| x, |a, b| a + b, |x, n| x / n as f64, 0.0;
        Half f16, f32, 0.0, f16::to_f32, |a, b| a + b, |x, n| f16::from_f32(x / n as f32), f16::ZERO;
        BFloat16 bf16, f32, 0.0, bf16::to_f32, |a, b| a + b, |x, n| bf16::from_f32(x / n as f32), bf16::ZERO;
        Int32 i32, i64, 0, i64::from, i64::wrapping_add, |x, n| (x / n as i64) as i32, 0;
        Int64 i64, i64, 0, |x| x, i64::wrapping_add, |x, n| x / n as i64, 0;
    }
    .kernel(runs_on_device!(Mean))
}

/// `SegmentMin`
pub(crate) fn segment_min_op() -> OpDefinition {
    let definition = sorted(
        "SegmentMin",
        "The minima of runs of rows with the same segment number.",
        "T: realnumbertype",
    );
    extrema!(definition.gradient(gradients::segment_extremum), sorted_kernel, <, MAX, false)
        .kernel(runs_on_device!(Least))
}

/// `SegmentMax`
pub(crate) fn segment_max_op() -> OpDefinition {
    let definition = sorted(
        "SegmentMax",
        "The maxima of runs of rows with the same segment number.",
        "T: realnumbertype",
    );
    extrema!(definition.gradient(gradients::segment_extremum), sorted_kernel, >, MIN, false)
        .kernel(runs_on_device!(Greatest))
}

/// An unsorted segment op without kernels.
fn unsorted(name: &'static str, summary: &'static str, types: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("data: T")
        .input("segment_ids: Tindices")
        .input("num_segments: Tnumsegments")
        .output("output: T")
        .attr(types)
        .attr("Tindices: {int32, int64}")
        .attr("Tnumsegments: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[2])
        .may_fail()
        .shape(unsorted_shape)
}

/// `UnsortedSegmentSum`
pub(crate) fn unsorted_segment_sum_op() -> OpDefinition {
    let definition = unsorted(
        "UnsortedSegmentSum",
        "The sums of rows with the same segment number.",
        "T: numbertype",
    );
    numbers!(definition.gradient(gradients::unsorted_sum), unsorted_kernel, +, wrapping_add, 0)
        .kernel(on_device!(|_| "0", "old + update"))
}

/// `UnsortedSegmentProd`
pub(crate) fn unsorted_segment_prod_op() -> OpDefinition {
    let definition = unsorted(
        "UnsortedSegmentProd",
        "The products of rows with the same segment number.",
        "T: numbertype",
    );
    numbers!(definition.gradient(gradients::unsorted_prod), unsorted_kernel, *, wrapping_mul, 1)
        .kernel(on_device!(|_| "1", "old * update"))
}

/// `UnsortedSegmentMin`
pub(crate) fn unsorted_segment_min_op() -> OpDefinition {
    let definition = unsorted(
        "UnsortedSegmentMin",
        "The minima of rows with the same segment number.",
        "T: realnumbertype",
    );
    extrema!(definition.gradient(gradients::unsorted_extremum), unsorted_kernel, <, MAX, true)
        .kernel(on_device!(|dtype| bounds(dtype)[1], "update < old ? update : old"))
}

/// `UnsortedSegmentMax`
pub(crate) fn unsorted_segment_max_op() -> OpDefinition {
    let definition = unsorted(
        "UnsortedSegmentMax",
        "The maxima of rows with the same segment number.",
        "T: realnumbertype",
    );
    extrema!(definition.gradient(gradients::unsorted_extremum), unsorted_kernel, >, MIN, true)
        .kernel(on_device!(|dtype| bounds(dtype)[0], "update > old ? update : old"))
}

/// The dimensions behind the first `skipped` ones.
fn tail(shape: &PartialShape, skipped: usize) -> PartialShape {
    match shape.dims() {
        Some(dims) => PartialShape::from_dims(dims.iter().skip(skipped).copied()),
        None => PartialShape::unknown(),
    }
}

fn sorted_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let data = context.with_rank_at_least(0, 1)?;
    let ids = context.with_rank(1, 1)?;
    if data.rank().is_some() {
        context.merge_dims(data.dim(0), ids.dim(0), "the rows of the data and the segment numbers")?;
    }
    context.set_output(0, PartialShape::from([None]).concatenate(&tail(&data, 1)));
    Ok(())
}

fn unsorted_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    context.with_rank(2, 0)?;
    let segments = context.int_values(2)?.map(|count| count[0]);
    if let Some(count) = segments.filter(|&count| count < 0) {
        return Err(Error::invalid_argument("a negative number of segments")
            .expected("num_segments >= 0")
            .got(count));
    }
    let (data, ids) = (context.input(0), context.input(1));
    let (Some(data_dims), Some(id_dims)) = (data.dims(), ids.dims()) else {
        return Ok(());
    };
    let head = PartialShape::from_dims(data_dims.iter().take(id_dims.len()).copied());
    if id_dims.len() > data_dims.len() || !head.is_compatible_with(ids) {
        return Err(
            Error::invalid_argument("the data's shape must begin with that of the segment numbers")
                .expected(format!("{ids}, ..."))
                .got(data),
        );
    }
    let segments = PartialShape::from([segments.map(|count| count as usize)]);
    context.set_output(0, segments.concatenate(&tail(data, id_dims.len())));
    Ok(())
}

/// An integer tensor of either dtype.
fn integers(context: &KernelContext<'_>, input: usize) -> Result<Vec<i64>> {
    match context.input_dtype(input) {
        DType::Int64 => Ok(context.input::<i64>(input)?.to_vec()),
        _ => Ok(context.input::<i32>(input)?.iter().map(|&id| id.into()).collect()),
    }
}

/// The numbers of sorted segments, checked.
///
/// # Errors
/// `InvalidArgument` if one is negative or less than the one before it.
fn sorted_segments(ids: &[i64]) -> Result<Vec<usize>> {
    let wrong = |id: i64, what: &str| Err(Error::invalid_argument(format!("segment numbers {what}")).got(id));
    let mut last = 0;
    ids.iter()
        .map(|&id| {
            if id < 0 {
                return wrong(id, "must not be negative");
            }
            if id < last {
                return wrong(id, "must not decrease");
            }
            last = id;
            Ok(id as usize)
        })
        .collect()
}

multiversion! {
    fn take_row[T: Copy, W: Copy, A: Fn(T) -> W, S: Fn(W, W) -> W](states: &mut [W], row: &[T], widen: A, step: S) {
        states.iter_mut().zip(row).for_each(|(state, &x)| *state = step(*state, widen(x)));
    }
}

/// Reduces rows of `width` elements into their segments: pairs of a segment and a row of `data`.
fn reduce_rows<T: Element, W: Copy + Send + Sync>(
    rule: &Rule<T, W>,
    data: &[T],
    width: usize,
    rows: impl Iterator<Item = (usize, usize)>,
    output: &mut [T],
) {
    /// Columns that one task takes, at least: a cache line of small elements.
    const COLUMNS: usize = 32;
    if width == 0 {
        return;
    }
    let mut states = vec![rule.first; output.len()];
    let mut counts = vec![0usize; output.len() / width];
    let rows: Vec<(usize, usize)> = rows.inspect(|row| counts[row.0] += 1).collect();
    let (shared, output) = (SharedMut::new(&mut states), SharedMut::new(output));
    for_each_range(width, grain_for(rows.len()).next_multiple_of(COLUMNS), |columns| {
        for &(segment, row) in &rows {
            // SAFETY: the segment lies in the output; this task alone uses these columns, here and below.
            let states = unsafe { shared.slice(segment * width + columns.start..segment * width + columns.end) };
            (rule.take)(states, &data[row * width..][columns.clone()]);
        }
        for (segment, &count) in counts.iter().enumerate() {
            let own = segment * width + columns.start..segment * width + columns.end;
            // SAFETY: as above.
            let (out, states) = unsafe { (output.slice(own.clone()), shared.slice(own)) };
            match count {
                0 => out.fill(rule.empty),
                _ => out
                    .iter_mut()
                    .zip(states)
                    .for_each(|(out, &mut state)| *out = (rule.finish)(state, count)),
            }
        }
    });
}

/// The number of elements in each row behind the first `skipped` axes.
fn width(shape: &Shape, skipped: usize) -> usize {
    shape.iter().skip(skipped).product()
}

/// The output's shape: that of the data with another number of rows.
fn with_rows(data: &Shape, rows: usize) -> Shape {
    std::iter::once(rows).chain(data.iter().skip(1).copied()).collect()
}

/// # Errors
/// `InvalidArgument` unless there are as many segment numbers as rows.
fn check_rows(request: &KernelRequest<'_>) -> Result<()> {
    let (shape, ids) = (request.input_shape(0), request.input_shape(1));
    if shape[0] == ids.num_elements() {
        return Ok(());
    }
    Err(Error::invalid_argument("as many segment numbers as rows are needed")
        .expected(shape[0])
        .got(ids))
}

fn sorted_kernel<T: Element, W: Copy + Send + Sync + 'static>(
    request: &KernelRequest<'_>,
    rule: Rule<T, W>,
) -> Result<Planned> {
    check_rows(request)?;
    let shape = request.input_shape(0).clone();
    // The last segment number decides the output's shape, so that only constants could tell it before.
    let width = width(&shape, 1);
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let segments = sorted_segments(&integers(context, 1)?)?;
        let count = segments.last().map_or(0, |&last| last + 1);
        let data = context.input::<T>(0)?;
        let output = context.allocate_output::<T>(0, with_rows(&shape, count))?;
        reduce_rows(&rule, data, width, segments.into_iter().zip(0..), output);
        Ok(())
    }))
}

fn unsorted_kernel<T: Element, W: Copy + Send + Sync + 'static>(
    request: &KernelRequest<'_>,
    rule: Rule<T, W>,
) -> Result<Planned> {
    let segments = request.output_shape(0)?[0];
    let width = width(request.input_shape(0), request.input_shape(1).rank());
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let ids = integers(context, 1)?;
        if let Some(&id) = ids.iter().find(|&&id| id >= segments as i64) {
            return Err(Error::invalid_argument("a segment number is out of range")
                .expected(format!("less than {segments}"))
                .got(id));
        }
        // Rows of negative segments belong to none.
        let rows = ids
            .iter()
            .zip(0..)
            .filter_map(|(&id, row)| usize::try_from(id).ok().map(|id| (id, row)));
        reduce_rows(&rule, context.input::<T>(0)?, width, rows, context.output::<T>(0)?);
        Ok(())
    }))
}

typed_builder! {
    /// A reduction by segments about to be made; see [`segment_sum`] and [`unsorted_segment_sum`].
    pub struct Segment;
}

/// Defines the builder functions of segment ops.
macro_rules! builders {
    ($($(#[$doc:meta])* $function:ident($($operand:ident),*) => $op:literal;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $function($($operand: impl IntoOperand),*) -> Segment {
            Segment(crate::op($op)$(.input($operand))*)
        }
    )*};
}

builders! {
    /// The sums of the rows of `data` that have the same number in `segment_ids`, a vector of as many sorted, not negative
    /// numbers as there are rows. The result has a row for each number up to the last; those without rows are zero.
    ///
    /// ```
    /// use graph_ops::{array::constant, math::segment_sum};
    /// let sums = segment_sum(constant([1.0f32, 2.0, 3.0]), constant([0, 0, 1])).build()?; // 3, 3
    /// assert_eq!(sums.shape().rank(), Some(1));
    /// # Ok::<(), graph_core::Error>(())
    /// ```
    segment_sum(data, segment_ids) => "SegmentSum";
    /// The means of the rows of each segment; see [`segment_sum`].
    segment_mean(data, segment_ids) => "SegmentMean";
    /// The products of the rows of each segment, 1 without rows; see [`segment_sum`].
    segment_prod(data, segment_ids) => "SegmentProd";
    /// The minima of the rows of each segment; see [`segment_sum`].
    segment_min(data, segment_ids) => "SegmentMin";
    /// The maxima of the rows of each segment; see [`segment_sum`].
    segment_max(data, segment_ids) => "SegmentMax";
    /// The sums of the parts of `data` that have the same number in `segment_ids`, whose shape is the beginning of that of
    /// `data`; parts with negative numbers are left out. The result has `num_segments` rows.
    unsorted_segment_sum(data, segment_ids, num_segments) => "UnsortedSegmentSum";
    /// The products of each segment, 1 without rows; see [`unsorted_segment_sum`].
    unsorted_segment_prod(data, segment_ids, num_segments) => "UnsortedSegmentProd";
    /// The minima of each segment, the dtype's greatest number without rows; see [`unsorted_segment_sum`].
    unsorted_segment_min(data, segment_ids, num_segments) => "UnsortedSegmentMin";
    /// The maxima of each segment, the dtype's lowest number without rows; see [`unsorted_segment_sum`].
    unsorted_segment_max(data, segment_ids, num_segments) => "UnsortedSegmentMax";
    /// The sums of the rows of `data` that `indices` name, by the sorted segments of `segment_ids`.
    sparse_segment_sum(data, indices, segment_ids) => "SparseSegmentSum";
    /// The means of the rows of `data` that `indices` name, by the sorted segments of `segment_ids`.
    sparse_segment_mean(data, indices, segment_ids) => "SparseSegmentMean";
    /// The sums of the rows of `data` that `indices` name, by the sorted segments of `segment_ids`, divided by the roots of
    /// the segments' lengths.
    sparse_segment_sqrt_n(data, indices, segment_ids) => "SparseSegmentSqrtN";
}
