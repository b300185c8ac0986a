//! `TopK`, `TopKV2`, `InTopK`, `InTopKV2`: the greatest elements, and whether a target is among them.

mod order;

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, Value, typed_builder};
use graph_cuda::{Source, source};
use half::{bf16, f16};

use self::order::{Key, greatest, greatest_in_heap_order, key_of_double, key_of_single};
use crate::cpu::parallel::{SharedMut, for_each_chunk, for_each_range, grain_for};
use crate::cpu::simd::multiversion;
use crate::cuda::launch::{Launch, Work, with_scratch};
use crate::cuda::type_name;
use crate::math::nodes::Nodes;

/// A kernel for each dtype.
macro_rules! kernels {
    ($definition:expr; $($dtype:ident $type:ty: $key:expr),* $(,)?) => {
        $definition $(.kernel(
            KernelDefinition::cpu(|request| kernel::<$type, _>(request, $key)).types("T", &[DType::$dtype]),
        ))*
    };
}

fn base(definition: OpDefinition) -> OpDefinition {
    let definition = definition.output("values: T").output("indices: int32");
    kernels! {
        definition.may_fail().shape(shape).gradient(gradient);
        Float32 f32: key_of_single,
        Float64 f64: key_of_double,
        Half f16: |x| key_of_single(x.into()),
        BFloat16 bf16: |x| key_of_single(x.into()),
        Int8 i8: |x| i32::from(x) as u32 ^ 1 << 31,
        Int16 i16: |x| i32::from(x) as u32 ^ 1 << 31,
        Int32 i32: |x| x as u32 ^ 1 << 31,
        Int64 i64: |x| x as u64 ^ 1 << 63,
        UInt8 u8: u32::from,
        UInt16 u16: u32::from,
        UInt32 u32: |x| x,
        UInt64 u64: |x| x,
    }
    .kernel(KernelDefinition::cuda(on_device).types("T", DType::REAL_NUMBERS))
}

/// `TopK`, with `k` as an attribute
pub(crate) fn top_k_v1() -> OpDefinition {
    let definition = OpDefinition::new(
        "TopK",
        "The k greatest elements along the last axis, and where they are.",
    );
    base(
        definition
            .input("input: T")
            .attr("k: int >= 0")
            .attr("sorted: bool = true")
            .attr("T: realnumbertype"),
    )
}

/// `TopKV2`, with `k` as an input
pub(crate) fn top_k_v2() -> OpDefinition {
    let definition = OpDefinition::new(
        "TopKV2",
        "The k greatest elements along the last axis, and where they are.",
    );
    base(
        definition
            .input("input: T")
            .input("k: int32")
            .attr("sorted: bool = true")
            .attr("T: realnumbertype")
            .plan_time_inputs(&[1]),
    )
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let input = context.with_rank_at_least(0, 1)?;
    let k = if context.num_inputs() > 1 {
        context.with_rank(1, 0)?;
        context.int_values(1)?.map(|k| k[0])
    } else {
        Some(context.attr("k")?)
    };
    if let Some(k) = k.filter(|&k| k < 0) {
        return Err(Error::invalid_argument("a negative number of elements is asked for")
            .expected("k >= 0")
            .got(k));
    }
    let Some(dims) = input.dims() else {
        return Ok(());
    };
    let last = dims[dims.len() - 1];
    if let (Some(last), Some(k)) = (last, k)
        && (last as i64) < k
    {
        return Err(
            Error::invalid_argument("the last axis has fewer elements than are asked for")
                .expected(format!("at least {k}"))
                .got(last),
        );
    }
    let output = PartialShape::from_dims(dims[..dims.len() - 1].iter().copied().chain([k.map(|k| k as usize)]));
    context.set_output(0, output.clone());
    context.set_output(1, output);
    Ok(())
}

/// Rows, elements of a row, and how many of them are wanted.
fn sizes(request: &KernelRequest<'_>) -> Result<[usize; 3]> {
    let (shape, output) = (request.input_shape(0), request.output_shape(0)?);
    let last = output.rank() - 1;
    Ok([output[..last].iter().product(), shape[shape.rank() - 1], output[last]])
}

