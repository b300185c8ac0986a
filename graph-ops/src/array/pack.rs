//! `Pack` and `Unpack`: tensors of one shape stacked along a new axis, and taken apart again.

use graph_core::graph::builder::constant_in;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Error, Graph, PartialShape, Result};

use crate::array::axis::{around, axis_of};
use crate::array::moving::{Movement, Word, plan};
use crate::cpu::copy::CopyAxis;
use crate::cpu::parallel::{for_each_chunk, grain_for};
use crate::cuda::SIZED;
use crate::cuda::copy::{Transfer, copies};

/// `Pack`
pub(crate) fn pack_definition() -> OpDefinition {
    OpDefinition::new("Pack", "Tensors of one shape stacked along a new axis.")
        .input("values: N * T")
        .output("output: T")
        .attr("N: int >= 1")
        .attr("T: type")
        .attr("axis: int = 0")
        .shape(packed)
        .value_as_shape(packed_values)
        .gradient(|context| {
            let (count, axis): (i64, i64) = (context.attr("N")?, context.attr("axis")?);
            let parts = context
                .node("Unpack")
                .input(context.gradient(0)?)
                .attr("num", count)
                .attr("axis", axis);
            Ok(parts.name("unstack").build_all()?.into_iter().map(Some).collect())
        })
        .kernel(KernelDefinition::cpu(pack_kernel))
        .kernel(KernelDefinition::cuda(packing).types("T", SIZED))
}

fn packed(context: &mut InferenceContext<'_>) -> Result<()> {
    let mut shape = PartialShape::unknown();
    for index in 0..context.num_inputs() {
        shape = shape.merge(context.input(index)).map_err(|_| {
            Error::invalid_argument("the tensors to stack differ in shape")
                .expected(&shape)
                .got(format!("{} at place {index}", context.input(index)))
        })?;
    }
    let Some(dims) = shape.dims() else { return Ok(()) };
    let axis = axis_of(context.attr("axis")?, dims.len() + 1)?;
    let (before, behind) = dims.split_at(axis);
    let count = [Some(context.num_inputs())];
    context.set_output(
        0,
        PartialShape::from_dims(before.iter().chain(&count).chain(behind).copied()),
    );
    Ok(())
}

/// Scalars as dimensions.
fn packed_values(context: &InferenceContext<'_>, _: usize) -> Option<PartialShape> {
    let dims = (0..context.num_inputs()).map(|index| {
        if context.input(index).rank() != Some(0) {
            return None;
        }
        let value = context.int_values(index).ok()?;
        Some(value.and_then(|value| usize::try_from(*value.first()?).ok()))
    });
    dims.collect::<Option<Vec<_>>>().map(PartialShape::from_dims)
}

struct Stack {
    outer: usize,
    inner: usize,
}

impl Movement for Stack {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        crate::cpu::copy::concat(inputs, &vec![1; inputs.len()], self.outer, self.inner, outputs[0]);
        Ok(())
    }
}

fn pack_kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let output = request.output_shape(0)?;
    let axis = axis_of(request.attr("axis")?, output.rank())?;
    let [outer, _, inner] = around(output, axis);
    plan(request, 0..request.num_inputs(), Stack { outer, inner })
}

/// How a slice along an axis lies by itself, and among `count`.
fn slice_axes(outer: usize, count: usize, inner: usize) -> [CopyAxis; 2] {
    let rows = CopyAxis {
        len: outer,
        from: inner as isize,
        to: (count * inner) as isize,
    };
    let elements = CopyAxis {
        len: inner,
        from: 1,
        to: 1,
    };
    [rows, elements]
}

fn packing(request: &KernelRequest<'_>) -> Result<Planned> {
    let output = request.output_shape(0)?;
    let [outer, count, inner] = around(output, axis_of(request.attr("axis")?, output.rank())?);
    let axes = slice_axes(outer, count, inner);
    let slices = (0..count).map(|at| {
        Ok((
            at,
            0,
            Transfer::new(request, request.output_dtype(0), 0, at * inner, &axes)?,
        ))
    });
    Ok(copies(slices.collect::<Result<_>>()?))
}

