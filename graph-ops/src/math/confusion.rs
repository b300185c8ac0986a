//! Confusion matrices: how often each class was taken for each.

use std::panic::Location;

use graph_core::graph::{IntoOperand, Operand, Tensor, scope};
use graph_core::{DType, Graph, Result};

use super::nodes::Nodes;
use crate::control::{assert_less, assert_non_negative, with_dependencies};

/// A confusion matrix about to be computed; see [`confusion_matrix`].
#[must_use = "operations are made by `build`"]
pub struct ConfusionMatrix {
    labels: Operand,
    predictions: Operand,
    num_classes: Option<Operand>,
    weights: Option<Operand>,
    dtype: DType,
    name: Option<String>,
    location: &'static Location<'static>,
}

/// The matrix that counts in row `l` and column `p` how often a label `l` was predicted as `p`. `labels` and `predictions`
/// are vectors of class numbers; assertions fail the run where one is negative or not below the number of classes.
///
/// # Errors
/// See [`ConfusionMatrix::build`].
#[track_caller]
pub fn confusion_matrix(labels: impl IntoOperand, predictions: impl IntoOperand) -> ConfusionMatrix {
    crate::install();
    ConfusionMatrix {
        labels: labels.into_operand(),
        predictions: predictions.into_operand(),
        num_classes: None,
        weights: None,
        dtype: DType::Int32,
        name: None,
        location: Location::caller(),
    }
}

impl ConfusionMatrix {
    /// The number of classes; one more than the greatest of all without.
    pub fn num_classes(mut self, num_classes: impl IntoOperand) -> Self {
        self.num_classes = Some(num_classes.into_operand());
        self
    }

    /// What each prediction counts; 1 without.
    pub fn weights(mut self, weights: impl IntoOperand) -> Self {
        self.weights = Some(weights.into_operand());
        self
    }

    /// The dtype of the matrix; `int32` without.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Names the scope.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations; the matrix.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` if the shapes do not fit together.
    pub fn build(self) -> Result<Tensor> {
        let graph = self
            .labels
            .graph()
            .or(self.predictions.graph())
            .cloned()
            .unwrap_or_else(Graph::current);
        let nodes = &Nodes::at(&graph, self.location);
        let _scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("confusion_matrix"))?;
        let labels = nodes.tensor(&self.labels, "labels")?;
        let predictions = nodes.tensor(&self.predictions, "predictions")?;
        let (labels, predictions) = squeeze(nodes, labels, predictions)?;
        let predictions = nodes.cast(&predictions, DType::Int64)?;
        let labels = nodes.cast(&labels, DType::Int64)?;
        let not_negative = |x: &Tensor, what: &str| {
            let check = assert_non_negative(x)
                .message(format!("`{what}` contains negative values"))
                .build()?;
            with_dependencies([&check], x)
        };
        let mut labels = not_negative(&labels, "labels")?;
        let mut predictions = not_negative(&predictions, "predictions")?;
        let num_classes = match self.num_classes {
            None => {
                let greatest = nodes.reduce("Max", &predictions, None, false)?;
                let greatest_label = nodes.reduce("Max", &labels, None, false)?;
                let greatest = nodes.binary("Maximum", "Maximum", &greatest, &greatest_label)?;
                Operand::Tensor(nodes.add(&greatest, 1)?)
            }
            Some(num_classes) => {
                let limit = nodes.cast_operand(&num_classes, DType::Int64)?;
                let below = |x: &Tensor, what: &str| {
                    let check = assert_less(x, &limit)
                        .message(format!("`{what}` out of bound"))
                        .build()?;
                    with_dependencies([&check], x)
                };
                labels = below(&labels, "labels")?;
                predictions = below(&predictions, "predictions")?;
                num_classes
            }
        };
        let weights = match &self.weights {
            None => None,
            Some(weights) => {
                let weights = nodes.tensor(weights, "weights")?;
                predictions.shape().merge(&weights.shape())?;
                Some(nodes.cast(&weights, self.dtype)?)
            }
        };
        let shape = nodes.stack(vec![num_classes.clone(), num_classes])?;
        let pairs = nodes
            .node("Pack")
            .input([&labels, &predictions])
            .attr("axis", 1i64)
            .name("stack")
            .build()?;
        let values = match weights {
            Some(weights) => weights,
            None => nodes.ones_like(&predictions, self.dtype)?,
        };
        let wide_shape = nodes.cast(&shape, DType::Int64)?;
        let shape = nodes.cast(&shape, DType::Int32)?;
        let zeros = nodes.zeros(&shape, self.dtype)?;
        let sum = nodes.node("SparseTensorDenseAdd").input(&pairs).input(&values);
        sum.input(&wide_shape).input(&zeros).build()
    }
}

