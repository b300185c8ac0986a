//! A library of convolutions on the host, in the place of cuDNN: its layouts, its algorithms with workspaces, its refusals.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use graph_core::{DType, Error, Result};

use super::Host;
use super::work::Work;
use crate::convolution::{Algorithm, Convolution, ConvolutionOp, Convolutions};

/// One of the library's algorithms. All sum in `f64`, in the same order.
#[derive(Clone, Copy, Debug)]
pub struct EmulatedAlgorithm {
    /// What the library calls it.
    pub algorithm: Algorithm,
    /// How long it takes beside its sums, by the device's clock.
    pub delay: Duration,
    /// Whether it is offered, but fails when it is used.
    pub fails: bool,
    /// Whether it can be used, but is not offered.
    pub hidden: bool,
}

/// A library of convolutions for an emulated device.
#[derive(Clone, Debug)]
pub struct ConvolutionLibrary {
    /// Its name and version, or why it cannot be used.
    pub version: std::result::Result<String, String>,
    /// What it offers for every convolution, its favourite first.
    pub algorithms: Vec<EmulatedAlgorithm>,
    /// How many convolutions were done or tried.
    pub runs: Arc<AtomicUsize>,
}

impl ConvolutionLibrary {
    /// A library of this version whose algorithms have these numbers and delays, and no workspaces.
    pub fn new(version: &str, algorithms: &[(i32, Duration)]) -> Self {
        let algorithm = |&(number, delay): &(i32, Duration)| EmulatedAlgorithm {
            algorithm: Algorithm {
                number,
                math: 0,
                workspace: 0,
            },
            delay,
            fails: false,
            hidden: false,
        };
        Self {
            version: Ok(version.to_owned()),
            algorithms: algorithms.iter().map(algorithm).collect(),
            runs: Arc::default(),
        }
    }

    fn identity(&self) -> Result<String> {
        self.version
            .clone()
            .map_err(|reason| Error::unavailable(reason).hint("this library is emulated"))
    }

    fn find(&self, algorithm: Algorithm) -> Result<&EmulatedAlgorithm> {
        let mut known = self.algorithms.iter();
        known.find(|one| one.algorithm == algorithm).ok_or_else(|| {
            Error::invalid_argument("the emulated library has no such algorithm").got(format!("{algorithm:?}"))
        })
    }

    /// # Safety
    /// That of [`Convolutions::convolve`].
    pub(super) unsafe fn run(&self, c: &Convolution, one: &EmulatedAlgorithm, tensors: [u64; 3], workspace: u64) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        // Whoever thinks this memory theirs shall see it.
        // SAFETY: the workspace has as many bytes.
        unsafe { std::ptr::write_bytes(workspace as *mut u8, 0xab, one.algorithm.workspace) };
        match c.dtype {
            // SAFETY: the caller's promise, here and below.
            DType::Float32 => unsafe { convolve::<f32>(c, tensors, f64::from, |sum| sum as f32) },
            // SAFETY: as above.
            DType::Float64 => unsafe { convolve::<f64>(c, tensors, |x| x, |sum| sum) },
            // SAFETY: as above.
            DType::Half => unsafe {
                convolve::<half::f16>(c, tensors, f64::from, |sum| half::f16::from_f32(sum as f32))
            },
            // SAFETY: as above.
            _ => unsafe { convolve::<half::bf16>(c, tensors, f64::from, |sum| half::bf16::from_f32(sum as f32)) },
        }
    }
}

// SAFETY: addresses are the host's own; the conditions are handed on.
unsafe impl Convolutions for Host {
    fn identity(&self) -> Result<String> {
        self.library()?.identity()
    }

    fn algorithms(&self, _: &Convolution, workspace: usize) -> Result<Vec<Algorithm>> {
        let library = self.library()?;
        library.identity()?;
        let offered = library.algorithms.iter().filter(|one| !one.hidden);
        let offered = offered.map(|one| one.algorithm);
        Ok(offered.filter(|one| one.workspace <= workspace).collect())
    }

    unsafe fn convolve(
        &self,
        convolution: &Convolution,
        algorithm: Algorithm,
        tensors: [u64; 3],
        workspace: u64,
    ) -> Result<()> {
        let library = self.library()?;
        let one = *library.find(algorithm)?;
        if one.fails {
            library.runs.fetch_add(1, Ordering::Relaxed);
            return Err(Error::internal("the emulated library's algorithm fails").got(algorithm.number));
        }
        let work = Work::Convolve {
            library: library.clone(),
            convolution: *convolution,
            algorithm: one,
            tensors,
            workspace,
        };
        // SAFETY: the caller's promise.
        unsafe { self.give(work) }
    }
}

/// The place of an element in a tensor of four axes: the first, rows, columns, channels.
fn place(
    channels_last: bool,
    [_, rows, columns, channels]: [usize; 4],
    [n, row, column, channel]: [usize; 4],
) -> usize {
    match channels_last {
        true => ((n * rows + row) * columns + column) * channels + channel,
        false => ((n * channels + channel) * rows + row) * columns + column,
    }
}

/// # Safety
/// The tensors lie at these addresses, as the convolution says.
unsafe fn convolve<T: Copy>(c: &Convolution, tensors: [u64; 3], wide: fn(T) -> f64, narrow: fn(f64) -> T) {
    let size = |size: i32| size as usize;
    let images = c.images.map(size);
    let [out_rows, out_columns, filters] = c.outputs.map(size);
    let (outputs, filter) = (
        [images[0], out_rows, out_columns, filters],
        [filters, size(c.taps[0]), size(c.taps[1]), images[3]],
    );
    let counts = c.elements().map(|count| count as usize);
    // SAFETY: the caller's promise.
    let read = |which: usize| unsafe { std::slice::from_raw_parts(tensors[which] as *const T, counts[which]) };
    let result = c.result();
    let mut sums = vec![0.0; counts[result]];
    let last = c.channels_last;
    for n in 0..images[0] {
        for (out_row, out_column) in (0..out_rows).flat_map(|row| (0..out_columns).map(move |column| (row, column))) {
            for (tap_row, tap_column) in (0..filter[1]).flat_map(|row| (0..filter[2]).map(move |column| (row, column)))
            {
                let at = |out: usize, tap: usize, axis: usize| {
                    (out as i32) * c.strides[axis] - c.padding[axis] + (tap as i32) * c.dilations[axis]
                };
                let (row, column) = (at(out_row, tap_row, 0), at(out_column, tap_column, 1));
                if !(0..c.images[1]).contains(&row) || !(0..c.images[2]).contains(&column) {
                    continue;
                }
                for (k, channel) in (0..filters).flat_map(|k| (0..images[3]).map(move |channel| (k, channel))) {
                    let x = place(last, images, [n, size(row), size(column), channel]);
                    let w = place(last, filter, [k, tap_row, tap_column, channel]);
                    let y = place(last, outputs, [n, out_row, out_column, k]);
                    match c.op {
                        ConvolutionOp::Forward => sums[y] += wide(read(0)[x]) * wide(read(1)[w]),
                        ConvolutionOp::BackwardData => sums[x] += wide(read(1)[w]) * wide(read(2)[y]),
                        ConvolutionOp::BackwardFilter => sums[w] += wide(read(0)[x]) * wide(read(2)[y]),
                    }
                }
            }
        }
    }
    for (at, sum) in sums.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { *(tensors[result] as *mut T).add(at) = narrow(sum) };
    }
}
