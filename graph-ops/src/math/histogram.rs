//! `HistogramFixedWidth`: how many numbers fall into each of several bins of equal width.

use graph_core::graph::IntoOperand;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, typed_builder};
use graph_cuda::{Cuda, Source, arguments, source};

use crate::cuda::type_name;

/// `HistogramFixedWidth`
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "HistogramFixedWidth",
        "How many values fall into each of nbins bins of equal width over a range; those outside count in the outer bins.",
    )
    .input("values: T")
    .input("value_range: T")
    .input("nbins: int32")
    .output("out: dtype")
    .attr("T: {int32, int64, float, double}")
    .attr("dtype: {int32, int64} = DT_INT32")
    .may_fail()
    .plan_time_inputs(&[2])
    .shape(shape)
    .not_differentiable()
    .kernel(KernelDefinition::cuda(on_device).types("T", HISTOGRAM_TYPES))
    .kernel(KernelDefinition::cpu(|request| kernel::<i32>(request, |x| x.into())).types("T", &[DType::Int32]))
    .kernel(KernelDefinition::cpu(|request| kernel::<i64>(request, |x| x as f64)).types("T", &[DType::Int64]))
    .kernel(KernelDefinition::cpu(|request| kernel::<f32>(request, |x| x.into())).types("T", &[DType::Float32]))
    .kernel(KernelDefinition::cpu(|request| kernel::<f64>(request, |x| x)).types("T", &[DType::Float64]))
}

const HISTOGRAM_TYPES: &[DType] = &[DType::Float32, DType::Float64, DType::Int32, DType::Int64];

/// On a device, where a range that is none is not an error.
fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    const SOURCE: Source = source!("histogram.cu");
    let count = bins(request.value(2)?.to_i64_vec()?.first().copied().unwrap_or(0))?;
    // Atomic additions are of unsigned numbers.
    let counter = if request.output_dtype(0) == DType::Int64 {
        "u64"
    } else {
        "u32"
    };
    let defines = [("T", type_name(request.input_dtype(0))?), ("O", counter)];
    let cuda = Cuda::of(request)?;
    let (clear, add) = (
        cuda.function(&SOURCE, "clear", &defines)?
            .moving(request.output_bytes()),
        cuda.function(&SOURCE, "count", &defines)?,
    );
    let n = request.input_shape(0).num_elements();
    Ok(Planned::new(move |context| {
        let (values, range) = (context.input_address(0), context.input_address(1));
        let counts = context.output_address(0);
        // SAFETY: these are the kernels' parameters: `n` values, a range of two numbers, a count for each bin.
        unsafe {
            clear.launch_over(count, arguments![counts, count as i64])?;
            add.launch_over(n, arguments![counts, values, range, n as i64, count as i64])
        }
    }))
}

fn bins(nbins: i64) -> Result<usize> {
    usize::try_from(nbins)
        .ok()
        .filter(|&bins| bins > 0)
        .ok_or_else(|| Error::invalid_argument("nbins should be a positive number").got(nbins))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let range = context.with_rank(1, 1)?;
    context.merge_dims(Some(2), range.dim(0), "two and the elements of value_range")?;
    context.with_rank(2, 0)?;
    let count = match context.int_values(2)?.as_deref() {
        Some(&[count]) => Some(bins(count)?),
        _ => None,
    };
    context.set_output(0, PartialShape::from([count]));
    Ok(())
}

fn kernel<T: Element + std::fmt::Display>(request: &KernelRequest<'_>, widen: fn(T) -> f64) -> Result<Planned> {
    let count = bins(request.value(2)?.to_i64_vec()?.first().copied().unwrap_or(0))?;
    let wide = request.output_dtype(0) == DType::Int64;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (values, range) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let (low, high) = (widen(range[0]), widen(range[1]));
        if low.is_nan() || high.is_nan() || low >= high {
            return Err(
                Error::invalid_argument("value_range should satisfy value_range[0] < value_range[1]")
                    .got(format!("[{}, {}]", range[0], range[1])),
            );
        }
        let width = (high - low) / count as f64;
        // What is no number counts in the first bin, as a cast takes it.
        let bin = |value: &T| (((widen(*value).max(low) - low) / width) as usize).min(count - 1);
        if wide {
            let out = context.output::<i64>(0)?;
            out.fill(0);
            values.iter().for_each(|value| out[bin(value)] += 1);
        } else {
            let out = context.output::<i32>(0)?;
            out.fill(0);
            values
                .iter()
                .for_each(|value| out[bin(value)] = out[bin(value)].wrapping_add(1));
        }
        Ok(())
    }))
}

typed_builder! {
    /// A histogram about to be made; see [`histogram_fixed_width`].
    pub struct HistogramFixedWidth;
}

impl HistogramFixedWidth {
    /// The dtype of the counts: `Int32` (without) or `Int64`.
    pub fn dtype(self, dtype: DType) -> Self {
        Self(self.0.attr("dtype", dtype))
    }
}

/// How many of the `values` fall into each of `nbins` bins (a number, `int32`) of equal width between the two elements of
/// `value_range`, which is of the values' dtype; those below and above count in the first and the last bin.
#[track_caller]
pub fn histogram_fixed_width(
    values: impl IntoOperand,
    value_range: impl IntoOperand,
    nbins: impl IntoOperand,
) -> HistogramFixedWidth {
    let node = crate::op("HistogramFixedWidth")
        .input(values)
        .input(value_range)
        .input(nbins);
    HistogramFixedWidth(node.default_name("histogram_fixed_width"))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    vec![
        Case::new("HistogramFixedWidth")
            .input([-1.0f64, 0.0, 1.5, 2.0, 5.0, 15.0])
            .input([0.0f64, 5.0])
            .input(5i32)
            .expect([2i32, 1, 1, 0, 2]),
        Case::new("HistogramFixedWidth")
            .attr("dtype", DType::Int64)
            .input([[-1.0f32, 0.0, 1.5], [2.0, 5.0, 15.0]])
            .input([0.0f32, 5.0])
            .input(5i32)
            .expect([2i64, 1, 1, 0, 2]),
        Case::new("HistogramFixedWidth")
            .input([-1i32, 0, 1, 2, 5, 15])
            .input([0i32, 5])
            .input(5i32)
            .expect([2i32, 1, 1, 0, 2]),
        Case::new("HistogramFixedWidth")
            .input(3i64)
            .input([0i64, 4])
            .input(2i32)
            .expect([0i32, 1]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn a_range_and_bins_are_needed() {
        let case = |range: [f32; 2], nbins: i32| {
            let case = Case::new("HistogramFixedWidth").input([1.0f32]);
            case.input(range).input(nbins).run()
        };
        assert!(case([0.0, 1.0], 1).is_ok());
        for (range, nbins) in [
            ([1.0, 1.0], 1),
            ([2.0, 1.0], 1),
            ([f32::NAN, 1.0], 1),
            ([0.0, 1.0], 0),
            ([0.0, 1.0], -3),
        ] {
            assert!(case(range, nbins).is_err(), "{range:?} {nbins}");
        }
    }
}
