//! `NoOp` and `ControlTrigger`, and what is built of control dependencies: groups, tuples, a tensor that waits.

use std::collections::BTreeMap;

use graph_core::graph::scope::{self, ScopeGuard};
use graph_core::graph::{Graph, IntoOperand, Operand, Operation, Tensor};
use graph_core::op::{KernelDefinition, OpDefinition};
use graph_core::{Error, Result};

use crate::composite::Composite;

fn nothing() -> KernelDefinition {
    KernelDefinition::direct(|_| Ok(()))
}

/// The definition of `NoOp`.
pub(crate) fn no_op_definition() -> OpDefinition {
    OpDefinition::new("NoOp", "Nothing: a place where control dependencies meet.")
        .not_differentiable()
        .kernel(nothing())
}

/// The definition of `ControlTrigger`.
pub(crate) fn control_trigger() -> OpDefinition {
    OpDefinition::new(
        "ControlTrigger",
        "Nothing, and alive even where its control inputs are dead.",
    )
    .not_differentiable()
    .kernel(nothing())
}

/// An operation that does nothing; `name` is `NoOp` where empty.
///
/// # Errors
/// `InvalidArgument` if the name cannot be one, `FailedPrecondition` if the graph is finalized.
#[track_caller]
pub fn no_op(name: &str) -> Result<Operation> {
    let node = crate::op("NoOp");
    if name.is_empty() { node } else { node.name(name) }.build_operation()
}

/// The operations behind an operand: a tensor's, a variable's reference's, all of a list's.
fn operations(operand: &Operand, found: &mut Vec<Operation>) -> Result<()> {
    match operand {
        Operand::Tensor(tensor) => found.push(tensor.op()),
        Operand::Variable(variable) => found.push(variable.reference().op()),
        Operand::List(list) => list.iter().try_for_each(|member| operations(member, found))?,
        Operand::Failed(error) => return Err(error.duplicate()),
        Operand::Number(_) | Operand::Array(_) => {
            return Err(Error::invalid_argument("only operations and tensors can be waited for"));
        }
    }
    Ok(())
}

/// What can be waited for: operations, and whatever is an operand of ops and holds tensors.
pub trait IntoOperations {
    /// The operations.
    ///
    /// # Errors
    /// An operand's own, and `InvalidArgument` for numbers.
    fn into_operations(self) -> Result<Vec<Operation>>;
}

impl IntoOperations for &Operation {
    fn into_operations(self) -> Result<Vec<Operation>> {
        Ok(vec![self.clone()])
    }
}

impl IntoOperations for Operation {
    fn into_operations(self) -> Result<Vec<Operation>> {
        Ok(vec![self])
    }
}

impl IntoOperations for Operand {
    fn into_operations(self) -> Result<Vec<Operation>> {
        let mut found = Vec::new();
        operations(&self, &mut found)?;
        Ok(found)
    }
}

impl IntoOperations for &Tensor {
    fn into_operations(self) -> Result<Vec<Operation>> {
        Ok(vec![self.op()])
    }
}

impl IntoOperations for Tensor {
    fn into_operations(self) -> Result<Vec<Operation>> {
        Ok(vec![self.op()])
    }
}

impl IntoOperations for &graph_core::variable::Variable {
    fn into_operations(self) -> Result<Vec<Operation>> {
        self.into_operand().into_operations()
    }
}

fn wait_for(controllers: &[Operation], name: &str, device: &str, site: &Composite) -> Result<Operation> {
    let _device = (!device.is_empty()).then(|| scope::device(device)).transpose()?;
    let _controls = scope::control_dependencies(controllers)?;
    site.node("NoOp").name(name).build_operation()
}

/// One operation that runs all of `inputs`: a `NoOp` named `name` (`group_deps` where empty) behind all of them. Inputs on
/// several devices are gathered device by device first.
///
/// # Errors
/// The inputs' own, or those of making a node.
#[track_caller]
pub fn group<I: IntoOperations>(inputs: impl IntoIterator<Item = I>, name: &str) -> Result<Operation> {
    let inputs: Vec<Operation> = inputs
        .into_iter()
        .map(IntoOperations::into_operations)
        .collect::<Result<Vec<_>>>()?
        .concat();
    let graph = inputs
        .first()
        .map_or_else(Graph::current, |input| input.graph().clone());
    let site = Composite::in_graph(&graph);
    let scope = site.scope(if name.is_empty() { "group_deps" } else { name })?;
    let mut by_device: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for input in inputs {
        by_device.entry(input.device()).or_default().push(input);
    }
    if by_device.len() <= 1 {
        let (device, inputs) = by_device.pop_first().unwrap_or_default();
        return wait_for(&inputs, &scope.scope_name(), &device, &site);
    }
    let gathered: Vec<Operation> = by_device
        .iter()
        .map(|(device, inputs)| wait_for(inputs, "NoOp", device, &site))
        .collect::<Result<_>>()?;
    wait_for(&gathered, &scope.scope_name(), "", &site)
}

