//! Depthwise convolution and its two gradients (`depthwise.cu`).

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Result};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::channels::Slabs;
use super::type_name;
use super::window::{Axis, SumRows, compute_size, joined_source, small, too_large};
use crate::cpu::depthwise::DepthwiseGeometry;

const SOURCE: Source = joined_source!("depthwise.cu": "images.cuh", "channel_sums.cuh", "depthwise.cu");

/// One convolution, as the kernels take it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Geometry {
    rows: Axis,
    columns: Axis,
    batch: i64,
    channels: i32,
    multiplier: i32,
    channels_last: i32,
}

impl Geometry {
    fn new(g: &DepthwiseGeometry, channels_last: bool) -> Result<Self> {
        small(g.outputs())?;
        Ok(Self {
            rows: Axis::new(&g.rows)?,
            columns: Axis::new(&g.columns)?,
            batch: g.batch as i64,
            channels: small(g.channels)?,
            multiplier: small(g.multiplier)?,
            channels_last: channels_last.into(),
        })
    }
}

/// Multiplications and additions of a convolution, or of one of its gradients.
fn operations(g: &DepthwiseGeometry) -> usize {
    2 * g.batch * g.out_image_len() * g.rows.size * g.columns.size
}

/// `DepthwiseConv2dNative` or its gradient with respect to the images.
pub(crate) struct Depthwise {
    function: Function,
    geometry: Geometry,
    images: usize,
    out: usize,
}

impl Depthwise {
    /// The kernel of this name.
    ///
    /// # Errors
    /// `Unimplemented` for images that are too large.
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        name: &str,
        dtype: DType,
        g: &DepthwiseGeometry,
        channels_last: bool,
    ) -> Result<Self> {
        let function = Cuda::of(request)?.function(&SOURCE, name, &[("T", type_name(dtype)?)])?;
        Ok(Self {
            function: function.doing(operations(g)),
            geometry: Geometry::new(g, channels_last)?,
            images: g.batch * g.image_len(),
            out: g.batch * g.out_image_len(),
        })
    }

    /// `depthwise`
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// It is this kernel, and all are of the dtype and the sizes that [`Depthwise::new`] was told of.
    pub(crate) unsafe fn forward(
        &self,
        images: DeviceAddress,
        filter: DeviceAddress,
        out: DeviceAddress,
    ) -> Result<()> {
        let n = self.out;
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function
                .launch_over(n, arguments![out, images, filter, n as i64, self.geometry])
        }
    }

    /// `depthwise_backprop_input`
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// That of [`Depthwise::forward`].
    pub(crate) unsafe fn backprop_input(
        &self,
        gradients: DeviceAddress,
        filter: DeviceAddress,
        out: DeviceAddress,
    ) -> Result<()> {
        let n = self.images;
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function
                .launch_over(n, arguments![out, gradients, filter, n as i64, self.geometry])
        }
    }
}

/// `DepthwiseConv2dNativeBackpropFilter`
pub(crate) struct BackpropFilter {
    function: Function,
    finish: SumRows,
    geometry: Geometry,
    slabs: Slabs,
    pixels: usize,
    taps: usize,
    /// Bytes of the slabs' sums.
    scratch: usize,
}

impl BackpropFilter {
    /// # Errors
    /// `Unimplemented` for images and filters that are too large.
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        dtype: DType,
        g: &DepthwiseGeometry,
        channels_last: bool,
    ) -> Result<Self> {
        let taps = g.rows.size * g.columns.size;
        if taps > 65_535 {
            return Err(too_large());
        }
        let pixels = g.batch * g.rows.output * g.columns.output;
        let slabs = Slabs::new(pixels, g.outputs(), channels_last);
        let scratch = slabs.count * g.filter_len() * compute_size(dtype);
        let function =
            Cuda::of(request)?.function(&SOURCE, "depthwise_backprop_filter", &[("T", type_name(dtype)?)])?;
        let read = g.batch * (g.image_len() + g.out_image_len()) * dtype.size().unwrap_or(0);
        Ok(Self {
            function: function.moving(read + scratch).doing(operations(g)),
            finish: SumRows::new(request, dtype, slabs.count, g.filter_len())?,
            geometry: Geometry::new(g, channels_last)?,
            slabs,
            pixels,
            taps,
            scratch,
        })
    }

    /// Bytes of scratch memory that it wants.
    pub(crate) fn scratch(&self) -> usize {
        self.scratch
    }

    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// All are of the dtype and the sizes that [`BackpropFilter::new`] was told of, and there is as much scratch memory as
    /// [`BackpropFilter::scratch`] says.
    pub(crate) unsafe fn run(
        &self,
        images: DeviceAddress,
        gradients: DeviceAddress,
        out: DeviceAddress,
        scratch: DeviceAddress,
    ) -> Result<()> {
        let Slabs { width, len, .. } = self.slabs;
        let [x, y, _] = self.slabs.blocks();
        let (pixels, slab, width) = (self.pixels as i64, len as i64, width as i32);
        // SAFETY: these are the kernels' parameters; the caller's promise is of the addresses.
        unsafe {
            self.function.launch(
                [x, y, self.taps as u32],
                [256, 1, 1],
                arguments![scratch, images, gradients, pixels, slab, width, self.geometry],
            )?;
            self.finish.run(out, scratch)
        }
    }
}
