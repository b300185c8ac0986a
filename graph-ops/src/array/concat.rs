//! `Concat`, `ConcatV2` and `ConcatOffset`: tensors one behind the other.

use std::ops::Range;

use graph_core::gradients::GradientContext;
use graph_core::graph::builder::constant_in;
use graph_core::graph::scope::name_scope_in;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Dim, Element, Error, Graph, PartialShape, Result};

use crate::array::axis::{around, axis_of, known_scalar, planned_scalar};
use crate::array::moving::{Movement, Word, plan};
use crate::array::shape_of::rank_of;
use crate::cpu::copy::CopyAxis;
use crate::cuda::SIZED;
use crate::cuda::copy::{Transfer, copies};

/// `Concat`
pub(crate) fn concat_definition() -> OpDefinition {
    OpDefinition::new("Concat", "Tensors joined along an axis; the axis comes first.")
        .input("concat_dim: int32")
        .input("values: N * T")
        .output("output: T")
        .attr("N: int >= 2")
        .attr("T: type")
        .plan_time_inputs(&[0])
        .shape(|context| joined(context, 0, 1..context.num_inputs()))
        .value_as_shape(|context, _| joined_values(context, 1..context.num_inputs()))
        .gradient(|context| gradient(context, 0))
        .kernel(KernelDefinition::cpu(|request| {
            kernel(request, 0, 1..request.num_inputs())
        }))
        .kernel(KernelDefinition::cuda(|request| on_device(request, 0, 1..request.num_inputs())).types("T", SIZED))
}

/// `ConcatV2`
pub(crate) fn concat_v2_definition() -> OpDefinition {
    OpDefinition::new("ConcatV2", "Tensors joined along an axis.")
        .input("values: N * T")
        .input("axis: Tidx")
        .output("output: T")
        .attr("N: int >= 2")
        .attr("T: type")
        .attr("Tidx: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[1])
        .shape(|context| joined(context, context.num_inputs() - 1, 0..context.num_inputs() - 1))
        .value_as_shape(|context, _| joined_values(context, 0..context.num_inputs() - 1))
        .gradient(|context| gradient(context, context.op().inputs().len() - 1))
        .kernel(KernelDefinition::cpu(|request| {
            let last = request.num_inputs() - 1;
            kernel(request, last, 0..last)
        }))
        .kernel(
            KernelDefinition::cuda(|request| {
                let last = request.num_inputs() - 1;
                on_device(request, last, 0..last)
            })
            .types("T", SIZED),
        )
}

fn joined(context: &mut InferenceContext<'_>, axis: usize, values: Range<usize>) -> Result<()> {
    let axis = known_scalar(context, axis)?;
    let Some(rank) = values.clone().find_map(|index| context.input(index).rank()) else {
        return Ok(());
    };
    let Some(axis) = axis else {
        if let Some(odd) = values
            .clone()
            .find(|&index| context.input(index).rank().is_some_and(|other| other != rank))
        {
            return Err(misfit(rank, context.input(odd)));
        }
        context.set_output(0, PartialShape::unknown_of_rank(rank));
        return Ok(());
    };
    if rank == 0 {
        return Err(Error::invalid_argument("scalars cannot be joined").hint("stack them instead"));
    }
    let axis = axis_of(axis, rank)?;
    let mut shape = PartialShape::unknown_of_rank(rank);
    let mut length: Dim = Some(0);
    for index in values {
        let input = context.input(index);
        if input.rank().is_some_and(|other| other != rank) {
            return Err(misfit(rank, input));
        }
        length = length.zip(input.dim(axis)).map(|(a, b)| a + b);
        let others = crate::array::axis::with_dim(input, axis, None);
        shape = shape.merge(&others).map_err(|_| {
            Error::invalid_argument(format!("the tensors differ in another dimension than {axis}"))
                .expected(&shape)
                .got(input)
        })?;
    }
    context.set_output(0, crate::array::axis::with_dim(&shape, axis, length));
    Ok(())
}

fn misfit(rank: usize, got: &PartialShape) -> Error {
    Error::invalid_argument("the tensors differ in rank")
        .expected(format!("rank {rank}"))
        .got(format!("shape {got}"))
}

/// Vectors of dimensions one behind the other.
fn joined_values(context: &InferenceContext<'_>, values: Range<usize>) -> Option<PartialShape> {
    values.into_iter().try_fold(PartialShape::scalar(), |shape, index| {
        // A vector of unknown elements still says how many dimensions it has.
        let part = context.shape_from_input(index).ok()?;
        Some(shape.concatenate(&part)).filter(|shape| shape.rank().is_some())
    })
}

struct Join {
    lengths: Vec<usize>,
    outer: usize,
    inner: usize,
}

impl Join {
    fn new(request: &KernelRequest<'_>, axis: usize, values: Range<usize>) -> Result<Self> {
        let first = request.input_shape(values.start);
        let axis = axis_of(planned_scalar(request, axis)?, first.rank())?;
        let [outer, _, inner] = around(first, axis);
        let lengths = values.map(|index| request.input_shape(index)[axis]).collect();
        Ok(Self { lengths, outer, inner })
    }
}

impl Movement for Join {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        crate::cpu::copy::concat(inputs, &self.lengths, self.outer, self.inner, outputs[0]);
        Ok(())
    }
}

