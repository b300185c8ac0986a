//! Frozen graphs: variables folded into constants, and nothing kept but what the outputs need.

use std::collections::BTreeMap;

use super::graph_def::{attr_from_proto, attr_to_proto, value_to_proto};
use super::message_graph::{End, MessageGraph};
use super::proto::{AttrValue, GraphDef, NodeDef, attr_value};
use crate::dtype::DType;
use crate::error::{Error, OpSite, Result};
use crate::op::{AttrValue as Attr, registry, vocabulary};
use crate::shape::PartialShape;
use crate::value::Value;

/// The handle of a resource variable.
const VAR_HANDLE: &str = "VarHandleOp";
/// Reads a resource variable.
const READ_VARIABLE: &str = "ReadVariableOp";
/// Reads rows of a resource variable.
const RESOURCE_GATHER: &str = "ResourceGather";
/// Reads rows of a tensor.
const GATHER: &str = "GatherV2";
/// An attribute that tells the shapes of a node's outputs.
const OUTPUT_SHAPES: &str = "_output_shapes";

/// The part of a graph that `outputs` (nodes or tensors) need, with every variable replaced by a constant of its `value`, as
/// `tf.graph_util.convert_variables_to_constants` makes it. Reads of resource variables become reads of those constants.
///
/// ```
/// use graph_core::Value;
/// use graph_core::format::freeze::freeze;
/// use graph_core::format::{proto::GraphDef, text};
///
/// let graph: GraphDef = text::from_text(
///     r#"node { name: "v" op: "VariableV2" attr { key: "dtype" value { type: DT_FLOAT } }
///                                          attr { key: "shape" value { shape { } } } }
///        node { name: "v/read" op: "Identity" input: "v" attr { key: "T" value { type: DT_FLOAT } } }"#,
/// )?;
/// let frozen = freeze(&graph, &["v/read"], |_| Ok(Value::scalar(2.0f32)))?;
/// assert_eq!(frozen.node[0].op, "Const");
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `NotFound` for an output that is not there, `FailedPrecondition` where the outputs need an op that changes a variable,
/// `Unimplemented` where an op uses a variable in a way that no constant can stand for, `InvalidArgument` for a value that
/// does not fit its variable, and those of `value`.
pub fn freeze<S: AsRef<str>>(
    graph: &GraphDef,
    outputs: &[S],
    mut value: impl FnMut(&NodeDef) -> Result<Value>,
) -> Result<GraphDef> {
    let mut frozen = MessageGraph::new(graph).extract(outputs)?;
    let part = frozen.clone();
    let part = MessageGraph::new(&part);
    let mut added = Vec::new();
    for (position, node) in frozen.node.iter_mut().enumerate() {
        let site = OpSite::new(node.name.as_str(), node.op.as_str(), None);
        if !is_variable(node) {
            continue;
        }
        let is_resource = node.op == VAR_HANDLE;
        let dtype = variable_dtype(node).map_err(|error| error.at(site.clone()))?;
        check_value(node, dtype, &value(node)?)
            .map(|constant| *node = constant)
            .map_err(|error| error.at(site))?;
        for &End { node: consumer, slot } in part.consumers(position) {
            if slot.is_some() {
                let reader = part.node(consumer);
                let checked = match is_resource {
                    true => check_resource_reader(reader),
                    false => check_reader(&part, position, consumer),
                };
                checked.map_err(|e| e.at(OpSite::new(reader.name.as_str(), reader.op.as_str(), None)))?;
            }
        }
    }
    for node in &mut frozen.node {
        match node.op.as_str() {
            READ_VARIABLE => read_constant(node),
            RESOURCE_GATHER => added.push(gather_constant(node, &part)),
            _ => {}
        }
    }
    frozen.node.extend(added);
    Ok(frozen)
}

/// Whether a node is a variable, by reference or by handle.
pub fn is_variable(node: &NodeDef) -> bool {
    node.op == VAR_HANDLE || vocabulary::is_variable(&node.op)
}

fn variable_dtype(node: &NodeDef) -> Result<DType> {
    match node.attr.get("dtype").map(attr_from_proto).transpose()? {
        Some(Attr::Type(dtype)) => Ok(dtype),
        _ => Err(Error::invalid_argument("the variable does not say its dtype")),
    }
}

