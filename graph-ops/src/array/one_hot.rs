//! `OneHot`: numbers as vectors with a mark at that place.

use graph_core::graph::scope::name_scope_in;
use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, Graph, PartialShape, Result};
use graph_cuda::{Cuda, Source, arguments, source};

use crate::array::axis::{axis_of, known_scalar};
use crate::array::moving::{Movement, Word, plan};
use crate::cuda::{SIZED, type_name, word_of};

/// The op's definition.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "OneHot",
        "For each index a new dimension of `on_value` at its place and `off_value` elsewhere.",
    )
    .input("indices: TI")
    .input("depth: int32")
    .input("on_value: T")
    .input("off_value: T")
    .output("output: T")
    .attr("axis: int = -1")
    .attr("T: type")
    .attr("TI: {uint8, int32, int64} = DT_INT64")
    .plan_time_inputs(&[1])
    .shape(shape)
    .not_differentiable()
    .kernel(KernelDefinition::cpu(kernel))
    .kernel(KernelDefinition::cuda(on_device).types("T", SIZED))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let axis: i64 = context.attr("axis")?;
    let depth = known_scalar(context, 1)?
        .map(crate::array::axis::dimension)
        .transpose()?;
    context.with_rank(2, 0)?;
    context.with_rank(3, 0)?;
    let indices = context.input(0).clone();
    let Some(dims) = indices.dims() else { return Ok(()) };
    let axis = new_axis(axis, dims.len())?;
    let (before, behind) = dims.split_at(axis);
    context.set_output(
        0,
        PartialShape::from_dims(before.iter().chain(&[depth]).chain(behind).copied()),
    );
    Ok(())
}

fn new_axis(axis: i64, rank: usize) -> Result<usize> {
    if axis < -1 {
        return Err(Error::invalid_argument("the axis must be -1 or more").got(axis));
    }
    axis_of(axis, rank + 1)
}

struct Mark {
    outer: usize,
    depth: usize,
    inner: usize,
    index_type: DType,
}

impl Movement for Mark {
    fn run<T: Word>(&self, context: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (&[on], &[off]) = (inputs[0], inputs[1]) else {
            return Err(Error::invalid_argument("'on_value' and 'off_value' must be scalars"));
        };
        match self.index_type {
            DType::UInt8 => self.mark(context.input::<u8>(0)?, on, off, outputs[0]),
            DType::Int32 => self.mark(context.input::<i32>(0)?, on, off, outputs[0]),
            _ => self.mark(context.input::<i64>(0)?, on, off, outputs[0]),
        }
        Ok(())
    }
}

impl Mark {
    /// An index outside of the depth leaves no mark.
    fn mark<T: Word, I: Copy + TryInto<usize>>(&self, indices: &[I], on: T, off: T, output: &mut [T]) {
        output.fill(off);
        for outer in 0..self.outer {
            for inner in 0..self.inner {
                let index = indices[outer * self.inner + inner]
                    .try_into()
                    .ok()
                    .filter(|&index| index < self.depth);
                if let Some(index) = index {
                    output[(outer * self.depth + index) * self.inner + inner] = on;
                }
            }
        }
    }
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    const SOURCE: Source = source!("one_hot.cu");
    let shape = request.output_shape(0)?;
    let axis = new_axis(request.attr("axis")?, request.input_shape(0).rank())?;
    let [_, depth, inner] = crate::array::axis::around(shape, axis);
    let n = shape.num_elements();
    let (_, word) = word_of(request.output_dtype(0))?;
    let defines = [("W", word), ("I", type_name(request.input_dtype(0))?)];
    let function = Cuda::of(request)?.function(&SOURCE, "one_hot", &defines)?;
    Ok(Planned::new(move |context| {
        let [indices, on, off] = [0, 2, 3].map(|input| context.input_address(input));
        let output = context.output_address(0);
        let (depth, inner) = (depth as i64, inner as i64);
        // SAFETY: these are the kernel's parameters: an index for each `depth` of the `n` elements, and two scalars.
        unsafe { function.launch_over(n, arguments![output, indices, on, off, n as i64, depth, inner]) }
    }))
}

