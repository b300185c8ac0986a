//! Windows over images as kernel sources see them (`images.cuh`), and sums in two levels that are finished by `partials.cu`.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Error, Result};
use graph_cuda::{Cuda, Function, Source, arguments, source};

use super::type_name;
use crate::cpu::window::Window;

/// A source that begins with the texts of others.
macro_rules! joined_source {
    ($name:literal: $($file:literal),+) => {
        graph_cuda::Source {
            name: $name,
            text: concat!($(include_str!($file)),+),
        }
    };
}
pub(crate) use joined_source;

/// One spatial axis of a windowed operation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    input: i32,
    size: i32,
    stride: i32,
    dilation: i32,
    before: i32,
    output: i32,
}

/// A window as sources see it that count in whole numbers of 64 bits: input, size, stride, dilation, before, output.
pub(crate) fn window_numbers(window: &Window) -> [usize; 6] {
    let Window {
        input,
        size,
        stride,
        dilation,
        before,
        output,
        ..
    } = *window;
    [input, size, stride, dilation, before, output]
}

/// Lengths and distances in pixels are below it, so that the sums of a few of them are numbers of 32 bits.
const FAR: usize = 1 << 28;

impl Axis {
    /// # Errors
    /// `Unimplemented` for more pixels than kernels count.
    pub(crate) fn new(window: &Window) -> Result<Self> {
        let Window {
            input,
            size,
            stride,
            dilation,
            before,
            after,
            output,
        } = *window;
        let longest = [input, size, stride, dilation, window.effective(), before, after, output];
        if longest.into_iter().any(|length| length >= FAR) || output.saturating_mul(stride) >= FAR {
            return Err(too_large());
        }
        Ok(Self {
            input: input as i32,
            size: size as i32,
            stride: stride as i32,
            dilation: dilation as i32,
            before: before as i32,
            output: output as i32,
        })
    }
}

/// The error of images that are larger than kernels can count.
pub(crate) fn too_large() -> Error {
    Error::unimplemented("the images are too large for the device's kernels").hint("place the operation on the CPU")
}

/// A size as kernels take it.
///
/// # Errors
/// `Unimplemented` for one that has more than 31 bits.
pub(crate) fn small(size: usize) -> Result<i32> {
    i32::try_from(size).map_err(|_| too_large())
}

/// Bytes of what elements of this dtype are calculated in.
pub(crate) fn compute_size(dtype: DType) -> usize {
    dtype.size().unwrap_or(8).max(4)
}

/// The second level of sums: rows of partial sums are added.
pub(crate) struct SumRows {
    function: Function,
    rows: usize,
    columns: usize,
}

impl SumRows {
    /// Of `rows` rows of `columns` numbers, to elements of `dtype`.
    ///
    /// # Errors
    /// `Unimplemented` for dtypes that kernels do not calculate with.
    pub(crate) fn new(request: &KernelRequest<'_>, dtype: DType, rows: usize, columns: usize) -> Result<Self> {
        const SOURCE: Source = source!("partials.cu");
        let function = Cuda::of(request)?.function(&SOURCE, "sum_rows", &[("T", type_name(dtype)?)])?;
        let bytes = columns * (rows * compute_size(dtype) + dtype.size().unwrap_or(0));
        Ok(Self {
            function: function.moving(bytes).doing(rows * columns),
            rows,
            columns,
        })
    }

    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The rows lie at `partial`, of the type that the dtype is calculated in, and there is room for one at `out`.
    pub(crate) unsafe fn run(&self, out: DeviceAddress, partial: DeviceAddress) -> Result<()> {
        let blocks = [self.columns.div_ceil(32) as u32, 1, 1];
        let (rows, columns) = (self.rows as i32, self.columns as i64);
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function
                .launch(blocks, [256, 1, 1], arguments![out, partial, columns, rows])
        }
    }
}
