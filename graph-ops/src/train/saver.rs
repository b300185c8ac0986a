//! `Saver`: variables to checkpoints and back, through ops of the graph.

mod history;
mod nodes;
mod reads;
mod report;
mod state;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use graph_core::format::checkpoint::{self, BundleWriter};
use graph_core::format::meta_graph::MetaGraphOptions;
use graph_core::format::proto::SaverDef;
use graph_core::format::proto::saver_def::CheckpointFormatVersion;
use graph_core::session::Feeds;
use graph_core::{Error, Graph, Operation, Result, Session, Tensor, Value, Variable};

use crate::composite::Composite;
use history::History;
pub(crate) use reads::check_only_reads;
pub use report::CheckpointReport;
pub use state::{
    DEFAULT_STATE_FILE, checkpoint_exists, get_checkpoint_state, latest_checkpoint, update_checkpoint_state,
};

/// How many checkpoints are kept unless it is said.
const MAX_TO_KEEP: usize = 5;
/// Every how many hours one is kept for good unless it is said: more than a year.
const KEEP_CHECKPOINT_EVERY_N_HOURS: f32 = 10_000.0;

/// Saves variables to checkpoints and restores them.
///
/// Its nodes are those of TensorFlow's `tf.train.Saver`: `save/SaveV2`, `save/RestoreV2`, a `save/Assign` for each variable,
/// `save/restore_all`. A checkpoint is called by its prefix, such as `folder/model.ckpt-100`. A file named `checkpoint` in
/// its folder tells which are there and which is the latest.
///
/// A process that dies at any moment leaves each checkpoint whole or absent, and the `checkpoint` file telling of whole ones:
/// data comes first, then the index that makes it a checkpoint, then the `checkpoint` file, and only then do old ones go.
///
/// ```
/// use graph_core::{Graph, Session, Variable};
/// use graph_ops::train::{Saver, latest_checkpoint};
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// let graph = Graph::new();
/// let _default = graph.as_default();
/// let v = Variable::new([1.0f32, 2.0]).name("v").build()?;
/// let mut saver = Saver::new().max_to_keep(2).build()?;
/// let session = Session::new(&graph)?;
/// session.run(v.initializer(), ())?;
/// saver.save(&session, folder.join("model.ckpt"))?;
///
/// let other = Session::new(&graph)?;
/// saver.restore(&other, latest_checkpoint(folder)?.expect("one was saved"))?;
/// assert_eq!(other.run::<Vec<f32>>(&v, ())?, [1.0, 2.0]);
/// # Ok::<(), graph_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Saver {
    filename: Tensor,
    save: Tensor,
    restore: Operation,
    max_to_keep: usize,
    keep_checkpoint_every_n_hours: f32,
    /// Whether its nodes write a file for each device, as those of some imported graphs do.
    sharded: bool,
    pad_step_number: bool,
    save_relative_paths: bool,
    history: History,
    /// Whether leftovers were looked for.
    swept: bool,
}

/// A saver about to be made; see [`Saver::new`].
#[must_use = "a saver is made by `build`"]
pub struct SaverBuilder {
    variables: Option<Vec<(String, Variable)>>,
    name: String,
    max_to_keep: usize,
    keep_checkpoint_every_n_hours: f32,
    reshape: bool,
    pad_step_number: bool,
    save_relative_paths: bool,
    filename: String,
}

impl SaverBuilder {
    /// Saves these variables, under their names, in place of all that the current graph has.
    pub fn variables<'a>(mut self, variables: impl IntoIterator<Item = &'a Variable>) -> Self {
        let named = |variable: &Variable| (variable.op().name(), variable.clone());
        self.variables = Some(variables.into_iter().map(named).collect());
        self
    }

    /// Saves these variables under other names than their own: what a checkpoint of another program calls them.
    pub fn renamed<'a, K: Into<String>>(mut self, variables: impl IntoIterator<Item = (K, &'a Variable)>) -> Self {
        let named = |(name, variable): (K, &Variable)| (name.into(), variable.clone());
        self.variables = Some(variables.into_iter().map(named).collect());
        self
    }

    /// Names the scope of its nodes; `save` without.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many checkpoints stay, the oldest going first; 5 without, all for 0.
    pub fn max_to_keep(mut self, count: usize) -> Self {
        self.max_to_keep = count;
        self
    }

    /// One checkpoint every so many hours stays for good; 10,000 without.
    pub fn keep_checkpoint_every_n_hours(mut self, hours: f32) -> Self {
        self.keep_checkpoint_every_n_hours = hours;
        self
    }

    /// Restores tensors of another shape into variables that have as many elements.
    pub fn reshape(mut self, reshape: bool) -> Self {
        self.reshape = reshape;
        self
    }

    /// Writes step numbers in eight digits, so that checkpoints sort by name.
    pub fn pad_step_number(mut self, pad: bool) -> Self {
        self.pad_step_number = pad;
        self
    }

    /// Names checkpoints relative to their folder in the `checkpoint` file, so that the folder can be moved. Without, they
    /// are named so only when the folder itself is named by a relative path.
    pub fn save_relative_paths(mut self, relative: bool) -> Self {
        self.save_relative_paths = relative;
        self
    }

    /// The prefix that the nodes save to when a run feeds none; `model` without.
    pub fn filename(mut self, filename: impl Into<String>) -> Self {
        self.filename = filename.into();
        self
    }

    /// Adds the nodes to the graph.
    ///
    /// # Errors
    /// `InvalidArgument` if there are no variables, two have the same name or one has two; `FailedPrecondition` if the graph
    /// is finalized.
    #[track_caller]
    pub fn build(self) -> Result<Saver> {
        let variables = match self.variables {
            Some(variables) => variables,
            None => {
                let all = crate::state::global_variables()?;
                all.into_iter()
                    .map(|variable| (variable.op().name(), variable))
                    .collect()
            }
        };
        let sorted = nodes::sorted(variables)?;
        let site = Composite::in_graph(sorted[0].1.graph());
        let nodes = nodes::build(&site, &self.name, &sorted, &self.filename, self.reshape)?;
        Ok(Saver {
            filename: nodes.filename,
            save: nodes.save,
            restore: nodes.restore,
            max_to_keep: self.max_to_keep,
            keep_checkpoint_every_n_hours: self.keep_checkpoint_every_n_hours,
            sharded: false,
            pad_step_number: self.pad_step_number,
            save_relative_paths: self.save_relative_paths,
            history: History::new(self.keep_checkpoint_every_n_hours),
            swept: false,
        })
    }
}

