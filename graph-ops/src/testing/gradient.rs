//! Gradients against finite differences.

use graph_core::graph::OpBuilder;
use graph_core::graph::builder::constant_in;
use graph_core::op::{ArgDef, ArgType, AttrValue, ControlFlow, KernelDefinition, OpDefinition};
use graph_core::session::{Feeds, Session};
use graph_core::{DType, Graph, Result, Tensor, Value};
use std::collections::HashSet;

use super::{all_hold, floats};

/// A constant and its value.
type Differentiated = (Tensor, Value);

/// An op whose symbolic gradient must agree with finite differences at these inputs, and whose gradient's gradient, with
/// respect to the inputs and to the gradient that comes in, must do so too.
pub(crate) struct GradientCase {
    pub(crate) op: &'static str,
    pub(crate) attrs: Vec<(&'static str, AttrValue)>,
    pub(crate) inputs: Vec<Value>,
    /// The inputs that are differentiated; all floating-point ones without.
    pub(crate) with_respect_to: Option<Vec<usize>>,
    /// The output that is differentiated.
    pub(crate) output: usize,
    /// Whether the gradient itself has one; TensorFlow leaves out some.
    pub(crate) second_order: bool,
    /// Relative and absolute tolerance.
    pub(crate) tolerance: (f64, f64),
    /// The step of the differences.
    pub(crate) step: f64,
}

impl GradientCase {
    pub(crate) fn new(op: &'static str) -> Self {
        Self {
            op,
            attrs: Vec::new(),
            inputs: Vec::new(),
            with_respect_to: None,
            output: 0,
            second_order: true,
            tolerance: (1e-6, 1e-7),
            step: 1e-5,
        }
    }

    pub(crate) fn attr(mut self, name: &'static str, value: impl Into<AttrValue>) -> Self {
        self.attrs.push((name, value.into()));
        self
    }

    pub(crate) fn input(mut self, value: impl Into<Value>) -> Self {
        self.inputs.push(value.into());
        self
    }

    /// Differentiates only these inputs.
    pub(crate) fn with_respect_to(mut self, inputs: &[usize]) -> Self {
        self.with_respect_to = Some(inputs.to_vec());
        self
    }

    /// Differentiates this output instead of the first.
    pub(crate) fn output(mut self, output: usize) -> Self {
        self.output = output;
        self
    }

    /// Says that the gradient has no gradient, as in TensorFlow; asking for one must be an error.
    pub(crate) fn first_order_only(mut self) -> Self {
        self.second_order = false;
        self
    }

    /// Sets the relative and absolute tolerance and the step, as `f32` ops need them (1e-2, 1e-3, 1e-2).
    pub(crate) fn tolerance(mut self, relative: f64, absolute: f64, step: f64) -> Self {
        (self.tolerance, self.step) = ((relative, absolute), step);
        self
    }
}

impl GradientCase {
    /// The same op on inputs of odd shapes, for an op of one input or of two that are broadcast together: scalars, no
    /// elements, axes of one. The elements are those of the case, over and over.
    fn odd_shapes(&self) -> Vec<GradientCase> {
        let shapes: &[&[&[usize]]] = match self.inputs.len() {
            1 => &[&[&[]], &[&[0, 3]], &[&[1, 2, 1, 3]]],
            2 => &[
                &[&[], &[2, 1, 3]],
                &[&[2, 1, 3], &[4, 1]],
                &[&[0, 3], &[3]],
                &[&[1], &[0]],
            ],
            _ => &[],
        };
        if !self.inputs.iter().all(|input| floats(input).is_some()) {
            return Vec::new();
        }
        let reshaped = |value: &Value, shape: &[usize], index: usize| {
            // No two inputs are a whole multiple of each other, where remainders jump.
            let factor = 1.0 + 0.037 * index as f64;
            let elements = floats(value).expect("a floating-point input").into_iter();
            let elements = elements.map(|element| element * factor).cycle();
            let count = shape.iter().product::<usize>() * (1 + usize::from(value.dtype().is_complex()));
            let like = Value::zeros(value.dtype(), shape).expect("a value");
            from_floats(&like, elements.take(count).collect()).expect("a value")
        };
        let case = |shapes: &&[&[usize]]| GradientCase {
            op: self.op,
            attrs: self.attrs.clone(),
            inputs: (0..)
                .zip(self.inputs.iter().zip(*shapes))
                .map(|(index, (value, shape))| reshaped(value, shape, index))
                .collect(),
            with_respect_to: self.with_respect_to.clone(),
            ..*self
        };
        shapes.iter().map(case).collect()
    }

    /// Whether the op takes the inputs and gives finite numbers for them. Some ops want a rank or sizes of their own, and some
    /// combinations of elements lie outside of a function's domain.
    fn is_defined(&self) -> bool {
        let output = self
            .build()
            .and_then(|(graph, _, output)| Session::new(&graph)?.run::<Value>(&output, ()));
        output.is_ok_and(|output| floats(&output).is_some_and(|elements| elements.iter().all(|x| x.is_finite())))
    }

