//! `while_loop`: what is made of values again and again for as long as a condition holds, as the graph runs.

pub(in crate::control) mod context;
pub(in crate::control) mod gradient;
mod variables;
mod walk;

use graph_core::graph::scope::{self, ControlFlowContext};
use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::ControlFlow;
use graph_core::{DType, Error, PartialShape, Result};

use crate::composite::Composite;
use context::{Options, WhileContext, is_constant_enter, merge_of};
pub use variables::LoopVariables;

/// A loop about to be made; see [`while_loop`].
#[must_use = "the loop is made by `build`"]
pub struct WhileLoop<V: LoopVariables, C, B> {
    condition: C,
    body: B,
    values: Vec<Operand>,
    form: V::Form,
    shape_invariants: Option<Vec<PartialShape>>,
    maximum_iterations: Option<Operand>,
    options: Options,
    name: String,
    site: Composite,
}

/// The `loop_vars` after `body` was applied to them for as long as `condition` of them held, which may be not once. Both are
/// built once and run once an iteration.
///
/// `condition` gives a `bool` scalar, `body` as many values as there are variables, of the same dtypes, and of the shapes that
/// the variables begin with unless [`WhileLoop::shape_invariants`] says otherwise. What else the two use from outside is the
/// same in all iterations. Variables of the session are read where their values are taken: outside, and so once, unless the
/// body itself reads them.
///
/// Numbers that variables begin with are written with their type, as `0i32`, for the closures to be understood.
///
/// [`gradients`](graph_core::gradients) flow through the loop, by a second loop that runs as often, backwards; what it needs
/// of the iterations is kept until then. Gradients of these gradients there are none, as in TensorFlow.
///
/// ```
/// use graph_core::{Graph, Session, gradients};
/// use graph_ops::array::constant;
/// use graph_ops::control::while_loop;
/// use graph_ops::math;
/// # fn main() -> graph_core::Result<()> {
/// let graph = Graph::new();
/// let _default = graph.as_default();
/// // Newton's iteration for the square root of two.
/// let two = constant(2.0f32).build()?;
/// let (steps, root) = while_loop(
///     |(_, x)| Ok(math::greater(math::abs((math::square(&x).build()? - &two)?), 1e-6f32)),
///     |(steps, x)| Ok((math::add(&steps, 1), math::multiply(math::add(&x, math::divide(&two, &x)), 0.5f32))),
///     (0i32, 1.0f32),
/// )
/// .maximum_iterations(20)
/// .build()?;
/// let slope = gradients([&root], [&two])?.build()?.remove(0).expect("the root depends on it");
/// let (steps, root, slope): (i32, f32, f32) = Session::new(&graph)?.run((&steps, &root, &slope), ())?;
/// assert_eq!(steps, 4);
/// assert!((root - 2f32.sqrt()).abs() < 1e-6 && (slope - 0.5 / 2f32.sqrt()).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn while_loop<V, R, P, C, B>(condition: C, body: B, loop_vars: V) -> WhileLoop<V, C, B>
where
    V: LoopVariables,
    R: LoopVariables<Inside = V::Inside>,
    P: IntoOperand,
    C: FnOnce(V::Inside) -> Result<P>,
    B: FnOnce(V::Inside) -> Result<R>,
{
    let mut values = Vec::new();
    let form = loop_vars.split(&mut values);
    let site = Composite::of(&values.iter().collect::<Vec<_>>());
    WhileLoop {
        condition,
        body,
        values,
        form,
        shape_invariants: None,
        maximum_iterations: None,
        options: Options {
            parallel_iterations: 10,
            back_prop: true,
            swap_memory: false,
        },
        name: "while".to_owned(),
        site,
    }
}

impl<V: LoopVariables, C, B> WhileLoop<V, C, B> {
    /// Names the scope.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many iterations TensorFlow may run at a time, at least 1; 10 without. Here they run one after the other.
    pub fn parallel_iterations(mut self, count: i64) -> Self {
        self.options.parallel_iterations = count;
        self
    }

    /// Whether gradients flow through the loop; they do without. With `false` they count its ends as constants.
    pub fn back_prop(mut self, flows: bool) -> Self {
        self.options.back_prop = flows;
        self
    }

