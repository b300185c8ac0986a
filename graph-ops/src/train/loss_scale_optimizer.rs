//! An optimizer around another that scales the loss, and the switch for mixed precision.

use graph_core::{DType, Error, Graph, Operation, Result, Tensor, Variable};

use super::loss_scale::{IntoLossScale, LossScale};
use super::optimizer::{GradientAndVariable, MinimizeOptions, Optimizer, OptimizerState};
use crate::array::constant;
use crate::control::{cond, group, no_op};
use crate::math::cast;
use crate::rewrite::MixedPrecision;

/// An optimizer that multiplies the loss by a [`LossScale`] before it takes gradients and divides the gradients by it
/// after, so that they do not vanish on their way through dtypes of little range. With a scale that is dynamic, a step
/// whose gradients are not all finite changes no variable and no slot, and does not count in the global step; only the
/// scale becomes smaller.
///
/// Its nodes are those of TensorFlow 1.15's `tf.train.experimental.MixedPrecisionLossScaleOptimizer`, with `cond` around the
/// updates. Sessions run that `cond` as updates that look at the condition themselves, on the device where the variables
/// are (the rewrite `masked_updates`).
///
/// ```
/// use graph_ops::train::{AdamOptimizer, MixedPrecisionLossScaleOptimizer, Optimizer};
/// use graph_ops::{math, state};
/// # let graph = graph_core::Graph::new();
/// # let _default = graph.as_default();
/// let weight = graph_core::Variable::new(3.0f32).name("weight").build()?;
/// let loss = math::square(&weight).build()?;
/// let optimizer = MixedPrecisionLossScaleOptimizer::new(AdamOptimizer::new(0.1), "dynamic")?;
/// let step = optimizer.minimize(&loss, &state::trainable_variables()?)?;
/// let session = graph_core::Session::new(&graph)?;
/// session.run(state::global_variables_initializer()?, ())?;
/// session.run(&step, ())?;
/// assert!(session.run::<f32>(&weight, ())? < 3.0);
/// # Ok::<(), graph_core::Error>(())
/// ```
pub struct MixedPrecisionLossScaleOptimizer {
    optimizer: Box<dyn Optimizer>,
    loss_scale: Box<dyn LossScale>,
}

impl MixedPrecisionLossScaleOptimizer {
    /// `optimizer`, its loss scaled: by a number, by `"dynamic"`, or by a [`LossScale`].
    ///
    /// # Errors
    /// `InvalidArgument` for what is no loss scale; those of making the scale's variables.
    pub fn new(optimizer: impl Optimizer + 'static, loss_scale: impl IntoLossScale) -> Result<Self> {
        Ok(Self::of(Box::new(optimizer), loss_scale.into_loss_scale()?))
    }

    /// [`MixedPrecisionLossScaleOptimizer::new`] of parts that are boxed already.
    pub fn of(optimizer: Box<dyn Optimizer>, loss_scale: Box<dyn LossScale>) -> Self {
        Self { optimizer, loss_scale }
    }

    /// The loss scale.
    pub fn loss_scale(&self) -> &dyn LossScale {
        &*self.loss_scale
    }

    /// The variables that the optimizer has made in `graph`, and those of the loss scale.
    pub fn variables(&self, graph: &Graph) -> Vec<Variable> {
        let mut variables = self.optimizer.state().variables(graph);
        variables.extend(self.loss_scale.variables());
        variables
    }

    fn unscaled(&self, gradients: Vec<GradientAndVariable>) -> Result<Vec<GradientAndVariable>> {
        let reciprocal = (1.0f32 / self.loss_scale.value()?)?;
        let unscale = |(gradient, variable): GradientAndVariable| {
            let gradient = gradient.map(|gradient| &gradient * scalar_like(&reciprocal, &gradient)?);
            Ok((gradient.transpose()?, variable))
        };
        gradients.into_iter().map(unscale).collect()
    }
}

/// The scalar in the dtype of `tensor`.
fn scalar_like(scalar: &Tensor, tensor: &Tensor) -> Result<Tensor> {
    if scalar.dtype() == tensor.dtype() {
        return Ok(scalar.clone());
    }
    cast(scalar, tensor.dtype()).build()
}

