//! Gradients of TensorArrays: what was read from an array is written to the array of its gradients, and the other way round.

use graph_core::gradients::GradientContext;
use graph_core::graph::Tensor;
use graph_core::graph::scope::{colocate_with, control_dependencies, name_scope};
use graph_core::{Error, Result};

/// The array of the gradients of the op's TensorArray, and a flow behind its making.
fn array(context: &GradientContext<'_>, flow: &Tensor, named: &Tensor) -> Result<(Tensor, Tensor)> {
    let handle = context.input(0);
    let source = source_of(&named.name())?;
    let _scope = name_scope("TensorArrayGrad")?;
    let made = {
        let _beside = colocate_with(&handle.op());
        let make = context.node("TensorArrayGradV3").input(&handle).input(flow);
        make.attr("source", source).build_all()?.swap_remove(0)
    };
    let _after = control_dependencies([&made.op()])?;
    let flow = context.node("Identity").input(flow).name("gradient_flow").build()?;
    Ok((made, flow))
}

/// The name of the gradient computation: that of its outermost scope that begins with "gradients".
fn source_of(name: &str) -> Result<String> {
    let scopes: Vec<&str> = name.split('/').collect();
    let last = scopes
        .iter()
        .rposition(|scope| scope.starts_with("gradients"))
        .ok_or_else(|| {
            Error::invalid_argument("a TensorArray's gradient must be in a scope whose name begins with 'gradients'")
                .got(name)
        })?;
    Ok(scopes[..=last].join("/"))
}

pub(super) fn of_read(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let (array, flow) = array(context, &context.input(2), &gradient)?;
    let write = context.node("TensorArrayWriteV3").input(array).input(context.input(1));
    Ok(vec![None, None, Some(write.input(gradient).input(flow).build()?)])
}

pub(super) fn of_write(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let (array, flow) = array(context, &gradient, &gradient)?;
    let read = context
        .node("TensorArrayReadV3")
        .input(array)
        .input(context.input(1))
        .input(flow);
    let value = read.attr("dtype", context.input(2).dtype()).build()?;
    Ok(vec![None, None, Some(value), Some(gradient)])
}

pub(super) fn of_gather(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let (array, flow) = array(context, &context.input(2), &gradient)?;
    let scatter = context
        .node("TensorArrayScatterV3")
        .input(array)
        .input(context.input(1));
    Ok(vec![None, None, Some(scatter.input(gradient).input(flow).build()?)])
}

pub(super) fn of_scatter(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let (array, flow) = array(context, &gradient, &gradient)?;
    let gather = context
        .node("TensorArrayGatherV3")
        .input(array)
        .input(context.input(1))
        .input(flow);
    let value = gather.attr("dtype", context.input(2).dtype()).build()?;
    Ok(vec![None, None, Some(value), Some(gradient)])
}

pub(super) fn of_concat(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let (array, flow) = array(context, &context.input(1), &gradient)?;
    let split = context.node("TensorArraySplitV3").input(array).input(gradient);
    Ok(vec![None, Some(split.input(context.output(1)).input(flow).build()?)])
}

pub(super) fn of_split(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let (array, flow) = array(context, &gradient, &gradient)?;
    let concat = context.node("TensorArrayConcatV3").input(array).input(flow);
    let value = concat
        .attr("dtype", context.input(1).dtype())
        .build_all()?
        .swap_remove(0);
    Ok(vec![None, Some(value), None, Some(gradient)])
}
