//! `HistogramSummary`: the distribution of a tensor's elements.

use graph_core::format::histogram::{Histogram, NonFinite};
use graph_core::format::proto::summary::Value as Entry;
use graph_core::format::proto::summary::value::Value as Content;
use graph_core::graph::IntoOperand;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition};
use graph_core::{DType, Error};

use super::scope::{Draft, set_summary, summary_builder, tag, with_numbers};
use crate::cpu::parallel::for_each_chunk;

/// The definition of `HistogramSummary`.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "HistogramSummary",
        "A summary of how a tensor's elements are distributed, in exponential buckets.",
    )
    .input("tag: string")
    .input("values: T")
    .output("summary: string")
    .attr("T: realnumbertype = DT_FLOAT")
    .may_fail()
    .shape(InferenceContext::scalars)
    .not_differentiable()
    .kernel(KernelDefinition::direct(run))
}

fn run(context: &mut KernelContext<'_>) -> graph_core::Result<()> {
    let tag = tag(context)?;
    let histogram = if context.input_dtype(1) == DType::Float32 {
        of_floats(context.input::<f32>(1)?)
    } else {
        let mut histogram = Histogram::new();
        let added = with_numbers!(context, 1, |elements| Ok(histogram.add(elements)))?;
        added.map(|()| histogram)
    };
    let histogram = histogram.map_err(|wrong| {
        Error::invalid_argument(format!("{wrong}, in the histogram summary '{}'", context.site().name))
            .hint("a loss or a weight has probably diverged: lower the learning rate, or look with check_numerics")
    })?;
    let entry = Entry {
        tag,
        value: Some(Content::Histo(histogram.to_proto())),
        ..Entry::default()
    };
    set_summary(context, vec![entry]);
    Ok(())
}

/// The histogram of numbers that are counted in parallel, in parts of a fixed size that are put together in order.
fn of_floats(numbers: &[f32]) -> Result<Histogram, NonFinite> {
    const PART: usize = 1 << 18;
    let mut parts: Vec<Option<Result<Histogram, NonFinite>>> = Vec::new();
    parts.resize_with(numbers.len().div_ceil(PART), || None);
    for_each_chunk(&mut parts, 1, |index, part| {
        let numbers = &numbers[index * PART..];
        part[0] = Some(Histogram::of_floats(&numbers[..PART.min(numbers.len())]));
    });
    let mut histogram = Histogram::new();
    for (index, part) in parts.into_iter().flatten().enumerate() {
        let part = part.map_err(|wrong| NonFinite {
            index: wrong.index + index * PART,
            ..wrong
        })?;
        histogram.merge(&part);
    }
    Ok(histogram)
}

summary_builder! {
    /// A summary about to be made; see [`histogram`].
    HistogramSummary, "HistogramSummary"
}

/// A summary of how the elements of a tensor are distributed, for TensorBoard's Distributions and Histograms. The tag is
/// the name in its scope; the summary joins the collection `summaries`. A NaN or infinity among them is an
/// `InvalidArgument` of the run.
#[track_caller]
pub fn histogram(name: &str, values: impl IntoOperand) -> HistogramSummary {
    HistogramSummary {
        draft: Draft::new(name, values),
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    use graph_core::format::Message;
    let case = |numbers: Value, floats: &[f64]| {
        let mut histogram = Histogram::new();
        histogram.add(floats.iter().copied()).expect("finite numbers");
        let value = vec![Entry {
            tag: "h".into(),
            value: Some(Content::Histo(histogram.to_proto())),
            ..Entry::default()
        }];
        let bytes = graph_core::format::proto::Summary { value }.encode_to_vec();
        let case = Case::new("HistogramSummary").input("h").input(numbers);
        case.expect(Value::string(bytes))
    };
    vec![
        case([[1.0f32, -2.5], [0.0, 1.0]].into(), &[1.0, -2.5, 0.0, 1.0]),
        case([3u8, 0].into(), &[3.0, 0.0]),
        case([-3i64].into(), &[-3.0]),
        case(Vec::<f64>::new().into(), &[]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn what_is_not_finite_is_an_error_that_names_the_op() {
        for bad in [f32::NAN, f32::INFINITY] {
            let error = Case::new("HistogramSummary")
                .input("h")
                .input([1.0f32, bad])
                .run()
                .unwrap_err();
            assert_eq!(error.class(), "InvalidArgument");
            assert!(error.to_string().contains("'case'"), "{error}");
        }
        assert!(
            Case::new("HistogramSummary")
                .input(["h", "i"].map(str::to_owned).concat())
                .input("x")
                .run()
                .is_err()
        );
    }
}
