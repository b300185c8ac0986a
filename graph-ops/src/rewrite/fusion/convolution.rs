//! Convolutions with what follows them, and the way back through it.

use graph_core::DType;
use graph_core::graph::{Node, NodeId, OutputInfo, TensorId};
use graph_core::op::{AttrValue, Attributes, NameAttrList, OpDefinition};
use graph_core::rewrite::Program;

use super::{Fused, Fusion, Uses};
use crate::nn::fused as ops;

/// `MaxPool(Relu(BiasAdd(Conv2D(...))))` in one operation that goes image by image; also without the pool, and without
/// the activation.
pub(crate) const CONVOLUTIONS: Fusion = Fusion {
    name: "convolution_fusion",
    find: |program, uses| each(program, "BiasAdd", |id| fused_convolution(program, uses, id)),
};

/// `ReluGrad` of `MaxPoolGrad`, with `BiasAddGrad` of that, in one pass over the images.
pub(crate) const POOL_GRADIENTS: Fusion = Fusion {
    name: "pool_gradient_fusion",
    find: |program, uses| each(program, "ReluGrad", |id| fused_pool_gradient(program, uses, id)),
};

/// What `fuse` finds around each node of type `op`.
fn each(program: &Program, op: &str, fuse: impl Fn(NodeId) -> Option<Fused>) -> Vec<Fused> {
    let candidates = program.ids().filter(|&id| program.node(id).op() == op);
    candidates.filter_map(fuse).collect()
}

/// The operation of a definition whose attributes say the dtype and the shapes of its outputs.
fn fused(
    program: &Program,
    definition: &'static OpDefinition,
    mut attrs: Attributes,
    inputs: Vec<TensorId>,
    outputs: Vec<TensorId>,
) -> Fused {
    let first = outputs[0].node;
    let infos: Vec<OutputInfo> = outputs
        .iter()
        .map(|tensor| program.node(tensor.node).outputs[tensor.slot as usize].clone())
        .collect();
    attrs.set("T", infos[0].dtype);
    attrs.set(
        "shapes",
        infos.iter().map(|info| info.shape.clone()).collect::<Vec<_>>(),
    );
    let node = Node {
        definition,
        attrs,
        inputs: inputs.into_iter().collect(),
        control_inputs: Default::default(),
        outputs: infos.into_iter().collect(),
        ..program.node(first).clone()
    };
    Fused { node, first, outputs }
}

/// Whether the node may be fused: nothing but its data orders it, its numbers are `float` or `double` of known shape, and
/// its images' channels come last.
fn fits(program: &Program, uses: &Uses, id: NodeId) -> bool {
    let node = program.node(id);
    let output = &node.outputs[0];
    let references = node
        .inputs
        .iter()
        .any(|input| program.node(input.node).outputs[input.slot as usize].is_ref);
    !uses.stays(id)
        && !references
        && matches!(output.dtype, DType::Float32 | DType::Float64)
        && output.shape.is_fully_defined()
        && node
            .attrs
            .read::<String>("data_format")
            .map_or(true, |format| format == "NHWC")
}

/// The node of type `op` that makes `tensor`, if it may be fused with the only node that takes the tensor.
fn made_by(program: &Program, uses: &Uses, tensor: TensorId, op: &str) -> Option<NodeId> {
    let fits = program.node(tensor.node).op() == op && fits(program, uses, tensor.node);
    (fits && uses.only(tensor).is_some()).then_some(tensor.node)
}

/// A node of type `op` that takes `tensor` as its input 0 and may be fused.
fn taken_by(program: &Program, uses: &Uses, tensor: TensorId, op: &str) -> Option<NodeId> {
    let takes =
        |id: &NodeId| program.node(*id).op() == op && program.node(*id).inputs[0] == tensor && fits(program, uses, *id);
    let mut takers = uses.of(tensor).iter().copied();
    takers.find(takes).filter(|_| uses.on_one_device(tensor))
}

fn copied(from: &Attributes, names: &[&'static str]) -> Attributes {
    let mut attrs = Attributes::new();
    for name in names {
        if let Some(value) = from.get(name) {
            attrs.set(*name, value.clone());
        }
    }
    attrs
}

const CONVOLUTION: [&str; 5] = ["strides", "padding", "explicit_paddings", "data_format", "dilations"];
const POOL: [&str; 4] = ["ksize", "strides", "padding", "data_format"];

fn fused_convolution(program: &Program, uses: &Uses, bias_add: NodeId) -> Option<Fused> {
    if !fits(program, uses, bias_add) {
        return None;
    }
    let convolution = made_by(program, uses, program.node(bias_add).inputs[0], "Conv2D")?;
    let sum = TensorId::new(bias_add, 0);
    let relu = uses
        .only(sum)
        .filter(|&id| program.node(id).op() == "Relu" && fits(program, uses, id));
    let mut outputs = vec![TensorId::new(relu.unwrap_or(bias_add), 0)];
    let pool = relu
        .and_then(|_| taken_by(program, uses, outputs[0], "MaxPool"))
        .filter(|&pool| pools_pixels(program.node(pool)));
    let pool_attrs = pool.map(|pool| copied(&program.node(pool).attrs, &POOL));
    outputs.extend(pool.map(|pool| TensorId::new(pool, 0)));
    let node = program.node(convolution);
    let mut attrs = copied(&node.attrs, &CONVOLUTION);
    attrs.set("N", outputs.len() as i64);
    attrs.set("relu", relu.is_some());
    let pool = NameAttrList {
        name: "MaxPool".into(),
        attrs: pool_attrs.unwrap_or_default(),
    };
    attrs.set("pool", AttrValue::Func(Box::new(pool)));
    let inputs = vec![node.inputs[0], node.inputs[1], program.node(bias_add).inputs[1]];
    Some(fused(program, ops::conv2d(), attrs, inputs, outputs))
}

/// Whether a pool is over rows and columns only.
fn pools_pixels(node: &Node) -> bool {
    let ones = |name: &str| {
        let sizes = node.attrs.read::<Vec<i64>>(name);
        sizes.is_ok_and(|sizes| matches!(sizes[..], [1, _, _, 1]))
    };
    ones("ksize") && ones("strides")
}

fn fused_pool_gradient(program: &Program, uses: &Uses, relu_grad: NodeId) -> Option<Fused> {
    if !fits(program, uses, relu_grad) {
        return None;
    }
    let [gradients, features] = program.node(relu_grad).inputs[..] else {
        return None;
    };
    let pool_grad = made_by(program, uses, gradients, "MaxPoolGrad")?;
    let node = program.node(pool_grad);
    if node.inputs[0] != features || !pools_pixels(node) {
        return None;
    }
    let backprop = TensorId::new(relu_grad, 0);
    let bias_grad = taken_by(program, uses, backprop, "BiasAddGrad")?;
    let (attrs, inputs) = (copied(&node.attrs, &POOL), vec![features, node.inputs[2]]);
    let outputs = vec![backprop, TensorId::new(bias_grad, 0)];
    Some(fused(program, ops::max_pool_relu_grad(), attrs, inputs, outputs))
}
