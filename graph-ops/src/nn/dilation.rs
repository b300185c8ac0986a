//! `Dilation2D` and its gradients: greyscale morphology.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Element, Error, PartialShape, Result, Shape, typed_builder};
use graph_cuda::Source;
use half::{bf16, f16};
use num_traits::Zero;

use super::windows::{Attrs, Format, four, output_dim, require_shape, with_attrs_of};
use crate::cpu::window::{Padding, Window};
use crate::cuda::elementwise::lowest;
use crate::cuda::launch::{Launch, Work, with_scratch};
use crate::cuda::window::{joined_source, window_numbers};
use crate::cuda::{NUMBERS, type_name};

const ATTRS: [&str; 3] = ["strides", "rates", "padding"];

fn with_attrs(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("T: realnumbertype")
        .attr("strides: list(int) >= 4")
        .attr("rates: list(int) >= 4")
        .attr("padding: {'SAME', 'VALID'}")
}

/// A kernel for each real dtype; integers wrap.
macro_rules! kernels {
    ($definition:expr, $kernel:ident) => {{
        let definition = $definition;
        kernels!(@add definition, $kernel, |a, b| a + b; f32, f64, f16, bf16);
        kernels!(@add definition, $kernel, |a, b| a.wrapping_add(b); i8, i16, i32, i64, u8, u16, u32, u64);
        definition
    }};
    (@add $definition:ident, $kernel:ident, |$a:ident, $b:ident| $add:expr; $($type:ty),*) => {
        let $definition = $definition$(.kernel(
            KernelDefinition::cpu(|request| $kernel::<$type>(request, |$a, $b| $add))
                .types("T", &[<$type as Element>::DTYPE]),
        ))*;
    };
}

/// `Dilation2D`
pub(super) fn forward() -> OpDefinition {
    let definition = OpDefinition::new(
        "Dilation2D",
        "out[n,y,x,c] = max over i,j of input[n, y*stride + i*rate - before, ..., c] + filter[i,j,c].",
    )
    .input("input: T")
    .input("filter: T")
    .output("output: T");
    let definition = with_attrs(definition).shape(shape).gradient(gradient);
    kernels!(definition, forward_kernel).kernel(
        KernelDefinition::cuda(|request| {
            let launch = Plan::new(request)?.launch(request, "dilate", Work::Elements)?;
            Ok(launch.over(&[0, 1]))
        })
        .types("T", NUMBERS),
    )
}

/// `Dilation2DBackpropInput`
pub(super) fn backprop_input() -> OpDefinition {
    let definition = OpDefinition::new(
        "Dilation2DBackpropInput",
        "The gradient of Dilation2D with respect to its input: goes to the first pixel of each greatest sum.",
    )
    .input("input: T")
    .input("filter: T")
    .input("out_backprop: T")
    .output("in_backprop: T");
    let definition = with_attrs(definition)
        .shape(|context| {
            let shape = context.with_rank(0, 4)?;
            context.set_output(0, shape);
            Ok(())
        })
        .no_gradient();
    kernels!(definition, input_kernel).kernel(
        KernelDefinition::cuda(|request| back_on_device(request, "dilate_back_to_images", Work::Elements))
            .types("T", NUMBERS),
    )
}

/// `Dilation2DBackpropFilter`
pub(super) fn backprop_filter() -> OpDefinition {
    let definition = OpDefinition::new(
        "Dilation2DBackpropFilter",
        "The gradient of Dilation2D with respect to its filter: goes to the first tap of each greatest sum.",
    )
    .input("input: T")
    .input("filter: T")
    .input("out_backprop: T")
    .output("filter_backprop: T");
    let definition = with_attrs(definition)
        .shape(|context| {
            let shape = context.with_rank(1, 3)?;
            context.set_output(0, shape);
            Ok(())
        })
        .no_gradient();
    kernels!(definition, filter_kernel).kernel(
        KernelDefinition::cuda(|request| back_on_device(request, "dilate_back_to_filter", Work::Blocks))
            .types("T", NUMBERS),
    )
}

