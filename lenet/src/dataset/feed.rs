//! Training, validation and test examples, handed out whole or in shuffled mini batches.

use std::ops::Range;
use std::sync::Arc;

use super::examples::{Examples, write_brightness, write_one_hot};
use super::shuffle::permute;
use super::{CLASSES, PIXELS};
use crate::error::{Error, Result};

/// The three parts of a dataset.
#[derive(Debug, Clone)]
pub struct Feed {
    /// What the network learns from.
    pub train: DataSet,
    /// Held back from the training examples to tune constants with.
    pub validation: DataSet,
    /// What the network is judged by.
    pub test: DataSet,
}

impl Feed {
    /// Splits `train` into validation (its first `validation_size` examples) and training (the rest).
    ///
    /// `seed` decides the order of each part's batches; the parts' orders are independent of each other.
    ///
    /// # Errors
    /// [`Error::ValidationSize`] when there are fewer than `validation_size` training examples.
    pub fn new(train: Examples, test: Examples, validation_size: usize, seed: u64) -> Result<Self> {
        let training = train.count();
        if validation_size > training {
            return Err(Error::ValidationSize {
                validation: validation_size,
                training,
            });
        }
        let (train, test) = (Arc::new(train), Arc::new(test));
        let whole_test = 0..test.count();
        Ok(Self {
            train: DataSet::new(Arc::clone(&train), validation_size..training, seed, 0),
            validation: DataSet::new(train, 0..validation_size, seed, 1),
            test: DataSet::new(test, whole_test, seed, 2),
        })
    }
}

/// A set of examples and the place up to which they have been handed out.
///
/// A clone shares the examples and continues from the same place on its own.
#[derive(Debug, Clone)]
pub struct DataSet {
    examples: Arc<Examples>,
    /// The rows of `examples` that belong to this set.
    rows: Range<usize>,
    /// Keeps sets of one seed apart.
    stream: u64,
    state: DataSetState,
    /// The order of the epoch `order_epoch`: positions in this set.
    order: Vec<u32>,
    order_epoch: Option<u64>,
}

/// Where a [`DataSet`] stands: all that is needed to hand out the same batches again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSetState {
    /// Decides the order of every epoch.
    pub seed: u64,
    /// Epochs that batches have gone beyond.
    pub epochs_completed: u64,
    /// Examples of the current epoch already handed out.
    pub index_in_epoch: u64,
    /// Size of the set that the position belongs to.
    pub num_examples: u64,
}

impl DataSet {
    fn new(examples: Arc<Examples>, rows: Range<usize>, seed: u64, stream: u64) -> Self {
        let state = DataSetState {
            seed,
            epochs_completed: 0,
            index_in_epoch: 0,
            num_examples: rows.len() as u64,
        };
        Self {
            examples,
            rows,
            stream,
            state,
            order: Vec::new(),
            order_epoch: None,
        }
    }

    /// How many examples the set holds.
    pub fn num_examples(&self) -> usize {
        self.rows.len()
    }

    /// How many epochs the batches have gone beyond. As in TensorFlow, an epoch counts when a batch reaches into the
    /// next one, not yet when the last example has been handed out.
    pub fn epochs_completed(&self) -> u64 {
        self.state.epochs_completed
    }

    /// The images `rows` in the order of the file: `f32` of shape `[rows, 784]` in row-major order, 0 to 1.
    ///
    /// # Errors
    /// [`Error::Rows`] when the set has no such rows.
    pub fn images(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let pixels = self.pixels(rows)?;
        let mut images = vec![0.0; pixels.len()];
        write_brightness(pixels, &mut images);
        Ok(images)
    }

    /// The labels `rows` in the order of the file: one-hot `f32` of shape `[rows, 10]` in row-major order.
    ///
    /// # Errors
    /// [`Error::Rows`] when the set has no such rows.
    pub fn labels(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let classes = self.classes(rows)?;
        let mut labels = vec![0.0; classes.len() * CLASSES];
        write_one_hot(classes, &mut labels);
        Ok(labels)
    }

