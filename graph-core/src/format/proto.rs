//! The protobuf messages, generated from the `.proto` files in the repository's `proto/` folder.
//!
//! Messages and fields have TensorFlow's names and numbers. Maps are `BTreeMap`s, so that a message always encodes to
//! the same bytes.

#![allow(clippy::all, rustdoc::all)]

include!(concat!(env!("OUT_DIR"), "/tensorflow.rs"));

/// The serialized `FileDescriptorSet` of all messages here, imports included.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
