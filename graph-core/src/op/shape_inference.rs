//! What a shape function sees of a node, and the shape functions that many ops share.

use std::ops::Range;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::HandleData;
use crate::op::attr::{Attributes, FromAttr};
use crate::op::definition::{ArgDef, ArgType, OpDefinition};
use crate::shape::{Dim, PartialShape};
use crate::value::Value;

/// Where an [`InferenceContext`] asks for the values of inputs: the graph while it is built, a plan while it is made.
pub trait InputValues {
    /// The value of input `index`, if it is known.
    fn value(&self, index: usize) -> Option<Value>;
    /// What the elements of input `index` say as dimensions (-1: unknown), if anything is known of them.
    fn value_as_shape(&self, index: usize) -> Option<PartialShape>;
    /// What is known of the variable that input `index`, a handle, names.
    fn handle(&self, _index: usize) -> Option<HandleData> {
        None
    }
}

/// What inference found: for each output its shape and, if it is a handle, what is known of its variable.
#[derive(Clone, Debug)]
pub struct Inferred {
    /// The shapes.
    pub shapes: Vec<PartialShape>,
    /// What is known of the variables of handles.
    pub handles: Vec<Option<HandleData>>,
}

/// A node's inputs as far as they are known, and the shapes inferred for its outputs.
pub struct InferenceContext<'a> {
    definition: &'a OpDefinition,
    attrs: &'a Attributes,
    inputs: &'a [PartialShape],
    input_dtypes: &'a [DType],
    values: &'a dyn InputValues,
    outputs: Vec<PartialShape>,
    handles: Vec<Option<HandleData>>,
}

impl<'a> InferenceContext<'a> {
    /// A context of a node with these inputs and `num_outputs` outputs.
    pub fn new(
        definition: &'a OpDefinition,
        attrs: &'a Attributes,
        inputs: &'a [PartialShape],
        input_dtypes: &'a [DType],
        num_outputs: usize,
        values: &'a dyn InputValues,
    ) -> Self {
        let outputs = vec![PartialShape::unknown(); num_outputs];
        Self {
            definition,
            attrs,
            inputs,
            input_dtypes,
            values,
            outputs,
            handles: vec![None; num_outputs],
        }
    }

    /// Runs the op's shape function; what it says of the outputs. An op that says nothing of the handles it gives passes on
    /// those it takes, as `Identity` and `Switch` do.
    ///
    /// # Errors
    /// What the shape function finds wrong, mostly `InvalidArgument`.
    pub fn infer(mut self) -> Result<Inferred> {
        (self.definition.shape)(&mut self)?;
        if self.input_dtypes.contains(&DType::Resource) && self.handles.iter().all(Option::is_none) {
            let handles = (0..self.inputs.len()).filter(|&index| self.input_dtypes[index] == DType::Resource);
            let mut handles = handles.map(|index| self.values.handle(index));
            if let Some(first) = handles.next().flatten()
                && handles.all(|other| other.as_ref() == Some(&first))
            {
                self.handles.fill(Some(first));
            }
        }
        Ok(Inferred {
            shapes: self.outputs,
            handles: self.handles,
        })
    }

    /// The number of inputs, lists counted by their members.
    pub fn num_inputs(&self) -> usize {
        self.inputs.len()
    }

    /// The number of outputs, lists counted by their members.
    pub fn num_outputs(&self) -> usize {
        self.outputs.len()
    }

