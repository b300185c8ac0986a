//! `Shape`, `ShapeN`, `Size` and `Rank`: what is known of a tensor without looking at its elements.

use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, Graph, PartialShape, Result, Shape, Value};

/// `Shape`
pub(crate) fn shape_definition() -> OpDefinition {
    OpDefinition::new("Shape", "The shape of a tensor, as a vector.")
        .input("input: T")
        .output("output: out_type")
        .attr("T: type")
        .attr("out_type: {int32, int64} = DT_INT32")
        .shape(ranks_as_vectors)
        .value_as_shape(|context, slot| Some(context.input(slot).clone()))
        .not_differentiable()
        .kernel(KernelDefinition::cpu(shapes).reads_shapes_only())
}

/// `ShapeN`
pub(crate) fn shape_n_definition() -> OpDefinition {
    OpDefinition::new("ShapeN", "The shapes of several tensors, each as a vector.")
        .input("input: N * T")
        .output("output: N * out_type")
        .attr("N: int >= 1")
        .attr("T: type")
        .attr("out_type: {int32, int64} = DT_INT32")
        .shape(ranks_as_vectors)
        .value_as_shape(|context, slot| Some(context.input(slot).clone()))
        .not_differentiable()
        .kernel(KernelDefinition::cpu(shapes).reads_shapes_only())
}

fn ranks_as_vectors(context: &mut InferenceContext<'_>) -> Result<()> {
    for index in 0..context.num_inputs() {
        let rank = context.input(index).rank();
        context.set_output(index, PartialShape::from([rank]));
    }
    Ok(())
}

/// `Size`
pub(crate) fn size_definition() -> OpDefinition {
    OpDefinition::new("Size", "The number of elements of a tensor.")
        .input("input: T")
        .output("output: out_type")
        .attr("T: type")
        .attr("out_type: {int32, int64} = DT_INT32")
        .shape(InferenceContext::scalars)
        .value_as_shape(|context, _| Some(PartialShape::from([context.input(0).num_elements()])))
        .not_differentiable()
        .kernel(
            KernelDefinition::cpu(|request| {
                let size = request.input_shape(0).num_elements();
                integers(request.output_dtype(0), vec![vec![size]])
            })
            .reads_shapes_only(),
        )
}

/// `Rank`
pub(crate) fn rank_definition() -> OpDefinition {
    OpDefinition::new("Rank", "The number of dimensions of a tensor.")
        .input("input: T")
        .output("output: int32")
        .attr("T: type")
        .shape(InferenceContext::scalars)
        .value_as_shape(|context, _| Some(PartialShape::from([context.input(0).rank()])))
        .not_differentiable()
        .kernel(
            KernelDefinition::cpu(|request| integers(DType::Int32, vec![vec![request.input_shape(0).rank()]]))
                .reads_shapes_only(),
        )
}

fn shapes(request: &KernelRequest<'_>) -> Result<Planned> {
    let shapes = request.input_shapes.iter().map(|shape: &Shape| shape.to_vec());
    integers(request.output_dtype(0), shapes.collect())
}

/// A kernel whose outputs are known integers.
fn integers(dtype: DType, outputs: Vec<Vec<usize>>) -> Result<Planned> {
    if dtype == DType::Int64 {
        let outputs: Vec<Vec<i64>> = outputs
            .iter()
            .map(|dims| dims.iter().map(|&dim| dim as i64).collect())
            .collect();
        return Ok(Planned::new(move |context| write(context, &outputs)));
    }
    let narrow = |&dim: &usize| {
        i32::try_from(dim).map_err(|_| {
            Error::invalid_argument(format!("{dim} does not fit into int32")).hint("ask for int64 with `out_type`")
        })
    };
    let outputs = outputs
        .iter()
        .map(|dims| dims.iter().map(narrow).collect::<Result<Vec<i32>>>());
    let outputs = outputs.collect::<Result<Vec<_>>>()?;
    Ok(Planned::new(move |context| write(context, &outputs)))
}

fn write<T: graph_core::Element>(context: &mut KernelContext<'_>, outputs: &[Vec<T>]) -> Result<()> {
    for (index, elements) in outputs.iter().enumerate() {
        context.output::<T>(index)?.copy_from_slice(elements);
    }
    Ok(())
}

/// Something that is known of a tensor's shape, about to be made; see [`shape`], [`size`] and [`rank`].
#[must_use = "an operation is made by `build`"]
pub struct ShapeQuery {
    input: Operand,
    op: &'static str,
    out_type: DType,
    name: Option<String>,
    builder: OpBuilder,
}

