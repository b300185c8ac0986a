//! Convolutions of cuDNN 8 and 9, by the functions that both have.
//!
//! `cudarc` has all of cuDNN, but panics where the library or one of its functions is missing; of the library's some 250
//! functions 25 are called.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use graph_core::{DType, Error, Result};
use rustc_hash::FxHashMap;

use crate::convolution::{Algorithm, Convolution, ConvolutionOp};
use crate::library::{self, factor, functions};

const TITLE: &str = "cuDNN";

/// The oldest version: 8.0 is the first that can be kept from rounding operands to TensorFloat-32.
const OLDEST: usize = 8000;

/// `cudnnTensorFormat_t`, `cudnnConvolutionMode_t`, `cudnnDeterminism_t`, `cudnnMathType_t`.
const NCHW: c_int = 0;
const NHWC: c_int = 1;
const CROSS_CORRELATION: c_int = 1;
const DETERMINISTIC: c_int = 1;
const DEFAULT_MATH: c_int = 0;
const TENSOR_OP_MATH: c_int = 1;
const FMA_MATH: c_int = 3;

/// More than any of the three ops has.
const MOST_ALGORITHMS: usize = 16;

/// `cudnnConvolution...AlgoPerf_t`, the same for all three ops.
#[repr(C)]
#[derive(Clone, Copy)]
struct Performance {
    algorithm: c_int,
    status: c_int,
    time: f32,
    memory: usize,
    determinism: c_int,
    math: c_int,
    reserved: [c_int; 3],
}

/// A handle or descriptor of the library.
type Object = *mut c_void;
type Pointer = *const c_void;

functions! {
    "cuDNN":
    struct Functions {
        create = "cudnnCreate"(*mut Object);
        destroy = "cudnnDestroy"(Object);
        set_stream = "cudnnSetStream"(Object, Object);
        create_tensor = "cudnnCreateTensorDescriptor"(*mut Object);
        set_tensor = "cudnnSetTensor4dDescriptor"(Object, c_int, c_int, c_int, c_int, c_int, c_int);
        destroy_tensor = "cudnnDestroyTensorDescriptor"(Object);
        create_filter = "cudnnCreateFilterDescriptor"(*mut Object);
        set_filter = "cudnnSetFilter4dDescriptor"(Object, c_int, c_int, c_int, c_int, c_int, c_int);
        destroy_filter = "cudnnDestroyFilterDescriptor"(Object);
        create_convolution = "cudnnCreateConvolutionDescriptor"(*mut Object);
        set_convolution = "cudnnSetConvolution2dDescriptor"(
            Object, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_int
        );
        set_math = "cudnnSetConvolutionMathType"(Object, c_int);
        destroy_convolution = "cudnnDestroyConvolutionDescriptor"(Object);
        output_size = "cudnnGetConvolution2dForwardOutputDim"(
            Object, Object, Object, *mut c_int, *mut c_int, *mut c_int, *mut c_int
        );
        forward_algorithms = "cudnnGetConvolutionForwardAlgorithm_v7"(
            Object, Object, Object, Object, Object, c_int, *mut c_int, *mut Performance
        );
        backward_data_algorithms = "cudnnGetConvolutionBackwardDataAlgorithm_v7"(
            Object, Object, Object, Object, Object, c_int, *mut c_int, *mut Performance
        );
        backward_filter_algorithms = "cudnnGetConvolutionBackwardFilterAlgorithm_v7"(
            Object, Object, Object, Object, Object, c_int, *mut c_int, *mut Performance
        );
        forward_workspace = "cudnnGetConvolutionForwardWorkspaceSize"(
            Object, Object, Object, Object, Object, c_int, *mut usize
        );
        backward_data_workspace = "cudnnGetConvolutionBackwardDataWorkspaceSize"(
            Object, Object, Object, Object, Object, c_int, *mut usize
        );
        backward_filter_workspace = "cudnnGetConvolutionBackwardFilterWorkspaceSize"(
            Object, Object, Object, Object, Object, c_int, *mut usize
        );
        forward = "cudnnConvolutionForward"(
            Object, Pointer, Object, Pointer, Object, Pointer, Object, c_int, Object, usize, Pointer, Object, Object
        );
        backward_data = "cudnnConvolutionBackwardData"(
            Object, Pointer, Object, Pointer, Object, Pointer, Object, c_int, Object, usize, Pointer, Object, Object
        );
        backward_filter = "cudnnConvolutionBackwardFilter"(
            Object, Pointer, Object, Pointer, Object, Pointer, Object, c_int, Object, usize, Pointer, Object, Object
        );
    }
}

