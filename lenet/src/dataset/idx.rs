//! Reads gzipped IDX files, the format in which MNIST and Fashion-MNIST come.
//!
//! An IDX file is a big-endian header of 32-bit words (a magic number, then one length a dimension), followed by the
//! bytes of the array in row-major order. The magic number tells the element type and the rank: 2051 = `0x0803` is
//! unsigned bytes of rank 3 (images), 2049 = `0x0801` unsigned bytes of rank 1 (labels).
//!
//! Nothing in a file is trusted: memory grows with the bytes that really arrive, not with what a header announces.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;

use super::examples::check_labels;
use super::{PIXELS, SIDE};
use crate::error::{Error, Result};

const IMAGES_MAGIC: u32 = 2051;
const LABELS_MAGIC: u32 = 2049;

/// Bytes reserved at once for each byte of the compressed file. MNIST's images unpack to about five times their size;
/// what unpacks to more grows as it is read.
const RESERVED_PER_COMPRESSED_BYTE: u64 = 8;

/// Reads the images of a gzipped IDX file.
///
/// Returns the pixels, `u8` of shape `[n, 28, 28]` in row-major order, 0 (background) to 255.
///
/// # Errors
/// The file is missing, unreadable, not gzip, cut short or damaged; its magic number is not 2051; its images are not
/// 28 x 28; it holds fewer or more bytes than its header announces.
pub fn read_images(path: &Path) -> Result<Vec<u8>> {
    let mut file = IdxFile::open(path)?;
    file.expect_magic("images", IMAGES_MAGIC)?;
    let [count, rows, columns] = file.header()?;
    if (rows, columns) != (SIDE as u32, SIDE as u32) {
        return Err(Error::ImageSize {
            path: path.to_owned(),
            rows,
            columns,
        });
    }
    file.content("images", count, PIXELS as u64)
}

/// Reads the labels of a gzipped IDX file.
///
/// Returns the classes, `u8` of shape `[n]`, each 0 to 9.
///
/// # Errors
/// As for [`read_images`], with the magic number 2049; or a label is above 9.
pub fn read_labels(path: &Path) -> Result<Vec<u8>> {
    let mut file = IdxFile::open(path)?;
    file.expect_magic("labels", LABELS_MAGIC)?;
    let [count] = file.header()?;
    let labels = file.content("labels", count, 1)?;
    check_labels(&labels, Some(path))?;
    Ok(labels)
}

/// An open file and the place in its unpacked content.
struct IdxFile<'a> {
    path: &'a Path,
    compressed_size: u64,
    unpacked: GzDecoder<BufReader<File>>,
}

