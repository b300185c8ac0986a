//! The framing of event files (TFRecord): each record is its length, a checksum, its data, a checksum.
//!
//! ```text
//! u64 length | u32 masked crc of those 8 bytes | data | u32 masked crc of data      (all little-endian)
//! ```

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use super::checksum::masked_crc32c;
use crate::error::{Error, Result};

/// Bytes of length and checksum before the data of a record.
const HEADER: usize = 12;

/// Appends `data` as one record.
pub fn write_record(out: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&masked_crc32c(&length).to_le_bytes())?;
    out.write_all(data)?;
    out.write_all(&masked_crc32c(data).to_le_bytes())
}

/// Reads records one by one; an iterator that ends after the first error.
///
/// A cut or corrupt record is `DataLoss` and names the file and the byte offset at which that record starts.
#[derive(Debug)]
pub struct RecordReader<R> {
    input: R,
    path: PathBuf,
    offset: u64,
    failed: bool,
}

impl RecordReader<BufReader<File>> {
    /// Opens a file of records.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        Ok(Self::new(BufReader::new(file), path))
    }
}

impl<R: Read> RecordReader<R> {
    /// Reads records from `input`; errors call it `path`.
    pub fn new(input: R, path: impl Into<PathBuf>) -> Self {
        RecordReader {
            input,
            path: path.into(),
            offset: 0,
            failed: false,
        }
    }

    /// The byte offset at which the next record starts: the length of what was read without error.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn read(&mut self) -> Result<Option<Vec<u8>>> {
        let header = self.read_up_to(HEADER as u64)?;
        if header.is_empty() {
            return Ok(None);
        }
        let Ok(header) = <[u8; HEADER]>::try_from(header) else {
            return Err(self.data_loss("is cut short in its header"));
        };
        let (length, crc) = header.split_at(8);
        if masked_crc32c(length) != le_u32(crc) {
            return Err(self.data_loss("has a corrupt length (checksum mismatch)"));
        }
        let length = length.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
        // Memory grows with what is really there, not with what the length claims.
        let data = self.read_up_to(length)?;
        if data.len() as u64 != length {
            let message = format!("is cut short: {} of {length} bytes are there", data.len());
            return Err(self.data_loss(&message));
        }
        let crc = self.read_up_to(4)?;
        if crc.len() != 4 {
            return Err(self.data_loss("is cut short before its checksum"));
        }
        if masked_crc32c(&data) != le_u32(&crc) {
            return Err(self.data_loss("has corrupt data (checksum mismatch)"));
        }
        self.offset += HEADER as u64 + length + 4;
        Ok(Some(data))
    }

    fn read_up_to(&mut self, count: u64) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        self.input
            .by_ref()
            .take(count)
            .read_to_end(&mut data)
            .map_err(|e| Error::io(&self.path, e))?;
        Ok(data)
    }

    fn data_loss(&self, what: &str) -> Error {
        Error::data_loss(format!(
            "{}: the record at offset {} {what}",
            self.path.display(),
            self.offset
        ))
    }
}

fn le_u32(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |n, &byte| n << 8 | u32::from(byte))
}

impl<R: Read> Iterator for RecordReader<R> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let record = self.read();
        self.failed = record.is_err();
        record.transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn write_all(records: &[Vec<u8>]) -> Vec<u8> {
        let mut file = Vec::new();
        for record in records {
            write_record(&mut file, record).unwrap();
        }
        file
    }

    /// The good records of `file` and how reading ended.
    fn read_all(file: &[u8]) -> (Vec<Vec<u8>>, Option<Error>) {
        let mut records = Vec::new();
        for record in RecordReader::new(file, "test") {
            match record {
                Ok(record) => records.push(record),
                Err(error) => return (records, Some(error)),
            }
        }
        (records, None)
    }

    #[test]
    fn known_bytes() {
        // Computed with tf.io.TFRecordWriter.
        let mut file = Vec::new();
        write_record(&mut file, b"abc").unwrap();
        assert_eq!(file, KNOWN);
    }

    #[rustfmt::skip]
    const KNOWN: [u8; 19] = [
        0x03, 0, 0, 0, 0, 0, 0, 0, 0xb0, 0x99, 0x49, 0x0e, 0x61, 0x62, 0x63, 0x6e, 0x57, 0xf1, 0x21,
    ];

    #[test]
    fn a_huge_length_is_not_allocated() {
        let length = (u64::MAX / 2).to_le_bytes();
        let mut file = length.to_vec();
        file.extend(masked_crc32c(&length).to_le_bytes());
        file.extend([1, 2, 3]);
        let error = read_all(&file).1.unwrap().to_string();
        assert!(error.contains("3 of 9223372036854775807 bytes"), "{error}");
    }

    proptest! {
        #[test]
        fn records_survive(records in vec(vec(any::<u8>(), 0..40), 0..6)) {
            let (read, error) = read_all(&write_all(&records));
            prop_assert!(error.is_none());
            prop_assert_eq!(read, records);
        }

        #[test]
        fn a_cut_file_gives_its_whole_records_then_an_error(
            records in vec(vec(any::<u8>(), 0..40), 1..6), cut in any::<prop::sample::Index>(),
        ) {
            let file = write_all(&records);
            let cut = cut.index(file.len());
            let ends: Vec<usize> = (0..=records.len()).map(|n| write_all(&records[..n]).len()).collect();
            let whole = ends.iter().filter(|&&end| end <= cut).count() - 1;
            let (read, error) = read_all(&file[..cut]);
            prop_assert_eq!(&read[..], &records[..whole]);
            match error {
                None => prop_assert_eq!(cut, ends[whole]),
                Some(error) => {
                    let place = format!("offset {} ", ends[whole]);
                    prop_assert!(error.to_string().contains(&place), "{}", error);
                }
            }
        }

        #[test]
        fn a_changed_byte_is_noticed(
            records in vec(vec(any::<u8>(), 0..40), 1..6), at in any::<prop::sample::Index>(), flip in 1..=255u8,
        ) {
            let mut file = write_all(&records);
            let at = at.index(file.len());
            file[at] ^= flip;
            prop_assert!(read_all(&file).1.is_some());
        }
    }
}
