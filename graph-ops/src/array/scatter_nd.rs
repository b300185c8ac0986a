//! `GatherNd`, `ScatterNd` and the scattering of updates into tensors: slices addressed by vectors of indices.

use std::sync::atomic::{AtomicUsize, Ordering};

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, DType, Element, Error, PartialShape, Result, Shape};
use graph_cuda::{Cuda, arguments};

use crate::array::moving::{Movement, Word, plan};
use crate::array::shape::shape_of_type;
use crate::cpu::parallel::{GRAIN, for_each_chunk};
use crate::cpu::scatter::scatter_rows;
use crate::cuda::copy::{Transfer, longest_word};
use crate::cuda::fill::Fill;
use crate::cuda::scatter::{self, Depth, Extent, Scatter};
use crate::cuda::{NAMED, NUMBERS, SIZED, type_name, word_of};

/// Numbers that can be added up in any kernel; integers wrap.
pub(crate) trait Accumulate: Element {
    /// The sum.
    fn plus(self, other: Self) -> Self;
    /// The difference.
    fn minus(self, other: Self) -> Self;
}

macro_rules! accumulate {
    ($($type:ty),*; $plus:expr, $minus:expr) => {$(
        impl Accumulate for $type {
            fn plus(self, other: Self) -> Self {
                let plus: fn(Self, Self) -> Self = $plus;
                plus(self, other)
            }
            fn minus(self, other: Self) -> Self {
                let minus: fn(Self, Self) -> Self = $minus;
                minus(self, other)
            }
        }
    )*};
}

accumulate!(f32, f64, half::f16, half::bf16, Complex<f32>, Complex<f64>; |a, b| a + b, |a, b| a - b);
accumulate!(i8, i16, i32, i64, u8, u16, u32, u64; |a, b| a.wrapping_add(b), |a, b| a.wrapping_sub(b));
accumulate!(bool; |a, b| a | b, |a, b| a & !b);

/// `GatherNd`
pub(crate) fn gather_nd_definition() -> OpDefinition {
    OpDefinition::new(
        "GatherNd",
        "Slices of a tensor, each addressed by a vector of indices into its first dimensions.",
    )
    .input("params: Tparams")
    .input("indices: Tindices")
    .output("output: Tparams")
    .attr("Tparams: type")
    .attr("Tindices: {int32, int64}")
    .may_fail()
    .shape(gathered)
    .gradient(|context| {
        let indices = context.input(1);
        let shape = shape_of_type(&context.input(0), indices.dtype(), "Shape")?;
        let sum = context
            .node("ScatterNd")
            .input(indices)
            .input(context.gradient(0)?)
            .input(shape)
            .build()?;
        Ok(vec![Some(sum), None])
    })
    .kernel(KernelDefinition::cpu(|request| {
        let address = Address::new(request.input_shape(0), request.input_shape(1), 1, request)?;
        plan(request, [0], Pick(address))
    }))
    .kernel(KernelDefinition::cuda(picking).types("Tparams", SIZED))
}

/// `GatherNd` on a device, where indices outside of the tensor pick zeros.
fn picking(request: &KernelRequest<'_>) -> Result<Planned> {
    let address = Address::new(request.input_shape(0), request.input_shape(1), 1, request)?;
    if address.count > 0 && request.input_shape(0).num_elements() == 0 {
        // The host, which looks at indices, tells what is wrong.
        return Err(Error::invalid_argument("there is nothing that indices could pick"));
    }
    let dims = Depth::new(&address.dims)?;
    let (bytes, _) = word_of(request.input_dtype(0))?;
    let (longest, word) = longest_word(bytes, address.slice)?;
    let inner = address.slice * bytes / longest;
    let n = address.count * inner;
    let defines = [("W", word), ("I", type_name(address.index_type)?)];
    let function = Cuda::of(request)?.function(&super::gather::SOURCE, "gather_points", &defines)?;
    let function = function.moving(super::gather::picked_bytes(request));
    Ok(Planned::new(move |context| {
        let (params, indices) = (context.input_address(0), context.input_address(1));
        let output = context.output_address(0);
        // SAFETY: these are the kernel's parameters, which say how many words each tensor has.
        unsafe { function.launch_over(n, arguments![output, params, indices, n as i64, inner as i64, dims]) }
    }))
}