/// `tensor` behind `dependencies`: an `Identity` named `control_dependency` and kept with `tensor`, which has its value
/// only when all dependencies have run.
///
/// # Errors
/// The operands' own, or those of making a node.
#[track_caller]
pub fn with_dependencies<I: IntoOperations>(
    dependencies: impl IntoIterator<Item = I>,
    tensor: impl IntoOperand,
) -> Result<Tensor> {
    let dependencies: Vec<Operation> = dependencies
        .into_iter()
        .map(IntoOperations::into_operations)
        .collect::<Result<Vec<_>>>()?
        .concat();
    let tensor = tensor.into_operand();
    let graph = dependencies.first().map(Operation::graph).or(tensor.graph());
    let site = Composite::in_graph(&graph.cloned().unwrap_or_else(Graph::current));
    wait_with(&site, &dependencies, &tensor, "control_dependency")
}

/// See [`with_dependencies`].
pub(crate) fn wait_with(site: &Composite, dependencies: &[Operation], tensor: &Operand, name: &str) -> Result<Tensor> {
    let scope = site.scope(name)?;
    let tensor = match tensor {
        Operand::Variable(variable) => variable.value().clone(),
        Operand::Tensor(tensor) => tensor.clone(),
        _ => {
            let _controls = scope::control_dependencies(dependencies)?;
            site.tensor(tensor, None, "Const")?
        }
    };
    let _colocation: ScopeGuard = scope::colocate_with(&tensor.op());
    let _controls = scope::control_dependencies(dependencies)?;
    site.node("Identity").input(&tensor).name(scope.scope_name()).build()
}

/// `tensors`, each behind all of them and behind `control_inputs`: no one can use one before all are there. The scope is
/// named `name`, `tuple` where empty.
///
/// # Errors
/// `InvalidArgument` for an empty list, or those of making a node.
#[track_caller]
pub fn tuple(tensors: &[Tensor], control_inputs: &[Operation], name: &str) -> Result<Vec<Tensor>> {
    let Some(first) = tensors.first() else {
        return Err(Error::invalid_argument("a tuple needs at least one tensor"));
    };
    let site = Composite::in_graph(first.graph());
    let _scope = site.scope(if name.is_empty() { "tuple" } else { name })?;
    let mut gating: Vec<Operation> = Vec::new();
    let operations = tensors.iter().map(Tensor::op).chain(control_inputs.iter().cloned());
    operations.for_each(|operation| {
        if !gating.contains(&operation) {
            gating.push(operation);
        }
    });
    gating.sort_by_key(Operation::id);
    let gate = group(gating, "")?;
    tensors
        .iter()
        .map(|tensor| {
            wait_with(
                &site,
                std::slice::from_ref(&gate),
                &Operand::Tensor(tensor.clone()),
                "control_dependency",
            )
        })
        .collect()
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    vec![Case::new("NoOp"), Case::new("ControlTrigger")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::constant;

    fn controls(operation: &Operation) -> Vec<String> {
        operation.control_inputs().iter().map(Operation::name).collect()
    }

    #[test]
    fn groups_tuples_and_dependencies_have_tensorflows_names() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let (a, b) = (
            constant(1.0f32).name("a").build().unwrap(),
            constant(2i32).name("b").build().unwrap(),
        );
        let all = group([&a, &b], "").unwrap();
        assert_eq!(
            (all.name().as_str(), controls(&all)),
            ("group_deps", vec!["a".into(), "b".into()])
        );
        let named = group(Vec::<Operation>::new(), "init").unwrap();
        assert_eq!((named.name().as_str(), controls(&named).len()), ("init", 0));
        let late = with_dependencies([&all], &a).unwrap();
        assert_eq!(late.op().name(), "control_dependency");
        assert_eq!(controls(&late.op()), ["group_deps"]);
        assert_eq!(late.op().colocation_groups(), [b"loc:@a".to_vec()]);
        let both = tuple(&[a.clone(), b.clone()], &[], "").unwrap();
        let names: Vec<String> = graph.operations().iter().skip(5).map(Operation::name).collect();
        assert_eq!(
            names,
            [
                "tuple/group_deps",
                "tuple/control_dependency",
                "tuple/control_dependency_1"
            ]
        );
        assert_eq!(controls(&both[1].op()), ["tuple/group_deps"]);
        assert!(tuple(&[], &[], "").is_err());
        assert_eq!(no_op("").unwrap().name(), "NoOp");
    }

    #[test]
    fn inputs_on_several_devices_are_gathered_by_device() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let a = constant(1.0f32).name("a").build().unwrap();
        let b = {
            let _device = scope::device("/cpu:0").unwrap();
            constant(2i32).name("b").build().unwrap()
        };
        let all = group([&a, &b], "all").unwrap();
        assert_eq!(controls(&all), ["all/NoOp", "all/NoOp_1"]);
        assert_eq!(graph.operation("all/NoOp_1").unwrap().device(), b.op().device());
    }
}
