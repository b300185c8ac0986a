//! `ApplyGradientDescent`, `ApplyMomentum`, `ApplyProximalGradientDescent`.

use graph_core::Result;
use graph_core::op::{KernelRequest, Planned};

use super::{Inputs, Number, Rule, for_numbers, on_device, pass1, pass2};

/// `ApplyGradientDescent`
pub(super) const GRADIENT_DESCENT: Rule = Rule {
    summary: "var -= alpha * delta.",
    inputs: &["var: Ref(T)", "alpha: T", "delta: T"],
    attrs: &[],
    kernels: for_numbers!(gradient_descent_kernel),
    on_device: on_device!(1, 2, "", "a = a - grad * s[0]"),
};

fn gradient_descent_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 2)?;
    Ok(Planned::new(move |context| {
        let rate: T = inputs.scalar(context, 1)?;
        pass1::<T>(context, &inputs, move |var, delta| *var = *var - delta * rate)
    }))
}

/// `ApplyMomentum`
pub(super) const MOMENTUM: Rule = Rule {
    summary: "accum = accum * momentum + grad; var -= lr * accum, or with Nesterov's momentum \
         var -= lr * grad + lr * momentum * accum.",
    inputs: &["var: Ref(T)", "accum: Ref(T)", "lr: T", "grad: T", "momentum: T"],
    attrs: &["use_nesterov: bool = false"],
    kernels: for_numbers!(momentum_kernel),
    on_device: on_device!(
        2,
        3,
        "",
        "b = b * s[1] + grad; a = a - b * s[0]",
        "use_nesterov": "b = b * s[1] + grad; a = a - (grad * s[0] + b * s[1] * s[0])"
    ),
};

fn momentum_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 3)?;
    let nesterov: bool = request.attr("use_nesterov")?;
    Ok(Planned::new(move |context| {
        let (rate, momentum): (T, T) = (inputs.scalar(context, 2)?, inputs.scalar(context, 4)?);
        if nesterov {
            pass2::<T>(context, &inputs, move |var, accum, grad| {
                *accum = *accum * momentum + grad;
                *var = *var - (grad * rate + *accum * momentum * rate);
            })
        } else {
            pass2::<T>(context, &inputs, move |var, accum, grad| {
                *accum = *accum * momentum + grad;
                *var = *var - *accum * rate;
            })
        }
    }))
}

/// `ResourceApplyKerasMomentum`
pub(super) const KERAS_MOMENTUM: Rule = Rule {
    summary: "accum = accum * momentum - lr * grad; var += accum, or with Nesterov's momentum \
              var += accum * momentum - lr * grad.",
    inputs: &["var: Ref(T)", "accum: Ref(T)", "lr: T", "grad: T", "momentum: T"],
    attrs: &["use_nesterov: bool = false"],
    kernels: for_numbers!(keras_momentum_kernel),
    on_device: on_device!(
        2,
        3,
        "",
        "b = b * s[1] - grad * s[0]; a = a + b",
        "use_nesterov": "b = b * s[1] - grad * s[0]; a = a + (b * s[1] - grad * s[0])"
    ),
};

fn keras_momentum_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 3)?;
    let nesterov: bool = request.attr("use_nesterov")?;
    Ok(Planned::new(move |context| {
        let (rate, momentum): (T, T) = (inputs.scalar(context, 2)?, inputs.scalar(context, 4)?);
        if nesterov {
            pass2::<T>(context, &inputs, move |var, accum, grad| {
                *accum = *accum * momentum - grad * rate;
                *var = *var + (*accum * momentum - grad * rate);
            })
        } else {
            pass2::<T>(context, &inputs, move |var, accum, grad| {
                *accum = *accum * momentum - grad * rate;
                *var = *var + *accum;
            })
        }
    }))
}

/// `ApplyProximalGradientDescent`
pub(super) const PROXIMAL: Rule = Rule {
    summary: "The step of gradient descent, then drawn to 0 by l1 and l2 (FOBOS, Duchi and Singer 2009): \
         p = var - alpha * delta; var = sign(p) * max(|p| - alpha * l1, 0) / (1 + alpha * l2).",
    inputs: &["var: Ref(T)", "alpha: T", "l1: T", "l2: T", "delta: T"],
    attrs: &[],
    kernels: for_numbers!(proximal_kernel),
    on_device: on_device!(1, 4, "", "a = shrink(a - grad * s[0], s[0], s[1], s[2])"),
};

fn proximal_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 4)?;
    Ok(Planned::new(move |context| {
        let (rate, l1, l2): (T, T, T) = (
            inputs.scalar(context, 1)?,
            inputs.scalar(context, 2)?,
            inputs.scalar(context, 3)?,
        );
        pass1::<T>(context, &inputs, move |var, delta| {
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
