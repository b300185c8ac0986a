//! `Transpose`, `ConjugateTranspose` and `InvertPermutation`.

use graph_core::gradients::GradientContext;
use graph_core::graph::scope::name_scope_in;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, DType, Element, Error, Graph, PartialShape, Result, Value};

use crate::array::axis::planned_ints;
use crate::array::moving::{Movement, Word, plan};
use crate::cpu::copy::{CopyAxis, strides};
use crate::cuda::copy::copy;
use crate::cuda::{NAMED, SIZED};

/// `Transpose`
pub(crate) fn transpose_definition() -> OpDefinition {
    definition(
        "Transpose",
        "A tensor whose dimension i is dimension perm[i] of the input.",
    )
    .gradient(|context| gradient(context, "Transpose"))
    .kernel(KernelDefinition::cpu(permuting))
    .kernel(KernelDefinition::cuda(on_device).types("T", SIZED))
}

/// `ConjugateTranspose`
pub(crate) fn conjugate_transpose_definition() -> OpDefinition {
    definition(
        "ConjugateTranspose",
        "A tensor whose dimension i is dimension perm[i] of the input's conjugate.",
    )
    .gradient(|context| gradient(context, "ConjugateTranspose"))
    .kernel(KernelDefinition::cpu(conjugating::<f32>).types("T", &[DType::Complex64]))
    .kernel(KernelDefinition::cpu(conjugating::<f64>).types("T", &[DType::Complex128]))
    .kernel(KernelDefinition::cpu(permuting))
    .kernel(KernelDefinition::cuda(on_device).types("T", NAMED))
}

fn definition(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("x: T")
        .input("perm: Tperm")
        .output("y: T")
        .attr("T: type")
        .attr("Tperm: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[1])
        .shape(shape)
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let perm = context.with_rank(1, 1)?;
    let input = context.input(0).clone();
    let known = context.int_values(1)?;
    let rank = input.rank().or(perm.dim(0)).or(known.as_ref().map(Vec::len));
    let Some(rank) = rank else { return Ok(()) };
    context.with_rank(0, rank)?;
    context.merge_dims(
        Some(rank),
        perm.dim(0),
        "the input's rank and the length of the permutation",
    )?;
    let dims = match known {
        Some(perm) => permutation(&perm, rank)?.iter().map(|&axis| input.dim(axis)).collect(),
        None => vec![None; rank],
    };
    context.set_output(0, PartialShape::from(dims));
    Ok(())
}

/// Checks that the numbers are those below `rank`, each once; negative ones are counted from the end.
fn permutation(numbers: &[i64], rank: usize) -> Result<Vec<usize>> {
    let axes: Vec<usize> = numbers
        .iter()
        .map(|&axis| if axis < 0 { axis + rank as i64 } else { axis })
        .filter_map(|axis| usize::try_from(axis).ok())
        .collect();
    if axes.len() == rank && (0..rank).all(|axis| axes.contains(&axis)) {
        return Ok(axes);
    }
    Err(Error::invalid_argument(format!("not a permutation of {rank} dimensions")).got(format!("{numbers:?}")))
}

/// Back by the inverse permutation.
fn gradient(context: &mut GradientContext<'_>, op: &str) -> Result<Vec<Option<Tensor>>> {
    let inverse = context.node("InvertPermutation").input(context.input(1)).build()?;
    // TensorFlow's function conjugates complex tensors alone.
    let op = if context.input(0).dtype().is_complex() {
        op
    } else {
        "Transpose"
    };
    let gradient = context
        .node(op)
        .input(context.gradient(0)?)
        .input(inverse)
        .name("transpose")
        .build()?;
    Ok(vec![Some(gradient), None])
}

struct Permute {
    shape: Vec<usize>,
    axes: Vec<usize>,
}

impl Movement for Permute {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        crate::cpu::transpose::transpose(inputs[0], &self.shape, &self.axes, outputs[0]);
        Ok(())
    }
}

