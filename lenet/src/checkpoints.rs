//! Checkpoints of a training run: all that it needs to go on elsewhere, bit for bit, as if it had never stopped.
//!
//! A checkpoint is TensorFlow's: every variable under its name, the optimizer's among them. Beside them stand entries that
//! TensorFlow ignores, since it restores by name and no name of its begins with an underscore:
//!
//! | entry | is |
//! |---|---|
//! | `_lenet/iteration` | how many steps are done: `int64`, a scalar |
//! | `_lenet/dataset/train` | the place among the training images: `uint64` \[4\], see [`DataSetState`] |
//! | `_session/<operation>` | what the operation keeps beside variables: the place in a random stream, `uint64` \[3\] |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use graph_core::format::checkpoint::BundleReader;
use graph_core::{Graph, Session, Value};
use graph_ops::train::{
    DEFAULT_STATE_FILE, SaveOptions, Saver, checkpoint_exists, get_checkpoint_state, latest_checkpoint,
};

use crate::dataset::DataSetState;
use crate::error::{Error, Result};
use crate::global_definitions::{Definitions, OptimizerName};

/// What the names of checkpoints begin with in their folder.
const NAME: &str = "lenet.ckpt";

const ITERATION: &str = "_lenet/iteration";
const TRAINING_SET: &str = "_lenet/dataset/train";
const SESSION: &str = "_session/";

/// Where and how often a training run is saved.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointOptions {
    /// The folder.
    pub folder: PathBuf,
    /// Every how many steps.
    pub save_every: u64,
    /// Whether the run goes on from the folder's latest checkpoint, if there is one.
    pub resume: bool,
}

/// What a run needs beside its variables to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// How many steps are done.
    pub iteration: u64,
    /// The place among the training images.
    pub training_set: DataSetState,
    /// What operations keep beside variables, by name; see [`Session::kernel_states`].
    pub kernel_states: BTreeMap<String, Value>,
}

/// Saves a training run to a folder, and finds there what was saved.
#[derive(Debug)]
pub struct Checkpoints {
    saver: Saver,
    options: CheckpointOptions,
    /// The iteration of the latest checkpoint of this run.
    saved: Option<u64>,
}

impl Checkpoints {
    /// Adds the nodes of a saver of all variables to the graph.
    ///
    /// # Errors
    /// What building the operations reports.
    pub fn new(graph: &Graph, options: CheckpointOptions) -> Result<Self> {
        let _default = graph.as_default();
        let saver = Saver::new().save_relative_paths(true).build()?;
        Ok(Self {
            saver,
            options,
            saved: None,
        })
    }

    /// Whether a run should be saved that has done `iteration` steps.
    pub fn is_due(&self, iteration: u64) -> bool {
        iteration.is_multiple_of(self.options.save_every)
    }

    /// Saves the variables of `session` and the position of the run; a position saved already is not saved again.
    ///
    /// # Errors
    /// Those of [`Saver::save_with`].
    pub fn save(&mut self, session: &Session, position: &Position) -> Result<()> {
        if self.saved == Some(position.iteration) {
            return Ok(());
        }
        let options = SaveOptions {
            global_step: Some(position.iteration as i64),
            extra: position.entries(),
            ..SaveOptions::default()
        };
        self.saver
            .save_with(session, self.options.folder.join(NAME), &options)?;
        self.saved = Some(position.iteration);
        Ok(())
    }

    /// If the run is to be resumed, gives `session` the variables of the folder's latest checkpoint and what operations keep
    /// beside them; its prefix and the position of the run that it is of. `None` if the folder has no checkpoints yet, or the
    /// run begins anew.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for one that does not tell a position, and those of [`Saver::restore`]: the checkpoint is of
    /// another network or optimizer, or damaged.
    pub fn resume(&mut self, session: &Session) -> Result<Option<(PathBuf, Position)>> {
        let state = match self.options.resume {
            true => get_checkpoint_state(&self.options.folder, DEFAULT_STATE_FILE)?,
            false => None,
        };
        let Some(state) = state else { return Ok(None) };
        let prefix = find(Path::new(&state.model_checkpoint_path))?;
        self.saver.compare(&prefix)?.into_result()?;
        let position = Position::read(&BundleReader::open(&prefix)?)?;
        self.saver.restore(session, &prefix)?;
        session.restore_kernel_states(&position.kernel_states)?;
        self.saver.recover_last_checkpoints(&state.all_model_checkpoint_paths);
        self.saved = Some(position.iteration);
        Ok(Some((prefix, position)))
    }
}

