//! Files named on the command line; `-` is standard input.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use graph_core::format::graph_file::GraphFile;
use graph_core::{Error, Result};

/// Whether standard input is meant.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// What errors and reports call the file.
pub fn name(path: &Path) -> String {
    match is_stdin(path) {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    }
}

/// The bytes of a file.
pub fn bytes(path: &Path) -> Result<Vec<u8>> {
    if !is_stdin(path) {
        return fs::read(path).map_err(|error| Error::io(path, error));
    }
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("standard input", error))?;
    Ok(bytes)
}

/// The graph in a file of any form, or in a SavedModel's folder.
pub fn graph(path: &Path) -> Result<GraphFile> {
    match is_stdin(path) {
        true => GraphFile::parse(&bytes(path)?).map_err(|error| error.context("reading standard input")),
        false => GraphFile::read(path),
    }
}
