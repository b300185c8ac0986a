//! `ResizeNearestNeighbor` and its gradient, and `ResizeArea`

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, PartialShape, Result, Value, typed_builder};
use half::{bf16, f16};

use super::resize::{
    PICTURES, Pixel, Resize, Resizing, Scaler, Table, in_single_precision, picture_kernels, resample, resize_builder,
    resized_shape, same_alignment, size_of_input, with_alignment,
};
use crate::array::moving::plan;
use crate::array::tables::Tables;
use crate::cuda::NAMED;
use crate::math::nodes::Nodes;

/// `ResizeNearestNeighbor`
pub(crate) fn resize_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "ResizeNearestNeighbor",
        "Pictures of another size, each pixel the one that is nearest to its place.",
    )
    .input("images: T")
    .input("size: int32")
    .output("resized_images: T")
    .attr(PICTURES);
    with_alignment(definition)
        .plan_time_inputs(&[1])
        .shape(resized_shape)
        .gradient(gradient)
        .kernel(KernelDefinition::cpu(kernel))
        .kernel(KernelDefinition::cuda(on_device).types("T", NAMED))
}

/// `ResizeNearestNeighborGrad`
pub(crate) fn grad_op() -> OpDefinition {
    let definition = OpDefinition::new("ResizeNearestNeighborGrad", "The gradient of ResizeNearestNeighbor.")
        .input("grads: T")
        .input("size: int32")
        .output("output: T")
        .attr("T: {uint8, int8, int32, half, float, double, bfloat16}");
    let definition = with_alignment(definition)
        .plan_time_inputs(&[1])
        .shape(|context: &mut InferenceContext<'_>| {
            let gradient = context.with_rank(0, 4)?;
            let [rows, columns] = size_of_input(context, 1, 0)?;
            context.set_output(0, PartialShape::from([gradient.dim(0), rows, columns, gradient.dim(3)]));
            Ok(())
        })
        .no_gradient();
    macro_rules! kernels {
        ($($type:ty = $add:expr;)*) => {
            definition$(.kernel(
                KernelDefinition::cpu(|request| grad_kernel::<$type>(request, $add)).types("T", &[<$type>::DTYPE]),
            ))*
            .kernel(KernelDefinition::cuda(grad_on_device).types("T", NAMED))
        };
    }
    kernels! {
        f32 = |a, b| a + b;
        f64 = |a, b| a + b;
        f16 = |a, b| a + b;
        bf16 = |a, b| a + b;
        u8 = u8::wrapping_add;
        i8 = i8::wrapping_add;
        i32 = i32::wrapping_add;
    }
}

/// `ResizeArea`
pub(crate) fn area_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "ResizeArea",
        "Pictures of another size, each pixel the mean of the area that it covers.",
    )
    .input("images: T")
    .input("size: int32")
    .output("resized_images: float")
    .attr(PICTURES)
    .attr("align_corners: bool = false")
    .plan_time_inputs(&[1])
    .shape(resized_shape)
    .no_gradient();
    picture_kernels!(definition, area_kernel).kernel(KernelDefinition::cuda(area_on_device).types("T", NAMED))
}

/// The pixel nearest to each place.
fn places(scaler: &Scaler, align_corners: bool) -> Vec<usize> {
    (0..scaler.output)
        .map(|index| {
            // Here a place is the pixel that it falls into.
            let place = match scaler.centres {
                true => (index as f32 + 0.5) * scaler.scale,
                false => index as f32 * scaler.scale,
            };
            let place = if align_corners { place.round() } else { place.floor() };
            (place.max(0.0) as usize).min(scaler.input.saturating_sub(1))
        })
        .collect()
}

/// The same as tables' taps.
fn taps(scaler: &Scaler, align_corners: bool) -> Vec<[(usize, f32); 1]> {
    let places = places(scaler, align_corners).into_iter();
    places.map(|pixel| [(pixel, 1.0)]).collect()
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let resizing = Resizing::new(request, request.input_shape(0), request.output_shape(0)?)?;
    let corners: bool = request.attr("align_corners")?;
    let table = |scaler: &Scaler| Table::new(&taps(scaler, corners));
    resample(request, &table(&resizing.rows), &table(&resizing.columns), false)
}

