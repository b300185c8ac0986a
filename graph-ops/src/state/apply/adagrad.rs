//! `ApplyAdagrad`, `ApplyAdagradDA`, `ApplyProximalAdagrad`, `ApplyAdadelta`.

use graph_core::Result;
use graph_core::op::{KernelRequest, Planned};

use super::gradient_descent::shrink;
use super::{Inputs, Number, Rule, for_numbers, on_device, pass2, pass3};

/// `ApplyAdagrad`
pub(super) const ADAGRAD: Rule = Rule {
    summary: "Adagrad (Duchi, Hazan and Singer, 2011): accum += grad^2; var -= lr * grad / sqrt(accum).",
    inputs: &["var: Ref(T)", "accum: Ref(T)", "lr: T", "grad: T"],
    attrs: &["update_slots: bool = true"],
    kernels: for_numbers!(adagrad_kernel),
    on_device: on_device!(
        2,
        3,
        "",
        "a = a - grad * s[0] * (C(1) / square_root(b))",
        "update_slots": "b = b + grad * grad; a = a - grad * s[0] * (C(1) / square_root(b))"
    ),
};

fn adagrad_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 3)?;
    let update_slots: bool = request.attr("update_slots")?;
    Ok(Planned::new(move |context| {
        let rate: T = inputs.scalar(context, 2)?;
        if update_slots {
            pass2::<T>(context, &inputs, move |var, accum, grad| {
                *accum = *accum + grad * grad;
                *var = *var - grad * rate * accum.sqrt().recip();
            })
        } else {
            pass2::<T>(context, &inputs, move |var, accum, grad| {
                *var = *var - grad * rate * accum.sqrt().recip();
            })
        }
    }))
}

/// `ApplyAdagradV2`
pub(super) const ADAGRAD_V2: Rule = Rule {
    summary: "ApplyAdagrad with an epsilon beside the root: var -= lr * grad / (sqrt(accum) + epsilon).",
    inputs: &["var: Ref(T)", "accum: Ref(T)", "lr: T", "epsilon: T", "grad: T"],
    attrs: &["update_slots: bool = true"],
    kernels: for_numbers!(adagrad_v2_kernel),
    on_device: on_device!(
        2,
        4,
        "",
        "a = a - grad * s[0] / (square_root(b) + s[1])",
        "update_slots": "b = b + grad * grad; a = a - grad * s[0] / (square_root(b) + s[1])"
    ),
};

fn adagrad_v2_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 4)?;
    let update_slots: bool = request.attr("update_slots")?;
    Ok(Planned::new(move |context| {
        let (rate, epsilon): (T, T) = (inputs.scalar(context, 2)?, inputs.scalar(context, 3)?);
        pass2::<T>(context, &inputs, move |var, accum, grad| {
            if update_slots {
                *accum = *accum + grad * grad;
            }
            *var = *var - grad * rate / (accum.sqrt() + epsilon);
        })
    }))
}

/// `ApplyAdagradDA`
pub(super) const ADAGRAD_DA: Rule = Rule {
    summary: "Adagrad by dual averaging: both accumulators grow by grad and grad^2; with g the first, drawn to 0 by l1 * \
         global_step: var = -lr * g / (l2 * global_step * lr + sqrt(second)).",
    inputs: &[
        "var: Ref(T)",
        "gradient_accumulator: Ref(T)",
        "gradient_squared_accumulator: Ref(T)",
        "grad: T",
        "lr: T",
        "l1: T",
        "l2: T",
        "global_step: int64",
    ],
    attrs: &[],
    kernels: for_numbers!(adagrad_da_kernel),
    on_device: on_device!(
        3,
        3,
        "C count = s[3], penalty = s[2] * count * s[0]",
        "b = b + grad; c = c + grad * grad; \
         C drawn = s[1] > C(0) ? sign_of(b) * larger(C(abs(b)) - s[1] * count, C(0)) : b; \
         a = s[0] * -drawn / (penalty + square_root(c))"
    ),
};