    /// Whether TensorFlow may keep on the host what gradients need of iterations on a GPU.
    pub fn swap_memory(mut self, swaps: bool) -> Self {
        self.options.swap_memory = swaps;
        self
    }

    /// The most iterations there may be, an integer scalar; as many as the condition wants without.
    pub fn maximum_iterations(mut self, count: impl IntoOperand) -> Self {
        self.maximum_iterations = Some(count.into_operand());
        self
    }

    /// What holds for the shapes of the variables in all iterations, one for each (a TensorArray counts as one scalar).
    pub fn shape_invariants(mut self, shapes: impl IntoIterator<Item = PartialShape>) -> Self {
        self.shape_invariants = Some(shapes.into_iter().collect());
        self
    }

    /// Makes the loop; its variables as they are when it ends.
    ///
    /// # Errors
    /// The condition's and the body's own; `InvalidArgument` if the condition is no `bool` scalar, if the body gives another
    /// number of values, other dtypes or shapes than the variables have, if the invariants do not hold for what the variables
    /// begin with, if there are no variables, or if an option is out of range.
    pub fn build<R, P>(self) -> Result<V::Inside>
    where
        R: LoopVariables<Inside = V::Inside>,
        P: IntoOperand,
        C: FnOnce(V::Inside) -> Result<P>,
        B: FnOnce(V::Inside) -> Result<R>,
    {
        self.check_options()?;
        let Self {
            condition, body, form, ..
        } = self;
        let site = self.site;
        let scope = site.scope(&self.name)?;
        let counter = match &self.maximum_iterations {
            Some(most) => Some(counter(&site, most)?),
            None => None,
        };
        let mut start: Vec<Tensor> = counter.iter().map(|(_, zero)| zero.clone()).collect();
        for value in &self.values {
            start.push(first_value(&site, value)?);
        }
        let invariants = self.shape_invariants.map(|mut shapes| {
            if counter.is_some() {
                shapes.insert(0, PartialShape::scalar());
            }
            shapes
        });
        let context = WhileContext::new(&site.graph, "while_context", self.options, None);
        let frame = Frame::begin(&site, &context, &start, invariants.as_deref())?;
        let inside = context.enter(&site.graph)?;
        let own = usize::from(counter.is_some());
        let join = |tensors: &[Tensor]| V::join(&form, &mut tensors[own..].iter().cloned());
        let goes_on = {
            let below = match &counter {
                Some((most, _)) => Some(site.node("Less").input(&frame.merges[0]).input(most).build()?),
                None => None,
            };
            let wanted = condition(join(&frame.merges)?)?.into_operand();
            let wanted = site.tensor(&wanted, Some(DType::Bool), "Const");
            let wanted =
                wanted.map_err(|error| error.context(format!("building the condition of '{}'", scope.scope_name())))?;
            check_condition(&wanted)?;
            match below {
                Some(below) => site.node("LogicalAnd").input(below).input(wanted).build()?,
                None => wanted,
            }
        };
        let frame = frame.decide(&site, &context, &goes_on)?;
        let mut results = Vec::new();
        if own == 1 {
            results.push(Operand::Tensor(
                site.node("AddV2")
                    .input(&frame.variables[0])
                    .input(1)
                    .name("add")
                    .build()?,
            ));
        }
        body(join(&frame.variables)?)?.split(&mut results);
        let exits = frame.end(&site, &context, &results, own)?;
        drop(inside);
        V::join(&form, &mut exits[own..].iter().cloned())
    }

    fn check_options(&self) -> Result<()> {
        if self.values.is_empty() {
            return Err(Error::invalid_argument("a loop needs at least one variable")
                .hint("give a counter, or whatever the condition is about, as `loop_vars`"));
        }
        if self.options.parallel_iterations < 1 {
            return Err(Error::invalid_argument("`parallel_iterations` is out of range")
                .expected("at least 1")
                .got(self.options.parallel_iterations));
        }
        if let Some(shapes) = &self.shape_invariants
            && shapes.len() != self.values.len()
        {
            return Err(Error::invalid_argument("`shape_invariants` does not fit the variables")
                .expected(format!("{} shapes, one for each variable", self.values.len()))
                .got(shapes.len()));
        }
        Ok(())
    }
}

