//! `Pad` and `PadV2`: a tensor with a border of one number.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Dim, Error, PartialShape, Result};
use graph_cuda::{Cuda, Source, arguments, source};

use crate::array::axis::planned_ints;
use crate::array::moving::{Movement, Word, plan};
use crate::array::shape::shape_of_type;
use crate::array::shape_of::rank_of;
use crate::cuda::{NOWHERE, SIZED, word_of};

/// `Pad`
pub(crate) fn pad_definition() -> OpDefinition {
    OpDefinition::new(
        "Pad",
        "A tensor with a border of zeros: paddings[i] are those before and behind dimension i.",
    )
    .input("input: T")
    .input("paddings: Tpaddings")
    .output("output: T")
    .attr("T: type")
    .attr("Tpaddings: {int32, int64} = DT_INT32")
    .plan_time_inputs(&[1])
    .shape(shape)
    .gradient(gradient)
    .kernel(KernelDefinition::cpu(|request| kernel(request, &[0])))
    .kernel(KernelDefinition::cuda(|request| on_device(request, Mode::Constant)).types("T", SIZED))
}

/// `PadV2`
pub(crate) fn pad_v2_definition() -> OpDefinition {
    OpDefinition::new("PadV2", "A tensor with a border of one number.")
        .input("input: T")
        .input("paddings: Tpaddings")
        .input("constant_values: T")
        .output("output: T")
        .attr("T: type")
        .attr("Tpaddings: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[1])
        .shape(|context| {
            context.with_rank(2, 0)?;
            shape(context)
        })
        .gradient(gradient)
        .kernel(KernelDefinition::cpu(|request| kernel(request, &[0, 2])))
        .kernel(KernelDefinition::cuda(|request| on_device(request, Mode::Constant)).types("T", SIZED))
}

/// The shape with the paddings added, of which there are pairs at input 1.
pub(crate) fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let paddings = context.with_rank(1, 2)?;
    context.merge_dims(
        Some(2),
        paddings.dim(1),
        "the paddings of a dimension are two, so the second dimension",
    )?;
    let rank = context.input(0).rank().or(paddings.dim(0));
    let Some(rank) = rank else { return Ok(()) };
    let input = context.with_rank(0, rank)?;
    context.merge_dims(
        Some(rank),
        paddings.dim(0),
        "the input's rank and the number of paddings",
    )?;
    let dims = match context.int_values(1)? {
        None => vec![None; rank],
        Some(values) => {
            let padded = pairs(&values)?.into_iter().enumerate();
            padded
                .map(|(axis, (before, behind))| input.dim(axis).map(|dim| dim + before + behind))
                .collect::<Vec<Dim>>()
        }
    };
    context.set_output(0, PartialShape::from(dims));
    Ok(())
}

/// The paddings before and behind each dimension.
pub(crate) fn pairs(values: &[i64]) -> Result<Vec<(usize, usize)>> {
    let number = |value: i64| {
        usize::try_from(value).map_err(|_| Error::invalid_argument("a padding must not be negative").got(value))
    };
    values
        .chunks_exact(2)
        .map(|pair| Ok((number(pair[0])?, number(pair[1])?)))
        .collect()
}

/// The part of the gradient inside the border.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (input, paddings) = (context.input(0), context.input(1));
    let begin = context.node("Slice").input(paddings);
    let rank = rank_of(&input, "Rank")?;
    let column = Operand::List(vec![rank.into_operand(), 1i32.into_operand()]);
    let column = column.to_tensor(context.op().graph(), "stack", None)?;
    let begin = begin.input([0i32, 0]).input(column).build()?;
    let begin = context.node("Reshape").input(begin).input([-1i32]).build()?;
    let size = shape_of_type(&input, begin.dtype(), "Shape")?;
    let gradient = context
        .node("Slice")
        .input(context.gradient(0)?)
        .input(begin)
        .input(size)
        .name("Slice_1")
        .build()?;
    let mut gradients = vec![None; context.op().inputs().len()];
    gradients[0] = Some(gradient);
    Ok(gradients)
}

