//! How an operation is built: operands to inputs, types inferred, names taken, shapes inferred, scopes obeyed.

use std::panic::Location;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::dtype::{Complex, DType};
use crate::error::{Error, OpSite, Result};
use crate::graph::node::{HandleData, Node, OutputInfo, TensorId};
use crate::graph::scope::{self, Colocation, check_name};
use crate::graph::{Graph, Operation, Tensor};
use crate::op::attr::AttrName;
use crate::op::shape_inference::{InferenceContext, InputValues, arg_len};
use crate::op::{ArgDef, ArgType, AttrType, AttrValue, Attributes, OpDefinition, registry, vocabulary};
use crate::shape::PartialShape;
use crate::value::Value;
use crate::variable::Variable;

/// What an op is called with, before it is an input.
#[derive(Clone, Debug)]
pub enum Operand {
    /// A tensor.
    Tensor(Tensor),
    /// A variable: its reference where the op takes one, its value elsewhere.
    Variable(Variable),
    /// A bare number (or text): becomes a constant of the dtype that the op needs, where that loses nothing.
    Number(Value),
    /// An array: becomes a constant of its own dtype.
    Array(Value),
    /// Several operands: a list argument, or packed into one tensor.
    List(Vec<Operand>),
    /// The error of an operand that could not be built.
    Failed(Arc<Error>),
}

/// What can be an operand: tensors, variables, unfinished builders, numbers, arrays, and arrays and vectors of those.
pub trait IntoOperand {
    /// The operand; a builder is built at once, in the order of the calls.
    fn into_operand(self) -> Operand;
}

impl IntoOperand for Operand {
    fn into_operand(self) -> Operand {
        self
    }
}

impl IntoOperand for &Operand {
    fn into_operand(self) -> Operand {
        self.clone()
    }
}

impl IntoOperand for Tensor {
    fn into_operand(self) -> Operand {
        Operand::Tensor(self)
    }
}

impl IntoOperand for &Tensor {
    fn into_operand(self) -> Operand {
        Operand::Tensor(self.clone())
    }
}

impl IntoOperand for Variable {
    fn into_operand(self) -> Operand {
        Operand::Variable(self)
    }
}

impl IntoOperand for &Variable {
    fn into_operand(self) -> Operand {
        Operand::Variable(self.clone())
    }
}

impl IntoOperand for Value {
    fn into_operand(self) -> Operand {
        Operand::Array(self)
    }
}

impl IntoOperand for &Value {
    fn into_operand(self) -> Operand {
        Operand::Array(self.clone())
    }
}

impl IntoOperand for &str {
    fn into_operand(self) -> Operand {
        Operand::Number(Value::string(self))
    }
}

impl IntoOperand for String {
    fn into_operand(self) -> Operand {
        Operand::Number(Value::string(self))
    }
}

impl<T: IntoOperand> IntoOperand for Result<T> {
    fn into_operand(self) -> Operand {
        self.map_or_else(|error| Operand::Failed(Arc::new(error)), IntoOperand::into_operand)
    }
}

macro_rules! numbers_as_operands {
    ($($type:ty),*) => {$(
        impl IntoOperand for $type {
            fn into_operand(self) -> Operand {
                Operand::Number(Value::scalar(self))
            }
        }
        impl IntoOperand for &$type {
            fn into_operand(self) -> Operand {
                Operand::Number(Value::scalar(*self))
            }
        }
    )*};
}

numbers_as_operands!(
    f32,
    f64,
    half::f16,
    half::bf16,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
    bool,
    Complex<f32>,
    Complex<f64>
);

impl<T: IntoOperand, const N: usize> IntoOperand for [T; N] {
    fn into_operand(self) -> Operand {
        Operand::List(self.into_iter().map(IntoOperand::into_operand).collect())
    }
}

impl<T: IntoOperand> IntoOperand for Vec<T> {
    fn into_operand(self) -> Operand {
        Operand::List(self.into_iter().map(IntoOperand::into_operand).collect())
    }
}