impl<'a> IdxFile<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Error::MissingFile {
                path: path.to_owned(),
                advice: super::where_to_get(path),
            },
            _ => Error::Read {
                path: path.to_owned(),
                source,
            },
        };
        let file = File::open(path).map_err(failed)?;
        let compressed_size = file.metadata().map_err(failed)?.len();
        let mut compressed = BufReader::with_capacity(1 << 16, file);
        let start = compressed.fill_buf().map_err(failed)?;
        if start.len() >= 2 && !start.starts_with(&[0x1f, 0x8b]) {
            return Err(Error::NotGzip {
                path: path.to_owned(),
                found: start[..2].to_vec(),
            });
        }
        Ok(Self {
            path,
            compressed_size,
            unpacked: GzDecoder::new(compressed),
        })
    }

    /// The next `N` header words.
    fn header<const N: usize>(&mut self) -> Result<[u32; N]> {
        let mut bytes = Vec::with_capacity(4 * N);
        self.read_up_to(4 * N as u64, &mut bytes)?;
        if bytes.len() < 4 * N {
            return Err(Error::Header {
                path: self.path.to_owned(),
            });
        }
        Ok(std::array::from_fn(|i| {
            u32::from_be_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
        }))
    }

    fn expect_magic(&mut self, kind: &'static str, expected: u32) -> Result<()> {
        let [got] = self.header()?;
        if got == expected {
            return Ok(());
        }
        Err(Error::Magic {
            path: self.path.to_owned(),
            kind,
            expected,
            got,
        })
    }

    /// The rest of the file, which must be exactly `announced` items of `item_size` bytes.
    fn content(mut self, kind: &'static str, announced: u32, item_size: u64) -> Result<Vec<u8>> {
        let expected = u64::from(announced) * item_size;
        let plausible = self.compressed_size.saturating_mul(RESERVED_PER_COMPRESSED_BYTE);
        let mut bytes = Vec::with_capacity(expected.min(plausible) as usize);
        // One byte more than expected: it tells a longer file, and makes the decoder reach and verify the checksum.
        self.read_up_to(expected + 1, &mut bytes)?;
        let got = bytes.len() as u64;
        if got != expected {
            let (path, more) = (self.path.to_owned(), got > expected);
            return Err(Error::Content {
                path,
                kind,
                announced,
                expected,
                got,
                more,
            });
        }
        Ok(bytes)
    }

    fn read_up_to(&mut self, limit: u64, bytes: &mut Vec<u8>) -> Result<()> {
        let path = || self.path.to_owned();
        match (&mut self.unpacked).take(limit).read_to_end(bytes) {
            Ok(_) => Ok(()),
            Err(source) => Err(match source.kind() {
                io::ErrorKind::UnexpectedEof => Error::CutShort { path: path() },
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Error::Damaged { path: path(), source },
                _ => Error::Read { path: path(), source },
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::test_files::{gz, images_file, labels_file};
    use std::path::PathBuf;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self, bytes: &[u8]) -> PathBuf {
            let path = self.0.path().join("file.gz");
            std::fs::write(&path, bytes).unwrap();
            path
        }
    }

    fn header(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn images_and_labels_come_back_as_written() {
        let folder = Folder::new();
        let pixels: Vec<u8> = (0..3 * PIXELS).map(|i| (i % 251) as u8).collect();
        assert_eq!(read_images(&folder.file(&images_file(&pixels))).unwrap(), pixels);
        assert_eq!(read_labels(&folder.file(&labels_file(&[3, 0, 9]))).unwrap(), [3, 0, 9]);
        assert_eq!(read_labels(&folder.file(&labels_file(&[]))).unwrap(), []);
    }

    #[test]
    fn a_missing_file_says_which_files_belong_there_and_where_they_come_from() {
        let folder = Folder::new();
        let error = read_images(&folder.0.path().join("train-images-idx3-ubyte.gz")).unwrap_err();
        assert!(matches!(error, Error::MissingFile { .. }));
        let message = error.to_string();
        for word in crate::dataset::FILES
            .iter()
            .chain(&["https://github.com/zalandoresearch/fashion-mnist"])
        {
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn every_cut_of_a_file_is_an_error() {
        let folder = Folder::new();
        let whole = images_file(&vec![7; 2 * PIXELS]);
        for length in 0..whole.len() {
            let error = read_images(&folder.file(&whole[..length])).unwrap_err();
            assert!(
                matches!(error, Error::CutShort { .. }),
                "{length} of {} bytes: {error}",
                whole.len()
            );
        }
    }

    #[test]
    fn a_changed_byte_is_an_error_or_harmless() {
        let folder = Folder::new();
        let pixels: Vec<u8> = (0..PIXELS).map(|i| (i * 31 % 256) as u8).collect();
        let whole = images_file(&pixels);
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 0x10;
            // The time stamp and system in the gzip header and the padding after the last code carry no data.
            if let Ok(read) = read_images(&folder.file(&changed)) {
                assert!(read == pixels, "byte {place}");
            }
        }
    }

    #[test]
    fn a_file_that_is_not_gzip_is_told_from_a_damaged_one() {
        let folder = Folder::new();
        let error = read_labels(&folder.file(b"<html>not found</html>")).unwrap_err();
        assert!(
            matches!(&error, Error::NotGzip { found, .. } if found == b"<h"),
            "{error}"
        );
        let mut damaged = labels_file(&[1, 2, 3]);
        let checksum = damaged.len() - 8;
        damaged[checksum] ^= 1;
        assert!(matches!(
            read_labels(&folder.file(&damaged)),
            Err(Error::Damaged { .. })
        ));
    }

    #[test]
    fn the_wrong_magic_number_is_named() {
        let folder = Folder::new();
        let error = read_images(&folder.file(&gz(&header(&[2049, 1, 28, 28])))).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Magic {
                    expected: 2051,
                    got: 2049,
                    ..
                }
            ),
            "{error}"
        );
        let error = read_labels(&folder.file(&gz(&header(&[2051])))).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Magic {
                    expected: 2049,
                    got: 2051,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn images_of_another_size_are_refused() {
        let folder = Folder::new();
        let mut file = header(&[2051, 1, 32, 28]);
        file.extend([0; 32 * 28]);
        let error = read_images(&folder.file(&gz(&file))).unwrap_err();
        assert!(
            matches!(
                error,
                Error::ImageSize {
                    rows: 32,
                    columns: 28,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_short_header_is_an_error() {
        let folder = Folder::new();
        let error = read_images(&folder.file(&gz(&header(&[2051, 1])))).unwrap_err();
        assert!(matches!(error, Error::Header { .. }), "{error}");
    }

    #[test]
    fn a_header_that_lies_allocates_nothing_near_its_claim() {
        let folder = Folder::new();
        // 2^32 - 1 images are 3.4 TB.
        let error = read_images(&folder.file(&gz(&header(&[2051, u32::MAX, 28, 28])))).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Content {
                    announced: u32::MAX,
                    got: 0,
                    more: false,
                    ..
                }
            ),
            "{error}"
        );
        let mut longer = header(&[2049, 2]);
        longer.extend([1, 2, 3]);
        let error = read_labels(&folder.file(&gz(&longer))).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Content {
                    announced: 2,
                    expected: 2,
                    more: true,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_label_out_of_range_is_named_with_its_place() {
        let folder = Folder::new();
        let error = read_labels(&folder.file(&labels_file(&[1, 9, 10, 11]))).unwrap_err();
        assert!(matches!(error, Error::Label { index: 2, got: 10, .. }), "{error}");
        assert!(
            error.to_string().ends_with("label 2 is 10; labels are 0 to 9"),
            "{error}"
        );
    }
}
