//! Choosing and limiting elements: `Select`, `SelectV2`, `ClipByValue`.

use graph_core::gradients::GradientContext;
use graph_core::graph::scope::name_scope_in;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Graph, PartialShape, Result, Shape, Value};

use super::broadcasting::Broadcast;
use super::nodes::Nodes;
use super::powers::zeros;
use crate::cpu::parallel::{GRAIN, SharedMut, for_each_range};
use crate::cuda::elementwise::{Operand as Mapped, map, map_operands};
use crate::cuda::{NUMBERS, SIZED, word_of};

fn select(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("condition: bool")
        .input("t: T")
        .input("e: T")
        .output("output: T")
        .attr("T: type")
}

/// Adds a kernel for each size of an element: the bits are copied, whatever they mean.
macro_rules! kernels_by_size {
    ($definition:expr; $run:ident, $strings:ident) => {
        $definition
            .kernel(KernelDefinition::direct(|context| by_size(context, Runs::$run)).types(
                "T",
                &[
                    DType::Float32,
                    DType::Float64,
                    DType::Int32,
                    DType::UInt8,
                    DType::Int16,
                    DType::Int8,
                    DType::Complex64,
                    DType::Int64,
                    DType::Bool,
                    DType::BFloat16,
                    DType::UInt16,
                    DType::Complex128,
                    DType::Half,
                    DType::UInt32,
                    DType::UInt64,
                ],
            ))
            .kernel(KernelDefinition::cuda(|request| choose(request, Runs::$run)).types("T", SIZED))
            .kernel(KernelDefinition::direct($strings).types("T", &[DType::String]))
    };
}

#[derive(Clone, Copy)]
enum Runs {
    Select,
    SelectV2,
}

/// The choice on a device.
fn choose(request: &KernelRequest<'_>, run: Runs) -> Result<Planned> {
    let (_, word) = word_of(request.input_dtype(1))?;
    let operand = |input: usize, name: &'static str, type_name: &'static str| Mapped {
        input,
        name,
        type_name,
        shape: request.input_shape(input).to_vec(),
    };
    let mut operands = [
        operand(0, "condition", "bool"),
        operand(1, "t", word),
        operand(2, "e", word),
    ];
    if let Runs::Select = run {
        // A vector of conditions chooses rows, beside a scalar and one for each element.
        let ones = request
            .input_shape(1)
            .rank()
            .saturating_sub(request.input_shape(0).rank());
        operands[0].shape.extend(std::iter::repeat_n(1, ones));
    }
    map_operands(request, &operands, word, "condition ? t : e")
}

fn by_size(context: &mut KernelContext<'_>, run: Runs) -> Result<()> {
    macro_rules! dispatch {
        ($($dtype:ident $t:ty),*) => {
            match context.input_dtype(1) {
                $(DType::$dtype => match run {
                    Runs::Select => run_select::<$t>(context),
                    Runs::SelectV2 => run_select_v2::<$t>(context),
                },)*
                dtype => Err(Error::internal("no kernel of this dtype").got(dtype)),
            }
        };
    }
    dispatch!(
        Float32 f32, Float64 f64, Int32 i32, UInt8 u8, Int16 i16, Int8 i8, Complex64 graph_core::Complex<f32>,
        Int64 i64, Bool bool, BFloat16 half::bf16, UInt16 u16, Complex128 graph_core::Complex<f64>, Half half::f16,
        UInt32 u32, UInt64 u64
    )
}

/// `Select`
pub(crate) fn select_op() -> OpDefinition {
    let definition = select(
        "Select",
        "The elements of t where the condition holds, those of e elsewhere; a condition of one dimension chooses rows, a \
         scalar all.",
    )
    .shape(select_shape)
    .gradient(|context| {
        let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
        let condition = context.input(0);
        let zeros = nodes.zeros_like(&context.input(1))?;
        let first = nodes.select(&condition, &gradient, &zeros)?;
        Ok(vec![None, Some(first), Some(nodes.select(&condition, &zeros, &gradient)?)])
    });
    kernels_by_size!(definition; Select, select_strings)
}

/// `t` and `e` have one shape; the condition has it too, or is a scalar, or a vector of the first dimension.
fn select_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let data = context.input(1).merge(context.input(2))?;
    let condition = context.input(0);
    let output = match (condition.rank(), data.rank()) {
        (None | Some(0), _) | (_, None) => data,
        (Some(1), Some(rank)) if rank != 1 => {
            if rank == 0 {
                return Err(
                    Error::invalid_argument("a vector of conditions does not choose between scalars")
                        .expected("a scalar condition")
                        .got(condition),
                );
            }
            let first = context.merge_dims(data.dim(0), condition.dim(0), "the rows and their conditions")?;
            PartialShape::from_dims(std::iter::once(first).chain(data.dims().unwrap_or_default()[1..].iter().copied()))
        }
        _ => data.merge(condition)?,
    };
    context.set_output(0, output);
    Ok(())
}

