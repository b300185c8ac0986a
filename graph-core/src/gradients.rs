//! Symbolic gradients: ordinary ops that compute the derivative of other ops.
//!
//! The algorithm is TensorFlow's: which operations lie between the `xs` and the `ys`, then backwards from the `ys`, each
//! operation once all gradients of its outputs are known, several contributions added up by `AddN`.

mod between;
mod loops;

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::builder::constant_in;
use crate::graph::scope::{Colocation, ScopeGuard};
use crate::graph::{Graph, IntoOperand, NodeId, OpBuilder, Operand, Operation, Tensor, TensorId, scope};
use crate::op::{AttrValue, FromAttr, GradientRule, vocabulary};
use crate::value::Value;
use between::Between;
pub use loops::LoopGradients;
use loops::Loops;

/// What a gradient function sees: the forward operation, and the gradients of its outputs.
pub struct GradientContext<'a> {
    operation: &'a Operation,
    gradients: &'a [Option<Tensor>],
}

impl<'a> GradientContext<'a> {
    /// The forward operation.
    pub fn op(&self) -> &'a Operation {
        self.operation
    }

    /// Input `index` of the forward operation.
    pub fn input(&self, index: usize) -> Tensor {
        self.operation.input(index)
    }

    /// Output `index` of the forward operation.
    pub fn output(&self, index: usize) -> Tensor {
        self.operation.output(index)
    }

    /// The gradient of output `index`.
    ///
    /// # Errors
    /// `Internal` if the output has none, as one of an integer dtype.
    pub fn gradient(&self, index: usize) -> Result<Tensor> {
        self.gradients
            .get(index)
            .cloned()
            .flatten()
            .ok_or_else(|| Error::internal(format!("output {index} has no gradient")).at(self.operation.site()))
    }

    /// The gradient of output `index`, if it has one.
    pub fn optional_gradient(&self, index: usize) -> Option<Tensor> {
        self.gradients.get(index).cloned().flatten()
    }

    /// Attribute `name` of the forward operation.
    ///
    /// # Errors
    /// `InvalidArgument` if it is missing or of another kind.
    pub fn attr<T: FromAttr>(&self, name: &str) -> Result<T> {
        self.operation.attr(name)
    }

    /// Attribute `name` of the forward operation as it is, to hand it on.
    ///
    /// # Errors
    /// `Internal` if it is missing.
    pub fn attr_value(&self, name: &str) -> Result<AttrValue> {
        self.operation
            .attr_value(name)
            .ok_or_else(|| Error::internal(format!("the attribute '{name}' is missing")).at(self.operation.site()))
    }

    /// An operation of type `op`, made where the forward operation was made in the user's source.
    pub fn node(&self, op: &str) -> OpBuilder {
        let location = self
            .operation
            .graph()
            .read(|data| data.node(self.operation.id()).location);
        OpBuilder::new(op).in_graph(self.operation.graph()).made_at(location)
    }

    /// A constant named `name`.
    ///
    /// # Errors
    /// Those of making a node.
    pub fn constant(&self, value: impl Into<Value>, name: &str) -> Result<Tensor> {
        constant_in(self.operation.graph(), value.into(), name)
    }
}

/// Gradients of `sum(ys)` about to be built; see [`gradients`].
#[must_use = "gradients are made by `build`"]
pub struct Gradients {
    ys: Vec<Tensor>,
    xs: Vec<Tensor>,
    grad_ys: Vec<Operand>,
    stop_gradients: Vec<Tensor>,
    name: String,
    colocate: bool,
    gate: bool,
}

/// The derivatives of the sum of `ys` with respect to each of `xs`, as tensors of the `xs`' shapes.
///
/// A variable given as one of the `xs` stands for its value; one of the `xs` may also be a variable's handle.
pub fn gradients<Y: IntoOperand, X: IntoOperand>(
    ys: impl IntoIterator<Item = Y>,
    xs: impl IntoIterator<Item = X>,
) -> Result<Gradients> {
    let tensors = |operands: Vec<Operand>| {
        operands
            .into_iter()
            .map(|operand| match operand {
                Operand::Tensor(tensor) => Ok(tensor),
                // Each use of a resource variable is a read of its own: what they share is the handle.
                Operand::Variable(variable) if variable.is_resource() => variable.handle().cloned(),
                Operand::Variable(variable) => Ok(variable.value().clone()),
                Operand::Failed(error) => Err(error.duplicate()),
                _ => Err(Error::invalid_argument(
                    "gradients are taken of tensors, with respect to tensors",
                )),
            })
            .collect::<Result<Vec<_>>>()
    };
    Ok(Gradients {
        ys: tensors(ys.into_iter().map(IntoOperand::into_operand).collect())?,
        xs: tensors(xs.into_iter().map(IntoOperand::into_operand).collect())?,
        grad_ys: Vec::new(),
        stop_gradients: Vec::new(),
        name: "gradients".to_owned(),
        colocate: false,
        gate: false,
    })
}