/// How a checkpoint is saved; see [`Saver::save_with`].
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// A number that the prefix ends with, `-N`.
    pub global_step: Option<i64>,
    /// The name of the file that tells of the folder's checkpoints.
    pub latest_filename: String,
    /// Whether the graph is written beside the checkpoint, as `<prefix>.meta`.
    pub write_meta_graph: bool,
    /// Whether the checkpoint becomes the latest: whether the file that tells of it is written.
    pub write_state: bool,
    /// Values to be saved beside the variables, by names that no variable has; such as begin with an underscore.
    /// They are no concern of `restore`; [`BundleReader::value`](checkpoint::BundleReader::value) reads them.
    pub extra: Vec<(String, Value)>,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            global_step: None,
            latest_filename: DEFAULT_STATE_FILE.to_owned(),
            write_meta_graph: true,
            write_state: true,
            extra: Vec::new(),
        }
    }
}

impl Saver {
    /// Begins a saver of the current graph's variables, optimizers' slots among them.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> SaverBuilder {
        SaverBuilder {
            variables: None,
            name: "save".to_owned(),
            max_to_keep: MAX_TO_KEEP,
            keep_checkpoint_every_n_hours: KEEP_CHECKPOINT_EVERY_N_HOURS,
            reshape: false,
            pad_step_number: false,
            save_relative_paths: false,
            filename: "model".to_owned(),
        }
    }

    /// The saver whose nodes are in `graph` already, as an imported MetaGraph tells it.
    ///
    /// # Errors
    /// `NotFound` if the graph has not the nodes, `InvalidArgument` if restoring would write files, `Unimplemented` for a
    /// checkpoint format before V2.
    pub fn from_saver_def(graph: &Graph, saver_def: &SaverDef) -> Result<Self> {
        if saver_def.version() != CheckpointFormatVersion::V2 {
            return Err(Error::unimplemented("only savers of V2 checkpoints are supported")
                .got(saver_def.version().as_str_name()));
        }
        let restore = graph.operation(&saver_def.restore_op_name)?;
        check_only_reads(&restore)?;
        Ok(Self {
            filename: graph.tensor(&saver_def.filename_tensor_name)?,
            save: graph.tensor(&saver_def.save_tensor_name)?,
            restore,
            max_to_keep: usize::try_from(saver_def.max_to_keep).unwrap_or(0),
            keep_checkpoint_every_n_hours: saver_def.keep_checkpoint_every_n_hours,
            sharded: saver_def.sharded,
            pad_step_number: false,
            save_relative_paths: false,
            history: History::new(saver_def.keep_checkpoint_every_n_hours),
            swept: false,
        })
    }

    /// The saver as TensorFlow's message: which of the graph's nodes save and restore.
    pub fn saver_def(&self) -> SaverDef {
        SaverDef {
            filename_tensor_name: self.filename.name(),
            save_tensor_name: self.save.name(),
            restore_op_name: self.restore.name(),
            max_to_keep: i32::try_from(self.max_to_keep).unwrap_or(i32::MAX),
            sharded: self.sharded,
            keep_checkpoint_every_n_hours: self.keep_checkpoint_every_n_hours,
            version: CheckpointFormatVersion::V2.into(),
        }
    }

    /// Saves the variables of `session` to the checkpoint `prefix`; the prefix.
    ///
    /// # Errors
    /// Those of [`Saver::save_with`].
    pub fn save(&mut self, session: &Session, prefix: impl AsRef<Path>) -> Result<PathBuf> {
        self.save_with(session, prefix, &SaveOptions::default())
    }

    /// Saves the variables of `session` to the checkpoint `prefix`, or `prefix-N` for a step N; the prefix with the step.
    ///
    /// A checkpoint of the same prefix is replaced. Beyond [`SaverBuilder::max_to_keep`] the oldest that this saver wrote (or
    /// was told of, see [`Saver::recover_last_checkpoints`]) goes, once the `checkpoint` file no longer tells of it; what
    /// cannot be removed is tried again with the next.
    ///
    /// # Errors
    /// `FailedPrecondition` if a variable is not initialized, `InvalidArgument` if the prefix and the file that tells of it
    /// would have the same name, and those of the file system.
    pub fn save_with(&mut self, session: &Session, prefix: impl AsRef<Path>, options: &SaveOptions) -> Result<PathBuf> {
        let given = prefix.as_ref();
        let prefix = self.numbered(given, options.global_step);
        let state_file = state::state_file(given, &options.latest_filename)?;
        if state_file == prefix {
            return Err(Error::invalid_argument(format!(
                "the checkpoint '{}' has the name of the file that tells of checkpoints",
                prefix.display()
            ))
            .hint("save under another name, or give that file another"));
        }
        if !self.swept {
            checkpoint::remove_leftovers(given)?;
            checkpoint::remove_leftovers(&state_file)?;
            self.swept = true;
        }
        self.write(session, &prefix, &options.extra)?;
        if options.write_meta_graph {
            let meta = MetaGraphOptions {
                saver: Some(self.saver_def()),
                ..MetaGraphOptions::default()
            };
            let path = checkpoint::meta_graph_path(&prefix);
            session.graph().write_meta_graph(path, false, &meta)?;
        }
        if options.write_state {
            self.history.record(&prefix, self.max_to_keep);
            state::write(
                &state_file,
                &prefix,
                &self.history.last_checkpoints(),
                self.save_relative_paths,
            )?;
            self.history.remove_old();
        }
        Ok(prefix)
    }

    fn numbered(&self, prefix: &Path, step: Option<i64>) -> PathBuf {
        let Some(step) = step else {
            return prefix.to_owned();
        };
        let mut numbered = prefix.as_os_str().to_owned();
        numbered.push(match self.pad_step_number {
            true => format!("-{step:08}"),
            false => format!("-{step}"),
        });
        numbered.into()
    }

    /// Runs the nodes; with `extra`, under a name of its own first, so that all appear together.
    fn write(&self, session: &Session, prefix: &Path, extra: &[(String, Value)]) -> Result<()> {
        if extra.is_empty() {
            return session.run(self.save.op(), self.feeds(prefix)?);
        }
        let part = checkpoint::temporary_path(prefix);
        let written = session.run(self.save.op(), self.feeds(&part)?).and_then(|()| {
            let mut writer = BundleWriter::extend(&part, prefix)?;
            extra
                .iter()
                .try_for_each(|(name, value)| writer.add_value(name, value))?;
            writer.finish()
        });
        if written.is_err() {
            // Mostly there is nothing left; what cannot be removed is a leftover for the next saver.
            let _ = checkpoint::remove(&part);
        }
        written
    }

    fn feeds(&self, prefix: &Path) -> Result<Feeds> {
        let text = prefix.to_str().ok_or_else(|| {
            Error::invalid_argument("the prefix of a checkpoint must be UTF-8 text").got(prefix.display())
        })?;
        Ok(Feeds::new().with(&self.filename, text))
    }

    /// Gives the variables of `session` the values of the checkpoint `prefix`: all of them or, on an error, none.
    ///
    /// # Errors
    /// `NotFound` if there is no such checkpoint or it lacks keys, `InvalidArgument` if it has others than are expected; the
    /// message names all that differ. `DataLoss` if the files are damaged.
    pub fn restore(&self, session: &Session, prefix: impl AsRef<Path>) -> Result<()> {
        self.compare(&prefix)?.into_result()?;
        session.run(&self.restore, self.feeds(prefix.as_ref())?)
    }

    /// What of the checkpoint `prefix` does not fit the variables that [`Saver::restore`] restores.
    ///
    /// # Errors
    /// `NotFound` if there is no such checkpoint, `DataLoss` if its index is damaged.
    pub fn compare(&self, prefix: impl AsRef<Path>) -> Result<CheckpointReport> {
        report::compare(&self.restore, prefix.as_ref())
    }

    /// The prefixes of the checkpoints that this saver has written and not removed, the oldest first.
    pub fn last_checkpoints(&self) -> Vec<PathBuf> {
        self.history.last_checkpoints()
    }

    /// Goes on where another saver ended: takes these checkpoints, the oldest first, for its own. Those that do not exist are
    /// left out.
    pub fn recover_last_checkpoints<P: AsRef<Path>>(&mut self, prefixes: impl IntoIterator<Item = P>) {
        self.history.recover(prefixes);
    }
}
