//! Learning rates that fall with the training steps, as `tf.train.*_decay` of TensorFlow 1.15 build them.
//!
//! ```
//! use graph_ops::train::{exponential_decay, get_or_create_global_step};
//! let step = get_or_create_global_step()?;
//! let rate = exponential_decay(0.1, &step, 1000, 0.96).staircase(true).build()?;
//! assert_eq!(rate.name(), "ExponentialDecay:0");
//! # Ok::<(), graph_core::Error>(())
//! ```

use graph_core::graph::scope::{ScopeGuard, name_scope_in};
use graph_core::graph::{IntoOperand, OpBuilder, Operand};
use graph_core::{DType, Error, Graph, Result, Tensor, Value};

enum Kind {
    Exponential { rate: Operand },
    NaturalExponential { rate: Operand },
    InverseTime { rate: Operand },
    Polynomial { end: Operand, power: Operand, cycle: bool },
    Cosine { alpha: f64 },
}

/// A learning rate about to be made.
#[must_use = "a learning rate is made by `build`"]
pub struct Decay {
    initial: Operand,
    step: Operand,
    decay_steps: Operand,
    kind: Kind,
    staircase: bool,
    name: Option<String>,
}

fn decay(initial: impl IntoOperand, step: impl IntoOperand, decay_steps: impl IntoOperand, kind: Kind) -> Decay {
    Decay {
        initial: initial.into_operand(),
        step: step.into_operand(),
        decay_steps: decay_steps.into_operand(),
        kind,
        staircase: false,
        name: None,
    }
}

/// `learning_rate * decay_rate ^ (global_step / decay_steps)`
pub fn exponential_decay(
    learning_rate: impl IntoOperand,
    global_step: impl IntoOperand,
    decay_steps: impl IntoOperand,
    decay_rate: impl IntoOperand,
) -> Decay {
    let rate = decay_rate.into_operand();
    decay(learning_rate, global_step, decay_steps, Kind::Exponential { rate })
}

/// `learning_rate * exp(-decay_rate * global_step / decay_steps)`
pub fn natural_exp_decay(
    learning_rate: impl IntoOperand,
    global_step: impl IntoOperand,
    decay_steps: impl IntoOperand,
    decay_rate: impl IntoOperand,
) -> Decay {
    let rate = decay_rate.into_operand();
    decay(
        learning_rate,
        global_step,
        decay_steps,
        Kind::NaturalExponential { rate },
    )
}

/// `learning_rate / (1 + decay_rate * global_step / decay_steps)`
pub fn inverse_time_decay(
    learning_rate: impl IntoOperand,
    global_step: impl IntoOperand,
    decay_steps: impl IntoOperand,
    decay_rate: impl IntoOperand,
) -> Decay {
    let rate = decay_rate.into_operand();
    decay(learning_rate, global_step, decay_steps, Kind::InverseTime { rate })
}

/// From `learning_rate` to [`Decay::end_learning_rate`] in `decay_steps` steps:
/// `(learning_rate - end) * (1 - global_step / decay_steps) ^ power + end`.
pub fn polynomial_decay(
    learning_rate: impl IntoOperand,
    global_step: impl IntoOperand,
    decay_steps: impl IntoOperand,
) -> Decay {
    let kind = Kind::Polynomial {
        end: 0.0001f64.into_operand(),
        power: 1.0f64.into_operand(),
        cycle: false,
    };
    decay(learning_rate, global_step, decay_steps, kind)
}

/// From `learning_rate` to [`Decay::alpha`] times that in `decay_steps` steps, along half a cosine (Loshchilov and Hutter,
/// 2016).
pub fn cosine_decay(
    learning_rate: impl IntoOperand,
    global_step: impl IntoOperand,
    decay_steps: impl IntoOperand,
) -> Decay {
    decay(learning_rate, global_step, decay_steps, Kind::Cosine { alpha: 0.0 })
}

impl Decay {
    /// Lets an exponential or inverse-time decay go in whole steps of `decay_steps`.
    pub fn staircase(mut self, staircase: bool) -> Self {
        self.staircase = staircase;
        self
    }

    /// Where a polynomial decay ends; 0.0001 without.
    pub fn end_learning_rate(mut self, rate: impl IntoOperand) -> Self {
        if let Kind::Polynomial { end, .. } = &mut self.kind {
            *end = rate.into_operand();
        }
        self
    }

    /// The power of a polynomial decay; 1 without.
    pub fn power(mut self, exponent: impl IntoOperand) -> Self {
        if let Kind::Polynomial { power, .. } = &mut self.kind {
            *power = exponent.into_operand();
        }
        self
    }

    /// Lets a polynomial decay begin again after its end, over a longer and longer stretch.
    pub fn cycle(mut self, begin_again: bool) -> Self {
        if let Kind::Polynomial { cycle, .. } = &mut self.kind {
            *cycle = begin_again;
        }
        self
    }

