//! How an operation is built: operands to inputs, types inferred, names taken, shapes inferred, scopes obeyed.

use std::borrow::Cow;
use std::panic::Location;

use smallvec::SmallVec;

use crate::dtype::DType;
use crate::error::{Error, OpSite, Result};
use crate::graph::inference::{infer_outputs, set_defaults};
use crate::graph::nesting;
use crate::graph::node::{Node, NodeId, TensorId};
use crate::graph::scope::{self, Colocation, check_name};
use crate::graph::{Graph, IntoOperand, Operand, Operation, Tensor};
use crate::op::attr::AttrName;
use crate::op::{ArgDef, ArgType, AttrValue, Attributes, OpDefinition, registry, vocabulary};
use crate::value::Value;

/// A `Const` node of `graph`, named `name` inside the current scope.
///
/// # Errors
/// `FailedPrecondition` if the graph is finalized.
#[track_caller]
pub fn constant_in(graph: &Graph, value: Value, name: &str) -> Result<Tensor> {
    OpBuilder::new(vocabulary::CONST)
        .attr("dtype", value.dtype())
        .attr("value", value)
        .in_graph(graph)
        .name(name)
        .build()
}

/// An operation about to be built: its op, operands, attributes and name.
///
/// Builders of single ops wrap this one; see [`typed_builder`](crate::typed_builder).
#[must_use = "an operation is made by `build`"]
pub struct OpBuilder(Box<Draft>);

/// What an [`OpBuilder`] was told. It is some five hundred bytes long, and each call hands the builder on by value.
struct Draft {
    definition: Result<&'static OpDefinition>,
    operands: SmallVec<[Operand; 3]>,
    attrs: SmallVec<[(AttrName, AttrValue); 2]>,
    name: Option<String>,
    graph: Option<Graph>,
    control_inputs: Vec<Operation>,
    location: &'static Location<'static>,
}

impl OpBuilder {
    /// Begins an operation of type `op`; where the operation was made is the caller.
    #[track_caller]
    pub fn new(op: &str) -> Self {
        Self(Box::new(Draft {
            definition: registry().and_then(|registry| registry.op(op)),
            operands: SmallVec::new(),
            attrs: SmallVec::new(),
            name: None,
            graph: None,
            control_inputs: Vec::new(),
            location: Location::caller(),
        }))
    }

    /// Adds the operand of the next argument.
    pub fn input(mut self, operand: impl IntoOperand) -> Self {
        self.0.operands.push(operand.into_operand());
        self
    }

    /// Sets an attribute.
    pub fn attr(mut self, name: &'static str, value: impl Into<AttrValue>) -> Self {
        let value = value.into();
        self.0.attrs.retain(|(key, _)| key != name);
        self.0.attrs.push((name.into(), value));
        self
    }

    /// Names the operation; a name with a slash at the end is taken as it is, without the scope around it.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.name = Some(name.into());
        self
    }

    /// Names the operation if it has no name yet.
    pub fn default_name(mut self, name: &str) -> Self {
        self.0.name.get_or_insert_with(|| name.to_owned());
        self
    }

    /// Makes the operation in `graph`, where no operand says it.
    pub fn in_graph(mut self, graph: &Graph) -> Self {
        self.0.graph = Some(graph.clone());
        self
    }

    /// Lets `operation` run first.
    pub fn control_input(mut self, operation: &Operation) -> Self {
        self.0.control_inputs.push(operation.clone());
        self
    }

    /// Says where in the user's source the operation is made, for builders that are not `#[track_caller]` themselves.
    pub fn made_at(mut self, location: &'static Location<'static>) -> Self {
        self.0.location = location;
        self
    }

    /// Makes the operation; its first output.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for wrong dtypes, shapes, attributes or names; `FailedPrecondition` if the
    /// graph is finalized.
    pub fn build(self) -> Result<Tensor> {
        let operation = self.build_operation()?;
        if operation.num_outputs() == 0 {
            return Err(Error::invalid_argument("the operation has no output").at(operation.site()));
        }
        Ok(operation.output(0))
    }

    /// Makes the operation; all its outputs.
    ///
    /// # Errors
    /// As for [`OpBuilder::build`].
    pub fn build_all(self) -> Result<Vec<Tensor>> {
        Ok(self.build_operation()?.outputs())
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// As for [`OpBuilder::build`].
    pub fn build_operation(self) -> Result<Operation> {
        self.0.build()
    }
}

