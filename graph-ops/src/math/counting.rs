//! `Bincount`, `Bucketize` and `Cross`.

use graph_core::graph::IntoOperand;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, typed_builder};
use graph_cuda::{Source, source};
use half::{bf16, f16};

use crate::cpu::parallel::{SharedMut, for_each_range};
use crate::cuda::fill::Fill;
use crate::cuda::launch::{Launch, Work};
use crate::cuda::{NUMBERS, type_name};

/// `Bincount`
pub(crate) fn bincount_op() -> OpDefinition {
    OpDefinition::new(
        "Bincount",
        "How often each number below size occurs, or the sums of the weights of its occurrences.",
    )
    .input("arr: int32")
    .input("size: int32")
    .input("weights: T")
    .output("bins: T")
    .attr("T: {int32, int64, float, double}")
    .plan_time_inputs(&[1])
    .may_fail()
    .shape(bincount_shape)
    .not_differentiable()
    .kernel(
        KernelDefinition::cpu(|request| bincount_kernel(request, |count| count as i32, i32::wrapping_add))
            .types("T", &[DType::Int32]),
    )
    .kernel(
        KernelDefinition::cpu(|request| bincount_kernel(request, |count| count as i64, i64::wrapping_add))
            .types("T", &[DType::Int64]),
    )
    .kernel(
        KernelDefinition::cpu(|request| bincount_kernel(request, |count| count as f32, |a, b| a + b))
            .types("T", &[DType::Float32]),
    )
    .kernel(
        KernelDefinition::cpu(|request| bincount_kernel(request, |count| count as f64, |a, b| a + b))
            .types("T", &[DType::Float64]),
    )
    .kernel(KernelDefinition::cuda(bincount_on_device))
}

fn bincount_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    context.with_rank(1, 0)?;
    let size = match context.int_values(1)? {
        Some(size) if size[0] < 0 => {
            return Err(Error::invalid_argument("a negative number of bins")
                .expected("size >= 0")
                .got(size[0]));
        }
        size => size.map(|size| size[0] as usize),
    };
    context.set_output(0, PartialShape::from([size]));
    Ok(())
}

const SOURCE: Source = source!("counting.cu");

/// Negative numbers are not counted.
fn bincount_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (numbers, weights) = bincount_sizes(request)?;
    let size = request.output_shape(0)?.num_elements();
    let dtype = request.output_dtype(0);
    let defines = [("T", type_name(dtype)?)];
    let sizes = [numbers, size, usize::from(weights > 0)];
    if dtype.is_floating() {
        let sums = Launch::new(request, &SOURCE, "sum_bins", &defines, Work::Blocks(size), &sizes)?;
        return Ok(sums.doing(numbers).over(&[0, 2]));
    }
    let fill = Fill::zeros(request, dtype, size)?;
    let counts = Launch::new(
        request,
        &SOURCE,
        "count_bins",
        &defines,
        Work::Elements(numbers),
        &sizes,
    )?;
    Ok(Planned::new(move |context| {
        let (numbers, weights) = (context.input_address(0), context.input_address(2));
        let bins = context.output_address(0);
        // SAFETY: these are the kernels' parameters, which say how many elements each tensor has.
        unsafe {
            fill.run(bins)?;
            counts.run([bins, numbers, weights])
        }
    }))
}

/// How many numbers and weights there are.
fn bincount_sizes(request: &KernelRequest<'_>) -> Result<(usize, usize)> {
    let (numbers, weights) = (
        request.input_shape(0).num_elements(),
        request.input_shape(2).num_elements(),
    );
    if weights != 0 && weights != numbers {
        return Err(
            Error::invalid_argument("as many weights as numbers are needed, or none")
                .expected(numbers)
                .got(weights),
        );
    }
    Ok((numbers, weights))
}

