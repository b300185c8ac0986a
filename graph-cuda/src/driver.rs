//! What is asked of a device: the few calls of CUDA's driver that the engine makes, so that another device can stand in.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::time::Duration;

use graph_core::{DType, Error, Result};

use crate::convolution::Convolutions;

/// The version of a GPU's instruction set: (9, 0) for Hopper.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Capability {
    /// The generation.
    pub major: u32,
    /// Its variant.
    pub minor: u32,
}

impl Capability {
    /// The name of the architecture to compile for: `sm_90`.
    pub fn architecture(self) -> String {
        format!("sm_{}{}", self.major, self.minor)
    }
}

/// What a device is.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The number by which it is addressed, among those that are visible.
    pub index: u32,
    /// The card's name.
    pub name: String,
    /// Its instruction set.
    pub capability: Capability,
    /// All of its memory, in bytes.
    pub memory: usize,
    /// How many blocks of threads run at the same time, more or less: its multiprocessors.
    pub multiprocessors: u32,
}

/// A loaded module, function, event or recorded graph, as the driver numbers it.
pub type Handle = usize;

/// One argument of a kernel: where its value is, and how long it is. The value must be of the very type that the kernel
/// declares.
#[derive(Clone, Copy)]
pub struct Argument<'a> {
    pub(crate) value: *const c_void,
    // CUDA's driver knows how long the arguments of a kernel are.
    #[cfg_attr(not(feature = "emulator"), expect(dead_code))]
    pub(crate) bytes: usize,
    lives: PhantomData<&'a ()>,
}

impl<'a> Argument<'a> {
    /// The argument of this value.
    pub fn new<T: Copy>(value: &'a T) -> Self {
        Self {
            value: std::ptr::from_ref(value).cast(),
            bytes: size_of::<T>(),
            lives: PhantomData,
        }
    }
}

/// The arguments of a kernel, from `Copy` expressions of the types that it declares:
/// `arguments![x, y, count as i64]`.
#[macro_export]
macro_rules! arguments {
    ($($value:expr),* $(,)?) => { &[$($crate::driver::Argument::new(&$value)),*] };
}

/// A grid of blocks of threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Blocks along x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block along x, y and z.
    pub threads: [u32; 3],
}

/// A product of matrices, or of batches of them: `c = op(a) op(b)`, all row by row in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Product {
    /// The dtype of all three: `Float32`, `Float64`, `Half` or `BFloat16`; the latter two are summed in `Float32`.
    pub dtype: DType,
    /// Rows of `op(a)` and `c`.
    pub rows: usize,
    /// Columns of `op(b)` and `c`.
    pub columns: usize,
    /// Columns of `op(a)` and rows of `op(b)`.
    pub inner: usize,
    /// Whether `a` lies as [inner, rows].
    pub transpose_a: bool,
    /// Whether `b` lies as [columns, inner].
    pub transpose_b: bool,
    /// How many products.
    pub batch: usize,
    /// From one matrix of the batch to the next, in elements, of `a`, `b` and `c`; 0 where all share one.
    pub strides: [usize; 3],
    /// Whether the product is added to what `c` holds.
    pub accumulate: bool,
}

impl Product {
    /// One product `[rows, inner] x [inner, columns]`.
    pub fn new(dtype: DType, rows: usize, columns: usize, inner: usize) -> Self {
        Self {
            dtype,
            rows,
            columns,
            inner,
            transpose_a: false,
            transpose_b: false,
            batch: 1,
            strides: [0; 3],
            accumulate: false,
        }
    }

    /// Says which operands lie transposed.
    #[must_use]
    pub fn transposed(mut self, a: bool, b: bool) -> Self {
        (self.transpose_a, self.transpose_b) = (a, b);
        self
    }

    /// A batch of `count` products, whose matrices are `strides` elements apart.
    #[must_use]
    pub fn batched(mut self, count: usize, strides: [usize; 3]) -> Self {
        (self.batch, self.strides) = (count, strides);
        self
    }

    /// The floating-point operations that it takes.
    pub fn flops(&self) -> u64 {
        let factors = [2, self.batch, self.rows, self.columns, self.inner];
        factors.into_iter().map(|factor| factor as u64).product()
    }

    /// Bytes of its operands and its result.
    pub fn bytes(&self) -> u64 {
        let matrices = [
            (self.rows, self.inner),
            (self.inner, self.columns),
            (self.rows, self.columns),
        ];
        let elements = matrices.into_iter().zip(self.strides).map(|((rows, columns), stride)| {
            // A matrix that all share is read once.
            let count = if stride == 0 { 1 } else { self.batch };
            (count * rows * columns) as u64
        });
        elements.sum::<u64>() * self.dtype.size().unwrap_or(0) as u64
    }
}

/// What becomes of a product before it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Epilogue {
    /// The address of a vector that is added to each row.
    pub bias: u64,
    /// Whether `Relu` follows.
    pub relu: bool,
}

/// How many lanes recorded work may have.
pub const LANES: usize = 4;

/// One device and its one stream of work. Work (copies, launches, products) is done in the order in which it is given.
///
/// # Safety
/// Addresses must be of memory that [`Driver::allocate`] gave and that is large enough, arguments must be what the kernel
/// declares, and host memory that is copied from or to must stay until the copy is done.
pub unsafe trait Driver: Send + Sync {
    /// What the device is.
    fn info(&self) -> &DeviceInfo;

    /// The driver's version: with the device, it decides of what a library does.
    fn version(&self) -> String;