    /// The pixels of the images `rows` as the file holds them: `u8` of shape `[rows, 28, 28]`, 0 to 255.
    ///
    /// # Errors
    /// [`Error::Rows`] when the set has no such rows.
    pub fn pixels(&self, rows: Range<usize>) -> Result<&[u8]> {
        let rows = self.file_rows(rows)?;
        Ok(self.examples.pixels(rows))
    }

    /// The classes of the images `rows` as the file holds them: `u8` of shape `[rows]`, 0 to 9.
    ///
    /// # Errors
    /// [`Error::Rows`] when the set has no such rows.
    pub fn classes(&self, rows: Range<usize>) -> Result<&[u8]> {
        let rows = self.file_rows(rows)?;
        Ok(self.examples.classes(rows))
    }

    fn file_rows(&self, rows: Range<usize>) -> Result<Range<usize>> {
        if rows.start > rows.end || rows.end > self.num_examples() {
            return Err(Error::Rows {
                rows,
                examples: self.num_examples(),
            });
        }
        Ok(self.rows.start + rows.start..self.rows.start + rows.end)
    }

    /// The next `batch_size` examples in shuffled order.
    ///
    /// Returns images, `f32` of shape `[batch_size, 784]`, 0 to 1, and one-hot labels, `f32` of shape
    /// `[batch_size, 10]`, both in row-major order. Each epoch hands out every example once, in an order of its own.
    /// Where an epoch has fewer examples left than the batch needs, the batch takes those and fills up from the next.
    ///
    /// # Errors
    /// [`Error::BatchSize`] when `batch_size` is 0 or larger than the set.
    pub fn next_batch(&mut self, batch_size: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        self.check_batch_size(batch_size)?;
        let mut images = vec![0.0; batch_size * PIXELS];
        let mut labels = vec![0.0; batch_size * CLASSES];
        self.next_batch_into(batch_size, &mut images, &mut labels)?;
        Ok((images, labels))
    }

    /// As [`next_batch`](Self::next_batch), into buffers of `batch_size * 784` and `batch_size * 10` elements, which it
    /// overwrites. It allocates only for the first batch, which makes room for the order.
    ///
    /// # Errors
    /// [`Error::BatchSize`] as for `next_batch`; [`Error::BufferLength`] when a buffer has another length. The place in
    /// the set does not change then.
    pub fn next_batch_into(&mut self, batch_size: usize, images: &mut [f32], labels: &mut [f32]) -> Result<()> {
        self.check_batch_size(batch_size)?;
        check_buffer("images", batch_size, PIXELS, images)?;
        check_buffer("labels", batch_size, CLASSES, labels)?;
        let start = self.state.index_in_epoch as usize;
        let rest = batch_size.min(self.num_examples() - start);
        let (rest_images, next_images) = images.split_at_mut(rest * PIXELS);
        let (rest_labels, next_labels) = labels.split_at_mut(rest * CLASSES);
        self.gather(start..start + rest, rest_images, rest_labels);
        self.state.index_in_epoch += rest as u64;
        if rest < batch_size {
            let next = batch_size - rest;
            self.state.epochs_completed += 1;
            self.gather(0..next, next_images, next_labels);
            self.state.index_in_epoch = next as u64;
        }
        Ok(())
    }

    /// Whether batches of this size can be had from the set.
    ///
    /// # Errors
    /// [`Error::BatchSize`] when `batch_size` is 0 or larger than the set.
    pub fn check_batch_size(&self, batch_size: usize) -> Result<()> {
        let examples = self.num_examples();
        if (1..=examples).contains(&batch_size) {
            return Ok(());
        }
        Err(Error::BatchSize {
            got: batch_size,
            examples,
        })
    }

    /// Writes the examples at `places` of the current epoch's order.
    fn gather(&mut self, places: Range<usize>, images: &mut [f32], labels: &mut [f32]) {
        let DataSetState {
            seed,
            epochs_completed: epoch,
            ..
        } = self.state;
        if self.order_epoch != Some(epoch) && !places.is_empty() {
            permute(&mut self.order, self.rows.len() as u32, seed, self.stream, epoch);
            self.order_epoch = Some(epoch);
        }
        let buffers = images.chunks_exact_mut(PIXELS).zip(labels.chunks_exact_mut(CLASSES));
        for (place, (image, label)) in places.zip(buffers) {
            let row = self.rows.start + self.order[place] as usize;
            write_brightness(self.examples.pixels(row..row + 1), image);
            write_one_hot(self.examples.classes(row..row + 1), label);
        }
    }

