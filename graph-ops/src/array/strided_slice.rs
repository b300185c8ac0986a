//! `StridedSlice` and `StridedSliceGrad`: NumPy's indexing by ranges, single indices, new axes and the ellipsis.

mod index;
pub(crate) mod spec;

pub use index::{Index, StridedIndex, index};

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Error, PartialShape, Result, Shape, typed_builder};

use crate::array::axis::planned_ints;
use crate::array::moving::{Movement, Word, plan};
use crate::array::shape::shape_of_type;
use crate::cpu::copy::{strided_assign, strided_slice as copy_slice};
use crate::cuda::SIZED;
use crate::cuda::copy::{Transfer, copy, sliced};
use crate::cuda::fill::Fill;
use spec::{Entries, Masks, NAMES, Resolved, resolve};

pub(crate) fn masks(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("T: type")
        .attr("Index: {int32, int64}")
        .attr("begin_mask: int = 0")
        .attr("end_mask: int = 0")
        .attr("ellipsis_mask: int = 0")
        .attr("new_axis_mask: int = 0")
        .attr("shrink_axis_mask: int = 0")
}

/// `StridedSlice`
pub(crate) fn definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "StridedSlice",
        "Every stride-th element from begin to end along each dimension, indexed as NumPy does.",
    );
    masks(
        definition
            .input("input: T")
            .input("begin: Index")
            .input("end: Index")
            .input("strides: Index"),
    )
    .output("output: T")
    .plan_time_inputs(&[1, 2, 3])
    .shape(shape)
    .value_as_shape(sliced_shape)
    .gradient(gradient)
    .kernel(KernelDefinition::cpu(kernel))
    .kernel(KernelDefinition::cuda(taking).types("T", SIZED))
}

/// `StridedSliceGrad`
pub(crate) fn grad_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "StridedSliceGrad",
        "The gradient of StridedSlice: `dy` in its place among zeros of the shape `shape`.",
    );
    let definition = definition
        .input("shape: Index")
        .input("begin: Index")
        .input("end: Index")
        .input("strides: Index");
    masks(definition.input("dy: T"))
        .output("output: T")
        .plan_time_inputs(&[0, 1, 2, 3])
        .shape(|context| {
            let shape = context.shape_from_input(0)?;
            context.set_output(0, shape);
            Ok(())
        })
        .gradient(gradient_of_gradient)
        .kernel(KernelDefinition::cpu(grad_kernel))
        .kernel(KernelDefinition::cuda(putting).types("T", SIZED))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (begin, end) = (context.with_rank(1, 1)?, context.with_rank(2, 1)?);
    begin.merge(&end)?.merge(&context.with_rank(3, 1)?)?;
    let input = context.input(0).clone();
    let (Some(dims), Some(strides)) = (input.dims(), context.int_values(3)?) else {
        return Ok(());
    };
    let entries = Entries {
        begin: context.int_values(1)?,
        end: context.int_values(2)?,
        strides,
    };
    let resolved = resolve(dims, &entries, Masks::of_context(context)?)?;
    context.set_output(0, resolved.shape);
    Ok(())
}

/// A part of a vector of dimensions.
fn sliced_shape(context: &InferenceContext<'_>, _: usize) -> Option<PartialShape> {
    let masks = Masks::of_context(context).ok()?;
    if masks.ellipsis | masks.new_axis | masks.shrink != 0 {
        return None;
    }
    let whole = context.value_as_shape(0)?;
    let dims = whole.dims()?;
    let ints = |index: usize| context.int_values(index).ok()?;
    let entries = Entries {
        begin: Some(ints(1)?),
        end: Some(ints(2)?),
        strides: ints(3)?,
    };
    let resolved = resolve(&[Some(dims.len())], &entries, masks).ok()?;
    let range = resolved.ranges.first()?;
    let places = (0..range.len? as i64).map(|step| range.begin as i64 + step * range.stride);
    Some(PartialShape::from_dims(places.map(|place| dims[place as usize])))
}

/// The gradient in its place among zeros.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let dtype = context.input(1).dtype();
    let shape = shape_of_type(&context.input(0), dtype, "Shape")?;
    let known = |tensor: Tensor| match tensor.constant_value() {
        Some(value) => Operand::Array(value),
        None => Operand::Tensor(tensor),
    };
    let mut node = context.node("StridedSliceGrad").input(known(shape));
    for index in 1..4 {
        node = node.input(known(context.input(index)));
    }
    node = node.input(context.gradient(0)?);
    for name in NAMES {
        node = node.attr(name, context.attr_value(name)?);
    }
    Ok(vec![Some(node.build()?), None, None, None])
}

