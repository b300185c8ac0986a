//! The ops that branches and loops are made of: `Switch`, `Merge`, `Enter`, `Exit`, `NextIteration`, `LoopCond`.
//!
//! A value that a `Switch` does not let through is dead, and so is what is computed from it, until a `Merge`.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{ControlFlow, InferenceContext, KernelContext, KernelDefinition, OpDefinition};
use graph_core::{Error, PartialShape, Result};

use super::context::switch_beside;
use super::while_loop::context::{carry_on, current_gradient, output_context};
use super::while_loop::gradient::is_loop_switch;

/// The definition of `Switch`.
pub(crate) fn switch_definition() -> OpDefinition {
    switch_like(
        OpDefinition::new(
            "Switch",
            "Its input at output 1 where the condition is true, else at output 0; the other output is dead.",
        )
        .input("data: T")
        .input("pred: bool")
        .output("output_false: T")
        .output("output_true: T"),
    )
}

/// The definition of `RefSwitch`.
pub(crate) fn ref_switch() -> OpDefinition {
    switch_like(
        OpDefinition::new("RefSwitch", "As `Switch`, for a reference to a variable.")
            .input("data: Ref(T)")
            .input("pred: bool")
            .output("output_false: Ref(T)")
            .output("output_true: Ref(T)")
            .allows_uninitialized_input(),
    )
}

fn switch_like(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("T: type")
        .control_flow(ControlFlow::Switch)
        .shape(|context| {
            context.with_rank(1, 0)?;
            if let Some(handle) = context.handle(0) {
                context.set_handle(0, handle.clone());
                context.set_handle(1, handle);
            }
            InferenceContext::unchanged(context)
        })
        .value_as_shape(|context, _| context.value_as_shape(0))
        .gradient(switch_gradient)
        .kernel(KernelDefinition::direct(run_switch))
}

fn run_switch(context: &mut KernelContext<'_>) -> Result<()> {
    let taken = match context.input::<bool>(1)? {
        [taken] => usize::from(*taken),
        _ => {
            return Err(Error::invalid_argument("the condition of a Switch must be a scalar")
                .got(format!("shape {}", context.input_shape(1))));
        }
    };
    context.forward(0, taken);
    context.set_dead(1 - taken);
    Ok(())
}

/// The gradient of the output that was taken; that of the other is zeros, alive as the output is.
fn switch_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    if is_loop_switch(context.op()) {
        return loop_switch_gradient(context);
    }
    let (Some(when_false), Some(when_true)) = (context.optional_gradient(0), context.optional_gradient(1)) else {
        return Ok(vec![None, None]);
    };
    let in_branch = context
        .op()
        .control_flow_context()
        .is_some_and(|inner| inner.branch().is_some());
    let merged = if in_branch {
        context
            .node("Merge")
            .input([when_false, when_true])
            .name("cond_grad")
            .build()?
    } else {
        let taken = |gradient: &Tensor| {
            context
                .node("Switch")
                .input(gradient)
                .input(context.input(1))
                .build_all()
        };
        let (when_false, when_true) = (taken(&when_false)?.remove(0), taken(&when_true)?.remove(1));
        context.node("Merge").input([when_false, when_true]).build()?
    };
    Ok(vec![Some(merged), None])
}

/// Met twice: first with the gradient of what leaves the loop, which begins a loop variable of its own, then with that of
/// what goes on, which is its value in the next iteration.
fn loop_switch_gradient(context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let switch = context.op();
    let gradient = current_gradient(switch.graph()).filter(|gradient| gradient.is_of(switch));
    let Some(gradient) = gradient else {
        return Err(Error::invalid_argument(
            "inside a loop nothing can be derived by what one of its variables was before",
        )
        .at(switch.site())
        .hint("derive by what the body is given, or by what comes in from outside; or derive behind the loop"));
    };
    match (
        gradient.merge_for(switch)?,
        context.optional_gradient(0),
        context.optional_gradient(1),
    ) {
        (Some(merge), _, Some(next)) => {
            carry_on(&merge, next)?;
            Ok(vec![None, None])
        }
        (None, Some(end), _) => Ok(vec![Some(gradient.begin_merge(switch, &end)?), None]),
        _ => Ok(vec![None, None]),
    }
}

/// The definition of `Merge`.
pub(crate) fn merge_definition() -> OpDefinition {
    merge_like(
        OpDefinition::new("Merge", "The one of its inputs that is alive, and its index.")
            .input("inputs: N * T")
            .output("output: T"),
    )
}

/// The definition of `RefMerge`.
pub(crate) fn ref_merge() -> OpDefinition {
    merge_like(
        OpDefinition::new("RefMerge", "As `Merge`, for references to variables.")
            .input("inputs: N * Ref(T)")
            .output("output: Ref(T)")
            .allows_uninitialized_input(),
    )
}

