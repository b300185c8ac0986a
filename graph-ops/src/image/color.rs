//! Colours as hue, saturation and value: `RGBToHSV`, `HSVToRGB`, `AdjustHue`, `AdjustSaturation`; and `AdjustContrastv2`.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Result};
use graph_cuda::{Source, source};
use half::{bf16, f16};
use num_traits::{Float, NumCast};

use crate::cpu::element::{Real, Wide};
use crate::cuda::launch::{Launch, Work};
use crate::cuda::type_name;
use crate::math::nodes::Nodes;

fn conversion(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("images: T")
        .output("output: T")
        .attr("T: {half, bfloat16, float, double} = DT_FLOAT")
        .shape(colours_shape)
}

/// A kernel for each floating-point dtype.
macro_rules! kernels {
    ($definition:expr, $kernel:ident) => {
        $definition
            .kernel(KernelDefinition::cpu($kernel::<f32>).types("T", &[DType::Float32]))
            .kernel(KernelDefinition::cpu($kernel::<f64>).types("T", &[DType::Float64]))
            .kernel(KernelDefinition::cpu($kernel::<f16>).types("T", &[DType::Half]))
            .kernel(KernelDefinition::cpu($kernel::<bf16>).types("T", &[DType::BFloat16]))
    };
}

/// `RGBToHSV`
pub(crate) fn rgb_to_hsv_op() -> OpDefinition {
    let definition = conversion(
        "RGBToHSV",
        "Colours of red, green and blue as hue (0 to 1 around the circle), saturation and value.",
    )
    .gradient(rgb_to_hsv_gradient);
    kernels!(definition, rgb_to_hsv_kernel).kernel(KernelDefinition::cuda(|r| map_on_device(r, "to_hsv(c)")))
}

/// `HSVToRGB`
pub(crate) fn hsv_to_rgb_op() -> OpDefinition {
    let definition = conversion(
        "HSVToRGB",
        "Colours of hue (0 to 1 around the circle), saturation and value as red, green and blue.",
    )
    .no_gradient();
    kernels!(definition, hsv_to_rgb_kernel).kernel(KernelDefinition::cuda(|r| map_on_device(r, "to_rgb(c)")))
}

fn adjustment(name: &'static str, summary: &'static str, amount: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("images: T")
        .input(amount)
        .output("output: T")
        .attr("T: {half, float} = DT_FLOAT")
        .no_gradient()
}

/// Kernels for the dtypes of adjustments.
macro_rules! adjustment_kernels {
    ($definition:expr, $kernel:ident) => {
        $definition
            .kernel(KernelDefinition::cpu($kernel::<f32>).types("T", &[DType::Float32]))
            .kernel(KernelDefinition::cpu($kernel::<f16>).types("T", &[DType::Half]))
    };
}

/// `AdjustHue`
pub(crate) fn adjust_hue_op() -> OpDefinition {
    let definition = adjustment(
        "AdjustHue",
        "Colours with their hue turned by a part of the circle.",
        "delta: float",
    );
    adjustment_kernels!(definition.shape(adjusted_colours), hue_kernel)
        .kernel(KernelDefinition::cuda(|r| map_on_device(r, "turned(c, amount)")))
}

/// `AdjustSaturation`
pub(crate) fn adjust_saturation_op() -> OpDefinition {
    let definition = adjustment(
        "AdjustSaturation",
        "Colours with their saturation times a factor, between 0 and 1.",
        "scale: float",
    );
    adjustment_kernels!(definition.shape(adjusted_colours), saturation_kernel)
        .kernel(KernelDefinition::cuda(|r| map_on_device(r, "saturated(c, amount)")))
}

/// `AdjustContrastv2`
pub(crate) fn adjust_contrast_op() -> OpDefinition {
    let definition = adjustment(
        "AdjustContrastv2",
        "(x - mean) * contrast_factor + mean, with the mean of each channel of each picture.",
        "contrast_factor: float",
    );
    let definition = definition.shape(|context| {
        context.with_rank(1, 0)?;
        let shape = context.with_rank_at_least(0, 3)?;
        context.set_output(0, shape);
        Ok(())
    });
    adjustment_kernels!(definition, contrast_kernel).kernel(KernelDefinition::cuda(contrast_on_device))
}

