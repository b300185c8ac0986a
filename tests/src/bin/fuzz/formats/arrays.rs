//! NumPy's files.

use std::io::{Cursor, Read, Write};
use std::path::Path;

use graph_core::{DType, Value};
use graph_record::{npy, npz};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{Verdict, verdict};

fn values() -> Vec<Value> {
    let cube = Value::from_vec([2, 3, 2], (0..12).map(|x| x as f32 - 3.5).collect::<Vec<_>>());
    vec![
        cube.expect("as many elements as the shape has"),
        Value::from([[true, false]]),
        Value::from_strings([2], vec![b"a".to_vec(), b"text".to_vec()]).expect("two strings"),
        Value::from([graph_core::Complex::new(1.0f64, -2.0)]),
        Value::zeros(DType::Int64, [0, 3]).expect("nothing is never too much"),
        Value::zeros(DType::Half, [40, 30]).expect("a small array"),
        Value::from(7u8),
    ]
}

pub fn npy_seeds() -> Vec<Vec<u8>> {
    let ours = values().into_iter();
    let ours = ours.map(|value| npy::write(&value).expect("NumPy has a word for it"));
    // What only NumPy writes: column by column, big-endian, and strings of code points.
    let theirs = [
        ("{'descr': '>f8', 'fortran_order': True, 'shape': (2, 3), }", 48),
        ("{'descr': '<U3', 'fortran_order': False, 'shape': (2, 2), }", 48),
        ("{'descr': '|S2', 'fortran_order': True, 'shape': (2, 4), }", 16),
    ];
    let theirs = theirs.map(|(header, size)| npy_of(&[header.into(), vec![0; size]]));
    ours.chain(theirs).collect()
}

/// The header and the elements.
pub fn npy_parts(file: &[u8]) -> Vec<Vec<u8>> {
    let split = || {
        let (length, rest) = file.get(8..)?.split_first_chunk::<2>()?;
        rest.split_at_checked(u16::from_le_bytes(*length).into())
    };
    let (header, elements) = split().unwrap_or((file, &[]));
    vec![header.to_vec(), elements.to_vec()]
}

/// A file of version 1 of a header and elements.
pub fn npy_of(parts: &[Vec<u8>]) -> Vec<u8> {
    let (header, elements) = parts.split_first().expect("a header");
    let header = &header[..header.len().min(u16::MAX.into())];
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header);
    file.extend(elements.concat());
    file
}

pub fn read_npy(_: &Path, bytes: &[u8]) -> Verdict {
    verdict(npy::read(bytes))?;
    // The same bits under other names, as a trace may say; most are refused.
    for dtype in [DType::BFloat16, DType::QInt8, DType::Float32] {
        let _ = npy::read_as(bytes, dtype);
    }
    Ok(())
}

pub fn npz_seeds() -> Vec<Vec<u8>> {
    vec![npz::pack(&values()).expect("NumPy has words for them")]
}

/// Names and contents of an archive's members in turn.
pub fn members(file: &[u8]) -> Vec<Vec<u8>> {
    let read = || -> zip::result::ZipResult<Vec<Vec<u8>>> {
        let mut archive = ZipArchive::new(Cursor::new(file))?;
        let mut members = Vec::new();
        for index in 0..archive.len() {
            let mut member = archive.by_index(index)?;
            members.push(member.name()?.as_bytes().to_vec());
            let mut content = Vec::new();
            member.read_to_end(&mut content)?;
            members.push(content);
        }
        Ok(members)
    };
    read().unwrap_or_default()
}

/// An archive of such members, whose checksums are right; those that an archive cannot hold are left out.
pub fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (index, member) in members.chunks_exact(2).enumerate() {
        let method = match index % 2 {
            0 => CompressionMethod::Stored,
            _ => CompressionMethod::Deflated,
        };
        let options = SimpleFileOptions::default().compression_method(method);
        if writer.start_file(String::from_utf8_lossy(&member[0]), options).is_ok() {
            writer.write_all(&member[1]).expect("memory takes what is written");
        }
    }
    let written = writer.finish().map(Cursor::into_inner);
    written.unwrap_or_default()
}

pub fn read_npz(_: &Path, bytes: &[u8]) -> Verdict {
    // Arrays that are not numbered are read all the same.
    let named = npz::parse_named(bytes);
    let numbered = npz::parse(bytes);
    verdict(named.and(numbered))
}
