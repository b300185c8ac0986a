//! Dense layers: products of matrices with what follows them.

use graph_core::graph::{NodeId, TensorId};
use graph_core::rewrite::Program;

use super::parts::{copied, each, fits, fused, made_by};
use super::{Fused, Fusion, Serves, Uses, elementwise};
use crate::nn::fused as ops;

/// `Relu(BiasAdd(MatMul(...)))` in one operation that finishes each part of the product while it is in the cache; also without
/// the activation.
pub(crate) const DENSE_LAYERS: Fusion = Fusion {
    name: "matmul_fusion",
    serves: Serves::All,
    find: |program, uses| each(program, "BiasAdd", |id| dense_layer(program, uses, id)),
};

fn dense_layer(program: &Program, uses: &Uses, bias_add: NodeId) -> Option<Fused> {
    if !fits(program, uses, bias_add) {
        return None;
    }
    let product = made_by(program, uses, program.node(bias_add).inputs[0], "MatMul")?;
    let sum = TensorId::new(bias_add, 0);
    let next = uses.only(sum);
    let relu = next.filter(|&id| program.node(id).op() == "Relu" && fits(program, uses, id));
    // Where a chain follows, adding the bias costs nothing there.
    if relu.is_none() && next.is_some_and(|id| elementwise::part(program, id).is_some() && !uses.stays(id)) {
        return None;
    }
    let node = program.node(product);
    let mut attrs = copied(&node.attrs, &["transpose_a", "transpose_b"]);
    attrs.set("relu", relu.is_some());
    let inputs = vec![node.inputs[0], node.inputs[1], program.node(bias_add).inputs[1]];
    let outputs = vec![TensorId::new(relu.unwrap_or(bias_add), 0)];
    Some(fused(program, ops::mat_mul(), attrs, inputs, outputs))
}
