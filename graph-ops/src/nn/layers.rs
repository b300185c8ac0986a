//! Functions made of other ops: logistic losses, linear layers, batch normalization by parts.

use std::panic::Location;

use graph_core::graph::{Graph, IntoOperand, Operand, Tensor, scope};
use graph_core::{DType, Error, Result};

use crate::math::nodes::Nodes;

/// Defines a function's builder: operands, a name, and `build`.
macro_rules! composite {
    ($(#[$doc:meta])* $name:ident [$count:literal]) => {
        $(#[$doc])*
        #[must_use = "operations are made by `build`"]
        pub struct $name {
            operands: [Operand; $count],
            name: Option<String>,
            location: &'static Location<'static>,
        }

        impl $name {
            #[track_caller]
            fn begin(operands: [Operand; $count]) -> Self {
                crate::install();
                Self { operands, name: None, location: Location::caller() }
            }

            fn graph(&self) -> Graph {
                self.operands.iter().find_map(Operand::graph).cloned().unwrap_or_else(Graph::current)
            }

            /// Names the operation.
            pub fn name(mut self, name: impl Into<String>) -> Self {
                self.name = Some(name.into());
                self
            }
        }

        impl IntoOperand for $name {
            fn into_operand(self) -> Operand {
                self.build().into_operand()
            }
        }
    };
}

composite! {
    /// A logistic loss about to be made; see [`sigmoid_cross_entropy_with_logits`].
    SigmoidCrossEntropy [2]
}

impl SigmoidCrossEntropy {
    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for shapes that differ or wrong dtypes.
    pub fn build(self) -> Result<Tensor> {
        let graph = self.graph();
        let nodes = Nodes::at(&graph, self.location);
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("logistic_loss"))?;
        let [labels, logits] = &self.operands;
        let (logits, labels) = (nodes.tensor(logits, "logits")?, nodes.tensor(labels, "labels")?);
        require_same_shape(&labels, &logits)?;
        let zeros = nodes.zeros_like(&logits)?;
        let positive = nodes.node("GreaterEqual").input(&logits).input(&zeros).build()?;
        let relu = nodes.select(&positive, &logits, &zeros)?;
        let negated = nodes.unary("Neg", &logits)?;
        let negative_size = nodes.select(&positive, &negated, &logits)?;
        let product = nodes.mul(&logits, &labels)?;
        let linear = nodes.sub(&relu, &product)?;
        let exponential = nodes.unary("Exp", &negative_size)?;
        let soft = nodes.unary("Log1p", &exponential)?;
        nodes.binary("Add", &scope.scope_name(), &linear, &soft)
    }
}

/// The cross entropy of independent events, element by element, of `labels` (probabilities) and `logits` of one shape and
/// floating-point dtype: `max(logits, 0) - logits * labels + ln(1 + exp(-|logits|))`, which neither overflows nor loses digits.
#[track_caller]
pub fn sigmoid_cross_entropy_with_logits(labels: impl IntoOperand, logits: impl IntoOperand) -> SigmoidCrossEntropy {
    SigmoidCrossEntropy::begin([labels.into_operand(), logits.into_operand()])
}

fn require_same_shape(labels: &Tensor, logits: &Tensor) -> Result<()> {
    if labels.shape().is_compatible_with(&logits.shape()) {
        return Ok(());
    }
    Err(Error::invalid_argument("labels and logits must have the same shape")
        .expected(format!("{logits:?}"))
        .got(format!("{labels:?}")))
}

composite! {
    /// A weighted logistic loss about to be made; see [`weighted_cross_entropy_with_logits`].
    WeightedCrossEntropy [3]
}

impl WeightedCrossEntropy {
    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for shapes that differ or wrong dtypes.
    pub fn build(self) -> Result<Tensor> {
        let graph = self.graph();
        let nodes = Nodes::at(&graph, self.location);
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("logistic_loss"))?;
        let [labels, logits, weight] = &self.operands;
        let (logits, labels) = (nodes.tensor(logits, "logits")?, nodes.tensor(labels, "labels")?);
        require_same_shape(&labels, &logits)?;
        // A number less one is another number; a tensor needs an operation.
        let surplus = match weight.to_value(Some(DType::Float64)) {
            Ok(Some(weight)) if matches!(self.operands[2], Operand::Number(_)) => {
                (weight.to_scalar::<f64>()? - 1.0).into_operand()
            }
            _ => nodes.sub(weight, 1.0f32)?.into_operand(),
        };
        let weighted = nodes.mul(surplus, &labels)?;
        let log_weight = nodes.add(1.0f32, &weighted)?;
        let rest = nodes.sub(1.0f32, &labels)?;
        let linear = nodes.mul(&rest, &logits)?;
        let size = nodes.unary("Abs", &logits)?;
        let negative_size = nodes.unary("Neg", &size)?;
        let exponential = nodes.unary("Exp", &negative_size)?;
        let soft = nodes.unary("Log1p", &exponential)?;
        let negated = nodes.unary("Neg", &logits)?;
        let relu = nodes.unary("Relu", &negated)?;
        let sum = nodes.add(&soft, &relu)?;
        let product = nodes.mul(&log_weight, &sum)?;
        nodes.binary("Add", &scope.scope_name(), &linear, &product)
    }
}