    /// Builds the op on constants of the inputs, in a graph of its own; the constants and the differentiated output.
    fn build(&self) -> Result<(Graph, Vec<Tensor>, Tensor)> {
        let definition = crate::install().op(self.op)?;
        let graph = Graph::new();
        let inputs: Vec<Tensor> = (0..)
            .zip(&self.inputs)
            .map(|(index, value)| constant_in(&graph, value.clone(), &format!("input_{index}")))
            .collect::<Result<_>>()?;
        let mut builder = OpBuilder::new(self.op).in_graph(&graph);
        for (name, value) in &self.attrs {
            builder = builder.attr(name, value.clone());
        }
        // Several lists share the inputs evenly, as `DynamicStitch`'s do.
        let lists = definition.inputs.iter().filter(|arg| arg.is_list()).count();
        let in_lists = self.inputs.len() + lists - definition.inputs.len();
        let in_list = in_lists / lists.max(1);
        let mut next = inputs.iter();
        for arg in &definition.inputs {
            builder = if arg.is_list() {
                builder.input(next.by_ref().take(in_list).cloned().collect::<Vec<_>>())
            } else {
                builder.input(next.next().expect("as many inputs as arguments"))
            };
        }
        let output = builder.build_all()?.swap_remove(self.output);
        Ok((graph, inputs, output))
    }

    fn differentiated(&self) -> Vec<usize> {
        let differentiable = |index: &usize| {
            let dtype = self.inputs[*index].dtype();
            dtype.is_floating() || dtype.is_complex()
        };
        self.with_respect_to
            .clone()
            .unwrap_or_else(|| (0..self.inputs.len()).filter(differentiable).collect())
    }

    /// Compares symbolic gradients with central differences.
    pub(crate) fn check(&self) {
        let label = format!("gradient of {} {:?}", self.op, self.attrs);
        self.try_check(&label)
            .unwrap_or_else(|error| panic!("{label}: {error}"));
    }

    fn try_check(&self, label: &str) -> Result<()> {
        let (graph, inputs, output) = self.build()?;
        let _default = graph.as_default();
        let session = Session::new(&graph)?;
        let chosen = self.differentiated().into_iter();
        let mut xs: Vec<Differentiated> = chosen
            .map(|index| (inputs[index].clone(), self.inputs[index].clone()))
            .collect();
        let (first, incoming) = weighted_gradients(&session, &output, &xs)?;
        self.compare(&session, &xs, &output, &first, label)?;
        xs.push(incoming);
        for (index, gradient) in first.iter().enumerate() {
            let Some(gradient) = gradient else { continue };
            let label = format!("{label}, again, of gradient {index}");
            match weighted_gradients(&session, gradient, &xs) {
                Ok((second, _)) if self.second_order => self.compare(&session, &xs, gradient, &second, &label)?,
                Ok(_) => panic!("{label}: there is one, against the case's word"),
                Err(error) if self.second_order => return Err(error),
                Err(error) => assert_eq!(error.class(), "NotFound", "{label}: {error}"),
            }
        }
        Ok(())
    }