fn unpacking(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.input_shape(0);
    let [outer, count, inner] = around(shape, axis_of(request.attr("axis")?, shape.rank())?);
    let axes = slice_axes(outer, count, inner).map(|axis| CopyAxis {
        from: axis.to,
        to: axis.from,
        ..axis
    });
    let slices = (0..count).map(|at| {
        Ok((
            0,
            at,
            Transfer::new(request, request.input_dtype(0), at * inner, 0, &axes)?,
        ))
    });
    Ok(copies(slices.collect::<Result<_>>()?))
}

/// `Unpack`
pub(crate) fn unpack_definition() -> OpDefinition {
    OpDefinition::new(
        "Unpack",
        "The slices of a tensor along an axis, each without that axis.",
    )
    .input("value: T")
    .output("output: num * T")
    .attr("num: int >= 0")
    .attr("T: type")
    .attr("axis: int = 0")
    .shape(unpacked)
    .gradient(|context| {
        let count = context.op().num_outputs();
        let parts: Vec<Tensor> = (0..count).map(|slot| context.gradient(slot)).collect::<Result<_>>()?;
        let axis: i64 = context.attr("axis")?;
        Ok(vec![Some(
            context
                .node("Pack")
                .input(parts)
                .attr("axis", axis)
                .name("stack")
                .build()?,
        )])
    })
    .kernel(KernelDefinition::cpu(unpack_kernel))
    .kernel(KernelDefinition::cuda(unpacking).types("T", SIZED))
}

fn unpacked(context: &mut InferenceContext<'_>) -> Result<()> {
    let input = context.input(0).clone();
    let Some(dims) = input.dims() else { return Ok(()) };
    let axis = axis_of(context.attr("axis")?, dims.len())?;
    context.merge_dims(
        Some(context.num_outputs()),
        dims[axis],
        "the attribute 'num' and the dimension taken apart",
    )?;
    let rest = dims
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != axis)
        .map(|(_, &dim)| dim);
    let rest = PartialShape::from_dims(rest);
    (0..context.num_outputs()).for_each(|slot| context.set_output(slot, &rest));
    Ok(())
}

struct Unstack {
    outer: usize,
    count: usize,
    inner: usize,
}

impl Movement for Unstack {
    const SEPARATE_OUTPUTS: bool = true;

    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        /// Elements that are written to each output in turn, so that rows of the input are read while they are in the cache.
        const RUN: usize = 64;
        let &Self { outer, count, inner } = self;
        if outer * inner == 0 {
            return Ok(());
        }
        let block = RUN.div_ceil(inner);
        for_each_chunk(outputs, grain_for(outer * inner), |first, outputs| {
            for start in (0..outer).step_by(block) {
                let rows = start..outer.min(start + block);
                for (index, output) in (first..).zip(outputs.iter_mut()) {
                    if output.is_empty() {
                        continue;
                    }
                    let output = &mut output[rows.start * inner..rows.end * inner];
                    let column = &inputs[0][(rows.start * count + index) * inner..];
                    if inner == 1 {
                        for (row, to) in output.iter_mut().enumerate() {
                            *to = column[row * count];
                        }
                    } else {
                        for (row, to) in output.chunks_exact_mut(inner).enumerate() {
                            to.copy_from_slice(&column[row * count * inner..][..inner]);
                        }
                    }
                }
            }
        });
        Ok(())
    }
}

fn unpack_kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.input_shape(0);
    let [outer, count, inner] = around(shape, axis_of(request.attr("axis")?, shape.rank())?);
    plan(request, [0], Unstack { outer, count, inner })
}

/// Tensors stacked about to be made; see [`stack`].
#[must_use = "an operation is made by `build`"]
pub struct Stacked {
    values: Operand,
    axis: i64,
    fold: bool,
    name: String,
}

impl Stacked {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the new axis dimension `axis` of the result; 0 without, negative ones are counted from the end.
    pub fn axis(mut self, axis: i64) -> Self {
        self.axis = axis;
        self
    }