fn gradient_of_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let mut node = context.node("StridedSlice").input(context.gradient(0)?);
    for index in 1..4 {
        node = node.input(context.input(index));
    }
    for name in NAMES {
        node = node.attr(name, context.attr_value(name)?);
    }
    Ok(vec![None, None, None, None, Some(node.build()?)])
}

/// A slice whose numbers are all known.
struct Known {
    shape: Vec<usize>,
    begin: Vec<usize>,
    steps: Vec<isize>,
    lengths: Vec<usize>,
}

impl Known {
    fn new(request: &KernelRequest<'_>, shape: &Shape) -> Result<(Self, Shape)> {
        let (begin, end) = (Some(planned_ints(request, 1)?), Some(planned_ints(request, 2)?));
        let entries = Entries {
            begin,
            end,
            strides: planned_ints(request, 3)?,
        };
        let partial = PartialShape::from(shape);
        let dims = partial.dims().unwrap_or_default();
        let resolved: Resolved = resolve(dims, &entries, Masks::of_attrs(request.attrs)?)?;
        let lengths = resolved
            .lengths()
            .ok_or_else(|| Error::internal("a slice of a known shape"))?;
        let result = resolved
            .shape
            .to_shape()
            .ok_or_else(|| Error::internal("a slice of a known shape"))?;
        let known = Self {
            shape: shape.to_vec(),
            begin: resolved.ranges.iter().map(|range| range.begin).collect(),
            steps: resolved.ranges.iter().map(|range| range.stride as isize).collect(),
            lengths,
        };
        Ok((known, result))
    }
}

struct Take(Known);

impl Movement for Take {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Known {
            shape,
            begin,
            steps,
            lengths,
        } = &self.0;
        if !outputs[0].is_empty() {
            copy_slice(inputs[0], shape, begin, steps, outputs[0], lengths);
        }
        Ok(())
    }
}

struct Put(Known);

impl Movement for Put {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Known {
            shape,
            begin,
            steps,
            lengths,
        } = &self.0;
        outputs[0].fill(T::default());
        if !inputs[0].is_empty() {
            strided_assign(inputs[0], lengths, begin, steps, outputs[0], shape);
        }
        Ok(())
    }
}

fn kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let (known, _) = Known::new(request, request.input_shape(0))?;
    plan(request, [0], Take(known))
}

/// The slice on a device.
fn taking(request: &KernelRequest<'_>) -> Result<Planned> {
    let (known, _) = Known::new(request, request.input_shape(0))?;
    let (from, axes) = sliced(&known.shape, &known.begin, &known.steps, &known.lengths);
    copy(request, 0, from, &axes)
}

/// The gradient on a device.
fn putting(request: &KernelRequest<'_>) -> Result<Planned> {
    let known = known_of_grad(request)?;
    let (to, mut axes) = sliced(&known.shape, &known.begin, &known.steps, &known.lengths);
    // The other way round: from the slice to its place.
    axes.iter_mut()
        .for_each(|axis| (axis.from, axis.to) = (axis.to, axis.from));
    let dtype = request.input_dtype(4);
    let count = request.output_shape(0)?.num_elements();
    let (zeros, copy) = (
        Fill::zeros(request, dtype, count)?,
        Transfer::new(request, dtype, 0, to, &axes)?,
    );
    Ok(Planned::new(move |context| {
        let (input, output) = (context.input_address(4), context.output_address(0));
        // SAFETY: the output has `count` elements, and the copy was made for both shapes.
        unsafe {
            zeros.run(output)?;
            copy.run(input, output)
        }
    }))
}

fn grad_kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let known = known_of_grad(request)?;
    plan(request, [4], Put(known))
}

fn known_of_grad(request: &KernelRequest<'_>) -> Result<Known> {
    let (known, result) = Known::new(request, request.output_shape(0)?)?;
    if result != *request.input_shape(4) {
        return Err(Error::invalid_argument("'dy' has not the shape of the slice")
            .expected(result)
            .got(request.input_shape(4)));
    }
    Ok(known)
}

typed_builder! {
    /// A strided slice about to be made; see [`strided_slice`].
    pub struct StridedSlice;
}

macro_rules! mask_options {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        impl StridedSlice {
            $($(#[$doc])*
            pub fn $name(self, mask: i64) -> Self {
                Self(self.0.attr(stringify!($name), mask))
            })*
        }
    };
}

