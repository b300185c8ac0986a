//! `BiasAdd`, its gradient and its older form: a vector added to the channels.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, typed_builder};
use half::{bf16, f16};

use super::windows::Format;
use crate::cpu::bias::add_channels;
use crate::cpu::reduce::{IntSum, Reduction, Sum, reduce};
use crate::cuda::channels::{ChannelSums, Sides};
use crate::cuda::{self, NOWHERE, NUMBERS};
use crate::math::nodes::Nodes;

/// `BiasAdd`
pub(super) fn bias_add_definition() -> OpDefinition {
    let definition = OpDefinition::new("BiasAdd", "value + bias, with the vector bias along the channels.")
        .input("value: T")
        .input("bias: T")
        .output("output: T")
        .attr("T: numbertype")
        .attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'")
        .shape(|context| {
            let format = Format::of(context)?;
            shape(context, format)
        })
        .gradient(gradient);
    add_kernels(definition)
}

/// `BiasAddV1`
pub(super) fn bias_add_v1_definition() -> OpDefinition {
    let definition = OpDefinition::new("BiasAddV1", "value + bias, with the vector bias along the last axis.")
        .input("value: T")
        .input("bias: T")
        .output("output: T")
        .attr("T: numbertype")
        .shape(|context| shape(context, Format::Nhwc))
        .gradient(gradient_v1);
    add_kernels(definition)
}

/// `BiasAddGrad`
pub(super) fn bias_add_grad_definition() -> OpDefinition {
    let definition = OpDefinition::new("BiasAddGrad", "The sum over all axes but the channels.")
        .input("out_backprop: T")
        .output("output: T")
        .attr("T: numbertype")
        .attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'")
        .shape(grad_shape)
        .gradient(grad_gradient);
    macro_rules! sums {
        ($definition:expr, $($reduction:ident<$dtype:ty>),*) => {
            $definition$(.kernel(KernelDefinition::cpu(|request| sum(request, $reduction::<$dtype>::new())).types("T", &[<$dtype>::DTYPE])))*
        };
    }
    sums!(
        definition,
        Sum<f32>,
        Sum<f64>,
        Sum<f16>,
        Sum<bf16>,
        IntSum<i32>,
        IntSum<i64>
    )
    .kernel(KernelDefinition::cuda(sum_on_device).types("T", NUMBERS))
}

fn shape(context: &mut InferenceContext<'_>, format: Format) -> Result<()> {
    let least = if format == Format::Nhwc { 2 } else { 3 };
    let (value, bias) = (context.with_rank_at_least(0, least)?, context.with_rank(1, 1)?);
    let Some(dims) = value.dims() else {
        context.set_output(0, PartialShape::unknown());
        return Ok(());
    };
    let axis = format.channels(dims.len());
    let mut dims = dims.to_vec();
    dims[axis] = context.merge_dims(dims[axis], bias.dim(0), "the channels and the length of the bias")?;
    context.set_output(0, dims);
    Ok(())
}

fn grad_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let format = Format::of(context)?;
    let least = if format == Format::Nhwc { 2 } else { 3 };
    let value = context.with_rank_at_least(0, least)?;
    let channels = value.rank().and_then(|rank| value.dim(format.channels(rank)));
    context.set_output(0, [channels]);
    Ok(())
}

/// A number that can be added, integers with wrapping.
trait Plus: Element + Default {
    fn plus(self, other: Self) -> Self;
}

macro_rules! plus {
    ($($dtype:ty => |$a:ident, $b:ident| $sum:expr;)*) => {$(
        impl Plus for $dtype {
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                let ($a, $b) = (self, other);
                $sum
            }
        }
    )*};
}

plus! {
    f32 => |a, b| a + b;
    f64 => |a, b| a + b;
    f16 => |a, b| f16::from_f32(a.to_f32() + b.to_f32());
    bf16 => |a, b| bf16::from_f32(a.to_f32() + b.to_f32());
    i8 => |a, b| a.wrapping_add(b);
    i16 => |a, b| a.wrapping_add(b);
    i32 => |a, b| a.wrapping_add(b);
    i64 => |a, b| a.wrapping_add(b);
    u8 => |a, b| a.wrapping_add(b);
    u16 => |a, b| a.wrapping_add(b);
}

fn add_kernels(definition: OpDefinition) -> OpDefinition {
    macro_rules! kernels {
        ($($dtype:ty),*) => {
            [$(KernelDefinition::cpu(add::<$dtype>).types("T", &[<$dtype>::DTYPE]).in_place(0, 0)),*]
        };
    }
    kernels!(f32, f64, f16, bf16, i8, i16, i32, i64, u8, u16)
        .into_iter()
        .fold(definition, OpDefinition::kernel)
        .kernel(KernelDefinition::cuda(add_on_device).types("T", NUMBERS).in_place(0, 0))
}