fn merge_like(definition: OpDefinition) -> OpDefinition {
    definition
        .output("value_index: int32")
        .attr("T: type")
        .attr("N: int >= 1")
        .control_flow(ControlFlow::Merge)
        .shape(merge_shape)
        .gradient(merge_gradient)
        .kernel(KernelDefinition::direct(run_merge))
}

/// What all inputs agree on: an unknown rank where ranks differ, an unknown dimension where dimensions do.
fn merge_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let mut shapes = context.inputs().iter();
    let mut shape = shapes.next().cloned().unwrap_or_else(PartialShape::unknown);
    for other in shapes {
        shape = match (shape.dims(), other.dims()) {
            (Some(a), Some(b)) if a.len() == b.len() => {
                PartialShape::from_dims(a.iter().zip(b).map(|(&a, &b)| if a == b { a } else { None }))
            }
            _ => PartialShape::unknown(),
        };
    }
    context.set_output(0, shape);
    context.set_output(1, PartialShape::scalar());
    Ok(())
}

/// The gradient of the output goes to the input that was alive.
fn merge_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let inputs = context.op().inputs();
    let source = inputs[0].op();
    let gradient_loop = current_gradient(source.graph());
    if source.definition().control_flow == ControlFlow::Enter
        && let Some(gradient_loop) = &gradient_loop
    {
        let decision = gradient_loop.decision(source.graph())?;
        let ways = switch_beside(&gradient, &decision, "Switch")?.outputs();
        return Ok(ways.into_iter().map(Some).collect());
    }
    let branch = output_context(&source);
    if let Some((predicate, _)) = branch.and_then(|inner| inner.branch()) {
        let mut predicate = context.op().graph().tensor_at(predicate)?;
        if let Some(gradient_loop) = &gradient_loop {
            // Each iteration has a condition of its own.
            predicate = gradient_loop.kept_predicate(&predicate)?;
        }
        let ways = switch_beside(&gradient, &predicate, "cond_grad")?.outputs();
        return Ok(ways.into_iter().map(Some).collect());
    }
    let alive: Vec<Tensor> = (0..inputs.len() as i32)
        .map(|index| context.node("Equal").input(context.output(1)).input(index).build())
        .collect::<Result<_>>()?;
    alive
        .iter()
        .map(|alive| Ok(Some(switch_beside(&gradient, alive, "Switch")?.output(1))))
        .collect()
}

fn run_merge(context: &mut KernelContext<'_>) -> Result<()> {
    let alive = (0..context.num_inputs()).find(|&index| !context.is_dead(index));
    match alive {
        Some(index) => {
            context.output::<i32>(1)?[0] = index as i32;
            context.forward(index, 0);
        }
        None => {
            context.set_dead(0);
            context.set_dead(1);
        }
    }
    Ok(())
}

macro_rules! passing {
    ($($function:ident, $name:literal, $ty:literal, $flow:ident, $gradient:ident, $summary:literal;)*) => {$(
        #[doc = concat!("The definition of `", $name, "`.")]
        pub(crate) fn $function() -> OpDefinition {
            OpDefinition::new($name, $summary)
                .input(concat!("data: ", $ty))
                .output(concat!("output: ", $ty))
                .attr("T: type")
                .control_flow(ControlFlow::$flow)
                .shape(InferenceContext::unchanged)
                .gradient($gradient)
                .kernel(KernelDefinition::alias())
        }
    )*};
}

passing! {
    exit, "Exit", "T", Exit, exit_gradient, "Leaves a loop's frame.";
    ref_exit, "RefExit", "Ref(T)", Exit, exit_gradient, "As `Exit`, for a reference to a variable.";
    next_iteration, "NextIteration", "T", NextIteration, pass_back, "Carries a value to a loop's next iteration.";
    ref_next_iteration, "RefNextIteration", "Ref(T)", NextIteration, pass_back, "As `NextIteration`, for a reference to a variable.";
}

/// The loop of gradients takes over what its Switch carries on.
fn pass_back(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    Ok(vec![context.optional_gradient(0)])
}

/// What leaves the loop is what the loop of gradients begins with.
fn exit_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let gradient_loop = current_gradient(context.op().graph());
    let Some(gradient_loop) = gradient_loop else {
        return Err(Error::internal("there is no loop of gradients").at(context.op().site()));
    };
    Ok(vec![gradient_loop.begin_with(context.op(), &gradient)?])
}