    /// Where the set stands, to be kept for [`restore`](Self::restore).
    pub fn state(&self) -> DataSetState {
        self.state
    }

    /// Continues where `state` was taken: the batches that follow are those that followed then.
    ///
    /// # Errors
    /// [`Error::FeedState`] when the state belongs to a set of another size, or its index lies beyond the set.
    pub fn restore(&mut self, state: DataSetState) -> Result<()> {
        let examples = self.state.num_examples;
        if state.num_examples != examples {
            let problem = format!(
                "it belongs to {} examples, the set holds {examples}",
                state.num_examples
            );
            return Err(Error::FeedState { problem });
        }
        if state.index_in_epoch > examples {
            let problem = format!("its index {} lies beyond the {examples} examples", state.index_in_epoch);
            return Err(Error::FeedState { problem });
        }
        if state.seed != self.state.seed {
            self.order_epoch = None;
        }
        self.state = state;
        Ok(())
    }
}

fn check_buffer(kind: &'static str, batch_size: usize, row: usize, buffer: &[f32]) -> Result<()> {
    let expected = batch_size * row;
    if buffer.len() == expected {
        return Ok(());
    }
    Err(Error::BufferLength {
        kind,
        batch_size,
        expected,
        got: buffer.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` examples; the first two pixels of example `i` spell `i`, its label is `i % 10`.
    fn examples(count: usize) -> Examples {
        let mut pixels = vec![0; count * PIXELS];
        for (i, image) in pixels.chunks_exact_mut(PIXELS).enumerate() {
            image[0] = (i / 256) as u8;
            image[1] = (i % 256) as u8;
        }
        Examples::new(pixels, (0..count).map(|i| (i % 10) as u8).collect()).unwrap()
    }

    fn feed(seed: u64) -> Feed {
        Feed::new(examples(307), examples(20), 7, seed).unwrap()
    }

    /// Which examples a batch holds; checks that image and label belong together.
    fn ids(images: &[f32], labels: &[f32]) -> Vec<usize> {
        let images = images.chunks_exact(PIXELS);
        images
            .zip(labels.chunks_exact(CLASSES))
            .map(|(image, label)| {
                let id = (image[0] * 255.0).round() as usize * 256 + (image[1] * 255.0).round() as usize;
                let expected: Vec<f32> = (0..CLASSES)
                    .map(|class| f32::from(u8::from(class == id % 10)))
                    .collect();
                assert_eq!(label, expected);
                id
            })
            .collect()
    }

    fn take(set: &mut DataSet, batch_size: usize) -> Vec<usize> {
        let (images, labels) = set.next_batch(batch_size).unwrap();
        assert_eq!(
            (images.len(), labels.len()),
            (batch_size * PIXELS, batch_size * CLASSES)
        );
        ids(&images, &labels)
    }

    #[test]
    fn validation_takes_the_first_training_examples() {
        let feed = feed(1);
        let all = |set: &DataSet| {
            let rows = 0..set.num_examples();
            ids(&set.images(rows.clone()).unwrap(), &set.labels(rows).unwrap())
        };
        assert!(all(&feed.validation).into_iter().eq(0..7));
        assert!(all(&feed.train).into_iter().eq(7..307));
        assert!(all(&feed.test).into_iter().eq(0..20));
        assert!(matches!(
            Feed::new(examples(3), examples(3), 4, 1),
            Err(Error::ValidationSize {
                validation: 4,
                training: 3
            })
        ));
    }

    #[test]
    fn each_epoch_hands_out_every_example_once_in_its_own_order() {
        let mut train = feed(1).train;
        let epochs: Vec<Vec<usize>> = (0..3)
            .map(|_| (0..6).flat_map(|_| take(&mut train, 50)).collect())
            .collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(7..307));
            assert_ne!(&sorted, epoch);
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_ne!(epochs[1], epochs[2]);
    }

    #[test]
    fn an_epoch_counts_when_a_batch_reaches_into_the_next() {
        let mut train = feed(1).train;
        take(&mut train, 300);
        assert_eq!(train.epochs_completed(), 0);
        take(&mut train, 1);
        assert_eq!(train.epochs_completed(), 1);
        take(&mut train, 300);
        assert_eq!(train.epochs_completed(), 2);
    }

    #[test]
    fn batches_that_do_not_divide_the_set_wrap_around_without_loss() {
        let mut train = feed(1).train;
        let mut handed_out: Vec<usize> = (0..300).flat_map(|_| take(&mut train, 77)).collect();
        assert_eq!(train.epochs_completed(), 76);
        assert_eq!(train.state().index_in_epoch, 300);
        for epoch in handed_out.chunks_exact_mut(300) {
            epoch.sort_unstable();
            assert!(epoch.iter().copied().eq(7..307));
        }
    }

    #[test]
    fn the_seed_decides_the_order() {
        let batches = |seed| {
            let mut feed = feed(seed);
            (take(&mut feed.train, 100), take(&mut feed.test, 20))
        };
        assert_eq!(batches(1), batches(1));
        assert_ne!(batches(1).0, batches(2).0);
        assert_ne!(batches(1).1, batches(2).1);
    }

    #[test]
    fn the_order_of_a_seed_stays_the_same_between_releases() {
        assert_eq!(take(&mut feed(1).train, 5), [156, 291, 295, 274, 268]);
    }

    #[test]
    fn a_restored_set_hands_out_what_followed() {
        for batches_before in [0, 1, 2, 3, 5] {
            let mut train = feed(1).train;
            for _ in 0..batches_before {
                take(&mut train, 100);
            }
            let state = train.state();
            let followed: Vec<_> = (0..4).map(|_| take(&mut train, 130)).collect();
            let mut fresh = feed(99).train;
            take(&mut fresh, 10);
            for set in [&mut train, &mut fresh] {
                set.restore(state).unwrap();
                assert_eq!((0..4).map(|_| take(set, 130)).collect::<Vec<_>>(), followed);
            }
        }
    }

    #[test]
    fn a_state_of_another_set_is_refused() {
        let mut feed = feed(1);
        assert!(matches!(
            feed.train.restore(feed.test.state()),
            Err(Error::FeedState { .. })
        ));
        let beyond = DataSetState {
            index_in_epoch: 301,
            ..feed.train.state()
        };
        assert!(matches!(feed.train.restore(beyond), Err(Error::FeedState { .. })));
    }

    #[test]
    fn impossible_batches_and_buffers_are_errors_that_change_nothing() {
        let mut train = feed(1).train;
        let before = train.state();
        assert!(matches!(
            train.next_batch(0),
            Err(Error::BatchSize { got: 0, examples: 300 })
        ));
        assert!(matches!(
            train.next_batch(301),
            Err(Error::BatchSize {
                got: 301,
                examples: 300
            })
        ));
        assert!(matches!(train.next_batch(usize::MAX), Err(Error::BatchSize { .. })));
        let (mut images, mut labels) = (vec![0.0; 2 * PIXELS], vec![0.0; 2 * CLASSES]);
        for (batch_size, wrong) in [(1, "images"), (3, "images")] {
            let error = train.next_batch_into(batch_size, &mut images, &mut labels).unwrap_err();
            assert!(
                matches!(error, Error::BufferLength { kind, .. } if kind == wrong),
                "{error}"
            );
        }
        let error = train.next_batch_into(2, &mut images, &mut labels[1..]).unwrap_err();
        assert!(
            matches!(
                error,
                Error::BufferLength {
                    kind: "labels",
                    expected: 20,
                    got: 19,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(train.state(), before);
        assert!(matches!(train.images(0..301), Err(Error::Rows { .. })));
        let backwards = Range { start: 2, end: 1 };
        assert!(matches!(train.labels(backwards), Err(Error::Rows { .. })));
    }

    #[test]
    fn a_used_buffer_is_overwritten() {
        let mut feed = feed(1);
        let expected = feed.train.clone().next_batch(2).unwrap();
        let mut buffers = (vec![9.0; 2 * PIXELS], vec![9.0; 2 * CLASSES]);
        feed.train.next_batch_into(2, &mut buffers.0, &mut buffers.1).unwrap();
        assert_eq!(buffers, expected);
    }
}
