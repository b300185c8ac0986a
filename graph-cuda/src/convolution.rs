//! Convolutions as a library of the device does them.

use std::fmt;

use graph_core::{DType, Result};

/// Which of the three tensors of a convolution is made from the others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConvolutionOp {
    /// The outputs.
    Forward,
    /// The images, from gradients in the outputs' place.
    BackwardData,
    /// The filter, from gradients in the outputs' place.
    BackwardFilter,
}

/// One convolution of images. The filter is not flipped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Convolution {
    /// What is made.
    pub op: ConvolutionOp,
    /// The dtype of all three tensors: `Float32`, `Float64`, `Half` or `BFloat16`; the latter two are summed in `Float32`.
    pub dtype: DType,
    /// Whether images and outputs lie as [batch, rows, columns, channels] and the filter as [output channels, rows, columns,
    /// input channels]; else as [batch, channels, rows, columns] and [output channels, input channels, rows, columns].
    pub channels_last: bool,
    /// Batch, rows, columns and channels of the images.
    pub images: [i32; 4],
    /// Rows and columns of the filter.
    pub taps: [i32; 2],
    /// Rows, columns and channels of the outputs.
    pub outputs: [i32; 3],
    /// Pixels of zeros before and behind rows and columns.
    pub padding: [i32; 2],
    /// Pixels from one window to the next.
    pub strides: [i32; 2],
    /// Pixels from one tap of the filter to the next.
    pub dilations: [i32; 2],
}

impl Convolution {
    /// Elements of images, filter and outputs.
    pub fn elements(&self) -> [u64; 3] {
        let count = |sizes: &[i32]| sizes.iter().map(|&size| size.max(0) as u64).product::<u64>();
        let [batch, .., channels] = self.images;
        let [.., filters] = self.outputs;
        [
            count(&self.images),
            count(&self.taps) * count(&[channels, filters]),
            count(&[batch]) * count(&self.outputs),
        ]
    }

    /// The floating-point operations that a sum over all taps takes; transforms take fewer.
    pub fn flops(&self) -> u64 {
        let [_, filter, outputs] = self.elements();
        2 * outputs * (filter / self.outputs[2].max(1) as u64)
    }

    /// Bytes of the three tensors.
    pub fn bytes(&self) -> u64 {
        self.elements().iter().sum::<u64>() * self.dtype.size().unwrap_or(0) as u64
    }

    /// Which of images, filter and outputs is made.
    pub fn result(&self) -> usize {
        match self.op {
            ConvolutionOp::Forward => 2,
            ConvolutionOp::BackwardData => 0,
            ConvolutionOp::BackwardFilter => 1,
        }
    }
}

impl fmt::Display for Convolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.channels_last { "NHWC" } else { "NCHW" };
        write!(
            f,
            "{:?} {} {order} images {:?} filter {:?} outputs {:?} padding {:?} strides {:?} dilations {:?}",
            self.op, self.dtype, self.images, self.taps, self.outputs, self.padding, self.strides, self.dilations
        )
    }
}

/// An algorithm of a library for one convolution.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Algorithm {
    /// Its number in the library.
    pub number: i32,
    /// The kind of arithmetic, as the library numbers it.
    pub math: i32,
    /// Bytes that it works in.
    pub workspace: usize,
}

/// A device's library of convolutions.
///
/// # Safety
/// That of [`Driver`](crate::driver::Driver).
pub unsafe trait Convolutions {
    /// Its name and version.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be used after all, `FailedPrecondition` if it is too old.
    fn identity(&self) -> Result<String>;

    /// The algorithms by which it can do a convolution with at most `workspace` bytes of memory to work in, which give the same
    /// bits each time; what it thinks fastest is first.
    ///
    /// # Errors
    /// Those of [`Convolutions::identity`], and the library's.
    fn algorithms(&self, convolution: &Convolution, workspace: usize) -> Result<Vec<Algorithm>>;

    /// Does a convolution by one of its algorithms. One of the three tensors, as its op says, becomes the result.
    ///
    /// # Errors
    /// Those of [`Convolutions::identity`], and the library's.
    ///
    /// # Safety
    /// That of the trait; the tensors lie as [`Convolution`] says, and the workspace is as large as the algorithm says.
    unsafe fn convolve(
        &self,
        convolution: &Convolution,
        algorithm: Algorithm,
        tensors: [u64; 3],
        workspace: u64,
    ) -> Result<()>;
}
