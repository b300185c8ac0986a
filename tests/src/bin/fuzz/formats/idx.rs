//! MNIST's files.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::Verdict;

pub fn idx_seeds() -> Vec<Vec<u8>> {
    let file = |header: &[u32], content: &[u8]| {
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend(content);
        zipped(&bytes)
    };
    let pixels: Vec<u8> = (0..2 * 784u32).map(|index| (index % 251) as u8).collect();
    vec![file(&[2051, 2, 28, 28], &pixels), file(&[2049, 4], &[0, 9, 3, 7])]
}

pub fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes what is written");
    encoder.finish().expect("memory takes what is written")
}

pub fn unzipped(file: &[u8]) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    // What comes before damage is enough.
    let _ = GzDecoder::new(file).read_to_end(&mut bytes);
    vec![bytes]
}

pub fn read_idx(folder: &Path, bytes: &[u8]) -> Verdict {
    let path = folder.join("case.gz");
    fs::write(&path, bytes).map_err(|error| error.to_string())?;
    let images = lenet::dataset::read_images(&path).map(drop);
    let labels = lenet::dataset::read_labels(&path).map(drop);
    images.or(labels).map_err(|error| error.to_string())
}