fn colours_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape = context.with_rank_at_least(0, 1)?;
    if let Some(rank) = shape.rank()
        && let Some(channels) = shape.dim(rank - 1).filter(|&channels| channels != 3)
    {
        return Err(Error::invalid_argument("colours have three channels")
            .expected("3 as the last dimension")
            .got(channels));
    }
    context.set_output(0, shape);
    Ok(())
}

fn adjusted_colours(context: &mut InferenceContext<'_>) -> Result<()> {
    context.with_rank(1, 0)?;
    context.with_rank_at_least(0, 3)?;
    colours_shape(context)
}

/// Hue, saturation and value (Smith, "Color gamut transform pairs", 1978).
fn to_hsv<W: Wide>([r, g, b]: [W; 3]) -> [W; 3] {
    let (value, least) = (r.max(g).max(b), r.min(g).min(b));
    let range = value - least;
    let zero = W::zero();
    let saturation = if value > zero { range / value } else { zero };
    if range <= zero {
        return [zero, saturation, value];
    }
    let sixths = if r == value {
        (g - b) / range
    } else if g == value {
        (b - r) / range + W::from_f64(2.0)
    } else {
        (r - g) / range + W::from_f64(4.0)
    };
    let hue = sixths / W::from_f64(6.0);
    [if hue < zero { hue + W::one() } else { hue }, saturation, value]
}

fn to_rgb<W: Wide>([hue, saturation, value]: [W; 3]) -> [W; 3] {
    let (zero, one, two) = (W::zero(), W::one(), W::from_f64(2.0));
    let sixths = hue * W::from_f64(6.0);
    let away = |centre: f64| (sixths - W::from_f64(centre)).abs();
    let parts = [away(3.0) - one, two - away(2.0), two - away(4.0)];
    parts.map(|part| {
        let part = part.max(zero).min(one);
        (one - saturation + saturation * part) * value
    })
}

/// A kernel that maps each colour; `f` also gets the scalar in input 1, if there is one.
fn map_colours<T: Real + Element>(f: fn([T::Wide; 3], f32) -> [T::Wide; 3]) -> Result<Planned> {
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let amount = if context.num_inputs() > 1 {
            context.input::<f32>(1)?[0]
        } else {
            0.0
        };
        let (colours, out) = (context.input::<T>(0)?, context.output::<T>(0)?);
        let colours = colours.as_chunks::<3>().0.iter();
        for (out, colour) in out.as_chunks_mut::<3>().0.iter_mut().zip(colours) {
            *out = f(colour.map(T::widen), amount).map(T::narrow);
        }
        Ok(())
    }))
}

const SOURCE: Source = source!("color.cu");

/// What becomes of each colour on a device, in the words of `color.cu`.
fn map_on_device(request: &KernelRequest<'_>, change: &str) -> Result<Planned> {
    let n = request.input_shape(0).num_elements() / 3;
    let defines = [("T", type_name(request.input_dtype(0))?), ("CHANGE", change)];
    let adjusted = request.num_inputs() > 1;
    let numbers = [n, adjusted.into()];
    let launch = Launch::new(request, &SOURCE, "map_colours", &defines, Work::Elements(n), &numbers)?;
    // The kernel does not read the number where there is none.
    Ok(launch.over(if adjusted { &[0, 1] } else { &[0, 0] }))
}

fn contrast_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let [rows, columns, channels] = picture_of(request)?;
    let pixels = rows * columns;
    let n = request.input_shape(0).num_elements();
    let lines = n.checked_div(pixels).unwrap_or(0);
    let defines = [("T", type_name(request.input_dtype(0))?)];
    let numbers = [lines, pixels, channels];
    let launch = Launch::new(request, &SOURCE, "contrast", &defines, Work::Blocks(lines), &numbers)?;
    // A mean is taken.
    Ok(launch.doing(n).over(&[0, 1]))
}

