//! A CUDA device as sessions and kernels see it.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use graph_core::accelerator::{Accelerator, CapturedWork, DeviceAddress, KernelStats, LaneMark, Lanes};
use graph_core::op::kernel::KernelRequest;
use graph_core::{Error, Result};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::cache::Cache;
use crate::choice::{Choices, Method, Trial};
use crate::convolution::{Algorithm, Convolution};
use crate::driver::{Argument, Capability, Compiler, DeviceInfo, Driver, Epilogue, Grid, Handle, LANES, Product};
use crate::gate::Gate;
use crate::options::DeviceOptions;
use crate::pool::Pool;
use crate::source::{Source, whole};
use crate::staging::Staging;
use crate::trace::{Tracer, copy_stats, product_stats, unnamed};

/// Threads of a block in [`Function::launch_over`].
const THREADS: u32 = 256;

/// What a device was given since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WorkCounts {
    /// Kernels and products, one by one; those that were recorded count once, when they were.
    pub kernels: u64,
    /// Recorded work that was launched.
    pub recorded: u64,
    /// Times that recorded work went to another lane than the first.
    pub lanes: u64,
    /// Copies from the host.
    pub uploads: u64,
    /// Copies to the host, each of which waits.
    pub downloads: u64,
    /// Times that the host waited for all work, without a copy.
    pub waits: u64,
}

