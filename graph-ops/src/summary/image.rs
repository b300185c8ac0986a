//! `ImageSummary`: pictures.

use graph_core::format::proto::summary::value::Value as Content;
use graph_core::format::proto::summary::{Image, Value as Entry};
use graph_core::graph::IntoOperand;
use graph_core::op::{AttrDef, AttrType, AttrValue, InferenceContext, KernelContext, KernelDefinition, KernelRequest};
use graph_core::op::{OpDefinition, Planned};
use graph_core::{DType, Element, Error, Result, Value};

use super::scope::{Draft, set_summary, summary_builder, tag};

/// The definition of `ImageSummary`.
pub(crate) fn definition() -> OpDefinition {
    let mut definition = OpDefinition::new(
        "ImageSummary",
        "A summary of pictures: a batch of shape [batch, height, width, channels] with 1, 3 or 4 channels.",
    )
    .input("tag: string")
    .input("tensor: T")
    .output("summary: string")
    .attr("max_images: int >= 1 = 3")
    .attr("T: {uint8, float, half, double} = DT_FLOAT")
    .may_fail()
    .shape(InferenceContext::scalars)
    .not_differentiable()
    .kernel(KernelDefinition::cpu(make::<u8>).types("T", &[DType::UInt8]))
    .kernel(KernelDefinition::cpu(make::<f32>).types("T", &[DType::Float32]))
    .kernel(KernelDefinition::cpu(make::<half::f16>).types("T", &[DType::Half]))
    .kernel(KernelDefinition::cpu(make::<f64>).types("T", &[DType::Float64]));
    definition.attrs.push(AttrDef {
        name: "bad_color",
        ty: AttrType::Tensor,
        default: Some(AttrValue::Tensor(Value::from([255u8, 0, 0, 255]))),
        minimum: None,
        allowed_types: Vec::new(),
        allowed_strings: Vec::new(),
    });
    definition
}

/// An element of a picture.
trait Sample: Element {
    /// Pixels as bytes; those with an element that is not finite take `bad_color`.
    fn to_bytes(image: &[Self], depth: usize, bad_color: &[u8]) -> Vec<u8>;
}

impl Sample for u8 {
    fn to_bytes(image: &[u8], _depth: usize, _bad_color: &[u8]) -> Vec<u8> {
        image.to_vec()
    }
}

macro_rules! real_samples {
    ($($type:ty: $from:expr, $to:expr;)*) => {$(
        impl Sample for $type {
            fn to_bytes(image: &[$type], depth: usize, bad_color: &[u8]) -> Vec<u8> {
                let to_f32: fn($type) -> f32 = $to;
                let from_f32: fn(f32) -> $type = $from;
                let (scale, offset) = range(image.chunks_exact(depth).filter(|pixel| finite(pixel, to_f32)), to_f32);
                let (scale, offset) = (from_f32(scale), from_f32(offset));
                let mut bytes = Vec::with_capacity(image.len());
                for pixel in image.chunks_exact(depth) {
                    if finite(pixel, to_f32) {
                        bytes.extend(pixel.iter().map(|&x| to_f32(x * scale + offset) as u8));
                    } else {
                        bytes.extend_from_slice(&bad_color[..depth]);
                    }
                }
                bytes
            }
        }
    )*};
}

real_samples! {
    f32: |x| x, |x| x;
    f64: f64::from, |x| x as f32;
    half::f16: half::f16::from_f32, half::f16::to_f32;
}

fn finite<T: Copy>(pixel: &[T], to_f32: fn(T) -> f32) -> bool {
    pixel.iter().all(|&x| to_f32(x).is_finite())
}

/// The scale and offset that bring these pixels to 0..=255: around 128 if any is negative, else from 0.
fn range<'a, T: Copy + 'a>(pixels: impl Iterator<Item = &'a [T]>, to_f32: fn(T) -> f32) -> (f32, f32) {
    let (least, greatest) = pixels
        .flatten()
        .map(|&x| to_f32(x))
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(least, greatest), x| {
            (least.min(x), greatest.max(x))
        });
    let over = |full: f32, extent: f32| if extent < 1e-6 { 0.0 } else { full / extent };
    if least < 0.0 {
        (over(127.0, least.abs().max(greatest.abs())), 128.0)
    } else {
        (over(255.0, greatest), 0.0)
    }
}

fn make<T: Sample>(request: &KernelRequest<'_>) -> Result<Planned> {
    let limit: i64 = request.attr("max_images")?;
    let bad_color: Value = request.attr("bad_color")?;
    let shape = request.input_shape(1).clone();
    let &[batch, height, width, depth @ (1 | 3 | 4)] = shape.dims() else {
        return Err(Error::invalid_argument("a picture has 1, 3 or 4 channels")
            .expected("a tensor of shape [batch, height, width, 1 or 3 or 4]")
            .got(format!("shape {shape}")));
    };
    let bad_color = match bad_color.as_slice::<u8>() {
        Ok(color) if color.len() >= depth => color.to_vec(),
        _ => {
            return Err(Error::invalid_argument("bad_color needs a byte for each channel")
                .expected(format!("at least {depth} bytes"))
                .got(bad_color));
        }
    };
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let tag = tag(context)?;
        let tensor = context.input::<T>(1)?;
        let count = usize::try_from(limit).unwrap_or(batch).min(batch);
        let size = height * width * depth;
        let mut entries = Vec::with_capacity(count);
        for index in 0..count {
            let bytes = T::to_bytes(&tensor[index * size..(index + 1) * size], depth, &bad_color);
            let image = Image {
                height: height as i32,
                width: width as i32,
                colorspace: depth as i32,
                encoded_image_string: encode_png(&bytes, width, height, depth)?,
            };
            entries.push(Entry {
                tag: match limit {
                    1 => format!("{tag}/image"),
                    _ => format!("{tag}/image/{index}"),
                },
                value: Some(Content::Image(image)),
                ..Entry::default()
            });
        }
        set_summary(context, entries);
        Ok(())
    }))
}

