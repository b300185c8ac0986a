//! Times of the pieces of work that a traced run gives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{self, ThreadId};

use graph_core::Result;
use graph_core::accelerator::KernelStats;

use crate::driver::{Driver, Handle};

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

    /// Gives a piece of work, which is timed if this thread's is.
    pub(crate) fn give<T>(
        &self,
        driver: &dyn Driver,
        stats: impl FnOnce() -> KernelStats,
        give: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if !self.any.load(Ordering::Relaxed) || self.lock().tracing != Some(thread::current().id()) {
            return give();
        }
        let from = driver.record_time()?;
        let given = give();
        let to = driver.record_time()?;
        self.lock().work.push((stats(), from, to));
        given
    }
}
