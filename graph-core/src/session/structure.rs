//! The structural plan: the part of a graph that a set of feeds, fetches and targets needs, rewritten and put in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::OnceLock;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::nesting::is_inside_loop;
use crate::graph::{Graph, GraphData, Node, NodeId, Operation, OutputInfo, TensorId};
use crate::op::{ArgDef, ArgType, Attributes, ControlFlow, OpDefinition, registry, vocabulary};

use crate::rewrite::{self, Program, Rewrite};
use crate::session::loops::{self, Loop};
use crate::session::options::{RewriteOptions, SessionOptions};
use crate::session::placement::Devices;
use crate::session::survey::Survey;

/// What a run feeds, fetches and runs: the key of a structural plan.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Request {
    pub(crate) feeds: Vec<TensorId>,
    pub(crate) fetches: Vec<TensorId>,
    pub(crate) targets: Vec<NodeId>,
}

/// A program in an order in which it can run.
pub(crate) struct Structure {
    pub(crate) program: Program,
    /// Positions in `program.nodes`, in the order in which they run.
    pub(crate) order: Vec<NodeId>,
    /// For each node of the program, whether a Switch decides if it runs; nodes of loops and what enters them count as such.
    pub(crate) guarded: Vec<bool>,
    /// The loops as parts of the order, inner ones first.
    pub(crate) loops: Vec<Loop>,
}

/// The engine's own op whose output a feed replaces.
fn feed_definition() -> &'static OpDefinition {
    static FEED: OnceLock<OpDefinition> = OnceLock::new();
    FEED.get_or_init(|| {
        OpDefinition::new(vocabulary::FEED, "A tensor that the run is fed.")
            .output("output: T")
            .attr("T: type")
    })
}

/// What is inside a loop has as many values as there are iterations.
///
/// # Errors
/// `InvalidArgument` for feeds, fetches and targets inside a loop.
fn refuse_insides_of_loops(graph: &Graph, request: &Request) -> Result<()> {
    let of = |tensors: &[TensorId]| tensors.iter().map(|tensor| tensor.node).collect::<Vec<_>>();
    let asked = [
        ("fed", of(&request.feeds)),
        ("fetched", of(&request.fetches)),
        ("run", request.targets.clone()),
    ];
    for (what, nodes) in asked {
        let mut operations = nodes.iter().map(|&id| Operation::new(graph, id));
        if let Some(inside) = operations.find(is_inside_loop) {
            return Err(
                Error::invalid_argument(format!("what is inside a while loop cannot be {what} by itself"))
                    .at(inside.site())
                    .hint("use what comes out of the loop; a TensorArray brings out the values of all iterations"),
            );
        }
    }
    Ok(())
}

impl Structure {
    pub(crate) fn new(graph: &Graph, request: &Request, options: &SessionOptions, devices: &Devices) -> Result<Self> {
        refuse_insides_of_loops(graph, request)?;
        let mut program = graph.read(|data| extract(data, request))?;
        devices.check(&program, options)?;
        if loops::has_loops(&program) {
            // Rewrites know straight lines only.
            return Self::of(program);
        }
        for rewrite in pipeline(&options.rewrites, false, devices)? {
            program = rewritten(program, rewrite)?;
        }
        Self::of(program)
    }

    /// Of a program that is as it shall be.
    fn of(program: Program) -> Result<Self> {
        let (order, loops) = if loops::has_loops(&program) {
            loops::order(&program)?
        } else {
            (order(&program)?, Vec::new())
        };
        let mut guarded = rewrite::guarded_nodes(&program, &order);
        for inner in &loops {
            let enters = inner.first.iter().map(|tensor| tensor.node);
            for id in order[inner.body.clone()].iter().copied().chain(enters) {
                guarded[id.index()] = true;
            }
        }
        Ok(Self {
            program,
            order,
            guarded,
            loops,
        })
    }

    /// This structure for feeds whose shapes are known, which have told `survey`: constants are more, branches of the
    /// computation that only other shapes need are gone, and what lies together is fused.
    ///
    /// # Errors
    /// `Internal` if a rewrite is wrong.
    pub(crate) fn specialized(&self, survey: Survey, options: &RewriteOptions, devices: &Devices) -> Result<Self> {
        let mut program = survey.written_into(self)?;
        for rewrite in pipeline(options, true, devices)? {
            program = rewritten(program, rewrite)?;
        }
        Self::of(program)
    }
}

fn rewritten(program: Program, rewrite: &dyn Rewrite) -> Result<Program> {
    let Some(rewritten) = rewrite.apply(&program)? else {
        return Ok(program);
    };
    rewrite::verify(&rewritten).map_err(|error| error.context(format!("checking the rewrite '{}'", rewrite.name())))?;
    Ok(rewritten)
}