    /// Which part of the learning rate a cosine decay ends at; 0 without.
    pub fn alpha(mut self, fraction: f64) -> Self {
        if let Kind::Cosine { alpha } = &mut self.kind {
            *alpha = fraction;
        }
        self
    }

    /// Names it.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes it: a scalar of the learning rate's dtype.
    ///
    /// # Errors
    /// The operands' own, or those of making nodes.
    pub fn build(mut self) -> Result<Tensor> {
        crate::install();
        let operands = [&self.initial, &self.step, &self.decay_steps];
        let graph = operands.iter().find_map(|operand| operand.graph().cloned());
        let graph = graph.unwrap_or_else(Graph::current);
        let _default = graph.as_default();
        if let Kind::NaturalExponential { rate } = &self.kind {
            let negated = OpBuilder::new("Neg").input(float(rate)?).build()?;
            let rate = OpBuilder::new("Exp").input(negated).build()?.into_operand();
            self.kind = Kind::Exponential { rate };
        }
        let default = match &self.kind {
            Kind::Exponential { .. } | Kind::NaturalExponential { .. } => "ExponentialDecay",
            Kind::InverseTime { .. } => "InverseTimeDecay",
            Kind::Polynomial { .. } => "PolynomialDecay",
            Kind::Cosine { .. } => "CosineDecay",
        };
        let scope = name_scope_in(&graph, self.name.as_deref().unwrap_or(default))?;
        let initial = self
            .initial
            .to_tensor(&graph, "initial_learning_rate", Some(DType::Float32))?;
        let nodes = Nodes {
            graph,
            scope,
            dtype: initial.dtype(),
            initial,
        };
        match &self.kind {
            Kind::Exponential { rate } | Kind::NaturalExponential { rate } => nodes.exponential(&self, rate),
            Kind::InverseTime { rate } => nodes.inverse_time(&self, rate),
            Kind::Polynomial { end, power, cycle } => nodes.polynomial(&self, end, power, *cycle),
            Kind::Cosine { alpha } => nodes.cosine(&self, *alpha),
        }
    }
}

impl IntoOperand for Decay {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// Numbers as `float`.
fn float(operand: &Operand) -> Result<Operand> {
    Ok(match operand {
        Operand::Number(value) => Operand::Number(value.cast_exactly(DType::Float32)?),
        other => other.clone(),
    })
}

/// A schedule's nodes, in its scope.
struct Nodes {
    graph: Graph,
    scope: ScopeGuard,
    dtype: DType,
    initial: Tensor,
}

impl Nodes {
    /// As `tf.cast`: a tensor of the dtype is itself; numbers become constants of their own kind first.
    fn cast(&self, operand: &Operand) -> Result<Tensor> {
        if let Operand::Tensor(tensor) = operand
            && tensor.dtype() == self.dtype
        {
            return Ok(tensor.clone());
        }
        let scope = name_scope_in(&self.graph, "Cast")?;
        let tensor = match operand {
            Operand::Number(value) if value.dtype().is_integer() => value.cast_exactly(DType::Int32)?.into_operand(),
            other => float(other)?,
        }
        .to_tensor(&self.graph, "x", None)?;
        if tensor.dtype() == self.dtype {
            return Ok(tensor);
        }
        let cast = OpBuilder::new("Cast").input(tensor).attr("DstT", self.dtype);
        cast.name(scope.scope_name()).build()
    }

    fn node(&self, op: &str, name: &str, inputs: &[&dyn AsOperand]) -> Result<Tensor> {
        let node = inputs
            .iter()
            .fold(OpBuilder::new(op), |node, input| node.input(input.operand()));
        node.name(name).build()
    }

    /// `step / decay_steps`, rounded down if asked for.
    fn progress(&self, decay: &Decay, decay_steps: &Tensor) -> Result<Tensor> {
        let step = self.cast(&decay.step)?;
        let progress = self.node("RealDiv", "truediv", &[&step, decay_steps])?;
        if decay.staircase {
            self.node("Floor", "Floor", &[&progress])
        } else {
            Ok(progress)
        }
    }

    fn exponential(self, decay: &Decay, rate: &Operand) -> Result<Tensor> {
        let (decay_steps, rate) = (self.cast(&decay.decay_steps)?, self.cast(rate)?);
        let progress = self.progress(decay, &decay_steps)?;
        let power = self.node("Pow", "Pow", &[&rate, &progress])?;
        self.node("Mul", &self.scope.scope_name(), &[&self.initial, &power])
    }

