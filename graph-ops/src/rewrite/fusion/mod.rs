//! Fusions: several operations become one of the engine's own, whose kernel keeps in the cache what they would pass on
//! through memory.
//!
//! A [`Fusion`] finds what belongs together and makes the new operations; what is the same for all is done here. The ops that
//! fusions make are not registered, cannot be built, and never leave a session.

pub(super) mod casts;
pub(super) mod convolution;
pub(crate) mod elementwise;
pub(super) mod finite;
mod groups;
pub(super) mod mask;
pub(super) mod matmul;
pub(super) mod outer;
mod parts;
pub(crate) mod sum;
pub(super) mod update;
pub(super) mod update_group;
mod uses;

use graph_core::Result;
use graph_core::graph::{Node, NodeId, TensorId};
use graph_core::rewrite::{Program, Rewrite, topological_order};
use rustc_hash::FxHashMap;

use groups::groups;
use uses::Uses;

/// A fused operation.
struct Fused {
    node: Node,
    /// The operation under whose place in the user's graph it runs.
    first: NodeId,
    /// Other operations that it stands for. Control edges onto these, and onto the first, lead to the new one.
    others: Vec<NodeId>,
    /// The tensors that become its outputs.
    outputs: Vec<TensorId>,
}

/// In which sessions a fusion runs.
enum Serves {
    All,
    /// Those without accelerators: what it makes has kernels on the host alone.
    Host,
    /// Those with one: what it saves is the time between two kernels.
    Accelerators,
}

/// A rewrite that replaces operations by fused ones.
pub(crate) struct Fusion {
    name: &'static str,
    serves: Serves,
    /// The fused operations of a program. They have no operation in common, and none depends on another but through its
    /// outputs.
    find: fn(&Program, &Uses) -> Vec<Fused>,
}

impl Rewrite for Fusion {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs_shapes(&self) -> bool {
        true
    }

    fn suits(&self, accelerators: bool) -> bool {
        match self.serves {
            Serves::All => true,
            Serves::Host => !accelerators,
            Serves::Accelerators => accelerators,
        }
    }

    fn apply(&self, program: &Program) -> Result<Option<Program>> {
        let Some(order) = topological_order(program) else {
            return Ok(None);
        };
        let found = (self.find)(program, &Uses::new(program, order));
        if found.is_empty() {
            return Ok(None);
        }
        let mut result = program.clone();
        let (mut tensors, mut nodes) = (FxHashMap::default(), FxHashMap::default());
        for fused in found {
            let new = result.push(fused.node, program.origins[fused.first.index()]);
            nodes.extend([fused.first].into_iter().chain(fused.others).map(|old| (old, new)));
            let outputs = fused.outputs.into_iter().enumerate();
            tensors.extend(outputs.map(|(slot, tensor)| (tensor, TensorId::new(new, slot))));
        }
        result.substitute(&tensors, &nodes);
        Ok(Some(result))
    }
}
