//! File formats: TensorFlow's, byte for byte, and how the engine's own graph goes into them.
//!
//! | module | is |
//! |---|---|
//! | [`proto`] | the protobuf messages |
//! | [`text`] | their text format |
//! | [`graph_def`] | graphs, attributes and values to and from those messages |
//! | [`import`] | graphs from those messages |
//! | [`message_graph`] | those messages as graphs, whatever their ops |
//! | [`graph_file`] | files of any of these forms |
//! | [`freeze`] | variables folded into constants |
//! | [`meta_graph`] | graphs with their collections, savers and signatures |
//! | [`op_def`] | op definitions as messages |
//! | [`checksum`] | the masked CRC-32C of the formats below |
//! | [`tf_record`] | the framing of event files: length, checksum, data, checksum |
//! | [`events`] | event files, which TensorBoard reads |
//! | [`histogram`] | the buckets of histogram summaries |
//! | [`table`] | the sorted string tables that index checkpoints |
//! | [`checkpoint`] | V2 checkpoints |

pub mod checkpoint;
pub mod checksum;
pub mod events;
pub mod freeze;
pub mod graph_def;
pub mod graph_file;
pub mod histogram;
pub mod import;
pub mod message_graph;
pub mod meta_graph;
pub mod op_def;
pub mod proto;
pub mod table;
pub mod text;
pub mod tf_record;

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes a message to a file in protobuf's binary or text format. The file appears complete or not at all.
///
/// # Errors
/// Whatever the operating system refuses, with the path.
pub fn write_message<M: Message + Name>(path: impl AsRef<Path>, message: &M, text: bool) -> Result<()> {
    let bytes = if text {
        text::to_text(message)?.into_bytes()
    } else {
        message.encode_to_vec()
    };
    checkpoint::write_file(path.as_ref(), &bytes)
}

/// Reads a message from a file in protobuf's binary or text format. A file whose name ends in `txt` is text; any other is
/// binary, or text where it does not decode.
///
/// # Errors
/// Whatever the operating system refuses, and those of [`parse_message`], with the path.
pub fn read_message<M: Message + Name + Default>(path: impl AsRef<Path>) -> Result<M> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|error| Error::io(path, error))?;
    let is_text = path
        .extension()
        .is_some_and(|extension| extension.to_string_lossy().ends_with("txt"));
    let message = if is_text {
        parse_text(&bytes)
    } else {
        parse_message(&bytes)
    };
    message.map_err(|error| error.context(format!("reading {}", path.display())))
}

/// Reads a message in protobuf's binary or, where that fails, text format.
///
/// # Errors
/// `DataLoss` for bytes that are neither; `InvalidArgument` for what reads like text but is not right.
pub fn parse_message<M: Message + Name + Default>(bytes: &[u8]) -> Result<M> {
    M::decode(bytes).or_else(|error| {
        let control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
        if bytes.iter().any(control) || std::str::from_utf8(bytes).is_err() {
            return Err(
                Error::data_loss(format!("the bytes are no {}, or cut short: {error}", M::full_name()))
                    .got(format!("{} bytes", bytes.len())),
            );
        }
        parse_text(bytes)
    })
}

fn parse_text<M: Message + Name + Default>(bytes: &[u8]) -> Result<M> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::data_loss(format!("the text of a {} is not UTF-8: {error}", M::full_name())))?;
    text::from_text(text)
}

/// Encodes and decodes the messages of [`proto`].
pub use prost::{Message, Name};
