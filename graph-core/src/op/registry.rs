//! The registry: every op that the program knows, installed once.

use std::sync::OnceLock;

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::accelerator::Accelerator;
use crate::error::{Error, Result};
use crate::op::definition::OpDefinition;
use crate::rewrite::Rewrite;

static REGISTRY: OnceLock<Registry> = OnceLock::new();

/// Op definitions by name, and the rewrites that know what ops mean.
pub struct Registry {
    ops: FxHashMap<&'static str, &'static OpDefinition>,
    rewrites: Vec<&'static dyn Rewrite>,
    find_accelerators: fn() -> Result<Vec<Arc<dyn Accelerator>>>,
    accelerators: OnceLock<Vec<Arc<dyn Accelerator>>>,
}

impl Registry {
    /// A registry of the ops of these families.
    ///
    /// # Panics
    /// If two ops have the same name; the families are part of the program.
    pub fn new(families: &[&[fn() -> OpDefinition]], rewrites: Vec<&'static dyn Rewrite>) -> Self {
        let mut ops = FxHashMap::default();
        for make in families.iter().copied().flatten() {
            let definition: &'static OpDefinition = Box::leak(Box::new(make()));
            assert!(
                ops.insert(definition.name, definition).is_none(),
                "op {} is defined twice",
                definition.name
            );
        }
        Self {
            ops,
            rewrites,
            find_accelerators: || Ok(Vec::new()),
            accelerators: OnceLock::new(),
        }
    }

    /// Says how to find the accelerators that some kernels are for. It is called when a session first wants one, and not again
    /// once it has found them.
    #[must_use]
    pub fn accelerators_from(mut self, find: fn() -> Result<Vec<Arc<dyn Accelerator>>>) -> Self {
        self.find_accelerators = find;
        self
    }

    /// The accelerators of the machine.
    ///
    /// # Errors
    /// What keeps one from being used that was asked for by name.
    pub fn accelerators(&self) -> Result<&[Arc<dyn Accelerator>]> {
        if let Some(found) = self.accelerators.get() {
            return Ok(found);
        }
        let found = (self.find_accelerators)()?;
        Ok(self.accelerators.get_or_init(|| found))
    }

    /// The op of type `name`.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn op(&self, name: &str) -> Result<&'static OpDefinition> {
        self.ops.get(name).copied().ok_or_else(|| {
            Error::not_found(format!("op type not registered: '{name}'")).hint("this engine does not know the op")
        })
    }

    /// All ops, sorted by name.
    pub fn ops(&self) -> Vec<&'static OpDefinition> {
        let mut ops: Vec<_> = self.ops.values().copied().collect();
        ops.sort_by_key(|op| op.name);
        ops
    }

    /// The rewrites that name ops, in the order they run.
    pub fn rewrites(&self) -> &[&'static dyn Rewrite] {
        &self.rewrites
    }
}

/// The registry of a program that installs none itself: a crate of ops submits the one function that makes it, so that a
/// program may begin with a function of this crate (`Variable::new`, `Graph::import`), which knows no op.
pub struct DefaultRegistry(pub fn() -> Registry);

inventory::collect!(DefaultRegistry);

/// Installs the registry; the first call decides, later ones do nothing.
pub fn install(make: impl FnOnce() -> Registry) -> &'static Registry {
    REGISTRY.get_or_init(make)
}

/// The installed registry, or the default one, which is installed then.
///
/// # Errors
/// `FailedPrecondition` if there is neither.
pub fn registry() -> Result<&'static Registry> {
    if let Some(installed) = REGISTRY.get() {
        return Ok(installed);
    }
    match inventory::iter::<DefaultRegistry>().next() {
        Some(DefaultRegistry(make)) => Ok(install(make)),
        None => Err(Error::failed_precondition("no ops are installed").hint(
            "nothing in this program uses graph_ops, so it is not linked; `use graph_ops as _;` in one of its files is enough",
        )),
    }
}
