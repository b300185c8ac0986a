//! What poolings share: windows, strides and padding, and the shapes they give.

use graph_core::op::{InferenceContext, KernelRequest};
use graph_core::{Error, PartialShape, Result, Shape};

use super::windows::{Attrs, Format, four, output_dim, padding, window_too_large};
use crate::cpu::pooling::Pool2dGeometry;
use crate::cpu::window::Padding;

/// How windows of `size` slide, in the order batch, rows, columns, channels.
#[derive(Clone, Copy)]
pub(super) struct Pooling {
    pub(super) format: Format,
    pub(super) size: [usize; 4],
    strides: [usize; 4],
    padding: Padding,
}

impl Pooling {
    /// With windows and strides in the images' format, and the rest as attributes say.
    pub(super) fn new(attrs: &impl Attrs, size: &[i64], strides: &[i64]) -> Result<Self> {
        Self::in_format(attrs, Format::of(attrs)?, size, strides)
    }

    fn in_format(attrs: &impl Attrs, format: Format, size: &[i64], strides: &[i64]) -> Result<Self> {
        Ok(Self {
            format,
            size: four(size, format, "ksize")?,
            strides: four(strides, format, "strides")?,
            padding: padding(attrs, format, false)?[0],
        })
    }

    /// As the attributes say.
    pub(super) fn of(attrs: &impl Attrs) -> Result<Self> {
        let (size, strides): (Vec<i64>, Vec<i64>) = (attrs.read("ksize")?, attrs.read("strides")?);
        Self::new(attrs, &size, &strides)
    }

    /// As the attributes say, of an op without a data format.
    pub(super) fn nhwc(attrs: &impl Attrs) -> Result<Self> {
        let (size, strides): (Vec<i64>, Vec<i64>) = (attrs.read("ksize")?, attrs.read("strides")?);
        Self::in_format(attrs, Format::Nhwc, &size, &strides)
    }

    /// As the attributes say, or where there are none the inputs `first` and the next one.
    pub(super) fn planned(request: &KernelRequest<'_>, first: usize) -> Result<Self> {
        if request.attrs.get("ksize").is_some() {
            return Self::of(request);
        }
        let (size, strides) = (
            request.value(first)?.to_i64_vec()?,
            request.value(first + 1)?.to_i64_vec()?,
        );
        Self::new(request, &size, &strides)
    }

    /// Infers the shape of output 0 from input 0.
    pub(super) fn infer(&self, context: &mut InferenceContext<'_>) -> Result<()> {
        let shape = self.infer_shape(context)?;
        context.set_output(0, shape);
        Ok(())
    }

    /// What is known of the pooled shape of input 0.
    pub(super) fn infer_shape(&self, context: &InferenceContext<'_>) -> Result<PartialShape> {
        let dims = self.format.dims(&context.with_rank(0, 4)?);
        let along = |axis: usize| output_dim(dims[axis], Some(self.size[axis]), self.strides[axis], 1, self.padding);
        let pooled = [dims[0], along(1)?, along(2)?, along(3)?];
        Ok(self.format.shape(pooled))
    }

    /// The windows over images of this shape.
    pub(super) fn geometry(&self, images: &Shape) -> Result<Pool2dGeometry> {
        self.check_batch()?;
        if self.size[3] != 1 || self.strides[3] != 1 {
            return Err(Error::unimplemented(
                "pooling over channels is only supported by MaxPool itself",
            ));
        }
        let images = self.format.sizes(images)?;
        let (size, strides) = ([self.size[1], self.size[2]], [self.strides[1], self.strides[2]]);
        Pool2dGeometry::new(images, size, strides, [self.padding; 2])
            .ok_or_else(|| window_too_large(size[0].max(size[1]), images[1].min(images[2])))
    }

    fn check_batch(&self) -> Result<()> {
        if self.size[0] == 1 && self.strides[0] == 1 {
            return Ok(());
        }
        Err(Error::unimplemented("pooling over the batch is not supported"))
    }

    /// Whether windows over channels lie side by side, as TensorFlow wants them.
    pub(super) fn check_over_channels(&self, images: &Shape) -> Result<()> {
        self.check_batch()?;
        let [_, rows, columns, depth] = self.size;
        if rows != 1 || columns != 1 || self.strides[1] != 1 || self.strides[2] != 1 {
            return Err(Error::unimplemented(
                "pooling goes over rows and columns or over channels, not over both",
            ));
        }
        let channels = self.format.sizes(images)?[3];
        if self.format != Format::Nhwc || depth != self.strides[3] || !channels.is_multiple_of(depth) {
            return Err(
                Error::unimplemented("windows over channels must lie side by side and divide the channels").got(
                    format!(
                        "windows of {depth}, strides of {}, {channels} channels",
                        self.strides[3]
                    ),
                ),
            );
        }
        Ok(())
    }
}

/// The options of a pooling's builder.
macro_rules! pool_options {
    ($builder:ident) => {
        impl $builder {
            /// The size of a window along each axis of the images; 1 for the batch. Required.
            pub fn ksize(self, size: [i64; 4]) -> Self {
                Self(self.0.attr("ksize", size))
            }

            /// Pixels from one window to the next, for each axis of the images. Required.
            pub fn strides(self, strides: [i64; 4]) -> Self {
                Self(self.0.attr("strides", strides))
            }

            /// `"VALID"`: only windows inside the images; `"SAME"`: as many as `ceil(pixels / stride)`, and padding takes no
            /// part in them. Required.
            pub fn padding(self, padding: &str) -> Self {
                Self(self.0.attr("padding", padding))
            }

            /// The order of the images' axes: `"NHWC"` (without this) or `"NCHW"`.
            pub fn data_format(self, format: &str) -> Self {
                Self(self.0.attr("data_format", format))
            }
        }
    };
}
pub(super) use pool_options;
