//! `BroadcastTo` and `BroadcastArgs`.

use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result};

use crate::array::moving::{Movement, Word, plan};
use crate::array::shape::shape_of_type;
use crate::cpu::copy::{CopyAxis, copy_strided, strides};
use crate::cuda::SIZED;
use crate::cuda::copy::copy;

/// `BroadcastTo`
pub(crate) fn to_definition() -> OpDefinition {
    OpDefinition::new(
        "BroadcastTo",
        "A tensor repeated until it has a larger shape, as broadcasting does.",
    )
    .input("input: T")
    .input("shape: Tidx")
    .output("output: T")
    .attr("T: type")
    .attr("Tidx: {int32, int64} = DT_INT32")
    .plan_time_inputs(&[1])
    .shape(shape)
    .gradient(|context| {
        let target = context.input(1);
        let shape = shape_of_type(&context.input(0), target.dtype(), "Shape")?;
        let axes = context
            .node("BroadcastGradientArgs")
            .input(target)
            .input(&shape)
            .build_all()?;
        let sum = context
            .node("Sum")
            .input(context.gradient(0)?)
            .input(&axes[1])
            .attr("keep_dims", true)
            .build()?;
        let sum = context.node("Reshape").input(sum).input(shape).build()?;
        Ok(vec![Some(sum), None])
    })
    .kernel(KernelDefinition::cpu(|request| {
        plan(request, [0], Broadcast(axes(request)?))
    }))
    .kernel(KernelDefinition::cuda(|request| copy(request, 0, 0, &axes(request)?)).types("T", SIZED))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (input, target) = (context.input(0).clone(), context.shape_from_input(1)?);
    if let (Some(from), Some(to)) = (input.dims(), target.dims()) {
        let misfit = || Error::invalid_argument(format!("shape {input} cannot be broadcast to {target}"));
        let missing = to.len().checked_sub(from.len()).ok_or_else(misfit)?;
        let fits = from.iter().zip(&to[missing..]).all(|pair| match pair {
            (Some(from), Some(to)) => from == to || *from == 1,
            _ => true,
        });
        if !fits {
            return Err(misfit());
        }
    }
    context.set_output(0, target);
    Ok(())
}

struct Broadcast(Vec<CopyAxis>);

impl Movement for Broadcast {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        copy_strided(inputs[0], 0, outputs[0], 0, &self.0);
        Ok(())
    }
}

/// The output's axes, along some of which the input is repeated.
fn axes(request: &KernelRequest<'_>) -> Result<Vec<CopyAxis>> {
    let (input, output) = (request.input_shape(0), request.output_shape(0)?);
    let (from, to) = (strides(input), strides(output));
    let missing = output.rank() - input.rank();
    let axes = (0..output.rank()).map(|axis| {
        let stride = axis
            .checked_sub(missing)
            .filter(|&at| input[at] != 1)
            .map_or(0, |at| from[at]);
        CopyAxis {
            len: output[axis],
            from: stride as isize,
            to: to[axis] as isize,
        }
    });
    Ok(axes.collect())
}

/// `BroadcastArgs`
pub(crate) fn args_definition() -> OpDefinition {
    OpDefinition::new("BroadcastArgs", "The shape that two shapes broadcast to.")
        .input("s0: T")
        .input("s1: T")
        .output("r0: T")
        .attr("T: {int32, int64} = DT_INT32")
        .may_fail()
        .shape(|context| {
            let (a, b) = (context.with_rank(0, 1)?.dim(0), context.with_rank(1, 1)?.dim(0));
            context.set_output(0, PartialShape::from([a.zip(b).map(|(a, b)| a.max(b))]));
            Ok(())
        })
        .not_differentiable()
        .kernel(KernelDefinition::cpu(args::<i32>).types("T", &[DType::Int32]))
        .kernel(KernelDefinition::cpu(args::<i64>).types("T", &[DType::Int64]))
}

fn args<T: Element + num_traits::PrimInt>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (a, b, output) = (context.input::<T>(0)?, context.input::<T>(1)?, context.output::<T>(0)?);
        let dim = |shape: &[T], from_end: usize| shape.iter().rev().nth(from_end).copied().unwrap_or(T::one());
        for (from_end, out) in output.iter_mut().rev().enumerate() {
            *out = match (dim(a, from_end), dim(b, from_end)) {
                (a, b) if a == b || b == T::one() => a,
                (a, b) if a == T::one() => b,
                _ => {
                    return Err(Error::invalid_argument("incompatible shapes")
                        .got(format!("{a:?} and {b:?}"))
                        .hint(
                            "from the last dimension on, two dimensions must be equal, or one of them 1 or missing",
                        ));
                }
            };
        }
        Ok(())
    }))
}

/// `input` repeated until it has the shape `shape`, as broadcasting does.
///
/// # Errors
/// `InvalidArgument` if it does not broadcast to that shape.
#[track_caller]
pub fn broadcast_to(input: impl IntoOperand, shape: impl IntoOperand) -> OpBuilder {
    crate::op("BroadcastTo").input(input).input(shape)
}

/// The shape, as a vector, that tensors of the shapes `a` and `b` broadcast to.
///
/// # Errors
/// `InvalidArgument` in the run if they do not fit together.
#[track_caller]
pub fn broadcast_dynamic_shape(a: impl IntoOperand, b: impl IntoOperand) -> OpBuilder {
    crate::op("BroadcastArgs").input(a).input(b)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    vec![
        Case::new("BroadcastTo")
            .input([[1.0f32], [2.0]])
            .input([2i32, 3])
            .expect([[1.0f32; 3], [2.0; 3]]),
        Case::new("BroadcastTo")
            .input([1u8, 2])
            .input([2i64, 2])
            .expect([[1u8, 2], [1, 2]]),
        Case::new("BroadcastTo")
            .input(true)
            .input([0i32])
            .expect(Vec::<bool>::new()),
        Case::new("BroadcastTo")
            .input("a")
            .input([2i32])
            .expect(Value::from_strings([2], vec![b"a".to_vec(), b"a".to_vec()]).unwrap()),
        Case::new("BroadcastArgs")
            .input([3i32, 1])
            .input([2i32, 1, 5])
            .expect([2i32, 3, 5]),
        Case::new("BroadcastArgs")
            .input(Vec::<i64>::new())
            .input([0i64, 1])
            .expect([0i64, 1]),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    vec![
        crate::testing::GradientCase::new("BroadcastTo")
            .input([[1.0f64], [2.0]])
            .input([3i32, 2, 2]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn shapes_must_fit() {
        assert!(
            Case::new("BroadcastTo")
                .input([1.0f32, 2.0])
                .input([3i32])
                .run()
                .is_err()
        );
        assert!(Case::new("BroadcastTo").input([[1.0f32]]).input([1i32]).run().is_err());
        assert!(Case::new("BroadcastArgs").input([2i32]).input([3i32]).run().is_err());
    }
}
