//! Updates of several variables at once.

use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::op::{Attributes, OpDefinition};
use graph_core::rewrite::{Program, topological_order};
use graph_core::{DType, PartialShape};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::parts::{SMALL_VARIABLE, variable_behind};
use super::update::{attributes, set_counts};
use super::{Fused, Fusion, Serves, Uses, elementwise, groups};
use crate::cpu::chain::Function;
use crate::state::apply;

/// Updates of small variables by the same rule and the same numbers are one, which takes one kernel for all of them.
pub(crate) const UPDATE_GROUPS: Fusion = Fusion {
    name: "update_grouping",
    serves: Serves::Accelerators,
    find,
};

/// So many elements of variables, which some tens of megabytes go with, are updated when their gradients are there, beside the rest
/// of the way back, rather than with variables whose gradients come this many operations later. Then, too, the gradients need
/// not be kept until the last one is there.
const ENOUGH: usize = 1 << 20;
const FAR: usize = 4;

/// The attributes that say of which variables an update is.
const OF_GROUP: [&str; 6] = ["operand_types", "shapes", "N", "M", "X", "R"];

/// An update that may become one with others.
struct Member {
    id: NodeId,
    definition: &'static OpDefinition,
    /// But for those that the members of a group do not have in common, or that are of the whole group.
    attrs: Attributes,
    /// The dtypes of the operands.
    types: Vec<DType>,
    shape: PartialShape,
    /// The variable and its slots.
    variables: Vec<TensorId>,
    numbers: Vec<TensorId>,
    operands: Vec<TensorId>,
    mask: Option<TensorId>,
}

impl Member {
    fn of(program: &Program, uses: &Uses, id: NodeId) -> Option<Self> {
        if uses.is_guarded(id) || !uses.is_needed(id) {
            return None;
        }
        let node = program.node(id);
        // The reference that it hands on is nobody's business but by a control edge.
        let mut outputs = (0..node.outputs.len()).map(|slot| TensorId::new(id, slot));
        if outputs.any(|output| uses.fetched(output) || !uses.of(output).is_empty()) {
            return None;
        }
        let member = match apply::variables_of_fused(node.op()) {
            Some(variables) => Self::fused(id, node, variables)?,
            None => Self::plain(program, id, node)?,
        };
        let count = member.shape.num_elements()?;
        if !SMALL_VARIABLE.contains(&count) {
            return None;
        }
        let whole = |&operand: &TensorId| {
            let shape = &program.node(operand.node).outputs[operand.slot as usize].shape;
            *shape == member.shape || shape.num_elements() == Some(1)
        };
        // A value that lies in the memory of another variable must not change before it is read.
        let own = |&operand: &TensorId| match variable_behind(program, operand) {
            Some(variable) => member.variables.contains(&variable),
            None => true,
        };
        let made = |variable: &TensorId| is_variable(program.node(variable.node).op());
        let fits = member.variables.iter().all(made) && member.operands.iter().all(|it| whole(it) && own(it));
        fits.then_some(member)
    }

    /// An update by a chain.
    fn fused(id: NodeId, node: &Node, variables: usize) -> Option<Self> {
        let types: Vec<DType> = node.attrs.read("operand_types").ok()?;
        let shapes: Vec<PartialShape> = node.attrs.read("shapes").ok()?;
        let masks: i64 = node.attrs.read("M").ok()?;
        let end = node.inputs.len() - masks as usize;
        let first = end - types.len();
        let mut attrs = node.attrs.clone();
        for name in OF_GROUP {
            attrs.remove(name);
        }
        Some(Self {
            id,
            definition: node.definition,
            attrs,
            types,
            shape: shapes.into_iter().next()?,
            variables: node.inputs[..variables].to_vec(),
            numbers: node.inputs[variables..first].to_vec(),
            operands: node.inputs[first..end].to_vec(),
            mask: node.inputs[end..].first().copied(),
        })
    }

