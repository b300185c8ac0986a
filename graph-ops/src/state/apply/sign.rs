//! `ApplyAddSign`, `ApplyPowerSign`: steps that grow where gradient and momentum agree (Bello and others, 2017).

use graph_core::Result;
use graph_core::op::{KernelRequest, Planned};

use super::{Inputs, Number, Rule, for_numbers, on_device, pass2};

/// `ApplyAddSign`
pub(super) const ADD_SIGN: Rule = Rule {
    summary: "m = m * beta + grad * (1 - beta); var -= lr * (alpha + sign_decay * sign(grad) * sign(m)) * grad.",
    inputs: &[
        "var: Ref(T)",
        "m: Ref(T)",
        "lr: T",
        "alpha: T",
        "sign_decay: T",
        "beta: T",
        "grad: T",
    ],
    attrs: &[],
    kernels: for_numbers!(add_sign_kernel),
    on_device: on_device!(
        2,
        6,
        "",
        "b = b * s[3] + grad * (C(1) - s[3]); a = a - s[0] * (s[1] + s[2] * (sign_of(grad) * sign_of(b))) * grad"
    ),
};

fn add_sign_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 6)?;
    Ok(Planned::new(move |context| {
        let (rate, alpha): (T, T) = (inputs.scalar(context, 2)?, inputs.scalar(context, 3)?);
        let (decay, beta): (T, T) = (inputs.scalar(context, 4)?, inputs.scalar(context, 5)?);
        let new = T::one() - beta;
        pass2::<T>(context, &inputs, move |var, m, grad| {
            *m = *m * beta + grad * new;
            *var = *var - rate * (alpha + decay * (grad.sign() * m.sign())) * grad;
        })
    }))
}

/// `ApplyPowerSign`
pub(super) const POWER_SIGN: Rule = Rule {
    summary: "m = m * beta + grad * (1 - beta); var -= lr * exp(logbase * sign_decay * sign(grad) * sign(m)) * grad.",
    inputs: &[
        "var: Ref(T)",
        "m: Ref(T)",
        "lr: T",
        "logbase: T",
        "sign_decay: T",
        "beta: T",
        "grad: T",
    ],
    attrs: &[],
    kernels: for_numbers!(power_sign_kernel),
    on_device: on_device!(
        2,
        6,
        "",
        "b = b * s[3] + grad * (C(1) - s[3]); a = a - s[0] * C(exp(s[1] * s[2] * (sign_of(grad) * sign_of(b)))) * grad"
    ),
};

fn power_sign_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 6)?;
    Ok(Planned::new(move |context| {
        let (rate, logbase): (T, T) = (inputs.scalar(context, 2)?, inputs.scalar(context, 3)?);
        let (decay, beta): (T, T) = (inputs.scalar(context, 4)?, inputs.scalar(context, 5)?);
        let new = T::one() - beta;
        pass2::<T>(context, &inputs, move |var, m, grad| {
            *m = *m * beta + grad * new;
            *var = *var - rate * (logbase * decay * (grad.sign() * m.sign())).exp() * grad;
        })
    }))
}
