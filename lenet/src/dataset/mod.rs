//! The images a network learns from: MNIST and Fashion-MNIST.
//!
//! Both come as the same four gzipped IDX files ([`FILES`]). [`read_data_sets`] reads them into a [`Feed`]: 55,000
//! training, 5,000 validation and 10,000 test examples, from which [`DataSet::next_batch`] hands out mini batches.

mod ahead;
mod examples;
mod feed;
mod idx;
mod inputs;
mod shuffle;

use std::path::Path;

pub use ahead::{Batch, BatchesAhead};
pub use examples::Examples;
pub use feed::{DataSet, DataSetState, Feed};
pub use idx::{read_images, read_labels};
pub use inputs::{FashionMnist, Mnist, Placeholders};

use crate::error::{Error, Result};

/// Rows and columns of an image.
pub const SIDE: usize = 28;
/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;
/// Classes that a label tells apart.
pub const CLASSES: usize = crate::global_definitions::C;
/// How many of the first training images become the validation set.
pub const VALIDATION_SIZE: usize = 5_000;

/// The files of a dataset: training images and labels, test images and labels.
pub const FILES: [&str; 4] = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
];

const FASHION_HOME: &str = "https://github.com/zalandoresearch/fashion-mnist";

/// Reads the four files of MNIST or Fashion-MNIST in the folder `dir`.
///
/// The first [`VALIDATION_SIZE`] training images become the validation set. `seed` decides the order in which
/// [`DataSet::next_batch`] hands out examples.
///
/// # Errors
/// A file is missing, cut short, damaged or of another kind; its images are not 28 x 28; a label is above 9; images and
/// labels differ in number; there are fewer than [`VALIDATION_SIZE`] training images. Each error names its file.
///
/// # Example
/// ```no_run
/// let mut feed = lenet::dataset::read_data_sets("data", 1)?;
/// let (images, labels) = feed.train.next_batch(500)?;
/// assert_eq!((images.len(), labels.len()), (500 * 784, 500 * 10));
/// # Ok::<(), lenet::Error>(())
/// ```
pub fn read_data_sets(dir: impl AsRef<Path>, seed: u64) -> Result<Feed> {
    let dir = dir.as_ref();
    let [train_images, train_labels, test_images, test_labels] = FILES;
    let train = read_examples(&dir.join(train_images), &dir.join(train_labels))?;
    let test = read_examples(&dir.join(test_images), &dir.join(test_labels))?;
    Feed::new(train, test, VALIDATION_SIZE, seed)
}

fn read_examples(images_path: &Path, labels_path: &Path) -> Result<Examples> {
    let pixels = read_images(images_path)?;
    let labels = read_labels(labels_path)?;
    let images = pixels.len() / PIXELS;
    if images != labels.len() {
        let (images_path, labels_path) = (images_path.to_owned(), labels_path.to_owned());
        return Err(Error::CountMismatch {
            images_path,
            images,
            labels_path,
            labels: labels.len(),
        });
    }
    Examples::new(pixels, labels)
}

/// What to do when the file at `path` is missing.
fn where_to_get(path: &Path) -> String {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.display().to_string(),
        _ => ".".to_owned(),
    };
    let [train_images, train_labels, test_images, test_labels] = FILES;
    format!(
        "The folder {dir} must hold the four files {train_images}, {train_labels}, {test_images} and {test_labels}. \
         MNIST's are in the data folder of this repository; Fashion-MNIST's come from {FASHION_HOME}"
    )
}

/// Small dataset files for tests.
#[cfg(test)]
mod test_files {
    use std::io::Write;

    /// Gzips `bytes`.
    pub fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    pub fn images_file(pixels: &[u8]) -> Vec<u8> {
        idx(&[2051, (pixels.len() / super::PIXELS) as u32, 28, 28], pixels)
    }

    pub fn labels_file(labels: &[u8]) -> Vec<u8> {
        idx(&[2049, labels.len() as u32], labels)
    }

    fn idx(header: &[u32], content: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend(content);
        gz(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use test_files::{images_file, labels_file};

    fn mnist() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../data")
    }

    fn write(dir: &Path, images: [usize; 2], labels: [usize; 2]) {
        for set in 0..2 {
            std::fs::write(dir.join(FILES[2 * set]), images_file(&vec![0; images[set] * PIXELS])).unwrap();
            std::fs::write(dir.join(FILES[2 * set + 1]), labels_file(&vec![0; labels[set]])).unwrap();
        }
    }

    /// A checksum that depends on every byte and its place (FNV-1a, 64 bits).
    fn checksum(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    }

    #[test]
    fn the_repositorys_mnist_is_the_original() {
        let feed = read_data_sets(mnist(), 1).unwrap();
        let sets = [&feed.train, &feed.validation, &feed.test];
        assert_eq!(sets.map(DataSet::num_examples), [55_000, 5_000, 10_000]);
        // The labels of the original files: train 5 0 4 1 9 2 1 3 1 4, test 7 2 1 0 4 1 4 9 5 9.
        assert_eq!(feed.validation.classes(0..10).unwrap(), [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
        assert_eq!(feed.test.classes(0..10).unwrap(), [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
        let sums = sets.map(|set| {
            let rows = 0..set.num_examples();
            (
                checksum(set.pixels(rows.clone()).unwrap()),
                checksum(set.classes(rows).unwrap()),
            )
        });
        let expected = [
            (0xf5af_4ded_76de_6f95, 0xbde0_9a5b_7da0_3864),
            (0x8f98_7920_dcd1_f29e, 0xca17_fbbb_c6ad_242c),
            (0x8614_c3e5_5764_d65f, 0xfca1_a11d_31bd_96bb),
        ];
        assert_eq!(sums, expected, "{sums:#x?}");
    }

    #[test]
    fn a_folder_without_files_says_what_belongs_there() {
        let folder = tempfile::tempdir().unwrap();
        let error = read_data_sets(folder.path().join("fashion"), 1).unwrap_err();
        assert!(
            matches!(&error, Error::MissingFile { path, .. } if path.ends_with(FILES[0])),
            "{error}"
        );
    }

    #[test]
    fn images_and_labels_must_agree_in_number() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), [3, 2], [3, 1]);
        let error = read_data_sets(folder.path(), 1).unwrap_err();
        assert!(
            matches!(
                error,
                Error::CountMismatch {
                    images: 2,
                    labels: 1,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_training_set_smaller_than_the_validation_set_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), [3, 2], [3, 2]);
        let error = read_data_sets(folder.path(), 1).unwrap_err();
        assert!(
            matches!(
                error,
                Error::ValidationSize {
                    validation: 5000,
                    training: 3
                }
            ),
            "{error}"
        );
    }
}
