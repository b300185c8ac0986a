//! Convolutions with what follows them, and the way back through it.

use graph_core::DType;
use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::{AttrValue, Attributes, NameAttrList};
use graph_core::rewrite::Program;

use super::elementwise::{dtype_of, is_half};
use super::parts::{copied, each, fits, fused, made_by, taken_by};
use super::{Fused, Fusion, Serves, Uses};
use crate::nn::fused::{self as ops, Made};

/// `MaxPool(Relu(BiasAdd(Conv2D(...))))` in one operation that goes image by image; also without the pool, and without
/// the activation. An activity that nothing but the pool takes, as where nothing is trained, is never in memory.
pub(crate) const CONVOLUTIONS: Fusion = Fusion {
    name: "convolution_fusion",
    serves: Serves::All,
    find: |program, uses| each(program, "BiasAdd", |id| fused_convolution(program, uses, id)),
};

/// `ReluGrad` of `MaxPoolGrad`, with `BiasAddGrad` of that, in one pass over the images; of half types also with the `BiasAddGrad`
/// of that as `float`.
pub(crate) const POOL_GRADIENTS: Fusion = Fusion {
    name: "pool_gradient_fusion",
    serves: Serves::All,
    find: |program, uses| each(program, "ReluGrad", |id| fused_pool_gradient(program, uses, id)),
};

/// A fused convolution hands on where the maxima of its pool are, in place of its activity, where only the gradient of the pool
/// takes that: four times less to write and to read again. Of `float` and `double`. Of `float` and `double`; half types are pooled when the activity is
/// there.
pub(crate) const POOL_PLACES: Fusion = Fusion {
    name: "pool_place_fusion",
    serves: Serves::All,
    find: |program, uses| {
        let found = program.ids().filter_map(|id| with_places(program, uses, id));
        found.flatten().collect()
    },
};

/// `LRN` of a fused convolution's pool, of `float` or `double`, image by image while it is in the cache; where nothing else takes
/// the pool, that is never in memory.
pub(crate) const POOL_RESPONSES: Fusion = Fusion {
    name: "pool_lrn_fusion",
    serves: Serves::Host,
    find: |program, uses| each(program, "LRN", |id| fused_response(program, uses, id)),
};

/// Where only the filter's gradient takes what `_MaxPoolReluGrad` makes of places, as in a first layer, that is made image by
/// image and never in memory as a whole.
pub(crate) const FILTER_GRADIENTS: Fusion = Fusion {
    name: "filter_gradient_fusion",
    serves: Serves::All,
    find: |program, uses| {
        let op = "Conv2DBackpropFilter";
        each(program, op, |id| fused_filter_gradient(program, uses, id))
    },
};

const CONVOLUTION: [&str; 5] = ["strides", "padding", "explicit_paddings", "data_format", "dilations"];
const POOL: [&str; 4] = ["ksize", "strides", "padding", "data_format"];
const RESPONSE: [&str; 4] = ["depth_radius", "bias", "alpha", "beta"];

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
    let mut makes = vec![Made::Activity];
    if let Some(pool) = pool {
        if uses.only(outputs[0]).is_some() {
            outputs.clear();
            makes.clear();
        }
        outputs.push(TensorId::new(pool, 0));
        makes.push(Made::Pooled);
    }
    let node = program.node(convolution);
    let mut attrs = copied(&node.attrs, &CONVOLUTION);
    attrs.set("relu", relu.is_some());
    attrs.set("pool", function("MaxPool", pool_attrs.unwrap_or_default()));
    attrs.set("response", function("LRN", Attributes::new()));
    Made::write(&makes, &mut attrs);
    let inputs = vec![node.inputs[0], node.inputs[1], program.node(bias_add).inputs[1]];
    Some(fused(program, ops::conv2d(), attrs, inputs, outputs))
}

/// A function, as an attribute.
fn function(name: &str, attrs: Attributes) -> AttrValue {
    AttrValue::Func(Box::new(NameAttrList {
        name: name.into(),
        attrs,
    }))
}

