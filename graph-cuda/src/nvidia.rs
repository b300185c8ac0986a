//! The driver of NVIDIA's cards, through `cudarc`, whose libraries are loaded when they are first called.
//!
//! `cudarc` panics where a library is missing: [`devices`] looks for the driver before anything is called, and matrix products
//! look for cuBLAS. Of cuBLASLt and cuDNN a few functions are called, without it. All work goes to one stream that is not the
//! default one, which could not be recorded; each lane of recorded work is a stream of its own, which joins the recording by an
//! event of the first, and so are copies from the host that need not wait for what was given before.

use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cudarc::driver::{result, sys};
use graph_core::{Error, Result};
use smallvec::SmallVec;

use crate::blas::Blas;
use crate::blas_lt::BlasLt;
use crate::convolution::{Algorithm, Convolution, Convolutions};
use crate::cudnn::Cudnn;
use crate::driver::{Argument, Capability, DeviceInfo, Driver, Epilogue, Grid, Handle, LANES, Product};

/// The oldest driver that has all calls made here: of CUDA 12.0, as the driver counts.
const OLDEST_DRIVER: i32 = 12_000;

/// What there is of the machine's cards.
///
/// # Errors
/// `Unavailable` if there is no driver or no card, `FailedPrecondition` for a driver that is too old.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    // SAFETY: only looks for the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::unavailable("no NVIDIA driver (libcuda) is installed"));
    }
    result::init().map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => Error::unavailable("there is no NVIDIA GPU, or none is visible")
            .hint("CUDA_VISIBLE_DEVICES tells which are"),
        _ => failed("initializing CUDA", error),
    })?;
    let version = driver_version()?;
    if version < OLDEST_DRIVER {
        let of = |version: i32| format!("a driver of CUDA {}.{}", version / 1000, version % 1000 / 10);
        return Err(Error::failed_precondition("the NVIDIA driver is too old")
            .expected(format!("{} or newer", of(OLDEST_DRIVER)))
            .got(of(version)));
    }
    let count = result::device::get_count().map_err(|error| failed("counting devices", error))?;
    (0..count).map(|index| info(index).map(|(_, info)| info)).collect()
}

/// The newest CUDA that the driver has, as it counts.
fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: the address is valid.
    let asked = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    asked.map_err(|error| failed("asking for the driver's version", error))?;
    Ok(version)
}

fn info(index: i32) -> Result<(sys::CUdevice, DeviceInfo)> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
    };
    let asking = |error| failed("asking what a device is", error);
    let device = result::device::get(index).map_err(asking)?;
    // SAFETY: the device was just given by the driver.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) }.map_err(asking);
    let info = DeviceInfo {
        index: index as u32,
        name: result::device::get_name(device).map_err(asking)?,
        capability: Capability {
            major: attribute(MAJOR)? as u32,
            minor: attribute(MINOR)? as u32,
        },
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device) }.map_err(asking)?,
        multiprocessors: attribute(MULTIPROCESSORS)? as u32,
    };
    Ok((device, info))
}

/// One card, through its primary context.
pub struct Nvidia {
    info: DeviceInfo,
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// One for each lane; all work that is not recorded goes to the first.
    streams: [sys::CUstream; LANES],
    /// For copies from the host beside the work.
    uploads: sys::CUstream,
    /// Where work goes now. Only a thread that records, while no other gives work, changes it.
    lane: AtomicUsize,
    /// What a recording has of events.
    recording: Mutex<Recording>,
    /// cuBLAS, from the first product on.
    blas: Mutex<Option<Blas>>,
    /// cuBLASLt, from the first product with an epilogue on, if there is one.
    blas_lt: Mutex<Option<Option<BlasLt>>>,
    /// cuDNN, once it was found.
    cudnn: Mutex<Option<Cudnn>>,
    tf32: bool,
    version: i32,
}

