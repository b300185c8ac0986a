//! `ResizeBilinear` and `ResizeBilinearGrad`

use graph_core::op::{KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Result};
use half::{bf16, f16};
use num_traits::NumCast;

use super::resize::{
    PICTURES, Pixel, Resizing, Scaler, is_differentiable, original_shape, picture_kernels, resize_builder,
    resize_gradient, resized_shape, with_alignment,
};
use crate::cpu::element::Real;

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
        .kernel(KernelDefinition::cpu(grad_kernel::<f16>).types("T", &[DType::Half]))
        .kernel(KernelDefinition::cpu(grad_kernel::<bf16>).types("T", &[DType::BFloat16]))
}

/// The two pixels around a place, and how near it is to the second one.
#[derive(Clone, Copy)]
struct Between {
    lower: usize,
    upper: usize,
    part: f32,
}

fn places(scaler: &Scaler) -> Vec<Between> {
    (0..scaler.output)
        .map(|index| {
            let place = scaler.place(index);
            let floor = place.floor();
            Between {
                lower: (floor.max(0.0) as usize).min(scaler.input.saturating_sub(1)),
                upper: (place.ceil().max(0.0) as usize).min(scaler.input.saturating_sub(1)),
                part: place - floor,
            }
        })
        .collect()
}

fn kernel<T: Pixel>(request: &KernelRequest<'_>) -> Result<Planned> {
    let resizing = Resizing::new(request, request.input_shape(0), request.output_shape(0)?)?;
    let (rows, columns) = (places(&resizing.rows), places(&resizing.columns));
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (pictures, out) = (context.input::<T>(0)?, context.output::<f32>(0)?);
        if out.is_empty() {
            return Ok(());
        }
        let (channels, width) = (resizing.channels, resizing.columns.input);
        let results = out.chunks_exact_mut(resizing.result_len());
        for (picture, out) in pictures.chunks_exact(resizing.picture_len()).zip(results) {
            let mut out = out.chunks_exact_mut(channels);
            for y in &rows {
                for (x, out) in columns.iter().zip(&mut out) {
                    let at = |row: usize, column: usize| &picture[(row * width + column) * channels..][..channels];
                    let corners = [
                        at(y.lower, x.lower),
                        at(y.lower, x.upper),
                        at(y.upper, x.lower),
                        at(y.upper, x.upper),
                    ];
                    for (c, out) in out.iter_mut().enumerate() {
                        let [a, b, d, e] = corners.map(|corner| corner[c].single());
                        let (top, bottom) = (a + (b - a) * x.part, d + (e - d) * x.part);
                        *out = top + (bottom - top) * y.part;
                    }
                }
            }
        }
        Ok(())
    }))
}

fn grad_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let resizing = Resizing::new(request, request.output_shape(0)?, request.input_shape(0))?;
    let (rows, columns) = (places(&resizing.rows), places(&resizing.columns));
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (gradient, out) = (context.input::<f32>(0)?, context.output::<T>(0)?);
        let zero = T::Wide::default();
        let mut wide = vec![zero; out.len()];
        let (channels, width) = (resizing.channels, resizing.columns.input);
        if !gradient.is_empty() {
            let pictures = wide.chunks_exact_mut(resizing.picture_len());
            for (gradient, picture) in gradient.chunks_exact(resizing.result_len()).zip(pictures) {
                let mut gradient = gradient.chunks_exact(channels);
                for y in &rows {
                    for (x, gradient) in columns.iter().zip(&mut gradient) {
                        for (row, row_part) in [(y.lower, 1.0 - y.part), (y.upper, y.part)] {
                            for (column, part) in [(x.lower, 1.0 - x.part), (x.upper, x.part)] {
                                let to = &mut picture[(row * width + column) * channels..][..channels];
                                for (to, &gradient) in to.iter_mut().zip(gradient) {
                                    *to += NumCast::from(gradient * row_part * part).unwrap_or(zero);
                                }
                            }
                        }
                    }
                }
            }
        }
        out.iter_mut().zip(wide).for_each(|(out, x)| *out = T::narrow(x));
        Ok(())
    }))
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