fn gathered(context: &mut InferenceContext<'_>) -> Result<()> {
    let indices = context.with_rank_at_least(1, 1)?;
    let params = context.input(0).clone();
    let (Some(params), Some(indices)) = (params.dims(), indices.dims()) else {
        return Ok(());
    };
    let (depth, places) = (indices[indices.len() - 1], &indices[..indices.len() - 1]);
    let Some(depth) = depth else { return Ok(()) };
    check_depth(depth, params.len())?;
    context.set_output(
        0,
        PartialShape::from_dims(places.iter().chain(&params[depth..]).copied()),
    );
    Ok(())
}

fn check_depth(depth: usize, rank: usize) -> Result<()> {
    if depth <= rank {
        return Ok(());
    }
    Err(
        Error::invalid_argument("the vectors of indices are longer than the tensor's rank")
            .expected(format!("at most {rank} indices"))
            .got(depth),
    )
}

/// How vectors of indices address slices.
struct Address {
    /// The dimensions that the indices speak of.
    dims: Vec<usize>,
    /// The number of elements of a slice.
    slice: usize,
    /// The number of vectors.
    count: usize,
    /// Which input the indices are.
    input: usize,
    index_type: DType,
}

impl Address {
    fn new(shape: &Shape, indices: &Shape, input: usize, request: &KernelRequest<'_>) -> Result<Self> {
        let (&depth, places) = indices
            .split_last()
            .ok_or_else(|| Error::invalid_argument("the indices must be at least a vector"))?;
        check_depth(depth, shape.rank())?;
        Ok(Self {
            dims: shape[..depth].to_vec(),
            slice: shape[depth..].iter().product(),
            count: places.iter().product(),
            input,
            index_type: request.input_dtype(input),
        })
    }

    /// Where each slice begins.
    fn starts(&self, context: &KernelContext<'_>) -> Result<Vec<usize>> {
        match self.index_type {
            DType::Int32 => self.starts_of(context.input::<i32>(self.input)?),
            _ => self.starts_of(context.input::<i64>(self.input)?),
        }
    }

    fn starts_of<I: Index>(&self, indices: &[I]) -> Result<Vec<usize>> {
        (0..self.count)
            .map(|at| self.start(indices, at).ok_or_else(|| self.outside(indices, at)))
            .collect()
    }

    /// Where slice `at` begins, if it lies in the tensor.
    #[inline(always)]
    fn start<I: Index>(&self, indices: &[I], at: usize) -> Option<usize> {
        let vector = self.vector(indices, at);
        let place = vector.iter().zip(&self.dims).try_fold(0, |place, (&index, &dim)| {
            let index: usize = index.try_into().ok()?;
            (index < dim).then(|| place * dim + index)
        });
        place.map(|place| place * self.slice)
    }

    fn vector<'i, I>(&self, indices: &'i [I], at: usize) -> &'i [I] {
        &indices[at * self.dims.len()..(at + 1) * self.dims.len()]
    }

    /// The error of vector `at`, which indexes no slice.
    fn outside<I: Index>(&self, indices: &[I], at: usize) -> Error {
        let vector = self.vector(indices, at);
        Error::invalid_argument(format!("indices[{at}] = {vector:?} does not index into the tensor"))
            .expected(format!("indices below {:?}", self.dims))
    }
}

/// `int32` or `int64`.
trait Index: Copy + Sync + TryInto<usize> + std::fmt::Debug {}

impl Index for i32 {}
impl Index for i64 {}

struct Pick(Address);

