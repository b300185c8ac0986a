//! `ApplyFtrl`, `ApplyFtrlV2`.

use graph_core::Result;
use graph_core::op::{KernelContext, KernelRequest, Planned};

use super::{Inputs, Number, Rule, for_numbers, on_device, pass3};

/// `ApplyFtrl`
pub(super) const FTRL: Rule = Rule {
    summary: "FTRL-proximal (McMahan and others, 2013): a = accum + grad^2; \
         linear += grad - (a^-lr_power - accum^-lr_power) / lr * var; \
         var = (sign(linear) * l1 - linear) / (a^-lr_power / lr + 2 * l2) where |linear| > l1, else 0; accum = a.",
    inputs: &[
        "var: Ref(T)",
        "accum: Ref(T)",
        "linear: Ref(T)",
        "grad: T",
        "lr: T",
        "l1: T",
        "l2: T",
        "lr_power: T",
    ],
    attrs: &[],
    kernels: for_numbers!(ftrl_kernel),
    on_device: on_device!(
        3,
        3,
        "C power = -s[3], shrinkage = C(0)",
        "C shrunk = shrinkage == C(0) ? grad : grad + C(2) * shrinkage * a; C next = b + grad * grad; \
         C scaled = powered(next, power); c = c + (shrunk - (scaled - powered(b, power)) / s[0] * a); \
         a = C(abs(c)) > s[1] ? (s[1] * sign_of(c) - c) / (scaled / s[0] + C(2) * s[2]) : C(0); b = next"
    ),
};

fn ftrl_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 3)?;
    Ok(Planned::new(move |context| step::<T>(context, &inputs, T::zero(), 7)))
}

/// `ApplyFtrlV2`
pub(super) const FTRL_V2: Rule = Rule {
    summary: "ApplyFtrl where linear grows by grad + 2 * l2_shrinkage * var in place of grad.",
    inputs: &[
        "var: Ref(T)",
        "accum: Ref(T)",
        "linear: Ref(T)",
        "grad: T",
        "lr: T",
        "l1: T",
        "l2: T",
        "l2_shrinkage: T",
        "lr_power: T",
    ],
    attrs: &[],
    kernels: for_numbers!(ftrl_v2_kernel),
    on_device: on_device!(
        3,
        3,
        "C power = -s[4], shrinkage = s[3]",
        "C shrunk = shrinkage == C(0) ? grad : grad + C(2) * shrinkage * a; C next = b + grad * grad; \
         C scaled = powered(next, power); c = c + (shrunk - (scaled - powered(b, power)) / s[0] * a); \
         a = C(abs(c)) > s[1] ? (s[1] * sign_of(c) - c) / (scaled / s[0] + C(2) * s[2]) : C(0); b = next"
    ),
};

fn ftrl_v2_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 3)?;
    Ok(Planned::new(move |context| {
        let shrinkage = inputs.scalar(context, 7)?;
        step::<T>(context, &inputs, shrinkage, 8)
    }))
}

fn step<T: Number>(context: &mut KernelContext<'_>, inputs: &Inputs, shrinkage: T, lr_power: usize) -> Result<()> {
    let (rate, l1, l2): (T, T, T) = (
        inputs.scalar(context, 4)?,
        inputs.scalar(context, 5)?,
        inputs.scalar(context, 6)?,
    );
    let power = -inputs.scalar::<T>(context, lr_power)?;
    let two = T::of(2.0);
    let root = power == T::of(0.5);
    let powered = move |x: T| if root { x.sqrt() } else { x.powf(power) };
    pass3::<T>(context, inputs, move |var, accum, linear, grad| {
        let shrunk = if shrinkage == T::zero() {
            grad
        } else {
            grad + two * shrinkage * *var
        };
        let new = *accum + grad * grad;
        let scaled = powered(new);
        *linear = *linear + (shrunk - (scaled - powered(*accum)) / rate * *var);
        *var = if linear.abs() > l1 {
            (l1 * linear.sign() - *linear) / (scaled / rate + two * l2)
        } else {
            T::zero()
        };
        *accum = new;
    })
}
