//! Mean and variance, and vectors scaled to length one: functions of several nodes.

use std::panic::Location;

use graph_core::graph::{IntoOperand, Operand, Tensor, scope};
use graph_core::{DType, Graph, Result};

use crate::math::nodes::Nodes;

/// Mean and variance about to be computed; see [`moments`].
#[must_use = "operations are made by `build`"]
pub struct Moments {
    x: Operand,
    axes: Vec<i32>,
    keep_dims: bool,
    name: Option<String>,
    location: &'static Location<'static>,
}

/// The mean and the (population) variance of the floating-point tensor `x` over `axes`. `half` is computed in `float`.
///
/// ```
/// use graph_ops::{array::constant, nn::moments};
/// let (mean, variance) = moments(constant([[1.0f32, 3.0], [5.0, 7.0]]), [0]).build()?; // [3, 5] and [4, 4]
/// assert_eq!((mean.shape(), variance.shape()), ([2].into(), [2].into()));
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn moments(x: impl IntoOperand, axes: impl IntoIterator<Item = i32>) -> Moments {
    crate::install();
    Moments {
        x: x.into_operand(),
        axes: axes.into_iter().collect(),
        keep_dims: false,
        name: None,
        location: Location::caller(),
    }
}

impl Moments {
    /// Keeps the reduced axes, with length one.
    pub fn keep_dims(mut self, keep: bool) -> Self {
        self.keep_dims = keep;
        self
    }

    /// Names the scope.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations: mean and variance.
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` for another dtype or an axis out of range.
    pub fn build(self) -> Result<(Tensor, Tensor)> {
        let graph = self.x.graph().cloned().unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let _scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("moments"))?;
        let x = nodes.tensor(&self.x, "x")?;
        let half = x.dtype() == DType::Half;
        let y = if half { nodes.cast(&x, DType::Float32)? } else { x };
        let mean_of = |x: &Tensor, name: &str| {
            let node = nodes.node("Mean").input(x).input(self.axes.clone());
            node.attr("keep_dims", true).name(name).build()
        };
        let mut mean = mean_of(&y, "mean")?;
        let center = nodes.unary("StopGradient", &mean)?;
        let squares = nodes.binary("SquaredDifference", "SquaredDifference", &y, &center)?;
        let mut variance = mean_of(&squares, "variance")?;
        if !self.keep_dims {
            let axes: Vec<i64> = self.axes.iter().map(|&axis| axis.into()).collect();
            let squeeze = |x: &Tensor| {
                nodes
                    .node("Squeeze")
                    .input(x)
                    .attr("squeeze_dims", axes.clone())
                    .build()
            };
            (mean, variance) = (squeeze(&mean)?, squeeze(&variance)?);
        }
        if half {
            (mean, variance) = (nodes.cast(&mean, DType::Half)?, nodes.cast(&variance, DType::Half)?);
        }
        Ok((mean, variance))
    }
}

/// Vectors about to be scaled to length one; see [`l2_normalize`].
#[must_use = "operations are made by `build`"]
pub struct L2Normalize {
    x: Operand,
    axis: Option<Operand>,
    epsilon: f64,
    name: Option<String>,
    location: &'static Location<'static>,
}

/// The floating-point tensor `x` divided by its Euclidean length along axes (all of them without
/// [`axis`](L2Normalize::axis)): `x / sqrt(max(sum(x * x), epsilon))`.
#[track_caller]
pub fn l2_normalize(x: impl IntoOperand) -> L2Normalize {
    crate::install();
    L2Normalize {
        x: x.into_operand(),
        axis: None,
        epsilon: 1e-12,
        name: None,
        location: Location::caller(),
    }
}

impl L2Normalize {
    /// The axis or axes along which the length is measured.
    pub fn axis(mut self, axis: impl IntoOperand) -> Self {
        self.axis = Some(axis.into_operand());
        self
    }

    /// The least squared length that is divided by; 1e-12 without.
    pub fn epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations; the result.
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` for another dtype or an axis out of range.
    pub fn build(self) -> Result<Tensor> {
        let graph = self.x.graph().cloned().unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("l2_normalize"))?;
        let x = nodes.tensor(&self.x, "x")?;
        let squares = nodes.unary("Square", &x)?;
        let sum = nodes.reduce("Sum", &squares, self.axis, true)?;
        let sum = nodes.binary("Maximum", "Maximum", &sum, self.epsilon)?;
        let inverse = nodes.unary("Rsqrt", &sum)?;
        nodes.binary("Mul", &scope.scope_name(), &x, &inverse)
    }
}

impl IntoOperand for L2Normalize {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}
