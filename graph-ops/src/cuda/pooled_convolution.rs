//! Convolutions of few terms with what follows them up to a pool, in one kernel (`pooled_convolution.cu`), as first layers are.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Result};
use graph_cuda::{Cuda, Function, Source, arguments, source};

use super::window::{SumRows, compute_size};
use super::{NOWHERE, type_name};
use crate::cpu::convolution::Conv2dGeometry;
use crate::cpu::pooling::Pool2dGeometry;

const SOURCE: Source = source!("pooled_convolution.cu");

/// Threads of a block that convolves, and of one that sums.
const POOLERS: usize = 128;
const ADDERS: usize = 256;

/// The most terms of a sum: a thread keeps that many numbers, or the pixels under four windows.
const MOST_TERMS: usize = 32;
const MOST_PIXELS: usize = 64;

/// What a block may have of shared memory, on every generation.
const SHARED: usize = 48 * 1024;

/// Blocks that keep a large GPU busy; each adds up a row of partial sums.
const BLOCKS: usize = 512;

/// Whether these kernels serve a convolution in `NHWC` with this pool: of few terms, so that a thread keeps what it works on,
/// and with images that shared memory has room for. Not of 16 bits, which are rounded between operations.
pub(crate) fn serves(g: &Conv2dGeometry, pool: &Pool2dGeometry, dtype: DType) -> bool {
    let (terms, size) = (g.filter_len() / g.out_channels.max(1), compute_size(dtype));
    let under = (g.rows.size + g.rows.stride) * (g.columns.size + g.columns.stride) * g.in_channels;
    let convolves = (g.image_len() + g.filter_len() + POOLERS * g.out_channels) * size + POOLERS * g.out_channels;
    let adds = (g.image_len() + ADDERS) * size;
    let empty = g.batch * g.filter_len() * pool.out_image_len() == 0;
    let no_gaps = g.rows.dilation == 1 && g.columns.dilation == 1;
    let unrounded = matches!(dtype, DType::Float32 | DType::Float64);
    let fits = terms <= MOST_TERMS && under <= MOST_PIXELS && g.out_channels <= ADDERS && convolves.max(adds) <= SHARED;
    unrounded && !empty && no_gaps && pool.halves() && fits
}

fn function(
    request: &KernelRequest<'_>,
    name: &str,
    g: &Conv2dGeometry,
    pool: &Pool2dGeometry,
    places: bool,
) -> Result<Function> {
    let numbers = [
        ("HEIGHT", g.rows.input),
        ("WIDTH", g.columns.input),
        ("DEPTH", g.in_channels),
        ("ROWS", g.rows.size),
        ("COLUMNS", g.columns.size),
        ("CHANNELS", g.out_channels),
        ("DOWN", g.rows.stride),
        ("ACROSS", g.columns.stride),
        ("ABOVE", g.rows.before),
        ("BEFORE", g.columns.before),
        ("POOLED_ROWS", pool.rows.output),
        ("POOLED_COLUMNS", pool.columns.output),
        ("PLACES", places.into()),
    ]
    .map(|(define, number)| (define, number.to_string()));
    let mut defines = vec![("T", type_name(request.input_dtype(0))?)];
    defines.extend(numbers.iter().map(|(define, number)| (*define, number.as_str())));
    Cuda::of(request)?.function(&SOURCE, name, &defines)
}

/// `MaxPool(Relu(BiasAdd(Conv2D(..))))`, and the places of the maxima if wanted.
pub(crate) struct PooledForward {
    function: Function,
    batch: usize,
}

impl PooledForward {
    /// Of what [`serves`] is true of.
    ///
    /// # Errors
    /// The compiler's.
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        g: &Conv2dGeometry,
        pool: &Pool2dGeometry,
        places: bool,
    ) -> Result<Self> {
        let pooled = pool.batch * pool.out_image_len();
        Ok(Self {
            function: function(request, "convolve_and_pool", g, pool, places)?
                .doing(8 * pooled * g.filter_len() / g.out_channels),
            batch: g.batch,
        })
    }

    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// All are of the dtype and the sizes that [`PooledForward::new`] was told of; places have an address exactly if wanted.
    pub(crate) unsafe fn run(
        &self,
        [images, filter, bias]: [DeviceAddress; 3],
        pooled: DeviceAddress,
        places: Option<DeviceAddress>,
    ) -> Result<()> {
        let (blocks, places) = ([self.batch.min(1 << 16) as u32, 1, 1], places.unwrap_or(NOWHERE));
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function.launch(
                blocks,
                [POOLERS as u32, 1, 1],
                arguments![pooled, places, images, filter, bias, self.batch as i64],
            )
        }
    }
}

/// The gradients of filter and bias, from that of the pool and the places of its maxima.
pub(crate) struct PooledFilterGradient {
    function: Function,
    filter: SumRows,
    bias: SumRows,
    batch: usize,
    /// Bytes of the filters' partial sums, and of the biases'.
    scratch: [usize; 2],
}

impl PooledFilterGradient {
    /// Of what [`serves`] is true of.
    ///
    /// # Errors
    /// The compiler's.
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        dtype: DType,
        g: &Conv2dGeometry,
        pool: &Pool2dGeometry,
    ) -> Result<Self> {
        let (rows, len, size) = (g.batch.min(BLOCKS), g.filter_len(), compute_size(dtype));
        let scratch = [rows * len * size, rows * g.out_channels * size];
        let pooled = pool.batch * pool.out_image_len();
        let read = (g.batch * g.image_len() + 2 * pooled) * dtype.size().unwrap_or(0);
        Ok(Self {
            function: function(request, "filter_gradient", g, pool, true)?
                .moving(read + scratch[0] + scratch[1])
                .doing(2 * pooled * (len / g.out_channels + 1)),
            filter: SumRows::new(request, dtype, rows, len)?,
            bias: SumRows::new(request, dtype, rows, g.out_channels)?,
            batch: g.batch,
            scratch,
        })
    }

    /// Bytes of scratch memory that it wants.
    pub(crate) fn scratch(&self) -> usize {
        self.scratch[0].next_multiple_of(16) + self.scratch[1]
    }

    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// All are of the dtype and the sizes that [`PooledFilterGradient::new`] was told of, and there is as much scratch memory as
    /// [`PooledFilterGradient::scratch`] says.
    pub(crate) unsafe fn run(
        &self,
        [images, places, gradients]: [DeviceAddress; 3],
        [filter, bias]: [DeviceAddress; 2],
        scratch: DeviceAddress,
    ) -> Result<()> {
        let (filters, biases) = (scratch, scratch.offset(self.scratch[0].next_multiple_of(16)));
        let blocks = [self.batch.min(BLOCKS) as u32, 1, 1];
        // SAFETY: these are the kernels' parameters; the caller's promise is of the addresses.
        unsafe {
            self.function.launch(
                blocks,
                [ADDERS as u32, 1, 1],
                arguments![filters, biases, images, places, gradients, self.batch as i64],
            )?;
            self.filter.run(filter, filters)?;
            self.bias.run(bias, biases)
        }
    }
}
