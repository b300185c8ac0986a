//! The graph as data, and the machine that runs it.
//!
//! The intermediate representation is TensorFlow's GraphDef, op for op. This crate holds dtypes, shapes, values, the graph
//! and its scopes, the words that ops are defined in, symbolic gradients, rewrites, plans and the session, and the file
//! formats; what any op computes is said in `graph-ops`.

pub mod accelerator;
pub mod buffer;
pub mod device;
pub mod dtype;
pub mod error;
pub mod format;
pub mod gradients;
pub mod graph;
pub mod op;
pub mod rewrite;
pub mod session;
pub mod shape;
pub mod value;
pub mod variable;

pub use dtype::{Complex, DType, Element};
pub use error::{Error, Report, Result};
pub use gradients::gradients;
pub use graph::{Graph, IntoOperand, Operand, Operation, Tensor};
pub use session::{Session, SessionOptions};
pub use shape::{Dim, PartialShape, Shape};
pub use value::{FromValue, Value};
pub use variable::Variable;
