//! A device made of the host's own processor: tests run kernels' logic on it, and whole sessions, where no GPU is at hand.
//!
//! Its compiler is the host's C++ compiler, behind `emulator.h`, which says what is checked; its driver keeps "device memory"
//! on the heap, and records work as a list; what may run side by side it runs in orders that vary, so that a step that should
//! wait for another and does not gives other numbers. It is slow, and exact about the order of everything else.

use std::alloc::{Layout, alloc, dealloc};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use graph_core::accelerator::Lanes;
use graph_core::{DType, Error, Result};
use rustc_hash::FxHashMap;

use crate::cache::Cache;
use crate::choice::ConvolutionKernels;
use crate::convolution::Convolutions;
use crate::device::Cuda;
use crate::driver::{Argument, Capability, Compiler, DeviceInfo, Driver, Epilogue, Grid, Handle, LANES, Product};
use crate::options::DeviceOptions;

mod convolutions;
mod work;

pub use convolutions::{ConvolutionLibrary, EmulatedAlgorithm};
use work::{Kernel, Recording, Work};

/// What lies before every kernel source, in place of CUDA's own names.
const HEADER: &str = include_str!("device_code/emulator.h");

/// Options of the C++ compiler. No contraction: products and sums are rounded as they are written.
const OPTIONS: [&str; 8] = [
    "-x",
    "c++",
    "-std=c++17",
    "-O1",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-shared",
    "-fPIC",
];

/// Times on this device say nothing of any other.
const IN_LANES: Lanes = Lanes::Several(LANES);

/// What device memory is aligned to.
const ALIGNMENT: usize = 256;

/// An emulated device of this index, with `memory` bytes of memory.
///
/// # Errors
/// `Unavailable` if there is no C++ compiler: `c++`, or what `CXX` names; `InvalidArgument` for an environment variable that
/// makes no sense.
pub fn device_with(index: u32, memory: usize, options: &DeviceOptions) -> Result<Cuda> {
    // There is no library of convolutions unless a test brings one.
    let options = DeviceOptions {
        convolutions: options.convolutions.or(Some(ConvolutionKernels::Own)),
        ..options.with_lanes(IN_LANES)?
    };
    Ok(Cuda::new(
        Box::new(Host::new(index, memory)),
        Box::new(HostCompiler::new()?),
        Cache::of_user(),
        &options,
    ))
}

/// An emulated device with a library of convolutions and one of products with biases and `Relu`; it keeps compiled kernels and choices in `cache`.
///
/// # Errors
/// Those of [`device_with`].
pub fn device_with_library(library: ConvolutionLibrary, cache: Cache, options: &DeviceOptions) -> Result<Cuda> {
    let mut host = Host::new(0, 4 << 30);
    host.library = Some(Arc::new(library));
    let options = options.with_lanes(IN_LANES)?.completed()?;
    Ok(Cuda::new(
        Box::new(host),
        Box::new(HostCompiler::new()?),
        cache,
        &options,
    ))
}

/// An emulated device with 4 GiB of memory.
///
/// # Errors
/// Those of [`device_with`].
pub fn device() -> Result<Cuda> {
    device_with(0, 4 << 30, &DeviceOptions::default())
}

/// The host's C++ compiler.
struct HostCompiler {
    command: String,
    identity: String,
}

impl HostCompiler {
    fn new() -> Result<Self> {
        let command = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let version = Command::new(&command).arg("--version").output().map_err(|error| {
            Error::unavailable(format!("no C++ compiler '{command}', which an emulated device needs")).caused_by(error)
        })?;
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.lines().next().unwrap_or_default();
        Ok(Self {
            identity: format!("emulator {HEADER} {version} {}", OPTIONS.join(" ")),
            command,
        })
    }
}

impl Compiler for HostCompiler {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn compile(&self, name: &str, text: &str) -> Result<Vec<u8>> {
        let io = |error| Error::unavailable("the emulated device cannot compile").caused_by(error);
        let folder = tempfile::tempdir().map_err(io)?;
        let (source, library) = (folder.path().join("kernels.cpp"), folder.path().join("kernels.so"));
        std::fs::write(&source, format!("{HEADER}{text}")).map_err(io)?;
        let output = Command::new(&self.command)
            .args(OPTIONS)
            .arg(&source)
            .arg("-o")
            .arg(&library)
            .output()
            .map_err(io)?;
        if !output.status.success() {
            return Err(
                Error::internal(format!("{name} does not compile for the emulated device"))
                    .got(String::from_utf8_lossy(&output.stderr)),
            );
        }
        std::fs::read(&library).map_err(io)
    }
}

#[derive(Default)]
struct State {
    /// The size of each block of device memory and of pinned memory.
    memory: FxHashMap<u64, usize>,
    used: usize,
    libraries: Vec<libloading::Library>,
    /// The recording, while there is one.
    recording: Option<Recording>,
    graphs: FxHashMap<Handle, Recording>,
    /// What all work took so far, and what it was at each mark.
    clock: Duration,
    times: FxHashMap<Handle, Duration>,
    next: Handle,
}

