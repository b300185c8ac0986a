//! Reads checkpoints.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use prost::Message;

use super::files::{data_path, index_path};
use super::{VERSION, element_count, element_size, lengths_crc};
use crate::error::{Error, Result};
use crate::format::checksum::{mask, unmask};
use crate::format::proto::bundle_header_proto::Endianness;
use crate::format::proto::{BundleEntryProto, BundleHeaderProto, DataType};
use crate::format::table::{self, Bytes};

/// A tensor of numbers as a checkpoint holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleTensor {
    pub dtype: DataType,
    pub shape: Vec<i64>,
    /// Little-endian, as many as dtype and shape say.
    pub bytes: Vec<u8>,
}

/// Reads a checkpoint. Checksums are verified: of the index when it is opened, of a tensor when it is read.
#[derive(Debug)]
pub struct BundleReader {
    prefix: PathBuf,
    shards: i32,
    entries: BTreeMap<String, BundleEntryProto>,
    /// The slices of partitioned variables, by their encoded names.
    slices: BTreeMap<Vec<u8>, BundleEntryProto>,
}

impl BundleReader {
    /// Reads the index of the checkpoint `prefix`.
    ///
    /// Errors: `NotFound` where there is none, `DataLoss` where it is damaged, `InvalidArgument` where it is big-endian
    /// or of a newer version.
    pub fn open(prefix: impl AsRef<Path>) -> Result<Self> {
        let prefix = prefix.as_ref().to_path_buf();
        let path = index_path(&prefix);
        let damaged = |what: String| Error::data_loss(format!("{}: {what}", path.display()));
        let file = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let mut rows = table::decode(&file, &path)?.into_iter();
        let header = match rows.next() {
            Some((key, value)) if key.is_empty() => BundleHeaderProto::decode(value.as_slice()),
            _ => return Err(damaged("the header is missing".to_string())),
        };
        let header = header.map_err(|e| damaged(format!("the header is damaged: {e}")))?;
        let newest = header.version.as_ref().map_or(0, |version| version.min_consumer);
        if header.endianness() != Endianness::Little || newest > VERSION {
            return Err(Error::invalid_argument(format!(
                "{}: only little-endian checkpoints of version {VERSION} can be read, this one is {} of version {newest}",
                path.display(),
                header.endianness().as_str_name(),
            )));
        }
        let mut entries = BTreeMap::new();
        let mut slices = BTreeMap::new();
        for (key, value) in rows {
            let entry = BundleEntryProto::decode(value.as_slice())
                .map_err(|e| damaged(format!("the entry '{}' is damaged: {e}", key.escape_ascii())))?;
            match String::from_utf8(key) {
                Ok(name) if !name.starts_with('\0') => entries.insert(name, entry),
                Ok(key) => slices.insert(key.into_bytes(), entry),
                Err(key) => slices.insert(key.into_bytes(), entry),
            };
        }
        Ok(BundleReader {
            prefix,
            shards: header.num_shards,
            entries,
            slices,
        })
    }

    /// The tensors by name: dtype, shape and place of each.
    pub fn entries(&self) -> &BTreeMap<String, BundleEntryProto> {
        &self.entries
    }

    pub(super) fn shards(&self) -> i32 {
        self.shards
    }

    pub(super) fn slices(&self) -> &BTreeMap<Vec<u8>, BundleEntryProto> {
        &self.slices
    }

    pub(super) fn into_entries(self) -> BTreeMap<String, BundleEntryProto> {
        self.entries
    }

    /// The prefix that it was opened with.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Reads a tensor of numbers.
    ///
    /// Errors: `NotFound` for an unknown name, `InvalidArgument` for strings and for a partitioned variable, `DataLoss`
    /// for damage.
    pub fn read(&self, name: &str) -> Result<BundleTensor> {
        self.read_under(name.as_bytes())
    }

    pub(super) fn read_under(&self, name: &[u8]) -> Result<BundleTensor> {
        let (entry, shape) = self.entry(name)?;
        let dtype = entry.dtype();
        let size = element_size(dtype).ok_or_else(|| self.refuse(name, "it is not made of numbers"))? as u64;
        let expected = element_count(&shape).and_then(|count| count.checked_mul(size));
        if expected != u64::try_from(entry.size).ok() {
            return Err(self.damaged(name, "its size does not fit its shape"));
        }
        let bytes = self.content(name, entry)?;
        self.check(name, entry, crc32c::crc32c(&bytes))?;
        Ok(BundleTensor { dtype, shape, bytes })
    }

    /// Reads a tensor of strings: its shape and its elements.
    ///
    /// Errors: as of [`read`](Self::read).
    pub fn read_strings(&self, name: &str) -> Result<(Vec<i64>, Vec<Vec<u8>>)> {
        self.read_strings_under(name.as_bytes())
    }

