//! Products of matrices over a single element.

use graph_core::graph::{Node, NodeId, OutputInfo, TensorId};
use graph_core::op::{Attributes, registry};
use graph_core::rewrite::{Program, Rewrite, topological_order};
use graph_core::{DType, PartialShape, Result, Value};
use rustc_hash::FxHashMap;

use super::parts::fits;
use super::{Uses, elementwise};

/// A `MatMul` of a column with a row, as the gradient of weights is at a batch of one, whose result an element-wise operation
/// takes, becomes a `Mul` that broadcasts both: then it can be in a chain, as the gradient is in its update, and its result
/// never in memory.
pub(crate) struct OuterProducts;

impl Rewrite for OuterProducts {
    fn name(&self) -> &'static str {
        "outer_product"
    }

    fn needs_shapes(&self) -> bool {
        true
    }

    fn apply(&self, program: &Program) -> Result<Option<Program>> {
        if !program.nodes.iter().any(|node| node.op() == "MatMul") {
            return Ok(None);
        }
        let Some(order) = topological_order(program) else {
            return Ok(None);
        };
        let uses = Uses::new(program, order);
        let mut result = program.clone();
        let mut products: FxHashMap<TensorId, TensorId> = FxHashMap::default();
        for id in program.ids().filter(|&id| is_outer(program, &uses, id)) {
            let node = program.node(id);
            let shape = &node.outputs[0].shape;
            let (Some(rows), Some(columns)) = (shape.dim(0), shape.dim(1)) else {
                continue;
            };
            let column = reshaped(&mut result, id, 0, [rows, 1])?;
            let row = reshaped(&mut result, id, 1, [1, columns])?;
            let product = Node {
                definition: registry()?.op("Mul")?,
                attrs: with_dtype(node.outputs[0].dtype),
                inputs: [column, row].into_iter().collect(),
                ..node.clone()
            };
            let product = result.push(product, program.origins[id.index()]);
            products.insert(TensorId::new(id, 0), TensorId::new(product, 0));
        }
        if products.is_empty() {
            return Ok(None);
        }
        result.substitute(&products, &FxHashMap::default());
        Ok(Some(result))
    }
}

/// Whether the node is a product of a column with a row of more than one element each, for an element-wise operation.
fn is_outer(program: &Program, uses: &Uses, id: NodeId) -> bool {
    let node = program.node(id);
    if node.op() != "MatMul" || !fits(program, uses, id) {
        return false;
    }
    let tensor = TensorId::new(id, 0);
    let elementwise = uses
        .only(tensor)
        .is_some_and(|user| elementwise::part(program, user).is_some());
    let size = |input: TensorId| {
        let shape = &program.node(input.node).outputs[input.slot as usize].shape;
        shape.num_elements()
    };
    let shape = &node.outputs[0].shape;
    let is = |index: usize| shape.dim(index) > Some(1) && size(node.inputs[index]) == shape.dim(index);
    elementwise && is(0) && is(1)
}

/// Input `index` of the node in this shape of as many elements.
fn reshaped(program: &mut Program, id: NodeId, index: usize, shape: [usize; 2]) -> Result<TensorId> {
    let node = program.node(id).clone();
    let input = node.inputs[index];
    let info = program.node(input.node).outputs[input.slot as usize].clone();
    if info.shape == PartialShape::from(shape) {
        return Ok(input);
    }
    let origin = program.origins[id.index()];
    let value = Value::int32_vector(shape.map(|size| size as i32));
    let mut attrs = Attributes::new();
    attrs.set("dtype", DType::Int32);
    attrs.set("value", value.clone());
    let sizes = Node {
        name: format!("{}/_shape_{index}", node.name).into(),
        definition: registry()?.op("Const")?,
        attrs,
        inputs: Default::default(),
        outputs: [OutputInfo {
            dtype: DType::Int32,
            shape: value.shape().into(),
            ..info.clone()
        }]
        .into_iter()
        .collect(),
        ..node.clone()
    };
    let sizes = program.push(sizes, origin);
    let mut attrs = with_dtype(info.dtype);
    attrs.set("Tshape", DType::Int32);
    let reshape = Node {
        name: format!("{}/_reshaped_{index}", node.name).into(),
        definition: registry()?.op("Reshape")?,
        attrs,
        inputs: [input, TensorId::new(sizes, 0)].into_iter().collect(),
        outputs: [OutputInfo {
            shape: PartialShape::from(shape),
            ..info
        }]
        .into_iter()
        .collect(),
        ..node
    };
    let reshape = program.push(reshape, origin);
    Ok(TensorId::new(reshape, 0))
}

fn with_dtype(dtype: DType) -> Attributes {
    let mut attrs = Attributes::new();
    attrs.set("T", dtype);
    attrs
}