impl State {
    fn recording(&mut self) -> Result<&mut Recording> {
        let recording = self.recording.as_mut();
        recording.ok_or_else(|| Error::failed_precondition("nothing is being recorded"))
    }
}

/// The host in the place of a GPU.
struct Host {
    info: DeviceInfo,
    library: Option<Arc<ConvolutionLibrary>>,
    state: Mutex<State>,
}

/// Kernels keep what a grid needs in variables of their library: one at a time runs, of all devices.
static RUNNING: Mutex<()> = Mutex::new(());

impl Host {
    fn new(index: u32, memory: usize) -> Self {
        Self {
            info: DeviceInfo {
                index,
                name: "emulated GPU".to_owned(),
                capability: Capability { major: 0, minor: 0 },
                memory,
                multiprocessors: 2,
            },
            library: None,
            state: Mutex::default(),
        }
    }

    fn library(&self) -> Result<&Arc<ConvolutionLibrary>> {
        let library = self.library.as_ref();
        library.ok_or_else(|| Error::unavailable("the emulated device has no library of convolutions"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layout(bytes: usize) -> Result<Layout> {
        Layout::from_size_align(bytes, ALIGNMENT)
            .map_err(|_| Error::resource_exhausted(format!("no {bytes} bytes of emulated memory")))
    }

    /// Runs work, or records it.
    ///
    /// # Safety
    /// That of [`Driver`].
    unsafe fn give(&self, work: Work) -> Result<()> {
        let mut state = self.state();
        match &mut state.recording {
            Some(recording) => recording.push(work),
            None => {
                let _running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
                // SAFETY: the caller's promise.
                state.clock += unsafe { work.run() };
            }
        }
        Ok(())
    }

    /// What a GPU refuses while it records.
    fn not_recording(&self) -> Result<()> {
        if self.state().recording.is_some() {
            return Err(Error::internal(
                "the emulated device was asked for memory, or waited for, while it records",
            ));
        }
        Ok(())
    }
}

// SAFETY: addresses are the host's own; the conditions are handed on.
unsafe impl Driver for Host {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn version(&self) -> String {
        "emulated".to_owned()
    }

    fn free_memory(&self) -> Result<usize> {
        Ok(self.info.memory - self.state().used)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.not_recording()?;
        let layout = Self::layout(bytes)?;
        let mut state = self.state();
        if bytes > self.info.memory - state.used {
            return Err(Error::resource_exhausted(format!(
                "no {bytes} bytes of emulated memory"
            )));
        }
        // SAFETY: nobody asks for nothing.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            return Err(Error::resource_exhausted(format!("no {bytes} bytes of host memory")));
        }
        // What reads memory that nobody wrote shall show: every float there is not a number.
        // SAFETY: just allocated.
        unsafe { start.write_bytes(0xff, bytes) };
        state.memory.insert(start as u64, bytes);
        state.used += bytes;
        Ok(start as u64)
    }

    unsafe fn free(&self, address: u64) {
        let mut state = self.state();
        if let Some(bytes) = state.memory.remove(&address) {
            state.used -= bytes;
            if let Ok(layout) = Self::layout(bytes) {
                // SAFETY: allocated with this layout.
                unsafe { dealloc(address as *mut u8, layout) };
            }
        }
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8> {
        self.allocate(bytes).map(|address| address as *mut u8)
    }

    unsafe fn free_pinned(&self, start: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { self.free(start as u64) }
    }

    unsafe fn copy_in(&self, from: *const u8, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.copy(from as u64, to, bytes) }
    }

    unsafe fn copy_in_through(&self, from: *const u8, through: u64, to: u64, bytes: usize) -> Result<()> {
        self.not_recording()?;
        // SAFETY: the caller's promise.
        unsafe {
            self.copy(from as u64, through, bytes)?;
            self.copy(through, to, bytes)
        }
    }

    unsafe fn copy_out(&self, from: u64, to: *mut u8, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.copy(from, to as u64, bytes) }
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.give(Work::Copy { from, to, bytes }) }
    }

    fn load(&self, image: &[u8]) -> Result<Handle> {
        let io = |error| Error::unavailable("the emulated device cannot load kernels").caused_by(error);
        // The loader takes a file for what it loaded under the same name before: each has another.
        let folder = tempfile::tempdir().map_err(io)?;
        let path = folder.path().join("kernels.so");
        std::fs::write(&path, image).map_err(io)?;
        let library = open(&path)?;
        let mut state = self.state();
        state.libraries.push(library);
        Ok(state.libraries.len() - 1)
    }

    fn function(&self, module: Handle, name: &str) -> Result<Handle> {
        let state = self.state();
        let library = state
            .libraries
            .get(module)
            .ok_or_else(|| Error::internal("a module that was never loaded"))?;
        // SAFETY: the header gives every kernel this type.
        let kernel = unsafe { library.get::<Kernel>(name.as_bytes()) };
        let kernel =
            kernel.map_err(|error| Error::not_found(format!("there is no kernel '{name}'")).caused_by(error))?;
        Ok(*kernel as Handle)
    }

