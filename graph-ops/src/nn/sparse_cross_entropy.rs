//! Softmax cross entropy with class numbers for labels: `SparseSoftmaxCrossEntropyWithLogits`.

use std::panic::Location;

use graph_core::gradients::GradientContext;
use graph_core::graph::{Graph, IntoOperand, Operand, Tensor, scope};
use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Result};
use half::{bf16, f16};

use super::cross_entropy::scale_rows;
use crate::cpu::element::Real;
use crate::cpu::scratch::Plain;
use crate::cpu::softmax::sparse_softmax_cross_entropy;
use crate::cuda;
use crate::math::nodes::Nodes;

/// What the gradient's gradient says, in TensorFlow's words: it is an attribute of the graph.
const NO_SECOND_DERIVATIVE: &str = "Currently there is no way to take the second derivative of \
    sparse_softmax_cross_entropy_with_logits due to the fused implementation's interaction with tf.gradients()";

/// `SparseSoftmaxCrossEntropyWithLogits`
pub(super) fn definition() -> OpDefinition {
    let mut definition = OpDefinition::new(
        "SparseSoftmaxCrossEntropyWithLogits",
        "loss = -ln(softmax(features)[label]) of each row, and its gradient.",
    )
    .input("features: T")
    .input("labels: Tlabels")
    .output("loss: T")
    .output("backprop: T")
    .attr("T: {half, bfloat16, float, double}")
    .attr("Tlabels: {int32, int64} = DT_INT64")
    .may_fail()
    .shape(shape)
    .gradient(gradient);
    macro_rules! kernels {
        ($($dtype:ty),*) => {$(
            definition = definition
                .kernel(KernelDefinition::cpu(kernel::<$dtype, i32>).types("T", &[<$dtype>::DTYPE]).types("Tlabels", &[DType::Int32]))
                .kernel(KernelDefinition::cpu(kernel::<$dtype, i64>).types("T", &[<$dtype>::DTYPE]).types("Tlabels", &[DType::Int64]));
        )*};
    }
    kernels!(f32, f64, f16, bf16);
    definition.kernel(KernelDefinition::cuda(on_device).types("T", cuda::FLOATS))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (features, labels) = (context.with_rank(0, 2)?, context.with_rank(1, 1)?);
    let batch = context.merge_dims(
        features.dim(0),
        labels.dim(0),
        "the rows of logits and the number of labels",
    )?;
    context.set_output(0, [batch]);
    context.set_output(1, [batch, features.dim(1)]);
    Ok(())
}

fn classes(request: &KernelRequest<'_>) -> Result<usize> {
    let features = request.input_shape(0);
    match features[1] {
        0 => {
            Err(Error::invalid_argument("there must be at least one class").got(format!("logits of shape {features}")))
        }
        classes => Ok(classes),
    }
}

fn kernel<T: Real + Element, I: Element + TryInto<usize> + std::fmt::Display>(
    request: &KernelRequest<'_>,
) -> Result<Planned>
where
    T::Wide: Plain,
{
    let classes = classes(request)?;
    Ok(Planned::new(move |context| {
        let labels = context.input::<I>(1)?;
        let inside = |label: I| label.try_into().is_ok_and(|label| label < classes);
        if let Some(&label) = labels.iter().find(|&&label| !inside(label)) {
            return Err(Error::invalid_argument(format!(
                "received a label value of {label} which is outside the valid range"
            ))
            .expected(format!("0 <= label < {classes}"))
            .got(label));
        }
        let (loss, backprop) = (context.output::<T>(0)?, context.output::<T>(1)?);
        sparse_softmax_cross_entropy(context.input::<T>(0)?, labels, classes, loss, backprop);
        Ok(())
    }))
}

/// As TensorFlow's, it cannot refuse a label that is no class: the row becomes not numbers.
fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (classes, rows) = (classes(request)?, request.input_shape(0)[0]);
    let (dtype, labels) = (request.input_dtype(0), request.input_dtype(1));
    let kernel = cuda::softmax::Rows::new(request, "sparse_cross_entropy", dtype, Some(labels), rows, classes)?;
    Ok(Planned::new(move |context| {
        let inputs = [0, 1].map(|index| context.input_address(index));
        let outputs = [0, 1].map(|index| context.output_address(index));
        // SAFETY: inputs and outputs have the sizes that the kernel was made for.
        unsafe { kernel.sparse_cross_entropy(inputs, outputs) }
    }))
}

fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let backprop = nodes
        .node("PreventGradient")
        .input(context.output(1))
        .attr("message", NO_SECOND_DERIVATIVE)
        .build()?;
    Ok(vec![Some(scale_rows(&nodes, &context.gradient(0)?, &backprop)?), None])
}

/// A sparse cross entropy about to be made; see [`sparse_softmax_cross_entropy_with_logits`].
#[must_use = "operations are made by `build`"]
pub struct SparseSoftmaxCrossEntropy {
    labels: Operand,
    logits: Operand,
    name: Option<String>,
    location: &'static Location<'static>,
}

