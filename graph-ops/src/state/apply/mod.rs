//! The updates of optimizers: one pass over a variable, its slots and its gradient.
//!
//! Each follows the formula of TensorFlow 1.15's op of the same name, in the variable's own dtype, rounding after each
//! operation. A formula is said once, as a [`Rule`]; it becomes up to four ops: over references (`ApplyAdam`) and over handles
//! (`ResourceApplyAdam`), and for the rows of a variable that indices name (`SparseApplyMomentum`,
//! `ResourceSparseApplyMomentum`).

mod adagrad;
mod adam;
mod ftrl;
mod gradient_descent;
mod rms_prop;
mod sign;
#[cfg(test)]
mod tests;

use graph_core::op::kernel::MakeKernel;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition};
use graph_core::{DType, Element, Error, PartialShape, Result, Shape};
use half::{bf16, f16};
use num_traits::Float;

use super::assign::{different_shapes, variable_shape};
use super::update::{by_handle, hand_on};
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

/// What all ops of one formula share.
struct Rule {
    summary: &'static str,
    /// The variables first, and the gradient.
    inputs: &'static [&'static str],
    /// Beside `T` and `use_locking`.
    attrs: &'static [&'static str],
    kernels: [MakeKernel; 4],
}

impl Rule {
    /// The op over references, for every element.
    fn dense(&self, name: &'static str) -> OpDefinition {
        let mut definition = OpDefinition::new(name, self.summary);
        for input in self.inputs {
            definition = definition.input(input);
        }
        self.finish(definition.output("out: Ref(T)").attr("T: numbertype"))
    }

    /// The op over references, for the rows that `indices` names; `indices` comes behind the gradient.
    fn sparse(&self, name: &'static str) -> OpDefinition {
        let mut definition = OpDefinition::new(name, self.summary);
        for input in self.inputs {
            definition = match *input {
                "grad: T" | "delta: T" => definition.input("grad: T").input("indices: Tindices"),
                input => definition.input(input),
            };
        }
        let definition = definition.output("out: Ref(T)").attr("T: numbertype");
        self.finish(definition.attr("Tindices: {int32, int64}")).may_fail()
    }

    fn finish(&self, mut definition: OpDefinition) -> OpDefinition {
        definition = definition
            .attr("use_locking: bool = false")
            .shape(shape)
            .not_differentiable();
        for attr in self.attrs {
            definition = definition.attr(attr);
        }
        const DTYPES: [&[DType]; 4] = [&[DType::Float32], &[DType::Float64], &[DType::Half], &[DType::BFloat16]];
        for (dtypes, make) in DTYPES.into_iter().zip(self.kernels) {
            definition = definition.kernel(KernelDefinition::cpu(make).types("T", dtypes));
        }
        definition
    }
}

/// The definitions of the ops of rules, each over references and over handles.
macro_rules! ops {
    ($form:ident $prefix:literal: $($rule:path = $name:literal,)*) => {
        &[$(
            || $rule.$form(concat!($prefix, $name)),
            || by_handle($rule.$form(concat!("Resource", $prefix, $name))),
        )*]
    };
}

/// The updates of every element.
pub(crate) const DENSE: &[fn() -> OpDefinition] = ops! { dense "Apply":
    gradient_descent::GRADIENT_DESCENT = "GradientDescent",
    gradient_descent::MOMENTUM = "Momentum",
    gradient_descent::PROXIMAL = "ProximalGradientDescent",
    adam::ADAM = "Adam",
    adam::ADA_MAX = "AdaMax",
    rms_prop::RMS_PROP = "RMSProp",
    rms_prop::CENTERED = "CenteredRMSProp",
    adagrad::ADAGRAD = "Adagrad",
    adagrad::ADAGRAD_V2 = "AdagradV2",
    adagrad::ADAGRAD_DA = "AdagradDA",
    adagrad::PROXIMAL = "ProximalAdagrad",
    adagrad::ADADELTA = "Adadelta",
    ftrl::FTRL = "Ftrl",
    ftrl::FTRL_V2 = "FtrlV2",
    sign::ADD_SIGN = "AddSign",
    sign::POWER_SIGN = "PowerSign",
};

/// The updates of rows.
pub(crate) const SPARSE: &[fn() -> OpDefinition] = ops! { sparse "SparseApply":
    gradient_descent::MOMENTUM = "Momentum",
    gradient_descent::PROXIMAL = "ProximalGradientDescent",
    rms_prop::RMS_PROP = "RMSProp",
    rms_prop::CENTERED = "CenteredRMSProp",
    adagrad::ADAGRAD = "Adagrad",
    adagrad::ADAGRAD_V2 = "AdagradV2",
    adagrad::ADAGRAD_DA = "AdagradDA",
    adagrad::PROXIMAL = "ProximalAdagrad",
    adagrad::ADADELTA = "Adadelta",
    ftrl::FTRL = "Ftrl",
    ftrl::FTRL_V2 = "FtrlV2",
};

/// The updates that TensorFlow has over handles alone.
pub(crate) const BY_HANDLE: &[fn() -> OpDefinition] = &[
    || by_handle(adam::AMSGRAD.dense("ResourceApplyAdamWithAmsgrad")),
    || by_handle(gradient_descent::KERAS_MOMENTUM.dense("ResourceApplyKerasMomentum")),
    || by_handle(gradient_descent::KERAS_MOMENTUM.sparse("ResourceSparseApplyKerasMomentum")),
];

/// A kernel for each dtype of [`Number`].
macro_rules! for_numbers {
    ($make:ident) => {
        [$make::<f32>, $make::<f64>, $make::<half::f16>, $make::<half::bf16>]
    };
}
use for_numbers;

