//! Convolutions by the device's library (cuDNN), where it is faster than the engine's own.
//!
//! The library wants filters with their output channels first: they are brought in that order in scratch memory, and filters'
//! gradients back.

use graph_core::accelerator::{DeviceAddress, DeviceMemory};
use graph_core::op::KernelRequest;
use graph_core::{DType, Error, Result};
use graph_cuda::convolution::{Algorithm, Convolution, ConvolutionOp};
use graph_cuda::{Cuda, Function, Method, Source, arguments, source};

use super::channels::BiasRelu;
use super::word_of;
use crate::cpu::convolution::Conv2dGeometry;
use crate::cpu::window::Window;

const SOURCE: Source = source!("filter.cu");

/// What the device's memory is aligned to, and a workspace must be.
const ALIGNMENT: usize = 256;

/// A convolution as the library takes it; `None` where it has no such: more than it counts, windows that reach farther behind
/// an axis than before it.
fn as_the_library_takes_it(
    op: ConvolutionOp,
    dtype: DType,
    g: &Conv2dGeometry,
    channels_last: bool,
) -> Option<Convolution> {
    let even = |axis: &Window| {
        let covered = (axis.input + 2 * axis.before).checked_sub(axis.effective())?;
        (covered / axis.stride + 1 == axis.output).then_some(())
    };
    even(&g.rows)?;
    even(&g.columns)?;
    let count = |size: usize| i32::try_from(size).ok().filter(|&size| size > 0);
    let pair = |of: fn(&Window) -> usize| Some([count(of(&g.rows))?, count(of(&g.columns))?]);
    let (pixels, outputs) = (pair(|axis| axis.input)?, pair(|axis| axis.output)?);
    let convolution = Convolution {
        op,
        dtype,
        channels_last,
        images: [count(g.batch)?, pixels[0], pixels[1], count(g.in_channels)?],
        taps: pair(|axis| axis.size)?,
        outputs: [outputs[0], outputs[1], count(g.out_channels)?],
        padding: [
            i32::try_from(g.rows.before).ok()?,
            i32::try_from(g.columns.before).ok()?,
        ],
        strides: pair(|axis| axis.stride)?,
        dilations: pair(|axis| axis.dilation)?,
    };
    let most = i32::MAX as u64;
    convolution
        .elements()
        .iter()
        .all(|&count| count < most)
        .then_some(convolution)
}

/// A convolution that the library does.
#[derive(Clone)]
pub(crate) struct Library {
    cuda: Cuda,
    convolution: Convolution,
    algorithm: Algorithm,
    reorder: Function,
    filter: usize,
    filter_bytes: usize,
}

impl Library {
    fn new(request: &KernelRequest<'_>, convolution: Convolution, algorithm: Algorithm) -> Result<Self> {
        let (size, word) = word_of(convolution.dtype)?;
        let name = match convolution.op {
            ConvolutionOp::BackwardFilter => "out_channels_last",
            _ => "out_channels_first",
        };
        let last = if convolution.channels_last { "1" } else { "0" };
        let cuda = Cuda::of(request)?;
        let [_, filter, _] = convolution.elements();
        let bytes = filter as usize * size;
        Ok(Self {
            reorder: cuda
                .function(&SOURCE, name, &[("W", word), ("CHANNELS_LAST", last)])?
                .moving(2 * bytes),
            cuda,
            convolution,
            algorithm,
            filter: filter as usize,
            filter_bytes: bytes.next_multiple_of(ALIGNMENT),
        })
    }

