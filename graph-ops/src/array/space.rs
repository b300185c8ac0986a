//! Blocks of space moved to the batch or the depth, and back: `SpaceToBatchND`, `SpaceToDepth` and their kin.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Dim, Error, PartialShape, Result};
use graph_cuda::{Cuda, Source, arguments, source};

use crate::array::axis::planned_ints;
use crate::array::moving::{Movement, Word, plan};
use crate::cpu::copy::{CopyAxis, copy_strided, strides};
use crate::cuda::copy::{copy, longest_word};
use crate::cuda::{SIZED, word_of};

/// `SpaceToBatchND`
pub(crate) fn space_to_batch_nd_definition() -> OpDefinition {
    let summary = "Blocks of the padded dimensions behind the batch, each moved to a batch entry of its own.";
    OpDefinition::new("SpaceToBatchND", summary)
        .input("input: T")
        .input("block_shape: Tblock_shape")
        .input("paddings: Tpaddings")
        .output("output: T")
        .attr("T: type")
        .attr("Tblock_shape: {int32, int64} = DT_INT32")
        .attr("Tpaddings: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[1, 2])
        .shape(|context| shape(context, To::Batch))
        .gradient(|context| gradient(context, "BatchToSpaceND"))
        .kernel(KernelDefinition::cpu(|request| kernel(request, To::Batch)))
        .kernel(KernelDefinition::cuda(|request| on_device(request, To::Batch)).types("T", SIZED))
}

/// `BatchToSpaceND`
pub(crate) fn batch_to_space_nd_definition() -> OpDefinition {
    let summary = "Batch entries moved back to the blocks they came from, and the result cropped.";
    OpDefinition::new("BatchToSpaceND", summary)
        .input("input: T")
        .input("block_shape: Tblock_shape")
        .input("crops: Tcrops")
        .output("output: T")
        .attr("T: type")
        .attr("Tblock_shape: {int32, int64} = DT_INT32")
        .attr("Tcrops: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[1, 2])
        .shape(|context| shape(context, To::Space))
        .gradient(|context| gradient(context, "SpaceToBatchND"))
        .kernel(KernelDefinition::cpu(|request| kernel(request, To::Space)))
        .kernel(KernelDefinition::cuda(|request| on_device(request, To::Space)).types("T", SIZED))
}

/// `SpaceToBatch`
pub(crate) fn space_to_batch_definition() -> OpDefinition {
    OpDefinition::new("SpaceToBatch", "SpaceToBatchND of images and square blocks.")
        .input("input: T")
        .input("paddings: Tpaddings")
        .output("output: T")
        .attr("T: type")
        .attr("Tpaddings: {int32, int64} = DT_INT32")
        .attr("block_size: int >= 2")
        .plan_time_inputs(&[1])
        .shape(|context| shape(context, To::Batch))
        .gradient(|context| gradient(context, "BatchToSpace"))
        .kernel(KernelDefinition::cpu(|request| kernel(request, To::Batch)))
        .kernel(KernelDefinition::cuda(|request| on_device(request, To::Batch)).types("T", SIZED))
}

/// `BatchToSpace`
pub(crate) fn batch_to_space_definition() -> OpDefinition {
    OpDefinition::new("BatchToSpace", "BatchToSpaceND of images and square blocks.")
        .input("input: T")
        .input("crops: Tidx")
        .output("output: T")
        .attr("T: type")
        .attr("block_size: int >= 2")
        .attr("Tidx: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[1])
        .shape(|context| shape(context, To::Space))
        .gradient(|context| gradient(context, "SpaceToBatch"))
        .kernel(KernelDefinition::cpu(|request| kernel(request, To::Space)))
        .kernel(KernelDefinition::cuda(|request| on_device(request, To::Space)).types("T", SIZED))
}

/// Which way elements go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Batch,
    Space,
}

/// The gradient goes back the same way.
fn gradient(context: &mut GradientContext<'_>, back: &str) -> Result<Vec<Option<Tensor>>> {
    let inputs = context.op().inputs();
    let mut node = context.node(back).input(context.gradient(0)?);
    for input in &inputs[1..] {
        node = node.input(input);
    }
    if inputs.len() == 2 {
        node = node.attr("block_size", context.attr_value("block_size")?);
    }
    let mut gradients = vec![None; inputs.len()];
    gradients[0] = Some(node.build()?);
    Ok(gradients)
}

/// The blocks, and what is padded or cropped before and behind each dimension.
type Blocks = (Vec<usize>, Vec<(usize, usize)>);

fn blocks(blocks: &[i64], borders: &[i64]) -> Result<Blocks> {
    let blocks = blocks.iter().map(|&block| match usize::try_from(block) {
        Ok(block) if block > 0 => Ok(block),
        _ => Err(Error::invalid_argument("a block must be at least 1 long").got(block)),
    });
    let blocks = blocks.collect::<Result<Vec<_>>>()?;
    let borders = crate::array::pad::pairs(borders)?;
    if borders.len() != blocks.len() {
        return Err(
            Error::invalid_argument("there must be one border for each dimension of a block")
                .expected(blocks.len())
                .got(borders.len()),
        );
    }
    Ok((blocks, borders))
}

fn known_blocks(context: &InferenceContext<'_>) -> Result<Option<Blocks>> {
    let last = context.num_inputs() - 1;
    context.with_rank(last, 2)?;
    let sizes = if last == 1 {
        Some(vec![context.attr::<i64>("block_size")?; 2])
    } else {
        context.with_rank(1, 1)?;
        context.int_values(1)?
    };
    match (sizes, context.int_values(last)?) {
        (Some(sizes), Some(borders)) => blocks(&sizes, &borders).map(Some),
        _ => Ok(None),
    }
}

fn shape(context: &mut InferenceContext<'_>, to: To) -> Result<()> {
    if context.num_inputs() == 2 {
        context.with_rank(0, 4)?;
    }
    let known = known_blocks(context)?;
    let input = context.input(0).clone();
    let Some(dims) = input.dims() else { return Ok(()) };
    let Some((blocks, borders)) = known else {
        context.set_output(0, PartialShape::unknown_of_rank(dims.len()));
        return Ok(());
    };
    context.with_rank_at_least(0, blocks.len() + 1)?;
    let volume: usize = blocks.iter().product();
    let mut out: Vec<Dim> = dims.to_vec();
    out[0] = match (dims[0], to) {
        (Some(batch), To::Space) if batch % volume != 0 => {
            return Err(Error::invalid_argument("the batch is no multiple of a block's size")
                .expected(format!("a multiple of {volume}"))
                .got(batch));
        }
        (batch, To::Space) => batch.map(|batch| batch / volume),
        (batch, To::Batch) => batch.map(|batch| batch * volume),
    };
    for (axis, (&block, &(before, behind))) in blocks.iter().zip(&borders).enumerate() {
        let Some(dim) = dims[axis + 1] else { continue };
        let result = match to {
            To::Batch => Some(dim + before + behind)
                .filter(|whole| whole % block == 0)
                .map(|whole| whole / block),
            To::Space => (dim * block).checked_sub(before + behind),
        };
        out[axis + 1] = Some(result.ok_or_else(|| {
            Error::invalid_argument(format!("the border or the block does not fit dimension {}", axis + 1))
                .got(format!("dimension {dim}, block {block}, border {before} and {behind}"))
        })?);
    }
    context.set_output(0, PartialShape::from(out));
    Ok(())
}

/// Elements moved between the tensor with the space and that with the large batch.
struct Shuffle {
    space: Vec<usize>,
    batch: Vec<usize>,
    blocks: Vec<usize>,
    before: Vec<usize>,
    to: To,
}

impl Shuffle {
    /// The elements of one place in the blocks: the axes of the copy, and where it begins in space and batch. Element `o`
    /// of the batch's tensor is element `o * block + place - before` of space, where there is one.
    fn copy_of(&self, place: usize) -> (Vec<CopyAxis>, usize, usize) {
        let (space, batch) = (strides(&self.space), strides(&self.batch));
        let mut axes = vec![CopyAxis {
            len: self.space[0],
            from: space[0] as isize,
            to: batch[0] as isize,
        }];
        let (mut space_start, mut batch_start) = (0, place * self.space[0] * batch[0]);
        let mut rest = place;
        for axis in (0..self.blocks.len()).rev() {
            let (block, before) = (self.blocks[axis], self.before[axis]);
            let offset = rest % block;
            rest /= block;
            let first = before.saturating_sub(offset).div_ceil(block);
            let end = (self.space[axis + 1] + before)
                .saturating_sub(offset)
                .div_ceil(block)
                .min(self.batch[axis + 1]);
            let len = end.saturating_sub(first);
            if len > 0 {
                space_start += (first * block + offset - before) * space[axis + 1];
                batch_start += first * batch[axis + 1];
            }
            let (from, to) = ((block * space[axis + 1]) as isize, batch[axis + 1] as isize);
            axes.insert(1, CopyAxis { len, from, to });
        }
        let inner: usize = self.space[self.blocks.len() + 1..].iter().product();
        axes.push(CopyAxis {
            len: inner,
            from: 1,
            to: 1,
        });
        (axes, space_start, batch_start)
    }
}

impl Movement for Shuffle {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        outputs[0].fill(T::default());
        for place in 0..self.blocks.iter().product() {
            let (mut axes, space, batch) = self.copy_of(place);
            if axes.iter().any(|axis| axis.len == 0) {
                continue;
            }
            if self.to == To::Batch {
                copy_strided(inputs[0], space, outputs[0], batch, &axes);
            } else {
                axes.iter_mut()
                    .for_each(|axis| std::mem::swap(&mut axis.from, &mut axis.to));
                copy_strided(inputs[0], batch, outputs[0], space, &axes);
            }
        }
        Ok(())
    }
}

impl Shuffle {
    fn new(request: &KernelRequest<'_>, to: To) -> Result<Self> {
        let last = request.num_inputs() - 1;
        let sizes = if last == 1 {
            vec![request.attr::<i64>("block_size")?; 2]
        } else {
            planned_ints(request, 1)?
        };
        let (blocks, borders) = blocks(&sizes, &planned_ints(request, last)?)?;
        let (input, output) = (request.input_shape(0).to_vec(), request.output_shape(0)?.to_vec());
        let (space, batch) = if to == To::Batch {
            (input, output)
        } else {
            (output, input)
        };
        let before = borders.iter().map(|&(before, _)| before).collect();
        Ok(Self {
            space,
            batch,
            blocks,
            before,
            to,
        })
    }
}

fn kernel(request: &KernelRequest<'_>, to: To) -> Result<Planned> {
    plan(request, [0], Shuffle::new(request, to)?)
}

/// The most axes of a block on a device.
const MOST: usize = 6;

/// A [`Shuffle`] as kernels take it.
#[repr(C)]
#[derive(Clone, Copy)]
struct BlocksOnDevice {
    rank: i64,
    size: [i64; MOST],
    part: [i64; MOST],
    block: [i64; MOST],
    before: [i64; MOST],
}

fn on_device(request: &KernelRequest<'_>, to: To) -> Result<Planned> {
    const SOURCE: Source = source!("space.cu");
    let shuffle = Shuffle::new(request, to)?;
    let rank = shuffle.blocks.len();
    if rank > MOST {
        return Err(Error::unimplemented(format!("blocks of more than {MOST} axes")));
    }
    let padded =
        |sizes: &[usize]| -> [i64; MOST] { std::array::from_fn(|axis| sizes.get(axis).map_or(1, |&size| size as i64)) };
    let blocks = BlocksOnDevice {
        rank: rank as i64,
        size: padded(&shuffle.space[1..=rank]),
        part: padded(&shuffle.batch[1..=rank]),
        block: padded(&shuffle.blocks),
        before: padded(&shuffle.before),
    };
    let (bytes, _) = word_of(request.input_dtype(0))?;
    let inner: usize = shuffle.space[rank + 1..].iter().product();
    let (longest, word) = longest_word(bytes, inner)?;
    let name = match to {
        To::Batch => "space_to_batch",
        To::Space => "batch_to_space",
    };
    let function = Cuda::of(request)?.function(&SOURCE, name, &[("W", word)])?;
    let count = request.output_shape(0)?.num_elements() * bytes / longest;
    let (batch, inner) = (shuffle.space[0] as i64, (inner * bytes / longest) as i64);
    Ok(Planned::new(move |context| {
        let (input, output) = (context.input_address(0), context.output_address(0));
        // SAFETY: these are the kernel's parameters, which say how many words each tensor has.
        unsafe { function.launch_over(count, arguments![output, input, count as i64, batch, inner, blocks]) }
    }))
}

/// `SpaceToDepth`
pub(crate) fn space_to_depth_definition() -> OpDefinition {
    depth_definition("SpaceToDepth", "Blocks of space moved to the depth.")
        .shape(|context| depth_shape(context, true))
        .gradient(|context| depth_gradient(context, "DepthToSpace"))
        .kernel(KernelDefinition::cpu(|request| depth_kernel(request, true)))
        .kernel(KernelDefinition::cuda(|request| depth_on_device(request, true)).types("T", SIZED))
}

/// `DepthToSpace`
pub(crate) fn depth_to_space_definition() -> OpDefinition {
    depth_definition("DepthToSpace", "Depth moved to blocks of space.")
        .shape(|context| depth_shape(context, false))
        .gradient(|context| depth_gradient(context, "SpaceToDepth"))
        .kernel(KernelDefinition::cpu(|request| depth_kernel(request, false)))
        .kernel(KernelDefinition::cuda(|request| depth_on_device(request, false)).types("T", SIZED))
}

fn depth_definition(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("input: T")
        .output("output: T")
        .attr("T: type")
        .attr("block_size: int >= 2")
        .attr("data_format: {'NHWC', 'NCHW', 'NCHW_VECT_C'} = 'NHWC'")
}

fn depth_gradient(context: &mut GradientContext<'_>, back: &str) -> Result<Vec<Option<Tensor>>> {
    let mut node = context.node(back).input(context.gradient(0)?);
    for name in ["block_size", "data_format"] {
        node = node.attr(name, context.attr_value(name)?);
    }
    Ok(vec![Some(node.build()?)])
}

/// The axes of height, width and depth.
fn axes_of(format: &str) -> Result<[usize; 3]> {
    match format {
        "NHWC" => Ok([1, 2, 3]),
        "NCHW" => Ok([2, 3, 1]),
        other => Err(Error::unimplemented(format!(
            "the data format {other} is not supported"
        ))),
    }
}

fn depth_shape(context: &mut InferenceContext<'_>, to_depth: bool) -> Result<()> {
    let input = context.with_rank(0, 4)?;
    let [height, width, depth] = axes_of(&context.attr::<String>("data_format")?)?;
    let block = context.attr::<i64>("block_size")? as usize;
    let divided = |axis: usize, by: usize| match input.dim(axis) {
        Some(dim) if dim % by != 0 => Err(Error::invalid_argument(format!(
            "dimension {axis} cannot be cut into blocks"
        ))
        .expected(format!("a multiple of {by}"))
        .got(dim)),
        dim => Ok(dim.map(|dim| dim / by)),
    };
    let mut dims: Vec<Dim> = (0..4).map(|axis| input.dim(axis)).collect();
    if to_depth {
        (dims[height], dims[width]) = (divided(height, block)?, divided(width, block)?);
        dims[depth] = dims[depth].map(|dim| dim * block * block);
    } else {
        dims[depth] = divided(depth, block * block)?;
        for axis in [height, width] {
            dims[axis] = dims[axis].map(|dim| dim * block);
        }
    }
    context.set_output(0, PartialShape::from(dims));
    Ok(())
}

/// A permutation of a finer shape.
struct Finer {
    shape: Vec<usize>,
    permutation: &'static [usize],
}

impl Movement for Finer {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        crate::cpu::transpose::transpose(inputs[0], &self.shape, self.permutation, outputs[0]);
        Ok(())
    }
}

