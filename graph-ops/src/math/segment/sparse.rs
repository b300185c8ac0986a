//! `SparseSegmentSum`, `SparseSegmentMean`, `SparseSegmentSqrtN`: segments of rows that are named by indices.

use super::runs::Reduction;
use super::*;
use crate::cpu::element::{Real, Wide};
use crate::cuda::launch::{Launch, Work};
use crate::cuda::type_name;
use crate::cuda::window::joined_source;
use graph_core::gradients::GradientContext;
use graph_core::graph::Tensor;
use graph_core::op::kernel::MakeKernel;
use graph_cuda::Source;

/// What the sum of a segment is divided by.
#[derive(Clone, Copy, PartialEq)]
enum Divisor {
    One,
    Count,
    Root,
}

impl Divisor {
    fn of(self, count: usize) -> f64 {
        match self {
            Self::One => 1.0,
            Self::Count => count.max(1) as f64,
            Self::Root => (count.max(1) as f64).sqrt(),
        }
    }
}

/// A sparse segment op without kernels.
fn base(name: &'static str, summary: &'static str, types: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("data: T")
        .input("indices: Tidx")
        .input("segment_ids: int32")
        .output("output: T")
        .attr(types)
        .attr("Tidx: {int32, int64} = DT_INT32")
        .may_fail()
        .shape(shape)
}

/// Kernels of the floating-point dtypes.
macro_rules! floats {
    ($definition:expr, $make:ident, $divisor:expr $(, $more:ident)?) => {
        $definition
            .kernel(KernelDefinition::cpu(|request| $make::<f32>(request, $divisor)).types("T", &[DType::Float32])$(.$more())?)
            .kernel(KernelDefinition::cpu(|request| $make::<f64>(request, $divisor)).types("T", &[DType::Float64])$(.$more())?)
    };
}

/// The kernel on a device, for the dtypes of those of the host.
fn runs_on_device(make: MakeKernel, dtypes: &'static [DType]) -> KernelDefinition {
    KernelDefinition::cuda(make).types("T", dtypes).data_dependent()
}

/// `SparseSegmentSum`
pub(crate) fn sparse_sum() -> OpDefinition {
    let definition = base(
        "SparseSegmentSum",
        "The sums of the rows that indices name, by sorted segments.",
        "T: realnumbertype",
    );
    floats!(definition.gradient(sum_gradient), kernel, Divisor::One, data_dependent)
        .kernel(
            KernelDefinition::cpu(integer_sum::<i32>)
                .types("T", &[DType::Int32])
                .data_dependent(),
        )
        .kernel(
            KernelDefinition::cpu(integer_sum::<i64>)
                .types("T", &[DType::Int64])
                .data_dependent(),
        )
        .kernel(runs_on_device(
            |request| runs::on_device(request, Reduction::Sum, true),
            &[DType::Float32, DType::Float64, DType::Int32, DType::Int64],
        ))
}

/// `SparseSegmentMean`
pub(crate) fn sparse_mean() -> OpDefinition {
    let definition = base(
        "SparseSegmentMean",
        "The means of the rows that indices name, by sorted segments.",
        "T: {float, double}",
    );
    let definition = definition.gradient(|context| scaled_gradient(context, "SparseSegmentMeanGrad"));
    floats!(definition, kernel, Divisor::Count, data_dependent).kernel(runs_on_device(
        |request| runs::on_device(request, Reduction::Mean, true),
        SINGLE_OR_DOUBLE,
    ))
}

/// `SparseSegmentSqrtN`
pub(crate) fn sparse_sqrt_n() -> OpDefinition {
    let definition = base(
        "SparseSegmentSqrtN",
        "The sums of the rows that indices name, by sorted segments, divided by the roots of the segments' lengths.",
        "T: {float, double}",
    );
    let definition = definition.gradient(|context| scaled_gradient(context, "SparseSegmentSqrtNGrad"));
    floats!(definition, kernel, Divisor::Root, data_dependent).kernel(runs_on_device(
        |request| runs::on_device(request, Reduction::SumByRoot, true),
        SINGLE_OR_DOUBLE,
    ))
}

