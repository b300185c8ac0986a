//! `SparseTensorDenseAdd` and `SparseToDense`: lists of positions and values, made dense.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, DType, Element, Error, Result, Shape, typed_builder};
use half::{bf16, f16};

use super::nodes::Nodes;
use crate::cpu::copy::CopyAxis;
use crate::cuda::copy::Transfer;
use crate::cuda::scatter::{self, Depth, Extent, Scatter};
use crate::cuda::{NAMED, NUMBERS};

/// A kernel for each dtype of the values.
macro_rules! kernels {
    ($definition:expr, $kernel:ident: $($dtype:ident $type:ty = $add:expr),* $(,)?) => {
        $definition $(.kernel(
            KernelDefinition::cpu(|request| $kernel::<$type>(request, $add)).types("T", &[DType::$dtype]),
        ))*
    };
}

/// `SparseTensorDenseAdd`
pub(crate) fn sparse_tensor_dense_add_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "SparseTensorDenseAdd",
        "A dense tensor with values added at positions; values at the same position add up.",
    )
    .input("a_indices: Tindices")
    .input("a_values: T")
    .input("a_shape: Tindices")
    .input("b: T")
    .output("output: T")
    .attr("T: numbertype")
    .attr("Tindices: {int32, int64}")
    .may_fail()
    .shape(add_shape)
    .gradient(add_gradient);
    kernels! {
        definition, add_kernel:
        Float32 f32 = |a, b| a + b,
        Float64 f64 = |a, b| a + b,
        Half f16 = |a, b| a + b,
        BFloat16 bf16 = |a, b| a + b,
        Complex64 Complex<f32> = |a, b| a + b,
        Complex128 Complex<f64> = |a, b| a + b,
        Int8 i8 = i8::wrapping_add,
        Int16 i16 = i16::wrapping_add,
        Int32 i32 = i32::wrapping_add,
        Int64 i64 = i64::wrapping_add,
        UInt8 u8 = u8::wrapping_add,
        UInt16 u16 = u16::wrapping_add,
        UInt32 u32 = u32::wrapping_add,
        UInt64 u64 = u64::wrapping_add,
    }
    .kernel(KernelDefinition::cuda(add_on_device).types("T", NUMBERS))
}

fn add_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    context.with_rank(0, 2)?;
    context.with_rank(1, 1)?;
    let shape = context.shape_from_input(2)?;
    context.set_output(
        0,
        shape
            .merge(context.input(3))
            .map_err(|error| error.context("adding a sparse tensor to a dense one"))?,
    );
    Ok(())
}

/// An index tensor of either dtype.
fn indices(context: &KernelContext<'_>, input: usize) -> Result<Vec<i64>> {
    match context.input_dtype(input) {
        DType::Int64 => Ok(context.input::<i64>(input)?.to_vec()),
        _ => Ok(context.input::<i32>(input)?.iter().map(|&index| index.into()).collect()),
    }
}

/// The place of a position in a tensor of `shape`.
fn place(position: &[i64], shape: &Shape) -> Result<usize> {
    let mut place = 0;
    for (&index, &dim) in position.iter().zip(shape.iter()) {
        match usize::try_from(index).ok().filter(|&index| index < dim) {
            Some(index) => place = place * dim + index,
            None => {
                return Err(Error::invalid_argument("a position lies outside of the tensor")
                    .expected(format!("a position in shape {shape}"))
                    .got(format!("{position:?}")));
            }
        }
    }
    Ok(place)
}

fn mismatch(what: &str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::invalid_argument(format!("a sparse tensor does not fit: {what}"))
        .expected(expected)
        .got(got))
}