/// The constant that stands for a variable.
fn check_value(node: &NodeDef, dtype: DType, value: &Value) -> Result<NodeDef> {
    let shape = match node.attr.get("shape").map(attr_from_proto).transpose()? {
        Some(Attr::Shape(shape)) => shape,
        _ => PartialShape::unknown(),
    };
    if value.dtype() != dtype || PartialShape::from(value.shape()).merge(&shape).is_err() {
        return Err(Error::invalid_argument("the value does not fit the variable")
            .expected(format!("{dtype} {shape}"))
            .got(format!("{} {}", value.dtype(), value.shape())));
    }
    let tensor = attr_value::Value::Tensor(Box::new(value_to_proto(value)));
    Ok(NodeDef {
        name: node.name.clone(),
        op: vocabulary::CONST.to_owned(),
        device: node.device.clone(),
        attr: BTreeMap::from([
            ("dtype".to_owned(), attr_to_proto(&Attr::Type(dtype))),
            ("value".to_owned(), AttrValue { value: Some(tensor) }),
        ]),
        ..Default::default()
    })
}

/// A reader of a reference variable must not want the reference itself, as ops that assign do. What ops that are not known
/// want cannot be told.
fn check_reader(part: &MessageGraph<'_>, variable: usize, consumer: usize) -> Result<()> {
    let reader = part.node(consumer);
    let Ok(definition) = registry().and_then(|registry| registry.op(&reader.op)) else {
        return Ok(());
    };
    let wants_reference = definition.inputs.iter().any(|arg| arg.is_ref);
    if wants_reference {
        return Err(Error::failed_precondition(format!(
            "the outputs need an op that changes the variable '{}'",
            part.node(variable).name
        ))
        .hint("name outputs that only read variables"));
    }
    Ok(())
}

fn check_resource_reader(reader: &NodeDef) -> Result<()> {
    let batched = matches!(
        reader.attr.get("batch_dims").and_then(|attr| attr.value.as_ref()),
        Some(attr_value::Value::I(1..))
    );
    match reader.op.as_str() {
        READ_VARIABLE => Ok(()),
        RESOURCE_GATHER if !batched => Ok(()),
        _ => Err(
            Error::unimplemented("no constant can stand for the resource variable that the op uses")
                .hint("name outputs that only read variables"),
        ),
    }
}

/// Makes `ReadVariableOp` an Identity of the constant.
fn read_constant(node: &mut NodeDef) {
    node.op = vocabulary::IDENTITY.to_owned();
    if let Some(dtype) = node.attr.remove("dtype") {
        node.attr.insert("T".to_owned(), dtype);
    }
}

