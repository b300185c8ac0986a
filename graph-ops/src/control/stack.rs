//! Stacks of tensors, on which loops keep what their gradients need.

use std::sync::{Arc, Mutex};

use graph_core::accelerator::StoredTensor;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, PartialShape, Result};

use crate::cuda::SIZED;

/// What a stack holds while a run lasts.
struct Stack {
    dtype: DType,
    /// `None` for as many as fit into memory.
    most: Option<usize>,
    /// In the memory of the device that pushed them.
    values: Mutex<Option<Vec<StoredTensor>>>,
}

impl Stack {
    fn with<T>(&self, change: impl FnOnce(&mut Vec<StoredTensor>) -> Result<T>) -> Result<T> {
        let mut values = self.values.lock().unwrap_or_else(|poison| poison.into_inner());
        change(
            values
                .as_mut()
                .ok_or_else(|| Error::invalid_argument("the stack is closed"))?,
        )
    }
}

/// `StackV2`
pub(crate) fn stack() -> OpDefinition {
    OpDefinition::new("StackV2", "A new stack of tensors, which lives as long as the run.")
        .input("max_size: int32")
        .output("handle: resource")
        .attr("elem_type: type")
        .attr("stack_name: string = ''")
        .stateful()
        .shape(|context| {
            context.with_rank(0, 0)?;
            // TensorFlow takes a handle for two strings.
            context.set_output(0, PartialShape::vector(2));
            Ok(())
        })
        .no_gradient()
        .kernel(
            KernelDefinition::cpu(|request| {
                let dtype = request.attr("elem_type")?;
                Ok(Planned::new(move |context| {
                    let most = context.input::<i32>(0)?.first().copied().unwrap_or(-1);
                    let stack = Stack {
                        dtype,
                        most: usize::try_from(most).ok(),
                        values: Mutex::new(Some(Vec::new())),
                    };
                    context.set_object(0, Arc::new(stack));
                    Ok(())
                }))
            })
            .data_dependent(),
        )
}

fn of_stack(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("handle: resource")
        .stateful()
        .allows_uninitialized_input()
        .no_gradient()
}

/// `StackPushV2`
pub(crate) fn push() -> OpDefinition {
    of_stack("StackPushV2", "Puts a tensor onto a stack, and passes it on.")
        .input("elem: T")
        .output("output: T")
        .attr("T: type")
        .attr("swap_memory: bool = false")
        .shape(|context| {
            context.set_output(0, context.input(1).clone());
            Ok(())
        })
        .kernel(KernelDefinition::direct(run_push).data_dependent())
        .kernel(
            KernelDefinition::cuda(|_| Ok(Planned::new(run_push)))
                .types("T", SIZED)
                .data_dependent(),
        )
}

fn run_push(context: &mut KernelContext<'_>) -> Result<()> {
    let (stack, value) = (context.object::<Stack>(0)?, context.stored_input(1)?);
    if value.dtype() != stack.dtype {
        return Err(Error::invalid_argument("the stack is of another dtype")
            .expected(stack.dtype)
            .got(value.dtype()));
    }
    stack.with(|values| {
        if stack.most.is_some_and(|most| values.len() >= most) {
            return Err(Error::invalid_argument("the stack is full").got(values.len()));
        }
        values.push(value.clone());
        Ok(())
    })?;
    context.set_stored_output(0, value)
}

/// `StackPopV2`
pub(crate) fn pop() -> OpDefinition {
    of_stack("StackPopV2", "Takes the last tensor from a stack.")
        .output("elem: elem_type")
        .attr("elem_type: type")
        .shape(InferenceContext::unknown_shapes)
        .kernel(KernelDefinition::cpu(make_pop).data_dependent())
        .kernel(
            KernelDefinition::cuda(make_pop)
                .types("elem_type", SIZED)
                .data_dependent(),
        )
}

fn make_pop(request: &KernelRequest<'_>) -> Result<Planned> {
    let dtype = request.output_dtype(0);
    Ok(Planned::new(move |context| {
        let stack = context.object::<Stack>(0)?;
        if stack.dtype != dtype {
            return Err(Error::invalid_argument("the stack is of another dtype")
                .expected(dtype)
                .got(stack.dtype));
        }
        let value = stack.with(|values| {
            values
                .pop()
                .ok_or_else(|| Error::invalid_argument("the stack is empty"))
        })?;
        context.set_stored_output(0, value)
    }))
}

/// `StackCloseV2`
pub(crate) fn close() -> OpDefinition {
    of_stack("StackCloseV2", "Drops what a stack holds, before the run ends.").kernel(KernelDefinition::direct(
        |context| {
            let stack = context.object::<Stack>(0)?;
            *stack.values.lock().unwrap_or_else(|poison| poison.into_inner()) = None;
            Ok(())
        },
    ))
}

#[cfg(test)]
mod tests {
    use graph_core::graph::Tensor;
    use graph_core::graph::scope::control_dependencies;
    use graph_core::{DType, Graph, Result, Session, Value};

    fn pushed(handle: &Tensor, value: Value) -> Result<Tensor> {
        crate::op("StackPushV2").input(handle).input(value).build()
    }

    fn popped(handle: &Tensor) -> Result<Tensor> {
        let pop = crate::op("StackPopV2").input(handle);
        pop.attr("elem_type", DType::Float32).build()
    }

    #[test]
    fn the_last_one_in_is_the_first_one_out() -> Result<()> {
        let graph = Graph::new();
        let _default = graph.as_default();
        let stack = crate::op("StackV2")
            .input(2i32)
            .attr("elem_type", DType::Float32)
            .build()?;
        let first = pushed(&stack, [1.0f32].into())?;
        let _scope = control_dependencies([&first.op()])?;
        let second = pushed(&stack, [2.0f32, 3.0].into())?;
        let _scope = control_dependencies([&second.op()])?;
        let last = popped(&stack)?;
        let too_many = pushed(&stack, 1.0f32.into())?;
        let _scope = control_dependencies([&last.op()])?;
        let before = popped(&stack)?;
        let _scope = control_dependencies([&before.op()])?;
        let (none, closed) = (
            popped(&stack)?,
            crate::op("StackCloseV2").input(&stack).build_operation()?,
        );
        let _scope = control_dependencies([&closed])?;
        let late = pushed(&stack, 1.0f32.into())?;
        let session = Session::new(&graph)?;
        let values: (Value, Value) = session.run((&last, &before), ())?;
        assert_eq!(values, ([2.0f32, 3.0].into(), [1.0f32].into()));
        for fails in [&too_many, &none, &late] {
            let error = session.run::<Value>(fails, ()).unwrap_err();
            assert_eq!(error.class(), "InvalidArgument", "{error}");
        }
        Ok(())
    }
}
