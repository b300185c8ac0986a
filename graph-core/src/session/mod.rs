//! Sessions: what runs a graph.
//!
//! A run names feeds, fetches and targets. Its *structural* plan (what part of the graph is needed, rewritten and put in
//! order) is cached by those names; under it, its *shaped* plans (kernels, memory) by the shapes that are fed. Variables,
//! random streams and the arena belong to the session and outlive all plans.

mod accelerate;
mod dynamic;
pub mod evaluate;
mod execute;
mod feed;
mod fetch;
mod loops;
mod memory;
mod observer;
mod options;
mod placement;
pub(crate) mod plan;
mod profile;
mod recorded;
mod state;
mod structure;
mod survey;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::error::{Error, Result};
use crate::graph::{Graph, Operation, Tensor};
use crate::shape::Shape;
use crate::value::{FromValue, Value};
use crate::variable::Variable;
use execute::RunControl;
pub use feed::{Feedable, Feeds};
pub use fetch::{Fetch, FetchItem, FetchedValues};
pub use observer::{ObservedRun, RunObserver};
pub use options::{Accelerators, RewriteOptions, RunOptions, SessionOptions};
use placement::Devices;
use plan::Plan;
pub use profile::{KernelStats, NodeStats, RunMetadata};
use state::SessionState;
use structure::{Request, Structure};
use survey::{SPECIALIZATION, Survey};

/// How many shaped plans are kept for one structural plan: a training, a test and a last-batch shape, and some more.
const SHAPED_PLANS: usize = 8;

/// Runs the operations of one graph, and keeps its variables. Cheap to clone: clones are the same session. Runs of one
/// session take turns.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    graph: Graph,
    options: SessionOptions,
    pool: Option<rayon::ThreadPool>,
    running: Mutex<Running>,
}

/// What runs need one at a time.
struct Running {
    state: SessionState,
    devices: Devices,
    plans: Vec<StructuralPlan>,
    by_request: FxHashMap<Request, usize>,
    /// The graph's count of rewirings when the plans were made.
    rewirings: u64,
    /// Counts how often all plans were dropped.
    generation: u64,
    closed: bool,
}

struct StructuralPlan {
    structure: Structure,
    /// Least recently used first.
    shaped: Vec<ShapedPlan>,
}

struct ShapedPlan {
    /// The shapes of the feeds.
    feeds: Vec<Shape>,
    /// The structure rewritten for these shapes, where it was.
    structure: Option<Structure>,
    plan: Plan,
}

impl ShapedPlan {
    fn new(
        structure: &Structure,
        feeds: Vec<Shape>,
        options: &SessionOptions,
        state: &mut SessionState,
        devices: &Devices,
    ) -> Result<Self> {
        if !options.rewrites.enabled(SPECIALIZATION) || !structure.loops.is_empty() {
            let plan = Plan::new(structure, &feeds, state, devices, options.log_device_placement)?;
            return Ok(Self {
                feeds,
                structure: None,
                plan,
            });
        }
        let survey = Survey::new(structure, &feeds, state)?;
        let specialized = structure.specialized(survey, &options.rewrites, devices)?;
        let plan = Plan::new(&specialized, &feeds, state, devices, options.log_device_placement)?;
        Ok(Self {
            feeds,
            structure: Some(specialized),
            plan,
        })
    }
}

impl Session {
    /// A session for `graph` with the usual options.
    ///
    /// # Errors
    /// Those of [`Session::with_options`].
    pub fn new(graph: &Graph) -> Result<Self> {
        Self::with_options(graph, SessionOptions::default())
    }

    /// A session for `graph`.
    ///
    /// # Errors
    /// `InvalidArgument` for zero threads, `ResourceExhausted` if they cannot be started.
    pub fn with_options(graph: &Graph, options: SessionOptions) -> Result<Self> {
        let rewrites = graph.rewrites().into_iter();
        let rewrites = rewrites.fold(options.rewrites.clone(), RewriteOptions::with);
        let pool =
            match options.intra_op_parallelism_threads {
                Some(0) => {
                    return Err(Error::invalid_argument("a session needs at least one thread").got("0 threads"));
                }
                Some(threads) => Some(rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(
                    |error| Error::resource_exhausted(format!("cannot start {threads} threads")).caused_by(error),
                )?),
                None => None,
            };
        let running = Running {
            state: SessionState::new()?,
            devices: Devices::of(&options)?,
            plans: Vec::new(),
            by_request: FxHashMap::default(),
            rewirings: 0,
            generation: 0,
            closed: false,
        };
        Ok(Self(Arc::new(Inner {
            graph: graph.clone(),
            options: SessionOptions { rewrites, ..options },
            pool,
            running: Mutex::new(running),
        })))
    }