fn kernel(request: &KernelRequest<'_>, axis: usize, values: Range<usize>) -> Result<Planned> {
    let join = Join::new(request, axis, values.clone())?;
    plan(request, values, join)
}

fn on_device(request: &KernelRequest<'_>, axis: usize, values: Range<usize>) -> Result<Planned> {
    let Join { lengths, outer, inner } = Join::new(request, axis, values.clone())?;
    let whole = lengths.iter().sum::<usize>() * inner;
    let mut start = 0;
    let parts = values.zip(lengths).map(|(input, length)| {
        let run = length * inner;
        let rows = CopyAxis {
            len: outer,
            from: run as isize,
            to: whole as isize,
        };
        let elements = CopyAxis {
            len: run,
            from: 1,
            to: 1,
        };
        let copy = Transfer::new(request, request.input_dtype(input), 0, start, &[rows, elements])?;
        start += run;
        Ok((input, 0, copy))
    });
    Ok(copies(parts.collect::<Result<_>>()?))
}

/// Slices of the gradient, at the offsets of the inputs.
fn gradient(context: &mut GradientContext<'_>, axis_index: usize) -> Result<Vec<Option<Tensor>>> {
    let inputs = context.op().inputs();
    let axis = inputs[axis_index].clone();
    let values: Vec<Tensor> = (0..inputs.len())
        .filter(|&index| index != axis_index)
        .map(|index| inputs[index].clone())
        .collect();
    let gradient = context.gradient(0)?;
    let mut gradients: Vec<Option<Tensor>> = if values.len() == 1 {
        vec![Some(gradient)]
    } else {
        let rank = rank_of(&values[0], "Rank")?;
        let axis = context.node("FloorMod").input(axis).input(rank).name("mod").build()?;
        let sizes = shapes_of(context, &values)?;
        if sizes.len() > 16 {
            split_gradient(context, gradient, &axis, &sizes)?
        } else {
            sliced_gradient(context, gradient, &axis, &sizes)?
        }
    };
    gradients.insert(axis_index, None);
    Ok(gradients)
}

/// The shapes of the inputs: constants up to the first that is not known; then all anew by `ShapeN`.
fn shapes_of(context: &GradientContext<'_>, values: &[Tensor]) -> Result<Vec<Tensor>> {
    let mut shapes = Vec::with_capacity(values.len());
    for value in values {
        let name = if shapes.is_empty() {
            "Shape".to_owned()
        } else {
            format!("Shape_{}", shapes.len())
        };
        let shape = crate::array::shape_of::shape_of(value, &name)?;
        if shape.op().op_type() != "Const" {
            return context.node("ShapeN").input(values).build_all();
        }
        shapes.push(shape);
    }
    Ok(shapes)
}

