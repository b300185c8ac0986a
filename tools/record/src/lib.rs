//! Sessions recorded to folders, and replayed from them: for bug reports, and for comparing engines.
//!
//! A [`Recorder`] keeps every run of a session; [`replay`] does the runs again and tells the first difference. The folder
//! holds nothing but files that other programs read too: the graph, NumPy's arrays, and a [`Trace`] in JSON. TensorFlow
//! sessions recorded in the same form replay here.
//!
//! ```
//! use graph_core::{Graph, Session, SessionOptions};
//! use graph_record::{Outcome, Recorder, ReplayOptions};
//! # graph_ops::install();
//! # let scratch = tempfile::tempdir()?;
//! # let folder = scratch.path().join("recorded");
//! let graph = Graph::new();
//! let _default = graph.as_default();
//! let sum = graph_ops::math::add([1.0f32, 2.0], 3.0f32).name("sum").build()?;
//!
//! let session = Session::with_options(&graph, SessionOptions::new().observer(Recorder::create(&folder)?))?;
//! let _: Vec<f32> = session.run(&sum, ())?;
//!
//! assert_eq!(graph_record::replay(&folder, &ReplayOptions::default()), Outcome::Ok);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod compare;
pub mod npy;
pub mod npz;
mod recorder;
mod replay;
mod support;
mod trace;

pub use compare::{Mismatch, Tolerance, compare};
pub use recorder::Recorder;
pub use replay::{Difference, Outcome, ReplayOptions, find_folders, replay, replay_all};
pub use trace::{RecordedRun, Trace, class_name};
