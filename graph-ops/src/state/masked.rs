//! Updates under a condition, the engine's own: what a rewrite makes of updates in a branch, so that they need not wait for the
//! host to take it.

use std::sync::OnceLock;

use graph_core::op::{KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Result};
use graph_cuda::{Cuda, Source, arguments, source};
use half::{bf16, f16};

use super::apply::{self, MASK, holds};
use super::assign::{different_shapes, variable_shape};
use super::update::{by_handle, hand_on};
use crate::cuda::{NUMBERS, type_name};

const SOURCE: Source = source!("masked.cu");

/// What becomes of the variable's old element and the new one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Set,
    Add,
    Sub,
}

/// The form of the update `op` that does nothing where a condition, a `bool` scalar, does not hold. It takes the condition
/// behind all other inputs, and the variable must be initialized even where it does not hold. `None` for what has no such form.
pub(crate) fn masked(op: &str, dtype: DType) -> Option<&'static OpDefinition> {
    if let Some(definition) = apply::masked(op) {
        return Some(definition);
    }
    static FORMS: OnceLock<Vec<(&'static str, OpDefinition)>> = OnceLock::new();
    let forms = FORMS.get_or_init(|| {
        vec![
            ("Assign", by_reference("_MaskedAssign", Change::Set)),
            ("AssignAdd", by_reference("_MaskedAssignAdd", Change::Add)),
            ("AssignSub", by_reference("_MaskedAssignSub", Change::Sub)),
            ("AssignVariableOp", of_handle("_MaskedAssignVariableOp", Change::Set)),
            (
                "AssignAddVariableOp",
                of_handle("_MaskedAssignAddVariableOp", Change::Add),
            ),
            (
                "AssignSubVariableOp",
                of_handle("_MaskedAssignSubVariableOp", Change::Sub),
            ),
        ]
    });
    let (_, definition) = forms.iter().find(|(name, _)| *name == op)?;
    NUMBERS.contains(&dtype).then_some(definition)
}

fn by_reference(name: &'static str, change: Change) -> OpDefinition {
    let mut definition = OpDefinition::new(name, "An update of a variable, where a condition holds.")
        .input("ref: Ref(T)")
        .input("value: T")
        .output("output_ref: Ref(T)")
        .attr("T: numbertype")
        .attr("use_locking: bool = false")
        .shape(|context| {
            let shape = context.input(0).merge(context.input(1))?;
            context.set_output(0, shape);
            Ok(())
        })
        .not_differentiable();
    definition.inputs.push(MASK);
    with_kernels(definition, "T", change)
}

fn of_handle(name: &'static str, change: Change) -> OpDefinition {
    let mut definition = OpDefinition::new(
        name,
        "An update of the variable that a handle names, where a condition holds.",
    )
    .input("resource: Ref(dtype)")
    .input("value: dtype")
    .attr("dtype: type")
    .shape(|context| {
        let variable = context.variable_of(0, context.input_dtype(1))?;
        variable.merge(context.input(1))?;
        Ok(())
    })
    .no_gradient();
    definition.inputs.push(MASK);
    with_kernels(by_handle(definition), "dtype", change)
}

fn with_kernels(mut definition: OpDefinition, attr: &'static str, change: Change) -> OpDefinition {
    macro_rules! kernels {
        ($($dtype:ident $type:ty, $add:expr, $sub:expr;)*) => {$(
            let kernel = match change {
                Change::Set => KernelDefinition::direct(|context| update::<$type>(context, |_, new| new)),
                Change::Add => KernelDefinition::direct(|context| update::<$type>(context, $add)),
                Change::Sub => KernelDefinition::direct(|context| update::<$type>(context, $sub)),
            };
            definition = definition.kernel(kernel.types(attr, &[DType::$dtype]));
        )*};
    }
    kernels! {
        Float32 f32, |old, new| old + new, |old, new| old - new;
        Float64 f64, |old, new| old + new, |old, new| old - new;
        Half f16, |old, new| old + new, |old, new| old - new;
        BFloat16 bf16, |old, new| old + new, |old, new| old - new;
        Int32 i32, i32::wrapping_add, i32::wrapping_sub;
        Int64 i64, i64::wrapping_add, i64::wrapping_sub;
    }
    let on_device = match change {
        Change::Set => KernelDefinition::cuda(|request| on_device(request, "value")),
        Change::Add => KernelDefinition::cuda(|request| on_device(request, "old + value")),
        Change::Sub => KernelDefinition::cuda(|request| on_device(request, "old - value")),
    };
    definition.kernel(on_device.types(attr, NUMBERS))
}

/// Changes each element of the variable, if the condition holds.
fn update<T: Element>(context: &mut KernelContext<'_>, change: impl Fn(T, T) -> T) -> Result<()> {
    let shape = variable_shape(context, 0)?;
    if shape != *context.input_shape(1) {
        return Err(different_shapes(
            "the variable and the value",
            &shape,
            context.input_shape(1),
        ));
    }
    if holds(context, 2)? {
        let variable = context.variable_mut::<T>(0)?;
        for (old, &new) in variable.iter_mut().zip(context.input::<T>(1)?) {
            *old = change(*old, new);
        }
    }
    hand_on(context);
    Ok(())
}

fn on_device(request: &KernelRequest<'_>, change: &'static str) -> Result<Planned> {
    let shape = request.input_shape(1).clone();
    if request.input_shape(2).num_elements() != 1 {
        return Err(Error::invalid_argument("the condition must be a scalar").got(request.input_shape(2)));
    }
    let defines = [("T", type_name(request.input_dtype(1))?), ("CHANGE", change)];
    let function = Cuda::of(request)?.function(&SOURCE, "masked", &defines)?;
    let (len, size) = (shape.num_elements(), request.input_dtype(1).size().unwrap_or(0));
    let function = function.moving(3 * len * size);
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let variable = context.variable_address(0)?;
        match context.variable(0)?.extent() {
            Some((_, own)) if *own != shape => {
                return Err(different_shapes("the variable and the value", own, &shape));
            }
            _ => {}
        }
        let (value, mask) = (context.input_address(1), context.input_address(2));
        // SAFETY: these are the kernel's parameters; variable and value have `len` elements (checked).
        unsafe { function.launch_over(len, arguments![variable, value, mask, len as i64])? };
        hand_on(context);
        Ok(())
    }))
}