fn sliced_gradient(
    context: &GradientContext<'_>,
    gradient: Tensor,
    axis: &Tensor,
    sizes: &[Tensor],
) -> Result<Vec<Option<Tensor>>> {
    let offsets = context.node("ConcatOffset").input(axis).input(sizes).build_all()?;
    let slices = offsets.iter().zip(sizes).enumerate().map(|(index, (begin, size))| {
        let name = if index == 0 {
            "Slice".to_owned()
        } else {
            format!("Slice_{index}")
        };
        context
            .node("Slice")
            .input(&gradient)
            .input(begin)
            .input(size)
            .name(name)
            .build()
            .map(Some)
    });
    slices.collect()
}

/// Above 16 inputs one `SplitV` takes the place of the slices.
fn split_gradient(
    context: &GradientContext<'_>,
    gradient: Tensor,
    axis: &Tensor,
    sizes: &[Tensor],
) -> Result<Vec<Option<Tensor>>> {
    let stacked = context
        .node("Pack")
        .input(sizes)
        .attr("axis", 1i64)
        .name("stack")
        .build()?;
    let begin = Operand::List(vec![axis.into_operand(), 0i32.into_operand()]);
    let lengths = context
        .node("Slice")
        .input(stacked)
        .input(begin)
        .input([1i32, -1])
        .build()?;
    let lengths = context.node("Squeeze").input(lengths).build()?;
    let parts = context.node("SplitV").input(gradient).input(lengths).input(axis);
    let parts = parts.attr("num_split", sizes.len() as i64).name("split").build_all()?;
    Ok(parts.into_iter().map(Some).collect())
}

/// `ConcatOffset`
pub(crate) fn concat_offset_definition() -> OpDefinition {
    OpDefinition::new(
        "ConcatOffset",
        "Where in their concatenation tensors of these shapes begin.",
    )
    .input("concat_dim: int32")
    .input("shape: N * shape_type")
    .output("offset: N * shape_type")
    .attr("N: int >= 2")
    .attr("shape_type: {int32, int64} = DT_INT32")
    .may_fail()
    .shape(|context| {
        (1..context.num_inputs()).for_each(|index| context.set_output(index - 1, context.input(index)));
        Ok(())
    })
    .not_differentiable()
    .kernel(KernelDefinition::cpu(offsets::<i32>).types("shape_type", &[graph_core::DType::Int32]))
    .kernel(KernelDefinition::cpu(offsets::<i64>).types("shape_type", &[graph_core::DType::Int64]))
}

fn offsets<T: Element + std::ops::AddAssign>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let &[axis] = context.input::<i32>(0)? else {
            return Err(Error::invalid_argument("'concat_dim' must be a scalar"));
        };
        let first = context.input::<T>(1)?;
        let axis = axis_of(axis.into(), first.len())?;
        let mut offset = T::default();
        for index in 1..context.num_inputs() {
            let shape = context.input::<T>(index)?;
            let fits = shape.len() == first.len() && (0..shape.len()).all(|at| at == axis || shape[at] == first[at]);
            if !fits {
                return Err(
                    Error::invalid_argument("the shapes differ in another dimension than the axis")
                        .expected(format!("{first:?}"))
                        .got(format!("{shape:?}")),
                );
            }
            let output = context.output::<T>(index - 1)?;
            output.fill(T::default());
            output[axis] = offset;
            offset += shape[axis];
        }
        Ok(())
    }))
}

/// Tensors joined about to be made; see [`concat`].
#[must_use = "an operation is made by `build`"]
pub struct Concat {
    values: Operand,
    axis: Operand,
    name: String,
    builder: OpBuilder,
}