fn permuting(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.input_shape(0).to_vec();
    let axes = permutation(&planned_ints(request, 1)?, shape.len())?;
    plan(request, [0], Permute { shape, axes })
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.input_shape(0);
    let axes = permutation(&planned_ints(request, 1)?, shape.rank())?;
    let (from, to) = (strides(shape), strides(request.output_shape(0)?));
    let axes = axes.into_iter().zip(to).map(|(axis, to)| CopyAxis {
        len: shape[axis],
        from: from[axis] as isize,
        to: to as isize,
    });
    copy(request, 0, 0, &axes.collect::<Vec<_>>())
}

fn conjugating<F: num_traits::Float + 'static>(request: &KernelRequest<'_>) -> Result<Planned>
where
    Complex<F>: Element,
{
    let shape = request.input_shape(0).to_vec();
    let axes = permutation(&planned_ints(request, 1)?, shape.len())?;
    Ok(Planned::new(move |context| {
        let (input, output) = (context.input::<Complex<F>>(0)?, context.output::<Complex<F>>(0)?);
        crate::cpu::transpose::transpose(input, &shape, &axes, output);
        output.iter_mut().for_each(|x| *x = x.conj());
        Ok(())
    }))
}

/// `InvertPermutation`
pub(crate) fn invert_permutation_definition() -> OpDefinition {
    OpDefinition::new("InvertPermutation", "The permutation that undoes another.")
        .input("x: T")
        .output("y: T")
        .attr("T: {int32, int64} = DT_INT32")
        .may_fail()
        .shape(|context| {
            let shape = context.with_rank(0, 1)?;
            context.set_output(0, shape);
            Ok(())
        })
        .not_differentiable()
        .kernel(KernelDefinition::cpu(inverting::<i32>).types("T", &[DType::Int32]))
        .kernel(KernelDefinition::cpu(inverting::<i64>).types("T", &[DType::Int64]))
}

fn inverting<T: Element + num_traits::PrimInt>(_: &KernelRequest<'_>) -> Result<Planned> {
    Ok(Planned::new(|context| {
        let (input, output) = (context.input::<T>(0)?, context.output::<T>(0)?);
        let bad = || Error::invalid_argument("not a permutation").got(format!("{input:?}"));
        let unset = T::max_value();
        output.fill(unset);
        for (index, &place) in input.iter().enumerate() {
            let slot = place
                .to_usize()
                .and_then(|place| output.get_mut(place))
                .ok_or_else(bad)?;
            if *slot != unset {
                return Err(bad());
            }
            *slot = T::from(index).ok_or_else(bad)?;
        }
        Ok(())
    }))
}

/// A tensor with its dimensions in another order about to be made; see [`transpose`].
#[must_use = "an operation is made by `build`"]
pub struct Transpose {
    tensor: Operand,
    perm: Option<Operand>,
    conjugate: bool,
    name: String,
}

impl Transpose {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes dimension i of the result dimension `perm[i]` of the tensor; without, the order is turned round.
    pub fn perm(mut self, perm: impl IntoOperand) -> Self {
        self.perm = Some(perm.into_operand());
        self
    }

