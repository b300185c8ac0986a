//! Which checkpoints a saver has written, and which are to go.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use graph_core::format::checkpoint;

#[derive(Debug)]
pub(super) struct History {
    /// Prefixes and times, the oldest first.
    last: Vec<(PathBuf, SystemTime)>,
    /// Those that fell out of `last`.
    old: Vec<(PathBuf, SystemTime)>,
    /// The first old one that was written after this stays for good.
    next_kept: Option<SystemTime>,
    /// How long after one that stays the next does.
    interval: Option<Duration>,
}

impl History {
    pub(super) fn new(keep_every_n_hours: f32) -> Self {
        // Hours that no clock will reach keep none.
        let interval = Duration::try_from_secs_f64(f64::from(keep_every_n_hours) * 3600.0).ok();
        Self {
            last: Vec::new(),
            old: Vec::new(),
            next_kept: interval.and_then(|interval| SystemTime::now().checked_add(interval)),
            interval,
        }
    }

    pub(super) fn last_checkpoints(&self) -> Vec<PathBuf> {
        self.last.iter().map(|(prefix, _)| prefix.clone()).collect()
    }

    /// Adds one that was just written; beyond `max_to_keep` (0: any number, and none is remembered) the oldest fall out.
    pub(super) fn record(&mut self, prefix: &Path, max_to_keep: usize) {
        if max_to_keep == 0 {
            return;
        }
        self.last.retain(|(known, _)| known != prefix);
        self.old.retain(|(known, _)| known != prefix);
        self.last.push((prefix.to_owned(), SystemTime::now()));
        let excess = self.last.len().saturating_sub(max_to_keep);
        self.old.extend(self.last.drain(..excess));
    }

    /// Removes what fell out, except one every so many hours. What cannot be removed stays to be removed.
    pub(super) fn remove_old(&mut self) {
        for (prefix, time) in std::mem::take(&mut self.old) {
            if let Some(next) = self.next_kept.filter(|&next| time > next) {
                self.next_kept = self.interval.and_then(|interval| next.checked_add(interval));
            } else if checkpoint::remove(&prefix).is_err() {
                self.old.push((prefix, time));
            }
        }
    }

    pub(super) fn recover<P: AsRef<Path>>(&mut self, prefixes: impl IntoIterator<Item = P>) {
        let known = |prefix: P| Some((prefix.as_ref().to_owned(), checkpoint::modified(&prefix)?));
        self.last = prefixes.into_iter().filter_map(known).collect();
    }
}
