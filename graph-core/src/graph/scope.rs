//! What surrounds the building of an op: the current graph, name scopes, devices, control dependencies, colocation.
//!
//! Each is a stack, one set per thread and graph. A scope is opened by a function that returns a guard and closed when the
//! guard is dropped, so bind it to a name: `let _scope = name_scope("layer")?;` (`let _ = name_scope("layer")?;` closes it
//! at once). Guards may be dropped in any order. Beside each stands a form that takes a closure.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::gradients::LoopGradients;
use crate::graph::node::{NodeId, TensorId};
use crate::graph::{Graph, Operation, Tensor};

thread_local! {
    static DEFAULT_GRAPHS: RefCell<Vec<(u64, Graph)>> = const { RefCell::new(Vec::new()) };
    static SCOPES: RefCell<Vec<Scopes>> = const { RefCell::new(Vec::new()) };
    static NEXT_GUARD: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The stacks of one thread for one graph.
struct Scopes {
    graph: u64,
    /// Full names, without the slash at the end.
    names: Vec<(u64, Arc<str>)>,
    /// `None` leaves those around out of account.
    devices: Vec<(u64, Option<DeviceSpec>)>,
    colocations: Vec<(u64, Colocation)>,
    controls: Vec<(u64, ControlFrame)>,
    contexts: Vec<(u64, Option<Arc<dyn ControlFlowContext>>)>,
    /// Entries of other modules: variable scopes.
    pub(crate) variable_scopes: Vec<(u64, crate::variable::VariableScopeState)>,
}

/// Groups that operations are kept beside.
pub(crate) struct Colocation {
    pub(crate) groups: Vec<Vec<u8>>,
    /// The device that they are on, which overrules device scopes; `None` leaves these as they are.
    pub(crate) device: Option<Arc<str>>,
    /// Whether the groups stand in place of those around.
    pub(crate) alone: bool,
}

impl Colocation {
    /// Beside one operation.
    pub(crate) fn with(operation: &Operation) -> Self {
        Self {
            groups: operation.colocation_groups(),
            device: Some(operation.device().into()),
            alone: false,
        }
    }
}

struct ControlFrame {
    controllers: Vec<NodeId>,
    /// What was made inside the frame.
    made: FxHashSet<NodeId>,
    /// Whether the frame hides those around it.
    clears: bool,
}

/// What a branch or a loop does to the operations that are made inside it.
pub trait ControlFlowContext: Any + Send + Sync {
    /// Called for each operation made inside, before anyone else sees it: rewires its inputs and control inputs.
    ///
    /// # Errors
    /// Whatever the graph refuses.
    fn add_op(&self, operation: &Operation) -> Result<()>;
    /// The tensor that stands for `tensor` inside.
    ///
    /// # Errors
    /// Whatever the graph refuses.
    fn add_value(&self, tensor: &Tensor) -> Result<Tensor>;
    /// Called for each operation made inside a branch or loop that is itself inside this one.
    ///
    /// # Errors
    /// Whatever the graph refuses.
    fn add_inner_op(&self, operation: &Operation) -> Result<()>;
    /// The branch or loop around it.
    fn outer(&self) -> Option<Arc<dyn ControlFlowContext>>;
    /// The condition of a branch, and which of its outcomes the branch is for; `None` for a loop.
    fn branch(&self) -> Option<(TensorId, bool)>;
    /// The gradient of an output that nothing depends on, of a Switch that brings a value into this branch: zeros that are
    /// alive where the branch is not taken. `None` for zeros of the output itself.
    ///
    /// # Errors
    /// Those of making nodes.
    fn zeros_of_switch(&self, _switch: &Operation) -> Result<Option<Tensor>> {
        Ok(None)
    }
    /// What builds gradients through loops, where this is one; see [`LoopGradients`].
    fn loop_gradients(&self) -> Option<Box<dyn LoopGradients>> {
        None
    }
    /// The loop whose gradients this loop computes, if it does.
    fn gradient_of(&self) -> Option<Arc<dyn ControlFlowContext>> {
        None
    }
}

fn with_scopes<R>(graph: &Graph, f: impl FnOnce(&mut Scopes) -> R) -> R {
    SCOPES.with_borrow_mut(|all| {
        let id = graph.id();
        let index = all.iter().position(|scopes| scopes.graph == id).unwrap_or_else(|| {
            all.push(Scopes {
                graph: id,
                names: Vec::new(),
                devices: Vec::new(),
                colocations: Vec::new(),
                controls: Vec::new(),
                contexts: Vec::new(),
                variable_scopes: Vec::new(),
            });
            all.len() - 1
        });
        let result = f(&mut all[index]);
        if all[index].is_empty() {
            all.swap_remove(index);
        }
        result
    })
}

/// What `f` makes of the thread's scopes for the graph, or nothing where none is open, as for most operations.
fn in_open_scopes<R: Default>(graph: &Graph, f: impl FnOnce(&mut Scopes) -> R) -> R {
    SCOPES.with_borrow_mut(|all| {
        let id = graph.id();
        all.iter_mut()
            .find(|scopes| scopes.graph == id)
            .map(f)
            .unwrap_or_default()
    })
}

impl Scopes {
    fn is_empty(&self) -> bool {
        self.names.is_empty()
            && self.devices.is_empty()
            && self.colocations.is_empty()
            && self.controls.is_empty()
            && self.contexts.is_empty()
            && self.variable_scopes.is_empty()
    }

    /// The device that operations are now placed on, if any is said.
    fn device(&self) -> Option<Arc<str>> {
        let mut beside = self
            .colocations
            .iter()
            .rev()
            .filter_map(|(_, colocation)| colocation.device.as_ref());
        if let Some(device) = beside.find(|device| !device.is_empty()) {
            return Some(device.clone());
        }
        let mut merged = DeviceSpec::default();
        for (_, spec) in &self.devices {
            match spec {
                Some(spec) => merged.merge(spec),
                None => merged = DeviceSpec::default(),
            }
        }
        (!merged.is_empty()).then(|| merged.to_string().into())
    }

    fn remove(&mut self, guard: u64) {
        self.names.retain(|entry| entry.0 != guard);
        self.devices.retain(|entry| entry.0 != guard);
        self.colocations.retain(|entry| entry.0 != guard);
        self.controls.retain(|entry| entry.0 != guard);
        self.contexts.retain(|entry| entry.0 != guard);
        self.variable_scopes.retain(|entry| entry.0 != guard);
    }
}

fn next_guard() -> u64 {
    NEXT_GUARD.with(|next| next.replace(next.get() + 1))
}

pub(crate) fn innermost_default_graph() -> Option<Graph> {
    DEFAULT_GRAPHS.with_borrow(|graphs| graphs.last().map(|(_, graph)| graph.clone()))
}

/// Keeps a graph the current one of its thread; see [`Graph::as_default`].
#[must_use = "the graph is current only while the guard lives; bind it to a name such as `_default`"]
pub struct DefaultGraphGuard {
    id: u64,
    not_send: PhantomData<*const ()>,
}

impl DefaultGraphGuard {
    pub(crate) fn new(graph: &Graph) -> Self {
        let id = next_guard();
        DEFAULT_GRAPHS.with_borrow_mut(|graphs| graphs.push((id, graph.clone())));
        Self {
            id,
            not_send: PhantomData,
        }
    }
}

impl Drop for DefaultGraphGuard {
    fn drop(&mut self) {
        // While the thread ends its stacks may be gone already.
        let _ = DEFAULT_GRAPHS.try_with(|graphs| graphs.borrow_mut().retain(|(id, _)| *id != self.id));
    }
}

/// Keeps a scope open; the scope ends where the guard is dropped.
#[must_use = "the scope ends where its guard is dropped; bind it to a name such as `_scope`"]
pub struct ScopeGuard {
    id: u64,
    graph: Graph,
    name: Arc<str>,
    not_send: PhantomData<*const ()>,
}

impl ScopeGuard {
    fn open(graph: &Graph, name: Arc<str>, push: impl FnOnce(&mut Scopes, u64)) -> Self {
        let id = next_guard();
        with_scopes(graph, |scopes| push(scopes, id));
        Self {
            id,
            graph: graph.clone(),
            name,
            not_send: PhantomData,
        }
    }

    /// The full name of a name scope with a slash at the end, as [`name_scope`] takes it to re-enter the scope; empty at
    /// the top.
    pub fn scope_name(&self) -> String {
        if self.name.is_empty() {
            String::new()
        } else {
            format!("{}/", self.name)
        }
    }

    pub(crate) fn with_variable_scope(self, state: crate::variable::VariableScopeState) -> Self {
        with_scopes(&self.graph, |scopes| scopes.variable_scopes.push((self.id, state)));
        self
    }
}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        let (graph, id) = (self.graph.id(), self.id);
        let _ = SCOPES.try_with(|all| {
            let mut all = all.borrow_mut();
            if let Some(index) = all.iter().position(|scopes| scopes.graph == graph) {
                all[index].remove(id);
                if all[index].is_empty() {
                    all.swap_remove(index);
                }
            }
        });
    }
}

