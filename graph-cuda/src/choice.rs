//! The choice between the engine's own convolutions and the library's, by measurement.
//!
//! The first plan that has a convolution times all ways to do it, with the device for itself, and keeps the fastest: in memory,
//! and on disk beside the compiled kernels, under all that decides of it. From then on nothing is measured, and runs repeat bit
//! for bit. Of two processes that measure at the same time, the one that keeps its choice first decides for both.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use graph_core::{Error, Result};
use rustc_hash::FxHashMap;

use crate::cache::Cache;
use crate::convolution::{Algorithm, Convolution};
use crate::driver::Driver;
use crate::gate::Gate;
use crate::options::DeviceOptions;

/// Runs of each way before it is timed, runs that are recorded together, and launches of those, of which the shortest counts.
const WARM_UP: usize = 2;
const RECORDED: usize = 4;
const TIMED: usize = 5;

/// What a library may work in, in bytes, unless the options say otherwise.
const WORKSPACE: usize = 256 << 20;

/// Whose convolutions a device runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ConvolutionKernels {
    /// The engine's own or cuDNN's, whichever is faster; its own where there is no cuDNN.
    #[default]
    Faster,
    /// The engine's own.
    Own,
    /// cuDNN's; a convolution that it cannot do is an error.
    Cudnn,
}

impl FromStr for ConvolutionKernels {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "faster" => Ok(Self::Faster),
            "own" => Ok(Self::Own),
            "cudnn" => Ok(Self::Cudnn),
            _ => Err(Error::invalid_argument("no such choice of convolutions")
                .expected("faster, own or cudnn")
                .got(text)),
        }
    }
}

impl ConvolutionKernels {
    /// What `GRAPH_CONVOLUTIONS` says: `faster`, `own` or `cudnn`.
    ///
    /// # Errors
    /// `InvalidArgument` for another word.
    pub(crate) fn of_environment() -> Result<Self> {
        match std::env::var("GRAPH_CONVOLUTIONS") {
            Ok(text) if !text.is_empty() => text
                .parse()
                .map_err(|error: Error| error.context("reading GRAPH_CONVOLUTIONS")),
            _ => Ok(Self::Faster),
        }
    }
}

/// A way to do a convolution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// The engine's own kernels.
    Own,
    /// This algorithm of the library.
    Library(Algorithm),
}

impl Method {
    fn text(self) -> String {
        match self {
            Self::Own => "own".to_owned(),
            Self::Library(Algorithm {
                number,
                math,
                workspace,
            }) => format!("library {number} {math} {workspace}"),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.split(' ');
        let method = match words.next()? {
            "own" => Self::Own,
            "library" => Self::Library(Algorithm {
                number: words.next()?.parse().ok()?,
                math: words.next()?.parse().ok()?,
                workspace: words.next()?.parse().ok()?,
            }),
            _ => return None,
        };
        words.next().is_none().then_some(method)
    }
}

/// Gives a convolution to the device once, by this method, on memory of its own; what it gives may be recorded.
pub type Trial<'a> = Box<dyn FnMut(Method) -> Result<()> + 'a>;

/// What was chosen so far for a device.
pub(crate) struct Choices {
    kernels: ConvolutionKernels,
    workspace: usize,
    tf32: bool,
    chosen: Mutex<FxHashMap<Convolution, Method>>,
    /// Whether people were told that there is no library.
    told: AtomicBool,
}

impl Choices {
    /// Whether `float` may be rounded to TensorFloat-32.
    pub(crate) fn tf32(&self) -> bool {
        self.tf32
    }

    pub(crate) fn new(options: &DeviceOptions) -> Self {
        Self {
            kernels: options.convolutions.unwrap_or_default(),
            workspace: options.convolution_workspace.unwrap_or(WORKSPACE),
            tf32: options.tf32,
            chosen: Mutex::default(),
            told: AtomicBool::new(false),
        }
    }

    fn known(&self, convolution: &Convolution) -> Option<Method> {
        let chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.get(convolution).copied()
    }