    /// An update by a gradient, which is a chain that passes it on.
    fn plain(program: &Program, id: NodeId, node: &Node) -> Option<Self> {
        let form = apply::fused(node.op()).filter(|_| !matches!(node.op(), "Assign" | "AssignVariableOp"))?;
        let gradient = node.inputs[form.gradient];
        let made = &program.node(gradient.node).outputs[gradient.slot as usize];
        if !apply::DTYPES_OF_CHAINS.contains(&made.dtype) || made.is_ref {
            return None;
        }
        let mut attrs = attributes(node, form, made.dtype);
        attrs.set(
            "instructions",
            elementwise::numbers_of(Function::Identity, [0; 3], made.dtype).to_vec(),
        );
        let end = node.inputs.len() - usize::from(form.is_masked);
        let numbers = (form.variables..end).filter(|&index| index != form.gradient);
        Some(Self {
            id,
            definition: form.definition,
            attrs,
            types: vec![made.dtype],
            shape: made.shape.clone(),
            variables: node.inputs[..form.variables].to_vec(),
            numbers: numbers.map(|index| node.inputs[index]).collect(),
            operands: vec![gradient],
            mask: node.inputs[end..].first().copied(),
        })
    }

    /// Whether one operation can do both.
    fn joins(&self, program: &Program, other: &Self, reads: &mut Reads<'_>) -> bool {
        let device = |member: &Self| {
            let variable = program.node(member.variables[0].node);
            (program.node(member.id).device.clone(), variable.device.clone())
        };
        let same = |(&one, &two): (&TensorId, &TensorId)| reads.are_same(program, [one, two], [self.id, other.id]);
        std::ptr::eq(self.definition, other.definition)
            && self.attrs == other.attrs
            && self.types == other.types
            && self.mask == other.mask
            && device(self) == device(other)
            && self.numbers.iter().zip(&other.numbers).all(same)
    }
}

/// What updates may find in the variables that their numbers are read from.
struct Reads<'u> {
    uses: &'u Uses,
    /// For each handle, the nodes that each of those waits for which may change its variable; `None` where none does.
    before_changes: FxHashMap<TensorId, Option<FxHashSet<NodeId>>>,
}

impl Reads<'_> {
    /// Whether the two numbers are one tensor, or two reads of a variable that changes behind both updates if at all.
    fn are_same(&mut self, program: &Program, numbers: [TensorId; 2], updates: [NodeId; 2]) -> bool {
        let [one, two] = numbers;
        if one == two {
            return true;
        }
        let handle = |number: TensorId| {
            let node = program.node(number.node);
            (node.op() == "ReadVariableOp" && node.control_inputs.is_empty()).then(|| node.inputs[0])
        };
        let (Some(handle), true) = (handle(one), handle(one) == handle(two)) else {
            return false;
        };
        let before = self
            .before_changes
            .entry(handle)
            .or_insert_with(|| before_changes(program, self.uses, handle));
        before
            .as_ref()
            .is_none_or(|before| updates.iter().all(|update| before.contains(update)))
    }
}

/// The nodes that all wait for which may change the variable of this handle.
fn before_changes(program: &Program, uses: &Uses, handle: TensorId) -> Option<FxHashSet<NodeId>> {
    let changes = |id: &NodeId| {
        let node = program.node(*id);
        uses.is_needed(*id) && node.inputs.contains(&handle) && !node.definition.only_reads
    };
    let mut common: Option<FxHashSet<NodeId>> = None;
    for id in program.ids().filter(changes) {
        let (mut before, mut stack) = (FxHashSet::default(), vec![id]);
        while let Some(id) = stack.pop() {
            let node = program.node(id);
            let next = node.inputs.iter().map(|input| input.node);
            stack.extend(
                next.chain(node.control_inputs.iter().copied())
                    .filter(|next| before.insert(*next)),
            );
        }
        match &mut common {
            Some(common) => common.retain(|id| before.contains(id)),
            None => common = Some(before),
        }
    }
    common
}

fn is_variable(op: &str) -> bool {
    matches!(op, "Variable" | "VariableV2" | "VarHandleOp")
}

