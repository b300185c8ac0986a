//! Writes checkpoints.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

use super::files::{NewFile, data_path, index_path, remove_file, shards_beside_old, sync_folder_of, write_file};
use super::reader::BundleReader;
use super::{VERSION, element_count, element_size, lengths_crc};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::checksum::mask;
use crate::format::proto::bundle_header_proto::Endianness;
use crate::format::proto::tensor_shape_proto::Dim;
use crate::format::proto::{
    BundleEntryProto, BundleHeaderProto, DataType, TensorShapeProto, TensorSliceProto, VersionDef,
};
use crate::format::table::{self, write_varint};
use crate::shape::Shape;

/// Writes a checkpoint. Nothing is seen under its names before [`finish`](Self::finish).
///
/// Tensors lie in the data file in the order of the calls; TensorFlow's saver adds them by name.
pub struct BundleWriter {
    prefix: PathBuf,
    data: NewFile,
    offset: u64,
    /// By name, or by the key of a slice.
    entries: BTreeMap<Vec<u8>, BundleEntryProto>,
    failed: bool,
    /// The index of the checkpoint that this one extends, to be removed.
    _extended: Option<RemovedFile>,
}

/// A file that goes with its writer, however that ends.
struct RemovedFile(PathBuf);

impl Drop for RemovedFile {
    fn drop(&mut self) {
        let _ = remove_file(&self.0);
    }
}

