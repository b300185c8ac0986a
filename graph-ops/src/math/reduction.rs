//! Reductions: `Sum`, `Mean`, `Prod`, `Min`, `Max`, `All`, `Any`, `EuclideanNorm`.

use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, DType, Element, Error, PartialShape, Result};
use half::{bf16, f16};

use crate::cpu::broadcast::map_unary;
use crate::cpu::element::Real;
use crate::cpu::reduce::{self, Reduction, reduce};
use crate::cpu::scratch::{Plain, with_scratch};
use crate::cuda::elementwise::{greatest, least};
use crate::cuda::{self, NUMBERS};

mod builders;
mod euclidean;
mod gradients;
#[cfg(test)]
mod tests;

pub use builders::{
    CountNonzero, Reduce, ReduceLogSumExp, count_nonzero, reduce_all, reduce_any, reduce_euclidean_norm,
    reduce_logsumexp, reduce_max, reduce_mean, reduce_min, reduce_prod, reduce_sum,
};
use euclidean::EuclideanNorm;
#[cfg(test)]
pub(crate) use tests::{cases, gradient_cases};

/// A reduction's definition without its kernels.
fn base(name: &'static str, summary: &'static str, types: &'static str) -> OpDefinition {
    let definition = OpDefinition::new(name, summary);
    let definition = if types.is_empty() {
        definition
            .input("input: bool")
            .input("reduction_indices: Tidx")
            .output("output: bool")
    } else {
        definition
            .input("input: T")
            .input("reduction_indices: Tidx")
            .output("output: T")
    };
    let definition = definition.attr("keep_dims: bool = false");
    let definition = if types.is_empty() {
        definition
    } else {
        definition.attr(types)
    };
    definition
        .attr("Tidx: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[1])
        .may_fail_early()
        .shape(shape)
}

/// A kernel for each dtype: its element type and the function that makes it.
macro_rules! kernels {
    ($definition:expr; $($dtype:ident: $make:expr;)*) => {
        $definition $(.kernel(KernelDefinition::cpu($make).types("T", &[DType::$dtype])))*
    };
}

/// An integer sum by a count of the same type, which may have wrapped to zero.
macro_rules! mean_of {
    ($sum:expr, $count:expr) => {
        ($sum).checked_div($count).unwrap_or_default()
    };
}

/// `Sum`
pub(crate) fn sum() -> OpDefinition {
    let definition = kernels! {
        base("Sum", "The sum of the elements along axes.", "T: numbertype").gradient(gradients::sum);
        Float32: |r| kernel(r, reduce::Sum::<f32>::new());
        Float64: |r| kernel(r, reduce::Sum::<f64>::new());
        Half: |r| through(r, reduce::Sum::<f32>::new(), f16::widen, |x, _| f16::narrow(x));
        BFloat16: |r| through(r, reduce::Sum::<f32>::new(), bf16::widen, |x, _| bf16::narrow(x));
        Complex64: |r| kernel(r, euclidean::ComplexSum::<f32>::new());
        Complex128: |r| kernel(r, euclidean::ComplexSum::<f64>::new());
        Int32: |r| kernel(r, reduce::IntSum::<i32>::new());
        Int64: |r| kernel(r, reduce::IntSum::<i64>::new());
        Int8: |r| through(r, reduce::IntSum::<i32>::new(), i32::from, |x, _| x as i8);
        Int16: |r| through(r, reduce::IntSum::<i32>::new(), i32::from, |x, _| x as i16);
        UInt8: |r| through(r, reduce::IntSum::<i32>::new(), i32::from, |x, _| x as u8);
        UInt16: |r| through(r, reduce::IntSum::<i32>::new(), i32::from, |x, _| x as u16);
        UInt32: |r| through(r, reduce::IntSum::<i32>::new(), |x: u32| x as i32, |x, _| x as u32);
        UInt64: |r| through(r, reduce::IntSum::<i64>::new(), |x: u64| x as i64, |x, _| x as u64);
    };
    definition.kernel(KernelDefinition::cuda(|r| on_device(r, None, ["Add", "0", "x", "total"])).types("T", NUMBERS))
}

/// `Prod`
pub(crate) fn prod() -> OpDefinition {
    let definition = kernels! {
        base("Prod", "The product of the elements along axes.", "T: numbertype").gradient(gradients::prod);
        Float32: |r| kernel(r, reduce::Prod::<f32>::new());
        Float64: |r| kernel(r, reduce::Prod::<f64>::new());
        Half: |r| through(r, reduce::Prod::<f32>::new(), f16::widen, |x, _| f16::narrow(x));
        BFloat16: |r| through(r, reduce::Prod::<f32>::new(), bf16::widen, |x, _| bf16::narrow(x));
        Complex64: |r| kernel(r, euclidean::ComplexProd::<f32>::new());
        Complex128: |r| kernel(r, euclidean::ComplexProd::<f64>::new());
        Int32: |r| kernel(r, reduce::IntProd::<i32>::new());
        Int64: |r| kernel(r, reduce::IntProd::<i64>::new());
        Int8: |r| through(r, reduce::IntProd::<i32>::new(), i32::from, |x, _| x as i8);
        Int16: |r| through(r, reduce::IntProd::<i32>::new(), i32::from, |x, _| x as i16);
        UInt8: |r| through(r, reduce::IntProd::<i32>::new(), i32::from, |x, _| x as u8);
        UInt16: |r| through(r, reduce::IntProd::<i32>::new(), i32::from, |x, _| x as u16);
        UInt32: |r| through(r, reduce::IntProd::<i32>::new(), |x: u32| x as i32, |x, _| x as u32);
        UInt64: |r| through(r, reduce::IntProd::<i64>::new(), |x: u64| x as i64, |x, _| x as u64);
    };
    definition
        .kernel(KernelDefinition::cuda(|r| on_device(r, None, ["Multiply", "1", "x", "total"])).types("T", NUMBERS))
}

/// `Mean`
pub(crate) fn mean() -> OpDefinition {
    let definition = kernels! {
        base(
            "Mean",
            "The mean of the elements along axes; of integers cut towards zero, of no floating-point numbers not a number.",
            "T: numbertype",
        )
        .gradient(gradients::mean);
        Float32: |r| kernel(r, reduce::Mean::<f32>::new());
        Float64: |r| kernel(r, reduce::Mean::<f64>::new());
        Half: |r| through(r, reduce::Mean::<f32>::new(), f16::widen, |x, _| f16::narrow(x));
        BFloat16: |r| through(r, reduce::Mean::<f32>::new(), bf16::widen, |x, _| bf16::narrow(x));
        Complex64: |r| kernel(r, euclidean::ComplexMean::<f32>::new());
        Complex128: |r| kernel(r, euclidean::ComplexMean::<f64>::new());
        Int32: |r| through(r, reduce::IntSum::<i64>::new(), i64::from, |x, n| mean_of!(x as i32, n as i32));
        Int64: |r| kernel(r, reduce::IntMean::<i64>::new());
        Int8: |r| through(r, reduce::IntSum::<i32>::new(), i32::from, |x, n| mean_of!(x as i8, n as i8));
        Int16: |r| through(r, reduce::IntSum::<i32>::new(), i32::from, |x, n| mean_of!(x as i16, n as i16));
        UInt8: |r| through(r, reduce::IntSum::<i32>::new(), i32::from, |x, n| mean_of!(x as u8, n as u8));
        UInt16: |r| through(r, reduce::IntSum::<i32>::new(), i32::from, |x, n| mean_of!(x as u16, n as u16));
        UInt32: |r| through(r, reduce::IntSum::<i32>::new(), |x: u32| x as i32, |x, n| mean_of!(x as u32, n as u32));
        UInt64: |r| through(r, reduce::IntSum::<i64>::new(), |x: u64| x as i64, |x, n| mean_of!(x as u64, n as u64));
    };
    definition.kernel(
        KernelDefinition::cuda(|r| on_device(r, None, ["Add", "0", "x", "total / A(count)"])).types("T", cuda::FLOATS),
    )
}

/// A kernel on a device: the accumulator's type unless it is the usual one, the operation, the result of no elements, what is
/// taken of the element `x`, and the result of the total `total` of `count` elements.
fn on_device(
    request: &KernelRequest<'_>,
    accumulator: Option<&str>,
    [operation, first, map, finish]: [&str; 4],
) -> Result<Planned> {
    let (_, reduced) = plan(request)?;
    let accumulator = match accumulator {
        Some(accumulator) => accumulator,
        None => cuda::reduce::accumulator(request.input_dtype(0))?,
    };
    let reduction = cuda::reduce::Reduction {
        accumulator,
        operation,
        first,
        map,
        finish,
    };
    cuda::reduce::reduce(request, &reduced, &reduction)
}

/// A type list shared by `Min` and `Max`.
const ORDERED: &str = "T: realnumbertype";

/// `Min`
pub(crate) fn min() -> OpDefinition {
    let definition = kernels! {
        base("Min", "The least of the elements along axes; of none, infinity.", ORDERED).gradient(gradients::min_or_max);
        Float32: |r| kernel(r, reduce::Min::<f32>::new());
        Float64: |r| kernel(r, reduce::Min::<f64>::new());
        Half: |r| through(r, reduce::Min::<f32>::new(), f16::widen, |x, _| f16::narrow(x));
        BFloat16: |r| through(r, reduce::Min::<f32>::new(), bf16::widen, |x, _| bf16::narrow(x));
        Int32: |r| kernel(r, reduce::Min::<i32>::new());
        Int64: |r| kernel(r, reduce::Min::<i64>::new());
        Int8: |r| through(r, reduce::Min::<i32>::new(), i32::from, |x, _| x.clamp(i8::MIN.into(), i8::MAX.into()) as i8);
        Int16: |r| through(r, reduce::Min::<i32>::new(), i32::from, |x, _| x.clamp(i16::MIN.into(), i16::MAX.into()) as i16);
        UInt8: |r| through(r, reduce::Min::<i32>::new(), i32::from, |x, _| x.clamp(u8::MIN.into(), u8::MAX.into()) as u8);
        UInt16: |r| through(r, reduce::Min::<i32>::new(), i32::from, |x, _| x.clamp(u16::MIN.into(), u16::MAX.into()) as u16);
        UInt32: |r| through(r, reduce::Min::<i64>::new(), i64::from, |x, _| x.clamp(u32::MIN.into(), u32::MAX.into()) as u32);
        UInt64: |r| kernel(r, reduce::Min::<u64>::new());
    };
    definition.kernel(
        KernelDefinition::cuda(|r| on_device(r, None, ["Minimum", greatest(r.input_dtype(0)), "x", "total"]))
            .types("T", NUMBERS),
    )
}

/// `Max`
pub(crate) fn max() -> OpDefinition {
    let definition = kernels! {
        base("Max", "The greatest of the elements along axes; of none, minus infinity.", ORDERED)
            .gradient(gradients::min_or_max);
        Float32: |r| kernel(r, reduce::Max::<f32>::new());
        Float64: |r| kernel(r, reduce::Max::<f64>::new());
        Half: |r| through(r, reduce::Max::<f32>::new(), f16::widen, |x, _| f16::narrow(x));
        BFloat16: |r| through(r, reduce::Max::<f32>::new(), bf16::widen, |x, _| bf16::narrow(x));
        Int32: |r| kernel(r, reduce::Max::<i32>::new());
        Int64: |r| kernel(r, reduce::Max::<i64>::new());
        Int8: |r| through(r, reduce::Max::<i32>::new(), i32::from, |x, _| x.clamp(i8::MIN.into(), i8::MAX.into()) as i8);
        Int16: |r| through(r, reduce::Max::<i32>::new(), i32::from, |x, _| x.clamp(i16::MIN.into(), i16::MAX.into()) as i16);
        UInt8: |r| through(r, reduce::Max::<i32>::new(), i32::from, |x, _| x.clamp(u8::MIN.into(), u8::MAX.into()) as u8);
        UInt16: |r| through(r, reduce::Max::<i32>::new(), i32::from, |x, _| x.clamp(u16::MIN.into(), u16::MAX.into()) as u16);
        UInt32: |r| through(r, reduce::Max::<i64>::new(), i64::from, |x, _| x.clamp(u32::MIN.into(), u32::MAX.into()) as u32);
        UInt64: |r| kernel(r, reduce::Max::<u64>::new());
    };
    definition.kernel(
        KernelDefinition::cuda(|r| on_device(r, None, ["Maximum", least(r.input_dtype(0)), "x", "total"]))
            .types("T", NUMBERS),
    )
}

/// `All`
pub(crate) fn all() -> OpDefinition {
    base("All", "Whether all elements along axes are true; of none, true.", "")
        .not_differentiable()
        .kernel(KernelDefinition::cpu(|request| kernel(request, reduce::All)))
        .kernel(KernelDefinition::cuda(|r| {
            on_device(r, None, ["LogicalAnd", "1", "x", "total != 0"])
        }))
}

/// `Any`
pub(crate) fn any() -> OpDefinition {
    base("Any", "Whether any element along axes is true; of none, false.", "")
        .not_differentiable()
        .kernel(KernelDefinition::cpu(|request| kernel(request, reduce::Any)))
        .kernel(KernelDefinition::cuda(|r| {
            on_device(r, None, ["LogicalOr", "0", "x", "total != 0"])
        }))
}

/// `EuclideanNorm`
pub(crate) fn euclidean_norm() -> OpDefinition {
    let definition = kernels! {
        base("EuclideanNorm", "The square root of the sum of the squared magnitudes along axes.", "T: numbertype")
            .gradient(gradients::euclidean_norm);
        Float32: |r| kernel(r, EuclideanNorm::<f32>::new());
        Float64: |r| kernel(r, EuclideanNorm::<f64>::new());
        Half: |r| through(r, EuclideanNorm::<f32>::new(), f16::widen, |x, _| f16::narrow(x));
        BFloat16: |r| through(r, EuclideanNorm::<f32>::new(), bf16::widen, |x, _| bf16::narrow(x));
        Complex64: |r| kernel(r, EuclideanNorm::<Complex<f32>>::new());
        Complex128: |r| kernel(r, EuclideanNorm::<Complex<f64>>::new());
        Int32: |r| through(r, EuclideanNorm::<f64>::new(), f64::from, |x, _| x as i32);
        Int64: |r| through(r, EuclideanNorm::<f64>::new(), |x| x as f64, |x, _| x as i64);
    };
    definition.kernel(
        KernelDefinition::cuda(|r| on_device(r, None, ["Add", "0", "x * x", "sqrt(total)"])).types("T", cuda::FLOATS),
    )
}

/// Which of `rank` axes `axes` name; negative ones count from the end.
///
/// # Errors
/// `InvalidArgument` if one is outside of the rank, or (if `unique`) named twice.
pub(crate) fn reduced_axes(axes: &[i64], rank: usize, unique: bool) -> Result<Vec<bool>> {
    let mut reduced = vec![false; rank];
    for &axis in axes {
        let index = if axis < 0 { axis + rank as i64 } else { axis };
        let slot = usize::try_from(index).ok().and_then(|index| reduced.get_mut(index));
        let Some(slot) = slot else {
            return Err(Error::invalid_argument(format!("invalid reduction dimension {axis}"))
                .expected(format!("an axis of rank {rank}, in [-{rank}, {rank})"))
                .got(axis));
        };
        if unique && *slot {
            return Err(Error::invalid_argument(format!(
                "invalid reduction arguments: axis {axis} is named twice"
            )));
        }
        *slot = true;
    }
    Ok(reduced)
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    context.with_rank_at_most(1, 1)?;
    let keep_dims: bool = context.attr("keep_dims")?;
    let input = context.input(0);
    let output = match (input.dims(), context.int_values(1)?) {
        (Some(dims), Some(axes)) => {
            let reduced = reduced_axes(&axes, dims.len(), false)?;
            let dims = dims.iter().zip(&reduced);
            if keep_dims {
                PartialShape::from_dims(dims.map(|(&dim, &reduced)| if reduced { Some(1) } else { dim }))
            } else {
                PartialShape::from_dims(dims.filter(|(_, reduced)| !**reduced).map(|(&dim, _)| dim))
            }
        }
        (Some(dims), None) if keep_dims => PartialShape::unknown_of_rank(dims.len()),
        _ => PartialShape::unknown(),
    };
    context.set_output(0, output);
    Ok(())
}

/// The input's shape and which of its axes are reduced.
fn plan(request: &KernelRequest<'_>) -> Result<(Vec<usize>, Vec<bool>)> {
    let shape = request.input_shape(0).to_vec();
    let axes = request.value(1)?.to_i64_vec()?;
    let reduced = reduced_axes(&axes, shape.len(), true)?;
    Ok((shape, reduced))
}

fn kernel<R>(request: &KernelRequest<'_>, reduction: R) -> Result<Planned>
where
    R: Reduction + 'static,
    R::In: Element,
    R::Out: Element,
{
    let (shape, reduced) = plan(request)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let input = context.input::<R::In>(0)?;
        reduce(reduction, input, &shape, &reduced, context.output::<R::Out>(0)?);
        Ok(())
    }))
}

