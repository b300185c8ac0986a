//! `AvgPool3D`, `MaxPool3D` and their gradients.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor, scope};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, PartialShape, Result, Value, typed_builder};
use half::{bf16, f16};

use super::volumes::{Format3d, Sliding3d, on_device, require_input};
use super::windows::{floating_kernels, with_attrs_of};
use crate::array::shape_of;
use crate::cpu::element::Real;
use crate::cpu::volume::{self, Volume};
use crate::cuda::launch::Work;

const ATTRS: [&str; 4] = ["ksize", "strides", "padding", "data_format"];

fn with_attrs(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("ksize: list(int) >= 5")
        .attr("strides: list(int) >= 5")
        .attr("padding: {'SAME', 'VALID'}")
        .attr("data_format: {'NDHWC', 'NCDHW'} = 'NDHWC'")
}

/// Kernels of a maximum, which TensorFlow has in single and half precision.
macro_rules! single_kernels {
    ($definition:expr, $kernel:ident) => {
        $definition
            .kernel(KernelDefinition::cpu($kernel::<f32>).types("T", &[DType::Float32]))
            .kernel(KernelDefinition::cpu($kernel::<f16>).types("T", &[DType::Half]))
            .kernel(KernelDefinition::cpu($kernel::<bf16>).types("T", &[DType::BFloat16]))
    };
}

/// `AvgPool3D`
pub(super) fn avg_pool3d_op() -> OpDefinition {
    let definition = OpDefinition::new("AvgPool3D", "The mean of each window's voxels inside the volume.")
        .input("input: T")
        .output("output: T");
    let definition = with_attrs(definition)
        .attr("T: {half, bfloat16, float, double}")
        .shape(pooled_shape)
        .gradient(avg_gradient);
    floating_kernels!(definition, avg_kernel).kernel(KernelDefinition::cuda(|request| {
        pooled_on_device(request, "avg_pool3d")
    }))
}

/// `AvgPool3DGrad`
pub(super) fn avg_pool3d_grad_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "AvgPool3DGrad",
        "The gradient of AvgPool3D: an equal share for each voxel.",
    )
    .input("orig_input_shape: int32")
    .input("grad: T")
    .output("output: T");
    let definition = with_attrs(definition)
        .attr("T: {half, bfloat16, float, double}")
        .shape(|context| {
            let shape = context.shape_from_input(0)?.merge(&PartialShape::unknown_of_rank(5))?;
            context.set_output(0, shape);
            Ok(())
        })
        .gradient(avg_grad_gradient);
    floating_kernels!(definition, avg_grad_kernel).kernel(
        KernelDefinition::cuda(|request| {
            let pooling = Pooling::of(request, request.output_shape(0)?)?;
            require_input(request, 1, "grad", &pooling.format.of_ours(pooling.pooled()))?;
            pooling.on_device(request, "avg_pool3d_grad", &[1])
        })
        .host_input(0),
    )
}

/// `MaxPool3D`
pub(super) fn max_pool3d_op() -> OpDefinition {
    let definition = OpDefinition::new("MaxPool3D", "The largest element of each window.")
        .input("input: T")
        .output("output: T");
    let definition = with_attrs(definition)
        .attr("T: {half, bfloat16, float}")
        .shape(pooled_shape)
        .gradient(|context| {
            let node = with_attrs_of(context, "MaxPool3DGrad", &ATTRS)?
                .input(context.input(0))
                .input(context.output(0))
                .input(context.gradient(0)?);
            Ok(vec![Some(node.build()?)])
        });
    single_kernels!(definition, max_kernel).kernel(KernelDefinition::cuda(|request| {
        pooled_on_device(request, "max_pool3d")
    }))
}

fn with_operands(definition: OpDefinition, dtype: [&'static str; 3]) -> OpDefinition {
    let [input, output, gradient] = dtype;
    definition
        .input(input)
        .input(output)
        .input(gradient)
        .output("output: T")
}

/// `MaxPool3DGrad`
pub(super) fn max_pool3d_grad_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "MaxPool3DGrad",
        "The gradient of MaxPool3D: goes to every element that is equal to its window's largest.",
    );
    let definition = with_operands(definition, ["orig_input: TInput", "orig_output: TInput", "grad: T"]);
    let definition = with_attrs(definition)
        .attr("T: {half, bfloat16, float} = DT_FLOAT")
        .attr("TInput: {half, bfloat16, float} = DT_FLOAT")
        .shape(|context| {
            let shape = context.with_rank(0, 5)?;
            context.set_output(0, shape);
            Ok(())
        })
        .gradient(|context| max_grad_gradient(context, "MaxPool3DGradGrad"));
    definition
        .kernel(max_grad_definition::<f32>(&[DType::Float32]))
        .kernel(max_grad_definition::<f16>(&[DType::Half]))
        .kernel(max_grad_definition::<bf16>(&[DType::BFloat16]))
        .kernel(max_grad_on_device(&[DType::Float32]))
        .kernel(max_grad_on_device(&[DType::Half]))
        .kernel(max_grad_on_device(&[DType::BFloat16]))
}

