//! `LowerBound` and `UpperBound`: where values belong in sorted rows.

use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::op::{KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result};
use graph_cuda::{Source, source};

use crate::cuda::launch::{Launch, Work};
use crate::cuda::type_name;

const REALS: &[DType] = &[
    DType::Float32,
    DType::Float64,
    DType::Half,
    DType::BFloat16,
    DType::Int8,
    DType::Int16,
    DType::Int32,
    DType::Int64,
    DType::UInt8,
    DType::UInt16,
    DType::UInt32,
    DType::UInt64,
];

/// `LowerBound`
pub(crate) fn lower_definition() -> OpDefinition {
    definition(
        "LowerBound",
        "For each value the number of elements of its sorted row that are smaller.",
    )
    .kernel(KernelDefinition::cpu(|request| kernel(request, false)).types("T", REALS))
    .kernel(KernelDefinition::cuda(|request| on_device(request, "x < value")).types("T", REALS))
}

/// `UpperBound`
pub(crate) fn upper_definition() -> OpDefinition {
    definition(
        "UpperBound",
        "For each value the number of elements of its sorted row that are not larger.",
    )
    .kernel(KernelDefinition::cpu(|request| kernel(request, true)).types("T", REALS))
    .kernel(KernelDefinition::cuda(|request| on_device(request, "x <= value")).types("T", REALS))
}

fn definition(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("sorted_inputs: T")
        .input("values: T")
        .output("output: out_type")
        .attr("T: type")
        .attr("out_type: {int32, int64} = DT_INT32")
        .shape(|context| {
            let (sorted, values) = (context.with_rank(0, 2)?, context.with_rank(1, 2)?);
            let rows = context.merge_dims(sorted.dim(0), values.dim(0), "the numbers of rows")?;
            context.set_output(0, PartialShape::from([rows, values.dim(1)]));
            Ok(())
        })
        .not_differentiable()
}

fn on_device(request: &KernelRequest<'_>, before: &str) -> Result<Planned> {
    const SOURCE: Source = source!("bounds.cu");
    let (row, count) = (request.input_shape(0)[1], request.input_shape(1)[1]);
    let n = request.input_shape(1).num_elements();
    let defines = [
        ("T", type_name(request.input_dtype(0))?),
        ("O", type_name(request.output_dtype(0))?),
        ("BEFORE", before),
    ];
    let launch = Launch::new(
        request,
        &SOURCE,
        "bounds",
        &defines,
        Work::Elements(n),
        &[n, row, count],
    )?;
    Ok(launch.over(&[0, 1]))
}

fn kernel(request: &KernelRequest<'_>, upper: bool) -> Result<Planned> {
    macro_rules! for_dtypes {
        ($($type:ty),*) => {
            match request.input_dtype(0) {
                $(dtype if dtype == <$type>::DTYPE => bounds::<$type>(request, upper),)*
                other => Err(Error::unimplemented(format!("bounds of {other} are not supported"))),
            }
        };
    }
    for_dtypes!(f32, f64, half::f16, half::bf16, i8, i16, i32, i64, u8, u16, u32, u64)
}

fn bounds<T: Element + PartialOrd>(request: &KernelRequest<'_>, upper: bool) -> Result<Planned> {
    let (row, count) = (request.input_shape(0)[1], request.input_shape(1)[1]);
    let wide = request.output_dtype(0) == DType::Int64;
    Ok(Planned::new(move |context| {
        let (sorted, values) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let bound = |at: usize| {
            let (row, value) = (&sorted[at / count * row..][..row], values[at]);
            row.partition_point(|&element| if upper { element <= value } else { element < value })
        };
        if wide {
            write(context, |at| bound(at) as i64)
        } else {
            write(context, |at| bound(at) as i32)
        }
    }))
}

fn write<T: Element>(context: &KernelContext<'_>, bound: impl Fn(usize) -> T) -> Result<()> {
    context
        .output::<T>(0)?
        .iter_mut()
        .enumerate()
        .for_each(|(at, out)| *out = bound(at));
    Ok(())
}

/// For each of `values` [rows, m] the number of elements of its row of `sorted` [rows, n] that are smaller.
#[track_caller]
pub fn lower_bound(sorted: impl IntoOperand, values: impl IntoOperand) -> OpBuilder {
    crate::op("LowerBound").input(sorted).input(values)
}

/// For each of `values` [rows, m] the number of elements of its row of `sorted` [rows, n] that are not larger.
#[track_caller]
pub fn upper_bound(sorted: impl IntoOperand, values: impl IntoOperand) -> OpBuilder {
    crate::op("UpperBound").input(sorted).input(values)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let sorted = [[1.0f32, 3.0, 3.0, 5.0], [0.0, 1.0, 2.0, 3.0]];
    let values = [[3.0f32, 9.0], [-1.0, 2.0]];
    vec![
        Case::new("LowerBound")
            .input(sorted)
            .input(values)
            .expect([[1i32, 4], [0, 2]]),
        Case::new("UpperBound")
            .input(sorted)
            .input(values)
            .expect([[3i32, 4], [0, 3]]),
        Case::new("UpperBound")
            .attr("out_type", DType::Int64)
            .input([[1u8, 2]])
            .input([[1u8]])
            .expect([[1i64]]),
    ]
}