/// The rewrites in the order in which they run; with `shaped`, those that need shapes come last.
fn pipeline(options: &RewriteOptions, shaped: bool, devices: &Devices) -> Result<Vec<&'static dyn Rewrite>> {
    let mut pipeline: Vec<&'static dyn Rewrite> = vec![
        &rewrite::prune::Prune,
        &rewrite::fold::ConstantFolding,
        &rewrite::dedup::CommonSubexpressions,
    ];
    let rewrites = registry()?.rewrites();
    let named = |name: &str| pipeline.iter().chain(rewrites).any(|rewrite| rewrite.name() == name);
    if let Some(name) = options.wanted().find(|name| !named(name)) {
        return Err(Error::not_found(format!("no rewrite is called '{name}'")).hint("see RewriteOptions::with"));
    }
    let (needy, general): (Vec<_>, Vec<_>) = rewrites
        .iter()
        .copied()
        .partition(|rewrite: &&dyn Rewrite| rewrite.needs_shapes());
    pipeline.extend(general);
    pipeline.push(&rewrite::prune::Prune);
    if shaped {
        pipeline.extend(needy);
        pipeline.push(&rewrite::prune::Prune);
    }
    pipeline.retain(|rewrite| {
        options.applies(*rewrite) && rewrite.suits(!devices.is_empty()) && !(shaped && rewrite.runs_once())
    });
    Ok(pipeline)
}

/// The nodes that the request needs, with `_Feed` nodes in place of what is fed.
fn extract(data: &GraphData, request: &Request) -> Result<Program> {
    let fed: FxHashSet<TensorId> = request.feeds.iter().copied().collect();
    // As in TensorFlow, what waits for a placeholder that is fed waits for nothing.
    let is_fed_placeholder =
        |id: NodeId| data.node(id).op() == vocabulary::PLACEHOLDER && fed.contains(&TensorId::new(id, 0));
    let mut needed: FxHashSet<NodeId> = FxHashSet::default();
    // Which node asked for a node first, to tell what needs an unfed placeholder.
    let mut stack: Vec<(NodeId, NodeId)> = request.targets.iter().map(|&id| (id, id)).collect();
    stack.extend(
        request
            .fetches
            .iter()
            .filter(|id| !fed.contains(id))
            .map(|id| (id.node, id.node)),
    );
    let mut unfed: Vec<(NodeId, NodeId)> = Vec::new();
    while let Some((id, wanted_by)) = stack.pop() {
        if !needed.insert(id) {
            continue;
        }
        let node = data.node(id);
        if node.op() == vocabulary::PLACEHOLDER {
            unfed.push((id, wanted_by));
        }
        let inputs = node
            .inputs
            .iter()
            .filter(|input| !fed.contains(input))
            .map(|input| input.node);
        let controls = node
            .control_inputs
            .iter()
            .copied()
            .filter(|&id| !is_fed_placeholder(id));
        stack.extend(
            inputs
                .chain(controls)
                .filter(|next| !needed.contains(next))
                .map(|next| (next, wanted_by)),
        );
    }
    if !unfed.is_empty() {
        return Err(unfed_placeholders(data, unfed));
    }
    let mut program = Program::default();
    let mut new_ids: FxHashMap<NodeId, NodeId> = FxHashMap::default();
    let mut feeds: FxHashMap<TensorId, TensorId> = FxHashMap::default();
    for &feed in &request.feeds {
        let id = program.push(feed_node(data, feed), feed.node);
        feeds.insert(feed, TensorId::new(id, 0));
        program.feeds.push(TensorId::new(id, 0));
    }
    let mut ids: Vec<NodeId> = needed.into_iter().collect();
    ids.sort_unstable();
    for &id in &ids {
        new_ids.insert(id, NodeId::new(program.nodes.len()));
        program.push(data.node(id).clone(), id);
    }
    let tensor = |id: &TensorId| {
        feeds.get(id).copied().unwrap_or_else(|| TensorId {
            node: new_ids[&id.node],
            slot: id.slot,
        })
    };
    for position in request.feeds.len()..program.nodes.len() {
        let node = &mut program.nodes[position];
        node.inputs.iter_mut().for_each(|input| *input = tensor(input));
        node.control_inputs.retain(|control| !is_fed_placeholder(*control));
        node.control_inputs
            .iter_mut()
            .for_each(|control| *control = new_ids[control]);
    }
    program.fetches = request.fetches.iter().map(tensor).collect();
    program.targets = request.targets.iter().map(|target| new_ids[target]).collect();
    Ok(program)
}

