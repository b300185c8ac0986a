//! Pinned host memory between a user's values and the device.
//!
//! A copy from pageable memory makes the host wait; one from pinned memory runs by itself. A value to be uploaded is copied to
//! a pinned block, and from there, beside all work, to memory of the same size on the device; only from that to where it belongs it
//! is copied in the order of the work. So the next step's feeds go up while this step runs, though they lie where this step reads
//! its own. An event tells when both blocks are free again.

use graph_core::Result;

use crate::driver::{Driver, Handle};

/// How many uploads may be under way before the host waits for the first.
const BLOCKS: usize = 8;
/// The smallest block, in bytes.
const SMALLEST: usize = 64 << 10;
/// The largest block that has a companion on the device.
const LARGEST_THROUGH: usize = 8 << 20;
/// Downloads go through pinned memory in pieces of this many bytes.
const PIECE: usize = 4 << 20;

struct Block {
    start: *mut u8,
    bytes: usize,
    /// As many bytes on the device, from the first upload on, if there is memory.
    through: Option<u64>,
    /// Marks the end of the copy that last used it.
    event: Option<Handle>,
}

/// Pinned blocks, the least recently used first.
#[derive(Default)]
pub(crate) struct Staging(Vec<Block>);

// SAFETY: pinned memory may be used from any thread; the blocks are behind a lock.
unsafe impl Send for Staging {}

impl Staging {
    pub(crate) fn upload(&mut self, driver: &dyn Driver, from: &[u8], to: u64) -> Result<()> {
        let mut block = self.block(driver, from.len())?;
        // SAFETY: the block has as many bytes, and no copy uses it now.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), block.start, from.len()) };
        if block.through.is_none() && block.bytes <= LARGEST_THROUGH {
            block.through = driver.allocate(block.bytes).ok();
        }
        // SAFETY: the session gives the address of a tensor of this many bytes; the block and its companion stay until the event
        // is past, and nothing else uses them.
        let copied = unsafe {
            match block.through {
                Some(through) => driver.copy_in_through(block.start, through, to, from.len()),
                None => driver.copy_in(block.start, to, from.len()),
            }
        };
        let marked = copied.and_then(|()| driver.record_event());
        match &marked {
            Ok(event) => block.event = Some(*event),
            // The copy may be under way: only waiting for everything makes sure that it is not.
            Err(_) => drop(driver.synchronize()),
        }
        self.0.push(block);
        marked.map(drop)
    }

    pub(crate) fn download(&mut self, driver: &dyn Driver, from: u64, to: &mut [u8]) -> Result<()> {
        let block = self.block(driver, to.len().min(PIECE))?;
        let mut result = Ok(());
        for (piece, at) in to.chunks_mut(block.bytes).zip((0..).step_by(block.bytes)) {
            // SAFETY: the session gives the address of a tensor of this many bytes; the copy is waited for.
            result = unsafe { driver.copy_out(from + at as u64, block.start, piece.len()) };
            result = result.and_then(|()| driver.synchronize());
            if result.is_err() {
                break;
            }
            // SAFETY: the block has as many bytes.
            unsafe { std::ptr::copy_nonoverlapping(block.start, piece.as_mut_ptr(), piece.len()) };
        }
        self.0.push(block);
        result
    }

    /// A block of at least `bytes` bytes that nothing uses.
    fn block(&mut self, driver: &dyn Driver, bytes: usize) -> Result<Block> {
        for at in 0..self.0.len() {
            let block = &mut self.0[at];
            let past = match block.event {
                Some(event) => driver.is_past(event)?,
                None => true,
            };
            if past && let Some(event) = block.event.take() {
                driver.wait_for(event)?;
            }
            if past && block.bytes >= bytes {
                return Ok(self.0.remove(at));
            }
        }
        while self.0.len() >= BLOCKS {
            let mut block = self.0.remove(0);
            if let Some(event) = block.event.take() {
                driver.wait_for(event)?;
            }
            if block.bytes >= bytes {
                return Ok(block);
            }
            block.give_back(driver);
        }
        let bytes = bytes.max(SMALLEST).next_power_of_two();
        Ok(Block {
            start: driver.allocate_pinned(bytes)?,
            bytes,
            through: None,
            event: None,
        })
    }

    /// Gives all blocks back.
    pub(crate) fn release(&mut self, driver: &dyn Driver) {
        // Copies may be under way.
        let _ = driver.synchronize();
        for mut block in self.0.drain(..) {
            if let Some(event) = block.event.take() {
                let _ = driver.wait_for(event);
            }
            block.give_back(driver);
        }
    }
}

impl Block {
    /// Gives its memory back, which nothing uses.
    fn give_back(self, driver: &dyn Driver) {
        // SAFETY: the driver gave it.
        unsafe {
            driver.free_pinned(self.start);
            if let Some(through) = self.through {
                driver.free(through);
            }
        }
    }
}
