//! Softmax cross entropy: `SoftmaxCrossEntropyWithLogits`, and the functions that flatten any shape for it.

use std::panic::Location;

use graph_core::gradients::GradientContext;
use graph_core::graph::{Graph, IntoOperand, Operand, Tensor, scope};
use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, Shape};

use super::windows::floating_kernels;
use crate::cpu::broadcast::broadcast_binary;
use crate::cpu::element::Real;
use crate::cpu::scratch::Plain;
use crate::cpu::softmax::softmax_cross_entropy;
use crate::cuda;
use crate::math::nodes::Nodes;

/// `SoftmaxCrossEntropyWithLogits`
pub(super) fn definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "SoftmaxCrossEntropyWithLogits",
        "loss = -sum(labels * ln(softmax(features))) of each row, and its gradient softmax(features) - labels.",
    )
    .input("features: T")
    .input("labels: T")
    .output("loss: T")
    .output("backprop: T")
    .attr("T: {half, bfloat16, float, double}")
    .shape(shape)
    .gradient(gradient);
    floating_kernels!(definition, kernel).kernel(KernelDefinition::cuda(on_device).types("T", cuda::FLOATS))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (features, labels) = (context.input(0), context.input(1));
    let matrix = PartialShape::unknown_of_rank(2);
    let merged = features.merge(&matrix).and_then(|shape| shape.merge(labels));
    let shape = match merged {
        Ok(shape) => shape,
        Err(_) => features
            .broadcast(labels)
            .filter(|shape| shape.rank() == Some(2))
            .ok_or_else(|| {
                Error::invalid_argument("logits and labels must broadcast to a matrix, [batch, classes]")
                    .got(format!("{features} and {labels}"))
            })?,
    };
    context.set_output(0, [shape.dim(0)]);
    context.set_output(1, shape);
    Ok(())
}

fn kernel<T: Real + Element + Plain>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain,
{
    let shape = request.output_shape(1)?.clone();
    let inputs = [request.input_shape(0).clone(), request.input_shape(1).clone()];
    let classes = shape[1];
    let len = shape.num_elements();
    let expanded = inputs.iter().filter(|input| **input != shape).count();
    let planned = Planned::new(move |context| {
        let (mut features, mut labels) = (context.input::<T>(0)?, context.input::<T>(1)?);
        if expanded > 0 {
            let mut scratch = context.scratch::<T>(expanded * len)?;
            for (operand, from) in [&mut features, &mut labels].into_iter().zip(&inputs) {
                if *from != shape {
                    let (to, rest) = scratch.split_at_mut(len);
                    expand(operand, from, to, &shape);
                    (*operand, scratch) = (to, rest);
                }
            }
        }
        let (loss, backprop) = (context.output::<T>(0)?, context.output::<T>(1)?);
        softmax_cross_entropy(features, labels, classes, loss, backprop);
        Ok(())
    });
    Ok(planned.with_scratch(expanded * len * size_of::<T>()))
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.output_shape(1)?;
    let steps = cuda::softmax::Steps::new(request.input_shape(0), request.input_shape(1));
    let dtype = request.input_dtype(0);
    let kernel = cuda::softmax::Rows::new(request, "cross_entropy", dtype, None, shape[0], shape[1])?;
    Ok(Planned::new(move |context| {
        let inputs = [0, 1].map(|index| context.input_address(index));
        let outputs = [0, 1].map(|index| context.output_address(index));
        // SAFETY: the outputs have the sizes that the kernel was made for, the inputs broadcast to them as the steps say.
        unsafe { kernel.cross_entropy(inputs, steps, outputs) }
    }))
}

/// Broadcasts `from` to the shape of `to`.
fn expand<T: Copy + Send + Sync>(from: &[T], from_shape: &Shape, to: &mut [T], to_shape: &Shape) {
    if let Some(&any) = from.first() {
        broadcast_binary(from, from_shape, &[any], &[], to, to_shape, |x, _| x);
    }
}

