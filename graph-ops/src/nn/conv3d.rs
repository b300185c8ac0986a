//! `Conv3D` and its gradients, which are each other's gradients.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, Shape, typed_builder};

use super::volumes::{Format3d, Sliding3d, narrow, on_device, require_input, widened};
use super::windows::{floating_kernels, with_attrs_of};
use crate::array::shape_of;
use crate::cpu::element::Real;
use crate::cpu::gemm::GemmElement;
use crate::cpu::volume::{self, Volume};
use crate::cuda::launch::Work;

const ATTRS: [&str; 4] = ["strides", "padding", "data_format", "dilations"];

fn with_attrs(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("T: {half, bfloat16, float, double}")
        .attr("strides: list(int) >= 5")
        .attr("padding: {'SAME', 'VALID'}")
        .attr("data_format: {'NDHWC', 'NCDHW'} = 'NDHWC'")
        .attr("dilations: list(int) = [1, 1, 1, 1, 1]")
}

/// `Conv3D`
pub(super) fn forward() -> OpDefinition {
    let definition = OpDefinition::new(
        "Conv3D",
        "out[n,z,y,x,o] = sum over h,i,j,c of input[n, z*stride + h*dilation - before, ..., c] * filter[h,i,j,c,o].",
    )
    .input("input: T")
    .input("filter: T")
    .output("output: T");
    let definition = with_attrs(definition).shape(forward_shape).gradient(forward_gradient);
    floating_kernels!(definition, forward_kernel).kernel(KernelDefinition::cuda(|request| {
        let plan = Plan::new(request, request.input_shape(0), request.input_shape(1))?;
        plan.on_device(request, "conv3d", Work::Elements, &[0, 1])
    }))
}

/// `Conv3DBackpropInputV2`
pub(super) fn backprop_input() -> OpDefinition {
    let definition = OpDefinition::new(
        "Conv3DBackpropInputV2",
        "The gradient of Conv3D with respect to its input; also a transposed convolution.",
    )
    .input("input_sizes: Tshape")
    .input("filter: T")
    .input("out_backprop: T")
    .output("output: T");
    let definition = with_attrs(definition)
        .attr("Tshape: {int32, int64} = DT_INT32")
        .shape(|context| sizes_shape(context, 0))
        .gradient(backprop_input_gradient);
    floating_kernels!(definition, backprop_input_kernel)
        .kernel(KernelDefinition::cuda(backprop_input_on_device).host_input(0))
}

/// `Conv3DBackpropFilterV2`
pub(super) fn backprop_filter() -> OpDefinition {
    let definition = OpDefinition::new(
        "Conv3DBackpropFilterV2",
        "The gradient of Conv3D with respect to its filter.",
    )
    .input("input: T")
    .input("filter_sizes: int32")
    .input("out_backprop: T")
    .output("output: T");
    let definition = with_attrs(definition)
        .shape(|context| sizes_shape(context, 1))
        .gradient(backprop_filter_gradient);
    floating_kernels!(definition, backprop_filter_kernel)
        .kernel(KernelDefinition::cuda(backprop_filter_on_device).host_input(1))
}

/// The first forms of the gradients, which take the tensor whose shape counts, and know one data format.
fn first_form(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("input: T")
        .input("filter: T")
        .input("out_backprop: T")
        .output("output: T")
        .attr("T: {half, float, double}")
        .attr("strides: list(int) >= 5")
        .attr("padding: {'SAME', 'VALID'}")
        .attr("dilations: list(int) = [1, 1, 1, 1, 1]")
        .no_gradient()
}

/// `Conv3DBackpropInput`
pub(super) fn backprop_input_v1() -> OpDefinition {
    let definition = first_form(
        "Conv3DBackpropInput",
        "Conv3DBackpropInputV2 with a tensor in place of its shape.",
    )
    .shape(|context| {
        let shape = context.with_rank(0, 5)?;
        context.set_output(0, shape);
        Ok(())
    });
    [
        KernelDefinition::cpu(backprop_input_kernel::<f32>).types("T", &[DType::Float32]),
        KernelDefinition::cpu(backprop_input_kernel::<f64>).types("T", &[DType::Float64]),
        KernelDefinition::cpu(backprop_input_kernel::<half::f16>).types("T", &[DType::Half]),
        KernelDefinition::cuda(backprop_input_on_device),
    ]
    .into_iter()
    .fold(definition, OpDefinition::kernel)
}