/// What counts the iterations: the most there may be, and what to begin with.
fn counter(site: &Composite, most: &Operand) -> Result<(Tensor, Tensor)> {
    let most = site.tensor(most, None, "maximum_iterations")?;
    let is_scalar = most.shape().rank().is_none_or(|rank| rank == 0);
    if !is_scalar || !matches!(most.dtype(), DType::Int32 | DType::Int64) {
        return Err(Error::invalid_argument("`maximum_iterations` is no integer")
            .expected("a scalar of int32 or int64")
            .got(format!("{most:?}"))
            .at(most.op().site()));
    }
    let zero = graph_core::Value::scalar(0i32).cast_exactly(most.dtype())?;
    let zero = site.constant(zero, "iteration_counter")?;
    Ok((most, zero))
}

/// What a variable begins with.
fn first_value(site: &Composite, value: &Operand) -> Result<Tensor> {
    let tensor = site.tensor(value, None, "Const")?;
    if tensor.is_ref() {
        return Err(
            Error::invalid_argument("a loop's variable cannot be a reference to a variable of the session")
                .got(format!("{tensor:?}"))
                .at(tensor.op().site())
                .hint("give the variable itself, for its value, or use the reference inside the body"),
        );
    }
    Ok(tensor)
}

fn check_condition(wanted: &Tensor) -> Result<()> {
    let is_scalar = wanted.shape().rank().is_none_or(|rank| rank == 0);
    if wanted.dtype() == DType::Bool && is_scalar {
        return Ok(());
    }
    Err(Error::invalid_argument("the condition of a loop decides nothing")
        .expected("a scalar of bool")
        .got(format!("{wanted:?}"))
        .at(wanted.op().site())
        .hint(
            "compare with `less` and its like, and reduce what has several elements with `reduce_all` or `reduce_any`",
        ))
}

/// Whether all that `general` admits holds for `shape`.
fn is_within(shape: &PartialShape, general: &PartialShape) -> bool {
    match (shape.dims(), general.dims()) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(dims), Some(general)) => {
            dims.len() == general.len()
                && dims
                    .iter()
                    .zip(general)
                    .all(|(dim, general)| general.is_none() || dim == general)
        }
    }
}

/// The beginning of a loop, up to the condition.
struct Frame {
    merges: Vec<Tensor>,
}

/// A loop whose condition is there.
struct Decided {
    merges: Vec<Tensor>,
    ends: Vec<Tensor>,
    /// What the body works on.
    variables: Vec<Tensor>,
}

impl Frame {
    fn begin(
        site: &Composite,
        context: &WhileContext,
        start: &[Tensor],
        invariants: Option<&[PartialShape]>,
    ) -> Result<Self> {
        let graph = &site.graph;
        let outer = context.outer();
        let outside = |value: &Tensor| outer.as_ref().map_or(Ok(value.clone()), |outer| outer.add_value(value));
        let start: Vec<Tensor> = start.iter().map(outside).collect::<Result<_>>()?;
        let mut enters = Vec::with_capacity(start.len());
        {
            let _outside = scope::clear_control_dependencies(graph);
            for (index, value) in start.iter().enumerate() {
                let enter = context.enter_node(value, false, "Enter")?;
                let shape = invariants.map_or_else(|| value.shape(), |shapes| shapes[index].clone());
                if !is_within(&value.shape(), &shape) {
                    return Err(Error::invalid_argument(
                        "a loop's variable begins with another shape than its invariant says",
                    )
                    .expected(&shape)
                    .got(format!("{value:?}"))
                    .at(enter.op().site())
                    .hint("leave open in `shape_invariants` what differs, with `None` for a dimension"));
                }
                enter.set_shape(shape)?;
                if let Some(outer) = &outer {
                    outer.add_inner_op(&enter.op())?;
                }
                enters.push(enter);
            }
        }
        // What is the same in all iterations of the loop around is alive before the first of them is.
        if let Some(pivot) = context.outer_pivot() {
            for enter in enters.iter().filter(|enter| is_constant_enter(&enter.op().input(0))) {
                graph.add_control_input(&enter.op(), &graph.operation_at(pivot)?)?;
            }
        }
        context.adopt(&enters)?;
        context.begin_with(&enters);
        enters.iter().for_each(|enter| context.add_enter(enter));
        let _inside = context.enter(graph)?;
        let merges: Vec<Tensor> = enters
            .iter()
            .map(|enter| merge_of(enter, "Merge"))
            .collect::<Result<_>>()?;
        context.set_condition_pivot(&merges[0]);
        Ok(Self { merges })
    }

