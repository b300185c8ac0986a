//! Assignments of chains of element-wise operations, as optimizers make them of the powers that they keep.

use graph_core::Result;
use graph_core::op::{KernelRequest, Planned};

use super::{Inputs, Number, Rule, for_numbers, on_device, pass1};

/// `Assign` to a variable that is initialized and has the value's shape.
pub(super) const ASSIGN: Rule = Rule {
    summary: "var = grad.",
    inputs: &["ref: Ref(T)", "grad: T"],
    attrs: &[],
    kernels: for_numbers!(assign_kernel),
    on_device: on_device!(1, 1, "", "a = grad"),
};

fn assign_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 1)?;
    Ok(Planned::new(move |context| {
        pass1::<T>(context, &inputs, |var, value| *var = value)
    }))
}
