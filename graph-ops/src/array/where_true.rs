//! `Where`: the places of the elements that are not zero.

use graph_core::graph::scope::name_scope_in;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Graph, PartialShape, Result, Shape};
use graph_cuda::{Cuda, Source, arguments};

use crate::array::moving::with_element;
use crate::array::shape_of::shape_of;
use crate::cpu::Short;
use crate::cpu::parallel::{SharedMut, for_each_chunk, for_each_range};
use crate::cpu::simd::multiversion;
use crate::cuda::counts::{SumCounts, allocate};
use crate::cuda::row_order::Depth;
use crate::cuda::window::joined_source;
use crate::cuda::{SIZED, blocks, type_name};

const SOURCE: Source = joined_source!("where_true.cu": "../cuda/counts.cuh", "where_true.cu");

/// Elements that a block of `where_true.cu` looks through.
const BLOCK_ON_DEVICE: usize = 2048;

/// The op's definition.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "Where",
        "The places of the elements that are true (or not zero), in row-major order, a row each.",
    )
    .input("input: T")
    .output("index: int64")
    .attr("T: {numbertype, bool} = DT_BOOL")
    .shape(|context| {
        let rank = context.input(0).rank();
        context.set_output(0, PartialShape::from([None, rank]));
        Ok(())
    })
    .not_differentiable()
    .kernel(
        KernelDefinition::cpu(|request| {
            let (dtype, shape) = (request.input_dtype(0), request.input_shape(0).clone());
            Ok(Planned::new(
                move |context| with_element!(dtype, E => places::<E>(context, &shape)),
            ))
        })
        .data_dependent(),
    )
    .kernel(KernelDefinition::cuda(on_device).types("T", SIZED).data_dependent())
}

/// Counts block by block, waits for the sum, and writes the places.
fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (dtype, shape) = (request.input_dtype(0), request.input_shape(0));
    let (element, parts) = match dtype {
        DType::Complex64 => ("float", "2"),
        DType::Complex128 => ("double", "2"),
        _ => (type_name(dtype)?, "1"),
    };
    let (rank, len, dims) = (shape.rank(), shape.num_elements(), Depth::new(shape.dims())?);
    let pieces = len.div_ceil(BLOCK_ON_DEVICE);
    let cuda = Cuda::of(request)?;
    let function = |name| cuda.function(&SOURCE, name, &[("T", element), ("PARTS", parts)]);
    let sums = SumCounts::new(request, pieces)?;
    let (bytes, scratch) = (request.input_bytes(), sums.bytes());
    let count = function("count_true")?.moving(bytes + scratch);
    let write = function("write_places")?;
    let planned = Planned::new(move |context| {
        if len == 0 {
            return allocate(context, 0, DType::Int64, [0, rank]).map(drop);
        }
        let (input, counts) = (context.input_address(0), context.scratch_address());
        let (grid, threads) = (blocks(pieces), [256, 1, 1]);
        let (elements, blocks) = (len as i64, pieces as i64);
        // SAFETY: these are the kernels' parameters: an input of `len` elements, as many counts as blocks and one more, and a
        // result with a row for each place.
        unsafe {
            count.launch(grid, threads, arguments![counts, input, elements, blocks])?;
            let found = sums.run(context, counts)?;
            let places = allocate(context, 0, DType::Int64, [found, rank])?;
            if found * rank == 0 {
                return Ok(());
            }
            let write = write.clone().moving(bytes + scratch + found * rank * size_of::<i64>());
            write.launch(grid, threads, arguments![places, input, counts, elements, blocks, dims])
        }
    });
    Ok(planned.with_scratch(scratch))
}

/// Elements that one task looks through.
const TASK: usize = 16 * 1024;

/// Elements whose places are found before they are written as indices.
const BLOCK: usize = 256;

fn places<T: Element>(context: &mut KernelContext<'_>, shape: &Shape) -> Result<()> {
    let input = context.input::<T>(0)?;
    let mut ends = vec![0; input.len().div_ceil(TASK)];
    for_each_chunk(&mut ends, 1, |task, count| {
        count[0] = count_true(&input[task * TASK..input.len().min((task + 1) * TASK)]);
    });
    for task in 1..ends.len() {
        ends[task] += ends[task - 1];
    }
    let count = ends.last().copied().unwrap_or(0);
    let rank = shape.rank();
    let output = SharedMut::new(context.allocate_output::<i64>(0, [count, rank])?);
    if rank == 0 {
        return Ok(());
    }
    for_each_range(input.len(), TASK, |range| {
        let task = range.start / TASK;
        let begin = if task == 0 { 0 } else { ends[task - 1] };
        // SAFETY: the output has a row for each place, and this task alone those of its own elements.
        let mut rows = unsafe { output.slice(begin * rank..ends[task] * rank) };
        if rank == 1 {
            return write_places(range.start, &input[range], rows);
        }
        let mut line = Line::new(shape);
        let mut places = [0; BLOCK];
        for (block, elements) in input[range.clone()].chunks(BLOCK).enumerate() {
            let found = count_true(elements);
            let places = &mut places[..found];
            write_places(range.start + block * BLOCK, elements, places);
            let own;
            (own, rows) = std::mem::take(&mut rows).split_at_mut(found * rank);
            own.chunks_exact_mut(rank)
                .zip(&*places)
                .for_each(|(row, &place)| line.write(place as usize, row));
        }
    });
    Ok(())
}