    fn decide(self, site: &Composite, context: &WhileContext, goes_on: &Tensor) -> Result<Decided> {
        let decision = site.node("LoopCond").input(goes_on).build()?;
        context.set_decision(&decision);
        let (mut ends, mut ways) = (Vec::new(), Vec::new());
        for merge in &self.merges {
            let switch = super::context::switch_beside(merge, &decision, "Switch")?;
            ends.push(switch.output(0));
            ways.push(switch.output(1));
        }
        let identity = |way: &Tensor| site.node("Identity").input(way).build();
        let variables: Vec<Tensor> = ways.iter().map(identity).collect::<Result<_>>()?;
        context.set_body_pivot(&variables[0]);
        Ok(Decided {
            merges: self.merges,
            ends,
            variables,
        })
    }
}

impl Decided {
    /// Carries on what the body gives, and leaves the loop; `own` of the variables are not the caller's.
    fn end(self, site: &Composite, context: &WhileContext, results: &[Operand], own: usize) -> Result<Vec<Tensor>> {
        if results.len() != self.merges.len() {
            return Err(
                Error::invalid_argument("the body of a loop gives another number of values")
                    .expected(format!("{}, one for each variable", self.merges.len() - own))
                    .got(results.len() - own)
                    .at(self.merges[0].op().site()),
            );
        }
        let mut values = Vec::with_capacity(results.len());
        for (merge, result) in self.merges.iter().zip(results) {
            values.push(self.result(site, merge, result)?);
        }
        for (merge, value) in self.merges.iter().zip(&values) {
            let next = site.node("NextIteration").input(value).build()?;
            check_shape(merge, &next)?;
            site.graph.set_input(&merge.op(), 1, &next)?;
        }
        let mut exits = Vec::with_capacity(self.ends.len());
        for end in &self.ends {
            let exit = site.node("Exit").input(end).build()?;
            context.add_exit(&exit);
            exits.push(exit);
        }
        Ok(exits)
    }

    /// A result of the body as a tensor of the dtype of its variable.
    fn result(&self, site: &Composite, merge: &Tensor, result: &Operand) -> Result<Tensor> {
        let dtype = result.graph().is_none().then(|| merge.dtype());
        let value = site.tensor(result, dtype, "Const")?;
        if value.dtype() != merge.dtype() || value.is_ref() {
            return Err(
                Error::invalid_argument("the body of a loop gives another dtype than its variable has")
                    .expected(format!("{} as of {:?}", merge.dtype(), entered(merge)))
                    .got(format!("{value:?}"))
                    .at(value.op().site())
                    .hint("cast what the body gives, or what the variable begins with"),
            );
        }
        Ok(value)
    }
}

/// What a loop's Merge takes in the first iteration, before it enters.
fn entered(merge: &Tensor) -> Tensor {
    let enter = merge.op().input(0);
    match enter.op().definition().control_flow {
        ControlFlow::Enter => enter.op().input(0),
        _ => enter,
    }
}

fn check_shape(merge: &Tensor, next: &Tensor) -> Result<()> {
    if is_within(&next.shape(), &merge.shape()) {
        return Ok(());
    }
    let start = entered(merge);
    Err(Error::invalid_argument("a variable of a loop has another shape after an iteration")
        .expected(format!("{} as of '{}', with which it begins", merge.shape(), start.name()))
        .got(format!("{} of '{}'", next.shape(), next.op().input(0).name()))
        .at(merge.op().site())
        .hint("say with `shape_invariants` what stays of the shape, or keep it with `set_shape` or a reshape in the body"))
}

#[cfg(test)]
mod tests;
