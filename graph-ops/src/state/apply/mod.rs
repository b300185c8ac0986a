//! The updates of optimizers: one pass over a variable, its slots and its gradient.
//!
//! Each follows the formula of TensorFlow 1.15's op of the same name, in the variable's own dtype, rounding after each
//! operation. A formula is said once, as a [`Rule`]; it becomes up to four ops: over references (`ApplyAdam`) and over handles
//! (`ResourceApplyAdam`), and for the rows of a variable that indices name (`SparseApplyMomentum`,
//! `ResourceSparseApplyMomentum`). Those for every element have a form of the engine's own too, whose gradient is a chain of
//! element-wise operations ([`fused`]).

mod adagrad;
mod adam;
mod device;
mod ftrl;
mod gradient_descent;
mod rms_prop;
mod sign;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use graph_core::op::kernel::MakeKernel;
use graph_core::op::{ArgDef, ArgType, InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition};
use graph_core::{DType, Element, Error, PartialShape, Result, Shape};
use half::{bf16, f16};
use num_traits::Float;
use rustc_hash::FxHashMap;

use super::assign::{different_shapes, variable_shape};
use super::update::{by_handle, hand_on};
use crate::cpu::Short;
use crate::cpu::chain::Chain;
use crate::cpu::parallel::{GRAIN, SharedMut, for_each_range};
use crate::cpu::simd::multiversion;
use crate::rewrite::elementwise;

/// A dtype that variables are trained in.
pub(super) trait Number: Element + Float {
    /// The nearest value to `x`.
    fn of(x: f64) -> Self;

    /// Takes the elements `range` of a gradient through its chain; `sink` gets each block of it with its position.
    fn through(chain: &Chain, operands: &[SharedMut<u8>], range: Range<usize>, sink: &mut dyn FnMut(usize, &[Self]));

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

    fn through(chain: &Chain, operands: &[SharedMut<u8>], range: Range<usize>, sink: &mut dyn FnMut(usize, &[Self])) {
        chain.over(operands, range, sink);
    }
}

impl Number for f64 {
    fn of(x: f64) -> Self {
        x
    }

    fn through(chain: &Chain, operands: &[SharedMut<u8>], range: Range<usize>, sink: &mut dyn FnMut(usize, &[Self])) {
        chain.over(operands, range, sink);
    }
}

impl Number for f16 {
    fn of(x: f64) -> Self {
        f16::from_f64(x)
    }

    fn through(_: &Chain, _: &[SharedMut<u8>], _: Range<usize>, _: &mut dyn FnMut(usize, &[Self])) {
        unreachable!("only variables of `float` and `double` are updated by chains")
    }
}

impl Number for bf16 {
    fn of(x: f64) -> Self {
        bf16::from_f64(x)
    }

    fn through(_: &Chain, _: &[SharedMut<u8>], _: Range<usize>, _: &mut dyn FnMut(usize, &[Self])) {
        unreachable!("only variables of `float` and `double` are updated by chains")
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
    /// The kernel of a device.
    on_device: MakeKernel,
}

impl Rule {
    /// The op over references, for every element.
    fn dense(&self, name: &'static str) -> OpDefinition {
        let mut definition = OpDefinition::new(name, self.summary);
        for input in self.inputs {
            definition = definition.input(input);
        }
        let kernel = KernelDefinition::cuda(self.on_device).types("T", crate::cuda::FLOATS);
        self.finish(definition.output("out: Ref(T)").attr("T: numbertype"))
            .kernel(kernel)
    }

    /// The op over references that does nothing where the condition, its last input, does not hold.
    fn masked(&self, name: &'static str) -> OpDefinition {
        let mut definition = self.dense(name);
        definition.inputs.push(MASK);
        definition
    }

    /// The op over references, for the rows that `indices` names; `indices` comes behind the gradient.
    fn sparse(&self, name: &'static str) -> OpDefinition {
        let mut definition = OpDefinition::new(name, self.summary);
        for input in self.inputs {
            definition = match *input {
                gradient if is_gradient(gradient) => definition.input("grad: T").input("indices: Tindices"),
                input => definition.input(input),
            };
        }
        let definition = definition.output("out: Ref(T)").attr("T: numbertype");
        let kernel = KernelDefinition::cuda(self.on_device).types("T", crate::cuda::FLOATS);
        self.finish(definition.attr("Tindices: {int32, int64}"))
            .may_fail()
            .kernel(kernel)
    }

