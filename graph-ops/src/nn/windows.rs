//! What windowed ops share: their attributes, the shapes these give, and images in either data format.

use graph_core::gradients::GradientContext;
use graph_core::graph::OpBuilder;
use graph_core::op::{FromAttr, InferenceContext, KernelRequest};
use graph_core::shape::Dim;
use graph_core::{Error, PartialShape, Result, Shape};

use crate::cpu::scratch::{Plain, with_scratch};
use crate::cpu::transpose::transpose;
use crate::cpu::window::Padding;

/// Where attributes are read from: a shape function's context or a kernel's request.
pub(super) trait Attrs {
    fn read<T: FromAttr>(&self, name: &str) -> Result<T>;
}

impl Attrs for InferenceContext<'_> {
    fn read<T: FromAttr>(&self, name: &str) -> Result<T> {
        self.attr(name)
    }
}

impl Attrs for KernelRequest<'_> {
    fn read<T: FromAttr>(&self, name: &str) -> Result<T> {
        self.attr(name)
    }
}

/// The order of an image batch's four axes; ours, inside, is always batch, rows, columns, channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Nhwc,
    Nchw,
}

impl Format {
    /// As the attribute `data_format` says.
    pub(super) fn of(attrs: &impl Attrs) -> Result<Self> {
        match attrs.read::<String>("data_format")?.as_str() {
            "NHWC" => Ok(Self::Nhwc),
            "NCHW" => Ok(Self::Nchw),
            other => Err(Error::unimplemented("the data format is not supported")
                .expected("NHWC or NCHW")
                .got(other)),
        }
    }

    /// The axis of the channels.
    pub(super) fn channels(self, rank: usize) -> usize {
        match self {
            Self::Nhwc => rank - 1,
            Self::Nchw => 1,
        }
    }

    /// Four things in this format's order, in the order batch, rows, columns, channels.
    pub(super) fn to_nhwc<T: Copy>(self, list: [T; 4]) -> [T; 4] {
        match self {
            Self::Nhwc => list,
            Self::Nchw => [list[0], list[2], list[3], list[1]],
        }
    }

    /// The inverse of [`Format::to_nhwc`].
    pub(super) fn of_nhwc<T: Copy>(self, list: [T; 4]) -> [T; 4] {
        match self {
            Self::Nhwc => list,
            Self::Nchw => [list[0], list[3], list[1], list[2]],
        }
    }

    /// The dimensions of images of rank 4, in our order.
    pub(super) fn dims(self, shape: &PartialShape) -> [Dim; 4] {
        self.to_nhwc(std::array::from_fn(|axis| shape.dim(axis)))
    }

    /// The shape of images with these dimensions.
    pub(super) fn shape(self, dims: [Dim; 4]) -> PartialShape {
        PartialShape::from(self.of_nhwc(dims))
    }

    /// The sizes of images of rank 4, in our order.
    pub(super) fn sizes(self, shape: &Shape) -> Result<[usize; 4]> {
        let sizes: [usize; 4] = shape
            .dims()
            .try_into()
            .map_err(|_| Error::invalid_argument("images must have four axes").got(shape))?;
        Ok(self.to_nhwc(sizes))
    }

    /// Lends `f` images in our order; `sizes` are theirs.
    pub(super) fn read<T: Plain + Send + Sync, R>(
        self,
        sizes: [usize; 4],
        images: &[T],
        f: impl FnOnce(&[T]) -> R,
    ) -> R {
        if self == Self::Nhwc {
            return f(images);
        }
        with_scratch(images.len(), |ours: &mut [T]| {
            transpose(images, &self.of_nhwc(sizes), &[0, 2, 3, 1], ours);
            f(ours)
        })
    }

    /// Lets `f` write images in our order; `sizes` are theirs.
    pub(super) fn write<T: Plain + Send + Sync>(self, sizes: [usize; 4], images: &mut [T], f: impl FnOnce(&mut [T])) {
        if self == Self::Nhwc {
            return f(images);
        }
        with_scratch(images.len(), |ours: &mut [T]| {
            f(ours);
            transpose(ours, &sizes, &[0, 3, 1, 2], images);
        });
    }
}

/// Four positive numbers, an axis each, in our order.
pub(super) fn four(list: &[i64], format: Format, what: &str) -> Result<[usize; 4]> {
    let numbers: Option<Vec<usize>> = list
        .iter()
        .map(|&number| usize::try_from(number).ok().filter(|&number| number > 0))
        .collect();
    numbers
        .and_then(|numbers| <[usize; 4]>::try_from(numbers).ok())
        .map(|numbers| format.to_nhwc(numbers))
        .ok_or_else(|| {
            Error::invalid_argument(format!("{what} must be four positive numbers"))
                .expected("one for each axis of the images")
                .got(format!("{list:?}"))
        })
}

/// The padding of rows and of columns, from the attributes `padding` and, for convolutions, `explicit_paddings`.
pub(super) fn padding(attrs: &impl Attrs, format: Format, explicit: bool) -> Result<[Padding; 2]> {
    let padding: String = attrs.read("padding")?;
    let amounts: Vec<i64> = if explicit {
        attrs.read("explicit_paddings")?
    } else {
        Vec::new()
    };
    if padding != "EXPLICIT" && !amounts.is_empty() {
        return Err(
            Error::invalid_argument("'explicit_paddings' must be empty unless the padding is EXPLICIT")
                .got(format!("{amounts:?} with padding {padding}")),
        );
    }
    match padding.as_str() {
        "VALID" => Ok([Padding::Valid; 2]),
        "SAME" => Ok([Padding::Same; 2]),
        _ => explicit_padding(&amounts, format),
    }
}

