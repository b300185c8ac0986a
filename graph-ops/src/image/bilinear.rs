//! `ResizeBilinear` and `ResizeBilinearGrad`

use graph_core::op::{KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Result};
use half::{bf16, f16};

use super::resize::{
    PICTURES, Pixel, Resize, Resizing, Scaler, Taps, gradient_of_taps, gradient_on_device, in_single_precision,
    is_differentiable, original_shape, picture_kernels, resize_builder, resize_gradient, resize_on_device,
    resized_shape, with_alignment,
};
use crate::cpu::element::Real;
use crate::cpu::scratch::with_scratch;
use crate::cuda::NAMED;

/// `ResizeBilinear`
pub(crate) fn resize_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "ResizeBilinear",
        "Pictures of another size, each pixel between the four that lie around its place.",
    )
    .input("images: T")
    .input("size: int32")
    .output("resized_images: float")
    .attr(PICTURES);
    let definition = with_alignment(definition)
        .plan_time_inputs(&[1])
        .shape(resized_shape)
        .gradient(|context| {
            if !is_differentiable(context.input(0).dtype()) {
                return Ok(vec![None, None]);
            }
            resize_gradient(context, "ResizeBilinearGrad")
        });
    picture_kernels!(definition, kernel)
        .kernel(KernelDefinition::cuda(|request| resize_on_device(request, places)).types("T", NAMED))
}

/// `ResizeBilinearGrad`
pub(crate) fn grad_op() -> OpDefinition {
    let definition = OpDefinition::new("ResizeBilinearGrad", "The gradient of ResizeBilinear.")
        .input("grads: float")
        .input("original_image: T")
        .output("output: T")
        .attr("T: {float, bfloat16, half, double}");
    with_alignment(definition)
        .shape(original_shape)
        .no_gradient()
        .kernel(KernelDefinition::cpu(grad_kernel::<f32>).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cpu(grad_kernel::<f64>).types("T", &[DType::Float64]))
        .kernel(KernelDefinition::cuda(|request| gradient_on_device(request, places)))
        .kernel(KernelDefinition::cpu(grad_kernel::<f16>).types("T", &[DType::Half]))
        .kernel(KernelDefinition::cpu(grad_kernel::<bf16>).types("T", &[DType::BFloat16]))
}

/// The pixels before and behind each place, and how near it is to them.
fn places(scaler: &Scaler) -> Vec<Taps<2>> {
    (0..scaler.output)
        .map(|index| {
            let place = scaler.place(index);
            let floor = place.floor();
            let pixel = |at: f32| (at.max(0.0) as usize).min(scaler.input.saturating_sub(1));
            let part = place - floor;
            [(pixel(floor), 1.0 - part), (pixel(place.ceil()), part)]
        })
        .collect()
}

fn kernel<T: Pixel>(request: &KernelRequest<'_>) -> Result<Planned> {
    in_single_precision::<T>(request, resize)
}

fn resize(resizing: Resizing) -> Resize {
    let (rows, columns) = (places(&resizing.rows), places(&resizing.columns));
    let (channels, width) = (resizing.channels, resizing.columns.input * resizing.channels);
    let row_len = columns.len() * channels;
    Box::new(move |picture, range, out| {
        with_scratch(2 * row_len, |lines: &mut [f32]| {
            // Rows of the picture in the width of the result, kept while the rows around each place are the same.
            let (mut top, mut bottom) = lines.split_at_mut(row_len);
            let mut held = [None; 2];
            let stretched =
                |row: usize, line: &mut [f32]| stretch(&picture[row * width..][..width], &columns, channels, line);
            for (out, &[(upper, _), (lower, down)]) in out.chunks_exact_mut(row_len).zip(&rows[range]) {
                if held[1] == Some(upper) && held[0] != Some(upper) {
                    std::mem::swap(&mut top, &mut bottom);
                    held.swap(0, 1);
                }
                if held[0] != Some(upper) {
                    stretched(upper, top);
                }
                if held[1] != Some(lower) {
                    stretched(lower, bottom);
                }
                held = [Some(upper), Some(lower)];
                for ((out, &top), &bottom) in out.iter_mut().zip(&*top).zip(&*bottom) {
                    *out = top + (bottom - top) * down;
                }
            }
        });
    })
}

/// One row of a picture in another width.
fn stretch(row: &[f32], columns: &[Taps<2>], channels: usize, line: &mut [f32]) {
    for (&[(left, _), (right, along)], out) in columns.iter().zip(line.chunks_exact_mut(channels)) {
        let (left, right) = (
            &row[left * channels..][..channels],
            &row[right * channels..][..channels],
        );
        for ((out, &a), &b) in out.iter_mut().zip(left).zip(right) {
            *out = a + (b - a) * along;
        }
    }
}

fn grad_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    gradient_of_taps::<T, 2>(request, places)
}