fn max_grad_definition<T: Real + Element>(dtype: &'static [DType]) -> KernelDefinition {
    KernelDefinition::cpu(max_grad_kernel::<T>)
        .types("T", dtype)
        .types("TInput", dtype)
}

/// `MaxPool3DGradGrad`
pub(super) fn max_pool3d_grad_grad_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "MaxPool3DGradGrad",
        "The gradient of MaxPool3DGrad: picks of each window the element where its first largest one is.",
    );
    let definition = with_operands(definition, ["orig_input: T", "orig_output: T", "grad: T"]);
    let definition = with_attrs(definition)
        .attr("T: realnumbertype")
        .shape(|context| {
            pooled_shape(context)?;
            context.with_rank(2, 5)?.merge(context.input(0))?;
            Ok(())
        })
        .gradient(|context| max_grad_gradient(context, "MaxPool3DGrad"));
    floating_kernels!(definition, max_grad_grad_kernel).kernel(
        KernelDefinition::cuda(|request| {
            max_gradient_of(request, true)?.on_device(request, "max_pool3d_grad_grad", &[0, 1, 2])
        })
        .types("T", crate::cuda::FLOATS),
    )
}

fn pooled_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let sliding = Sliding3d::of(context, false)?;
    let size = sliding.size(context)?.map(Some);
    let shape = sliding.infer(context, 0, size, None)?;
    context.set_output(0, shape);
    Ok(())
}

/// A pooling as a kernel sees it.
#[derive(Clone, Copy)]
struct Pooling {
    format: Format3d,
    volume: Volume,
    volumes: [usize; 5],
}

impl Pooling {
    fn of(request: &KernelRequest<'_>, volumes: &graph_core::Shape) -> Result<Self> {
        let sliding = Sliding3d::of(request, false)?;
        Ok(Self {
            format: sliding.format,
            volume: sliding.volume(volumes, sliding.size(request)?)?,
            volumes: sliding.format.sizes(volumes)?,
        })
    }

    fn pooled(&self) -> [usize; 5] {
        self.volume.out_shape(self.volumes[4])
    }
}

impl Pooling {
    fn on_device(&self, request: &KernelRequest<'_>, name: &str, inputs: &'static [usize]) -> Result<Planned> {
        let volume = (&self.volume, self.volume.channels, self.format);
        on_device(request, name, volume, 1, Work::Elements, inputs)
    }
}

fn pooled_on_device(request: &KernelRequest<'_>, name: &str) -> Result<Planned> {
    Pooling::of(request, request.input_shape(0))?.on_device(request, name, &[0])
}

fn max_grad_on_device(dtype: &'static [DType]) -> KernelDefinition {
    let kernel = KernelDefinition::cuda(|request| {
        max_gradient_of(request, false)?.on_device(request, "max_pool3d_grad", &[0, 1, 2])
    });
    kernel.types("T", dtype).types("TInput", dtype)
}

/// Pools a volume, from channels-last numbers to channels-last numbers.
type PoolOf<W> = fn(&Volume, &[W], &mut [W]);

/// A kernel from input 0 to its pooled shape.
fn pool<T: Real + Element>(request: &KernelRequest<'_>, pool: PoolOf<T::Wide>) -> Result<Planned> {
    let pooling = Pooling::of(request, request.input_shape(0))?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let volumes = pooling.format.read(pooling.volumes, context.input::<T>(0)?);
        let out = context.output::<T>(0)?;
        let mut wide = vec![T::Wide::default(); out.len()];
        pool(&pooling.volume, &volumes, &mut wide);
        pooling.format.write(pooling.pooled(), &wide, out);
        Ok(())
    }))
}

fn avg_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    pool::<T>(request, volume::avg_pool3d)
}

fn max_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    pool::<T>(request, volume::max_pool3d)
}

fn avg_grad_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let pooling = Pooling::of(request, request.output_shape(0)?)?;
    require_input(request, 1, "grad", &pooling.format.of_ours(pooling.pooled()))?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let gradient = pooling.format.read(pooling.pooled(), context.input::<T>(1)?);
        let out = context.output::<T>(0)?;
        let mut wide = vec![T::Wide::default(); out.len()];
        volume::avg_pool3d_grad(&pooling.volume, &gradient, &mut wide);
        pooling.format.write(pooling.volumes, &wide, out);
        Ok(())
    }))
}

/// A gradient of a maximum: of volumes, pooled volumes and a gradient of either shape.
type MaxGradient<W> = fn(&Volume, &[W], &[W], &[W], &mut [W]);