#[derive(Default)]
struct Counters {
    kernels: AtomicU64,
    recorded: AtomicU64,
    lanes: AtomicU64,
    uploads: AtomicU64,
    downloads: AtomicU64,
    waits: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A CUDA device: its memory, its compiled kernels, its one stream of work. Cheap to clone: clones are the same device.
#[derive(Clone)]
pub struct Cuda {
    inner: Arc<Inner>,
    /// The bytes that its kernels are taken to move unless they say so themselves: those of the node that they are made for.
    moved: u64,
}

struct Inner {
    driver: Box<dyn Driver>,
    compiler: Box<dyn Compiler>,
    cache: Cache,
    pool: Mutex<Pool>,
    staging: Mutex<Staging>,
    /// Functions by the name of their source, their own name and what was defined.
    functions: Mutex<FxHashMap<String, Handle>>,
    modules: Mutex<FxHashMap<String, Handle>>,
    counters: Counters,
    gate: Gate,
    choices: Choices,
    tracer: Tracer,
    lanes: Lanes,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cuda {
    /// A device of this driver, whose kernels this compiler makes.
    pub fn new(driver: Box<dyn Driver>, compiler: Box<dyn Compiler>, cache: Cache, options: &DeviceOptions) -> Self {
        Self::from(Arc::new(Inner {
            driver,
            compiler,
            cache,
            pool: Mutex::new(Pool::with_limit(options.memory_limit)),
            staging: Mutex::default(),
            functions: Mutex::default(),
            modules: Mutex::default(),
            counters: Counters::default(),
            gate: Gate::default(),
            choices: Choices::new(options),
            tracer: Tracer::default(),
            lanes: options.lanes.unwrap_or(Lanes::One),
        }))
    }

    /// The device that a kernel is made for. A kernel that does not say what it moves ([`Function::moving`]) is taken to read all
    /// inputs of the node and to write all outputs.
    ///
    /// # Errors
    /// `Internal` if that is no CUDA device.
    pub fn of(request: &KernelRequest<'_>) -> Result<Self> {
        let accelerator = request.accelerator.map(|accelerator| accelerator.clone().as_any());
        let inner = accelerator.and_then(|any| any.downcast::<Inner>().ok());
        inner
            .map(|inner| Self {
                inner,
                moved: (request.input_bytes() + request.output_bytes()) as u64,
            })
            .ok_or_else(|| Error::internal("a CUDA kernel is made for another device"))
    }

    /// The device behind an accelerator of a session; none if it is no CUDA device.
    pub fn behind(accelerator: &Arc<dyn Accelerator>) -> Option<Self> {
        accelerator.clone().as_any().downcast::<Inner>().ok().map(Self::from)
    }

    /// The device as a session takes it.
    pub fn accelerator(&self) -> Arc<dyn Accelerator> {
        self.inner.clone()
    }

    /// What the device is.
    pub fn info(&self) -> &DeviceInfo {
        self.inner.driver.info()
    }

    /// Whether products and convolutions of `float` may round their operands to TensorFloat-32 ([`DeviceOptions::tf32`]).
    pub fn rounds_to_tf32(&self) -> bool {
        self.inner.choices.tf32()
    }

    /// Bytes of device memory that are handed out.
    pub fn held_bytes(&self) -> usize {
        lock(&self.inner.pool).held_bytes()
    }

    /// What it was given so far.
    pub fn work(&self) -> WorkCounts {
        let counters = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WorkCounts {
            kernels: read(&counters.kernels),
            recorded: read(&counters.recorded),
            lanes: read(&counters.lanes),
            uploads: read(&counters.uploads),
            downloads: read(&counters.downloads),
            waits: read(&counters.waits),
        }
    }

    /// The kernel `name` of `source`, compiled with these macros defined. Compiled code is kept in memory and on disk.
    ///
    /// # Errors
    /// `Internal` if the text does not compile, `NotFound` if it has no such kernel.
    pub fn function(&self, source: &Source, name: &str, defines: &[(&str, &str)]) -> Result<Function> {
        self.function_of(source.name, source.text, name, defines)
    }

    /// [`Cuda::function`] for a text made at run time; `title` names it in messages.
    ///
    /// # Errors
    /// Those of [`Cuda::function`].
    pub fn function_of(&self, title: &str, text: &str, name: &str, defines: &[(&str, &str)]) -> Result<Function> {
        let text = whole(title, text, defines);
        let key = format!("{name}\n{text}");
        let named = format!("{title}/{name}");
        if let Some(&function) = lock(&self.inner.functions).get(&key) {
            return Ok(self.kernel(function, named));
        }
        let module = self.module(title, text)?;
        let function = {
            let _inside = self.inner.gate.enter();
            self.inner.driver.function(module, name)?
        };
        lock(&self.inner.functions).insert(key, function);
        Ok(self.kernel(function, named))
    }

    /// The whole texts of the kernels that were asked for so far, as the compiler gets them.
    pub fn texts(&self) -> Vec<String> {
        lock(&self.inner.modules).keys().cloned().collect()
    }

    fn kernel(&self, function: Handle, name: String) -> Function {
        Function {
            device: self.inner.clone(),
            function,
            name: name.into(),
            bytes: self.moved,
            flops: 0,
        }
    }

    fn module(&self, title: &str, text: String) -> Result<Handle> {
        // The lock is held while compiling, so that threads do not compile the same text.
        let mut modules = lock(&self.inner.modules);
        if let Some(&module) = modules.get(&text) {
            return Ok(module);
        }
        let Inner {
            driver,
            compiler,
            cache,
            ..
        } = &*self.inner;
        let identity = compiler.identity();
        let load = |code: &[u8]| {
            let _inside = self.inner.gate.enter();
            driver.load(code)
        };
        let kept = cache.get(&identity, &text).and_then(|code| load(&code).ok());
        let module = match kept {
            Some(module) => module,
            None => {
                let code = compiler.compile(title, &text)?;
                let module = load(&code)?;
                cache.put(&identity, &text, &code);
                module
            }
        };
        modules.insert(text, module);
        Ok(module)
    }

    /// Gives the device a product of matrices: `c = op(a) op(b)`.
    ///
    /// # Errors
    /// `Unimplemented` for other dtypes than those of [`Product`], and the library's.
    ///
    /// # Safety
    /// The matrices must lie at these addresses of the device, and `c` must not overlap the others.
    pub unsafe fn multiply(
        &self,
        product: &Product,
        a: DeviceAddress,
        b: DeviceAddress,
        c: DeviceAddress,
    ) -> Result<()> {
        if product.rows == 0 || product.columns == 0 || product.batch == 0 {
            return Ok(());
        }
        let _inside = self.inner.gate.enter();
        count(&self.inner.counters.kernels);
        self.inner.traced(
            || product_stats(product, "product"),
            // SAFETY: the caller's promise.
            || unsafe { self.inner.driver.multiply(product, a.0, b.0, c.0) },
        )
    }

    /// [`Cuda::multiply`] of one product, to each row of which the vector `bias` is added, and `Relu` taken of that, in the same
    /// pass. `false`, with nothing given, where the device has no library that does so.
    ///
    /// # Errors
    /// Those of [`Cuda::multiply`].
    ///
    /// # Safety
    /// That of [`Cuda::multiply`]; `bias` has an element for each column.
    pub unsafe fn multiply_with_bias(
        &self,
        product: &Product,
        [a, b, bias]: [DeviceAddress; 3],
        relu: bool,
        c: DeviceAddress,
    ) -> Result<bool> {
        if product.rows == 0 || product.columns == 0 {
            return Ok(true);
        }
        let _inside = self.inner.gate.enter();
        let epilogue = Epilogue { bias: bias.0, relu };
        let name = if relu { "product, bias, Relu" } else { "product, bias" };
        let given = self.inner.tracer.give(
            &*self.inner.driver,
            || product_stats(product, name),
            // SAFETY: the caller's promise.
            || unsafe { self.inner.driver.multiply_with(product, epilogue, a.0, b.0, c.0) },
            |&given| given,
        )?;
        if given {
            count(&self.inner.counters.kernels);
        }
        Ok(given)
    }

    /// How to do a convolution: by the engine's own kernels, or by an algorithm of the device's library, whichever is faster as
    /// measured at first, or as the device's options say. To measure, `prepare` is given the bytes that algorithms work in, and
    /// what it returns does the convolution once. `None` stands for a convolution that [`Convolution`] cannot say.
    ///
    /// # Errors
    /// `prepare`'s, those of the engine's own kernels and, if only the library may be used: `Unavailable` or
    /// `FailedPrecondition` if it is not there or too old, `Unimplemented` for a convolution that it cannot do.
    pub fn choose_convolution<'a>(
        &self,
        convolution: Option<&Convolution>,
        prepare: impl FnOnce(usize) -> Result<Trial<'a>>,
    ) -> Result<Method> {
        let Inner {
            driver,
            gate,
            cache,
            choices,
            ..
        } = &*self.inner;
        choices.choose(&**driver, gate, cache, convolution, prepare)
    }