    /// The graph that it runs.
    pub fn graph(&self) -> &Graph {
        &self.0.graph
    }

    /// Its options.
    pub fn options(&self) -> &SessionOptions {
        &self.0.options
    }

    /// Runs what `fetches` needs, with `feeds` in place of the tensors they name.
    ///
    /// ```ignore
    /// let (loss, accuracy): (f32, f32) = session.run((&loss, &accuracy), feed! { images => batch, keep => 1.0 })?;
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for feeds and fetches that do not fit the graph or a placeholder that is not fed,
    /// `FailedPrecondition` for uninitialized variables, and whatever the operations themselves report.
    pub fn run<T>(&self, fetches: impl Fetch<T>, feeds: impl Into<Feeds>) -> Result<T> {
        self.run_with(fetches, feeds, &RunOptions::default())
            .map(|(result, _)| result)
    }

    /// [`Session::run`] with options; what the run measured comes along.
    ///
    /// # Errors
    /// Those of [`Session::run`], and `DeadlineExceeded`.
    pub fn run_with<T>(
        &self,
        fetches: impl Fetch<T>,
        feeds: impl Into<Feeds>,
        options: &RunOptions,
    ) -> Result<(T, RunMetadata)> {
        let mut items = Vec::new();
        fetches.items(&mut items);
        let (feeds, values): (Vec<Tensor>, Vec<Value>) = feeds.into().resolve(self.graph())?.into_iter().unzip();
        let request = self.request(&feeds, &items)?;
        let mut metadata = RunMetadata::default();
        let mut outputs = Vec::new();
        let mut running = self.lock()?;
        let result = running
            .structural_plan(self, &request)
            .and_then(|plan| self.run_plan(&mut running, plan, &values, &mut outputs, options, &mut metadata));
        self.observed(&request, &values, &outputs, result)?;
        drop(running);
        let result = fetches.take(&mut FetchedValues(outputs.into_iter()))?;
        Ok((result, metadata))
    }

    /// Makes a function of the values of `feeds` that runs `fetches`, for loops: its plan is not looked up by name again.
    ///
    /// # Errors
    /// Those of [`Session::run`] that need no values.
    pub fn make_callable<T>(&self, fetches: impl Fetch<T>, feeds: &[&dyn Feedable]) -> Result<Callable> {
        let mut items = Vec::new();
        fetches.items(&mut items);
        let feeds: Vec<Tensor> = feeds.iter().map(|feed| feed.fed_tensor()).collect();
        for (index, tensor) in feeds.iter().enumerate() {
            feed::check_fed_tensor(tensor, &feeds[..index], self.graph())?;
        }
        let request = self.request(&feeds, &items)?;
        let mut running = self.lock()?;
        let plan = running.structural_plan(self, &request)?;
        let generation = running.generation;
        drop(running);
        Ok(Callable {
            session: self.clone(),
            request,
            feeds,
            plan: Mutex::new((generation, plan)),
        })
    }

    /// What kernels keep between runs beside variables, each under the name of its operation: the random streams of the
    /// operations that have run (or are planned), the counters of `Print`. With the variables they are all that a session
    /// must be given to go on elsewhere as it would here.
    ///
    /// # Errors
    /// `FailedPrecondition` if the session is closed.
    pub fn kernel_states(&self) -> Result<BTreeMap<String, Value>> {
        let saved = self.lock()?.state.saved_kernel_states();
        let named = |(node, state)| Ok((self.graph().operation_at(node)?.name(), state));
        saved.into_iter().map(named).collect()
    }

    /// Goes on with states that [`Session::kernel_states`] gave, of this session or of another one for the same graph. All
    /// are taken or, on an error, none. Operations that are not named keep what they have.
    ///
    /// # Errors
    /// `NotFound` for a name that the graph does not have, `InvalidArgument` for an operation that keeps no state or not one
    /// like the value, `FailedPrecondition` if the session is closed.
    pub fn restore_kernel_states(&self, states: &BTreeMap<String, Value>) -> Result<()> {
        let mut restored = Vec::new();
        for (name, saved) in states {
            let operation = self.graph().operation(name)?;
            let state = self
                .graph()
                .read(|data| evaluate::new_state(data.node(operation.id())))?;
            let mut state = state.ok_or_else(|| {
                Error::invalid_argument(format!("'{name}' keeps no state between runs")).at(operation.site())
            })?;
            state.restore(saved).map_err(|error| error.at(operation.site()))?;
            restored.push((operation.id(), state));
        }
        let mut running = self.lock()?;
        for (node, state) in restored {
            running.state.replace_kernel_state(node, state);
        }
        Ok(())
    }

