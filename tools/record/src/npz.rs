//! NumPy's file of several arrays, `.npz`: a zip archive of `.npy` files, named `arr_0`, `arr_1`, ... where the arrays
//! come in an order.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use graph_core::{Error, Result, Value};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::npy;

/// The most bytes that the arrays of one archive may take. Compression makes a thousand bytes of one at most, so that
/// only a file made to do harm meets this.
pub const MAX_INFLATED_BYTES: u64 = 1 << 31;

/// Arrays below this many bytes are not worth compressing.
const MIN_COMPRESSED_BYTES: usize = 512;

/// The arrays `arr_0`, `arr_1`, ... of an archive, in this order.
///
/// # Errors
/// Whatever the operating system refuses, and those of [`parse`], with the path.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Value>> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|error| Error::io(path, error))?;
    parse(&bytes).map_err(|error| error.context(format!("reading {}", path.display())))
}

/// The arrays `arr_0`, `arr_1`, ... of an archive's bytes, in this order.
///
/// # Errors
/// `DataLoss` for bytes that are no zip archive or are cut short, for a checksum that is wrong, and for an archive whose
/// arrays are not numbered from 0; `ResourceExhausted` for one that says to inflate beyond [`MAX_INFLATED_BYTES`]; those
/// of [`npy::read`].
pub fn parse(bytes: &[u8]) -> Result<Vec<Value>> {
    let arrays = parse_named(bytes)?;
    let mut ordered: Vec<Option<Value>> = vec![None; arrays.len()];
    for (name, value) in arrays {
        let number = name
            .strip_prefix("arr_")
            .and_then(|number| number.parse::<usize>().ok());
        let place = number.and_then(|number| ordered.get_mut(number));
        match place {
            Some(place @ None) => *place = Some(value),
            _ => {
                return Err(Error::data_loss("the arrays are not numbered one after the other")
                    .expected("arr_0, arr_1, ...")
                    .got(name));
            }
        }
    }
    ordered
        .into_iter()
        .collect::<Option<Vec<Value>>>()
        .ok_or_else(|| Error::internal("as many numbers as arrays"))
}

/// The arrays of an archive's bytes and their names, in the archive's order.
///
/// # Errors
/// Those of [`parse`], numbering aside.
pub fn parse_named(bytes: &[u8]) -> Result<Vec<(String, Value)>> {
    let broken = |error: zip::result::ZipError| {
        Error::data_loss(format!("this is no zip archive, or cut short: {error}")).caused_by(error)
    };
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let mut arrays = Vec::new();
    let mut left = MAX_INFLATED_BYTES;
    let mut compressed_left = bytes.len() as u64;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(broken)?;
        let name = entry.name().map_err(broken)?;
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        // Entries that share their bytes would inflate the same file many times over.
        compressed_left = compressed_left.checked_sub(entry.compressed_size()).ok_or_else(|| {
            Error::data_loss("the entries of the archive overlap").got(format!("{} bytes in all", bytes.len()))
        })?;
        let mut inflated = Vec::new();
        // One byte more than allowed tells whether there is more.
        entry.take(left + 1).read_to_end(&mut inflated).map_err(|error| {
            Error::data_loss(format!("the array '{name}' cannot be unpacked: {error}")).caused_by(error)
        })?;
        left = left.checked_sub(inflated.len() as u64).ok_or_else(|| {
            Error::resource_exhausted("the archive is larger than is allowed")
                .expected(format!("at most {MAX_INFLATED_BYTES} bytes of arrays"))
        })?;
        let value = npy::read(&inflated).map_err(|error| error.context(format!("reading the array '{name}'")))?;
        arrays.push((name, value));
    }
    Ok(arrays)
}

