//! The trainer: runs training steps, measures accuracies and writes summaries.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use graph_core::session::SessionOptions;
use graph_core::{Operation, Session, Tensor, Value, feed};
use graph_ops::state::global_variables_initializer;
use graph_ops::summary::{self, FileWriter};

use crate::dataset::{CLASSES, DataSet, Feed, PIXELS};
use crate::error::{Error, Result};
use crate::network::{Lenet5, Training};
use crate::progress::{Measurement, Progress, for_standard_output};

/// How many images are tested in one run of the session, which bounds its memory.
const TEST_SLICE: usize = 1_000;

/// How a trainer is set up.
#[derive(Debug, Clone)]
pub struct TrainerOptions {
    /// The folder for TensorBoard; `None` writes nothing.
    pub logdir: Option<PathBuf>,
    /// Threads to compute with; all cores without.
    pub threads: Option<usize>,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            logdir: Some(PathBuf::from("tensorboard")),
            threads: None,
        }
    }
}

/// How long and with what reports to train; see [`Trainer::train`].
pub struct TrainOptions {
    /// The number of steps.
    pub iter: u64,
    /// The images of a step.
    pub mini_batch_size: usize,
    /// Every how many steps accuracies are measured and summaries written.
    pub update_after_iter: u64,
    /// Whether the accuracy on training images is measured too.
    pub training_accuracy: bool,
    /// Whether summaries are written.
    pub summarize: bool,
    /// Ends training after the running step once it is true.
    pub stop: Arc<AtomicBool>,
    /// Shows how training goes.
    pub progress: Box<dyn Progress>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            iter: 10_000,
            mini_batch_size: 500,
            update_after_iter: 1_000,
            training_accuracy: false,
            summarize: true,
            stop: Arc::new(AtomicBool::new(false)),
            progress: for_standard_output(),
        }
    }
}

/// How many training images the accuracy on training images is measured on, as in the tutorial's listing.
const TRAINING_ACCURACY_IMAGES: usize = 50_000;

/// Trains a network with a dataset.
pub struct Trainer {
    /// The network.
    pub network: Lenet5,
    /// The images and labels.
    pub dataset: Feed,
    /// The session that holds the network's parameters.
    pub session: Session,
    /// Writes summaries for TensorBoard, if there is a folder for them.
    pub tensorboard: Option<FileWriter>,
    summary: Option<Tensor>,
}

impl Trainer {
    /// A trainer of a cooked network: starts a session, initializes all variables, and writes the graph to `tensorboard`.
    ///
    /// # Errors
    /// A network that is not cooked, or a folder that cannot be written.
    pub fn new(network: Lenet5, dataset: Feed) -> Result<Self> {
        Self::with_options(network, dataset, TrainerOptions::default())
    }

    /// A trainer with options.
    ///
    /// # Errors
    /// A network that is not cooked, or a folder that cannot be written.
    pub fn with_options(network: Lenet5, dataset: Feed, options: TrainerOptions) -> Result<Self> {
        network.training()?;
        let session_options = SessionOptions {
            intra_op_parallelism_threads: options.threads,
            ..SessionOptions::default()
        };
        let session = Session::with_options(network.graph(), session_options)?;
        let prepared = prepare(&network)?;
        session.run(&prepared.init, ())?;
        let mut trainer = Self {
            network,
            dataset,
            session,
            tensorboard: None,
            summary: prepared.summary,
        };
        if let Some(logdir) = &options.logdir {
            trainer.summaries(logdir)?;
        }
        Ok(trainer)
    }