/// How many neighbouring elements one condition decides.
fn elements_per_condition(context: &KernelContext<'_>) -> Result<usize> {
    let (conditions, elements) = (
        context.input_shape(0).num_elements(),
        context.input_shape(1).num_elements(),
    );
    if conditions == 0 || elements % conditions != 0 {
        return if elements == 0 {
            Ok(1)
        } else {
            Err(Error::invalid_argument("the conditions do not fit the elements")
                .expected(context.input_shape(1))
                .got(context.input_shape(0)))
        };
    }
    Ok((elements / conditions).max(1))
}

fn run_select<T: Element>(context: &mut KernelContext<'_>) -> Result<()> {
    let each = elements_per_condition(context)?;
    let (condition, t, e) = (
        context.input::<bool>(0)?,
        context.input::<T>(1)?,
        context.input::<T>(2)?,
    );
    let out = context.output::<T>(0)?;
    let shared = SharedMut::new(out);
    for_each_range(t.len(), GRAIN, |range| {
        // SAFETY: each task has its own range.
        let out = unsafe { shared.slice(range.clone()) };
        let (t, e) = (&t[range.clone()], &e[range.clone()]);
        if each == 1 {
            let condition = &condition[range];
            for (((out, &t), &e), &condition) in out.iter_mut().zip(t).zip(e).zip(condition) {
                *out = if condition { t } else { e };
            }
            return;
        }
        let mut at = 0;
        while at < out.len() {
            let index = range.start + at;
            let end = (at + each - index % each).min(out.len());
            let source = if condition[index / each] { t } else { e };
            out[at..end].copy_from_slice(&source[at..end]);
            at = end;
        }
    });
    Ok(())
}

fn select_strings(context: &mut KernelContext<'_>) -> Result<()> {
    let each = elements_per_condition(context)?;
    let condition = context.input::<bool>(0)?;
    let (t, e) = (context.input_strings(1)?, context.input_strings(2)?);
    let chosen = (0..t.len())
        .map(|index| if condition[index / each] { &t[index] } else { &e[index] }.clone())
        .collect();
    let shape = context.output_shape(0).clone();
    context.set_output(0, Value::from_strings(shape, chosen)?);
    Ok(())
}

/// `SelectV2`
pub(crate) fn select_v2_op() -> OpDefinition {
    let definition = select(
        "SelectV2",
        "The elements of t where the condition holds, those of e elsewhere; all three are broadcast together.",
    )
    .shape(|context| {
        let shape = context.input(1).broadcast(context.input(2));
        let shape = shape
            .and_then(|shape| shape.broadcast(context.input(0)))
            .ok_or_else(|| {
                let shapes: Vec<String> = context.inputs().iter().map(ToString::to_string).collect();
                Error::invalid_argument(format!("incompatible shapes: {}", shapes.join(" vs. ")))
            })?;
        context.set_output(0, shape);
        Ok(())
    })
    .gradient(select_v2_gradient);
    kernels_by_size!(definition; SelectV2, select_v2_strings)
}

fn select_v2_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (condition, t, e) = (context.input(0), context.input(1), context.input(2));
    let zero = nodes.constant(Value::zeros(gradient.dtype(), ())?, "zeros")?;
    let choose = |t: &Tensor, e: &Tensor| nodes.node("SelectV2").input(&condition).input(t).input(e).build();
    let reduced = |gradient: &Tensor, shape: &Tensor, output: &Tensor| {
        let axes = nodes.node("BroadcastGradientArgs").input(shape).input(output).build()?;
        let sum = nodes.reduce("Sum", gradient, Some(axes.into_operand()), true)?;
        nodes.reshape(&sum, shape)
    };
    let of_t = choose(&gradient, &zero)?;
    let shape_of_t = nodes.shape(&t)?;
    let output = nodes.shape(&context.output(0))?;
    let of_t = reduced(&of_t, &shape_of_t, &output)?;
    let of_e = choose(&zero, &gradient)?;
    let shape_of_e = nodes.shape(&e)?;
    let of_e = reduced(&of_e, &shape_of_e, &output)?;
    Ok(vec![None, Some(of_t), Some(of_e)])
}

