//! `Assign`, `AssignAdd`, `AssignSub`, and `AssignVariableOp` and its like by handle: new values for variables.

use std::fmt::Display;
use std::ops::{Add, Sub};

use graph_core::graph::IntoOperand;
use graph_core::op::kernel::MakeKernel;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, DType, Element, Error, PartialShape, Result, Shape, Value};
use graph_cuda::Cuda;
use half::{bf16, f16};

use super::update::{Update, hand_on, update_builder};
use crate::cpu::parallel::{GRAIN, for_each_chunk};
use crate::cuda::copy::Transfer;
use crate::cuda::elementwise::Flat;
use crate::cuda::{NOWHERE, NUMBERS, SIZED};

/// `Assign`
pub(crate) fn assign_definition() -> OpDefinition {
    OpDefinition::new("Assign", "Sets a variable, and passes the reference on.")
        .input("ref: Ref(T)")
        .input("value: T")
        .output("output_ref: Ref(T)")
        .attr("T: type")
        .attr("validate_shape: bool = true")
        .attr("use_locking: bool = true")
        .allows_uninitialized_input()
        .shape(assign_shape)
        .not_differentiable()
        .kernel(KernelDefinition::cpu(|request| {
            let validate: bool = request.attr("validate_shape")?;
            Ok(Planned::new(move |context| set(context, validate)))
        }))
        .kernel(
            KernelDefinition::cuda(|request| {
                let validate: bool = request.attr("validate_shape")?;
                setting(request, validate)
            })
            .types("T", SIZED),
        )
}

/// Sets the variable on a device.
fn setting(request: &KernelRequest<'_>, validate: bool) -> Result<Planned> {
    let (dtype, shape) = (request.input_dtype(1), request.input_shape(1).clone());
    let copy = Transfer::all(request, dtype, shape.num_elements())?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let cell = context.variable(0)?;
        match cell.extent() {
            Some((old, _)) if old != dtype => {
                return Err(
                    Error::invalid_argument("the variable is set to a value of another dtype")
                        .expected(old)
                        .got(dtype),
                );
            }
            Some((_, old)) if validate && *old != shape => {
                return Err(different_shapes("the variable and its new value", old, &shape));
            }
            _ => {}
        }
        let value = context.input_address(1);
        let variable = context.assign_address(0, dtype, &shape)?;
        // The value may be the variable itself.
        if variable != value {
            // SAFETY: both are tensors of this dtype and shape.
            unsafe { copy.run(value, variable)? };
        }
        hand_on(context);
        Ok(())
    }))
}

/// `AssignVariableOp`
pub(crate) fn assign_variable_definition() -> OpDefinition {
    OpDefinition::new("AssignVariableOp", "Sets the variable that a handle names.")
        .input("resource: resource")
        .input("value: dtype")
        .attr("dtype: type")
        .stateful()
        .allows_uninitialized_input()
        .shape(|context| {
            context
                .variable_of(0, context.input_dtype(1))?
                .merge(context.input(1))?;
            Ok(())
        })
        .no_gradient()
        .kernel(KernelDefinition::direct(|context| {
            let dtype = context.input_dtype(1);
            match context.variable(0)?.value.as_ref().map(Value::dtype) {
                Some(old) if old != dtype => Err(Error::invalid_argument(
                    "the variable is set to a value of another dtype",
                )
                .expected(old)
                .got(dtype)),
                _ => set(context, false),
            }
        }))
        .kernel(KernelDefinition::cuda(|request| setting(request, false)).types("dtype", SIZED))
}

fn assign_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape = if context.attr("validate_shape")? {
        context.input(0).merge(context.input(1))?
    } else {
        context.input(1).clone()
    };
    context.set_output(0, shape);
    Ok(())
}

/// Copies the value into the variable, whose memory stays where it is as long as the shape does.
fn set(context: &mut KernelContext<'_>, validate: bool) -> Result<()> {
    let shape = context.input_shape(1).clone();
    let cell = context.variable(0)?;
    let old = cell.value.as_ref().map(|value| value.shape().clone());
    let expected = old.as_ref().map_or_else(|| cell.declared.clone(), PartialShape::from);
    if validate && expected.merge(&PartialShape::from(&shape)).is_err() {
        return Err(different_shapes("the variable and its new value", &expected, &shape));
    }
    let fits = old == Some(shape);
    macro_rules! set {
        ($($dtype:ident $type:ty),*) => {
            match context.input_dtype(1) {
                $(DType::$dtype => set_numbers::<$type>(context, fits)?,)*
                _ => {
                    let value = context.input_value(1)?;
                    context.variable(0)?.value = Some(value);
                }
            }
        };
    }
    set!(
        Float32 f32, Float64 f64, Half f16, BFloat16 bf16, Int8 i8, Int16 i16, Int32 i32, Int64 i64, UInt8 u8,
        UInt16 u16, UInt32 u32, UInt64 u64, Bool bool, Complex64 Complex<f32>, Complex128 Complex<f64>
    );
    hand_on(context);
    Ok(())
}

