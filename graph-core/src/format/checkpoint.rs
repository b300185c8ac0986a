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

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message;

use super::checksum::{mask, unmask};
use super::proto::bundle_header_proto::Endianness;
use super::proto::tensor_shape_proto::Dim;
use super::proto::{BundleEntryProto, BundleHeaderProto, CheckpointState, DataType, TensorShapeProto, VersionDef};
use super::table::{self, Bytes, write_varint};
use super::text;
use crate::error::{Error, Result};

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

fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn index_path(prefix: &Path) -> PathBuf {
    with_suffix(prefix, ".index")
}

fn data_path(prefix: &Path, shard: i32, shards: i32) -> PathBuf {
    with_suffix(prefix, &format!(".data-{shard:05}-of-{shards:05}"))
}

/// A file under a temporary name beside its own, which it gets when complete. Dropped before, it is removed.
struct NewFile {
    file: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    renamed: bool,
}

impl NewFile {
    fn create(path: PathBuf) -> Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = with_suffix(&path, &format!(".tempstate{}-{number}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary);
        Ok(NewFile {
            file: BufWriter::new(file.map_err(|e| Error::io(&temporary, e))?),
            temporary,
            path,
            renamed: false,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io(&self.temporary, e))
    }

    /// Makes sure that the content outlives a crash.
    fn sync(&mut self) -> Result<()> {
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(|e| Error::io(&self.temporary, e))
    }

    fn rename(mut self) -> Result<()> {
        fs::rename(&self.temporary, &self.path).map_err(|e| Error::io(&self.path, e))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Renames last only once the folder itself is on the disk. Some systems cannot open folders; there this does nothing.
fn sync_folder_of(path: &Path) {
    if let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Writes a checkpoint. Nothing is seen under its names before [`finish`](Self::finish).
///
/// Tensors lie in the data file in the order of the calls; TensorFlow's saver adds them by name.
pub struct BundleWriter {
    prefix: PathBuf,
    data: NewFile,
    offset: u64,
    entries: BTreeMap<String, BundleEntryProto>,
    failed: bool,
}

impl BundleWriter {
    /// Starts a checkpoint; its folder is created where it is missing.
    pub fn create(prefix: impl AsRef<Path>) -> Result<Self> {
        let prefix = prefix.as_ref().to_path_buf();
        if let Some(folder) = prefix.parent() {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        Ok(BundleWriter {
            data: NewFile::create(data_path(&prefix, 0, 1))?,
            prefix,
            offset: 0,
            entries: BTreeMap::new(),
            failed: false,
        })
    }

    /// Adds a tensor of numbers from its little-endian bytes.
    ///
    /// Errors: `InvalidArgument` for an empty or repeated name, a dtype without a fixed size, or bytes that do not fit
    /// the shape.
    pub fn add(&mut self, name: &str, dtype: DataType, shape: &[i64], bytes: &[u8]) -> Result<()> {
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

    fn append(&mut self, name: &str, dtype: DataType, shape: &[i64], parts: &[&[u8]], crc: u32) -> Result<()> {
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
        let dim = |&size: &i64| Dim {
            size,
            ..Default::default()
        };
        let entry = BundleEntryProto {
            dtype: dtype.into(),
            shape: Some(TensorShapeProto {
                dim: shape.iter().map(dim).collect(),
                ..Default::default()
            }),
            offset: self.offset as i64,
            size: size as i64,
            crc32c: mask(crc),
            ..Default::default()
        };
        self.entries.insert(name.to_string(), entry);
        self.offset += size;
        Ok(())
    }

    fn refuse(&self, name: &str, what: String) -> Error {
        let prefix = self.prefix.display();
        Error::invalid_argument(format!("cannot add '{name}' to checkpoint {prefix}: {what}"))
    }

    /// Writes the index and gives both files their names. A checkpoint of the same prefix is replaced.
    pub fn finish(mut self) -> Result<()> {
        if self.failed {
            let prefix = self.prefix.display();
            return Err(Error::internal(format!(
                "checkpoint {prefix} is incomplete: an earlier write failed"
            )));
        }
        let header = BundleHeaderProto {
            num_shards: 1,
            endianness: Endianness::Little.into(),
            version: Some(VersionDef {
                producer: VERSION,
                ..Default::default()
            }),
        };
        let entries: Vec<_> = [(String::new(), header.encode_to_vec())]
            .into_iter()
            .chain(
                self.entries
                    .into_iter()
                    .map(|(name, entry)| (name, entry.encode_to_vec())),
            )
            .collect();
        let table = table::encode(entries.iter().map(|(name, entry)| (name.as_bytes(), entry.as_slice())))?;
        let mut index = NewFile::create(index_path(&self.prefix))?;
        index.write(&table)?;
        index.sync()?;
        self.data.sync()?;
        self.data.rename()?;
        index.rename()?;
        sync_folder_of(&self.prefix);
        Ok(())
    }
}

/// The checksum of string lengths runs over each as 4 bytes, or 8 where they do not do.
fn lengths_crc(lengths: impl Iterator<Item = u64>) -> u32 {
    lengths.fold(0, |crc, length| match u32::try_from(length) {
        Ok(length) => crc32c::crc32c_append(crc, &length.to_le_bytes()),
        Err(_) => crc32c::crc32c_append(crc, &length.to_le_bytes()),
    })
}

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
        for (key, value) in rows {
            // Keys that are no text, or start with a zero byte, are slices of partitioned variables.
            let Ok(name) = String::from_utf8(key) else { continue };
            if name.starts_with('\0') {
                continue;
            }
            let entry = BundleEntryProto::decode(value.as_slice())
                .map_err(|e| damaged(format!("the entry '{name}' is damaged: {e}")))?;
            entries.insert(name, entry);
        }
        Ok(BundleReader {
            prefix,
            shards: header.num_shards,
            entries,
        })
    }

    /// The tensors by name: dtype, shape and place of each.
    pub fn entries(&self) -> &BTreeMap<String, BundleEntryProto> {
        &self.entries
    }

    /// Reads a tensor of numbers.
    ///
    /// Errors: `NotFound` for an unknown name, `InvalidArgument` for strings and for a partitioned variable, `DataLoss`
    /// for damage.
    pub fn read(&self, name: &str) -> Result<BundleTensor> {
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

    fn entry(&self, name: &str) -> Result<(&BundleEntryProto, Vec<i64>)> {
        let entry = self.entries.get(name).ok_or_else(|| {
            let prefix = self.prefix.display();
            Error::not_found(format!(
                "'{name}' is not in checkpoint {prefix}, which holds {} tensors",
                self.entries.len()
            ))
        })?;
        if !entry.slices.is_empty() {
            return Err(self.refuse(
                name,
                "it is saved in slices, and partitioned variables are not supported",
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

    /// The bytes of a tensor. They are allocated once the file is known to have them.
    fn content(&self, name: &str, entry: &BundleEntryProto) -> Result<Vec<u8>> {
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

    fn check(&self, name: &str, entry: &BundleEntryProto, crc: u32) -> Result<()> {
        if crc != unmask(entry.crc32c) {
            return Err(self.damaged(name, "checksum mismatch"));
        }
        Ok(())
    }

    fn refuse(&self, name: &str, what: &str) -> Error {
        Error::invalid_argument(format!(
            "cannot read '{name}' of checkpoint {}: {what}",
            self.prefix.display()
        ))
    }

    fn damaged(&self, name: &str, what: &str) -> Error {
        Error::data_loss(format!(
            "cannot read '{name}' of checkpoint {}: {what}",
            self.prefix.display()
        ))
    }
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
    let path = path.as_ref();
    let mut file = NewFile::create(path.to_path_buf())?;
    file.write(text::to_text(state)?.as_bytes())?;
    file.sync()?;
    file.rename()?;
    sync_folder_of(path);
    Ok(())
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