impl Pick {
    fn pick<T: Word, I: Index>(&self, indices: &[I], input: &[T], output: &mut [T]) -> Result<()> {
        let (address, slice) = (&self.0, self.0.slice);
        if output.is_empty() {
            return address.starts_of(indices).map(|_| ());
        }
        let wrong = AtomicUsize::new(usize::MAX);
        for_each_chunk(output, GRAIN.div_ceil(4 * slice) * slice, |start, output| {
            for (out, at) in output.chunks_exact_mut(slice).zip(start / slice..) {
                let Some(from) = address.start(indices, at) else {
                    wrong.fetch_min(at, Ordering::Relaxed);
                    continue;
                };
                match out {
                    [out] => *out = input[from],
                    _ => out.copy_from_slice(&input[from..from + slice]),
                }
            }
        });
        match wrong.into_inner() {
            usize::MAX => Ok(()),
            at => Err(address.outside(indices, at)),
        }
    }
}

impl Movement for Pick {
    fn run<T: Word>(&self, context: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        match self.0.index_type {
            DType::Int32 => self.pick(context.input::<i32>(self.0.input)?, inputs[0], outputs[0]),
            _ => self.pick(context.input::<i64>(self.0.input)?, inputs[0], outputs[0]),
        }
    }
}

/// `TensorScatterUpdate`
pub(crate) fn update_definition() -> OpDefinition {
    scattering(
        "TensorScatterUpdate",
        "A tensor with slices replaced by updates; of several for one slice the last counts.",
        "tensor: T",
        "T: type",
    )
    .gradient(|context| {
        let (indices, gradient) = (context.input(1), context.gradient(0)?);
        let updates = context.node("GatherNd").input(&gradient).input(&indices).build()?;
        let whole = context.node("Identity").input(gradient).build()?;
        let zeros = crate::array::zeros_like(context.input(2)).build()?;
        let rest = context
            .node("TensorScatterUpdate")
            .input(whole)
            .input(indices)
            .input(zeros)
            .build()?;
        Ok(vec![Some(rest), None, Some(updates)])
    })
    .kernel(KernelDefinition::cpu(|request| {
        let address = Address::new(request.input_shape(0), request.input_shape(1), 1, request)?;
        plan(request, [0, 2], Replace(address))
    }))
    .kernel(KernelDefinition::cuda(|request| scattered(request, 1, "update")).types("T", NAMED))
}

/// The definition of an op that brings updates into a tensor.
fn scattering(name: &'static str, summary: &'static str, tensor: &'static str, types: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input(tensor)
        .input("indices: Tindices")
        .input("updates: T")
        .output("output: T")
        .attr(types)
        .attr("Tindices: {int32, int64}")
        .may_fail()
        .shape(|context| {
            check_updates(context.input(1), context.input(2), context.input(0))?;
            InferenceContext::unchanged(context)
        })
}

/// Updates have the shape of the places followed by that of a slice.
fn check_updates(indices: &PartialShape, updates: &PartialShape, whole: &PartialShape) -> Result<()> {
    let (Some(indices), Some(dims)) = (indices.dims(), whole.dims()) else {
        return Ok(());
    };
    let Some((depth, places)) = indices.split_last() else {
        return Err(Error::invalid_argument("the indices must be at least a vector"));
    };
    let Some(depth) = *depth else { return Ok(()) };
    check_depth(depth, dims.len())?;
    let expected = PartialShape::from_dims(places.iter().chain(&dims[depth..]).copied());
    if expected.is_compatible_with(updates) {
        return Ok(());
    }
    Err(
        Error::invalid_argument("the updates do not fit the indices and the tensor")
            .expected(expected)
            .got(updates),
    )
}

struct Replace(Address);

impl Movement for Replace {
    fn run<T: Word>(&self, context: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let slice = self.0.slice;
        outputs[0].copy_from_slice(inputs[0]);
        for (at, start) in self.0.starts(context)?.into_iter().enumerate() {
            outputs[0][start..start + slice].copy_from_slice(&inputs[1][at * slice..(at + 1) * slice]);
        }
        Ok(())
    }
}

