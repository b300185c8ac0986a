//! `Reshape`, `ExpandDims` and `Squeeze`: the same elements in another shape.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelDefinition, OpDefinition};
use graph_core::{Dim, Error, PartialShape, Result, typed_builder};

use crate::array::axis::{axis_of, known_scalar, with_dim};
use crate::array::shape_of::shape_of;

/// `Reshape`
pub(crate) fn reshape_definition() -> OpDefinition {
    OpDefinition::new(
        "Reshape",
        "The same elements in another shape; one dimension may be -1, for what is left.",
    )
    .input("tensor: T")
    .input("shape: Tshape")
    .output("output: T")
    .attr("T: type")
    .attr("Tshape: {int32, int64} = DT_INT32")
    .plan_time_inputs(&[1])
    .shape(reshaped)
    .gradient(back_to_the_input)
    .kernel(KernelDefinition::alias())
}

fn reshaped(context: &mut InferenceContext<'_>) -> Result<()> {
    if let Some(value) = context.int_values(1)?
        && let Some(&bad) = value.iter().find(|&&dim| dim < -1)
    {
        return Err(Error::invalid_argument("a dimension must be -1 or more").got(bad));
    }
    let (input, mut shape) = (context.input(0).clone(), context.shape_from_input(1)?);
    let (Some(from), Some(to)) = (input.dims(), shape.dims().map(<[Dim]>::to_vec)) else {
        context.set_output(0, shape);
        return Ok(());
    };
    let (elements, unknown_from) = known_product(from)?;
    let (wanted, unknown_to) = known_product(&to)?;
    let misfit = || {
        Error::invalid_argument(format!("cannot reshape a tensor of shape {input} into shape {shape}"))
            .expected(format!("{elements} elements"))
            .got(format!("{wanted} elements"))
    };
    match (unknown_from.len(), unknown_to.as_slice()) {
        (0, []) if elements != wanted => return Err(misfit()),
        (0, &[axis]) if wanted > 0 => {
            if elements % wanted != 0 {
                return Err(misfit()
                    .expected(format!("a multiple of {wanted} elements"))
                    .got(elements));
            }
            shape = with_dim(&shape, axis, Some(elements / wanted));
        }
        // What multiplies with nothing to nothing is not determined; TensorFlow takes 0.
        (0, &[axis]) if elements == 0 && context.value(1).is_some() => {
            shape = with_dim(&shape, axis, Some(0));
        }
        (0, &[_]) if context.value(1).is_some() => return Err(misfit()),
        (0, [_, _, ..]) if context.value(1).is_some() => {
            return Err(Error::invalid_argument("only one dimension of the shape may be -1").got(&shape));
        }
        (1, []) if elements > 0 && wanted % elements != 0 => return Err(misfit()),
        _ => {}
    }
    context.set_output(0, shape);
    Ok(())
}

/// The product of the dimensions that are known, and where the others are.
fn known_product(dims: &[Dim]) -> Result<(usize, Vec<usize>)> {
    let product = dims
        .iter()
        .flatten()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim));
    let product = product.ok_or_else(|| Error::invalid_argument("the shape has too many elements"))?;
    let unknown = dims.iter().enumerate().filter(|(_, dim)| dim.is_none());
    Ok((product, unknown.map(|(axis, _)| axis).collect()))
}

/// The gradient of every op that only changes the shape: the gradient in the input's shape.
pub(crate) fn back_to_the_input(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let shape = shape_of(&context.input(0), "Shape")?;
    let gradient = context
        .node("Reshape")
        .input(context.gradient(0)?)
        .input(shape)
        .build()?;
    let mut gradients = vec![None; context.op().inputs().len()];
    gradients[0] = Some(gradient);
    Ok(gradients)
}

/// `ExpandDims`
pub(crate) fn expand_dims_definition() -> OpDefinition {
    OpDefinition::new("ExpandDims", "The same elements with a dimension of size 1 put in.")
        .input("input: T")
        .input("dim: Tdim")
        .output("output: T")
        .attr("T: type")
        .attr("Tdim: {int32, int64} = DT_INT32")
        .plan_time_inputs(&[1])
        .shape(expanded)
        .gradient(back_to_the_input)
        .kernel(KernelDefinition::alias())
}

