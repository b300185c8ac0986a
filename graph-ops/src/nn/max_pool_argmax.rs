//! `MaxPoolWithArgmax`, which says where each maximum is, and its gradient.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Result};
use graph_cuda::Source;

use super::pooling::Pooling;
use super::windows::{require_shape, with_attrs_of};
use crate::cpu::pooling::{self, Pool2dGeometry, PoolElement};
use crate::cuda::elementwise::lowest;
use crate::cuda::launch::{Launch, Work};
use crate::cuda::type_name;
use crate::cuda::window::{joined_source, window_numbers};

const ATTRS: [&str; 4] = ["ksize", "strides", "padding", "include_batch_in_index"];

/// `MaxPoolWithArgmax`
pub(super) fn forward_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "MaxPoolWithArgmax",
        "The largest element of each window, and its index ((image * rows + y) * columns + x) * channels + channel, where the \
         image counts if include_batch_in_index says so.",
    )
    .input("input: T")
    .output("output: T")
    .output("argmax: Targmax")
    .attr("ksize: list(int) >= 4")
    .attr("strides: list(int) >= 4")
    .attr("Targmax: {int32, int64} = DT_INT64")
    .attr("padding: {'SAME', 'VALID'}")
    .attr("include_batch_in_index: bool = false")
    .attr("T: realnumbertype")
    .shape(|context| {
        let pooling = Pooling::nhwc(context)?;
        let pooled = pooling.infer_shape(context)?;
        context.set_output(0, &pooled);
        context.set_output(1, pooled);
        Ok(())
    })
    .gradient(gradient);
    with_kernels(definition, true)
}

/// `MaxPoolGradWithArgmax`
pub(super) fn grad_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "MaxPoolGradWithArgmax",
        "The gradient of MaxPoolWithArgmax: each incoming element is added at its index.",
    )
    .no_gradient()
    .input("input: T")
    .input("grad: T")
    .input("argmax: Targmax")
    .output("output: T")
    .attr("ksize: list(int) >= 4")
    .attr("strides: list(int) >= 4")
    .attr("padding: {'SAME', 'VALID'}")
    .attr("include_batch_in_index: bool = false")
    .attr("Targmax: {int32, int64}")
    .attr("T: realnumbertype")
    .may_fail()
    .shape(|context| {
        let shape = context.with_rank(0, 4)?;
        context.set_output(0, shape);
        Ok(())
    });
    with_kernels(definition, false)
}

fn with_kernels(mut definition: OpDefinition, forwards: bool) -> OpDefinition {
    macro_rules! kernels {
        ($($dtype:ty, $index:ty;)*) => {$(
            let make = if forwards { forward::<$dtype, $index> } else { backward::<$dtype, $index> };
            definition = definition.kernel(
                KernelDefinition::cpu(make).types("T", &[<$dtype>::DTYPE]).types("Targmax", &[<$index>::DTYPE]),
            );
        )*};
    }
    kernels! {
        f32, i32;
        f32, i64;
        f64, i32;
        f64, i64;
    }
    let make = if forwards {
        forward_on_device
    } else {
        backward_on_device
    };
    definition.kernel(KernelDefinition::cuda(make).types("T", &[DType::Float32, DType::Float64]))
}

/// A kernel of `max_pool_argmax.cu` over the elements of output 0, with indices of this dtype.
fn on_device(
    request: &KernelRequest<'_>,
    name: &str,
    index: DType,
    geometry: &Pool2dGeometry,
    inputs: &'static [usize],
) -> Result<Planned> {
    const SOURCE: Source = joined_source!("max_pool_argmax.cu": "../cuda/window.cuh", "max_pool_argmax.cu");
    let dtype = request.output_dtype(0);
    let defines = [
        ("T", type_name(dtype)?),
        ("I", type_name(index)?),
        ("LOWEST", lowest(dtype)),
    ];
    let with_batch: bool = request.attr("include_batch_in_index")?;
    let image_len = if with_batch { geometry.image_len() } else { 0 };
    let windows = [&geometry.rows, &geometry.columns].into_iter().flat_map(window_numbers);
    let structure: Vec<usize> = windows.chain([geometry.batch, geometry.channels, image_len]).collect();
    let n = request.output_shape(0)?.num_elements();
    let launch = Launch::new(request, &SOURCE, name, &defines, Work::Elements(n), &[n])?;
    let compared = geometry.batch * geometry.out_image_len() * geometry.rows.size * geometry.columns.size;
    Ok(launch.doing(compared).with_structure(&structure).over(inputs))
}