fn bincount_kernel<T: Element>(
    request: &KernelRequest<'_>,
    of_count: impl Fn(u64) -> T + Copy + Send + Sync + 'static,
    add: impl Fn(T, T) -> T + Copy + Send + Sync + 'static,
) -> Result<Planned> {
    bincount_sizes(request)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (numbers, weights) = (context.input::<i32>(0)?, context.input::<T>(2)?);
        let bins = context.output::<T>(0)?;
        if weights.is_empty() {
            let counts = count(numbers, bins.len())?;
            bins.iter_mut()
                .zip(counts)
                .for_each(|(bin, count)| *bin = of_count(count));
            return Ok(());
        }
        check_numbers(numbers)?;
        bins.fill(T::default());
        for (&number, &weight) in numbers.iter().zip(weights) {
            if let Some(bin) = bins.get_mut(number as usize) {
                *bin = add(*bin, weight);
            }
        }
        Ok(())
    }))
}

fn check_numbers(numbers: &[i32]) -> Result<()> {
    match numbers.iter().find(|&&number| number < 0) {
        Some(negative) => Err(Error::invalid_argument("only numbers that are not negative are counted").got(negative)),
        None => Ok(()),
    }
}

/// How often each number below `size` occurs.
fn count(numbers: &[i32], size: usize) -> Result<Vec<u64>> {
    /// Numbers that a task counts.
    const TASK: usize = 64 * 1024;
    // A task has bins of its own, and should have many more numbers than bins.
    let task = TASK.max(4 * size);
    let tasks = numbers.len().div_ceil(task);
    let mut parts = vec![0u32; tasks * size];
    let shared = SharedMut::new(&mut parts);
    for_each_range(tasks, 1, |range| {
        for index in range {
            // SAFETY: each task has its own bins.
            let bins = unsafe { shared.slice(index * size..(index + 1) * size) };
            for &number in &numbers[index * task..numbers.len().min((index + 1) * task)] {
                if let Some(bin) = bins.get_mut(number as u32 as usize) {
                    *bin += 1;
                }
            }
        }
    });
    let mut counts = vec![0u64; size];
    for part in parts.chunks_exact(size.max(1)) {
        counts
            .iter_mut()
            .zip(part)
            .for_each(|(count, &part)| *count += u64::from(part));
    }
    // What is negative lies above all bins.
    if counts.iter().sum::<u64>() < numbers.len() as u64 {
        check_numbers(numbers)?;
    }
    Ok(counts)
}

/// `Bucketize`
pub(crate) fn bucketize_op() -> OpDefinition {
    OpDefinition::new(
        "Bucketize",
        "In which of the intervals between sorted boundaries each number lies.",
    )
    .input("input: T")
    .output("output: int32")
    .attr("T: {int32, int64, float, double}")
    .attr("boundaries: list(float)")
    .may_fail()
    .shape(InferenceContext::unchanged)
    .not_differentiable()
    .kernel(KernelDefinition::cpu(|request| bucketize_kernel::<i32>(request, f64::from)).types("T", &[DType::Int32]))
    .kernel(KernelDefinition::cpu(|request| bucketize_kernel::<i64>(request, |x| x as f64)).types("T", &[DType::Int64]))
    .kernel(KernelDefinition::cpu(|request| bucketize_kernel::<f32>(request, f64::from)).types("T", &[DType::Float32]))
    .kernel(KernelDefinition::cpu(|request| bucketize_kernel::<f64>(request, |x| x)).types("T", &[DType::Float64]))
    .kernel(KernelDefinition::cuda(bucketize_on_device))
}

/// The boundaries, which are sorted.
fn boundaries(request: &KernelRequest<'_>) -> Result<Vec<f32>> {
    let boundaries: Vec<f32> = request.attr("boundaries")?;
    if !boundaries.is_sorted() {
        return Err(Error::invalid_argument("the boundaries must be sorted").got(format!("{boundaries:?}")));
    }
    Ok(boundaries)
}

fn bucketize_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let boundaries = boundaries(request)?;
    // One more, so that the list is not empty.
    let list = boundaries
        .iter()
        .chain([&0.0])
        .map(|boundary| format!("bits_float({:#x}u)", boundary.to_bits()));
    let list = list.collect::<Vec<_>>().join(", ");
    let n = request.input_shape(0).num_elements();
    let defines = [("T", type_name(request.input_dtype(0))?), ("BOUNDARIES", list.as_str())];
    let launch = Launch::new(
        request,
        &SOURCE,
        "bucketize",
        &defines,
        Work::Elements(n),
        &[n, boundaries.len()],
    )?;
    Ok(launch.over(&[0]))
}