impl Concat {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the operation; a single tensor is only passed on.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` if the tensors do not fit together.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        if let Operand::List(values) = &self.values
            && let [only] = values.as_slice()
        {
            let graph = only.graph().cloned().unwrap_or_else(Graph::current);
            let scope = name_scope_in(&graph, &self.name)?;
            if let Some(axis) = self.axis.to_value(Some(graph_core::DType::Int32))? {
                constant_in(&graph, axis, "concat_dim")?;
            }
            return OpBuilder::new("Identity")
                .in_graph(&graph)
                .input(only)
                .name(scope.scope_name())
                .build();
        }
        self.builder.name(self.name).build()
    }
}

impl IntoOperand for Concat {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// `values` one behind the other along dimension `axis`, in which alone they may differ.
///
/// ```
/// use graph_ops::array::concat;
/// let joined = concat([[[1, 2]], [[3, 4]]], 1).build()?;
/// assert_eq!(joined.shape(), [1, 4].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` if ranks or other dimensions differ.
#[track_caller]
pub fn concat(values: impl IntoOperand, axis: impl IntoOperand) -> Concat {
    let (values, axis) = (values.into_operand(), axis.into_operand());
    Concat {
        builder: crate::op("ConcatV2").input(&values).input(&axis),
        values,
        axis,
        name: "concat".to_owned(),
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{DType, Value};
    let (a, b) = ([[1.0f32, 2.0], [3.0, 4.0]], [[5.0f32], [6.0]]);
    let joined = [[1.0f32, 2.0, 5.0], [3.0, 4.0, 6.0]];
    let words = |words: &[&str]| {
        Value::from_strings(
            [words.len()],
            words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        )
        .unwrap()
    };
    vec![
        Case::new("ConcatV2").input(a).input(b).input(1i32).expect(joined),
        Case::new("ConcatV2").input(a).input(b).input(-1i64).expect(joined),
        Case::new("Concat").input(1i32).input(a).input(b).expect(joined),
        Case::new("ConcatV2")
            .input([1u8])
            .input(Vec::<u8>::new())
            .input([2u8, 3])
            .input(0i32)
            .expect([1u8, 2, 3]),
        Case::new("ConcatV2")
            .input(words(&["a"]))
            .input(words(&["b", "c"]))
            .input(0i32)
            .expect(words(&["a", "b", "c"])),
        Case::new("ConcatV2")
            .input(Value::zeros(DType::Complex128, [1, 0]).unwrap())
            .input(Value::zeros(DType::Complex128, [1, 2]).unwrap())
            .input(1i32)
            .expect(Value::zeros(DType::Complex128, [1, 2]).unwrap()),
        Case::new("ConcatOffset")
            .input(-1i32)
            .input([2i32, 2])
            .input([2i32, 5])
            .input([2i32, 1])
            .expect([0i32, 0])
            .expect([0i32, 2])
            .expect([0i32, 7]),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let (a, b) = ([[1.0f64, 2.0], [3.0, 4.0]], [[5.0f64], [6.0]]);
    let many = (0..17).fold(GradientCase::new("ConcatV2"), |case, index| {
        case.input([f64::from(index)])
    });
    vec![
        GradientCase::new("ConcatV2").input(a).input(b).input(-1i32),
        GradientCase::new("Concat").input(1i32).input(a).input(b),
        many.input(0i32),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::{constant, placeholder, reshape, shape};

    #[test]
    fn shapes_join_as_far_as_they_are_known() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let a = placeholder::<f32>([None, Some(2)]).build().unwrap();
        let b = placeholder::<f32>([Some(3), None]).build().unwrap();
        assert_eq!(concat([&a, &b], 1).build().unwrap().shape().to_string(), "[3,?]");
        assert_eq!(concat([&a, &b], 0).build().unwrap().shape().to_string(), "[?,2]");
        assert!(concat([&a, &b], 2).build().is_err());
        assert!(concat([&a, &constant([1.0f32]).build().unwrap()], 0).build().is_err());
        let like = placeholder::<f32>([None, Some(5)]).build().unwrap();
        let target = concat([constant([-1]).build(), shape(&like).build()], 0)
            .build()
            .unwrap();
        assert_eq!(reshape(&a, target).build().unwrap().shape().to_string(), "[?,?,5]");
    }

    #[test]
    fn one_tensor_is_passed_on() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let a = placeholder::<f32>([2]).build().unwrap();
        let same = concat([&a], 0).build().unwrap();
        assert_eq!((same.op().op_type(), same.name()), ("Identity", "concat:0".into()));
        assert!(graph.operation("concat/concat_dim").is_ok());
    }
}