    fn inverse_time(self, decay: &Decay, rate: &Operand) -> Result<Tensor> {
        let (decay_steps, rate) = (self.cast(&decay.decay_steps)?, self.cast(rate)?);
        let progress = self.progress(decay, &decay_steps)?;
        let one = crate::array::constant(Value::scalar(1i32)).build()?;
        let one = self.cast(&one.into_operand())?;
        let product = self.node("Mul", "Mul", &[&rate, &progress])?;
        let divisor = self.node("Add", "Add", &[&one, &product])?;
        self.node("RealDiv", &self.scope.scope_name(), &[&self.initial, &divisor])
    }

    fn polynomial(self, decay: &Decay, end: &Operand, power: &Operand, cycle: bool) -> Result<Tensor> {
        let (end, power) = (self.cast(end)?, self.cast(power)?);
        let mut step = self.cast(&decay.step)?;
        let mut decay_steps = self.cast(&decay.decay_steps)?;
        if cycle {
            let none = self.node("Equal", "Equal", &[&step, &0.0])?;
            let passed = self.node("RealDiv", "truediv", &[&step, &decay_steps])?;
            let passed = self.node("Ceil", "Ceil", &[&passed])?;
            let one = crate::array::constant(Value::scalar(1.0f64).cast_exactly(self.dtype)?).build()?;
            let times = self.node("Select", "Select", &[&none, &one, &passed])?;
            decay_steps = self.node("Mul", "Mul", &[&decay_steps, &times])?;
        } else {
            step = self.node("Minimum", "Minimum", &[&step, &decay_steps])?;
        }
        let progress = self.node("RealDiv", "truediv", &[&step, &decay_steps])?;
        let span = self.node("Sub", "sub", &[&self.initial, &end])?;
        let left = self.node("Sub", "sub", &[&1.0, &progress])?;
        let left = self.node("Pow", "Pow", &[&left, &power])?;
        let above = self.node("Mul", "Mul", &[&span, &left])?;
        self.node("Add", &self.scope.scope_name(), &[&above, &end])
    }

    fn cosine(self, decay: &Decay, alpha: f64) -> Result<Tensor> {
        let decay_steps = self.cast(&decay.decay_steps)?;
        let step = self.cast(&decay.step)?;
        let step = self.node("Minimum", "Minimum", &[&step, &decay_steps])?;
        let fraction = self.node("RealDiv", "truediv", &[&step, &decay_steps])?;
        let pi = Value::scalar(std::f64::consts::PI).cast_exactly(self.dtype)?;
        let angle = self.node("Mul", "mul", &[&crate::array::constant(pi).build()?, &fraction])?;
        let cosine = self.node("Cos", "Cos", &[&angle])?;
        let raised = self.node("AddV2", "add", &[&1.0, &cosine])?;
        let halved = self.node("Mul", "mul", &[&0.5, &raised])?;
        let scaled = self.node("Mul", "mul", &[&(1.0 - alpha), &halved])?;
        let decayed = self.node("AddV2", "add", &[&scaled, &alpha])?;
        self.node("Mul", "Mul", &[&self.initial, &decayed])
    }
}

/// Tensors and numbers side by side.
trait AsOperand {
    fn operand(&self) -> Operand;
}

impl AsOperand for Tensor {
    fn operand(&self) -> Operand {
        self.into_operand()
    }
}

impl AsOperand for f64 {
    fn operand(&self) -> Operand {
        self.into_operand()
    }
}

/// A learning rate that is `values[i]` while the step is above `boundaries[i - 1]` and at most `boundaries[i]`.
///
/// TensorFlow builds the choice as nested conditionals; here it is a chain of selections with the same result.
///
/// # Errors
/// `InvalidArgument` unless there is one value more than boundaries, and at least one boundary.
pub fn piecewise_constant(
    global_step: impl IntoOperand,
    boundaries: &[i64],
    values: &[f32],
    name: Option<&str>,
) -> Result<Tensor> {
    if boundaries.is_empty() || boundaries.len() + 1 != values.len() {
        return Err(Error::invalid_argument(
            "The length of boundaries should be 1 less than the length of values, and at least 1",
        )
        .got(format!("{} boundaries and {} values", boundaries.len(), values.len())));
    }
    crate::install();
    let step = global_step.into_operand();
    let graph = step.graph().cloned().unwrap_or_else(Graph::current);
    let _default = graph.as_default();
    let _scope = name_scope_in(&graph, name.unwrap_or("PiecewiseConstant"))?;
    let step = step.to_tensor(&graph, "x", None)?;
    let mut rate = crate::array::constant(values[values.len() - 1]).build()?;
    for (&boundary, &value) in boundaries.iter().zip(values).rev() {
        let boundary = Value::scalar(boundary).cast_exactly(step.dtype())?;
        let within = OpBuilder::new("LessEqual").input(&step).input(boundary).build()?;
        let value = crate::array::constant(value).build()?;
        rate = OpBuilder::new("Select")
            .input(within)
            .input(value)
            .input(rate)
            .build()?;
    }
    Ok(rate)
}
