//! The nodes of a saver: TensorFlow's, name for name.

use std::collections::HashMap;

use graph_core::graph::{NodeId, OpBuilder, scope};
use graph_core::{DType, Error, Operation, PartialShape, Result, Tensor, Value, Variable};

use crate::composite::Composite;
use crate::control::{group, with_dependencies};

/// The ends of a saver's nodes.
pub(super) struct Nodes {
    /// The prefix, to be fed.
    pub(super) filename: Tensor,
    /// The prefix, once the checkpoint is written.
    pub(super) save: Tensor,
    /// What restores all variables.
    pub(super) restore: Operation,
}

/// The variables in the order of the names under which they are saved.
pub(super) fn sorted(mut variables: Vec<(String, Variable)>) -> Result<Vec<(String, Variable)>> {
    if variables.is_empty() {
        return Err(
            Error::invalid_argument("there are no variables to save").hint("build the saver after the variables")
        );
    }
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    let mut names: HashMap<NodeId, &str> = HashMap::new();
    for (index, (name, variable)) in variables.iter().enumerate() {
        if index > 0 && variables[index - 1].0 == *name {
            return Err(
                Error::invalid_argument(format!("at least two variables have the name '{name}'"))
                    .hint("save them under different names"),
            );
        }
        if let Some(other) = names.insert(variable.op().id(), name) {
            let message = format!("the variable {} has two names: '{other}' and '{name}'", variable.name());
            return Err(Error::invalid_argument(message));
        }
    }
    Ok(variables)
}

pub(super) fn build(
    site: &Composite,
    name: &str,
    variables: &[(String, Variable)],
    default_filename: &str,
    reshape: bool,
) -> Result<Nodes> {
    let _default = site.graph.as_default();
    let _scope = site.scope(name)?;
    let placeholder = |site: &Composite| {
        site.node("PlaceholderWithDefault")
            .attr("shape", PartialShape::from(()))
    };
    let filename = placeholder(site).input(default_filename).name("filename").build()?;
    let filename = placeholder(site).input(filename).name("Const").build()?;

    // A resource variable is saved by its read; of any other, the reference is what TensorFlow's saver takes.
    let tensors = variables.iter().map(|(_, variable)| match variable.is_resource() {
        true => variable.value().clone(),
        false => variable.reference().clone(),
    });
    let save = with_names(site.node("SaveV2").input(&filename), variables)?;
    let save = save.input(tensors.collect::<Vec<_>>()).build_operation()?;
    let save = with_dependencies([&save], &filename)?;

    let dtypes: Vec<DType> = variables.iter().map(|(_, variable)| variable.dtype()).collect();
    let restored = {
        let _device = scope::device("/cpu:0")?;
        let restore = with_names(site.node("RestoreV2").input(&filename), variables)?;
        restore.attr("dtypes", dtypes).build_all()?
    };
    let mut assigned = Vec::new();
    for ((_, variable), tensor) in variables.iter().zip(restored) {
        assigned.push(assign(site, variable, tensor, reshape)?);
    }
    let restore = group(&assigned, "restore_all")?;
    Ok(Nodes {
        filename,
        save,
        restore,
    })
}

/// Adds the inputs that both ops have: the names, and for each an empty text, which stands for the whole tensor.
fn with_names(node: OpBuilder, variables: &[(String, Variable)]) -> Result<OpBuilder> {
    let names = variables.iter().map(|(name, _)| name.clone().into_bytes()).collect();
    let names = Value::from_strings([variables.len()], names)?;
    let slices = Value::zeros(DType::String, [variables.len()])?;
    Ok(node.input(names).input(slices))
}

fn assign(site: &Composite, variable: &Variable, restored: Tensor, reshape: bool) -> Result<Operation> {
    let shape = variable.shape();
    let restored = match (reshape, shape.to_shape()) {
        (false, _) => restored,
        (true, Some(shape)) => {
            let dims = Value::int32_vector(shape.iter().map(|&dim| dim as i32));
            site.node("Reshape").input(restored).input(dims).build()?
        }
        (true, None) => {
            let shape = site.node("Shape").input(variable).build()?;
            site.node("Reshape").input(restored).input(shape).build()?
        }
    };
    if variable.is_resource() {
        let device = variable.op().device();
        let _device = (!device.is_empty())
            .then(|| scope::device(device.as_str()))
            .transpose()?;
        let restored = site.node("Identity").input(restored).build()?;
        let assign = site.node("AssignVariableOp").input(variable.reference());
        return assign.input(restored).build_operation();
    }
    let _colocated = scope::colocate_with(&variable.op());
    site.node("Assign")
        .input(variable.reference())
        .input(restored)
        .attr("validate_shape", !reshape && shape.is_fully_defined())
        .build_operation()
}
