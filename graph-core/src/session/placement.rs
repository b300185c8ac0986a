//! The devices of a session, and which of them an operation asks for.

use std::sync::Arc;

use crate::accelerator::Accelerator;
use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::graph::Node;
use crate::op::registry;
use crate::rewrite::Program;
use crate::session::options::{Accelerators, SessionOptions};

/// What device names of this process begin with.
const HERE: &str = "/job:localhost/replica:0/task:0";

/// Where a tensor lies: beside the device that works on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Memory {
    /// The host's.
    Host,
    /// That of the session's accelerator at this position.
    Device(usize),
}

/// The accelerators of a session; the first is used by what does not ask for one.
#[derive(Default)]
pub(crate) struct Devices(Vec<Arc<dyn Accelerator>>);

/// What an operation gets of what it asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    pub(crate) memory: Memory,
    /// Whether the device that it asks for is there.
    pub(crate) is_there: bool,
}

impl Devices {
    /// The devices that the options say, or else all that there are.
    ///
    /// # Errors
    /// Those of [`Registry::accelerators`](crate::op::Registry::accelerators).
    pub(crate) fn of(options: &SessionOptions) -> Result<Self> {
        Ok(Self(match &options.accelerators {
            Accelerators::All => match registry() {
                Ok(registry) => registry.accelerators()?.to_vec(),
                // Without ops there are no kernels either.
                Err(_) => Vec::new(),
            },
            Accelerators::Only(accelerators) => accelerators.clone(),
        }))
    }

    /// Whether there is the host alone.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The accelerators.
    pub(crate) fn accelerators(&self) -> &[Arc<dyn Accelerator>] {
        &self.0
    }

    /// The accelerator of this memory; none for the host's.
    pub(crate) fn get(&self, memory: Memory) -> Option<&Arc<dyn Accelerator>> {
        match memory {
            Memory::Host => None,
            Memory::Device(position) => self.0.get(position),
        }
    }

    /// What an operation gets of what it asks for: the first device, accelerators before the host, that its words fit.
    pub(crate) fn wanted(&self, node: &Node) -> Wanted {
        let memories = || (0..self.0.len()).map(Memory::Device).chain([Memory::Host]);
        let first = memories().next().unwrap_or(Memory::Host);
        if node.device.is_empty() {
            return Wanted {
                memory: first,
                is_there: true,
            };
        }
        let fits = |memory: &Memory| {
            let name = DeviceSpec::parse(&self.name(*memory));
            name.is_ok_and(|name| DeviceSpec::parse(&node.device).is_ok_and(|asked| asked.fits(&name)))
        };
        let found = memories().find(fits);
        Wanted {
            memory: found.unwrap_or(first),
            is_there: found.is_some(),
        }
    }

    /// The full name of the device whose memory this is.
    pub(crate) fn name(&self, memory: Memory) -> String {
        match self.get(memory) {
            Some(accelerator) => format!("{HERE}/device:GPU:{}", accelerator.index()),
            None => format!("{HERE}/device:CPU:0"),
        }
    }

    /// Checks that every operation of the program finds the device that it asks for, if it must.
    ///
    /// # Errors
    /// `InvalidArgument` for an operation that asks for a device that is not there, unless it may fall back.
    pub(crate) fn check(&self, program: &Program, options: &SessionOptions) -> Result<()> {
        if options.allow_soft_placement {
            return Ok(());
        }
        let Some(node) = program.nodes.iter().find(|node| !self.wanted(node).is_there) else {
            return Ok(());
        };
        let memories = (0..self.0.len()).map(Memory::Device).chain([Memory::Host]);
        let names: Vec<String> = memories.map(|memory| self.name(memory)).collect();
        Err(Error::invalid_argument(format!(
            "cannot assign a device to operation '{}': the one that it asks for is not there",
            node.name
        ))
        .expected(names.join(" or "))
        .got(&node.device)
        .at(node.site())
        .hint("let operations fall back with SessionOptions::allow_soft_placement"))
    }

    /// A line in TensorFlow's form: name, op, device; and what it fell back from, and why.
    pub(crate) fn report(&self, node: &Node, memory: Memory, why: Option<&str>) -> String {
        let mut line = format!("{}: ({}): {}", node.name, node.op(), self.name(memory));
        let wanted = self.wanted(node);
        if !wanted.is_there {
            line.push_str(&format!(", since there is no {}", node.device));
        }
        if let Some(why) = why.filter(|_| wanted.memory != memory) {
            line.push_str(&format!(", not on {}: {why}", self.name(wanted.memory)));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Attributes, OpDefinition};

    fn node_on(device: &str) -> Node {
        Node {
            name: "n".into(),
            definition: Box::leak(Box::new(OpDefinition::new("NoOp", "Does nothing."))),
            attrs: Attributes::new(),
            inputs: Default::default(),
            control_inputs: Default::default(),
            outputs: Default::default(),
            device: device.into(),
            location: std::panic::Location::caller(),
        }
    }

    #[test]
    fn what_asks_for_less_than_the_cpu_is_on_it() {
        let devices = Devices::default();
        for device in ["", "/cpu:0", "/device:CPU:*", "/job:localhost", "/task:0/cpu:0"] {
            let node = node_on(device);
            assert!(devices.wanted(&node).is_there, "{device}");
            assert_eq!(
                devices.report(&node, Memory::Host, None),
                format!("n: (NoOp): {HERE}/device:CPU:0")
            );
        }
        for device in ["/gpu:0", "/cpu:1", "/job:ps", "/task:3/cpu:0"] {
            assert!(!devices.wanted(&node_on(device)).is_there, "{device}");
        }
        let line = devices.report(&node_on("/device:GPU:0"), Memory::Host, None);
        assert_eq!(
            line,
            format!("n: (NoOp): {HERE}/device:CPU:0, since there is no /device:GPU:0")
        );
    }
}
