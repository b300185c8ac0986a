//! Datasets as the network sees them: placeholders, and what feeds them.

use std::path::Path;

use graph_core::Tensor;
use graph_ops::array::placeholder;
use graph_ops::state::variable_scope;

use crate::dataset::{CLASSES, Feed, PIXELS, read_data_sets};
use crate::error::Result;

/// The placeholders of images and labels, in the scope `dataset_inputs`.
#[derive(Debug, Clone)]
pub struct Placeholders {
    /// `float` [batch, 784], pixels from 0 to 1.
    pub images: Tensor,
    /// `float` [batch, 10], one-hot.
    pub labels: Tensor,
}

impl Placeholders {
    /// Makes them in the current graph.
    ///
    /// # Errors
    /// A graph that is finalized.
    pub fn new() -> Result<Self> {
        let _scope = variable_scope("dataset_inputs")?;
        let images = placeholder::<f32>([None, Some(PIXELS)]).name("images").build()?;
        let labels = placeholder::<f32>([None, Some(CLASSES)]).name("labels").build()?;
        Ok(Self { images, labels })
    }
}

/// Handwritten digits: placeholders in the current graph, and the images and labels to feed them.
#[derive(Debug, Clone)]
pub struct Mnist {
    /// The placeholder of the images: `float` [batch, 784].
    pub images: Tensor,
    /// The placeholder of the labels: `float` [batch, 10], one-hot.
    pub labels: Tensor,
    /// Training, validation and test images and labels.
    pub feed: Feed,
}

impl Mnist {
    /// Reads the four files in `dir`; `seed` decides the order of the training batches.
    ///
    /// # Errors
    /// Those of [`read_data_sets`].
    pub fn new(dir: impl AsRef<Path>, seed: u64) -> Result<Self> {
        let feed = read_data_sets(dir, seed)?;
        let Placeholders { images, labels } = Placeholders::new()?;
        Ok(Self { images, labels, feed })
    }
}

/// Articles of clothing in the format of handwritten digits.
#[derive(Debug, Clone)]
pub struct FashionMnist(Mnist);

impl FashionMnist {
    /// Reads the four files in `dir`, usually `data/fashion`; `seed` decides the order of the training batches.
    ///
    /// # Errors
    /// Those of [`read_data_sets`]; that of a missing file says where the files come from.
    pub fn new(dir: impl AsRef<Path>, seed: u64) -> Result<Self> {
        Mnist::new(dir, seed).map(Self)
    }
}

impl std::ops::Deref for FashionMnist {
    type Target = Mnist;

    fn deref(&self) -> &Mnist {
        &self.0
    }
}

impl From<FashionMnist> for Mnist {
    fn from(fashion: FashionMnist) -> Self {
        fashion.0
    }
}