/// The events of a recording, which live until it ends, and the lanes that are part of it.
#[derive(Default)]
struct Recording {
    events: Vec<sys::CUevent>,
    /// The place before all work.
    begin: Option<sys::CUevent>,
    joined: [bool; LANES],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// SAFETY: the driver's objects may be used from any thread, and cuBLAS is behind a lock.
unsafe impl Send for Nvidia {}
// SAFETY: as above.
unsafe impl Sync for Nvidia {}

impl Nvidia {
    /// Opens the device of this index; with `tf32`, products of `float` matrices round their operands to TensorFloat-32.
    ///
    /// # Errors
    /// The driver's.
    pub fn open(index: u32, tf32: bool) -> Result<Self> {
        let (device, info) = info(index as i32)?;
        let opening = |error| failed("opening the device", error);
        // SAFETY: the device was just given by the driver; the context is released in `drop`.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(opening)?;
        // SAFETY: the context is retained.
        let current = unsafe { result::ctx::set_current(context) };
        let mut streams = [std::ptr::null_mut(); LANES + 1];
        let made = current.and_then(|()| {
            streams.iter_mut().try_for_each(|stream| {
                *stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
                Ok(())
            })
        });
        made.map_err(|error| {
            // SAFETY: made above, and used by nothing.
            unsafe {
                for stream in streams.into_iter().filter(|stream| !stream.is_null()) {
                    let _ = result::stream::destroy(stream);
                }
                let _ = result::primary_ctx::release(device);
            }
            opening(error)
        })?;
        let [streams @ .., uploads] = streams;
        Ok(Self {
            info,
            device,
            context,
            streams,
            uploads,
            lane: AtomicUsize::new(0),
            recording: Mutex::default(),
            blas: Mutex::new(None),
            blas_lt: Mutex::new(None),
            cudnn: Mutex::new(None),
            tf32,
            version: driver_version()?,
        })
    }

    /// The lane where work goes now.
    fn lane(&self) -> usize {
        self.lane.load(Ordering::Relaxed)
    }

    /// Its stream.
    fn stream(&self) -> sys::CUstream {
        self.streams[self.lane()]
    }

    /// An event of this kind behind what the stream was given.
    fn mark(&self, stream: sys::CUstream, kind: sys::CUevent_flags) -> Result<sys::CUevent> {
        let marking = |error| failed("marking a place in the work", error);
        let event = result::event::create(kind).map_err(marking)?;
        // SAFETY: the event was just made, the stream lives as long as `self`.
        let recorded = unsafe { result::event::record(event, stream) };
        recorded.map(|()| event).map_err(|error| {
            // SAFETY: nothing uses it.
            let _ = unsafe { result::event::destroy(event) };
            marking(error)
        })
    }