/// The pooling whose gradient is asked for, with the shapes of the operands checked.
fn max_gradient_of(request: &KernelRequest<'_>, again: bool) -> Result<Pooling> {
    let pooling = Pooling::of(request, request.input_shape(0))?;
    let (pooled, format) = (pooling.pooled(), pooling.format);
    let incoming = if again { pooling.volumes } else { pooled };
    require_input(request, 1, "orig_output", &format.of_ours(pooled))?;
    require_input(request, 2, "grad", &format.of_ours(incoming))?;
    Ok(pooling)
}

fn max_gradient<T: Real + Element>(
    request: &KernelRequest<'_>,
    again: bool,
    compute: MaxGradient<T::Wide>,
) -> Result<Planned> {
    let pooling = max_gradient_of(request, again)?;
    let (pooled, format) = (pooling.pooled(), pooling.format);
    let (incoming, outgoing) = if again {
        (pooling.volumes, pooled)
    } else {
        (pooled, pooling.volumes)
    };
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let volumes = format.read(pooling.volumes, context.input::<T>(0)?);
        let largest = format.read(pooled, context.input::<T>(1)?);
        let gradient = format.read(incoming, context.input::<T>(2)?);
        let out = context.output::<T>(0)?;
        let mut wide = vec![T::Wide::default(); out.len()];
        compute(&pooling.volume, &volumes, &largest, &gradient, &mut wide);
        format.write(outgoing, &wide, out);
        Ok(())
    }))
}

fn max_grad_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    max_gradient::<T>(request, false, volume::max_pool3d_grad)
}

fn max_grad_grad_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    max_gradient::<T>(request, true, volume::max_pool3d_grad_grad)
}

fn avg_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let shape = shape_of::shape_of(&context.input(0), "Shape")?;
    let node = with_attrs_of(context, "AvgPool3DGrad", &ATTRS)?.input(&shape);
    Ok(vec![Some(node.input(context.gradient(0)?).build()?)])
}

fn avg_grad_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let shape = context.node("StopGradient").input(context.input(0)).build()?;
    let node = with_attrs_of(context, "AvgPool3D", &ATTRS)?.input(context.gradient(0)?);
    Ok(vec![Some(shape), Some(node.build()?)])
}

/// Zeros for the first two operands, and `op` of them and the incoming gradient for the third.
fn max_grad_gradient(context: &mut GradientContext<'_>, op: &str) -> Result<Vec<Option<Tensor>>> {
    let (input, output) = (context.input(0), context.input(1));
    let zeros = |tensor: &Tensor| {
        let shape = shape_of::shape_of(tensor, "Shape")?;
        let scope = scope::name_scope_in(tensor.graph(), "zeros")?;
        let zero = context.constant(Value::zeros(tensor.dtype(), ())?, "Const")?;
        let fill = context.node("Fill").input(&shape).input(&zero);
        fill.name(scope.scope_name()).build()
    };
    let (to_input, to_output) = (zeros(&input)?, zeros(&output)?);
    let node = with_attrs_of(context, op, &ATTRS)?.input(&input).input(&output);
    let to_gradient = node.input(context.gradient(0)?).build()?;
    Ok(vec![Some(to_input), Some(to_output), Some(to_gradient)])
}

typed_builder! {
    /// A pooling of volumes about to be made; see [`avg_pool3d`] and [`max_pool3d`].
    pub struct Pool3d;
}

impl Pool3d {
    /// The size of a window along each axis of the volumes; 1 for the batch and the channels. Required.
    pub fn ksize(self, size: [i64; 5]) -> Self {
        Self(self.0.attr("ksize", size))
    }

    /// Voxels from one window to the next, for each axis of the volumes. Required.
    pub fn strides(self, strides: [i64; 5]) -> Self {
        Self(self.0.attr("strides", strides))
    }

    /// `"VALID"`: only windows inside the volumes; `"SAME"`: as many as `ceil(voxels / stride)`, and padding takes no part in
    /// them. Required.
    pub fn padding(self, padding: &str) -> Self {
        Self(self.0.attr("padding", padding))
    }

    /// The order of the volumes' axes: `"NDHWC"` (without this) or `"NCDHW"`.
    pub fn data_format(self, format: &str) -> Self {
        Self(self.0.attr("data_format", format))
    }
}

/// The mean of each window of volumes of shape [batch, planes, rows, columns, channels], of any floating-point dtype.
#[track_caller]
pub fn avg_pool3d(input: impl IntoOperand) -> Pool3d {
    Pool3d(crate::op("AvgPool3D").input(input))
}

/// The largest element of each window of volumes of shape [batch, planes, rows, columns, channels], of `float` or a half
/// type.
#[track_caller]
pub fn max_pool3d(input: impl IntoOperand) -> Pool3d {
    Pool3d(crate::op("MaxPool3D").input(input))
}

