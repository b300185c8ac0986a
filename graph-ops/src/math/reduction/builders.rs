//! Builder functions of reductions.

use std::panic::Location;

use graph_core::graph::{IntoOperand, Operand, Tensor, scope};
use graph_core::{DType, Graph, PartialShape, Result, Value};

use crate::math::nodes::{Nodes, all_axes};

/// A reduction about to be made; see [`reduce_sum`] and its like.
#[must_use = "an operation is made by `build`"]
pub struct Reduce {
    op: &'static str,
    input: Operand,
    axis: Option<Operand>,
    keep_dims: bool,
    name: Option<String>,
    location: &'static Location<'static>,
}

impl Reduce {
    #[track_caller]
    fn new(op: &'static str, input: impl IntoOperand) -> Self {
        crate::install();
        Self {
            op,
            input: input.into_operand(),
            axis: None,
            keep_dims: false,
            name: None,
            location: Location::caller(),
        }
    }

    /// The axis or axes to reduce, a number, a list or a tensor; negative ones count from the end. All without.
    pub fn axis(mut self, axis: impl IntoOperand) -> Self {
        self.axis = Some(axis.into_operand());
        self
    }

    /// Keeps the reduced axes, with length one.
    pub fn keep_dims(mut self, keep: bool) -> Self {
        self.keep_dims = keep;
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` for a dtype that the reduction does not take or an axis out of range.
    pub fn build(self) -> Result<Tensor> {
        let graph = self
            .input
            .graph()
            .or(self.axis.as_ref().and_then(Operand::graph))
            .cloned();
        let nodes = Nodes::at(&graph.unwrap_or_else(Graph::current), self.location);
        let to_scalar = self.axis.is_none() && !self.keep_dims;
        let axis = match self.axis {
            Some(axis) => axis,
            None => axes_of(&nodes, &self.input)?.into_operand(),
        };
        let node = nodes.node(self.op).input(self.input).input(axis);
        let output = node
            .attr("keep_dims", self.keep_dims)
            .name(self.name.as_deref().unwrap_or(self.op))
            .build()?;
        if to_scalar {
            output.set_shape(PartialShape::scalar())?;
        }
        Ok(output)
    }
}

impl IntoOperand for Reduce {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// All axes of an operand, as Python finds them: a constant for a tensor of known rank; rank and range nodes otherwise,
/// variables included.
fn axes_of(nodes: &Nodes<'_>, input: &Operand) -> Result<Tensor> {
    match input {
        Operand::Tensor(tensor) => all_axes(nodes, tensor.shape().rank(), tensor),
        Operand::Variable(variable) => all_axes(nodes, None, variable.value()),
        Operand::Failed(error) => Err(error.duplicate()),
        Operand::Number(_) | Operand::Array(_) | Operand::List(_) => {
            let rank = {
                let scope = scope::name_scope_in(nodes.graph(), "Rank")?;
                // A list with tensors in it is packed under a name of its own.
                let name = if input.graph().is_some() { "packed" } else { "Const" };
                let tensor = nodes.tensor(input, name)?;
                let rank = tensor.shape().rank().unwrap_or_default();
                nodes.constant(Value::from(rank as i32), &scope.scope_name())?
            };
            nodes.range(0, &rank)
        }
    }
}

/// Defines the builder function of a reduction.
macro_rules! reductions {
    ($($(#[$doc:meta])* $function:ident => $op:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// Without [`axis`](Reduce::axis) it reduces over all axes to a scalar; the reduced axes vanish unless
        /// [`keep_dims`](Reduce::keep_dims) is set.
        #[track_caller]
        pub fn $function(input: impl IntoOperand) -> Reduce {
            Reduce::new($op, input)
        }
    )*};
}

reductions! {
    /// The sum of the elements along axes, of any number type; of none, zero.
    ///
    /// ```
    /// use graph_ops::{array::constant, math::reduce_sum};
    /// let rows = reduce_sum(constant([[1.0f32, 2.0], [3.0, 4.0]])).axis(1).build()?;
    /// assert_eq!(rows.shape(), [2].into());
    /// # Ok::<(), graph_core::Error>(())
    /// ```
    reduce_sum => "Sum";
    /// The mean of the elements along axes, of any number type; integers are cut towards zero, and the mean of no
    /// floating-point numbers is not a number.
    reduce_mean => "Mean";
    /// The product of the elements along axes, of any number type; of none, one.
    reduce_prod => "Prod";
    /// The least of the elements along axes, of any real number type; of none, infinity or the type's greatest value.
    reduce_min => "Min";
    /// The greatest of the elements along axes, of any real number type; of none, minus infinity or the type's least value.
    reduce_max => "Max";
    /// Whether all `bool` elements along axes are true; of none, true.
    reduce_all => "All";
    /// Whether any `bool` element along axes is true; of none, false.
    reduce_any => "Any";
    /// The square root of the sum of the elements' squared magnitudes along axes.
    reduce_euclidean_norm => "EuclideanNorm";
}

/// What reductions made of several nodes are asked.
macro_rules! composite {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* }) => {
        $(#[$doc])*
        #[must_use = "operations are made by `build`"]
        pub struct $name {
            input: Operand,
            axis: Option<Operand>,
            keep_dims: bool,
            $($field: $type,)*
            name: Option<String>,
            location: &'static Location<'static>,
        }

        impl $name {
            /// The axis or axes to reduce; all without.
            pub fn axis(mut self, axis: impl IntoOperand) -> Self {
                self.axis = Some(axis.into_operand());
                self
            }

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
        }

        impl IntoOperand for $name {
            fn into_operand(self) -> Operand {
                self.build().into_operand()
            }
        }
    };
}

