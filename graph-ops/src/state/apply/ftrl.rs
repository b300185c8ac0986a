//! `ApplyFtrl`, `ApplyFtrlV2`.

use graph_core::Result;
use graph_core::op::{KernelContext, KernelRequest, OpDefinition, Planned};

use super::{Number, definition, for_numbers, pass3, scalar};

/// `ApplyFtrl`
pub(crate) fn ftrl() -> OpDefinition {
    definition(
        "ApplyFtrl",
        "FTRL-proximal (McMahan and others, 2013): a = accum + grad^2; \
         linear += grad - (a^-lr_power - accum^-lr_power) / lr * var; \
         var = (sign(linear) * l1 - linear) / (a^-lr_power / lr + 2 * l2) where |linear| > l1, else 0; accum = a.",
        &[
            "var: Ref(T)",
            "accum: Ref(T)",
            "linear: Ref(T)",
            "grad: T",
            "lr: T",
            "l1: T",
            "l2: T",
            "lr_power: T",
        ],
        for_numbers!(ftrl_kernel),
    )
}

fn ftrl_kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| step::<T>(context, T::zero(), 7)))
}

/// `ApplyFtrlV2`
pub(crate) fn ftrl_v2() -> OpDefinition {
    definition(
        "ApplyFtrlV2",
        "ApplyFtrl where linear grows by grad + 2 * l2_shrinkage * var in place of grad.",
        &[
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
        for_numbers!(ftrl_v2_kernel),
    )
}

fn ftrl_v2_kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let shrinkage = scalar(context, 7)?;
        step::<T>(context, shrinkage, 8)
    }))
}

fn step<T: Number>(context: &mut KernelContext<'_>, shrinkage: T, lr_power: usize) -> Result<()> {
    let (rate, l1, l2): (T, T, T) = (scalar(context, 4)?, scalar(context, 5)?, scalar(context, 6)?);
    let power = -scalar::<T>(context, lr_power)?;
    let two = T::of(2.0);
    let root = power == T::of(0.5);
    let powered = move |x: T| if root { x.sqrt() } else { x.powf(power) };
    pass3::<T>(context, 3, move |var, accum, linear, grad| {
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