impl Optimizer for MixedPrecisionLossScaleOptimizer {
    fn state(&self) -> &OptimizerState {
        self.optimizer.state()
    }

    fn create_slots(&self, variables: &[Variable]) -> Result<()> {
        self.optimizer.create_slots(variables)
    }

    fn prepare(&self, graph: &Graph) -> Result<Vec<Tensor>> {
        self.optimizer.prepare(graph)
    }

    fn apply_dense(&self, gradient: &Tensor, variable: &Variable, parameters: &[Tensor]) -> Result<Operation> {
        self.optimizer.apply_dense(gradient, variable, parameters)
    }

    fn finish(&self, updates: Vec<Operation>, name: &str, parameters: &[Tensor]) -> Result<Operation> {
        self.optimizer.finish(updates, name, parameters)
    }

    fn scales_loss(&self) -> bool {
        true
    }

    fn compute_gradients(
        &self,
        loss: &Tensor,
        variables: &[Variable],
        options: &MinimizeOptions,
    ) -> Result<Vec<GradientAndVariable>> {
        loss.require_dtype(DType::FLOATS)?;
        let _default = loss.graph().as_default();
        let scale = scalar_like(&self.loss_scale.value()?, loss)?;
        let scaled = (loss * scale)?;
        let gradients = self.optimizer.compute_gradients(&scaled, variables, options)?;
        self.unscaled(gradients)
    }

    fn apply_gradients(&self, gradients: &[GradientAndVariable], options: &MinimizeOptions) -> Result<Operation> {
        let known: Vec<&Tensor> = gradients.iter().filter_map(|(gradient, _)| gradient.as_ref()).collect();
        if !self.loss_scale.is_dynamic() || known.is_empty() {
            return self.optimizer.apply_gradients(gradients, options);
        }
        let _default = known[0].graph().as_default();
        let name = options.name.as_deref().unwrap_or(self.state().name());
        let (update, may_apply) = self.loss_scale.update(&known)?;
        let wrapped = options.clone().name(format!("{name}-wrapped"));
        let apply = || {
            // TensorFlow's number of the replica, which takes the name `Const` from what comes after it.
            constant(0i32).build()?;
            self.optimizer.apply_gradients(gradients, &wrapped)
        };
        let applied = match may_apply {
            Some(may_apply) => cond(may_apply, apply, || no_op("")).build()?,
            None => apply()?,
        };
        group([applied, update], name)
    }
}

/// Turns on mixed precision in `f16` for sessions of the current graph that are made from now on, as
/// `tf.train.experimental.enable_mixed_precision_graph_rewrite` does for all sessions of the process: see
/// [`MixedPrecision`]. Gradients must then be taken and applied by the optimizer that comes back, which scales the loss.
///
/// ```
/// use graph_ops::train::{GradientDescentOptimizer, enable_mixed_precision_graph_rewrite};
/// # let graph = graph_core::Graph::new();
/// # let _default = graph.as_default();
/// let optimizer = enable_mixed_precision_graph_rewrite(GradientDescentOptimizer::new(0.1), "dynamic")?;
/// assert!(enable_mixed_precision_graph_rewrite(optimizer, "dynamic").is_err());
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` if the optimizer scales the loss already, or for what is no loss scale.
pub fn enable_mixed_precision_graph_rewrite(
    optimizer: impl Optimizer + 'static,
    loss_scale: impl IntoLossScale,
) -> Result<MixedPrecisionLossScaleOptimizer> {
    if optimizer.scales_loss() {
        return Err(Error::invalid_argument("the optimizer scales the loss already")
            .hint("give the optimizer inside; it is wrapped here"));
    }
    let wrapped = MixedPrecisionLossScaleOptimizer::new(optimizer, loss_scale)?;
    Graph::current().set_rewrite(MixedPrecision::Half.rewrite(), true);
    Ok(wrapped)
}

/// Turns mixed precision off for sessions of the current graph that are made from now on. Optimizers go on scaling the loss.
pub fn disable_mixed_precision_graph_rewrite() {
    for precision in MixedPrecision::ALL {
        Graph::current().set_rewrite(precision.rewrite(), false);
    }
}
