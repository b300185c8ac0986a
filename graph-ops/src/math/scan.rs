//! Scans: `Cumsum`, `Cumprod`, `CumulativeLogsumexp`.

use std::ops::Range;

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, DType, Element, Result, Value, typed_builder};
use graph_cuda::{Cuda, Source, arguments, source};
use half::{bf16, f16};
use num_traits::{One, Zero};

use super::arg::axis_of;
use super::nodes::Nodes;
use crate::cpu::parallel::{SharedMut, for_each_range, grain_for};
use crate::cpu::scratch::{Plain, with_scratch};
use crate::cpu::simd::multiversion;
use crate::cuda::{NUMBERS, blocks, type_name};

fn base(name: &'static str, summary: &'static str, types: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("x: T")
        .input("axis: Tidx")
        .output("out: T")
        .attr("exclusive: bool = false")
        .attr("reverse: bool = false")
        .attr(types)
        .attr("Tidx: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[1])
        .may_fail()
        .shape(shape)
}

/// Kernels that scan in a wider type: dtype, element, wide type, what stands before the first element, how to widen,
/// combine and narrow.
macro_rules! kernels {
    ($definition:expr; $($dtype:ident $type:ty, $wide:ty, $first:expr, $widen:expr, $step:expr, $narrow:expr;)*) => {
        $definition $(.kernel(
            KernelDefinition::cpu(|request| kernel::<$type, $wide>(request, $first, $widen, $step, $narrow))
                .types("T", &[DType::$dtype])
                .in_place(0, 0),
        ))*
    };
}

/// The kernels of a scan of numbers: with operators for floating point, with wrapping methods for integers.
macro_rules! numbers {
    ($definition:expr, $first:ident, $op:tt, $wrapping:ident) => {
        kernels! {
            $definition;
            Float32 f32, f32, f32::$first(), |x| x, |a, b| a $op b, |x| x;
            Float64 f64, f64, f64::$first(), |x| x, |a, b| a $op b, |x| x;
            Half f16, f16, f16::$first(), |x| x, |a, b| a $op b, |x| x;
            BFloat16 bf16, bf16, bf16::$first(), |x| x, |a, b| a $op b, |x| x;
            Complex64 Complex<f32>, Complex<f32>, Complex::$first(), |x| x, |a, b| a $op b, |x| x;
            Complex128 Complex<f64>, Complex<f64>, Complex::$first(), |x| x, |a, b| a $op b, |x| x;
            Int32 i32, i32, i32::$first(), |x| x, i32::$wrapping, |x| x;
            Int64 i64, i64, i64::$first(), |x| x, i64::$wrapping, |x| x;
            Int8 i8, i64, i64::$first(), i64::from, i64::$wrapping, |x| x as i8;
            Int16 i16, i64, i64::$first(), i64::from, i64::$wrapping, |x| x as i16;
            UInt8 u8, i64, i64::$first(), i64::from, i64::$wrapping, |x| x as u8;
            UInt16 u16, i64, i64::$first(), i64::from, i64::$wrapping, |x| x as u16;
            UInt32 u32, i64, i64::$first(), i64::from, i64::$wrapping, |x| x as u32;
            UInt64 u64, i64, i64::$first(), |x| x as i64, i64::$wrapping, |x| x as u64;
        }
    };
}

/// `Cumsum`
pub(crate) fn cum_sum() -> OpDefinition {
    let definition = base(
        "Cumsum",
        "The sums of the elements up to each, along an axis.",
        "T: numbertype",
    );
    numbers!(definition.gradient(sum_gradient), zero, +, wrapping_add)
        .kernel(KernelDefinition::cuda(|request| on_device(request, "Add", "0")).types("T", NUMBERS))
}

/// `Cumprod`
pub(crate) fn cum_prod() -> OpDefinition {
    let definition = base(
        "Cumprod",
        "The products of the elements up to each, along an axis.",
        "T: numbertype",
    );
    numbers!(definition.gradient(product_gradient), one, *, wrapping_mul)
        .kernel(KernelDefinition::cuda(|request| on_device(request, "Multiply", "1")).types("T", NUMBERS))
}

/// `log(exp(a) + exp(b))`
macro_rules! log_add_exp {
    ($type:ty) => {
        |a: $type, b: $type| {
            let greater = a.max(b);
            if greater == <$type>::NEG_INFINITY {
                greater
            } else {
                greater + ((a - greater).exp() + (b - greater).exp()).ln()
            }
        }
    };
}

/// `CumulativeLogsumexp`
pub(crate) fn cumulative_log_sum_exp() -> OpDefinition {
    kernels! {
        base(
            "CumulativeLogsumexp",
            "The logarithms of the sums of the exponentials of the elements up to each, along an axis.",
            "T: {half, float, double}",
        )
        .gradient(log_sum_exp_gradient);
        // What TensorFlow begins with is the lowest finite number.
        Float32 f32, f32, f32::MIN, |x| x, log_add_exp!(f32), |x| x;
        Float64 f64, f64, f64::MIN, |x| x, log_add_exp!(f64), |x| x;
        Half f16, f32, f16::MIN.to_f32(), f16::to_f32, log_add_exp!(f32), f16::from_f32;
    }
    .kernel(
        KernelDefinition::cuda(|request| {
            let first = match request.input_dtype(0) {
                DType::Float64 => "-1.7976931348623157e308",
                DType::Half => "-65504.0f",
                _ => "-3.402823466e38f",
            };
            on_device(request, "AddExponentials", first)
        })
        .types("T", &[DType::Float32, DType::Float64, DType::Half]),
    )
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    context.with_rank(1, 0)?;
    if let (Some(rank), Some(axis)) = (context.input(0).rank(), context.int_values(1)?) {
        axis_of(axis[0], rank)?;
    }
    context.set_output(0, context.input(0));
    Ok(())
}

/// What is scanned, and how.
struct Lines {
    lines: usize,
    /// The elements of a line.
    len: usize,
    /// How far apart they lie.
    inner: usize,
    exclusive: bool,
    reverse: bool,
}

impl Lines {
    fn new(request: &KernelRequest<'_>) -> Result<Self> {
        let shape = request.input_shape(0);
        let axis = axis_of(request.value(1)?.to_i64_vec()?[0], shape.rank())?;
        let len = shape[axis];
        Ok(Self {
            lines: shape.num_elements().checked_div(len).unwrap_or(0),
            len,
            inner: shape[axis + 1..].iter().product(),
            exclusive: request.attr("exclusive")?,
            reverse: request.attr("reverse")?,
        })
    }
}

fn on_device(request: &KernelRequest<'_>, operation: &str, first: &str) -> Result<Planned> {
    const SOURCE: Source = source!("scan.cu");
    let Lines {
        lines,
        len,
        inner,
        exclusive,
        reverse,
    } = Lines::new(request)?;
    let defines = [
        ("T", type_name(request.input_dtype(0))?),
        ("OPERATION", operation),
        ("FIRST", first),
    ];
    let rows = inner == 1 && len >= 64;
    let function = Cuda::of(request)?.function(&SOURCE, if rows { "scan_rows" } else { "scan_lines" }, &defines)?;
    let function = function.doing(lines * len * inner);
    Ok(Planned::new(move |context| {
        if lines == 0 || len == 0 {
            return Ok(());
        }
        let (input, output) = (context.input_address(0), context.output_address(0));
        let (count, len, inner) = (lines as i64, len as i64, inner as i64);
        let (exclusive, reverse) = (i32::from(exclusive), i32::from(reverse));
        // SAFETY: these are the kernels' parameters, which say how many elements both tensors have.
        unsafe {
            if rows {
                let arguments = arguments![output, input, count, len, exclusive, reverse];
                function.launch(blocks(lines), [256, 1, 1], arguments)
            } else {
                let arguments = arguments![output, input, count, len, inner, exclusive, reverse];
                function.launch_over(lines, arguments)
            }
        }
    }))
}

/// Neighbouring columns that are scanned together: their states stay in the first-level cache.
const COLUMNS: usize = 256;

fn kernel<T: Element, W: Plain + Send + Sync>(
    request: &KernelRequest<'_>,
    first: W,
    widen: impl Fn(T) -> W + Copy + Send + Sync + 'static,
    step: impl Fn(W, W) -> W + Copy + Send + Sync + 'static,
    narrow: impl Fn(W) -> T + Copy + Send + Sync + 'static,
) -> Result<Planned> {
    let Lines {
        lines,
        len,
        inner,
        exclusive,
        reverse,
    } = Lines::new(request)?;
    let parts = inner.div_ceil(COLUMNS);
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        if lines == 0 {
            return Ok(());
        }
        let input = SharedMut::from_ptr(context.input_ptr::<T>(0)?.cast_mut());
        let output = SharedMut::from_ptr(context.output_ptr::<T>(0)?);
        // The elements `range` of the output, where those of the input now are.
        let elements = |range: Range<usize>| {
            // SAFETY: both arrays have the elements, which this task alone touches; they are the same memory or apart.
            unsafe {
                if output.as_ptr() != input.as_ptr() {
                    let (from, to) = (input.as_ptr().add(range.start), output.as_ptr().add(range.start));
                    std::ptr::copy_nonoverlapping(from, to, range.len());
                }
                output.slice(range)
            }
        };
        let position = |at: usize| if reverse { len - 1 - at } else { at };
        if inner == 1 {
            for_each_range(lines, grain_for(len * 4), |range| {
                for line in range {
                    let line = elements(line * len..(line + 1) * len).iter_mut();
                    let mut state = first;
                    let mut take = |x: &mut T| {
                        let next = step(state, widen(*x));
                        *x = narrow(if exclusive { state } else { next });
                        state = next;
                    };
                    if reverse {
                        line.rev().for_each(&mut take);
                    } else {
                        line.for_each(&mut take);
                    }
                }
            });
            return Ok(());
        }
        let cost = len * inner.min(COLUMNS) * 4;
        for_each_range(lines / inner * parts, grain_for(cost), |range| {
            for task in range {
                let columns = task % parts * COLUMNS..inner.min((task % parts + 1) * COLUMNS);
                with_scratch(columns.len(), |states: &mut [W]| {
                    states.fill(first);
                    for at in 0..len {
                        let row = (task / parts * len + position(at)) * inner;
                        let row = elements(row + columns.start..row + columns.end);
                        scan_row(states, row, exclusive, widen, step, narrow);
                    }
                });
            }
        });
        Ok(())
    }))
}