/// Whether `name` can name an operation: `[A-Za-z0-9.][A-Za-z0-9_.\-/]*`, and inside a scope also beginning with `_-/`.
pub(crate) fn check_name(name: &str, inside: bool) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let follows = |c: char| plain(c) || matches!(c, '_' | '-' | '/' | '\\' | '>');
    let good = match name.chars().next() {
        Some(first) => (plain(first) || (inside && follows(first))) && name.chars().all(follows),
        None => false,
    };
    if good {
        return Ok(());
    }
    Err(Error::invalid_argument(format!("'{name}' is not a valid name"))
        .expected("letters, digits and _.-/, beginning with a letter, a digit or a dot"))
}

/// Opens the name scope `name` inside the current one of the current graph, numbered if it exists. A name with a slash at
/// the end re-enters that scope as it is; the empty name leads to the top.
///
/// # Errors
/// `InvalidArgument` if it cannot be a name.
pub fn name_scope(name: &str) -> Result<ScopeGuard> {
    name_scope_in(&Graph::current(), name)
}

/// [`name_scope`] in `graph`.
///
/// # Errors
/// `InvalidArgument` if it cannot be a name.
pub fn name_scope_in(graph: &Graph, name: &str) -> Result<ScopeGuard> {
    let full = if name.is_empty() {
        String::new()
    } else if let Some(verbatim) = name.strip_suffix('/') {
        check_name(verbatim, false)?;
        verbatim.to_owned()
    } else {
        check_name(name, current_name_scope(graph).is_some())?;
        graph.unique_name(name)
    };
    let full: Arc<str> = full.into();
    Ok(ScopeGuard::open(graph, full.clone(), |scopes, id| {
        scopes.names.push((id, full))
    }))
}

