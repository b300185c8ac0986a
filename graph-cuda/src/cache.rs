//! Compiled kernels on disk, so that only the first process ever compiles them, and choices between kernels.
//!
//! A file's name is a hash of everything that decides of its contents, and the file holds all that too: two texts with the
//! same hash do not take each other's code. Files are written under another name and renamed, so that processes may share the
//! folder. A cache that cannot be read or written only costs time.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::path::{Path, PathBuf};

use rustc_hash::FxHasher;

/// A folder of compiled kernels.
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The cache in `GRAPH_CUDA_CACHE`, or else in the user's cache folder; none if the variable is empty.
    pub fn of_user() -> Self {
        let set = std::env::var_os("GRAPH_CUDA_CACHE").map(PathBuf::from);
        let folder = match set {
            Some(folder) => Some(folder).filter(|folder| !folder.as_os_str().is_empty()),
            None => {
                let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
                let home = || std::env::home_dir().map(|home| home.join(".cache"));
                base.filter(|base| base.is_absolute())
                    .or_else(home)
                    .map(|base| base.join("graph-cuda"))
            }
        };
        Self { folder }
    }

    /// A cache in this folder, which is made when something is kept.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: Some(folder.into()),
        }
    }

    /// The code for `text` by the compiler of this identity, if it is there.
    pub fn get(&self, identity: &str, text: &str) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.path(identity, text)?).ok()?;
        let head = head(identity, text);
        let code = bytes.strip_prefix(head.as_slice())?;
        // Renaming makes files whole; an empty one is a full disk's.
        (!code.is_empty()).then(|| code.to_vec())
    }

    /// Keeps code; nothing happens where that fails.
    pub fn put(&self, identity: &str, text: &str, code: &[u8]) {
        if let Some(path) = self.path(identity, text) {
            // Another run compiles it again.
            let _ = write(&path, &[&head(identity, text), code].concat());
        }
    }

    /// Keeps `code`, unless something that is `valid` is kept already, by another process at the same time too; what is kept
    /// then. Where nothing can be kept, that is `code`.
    pub fn put_first(&self, identity: &str, text: &str, code: &[u8], valid: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let Some(path) = self.path(identity, text) else {
            return code.to_vec();
        };
        let kept = || self.get(identity, text).filter(|kept| valid(kept));
        let bytes = [&head(identity, text), code].concat();
        let place = |temporary: &Path| match std::fs::hard_link(temporary, &path) {
            Ok(()) => std::fs::remove_file(temporary),
            // What is there but damaged, or cannot be linked to, is replaced.
            Err(_) if kept().is_none() => std::fs::rename(temporary, &path),
            Err(_) => std::fs::remove_file(temporary),
        };
        let _ = write_by(&path, &bytes, place);
        kept().unwrap_or_else(|| code.to_vec())
    }

    fn path(&self, identity: &str, text: &str) -> Option<PathBuf> {
        let hasher = BuildHasherDefault::<FxHasher>::default();
        let name = format!(
            "{:016x}{:016x}.bin",
            hasher.hash_one((identity, text)),
            hasher.hash_one((text, identity))
        );
        Some(self.folder.as_ref()?.join(name))
    }
}

/// What a file begins with: all that decides of the code behind it.
fn head(identity: &str, text: &str) -> Vec<u8> {
    format!("graph-cuda 1\n{identity}\n{} {}\n{text}\n", identity.len(), text.len()).into_bytes()
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    write_by(path, bytes, |temporary| std::fs::rename(temporary, path))
}

/// Writes a file beside `path`, which `place` brings there.
fn write_by(path: &Path, bytes: &[u8], place: impl Fn(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder)?;
    // Threads of one process may write the same file at the same time too.
    let thread = format!("{:?}", std::thread::current().id());
    let number: String = thread.chars().filter(char::is_ascii_digit).collect();
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let written = std::fs::write(&temporary, bytes).and_then(|()| place(&temporary));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_again_by_the_same_text_and_compiler_only() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(folder.path().join("deeper"));
        assert_eq!(cache.get("nvrtc 13.0 sm_90", "text"), None);
        cache.put("nvrtc 13.0 sm_90", "text", b"code");
        assert_eq!(
            cache.get("nvrtc 13.0 sm_90", "text").as_deref(),
            Some(b"code".as_slice())
        );
        assert_eq!(cache.get("nvrtc 13.0 sm_80", "text"), None);
        assert_eq!(cache.get("nvrtc 13.0 sm_90", "other"), None);
    }

    #[test]
    fn a_damaged_file_is_no_code() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(folder.path());
        cache.put("a", "text", b"code");
        let file = std::fs::read_dir(folder.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let whole = std::fs::read(&file).unwrap();
        for damaged in [
            &whole[..whole.len() - 4],
            &whole[..3],
            &[b"x", &whole[1..]].concat()[..],
        ] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(cache.get("a", "text"), None);
        }
    }

    #[test]
    fn who_keeps_something_first_decides_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let kept: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let keep = |number: u8| Cache::in_folder(folder.path()).put_first("a", "text", &[number; 1000], |_| true);
            let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || keep(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let cache = Cache::in_folder(folder.path());
        let first = cache.get("a", "text").unwrap();
        assert!(kept.iter().all(|kept| *kept == first), "some were told another choice");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        // What is there but not valid is replaced.
        assert_eq!(
            cache.put_first("a", "text", b"better", |kept| kept == b"better"),
            b"better"
        );
        assert_eq!(cache.get("a", "text").as_deref(), Some(b"better".as_slice()));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "in the way").unwrap();
        let cache = Cache::in_folder(&file);
        cache.put("a", "text", b"code");
        assert_eq!(cache.get("a", "text"), None);
        assert_eq!(cache.put_first("a", "text", b"code", |_| true), b"code");
    }

    #[test]
    fn many_may_keep_the_same_code_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let code = vec![7u8; 100_000];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let cache = Cache::in_folder(folder.path());
                    for _ in 0..20 {
                        cache.put("a", "text", &code);
                        assert_eq!(cache.get("a", "text").as_deref(), Some(code.as_slice()));
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
