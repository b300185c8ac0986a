//! The protobuf messages, generated from the `.proto` files in the repository's `proto/` folder by `tests/generated.rs`.
//!
//! Messages and fields have TensorFlow's names and numbers. Maps are `BTreeMap`s, so that a message always encodes to
//! the same bytes.

#![allow(clippy::all, rustdoc::all)]

include!("proto/tensorflow.rs");

/// The serialized `FileDescriptorSet` of all messages here, imports included.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!("proto/descriptors.bin");