/// Adds a kernel for every number type.
macro_rules! for_numbers {
    ($definition:expr, $make:ident) => {
        for_numbers!(@ $definition, $make; f32, f64, half::f16, half::bf16, i8, i16, i32, i64, u8, u16, u32, u64,
            Complex<f32>, Complex<f64>, bool)
    };
    (@ $definition:expr, $make:ident; $($type:ty),*) => {
        $definition$(.kernel(KernelDefinition::cpu($make::<$type>).types("T", &[<$type>::DTYPE])))*
    };
}

/// `ScatterNd`
pub(crate) fn scatter_nd_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "ScatterNd",
        "Updates added up in their places among zeros of the shape `shape`.",
    )
    .input("indices: Tindices")
    .input("updates: T")
    .input("shape: Tindices")
    .output("output: T")
    .attr("T: type")
    .attr("Tindices: {int32, int64}")
    .may_fail()
    .plan_time_inputs(&[2])
    .shape(|context| {
        let shape = context.shape_from_input(2)?;
        check_updates(context.input(0), context.input(1), &shape)?;
        context.set_output(0, shape);
        Ok(())
    })
    .gradient(|context| {
        let picked = context
            .node("GatherNd")
            .input(context.gradient(0)?)
            .input(context.input(0))
            .build()?;
        Ok(vec![None, Some(picked), None])
    });
    for_numbers!(definition, scatter)
        .kernel(KernelDefinition::cuda(|request| scattered(request, 0, "old + update")).types("T", NUMBERS))
}

/// `TensorScatterAdd`
pub(crate) fn add_definition() -> OpDefinition {
    let summary = "A tensor with updates added to slices.";
    let definition = scattering("TensorScatterAdd", summary, "tensor: T", "T: type")
        .gradient(|context| add_gradient(context, true, false));
    for_numbers!(definition, add)
        .kernel(KernelDefinition::cuda(|request| scattered(request, 1, "old + update")).types("T", NUMBERS))
}

/// `TensorScatterSub`
pub(crate) fn sub_definition() -> OpDefinition {
    let summary = "A tensor with updates subtracted from slices.";
    let definition = scattering("TensorScatterSub", summary, "tensor: T", "T: type")
        .gradient(|context| add_gradient(context, true, true));
    for_numbers!(definition, subtract)
        .kernel(KernelDefinition::cuda(|request| scattered(request, 1, "old - update")).types("T", NUMBERS))
}

/// `ScatterNdNonAliasingAdd`
pub(crate) fn non_aliasing_add_definition() -> OpDefinition {
    let summary = "A tensor with updates added to slices.";
    let definition = scattering("ScatterNdNonAliasingAdd", summary, "input: T", "T: {numbertype, bool}")
        .gradient(|context| add_gradient(context, false, false));
    for_numbers!(definition, add)
        .kernel(KernelDefinition::cuda(|request| scattered(request, 1, "old + update")).types("T", NUMBERS))
}

fn add_gradient(context: &mut GradientContext<'_>, copies: bool, negative: bool) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let mut updates = context
        .node("GatherNd")
        .input(&gradient)
        .input(context.input(1))
        .build()?;
    let whole = if copies {
        context.node("Identity").input(gradient).build()?
    } else {
        gradient
    };
    if negative {
        updates = context.node("Neg").input(updates).build()?;
    }
    Ok(vec![Some(whole), None, Some(updates)])
}