const SOURCE: Source = source!("top_k.cu");

/// Blocks that work side by side, each with room for what it sorts.
const BUSY: usize = 512;

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let [rows, columns, k] = sizes(request)?;
    let defines = [("T", type_name(request.input_dtype(0))?)];
    let sorted: bool = request.attr("sorted")?;
    if sorted || k <= 1 || k == columns {
        let padded = k.next_power_of_two();
        let (work, bytes) = if k == 0 {
            (0, 0)
        } else {
            (rows.min(BUSY), rows.min(BUSY) * padded * 16)
        };
        let numbers = [rows, columns, k, padded];
        let launch = Launch::new(request, &SOURCE, "top_k", &defines, Work::Blocks(work), &numbers)?;
        return Ok(with_scratch(vec![launch], &[0], bytes));
    }
    let numbers = [rows, columns, k];
    let launch = Launch::new(request, &SOURCE, "heap_order", &defines, Work::Elements(rows), &numbers)?;
    Ok(with_scratch(vec![launch], &[0], rows * (k + 1) * 4))
}

fn kernel<T: Element, K: Key>(
    request: &KernelRequest<'_>,
    key: impl Fn(T) -> K + Copy + Send + Sync + 'static,
) -> Result<Planned> {
    let [rows, columns, k] = sizes(request)?;
    let sorted: bool = request.attr("sorted")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let input = context.input::<T>(0)?;
        let values = SharedMut::new(context.output::<T>(0)?);
        let indices = SharedMut::new(context.output::<i32>(1)?);
        for_each_range(rows, grain_for(columns * 8), |range| {
            let mut heap: Vec<i32> = Vec::new();
            let mut order: Vec<K::Placed> = Vec::new();
            for row in range {
                let input = &input[row * columns..(row + 1) * columns];
                // SAFETY: each row of the outputs belongs to one task.
                let (values, indices) = unsafe {
                    (
                        values.slice(row * k..(row + 1) * k),
                        indices.slice(row * k..(row + 1) * k),
                    )
                };
                // One alone, and all of them, TensorFlow sorts in any case.
                if sorted || k <= 1 || k == columns {
                    let elements = input.iter().zip(0..).map(|(&x, place)| key(x).at(place));
                    greatest(elements, &mut order, k);
                    indices
                        .iter_mut()
                        .zip(&order)
                        .for_each(|(index, &element)| *index = K::place(element));
                } else {
                    let keys: Vec<K> = input.iter().map(|&x| key(x)).collect();
                    greatest_in_heap_order(&keys, &mut heap, indices);
                }
                values
                    .iter_mut()
                    .zip(&*indices)
                    .for_each(|(value, &index)| *value = input[index as usize]);
            }
        });
        Ok(())
    }))
}

/// The gradient goes to where the values came from: the indices, counted over the flat input, say where to scatter it.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (input, indices, gradient) = (context.input(0), context.output(1), context.gradient(0)?);
    let (input_shape, index_shape) = (nodes.shape(&input)?, nodes.shape(&indices)?);
    let last_dim = |shape: &Tensor| {
        let wide = nodes.cast(shape, DType::Int64)?;
        let size = nodes.size(shape)?;
        let last = nodes.sub(&size, 1i32)?;
        nodes.gather(&wide, &last)
    };
    let index_last = last_dim(&index_shape)?;
    let rows = nodes.stack(vec![(-1i64).into_operand(), index_last.into_operand()])?;
    let matrix = nodes.reshape(&indices, &rows)?;
    let input_last = last_dim(&input_shape)?;
    let matrix_shape = nodes.shape(&matrix)?;
    let outer = nodes.at_index(&matrix_shape, 0)?;
    let outer = nodes.cast(&outer, DType::Int64)?;
    let limit = nodes.mul(&outer, &input_last)?;
    let starts = nodes.int64_range(&limit, &input_last)?;
    let starts = nodes.node("ExpandDims").input(&starts).input(-1i32).build()?;
    let starts = nodes.cast(&starts, DType::Int32)?;
    let flat = nodes.add(&matrix, &starts)?;
    let flat = nodes.reshape(&flat, Value::from([-1i32]))?;
    let flat = nodes.node("ExpandDims").input(&flat).input(-1i32).build()?;
    let gradient = nodes.reshape(&gradient, Value::from([-1i32]))?;
    let size = nodes.reduce("Prod", &input_shape, None, false)?;
    let shape: Vec<Operand> = vec![size.into_operand()];
    let scattered = nodes
        .node("ScatterNd")
        .input(&flat)
        .input(&gradient)
        .input(shape)
        .build()?;
    let result = nodes.reshape(&scattered, &input_shape)?;
    let mut gradients = vec![Some(result)];
    if context.op().inputs().len() > 1 {
        gradients.push(Some(nodes.constant(0i32, "zeros")?));
    }
    Ok(gradients)
}

