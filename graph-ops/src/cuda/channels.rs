//! A vector added to the channels of images, and sums over everything but the channels.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Result};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::type_name;
use super::window::{SumRows, compute_size, joined_source, small};

const SOURCE: Source = joined_source!("channels.cu": "images.cuh", "channel_sums.cuh", "channels.cu");

/// Where the channels are: each is `inner` elements long, and comes again for each of `outer` parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sides {
    pub(crate) outer: usize,
    pub(crate) channels: usize,
    pub(crate) inner: usize,
}

impl Sides {
    /// Of a shape whose axis `axis` is the channels'.
    pub(crate) fn of(shape: &[usize], axis: usize) -> Self {
        Self {
            outer: shape[..axis].iter().product(),
            channels: shape[axis],
            inner: shape[axis + 1..].iter().product(),
        }
    }

    pub(crate) fn pixels(&self) -> usize {
        self.outer * self.inner
    }

    fn len(&self) -> usize {
        self.pixels() * self.channels
    }
}

/// How a sum over pixels is cut into slabs, by the shape alone, so that the order of the sum does not depend on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slabs {
    /// Channels of a block.
    pub(crate) width: usize,
    /// Pixels of a slab.
    pub(crate) len: usize,
    pub(crate) count: usize,
    channels: usize,
}

/// Threads of a block of `sum_slab`, and how many blocks keep a large GPU busy.
const THREADS: usize = 256;
const BUSY: usize = 1024;

impl Slabs {
    /// Of `pixels` pixels; neighbouring channels are neighbours in memory, or (not `channels_last`) far from each other.
    pub(crate) fn new(pixels: usize, channels: usize, channels_last: bool) -> Self {
        let width = if channels_last { channels.clamp(1, THREADS) } else { 1 };
        let lanes = THREADS / width;
        let most = (BUSY / channels.div_ceil(width).max(1)).clamp(1, pixels.div_ceil(lanes * 16).max(1));
        let len = pixels.div_ceil(most).max(1);
        Self {
            width,
            len,
            count: pixels.div_ceil(len).max(1),
            channels,
        }
    }

    /// The blocks of a kernel that calls `sum_slab`.
    pub(crate) fn blocks(&self) -> [u32; 3] {
        [self.channels.div_ceil(self.width) as u32, self.count as u32, 1]
    }
}

/// Which elements are summed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Summed {
    All,
    /// Of the gradients of a pool over `Relu`, those that places of maxima (beside them) let through.
    AtPlaces,
}

/// The sum of each channel's elements.
pub(crate) struct ChannelSums {
    function: Function,
    summed: Summed,
    /// Unless there is one slab, whose sums are the result.
    finish: Option<SumRows>,
    sides: Sides,
    slabs: Slabs,
    size: usize,
}

impl ChannelSums {
    /// Of elements of the first dtype, to sums of the second: the same, or the one in which the first is calculated.
    ///
    /// # Errors
    /// `Unimplemented` for dtypes that kernels do not calculate with, and for too many channels.
    pub(crate) fn new(request: &KernelRequest<'_>, [dtype, result]: [DType; 2], sides: Sides) -> Result<Self> {
        Self::of(request, [dtype, result], sides, Summed::All)
    }

    /// [`ChannelSums::new`] of some of the elements; where places say of which, channels are the last axis.
    ///
    /// # Errors
    /// Those of [`ChannelSums::new`].
    pub(crate) fn of(
        request: &KernelRequest<'_>,
        [dtype, result]: [DType; 2],
        sides: Sides,
        summed: Summed,
    ) -> Result<Self> {
        small(sides.channels)?;
        let slabs = Slabs::new(sides.pixels(), sides.channels, sides.inner == 1);
        let direct = slabs.count == 1 && result.size() == Some(compute_size(dtype));
        let size = compute_size(dtype);
        let (name, tensors) = match summed {
            Summed::All => ("sum_pixels", 1),
            Summed::AtPlaces => ("sum_at_places", 2),
        };
        let bytes = tensors * sides.len() * dtype.size().unwrap_or(0) + slabs.count * sides.channels * size;
        let function = Cuda::of(request)?.function(&SOURCE, name, &[("T", type_name(dtype)?)])?;
        Ok(Self {
            function: function.moving(bytes).doing(sides.len()),
            summed,
            finish: if direct {
                None
            } else {
                Some(SumRows::new(request, result, slabs.count, sides.channels)?)
            },
            sides,
            slabs,
            size,
        })
    }