struct Border {
    shape: Vec<usize>,
    before: Vec<usize>,
    out_shape: Vec<usize>,
}

impl Movement for Border {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let value = match inputs.get(1) {
            Some(&[value]) => *value,
            Some(_) => return Err(Error::invalid_argument("'constant_values' must be a scalar")),
            None => T::default(),
        };
        crate::cpu::copy::pad(inputs[0], &self.shape, &self.before, value, outputs[0], &self.out_shape);
        Ok(())
    }
}

fn kernel(request: &KernelRequest<'_>, data: &[usize]) -> Result<Planned> {
    let before = pairs(&planned_ints(request, 1)?)?
        .into_iter()
        .map(|(before, _)| before)
        .collect();
    let (shape, out_shape) = (request.input_shape(0).to_vec(), request.output_shape(0)?.to_vec());
    plan(
        request,
        data.iter().copied(),
        Border {
            shape,
            before,
            out_shape,
        },
    )
}

/// The most dimensions that the kernel of a device takes.
const MOST: usize = 8;

/// The dimensions of a tensor with a border, as the kernel takes them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Dims {
    rank: i64,
    outer: [i64; MOST],
    inner: [i64; MOST],
    before: [i64; MOST],
}

/// A border around input 0 on a device; a constant is input 2, or zero where there is none.
pub(crate) fn on_device(request: &KernelRequest<'_>, mode: Mode) -> Result<Planned> {
    const SOURCE: Source = source!("pad.cu");
    let before: Vec<usize> = pairs(&planned_ints(request, 1)?)?
        .into_iter()
        .map(|pair| pair.0)
        .collect();
    let (inner, outer) = (request.input_shape(0), request.output_shape(0)?);
    let mut axes: Vec<[usize; 3]> = Vec::new();
    for axis in 0..outer.rank() {
        // A dimension without a border is one with the dimension before it.
        match axes.last_mut() {
            Some(last) if inner[axis] == outer[axis] && (mode == Mode::Constant || last[0] == last[1]) => {
                last.iter_mut().for_each(|number| *number *= inner[axis]);
            }
            _ => axes.push([outer[axis], inner[axis], before[axis]]),
        }
    }
    if axes.len() > MOST {
        return Err(Error::unimplemented(format!(
            "a border along more than {MOST} dimensions"
        )));
    }
    let mut dims = Dims {
        rank: axes.len() as i64,
        outer: [1; MOST],
        inner: [1; MOST],
        before: [0; MOST],
    };
    for (at, axis) in axes.iter().enumerate() {
        [dims.outer[at], dims.inner[at], dims.before[at]] = axis.map(|number| number as i64);
    }
    let (_, word) = word_of(request.input_dtype(0))?;
    let function = Cuda::of(request)?.function(&SOURCE, "pad", &[("W", word)])?;
    let with_value = request.num_inputs() > 2;
    let n = outer.num_elements();
    Ok(Planned::new(move |context| {
        let (input, output) = (context.input_address(0), context.output_address(0));
        let value = if with_value { context.input_address(2) } else { NOWHERE };
        let number = mode as i32;
        // SAFETY: these are the kernel's parameters; the dimensions are those of the tensors.
        unsafe { function.launch_over(n, arguments![output, input, value, n as i64, dims, number]) }
    }))
}

/// What stands in a border.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Constant,
    Reflect,
    Symmetric,
}

/// A tensor with a border about to be made; see [`pad`].
#[must_use = "an operation is made by `build`"]
pub struct Pad {
    tensor: Operand,
    paddings: Operand,
    value: Option<Operand>,
    mode: Mode,
    name: Option<String>,
    // Knows where the operation was made.
    builders: [OpBuilder; 3],
}

impl Pad {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Fills the border with the scalar `value` instead of 0.
    pub fn constant_values(mut self, value: impl IntoOperand) -> Self {
        self.value = Some(value.into_operand());
        self
    }

    /// Mirrors the tensor at its outermost elements, which are not repeated.
    pub fn reflect(mut self) -> Self {
        self.mode = Mode::Reflect;
        self
    }

