//! `Range` and `LinSpace`: sequences of numbers.

use std::panic::Location;

use graph_core::graph::{IntoOperand, Operand, Tensor, scope};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Graph, PartialShape, Result, Value, typed_builder};
use half::{bf16, f16};

use super::nodes::Nodes;

/// The numbers that sequences are made of.
trait Number: Element {
    /// How many numbers there are from `start` up to but not including `limit` in steps of `delta`.
    fn count(start: Self, limit: Self, delta: Self) -> Result<usize>;
    /// The numbers, each the one before it and a step, as TensorFlow adds them.
    fn fill(start: Self, delta: Self, output: &mut [Self]);
}

fn wrong_direction(start: impl std::fmt::Display, limit: impl std::fmt::Display, up: bool) -> Error {
    let expected = if up {
        "start <= limit where delta > 0"
    } else {
        "start >= limit where delta < 0"
    };
    Error::invalid_argument("the sequence runs away from its limit")
        .expected(expected)
        .got(format!("start {start}, limit {limit}"))
}

fn no_step() -> Error {
    Error::invalid_argument("the step of a sequence is zero").expected("delta != 0")
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn count(start: Self, limit: Self, delta: Self) -> Result<usize> {
                let (start, limit, delta) = (i128::from(start), i128::from(limit), i128::from(delta));
                match delta {
                    0 => Err(no_step()),
                    1.. if start > limit => Err(wrong_direction(start, limit, true)),
                    ..0 if start < limit => Err(wrong_direction(start, limit, false)),
                    _ => usize::try_from((limit - start).unsigned_abs().div_ceil(delta.unsigned_abs()))
                        .map_err(|_| Error::invalid_argument("the sequence is too long")),
                }
            }
            fn fill(start: Self, delta: Self, output: &mut [Self]) {
                let mut number = start;
                for slot in output {
                    *slot = number;
                    number = number.wrapping_add(delta);
                }
            }
        }
    )*};
}
integers!(i32, i64);

macro_rules! floats {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn count(start: Self, limit: Self, delta: Self) -> Result<usize> {
                // In the numbers' own precision, which decides whether the last one still fits.
                let count = f64::from((limit - start) / delta).abs().ceil();
                let (start, limit, delta) = (f64::from(start), f64::from(limit), f64::from(delta));
                if delta == 0.0 {
                    return Err(no_step());
                }
                if delta > 0.0 && start > limit || delta < 0.0 && start < limit {
                    return Err(wrong_direction(start, limit, delta > 0.0));
                }
                if count.is_nan() || count > isize::MAX as f64 {
                    return Err(Error::invalid_argument("the sequence has no end").got(format!(
                        "start {start}, limit {limit}, delta {delta}"
                    )));
                }
                Ok(count as usize)
            }
            fn fill(start: Self, delta: Self, output: &mut [Self]) {
                let mut number = start;
                for slot in output {
                    *slot = number;
                    number += delta;
                }
            }
        }
    )*};
}
floats!(f32, f64, f16, bf16);

/// `Range`
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "Range",
        "The numbers from start up to but not including limit, in steps of delta.",
    )
    .input("start: Tidx")
    .input("limit: Tidx")
    .input("delta: Tidx")
    .output("output: Tidx")
    .attr("Tidx: {bfloat16, half, float, double, int32, int64} = DT_INT32")
    .plan_time_inputs(&[0, 1, 2])
    .may_fail()
    .shape(range_shape)
    .not_differentiable()
    .kernel(KernelDefinition::cpu(range_kernel::<i32>).types("Tidx", &[DType::Int32]))
    .kernel(KernelDefinition::cpu(range_kernel::<i64>).types("Tidx", &[DType::Int64]))
    .kernel(KernelDefinition::cpu(range_kernel::<f32>).types("Tidx", &[DType::Float32]))
    .kernel(KernelDefinition::cpu(range_kernel::<f64>).types("Tidx", &[DType::Float64]))
    .kernel(KernelDefinition::cpu(range_kernel::<f16>).types("Tidx", &[DType::Half]))
    .kernel(KernelDefinition::cpu(range_kernel::<bf16>).types("Tidx", &[DType::BFloat16]))
}

fn count_of<T: Number>(values: &[Value; 3]) -> Result<usize> {
    T::count(values[0].to_scalar()?, values[1].to_scalar()?, values[2].to_scalar()?)
}