    /// Does a convolution by an algorithm of the device's library. One of images, filter and outputs, as its op says, becomes
    /// the result.
    ///
    /// # Errors
    /// The library's.
    ///
    /// # Safety
    /// The tensors lie at these addresses of the device as [`Convolution`] says, and the workspace is as large as the algorithm
    /// says.
    pub unsafe fn convolve(
        &self,
        convolution: &Convolution,
        algorithm: Algorithm,
        tensors: [DeviceAddress; 3],
        workspace: DeviceAddress,
    ) -> Result<()> {
        let library = self.inner.driver.convolutions()?;
        let _inside = self.inner.gate.enter();
        count(&self.inner.counters.kernels);
        let stats = || KernelStats {
            name: format!("cuDNN {:?}, algorithm {}", convolution.op, algorithm.number),
            bytes: convolution.bytes(),
            flops: convolution.flops(),
            ..unnamed()
        };
        let tensors = tensors.map(|address| address.0);
        // SAFETY: the caller's promise.
        let give = || unsafe { library.convolve(convolution, algorithm, tensors, workspace.0) };
        self.inner.traced(stats, give)
    }
}

impl From<Arc<Inner>> for Cuda {
    fn from(inner: Arc<Inner>) -> Self {
        Self { inner, moved: 0 }
    }
}

/// A kernel that is ready to be launched.
#[derive(Clone)]
pub struct Function {
    device: Arc<Inner>,
    function: Handle,
    /// Its source and its own name.
    name: Arc<str>,
    bytes: u64,
    flops: u64,
}

impl Function {
    /// Says how many bytes each launch has to read and to write, each once; a traced run tells it beside the time. Where it is not
    /// said, they are those of the inputs and outputs of the node that the kernel was made for ([`Cuda::of`]).
    #[must_use]
    pub fn moving(mut self, bytes: usize) -> Self {
        self.bytes = bytes as u64;
        self
    }

    /// Says how many operations of arithmetic each launch has to do; a traced run tells it beside the time. Element-wise kernels,
    /// whose time is that of memory, need not say so.
    #[must_use]
    pub fn doing(mut self, operations: usize) -> Self {
        self.flops = operations as u64;
        self
    }

