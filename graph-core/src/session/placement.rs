//! On which device each operation of a program runs. So far there is one: the CPU.

use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::graph::Node;
use crate::rewrite::Program;
use crate::session::options::SessionOptions;

/// The full name of the only device.
const CPU: &str = "/job:localhost/replica:0/task:0/device:CPU:0";

/// Places every operation; logs it where the options say so.
///
/// # Errors
/// `InvalidArgument` for an operation that asks for a device that is not there, unless it may fall back.
pub(crate) fn place(program: &Program, options: &SessionOptions) -> Result<()> {
    if options.allow_soft_placement && !options.log_device_placement {
        return Ok(());
    }
    for node in &program.nodes {
        let is_there = is_there(node)?;
        if !is_there && !options.allow_soft_placement {
            return Err(Error::invalid_argument(format!(
                "cannot assign a device to operation '{}': the one that it asks for is not there",
                node.name
            ))
            .expected(CPU)
            .got(&node.device)
            .at(node.site())
            .hint("let operations fall back with SessionOptions::allow_soft_placement"));
        }
        if options.log_device_placement {
            eprintln!("{}", report(node, is_there));
        }
    }
    Ok(())
}

fn is_there(node: &Node) -> Result<bool> {
    let there = DeviceSpec::parse(CPU)?;
    let mut asked = there.clone();
    asked.merge(&DeviceSpec::parse(&node.device)?);
    Ok(asked == there)
}

/// A line in TensorFlow's form: name, op, device; and what it fell back from.
fn report(node: &Node, is_there: bool) -> String {
    let mut line = format!("{}: ({}): {CPU}", node.name, node.op());
    if !is_there {
        line.push_str(&format!(", since there is no {}", node.device));
    }
    line
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
        for device in ["", "/cpu:0", "/device:CPU:*", "/job:localhost", "/task:0/cpu:0"] {
            let node = node_on(device);
            assert!(is_there(&node).unwrap(), "{device}");
            assert_eq!(report(&node, true), format!("n: (NoOp): {CPU}"));
        }
        for device in ["/gpu:0", "/cpu:1", "/job:ps", "/task:3/cpu:0"] {
            assert!(!is_there(&node_on(device)).unwrap(), "{device}");
        }
        let line = report(&node_on("/device:GPU:0"), false);
        assert_eq!(line, format!("n: (NoOp): {CPU}, since there is no /device:GPU:0"));
    }
}