    /// An event at this place in the work that is recorded, which lives as long as the recording.
    fn mark_recorded(&self) -> Result<sys::CUevent> {
        let event = self.mark(self.stream(), sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        lock(&self.recording).events.push(event);
        Ok(event)
    }

    /// Work that is given to the current lane from now on comes after this event.
    fn wait_for_mark(&self, event: sys::CUevent) -> Result<()> {
        // SAFETY: the event lives, and the stream as long as `self`.
        unsafe { result::stream::wait_event(self.stream(), event, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }
            .map_err(|error| failed("putting work behind other work", error))
    }

    /// Brings all lanes of the recording back to the first.
    fn join_lanes(&self) -> Result<()> {
        let joined = lock(&self.recording).joined;
        for lane in (1..LANES).filter(|&lane| joined[lane]) {
            self.lane.store(lane, Ordering::Relaxed);
            let end = self.mark_recorded();
            self.lane.store(0, Ordering::Relaxed);
            self.wait_for_mark(end?)?;
        }
        Ok(())
    }

    /// Makes the device this thread's, as every call needs it.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { result::ctx::set_current(self.context) }.map_err(|error| failed("choosing the device", error))
    }

    /// Does something with cuBLAS, which gives its work to the current lane.
    fn with_blas<T>(&self, work: impl FnOnce(&Blas) -> Result<T>) -> Result<T> {
        let mut blas = lock(&self.blas);
        let blas = match &mut *blas {
            Some(blas) => blas,
            None => blas.insert(Blas::open(self.tf32)?),
        };
        blas.set_lane(self.lane(), self.stream())?;
        work(blas)
    }

    /// Does something with cuDNN.
    fn with_cudnn<T>(&self, work: impl FnOnce(&mut Cudnn) -> Result<T>) -> Result<T> {
        self.enter()?;
        let mut cudnn = lock(&self.cudnn);
        let cudnn = match &mut *cudnn {
            Some(cudnn) => cudnn,
            None => cudnn.insert(Cudnn::open(self.tf32)?),
        };
        cudnn.set_stream(self.stream().cast())?;
        work(cudnn)
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        // SAFETY: nothing uses these objects any more; errors cannot be told to anyone.
        unsafe {
            for stream in self.streams.into_iter().chain([self.uploads]) {
                let _ = result::stream::synchronize(stream);
            }
            drop(self.cudnn.get_mut().map(Option::take));
            drop(self.blas_lt.get_mut().map(Option::take));
            drop(self.blas.get_mut().map(Option::take));
            for stream in self.streams.into_iter().chain([self.uploads]) {
                let _ = result::stream::destroy(stream);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

// SAFETY: hands on to the driver what its own conditions ask for.
unsafe impl Driver for Nvidia {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn version(&self) -> String {
        self.version.to_string()
    }

    fn free_memory(&self) -> Result<usize> {
        self.enter()?;
        let (free, _) = result::mem_get_info().map_err(|error| failed("asking for free memory", error))?;
        Ok(free)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        // SAFETY: whoever gets the memory knows that its contents are arbitrary.
        unsafe { result::malloc_sync(bytes) }.map_err(|error| failed("asking for device memory", error))
    }

    unsafe fn free(&self, address: u64) {
        if self.enter().is_ok() {
            // SAFETY: the caller's promise. The driver waits for the device by itself.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8> {
        self.enter()?;
        // SAFETY: whoever gets the memory knows that its contents are arbitrary.
        let start = unsafe { result::malloc_host(bytes, 0) };
        start
            .map(<*mut c_void>::cast)
            .map_err(|error| failed("asking for pinned memory", error))
    }

    unsafe fn free_pinned(&self, start: *mut u8) {
        if self.enter().is_ok() {
            // SAFETY: the caller's promise.
            let _ = unsafe { result::free_host(start.cast()) };
        }
    }

    unsafe fn copy_in(&self, from: *const u8, to: u64, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_htod_async(to, std::slice::from_raw_parts(from, bytes), self.stream()) }
            .map_err(|error| failed("copying to the device", error))
    }

    unsafe fn copy_in_through(&self, from: *const u8, through: u64, to: u64, bytes: usize) -> Result<()> {
        self.enter()?;
        let copying = |error| failed("copying to the device", error);
        // SAFETY: the caller's promise.
        let given =
            unsafe { result::memcpy_htod_async(through, std::slice::from_raw_parts(from, bytes), self.uploads) };
        let given = given.map_err(copying).and_then(|()| {
            let there = self.mark(self.uploads, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
            let waits = self.wait_for_mark(there);
            // SAFETY: what waits for it has been told; the driver keeps what that needs.
            let _ = unsafe { result::event::destroy(there) };
            waits?;
            // SAFETY: the caller's promise.
            unsafe { result::memcpy_dtod_async(to, through, bytes, self.stream()) }.map_err(copying)
        });
        given.inspect_err(|_| {
            // Nobody else would wait for the first copy.
            // SAFETY: the stream lives as long as `self`.
            let _ = unsafe { result::stream::synchronize(self.uploads) };
        })
    }

    unsafe fn copy_out(&self, from: u64, to: *mut u8, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtoh_async(std::slice::from_raw_parts_mut(to, bytes), from, self.stream()) }
            .map_err(|error| failed("copying from the device", error))
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream()) }
            .map_err(|error| failed("copying on the device", error))
    }

    fn load(&self, image: &[u8]) -> Result<Handle> {
        self.enter()?;
        // SAFETY: a cubin says itself how long it is; a damaged one is an error of the driver.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) };
        module
            .map(|module| module as Handle)
            .map_err(|error| failed("loading kernels", error))
    }

    fn function(&self, module: Handle, name: &str) -> Result<Handle> {
        self.enter()?;
        let title = CString::new(name).map_err(|_| Error::internal("a kernel's name holds a zero byte"))?;
        // SAFETY: modules are never unloaded.
        let function = unsafe { result::module::get_function(module as sys::CUmodule, title) };
        function
            .map(|function| function as Handle)
            .map_err(|error| match error.0 {
                sys::CUresult::CUDA_ERROR_NOT_FOUND => Error::not_found(format!("there is no kernel '{name}'")),
                _ => failed("looking for a kernel", error),
            })
    }

    unsafe fn launch(&self, function: Handle, grid: Grid, arguments: &[Argument<'_>]) -> Result<()> {
        self.enter()?;
        let mut pointers: SmallVec<[*mut c_void; 16]> =
            arguments.iter().map(|argument| argument.value.cast_mut()).collect();
        let ([bx, by, bz], [tx, ty, tz]) = (grid.blocks, grid.threads);
        // SAFETY: the caller's promise; the driver reads the arguments before it returns.
        unsafe {
            result::launch_kernel(
                function as sys::CUfunction,
                (bx, by, bz),
                (tx, ty, tz),
                0,
                self.stream(),
                &mut pointers,
            )
        }
        .map_err(|error| failed("launching a kernel", error))
    }

    unsafe fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's promise.
        self.with_blas(|blas| unsafe { blas.multiply(product, a, b, c) })
    }

    unsafe fn multiply_with(&self, product: &Product, epilogue: Epilogue, a: u64, b: u64, c: u64) -> Result<bool> {
        self.enter()?;
        let mut library = lock(&self.blas_lt);
        let library = library.get_or_insert_with(|| {
            let opened = BlasLt::open(self.tf32);
            opened
                .inspect_err(|error| eprintln!("products, biases and activations are separate steps: {error}"))
                .ok()
        });
        let Some(library) = library else {
            return Ok(false);
        };
        let stream = self.stream().cast();
        self.with_blas(|blas| {
            // SAFETY: the caller's promise; only work of this stream uses the workspace.
            unsafe { library.multiply(product, epilogue, [a, b, c], blas.workspace(), stream) }
        })
    }

    fn convolutions(&self) -> Result<&dyn Convolutions> {
        Ok(self)
    }

    fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream()) }.map_err(|error| failed("waiting for the device", error))
    }