/// What the library says of a status.
type ErrorText = unsafe extern "C" fn(c_int) -> *const c_char;

/// What the library knows of one convolution.
#[derive(Clone, Copy)]
struct Descriptors {
    images: Object,
    filter: Object,
    outputs: Object,
    convolution: Object,
}

impl Descriptors {
    fn tensors(&self) -> [Object; 3] {
        [self.images, self.filter, self.outputs]
    }
}

/// Of images, filter and outputs, or what is of each, both operands of an op and then the result.
fn in_order<T>(op: ConvolutionOp, [images, filter, outputs]: [T; 3]) -> [T; 3] {
    match op {
        ConvolutionOp::Forward => [images, filter, outputs],
        ConvolutionOp::BackwardData => [filter, outputs, images],
        ConvolutionOp::BackwardFilter => [images, outputs, filter],
    }
}

/// The library with a handle for one stream.
pub(crate) struct Cudnn {
    functions: Functions,
    error_text: ErrorText,
    version: usize,
    handle: Object,
    /// Where its work goes.
    stream: Option<Object>,
    tf32: bool,
    known: FxHashMap<Convolution, Descriptors>,
}

// SAFETY: its objects may be used from any thread, one at a time, which a lock sees to.
unsafe impl Send for Cudnn {}

impl Cudnn {
    /// The library, for the context that is current.
    ///
    /// # Errors
    /// `Unavailable` if it is not there, `FailedPrecondition` if it is too old, and its own.
    pub(crate) fn open(tf32: bool) -> Result<Self> {
        let library = library::load(TITLE, "GRAPH_CUDNN", &["libcudnn.so.9", "libcudnn.so.8", "libcudnn.so"])?;
        // SAFETY: these are the functions' types.
        let (version, error_text) = unsafe {
            let version: unsafe extern "C" fn() -> usize = library::function(library, TITLE, "cudnnGetVersion")?;
            (version(), library::function(library, TITLE, "cudnnGetErrorString")?)
        };
        if version < OLDEST {
            return Err(Error::failed_precondition("cuDNN is too old")
                .expected("version 8.0 or newer")
                .got(version_text(version)));
        }
        let mut cudnn = Self {
            functions: Functions::load(library)?,
            error_text,
            version,
            handle: null_mut(),
            stream: None,
            tf32,
            known: FxHashMap::default(),
        };
        // SAFETY: the address is valid.
        let created = unsafe { (cudnn.functions.create)(&mut cudnn.handle) };
        cudnn.check("opening the device", created)?;
        Ok(cudnn)
    }

    /// From now on its work goes to this stream of the context.
    pub(crate) fn set_stream(&mut self, stream: Object) -> Result<()> {
        if self.stream != Some(stream) {
            self.stream = None;
            // SAFETY: the handle lives, and the stream as long.
            let set = unsafe { (self.functions.set_stream)(self.handle, stream) };
            self.check("taking the stream", set)?;
            self.stream = Some(stream);
        }
        Ok(())
    }

    /// Its name and version.
    pub(crate) fn identity(&self) -> String {
        format!("{TITLE} {}", version_text(self.version))
    }