/// A gradient op without kernels.
fn grad(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("grad: T")
        .input("indices: Tidx")
        .input("segment_ids: int32")
        .input("output_dim0: int32")
        .output("output: T")
        .attr("T: {float, double}")
        .attr("Tidx: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[3])
        .may_fail()
        .shape(|context| {
            let grad = context.with_rank_at_least(0, 1)?;
            context.with_rank(3, 0)?;
            let rows = context.int_values(3)?.and_then(|rows| usize::try_from(rows[0]).ok());
            context.set_output(0, PartialShape::from([rows]).concatenate(&tail(&grad, 1)));
            Ok(())
        })
}

/// `SparseSegmentMeanGrad`
pub(crate) fn sparse_mean_grad() -> OpDefinition {
    floats!(
        grad("SparseSegmentMeanGrad", "The gradient of SparseSegmentMean.").no_gradient(),
        grad_kernel,
        Divisor::Count
    )
    .kernel(KernelDefinition::cuda(|request| grad_on_device(request, "count")).types("T", SINGLE_OR_DOUBLE))
}

/// `SparseSegmentSqrtNGrad`
pub(crate) fn sparse_sqrt_n_grad() -> OpDefinition {
    floats!(
        grad("SparseSegmentSqrtNGrad", "The gradient of SparseSegmentSqrtN.").no_gradient(),
        grad_kernel,
        Divisor::Root
    )
    .kernel(KernelDefinition::cuda(|request| grad_on_device(request, "T(sqrt(count))")).types("T", SINGLE_OR_DOUBLE))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let data = context.with_rank_at_least(0, 1)?;
    let (indices, ids) = (context.with_rank(1, 1)?, context.with_rank(2, 1)?);
    context.merge_dims(indices.dim(0), ids.dim(0), "the indices and the segment numbers")?;
    context.set_output(0, PartialShape::from([None]).concatenate(&tail(&data, 1)));
    Ok(())
}

/// The rows that indices name, checked.
pub(super) fn rows_of(indices: &[i64], rows: usize) -> Result<Vec<usize>> {
    let row = |&index: &i64| {
        usize::try_from(index)
            .ok()
            .filter(|&index| index < rows)
            .ok_or_else(|| {
                Error::invalid_argument("an index is out of range")
                    .expected(format!("in [0, {rows})"))
                    .got(index)
            })
    };
    indices.iter().map(row).collect()
}

/// Segments and rows of each index, and the number of segments.
fn plan(context: &KernelContext<'_>, rows: usize) -> Result<(Vec<usize>, Vec<usize>, usize)> {
    let segments = sorted_segments(&integers(context, 2)?)?;
    let rows = rows_of(&integers(context, 1)?, rows)?;
    let count = segments.last().map_or(0, |&last| last + 1);
    Ok((segments, rows, count))
}

fn kernel<T: Element + Real>(request: &KernelRequest<'_>, divisor: Divisor) -> Result<Planned> {
    let shape = request.input_shape(0).clone();
    let width = width(&shape, 1);
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (segments, rows, count) = plan(context, shape[0])?;
        let data = context.input::<T>(0)?;
        let output = context.allocate_output::<T>(0, with_rows(&shape, count))?;
        if width == 0 {
            return Ok(());
        }
        let mut sums = vec![T::Wide::default(); output.len()];
        let mut counts = vec![0usize; count];
        for (&segment, &row) in segments.iter().zip(&rows) {
            counts[segment] += 1;
            let sums = &mut sums[segment * width..(segment + 1) * width];
            sums.iter_mut()
                .zip(&data[row * width..])
                .for_each(|(sum, x)| *sum += x.widen());
        }
        for ((out, sums), &count) in output.chunks_mut(width).zip(sums.chunks(width)).zip(&counts) {
            let divisor = T::Wide::from_f64(divisor.of(count));
            out.iter_mut()
                .zip(sums)
                .for_each(|(out, &sum)| *out = T::narrow(sum / divisor));
        }
        Ok(())
    }))
}

fn integer_sum<T: Element + num_traits::WrappingAdd>(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.input_shape(0).clone();
    let width = width(&shape, 1);
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (segments, rows, count) = plan(context, shape[0])?;
        let data = context.input::<T>(0)?;
        let output = context.allocate_output::<T>(0, with_rows(&shape, count))?;
        for (&segment, &row) in segments.iter().zip(&rows) {
            let output = &mut output[segment * width..(segment + 1) * width];
            output
                .iter_mut()
                .zip(&data[row * width..])
                .for_each(|(sum, x)| *sum = sum.wrapping_add(x));
        }
        Ok(())
    }))
}

