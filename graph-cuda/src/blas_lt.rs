//! Products of matrices with what follows them, by cuBLASLt.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use graph_core::{DType, Error, Result};
use rustc_hash::FxHashMap;

use crate::driver::{Epilogue, Product};
use crate::library::{self, functions};

const TITLE: &str = "cuBLASLt";

/// `cudaDataType_t`, `cublasComputeType_t`.
const R_32F: c_int = 0;
const R_16F: c_int = 2;
const R_16BF: c_int = 14;
const COMPUTE_32F: c_int = 68;
const COMPUTE_32F_FAST_TF32: c_int = 77;

/// `cublasLtMatmulDescAttributes_t`, `cublasLtEpilogue_t`, `cublasLtMatmulPreferenceAttributes_t`.
const TRANSPOSE_A: c_int = 3;
const TRANSPOSE_B: c_int = 4;
const EPILOGUE: c_int = 7;
const BIAS_POINTER: c_int = 8;
const BIAS: u32 = 4;
const RELU_BIAS: u32 = 6;
const MAX_WORKSPACE_BYTES: c_int = 1;
const MIN_ALIGNMENT: [c_int; 4] = [5, 6, 7, 8];

/// What tensors are aligned to at least, in bytes.
static ALIGNMENT: u32 = 16;

type Object = *mut c_void;
type Pointer = *const c_void;

/// `cublasLtMatmulAlgo_t`
#[repr(C)]
#[derive(Clone, Copy)]
struct Algorithm([u64; 8]);

/// `cublasLtMatmulHeuristicResult_t`
#[repr(C)]
struct Heuristic {
    algorithm: Algorithm,
    workspace: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

functions! {
    "cuBLASLt":
    struct Functions {
        create = "cublasLtCreate"(*mut Object);
        destroy = "cublasLtDestroy"(Object);
        create_product = "cublasLtMatmulDescCreate"(*mut Object, c_int, c_int);
        set_product = "cublasLtMatmulDescSetAttribute"(Object, c_int, Pointer, usize);
        destroy_product = "cublasLtMatmulDescDestroy"(Object);
        create_layout = "cublasLtMatrixLayoutCreate"(*mut Object, c_int, u64, u64, i64);
        destroy_layout = "cublasLtMatrixLayoutDestroy"(Object);
        create_preference = "cublasLtMatmulPreferenceCreate"(*mut Object);
        set_preference = "cublasLtMatmulPreferenceSetAttribute"(Object, c_int, Pointer, usize);
        destroy_preference = "cublasLtMatmulPreferenceDestroy"(Object);
        heuristic = "cublasLtMatmulAlgoGetHeuristic"(
            Object, Object, Object, Object, Object, Object, Object, c_int, *mut Heuristic, *mut c_int
        );
        multiply = "cublasLtMatmul"(
            Object, Object, Pointer, Pointer, Object, Pointer, Object, Pointer, Pointer, Object, Object, Object,
            *const Algorithm, Object, usize, Object
        );
    }
}

/// What the library knows of one product; none of these is made where it cannot do it.
struct Planned {
    product: Object,
    /// Of the library's A, B and result.
    layouts: [Object; 3],
    algorithm: Option<(Algorithm, usize)>,
}

/// The library with its handle.
pub(crate) struct BlasLt {
    functions: Functions,
    handle: Object,
    tf32: bool,
    /// By the product and whether `Relu` follows.
    known: FxHashMap<(Key, bool), Planned>,
}

/// The dtype of a product, its rows, columns and terms, and which operands lie transposed.
type Key = (DType, [usize; 3], [bool; 2]);

/// The library's number of a dtype that it multiplies here, sums in `float`; a bias is of the same.
fn data_type(dtype: DType) -> Option<c_int> {
    match dtype {
        DType::Float32 => Some(R_32F),
        DType::Half => Some(R_16F),
        DType::BFloat16 => Some(R_16BF),
        _ => None,
    }
}

// SAFETY: its objects may be used from any thread, one at a time, which a lock sees to.
unsafe impl Send for BlasLt {}

impl BlasLt {
    /// # Errors
    /// `Unavailable` if the library is not there, `FailedPrecondition` if it is too old, and its own.
    pub(crate) fn open(tf32: bool) -> Result<Self> {
        let names = ["libcublasLt.so", "libcublasLt.so.13", "libcublasLt.so.12"];
        let functions = Functions::load(library::load(TITLE, "GRAPH_CUBLASLT", &names)?)?;
        let mut handle = null_mut();
        // SAFETY: the address is valid.
        check("opening the device", unsafe { (functions.create)(&mut handle) })?;
        Ok(Self {
            functions,
            handle,
            tf32,
            known: FxHashMap::default(),
        })
    }