impl<T> IntoOperand for &[T]
where
    for<'a> &'a T: IntoOperand,
{
    fn into_operand(self) -> Operand {
        Operand::List(self.iter().map(IntoOperand::into_operand).collect())
    }
}

impl<T> IntoOperand for &Vec<T>
where
    for<'a> &'a T: IntoOperand,
{
    fn into_operand(self) -> Operand {
        self.as_slice().into_operand()
    }
}

impl<T: crate::dtype::Element, D: ndarray::Dimension> IntoOperand for &ndarray::Array<T, D> {
    fn into_operand(self) -> Operand {
        Operand::Array(Value::from(self))
    }
}

impl<T: crate::dtype::Element, D: ndarray::Dimension> IntoOperand for ndarray::Array<T, D> {
    fn into_operand(self) -> Operand {
        Operand::Array(Value::from(&self))
    }
}

impl Operand {
    /// The graph that the operand belongs to, if it belongs to any.
    pub fn graph(&self) -> Option<&Graph> {
        match self {
            Self::Tensor(tensor) => Some(tensor.graph()),
            Self::Variable(variable) => Some(variable.graph()),
            Self::List(list) => list.iter().find_map(Operand::graph),
            _ => None,
        }
    }

    /// The dtype that the operand has by itself; numbers have none.
    pub fn dtype(&self) -> Option<DType> {
        match self {
            Self::Tensor(tensor) => Some(tensor.dtype()),
            Self::Variable(variable) => Some(variable.dtype()),
            Self::Array(value) => Some(value.dtype()),
            Self::List(list) => list.iter().find_map(Operand::dtype),
            Self::Number(_) | Self::Failed(_) => None,
        }
    }

    /// The dtype of the first number in it.
    pub fn number_dtype(&self) -> Option<DType> {
        match self {
            Self::Number(value) => Some(value.dtype()),
            Self::List(list) => list.iter().find_map(Operand::number_dtype),
            _ => None,
        }
    }

    fn failure(&self) -> Option<&Error> {
        match self {
            Self::Failed(error) => Some(error),
            Self::List(list) => list.iter().find_map(Operand::failure),
            _ => None,
        }
    }

    /// The operand as a value, where it holds no tensor: numbers and nested lists of them.
    ///
    /// # Errors
    /// `InvalidArgument` if rows differ in shape or numbers do not fit `dtype`.
    pub fn to_value(&self, dtype: Option<DType>) -> Result<Option<Value>> {
        match self {
            Self::Number(value) => dtype
                .map_or_else(|| Ok(value.clone()), |dtype| value.cast_exactly(dtype))
                .map(Some),
            Self::Array(value) => Ok(Some(value.clone())),
            Self::List(list) => {
                let dtype = dtype.or_else(|| self.dtype()).or_else(|| self.number_dtype());
                let mut rows = Vec::with_capacity(list.len());
                for operand in list {
                    match operand.to_value(dtype)? {
                        Some(value) => rows.push(value),
                        None => return Ok(None),
                    }
                }
                stack(&rows, dtype.unwrap_or(DType::Float32)).map(Some)
            }
            Self::Tensor(_) | Self::Variable(_) | Self::Failed(_) => Ok(None),
        }
    }

    /// The operand as a tensor of `graph`; what is none yet becomes a constant (a list with tensors in it a `Pack`) named
    /// `name` inside the current scope.
    ///
    /// # Errors
    /// The operand's own, or those of making the constant.
    #[track_caller]
    pub fn to_tensor(&self, graph: &Graph, name: &str, dtype: Option<DType>) -> Result<Tensor> {
        match self {
            Self::Tensor(tensor) => Ok(tensor.clone()),
            Self::Variable(variable) if variable.is_resource() => variable.read_value(),
            Self::Variable(variable) => Ok(variable.value().clone()),
            Self::Failed(error) => Err(error.duplicate()),
            Self::List(list) if self.graph().is_some() => {
                // A list with tensors in it packs itself, in a scope of its own.
                let scope = scope::name_scope_in(graph, name)?;
                let dtype = dtype.or_else(|| self.dtype());
                let members: Vec<Operand> = list
                    .iter()
                    .enumerate()
                    .map(|(index, member)| member.to_tensor(graph, &index.to_string(), dtype).map(Operand::Tensor))
                    .collect::<Result<_>>()?;
                OpBuilder::new("Pack")
                    .input(Operand::List(members))
                    .name(scope.scope_name())
                    .build()
            }
            Self::Number(_) | Self::Array(_) | Self::List(_) => {
                let value = self
                    .to_value(dtype)?
                    .ok_or_else(|| Error::internal("an operand without tensors is a value"))?;
                constant_in(graph, value, name)
            }
        }
    }
}

