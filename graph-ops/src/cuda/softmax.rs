//! Softmax over the last axis, and cross entropies (`softmax.cu`).

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Result};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::window::{joined_source, small};
use super::{blocks, type_name};

const SOURCE: Source = joined_source!("softmax.cu": "softmax.cu");

/// Threads of a block.
const THREADS: usize = 256;

/// Distances from row to row and from class to class; 0 where an operand is repeated.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    logits: [i64; 2],
    labels: [i64; 2],
}

impl Steps {
    /// Of logits and labels of these shapes, which broadcast to `[rows, classes]`.
    pub(crate) fn new(logits: &[usize], labels: &[usize]) -> Self {
        let of = |shape: &[usize]| {
            let classes = shape.last().copied().unwrap_or(1);
            let rows = if shape.len() > 1 { shape[0] } else { 1 };
            [if rows > 1 { classes as i64 } else { 0 }, i64::from(classes > 1)]
        };
        Self {
            logits: of(logits),
            labels: of(labels),
        }
    }
}

/// A kernel over rows that is ready to be given to the device.
pub(crate) struct Rows {
    function: Function,
    rows: usize,
    classes: i32,
    blocks: [u32; 3],
}

impl Rows {
    /// The kernel of this name, over rows of so many classes; `labels` is the dtype of sparse labels.
    ///
    /// # Errors
    /// `Unimplemented` for dtypes that kernels do not calculate with, and for too many classes.
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        name: &str,
        dtype: DType,
        labels: Option<DType>,
        rows: usize,
        classes: usize,
    ) -> Result<Self> {
        let team: usize = if classes <= 1024 { 32 } else { THREADS };
        let shared = team.to_string();
        let mut defines = vec![("T", type_name(dtype)?), ("TEAM", shared.as_str())];
        if let Some(labels) = labels {
            defines.push(("I", type_name(labels)?));
        }
        let function = Cuda::of(request)?.function(&SOURCE, name, &defines)?;
        Ok(Self {
            // Of each element: the greatest, the difference from it, its power, the sum, the quotient.
            function: function.doing(5 * rows * classes),
            rows,
            classes: small(classes)?,
            blocks: blocks(rows.div_ceil(THREADS / team)),
        })
    }

    /// `softmax` or `log_softmax`.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The kernel is one of these, and all are of the dtype and the sizes that [`Rows::new`] was told of. So is it for the other
    /// functions here.
    pub(crate) unsafe fn softmax(&self, logits: DeviceAddress, out: DeviceAddress) -> Result<()> {
        if self.classes == 0 {
            return Ok(());
        }
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe { self.launch(arguments![out, logits, self.rows as i64, self.classes]) }
    }

    /// `cross_entropy`: of logits and labels to losses and gradients.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// That of [`Rows::softmax`]; `steps` are the operands'.
    pub(crate) unsafe fn cross_entropy(
        &self,
        [logits, labels]: [DeviceAddress; 2],
        steps: Steps,
        [loss, backprop]: [DeviceAddress; 2],
    ) -> Result<()> {
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.launch(arguments![
                loss,
                backprop,
                logits,
                labels,
                self.rows as i64,
                self.classes,
                steps
            ])
        }
    }

    /// `sparse_cross_entropy`: the same with one class a row.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// That of [`Rows::softmax`].
    pub(crate) unsafe fn sparse_cross_entropy(
        &self,
        [logits, labels]: [DeviceAddress; 2],
        [loss, backprop]: [DeviceAddress; 2],
    ) -> Result<()> {
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.launch(arguments![
                loss,
                backprop,
                logits,
                labels,
                self.rows as i64,
                self.classes
            ])
        }
    }

    /// # Safety
    /// The arguments are the kernel's.
    unsafe fn launch(&self, arguments: &[graph_cuda::driver::Argument<'_>]) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.function.launch(self.blocks, [THREADS as u32, 1, 1], arguments) }
    }
}