/// As [`sigmoid_cross_entropy_with_logits`], with the loss of positive labels multiplied by `pos_weight`:
/// `(1 - labels) * logits + (1 + (pos_weight - 1) * labels) * (ln(1 + exp(-|logits|)) + max(-logits, 0))`.
#[track_caller]
pub fn weighted_cross_entropy_with_logits(
    labels: impl IntoOperand,
    logits: impl IntoOperand,
    pos_weight: impl IntoOperand,
) -> WeightedCrossEntropy {
    WeightedCrossEntropy::begin([labels.into_operand(), logits.into_operand(), pos_weight.into_operand()])
}

composite! {
    /// A linear layer about to be made; see [`xw_plus_b`].
    XwPlusB [3]
}

impl XwPlusB {
    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for shapes that do not fit or wrong dtypes.
    pub fn build(self) -> Result<Tensor> {
        let graph = self.graph();
        let nodes = Nodes::at(&graph, self.location);
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("xw_plus_b"))?;
        let sum = affine(&nodes, &self.operands)?;
        nodes.binary("BiasAdd", &scope.scope_name(), &sum.0, &sum.1)
    }
}

/// The product `x weights`, and the biases.
fn affine(nodes: &Nodes<'_>, operands: &[Operand; 3]) -> Result<(Tensor, Tensor)> {
    let [x, weights, biases] = operands;
    let x = nodes.tensor(x, "x")?;
    let weights = nodes.tensor(weights, "weights")?;
    let biases = nodes.tensor(biases, "biases")?;
    Ok((nodes.binary("MatMul", "MatMul", &x, &weights)?, biases))
}

/// `x weights + biases`, of shapes [batch, inputs], [inputs, outputs] and [outputs]; a matrix of shape [batch, outputs].
#[track_caller]
pub fn xw_plus_b(x: impl IntoOperand, weights: impl IntoOperand, biases: impl IntoOperand) -> XwPlusB {
    XwPlusB::begin([x.into_operand(), weights.into_operand(), biases.into_operand()])
}

composite! {
    /// A linear layer with rectification about to be made; see [`relu_layer`].
    ReluLayer [3]
}

impl ReluLayer {
    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for shapes that do not fit or wrong dtypes.
    pub fn build(self) -> Result<Tensor> {
        let graph = self.graph();
        let nodes = Nodes::at(&graph, self.location);
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("relu_layer"))?;
        let (product, biases) = affine(&nodes, &self.operands)?;
        let sum = nodes.binary("BiasAdd", "BiasAdd", &product, &biases)?;
        nodes.node("Relu").input(&sum).name(scope.scope_name()).build()
    }
}

/// `max(x weights + biases, 0)`, of the shapes of [`xw_plus_b`].
#[track_caller]
pub fn relu_layer(x: impl IntoOperand, weights: impl IntoOperand, biases: impl IntoOperand) -> ReluLayer {
    ReluLayer::begin([x.into_operand(), weights.into_operand(), biases.into_operand()])
}

/// A batch normalization about to be made; see [`batch_normalization`].
#[must_use = "operations are made by `build`"]
pub struct BatchNormalization {
    operands: [Operand; 3],
    epsilon: f32,
    offset: Option<Operand>,
    scale: Option<Operand>,
    name: Option<String>,
    location: &'static Location<'static>,
}

impl BatchNormalization {
    /// Added to what is normalized.
    pub fn offset(mut self, offset: impl IntoOperand) -> Self {
        self.offset = Some(offset.into_operand());
        self
    }

    /// What the normalized values are multiplied with.
    pub fn scale(mut self, scale: impl IntoOperand) -> Self {
        self.scale = Some(scale.into_operand());
        self
    }

    /// Names the operation's scope.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for shapes that do not broadcast or wrong dtypes.
    pub fn build(self) -> Result<Tensor> {
        let all = self.operands.iter().chain(&self.offset).chain(&self.scale);
        let graph = all.into_iter().find_map(Operand::graph).cloned();
        let graph = graph.unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let _scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("batchnorm"))?;
        let [x, mean, variance] = &self.operands;
        let x = nodes.tensor(x, "x")?;
        let sum = nodes.add(variance, self.epsilon)?;
        let mut inverse = nodes.unary("Rsqrt", &sum)?;
        if let Some(scale) = &self.scale {
            inverse = nodes.mul(&inverse, scale)?;
        }
        let factor = nodes.cast(&inverse, x.dtype())?;
        let product = nodes.mul(&x, &factor)?;
        let shift = match &self.offset {
            Some(offset) => {
                let centre = nodes.mul(mean, &inverse)?;
                nodes.sub(offset, &centre)?
            }
            None => {
                let negated = nodes.node("Neg").input(mean).build()?;
                nodes.mul(&negated, &inverse)?
            }
        };
        let shift = nodes.cast(&shift, x.dtype())?;
        nodes.add(&product, &shift)
    }
}

impl IntoOperand for BatchNormalization {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// `(x - mean) / sqrt(variance + variance_epsilon) * scale + offset`, all broadcast together; scale and offset are options. From
/// Ioffe, Szegedy, "Batch Normalization" (2015).
#[track_caller]
pub fn batch_normalization(
    x: impl IntoOperand,
    mean: impl IntoOperand,
    variance: impl IntoOperand,
    variance_epsilon: f32,
) -> BatchNormalization {
    crate::install();
    BatchNormalization {
        operands: [x.into_operand(), mean.into_operand(), variance.into_operand()],
        epsilon: variance_epsilon,
        offset: None,
        scale: None,
        name: None,
        location: Location::caller(),
    }
}