    /// Compares gradients of the weighted sum of `output` with central differences; one gradient for each of `xs`.
    fn compare(
        &self,
        session: &Session,
        xs: &[Differentiated],
        output: &Tensor,
        gradients: &[Option<Tensor>],
        label: &str,
    ) -> Result<()> {
        let total = |x: &Tensor, value: Value| -> Result<f64> {
            let output: Value = session.run(output, Feeds::new().with(x, value))?;
            let elements = floats(&output).expect("a floating-point output");
            let weights = floats(&weights(&output)?).expect("floating-point weights");
            Ok(elements
                .iter()
                .zip(&weights)
                .map(|(element, weight)| element * weight)
                .sum())
        };
        for ((x, value), gradient) in xs.iter().zip(gradients) {
            let count = floats(value).expect("a floating-point input").len();
            let symbolic = match gradient {
                Some(gradient) => floats(&session.run::<Value>(gradient, ())?).expect("a floating-point gradient"),
                None => vec![0.0; count],
            };
            let label = format!("{label}: with respect to {}", x.name());
            assert_eq!(symbolic.len(), count, "{label}: size");
            for (element, symbolic) in symbolic.into_iter().enumerate() {
                let above = total(x, nudged(value, element, self.step)?)?;
                let below = total(x, nudged(value, element, -self.step)?)?;
                let numeric = (above - below) / (2.0 * self.step);
                let (relative, absolute) = self.tolerance;
                let close = (symbolic - numeric).abs() <= absolute + relative * numeric.abs().max(symbolic.abs());
                assert!(
                    close,
                    "{label}, element {element}: symbolic {symbolic}, numeric {numeric}"
                );
            }
        }
        Ok(())
    }
}

/// The gradients of the sum of an output's elements, each times a weight of its own; and the weights, as the tensor that
/// came in as the output's gradient.
fn weighted_gradients(
    session: &Session,
    output: &Tensor,
    xs: &[Differentiated],
) -> Result<(Vec<Option<Tensor>>, Differentiated)> {
    let weights = weights(&session.run::<Value>(output, ())?)?;
    let incoming = constant_in(session.graph(), weights.clone(), "weights")?;
    let gradients = graph_core::gradients([output], xs.iter().map(|(x, _)| x))?
        .grad_ys([&incoming])
        .build()?;
    Ok((gradients, (incoming, weights)))
}

/// Different weights, so that a gradient in the wrong place shows.
fn weights(like: &Value) -> Result<Value> {
    let count = floats(like).expect("a floating-point output").len();
    from_floats(like, (0..count).map(|index| 0.5 + (index as f64 * 0.7).sin()).collect())
}

fn nudged(value: &Value, element: usize, step: f64) -> Result<Value> {
    let mut elements = floats(value).expect("a floating-point input");
    elements[element] += step;
    from_floats(value, elements)
}

/// The opposite of [`floats`]: a value like another with these elements.
fn from_floats(like: &Value, elements: Vec<f64>) -> Result<Value> {
    let shape = like.shape().clone();
    match like.dtype() {
        DType::Complex64 => {
            let pairs = elements.chunks(2);
            let numbers = pairs.map(|pair| graph_core::Complex::new(pair[0] as f32, pair[1] as f32));
            Value::from_vec(shape, numbers.collect::<Vec<_>>())
        }
        DType::Complex128 => {
            let numbers = elements
                .chunks(2)
                .map(|pair| graph_core::Complex::new(pair[0], pair[1]));
            Value::from_vec(shape, numbers.collect::<Vec<_>>())
        }
        dtype => Value::from_vec(shape, elements)?.cast_exactly(dtype),
    }
}

/// Every family's gradient cases.
pub(super) fn all_gradient_cases() -> Vec<GradientCase> {
    [
        crate::array::GRADIENT_CASES,
        crate::control::GRADIENT_CASES,
        #[cfg(feature = "full")]
        crate::image::GRADIENT_CASES,
        crate::io::GRADIENT_CASES,
        #[cfg(feature = "full")]
        crate::linalg::GRADIENT_CASES,
        crate::math::GRADIENT_CASES,
        #[cfg(feature = "full")]
        crate::math::MORE_GRADIENT_CASES,
        crate::nn::GRADIENT_CASES,
        #[cfg(feature = "full")]
        crate::nn::MORE_GRADIENT_CASES,
        crate::random::GRADIENT_CASES,
        crate::summary::GRADIENT_CASES,
    ]
    .concat()
    .into_iter()
    .flat_map(|cases| cases())
    .collect()
}

/// Whether gradients can be compared with differences: they flow through data, the op takes and gives floating-point or
/// complex numbers, and the same ones each time, which random ops do not.
pub(super) fn has_slopes(definition: &OpDefinition) -> bool {
    let dtypes = |arg: &ArgDef, kernel: &KernelDefinition| match arg.ty {
        ArgType::Fixed(dtype) => vec![dtype],
        ArgType::Attr(name) | ArgType::List(name) => {
            let served = kernel.types.iter().find(|(attr, _)| *attr == name);
            let allowed = definition.attr_def(name).map(|attr| attr.allowed_types.clone());
            match (served, allowed) {
                (Some((_, served)), _) => served.to_vec(),
                (None, Some(allowed)) if !allowed.is_empty() => allowed,
                _ => vec![DType::Float64],
            }
        }
    };
    let flows = |args: &[ArgDef], kernel: &KernelDefinition| {
        let mut dtypes = args.iter().flat_map(|arg| dtypes(arg, kernel));
        dtypes.any(|dtype| dtype.is_floating() || dtype.is_complex())
    };
    definition.control_flow == ControlFlow::None
        && !definition.stateful
        && !definition.inputs.iter().any(|arg| arg.is_ref)
        && definition
            .kernels
            .iter()
            .any(|kernel| flows(&definition.inputs, kernel) && flows(&definition.outputs, kernel))
}

/// Ops whose gradient function is there to say no.
pub(super) const REFUSE_GRADIENTS: &[&str] = &["PreventGradient"];

#[test]
fn every_gradient_holds() {
    all_hold(&all_gradient_cases(), GradientCase::check);
}

#[test]
fn gradients_hold_for_scalars_for_no_elements_and_for_axes_of_one() {
    let cases: Vec<GradientCase> = all_gradient_cases()
        .iter()
        // TensorFlow broadcasts the first one's operands, but not their gradients; full matrices of the second one have no
        // gradient unless the matrix is nearly square.
        .filter(|case| !["SoftmaxCrossEntropyWithLogits", "Svd"].contains(&case.op))
        .flat_map(GradientCase::odd_shapes)
        .filter(GradientCase::is_defined)
        .collect();
    let ops: HashSet<&str> = cases.iter().map(|case| case.op).collect();
    assert!(ops.len() > 80, "{} ops take odd shapes", ops.len());
    all_hold(&cases, GradientCase::check);
}
