//! `Tile`: a tensor repeated along its dimensions.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Error, PartialShape, Result};

use crate::array::axis::planned_ints;
use crate::array::moving::{Movement, Word, plan};
use crate::array::shape::shape_of_type;
use crate::array::shape_of::size_of;
use crate::cpu::copy::{CopyAxis, strides};
use crate::cuda::SIZED;
use crate::cuda::copy::copy;

/// The op's definition.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new("Tile", "A tensor repeated multiples[i] times along each dimension i.")
        .input("input: T")
        .input("multiples: Tmultiples")
        .output("output: T")
        .attr("T: type")
        .attr("Tmultiples: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[1])
        .shape(shape)
        .gradient(gradient)
        .kernel(KernelDefinition::cpu(kernel))
        .kernel(KernelDefinition::cuda(on_device).types("T", SIZED))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    context.with_rank(1, 1)?;
    if let Some(multiples) = context.int_values(1)?
        && let Some(&bad) = multiples.iter().find(|&&multiple| multiple < 0)
    {
        return Err(Error::invalid_argument("a multiple must not be negative").got(bad));
    }
    let multiples = context.shape_from_input(1)?;
    let rank = context.input(0).rank().or(multiples.rank());
    let Some(rank) = rank else { return Ok(()) };
    let input = context.with_rank(0, rank)?;
    if multiples.rank().is_some_and(|len| len != rank) {
        return Err(Error::invalid_argument("there must be one multiple for each dimension")
            .expected(format!("{rank} multiples"))
            .got(&multiples));
    }
    let dims = (0..rank).map(|axis| match (input.dim(axis), multiples.dim(axis)) {
        (Some(dim), Some(multiple)) => dim.checked_mul(multiple).map(Some).ok_or_else(too_large),
        _ => Ok(None),
    });
    let dims = dims.collect::<Result<Vec<_>>>()?;
    context.set_output(0, PartialShape::from(dims));
    Ok(())
}

fn too_large() -> Error {
    Error::invalid_argument("the shape has too many elements")
}

/// The sum over the repetitions.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (input, multiples) = (context.input(0), context.input(1));
    let shape = shape_of_type(&input, multiples.dtype(), "Shape")?;
    let pairs = Operand::List(vec![multiples.into_operand(), shape.into_operand()]);
    let pairs = pairs.to_tensor(context.op().graph(), "stack", None)?;
    let pairs = crate::array::transpose(pairs).build()?;
    let split = context.node("Reshape").input(pairs).input([-1i32]).build()?;
    let count = size_of(&split, "Size")?;
    let axes = context
        .node("Range")
        .input(0i32)
        .input(count)
        .input(2i32)
        .name("range")
        .build()?;
    let parts = context
        .node("Reshape")
        .input(context.gradient(0)?)
        .input(split)
        .name("Reshape_1")
        .build()?;
    let sum = context.node("Sum").input(parts).input(axes).build()?;
    sum.set_shape(input.shape())?;
    Ok(vec![Some(sum), None])
}

struct Repeat {
    shape: Vec<usize>,
    multiples: Vec<usize>,
}

impl Movement for Repeat {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        crate::cpu::copy::tile(inputs[0], &self.shape, &self.multiples, outputs[0]);
        Ok(())
    }
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (input, output) = (request.input_shape(0), request.output_shape(0)?);
    let (from, to) = (strides(input), strides(output));
    let axes = (0..input.rank()).flat_map(|axis| {
        let repetitions = CopyAxis {
            len: output[axis].checked_div(input[axis]).unwrap_or(0),
            from: 0,
            to: (input[axis] * to[axis]) as isize,
        };
        let elements = CopyAxis {
            len: input[axis],
            from: from[axis] as isize,
            to: to[axis] as isize,
        };
        [repetitions, elements]
    });
    copy(request, 0, 0, &axes.collect::<Vec<_>>())
}

fn kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let multiples = planned_ints(request, 1)?.into_iter().map(crate::array::axis::dimension);
    let multiples = multiples.collect::<Result<Vec<_>>>()?;
    plan(
        request,
        [0],
        Repeat {
            shape: request.input_shape(0).to_vec(),
            multiples,
        },
    )
}

/// `input` repeated `multiples[i]` times along each dimension i.
///
/// ```
/// use graph_ops::array::{constant, tile};
/// let rows = tile(constant([[1, 2]]), [3, 2]).build()?;
/// assert_eq!(rows.shape(), [3, 4].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` if there is not one multiple for each dimension, or if one is negative.
#[track_caller]
pub fn tile(input: impl IntoOperand, multiples: impl IntoOperand) -> OpBuilder {
    crate::op("Tile").input(input).input(multiples)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{DType, Value};
    vec![
        Case::new("Tile")
            .input([1.0f32, 2.0])
            .input([2i32])
            .expect([1.0f32, 2.0, 1.0, 2.0]),
        Case::new("Tile")
            .input([[1i64], [2]])
            .input([1i64, 3])
            .expect([[1i64, 1, 1], [2, 2, 2]]),
        Case::new("Tile").input(2u8).input(Vec::<i32>::new()).expect(2u8),
        Case::new("Tile")
            .input([true])
            .input([0i32])
            .expect(Value::zeros(DType::Bool, [0]).unwrap()),
        Case::new("Tile")
            .input(Value::string("ab").reshaped([1]).unwrap())
            .input([2i32])
            .expect(Value::from_strings([2], vec![b"ab".to_vec(), b"ab".to_vec()]).unwrap()),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    vec![
        crate::testing::GradientCase::new("Tile")
            .input([[1.0f64, 2.0], [3.0, 4.0]])
            .input([2i32, 3]),
    ]
}