fn stack(rows: &[Value], dtype: DType) -> Result<Value> {
    let row_shape = rows.first().map(|row| row.shape().clone()).unwrap_or_default();
    if let Some(odd) = rows
        .iter()
        .find(|row| *row.shape() != row_shape || row.dtype() != rows[0].dtype())
    {
        return Err(Error::invalid_argument("the rows of a nested list differ")
            .expected(format!("{} {row_shape}", rows[0].dtype()))
            .got(format!("{} {}", odd.dtype(), odd.shape())));
    }
    let shape: crate::shape::Shape = std::iter::once(rows.len()).chain(row_shape.iter().copied()).collect();
    if dtype == DType::String && !rows.is_empty() {
        let strings = rows
            .iter()
            .map(|row| row.as_strings().map(<[_]>::to_vec))
            .collect::<Result<Vec<_>>>()?;
        return Value::from_strings(shape, strings.concat());
    }
    let bytes: Vec<u8> = rows.iter().flat_map(|row| row.bytes()).copied().collect();
    match rows.first() {
        Some(row) => Value::from_bytes(row.dtype(), shape, &bytes),
        None => Value::zeros(dtype, shape),
    }
}

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
pub struct OpBuilder {
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
        Self {
            definition: registry().and_then(|registry| registry.op(op)),
            operands: SmallVec::new(),
            attrs: SmallVec::new(),
            name: None,
            graph: None,
            control_inputs: Vec::new(),
            location: Location::caller(),
        }
    }

    /// Adds the operand of the next argument.
    pub fn input(mut self, operand: impl IntoOperand) -> Self {
        self.operands.push(operand.into_operand());
        self
    }

    /// Sets an attribute.
    pub fn attr(mut self, name: &'static str, value: impl Into<AttrValue>) -> Self {
        let value = value.into();
        self.attrs.retain(|(key, _)| key != name);
        self.attrs.push((name.into(), value));
        self
    }

    /// Names the operation; a name with a slash at the end is taken as it is, without the scope around it.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Names the operation if it has no name yet.
    pub fn default_name(mut self, name: &str) -> Self {
        self.name.get_or_insert_with(|| name.to_owned());
        self
    }

    /// Makes the operation in `graph`, where no operand says it.
    pub fn in_graph(mut self, graph: &Graph) -> Self {
        self.graph = Some(graph.clone());
        self
    }

    /// Lets `operation` run first.
    pub fn control_input(mut self, operation: &Operation) -> Self {
        self.control_inputs.push(operation.clone());
        self
    }

    /// Says where in the user's source the operation is made, for builders that are not `#[track_caller]` themselves.
    pub fn made_at(mut self, location: &'static Location<'static>) -> Self {
        self.location = location;
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
    pub fn build_operation(mut self) -> Result<Operation> {
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
        let site = OpSite::new(full_name.as_str(), definition.name, Some(self.location));
        self.build_named(definition, &graph, full_name)
            .map_err(|error| error.at(site))
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
        let name = self.name.take().unwrap_or_else(|| definition.name.to_owned());
        if let Some(verbatim) = name.strip_suffix('/') {
            check_name(verbatim, false)?;
            graph.write(|data| data.take_name(verbatim));
            return Ok(verbatim.to_owned());
        }
        let inside = scope::current_name_scope(graph).is_some();
        check_name(&name, inside).map_err(|error| error.at(self.site_of(definition)))?;
        Ok(graph.unique_name(&name))
    }

    fn build_named(mut self, definition: &'static OpDefinition, graph: &Graph, full_name: String) -> Result<Operation> {
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
            self.convert(arg, operand, graph, &full_name, &mut attrs, &mut inputs)?;
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

/// Fills in defaults, and checks every attribute against its definition.
pub(crate) fn set_defaults(definition: &OpDefinition, attrs: &mut Attributes) -> Result<()> {
    for attr in &definition.attrs {
        let Some(value) = attrs.get(attr.name) else {
            match &attr.default {
                Some(default) => attrs.set(attr.name, default.clone()),
                None => {
                    return Err(
                        Error::invalid_argument(format!("the attribute '{}' is missing", attr.name))
                            .expected(attr.ty.name()),
                    );
                }
            }
            continue;
        };
        let fits = value.kind() == attr.ty.name()
            || (matches!(attr.ty, AttrType::List(_)) && value.is_empty_list())
            || matches!(value, AttrValue::Placeholder(_));
        if !fits {
            return Err(
                Error::invalid_argument(format!("the attribute '{}' is of the wrong kind", attr.name))
                    .expected(attr.ty.name())
                    .got(value.kind()),
            );
        }
        let wrong = |got: String, expected: String| {
            Err(
                Error::invalid_argument(format!("the attribute '{}' has a value that is not allowed", attr.name))
                    .expected(expected)
                    .got(got),
            )
        };
        let types: &[DType] = match value {
            AttrValue::Type(dtype) => std::slice::from_ref(dtype),
            AttrValue::TypeList(list) => list,
            _ => &[],
        };
        if let Some(dtype) = types
            .iter()
            .find(|dtype| !attr.allowed_types.is_empty() && !attr.allowed_types.contains(dtype))
        {
            let names: Vec<_> = attr.allowed_types.iter().map(|dtype| dtype.name()).collect();
            return wrong(dtype.to_string(), names.join(", "));
        }
        if let AttrValue::String(text) = value
            && !attr.allowed_strings.is_empty()
            && !attr.allowed_strings.iter().any(|allowed| allowed.as_bytes() == text)
        {
            return wrong(
                String::from_utf8_lossy(text).into_owned(),
                attr.allowed_strings.join(", "),
            );
        }
        if let Some(minimum) = attr.minimum {
            let size = match value {
                AttrValue::Int(int) => *int,
                AttrValue::IntList(list) => list.len() as i64,
                AttrValue::TypeList(list) => list.len() as i64,
                _ => i64::MAX,
            };
            if size < minimum {
                return wrong(size.to_string(), format!("at least {minimum}"));
            }
        }
    }
    Ok(())
}

/// The most outputs that one argument may stand for; a number in a file must not decide how much memory is asked for.
const MAX_OUTPUTS: usize = 1 << 16;

fn output_len(arg: &ArgDef, attrs: &Attributes) -> Result<usize> {
    match arg_len(arg, attrs)? {
        len if len > MAX_OUTPUTS => Err(Error::invalid_argument(format!("too many outputs '{}'", arg.name))
            .expected(format!("at most {MAX_OUTPUTS}"))
            .got(len)),
        len => Ok(len),
    }
}

/// The dtypes (and whether they are references) of a node's outputs.
pub(crate) fn output_dtypes(definition: &OpDefinition, attrs: &Attributes) -> Result<SmallVec<[(DType, bool); 1]>> {
    let mut dtypes = SmallVec::new();
    for arg in &definition.outputs {
        match arg.ty {
            ArgType::List(name) => dtypes.extend(
                attrs
                    .read::<Vec<DType>>(name)?
                    .into_iter()
                    .map(|dtype| (dtype, arg.is_ref)),
            ),
            ArgType::Fixed(dtype) => dtypes.extend((0..output_len(arg, attrs)?).map(|_| (dtype, arg.is_ref))),
            ArgType::Attr(name) => {
                let dtype = attrs.read(name)?;
                dtypes.extend((0..output_len(arg, attrs)?).map(|_| (dtype, arg.is_ref)));
            }
        }
    }
    Ok(dtypes)
}

/// Values of inputs as the graph knows them while it is built.
pub(crate) struct GraphValues<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) inputs: &'a [TensorId],
}

