//! Device memory that is kept and handed out again.
//!
//! The driver's own allocation waits for the device. A pool keeps what is given back, by size, and asks the driver for what is
//! not there; when the driver has no more, all that nobody holds goes back to it first.

use std::collections::BTreeMap;

use graph_core::{Error, Result};
use rustc_hash::FxHashMap;

use crate::driver::Driver;

/// Blocks are of a multiple of this many bytes, which is what the driver aligns to.
const GRANULE: usize = 256;

/// Device memory that is held, and that is free to be handed out.
#[derive(Default)]
pub(crate) struct Pool {
    /// The size of each block that is handed out.
    held: FxHashMap<u64, usize>,
    /// Blocks that were given back, by size.
    free: BTreeMap<usize, Vec<u64>>,
    /// Bytes of `held` and of `free`.
    held_bytes: usize,
    free_bytes: usize,
    /// The most bytes that the pool may take from the driver.
    limit: Option<usize>,
}

impl Pool {
    pub(crate) fn with_limit(limit: Option<usize>) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Bytes that are handed out.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(crate) fn allocate(&mut self, driver: &dyn Driver, bytes: usize) -> Result<u64> {
        let size = bytes
            .max(1)
            .checked_next_multiple_of(GRANULE)
            .ok_or_else(|| exhausted(bytes))?;
        // A block much larger than asked for would be wasted.
        let fits = self
            .free
            .range(size..=size.saturating_add(size / 4))
            .next()
            .map(|(&size, _)| size);
        let (address, size) = match fits {
            Some(size) => (
                self.take(size)
                    .ok_or_else(|| Error::internal("a size without blocks"))?,
                size,
            ),
            None => (
                self.ask(driver, size)
                    .map_err(|error| self.report(error, driver, bytes))?,
                size,
            ),
        };
        self.held.insert(address, size);
        self.held_bytes += size;
        Ok(address)
    }

    /// Takes a block back; one that was not handed out is none of ours.
    pub(crate) fn free(&mut self, address: u64) {
        if let Some(size) = self.held.remove(&address) {
            self.held_bytes -= size;
            self.free_bytes += size;
            self.free.entry(size).or_default().push(address);
        }
    }

    /// Gives all that nobody holds back to the driver.
    pub(crate) fn trim(&mut self, driver: &dyn Driver) {
        for address in std::mem::take(&mut self.free).into_values().flatten() {
            // SAFETY: the driver gave it, and nobody holds it.
            unsafe { driver.free(address) };
        }
        self.free_bytes = 0;
    }

    fn take(&mut self, size: usize) -> Option<u64> {
        let blocks = self.free.get_mut(&size)?;
        let address = blocks.pop();
        if blocks.is_empty() {
            self.free.remove(&size);
        }
        self.free_bytes -= size;
        address
    }

    fn ask(&mut self, driver: &dyn Driver, size: usize) -> Result<u64> {
        let within = |pool: &Self| {
            pool.limit
                .is_none_or(|limit| pool.held_bytes + pool.free_bytes + size <= limit)
        };
        if !within(self) {
            self.trim(driver);
        }
        if !within(self) {
            return Err(exhausted(size));
        }
        driver.allocate(size).or_else(|error| {
            if self.free.is_empty() {
                return Err(error);
            }
            self.trim(driver);
            driver.allocate(size)
        })
    }

    fn report(&self, error: Error, driver: &dyn Driver, asked: usize) -> Error {
        if error.class() != "ResourceExhausted" {
            return error;
        }
        let info = driver.info();
        let free = driver
            .free_memory()
            .map_or("an unknown number of".to_owned(), |bytes| bytes.to_string());
        let limit = self
            .limit
            .map_or(String::new(), |limit| format!(", the limit is {limit} bytes"));
        Error::resource_exhausted(format!(
            "no {asked} bytes of memory on /device:GPU:{} ({}): {} bytes are held here, {free} bytes of {} are free{limit}",
            info.index, info.name, self.held_bytes, info.memory
        ))
        .hint("use smaller batches, or close sessions and end programs that hold memory of this device")
    }
}

fn exhausted(bytes: usize) -> Error {
    Error::resource_exhausted(format!("no {bytes} bytes of device memory"))
}