/// `Conv3DBackpropFilter`
pub(super) fn backprop_filter_v1() -> OpDefinition {
    let definition = first_form(
        "Conv3DBackpropFilter",
        "Conv3DBackpropFilterV2 with a tensor in place of its shape.",
    )
    .shape(|context| {
        let shape = context.with_rank(1, 5)?;
        context.set_output(0, shape);
        Ok(())
    });
    [
        KernelDefinition::cpu(backprop_filter_kernel::<f32>).types("T", &[DType::Float32]),
        KernelDefinition::cpu(backprop_filter_kernel::<f64>).types("T", &[DType::Float64]),
        KernelDefinition::cpu(backprop_filter_kernel::<half::f16>).types("T", &[DType::Half]),
        KernelDefinition::cuda(backprop_filter_on_device),
    ]
    .into_iter()
    .fold(definition, OpDefinition::kernel)
}

fn forward_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (volumes, filter) = (context.with_rank(0, 5)?, context.with_rank(1, 5)?);
    let sliding = Sliding3d::of(context, true)?;
    let channels_axis = sliding
        .format
        .of_ours([0, 2, 3, 4, 1])
        .iter()
        .position(|&axis| axis == 1);
    let channels = channels_axis.and_then(|axis| volumes.dim(axis));
    if let (Some(channels), Some(taken)) = (channels, filter.dim(3))
        && channels != taken
    {
        return Err(channels_differ(channels, taken));
    }
    let size = std::array::from_fn(|d| filter.dim(d));
    let shape = sliding.infer(context, 0, size, Some(filter.dim(4)))?;
    context.set_output(0, shape);
    Ok(())
}

fn channels_differ(volumes: usize, filter: usize) -> Error {
    Error::invalid_argument("the volumes and the filter must have the same number of input channels")
        .expected(format!("{volumes}, as the volumes have"))
        .got(format!("{filter} in the filter's fourth axis"))
}

fn sizes_shape(context: &mut InferenceContext<'_>, index: usize) -> Result<()> {
    let shape = context
        .shape_from_input(index)?
        .merge(&PartialShape::unknown_of_rank(5))?;
    context.set_output(0, shape);
    Ok(())
}

/// One convolution as a kernel sees it.
#[derive(Clone, Copy)]
struct Plan {
    format: Format3d,
    volume: Volume,
    volumes: [usize; 5],
    outputs: usize,
}

impl Plan {
    fn new(request: &KernelRequest<'_>, volumes: &Shape, filter: &Shape) -> Result<Self> {
        let sliding = match request.attrs.get("data_format") {
            Some(_) => Sliding3d::of(request, true)?,
            None => Sliding3d::of(&WithFormat(request), true)?,
        };
        let sizes = sliding.format.sizes(volumes)?;
        let [planes, rows, columns, channels, outputs] = Format3d::Ndhwc.sizes(filter)?;
        if sizes[4] != channels {
            return Err(channels_differ(sizes[4], channels));
        }
        Ok(Self {
            format: sliding.format,
            volume: sliding.volume(volumes, [planes, rows, columns])?,
            volumes: sizes,
            outputs,
        })
    }

    /// Of a gradient, whose incoming gradient is input 2.
    fn backwards(request: &KernelRequest<'_>, volumes: &Shape, filter: &Shape) -> Result<Self> {
        let plan = Self::new(request, volumes, filter)?;
        require_input(request, 2, "out_backprop", &plan.format.of_ours(plan.out_shape()))?;
        Ok(plan)
    }

    fn out_shape(&self) -> [usize; 5] {
        self.volume.out_shape(self.outputs)
    }

    fn on_device(
        &self,
        request: &KernelRequest<'_>,
        name: &str,
        work: fn(usize) -> Work,
        inputs: &'static [usize],
    ) -> Result<Planned> {
        let volume = (&self.volume, self.outputs, self.format);
        on_device(request, name, volume, 2 * self.outputs, work, inputs)
    }
}

