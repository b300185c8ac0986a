//! The `checkpoint` file of a folder, which tells of its checkpoints.

use std::path::{Component, Path, PathBuf};

use graph_core::format::checkpoint;
use graph_core::format::proto::CheckpointState;
use graph_core::{Error, Result};

/// The name of the file that tells of a folder's checkpoints, unless another is said.
pub const DEFAULT_STATE_FILE: &str = "checkpoint";

/// Whether there is a checkpoint `prefix`.
pub fn checkpoint_exists(prefix: impl AsRef<Path>) -> bool {
    checkpoint::exists(prefix)
}

/// The prefix of the latest checkpoint in `folder`, by what its `checkpoint` file tells; `None` if there is no such file or
/// the checkpoint is gone.
///
/// # Errors
/// `InvalidArgument` if the file is not in its format, and those of the file system.
pub fn latest_checkpoint(folder: impl AsRef<Path>) -> Result<Option<PathBuf>> {
    let state = get_checkpoint_state(folder, DEFAULT_STATE_FILE)?;
    let latest = state.map(|state| PathBuf::from(state.model_checkpoint_path));
    Ok(latest.filter(|prefix| checkpoint_exists(prefix)))
}

/// What the file `latest_filename` in `folder` ([`DEFAULT_STATE_FILE`], usually) tells of its checkpoints, with the folder
/// before their names; `None` if there is no such file.
///
/// # Errors
/// `InvalidArgument` if the file is not in its format or names no checkpoint, and those of the file system.
pub fn get_checkpoint_state(folder: impl AsRef<Path>, latest_filename: &str) -> Result<Option<CheckpointState>> {
    let folder = folder.as_ref();
    let path = folder.join(latest_filename);
    let mut state = match checkpoint::read_state(&path) {
        Err(Error::NotFound(_)) => return Ok(None),
        state => state?,
    };
    if state.model_checkpoint_path.is_empty() {
        return Err(Error::invalid_argument(format!(
            "{} names no checkpoint",
            path.display()
        )));
    }
    let names = state.all_model_checkpoint_paths.iter_mut();
    for name in names.chain([&mut state.model_checkpoint_path]) {
        // A path that is absolute already stays as it is.
        *name = folder.join(&*name).to_string_lossy().into_owned();
    }
    Ok(Some(state))
}

/// Writes the file `latest_filename` in `folder` anew: that `latest` is the latest checkpoint, and `all` (the oldest first;
/// `latest` is added if it does not come last) are there. A reader sees the old file or the new one.
///
/// # Errors
/// `InvalidArgument` if the checkpoint would have the file's own name, and those of the file system.
pub fn update_checkpoint_state<P: AsRef<Path>>(
    folder: impl AsRef<Path>,
    latest: impl AsRef<Path>,
    all: &[P],
    latest_filename: &str,
) -> Result<()> {
    let all: Vec<PathBuf> = all.iter().map(|path| path.as_ref().to_owned()).collect();
    let path = state_file(&folder.as_ref().join("any"), latest_filename)?;
    write(&path, latest.as_ref(), &all, false)
}

/// The file that tells of the checkpoint `prefix`.
pub(super) fn state_file(prefix: &Path, latest_filename: &str) -> Result<PathBuf> {
    let name = Path::new(latest_filename);
    if name.file_name() != Some(name.as_os_str()) {
        return Err(
            Error::invalid_argument("the file that tells of checkpoints must be named without a folder")
                .expected("a name such as checkpoint")
                .got(format!("'{latest_filename}'")),
        );
    }
    Ok(prefix.with_file_name(name))
}

pub(super) fn write(path: &Path, latest: &Path, all: &[PathBuf], relative: bool) -> Result<()> {
    if path == latest {
        return Err(Error::invalid_argument(format!(
            "the checkpoint '{}' has the name of the file that tells of checkpoints",
            latest.display()
        )));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let shown = |prefix: &Path| {
        let relative = match (folder.is_absolute(), prefix.is_absolute()) {
            (false, false) => relative_to(prefix, folder),
            (true, true) if relative => relative_to(prefix, folder),
            _ => prefix.to_owned(),
        };
        relative.to_string_lossy().into_owned()
    };
    let mut all: Vec<String> = all.iter().map(|prefix| shown(prefix)).collect();
    let latest = shown(latest);
    if all.last() != Some(&latest) {
        all.push(latest.clone());
    }
    let state = CheckpointState {
        model_checkpoint_path: latest,
        all_model_checkpoint_paths: all,
        ..CheckpointState::default()
    };
    checkpoint::write_state(path, &state)
}

/// `path` as it is called from `folder`, both absolute or both relative to the same place.
fn relative_to(path: &Path, folder: &Path) -> PathBuf {
    let parts = |path: &Path| -> Vec<PathBuf> {
        let parts = path.components().filter(|part| *part != Component::CurDir);
        parts.map(|part| PathBuf::from(part.as_os_str())).collect()
    };
    let (path, folder) = (parts(path), parts(folder));
    let shared = path.iter().zip(&folder).take_while(|(a, b)| a == b).count();
    let up = folder[shared..].iter().map(|_| PathBuf::from(".."));
    up.chain(path[shared..].iter().cloned()).collect()
}