multiversion! {
    /// Takes one element into each state, and replaces it by the state before or behind.
    fn scan_row[T: Element, W: Copy, A: Fn(T) -> W, S: Fn(W, W) -> W, N: Fn(W) -> T](
        states: &mut [W],
        row: &mut [T],
        exclusive: bool,
        widen: A,
        step: S,
        narrow: N,
    ) {
        for (state, x) in states.iter_mut().zip(row) {
            let next = step(*state, widen(*x));
            *x = narrow(if exclusive { *state } else { next });
            *state = next;
        }
    }
}

/// A scan of the same direction or the other.
fn scan(context: &GradientContext<'_>, op: &str, x: &Tensor, turned: bool) -> Result<Tensor> {
    let (exclusive, reverse): (bool, bool) = (context.attr("exclusive")?, context.attr("reverse")?);
    context
        .node(op)
        .input(x)
        .input(context.input(1))
        .attr("exclusive", exclusive)
        .attr("reverse", reverse != turned)
        .build()
}

fn sum_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = scan(context, "Cumsum", &context.gradient(0)?, true)?;
    Ok(vec![Some(gradient), None])
}

/// As TensorFlow's, not a number where an element is zero.
fn product_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let x = context.input(0);
    let products = scan(context, "Cumprod", &x, false)?;
    let weighted = nodes.mul(&products, &context.gradient(0)?)?;
    let sums = scan(context, "Cumsum", &weighted, true)?;
    Ok(vec![Some(nodes.truediv(&sums, &x)?), None])
}