fn backprop_input_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let plan = Plan::backwards(request, request.output_shape(0)?, request.input_shape(1))?;
    plan.on_device(request, "conv3d_backprop_input", Work::Elements, &[1, 2])
}

fn backprop_filter_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let plan = Plan::backwards(request, request.input_shape(0), request.output_shape(0)?)?;
    plan.on_device(request, "conv3d_backprop_filter", Work::Blocks, &[0, 2])
}

/// The attributes of an op that has no data format.
struct WithFormat<'a, 'b>(&'a KernelRequest<'b>);

impl super::windows::Attrs for WithFormat<'_, '_> {
    fn read<T: graph_core::op::FromAttr>(&self, name: &str) -> Result<T> {
        match (name, T::from_attr(&"NDHWC".into())) {
            ("data_format", Some(format)) => Ok(format),
            _ => self.0.attr(name),
        }
    }
}

fn forward_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: GemmElement,
{
    let plan = Plan::new(request, request.input_shape(0), request.input_shape(1))?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let volumes = plan.format.read(plan.volumes, context.input::<T>(0)?);
        let filter = widened(context.input::<T>(1)?);
        let out = context.output::<T>(0)?;
        let mut wide = vec![T::Wide::default(); out.len()];
        volume::conv3d(&plan.volume, &volumes, &filter, plan.outputs, &mut wide);
        plan.format.write(plan.out_shape(), &wide, out);
        Ok(())
    }))
}

fn backprop_input_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: GemmElement,
{
    let plan = Plan::backwards(request, request.output_shape(0)?, request.input_shape(1))?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let filter = widened(context.input::<T>(1)?);
        let gradient = plan.format.read(plan.out_shape(), context.input::<T>(2)?);
        let out = context.output::<T>(0)?;
        let mut wide = vec![T::Wide::default(); out.len()];
        volume::conv3d_backprop_input(&plan.volume, &gradient, &filter, plan.outputs, &mut wide);
        plan.format.write(plan.volumes, &wide, out);
        Ok(())
    }))
}

fn backprop_filter_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: GemmElement,
{
    let plan = Plan::backwards(request, request.input_shape(0), request.output_shape(0)?)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let volumes = plan.format.read(plan.volumes, context.input::<T>(0)?);
        let gradient = plan.format.read(plan.out_shape(), context.input::<T>(2)?);
        let out = context.output::<T>(0)?;
        let mut wide = vec![T::Wide::default(); out.len()];
        volume::conv3d_backprop_filter(&plan.volume, &volumes, &gradient, plan.outputs, &mut wide);
        narrow(&wide, out);
        Ok(())
    }))
}

fn forward_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (volumes, filter, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let shapes = context.node("ShapeN").input([&volumes, &filter]).build_all()?;
    let to_volumes = with_attrs_of(context, "Conv3DBackpropInputV2", &ATTRS)?
        .input(&shapes[0])
        .input(&filter)
        .input(&gradient)
        .build()?;
    let to_filter = with_attrs_of(context, "Conv3DBackpropFilterV2", &ATTRS)?
        .input(&volumes)
        .input(&shapes[1])
        .input(&gradient)
        .build()?;
    Ok(vec![Some(to_volumes), Some(to_filter)])
}

fn backprop_input_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (filter, out_backprop, gradient) = (context.input(1), context.input(2), context.gradient(0)?);
    let shape = shape_of::shape_of(&filter, "Shape")?;
    let to_filter = with_attrs_of(context, "Conv3DBackpropFilterV2", &ATTRS)?
        .input(&gradient)
        .input(&shape)
        .input(&out_backprop)
        .build()?;
    let to_out = with_attrs_of(context, "Conv3D", &ATTRS)?
        .input(&gradient)
        .input(&filter)
        .build()?;
    Ok(vec![None, Some(to_filter), Some(to_out)])
}

