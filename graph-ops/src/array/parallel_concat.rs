//! `ParallelConcat`: tensors of one row each, stacked along the first axis.

use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition};
use graph_core::{Error, PartialShape, Result};

use crate::array::moving::{Movement, Word, plan};
use crate::composite::Composite;
use crate::cpu::copy::CopyAxis;
use crate::cuda::SIZED;
use crate::cuda::copy::{Transfer, copies};

/// `ParallelConcat`
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "ParallelConcat",
        "Tensors whose first dimension is 1, joined along it; the result's shape is given.",
    )
    .input("values: N * T")
    .output("output: T")
    .attr("N: int >= 1")
    .attr("T: type")
    .attr("shape: shape")
    .shape(shape)
    .no_gradient()
    .kernel(KernelDefinition::cpu(|request| {
        plan(request, 0..request.num_inputs(), Rows)
    }))
    .kernel(
        KernelDefinition::cuda(|request| {
            let dtype = request.output_dtype(0);
            let row = |index: usize| {
                let len = request.input_shape(index).num_elements();
                let axis = CopyAxis { len, from: 1, to: 1 };
                Ok((index, 0, Transfer::new(request, dtype, 0, index * len, &[axis])?))
            };
            Ok(copies((0..request.num_inputs()).map(row).collect::<Result<_>>()?))
        })
        .types("T", SIZED),
    )
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let output: PartialShape = context.attr("shape")?;
    let Some(dims) = output.dims().filter(|dims| !dims.is_empty()) else {
        return Err(Error::invalid_argument("the shape attribute must have at least one dimension").got(&output));
    };
    context.merge_dims(
        dims[0],
        Some(context.num_inputs()),
        "the first dimension and the number of tensors",
    )?;
    let row = PartialShape::from_dims(std::iter::once(Some(1)).chain(dims[1..].iter().copied()));
    let mut row_shape = row;
    for index in 0..context.num_inputs() {
        row_shape = row_shape
            .merge(context.input(index))
            .map_err(|error| error.context(format!("fitting tensor {index} into the shape {output}")))?;
    }
    let rest = row_shape.dims().map_or(&dims[1..], |dims| &dims[1..]);
    let whole = std::iter::once(Some(context.num_inputs())).chain(rest.iter().copied());
    context.set_output(0, PartialShape::from_dims(whole));
    Ok(())
}

struct Rows;

impl Movement for Rows {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let mut rest = &mut *outputs[0];
        for input in inputs {
            let (part, after) = rest.split_at_mut(input.len());
            part.copy_from_slice(input);
            rest = after;
        }
        Ok(())
    }
}

/// `values`, tensors of one known shape, stacked along a new first axis.
///
/// # Errors
/// The operands' own; `InvalidArgument` if there are none, or if the shapes differ or are not known.
#[track_caller]
pub fn parallel_stack<T: IntoOperand>(values: impl IntoIterator<Item = T>) -> Result<Tensor> {
    let values: Vec<Operand> = values.into_iter().map(IntoOperand::into_operand).collect();
    let site = Composite::of(&values.iter().collect::<Vec<_>>());
    let scope = site.scope("parallel_stack")?;
    let tensors: Vec<Tensor> = values
        .iter()
        .map(|value| site.tensor(value, None, "values"))
        .collect::<Result<_>>()?;
    let shape = tensors.first().and_then(|first| first.shape().to_shape());
    let shape = shape.ok_or_else(|| Error::invalid_argument("tensors of a known shape are stacked in parallel"))?;
    let rows: Vec<Tensor> = tensors
        .iter()
        .map(|tensor| site.node("ExpandDims").input(tensor).input(0i32).build())
        .collect::<Result<_>>()?;
    let whole = PartialShape::from_dims(std::iter::once(Some(rows.len())).chain(shape.iter().map(|&dim| Some(dim))));
    let node: OpBuilder = site.node("ParallelConcat").input(rows).attr("shape", whole);
    node.name(scope.scope_name()).build()
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let words = |shape: [usize; 1], words: &[&str]| {
        Value::from_strings(shape, words.iter().map(|word| word.as_bytes().to_vec()).collect()).expect("strings")
    };
    vec![
        Case::new("ParallelConcat")
            .attr("shape", PartialShape::from([2, 2]))
            .input([[1.0f32, 2.0]])
            .input([[3.0f32, 4.0]])
            .expect([[1.0f32, 2.0], [3.0, 4.0]]),
        Case::new("ParallelConcat")
            .attr("shape", PartialShape::from([2]))
            .input(words([1], &["a"]))
            .input(words([1], &["b"]))
            .expect(words([2], &["a", "b"])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::constant;
    use crate::testing::Case;

    #[test]
    fn rows_are_stacked() -> Result<()> {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let stacked = parallel_stack([constant([1i32, 2]), constant([3i32, 4])])?;
        assert_eq!(stacked.shape(), [2, 2].into());
        let value: Vec<i32> = graph_core::Session::new(&graph)?.run(&stacked, ())?;
        assert_eq!(value, [1, 2, 3, 4]);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_the_shape_is_refused() {
        let case = |shape: PartialShape| {
            Case::new("ParallelConcat")
                .attr("shape", shape)
                .input([[1.0f32, 2.0]])
                .run()
        };
        assert!(case([1, 2].into()).is_ok());
        for shape in [
            PartialShape::from([2, 2]),
            [1, 3].into(),
            PartialShape::scalar(),
            PartialShape::unknown(),
        ] {
            assert!(case(shape.clone()).is_err(), "{shape}");
        }
    }
}