/// Makes `ResourceGather` a GatherV2 along the first axis, which is the constant that is returned.
fn gather_constant(node: &mut NodeDef, part: &MessageGraph<'_>) -> NodeDef {
    let mut name = format!("{}/axis", node.name);
    while part.position(&name).is_some() {
        name.push('_');
    }
    let axis = Value::scalar(0i32);
    let constant = NodeDef {
        name: name.clone(),
        op: vocabulary::CONST.to_owned(),
        device: node.device.clone(),
        attr: BTreeMap::from([
            ("dtype".to_owned(), attr_to_proto(&Attr::Type(DType::Int32))),
            ("value".to_owned(), attr_to_proto(&Attr::Tensor(axis))),
        ]),
        ..Default::default()
    };
    node.op = GATHER.to_owned();
    let data = node.input.iter().take_while(|input| !input.starts_with('^')).count();
    node.input.insert(data, name);
    let old = std::mem::take(&mut node.attr);
    for (name, value) in old {
        let name = match name.as_str() {
            "dtype" => "Tparams",
            "Tindices" | "batch_dims" | "_class" | OUTPUT_SHAPES => name.as_str(),
            _ => continue,
        };
        node.attr.insert(name.to_owned(), value);
    }
    node.attr
        .insert("Taxis".to_owned(), attr_to_proto(&Attr::Type(DType::Int32)));
    constant
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;

    fn graph(text: &str) -> GraphDef {
        text::from_text(text).unwrap()
    }

    const VARIABLES: &str = r#"
        node { name: "v" op: "VariableV2" device: "/device:CPU:0" attr { key: "dtype" value { type: DT_FLOAT } }
               attr { key: "shape" value { shape { dim { size: 2 } } } }
               attr { key: "_output_shapes" value { list { shape { dim { size: 2 } } } } } }
        node { name: "v/read" op: "Identity" input: "v" attr { key: "T" value { type: DT_FLOAT } } }
        node { name: "r" op: "VarHandleOp" attr { key: "dtype" value { type: DT_FLOAT } }
               attr { key: "shape" value { shape { dim { size: 2 } } } }
               attr { key: "_output_shapes" value { list { shape { } } } } }
        node { name: "r/Read" op: "ReadVariableOp" input: "r" attr { key: "dtype" value { type: DT_FLOAT } } }
        node { name: "i" op: "Placeholder" attr { key: "dtype" value { type: DT_INT64 } } }
        node { name: "rows" op: "ResourceGather" input: "r" input: "i" input: "^v" attr { key: "dtype" value { type: DT_FLOAT } }
               attr { key: "Tindices" value { type: DT_INT64 } } attr { key: "validate_indices" value { b: true } } }
        node { name: "sum" op: "AddV2" input: "v/read" input: "r/Read" attr { key: "T" value { type: DT_FLOAT } } }
        node { name: "set" op: "AssignVariableOp" input: "r" input: "sum" }
        versions { producer: 134 }
    "#;

    fn values(node: &NodeDef) -> Result<Value> {
        Value::from_vec([2], if node.name == "v" { [1.0f32, 2.0] } else { [3.0, 4.0] })
    }

    #[test]
    fn variables_become_constants() {
        let graph = graph(VARIABLES);
        assert_eq!(graph.node.iter().filter(|node| is_variable(node)).count(), 2);
        let frozen = freeze(&graph, &["sum:0"], values).unwrap();
        let listing: Vec<_> = frozen.node.iter().map(|n| (n.name.as_str(), n.op.as_str())).collect();
        let expected = [
            ("v", "Const"),
            ("v/read", "Identity"),
            ("r", "Const"),
            ("r/Read", "Identity"),
            ("sum", "AddV2"),
        ];
        assert_eq!(listing, expected);
        assert_eq!(frozen.node[0].device, "/device:CPU:0");
        assert_eq!(frozen.versions, graph.versions);
        let Some(Attr::Tensor(r)) = frozen.node[2].attr.get("value").map(|v| attr_from_proto(v).unwrap()) else {
            panic!("no value")
        };
        assert_eq!(r.as_slice::<f32>().unwrap(), [3.0, 4.0]);
        assert_eq!(frozen.node[2].attr.len(), 2);
        assert_eq!(frozen.node[3].attr.keys().collect::<Vec<_>>(), ["T"]);
    }

    #[test]
    fn rows_of_resources_are_rows_of_constants() {
        let frozen = freeze(&graph(VARIABLES), &["rows"], values).unwrap();
        let rows = frozen.node.iter().find(|node| node.name == "rows").unwrap();
        assert_eq!(
            (rows.op.as_str(), rows.input.as_slice()),
            ("GatherV2", &["r", "i", "rows/axis", "^v"].map(str::to_owned)[..])
        );
        assert_eq!(rows.attr.keys().collect::<Vec<_>>(), ["Taxis", "Tindices", "Tparams"]);
        assert_eq!(frozen.node.last().unwrap().name, "rows/axis");
    }

    #[test]
    fn what_cannot_be_frozen_is_refused() {
        let graph = graph(VARIABLES);
        let error = freeze(&graph, &["set"], values).unwrap_err();
        assert!(
            error.class() == "Unimplemented" && error.to_string().contains("'set'"),
            "{error}"
        );
        let error = freeze(&graph, &["sum"], |_| Ok(Value::scalar(1.0f32))).unwrap_err();
        assert!(error.to_string().contains("expected: float [2]"), "{error}");
        assert_eq!(freeze(&graph, &["gone"], values).unwrap_err().class(), "NotFound");
        let error = freeze(&graph, &["sum"], |node| Err(Error::not_found(node.name.clone()))).unwrap_err();
        assert!(error.to_string().contains("NotFound: v"), "{error}");
    }
}