/// What comes in as a constant has the gradients of all iterations; what a variable begins with, what is left after them.
fn enter_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let Some(gradient_loop) = current_gradient(context.op().graph()).filter(|gradient| gradient.is_of(context.op()))
    else {
        return Ok(vec![Some(gradient)]);
    };
    if context.attr("is_constant")? {
        return Ok(vec![Some(gradient_loop.accumulate(context.op(), &gradient)?)]);
    }
    let exit = context.node("Exit").input(&gradient).build()?;
    Ok(vec![Some(exit)])
}

/// The definition of `Enter`.
pub(crate) fn enter() -> OpDefinition {
    enter_like(
        OpDefinition::new("Enter", "Enters the frame of a loop.")
            .input("data: T")
            .output("output: T"),
    )
}

/// The definition of `RefEnter`.
pub(crate) fn ref_enter() -> OpDefinition {
    enter_like(
        OpDefinition::new("RefEnter", "As `Enter`, for a reference to a variable.")
            .input("data: Ref(T)")
            .output("output: Ref(T)"),
    )
}

fn enter_like(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("T: type")
        .attr("frame_name: string")
        .attr("is_constant: bool = false")
        .attr("parallel_iterations: int = 10")
        .control_flow(ControlFlow::Enter)
        .shape(enter_shape)
        .gradient(enter_gradient)
        .kernel(KernelDefinition::alias())
}

/// What enters as a constant keeps its shape; a loop's variable may change its own from one iteration to the next.
fn enter_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    if context.attr("is_constant")? {
        context.set_output(0, context.input(0));
    }
    Ok(())
}

/// The definition of `LoopCond`.
pub(crate) fn loop_cond() -> OpDefinition {
    OpDefinition::new("LoopCond", "The condition of a loop.")
        .input("input: bool")
        .output("output: bool")
        .control_flow(ControlFlow::LoopCond)
        .shape(|context| {
            let shape = context.with_rank(0, 0)?;
            context.set_output(0, shape);
            Ok(())
        })
        .not_differentiable()
        .kernel(KernelDefinition::alias())
}

/// `data` where `condition` (a scalar) is false, and `data` where it is true; when the graph runs one of the two is dead.
///
/// # Errors
/// The operands' own, or those of making a node.
#[track_caller]
pub fn switch(data: impl IntoOperand, condition: impl IntoOperand) -> Result<(Tensor, Tensor)> {
    let outputs = crate::op("Switch").input(data).input(condition).build_operation()?;
    Ok((outputs.output(0), outputs.output(1)))
}

/// What [`merge`] gives.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The input that is alive.
    pub output: Tensor,
    /// Its index, an `int32` scalar.
    pub value_index: Tensor,
}

/// The one of `inputs` (of one dtype) that is alive when the graph runs.
///
/// # Errors
/// The operands' own, or those of making a node.
#[track_caller]
pub fn merge(inputs: impl IntoOperand) -> Result<Merged> {
    let outputs = crate::op("Merge").input(inputs).build_operation()?;
    Ok(Merged {
        output: outputs.output(0),
        value_index: outputs.output(1),
    })
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let pass = |op| Case::new(op).input([1.0f32, 2.0]).expect([1.0f32, 2.0]);
    vec![
        Case::new("Merge")
            .input([1.0f32, 2.0])
            .input([3.0f32])
            .expect([1.0f32, 2.0])
            .expect(0i32),
        Case::new("LoopCond").input(true).expect(true),
        pass("Exit"),
        pass("NextIteration"),
        pass("Enter").attr("frame_name", "frame").attr("is_constant", true),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::constant;
    use crate::testing::Case;
    use graph_core::graph::Graph;

    #[test]
    fn what_a_switch_does_not_take_is_dead() {
        let error = Case::new("Switch").input(1.0f32).input(true).run().unwrap_err();
        assert!(error.to_string().contains("dead"), "{error}");
        let error = Case::new("Switch")
            .input(1.0f32)
            .input([true, false])
            .run()
            .unwrap_err();
        assert_eq!(error.class(), "InvalidArgument");
    }

    #[test]
    fn a_merge_knows_what_its_inputs_agree_on() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let a = constant([[1.0f32, 2.0]]).build().unwrap();
        let b = constant([[1.0f32], [2.0]]).build().unwrap();
        let c = constant(1.0f32).build().unwrap();
        assert_eq!(
            merge([&a, &b]).unwrap().output.shape(),
            PartialShape::unknown_of_rank(2)
        );
        assert_eq!(merge([&a, &a]).unwrap().output.shape(), PartialShape::from([1usize, 2]));
        assert_eq!(merge([&a, &c]).unwrap().output.shape(), PartialShape::unknown());
        let (no, yes) = switch(&a, true).unwrap();
        assert_eq!((no.name().as_str(), yes.name().as_str()), ("Switch:0", "Switch:1"));
        assert!(switch(&a, [true]).is_err());
    }
}
