//! SavedModels: folders that hold a graph, its variables and its signatures, for other programs to serve.
//!
//! ```text
//! saved_model.pb                     MetaGraphs, each with its tags and signatures (or saved_model.pbtxt)
//! variables/variables.{index,data-*} the checkpoint of the variables, if there are any
//! assets/                            files that the graph reads by name
//! ```
//!
//! [`Builder`] writes one, [`load`] brings one into a session; [`simple_save`] is the whole way out for a graph with one
//! signature. The form is that of TensorFlow 1, which TensorFlow 2 reads too.

mod builder;
mod loader;
mod signature;
#[cfg(test)]
mod tests;

pub use builder::{Builder, simple_save};
pub use loader::{load, maybe_saved_model_directory, read};
pub use signature::{build_signature_def, build_tensor_info, predict_signature_def};

/// The names that TensorFlow gives to tags: what a MetaGraph is for.
pub mod tags {
    /// For serving.
    pub const SERVING: &str = "serve";
    /// For training.
    pub const TRAINING: &str = "train";
    /// For evaluation.
    pub const EVAL: &str = "eval";
}

/// The names that TensorFlow gives to signatures and their methods.
pub mod signature_constants {
    /// The signature that is served unless another is asked for.
    pub const DEFAULT_SERVING_SIGNATURE_DEF_KEY: &str = "serving_default";
    /// The method of any inputs to any outputs.
    pub const PREDICT_METHOD_NAME: &str = "tensorflow/serving/predict";
    /// The method of examples to classes and scores.
    pub const CLASSIFY_METHOD_NAME: &str = "tensorflow/serving/classify";
    /// The method of examples to values.
    pub const REGRESS_METHOD_NAME: &str = "tensorflow/serving/regress";
    /// The signature whose one output is the operation to run after loading.
    pub const INIT_OP_SIGNATURE_KEY: &str = "__saved_model_init_op";
}

const FILE: &str = "saved_model.pb";
const TEXT_FILE: &str = "saved_model.pbtxt";
const SCHEMA_VERSION: i64 = 1;
const VARIABLES: &str = "variables";
const ASSETS: &str = "assets";
/// The collection of tensors that hold names of files.
const ASSET_FILEPATHS: &str = "asset_filepaths";
/// The collection of the one operation to run after loading.
const MAIN_OP: &str = "saved_model_main_op";
/// The same, as it was called before.
const LEGACY_INIT_OP: &str = "legacy_init_op";
