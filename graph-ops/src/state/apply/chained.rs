//! How the inputs of an update lie whose gradient is a chain of element-wise operations.

use std::ops::Range;

use graph_core::op::KernelRequest;
use graph_core::{DType, Error, PartialShape, Result, Shape};

/// The inputs of an update whose gradients are chains, of one variable or of several that take the same numbers: a variable with
/// its slots, the numbers, the operands of all chains, the condition if there is one, and the other variables, each with its slots.
pub(super) struct Chained {
    /// The operands of each variable's chain.
    pub(super) operands: Vec<Range<usize>>,
    /// The shape of each chain's result.
    pub(super) shapes: Vec<Shape>,
    /// The condition without which nothing changes.
    pub(super) mask: Option<usize>,
    /// The variables behind the first, with their slots.
    others: Range<usize>,
}

impl Chained {
    /// `None` where the gradient is an input.
    ///
    /// # Errors
    /// `Internal` for a node that is broken.
    pub(super) fn of(request: &KernelRequest<'_>) -> Result<Option<Self>> {
        if request.attrs.get("instructions").is_none() {
            return Ok(None);
        }
        let broken = || Error::internal("an update by chains of element-wise operations is broken");
        let types: Vec<DType> = request.attr("operand_types")?;
        let count = |name| Ok::<_, Error>(request.attr::<i64>(name)? as usize);
        let (updates, masks, others) = (count("N")?, count("M")?, count("X")?);
        let shapes: Vec<PartialShape> = request.attr("shapes")?;
        let shapes: Option<Vec<Shape>> = shapes.iter().map(PartialShape::to_shape).collect();
        let shapes = shapes.filter(|shapes| shapes.len() == updates).ok_or_else(broken)?;
        let first_other = request.num_inputs().checked_sub(others).ok_or_else(broken)?;
        let end = first_other.checked_sub(masks).ok_or_else(broken)?;
        let first = end.checked_sub(types.len()).ok_or_else(broken)?;
        let each = types.len() / updates;
        Ok(Some(Self {
            operands: (0..updates)
                .map(|at| first + at * each..first + (at + 1) * each)
                .collect(),
            shapes,
            mask: (masks > 0).then_some(end),
            others: first_other..request.num_inputs(),
        }))
    }

    /// Which input is the variable, or its slot, `number` of the update `at`.
    pub(super) fn variable(&self, at: usize, number: usize) -> usize {
        match at.checked_sub(1) {
            None => number,
            Some(at) => self.others.start + at * (self.others.len() / (self.operands.len() - 1)) + number,
        }
    }

    /// Where the numbers end, which lie behind the first variable and its slots.
    pub(super) fn end_of_numbers(&self) -> usize {
        self.operands[0].start
    }
}
