//! Images and labels in memory, and how they become numbers.
//!
//! Pixels stay bytes in memory (55 MB for MNIST; as `f32` they would take 220 MB) and become `f32` as they are handed
//! out: `pixel as f32 / 255.0`, rounded once. This is what the reference runs under TensorFlow were fed. The reader in
//! TensorFlow's own tutorial multiplies by `1.0 / 255.0` rounded to `f32` instead, which differs in the last bit for 126
//! of the 256 values.

use std::ops::Range;
use std::path::Path;

use super::{CLASSES, PIXELS};
use crate::error::{Error, Result};

/// Images and their labels as the files hold them.
#[derive(Debug)]
pub struct Examples {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Examples {
    /// Takes `pixels`, `u8` of shape `[n, 28, 28]`, and `labels`, `u8` of shape `[n]`, each 0 to 9.
    ///
    /// # Errors
    /// [`Error::ExampleShape`] when the lengths do not fit each other, [`Error::Label`] when a label is above 9.
    pub fn new(pixels: Vec<u8>, labels: Vec<u8>) -> Result<Self> {
        if pixels.len() != labels.len() * PIXELS {
            return Err(Error::ExampleShape {
                pixels: pixels.len(),
                labels: labels.len(),
            });
        }
        check_labels(&labels, None)?;
        Ok(Self { pixels, labels })
    }

    /// How many examples there are.
    pub fn count(&self) -> usize {
        self.labels.len()
    }

    /// The pixels of the images `rows`: `u8` of shape `[rows, 28, 28]`. The rows must exist.
    pub(super) fn pixels(&self, rows: Range<usize>) -> &[u8] {
        &self.pixels[rows.start * PIXELS..rows.end * PIXELS]
    }

    /// The classes of the images `rows`: `u8` of shape `[rows]`. The rows must exist.
    pub(super) fn classes(&self, rows: Range<usize>) -> &[u8] {
        &self.labels[rows]
    }
}

/// Writes the brightness of `pixels`, 0 to 1, to the same places of `image`.
pub(super) fn write_brightness(pixels: &[u8], image: &mut [f32]) {
    for (value, &pixel) in image.iter_mut().zip(pixels) {
        *value = f32::from(pixel) / 255.0;
    }
}

/// Writes each class as a one-hot row of `labels`, `f32` of shape `[classes, 10]`.
pub(super) fn write_one_hot(classes: &[u8], labels: &mut [f32]) {
    labels.fill(0.0);
    for (row, &class) in labels.chunks_exact_mut(CLASSES).zip(classes) {
        row[usize::from(class)] = 1.0;
    }
}

/// Refuses labels that are no class; `path` is the file they come from.
pub(super) fn check_labels(labels: &[u8], path: Option<&Path>) -> Result<()> {
    let Some(index) = labels.iter().position(|&label| usize::from(label) >= CLASSES) else {
        return Ok(());
    };
    Err(Error::Label {
        path: path.map(Path::to_owned),
        index,
        got: labels[index],
        classes: CLASSES,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_divided_by_255_in_single_precision() {
        let pixels: Vec<u8> = (0..=255).collect();
        let mut image = [0.0; 256];
        write_brightness(&pixels, &mut image);
        for (&pixel, value) in pixels.iter().zip(image) {
            let exact = f64::from(pixel) / 255.0;
            // A double quotient of small integers is never near a rounding border of f32, so rounding twice is safe.
            assert_eq!(value, exact as f32);
        }
        let by_multiplication = (0..256).filter(|&x| x as f32 * (1.0f32 / 255.0) != image[x]).count();
        assert_eq!(by_multiplication, 126);
    }

    #[test]
    fn examples_must_fit_each_other() {
        assert!(matches!(
            Examples::new(vec![0; 785], vec![0]),
            Err(Error::ExampleShape { pixels: 785, labels: 1 })
        ));
        assert!(matches!(
            Examples::new(vec![0; 784], vec![10]),
            Err(Error::Label { index: 0, got: 10, .. })
        ));
    }
}
