//! What a session keeps between runs: variables, the state of kernels, and the arena.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::accelerator::{Accelerator, DeviceAddress, DeviceMemory};
use crate::buffer::Buffer;
use crate::error::Result;
use crate::graph::{Node, NodeId};
use crate::op::context::VariableCell;
use crate::op::kernel::KernelState;
use crate::op::vocabulary;
use crate::value::Value;

/// What makes nodes the same variable of a session: whether they are handles, their container and their shared name.
type VariableKey = (bool, String, String);

/// What a session keeps between runs.
pub(crate) struct SessionState {
    variables: FxHashMap<VariableKey, usize>,
    pub(crate) cells: Vec<VariableCell>,
    pub(crate) variable_names: Vec<Arc<str>>,
    states: FxHashMap<NodeId, usize>,
    pub(crate) kernel_states: Vec<Box<dyn KernelState>>,
    arena: Buffer,
    /// An arena on each accelerator.
    device_arenas: Vec<Option<DeviceMemory>>,
}

impl SessionState {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            variables: FxHashMap::default(),
            cells: Vec::new(),
            variable_names: Vec::new(),
            states: FxHashMap::default(),
            kernel_states: Vec::new(),
            arena: Buffer::zeroed(0)?,
            device_arenas: Vec::new(),
        })
    }

    /// The index of the variable that this node holds or names. Nodes with the same container and shared name are the same
    /// variable; a reference without a shared name has its node's, but a handle's is then the empty name.
    pub(crate) fn variable(&mut self, node: &Node) -> Result<usize> {
        let is_handle = node.op() == vocabulary::VAR_HANDLE;
        let (container, mut name): (String, String) = (node.attrs.read("container")?, node.attrs.read("shared_name")?);
        if name.is_empty() && !is_handle {
            name = node.name.to_string();
        }
        let output = &node.outputs[0];
        let declared = output
            .handle
            .as_ref()
            .map_or(&output.shape, |handle| &handle.shape)
            .clone();
        let told: Arc<str> = if name.is_empty() {
            node.name.clone()
        } else {
            name.as_str().into()
        };
        Ok(*self.variables.entry((is_handle, container, name)).or_insert_with(|| {
            self.cells.push(VariableCell {
                declared,
                ..VariableCell::default()
            });
            self.variable_names.push(told);
            self.cells.len() - 1
        }))
    }

    /// The index of the state that the kernel of this node keeps.
    pub(crate) fn kernel_state(
        &mut self,
        node: NodeId,
        make: impl FnOnce() -> Result<Box<dyn KernelState>>,
    ) -> Result<usize> {
        if let Some(&index) = self.states.get(&node) {
            return Ok(index);
        }
        self.kernel_states.push(make()?);
        self.states.insert(node, self.kernel_states.len() - 1);
        Ok(self.kernel_states.len() - 1)
    }

    /// The states of kernels, saved, each with its node.
    pub(crate) fn saved_kernel_states(&self) -> Vec<(NodeId, Value)> {
        let saved = |(&node, &index): (&NodeId, &usize)| (node, self.kernel_states[index].save());
        self.states.iter().map(saved).collect()
    }

    /// Puts a state in the place of the one that the kernel of this node keeps.
    pub(crate) fn replace_kernel_state(&mut self, node: NodeId, state: Box<dyn KernelState>) {
        match self.states.get(&node) {
            Some(&index) => self.kernel_states[index] = state,
            None => {
                self.kernel_states.push(state);
                self.states.insert(node, self.kernel_states.len() - 1);
            }
        }
    }

    /// The base address of an arena of at least `size` bytes.
    pub(crate) fn arena(&mut self, size: usize) -> Result<*mut u8> {
        if self.arena.len() < size {
            // The old one goes first: the two need not fit side by side.
            self.arena = Buffer::zeroed(0)?;
            self.arena = Buffer::zeroed(size)?;
        }
        Ok(self.arena.as_mut_ptr())
    }

    /// The base address of an arena of at least `size` bytes on the accelerator at this position; 0 for none.
    pub(crate) fn device_arena(
        &mut self,
        position: usize,
        accelerator: &Arc<dyn Accelerator>,
        size: usize,
    ) -> Result<DeviceAddress> {
        if size == 0 {
            return Ok(DeviceAddress::default());
        }
        if self.device_arenas.len() <= position {
            self.device_arenas.resize_with(position + 1, || None);
        }
        let arena = &mut self.device_arenas[position];
        if arena.as_ref().is_none_or(|arena| arena.len() < size) {
            // The old one goes first: the two need not fit side by side.
            *arena = None;
            *arena = Some(DeviceMemory::new(accelerator, size)?);
        }
        Ok(arena.as_ref().map_or(DeviceAddress::default(), DeviceMemory::address))
    }
}
