//! `ResizeBicubic` and `ResizeBicubicGrad`

use graph_core::op::{KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Result};

use super::resize::{
    PICTURES, Pixel, Resize, Resizing, Scaler, Taps, gradient_of_taps, gradient_on_device, in_single_precision,
    original_shape, picture_kernels, resize_builder, resize_gradient, resize_on_device, resized_shape, with_alignment,
};
use crate::cpu::element::Real;
use crate::cuda::NAMED;

/// `ResizeBicubic`
pub(crate) fn resize_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "ResizeBicubic",
        "Pictures of another size by cubic interpolation between sixteen pixels: Keys, \"Cubic Convolution Interpolation for \
         Digital Image Processing\" (1981).",
    )
    .input("images: T")
    .input("size: int32")
    .output("resized_images: float")
    .attr(PICTURES);
    let definition = with_alignment(definition)
        .plan_time_inputs(&[1])
        .shape(resized_shape)
        .gradient(|context| match context.input(0).dtype() {
            DType::Float32 | DType::Float64 => resize_gradient(context, "ResizeBicubicGrad"),
            _ => Ok(vec![None, None]),
        });
    picture_kernels!(definition, kernel)
        .kernel(KernelDefinition::cuda(|request| resize_on_device(request, places)).types("T", NAMED))
}

/// `ResizeBicubicGrad`
pub(crate) fn grad_op() -> OpDefinition {
    let definition = OpDefinition::new("ResizeBicubicGrad", "The gradient of ResizeBicubic.")
        .input("grads: float")
        .input("original_image: T")
        .output("output: T")
        .attr("T: {float, double}");
    with_alignment(definition)
        .shape(original_shape)
        .no_gradient()
        .kernel(KernelDefinition::cpu(grad_kernel::<f32>).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cpu(grad_kernel::<f64>).types("T", &[DType::Float64]))
        .kernel(KernelDefinition::cuda(|request| gradient_on_device(request, places)))
}

/// Steps of a pixel that weights are rounded to.
const STEPS: f32 = 1024.0;

/// The cubic's weights at distance `x` below 1, and at distance `x + 1`, for its parameter `a`.
fn cubic(a: f32, x: f32) -> [f32; 2] {
    let near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    let x = x + 1.0;
    [near, ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a]
}

fn places(scaler: &Scaler) -> Vec<Taps<4>> {
    let last = scaler.input as i64 - 1;
    (0..scaler.output)
        .map(|index| {
            let place = scaler.place(index);
            let floor = place.floor();
            let step = ((place - floor) * STEPS).round_ties_even();
            let a = if scaler.centres { -0.5 } else { -0.75 };
            let ([first, before], [second, after]) = (cubic(a, step / STEPS), cubic(a, (STEPS - step) / STEPS));
            let weights = [before, first, second, after];
            let mut taps: Taps<4> = std::array::from_fn(|tap| {
                let pixel = floor as i64 - 1 + tap as i64;
                let inside = pixel.clamp(0, last.max(0));
                // With pixels at their centres those outside have no weight; else the border is repeated.
                let counts = !scaler.centres || inside == pixel;
                (inside as usize, if counts { weights[tap] } else { 0.0 })
            });
            if scaler.centres {
                let sum: f32 = taps.iter().map(|(_, weight)| weight).sum();
                if sum.abs() >= 1000.0 * f32::MIN_POSITIVE {
                    taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
                }
            }
            taps
        })
        .collect()
}

fn kernel<T: Pixel>(request: &KernelRequest<'_>) -> Result<Planned> {
    in_single_precision::<T>(request, resize)
}

fn resize(resizing: Resizing) -> Resize {
    let (rows, columns) = (places(&resizing.rows), places(&resizing.columns));
    let (channels, width) = (resizing.channels, resizing.columns.input);
    Box::new(move |picture, range, out| {
        let mut out = out.chunks_exact_mut(channels);
        for y in &rows[range] {
            for (x, out) in columns.iter().zip(&mut out) {
                for (c, out) in out.iter_mut().enumerate() {
                    let along_row = |row: usize| -> f32 {
                        let pixel = |column: usize| picture[(row * width + column) * channels + c];
                        x.iter().map(|&(column, weight)| pixel(column) * weight).sum()
                    };
                    *out = y.iter().map(|&(row, weight)| along_row(row) * weight).sum();
                }
            }
        }
    })
}

fn grad_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    gradient_of_taps::<T, 4>(request, places)
}

resize_builder! {
    /// Pictures of another size about to be made; see [`resize_bicubic`].
    ResizeBicubic,
    /// Pictures of shape [batch, rows, columns, channels], of any real dtype, with the number of rows and columns that `size`
    /// (two `int32`) says, as `float`, by cubic interpolation.
    resize_bicubic => "ResizeBicubic"
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let picture = [[[[1.0f32], [2.0], [4.0]], [[4.0], [5.0], [9.0]]]];
    let of = |shape: [usize; 4], elements: &[f32]| Value::from_vec(shape, elements).expect("a value");
    let case = || Case::new("ResizeBicubic").input(picture).input([3i32, 2]);
    vec![
        case().expect(of([1, 3, 2, 1], &BICUBIC[0])).tolerance(1e-5, 1e-6),
        case().attr("align_corners", true).expect(of([1, 3, 2, 1], &BICUBIC[1])),
        case()
            .attr("half_pixel_centers", true)
            .expect(of([1, 3, 2, 1], &BICUBIC[2]))
            .tolerance(1e-5, 1e-6),
        Case::new("ResizeBicubic")
            .input([[[[7u8, 9]]]])
            .input([1i32, 2])
            .expect([[[[7.0f32, 9.0], [7.0, 9.0]]]])
            .tolerance(1e-5, 1e-6),
        Case::new("ResizeBicubicGrad")
            .input([[[[1.0f32], [2.0]]]])
            .input([[[[0.0f32]]]])
            .expect([[[[3.0f32]]]]),
        Case::new("ResizeBicubicGrad")
            .input([[[[1.0f32]]]])
            .input([[[[0.0f64], [0.0]]]])
            .expect([[[[1.0f64], [0.0]]]]),
    ]
}

/// What TensorFlow gives.
#[cfg(test)]
const BICUBIC: [[f32; 6]; 3] = [
    [1.0, 3.09375, 3.0566134, 5.8359017, 4.3333335, 7.538194],
    [1.0, 4.0, 2.5, 6.5, 4.0, 9.0],
    [0.95120454, 3.3379004, 2.6240878, 5.9525547, 4.2969704, 8.567208],
];

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let picture = [[[[1.0f64], [2.0], [3.0]], [[4.0], [5.0], [6.0]]]];
    let case = |size: [i32; 2]| {
        GradientCase::new("ResizeBicubic")
            .input(picture)
            .input(size)
            .tolerance(1e-2, 1e-3, 1e-1)
            .first_order_only()
    };
    vec![
        case([3, 2]),
        case([3, 5]).attr("align_corners", true),
        case([1, 5]).attr("half_pixel_centers", true),
    ]
}