impl BundleWriter {
    /// Starts a checkpoint; its folder is created where it is missing.
    pub fn create(prefix: impl AsRef<Path>) -> Result<Self> {
        let prefix = prefix.as_ref().to_path_buf();
        if let Some(folder) = prefix.parent() {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        Ok(BundleWriter {
            data: NewFile::create(&data_path(&prefix, 0, 1))?,
            prefix,
            offset: 0,
            entries: BTreeMap::new(),
            failed: false,
            _extended: None,
        })
    }

    /// Starts a checkpoint `prefix` with all that the checkpoint `other` holds, whose files it takes over: `other` is gone
    /// whether this one is finished or not.
    ///
    /// # Errors
    /// Those of [`BundleReader::open`], and `InvalidArgument` where `other` has several shards or slices.
    pub fn extend(other: impl AsRef<Path>, prefix: impl AsRef<Path>) -> Result<Self> {
        let (other, prefix) = (other.as_ref(), prefix.as_ref().to_path_buf());
        let reader = BundleReader::open(other)?;
        if reader.shards() != 1 || !reader.slices().is_empty() {
            return Err(Error::invalid_argument(format!(
                "checkpoint {} has several parts, and only one of a single data file can be extended",
                other.display()
            )));
        }
        let named = reader.into_entries().into_iter();
        let path = data_path(other, 0, 1);
        let offset = fs::metadata(&path).map_err(|error| Error::io(&path, error))?.len();
        Ok(BundleWriter {
            data: NewFile::append(path)?,
            prefix,
            offset,
            entries: named.map(|(name, entry)| (name.into_bytes(), entry)).collect(),
            failed: false,
            _extended: Some(RemovedFile(index_path(other))),
        })
    }

    /// Adds a tensor of numbers from its little-endian bytes.
    ///
    /// Errors: `InvalidArgument` for an empty or repeated name, a dtype without a fixed size, or bytes that do not fit
    /// the shape.
    pub fn add(&mut self, name: &str, dtype: DataType, shape: &[i64], bytes: &[u8]) -> Result<()> {
        self.add_under(name.as_bytes(), dtype, shape, bytes)
    }

    pub(super) fn add_under(&mut self, name: &[u8], dtype: DataType, shape: &[i64], bytes: &[u8]) -> Result<()> {
        let expected = element_size(dtype)
            .ok_or_else(|| self.refuse(name, format!("{} has no raw bytes", dtype.as_str_name())))
            .map(|size| element_count(shape).and_then(|count| count.checked_mul(size as u64)))?;
        if expected != Some(bytes.len() as u64) {
            let what = format!("{} bytes for {} of shape {shape:?}", bytes.len(), dtype.as_str_name());
            return Err(self.refuse(name, what));
        }
        self.append(name, dtype, shape, &[bytes], crc32c::crc32c(bytes))
    }

    /// Adds a tensor of strings.
    ///
    /// Errors: as of [`add`](Self::add).
    pub fn add_strings<S: AsRef<[u8]>>(&mut self, name: &str, shape: &[i64], strings: &[S]) -> Result<()> {
        self.add_strings_under(name.as_bytes(), shape, strings)
    }

    pub(super) fn add_strings_under<S: AsRef<[u8]>>(
        &mut self,
        name: &[u8],
        shape: &[i64],
        strings: &[S],
    ) -> Result<()> {
        if element_count(shape) != Some(strings.len() as u64) {
            return Err(self.refuse(name, format!("{} strings for shape {shape:?}", strings.len())));
        }
        let mut head = Vec::new();
        for string in strings {
            write_varint(&mut head, string.as_ref().len() as u64);
        }
        let crc = lengths_crc(strings.iter().map(|s| s.as_ref().len() as u64));
        let stored = mask(crc).to_le_bytes();
        head.extend(stored);
        let parts: Vec<&[u8]> = [head.as_slice()]
            .into_iter()
            .chain(strings.iter().map(AsRef::as_ref))
            .collect();
        let crc = parts[1..]
            .iter()
            .fold(crc32c::crc32c_append(crc, &stored), |crc, part| {
                crc32c::crc32c_append(crc, part)
            });
        self.append(name, DataType::DtString, shape, &parts, crc)
    }

    fn append(&mut self, name: &[u8], dtype: DataType, shape: &[i64], parts: &[&[u8]], crc: u32) -> Result<()> {
        if name.is_empty() {
            return Err(self.refuse(name, "a tensor needs a name".to_string()));
        }
        if self.entries.contains_key(name) {
            return Err(self.refuse(name, "the name is taken".to_string()));
        }
        let size: u64 = parts.iter().map(|part| part.len() as u64).sum();
        for part in parts {
            // A part written by halves would shift all that follow.
            self.data.write(part).inspect_err(|_| self.failed = true)?;
        }
        let entry = BundleEntryProto {
            dtype: dtype.into(),
            shape: Some(shape_proto(shape)),
            offset: self.offset as i64,
            size: size as i64,
            crc32c: mask(crc),
            ..Default::default()
        };
        self.entries.insert(name.to_vec(), entry);
        self.offset += size;
        Ok(())
    }

    /// Notes that a slice of the tensor `name` will follow.
    pub(super) fn describe_slice(
        &mut self,
        name: &str,
        dtype: DType,
        whole: &Shape,
        slice: TensorSliceProto,
    ) -> Result<()> {
        let whole: Vec<i64> = whole.iter().map(|&dim| dim as i64).collect();
        let new = BundleEntryProto {
            dtype: dtype as i32,
            shape: Some(shape_proto(&whole)),
            ..Default::default()
        };
        let entry = self
            .entries
            .entry(name.as_bytes().to_vec())
            .or_insert_with(|| new.clone());
        let whole_already = entry.slices.is_empty() && *entry != new;
        if whole_already || (entry.dtype, &entry.shape) != (new.dtype, &new.shape) {
            let what = "it is there already, whole or as another dtype or shape".to_string();
            return Err(self.refuse(name.as_bytes(), what));
        }
        entry.slices.push(slice);
        Ok(())
    }

    fn refuse(&self, name: &[u8], what: String) -> Error {
        let (name, prefix) = (String::from_utf8_lossy(name), self.prefix.display());
        Error::invalid_argument(format!("cannot add '{name}' to checkpoint {prefix}: {what}"))
    }

    /// Gives the data its name, and then writes the index, which makes it a checkpoint. One of the same prefix is replaced
    /// by that one step, and is whole until then; the data files' names then tell of two shards, the second empty, or again
    /// of one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(mut self) -> Result<()> {
        if self.failed {
            let prefix = self.prefix.display();
            return Err(Error::internal(format!(
                "checkpoint {prefix} is incomplete: an earlier write failed"
            )));
        }
        let (shards, old) = shards_beside_old(&self.prefix)?;
        let index = encode_index(shards, self.entries)?;
        self.data.sync()?;
        self.data.rename(&data_path(&self.prefix, 0, shards))?;
        for shard in 1..shards {
            write_file(&data_path(&self.prefix, shard, shards), &[])?;
        }
        // The data must be there before an index speaks of it.
        sync_folder_of(&self.prefix);
        write_file(&index_path(&self.prefix), &index)?;
        old.iter().try_for_each(|path| remove_file(path))
    }
}

fn shape_proto(shape: &[i64]) -> TensorShapeProto {
    let dim = |&size: &i64| Dim {
        size,
        ..Default::default()
    };
    TensorShapeProto {
        dim: shape.iter().map(dim).collect(),
        ..Default::default()
    }
}

/// The index of `shards` data files; the rows come in ascending order of their keys.
pub(super) fn encode_index(
    shards: i32,
    rows: impl IntoIterator<Item = (Vec<u8>, BundleEntryProto)>,
) -> Result<Vec<u8>> {
    let header = BundleHeaderProto {
        num_shards: shards,
        endianness: Endianness::Little.into(),
        version: Some(VersionDef {
            producer: VERSION,
            ..Default::default()
        }),
    };
    let mut encoded = vec![(Vec::new(), header.encode_to_vec())];
    encoded.extend(rows.into_iter().map(|(key, entry)| (key, entry.encode_to_vec())));
    table::encode(encoded.iter().map(|(key, entry)| (key.as_slice(), entry.as_slice())))
}
