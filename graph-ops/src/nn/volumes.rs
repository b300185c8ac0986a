//! What ops over volumes share: the order of their axes, their windows, and kernels that compute in a wide type.

use graph_core::op::{InferenceContext, KernelRequest, Planned};
use graph_core::{Dim, Error, PartialShape, Result, Shape};
use graph_cuda::Source;

use super::windows::{Attrs, output_dim, window_too_large};
use crate::cpu::element::Real;
use crate::cpu::transpose::transpose;
use crate::cpu::volume::Volume;
use crate::cpu::window::Padding;
use crate::cuda::elementwise::lowest;
use crate::cuda::launch::{Launch, Work};
use crate::cuda::type_name;
use crate::cuda::window::{joined_source, window_numbers};

/// The order of a volume batch's five axes; ours, inside, is always batch, planes, rows, columns, channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format3d {
    Ndhwc,
    Ncdhw,
}

impl Format3d {
    /// As the attribute `data_format` says.
    pub(super) fn of(attrs: &impl Attrs) -> Result<Self> {
        match attrs.read::<String>("data_format")?.as_str() {
            "NDHWC" => Ok(Self::Ndhwc),
            "NCDHW" => Ok(Self::Ncdhw),
            other => Err(Error::invalid_argument("there is no such data format")
                .expected("NDHWC or NCDHW")
                .got(other)),
        }
    }

    /// Five things in this format's order, in ours.
    pub(super) fn to_ours<T: Copy>(self, list: [T; 5]) -> [T; 5] {
        match self {
            Self::Ndhwc => list,
            Self::Ncdhw => [list[0], list[2], list[3], list[4], list[1]],
        }
    }

    /// The inverse of [`Format3d::to_ours`].
    pub(super) fn of_ours<T: Copy>(self, list: [T; 5]) -> [T; 5] {
        match self {
            Self::Ndhwc => list,
            Self::Ncdhw => [list[0], list[4], list[1], list[2], list[3]],
        }
    }

    /// The dimensions of volumes of rank 5, in our order.
    fn dims(self, shape: &PartialShape) -> [Dim; 5] {
        self.to_ours(std::array::from_fn(|axis| shape.dim(axis)))
    }

    /// The sizes of volumes of rank 5, in our order.
    pub(super) fn sizes(self, shape: &Shape) -> Result<[usize; 5]> {
        let sizes: [usize; 5] = shape
            .dims()
            .try_into()
            .map_err(|_| Error::invalid_argument("volumes must have five axes").got(shape))?;
        Ok(self.to_ours(sizes))
    }

    /// Volumes of our `sizes` in our order, in the type that is computed in.
    pub(super) fn read<T: Real>(self, sizes: [usize; 5], volumes: &[T]) -> Vec<T::Wide> {
        let wide = widened(volumes);
        if self == Self::Ndhwc {
            return wide;
        }
        let mut ours = vec![T::Wide::default(); wide.len()];
        transpose(&wide, &self.of_ours(sizes), &[0, 2, 3, 4, 1], &mut ours);
        ours
    }

    /// Writes volumes of our `sizes` and in our order.
    pub(super) fn write<T: Real>(self, sizes: [usize; 5], ours: &[T::Wide], volumes: &mut [T]) {
        if self == Self::Ndhwc {
            return narrow(ours, volumes);
        }
        let mut theirs = vec![T::Wide::default(); ours.len()];
        transpose(ours, &sizes, &[0, 4, 1, 2, 3], &mut theirs);
        narrow(&theirs, volumes);
    }
}

/// The elements in the type that is computed in.
pub(super) fn widened<T: Real>(elements: &[T]) -> Vec<T::Wide> {
    elements.iter().map(|x| x.widen()).collect()
}

/// Writes elements from the type that was computed in.
pub(super) fn narrow<T: Real>(wide: &[T::Wide], elements: &mut [T]) {
    elements.iter_mut().zip(wide).for_each(|(out, &x)| *out = T::narrow(x));
}

/// How windows slide over volumes.
#[derive(Clone, Copy)]
pub(super) struct Sliding3d {
    pub(super) format: Format3d,
    strides: [usize; 3],
    dilations: [usize; 3],
    padding: Padding,
}