/// The positive and the negative part of the incoming gradient are taken separately, each by its logarithm.
fn log_sum_exp_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (x, output, gradient) = (context.input(0), context.output(0), context.gradient(0)?);
    let lowest = match gradient.dtype() {
        DType::Half => Value::from(f16::MIN),
        DType::Float64 => Value::from(f64::MIN),
        _ => Value::from(f32::MIN),
    };
    let logarithm = |comparison: &str, x: &Tensor| {
        let positive = nodes.binary(comparison, comparison, &gradient, 0)?;
        let logarithm = nodes.unary("Log", x)?;
        nodes
            .node("SelectV2")
            .input(&positive)
            .input(&logarithm)
            .input(lowest.clone())
            .build()
    };
    let positive = logarithm("Greater", &gradient)?;
    // TensorFlow makes the comparison before the negation.
    let negative = {
        let is_negative = nodes.binary("Less", "Less", &gradient, 0)?;
        let negated = nodes.unary("Neg", &gradient)?;
        let logarithm = nodes.unary("Log", &negated)?;
        nodes
            .node("SelectV2")
            .input(&is_negative)
            .input(&logarithm)
            .input(lowest.clone())
            .build()?
    };
    let part = |logarithm: &Tensor| {
        let difference = nodes.sub(logarithm, &output)?;
        let scanned = scan(context, "CumulativeLogsumexp", &difference, true)?;
        let sum = nodes.add(&scanned, &x)?;
        nodes.unary("Exp", &sum)
    };
    let (positive, negative) = (part(&positive)?, part(&negative)?);
    Ok(vec![Some(nodes.sub(&positive, &negative)?), None])
}

