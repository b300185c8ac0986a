//! The tf-lenet tutorial in Rust: a LeNet that learns to read handwritten digits, written against TensorFlow 1's
//! interface.
//!
//! The modules are the tutorial's: [`dataset`] feeds images, [`layers`] and [`network`] build the graph, [`trainer`] runs it,
//! [`support`] and [`third_party`] draw pictures, [`global_definitions`] holds the network's constants. Beside them stand
//! what the program needs around the tutorial: its command line ([`cli`]), what it saves to go on later ([`checkpoints`]),
//! what it shows while it trains ([`progress`]) and its errors ([`error`]).

pub mod checkpoints;
pub mod cli;
pub mod dataset;
pub mod error;
pub mod global_definitions;
pub mod layers;
pub mod network;
pub mod progress;
pub mod support;
pub mod third_party;
pub mod trainer;

pub use error::{Error, Result};
