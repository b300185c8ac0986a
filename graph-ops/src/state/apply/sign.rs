//! `ApplyAddSign`, `ApplyPowerSign`: steps that grow where gradient and momentum agree (Bello and others, 2017).

use graph_core::Result;
use graph_core::op::{KernelRequest, OpDefinition, Planned};

use super::{Number, definition, for_numbers, pass2, scalar};

/// `ApplyAddSign`
pub(crate) fn add_sign() -> OpDefinition {
    definition(
        "ApplyAddSign",
        "m = m * beta + grad * (1 - beta); var -= lr * (alpha + sign_decay * sign(grad) * sign(m)) * grad.",
        &[
            "var: Ref(T)",
            "m: Ref(T)",
            "lr: T",
            "alpha: T",
            "sign_decay: T",
            "beta: T",
            "grad: T",
        ],
        for_numbers!(add_sign_kernel),
    )
}

fn add_sign_kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (rate, alpha): (T, T) = (scalar(context, 2)?, scalar(context, 3)?);
        let (decay, beta): (T, T) = (scalar(context, 4)?, scalar(context, 5)?);
        let new = T::one() - beta;
        pass2::<T>(context, 6, move |var, m, grad| {
            *m = *m * beta + grad * new;
            *var = *var - rate * (alpha + decay * (grad.sign() * m.sign())) * grad;
        })
    }))
}

/// `ApplyPowerSign`
pub(crate) fn power_sign() -> OpDefinition {
    definition(
        "ApplyPowerSign",
        "m = m * beta + grad * (1 - beta); var -= lr * exp(logbase * sign_decay * sign(grad) * sign(m)) * grad.",
        &[
            "var: Ref(T)",
            "m: Ref(T)",
            "lr: T",
            "logbase: T",
            "sign_decay: T",
            "beta: T",
            "grad: T",
        ],
        for_numbers!(power_sign_kernel),
    )
}

fn power_sign_kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (rate, logbase): (T, T) = (scalar(context, 2)?, scalar(context, 3)?);
        let (decay, beta): (T, T) = (scalar(context, 4)?, scalar(context, 5)?);
        let new = T::one() - beta;
        pass2::<T>(context, 6, move |var, m, grad| {
            *m = *m * beta + grad * new;
            *var = *var - rate * (logbase * decay * (grad.sign() * m.sign())).exp() * grad;
        })
    }))
}