fn grad_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let resizing = Resizing::new(request, request.output_shape(0)?, request.input_shape(0))?;
    let corners: bool = request.attr("align_corners")?;
    let table = |scaler: &Scaler| Table::turned(&taps(scaler, corners), scaler.input);
    resample(request, &table(&resizing.rows), &table(&resizing.columns), false)
}

fn kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let resizing = Resizing::new(request, request.input_shape(0), request.output_shape(0)?)?;
    let corners: bool = request.attr("align_corners")?;
    let tables: [Vec<usize>; 4] = [
        (0..resizing.batch).collect(),
        places(&resizing.rows, corners),
        places(&resizing.columns, corners),
        (0..resizing.channels).collect(),
    ];
    let shape = request.input_shape(0).to_vec();
    plan(request, [0], Tables::new(shape, tables.map(Vec::into_iter))?)
}

fn grad_kernel<T: Element>(request: &KernelRequest<'_>, add: fn(T, T) -> T) -> Result<Planned> {
    let resizing = Resizing::new(request, request.output_shape(0)?, request.input_shape(0))?;
    let corners: bool = request.attr("align_corners")?;
    let (rows, columns) = (places(&resizing.rows, corners), places(&resizing.columns, corners));
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (gradient, out) = (context.input::<T>(0)?, context.output::<T>(0)?);
        out.fill(T::default());
        if gradient.is_empty() {
            return Ok(());
        }
        let (channels, width) = (resizing.channels, resizing.columns.input);
        let pictures = out.chunks_exact_mut(resizing.picture_len());
        for (gradient, picture) in gradient.chunks_exact(resizing.result_len()).zip(pictures) {
            let mut gradient = gradient.chunks_exact(channels);
            for &row in &rows {
                for (&column, gradient) in columns.iter().zip(&mut gradient) {
                    let to = &mut picture[(row * width + column) * channels..][..channels];
                    to.iter_mut().zip(gradient).for_each(|(to, &x)| *to = add(*to, x));
                }
            }
        }
        Ok(())
    }))
}

/// For each place the pixels of its area, and how much of each belongs to it.
fn areas(scaler: &Scaler) -> Vec<Vec<(usize, f32)>> {
    let last = scaler.input.saturating_sub(1);
    (0..scaler.output)
        .map(|index| {
            let (start, end) = (index as f32 * scaler.scale, (index + 1) as f32 * scaler.scale);
            (start.floor() as usize..end.ceil() as usize)
                .map(|pixel| {
                    let (left, right) = (pixel as f32, pixel as f32 + 1.0);
                    let share = match (left < start, right > end) {
                        (true, true) => scaler.scale,
                        (true, false) => right - start,
                        (false, true) => end - left,
                        (false, false) => 1.0,
                    };
                    (pixel.min(last), share)
                })
                .collect()
        })
        .collect()
}

fn area_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let resizing = Resizing::new(request, request.input_shape(0), request.output_shape(0)?)?;
    // A pixel's area counts once, with the rows.
    let factor = 1.0 / (resizing.rows.scale * resizing.columns.scale);
    let mut rows = areas(&resizing.rows);
    rows.iter_mut().flatten().for_each(|(_, share)| *share *= factor);
    resample(
        request,
        &Table::new(&rows),
        &Table::new(&areas(&resizing.columns)),
        true,
    )
}

fn area_kernel<T: Pixel>(request: &KernelRequest<'_>) -> Result<Planned> {
    in_single_precision::<T>(request, resize_by_area)
}

fn resize_by_area(resizing: Resizing) -> Resize {
    let (rows, columns) = (areas(&resizing.rows), areas(&resizing.columns));
    let factor = 1.0 / (resizing.rows.scale * resizing.columns.scale);
    let (channels, width) = (resizing.channels, resizing.columns.input);
    Box::new(move |picture, range, out| {
        let mut out = out.chunks_exact_mut(channels);
        for y in &rows[range] {
            for (x, out) in columns.iter().zip(&mut out) {
                out.fill(0.0);
                for &(row, row_share) in y {
                    for &(column, share) in x {
                        let from = &picture[(row * width + column) * channels..][..channels];
                        let pairs = out.iter_mut().zip(from);
                        pairs.for_each(|(out, &x)| *out += x * (row_share * share));
                    }
                }
                out.iter_mut().for_each(|out| *out *= factor);
            }
        }
    })
}

fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let image = context.input(0);
    let shape = image.shape();
    let size = match (shape.rank(), shape.dim(1), shape.dim(2)) {
        (Some(_), Some(rows), Some(columns)) => {
            nodes.constant(Value::int32_vector([rows as i32, columns as i32]), "size")?
        }
        _ => nodes.slice(&nodes.shape(&image)?, Some(1), Some(3))?,
    };
    let node = context.node("ResizeNearestNeighborGrad");
    let node = node.input(context.gradient(0)?).input(&size);
    Ok(vec![Some(same_alignment(context, node)?.build()?), None])
}

resize_builder! {
    /// Pictures of another size about to be made; see [`resize_nearest_neighbor`].
    ResizeNearestNeighbor,
    /// Pictures of shape [batch, rows, columns, channels], of any real dtype, with the number of rows and columns that `size`
    /// (two `int32`) says, of the same dtype: each pixel the one nearest to its place.
    resize_nearest_neighbor => "ResizeNearestNeighbor"
}

typed_builder! {
    /// Pictures of another size about to be made; see [`resize_area`].
    pub struct ResizeArea;
}

impl ResizeArea {
    /// Whether the centres of the corner pixels stay where they are; false without.
    pub fn align_corners(self, align: bool) -> Self {
        Self(self.0.attr("align_corners", align))
    }
}

/// Pictures of shape [batch, rows, columns, channels], of any real dtype, with the number of rows and columns that `size` (two
/// `int32`) says, as `float`: each pixel the mean of the area that it covers.
#[track_caller]
pub fn resize_area(images: impl IntoOperand, size: impl IntoOperand) -> ResizeArea {
    ResizeArea(crate::op("ResizeArea").input(images).input(size))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::DType;
    let picture = [[[[1i32], [2], [3]], [[4], [5], [6]]]];
    let nearest = |columns: i32| Case::new("ResizeNearestNeighbor").input(picture).input([1i32, columns]);
    let of = |dtype: DType, x: [[[[i32; 1]; 2]; 1]; 1]| Value::from(x).cast_exactly(dtype).expect("small numbers");
    let mut cases = vec![
        nearest(2).expect([[[[1i32], [2]]]]),
        nearest(2).attr("align_corners", true).expect([[[[1i32], [3]]]]),
        nearest(2).attr("half_pixel_centers", true).expect([[[[4i32], [6]]]]),
        Case::new("ResizeNearestNeighbor")
            .input([[[[1u8, 2]]]])
            .input([2i32, 1])
            .expect([[[[1u8, 2]], [[1, 2]]]]),
        Case::new("ResizeArea")
            .input(picture)
            .input([1i32, 2])
            .expect([[[[2.833_333_3f32], [4.166_666_5]]]]),
        Case::new("ResizeArea")
            .input([[[[0.0f64], [3.0]]]])
            .input([2i32, 3])
            .expect([[[[0.0f32], [1.5], [3.0]], [[0.0], [1.5], [3.0]]]])
            .tolerance(1e-5, 1e-6),
    ];
    for dtype in [
        DType::Float32,
        DType::Float64,
        DType::Half,
        DType::BFloat16,
        DType::Int32,
        DType::Int8,
        DType::UInt8,
    ] {
        let gradient = Value::from([[[[1i32], [2], [4]]]])
            .cast_exactly(dtype)
            .expect("small numbers");
        cases.push(
            Case::new("ResizeNearestNeighborGrad")
                .input(gradient)
                .input([1i32, 2])
                .expect(of(dtype, [[[[3], [4]]]])),
        );
    }
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let picture = [[[[1.0f64], [2.0], [3.0]], [[4.0], [5.0], [6.0]]]];
    let case = |size: [i32; 2]| {
        GradientCase::new("ResizeNearestNeighbor")
            .input(picture)
            .input(size)
            .first_order_only()
    };
    vec![
        case([3, 2]),
        case([3, 5]).attr("align_corners", true),
        case([1, 5]).attr("half_pixel_centers", true),
    ]
}