/// The picture as a PNG file: 8 bits a channel; gray, RGB or RGBA.
fn encode_png(bytes: &[u8], width: usize, height: usize, depth: usize) -> Result<Vec<u8>> {
    let failed = |error: png::EncodingError| {
        Error::invalid_argument("the picture cannot be encoded as PNG")
            .got(format!("width {width}, height {height}"))
            .caused_by(error)
    };
    let too_large = |_| Error::invalid_argument("the picture is too large for PNG").got(format!("{width} x {height}"));
    let (columns, rows) = (
        u32::try_from(width).map_err(too_large)?,
        u32::try_from(height).map_err(too_large)?,
    );
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, columns, rows);
    encoder.set_color(match depth {
        1 => png::ColorType::Grayscale,
        3 => png::ColorType::Rgb,
        _ => png::ColorType::Rgba,
    });
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(bytes).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(file)
}

summary_builder! {
    /// A summary about to be made; see [`image`].
    ImageSummary, "ImageSummary", max_images: i64
}

impl ImageSummary {
    /// How many pictures of the batch are shown; 3 without.
    pub fn max_outputs(mut self, count: i64) -> Self {
        self.max_images = count;
        self
    }
}

/// A summary of pictures, for TensorBoard's Images: `tensor` has shape [batch, height, width, channels] with 1 (gray), 3
/// (RGB) or 4 (RGBA) channels. The tag is the name in its scope; the summary joins the collection `summaries`.
///
/// `uint8` pictures are shown as they are. Floating-point ones are scaled, each by itself: to 0..=255 by its maximum, or
/// around 128 by its greatest magnitude if it has negative numbers. A pixel that is not finite is red.
#[track_caller]
pub fn image(name: &str, tensor: impl IntoOperand) -> ImageSummary {
    ImageSummary {
        draft: Draft::new(name, tensor),
        max_images: 3,
    }
}

/// What pictures become is seen by decoding them: in the tests below.
#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    let none = Value::zeros(DType::UInt8, [0, 2, 2, 1]).expect("no elements");
    vec![
        crate::testing::Case::new("ImageSummary")
            .input("t")
            .input(none)
            .expect(""),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;

    fn pixels(entry: &Entry) -> Vec<u8> {
        let Some(Content::Image(image)) = &entry.value else {
            panic!("an image");
        };
        let mut reader = png::Decoder::new(std::io::Cursor::new(&image.encoded_image_string))
            .read_info()
            .unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!((info.width as i32, info.height as i32), (image.width, image.height));
        bytes
    }

    fn run(case: Case) -> Vec<(String, Vec<u8>)> {
        let summary = super::super::scope::decode(&case.run().unwrap());
        summary
            .value
            .iter()
            .map(|entry| (entry.tag.clone(), pixels(entry)))
            .collect()
    }

    fn picture<T: Element>(elements: &[T], shape: [usize; 4]) -> Value {
        Value::from_vec(shape, elements).unwrap()
    }

    #[test]
    fn bytes_pass_through() {
        let bytes: Vec<u8> = (0..24).collect();
        let case = Case::new("ImageSummary")
            .input("t")
            .input(picture(&bytes, [2, 1, 4, 3]));
        let expected = vec![
            ("t/image/0".to_owned(), bytes[..12].to_vec()),
            ("t/image/1".to_owned(), bytes[12..].to_vec()),
        ];
        assert_eq!(run(case), expected);
        let one = Case::new("ImageSummary").attr("max_images", 1i64).input("t");
        assert_eq!(
            run(one.input(picture(&bytes, [6, 2, 2, 1])))[0],
            ("t/image".to_owned(), vec![0, 1, 2, 3])
        );
    }

    #[test]
    fn numbers_are_scaled_picture_by_picture() {
        let case = |value| run(Case::new("ImageSummary").input("t").input(value));
        let shown = case(picture(&[0.0f32, 1.0, 2.0, 4.0, -1.0, 0.0, 0.5, 1.0], [2, 2, 2, 1]));
        assert_eq!(shown[0].1, [0, 63, 127, 255]);
        assert_eq!(shown[1].1, [1, 128, 191, 255]);
        assert_eq!(case(picture(&[1e-7f64, 0.0], [1, 1, 2, 1]))[0].1, [0, 0]);
        let half = [0.0f32, 0.5, 1.0].map(half::f16::from_f32);
        assert_eq!(case(picture(&half, [1, 1, 3, 1]))[0].1, [0, 127, 255]);
    }

    #[test]
    fn pixels_that_are_not_finite_are_red() {
        let elements = [f32::NAN, 1.0, 1.0, 2.0, 0.0, 1.0];
        let case = Case::new("ImageSummary")
            .input("t")
            .input(picture(&elements, [1, 1, 2, 3]));
        assert_eq!(run(case)[0].1, [255, 0, 0, 255, 0, 127]);
    }

    #[test]
    fn what_is_no_picture_is_an_error() {
        let case = |shape: [usize; 4]| {
            let value = Value::zeros(DType::Float32, shape).unwrap();
            Case::new("ImageSummary").input("t").input(value).run()
        };
        assert_eq!(case([1, 2, 2, 2]).unwrap_err().class(), "InvalidArgument");
        assert_eq!(case([1, 0, 2, 1]).unwrap_err().class(), "InvalidArgument");
    }
}