fn set_numbers<T: Element>(context: &mut KernelContext<'_>, fits: bool) -> Result<()> {
    let new = context.input::<T>(1)?;
    let shape = context.input_shape(1).clone();
    let cell = context.variable(0)?;
    match &mut cell.value {
        Some(value) if fits => value.as_mut_slice::<T>()?.copy_from_slice(new),
        empty => *empty = Some(Value::from_vec(shape, new)?),
    }
    Ok(())
}

/// The error of two shapes that must be the same.
pub(super) fn different_shapes(what: &str, expected: impl Display, got: &Shape) -> Error {
    Error::invalid_argument(format!("{what} do not have the same shape"))
        .expected(expected)
        .got(got)
}

const ADD: Kernels = Kernels {
    floats: [add::<f32>, add::<f64>, add::<f16>, add::<bf16>],
    integers: [
        |_| wrapping::<i8>(i8::wrapping_add),
        |_| wrapping::<i16>(i16::wrapping_add),
        |_| wrapping::<i32>(i32::wrapping_add),
        |_| wrapping::<i64>(i64::wrapping_add),
        |_| wrapping::<u8>(u8::wrapping_add),
        |_| wrapping::<u16>(u16::wrapping_add),
        |_| wrapping::<u32>(u32::wrapping_add),
        |_| wrapping::<u64>(u64::wrapping_add),
    ],
    complex: [add::<Complex<f32>>, add::<Complex<f64>>],
    on_device: |request| combining(request, "old + value"),
};

const SUB: Kernels = Kernels {
    floats: [sub::<f32>, sub::<f64>, sub::<f16>, sub::<bf16>],
    integers: [
        |_| wrapping::<i8>(i8::wrapping_sub),
        |_| wrapping::<i16>(i16::wrapping_sub),
        |_| wrapping::<i32>(i32::wrapping_sub),
        |_| wrapping::<i64>(i64::wrapping_sub),
        |_| wrapping::<u8>(u8::wrapping_sub),
        |_| wrapping::<u16>(u16::wrapping_sub),
        |_| wrapping::<u32>(u32::wrapping_sub),
        |_| wrapping::<u64>(u64::wrapping_sub),
    ],
    complex: [sub::<Complex<f32>>, sub::<Complex<f64>>],
    on_device: |request| combining(request, "old - value"),
};

/// `AssignAdd`
pub(crate) fn assign_add_definition() -> OpDefinition {
    update("AssignAdd", "Adds to a variable, and passes the reference on.", &ADD)
}

/// `AssignSub`
pub(crate) fn assign_sub_definition() -> OpDefinition {
    update(
        "AssignSub",
        "Subtracts from a variable, and passes the reference on.",
        &SUB,
    )
}

/// `AssignAddVariableOp`
pub(crate) fn assign_add_variable_definition() -> OpDefinition {
    variable_update("AssignAddVariableOp", "Adds to the variable that a handle names.", &ADD)
}

/// `AssignSubVariableOp`
pub(crate) fn assign_sub_variable_definition() -> OpDefinition {
    variable_update(
        "AssignSubVariableOp",
        "Subtracts from the variable that a handle names.",
        &SUB,
    )
}

struct Kernels {
    floats: [MakeKernel; 4],
    integers: [MakeKernel; 8],
    complex: [MakeKernel; 2],
    on_device: MakeKernel,
}

const FLOATS: [&[DType]; 4] = [&[DType::Float32], &[DType::Float64], &[DType::Half], &[DType::BFloat16]];
const INTEGERS: [&[DType]; 8] = [
    &[DType::Int8],
    &[DType::Int16],
    &[DType::Int32],
    &[DType::Int64],
    &[DType::UInt8],
    &[DType::UInt16],
    &[DType::UInt32],
    &[DType::UInt64],
];
const COMPLEX: [&[DType]; 2] = [&[DType::Complex64], &[DType::Complex128]];

fn update(name: &'static str, summary: &'static str, kernels: &Kernels) -> OpDefinition {
    let definition = OpDefinition::new(name, summary)
        .input("ref: Ref(T)")
        .input("value: T")
        .output("output_ref: Ref(T)")
        .attr("T: numbertype")
        .attr("use_locking: bool = false")
        .shape(InferenceContext::merged)
        .not_differentiable();
    with_kernels(definition, "T", kernels)
}

fn variable_update(name: &'static str, summary: &'static str, kernels: &Kernels) -> OpDefinition {
    let definition = OpDefinition::new(name, summary)
        .input("resource: resource")
        .input("value: dtype")
        .attr("dtype: type")
        .stateful()
        .shape(|context| {
            context
                .variable_of(0, context.input_dtype(1))?
                .merge(context.input(1))?;
            Ok(())
        })
        .no_gradient();
    with_kernels(definition, "dtype", kernels)
}