/// A reduction in a wider type, so that fewer kernels must be compiled: half types in `float`, the rarer integers in
/// `int32` or `int64`, whose low bits are what wrapping arithmetic of fewer bits gives. `narrow` gets the number of reduced elements.
fn through<T, R>(
    request: &KernelRequest<'_>,
    reduction: R,
    widen: impl Fn(T) -> R::In + Send + Sync + 'static,
    narrow: fn(R::Out, usize) -> T,
) -> Result<Planned>
where
    T: Element,
    R: Reduction<Out = <R as Reduction>::In> + 'static,
    R::In: Plain + Send,
{
    let (shape, reduced) = plan(request)?;
    let count = shape
        .iter()
        .zip(&reduced)
        .filter(|axis| *axis.1)
        .map(|axis| axis.0)
        .product();
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (input, output) = (context.input::<T>(0)?, context.output::<T>(0)?);
        with_scratch(input.len() + output.len(), |wide: &mut [R::In]| {
            let (wide_input, wide_output) = wide.split_at_mut(input.len());
            map_unary(input, wide_input, &widen);
            reduce(reduction, wide_input, &shape, &reduced, wide_output);
            output
                .iter_mut()
                .zip(&*wide_output)
                .for_each(|(x, &wide)| *x = narrow(wide, count));
        });
        Ok(())
    }))
}