impl Finer {
    fn new(request: &KernelRequest<'_>, to_depth: bool) -> Result<Self> {
        let format: String = request.attr("data_format")?;
        let input = request.input_shape(0);
        let block = request.attr::<i64>("block_size")? as usize;
        let [a, b, c, d] = [input[0], input[1], input[2], input[3]];
        let (shape, permutation): (Vec<usize>, &'static [usize]) = match (format.as_str(), to_depth) {
            ("NHWC", true) => (vec![a, b / block, block, c / block, block, d], &[0, 1, 3, 2, 4, 5]),
            ("NHWC", false) => (vec![a, b, c, block, block, d / block / block], &[0, 1, 3, 2, 4, 5]),
            (_, true) => (vec![a, b, c / block, block, d / block, block], &[0, 3, 5, 1, 2, 4]),
            (_, false) => (vec![a, block, block, b / block / block, c, d], &[0, 3, 4, 1, 5, 2]),
        };
        Ok(Self { shape, permutation })
    }
}

fn depth_kernel(request: &KernelRequest<'_>, to_depth: bool) -> Result<Planned> {
    plan(request, [0], Finer::new(request, to_depth)?)
}

fn depth_on_device(request: &KernelRequest<'_>, to_depth: bool) -> Result<Planned> {
    let Finer { shape, permutation } = Finer::new(request, to_depth)?;
    let from = strides(&shape);
    let lengths: Vec<usize> = permutation.iter().map(|&axis| shape[axis]).collect();
    let axes = permutation.iter().zip(strides(&lengths)).map(|(&axis, to)| CopyAxis {
        len: shape[axis],
        from: from[axis] as isize,
        to: to as isize,
    });
    copy(request, 0, 0, &axes.collect::<Vec<_>>())
}

