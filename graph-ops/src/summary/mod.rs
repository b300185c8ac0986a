//! Summaries: tensors as messages for TensorBoard, and the writer of the files that it reads.
//!
//! A summary op gives a scalar string, a serialized `Summary`. [`merge_all`] joins those of a graph into one; a
//! [`FileWriter`] puts what a run of it gives into an event file.
//!
//! ```no_run
//! use graph_core::graph::Graph;
//! use graph_ops::summary::{self, FileWriter};
//! let loss = graph_ops::array::constant(0.5f32).build()?;
//! summary::scalar("loss", &loss).build()?;
//! let all = summary::merge_all()?.expect("a summary was made");
//! # let session = |_: &graph_core::graph::Tensor| graph_core::Value::string("");
//! let mut writer = FileWriter::new("tensorboard")?;
//! writer.add_summary(&session(&all), 1)?;
//! writer.close()?;
//! # Ok::<(), graph_core::Error>(())
//! ```

mod file_writer;
mod histogram;
mod image;
mod merge;
mod scalar;
mod scope;

pub use file_writer::FileWriter;
pub use histogram::{HistogramSummary, histogram};
pub use image::{ImageSummary, image};
pub use merge::{MergeSummary, merge, merge_all, merge_all_of};
pub use scalar::{ScalarSummary, scalar};

use graph_core::op::OpDefinition;

#[cfg(test)]
use crate::testing::{Case, GradientCase};

/// The family's op definitions.
pub(crate) const OPS: &[fn() -> OpDefinition] = &[
    scalar::definition,
    histogram::definition,
    image::definition,
    merge::definition,
];

/// The family's numeric test cases.
#[cfg(test)]
pub(crate) const CASES: &[fn() -> Vec<Case>] = &[scalar::cases, histogram::cases, image::cases, merge::cases];

/// The family's gradient test cases: summaries have no gradients.
#[cfg(test)]
pub(crate) const GRADIENT_CASES: &[fn() -> Vec<GradientCase>] = &[];
