//! Initializers: how a variable's initial value is made from its shape and dtype.
//!
//! The formulas, node names and defaults are those of `tf.initializers` of TensorFlow 1.15. Every closure over a shape and a
//! dtype is an initializer too.

use graph_core::graph::{IntoOperand, Operand};
use graph_core::{DType, Error, Result, Shape, Tensor, Value};

use crate::array;
use crate::random::{random_normal, random_uniform, truncated_normal};

/// What makes initial values.
pub trait Initializer: Send + Sync {
    /// A tensor of this shape and dtype, in the current graph and scope.
    ///
    /// # Errors
    /// Those of building its nodes, and `InvalidArgument` for shapes and dtypes that the initializer cannot serve.
    fn initial_value(&self, shape: &Shape, dtype: DType) -> Result<Tensor>;
}

impl<F: Fn(&Shape, DType) -> Result<Tensor> + Send + Sync> Initializer for F {
    fn initial_value(&self, shape: &Shape, dtype: DType) -> Result<Tensor> {
        self(shape, dtype)
    }
}

fn dims(shape: &Shape) -> Value {
    Value::int32_vector(shape.iter().map(|&dim| dim as i32))
}

/// See [`zeros_initializer`].
#[derive(Clone, Copy, Debug)]
pub struct Zeros;

/// Zeros; `false` for `bool`, empty strings for `string`.
pub fn zeros_initializer() -> Zeros {
    Zeros
}

impl Initializer for Zeros {
    fn initial_value(&self, shape: &Shape, dtype: DType) -> Result<Tensor> {
        array::zeros(dims(shape)).dtype(dtype).build()
    }
}

/// See [`ones_initializer`].
#[derive(Clone, Copy, Debug)]
pub struct Ones;

/// Ones; `true` for `bool`.
pub fn ones_initializer() -> Ones {
    Ones
}

impl Initializer for Ones {
    fn initial_value(&self, shape: &Shape, dtype: DType) -> Result<Tensor> {
        array::ones(dims(shape)).dtype(dtype).build()
    }
}

/// See [`constant_initializer`].
#[derive(Clone, Debug)]
pub struct Constant(Operand);

/// These numbers: one, or a list of them. A list with fewer numbers than the variable has elements goes on with its last.
pub fn constant_initializer(value: impl IntoOperand) -> Constant {
    Constant(value.into_operand())
}

impl Initializer for Constant {
    fn initial_value(&self, shape: &Shape, dtype: DType) -> Result<Tensor> {
        let value = self
            .0
            .to_value(Some(dtype))?
            .ok_or_else(|| Error::invalid_argument("a constant initializer takes numbers, not tensors"))?
            .cast_exactly(dtype)?;
        let count = shape.num_elements();
        if value.num_elements() > count || (value.num_elements() == 0 && count > 0) {
            return Err(Error::invalid_argument(
                "a constant initializer has too many numbers for the variable, or none",
            )
            .expected(shape)
            .got(value.shape()));
        }
        let spread = if dtype == DType::String {
            let mut strings = value.as_strings()?.to_vec();
            let last = strings.last().cloned().unwrap_or_default();
            strings.resize(count, last);
            Value::from_strings(shape.clone(), strings)?
        } else {
            let mut bytes = value.bytes().to_vec();
            let size = dtype.size().unwrap_or(1);
            let last = bytes[bytes.len().saturating_sub(size)..].to_vec();
            bytes.extend(last.repeat(count - value.num_elements()));
            Value::from_bytes(dtype, shape.clone(), &bytes)?
        };
        array::constant(spread).name("Const").build()
    }
}

/// The distribution of a [`Random`] initializer, with two parameters.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Distribution {
    /// From the first to the second.
    Uniform(f64, f64),
    /// Mean and standard deviation.
    Normal(f64, f64),
    /// As normal; what lies two standard deviations or more from the mean is drawn again.
    Truncated(f64, f64),
}

