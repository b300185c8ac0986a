//! What an op is: its definition, its attributes, its shape function, its kernels, and the registry of all of them.
//!
//! What any op computes is said in `graph-ops`; this module only gives it the words.

pub mod attr;
pub mod context;
pub mod definition;
pub mod kernel;
pub mod registry;
pub mod shape_inference;
pub mod vocabulary;

pub use attr::{AttrValue, Attributes, FromAttr, NameAttrList};
pub use context::KernelContext;
pub use definition::{ArgDef, ArgType, AttrDef, AttrType, ControlFlow, GradientRule, OpDefinition};
pub use kernel::{Kernel, KernelDefinition, KernelRequest, KernelState, Planned};
pub use registry::{DefaultRegistry, Registry, install, registry};
pub use shape_inference::InferenceContext;