/// `InTopK`, with `k` as an attribute
pub(crate) fn in_top_k_v1() -> OpDefinition {
    in_base(
        OpDefinition::new("InTopK", IN_TOP_K)
            .input("predictions: float")
            .input("targets: T"),
        |definition| definition.attr("k: int"),
    )
}

/// `InTopKV2`, with `k` as an input
pub(crate) fn in_top_k_v2() -> OpDefinition {
    let definition = OpDefinition::new("InTopKV2", IN_TOP_K);
    in_base(
        definition.input("predictions: float").input("targets: T").input("k: T"),
        |definition| definition,
    )
}

const IN_TOP_K: &str =
    "Whether each target is among the k classes of the greatest predictions; ties at the border count.";

fn in_base(definition: OpDefinition, attrs: impl FnOnce(OpDefinition) -> OpDefinition) -> OpDefinition {
    attrs(definition.output("precision: bool"))
        .attr("T: {int32, int64} = DT_INT32")
        .shape(in_shape)
        .not_differentiable()
        .kernel(KernelDefinition::cpu(|request| in_kernel::<i32>(request, i64::from)).types("T", &[DType::Int32]))
        .kernel(KernelDefinition::cpu(|request| in_kernel::<i64>(request, |x| x)).types("T", &[DType::Int64]))
        .kernel(KernelDefinition::cuda(in_on_device))
}

fn in_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (predictions, targets) = (context.with_rank(0, 2)?, context.with_rank(1, 1)?);
    if context.num_inputs() > 2 {
        context.with_rank(2, 0)?;
    }
    let batch = context.merge_dims(
        predictions.dim(0),
        targets.dim(0),
        "the rows of predictions and the targets",
    )?;
    context.set_output(0, PartialShape::from([batch]));
    Ok(())
}

fn in_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let [rows, classes] = [request.input_shape(0)[0], request.input_shape(0)[1]];
    let defines = [("T", "float"), ("I", type_name(request.input_dtype(1))?)];
    let of_input = request.num_inputs() > 2;
    // None are among the first k if k is negative.
    let fixed = if of_input {
        0
    } else {
        request.attr::<i64>("k")?.max(0) as usize
    };
    let numbers = [rows, classes, usize::from(of_input), fixed];
    let work = Work::Blocks(rows.div_ceil(8));
    let launch = Launch::new(request, &SOURCE, "in_top_k", &defines, work, &numbers)?;
    // The kernel does not read the last one where there is none.
    Ok(launch.over(if of_input { &[0, 1, 2] } else { &[0, 1, 1] }))
}

fn in_kernel<T: Element>(request: &KernelRequest<'_>, widen: fn(T) -> i64) -> Result<Planned> {
    let classes = request.input_shape(0)[1];
    let fixed: Option<i64> = match request.num_inputs() {
        2 => Some(request.attr("k")?),
        _ => None,
    };
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (predictions, targets) = (context.input::<f32>(0)?, context.input::<T>(1)?);
        let k = match fixed {
            Some(k) => k,
            None => widen(context.input::<T>(2)?[0]),
        };
        for_each_chunk(context.output::<bool>(0)?, grain_for(classes), |start, found| {
            for (row, found) in (start..).zip(found) {
                let predictions = &predictions[row * classes..(row + 1) * classes];
                let own = usize::try_from(widen(targets[row]))
                    .ok()
                    .and_then(|target| predictions.get(target));
                let rank = own.and_then(|&own| rank_among(predictions, own));
                *found = rank.is_some_and(|rank| i64::from(rank) < k);
            }
        });
        Ok(())
    }))
}