fn bucketize_kernel<T: Element>(request: &KernelRequest<'_>, widen: fn(T) -> f64) -> Result<Planned> {
    let boundaries = boundaries(request)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let input = context.input::<T>(0)?;
        for (bucket, &x) in context.output::<i32>(0)?.iter_mut().zip(input) {
            let x = widen(x);
            // What is not a number is less than no boundary.
            *bucket = boundaries.partition_point(|&boundary| x.is_nan() || f64::from(boundary) <= x) as i32;
        }
        Ok(())
    }))
}

/// A kernel for each dtype, with `a b - c d`.
macro_rules! cross_kernels {
    ($definition:expr; $($dtype:ident $type:ty |$a:ident, $b:ident, $c:ident, $d:ident| $difference:expr),*) => {
        $definition $(.kernel(
            KernelDefinition::cpu(|_| cross_kernel::<$type>(|$a, $b, $c, $d| $difference)).types("T", &[DType::$dtype]),
        ))*
    };
}
/// `Cross`
pub(crate) fn cross_op() -> OpDefinition {
    let definition = OpDefinition::new("Cross", "The cross products of vectors of three.")
        .input("a: T")
        .input("b: T")
        .output("product: T")
        .attr("T: realnumbertype")
        .shape(cross_shape)
        // d(a x b) . g = da . (b x g) + db . (g x a)
        .gradient(|context| {
            let (a, b, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
            let first = context.node("Cross").input(&b).input(&gradient).build()?;
            let second = context.node("Cross").input(&gradient).input(&a).build()?;
            Ok(vec![Some(first), Some(second)])
        });
    cross_kernels!(
        definition;
        Float32 f32 |a, b, c, d| a * b - c * d,
        Float64 f64 |a, b, c, d| a * b - c * d,
        Half f16 |a, b, c, d| a * b - c * d,
        BFloat16 bf16 |a, b, c, d| a * b - c * d,
        Int8 i8 |a, b, c, d| a.wrapping_mul(b).wrapping_sub(c.wrapping_mul(d)),
        Int16 i16 |a, b, c, d| a.wrapping_mul(b).wrapping_sub(c.wrapping_mul(d)),
        Int32 i32 |a, b, c, d| a.wrapping_mul(b).wrapping_sub(c.wrapping_mul(d)),
        Int64 i64 |a, b, c, d| a.wrapping_mul(b).wrapping_sub(c.wrapping_mul(d)),
        UInt8 u8 |a, b, c, d| a.wrapping_mul(b).wrapping_sub(c.wrapping_mul(d)),
        UInt16 u16 |a, b, c, d| a.wrapping_mul(b).wrapping_sub(c.wrapping_mul(d)),
        UInt32 u32 |a, b, c, d| a.wrapping_mul(b).wrapping_sub(c.wrapping_mul(d)),
        UInt64 u64 |a, b, c, d| a.wrapping_mul(b).wrapping_sub(c.wrapping_mul(d))
    )
    .kernel(
        KernelDefinition::cuda(|request| {
            let n = request.input_shape(0).num_elements();
            let defines = [("T", type_name(request.input_dtype(0))?)];
            Ok(Launch::new(request, &SOURCE, "cross", &defines, Work::Elements(n), &[n])?.over(&[0, 1]))
        })
        .types("T", NUMBERS),
    )
}

fn cross_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape = context
        .with_rank_at_least(0, 1)?
        .merge(&context.with_rank_at_least(1, 1)?)?;
    if let Some(rank) = shape.rank()
        && let Some(last) = shape.dim(rank - 1).filter(|&last| last != 3)
    {
        return Err(Error::invalid_argument("cross products are of vectors of three")
            .expected("3 as the last dimension")
            .got(last));
    }
    context.set_output(0, shape);
    Ok(())
}

fn cross_kernel<T: Element>(difference: fn(T, T, T, T) -> T) -> Result<Planned> {
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (a, b) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let vectors = a.as_chunks::<3>().0.iter().zip(b.as_chunks::<3>().0);
        for (out, (a, b)) in context.output::<T>(0)?.as_chunks_mut::<3>().0.iter_mut().zip(vectors) {
            *out = [
                difference(a[1], b[2], a[2], b[1]),
                difference(a[2], b[0], a[0], b[2]),
                difference(a[0], b[1], a[1], b[0]),
            ];
        }
        Ok(())
    }))
}