fn expanded(context: &mut InferenceContext<'_>) -> Result<()> {
    let axis = known_scalar(context, 1)?;
    let input = context.input(0).clone();
    let Some(dims) = input.dims() else { return Ok(()) };
    let shape = match axis {
        Some(axis) => {
            let axis = axis_of(axis, dims.len() + 1)?;
            let (before, behind) = dims.split_at(axis);
            PartialShape::from_dims(before.iter().copied().chain([Some(1)]).chain(behind.iter().copied()))
        }
        None => PartialShape::unknown_of_rank(dims.len() + 1),
    };
    context.set_output(0, shape);
    Ok(())
}

/// `Squeeze`
pub(crate) fn squeeze_definition() -> OpDefinition {
    OpDefinition::new(
        "Squeeze",
        "The same elements without dimensions of size 1: those named, or all.",
    )
    .input("input: T")
    .output("output: T")
    .attr("T: type")
    .attr("squeeze_dims: list(int) >= 0 = []")
    .shape(squeezed)
    .gradient(back_to_the_input)
    .kernel(KernelDefinition::alias())
}

fn squeezed(context: &mut InferenceContext<'_>) -> Result<()> {
    let input = context.input(0).clone();
    let named: Vec<i64> = context.attr("squeeze_dims")?;
    let Some(dims) = input.dims() else { return Ok(()) };
    if named.is_empty() {
        // Whether an unknown dimension goes is unknown, and with it the rank.
        if dims.iter().all(Option::is_some) {
            context.set_output(
                0,
                PartialShape::from_dims(dims.iter().copied().filter(|&dim| dim != Some(1))),
            );
        }
        return Ok(());
    }
    let axes = named
        .iter()
        .map(|&axis| axis_of(axis, dims.len()))
        .collect::<Result<Vec<_>>>()?;
    if let Some(&axis) = axes.iter().find(|&&axis| dims[axis].is_some_and(|dim| dim != 1)) {
        return Err(Error::invalid_argument(format!("cannot squeeze dimension {axis}"))
            .expected("a dimension of size 1")
            .got(format!("shape {input}")));
    }
    let kept = dims
        .iter()
        .enumerate()
        .filter(|(axis, _)| !axes.contains(axis))
        .map(|(_, &dim)| dim);
    context.set_output(0, PartialShape::from_dims(kept));
    Ok(())
}