impl IntoOperand for ConfusionMatrix {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// Takes the last axis, of length one, from the one that has an axis more than the other.
fn squeeze(nodes: &Nodes<'_>, labels: Tensor, predictions: Tensor) -> Result<(Tensor, Tensor)> {
    let _scope = scope::name_scope_in(nodes.graph(), "remove_squeezable_dimensions")?;
    let squeeze = |x: &Tensor| nodes.node("Squeeze").input(x).attr("squeeze_dims", vec![-1i64]).build();
    match (labels.shape().rank(), predictions.shape().rank()) {
        (Some(own), Some(other)) if other == own + 1 => Ok((labels, squeeze(&predictions)?)),
        (Some(own), Some(other)) if other + 1 == own => Ok((squeeze(&labels)?, predictions)),
        _ => Ok((labels, predictions)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph_core::Value;
    use graph_core::session::Session;

    #[test]
    fn classes_are_counted() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let labels = crate::array::constant([1i64, 2, 2, 0]).build().unwrap();
        let predictions = crate::array::constant([1i64, 2, 0, 0]).build().unwrap();
        let matrix = confusion_matrix(&labels, &predictions).num_classes(3).build().unwrap();
        assert_eq!(matrix.shape(), [3, 3].into());
        let weighted = confusion_matrix(&labels, &predictions)
            .weights([1.0f32, 2.0, 0.5, 3.0])
            .dtype(DType::Float32)
            .build()
            .unwrap();
        // What constants alone decide is told when the graph is built.
        let error = confusion_matrix(&labels, &predictions)
            .num_classes(2)
            .build()
            .unwrap_err();
        let session = Session::new(&graph).unwrap();
        let (counts, sums): (Value, Value) = session.run((&matrix, &weighted), ()).unwrap();
        assert_eq!(counts, Value::from([[1i32, 0, 0], [0, 1, 0], [1, 0, 1]]));
        assert_eq!(
            sums,
            Value::from([[3.0f32, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 2.0]])
        );
        assert_eq!(error.class(), "InvalidArgument");
        assert!(error.to_string().contains("`labels` out of bound"), "{error}");
    }

    #[test]
    fn nodes_are_those_of_tensorflow() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let x = crate::array::placeholder::<i64>([None]).name("x").build().unwrap();
        let from = graph.num_operations();
        confusion_matrix(&x, &x).num_classes(10).name("c").build().unwrap();
        let operations = graph.operations();
        let made: Vec<String> = operations[from..]
            .iter()
            .map(|operation| operation.name())
            .filter(|name| !name.contains("/assert_"))
            .collect();
        let expected = [
            "control_dependency",
            "control_dependency_1",
            "Cast/x",
            "Cast",
            "control_dependency_2",
            "control_dependency_3",
            "stack",
            "stack_1",
            "ones_like/Shape",
            "ones_like/Const",
            "ones_like",
            "Cast_1",
            "zeros/Const",
            "zeros",
            "SparseTensorDenseAdd",
        ];
        assert_eq!(made, expected.map(|name| format!("c/{name}")));
    }
}