const SINGLE_OR_DOUBLE: &[DType] = &[DType::Float32, DType::Float64];

/// Each index's share of its segment's gradient, and these added up where the indices point. What is out of range is left out.
fn grad_on_device(request: &KernelRequest<'_>, divisor: &str) -> Result<Planned> {
    const SOURCE: Source = joined_source!("sparse.cu": "runs.cuh", "sparse.cu");
    let (dtype, output) = (request.input_dtype(0), request.output_shape(0)?);
    let (width, count) = (width(request.input_shape(0), 1), request.input_shape(1).num_elements());
    let n = count * width;
    let defines = [("T", type_name(dtype)?), ("DIVISOR", divisor)];
    let numbers = [n, width, count, request.input_shape(0)[0]];
    let len = output.num_elements();
    let shares = Launch::new(request, &SOURCE, "shares", &defines, Work::Elements(n), &numbers)?;
    let shares = shares.moving(request.input_bytes() + n * dtype.size().unwrap_or(0));
    let fill = Fill::zeros(request, dtype, len)?;
    let scatter = Scatter::new(request, dtype, request.input_dtype(1), count, "old + update")?;
    let extent = Extent {
        dims: Depth::new(&output[..1])?,
        inner: width,
        repeated: false,
    };
    // The keys that a scatter sorts lie behind the shares.
    let shares_bytes = (n * dtype.size().unwrap_or(8)).next_multiple_of(256);
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let (gradient, indices, segments) = (
            context.input_address(0),
            context.input_address(1),
            context.input_address(2),
        );
        let (output, scratch) = (context.output_address(0), context.scratch_address());
        // SAFETY: the sizes are those of the tensors and of the scratch memory.
        unsafe {
            shares.run([scratch, gradient, segments])?;
            fill.run(output)?;
            scatter.run(output, indices, scratch, extent, scratch.offset(shares_bytes))
        }
    });
    Ok(planned.with_scratch(shares_bytes + scatter::scratch(count)))
}

fn grad_kernel<T: Element + Real>(request: &KernelRequest<'_>, divisor: Divisor) -> Result<Planned> {
    let gradients = request.input_shape(0)[0];
    let rows = request.output_shape(0)?[0];
    let width = width(request.input_shape(0), 1);
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (segments, rows, count) = plan(context, rows)?;
        if count > gradients {
            return Err(Error::invalid_argument("a segment number is out of range")
                .expected(format!("less than {gradients}"))
                .got(count - 1));
        }
        if width == 0 {
            return Ok(());
        }
        let mut counts = vec![0usize; count];
        segments.iter().for_each(|&segment| counts[segment] += 1);
        let (gradient, output) = (context.input::<T>(0)?, context.output::<T>(0)?);
        output.fill(T::narrow(T::Wide::default()));
        for (&segment, &row) in segments.iter().zip(&rows) {
            let divisor = T::Wide::from_f64(divisor.of(counts[segment]));
            let output = &mut output[row * width..(row + 1) * width];
            for (out, x) in output.iter_mut().zip(&gradient[segment * width..]) {
                *out = T::narrow(out.widen() + x.widen() / divisor);
            }
        }
        Ok(())
    }))
}

fn sum_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = crate::math::nodes::Nodes::of(context);
    let shape = nodes.shape(&context.input(0))?;
    let rows = nodes.at_index(&shape, 0)?;
    let gathered = nodes.gather(&context.gradient(0)?, &context.input(2))?;
    let node = nodes
        .node("UnsortedSegmentSum")
        .input(&gathered)
        .input(context.input(1));
    Ok(vec![Some(node.input(&rows).build()?), None, None])
}

fn scaled_gradient(context: &mut GradientContext<'_>, op: &str) -> Result<Vec<Option<Tensor>>> {
    let nodes = crate::math::nodes::Nodes::of(context);
    let shape = nodes.shape(&context.input(0))?;
    let rows = nodes.at_index(&shape, 0)?;
    let node = nodes
        .node(op)
        .input(context.gradient(0)?)
        .input(context.input(1))
        .input(context.input(2));
    Ok(vec![Some(node.input(&rows).build()?), None, None])
}
