//! `StridedSliceAssign` and `ResourceStridedSliceAssign`: a part of a variable, indexed as by `StridedSlice`, is set.

use graph_core::op::{
    InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned, kernel::MakeKernel,
};
use graph_core::{Complex, DType, Element, Error, PartialShape, Result, Shape};
use half::{bf16, f16};

use super::assign::variable_shape;
use super::update::{by_handle, hand_on};
use crate::array::axis::planned_ints;
use crate::array::strided_slice::masks;
use crate::array::strided_slice::spec::{Entries, Masks, resolve};
use crate::cpu::copy::{CopyAxis, copy_strided, strided_assign, strides};
use crate::cuda::SIZED;
use crate::cuda::copy::{LateTransfer, sliced};

/// `StridedSliceAssign`
pub(crate) fn definition() -> OpDefinition {
    let summary = "Sets every stride-th element of a variable from begin to end along each dimension.";
    with_inputs(OpDefinition::new("StridedSliceAssign", summary)).output("output_ref: Ref(T)")
}

/// `ResourceStridedSliceAssign`
pub(crate) fn resource_definition() -> OpDefinition {
    let summary =
        "Sets every stride-th element of the variable that a handle names from begin to end along each dimension.";
    by_handle(with_inputs(OpDefinition::new("ResourceStridedSliceAssign", summary)))
}

fn with_inputs(definition: OpDefinition) -> OpDefinition {
    let definition = definition
        .input("ref: Ref(T)")
        .input("begin: Index")
        .input("end: Index")
        .input("strides: Index")
        .input("value: T");
    let mut definition = masks(definition)
        .plan_time_inputs(&[1, 2, 3])
        .may_fail()
        .shape(shape)
        .no_gradient();
    macro_rules! kernels {
        ($($type:ty),*) => {
            [$((&[<$type>::DTYPE], kernel::<$type>)),*]
        };
    }
    let kernels: [(&'static [DType], MakeKernel); 15] = kernels!(
        f32,
        f64,
        f16,
        bf16,
        i8,
        i16,
        i32,
        i64,
        u8,
        u16,
        u32,
        u64,
        bool,
        Complex<f32>,
        Complex<f64>
    );
    for (dtypes, make) in kernels {
        definition = definition.kernel(KernelDefinition::cpu(make).types("T", dtypes));
    }
    definition.kernel(KernelDefinition::cuda(on_device).types("T", SIZED))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (begin, end) = (context.with_rank(1, 1)?, context.with_rank(2, 1)?);
    begin.merge(&end)?.merge(&context.with_rank(3, 1)?)?;
    let variable = context.variable_of(0, context.input_dtype(4))?;
    if let (Some(dims), Some(strides)) = (variable.dims(), context.int_values(3)?) {
        let entries = Entries {
            begin: context.int_values(1)?,
            end: context.int_values(2)?,
            strides,
        };
        let part = resolve(dims, &entries, Masks::of_context(context)?)?.shape;
        if context.input(4).broadcast(&part).is_none() {
            return Err(no_fit(&part, context.input(4)));
        }
    }
    if context.num_outputs() > 0 {
        context.set_output(0, variable);
    }
    Ok(())
}

fn no_fit(part: &PartialShape, value: &PartialShape) -> Error {
    Error::invalid_argument("the value cannot be spread over the part of the variable")
        .expected(part)
        .got(value)
}

/// The part of a variable that is set.
struct Part {
    /// As the value must fit it: without single indices, and with new axes.
    shape: PartialShape,
    whole: Shape,
    /// Along each of the variable's dimensions.
    begin: Vec<usize>,
    steps: Vec<isize>,
    lengths: Vec<usize>,
}

/// Finds the part of a variable of some shape.
///
/// # Errors
/// `InvalidArgument` for a variable that has no such part.
fn part_of(request: &KernelRequest<'_>) -> Result<impl Fn(&Shape) -> Result<Part> + Send + Sync + use<>> {
    let entries = Entries {
        begin: Some(planned_ints(request, 1)?),
        end: Some(planned_ints(request, 2)?),
        strides: planned_ints(request, 3)?,
    };
    let masks = Masks::of_attrs(request.attrs)?;
    Ok(move |shape: &Shape| {
        let resolved = resolve(PartialShape::from(shape).dims().unwrap_or_default(), &entries, masks)?;
        let (Some(lengths), Some(whole)) = (resolved.lengths(), resolved.shape.to_shape()) else {
            return Err(Error::internal("a slice of a known shape"));
        };
        Ok(Part {
            begin: resolved.ranges.iter().map(|range| range.begin).collect(),
            steps: resolved.ranges.iter().map(|range| range.stride as isize).collect(),
            shape: resolved.shape,
            lengths,
            whole,
        })
    })
}

fn kernel<T: Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let part_of = part_of(request)?;
    Ok(Planned::new(move |context| {
        let shape = variable_shape(context, 0)?;
        let part = part_of(&shape)?;
        let axes = spread(context.input_shape(4), &part)?;
        let mut spread = vec![T::default(); part.whole.num_elements()];
        let value = context.input::<T>(4)?;
        let variable = context.variable_mut::<T>(0)?;
        if !spread.is_empty() {
            copy_strided(value, 0, &mut spread, 0, &axes);
            strided_assign(&spread, &part.lengths, &part.begin, &part.steps, variable, &shape);
        }
        hand_on(context);
        Ok(())
    }))
}

/// On a device, straight from the value to its places.
fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let part_of = part_of(request)?;
    let transfer = LateTransfer::new(request, request.input_dtype(4))?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let shape = variable_shape(context, 0)?;
        let part = part_of(&shape)?;
        let mut axes = spread(context.input_shape(4), &part)?;
        let (start, places) = sliced(&shape, &part.begin, &part.steps, &part.lengths);
        // The dimensions of more than one element are the same ones on both sides.
        axes.retain(|axis| axis.len != 1);
        let places = places.iter().filter(|axis| axis.len != 1);
        axes.iter_mut()
            .zip(places)
            .for_each(|(axis, place)| axis.to = place.from);
        let (value, variable) = (context.input_address(4), context.variable_address(0)?);
        // SAFETY: the part lies in the variable, and the value is spread over it (checked).
        unsafe { transfer.run(value, variable, start, &axes)? };
        hand_on(context);
        Ok(())
    }))
}

/// The axes on which a value of shape `from` is spread over a part, as a tensor by itself.
///
/// # Errors
/// `InvalidArgument` if that cannot be.
fn spread(from: &Shape, part: &Part) -> Result<Vec<CopyAxis>> {
    let to = &part.whole;
    let fits = from.rank() <= to.rank()
        && from
            .iter()
            .rev()
            .zip(to.iter().rev())
            .all(|(&from, &to)| from == to || from == 1);
    if !fits {
        return Err(no_fit(&part.shape, &from.into()));
    }
    let (from_strides, to_strides) = (strides(from), strides(to));
    let missing = to.rank() - from.rank();
    let axes = (0..to.rank()).map(|axis| CopyAxis {
        len: to[axis],
        from: match axis.checked_sub(missing) {
            Some(axis) if from[axis] != 1 => from_strides[axis] as isize,
            _ => 0,
        },
        to: to_strides[axis] as isize,
    });
    Ok(axes.collect())
}