typed_builder! {
    /// A cross product about to be made; see [`cross`].
    pub struct Cross;
}

/// The cross products of the vectors of three along the last axes of `a` and `b`, which have the same shape.
///
/// # Errors
/// `InvalidArgument` if the last dimension is not 3 or the shapes differ.
#[track_caller]
pub fn cross(a: impl IntoOperand, b: impl IntoOperand) -> Cross {
    Cross(crate::op("Cross").input(a).input(b))
}

typed_builder! {
    /// Bins about to be counted; see [`bucketize`].
    pub struct Bucketize;
}

/// In which interval between the sorted `boundaries` each number of `input` lies, as `int32`: 0 below the first, as many as
/// there are boundaries from the last on.
///
/// # Errors
/// `InvalidArgument` when run if the boundaries are not sorted.
#[track_caller]
pub fn bucketize(input: impl IntoOperand, boundaries: impl Into<Vec<f32>>) -> Bucketize {
    Bucketize(
        crate::op("Bucketize")
            .input(input)
            .attr("boundaries", boundaries.into()),
    )
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let boundaries = || vec![0.0f32, 10.0, 100.0];
    let mut cases = vec![
        Case::new("Bincount")
            .input([1i32, 1, 3, 7])
            .input(4i32)
            .input(Vec::<i32>::new())
            .expect([0i32, 2, 0, 1]),
        Case::new("Bincount")
            .input([1i32, 1, 0])
            .input(2i32)
            .input([0.5f32, 0.25, 2.0])
            .expect([2.0f32, 0.75]),
        Case::new("Bincount")
            .input([[1i32], [1]])
            .input(2i32)
            .input(Vec::<f64>::new())
            .expect([0.0f64, 2.0]),
        Case::new("Bincount")
            .input([0i32])
            .input(0i32)
            .input(Vec::<i64>::new())
            .expect(Vec::<i64>::new()),
        Case::new("Bucketize")
            .attr("boundaries", boundaries())
            .input([[-5.0f32, 10000.0], [150.0, 10.0], [5.0, 100.0]])
            .expect([[0i32, 3], [3, 2], [1, 3]]),
        Case::new("Bucketize")
            .attr("boundaries", boundaries())
            .input([-1i32, 0, 9])
            .expect([0i32, 1, 1]),
        Case::new("Bucketize")
            .attr("boundaries", boundaries())
            .input([99i64])
            .expect([2i32]),
        Case::new("Bucketize")
            .attr("boundaries", Vec::<f32>::new())
            .input([1.0f64])
            .expect([0i32]),
        Case::new("Cross")
            .input([[1.0f32, 0.0, 0.0], [1.0, 2.0, 3.0]])
            .input([[0.0f32, 1.0, 0.0], [4.0, 5.0, 6.0]])
            .expect([[0.0f32, 0.0, 1.0], [-3.0, 6.0, -3.0]]),
    ];
    for &dtype in DType::REAL_NUMBERS {
        let numbers = |list: [i64; 3]| Value::from(list).cast_exactly(dtype).expect("small whole numbers");
        let case = Case::new("Cross").input(numbers([1, 0, 0])).input(numbers([0, 1, 0]));
        cases.push(case.expect(numbers([0, 0, 1])));
    }
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let case = GradientCase::new("Cross")
        .input([[1.0f64, -2.0, 3.0]])
        .input([[0.5f64, 4.0, -1.0]]);
    vec![case]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn what_cannot_be_counted_is_an_error() {
        let bad = [
            Case::new("Bincount")
                .input([-1i32])
                .input(2i32)
                .input(Vec::<i32>::new()),
            Case::new("Bincount")
                .input([1i32])
                .input(-2i32)
                .input(Vec::<i32>::new()),
            Case::new("Bincount").input([1i32]).input(2i32).input([1i32, 2]),
            Case::new("Bucketize")
                .attr("boundaries", vec![1.0f32, 0.0])
                .input([1i32]),
            Case::new("Cross").input([1.0f32, 2.0]).input([1.0f32, 2.0]),
        ];
        for case in bad {
            assert_eq!(case.run().unwrap_err().class(), "InvalidArgument", "{}", case.op);
        }
    }
}
