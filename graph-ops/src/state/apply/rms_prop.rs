//! `ApplyRMSProp`, `ApplyCenteredRMSProp`.

use graph_core::Result;
use graph_core::op::{KernelRequest, OpDefinition, Planned};

use super::{Number, definition, for_numbers, pass3, pass4, scalar};

/// `ApplyRMSProp`
pub(crate) fn rms_prop() -> OpDefinition {
    definition(
        "ApplyRMSProp",
        "RMSProp (Hinton, 2012): ms += (grad^2 - ms) * (1 - rho); mom = mom * momentum + lr * grad / sqrt(ms + epsilon); \
         var -= mom.",
        &[
            "var: Ref(T)",
            "ms: Ref(T)",
            "mom: Ref(T)",
            "lr: T",
            "rho: T",
            "momentum: T",
            "epsilon: T",
            "grad: T",
        ],
        for_numbers!(rms_prop_kernel),
    )
}

fn rms_prop_kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (rate, rho): (T, T) = (scalar(context, 3)?, scalar(context, 4)?);
        let (momentum, epsilon): (T, T) = (scalar(context, 5)?, scalar(context, 6)?);
        let new = T::one() - rho;
        pass3::<T>(context, 7, move |var, ms, mom, grad| {
            *ms = *ms + (grad * grad - *ms) * new;
            *mom = *mom * momentum + grad * rate / (epsilon + *ms).sqrt();
            *var = *var - *mom;
        })
    }))
}

/// `ApplyCenteredRMSProp`
pub(crate) fn centered() -> OpDefinition {
    definition(
        "ApplyCenteredRMSProp",
        "RMSProp with the variance in place of the mean square: ms += (grad^2 - ms) * (1 - rho); \
         mg += (grad - mg) * (1 - rho); mom = mom * momentum + lr * grad / sqrt(ms - mg^2 + epsilon); var -= mom.",
        &[
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
        for_numbers!(centered_kernel),
    )
}

fn centered_kernel<T: Number>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (rate, rho): (T, T) = (scalar(context, 4)?, scalar(context, 5)?);
        let (momentum, epsilon): (T, T) = (scalar(context, 6)?, scalar(context, 7)?);
        let new = T::one() - rho;
        pass4::<T>(context, 8, move |var, mg, ms, mom, grad| {
            *ms = *ms + (grad * grad - *ms) * new;
            *mg = *mg + (grad - *mg) * new;
            let variance = (*ms - *mg * *mg) + epsilon;
            *mom = *mom * momentum + grad * rate / variance.sqrt();
            *var = *var - *mom;
        })
    }))
}