fn find(program: &Program, uses: &Uses) -> Vec<Fused> {
    let mut reads = Reads {
        uses,
        before_changes: FxHashMap::default(),
    };
    let mut named: FxHashSet<(String, String)> = FxHashSet::default();
    // Two updates of one variable stay in their order.
    let is_first = |member: &Member| {
        let names = member.variables.iter().map(|&variable| name_of(program, variable));
        names.filter(|name| !named.insert(name.clone())).count() == 0
    };
    let members = program
        .ids()
        .filter_map(|id| Member::of(program, uses, id))
        .filter(is_first);
    let groups = groups(
        program,
        members,
        |one, other| one.joins(program, other, &mut reads),
        |member| member.id,
    );
    let depths = depths(program);
    let parts = groups.into_iter().flat_map(|group| by_depth(group, &depths));
    parts
        .filter(|part| part.len() > 1)
        .map(|part| together(program, &part))
        .collect()
}

/// For each node, the most operations that follow each other up to it.
fn depths(program: &Program) -> Vec<usize> {
    let mut depths = vec![0; program.nodes.len()];
    for id in topological_order(program).unwrap_or_default() {
        let node = program.node(id);
        let inputs = node.inputs.iter().map(|input| input.node);
        let before = inputs.chain(node.control_inputs.iter().copied());
        let computes = !node.inputs.is_empty() && node.definition.kernels.iter().all(|kernel| kernel.alias.is_none());
        depths[id.index()] = before.map(|before| depths[before.index()]).max().unwrap_or(0) + usize::from(computes);
    }
    depths
}

/// The parts of a group that need not wait for each other, as [`ENOUGH`] says.
fn by_depth(mut group: Vec<Member>, depths: &[usize]) -> Vec<Vec<Member>> {
    let depth = |member: &Member| depths[member.id.index()];
    group.sort_by_key(depth);
    let mut parts: Vec<Vec<Member>> = Vec::new();
    let (mut elements, mut deepest) = (0, 0);
    for member in group {
        let own = depth(&member);
        if parts.is_empty() || (elements >= ENOUGH && own >= deepest + FAR) {
            parts.push(Vec::new());
            elements = 0;
        }
        elements += member.shape.num_elements().unwrap_or(0);
        deepest = own;
        if let Some(part) = parts.last_mut() {
            part.push(member);
        }
    }
    parts
}

/// What names a variable in a session.
fn name_of(program: &Program, variable: TensorId) -> (String, String) {
    let node = program.node(variable.node);
    let text = |name| node.attrs.read::<String>(name).unwrap_or_default();
    let (container, shared) = (text("container"), text("shared_name"));
    let name = if shared.is_empty() {
        node.name.to_string()
    } else {
        shared
    };
    (container, name)
}

/// The update of all variables of a group.
fn together(program: &Program, group: &[Member]) -> Fused {
    let first = &group[0];
    let nodes = || group.iter().map(|member| program.node(member.id));
    let mut attrs = first.attrs.clone();
    let shapes = group.iter().map(|member| member.shape.clone()).collect();
    let others = (group.len() - 1) * first.variables.len();
    set_counts(&mut attrs, shapes, [usize::from(first.mask.is_some()), others, 0]);
    let types = group.iter().flat_map(|member| member.types.clone());
    attrs.set("operand_types", types.collect::<Vec<_>>());
    let operands = group.iter().flat_map(|member| &member.operands);
    let others = group[1..].iter().flat_map(|member| &member.variables);
    let inputs = first.variables.iter().chain(&first.numbers).chain(operands);
    let node = Node {
        definition: first.definition,
        attrs,
        inputs: inputs.chain(&first.mask).chain(others).copied().collect(),
        control_inputs: nodes().flat_map(|node| node.control_inputs.iter().copied()).collect(),
        outputs: SmallVec::new(),
        ..program.node(first.id).clone()
    };
    Fused {
        node,
        first: first.id,
        others: group[1..].iter().map(|member| member.id).collect(),
        outputs: Vec::new(),
    }
}