/// Runs `body` inside the name scope `name`.
///
/// # Errors
/// Those of [`name_scope`] and of `body`.
pub fn in_scope<R>(name: &str, body: impl FnOnce() -> Result<R>) -> Result<R> {
    let _scope = name_scope(name)?;
    body()
}

/// The current name scope of the thread in `graph`, without a slash at the end; `None` at the top.
pub fn current_name_scope(graph: &Graph) -> Option<Arc<str>> {
    let name = in_open_scopes(graph, |scopes| scopes.names.last().map(|(_, name)| name.clone()))?;
    (!name.is_empty()).then_some(name)
}

/// `name` inside the current name scope.
pub(crate) fn in_name_scope(graph: &Graph, name: &str) -> String {
    match current_name_scope(graph) {
        Some(scope) => format!("{scope}/{name}"),
        None => name.to_owned(),
    }
}

/// Lets the operations made while the guard lives run after `controllers`.
///
/// A controller is left out where one of an operation's inputs was made under the same guard, since it waits already.
///
/// # Errors
/// `InvalidArgument` if the controllers are of different graphs.
pub fn control_dependencies<'a>(controllers: impl IntoIterator<Item = &'a Operation>) -> Result<ScopeGuard> {
    let controllers: Vec<Operation> = controllers.into_iter().cloned().collect();
    let graph = controllers
        .first()
        .map_or_else(Graph::current, |controller| controller.graph().clone());
    if controllers.iter().any(|controller| *controller.graph() != graph) {
        return Err(Error::invalid_argument(
            "control dependencies must be operations of one graph",
        ));
    }
    let mut ids: Vec<NodeId> = Vec::new();
    for controller in &controllers {
        if !ids.contains(&controller.id()) {
            ids.push(controller.id());
        }
    }
    let frame = ControlFrame {
        controllers: ids,
        made: FxHashSet::default(),
        clears: false,
    };
    Ok(ScopeGuard::open(&graph, "".into(), |scopes, id| {
        scopes.controls.push((id, frame))
    }))
}

