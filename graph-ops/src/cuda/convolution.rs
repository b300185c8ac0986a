//! The convolution and its two gradients: our own (`convolution.cu`), or the library's where that is faster.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Result};
use graph_cuda::convolution::ConvolutionOp::{BackwardData, BackwardFilter, Forward as ForwardOp};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::channels::{BiasRelu, Sides};
use super::convolution_library::{Library, choose};
use super::window::{Axis, SumRows, compute_size, joined_source, small, too_large};
use super::{NOWHERE, type_name};
use crate::cpu::convolution::Conv2dGeometry;

const SOURCE: Source =
    joined_source!("convolution.cu": "images.cuh", "tensor_cores.cuh", "tiles.cuh", "convolution.cu");

/// The least architecture, in the compiler's words, whose tensor cores multiply elements of this dtype in our kernels; none where
/// they are not to. Those of `float` round to TensorFloat-32.
fn tensor_cores(dtype: DType, tf32: bool) -> Option<&'static str> {
    match dtype {
        DType::Half => Some("750"),
        DType::BFloat16 => Some("800"),
        DType::Float32 if tf32 => Some("800"),
        _ => None,
    }
}

/// One convolution, as the kernels take it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Convolution {
    rows: Axis,
    columns: Axis,
    height: i64,
    in_channels: i32,
    out_channels: i32,
    channels_last: i32,
}

impl Convolution {
    /// Whose product has `height` rows.
    fn new(g: &Conv2dGeometry, channels_last: bool, height: usize) -> Result<Self> {
        let terms = g.filter_len() / g.out_channels.max(1);
        let backwards = g.filter_len() / g.in_channels.max(1);
        // The kernels look a few tiles ahead.
        let most = i32::MAX as usize - 1024;
        let sizes = [g.image_len(), g.out_image_len(), terms, backwards, height / LEAST_TILE];
        let widest = g.in_channels.max(g.out_channels) / LEAST_TILE;
        if sizes.into_iter().any(|size| size >= most) || widest >= MOST_BLOCKS {
            return Err(too_large());
        }
        Ok(Self {
            rows: Axis::new(&g.rows)?,
            columns: Axis::new(&g.columns)?,
            height: height as i64,
            in_channels: small(g.in_channels)?,
            out_channels: small(g.out_channels)?,
            channels_last: channels_last.into(),
        })
    }
}

/// Rows and columns of a block's tile of the product, and rows of a thread's part; a thread's part has four columns, or as many
/// elements that lie where tensor cores want them. Rows are a multiple of 32, as those of a warp are then.
#[derive(Clone, Copy, Debug)]
struct Tile {
    rows: usize,
    columns: usize,
    part: usize,
}

/// Blocks that keep a large GPU busy.
const BUSY: usize = 256;

/// No tile has fewer rows or columns, and no grid more blocks along its second axis.
const LEAST_TILE: usize = 16;
const MOST_BLOCKS: usize = 65_535;

/// Terms of the sums that are in shared memory at once.
const DEPTH: usize = 16;

impl Tile {
    /// Those that suit so many columns, the largest first.
    fn fitting(columns: usize) -> [Self; 3] {
        let tile = |rows, columns, part| Self { rows, columns, part };
        match columns {
            0..=16 => [tile(128, 16, 4), tile(64, 16, 4), tile(32, 16, 4)],
            17..=32 => [tile(128, 32, 4), tile(64, 32, 4), tile(32, 32, 4)],
            _ => [tile(128, 64, 8), tile(64, 64, 4), tile(32, 64, 4)],
        }
    }

    /// The largest of which a product of this size has enough to keep a GPU busy.
    fn busy(height: usize, width: usize) -> Self {
        let tiles = Self::fitting(width);
        let enough = tiles.iter().find(|tile| tile.count(height, width) >= BUSY);
        *enough.unwrap_or(&tiles[2])
    }

    /// The largest that has not more rows than there are, for sums that are cut into parts.
    fn filled(height: usize, width: usize) -> Self {
        let tiles = Self::fitting(width);
        *tiles.iter().find(|tile| tile.rows <= height).unwrap_or(&tiles[2])
    }

    fn count(&self, height: usize, width: usize) -> usize {
        height.div_ceil(self.rows) * width.div_ceil(self.columns)
    }

    fn threads(&self) -> [u32; 3] {
        [(self.rows / self.part * (self.columns / 4)) as u32, 1, 1]
    }

    fn blocks(&self, height: usize, width: usize, parts: usize) -> [u32; 3] {
        [
            height.div_ceil(self.rows) as u32,
            width.div_ceil(self.columns) as u32,
            parts as u32,
        ]
    }

