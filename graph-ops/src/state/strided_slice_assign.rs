//! `StridedSliceAssign` and `ResourceStridedSliceAssign`: a part of a variable, indexed as by `StridedSlice`, is set.

use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned, kernel::MakeKernel};
use graph_core::{Complex, DType, Element, Error, PartialShape, Result, Shape};
use half::{bf16, f16};

use super::assign::variable_shape;
use super::update::{by_handle, hand_on};
use crate::array::axis::planned_ints;
use crate::array::strided_slice::masks;
use crate::array::strided_slice::spec::{Entries, Masks, resolve};
use crate::cpu::copy::{CopyAxis, copy_strided, strided_assign, strides};

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
    definition
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

fn kernel<T: Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let entries = Entries {
        begin: Some(planned_ints(request, 1)?),
        end: Some(planned_ints(request, 2)?),
        strides: planned_ints(request, 3)?,
    };
    let masks = Masks::of_attrs(request.attrs)?;
    Ok(Planned::new(move |context| {
        let shape = variable_shape(context, 0)?;
        let resolved = resolve(PartialShape::from(&shape).dims().unwrap_or_default(), &entries, masks)?;
        let (Some(lengths), Some(part)) = (resolved.lengths(), resolved.shape.to_shape()) else {
            return Err(Error::internal("a slice of a known shape"));
        };
        let spread = spread(context.input::<T>(4)?, context.input_shape(4), &part)
            .ok_or_else(|| no_fit(&resolved.shape, &context.input_shape(4).into()))?;
        let begin: Vec<usize> = resolved.ranges.iter().map(|range| range.begin).collect();
        let steps: Vec<isize> = resolved.ranges.iter().map(|range| range.stride as isize).collect();
        let variable = context.variable_mut::<T>(0)?;
        if !spread.is_empty() {
            strided_assign(&spread, &lengths, &begin, &steps, variable, &shape);
        }
        hand_on(context);
        Ok(())
    }))
}

/// The elements of a value of shape `from` broadcast to shape `to`; `None` if that cannot be.
fn spread<T: Element>(value: &[T], from: &Shape, to: &Shape) -> Option<Vec<T>> {
    let fits = from.rank() <= to.rank()
        && from
            .iter()
            .rev()
            .zip(to.iter().rev())
            .all(|(&from, &to)| from == to || from == 1);
    if !fits {
        return None;
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
    let mut spread = vec![T::default(); to.num_elements()];
    if !spread.is_empty() {
        copy_strided(value, 0, &mut spread, 0, &axes.collect::<Vec<_>>());
    }
    Some(spread)
}