    /// Mirrors the tensor at its edge, so that its outermost elements are repeated.
    pub fn symmetric(mut self) -> Self {
        self.mode = Mode::Symmetric;
        self
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` for paddings that do not fit.
    pub fn build(self) -> Result<Tensor> {
        let [plain, with_value, mirrored] = self.builders;
        let is_zero = |value: &Operand| match value {
            Operand::Number(number) => number.bytes().iter().all(|&byte| byte == 0),
            _ => false,
        };
        let builder = match (self.mode, self.value) {
            (Mode::Constant, Some(value)) if !is_zero(&value) => {
                with_value.input(self.tensor).input(self.paddings).input(value)
            }
            (Mode::Constant, _) => plain.input(self.tensor).input(self.paddings),
            (mode, _) => {
                let mode = if mode == Mode::Reflect { "REFLECT" } else { "SYMMETRIC" };
                mirrored.input(self.tensor).input(self.paddings).attr("mode", mode)
            }
        };
        match self.name {
            Some(name) => builder.name(name).build(),
            None => builder.build(),
        }
    }
}

impl IntoOperand for Pad {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// `tensor` with a border of zeros: `paddings[i]` are the numbers of zeros before and behind dimension i.
///
/// ```
/// use graph_ops::array::{constant, pad};
/// let framed = pad(constant([[1, 2]]), [[1, 1], [0, 2]]).build()?;
/// assert_eq!(framed.shape(), [3, 4].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn pad(tensor: impl IntoOperand, paddings: impl IntoOperand) -> Pad {
    Pad {
        tensor: tensor.into_operand(),
        paddings: paddings.into_operand(),
        value: None,
        mode: Mode::Constant,
        name: None,
        builders: [crate::op("Pad"), crate::op("PadV2"), crate::op("MirrorPad")],
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{DType, Value};
    vec![
        Case::new("Pad")
            .input([[1.0f32, 2.0]])
            .input([[1i32, 0], [0, 2]])
            .expect([[0.0f32; 4], [1.0, 2.0, 0.0, 0.0]]),
        Case::new("Pad")
            .input([true])
            .input([[1i64, 1]])
            .expect([false, true, false]),
        Case::new("Pad")
            .input(5u16)
            .input(Value::zeros(DType::Int32, [0, 2]).unwrap())
            .expect(5u16),
        Case::new("PadV2")
            .input([1i8])
            .input([[2i32, 1]])
            .input(-7i8)
            .expect([-7i8, -7, 1, -7]),
        Case::new("PadV2")
            .input(Vec::<f64>::new())
            .input([[2i32, 0]])
            .input(0.5f64)
            .expect([0.5f64, 0.5]),
        Case::new("PadV2")
            .input(Value::string("a").reshaped([1]).unwrap())
            .input([[1i32, 0]])
            .input("-")
            .expect(Value::from_strings([2], vec![b"-".to_vec(), b"a".to_vec()]).unwrap()),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let rows = [[1.0f64, 2.0], [3.0, 4.0]];
    vec![
        GradientCase::new("Pad").input(rows).input([[1i32, 0], [0, 2]]),
        GradientCase::new("PadV2")
            .input(rows)
            .input([[1i32, 0], [0, 2]])
            .input(0.5f64)
            .with_respect_to(&[0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;

    #[test]
    fn paddings_must_fit() {
        assert!(Case::new("Pad").input([1.0f32]).input([[-1i32, 0]]).run().is_err());
        assert!(
            Case::new("Pad")
                .input([1.0f32])
                .input([[0i32, 0], [0, 0]])
                .run()
                .is_err()
        );
        assert!(Case::new("Pad").input([1.0f32]).input([[0i32, 0, 0]]).run().is_err());
    }

    #[test]
    fn the_value_decides_the_op() {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let op = |pad: Pad| pad.build().unwrap().op().op_type();
        assert_eq!(op(pad([1.0f32], [[1, 1]])), "Pad");
        assert_eq!(op(pad([1.0f32], [[1, 1]]).constant_values(0.0f32)), "Pad");
        assert_eq!(op(pad([1.0f32], [[1, 1]]).constant_values(2.0f32)), "PadV2");
    }
}