    fn function(
        &self,
        request: &KernelRequest<'_>,
        dtype: DType,
        (g, channels_last): (&Conv2dGeometry, bool),
        [which, name]: [&str; 2],
    ) -> Result<Function> {
        let [rows, columns, part] = [self.rows, self.columns, self.part].map(|size| size.to_string());
        let cuda = Cuda::of(request)?;
        let mut defines = vec![
            ("T", type_name(dtype)?),
            ("TILE_M", &rows),
            ("TILE_N", &columns),
            ("BLOCK_M", &part),
            ("CHANNELS_LAST", if channels_last { "1" } else { "0" }),
            (which, ""),
        ];
        let size = dtype.size().unwrap_or(0);
        let outputs = g.batch * g.out_image_len();
        let elements = g.batch * g.image_len() + g.filter_len() + outputs;
        let flops = 2 * g.filter_len() * (outputs / g.out_channels.max(1));
        if let Some(least) = tensor_cores(dtype, cuda.rounds_to_tf32()) {
            defines.push(("TENSOR_CORES", least));
        }
        let function = cuda.function(&SOURCE, name, &defines)?;
        Ok(function.moving(elements * size).doing(flops))
    }
}

/// A product that is ready to be given to the device.
struct Product {
    function: Function,
    convolution: Convolution,
    blocks: [u32; 3],
    threads: [u32; 3],
}

/// `Conv2D`, with a bias and `Relu` if wanted.
pub(crate) struct Forward {
    own: Product,
    library: Option<Library>,
    finish: Option<BiasRelu>,
}

impl Forward {
    /// With `biased`, it gets a bias in each run.
    ///
    /// # Errors
    /// `Unimplemented` for images that are too large.
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        dtype: DType,
        g: &Conv2dGeometry,
        channels_last: bool,
        biased: bool,
    ) -> Result<Self> {
        let height = g.batch * g.rows.output * g.columns.output;
        let tile = Tile::busy(height, g.out_channels);
        let mut kernel = Self {
            own: Product {
                function: tile.function(request, dtype, (g, channels_last), ["FORWARD", "conv2d"])?,
                convolution: Convolution::new(g, channels_last, height)?,
                blocks: tile.blocks(height, g.out_channels, 1),
                threads: tile.threads(),
            },
            library: None,
            finish: None,
        };
        if biased {
            let [batch, rows, columns, channels] = g.out_shape();
            let shape = match channels_last {
                true => [batch, rows, columns, channels],
                false => [batch, channels, rows, columns],
            };
            let sides = Sides::of(&shape, if channels_last { 3 } else { 1 });
            kernel.finish = Some(BiasRelu::new(request, dtype, sides)?);
        }
        let own = |[images, filter, out]: [DeviceAddress; 3], _: DeviceAddress| {
            let bias = biased.then_some(filter);
            // SAFETY: the tensors are of these sizes; a filter has more numbers than a bias.
            unsafe { kernel.run_own(images, filter, bias, biased, out) }
        };
        let finish = kernel.finish.as_ref();
        let library = choose(request, (ForwardOp, dtype), (g, channels_last), finish, &own, 0)?;
        Ok(Self { library, ..kernel })
    }

    /// Bytes of scratch memory that it wants.
    pub(crate) fn scratch(&self) -> usize {
        self.library.as_ref().map_or(0, Library::scratch)
    }

    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// All are of the dtype and the sizes that [`Forward::new`] was told of, and there is as much scratch memory as
    /// [`Forward::scratch`] says; there is a bias exactly if it was `biased`, and `relu` only then.
    pub(crate) unsafe fn run(
        &self,
        [images, filter, out]: [DeviceAddress; 3],
        bias: Option<DeviceAddress>,
        relu: bool,
        scratch: DeviceAddress,
    ) -> Result<()> {
        let Some(library) = &self.library else {
            // SAFETY: the caller's promise.
            return unsafe { self.run_own(images, filter, bias, relu, out) };
        };
        // SAFETY: the caller's promise.
        unsafe {
            library.run([images, filter, out], scratch)?;
            match (&self.finish, bias) {
                (Some(finish), Some(bias)) => finish.run(out, bias, relu),
                _ => Ok(()),
            }
        }
    }

    unsafe fn run_own(
        &self,
        images: DeviceAddress,
        filter: DeviceAddress,
        bias: Option<DeviceAddress>,
        relu: bool,
        out: DeviceAddress,
    ) -> Result<()> {
        let (product, bias) = (&self.own, bias.unwrap_or(NOWHERE));
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            product.function.launch(
                product.blocks,
                product.threads,
                arguments![out, images, filter, bias, product.convolution, i32::from(relu)],
            )
        }
    }
}

/// `Conv2DBackpropInput`
pub(crate) struct BackpropInput {
    own: Product,
    library: Option<Library>,
}