/// For each output element, in order, the positions of the condition and of both operands.
fn for_each_position(context: &KernelContext<'_>, mut visit: impl FnMut(usize, [usize; 3])) {
    let out = context.output_shape(0).clone();
    let strides = [0, 1, 2].map(|index| broadcast_strides(context.input_shape(index), &out));
    let mut index = vec![0usize; out.rank()];
    let mut at = [0usize; 3];
    for element in 0..out.num_elements() {
        visit(element, at);
        for axis in (0..out.rank()).rev() {
            index[axis] += 1;
            (0..3).for_each(|operand| at[operand] += strides[operand][axis]);
            if index[axis] < out[axis] {
                break;
            }
            index[axis] = 0;
            (0..3).for_each(|operand| at[operand] -= strides[operand][axis] * out[axis]);
        }
    }
}

/// The distance between neighbours along each axis of the output; 0 along which the operand is repeated.
fn broadcast_strides(shape: &Shape, out: &Shape) -> Vec<usize> {
    let strides = shape.strides();
    (0..out.rank())
        .map(|axis| match (axis + shape.rank()).checked_sub(out.rank()) {
            Some(own) if shape[own] != 1 => strides[own],
            _ => 0,
        })
        .collect()
}

fn run_select_v2<T: Element>(context: &mut KernelContext<'_>) -> Result<()> {
    let (a, b, c) = (context.input_shape(0), context.input_shape(1), context.input_shape(2));
    if b == c && a == b {
        return run_select::<T>(context);
    }
    let (condition, t, e) = (
        context.input::<bool>(0)?,
        context.input::<T>(1)?,
        context.input::<T>(2)?,
    );
    let out = context.output::<T>(0)?;
    let (all, whole) = (context.output_shape(0).num_elements(), condition.len() == 1);
    if whole && t.len() == all && e.len() == all {
        out.copy_from_slice(if condition[0] { t } else { e });
        return Ok(());
    }
    if condition.len() == all && (t.len() == all || t.len() == 1) && (e.len() == all || e.len() == 1) {
        let shared = SharedMut::new(out);
        for_each_range(all, GRAIN, |range| {
            // SAFETY: each task has its own range.
            let out = unsafe { shared.slice(range.clone()) };
            for (out, at) in out.iter_mut().zip(range) {
                let (t, e) = (
                    t[if t.len() == 1 { 0 } else { at }],
                    e[if e.len() == 1 { 0 } else { at }],
                );
                *out = if condition[at] { t } else { e };
            }
        });
        return Ok(());
    }
    for_each_position(context, |element, [condition_at, t_at, e_at]| {
        out[element] = if condition[condition_at] { t[t_at] } else { e[e_at] };
    });
    Ok(())
}

fn select_v2_strings(context: &mut KernelContext<'_>) -> Result<()> {
    let condition = context.input::<bool>(0)?;
    let (t, e) = (context.input_strings(1)?, context.input_strings(2)?);
    let mut chosen = Vec::with_capacity(context.output_shape(0).num_elements());
    for_each_position(context, |_, [condition_at, t_at, e_at]| {
        chosen.push(if condition[condition_at] { &t[t_at] } else { &e[e_at] }.clone());
    });
    let shape = context.output_shape(0).clone();
    context.set_output(0, Value::from_strings(shape, chosen)?);
    Ok(())
}

/// `ClipByValue`
pub(crate) fn clip_by_value_op() -> OpDefinition {
    macro_rules! clip {
        ($definition:expr; $($t:ty),*) => {
            $definition $(.kernel(super::elementwise::kernel!($t, |context| run_clip::<$t>(context))))*
        };
    }
    let definition = OpDefinition::new(
        "ClipByValue",
        "Each element of t, but at least the minimum and at most the maximum.",
    )
    .input("t: T")
    .input("clip_value_min: T")
    .input("clip_value_max: T")
    .output("output: T")
    .attr("T: numbertype")
    .may_fail()
    .shape(InferenceContext::unchanged)
    .gradient(clip_gradient);
    let definition = definition.kernel(
        KernelDefinition::cuda(|request| {
            for index in [1, 2] {
                check_bound(request.input_shape(index), request.input_shape(0))?;
            }
            let expression = "low > (high < t ? high : t) ? low : (high < t ? high : t)";
            map(request, &["t", "low", "high"], expression)
        })
        .types("T", NUMBERS)
        .in_place(0, 0),
    );
    clip!(definition; f32, f64, half::f16, half::bf16, i8, i16, i32, i64, u8, u16)
}

/// A bound is one number, or one for each element.
fn check_bound(bound: &Shape, whole: &Shape) -> Result<()> {
    if bound.num_elements() != 1 && bound != whole {
        return Err(Error::invalid_argument("a bound has the wrong shape")
            .expected(format!("a scalar or {whole}"))
            .got(bound));
    }
    Ok(())
}

