//! Loss scales: what a loss is multiplied by so that its gradients do not vanish in dtypes of little range.
//!
//! Names, order and rule of update are those of `tf.train.experimental` of TensorFlow 1.15.

use graph_core::graph::IntoOperand;
use graph_core::{DType, Error, Operation, Result, Tensor, Variable};

use crate::control::{BranchPart, BranchValue, cond, group, no_op};
use crate::math::{greater_equal, is_finite, maximum, reduce_all};
use crate::state::{assign, assign_add};

/// What a loss is multiplied by, and how that changes from step to step.
pub trait LossScale {
    /// The scale of this step, a `float` scalar.
    ///
    /// # Errors
    /// Those of making nodes.
    fn value(&self) -> Result<Tensor>;

    /// Whether it changes with the gradients, so that a step whose gradients are not all finite is left out.
    fn is_dynamic(&self) -> bool;

    /// The operation that changes the scale by these gradients (already divided by it), and a `bool` scalar: whether they may
    /// be applied; `None` for always.
    ///
    /// # Errors
    /// Those of making nodes.
    fn update(&self, gradients: &[&Tensor]) -> Result<(Operation, Option<Tensor>)>;

    /// The variables that it keeps.
    fn variables(&self) -> Vec<Variable>;
}

/// A scale that stays as it is.
///
/// ```
/// use graph_ops::train::FixedLossScale;
/// FixedLossScale::new(128.0)?;
/// assert!(FixedLossScale::new(0.5).is_err());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FixedLossScale(f32);

impl FixedLossScale {
    /// A scale of this value.
    ///
    /// # Errors
    /// `InvalidArgument` for a value below 1 or none.
    pub fn new(value: f64) -> Result<Self> {
        if value >= 1.0 && (value as f32).is_finite() {
            return Ok(Self(value as f32));
        }
        Err(Error::invalid_argument("a loss scale must be a number of at least 1").got(value))
    }
}

impl LossScale for FixedLossScale {
    fn value(&self) -> Result<Tensor> {
        crate::array::constant(self.0).build()
    }

    fn is_dynamic(&self) -> bool {
        false
    }

    fn update(&self, _: &[&Tensor]) -> Result<(Operation, Option<Tensor>)> {
        Ok((no_op("")?, None))
    }

    fn variables(&self) -> Vec<Variable> {
        Vec::new()
    }
}

/// A scale that looks for the largest with which gradients stay finite: after so many steps of finite gradients in a row
/// (2000 without [`DynamicLossScale::increment_period`]) it is multiplied by a number (2), and where a gradient is not finite
/// it is divided by that, down to 1, and the step is left out.
///
/// It keeps two resource variables, `current_loss_scale` (`float`) and `good_steps` (`int64`), the steps since the last
/// change.
///
/// ```
/// use graph_ops::train::{DynamicLossScale, LossScale};
/// let scale = DynamicLossScale::new().initial_loss_scale(1024.0).increment_period(100).build()?;
/// assert_eq!(scale.variables()[0].name(), "current_loss_scale:0");
/// # Ok::<(), graph_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DynamicLossScale {
    increment_period: i64,
    multiplier: f32,
    current: Variable,
    good_steps: Variable,
}

/// A [`DynamicLossScale`] about to be made.
#[derive(Clone, Copy, Debug)]
#[must_use = "the scale is made by `build`"]
pub struct DynamicLossScaleBuilder {
    initial_loss_scale: f64,
    increment_period: i64,
    multiplier: f64,
}

impl DynamicLossScale {
    /// Begins a scale that starts at 2^15, which is half of what an `f16` can be.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> DynamicLossScaleBuilder {
        DynamicLossScaleBuilder {
            initial_loss_scale: 32_768.0,
            increment_period: 2_000,
            multiplier: 2.0,
        }
    }

    /// The variable that holds the scale.
    pub fn current_loss_scale(&self) -> &Variable {
        &self.current
    }

    /// The variable that counts the steps of finite gradients since the scale last changed.
    pub fn num_good_steps(&self) -> &Variable {
        &self.good_steps
    }

    /// Sets the scale unless it would not be finite.
    fn assign_if_finite(&self, value: &Tensor) -> Result<Operation> {
        cond(
            is_finite(value),
            || Ok(assign(&self.current, value).build_with_operation()?.0),
            || no_op(""),
        )
        .build()
    }

    fn restart_count(&self) -> Result<Operation> {
        Ok(assign(&self.good_steps, 0i64).build_with_operation()?.0)
    }

    fn grow(&self) -> Result<Operation> {
        let larger = (self.current.read_value()? * self.multiplier)?;
        let grown = self.assign_if_finite(&larger)?;
        group([grown, self.restart_count()?], "")
    }

    fn after_finite_gradients(&self) -> Result<Chosen> {
        let steps = (self.good_steps.read_value()? + 1i64)?;
        cond(
            greater_equal(steps, self.increment_period),
            || self.grow(),
            || Ok(assign_add(&self.good_steps, 1i64).build_with_operation()?.0),
        )
        .build()
        .map(Chosen)
    }

    fn after_other_gradients(&self) -> Result<Operation> {
        let smaller = (self.current.read_value()? / self.multiplier)?;
        let smaller = maximum(smaller, 1.0f32).build()?;
        let restarted = self.restart_count()?;
        let shrunk = assign(&self.current, smaller).build_with_operation()?.0;
        group([restarted, shrunk], "")
    }
}