    /// The op over references whose gradient is a chain of element-wise operations, over operands that come last.
    fn fused(&self, name: &'static str) -> OpDefinition {
        let mut definition = OpDefinition::new(name, self.summary);
        for input in self.inputs.iter().filter(|input| !is_gradient(input)) {
            definition = definition.input(input);
        }
        let definition = definition.input("operands: operand_types").output("out: Ref(T)");
        let definition = definition
            .attr("T: {float, double}")
            .attr("operand_types: list(type) >= 1");
        let definition = self.with_attrs(definition.attr("instructions: list(int)").attr("shape: shape"));
        let mut definition = definition.shape(|context| {
            let shape: PartialShape = context.attr("shape")?;
            if context.num_outputs() > 0 {
                context.set_output(0, shape);
            }
            Ok(())
        });
        const DTYPES: [&[DType]; 2] = [&[DType::Float32], &[DType::Float64]];
        for (dtypes, make) in DTYPES.into_iter().zip(self.kernels) {
            // Each block of the chain is finished before the block of the variable is changed.
            let kernel = KernelDefinition::cpu(make).types("T", dtypes).reads_before_update();
            definition = definition.kernel(kernel);
        }
        let on_device = KernelDefinition::cuda(self.on_device).types("T", &[DType::Float32, DType::Float64]);
        definition = definition.kernel(on_device.reads_before_update());
        definition
    }

    fn with_attrs(&self, mut definition: OpDefinition) -> OpDefinition {
        definition = definition.attr("use_locking: bool = false").no_gradient();
        for attr in self.attrs {
            definition = definition.attr(attr);
        }
        definition
    }

    fn finish(&self, definition: OpDefinition) -> OpDefinition {
        let mut definition = self.with_attrs(definition).shape(shape);
        const DTYPES: [&[DType]; 4] = [&[DType::Float32], &[DType::Float64], &[DType::Half], &[DType::BFloat16]];
        for (dtypes, make) in DTYPES.into_iter().zip(self.kernels) {
            definition = definition.kernel(KernelDefinition::cpu(make).types("T", dtypes));
        }
        definition
    }
}

/// The condition of a masked update, a scalar.
pub(super) const MASK: ArgDef = ArgDef {
    name: "mask",
    ty: ArgType::Fixed(DType::Bool),
    number: None,
    is_ref: false,
};

/// Whether this is the input of a rule that a gradient is.
fn is_gradient(input: &str) -> bool {
    matches!(input, "grad: T" | "delta: T")
}

/// The form of the update `op` whose gradient is a chain of element-wise operations, and the position of the gradient among
/// the inputs of `op`; `None` for what is no update of every element. The operands of the chain come behind all other inputs.
pub(crate) fn fused(op: &str) -> Option<(&'static OpDefinition, usize)> {
    static FUSED: OnceLock<FxHashMap<&'static str, (&'static OpDefinition, usize)>> = OnceLock::new();
    let fused = FUSED.get_or_init(|| {
        let mut fused = FxHashMap::default();
        for (op, definition) in FUSED_FORMS.iter().map(|(op, make)| (*op, make())) {
            let plain = DENSE.iter().map(|make| make()).find(|plain| plain.name == op);
            let gradient = |arg: &ArgDef| ["grad", "delta"].contains(&arg.name);
            if let Some(gradient) = plain.and_then(|plain| plain.inputs.iter().position(gradient)) {
                fused.insert(op, (&*Box::leak(Box::new(definition)), gradient));
            }
        }
        fused
    });
    fused.get(op).copied()
}

/// The form of the update `op` that does nothing where a condition does not hold, which it takes behind all other inputs;
/// `None` for what is no update of every element.
pub(crate) fn masked(op: &str) -> Option<&'static OpDefinition> {
    static MASKED: OnceLock<FxHashMap<&'static str, OpDefinition>> = OnceLock::new();
    let masked = MASKED.get_or_init(|| MASKED_FORMS.iter().map(|(op, make)| (*op, make())).collect());
    masked.get(op)
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

macro_rules! engine_forms {
    ($form:ident $prefix:literal: $($rule:path = $name:literal,)*) => {
        &[$(
            (concat!("Apply", $name), || $rule.$form(concat!($prefix, "Apply", $name))),
            (concat!("ResourceApply", $name), || by_handle($rule.$form(concat!($prefix, "ResourceApply", $name)))),
        )*]
    };
}

/// Gives the rules for every element to a macro.
macro_rules! dense_rules {
    ($macro:ident { $($before:tt)* }) => {
        $macro! { $($before)*
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
        }
    };
}

/// The updates of every element.
pub(crate) const DENSE: &[fn() -> OpDefinition] = dense_rules!(ops { dense "Apply": });