    /// Whether numbers alone become one constant, as they do without. Python cannot convert every list of numbers at once;
    /// it then makes a constant of the first, and packs constants.
    pub fn fold(mut self, fold: bool) -> Self {
        self.fold = fold;
        self
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` if the tensors differ in shape.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let Operand::List(members) = &self.values else {
            return match &self.values {
                Operand::Failed(error) => Err(error.duplicate()),
                _ => Err(Error::invalid_argument("a list of tensors is stacked")),
            };
        };
        let graph = self.values.graph().cloned().unwrap_or_else(Graph::current);
        if self.axis == 0 && self.fold {
            return self.values.to_tensor(&graph, &self.name, None);
        }
        // Python converts the first to look at its shape.
        if let Some(first) = members.first().map(|first| first.to_value(None)).transpose()?.flatten() {
            constant_in(&graph, first, &self.name)?;
        }
        OpBuilder::new("Pack")
            .in_graph(&graph)
            .input(&self.values)
            .attr("axis", self.axis)
            .name(self.name)
            .build()
    }
}

impl IntoOperand for Stacked {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// `values`, all of one shape, stacked along a new axis: the first one, unless [`Stacked::axis`] says otherwise. A list of
/// numbers becomes one constant.
///
/// ```
/// use graph_ops::array::{placeholder, stack};
/// let (x, y) = (placeholder::<f32>([3]).build()?, placeholder::<f32>([3]).build()?);
/// assert_eq!(stack([&x, &y]).axis(1).build()?.shape(), [3, 2].into());
/// assert_eq!(stack([1, 2]).build()?.op().op_type(), "Const");
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn stack(values: impl IntoOperand) -> Stacked {
    Stacked {
        values: values.into_operand(),
        axis: 0,
        fold: true,
        name: "stack".to_owned(),
    }
}

/// Slices of a tensor about to be made; see [`unstack`].
#[must_use = "an operation is made by `build`"]
pub struct Unstacked {
    value: Operand,
    num: Option<usize>,
    axis: i64,
    name: String,
}

impl Unstacked {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Takes the tensor apart along this dimension; 0 without.
    pub fn axis(mut self, axis: i64) -> Self {
        self.axis = axis;
        self
    }

    /// Says how many slices there are, where the tensor's shape does not.
    pub fn num(mut self, num: usize) -> Self {
        self.num = Some(num);
        self
    }

    /// Makes the operation; the slices.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not known how many there are, or if `num` is wrong.
    #[track_caller]
    pub fn build(self) -> Result<Vec<Tensor>> {
        crate::install();
        let graph = self.value.graph().cloned().unwrap_or_else(Graph::current);
        let value = self.value.to_tensor(&graph, "value", None)?;
        let num = match (self.num, value.shape().rank()) {
            (Some(num), _) => Some(num),
            (None, Some(rank)) => value.shape().dim(axis_of(self.axis, rank)?),
            (None, None) => None,
        };
        let num = num.ok_or_else(|| {
            Error::invalid_argument(format!("it is not known into how many slices {value:?} is taken apart"))
                .hint("say it with `num`")
        })?;
        OpBuilder::new("Unpack")
            .input(value)
            .attr("num", num as i64)
            .attr("axis", self.axis)
            .name(self.name)
            .build_all()
    }
}

/// The slices of `value` along its first dimension (or that of [`Unstacked::axis`]), each without it.
///
/// ```
/// use graph_ops::array::{constant, unstack};
/// let rows = unstack(constant([[1, 2, 3], [4, 5, 6]])).build()?;
/// assert_eq!((rows.len(), rows[0].shape()), (2, [3].into()));
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn unstack(value: impl IntoOperand) -> Unstacked {
    Unstacked {
        value: value.into_operand(),
        num: None,
        axis: 0,
        name: "unstack".to_owned(),
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let (a, b) = ([1.0f32, 2.0, 3.0], [4.0f32, 5.0, 6.0]);
    let columns = [[1.0f32, 4.0], [2.0, 5.0], [3.0, 6.0]];
    vec![
        Case::new("Pack").input(a).input(b).expect([a, b]),
        Case::new("Pack").attr("axis", 1i64).input(a).input(b).expect(columns),
        Case::new("Pack").attr("axis", -1i64).input(a).input(b).expect(columns),
        Case::new("Pack").input(7u8).expect([7u8]),
        Case::new("Pack")
            .input("a")
            .input("bc")
            .expect(Value::from_strings([2], vec![b"a".to_vec(), b"bc".to_vec()]).unwrap()),
        Case::new("Unpack").attr("num", 2i64).input([a, b]).expect(a).expect(b),
        Case::new("Unpack")
            .attr("num", 2i64)
            .attr("axis", -1i64)
            .input(columns)
            .expect(a)
            .expect(b),
        Case::new("Unpack").attr("num", 0i64).input(Vec::<bool>::new()),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    vec![
        GradientCase::new("Pack")
            .attr("axis", 1i64)
            .input([1.0f64, 2.0])
            .input([3.0f64, 4.0]),
        GradientCase::new("Unpack")
            .attr("num", 2i64)
            .input([[1.0f64, 2.0], [3.0, 4.0]])
            .output(1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::{placeholder, reshape};
    use graph_core::feed;

    #[test]
    fn numbers_fold_unless_they_must_not() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let folded = stack([4, 7]).build().unwrap();
        assert_eq!((folded.op().op_type(), folded.name()), ("Const", "stack:0".into()));
        let packed = stack([4, 7]).fold(false).build().unwrap();
        assert_eq!((packed.op().op_type(), packed.name()), ("Pack", "stack_2:0".into()));
        let inputs: Vec<String> = packed.op().inputs().iter().map(Tensor::name).collect();
        assert_eq!(inputs, ["stack_2/values_0:0", "stack_2/values_1:0"]);
        assert_eq!(graph.operation("stack_1").unwrap().op_type(), "Const");
    }

    #[test]
    fn packed_scalars_are_dimensions() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let rows = placeholder::<i32>(()).build().unwrap();
        let input = placeholder::<f32>([None]).build().unwrap();
        let target = stack([rows.into_operand(), 3.into_operand()]).build().unwrap();
        assert_eq!(reshape(input, target).build().unwrap().shape().to_string(), "[?,3]");
    }

    #[test]
    fn the_number_of_slices_must_be_known() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let input = placeholder::<f32>([None, Some(2)]).build().unwrap();
        assert!(unstack(&input).build().is_err());
        assert_eq!(unstack(&input).num(3).build().unwrap().len(), 3);
        assert_eq!(unstack(&input).axis(-1).build().unwrap().len(), 2);
        assert!(unstack(&input).axis(1).num(3).build().is_err());
    }

    #[test]
    fn every_slice_has_its_elements() {
        for shape in [
            [1, 1, 1],
            [70, 33, 1],
            [3, 1, 5],
            [101, 999, 1],
            [5, 7, 300],
            [1, 4, 40_001],
            [2, 3, 0],
        ] {
            let [outer, count, inner] = shape;
            let input: Vec<i32> = (0..(outer * count * inner) as i32).collect();
            let case = crate::testing::Case::new("Unpack")
                .attr("num", count as i64)
                .attr("axis", 1i64);
            let outputs = case
                .input(graph_core::Value::from_vec(shape, input.clone()).unwrap())
                .run()
                .unwrap();
            assert_eq!(outputs.len(), count);
            for (index, output) in outputs.iter().enumerate() {
                let rows = (0..outer).flat_map(|row| &input[(row * count + index) * inner..][..inner]);
                assert!(
                    output.as_slice::<i32>().unwrap().iter().eq(rows),
                    "{shape:?}, slice {index}"
                );
            }
        }
    }

    #[test]
    fn a_slice_that_is_read_alone_is_the_same() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let input = placeholder::<f32>([5, 3]).build().unwrap();
        let columns = unstack(&input).axis(1).build().unwrap();
        let parts = crate::array::split(&input, 5).build().unwrap();
        let numbers: Vec<f32> = (0..15u8).map(f32::from).collect();
        let value = graph_core::Value::from_vec([5, 3], numbers).unwrap();
        let session = graph_core::Session::new(&graph).unwrap();
        for (i, column) in columns.iter().enumerate() {
            let column: Vec<f32> = session.run(column, feed! { &input => value.clone() }).unwrap();
            let start = i as f32;
            assert_eq!(column, [0.0, 3.0, 6.0, 9.0, 12.0].map(|x| x + start));
        }
        let (part, column): (graph_core::Value, Vec<f32>) = session
            .run((&parts[3], &columns[2]), feed! { &input => value.clone() })
            .unwrap();
        assert_eq!(part, [[9.0f32, 10.0, 11.0]].into());
        assert_eq!(column, [2.0, 5.0, 8.0, 11.0, 14.0]);
        // Run for nothing that reads it.
        session.run(columns[0].op(), feed! { &input => value }).unwrap();
    }
}