impl InputValues for GraphValues<'_> {
    fn handle(&self, index: usize) -> Option<HandleData> {
        let input = self.inputs[index];
        self.graph.read(|data| {
            data.node(input.node).outputs[input.slot as usize]
                .handle
                .as_deref()
                .cloned()
        })
    }

    fn value(&self, index: usize) -> Option<Value> {
        self.graph.constant_value(self.inputs[index])
    }

    fn value_as_shape(&self, index: usize) -> Option<PartialShape> {
        if let Some(value) = self.value(index) {
            return shape_of_values(&value.to_i64_vec().ok()?);
        }
        let input = self.inputs[index];
        let (node, shapes, dtypes) = self.graph.read(|data| {
            let node = data.node(input.node);
            node.definition.value_as_shape?;
            let infos = node
                .inputs
                .iter()
                .map(|id| &data.node(id.node).outputs[id.slot as usize]);
            let (shapes, dtypes): (Vec<_>, Vec<_>) = infos.map(|info| (info.shape.clone(), info.dtype)).unzip();
            Some((node.clone(), shapes, dtypes))
        })?;
        let values = GraphValues {
            graph: self.graph,
            inputs: &node.inputs,
        };
        let context = InferenceContext::new(
            node.definition,
            &node.attrs,
            &shapes,
            &dtypes,
            node.outputs.len(),
            &values,
        );
        node.definition
            .value_as_shape
            .and_then(|function| function(&context, input.slot as usize))
    }
}