    /// Bytes of scratch memory that it wants.
    pub(crate) fn scratch(&self) -> usize {
        self.filter_bytes + self.algorithm.workspace
    }

    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// Images, filter and outputs are of the dtype and the sizes of the convolution, and there is as much scratch memory as
    /// [`Library::scratch`] says.
    pub(crate) unsafe fn run(&self, tensors: [DeviceAddress; 3], scratch: DeviceAddress) -> Result<()> {
        let [images, filter, outputs] = tensors;
        let workspace = scratch.offset(self.filter_bytes);
        let inside = [images, scratch, outputs];
        // SAFETY: the caller's promise; the filter in its other order is in scratch memory, before the workspace.
        unsafe {
            if self.convolution.op == ConvolutionOp::BackwardFilter {
                self.cuda
                    .convolve(&self.convolution, self.algorithm, inside, workspace)?;
                return self.reorder(filter, scratch);
            }
            self.reorder(scratch, filter)?;
            self.cuda.convolve(&self.convolution, self.algorithm, inside, workspace)
        }
    }

    /// # Safety
    /// Both are filters of the convolution.
    unsafe fn reorder(&self, to: DeviceAddress, from: DeviceAddress) -> Result<()> {
        let [.., in_channels] = self.convolution.images;
        let [.., out_channels] = self.convolution.outputs;
        let [rows, columns] = self.convolution.taps;
        let n = self.filter;
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.reorder.launch_over(
                n,
                arguments![to, from, n as i64, rows * columns, in_channels, out_channels],
            )
        }
    }
}

/// The engine's own way to do a convolution, on images, filter, outputs and scratch memory.
pub(crate) type Own<'a> = dyn Fn([DeviceAddress; 3], DeviceAddress) -> Result<()> + 'a;

/// The library, where it is chosen for a convolution: where it is faster than `own`, which wants `own_scratch` bytes to work in.
/// With `finish`, the library's outputs get a bias and `Relu` of it by that, which its time includes.
///
/// # Errors
/// Those of [`Cuda::choose_convolution`].
pub(crate) fn choose(
    request: &KernelRequest<'_>,
    (op, dtype): (ConvolutionOp, DType),
    (geometry, channels_last): (&Conv2dGeometry, bool),
    finish: Option<&BiasRelu>,
    own: &Own<'_>,
    own_scratch: usize,
) -> Result<Option<Library>> {
    if [
        geometry.batch * geometry.image_len(),
        geometry.filter_len(),
        geometry.out_image_len(),
    ]
    .contains(&0)
    {
        // There is nothing to do.
        return Ok(None);
    }
    let taken = as_the_library_takes_it(op, dtype, geometry, channels_last);
    let cuda = Cuda::of(request)?;
    let size = dtype.size().unwrap_or(0);
    let method = cuda.choose_convolution(taken.as_ref(), |workspace| {
        let convolution = taken.ok_or_else(|| Error::internal("a choice without a convolution"))?;
        let gpu = request
            .accelerator
            .ok_or_else(|| Error::internal("a convolution without a device"))?;
        let memory = |bytes: usize| DeviceMemory::new(gpu, bytes);
        let [images, filter, outputs] = convolution.elements().map(|count| count as usize * size);
        let most = filter.next_multiple_of(ALIGNMENT) + workspace;
        let tensors = [memory(images)?, memory(filter)?, memory(outputs)?];
        let (scratch, bias) = (memory(most.max(own_scratch))?, memory(geometry.out_channels * size)?);
        Ok(Box::new(move |method| {
            let addresses = [&tensors[0], &tensors[1], &tensors[2]].map(DeviceMemory::address);
            match method {
                Method::Own => own(addresses, scratch.address()),
                Method::Library(algorithm) => {
                    let library = Library::new(request, convolution, algorithm)?;
                    // SAFETY: the memory is as large as the tensors, the bias and what any method works in.
                    unsafe {
                        library.run(addresses, scratch.address())?;
                        match finish {
                            Some(finish) => finish.run(addresses[2], bias.address(), true),
                            None => Ok(()),
                        }
                    }
                }
            }
        }))
    })?;
    match (method, taken) {
        (Method::Library(algorithm), Some(convolution)) => Library::new(request, convolution, algorithm).map(Some),
        _ => Ok(None),
    }
}