impl Gradients {
    /// The gradients that come in at the `ys`, one for each; ones without.
    pub fn grad_ys<T: IntoOperand>(mut self, grad_ys: impl IntoIterator<Item = T>) -> Self {
        self.grad_ys = grad_ys.into_iter().map(IntoOperand::into_operand).collect();
        self
    }

    /// Tensors that count as constants.
    pub fn stop_gradients<'a>(mut self, tensors: impl IntoIterator<Item = &'a Tensor>) -> Self {
        self.stop_gradients = tensors.into_iter().cloned().collect();
        self
    }

    /// Names the scope; `gradients` without.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Puts each gradient operation on the device of its forward operation.
    pub fn colocate_with_ops(mut self, colocate: bool) -> Self {
        self.colocate = colocate;
        self
    }

    /// Lets no gradient of an operation be used before all of them are there, as `minimize` does.
    pub fn gate_by_op(mut self, gate: bool) -> Self {
        self.gate = gate;
        self
    }

    /// Builds them: one entry for each of the `xs`, `None` where the `ys` do not depend on it.
    ///
    /// # Errors
    /// `InvalidArgument` for dtypes without derivatives or a gradient of the wrong shape, `NotFound` for an operation on
    /// the way that has no gradient.
    pub fn build(self) -> Result<Vec<Option<Tensor>>> {
        let Some(graph) = self.ys.first().map(|y| y.graph().clone()) else {
            return Ok(vec![None; self.xs.len()]);
        };
        let everything = self.ys.iter().chain(&self.xs).chain(&self.stop_gradients);
        if everything.into_iter().any(|tensor| *tensor.graph() != graph) {
            return Err(Error::invalid_argument("gradients are taken inside one graph"));
        }
        for y in &self.ys {
            if !y.dtype().is_floating() && !y.dtype().is_complex() {
                return Err(Error::invalid_argument("gradients are taken of floating-point tensors")
                    .got(format!("{y:?}"))
                    .at(y.op().site()));
            }
        }
        if !self.grad_ys.is_empty() && self.grad_ys.len() != self.ys.len() {
            return Err(
                Error::invalid_argument("every y has one gradient that comes in, or none has")
                    .expected(format!("{} grad_ys", self.ys.len()))
                    .got(self.grad_ys.len()),
            );
        }
        let mut walk = Backward::new(&graph, &self)?;
        let found = {
            let _scope = scope::name_scope_in(&graph, &self.name)?;
            walk.run()?
        };
        walk.loops.finish()?;
        Ok(found)
    }
}

/// The state of the backward walk.
struct Backward<'a> {
    graph: &'a Graph,
    request: &'a Gradients,
    /// Operations between the `xs` and the `ys`.
    between: Between,
    /// How many consumers between have not given their gradients yet.
    pending: FxHashMap<NodeId, usize>,
    /// Operations whose gradients are not walked further.
    stops: FxHashSet<NodeId>,
    /// The contributions to the gradient of each tensor.
    contributions: FxHashMap<TensorId, Vec<Tensor>>,
    /// Operations whose gradients are next.
    queue: VecDeque<NodeId>,
    loops: Loops,
}

impl<'a> Backward<'a> {
    fn new(graph: &'a Graph, request: &'a Gradients) -> Result<Self> {
        Ok(Self {
            graph,
            request,
            between: Between::new(graph, request)?,
            pending: FxHashMap::default(),
            stops: FxHashSet::default(),
            contributions: FxHashMap::default(),
            queue: VecDeque::new(),
            loops: Loops::default(),
        })
    }

    /// Counts what each operation waits for, and says where the walk ends.
    fn count(&mut self) {
        let (between, request) = (&self.between, self.request);
        (self.pending, self.stops) = self.graph.read(|data| {
            let mut pending: FxHashMap<NodeId, usize> = FxHashMap::default();
            for &id in &between.order {
                for input in data.node(id).inputs.iter().filter(|input| between.holds(input.node)) {
                    *pending.entry(input.node).or_default() += 1;
                }
            }
            // An operation of the xs is walked through only if another of the xs lies before it.
            let waits = |input: &TensorId| pending.get(&input.node).is_some_and(|&count| count > 0);
            let xs = request.xs.iter().map(Tensor::node_id);
            let mut stops: FxHashSet<NodeId> = xs.filter(|&x| !data.node(x).inputs.iter().any(waits)).collect();
            stops.extend(request.stop_gradients.iter().map(Tensor::node_id));
            (pending, stops)
        });
    }

