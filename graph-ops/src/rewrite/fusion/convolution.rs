//! Convolutions with what follows them, and the way back through it.

use graph_core::DType;
use graph_core::Result;
use graph_core::graph::{Node, NodeId, OutputInfo, TensorId};
use graph_core::op::{AttrValue, Attributes, NameAttrList, OpDefinition};
use graph_core::rewrite::{Program, Rewrite, topological_order};
use rustc_hash::FxHashMap;

use super::Uses;
use crate::nn::fused;

/// `MaxPool(Relu(BiasAdd(Conv2D(...))))` in one operation that goes image by image; also without the pool, and without
/// the activation.
pub(crate) struct ConvolutionFusion;

/// `ReluGrad` of `MaxPoolGrad`, with `BiasAddGrad` of that where there is one, in one pass over the images.
pub(crate) struct PoolGradientFusion;

impl Rewrite for ConvolutionFusion {
    fn name(&self) -> &'static str {
        "convolution_fusion"
    }

    fn needs_shapes(&self) -> bool {
        true
    }

    fn apply(&self, program: &Program) -> Result<Option<Program>> {
        fuse_each(program, "BiasAdd", fused_convolution)
    }
}

impl Rewrite for PoolGradientFusion {
    fn name(&self) -> &'static str {
        "pool_gradient_fusion"
    }

    fn needs_shapes(&self) -> bool {
        true
    }

    fn apply(&self, program: &Program) -> Result<Option<Program>> {
        fuse_each(program, "ReluGrad", fused_pool_gradient)
    }
}

/// A fused operation: whose it is, and the tensors that become its outputs.
struct Fused {
    definition: &'static OpDefinition,
    attrs: Attributes,
    inputs: Vec<TensorId>,
    outputs: Vec<TensorId>,
}

/// Replaces what `fuse` finds around each node of type `op` by the operation that it makes.
fn fuse_each(
    program: &Program,
    op: &str,
    fuse: impl Fn(&Program, &Uses, NodeId) -> Option<Fused>,
) -> Result<Option<Program>> {
    let candidates: Vec<NodeId> = program.ids().filter(|&id| program.node(id).op() == op).collect();
    if candidates.is_empty() {
        return Ok(None);
    }
    let Some(order) = topological_order(program) else {
        return Ok(None);
    };
    let uses = Uses::new(program, &order);
    let mut result = program.clone();
    let mut replaced = FxHashMap::default();
    for fused in candidates.into_iter().filter_map(|id| fuse(program, &uses, id)) {
        let first = fused.outputs[0].node;
        let outputs: Vec<OutputInfo> = fused
            .outputs
            .iter()
            .map(|tensor| program.node(tensor.node).outputs[tensor.slot as usize].clone())
            .collect();
        let mut attrs = fused.attrs;
        let shapes: Vec<_> = outputs.iter().map(|output| output.shape.clone()).collect();
        attrs.set("T", outputs[0].dtype);
        attrs.set("shapes", shapes);
        let node = Node {
            definition: fused.definition,
            attrs,
            inputs: fused.inputs.into_iter().collect(),
            control_inputs: Default::default(),
            outputs: outputs.into_iter().collect(),
            ..program.node(first).clone()
        };
        let new = result.push(node, program.origins[first.index()]);
        let new_tensors = (0..fused.outputs.len()).map(|slot| TensorId::new(new, slot));
        replaced.extend(fused.outputs.iter().copied().zip(new_tensors));
    }
    if replaced.is_empty() {
        return Ok(None);
    }
    result.substitute(&replaced, &FxHashMap::default());
    Ok(Some(result))
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
    (fits && uses.only(program, tensor).is_some()).then_some(tensor.node)
}

/// A node of type `op` that takes `tensor` as its input 0 and may be fused.
fn taken_by(program: &Program, uses: &Uses, tensor: TensorId, op: &str) -> Option<NodeId> {
    let takes =
        |id: &NodeId| program.node(*id).op() == op && program.node(*id).inputs[0] == tensor && fits(program, uses, *id);
    uses.of(tensor).iter().copied().find(takes)
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
        .only(program, sum)
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
    Some(Fused {
        definition: fused::conv2d(),
        attrs,
        inputs: vec![node.inputs[0], node.inputs[1], program.node(bias_add).inputs[1]],
        outputs,
    })
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
    Some(Fused {
        definition: fused::max_pool_relu_grad(),
        attrs: copied(&node.attrs, &POOL),
        inputs: vec![features, node.inputs[2]],
        outputs: vec![backprop, TensorId::new(bias_grad, 0)],
    })
}
