//! The files of a checkpoint: their names, how they appear whole or not at all, and how they go.
//!
//! What is being written lies under a temporary name in the same folder, `<name>.tempstate<process>-<number>`. A process
//! that is killed leaves such files behind; [`remove_leftovers`] finds them.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::reader::BundleReader;
use crate::error::{Error, Result};

/// Between a file's own name and the process that is writing it.
const TEMPORARY: &str = ".tempstate";
/// How old a temporary file must be to be a leftover, where the system does not tell which processes there are.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Numbers the temporary names of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

pub(super) fn index_path(prefix: &Path) -> PathBuf {
    with_suffix(prefix, ".index")
}

pub(super) fn data_path(prefix: &Path, shard: i32, shards: i32) -> PathBuf {
    with_suffix(prefix, &format!(".data-{shard:05}-of-{shards:05}"))
}

/// The file beside the checkpoint `prefix` that holds its graph: `<prefix>.meta`.
pub fn meta_graph_path(prefix: impl AsRef<Path>) -> PathBuf {
    with_suffix(prefix.as_ref(), ".meta")
}

/// A name beside `path` that no other writer uses, for what is not yet complete.
pub fn temporary_path(path: impl AsRef<Path>) -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let suffix = format!("{TEMPORARY}{}-{number}", std::process::id());
    with_suffix(path.as_ref(), &suffix)
}

/// A file under a temporary name beside its own, which it gets when complete. Dropped before, it is removed.
pub(super) struct NewFile {
    file: BufWriter<File>,
    temporary: PathBuf,
    renamed: bool,
}

impl NewFile {
    pub(super) fn create(path: &Path) -> Result<Self> {
        loop {
            let temporary = temporary_path(path);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => return Ok(Self::new(file, temporary)),
                // Left by an earlier process of the same number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(&temporary, error)),
            }
        }
    }

    /// A file that exists, to be written on at its end; it counts as temporary from now on.
    pub(super) fn append(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().append(true).open(&path);
        Ok(Self::new(file.map_err(|error| Error::io(&path, error))?, path))
    }

    fn new(file: File, temporary: PathBuf) -> Self {
        Self {
            file: BufWriter::new(file),
            temporary,
            renamed: false,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(|error| Error::io(&self.temporary, error))
    }

    /// Makes sure that the content outlives a crash.
    pub(super) fn sync(&mut self) -> Result<()> {
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(|error| Error::io(&self.temporary, error))
    }

    pub(super) fn rename(mut self, path: &Path) -> Result<()> {
        fs::rename(&self.temporary, path).map_err(|error| Error::io(path, error))?;
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

/// Writes a whole file, durably; a reader sees the old one or the new one.
///
/// # Errors
/// Those of the file system, with the path.
pub(in crate::format) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = NewFile::create(path)?;
    file.write(bytes)?;
    file.sync()?;
    file.rename(path)?;
    sync_folder_of(path);
    Ok(())
}

/// Renames last only once the folder itself is on the disk. Some systems cannot open folders; there this does nothing.
pub(super) fn sync_folder_of(path: &Path) {
    let _ = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
}

/// The folder that `path` lies in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Whether there is a checkpoint `prefix`: whether it has an index, which appears last.
pub fn exists(prefix: impl AsRef<Path>) -> bool {
    index_path(prefix.as_ref()).is_file()
}

/// When the checkpoint `prefix` was completed; `None` if there is none, or the file system does not tell.
pub fn modified(prefix: impl AsRef<Path>) -> Option<SystemTime> {
    let metadata = fs::metadata(index_path(prefix.as_ref())).ok()?;
    metadata.modified().ok()
}

/// Removes the files of the checkpoint `prefix`, its graph included; the index goes first, so that what is left of it when
/// the process dies is no checkpoint. One that does not exist is no error.
///
/// # Errors
/// Those of the file system, with the path.
pub fn remove(prefix: impl AsRef<Path>) -> Result<()> {
    let prefix = prefix.as_ref();
    let shards = data_files(prefix)?;
    remove_file(&index_path(prefix))?;
    sync_folder_of(prefix);
    for path in shards {
        remove_file(&path)?;
    }
    remove_file(&meta_graph_path(prefix))
}

/// Removes a file unless it is gone already.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}

/// The data files of the checkpoint `prefix`, whatever their number.
pub(super) fn data_files(prefix: &Path) -> Result<Vec<PathBuf>> {
    let start = with_suffix(Path::new(prefix.file_name().unwrap_or_default()), ".data-");
    let start = start.to_string_lossy().into_owned();
    let is_shard = |name: &str| {
        name.strip_prefix(&start)
            .and_then(|rest| rest.split_once("-of-"))
            .is_some_and(|(shard, shards)| [shard, shards].iter().all(|part| is_number(part)))
    };
    Ok(names_in(folder_of(prefix))?
        .into_iter()
        .filter(|name| is_shard(name))
        .map(|name| prefix.with_file_name(name))
        .collect())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The names in a folder; none where there is no folder.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(folder, error)),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}

/// Removes what processes that died left behind while they were writing files whose names begin with `prefix`: checkpoints,
/// or the file that tells of them. Returns how many files that were.
///
/// Only one process at a time may write checkpoints of the same prefix: where the system does not list its processes, or
/// the writer runs on another machine, an unfinished file of another process is taken for left behind (after a day, in the
/// first case).
///
/// # Errors
/// Those of the file system, with the path.
pub fn remove_leftovers(prefix: impl AsRef<Path>) -> Result<usize> {
    let prefix = prefix.as_ref();
    let base = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut removed = 0;
    for name in names_in(folder_of(prefix))? {
        let path = prefix.with_file_name(&name);
        if name.starts_with(&base) && is_leftover(&name, &path) {
            remove_file(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_leftover(name: &str, path: &Path) -> bool {
    let writer = name.split_once(TEMPORARY).and_then(|(_, rest)| {
        let (process, rest) = rest.split_once('-')?;
        let number = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        Some((process.parse::<u32>().ok()?, number.parse::<u64>().ok()?))
    });
    let Some((process, number)) = writer else { return false };
    if process == std::process::id() {
        // Numbers this process has not come to yet are those of an earlier one.
        return number >= NEXT.load(Ordering::Relaxed);
    }
    let processes = Path::new("/proc");
    if processes.join("self").exists() {
        return !processes.join(process.to_string()).exists();
    }
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > LEFTOVER_AGE))
}

/// The shards of a checkpoint that `prefix` is to be replaced by, and the old one's data files.
///
/// The index appears by one rename; so that the old one is whole until then, the new data must not take the old data's
/// names. They tell the number of shards: where there was one, there will be two, the second of them empty.
pub(super) fn shards_beside_old(prefix: &Path) -> Result<(i32, Vec<PathBuf>)> {
    let shards = match BundleReader::open(prefix) {
        Ok(old) if old.shards() == 1 => 2,
        _ => 1,
    };
    let new: Vec<PathBuf> = (0..shards).map(|shard| data_path(prefix, shard, shards)).collect();
    let old = data_files(prefix)?.into_iter().filter(|path| !new.contains(path));
    Ok((shards, old.collect()))
}