fn with_kernels(mut definition: OpDefinition, attr: &'static str, kernels: &Kernels) -> OpDefinition {
    let floats = FLOATS.into_iter().zip(kernels.floats);
    let integers = INTEGERS.into_iter().zip(kernels.integers);
    let complex = COMPLEX.into_iter().zip(kernels.complex);
    for (dtypes, make) in floats.chain(integers).chain(complex) {
        definition = definition.kernel(KernelDefinition::cpu(make).types(attr, dtypes));
    }
    definition.kernel(KernelDefinition::cuda(kernels.on_device).types(attr, NUMBERS))
}

/// Combines a variable with a value of its shape on a device.
fn combining(request: &KernelRequest<'_>, expression: &str) -> Result<Planned> {
    let (dtype, shape) = (request.input_dtype(1), request.input_shape(1).clone());
    let cuda = Cuda::of(request)?;
    let flat = Flat::new(&cuda, (dtype, shape.num_elements()), &["old", "value"], expression)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let variable = context.variable_address(0)?;
        match context.variable(0)?.extent() {
            Some((_, own)) if *own != shape => {
                return Err(different_shapes("the variable and the value", own, &shape));
            }
            _ => {}
        }
        let value = context.input_address(1);
        // SAFETY: all are tensors of this dtype and shape.
        unsafe { flat.run(variable, [variable, value, NOWHERE])? };
        hand_on(context);
        Ok(())
    }))
}

fn add<T: Element + Add<Output = T>>(_: &graph_core::op::KernelRequest<'_>) -> Result<Planned> {
    wrapping::<T>(|a, b| a + b)
}

fn sub<T: Element + Sub<Output = T>>(_: &graph_core::op::KernelRequest<'_>) -> Result<Planned> {
    wrapping::<T>(|a, b| a - b)
}

/// Combines a variable with a value of its shape.
fn wrapping<T: Element>(combine: impl Fn(T, T) -> T + Send + Sync + Copy + 'static) -> Result<Planned> {
    Ok(Planned::new(move |context| {
        let variable = context.variable_mut::<T>(0)?;
        let shape = variable_shape(context, 0)?;
        if shape != *context.input_shape(1) {
            return Err(different_shapes(
                "the variable and the value",
                &shape,
                context.input_shape(1),
            ));
        }
        let value = context.input::<T>(1)?;
        for_each_chunk(variable, GRAIN, |start, chunk| {
            for (old, &value) in chunk.iter_mut().zip(&value[start..]) {
                *old = combine(*old, value);
            }
        });
        hand_on(context);
        Ok(())
    }))
}

/// The shape of the variable that input `index` refers to.
pub(super) fn variable_shape(context: &mut KernelContext<'_>, index: usize) -> Result<Shape> {
    let extent = context.variable(index)?.extent();
    extent
        .map(|(_, shape)| shape.clone())
        .ok_or_else(|| Error::failed_precondition("the variable is not initialized"))
}

update_builder! {
    /// An assignment about to be made; see [`assign`].
    pub struct Assign;
}

impl Assign {
    /// Whether the value must have the variable's shape; yes without. It means nothing for a resource variable.
    pub fn validate_shape(self, validate: bool) -> Self {
        Self(self.0.reference_attr("validate_shape", validate))
    }

    /// Sets the attribute of the name, which means nothing here: runs of a session take turns.
    pub fn use_locking(self, lock: bool) -> Self {
        Self(self.0.reference_attr("use_locking", lock))
    }
}

update_builder! {
    /// An addition about to be made; see [`assign_add`].
    pub struct AssignAdd;
}

update_builder! {
    /// A subtraction about to be made; see [`assign_sub`].
    pub struct AssignSub;
}

/// Sets `variable` to `value` when it runs; its output is the variable's new value, as a reference, or of a resource variable
/// as a read that follows.
///
/// # Errors
/// `InvalidArgument` on `build` or in a run if the shapes differ (unless [`Assign::validate_shape`] is off) or the dtypes do.
#[track_caller]
pub fn assign(variable: impl IntoOperand, value: impl IntoOperand) -> Assign {
    Assign(Update::new(variable, "Assign", "AssignVariableOp").value(value))
}

/// Adds `value`, of the variable's shape, to `variable` when it runs; its output is as for [`assign`].
///
/// # Errors
/// `InvalidArgument` if the shapes or dtypes differ, `FailedPrecondition` in a run if the variable is not initialized
/// (`NotFound` of a resource variable).
#[track_caller]
pub fn assign_add(variable: impl IntoOperand, value: impl IntoOperand) -> AssignAdd {
    AssignAdd(Update::new(variable, "AssignAdd", "AssignAddVariableOp").value(value))
}

/// Subtracts `value`, of the variable's shape, from `variable` when it runs; its output is as for [`assign`].
///
/// # Errors
/// As for [`assign_add`].
#[track_caller]
pub fn assign_sub(variable: impl IntoOperand, value: impl IntoOperand) -> AssignSub {
    AssignSub(Update::new(variable, "AssignSub", "AssignSubVariableOp").value(value))
}