    fn run(&mut self) -> Result<Vec<Option<Tensor>>> {
        self.begin()?;
        self.take_up_loops()?;
        self.count();
        let mut queued: FxHashSet<NodeId> = FxHashSet::default();
        for y in &self.request.ys {
            let id = y.node_id();
            let ready = self.pending.get(&id).copied().unwrap_or(0) == 0;
            if ready && queued.insert(id) {
                self.queue.push_back(id);
            }
        }
        self.begin_at_unused_exits(&queued)?;
        while let Some(id) = self.queue.pop_front() {
            let operation = Operation::new(self.graph, id);
            let colocated = self.colocate_with(&operation);
            let gradients = {
                let _inside = self.loops.enter(self.graph, &operation, true);
                self.output_gradients(&operation)?
            };
            {
                let _inside = self.loops.enter(self.graph, &operation, false);
                let input_gradients = if self.between.holds(id) && !self.stops.contains(&id) {
                    self.gradients_of(&operation, gradients)?
                } else {
                    vec![None; operation.inputs().len()]
                };
                for (input, gradient) in operation.inputs().iter().zip(input_gradients) {
                    if let Some(gradient) = gradient {
                        self.contributions.entry(input.id()).or_default().push(gradient);
                    }
                }
            }
            drop(colocated);
            // TensorFlow counts an edge as done whether or not a gradient came over it.
            for input in operation.inputs() {
                self.count_off(&input)?;
            }
        }
        self.request.xs.iter().map(|x| self.aggregate(x.id())).collect()
    }

    /// Notes that one consumer of `input` has given its gradient, or has none.
    fn count_off(&mut self, input: &Tensor) -> Result<()> {
        let id = input.node_id();
        let Some(count) = self.pending.get_mut(&id).filter(|count| **count > 0) else {
            return Ok(());
        };
        *count -= 1;
        let done = *count == 0;
        let operation = input.op();
        if done && self.loops.is_exit(&operation) {
            return self.defer_exit(input);
        }
        // What a loop's Switch gives to the next iteration comes from its Exit first.
        if done || self.loops.is_switch(&operation) {
            self.queue.push_back(id);
        }
        Ok(())
    }

    /// Keeps what is made while the guard lives beside an operation, if that was asked for.
    fn colocate_with(&self, operation: &Operation) -> Option<ScopeGuard> {
        self.request.colocate.then(|| scope::colocate_with(operation))
    }

    /// The gradients that come in at the ys.
    fn begin(&mut self) -> Result<()> {
        for (index, y) in self.request.ys.iter().enumerate() {
            let _colocated = self.colocate_with(&y.op());
            let gradient = match self.request.grad_ys.get(index).cloned() {
                Some(operand) => {
                    let gradient = operand.to_tensor(self.graph, &format!("grad_ys_{index}"), Some(y.dtype()))?;
                    if gradient.dtype() != y.dtype() || !gradient.shape().is_compatible_with(&y.shape()) {
                        return Err(
                            Error::invalid_argument("a gradient that comes in does not fit its tensor")
                                .expected(format!("{y:?}"))
                                .got(format!("{gradient:?}")),
                        );
                    }
                    gradient
                }
                None if y.dtype().is_complex() => {
                    return Err(
                        Error::invalid_argument("the gradient of complex numbers has no natural start")
                            .got(format!("{y:?}"))
                            .at(y.op().site())
                            .hint("say with `grad_ys` what comes in"),
                    );
                }
                None => self.ones_like(y, index)?,
            };
            self.contributions.entry(y.id()).or_default().push(gradient);
        }
        Ok(())
    }

    fn ones_like(&self, y: &Tensor, index: usize) -> Result<Tensor> {
        let shape = match y.shape().to_shape() {
            Some(shape) => constant_in(
                self.graph,
                Value::int32_vector(shape.iter().map(|&dim| dim as i32)),
                vocabulary::SHAPE,
            )?,
            None => OpBuilder::new(vocabulary::SHAPE).input(y).build()?,
        };
        let one = constant_in(
            self.graph,
            Value::scalar(1.0f64).cast_exactly(y.dtype())?,
            &format!("grad_ys_{index}"),
        )?;
        OpBuilder::new(vocabulary::FILL).input(shape).input(one).build()
    }

    /// The gradients of an operation's outputs; zeros for those that nothing depends on, if others have one.
    fn output_gradients(&mut self, operation: &Operation) -> Result<Vec<Option<Tensor>>> {
        let mut gradients = Vec::new();
        for slot in 0..operation.num_outputs() {
            gradients.push(self.aggregate(TensorId::new(operation.id(), slot))?);
        }
        Ok(gradients)
    }