composite! {
    /// The logarithm of a sum of exponentials about to be made; see [`reduce_logsumexp`].
    ReduceLogSumExp {}
}

composite! {
    /// A count about to be made; see [`count_nonzero`].
    CountNonzero { dtype: DType }
}

/// `log(sum(exp(x)))` along axes, of floating-point tensors, computed so that it neither overflows nor loses what is small:
/// the greatest element is subtracted first and added at the end.
#[track_caller]
pub fn reduce_logsumexp(input: impl IntoOperand) -> ReduceLogSumExp {
    crate::install();
    ReduceLogSumExp {
        input: input.into_operand(),
        axis: None,
        keep_dims: false,
        name: None,
        location: Location::caller(),
    }
}

impl ReduceLogSumExp {
    /// Makes the operations; the result.
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` for other dtypes or an axis out of range.
    pub fn build(self) -> Result<Tensor> {
        let graph = self.input.graph().cloned().unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let input = nodes.tensor(&self.input, "Const")?;
        let _scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("ReduceLogSumExp"))?;
        let greatest = nodes.reduce("Max", &input, self.axis.clone(), true)?;
        let finite = nodes.unary("IsFinite", &greatest)?;
        let zeros = nodes.zeros_like(&greatest)?;
        let greatest = nodes.select(&finite, &greatest, &zeros)?;
        let mut greatest = nodes.unary("StopGradient", &greatest)?;
        let difference = nodes.binary("Sub", "Sub", &input, &greatest)?;
        let exponentials = nodes.unary("Exp", &difference)?;
        let to_scalar = self.axis.is_none() && !self.keep_dims;
        let sum = nodes.reduce("Sum", &exponentials, self.axis, self.keep_dims)?;
        if to_scalar {
            sum.set_shape(PartialShape::scalar())?;
        }
        let logarithm = nodes.unary("Log", &sum)?;
        if !self.keep_dims {
            let shape = nodes.shape(&logarithm)?;
            greatest = nodes.reshape(&greatest, &shape)?;
        }
        nodes.binary("Add", "Add", &logarithm, &greatest)
    }
}

/// How many elements along axes are not zero (or not false, or not empty), as `int64` or another
/// [`dtype`](CountNonzero::dtype).
#[track_caller]
pub fn count_nonzero(input: impl IntoOperand) -> CountNonzero {
    crate::install();
    CountNonzero {
        input: input.into_operand(),
        axis: None,
        keep_dims: false,
        dtype: DType::Int64,
        name: None,
        location: Location::caller(),
    }
}

impl CountNonzero {
    /// The dtype of the result; `int64` without.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Makes the operations; the result.
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` for an axis out of range.
    pub fn build(self) -> Result<Tensor> {
        let graph = self.input.graph().cloned().unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let _scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("count_nonzero"))?;
        let input = nodes.tensor(&self.input, "input")?;
        let zero = nodes.constant(Value::zeros(input.dtype(), ())?, "zeros")?;
        let differs = nodes.binary("NotEqual", "NotEqual", &input, &zero)?;
        let ones = nodes.cast(&differs, DType::Int64)?;
        let to_scalar = self.axis.is_none() && !self.keep_dims;
        let sum = nodes.reduce("Sum", &ones, self.axis, self.keep_dims)?;
        if to_scalar {
            sum.set_shape(PartialShape::scalar())?;
        }
        nodes.cast(&sum, self.dtype)
    }
}
