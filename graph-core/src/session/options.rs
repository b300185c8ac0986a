//! Options of sessions and of single runs.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::accelerator::Accelerator;
use crate::rewrite::Rewrite;
use crate::session::observer::RunObserver;

/// Which accelerators a session uses beside the host's processor.
#[derive(Clone, Debug, Default)]
pub enum Accelerators {
    /// All that the machine has and the program knows how to use.
    #[default]
    All,
    /// These; none for a session on the host alone.
    Only(Vec<Arc<dyn Accelerator>>),
}

/// How a session runs graphs, in the manner of TensorFlow's `ConfigProto`.
#[derive(Clone)]
pub struct SessionOptions {
    /// Threads that one kernel may use; all cores without.
    pub intra_op_parallelism_threads: Option<usize>,
    /// Which rewrites run.
    pub rewrites: RewriteOptions,
    /// Whether an operation that asks for a device that is not there runs on one that is. Yes by default, unlike
    /// TensorFlow's; without, such an operation is an error.
    pub allow_soft_placement: bool,
    /// Whether the device of every operation is written to standard error when a plan is made, and what it fell back from.
    pub log_device_placement: bool,
    /// The accelerators; what asks for no device goes to the first of them.
    pub accelerators: Accelerators,
    /// Whether the steps of an accelerator are recorded after the first run and replayed from then on.
    pub record_steps: bool,
    /// What is told of every run, as for recording it.
    pub observer: Option<Arc<dyn RunObserver>>,
}

impl fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionOptions")
            .field("intra_op_parallelism_threads", &self.intra_op_parallelism_threads)
            .field("rewrites", &self.rewrites)
            .field("allow_soft_placement", &self.allow_soft_placement)
            .field("log_device_placement", &self.log_device_placement)
            .field("accelerators", &self.accelerators)
            .field("record_steps", &self.record_steps)
            .field("observed", &self.observer.is_some())
            .finish()
    }
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            intra_op_parallelism_threads: None,
            rewrites: RewriteOptions::all(),
            allow_soft_placement: true,
            log_device_placement: false,
            accelerators: Accelerators::All,
            record_steps: true,
            observer: None,
        }
    }
}

impl SessionOptions {
    /// The options that do all that is useful.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of threads.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.intra_op_parallelism_threads = Some(threads);
        self
    }

    /// Uses these accelerators and no others: none for a session on the host alone.
    #[must_use]
    pub fn accelerators(mut self, accelerators: Vec<Arc<dyn Accelerator>>) -> Self {
        self.accelerators = Accelerators::Only(accelerators);
        self
    }

    /// Sets whether the steps of an accelerator are recorded after the first run and replayed from then on.
    #[must_use]
    pub fn record_steps(mut self, record: bool) -> Self {
        self.record_steps = record;
        self
    }

    /// Tells `observer` of every run.
    #[must_use]
    pub fn observer(mut self, observer: impl RunObserver + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Sets whether operations may fall back to a device that is there.
    #[must_use]
    pub fn allow_soft_placement(mut self, allow: bool) -> Self {
        self.allow_soft_placement = allow;
        self
    }

    /// Sets whether the device of every operation is written to standard error.
    #[must_use]
    pub fn log_device_placement(mut self, log: bool) -> Self {
        self.log_device_placement = log;
        self
    }

    /// Sets which rewrites run.
    #[must_use]
    pub fn rewrites(mut self, rewrites: RewriteOptions) -> Self {
        self.rewrites = rewrites;
        self
    }
}

/// Which rewrites a session applies; by default all that run unless they are left out.
#[derive(Clone, Debug, Default)]
pub struct RewriteOptions {
    none: bool,
    disabled: BTreeSet<String>,
    wanted: BTreeSet<String>,
}

impl RewriteOptions {
    /// All rewrites that run by default.
    pub fn all() -> Self {
        Self::default()
    }

    /// No rewrite: the graph runs as it was built.
    pub fn none() -> Self {
        Self {
            none: true,
            ..Self::default()
        }
    }

    /// All but this one too.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.disabled.insert(name.to_owned());
        self
    }

    /// This one too, which does not run by default. A name that no rewrite has is an error of the first run.
    #[must_use]
    pub fn with(mut self, name: &str) -> Self {
        self.wanted.insert(name.to_owned());
        self
    }

    /// Whether a rewrite of this name runs that runs by default.
    pub fn enabled(&self, name: &str) -> bool {
        !self.none && !self.disabled.contains(name)
    }

    /// Whether this rewrite runs.
    pub fn applies(&self, rewrite: &dyn Rewrite) -> bool {
        let name = rewrite.name();
        let wanted = self.wanted.contains(name) && !self.disabled.contains(name);
        wanted || (rewrite.by_default() && self.enabled(name))
    }

    /// The names that [`RewriteOptions::with`] was given.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &str> {
        self.wanted.iter().map(String::as_str)
    }
}

/// Options of one run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Whether to measure each operation; the result is in [`RunMetadata`](crate::session::RunMetadata).
    pub trace: bool,
    /// The longest time the run may take, in milliseconds; unlimited without. It is looked at between operations.
    pub timeout_in_ms: Option<u64>,
}