/// `vector`, a number a row, times `matrix`.
pub(super) fn scale_rows(nodes: &Nodes<'_>, vector: &Tensor, matrix: impl IntoOperand) -> Result<Tensor> {
    let column = nodes.node("ExpandDims").input(vector).input(-1i32).build()?;
    nodes.mul(&column, matrix)
}

/// Whether a gradient is zero for all that the graph shows.
fn is_zero(gradient: &Tensor) -> bool {
    matches!(gradient.op().op_type(), "ZerosLike" | "Zeros")
        || gradient
            .constant_value()
            .is_some_and(|value| value.bytes().iter().all(|&byte| byte == 0))
}

fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (logits, loss_gradient) = (context.input(0), context.gradient(0)?);
    let mut to_logits = scale_rows(&nodes, &loss_gradient, context.output(1))?;
    if let Some(again) = context.optional_gradient(1).filter(|again| !is_zero(again)) {
        let softmax = nodes.unary("Softmax", &logits)?;
        let row = nodes.node("ExpandDims").input(&again).input(1i32).build()?;
        let column = nodes.node("ExpandDims").input(&softmax).input(2i32).build()?;
        let product = nodes.binary("BatchMatMulV2", "MatMul", &row, &column)?;
        let mean = nodes
            .node("Squeeze")
            .input(&product)
            .attr("squeeze_dims", [1i64])
            .build()?;
        let difference = nodes.sub(&again, &mean)?;
        to_logits = nodes.add(&to_logits, nodes.mul(&difference, &softmax)?)?;
    }
    let log_softmax = nodes.unary("LogSoftmax", &logits)?;
    let surprise = nodes.unary("Neg", &log_softmax)?;
    let to_labels = scale_rows(&nodes, &loss_gradient, &surprise)?;
    Ok(vec![Some(to_logits), Some(to_labels)])
}

/// A cross entropy about to be made; see [`softmax_cross_entropy_with_logits`].
#[must_use = "operations are made by `build`"]
pub struct SoftmaxCrossEntropy {
    labels: Operand,
    logits: Operand,
    axis: i64,
    stop_labels: bool,
    name: Option<String>,
    location: &'static Location<'static>,
}

impl SoftmaxCrossEntropy {
    /// The axis of the classes; negative ones count from the end. The last one without.
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
    /// The operands' own; `InvalidArgument` for logits and labels whose shapes do not fit, scalars, or dtypes that are not
    /// floating-point.
    pub fn build(self) -> Result<Tensor> {
        let graph = self.logits.graph().or(self.labels.graph()).cloned();
        let graph = graph.unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        if !self.stop_labels {
            let scope = self.name.as_deref().unwrap_or("softmax_cross_entropy_with_logits");
            return self.build_in(&nodes, scope, &self.labels);
        }
        let name = self.name.as_deref().unwrap_or("softmax_cross_entropy_with_logits_sg");
        let (name, labels) = {
            let scope = scope::name_scope_in(&graph, name)?;
            let stopped = nodes.node("StopGradient").input(&self.labels);
            (scope.scope_name(), stopped.name("labels_stop_gradient").build()?)
        };
        self.build_in(&nodes, &name, &labels.into_operand())
    }

