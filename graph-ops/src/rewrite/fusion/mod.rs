//! Fusions: several operations become one of the engine's own, whose kernel keeps in the cache what they would pass on
//! through memory.
//!
//! The ops that fusions make are not registered, cannot be built, and never leave a session.

pub(super) mod convolution;
pub(crate) mod elementwise;
pub(super) mod sum;
pub(super) mod update;
mod uses;

use uses::Uses;