impl Distribution {
    fn draw(self, shape: &Shape, dtype: DType, seed: Option<i64>) -> Result<Tensor> {
        if !dtype.is_floating() {
            return Err(Error::invalid_argument("a random initializer makes floating-point numbers").got(dtype));
        }
        let shape = dims(shape);
        match self {
            Self::Uniform(from, to) => {
                let draw = random_uniform(shape).minval(from).maxval(to).dtype(dtype);
                if let Some(seed) = seed { draw.seed(seed) } else { draw }.build()
            }
            Self::Normal(mean, stddev) => {
                let draw = random_normal(shape).mean(mean).stddev(stddev).dtype(dtype);
                if let Some(seed) = seed { draw.seed(seed) } else { draw }.build()
            }
            Self::Truncated(mean, stddev) => {
                let draw = truncated_normal(shape).mean(mean).stddev(stddev).dtype(dtype);
                if let Some(seed) = seed { draw.seed(seed) } else { draw }.build()
            }
        }
    }
}

/// See [`random_uniform_initializer`], [`random_normal_initializer`], [`truncated_normal_initializer`].
#[derive(Clone, Copy, Debug)]
pub struct Random {
    distribution: Distribution,
    seed: Option<i64>,
}

impl Random {
    /// The seed of its random op.
    pub fn seed(mut self, seed: i64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// Uniform random numbers, at least `minval` and below `maxval`.
pub fn random_uniform_initializer(minval: f64, maxval: f64) -> Random {
    Random {
        distribution: Distribution::Uniform(minval, maxval),
        seed: None,
    }
}

/// Normal random numbers.
pub fn random_normal_initializer(mean: f64, stddev: f64) -> Random {
    Random {
        distribution: Distribution::Normal(mean, stddev),
        seed: None,
    }
}

/// Normal random numbers, drawn again where they lie two standard deviations or more from the mean.
pub fn truncated_normal_initializer(mean: f64, stddev: f64) -> Random {
    Random {
        distribution: Distribution::Truncated(mean, stddev),
        seed: None,
    }
}

impl Initializer for Random {
    fn initial_value(&self, shape: &Shape, dtype: DType) -> Result<Tensor> {
        self.distribution.draw(shape, dtype, self.seed)
    }
}

/// Which size [`VarianceScaling`] divides by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fan {
    /// The number of inputs of a unit.
    In,
    /// The number of outputs of a unit.
    Out,
    /// Their mean.
    Average,
}

/// The distribution that [`VarianceScaling`] draws from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// Truncated normal, widened so that its standard deviation after truncation is the wanted one.
    TruncatedNormal,
    /// Normal.
    UntruncatedNormal,
    /// Uniform.
    Uniform,
}

/// Random numbers whose variance suits the size of the layer; see [`variance_scaling_initializer`].
#[derive(Clone, Copy, Debug)]
pub struct VarianceScaling {
    scale: f64,
    fan: Fan,
    spread: Spread,
    seed: Option<i64>,
}

/// Random numbers of variance `scale / n`, where n is the fan-in unless [`VarianceScaling::fan`] says otherwise; truncated
/// normal unless [`VarianceScaling::spread`] does.
pub fn variance_scaling_initializer(scale: f64) -> VarianceScaling {
    VarianceScaling {
        scale,
        fan: Fan::In,
        spread: Spread::TruncatedNormal,
        seed: None,
    }
}

/// Uniform with limits ±sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010), also known as Xavier's.
pub fn glorot_uniform_initializer() -> VarianceScaling {
    variance_scaling_initializer(1.0)
        .fan(Fan::Average)
        .spread(Spread::Uniform)
}

/// Truncated normal of standard deviation sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010).
pub fn glorot_normal_initializer() -> VarianceScaling {
    variance_scaling_initializer(1.0).fan(Fan::Average)
}

/// Uniform with limits ±sqrt(6 / fan_in) (He and others, 2015).
pub fn he_uniform_initializer() -> VarianceScaling {
    variance_scaling_initializer(2.0).spread(Spread::Uniform)
}

/// Truncated normal of standard deviation sqrt(2 / fan_in) (He and others, 2015).
pub fn he_normal_initializer() -> VarianceScaling {
    variance_scaling_initializer(2.0)
}

/// Uniform with limits ±sqrt(3 / fan_in) (LeCun and others, 1998).
pub fn lecun_uniform_initializer() -> VarianceScaling {
    variance_scaling_initializer(1.0).spread(Spread::Uniform)
}