/// Rows, columns and channels of pictures.
fn picture_of(request: &KernelRequest<'_>) -> Result<[usize; 3]> {
    match request.input_shape(0).dims() {
        &[.., rows, columns, channels] => Ok([rows, columns, channels]),
        _ => Err(Error::invalid_argument("pictures must have at least three axes").got(request.input_shape(0))),
    }
}

fn rgb_to_hsv_kernel<T: Real + Element>(_: &KernelRequest<'_>) -> Result<Planned> {
    map_colours::<T>(|colour, _| to_hsv(colour))
}

fn hsv_to_rgb_kernel<T: Real + Element>(_: &KernelRequest<'_>) -> Result<Planned> {
    map_colours::<T>(|colour, _| to_rgb(colour))
}

fn hue_kernel<T: Real + Element>(_: &KernelRequest<'_>) -> Result<Planned> {
    map_colours::<T>(|colour, delta| {
        let [hue, saturation, value] = to_hsv(colour);
        let turned = hue + T::Wide::from_f64(delta.into());
        to_rgb([turned - turned.floor(), saturation, value])
    })
}

fn saturation_kernel<T: Real + Element>(_: &KernelRequest<'_>) -> Result<Planned> {
    map_colours::<T>(|colour, scale| {
        let [hue, saturation, value] = to_hsv(colour);
        let scaled = saturation * T::Wide::from_f64(scale.into());
        to_rgb([
            hue,
            scaled.max(T::Wide::from_f64(0.0)).min(T::Wide::from_f64(1.0)),
            value,
        ])
    })
}

fn contrast_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let [rows, columns, channels] = picture_of(request)?;
    let len = rows * columns * channels;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let factor = T::Wide::from_f64(context.input::<f32>(1)?[0].into());
        let (pictures, out) = (context.input::<T>(0)?, context.output::<T>(0)?);
        if len == 0 {
            return Ok(());
        }
        let count = (rows * columns) as f64;
        for (picture, out) in pictures.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
            for c in 0..channels {
                let channel = || picture.iter().skip(c).step_by(channels).map(|x| x.widen());
                let sum = channel().fold(0.0f64, |sum, x| sum + <f64 as NumCast>::from(x).unwrap_or(f64::NAN));
                let mean = T::Wide::from_f64(sum / count);
                let out = out.iter_mut().skip(c).step_by(channels);
                out.zip(channel())
                    .for_each(|(out, x)| *out = T::narrow((x - mean) * factor + mean));
            }
        }
        Ok(())
    }))
}

