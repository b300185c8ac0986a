//! The trainer: runs training steps, measures accuracies and writes summaries.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use graph_core::format::proto::SessionLog;
use graph_core::format::proto::session_log::SessionStatus;
use graph_core::session::{Accelerators, RewriteOptions, RunMetadata, RunOptions, SessionOptions};
use graph_core::{Operation, Session, Tensor, Value, feed};
use graph_ops::state::global_variables_initializer;
use graph_ops::summary::{self, FileWriter};

use crate::checkpoints::{CheckpointOptions, Checkpoints, Position, restore_variables};
use crate::dataset::{Batch, BatchesAhead, CLASSES, DataSet, Feed, PIXELS};
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
    /// The GPUs to compute on; all that there are without.
    pub accelerators: Accelerators,
    /// Which rewrites the session applies; that of the network's mixed precision comes to them.
    pub rewrites: RewriteOptions,
    /// Where the run is saved, and whether it goes on from there; `None` saves nothing.
    pub checkpoints: Option<CheckpointOptions>,
    /// The checkpoint that the variables come from in a run that is not resumed; their initial values without.
    pub restore: Option<PathBuf>,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            logdir: Some(PathBuf::from("tensorboard")),
            threads: None,
            accelerators: Accelerators::All,
            rewrites: RewriteOptions::all(),
            checkpoints: None,
            restore: None,
        }
    }
}

/// How long and with what reports to train; see [`Trainer::train`].
pub struct TrainOptions {
    /// The number of steps, those of the run that is resumed among them.
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
    checkpoints: Option<Checkpoints>,
    /// The checkpoint that the run goes on from.
    resumed: Option<PathBuf>,
    /// How many steps are done.
    iteration: u64,
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
    /// A network that is not cooked, a folder that cannot be written, a checkpoint that cannot be read or is of another
    /// network or optimizer.
    pub fn with_options(network: Lenet5, dataset: Feed, options: TrainerOptions) -> Result<Self> {
        network.training()?;
        let rewrites = match network.definitions().mixed_precision {
            Some(precision) => options.rewrites.with(precision.rewrite()),
            None => options.rewrites,
        };
        let session_options = SessionOptions {
            intra_op_parallelism_threads: options.threads,
            accelerators: options.accelerators,
            rewrites,
            ..SessionOptions::default()
        };
        let session = Session::with_options(network.graph(), session_options)?;
        let prepared = prepare(&network)?;
        let checkpoints = options
            .checkpoints
            .map(|checkpoints| Checkpoints::new(network.graph(), checkpoints));
        let mut trainer = Self {
            network,
            dataset,
            session,
            tensorboard: None,
            summary: prepared.summary,
            checkpoints: checkpoints.transpose()?,
            resumed: None,
            iteration: 0,
        };
        if !trainer.resume()? {
            match &options.restore {
                Some(prefix) => restore_variables(&trainer.session, prefix)?,
                None => trainer.session.run(&prepared.init, ())?,
            }
        }
        if let Some(logdir) = &options.logdir {
            trainer.summaries(logdir)?;
        }
        Ok(trainer)
    }

    /// Goes on from the latest checkpoint; whether there is one and the run is to be resumed.
    fn resume(&mut self) -> Result<bool> {
        let Some(checkpoints) = &mut self.checkpoints else {
            return Ok(false);
        };
        let Some((prefix, position)) = checkpoints.resume(&self.session)? else {
            return Ok(false);
        };
        self.dataset.train.restore(position.training_set)?;
        self.iteration = position.iteration;
        self.resumed = Some(prefix);
        Ok(true)
    }

    /// The checkpoint that the run goes on from, if it is resumed.
    pub fn resumed_from(&self) -> Option<&Path> {
        self.resumed.as_deref()
    }

    /// How many steps are done, those of the run that is resumed among them.
    pub fn iteration(&self) -> u64 {
        self.iteration
    }