/// The bytes of an archive of arrays `arr_0`, `arr_1`, ...; the same arrays give the same bytes.
///
/// # Errors
/// Those of [`npy::write`].
pub fn pack<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<Vec<u8>> {
    let mut number = 0..;
    pack_named(
        values
            .into_iter()
            .map(|value| (format!("arr_{}", number.next().unwrap_or(0)), value)),
    )
}

/// The bytes of an archive of arrays with these names.
///
/// # Errors
/// Those of [`npy::write`], and `InvalidArgument` for a name that is there twice.
pub fn pack_named<'a>(arrays: impl IntoIterator<Item = (String, &'a Value)>) -> Result<Vec<u8>> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, value) in arrays {
        let bytes = npy::write(value).map_err(|error| error.context(format!("writing the array '{name}'")))?;
        let method = match bytes.len() {
            0..MIN_COMPRESSED_BYTES => CompressionMethod::Stored,
            _ => CompressionMethod::Deflated,
        };
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .large_file(bytes.len() as u64 >= u64::from(u32::MAX));
        writer
            .start_file(format!("{name}.npy"), options)
            .map_err(|error| Error::invalid_argument(format!("cannot pack '{name}': {error}")).caused_by(error))?;
        writer
            .write_all(&bytes)
            .map_err(|error| Error::internal(format!("cannot pack '{name}': {error}")).caused_by(error))?;
    }
    let packed = writer
        .finish()
        .map_err(|error| Error::internal(format!("cannot pack the archive: {error}")).caused_by(error))?;
    Ok(packed.into_inner())
}

#[cfg(test)]
mod tests {
    use graph_core::DType;
    use proptest::prelude::*;

    use super::*;

    fn samples() -> Vec<Value> {
        vec![
            Value::from([1.0f32, 2.0]),
            Value::zeros(DType::Float64, [40, 50]).unwrap(),
            Value::from(7i64),
        ]
    }

    #[test]
    fn arrays_survive_the_archive() {
        let values = samples();
        let bytes = pack(&values).unwrap();
        assert!(bytes.len() < 2000, "zeros are compressed: {}", bytes.len());
        assert_eq!(parse(&bytes).unwrap(), values);
        assert_eq!(pack(&values).unwrap(), bytes);
        assert_eq!(parse(&pack(&[]).unwrap()).unwrap(), Vec::<Value>::new());
    }

    #[test]
    fn more_than_ten_arrays_keep_their_order() {
        let values: Vec<Value> = (0..12i32).map(Value::from).collect();
        let backwards = values.iter().enumerate().rev();
        let bytes = pack_named(backwards.map(|(index, value)| (format!("arr_{index}"), value))).unwrap();
        assert_eq!(parse(&bytes).unwrap(), values);
    }

    #[test]
    fn gaps_in_the_numbers_are_told() {
        let value = Value::from(1i32);
        for name in ["arr_1", "x", "arr_", "arr_18446744073709551615"] {
            let bytes = pack_named([(name.to_owned(), &value)]).unwrap();
            assert_eq!(parse(&bytes).unwrap_err().class(), "DataLoss");
            assert_eq!(parse_named(&bytes).unwrap()[0].0, name);
        }
    }

    #[test]
    fn a_changed_array_fails_its_checksum() {
        let mut bytes = pack(&[Value::from([1.0f32, 2.0])]).unwrap();
        let position = bytes
            .windows(8)
            .position(|window| window == [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40])
            .unwrap();
        bytes[position] ^= 1;
        assert_eq!(parse(&bytes).unwrap_err().class(), "DataLoss");
    }

    proptest! {
        #[test]
        fn cut_and_mutated_archives_never_panic(
            cut in 0..2000usize,
            changes in prop::collection::vec((0..2000usize, any::<u8>()), 0..4),
        ) {
            let mut bytes = pack(&samples()).unwrap();
            for (position, byte) in changes {
                let len = bytes.len();
                bytes[position % len] = byte;
            }
            bytes.truncate(cut.max(1));
            let _ = parse(&bytes);
        }
    }
}
