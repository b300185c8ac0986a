//! Pinned host memory between a user's values and the device.
//!
//! A copy from pageable memory makes the host wait; one from pinned memory runs by itself. A value to be uploaded is copied to
//! a pinned block, whose event tells when the block is free again, so that the next step's feeds go up while this step runs.

use graph_core::Result;

use crate::driver::{Driver, Handle};

/// How many uploads may be under way before the host waits for the first.
const BLOCKS: usize = 8;
/// The smallest block, in bytes.
const SMALLEST: usize = 64 << 10;
/// Downloads go through pinned memory in pieces of this many bytes.
const PIECE: usize = 4 << 20;

struct Block {
    start: *mut u8,
    bytes: usize,
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
        // SAFETY: the session gives the address of a tensor of this many bytes; the block stays until its event is past.
        let copied = unsafe { driver.copy_in(block.start, to, from.len()) };
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
            // SAFETY: the driver gave it, and nothing uses it.
            unsafe { driver.free_pinned(block.start) };
        }
        let bytes = bytes.max(SMALLEST).next_power_of_two();
        Ok(Block {
            start: driver.allocate_pinned(bytes)?,
            bytes,
            event: None,
        })
    }

    /// Gives all blocks back.
    pub(crate) fn release(&mut self, driver: &dyn Driver) {
        // Copies may be under way.
        let _ = driver.synchronize();
        for block in self.0.drain(..) {
            if let Some(event) = block.event {
                let _ = driver.wait_for(event);
            }
            // SAFETY: the driver gave it, and nothing uses it.
            unsafe { driver.free_pinned(block.start) };
        }
    }
}