impl Draft {
    fn build(mut self: Box<Self>) -> Result<Operation> {
        let definition = match &self.definition {
            Ok(definition) => *definition,
            Err(error) => return Err(error.duplicate()),
        };
        if let Some(error) = self.operands.iter().find_map(Operand::failure) {
            return Err(error.duplicate());
        }
        let graph = self.find_graph(definition)?;
        graph
            .check_mutable()
            .map_err(|error| error.at(self.site_of(definition)))?;
        let full_name = self.take_name(definition, &graph)?;
        let location = self.location;
        self.build_named(definition, &graph, &full_name)
            .map_err(|error| error.at(OpSite::new(full_name, definition.name, Some(location))))
    }

    fn site_of(&self, definition: &OpDefinition) -> OpSite {
        OpSite::new(
            self.name.as_deref().unwrap_or(definition.name),
            definition.name,
            Some(self.location),
        )
    }

    fn find_graph(&self, definition: &OpDefinition) -> Result<Graph> {
        let mut graphs = self
            .operands
            .iter()
            .filter_map(Operand::graph)
            .chain(self.graph.as_ref());
        let Some(first) = graphs.next() else {
            return Ok(Graph::current());
        };
        if graphs.any(|graph| graph != first) {
            return Err(Error::invalid_argument("the operands are of different graphs")
                .at(self.site_of(definition))
                .hint("build all operands while the same graph is the current one"));
        }
        Ok(first.clone())
    }

    fn take_name(&mut self, definition: &OpDefinition, graph: &Graph) -> Result<String> {
        let name = self.name.take().map_or(Cow::Borrowed(definition.name), Cow::Owned);
        if let Some(verbatim) = name.strip_suffix('/') {
            check_name(verbatim, false)?;
            graph.write(|data| data.take_name(verbatim));
            return Ok(verbatim.to_owned());
        }
        let inside = scope::current_name_scope(graph).is_some();
        check_name(&name, inside).map_err(|error| error.at(self.site_of(definition)))?;
        Ok(graph.unique_name(&name))
    }

    fn build_named(
        mut self: Box<Self>,
        definition: &'static OpDefinition,
        graph: &Graph,
        full_name: &str,
    ) -> Result<Operation> {
        if self.operands.len() != definition.inputs.len() {
            return Err(Error::invalid_argument("wrong number of operands")
                .expected(definition.inputs.len())
                .got(self.operands.len()));
        }
        let mut attrs = Attributes::new();
        for (name, value) in std::mem::take(&mut self.attrs) {
            attrs.set(name, value);
        }
        self.infer_type_attrs(definition, &mut attrs)?;
        let mut inputs: SmallVec<[TensorId; 2]> = SmallVec::new();
        let mut operands = std::mem::take(&mut self.operands);
        // What takes references stays with what they refer to.
        let mut beside: Option<Colocation> = None;
        for (arg, operand) in definition.inputs.iter().zip(&mut operands) {
            let start = inputs.len();
            self.convert(arg, operand, graph, full_name, &mut attrs, &mut inputs)?;
            if arg.is_ref {
                for referred in inputs[start..].iter().map(|input| Operation::new(graph, input.node)) {
                    let mut colocation = Colocation::with(&referred);
                    if let Some(others) = beside {
                        colocation.groups.extend(others.groups);
                    }
                    beside = Some(colocation);
                }
            }
        }
        let _colocated = beside.map(|colocation| scope::colocate(graph, colocation));
        set_defaults(definition, &mut attrs)?;
        let control_inputs: Vec<_> = self.control_inputs.iter().map(Operation::id).collect();
        insert_node(
            graph,
            definition,
            full_name,
            attrs,
            inputs,
            &control_inputs,
            self.location,
        )
    }

