//! `BatchMatMul` and `BatchMatMulV2`: products of many matrices.

use super::*;
use crate::cpu::parallel::{SharedMut, for_each_range, grain_for};
use crate::cpu::scratch::{Plain, with_scratch};
use crate::math::broadcasting::broadcast_positions;

/// `BatchMatMul`: the batch axes of both operands are the same.
pub(crate) fn batch_mat_mul() -> OpDefinition {
    kernels!(
        base(
            "BatchMatMul",
            "The matrix products x y over equal batch axes; each operand may be conjugated and transposed first.",
        )
        .shape(same_batches)
        .gradient(gradient),
        kernel
    )
    .kernel(KernelDefinition::cuda(on_device).types("T", FLOATS))
}

/// `BatchMatMulV2`: the batch axes broadcast.
pub(crate) fn batch_mat_mul_v2() -> OpDefinition {
    kernels!(
        base(
            "BatchMatMulV2",
            "The matrix products x y over batch axes that broadcast; each operand may be conjugated and transposed first.",
        )
        .shape(broadcast_batches)
        .gradient(broadcast_gradient),
        kernel
    )
    .kernel(KernelDefinition::cuda(on_device).types("T", FLOATS))
}

fn base(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("x: T")
        .input("y: T")
        .output("output: T")
        .attr(TYPES)
        .attr("adj_x: bool = false")
        .attr("adj_y: bool = false")
}

fn same_batches(context: &mut InferenceContext<'_>) -> Result<()> {
    infer(context, |a, b| a.merge(b))
}

fn broadcast_batches(context: &mut InferenceContext<'_>) -> Result<()> {
    infer(context, |a, b| {
        a.broadcast(b)
            .ok_or_else(|| Error::invalid_argument(format!("incompatible batch shapes: {a} vs. {b}")))
    })
}

fn infer(
    context: &mut InferenceContext<'_>,
    batches: fn(&PartialShape, &PartialShape) -> Result<PartialShape>,
) -> Result<()> {
    let (a, b) = (context.with_rank_at_least(0, 2)?, context.with_rank_at_least(1, 2)?);
    let (adj_x, adj_y): (bool, bool) = (context.attr("adj_x")?, context.attr("adj_y")?);
    let split = |shape: &PartialShape| match shape.dims() {
        Some(dims) => {
            let (batch, matrix) = dims.split_at(dims.len() - 2);
            (PartialShape::from_dims(batch.iter().copied()), [matrix[0], matrix[1]])
        }
        None => (PartialShape::unknown(), [None, None]),
    };
    let ((batch_a, a), (batch_b, b)) = (split(&a), split(&b));
    let [m, k, l, n] = sides(a, b, adj_x, adj_y);
    check_inner(context, k, l)?;
    let batch = batches(&batch_a, &batch_b)?;
    context.set_output(0, batch.concatenate(&PartialShape::from([m, n])));
    Ok(())
}

/// What a product of batches does: the product of one pair, and where each pair's operands lie.
struct Batches {
    product: Product,
    /// For each result the number of the matrix in each operand.
    pairs: Vec<(usize, usize)>,
    /// Whether the operands are conjugated, for complex numbers.
    conjugate: [bool; 2],
}

/// An element whose conjugate may be asked for.
pub(super) trait Conjugate: Copy {
    const COMPLEX: bool = false;
    fn conjugate(self) -> Self {
        self
    }
}

macro_rules! real {
    ($($type:ty),*) => {$(impl Conjugate for $type {})*};
}
real!(f32, f64, f16, bf16, i32, i64);

impl<T: Copy + num_traits::Num + std::ops::Neg<Output = T>> Conjugate for Complex<T> {
    const COMPLEX: bool = true;
    fn conjugate(self) -> Self {
        self.conj()
    }
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let flags: [bool; 2] = [request.attr("adj_x")?, request.attr("adj_y")?];
    let (batches, [m, n, k]) = Batches::new(request, flags)?;
    let dtype = request.input_dtype(0);
    let one = graph_cuda::Product::new(dtype, m, n, k).transposed(flags[0], flags[1]);
    // Runs of products whose operands lie at equal distances are given at once.
    let mut runs: Vec<([usize; 3], graph_cuda::Product)> = Vec::new();
    let (mut begin, pairs) = (0, &batches.pairs);
    while begin < pairs.len() {
        let step = pairs.get(begin + 1).map_or((0, 0), |next| {
            (next.0.wrapping_sub(pairs[begin].0), next.1.wrapping_sub(pairs[begin].1))
        });
        let follows =
            |pair: &[(usize, usize)]| (pair[1].0.wrapping_sub(pair[0].0), pair[1].1.wrapping_sub(pair[0].1)) == step;
        let forward = step.0 < pairs.len() && step.1 < pairs.len();
        let more = pairs[begin..]
            .windows(2)
            .take_while(|pair| forward && follows(pair))
            .count();
        let start = [pairs[begin].0 * m * k, pairs[begin].1 * k * n, begin * m * n];
        let strides = [step.0 * m * k, step.1 * k * n, m * n];
        let strides = if more > 0 { strides } else { [0; 3] };
        runs.push((start, one.clone().batched(more + 1, strides)));
        begin += more + 1;
    }
    let size = dtype.size().unwrap_or(0);
    let cuda = Cuda::of(request)?;
    Ok(Planned::new(move |context| {
        let (a, b, c) = (
            context.input_address(0),
            context.input_address(1),
            context.output_address(0),
        );
        for ([in_a, in_b, in_c], product) in &runs {
            let (a, b, c) = (a.offset(in_a * size), b.offset(in_b * size), c.offset(in_c * size));
            // SAFETY: the batches lie where the shapes say, and the output is no input's memory.
            unsafe { cuda.multiply(product, a, b, c)? };
        }
        Ok(())
    }))
}