    /// Begins writing summaries to the folder `logdir`, and writes the graph.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn summaries(&mut self, logdir: &Path) -> Result<()> {
        let mut tensorboard = FileWriter::new(logdir)?;
        tensorboard.add_graph(self.session.graph())?;
        self.tensorboard = Some(tensorboard);
        Ok(())
    }

    /// Takes a mini batch of training images and runs one step of back propagation; objective and cost before the step.
    ///
    /// # Errors
    /// A mini batch that the dataset cannot give, or whatever the session reports.
    pub fn bp_step(&mut self, mini_batch_size: usize) -> Result<(f32, f32)> {
        let (images, labels) = self.dataset.train.next_batch(mini_batch_size)?;
        self.bp_step_on(matrix(&images, PIXELS)?, matrix(&labels, CLASSES)?)
    }

    /// One step of back propagation on these images `float` [batch, 784] and labels `float` [batch, 10].
    ///
    /// # Errors
    /// Values that do not fit the placeholders, or whatever the session reports.
    pub fn bp_step_on(&self, images: Value, labels: Value) -> Result<(f32, f32)> {
        let Training {
            labels: labels_placeholder,
            cost,
            obj,
            back_prop,
            ..
        } = self.network.training()?;
        let keep = self.network.definitions().dropout_probability;
        let ((), obj, cost) = self.session.run(
            (back_prop, obj, cost),
            feed! { self.network.images => images, labels_placeholder => labels, self.network.dropout_prob => keep },
        )?;
        Ok((obj, cost))
    }

    /// The share of these images `float` [n, 784] that the network predicts right, 0 to 1, with nothing dropped.
    ///
    /// # Errors
    /// Values that do not fit the placeholders, or whatever the session reports.
    pub fn accuracy(&self, images: Value, labels: Value) -> Result<f32> {
        let Training {
            labels: labels_placeholder,
            accuracy,
            ..
        } = self.network.training()?;
        Ok(self.session.run(
            accuracy,
            feed! { self.network.images => images, labels_placeholder => labels, self.network.dropout_prob => 1.0f32 },
        )?)
    }

    /// The accuracy on the test images.
    ///
    /// # Errors
    /// Whatever the session reports.
    pub fn test(&self) -> Result<f32> {
        self.accuracy_of(&self.dataset.test, self.dataset.test.num_examples())
    }

    /// The accuracy on the next `mini_batch_size` training images. The order of the training batches does not change.
    ///
    /// # Errors
    /// More images than there are, or whatever the session reports.
    pub fn training_accuracy(&self, mini_batch_size: usize) -> Result<f32> {
        self.dataset.train.check_batch_size(mini_batch_size)?;
        self.accuracy_of(&self.dataset.train, mini_batch_size)
    }

    /// The accuracy on the first `count` images of a set, slice by slice.
    fn accuracy_of(&self, set: &DataSet, count: usize) -> Result<f32> {
        let mut right = 0.0f64;
        for start in (0..count).step_by(TEST_SLICE) {
            let rows = start..(start + TEST_SLICE).min(count);
            let size = rows.len() as f64;
            let images = matrix(&set.images(rows.clone())?, PIXELS)?;
            let labels = matrix(&set.labels(rows)?, CLASSES)?;
            right += (f64::from(self.accuracy(images, labels)?) * size).round();
        }
        Ok((right / count as f64) as f32)
    }

    /// Runs all summaries on the test images, with nothing dropped, and writes them as those of step `iter`.
    ///
    /// # Errors
    /// A disk that is full, or whatever the session reports (a histogram of numbers that are not finite among it).
    pub fn write_summary(&mut self, iter: u64) -> Result<()> {
        let (Some(summary), Some(tensorboard)) = (&self.summary, &mut self.tensorboard) else {
            return Ok(());
        };
        let training = self.network.training()?;
        let test = &self.dataset.test;
        let rows = 0..test.num_examples();
        let images = matrix(&test.images(rows.clone())?, PIXELS)?;
        let labels = matrix(&test.labels(rows)?, CLASSES)?;
        let summary: Value = self.session.run(
            summary,
            feed! { self.network.images => images, training.labels => labels, self.network.dropout_prob => 1.0f32 },
        )?;
        Ok(tensorboard.add_summary(&summary, iter as i64)?)
    }

    /// Trains; the accuracy on the test images at the end.
    ///
    /// Every `update_after_iter` steps, beginning with the first, accuracies are measured and reported and summaries
    /// written. Event files are flushed however training ends.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the objective is no longer a finite number, and those of the steps.
    pub fn train(&mut self, mut options: TrainOptions) -> Result<f32> {
        let trained = self
            .dataset
            .train
            .check_batch_size(options.mini_batch_size)
            .and_then(|()| self.steps(&mut options));
        let flushed = self.tensorboard.as_mut().map_or(Ok(()), FileWriter::flush);
        trained?;
        flushed?;
        let accuracy = self.test()?;
        options.progress.finish(accuracy)?;
        if let Some(mut tensorboard) = self.tensorboard.take() {
            tensorboard.close()?;
        }
        Ok(accuracy)
    }

    fn steps(&mut self, options: &mut TrainOptions) -> Result<()> {
        options.progress.start(options.iter)?;
        for iter in 0..options.iter {
            let (objective, cost) = self.bp_step(options.mini_batch_size)?;
            if !objective.is_finite() {
                return Err(Error::NotFinite { iter, objective, cost });
            }
            options.progress.step(iter)?;
            if options.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if iter.is_multiple_of(options.update_after_iter) {
                let training_accuracy = match options.training_accuracy {
                    true => {
                        Some(self.training_accuracy(TRAINING_ACCURACY_IMAGES.min(self.dataset.train.num_examples()))?)
                    }
                    false => None,
                };
                let test_accuracy = self.test()?;
                options.progress.measured(&Measurement {
                    iter,
                    objective,
                    cost,
                    test_accuracy,
                    training_accuracy,
                })?;
                if options.summarize {
                    self.write_summary(iter)?;
                }
            }
        }
        Ok(())
    }
}

/// What a trainer adds to a cooked network before its first step.
pub struct Prepared {
    /// The operation that initializes all variables.
    pub init: Operation,
    /// All summaries merged, if there are any.
    pub summary: Option<Tensor>,
}

/// Adds the initializer of all variables and the merged summaries to the graph of a network.
///
/// # Errors
/// What building the operations reports.
pub fn prepare(network: &Lenet5) -> Result<Prepared> {
    let _default = network.graph().as_default();
    Ok(Prepared {
        init: global_variables_initializer()?,
        summary: summary::merge_all()?,
    })
}

/// Rows of `columns` numbers each.
fn matrix(elements: &[f32], columns: usize) -> Result<Value> {
    Ok(Value::from_vec([elements.len() / columns, columns], elements)?)
}
