//! Which operations may take what is made inside a loop: those inside it.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::graph::scope::ControlFlowContext;
use crate::graph::{Graph, Operation, TensorId};
use crate::op::{ControlFlow, OpDefinition};

type Context = Arc<dyn ControlFlowContext>;

/// The loops that `context` is or is in, inner ones first.
fn loops(context: Option<Context>) -> impl Iterator<Item = Context> {
    std::iter::successors(context, |context| context.outer()).filter(|context| context.branch().is_none())
}

/// The branch or loop that the outputs of an operation belong to: those of an Exit are outside of its loop.
pub(crate) fn output_context(operation: &Operation) -> Option<Context> {
    let context = operation.control_flow_context();
    match operation.definition().control_flow {
        ControlFlow::Exit => context.and_then(|context| context.outer()),
        _ => context,
    }
}

/// Whether the outputs of an operation belong to a loop.
pub(crate) fn is_inside_loop(operation: &Operation) -> bool {
    loops(output_context(operation)).next().is_some()
}

/// Checks the inputs of an operation about to be made in `context`.
///
/// # Errors
/// `InvalidArgument` for an input that is inside of a loop which the operation is not in.
pub(crate) fn check(
    graph: &Graph,
    definition: &OpDefinition,
    context: Option<&Context>,
    inputs: &[TensorId],
) -> Result<()> {
    let brings_in = matches!(definition.control_flow, ControlFlow::Enter | ControlFlow::Switch);
    if brings_in || graph.read(|data| data.contexts.is_empty()) {
        return Ok(());
    }
    let around: Vec<Context> = loops(context.cloned()).collect();
    // Loops of gradients bring in what their loops kept.
    if around.iter().any(|context| context.gradient_of().is_some()) {
        return Ok(());
    }
    for input in inputs {
        let source = Operation::new(graph, input.node);
        let Some(inner) = loops(output_context(&source)).next() else {
            continue;
        };
        if !around.iter().any(|context| Arc::ptr_eq(context, &inner)) {
            return Err(Error::invalid_argument(format!(
                "'{}' is inside a while loop, and cannot be used outside of it",
                source.name()
            ))
            .hint("use what comes out of the loop; a TensorArray brings out the values of all iterations"));
        }
    }
    Ok(())
}