fn range_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    for input in 0..3 {
        context.with_rank(input, 0)?;
    }
    let count = match (context.value(0), context.value(1), context.value(2)) {
        (Some(start), Some(limit), Some(delta)) => {
            let values = [start, limit, delta];
            Some(match context.input_dtype(0) {
                DType::Int32 => count_of::<i32>(&values)?,
                DType::Int64 => count_of::<i64>(&values)?,
                DType::Float32 => count_of::<f32>(&values)?,
                DType::Half => count_of::<f16>(&values)?,
                DType::BFloat16 => count_of::<bf16>(&values)?,
                _ => count_of::<f64>(&values)?,
            })
        }
        _ => None,
    };
    context.set_output(0, PartialShape::from([count]));
    Ok(())
}

fn range_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (start, delta): (T, T) = (request.value(0)?.to_scalar()?, request.value(2)?.to_scalar()?);
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        T::fill(start, delta, context.output::<T>(0)?);
        Ok(())
    }))
}

/// `LinSpace`
pub(crate) fn lin_space() -> OpDefinition {
    OpDefinition::new("LinSpace", "Evenly spaced numbers from start to stop, both included.")
        .input("start: T")
        .input("stop: T")
        .input("num: Tidx")
        .output("output: T")
        .attr("T: {bfloat16, float, double}")
        .attr("Tidx: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[2])
        .may_fail()
        .shape(space_shape)
        .not_differentiable()
        .kernel(
            KernelDefinition::cpu(|request| space_kernel(request, |x: f32| x.into(), |x| x as f32))
                .types("T", &[DType::Float32]),
        )
        .kernel(KernelDefinition::cpu(|request| space_kernel(request, |x: f64| x, |x| x)).types("T", &[DType::Float64]))
        .kernel(
            KernelDefinition::cpu(|request| space_kernel(request, bf16::to_f64, bf16::from_f64))
                .types("T", &[DType::BFloat16]),
        )
}

fn space_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    for (input, name) in ["start", "stop", "num"].iter().enumerate() {
        context
            .with_rank(input, 0)
            .map_err(|error| error.context(format!("reading {name}")))?;
    }
    let count = match context.int_values(2)? {
        Some(count) if count[0] <= 0 => {
            return Err(Error::invalid_argument("a sequence needs at least one number")
                .expected("num > 0")
                .got(count[0]));
        }
        Some(count) => Some(count[0] as usize),
        None => None,
    };
    context.set_output(0, PartialShape::from([count]));
    Ok(())
}

/// Each number is computed from both ends in its own precision, the last is `stop` itself.
fn space_kernel<T: Element>(_: &KernelRequest<'_>, widen: fn(T) -> f64, narrow: fn(f64) -> T) -> Result<Planned> {
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (start, stop) = (context.input::<T>(0)?[0], context.input::<T>(1)?[0]);
        let output = context.output::<T>(0)?;
        let last = output.len() - 1;
        let step = if last == 0 {
            0.0
        } else {
            (widen(stop) - widen(start)) / last as f64
        };
        for (index, slot) in output.iter_mut().enumerate() {
            *slot = narrow(widen(start) + step * index as f64);
        }
        if last > 0 {
            output[last] = stop;
        }
        Ok(())
    }))
}

typed_builder! {
    /// Evenly spaced numbers about to be made; see [`lin_space()`](linspace).
    pub struct LinSpace;
}

/// `num` evenly spaced numbers from `start` to `stop`, both included.
///
/// # Errors
/// `InvalidArgument` if `num` is not positive.
#[track_caller]
pub fn linspace(start: impl IntoOperand, stop: impl IntoOperand, num: impl IntoOperand) -> LinSpace {
    LinSpace(crate::op("LinSpace").input(start).input(stop).input(num))
}

/// A sequence about to be made; see [`range`].
#[must_use = "an operation is made by `build`"]
pub struct Range {
    bounds: [Operand; 3],
    dtype: Option<DType>,
    name: Option<String>,
    location: &'static Location<'static>,
}

/// The numbers from `start` up to but not including `limit`, in steps of 1 or another [`delta`](Range::delta). Numbers of
/// different types become the widest of `int32`, `int64`, `float` and `double` among them.
///
/// ```
/// use graph_ops::math::range;
/// assert_eq!(range(3, 18).delta(3).build()?.shape(), [5].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` if the step is zero or leads away from `limit`.
#[track_caller]
pub fn range(start: impl IntoOperand, limit: impl IntoOperand) -> Range {
    crate::install();
    Range {
        bounds: [start.into_operand(), limit.into_operand(), 1i32.into_operand()],
        dtype: None,
        name: None,
        location: Location::caller(),
    }
}