/// Strides and rates of rows and columns, and the padding.
fn sliding(attrs: &impl Attrs) -> Result<([usize; 2], [usize; 2], Padding)> {
    let two = |name: &str| {
        let [batch, rows, columns, channels] = four(&attrs.read::<Vec<i64>>(name)?, Format::Nhwc, name)?;
        if batch != 1 || channels != 1 {
            return Err(Error::unimplemented(format!(
                "{name} in the batch and in the channels must be 1"
            )));
        }
        Ok([rows, columns])
    };
    let padding = match attrs.read::<String>("padding")?.as_str() {
        "SAME" => Padding::Same,
        _ => Padding::Valid,
    };
    Ok((two("strides")?, two("rates")?, padding))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (images, filter) = (context.with_rank(0, 4)?, context.with_rank(1, 3)?);
    let (strides, rates, padding) = sliding(context)?;
    let channels = context.merge_dims(
        images.dim(3),
        filter.dim(2),
        "the channels of the images and of the filter",
    )?;
    let along = |d: usize| output_dim(images.dim(1 + d), filter.dim(d), strides[d], rates[d], padding);
    context.set_output(0, PartialShape::from([images.dim(0), along(0)?, along(1)?, channels]));
    Ok(())
}

#[derive(Clone, Copy)]
struct Plan {
    batch: usize,
    channels: usize,
    rows: Window,
    columns: Window,
}

impl Plan {
    fn new(request: &KernelRequest<'_>) -> Result<Self> {
        let (images, filter) = (request.input_shape(0), request.input_shape(1));
        let (&[batch, rows, columns, channels], &[filter_rows, filter_columns, filter_channels]) =
            (images.dims(), filter.dims())
        else {
            return Err(Error::invalid_argument("images have four axes, and the filter three").got(images));
        };
        if channels != filter_channels {
            return Err(Error::invalid_argument("input and filter must have the same depth")
                .expected(channels)
                .got(filter_channels));
        }
        let (strides, rates, padding) = sliding(request)?;
        let window = |pixels, size, d: usize| {
            Window::new(pixels, size, strides[d], rates[d], padding).ok_or_else(|| {
                Error::invalid_argument("the filter does not fit the images")
                    .expected(format!("at most {pixels} pixels, and at least one"))
                    .got(format!("{size} taps, {} pixels apart", rates[d]))
            })
        };
        Ok(Self {
            batch,
            channels,
            rows: window(rows, filter_rows, 0)?,
            columns: window(columns, filter_columns, 1)?,
        })
    }

    fn backwards(request: &KernelRequest<'_>) -> Result<Self> {
        let plan = Self::new(request)?;
        let expected = [plan.batch, plan.rows.output, plan.columns.output, plan.channels];
        require_shape("out_backprop", request.input_shape(2), &Shape::new(&expected))?;
        Ok(plan)
    }

    /// Outputs of the dilation.
    fn outputs(&self) -> usize {
        self.batch * self.rows.output * self.columns.output * self.channels
    }

    /// A kernel of `dilation.cu` over the elements of output 0.
    fn launch(&self, request: &KernelRequest<'_>, name: &str, work: fn(usize) -> Work) -> Result<Launch> {
        self.launch_of(request, name, work, request.output_shape(0)?.num_elements())
    }

    fn launch_of(&self, request: &KernelRequest<'_>, name: &str, work: fn(usize) -> Work, n: usize) -> Result<Launch> {
        const SOURCE: Source = joined_source!("dilation.cu": "../cuda/window.cuh", "dilation.cu");
        let dtype = request.output_dtype(0);
        let defines = [("T", type_name(dtype)?), ("LOWEST", lowest(dtype))];
        let windows = [&self.rows, &self.columns].into_iter().flat_map(window_numbers);
        let structure: Vec<usize> = windows.chain([self.batch, self.channels]).collect();
        let launch = Launch::new(request, &SOURCE, name, &defines, work(n), &[n])?;
        // A sum and a comparison for each tap.
        let operations = 2 * self.outputs() * self.rows.size * self.columns.size;
        Ok(launch.doing(operations).with_structure(&structure))
    }

