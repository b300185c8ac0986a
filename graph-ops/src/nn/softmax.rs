//! `Softmax` and `LogSoftmax` over the last axis, and over any other by transposing.

use std::panic::Location;

use graph_core::gradients::GradientContext;
use graph_core::graph::{Graph, IntoOperand, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, Error, Result};

use super::windows::floating_kernels;
use crate::cpu::element::Real;
use crate::cpu::scratch::Plain;
use crate::cpu::softmax as routines;
use crate::cuda;
use crate::math::nodes::Nodes;

/// `Softmax`
pub(super) fn softmax_definition() -> OpDefinition {
    let definition = OpDefinition::new("Softmax", "exp(logits) / sum(exp(logits)) along the last axis.")
        .input("logits: T")
        .output("softmax: T")
        .attr("T: {half, bfloat16, float, double}")
        .shape(shape)
        .gradient(softmax_gradient);
    floating_kernels!(definition, softmax_kernel)
        .kernel(KernelDefinition::cuda(|request| on_device(request, "softmax")).types("T", cuda::FLOATS))
}

/// `LogSoftmax`
pub(super) fn log_softmax_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "LogSoftmax",
        "logits - ln(sum(exp(logits))) along the last axis: the logarithm of Softmax.",
    )
    .input("logits: T")
    .output("logsoftmax: T")
    .attr("T: {half, bfloat16, float, double}")
    .shape(shape)
    .gradient(log_softmax_gradient);
    floating_kernels!(definition, log_softmax_kernel)
        .kernel(KernelDefinition::cuda(|request| on_device(request, "log_softmax")).types("T", cuda::FLOATS))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape = context.with_rank_at_least(0, 1)?;
    context.set_output(0, shape);
    Ok(())
}

fn classes(request: &KernelRequest<'_>) -> usize {
    request.input_shape(0).last().copied().unwrap_or(1)
}

fn softmax_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain,
{
    let classes = classes(request);
    Ok(Planned::new(move |context| {
        routines::softmax(context.input::<T>(0)?, classes, context.output::<T>(0)?);
        Ok(())
    }))
}

fn log_softmax_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain,
{
    let classes = classes(request);
    Ok(Planned::new(move |context| {
        routines::log_softmax(context.input::<T>(0)?, classes, context.output::<T>(0)?);
        Ok(())
    }))
}

fn on_device(request: &KernelRequest<'_>, name: &str) -> Result<Planned> {
    let (classes, elements) = (classes(request), request.input_shape(0).num_elements());
    let rows = elements / classes.max(1);
    let kernel = cuda::softmax::Rows::new(request, name, request.input_dtype(0), None, rows, classes)?;
    Ok(Planned::new(move |context| {
        // SAFETY: input and output have the sizes that the kernel was made for.
        unsafe { kernel.softmax(context.input_address(0), context.output_address(0)) }
    }))
}

/// `(gradient - sum(gradient * softmax)) * softmax`
fn softmax_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (softmax, gradient) = (context.output(0), context.gradient(0)?);
    let weighted = nodes.mul(&gradient, &softmax)?;
    let sum = nodes.reduce("Sum", &weighted, Some((-1i32).into_operand()), true)?;
    let difference = nodes.sub(&gradient, &sum)?;
    Ok(vec![Some(nodes.mul(&difference, &softmax)?)])
}

/// `gradient - sum(gradient) * softmax`
fn log_softmax_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let gradient = context.gradient(0)?;
    let softmax = nodes.unary("Exp", &context.output(0))?;
    let sum = nodes.reduce("Sum", &gradient, Some((-1i32).into_operand()), true)?;
    let share = nodes.mul(&sum, &softmax)?;
    Ok(vec![Some(nodes.sub(&gradient, &share)?)])
}

/// A softmax about to be made; see [`softmax`] and [`log_softmax`].
#[must_use = "operations are made by `build`"]
pub struct Softmax {
    op: &'static str,
    logits: Operand,
    axis: i64,
    name: Option<String>,
    location: &'static Location<'static>,
}