    fn record_event(&self) -> Result<Handle> {
        self.enter()?;
        self.mark(self.stream(), sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
            .map(|event| event as Handle)
    }

    fn record_time(&self) -> Result<Handle> {
        self.enter()?;
        self.mark(self.stream(), sys::CUevent_flags::CU_EVENT_DEFAULT)
            .map(|event| event as Handle)
    }

    fn elapsed(&self, from: Handle, to: Handle) -> Result<Duration> {
        self.enter()?;
        let (from, to) = (from as sys::CUevent, to as sys::CUevent);
        // SAFETY: events live until this, which is their last use.
        unsafe {
            let waited = result::event::synchronize(to);
            let elapsed = waited.and_then(|()| result::event::elapsed(from, to));
            let _ = result::event::destroy(from);
            let _ = result::event::destroy(to);
            let milliseconds = elapsed.map_err(|error| failed("taking the time of work", error))?;
            Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
        }
    }

    fn is_past(&self, event: Handle) -> Result<bool> {
        self.enter()?;
        // SAFETY: events live until they are waited for.
        match unsafe { result::event::query(event as sys::CUevent) } {
            Ok(()) => Ok(true),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            Err(error) => Err(failed("asking whether work is done", error)),
        }
    }

    fn wait_for(&self, event: Handle) -> Result<()> {
        self.enter()?;
        let event = event as sys::CUevent;
        // SAFETY: the event lives, and is used no more.
        let waited = unsafe { result::event::synchronize(event) };
        // SAFETY: as above.
        let _ = unsafe { result::event::destroy(event) };
        waited.map_err(|error| failed("waiting for work", error))
    }

    fn begin_capture(&self) -> Result<()> {
        self.enter()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::begin_capture(self.streams[0], mode) }.map_err(|error| failed("recording work", error))
    }