/// Hides all control dependencies and branches around it while the guard lives, as for variables made inside a `cond`.
pub fn clear_control_dependencies(graph: &Graph) -> ScopeGuard {
    let frame = ControlFrame {
        controllers: Vec::new(),
        made: FxHashSet::default(),
        clears: true,
    };
    ScopeGuard::open(graph, "".into(), |scopes, id| {
        scopes.controls.push((id, frame));
        scopes.contexts.push((id, None));
    })
}

/// Places the operations made while the guard lives on `device`, such as `/gpu:0` or `/device:CPU:0`. What the name leaves
/// open (`/job:ps` says no device, `/gpu:0` no job) is as the device scopes around say; `None` leaves these out of account.
///
/// # Errors
/// `InvalidArgument` if it is not the name of a device.
pub fn device<'a>(device: impl Into<Option<&'a str>>) -> Result<ScopeGuard> {
    let spec = device.into().map(DeviceSpec::parse).transpose()?;
    Ok(ScopeGuard::open(&Graph::current(), "".into(), |scopes, id| {
        scopes.devices.push((id, spec))
    }))
}

/// Keeps the operations made while the guard lives on the device of `operation`, whatever the device scopes say, and says
/// so in their `_class` attribute.
pub fn colocate_with(operation: &Operation) -> ScopeGuard {
    colocate(operation.graph(), Colocation::with(operation))
}

/// Keeps the operations made while the guard lives beside these groups.
pub(crate) fn colocate(graph: &Graph, colocation: Colocation) -> ScopeGuard {
    ScopeGuard::open(graph, "".into(), |scopes, id| {
        if colocation.device.is_some() {
            scopes.devices.push((id, None));
        }
        scopes.colocations.push((id, colocation));
    })
}

/// Puts the operations made while the guard lives into these colocation groups too.
pub(crate) fn colocation_groups(graph: &Graph, groups: Vec<Vec<u8>>) -> ScopeGuard {
    let (device, alone) = (None, false);
    colocate(graph, Colocation { groups, device, alone })
}

/// Leaves the choice of a device to the session for the operations made while the guard lives.
pub(crate) fn no_device(graph: &Graph) -> ScopeGuard {
    ScopeGuard::open(graph, "".into(), |scopes, id| scopes.devices.push((id, None)))
}

/// Lets the operations made while the guard lives stand where they will, whatever is around.
pub(crate) fn clear_colocation(graph: &Graph) -> ScopeGuard {
    let (groups, device, alone) = (Vec::new(), None, true);
    colocate(graph, Colocation { groups, device, alone })
}

/// Puts the operations made while the guard lives into a branch or loop; with `None` outside of all.
pub fn control_flow_context(graph: &Graph, context: Option<Arc<dyn ControlFlowContext>>) -> ScopeGuard {
    ScopeGuard::open(graph, "".into(), |scopes, id| {
        scopes.contexts.push((id, context));
    })
}

/// What an operation that took `input` alone would wait for now.
pub fn control_inputs_for(input: &Tensor) -> Vec<Operation> {
    let graph = input.graph();
    let controls = surroundings(graph, &[input.id()]).control_inputs;
    controls.into_iter().map(|id| Operation::new(graph, id)).collect()
}

