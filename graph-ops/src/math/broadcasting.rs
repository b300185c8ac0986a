//! Gradients of broadcast operands: `BroadcastGradientArgs`, and the sums that undo a broadcast.

use graph_core::gradients::GradientContext;
use graph_core::graph::Tensor;
use graph_core::op::{KernelDefinition, OpDefinition};
use graph_core::{DType, Error, IntoOperand, PartialShape, Result, Shape, Value};

use super::nodes::Nodes;

/// `BroadcastGradientArgs`
pub(crate) fn broadcast_gradient_args() -> OpDefinition {
    let mut kernel = KernelDefinition::direct(|context| {
        let shapes = [context.input_value(0)?, context.input_value(1)?];
        let (a, b) = (shapes[0].to_i64_vec()?, shapes[1].to_i64_vec()?);
        let (a_axes, b_axes) = reduction_axes(&a, &b)
            .ok_or_else(|| Error::invalid_argument(format!("incompatible shapes: {} vs. {}", shapes[0], shapes[1])))?;
        for (index, axes) in [a_axes, b_axes].into_iter().enumerate() {
            let value = match shapes[0].dtype() {
                DType::Int64 => Value::from(axes.iter().map(|&axis| axis as i64).collect::<Vec<_>>()),
                _ => Value::int32_vector(axes.into_iter().map(|axis| axis as i32)),
            };
            context.set_output(index, value);
        }
        Ok(())
    })
    .data_dependent();
    kernel.host_inputs = vec![0, 1];
    kernel.host_outputs = vec![0, 1];
    OpDefinition::new(
        "BroadcastGradientArgs",
        "The axes along which two tensors of these shapes are repeated when they are broadcast together, and along which \
         their gradients must be summed therefore.",
    )
    .input("s0: T")
    .input("s1: T")
    .output("r0: T")
    .output("r1: T")
    .attr("T: {int32, int64} = DT_INT32")
    .may_fail()
    .shape(|context| {
        context.with_rank(0, 1)?;
        context.with_rank(1, 1)?;
        context.set_output(0, PartialShape::unknown_of_rank(1));
        context.set_output(1, PartialShape::unknown_of_rank(1));
        Ok(())
    })
    .not_differentiable()
    .kernel(kernel)
}

/// For each shape the axes of the common shape along which it has length one or none; an axis where both have length one
/// counts for both. None at all where the shapes are the same.
fn reduction_axes(a: &[i64], b: &[i64]) -> Option<(Vec<usize>, Vec<usize>)> {
    let (mut a_axes, mut b_axes) = (Vec::new(), Vec::new());
    if a == b {
        return Some((a_axes, b_axes));
    }
    let rank = a.len().max(b.len());
    let dim = |shape: &[i64], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    for axis in 0..rank {
        let (a, b) = (dim(a, axis), dim(b, axis));
        if a != b && a != 1 && b != 1 {
            return None;
        }
        if a == 1 {
            a_axes.push(axis);
        }
        if b == 1 {
            b_axes.push(axis);
        }
    }
    Some((a_axes, b_axes))
}

/// One of two operands that an op broadcast together.
enum Side {
    /// Its shape, and the axes along which it was repeated, as tensors.
    Dynamic { shape: Tensor, axes: Tensor },
    /// The same, known; and whether anything must be summed at all.
    Static {
        shape: Shape,
        axes: Vec<usize>,
        reduce: bool,
    },
}

/// How the operands of an op were broadcast together: what it takes to give their gradients their own shapes again.
pub(crate) struct Broadcast<'c, 'a> {
    nodes: &'c Nodes<'a>,
    sides: [Side; 2],
}

impl<'c, 'a> Broadcast<'c, 'a> {
    /// By nodes, which are `Shape`, `Shape_1` (constants where a shape is known) and `BroadcastGradientArgs`.
    pub(crate) fn by_nodes(nodes: &'c Nodes<'a>, x: &Tensor, y: &Tensor) -> Result<Self> {
        let shapes = [nodes.shape(x)?, nodes.shape(y)?];
        Self::of_shapes(nodes, shapes)
    }

    /// Of operands whose shapes are these tensors.
    pub(crate) fn of_shapes(nodes: &'c Nodes<'a>, [x, y]: [Tensor; 2]) -> Result<Self> {
        let axes = nodes.node("BroadcastGradientArgs").input(&x).input(&y).build_all()?;
        let sides = [(x, axes[0].clone()), (y, axes[1].clone())].map(|(shape, axes)| Side::Dynamic { shape, axes });
        Ok(Self { nodes, sides })
    }

