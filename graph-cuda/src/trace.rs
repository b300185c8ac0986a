//! Times of the pieces of work that a traced run gives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use graph_core::Result;
use graph_core::accelerator::KernelStats;

use crate::driver::{Driver, Handle, Product};

/// A piece of work with the marks before and behind it.
type Marked = (KernelStats, Handle, Handle);

#[derive(Default)]
struct State {
    /// The thread whose work is timed.
    tracing: Option<ThreadId>,
    work: Vec<Marked>,
}

/// Times the work of one thread at a time.
#[derive(Default)]
pub(crate) struct Tracer {
    /// Whether any thread's work is timed, which costs nothing to ask.
    any: AtomicBool,
    state: Mutex<State>,
    ended: Condvar,
}

impl Tracer {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Times what this thread gives from now on; waits while another thread's work is timed.
    pub(crate) fn begin(&self) {
        let me = thread::current().id();
        let mut state = self.lock();
        while state.tracing.is_some_and(|other| other != me) {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.tracing = Some(me);
        state.work.clear();
        self.any.store(true, Ordering::Relaxed);
    }

    /// Ends what `begin` began, and tells the times.
    pub(crate) fn end(&self, driver: &dyn Driver) -> Result<Vec<KernelStats>> {
        let work = {
            let mut state = self.lock();
            state.tracing = None;
            self.any.store(false, Ordering::Relaxed);
            std::mem::take(&mut state.work)
        };
        self.ended.notify_all();
        // All marks are forgotten, whatever comes of some.
        let timed: Vec<Result<KernelStats>> = work
            .into_iter()
            .map(|(stats, from, to)| {
                let time = driver.elapsed(from, to)?;
                Ok(KernelStats { time, ..stats })
            })
            .collect();
        timed.into_iter().collect()
    }

    /// Gives a piece of work, which is timed if this thread's is; what comes of it tells whether there was any.
    pub(crate) fn give<T>(
        &self,
        driver: &dyn Driver,
        stats: impl FnOnce() -> KernelStats,
        give: impl FnOnce() -> Result<T>,
        was_given: impl FnOnce(&T) -> bool,
    ) -> Result<T> {
        if !self.any.load(Ordering::Relaxed) || self.lock().tracing != Some(thread::current().id()) {
            return give();
        }
        let from = driver.record_time()?;
        let given = give();
        let to = driver.record_time()?;
        if given.as_ref().is_ok_and(|given| !was_given(given)) {
            // The marks are forgotten.
            driver.elapsed(from, to)?;
        } else {
            self.lock().work.push((stats(), from, to));
        }
        given
    }
}

/// Of something without a grid, before anything is said of it.
pub(crate) fn unnamed() -> KernelStats {
    KernelStats {
        name: String::new(),
        blocks: [0; 3],
        threads: [0; 3],
        time: Duration::ZERO,
        bytes: 0,
        flops: 0,
    }
}

/// Of a product of matrices.
pub(crate) fn product_stats(product: &Product, name: &str) -> KernelStats {
    KernelStats {
        name: format!(
            "{name} {}x{}x{} {}",
            product.rows, product.inner, product.columns, product.dtype
        ),
        bytes: product.bytes(),
        flops: product.flops(),
        ..unnamed()
    }
}

/// Of a copy that reads and writes `bytes` bytes in all.
pub(crate) fn copy_stats(name: &str, bytes: usize) -> KernelStats {
    KernelStats {
        name: name.to_owned(),
        bytes: bytes as u64,
        ..unnamed()
    }
}
