//! The updates of optimizers: one pass over a variable, its slots and its gradient.
//!
//! Each follows the formula of TensorFlow 1.15's op of the same name, in the variable's own dtype, rounding after each
//! operation. A formula is said once, as a [`Rule`]; it becomes up to four ops: over references (`ApplyAdam`) and over handles
//! (`ResourceApplyAdam`), and for the rows of a variable that indices name (`SparseApplyMomentum`,
//! `ResourceSparseApplyMomentum`). Those for every element have a form of the engine's own too, whose gradient is a chain of
//! element-wise operations ([`fused`]).

mod adagrad;
mod adam;
mod assign;
mod chained;
mod device;
mod device_chains;
mod ftrl;
mod gradient_descent;
mod host;
mod rms_prop;
mod sign;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;
use std::sync::OnceLock;

use graph_core::op::kernel::MakeKernel;
use graph_core::op::{ArgDef, ArgType, InferenceContext, KernelDefinition, OpDefinition};
use graph_core::{DType, Element, Error, PartialShape, Result};
use half::{bf16, f16};
use num_traits::Float;
use rustc_hash::FxHashMap;

use super::update::by_handle;
use crate::cpu::chain::Chain;
use crate::cpu::parallel::SharedMut;

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

    /// The op over references whose gradient is a chain of element-wise operations; for one variable or several, as
    /// [`Chained`](chained::Chained) says. That for one may hand its reference on.
    fn fused(&self, name: &'static str) -> OpDefinition {
        let mut definition = OpDefinition::new(name, self.summary);
        for input in self.inputs.iter().filter(|input| !is_gradient(input)) {
            definition = definition.input(input);
        }
        let definition = definition
            .input("operands: operand_types")
            .input("mask: M * bool")
            .input("others: X * Ref(T)")
            .output("out: R * Ref(T)")
            .attr("T: {float, double}")
            .attr("operand_types: list(type) >= 1")
            .attr("N: int >= 1")
            .attr("M: int")
            .attr("X: int")
            .attr("R: int")
            .attr("instructions: list(int)")
            .attr("shapes: list(shape)");
        let mut definition = self.with_attrs(definition).shape(|context| {
            let shapes: Vec<PartialShape> = context.attr("shapes")?;
            if let (1, Some(shape)) = (context.num_outputs(), shapes.into_iter().next()) {
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
        let on_device = KernelDefinition::cuda(self.on_device).types("T", DTYPES_OF_CHAINS);
        definition.kernel(on_device.reads_before_update())
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

/// The dtypes of variables whose gradients may be chains.
pub(crate) const DTYPES_OF_CHAINS: &[DType] = &[DType::Float32, DType::Float64];

/// What an update becomes whose gradient is a chain of element-wise operations.
#[derive(Clone, Copy)]
pub(crate) struct FusedForm {
    /// The op.
    pub(crate) definition: &'static OpDefinition,
    /// Which input of the update the gradient is.
    pub(crate) gradient: usize,
    /// How many inputs are the variable and its slots, which come first in both.
    pub(crate) variables: usize,
    /// Whether the update has a condition, its last input.
    pub(crate) is_masked: bool,
}

/// The form of the update `op` whose gradient is a chain of element-wise operations; `None` for what is no update of every
/// element.
pub(crate) fn fused(op: &str) -> Option<FusedForm> {
    static FUSED: OnceLock<FxHashMap<&'static str, FusedForm>> = OnceLock::new();
    let fused = FUSED.get_or_init(|| {
        let mut fused = FxHashMap::default();
        let plain = DENSE.iter().map(|make| make());
        let assignments = ASSIGNMENTS.iter().map(|(op, _)| (*op, 1, 1));
        let updates = plain.filter_map(|plain| {
            let gradient = plain
                .inputs
                .iter()
                .position(|arg| ["grad", "delta"].contains(&arg.name))?;
            let is_variable = |arg: &&ArgDef| arg.is_ref || arg.ty == ArgType::Fixed(DType::Resource);
            Some((plain.name, gradient, plain.inputs.iter().filter(is_variable).count()))
        });
        let all: Vec<(&str, usize, usize)> = updates.chain(assignments).collect();
        for (op, make) in FUSED_FORMS.iter().chain(ASSIGNMENTS) {
            if let Some(&(_, gradient, variables)) = all.iter().find(|(name, ..)| name == op) {
                let form = FusedForm {
                    definition: Box::leak(Box::new(make())),
                    gradient,
                    variables,
                    is_masked: false,
                };
                fused.insert(*op, form);
                if let Some(masked) = masked(op) {
                    fused.insert(
                        masked.name,
                        FusedForm {
                            is_masked: true,
                            ..form
                        },
                    );
                }
            }
        }
        fused
    });
    fused.get(op).copied()
}

/// How many inputs of a form of [`fused`] are a variable and its slots; `None` for another op.
pub(crate) fn variables_of_fused(op: &str) -> Option<usize> {
    static VARIABLES: OnceLock<FxHashMap<&'static str, usize>> = OnceLock::new();
    let variables = VARIABLES.get_or_init(|| {
        let forms = FUSED_FORMS.iter().chain(ASSIGNMENTS).filter_map(|(op, _)| fused(op));
        forms.map(|form| (form.definition.name, form.variables)).collect()
    });
    variables.get(op).copied()
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

/// The same, with chains in place of the gradients.
const FUSED_FORMS: &[EngineForm] = dense_rules!(engine_forms { fused "_Fused": });

/// Assignments of chains.
const ASSIGNMENTS: &[EngineForm] = &[
    ("Assign", || assign::ASSIGN.fused("_FusedAssign")),
    ("AssignVariableOp", || {
        by_handle(assign::ASSIGN.fused("_FusedAssignVariableOp"))
    }),
];

/// The same as the updates, under a condition.
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

pub(in crate::state) use host::holds;
use host::{Inputs, pass1, pass2, pass3, pass4};

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