fn run_clip<T: Element + PartialOrd>(context: &mut KernelContext<'_>) -> Result<()> {
    let (t, low, high) = (context.input::<T>(0)?, context.input::<T>(1)?, context.input::<T>(2)?);
    for index in [1, 2] {
        check_bound(context.input_shape(index), context.input_shape(0))?;
    }
    let out = context.output::<T>(0)?;
    let shared = SharedMut::new(out);
    for_each_range(t.len(), GRAIN, |range| {
        // SAFETY: each task has its own range.
        let out = unsafe { shared.slice(range.clone()) };
        for (out, at) in out.iter_mut().zip(range) {
            let low = low[if low.len() == 1 { 0 } else { at }];
            let high = high[if high.len() == 1 { 0 } else { at }];
            // NaN stays: both comparisons are false.
            let capped = if high < t[at] { high } else { t[at] };
            *out = if capped < low { low } else { capped };
        }
    });
    Ok(())
}

/// The gradient goes to `t` inside, to the bounds outside.
fn clip_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
    let (t, low, high) = (context.input(0), context.input(1), context.input(2));
    let (of_t, of_low, of_high) = (nodes.shape(&t)?, nodes.shape(&low)?, nodes.shape(&high)?);
    let shape = nodes.shape(&gradient)?;
    let zeros = zeros(&nodes, &shape, gradient.dtype())?;
    let below = nodes.binary("Less", "Less", &t, &low)?;
    let above = nodes.binary("Greater", "Greater", &t, &high)?;
    let with_low = Broadcast::of_shapes(&nodes, [of_t.clone(), of_low])?;
    let with_high = Broadcast::of_shapes(&nodes, [of_t, of_high])?;
    let outside = nodes.binary("LogicalOr", "LogicalOr", &below, &above)?;
    let inner = nodes.select(&outside, &zeros, &gradient)?;
    let lower = nodes.select(&below, &gradient, &zeros)?;
    let upper = nodes.select(&above, &gradient, &zeros)?;
    Ok(vec![
        Some(with_high.first(&inner)?),
        Some(with_low.second(&lower)?),
        Some(with_high.second(&upper)?),
    ])
}

/// The elements of `x` where `condition` holds, those of `y` elsewhere: `tf.where` of three operands.
///
/// `x` and `y` have one shape and dtype; the `bool` condition has that shape, or is a vector that chooses rows, or a scalar.
#[track_caller]
pub fn where_select(condition: impl IntoOperand, x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("Select").input(condition).input(x).input(y)
}

/// The elements of `x` where `condition` holds, those of `y` elsewhere, all three broadcast together: `tf.where_v2`.
#[track_caller]
pub fn where_v2(condition: impl IntoOperand, x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("SelectV2").input(condition).input(x).input(y)
}

/// A limited tensor about to be made; see [`clip_by_value`].
#[must_use = "an operation is made by `build`"]
pub struct ClipByValue {
    operands: [Operand; 3],
    name: String,
}

impl ClipByValue {
    /// Names the result and the scope of what it takes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for other dtypes, or for bounds that would broadcast `t` to another shape.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let [t, low, high] = &self.operands;
        let graph = self
            .operands
            .iter()
            .find_map(Operand::graph)
            .cloned()
            .unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, std::panic::Location::caller());
        let scope = name_scope_in(&graph, &self.name)?;
        let t = nodes.tensor(t, "t")?;
        let capped = nodes.binary("Minimum", "Minimum", &t, high)?;
        t.shape().merge(&capped.shape())?;
        let clipped = nodes.binary("Maximum", &scope.scope_name(), &capped, low)?;
        t.shape().merge(&clipped.shape())?;
        Ok(clipped)
    }
}

impl IntoOperand for ClipByValue {
    #[track_caller]
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// Each element of `t`, but at least `clip_value_min` and at most `clip_value_max`, which broadcast to the shape of `t`.
///
/// ```
/// use graph_ops::{array::constant, math};
/// let limited = math::clip_by_value(&constant([-3.0f32, 0.5]).build()?, -1.0, 1.0).build()?;
/// assert_eq!(limited.name(), "clip_by_value:0");
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn clip_by_value(
    t: impl IntoOperand,
    clip_value_min: impl IntoOperand,
    clip_value_max: impl IntoOperand,
) -> ClipByValue {
    ClipByValue {
        operands: [
            t.into_operand(),
            clip_value_min.into_operand(),
            clip_value_max.into_operand(),
        ],
        name: "clip_by_value".to_owned(),
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
#[cfg(test)]
pub(crate) use tests::{cases, gradient_cases};