fn forward_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let geometry = Pooling::nhwc(request)?.geometry(request.input_shape(0))?;
    let index = request.output_dtype(1);
    if index == DType::Int32 {
        check_indices::<i32>(request)?;
    }
    on_device(request, "max_pool_with_argmax", index, &geometry, &[0])
}

/// What an index names that lies outside of its own window is left out.
fn backward_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let geometry = Pooling::nhwc(request)?.geometry(request.input_shape(0))?;
    check_pooled(request, &geometry)?;
    on_device(
        request,
        "max_pool_argmax_back",
        request.input_dtype(2),
        &geometry,
        &[1, 2],
    )
}

/// An error if the elements of the images cannot be counted in `I`.
fn check_indices<I: Element + TryFrom<usize>>(request: &KernelRequest<'_>) -> Result<()> {
    if I::try_from(request.input_shape(0).num_elements()).is_err() {
        return Err(Error::invalid_argument("the indices do not fit their dtype")
            .got(I::DTYPE)
            .hint("take Targmax int64"));
    }
    Ok(())
}

/// An error unless the gradient and the indices have the pooled shape.
fn check_pooled(request: &KernelRequest<'_>, geometry: &Pool2dGeometry) -> Result<()> {
    for index in 1..3 {
        require_shape(
            "an operand of MaxPoolGradWithArgmax",
            request.input_shape(index),
            &geometry.out_shape(),
        )?;
    }
    Ok(())
}

fn forward<T: PoolElement + Element, I: Element + TryFrom<usize> + Default>(
    request: &KernelRequest<'_>,
) -> Result<Planned> {
    let geometry = Pooling::nhwc(request)?.geometry(request.input_shape(0))?;
    let with_batch: bool = request.attr("include_batch_in_index")?;
    check_indices::<I>(request)?;
    Ok(Planned::new(move |context| {
        let (input, out) = (context.input::<T>(0)?, context.output::<T>(0)?);
        let image_len = if with_batch { geometry.image_len() } else { 0 };
        pooling::max_pool_with_argmax(&geometry, input, out, context.output::<I>(1)?, |image, at| {
            I::try_from(image * image_len + at).unwrap_or_default()
        });
        Ok(())
    }))
}

fn backward<T: PoolElement + Element, I: Element + TryInto<usize> + std::fmt::Display>(
    request: &KernelRequest<'_>,
) -> Result<Planned> {
    let geometry = Pooling::nhwc(request)?.geometry(request.input_shape(0))?;
    check_pooled(request, &geometry)?;
    let with_batch: bool = request.attr("include_batch_in_index")?;
    Ok(Planned::new(move |context| {
        let (gradient, argmax) = (context.input::<T>(1)?, context.input::<I>(2)?);
        let out = context.output::<T>(0)?;
        out.fill(T::zero());
        let len = out.len();
        for (i, (&gradient, &at)) in gradient.iter().zip(argmax).enumerate() {
            let image = if with_batch {
                0
            } else {
                i / geometry.out_image_len() * geometry.image_len()
            };
            let to = at
                .try_into()
                .ok()
                .and_then(|at| out.get_mut(image + at))
                .ok_or_else(|| {
                    Error::invalid_argument("an index of a maximum lies outside the images")
                        .expected(format!("0 <= index < {len}"))
                        .got(at)
                })?;
            *to = *to + gradient;
        }
        Ok(())
    }))
}

fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let gradient = with_attrs_of(context, "MaxPoolGradWithArgmax", &ATTRS)?
        .input(context.input(0))
        .input(context.gradient(0)?)
        .input(context.output(1))
        .build()?;
    Ok(vec![Some(gradient)])
}

/// A pooling by the largest about to be made; see [`max_pool_with_argmax`].
#[must_use = "an operation is made by `build`"]
pub struct MaxPoolWithArgmax(OpBuilder);

impl MaxPoolWithArgmax {
    /// The size of a window along each axis of the images; 1 for the batch and the channels. Required.
    pub fn ksize(self, size: [i64; 4]) -> Self {
        Self(self.0.attr("ksize", size))
    }

    /// Pixels from one window to the next, for each axis of the images. Required.
    pub fn strides(self, strides: [i64; 4]) -> Self {
        Self(self.0.attr("strides", strides))
    }