    /// See [`Driver::multiply_with`](crate::driver::Driver::multiply_with).
    ///
    /// # Safety
    /// As there; the workspace is of as many bytes, and its own as long as work of the stream uses it.
    pub(crate) unsafe fn multiply(
        &mut self,
        product: &Product,
        epilogue: Epilogue,
        [a, b, c]: [u64; 3],
        (workspace, workspace_bytes): (u64, usize),
        stream: Object,
    ) -> Result<bool> {
        let Some(data_type) = data_type(product.dtype) else {
            return Ok(false);
        };
        if product.batch != 1 || product.accumulate || product.inner == 0 {
            return Ok(false);
        }
        let (
            Product {
                rows, columns, inner, ..
            },
            handle,
        ) = (product, self.handle);
        let transposed = [product.transpose_a, product.transpose_b];
        let key = ((product.dtype, [*rows, *columns, *inner], transposed), epilogue.relu);
        if !self.known.contains_key(&key) {
            let planned = self.plan((product, data_type), epilogue, workspace_bytes)?;
            self.known.insert(key, planned);
        }
        let Some(planned) = self.known.get(&key) else {
            return Ok(false);
        };
        let Some((algorithm, bytes)) = &planned.algorithm else {
            return Ok(false);
        };
        let f = &self.functions;
        let (one, zero) = (1f32, 0f32);
        let [left, right, result] = planned.layouts;
        // SAFETY: the objects live; the caller's promise is of the addresses. cuBLASLt takes matrices column by column: the
        // transposed product of the same memory.
        unsafe {
            let bias = epilogue.bias;
            let set = (f.set_product)(
                planned.product,
                BIAS_POINTER,
                (&raw const bias).cast(),
                size_of::<u64>(),
            );
            check("taking the bias", set)?;
            let given = (f.multiply)(
                handle,
                planned.product,
                (&raw const one).cast(),
                b as Pointer,
                left,
                a as Pointer,
                right,
                (&raw const zero).cast(),
                c as Pointer,
                result,
                c as Object,
                result,
                algorithm,
                workspace as Object,
                *bytes,
                stream,
            );
            check("multiplying", given)?;
        }
        Ok(true)
    }

    fn plan(&self, product: (&Product, c_int), epilogue: Epilogue, workspace: usize) -> Result<Planned> {
        let mut planned = Planned {
            product: null_mut(),
            layouts: [null_mut(); 3],
            algorithm: None,
        };
        match self.fill(&mut planned, product, epilogue, workspace) {
            Ok(algorithm) => {
                planned.algorithm = algorithm;
                Ok(planned)
            }
            Err(error) => {
                self.forget(&planned);
                Err(error)
            }
        }
    }