impl Batches {
    /// The products, and the rows, columns and inner dimension of each.
    fn new(request: &KernelRequest<'_>, flags: [bool; 2]) -> Result<(Self, [usize; 3])> {
        let (a, b) = (request.input_shape(0), request.input_shape(1));
        let output = request.output_shape(0)?;
        let (rank, batch) = (output.rank(), &output[..output.rank() - 2]);
        let (m, n) = (output[rank - 2], output[rank - 1]);
        let k = if flags[0] { a[a.rank() - 2] } else { a[a.rank() - 1] };
        let pairs = broadcast_positions(batch, &a[..a.rank() - 2])
            .into_iter()
            .zip(broadcast_positions(batch, &b[..b.rank() - 2]));
        let batches = Self {
            product: Product::new(m, n, k).transposed(flags[0], flags[1]),
            pairs: pairs.collect(),
            conjugate: flags,
        };
        Ok((batches, [m, n, k]))
    }
}

fn kernel<T: Element + GemmElement + Conjugate + Plain>(request: &KernelRequest<'_>) -> Result<Planned> {
    let flags: [bool; 2] = [request.attr("adj_x")?, request.attr("adj_y")?];
    let (batches, _) = Batches::new(request, flags)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (a, b) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let output = context.output::<T>(0)?;
        conjugated(a, batches.conjugate[0], |a| {
            conjugated(b, batches.conjugate[1], |b| multiply(&batches, a, b, output));
        });
        Ok(())
    }))
}

/// Lends `f` the operand, conjugated if its numbers are complex and it is asked for.
fn conjugated<T: Conjugate + Plain>(x: &[T], conjugate: bool, f: impl FnOnce(&[T])) {
    if !T::COMPLEX || !conjugate {
        return f(x);
    }
    with_scratch(x.len(), |copy: &mut [T]| {
        copy.iter_mut().zip(x).for_each(|(copy, x)| *copy = x.conjugate());
        f(copy);
    });
}

fn multiply<T: Element + GemmElement>(batches: &Batches, a: &[T], b: &[T], output: &mut [T]) {
    let Product { m, n, k, .. } = batches.product;
    let (a_len, b_len, len) = (m * k, k * n, m * n);
    let shared = SharedMut::new(output);
    let one = |at: usize| {
        let (first, second) = batches.pairs[at];
        // SAFETY: each pair has its own part of the output, as long as one product.
        let output = unsafe { shared.slice(at * len..(at + 1) * len) };
        gemm(
            batches.product,
            &a[first * a_len..(first + 1) * a_len],
            &b[second * b_len..(second + 1) * b_len],
            output,
        );
    };
    // Small products share out the batch, large ones each share out themselves.
    let grain = grain_for(m * n * k.max(1) / 16);
    if grain > 1 {
        for_each_range(batches.pairs.len(), grain, |range| range.for_each(one));
    } else {
        (0..batches.pairs.len()).for_each(one);
    }
}

/// The products that are the gradients of both operands, before batches are summed.
fn products(context: &GradientContext<'_>) -> Result<(Tensor, Tensor)> {
    let nodes = Nodes::of(context);
    let (x, y, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let product = |a: &Tensor, b: &Tensor, adjoint_a: bool, adjoint_b: bool| nodes.matmul(a, b, adjoint_a, adjoint_b);
    Ok(match (context.attr("adj_x")?, context.attr("adj_y")?) {
        (false, false) => (
            product(&gradient, &y, false, true)?,
            product(&x, &gradient, true, false)?,
        ),
        (false, true) => (
            product(&gradient, &y, false, false)?,
            product(&gradient, &x, true, false)?,
        ),
        (true, false) => (
            product(&y, &gradient, false, true)?,
            product(&x, &gradient, false, false)?,
        ),
        (true, true) => (product(&y, &gradient, true, true)?, product(&gradient, &x, true, true)?),
    })
}

fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (x, y) = products(context)?;
    Ok(vec![Some(x), Some(y)])
}

/// The gradient of `BatchMatMulV2`: summed over the axes that an operand was broadcast along.
fn broadcast_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (x_gradient, y_gradient) = products(context)?;
    let nodes = Nodes::of(context);
    let (x, y) = (context.input(0), context.input(1));
    let (x_static, y_static) = (x.shape(), y.shape());
    if x_static.is_fully_defined() && y_static.is_fully_defined() && x_static == y_static {
        return Ok(vec![Some(x_gradient), Some(y_gradient)]);
    }
    let (x_shape, y_shape) = (nodes.shape(&x)?, nodes.shape(&y)?);
    let x_batch = nodes.slice(&x_shape, None, Some(-2))?;
    let y_batch = nodes.slice(&y_shape, None, Some(-2))?;
    let axes = nodes
        .node("BroadcastGradientArgs")
        .input(&x_batch)
        .input(&y_batch)
        .build_all()?;
    let sum = |gradient: &Tensor, axes: &Tensor, shape: &Tensor| {
        let sum = nodes.reduce("Sum", gradient, Some(axes.into_operand()), false)?;
        nodes.reshape(&sum, shape).map(Some)
    };
    Ok(vec![
        sum(&x_gradient, &axes[0], &x_shape)?,
        sum(&y_gradient, &axes[1], &y_shape)?,
    ])
}