    /// Calls `f` with each output's place, its greatest sum if a pixel is inside, and the places of the first pixel and the
    /// first tap that give it.
    fn each<T: Copy + PartialOrd>(
        &self,
        images: &[T],
        filter: &[T],
        add: fn(T, T) -> T,
        mut f: impl FnMut(usize, Option<(T, usize, usize)>),
    ) {
        let (rows, columns, channels) = (&self.rows, &self.columns, self.channels);
        let inside = |window: &Window, index: usize, tap: usize| {
            let place = (index * window.stride + tap * window.dilation).checked_sub(window.before)?;
            (place < window.input).then_some(place)
        };
        let mut out = 0;
        for image in 0..self.batch {
            for y in 0..rows.output {
                for x in 0..columns.output {
                    for c in 0..channels {
                        let mut best: Option<(T, usize, usize)> = None;
                        for i in 0..rows.size {
                            let Some(row) = inside(rows, y, i) else { continue };
                            for j in 0..columns.size {
                                let Some(column) = inside(columns, x, j) else { continue };
                                let pixel = ((image * rows.input + row) * columns.input + column) * channels + c;
                                let tap = (i * columns.size + j) * channels + c;
                                let sum = add(images[pixel], filter[tap]);
                                if best.is_none_or(|(best, ..)| sum > best) {
                                    best = Some((sum, pixel, tap));
                                }
                            }
                        }
                        f(out, best);
                        out += 1;
                    }
                }
            }
        }
    }
}

/// The taps of the greatest sums, and the kernel that brings the gradient there.
fn back_on_device(request: &KernelRequest<'_>, name: &str, work: fn(usize) -> Work) -> Result<Planned> {
    let plan = Plan::backwards(request)?;
    let outputs = plan.outputs();
    let taps = plan.launch_of(request, "find_taps", Work::Elements, outputs)?;
    let back = plan.launch(request, name, work)?;
    let (scratch, gradient) = (outputs * 4, outputs * request.input_dtype(2).size().unwrap_or(0));
    let launches = vec![
        taps.moving(request.input_bytes() - gradient + scratch),
        back.moving(scratch + gradient + request.output_bytes()).doing(outputs),
    ];
    Ok(with_scratch(launches, &[0, 1, 2], scratch))
}

/// A real dtype.
trait Grey: Element + PartialOrd + Zero + num_traits::Bounded {}
impl<T: Element + PartialOrd + Zero + num_traits::Bounded> Grey for T {}

fn forward_kernel<T: Grey>(request: &KernelRequest<'_>, add: fn(T, T) -> T) -> Result<Planned> {
    let plan = Plan::new(request)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (images, filter, out) = (context.input::<T>(0)?, context.input::<T>(1)?, context.output::<T>(0)?);
        plan.each(images, filter, add, |at, best| {
            out[at] = best.map_or(T::min_value(), |(sum, ..)| sum);
        });
        Ok(())
    }))
}

fn input_kernel<T: Grey>(request: &KernelRequest<'_>, add: fn(T, T) -> T) -> Result<Planned> {
    backward(request, add, |pixel, _| pixel)
}

fn filter_kernel<T: Grey>(request: &KernelRequest<'_>, add: fn(T, T) -> T) -> Result<Planned> {
    backward(request, add, |_, tap| tap)
}

/// Adds the gradient of each output at the place that `choose` takes of the pixel and the tap.
fn backward<T: Grey>(
    request: &KernelRequest<'_>,
    add: fn(T, T) -> T,
    choose: fn(usize, usize) -> usize,
) -> Result<Planned> {
    let plan = Plan::backwards(request)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (images, filter) = (context.input::<T>(0)?, context.input::<T>(1)?);
        let (gradient, out) = (context.input::<T>(2)?, context.output::<T>(0)?);
        out.fill(T::zero());
        plan.each(images, filter, add, |at, best| {
            if let Some((_, pixel, tap)) = best {
                let to = choose(pixel, tap);
                out[to] = add(out[to], gradient[at]);
            }
        });
        Ok(())
    }))
}

fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let build = |op: &str| {
        let node = with_attrs_of(context, op, &ATTRS)?;
        let node = node.input(context.input(0)).input(context.input(1));
        node.input(context.gradient(0)?).build().map(Some)
    };
    Ok(vec![
        build("Dilation2DBackpropInput")?,
        build("Dilation2DBackpropFilter")?,
    ])
}

typed_builder! {
    /// A dilation about to be made; see [`dilation2d`].
    pub struct Dilation2d;
}

impl Dilation2d {
    /// Pixels from one window to the next, for each axis of the images; 1 for the batch and the channels. Required.
    pub fn strides(self, strides: [i64; 4]) -> Self {
        Self(self.0.attr("strides", strides))
    }

    /// Pixels from one tap of the filter to the next, for each axis of the images; 1 for the batch and the channels. Required.
    pub fn rates(self, rates: [i64; 4]) -> Self {
        Self(self.0.attr("rates", rates))
    }

    /// `"VALID"`: only windows inside the images; `"SAME"`: as many as `ceil(pixels / stride)`. Required.
    pub fn padding(self, padding: &str) -> Self {
        Self(self.0.attr("padding", padding))
    }
}

/// The greyscale dilation of images `input`, shape [batch, rows, columns, channels], by `filter`, shape [rows, columns,
/// channels]: the greatest sum of a pixel and a tap in each window. Of any real dtype.
#[track_caller]
pub fn dilation2d(input: impl IntoOperand, filter: impl IntoOperand) -> Dilation2d {
    Dilation2d(crate::op("Dilation2D").input(input).input(filter))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::{DType, Value};
    let image = || Value::from_vec([1, 3, 3, 1], (0..9).map(|i| i as f32).collect::<Vec<f32>>()).expect("a value");
    let filter = [[[0.0f32], [1.0]], [[5.0], [-3.0]]];
    let case = |op: &'static str, padding: &str, stride: i64, rate: i64| {
        Case::new(op)
            .attr("strides", [1i64, 1, stride, 1])
            .attr("rates", [1i64, rate, 1, 1])
            .attr("padding", padding)
    };
    let plain = |op: &'static str| case(op, "VALID", 1, 1).input(image()).input(filter);
    let gradient = [[[[1.0f32], [2.0]], [[3.0], [4.0]]]];
    let mut cases = vec![
        case("Dilation2D", "SAME", 2, 2).input(image()).input(filter).expect([[
            [[8.0f32], [10.0]],
            [[11.0], [13.0]],
            [[5.0], [5.0]],
        ]]),
        case("Dilation2D", "VALID", 2, 2)
            .input(image())
            .input(filter)
            .expect([[[[11.0f32]]]]),
        plain("Dilation2DBackpropInput").input(gradient).expect([[
            [[0.0f32], [0.0], [0.0]],
            [[1.0], [2.0], [0.0]],
            [[3.0], [4.0], [0.0]],
        ]]),
        plain("Dilation2DBackpropFilter")
            .input(gradient)
            .expect([[[0.0f32], [0.0]], [[10.0], [0.0]]]),
    ];
    for dtype in [DType::Float64, DType::Half, DType::BFloat16, DType::Int32, DType::UInt8] {
        let cast = |value: Value| value.cast_exactly(dtype).expect("small numbers");
        cases.push(
            case("Dilation2D", "VALID", 1, 1)
                .input(cast([[[[1i32], [4]]]].into()))
                .input(cast([[[2i32], [1]]].into()))
                .expect(cast([[[[5i32]]]].into())),
        );
    }
    cases
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    use graph_core::Value;
    let numbers = |shape: &[usize], step: f64| {
        let count = shape.iter().product::<usize>();
        let elements: Vec<f64> = (0..count).map(|i| (i as f64 * step).sin()).collect();
        Value::from_vec(shape, elements).expect("a value")
    };
    ["SAME", "VALID"]
        .map(|padding| {
            GradientCase::new("Dilation2D")
                .attr("strides", [1i64, 2, 1, 1])
                .attr("rates", [1i64, 1, 2, 1])
                .attr("padding", padding)
                .input(numbers(&[1, 4, 5, 2], 0.9))
                .input(numbers(&[2, 2, 2], 0.7))
                .first_order_only()
        })
        .into()
}