/// The elements of `tensor` in the shape `shape`, of which one dimension may be -1, for what is left.
///
/// ```
/// use graph_ops::array::{placeholder, reshape};
/// let rows = placeholder::<f32>([None, Some(784)]).build()?;
/// let images = reshape(&rows, [-1, 28, 28, 1]).build()?;
/// assert_eq!(images.shape().to_string(), "[?,28,28,1]");
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument`, on `build` or in the run, if the numbers of elements differ.
#[track_caller]
pub fn reshape(tensor: impl IntoOperand, shape: impl IntoOperand) -> OpBuilder {
    crate::op("Reshape").input(tensor).input(shape)
}

/// `input` with a dimension of size 1 put in before dimension `axis`; -1 puts it at the end.
///
/// # Errors
/// `InvalidArgument` if there is no such place.
#[track_caller]
pub fn expand_dims(input: impl IntoOperand, axis: impl IntoOperand) -> OpBuilder {
    crate::op("ExpandDims").input(input).input(axis)
}

typed_builder! {
    /// A tensor with fewer dimensions about to be made; see [`squeeze`].
    pub struct Squeeze;
}

impl Squeeze {
    /// Drops only these dimensions, which must be of size 1; negative ones are counted from the end.
    pub fn axis(self, axes: impl AsRef<[i64]>) -> Self {
        Self(self.0.attr("squeeze_dims", axes.as_ref()))
    }
}

/// `input` without its dimensions of size 1.
///
/// # Errors
/// `InvalidArgument` if a dimension named by [`Squeeze::axis`] is not of size 1.
#[track_caller]
pub fn squeeze(input: impl IntoOperand) -> Squeeze {
    Squeeze(crate::op("Squeeze").input(input))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let row = [1.0f32, 2.0, 3.0, 4.0];
    let cube = Value::from(row).reshaped([1, 4, 1]).unwrap();
    let words = Value::from_strings([2], vec![b"a".to_vec(), b"b".to_vec()]).unwrap();
    vec![
        Case::new("Reshape")
            .input(row)
            .input([2i32, -1])
            .expect([[1.0f32, 2.0], [3.0, 4.0]]),
        Case::new("Reshape").input(row).input([-1i64, 4]).expect([row]),
        Case::new("Reshape").input([7u8]).input(Vec::<i32>::new()).expect(7u8),
        Case::new("Reshape")
            .input(Vec::<bool>::new())
            .input([0i32, -1])
            .expect(Value::zeros(graph_core::DType::Bool, [0, 0]).unwrap()),
        Case::new("Reshape")
            .input(&words)
            .input([2i32, 1])
            .expect(words.reshaped([2, 1]).unwrap()),
        Case::new("ExpandDims").input(row).input(0i32).expect([row]),
        Case::new("ExpandDims")
            .input(row)
            .input(-1i64)
            .expect([[1.0f32], [2.0], [3.0], [4.0]]),
        Case::new("Squeeze").input(&cube).expect(row),
        Case::new("Squeeze")
            .attr("squeeze_dims", [-1])
            .input(&cube)
            .expect([row]),
        Case::new("Squeeze")
            .attr("squeeze_dims", [0])
            .input(&cube)
            .expect([[1.0f32], [2.0], [3.0], [4.0]]),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    vec![
        GradientCase::new("Reshape")
            .input([1.0f64, 2.0, 3.0, 4.0])
            .input([2i32, 2]),
        GradientCase::new("ExpandDims").input([1.0f64, 2.0]).input(1i32),
        GradientCase::new("Squeeze").input([[1.0f64, 2.0]]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::placeholder;
    use graph_core::Graph;

    #[test]
    fn shapes_follow_what_is_known() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let shape_after = |from: PartialShape, to: &[i32]| {
            let input = placeholder::<f32>(from).build()?;
            reshape(input, to).build().map(|tensor| tensor.shape().to_string())
        };
        assert_eq!(
            shape_after([None, Some(784)].into(), &[-1, 28, 28, 1]).unwrap(),
            "[?,28,28,1]"
        );
        assert_eq!(shape_after([6, 4].into(), &[3, -1]).unwrap(), "[3,8]");
        assert_eq!(shape_after(PartialShape::unknown(), &[-1, 2]).unwrap(), "[?,2]");
        assert!(shape_after([6, 4].into(), &[5, 5]).is_err());
        assert!(shape_after([6, 4].into(), &[5, -1]).is_err());
        assert!(shape_after([6, 4].into(), &[-1, -1]).is_err());
        assert!(shape_after([6, 4].into(), &[-2, 12]).is_err());
        assert!(shape_after([None, Some(4)].into(), &[3, 3]).is_err());
    }

    #[test]
    fn the_shape_of_another_tensor_is_understood() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let input = placeholder::<f32>([None]).build().unwrap();
        let like = placeholder::<f32>([None, Some(5)]).build().unwrap();
        let tensor = reshape(&input, crate::array::shape(&like)).build().unwrap();
        assert_eq!(tensor.shape().to_string(), "[?,5]");
        let like = placeholder::<f32>(PartialShape::unknown()).build().unwrap();
        let tensor = reshape(&input, crate::array::shape(&like)).build().unwrap();
        assert_eq!(tensor.shape(), PartialShape::unknown());
    }

    #[test]
    fn only_dimensions_of_size_one_are_squeezed() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let input = placeholder::<f32>([Some(1), None, Some(3)]).build().unwrap();
        assert_eq!(squeeze(&input).build().unwrap().shape(), PartialShape::unknown());
        assert_eq!(squeeze(&input).axis([0]).build().unwrap().shape().to_string(), "[?,3]");
        assert!(squeeze(&input).axis([2]).build().is_err());
        assert!(squeeze(&input).axis([3]).build().is_err());
    }
}