    /// By what is known when the graph is built, or by nodes where the shapes are not known. As in TensorFlow, the first
    /// gradient of a graph for a pair of known shapes leaves a `BroadcastGradientArgs` that nothing uses.
    pub(crate) fn by_shapes(nodes: &'c Nodes<'a>, x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Self> {
        let (Some(x_shape), Some(y_shape)) = (x.shape().to_shape(), y.shape().to_shape()) else {
            let shapes = [nodes.unary("Shape", x)?, nodes.unary("Shape", y)?];
            return Self::of_shapes(nodes, shapes);
        };
        let vector = |shape: &Shape| Value::int32_vector(shape.iter().map(|&dim| dim as i32));
        if nodes
            .graph()
            .first_time(format!("BroadcastGradientArgs {x_shape} {y_shape}"))
        {
            nodes
                .node("BroadcastGradientArgs")
                .input(vector(&x_shape))
                .input(vector(&y_shape))
                .build_all()?;
        }
        let dims = |shape: &Shape| shape.iter().map(|&dim| dim as i64).collect::<Vec<_>>();
        let (x_axes, y_axes) = reduction_axes(&dims(&x_shape), &dims(&y_shape))
            .ok_or_else(|| Error::internal(format!("shapes {x_shape} and {y_shape} do not broadcast")))?;
        let known = gradient.shape().to_shape();
        let side = |shape: Shape, axes| Side::Static {
            reduce: known.as_ref() != Some(&shape),
            shape,
            axes,
        };
        Ok(Self {
            nodes,
            sides: [side(x_shape, x_axes), side(y_shape, y_axes)],
        })
    }

    /// The gradient of the first operand, from that of its broadcast form.
    pub(crate) fn first(&self, gradient: &Tensor) -> Result<Tensor> {
        self.reduced(&self.sides[0], gradient)
    }

    /// The gradient of the second operand, from that of its broadcast form.
    pub(crate) fn second(&self, gradient: &Tensor) -> Result<Tensor> {
        self.reduced(&self.sides[1], gradient)
    }

    fn reduced(&self, side: &Side, gradient: &Tensor) -> Result<Tensor> {
        match side {
            Side::Static { reduce: false, .. } => Ok(gradient.clone()),
            Side::Static { shape, axes, .. } => {
                let axes = Value::int32_vector(axes.iter().map(|&axis| axis as i32));
                let sum = self.nodes.reduce("Sum", gradient, Some(axes.into_operand()), false)?;
                self.nodes
                    .reshape(&sum, Value::int32_vector(shape.iter().map(|&dim| dim as i32)))
            }
            Side::Dynamic { shape, axes } => {
                let sum = self.nodes.reduce("Sum", gradient, Some(axes.into_operand()), false)?;
                self.nodes.reshape(&sum, shape)
            }
        }
    }
}

/// Whether `x`, `y` and the gradient are known to have one shape, so that nothing was broadcast.
pub(crate) fn same_known_shape(x: &Tensor, y: &Tensor, gradient: &Tensor) -> bool {
    let shape = x.shape();
    shape.is_fully_defined() && shape == y.shape() && shape == gradient.shape()
}

/// Both operands' gradients of an op, from functions that make those of their broadcast forms; by nodes.
pub(crate) fn unbroadcast(
    context: &GradientContext<'_>,
    first: impl FnOnce(&Nodes<'_>) -> Result<Tensor>,
    second: impl FnOnce(&Nodes<'_>) -> Result<Tensor>,
) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let broadcast = Broadcast::by_nodes(&nodes, &context.input(0), &context.input(1))?;
    let first = broadcast.first(&first(&nodes)?)?;
    let second = broadcast.second(&second(&nodes)?)?;
    Ok(vec![Some(first), Some(second)])
}

/// Which element (or, for batches, which part) of an operand of shape `own` each one of the broadcast shape takes.
pub(crate) fn broadcast_positions(shape: &[usize], own: &[usize]) -> Vec<usize> {
    let strides = Shape::new(own).strides();
    let missing = shape.len() - own.len();
    let count = shape.iter().product();
    (0..count)
        .map(|mut at: usize| {
            let mut index = 0;
            for axis in (0..shape.len()).rev() {
                let position = at % shape[axis];
                at /= shape[axis];
                if axis >= missing && own[axis - missing] != 1 {
                    index += position * strides[axis - missing];
                }
            }
            index
        })
        .collect()
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let vector = |elements: &[i32]| Value::int32_vector(elements.iter().copied());
    let case = |a: &[i32], b: &[i32], r0: &[i32], r1: &[i32]| {
        Case::new("BroadcastGradientArgs")
            .input(vector(a))
            .input(vector(b))
            .expect(vector(r0))
            .expect(vector(r1))
    };
    vec![
        case(&[2, 1, 3], &[3], &[1], &[0, 1]),
        case(&[1, 1], &[1], &[0, 1], &[0, 1]),
        case(&[1, 3], &[0, 1], &[0], &[1]),
        case(&[], &[1], &[0], &[0]),
        case(&[], &[], &[], &[]),
        case(&[2, 3], &[2, 3], &[], &[]),
        Case::new("BroadcastGradientArgs")
            .input(Value::from(vec![2i64]))
            .input(Value::from(Vec::<i64>::new()))
            .expect(Value::from(Vec::<i64>::new()))
            .expect(Value::from(vec![0i64])),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn shapes_that_do_not_broadcast_are_refused() {
        let error = Case::new("BroadcastGradientArgs")
            .input([2i32, 3])
            .input([4i32])
            .run()
            .unwrap_err();
        assert_eq!(error.class(), "InvalidArgument");
    }
}