/// Dimensions given as numbers; -1 is an unknown one, anything less no shape.
pub(crate) fn shape_of_values(values: &[i64]) -> Option<PartialShape> {
    let dims: Option<Vec<_>> = values
        .iter()
        .map(|&value| {
            if value == -1 {
                Some(None)
            } else {
                usize::try_from(value).ok().map(Some)
            }
        })
        .collect();
    dims.map(PartialShape::from_dims)
}

/// What the op's definition and shape function say of a node's outputs.
pub(crate) fn infer_outputs(
    graph: &Graph,
    definition: &'static OpDefinition,
    attrs: &Attributes,
    inputs: &[TensorId],
) -> Result<SmallVec<[OutputInfo; 1]>> {
    let (shapes, dtypes): (SmallVec<[PartialShape; 2]>, SmallVec<[DType; 2]>) = graph.read(|data| {
        let infos = inputs.iter().map(|id| &data.node(id.node).outputs[id.slot as usize]);
        infos.map(|info| (info.shape.clone(), info.dtype)).unzip()
    });
    let outputs = output_dtypes(definition, attrs)?;
    let values = GraphValues { graph, inputs };
    let inferred = InferenceContext::new(definition, attrs, &shapes, &dtypes, outputs.len(), &values).infer()?;
    Ok(outputs
        .into_iter()
        .zip(inferred.shapes.into_iter().zip(inferred.handles))
        .map(|((dtype, is_ref), (shape, handle))| OutputInfo {
            dtype,
            is_ref,
            shape,
            handle: handle.filter(|_| dtype == DType::Resource).map(Box::new),
        })
        .collect())
}

/// Infers shapes and adds the node, with what the scopes around it say.
pub(crate) fn insert_node(
    graph: &Graph,
    definition: &'static OpDefinition,
    full_name: String,
    mut attrs: Attributes,
    inputs: SmallVec<[TensorId; 2]>,
    control_inputs: &[crate::graph::NodeId],
    location: &'static Location<'static>,
) -> Result<Operation> {
    let outputs = infer_outputs(graph, definition, &attrs, &inputs)?;
    let surroundings = scope::surroundings(graph, &inputs);
    if !surroundings.colocation.is_empty() {
        attrs.set("_class", surroundings.colocation);
    }
    let mut controls: SmallVec<[crate::graph::NodeId; 1]> = surroundings.control_inputs.into_iter().collect();
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
