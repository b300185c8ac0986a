//! `Fill`, `ZerosLike` and `OnesLike`: one number everywhere.

use graph_core::gradients::GradientContext;
use graph_core::graph::builder::constant_in;
use graph_core::graph::scope::name_scope_in;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Graph, Result, Shape, Value};

use crate::array::moving::{Movement, Word, plan, with_element};
use crate::array::shape_of::shape_of;
use crate::cuda::{NAMED, SIZED, elementwise, fill, word_of};

/// `Fill`
pub(crate) fn fill_definition() -> OpDefinition {
    OpDefinition::new("Fill", "A scalar spread over a shape.")
        .input("dims: index_type")
        .input("value: T")
        .output("output: T")
        .attr("T: type")
        .attr("index_type: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[0])
        .shape(filled)
        .gradient(gradient)
        .kernel(KernelDefinition::cpu(|request| plan(request, [1], Spread)))
        .kernel(KernelDefinition::cuda(spreading).types("T", SIZED))
}

fn filled(context: &mut InferenceContext<'_>) -> Result<()> {
    if let Some(dims) = context.int_values(0)?
        && let Some(&bad) = dims.iter().find(|&&dim| dim < 0)
    {
        return Err(Error::invalid_argument("a dimension must not be negative").got(bad));
    }
    context.with_rank(1, 0)?;
    let shape = context.shape_from_input(0)?;
    context.set_output(0, shape);
    Ok(())
}

/// The sum of all elements, by axes as `reduce_sum` writes it.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let axes = match gradient.shape().rank() {
        Some(rank) => context.constant(Value::int32_vector(0..rank as i32), "Const")?,
        None => {
            let rank = context.node("Rank").input(&gradient).build()?;
            context
                .node("Range")
                .input(0i32)
                .input(rank)
                .input(1i32)
                .name("range")
                .build()?
        }
    };
    Ok(vec![
        None,
        Some(context.node("Sum").input(gradient).input(axes).build()?),
    ])
}

/// The scalar, which lies on the device, everywhere.
fn spreading(request: &KernelRequest<'_>) -> Result<Planned> {
    let (_, word) = word_of(request.input_dtype(1))?;
    if request.input_shape(1).num_elements() != 1 {
        return Err(Error::invalid_argument("the value must be a scalar"));
    }
    let value = elementwise::Operand {
        input: 1,
        name: "value",
        type_name: word,
        shape: Vec::new(),
    };
    elementwise::map_operands(request, &[value], word, "value")
}

struct Spread;

impl Movement for Spread {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let &[value] = inputs[0] else {
            return Err(Error::invalid_argument("the value must be a scalar"));
        };
        crate::cpu::parallel::for_each_chunk(outputs[0], crate::cpu::parallel::GRAIN, |_, chunk| chunk.fill(value));
        Ok(())
    }
}

/// `ZerosLike`
pub(crate) fn zeros_like_definition() -> OpDefinition {
    OpDefinition::new("ZerosLike", "Zeros of another tensor's shape.")
        .input("x: T")
        .output("y: T")
        .attr("T: type")
        .shape(InferenceContext::unchanged)
        .not_differentiable()
        .kernel(KernelDefinition::cpu(|request| everywhere(request, 0)))
        .kernel(KernelDefinition::cuda(fill::zeros).types("T", SIZED))
}

/// `OnesLike`
pub(crate) fn ones_like_definition() -> OpDefinition {
    OpDefinition::new("OnesLike", "Ones of another tensor's shape.")
        .input("x: T")
        .output("y: T")
        .attr("T: {bfloat16, half, float, double, int8, uint8, int16, uint16, int32, uint32, int64, uint64, complex64, complex128, bool}")
        .shape(InferenceContext::unchanged)
        .not_differentiable()
        .kernel(KernelDefinition::cpu(|request| everywhere(request, 1)))
        .kernel(KernelDefinition::cuda(|request| fill::fill(request, "1")).types("T", NAMED))
}

/// A kernel that writes 0 or 1 (false or true) everywhere, and empty strings.
fn everywhere(request: &KernelRequest<'_>, number: u8) -> Result<Planned> {
    let dtype = request.output_dtype(0);
    if dtype == DType::String {
        let empty = Value::zeros(dtype, request.input_shape(0).clone())?;
        return Ok(Planned::new(move |context| {
            context.set_output(0, empty.clone());
            Ok(())
        }));
    }
    let value = number_of(number, dtype)?;
    with_element!(dtype, E => write_everywhere::<E>(&value))
}

fn write_everywhere<T: Element>(value: &Value) -> Result<Planned> {
    let element = value.to_scalar::<T>()?;
    Ok(Planned::new(move |context| {
        let output = context.output::<T>(0)?;
        crate::cpu::parallel::for_each_chunk(output, crate::cpu::parallel::GRAIN, |_, chunk| chunk.fill(element));
        Ok(())
    }))
}

