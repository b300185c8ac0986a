//! What a run is fed.

use crate::error::{Error, Result};
use crate::graph::{Graph, IntoOperand, Operand, Tensor};
use crate::value::Value;
use crate::variable::Variable;

/// A thing that can be fed: a tensor, or a variable's value.
pub trait Feedable {
    /// The tensor whose value is replaced.
    fn fed_tensor(&self) -> Tensor;
}

impl Feedable for Tensor {
    fn fed_tensor(&self) -> Tensor {
        self.clone()
    }
}

impl Feedable for Variable {
    fn fed_tensor(&self) -> Tensor {
        self.value().clone()
    }
}

impl<T: Feedable> Feedable for &T {
    fn fed_tensor(&self) -> Tensor {
        (*self).fed_tensor()
    }
}

/// Tensors and the values they have in one run. Any tensor can be fed, not only placeholders.
///
/// The [`feed!`](crate::feed) macro writes it like TensorFlow's `feed_dict`; `()` feeds nothing.
#[derive(Clone, Debug, Default)]
pub struct Feeds(Vec<(Tensor, Operand)>);

impl Feeds {
    /// Feeds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Feeds `value` as `tensor`. Bare numbers take the tensor's dtype where that loses nothing; arrays must have it. Large
    /// data is best given as a [`Value`] or an `ndarray` array.
    #[must_use]
    pub fn with(mut self, tensor: impl Feedable, value: impl IntoOperand) -> Self {
        self.0.push((tensor.fed_tensor(), value.into_operand()));
        self
    }

    /// Checks everything against `graph`; tensors and their values.
    pub(crate) fn resolve(self, graph: &Graph) -> Result<Vec<(Tensor, Value)>> {
        let mut resolved: Vec<(Tensor, Value)> = Vec::with_capacity(self.0.len());
        for (tensor, operand) in self.0 {
            check_fed_tensor(&tensor, resolved.iter().map(|(other, _)| other), graph)?;
            let value = operand
                .to_value(Some(tensor.dtype()))
                .map_err(|error| error.context(format!("feeding '{}'", tensor.name())))?
                .ok_or_else(|| {
                    Error::invalid_argument(format!("'{}' is fed a symbolic tensor", tensor.name()))
                        .hint("feed numbers, arrays or values; fetch the tensor first")
                })?;
            check_feed(&tensor, &value)?;
            resolved.push((tensor, value));
        }
        Ok(resolved)
    }
}

/// Whether a tensor can be fed together with the others.
pub(crate) fn check_fed_tensor<'a>(
    tensor: &Tensor,
    others: impl IntoIterator<Item = &'a Tensor>,
    graph: &Graph,
) -> Result<()> {
    if tensor.graph() != graph {
        return Err(
            Error::invalid_argument(format!("the fed tensor '{}' is of another graph", tensor.name()))
                .at(tensor.op().site()),
        );
    }
    if others.into_iter().any(|other| other == tensor) {
        return Err(Error::invalid_argument(format!(
            "the tensor '{}' is fed twice",
            tensor.name()
        )));
    }
    Ok(())
}

/// Whether a value can be fed as a tensor: dtype and shape must fit.
pub(crate) fn check_feed(tensor: &Tensor, value: &Value) -> Result<()> {
    if value.dtype() != tensor.dtype() {
        return Err(
            Error::invalid_argument(format!("the value fed to '{}' has the wrong dtype", tensor.name()))
                .expected(tensor.dtype())
                .got(value.dtype())
                .at(tensor.op().site()),
        );
    }
    if !tensor.shape().admits(value.shape()) {
        return Err(
            Error::invalid_argument(format!("the value fed to '{}' has the wrong shape", tensor.name()))
                .expected(tensor.shape())
                .got(value.shape())
                .at(tensor.op().site()),
        );
    }
    Ok(())
}

impl From<()> for Feeds {
    fn from((): ()) -> Self {
        Self::new()
    }
}

/// Tensors and the values to feed them: `feed! { images => batch, keep => 0.5 }`.
#[macro_export]
macro_rules! feed {
    ($($tensor:expr => $value:expr),* $(,)?) => {
        $crate::session::Feeds::new()$(.with(&$tensor, $value))*
    };
}