    /// Conjugates complex numbers too.
    pub fn conjugate(mut self, conjugate: bool) -> Self {
        self.conjugate = conjugate;
        self
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` for a permutation that is none.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let graph = self.tensor.graph().or(self.perm.as_ref().and_then(Operand::graph));
        let graph = graph.cloned().unwrap_or_else(Graph::current);
        let scope = name_scope_in(&graph, &self.name)?;
        let name = scope.scope_name();
        let op = |tensor: &Tensor| {
            let conjugate = self.conjugate && tensor.dtype().is_complex();
            OpBuilder::new(if conjugate { "ConjugateTranspose" } else { "Transpose" }).in_graph(&graph)
        };
        let Some(perm) = &self.perm else {
            let tensor = self.tensor.to_tensor(&graph, "a", None)?;
            let Some(rank) = tensor.shape().rank().filter(|&rank| rank > 0) else {
                let rank = OpBuilder::new("Rank").input(&tensor).build()?;
                let last = OpBuilder::new("Sub").input(&rank).input(1i32).name("sub").build()?;
                let range = OpBuilder::new("Range").input(0i32).input(&rank).input(1i32).build()?;
                let perm = OpBuilder::new("Sub").input(last).input(range).name("sub_1").build()?;
                return op(&tensor).input(&tensor).input(perm).name(name).build();
            };
            let perm = Operand::Array(Value::int32_vector((0..rank as i32).rev()));
            return op(&tensor).input(&tensor).input(perm).name(name).build();
        };
        match &self.tensor {
            Operand::Tensor(_) | Operand::Variable(_) => {
                let tensor = self.tensor.to_tensor(&graph, "x", None)?;
                op(&tensor).input(tensor).input(perm).name(name).build()
            }
            // A plain array becomes a constant under the operation's own name.
            array => OpBuilder::new("Transpose")
                .in_graph(&graph)
                .input(array)
                .input(perm)
                .name(name)
                .build(),
        }
    }
}

impl IntoOperand for Transpose {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// `tensor` with its dimensions in another order: turned round, unless [`Transpose::perm`] says otherwise.
///
/// ```
/// use graph_ops::array::{placeholder, transpose};
/// let images = placeholder::<f32>([None, Some(28), Some(28), Some(3)]).build()?;
/// let planes = transpose(&images).perm([0, 3, 1, 2]).build()?;
/// assert_eq!(planes.shape().to_string(), "[?,3,28,28]");
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn transpose(tensor: impl IntoOperand) -> Transpose {
    Transpose {
        tensor: tensor.into_operand(),
        perm: None,
        conjugate: false,
        name: "transpose".to_owned(),
    }
}

/// The permutation that undoes the permutation `x`, an integer vector.
///
/// # Errors
/// `InvalidArgument` in the run if `x` is no permutation.
#[track_caller]
pub fn invert_permutation(x: impl IntoOperand) -> OpBuilder {
    crate::op("InvertPermutation").input(x)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let (rows, columns) = (
        [[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]],
        [[1.0f32, 4.0], [2.0, 5.0], [3.0, 6.0]],
    );
    let (z, bar) = (Complex::new(1.0f64, 2.0), Complex::new(1.0f64, -2.0));
    let words = |words: [&str; 4]| {
        Value::from_strings([2, 2], words.iter().map(|word| word.as_bytes().to_vec()).collect()).unwrap()
    };
    vec![
        Case::new("Transpose").input(rows).input([1i32, 0]).expect(columns),
        Case::new("Transpose")
            .input([[1u8, 2]])
            .input([1i64, 0])
            .expect([[1u8], [2]]),
        Case::new("Transpose").input(true).input(Vec::<i32>::new()).expect(true),
        Case::new("Transpose")
            .input(words(["a", "b", "c", "d"]))
            .input([1i32, 0])
            .expect(words(["a", "c", "b", "d"])),
        Case::new("ConjugateTranspose")
            .input([[z, bar]])
            .input([1i32, 0])
            .expect([[bar], [z]]),
        Case::new("ConjugateTranspose")
            .input(rows)
            .input([1i32, 0])
            .expect(columns),
        Case::new("InvertPermutation").input([2i32, 0, 1]).expect([1i32, 2, 0]),
        Case::new("InvertPermutation").input([1i64, 0]).expect([1i64, 0]),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let rows = [[1.0f64, 2.0, 3.0], [4.0, 5.0, 6.0]];
    vec![
        GradientCase::new("Transpose").input(rows).input([1i32, 0]),
        GradientCase::new("ConjugateTranspose").input(rows).input([1i32, 0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::placeholder;
    use crate::testing::Case;

    #[test]
    fn without_a_permutation_the_order_is_turned_round() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let input = placeholder::<f32>([None, Some(2), Some(3)]).build().unwrap();
        let output = transpose(&input).build().unwrap();
        assert_eq!(
            (output.shape().to_string(), output.name()),
            ("[3,2,?]".into(), "transpose:0".into())
        );
        assert_eq!(output.op().input(1).name(), "transpose/perm:0");
        assert!(transpose(&input).perm([0, 1]).build().is_err());
        assert!(transpose(&input).perm([0, 1, 1]).build().is_err());
        assert!(transpose(&input).perm([0, 1, 3]).build().is_err());
    }

    #[test]
    fn only_permutations_can_be_inverted() {
        for bad in [[0i32, 0], [0, 2], [-1, 0]] {
            assert_eq!(
                Case::new("InvertPermutation").input(bad).run().unwrap_err().class(),
                "InvalidArgument"
            );
        }
    }
}
