//! `ApplyGradientDescent`, `ApplyMomentum`, `ApplyProximalGradientDescent`.

use graph_core::Result;
use graph_core::op::{KernelRequest, OpDefinition, Planned};

use super::{Number, definition, for_numbers, pass1, pass2, scalar};

/// `ApplyGradientDescent`
pub(crate) fn gradient_descent() -> OpDefinition {
    definition(
        "ApplyGradientDescent",
        "var -= alpha * delta.",
        &["var: Ref(T)", "alpha: T", "delta: T"],
        for_numbers!(gradient_descent_kernel),
    )
}

fn gradient_descent_kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let rate: T = scalar(context, 1)?;
        pass1::<T>(context, 2, move |var, delta| *var = *var - delta * rate)
    }))
}

/// `ApplyMomentum`
pub(crate) fn momentum() -> OpDefinition {
    definition(
        "ApplyMomentum",
        "accum = accum * momentum + grad; var -= lr * accum, or with Nesterov's momentum \
         var -= lr * grad + lr * momentum * accum.",
        &["var: Ref(T)", "accum: Ref(T)", "lr: T", "grad: T", "momentum: T"],
        for_numbers!(momentum_kernel),
    )
    .attr("use_nesterov: bool = false")
}

fn momentum_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let nesterov: bool = request.attr("use_nesterov")?;
    Ok(Planned::new(move |context| {
        let (rate, momentum): (T, T) = (scalar(context, 2)?, scalar(context, 4)?);
        if nesterov {
            pass2::<T>(context, 3, move |var, accum, grad| {
                *accum = *accum * momentum + grad;
                *var = *var - (grad * rate + *accum * momentum * rate);
            })
        } else {
            pass2::<T>(context, 3, move |var, accum, grad| {
                *accum = *accum * momentum + grad;
                *var = *var - *accum * rate;
            })
        }
    }))
}

/// `ApplyProximalGradientDescent`
pub(crate) fn proximal() -> OpDefinition {
    definition(
        "ApplyProximalGradientDescent",
        "The step of gradient descent, then drawn to 0 by l1 and l2 (FOBOS, Duchi and Singer 2009): \
         p = var - alpha * delta; var = sign(p) * max(|p| - alpha * l1, 0) / (1 + alpha * l2).",
        &["var: Ref(T)", "alpha: T", "l1: T", "l2: T", "delta: T"],
        for_numbers!(proximal_kernel),
    )
}

fn proximal_kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (rate, l1, l2): (T, T, T) = (scalar(context, 1)?, scalar(context, 2)?, scalar(context, 3)?);
        pass1::<T>(context, 4, move |var, delta| {
            *var = shrink(*var - delta * rate, rate, l1, l2);
        })
    }))
}

/// What l1 and l2 leave of `x` after a step of size `rate`.
#[inline(always)]
pub(super) fn shrink<T: Number>(x: T, rate: T, l1: T, l2: T) -> T {
    let scale = T::one() + l2 * rate;
    if l1 > T::zero() {
        x.sign() * (x.abs() - rate * l1).max(T::zero()) / scale
    } else {
        x / scale
    }
}