/// Values at positions outside of the tensor are left out.
fn add_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    check_add(request)?;
    let (dtype, shape) = (request.input_dtype(1), request.input_shape(3));
    let copy = Transfer::all(request, dtype, shape.num_elements())?;
    let count = request.input_shape(0)[0];
    let scatter = Scatter::new(request, dtype, request.input_dtype(0), count, "old + update")?;
    let extent = Extent {
        dims: Depth::new(shape)?,
        inner: 1,
        repeated: false,
    };
    let planned = Planned::new(move |context| {
        let (positions, values, dense) = (
            context.input_address(0),
            context.input_address(1),
            context.input_address(3),
        );
        let (output, scratch) = (context.output_address(0), context.scratch_address());
        // SAFETY: the sizes are those of the tensors.
        unsafe {
            copy.run(dense, output)?;
            scatter.run(output, positions, values, extent, scratch)
        }
    });
    Ok(planned.with_scratch(scatter::scratch(count)))
}

/// An error unless the sparse and the dense tensor fit together.
fn check_add(request: &KernelRequest<'_>) -> Result<()> {
    let (positions, shape) = (request.input_shape(0), request.input_shape(3));
    mismatch(
        "the rank of its positions and of the dense tensor",
        shape.rank(),
        positions[1],
    )?;
    mismatch("as many values as positions", positions[0], request.input_shape(1)[0])?;
    mismatch(
        "the rank of its shape and of the dense tensor",
        shape.rank(),
        request.input_shape(2)[0],
    )
}

fn add_kernel<T: Element>(request: &KernelRequest<'_>, add: fn(T, T) -> T) -> Result<Planned> {
    check_add(request)?;
    let shape = request.input_shape(3).clone();
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let positions = indices(context, 0)?;
        let dims = indices(context, 2)?;
        if !dims.iter().zip(shape.iter()).all(|(&dim, &dense)| dim == dense as i64) {
            return Err(
                Error::invalid_argument("the sparse and the dense tensor differ in shape")
                    .expected(&shape)
                    .got(format!("{dims:?}")),
            );
        }
        let (values, output) = (context.input::<T>(1)?, context.output::<T>(0)?);
        output.copy_from_slice(context.input::<T>(3)?);
        for (index, &value) in values.iter().enumerate() {
            let rank = shape.rank();
            let slot = &mut output[place(&positions[index * rank..(index + 1) * rank], &shape)?];
            *slot = add(*slot, value);
        }
        Ok(())
    }))
}

fn add_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let values = context
        .node("GatherNd")
        .input(&gradient)
        .input(context.input(0))
        .build()?;
    Ok(vec![None, Some(values), None, Some(gradient)])
}

/// `SparseToDense`
pub(crate) fn sparse_to_dense_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "SparseToDense",
        "A tensor of one value, but for others at given positions.",
    )
    .input("sparse_indices: Tindices")
    .input("output_shape: Tindices")
    .input("sparse_values: T")
    .input("default_value: T")
    .output("dense: T")
    .attr("validate_indices: bool = true")
    .attr("T: type")
    .attr("Tindices: {int32, int64}")
    .plan_time_inputs(&[1])
    .may_fail()
    .shape(|context| {
        context.with_rank_at_most(0, 2)?;
        let shape = context.shape_from_input(1)?;
        context.set_output(0, shape);
        Ok(())
    })
    .gradient(dense_gradient);
    kernels! {
        definition, dense_kernel:
        Float32 f32 = (), Float64 f64 = (), Half f16 = (), BFloat16 bf16 = (), Complex64 Complex<f32> = (),
        Complex128 Complex<f64> = (), Int8 i8 = (), Int16 i16 = (), Int32 i32 = (), Int64 i64 = (), UInt8 u8 = (),
        UInt16 u16 = (), UInt32 u32 = (), UInt64 u64 = (), Bool bool = (),
    }
    .kernel(KernelDefinition::cuda(dense_on_device).types("T", NAMED))
}