/// Updates on a device, which come behind their indices, input `indices`: in input 0 or, if that is the indices, among zeros.
/// Indices outside of the tensor are left out.
fn scattered(request: &KernelRequest<'_>, indices: usize, change: &str) -> Result<Planned> {
    let (dtype, output) = (request.output_dtype(0), request.output_shape(0)?);
    let address = Address::new(output, request.input_shape(indices), indices, request)?;
    let extent = Extent {
        dims: Depth::new(&address.dims)?,
        inner: address.slice,
        repeated: false,
    };
    let len = output.num_elements();
    let (zeros, copy) = (Fill::zeros(request, dtype, len)?, Transfer::all(request, dtype, len)?);
    let scatter = Scatter::new(request, dtype, address.index_type, address.count, change)?;
    let planned = Planned::new(move |context| {
        let (numbers, updates) = (context.input_address(indices), context.input_address(indices + 1));
        let (output, scratch) = (context.output_address(0), context.scratch_address());
        // SAFETY: the sizes are those of the tensors.
        unsafe {
            match indices {
                0 => zeros.run(output)?,
                _ => copy.run(context.input_address(0), output)?,
            }
            scatter.run(output, numbers, updates, extent, scratch)
        }
    });
    Ok(planned.with_scratch(scatter::scratch(address.count)))
}

/// Updates (input 1) at indices (input 0) among zeros.
fn scatter<T: Accumulate>(request: &KernelRequest<'_>) -> Result<Planned> {
    let address = Address::new(request.output_shape(0)?, request.input_shape(0), 0, request)?;
    Ok(Planned::new(move |context| {
        let (updates, output) = (context.input::<T>(1)?, context.output::<T>(0)?);
        output.fill(T::default());
        combine(&address.starts(context)?, address.slice, updates, output, T::plus);
        Ok(())
    }))
}

fn add<T: Accumulate>(request: &KernelRequest<'_>) -> Result<Planned> {
    into_tensor::<T>(request, T::plus)
}

fn subtract<T: Accumulate>(request: &KernelRequest<'_>) -> Result<Planned> {
    into_tensor::<T>(request, T::minus)
}

/// Updates (input 2) at indices (input 1) combined with a tensor (input 0).
fn into_tensor<T: Accumulate>(
    request: &KernelRequest<'_>,
    with: impl Fn(T, T) -> T + Copy + Send + Sync + 'static,
) -> Result<Planned> {
    let address = Address::new(request.input_shape(0), request.input_shape(1), 1, request)?;
    Ok(Planned::new(move |context| {
        let (updates, output) = (context.input::<T>(2)?, context.output::<T>(0)?);
        output.copy_from_slice(context.input::<T>(0)?);
        combine(&address.starts(context)?, address.slice, updates, output, with);
        Ok(())
    }))
}

/// Combines slices in the order of the updates.
fn combine<T: Accumulate>(
    starts: &[usize],
    slice: usize,
    updates: &[T],
    output: &mut [T],
    with: impl Fn(T, T) -> T + Sync,
) {
    scatter_rows(starts, slice, updates, output, |old, new| {
        old.iter_mut().zip(new).for_each(|(old, &new)| *old = with(*old, new));
    });
}

/// The slices of `params` that the vectors `indices[..., :]` address; each vector counts through the first dimensions.
///
/// ```
/// use graph_ops::array::{constant, gather_nd};
/// let rows = constant([[1, 2], [3, 4]]).build()?;
/// assert_eq!(gather_nd(&rows, [[0, 0], [1, 1]]).build()?.shape(), [2].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` in the run for an index outside of its dimension.
#[track_caller]
pub fn gather_nd(params: impl IntoOperand, indices: impl IntoOperand) -> OpBuilder {
    crate::op("GatherNd").input(params).input(indices)
}

/// A tensor of shape `shape` of zeros to which the slices `updates` are added at `indices`, as [`gather_nd`] reads them.
///
/// # Errors
/// `InvalidArgument` in the run for an index outside of its dimension.
#[track_caller]
pub fn scatter_nd(indices: impl IntoOperand, updates: impl IntoOperand, shape: impl IntoOperand) -> OpBuilder {
    crate::op("ScatterNd").input(indices).input(updates).input(shape)
}

/// `tensor` with the slices at `indices` replaced by `updates`.
#[track_caller]
pub fn tensor_scatter_update(
    tensor: impl IntoOperand,
    indices: impl IntoOperand,
    updates: impl IntoOperand,
) -> OpBuilder {
    crate::op("TensorScatterUpdate")
        .input(tensor)
        .input(indices)
        .input(updates)
}