    /// Ends the session: what it kept is freed, and every later run is an error.
    pub fn close(&self) {
        let mut running = self.0.running.lock().unwrap_or_else(|poison| poison.into_inner());
        running.drop_plans();
        if let Ok(state) = SessionState::new() {
            running.state = state;
        }
        running.closed = true;
    }

    /// Makes this the session of the thread's `eval` and `run` until the guard is dropped.
    pub fn as_default(&self) -> DefaultSessionGuard {
        DEFAULT_SESSIONS.with_borrow_mut(|sessions| sessions.push(self.clone()));
        DefaultSessionGuard {
            session: self.clone(),
            not_send: PhantomData,
        }
    }

    /// The innermost session of the thread's [`Session::as_default`].
    ///
    /// # Errors
    /// `FailedPrecondition` if there is none.
    pub fn current() -> Result<Session> {
        DEFAULT_SESSIONS
            .with_borrow(|sessions| sessions.last().cloned())
            .ok_or_else(|| {
                Error::failed_precondition("there is no default session")
                    .hint("keep the guard of Session::as_default, or use Session::run")
            })
    }

    fn request(&self, feeds: &[Tensor], items: &[FetchItem]) -> Result<Request> {
        let mut request = Request {
            feeds: feeds.iter().map(Tensor::id).collect(),
            ..Request::default()
        };
        for item in items {
            let (graph, name) = match item {
                FetchItem::Tensor(tensor) => (tensor.graph(), tensor.name()),
                FetchItem::Operation(operation) => (operation.graph(), operation.name()),
            };
            if graph != self.graph() {
                return Err(Error::invalid_argument(format!(
                    "the fetch '{name}' is of another graph than the session's"
                ))
                .hint("fetch what was built while the session's graph was the current one"));
            }
            match item {
                FetchItem::Tensor(tensor) => request.fetches.push(tensor.id()),
                FetchItem::Operation(operation) => request.targets.push(operation.id()),
            }
        }
        Ok(request)
    }

    /// Tells the observer, if there is one, of a run that just ended; the run's error, or the observer's.
    ///
    /// Called under the session's lock, so that an observer sees runs in the order in which they happened.
    fn observed(&self, request: &Request, feeds: &[Value], outputs: &[Value], result: Result<()>) -> Result<()> {
        if let Some(observer) = &self.options().observer {
            observer.observe(&ObservedRun {
                graph: self.graph(),
                request,
                feeds,
                result: result.as_ref().map(|()| outputs),
            })?;
        }
        result
    }

    fn lock(&self) -> Result<MutexGuard<'_, Running>> {
        let mut running = self.0.running.lock().unwrap_or_else(|poison| poison.into_inner());
        if running.closed {
            return Err(Error::failed_precondition("the session is closed"));
        }
        let rewirings = self.graph().read(|data| data.rewirings());
        if rewirings != running.rewirings {
            running.drop_plans();
            running.rewirings = rewirings;
        }
        Ok(running)
    }

    fn run_plan(
        &self,
        running: &mut Running,
        plan: usize,
        feeds: &[Value],
        outputs: &mut Vec<Value>,
        options: &RunOptions,
        metadata: &mut RunMetadata,
    ) -> Result<()> {
        let mut control = RunControl {
            timeout: options.timeout_in_ms.map(Duration::from_millis),
            record: self.options().record_steps,
            trace: options.trace.then_some(metadata),
        };
        let session = self.options();
        match &self.0.pool {
            Some(pool) => pool.install(|| running.run(plan, feeds, outputs, session, &mut control)),
            None => running.run(plan, feeds, outputs, session, &mut control),
        }
    }
}

impl Running {
    fn drop_plans(&mut self) {
        self.plans.clear();
        self.by_request.clear();
        self.generation += 1;
    }

    fn structural_plan(&mut self, session: &Session, request: &Request) -> Result<usize> {
        if let Some(&plan) = self.by_request.get(request) {
            return Ok(plan);
        }
        let structure = Structure::new(session.graph(), request, session.options(), &self.devices)?;
        self.plans.push(StructuralPlan {
            structure,
            shaped: Vec::new(),
        });
        self.by_request.insert(request.clone(), self.plans.len() - 1);
        Ok(self.plans.len() - 1)
    }