    /// `"VALID"` or `"SAME"`, as for [`max_pool`](super::max_pool). Required.
    pub fn padding(self, padding: &str) -> Self {
        Self(self.0.attr("padding", padding))
    }

    /// The dtype of the indices, `int32` or `int64` (without this).
    pub fn targmax(self, dtype: DType) -> Self {
        Self(self.0.attr("Targmax", dtype))
    }

    /// Whether indices count from the batch's beginning; from each image's without this.
    pub fn include_batch_in_index(self, include: bool) -> Self {
        Self(self.0.attr("include_batch_in_index", include))
    }

    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Makes the operation: the largest elements and their indices.
    ///
    /// # Errors
    /// The operand's own, and `InvalidArgument` for wrong dtypes, shapes, attributes or names.
    pub fn build(self) -> Result<[Tensor; 2]> {
        let operation = self.0.build_operation()?;
        Ok([operation.output(0), operation.output(1)])
    }
}

/// As [`max_pool`](super::max_pool), of `float` or `double` images with channels last, together with where each largest element is:
/// its index in the image's elements.
#[track_caller]
pub fn max_pool_with_argmax(input: impl IntoOperand) -> MaxPoolWithArgmax {
    MaxPoolWithArgmax(crate::op("MaxPoolWithArgmax").input(input))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let op = |op| {
        Case::new(op)
            .attr("ksize", [1i64, 2, 2, 1])
            .attr("strides", [1i64, 2, 2, 1])
            .attr("padding", "SAME")
    };
    // The numbers 0 to 31, modulo 7: two images of four by two pixels with two channels.
    let numbers: Vec<f32> = (0..32).map(|i| (i % 7) as f32).collect();
    let images = || Value::from_vec([2, 4, 2, 2], &numbers).expect("a value");
    let largest = [[[[6.0f32, 5.0]], [[5.0, 6.0]]], [[[6.0, 5.0]], [[5.0, 6.0]]]];
    let mut scattered = [0.0f32; 32];
    [
        (6, 1.0),
        (5, 2.0),
        (12, 3.0),
        (13, 4.0),
        (20, 5.0),
        (19, 6.0),
        (26, 7.0),
        (27, 8.0),
    ]
    .into_iter()
    .for_each(|(at, gradient)| scattered[at] = gradient);
    let incoming = [[[[1.0f32, 2.0]], [[3.0, 4.0]]], [[[5.0, 6.0]], [[7.0, 8.0]]]];
    let scattered = Value::from_vec([2, 4, 2, 2], scattered).expect("a value");
    let argmax = [[[[6i64, 5]], [[12, 13]]], [[[4, 3]], [[10, 11]]]];
    let from_batch = [[[[6i32, 5]], [[12, 13]]], [[[20, 19]], [[26, 27]]]];
    vec![
        op("MaxPoolWithArgmax")
            .input(images())
            .attr("Targmax", DType::Int64)
            .expect(largest)
            .expect(argmax),
        op("MaxPoolWithArgmax")
            .attr("Targmax", DType::Int32)
            .attr("include_batch_in_index", true)
            .input(images())
            .expect(largest)
            .expect(from_batch),
        op("MaxPoolGradWithArgmax")
            .input(images())
            .input(incoming)
            .input(argmax)
            .expect(scattered.clone()),
        op("MaxPoolGradWithArgmax")
            .attr("include_batch_in_index", true)
            .input(images())
            .input(incoming)
            .input(from_batch)
            .expect(scattered),
    ]
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    vec![
        GradientCase::new("MaxPoolWithArgmax")
            .attr("ksize", [1i64, 2, 2, 1])
            .attr("strides", [1i64, 1, 1, 1])
            .attr("padding", "SAME")
            .input([[[[1.0f64], [-2.0], [0.5]], [[3.0], [0.25], [4.0]]]])
            .first_order_only(),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn an_index_outside_the_images_is_an_error() {
        let case = |at: i32| {
            Case::new("MaxPoolGradWithArgmax")
                .attr("ksize", [1i64, 1, 1, 1])
                .attr("strides", [1i64, 1, 1, 1])
                .attr("padding", "VALID")
                .input([[[[1.0f32]]]])
                .input([[[[1.0f32]]]])
                .input([[[[at]]]])
                .run()
        };
        assert!(case(0).is_ok());
        for at in [-1, 1] {
            assert_eq!(case(at).unwrap_err().class(), "InvalidArgument");
        }
    }
}