multiversion! {
    /// How many of the predictions are greater; nothing unless all are finite.
    fn rank_among(predictions: &[f32], own: f32) -> Option<u32> {
        let (mut greater, mut finite) = (0, true);
        for &prediction in predictions {
            greater += u32::from(prediction > own);
            finite &= prediction.abs() < f32::INFINITY;
        }
        finite.then_some(greater)
    }
}

/// The greatest elements about to be found; see [`top_k`].
#[must_use = "an operation is made by `build`"]
pub struct TopK(OpBuilder);

impl TopK {
    /// Whether the elements must come in descending order; true without.
    pub fn sorted(self, sorted: bool) -> Self {
        Self(self.0.attr("sorted", sorted))
    }

    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Makes the operation: the values, and their indices as `int32`.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` if the last axis has fewer than `k` elements.
    pub fn build(self) -> Result<(Tensor, Tensor)> {
        let operation = self.0.build_operation()?;
        Ok((operation.output(0), operation.output(1)))
    }
}

/// The `k` greatest elements along the last axis of `input` in descending order, and their indices along that axis; of equal
/// elements the first comes first. Both results have `input`'s shape with `k` as the last dimension.
///
/// ```
/// use graph_ops::{array::constant, nn::top_k};
/// let (values, indices) = top_k(constant([1.0f32, 5.0, 3.0]), 2).build()?; // [5, 3] and [1, 2]
/// assert_eq!((values.shape(), indices.shape()), ([2].into(), [2].into()));
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn top_k(input: impl IntoOperand, k: impl IntoOperand) -> TopK {
    TopK(crate::op("TopKV2").input(input).input(k))
}

typed_builder! {
    /// A comparison of targets with predictions about to be made; see [`in_top_k`].
    pub struct InTopK;
}

/// Whether each of `targets` (`int32` or `int64` class numbers, shape [batch]) is among the `k` classes of the greatest
/// `predictions` (`float`, shape [batch, classes]). Classes that tie with the last of the `k` all count. False where the
/// target is no class or a prediction is not finite.
#[track_caller]
pub fn in_top_k(predictions: impl IntoOperand, targets: impl IntoOperand, k: impl IntoOperand) -> InTopK {
    InTopK(
        crate::op("InTopKV2")
            .input(predictions)
            .input(targets)
            .input(k)
            .name("in_top_k/InTopKV2"),
    )
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let x = [[1.0f32, 5.0, 3.0, 5.0], [-1.0, -2.0, -3.0, -4.0]];
    let mut cases = vec![
        Case::new("TopKV2")
            .input(x)
            .input(2i32)
            .expect([[5.0f32, 5.0], [-1.0, -2.0]])
            .expect([[1i32, 3], [0, 1]]),
        Case::new("TopK")
            .attr("k", 4i64)
            .input(x)
            .expect([[5.0f32, 5.0, 3.0, 1.0], [-1.0, -2.0, -3.0, -4.0]])
            .expect([[1i32, 3, 2, 0], [0, 1, 2, 3]]),
        Case::new("TopKV2")
            .input(x)
            .input(0i32)
            .expect(Value::from_vec::<f32>([2, 0], vec![]).expect("no elements"))
            .expect(Value::from_vec::<i32>([2, 0], vec![]).expect("no elements")),
    ];
    for &dtype in DType::REAL_NUMBERS {
        let numbers = |list: &[i64]| {
            let numbers = Value::from(list).cast_exactly(dtype);
            numbers.expect("small whole numbers")
        };
        let case = Case::new("TopKV2").input(numbers(&[3, 7, 2, 9])).input(2i32);
        cases.push(case.expect(numbers(&[9, 7])).expect([3i32, 1]));
    }
    let predictions = [[0.1f32, 0.3, 0.2, 0.4], [0.5, 0.5, 0.0, f32::NAN], [0.1, 0.2, 0.2, 0.5]];
    cases.push(
        Case::new("InTopKV2")
            .input(predictions)
            .input([1i32, 0, 2])
            .input(2i32)
            .expect([true, false, true]),
    );
    cases.push(
        Case::new("InTopK")
            .attr("k", 1i64)
            .input(predictions)
            .input([3i64, 1, 4])
            .expect([true, false, false]),
    );
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let x = [[1.0f64, 5.0, 3.0, 4.5], [-1.0, -2.0, -3.5, -4.0]];
    vec![
        GradientCase::new("TopKV2").input(x).input(2i32).with_respect_to(&[0]),
        GradientCase::new("TopK").attr("k", 3i64).input(x),
    ]
}

#[cfg(test)]
mod tests {
    use graph_core::Value;