/// Truncated normal of standard deviation sqrt(1 / fan_in) (LeCun and others, 1998).
pub fn lecun_normal_initializer() -> VarianceScaling {
    variance_scaling_initializer(1.0)
}

impl VarianceScaling {
    /// Which size the variance is divided by.
    pub fn fan(mut self, fan: Fan) -> Self {
        self.fan = fan;
        self
    }

    /// The distribution.
    pub fn spread(mut self, spread: Spread) -> Self {
        self.spread = spread;
        self
    }

    /// The seed of its random op.
    pub fn seed(mut self, seed: i64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// Inputs and outputs of a unit whose weights have this shape: the last two dimensions, times those before (the window of a
/// convolution).
fn fans(shape: &[usize]) -> (f64, f64) {
    match shape {
        [] => (1.0, 1.0),
        [len] => (*len as f64, *len as f64),
        [window @ .., inputs, outputs] => {
            let window: f64 = window.iter().map(|&dim| dim as f64).product();
            (*inputs as f64 * window, *outputs as f64 * window)
        }
    }
}

impl Initializer for VarianceScaling {
    fn initial_value(&self, shape: &Shape, dtype: DType) -> Result<Tensor> {
        if self.scale.is_nan() || self.scale <= 0.0 {
            return Err(Error::invalid_argument("the scale of a variance must be positive").got(self.scale));
        }
        let (inputs, outputs) = fans(shape);
        let size = match self.fan {
            Fan::In => inputs,
            Fan::Out => outputs,
            Fan::Average => (inputs + outputs) / 2.0,
        };
        let variance = self.scale / size.max(1.0);
        let distribution = match self.spread {
            // The standard deviation of the normal distribution cut at two.
            Spread::TruncatedNormal => Distribution::Truncated(0.0, variance.sqrt() / 0.879_625_661_034_239_8),
            Spread::UntruncatedNormal => Distribution::Normal(0.0, variance.sqrt()),
            Spread::Uniform => {
                let limit = (3.0 * variance).sqrt();
                Distribution::Uniform(-limit, limit)
            }
        };
        distribution.draw(shape, dtype, self.seed)
    }
}

/// Random numbers that keep the scale of what a layer is given; see [`uniform_unit_scaling_initializer`].
#[derive(Clone, Copy, Debug)]
pub struct UniformUnitScaling {
    factor: f64,
    seed: Option<i64>,
}

/// Uniform with limits ±factor * sqrt(3 / n), where n is the product of all dimensions but the last (Sussillo and Abbott,
/// 2014).
pub fn uniform_unit_scaling_initializer(factor: f64) -> UniformUnitScaling {
    UniformUnitScaling { factor, seed: None }
}

impl UniformUnitScaling {
    /// The seed of its random op.
    pub fn seed(mut self, seed: i64) -> Self {
        self.seed = Some(seed);
        self
    }
}

impl Initializer for UniformUnitScaling {
    fn initial_value(&self, shape: &Shape, dtype: DType) -> Result<Tensor> {
        let inputs: f64 = shape.iter().rev().skip(1).map(|&dim| dim as f64).product();
        let limit = (3.0 / inputs.max(1.0)).sqrt() * self.factor;
        Distribution::Uniform(-limit, limit).draw(shape, dtype, self.seed)
    }
}

/// See [`identity_initializer`].
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    gain: f64,
}

/// `gain` on the diagonal of a matrix, zeros elsewhere.
pub fn identity_initializer(gain: f64) -> Identity {
    Identity { gain }
}

impl Initializer for Identity {
    fn initial_value(&self, shape: &Shape, dtype: DType) -> Result<Tensor> {
        let &[rows, columns] = shape.dims() else {
            return Err(Error::invalid_argument("the identity initializer is for matrices").got(shape));
        };
        let mut numbers = vec![0.0f64; rows * columns];
        numbers
            .iter_mut()
            .step_by(columns + 1)
            .take(rows.min(columns))
            .for_each(|number| *number = self.gain);
        let value = Value::from_vec(shape.clone(), numbers)?.cast_exactly(dtype)?;
        array::constant(value).name("eye").build()
    }
}