/// Where the channels of input 0 are; the bias is checked to have one element each.
fn sides(request: &KernelRequest<'_>) -> Result<Sides> {
    let format = match request.attrs.get("data_format") {
        Some(_) => Format::of(request)?,
        None => Format::Nhwc,
    };
    let shape = request.input_shape(0);
    let sides = Sides::of(shape, format.channels(shape.rank()));
    let bias = request.input_shape(1);
    if bias.dims() != [sides.channels] {
        return Err(Error::invalid_argument("the bias must have one element a channel")
            .expected(format!("[{}]", sides.channels))
            .got(bias));
    }
    Ok(sides)
}

fn add_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let kernel = cuda::channels::BiasAdd::new(request, request.input_dtype(0), sides(request)?)?;
    Ok(Planned::new(move |context| {
        let (value, bias) = (context.input_address(0), context.input_address(1));
        // SAFETY: the tensors have the sizes that the kernel was made for.
        unsafe { kernel.run(value, bias, context.output_address(0)) }
    }))
}

fn sum_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.input_shape(0);
    let sides = Sides::of(shape, Format::of(request)?.channels(shape.rank()));
    let kernel = ChannelSums::new(request, [request.input_dtype(0); 2], sides)?;
    let scratch = kernel.scratch();
    let planned = Planned::new(move |context| {
        let (x, out) = (context.input_address(0), context.output_address(0));
        // SAFETY: the tensors have the sizes that the kernel was made for, and it gets the scratch memory it wants.
        unsafe { kernel.run([x, NOWHERE], out, context.scratch_address()) }
    });
    Ok(planned.with_scratch(scratch))
}

fn add<T: Plus>(request: &KernelRequest<'_>) -> Result<Planned> {
    let Sides { inner, .. } = sides(request)?;
    let len = request.input_shape(0).num_elements();
    Ok(Planned::new(move |context| {
        let (value, bias, out) = (
            context.input_ptr::<T>(0)?,
            context.input::<T>(1)?,
            context.output_ptr::<T>(0)?,
        );
        // SAFETY: both pointers are valid for the value's elements, and are the same or do not overlap.
        unsafe { add_channels(value, bias, out, len, inner, T::plus) };
        Ok(())
    }))
}

fn sum<T: Element, R: Reduction<In = T, Out = T> + 'static>(
    request: &KernelRequest<'_>,
    reduction: R,
) -> Result<Planned> {
    let format = Format::of(request)?;
    let shape = request.input_shape(0);
    let axis = format.channels(shape.rank());
    let sides = [
        shape[..axis].iter().product(),
        shape[axis],
        shape[axis + 1..].iter().product(),
    ];
    Ok(Planned::new(move |context| {
        reduce(
            reduction,
            context.input(0)?,
            &sides,
            &[true, false, true],
            context.output(0)?,
        );
        Ok(())
    }))
}

fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = context.gradient(0)?;
    let bias = context
        .node("BiasAddGrad")
        .input(&gradient)
        .attr("data_format", context.attr_value("data_format")?)
        .build()?;
    Ok(vec![Some(gradient), Some(bias)])
}

fn gradient_v1(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let gradient = context.gradient(0)?;
    let rank = nodes.rank(&gradient)?;
    let last = nodes.sub(&rank, 1i32)?;
    let axes = nodes.range(0, &last)?;
    let bias = nodes.reduce("Sum", &gradient, Some(axes.into_operand()), false)?;
    Ok(vec![Some(gradient), Some(bias)])
}

/// The incoming gradient of the bias, repeated along all other axes.
fn grad_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (input, gradient) = (context.input(0), context.gradient(0)?);
    let shape = nodes.shape(&input)?;
    let bias_shape = nodes.shape(&gradient)?;
    let one = || Operand::Array([1i32].into());
    let (before, after) = match context.attr::<String>("data_format")?.as_str() {
        "NCHW" => (1, Some(2)),
        _ => (-1, None),
    };
    let outer = nodes.slice(&shape, None, Some(before))?;
    let mut expanded = vec![
        nodes.ones_like(&outer, DType::Int32)?.into_operand(),
        bias_shape.into_operand(),
    ];
    if let Some(after) = after {
        let inner = nodes.slice(&shape, Some(after), None)?;
        expanded.push(nodes.ones_like(&inner, DType::Int32)?.into_operand());
    }
    let expanded = nodes.concat(expanded)?;
    let outer = nodes.slice(&shape, None, Some(before))?;
    let mut multiples = vec![outer.into_operand(), one()];
    if let Some(after) = after {
        multiples.push(nodes.slice(&shape, Some(after), None)?.into_operand());
    }
    let multiples = nodes.concat(multiples)?;
    let gradient = nodes.reshape(&gradient, &expanded)?;
    Ok(vec![Some(nodes.tile(&gradient, &multiples)?)])
}