/// Lets what takes `operation` as an input do without the control dependencies that are open now, as if it were made now.
pub fn stands_under_control_dependencies(operation: &Operation) {
    record_made(operation.graph(), operation.id());
}

/// The branch or loop that operations are made in now.
pub fn current_control_flow_context(graph: &Graph) -> Option<Arc<dyn ControlFlowContext>> {
    in_open_scopes(graph, |scopes| {
        scopes.contexts.last().and_then(|(_, context)| context.clone())
    })
}

/// The innermost variable scope's state.
pub(crate) fn current_variable_scope(graph: &Graph) -> crate::variable::VariableScopeState {
    in_open_scopes(graph, |scopes| {
        scopes.variable_scopes.last().map(|(_, state)| state.clone())
    })
    .unwrap_or_default()
}

/// What the scopes say of a node about to be made: device, colocation groups and control inputs.
#[derive(Default)]
pub(crate) struct Surroundings {
    pub(crate) device: Arc<str>,
    pub(crate) colocation: Vec<Vec<u8>>,
    pub(crate) control_inputs: Vec<NodeId>,
    pub(crate) context: Option<Arc<dyn ControlFlowContext>>,
}

pub(crate) fn surroundings(graph: &Graph, inputs: &[TensorId]) -> Surroundings {
    in_open_scopes(graph, |scopes| {
        let alone = scopes.colocations.iter().rposition(|(_, colocation)| colocation.alone);
        let mut colocation: Vec<Vec<u8>> = scopes.colocations[alone.unwrap_or(0)..]
            .iter()
            .flat_map(|(_, colocation)| colocation.groups.clone())
            .collect();
        colocation.sort_unstable();
        colocation.dedup();
        let visible = scopes.controls.iter().rposition(|(_, frame)| frame.clears).unwrap_or(0);
        let mut control_inputs = Vec::new();
        for (_, frame) in &scopes.controls[visible..] {
            if inputs.iter().any(|input| frame.made.contains(&input.node)) {
                continue;
            }
            for &controller in &frame.controllers {
                let is_input = inputs.iter().any(|input| input.node == controller);
                if !is_input && !control_inputs.contains(&controller) {
                    control_inputs.push(controller);
                }
            }
        }
        Surroundings {
            device: scopes.device().unwrap_or_default(),
            colocation,
            control_inputs,
            context: scopes.contexts.last().and_then(|(_, context)| context.clone()),
        }
    })
}

/// Remembers which control dependencies a new node stands under.
pub(crate) fn record_made(graph: &Graph, node: NodeId) {
    in_open_scopes(graph, |scopes| {
        for (_, frame) in scopes.controls.iter_mut().rev() {
            frame.made.insert(node);
            if frame.clears {
                break;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_nest_are_numbered_and_reentered() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let outer = name_scope("a").unwrap();
        assert_eq!(outer.scope_name(), "a/");
        let inner = name_scope("b").unwrap();
        assert_eq!(inner.scope_name(), "a/b/");
        drop(outer);
        assert_eq!(graph.unique_name("x"), "a/b/x");
        drop(inner);
        assert_eq!(name_scope("a").unwrap().scope_name(), "a_1/");
        assert_eq!(name_scope("A").unwrap().scope_name(), "A_2/");
        assert_eq!(name_scope("a/").unwrap().scope_name(), "a/");
        assert!(name_scope("no spaces").is_err());
        assert_eq!(graph.unique_name("x"), "x");
        assert_eq!(graph.unique_name("x"), "x_1");
    }

    #[test]
    fn the_current_graph_is_the_innermost() {
        let (a, b) = (Graph::new(), Graph::new());
        let first = a.as_default();
        let second = b.as_default();
        assert_eq!(Graph::current(), b);
        drop(first);
        assert_eq!(Graph::current(), b);
        drop(second);
        assert_ne!(Graph::current(), b);
    }
}