    /// The shape of input `index`.
    pub fn input(&self, index: usize) -> &'a PartialShape {
        &self.inputs[index]
    }

    /// The shapes of all inputs.
    pub fn inputs(&self) -> &'a [PartialShape] {
        self.inputs
    }

    /// The dtype of input `index`.
    pub fn input_dtype(&self, index: usize) -> DType {
        self.input_dtypes[index]
    }

    /// The inputs that belong to the argument `name`: one, or the members of its list.
    ///
    /// # Errors
    /// `InvalidArgument` if the op has no such argument.
    pub fn input_range(&self, name: &str) -> Result<Range<usize>> {
        arg_range(&self.definition.inputs, self.attrs, name)
    }

    /// The attribute `name`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is missing or of another kind.
    pub fn attr<T: FromAttr>(&self, name: &str) -> Result<T> {
        self.attrs.read(name)
    }

    /// The value of input `index`, if it is known.
    pub fn value(&self, index: usize) -> Option<Value> {
        self.values.value(index)
    }

    /// The value of an integer input, if it is known.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not an integer.
    pub fn int_values(&self, index: usize) -> Result<Option<Vec<i64>>> {
        self.value(index).map(|value| value.to_i64_vec()).transpose()
    }

    /// What the elements of input `index` say as dimensions (-1: unknown), if anything is known of them.
    pub fn value_as_shape(&self, index: usize) -> Option<PartialShape> {
        self.values.value_as_shape(index)
    }

    /// What is known of the variable that input `index`, a handle, names.
    pub fn handle(&self, index: usize) -> Option<HandleData> {
        self.values.handle(index)
    }

    /// Whether input `index` refers to a variable: an argument for a reference or a handle.
    pub fn is_variable(&self, index: usize) -> bool {
        let is_argument = |arg: &&ArgDef| self.input_range(arg.name).is_ok_and(|range| range.contains(&index));
        let argument = self.definition.inputs.iter().find(is_argument);
        argument.is_some_and(|arg| arg.is_ref || arg.ty == ArgType::Fixed(DType::Resource))
    }

    /// The shape of the variable that input `index`, a reference or a handle, refers to.
    pub fn variable_shape(&self, index: usize) -> PartialShape {
        match self.input_dtypes[index] {
            DType::Resource => self
                .handle(index)
                .map_or(PartialShape::unknown(), |handle| handle.shape),
            _ => self.inputs[index].clone(),
        }
    }

    /// The shape of the variable that input `index` refers to, which must be of this dtype if it is known.
    ///
    /// # Errors
    /// `InvalidArgument` if it is of another.
    pub fn variable_of(&self, index: usize, dtype: DType) -> Result<PartialShape> {
        if let Some(handle) = self.handle(index).filter(|handle| handle.dtype != dtype) {
            return Err(Error::invalid_argument(format!(
                "the variable of {} is taken as another dtype than it has",
                self.input_name(index)
            ))
            .expected(handle.dtype)
            .got(dtype));
        }
        Ok(self.variable_shape(index))
    }

    /// The shape that input `index`, a vector of dimensions, describes: as far as its elements are known, else of the rank
    /// that its length says, else unknown.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not a vector.
    pub fn shape_from_input(&self, index: usize) -> Result<PartialShape> {
        let vector = self.with_rank(index, 1)?;
        if let Some(shape) = self.value_as_shape(index) {
            return Ok(shape);
        }
        Ok(vector
            .dim(0)
            .map_or(PartialShape::unknown(), PartialShape::unknown_of_rank))
    }

    /// The shape of input `index`, which must be able to have rank `rank`.
    ///
    /// # Errors
    /// `InvalidArgument` if it has another.
    pub fn with_rank(&self, index: usize, rank: usize) -> Result<PartialShape> {
        self.rank_where(index, |actual| actual == rank, || format!("rank {rank}"))?;
        Ok(match self.input(index).rank() {
            Some(_) => self.input(index).clone(),
            None => PartialShape::unknown_of_rank(rank),
        })
    }

    /// The shape of input `index`, which must be able to have at least rank `rank`.
    ///
    /// # Errors
    /// `InvalidArgument` if it has less.
    pub fn with_rank_at_least(&self, index: usize, rank: usize) -> Result<PartialShape> {
        self.rank_where(index, |actual| actual >= rank, || format!("at least rank {rank}"))?;
        Ok(self.input(index).clone())
    }

    /// The shape of input `index`, which must be able to have at most rank `rank`.
    ///
    /// # Errors
    /// `InvalidArgument` if it has more.
    pub fn with_rank_at_most(&self, index: usize, rank: usize) -> Result<PartialShape> {
        self.rank_where(index, |actual| actual <= rank, || format!("at most rank {rank}"))?;
        Ok(self.input(index).clone())
    }

    fn rank_where(&self, index: usize, fits: impl Fn(usize) -> bool, expected: impl Fn() -> String) -> Result<()> {
        match self.input(index).rank() {
            Some(rank) if !fits(rank) => Err(Error::invalid_argument(format!(
                "{} has the wrong rank",
                self.input_name(index)
            ))
            .expected(expected())
            .got(format!("shape {}", self.input(index)))),
            _ => Ok(()),
        }
    }

    /// How input `index` is called in errors: `input 'shape'`, or `input 3` in a list.
    pub fn input_name(&self, index: usize) -> String {
        for arg in self.definition.inputs.iter().filter(|arg| !arg.is_list()) {
            if self.input_range(arg.name).is_ok_and(|range| range.start == index) {
                return format!("input '{}'", arg.name);
            }
        }
        format!("input {index}")
    }

    /// What is known of two dimensions that must be equal.
    ///
    /// # Errors
    /// `InvalidArgument` if they are not; `what` says which they are.
    pub fn merge_dims(&self, a: Dim, b: Dim, what: &str) -> Result<Dim> {
        match (a, b) {
            (Some(a), Some(b)) if a != b => Err(Error::invalid_argument(format!("{what} must be equal"))
                .expected(a)
                .got(b)),
            _ => Ok(a.or(b)),
        }
    }

    /// Sets the shape of output `index`.
    pub fn set_output(&mut self, index: usize, shape: impl Into<PartialShape>) {
        self.outputs[index] = shape.into();
    }

    /// Says which variable output `index` is a handle of.
    pub fn set_handle(&mut self, index: usize, handle: HandleData) {
        self.handles[index] = Some(handle);
    }

    /// Shape function: nothing is known.
    pub fn unknown_shapes(_context: &mut InferenceContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Shape function: every output is a scalar.
    pub fn scalars(context: &mut InferenceContext<'_>) -> Result<()> {
        (0..context.num_outputs()).for_each(|index| context.set_output(index, PartialShape::scalar()));
        Ok(())
    }

    /// Shape function: every output has the shape of the first input.
    pub fn unchanged(context: &mut InferenceContext<'_>) -> Result<()> {
        (0..context.num_outputs()).for_each(|index| context.set_output(index, context.input(0)));
        Ok(())
    }

    /// Shape function: all inputs have the same shape, and so has the first output.
    pub fn merged(context: &mut InferenceContext<'_>) -> Result<()> {
        let mut shape = PartialShape::unknown();
        for index in 0..context.num_inputs() {
            shape = shape.merge(context.input(index))?;
        }
        context.set_output(0, shape);
        Ok(())
    }

    /// Shape function: the first two inputs are broadcast together.
    pub fn broadcast(context: &mut InferenceContext<'_>) -> Result<()> {
        let (a, b) = (context.input(0), context.input(1));
        let shape = a.broadcast(b).ok_or_else(|| {
            Error::invalid_argument(format!("incompatible shapes: {a} vs. {b}"))
                .hint("from the last dimension on, two dimensions must be equal, or one of them 1 or missing")
        })?;
        context.set_output(0, shape);
        Ok(())
    }
}

/// The positions, among a node's flat inputs or outputs, of the argument `name`.
pub(crate) fn arg_range(args: &[crate::op::ArgDef], attrs: &Attributes, name: &str) -> Result<Range<usize>> {
    let mut start = 0;
    for arg in args {
        let len = arg_len(arg, attrs)?;
        if arg.name == name {
            return Ok(start..start + len);
        }
        start += len;
    }
    Err(Error::invalid_argument(format!("there is no argument '{name}'")))
}

/// The number of tensors that an argument stands for.
pub(crate) fn arg_len(arg: &crate::op::ArgDef, attrs: &Attributes) -> Result<usize> {
    if let Some(number) = arg.number {
        let count: i64 = attrs.read(number)?;
        return usize::try_from(count)
            .map_err(|_| Error::invalid_argument(format!("the attribute '{number}' is negative")));
    }
    match arg.ty {
        crate::op::ArgType::List(list) => Ok(attrs.read::<Vec<DType>>(list)?.len()),
        _ => Ok(1),
    }
}