fn backprop_filter_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (volumes, out_backprop, gradient) = (context.input(0), context.input(2), context.gradient(0)?);
    let shape = shape_of::shape_of(&volumes, "Shape")?;
    let to_volumes = with_attrs_of(context, "Conv3DBackpropInputV2", &ATTRS)?
        .input(&shape)
        .input(&gradient)
        .input(&out_backprop)
        .build()?;
    let to_out = with_attrs_of(context, "Conv3D", &ATTRS)?
        .input(&volumes)
        .input(&gradient)
        .build()?;
    Ok(vec![Some(to_volumes), None, Some(to_out)])
}

typed_builder! {
    /// A convolution of volumes about to be made; see [`conv3d`].
    pub struct Conv3d;
}

impl Conv3d {
    /// Voxels from one window to the next, for each axis of the volumes; 1 for the batch and the channels. Required.
    pub fn strides(self, strides: [i64; 5]) -> Self {
        Self(self.0.attr("strides", strides))
    }

    /// `"VALID"`: only windows inside the volumes; `"SAME"`: as many as `ceil(voxels / stride)`. Required.
    pub fn padding(self, padding: &str) -> Self {
        Self(self.0.attr("padding", padding))
    }

    /// The order of the volumes' axes: `"NDHWC"` (without this) or `"NCDHW"`.
    pub fn data_format(self, format: &str) -> Self {
        Self(self.0.attr("data_format", format))
    }

    /// Voxels from one tap of the filter to the next, for each axis of the volumes; 1 without this.
    pub fn dilations(self, dilations: [i64; 5]) -> Self {
        Self(self.0.attr("dilations", dilations))
    }
}

/// The convolution of volumes `input`, shape [batch, planes, rows, columns, channels], with `filter`, shape [planes, rows,
/// columns, channels, output channels]; a tensor of shape [batch, output planes, output rows, output columns, output
/// channels]. Of any floating-point dtype.
#[track_caller]
pub fn conv3d(input: impl IntoOperand, filter: impl IntoOperand) -> Conv3d {
    Conv3d(crate::op("Conv3D").input(input).input(filter))
}

