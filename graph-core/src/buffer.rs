//! Aligned host memory.

use std::alloc::{self, Layout};
use std::ptr::NonNull;

use crate::error::{Error, Result};

/// Alignment, in bytes, of every buffer: a cache line, and the widest vector register.
pub const ALIGNMENT: usize = 64;

/// A block of host memory aligned to [`ALIGNMENT`], of plain bytes.
pub struct Buffer {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a buffer owns its memory, which is plain bytes.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer of `len` zero bytes.
    ///
    /// # Errors
    /// `ResourceExhausted` if the system has not that much memory.
    pub fn zeroed(len: usize) -> Result<Self> {
        if len == 0 {
            // Nothing is read or written through a buffer of length 0; its address is aligned all the same.
            let start = std::num::NonZero::new(ALIGNMENT).map(NonNull::without_provenance);
            return Ok(Self {
                start: start.unwrap_or(NonNull::dangling()),
                len,
            });
        }
        let layout = Layout::from_size_align(len, ALIGNMENT).map_err(|_| exhausted(len))?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout) }).ok_or_else(|| exhausted(len))?;
        Ok(Self { start, len })
    }

    /// A buffer holding a copy of `bytes`.
    ///
    /// # Errors
    /// `ResourceExhausted` if the system has not that much memory.
    pub fn copy_of(bytes: &[u8]) -> Result<Self> {
        let mut buffer = Self::zeroed(bytes.len())?;
        buffer.as_mut_slice().copy_from_slice(bytes);
        Ok(buffer)
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of the first byte.
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// The address of the first byte.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` initialized bytes while the buffer lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

fn exhausted(len: usize) -> Error {
    Error::resource_exhausted(format!("cannot allocate {len} bytes of host memory"))
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `zeroed` with this very layout, which was valid there.
            unsafe {
                alloc::dealloc(
                    self.start.as_ptr(),
                    Layout::from_size_align_unchecked(self.len, ALIGNMENT),
                )
            }
        }
    }
}