    fn fill(
        &self,
        planned: &mut Planned,
        (product, data_type): (&Product, c_int),
        epilogue: Epilogue,
        workspace: usize,
    ) -> Result<Option<(Algorithm, usize)>> {
        let f = &self.functions;
        let fast = self.tf32 && product.dtype == DType::Float32;
        let compute = if fast { COMPUTE_32F_FAST_TF32 } else { COMPUTE_32F };
        let (rows, columns, inner) = (product.rows as u64, product.columns as u64, product.inner as u64);
        let lying = |height: u64, width: u64, transposed: bool| {
            // Row by row, as it lies, and then column by column.
            let (height, width) = if transposed { (width, height) } else { (height, width) };
            (width, height, width as i64)
        };
        let sizes = [
            lying(inner, columns, product.transpose_b),
            lying(rows, inner, product.transpose_a),
            lying(rows, columns, false),
        ];
        let planning = |status| check("planning a product", status);
        // SAFETY: each object is made before it is used, and the addresses are of values of the sizes that are told.
        unsafe {
            planning((f.create_product)(&mut planned.product, compute, R_32F))?;
            let set = |attribute: c_int, value: u32| {
                let given = (f.set_product)(planned.product, attribute, (&raw const value).cast(), size_of::<u32>());
                planning(given)
            };
            set(TRANSPOSE_A, product.transpose_b.into())?;
            set(TRANSPOSE_B, product.transpose_a.into())?;
            set(EPILOGUE, if epilogue.relu { RELU_BIAS } else { BIAS })?;
            let bias = (&raw const epilogue.bias).cast();
            planning((f.set_product)(planned.product, BIAS_POINTER, bias, size_of::<u64>()))?;
            for (layout, (height, width, step)) in planned.layouts.iter_mut().zip(sizes) {
                planning((f.create_layout)(layout, data_type, height, width, step))?;
            }
            let mut preference = null_mut();
            planning((f.create_preference)(&mut preference))?;
            let [left, right, result] = planned.layouts;
            let mut found = Heuristic {
                algorithm: Algorithm([0; 8]),
                workspace: 0,
                state: 0,
                waves: 0.0,
                reserved: [0; 4],
            };
            let mut count: c_int = 0;
            let bytes = (&raw const workspace).cast();
            let mut told = (f.set_preference)(preference, MAX_WORKSPACE_BYTES, bytes, size_of::<usize>());
            for attribute in MIN_ALIGNMENT {
                let alignment = (&raw const ALIGNMENT).cast();
                told = told.max((f.set_preference)(preference, attribute, alignment, size_of::<u32>()));
            }
            let asked = (f.heuristic)(
                self.handle,
                planned.product,
                left,
                right,
                result,
                result,
                preference,
                1,
                &mut found,
                &mut count,
            );
            let _ = (f.destroy_preference)(preference);
            planning(told)?;
            // A product that it cannot do with this epilogue is done in two steps.
            let can = asked == 0 && count > 0 && found.state == 0 && found.workspace <= workspace;
            Ok(can.then_some((found.algorithm, found.workspace)))
        }
    }

    fn forget(&self, planned: &Planned) {
        let f = &self.functions;
        // SAFETY: nothing uses them any more; what was not made is null.
        unsafe {
            for layout in planned.layouts.into_iter().filter(|layout| !layout.is_null()) {
                let _ = (f.destroy_layout)(layout);
            }
            if !planned.product.is_null() {
                let _ = (f.destroy_product)(planned.product);
            }
        }
    }
}

impl Drop for BlasLt {
    fn drop(&mut self) {
        for (_, planned) in std::mem::take(&mut self.known) {
            self.forget(&planned);
        }
        // SAFETY: nothing uses it any more.
        let _ = unsafe { (self.functions.destroy)(self.handle) };
    }
}

fn check(doing: &str, status: c_int) -> Result<()> {
    match status {
        0 => Ok(()),
        3 => Err(Error::resource_exhausted(format!("cuBLASLt failed, {doing}"))),
        15 => Err(Error::unimplemented(format!("cuBLASLt failed, {doing}"))),
        status => Err(Error::internal(format!("cuBLASLt failed, {doing}")).got(format!("status {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_or_has_no_card_is_an_error() {
        let Err(error) = BlasLt::open(false) else {
            return println!("skipped: there is cuBLASLt, and a card that it takes");
        };
        assert!(
            ["Unavailable", "FailedPrecondition", "Internal"].contains(&error.class()),
            "{error}"
        );
        println!("{error}");
    }
}