    /// Bytes of scratch memory that it wants.
    pub(crate) fn scratch(&self) -> usize {
        self.finish
            .as_ref()
            .map_or(0, |_| self.slabs.count * self.sides.channels * self.size)
    }

    /// Sums `x` to `out`; places are read where they say of which elements.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// All are of the dtypes and the sizes that [`ChannelSums::of`] was told of, and there is as much scratch memory as
    /// [`ChannelSums::scratch`] says.
    pub(crate) unsafe fn run(
        &self,
        [x, places]: [DeviceAddress; 2],
        out: DeviceAddress,
        scratch: DeviceAddress,
    ) -> Result<()> {
        let (Sides { channels, inner, .. }, Slabs { width, len, .. }) = (self.sides, self.slabs);
        let partial = if self.finish.is_some() { scratch } else { out };
        let (pixels, slab, channels, width) = (self.sides.pixels() as i64, len as i64, channels as i32, width as i32);
        let (blocks, threads) = (self.slabs.blocks(), [THREADS as u32, 1, 1]);
        // SAFETY: these are the kernels' parameters; the caller's promise is of the addresses.
        unsafe {
            match self.summed {
                Summed::All => {
                    let inner = inner as i64;
                    let arguments = arguments![partial, x, pixels, slab, channels, width, inner];
                    self.function.launch(blocks, threads, arguments)?;
                }
                Summed::AtPlaces => {
                    let arguments = arguments![partial, x, places, pixels, slab, channels, width];
                    self.function.launch(blocks, threads, arguments)?;
                }
            }
            match &self.finish {
                Some(finish) => finish.run(out, partial),
                None => Ok(()),
            }
        }
    }
}

/// A vector that is added to the channels.
pub(crate) struct BiasAdd {
    function: Function,
    sides: Sides,
}

impl BiasAdd {
    /// # Errors
    /// `Unimplemented` for dtypes that kernels do not calculate with, and for too many channels.
    pub(crate) fn new(request: &KernelRequest<'_>, dtype: DType, sides: Sides) -> Result<Self> {
        small(sides.channels)?;
        let function = Cuda::of(request)?.function(&SOURCE, "bias_add", &[("T", type_name(dtype)?)])?;
        let bytes = (2 * sides.len() + sides.channels) * dtype.size().unwrap_or(0);
        Ok(Self {
            function: function.moving(bytes),
            sides,
        })
    }

    /// `out = value + bias`; `out` may be `value`.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// All are of the dtype and the sizes that [`BiasAdd::new`] was told of.
    pub(crate) unsafe fn run(&self, value: DeviceAddress, bias: DeviceAddress, out: DeviceAddress) -> Result<()> {
        let Sides { channels, inner, .. } = self.sides;
        let len = self.sides.len();
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function.launch_over(
                len,
                arguments![out, value, bias, len as i64, channels as i32, inner as i64],
            )
        }
    }
}

/// A vector that is added to the channels, and `Relu` of the sum, where the values are.
pub(crate) struct BiasRelu {
    function: Function,
    sides: Sides,
}

impl BiasRelu {
    /// # Errors
    /// `Unimplemented` for dtypes that kernels do not calculate with, and for too many channels.
    pub(crate) fn new(request: &KernelRequest<'_>, dtype: DType, sides: Sides) -> Result<Self> {
        small(sides.channels)?;
        let bytes = (2 * sides.len() + sides.channels) * dtype.size().unwrap_or(0);
        let function = Cuda::of(request)?.function(&SOURCE, "bias_relu", &[("T", type_name(dtype)?)])?;
        Ok(Self {
            function: function.moving(bytes).doing(2 * sides.len()),
            sides,
        })
    }

    /// Adds the bias to the values and, with `relu`, takes `Relu` of that.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// Both are of the dtype and the sizes that [`BiasRelu::new`] was told of.
    pub(crate) unsafe fn run(&self, values: DeviceAddress, bias: DeviceAddress, relu: bool) -> Result<()> {
        let Sides { channels, inner, .. } = self.sides;
        let len = self.sides.len();
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function.launch_over(
                len,
                arguments![values, bias, len as i64, channels as i32, inner as i64, i32::from(relu)],
            )
        }
    }
}