/// Values at positions outside of the tensor are left out; the order of the positions is not looked at.
fn dense_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (count, _) = check_dense(request)?;
    let (dtype, shape) = (request.input_dtype(2), request.output_shape(0)?);
    let axes = [CopyAxis {
        len: shape.num_elements(),
        from: 0,
        to: 1,
    }];
    let fill = Transfer::new(request, dtype, 0, 0, &axes)?;
    let scatter = Scatter::new(request, dtype, request.input_dtype(0), count, "update")?;
    let extent = Extent {
        dims: Depth::new(shape)?,
        inner: 1,
        repeated: request.input_shape(2).num_elements() == 1,
    };
    let planned = Planned::new(move |context| {
        let (positions, values, default) = (
            context.input_address(0),
            context.input_address(2),
            context.input_address(3),
        );
        let (output, scratch) = (context.output_address(0), context.scratch_address());
        // SAFETY: the sizes are those of the tensors.
        unsafe {
            fill.run(default, output)?;
            scatter.run(output, positions, values, extent, scratch)
        }
    });
    Ok(planned.with_scratch(scatter::scratch(count)))
}

/// The number of positions and their rank, checked against the other operands.
fn check_dense(request: &KernelRequest<'_>) -> Result<(usize, usize)> {
    let shape = request.output_shape(0)?;
    let positions = request.input_shape(0);
    let (count, rank) = match positions.rank() {
        0 => (1, 1),
        1 => (positions[0], 1),
        _ => (positions[0], positions[1]),
    };
    mismatch("the rank of its positions and of the result", shape.rank(), rank)?;
    let values = request.input_shape(2);
    if values.rank() > 0 {
        mismatch("as many values as positions", count, values[0])?;
    }
    if request.input_shape(3).rank() > 0 {
        return Err(Error::invalid_argument("the default value must be a scalar").got(request.input_shape(3)));
    }
    Ok((count, rank))
}

fn dense_kernel<T: Element>(request: &KernelRequest<'_>, _: ()) -> Result<Planned> {
    let (count, rank) = check_dense(request)?;
    let shape = request.output_shape(0)?.clone();
    let validate: bool = request.attr("validate_indices")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let positions = indices(context, 0)?;
        let (values, default) = (context.input::<T>(2)?, context.input::<T>(3)?[0]);
        let output = context.output::<T>(0)?;
        output.fill(default);
        let mut last: Option<usize> = None;
        for index in 0..count {
            let place = place(&positions[index * rank..(index + 1) * rank], &shape)?;
            if validate && last.is_some_and(|last| last >= place) {
                return Err(
                    Error::invalid_argument("the positions are not in order, or one is repeated")
                        .got(format!("{:?}", &positions[index * rank..(index + 1) * rank]))
                        .hint("sort them, or set validate_indices to false"),
                );
            }
            last = Some(place);
            output[place] = values[if values.len() == 1 { 0 } else { index }];
        }
        Ok(())
    }))
}

fn dense_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let gradient = context.gradient(0)?;
    let values = nodes
        .node("GatherNd")
        .input(&gradient)
        .input(context.input(0))
        .build()?;
    let all = nodes.reduce("Sum", &gradient, None, false)?;
    let taken = nodes.reduce("Sum", &values, None, false)?;
    let default = nodes.sub(&all, &taken)?;
    Ok(vec![None, None, Some(values), Some(default)])
}

typed_builder! {
    /// A dense tensor about to be made; see [`sparse_to_dense`] and [`sparse_tensor_dense_add`].
    pub struct SparseToDense;
}

impl SparseToDense {
    /// Whether positions that are out of order or repeated are an error; true without.
    pub fn validate_indices(self, validate: bool) -> Self {
        Self(self.0.attr("validate_indices", validate))
    }
}

/// A tensor of shape `output_shape` with `sparse_values` (one for all, or one for each) at `sparse_indices` (positions of
/// shape [n, rank], or [n] in a vector), and `default_value` elsewhere.
///
/// # Errors
/// `InvalidArgument` when run if a position lies outside, or if positions are not in order.
#[track_caller]
pub fn sparse_to_dense(
    sparse_indices: impl IntoOperand,
    output_shape: impl IntoOperand,
    sparse_values: impl IntoOperand,
    default_value: impl IntoOperand,
) -> SparseToDense {
    let node = crate::op("SparseToDense").input(sparse_indices).input(output_shape);
    SparseToDense(node.input(sparse_values).input(default_value))
}

