//! Poolings and their gradients (`pooling.cu`).

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Result};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::type_name;
use super::window::{Axis, joined_source, small};
use crate::cpu::pooling::Pool2dGeometry;

const SOURCE: Source = joined_source!("pooling.cu": "images.cuh", "pooling.cu");

/// The windows of a pooling, as the kernels take them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Pool {
    rows: Axis,
    columns: Axis,
    channels: i32,
    channels_last: i32,
    halves: i32,
}

/// A kernel over windows that is ready to be given to the device.
pub(crate) struct Pooling {
    function: Function,
    pool: Pool,
    images: usize,
    pooled: usize,
}

impl Pooling {
    /// The kernel of this name.
    ///
    /// # Errors
    /// `Unimplemented` for images that are too large.
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        name: &str,
        dtype: DType,
        g: &Pool2dGeometry,
        channels_last: bool,
    ) -> Result<Self> {
        small(g.rows.input.saturating_mul(g.columns.input))?;
        let (images, pooled) = (g.batch * g.image_len(), g.batch * g.out_image_len());
        // Where maxima are is looked for in the images, of which there are then two: as operands, and gradients of theirs.
        let elements = match name {
            "max_pool_grad" | "max_pool_grad_grad" => 2 * images + pooled,
            "max_pool_places" | "max_pool_grad_at" => images + 2 * pooled,
            _ => images + pooled,
        };
        let function = Cuda::of(request)?.function(&SOURCE, name, &[("T", type_name(dtype)?)])?;
        Ok(Self {
            function: function
                .moving(elements * dtype.size().unwrap_or(0))
                .doing(pooled * g.rows.size * g.columns.size),
            pool: Pool {
                rows: Axis::new(&g.rows)?,
                columns: Axis::new(&g.columns)?,
                channels: small(g.channels)?,
                channels_last: channels_last.into(),
                halves: g.halves().into(),
            },
            images,
            pooled,
        })
    }

    /// `max_pool` or `avg_pool`: from images to `out`, shaped as the pooled ones.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The kernel is one of these, and all are of the dtype and the sizes that [`Pooling::new`] was told of. So is it for the
    /// other functions here.
    pub(crate) unsafe fn pool(&self, images: DeviceAddress, out: DeviceAddress) -> Result<()> {
        let n = self.pooled;
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function
                .launch_over(n, arguments![out, images, n as i64, self.pool])
        }
    }

    /// `max_pool_grad`, with `relu` behind `Relu`: `out` is shaped as the images.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// That of [`Pooling::pool`].
    pub(crate) unsafe fn max_grad(
        &self,
        images: DeviceAddress,
        gradients: DeviceAddress,
        relu: bool,
        out: DeviceAddress,
    ) -> Result<()> {
        let n = self.images;
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function.launch_over(
                n,
                arguments![out, images, gradients, n as i64, self.pool, i32::from(relu)],
            )
        }
    }

    /// `max_pool_places`, of windows that are halves: `out` and `places` are shaped as the pooled images.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// That of [`Pooling::pool`].
    pub(crate) unsafe fn places(&self, images: DeviceAddress, out: DeviceAddress, places: DeviceAddress) -> Result<()> {
        let n = self.pooled;
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function
                .launch_over(n, arguments![out, places, images, n as i64, self.pool])
        }
    }

    /// `max_pool_grad_at`, of windows that are halves: `out` is shaped as the images, the others as the pooled ones.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// That of [`Pooling::pool`].
    pub(crate) unsafe fn grad_at(
        &self,
        places: DeviceAddress,
        gradients: DeviceAddress,
        out: DeviceAddress,
    ) -> Result<()> {
        let n = self.images;
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function
                .launch_over(n, arguments![out, places, gradients, n as i64, self.pool])
        }
    }

    /// `max_pool_grad_grad`: `out` is shaped as the pooled images, `gradients` as the images.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// That of [`Pooling::pool`].
    pub(crate) unsafe fn max_grad_grad(
        &self,
        images: DeviceAddress,
        gradients: DeviceAddress,
        out: DeviceAddress,
    ) -> Result<()> {
        let n = self.pooled;
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function
                .launch_over(n, arguments![out, images, gradients, n as i64, self.pool])
        }
    }

    /// `avg_pool_grad`: `out` is shaped as the images.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// That of [`Pooling::pool`].
    pub(crate) unsafe fn avg_grad(&self, gradients: DeviceAddress, out: DeviceAddress) -> Result<()> {
        let n = self.images;
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function
                .launch_over(n, arguments![out, gradients, n as i64, self.pool])
        }
    }
}

/// Maxima over windows of neighbouring channels.
pub(crate) struct MaxOfChannels {
    function: Function,
    size: i32,
}

impl MaxOfChannels {
    /// # Errors
    /// `Unimplemented` for too many channels.
    pub(crate) fn new(request: &KernelRequest<'_>, dtype: DType, size: usize) -> Result<Self> {
        Ok(Self {
            function: Cuda::of(request)?.function(&SOURCE, "max_pool_channels", &[("T", type_name(dtype)?)])?,
            size: small(size)?,
        })
    }

    /// Makes `count` maxima.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// There are as many windows at `images`, of the dtype that [`MaxOfChannels::new`] was told of, and room at `out`.
    pub(crate) unsafe fn run(&self, images: DeviceAddress, out: DeviceAddress, count: usize) -> Result<()> {
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function
                .launch_over(count, arguments![out, images, count as i64, self.size])
        }
    }
}