/// The transposed convolution: the gradient of [`conv3d`] with respect to volumes of shape `output_shape` (a vector of
/// dimensions), where `value` is the gradient of its result.
#[track_caller]
pub fn conv3d_transpose(value: impl IntoOperand, filter: impl IntoOperand, output_shape: impl IntoOperand) -> Conv3d {
    Conv3d(
        crate::op("Conv3DBackpropInputV2")
            .input(output_shape)
            .input(filter)
            .input(value),
    )
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let range = |shape: [usize; 5]| {
        let count = shape.iter().product::<usize>();
        Value::from_vec(shape, (0..count).map(|i| i as f64).collect::<Vec<f64>>()).expect("a value")
    };
    let of = |shape: [usize; 5], elements: &[f64]| Value::from_vec(shape, elements).expect("a value");
    let op = |op, padding: &str| Case::new(op).attr("strides", [1i64; 5]).attr("padding", padding);
    let mut cases = vec![
        // The sums of all eight neighbours.
        op("Conv3D", "VALID")
            .input(range([1, 2, 2, 3, 1]))
            .input(of([2, 2, 2, 1, 1], &[1.0; 8]))
            .expect(of([1, 1, 1, 2, 1], &[40.0, 48.0])),
        op("Conv3D", "SAME")
            .attr("strides", [1i64, 2, 2, 2, 1])
            .input(range([1, 2, 2, 3, 1]))
            .input(of([2, 2, 2, 1, 2], &[1.0; 16]))
            .expect(of([1, 1, 1, 2, 2], &[40.0, 40.0, 26.0, 26.0])),
        op("Conv3D", "VALID")
            .attr("data_format", "NCDHW")
            .attr("dilations", [1i64, 1, 1, 1, 2])
            .input(range([1, 2, 1, 1, 3]))
            .input(of([1, 1, 2, 2, 1], &[1.0, 10.0, 100.0, 1000.0]))
            .expect(of([1, 1, 1, 1, 1], &[5230.0])),
        op("Conv3DBackpropInputV2", "VALID")
            .input([1i32, 1, 1, 3, 1])
            .input(of([1, 1, 2, 1, 1], &[1.0, 10.0]))
            .input(of([1, 1, 1, 2, 1], &[1.0, 2.0]))
            .expect(of([1, 1, 1, 3, 1], &[1.0, 12.0, 20.0])),
        op("Conv3DBackpropInput", "VALID")
            .input(range([1, 1, 1, 3, 1]))
            .input(of([1, 1, 2, 1, 1], &[1.0, 10.0]))
            .input(of([1, 1, 1, 2, 1], &[1.0, 2.0]))
            .expect(of([1, 1, 1, 3, 1], &[1.0, 12.0, 20.0])),
        op("Conv3DBackpropFilterV2", "VALID")
            .input(range([1, 1, 1, 3, 1]))
            .input([1i32, 1, 2, 1, 1])
            .input(of([1, 1, 1, 2, 1], &[1.0, 2.0]))
            .expect(of([1, 1, 2, 1, 1], &[2.0, 5.0])),
        op("Conv3DBackpropFilter", "VALID")
            .input(range([1, 1, 1, 3, 1]))
            .input(range([1, 1, 2, 1, 1]))
            .input(of([1, 1, 1, 2, 1], &[1.0, 2.0]))
            .expect(of([1, 1, 2, 1, 1], &[2.0, 5.0])),
    ];
    for dtype in [DType::Float32, DType::Half, DType::BFloat16] {
        let cast = |value: Value| value.cast_exactly(dtype).expect("small numbers");
        cases.push(
            op("Conv3D", "VALID")
                .input(cast(range([1, 2, 2, 3, 1])))
                .input(cast(of([2, 2, 2, 1, 1], &[1.0; 8])))
                .expect(cast(of([1, 1, 1, 2, 1], &[40.0, 48.0]))),
        );
    }
    cases
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    use graph_core::Value;
    let numbers = |shape: [usize; 5], step: f64| {
        let count = shape.iter().product::<usize>();
        let elements: Vec<f64> = (0..count).map(|i| (i as f64 * step).sin()).collect();
        Value::from_vec(shape, elements).expect("a value")
    };
    let case = |padding: &str| GradientCase::new("Conv3D").attr("padding", padding);
    let backward = |op: &'static str| {
        let case = GradientCase::new(op).attr("padding", "VALID");
        case.attr("strides", [1i64, 1, 1, 2, 1])
    };
    vec![
        backward("Conv3DBackpropInputV2")
            .input([1i32, 2, 2, 4, 2])
            .input(numbers([1, 2, 2, 2, 1], 0.7))
            .input(numbers([1, 2, 1, 2, 1], 0.4)),
        backward("Conv3DBackpropFilterV2")
            .input(numbers([1, 2, 2, 4, 2], 0.9))
            .input([1i32, 2, 2, 2, 1])
            .input(numbers([1, 2, 1, 2, 1], 0.4)),
        case("SAME")
            .attr("strides", [1i64, 1, 2, 1, 1])
            .input(numbers([1, 2, 3, 2, 2], 0.9))
            .input(numbers([2, 2, 1, 2, 1], 0.7)),
        case("VALID")
            .attr("data_format", "NCDHW")
            .attr("strides", [1i64; 5])
            .attr("dilations", [1i64, 1, 1, 1, 2])
            .input(numbers([1, 2, 2, 2, 3], 0.9))
            .input(numbers([1, 2, 2, 2, 1], 0.7)),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;
    use graph_core::{DType, Value};

    #[test]
    fn what_does_not_fit_is_an_error() {
        let zeros = |shape: [usize; 5]| Value::zeros(DType::Float32, shape).expect("a value");
        let case = |strides: &[i64], filter: [usize; 5]| {
            let case = Case::new("Conv3D").attr("strides", strides).attr("padding", "VALID");
            case.input(zeros([1, 2, 2, 2, 1])).input(zeros(filter)).run()
        };
        assert!(case(&[1; 5], [2, 2, 2, 1, 1]).is_ok());
        assert!(case(&[1; 5], [2, 2, 2, 2, 1]).is_err());
        assert!(case(&[1; 5], [4, 2, 2, 1, 1]).is_err());
        assert!(case(&[2, 1, 1, 1, 1], [1, 1, 1, 1, 1]).is_err());
        assert!(case(&[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]).is_err());
        assert!(case(&[1; 4], [1, 1, 1, 1, 1]).is_err());
    }
}