/// Blocks of shape `block_shape` of the dimensions behind the batch, padded with zeros, each moved to a batch entry of its own.
///
/// # Errors
/// `InvalidArgument` if the padded dimensions are no multiples of the blocks.
#[track_caller]
pub fn space_to_batch_nd(
    input: impl IntoOperand,
    block_shape: impl IntoOperand,
    paddings: impl IntoOperand,
) -> OpBuilder {
    crate::op("SpaceToBatchND")
        .input(input)
        .input(block_shape)
        .input(paddings)
}

/// The reverse of [`space_to_batch_nd`]; `crops` are cut off the result.
///
/// # Errors
/// `InvalidArgument` if the batch is no multiple of the blocks' size, or the crops are too large.
#[track_caller]
pub fn batch_to_space_nd(input: impl IntoOperand, block_shape: impl IntoOperand, crops: impl IntoOperand) -> OpBuilder {
    crate::op("BatchToSpaceND").input(input).input(block_shape).input(crops)
}

/// Square blocks of the images `input` [batch, height, width, depth] moved to the depth.
///
/// # Errors
/// `InvalidArgument` if height or width is no multiple of the block.
#[track_caller]
pub fn space_to_depth(input: impl IntoOperand, block_size: i64) -> OpBuilder {
    crate::op("SpaceToDepth").input(input).attr("block_size", block_size)
}