    pub(super) fn read_strings_under(&self, name: &[u8]) -> Result<(Vec<i64>, Vec<Vec<u8>>)> {
        let (entry, shape) = self.entry(name)?;
        if entry.dtype() != DataType::DtString {
            return Err(self.refuse(name, "it is not made of strings"));
        }
        let damaged = |what: String| self.damaged(name, &what);
        let count = element_count(&shape).ok_or_else(|| damaged("its shape is impossible".to_string()))?;
        let content = self.content(name, entry)?;
        let mut bytes = Bytes(&content);
        let mut lengths = Vec::new();
        for _ in 0..count {
            lengths.push(bytes.varint().map_err(damaged)?);
        }
        let crc = lengths_crc(lengths.iter().copied());
        let stored = bytes.take(4).map_err(damaged)?;
        if stored != mask(crc).to_le_bytes() {
            return Err(self.damaged(name, "checksum mismatch of its string lengths"));
        }
        let crc = crc32c::crc32c_append(crc, stored);
        self.check(name, entry, crc32c::crc32c_append(crc, bytes.0))?;
        let strings = lengths
            .iter()
            .map(|&length| bytes.take(length).map(<[u8]>::to_vec))
            .collect::<std::result::Result<_, _>>()
            .map_err(damaged)?;
        Ok((shape, strings))
    }

    /// What is stored under a key, a name or that of a slice, and its shape.
    pub(super) fn entry(&self, key: &[u8]) -> Result<(&BundleEntryProto, Vec<i64>)> {
        let named = std::str::from_utf8(key).ok().and_then(|name| self.entries.get(name));
        let entry = named.or_else(|| self.slices.get(key)).ok_or_else(|| {
            let (name, prefix) = (String::from_utf8_lossy(key), self.prefix.display());
            Error::not_found(format!(
                "'{name}' is not in checkpoint {prefix}, which holds {} tensors",
                self.entries.len()
            ))
        })?;
        if !entry.slices.is_empty() {
            return Err(self.refuse(
                key,
                "it is saved in slices, which are read one by one or together as a value",
            ));
        }
        let shape = entry
            .shape
            .iter()
            .flat_map(|shape| &shape.dim)
            .map(|dim| dim.size)
            .collect();
        Ok((entry, shape))
    }

    /// Whether the data files that these keys lie in have as many bytes as they take together.
    pub(super) fn files_hold(&self, keys: &[Vec<u8>]) -> Result<bool> {
        let mut files: BTreeMap<i32, u64> = BTreeMap::new();
        let mut taken = 0u64;
        for key in keys {
            let (entry, _) = self.entry(key)?;
            taken = taken.saturating_add(u64::try_from(entry.size).unwrap_or(u64::MAX));
            if let Entry::Vacant(file) = files.entry(entry.shard_id) {
                let path = data_path(&self.prefix, entry.shard_id, self.shards);
                file.insert(fs::metadata(&path).map_err(|e| Error::io(&path, e))?.len());
            }
        }
        Ok(taken <= files.values().sum::<u64>())
    }

    /// The bytes of a tensor. They are allocated once the file is known to have them.
    fn content(&self, name: &[u8], entry: &BundleEntryProto) -> Result<Vec<u8>> {
        let path = data_path(&self.prefix, entry.shard_id, self.shards);
        let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let available = file.metadata().map_err(|e| Error::io(&path, e))?.len();
        let place = u64::try_from(entry.offset).ok().zip(u64::try_from(entry.size).ok());
        let (offset, size) = place
            .filter(|&(offset, size)| offset.checked_add(size).is_some_and(|end| end <= available))
            .ok_or_else(|| {
                let what = format!("its {} bytes at {} lie beyond the file's end", entry.size, entry.offset);
                self.damaged(name, &what)
            })?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.take(size).read_to_end(&mut bytes))
            .map_err(|e| Error::io(&path, e))?;
        Ok(bytes)
    }

    fn check(&self, name: &[u8], entry: &BundleEntryProto, crc: u32) -> Result<()> {
        if crc != unmask(entry.crc32c) {
            return Err(self.damaged(name, "checksum mismatch"));
        }
        Ok(())
    }

    fn refuse(&self, name: &[u8], what: &str) -> Error {
        let (name, prefix) = (String::from_utf8_lossy(name), self.prefix.display());
        Error::invalid_argument(format!("cannot read '{name}' of checkpoint {prefix}: {what}"))
    }

    pub(super) fn damaged(&self, name: &[u8], what: &str) -> Error {
        let (name, prefix) = (String::from_utf8_lossy(name), self.prefix.display());
        Error::data_loss(format!("cannot read '{name}' of checkpoint {prefix}: {what}"))
    }
}
