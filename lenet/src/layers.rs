//! The layers of the network.
//!
//! A layer is called with its input and returns a builder for the rest, as Python's keyword arguments would give it; each
//! opens a variable scope of its own name. Layers with parameters return them beside their output. The layers that take
//! nothing but an input and a name are plain functions: the names that the tutorial has for them are `lrn`, `dropout`,
//! `flatten`, `unflatten` and `softmax`.

use graph_core::graph::IntoOperand;
use graph_core::{Error as GraphError, Tensor, Variable};
use graph_ops::state::variable_scope;
use graph_ops::{array, math, nn, summary};

use crate::error::Result;
use crate::support::{initializer, visualize_filters};

/// What a layer applies to the sum of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// max(x, 0)
    #[default]
    Relu,
    /// x
    Identity,
}

/// What a layer learns: its weights and its bias.
pub type Parameters = [Variable; 2];

fn known_dim(input: &Tensor, axis: usize, layer: &str) -> Result<usize> {
    Ok(input.shape().dim(axis).ok_or_else(|| {
        GraphError::invalid_argument(format!("the layer '{layer}' must know dimension {axis} of its input"))
            .got(format!("{input:?}"))
    })?)
}

/// A dot-product layer about to be built; see [`dot_product_layer`].
#[must_use = "a layer is made by `build`"]
pub struct DotProductLayer<'a> {
    input: &'a Tensor,
    params: Option<Parameters>,
    neurons: usize,
    name: String,
    activation: Activation,
}

/// A fully connected layer: activation(input weights + bias), from [batch, inputs] to [batch, neurons]. 1200 neurons, scope
/// `fc` and ReLU unless told otherwise.
pub fn dot_product_layer(input: &Tensor) -> DotProductLayer<'_> {
    DotProductLayer {
        input,
        params: None,
        neurons: 1200,
        name: "fc".into(),
        activation: Activation::Relu,
    }
}

impl DotProductLayer<'_> {
    /// Shares the parameters of another layer in place of making new ones.
    pub fn params(mut self, params: &Parameters) -> Self {
        self.params = Some(params.clone());
        self
    }

    /// The number of neurons.
    pub fn neurons(mut self, neurons: usize) -> Self {
        self.neurons = neurons;
        self
    }

    /// The scope.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// The activation.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Builds the layer: its output and its parameters.
    ///
    /// # Errors
    /// An input that is not a matrix, or parameters that do not fit it.
    pub fn build(self) -> Result<(Tensor, Parameters)> {
        let _scope = variable_scope(self.name.as_str())?;
        let [weights, bias] = match self.params {
            Some(params) => params,
            None => {
                let inputs = known_dim(self.input, 1, &self.name)?;
                new_parameters([inputs, self.neurons])?
            }
        };
        let dot = math::matmul(self.input, &weights).name("dot").build()?;
        let pre_activation = nn::bias_add(dot, &bias).name("pre-activation").build()?;
        let activity = activate(pre_activation, self.activation)?;
        summarize(&weights, &bias, &activity)?;
        Ok((activity, [weights, bias]))
    }
}

/// A convolution layer about to be built; see [`conv_2d_layer`].
#[must_use = "a layer is made by `build`"]
pub struct Conv2dLayer<'a> {
    input: &'a Tensor,
    params: Option<Parameters>,
    neurons: usize,
    filter_size: (usize, usize),
    stride: [i64; 4],
    padding: String,
    name: String,
    activation: Activation,
    visualize: bool,
}

/// A convolution layer: activation(input * filters + bias), from [batch, height, width, channels] to as many channels as
/// there are neurons. 20 neurons with filters of 5 x 5, stride 1, padding `VALID`, scope `conv` and ReLU unless told otherwise.
pub fn conv_2d_layer(input: &Tensor) -> Conv2dLayer<'_> {
    Conv2dLayer {
        input,
        params: None,
        neurons: 20,
        filter_size: (5, 5),
        stride: [1, 1, 1, 1],
        padding: "VALID".into(),
        name: "conv".into(),
        activation: Activation::Relu,
        visualize: false,
    }
}

impl Conv2dLayer<'_> {
    /// Shares the parameters of another layer in place of making new ones.
    pub fn params(mut self, params: &Parameters) -> Self {
        self.params = Some(params.clone());
        self
    }

    /// The number of filters.
    pub fn neurons(mut self, neurons: usize) -> Self {
        self.neurons = neurons;
        self
    }

    /// Height and width of the filters.
    pub fn filter_size(mut self, size: (usize, usize)) -> Self {
        self.filter_size = size;
        self
    }

    /// The stride of each of the four dimensions.
    pub fn stride(mut self, stride: [i64; 4]) -> Self {
        self.stride = stride;
        self
    }

    /// `VALID` or `SAME`.
    pub fn padding(mut self, padding: &str) -> Self {
        self.padding = padding.to_owned();
        self
    }

    /// The scope.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// The activation.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Whether the filters join the image summaries; useful for the first layer.
    pub fn visualize(mut self, visualize: bool) -> Self {
        self.visualize = visualize;
        self
    }

    /// Builds the layer: its output and its parameters.
    ///
    /// # Errors
    /// An input that is not of rank 4, filters larger than it, or parameters that do not fit it.
    pub fn build(self) -> Result<(Tensor, Parameters)> {
        let _scope = variable_scope(self.name.as_str())?;
        let [weights, bias] = match self.params {
            Some(params) => params,
            None => {
                let channels = known_dim(self.input, 3, &self.name)?;
                let (height, width) = self.filter_size;
                new_parameters([height, width, channels, self.neurons])?
            }
        };
        let convolved = nn::conv2d(self.input, &weights)
            .strides(self.stride)
            .padding(&self.padding)
            .name(self.name.as_str())
            .build()?;
        let pre_activation = nn::bias_add(convolved, &bias).name("pre-activation").build()?;
        let activity = activate(pre_activation, self.activation)?;
        summarize(&weights, &bias, &activity)?;
        if self.visualize {
            visualize_filters(&weights, &format!("filters_{}", self.name))?;
        }
        Ok((activity, [weights, bias]))
    }
}