/// With the greatest and the least channel told by indicators, as TensorFlow tells them where some are equal.
fn rgb_to_hsv_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (images, gradient) = (context.input(0), context.gradient(0)?);
    let dtype = images.dtype();
    let channels = |x: &Tensor| {
        nodes
            .node("Unpack")
            .input(x)
            .attr("num", 3i64)
            .attr("axis", -1i64)
            .build_all()
    };
    let rgb = channels(&images)?;
    let (to_hsv, hsv) = (channels(&gradient)?, channels(&context.output(0))?);
    let value = &hsv[2];
    let both = |op_a: &str, a: [usize; 2], op_b: &str, b: [usize; 2]| {
        let first = nodes.binary(op_a, op_a, &rgb[a[0]], &rgb[a[1]])?;
        let second = nodes.binary(op_b, op_b, &rgb[b[0]], &rgb[b[1]])?;
        nodes.cast(&nodes.binary("LogicalAnd", "LogicalAnd", &first, &second)?, dtype)
    };
    let (red, green, blue) = (0, 1, 2);
    let greatest = [
        both("GreaterEqual", [red, blue], "GreaterEqual", [red, green])?,
        both("Greater", [green, red], "GreaterEqual", [green, blue])?,
        both("Greater", [blue, red], "Greater", [blue, green])?,
    ];
    let least = [
        both("Less", [red, blue], "Less", [red, green])?,
        both("LessEqual", [green, red], "Less", [green, blue])?,
        both("LessEqual", [blue, red], "LessEqual", [blue, green])?,
    ];
    let one = nodes.scalar(1.0f64, dtype, "one")?;
    let reciprocal = |x: &Tensor| nodes.binary("DivNoNan", "div_no_nan", &one, x);
    let range = nodes.mul(&hsv[1], value)?;
    let (per_range, per_value) = (reciprocal(&range)?, reciprocal(value)?);
    let per_square = nodes.mul(&per_range, &per_range)?;
    let smallest = nodes.sub(value, &range)?;
    // Of the saturation, 1 - least / greatest.
    let to_greatest = nodes.mul(&smallest, &nodes.mul(&per_value, &per_value)?)?;
    let sixth = nodes.scalar(1.0f64 / 6.0, dtype, "sixth")?;
    let mut gradients: Vec<Tensor> = Vec::new();
    for channel in 0..3 {
        let (next, before) = ((channel + 1) % 3, (channel + 2) % 3);
        let of_value = nodes.mul(&to_hsv[2], &greatest[channel])?;
        let rising = nodes.mul(&greatest[channel], &to_greatest)?;
        let falling = nodes.mul(&least[channel], &per_value)?;
        let of_saturation = nodes.mul(&to_hsv[1], &nodes.sub(&rising, &falling)?)?;
        // The hue where a channel is the greatest is (next - before) / range and a constant.
        let own = nodes.mul(&nodes.sub(&rgb[before], &rgb[next])?, &per_square)?;
        let own = nodes.mul(&greatest[channel], &own)?;
        let side = |top: usize, other: usize, sign: &str| -> Result<Tensor> {
            // Whether the range moves too, because this channel is the least.
            let moved = nodes.mul(&nodes.sub(&rgb[top], &rgb[other])?, &per_square)?;
            let still = nodes.sub(&one, &least[channel])?;
            let slope = nodes.add(&nodes.mul(&least[channel], &moved)?, &nodes.mul(&still, &per_range)?)?;
            let slope = nodes.mul(&greatest[top], &slope)?;
            if sign == "-" {
                nodes.unary("Neg", &slope)
            } else {
                Ok(slope)
            }
        };
        // It is the next one of the channel before it, and the one before of the channel after it.
        let as_next = side(before, next, "+")?;
        let as_before = side(next, before, "-")?;
        let hue = nodes.add(&own, &nodes.add(&as_next, &as_before)?)?;
        let of_hue = nodes.mul(&to_hsv[0], &nodes.mul(&hue, &sixth)?)?;
        gradients.push(nodes.add(&nodes.add(&of_value, &of_saturation)?, &of_hue)?);
    }
    let stacked = nodes.node("Pack").input(gradients).attr("axis", -1i64).name("stack");
    Ok(vec![Some(stacked.build()?)])
}

/// Defines the builder function of an op on colours.
macro_rules! builders {
    ($($(#[$doc:meta])* $function:ident($($operand:ident),*) => $op:literal;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $function($($operand: impl IntoOperand),*) -> OpBuilder {
            crate::op($op)$(.input($operand))*
        }
    )*};
}