impl Softmax {
    /// The axis whose elements add up to 1; negative ones count from the end. The last one without.
    pub fn axis(mut self, axis: i64) -> Self {
        self.axis = axis;
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` for a scalar, a dtype that is not floating-point, or an axis out of range.
    pub fn build(self) -> Result<Tensor> {
        let graph = self.logits.graph().cloned().unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let logits = nodes.tensor(&self.logits, "Const")?;
        let rank = logits.shape().rank().map(|rank| rank as i64);
        if self.axis == -1 || rank.is_some_and(|rank| self.axis == rank - 1) {
            let builder = nodes.node(self.op).input(&logits);
            return match self.name {
                Some(name) => builder.name(name).build(),
                None => builder.build(),
            };
        }
        let Some(rank) = rank.filter(|rank| (-rank..*rank).contains(&self.axis)) else {
            return Err(Error::invalid_argument("the axis of a softmax is out of range")
                .expected("an axis of the logits, whose rank must be known")
                .got(format!("axis {} of {logits:?}", self.axis)));
        };
        self.build_transposed(&nodes, &logits, rank)
    }

    /// Swaps the axis with the last one, and back afterwards; a negative axis is counted from the end by nodes.
    fn build_transposed(&self, nodes: &Nodes<'_>, logits: &Tensor, rank: i64) -> Result<Tensor> {
        let count = nodes.rank(logits)?;
        let axis = if self.axis < 0 {
            nodes.add(self.axis as i32, &count)?.into_operand()
        } else {
            (self.axis as i32).into_operand()
        };
        let input_rank = nodes.rank(logits)?;
        let axis = match &axis {
            Operand::Tensor(axis) => nodes.binary("FloorMod", "mod", axis, rank as i32)?.into_operand(),
            number => number.clone(),
        };
        let last = nodes.binary("Sub", "Sub", &input_rank, 1i32)?;
        let swapped = swap_axes(nodes, logits, &axis, &last, "transpose")?;
        let output = nodes.unary(self.op, &swapped)?;
        let last = nodes.binary("Sub", "Sub", &input_rank, 1i32)?;
        let output = swap_axes(
            nodes,
            &output,
            &axis,
            &last,
            self.name.as_deref().unwrap_or("transpose"),
        )?;
        output.set_shape(logits.shape())?;
        Ok(output)
    }
}

/// `tensor` with the axes `axis` and `last` swapped.
fn swap_axes(nodes: &Nodes<'_>, tensor: &Tensor, axis: &Operand, last: &Tensor, name: &str) -> Result<Tensor> {
    let range = |start: Operand, limit: Operand| {
        let builder = nodes.node("Range").input(start).input(limit).input(1i32);
        builder.name("range").build()
    };
    let before = range(0i32.into_operand(), axis.clone())?;
    let after = match axis.to_value(None)? {
        Some(axis) => (axis.to_scalar::<i32>()? + 1).into_operand(),
        None => nodes.add(axis, 1i32)?.into_operand(),
    };
    let between = range(after, last.into_operand())?;
    let permutation = nodes.concat(vec![
        before.into_operand(),
        Operand::List(vec![last.into_operand()]),
        between.into_operand(),
        Operand::List(vec![axis.clone()]),
    ])?;
    let builder = nodes.node("Transpose").input(tensor).input(&permutation);
    builder.name(name).build()
}

impl IntoOperand for Softmax {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// `exp(logits) / sum(exp(logits))` along an axis (the last without [`Softmax::axis`]) of a floating-point tensor of any shape but
/// a scalar's.
///
/// ```
/// use graph_ops::array::constant;
/// let probabilities = graph_ops::nn::softmax(constant([[1.0f32, 2.0], [3.0, 4.0]])).build()?;
/// assert_eq!(probabilities.shape(), [2, 2].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn softmax(logits: impl IntoOperand) -> Softmax {
    begin("Softmax", logits)
}

/// The logarithm of [`softmax`], computed without underflow: `logits - ln(sum(exp(logits)))`.
#[track_caller]
pub fn log_softmax(logits: impl IntoOperand) -> Softmax {
    begin("LogSoftmax", logits)
}

#[track_caller]
fn begin(op: &'static str, logits: impl IntoOperand) -> Softmax {
    crate::install();
    Softmax {
        op,
        logits: logits.into_operand(),
        axis: -1,
        name: None,
        location: Location::caller(),
    }
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{DType, Value};
    let (third, quarter) = (1.0f64 / 3.0, 0.25f64);
    // Logits are logarithms of what is expected, each row with a constant of its own.
    let rows = [
        [1000.0 + third.ln(), 1000.0 + (2.0 * third).ln()],
        [quarter.ln(), (3.0 * quarter).ln()],
    ];
    let expected = [[third, 2.0 * third], [quarter, 3.0 * quarter]];
    let logs = expected.map(|row| row.map(f64::ln));
    let empty = || Value::zeros(DType::Float32, [2, 0]).expect("a value");
    let mut cases = vec![
        Case::new("Softmax").input(rows).expect(expected).tolerance(1e-12, 0.0),
        Case::new("LogSoftmax").input(rows).expect(logs).tolerance(1e-12, 0.0),
        Case::new("Softmax").input([0.0f32]).expect([1.0f32]),
        Case::new("LogSoftmax").input([[[0.0f32]]]).expect([[[0.0f32]]]),
        Case::new("Softmax").input(empty()).expect(empty()),
        Case::new("LogSoftmax").input(empty()).expect(empty()),
    ];
    for dtype in [DType::Float32, DType::Half, DType::BFloat16] {
        let cast = |rows: [f64; 2]| Value::from(rows).cast_exactly(dtype).expect("rounded");
        for (op, expected) in [("Softmax", expected[1]), ("LogSoftmax", logs[1])] {
            let tolerance = if dtype == DType::Float32 { 1e-6 } else { 1e-2 };
            let case = Case::new(op).input(cast(rows[1])).expect(cast(expected));
            cases.push(case.tolerance(tolerance, tolerance));
        }
    }
    cases
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    ["Softmax", "LogSoftmax"]
        .map(|op| GradientCase::new(op).input([[1.0f64, -0.5, 2.0], [0.25, 0.0, -1.0]]))
        .into()
}
