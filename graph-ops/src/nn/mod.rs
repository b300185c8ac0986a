//! Neural networks.

mod activation;
mod avg_pool;
mod batch_norm;
#[cfg(feature = "full")]
mod batch_norm_global;
mod batch_norm_second;
mod bias_add;
mod conv2d;
#[cfg(feature = "full")]
mod conv3d;
mod conv_variants;
mod cross_entropy;
mod depthwise;
#[cfg(feature = "full")]
mod dilation;
mod dropout;
pub(crate) mod fused;
mod fused_on_device;
#[cfg(feature = "full")]
mod gru;
mod l2_loss;
mod layers;
mod lrn;
#[cfg(feature = "full")]
mod lstm;
mod max_pool;
mod max_pool_argmax;
mod moments;
mod nth_element;
#[cfg(feature = "full")]
mod pool3d;
mod pooling;
#[cfg(feature = "full")]
mod recurrent;
mod softmax;
mod sparse_cross_entropy;
mod top_k;
#[cfg(feature = "full")]
mod volumes;
mod windows;

pub use crate::math::{sigmoid, tanh};
pub use activation::{LeakyRelu, elu, leaky_relu, relu, relu6, selu, softplus, softsign};
pub use avg_pool::{AvgPool, avg_pool};
pub use batch_norm::{FusedBatchNorm, fused_batch_norm};
#[cfg(feature = "full")]
pub use batch_norm_global::{GlobalBatchNorm, batch_norm_with_global_normalization};
pub use bias_add::{BiasAdd, bias_add};
pub use conv_variants::{Conv1d, Conv2dTranspose, conv1d, conv2d_transpose};
pub use conv2d::{Conv2d, conv2d, conv2d_backprop_filter, conv2d_backprop_input};
#[cfg(feature = "full")]
pub use conv3d::{Conv3d, conv3d, conv3d_transpose};
pub use cross_entropy::{SoftmaxCrossEntropy, softmax_cross_entropy_with_logits, softmax_cross_entropy_with_logits_v2};
pub use depthwise::{
    DepthwiseConv2dNative, SeparableConv2d, depthwise_conv2d, depthwise_conv2d_native,
    depthwise_conv2d_native_backprop_filter, depthwise_conv2d_native_backprop_input, separable_conv2d,
};
#[cfg(feature = "full")]
pub use dilation::{Dilation2d, dilation2d};
pub use dropout::{Dropout, dropout};
#[cfg(feature = "full")]
pub use gru::{GruBlockCell, GruVariables, gru_block_cell};
pub use l2_loss::{L2Loss, l2_loss};
pub use layers::{
    BatchNormalization, ReluLayer, SigmoidCrossEntropy, WeightedCrossEntropy, XwPlusB, batch_normalization, relu_layer,
    sigmoid_cross_entropy_with_logits, weighted_cross_entropy_with_logits, xw_plus_b,
};
pub use lrn::{LocalResponseNormalization, local_response_normalization, lrn};
#[cfg(feature = "full")]
pub use lstm::{LstmBlockCell, LstmVariables, block_lstm, lstm_block_cell};
pub use max_pool::{MaxPool, max_pool};
pub use max_pool_argmax::{MaxPoolWithArgmax, max_pool_with_argmax};
pub use moments::{L2Normalize, Moments, l2_normalize, moments};
pub use nth_element::{NthElement, nth_element};
#[cfg(feature = "full")]
pub use pool3d::{Pool3d, avg_pool3d, max_pool3d};
pub use softmax::{Softmax, log_softmax, softmax};
pub use sparse_cross_entropy::{SparseSoftmaxCrossEntropy, sparse_softmax_cross_entropy_with_logits};
pub use top_k::{InTopK, TopK, in_top_k, top_k};

use graph_core::op::OpDefinition;

#[cfg(test)]
use crate::testing::{Case, GradientCase};