    /// Saves the run as it is now, if there is a folder for checkpoints.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn save(&mut self) -> Result<()> {
        let Some(checkpoints) = &mut self.checkpoints else {
            return Ok(());
        };
        // A run that goes on from here writes no summaries of earlier steps again.
        self.tensorboard.as_mut().map_or(Ok(()), FileWriter::flush)?;
        let position = Position {
            iteration: self.iteration,
            training_set: self.dataset.train.state(),
            kernel_states: self.session.kernel_states()?,
        };
        checkpoints.save(&self.session, &position)
    }

    /// Begins writing summaries to the folder `logdir`, and writes the graph. In a run that is resumed, TensorBoard is told
    /// to forget what an earlier file says of steps that are done again.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn summaries(&mut self, logdir: &Path) -> Result<()> {
        let mut tensorboard = FileWriter::new(logdir)?;
        tensorboard.add_graph(self.session.graph())?;
        if self.resumed.is_some() {
            let start = SessionLog {
                status: SessionStatus::Start.into(),
                ..SessionLog::default()
            };
            tensorboard.add_session_log(start, self.iteration as i64)?;
        }
        self.tensorboard = Some(tensorboard);
        Ok(())
    }

    /// Takes a mini batch of training images and runs one step of back propagation; objective and cost before the step.
    ///
    /// The step counts among those of [`Trainer::iteration`].
    ///
    /// # Errors
    /// A mini batch that the dataset cannot give, or whatever the session reports.
    pub fn bp_step(&mut self, mini_batch_size: usize) -> Result<(f32, f32)> {
        let Batch { images, labels, .. } = self.dataset.train.next_values(mini_batch_size)?;
        let measured = self.bp_step_on(images, labels)?;
        self.iteration += 1;
        Ok(measured)
    }

    /// [`Trainer::bp_step`] on the next of the batches that follow in the training set.
    ///
    /// # Errors
    /// No batch left, one that cannot be had, or whatever the session reports.
    pub fn bp_step_ahead(&mut self, batches: &mut BatchesAhead) -> Result<(f32, f32)> {
        let batch = batches.next();
        let batch = batch.ok_or_else(|| graph_core::Error::out_of_range("no batch is left"))?;
        let Batch { images, labels, state } = batch?;
        self.dataset.train.restore(state)?;
        let measured = self.bp_step_on(images.clone(), labels.clone())?;
        batches.give_back(images, labels);
        self.iteration += 1;
        Ok(measured)
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

    /// [`Trainer::bp_step_on`], traced: what each operation of the step took.
    ///
    /// # Errors
    /// As there.
    pub fn traced_bp_step_on(&self, images: Value, labels: Value) -> Result<RunMetadata> {
        let training = self.network.training()?;
        let keep = self.network.definitions().dropout_probability;
        let options = RunOptions {
            trace: true,
            ..RunOptions::default()
        };
        let (((), _, _), metadata): (((), f32, f32), _) = self.session.run_with(
            (&training.back_prop, &training.obj, &training.cost),
            feed! { self.network.images => images, training.labels => labels, self.network.dropout_prob => keep },
            &options,
        )?;
        Ok(metadata)
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

    /// The outputs before the softmax for the first `count` test images, with nothing dropped.
    ///
    /// # Errors
    /// More images than there are, or whatever the session reports.
    pub fn test_logits(&self, count: usize) -> Result<Vec<Vec<f32>>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let images = matrix(&self.dataset.test.images(0..count)?, PIXELS)?;
        let feeds = feed! { self.network.images => images, self.network.dropout_prob => 1.0f32 };
        let logits: Vec<f32> = self.session.run(&self.network.logits, feeds)?;
        Ok(logits.chunks(logits.len() / count).map(<[f32]>::to_vec).collect())
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
        if self.tensorboard.is_none() {
            return Ok(());
        }
        let summary = self.merged_summary()?;
        if let (Some(summary), Some(tensorboard)) = (summary, &mut self.tensorboard) {
            tensorboard.add_summary(&summary, iter as i64)?;
        }
        Ok(())
    }

    /// All summaries of the test images, with nothing dropped: a `Summary` message; `None` if the graph has no summaries.
    ///
    /// # Errors
    /// Whatever the session reports.
    pub fn merged_summary(&self) -> Result<Option<Value>> {
        let Some(summary) = &self.summary else {
            return Ok(None);
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
        Ok(Some(summary))
    }

    /// Trains; the accuracy on the test images at the end.
    ///
    /// While a step runs, another thread gathers the images of the next one, in the same order as [`Trainer::bp_step`] would.
    /// Every `update_after_iter` steps, beginning with the first, accuracies are measured and reported and summaries
    /// written. The run is saved as often as [`CheckpointOptions`] say, after the last step too. Event files are flushed
    /// however training ends.
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
        options.progress.start(self.iteration, options.iter)?;
        let count = options.iter.saturating_sub(self.iteration);
        let mut batches = BatchesAhead::new(&self.dataset.train, options.mini_batch_size, count)?;
        for iter in self.iteration..options.iter {
            let (objective, cost) = self.bp_step_ahead(&mut batches)?;
            if !objective.is_finite() {
                return Err(Error::NotFinite { iter, objective, cost });
            }
            options.progress.step(iter)?;
            let stopped = options.stop.load(Ordering::Relaxed);
            // A run that is to be resumed measures first: measuring moves the random streams on.
            if stopped && self.checkpoints.is_none() {
                return Ok(());
            }
            if iter.is_multiple_of(options.update_after_iter) {
                self.measure(options, iter, objective, cost)?;
            }
            if self
                .checkpoints
                .as_ref()
                .is_some_and(|checkpoints| checkpoints.is_due(self.iteration))
            {
                self.save()?;
            }
            if stopped {
                break;
            }
        }
        self.save()
    }

    fn measure(&mut self, options: &mut TrainOptions, iter: u64, objective: f32, cost: f32) -> Result<()> {
        let training_accuracy = match options.training_accuracy {
            true => Some(self.training_accuracy(TRAINING_ACCURACY_IMAGES.min(self.dataset.train.num_examples()))?),
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
        match options.summarize {
            true => self.write_summary(iter),
            false => Ok(()),
        }
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