    use crate::testing::Case;

    /// Few and many of them, with equal elements, beside a stable sort.
    #[test]
    fn the_greatest_come_first_and_equal_ones_in_their_order() {
        for (rows, columns) in [(3, 1), (2, 40), (5, 333), (40, 2001)] {
            let numbers: Vec<f64> = (0..rows * columns)
                .map(|at| (at * at % 89) as f64 / 4.0 - 9.0)
                .collect();
            for k in [0, 1, 5, 31, 32, 33, columns / 2, columns]
                .into_iter()
                .filter(|&k| k <= columns)
            {
                let run = |value: Value| {
                    let mut outputs = Case::new("TopKV2").input(value).input(k as i32).run().unwrap();
                    outputs.remove(1).as_slice::<i32>().unwrap().to_vec()
                };
                let expected: Vec<i32> = numbers
                    .chunks(columns)
                    .flat_map(|row| {
                        let mut order: Vec<i32> = (0..columns as i32).collect();
                        order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
                        order.truncate(k);
                        order
                    })
                    .collect();
                let single: Vec<f32> = numbers.iter().map(|&x| x as f32).collect();
                let whole: Vec<i8> = numbers.iter().map(|&x| (x * 4.0) as i8).collect();
                let long: Vec<i64> = whole.iter().map(|&x| i64::from(x)).collect();
                assert_eq!(
                    run(Value::from_vec([rows, columns], numbers.clone()).unwrap()),
                    expected
                );
                assert_eq!(run(Value::from_vec([rows, columns], single).unwrap()), expected);
                assert_eq!(run(Value::from_vec([rows, columns], whole).unwrap()), expected);
                assert_eq!(run(Value::from_vec([rows, columns], long).unwrap()), expected);
            }
        }
    }

    #[test]
    fn unsorted_results_lie_in_the_order_of_tensorflows_heap() {
        let x = [
            [7.0f32, 1.0, 8.0, 2.0, 8.0, 1.0, 8.0, 2.0, 8.0, 4.0],
            [0.0, 4.0, 5.0, 9.0, 0.0, 4.0, 5.0, 2.0, 3.0, 5.0],
        ];
        let indices = |k: i32| {
            let case = Case::new("TopKV2").attr("sorted", false).input(x).input(k);
            case.run().unwrap().remove(1)
        };
        assert_eq!(indices(4), Value::from([[8i32, 6, 2, 4], [9, 6, 2, 3]]));
        assert_eq!(indices(1), Value::from([[2i32], [3]]));
        assert_eq!(
            indices(10),
            Value::from([[2i32, 4, 6, 8, 0, 9, 3, 7, 1, 5], [3, 2, 6, 9, 1, 5, 8, 7, 0, 4]])
        );
    }

    #[test]
    fn too_many_are_an_error() {
        for k in [4i32, -1] {
            let error = Case::new("TopKV2")
                .input([1.0f32, 2.0, 3.0])
                .input(k)
                .run()
                .unwrap_err();
            assert_eq!(error.class(), "InvalidArgument");
        }
    }
}
