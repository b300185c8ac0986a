//! `ApplyAdam`, `ApplyAdaMax`.

use graph_core::Result;
use graph_core::op::{KernelRequest, Planned};

use super::{Inputs, Number, Rule, for_numbers, on_device, pass3, pass4};

/// `ApplyAdam`
pub(super) const ADAM: Rule = Rule {
    summary: "Adam (Kingma and Ba, 2014): a = lr * sqrt(1 - beta2^t) / (1 - beta1^t); m += (grad - m) * (1 - beta1); \
         v += (grad^2 - v) * (1 - beta2); var -= m * a / (sqrt(v) + epsilon).",
    inputs: &[
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
    attrs: &["use_nesterov: bool = false"],
    kernels: for_numbers!(adam_kernel),
    on_device: on_device!(
        3,
        9,
        "C alpha = s[2] * square_root(C(1) - s[1]) / (C(1) - s[0]), new1 = C(1) - s[3], new2 = C(1) - s[4]",
        "b = b + (grad - b) * new1; c = c + (grad * grad - c) * new2; a = a - b * alpha / (square_root(c) + s[5])",
        "use_nesterov": "b = b + (grad - b) * new1; c = c + (grad * grad - c) * new2; \
                         a = a - (grad * new1 + b * s[3]) * alpha / (square_root(c) + s[5])"
    ),
};

fn adam_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 9)?;
    let nesterov: bool = request.attr("use_nesterov")?;
    Ok(Planned::new(move |context| {
        let (beta1_power, beta2_power): (T, T) = (inputs.scalar(context, 3)?, inputs.scalar(context, 4)?);
        let (rate, beta1, beta2): (T, T, T) = (
            inputs.scalar(context, 5)?,
            inputs.scalar(context, 6)?,
            inputs.scalar(context, 7)?,
        );
        let epsilon: T = inputs.scalar(context, 8)?;
        let one = T::one();
        let alpha = rate * (one - beta2_power).sqrt() / (one - beta1_power);
        let (new1, new2) = (one - beta1, one - beta2);
        if nesterov {
            pass3::<T>(context, &inputs, move |var, m, v, grad| {
                *m = *m + (grad - *m) * new1;
                *v = *v + (grad * grad - *v) * new2;
                *var = *var - (grad * new1 + *m * beta1) * alpha / (v.sqrt() + epsilon);
            })
        } else {
            pass3::<T>(context, &inputs, move |var, m, v, grad| {
                *m = *m + (grad - *m) * new1;
                *v = *v + (grad * grad - *v) * new2;
                *var = *var - *m * alpha / (v.sqrt() + epsilon);
            })
        }
    }))
}

/// `ResourceApplyAdamWithAmsgrad`
pub(super) const AMSGRAD: Rule = Rule {
    summary: "Adam by the largest v so far (Reddi and others, 2018): vhat = max(vhat, v); \
              var -= m * a / (sqrt(vhat) + epsilon), all else as in ApplyAdam.",
    inputs: &[
        "var: Ref(T)",
        "m: Ref(T)",
        "v: Ref(T)",
        "vhat: Ref(T)",
        "beta1_power: T",
        "beta2_power: T",
        "lr: T",
        "beta1: T",
        "beta2: T",
        "epsilon: T",
        "grad: T",
    ],
    attrs: &[],
    kernels: for_numbers!(amsgrad_kernel),
    on_device: on_device!(
        4,
        10,
        "C alpha = s[2] * square_root(C(1) - s[1]) / (C(1) - s[0]), new1 = C(1) - s[3], new2 = C(1) - s[4]",
        "b = b + (grad - b) * new1; c = c + (grad * grad - c) * new2; d = larger(d, c); \
         a = a - b * alpha / (square_root(d) + s[5])"
    ),
};

fn amsgrad_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 10)?;
    Ok(Planned::new(move |context| {
        let (beta1_power, beta2_power): (T, T) = (inputs.scalar(context, 4)?, inputs.scalar(context, 5)?);
        let (rate, beta1): (T, T) = (inputs.scalar(context, 6)?, inputs.scalar(context, 7)?);
        let (beta2, epsilon): (T, T) = (inputs.scalar(context, 8)?, inputs.scalar(context, 9)?);
        let one = T::one();
        let alpha = rate * (one - beta2_power).sqrt() / (one - beta1_power);
        let (new1, new2) = (one - beta1, one - beta2);
        pass4::<T>(context, &inputs, move |var, m, v, vhat, grad| {
            *m = *m + (grad - *m) * new1;
            *v = *v + (grad * grad - *v) * new2;
            *vhat = vhat.max(*v);
            *var = *var - *m * alpha / (vhat.sqrt() + epsilon);
        })
    }))
}

/// `ApplyAdaMax`
pub(super) const ADA_MAX: Rule = Rule {
    summary: "AdaMax (Kingma and Ba, 2014): m += (grad - m) * (1 - beta1); v = max(beta2 * v, |grad|); \
         var -= lr / (1 - beta1^t) * m / (v + epsilon).",
    inputs: &[
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
    attrs: &[],
    kernels: for_numbers!(ada_max_kernel),
    on_device: on_device!(
        3,
        8,
        "C rate = s[1] / (C(1) - s[0]), new1 = C(1) - s[2]",
        "b = b + (grad - b) * new1; c = larger(s[3] * c, C(abs(grad))); a = a - rate * (b / (c + s[4]))"
    ),
};

fn ada_max_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 8)?;
    Ok(Planned::new(move |context| {
        let (beta1_power, rate): (T, T) = (inputs.scalar(context, 3)?, inputs.scalar(context, 4)?);
        let (beta1, beta2, epsilon): (T, T, T) = (
            inputs.scalar(context, 5)?,
            inputs.scalar(context, 6)?,
            inputs.scalar(context, 7)?,
        );
        let rate = rate / (T::one() - beta1_power);
        let new1 = T::one() - beta1;
        pass3::<T>(context, &inputs, move |var, m, v, grad| {
            *m = *m + (grad - *m) * new1;
            *v = (beta2 * *v).max(grad.abs());
            *var = *var - rate * (*m / (*v + epsilon));
        })
    }))
}
