//! Counts the memory that is asked for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Told of a request that is refused, since that ends most programs.
pub static TELL: OnceLock<fn(usize)> = OnceLock::new();

/// One request beyond this is refused, so that a broken reader does not take the machine with it.
const REFUSED: usize = 1 << 33;

/// One request of a run of a graph beyond this is refused. It may honestly want any amount, and must take a refusal for an
/// error: only tensors, and tables for them, are so large.
const REFUSED_IN_A_RUN: usize = 1 << 30;
/// Whether a run is under way.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// Runs a graph that was read: what it asks for is not counted, and refused beyond [`REFUSED_IN_A_RUN`].
pub fn in_a_run<T>(run: impl FnOnce() -> T) -> T {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            RUNNING.store(false, Ordering::Relaxed);
        }
    }
    RUNNING.store(true, Ordering::Relaxed);
    let _end = End;
    run()
}

// SAFETY: all calls go to the system's allocator with the layouts they came with; refusing one is allowed.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { counted(layout.size(), || System.alloc(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { counted(layout.size(), || System.alloc_zeroed(layout)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        let moved = unsafe { counted(size, || System.realloc(block, layout, size)) };
        if !moved.is_null() {
            NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        }
        moved
    }
}

/// Counts a request of `size` bytes if `allocate` meets it.
///
/// # Safety
/// `allocate` must be an allocator's function.
unsafe fn counted(size: usize, allocate: impl FnOnce() -> *mut u8) -> *mut u8 {
    // Counted before it is refused: asking is what a reader must not do.
    let now = NOW.fetch_add(size, Ordering::Relaxed) + size;
    let running = RUNNING.load(Ordering::Relaxed);
    if !running {
        MOST.fetch_max(now, Ordering::Relaxed);
    }
    let refused = size > if running { REFUSED_IN_A_RUN } else { REFUSED };
    let block = if refused {
        if let (false, Some(tell)) = (running, TELL.get()) {
            tell(size);
        }
        std::ptr::null_mut()
    } else {
        allocate()
    };
    if block.is_null() {
        NOW.fetch_sub(size, Ordering::Relaxed);
    }
    block
}

/// Watches how much memory is in use beyond what was when it began.
pub struct Watch(usize);

impl Watch {
    pub fn begin() -> Self {
        let now = NOW.load(Ordering::Relaxed);
        MOST.store(now, Ordering::Relaxed);
        Self(now)
    }

    /// The most bytes in use at once since.
    pub fn most(&self) -> usize {
        MOST.load(Ordering::Relaxed).saturating_sub(self.0)
    }
}