/// The three spatial ones of five positive numbers; the others must be 1.
fn spatial(list: &[i64], format: Format3d, what: &str) -> Result<[usize; 3]> {
    let wrong = || {
        Error::invalid_argument(format!("{what} must be five positive numbers"))
            .expected("one for each axis of the volumes")
            .got(format!("{list:?}"))
    };
    let numbers: Option<Vec<usize>> = list
        .iter()
        .map(|&number| usize::try_from(number).ok().filter(|&number| number > 0))
        .collect();
    let numbers: [usize; 5] = numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(wrong)?;
    let [batch, planes, rows, columns, channels] = format.to_ours(numbers);
    if batch != 1 || channels != 1 {
        return Err(
            Error::unimplemented(format!("{what} in the batch and in the channels must be 1")).got(format!("{list:?}")),
        );
    }
    Ok([planes, rows, columns])
}

impl Sliding3d {
    /// As the attributes say; with `dilations` where the op has them.
    pub(super) fn of(attrs: &impl Attrs, dilated: bool) -> Result<Self> {
        let format = Format3d::of(attrs)?;
        let dilations = if dilated {
            spatial(&attrs.read::<Vec<i64>>("dilations")?, format, "dilations")?
        } else {
            [1; 3]
        };
        Ok(Self {
            format,
            strides: spatial(&attrs.read::<Vec<i64>>("strides")?, format, "strides")?,
            dilations,
            padding: match attrs.read::<String>("padding")?.as_str() {
                "SAME" => Padding::Same,
                _ => Padding::Valid,
            },
        })
    }

    /// The size of the windows that the attribute `ksize` says.
    pub(super) fn size(&self, attrs: &impl Attrs) -> Result<[usize; 3]> {
        spatial(&attrs.read::<Vec<i64>>("ksize")?, self.format, "ksize")
    }

    /// The shape that windows of this size give over input `index`, with `channels` or as many as that has.
    pub(super) fn infer(
        &self,
        context: &InferenceContext<'_>,
        index: usize,
        size: [Dim; 3],
        channels: Option<Dim>,
    ) -> Result<PartialShape> {
        let dims = self.format.dims(&context.with_rank(index, 5)?);
        let along = |d: usize| output_dim(dims[1 + d], size[d], self.strides[d], self.dilations[d], self.padding);
        let ours = [dims[0], along(0)?, along(1)?, along(2)?, channels.unwrap_or(dims[4])];
        Ok(PartialShape::from(self.format.of_ours(ours)))
    }

    /// The windows of this size over volumes of this shape.
    pub(super) fn volume(&self, volumes: &Shape, size: [usize; 3]) -> Result<Volume> {
        let sizes = self.format.sizes(volumes)?;
        Volume::new(sizes, size, self.strides, self.dilations, self.padding).ok_or_else(|| {
            let largest = size.into_iter().max().unwrap_or(0);
            window_too_large(largest, sizes[1].min(sizes[2]).min(sizes[3]))
        })
    }
}

/// A kernel of `volumes.cu`, a thread (or a block, where the kernel is one of blocks) an element of output 0. For each element
/// that a window sees it does `per_visit` operations.
pub(super) fn on_device(
    request: &KernelRequest<'_>,
    name: &str,
    (volume, outputs, format): (&Volume, usize, Format3d),
    per_visit: usize,
    work: fn(usize) -> Work,
    inputs: &'static [usize],
) -> Result<Planned> {
    const SOURCE: Source = joined_source!("volumes.cu": "../cuda/window.cuh", "volumes.cu");
    let dtype = request.output_dtype(0);
    let defines = [("T", type_name(dtype)?), ("LOWEST", lowest(dtype))];
    let windows = volume.windows.iter().flat_map(window_numbers);
    let last = usize::from(format == Format3d::Ndhwc);
    let structure: Vec<usize> = windows.chain([volume.batch, volume.channels, outputs, last]).collect();
    let n = request.output_shape(0)?.num_elements();
    let launch = Launch::new(request, &SOURCE, name, &defines, work(n), &[n])?;
    let operations = volume.visits() * per_visit;
    Ok(launch.doing(operations).with_structure(&structure).over(inputs))
}

/// An error unless input `index` has the shape that windows give.
pub(super) fn require_input(request: &KernelRequest<'_>, index: usize, what: &str, expected: &[usize]) -> Result<()> {
    super::windows::require_shape(what, request.input_shape(index), expected)
}