    /// Gives the device a grid of `blocks` blocks of `threads` threads. Nothing happens for an empty grid.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// The arguments must be of the number and the very types that the kernel declares, addresses among them of memory of
    /// the device that is as large as the kernel needs until it has run.
    pub unsafe fn launch(&self, blocks: [u32; 3], threads: [u32; 3], arguments: &[Argument<'_>]) -> Result<()> {
        if blocks.contains(&0) || threads.contains(&0) {
            return Ok(());
        }
        let _inside = self.device.gate.enter();
        count(&self.device.counters.kernels);
        let stats = || KernelStats {
            name: self.name.to_string(),
            blocks,
            threads,
            bytes: self.bytes,
            flops: self.flops,
            ..unnamed()
        };
        let grid = Grid { blocks, threads };
        // SAFETY: the caller's promise.
        let give = || unsafe { self.device.driver.launch(self.function, grid, arguments) };
        self.device.traced(stats, give)
    }

    /// How many blocks of threads fill the device several times over: a kernel that goes over elements gains nothing by more.
    pub fn blocks_to_fill(&self) -> usize {
        self.device.driver.info().multiprocessors as usize * 32
    }

    /// Gives the device a kernel that goes over `elements` elements with all threads of its grid (`GRID_LOOP`).
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// That of [`Function::launch`].
    pub unsafe fn launch_over(&self, elements: usize, arguments: &[Argument<'_>]) -> Result<()> {
        let blocks = elements.div_ceil(THREADS as usize).min(self.blocks_to_fill());
        // SAFETY: the caller's promise.
        unsafe { self.launch([blocks as u32, 1, 1], [THREADS, 1, 1], arguments) }
    }
}

impl Accelerator for Inner {
    fn index(&self) -> u32 {
        self.driver.info().index
    }

    fn description(&self) -> String {
        let info = self.driver.info();
        let Capability { major, minor } = info.capability;
        format!(
            "{}, compute capability {major}.{minor}, {:.1} GiB",
            info.name,
            info.memory as f64 / f64::from(1 << 30)
        )
    }

    fn allocate(&self, bytes: usize) -> Result<DeviceAddress> {
        let _inside = self.gate.enter();
        lock(&self.pool).allocate(&*self.driver, bytes).map(DeviceAddress)
    }

    fn free(&self, address: DeviceAddress) {
        lock(&self.pool).free(address.0);
    }

    fn upload(&self, from: &[u8], to: DeviceAddress) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        let _inside = self.gate.enter();
        count(&self.counters.uploads);
        self.traced(
            || copy_stats("copy from the host", from.len()),
            || lock(&self.staging).upload(&*self.driver, from, to.0),
        )
    }

    fn download(&self, from: DeviceAddress, to: &mut [u8]) -> Result<()> {
        if to.is_empty() {
            return self.synchronize();
        }
        let _inside = self.gate.enter();
        count(&self.counters.downloads);
        let bytes = to.len();
        self.traced(
            || copy_stats("copy to the host", bytes),
            || lock(&self.staging).download(&*self.driver, from.0, to),
        )
    }

    fn copy(&self, from: DeviceAddress, to: DeviceAddress, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let _inside = self.gate.enter();
        self.traced(
            || copy_stats("copy", 2 * bytes),
            // SAFETY: the session gives addresses of tensors of this many bytes.
            || unsafe { self.driver.copy(from.0, to.0, bytes) },
        )
    }

    fn synchronize(&self) -> Result<()> {
        let _inside = self.gate.enter();
        count(&self.counters.waits);
        self.driver.synchronize()
    }

    fn begin_capture(&self) -> Result<()> {
        self.gate.begin_recording()?;
        self.driver.begin_capture().inspect_err(|_| self.gate.end_recording())
    }

    fn lanes(&self) -> Lanes {
        self.lanes
    }

    fn enter_lane(&self, lane: usize, after: &[LaneMark]) -> Result<()> {
        if lane >= LANES {
            return Err(Error::internal(format!("there is no lane {lane}")));
        }
        let after: SmallVec<[Handle; LANES]> = after.iter().map(|mark| mark.0).collect();
        self.driver.enter_lane(lane, &after)?;
        if lane > 0 {
            count(&self.counters.lanes);
        }
        Ok(())
    }

    fn mark_lane(&self) -> Result<LaneMark> {
        self.driver.mark_lane().map(LaneMark)
    }

    fn end_capture(self: Arc<Self>) -> Result<Box<dyn CapturedWork>> {
        let graph = self.driver.end_capture();
        self.gate.end_recording();
        let graph = graph?;
        Ok(Box::new(Captured { device: self, graph }))
    }

    fn begin_trace(&self) -> Result<()> {
        self.tracer.begin();
        Ok(())
    }

    fn end_trace(&self) -> Result<Vec<KernelStats>> {
        let _inside = self.gate.enter();
        let timed = self.tracer.end(&*self.driver);
        self.driver.synchronize().and(timed)
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl Inner {
    /// Gives a piece of work, timed in a traced run.
    fn traced<T>(&self, stats: impl FnOnce() -> KernelStats, give: impl FnOnce() -> Result<T>) -> Result<T> {
        self.tracer.give(&*self.driver, stats, give, |_| true)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What is held is the sessions', which hold the device too.
        lock(&self.pool).trim(&*self.driver);
        lock(&self.staging).release(&*self.driver);
    }
}

/// A recorded step.
struct Captured {
    device: Arc<Inner>,
    graph: Handle,
}

impl CapturedWork for Captured {
    fn launch(&self) -> Result<()> {
        let _inside = self.device.gate.enter();
        count(&self.device.counters.recorded);
        self.device.driver.launch_graph(self.graph)
    }

    fn launch_timed(&self) -> Result<Duration> {
        let _inside = self.device.gate.enter();
        count(&self.device.counters.recorded);
        count(&self.device.counters.waits);
        let driver = &self.device.driver;
        let from = driver.record_time()?;
        let given = driver.launch_graph(self.graph);
        let to = driver.record_time()?;
        let elapsed = driver.elapsed(from, to);
        given.and(elapsed)
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        let _inside = self.device.gate.enter();
        self.device.driver.drop_graph(self.graph);
    }
}