fn new_parameters<const N: usize>(shape: [usize; N]) -> Result<Parameters> {
    let weights = Variable::new(initializer(shape, "xavier_weights")?)
        .name("weights")
        .build()?;
    let bias = Variable::new(initializer([shape[N - 1]], "xavier_bias")?)
        .name("bias")
        .build()?;
    Ok([weights, bias])
}

fn activate(pre_activation: Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Relu => Ok(nn::relu(pre_activation).name("activity").build()?),
        Activation::Identity => Ok(pre_activation),
    }
}

fn summarize(weights: &Variable, bias: &Variable, activity: &Tensor) -> Result<()> {
    summary::histogram("weights", weights).build()?;
    summary::histogram("bias", bias).build()?;
    summary::histogram("activity", activity).build()?;
    Ok(())
}

/// A pooling layer about to be built; see [`max_pool_2d_layer`].
#[must_use = "a layer is made by `build`"]
pub struct MaxPool2dLayer<'a> {
    input: &'a Tensor,
    pool_size: [i64; 4],
    stride: [i64; 4],
    padding: String,
    name: String,
}

/// A layer that keeps the largest value of each window. Windows of 2 x 2 side by side, padding `VALID` and scope `pool`
/// unless told otherwise.
pub fn max_pool_2d_layer(input: &Tensor) -> MaxPool2dLayer<'_> {
    MaxPool2dLayer {
        input,
        pool_size: [1, 2, 2, 1],
        stride: [1, 2, 2, 1],
        padding: "VALID".into(),
        name: "pool".into(),
    }
}

impl MaxPool2dLayer<'_> {
    /// The size of the windows in each of the four dimensions.
    pub fn pool_size(mut self, size: [i64; 4]) -> Self {
        self.pool_size = size;
        self
    }

    /// The distance of the windows in each of the four dimensions.
    pub fn stride(mut self, stride: [i64; 4]) -> Self {
        self.stride = stride;
        self
    }

    /// `VALID` or `SAME`.
    pub fn padding(mut self, padding: &str) -> Self {
        self.padding = padding.to_owned();
        self
    }

    /// The scope.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// An input that is not of rank 4, or windows that do not fit it.
    pub fn build(self) -> Result<Tensor> {
        let _scope = variable_scope(self.name.as_str())?;
        Ok(nn::max_pool(self.input)
            .ksize(self.pool_size)
            .strides(self.stride)
            .padding(&self.padding)
            .name(self.name.as_str())
            .build()?)
    }
}

/// Normalizes each activity by those at the same place in neighbouring channels, in the scope `name`.
///
/// # Errors
/// An input that is not of rank 4.
pub fn local_response_normalization_layer(input: &Tensor, name: &str) -> Result<Tensor> {
    let _scope = variable_scope(name)?;
    Ok(nn::local_response_normalization(input).build()?)
}

/// Drops activities: keeps each with probability `prob`, scaled by 1/`prob`, in the scope `name`. Feed 1 to keep all.
///
/// # Errors
/// A probability outside (0, 1], where it is a number.
pub fn dropout_layer(input: &Tensor, prob: impl IntoOperand, name: &str) -> Result<Tensor> {
    let _scope = variable_scope(name)?;
    Ok(nn::dropout(input, prob).build()?)
}

/// Turns each image [height, width, channels] of a block into one row, in the scope `name`.
///
/// # Errors
/// An input that is not of rank 4 or whose images' size is not known.
pub fn flatten_layer(input: &Tensor, name: &str) -> Result<Tensor> {
    let _scope = variable_scope(name)?;
    let pixels = known_dim(input, 1, name)? * known_dim(input, 2, name)? * known_dim(input, 3, name)?;
    Ok(array::reshape(input, [-1, pixels as i32]).build()?)
}

/// Turns each row of a matrix into a square image of `channels` channels, in the scope `name`.
///
/// # Errors
/// Rows of unknown length, or of one that makes no square.
pub fn unflatten_layer(input: &Tensor, channels: usize, name: &str) -> Result<Tensor> {
    let _scope = variable_scope(name)?;
    let pixels = known_dim(input, 1, name)?;
    let side = pixels.checked_div(channels).map_or(0, usize::isqrt);
    if channels == 0 || side * side * channels != pixels {
        return Err(
            GraphError::invalid_argument(format!("rows of {pixels} make no square images"))
                .expected(format!("a square number times {channels} channels"))
                .into(),
        );
    }
    Ok(array::reshape(input, [-1, side as i32, side as i32, channels as i32]).build()?)
}

/// Probabilities and predicted classes of logits [batch, classes], in the scope `name`: the softmax [batch, classes], and
/// the index of its largest element [batch], `int64`.
///
/// # Errors
/// An input that is not a matrix.
pub fn softmax_layer(input: &Tensor, name: &str) -> Result<(Tensor, Tensor)> {
    let _scope = variable_scope(name)?;
    let inference = nn::softmax(input).name("inference").build()?;
    let predictions = math::argmax(&inference, 1).name("predictions").build()?;
    Ok((inference, predictions))
}