typed_builder! {
    /// A sum about to be made; see [`sparse_tensor_dense_add`].
    pub struct SparseTensorDenseAdd;
}

/// The tensor `b` with `values` (shape [n]) added at the positions `indices` (shape [n, rank]) of a sparse tensor of shape
/// `shape`, which must be that of `b`. Values at the same position add up.
///
/// # Errors
/// `InvalidArgument` if the shapes differ, or when run if a position lies outside.
#[track_caller]
pub fn sparse_tensor_dense_add(
    indices: impl IntoOperand,
    values: impl IntoOperand,
    shape: impl IntoOperand,
    b: impl IntoOperand,
) -> SparseTensorDenseAdd {
    let node = crate::op("SparseTensorDenseAdd").input(indices).input(values);
    SparseTensorDenseAdd(node.input(shape).input(b))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let mut cases = vec![
        Case::new("SparseToDense")
            .input([1i32, 3])
            .input([5i32])
            .input([7.0f32, 8.0])
            .input(-1.0f32)
            .expect([-1.0f32, 7.0, -1.0, 8.0, -1.0]),
        Case::new("SparseToDense")
            .input([[0i64, 1], [1, 0]])
            .input([2i64, 2])
            .input(true)
            .input(false)
            .expect([[false, true], [true, false]]),
        Case::new("SparseToDense")
            .input(2i32)
            .input([3i32])
            .input(5u8)
            .input(0u8)
            .expect([0u8, 0, 5]),
        Case::new("SparseToDense")
            .attr("validate_indices", false)
            .input([2i32, 0, 2])
            .input([3i32])
            .input([1i32, 2, 3])
            .input(0i32)
            .expect([2i32, 0, 3]),
    ];
    for &dtype in DType::NUMBERS.iter().filter(|dtype| !dtype.name().starts_with('q')) {
        let numbers = |value: Value| value.cast_exactly(dtype).expect("small whole numbers");
        cases.push(
            Case::new("SparseTensorDenseAdd")
                .input([[0i64, 1], [1, 1], [0, 1]])
                .input(numbers([1i64, 2, 3].into()))
                .input([2i64, 2])
                .input(numbers([[1i64, 1], [1, 1]].into()))
                .expect(numbers([[1i64, 5], [1, 3]].into())),
        );
    }
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    vec![
        GradientCase::new("SparseTensorDenseAdd")
            .input([[0i32, 1], [1, 0]])
            .input([1.0f64, 2.0])
            .input([2i32, 2])
            .input([[0.5f64, 1.5], [-1.0, 2.0]]),
        GradientCase::new("SparseToDense")
            .input([[1i32], [3]])
            .input([4i32])
            .input([7.0f64, 8.0])
            .input(-1.0f64),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn what_does_not_fit_is_an_error() {
        let add = |position: [i32; 2], shape: [i32; 2]| {
            let case = Case::new("SparseTensorDenseAdd").input([position]).input([1.0f32]);
            case.input(shape).input([[0.0f32, 0.0]])
        };
        let dense = |positions: [i32; 2]| {
            Case::new("SparseToDense")
                .input(positions)
                .input([3i32])
                .input(1i32)
                .input(0i32)
        };
        for case in [
            add([0, 2], [1, 2]),
            add([-1, 0], [1, 2]),
            add([0, 0], [2, 1]),
            dense([1, 0]),
            dense([1, 1]),
            dense([0, 3]),
        ] {
            assert_eq!(case.run().unwrap_err().class(), "InvalidArgument", "{}", case.op);
        }
        assert!(add([0, 1], [1, 2]).run().is_ok());
    }
}