fn explicit_padding(amounts: &[i64], format: Format) -> Result<[Padding; 2]> {
    let wrong = |expected: &str| {
        Err(Error::invalid_argument("'explicit_paddings' does not fit")
            .expected(expected)
            .got(format!("{amounts:?}")))
    };
    let Some(pairs) = amounts
        .iter()
        .map(|&amount| usize::try_from(amount).ok())
        .collect::<Option<Vec<usize>>>()
        .and_then(|amounts| <[usize; 8]>::try_from(amounts).ok())
    else {
        return wrong("eight numbers, none negative: before and after each axis of the images");
    };
    let [batch, rows, columns, channels] =
        format.to_nhwc(std::array::from_fn(|axis| (pairs[2 * axis], pairs[2 * axis + 1])));
    if batch != (0, 0) || channels != (0, 0) {
        return wrong("no padding of the batch and of the channels");
    }
    Ok([rows, columns].map(|(before, after)| Padding::Explicit { before, after }))
}

/// How windows slide over rows and columns.
#[derive(Clone, Copy)]
pub(super) struct Sliding {
    pub(super) format: Format,
    pub(super) strides: [usize; 2],
    pub(super) dilations: [usize; 2],
    pub(super) padding: [Padding; 2],
}

impl Sliding {
    /// As the attributes of a convolution say; `explicit` if it can have explicit padding.
    pub(super) fn of(attrs: &impl Attrs, explicit: bool) -> Result<Self> {
        let format = Format::of(attrs)?;
        let spatial = |name: &str| {
            let [batch, rows, columns, channels] = four(&attrs.read::<Vec<i64>>(name)?, format, name)?;
            if batch != 1 || channels != 1 {
                return Err(Error::invalid_argument(format!(
                    "{name} in the batch and in the channels must be 1"
                )));
            }
            Ok([rows, columns])
        };
        Ok(Self {
            format,
            strides: spatial("strides")?,
            dilations: spatial("dilations")?,
            padding: padding(attrs, format, explicit)?,
        })
    }

    /// The number of windows along rows and columns, as far as it is known.
    pub(super) fn outputs(&self, images: [Dim; 2], window: [Dim; 2]) -> Result<[Dim; 2]> {
        let along = |d: usize| {
            output_dim(
                images[d],
                window[d],
                self.strides[d],
                self.dilations[d],
                self.padding[d],
            )
        };
        Ok([along(0)?, along(1)?])
    }
}

/// The number of windows along one axis, as far as it is known.
pub(super) fn output_dim(input: Dim, size: Dim, stride: usize, dilation: usize, padding: Padding) -> Result<Dim> {
    let Some(input) = input else { return Ok(None) };
    let around = match padding {
        Padding::Same => return Ok(Some(input.div_ceil(stride))),
        Padding::Valid => 0,
        Padding::Explicit { before, after } => before.saturating_add(after),
    };
    let Some(size) = size else { return Ok(None) };
    let effective = size
        .saturating_sub(1)
        .saturating_mul(dilation)
        .saturating_add(size.min(1));
    match input.saturating_add(around).checked_sub(effective) {
        Some(room) => Ok(Some(room / stride + 1)),
        None => Err(window_too_large(effective, input + around)),
    }
}

/// The error of a window that is larger than what it slides over.
pub(super) fn window_too_large(window: usize, input: usize) -> Error {
    Error::invalid_argument("the window is larger than the images with their padding")
        .expected(format!("at most {input} pixels"))
        .got(format!("{window} pixels"))
        .hint("take a smaller window, or padding SAME")
}

/// An op of type `op` with the forward operation's attributes `names`.
pub(super) fn with_attrs_of(context: &GradientContext<'_>, op: &str, names: &[&'static str]) -> Result<OpBuilder> {
    names.iter().try_fold(context.node(op), |builder, name| {
        Ok(builder.attr(name, context.attr_value(name)?))
    })
}

/// An error unless the two shapes, of an op's argument `what` and as its windows give it, are equal.
pub(super) fn require_shape(what: &str, got: &Shape, expected: &[usize]) -> Result<()> {
    if got.dims() == expected {
        return Ok(());
    }
    Err(
        Error::invalid_argument(format!("{what} has another shape than the windows give"))
            .expected(Shape::new(expected))
            .got(got),
    )
}

/// Adds a kernel for each floating-point dtype that `T` can be: `make::<dtype>`.
macro_rules! floating_kernels {
    ($definition:expr, $make:ident) => {
        $definition
            .kernel(graph_core::op::KernelDefinition::cpu($make::<f32>).types("T", &[graph_core::DType::Float32]))
            .kernel(graph_core::op::KernelDefinition::cpu($make::<f64>).types("T", &[graph_core::DType::Float64]))
            .kernel(graph_core::op::KernelDefinition::cpu($make::<half::f16>).types("T", &[graph_core::DType::Half]))
            .kernel(
                graph_core::op::KernelDefinition::cpu($make::<half::bf16>).types("T", &[graph_core::DType::BFloat16]),
            )
    };
}
pub(super) use floating_kernels;