/// The reverse of [`space_to_depth`].
///
/// # Errors
/// `InvalidArgument` if the depth is no multiple of the block's size.
#[track_caller]
pub fn depth_to_space(input: impl IntoOperand, block_size: i64) -> OpBuilder {
    crate::op("DepthToSpace").input(input).attr("block_size", block_size)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let count = |shape: &[usize]| {
        let len = shape.iter().product::<usize>() as i32;
        Value::from_vec(shape, (1..=len).collect::<Vec<i32>>()).unwrap()
    };
    let ints = |shape: &[usize], elements: &[i32]| Value::from_vec(shape, elements).unwrap();
    vec![
        Case::new("SpaceToBatchND")
            .input(count(&[1, 2, 2, 1]))
            .input([2i32, 2])
            .input([[0i32, 0], [0, 0]])
            .expect(count(&[4, 1, 1, 1])),
        Case::new("SpaceToBatchND")
            .input(count(&[1, 3]))
            .input([2i64])
            .input([[1i64, 0]])
            .expect(ints(&[2, 2], &[0, 2, 1, 3])),
        Case::new("BatchToSpaceND")
            .input(ints(&[2, 2], &[0, 2, 1, 3]))
            .input([2i32])
            .input([[1i32, 0]])
            .expect(count(&[1, 3])),
        Case::new("SpaceToBatch")
            .attr("block_size", 2i64)
            .input(count(&[1, 2, 2, 1]))
            .input([[0i32, 0], [2, 0]])
            .expect(ints(&[4, 1, 2, 1], &[0, 1, 0, 2, 0, 3, 0, 4])),
        Case::new("BatchToSpace")
            .attr("block_size", 2i64)
            .input(count(&[4, 1, 1, 1]))
            .input([[0i32, 0], [0, 1]])
            .expect(ints(&[1, 2, 1, 1], &[1, 3])),
        Case::new("SpaceToDepth")
            .attr("block_size", 2i64)
            .input(count(&[1, 2, 4, 1]))
            .expect(ints(&[1, 1, 2, 4], &[1, 2, 5, 6, 3, 4, 7, 8])),
        Case::new("DepthToSpace")
            .attr("block_size", 2i64)
            .input(ints(&[1, 1, 2, 4], &[1, 2, 5, 6, 3, 4, 7, 8]))
            .expect(count(&[1, 2, 4, 1])),
        Case::new("SpaceToDepth")
            .attr("block_size", 2i64)
            .attr("data_format", "NCHW")
            .input(count(&[1, 2, 2, 2]))
            .expect(ints(&[1, 8, 1, 1], &[1, 5, 2, 6, 3, 7, 4, 8])),
        Case::new("DepthToSpace")
            .attr("block_size", 2i64)
            .attr("data_format", "NCHW")
            .input(ints(&[1, 8, 1, 1], &[1, 5, 2, 6, 3, 7, 4, 8]))
            .expect(count(&[1, 2, 2, 2])),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    use graph_core::Value;
    let count = |shape: [usize; 4]| {
        let len = shape.iter().product::<usize>();
        Value::from_vec(shape, (0..len).map(|at| at as f64).collect::<Vec<f64>>()).unwrap()
    };
    let (borders, square) = ([[1i32, 1], [0, 2]], |op: &'static str| {
        GradientCase::new(op).attr("block_size", 2i64)
    });
    vec![
        GradientCase::new("SpaceToBatchND")
            .input(count([1, 2, 4, 1]))
            .input([2i32, 3])
            .input(borders),
        GradientCase::new("BatchToSpaceND")
            .input(count([4, 2, 2, 1]))
            .input([2i32, 2])
            .input(borders),
        square("SpaceToBatch").input(count([1, 2, 2, 1])).input(borders),
        square("BatchToSpace").input(count([4, 2, 2, 1])).input(borders),
        square("SpaceToDepth").input(count([1, 2, 4, 1])),
        square("DepthToSpace").input(count([1, 1, 2, 4])),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn blocks_must_fit() {
        let to_batch = |block: i32, padding: i32| {
            Case::new("SpaceToBatchND")
                .input([[1.0f32, 2.0, 3.0]])
                .input([block])
                .input([[padding, 0]])
                .run()
        };
        assert!(to_batch(3, 0).is_ok());
        assert!(to_batch(2, 0).is_err());
        assert!(to_batch(0, 0).is_err());
        assert!(to_batch(1, -1).is_err());
        let to_space = |block: i32, crop: i32| {
            Case::new("BatchToSpaceND")
                .input([[1.0f32], [2.0]])
                .input([block])
                .input([[crop, 0]])
                .run()
        };
        assert!(to_space(2, 2).is_ok());
        assert!(to_space(2, 3).is_err());
        assert!(to_space(3, 0).is_err());
    }
}