multiversion! {
    fn count_true[T: Element](elements: &[T]) -> usize {
        // Short sums stay in narrow lanes.
        let blocks = elements.chunks(128);
        blocks.map(|block| usize::from(block.iter().map(|&x| u8::from(x != T::default())).sum::<u8>())).sum()
    }
}

/// Writes the places of the elements that are not zero, as many as `places` has; the first element's is `start`. Each place is
/// written, and the next one over it where the element is zero: a branch on elements in no order would be foretold wrong.
fn write_places<T: Element>(start: usize, elements: &[T], places: &mut [i64]) {
    let mut count = 0;
    for (place, &x) in (start as i64..).zip(elements) {
        let Some(slot) = places.get_mut(count) else { return };
        *slot = place;
        count += usize::from(x != T::default());
    }
}

/// The run of elements along the last axis that the last place was in.
struct Line<'s> {
    shape: &'s Shape,
    start: usize,
    /// The indices along the axes before the last one.
    indices: Short<i64>,
}

impl<'s> Line<'s> {
    fn new(shape: &'s Shape) -> Self {
        Self {
            shape,
            start: 0,
            indices: Short::from_elem(0, shape.rank() - 1),
        }
    }

    /// Writes the indices of a place, which lies behind the one before.
    fn write(&mut self, place: usize, row: &mut [i64]) {
        let last = self.indices.len();
        let len = self.shape[last];
        if place - self.start >= len {
            let mut rest = place / len;
            self.start = rest * len;
            for (index, &dim) in self.indices.iter_mut().zip(self.shape.dims()).rev() {
                *index = (rest % dim) as i64;
                rest /= dim;
            }
        }
        row[..last].copy_from_slice(&self.indices);
        row[last] = (place - self.start) as i64;
    }
}

/// The places of the elements of `condition` that are true, an `int64` matrix with a row for each.
///
/// ```
/// use graph_ops::array::{constant, where_true};
/// let places = where_true(constant([[true, false]])).build()?;
/// assert_eq!(places.shape().to_string(), "[?,2]");
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn where_true(condition: impl IntoOperand) -> OpBuilder {
    crate::op("Where").input(condition)
}

/// A tensor without what a mask leaves out, about to be made; see [`boolean_mask`].
#[must_use = "an operation is made by `build`"]
pub struct BooleanMask {
    tensor: Operand,
    mask: Operand,
    axis: usize,
    name: String,
}

impl BooleanMask {
    /// Opens a scope of this name for the operations.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Applies the mask from this dimension on; 0 without.
    pub fn axis(mut self, axis: usize) -> Self {
        self.axis = axis;
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// `InvalidArgument` for a mask of unknown rank or another shape than the tensor's dimensions.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let graph = self
            .tensor
            .graph()
            .or(self.mask.graph())
            .cloned()
            .unwrap_or_else(Graph::current);
        let _scope = name_scope_in(&graph, &self.name)?;
        let tensor = self.tensor.to_tensor(&graph, "tensor", None)?;
        let mask = self.mask.to_tensor(&graph, "mask", Some(DType::Bool))?;
        let (shape, mask_shape) = (tensor.shape(), mask.shape());
        let Some(rank) = mask_shape.rank().filter(|&rank| rank > 0) else {
            return Err(Error::invalid_argument("a mask must have a known rank above 0").got(format!("{mask:?}")));
        };
        let (axis, end) = (self.axis, self.axis + rank);
        if let Some(dims) = shape.dims() {
            let masked = dims
                .get(axis..end)
                .map(|dims| PartialShape::from_dims(dims.iter().copied()));
            if !masked.is_some_and(|masked| masked.is_compatible_with(&mask_shape)) {
                return Err(Error::invalid_argument("the mask does not fit the tensor's dimensions")
                    .expected(&shape)
                    .got(&mask_shape));
            }
        }
        let part = |begin: Option<usize>, end: Option<usize>, name: &str| {
            let whole = shape_of(&tensor, name)?;
            let bound = |bound: Option<usize>| bound.map(|bound| bound as i64);
            let range = crate::array::Index::Slice {
                begin: bound(begin),
                end: bound(end),
                stride: 1,
            };
            crate::array::index(whole, [range]).build()
        };
        let masked = part(Some(axis), Some(end), "Shape")?;
        let count = OpBuilder::new("Prod")
            .input(masked)
            .input([0i32])
            .name("Prod")
            .build()?;
        let before = part(None, Some(axis), "Shape_1")?;
        let behind = part(Some(end), None, "Shape_2")?;
        let count = Operand::List(vec![Operand::Tensor(count)]);
        let target = crate::array::concat(
            Operand::List(vec![before.into_operand(), count, behind.into_operand()]),
            0,
        );
        let flat = OpBuilder::new("Reshape").input(&tensor).input(target).build()?;
        let mask = OpBuilder::new("Reshape")
            .input(mask)
            .input([-1i32])
            .name("Reshape_1")
            .build()?;
        let places = OpBuilder::new("Where").input(mask).build()?;
        let places = OpBuilder::new("Squeeze")
            .input(places)
            .attr("squeeze_dims", [1i64])
            .build()?;
        OpBuilder::new("GatherV2")
            .input(flat)
            .input(places)
            .input(axis as i32)
            .build()
    }
}