fn kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.output_shape(0)?;
    let axis = new_axis(request.attr("axis")?, request.input_shape(0).rank())?;
    let [outer, depth, inner] = crate::array::axis::around(shape, axis);
    plan(
        request,
        [2, 3],
        Mark {
            outer,
            depth,
            inner,
            index_type: request.input_dtype(0),
        },
    )
}

/// Numbers as marks about to be made; see [`one_hot`].
#[must_use = "an operation is made by `build`"]
pub struct OneHot {
    indices: Operand,
    depth: Operand,
    on: Option<Operand>,
    off: Option<Operand>,
    axis: i64,
    dtype: Option<DType>,
    name: String,
}

impl OneHot {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the mark; 1 without.
    pub fn on_value(mut self, value: impl IntoOperand) -> Self {
        self.on = Some(value.into_operand());
        self
    }

    /// Sets what stands elsewhere; 0 without.
    pub fn off_value(mut self, value: impl IntoOperand) -> Self {
        self.off = Some(value.into_operand());
        self
    }

    /// Makes the new dimension this one; the last without.
    pub fn axis(mut self, axis: i64) -> Self {
        self.axis = axis;
        self
    }

    /// Sets the element type; that of the values given, or `float`, without.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` for a negative depth or an axis that is none.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let operands = [
            Some(&self.indices),
            Some(&self.depth),
            self.on.as_ref(),
            self.off.as_ref(),
        ];
        let graph = operands
            .into_iter()
            .flatten()
            .find_map(Operand::graph)
            .cloned()
            .unwrap_or_else(Graph::current);
        let scope = name_scope_in(&graph, &self.name)?;
        let given = [&self.on, &self.off]
            .into_iter()
            .flatten()
            .find_map(|operand| match operand {
                Operand::Tensor(tensor) => Some(tensor.dtype()),
                Operand::Number(value) | Operand::Array(value) => Some(value.dtype()),
                _ => None,
            });
        let dtype = self.dtype.or(given).unwrap_or(DType::Float32);
        let value = |operand: Option<Operand>, default: i32, name: &str| match operand {
            Some(operand) => operand.to_tensor(&graph, name, Some(dtype)),
            None => default.into_operand().to_tensor(&graph, name, Some(dtype)),
        };
        let (on, off) = (value(self.on, 1, "on_value")?, value(self.off, 0, "off_value")?);
        let builder = crate::op("OneHot")
            .input(self.indices)
            .input(self.depth)
            .input(on)
            .input(off);
        builder.attr("axis", self.axis).name(scope.scope_name()).build()
    }
}

impl IntoOperand for OneHot {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// For each of `indices` a new dimension of size `depth` with 1 at its place and 0 elsewhere; an index outside leaves
/// zeros alone. `float` unless [`OneHot::dtype`] or the values say otherwise.
///
/// ```
/// use graph_ops::array::one_hot;
/// assert_eq!(one_hot([3, 1, 4], 10).build()?.shape(), [3, 10].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn one_hot(indices: impl IntoOperand, depth: impl IntoOperand) -> OneHot {
    OneHot {
        indices: indices.into_operand(),
        depth: depth.into_operand(),
        on: None,
        off: None,
        axis: -1,
        dtype: None,
        name: "one_hot".to_owned(),
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    vec![
        Case::new("OneHot")
            .input([2i64, -1, 3])
            .input(3i32)
            .input(1.0f32)
            .input(0.0f32)
            .expect([[0.0f32, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        Case::new("OneHot")
            .attr("axis", 0i64)
            .input([0i32, 1])
            .input(2i32)
            .input(5i8)
            .input(-1i8)
            .expect([[5i8, -1], [-1, 5]]),
        Case::new("OneHot")
            .input(1u8)
            .input(2i32)
            .input(true)
            .input(false)
            .expect([false, true]),
        Case::new("OneHot")
            .input(0i32)
            .input(2i32)
            .input("on")
            .input("")
            .expect(Value::from_strings([2], vec![b"on".to_vec(), Vec::new()]).unwrap()),
        Case::new("OneHot")
            .input([1i32])
            .input(0i32)
            .input(1u16)
            .input(0u16)
            .expect(Value::zeros(DType::UInt16, [1, 0]).unwrap()),
    ]
}
