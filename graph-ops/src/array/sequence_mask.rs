//! `sequence_mask`: lengths as rows of true and false.

use graph_core::graph::scope::name_scope_in;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::{DType, Graph, Result, Value};

/// Lengths as rows about to be made; see [`sequence_mask`].
#[must_use = "an operation is made by `build`"]
pub struct SequenceMask {
    lengths: Operand,
    maxlen: Option<Operand>,
    dtype: DType,
    name: String,
}

impl SequenceMask {
    /// Opens a scope of this name for the operations.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the length of the rows; the largest of the lengths without.
    pub fn maxlen(mut self, maxlen: impl IntoOperand) -> Self {
        self.maxlen = Some(maxlen.into_operand());
        self
    }

    /// Sets the element type; `bool` without.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` if they are no integers.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let graph = self.lengths.graph().cloned().unwrap_or_else(Graph::current);
        let _scope = name_scope_in(&graph, &self.name)?;
        let lengths = self.lengths.to_tensor(&graph, "lengths", None)?;
        let dtype = lengths.dtype();
        lengths.require_dtype(DType::INDICES)?;
        let maxlen = match &self.maxlen {
            Some(maxlen) => maxlen.to_tensor(&graph, "maxlen", Some(dtype))?,
            None => {
                let rank = lengths.shape().rank().unwrap_or(1) as i32;
                let axes = graph_core::graph::builder::constant_in(&graph, Value::int32_vector(0..rank), "Const")?;
                let max = OpBuilder::new("Max").input(&lengths).input(axes).build()?;
                let zero = 0i32.into_operand().to_tensor(&graph, "Const", Some(dtype))?;
                OpBuilder::new("Maximum").input(zero).input(max).build()?
            }
        };
        let number = |number: i32, name: &str| number.into_operand().to_tensor(&graph, name, Some(dtype));
        let (start, step) = (number(0, "Const")?, number(1, "Const")?);
        let row = OpBuilder::new("Range").input(start).input(maxlen).input(step).build()?;
        let column = OpBuilder::new("ExpandDims").input(lengths).input(-1i32).build()?;
        let mask = OpBuilder::new("Less").input(row).input(column).build()?;
        if self.dtype == DType::Bool {
            return Ok(mask);
        }
        OpBuilder::new("Cast").input(mask).attr("DstT", self.dtype).build()
    }
}

impl IntoOperand for SequenceMask {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// For each of `lengths`, an integer tensor, a new last dimension whose first so many elements are true.
#[track_caller]
pub fn sequence_mask(lengths: impl IntoOperand) -> SequenceMask {
    SequenceMask {
        lengths: lengths.into_operand(),
        maxlen: None,
        dtype: DType::Bool,
        name: "SequenceMask".to_owned(),
    }
}