impl IntoOperand for BooleanMask {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// What of `tensor` the boolean `mask` lets through: the dimensions of the mask, from [`BooleanMask::axis`] on, become one.
///
/// # Errors
/// `InvalidArgument` on `build` for a mask of unknown rank or another shape than the tensor's dimensions.
#[track_caller]
pub fn boolean_mask(tensor: impl IntoOperand, mask: impl IntoOperand) -> BooleanMask {
    BooleanMask {
        tensor: tensor.into_operand(),
        mask: mask.into_operand(),
        axis: 0,
        name: "boolean_mask".to_owned(),
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{Complex, Value};
    let numbers = SIZED
        .iter()
        .filter(|dtype| !dtype.is_complex() && **dtype != DType::Bool);
    let of_numbers = numbers.map(|&dtype| {
        let numbers = Value::from([[0i64, 1], [2, 0]]).cast_exactly(dtype).unwrap();
        Case::new("Where").input(numbers).expect([[0i64, 1], [1, 0]])
    });
    let mut cases: Vec<Case> = of_numbers.collect();
    cases.extend([
        Case::new("Where")
            .input([[true, false], [true, true]])
            .expect([[0i64, 0], [1, 0], [1, 1]]),
        Case::new("Where")
            .input([Complex::new(0.0f32, 0.0), Complex::new(0.0, 2.0)])
            .expect([[1i64]]),
        Case::new("Where")
            .input([Complex::new(0.0f64, -0.0), Complex::new(2.0, 0.0)])
            .expect([[1i64]]),
        Case::new("Where")
            .input(vec![true; 5000])
            .expect(Value::from_vec([5000, 1], (0..5000i64).collect::<Vec<_>>()).unwrap()),
        Case::new("Where")
            .input(Value::zeros(DType::Bool, [3, 0, 2]).unwrap())
            .expect(Value::zeros(DType::Int64, [0, 3]).unwrap()),
        Case::new("Where")
            .input([0.0f32, f32::NAN, -0.0, 2.0])
            .expect([[1i64], [3]]),
        Case::new("Where")
            .input([0i32, 0])
            .expect(Value::zeros(DType::Int64, [0, 1]).unwrap()),
        Case::new("Where")
            .input(true)
            .expect(Value::zeros(DType::Int64, [1, 0]).unwrap()),
        Case::new("Where")
            .input(false)
            .expect(Value::zeros(DType::Int64, [0, 0]).unwrap()),
    ]);
    cases
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;
    use graph_core::Value;

    #[test]
    fn all_places_are_found_in_their_order() {
        for shape in [
            vec![1],
            vec![257],
            vec![70_003],
            vec![300, 301],
            vec![3, 1, 40_001],
            vec![7, 5, 3, 2],
            vec![0, 4],
        ] {
            let len: usize = shape.iter().product();
            for seldom in [1, 2, 3, 1000] {
                let input: Vec<f32> = (0..len)
                    .map(|at| if (at * 7 / 5) % seldom == 0 { 0.5 } else { -0.0 })
                    .collect();
                let strides = crate::cpu::copy::strides(&shape);
                let expected: Vec<i64> = (0..len)
                    .filter(|&at| input[at] != 0.0)
                    .flat_map(|at| {
                        shape
                            .iter()
                            .zip(&strides)
                            .map(move |(dim, stride)| (at / stride % dim) as i64)
                    })
                    .collect();
                let input = Value::from_vec(shape.clone(), input).unwrap();
                let found = Case::new("Where").input(input).run().unwrap().remove(0);
                assert_eq!(found.shape().dims(), [expected.len() / shape.len(), shape.len()]);
                assert!(
                    found.as_slice::<i64>().unwrap() == expected,
                    "{shape:?}, one of {seldom}"
                );
            }
        }
    }
}