/// The family's op definitions.
pub(crate) const OPS: &[fn() -> OpDefinition] = &[
    l2_loss::definition,
    nth_element::definition,
    top_k::top_k_v1,
    top_k::top_k_v2,
    top_k::in_top_k_v1,
    top_k::in_top_k_v2,
    activation::relu_op,
    activation::relu_grad,
    activation::relu6_op,
    activation::relu6_grad,
    activation::leaky_relu_op,
    activation::leaky_relu_grad,
    activation::elu_op,
    activation::elu_grad,
    activation::selu_op,
    activation::selu_grad,
    activation::softplus_op,
    activation::softplus_grad,
    activation::softsign_op,
    activation::softsign_grad,
    avg_pool::avg_pool_definition,
    avg_pool::avg_pool_grad_definition,
    batch_norm::v1,
    batch_norm::v2,
    batch_norm::v3,
    batch_norm::grad_v1,
    batch_norm::grad_v2,
    batch_norm::grad_v3,
    bias_add::bias_add_definition,
    bias_add::bias_add_v1_definition,
    bias_add::bias_add_grad_definition,
    conv2d::forward,
    conv2d::backprop_input,
    conv2d::backprop_filter,
    cross_entropy::definition,
    depthwise::forward_definition,
    depthwise::backprop_input_definition,
    depthwise::backprop_filter_definition,
    lrn::lrn_definition,
    lrn::lrn_grad_definition,
    max_pool::max_pool_definition,
    max_pool::max_pool_v2_definition,
    max_pool::max_pool_grad_definition,
    max_pool::max_pool_grad_v2_definition,
    max_pool::max_pool_grad_grad_definition,
    max_pool::max_pool_grad_grad_v2_definition,
    max_pool_argmax::forward_definition,
    max_pool_argmax::grad_definition,
    softmax::softmax_definition,
    softmax::log_softmax_definition,
    sparse_cross_entropy::definition,
];

/// Those that only the feature `full` has.
#[cfg(feature = "full")]
pub(crate) const MORE_OPS: &[fn() -> OpDefinition] = &[
    batch_norm_global::forward,
    batch_norm_global::backward,
    conv3d::forward,
    conv3d::backprop_input,
    conv3d::backprop_filter,
    conv3d::backprop_input_v1,
    conv3d::backprop_filter_v1,
    pool3d::avg_pool3d_op,
    pool3d::avg_pool3d_grad_op,
    pool3d::max_pool3d_op,
    pool3d::max_pool3d_grad_op,
    pool3d::max_pool3d_grad_grad_op,
    dilation::forward,
    dilation::backprop_input,
    dilation::backprop_filter,
    gru::cell,
    gru::cell_grad,
    lstm::cell,
    lstm::cell_grad,
    lstm::sequence,
    lstm::sequence_grad,
];

/// The family's numeric test cases.
#[cfg(test)]
pub(crate) const CASES: &[fn() -> Vec<Case>] = &[
    l2_loss::cases,
    nth_element::cases,
    top_k::cases,
    activation::cases,
    avg_pool::cases,
    batch_norm::cases,
    bias_add::cases,
    conv2d::cases,
    cross_entropy::cases,
    depthwise::cases,
    lrn::cases,
    max_pool::cases,
    max_pool_argmax::cases,
    softmax::cases,
    sparse_cross_entropy::cases,
];

/// The numeric test cases of those.
#[cfg(all(test, feature = "full"))]
pub(crate) const MORE_CASES: &[fn() -> Vec<Case>] = &[
    batch_norm_global::cases,
    conv3d::cases,
    pool3d::cases,
    dilation::cases,
    gru::cases,
    lstm::cases,
];

/// The family's gradient test cases.
#[cfg(test)]
pub(crate) const GRADIENT_CASES: &[fn() -> Vec<GradientCase>] = &[
    l2_loss::gradient_cases,
    nth_element::gradient_cases,
    top_k::gradient_cases,
    activation::gradient_cases,
    avg_pool::gradient_cases,
    batch_norm::gradient_cases,
    bias_add::gradient_cases,
    conv2d::gradient_cases,
    cross_entropy::gradient_cases,
    depthwise::gradient_cases,
    lrn::gradient_cases,
    max_pool::gradient_cases,
    max_pool_argmax::gradient_cases,
    softmax::gradient_cases,
    sparse_cross_entropy::gradient_cases,
];

/// The gradient test cases of those.
#[cfg(all(test, feature = "full"))]
pub(crate) const MORE_GRADIENT_CASES: &[fn() -> Vec<GradientCase>] = &[
    batch_norm_global::gradient_cases,
    conv3d::gradient_cases,
    pool3d::gradient_cases,
    dilation::gradient_cases,
    lstm::gradient_cases,
];
