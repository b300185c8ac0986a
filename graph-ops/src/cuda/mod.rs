//! What CUDA kernels share, as [`cpu`](crate::cpu) does for the CPU: names of types in CUDA C, and kernels that many ops are.
//!
//! An op's CUDA kernel stands in its file, beside its CPU kernel. Kernels only give work to the device; what they read on the
//! host (attributes, shapes, plan-time inputs) they read when they are made. Only those that are data-dependent wait for the
//! device, for the few numbers that tell the shapes of their results (`counts.rs`).

pub(crate) mod batch_norm;
pub(crate) mod cast;
pub(crate) mod chain;
pub(crate) mod channels;
pub(crate) mod convolution;
pub(crate) mod convolution_library;
pub(crate) mod copy;
pub(crate) mod counts;
pub(crate) mod depthwise;
pub(crate) mod elementwise;
pub(crate) mod fill;
pub(crate) mod launch;
pub(crate) mod members;
pub(crate) mod philox;
pub(crate) mod pooled_convolution;
pub(crate) mod pooling;
pub(crate) mod reduce;
pub(crate) mod row_order;
pub(crate) mod scatter;
pub(crate) mod softmax;
pub(crate) mod window;

use graph_core::accelerator::DeviceAddress;
use graph_core::{DType, Error, Result};

/// The floating-point dtypes.
pub(crate) const FLOATS: &[DType] = &[DType::Float32, DType::Float64, DType::Half, DType::BFloat16];

/// The floating-point dtypes and the integers that training graphs calculate with on a device.
pub(crate) const NUMBERS: &[DType] = &[
    DType::Float32,
    DType::Float64,
    DType::Half,
    DType::BFloat16,
    DType::Int32,
    DType::Int64,
];

/// All dtypes whose elements have a name in CUDA C.
pub(crate) const NAMED: &[DType] = &[
    DType::Float32,
    DType::Float64,
    DType::Half,
    DType::BFloat16,
    DType::Int8,
    DType::Int16,
    DType::Int32,
    DType::Int64,
    DType::UInt8,
    DType::UInt16,
    DType::UInt32,
    DType::UInt64,
    DType::Bool,
];

/// All dtypes whose elements have a size, which is all that moving them takes.
pub(crate) const SIZED: &[DType] = &[
    DType::Float32,
    DType::Float64,
    DType::Half,
    DType::BFloat16,
    DType::Int8,
    DType::Int16,
    DType::Int32,
    DType::Int64,
    DType::UInt8,
    DType::UInt16,
    DType::UInt32,
    DType::UInt64,
    DType::Bool,
    DType::Complex64,
    DType::Complex128,
];

/// The name of a dtype's elements in kernel sources.
///
/// # Errors
/// `Unimplemented` for dtypes that kernels do not calculate with.
pub(crate) fn type_name(dtype: DType) -> Result<&'static str> {
    Ok(match dtype {
        DType::Float32 => "float",
        DType::Float64 => "double",
        DType::Half => "f16",
        DType::BFloat16 => "bf16",
        DType::Int8 => "i8",
        DType::Int16 => "i16",
        DType::Int32 => "i32",
        DType::Int64 => "i64",
        DType::UInt8 => "u8",
        DType::UInt16 => "u16",
        DType::UInt32 => "u32",
        DType::UInt64 => "u64",
        DType::Bool => "bool",
        _ => {
            return Err(Error::unimplemented(format!(
                "no kernel of the device calculates with {dtype}"
            )));
        }
    })
}

/// The name of the word that an element of `bytes` bytes is moved as.
///
/// # Errors
/// `Unimplemented` for other sizes than words have.
pub(crate) fn word_name(bytes: usize) -> Result<&'static str> {
    Ok(match bytes {
        1 => "u8",
        2 => "u16",
        4 => "u32",
        8 => "u64",
        16 => "u128",
        _ => return Err(Error::unimplemented(format!("no element has {bytes} bytes"))),
    })
}

/// The size of a dtype's elements, and the name of the word that they are moved as.
///
/// # Errors
/// `Unimplemented` for dtypes whose elements have no size.
pub(crate) fn word_of(dtype: DType) -> Result<(usize, &'static str)> {
    let bytes = dtype.size().unwrap_or(0);
    Ok((bytes, word_name(bytes)?))
}

/// The address of nothing.
pub(crate) const NOWHERE: DeviceAddress = DeviceAddress(0);

/// The blocks of a one-dimensional grid: `wanted`, but no more than a loop over them pays for.
pub(crate) fn blocks(wanted: usize) -> [u32; 3] {
    [wanted.clamp(1, 1 << 16) as u32, 1, 1]
}
