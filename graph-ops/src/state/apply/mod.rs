//! The updates of optimizers: one pass over a variable, its slots and its gradient.
//!
//! Each follows the formula of TensorFlow 1.15's op of the same name, in the variable's own dtype, rounding after each
//! operation.

pub(super) mod adagrad;
pub(super) mod adam;
pub(super) mod ftrl;
pub(super) mod gradient_descent;
pub(super) mod rms_prop;
pub(super) mod sign;
#[cfg(test)]
mod tests;

use graph_core::op::kernel::MakeKernel;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition};
use graph_core::{DType, Element, Error, Result};
use half::{bf16, f16};
use num_traits::Float;

use super::assign::{different_shapes, variable_shape};
use crate::cpu::parallel::{GRAIN, SharedMut, for_each_range};
use crate::cpu::simd::multiversion;

/// A dtype that variables are trained in.
pub(super) trait Number: Element + Float {
    /// The nearest value to `x`.
    fn of(x: f64) -> Self;

    /// -1, 0 or 1 (NaN for NaN).
    #[inline(always)]
    fn sign(self) -> Self {
        if self > Self::zero() {
            Self::one()
        } else if self < Self::zero() {
            -Self::one()
        } else {
            self
        }
    }
}

impl Number for f32 {
    fn of(x: f64) -> Self {
        x as f32
    }
}

impl Number for f64 {
    fn of(x: f64) -> Self {
        x
    }
}

impl Number for f16 {
    fn of(x: f64) -> Self {
        f16::from_f64(x)
    }
}

impl Number for bf16 {
    fn of(x: f64) -> Self {
        bf16::from_f64(x)
    }
}

/// Begins the definition of an update with these inputs, the variables first; kernels are those of [`for_numbers`].
fn definition(
    name: &'static str,
    summary: &'static str,
    inputs: &[&'static str],
    kernels: [MakeKernel; 4],
) -> OpDefinition {
    let mut definition = OpDefinition::new(name, summary);
    for input in inputs {
        definition = definition.input(input);
    }
    definition = definition
        .output("out: Ref(T)")
        .attr("T: numbertype")
        .attr("use_locking: bool = false")
        .shape(shape)
        .not_differentiable();
    const DTYPES: [&[DType]; 4] = [&[DType::Float32], &[DType::Float64], &[DType::Half], &[DType::BFloat16]];
    for (dtypes, make) in DTYPES.into_iter().zip(kernels) {
        definition = definition.kernel(KernelDefinition::cpu(make).types("T", dtypes));
    }
    definition
}

/// A kernel for each dtype of [`Number`].
macro_rules! for_numbers {
    ($make:ident) => {
        [$make::<f32>, $make::<f64>, $make::<half::f16>, $make::<half::bf16>]
    };
}
use for_numbers;

/// The arguments that have the variable's shape; all others are scalars.
const FULL: [&str; 13] = [
    "var",
    "accum",
    "accum_update",
    "m",
    "v",
    "ms",
    "mg",
    "mom",
    "linear",
    "gradient_accumulator",
    "gradient_squared_accumulator",
    "grad",
    "delta",
];

/// Variables, slots and gradient have one shape; everything else is a scalar.
fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let full: Vec<usize> = FULL
        .iter()
        .filter_map(|name| context.input_range(name).ok())
        .map(|range| range.start)
        .collect();
    let mut shape = context.input(0).clone();
    for index in 0..context.num_inputs() {
        if full.contains(&index) {
            shape = shape.merge(context.input(index))?;
        } else {
            context.with_rank(index, 0)?;
        }
    }
    context.set_output(0, shape);
    Ok(())
}

/// The scalar at input `index`.
fn scalar<T: Element>(context: &KernelContext<'_>, index: usize) -> Result<T> {
    match context.input::<T>(index)? {
        [scalar] => Ok(*scalar),
        _ => Err(Error::invalid_argument(format!("input {index} must be a scalar")).got(context.input_shape(index))),
    }
}

/// The first `N` inputs, which are variables, and the gradient, all of one shape.
fn operands<'a, T: Element, const N: usize>(
    context: &mut KernelContext<'a>,
    gradient: usize,
) -> Result<([&'a mut [T]; N], &'a [T])> {
    let shape = variable_shape(context, 0)?;
    for slot in 1..N {
        let slot = variable_shape(context, slot)?;
        if slot != shape {
            return Err(different_shapes("the variable and its slot", &shape, &slot));
        }
    }
    if *context.input_shape(gradient) != shape {
        return Err(different_shapes(
            "the variable and its gradient",
            &shape,
            context.input_shape(gradient),
        ));
    }
    let mut variables = Vec::with_capacity(N);
    for index in 0..N {
        variables.push(context.variable_mut::<T>(index)?);
    }
    let variables = variables
        .try_into()
        .map_err(|_| Error::internal("an update without all its variables"))?;
    context.forward(0, 0);
    Ok((variables, context.input::<T>(gradient)?))
}

/// Functions that call `step` for each element of so many variables and their gradient, in parallel over fixed chunks.
macro_rules! passes {
    ($($(#[$doc:meta])* $name:ident $chunk:ident $count:literal ($($variable:ident),*);)*) => {$(
        $(#[$doc])*
        fn $name<T: Element>(
            context: &mut KernelContext<'_>,
            gradient: usize,
            step: impl Fn($(elements!($variable T),)* T) + Copy + Send + Sync,
        ) -> Result<()> {
            multiversion! {
                fn $chunk[T: Element, F: Fn($(elements!($variable T),)* T)]($($variable: &mut [T],)* gradient: &[T], step: F) {
                    let len = gradient.len();
                    $(let $variable = &mut $variable[..len];)*
                    for i in 0..len {
                        step($(&mut $variable[i],)* gradient[i]);
                    }
                }
            }
            let ([$($variable),*], gradient) = operands::<T, $count>(context, gradient)?;
            $(let $variable = SharedMut::new($variable);)*
            for_each_range(gradient.len(), GRAIN, |range| {
                // SAFETY: the variables have the gradient's length (checked), and each task has its own range.
                $(let $variable = unsafe { $variable.slice(range.clone()) };)*
                $chunk($($variable,)* &gradient[range], step);
            });
            Ok(())
        }
    )*};
}

macro_rules! elements {
    ($variable:ident $type:ident) => {
        &mut $type
    };
}

passes! {
    /// One variable.
    pass1 chunk1 1 (a);
    /// A variable and a slot.
    pass2 chunk2 2 (a, b);
    /// A variable and two slots.
    pass3 chunk3 3 (a, b, c);
    /// A variable and three slots.
    pass4 chunk4 4 (a, b, c, d);
}
