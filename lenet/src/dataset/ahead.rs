//! Mini batches prepared ahead: while a step runs, another thread gathers the examples of the next one.

use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;

use graph_core::Value;

use super::{CLASSES, DataSet, DataSetState, PIXELS};
use crate::error::{Error, Result};

/// A mini batch, and where the set stands behind it.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `float` [batch, 784], 0 to 1.
    pub images: Value,
    /// One-hot, `float` [batch, 10].
    pub labels: Value,
    /// Where the set stands once this batch is handed out.
    pub state: DataSetState,
}

impl DataSet {
    /// As [`next_batch`](Self::next_batch), as values to feed.
    ///
    /// # Errors
    /// As there.
    pub fn next_values(&mut self, batch_size: usize) -> Result<Batch> {
        self.check_batch_size(batch_size)?;
        let images = Value::zeros(graph_core::DType::Float32, [batch_size, PIXELS])?;
        let labels = Value::zeros(graph_core::DType::Float32, [batch_size, CLASSES])?;
        self.next_values_in(batch_size, images, labels)
    }

    /// [`DataSet::next_values`] in the memory of values that were one before.
    fn next_values_in(&mut self, batch_size: usize, mut images: Value, mut labels: Value) -> Result<Batch> {
        self.next_batch_into(batch_size, images.as_mut_slice()?, labels.as_mut_slice()?)?;
        Ok(Batch {
            images,
            labels,
            state: self.state(),
        })
    }
}

/// The next mini batches of a set, in its order, each prepared while the one before is in use.
///
/// The set itself stays where it is; a user who has taken a batch moves it to the batch's state. Batches that come back by
/// [`BatchesAhead::give_back`] are memory for later ones: fresh memory costs more than to fill it.
#[derive(Debug)]
pub struct BatchesAhead {
    batches: Receiver<Result<Batch>>,
    /// Where used values go.
    used: Sender<[Value; 2]>,
    /// The last that came back, which a session still holds until it is fed the next.
    last: Option<[Value; 2]>,
}

impl BatchesAhead {
    /// The `count` mini batches that follow in `set`. The thread that prepares them ends with them, or when this is dropped.
    ///
    /// # Errors
    /// [`Error::BatchSize`] when `batch_size` is 0 or larger than the set, and [`Error::Progress`] when there can be no thread.
    pub fn new(set: &DataSet, batch_size: usize, count: u64) -> Result<Self> {
        set.check_batch_size(batch_size)?;
        let mut set = set.clone();
        // One waits here, and one is prepared to follow it.
        let (sender, batches) = sync_channel(1);
        let (used, spare) = channel::<[Value; 2]>();
        let prepare = move || {
            for _ in 0..count {
                let batch = match spare.try_recv() {
                    Ok([images, labels]) => set.next_values_in(batch_size, images, labels),
                    Err(_) => set.next_values(batch_size),
                };
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("batches".to_owned());
        thread.spawn(prepare).map_err(Error::Progress)?;
        Ok(Self {
            batches,
            used,
            last: None,
        })
    }

    /// Takes images and labels of a batch back that was handed out, for their memory. Whoever else holds them may do so.
    pub fn give_back(&mut self, images: Value, labels: Value) {
        if let Some(used) = self.last.replace([images, labels]) {
            // When all batches are there, nobody wants them.
            let _ = self.used.send(used);
        }
    }
}

impl Iterator for BatchesAhead {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Examples, Feed};
    use super::*;

    fn train() -> DataSet {
        let pixels = (0..30 * PIXELS).map(|i| (i % 251) as u8).collect();
        let labels = (0..30).map(|i| (i % 10) as u8).collect();
        let examples = || Examples::new(Vec::clone(&pixels), Vec::clone(&labels)).unwrap();
        Feed::new(examples(), examples(), 0, 1).unwrap().train
    }

    #[test]
    fn batches_and_states_are_those_that_follow() {
        let mut set = train();
        set.next_batch(4).unwrap();
        let start = set.state();
        let batches: Vec<Batch> = BatchesAhead::new(&set, 7, 9).unwrap().map(Result::unwrap).collect();
        assert_eq!((batches.len(), set.state()), (9, start));
        for batch in batches {
            let (images, labels) = set.next_batch(7).unwrap();
            assert_eq!(batch.images, Value::from_vec([7, PIXELS], images).unwrap());
            assert_eq!(batch.labels, Value::from_vec([7, CLASSES], labels).unwrap());
            assert_eq!(batch.state, set.state());
        }
    }

    #[test]
    fn batches_in_used_memory_are_those_in_fresh_memory() {
        let mut set = train();
        let mut ahead = BatchesAhead::new(&set, 7, 20).unwrap();
        let mut kept = Vec::new();
        let mut addresses = std::collections::HashSet::new();
        while let Some(batch) = ahead.next() {
            let Batch { images, labels, .. } = batch.unwrap();
            let (expected_images, expected_labels) = set.next_batch(7).unwrap();
            assert_eq!(images, Value::from_vec([7, PIXELS], expected_images).unwrap());
            assert_eq!(labels, Value::from_vec([7, CLASSES], expected_labels).unwrap());
            addresses.insert(images.bytes().as_ptr() as usize);
            // Somebody may hold on to one, which then stays as it is.
            if kept.len() < 2 {
                kept.push((images.clone(), images.as_slice::<f32>().unwrap().to_vec()));
            }
            ahead.give_back(images, labels);
        }
        assert!(
            addresses.len() < 15,
            "{} of 20 batches lie in memory of their own",
            addresses.len()
        );
        assert!(
            kept.iter()
                .all(|(images, then)| images.as_slice::<f32>().unwrap() == then)
        );
    }

    #[test]
    fn whoever_stops_early_goes_on_from_the_last_batch_taken() {
        let mut set = train();
        let mut ahead = BatchesAhead::new(&set, 7, u64::MAX).unwrap();
        let second = ahead.by_ref().nth(1).unwrap().unwrap();
        drop(ahead);
        set.restore(second.state).unwrap();
        let mut other = train();
        other.next_batch(14).unwrap();
        assert_eq!(set.next_batch(7).unwrap(), other.next_batch(7).unwrap());
    }

    #[test]
    fn impossible_batches_are_errors_and_no_batches_none() {
        assert!(matches!(
            BatchesAhead::new(&train(), 31, 1),
            Err(Error::BatchSize { got: 31, examples: 30 })
        ));
        assert!(BatchesAhead::new(&train(), 30, 0).unwrap().next().is_none());
    }
}