#[cfg(test)]
fn range(shape: [usize; 5], dtype: DType) -> Value {
    let count = shape.iter().product::<usize>();
    let elements: Vec<f64> = (0..count).map(|i| i as f64).collect();
    let value = Value::from_vec(shape, elements).expect("a value");
    value.cast_exactly(dtype).expect("small numbers")
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let op = |op: &'static str, padding: &str| {
        let case = Case::new(op).attr("ksize", [1i64, 2, 2, 2, 1]).attr("padding", padding);
        case.attr("strides", [1i64, 2, 2, 2, 1])
    };
    let of = |shape: [usize; 5], dtype: DType, elements: &[f64]| {
        let value = Value::from_vec(shape, elements).expect("a value");
        value.cast_exactly(dtype).expect("small numbers")
    };
    let mut cases = Vec::new();
    for dtype in [DType::Float64, DType::Float32, DType::Half, DType::BFloat16] {
        let of = |shape, elements: &[f64]| of(shape, dtype, elements);
        cases.push(
            op("AvgPool3D", "SAME")
                .input(range([1, 2, 2, 3, 1], dtype))
                .expect(of([1, 1, 1, 2, 1], &[5.0, 6.5])),
        );
        cases.push(
            op("AvgPool3DGrad", "SAME")
                .input([1i32, 2, 2, 3, 1])
                .input(of([1, 1, 1, 2, 1], &[8.0, 4.0]))
                .expect(of(
                    [1, 2, 2, 3, 1],
                    &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
                )),
        );
        let (ones, one) = (of([1, 2, 2, 2, 1], &[1.0; 8]), of([1, 1, 1, 1, 1], &[1.0]));
        cases.push(
            op("MaxPool3DGradGrad", "VALID")
                .input(ones.clone())
                .input(one.clone())
                .input(of([1, 2, 2, 2, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]))
                .expect(one.clone()),
        );
        if dtype == DType::Float64 {
            continue;
        }
        cases.push(
            op("MaxPool3D", "SAME")
                .attr("data_format", "NCDHW")
                .attr("ksize", [1i64, 1, 2, 2, 2])
                .attr("strides", [1i64, 1, 2, 2, 2])
                .input(range([1, 1, 2, 2, 3], dtype))
                .expect(of([1, 1, 1, 1, 2], &[10.0, 11.0])),
        );
        cases.push(
            op("MaxPool3DGrad", "VALID")
                .attr("TInput", dtype)
                .input(ones)
                .input(one.clone())
                .input(one)
                .expect(of([1, 2, 2, 2, 1], &[1.0; 8])),
        );
    }
    cases
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let volume = |dtype: DType| {
        let elements: Vec<f64> = (0..36).map(|i| (i as f64 * 0.9).sin()).collect();
        let value = Value::from_vec([1, 2, 3, 3, 2], elements).expect("a value");
        match dtype {
            DType::Float32 => {
                let elements = value.as_slice::<f64>().expect("doubles").iter().map(|&x| x as f32);
                Value::from_vec([1, 2, 3, 3, 2], elements.collect::<Vec<f32>>()).expect("a value")
            }
            _ => value,
        }
    };
    let case = |op: &'static str, padding: &str| {
        GradientCase::new(op)
            .attr("ksize", [1i64, 2, 2, 1, 1])
            .attr("strides", [1i64, 1, 2, 1, 1])
            .attr("padding", padding)
    };
    let mut cases = Vec::new();
    for padding in ["SAME", "VALID"] {
        cases.push(case("AvgPool3D", padding).input(volume(DType::Float64)));
        cases.push(
            case("MaxPool3D", padding)
                .input(volume(DType::Float32))
                .tolerance(1e-2, 1e-3, 1e-2),
        );
        let pooled = crate::testing::Case::new("MaxPool3D")
            .attr("ksize", [1i64, 2, 2, 1, 1])
            .attr("strides", [1i64, 1, 2, 1, 1])
            .attr("padding", padding)
            .input(volume(DType::Float32));
        let pooled = pooled.run().expect("pooled").remove(0);
        let sizes: Vec<i32> = [1, 2, 3, 3, 2].into();
        cases.push(
            case("AvgPool3DGrad", padding)
                .input(sizes)
                .input(pooled.clone())
                .tolerance(1e-2, 1e-3, 1e-2),
        );
        let backward = |op| case(op, padding).input(volume(DType::Float32)).input(pooled.clone());
        cases.push(
            backward("MaxPool3DGrad")
                .input(pooled.clone())
                .with_respect_to(&[2])
                .tolerance(1e-2, 1e-3, 1e-2),
        );
        cases.push(
            backward("MaxPool3DGradGrad")
                .input(volume(DType::Float32))
                .with_respect_to(&[2])
                .tolerance(1e-2, 1e-3, 1e-2),
        );
    }
    cases
}