    fn run(
        &mut self,
        plan: usize,
        feeds: &[Value],
        outputs: &mut Vec<Value>,
        options: &SessionOptions,
        control: &mut RunControl<'_>,
    ) -> Result<()> {
        let Self {
            plans, state, devices, ..
        } = self;
        let StructuralPlan { structure, shaped } = &mut plans[plan];
        let known = shaped
            .iter()
            .position(|plan| plan.feeds.iter().eq(feeds.iter().map(Value::shape)));
        match known {
            Some(index) if index + 1 < shaped.len() => shaped[index..].rotate_left(1),
            Some(_) => {}
            None => {
                let shapes: Vec<Shape> = feeds.iter().map(|feed| feed.shape().clone()).collect();
                let plan = ShapedPlan::new(structure, shapes, options, state, devices)?;
                if let Some(trace) = &mut control.trace {
                    trace.planned = true;
                }
                if shaped.len() == SHAPED_PLANS {
                    shaped.remove(0);
                }
                shaped.push(plan);
            }
        }
        let shaped = shaped
            .last_mut()
            .ok_or_else(|| Error::internal("a plan was just made"))?;
        let program = &shaped.structure.as_ref().unwrap_or(structure).program;
        let plan = &mut shaped.plan;
        if plan.parallel && rayon::current_thread_index().is_none() {
            // The global pool is entered once, and not by each kernel.
            return rayon::scope(|_| plan.run(program, state, feeds, outputs, control));
        }
        plan.run(program, state, feeds, outputs, control)
    }
}

/// A run that is prepared: a function of the values of its feeds. See [`Session::make_callable`].
pub struct Callable {
    session: Session,
    request: Request,
    feeds: Vec<Tensor>,
    /// The generation of plans and the position of this one among them.
    plan: Mutex<(u64, usize)>,
}

impl Callable {
    /// Runs with these values for the feeds, in their order; the values of the fetched tensors, in theirs.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn call(&self, feeds: &[Value]) -> Result<Vec<Value>> {
        let mut outputs = Vec::new();
        self.call_into(feeds, &mut outputs)?;
        Ok(outputs)
    }

    /// [`Callable::call`] that makes the fetched values the elements of `outputs`. Values that are there, of an earlier call,
    /// give their memory to those that have the same dtype and shape, unless something else still holds it. From the second
    /// call on, a plan of static shapes then allocates nothing of its own.
    ///
    /// # Errors
    /// Those of [`Session::run`]. What `outputs` held before may be lost then.
    pub fn call_into(&self, feeds: &[Value], outputs: &mut Vec<Value>) -> Result<()> {
        if feeds.len() != self.feeds.len() {
            return Err(Error::invalid_argument("wrong number of feeds")
                .expected(self.feeds.len())
                .got(feeds.len()));
        }
        for (tensor, value) in self.feeds.iter().zip(feeds) {
            feed::check_feed(tensor, value)?;
        }
        let mut running = self.session.lock()?;
        let mut plan = self.plan.lock().unwrap_or_else(|poison| poison.into_inner());
        if plan.0 != running.generation {
            *plan = (
                running.generation,
                running.structural_plan(&self.session, &self.request)?,
            );
        }
        let (_, position) = *plan;
        drop(plan);
        let result = self.session.run_plan(
            &mut running,
            position,
            feeds,
            outputs,
            &RunOptions::default(),
            &mut RunMetadata::default(),
        );
        self.session.observed(&self.request, feeds, outputs, result)
    }
}

thread_local! {
    static DEFAULT_SESSIONS: RefCell<Vec<Session>> = const { RefCell::new(Vec::new()) };
}

/// Keeps a session the default one of its thread; see [`Session::as_default`].
#[must_use = "the session is the default one only while the guard lives; bind it to a name such as `_session`"]
pub struct DefaultSessionGuard {
    session: Session,
    not_send: PhantomData<*const ()>,
}

impl Drop for DefaultSessionGuard {
    fn drop(&mut self) {
        let _ = DEFAULT_SESSIONS.try_with(|sessions| {
            let mut sessions = sessions.borrow_mut();
            if let Some(index) = sessions
                .iter()
                .rposition(|session| Arc::ptr_eq(&session.0, &self.session.0))
            {
                sessions.remove(index);
            }
        });
    }
}

impl Tensor {
    /// The tensor's value in the default session.
    ///
    /// # Errors
    /// `FailedPrecondition` without a default session, and those of [`Session::run`].
    pub fn eval<T: FromValue>(&self, feeds: impl Into<Feeds>) -> Result<T> {
        Session::current()?.run(self, feeds)
    }
}

impl Variable {
    /// The variable's value in the default session.
    ///
    /// # Errors
    /// `FailedPrecondition` without a default session, and those of [`Session::run`].
    pub fn eval<T: FromValue>(&self) -> Result<T> {
        Session::current()?.run(self, ())
    }
}

impl Operation {
    /// Runs the operation in the default session.
    ///
    /// # Errors
    /// `FailedPrecondition` without a default session, and those of [`Session::run`].
    pub fn run(&self, feeds: impl Into<Feeds>) -> Result<()> {
        Session::current()?.run(self, feeds)
    }
}