builders! {
    /// Colours of red, green and blue, between 0 and 1 along the last axis of `images`, as hue (0 to 1 around the circle),
    /// saturation and value.
    rgb_to_hsv(images) => "RGBToHSV";
    /// Colours of hue, saturation and value along the last axis of `images` as red, green and blue, between 0 and 1.
    hsv_to_rgb(images) => "HSVToRGB";
    /// Pictures with the hue of their colours, red, green and blue along the last axis, turned by `delta` of the circle.
    adjust_hue(images, delta) => "AdjustHue";
    /// Pictures with the saturation of their colours, red, green and blue along the last axis, times `scale`.
    adjust_saturation(images, scale) => "AdjustSaturation";
    /// Pictures of shape [..., rows, columns, channels] with the distance of each pixel from its channel's mean times
    /// `contrast_factor`.
    adjust_contrast(images, contrast_factor) => "AdjustContrastv2";
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let rgb = [[0.2f64, 0.5, 0.3], [0.9, 0.1, 0.4], [0.0, 0.0, 0.0], [0.1, 0.2, 0.8]];
    let hsv = [
        [0.3888888889f64, 0.6, 0.5],
        [0.9375, 0.8888888889, 0.9],
        [0.0, 0.0, 0.0],
        [0.6428571429, 0.875, 0.8],
    ];
    let colours = [[0.3f64, 0.5, 0.7], [0.9, 0.1, 0.4], [0.0, 0.0, 0.2], [0.6, 1.0, 1.0]];
    let back = [
        [0.42f64, 0.7, 0.35],
        [0.4, 0.36, 0.384],
        [0.2, 0.2, 0.2],
        [0.0, 0.4, 1.0],
    ];
    let single = |x: [[f64; 3]; 4]| x.map(|row| row.map(|x| x as f32));
    let half = |x: [[f64; 3]; 4]| x.map(|row| row.map(f16::from_f64));
    let brain = |x: [[f64; 3]; 4]| x.map(|row| row.map(bf16::from_f64));
    let mut cases = Vec::new();
    for (op, from, to) in [("RGBToHSV", rgb, hsv), ("HSVToRGB", colours, back)] {
        cases.extend([
            Case::new(op).input(from).expect(to),
            Case::new(op)
                .input(single(from))
                .expect(single(to))
                .tolerance(1e-5, 1e-6),
            Case::new(op).input(half(from)).expect(half(to)).tolerance(1e-2, 1e-3),
            Case::new(op).input(brain(from)).expect(brain(to)).tolerance(4e-2, 1e-2),
        ]);
    }
    let picture = [
        [[0.2f32, 0.5, 0.3], [0.9, 0.1, 0.4]],
        [[0.1, 0.2, 0.8], [0.4, 0.4, 0.4]],
    ];
    let adjust = |op: &'static str, amount: f32, expected: [[[f32; 3]; 2]; 2]| {
        let half = |x: [[[f32; 3]; 2]; 2]| x.map(|row| row.map(|pixel| pixel.map(f16::from_f32)));
        let case = Case::new(op).input(half(picture)).input(amount);
        [
            Case::new(op)
                .input(picture)
                .input(amount)
                .expect(expected)
                .tolerance(1e-5, 1e-6),
            case.expect(half(expected)).tolerance(1e-2, 2e-3),
        ]
    };
    cases.extend(adjust(
        "AdjustHue",
        0.3,
        [
            [[0.24, 0.2, 0.5], [0.56, 0.9, 0.1]],
            [[0.8, 0.1, 0.34], [0.4, 0.4, 0.4]],
        ],
    ));
    cases.extend(adjust(
        "AdjustHue",
        -0.9,
        [
            [[0.2, 0.5, 0.48], [0.9, 0.28, 0.1]],
            [[0.42, 0.1, 0.8], [0.4, 0.4, 0.4]],
        ],
    ));
    cases.extend(adjust(
        "AdjustSaturation",
        1.5,
        [
            [[0.05, 0.5, 0.2], [0.9, 0.0, 0.3375]],
            [[0.0, 0.11428566, 0.8], [0.4, 0.4, 0.4]],
        ],
    ));
    cases.extend(adjust(
        "AdjustContrastv2",
        2.0,
        [
            [[0.0, 0.7, 0.125], [1.4, -0.1, 0.325]],
            [[-0.2, 0.1, 1.125], [0.4, 0.5, 0.325]],
        ],
    ));
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let colours = [
        [0.2f64, 0.5, 0.3],
        [0.9, 0.1, 0.4],
        [0.1, 0.2, 0.8],
        [0.5, 0.3, 0.2],
        [0.2, 0.7, 0.9],
        [0.3, 0.1, 0.7],
    ];
    vec![GradientCase::new("RGBToHSV").input(colours)]
}