    /// The method for this convolution, `None` if the library cannot say what it is; `prepare` makes ready for trials with as many bytes to work in.
    pub(crate) fn choose<'a>(
        &self,
        driver: &dyn Driver,
        gate: &Gate,
        cache: &Cache,
        convolution: Option<&Convolution>,
        prepare: impl FnOnce(usize) -> Result<Trial<'a>>,
    ) -> Result<Method> {
        if self.kernels == ConvolutionKernels::Own {
            return Ok(Method::Own);
        }
        let Some(convolution) = convolution else {
            if self.kernels == ConvolutionKernels::Cudnn {
                return Err(Error::unimplemented("cuDNN has no such convolution")
                    .expected("as much padding behind rows and columns as before them, and fewer than 2^31 elements")
                    .hint("GRAPH_CONVOLUTIONS=faster takes the engine's own kernels there"));
            }
            return Ok(Method::Own);
        };
        if let Some(method) = self.known(convolution) {
            return Ok(method);
        }
        let only_library = self.kernels == ConvolutionKernels::Cudnn;
        // Nothing else shall run while times are taken.
        let _alone = gate.alone()?;
        if let Some(method) = self.known(convolution) {
            return Ok(method);
        }
        let asked = driver
            .convolutions()
            .and_then(|library| Ok((library.identity()?, library.algorithms(convolution, self.workspace)?)));
        let (library, algorithms) = match asked {
            Ok(asked) => asked,
            Err(error) if only_library => return Err(error),
            Err(error) => {
                self.tell(&error);
                return Ok(Method::Own);
            }
        };
        let algorithms = algorithms.into_iter().filter(|one| one.workspace <= self.workspace);
        let mut methods: Vec<Method> = algorithms.map(Method::Library).collect();
        if only_library && methods.is_empty() {
            return Err(
                Error::unimplemented(format!("{library} has no algorithm for a convolution"))
                    .expected("one that gives the same bits each time, in the memory that it may work in")
                    .got(convolution)
                    .hint("GRAPH_CONVOLUTIONS=faster takes the engine's own kernels there"),
            );
        }
        if !only_library {
            methods.insert(0, Method::Own);
        }
        let method = match methods[..] {
            [only] => only,
            _ => {
                let (identity, text) = (self.identity(driver, &library), convolution.to_string());
                let valid = |bytes: &[u8]| Method::parse(bytes).filter(|method| methods.contains(method));
                match cache.get(&identity, &text).and_then(|kept| valid(&kept)) {
                    Some(kept) => kept,
                    None => {
                        let Some(measured) = self.measure(driver, &methods, prepare)? else {
                            return Ok(Method::Own);
                        };
                        let kept = cache.put_first(&identity, &text, measured.text().as_bytes(), |kept| {
                            valid(kept).is_some()
                        });
                        valid(&kept).unwrap_or(measured)
                    }
                }
            }
        };
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.insert(*convolution, method);
        Ok(method)
    }

    /// All that decides of a choice beside the convolution.
    fn identity(&self, driver: &dyn Driver, library: &str) -> String {
        let info = driver.info();
        format!(
            "convolutions 2; {}; {}; driver {}; {library}; {:?}; tf32 {}; {} bytes to work in",
            info.name,
            info.capability.architecture(),
            driver.version(),
            self.kernels,
            self.tf32,
            self.workspace
        )
    }

    /// The fastest; `None` if there is no memory to find out.
    fn measure<'a>(
        &self,
        driver: &dyn Driver,
        methods: &[Method],
        prepare: impl FnOnce(usize) -> Result<Trial<'a>>,
    ) -> Result<Option<Method>> {
        let workspaces = methods.iter().map(|method| match method {
            Method::Own => 0,
            Method::Library(algorithm) => algorithm.workspace,
        });
        let own = methods.contains(&Method::Own);
        let mut trial = match prepare(workspaces.max().unwrap_or(0)) {
            Ok(trial) => trial,
            Err(error) if own && error.class() == "ResourceExhausted" => {
                self.tell(&error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut best: Option<(Duration, Method)> = None;
        let mut failed = None;
        for &method in methods {
            match time(driver, &mut trial, method) {
                Ok(time) if best.is_none_or(|(least, _)| time < least) => best = Some((time, method)),
                Ok(_) => {}
                // There is no other way then.
                Err(error) if method == Method::Own => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        match (best, failed) {
            (Some((_, method)), _) => Ok(Some(method)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// Says once why convolutions are the engine's own.
    fn tell(&self, why: &Error) {
        if !self.told.swap(true, Ordering::Relaxed) {
            eprintln!("convolutions run the engine's own kernels: {why}");
        }
    }
}

/// The shortest time of a few launches of recorded runs: sessions run them recorded too, so that what the host takes to give
/// them counts for nothing, and what cannot be recorded is no choice.
fn time(driver: &dyn Driver, trial: &mut Trial<'_>, method: Method) -> Result<Duration> {
    // What is loaded or compiled at the first run is so before anything is recorded.
    for _ in 0..WARM_UP {
        trial(method)?;
    }
    driver.begin_capture()?;
    let given = (0..RECORDED).try_for_each(|_| trial(method));
    // Recording ends whatever happened.
    let graph = driver.end_capture();
    let graph = match given {
        Ok(()) => graph?,
        Err(error) => {
            if let Ok(graph) = graph {
                driver.drop_graph(graph);
            }
            return Err(error);
        }
    };
    let least = driver.launch_graph(graph).and_then(|()| {
        (0..TIMED).try_fold(Duration::MAX, |least, _| {
            let from = driver.record_time()?;
            let given = driver.launch_graph(graph);
            let to = driver.record_time()?;
            let elapsed = driver.elapsed(from, to);
            given.and(elapsed).map(|elapsed| least.min(elapsed))
        })
    });
    driver.drop_graph(graph);
    least
}