/// The name of an update, and the definition of a form of it that is the engine's own.
type EngineForm = (&'static str, fn() -> OpDefinition);

/// The same, with a chain in place of the gradient.
const FUSED_FORMS: &[EngineForm] = dense_rules!(engine_forms { fused "_Fused": });

/// The same, under a condition.
const MASKED_FORMS: &[EngineForm] = dense_rules!(engine_forms { masked "_Masked": });

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

/// The kernel of a device: how many variables, which input the gradient is, what is calculated once, and the step, both in
/// the words of `apply.cu`.
macro_rules! on_device {
    ($variables:literal, $gradient:literal, $prepare:literal, $step:literal) => {
        |request| {
            let formula = super::device::Formula {
                variables: $variables,
                gradient: $gradient,
                prepare: $prepare,
                step: $step,
            };
            super::device::update(request, formula)
        }
    };
    // With another step if the attribute is set.
    ($variables:literal, $gradient:literal, $prepare:literal, $step:literal, $attr:literal: $other:literal) => {
        |request| {
            let formula = super::device::Formula {
                variables: $variables,
                gradient: $gradient,
                prepare: $prepare,
                step: if request.attr($attr)? { $other } else { $step },
            };
            super::device::update(request, formula)
        }
    };
}
use on_device;

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

/// Which input the condition of a masked update is.
pub(super) fn mask_of(request: &KernelRequest<'_>) -> Option<usize> {
    let last = request.num_inputs().checked_sub(1)?;
    (request.input_dtype(last) == DType::Bool).then_some(last)
}

/// Whether the condition holds that is input `mask`.
pub(super) fn holds(context: &KernelContext<'_>, mask: usize) -> Result<bool> {
    match context.input::<bool>(mask)? {
        [holds] => Ok(*holds),
        _ => Err(Error::invalid_argument("the condition must be a scalar").got(context.input_shape(mask))),
    }
}

/// Where a kernel finds its inputs: in the order of its rule, but for the indices of a sparse update behind the gradient.
#[derive(Clone)]
struct Inputs {
    gradient: usize,
    indices: Option<usize>,
    /// What the gradient is made of, of operands that begin at an input, where it is a chain.
    chain: Option<(Arc<Chain>, Range<usize>)>,
    /// The condition of a masked update.
    mask: Option<usize>,
}

impl Inputs {
    /// The inputs of a rule whose gradient is input `gradient`.
    ///
    /// # Errors
    /// `Internal` for a broken chain.
    fn of(request: &KernelRequest<'_>, gradient: usize) -> Result<Self> {
        let sparse = request.attrs.get("Tindices").is_some();
        let chain = if request.attrs.get("instructions").is_some() {
            let types: Vec<DType> = request.attr("operand_types")?;
            let operands = request.num_inputs() - types.len()..request.num_inputs();
            let shape: PartialShape = request.attr("shape")?;
            let shape = shape
                .to_shape()
                .ok_or_else(|| Error::internal("a chain of unknown shape"))?;
            let chain = elementwise::chain(request, operands.clone(), &shape)?;
            Some((Arc::new(chain), operands))
        } else {
            None
        };
        Ok(Self {
            gradient,
            indices: sparse.then_some(gradient + 1),
            chain,
            mask: mask_of(request),
        })
    }

    /// Whether the update is to change nothing.
    fn is_masked(&self, context: &KernelContext<'_>) -> Result<bool> {
        self.mask.map_or(Ok(false), |mask| Ok(!holds(context, mask)?))
    }

    /// The scalar that is input `index` of the rule.
    fn scalar<T: Element>(&self, context: &KernelContext<'_>, index: usize) -> Result<T> {
        let index = match self.indices {
            Some(indices) if index >= indices => index + 1,
            _ if self.chain.is_some() && index > self.gradient => index - 1,
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
        if self.chain.is_some() {
            return Ok(None);
        }
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
    let mut variables: [&mut [T]; N] = std::array::from_fn(|_| Default::default());
    for (index, variable) in variables.iter_mut().enumerate() {
        *variable = context.variable_mut::<T>(index)?;
    }
    Ok(variables)
}

/// Functions that call `step` for each element of so many variables and their gradient: of all of a variable in parallel over
/// fixed chunks, of rows in the order of their indices, in which a row may come up again.
macro_rules! passes {
    ($($(#[$doc:meta])* $name:ident $chunk:ident $count:literal ($($variable:ident),*);)*) => {$(
        $(#[$doc])*
        fn $name<T: Number>(
            context: &mut KernelContext<'_>,
            inputs: &Inputs,
            step: impl Fn($(elements!($variable T),)* T) + Copy + Send + Sync,
        ) -> Result<()> {
            multiversion! {
                wide fn $chunk[T: Element, F: Fn($(elements!($variable T),)* T)]($($variable: &mut [T],)* gradient: &[T], step: F) {
                    let len = gradient.len();
                    $(let $variable = &mut $variable[..len];)*
                    for i in 0..len {
                        step($(&mut $variable[i],)* gradient[i]);
                    }
                }
            }
            let shape = variable_shape(context, 0)?;
            let rows = inputs.rows(context, &shape)?;
            if inputs.is_masked(context)? {
                hand_on(context);
                return Ok(());
            }
            let [$($variable),*] = variables::<T, $count>(context, &shape)?;
            if let Some((chain, operands)) = &inputs.chain {
                let operands = elementwise::pointers::<T>(context, operands.clone())?;
                let operands: Short<_> = operands.iter().map(|at| SharedMut::from_ptr(at.cast_mut())).collect();
                hand_on(context);
                let len = shape.num_elements();
                $(let $variable = SharedMut::new($variable);)*
                for_each_range(len, GRAIN, |range| {
                    T::through(chain, &operands, range, &mut |at, gradient| {
                        // SAFETY: each task has its own range of the variables, all of one shape (checked). The chain has
                        // read what it needs of this block.
                        $(let $variable = unsafe { $variable.slice(at..at + gradient.len()) };)*
                        $chunk($($variable,)* gradient, step);
                    });
                });
                return Ok(());
            }
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