fn adagrad_da_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 3)?;
    Ok(Planned::new(move |context| {
        let (rate, l1, l2): (T, T, T) = (
            inputs.scalar(context, 4)?,
            inputs.scalar(context, 5)?,
            inputs.scalar(context, 6)?,
        );
        let step = T::of(inputs.scalar::<i64>(context, 7)? as f64);
        let penalty = l2 * step * rate;
        pass3::<T>(context, &inputs, move |var, sum, squares, grad| {
            *sum = *sum + grad;
            *squares = *squares + grad * grad;
            let drawn = if l1 > T::zero() {
                sum.sign() * (sum.abs() - l1 * step).max(T::zero())
            } else {
                *sum
            };
            *var = rate * -drawn / (penalty + squares.sqrt());
        })
    }))
}

/// `ApplyProximalAdagrad`
pub(super) const PROXIMAL: Rule = Rule {
    summary: "The step of Adagrad, then drawn to 0 by l1 and l2 (FOBOS): accum += grad^2; r = lr / sqrt(accum); \
         p = var - r * grad; var = sign(p) * max(|p| - r * l1, 0) / (1 + r * l2).",
    inputs: &["var: Ref(T)", "accum: Ref(T)", "lr: T", "l1: T", "l2: T", "grad: T"],
    attrs: &[],
    kernels: for_numbers!(proximal_kernel),
    on_device: on_device!(
        2,
        5,
        "",
        "b = b + grad * grad; C rate = C(1) / square_root(b) * s[0]; a = shrink(a - grad * rate, rate, s[1], s[2])"
    ),
};

fn proximal_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 5)?;
    Ok(Planned::new(move |context| {
        let (rate, l1, l2): (T, T, T) = (
            inputs.scalar(context, 2)?,
            inputs.scalar(context, 3)?,
            inputs.scalar(context, 4)?,
        );
        pass2::<T>(context, &inputs, move |var, accum, grad| {
            *accum = *accum + grad * grad;
            let rate = accum.sqrt().recip() * rate;
            *var = shrink(*var - grad * rate, rate, l1, l2);
        })
    }))
}

/// `ApplyAdadelta`
pub(super) const ADADELTA: Rule = Rule {
    summary: "Adadelta (Zeiler, 2012): accum = rho * accum + (1 - rho) * grad^2; \
         u = sqrt(accum_update + epsilon) / sqrt(accum + epsilon) * grad; \
         accum_update = rho * accum_update + (1 - rho) * u^2; var -= lr * u.",
    inputs: &[
        "var: Ref(T)",
        "accum: Ref(T)",
        "accum_update: Ref(T)",
        "lr: T",
        "rho: T",
        "epsilon: T",
        "grad: T",
    ],
    attrs: &[],
    kernels: for_numbers!(adadelta_kernel),
    on_device: on_device!(
        3,
        6,
        "C fresh = C(1) - s[1]",
        "b = b * s[1] + grad * grad * fresh; C change = square_root(c + s[2]) * (C(1) / square_root(b + s[2])) * grad; \
         a = a - change * s[0]; c = c * s[1] + change * change * fresh"
    ),
};

fn adadelta_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 6)?;
    Ok(Planned::new(move |context| {
        let (rate, rho, epsilon): (T, T, T) = (
            inputs.scalar(context, 3)?,
            inputs.scalar(context, 4)?,
            inputs.scalar(context, 5)?,
        );
        let new = T::one() - rho;
        pass3::<T>(context, &inputs, move |var, accum, accum_update, grad| {
            *accum = *accum * rho + grad * grad * new;
            let update = (*accum_update + epsilon).sqrt() * (*accum + epsilon).sqrt().recip() * grad;
            *var = *var - update * rate;
            *accum_update = *accum_update * rho + update * update * new;
        })
    }))
}