resize_builder! {
    /// Pictures of another size about to be made; see [`resize_bilinear`].
    ResizeBilinear,
    /// Pictures of shape [batch, rows, columns, channels], of any real dtype, with the number of rows and columns that `size`
    /// (two `int32`) says, as `float`: each pixel a mean of the four around its place, by how near they are.
    resize_bilinear => "ResizeBilinear"
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let picture = [[[[1.0f32], [2.0], [3.0]], [[4.0], [5.0], [6.0]]]];
    let of = |shape: [usize; 4], elements: &[f32]| Value::from_vec(shape, elements).expect("a value");
    let case = || Case::new("ResizeBilinear").input(picture).input([3i32, 2]);
    let mut cases = vec![
        case().expect(of([1, 3, 2, 1], &[1.0, 2.5, 3.0, 4.5, 4.0, 5.5])),
        case()
            .attr("align_corners", true)
            .expect(of([1, 3, 2, 1], &[1.0, 3.0, 2.5, 4.5, 4.0, 6.0])),
        case()
            .attr("half_pixel_centers", true)
            .expect(of([1, 3, 2, 1], &[1.25, 2.75, 2.75, 4.25, 4.25, 5.75])),
        Case::new("ResizeBilinear")
            .input([[[[0u8, 10], [200, 20]]]])
            .input([1i32, 4])
            .expect([[[[0.0f32, 10.0], [100.0, 15.0], [200.0, 20.0], [200.0, 20.0]]]]),
        Case::new("ResizeBilinear")
            .input(Value::zeros(DType::Float32, [0, 2, 2, 1]).expect("a value"))
            .input([3i32, 3])
            .expect(Value::zeros(DType::Float32, [0, 3, 3, 1]).expect("a value")),
    ];
    for dtype in [DType::Float32, DType::Float64, DType::Half, DType::BFloat16] {
        let cast = |value: Value| value.cast_exactly(dtype).expect("small numbers");
        cases.push(
            Case::new("ResizeBilinearGrad")
                .input([[[[1.0f32], [2.0], [4.0], [8.0]]]])
                .input(cast([[[[0.0f32], [0.0]]]].into()))
                .expect(cast([[[[2.0f32], [13.0]]]].into())),
        );
    }
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let picture = [[[[1.0f64], [2.0], [3.0]], [[4.0], [5.0], [6.0]]]];
    let case = |size: [i32; 2]| {
        GradientCase::new("ResizeBilinear")
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

#[cfg(test)]
mod tests {
    use crate::testing::Case;
    use graph_core::Value;

    /// Larger, smaller and one pixel thin, beside the interpolation of each pixel alone.
    #[test]
    fn every_pixel_lies_between_its_four() {
        let pixels = |len: usize| (0..len).map(|at| (at * at % 251) as f32 / 8.0).collect::<Vec<_>>();
        for ([batch, height, width, channels], size) in [
            ([2, 5, 7, 3], [11, 13]),
            ([1, 64, 40, 3], [129, 127]),
            ([3, 30, 31, 1], [7, 9]),
            ([1, 1, 6, 5], [4, 3]),
            ([2, 9, 1, 2], [9, 8]),
        ] {
            let input = pixels(batch * height * width * channels);
            let value = Value::from_vec([batch, height, width, channels], input.clone()).unwrap();
            let target = size.map(|dim: usize| dim as i32);
            let result = Case::new("ResizeBilinear")
                .input(value)
                .input(target)
                .run()
                .unwrap()
                .remove(0);
            let result = result.as_slice::<f32>().unwrap();
            let place = |at: usize, from: usize, to: usize| {
                let place = at as f32 * (from as f32 / to as f32);
                let pixel = place.floor() as usize;
                (pixel, (place.ceil() as usize).min(from - 1), place - place.floor())
            };
            for (at, &x) in result.iter().enumerate() {
                let (channel, column) = (at % channels, at / channels % size[1]);
                let (row, picture) = (at / channels / size[1] % size[0], at / channels / size[1] / size[0]);
                let (up, low, down) = place(row, height, size[0]);
                let (left, right, along) = place(column, width, size[1]);
                let pixel =
                    |row: usize, column: usize| input[((picture * height + row) * width + column) * channels + channel];
                let between = |a: f32, b: f32, part: f32| a + (b - a) * part;
                let top = between(pixel(up, left), pixel(up, right), along);
                let bottom = between(pixel(low, left), pixel(low, right), along);
                assert_eq!(x, between(top, bottom, down), "{size:?} at {at}");
            }
        }
    }

    #[test]
    fn what_cannot_be_resized_is_an_error() {
        let run = |size: &[i32]| Case::new("ResizeBilinear").input([[[[1.0f32]]]]).input(size).run();
        assert!(run(&[2, 2]).is_ok());
        for size in [&[0, 2][..], &[2, -1], &[2], &[1, 2, 3]] {
            assert_eq!(run(size).expect_err("no size").class(), "InvalidArgument");
        }
        let both = Case::new("ResizeBilinear")
            .attr("align_corners", true)
            .attr("half_pixel_centers", true);
        assert!(both.input([[[[1.0f32]]]]).input([2i32, 2]).run().is_err());
    }
}
