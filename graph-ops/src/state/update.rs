//! What the builders of updates share: a variable is reached by its reference or by its handle.

use graph_core::graph::scope;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{ArgType, AttrValue, KernelContext, OpDefinition};
use graph_core::{DType, Graph, Operation, Result};

/// Whether the operand is a resource variable or a handle.
pub(super) fn is_handle(operand: &Operand) -> bool {
    match operand {
        Operand::Variable(variable) => variable.is_resource(),
        Operand::Tensor(tensor) => tensor.dtype() == DType::Resource,
        _ => false,
    }
}

/// Makes the op's references handles, and leaves out the reference that it hands on: `Assign` becomes what
/// `AssignVariableOp` is.
pub(super) fn by_handle(mut definition: OpDefinition) -> OpDefinition {
    for input in definition.inputs.iter_mut().filter(|input| input.is_ref) {
        (input.is_ref, input.ty) = (false, ArgType::Fixed(DType::Resource));
    }
    definition.outputs.retain(|output| !output.is_ref);
    definition.stateful()
}

/// Hands the reference of input 0 on, from an op that took one.
pub(super) fn hand_on(context: &mut KernelContext<'_>) {
    if context.num_outputs() > 0 {
        context.forward(0, 0);
    }
}

/// An update of a variable about to be made. Of a resource variable its result is a read that follows it.
pub(crate) struct Update {
    builder: OpBuilder,
    /// The handle and the dtype to read.
    handle: Option<(Result<Tensor>, Option<DType>)>,
}

impl Update {
    /// Begins an update of `variable` by the op that takes a reference or by the one that takes a handle.
    #[track_caller]
    pub(super) fn new(variable: impl IntoOperand, by_reference: &str, by_handle: &str) -> Self {
        let operand = variable.into_operand();
        if !is_handle(&operand) {
            return Self {
                builder: crate::op(by_reference).input(operand),
                handle: None,
            };
        }
        let (handle, dtype) = match &operand {
            Operand::Variable(variable) => (variable.handle().cloned(), Some(variable.dtype())),
            Operand::Tensor(tensor) => (Ok(tensor.clone()), tensor.handle_data().map(|handle| handle.dtype)),
            _ => unreachable!("neither a variable nor a tensor is a handle"),
        };
        Self {
            builder: crate::op(by_handle).input(operand),
            handle: Some((handle, dtype)),
        }
    }

    pub(super) fn input(mut self, operand: impl IntoOperand) -> Self {
        self.builder = self.builder.input(operand);
        self
    }

    /// The new value: what is no tensor becomes a constant beside the update of a resource variable, as in TensorFlow.
    #[track_caller]
    pub(super) fn value(self, operand: impl IntoOperand) -> Self {
        let operand = operand.into_operand();
        match &self.handle {
            Some((Ok(handle), dtype)) => {
                let value = constant_beside(handle.graph(), operand, *dtype);
                self.input(value)
            }
            _ => self.input(operand),
        }
    }

    /// Sets an attribute that the op has only where it takes a reference.
    pub(super) fn reference_attr(mut self, name: &'static str, value: impl Into<AttrValue>) -> Self {
        if self.handle.is_none() {
            self.builder = self.builder.attr(name, value);
        }
        self
    }

    pub(super) fn name(mut self, name: String) -> Self {
        self.builder = self.builder.name(name);
        self
    }

    pub(super) fn build_operation(self) -> Result<Operation> {
        self.builder.build_operation()
    }

    pub(super) fn build(self) -> Result<Tensor> {
        Ok(self.build_with_operation()?.1)
    }

    /// The operation that updates, and the variable's new value.
    pub(super) fn build_with_operation(self) -> Result<(Operation, Tensor)> {
        let update = self.builder.build_operation()?;
        let Some((handle, dtype)) = self.handle else {
            let reference = update.output(0);
            return Ok((update, reference));
        };
        let handle = handle?;
        let dtype = match dtype {
            Some(dtype) => dtype,
            None => ["dtype", "T"]
                .into_iter()
                .find_map(|name| update.attr(name).ok())
                .unwrap_or(DType::Float32),
        };
        let _after = scope::control_dependencies([&update])?;
        let value = crate::op("ReadVariableOp").input(handle).attr("dtype", dtype).build()?;
        Ok((update, value))
    }
}

/// A tensor as it is, anything else as a constant of the current scope.
#[track_caller]
fn constant_beside(graph: &Graph, operand: Operand, dtype: Option<DType>) -> Operand {
    match operand {
        Operand::Tensor(_) | Operand::Variable(_) | Operand::Failed(_) => operand,
        other => other.to_tensor(graph, "Const", dtype).into_operand(),
    }
}

/// Defines the builder of an update: a struct around [`Update`] with `name`, `build` and `build_operation`.
macro_rules! update_builder {
    ($(#[$doc:meta])* pub struct $name:ident;) => {
        $(#[$doc])*
        #[must_use = "an operation is made by `build`"]
        pub struct $name(pub(super) super::update::Update);

        impl $name {
            /// Names the operation.
            pub fn name(self, name: impl Into<String>) -> Self {
                Self(self.0.name(name.into()))
            }

            /// Makes the operation; the variable as a reference, or of a resource variable its new value.
            ///
            /// # Errors
            /// The operands' own, and `InvalidArgument` for wrong dtypes, shapes, attributes or names.
            #[track_caller]
            pub fn build(self) -> graph_core::Result<graph_core::graph::Tensor> {
                self.0.build()
            }

            /// Makes the operation; it, and what `build` gives.
            ///
            /// # Errors
            /// As for `build`.
            pub fn build_with_operation(self) -> graph_core::Result<(graph_core::Operation, graph_core::graph::Tensor)> {
                self.0.build_with_operation()
            }

            /// Makes the operation alone, without a read of a resource variable behind it.
            ///
            /// # Errors
            /// As for `build`.
            pub fn build_operation(self) -> graph_core::Result<graph_core::Operation> {
                self.0.build_operation()
            }
        }

        impl graph_core::graph::IntoOperand for $name {
            fn into_operand(self) -> graph_core::graph::Operand {
                self.build().into_operand()
            }
        }
    };
}
pub(super) use update_builder;