impl Range {
    /// The step; 1 without.
    pub fn delta(mut self, delta: impl IntoOperand) -> Self {
        self.bounds[2] = delta.into_operand();
        self
    }

    /// The dtype of the numbers; without, that of the bounds.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// Names the operation; `range` without.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` if the step is zero or leads away from the limit.
    pub fn build(self) -> Result<Tensor> {
        const ORDER: [DType; 4] = [DType::Int32, DType::Int64, DType::Float32, DType::Float64];
        let graph = self
            .bounds
            .iter()
            .find_map(Operand::graph)
            .cloned()
            .unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("range"))?;
        let mut bounds = Vec::with_capacity(3);
        for (operand, name) in self.bounds.iter().zip(["start", "limit", "delta"]) {
            bounds.push(operand.to_tensor(&graph, name, self.dtype)?);
        }
        let order = |tensor: &Tensor| ORDER.iter().position(|&dtype| dtype == tensor.dtype());
        if self.dtype.is_none()
            && let Some(widest) = bounds.iter().filter_map(order).max()
        {
            for bound in &mut bounds {
                *bound = nodes.cast(bound, ORDER[widest])?;
            }
        }
        let node = nodes
            .node("Range")
            .input(&bounds[0])
            .input(&bounds[1])
            .input(&bounds[2]);
        node.name(scope.scope_name()).build()
    }
}

impl IntoOperand for Range {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let range = |start: Value, limit: Value, delta: Value| Case::new("Range").input(start).input(limit).input(delta);
    let half = |x: f32| Value::from(f16::from_f32(x));
    let brain = |x: f32| Value::from(bf16::from_f32(x));
    vec![
        range(3i32.into(), 18i32.into(), 3i32.into()).expect([3i32, 6, 9, 12, 15]),
        range(3i64.into(), 1i64.into(), (-1i64).into()).expect([3i64, 2]),
        range(0i32.into(), 0i32.into(), 1i32.into()).expect(Vec::<i32>::new()),
        range(0.0f32.into(), 1.0f32.into(), 0.3f32.into()).expect([0.0f32, 0.3, 0.6, 0.9]),
        range(5.0f64.into(), 4.0f64.into(), (-0.5f64).into()).expect([5.0f64, 4.5]),
        range(half(0.0), half(1.5), half(0.5)).expect([0.0f32, 0.5, 1.0].map(f16::from_f32)),
        range(brain(1.0), brain(3.0), brain(1.0)).expect([1.0f32, 2.0].map(bf16::from_f32)),
        Case::new("LinSpace")
            .input(10.0f32)
            .input(12.0f32)
            .input(3i32)
            .expect([10.0f32, 11.0, 12.0]),
        Case::new("LinSpace")
            .input(1.0f64)
            .input(0.0f64)
            .input(5i64)
            .expect([1.0f64, 0.75, 0.5, 0.25, 0.0]),
        Case::new("LinSpace")
            .input(2.0f32)
            .input(7.0f32)
            .input(1i32)
            .expect([2.0f32]),
        Case::new("LinSpace")
            .input(bf16::ZERO)
            .input(bf16::ONE)
            .input(2i32)
            .expect([bf16::ZERO, bf16::ONE]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;

    #[test]
    fn sequences_without_end_are_errors() {
        for (start, limit, delta) in [(0i32, 5i32, 0i32), (5, 0, 1), (0, 5, -1)] {
            let error = Case::new("Range")
                .input(start)
                .input(limit)
                .input(delta)
                .run()
                .unwrap_err();
            assert_eq!(error.class(), "InvalidArgument");
        }
        let error = Case::new("Range")
            .input(0.0f32)
            .input(f32::INFINITY)
            .input(1.0f32)
            .run()
            .unwrap_err();
        assert_eq!(error.class(), "InvalidArgument");
        let error = Case::new("LinSpace")
            .input(0.0f32)
            .input(1.0f32)
            .input(0i32)
            .run()
            .unwrap_err();
        assert_eq!(error.class(), "InvalidArgument");
    }

    #[test]
    fn bounds_are_named_and_widened() {
        let graph = Graph::new();
        let _default = graph.as_default();
        assert_eq!(range(0, 5).build().unwrap().dtype(), DType::Int32);
        assert_eq!(range(0, 5).dtype(DType::Int64).build().unwrap().dtype(), DType::Int64);
        for name in ["range/start", "range/limit", "range/delta", "range_1"] {
            assert!(graph.operation(name).is_ok(), "{name}");
        }
    }
}