typed_builder! {
    /// A scan about to be made; see [`cumsum`] and its like.
    pub struct Scan;
}

impl Scan {
    /// Leaves each element itself out, so that the first result is that of nothing.
    pub fn exclusive(self, exclusive: bool) -> Self {
        Self(self.0.attr("exclusive", exclusive))
    }

    /// Begins at the end of the axis.
    pub fn reverse(self, reverse: bool) -> Self {
        Self(self.0.attr("reverse", reverse))
    }
}

/// The sums of the elements of `x` up to each along `axis` (negative: from the end), of `x`'s shape and number type.
///
/// ```
/// use graph_ops::{array::constant, math::cumsum};
/// let sums = cumsum(constant([1.0f32, 2.0, 3.0]), 0).exclusive(true).build()?; // 0, 1, 3
/// assert_eq!(sums.shape(), [3].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` if there is no such axis.
#[track_caller]
pub fn cumsum(x: impl IntoOperand, axis: impl IntoOperand) -> Scan {
    Scan(crate::op("Cumsum").input(x).input(axis))
}

/// The products of the elements of `x` up to each along `axis`; see [`cumsum`].
#[track_caller]
pub fn cumprod(x: impl IntoOperand, axis: impl IntoOperand) -> Scan {
    Scan(crate::op("Cumprod").input(x).input(axis))
}

