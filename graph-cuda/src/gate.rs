//! One thread records while no other gives work.
//!
//! Sessions share a device's one stream, and what any thread gives to a stream that is being recorded becomes part of the
//! recording. So calls pass a gate: they are inside together, but a recording waits until all are out, and has the device
//! for its thread alone until it ends.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use graph_core::{Error, Result};

#[derive(Default)]
struct State {
    /// How many calls of other threads than the recording one are inside.
    inside: usize,
    recording: Option<ThreadId>,
}

/// The gate of one device.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

/// A call that is inside.
pub(crate) struct Inside<'a> {
    gate: &'a Gate,
    counted: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes inside for one call; waits while another thread records.
    pub(crate) fn enter(&self) -> Inside<'_> {
        let me = thread::current().id();
        let mut state = self.lock();
        while state.recording.is_some_and(|recording| recording != me) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let counted = state.recording.is_none();
        state.inside += usize::from(counted);
        Inside { gate: self, counted }
    }

    /// Has the device for this thread alone until what is returned is dropped.
    ///
    /// # Errors
    /// `FailedPrecondition` if this thread records.
    pub(crate) fn alone(&self) -> Result<Alone<'_>> {
        self.begin_recording().map(|()| Alone(self))
    }

    /// Has the device for this thread alone; waits until the others are out.
    ///
    /// # Errors
    /// `FailedPrecondition` if this thread records already.
    pub(crate) fn begin_recording(&self) -> Result<()> {
        let me = thread::current().id();
        let mut state = self.lock();
        if state.recording == Some(me) {
            return Err(Error::failed_precondition("the device is being recorded already"));
        }
        while state.inside > 0 || state.recording.is_some() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.recording = Some(me);
        Ok(())
    }

    /// Lets the others in again.
    pub(crate) fn end_recording(&self) {
        self.lock().recording = None;
        self.changed.notify_all();
    }
}

/// The device for one thread.
pub(crate) struct Alone<'a>(&'a Gate);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.end_recording();
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if self.counted {
            let mut state = self.gate.lock();
            state.inside -= 1;
            if state.inside == 0 {
                drop(state);
                self.gate.changed.notify_all();
            }
        }
    }
}
