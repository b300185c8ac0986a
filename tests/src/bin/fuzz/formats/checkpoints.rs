//! Checkpoints, and the file that tells which there are.

use std::fs;
use std::path::Path;

use graph_core::Result;
use graph_core::format::checkpoint::{self, BundleReader, BundleWriter};
use graph_core::format::proto::{CheckpointState, DataType};
use graph_core::format::table;

use super::samples::as_text;
use super::{Verdict, verdict};

/// An index and its data in one case: the index's length first.
pub fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let folder = system_tests::scratch();
    let prefix = folder.path().join("seed");
    let write = || -> Result<()> {
        let mut bundle = BundleWriter::create(&prefix)?;
        let bytes: Vec<u8> = (0..24).collect();
        bundle.add("a/weights", DataType::DtFloat, &[2, 3], &bytes)?;
        bundle.add("b", DataType::DtInt64, &[3], &bytes)?;
        bundle.add_strings("names", &[2], &["one", "two"])?;
        bundle.finish()
    };
    write().expect("a checkpoint can be written");
    let part = |extension: &str| {
        let mut path = prefix.clone().into_os_string();
        path.push(extension);
        fs::read(path).expect("the file was just written")
    };
    vec![joined(&part(".index"), &part(".data-00000-of-00001"))]
}

pub fn joined(index: &[u8], data: &[u8]) -> Vec<u8> {
    let mut case = (index.len() as u32).to_le_bytes().to_vec();
    case.extend(index);
    case.extend(data);
    case
}

pub fn parted(case: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = case.split_first_chunk::<4>() else {
        return (case, &[]);
    };
    rest.split_at((u32::from_le_bytes(*length) as usize).min(rest.len()))
}

/// Keys and values of the index in turn, then the data.
pub fn table_rows(case: &[u8]) -> Vec<Vec<u8>> {
    let (index, data) = parted(case);
    let rows = table::decode(index, Path::new("seed")).unwrap_or_default();
    rows.into_iter()
        .flat_map(|(key, value)| [key, value])
        .chain([data.to_vec()])
        .collect()
}

pub fn table_of(rows: &[Vec<u8>]) -> Vec<u8> {
    let Some((data, rows)) = rows.split_last() else {
        return Vec::new();
    };
    let mut rows: Vec<(&[u8], &[u8])> = rows.chunks_exact(2).map(|row| (&row[0][..], &row[1][..])).collect();
    rows.sort_unstable();
    rows.dedup_by_key(|row| row.0);
    joined(&table::encode(rows).unwrap_or_default(), data)
}

pub fn read_checkpoint(folder: &Path, case: &[u8]) -> Verdict {
    let (index, data) = parted(case);
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).map_err(|error| error.to_string());
    write("case.index", index)?;
    write("case.data-00000-of-00001", data)?;
    verdict(BundleReader::open(folder.join("case")).and_then(|bundle| {
        let mut first_error = None;
        for name in bundle.entries().keys() {
            let numbers = bundle.read(name).map(drop);
            let strings = bundle.read_strings(name).map(drop);
            if let (Err(error), Err(_)) = (numbers, strings) {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }))
}

pub fn state_seeds() -> Vec<Vec<u8>> {
    vec![as_text(&CheckpointState {
        model_checkpoint_path: "model-2".to_owned(),
        all_model_checkpoint_paths: vec!["model-1".to_owned(), "model-2".to_owned()],
        all_model_checkpoint_timestamps: vec![1.5, 2.5],
        last_preserved_timestamp: 0.5,
    })]
}

pub fn read_state(folder: &Path, bytes: &[u8]) -> Verdict {
    let path = folder.join("checkpoint");
    fs::write(&path, bytes).map_err(|error| error.to_string())?;
    verdict(checkpoint::read_state(path))
}