    /// The sum of the contributions to a tensor's gradient; what was summed is kept as one contribution.
    fn aggregate(&mut self, id: TensorId) -> Result<Option<Tensor>> {
        let Some(contributions) = self.contributions.get(&id) else {
            return Ok(None);
        };
        let sum = match contributions.as_slice() {
            [] => return Ok(None),
            [one] => return Ok(Some(one.clone())),
            several => {
                let colocation = Colocation {
                    alone: true,
                    ..Colocation::with(&several[0].op())
                };
                let _colocated = scope::colocate(self.graph, colocation);
                OpBuilder::new(vocabulary::ADD_N).input(several).build()?
            }
        };
        self.contributions.insert(id, vec![sum.clone()]);
        Ok(Some(sum))
    }

    /// The gradients of an operation's inputs, by the op's gradient function.
    fn gradients_of(&self, operation: &Operation, mut gradients: Vec<Option<Tensor>>) -> Result<Vec<Option<Tensor>>> {
        let num_inputs = operation.inputs().len();
        if gradients.iter().all(Option::is_none) {
            return Ok(vec![None; num_inputs]);
        }
        let function = match operation.definition().gradient {
            GradientRule::Function(function) => function,
            GradientRule::NotDifferentiable => return Ok(vec![None; num_inputs]),
            GradientRule::Undefined | GradientRule::Unsaid => {
                return Err(
                    Error::not_found(format!("no gradient is defined for the op '{}'", operation.op_type()))
                        .at(operation.site())
                        .hint("name tensors before it in `stop_gradients`, or put a `stop_gradient` behind it"),
                );
            }
        };
        for (slot, gradient) in gradients.iter_mut().enumerate() {
            if gradient.is_none() && is_differentiable(operation.output(slot).dtype()) {
                *gradient = self.loops.zeros_like(operation, slot)?;
            }
        }
        let _scope = scope::name_scope_in(self.graph, &format!("{}_grad", operation.name()))?;
        let mut context = GradientContext {
            operation,
            gradients: &gradients,
        };
        let mut input_gradients = function(&mut context).map_err(|error| {
            error.context(format!(
                "building the gradient of '{}' ({})",
                operation.name(),
                operation.op_type()
            ))
        })?;
        if input_gradients.len() != num_inputs {
            return Err(
                Error::internal("a gradient function gave the wrong number of gradients")
                    .expected(num_inputs)
                    .got(input_gradients.len())
                    .at(operation.site()),
            );
        }
        if self.request.gate && input_gradients.iter().flatten().count() > 1 {
            input_gradients = gate(self.graph, input_gradients)?;
        }
        check_gradients(operation, &input_gradients)?;
        Ok(input_gradients)
    }
}

fn is_differentiable(dtype: DType) -> bool {
    dtype.is_floating() || dtype.is_complex() || matches!(dtype, DType::Resource | DType::Variant)
}

/// Holds gradients back until all of them are there.
fn gate(graph: &Graph, gradients: Vec<Option<Tensor>>) -> Result<Vec<Option<Tensor>>> {
    let _scope = scope::name_scope_in(graph, "tuple")?;
    let mut controllers: Vec<Operation> = Vec::new();
    for gradient in gradients.iter().flatten() {
        if !controllers.contains(&gradient.op()) {
            controllers.push(gradient.op());
        }
    }
    // TensorFlow groups by device, and in each group in order of names.
    controllers.sort_by_key(Operation::name);
    let mut group = OpBuilder::new(vocabulary::NO_OP).in_graph(graph).name("group_deps");
    for controller in &controllers {
        group = group.control_input(controller);
    }
    let group = group.build_operation()?;
    gradients
        .into_iter()
        .map(|gradient| {
            let Some(gradient) = gradient else { return Ok(None) };
            let _colocated = scope::colocate_with(&gradient.op());
            OpBuilder::new(vocabulary::IDENTITY)
                .input(&gradient)
                .control_input(&group)
                .name("control_dependency")
                .build()
                .map(Some)
        })
        .collect()
}

fn check_gradients(operation: &Operation, gradients: &[Option<Tensor>]) -> Result<()> {
    for (index, (gradient, input)) in gradients.iter().zip(operation.inputs()).enumerate() {
        let Some(gradient) = gradient else { continue };
        // The gradient of a handle is that of its variable.
        let (dtype, shape) = match (input.dtype(), input.handle_data()) {
            (DType::Resource, Some(handle)) => (handle.dtype, handle.shape),
            (DType::Resource, None) => (gradient.dtype(), gradient.shape()),
            (dtype, _) => (dtype, input.shape()),
        };
        if gradient.dtype() != dtype || !gradient.shape().is_compatible_with(&shape) {
            return Err(
                Error::invalid_argument(format!("the gradient of input {index} does not fit the input"))
                    .expected(format!("{input:?} of {dtype} {shape}"))
                    .got(format!("{gradient:?}"))
                    .at(operation.site()),
            );
        }
        // What is known of the input is known of its gradient.
        gradient.set_shape(shape)?;
    }
    Ok(())
}