impl Position {
    fn entries(&self) -> Vec<(String, Value)> {
        let DataSetState {
            seed,
            epochs_completed,
            index_in_epoch,
            num_examples,
        } = self.training_set;
        let training_set = [seed, epochs_completed, index_in_epoch, num_examples];
        let mut entries = vec![
            (ITERATION.to_owned(), Value::scalar(self.iteration as i64)),
            (TRAINING_SET.to_owned(), training_set.into()),
        ];
        let states = self.kernel_states.iter();
        entries.extend(states.map(|(name, state)| (format!("{SESSION}{name}"), state.clone())));
        entries
    }

    fn read(reader: &BundleReader) -> Result<Self> {
        let wrong = |problem: String| Error::Checkpoint {
            prefix: reader.prefix().to_owned(),
            problem,
        };
        let entry = |name: &str| match reader.entries().contains_key(name) {
            true => Ok(reader.value(name)?),
            false => Err(wrong(format!("it has no entry {name}"))),
        };
        let iteration = entry(ITERATION)?.to_scalar::<i64>().ok();
        let iteration = iteration.and_then(|iteration| u64::try_from(iteration).ok());
        let training_set = entry(TRAINING_SET)?;
        let (Some(iteration), Ok(&[seed, epochs_completed, index_in_epoch, num_examples])) =
            (iteration, training_set.as_slice::<u64>())
        else {
            return Err(wrong(format!(
                "its entries {ITERATION} and {TRAINING_SET} are not a position"
            )));
        };
        let states = reader.entries().keys().filter_map(|name| name.strip_prefix(SESSION));
        let states = states.map(|name| Ok((name.to_owned(), reader.value(&format!("{SESSION}{name}"))?)));
        Ok(Self {
            iteration,
            training_set: DataSetState {
                seed,
                epochs_completed,
                index_in_epoch,
                num_examples,
            },
            kernel_states: states.collect::<Result<_>>()?,
        })
    }
}

/// Gives `session` the variables of the checkpoint `prefix`, and nothing else of it.
///
/// # Errors
/// Those of [`Saver::restore`].
pub fn restore_variables(session: &Session, prefix: &Path) -> Result<()> {
    let _default = session.graph().as_default();
    Ok(Saver::new().build()?.restore(session, prefix)?)
}

/// The prefix of a checkpoint: `path` itself, or the latest in the folder `path`.
///
/// # Errors
/// [`Error::NoCheckpoint`] if there is none.
pub fn find(path: &Path) -> Result<PathBuf> {
    if checkpoint_exists(path) {
        return Ok(path.to_owned());
    }
    let latest = match path.is_dir() {
        true => latest_checkpoint(path)?,
        false => None,
    };
    latest.ok_or_else(|| Error::NoCheckpoint { path: path.to_owned() })
}

/// The definitions of the network that the checkpoint `prefix` is of, as far as the shapes of its parameters tell: sizes of
/// layers and filters. What they do not tell is the tutorial's.
///
/// # Errors
/// A checkpoint that cannot be read.
pub fn definitions(prefix: &Path) -> Result<Definitions> {
    let reader = BundleReader::open(prefix)?;
    let mut definitions = Definitions {
        // No optimizer has fewer variables of its own.
        optimizer: OptimizerName::Sgd,
        ..Definitions::default()
    };
    // The values are read, too: an index may tell of more than the data file holds.
    let shape = |name: &str| -> Result<Vec<usize>> {
        match reader.entries().contains_key(name) {
            true => Ok(reader.value(name)?.shape().to_vec()),
            false => Ok(Vec::new()),
        }
    };
    if let [height, width, _, count] = shape("conv_1/weights")?[..] {
        (definitions.f1, definitions.c1) = ((height, width), count);
    }
    if let [height, width, _, count] = shape("conv_2/weights")?[..] {
        (definitions.f2, definitions.c2) = ((height, width), count);
    }
    if let [d1, d2] = shape("dot_2/weights")?[..] {
        (definitions.d1, definitions.d2) = (d1, d2);
    }
    Ok(definitions)
}