/// 0 or 1 as a scalar of a dtype; the empty string for strings.
fn number_of(number: u8, dtype: DType) -> Result<Value> {
    match dtype {
        DType::Bool => Ok(Value::scalar(number != 0)),
        DType::String if number == 0 => Ok(Value::string("")),
        _ => Value::scalar(i32::from(number)).cast_exactly(dtype),
    }
}

/// The most elements of zeros or ones that stand in the graph as a constant, less one.
const SMALL: usize = 1000;

/// Zeros or ones about to be made; see [`zeros`] and [`ones`].
#[must_use = "an operation is made by `build`"]
pub struct Filled {
    shape: Operand,
    number: u8,
    dtype: DType,
    name: String,
    graph: Option<Graph>,
}

impl Filled {
    /// Makes the operation in `graph`, where the shape does not say it.
    pub(crate) fn in_graph(mut self, graph: &Graph) -> Self {
        self.graph = Some(graph.clone());
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the element type; `float` without.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Makes the operation: a `Const` for a known shape of less than 1,000 elements, else a `Fill`.
    ///
    /// # Errors
    /// `InvalidArgument` for a shape that is none, or a dtype that has no such number.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let graph = self.shape.graph().cloned().or(self.graph);
        let graph = graph.unwrap_or_else(Graph::current);
        let scope = name_scope_in(&graph, &self.name)?;
        let number = number_of(self.number, self.dtype)?;
        let shape = match self.shape.to_value(Some(DType::Int32))? {
            None => vector(&graph, self.shape.to_tensor(&graph, "shape", Some(DType::Int32))?)?,
            Some(value) => {
                let dims = value.to_i64_vec()?;
                let known = dims
                    .iter()
                    .map(|&dim| super::axis::dimension(dim))
                    .collect::<Result<Shape>>()?;
                if known.checked_num_elements().is_some_and(|count| count < SMALL) {
                    return constant_in(&graph, spread(&number, known)?, &scope.scope_name());
                }
                let dims = Value::from(dims).cast_exactly(DType::Int32)?;
                constant_in(&graph, dims, "shape_as_tensor")?
            }
        };
        let number = constant_in(&graph, number, "Const")?;
        OpBuilder::new("Fill")
            .input(shape)
            .input(number)
            .name(scope.scope_name())
            .build()
    }
}

impl IntoOperand for Filled {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// A shape given as a scalar becomes a vector.
#[track_caller]
fn vector(graph: &Graph, shape: Tensor) -> Result<Tensor> {
    if shape.shape().rank() != Some(0) {
        return Ok(shape);
    }
    OpBuilder::new("Reshape")
        .in_graph(graph)
        .input(shape)
        .input([-1i32])
        .build()
}

/// A value that holds one number everywhere.
pub(crate) fn spread(number: &Value, shape: Shape) -> Result<Value> {
    if number.dtype() == DType::String {
        let strings = vec![number.as_strings()?[0].clone(); shape.num_elements()];
        return Value::from_strings(shape, strings);
    }
    Value::from_bytes(
        number.dtype(),
        shape.clone(),
        &number.bytes().repeat(shape.num_elements()),
    )
}

/// Zeros of the shape `shape`: numbers, or a tensor of them. `float` unless [`Filled::dtype`] says otherwise; `false` for
/// `bool`, empty strings for `string`.
///
/// ```
/// use graph_ops::array::zeros;
/// assert_eq!(zeros([3, 4]).build()?.op().op_type(), "Const");
/// assert_eq!(zeros([300, 400]).build()?.op().op_type(), "Fill");
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn zeros(shape: impl IntoOperand) -> Filled {
    Filled {
        shape: shape.into_operand(),
        number: 0,
        dtype: DType::Float32,
        name: "zeros".to_owned(),
        graph: None,
    }
}

/// Ones of the shape `shape`, like [`zeros`]; `true` for `bool`.
#[track_caller]
pub fn ones(shape: impl IntoOperand) -> Filled {
    Filled {
        shape: shape.into_operand(),
        number: 1,
        dtype: DType::Float32,
        name: "ones".to_owned(),
        graph: None,
    }
}

/// A tensor of shape `dims` that holds the scalar `value` everywhere.
#[track_caller]
pub fn fill(dims: impl IntoOperand, value: impl IntoOperand) -> OpBuilder {
    crate::op("Fill").input(dims).input(value)
}

/// Zeros or ones of another tensor's shape about to be made; see [`zeros_like`] and [`ones_like`].
#[must_use = "an operation is made by `build`"]
pub struct FilledLike {
    tensor: Operand,
    number: u8,
    dtype: Option<DType>,
    name: String,
}

impl FilledLike {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the element type; the tensor's own without.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// The operand's own, and `InvalidArgument` for a dtype that has no such number.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let graph = self.tensor.graph().cloned().unwrap_or_else(Graph::current);
        let scope = name_scope_in(&graph, &self.name)?;
        let tensor = self.tensor.to_tensor(&graph, "tensor", None)?;
        let dtype = self.dtype.unwrap_or(tensor.dtype());
        let name = scope.scope_name();
        if self.number == 0 {
            if let Some(shape) = tensor.shape().to_shape() {
                let dims: Vec<i64> = shape.iter().map(|&dim| dim as i64).collect();
                return zeros(Value::from(dims).cast_exactly(DType::Int32)?)
                    .dtype(dtype)
                    .name(name)
                    .build();
            }
            if dtype == tensor.dtype() {
                return OpBuilder::new("ZerosLike").input(tensor).name(name).build();
            }
        }
        let shape = shape_of(&tensor, "Shape")?;
        let filled = Filled {
            shape: Operand::Tensor(shape),
            number: self.number,
            dtype,
            name,
            graph: None,
        }
        .build()?;
        filled.set_shape(tensor.shape())?;
        Ok(filled)
    }
}