impl BackpropInput {
    /// # Errors
    /// `Unimplemented` for images that are too large.
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        dtype: DType,
        g: &Conv2dGeometry,
        channels_last: bool,
    ) -> Result<Self> {
        let height = g.batch * g.rows.input * g.columns.input;
        let tile = Tile::busy(height, g.in_channels);
        let which = ["BACKPROP_INPUT", "conv2d_backprop_input"];
        let kernel = Self {
            own: Product {
                function: tile.function(request, dtype, (g, channels_last), which)?,
                convolution: Convolution::new(g, channels_last, height)?,
                blocks: tile.blocks(height, g.in_channels, 1),
                threads: tile.threads(),
            },
            library: None,
        };
        let own = |[images, filter, gradients]: [DeviceAddress; 3], _: DeviceAddress| {
            // SAFETY: the tensors are of these sizes.
            unsafe { kernel.run_own(gradients, filter, images) }
        };
        let library = choose(request, (BackwardData, dtype), (g, channels_last), None, &own, 0)?;
        Ok(Self { library, ..kernel })
    }

    /// Bytes of scratch memory that it wants.
    pub(crate) fn scratch(&self) -> usize {
        self.library.as_ref().map_or(0, Library::scratch)
    }

    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// All are of the dtype and the sizes that [`BackpropInput::new`] was told of, and there is as much scratch memory as
    /// [`BackpropInput::scratch`] says.
    pub(crate) unsafe fn run(
        &self,
        gradients: DeviceAddress,
        filter: DeviceAddress,
        out: DeviceAddress,
        scratch: DeviceAddress,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            match &self.library {
                Some(library) => library.run([out, filter, gradients], scratch),
                None => self.run_own(gradients, filter, out),
            }
        }
    }

    unsafe fn run_own(&self, gradients: DeviceAddress, filter: DeviceAddress, out: DeviceAddress) -> Result<()> {
        let product = &self.own;
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            product.function.launch(
                product.blocks,
                product.threads,
                arguments![out, gradients, filter, product.convolution],
            )
        }
    }
}

/// `Conv2DBackpropFilter`: the sums over all output pixels are cut into parts, which are added in order.
pub(crate) struct BackpropFilter {
    own: Product,
    library: Option<Library>,
    finish: SumRows,
    pixels: i32,
    part: usize,
    /// Bytes of the parts' sums.
    scratch: usize,
}

impl BackpropFilter {
    /// # Errors
    /// `Unimplemented` for images that are too large.
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        dtype: DType,
        g: &Conv2dGeometry,
        channels_last: bool,
    ) -> Result<Self> {
        let pixels = g.batch * g.rows.output * g.columns.output;
        let height = g.rows.size * g.columns.size * g.in_channels;
        let tile = Tile::filled(height, g.out_channels);
        let wanted = (2 * BUSY / tile.count(height, g.out_channels).max(1)).clamp(1, pixels.div_ceil(4 * DEPTH).max(1));
        let part = pixels.div_ceil(wanted).max(1).next_multiple_of(DEPTH);
        let parts = pixels.div_ceil(part).max(1);
        let convolution = Convolution::new(g, channels_last, height)?;
        if pixels >= i32::MAX as usize - 1024 {
            return Err(too_large());
        }
        let which = ["BACKPROP_FILTER", "conv2d_backprop_filter"];
        let (len, size) = (g.filter_len(), compute_size(dtype));
        let read = g.batch * (g.image_len() + g.out_image_len()) * dtype.size().unwrap_or(0);
        let function = tile.function(request, dtype, (g, channels_last), which)?;
        let kernel = Self {
            own: Product {
                function: function.moving(read + parts * len * size),
                convolution,
                blocks: tile.blocks(height, g.out_channels, parts),
                threads: tile.threads(),
            },
            library: None,
            finish: SumRows::new(request, dtype, parts, len)?,
            pixels: pixels as i32,
            part,
            scratch: parts * len * size,
        };
        let own = |[images, filter, gradients]: [DeviceAddress; 3], scratch: DeviceAddress| {
            // SAFETY: the tensors and the scratch memory are of these sizes.
            unsafe { kernel.run_own(images, gradients, filter, scratch) }
        };
        let scratch = kernel.scratch();
        let library = choose(
            request,
            (BackwardFilter, dtype),
            (g, channels_last),
            None,
            &own,
            scratch,
        )?;
        Ok(Self { library, ..kernel })
    }

    /// Bytes of scratch memory that it wants.
    pub(crate) fn scratch(&self) -> usize {
        self.library.as_ref().map_or(self.scratch, Library::scratch)
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
        // SAFETY: the caller's promise.
        unsafe {
            match &self.library {
                Some(library) => library.run([images, out, gradients], scratch),
                None => self.run_own(images, gradients, out, scratch),
            }
        }
    }

    unsafe fn run_own(
        &self,
        images: DeviceAddress,
        gradients: DeviceAddress,
        out: DeviceAddress,
        scratch: DeviceAddress,
    ) -> Result<()> {
        let product = &self.own;
        // SAFETY: these are the kernels' parameters; the caller's promise is of the addresses.
        unsafe {
            product.function.launch(
                product.blocks,
                product.threads,
                arguments![
                    scratch,
                    images,
                    gradients,
                    product.convolution,
                    self.pixels,
                    self.part as i32
                ],
            )?;
            self.finish.run(out, scratch)
        }
    }
}