impl SparseSoftmaxCrossEntropy {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for shapes that do not fit or wrong dtypes.
    pub fn build(self) -> Result<Tensor> {
        let graph = self.logits.graph().or(self.labels.graph()).cloned();
        let graph = graph.unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let name = self.name.as_deref();
        let _scope = scope::name_scope_in(&graph, name.unwrap_or("SparseSoftmaxCrossEntropyWithLogits"))?;
        let labels = nodes.tensor(&self.labels, "Const")?;
        let logits = nodes.tensor(&self.logits, "Const")?;
        let precise = if logits.dtype() == DType::Half {
            nodes.cast(&logits, DType::Float32)?
        } else {
            logits.clone()
        };
        let labels_shape = nodes.shape(&labels)?;
        check_ranks(&labels, &logits)?;
        let loss = |logits: &Tensor, labels: &Tensor| {
            let builder = nodes
                .node("SparseSoftmaxCrossEntropyWithLogits")
                .input(logits)
                .input(labels);
            builder
                .name(name.unwrap_or("SparseSoftmaxCrossEntropyWithLogits"))
                .build()
        };
        if logits.shape().rank() == Some(2) {
            let loss = loss(&precise, &labels)?;
            return nodes.cast(&loss, logits.dtype());
        }
        let shape = nodes.shape(&logits)?;
        let rank = nodes.rank(&logits)?;
        let last = nodes.sub(&rank, 1i32)?;
        let classes = element(&nodes, &shape, &last)?;
        let flat = Operand::List(vec![(-1i32).into_operand(), classes.into_operand()]);
        let precise = nodes.reshape(&precise, flat)?;
        let flat_labels = nodes.reshape(&labels, Operand::List(vec![(-1i32).into_operand()]))?;
        let loss = loss(&precise, &flat_labels)?;
        let loss = nodes.reshape(&loss, &labels_shape)?;
        loss.set_shape(labels.shape())?;
        nodes.cast(&loss, logits.dtype())
    }
}

impl IntoOperand for SparseSoftmaxCrossEntropy {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// `vector[index]`
fn element(nodes: &Nodes<'_>, vector: &Tensor, index: &Tensor) -> Result<Tensor> {
    let end = nodes.add(index, 1i32)?;
    let scope = scope::name_scope_in(nodes.graph(), "strided_slice")?;
    let begin = Operand::List(vec![index.into_operand()]).to_tensor(nodes.graph(), "stack", None)?;
    let end = Operand::List(vec![end.into_operand()]).to_tensor(nodes.graph(), "stack_1", None)?;
    let step = nodes.constant([1i32], "stack_2")?;
    nodes
        .node("StridedSlice")
        .input(vector)
        .input(&begin)
        .input(&end)
        .input(&step)
        .attr("shrink_axis_mask", 1i64)
        .name(scope.scope_name())
        .build()
}

fn check_ranks(labels: &Tensor, logits: &Tensor) -> Result<()> {
    let (Some(outer), Some(rank)) = (labels.shape().rank(), logits.shape().rank()) else {
        return Ok(());
    };
    let fits = rank == outer + 1
        && (0..outer).all(|axis| match (labels.shape().dim(axis), logits.shape().dim(axis)) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        });
    if fits {
        return Ok(());
    }
    Err(
        Error::invalid_argument("the labels must have the shape of the logits without the classes")
            .expected("logits of shape [..., classes] and labels of shape [...]")
            .got(format!("{logits:?} and {labels:?}")),
    )
}

/// The cross entropy `-ln(softmax(logits)[label])` along the last axis: `logits` of shape [..., classes] and `labels`, class
/// numbers as `int32` or `int64` of shape [...], give a tensor of shape [...]. `half` is computed in `float`.
///
/// Running it fails with `InvalidArgument` for a label outside `0..classes`. It has no second derivative.
#[track_caller]
pub fn sparse_softmax_cross_entropy_with_logits(
    labels: impl IntoOperand,
    logits: impl IntoOperand,
) -> SparseSoftmaxCrossEntropy {
    crate::install();
    SparseSoftmaxCrossEntropy {
        labels: labels.into_operand(),
        logits: logits.into_operand(),
        name: None,
        location: Location::caller(),
    }
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let op = || Case::new("SparseSoftmaxCrossEntropyWithLogits");
    let p = [[0.25f64, 0.75], [0.5, 0.5]];
    let logits = p.map(|row| row.map(|p| p.ln() + 3.0));
    let (loss, backprop) = ([4f64.ln(), 2f64.ln()], [[-0.75f64, 0.75], [0.5, -0.5]]);
    let mut cases = vec![
        op().input(logits)
            .input([0i64, 1])
            .expect(loss)
            .expect(backprop)
            .tolerance(1e-12, 1e-12),
        op().input(Value::zeros(DType::Float32, [0, 2]).expect("a value"))
            .input(Value::zeros(DType::Int32, [0]).expect("a value"))
            .expect(Value::zeros(DType::Float32, [0]).expect("a value"))
            .expect(Value::zeros(DType::Float32, [0, 2]).expect("a value")),
    ];
    for dtype in [DType::Float32, DType::Half, DType::BFloat16] {
        let cast = |value: Value| value.cast_exactly(dtype).expect("rounded");
        let tolerance = if dtype == DType::Float32 { 1e-5 } else { 5e-2 };
        let case = op().input(cast(logits.into())).input([0i32, 1]);
        let case = case.expect(cast(loss.into())).expect(cast(backprop.into()));
        cases.push(case.tolerance(tolerance, tolerance));
    }
    cases
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    vec![
        GradientCase::new("SparseSoftmaxCrossEntropyWithLogits")
            .input([[1.0f64, -0.5, 2.0], [0.25, 0.0, -1.0]])
            .input([2i32, 0])
            .first_order_only(),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn a_label_out_of_range_is_an_error() {
        for label in [-1i32, 2] {
            let case = Case::new("SparseSoftmaxCrossEntropyWithLogits")
                .input([[1.0f32, 2.0]])
                .input([label]);
            assert_eq!(case.run().unwrap_err().class(), "InvalidArgument");
        }
    }
}