fn fused_response(program: &Program, uses: &Uses, response: NodeId) -> Option<Fused> {
    if !fits(program, uses, response) {
        return None;
    }
    let pooled = program.node(response).inputs[0];
    if is_half(dtype_of(program, pooled)) {
        return None;
    }
    let convolution = program.node(pooled.node);
    if convolution.op() != ops::conv2d().name || uses.stays(pooled.node) || !uses.on_one_device(pooled) {
        return None;
    }
    let mut makes = Made::read(&convolution.attrs).ok()?;
    if makes[pooled.slot as usize] != Made::Pooled {
        return None;
    }
    let slots = 0..convolution.outputs.len();
    let mut outputs: Vec<TensorId> = slots.map(|slot| TensorId::new(pooled.node, slot)).collect();
    if uses.only(pooled).is_some() {
        makes.remove(pooled.slot as usize);
        outputs.remove(pooled.slot as usize);
    }
    makes.push(Made::Normalized);
    outputs.push(TensorId::new(response, 0));
    let mut attrs = convolution.attrs.clone();
    attrs.set(
        "response",
        function("LRN", copied(&program.node(response).attrs, &RESPONSE)),
    );
    Made::write(&makes, &mut attrs);
    let inputs = convolution.inputs.to_vec();
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
    let bias_grad = taken_by(program, uses, backprop, "BiasAddGrad").or_else(|| {
        // Mixed precision sums in `float`.
        let cast = TensorId::new(taken_by(program, uses, backprop, "Cast")?, 0);
        let widens = is_half(dtype_of(program, backprop)) && dtype_of(program, cast) == DType::Float32;
        taken_by(program, uses, cast, "BiasAddGrad").filter(|_| widens)
    })?;
    let (mut attrs, inputs) = (copied(&node.attrs, &POOL), vec![features, node.inputs[2]]);
    attrs.set("places", false);
    attrs.set("Tsum", dtype_of(program, TensorId::new(bias_grad, 0)));
    let outputs = vec![backprop, TensorId::new(bias_grad, 0)];
    Some(fused(program, ops::max_pool_relu_grad(), attrs, inputs, outputs))
}

/// The gradient of a pool and the convolution before it, by places.
fn with_places(program: &Program, uses: &Uses, gradient: NodeId) -> Option<[Fused; 2]> {
    let node = program.node(gradient);
    if node.op() != ops::max_pool_relu_grad().name {
        return None;
    }
    let activity = node.inputs[0];
    if is_half(dtype_of(program, activity)) {
        return None;
    }
    let convolution = program.node(activity.node);
    let both = convolution.op() == ops::conv2d().name
        && activity.slot == 0
        && Made::read(&convolution.attrs).is_ok_and(|makes| makes == [Made::Activity, Made::Pooled]);
    if !both
        || is_half(dtype_of(program, activity))
        || uses.only(activity) != Some(gradient)
        || uses.stays(activity.node)
        || uses.stays(gradient)
    {
        return None;
    }
    let Some(AttrValue::Func(pool)) = convolution.attrs.get("pool") else {
        return None;
    };
    let halves = |name: &str| {
        let sizes = node.attrs.read::<Vec<i64>>(name);
        sizes.is_ok_and(|sizes| sizes == [1, 2, 2, 1])
    };
    let valid = node
        .attrs
        .read::<String>("padding")
        .is_ok_and(|padding| padding == "VALID");
    let same = POOL.iter().all(|name| pool.attrs.get(name) == node.attrs.get(name));
    if !(same && valid && halves("ksize") && halves("strides")) {
        return None;
    }
    let unchanged = |id: NodeId| {
        let node = program.node(id).clone();
        let outputs = (0..node.outputs.len()).map(|slot| TensorId::new(id, slot)).collect();
        Fused {
            node,
            first: id,
            others: Vec::new(),
            outputs,
        }
    };
    let mut gradient = unchanged(gradient);
    gradient.node.attrs.set("places", true);
    let mut convolution = unchanged(activity.node);
    Made::write(&[Made::Places, Made::Pooled], &mut convolution.node.attrs);
    let outputs = &mut convolution.node.outputs;
    outputs[0] = outputs[1].clone();
    let shapes = outputs.iter().map(|output| output.shape.clone()).collect::<Vec<_>>();
    convolution.node.attrs.set("shapes", shapes);
    Some([convolution, gradient])
}

fn fused_filter_gradient(program: &Program, uses: &Uses, id: NodeId) -> Option<Fused> {
    if !fits(program, uses, id) {
        return None;
    }
    let node = program.node(id);
    let backprop = node.inputs[2];
    let pool_grad = program.node(backprop.node);
    let by_places = pool_grad.op() == ops::max_pool_relu_grad().name && pool_grad.attrs.read("places").unwrap_or(false);
    if !by_places || backprop.slot != 0 || uses.only(backprop).is_none() || uses.stays(backprop.node) {
        return None;
    }
    let inputs = vec![node.inputs[0], pool_grad.inputs[0], pool_grad.inputs[1]];
    let outputs = vec![TensorId::new(id, 0), TensorId::new(backprop.node, 1)];
    let attrs = copied(&node.attrs, &CONVOLUTION);
    Some(fused(program, ops::pool_filter_grad(), attrs, inputs, outputs))
}
