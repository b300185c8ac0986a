//! Joins checkpoints, such as the shards that several devices wrote, to one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};

use super::files::{data_files, data_path, folder_of, index_path, remove_file, sync_folder_of, write_file};
use super::reader::BundleReader;
use super::writer::encode_index;
use crate::error::{Error, Result};
use crate::format::proto::BundleEntryProto;

/// Makes the checkpoints `parts` one: `prefix`. Their data files are renamed, not copied, and become its shards; their
/// indices go. What several of them hold must be slices of one variable.
///
/// The index of the new checkpoint is written last. One of the same prefix is replaced; where its data files have the new
/// ones' names, its index goes first, so that there is no checkpoint for a moment rather than a wrong one.
///
/// # Errors
/// `InvalidArgument` for no parts, or parts that hold the same tensor; those of [`BundleReader::open`] and of the file
/// system.
pub fn merge<P: AsRef<Path>>(parts: &[P], prefix: impl AsRef<Path>) -> Result<()> {
    let prefix = prefix.as_ref();
    if parts.is_empty() {
        return Err(Error::invalid_argument("there are no checkpoints to merge"));
    }
    let mut rows: BTreeMap<Vec<u8>, BundleEntryProto> = BTreeMap::new();
    let mut files: Vec<PathBuf> = Vec::new();
    for part in parts {
        let reader = BundleReader::open(part)?;
        let mut shards: BTreeMap<i32, i32> = BTreeMap::new();
        let named = reader.entries().iter().map(|(name, entry)| (name.as_bytes(), entry));
        let slices = reader.slices().iter().map(|(name, entry)| (name.as_slice(), entry));
        for (key, entry) in slices.chain(named) {
            let mut entry = entry.clone();
            // A variable in slices has no data of its own.
            if entry.slices.is_empty() {
                entry.shard_id = *shards.entry(entry.shard_id).or_insert_with(|| {
                    files.push(data_path(part.as_ref(), entry.shard_id, reader.shards()));
                    files.len() as i32 - 1
                });
            }
            insert(&mut rows, key, entry)?;
        }
    }
    let shards = files.len() as i32;
    let index = encode_index(shards, rows)?;
    fs::create_dir_all(folder_of(prefix)).map_err(|error| Error::io(prefix, error))?;
    let new: Vec<PathBuf> = (0..shards).map(|shard| data_path(prefix, shard, shards)).collect();
    let old = data_files(prefix)?;
    if old.iter().any(|path| new.contains(path)) {
        remove_file(&index_path(prefix))?;
        sync_folder_of(prefix);
    }
    for (file, to) in files.iter().zip(&new) {
        fs::rename(file, to).map_err(|error| Error::io(file, error))?;
    }
    sync_folder_of(prefix);
    write_file(&index_path(prefix), &index)?;
    let indices = parts.iter().map(|part| index_path(part.as_ref()));
    let left = old.into_iter().filter(|path| !new.contains(path)).chain(indices);
    left.into_iter()
        .filter(|path| *path != index_path(prefix))
        .try_for_each(|path| remove_file(&path))
}

fn insert(rows: &mut BTreeMap<Vec<u8>, BundleEntryProto>, key: &[u8], entry: BundleEntryProto) -> Result<()> {
    match rows.entry(key.to_vec()) {
        Entry::Vacant(vacant) => {
            vacant.insert(entry);
        }
        Entry::Occupied(mut known) => {
            let known = known.get_mut();
            let same_variable = known.dtype == entry.dtype && known.shape == entry.shape;
            if known.slices.is_empty() || entry.slices.is_empty() || !same_variable {
                let name = key.escape_ascii();
                return Err(Error::invalid_argument(format!(
                    "two of the checkpoints hold a tensor '{name}'"
                )));
            }
            known.slices.extend(entry.slices);
        }
    }
    Ok(())
}