    /// Sets type attributes from the operands that have a dtype of their own.
    fn infer_type_attrs(&self, definition: &OpDefinition, attrs: &mut Attributes) -> Result<()> {
        for (arg, operand) in definition.inputs.iter().zip(&self.operands) {
            let ArgType::Attr(name) = arg.ty else { continue };
            if attrs.get(name).is_none()
                && let Some(dtype) = operand.dtype()
            {
                attrs.set(name, dtype);
            }
        }
        // Where only numbers are given: the attribute's default if they fit it, else their own dtype.
        for (arg, operand) in definition.inputs.iter().zip(&self.operands) {
            let ArgType::Attr(name) = arg.ty else { continue };
            if attrs.get(name).is_some() {
                continue;
            }
            let default = definition.attr_def(name).and_then(|attr| match attr.default {
                Some(AttrValue::Type(dtype)) => Some(dtype),
                _ => None,
            });
            let fitting = default.filter(|&dtype| operand.to_value(Some(dtype)).is_ok());
            if let Some(dtype) = fitting.or_else(|| operand.number_dtype()).or(default) {
                attrs.set(name, dtype);
            }
        }
        Ok(())
    }

    /// Turns the operand of one argument into inputs; constants are made under the operation's own name.
    fn convert(
        &self,
        arg: &ArgDef,
        operand: &mut Operand,
        graph: &Graph,
        full_name: &str,
        attrs: &mut Attributes,
        inputs: &mut SmallVec<[TensorId; 2]>,
    ) -> Result<()> {
        if !arg.is_list() {
            let dtype = match arg.ty {
                ArgType::Fixed(dtype) => Some(dtype),
                ArgType::Attr(name) => attrs.get(name).and_then(|_| attrs.read::<DType>(name).ok()),
                ArgType::List(_) => None,
            };
            let tensor = self.convert_one(arg, operand, graph, full_name, arg.name, dtype)?;
            inputs.push(tensor.id());
            return Ok(());
        }
        let Operand::List(members) = operand else {
            return Err(Error::invalid_argument(format!(
                "'{}' must be a list of tensors",
                arg.name
            )));
        };
        let listed: Option<Vec<DType>> = match arg.ty {
            ArgType::List(name) if attrs.get(name).is_some() => Some(attrs.read(name)?),
            _ => None,
        };
        let mut dtypes = Vec::with_capacity(members.len());
        for (index, member) in members.iter_mut().enumerate() {
            let dtype = match arg.ty {
                ArgType::Fixed(dtype) => Some(dtype),
                ArgType::Attr(name) => attrs.read(name).ok(),
                ArgType::List(_) => listed.as_ref().and_then(|listed| listed.get(index).copied()),
            };
            let tensor = self.convert_one(arg, member, graph, full_name, &format!("{}_{index}", arg.name), dtype)?;
            dtypes.push(tensor.dtype());
            inputs.push(tensor.id());
        }
        match (arg.number, arg.ty) {
            (Some(number), _) => attrs.set(number, members.len() as i64),
            (None, ArgType::List(name)) => {
                if listed.as_ref().is_some_and(|listed| *listed != dtypes) {
                    return Err(Error::invalid_argument(format!(
                        "'{}' has other dtypes than '{name}' says",
                        arg.name
                    )));
                }
                attrs.set(name, dtypes);
            }
            _ => {}
        }
        Ok(())
    }

