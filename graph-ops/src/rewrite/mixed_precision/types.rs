//! The type attributes of a program's nodes, and how results pass from one to another.

use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::kernel::DeviceKind;
use graph_core::op::{ArgDef, ArgType, AttrValue};
use graph_core::rewrite::Program;
use graph_core::{DType, op::Attributes};
use rustc_hash::FxHashSet;

use super::lists::{Kind, kind};

/// A type attribute of a node, by its number among those of the program.
pub(super) type TypeId = usize;

/// A set of them.
pub(super) type TypeSet = FxHashSet<TypeId>;

/// A type attribute of an op, or one of the types of an attribute that is a list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct TypeAttr {
    pub(super) name: &'static str,
    index: Option<usize>,
}

impl TypeAttr {
    /// The attribute `name`, which is no list.
    pub(super) fn single(name: &'static str) -> Self {
        Self { name, index: None }
    }

    /// What it says.
    pub(super) fn get(self, attrs: &Attributes) -> Option<DType> {
        match (attrs.get(self.name)?, self.index) {
            (AttrValue::Type(dtype), None) => Some(*dtype),
            (AttrValue::TypeList(list), Some(index)) => list.get(index).copied(),
            _ => None,
        }
    }

    /// Lets it say `dtype`.
    pub(super) fn set(self, attrs: &mut Attributes, dtype: DType) {
        let value = match (attrs.get(self.name), self.index) {
            (Some(AttrValue::TypeList(list)), Some(index)) => {
                let mut list = list.clone();
                list[index] = dtype;
                AttrValue::TypeList(list)
            }
            _ => AttrValue::Type(dtype),
        };
        attrs.set(self.name, value);
    }
}

/// A type attribute that some of a node's inputs or outputs have.
pub(super) struct NodeType {
    pub(super) node: NodeId,
    pub(super) attr: TypeAttr,
    pub(super) kind: Option<Kind>,
    /// Whether it says `float`.
    pub(super) is_float: bool,
    /// Whether it may be changed at all.
    pub(super) may_change: bool,
    /// Those that take its outputs, and those whose outputs it takes.
    pub(super) after: Vec<TypeId>,
    pub(super) before: Vec<TypeId>,
}

/// All of a program's.
pub(super) struct Types {
    pub(super) all: Vec<NodeType>,
    /// The numbers of each node's.
    of_node: Vec<Vec<TypeId>>,
}

/// The attribute that says the dtype of each of the node's inputs or outputs; `None` where it is fixed.
fn attrs_of<'a>(args: &'a [ArgDef], node: &'a Node) -> impl Iterator<Item = Option<TypeAttr>> + 'a {
    args.iter().flat_map(|arg| {
        let count = match (arg.number, arg.ty) {
            (Some(number), _) => node.attrs.read::<i64>(number).map_or(0, |count| count as usize),
            (None, ArgType::List(name)) => node.attrs.read::<Vec<DType>>(name).map_or(0, |list| list.len()),
            _ => 1,
        };
        (0..count).map(|index| match arg.ty {
            ArgType::Fixed(_) => None,
            ArgType::Attr(name) => Some(TypeAttr::single(name)),
            ArgType::List(name) => Some(TypeAttr {
                name,
                index: Some(index),
            }),
        })
    })
}

/// The attributes of a node's inputs, one an input.
pub(super) fn of_inputs(node: &Node) -> impl Iterator<Item = Option<TypeAttr>> + '_ {
    attrs_of(&node.definition.inputs, node)
}

/// The attributes of a node's outputs, one an output.
pub(super) fn of_outputs(node: &Node) -> impl Iterator<Item = Option<TypeAttr>> + '_ {
    attrs_of(&node.definition.outputs, node)
}

impl Types {
    pub(super) fn new(program: &Program) -> Self {
        let fetched: FxHashSet<NodeId> = program.fetches.iter().map(|fetch| fetch.node).collect();
        let mut types = Self {
            all: Vec::new(),
            of_node: vec![Vec::new(); program.nodes.len()],
        };
        for id in program.ids() {
            let node = program.node(id);
            let may_change = !fetched.contains(&id) && !touches_references(program, node) && !node.definition.stateful;
            let mut attrs: Vec<TypeAttr> = of_inputs(node).chain(of_outputs(node)).flatten().collect();
            attrs.sort_unstable();
            attrs.dedup();
            for attr in attrs {
                types.of_node[id.index()].push(types.all.len());
                types.all.push(NodeType {
                    node: id,
                    attr,
                    kind: kind(node.op()),
                    is_float: attr.get(&node.attrs) == Some(DType::Float32),
                    may_change,
                    after: Vec::new(),
                    before: Vec::new(),
                });
            }
        }
        for id in program.ids() {
            let node = program.node(id);
            for (attr, &input) in of_inputs(node).zip(&node.inputs) {
                let taker = attr.and_then(|attr| types.find(id, attr));
                if let (Some(maker), Some(taker)) = (types.of_tensor(program, input), taker) {
                    types.all[maker].after.push(taker);
                    types.all[taker].before.push(maker);
                }
            }
        }
        types
    }

    /// The attribute `attr` of a node.
    pub(super) fn find(&self, node: NodeId, attr: TypeAttr) -> Option<TypeId> {
        let own = self.of_node[node.index()].iter();
        own.copied().find(|&id| self.all[id].attr == attr)
    }

    /// The attribute that says the dtype of a tensor.
    pub(super) fn of_tensor(&self, program: &Program, tensor: TensorId) -> Option<TypeId> {
        let attr = of_outputs(program.node(tensor.node)).nth(tensor.slot as usize)??;
        self.find(tensor.node, attr)
    }

    /// Whether it says `float` and could as well say `dtype`: where there is a kernel for the one, there is for the other.
    pub(super) fn could_be(&self, program: &Program, id: TypeId, dtype: DType) -> bool {
        let own = &self.all[id];
        own.is_float && own.may_change && node_could_be(program.node(own.node), own.attr, dtype)
    }
}

/// Whether a node has kernels for `dtype` as its attribute wherever it has some now.
pub(super) fn node_could_be(node: &Node, attr: TypeAttr, dtype: DType) -> bool {
    let definition = node.definition;
    let Some(defined) = definition.attrs.iter().find(|defined| defined.name == attr.name) else {
        return false;
    };
    if !defined.allowed_types.is_empty() && !defined.allowed_types.contains(&dtype) {
        return false;
    }
    let mut changed = node.attrs.clone();
    attr.set(&mut changed, dtype);
    let serves = |device: DeviceKind, attrs: &Attributes| {
        let mut kernels = definition.kernels.iter();
        kernels.any(|kernel| kernel.device == device && kernel.serves(attrs))
    };
    let needed = [DeviceKind::Cpu, DeviceKind::Cuda];
    needed
        .into_iter()
        .all(|device| !serves(device, &node.attrs) || serves(device, &changed))
}

/// Whether the node takes or gives a reference to a variable, or reads one.
fn touches_references(program: &Program, node: &Node) -> bool {
    let is_ref = |tensor: &TensorId| program.node(tensor.node).outputs[tensor.slot as usize].is_ref;
    node.inputs.iter().any(is_ref) || node.outputs.iter().any(|output| output.is_ref)
}