/// The logarithms of the sums of the exponentials of the elements of `x` up to each along `axis`, of floating-point
/// tensors; see [`cumsum`].
#[track_caller]
pub fn cumulative_logsumexp(x: impl IntoOperand, axis: impl IntoOperand) -> Scan {
    Scan(crate::op("CumulativeLogsumexp").input(x).input(axis))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let x = [[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let scan = |op: &'static str, axis: i32, exclusive: bool, reverse: bool| {
        Case::new(op)
            .attr("exclusive", exclusive)
            .attr("reverse", reverse)
            .input(x)
            .input(axis)
    };
    let mut cases = vec![
        scan("Cumsum", 0, false, false).expect([[1.0f32, 2.0, 3.0], [5.0, 7.0, 9.0]]),
        scan("Cumsum", 1, false, false).expect([[1.0f32, 3.0, 6.0], [4.0, 9.0, 15.0]]),
        scan("Cumsum", -1, true, false).expect([[0.0f32, 1.0, 3.0], [0.0, 4.0, 9.0]]),
        scan("Cumsum", 1, false, true).expect([[6.0f32, 5.0, 3.0], [15.0, 11.0, 6.0]]),
        scan("Cumsum", 1, true, true).expect([[5.0f32, 3.0, 0.0], [11.0, 6.0, 0.0]]),
        scan("Cumprod", 1, false, false).expect([[1.0f32, 2.0, 6.0], [4.0, 20.0, 120.0]]),
        scan("Cumprod", 0, true, true).expect([[4.0f32, 5.0, 6.0], [1.0, 1.0, 1.0]]),
        Case::new("Cumsum")
            .input([i32::MAX, 1])
            .input(0i64)
            .expect([i32::MAX, i32::MIN]),
        Case::new("Cumsum").input([200u8, 100]).input(0i32).expect([200u8, 44]),
        Case::new("Cumsum")
            .input(Value::from_vec::<f32>([2, 0, 3], vec![]).expect("no elements"))
            .input(1i32)
            .expect(Value::from_vec::<f32>([2, 0, 3], vec![]).expect("no elements")),
        Case::new("CumulativeLogsumexp")
            .input([0.0f64, 0.0, f64::ln(2.0)])
            .input(0i32)
            .expect([0.0f64, f64::ln(2.0), f64::ln(4.0)]),
        Case::new("CumulativeLogsumexp")
            .attr("reverse", true)
            .input([f16::ZERO, f16::ZERO])
            .input(0i32)
            .expect([f16::from_f64(f64::ln(2.0)), f16::ZERO]),
        Case::new("CumulativeLogsumexp")
            .attr("exclusive", true)
            .input([1.0f32, 2.0])
            .input(0i32)
            .expect([f32::MIN, 1.0]),
    ];
    for &dtype in DType::NUMBERS
        .iter()
        .filter(|dtype| dtype.size().is_some() && !dtype.name().starts_with('q'))
    {
        let numbers = |list: [i64; 3]| {
            let numbers = Value::from(list).cast_exactly(dtype);
            numbers.expect("small whole numbers")
        };
        cases.push(
            Case::new("Cumsum")
                .input(numbers([1, 2, 3]))
                .input(0i32)
                .expect(numbers([1, 3, 6])),
        );
        cases.push(
            Case::new("Cumprod")
                .input(numbers([2, 2, 3]))
                .input(-1i32)
                .expect(numbers([2, 4, 12])),
        );
    }
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let x = Value::from_vec(
        [2, 3, 2],
        (1..13).map(|i| f64::from(i * 5 % 7) / 4.0 + 0.25).collect::<Vec<_>>(),
    );
    let x = x.expect("twelve elements");
    let mut cases = Vec::new();
    for op in ["Cumsum", "Cumprod", "CumulativeLogsumexp"] {
        for (flags, axis) in [(0u8, 0i32), (1, 1), (2, -1), (3, 1)] {
            // The logarithm of an empty sum, with which an exclusive scan begins, is -inf and has no differences.
            if op == "CumulativeLogsumexp" && flags & 1 != 0 {
                continue;
            }
            let case = GradientCase::new(op)
                .attr("exclusive", flags & 1 != 0)
                .attr("reverse", flags & 2 != 0)
                .input(x.clone())
                .input(axis);
            cases.push(case);
        }
    }
    cases
}

#[cfg(test)]
mod tests;