    unsafe fn launch(&self, function: Handle, grid: Grid, arguments: &[Argument<'_>]) -> Result<()> {
        let threads: u64 = grid.threads.iter().map(|&count| u64::from(count)).product();
        if threads > 1024 || grid.blocks[1].max(grid.blocks[2]) > 65_535 || grid.blocks[0] > i32::MAX as u32 {
            return Err(Error::internal("a grid that no GPU can run").got(format!("{grid:?}")));
        }
        let arguments = arguments.iter().map(|argument| {
            let mut words = vec![0u64; argument.bytes.div_ceil(8).max(1)];
            // SAFETY: an argument's value is as long as it says, and `words` is no shorter.
            unsafe {
                std::ptr::copy_nonoverlapping(argument.value.cast::<u8>(), words.as_mut_ptr().cast(), argument.bytes);
            }
            words
        });
        let work = Work::Launch {
            // SAFETY: `function` handed out the address of a kernel, whose library is never unloaded while the device lives.
            kernel: unsafe { std::mem::transmute::<Handle, Kernel>(function) },
            grid,
            arguments: arguments.collect(),
        };
        // SAFETY: the caller's promise.
        unsafe { self.give(work) }
    }

    unsafe fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<()> {
        match product.dtype {
            DType::Float32 | DType::Float64 | DType::Half | DType::BFloat16 => {}
            other => return Err(Error::unimplemented(format!("no product of matrices of {other}"))),
        }
        let product = product.clone();
        // SAFETY: the caller's promise.
        unsafe {
            self.give(Work::Multiply {
                product,
                epilogue: None,
                a,
                b,
                c,
            })
        }
    }

    unsafe fn multiply_with(&self, product: &Product, epilogue: Epilogue, a: u64, b: u64, c: u64) -> Result<bool> {
        // As cuBLASLt does.
        let in_float = matches!(product.dtype, DType::Float32 | DType::Half | DType::BFloat16);
        if self.library.is_none() || !in_float || product.batch != 1 || product.inner == 0 {
            return Ok(false);
        }
        let (product, epilogue) = (product.clone(), Some(epilogue));
        // SAFETY: the caller's promise.
        unsafe {
            self.give(Work::Multiply {
                product,
                epilogue,
                a,
                b,
                c,
            })
        }?;
        Ok(true)
    }

    fn convolutions(&self) -> Result<&dyn Convolutions> {
        self.library()?;
        Ok(self)
    }

    fn synchronize(&self) -> Result<()> {
        self.not_recording()
    }

    fn record_event(&self) -> Result<Handle> {
        Ok(0)
    }

    fn is_past(&self, _: Handle) -> Result<bool> {
        Ok(true)
    }

    fn wait_for(&self, _: Handle) -> Result<()> {
        self.not_recording()
    }

    fn record_time(&self) -> Result<Handle> {
        self.not_recording()?;
        let mut state = self.state();
        state.next += 1;
        let (mark, now) = (state.next, state.clock);
        state.times.insert(mark, now);
        Ok(mark)
    }

    fn elapsed(&self, from: Handle, to: Handle) -> Result<Duration> {
        let mut state = self.state();
        let (from, to) = (state.times.remove(&from), state.times.remove(&to));
        from.zip(to)
            .map(|(from, to)| to.saturating_sub(from))
            .ok_or_else(|| Error::internal("a time that was never marked"))
    }

    fn begin_capture(&self) -> Result<()> {
        self.not_recording()?;
        self.state().recording = Some(Recording::default());
        Ok(())
    }

    fn enter_lane(&self, lane: usize, after: &[Handle]) -> Result<()> {
        self.state().recording()?.enter(lane, after);
        Ok(())
    }

    fn mark_lane(&self) -> Result<Handle> {
        Ok(self.state().recording()?.mark())
    }

    fn end_capture(&self) -> Result<Handle> {
        let mut state = self.state();
        let recording = std::mem::take(state.recording()?);
        state.recording = None;
        state.next += 1;
        let graph = state.next;
        state.graphs.insert(graph, recording);
        Ok(graph)
    }

    fn launch_graph(&self, graph: Handle) -> Result<()> {
        let mut state = self.state();
        let recording = state.graphs.get_mut(&graph);
        let recording = recording.ok_or_else(|| Error::internal("a graph that was never recorded"))?;
        let _running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: those who recorded it promised that what it works on is there.
        let took = unsafe { recording.run() };
        state.clock += took;
        Ok(())
    }

    fn drop_graph(&self, graph: Handle) {
        self.state().graphs.remove(&graph);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let blocks: Vec<u64> = self.state().memory.keys().copied().collect();
        for address in blocks {
            // SAFETY: nobody uses the device any more.
            unsafe { self.free(address) };
        }
    }
}

fn open(path: &Path) -> Result<libloading::Library> {
    // SAFETY: a library of kernels has no initialization.
    unsafe { libloading::Library::new(path) }
        .map_err(|error| Error::internal("the emulated device cannot load kernels").caused_by(error))
}
