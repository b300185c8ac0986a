//! `ApplyAdam`, `ApplyAdaMax`.

use graph_core::Result;
use graph_core::op::{KernelRequest, OpDefinition, Planned};

use super::{Number, definition, for_numbers, pass3, scalar};

/// `ApplyAdam`
pub(crate) fn adam() -> OpDefinition {
    definition(
        "ApplyAdam",
        "Adam (Kingma and Ba, 2014): a = lr * sqrt(1 - beta2^t) / (1 - beta1^t); m += (grad - m) * (1 - beta1); \
         v += (grad^2 - v) * (1 - beta2); var -= m * a / (sqrt(v) + epsilon).",
        &[
            "var: Ref(T)",
            "m: Ref(T)",
            "v: Ref(T)",
            "beta1_power: T",
            "beta2_power: T",
            "lr: T",
            "beta1: T",
            "beta2: T",
            "epsilon: T",
            "grad: T",
        ],
        for_numbers!(adam_kernel),
    )
    .attr("use_nesterov: bool = false")
}

fn adam_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let nesterov: bool = request.attr("use_nesterov")?;
    Ok(Planned::new(move |context| {
        let (beta1_power, beta2_power): (T, T) = (scalar(context, 3)?, scalar(context, 4)?);
        let (rate, beta1, beta2): (T, T, T) = (scalar(context, 5)?, scalar(context, 6)?, scalar(context, 7)?);
        let epsilon: T = scalar(context, 8)?;
        let one = T::one();
        let alpha = rate * (one - beta2_power).sqrt() / (one - beta1_power);
        let (new1, new2) = (one - beta1, one - beta2);
        if nesterov {
            pass3::<T>(context, 9, move |var, m, v, grad| {
                *m = *m + (grad - *m) * new1;
                *v = *v + (grad * grad - *v) * new2;
                *var = *var - (grad * new1 + *m * beta1) * alpha / (v.sqrt() + epsilon);
            })
        } else {
            pass3::<T>(context, 9, move |var, m, v, grad| {
                *m = *m + (grad - *m) * new1;
                *v = *v + (grad * grad - *v) * new2;
                *var = *var - *m * alpha / (v.sqrt() + epsilon);
            })
        }
    }))
}

/// `ApplyAdaMax`
pub(crate) fn ada_max() -> OpDefinition {
    definition(
        "ApplyAdaMax",
        "AdaMax (Kingma and Ba, 2014): m += (grad - m) * (1 - beta1); v = max(beta2 * v, |grad|); \
         var -= lr / (1 - beta1^t) * m / (v + epsilon).",
        &[
            "var: Ref(T)",
            "m: Ref(T)",
            "v: Ref(T)",
            "beta1_power: T",
            "lr: T",
            "beta1: T",
            "beta2: T",
            "epsilon: T",
            "grad: T",
        ],
        for_numbers!(ada_max_kernel),
    )
}

fn ada_max_kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (beta1_power, rate): (T, T) = (scalar(context, 3)?, scalar(context, 4)?);
        let (beta1, beta2, epsilon): (T, T, T) = (scalar(context, 5)?, scalar(context, 6)?, scalar(context, 7)?);
        let rate = rate / (T::one() - beta1_power);
        let new1 = T::one() - beta1;
        pass3::<T>(context, 8, move |var, m, v, grad| {
            *m = *m + (grad - *m) * new1;
            *v = (beta2 * *v).max(grad.abs());
            *var = *var - rate * (*m / (*v + epsilon));
        })
    }))
}