    fn convert_one(
        &self,
        arg: &ArgDef,
        operand: &Operand,
        graph: &Graph,
        full_name: &str,
        constant_name: &str,
        dtype: Option<DType>,
    ) -> Result<Tensor> {
        let tensor = match operand {
            Operand::Variable(variable) if arg.is_ref => variable.reference().clone(),
            Operand::Variable(variable) if arg.ty == ArgType::Fixed(DType::Resource) => variable.handle()?.clone(),
            // The value of a resource variable is read anew, under the operation's own name.
            Operand::Variable(variable) if !variable.is_resource() => variable.value().clone(),
            Operand::Tensor(tensor) => tensor.clone(),
            _ => {
                let _scope = scope::name_scope_in(graph, &format!("{full_name}/"))?;
                operand.to_tensor(graph, constant_name, dtype)?
            }
        };
        if let Some(dtype) = dtype
            && tensor.dtype() != dtype
        {
            return Err(Error::invalid_argument(format!("'{}' has the wrong dtype", arg.name))
                .expected(dtype)
                .got(format!("{tensor:?}"))
                .hint("cast one of the operands"));
        }
        if arg.is_ref && !tensor.is_ref() {
            return Err(
                Error::invalid_argument(format!("'{}' must be a reference to a variable", arg.name))
                    .got(format!("{tensor:?}")),
            );
        }
        Ok(tensor)
    }
}

/// Infers shapes and adds the node, with what the scopes around it say.
pub(crate) fn insert_node(
    graph: &Graph,
    definition: &'static OpDefinition,
    full_name: &str,
    mut attrs: Attributes,
    inputs: SmallVec<[TensorId; 2]>,
    control_inputs: &[NodeId],
    location: &'static Location<'static>,
) -> Result<Operation> {
    let outputs = infer_outputs(graph, definition, &attrs, &inputs)?;
    let surroundings = scope::surroundings(graph, &inputs);
    nesting::check(graph, definition, surroundings.context.as_ref(), &inputs)?;
    if !surroundings.colocation.is_empty() {
        attrs.set("_class", surroundings.colocation);
    }
    let mut controls: SmallVec<[NodeId; 1]> = surroundings.control_inputs.into_iter().collect();
    for &control in control_inputs {
        if !controls.contains(&control) {
            controls.push(control);
        }
    }
    let node = Node {
        name: full_name.into(),
        definition,
        attrs,
        inputs,
        control_inputs: controls,
        outputs,
        device: surroundings.device,
        location,
    };
    let id = graph.write(|data| {
        if data.id_of(&node.name).is_some() {
            return Err(Error::already_exists(format!(
                "the graph has an operation named '{}' already",
                node.name
            )));
        }
        Ok(data.add_node(node))
    })?;
    scope::record_made(graph, id);
    let operation = Operation::new(graph, id);
    if let Some(context) = surroundings.context {
        graph.write(|data| data.contexts.insert(id, context.clone()));
        context.add_op(&operation)?;
    }
    Ok(operation)
}

/// Defines the builder of an op with options: a struct around [`OpBuilder`] with `name`, `build` and the rest, so that the
/// op's own options can be added in an `impl` block beside it.
///
/// ```ignore
/// typed_builder! {
///     /// See [`conv2d`].
///     pub struct Conv2d;
/// }
/// impl Conv2d {
///     pub fn strides(self, strides: [i64; 4]) -> Self {
///         Self(self.0.attr("strides", strides))
///     }
/// }
/// ```
#[macro_export]
macro_rules! typed_builder {
    ($(#[$doc:meta])* $vis:vis struct $name:ident;) => {
        $(#[$doc])*
        #[must_use = "an operation is made by `build`"]
        pub struct $name(pub(crate) $crate::graph::OpBuilder);

        impl $name {
            /// Names the operation.
            pub fn name(self, name: impl Into<String>) -> Self {
                Self(self.0.name(name))
            }

            /// Makes the operation; its (first) output.
            ///
            /// # Errors
            /// The operands' own, and `InvalidArgument` for wrong dtypes, shapes, attributes or names.
            pub fn build(self) -> $crate::Result<$crate::graph::Tensor> {
                self.0.build()
            }
        }

        impl $crate::graph::IntoOperand for $name {
            fn into_operand(self) -> $crate::graph::Operand {
                self.build().into_operand()
            }
        }
    };
}

impl IntoOperand for OpBuilder {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}