/// What the branches of a `cond` merged into: a branch around it gives that as it is, as TensorFlow does, with no node that
/// waits for it.
struct Chosen(Operation);

impl BranchValue for Chosen {
    type Merged = Operation;

    fn into_part(self) -> BranchPart {
        BranchPart::Value(self.0.output(0).into_operand())
    }

    fn merged(tensor: Tensor) -> Operation {
        tensor.op()
    }
}

impl DynamicLossScaleBuilder {
    /// The scale of the first step; 2^15 without.
    pub fn initial_loss_scale(mut self, scale: f64) -> Self {
        self.initial_loss_scale = scale;
        self
    }

    /// After how many steps of finite gradients in a row the scale grows; 2000 without.
    pub fn increment_period(mut self, steps: i64) -> Self {
        self.increment_period = steps;
        self
    }

    /// What the scale is multiplied and divided by; 2 without.
    pub fn multiplier(mut self, multiplier: f64) -> Self {
        self.multiplier = multiplier;
        self
    }

    /// Makes the scale's variables.
    ///
    /// # Errors
    /// Those of making variables.
    pub fn build(self) -> Result<DynamicLossScale> {
        crate::install();
        let current = Variable::new(self.initial_loss_scale as f32).dtype(DType::Float32);
        let current = current.name("current_loss_scale").trainable(false).use_resource(true);
        let good_steps = Variable::new(0i64).dtype(DType::Int64);
        let good_steps = good_steps.name("good_steps").trainable(false).use_resource(true);
        Ok(DynamicLossScale {
            increment_period: self.increment_period,
            multiplier: self.multiplier as f32,
            current: current.build()?,
            good_steps: good_steps.build()?,
        })
    }
}

impl LossScale for DynamicLossScale {
    fn value(&self) -> Result<Tensor> {
        self.current.read_value()
    }

    fn is_dynamic(&self) -> bool {
        true
    }

    fn update(&self, gradients: &[&Tensor]) -> Result<(Operation, Option<Tensor>)> {
        let finite = |gradient: &&Tensor| reduce_all(is_finite(*gradient)).build();
        let finite: Vec<Tensor> = gradients.iter().map(finite).collect::<Result<_>>()?;
        let all_finite = reduce_all(finite).build()?;
        let update = cond(
            &all_finite,
            || self.after_finite_gradients(),
            || self.after_other_gradients(),
        )
        .build()?;
        Ok((update, Some(all_finite)))
    }

    fn variables(&self) -> Vec<Variable> {
        vec![self.current.clone(), self.good_steps.clone()]
    }
}

/// What says which loss scale an optimizer uses: a [`LossScale`], a number for a [`FixedLossScale`], or `"dynamic"` for a
/// [`DynamicLossScale`] as it is without options.
pub trait IntoLossScale {
    /// The loss scale.
    ///
    /// # Errors
    /// `InvalidArgument` for another word or a number below 1; those of making variables.
    fn into_loss_scale(self) -> Result<Box<dyn LossScale>>;
}

impl<S: LossScale + 'static> IntoLossScale for S {
    fn into_loss_scale(self) -> Result<Box<dyn LossScale>> {
        Ok(Box::new(self))
    }
}

impl IntoLossScale for f64 {
    fn into_loss_scale(self) -> Result<Box<dyn LossScale>> {
        FixedLossScale::new(self)?.into_loss_scale()
    }
}

impl IntoLossScale for i32 {
    fn into_loss_scale(self) -> Result<Box<dyn LossScale>> {
        f64::from(self).into_loss_scale()
    }
}

impl IntoLossScale for &str {
    fn into_loss_scale(self) -> Result<Box<dyn LossScale>> {
        match self {
            "dynamic" => DynamicLossScale::new().build()?.into_loss_scale(),
            other => Err(Error::invalid_argument("this is no loss scale")
                .expected("'dynamic', or a number of at least 1")
                .got(format!("'{other}'"))),
        }
    }
}
