//! V2 checkpoints (tensor bundles): named tensors in `P.data-00000-of-00001`, indexed by `P.index`.
//!
//! The data file holds raw little-endian tensors back to back; the index is a [`table`] from names to
//! [`BundleEntryProto`]s, with a [`BundleHeaderProto`] under the empty name. A checkpoint is called by its prefix `P`.
//!
//! ```
//! use graph_core::format::checkpoint::{BundleReader, BundleWriter};
//! use graph_core::format::proto::DataType;
//! # let dir = tempfile::tempdir().unwrap();
//! # let prefix = dir.path().join("model.ckpt-100");
//!
//! let mut writer = BundleWriter::create(&prefix)?;
//! writer.add("bias", DataType::DtFloat, &[2], &[0, 0, 128, 63, 0, 0, 0, 64])?;
//! writer.finish()?;
//!
//! let bias = BundleReader::open(&prefix)?.read("bias")?;
//! assert_eq!((bias.dtype, bias.shape, bias.bytes[2..4].to_vec()), (DataType::DtFloat, vec![2], vec![128, 63]));
//! # Ok::<(), graph_core::error::Error>(())
//! ```

mod files;
mod merge;
mod reader;
mod slice;
mod values;
mod writer;

use std::fs;
use std::path::Path;

use super::proto::{CheckpointState, DataType};
use super::text;
use crate::error::{Error, Result};
pub(super) use files::write_file;
pub use files::{exists, meta_graph_path, modified, remove, remove_leftovers, temporary_path};
pub use merge::merge;
pub use reader::{BundleReader, BundleTensor};
pub use slice::TensorSlice;
pub use writer::BundleWriter;

/// The version of the format that is written, and the newest that is read.
const VERSION: i32 = 1;

/// Bytes of one element; `None` for what has no fixed size (strings, resources, variants) and for references.
pub fn element_size(dtype: DataType) -> Option<usize> {
    use DataType::*;
    match dtype {
        DtBool | DtInt8 | DtUint8 | DtQint8 | DtQuint8 => Some(1),
        DtInt16 | DtUint16 | DtHalf | DtBfloat16 | DtQint16 | DtQuint16 => Some(2),
        DtFloat | DtInt32 | DtUint32 | DtQint32 => Some(4),
        DtDouble | DtInt64 | DtUint64 | DtComplex64 => Some(8),
        DtComplex128 => Some(16),
        _ => None,
    }
}

/// The number of elements, unless a dimension is negative or the product too large.
fn element_count(shape: &[i64]) -> Option<u64> {
    shape
        .iter()
        .try_fold(1u64, |count, &size| count.checked_mul(u64::try_from(size).ok()?))
}

/// The checksum of string lengths runs over each as 4 bytes, or 8 where they do not do.
fn lengths_crc(lengths: impl Iterator<Item = u64>) -> u32 {
    lengths.fold(0, |crc, length| match u32::try_from(length) {
        Ok(length) => crc32c::crc32c_append(crc, &length.to_le_bytes()),
        Err(_) => crc32c::crc32c_append(crc, &length.to_le_bytes()),
    })
}

/// Reads a `checkpoint` file: which checkpoints a folder holds.
///
/// Errors: `NotFound`, or `InvalidArgument` with the line at fault.
pub fn read_state(path: impl AsRef<Path>) -> Result<CheckpointState> {
    let path = path.as_ref();
    let text = fs::read(path).map_err(|e| Error::io(path, e))?;
    text::from_text(&String::from_utf8_lossy(&text))
}

/// Writes a `checkpoint` file; a reader sees the old one or the new one.
pub fn write_state(path: impl AsRef<Path>, state: &CheckpointState) -> Result<()> {
    write_file(path.as_ref(), text::to_text(state)?.as_bytes())
}

#[cfg(test)]
mod tests;