typed_builder! {
    /// A sum with a bias about to be made; see [`bias_add`].
    pub struct BiasAdd;
}

impl BiasAdd {
    /// The order of the axes: `"NHWC"` (without this) or another that ends in `C` for channels in the last axis, `"NCHW"` or
    /// another that begins with `NC` for channels in the second.
    pub fn data_format(self, format: &str) -> Self {
        let format = match format {
            _ if format.starts_with("NC") => "NCHW",
            _ if format.starts_with('N') && format.ends_with('C') => "NHWC",
            other => other,
        };
        Self(self.0.attr("data_format", format))
    }
}

/// Adds the vector `bias` to the channels of `value`, of any numeric dtype: `value` of shape [..., channels] and `bias` of
/// shape [channels] give a tensor of `value`'s shape.
///
/// ```
/// use graph_ops::array::constant;
/// let sum = graph_ops::nn::bias_add(constant([[1.0f32, 2.0]]), constant([10.0f32, 20.0])).build()?;
/// assert_eq!(sum.shape(), [1, 2].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn bias_add(value: impl IntoOperand, bias: impl IntoOperand) -> BiasAdd {
    BiasAdd(crate::op("BiasAdd").input(value).input(bias))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let mut cases = vec![
        Case::new("BiasAdd")
            .input([[1.0f64, 2.0, 3.0], [4.0, 5.0, 6.0]])
            .input([0.5f64, -1.0, 2.0])
            .expect([[1.5f64, 1.0, 5.0], [4.5, 4.0, 8.0]]),
        Case::new("BiasAdd")
            .attr("data_format", "NCHW")
            .input([[[1.0f32, 2.0], [3.0, 4.0]]])
            .input([10.0f32, 20.0])
            .expect([[[11.0f32, 12.0], [23.0, 24.0]]]),
        Case::new("BiasAddV1")
            .input([[1i32, 2], [i32::MAX, 4]])
            .input([1i32, -2])
            .expect([[2i32, 0], [i32::MIN, 2]]),
        Case::new("BiasAdd")
            .input(Value::zeros(DType::Float32, [0, 3]).expect("a value"))
            .input([1.0f32, 2.0, 3.0])
            .expect(Value::zeros(DType::Float32, [0, 3]).expect("a value")),
        Case::new("BiasAddGrad")
            .input([[[1.0f32, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
            .expect([16.0f32, 20.0]),
        Case::new("BiasAddGrad")
            .attr("data_format", "NCHW")
            .input([[[1.0f64, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
            .expect([14.0f64, 22.0]),
        Case::new("BiasAddGrad")
            .input(Value::zeros(DType::Float32, [0, 2]).expect("a value"))
            .expect([0.0f32, 0.0]),
    ];
    for dtype in [
        DType::Half,
        DType::BFloat16,
        DType::Int8,
        DType::Int64,
        DType::UInt8,
        DType::UInt16,
        DType::Int16,
    ] {
        let cast = |value: Value| value.cast_exactly(dtype).expect("small numbers");
        cases.push(
            Case::new("BiasAdd")
                .input(cast([[1i32, 2], [3, 4]].into()))
                .input(cast([10i32, 20].into()))
                .expect(cast([[11i32, 22], [13, 24]].into())),
        );
    }
    for dtype in [DType::Half, DType::BFloat16, DType::Int32, DType::Int64] {
        let cast = |value: Value| value.cast_exactly(dtype).expect("small numbers");
        cases.push(
            Case::new("BiasAddGrad")
                .input(cast([[1i32, 2], [3, 4]].into()))
                .expect(cast([4i32, 6].into())),
        );
    }
    cases
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let value = [[[1.0f64, -2.0], [0.5, 3.0]]];
    vec![
        GradientCase::new("BiasAdd").input(value).input([0.5f64, 2.0]),
        GradientCase::new("BiasAdd")
            .attr("data_format", "NCHW")
            .input(value)
            .input([0.5f64, 2.0]),
        GradientCase::new("BiasAddV1").input(value).input([0.5f64, 2.0]),
        GradientCase::new("BiasAddGrad").input(value),
        GradientCase::new("BiasAddGrad")
            .attr("data_format", "NCHW")
            .input(value),
    ]
}