    /// Memory on the device that nobody holds, in bytes.
    ///
    /// # Errors
    /// The driver's.
    fn free_memory(&self) -> Result<usize>;

    /// `bytes` (not 0) of device memory.
    ///
    /// # Errors
    /// `ResourceExhausted` if there is not that much.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives device memory back, after all work that was given.
    ///
    /// # Safety
    /// `address` was given by [`Driver::allocate`] and is used no more.
    unsafe fn free(&self, address: u64);

    /// `bytes` (not 0) of host memory that the device reaches by itself.
    ///
    /// # Errors
    /// `ResourceExhausted` if there is not that much.
    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8>;

    /// Gives pinned memory back.
    ///
    /// # Safety
    /// `start` was given by [`Driver::allocate_pinned`] and is used no more.
    unsafe fn free_pinned(&self, start: *mut u8);

    /// Copies from the host, in the order of the work.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// That of the trait.
    unsafe fn copy_in(&self, from: *const u8, to: u64, bytes: usize) -> Result<()>;

    /// Copies from the host to `through`, beside all work that was given before, and from there to `to` in the order of the work.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// That of the trait; no work that is not done uses `through`.
    unsafe fn copy_in_through(&self, from: *const u8, through: u64, to: u64, bytes: usize) -> Result<()>;

    /// Copies to the host, in the order of the work.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// That of the trait.
    unsafe fn copy_out(&self, from: u64, to: *mut u8, bytes: usize) -> Result<()>;

    /// Copies within device memory, in the order of the work.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// That of the trait.
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;

    /// Loads what a [`Compiler`] made.
    ///
    /// # Errors
    /// The driver's, as for an image of another architecture.
    fn load(&self, image: &[u8]) -> Result<Handle>;

    /// A kernel of a module.
    ///
    /// # Errors
    /// `NotFound` if the module has none of that name.
    fn function(&self, module: Handle, name: &str) -> Result<Handle>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// That of the trait.
    unsafe fn launch(&self, function: Handle, grid: Grid, arguments: &[Argument<'_>]) -> Result<()>;

    /// Multiplies matrices.
    ///
    /// # Errors
    /// `Unimplemented` for a dtype that the device's library does not multiply, and the library's.
    ///
    /// # Safety
    /// That of the trait.
    unsafe fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<()>;

    /// [`Driver::multiply`] with what `epilogue` says in the same pass; `false`, with nothing given, where the device's library
    /// does not do that.
    ///
    /// # Errors
    /// The library's.
    ///
    /// # Safety
    /// That of the trait; `epilogue.bias` has an element for each column of the product.
    unsafe fn multiply_with(&self, product: &Product, epilogue: Epilogue, a: u64, b: u64, c: u64) -> Result<bool> {
        let _ = (product, epilogue, a, b, c);
        Ok(false)
    }

    /// The library of convolutions that the device has.
    ///
    /// # Errors
    /// `Unavailable` if there is none.
    fn convolutions(&self) -> Result<&dyn Convolutions> {
        Err(Error::unavailable("the device has no library of convolutions"))
    }

    /// Waits until all work is done.
    ///
    /// # Errors
    /// Those of the work.
    fn synchronize(&self) -> Result<()>;

    /// Marks this place in the order of the work.
    ///
    /// # Errors
    /// The driver's.
    fn record_event(&self) -> Result<Handle>;

    /// Whether all work before the mark is done.
    ///
    /// # Errors
    /// Those of the work.
    fn is_past(&self, event: Handle) -> Result<bool>;

    /// Waits for a mark, and forgets it.
    ///
    /// # Errors
    /// Those of the work.
    fn wait_for(&self, event: Handle) -> Result<()>;

    /// Marks a time in the order of the work.
    ///
    /// # Errors
    /// The driver's.
    fn record_time(&self) -> Result<Handle>;

    /// The time from one mark of [`Driver::record_time`] to a later one. Waits for the later, and forgets both.
    ///
    /// # Errors
    /// Those of the work.
    fn elapsed(&self, from: Handle, to: Handle) -> Result<Duration>;

    /// Work that this thread gives from now on is recorded.
    ///
    /// # Errors
    /// The driver's.
    fn begin_capture(&self) -> Result<()>;

    /// Work that is given from now on, while it is recorded, goes to this lane, a number below [`LANES`]: it runs after what was
    /// given to the lane before, and after these marks.
    ///
    /// # Errors
    /// The driver's.
    fn enter_lane(&self, lane: usize, after: &[Handle]) -> Result<()>;

    /// Marks this place in the lane where work goes now, for this recording.
    ///
    /// # Errors
    /// The driver's.
    fn mark_lane(&self) -> Result<Handle>;

    /// Ends recording; the work of all lanes is done before what is given behind it.
    ///
    /// # Errors
    /// The driver's, if what was given cannot be recorded.
    fn end_capture(&self) -> Result<Handle>;

    /// Gives recorded work to the device.
    ///
    /// # Errors
    /// The driver's.
    fn launch_graph(&self, graph: Handle) -> Result<()>;

    /// Forgets recorded work.
    fn drop_graph(&self, graph: Handle);
}

/// Makes a device's code from the text of kernels.
pub trait Compiler: Send + Sync {
    /// What decides of the code beside the text: the compiler and its version, the architecture, the options.
    fn identity(&self) -> String;

    /// Compiles a text that begins with the prelude; `name` is for messages.
    ///
    /// # Errors
    /// `Internal` with the compiler's own messages.
    fn compile(&self, name: &str, text: &str) -> Result<Vec<u8>>;
}