    fn enter_lane(&self, lane: usize, after: &[Handle]) -> Result<()> {
        self.enter()?;
        let begin = lock(&self.recording).begin;
        let begin = match begin {
            Some(begin) => begin,
            // Nothing was given yet.
            None => {
                let begin = self.mark_recorded()?;
                lock(&self.recording).begin = Some(begin);
                begin
            }
        };
        self.lane.store(lane, Ordering::Relaxed);
        if lane > 0 && !std::mem::replace(&mut lock(&self.recording).joined[lane], true) {
            self.wait_for_mark(begin)?;
        }
        after
            .iter()
            .try_for_each(|&mark| self.wait_for_mark(mark as sys::CUevent))
    }

    fn mark_lane(&self) -> Result<Handle> {
        self.enter()?;
        self.mark_recorded().map(|event| event as Handle)
    }

    fn end_capture(&self) -> Result<Handle> {
        self.enter()?;
        let joined = self.join_lanes();
        self.lane.store(0, Ordering::Relaxed);
        // SAFETY: the stream lives as long as `self`.
        let graph = unsafe { result::stream::end_capture(self.streams[0]) };
        let Recording { events, .. } = std::mem::take(&mut *lock(&self.recording));
        for event in events {
            // SAFETY: the recording has ended.
            let _ = unsafe { result::event::destroy(event) };
        }
        // A lane that could not be joined is what the driver refuses the recording for.
        joined?;
        let graph = graph.map_err(|error| failed("recording work", error))?;
        if graph.is_null() {
            return Err(Error::internal("CUDA recorded nothing"));
        }
        // SAFETY: the graph was just made, and is no more needed when it is instantiated.
        let instance = unsafe {
            let instance = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            instance
        };
        instance
            .map(|graph| graph as Handle)
            .map_err(|error| failed("making a graph of recorded work", error))
    }

    fn launch_graph(&self, graph: Handle) -> Result<()> {
        self.enter()?;
        // SAFETY: the graph lives until it is dropped.
        unsafe { result::graph::launch(graph as sys::CUgraphExec, self.streams[0]) }
            .map_err(|error| failed("launching recorded work", error))
    }

    fn drop_graph(&self, graph: Handle) {
        if self.enter().is_ok() {
            // SAFETY: nobody launches it any more; the driver lets it run to its end.
            let _ = unsafe { result::graph::exec_destroy(graph as sys::CUgraphExec) };
        }
    }
}

// SAFETY: as above.
unsafe impl Convolutions for Nvidia {
    fn identity(&self) -> Result<String> {
        self.with_cudnn(|cudnn| Ok(cudnn.identity()))
    }

    fn algorithms(&self, convolution: &Convolution, workspace: usize) -> Result<Vec<Algorithm>> {
        self.with_cudnn(|cudnn| cudnn.algorithms(convolution, workspace))
    }

    unsafe fn convolve(
        &self,
        convolution: &Convolution,
        algorithm: Algorithm,
        tensors: [u64; 3],
        workspace: u64,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        self.with_cudnn(|cudnn| unsafe { cudnn.run(convolution, algorithm, tensors, workspace) })
    }
}

/// The error of a call of the driver while it was `doing` something.
pub(crate) fn failed(doing: &str, error: result::DriverError) -> Error {
    use sys::CUresult::{CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH};
    let message = format!("CUDA failed, {doing}");
    let failed = match error.0 {
        CUDA_ERROR_OUT_OF_MEMORY => Error::resource_exhausted(message),
        CUDA_ERROR_SYSTEM_DRIVER_MISMATCH | CUDA_ERROR_NO_BINARY_FOR_GPU => {
            Error::failed_precondition(message).hint("install an NVIDIA driver that is as new as NVRTC")
        }
        _ => Error::internal(message),
    };
    failed.caused_by(error)
}