    fn build_in(&self, nodes: &Nodes<'_>, name: &str, labels: &Operand) -> Result<Tensor> {
        let scope = scope::name_scope_in(nodes.graph(), name)?;
        let logits = nodes.tensor(&self.logits, "logits")?;
        let labels = nodes.tensor(labels, "labels")?;
        let shape = logits.shape();
        if shape.rank() == Some(0) {
            return Err(
                Error::invalid_argument("the logits of a cross entropy must not be a scalar")
                    .got(format!("{logits:?}")),
            );
        }
        let narrow = matches!(logits.dtype(), DType::Half | DType::BFloat16);
        let precise = if narrow {
            nodes.cast(&logits, DType::Float32)?
        } else {
            logits.clone()
        };
        let labels = nodes.cast(&labels, precise.dtype())?;
        let rank = nodes.rank(&precise)?;
        let (precise, labels) = if self.axis == -1 {
            (precise, labels)
        } else {
            (
                self.axis_last(nodes, &precise, &rank)?,
                self.axis_last(nodes, &labels, &rank)?,
            )
        };
        let input_shape = nodes.shape(&precise)?;
        let (precise, labels) = (flatten_outer(nodes, &precise)?, flatten_outer(nodes, &labels)?);
        let loss = nodes
            .node("SoftmaxCrossEntropyWithLogits")
            .input(&precise)
            .input(&labels)
            .name(scope.scope_name())
            .build()?;
        let outer = nodes.binary("Sub", "Sub", &rank, 1i32)?;
        let outer_shape = nodes
            .node("Slice")
            .input(&input_shape)
            .input([0i32])
            .input([&outer])
            .build()?;
        let loss = nodes.reshape(&loss, &outer_shape)?;
        loss.set_shape(without_axis(&shape, self.axis)?)?;
        nodes.cast(&loss, logits.dtype())
    }

    /// The tensor with the axis of the classes moved to the end.
    fn axis_last(&self, nodes: &Nodes<'_>, tensor: &Tensor, rank: &Tensor) -> Result<Tensor> {
        let axis = self.axis as i32;
        let range = |start: i32, limit: Operand| {
            let builder = nodes.node("Range").input(start).input(limit).input(1i32);
            builder.name("range").build()
        };
        let permutation = nodes.concat(vec![
            range(0, axis.into_operand())?.into_operand(),
            range(axis + 1, rank.into_operand())?.into_operand(),
            Operand::List(vec![axis.into_operand()]),
        ])?;
        let builder = nodes.node("Transpose").input(tensor).input(&permutation);
        builder.name("transpose").build()
    }
}

impl IntoOperand for SoftmaxCrossEntropy {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

fn without_axis(shape: &PartialShape, axis: i64) -> Result<PartialShape> {
    let Some(dims) = shape.dims() else {
        return Ok(PartialShape::unknown());
    };
    let rank = dims.len() as i64;
    if !(-rank..rank).contains(&axis) {
        return Err(Error::invalid_argument("the axis of a cross entropy is out of range")
            .expected(format!("an axis of {shape}"))
            .got(axis));
    }
    let mut dims = dims.to_vec();
    dims.remove(axis.rem_euclid(rank) as usize);
    Ok(dims.into())
}

/// The tensor as a matrix: all axes but the last are one.
fn flatten_outer(nodes: &Nodes<'_>, tensor: &Tensor) -> Result<Tensor> {
    let rank = nodes.rank(tensor)?;
    let shape = nodes.shape(tensor)?;
    let last = nodes.binary("Sub", "Sub", &rank, 1i32)?;
    let classes = nodes.node("Slice").input(&shape).input([&last]).input([1i32]).build()?;
    let flat = nodes.concat(vec![Operand::Array([-1i32].into()), classes.into_operand()])?;
    let matrix = nodes.reshape(tensor, &flat)?;
    if let Some((&classes, outer)) = tensor.shape().dims().and_then(<[_]>::split_last)
        && let Some(rows) = outer.iter().copied().product::<Option<usize>>()
    {
        matrix.set_shape([Some(rows), classes])?;
    }
    Ok(matrix)
}

/// The cross entropy `-sum(labels * ln(softmax(logits)))` along the last axis (or [`SoftmaxCrossEntropy::axis`]): both of
/// shape [..., classes] give a tensor of shape [...]. The `labels` are probabilities; no gradient flows into them, as in
/// TensorFlow 1's function of this name. Half precision is computed in `float`.
///
/// ```
/// use graph_ops::array::constant;
/// use graph_ops::nn;
/// let (labels, logits) = (constant([[0.0f32, 1.0]]), constant([[0.5f32, 2.0]]));
/// let loss = nn::softmax_cross_entropy_with_logits(labels, logits).build()?;
/// assert_eq!(loss.shape(), [1].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn softmax_cross_entropy_with_logits(labels: impl IntoOperand, logits: impl IntoOperand) -> SoftmaxCrossEntropy {
    begin(labels, logits, true)
}

