//! Signatures: named inputs and outputs of a graph.

use graph_core::Tensor;
use graph_core::format::graph_def::shape_to_proto;
use graph_core::format::proto::tensor_info::Encoding;
use graph_core::format::proto::{SignatureDef, TensorInfo};

use super::signature_constants::PREDICT_METHOD_NAME;

/// A tensor as signatures name it, with its dtype and shape.
pub fn build_tensor_info(tensor: &Tensor) -> TensorInfo {
    TensorInfo {
        encoding: Some(Encoding::Name(tensor.name())),
        dtype: tensor.dtype() as i32,
        tensor_shape: Some(shape_to_proto(&tensor.shape())),
    }
}

/// A signature of these inputs and outputs, by the names that a caller uses, for a method of
/// [`signature_constants`](super::signature_constants).
pub fn build_signature_def<'a>(
    inputs: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    outputs: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    method_name: &str,
) -> SignatureDef {
    let info = |(name, tensor): (&str, &Tensor)| (name.to_owned(), build_tensor_info(tensor));
    SignatureDef {
        inputs: inputs.into_iter().map(info).collect(),
        outputs: outputs.into_iter().map(info).collect(),
        method_name: method_name.to_owned(),
        ..Default::default()
    }
}

/// A signature that predicts outputs from inputs.
pub fn predict_signature_def<'a>(
    inputs: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    outputs: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> SignatureDef {
    build_signature_def(inputs, outputs, PREDICT_METHOD_NAME)
}