/// Variables and slots have one shape, and so has a dense gradient; a sparse one has a row for each index. Everything else is
/// a scalar.
fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let gradient = ["grad", "delta"]
        .iter()
        .find_map(|name| context.input_range(name).ok())
        .map_or(0, |range| range.start);
    let indices = context.input_range("indices").ok().map(|range| range.start);
    let dtype = context.input_dtype(gradient);
    let mut shape = context.variable_of(0, dtype)?;
    for index in 1..context.num_inputs() {
        if context.is_variable(index) {
            shape = shape.merge(&context.variable_of(index, dtype)?)?;
        } else if Some(index) == indices {
            context.with_rank(index, 1)?;
        } else if index != gradient {
            context.with_rank(index, 0)?;
        }
    }
    match indices {
        None => shape = shape.merge(context.input(gradient))?,
        Some(indices) => {
            if let Some(dims) = shape.dims() {
                let (_, row) = dims.split_first().ok_or_else(no_rows)?;
                let rows = [context.input(indices).dim(0)];
                let expected = PartialShape::from_dims(rows.iter().chain(row).copied());
                expected.merge(context.input(gradient))?;
            }
        }
    }
    if context.num_outputs() > 0 {
        context.set_output(0, shape);
    }
    Ok(())
}

fn no_rows() -> Error {
    Error::invalid_argument("a variable whose rows are updated must have at least one dimension")
}

/// Where a kernel finds its inputs: in the order of its rule, but for the indices of a sparse update behind the gradient.
#[derive(Clone, Copy)]
struct Inputs {
    gradient: usize,
    indices: Option<usize>,
}

impl Inputs {
    /// The inputs of a rule whose gradient is input `gradient`.
    fn of(request: &KernelRequest<'_>, gradient: usize) -> Self {
        let sparse = request.attrs.get("Tindices").is_some();
        Self {
            gradient,
            indices: sparse.then_some(gradient + 1),
        }
    }

    /// The scalar that is input `index` of the rule.
    fn scalar<T: Element>(&self, context: &KernelContext<'_>, index: usize) -> Result<T> {
        let index = match self.indices {
            Some(indices) if index >= indices => index + 1,
            _ => index,
        };
        match context.input::<T>(index)? {
            [scalar] => Ok(*scalar),
            _ => {
                Err(Error::invalid_argument(format!("input {index} must be a scalar")).got(context.input_shape(index)))
            }
        }
    }

    /// Where the rows begin that are to be updated, and how long they are; `None` for all of the variable.
    fn rows(&self, context: &KernelContext<'_>, variable: &Shape) -> Result<Option<(Vec<usize>, usize)>> {
        let Some(indices) = self.indices else {
            let gradient = context.input_shape(self.gradient);
            if gradient != variable {
                return Err(different_shapes("the variable and its gradient", variable, gradient));
            }
            return Ok(None);
        };
        let (&count, row) = variable.split_first().ok_or_else(no_rows)?;
        let named = context.input_shape(indices);
        let expected: Shape = named.iter().chain(row).copied().collect();
        if named.rank() != 1 || *context.input_shape(self.gradient) != expected {
            return Err(
                Error::invalid_argument("the gradient must have a row of the variable for each index")
                    .expected(expected)
                    .got(context.input_shape(self.gradient)),
            );
        }
        let len = row.iter().product();
        let starts = match context.input_dtype(indices) {
            DType::Int32 => starts(context.input::<i32>(indices)?, count, len)?,
            _ => starts(context.input::<i64>(indices)?, count, len)?,
        };
        Ok(Some((starts, len)))
    }
}

fn starts<I: Element + Into<i64>>(indices: &[I], rows: usize, len: usize) -> Result<Vec<usize>> {
    let start = |(number, &index): (usize, &I)| {
        let index: i64 = index.into();
        match usize::try_from(index) {
            Ok(row) if row < rows => Ok(row * len),
            _ => Err(Error::invalid_argument(format!(
                "indices[{number}] = {index} is not in [0, {rows})"
            ))),
        }
    };
    indices.iter().enumerate().map(start).collect()
}

/// The first `N` inputs, which are variables of one shape.
fn variables<'a, T: Element, const N: usize>(
    context: &mut KernelContext<'a>,
    shape: &Shape,
) -> Result<[&'a mut [T]; N]> {
    for slot in 1..N {
        let slot = variable_shape(context, slot)?;
        if slot != *shape {
            return Err(different_shapes("the variable and its slot", shape, &slot));
        }
    }
    let mut variables = Vec::with_capacity(N);
    for index in 0..N {
        variables.push(context.variable_mut::<T>(index)?);
    }
    variables
        .try_into()
        .map_err(|_| Error::internal("an update without all its variables"))
}

/// Functions that call `step` for each element of so many variables and their gradient: of all of a variable in parallel over
/// fixed chunks, of rows in the order of their indices, in which a row may come up again.
macro_rules! passes {
    ($($(#[$doc:meta])* $name:ident $chunk:ident $count:literal ($($variable:ident),*);)*) => {$(
        $(#[$doc])*
        fn $name<T: Element>(
            context: &mut KernelContext<'_>,
            inputs: Inputs,
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
            let shape = variable_shape(context, 0)?;
            let rows = inputs.rows(context, &shape)?;
            let [$($variable),*] = variables::<T, $count>(context, &shape)?;
            let gradient = context.input::<T>(inputs.gradient)?;
            hand_on(context);
            if let Some((starts, len)) = rows {
                for (number, start) in starts.into_iter().enumerate() {
                    let gradient = &gradient[number * len..][..len];
                    $chunk($(&mut $variable[start..start + len],)* gradient, step);
                }
                return Ok(());
            }
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
