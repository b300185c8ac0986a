//! File formats: TensorFlow's, byte for byte, and how the engine's own graph goes into them.
//!
//! | module | is |
//! |---|---|
//! | [`proto`] | the protobuf messages |
//! | [`text`] | their text format |
//! | [`graph_def`] | graphs, attributes and values to and from those messages |
//! | [`checksum`] | the masked CRC-32C of the formats below |
//! | [`tf_record`] | the framing of event files: length, checksum, data, checksum |
//! | [`events`] | event files, which TensorBoard reads |
//! | [`histogram`] | the buckets of histogram summaries |
//! | [`table`] | the sorted string tables that index checkpoints |
//! | [`checkpoint`] | V2 checkpoints |

pub mod checkpoint;
pub mod checksum;
pub mod events;
pub mod graph_def;
pub mod histogram;
pub mod proto;
pub mod table;
pub mod text;
pub mod tf_record;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes a file under a temporary name in the same folder, then gives it its own: it appears complete or not at all.
///
/// # Errors
/// Whatever the operating system refuses, with the path.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // Nothing to mend if the half-written file cannot be removed either.
        let _ = fs::remove_file(&temporary);
        Error::io(path, error)
    })
}
/// Encodes and decodes the messages of [`proto`].
pub use prost::Message;