/// `tensor` with `updates` added to the slices at `indices`.
#[track_caller]
pub fn tensor_scatter_add(tensor: impl IntoOperand, indices: impl IntoOperand, updates: impl IntoOperand) -> OpBuilder {
    crate::op("TensorScatterAdd")
        .input(tensor)
        .input(indices)
        .input(updates)
}

/// `tensor` with `updates` subtracted from the slices at `indices`.
#[track_caller]
pub fn tensor_scatter_sub(tensor: impl IntoOperand, indices: impl IntoOperand, updates: impl IntoOperand) -> OpBuilder {
    crate::op("TensorScatterSub")
        .input(tensor)
        .input(indices)
        .input(updates)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    use half::{bf16, f16};
    let rows = [[1.0f32, 2.0], [3.0, 4.0]];
    let mut cases = vec![
        Case::new("GatherNd")
            .input(rows)
            .input([[1i32, 0], [0, 1]])
            .expect([3.0f32, 2.0]),
        Case::new("GatherNd")
            .input(rows)
            .input([[1i64], [0], [1]])
            .expect([rows[1], rows[0], rows[1]]),
        Case::new("GatherNd")
            .input(rows)
            .input(Value::zeros(DType::Int32, [2, 0]).unwrap())
            .expect(
                Value::from([1.0f32, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0])
                    .reshaped([2, 2, 2])
                    .unwrap(),
            ),
        Case::new("GatherNd")
            .input(Value::from_strings([2], vec![b"a".to_vec(), b"b".to_vec()]).unwrap())
            .input([1i32])
            .expect("b"),
        Case::new("ScatterNd")
            .input([[1i32], [1]])
            .input(rows)
            .input([3i32, 2])
            .expect([[0.0f32, 0.0], [4.0, 6.0], [0.0, 0.0]]),
        Case::new("TensorScatterUpdate")
            .input([true, false])
            .input([[0i64]])
            .input([false])
            .expect([false, false]),
    ];
    macro_rules! numbers {
        ($($type:ty: $one:expr),*) => {$(
            let one: $type = $one;
            let (two, zero) = (one.plus(one), one.minus(one));
            cases.extend([
                Case::new("ScatterNd").input([[1i64], [1]]).input([one, one]).input([2i64]).expect([zero, two]),
                Case::new("TensorScatterAdd").input([one, one]).input([[0i32]]).input([one]).expect([two, one]),
                Case::new("ScatterNdNonAliasingAdd").input([one, one]).input([[0i32]]).input([one]).expect([two, one]),
                Case::new("TensorScatterSub").input([two, one]).input([[0i32]]).input([one]).expect([one, one]),
            ]);
        )*};
    }
    numbers!(f32: 1.0, f64: 1.0, f16: f16::ONE, bf16: bf16::ONE, i8: 1, i16: 1, i32: 1, i64: 1, u8: 1, u16: 1, u32: 1,
        u64: 1, Complex<f32>: Complex::new(1.0, 2.0), Complex<f64>: Complex::new(1.0, 2.0));
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let rows = [[1.0f64, 2.0], [3.0, 4.0]];
    let scatter = |op: &'static str| {
        GradientCase::new(op)
            .input(rows)
            .input([[1i32, 0], [0, 0]])
            .input([0.5f64, 1.5])
    };
    vec![
        GradientCase::new("GatherNd").input(rows).input([[1i32], [1]]),
        GradientCase::new("GatherNd").input(rows).input([[1i32, 0], [1, 0]]),
        GradientCase::new("ScatterNd")
            .input([[2i32], [0]])
            .input(rows)
            .input([3i32, 2]),
        scatter("TensorScatterUpdate"),
        scatter("TensorScatterAdd"),
        scatter("TensorScatterSub"),
        scatter("ScatterNdNonAliasingAdd"),
    ]
}

#[cfg(test)]
mod tests;