mask_options! {
    /// Where bit i is set, the slice begins at the edge, whatever `begin[i]` says.
    begin_mask;
    /// Where bit i is set, the slice ends at the edge, whatever `end[i]` says.
    end_mask;
    /// Where bit i is set, entry i stands for all dimensions that no other entry names.
    ellipsis_mask;
    /// Where bit i is set, entry i puts in a dimension of size 1.
    new_axis_mask;
    /// Where bit i is set, entry i takes the one element at `begin[i]` and drops the dimension.
    shrink_axis_mask;
}

/// Every `strides[i]`-th element from `begin[i]` up to, not including, `end[i]` of each dimension i of `input`. Negative
/// begins and ends are counted from the end, negative strides go backwards. [`index`] writes the same as Rust ranges.
///
/// ```
/// use graph_ops::array::{constant, strided_slice};
/// let numbers = constant([0, 1, 2, 3, 4, 5]).build()?;
/// assert_eq!(strided_slice(&numbers, [4], [0], [-2]).build()?.shape(), [2].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` for a stride of zero, more entries than dimensions, or a single index outside of the tensor.
#[track_caller]
pub fn strided_slice(
    input: impl IntoOperand,
    begin: impl IntoOperand,
    end: impl IntoOperand,
    strides: impl IntoOperand,
) -> StridedSlice {
    StridedSlice(
        crate::op("StridedSlice")
            .input(input)
            .input(begin)
            .input(end)
            .input(strides),
    )
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let rows = [[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let slice = |begin: [i32; 2], end: [i32; 2], strides: [i32; 2]| {
        Case::new("StridedSlice")
            .input(rows)
            .input(begin)
            .input(end)
            .input(strides)
    };
    let words = Value::from_strings([3], vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]).unwrap();
    vec![
        slice([0, 1], [2, 3], [1, 1]).expect([[2.0f32, 3.0], [5.0, 6.0]]),
        slice([1, -1], [-3, -4], [-1, -2]).expect([[6.0f32, 4.0], [3.0, 1.0]]),
        slice([1, 0], [2, 9], [1, 2])
            .attr("shrink_axis_mask", 1i64)
            .expect([4.0f32, 6.0]),
        slice([1, 2], [0, 0], [1, 1])
            .attr("shrink_axis_mask", 3i64)
            .expect(6.0f32),
        slice([7, 1], [7, 2], [1, 1])
            .attr("begin_mask", 1i64)
            .attr("end_mask", 1i64)
            .expect([[2.0f32], [5.0]]),
        slice([0, 0], [0, 1], [1, 1])
            .attr("ellipsis_mask", 1i64)
            .expect([[1.0f32], [4.0]]),
        slice([0, 1], [0, 2], [1, 1])
            .attr("new_axis_mask", 1i64)
            .expect(Value::from([[4.0f32, 5.0, 6.0]]).reshaped([1, 1, 3]).unwrap()),
        slice([1, 0], [1, 3], [1, 1]).expect(Value::zeros(graph_core::DType::Float32, [0, 3]).unwrap()),
        Case::new("StridedSlice")
            .input(&words)
            .input([2i64])
            .input([-4i64])
            .input([-1i64])
            .expect(Value::from_strings([3], vec![b"c".to_vec(), b"b".to_vec(), b"a".to_vec()]).unwrap()),
        Case::new("StridedSliceGrad")
            .input([4i32])
            .input([3i32])
            .input([0i32])
            .input([-2i32])
            .input([1i64, 2])
            .expect([0i64, 2, 0, 1]),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let rows = [[1.0f64, 2.0, 3.0], [4.0, 5.0, 6.0]];
    vec![
        GradientCase::new("StridedSlice")
            .attr("shrink_axis_mask", 1i64)
            .input(rows)
            .input([1i32, -1])
            .input([2i32, 0])
            .input([1i32, -1]),
        GradientCase::new("StridedSlice")
            .attr("ellipsis_mask", 1i64)
            .attr("new_axis_mask", 2i64)
            .attr("begin_mask", 4i64)
            .attr("end_mask", 4i64)
            .input([rows, rows])
            .input([0i32, 0, 0])
            .input([0i32, 0, 0])
            .input([1i32, 1, 2]),
        GradientCase::new("StridedSliceGrad")
            .attr("shrink_axis_mask", 1i64)
            .input([2i32, 3])
            .input([1i32, -1])
            .input([2i32, 0])
            .input([1i32, -1])
            .input([0.5f64, -1.5]),
    ]
}