fn feed_node(data: &GraphData, feed: TensorId) -> Node {
    let node = data.node(feed.node);
    let output = &node.outputs[feed.slot as usize];
    let mut attrs = Attributes::new();
    attrs.set("T", output.dtype);
    Node {
        name: format!("_feed/{}", node.output_name(feed.slot as usize)).into(),
        definition: feed_definition(),
        attrs,
        inputs: Default::default(),
        control_inputs: Default::default(),
        outputs: [OutputInfo {
            is_ref: false,
            ..output.clone()
        }]
        .into_iter()
        .collect(),
        device: node.device.clone(),
        location: node.location,
    }
}

fn unfed_placeholders(data: &GraphData, mut unfed: Vec<(NodeId, NodeId)>) -> Error {
    unfed.sort_unstable();
    let list: Vec<String> = unfed
        .iter()
        .map(|&(placeholder, wanted_by)| {
            let (placeholder, wanted_by) = (data.node(placeholder), data.node(wanted_by));
            let output = &placeholder.outputs[0];
            format!(
                "'{}' with dtype {} and shape {}, needed by '{}'",
                placeholder.name, output.dtype, output.shape, wanted_by.name
            )
        })
        .collect();
    Error::invalid_argument(format!(
        "You must feed a value for placeholder tensor {}",
        list.join("; ")
    ))
    .at(data.node(unfed[0].0).site())
    .hint("name it among the feeds of the run")
}

/// The arguments of a node's flat inputs, one an input.
pub(crate) fn input_args(node: &Node) -> impl Iterator<Item = &'static ArgDef> + '_ {
    node.definition.inputs.iter().flat_map(|arg| {
        let count = match (arg.number, arg.ty) {
            (Some(number), _) => node.attrs.read::<i64>(number).map_or(0, |count| count as usize),
            (None, ArgType::List(name)) => node.attrs.read::<Vec<DType>>(name).map_or(0, |list| list.len()),
            _ => 1,
        };
        std::iter::repeat_n(arg, count)
    })
}

/// Whether the node changes a variable.
pub(crate) fn is_update(program: &Program, node: &Node) -> bool {
    input_args(node)
        .zip(&node.inputs)
        .any(|(arg, input)| updates(program, node, arg, *input))
}

/// Whether the node changes the variable that its input `input`, of the argument `arg`, refers to.
pub(crate) fn updates(program: &Program, node: &Node, arg: &ArgDef, input: TensorId) -> bool {
    // An op that takes handles as tensors of any dtype, as `Identity`, passes them on.
    let by_handle = arg.ty == ArgType::Fixed(DType::Resource) && !node.definition.only_reads;
    let by_reference =
        arg.is_ref && program.node(input.node).outputs[input.slot as usize].is_ref && !is_pass_through(node);
    by_handle || by_reference
}

/// Ops that take a reference without changing what it refers to.
fn is_pass_through(node: &Node) -> bool {
    node.op() == vocabulary::IS_VARIABLE_INITIALIZED || node.definition.control_flow != ControlFlow::None
}

/// An order in which every node comes after what it waits for; what does not wait for an update of a variable comes before
/// the first update, and otherwise nodes keep the order of their creation.
fn order(program: &Program) -> Result<Vec<NodeId>> {
    let mut waits = vec![0u32; program.nodes.len()];
    let mut successors: Vec<Vec<NodeId>> = vec![Vec::new(); program.nodes.len()];
    for id in program.ids() {
        let node = program.node(id);
        let before = node
            .inputs
            .iter()
            .map(|input| input.node)
            .chain(node.control_inputs.iter().copied());
        for predecessor in before {
            successors[predecessor.index()].push(id);
            waits[id.index()] += 1;
        }
    }
    let updates: Vec<bool> = program.nodes.iter().map(|node| is_update(program, node)).collect();
    let mut ready: BinaryHeap<Reverse<(bool, NodeId)>> = program
        .ids()
        .filter(|id| waits[id.index()] == 0)
        .map(|id| Reverse((updates[id.index()], id)))
        .collect();
    let mut order = Vec::with_capacity(program.nodes.len());
    while let Some(Reverse((_, id))) = ready.pop() {
        order.push(id);
        for &successor in &successors[id.index()] {
            waits[successor.index()] -= 1;
            if waits[successor.index()] == 0 {
                ready.push(Reverse((updates[successor.index()], successor)));
            }
        }
    }
    if order.len() < program.nodes.len() {
        let stuck = program
            .ids()
            .find(|id| waits[id.index()] > 0)
            .map(|id| program.node(id));
        return Err(stuck.map_or(Error::internal("an order without nodes"), cycle_error));
    }
    Ok(order)
}

/// The error for a cycle through `node`.
pub(crate) fn cycle_error(node: &Node) -> Error {
    Error::invalid_argument("the graph has a cycle that does not run through NextIteration").at(node.site())
}
