//! The gradient of a fused batch normalization's gradient: the gradient's formula written out in ordinary ops, and
//! differentiated again.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::{DType, Result};

use crate::math::nodes::Nodes;

/// The gradients of `FusedBatchNormGrad`'s incoming gradient, images and scale.
pub(super) fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let inputs = [context.input(0), context.input(1), context.input(2)];
    let outputs = if context.attr("is_training")? {
        in_training(context, &nodes, &inputs)?
    } else {
        with_given_moments(context, &nodes, &inputs)?
    };
    let incoming = [context.gradient(0)?, context.gradient(1)?, context.gradient(2)?];
    let mut gradients = graph_core::gradients(&outputs, &inputs)?.grad_ys(incoming).build()?;
    gradients.resize(context.op().inputs().len(), None);
    Ok(gradients)
}

/// How vectors of one element a channel stand beside images.
struct Layout<'a> {
    nodes: &'a Nodes<'a>,
    /// The axes of an image batch other than the channels.
    axes: [i32; 3],
    channels_first: bool,
}

impl<'a> Layout<'a> {
    fn of(context: &GradientContext<'_>, nodes: &'a Nodes<'a>) -> Result<Self> {
        let channels_first = context.attr::<String>("data_format")? == "NCHW";
        let axes = if channels_first { [0, 2, 3] } else { [0, 1, 2] };
        Ok(Self {
            nodes,
            axes,
            channels_first,
        })
    }

    /// A vector in the shape that broadcasts along the channels.
    fn spread(&self, vector: &Tensor) -> Result<Tensor> {
        match self.channels_first {
            true => self.nodes.reshape(vector, [1i32, -1, 1, 1]),
            false => Ok(vector.clone()),
        }
    }

    fn reduce(&self, op: &str, images: &Tensor, keep_dims: bool) -> Result<Tensor> {
        self.nodes.reduce(op, images, Some(self.axes.into_operand()), keep_dims)
    }

    /// The mean of each channel, in the shape that broadcasts along the channels.
    fn mean(&self, images: &Tensor) -> Result<Tensor> {
        self.reduce("Mean", images, self.channels_first)
    }

    /// The sum of each channel, as a vector.
    fn sum(&self, images: &Tensor) -> Result<Tensor> {
        self.reduce("Sum", images, false)
    }
}

fn rsqrt_with_epsilon(context: &GradientContext<'_>, nodes: &Nodes<'_>, variance: &Tensor) -> Result<Tensor> {
    let epsilon = nodes.scalar(context.attr::<f32>("epsilon")?, DType::Float32, "epsilon")?;
    nodes.unary("Rsqrt", &nodes.add(variance, &epsilon)?)
}

/// With r = 1 / sqrt(variance + epsilon) and c = x - mean(x): to x, scale r ((g - mean(g)) - r^2 mean(g c) c); to the scale,
/// sum(g c r); to the offset, sum(g).
fn in_training(context: &GradientContext<'_>, nodes: &Nodes<'_>, inputs: &[Tensor; 3]) -> Result<[Tensor; 3]> {
    let layout = Layout::of(context, nodes)?;
    let dtype = inputs[1].dtype();
    let (g, x) = (
        nodes.cast(&inputs[0], DType::Float32)?,
        nodes.cast(&inputs[1], DType::Float32)?,
    );
    let scale = layout.spread(&inputs[2])?;
    let centred = nodes.sub(&x, layout.mean(&x)?)?;
    let variance = layout.mean(&nodes.unary("Square", &centred)?)?;
    let r = rsqrt_with_epsilon(context, nodes, &variance)?;
    let product = nodes.mul(&g, &centred)?;
    let slope = nodes.mul(nodes.unary("Square", &r)?, layout.mean(&product)?)?;
    let to_x = nodes.sub(&nodes.sub(&g, layout.mean(&g)?)?, &nodes.mul(&slope, &centred)?)?;
    let to_x = nodes.mul(&nodes.mul(&scale, &r)?, &to_x)?;
    let to_scale = layout.sum(&nodes.mul(&product, &r)?)?;
    Ok([nodes.cast(&to_x, dtype)?, to_scale, layout.sum(&g)?])
}

/// As above, with a mean and a variance that do not depend on x: to x, g scale r.
fn with_given_moments(context: &GradientContext<'_>, nodes: &Nodes<'_>, inputs: &[Tensor; 3]) -> Result<[Tensor; 3]> {
    let layout = Layout::of(context, nodes)?;
    let dtype = inputs[1].dtype();
    let (g, x) = (
        nodes.cast(&inputs[0], DType::Float32)?,
        nodes.cast(&inputs[1], DType::Float32)?,
    );
    let scale = layout.spread(&inputs[2])?;
    let (mean, variance) = (layout.spread(&context.input(3))?, layout.spread(&context.input(4))?);
    let r = rsqrt_with_epsilon(context, nodes, &variance)?;
    let to_x = nodes.mul(&g, &nodes.mul(&scale, &r)?)?;
    let normal = nodes.mul(&nodes.sub(&x, &mean)?, &r)?;
    let to_scale = layout.sum(&nodes.mul(&g, &normal)?)?;
    Ok([nodes.cast(&to_x, dtype)?, to_scale, layout.sum(&g)?])
}