/// As [`softmax_cross_entropy_with_logits`], with gradients into the labels too.
#[track_caller]
pub fn softmax_cross_entropy_with_logits_v2(labels: impl IntoOperand, logits: impl IntoOperand) -> SoftmaxCrossEntropy {
    begin(labels, logits, false)
}

#[track_caller]
fn begin(labels: impl IntoOperand, logits: impl IntoOperand, stop_labels: bool) -> SoftmaxCrossEntropy {
    crate::install();
    SoftmaxCrossEntropy {
        labels: labels.into_operand(),
        logits: logits.into_operand(),
        axis: -1,
        stop_labels,
        name: None,
        location: Location::caller(),
    }
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let op = || Case::new("SoftmaxCrossEntropyWithLogits").tolerance(1e-6, 1e-7);
    // Rows of logits are logarithms of probabilities, so that the loss is -sum(labels * them).
    let p = [[0.25f64, 0.75], [0.5, 0.5]];
    let labels = [[1.0f64, 0.0], [0.25, 0.75]];
    let loss = [4f64.ln(), 2f64.ln()];
    let backprop = [[-0.75f64, 0.75], [0.25, -0.25]];
    let logits = p.map(|row| row.map(|p| p.ln() + 100.0));
    let zeros = |dtype, shape: &[usize]| Value::zeros(dtype, shape).expect("a value");
    let mut cases = vec![
        op().input(logits).input(labels).expect(loss).expect(backprop),
        // As TensorFlow computes them.
        op().input([[1.0f32, 2.0, 3.0]])
            .input([[1.0f32, 0.0, 0.0], [0.0, 0.5, 0.5]])
            .expect([2.407606f32, 0.907_605_9])
            .expect([
                [-0.909_969_45f32, 0.244_728_48, 0.665_240_94],
                [0.090_030_57, -0.255_271_52, 0.165_240_94],
            ]),
        op().input([[1.0f32, 2.0, 3.0]])
            .input([1.0f32, 0.0, 0.0])
            .expect([2.407606f32])
            .expect([[-0.909_969_45f32, 0.244_728_48, 0.665_240_94]]),
        op().input(zeros(DType::Float32, &[2, 0]))
            .input(zeros(DType::Float32, &[2, 0]))
            .expect([0.0f32, 0.0])
            .expect(zeros(DType::Float32, &[2, 0])),
        op().input(zeros(DType::Float64, &[0, 3]))
            .input(zeros(DType::Float64, &[0, 3]))
            .expect(zeros(DType::Float64, &[0]))
            .expect(zeros(DType::Float64, &[0, 3])),
    ];
    for dtype in [DType::Half, DType::BFloat16] {
        let cast = |value: Value| value.cast_exactly(dtype).expect("rounded");
        let case = op().tolerance(2e-2, 2e-2);
        cases.push(
            case.input(cast(p.map(|row| row.map(f64::ln)).into()))
                .input(cast(labels.into()))
                .expect(cast(loss.into()))
                .expect(cast(backprop.into())),
        );
    }
    cases
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    vec![
        GradientCase::new("SoftmaxCrossEntropyWithLogits")
            .input([[1.0f64, -0.5, 2.0], [0.25, 0.0, -1.0]])
            .input([[0.2f64, 0.3, 0.5], [1.0, 0.0, 0.0]])
            .with_respect_to(&[1]),
        // The labels apart: TensorFlow's second derivative goes through the logits alone.
        GradientCase::new("SoftmaxCrossEntropyWithLogits")
            .input([[1.0f64, -0.5, 2.0], [0.25, 0.0, -1.0]])
            .input([[0.2f64, 0.3, 0.5], [1.0, 0.0, 0.0]])
            .with_respect_to(&[0]),
    ]
}
