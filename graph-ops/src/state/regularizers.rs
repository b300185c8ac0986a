//! Regularizers: losses that keep variables small, in the manner of `tf.contrib.layers`.

use graph_core::graph::scope::name_scope_in;
use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::{Error, Result, Tensor, Variable};

/// What makes a loss of a variable.
pub trait Regularizer: Send + Sync {
    /// The loss, a scalar; `None` for none.
    ///
    /// # Errors
    /// Those of building its nodes.
    fn loss(&self, variable: &Variable) -> Result<Option<Tensor>>;
}

impl<F: Fn(&Variable) -> Result<Option<Tensor>> + Send + Sync> Regularizer for F {
    fn loss(&self, variable: &Variable) -> Result<Option<Tensor>> {
        self(variable)
    }
}

/// See [`l1_regularizer`] and [`l2_regularizer`].
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    scale: f64,
    squared: bool,
}

/// `scale` times the sum of absolute values; 0 is no loss.
///
/// # Errors
/// `InvalidArgument` for a scale that is negative or no number.
pub fn l1_regularizer(scale: f64) -> Result<Norm> {
    norm(scale, false)
}

/// `scale` times half the sum of squares; 0 is no loss.
///
/// # Errors
/// `InvalidArgument` for a scale that is negative or no number.
pub fn l2_regularizer(scale: f64) -> Result<Norm> {
    norm(scale, true)
}

fn norm(scale: f64, squared: bool) -> Result<Norm> {
    if scale.is_nan() || scale < 0.0 {
        return Err(Error::invalid_argument("the scale of a regularizer cannot be negative").got(scale));
    }
    Ok(Norm { scale, squared })
}

impl Regularizer for Norm {
    fn loss(&self, variable: &Variable) -> Result<Option<Tensor>> {
        if self.scale == 0.0 {
            return Ok(None);
        }
        crate::install();
        let graph = variable.graph();
        let name = if self.squared {
            "l2_regularizer"
        } else {
            "l1_regularizer"
        };
        let scope = name_scope_in(graph, name)?;
        let scale = self
            .scale
            .into_operand()
            .to_tensor(graph, "scale", Some(variable.dtype()))?;
        let size = if self.squared {
            OpBuilder::new("L2Loss").input(variable).build()?
        } else {
            sum(&OpBuilder::new("Abs").input(variable).build()?)?
        };
        let loss = OpBuilder::new("Mul").input(scale).input(size);
        loss.name(scope.scope_name()).build().map(Some)
    }
}

fn sum(tensor: &Tensor) -> Result<Tensor> {
    crate::math::reduce_sum(tensor).build()
}

/// See [`l1_l2_regularizer`].
#[derive(Clone, Copy, Debug)]
pub struct Both {
    l1: Norm,
    l2: Norm,
}

/// The losses of [`l1_regularizer`] and [`l2_regularizer`] together.
///
/// # Errors
/// `InvalidArgument` for a scale that is negative or no number.
pub fn l1_l2_regularizer(scale_l1: f64, scale_l2: f64) -> Result<Both> {
    Ok(Both {
        l1: l1_regularizer(scale_l1)?,
        l2: l2_regularizer(scale_l2)?,
    })
}

impl Regularizer for Both {
    fn loss(&self, variable: &Variable) -> Result<Option<Tensor>> {
        let losses: Vec<Tensor> = [self.l1.loss(variable)?, self.l2.loss(variable)?]
            .into_iter()
            .flatten()
            .collect();
        if losses.is_empty() {
            return Ok(None);
        }
        let _scope = name_scope_in(variable.graph(), "l1_l2_regularizer")?;
        OpBuilder::new("AddN").input(losses).build().map(Some)
    }
}