    /// The error of a call while it was `doing` something, if it is one.
    fn check(&self, doing: &str, status: c_int) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the library has a text that ends with a zero byte for each status.
        let text = unsafe { CStr::from_ptr((self.error_text)(status)) };
        let text = text.to_string_lossy();
        // CUDNN_STATUS_ALLOC_FAILED of version 8; all of 9 that begin with 3 are "not supported".
        let error = match status {
            2 => Error::resource_exhausted(format!("cuDNN failed, {doing}")),
            9 | 3000..4000 => Error::unimplemented(format!("cuDNN failed, {doing}")),
            _ => Error::internal(format!("cuDNN failed, {doing}")),
        };
        Err(error.got(format!("status {status}, {text}")))
    }

    /// Descriptors of a convolution; `None` if the library does not have its like.
    fn describe(&mut self, c: &Convolution) -> Result<Option<&Descriptors>> {
        if !self.known.contains_key(c) {
            let Some(descriptors) = self.new_descriptors(c)? else {
                return Ok(None);
            };
            self.known.insert(*c, descriptors);
        }
        Ok(self.known.get(c))
    }

    fn new_descriptors(&self, c: &Convolution) -> Result<Option<Descriptors>> {
        // `cudnnDataType_t`, of elements and of sums.
        let (dtype, sums) = match c.dtype {
            DType::Float32 => (0, 0),
            DType::Float64 => (1, 1),
            DType::Half => (2, 0),
            DType::BFloat16 => (9, 0),
            _ => return Ok(None),
        };
        let format = if c.channels_last { NHWC } else { NCHW };
        let ([batch, rows, columns, channels], [out_rows, out_columns, filters]) = (c.images, c.outputs);
        let mut all = Descriptors {
            images: null_mut(),
            filter: null_mut(),
            outputs: null_mut(),
            convolution: null_mut(),
        };
        let f = &self.functions;
        let make = |all: &mut Descriptors| -> Result<bool> {
            let check = |status| self.check("describing a convolution", status);
            // SAFETY: each object is made before it is set, and the addresses are valid.
            unsafe {
                let tensor = |object: &mut Object, channels: c_int, rows: c_int, columns: c_int| {
                    check((f.create_tensor)(object))?;
                    check((f.set_tensor)(*object, format, dtype, batch, channels, rows, columns))
                };
                tensor(&mut all.images, channels, rows, columns)?;
                tensor(&mut all.outputs, filters, out_rows, out_columns)?;
                check((f.create_filter)(&mut all.filter))?;
                let ([down, across], filter) = (c.taps, all.filter);
                check((f.set_filter)(filter, dtype, format, filters, channels, down, across))?;
                check((f.create_convolution)(&mut all.convolution))?;
                let ([pad_rows, pad_columns], [down, right], [apart, aside]) = (c.padding, c.strides, c.dilations);
                check((f.set_convolution)(
                    all.convolution,
                    pad_rows,
                    pad_columns,
                    down,
                    right,
                    apart,
                    aside,
                    CROSS_CORRELATION,
                    sums,
                ))?;
                check((f.set_math)(all.convolution, self.math_of(c.dtype)))?;
                let mut sizes = [0; 4];
                let [n, k, h, w] = &mut sizes;
                check((f.output_size)(all.convolution, all.images, all.filter, n, k, h, w))?;
                Ok(sizes == [batch, filters, out_rows, out_columns])
            }
        };
        match make(&mut all) {
            Ok(true) => Ok(Some(all)),
            // It would slide over the images in another way.
            Ok(false) => {
                self.forget(&all);
                Ok(None)
            }
            Err(error) => {
                self.forget(&all);
                // As of a dilation or dtype that it does not know.
                if error.class() == "Unimplemented" {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
        }
    }

    /// The arithmetic that may be used.
    fn math_of(&self, dtype: DType) -> c_int {
        match dtype {
            DType::Half | DType::BFloat16 => TENSOR_OP_MATH,
            // The default may round operands to TensorFloat-32.
            DType::Float32 if !self.tf32 => FMA_MATH,
            _ => DEFAULT_MATH,
        }
    }

    fn forget(&self, all: &Descriptors) {
        let f = &self.functions;
        // SAFETY: nothing uses them any more; what was not made is null.
        unsafe {
            for tensor in [all.images, all.outputs].into_iter().filter(|tensor| !tensor.is_null()) {
                let _ = (f.destroy_tensor)(tensor);
            }
            if !all.filter.is_null() {
                let _ = (f.destroy_filter)(all.filter);
            }
            if !all.convolution.is_null() {
                let _ = (f.destroy_convolution)(all.convolution);
            }
        }
    }

    /// See [`Convolutions::algorithms`](crate::convolution::Convolutions::algorithms).
    pub(crate) fn algorithms(&mut self, c: &Convolution, most_workspace: usize) -> Result<Vec<Algorithm>> {
        let (handle, op) = (self.handle, c.op);
        let allowed = self.math_of(c.dtype);
        let Some(&all) = self.describe(c)? else {
            return Ok(Vec::new());
        };
        let ([a, b, d], convolution) = (in_order(op, all.tensors()), all.convolution);
        let f = &self.functions;
        let mut count: c_int = 0;
        let mut found = [Performance {
            algorithm: 0,
            status: 0,
            time: 0.0,
            memory: 0,
            determinism: 0,
            math: 0,
            reserved: [0; 3],
        }; MOST_ALGORITHMS];
        let (most, first) = (MOST_ALGORITHMS as c_int, found.as_mut_ptr());
        let ask = match op {
            ConvolutionOp::Forward => f.forward_algorithms,
            ConvolutionOp::BackwardData => f.backward_data_algorithms,
            ConvolutionOp::BackwardFilter => f.backward_filter_algorithms,
        };
        // SAFETY: the descriptors live, and there is room for as many as are asked for.
        let asked = unsafe { ask(handle, a, b, convolution, d, most, &mut count, first) };
        match self.check("asking for algorithms", asked) {
            Err(error) if error.class() == "Unimplemented" => return Ok(Vec::new()),
            asked => asked?,
        }
        let mut algorithms: Vec<Algorithm> = Vec::new();
        for one in &found[..(count.max(0) as usize).min(MOST_ALGORITHMS)] {
            // Where only multiplications and additions are allowed, tensor cores are not.
            let math = match (allowed, one.math) {
                (FMA_MATH, DEFAULT_MATH | FMA_MATH) => FMA_MATH,
                (FMA_MATH, _) => continue,
                (_, math) => math,
            };
            let known = |other: &Algorithm| (other.number, other.math) == (one.algorithm, math);
            if one.status != 0 || one.determinism != DETERMINISTIC || algorithms.iter().any(known) {
                continue;
            }
            let mut workspace = 0;
            let ask = match op {
                ConvolutionOp::Forward => f.forward_workspace,
                ConvolutionOp::BackwardData => f.backward_data_workspace,
                ConvolutionOp::BackwardFilter => f.backward_filter_workspace,
            };
            // SAFETY: the descriptors live, and the address is valid.
            let told = unsafe {
                (f.set_math)(convolution, math);
                ask(handle, a, b, convolution, d, one.algorithm, &mut workspace)
            };
            if told == 0 && workspace <= most_workspace {
                algorithms.push(Algorithm {
                    number: one.algorithm,
                    math,
                    workspace,
                });
            }
        }
        // SAFETY: the descriptor lives.
        let reset = unsafe { (f.set_math)(convolution, allowed) };
        self.check("setting the arithmetic", reset)?;
        Ok(algorithms)
    }

    /// See [`Convolutions::convolve`](crate::convolution::Convolutions::convolve).
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn run(
        &mut self,
        c: &Convolution,
        algorithm: Algorithm,
        tensors: [u64; 3],
        workspace: u64,
    ) -> Result<()> {
        let handle = self.handle;
        let Some(&all) = self.describe(c)? else {
            return Err(Error::unimplemented("cuDNN has no such convolution").got(c));
        };
        let convolution = all.convolution;
        let f = &self.functions;
        let (alpha, beta) = (factor(c.dtype, 1.0), factor(c.dtype, 0.0));
        let (alpha, beta): (Pointer, Pointer) = ((&raw const alpha).cast(), (&raw const beta).cast());
        let run = match c.op {
            ConvolutionOp::Forward => f.forward,
            ConvolutionOp::BackwardData => f.backward_data,
            ConvolutionOp::BackwardFilter => f.backward_filter,
        };
        let ([a, b, d], [a_at, b_at, d_at]) = (in_order(c.op, all.tensors()), in_order(c.op, tensors));
        // SAFETY: the descriptors live; the caller's promise is of the addresses.
        let status = unsafe {
            let set = (f.set_math)(convolution, algorithm.math);
            if set != 0 {
                set
            } else {
                run(
                    handle,
                    alpha,
                    a,
                    a_at as Pointer,
                    b,
                    b_at as Pointer,
                    convolution,
                    algorithm.number,
                    workspace as Object,
                    algorithm.workspace,
                    beta,
                    d,
                    d_at as Object,
                )
            }
        };
        self.check("convolving", status)
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        for (_, descriptors) in std::mem::take(&mut self.known) {
            self.forget(&descriptors);
        }
        if !self.handle.is_null() {
            // SAFETY: nothing uses it any more.
            let _ = unsafe { (self.functions.destroy)(self.handle) };
        }
    }
}

/// The number of a version, which has had two forms, as people write it.
fn version_text(version: usize) -> String {
    let thousand = if version >= 90_000 { 10_000 } else { 1000 };
    format!("{}.{}.{}", version / thousand, version % thousand / 100, version % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_written_as_people_write_them() {
        assert_eq!(version_text(8902), "8.9.2");
        assert_eq!(version_text(91_002), "9.10.2");
    }

    #[test]
    fn a_library_that_is_not_there_or_has_no_card_is_an_error() {
        let Err(error) = Cudnn::open(false) else {
            return println!("skipped: there is cuDNN, and a card that it takes");
        };
        assert!(
            ["Unavailable", "FailedPrecondition", "Internal"].contains(&error.class()),
            "{error}"
        );
        println!("{error}");
    }
}
