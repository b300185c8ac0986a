//! `ApplyRMSProp`, `ApplyCenteredRMSProp`.

use graph_core::Result;
use graph_core::op::{KernelRequest, Planned};

use super::{Inputs, Number, Rule, for_numbers, on_device, pass3, pass4};

/// `ApplyRMSProp`
pub(super) const RMS_PROP: Rule = Rule {
    summary: "RMSProp (Hinton, 2012): ms += (grad^2 - ms) * (1 - rho); mom = mom * momentum + lr * grad / sqrt(ms + epsilon); \
         var -= mom.",
    inputs: &[
        "var: Ref(T)",
        "ms: Ref(T)",
        "mom: Ref(T)",
        "lr: T",
        "rho: T",
        "momentum: T",
        "epsilon: T",
        "grad: T",
    ],
    attrs: &[],
    kernels: for_numbers!(rms_prop_kernel),
    on_device: on_device!(
        3,
        7,
        "C fresh = C(1) - s[1]",
        "b = b + (grad * grad - b) * fresh; c = c * s[2] + grad * s[0] / square_root(s[3] + b); a = a - c"
    ),
};

fn rms_prop_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 7)?;
    Ok(Planned::new(move |context| {
        let (rate, rho): (T, T) = (inputs.scalar(context, 3)?, inputs.scalar(context, 4)?);
        let (momentum, epsilon): (T, T) = (inputs.scalar(context, 5)?, inputs.scalar(context, 6)?);
        let new = T::one() - rho;
        pass3::<T>(context, &inputs, move |var, ms, mom, grad| {
            *ms = *ms + (grad * grad - *ms) * new;
            *mom = *mom * momentum + grad * rate / (epsilon + *ms).sqrt();
            *var = *var - *mom;
        })
    }))
}

/// `ApplyCenteredRMSProp`
pub(super) const CENTERED: Rule = Rule {
    summary: "RMSProp with the variance in place of the mean square: ms += (grad^2 - ms) * (1 - rho); \
         mg += (grad - mg) * (1 - rho); mom = mom * momentum + lr * grad / sqrt(ms - mg^2 + epsilon); var -= mom.",
    inputs: &[
        "var: Ref(T)",
        "mg: Ref(T)",
        "ms: Ref(T)",
        "mom: Ref(T)",
        "lr: T",
        "rho: T",
        "momentum: T",
        "epsilon: T",
        "grad: T",
    ],
    attrs: &[],
    kernels: for_numbers!(centered_kernel),
    on_device: on_device!(
        4,
        8,
        "C fresh = C(1) - s[1]",
        "c = c + (grad * grad - c) * fresh; b = b + (grad - b) * fresh; \
         d = d * s[2] + grad * s[0] / square_root((c - b * b) + s[3]); a = a - d"
    ),
};

fn centered_kernel<T: Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let inputs = Inputs::of(request, 8)?;
    Ok(Planned::new(move |context| {
        let (rate, rho): (T, T) = (inputs.scalar(context, 4)?, inputs.scalar(context, 5)?);
        let (momentum, epsilon): (T, T) = (inputs.scalar(context, 6)?, inputs.scalar(context, 7)?);
        let new = T::one() - rho;
        pass4::<T>(context, &inputs, move |var, mg, ms, mom, grad| {
            *ms = *ms + (grad * grad - *ms) * new;
            *mg = *mg + (grad - *mg) * new;
            let variance = (*ms - *mg * *mg) + epsilon;
            *mom = *mom * momentum + grad * rate / variance.sqrt();
            *var = *var - *mom;
        })
    }))
}