impl IntoOperand for FilledLike {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// Zeros of the shape and dtype of `tensor`.
#[track_caller]
pub fn zeros_like(tensor: impl IntoOperand) -> FilledLike {
    FilledLike {
        tensor: tensor.into_operand(),
        number: 0,
        dtype: None,
        name: "zeros_like".to_owned(),
    }
}

/// Ones of the shape and dtype of `tensor`.
#[track_caller]
pub fn ones_like(tensor: impl IntoOperand) -> FilledLike {
    FilledLike {
        tensor: tensor.into_operand(),
        number: 1,
        dtype: None,
        name: "ones_like".to_owned(),
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use half::{bf16, f16};
    let mut cases = vec![
        Case::new("Fill")
            .input([2i32, 2])
            .input(1.5f32)
            .expect([[1.5f32, 1.5], [1.5, 1.5]]),
        Case::new("Fill").input(Vec::<i64>::new()).input(true).expect(true),
        Case::new("Fill")
            .input([0i32, 3])
            .input(7u16)
            .expect(Value::zeros(DType::UInt16, [0, 3]).unwrap()),
        Case::new("Fill")
            .input([2i32])
            .input("ab")
            .expect(Value::from_strings([2], vec![b"ab".to_vec(), b"ab".to_vec()]).unwrap()),
        Case::new("ZerosLike").input("ab").expect(""),
        Case::new("ZerosLike").input([true, false]).expect([false, false]),
        Case::new("OnesLike").input([true, false]).expect([true, true]),
    ];
    macro_rules! numbers {
        ($($type:ty),*) => {$(
            let (zero, one) = (
                number_of(0, <$type>::DTYPE).unwrap().to_scalar::<$type>().unwrap(),
                number_of(1, <$type>::DTYPE).unwrap().to_scalar::<$type>().unwrap(),
            );
            cases.push(Case::new("Fill").input([2i32]).input(one).expect([one, one]));
            cases.push(Case::new("ZerosLike").input([one, one]).expect([zero, zero]));
            cases.push(Case::new("OnesLike").input([zero, zero]).expect([one, one]));
        )*};
    }
    use graph_core::Complex;
    numbers!(
        f32,
        f64,
        f16,
        bf16,
        i8,
        i16,
        i32,
        i64,
        u8,
        u16,
        u32,
        u64,
        Complex<f32>,
        Complex<f64>
    );
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    vec![crate::testing::GradientCase::new("Fill").input([2i32, 3]).input(1.5f64)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::placeholder;
    use graph_core::PartialShape;

    #[test]
    fn small_zeros_are_constants() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let small = zeros([3, 4]).build().unwrap();
        assert_eq!((small.op().op_type(), small.name()), ("Const", "zeros:0".into()));
        let large = ones([100, 10]).dtype(DType::Int32).build().unwrap();
        assert_eq!((large.op().op_type(), large.name()), ("Fill", "ones:0".into()));
        let inputs: Vec<String> = large.op().inputs().iter().map(Tensor::name).collect();
        assert_eq!(inputs, ["ones/shape_as_tensor:0", "ones/Const:0"]);
        assert!(zeros([-1, 4]).build().is_err());
        assert!(ones([2]).dtype(DType::String).build().is_err());
    }

    #[test]
    fn the_shape_of_another_tensor() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let input = placeholder::<f64>([None]).build().unwrap();
        let zeros = zeros_like(&input).build().unwrap();
        assert_eq!(
            (zeros.op().op_type(), zeros.name()),
            ("ZerosLike", "zeros_like:0".into())
        );
        let ones = ones_like(&input).build().unwrap();
        let inputs: Vec<String> = ones.op().inputs().iter().map(Tensor::name).collect();
        assert_eq!(
            (ones.name(), ones.shape()),
            ("ones_like:0".into(), PartialShape::from([None]))
        );
        assert_eq!(inputs, ["ones_like/Shape:0", "ones_like/Const:0"]);
    }
}
