//! Graphs that are whole messages and make no sense.

use fastrand::Rng;
use graph_core::format::Message;
use graph_core::format::proto::{AttrValue, GraphDef, NodeDef, TensorShapeProto, attr_value, tensor_shape_proto};

use crate::mutate;

/// Half of the cases are damaged bytes, half are whole messages of graphs that make no sense.
pub fn graph(random: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let seed = &seeds[random.usize(..seeds.len())];
    match GraphDef::decode(seed.as_slice()) {
        Ok(mut graph) if random.bool() => {
            for _ in 0..random.usize(1..=3) {
                message(random, &mut graph);
            }
            graph.encode_to_vec()
        }
        _ => mutate::bytes(random, seeds),
    }
}

/// Sizes that no graph has, or that are too large for one.
const SIZES: [i64; 10] = [i64::MIN, -2, -1, 0, 1, 2, 7, 1 << 31, 1 << 40, i64::MAX];

/// Changes a node so that it does not fit.
pub fn message(random: &mut Rng, graph: &mut GraphDef) {
    if graph.node.is_empty() {
        return;
    }
    let nodes = graph.node.len();
    let (at, other) = (random.usize(..nodes), random.usize(..nodes));
    let other = graph.node[other].clone();
    let node = &mut graph.node[at];
    let key = |random: &mut Rng, node: &NodeDef| {
        let keys: Vec<&String> = node.attr.keys().collect();
        (!keys.is_empty()).then(|| keys[random.usize(..keys.len())].clone())
    };
    match random.u8(..6) {
        0 => node.op = other.op,
        1 if !node.input.is_empty() => {
            let input = random.usize(..node.input.len());
            let slot = SIZES[random.usize(..SIZES.len())];
            node.input[input] = if random.bool() {
                other.name
            } else {
                format!("{}:{slot}", other.name)
            };
        }
        2 => {
            node.input.pop();
        }
        3 => {
            if let (Some(mine), Some(theirs)) = (key(random, node), key(random, &other)) {
                node.attr.insert(mine, other.attr[&theirs].clone());
            }
        }
        4 => {
            if let Some(mine) = key(random, node) {
                node.attr.remove(&mine);
            }
        }
        _ => {
            if let Some(attr) = key(random, node).and_then(|key| node.attr.get_mut(&key)) {
                damage_attr(random, attr);
            }
        }
    }
}

fn damage_attr(random: &mut Rng, attr: &mut AttrValue) {
    let size = SIZES[random.usize(..SIZES.len())];
    let dims = |random: &mut Rng| TensorShapeProto {
        dim: (0..random.usize(..4))
            .map(|_| tensor_shape_proto::Dim {
                size: SIZES[random.usize(..SIZES.len())],
                ..Default::default()
            })
            .collect(),
        unknown_rank: random.u8(..8) == 0,
    };
    match &mut attr.value {
        Some(attr_value::Value::I(number)) => *number = size,
        Some(attr_value::Value::Type(dtype)) => *dtype = random.i32(-1..26) + 100 * random.i32(0..2),
        Some(attr_value::Value::Shape(shape)) => *shape = dims(random),
        Some(attr_value::Value::Tensor(tensor)) => match random.u8(..4) {
            0 => tensor.tensor_shape = Some(dims(random)),
            1 => tensor.dtype = random.i32(0..26),
            2 => tensor.int_val.push(size as i32),
            _ => tensor
                .tensor_content
                .truncate(random.usize(..=tensor.tensor_content.len())),
        },
        Some(attr_value::Value::List(list)) => {
            list.i.push(size);
            list.shape.iter_mut().for_each(|shape| *shape = dims(random));
        }
        Some(attr_value::Value::S(text)) => text.truncate(random.usize(..=text.len())),
        value => *value = None,
    }
}