impl ShapeQuery {
    #[track_caller]
    fn new(op: &'static str, input: impl IntoOperand) -> Self {
        let input = input.into_operand();
        Self {
            input: input.clone(),
            op,
            out_type: DType::Int32,
            name: None,
            builder: crate::op(op).input(input),
        }
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Gives the result as `int64` instead of `int32`.
    pub fn out_type(mut self, dtype: DType) -> Self {
        self.out_type = dtype;
        self
    }

    /// Makes the operation: a `Const` where the graph knows the answer.
    ///
    /// # Errors
    /// The operand's own, and `InvalidArgument` for names and dtypes that are none.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        let name = self.name.unwrap_or_else(|| self.op.to_owned());
        let graph = self.input.graph().cloned().unwrap_or_else(Graph::current);
        if let Operand::Tensor(_) | Operand::Variable(_) = self.input {
            let tensor = self.input.to_tensor(&graph, "input", None)?;
            if let Some(value) = known(self.op, &tensor.shape(), self.out_type) {
                return graph_core::graph::builder::constant_in(&graph, value?, &name);
            }
        }
        let builder = match self.op {
            "Rank" => self.builder,
            _ => self.builder.attr("out_type", self.out_type),
        };
        builder.name(name).build()
    }
}

impl IntoOperand for ShapeQuery {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// What an op says of a shape, where the graph knows enough of it.
fn known(op: &str, shape: &PartialShape, out_type: DType) -> Option<Result<Value>> {
    let (numbers, result) = match op {
        "Rank" => (vec![shape.rank()? as i64], Shape::scalar()),
        "Size" => (vec![shape.num_elements()? as i64], Shape::scalar()),
        _ => {
            let dims = shape.to_shape()?;
            (dims.iter().map(|&dim| dim as i64).collect(), Shape::new(&[dims.rank()]))
        }
    };
    let value = Value::from(numbers).reshaped(result);
    Some(value.and_then(|value| value.cast_exactly(out_type)))
}

/// The shape of `input`, as an `int32` vector: a `Const` where it is fully known, else a `Shape` op.
///
/// ```
/// use graph_ops::array::{placeholder, shape};
/// let images = placeholder::<f32>([None, Some(784)]).build()?;
/// assert_eq!(shape(&images).build()?.shape(), [2].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn shape(input: impl IntoOperand) -> ShapeQuery {
    ShapeQuery::new("Shape", input)
}

/// The number of elements of `input`, as an `int32` scalar: a `Const` where it is known, else a `Size` op.
#[track_caller]
pub fn size(input: impl IntoOperand) -> ShapeQuery {
    ShapeQuery::new("Size", input)
}

/// The number of dimensions of `input`, as an `int32` scalar: a `Const` where it is known, else a `Rank` op.
#[track_caller]
pub fn rank(input: impl IntoOperand) -> ShapeQuery {
    ShapeQuery::new("Rank", input)
}

/// The shape of `tensor` as a vector of dtype `out_type` named `name`: a `Const` where it is fully known.
#[track_caller]
pub(crate) fn shape_of_type(tensor: &Tensor, out_type: DType, name: &str) -> Result<Tensor> {
    shape(tensor).out_type(out_type).name(name).build()
}

/// The shapes of several tensors of one dtype, each an `int32` vector; use [`OpBuilder::build_all`].
#[track_caller]
pub fn shape_n(inputs: impl IntoOperand) -> OpBuilder {
    crate::op("ShapeN").input(inputs)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let matrix = [[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    vec![
        Case::new("Shape").input(matrix).expect([2i32, 3]),
        Case::new("Shape")
            .attr("out_type", DType::Int64)
            .input("text")
            .expect(Vec::<i64>::new()),
        Case::new("ShapeN")
            .input(matrix)
            .input([1.0f32])
            .expect([2i32, 3])
            .expect([1i32]),
        Case::new("Size").input(matrix).expect(6i32),
        Case::new("Size")
            .attr("out_type", DType::Int64)
            .input(Vec::<bool>::new())
            .expect(0i64),
        Case::new("Rank").input(matrix).expect(2i32),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::placeholder;

    #[test]
    fn what_is_known_is_a_constant() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let (known, unknown) = (
            placeholder::<f32>([2, 3]).build().unwrap(),
            placeholder::<f32>([None, Some(3)]).build().unwrap(),
        );
        assert_eq!(
            shape(&known).build().unwrap().constant_value(),
            Some(Value::from([2i32, 3]))
        );
        assert_eq!(
            size(&known).out_type(DType::Int64).build().unwrap().constant_value(),
            Some(Value::from(6i64))
        );
        let rank = rank(&unknown).name("r").build().unwrap();
        assert_eq!(
            (rank.constant_value(), rank.name()),
            (Some(Value::from(2i32)), "r:0".into())
        );
        assert_eq!(shape(&unknown).build().unwrap().op().op_type(), "Shape");
        assert_eq!(size(&unknown).build().unwrap().name(), "Size_1:0");
    }
}
