//! What is wrong with a graph: all of it in one error.

use crate::error::{Error, OpSite, Report, Result};
use crate::format::proto::NodeDef;

/// How many problems of a graph are told at most.
const MAX_PROBLEMS: usize = 50;

/// What is wrong with a graph, of one class: that of the first problem.
#[derive(Default)]
pub(super) struct Problems(Vec<Error>);

impl Problems {
    pub(super) fn add(&mut self, node: &NodeDef, error: Error) {
        self.0
            .push(error.at(OpSite::new(node.name.as_str(), node.op.as_str(), None)));
    }

    pub(super) fn add_general(&mut self, error: Error) {
        self.0.push(error);
    }

    /// The one error for all of them, if there is any.
    pub(super) fn finish(&mut self, nodes: usize) -> Result<()> {
        let problems = std::mem::take(&mut self.0);
        let count = problems.len();
        let mut problems = problems.into_iter();
        let Some(first) = problems.next() else {
            return Ok(());
        };
        if count == 1 {
            return Err(first.context(format!("importing a graph of {nodes} nodes")));
        }
        let mut message = format!("the graph cannot be imported: {count} problems");
        let all = std::iter::once(&first).chain(problems.as_slice());
        for problem in all.take(MAX_PROBLEMS) {
            message.push_str("\n  - ");
            message.push_str(&one_line(problem.report()));
        }
        if count > MAX_PROBLEMS {
            message.push_str(&format!("\n  ... and {} more", count - MAX_PROBLEMS));
        }
        Err(first.with_message(message))
    }
}

fn one_line(report: &Report) -> String {
    let mut line = match &report.op {
        Some(op) => format!("'{}' ({}): {}", op.name, op.op, report.message),
        None => report.message.clone(),
    };
    for (what, text) in [("expected", &report.expected), ("got", &report.got)] {
        if let Some(text) = text {
            line.push_str(&format!("; {what} {text}"));
        }
    }
    line
}
