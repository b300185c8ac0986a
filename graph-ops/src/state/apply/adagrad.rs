//! `ApplyAdagrad`, `ApplyAdagradDA`, `ApplyProximalAdagrad`, `ApplyAdadelta`.

use graph_core::Result;
use graph_core::op::{KernelRequest, OpDefinition, Planned};

use super::gradient_descent::shrink;
use super::{Number, definition, for_numbers, pass2, pass3, scalar};

/// `ApplyAdagrad`
pub(crate) fn adagrad() -> OpDefinition {
    definition(
        "ApplyAdagrad",
        "Adagrad (Duchi, Hazan and Singer, 2011): accum += grad^2; var -= lr * grad / sqrt(accum).",
        &["var: Ref(T)", "accum: Ref(T)", "lr: T", "grad: T"],
        for_numbers!(adagrad_kernel),
    )
    .attr("update_slots: bool = true")
}

fn adagrad_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let update_slots: bool = request.attr("update_slots")?;
    Ok(Planned::new(move |context| {
        let rate: T = scalar(context, 2)?;
        if update_slots {
            pass2::<T>(context, 3, move |var, accum, grad| {
                *accum = *accum + grad * grad;
                *var = *var - grad * rate * accum.sqrt().recip();
            })
        } else {
            pass2::<T>(context, 3, move |var, accum, grad| {
                *var = *var - grad * rate * accum.sqrt().recip();
            })
        }
    }))
}

/// `ApplyAdagradDA`
pub(crate) fn adagrad_da() -> OpDefinition {
    definition(
        "ApplyAdagradDA",
        "Adagrad by dual averaging: both accumulators grow by grad and grad^2; with g the first, drawn to 0 by l1 * \
         global_step: var = -lr * g / (l2 * global_step * lr + sqrt(second)).",
        &[
            "var: Ref(T)",
            "gradient_accumulator: Ref(T)",
            "gradient_squared_accumulator: Ref(T)",
            "grad: T",
            "lr: T",
            "l1: T",
            "l2: T",
            "global_step: int64",
        ],
        for_numbers!(adagrad_da_kernel),
    )
}

fn adagrad_da_kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (rate, l1, l2): (T, T, T) = (scalar(context, 4)?, scalar(context, 5)?, scalar(context, 6)?);
        let step = T::of(scalar::<i64>(context, 7)? as f64);
        let penalty = l2 * step * rate;
        pass3::<T>(context, 3, move |var, sum, squares, grad| {
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
pub(crate) fn proximal() -> OpDefinition {
    definition(
        "ApplyProximalAdagrad",
        "The step of Adagrad, then drawn to 0 by l1 and l2 (FOBOS): accum += grad^2; r = lr / sqrt(accum); \
         p = var - r * grad; var = sign(p) * max(|p| - r * l1, 0) / (1 + r * l2).",
        &["var: Ref(T)", "accum: Ref(T)", "lr: T", "l1: T", "l2: T", "grad: T"],
        for_numbers!(proximal_kernel),
    )
}

fn proximal_kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (rate, l1, l2): (T, T, T) = (scalar(context, 2)?, scalar(context, 3)?, scalar(context, 4)?);
        pass2::<T>(context, 5, move |var, accum, grad| {
            *accum = *accum + grad * grad;
            let rate = accum.sqrt().recip() * rate;
            *var = shrink(*var - grad * rate, rate, l1, l2);
        })
    }))
}

/// `ApplyAdadelta`
pub(crate) fn adadelta() -> OpDefinition {
    definition(
        "ApplyAdadelta",
        "Adadelta (Zeiler, 2012): accum = rho * accum + (1 - rho) * grad^2; \
         u = sqrt(accum_update + epsilon) / sqrt(accum + epsilon) * grad; \
         accum_update = rho * accum_update + (1 - rho) * u^2; var -= lr * u.",
        &[
            "var: Ref(T)",
            "accum: Ref(T)",
            "accum_update: Ref(T)",
            "lr: T",
            "rho: T",
            "epsilon: T",
            "grad: T",
        ],
        for_numbers!(adadelta_kernel),
    )
}

fn adadelta_kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (rate, rho, epsilon): (T, T, T) = (scalar(context, 3)?, scalar(context, 4)?, scalar(context, 5)?);
        let new = T::one() - rho;
        pass3::<T>(context, 6, move |var, accum, accum_update, grad| {
            *accum = *accum * rho + grad * grad * new;
            let update = (*accum_update + epsilon).sqrt() * (*accum + epsilon).sqrt().recip() * grad;
            *var = *var - update * rate;
            *accum_update = *accum_update * rho + update * update * new;
        })
    }))
}
